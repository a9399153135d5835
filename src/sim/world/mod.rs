//! The simulated world: the production front door, shards and packet path, stepped in virtual
//! time, between simulated carriers and scripted providers, over a network with faults.
//!
//! Everything follows from one seed, which a failing story prints; `CALLGATE_SEED` repeats it.
//! Not simulated: sockets, TLS, framing, threads and the vault's disk.

mod caller;
mod hands;
mod many;
mod network;
mod phone;
mod stories;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::provider::{ProviderEvent, UtteranceId};
use base::{CallId, Event, Instant, Personal, Random, Reason, SeededRandom, SessionId, WallTime};
use bytes::Bytes;
use call::{Calls, Record, Setup};
use edge::front::{Door, Moment, Passed};
use edge::ledger::SharedLedger;
use edge::shard::{Input, Shard};
use policy::{Policy, Transport};
use sip::FlowId;
use transport::Flow;

use caller::{Act, Caller};
use hands::{Hands, SIP_ADDRESS};
use network::Faults;

const POLICY: &str = r#"
[trunk.acme]
from           = { networks = ["198.51.100.0/24"] }
codecs         = ["opus", "g722", "pcma", "pcmu"]
limits         = { calls = 500, calls_per_second = 500 }
max_duration   = "10m"
media_inactive = "20s"
recording      = "allowed"

[trunk.lab]
from              = { networks = ["203.0.113.7/32"] }
media_from        = ["203.0.113.7/32"]
transports        = ["tls", "udp"]
codecs            = ["opus", "g722", "pcma", "pcmu"]
limits            = { calls = 500, calls_per_second = 500 }
max_duration      = "10m"
media_inactive    = "20s"
exempt.signalling = { reason = "NET-4711", expires = 2027-01-31 }
exempt.media      = { reason = "NET-4711", expires = 2027-01-31, inbound = true }

[[route]]
send_to = { agent = "reception" }
"#;

const GREETING: &str = "Hello, this is the simulated world, and it talks for quite a while.";

const AGENT: &str = r#"
recording = true
start     = "welcome"
[silence]
reprompt_after_ms = 3000
times             = 2
goodbye           = "Bye."
[knowledge]
hours = "From nine to five."
[step.welcome]
say  = "Hello, this is the simulated world, and it talks for quite a while."
next = "menu"
[step.menu]
ask      = "Hours or goodbye?"
choice   = [
    { key = "1", say = ["hours"], go = "hours" },
    { key = "2", say = ["goodbye"], go = "bye" },
]
misheard = "Again?"
tries    = 3
give_up  = "bye"
[step.hours]
answer_from = "hours"
question    = "when"
unknown     = "Never."
next        = "menu"
[step.bye]
goodbye = "Goodbye."
"#;

/// 23 November 2026.
const MONDAY: WallTime = WallTime::from_unix_millis(1_795_392_000_000);
/// The edge's shards.
const SHARDS: u8 = 2;
/// Most things that one step may make the edge do.
const OUTPUTS: usize = 400;

/// Who has to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Actor {
    Shard(usize),
    Session(SessionId),
    Caller(usize),
}

/// What is on its way.
#[derive(Debug)]
enum Happening {
    SipToEdge { caller: usize, flow: FlowId, bytes: Bytes },
    SipToCaller { caller: usize, flow: FlowId, bytes: Bytes },
    Media { from: SocketAddr, to: SocketAddr, datagram: Vec<u8> },
    Shard(usize, Input),
    Heard { shard: usize, call: CallId, utterance: UtteranceId },
    Call(usize),
}

