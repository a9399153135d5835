//! The front door: what every message meets before a shard sees it. Admission by policy, rates
//! by source, refusals without state; then the shard that owns the dialog.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use base::{Clock, Event, Personal, Reason, TrunkName, limit};
use bytes::Bytes;
use call::{Peer, Setup};
use policy::{Admission, Transport};
use sip::{FlowId, Message, Method, Name, ParseFailure, Request, Response, Status, ids};
use tokio::sync::mpsc;
use transport::{Flow, Inlet, TransportHandle};

use crate::archive::Archive;
use crate::clock::{OsClock, OsRandom};
use crate::shard::Input;
use telemetry::Telemetry;

/// Ways into the shards, by number.
pub type Shards = Arc<[mpsc::Sender<Input>]>;

/// See the module's documentation.
pub struct Front {
    setup: Arc<ArcSwap<Setup>>,
    shards: Shards,
    telemetry: Arc<Telemetry>,
    archive: Mutex<Archive>,
    rates: Mutex<Rates>,
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
        archive: Archive,
    ) -> Self {
        Self {
            setup,
            shards,
            telemetry,
            archive: Mutex::new(archive),
            rates: Mutex::default(),
            transport: std::sync::OnceLock::new(),
        }
    }

    /// Tells where refusals are sent; once.
    pub fn connect(&self, transport: TransportHandle) {
        // A second call would name the same transport.
        let _ = self.transport.set(transport);
    }

    fn admission(&self, flow: &Flow) -> Admission {
        let policy = &self.setup.load().policy;
        let transport = word(flow.transport);
        policy::admit(policy, flow.source.ip(), transport, &flow.certificates, OsClock.wall())
    }

    fn send(&self, flow: FlowId, bytes: Bytes) {
        if let Some(transport) = self.transport.get() {
            // A peer that does not read, or is gone, misses its refusal.
            let _ = transport.send(flow, bytes);
        }
    }

    fn rates(&self) -> MutexGuard<'_, Rates> {
        self.rates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses a message without keeping anything: counted, audited, answered where policy and
    /// rate allow, and never with more bytes than came in (so that we are no amplifier).
    fn refuse(
        &self,
        flow: &Flow,
        message: &Bytes,
        reason: Reason,
        trunk: Option<TrunkName>,
        tell: bool,
        silent: bool,
    ) {
        let transport = word(flow.transport);
        let may_answer = !silent && self.rates().refusal(flow.source.ip());
        let answer = may_answer.then(|| stateless(message, flow, reason, tell)).flatten();
        let answer =
            answer.filter(|answer| !flow.transport.is_plaintext() || answer.len() <= message.len());
        let status = answer.as_ref().map_or(0, |_| Status::of(reason).code());
        if let Some(answer) = answer {
            self.send(flow.id, answer);
        }
        self.telemetry.emit(&Event::RequestRefused { reason, transport: transport.word(), status });
        let source = Personal::new(flow.source);
        let failed = self.archive.lock().unwrap_or_else(PoisonError::into_inner).refused(
            OsClock.now(),
            reason,
            source,
            transport,
            trunk,
        );
        if let Some(event) = failed {
            self.telemetry.emit(&event);
        }
    }

    fn deliver(&self, flow: &Arc<Flow>, trunk: TrunkName, raw: &Bytes, message: Message) {
        let count = self.shards.len();
        let shard = shard_of(&message, count);
        let peer = Arc::new(Peer {
            flow: flow.id,
            transport: word(flow.transport),
            source: flow.source,
            local: flow.local,
            certificates: Arc::clone(&flow.certificates),
        });
        let message = Box::new(message);
        let input = call::Input::Message { peer, trunk: trunk.clone(), message };
        let Some(sender) = self.shards.get(shard) else { return };
        if sender.try_send(Input::Call(input)).is_err() {
            self.telemetry.emit(&Event::QueueFull { queue: "shard" });
            self.refuse(flow, raw, Reason::EdgeCallLimit, Some(trunk), true, false);
        }
    }
}

