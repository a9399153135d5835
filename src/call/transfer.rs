//! Transfer: a party of a call is carried to somebody else, because its peer asks with REFER
//! (RFC 3515, RFC 5589) or its voice agent does. The edge dials the new party itself, by the
//! routes that the one who asks could use for a call of its own; nobody is asked to call anybody.
//!
//! *Blind*: the new party is dialled, and joined when it answers. *Attended*: REFER names another
//! call of the same peer (Replaces, RFC 3891), whose far end is joined. Where it comes to nothing
//! the call is as it was, and who asked is told.

use base::{Event, Instant, LegId, Reason};
use policy::{Attempt, Destination, Offer, Verdict};
use sip::transaction::ServerKey;
use sip::{Name, Request, Status, Uri};

use crate::across;
use crate::bridge::Call;
use crate::contract::Output;
use crate::desk::{Desk, Join, Joined};
use crate::dial::{Failure, Waiting};
use crate::leg::{Leg, Stage};
use crate::negotiate::LegMedia;
use crate::pass::{self, Passing};
use crate::replaces::Replaces;

/// A transfer under way.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Who asked; `None` is the voice agent.
    referrer: Option<Referrer>,
    /// The leg that is carried to somebody else.
    pub(crate) stays: u8,
    /// Whether the voice agent speaks with the new party first.
    is_announced: bool,
    /// The leg of the new party, while the voice agent speaks with it, or while it moves here
    /// from another call.
    target: Option<u8>,
    /// By when the far end of another call must be here.
    pub(crate) joined_by: Option<Instant>,
}

/// A leg that sent REFER.
#[derive(Clone, Copy, Debug)]
struct Referrer {
    leg: u8,
    /// The CSeq of its REFER, by which it knows our NOTIFYs (RFC 3515 section 2.4.6).
    id: u32,
    /// Whether it wants them (RFC 4488).
    subscribes: bool,
}

impl Call {
    /// A peer asks us to carry its other party to somebody else.
    pub(crate) fn on_refer(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
    ) {
        let (place, replaces) = match self.transfer_target(desk.now, at, request) {
            Ok(target) => target,
            Err(reason) => return self.legs[at].refuse(desk, key, request, reason),
        };
        if self.legs[at].terms.transfer == policy::Transfer::Pass {
            // Only who has answered gets such a name.
            if replaces.as_ref().is_some_and(|replaces| replaces.early_only) {
                return self.legs[at].refuse(desk, key, request, Reason::Busy);
            }
            let dialog = replaces.map(|replaces| replaces.dialog);
            return self.pass(desk, at, (key, request), (&place, dialog));
        }
        let Some(stays) = self.legs[at].partner else { return };
        let leg = &mut self.legs[at];
        leg.accept_refer(desk, key, request);
        let headers = &request.headers;
        let referrer = Referrer {
            leg: leg.id.index,
            id: headers.cseq().map_or(0, |cseq| cseq.number),
            subscribes: !pass::declines_news(request),
        };
        let joined_by = replaces.is_some().then(|| across::patience(desk.now));
        self.transfer = Some(Transfer {
            referrer: Some(referrer),
            stays,
            is_announced: false,
            target: None,
            joined_by,
        });
        self.notify_referrer(desk, Status::TRYING);
        match replaces {
            Some(Replaces { dialog, early_only }) => desk.joins.push_back(Join {
                leg: LegId { call: self.id, index: stays },
                trunk: self.legs[at].trunk.clone(),
                dialog,
                early_only,
                how: Joined::Here,
            }),
            None => self.dial_transfer(desk, at, &place),
        }
    }

