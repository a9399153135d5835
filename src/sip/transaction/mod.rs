//! Transactions (RFC 3261 section 17, RFC 6026) without I/O: one [`Transactions`] per shard.
//!
//! The owner passes parsed messages to [`Transactions::receive`], acts on what it returns, calls
//! [`Transactions::handle_timeout`] when [`Transactions::poll_timeout`] is due, and drains
//! [`Transactions::poll_output`] before the next input. Four tables (`server_invite.rs`,
//! `server.rs`, `client_invite.rs`, `client.rs`) hold the rules; `engine.rs` carries them out.
//!
//! Not done here: ACK of a 2xx and repeating a 2xx until its ACK ([`crate::AckWait`] and
//! [`crate::Dialog::ack`] help the owner), and everything about dialogs.

mod client;
mod client_invite;
mod engine;
mod key;
mod server;
mod server_invite;
mod table;
mod timers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use base::limit::SIP_TRANSACTIONS;
use base::{Instant, Random, SeededRandom};
use bytes::Bytes;

use self::engine::{Entry, Ran};
use self::key::MatchKey;
use self::table::{Event, Machine, State};
use self::timers::TimerTable;
pub use self::timers::{GIVE_UP, T1, T2, T4, TRYING_AFTER};
use crate::header::Header;
use crate::ids::new_tag;
use crate::message::{Message, Request, Response};
use crate::method::Method;
use crate::status::Status;

/// A way to a peer: one connection, or one UDP socket and remote address. The transport gives
/// the numbers out and never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub u64);

/// A request that arrived and wants a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerKey(u64);

/// A request of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(u64);

/// A transaction of either kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransactionKey {
    /// A request that arrived.
    Server(ServerKey),
    /// A request of ours.
    Client(ClientKey),
}

/// What a received message means to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A new request: answer it with [`Transactions::respond`].
    Request {
        /// Its transaction.
        key: ServerKey,
        /// The request.
        request: Request,
    },
    /// An ACK of a 2xx: find its dialog and stop the [`crate::AckWait`].
    Ack {
        /// The INVITE, where the ACK carries its branch, as old peers do.
        invite: Option<ServerKey>,
        /// The ACK; its body may be the answer to our offer.
        request: Request,
    },
    /// A CANCEL of a request that has no final response yet. The CANCEL was answered 200 here;
    /// the owner answers the INVITE with 487 (RFC 3261 section 9.2).
    Cancelled {
        /// The INVITE.
        invite: ServerKey,
        /// The CANCEL; its Reason may say more.
        request: Request,
    },
    /// A response to a request of ours. A 2xx to an INVITE comes here each time it arrives: the
    /// owner sends its ACK again.
    Response {
        /// The transaction of the request.
        key: ClientKey,
        /// The response.
        response: Response,
    },
    /// There is no room (limit `sip.transactions`): answer 503 with [`Transactions::send`].
    Overloaded(Request),
    /// A response that belongs to nothing here, or that was meant for somebody else
    /// (more than one Via, RFC 3261 section 8.1.3.3): drop it.
    Stray(Response),
    /// Nothing is left to do.
    Absorbed(Absorbed),
}

/// What was dealt with here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absorbed {
    /// A request again; the last response, if any, was repeated.
    Retransmission,
    /// The ACK of a 3xx-6xx.
    AckOfFailure,
    /// A CANCEL that matches nothing: answered 481.
    CancelUnmatched,
    /// A CANCEL after the final response: answered 200 and without effect.
    CancelTooLate,
    /// A CANCEL of an INVITE that is not answered ([`Transactions::ignore`]): neither is it.
    CancelIgnored,
    /// A final response again, or the response to a CANCEL of ours.
    RepeatedResponse,
    /// A message without what tells its transaction; [`crate::validate`] refuses such ones.
    Invalid,
}

/// What the owner must do.
#[derive(Clone, PartialEq, Eq)]
pub enum TransactionOutput {
    /// Put these bytes on this flow.
    Send {
        /// Where.
        flow: FlowId,
        /// What.
        bytes: Bytes,
        /// Whether they were sent before (ladders leave repetitions out).
        is_repetition: bool,
    },
    /// No final response came in time: treat it as 408 (RFC 3261 section 8.1.3.1).
    Timeout {
        /// The request of ours.
        key: ClientKey,
    },
    /// The flow of a request of ours is gone: treat it as 503 (RFC 3261 section 8.1.3.1).
    TransportFailed {
        /// The request of ours.
        key: ClientKey,
    },
    /// A request that arrived lost its peer.
    ServerGone {
        /// The request.
        key: ServerKey,
        /// How.
        cause: ServerGone,
    },
    /// The transaction is forgotten; its key means nothing from now on.
    Terminated {
        /// Which.
        key: TransactionKey,
    },
}

