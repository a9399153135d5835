//! What the four state machines have in common: states, events and actions. Each machine is one
//! function from (state, event) to a [`Step`]; a pair without a step is ignored.

use std::time::Duration;

use super::{client, client_invite, server, server_invite};

/// Which table a transaction follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    ServerInvite,
    Server,
    ClientInvite,
    Client,
}

impl Machine {
    pub(super) const fn step(self, state: State, event: Event) -> Option<Step> {
        match self {
            Self::ServerInvite => server_invite::step(state, event),
            Self::Server => server::step(state, event),
            Self::ClientInvite => client_invite::step(state, event),
            Self::Client => client::step(state, event),
        }
    }

    pub(super) const fn is_server(self) -> bool {
        matches!(self, Self::ServerInvite | Self::Server)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Made and not yet started; the first event starts it.
    New,
    Calling,
    Trying,
    Proceeding,
    Completed,
    Confirmed,
    Accepted,
    /// The owner does not answer.
    Ignored,
    Terminated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The owner sends the request, or the request has arrived.
    Start,
    /// The request has arrived again.
    Request,
    /// An ACK has arrived.
    Ack,
    /// A 1xx: sent by the owner of a server transaction, arrived at a client one.
    Provisional,
    /// A 2xx, likewise.
    Success,
    /// A 3xx-6xx, likewise.
    Failure,
    /// The owner gives the INVITE up.
    Cancel,
    /// The owner will never answer.
    Ignore,
    /// The retransmission timer fired.
    RetransmitDue,
    /// The end timer fired.
    EndDue,
    /// The timer of the automatic 100 fired.
    TryingDue,
    /// The flow is gone.
    FlowFailed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Sends our request or our last response.
    Send,
    /// The same, as a repetition.
    SendAgain,
    /// Sends 100 where the owner has not answered.
    SendTrying,
    /// Sends the ACK of the response.
    SendAck,
    /// Sends the CANCEL, where one is wanted.
    SendCancel,
    /// Remembers to send the CANCEL after the first provisional response (RFC 3261 section 9.1).
    CancelLater,
    /// Hands the message to the owner.
    Deliver,
    /// Starts the retransmission timer at T1; nothing on a reliable transport.
    Repeat,
    /// Starts it again at twice the pause, as long as this at most.
    RepeatSlower(Duration),
    /// Starts it again after this long.
    RepeatAfter(Duration),
    StopRepeating,
    /// Starts the end timer.
    EndAfter(Duration),
    /// Starts the end timer, or ends at once on a reliable transport.
    Linger(Duration),
    StopEnd,
    StartTrying,
    StopTrying,
    /// Tells the owner that no response came.
    ReportTimeout,
    /// Tells the owner of a client transaction that its flow is gone.
    ReportFailed,
    /// Tells the owner of a server transaction that its flow is gone.
    ReportFlowLost,
    /// Tells the owner that no ACK came.
    ReportNoAck,
}

/// Where an event leads, and what is done on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) next: State,
    pub(super) actions: &'static [Action],
}

pub(super) const fn to(next: State, actions: &'static [Action]) -> Option<Step> {
    Some(Step { next, actions })
}