    /// What stands against a REFER, or where it points.
    fn transfer_target(
        &self,
        now: Instant,
        at: usize,
        request: &Request,
    ) -> Result<(Uri, Option<Replaces>), Reason> {
        let leg = &self.legs[at];
        let is_passing = self.passing.as_ref().is_some_and(|passing| passing.is_busy(now));
        if leg.stage != Stage::Talking || self.transfer.is_some() || is_passing {
            return Err(Reason::RequestPending);
        }
        if leg.terms.transfer == policy::Transfer::Refuse {
            return Err(Reason::TransferRefused);
        }
        if self.partner(at).is_none_or(|other| self.legs[other].stage != Stage::Talking) {
            // A voice agent is not carried away from its edge.
            return Err(Reason::TransferRefused);
        }
        // RFC 3515 section 2.4.2: exactly one.
        let places = request.headers.addresses(Name::ReferTo).map_err(|_| Reason::Malformed)?;
        let [place] = &places[..] else { return Err(Reason::Malformed) };
        let is_call = place.uri.param("method").is_none_or(|it| it.eq_ignore_ascii_case("INVITE"));
        let mut headers = place.uri.headers();
        let replaces = headers.find(|(name, _)| name.eq_ignore_ascii_case("Replaces"));
        // A dialog says whom it is with; softphones name our Contact, which has no user.
        let is_named = replaces.is_some() || place.uri.user().is_some();
        if !is_call || !is_named && place.uri.number().is_none() {
            return Err(Reason::TransferRefused);
        }
        // Within a URI it is escaped.
        let replaces = replaces
            .map(|(_, value)| Replaces::parse(&sip::uri::unescape(value)).ok_or(Reason::Malformed));
        Ok((place.uri.clone(), replaces.transpose()?))
    }

    /// The voice agent carries its caller to somebody else.
    pub(crate) fn on_agent_transfer(&mut self, desk: &mut Desk<'_>, to: &str, is_announced: bool) {
        let is_agents = |leg: &Leg| leg.stage == Stage::Talking && leg.partner.is_none();
        let caller = self.legs.iter().position(is_agents).filter(|_| self.transfer.is_none());
        let place = Uri::parse(to).or_else(|_| Uri::parse(&format!("tel:{to}")));
        let (Ok(place), Some(at)) = (place, caller) else {
            let reason = Reason::TransferRefused;
            return desk.output(Output::TransferFailed { call: self.id, reason });
        };
        let stays = self.legs[at].id.index;
        self.transfer =
            Some(Transfer { referrer: None, stays, is_announced, target: None, joined_by: None });
        self.dial_transfer(desk, at, &place);
    }

    /// The new party has answered: it is joined, unless the voice agent has to say something first.
    pub(crate) fn target_is_up(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &mut self.legs[at];
        match &mut self.transfer {
            Some(transfer) if transfer.is_announced => {
                transfer.target = Some(leg.id.index);
                leg.partner = None;
                self.join(desk, at);
                self.ring(desk, false);
                self.reach_target(desk, at);
            }
            _ => self.transferred(desk, at),
        }
    }

    /// Lets the voice agent speak with the new party of an announced transfer, once it is heard.
    fn reach_target(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &self.legs[at];
        if leg.media.as_ref().is_some_and(LegMedia::is_heard) {
            desk.output(Output::TargetReached { leg: leg.id });
        }
    }

    /// The new party of an announced transfer is heard from now on.
    pub(crate) fn target_is_secured(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &self.legs[at];
        let is_announced = self.transfer.as_ref().is_some_and(|transfer| transfer.is_announced);
        if is_announced && leg.stage == Stage::Talking && self.is_target(leg.id.index) {
            self.reach_target(desk, at);
        }
    }