impl fmt::Debug for TransactionOutput {
    /// Prints no content of messages: it holds keys and people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send { flow, bytes, .. } => write!(f, "Send({flow:?}, [{} bytes])", bytes.len()),
            Self::Timeout { key } => write!(f, "Timeout({key:?})"),
            Self::TransportFailed { key } => write!(f, "TransportFailed({key:?})"),
            Self::ServerGone { key, cause } => write!(f, "ServerGone({key:?}, {cause:?})"),
            Self::Terminated { key } => write!(f, "Terminated({key:?})"),
        }
    }
}

/// How a request that arrived lost its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerGone {
    /// Our 3xx-6xx to an INVITE was never acknowledged (timer H).
    NoAck,
    /// Its flow is gone before the final response. The transaction stays: responses are kept and
    /// repeated should the request arrive again on another flow.
    FlowLost,
}

/// Why a response was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// The transaction is gone.
    #[error("the transaction is gone")]
    Unknown,
    /// It has its final response already.
    #[error("the transaction has its final response already")]
    AlreadyFinal,
}

/// Why a request was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// No room (limit `sip.transactions`).
    #[error("too many transactions")]
    Full,
    /// Its top Via has no branch of RFC 3261, or it has no CSeq.
    #[error("the request has no branch or no CSeq")]
    NoBranch,
    /// Its branch is in use.
    #[error("the branch is in use")]
    BranchInUse,
    /// ACK has no transaction of its own: use [`Transactions::send`].
    #[error("an ACK has no transaction")]
    Ack,
}

/// The transactions of one shard.
pub struct Transactions {
    shard: u8,
    /// For the tags of responses made here (to CANCEL), which make no dialog.
    tags: SeededRandom,
    has_automatic_trying: bool,
    limit: usize,
    next_id: u64,
    entries: BTreeMap<u64, Entry>,
    server_keys: BTreeMap<MatchKey, u64>,
    client_keys: BTreeMap<MatchKey, u64>,
    merged: BTreeMap<MatchKey, BTreeSet<u64>>,
    flows: BTreeSet<(FlowId, u64)>,
    timers: TimerTable,
    outputs: VecDeque<TransactionOutput>,
}

impl fmt::Debug for Transactions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transactions {{ shard: {}, live: {} }}", self.shard, self.entries.len())
    }
}

impl Transactions {
    /// No transactions yet. `shard` goes into the tags made here.
    #[must_use]
    pub fn new(shard: u8, random: &mut dyn Random) -> Self {
        Self {
            shard,
            tags: SeededRandom::new(random.u64()),
            has_automatic_trying: true,
            limit: SIP_TRANSACTIONS.get(),
            next_id: 0,
            entries: BTreeMap::new(),
            server_keys: BTreeMap::new(),
            client_keys: BTreeMap::new(),
            merged: BTreeMap::new(),
            flows: BTreeSet::new(),
            timers: TimerTable::default(),
            outputs: VecDeque::new(),
        }
    }

    /// The same without the 100 that an INVITE gets after [`TRYING_AFTER`]; then the owner sends
    /// it, at once for instance.
    #[must_use]
    pub const fn without_automatic_trying(mut self) -> Self {
        self.has_automatic_trying = false;
        self
    }

    /// The same with room for fewer transactions than limit `sip.transactions`.
    #[must_use]
    pub fn with_limit(mut self, limit: usize) -> Self {
        self.limit = limit.min(SIP_TRANSACTIONS.get());
        self
    }

    /// How many transactions there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes a message that arrived on `flow`, after [`Request::stamp_source`] and
    /// [`crate::validate`] (which [`crate::parse`] does).
    pub fn receive(
        &mut self,
        now: Instant,
        flow: FlowId,
        is_reliable: bool,
        message: Message,
    ) -> Received {
        match message {
            Message::Request(request) => match request.method {
                Method::Ack => self.receive_ack(now, request),
                _ => self.receive_request(now, flow, is_reliable, request),
            },
            Message::Response(response) => self.receive_response(now, response),
        }
    }

    fn receive_ack(&mut self, now: Instant, request: Request) -> Received {
        let found = key::server(&request).and_then(|key| self.server_keys.get(&key).copied());
        let Some(id) = found else {
            return Received::Ack { invite: None, request };
        };
        match self.run(now, id, Event::Ack, None) {
            Ran::Delivered => Received::Ack { invite: Some(ServerKey(id)), request },
            Ran::Done | Ran::Ignored => Received::Absorbed(Absorbed::AckOfFailure),
        }
    }

