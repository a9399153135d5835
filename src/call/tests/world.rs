//! What the stories share: an edge with one policy, and a caller that writes its own SIP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::{
    CallId, Event, Instant, LegId, Random, Reason, Secret, SeededRandom, TrunkName, VoiceAgentName,
    WallTime,
};
use bytes::Bytes;
use media::{Fingerprint, FingerprintHash, LegPlan, MediaEvent, Need, Reserved};
use policy::{Observed, Transport, TrunkObserved};
use sip::digest::Login;
use sip::transaction::FlowId;
use sip::{Message, Name, Request, Response};

use crate::{
    AgentCard, Calls, Crossing, Input, Keep, Ledger, Output, Peer, Record, Setup, Unserved,
};

/// A carrier over TLS, a lab over plaintext, and an agent for both.
pub(super) const POLICY: &str = r#"
[trunk.acme]
from           = { networks = ["198.51.100.0/24"] }
codecs         = ["opus", "g722", "pcma", "pcmu"]
limits         = { calls = 3, calls_per_second = 20 }
max_duration   = "1h"
media_inactive = "30s"
recording      = "allowed"
transcript     = "allowed"
dtmf           = ["rfc4733", "info"]

[trunk.other]
from = { networks = ["192.0.2.0/24"] }

[trunk.lab]
from              = { networks = ["203.0.113.7/32"] }
media_from        = ["203.0.113.7/32"]
transports        = ["tls", "udp"]
exempt.signalling = { reason = "NET-4711", expires = 2027-01-31 }
exempt.media      = { reason = "NET-4711", expires = 2027-01-31, inbound = true }

[trunk.beta]
from    = { networks = ["203.0.113.64/26"] }
send_to = ["sip:beta.example;transport=tls", "sip:second.beta.example;transport=tls"]
codecs  = ["pcmu", "g722"]
dtmf    = ["rfc4733"]

[trunk.info]
send_to = ["sip:192.0.2.77"]
codecs  = ["pcma"]
dtmf    = ["info"]

[[route]]
when    = { called = { prefix = "+44" } }
send_to = { trunk = "beta" }

[[route]]
when    = { called = { prefix = "+49" } }
send_to = { trunk = "info" }

[[route]]
when   = { called = { user = "nobody" } }
refuse = { status = 603 }

[[route]]
when    = { called = { user = "ghost" } }
send_to = { agent = "ghost" }

[[route]]
send_to = { agent = "reception" }
"#;

/// The wall clock's origin: 23 November 2026.
const MONDAY: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

/// Counts like the edge's, and can be told to say no.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: u32,
    pub(super) legs: u32,
    pub(super) rate: u32,
    pub(super) draining: bool,
    pub(super) full: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Book(Arc<Mutex<Counts>>);

impl Book {
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Counts) -> T) -> T {
        act(&mut self.0.lock().unwrap())
    }
}

impl Ledger for Book {
    fn observe(&self, _: Instant, wall: WallTime) -> Observed {
        self.with(|counts| {
            let acme =
                TrunkObserved { calls: counts.calls, recent_rate: counts.rate, healthy: true };
            Observed {
                wall,
                edge_calls: counts.calls,
                edge_calls_most: None,
                trunks: [("acme".to_owned(), acme)].into(),
                draining: counts.draining,
            }
        })
    }

    fn attempt(&self, _: Instant, _: &TrunkName) {}

    fn begin(&self, _: &TrunkName) -> bool {
        self.with(|counts| {
            counts.calls += u32::from(!counts.full);
            !counts.full
        })
    }

    fn end(&self, _: &TrunkName) {
        self.with(|counts| counts.calls = counts.calls.checked_sub(1).expect("ended twice"));
    }

    fn begin_leg(&self, _: &TrunkName) {
        self.with(|counts| counts.legs += 1);
    }

    fn end_leg(&self, _: &TrunkName) {
        self.with(|counts| counts.legs = counts.legs.checked_sub(1).expect("ended twice"));
    }
}

/// Randomness that can be told to fail: the only way to a panic inside a call that can be had
/// without a bug.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    random: SeededRandom,
    /// Fills left before one panics; `None` never.
    pub(super) fuse: Arc<Mutex<Option<u32>>>,
}

