//! Replaces (RFC 3891): an INVITE that takes the place of a leg in its call. Whom that leg talked
//! with, a voice agent or another leg, talks with the new one; the replaced one is let go.
//!
//! The new leg goes on with the media session of the old one, so that whoever stays hears the
//! same source go on, and a voice agent keeps its ear and its recording.

use std::net::IpAddr;
use std::sync::Arc;

use base::{Event, LegId, Personal, Reason, TrunkName};
use policy::Terms;
use sip::transaction::ServerKey;
use sip::{Dialog, DialogId, Message, Name, Request, ids};

use crate::bridge::Call;
use crate::calls::Calls;
use crate::contract::{Output, Peer, Record};
use crate::desk::Desk;
use crate::dial::Waiting;
use crate::hold;
use crate::leg::{Leg, PendingInvite, Stage};
use crate::negotiate::Agreed;
use crate::pass::Passing;

/// What a Replaces value names, seen from us: its `to-tag` is ours (RFC 3891 section 3).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replaces {
    /// The dialog.
    pub(crate) dialog: DialogId,
    /// Whether it is to be replaced only while nobody has answered.
    pub(crate) early_only: bool,
}

impl Replaces {
    /// Reads a value; `None` where it is not one of RFC 3891 section 6.1: exactly one of each tag.
    pub(crate) fn parse(value: &str) -> Option<Self> {
        let mut parts = value.split(';').map(str::trim);
        let call_id = parts.next().filter(|it| !it.is_empty() && !it.contains([' ', ',']))?;
        let (mut to, mut from, mut early_only) = (None, None, false);
        for part in parts {
            let (name, value) = part.split_once('=').map_or((part, None), |(name, value)| {
                (name.trim_end(), Some(value.trim_start().to_owned()))
            });
            match name.to_ascii_lowercase().as_str() {
                "to-tag" if to.is_none() => to = Some(value?),
                "from-tag" if from.is_none() => from = Some(value?),
                "to-tag" | "from-tag" => return None,
                "early-only" => early_only = true,
                _ => {}
            }
        }
        let (local_tag, remote_tag) = (to?, from?);
        let dialog = DialogId { call_id: call_id.to_owned(), local_tag, remote_tag };
        Some(Self { dialog, early_only })
    }
}

/// An INVITE that is to take a leg's place.
struct Successor {
    peer: Arc<Peer>,
    trunk: TrunkName,
    terms: Terms,
    dialog: Dialog,
    key: ServerKey,
    invite: Request,
}

impl Calls {
    /// An INVITE with Replaces. Nothing stands against it otherwise.
    pub(crate) fn on_replacing(
        &mut self,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        key: ServerKey,
        invite: Request,
    ) {
        let leg = match self.replaced_by(trunk, &invite) {
            Ok(leg) => leg,
            Err(reason) => return self.refuse_successor(peer, trunk, key, &invite, reason),
        };
        let tag = ids::new_tag(self.shard, &mut *self.random);
        let Ok(dialog) = Dialog::uas(&invite, &tag) else {
            return self.refuse(key, &invite, Reason::Malformed, true);
        };
        let Some(terms) = self.setup.policy.terms(trunk, self.wall) else {
            return self.refuse_successor(peer, trunk, key, &invite, Reason::NoDialog);
        };
        if self.call(leg.call).is_some_and(|call| call.keeps_more_than(leg.index, &terms)) {
            let reason = Reason::TransferRefused;
            return self.refuse_successor(peer, trunk, key, &invite, reason);
        }
        self.ledger.attempt(self.now, trunk);
        let (peer, trunk) = (Arc::clone(peer), trunk.clone());
        let successor = Successor { peer, trunk, terms, dialog, key, invite };
        self.with_leg(leg, |call, at, desk| call.replace(desk, at, successor));
    }

