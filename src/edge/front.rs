//! The front door: what every message meets before a shard sees it. Admission by policy, rates
//! by source, refusals without state; then the shard that owns the dialog.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use base::{Clock, Event, Instant, Personal, Random, Reason, TrunkName, WallTime, limit};
use bytes::Bytes;
use call::{Peer, Setup};
use policy::{Admission, Policy, Transport};
use sip::{FlowId, Message, Method, Name, ParseFailure, Request, Response, Status, ids};
use tokio::sync::mpsc;
use transport::{Flow, HandedOn, Inlet, TransportHandle};

use crate::clock::{OsClock, OsRandom};
use crate::refusals::Refusals;
use crate::shard::Input;
use crate::share::{Places, Shares};
use telemetry::Telemetry;

/// Ways into the shards, by number.
pub type Shards = Arc<[mpsc::Sender<Input>]>;

/// See the module's documentation; what is decided at the door, [`Door`] decides.
pub struct Front {
    setup: Arc<ArcSwap<Setup>>,
    shards: Shards,
    telemetry: Arc<Telemetry>,
    refusals: Refusals,
    door: Door,
    shares: Shares,
    /// Set once the transport is up; nothing arrives before.
    transport: std::sync::OnceLock<TransportHandle>,
}

impl Front {
    /// A door to `shards`.
    #[must_use]
    pub fn new(
        setup: Arc<ArcSwap<Setup>>,
        shards: Shards,
        telemetry: Arc<Telemetry>,
        refusals: Refusals,
    ) -> Self {
        Self {
            setup,
            door: Door::new(shards.len(), Box::new(OsRandom)),
            shares: Shares::default(),
            shards,
            telemetry,
            refusals,
            transport: std::sync::OnceLock::new(),
        }
    }

    /// Tells where refusals are sent; once.
    pub fn connect(&self, transport: TransportHandle) {
        // A second call would name the same transport.
        let _ = self.transport.set(transport);
    }

    /// Asks the door, now.
    fn ask<T>(&self, ask: impl FnOnce(&Door, Moment<'_>) -> T) -> T {
        let setup = self.setup.load();
        let (now, wall) = (OsClock.now(), OsClock.wall());
        ask(&self.door, Moment { now, wall, policy: &setup.policy })
    }

    /// Audits a refusal; a few of them are written and the rest is counted.
    fn audit(
        &self,
        reason: Reason,
        source: SocketAddr,
        transport: Transport,
        trunk: Option<TrunkName>,
    ) {
        let source = Personal::new(source);
        self.refusals.audit(OsClock.now(), reason, &source, transport, trunk);
    }

    /// Counts and audits what was refused; returns its answer.
    fn tell(
        &self,
        source: SocketAddr,
        transport: transport::Transport,
        refused: Refused,
    ) -> Option<Bytes> {
        self.telemetry.emit(&refused.event);
        self.audit(refused.reason, source, word(transport), refused.trunk);
        refused.answer
    }

    /// Tells all shards, since any may have legs over a flow; one that has no room is not waited
    /// for.
    fn tell_all(&self, input: impl Fn() -> call::Input) {
        for shard in self.shards.iter() {
            if shard.try_send(Input::Call(input())).is_err() {
                self.telemetry.emit(&Event::QueueFull { queue: "shard" });
            }
        }
    }

    fn refuse(&self, flow: &Flow, refused: Refused) {
        let answer = self.tell(flow.source, flow.transport, refused);
        if let (Some(answer), Some(transport)) = (answer, self.transport.get()) {
            // A peer that does not read, or is gone, misses its refusal.
            let _ = transport.send(flow.id, answer);
        }
    }
}

impl Inlet for Front {
    fn admits(&self, source: SocketAddr, local: SocketAddr, kind: transport::Transport) -> bool {
        match self.ask(|door, at| door.admits(at, source, local, kind)) {
            Ok(()) => true,
            Err(refused) => {
                self.tell(source, kind, *refused);
                false
            }
        }
    }

