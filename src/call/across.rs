//! Across: calls of different shards that have to do with each other. A leg that is carried into a
//! call of another shard goes there as a whole, so that both of a call's legs stay with one owner
//! and on one relay worker. Its tags still name the shard that it came from, where a *stub* stays:
//! it hands on what the peer says within the dialog, and acknowledges a 2xx that comes again.
//!
//! Nothing here waits for an answer: each side has a deadline, and what cannot be handed over is
//! given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{Instant, LegId, Reason, TrunkName, limit};
use sip::{DialogId, Message, Method, Name, Request, ids};

use crate::bridge::Call;
use crate::calls::Calls;
use crate::contract::{Output, Peer};
use crate::desk::{Desk, Join, Joined};
use crate::dial::Failure;
use crate::leg::{Leg, Stage};
use crate::pass::Passing;
use crate::replaces::Replaces;

/// What the calls of one shard tell those of another one. Nobody else looks into it.
#[derive(Debug)]
pub struct Crossing(Told);

#[derive(Debug)]
enum Told {
    /// A leg of a call there is to be joined with one here.
    Wanted { by: u8, join: Join, hops: u8 },
    /// The answer to it: the far end of the leg that was named.
    Came { join: Join, leg: Box<Leg> },
    /// The other answer: a name by which the leg may be replaced, where it has one.
    Named { join: Join, name: Option<DialogId> },
    /// There is no such leg, or it may not leave its call.
    Refused { join: Join, reason: Reason },
    /// Nobody waits for the leg that came: this one is its stub.
    Returned { stub: LegId },
    /// The leg that came is over.
    Over { stub: LegId },
    /// Something that the peer of a leg says that has moved.
    Heard { peer: Arc<Peer>, trunk: TrunkName, message: Box<Message>, hops: u8 },
}

/// Legs of this shard that live in another one, and those that another one waits for.
#[derive(Debug, Default)]
pub(crate) struct Away {
    moved: BTreeMap<DialogId, (u8, LegId)>,
    wanted: Vec<Wanted>,
}

/// A leg that is to leave as soon as nothing is under way on it.
#[derive(Debug)]
struct Wanted {
    by: u8,
    join: Join,
    until: Instant,
}

/// Shards that a message may pass: a leg that is carried over and over leaves a stub each time.
const HOPS: u8 = 8;

/// How long another shard may take; it waits itself for half of that.
pub(crate) fn patience(now: Instant) -> Instant {
    now + 2 * limit::CALL_CROSSING_MS.millis()
}

impl Away {
    /// When somebody has waited for long enough.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wanted.iter().map(|wanted| wanted.until).min()
    }

    /// A leg is gone, and its stub with it.
    fn forget(&mut self, dialog: &DialogId, stub: LegId) {
        if self.moved.get(dialog).is_some_and(|(_, leg)| *leg == stub) {
            self.moved.remove(dialog);
        }
    }
}

impl Calls {
    /// What another shard's calls tell.
    pub(crate) fn on_crossed(&mut self, crossing: Crossing) {
        match crossing.0 {
            Told::Wanted { by, join, hops } => self.on_wanted(by, join, hops),
            Told::Came { join, leg } => self.on_came(&join, *leg),
            Told::Named { join, name } => self.on_named(&join, name.as_ref()),
            Told::Refused { join, reason } => self.on_refused(&join, reason),
            Told::Returned { stub } => self.with_leg(stub, |call, at, desk| {
                call.legs[at].is_back(desk);
            }),
            Told::Over { stub } => self.with_leg(stub, |call, at, _| {
                call.legs[at].stage = Stage::Gone;
            }),
            Told::Heard { peer, trunk, message, hops } => {
                self.on_message(&peer, &trunk, *message, hops);
            }
        }
    }

    /// What could not be brought to another shard.
    pub(crate) fn on_not_crossed(&mut self, crossing: Crossing) {
        match crossing.0 {
            Told::Wanted { by, join, .. } if by == self.shard => {
                self.on_refused(&join, Reason::NoDialog);
            }
            Told::Came { leg, .. } => {
                if let Some((_, stub)) = leg.home {
                    self.on_crossed(Crossing(Told::Returned { stub }));
                }
            }
            Told::Heard { peer, message, .. } => {
                if let Message::Request(request) = &*message
                    && request.method != Method::Ack
                {
                    let response = self.desk().refusal(request, Reason::EdgeCallLimit, true);
                    self.transactions.send(peer.flow, &Message::Response(response));
                }
            }
            // Who waits has a deadline, and a stub ends with the longest call.
            Told::Wanted { .. }
            | Told::Named { .. }
            | Told::Refused { .. }
            | Told::Returned { .. }
            | Told::Over { .. } => {}
        }
    }