impl Random for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        let is_burnt = {
            let mut fuse = self.fuse.lock().unwrap();
            match &mut *fuse {
                Some(0) => {
                    *fuse = None;
                    true
                }
                Some(left) => {
                    *left -= 1;
                    false
                }
                None => false,
            }
        };
        assert!(!is_burnt, "a fault of ours");
        self.random.fill(out);
    }
}

/// The edge's side: the calls, and everything that they wanted so far.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) calls: Calls,
    pub(super) book: Book,
    pub(super) fuse: Arc<Mutex<Option<u32>>>,
    pub(super) sent: Vec<(FlowId, Message)>,
    pub(super) needs: Vec<(LegId, Need)>,
    pub(super) plans: Vec<LegPlan>,
    pub(super) handed_over: Vec<(LegId, LegId)>,
    pub(super) released: Vec<LegId>,
    pub(super) started: Vec<(CallId, VoiceAgentName, Keep)>,
    pub(super) held: Vec<bool>,
    pub(super) digits: Vec<char>,
    pub(super) pressed: Vec<(LegId, char)>,
    pub(super) stopped: Vec<CallId>,
    pub(super) retries: Vec<(LegId, Unserved)>,
    pub(super) served: Vec<LegId>,
    pub(super) targets: Vec<LegId>,
    pub(super) transfers_failed: Vec<Reason>,
    pub(super) rings: Vec<(LegId, bool)>,
    /// Who is recorded from then on, or that nobody is.
    pub(super) tapes: Vec<Option<[LegId; 2]>>,
    pub(super) connects: Vec<(LegId, String, Transport)>,
    /// What other shards are told, and which.
    pub(super) crossed: Vec<(u8, Box<Crossing>)>,
    pub(super) records: Vec<Record>,
    pub(super) events: Vec<Event>,
}

pub(super) fn setup(policy: &str) -> Arc<Setup> {
    let policy = match policy::load(&[("policy.toml", policy)], Some(&["reception", "ghost"])) {
        Ok((policy, _)) => policy,
        Err(errors) => panic!("{errors}"),
    };
    let card = AgentCard { recording: true, transcript: true, barge_in: None };
    let logins = policy.lines().filter_map(|line| {
        let digest = line.digest?;
        let password = Secret::new(format!("password of {}", line.trunk));
        let (user, realm) = (digest.user.clone(), digest.realm.clone());
        Some((line.trunk.clone(), Login { user, password, realm }))
    });
    Arc::new(Setup {
        logins: logins.collect(),
        policy: Arc::new(policy),
        agents: [("reception".to_owned(), card)].into(),
        recording: true,
        transcript: true,
        advertise: None,
        media_advertise: None,
        browser_media: Vec::new(),
    })
}

impl World {
    pub(super) fn new() -> Self {
        Self::seeded(1)
    }

    pub(super) fn seeded(seed: u64) -> Self {
        Self::made(seed, POLICY)
    }

    pub(super) fn with_policy(policy: &str) -> Self {
        Self::made(1, policy)
    }

    pub(super) fn made(seed: u64, policy: &str) -> Self {
        Self::of_shard(3, seed, policy)
    }

