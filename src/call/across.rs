//! Across: calls of different shards that have to do with each other. A leg that is carried into a
//! call of another shard goes there as a whole, so that both of a call's legs stay with one owner
//! and on one relay worker. Its tags still name the shard that it came from, where a *stub* stays:
//! it hands on what the peer says within the dialog, and acknowledges a 2xx that comes again.
//!
//! Nothing here waits for an answer: each side has a deadline, and what cannot be handed over is
//! given back.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{CallId, Instant, LegId, Reason, TrunkName, VoiceAgentName, limit};
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
    /// The leg that was named talks with this voice agent, which may take the one there as well.
    Talks { join: Join, agent: VoiceAgentName, by: u8, leg: LegId },
    /// It has: the leg that was named is no longer needed.
    Left { leg: LegId },
    /// The far end of the leg that was named cannot leave its call.
    Tied { join: Join, by: u8 },
    /// So the leg comes that is to talk with it.
    Brought { join: Join, leg: Box<Leg> },
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

/// What a leg that is replaced amounts to for whoever is to be joined with its far end.
pub(crate) enum Found {
    /// It has one, which can leave its call.
    FarEnd,
    /// It has one that cannot.
    Tied,
    /// It talks with a voice agent.
    Agent(VoiceAgentName),
    /// It has none, or none that may be replaced.
    Nothing(Reason),
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
            Told::Talks { join, agent, by, leg } => {
                let waits = self.call(join.leg.call).is_some_and(|it| it.awaits(join.leg.index));
                if waits && self.enlist(join.leg.call, &agent) {
                    self.cross(by, Told::Left { leg });
                }
            }
            Told::Left { leg } => self.leave_agent(leg),
            Told::Tied { join, by } => self.on_tied(join, by),
            Told::Brought { join, leg } => self.on_brought(&join, *leg),
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
            Told::Came { leg, .. } | Told::Brought { leg, .. } => {
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
            | Told::Talks { .. }
            | Told::Left { .. }
            | Told::Tied { .. }
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
            let replaced = self.replaced_in(&wanted.join);
            let found = replaced.map(|leg| (leg, self.found(leg, &wanted.join)));
            let Wanted { by, join, until } = wanted;
            match found {
                Some((leg, Found::Agent(agent))) => {
                    let told = Told::Talks { join, agent, by: self.shard, leg };
                    self.cross(by, told);
                    continue;
                }
                Some((_, Found::Tied)) => {
                    self.cross(by, Told::Tied { join, by: self.shard });
                    continue;
                }
                Some((leg, Found::FarEnd)) => {
                    self.with_call(leg.call, |call, desk| lent = call.lend(desk, leg.index));
                }
                Some((_, Found::Nothing(reason))) => lent = Err(reason),
                None => {}
            }
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

    /// What the leg that a join names amounts to.
    pub(crate) fn found(&self, leg: LegId, join: &Join) -> Found {
        let (Some(call), Some(replaced)) = (self.call(leg.call), self.leg(leg)) else {
            return Found::Nothing(Reason::NoDialog);
        };
        let is_up = matches!(replaced.stage, Stage::Answered | Stage::Talking);
        if is_up && join.early_only {
            return Found::Nothing(Reason::Busy); // RFC 3891 section 3
        }
        match call.agent_of(leg.index) {
            Some(agent) => Found::Agent(agent.clone()),
            None if call.is_far_end_tied(leg.index) => Found::Tied,
            None => Found::FarEnd,
        }
    }

    /// Lets a voice agent take the place of the referrer in a call; `false` where it cannot.
    pub(crate) fn enlist(&mut self, call: CallId, agent: &VoiceAgentName) -> bool {
        let mut is_there = false;
        self.with_call(call, |call, desk| {
            is_there = call.enlist(desk, agent, policy::Forbids::default())
        });
        is_there
    }

    /// The talk of a referrer with a voice agent is over: another one has begun elsewhere.
    pub(crate) fn leave_agent(&mut self, leg: LegId) {
        self.with_call(leg.call, |call, desk| {
            if call.agent_of(leg.index).is_some() {
                call.hang_up(desk, Reason::Transferred);
            }
        });
    }

    /// Brings the leg of a join to the call of the leg that is replaced, whose far end is tied.
    pub(crate) fn bring(&mut self, join: &Join, replaced: LegId) {
        let mut sent = None;
        self.with_call(join.leg.call, |call, desk| {
            sent = call.send_off(desk);
            if sent.is_none() {
                call.transfer_failed(desk, Failure::of(Reason::TransferRefused));
            }
        });
        let Some(leg) = sent else { return };
        let mut left = None;
        self.with_call(replaced.call, |call, desk| {
            left = call.take_in(desk, leg, replaced.index);
        });
        if let Some(mut leg) = left.take() {
            leg.hang_up(&mut self.desk(), Reason::TransferRefused);
        }
    }

    /// The far end of another shard's call cannot leave it: the leg here goes there.
    fn on_tied(&mut self, join: Join, by: u8) {
        let mut sent = Err(Reason::NoDialog);
        self.with_call(join.leg.call, |call, desk| {
            if !call.awaits(join.leg.index) {
                return;
            }
            sent = call.send_across(desk, join.leg.index);
            if let Err(reason) = sent {
                call.transfer_failed(desk, Failure::of(reason));
            }
        });
        let Ok(leg) = sent else { return };
        if let (Some(dialog), Some((_, stub))) = (leg.dialog_id(), leg.home) {
            self.away.moved.insert(dialog.clone(), (by, stub));
        }
        self.cross(by, Told::Brought { join, leg });
    }

    /// A leg of another shard is to talk with the far end of one here.
    fn on_brought(&mut self, join: &Join, leg: Leg) {
        let mut left = Some(leg);
        if let Some(replaced) = self.replaced_in(join) {
            self.with_call(replaced.call, |call, desk| {
                left = left.take().and_then(|leg| call.take_in(desk, leg, replaced.index));
            });
        }
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

    /// The leg that stays of a transfer goes to another shard, where the new party cannot leave
    /// its call; here its stub stays, and the call ends.
    ///
    /// # Errors
    /// It may not leave its call.
    fn send_across(&mut self, desk: &mut Desk<'_>, stays: u8) -> Result<Box<Leg>, Reason> {
        let at = self.place(stays).ok_or(Reason::PeerGone)?;
        if self.legs[at].is_tied() || !self.legs[at].is_idle() {
            return Err(Reason::TransferRefused);
        }
        let moved = self.legs[at].depart(desk);
        self.over_there(desk);
        self.hang_up(desk, Reason::Transferred);
        Ok(Box::new(moved))
    }
}

impl Leg {
    /// Whether nothing is under way whose answer would come to this shard.
    fn is_idle(&self) -> bool {
        let is_asking = self.pending.is_some() || self.to_tell.is_some();
        let is_asked = self.invite.is_some() || self.reliable.is_some() || self.deferred.is_some();
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