    fn turned_away(&self, source: SocketAddr, transport: transport::Transport, reason: Reason) {
        self.audit(reason, source, word(transport), None);
    }

    fn takes(&self, flow: &Flow) -> bool {
        match self.ask(|door, at| door.takes(at, flow)) {
            Ok(()) => true,
            Err(refused) => {
                self.tell(flow.source, flow.transport, *refused);
                false
            }
        }
    }

    fn message(&self, flow: &Arc<Flow>, raw: Bytes) -> Option<HandedOn> {
        let Passed { shard, trunk, alias, input } =
            match self.ask(|door, at| door.message(at, flow, &raw)) {
                Ok(passed) => passed,
                Err(refused) => {
                    self.refuse(flow, *refused);
                    return None;
                }
            };
        if let (Some(port), Some(transport)) = (alias, self.transport.get()) {
            transport.alias(flow, port);
        }
        let sender = self.shards.get(shard)?;
        let reason = match self.shares.hold(&trunk) {
            Ok(held) => match sender.try_send(Input::Message(input, held)) {
                Ok(()) => return None,
                Err(_) => {
                    self.telemetry.emit(&Event::QueueFull { queue: "shard" });
                    Reason::EdgeCallLimit
                }
            },
            Err(_) if flow.transport == transport::Transport::Udp => Reason::Flood,
            Err(places) => {
                self.telemetry.emit(&Event::TrunkHeldBack { trunk });
                return Some(Box::pin(hand_on(places, sender.clone(), input)));
            }
        };
        let refused = self.ask(|door, at| door.refuse(at, flow, &raw, reason, Some(trunk), true));
        self.refuse(flow, *refused);
        None
    }

    fn malformed(&self, flow: &Arc<Flow>, failure: &ParseFailure) -> Option<Bytes> {
        let refused = self.ask(|door, at| door.malformed(at, flow, failure));
        self.tell(flow.source, flow.transport, *refused)
    }

    fn closed(&self, flow: FlowId) {
        // Where one has no room, its timers find out: nobody acknowledges, or answers the next
        // refresh.
        self.tell_all(|| call::Input::FlowClosed(flow));
    }

    fn left(&self, flow: FlowId) {
        // Where one has no room, the path of media is found to be lost.
        self.tell_all(|| call::Input::PartyGone(flow));
    }

    fn event(&self, event: Event) {
        self.telemetry.emit(&event);
    }
}

/// Hands a message on when its trunk has a place again, and its shard room.
async fn hand_on(places: Places, shard: mpsc::Sender<Input>, input: call::Input) {
    let Some(held) = places.next().await else { return };
    // A shard that has ended takes nothing any more.
    let _ = shard.send(Input::Message(input, held)).await;
}

/// When something comes to the door, and the policy that holds then.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// Now.
    pub now: Instant,
    /// Now, on the wall clock.
    pub wall: WallTime,
    /// The policy in force.
    pub policy: &'a Policy,
}

/// A message that is let in.
#[derive(Debug)]
pub struct Passed {
    /// The shard that it belongs to.
    pub shard: usize,
    /// The trunk that it comes from.
    pub trunk: TrunkName,
    /// The port that the peer would be called at over this very connection (RFC 5923).
    pub alias: Option<u16>,
    /// What the shard's calls are told.
    pub input: call::Input,
}

/// Something that is not let in.
#[derive(Debug)]
pub struct Refused {
    /// Why.
    pub reason: Reason,
    /// The trunk that it comes from, where it is one.
    pub trunk: Option<TrunkName>,
    /// What the operator is told.
    pub event: Event,
    /// What the sender is told.
    pub answer: Option<Bytes>,
}

/// Decides what passes, without a clock and without sending anything, so that the simulated world
/// has the same door. Refusals keep no state but the counts of the present second.
pub struct Door {
    shards: usize,
    rates: Mutex<Rates>,
    /// For the tags of answers that make no dialog.
    random: Mutex<Box<dyn Random + Send>>,
}

