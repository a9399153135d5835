//! A worker on a network of its own: faults, floods, ports, budget.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};

use audio::Codec;
use base::{CallId, LegId, WallTime};
use media::{Direction, Format, KeyForm, Protection, Purpose, SourceIdentity};

use super::*;
use crate::path::counters::DropReason;

#[derive(Default)]
struct Net {
    now: Instant,
    open: BTreeMap<Token, SocketAddr>,
    waiting: BTreeMap<Token, VecDeque<(Vec<u8>, SocketAddr)>>,
    sent: Vec<(Token, SocketAddr)>,
    connected: Vec<(Token, SocketAddr)>,
    /// Tokens that send from a shared socket, and the peers whose sockets they have.
    lent: BTreeMap<Token, usize>,
    adopted: BTreeMap<Token, SocketAddr>,
    shared: Vec<OwnedFd>,
    /// No descriptor is left for a socket that only saves time.
    is_full: bool,
    /// Each look at the clock takes so long.
    slowness: Duration,
    stale: u64,
}

/// Shared, so that a test can see it while the worker owns it.
#[derive(Clone, Default)]
struct FakeNetwork(Rc<RefCell<Net>>);

impl Network for FakeNetwork {
    fn now(&self) -> Instant {
        let mut net = self.0.borrow_mut();
        let slowness = net.slowness;
        net.now += slowness;
        net.now
    }
    fn wall(&self) -> WallTime {
        WallTime::default()
    }
    fn open(&mut self, token: Token, address: SocketAddr) -> bool {
        self.0.borrow_mut().open.insert(token, address).is_none()
    }
    fn open_spare(&mut self, token: Token, address: SocketAddr) -> bool {
        let has_room = !self.0.borrow().is_full;
        has_room && self.open(token, address)
    }
    fn connect(&mut self, token: Token, peer: SocketAddr) {
        self.0.borrow_mut().connected.push((token, peer));
    }
    fn share(&mut self, socket: OwnedFd) -> Option<usize> {
        let mut net = self.0.borrow_mut();
        net.shared.push(socket);
        Some(net.shared.len() - 1)
    }
    fn lend(&mut self, token: Token, shared: usize) {
        self.0.borrow_mut().lent.insert(token, shared);
    }
    fn adopt(&mut self, token: Token, peer: SocketAddr, _: OwnedFd) -> bool {
        self.part(token);
        let mut net = self.0.borrow_mut();
        if !net.is_full {
            net.adopted.insert(token, peer);
        }
        !net.is_full
    }
    fn part(&mut self, token: Token) {
        self.0.borrow_mut().adopted.remove(&token);
    }
    fn close(&mut self, token: Token) {
        let mut net = self.0.borrow_mut();
        net.open.remove(&token);
        net.lent.remove(&token);
        net.adopted.remove(&token);
    }
    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>) {
        let mut net = self.0.borrow_mut();
        ready.clear();
        ready.extend(net.waiting.iter().filter(|(_, queue)| !queue.is_empty()).map(|(t, _)| *t));
        if ready.is_empty() {
            net.now += most;
        }
    }
    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let mut net = self.0.borrow_mut();
        let (bytes, source) = net.waiting.get_mut(&token)?.pop_front()?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        Some((bytes.len(), source))
    }
    fn send(&mut self, token: Token, to: SocketAddr, _: &[u8]) -> bool {
        assert_ne!(to.port(), 666, "the fault of this test");
        self.0.borrow_mut().sent.push((token, to));
        true
    }
    fn stale(&mut self) -> u64 {
        std::mem::take(&mut self.0.borrow_mut().stale)
    }
}

/// An event, or `None` for a failed session.
type Seen = (SessionId, Option<MediaEvent>);

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Seen>>>);

impl EventSink for Events {
    fn deliver(&mut self, session: SessionId, event: MediaEvent) {
        self.0.lock().unwrap().push((session, Some(event)));
    }
    fn failed(&mut self, session: SessionId) {
        self.0.lock().unwrap().push((session, None));
    }
}