impl Inlet for Front {
    fn admits(&self, source: IpAddr, transport: transport::Transport) -> bool {
        if transport != transport::Transport::Tcp {
            return true; // TLS shows a certificate first; datagrams are refused one by one
        }
        let policy = &self.setup.load().policy;
        let admission = policy::admit(policy, source, Transport::Tcp, &[], OsClock.wall());
        let stranger = matches!(admission, Admission::Refused { trunk: None, .. });
        if stranger {
            let (reason, transport) = (Reason::UnknownPeer, transport.word());
            self.telemetry.emit(&Event::RequestRefused { reason, transport, status: 0 });
        }
        !stranger
    }

    fn takes(&self, flow: &Flow) -> bool {
        let taken = self.rates().message(flow.source.ip());
        if taken == Taken::Dropped {
            let (reason, transport) = (Reason::Flood, flow.transport.word());
            self.telemetry.emit(&Event::MessageDropped { reason, transport });
        }
        taken != Taken::Dropped
    }

    fn message(&self, flow: &Arc<Flow>, raw: Bytes) {
        let trunk = match self.admission(flow) {
            Admission::Trunk(trunk) => trunk,
            Admission::Refused { reason, trunk, tell, silent } => {
                return self.refuse(flow, &raw, reason, trunk, tell, silent);
            }
        };
        if self.rates().is_flood(flow.source.ip()) {
            return self.refuse(flow, &raw, Reason::Flood, Some(trunk), true, false);
        }
        let parsed = match flow.transport {
            transport::Transport::Udp => sip::parse::datagram(&raw),
            _ => sip::parse::stream(&raw),
        };
        match parsed {
            Ok(message) => self.deliver(flow, trunk, &raw, message),
            Err(failure) => {
                if let Some(answer) = self.answer_malformed(flow, &failure) {
                    self.send(flow.id, answer);
                }
            }
        }
    }

    fn malformed(&self, flow: &Arc<Flow>, failure: &ParseFailure) -> Option<Bytes> {
        match self.admission(flow) {
            Admission::Trunk(_) => self.answer_malformed(flow, failure),
            Admission::Refused { reason, .. } => {
                let transport = flow.transport.word();
                self.telemetry.emit(&Event::MessageDropped { reason, transport });
                None
            }
        }
    }

    fn closed(&self, flow: FlowId) {
        for shard in self.shards.iter() {
            let input = Input::Call(call::Input::FlowClosed(flow));
            if shard.try_send(input).is_err() {
                // The call finds out when it next sends: the transport answers "gone".
                self.telemetry.emit(&Event::QueueFull { queue: "shard" });
            }
        }
    }

    fn event(&self, event: Event) {
        self.telemetry.emit(&event);
    }
}

impl Front {
    fn answer_malformed(&self, flow: &Flow, failure: &ParseFailure) -> Option<Bytes> {
        let (reason, transport) = (failure.error.reason(), flow.transport.word());
        let answer = self
            .rates()
            .refusal(flow.source.ip())
            .then(|| failure.response(&ids::new_tag(0, &mut OsRandom)))
            .flatten()
            .map(|mut answer| {
                // RFC 3581 section 4, as for any request.
                answer.headers.edit_top_via(|via| via.stamp(flow.source));
                answer
            });
        let status = answer.as_ref().map_or(0, |answer| answer.status.code());
        self.telemetry.emit(&Event::RequestRefused { reason, transport, status });
        answer.map(|answer| answer.to_bytes())
    }
}

/// The transport in policy's words.
#[must_use]
pub const fn word(transport: transport::Transport) -> Transport {
    match transport {
        transport::Transport::Udp => Transport::Udp,
        transport::Transport::Tcp => Transport::Tcp,
        transport::Transport::Tls => Transport::Tls,
    }
}

/// A refusal made from nothing but the request; `None` for what is not answered: responses, ACK
/// and what cannot be read.
fn stateless(raw: &Bytes, flow: &Flow, reason: Reason, tell: bool) -> Option<Bytes> {
    let Ok(Message::Request(mut request)) = sip::parse::datagram(raw) else { return None };
    if request.method == Method::Ack {
        return None;
    }
    request.stamp_source(flow.source);
    let tag = ids::new_tag(0, &mut OsRandom);
    let mut response = Response::to(&request, Status::of(reason), Some(&tag));
    if tell {
        response.headers.push_warning("callgate", reason.code());
        if Status::of(reason).code() == 503 {
            response.headers.set_retry_after(5);
        }
    }
    Some(response.to_bytes())
}