    pub(super) fn of_shard(shard: u8, seed: u64, policy: &str) -> Self {
        let (book, fuse) = (Book::default(), Arc::new(Mutex::new(None)));
        let dice = Dice { random: SeededRandom::new(seed), fuse: Arc::clone(&fuse) };
        let calls = Calls::new(shard, setup(policy), Box::new(book.clone()), Box::new(dice));
        Self {
            now: Instant::ZERO,
            calls,
            book,
            fuse,
            sent: Vec::new(),
            needs: Vec::new(),
            plans: Vec::new(),
            handed_over: Vec::new(),
            released: Vec::new(),
            started: Vec::new(),
            held: Vec::new(),
            digits: Vec::new(),
            pressed: Vec::new(),
            stopped: Vec::new(),
            retries: Vec::new(),
            served: Vec::new(),
            targets: Vec::new(),
            transfers_failed: Vec::new(),
            rings: Vec::new(),
            tapes: Vec::new(),
            connects: Vec::new(),
            crossed: Vec::new(),
            records: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(super) fn wall(&self) -> WallTime {
        MONDAY + self.now.since(Instant::ZERO)
    }

    pub(super) fn input(&mut self, input: Input) {
        self.calls.handle_input(self.now, self.wall(), input);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.calls.poll_output() {
            match output {
                Output::Send { flow, bytes } => {
                    let message = sip::parse::datagram(&bytes).expect("what we send is SIP");
                    self.sent.push((flow, message));
                }
                Output::Connect { leg, uri, transport, after, .. } => {
                    self.connects.push((leg, uri.expose().clone(), transport));
                    self.retries.extend(after);
                }
                Output::Served { leg } => self.served.push(leg),
                Output::StopAgent { call } => self.stopped.push(call),
                Output::TargetReached { leg } => self.targets.push(leg),
                Output::TransferFailed { reason, .. } => self.transfers_failed.push(reason),
                Output::Ring { leg, on } => self.rings.push((leg, on)),
                Output::Tape { caller, callee, .. } => self.tapes.push(Some([caller, callee])),
                Output::StopTape { .. } => self.tapes.push(None),
                Output::Press { leg, digit } => self.pressed.push((leg, digit)),
                Output::Reserve { leg, need } => self.needs.push((leg, need)),
                Output::Apply { plan } => self.plans.push(*plan),
                Output::HandOver { from, to } => self.handed_over.push((from, to)),
                Output::Release { leg } => self.released.push(leg),
                Output::StartAgent { call, agent, keep, .. } => {
                    self.started.push((call, agent, keep));
                }
                Output::Held { held, .. } => self.held.push(held),
                Output::Digit { digit, .. } => self.digits.push(digit),
                Output::Cross { shard, crossing } => self.crossed.push((shard, crossing)),
                Output::Record(record) => self.records.push(*record),
                Output::Event(event) => self.events.push(event),
            }
        }
    }

    /// Lets time pass, deadline by deadline.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..10_000 {
            let Some(at) = self.calls.poll_timeout().filter(|at| *at <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            self.calls.handle_timeout(self.now, self.wall());
            self.drain();
        }
        panic!("a deadline does not move");
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    /// Takes what was sent so far.
    pub(super) fn take(&mut self) -> Vec<Message> {
        std::mem::take(&mut self.sent).into_iter().map(|(_, message)| message).collect()
    }

    /// The only message sent since the last look.
    pub(super) fn only(&mut self) -> Message {
        let mut all = self.take();
        assert_eq!(all.len(), 1, "{all:#?}");
        all.remove(0)
    }

    /// The only message sent since the last look, which is a response.
    pub(super) fn response(&mut self) -> Response {
        match self.only() {
            Message::Response(response) => response,
            Message::Request(request) => panic!("{request:#?}"),
        }
    }

    /// The only message sent since the last look, which is a request.
    pub(super) fn request(&mut self) -> Request {
        match self.only() {
            Message::Request(request) => request,
            Message::Response(response) => panic!("{response:#?}"),
        }
    }

    pub(super) fn status(&mut self) -> u16 {
        self.response().status.code()
    }

    /// The leg of the last reservation.
    pub(super) fn leg(&self) -> LegId {
        self.needs.last().expect("something was reserved").0
    }

    pub(super) fn media(&mut self, event: MediaEvent) {
        let leg = self.leg();
        self.input(Input::Media { leg, event });
    }

    /// The relay finds ports for the last reservation.
    pub(super) fn reserve(&mut self) {
        let (_, need) = *self.needs.last().expect("something was reserved");
        self.media(MediaEvent::Reserved(found(need)));
    }

    /// The relay finds ports for a reservation, the first being 0.
    pub(super) fn reserve_at(&mut self, number: usize) {
        let (leg, need) = self.needs[number];
        self.input(Input::Media { leg, event: MediaEvent::Reserved(found(need)) });
    }

    pub(super) fn hang_up(&mut self, reason: Reason) {
        let call = self.leg().call;
        self.input(Input::HangUp { call, reason });
    }

    /// How every call ended, in order.
    pub(super) fn ends(&self) -> Vec<Reason> {
        self.records
            .iter()
            .filter_map(|record| match record {
                Record::Ended { reason, .. } => Some(*reason),
                _ => None,
            })
            .collect()
    }

    pub(super) fn calls_counted(&self) -> u32 {
        self.book.with(|counts| counts.calls)
    }

    /// Nothing is left: no call, no deadline, no count, no leg that was not released.
    pub(super) fn assert_quiet(&mut self) {
        self.seconds(200);
        assert!(self.calls.is_empty(), "{} calls are left", self.calls.len());
        assert_eq!(self.calls.poll_timeout(), None, "a deadline is left");
        assert_eq!(self.calls_counted(), 0);
        assert_eq!(self.book.with(|counts| counts.legs), 0);
        for (leg, _) in &self.needs {
            assert!(self.released.contains(leg), "{leg} holds its ports");
        }
    }
}

/// What the relay finds where that is asked for.
fn found(need: Need) -> Reserved {
    let at = |port| SocketAddr::new(need.bind, port);
    Reserved {
        rtp: at(20_000),
        rtcp: need.separate_rtcp.then(|| at(20_001)),
        beside: need.beside.map(|address| SocketAddr::new(address, 20_000)),
        ice_tcp: need.dtls.then(|| at(9_443)).into_iter().collect(),
        fingerprint: need.dtls.then(|| match need.fresh_identity {
            true => fresh_fingerprint(),
            false => our_fingerprint(),
        }),
    }
}

/// Of the certificate that the relay shows.
pub(super) fn our_fingerprint() -> Fingerprint {
    Fingerprint::new(FingerprintHash::Sha256, vec![0xed; 32]).unwrap()
}

/// Of the certificate that the relay shows on one leg alone.
pub(super) fn fresh_fingerprint() -> Fingerprint {
    Fingerprint::new(FingerprintHash::Sha256, vec![0xf0; 32]).unwrap()
}

/// A caller: one dialog, written as text.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) peer: Arc<Peer>,
    pub(super) trunk: TrunkName,
    pub(super) call_id: String,
    pub(super) tag: String,
    /// Our tag, once the edge has answered.
    pub(super) to_tag: String,
    pub(super) cseq: u32,
    pub(super) target: String,
    pub(super) contact: String,
    /// Further header lines of every request.
    pub(super) extra: String,
    branch: u32,
}

pub(super) fn peer(source: &str, flow: u64, transport: Transport) -> Arc<Peer> {
    Arc::new(Peer {
        flow: FlowId(flow),
        transport,
        source: source.parse().unwrap(),
        local: "10.20.0.5:5061".parse().unwrap(),
        certificates: [].into(),
        alias: false,
    })
}

impl Caller {
    /// A caller of the trunk `acme` over TLS.
    pub(super) fn acme() -> Self {
        Self::new("acme", peer("198.51.100.9:40000", 1, Transport::Tls), "one")
    }