struct Rig {
    worker: Worker<FakeNetwork>,
    net: FakeNetwork,
    events: Events,
    commands: SyncSender<Message>,
}

fn rig(ports: RangeInclusive<u16>) -> Rig {
    let (net, events) = (FakeNetwork::default(), Events::default());
    let (commands, receiver) = sync_channel(4096);
    let setup = Setup {
        sink: Box::new(events.clone()),
        commands: receiver,
        published: Arc::default(),
        ports,
        worker: 0,
        workers: 1,
        seed: 1,
        dtls: None,
        ice_tcp: Vec::new(),
        shared: None,
    };
    Rig { worker: Worker::new(net.clone(), setup), net, events, commands }
}

fn plan(remote_port: u16) -> Box<LegPlan> {
    let mut random = SeededRandom::new(5);
    let pcmu =
        Format { codec: Codec::Pcmu, payload_type: 0, packet_ms: 20, dtx: false, bitrate: 0 };
    Box::new(LegPlan {
        leg: LegId { call: CallId::random(&mut random), index: 0 },
        remote: SocketAddr::from(([192, 0, 2, 1], remote_port)),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Plain { from: Vec::new() },
        send: Some(pcmu),
        accept: vec![pcmu],
        opaque: Vec::new(),
        sendable: Vec::new(),
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(&mut random),
        purpose: Purpose::Agent { barge_in: None },
    })
}

impl Rig {
    fn tell(&self, session: u64, command: Command) {
        self.commands.send(Message::Session(SessionId::new(session, 0), command)).unwrap();
    }

    fn reserve(&mut self, session: u64) -> MediaEvent {
        let need = Need {
            bind: IpAddr::from([127, 0, 0, 1]),
            beside: None,
            separate_rtcp: true,
            dtls: false,
            fresh_identity: false,
        };
        self.tell(session, Command::Reserve(need));
        self.worker.round();
        let (id, event) = self.events.0.lock().unwrap().pop().unwrap();
        assert_eq!(id, SessionId::new(session, 0));
        event.unwrap()
    }

    fn rounds(&mut self, count: usize) {
        (0..count).for_each(|_| assert!(self.worker.round()));
    }

    fn sent_to(&self, port: u16) -> usize {
        self.net.0.borrow().sent.iter().filter(|(_, to)| to.port() == port).count()
    }
}

#[test]
fn a_fault_in_one_session_ends_that_session_only() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut rig = rig(10_000..=10_099);
    for (session, port) in [(1, 5000), (2, 666), (3, 5002)] {
        assert!(matches!(rig.reserve(session), MediaEvent::Reserved(_)));
        rig.tell(session, Command::Apply { plan: plan(port), with: None });
    }
    rig.rounds(40);
    let _ = std::panic::take_hook();
    assert!(rig.events.0.lock().unwrap().contains(&(SessionId::new(2, 0), None)));
    assert_eq!(rig.worker.tally.total(Meter::Panics), 1);
    assert_eq!(rig.net.0.borrow().open.len(), 4, "its sockets are closed");
    assert!(rig.sent_to(5000) > 8 && rig.sent_to(5002) > 8);
}

#[test]
fn a_flood_at_one_port_costs_the_others_one_batch() {
    let mut rig = rig(10_000..=10_099);
    for session in [0, 1] {
        assert!(matches!(rig.reserve(session), MediaEvent::Reserved(_)));
        rig.tell(session, Command::Apply { plan: plan(5000 + session as u16), with: None });
    }
    let victim = rig.worker.places[&SessionId::new(0, 0)] * 2;
    let source = SocketAddr::from(([203, 0, 113, 1], 9));
    let flood = (0..100_000).map(|_| (vec![0x80; 1400], source)).collect();
    rig.net.0.borrow_mut().waiting.insert(victim, flood);
    let mut before = 100_000;
    for _ in 0..200 {
        rig.net.0.borrow_mut().now += Duration::from_millis(5);
        rig.worker.round();
        let left = rig.net.0.borrow().waiting[&victim].len();
        assert_eq!(before - left, limit::RELAY_BATCH.get());
        before = left;
    }
    assert!((48..=51).contains(&rig.sent_to(5001)), "{}", rig.sent_to(5001));
    assert_eq!(rig.worker.tally.dropped(DropReason::SourceNetwork), 12_800);
}

