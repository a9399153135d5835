//! The calls of one shard: finds the call that an input belongs to, hands it over, and keeps the
//! indexes right. One call at a time is taken out of the table, so that a panic in it cannot
//! leave another one half changed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use base::{CallId, Event, Instant, LegId, Personal, Random, Reason, TrunkName, WallTime};
use media::MediaEvent;
use policy::Transport;
use sip::transaction::{
    ClientKey, Received, ServerKey, TransactionKey, TransactionOutput, Transactions,
};
use sip::{DialogId, FlowId, Message, Request, Response, ids};

use crate::across::{Away, Found};
use crate::bridge::Call;
use crate::contract::{Input, Ledger, Output, Peer, Record, Setup};
use crate::desk::{Desk, Join, Joined};
use crate::dial::Failure;
use crate::leg::{Leg, Stage};
use crate::pass::{Grants, Passing};
use crate::transfer;

/// The calls of one shard.
pub struct Calls {
    pub(crate) shard: u8,
    pub(crate) setup: Arc<Setup>,
    pub(crate) ledger: Box<dyn Ledger>,
    pub(crate) random: Box<dyn Random + Send>,
    pub(crate) transactions: Transactions,
    /// The time of the input that is being handled.
    pub(crate) now: Instant,
    pub(crate) wall: WallTime,
    /// What the message that is being handled came over.
    pub(crate) transport: &'static str,
    calls: BTreeMap<CallId, Box<Call>>,
    dialogs: BTreeMap<DialogId, LegId>,
    invites: BTreeMap<ServerKey, CallId>,
    requests: BTreeMap<ClientKey, LegId>,
    deadlines: BTreeSet<(Instant, CallId)>,
    armed: BTreeMap<CallId, Instant>,
    outputs: VecDeque<Output>,
    joins: VecDeque<Join>,
    pub(crate) grants: Grants,
    pub(crate) away: Away,
}

impl Calls {
    /// No calls yet. `shard` goes into tags and branches, so that what belongs to these calls
    /// finds its way back here.
    #[must_use]
    pub fn new(
        shard: u8,
        setup: Arc<Setup>,
        ledger: Box<dyn Ledger>,
        mut random: Box<dyn Random + Send>,
    ) -> Self {
        let transactions = Transactions::new(shard, &mut *random);
        Self {
            shard,
            setup,
            ledger,
            random,
            transactions,
            now: Instant::ZERO,
            wall: WallTime::default(),
            transport: "",
            calls: BTreeMap::new(),
            dialogs: BTreeMap::new(),
            invites: BTreeMap::new(),
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            armed: BTreeMap::new(),
            outputs: VecDeque::new(),
            joins: VecDeque::new(),
            grants: Grants::default(),
            away: Away::default(),
        }
    }