impl Door {
    /// The door to so many shards.
    #[must_use]
    pub fn new(shards: usize, random: Box<dyn Random + Send>) -> Self {
        Self { shards, rates: Mutex::default(), random: Mutex::new(random) }
    }

    /// Whether a peer may connect, or send a datagram, at all.
    ///
    /// # Errors
    /// Why it may not.
    pub fn admits(
        &self,
        at: Moment<'_>,
        source: SocketAddr,
        local: SocketAddr,
        kind: transport::Transport,
    ) -> Result<(), Box<Refused>> {
        if kind != transport::Transport::Tcp {
            return Ok(()); // TLS shows a certificate first; datagrams are refused one by one
        }
        let transport = Transport::Tcp;
        let admission = policy::admit(at.policy, source.ip(), local, transport, &[], at.wall);
        let Admission::Refused { trunk: None, reason, .. } = admission else { return Ok(()) };
        let event = Event::RequestRefused { reason, transport: transport.word(), status: 0 };
        Err(Box::new(Refused { reason, trunk: None, event, answer: None }))
    }

    /// Counts a message of a flow.
    ///
    /// # Errors
    /// Where its source sends so much that not even a refusal is worth the work.
    pub fn takes(&self, at: Moment<'_>, flow: &Flow) -> Result<(), Box<Refused>> {
        match self.rates().message(at.now, flow.source.ip()) {
            Taken::Taken => Ok(()),
            Taken::Dropped => Err(dropped(flow, Reason::Flood, None)),
        }
    }

    /// Lets a whole message pass to the shard that owns it.
    ///
    /// # Errors
    /// Why it may not pass, and what its sender is told.
    pub fn message(
        &self,
        at: Moment<'_>,
        flow: &Flow,
        raw: &Bytes,
    ) -> Result<Passed, Box<Refused>> {
        let trunk = match admission(at, flow) {
            Admission::Trunk(trunk) => trunk,
            // Who answers us proves by our branch that we have asked; whom we called is known to
            // the calls by the flow that is theirs.
            Admission::Refused { .. } if flow.outgoing || self.is_answer(at, flow, raw) => nobody(),
            Admission::Refused { reason, trunk, silent: true, .. } => {
                return Err(refused(flow, reason, trunk, None));
            }
            Admission::Refused { reason, trunk, tell, .. } => {
                return Err(self.refuse(at, flow, raw, reason, trunk, tell));
            }
        };
        // A stranger whose branch was ours is no trunk: its limit is that of strangers.
        let is_trunk = trunk != nobody();
        if self.rates().is_flood(at.now, flow.source.ip(), is_trunk) {
            return Err(self.refuse(at, flow, raw, Reason::Flood, Some(trunk), true));
        }
        let (parsed, room) = match flow.transport {
            transport::Transport::Udp => (sip::parse::datagram(raw), raw.len()),
            _ => (sip::parse::stream(raw), usize::MAX),
        };
        let message = parsed.map_err(|failure| self.misread(at, flow, &failure, &trunk, room))?;
        let shard = shard_of(&message, self.shards);
        let peer = peer_of(flow);
        let alias = alias_of(&message);
        let message = Box::new(message);
        let input = call::Input::Message { peer, trunk: trunk.clone(), message };
        Ok(Passed { shard, trunk, alias, input })
    }

    /// Whether a message answers something of ours. A flood of such is not even read.
    fn is_answer(&self, at: Moment<'_>, flow: &Flow, raw: &Bytes) -> bool {
        !self.rates().is_flood(at.now, flow.source.ip(), false) && names_our_branch(raw)
    }

    /// What becomes of a stream that can no longer be told apart into messages.
    #[must_use]
    pub fn malformed(&self, at: Moment<'_>, flow: &Flow, failure: &ParseFailure) -> Box<Refused> {
        match admission(at, flow) {
            Admission::Trunk(trunk) => self.misread(at, flow, failure, &trunk, usize::MAX),
            Admission::Refused { reason, trunk, .. } => dropped(flow, reason, trunk),
        }
    }