#[test]
fn released_ports_rest_and_used_up_ports_are_refused() {
    let mut rig = rig(10_000..=10_001);
    let MediaEvent::Reserved(reserved) = rig.reserve(1) else { panic!() };
    assert_eq!((reserved.rtp.port(), reserved.rtcp.map(|a| a.port())), (10_000, Some(10_001)));
    assert_eq!(rig.reserve(2), MediaEvent::ReserveFailed { ports: true });
    rig.tell(1, Command::Release);
    rig.worker.take_commands();
    assert!(rig.net.0.borrow().open.is_empty());
    rig.worker.reserve(
        SessionId::new(3, 0),
        Need {
            bind: IpAddr::from([0; 4]),
            beside: None,
            separate_rtcp: false,
            dtls: false,
            fresh_identity: false,
        },
    );
    let failed = (SessionId::new(3, 0), Some(MediaEvent::ReserveFailed { ports: true }));
    assert!(rig.events.0.lock().unwrap().contains(&failed));
    rig.net.0.borrow_mut().now += limit::RELAY_QUARANTINE_MS.millis();
    assert!(matches!(rig.reserve(4), MediaEvent::Reserved(_)));
}

#[test]
fn frames_beyond_the_budget_wait_for_the_next_round() {
    let mut rig = rig(10_000..=10_999);
    for session in 0..40 {
        rig.reserve(session);
        rig.tell(session, Command::Apply { plan: plan(5000), with: None });
    }
    rig.worker.take_commands();
    rig.net.0.borrow_mut().now += Duration::from_millis(25);
    rig.net.0.borrow_mut().slowness = Duration::from_micros(50);
    rig.net.0.borrow_mut().sent.clear();
    rig.worker.run_frames();
    let first = rig.sent_to(5000);
    assert!((5..=25).contains(&first), "{first}");
    assert_eq!(rig.worker.tally.total(Meter::OverBudget), 1);
    (0..8).for_each(|_| rig.worker.run_frames());
    assert!(rig.sent_to(5000) >= 40);
}

#[test]
fn sessions_do_not_tick_all_at_once() {
    let mut rig = rig(10_000..=10_999);
    for session in 0..32 {
        rig.reserve(session);
        rig.tell(session, Command::Apply { plan: plan(5000), with: None });
    }
    rig.worker.take_commands();
    let due: std::collections::BTreeSet<_> =
        rig.worker.timers.iter().map(|Reverse((due, _))| *due).collect();
    assert!(due.len() >= 8, "{}", due.len());
}

#[test]
fn a_drained_worker_takes_no_session_and_ends_with_the_last_one() {
    let mut rig = rig(10_000..=10_099);
    rig.reserve(1);
    rig.commands.send(Message::Drain(Duration::from_secs(60))).unwrap();
    assert_eq!(rig.reserve(2), MediaEvent::ReserveFailed { ports: false });
    assert!(rig.worker.round());
    rig.tell(1, Command::Release);
    assert!(!rig.worker.round());
}

#[test]
fn a_browsers_leg_finds_no_place_where_no_handshake_can_be_done() {
    let mut rig = rig(10_000..=10_099);
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: false,
        dtls: true,
        fresh_identity: false,
    };
    rig.tell(1, Command::Reserve(need));
    rig.worker.round();
    let failed = MediaEvent::ReserveFailed { ports: false };
    assert_eq!(rig.events.0.lock().unwrap().last().unwrap().1, Some(failed));
    assert!(matches!(rig.reserve(2), MediaEvent::Reserved(_)));
}

/// The thread of handshakes, which is told to nobody: a test gives its news by hand.
struct Unheard;

impl crate::dtls::DtlsSink for Unheard {
    fn deliver(&mut self, _: HandshakeId, _: News) -> Result<(), News> {
        Ok(())
    }
    fn rotated(&mut self, _: &Identity) -> bool {
        true
    }
}