    /// The leg that an INVITE may take the place of. Only its own trunk may: a stranger learns
    /// that there is no such dialog, whatever there is.
    fn replaced_by(&self, trunk: &TrunkName, invite: &Request) -> Result<LegId, Reason> {
        let mut values = invite.headers.all(Name::Replaces);
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Reason::Malformed); // RFC 3891 section 3: exactly one
        };
        let replaces = value.text().and_then(Replaces::parse).ok_or(Reason::Malformed)?;
        let granted = self.grants.leg(self.now, &replaces.dialog, trunk);
        let id = granted.or_else(|| self.leg_with(&replaces.dialog)).ok_or(Reason::NoDialog)?;
        let is_known = |leg: &&Leg| granted.is_some() || leg.trunk == *trunk;
        let leg = self.leg(id).filter(is_known).ok_or(Reason::NoDialog)?;
        match leg.stage {
            // RFC 3891 section 3: an early dialog only where we began it.
            Stage::Inviting if leg.dial.is_none() => return Err(Reason::NoDialog),
            Stage::Inviting => {}
            Stage::Answered | Stage::Talking if replaces.early_only => return Err(Reason::Busy),
            Stage::Answered | Stage::Talking => {}
            // The same section: what has ended is declined.
            Stage::Ending | Stage::Moved | Stage::Gone => return Err(Reason::TransferRefused),
        }
        if leg.terms.transfer == policy::Transfer::Refuse {
            return Err(Reason::TransferRefused);
        }
        let call = self.call(id.call).ok_or(Reason::NoDialog)?;
        call.place_of(id.index).map(|()| id)
    }

    fn refuse_successor(
        &mut self,
        peer: &Peer,
        trunk: &TrunkName,
        key: ServerKey,
        invite: &Request,
        reason: Reason,
    ) {
        self.refuse(key, invite, reason, true);
        let (transport, trunk) = (peer.transport, Some(trunk.clone()));
        let source = Personal::new(peer.source);
        self.desk().record(Record::Refused { reason, source, transport, trunk });
    }
}

impl Call {
    /// Whether the place of a leg can be taken now.
    fn place_of(&self, index: u8) -> Result<(), Reason> {
        let at = self.place(index).ok_or(Reason::NoDialog)?;
        let leg = &self.legs[at];
        let is_target = self.is_dialled(index) && leg.stage == Stage::Inviting;
        let is_asked = self.passing.as_ref().is_some_and(Passing::is_asked);
        let is_busy = is_asked || leg.is_moving || leg.media.is_none();
        if is_busy || (self.transfer.is_some() && !is_target) {
            return Err(Reason::RequestPending);
        }
        let has_partner = match leg.partner {
            None => self.agent.is_some(),
            Some(_) => is_target || self.partner(at).is_some(),
        };
        if has_partner { Ok(()) } else { Err(Reason::TransferRefused) }
    }

    /// Whether a voice agent keeps of this leg what others' terms forbid: who comes in the middle
    /// of a call has not heard that it is recorded.
    fn keeps_more_than(&self, index: u8, terms: &Terms) -> bool {
        let forbids = |keep| keep != policy::Keep::Allowed;
        let is_agents = self.place(index).is_some_and(|at| self.legs[at].partner.is_none());
        let recording = self.keep.recording && forbids(terms.recording);
        is_agents && (recording || self.keep.transcript && forbids(terms.transcript))
    }

    /// Whether that leg is the one that is being dialled, or was dialled last.
    fn is_dialled(&self, index: u8) -> bool {
        self.route.as_ref().is_some_and(|route| route.callee == Some(index))
    }

    /// Lets a new leg take the place of the one at `at`. Where it cannot, all is as it was.
    fn replace(&mut self, desk: &mut Desk<'_>, at: usize, successor: Successor) {
        let Some(id) = self.next_leg() else {
            let response = desk.refusal(&successor.invite, Reason::TransferRefused, true);
            return desk.answer(successor.key, &response);
        };
        let source = Personal::new(successor.peer.source);
        let Some((mut leg, agreed)) = self.succeed(desk, at, id, successor) else { return };
        let (old, trunk) = (self.legs[at].id, leg.trunk.clone());
        leg.is_counted = match self.legs[at].trunk == trunk {
            true => std::mem::take(&mut self.legs[at].is_counted),
            false => {
                desk.ledger.begin_leg(&trunk);
                true
            }
        };
        desk.event(Event::LegReplaced { leg: old, by: id, trunk: trunk.clone() });
        desk.record(Record::Replaced { leg: old, by: id, trunk, source });
        desk.output(Output::HandOver { from: old, to: id });
        for other in &mut self.legs {
            if other.partner == Some(old.index) {
                other.partner = Some(id.index);
            }
        }
        if let Some(route) = self.route.as_mut().filter(|it| it.callee == Some(old.index)) {
            route.callee = Some(id.index);
        }
        // The caller's side stays the first.
        self.legs.insert(at, leg);
        // Its media was handed over: what the old leg releases is nothing.
        self.legs[at + 1].hang_up(desk, Reason::Transferred);
        if let Some(agreed) = agreed {
            let keys_exposed =
                agreed.has_told_keys() && self.legs[at].peer.as_ref().is_some_and(is_readable);
            if keys_exposed {
                desk.event(Event::KeysExposed { call: self.id });
            }
            self.apply(desk, at, &agreed);
        }
    }