    fn cross(&mut self, shard: u8, told: Told) {
        self.output(Output::Cross { shard, crossing: Box::new(Crossing(told)) });
    }

    /// Hands a request on that belongs to a leg which has moved; `false` where it is none.
    pub(crate) fn forwards(
        &mut self,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        message: &Message,
        hops: u8,
    ) -> bool {
        let Message::Request(request) = message else { return false };
        if self.away.moved.is_empty() || hops >= HOPS {
            return false;
        }
        let Some(shard) = self.moved_to(request).filter(|_| !self.transactions.knows(request))
        else {
            return false;
        };
        let (peer, trunk, message) = (Arc::clone(peer), trunk.clone(), Box::new(message.clone()));
        self.cross(shard, Told::Heard { peer, trunk, message, hops: hops + 1 });
        true
    }

    /// The shard where the leg is that a request is for, or is to replace.
    fn moved_to(&self, request: &Request) -> Option<u8> {
        let named = || Replaces::parse(request.headers.text(Name::Replaces)?);
        let dialog = DialogId::of_request(request).or_else(|| Some(named()?.dialog))?;
        let (shard, _) = self.away.moved.get(&dialog).filter(|_| !self.has_dialog(&dialog))?;
        Some(*shard)
    }

    /// Another shard where a dialog may be.
    fn elsewhere(&self, dialog: &DialogId) -> Option<u8> {
        if self.has_dialog(dialog) {
            return None;
        }
        let moved = self.away.moved.get(dialog).map(|(shard, _)| *shard);
        let named = || ids::shard_of_tag(&dialog.local_tag).filter(|it| *it != self.shard);
        moved.or_else(named)
    }

    /// Joins a leg with the far end of another call, here or on another shard.
    pub(crate) fn join(&mut self, join: Join) {
        match self.elsewhere(&join.dialog) {
            Some(shard) => self.cross(shard, Told::Wanted { by: self.shard, join, hops: 0 }),
            None => self.join_here(&join),
        }
    }

    fn on_wanted(&mut self, by: u8, join: Join, hops: u8) {
        match self.elsewhere(&join.dialog) {
            // Only a leg that has moved is looked for further on.
            Some(shard) if hops < HOPS && self.away.moved.contains_key(&join.dialog) => {
                return self.cross(shard, Told::Wanted { by, join, hops: hops + 1 });
            }
            None if by == self.shard => return self.join_here(&join),
            _ => {}
        }
        let leg = self.replaced_in(&join);
        if let Joined::Named { to } = &join.how {
            let name = leg.and_then(|leg| self.name(leg, to));
            return self.cross(by, Told::Named { join, name });
        }
        if self.away.wanted.len() >= limit::CALL_REFERRALS.get() {
            let reason = Reason::EdgeCallLimit;
            return self.cross(by, Told::Refused { join, reason });
        }
        let until = self.now + limit::CALL_CROSSING_MS.millis();
        self.away.wanted.push(Wanted { by, join, until });
    }

    /// Lets the legs go that other shards wait for, as soon as nothing is under way on them.
    pub(crate) fn let_go(&mut self) {
        for wanted in std::mem::take(&mut self.away.wanted) {
            let mut lent = Err(Reason::NoDialog);
            if let Some(leg) = self.replaced_in(&wanted.join) {
                self.with_call(leg.call, |call, desk| lent = call.lend(desk, leg.index));
            }
            let Wanted { by, join, until } = wanted;
            match lent {
                Ok(leg) => {
                    if let (Some(dialog), Some((_, stub))) = (leg.dialog_id(), leg.home) {
                        self.away.moved.insert(dialog.clone(), (by, stub));
                    }
                    self.cross(by, Told::Came { join, leg });
                }
                Err(Reason::RequestPending) if until > self.now => {
                    self.away.wanted.push(Wanted { by, join, until });
                }
                Err(reason) => self.cross(by, Told::Refused { join, reason }),
            }
        }
    }