/// The shard that owns a message: named in our tag or branch, else by its Call-ID, so that
/// retransmissions, CANCEL and ACK of one INVITE meet where it went.
fn shard_of(message: &Message, count: usize) -> usize {
    let named = match message {
        Message::Request(Request { headers, .. }) => {
            headers.to_tag().and_then(|tag| ids::shard_of_tag(&tag))
        }
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
    fn of(&mut self, source: IpAddr) -> &mut OfSource {
        let second = OsClock.now().as_nanos() / 1_000_000_000;
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

    /// Counts a message. Up to four times the limit a known trunk still gets its refusal with a
    /// reason; beyond, even that is too much work.
    fn message(&mut self, source: IpAddr) -> Taken {
        let of = self.of(source);
        of.messages += 1;
        let hard = 4 * limit::TRANSPORT_REQUESTS_PER_SECOND.value;
        if of.messages > hard { Taken::Dropped } else { Taken::Taken }
    }

    fn is_flood(&mut self, source: IpAddr) -> bool {
        self.of(source).messages > limit::TRANSPORT_REQUESTS_PER_SECOND.value
    }

    /// Whether one more refusal may be sent to this source in this second.
    fn refusal(&mut self, source: IpAddr) -> bool {
        let of = self.of(source);
        of.refusals += 1;
        of.refusals <= limit::TRANSPORT_REFUSALS_PER_SECOND.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INVITE: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
        From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\
        Contact: <sip:a@h>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

    fn flow() -> Flow {
        Flow {
            id: FlowId(1),
            transport: transport::Transport::Udp,
            source: "192.0.2.1:5060".parse().unwrap(),
            local: "192.0.2.2:5060".parse().unwrap(),
            certificates: Arc::new([]),
            outgoing: false,
        }
    }

    #[test]
    fn a_stranger_learns_nothing_and_a_trunk_learns_the_reason() {
        let raw = Bytes::from_static(INVITE.as_bytes());
        let text = |tell| {
            let answer = stateless(&raw, &flow(), Reason::PlaintextSignalling, tell).unwrap();
            String::from_utf8(answer.to_vec()).unwrap()
        };
        assert!(text(false).starts_with("SIP/2.0 403 "));
        assert!(!text(false).contains("policy."));
        assert!(text(true).contains("policy.plaintext_signalling"));
    }

    #[test]
    fn an_ack_and_a_response_are_never_answered() {
        let ack = INVITE.replace("INVITE", "ACK");
        assert_eq!(stateless(&Bytes::from(ack), &flow(), Reason::UnknownPeer, true), None);
        let response = INVITE.replace("INVITE sip:b@h SIP/2.0", "SIP/2.0 200 OK");
        assert_eq!(stateless(&Bytes::from(response), &flow(), Reason::UnknownPeer, true), None);
    }

    #[test]
    fn a_dialog_stays_with_the_shard_that_its_tag_names() {
        let tag = ids::new_tag(1, &mut base::SeededRandom::new(1));
        let within = INVITE.replace("To: <sip:b@h>", &format!("To: <sip:b@h>;tag={tag}"));
        let parse = |text: &str| sip::parse::datagram(&Bytes::from(text.to_owned())).unwrap();
        assert_eq!(shard_of(&parse(&within), 2), 1);
        let first = shard_of(&parse(INVITE), 2);
        assert!((0..10).all(|_| shard_of(&parse(INVITE), 2) == first));
        let other = (0..50).any(|n| {
            let text = INVITE.replace("Call-ID: c1", &format!("Call-ID: x{n}"));
            shard_of(&parse(&text), 2) != first
        });
        assert!(other, "all calls go to one shard");
    }

    #[test]
    fn refusals_to_one_source_are_bounded() {
        let mut rates = Rates::default();
        let source = "192.0.2.9".parse().unwrap();
        let sent = (0..1_000).filter(|_| rates.refusal(source)).count() as u64;
        // A new second may begin within the loop.
        assert!(sent <= 2 * limit::TRANSPORT_REFUSALS_PER_SECOND.value);
    }
}