    /// A caller of the exempted trunk `lab` over UDP.
    pub(super) fn lab() -> Self {
        Self::new("lab", peer("203.0.113.7:5060", 2, Transport::Udp), "two")
    }

    pub(super) fn new(trunk: &str, peer: Arc<Peer>, name: &str) -> Self {
        Self {
            contact: format!("<sip:{};transport=tls>", peer.source),
            peer,
            trunk: TrunkName::new(trunk),
            call_id: format!("{name}@caller"),
            tag: format!("tag-{name}"),
            to_tag: String::new(),
            cseq: 1,
            target: "sip:reception@edge.example".to_owned(),
            extra: String::new(),
            branch: 0,
        }
    }

    /// A request as text. `body` is `TYPE|BYTES` or empty.
    pub(super) fn text(&mut self, method: &str, cseq: u32, body: &str) -> String {
        self.branch += 1;
        let Self { call_id, tag, to_tag, target, contact, extra, branch, peer, .. } = self;
        let (transport, source) = (peer.transport.word().to_ascii_uppercase(), peer.source);
        let to_tag = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let (content, body) = match body.split_once('|') {
            Some((kind, body)) => (format!("Content-Type: {kind}\r\n"), body),
            None => (String::new(), ""),
        };
        format!(
            "{method} {target} SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {source};branch=z9hG4bK-{tag}-{branch};rport\r\n\
             Max-Forwards: 70\r\n\
             From: <sip:+12125550123@caller.example>;tag={tag}\r\n\
             To: <sip:reception@edge.example>{to_tag}\r\n\
             Call-ID: {call_id}\r\n\
             CSeq: {cseq} {method}\r\n\
             Contact: {contact}\r\n\
             {extra}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Sends text to the edge.
    pub(super) fn say(&self, world: &mut World, text: &str) {
        let bytes = Bytes::copy_from_slice(text.as_bytes());
        let message = sip::parse::datagram(&bytes).expect("what the stories send is SIP");
        self.send(world, message);
    }

    pub(super) fn send(&self, world: &mut World, message: Message) {
        world.input(Input::Message {
            peer: Arc::clone(&self.peer),
            trunk: self.trunk.clone(),
            message: Box::new(message),
        });
    }

    /// Sends a new request and returns its text.
    pub(super) fn request(&mut self, world: &mut World, method: &str, body: &str) -> String {
        self.cseq += 1;
        let text = self.text(method, self.cseq, body);
        self.say(world, &text);
        text
    }

    pub(super) fn ack(&mut self, world: &mut World, body: &str) {
        let text = self.text("ACK", self.cseq, body);
        self.say(world, &text);
    }

    /// Takes the edge's tag from its answer.
    pub(super) fn follow(&mut self, response: &Response) {
        self.to_tag = response.headers.to_tag().expect("an answer has a tag");
    }

    /// Answers a request of the edge.
    pub(super) fn answer(&self, world: &mut World, request: &Request, status: &str, more: &str) {
        let field = |name| request.headers.text(name).unwrap_or_default().to_owned();
        let (content, body) = more.split_once('|').unwrap_or((more, ""));
        let text = format!(
            "SIP/2.0 {status}\r\nVia: {}\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {}\r\n\
             Contact: <sip:{}>\r\n{content}Content-Length: {}\r\n\r\n{body}",
            field(Name::Via),
            field(Name::From),
            field(Name::To),
            field(Name::CallId),
            field(Name::CSeq),
            self.peer.source,
            body.len()
        );
        self.say(world, &text);
    }

    /// A whole call up to the ACK; returns the edge's 200.
    pub(super) fn call(&mut self, world: &mut World, body: &str) -> Response {
        let response = self.ring(world, body);
        self.ack(world, "");
        response
    }

    /// A whole call up to the 200.
    pub(super) fn ring(&mut self, world: &mut World, body: &str) -> Response {
        self.request(world, "INVITE", body);
        assert!(world.take().is_empty());
        world.reserve();
        let response = world.response();
        assert_eq!(response.status.code(), 200, "{response:#?}");
        self.follow(&response);
        response
    }
}

/// A key for AES_CM_128_HMAC_SHA1_80 in base64, told apart by its first letter.
pub(super) fn key(letter: char) -> String {
    format!("{letter}{}", "A".repeat(39))
}

/// An offer of SRTP with G.711, and with rtcp-mux.
pub(super) fn offer() -> String {
    offer_with("a=sendrecv")
}

/// The same with further attribute lines.
pub(super) fn offer_with(lines: &str) -> String {
    described("RTP/SAVP 8 0 101", &format!("{}\r\n{lines}", crypto(1, 'P')))
}

pub(super) fn crypto(tag: u32, letter: char) -> String {
    format!("a=crypto:{tag} AES_CM_128_HMAC_SHA1_80 inline:{}", key(letter))
}

/// A description with one audio line.
pub(super) fn described(line: &str, attributes: &str) -> String {
    format!(
        "application/sdp|v=0\r\no=- 4 4 IN IP4 198.51.100.9\r\ns=-\r\nc=IN IP4 198.51.100.9\r\n\
         t=0 0\r\nm=audio 30000 {line}\r\na=rtpmap:101 telephone-event/8000\r\na=rtcp-mux\r\n\
         {attributes}\r\n"
    )
}

/// The description in a message.
pub(super) fn sdp_of(body: &Bytes) -> sdp::Session {
    sdp::Session::parse(body).expect("what we send is SDP")
}

pub(super) fn direction(body: &Bytes) -> &'static str {
    let session = sdp_of(body);
    session.direction_of(&session.media[0]).name()
}