#[test]
fn a_session_with_a_certificate_of_its_own_begins_when_that_is_there() {
    let mut rig = rig(10_000..=10_099);
    let present = crate::path::browser::identity(1);
    let identities = crate::dtls::Identities::new(
        &mut SeededRandom::new(3),
        crate::driver::now(),
        crate::driver::wall(),
    );
    let thread = crate::dtls::Handshakes::start(Box::new(Unheard), identities.unwrap(), 1);
    rig.worker.dtls = Some((thread.unwrap().handle(), present));
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: false,
        dtls: true,
        fresh_identity: true,
    };
    (1..=4).for_each(|session| rig.tell(session, Command::Reserve(need)));
    rig.tell(2, Command::Release);
    rig.worker.round();
    assert!(rig.events.0.lock().unwrap().is_empty());

    let own = crate::path::browser::identity(2);
    let made = [Some(own.clone()), Some(own.clone()), None, Some(own.clone())];
    for (session, identity) in (1..).zip(made) {
        if session == 4 {
            rig.commands.send(Message::Drain(Duration::from_secs(60))).unwrap();
        }
        let of = HandshakeId { session: SessionId::new(session, 0), number: 0 };
        rig.commands.send(Message::Handshake(of, News::Identity(identity))).unwrap();
    }
    rig.worker.round();
    let seen = std::mem::take(&mut *rig.events.0.lock().unwrap());
    let failed = Some(MediaEvent::ReserveFailed { ports: false });
    let [(first, Some(MediaEvent::Reserved(reserved))), rest @ ..] = &seen[..] else { panic!() };
    assert_eq!((first.stem(), reserved.fingerprint.as_ref()), (1, Some(own.fingerprint())));
    assert_eq!(rest, [(SessionId::new(3, 0), failed.clone()), (SessionId::new(4, 0), failed)]);
    assert_eq!((rig.worker.places.len(), rig.worker.identified.len()), (1, 0));
}

#[test]
fn commands_for_nobody_are_counted() {
    let mut rig = rig(10_000..=10_099);
    rig.tell(9, Command::StopPlayout);
    rig.tell(9, Command::Release);
    rig.worker.round();
    assert_eq!(rig.worker.tally.total(Meter::Orphans), 2);
}

#[test]
fn what_the_driver_finds_stale_is_counted() {
    let mut rig = rig(10_000..=10_099);
    rig.net.0.borrow_mut().stale = 17;
    rig.rounds(2);
    assert_eq!(rig.worker.tally.dropped(DropReason::Stale), 17);
}

/// Two legs of one call that hear each other.
fn bridged(rig: &mut Rig) -> [SessionId; 2] {
    let ids = [SessionId::new(7, 0), SessionId::new(7, 1)];
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: false,
        dtls: false,
        fresh_identity: false,
    };
    let mut plans = [5000, 5002].map(plan);
    for (index, plan) in (0..).zip(&mut plans) {
        plan.leg.index = index;
        plan.sendable = plan.accept.clone();
        plan.protection = Protection::Plain { from: vec!["192.0.2.0/24".parse().unwrap()] };
    }
    let rule = media::Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };
    let bridges =
        [media::between(&plans[0], &plans[1], rule), media::between(&plans[1], &plans[0], rule)];
    for (at, (mut plan, bridge)) in plans.into_iter().zip(bridges).enumerate() {
        plan.purpose = Purpose::Bridge(Some(bridge));
        rig.commands.send(Message::Session(ids[at], Command::Reserve(need))).unwrap();
        let apply = Command::Apply { plan, with: Some(ids[1 - at]) };
        rig.commands.send(Message::Session(ids[at], apply)).unwrap();
    }
    rig.worker.round();
    ids
}

fn packet(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9];
    packet[2..4].copy_from_slice(&sequence.to_be_bytes());
    packet.resize(172, 0x55);
    packet
}