    /// Whether a leg is the new party of a transfer that it has not accepted yet.
    pub(crate) fn is_target(&self, index: u8) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| transfer.target == Some(index))
    }

    /// What the new party says to an announced transfer.
    pub(crate) fn on_transfer_answer(&mut self, desk: &mut Desk<'_>, is_accepted: bool) {
        let target = self.transfer.as_ref().and_then(|transfer| transfer.target);
        let Some(at) = target.and_then(|target| self.place(target)) else { return };
        if is_accepted {
            return self.transferred(desk, at);
        }
        self.leg_lost(desk, at, Reason::Declined);
    }

    /// The far end of another call is not here in time.
    pub(crate) fn on_join_timeout(&mut self, desk: &mut Desk<'_>) {
        let Some(transfer) = self.transfer.as_mut() else { return };
        if transfer.joined_by.take_if(|by| *by <= desk.now).is_none() {
            return;
        }
        match transfer.target.and_then(|target| self.place(target)) {
            Some(at) => self.leg_lost(desk, at, Reason::RelayFull),
            None => self.transfer_failed(desk, Failure::of(Reason::TransferRefused)),
        }
    }

    /// A leg cannot go on, and the call with it, unless it is one that was not part of it yet.
    pub(crate) fn leg_lost(&mut self, desk: &mut Desk<'_>, at: usize, reason: Reason) {
        if !self.is_target(self.legs[at].id.index) {
            return self.hang_up(desk, reason);
        }
        self.legs[at].hang_up(desk, reason);
        self.transfer_failed(desk, Failure::of(reason));
    }

    /// Dials the new party as the leg at `at` could.
    fn dial_transfer(&mut self, desk: &mut Desk<'_>, at: usize, place: &Uri) {
        let Some(attempt) = self.transfer_attempt(desk, at, place) else {
            return self.transfer_failed(desk, Failure::of(Reason::Internal));
        };
        let observed = desk.ledger.observe(desk.now, desk.wall);
        let decision = policy::decide(&desk.setup.policy, &attempt, &observed);
        let accepted = match decision.verdict {
            Verdict::Accept(accepted) => accepted,
            Verdict::Refuse(refusal) => {
                return self.transfer_failed(desk, Failure::of(refusal.reason));
            }
        };
        let Some(transfer) = &self.transfer else { return };
        let targets = match &accepted.destination {
            Destination::Trunk { targets } => targets,
            Destination::Agent { name } if transfer.referrer.is_some() => {
                desk.event(Event::TransferBegan { call: self.id });
                self.enlist(desk, name, accepted.forbids);
                return;
            }
            // A voice agent does not hand on to another one: what would be said twice?
            Destination::Agent { .. } => {
                return self.transfer_failed(desk, Failure::of(Reason::TransferRefused));
            }
        };
        desk.event(Event::TransferBegan { call: self.id });
        let waiting = Waiting::Transfer { stays: transfer.stays };
        self.called = accepted.called.clone();
        self.route(desk, targets, waiting, accepted.record);
    }

    fn transfer_attempt(&self, desk: &Desk<'_>, at: usize, place: &Uri) -> Option<Attempt> {
        let leg = &self.legs[at];
        let peer = leg.peer.as_ref()?;
        // What it speaks just now binds nobody: what goes with the new party is agreed on with it.
        let codecs = leg.terms.codecs.iter().map(|codec| codec.word().to_owned());
        let number = place.number();
        let called = number.or_else(|| place.user_unescaped().map(|user| user.into_owned()))?;
        let caller = self.caller.number.clone();
        Some(Attempt {
            source: peer.source,
            local: Some(peer.local),
            transport: peer.transport,
            certificates: peer.certificates.to_vec(),
            request_uri: place.without_headers().as_str().to_owned(),
            from_uri: String::new(),
            to_uri: place.without_headers().as_str().to_owned(),
            asserted_identity: None,
            called,
            caller,
            offer: Offer {
                present: true,
                has_srtp: true,
                has_plain: !leg.terms.plain_media_from.is_empty(),
                codecs: codecs.collect(),
            },
            user_agent: None,
            at: desk.wall,
        })
    }

    /// The new party has answered: the leg that stays talks with it from now on.
    pub(crate) fn transferred(&mut self, desk: &mut Desk<'_>, to: usize) {
        let Some(transfer) = &self.transfer else { return };
        let (Some(stays), to_index) = (self.place(transfer.stays), self.legs[to].id.index) else {
            // It hung up meanwhile.
            return self.hang_up(desk, Reason::PeerGone);
        };
        self.legs[to].partner = Some(self.legs[stays].id.index);
        self.legs[stays].partner = Some(to_index);
        if transfer.referrer.is_none() {
            (self.agent, self.is_agent_there) = (None, false);
            desk.output(Output::StopAgent { call: self.id });
        }
        desk.event(Event::TransferDone { call: self.id });
        self.join(desk, stays);
        self.resume(desk, stays, to);
        self.notify_referrer(desk, Status::OK);
        self.let_referrer_go(desk);
    }

    /// The transfer is over, and who asked for it has no part in the call any more.
    pub(crate) fn let_referrer_go(&mut self, desk: &mut Desk<'_>) {
        let referrer = self.transfer.take().and_then(|transfer| transfer.referrer);
        if let Some(at) = referrer.and_then(|referrer| self.place(referrer.leg)) {
            self.legs[at].partner = None;
            self.legs[at].hang_up(desk, Reason::Transferred);
        }
    }

    /// Who was put on hold by the party that has left is told what the new one wants.
    fn resume(&mut self, desk: &mut Desk<'_>, stays: usize, to: usize) {
        let to = &self.legs[to];
        let media = to.media.as_ref().filter(|_| to.pending.is_none());
        if let Some(wanted) = media.and_then(|media| media.partner_direction()) {
            self.legs[stays].tell_direction(desk, wanted);
        }
    }

    /// It came to nothing: all is as it was, unless who asked has gone.
    pub(crate) fn transfer_failed(&mut self, desk: &mut Desk<'_>, failure: Failure) {
        let (call, reason) = (self.id, failure.reason);
        desk.event(Event::TransferFailed { call, reason });
        self.notify_referrer(desk, failure.status.unwrap_or_else(|| Status::of(reason)));
        self.ring(desk, false);
        let Some(transfer) = self.transfer.take() else { return };
        match transfer.referrer {
            None => desk.output(Output::TransferFailed { call, reason }),
            Some(referrer) if self.place(referrer.leg).is_none() => self.hang_up(desk, reason),
            Some(_) => {}
        }
    }

    /// Whether a leg may leave without ending the call: it has asked for its other party to be
    /// carried over, which is still going on (RFC 5589 section 6.1).
    pub(crate) fn is_leaving(&self, index: u8) -> bool {
        let referrer = self.transfer.as_ref().and_then(|transfer| transfer.referrer);
        referrer.is_some_and(|referrer| referrer.leg == index)
    }

    /// Tells who asked how it goes (RFC 3515 section 2.4.5).
    pub(crate) fn notify_referrer(&mut self, desk: &mut Desk<'_>, status: Status) {
        let referrer = self.transfer.as_ref().and_then(|transfer| transfer.referrer);
        let Some(referrer) = referrer.filter(|referrer| referrer.subscribes) else { return };
        if let Some(at) = self.place(referrer.leg) {
            self.legs[at].notify(desk, referrer.id, status, status.is_final());
        }
    }

    /// Takes a leg of another call in, which is to talk with our leg `stays`; its media moves to
    /// this call's worker, so that its peer is told of other ports.
    pub(crate) fn adopt(&mut self, desk: &mut Desk<'_>, mut leg: Leg, stays: u8) {
        let Some(id) = self.next_leg() else {
            leg.hang_up(desk, Reason::TransferRefused);
            return self.transfer_failed(desk, Failure::of(Reason::TransferRefused));
        };
        leg.id = id;
        leg.ladder.belongs_to(id);
        (leg.partner, leg.is_moving, leg.is_counted) = (Some(stays), true, true);
        desk.ledger.begin_leg(&leg.trunk);
        if let Some(transfer) = &mut self.transfer {
            // Until it has moved, what befalls it befalls the transfer and not the call.
            let joined_by = Some(across::patience(desk.now));
            (transfer.target, transfer.joined_by) = (Some(id.index), joined_by);
        }
        match leg.media.as_ref().map(|media| media.addresses()) {
            Some(addresses) => {
                // What a browser knows under our certificate is its association with the session
                // that it leaves (RFC 8842 section 4).
                let need = leg.need_to_dial(addresses);
                let need = media::Need { fresh_identity: need.dtls, ..need };
                self.legs.push(leg);
                desk.output(Output::Reserve { leg: id, need });
            }
            None => {
                self.legs.push(leg);
                self.hang_up(desk, Reason::Internal);
            }
        }
    }

    /// Whether a leg waits for the far end of another call.
    pub(crate) fn awaits(&self, index: u8) -> bool {
        let waits =
            |it: &Transfer| it.stays == index && it.joined_by.is_some() && it.target.is_none();
        self.ending.is_none() && self.transfer.as_ref().is_some_and(waits)
    }

    /// Where the far end of a leg stands that is to be replaced, if that can be now.
    pub(crate) fn far_end(&self, replaced: u8) -> Option<usize> {
        let at = self.place(replaced)?;
        let far = self.partner(at)?;
        let is_up = |at: usize| self.legs[at].stage == Stage::Talking;
        let is_asked = self.passing.as_ref().is_some_and(Passing::is_asked);
        let is_free = self.transfer.is_none() && !is_asked;
        (is_up(at) && is_up(far) && is_free).then_some(far)
    }

    /// Whether the far end of a leg cannot leave this call, so that whoever is to talk with it has
    /// to come here.
    pub(crate) fn is_far_end_tied(&self, replaced: u8) -> bool {
        self.far_end(replaced).is_some_and(|far| self.legs[far].is_tied())
    }

    /// Takes the leg that stays out of this call, since the far end of the other one cannot come
    /// here; the call ends with it.
    pub(crate) fn send_off(&mut self, desk: &mut Desk<'_>) -> Option<Leg> {
        let at = self.transfer.as_ref().and_then(|transfer| self.place(transfer.stays))?;
        if self.legs[at].is_tied() || self.legs[at].stage != Stage::Talking {
            return None;
        }
        self.over_there(desk);
        let mut leg = self.legs.remove(at);
        desk.output(Output::Release { leg: leg.id });
        if std::mem::take(&mut leg.is_counted) {
            desk.ledger.end_leg(&leg.trunk);
        }
        self.hang_up(desk, Reason::Transferred);
        Some(leg)
    }

    /// The transfer goes on in another call: who asked here is told so.
    pub(crate) fn over_there(&mut self, desk: &mut Desk<'_>) {
        self.notify_referrer(desk, Status::OK);
        self.transfer = None;
    }

    /// Takes in a leg that is to talk with the far end of `replaced`, which cannot leave: it is as
    /// if `replaced` had asked for that.
    pub(crate) fn take_in(&mut self, desk: &mut Desk<'_>, leg: Leg, replaced: u8) -> Option<Leg> {
        let Some(far) = self.far_end(replaced) else { return Some(leg) };
        let stays = self.legs[far].id.index;
        self.transfer = Some(Transfer {
            referrer: Some(Referrer { leg: replaced, id: 0, subscribes: false }),
            stays,
            is_announced: false,
            target: None,
            joined_by: Some(across::patience(desk.now)),
        });
        desk.event(Event::TransferBegan { call: self.id });
        self.adopt(desk, leg, stays);
        None
    }

    /// The ports of a leg that was taken in are there: its peer is told, and all are joined.
    pub(crate) fn on_moved(&mut self, desk: &mut Desk<'_>, at: usize, reserved: media::Reserved) {
        let leg = &mut self.legs[at];
        leg.is_moving = false;
        leg.reserved = Some(reserved.clone());
        let id = leg.id;
        let offer = leg.media.as_mut().map(|media| media.move_to(id, reserved, desk.random));
        if let Some(offer) = offer {
            leg.send_offer(desk, &offer);
        }
        self.transferred(desk, at);
    }
}

/// The far end of a leg that is replaced, taken out of its call, which ends with it.
pub(crate) fn detach(call: &mut Call, desk: &mut Desk<'_>, replaced: u8) -> Option<Leg> {
    let mut leg = call.legs.remove(call.far_end(replaced)?);
    desk.output(Output::Release { leg: leg.id });
    if std::mem::take(&mut leg.is_counted) {
        desk.ledger.end_leg(&leg.trunk);
    }
    call.hang_up(desk, Reason::Transferred);
    Some(leg)
}