/// See the module's documentation.
struct World {
    now: Instant,
    random: SeededRandom,
    seed: u64,
    policy: Arc<Policy>,
    door: Door,
    shards: Vec<Shard>,
    hands: Hands,
    ledger: SharedLedger,
    callers: Vec<Caller>,
    flows: BTreeMap<FlowId, usize>,
    by_media: BTreeMap<SocketAddr, usize>,
    /// Faults of signalling over UDP; over TLS nothing is lost.
    sip: Faults,
    media: Faults,
    queue: BTreeMap<(Instant, u64), Happening>,
    order: u64,
    alarms: BTreeSet<(Instant, Actor)>,
    armed: BTreeMap<Actor, Instant>,
    /// Bytes on TLS connections arrive in order.
    in_order: BTreeMap<FlowId, Instant>,
    secrets: Vec<String>,
    events_seen: usize,
    /// Steps since the clock moved.
    idle: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let agents = Arc::new([("reception".to_owned(), flow())].into());
        let policy = match policy::load(&[("policy.toml", POLICY)], Some(&["reception"])) {
            Ok((policy, _)) => policy,
            Err(errors) => panic!("{errors}"),
        };
        let policy = Arc::new(policy);
        let setup = Arc::new(Setup {
            policy: Arc::clone(&policy),
            agents: edge::agents::cards(&agents),
            logins: BTreeMap::new(),
            recording: true,
            transcript: true,
            advertise: None,
            media_advertise: None,
            browser_media: Vec::new(),
        });
        let ledger = SharedLedger::default();
        let random = |part: u64| Box::new(SeededRandom::new(seed ^ 0xed6e ^ part << 32));
        let shard = |number: u8| {
            let random = random(u64::from(number));
            let calls = Calls::new(number, Arc::clone(&setup), Box::new(ledger.clone()), random);
            Shard::new(number, SHARDS, calls, Arc::clone(&agents))
        };
        let shards = (0..SHARDS).map(shard).collect();
        Self {
            now: Instant::ZERO,
            random: SeededRandom::new(seed),
            seed,
            policy,
            door: Door::new(usize::from(SHARDS), random(0xd001)),
            shards,
            hands: Hands::default(),
            ledger,
            callers: Vec::new(),
            flows: BTreeMap::new(),
            by_media: BTreeMap::new(),
            sip: Faults::NONE,
            media: Faults::NONE,
            queue: BTreeMap::new(),
            order: 0,
            alarms: BTreeSet::new(),
            armed: BTreeMap::new(),
            in_order: BTreeMap::new(),
            secrets: Vec::new(),
            events_seen: 0,
            idle: 0,
        }
    }

    fn wall(&self) -> WallTime {
        MONDAY + self.now.since(Instant::ZERO)
    }

    /// A new caller, who calls when [`World::call`] says so.
    fn caller(&mut self, transport: Transport) -> &mut Caller {
        let (index, flow) = (self.callers.len(), self.hands.new_flow());
        let caller = Caller::new(index, flow, transport, self.seed);
        self.flows.insert(flow, index);
        self.by_media.insert(caller.phone.address, index);
        self.secrets.extend(caller.secrets());
        self.callers.push(caller);
        &mut self.callers[index]
    }

    /// Lets a caller call after `delay`.
    fn call(&mut self, caller: usize, delay: Duration) {
        self.later(delay, Happening::Call(caller));
    }

    fn later(&mut self, delay: Duration, happening: Happening) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), happening);
    }

    /// Lets `time` pass.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.next().is_some_and(|next| next <= end) {
            self.step();
        }
        self.now = end;
    }

    fn seconds(&mut self, seconds: u64) {
        self.pass(Duration::from_secs(seconds));
    }

    fn next(&self) -> Option<Instant> {
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        let alarm = self.alarms.first().map(|(at, _)| *at);
        [queued, alarm].into_iter().flatten().min()
    }

    /// The next thing happens.
    fn step(&mut self) {
        let Some(next) = self.next() else { return };
        self.idle = if next > self.now { 0 } else { self.idle + 1 };
        assert!(self.idle < 10_000, "time stands still (seed {})", self.seed);
        self.now = self.now.max(next);
        (self.hands.now, self.hands.wall) = (self.now, self.wall());
        let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
        if queued == Some(next) {
            if let Some((_, happening)) = self.queue.pop_first() {
                self.happen(happening);
            }
        } else if let Some((at, actor)) = self.alarms.pop_first() {
            self.armed.remove(&actor);
            debug_assert_eq!(at, next);
            self.wake(actor);
        }
        self.settle();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::SipToEdge { caller, flow, bytes } => self.sip_to_edge(caller, flow, &bytes),
            Happening::SipToCaller { caller, flow, bytes } => {
                // What was written to a connection that is gone meanwhile is lost.
                if self.callers[caller].flow == flow {
                    self.callers[caller].receive(self.now, &bytes);
                    self.after_caller(caller);
                }
            }
            Happening::Media { from, to, mut datagram } => match self.by_media.get(&to).copied() {
                Some(caller) => self.callers[caller].phone.receive(self.now, &mut datagram),
                None => self.hands.receive(from, to, &mut datagram),
            },
            Happening::Shard(shard, input) => self.hands.inputs.push_back((shard, input)),
            Happening::Heard { shard, call, utterance } => self.heard(shard, call, utterance),
            Happening::Call(caller) => {
                self.callers[caller].call(self.now);
                self.after_caller(caller);
            }
        }
    }

    fn wake(&mut self, actor: Actor) {
        match actor {
            Actor::Shard(number) => {
                self.hands.shard = number;
                let (now, wall) = (self.now, self.wall());
                self.shards[number].handle_timeout(now, wall, &mut self.hands);
            }
            Actor::Session(session) => self.hands.tick(session),
            Actor::Caller(index) => {
                let (acts, media) = self.callers[index].tick(self.now);
                let from = self.callers[index].phone.address;
                if let Some((to, datagram)) = media {
                    self.carry_media(from, to, datagram);
                }
                if acts.contains(&Act::Drop) || acts.contains(&Act::DropEarly) {
                    self.drop_flow(index);
                }
                self.after_caller(index);
            }
        }
    }

    fn sip_to_edge(&mut self, caller: usize, flow: FlowId, bytes: &Bytes) {
        let caller = &self.callers[caller];
        let flow = Flow {
            id: flow,
            transport: match caller.transport {
                Transport::Udp => transport::Transport::Udp,
                _ => transport::Transport::Tls,
            },
            source: caller.address,
            local: SIP_ADDRESS,
            certificates: [].into(),
            outgoing: self.hands.dialled.contains(&flow),
            reusable: false,
        };
        let at = Moment { now: self.now, wall: self.wall(), policy: &self.policy };
        let taken = self.door.takes(at, &flow);
        match taken.and_then(|()| self.door.message(at, &flow, bytes)) {
            Ok(Passed { shard, input, .. }) => {
                self.hands.inputs.push_back((shard, Input::Call(input)));
            }
            Err(refused) => {
                self.hands.events.push((self.now, refused.event));
                self.hands.sip.extend(refused.answer.map(|answer| (flow.id, answer)));
            }
        }
    }

    /// The transcriber's answer: what the caller has said meanwhile.
    fn heard(&mut self, shard: usize, call: CallId, utterance: UtteranceId) {
        let address = self.hands.callers.get(&call).copied();
        let caller = self.callers.iter_mut().find(|it| Some(it.address) == address);
        let event = match caller.and_then(|caller| caller.words.pop_front()) {
            Some(words) => {
                let text = Personal::new(words.to_owned());
                ProviderEvent::Heard { utterance, text, confidence: 0.9 }
            }
            None => ProviderEvent::NothingHeard { utterance },
        };
        self.hands.inputs.push_back((shard, Input::Provider { call, event }));
    }

    /// A caller's connection is gone; both sides learn of it.
    fn drop_flow(&mut self, caller: usize) {
        let (old, fresh) = (self.callers[caller].flow, self.hands.new_flow());
        self.flows.remove(&old);
        self.flows.insert(fresh, caller);
        self.callers[caller].reconnect(self.now, fresh);
        for shard in 0..self.shards.len() {
            let closed = call::Input::FlowClosed(old);
            self.hands.inputs.push_back((shard, Input::Call(closed)));
        }
    }

    /// Carries what a caller wants to send.
    fn after_caller(&mut self, index: usize) {
        let caller = &mut self.callers[index];
        let (flow, is_udp) = (caller.flow, caller.transport == Transport::Udp);
        for bytes in std::mem::take(&mut caller.out) {
            for delay in self.sip_delays(flow, is_udp) {
                let bytes = bytes.clone();
                self.later(delay, Happening::SipToEdge { caller: index, flow, bytes });
            }
        }
        self.arm(Actor::Caller(index), self.callers[index].due());
    }

    /// When copies of a message arrive; over TLS one does, in order.
    fn sip_delays(&mut self, flow: FlowId, is_udp: bool) -> Vec<Duration> {
        if is_udp {
            return self.sip.arrivals(&mut self.random);
        }
        let jitter = self.random.below(self.sip.jitter_ms + 1);
        let at = self.now + self.sip.delay + Duration::from_millis(u64::from(jitter));
        let last = self.in_order.entry(flow).or_default();
        *last = at.max(*last);
        vec![last.since(self.now)]
    }

    fn carry_media(&mut self, from: SocketAddr, to: SocketAddr, datagram: Vec<u8>) {
        for delay in self.media.arrivals(&mut self.random) {
            self.later(delay, Happening::Media { from, to, datagram: datagram.clone() });
        }
    }

    fn arm(&mut self, actor: Actor, at: Option<Instant>) {
        if let Some(old) = self.armed.remove(&actor) {
            self.alarms.remove(&(old, actor));
        }
        if let Some(at) = at {
            self.alarms.insert((at, actor));
            self.armed.insert(actor, at);
        }
    }

    /// Lets the edge finish what it began, and carries what it sent.
    fn settle(&mut self) {
        let mut handled = 0;
        while let Some((shard, input)) = self.hands.inputs.pop_front() {
            self.hands.shard = shard;
            let (now, wall) = (self.now, self.wall());
            self.shards[shard].handle(now, wall, input, &mut self.hands);
            handled += 1;
            assert!(handled < OUTPUTS, "a step does not end (seed {})", self.seed);
        }
        for (flow, target) in std::mem::take(&mut self.hands.opened) {
            if let Some(index) = self.callers.iter().position(|it| it.address == target) {
                self.callers[index].flow = flow;
                self.flows.insert(flow, index);
                self.hands.dialled.insert(flow);
            }
        }
        assert!(self.hands.sip.len() < OUTPUTS && self.hands.media.len() < OUTPUTS);
        for (flow, bytes) in std::mem::take(&mut self.hands.sip) {
            let Some(caller) = self.flows.get(&flow).copied() else { continue };
            let is_udp = self.callers[caller].transport == Transport::Udp;
            for delay in self.sip_delays(flow, is_udp) {
                let bytes = bytes.clone();
                self.later(delay, Happening::SipToCaller { caller, flow, bytes });
            }
        }
        for (from, to, datagram) in std::mem::take(&mut self.hands.media) {
            self.carry_media(from, to, datagram);
        }
        for (delay, shard, input) in std::mem::take(&mut self.hands.later) {
            self.later(delay, Happening::Shard(shard, input));
        }
        for (shard, call, utterance) in std::mem::take(&mut self.hands.asked) {
            let heard = Happening::Heard { shard, call, utterance };
            self.later(Duration::from_millis(120), heard);
        }
        for session in std::mem::take(&mut self.hands.touched) {
            let due = self.hands.due(session);
            self.arm(Actor::Session(session), due);
        }
        for number in 0..self.shards.len() {
            self.arm(Actor::Shard(number), self.shards[number].poll_timeout());
        }
        self.look_at_events();
    }

    /// No event may hold what belongs to a person or keys anything.
    fn look_at_events(&mut self) {
        for (_, event) in &self.hands.events[self.events_seen..] {
            let printed = format!("{event:?}");
            for secret in &self.secrets {
                assert!(!printed.contains(secret), "{secret} in {printed}");
            }
            assert!(!matches!(event, Event::CallPanicked { .. } | Event::ShardPanicked {}));
        }
        self.events_seen = self.hands.events.len();
    }

    /// Lets every caller hang up or give up, and checks that nothing is left.
    fn end(&mut self) {
        for index in 0..self.callers.len() {
            self.callers[index].hang_up(self.now);
            self.after_caller(index);
        }
        self.seconds(20);
        // Whoever has not learnt that the call is over stops sending at last.
        self.callers.iter_mut().for_each(|caller| caller.phone.hang_up());
        // The longest call allowed, the last retransmission and the last report fit into this.
        self.seconds(11 * 60);
        let seed = self.seed;
        for shard in &self.shards {
            assert_eq!(shard.calls(), 0, "calls are left (seed {seed})");
            assert_eq!(shard.sessions(), 0, "sessions are known (seed {seed})");
            assert_eq!(shard.talks(), 0, "conversations are left (seed {seed})");
            assert_eq!(shard.poll_timeout(), None, "a deadline is left (seed {seed})");
        }
        assert_eq!(self.hands.sessions(), 0, "sessions are left (seed {seed})");
        assert_eq!(self.hands.ears(), 0, "ears are left (seed {seed})");
        assert_eq!(self.ledger.calls(), 0, "the ledger counts calls (seed {seed})");
        let mut ends: BTreeMap<CallId, [u32; 2]> = BTreeMap::new();
        for record in &self.hands.records {
            match record {
                Record::Arrived { call, .. } => ends.entry(*call).or_default()[0] += 1,
                Record::Ended { call, .. } => ends.entry(*call).or_default()[1] += 1,
                _ => {}
            }
        }
        assert!(ends.values().all(|counts| *counts == [1, 1]), "{ends:?} (seed {seed})");
        assert!(self.callers.iter().all(|it| it.phone.wrong == 0), "wrong media (seed {seed})");
    }

    /// How the calls ended, in order.
    fn ends(&self) -> Vec<Reason> {
        let ends = self.hands.records.iter().filter_map(|record| match record {
            Record::Ended { reason, .. } => Some(*reason),
            _ => None,
        });
        ends.collect()
    }

    /// What was said, in order: `A` for the agent, `C` for the caller.
    fn transcript(&self) -> Vec<String> {
        let line = |turn: &agent::Turn| {
            let who = if turn.speaking == agent::Speaking::Agent { 'A' } else { 'C' };
            format!("{who}: {}", turn.text.expose())
        };
        self.hands.turns.iter().map(|(_, turn)| line(turn)).collect()
    }
}

fn flow() -> Arc<agent::Flow> {
    match agent::file::compile("reception.toml", AGENT) {
        Ok(flow) => Arc::new(flow),
        Err(errors) => panic!("{}", errors[0]),
    }
}

/// The seed of this run: `CALLGATE_SEED`, or the story's own.
fn seed(own: u64) -> u64 {
    let given = std::env::var("CALLGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or(own);
    println!("repeat with CALLGATE_SEED={seed}");
    seed
}