    /// Calls that are not yet forgotten.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, wall: WallTime, input: Input) {
        (self.now, self.wall) = (now, wall);
        match input {
            Input::Message { peer, trunk, message } => {
                self.on_message(&peer, &trunk, *message, 0);
            }
            Input::FlowClosed(flow) => {
                self.transactions.flow_failed(now, flow);
                for leg in self.legs_over(flow) {
                    self.with_leg(leg, |call, at, desk| call.on_flow_closed(desk, at));
                }
            }
            Input::PartyGone(flow) => {
                for leg in self.legs_over(flow) {
                    self.with_leg(leg, |call, at, desk| call.on_party_gone(desk, at));
                }
            }
            Input::Connected { leg, peer, contact } => {
                self.with_leg(leg, |call, at, desk| call.on_connected(desk, at, peer, contact));
            }
            Input::Unreachable { leg, reason } => {
                self.with_leg(leg, |call, at, desk| call.on_unreachable(desk, at, reason));
            }
            Input::Media { leg, event } => self.on_media(leg, event),
            Input::HangUp { call, reason } => {
                self.with_call(call, |call, desk| call.hang_up(desk, reason));
            }
            Input::Transfer { call, to, is_announced } => self.with_call(call, |call, desk| {
                call.on_agent_transfer(desk, to.expose(), is_announced);
            }),
            Input::TransferAnswer { call, is_accepted } => {
                self.with_call(call, |call, desk| call.on_transfer_answer(desk, is_accepted));
            }
            Input::HangUpAll { reason } => {
                let all: Vec<CallId> = self.calls.keys().copied().collect();
                for call in all {
                    self.with_call(call, |call, desk| call.hang_up(desk, reason));
                }
            }
            Input::Crossed(crossing) => self.on_crossed(*crossing),
            Input::NotCrossed(crossing) => self.on_not_crossed(*crossing),
            Input::Reload(setup) => self.setup = setup,
        }
        self.pump();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime) {
        (self.now, self.wall) = (now, wall);
        self.transactions.handle_timeout(now);
        while let Some((_, id)) = self.deadlines.first().filter(|(at, _)| *at <= now).copied() {
            // Taken out first: a call whose deadline does not move must not spin here.
            self.arm(id, None);
            self.with_call(id, |call, desk| call.on_timeout(desk));
        }
        self.pump();
    }

    /// When [`Calls::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let call = self.deadlines.first().map(|(at, _)| *at);
        [self.transactions.poll_timeout(), call, self.away.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do; drain until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(crate) fn desk(&mut self) -> Desk<'_> {
        Desk {
            now: self.now,
            wall: self.wall,
            shard: self.shard,
            setup: &self.setup,
            ledger: &*self.ledger,
            random: &mut *self.random,
            transactions: &mut self.transactions,
            outputs: &mut self.outputs,
            joins: &mut self.joins,
        }
    }

    /// A message, which has passed so many other shards.
    pub(crate) fn on_message(
        &mut self,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        mut message: Message,
        hops: u8,
    ) {
        if self.forwards(peer, trunk, &message, hops) {
            return;
        }
        self.transport = peer.transport.word();
        if let Message::Request(request) = &mut message {
            request.stamp_source(peer.source);
        }
        let is_reliable = peer.transport != Transport::Udp;
        match self.transactions.receive(self.now, peer.flow, is_reliable, message) {
            Received::Request { key, request } => self.on_request(peer, trunk, key, request),
            Received::Ack { request, .. } => {
                let leg = DialogId::of_request(&request)
                    .and_then(|it| self.leg_of(&it, trunk, Some(peer.flow)));
                if let Some(leg) = leg {
                    self.with_leg(leg, |call, at, desk| {
                        call.legs[at].heard_from(desk, peer);
                        call.on_ack(desk, at, &request);
                    });
                }
            }
            Received::Cancelled { invite, request } => {
                if let Some(call) = self.invites.get(&invite).copied() {
                    self.with_call(call, |call, desk| call.on_cancel(desk, &request));
                }
            }
            Received::Response { key, response } => {
                if peer.transport.is_browsers() {
                    self.follow_flow(key, peer, trunk);
                }
                self.on_response(key, Some(&response));
            }
            Received::Overloaded(request) => {
                let response = self.desk().refusal(&request, Reason::EdgeCallLimit, true);
                self.transactions.send(peer.flow, &Message::Response(response));
            }
            Received::Stray(_) => {
                let (reason, transport) = (Reason::NoDialog, self.transport);
                self.outputs.push_back(Output::Event(Event::MessageDropped { reason, transport }));
            }
            Received::Absorbed(_) => {}
        }
    }

    fn on_request(
        &mut self,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        key: ServerKey,
        request: Request,
    ) {
        let dialog = DialogId::of_request(&request);
        let is_first = request.method == sip::Method::Invite && dialog.is_none();
        if request.headers.has(sip::Name::Replaces) && !is_first {
            // RFC 3891 section 3.
            return self.refuse(key, &request, Reason::Malformed, true);
        }
        let Some(dialog) = dialog else {
            let copy = request.clone();
            return self.guarded(key, &copy, |calls| {
                calls.on_new_request(peer, trunk, key, request);
            });
        };
        match self.leg_of(&dialog, trunk, Some(peer.flow)) {
            Some(leg) => self.with_leg(leg, |call, at, desk| {
                call.legs[at].heard_from(desk, peer);
                call.on_request(desk, at, key, request);
            }),
            None => self.guarded(key, &request, |calls| match request.method {
                sip::Method::Options => calls.on_options(key, &request),
                _ => calls.refuse(key, &request, Reason::NoDialog, true),
            }),
        }
    }

    /// The leg of a dialog. Only the leg's trunk may change it, and whoever speaks over the flow
    /// that we opened for it; others learn that there is none.
    fn legs_over(&self, flow: FlowId) -> Vec<LegId> {
        let legs = self.calls.values().flat_map(|call| &call.legs);
        let over_it = legs.filter(|leg| leg.peer.as_ref().is_some_and(|it| it.flow == flow));
        over_it.map(|leg| leg.id).collect()
    }

    fn leg_of(&self, dialog: &DialogId, trunk: &TrunkName, flow: Option<FlowId>) -> Option<LegId> {
        let id = self.dialogs.get(dialog).copied()?;
        let leg = self.leg(id)?;
        let is_its_flow = leg.peer.as_ref().is_some_and(|peer| Some(peer.flow) == flow);
        (leg.trunk == *trunk || is_its_flow).then_some(id)
    }

    /// The leg that speaks on a dialog, or on whose INVITE another callee has begun it.
    pub(crate) fn leg_with(&self, dialog: &DialogId) -> Option<LegId> {
        if let Some(id) = self.dialogs.get(dialog) {
            return Some(*id);
        }
        let forks = DialogId { remote_tag: String::new(), ..dialog.clone() };
        let (known, id) = self.dialogs.range(forks..).next()?;
        let is_its_invite = known.call_id == dialog.call_id && known.local_tag == dialog.local_tag;
        let leg = self.leg(*id).filter(|_| is_its_invite)?;
        let mut forks = leg.dial.iter().flat_map(|dial| &dial.forks);
        forks.any(|fork| fork.id() == dialog).then_some(*id)
    }

    pub(crate) fn leg(&self, id: LegId) -> Option<&Leg> {
        let call = self.calls.get(&id.call)?;
        call.legs.get(call.place(id.index)?)
    }

    pub(crate) fn has_dialog(&self, dialog: &DialogId) -> bool {
        self.dialogs.contains_key(dialog)
    }

    pub(crate) fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(crate) fn call(&self, id: CallId) -> Option<&Call> {
        self.calls.get(&id).map(|call| &**call)
    }

    /// Lets a request act that belongs to no call yet. A panic in it is answered 500, since a
    /// request without an answer would be held for ever.
    fn guarded(&mut self, key: ServerKey, request: &Request, act: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| act(self))).is_err() {
            self.outputs.push_back(Output::Event(Event::ShardPanicked {}));
            self.refuse(key, request, Reason::Internal, true);
        }
    }

    /// A browser's answer may come over another connection than the request went by: what
    /// belongs to its dialog goes there from now on (RFC 5626 section 5.3 in spirit).
    fn follow_flow(&mut self, key: ClientKey, peer: &Arc<Peer>, trunk: &TrunkName) {
        let Some(id) = self.requests.get(&key).copied() else { return };
        let has_moved = |leg: &Leg| {
            leg.trunk == *trunk && leg.peer.as_ref().is_some_and(|it| it.flow != peer.flow)
        };
        if self.leg(id).is_some_and(has_moved) {
            self.with_leg(id, |call, at, desk| call.legs[at].heard_from(desk, peer));
        }
    }

    fn on_response(&mut self, key: ClientKey, response: Option<&Response>) {
        if let Some(leg) = self.requests.get(&key).copied() {
            self.with_leg(leg, |call, at, desk| call.on_response(desk, at, key, response));
        }
    }

    fn on_media(&mut self, leg: LegId, event: MediaEvent) {
        match event {
            MediaEvent::Reserved(reserved) => {
                let known = self.calls.get(&leg.call).and_then(|call| call.place(leg.index));
                if known.is_some() {
                    self.with_leg(leg, |call, at, desk| call.on_reserved(desk, at, reserved));
                } else {
                    // The call was cancelled meanwhile.
                    self.outputs.push_back(Output::Release { leg });
                }
            }
            MediaEvent::ReserveFailed { ports } => {
                self.with_leg(leg, |call, at, desk| call.on_reserve_failed(desk, at, ports));
            }
            MediaEvent::Secured { suite } => {
                self.with_leg(leg, |call, at, desk| call.on_secured(desk, at, suite));
            }
            MediaEvent::Unsecured { code } => self.with_leg(leg, |call, at, desk| {
                desk.event(Event::MediaUnsecured { leg, code });
                call.leg_lost(desk, at, Reason::Unsecured);
            }),
            MediaEvent::PathLost => {
                self.with_leg(leg, |call, at, desk| call.leg_lost(desk, at, Reason::PathLost));
            }
            MediaEvent::Inactive => {
                self.with_leg(leg, |call, at, desk| call.on_media_inactive(desk, at));
            }
            MediaEvent::Report { quality, last } => {
                self.outputs.push_back(Output::Event(Event::MediaReported {
                    leg,
                    received: quality.received,
                    lost: quality.lost,
                    jitter: quality.jitter,
                    sent: quality.sent,
                }));
                if last {
                    let record = Record::Media { leg, quality };
                    self.outputs.push_back(Output::Record(Box::new(record)));
                }
            }
            MediaEvent::Latched { moved, .. } => {
                self.outputs.push_back(Output::Event(Event::MediaLatched { leg, moved }));
            }
            // Where two legs talk, it goes on by signalling.
            MediaEvent::Digit { digit, .. } => {
                self.with_leg(leg, |call, at, desk| {
                    if call.legs[at].partner.is_some() {
                        call.on_digit(desk, at, digit);
                    }
                });
            }
            // The voice agent's business.
            MediaEvent::SpeechStarted { .. }
            | MediaEvent::SpeechEnded { .. }
            | MediaEvent::PlayoutStarted { .. }
            | MediaEvent::PlayoutFinished { .. }
            | MediaEvent::PlayoutStopped { .. } => {}
        }
    }

    /// Lets one call act, and keeps the indexes right afterwards. A panic ends the call as any
    /// other reason would: its peer is told, its media released, its end stored.
    pub(crate) fn with_call(&mut self, id: CallId, act: impl FnOnce(&mut Call, &mut Desk<'_>)) {
        let Some(mut call) = self.calls.remove(&id) else { return };
        let was_counted = call.ending.is_none();
        let mut desk = self.desk();
        if catch_unwind(AssertUnwindSafe(|| act(&mut call, &mut desk))).is_err() {
            desk.event(Event::CallPanicked { call: id });
            let said = catch_unwind(AssertUnwindSafe(|| call.hang_up(&mut desk, Reason::Internal)));
            if said.is_err() || call.ending.is_none() {
                call.finish(&mut desk, Reason::Internal);
                call.legs.iter_mut().for_each(|leg| leg.stage = Stage::Gone);
            }
        }
        if was_counted && call.ending.is_some() {
            self.ledger.end(&call.accepted.trunk);
        }
        for leg in call.legs.iter_mut().filter(|leg| leg.is_over()) {
            if std::mem::take(&mut leg.is_counted) {
                self.ledger.end_leg(&leg.trunk);
            }
        }
        self.keep_call(call);
    }

    /// Lets one leg of a call act, where it is still there.
    pub(crate) fn with_leg(
        &mut self,
        id: LegId,
        act: impl FnOnce(&mut Call, usize, &mut Desk<'_>),
    ) {
        self.with_call(id.call, |call, desk| {
            if let Some(at) = call.place(id.index) {
                act(call, at, desk);
            }
        });
    }

    /// Puts a call (back) into the table without the legs that are gone, or forgets it with the
    /// last of them.
    pub(crate) fn keep_call(&mut self, mut call: Box<Call>) {
        let id = call.id;
        for leg in call.legs.extract_if(.., |leg| leg.stage == Stage::Gone) {
            self.gone(&leg);
        }
        self.index_dialogs(&mut call);
        let unanswered = call.legs.iter().filter(|leg| leg.stage == Stage::Inviting);
        let unanswered = unanswered.filter_map(|leg| leg.invite.as_ref()).map(|it| it.key).next();
        if unanswered != call.unanswered {
            call.unanswered.map(|key| self.invites.remove(&key));
            call.unanswered = unanswered;
            unanswered.map(|key| self.invites.insert(key, id));
        }
        for leg in &call.legs {
            for key in leg.keys() {
                self.requests.insert(key, leg.id);
            }
        }
        if let Some((key, index)) = call.passing.as_ref().and_then(Passing::sent) {
            self.requests.insert(key, LegId { call: id, index });
        }
        let is_over = call.legs.is_empty();
        self.arm(id, call.deadline().filter(|_| !is_over));
        if !is_over {
            self.calls.insert(id, call);
        }
    }

    fn index_dialogs(&mut self, call: &mut Call) {
        let present = || {
            let legs = call.legs.iter();
            // A stub's dialog is the business of `away`.
            let legs = legs.filter(|leg| leg.stage != Stage::Moved);
            legs.filter_map(|leg| Some((leg.dialog_id()?, leg.id.index)))
        };
        if present().eq(call.indexed.iter().map(|(dialog, index)| (dialog, *index))) {
            return;
        }
        let present = present().map(|(dialog, index)| (dialog.clone(), index)).collect();
        for (dialog, index) in std::mem::replace(&mut call.indexed, present) {
            // It may have come back into another call.
            let leg = LegId { call: call.id, index };
            if self.dialogs.get(&dialog) == Some(&leg) {
                self.dialogs.remove(&dialog);
            }
        }
        for (dialog, index) in &call.indexed {
            self.dialogs.insert(dialog.clone(), LegId { call: call.id, index: *index });
        }
    }

    /// Sets when a call is to be looked at, or that it is not; mostly that stays as it was.
    fn arm(&mut self, id: CallId, due: Option<Instant>) {
        if self.armed.get(&id).copied() == due {
            return;
        }
        let before = match due {
            Some(at) => self.armed.insert(id, at),
            None => self.armed.remove(&id),
        };
        before.map(|at| self.deadlines.remove(&(at, id)));
        due.map(|at| self.deadlines.insert((at, id)));
    }

    /// The leg that is to be replaced, where it is here.
    pub(crate) fn replaced_in(&self, join: &Join) -> Option<LegId> {
        let replaced = self.leg_of(&join.dialog, &join.trunk, None);
        replaced.filter(|leg| leg.call != join.leg.call)
    }

    /// Joins a leg with the far end of another call of this shard, whose leg is replaced.
    pub(crate) fn join_here(&mut self, join: &Join) {
        let replaced = self.replaced_in(join);
        if let Joined::Named { to } = &join.how {
            let name = replaced.and_then(|leg| self.name(leg, to));
            return self.on_named(join, name.as_ref());
        }
        let found = replaced.map_or(Found::Nothing(Reason::NoDialog), |leg| self.found(leg, join));
        let mut far = Err(Reason::NoDialog);
        match (found, replaced) {
            (Found::Agent(agent), Some(leg)) => {
                if self.enlist(join.leg.call, &agent) {
                    self.leave_agent(leg);
                }
                return;
            }
            (Found::Tied, Some(leg)) => return self.bring(join, leg),
            (Found::FarEnd, Some(leg)) => self.with_call(leg.call, |call, desk| {
                far = transfer::detach(call, desk, leg.index).ok_or(Reason::NoDialog);
            }),
            (Found::Nothing(reason), _) => far = Err(reason),
            (_, None) => {}
        }
        self.with_call(join.leg.call, |call, desk| match far {
            Ok(far) => call.adopt(desk, far, join.leg.index),
            Err(reason) => call.transfer_failed(desk, Failure::of(reason)),
        });
    }

    /// A name by which somebody of a trunk may replace a leg: it tells nothing of the leg's peer.
    pub(crate) fn name(&mut self, leg: LegId, to: &TrunkName) -> Option<DialogId> {
        let is_up = self.leg(leg).is_some_and(|leg| leg.stage == Stage::Talking);
        let name = DialogId {
            call_id: ids::new_call_id(&mut *self.random),
            local_tag: ids::new_tag(self.shard, &mut *self.random),
            remote_tag: ids::new_tag(self.shard, &mut *self.random),
        };
        let is_given = is_up && self.grants.give(self.now, name.clone(), leg, to.clone());
        is_given.then_some(name)
    }

    /// Carries what the transactions want to the outputs, and their failures to the calls.
    fn pump(&mut self) {
        while let Some(join) = self.joins.pop_front() {
            self.join(join);
        }
        self.let_go();
        while let Some(output) = self.transactions.poll_output() {
            match output {
                TransactionOutput::Send { flow, bytes, .. } => {
                    self.outputs.push_back(Output::Send { flow, bytes });
                }
                TransactionOutput::Timeout { key } => self.on_response(key, None),
                TransactionOutput::TransportFailed { key } => {
                    if let Some(leg) = self.requests.get(&key).copied() {
                        self.with_leg(leg, |call, at, desk| call.on_unsent(desk, at, key));
                    }
                }
                // A refusal that was never acknowledged changes nothing; a caller that is gone
                // before the answer is told apart by its ACK.
                TransactionOutput::ServerGone { .. } => {}
                // A 2xx of an INVITE may come again until here.
                TransactionOutput::Terminated { key: TransactionKey::Client(key) } => {
                    if let Some(leg) = self.requests.remove(&key) {
                        self.with_leg(leg, |call, at, _| call.legs[at].dialled(key));
                    }
                }
                TransactionOutput::Terminated { .. } => {}
            }
        }
    }
}

impl Desk<'_> {
    /// Stores and counts the refusal of an INVITE.
    pub(crate) fn refused(
        &mut self,
        call: CallId,
        reason: Reason,
        status: u16,
        peer: &Peer,
        trunk: &TrunkName,
    ) {
        let (wall, transport) = (self.wall, peer.transport);
        let talked = std::time::Duration::ZERO;
        self.event(Event::RequestRefused { reason, transport: transport.word(), status });
        self.event(Event::CallEnded { call, reason, talked });
        self.record(Record::Ended { call, wall, reason, talked });
        let source = Personal::new(peer.source);
        self.record(Record::Refused { reason, source, transport, trunk: Some(trunk.clone()) });
    }
}