    /// The leg `id` after the one at `at`, its INVITE answered with 200; `None` where it was
    /// refused.
    fn succeed(
        &self,
        desk: &mut Desk<'_>,
        at: usize,
        id: LegId,
        successor: Successor,
    ) -> Option<(Leg, Option<Agreed>)> {
        let Successor { peer, trunk, terms, dialog, key, invite } = successor;
        let old = &self.legs[at];
        let mut leg = Leg::new(id, trunk, terms, true, desk.now);
        (leg.peer, leg.dialog) = (Some(peer), Some(dialog));
        (leg.partner, leg.is_callers_side) = (old.partner, old.is_callers_side);
        (leg.is_held, leg.is_to_be_recorded) = (old.is_held, old.is_to_be_recorded);
        leg.note_allowed(&invite.headers);
        leg.note(desk, true, &Message::Request(invite.clone()));
        let refuse = |leg: &mut Leg, desk: &mut Desk<'_>, reason| {
            leg.refuse(desk, key, &invite, reason);
        };
        let media = old.media.as_ref().zip(old.reserved.clone());
        let Some((media, reserved)) = media else {
            refuse(&mut leg, desk, Reason::RequestPending);
            return None;
        };
        let mut media = media.successor(id, leg.terms.clone(), desk.random);
        self.beyond(old).into_iter().for_each(|beyond| media.follow(beyond));
        (leg.media, leg.reserved) = (Some(media), Some(reserved.clone()));
        leg.invite = Some(PendingInvite::new(key, invite.clone()));
        if !is_reachable(&invite, reserved.rtp.ip()) {
            refuse(&mut leg, desk, Reason::NoAudio);
            return None;
        }
        leg.accept_session_timer(desk).ok()?; // its refusal is sent
        match leg.accept_invite(desk) {
            Ok(agreed) => Some((leg, agreed)),
            Err(reason) => {
                refuse(&mut leg, desk, reason);
                None
            }
        }
    }

    /// A leg that took another one's place is acknowledged: who waited for the replaced one need
    /// wait no longer.
    pub(crate) fn successor_is_up(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &self.legs[at];
        if leg.is_caller() || leg.stage != Stage::Talking || !self.is_dialled(leg.id.index) {
            return;
        }
        match self.route.as_ref().map(|route| route.waiting) {
            Some(Waiting::Transfer { .. }) => self.target_is_up(desk, at),
            _ => self.answer_caller(desk),
        }
    }
}

/// Whether media can go to where an offer wants it from this address of ours.
fn is_reachable(invite: &Request, ours: IpAddr) -> bool {
    let Some(offer) = hold::offer_of(invite).ok().flatten() else { return true };
    // Where ICE finds the peer, the address of its line means nothing.
    let is_named = |line: &&sdp::Media| offer.attribute_of(line, "ice-ufrag").is_none();
    let lines = offer.media.iter().filter(|media| media.is_open_audio()).filter(is_named);
    let mut places = lines.filter_map(|media| offer.connection_of(media));
    places.all(|place| match place.host {
        sdp::Host::Ip(theirs) => theirs.is_ipv4() == ours.is_ipv4(),
        sdp::Host::Name { .. } => true,
    })
}

/// Whether keys that came from this peer could be read on their way.
fn is_readable(peer: &Arc<Peer>) -> bool {
    peer.transport.is_plaintext()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dialog(call_id: &str, to: &str, from: &str) -> DialogId {
        DialogId {
            call_id: call_id.to_owned(),
            local_tag: to.to_owned(),
            remote_tag: from.to_owned(),
        }
    }

    #[test]
    fn a_value_names_a_dialog_and_perhaps_only_an_early_one() {
        let plain = Replaces::parse("98732@sip.example.com;from-tag=r33;to-tag=44").unwrap();
        assert_eq!(plain.dialog, dialog("98732@sip.example.com", "44", "r33"));
        assert!(!plain.early_only);
        let early = Replaces::parse(" a ; To-Tag = 1 ; from-tag=2;early-only;x=y;z ").unwrap();
        assert_eq!((early.dialog, early.early_only), (dialog("a", "1", "2"), true));
    }

    #[test]
    fn a_value_without_its_two_tags_names_nothing() {
        for wrong in [
            "",
            "a",
            ";to-tag=1;from-tag=2",
            "a;to-tag=1",
            "a;to-tag;from-tag=2",
            "a;to-tag=1;to-tag=1;from-tag=2",
            "a;to-tag=1;from-tag=2;from-tag=3",
            "a, b;to-tag=1;from-tag=2",
        ] {
            assert_eq!(Replaces::parse(wrong), None, "{wrong}");
        }
    }
}