    fn receive_request(
        &mut self,
        now: Instant,
        flow: FlowId,
        is_reliable: bool,
        request: Request,
    ) -> Received {
        let Some(key) = key::server(&request) else {
            return Received::Absorbed(Absorbed::Invalid);
        };
        if let Some(id) = self.server_keys.get(&key).copied() {
            self.adopt_flow(id, flow, is_reliable);
            self.run(now, id, Event::Request, None);
            return Received::Absorbed(Absorbed::Retransmission);
        }
        if self.entries.len() >= self.limit {
            return Received::Overloaded(request);
        }
        let is_invite = request.method == Method::Invite;
        let machine = if is_invite { Machine::ServerInvite } else { Machine::Server };
        let mut entry = Entry::new(machine, key, flow, is_reliable);
        entry.merge_key = key::merged(&request);
        entry.request = is_invite.then(|| Box::new(request.clone()));
        let id = self.insert(entry);
        self.run(now, id, Event::Start, None);
        if request.method == Method::Cancel {
            return self.receive_cancel(now, ServerKey(id), request);
        }
        Received::Request { key: ServerKey(id), request }
    }

    /// RFC 3261 section 9.2.
    fn receive_cancel(&mut self, now: Instant, key: ServerKey, request: Request) -> Received {
        let found = key::cancelled(&request).and_then(|key| self.server_keys.get(&key).copied());
        let invite = found.and_then(|id| self.entries.get(&id).map(|entry| (id, entry)));
        if invite.is_some_and(|(_, entry)| entry.state == State::Ignored) {
            return Received::Absorbed(Absorbed::CancelIgnored);
        }
        // The To tag of this answer should be that of the answers to the INVITE.
        let tag = invite.and_then(|(_, entry)| entry.to_tag.clone());
        let tag = tag.unwrap_or_else(|| new_tag(self.shard, &mut self.tags));
        let status = if invite.is_some() { Status::OK } else { Status::CALL_DOES_NOT_EXIST };
        let pending = invite.map(|(id, entry)| (id, entry.state == State::Proceeding));
        let response = Response::to(&request, status, Some(&tag));
        // The transaction was made just now: it takes a first response.
        let _ = self.respond(now, key, &response);
        match pending {
            Some((id, true)) => Received::Cancelled { invite: ServerKey(id), request },
            Some((_, false)) => Received::Absorbed(Absorbed::CancelTooLate),
            None => Received::Absorbed(Absorbed::CancelUnmatched),
        }
    }

    fn receive_response(&mut self, now: Instant, response: Response) -> Received {
        let is_ours = response.headers.vias().is_ok_and(|vias| vias.len() == 1);
        let found = key::client_of(&response).and_then(|key| self.client_keys.get(&key).copied());
        let Some(id) = found.filter(|_| is_ours) else {
            return Received::Stray(response);
        };
        let is_internal = self.entries.get(&id).is_some_and(|entry| entry.is_internal);
        match self.run(now, id, Event::of(response.status), Some(&response)) {
            Ran::Delivered if !is_internal => Received::Response { key: ClientKey(id), response },
            _ => Received::Absorbed(Absorbed::RepeatedResponse),
        }
    }

    /// Whether a request has a transaction here already: it comes again, or acknowledges or
    /// cancels an INVITE.
    #[must_use]
    pub fn knows(&self, request: &Request) -> bool {
        let keys = [key::server(request), key::cancelled(request)];
        keys.into_iter().flatten().any(|key| self.server_keys.contains_key(&key))
    }

    /// Whether this request came by two paths (RFC 3261 section 8.2.2.2): answer 482. The copy
    /// that came first is not merged.
    #[must_use]
    pub fn is_merged(&self, key: ServerKey) -> bool {
        let merge_key = self.entries.get(&key.0).and_then(|entry| entry.merge_key.as_ref());
        merge_key
            .and_then(|merge_key| self.merged.get(merge_key))
            .is_some_and(|ids| ids.first() != Some(&key.0))
    }

