//! Carries out what the tables say: one transaction's memory, and the actions on it.

use std::time::Duration;

use base::Instant;
use bytes::Bytes;

use super::key::MatchKey;
use super::table::{Action, Event, Machine, State};
use super::timers::{Deadlines, GIVE_UP, T1, TRYING_AFTER, Timer};
use super::{
    ClientKey, FlowId, ServerGone, ServerKey, TransactionKey, TransactionOutput, Transactions,
};
use crate::header::Header;
use crate::message::{Request, Response};
use crate::status::Status;

/// One transaction. The many fields are what its timers need long after the event that set them.
pub(super) struct Entry {
    pub(super) machine: Machine,
    pub(super) state: State,
    key: MatchKey,
    pub(super) merge_key: Option<MatchKey>,
    flow: FlowId,
    is_reliable: bool,
    pub(super) is_flow_lost: bool,
    /// The INVITE, for its ACK, CANCEL or 100.
    pub(super) request: Option<Box<Request>>,
    /// Our request, or our last response.
    pub(super) last: Option<Bytes>,
    /// The To tag of our last response to an INVITE.
    pub(super) to_tag: Option<String>,
    /// Whether it is a CANCEL that was made here, of which the owner knows nothing.
    pub(super) is_internal: bool,
    cancel: Cancel,
    pub(super) cancel_reason: Option<Header>,
    pause: Duration,
    pub(super) deadlines: Deadlines,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cancel {
    NotWanted,
    Wanted,
    Sent,
}

impl Entry {
    pub(super) fn new(machine: Machine, key: MatchKey, flow: FlowId, is_reliable: bool) -> Self {
        Self {
            machine,
            state: State::New,
            key,
            merge_key: None,
            flow,
            is_reliable,
            is_flow_lost: false,
            request: None,
            last: None,
            to_tag: None,
            is_internal: false,
            cancel: Cancel::NotWanted,
            cancel_reason: None,
            pause: T1,
            deadlines: Deadlines::default(),
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// The table has no step for it.
    Ignored,
    /// Done, and nothing for the owner.
    Done,
    /// Done, and the message is the owner's.
    Delivered,
}

impl Event {
    pub(super) const fn of(status: Status) -> Self {
        if status.is_provisional() {
            Self::Provisional
        } else if status.is_success() {
            Self::Success
        } else {
            Self::Failure
        }
    }

    pub(super) const fn of_timer(timer: Timer) -> Self {
        match timer {
            Timer::Retransmit => Self::RetransmitDue,
            Timer::End => Self::EndDue,
            Timer::Trying => Self::TryingDue,
        }
    }
}

impl Transactions {
    pub(super) fn insert(&mut self, entry: Entry) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let keys =
            if entry.machine.is_server() { &mut self.server_keys } else { &mut self.client_keys };
        keys.insert(entry.key.clone(), id);
        if let Some(merge_key) = &entry.merge_key {
            self.merged.entry(merge_key.clone()).or_default().insert(id);
        }
        self.flows.insert((entry.flow, id));
        self.entries.insert(id, entry);
        id
    }

    fn remove(&mut self, id: u64) {
        let Some(mut entry) = self.entries.remove(&id) else { return };
        self.timers.disarm_all(id, &mut entry.deadlines);
        self.flows.remove(&(entry.flow, id));
        self.forget_merge_key(id, entry.merge_key.take());
        let key = if entry.machine.is_server() {
            self.server_keys.remove(&entry.key);
            TransactionKey::Server(ServerKey(id))
        } else {
            self.client_keys.remove(&entry.key);
            TransactionKey::Client(ClientKey(id))
        };
        if !entry.is_internal {
            self.outputs.push_back(TransactionOutput::Terminated { key });
        }
    }

    /// Takes a transaction out of the search for merged requests.
    pub(super) fn unmerge(&mut self, id: u64) {
        let merge_key = self.entries.get_mut(&id).and_then(|entry| entry.merge_key.take());
        self.forget_merge_key(id, merge_key);
    }

    fn forget_merge_key(&mut self, id: u64, merge_key: Option<MatchKey>) {
        if let Some(merge_key) = merge_key
            && let Some(ids) = self.merged.get_mut(&merge_key)
        {
            ids.remove(&id);
            if ids.is_empty() {
                self.merged.remove(&merge_key);
            }
        }
    }

    /// A request that comes again after its flow was lost tells where its peer is now. A live flow
    /// is never changed, so that a forged copy cannot divert the responses.
    pub(super) fn adopt_flow(&mut self, id: u64, flow: FlowId, is_reliable: bool) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.is_flow_lost
        {
            (entry.flow, entry.is_reliable, entry.is_flow_lost) = (flow, is_reliable, false);
            self.flows.insert((flow, id));
        }
    }