    fn on_came(&mut self, join: &Join, leg: Leg) {
        let mut left = Some(leg);
        self.with_call(join.leg.call, |call, desk| {
            if call.awaits(join.leg.index)
                && let Some(leg) = left.take()
            {
                call.adopt(desk, leg, join.leg.index);
            }
        });
        if let Some((home, stub)) = left.and_then(|leg| leg.home) {
            self.cross(home, Told::Returned { stub });
        }
    }

    fn on_refused(&mut self, join: &Join, reason: Reason) {
        if let Joined::Named { .. } = join.how {
            return self.on_named(join, None);
        }
        self.with_call(join.leg.call, |call, desk| {
            if call.awaits(join.leg.index) {
                call.transfer_failed(desk, Failure::of(reason));
            }
        });
    }

    /// A name for a leg that may be replaced is there, or is not given.
    pub(crate) fn on_named(&mut self, join: &Join, name: Option<&DialogId>) {
        self.with_call(join.leg.call, |call, desk| match name {
            _ if !call.passing.as_ref().is_some_and(Passing::is_unsent) => {} // given up meanwhile
            Some(name) => call.send_refer(desk, Some(name)),
            None => call.refer_failed(desk, Reason::TransferRefused),
        });
    }

    /// A leg is gone that another shard has a stub of, or it was a stub.
    pub(crate) fn gone(&mut self, leg: &Leg) {
        if let Some(dialog) = leg.dialog_id() {
            self.away.forget(dialog, leg.id);
        }
        if let Some((home, stub)) = leg.home {
            self.cross(home, Told::Over { stub });
        }
    }
}

impl Call {
    /// The far end of a leg that is replaced goes to another shard; here its stub stays, and the
    /// call ends.
    ///
    /// # Errors
    /// It may not leave its call, or not now ([`Reason::RequestPending`]).
    fn lend(&mut self, desk: &mut Desk<'_>, replaced: u8) -> Result<Box<Leg>, Reason> {
        let far = self.far_end(replaced).ok_or(Reason::NoDialog)?;
        let leg = &mut self.legs[far];
        if !leg.is_idle() {
            return Err(Reason::RequestPending);
        }
        let moved = leg.depart(desk);
        self.hang_up(desk, Reason::Transferred);
        Ok(Box::new(moved))
    }
}

impl Leg {
    /// Whether nothing is under way whose answer would come to this shard.
    fn is_idle(&self) -> bool {
        let is_asking = self.pending.is_some() || self.to_tell.is_some();
        let is_asked = self.invite.is_some() || self.reliable.is_some();
        self.stage == Stage::Talking && !is_asking && !is_asked && !self.is_moving
    }

    /// Takes out of a leg what lives on elsewhere, and leaves its stub.
    fn depart(&mut self, desk: &mut Desk<'_>) -> Self {
        let (trunk, terms) = (self.trunk.clone(), self.terms.clone());
        let mut leg = Self::new(self.id, trunk, terms, self.is_inbound, self.began);
        leg.home = Some((desk.shard, self.id));
        (leg.stage, leg.is_callers_side) = (self.stage, self.is_callers_side);
        (leg.peer, leg.flow_lost) = (self.peer.clone(), self.flow_lost);
        (leg.dialog, leg.media) = (self.dialog.clone(), self.media.take());
        (leg.is_held, leg.rseq) = (self.is_held, self.rseq);
        (leg.agreement, leg.session) = (self.agreement.take(), self.session.take());
        (leg.raised, leg.refusals) = (self.raised.take(), self.refusals);
        leg.peer_allows_update = self.peer_allows_update;
        leg.is_to_be_recorded = self.is_to_be_recorded;
        self.partner = None;
        self.stage = Stage::Moved;
        self.retry_at = None;
        // The call that it goes to is up already, and ends in time.
        let longest = self.terms.max_duration + limit::CALL_CROSSING_MS.millis();
        self.forget_at = Some(desk.now + longest);
        desk.output(Output::Release { leg: self.id });
        leg
    }

    /// The leg comes back from a shard where nobody wanted it any more: its call is over.
    fn is_back(&mut self, desk: &mut Desk<'_>) {
        if self.stage == Stage::Moved {
            self.stage = Stage::Talking;
            self.hang_up(desk, Reason::Transferred);
        }
    }
}