impl Rig {
    /// A packet of a peer of a bridged call arrives.
    fn arrives(&mut self, id: SessionId, port: u16, sequence: u16) {
        let token = self.worker.places[&id] * 2;
        let source = SocketAddr::from(([192, 0, 2, 1], port));
        let mut net = self.net.0.borrow_mut();
        net.waiting.entry(token).or_default().push_back((packet(sequence), source));
    }
}

#[test]
fn what_one_leg_hears_leaves_by_the_sockets_of_the_other() {
    let mut rig = rig(10_000..=10_099);
    let ids = bridged(&mut rig);
    for sequence in 0..50 {
        rig.arrives(ids[0], 5000, sequence);
        rig.arrives(ids[1], 5002, sequence);
        rig.worker.round();
    }
    assert_eq!((rig.sent_to(5000), rig.sent_to(5002)), (50, 50));
    let tokens = ids.map(|id| rig.worker.places[&id] * 2);
    for (token, to) in &rig.net.0.borrow().sent {
        assert_eq!(*token, if to.port() == 5000 { tokens[0] } else { tokens[1] });
    }
    assert_eq!(rig.worker.tally.total(Meter::Frames), 0);
}

#[test]
fn a_leg_that_goes_is_nobody_to_speak_to_even_where_another_takes_its_place() {
    let mut rig = rig(10_000..=10_099);
    let ids = bridged(&mut rig);
    rig.arrives(ids[0], 5000, 1);
    rig.worker.round();
    rig.commands.send(Message::Session(ids[1], Command::Release)).unwrap();
    rig.worker.round();
    let stranger = rig.reserve(8);
    assert!(matches!(stranger, MediaEvent::Reserved(_)));
    rig.tell(8, Command::Apply { plan: plan(5004), with: None });
    rig.worker.round();
    let before = rig.sent_to(5002);
    rig.arrives(ids[0], 5000, 2);
    rig.worker.round();
    assert_eq!(rig.sent_to(5002), before);
    assert_eq!(rig.worker.tally.dropped(DropReason::Unbridged), 1);
}

#[test]
fn a_fault_in_the_leg_that_sends_ends_that_one_only() {
    std::panic::set_hook(Box::new(|_| {}));
    let mut rig = rig(10_000..=10_099);
    let ids = bridged(&mut rig);
    // The network of this test panics for this port.
    rig.arrives(ids[1], 666, 1);
    rig.worker.round();
    rig.arrives(ids[0], 5000, 1);
    rig.worker.round();
    let _ = std::panic::take_hook();
    let failed: Vec<_> =
        rig.events.0.lock().unwrap().iter().filter(|it| it.1.is_none()).map(|it| it.0).collect();
    assert_eq!(failed, [ids[1]]);
    assert!(rig.worker.places.contains_key(&ids[0]));
    rig.arrives(ids[0], 5000, 2);
    assert!(rig.worker.round());
}

#[test]
fn a_socket_is_connected_to_a_peer_that_is_known_and_again_when_it_moves() {
    let mut rig = rig(10_000..=10_099);
    rig.reserve(7);
    let from = vec!["203.0.113.0/24".parse().unwrap()];
    let plan = Box::new(LegPlan { protection: Protection::Plain { from }, ..*plan(5000) });
    rig.tell(7, Command::Apply { plan, with: None });
    rig.rounds(1);
    let token = rig.worker.places[&SessionId::new(7, 0)] * 2;
    let [first, second, stranger] =
        [1, 2, 3].map(|host| SocketAddr::from(([203, 0, 113, host], 4000)));
    let mut sequence = 0;
    for (source, packets) in [(first, 5), (stranger, 3), (first, 5), (second, 30)] {
        let audio = (0..packets).map(|_| {
            let mut packet = vec![0; 172];
            (packet[0], sequence) = (0x80, sequence + 1);
            packet[3] = sequence;
            (packet, source)
        });
        let audio = audio.collect();
        rig.net.0.borrow_mut().waiting.insert(token, audio);
        rig.rounds(1);
    }
    assert_eq!(rig.net.0.borrow().connected, [(token, first), (token, second)]);
}

#[path = "ties_tests.rs"]
mod ties_tests;