    /// Runs one event through the table of its transaction; `response` is what arrived.
    pub(super) fn run(
        &mut self,
        now: Instant,
        id: u64,
        event: Event,
        response: Option<&Response>,
    ) -> Ran {
        let Some(entry) = self.entries.get_mut(&id) else { return Ran::Ignored };
        let Some(step) = entry.machine.step(entry.state, event) else { return Ran::Ignored };
        entry.state = step.next;
        let mut ran = Ran::Done;
        for action in step.actions {
            match action {
                Action::Deliver => ran = Ran::Delivered,
                Action::Send => self.send_last(id, false),
                Action::SendAgain => self.send_last(id, true),
                Action::SendTrying => self.send_trying(id),
                Action::SendAck => self.send_ack(id, response),
                Action::SendCancel => self.send_cancel(now, id),
                Action::ReportTimeout
                | Action::ReportFailed
                | Action::ReportFlowLost
                | Action::ReportNoAck => self.report(id, *action),
                _ => self.set_timer(now, id, *action),
            }
        }
        if self.entries.get(&id).is_some_and(|entry| entry.state == State::Terminated) {
            self.remove(id);
        }
        ran
    }

    fn set_timer(&mut self, now: Instant, id: u64, action: Action) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let (timers, own) = (&mut self.timers, &mut entry.deadlines);
        match action {
            // RFC 3261 section 17.1.1.2: nothing is repeated on a reliable transport.
            Action::Repeat | Action::RepeatSlower(_) | Action::RepeatAfter(_)
                if entry.is_reliable => {}
            Action::Repeat => {
                entry.pause = T1;
                timers.arm(id, own, Timer::Retransmit, now + T1);
            }
            Action::RepeatSlower(longest) => {
                entry.pause = entry.pause.saturating_mul(2).min(longest);
                timers.arm(id, own, Timer::Retransmit, now + entry.pause);
            }
            Action::RepeatAfter(pause) => timers.arm(id, own, Timer::Retransmit, now + pause),
            Action::StopRepeating => timers.disarm(id, own, Timer::Retransmit),
            // RFC 3261 table 4: timers D, I, J and K are zero on a reliable transport.
            Action::Linger(_) if entry.is_reliable => entry.state = State::Terminated,
            Action::EndAfter(after) | Action::Linger(after) => {
                timers.arm(id, own, Timer::End, now + after);
            }
            Action::StopEnd => timers.disarm(id, own, Timer::End),
            Action::StartTrying if self.has_automatic_trying => {
                timers.arm(id, own, Timer::Trying, now + TRYING_AFTER);
            }
            Action::StopTrying => timers.disarm(id, own, Timer::Trying),
            Action::CancelLater if entry.cancel == Cancel::NotWanted => {
                entry.cancel = Cancel::Wanted;
            }
            _ => {}
        }
    }

    fn send_last(&mut self, id: u64, is_repetition: bool) {
        if let Some(entry) = self.entries.get(&id)
            && !entry.is_flow_lost
            && let Some(bytes) = entry.last.clone()
        {
            let flow = entry.flow;
            self.outputs.push_back(TransactionOutput::Send { flow, bytes, is_repetition });
        }
    }

    fn send_trying(&mut self, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let (None, Some(request)) = (&entry.last, &entry.request) {
            entry.last = Some(Response::to(request, Status::TRYING, None).to_bytes());
            self.send_last(id, false);
        }
    }

    fn send_ack(&mut self, id: u64, response: Option<&Response>) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let (Some(request), Some(response)) = (&entry.request, response) {
            // The first ACK is sent before timer D starts.
            let is_repetition = entry.deadlines.is_ending();
            entry.last = Some(request.ack_failure(response).to_bytes());
            self.send_last(id, is_repetition);
        }
    }

    fn send_cancel(&mut self, now: Instant, id: u64) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Some(request) = entry.request.as_ref().filter(|_| entry.cancel == Cancel::Wanted)
        else {
            return;
        };
        entry.cancel = Cancel::Sent;
        let mut cancel = request.cancel();
        if let Some(reason) = entry.cancel_reason.take() {
            cancel.headers.push_header(reason);
        }
        let (flow, is_reliable) = (entry.flow, entry.is_reliable);
        self.timers.arm(id, &mut entry.deadlines, Timer::End, now + GIVE_UP);
        // At most one CANCEL for each INVITE, so that the limit holds within a factor of two. It
        // cannot fail: the INVITE's own branch and CSeq were accepted.
        let _ = self.start_client(now, flow, is_reliable, cancel, true);
    }

    fn report(&mut self, id: u64, action: Action) {
        if self.entries.get(&id).is_none_or(|entry| entry.is_internal) {
            return;
        }
        let (client, server) = (ClientKey(id), ServerKey(id));
        self.outputs.push_back(match action {
            Action::ReportTimeout => TransactionOutput::Timeout { key: client },
            Action::ReportFailed => TransactionOutput::TransportFailed { key: client },
            Action::ReportNoAck => {
                TransactionOutput::ServerGone { key: server, cause: ServerGone::NoAck }
            }
            _ => TransactionOutput::ServerGone { key: server, cause: ServerGone::FlowLost },
        });
    }
}