    /// Refuses a message: answered where the rate allows, and over plaintext never with more bytes
    /// than came in (so that we are no amplifier).
    #[must_use]
    pub fn refuse(
        &self,
        at: Moment<'_>,
        flow: &Flow,
        message: &Bytes,
        reason: Reason,
        trunk: Option<TrunkName>,
        tell: bool,
    ) -> Box<Refused> {
        let may_answer = self.rates().refusal(at.now, flow.source.ip());
        let answer = may_answer.then(|| stateless(message, flow, reason, tell, &self.tag()));
        let answer = answer
            .flatten()
            .filter(|answer| !flow.transport.is_plaintext() || answer.len() <= message.len());
        let answer = answer.map(|answer| (Status::of(reason).code(), answer));
        refused(flow, reason, trunk, answer)
    }

    /// The answer to what cannot be read, of at most `room` bytes: over UDP no more than came, so
    /// that a forged source gets no more than its forger sent. The peer of a stream has proved
    /// that it is where it says: no answer is too long.
    fn misread(
        &self,
        at: Moment<'_>,
        flow: &Flow,
        failure: &ParseFailure,
        trunk: &TrunkName,
        room: usize,
    ) -> Box<Refused> {
        let may_answer = self.rates().refusal(at.now, flow.source.ip());
        let answer = may_answer.then(|| failure.response(&self.tag())).flatten();
        let answer = answer.map(|mut answer| {
            // RFC 3581 section 4, as for any request.
            answer.headers.edit_top_via(|via| via.stamp(flow.source));
            (answer.status.code(), answer.to_bytes())
        });
        let answer = answer.filter(|(_, answer)| answer.len() <= room);
        refused(flow, failure.error.reason(), Some(trunk.clone()), answer)
    }

