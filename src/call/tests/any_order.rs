//! Whatever happens in whatever order, nothing is left behind. A failure prints its seed;
//! `CALLGATE_SEED` repeats it.

use std::collections::BTreeMap;
use std::time::Duration;

use base::{CallId, Event, Personal, Random, Reason, SeededRandom};
use media::{MediaEvent, Purpose};
use policy::Transport;
use sip::{Message, Name, Request};

use super::browsers::{BROWSERS, CHROME, answer_of, body, secured, whip, wss};
use super::world::{Caller, POLICY, World, crypto, described, offer, offer_with, peer};
use crate::{Input, Record};

const SEEDS: u64 = 200;
const STEPS: u32 = 60;
const REFERS: [&str; 4] = [
    "<sip:+49301@edge.example>",
    "<sip:nobody@edge.example>",
    "<sip:x@edge.example?Replaces=three%40caller%3Bto-tag%3Da%3Bfrom-tag%3Dtag-three>",
    "<sip:edge.example>",
];

#[test]
fn nothing_is_left_behind_by_any_order_of_events() {
    run_all(false);
}

#[test]
fn nothing_is_left_behind_by_browsers_in_any_order() {
    run_all(true);
}

#[expect(clippy::disallowed_methods, reason = "the seed of a test is no configuration")]
fn run_all(has_browsers: bool) {
    let given = std::env::var("CALLGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    // A fault of ours is one of the events; its message is no news.
    std::panic::set_hook(Box::new(|panic| {
        let is_ours = panic.payload_as_str().is_some_and(|text| text == "a fault of ours");
        if !is_ours {
            eprintln!("{panic}");
        }
    }));
    let (mut talked, mut joined, mut carried) = (0, 0, 0);
    for seed in given.map_or(0..SEEDS, |seed| seed..seed + 1) {
        let told = std::panic::catch_unwind(|| Chaos::new(seed, has_browsers).run());
        let told = told.unwrap_or_else(|_| panic!("repeat it with CALLGATE_SEED={seed}"));
        talked += told.talked;
        joined += told.joined;
        carried += told.carried;
    }
    let enough = SEEDS as usize;
    let is_enough = talked > enough && joined > enough && carried > enough / 100;
    assert!(given.is_some() || is_enough, "only {talked}, {joined}, {carried}");
}

/// What came of a run: calls with a voice agent, legs joined, transfers done.
struct Told {
    talked: usize,
    joined: usize,
    carried: usize,
}

/// What an INVITE says of session timers.
fn timer(random: u32) -> String {
    let lines = match random % 4 {
        0 => "Supported: timer\r\nAllow: INVITE\r\n",
        1 => "Session-Expires: 100;refresher=uas\r\nAllow: UPDATE\r\n",
        _ => "",
    };
    lines.to_owned()
}

/// What the relay tells of a leg.
fn media(random: u32, has_browsers: bool) -> MediaEvent {
    match random % 6 {
        0..4 if has_browsers => secured(),
        4 if has_browsers => MediaEvent::PathLost,
        5 if has_browsers => MediaEvent::Unsecured { code: "dtls.timeout" },
        _ => MediaEvent::Inactive,
    }
}

/// Some callers, and an edge that they confuse.
struct Chaos {
    random: SeededRandom,
    world: World,
    callers: Vec<Caller>,
    /// Each caller's latest INVITE.
    invites: BTreeMap<usize, String>,
    /// Requests of the edge that nobody has answered.
    asked: Vec<Request>,
    flows: u64,
    /// Whether browsers are among the callers, and are called.
    has_browsers: bool,
}

impl Chaos {
    fn new(seed: u64, has_browsers: bool) -> Self {
        // Some edges pass REFERs on.
        let word = if seed.is_multiple_of(4) { "pass" } else { "edge" };
        let policy =
            POLICY.replace("[trunk.acme]", &format!("[trunk.acme]\ntransfer = \"{word}\""));
        let second = Caller::new("acme", peer("198.51.100.8:4001", 3, Transport::Tls), "three");
        let (policy, callers) = match has_browsers {
            true => {
                let mut softphone = wss(12);
                (softphone.call_id, softphone.tag) =
                    ("softphone@caller".to_owned(), "tag-softphone".to_owned());
                (format!("{BROWSERS}{policy}"), vec![Caller::acme(), whip(), softphone])
            }
            false => (policy, vec![Caller::acme(), Caller::lab(), second]),
        };
        Self {
            random: SeededRandom::new(seed),
            world: World::made(seed, &policy),
            callers,
            invites: BTreeMap::new(),
            asked: Vec::new(),
            flows: 100,
            has_browsers,
        }
    }

    fn run(mut self) -> Told {
        for _ in 0..STEPS {
            self.step();
            assert!(self.world.sent.len() < 200, "a step says too much");
            self.look();
        }
        // The peers fall silent; every call has a deadline, four hours at the latest.
        for _ in 0..5 {
            self.world.seconds(3_700);
        }
        self.world.assert_quiet();
        self.assert_ended_once();
        let joined = |plan: &&media::LegPlan| matches!(plan.purpose, Purpose::Bridge(Some(_)));
        let carried = |event: &&Event| matches!(event, Event::TransferDone { .. });
        Told {
            talked: self.world.started.len(),
            joined: self.world.plans.iter().filter(joined).count(),
            carried: self.world.events.iter().filter(carried).count(),
        }
    }

    fn pick(&mut self, count: usize) -> usize {
        self.random.below(count as u32) as usize
    }

    fn description(&mut self, index: usize) -> String {
        if self.has_browsers && index > 0 {
            return match self.pick(12) {
                0 => String::new(),
                1 => body(&CHROME.replace("kQ7+", "zzZ9")),
                2 => body(&CHROME.replace("a=setup:actpass", "a=setup:passive")),
                3 => body(&CHROME.replace("a=rtcp-mux\n", "")),
                4 => body(&CHROME.replace("sendrecv", "sendonly")),
                5 => offer(),
                _ => body(CHROME),
            };
        }
        match self.pick(12) {
            0 => String::new(),
            1 => offer_with("a=sendonly"),
            2 => described("RTP/AVP 0", "a=inactive"),
            3 => "application/sdp|v=0".to_owned(),
            4 => described("RTP/SAVP 8", &crypto(2, 'Q')),
            _ => offer(),
        }
    }

    fn step(&mut self) {
        let index = self.pick(self.callers.len());
        let body = self.description(index);
        let choice = self.pick(40);
        let random = self.random.below(12_000);
        let (world, caller) = (&mut self.world, &mut self.callers[index]);
        match choice {
            0..=2 => {
                if caller.to_tag.is_empty() {
                    caller.extra = timer(random);
                }
                self.invites.insert(index, caller.request(world, "INVITE", &body));
            }
            3 => {
                if let Some(invite) = self.invites.get(&index) {
                    caller.say(world, invite);
                }
            }
            4 => {
                if let Some(invite) = self.invites.get(&index) {
                    let head = invite.split("Content-").next().unwrap_or_default();
                    let cancel = head.replace("INVITE", "CANCEL") + "\r\n";
                    caller.say(world, &cancel);
                }
            }
            5..=7 | 23 | 24 if !world.needs.is_empty() => world.reserve(),
            8 if !world.needs.is_empty() => {
                world.media(MediaEvent::ReserveFailed { ports: random.is_multiple_of(2) });
            }
            9..=11 | 25 => caller.ack(world, &body),
            12 => drop(caller.request(world, "BYE", "")),
            13 => drop(caller.request(world, "UPDATE", &body)),
            14 => drop(caller.request(world, "INFO", "application/dtmf|1")),
            15 if !world.needs.is_empty() => world.hang_up(Reason::AgentHungUp),
            16 if !world.needs.is_empty() => world.media(media(random, self.has_browsers)),
            17 => world.input(Input::FlowClosed(caller.peer.flow)),
            18 => self.reconnect(index),
            22 => self.come_up(index),
            19 => self.answer(index),
            26 | 34 | 35 => self.dial(index),
            27 | 28 => self.connect(),
            29 => self.answer_dial(),
            30 => self.reserve_any(),
            31 => self.refer(index, random as usize % REFERS.len()),
            32 if !world.needs.is_empty() => {
                let (call, to) = (world.leg().call, Personal::new("+49301".to_owned()));
                let is_announced = random.is_multiple_of(3);
                world.input(Input::Transfer { call, to, is_announced });
            }
            33 => drop(caller.request(world, "PRACK", "")),
            36 | 37 => self.replace(index),
            38 if !world.targets.is_empty() => {
                let call = world.targets[world.targets.len() - 1].call;
                world.input(Input::TransferAnswer { call, is_accepted: random.is_multiple_of(2) });
            }
            39 => self.pass_news(random),
            20 => world.pass(Duration::from_millis(u64::from(random) * 10)),
            21 if random.is_multiple_of(4) => *world.fuse.lock().unwrap() = Some(random % 9),
            _ => world.pass(Duration::from_millis(u64::from(random) / 10)),
        }
        // A caller forgets its call now and then, and makes a new one.
        if self.pick(9) == 0 {
            self.flows += 1;
            let name = format!("again-{}", self.flows);
            let caller = &self.callers[index];
            self.callers[index] = Caller::new(caller.trunk.as_str(), caller.peer.clone(), &name);
        }
    }

    /// A call without trouble, so that there is something to confuse.
    fn come_up(&mut self, index: usize) {
        let (world, caller) = (&mut self.world, &mut self.callers[index]);
        let (needs, is_new) = (world.needs.len(), caller.to_tag.is_empty());
        caller.extra.clear();
        let is_browsers = caller.peer.transport.is_browsers();
        let description = if is_browsers { body(CHROME) } else { offer() };
        self.invites.insert(index, caller.request(world, "INVITE", &description));
        if is_new && world.needs.len() > needs {
            world.reserve();
            if is_browsers {
                world.media(secured());
            }
        }
        self.look();
        self.callers[index].ack(&mut self.world, "");
    }

    /// A call to a trunk, half way up at least.
    fn dial(&mut self, index: usize) {
        let (world, caller) = (&mut self.world, &mut self.callers[index]);
        let is_browsers = caller.peer.transport.is_browsers();
        if caller.to_tag.is_empty() {
            let user = if self.has_browsers && !is_browsers { "alice" } else { "+442079460000" };
            caller.target = format!("sip:{user}@edge.example");
            caller.extra = "Supported: 100rel\r\n".to_owned();
        }
        let description = if is_browsers { body(CHROME) } else { offer() };
        self.invites.insert(index, caller.request(world, "INVITE", &description));
        caller.extra.clear();
        for _ in 0..self.pick(6) {
            for number in (0..self.world.needs.len()).rev().take(3) {
                self.world.reserve_at(number);
            }
            self.connect();
            self.reserve_any();
            self.look();
            self.answer_dial();
            self.look();
        }
        self.callers[index].ack(&mut self.world, "");
        if self.pick(2) == 0 {
            self.refer(index, 0);
            self.look();
            self.connect();
            self.reserve_any();
            self.look();
            self.answer_dial();
        }
    }

    fn refer(&mut self, index: usize, to: usize) {
        let caller = &mut self.callers[index];
        caller.extra = format!("Refer-To: {}\r\n", REFERS[to]);
        caller.request(&mut self.world, "REFER", "");
        caller.extra.clear();
    }

    /// A caller takes the place of another one, or of a callee.
    fn replace(&mut self, index: usize) {
        let other = &self.callers[self.random.below(3) as usize];
        let mut replaces =
            format!("{};to-tag={};from-tag={}", other.call_id, other.to_tag, other.tag);
        let asked = self.asked.iter().rev().find(|it| it.method == sip::Method::Invite);
        if let (Some(invite), 0) = (asked, self.random.below(3)) {
            let headers = &invite.headers;
            let tag = headers.from_tag().unwrap_or_default();
            let call_id = headers.call_id().unwrap_or_default();
            let far = self.random.below(3);
            replaces = format!("{call_id};to-tag={tag};from-tag=far-{far}");
        }
        self.flows += 1;
        let trunk = ["acme", "acme", "info", "beta"][self.random.below(4) as usize];
        let name = format!("again-{}", self.flows);
        let body = self.description(index);
        let mut caller = Caller::new(trunk, self.callers[index].peer.clone(), &name);
        caller.extra = format!("Replaces: {replaces}\r\n");
        caller.request(&mut self.world, "INVITE", &body);
        caller.extra.clear();
        self.callers[index] = caller;
        self.look();
        self.callers[index].ack(&mut self.world, "");
    }

    /// Whom a REFER went to says how it fares.
    fn pass_news(&mut self, random: u32) {
        let Some(refer) = self.asked.iter().rev().find(|it| it.method == sip::Method::Refer) else {
            return;
        };
        let headers = &refer.headers;
        let mut far = Caller::new("beta", self.callers[0].peer.clone(), "far");
        far.call_id = headers.call_id().unwrap_or_default().to_owned();
        far.to_tag = headers.from_tag().unwrap_or_default();
        far.tag = headers.to_tag().unwrap_or_default();
        far.cseq = 900 + random;
        far.extra = "Event: refer\r\nSubscription-State: active\r\n".to_owned();
        let news = ["SIP/2.0 100 Trying", "SIP/2.0 200 OK", "SIP/2.0 486 Busy", "?"];
        let news = news[random as usize % news.len()];
        far.request(&mut self.world, "NOTIFY", &format!("message/sipfrag|{news}"));
    }

    fn reserve_any(&mut self) {
        let count = self.world.needs.len();
        if count > 0 {
            let recent = count - 1 - self.pick(count.min(3));
            self.world.reserve_at(recent);
        }
    }

    fn connect(&mut self) {
        let Some((leg, _, transport)) = self.world.connects.pop() else { return };
        self.flows += 1;
        let input = match self.pick(4) {
            0 if self.flows.is_multiple_of(3) => {
                Input::Unreachable { leg, reason: Reason::TrunkUnreachable }
            }
            _ => {
                let is_browsers = transport.is_browsers();
                let transport = if is_browsers { transport } else { Transport::Tls };
                let peer = peer("203.0.113.70:5061", self.flows, transport);
                let contact = is_browsers.then(|| {
                    Personal::new("sip:k3v9q2@4f7d0a1b2c3e.invalid;transport=ws".to_owned())
                });
                Input::Connected { leg, peer, contact }
            }
        };
        self.world.input(input);
    }

    /// A far end answers one of the edge's INVITEs in some way.
    fn answer_dial(&mut self) {
        let back = usize::from(self.pick(5) == 0);
        let mut invites = self.asked.iter().rev().filter(|it| it.method == sip::Method::Invite);
        let Some(mut invite) = invites.nth(back).cloned() else { return };
        let status = match self.pick(12) {
            0 => "180 Ringing",
            1 | 2 => "183 Progress",
            3 => "486 Busy",
            4 => "503 Sorry",
            5 => "302 Moved",
            6 => "100 Trying",
            7 => "487 Gone",
            _ => "200 OK",
        };
        if invite.headers.to_tag().is_none() {
            let tag = self.pick(3);
            let to = format!("{};tag=far-{tag}", invite.headers.text(Name::To).unwrap());
            invite.headers.set(Name::To, to);
        }
        let line = sdp::Session::parse(&invite.body)
            .ok()
            .and_then(|offered| offered.media.first()?.crypto().next().map(str::to_owned));
        let suite = line.as_deref().and_then(|line| line.split(' ').nth(1)).unwrap_or("none");
        let key = if suite.contains("256") { "B".repeat(58) + "A=" } else { "B".repeat(40) };
        let is_dtls = String::from_utf8_lossy(&invite.body).contains("UDP/TLS");
        let body = match is_dtls {
            true => answer_of(CHROME, "active"),
            false => described("RTP/SAVP 0 8 101", &format!("a=crypto:1 {suite} inline:{key}")),
        };
        let body = body.split_once('|').map_or("", |(_, body)| body);
        let reliable = if self.pick(3) == 0 { "Require: 100rel\r\nRSeq: 7\r\n" } else { "" };
        let body = if self.pick(5) == 0 { "" } else { body };
        let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        self.callers[0].answer(
            &mut self.world,
            &invite,
            status,
            &format!("{reliable}{kind}|{body}"),
        );
    }

    fn reconnect(&mut self, index: usize) {
        self.flows += 1;
        let caller = &mut self.callers[index];
        let mut fresh = (*caller.peer).clone();
        fresh.flow = sip::FlowId(self.flows);
        caller.peer = fresh.into();
        if let Some((leg, ..)) = self.world.connects.pop() {
            let peer = caller.peer.clone();
            self.world.input(Input::Connected { leg, peer, contact: None });
        }
    }

    fn answer(&mut self, index: usize) {
        let status = match self.pick(7) {
            0 => "481 Gone",
            1 => "491 Pending",
            2 => "422 Small",
            3 => "500 Sorry",
            4 => "100 Trying",
            _ => "200 OK",
        };
        if let Some(request) = self.asked.last().cloned() {
            let is_dtls = String::from_utf8_lossy(&request.body).contains("UDP/TLS");
            let body = match is_dtls {
                true => answer_of(CHROME, "active"),
                false => described("RTP/SAVP 8", &crypto(1, 'P')),
            };
            let body = body.split_once('|').map_or("", |(_, body)| body);
            let more = format!("Min-SE: 400\r\nContent-Type: application/sdp\r\n|{body}");
            self.callers[index].answer(&mut self.world, &request, status, &more);
        }
    }

    /// The callers read what the edge said.
    fn look(&mut self) {
        for message in self.world.take() {
            match message {
                Message::Request(request) => {
                    self.asked.push(request);
                }
                Message::Response(response) => {
                    let call_id = response.headers.call_id().unwrap_or_default().to_owned();
                    let caller = self.callers.iter_mut().find(|it| it.call_id == call_id);
                    if let Some(caller) = caller.filter(|_| response.status.is_success())
                        && response.headers.cseq().is_ok_and(|it| it.method == sip::Method::Invite)
                    {
                        caller.follow(&response);
                    }
                }
            }
        }
    }

    fn assert_ended_once(&self) {
        let mut ends: BTreeMap<CallId, (u32, u32)> = BTreeMap::new();
        for record in &self.world.records {
            match record {
                Record::Arrived { call, .. } => ends.entry(*call).or_default().0 += 1,
                Record::Ended { call, .. } => ends.entry(*call).or_default().1 += 1,
                _ => {}
            }
        }
        let unborn = ends.values().filter(|counts| **counts == (1, 0)).count();
        assert!(ends.values().all(|counts| matches!(counts, (1, 0 | 1))), "{ends:?}");
        let faults = self.world.events.iter();
        let faults = faults.filter(|event| matches!(event, Event::ShardPanicked {})).count();
        assert!(unborn <= faults, "{unborn} calls never ended, {faults} faults");
        let printed = format!("{:?}", self.world.events);
        for secret in ["2125550123", "198.51.100", "AAAAAAAA"] {
            assert!(!printed.contains(secret), "{secret} in an event");
        }
    }
}