    /// Answers a request. A 2xx to an INVITE may be sent again, which is how the owner repeats it
    /// until the ACK; any other final response is sent once and repeated here.
    ///
    /// # Errors
    /// The transaction is gone or has its final response.
    pub fn respond(
        &mut self,
        now: Instant,
        key: ServerKey,
        response: &Response,
    ) -> Result<(), RespondError> {
        let entry = self.entries.get_mut(&key.0).ok_or(RespondError::Unknown)?;
        let event = Event::of(response.status);
        if !entry.machine.is_server() {
            return Err(RespondError::Unknown);
        }
        if entry.machine.step(entry.state, event).is_none() {
            return Err(RespondError::AlreadyFinal);
        }
        if entry.machine == Machine::ServerInvite && response.status != Status::TRYING {
            entry.to_tag = response.headers.to_tag();
        }
        entry.last = Some(response.to_bytes());
        self.run(now, key.0, event, None);
        Ok(())
    }

    /// Never answers an INVITE: no final response, no 100 either. Its repetitions and its CANCEL
    /// are absorbed until the client has given up.
    pub fn ignore(&mut self, now: Instant, key: ServerKey) {
        // Found merged, a copy by another path would be told.
        self.unmerge(key.0);
        if let Some(entry) = self.entries.get_mut(&key.0) {
            entry.request = None;
        }
        self.run(now, key.0, Event::Ignore, None);
    }

    /// Sends a request of ours, which has a Via with a new branch on top
    /// ([`crate::ids::new_branch`], [`crate::Headers::push_via`]).
    ///
    /// # Errors
    /// No room, no usable branch, or an ACK.
    pub fn request(
        &mut self,
        now: Instant,
        flow: FlowId,
        is_reliable: bool,
        request: Request,
    ) -> Result<ClientKey, RequestError> {
        if self.entries.len() >= self.limit {
            return Err(RequestError::Full);
        }
        self.start_client(now, flow, is_reliable, request, false)
    }

    fn start_client(
        &mut self,
        now: Instant,
        flow: FlowId,
        is_reliable: bool,
        request: Request,
        is_internal: bool,
    ) -> Result<ClientKey, RequestError> {
        if request.method == Method::Ack {
            return Err(RequestError::Ack);
        }
        let via = request.headers.top_via().map_err(|_| RequestError::NoBranch)?;
        let cseq = request.headers.cseq().map_err(|_| RequestError::NoBranch)?;
        let key = key::client(&via, &cseq).filter(|_| via.has_cookie());
        let key = key.ok_or(RequestError::NoBranch)?;
        if self.client_keys.contains_key(&key) {
            return Err(RequestError::BranchInUse);
        }
        let is_invite = request.method == Method::Invite;
        let machine = if is_invite { Machine::ClientInvite } else { Machine::Client };
        let mut entry = Entry::new(machine, key, flow, is_reliable);
        entry.last = Some(request.to_bytes());
        entry.request = is_invite.then(|| Box::new(request));
        entry.is_internal = is_internal;
        let id = self.insert(entry);
        self.run(now, id, Event::Start, None);
        Ok(ClientKey(id))
    }

    /// Gives an INVITE of ours up (RFC 3261 section 9.1): sends CANCEL now or after the first
    /// provisional response, and ends the transaction 64*T1 later should no final response come.
    /// The owner goes on to wait for the final response: 487, or a 2xx that it must ACK and BYE.
    /// `reason` is put into the CANCEL (RFC 3326). Without effect after the final response.
    pub fn cancel(&mut self, now: Instant, key: ClientKey, reason: Option<Header>) {
        if let Some(entry) = self.entries.get_mut(&key.0) {
            entry.cancel_reason = reason;
            self.run(now, key.0, Event::Cancel, None);
        }
    }

    /// Sends a message outside any transaction: the ACK of a 2xx, or a stateless response.
    pub fn send(&mut self, flow: FlowId, message: &Message) {
        let bytes = message.to_bytes();
        self.outputs.push_back(TransactionOutput::Send { flow, bytes, is_repetition: false });
    }

    /// Takes note that a flow is gone: requests of ours on it fail, and nothing more is sent on it.
    pub fn flow_failed(&mut self, now: Instant, flow: FlowId) {
        let range = (flow, u64::MIN)..=(flow, u64::MAX);
        let ids: Vec<u64> = self.flows.range(range).map(|(_, id)| *id).collect();
        for id in ids {
            if let Some(entry) = self.entries.get_mut(&id) {
                self.flows.remove(&(flow, id));
                entry.is_flow_lost = true;
                self.run(now, id, Event::FlowFailed, None);
            }
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((id, timer)) = self.timers.due(now) {
            let Some(entry) = self.entries.get_mut(&id) else { return };
            self.timers.disarm(id, &mut entry.deadlines, timer);
            self.run(now, id, Event::of_timer(timer), None);
        }
    }

    /// When [`Transactions::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// The next thing to do; drain until `None`.
    pub fn poll_output(&mut self) -> Option<TransactionOutput> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