    fn tag(&self) -> String {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        ids::new_tag(0, &mut **random)
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a trunk where policy names none.
fn nobody() -> TrunkName {
    TrunkName::new("none")
}

/// Whether a message is a response that names a branch of ours; its 96 random bits are checked
/// where its transaction is looked up.
fn names_our_branch(raw: &Bytes) -> bool {
    if !raw.starts_with(b"SIP/2.0 ") {
        return false;
    }
    let Ok(Message::Response(response)) = sip::parse::datagram(raw) else { return false };
    let branch = response.headers.top_via().ok();
    branch.and_then(|via| ids::shard_of_branch(via.branch()?)).is_some()
}

fn admission(at: Moment<'_>, flow: &Flow) -> Admission {
    let (source, transport) = (flow.source.ip(), word(flow.transport));
    policy::admit(at.policy, source, flow.local, transport, &flow.certificates, at.wall)
}

/// Refused with this status and answer, or without a word.
fn refused(
    flow: &Flow,
    reason: Reason,
    trunk: Option<TrunkName>,
    answer: Option<(u16, Bytes)>,
) -> Box<Refused> {
    let (status, answer) = answer.map_or((0, None), |(status, answer)| (status, Some(answer)));
    let event = Event::RequestRefused { reason, transport: flow.transport.word(), status };
    Box::new(Refused { reason, trunk, event, answer })
}

fn dropped(flow: &Flow, reason: Reason, trunk: Option<TrunkName>) -> Box<Refused> {
    let event = Event::MessageDropped { reason, transport: flow.transport.word() };
    Box::new(Refused { reason, trunk, event, answer: None })
}

/// The port that a request's sender listens at, where it asks to be called over this connection
/// (RFC 5923 section 5).
fn alias_of(message: &Message) -> Option<u16> {
    let Message::Request(Request { headers, .. }) = message else { return None };
    let via = headers.top_via().ok().filter(|via| via.params.has("alias"))?;
    Some(via.port.unwrap_or(5061))
}

/// Who is at the other end of a flow, as calls know it.
pub(crate) fn peer_of(flow: &Flow) -> Arc<Peer> {
    Arc::new(Peer {
        flow: flow.id,
        transport: word(flow.transport),
        source: flow.source,
        local: flow.local,
        certificates: Arc::clone(&flow.certificates),
        alias: flow.reusable,
    })
}

/// The transport in policy's words.
#[must_use]
pub const fn word(transport: transport::Transport) -> Transport {
    match transport {
        transport::Transport::Udp => Transport::Udp,
        transport::Transport::Tcp => Transport::Tcp,
        transport::Transport::Tls => Transport::Tls,
        transport::Transport::Wss => Transport::Wss,
        transport::Transport::Whip => Transport::Whip,
    }
}

/// A refusal made from nothing but the request; `None` for what is not answered: responses, ACK
/// and what cannot be read.
fn stateless(raw: &Bytes, flow: &Flow, reason: Reason, tell: bool, tag: &str) -> Option<Bytes> {
    let Ok(Message::Request(mut request)) = sip::parse::datagram(raw) else { return None };
    if request.method == Method::Ack {
        return None;
    }
    request.stamp_source(flow.source);
    let mut response = Response::to(&request, Status::of(reason), Some(tag));
    if tell {
        response.headers.push_warning("callgate", reason.code());
        if Status::of(reason).code() == 503 {
            response.headers.set_retry_after(5);
        }
    }
    Some(response.to_bytes())
}

/// The shard that owns a message: named in our tag or branch, also where an INVITE is to replace
/// one of our dialogs, else by its Call-ID, so that retransmissions, CANCEL and ACK of one INVITE
/// meet where it went.
fn shard_of(message: &Message, count: usize) -> usize {
    let named = match message {
        Message::Request(Request { headers, .. }) => match headers.to_tag() {
            Some(tag) => ids::shard_of_tag(&tag),
            None => headers.text(Name::Replaces).and_then(call::shard_of_replaces),
        },
        Message::Response(Response { headers, .. }) => {
            headers.top_via().ok().and_then(|via| ids::shard_of_branch(via.branch()?))
        }
    };
    if let Some(shard) = named.map(usize::from).filter(|shard| *shard < count) {
        return shard;
    }
    let call_id = message.headers().text(Name::CallId).unwrap_or_default();
    // FNV-1a: spreads well enough over a handful of shards, and is the same in every run.
    let hash = call_id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % count.max(1) as u64) as usize
}

/// Messages and refusals of each source in the present second.
#[derive(Default)]
struct Rates {
    second: u64,
    sources: BTreeMap<IpAddr, OfSource>,
}

#[derive(Default)]
struct OfSource {
    messages: u64,
    refusals: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    Taken,
    Dropped,
}

impl Rates {
    /// The present second's counts; sources beyond the limit share one place.
    fn of(&mut self, now: Instant, source: IpAddr) -> &mut OfSource {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.second {
            self.second = second;
            self.sources.clear();
        }
        let known = self.sources.contains_key(&source);
        let place = if known || self.sources.len() < limit::TRANSPORT_RATED_SOURCES.get() {
            source
        } else {
            IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED)
        };
        self.sources.entry(place).or_default()
    }

    /// Counts a message. Up to four times the limit of trunks one still gets its refusal with a
    /// reason; beyond, even that is too much work.
    fn message(&mut self, now: Instant, source: IpAddr) -> Taken {
        let of = self.of(now, source);
        of.messages += 1;
        let hard = 4 * limit::TRANSPORT_TRUNK_MESSAGES.value;
        if of.messages > hard { Taken::Dropped } else { Taken::Taken }
    }

    fn is_flood(&mut self, now: Instant, source: IpAddr, is_trunk: bool) -> bool {
        let most = match is_trunk {
            true => limit::TRANSPORT_TRUNK_MESSAGES.value,
            false => limit::TRANSPORT_REQUESTS_PER_SECOND.value,
        };
        self.of(now, source).messages > most
    }

    /// Whether one more refusal may be sent to this source in this second.
    fn refusal(&mut self, now: Instant, source: IpAddr) -> bool {
        let of = self.of(now, source);
        of.refusals += 1;
        of.refusals <= limit::TRANSPORT_REFUSALS_PER_SECOND.value
    }
}

#[cfg(test)]
#[path = "front_tests.rs"]
mod tests;
