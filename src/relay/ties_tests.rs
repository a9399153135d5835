//! A worker and the browsers' shared port, whose thread is the test.

use std::net::UdpSocket;

use media::{DtlsBackend, Handshake};
use tokio::sync::mpsc;

use super::*;
use crate::dtls::{DtlsSink, Handshakes, Identities};
use crate::path::browser::Browser;
use crate::shared::demux::Way;
use crate::shared::{Note, SharedPortHandle, Word as Told};

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
const PORT: u16 = 3_478;

struct Deaf;

impl DtlsSink for Deaf {
    fn deliver(&mut self, _: HandshakeId, _: News) -> Result<(), News> {
        Ok(())
    }
    fn rotated(&mut self, _: &Identity) -> bool {
        true
    }
}

struct Moored {
    rig: Rig,
    notes: mpsc::Receiver<Note>,
    need: Need,
    _handshakes: Handshakes,
}

fn id(stem: u64) -> SessionId {
    SessionId::new(stem, 0)
}

fn way(peer: SocketAddr) -> Way {
    Way { local: HERE, peer }
}

fn descriptor() -> OwnedFd {
    UdpSocket::bind("127.0.0.1:0").unwrap().into()
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 7], port))
}

/// Notes as text, which is enough to compare them.
fn text(note: &Note) -> String {
    format!("{note:?}")
}

impl Moored {
    fn start(room: usize) -> Self {
        let (net, events) = (FakeNetwork::default(), Events::default());
        let (commands, receiver) = sync_channel(4_096);
        let (sender, notes) = mpsc::channel(room);
        let mut random = SeededRandom::new(3);
        let wall = WallTime::from_unix_millis(1_795_392_000_000);
        let identities = Identities::new(&mut random, Instant::ZERO, wall).unwrap();
        let identity = identities.present();
        let handshakes = Handshakes::start(Box::new(Deaf), identities, 1).unwrap();
        let setup = Setup {
            sink: Box::new(events.clone()),
            commands: receiver,
            published: Arc::default(),
            ports: 10_000..=10_099,
            worker: 0,
            workers: 1,
            seed: 1,
            dtls: Some((handshakes.handle(), identity)),
            ice_tcp: Vec::new(),
            shared: Some(SharedPortHandle::new(PORT, sender)),
        };
        let rig = Rig { worker: Worker::new(net.clone(), setup), net, events, commands };
        let need = Need {
            bind: HERE,
            beside: None,
            separate_rtcp: false,
            dtls: true,
            fresh_identity: false,
        };
        Self { rig, notes, need, _handshakes: handshakes }
    }

    /// A round in which no time passes.
    fn round(&mut self) {
        let now = self.rig.net.0.borrow().now;
        self.rig.rounds(1);
        self.rig.net.0.borrow_mut().now = now;
    }

    fn told(&mut self, word: Told) {
        self.rig.commands.send(Message::Shared(word)).unwrap();
        self.round();
    }

    fn reserve(&mut self, stem: u64) {
        self.rig.tell(stem, Command::Reserve(self.need));
        self.round();
    }

    fn notes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.notes.try_recv().ok()).map(|note| text(&note)).collect()
    }

    fn events(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.rig.events.0.lock().unwrap())
    }

    /// A session with a plan, and its browser.
    fn session(&mut self, stem: u64) -> Browser {
        self.reserve(stem);
        if !self.rig.worker.places.contains_key(&id(stem)) {
            self.told(Told::Open(HERE, Some(descriptor())));
        }
        let browser = Browser::new(stem, peer(4_000));
        self.apply(stem, &browser);
        self.notes();
        browser
    }

    fn apply(&mut self, stem: u64, browser: &Browser) {
        let handshake = Handshake { backend: DtlsBackend::Dimpl, ..browser.handshake() };
        let protection = Protection::Dtls(Box::new(handshake));
        let plan = Box::new(LegPlan { protection, ..*plan(9) });
        self.rig.tell(stem, Command::Apply { plan, with: None });
        self.round();
    }

    fn checked(&mut self, stem: u64, browser: &mut Browser, from: SocketAddr) {
        let check = browser.check(true);
        self.told(Told::Datagram(id(stem), from, check));
    }

    fn token(&self, stem: u64) -> Token {
        self.rig.worker.places[&id(stem)] * 2
    }

    fn adopted(&self, stem: u64) -> Option<SocketAddr> {
        self.rig.net.0.borrow().adopted.get(&self.token(stem)).copied()
    }

    fn pass(&self, time: Duration) {
        self.rig.net.0.borrow_mut().now += time;
    }
}

#[test]
fn a_leg_waits_until_its_address_is_open() {
    let mut moored = Moored::start(100);
    moored.reserve(1);
    moored.reserve(2);
    moored.reserve(3);
    moored.rig.tell(2, Command::Release);
    assert_eq!(moored.notes(), [text(&Note::Open(HERE, 0))], "asked once");
    moored.told(Told::Open(HERE, Some(descriptor())));
    let reserved: Vec<_> = moored.events();
    assert_eq!(reserved.len(), 2);
    for (_, event) in reserved {
        let Some(MediaEvent::Reserved(reserved)) = event else { panic!("{event:?}") };
        assert_eq!(reserved.rtp, SocketAddr::new(HERE, PORT));
        assert!(reserved.rtcp.is_none() && reserved.fingerprint.is_some());
    }
    moored.reserve(4);
    assert!(matches!(moored.events()[..], [(_, Some(MediaEvent::Reserved(_)))]));
    assert!(moored.rig.net.0.borrow().open.is_empty(), "no port of its own");
    assert!(moored.notes().is_empty());
}

#[test]
fn a_leg_has_its_address_of_the_other_family_if_that_can_be_had() {
    let beside = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]);
    for can_be_had in [true, false] {
        let mut moored = Moored::start(100);
        moored.need.beside = Some(beside);
        moored.reserve(1);
        moored.told(Told::Open(HERE, Some(descriptor())));
        moored.reserve(2);
        assert!(moored.events().is_empty(), "both are to be there");
        assert_eq!(moored.notes(), [HERE, beside].map(|it| text(&Note::Open(it, 0))));
        moored.told(Told::Open(beside, can_be_had.then(descriptor)));
        let expected = can_be_had.then_some(SocketAddr::new(beside, PORT));
        let events = moored.events();
        assert_eq!(events.len(), 2);
        for (_, event) in events {
            let Some(MediaEvent::Reserved(reserved)) = event else { panic!("{event:?}") };
            assert_eq!(reserved.rtp, SocketAddr::new(HERE, PORT));
            assert_eq!(reserved.beside, expected);
        }
        assert_eq!(moored.rig.net.0.borrow().lent.len(), if can_be_had { 4 } else { 2 });
    }
}

#[test]
fn a_leg_that_is_to_speak_without_ice_ends_instead_of_being_dead() {
    let mut moored = Moored::start(100);
    moored.session(1);
    moored.events();
    moored.rig.tell(1, Command::Apply { plan: plan(9), with: None });
    moored.round();
    assert_eq!(moored.events(), [(id(1), None)]);
    assert!(moored.rig.worker.places.is_empty());
}

#[test]
fn a_leg_fails_where_the_port_cannot_be_had_and_the_next_one_asks_again() {
    let mut moored = Moored::start(100);
    for stem in [1, 2] {
        moored.reserve(stem);
        assert_eq!(moored.notes().len(), 1);
        moored.told(Told::Open(HERE, None));
        assert_eq!(moored.events(), [(id(stem), Some(MediaEvent::ReserveFailed { ports: true }))]);
    }
}

#[test]
fn a_leg_of_a_telephone_has_ports_of_its_own_beside() {
    let mut moored = Moored::start(100);
    let event = moored.rig.reserve(1);
    assert!(matches!(event, MediaEvent::Reserved(it) if it.rtp.port() >= 10_000));
    assert!(moored.notes().is_empty());
}

#[test]
fn a_proved_check_is_answered_and_the_socket_that_comes_is_taken() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    let [first, second] = [peer(4_000), peer(4_001)];
    moored.checked(1, &mut browser, first);
    let (proved, selected) = (
        |peer| text(&Note::Proved(way(peer), id(1))),
        |peer| text(&Note::Selected(way(peer), id(1))),
    );
    assert_eq!(moored.notes(), [proved(first), selected(first)]);
    assert_eq!(moored.rig.sent_to(4_000), 1);
    moored.told(Told::Connected(id(1), second, descriptor()));
    assert_eq!(moored.adopted(1), None, "nobody asked for that one");
    moored.told(Told::Connected(id(1), first, descriptor()));
    assert_eq!(moored.adopted(1), Some(first));
    moored.checked(1, &mut browser, first);
    assert!(moored.notes().is_empty());
    // It moves, and what was asked for before comes too late.
    moored.pass(Duration::from_secs(3));
    moored.checked(1, &mut browser, second);
    assert_eq!(moored.notes(), [proved(second), selected(second)]);
    moored.told(Told::Connected(id(1), first, descriptor()));
    assert_eq!(moored.adopted(1), Some(first), "the former one still");
    moored.told(Told::Connected(id(1), second, descriptor()));
    assert_eq!(moored.adopted(1), Some(second));
}

#[test]
fn a_forged_check_changes_nothing() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    browser.remote.pwd = crate::path::browser::credentials(99).pwd;
    moored.checked(1, &mut browser, peer(4_000));
    assert!(moored.notes().is_empty());
    assert_eq!(moored.rig.sent_to(4_000), 0);
    assert_eq!(moored.rig.worker.tally.dropped(DropReason::Forged), 1);
}

#[test]
fn without_a_descriptor_the_call_goes_on_and_the_socket_is_asked_for_again() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    moored.rig.net.0.borrow_mut().is_full = true;
    moored.checked(1, &mut browser, peer(4_000));
    assert_eq!(moored.notes().len(), 2);
    moored.told(Told::Connected(id(1), peer(4_000), descriptor()));
    moored.checked(1, &mut browser, peer(4_000));
    assert!(moored.notes().is_empty(), "not at once");
    moored.pass(Duration::from_secs(1));
    moored.checked(1, &mut browser, peer(4_000));
    assert_eq!(moored.notes(), [text(&Note::Selected(way(peer(4_000)), id(1)))]);
    assert_eq!(moored.rig.sent_to(4_000), 3, "each check is answered");
}

#[test]
fn a_route_is_given_up_when_its_browser_has_not_been_heard_for_long() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    let there = peer(4_000);
    moored.checked(1, &mut browser, there);
    moored.told(Told::Connected(id(1), there, descriptor()));
    moored.notes();
    let kept = limit::ICE_PORT_KEPT_MS.millis();
    moored.pass(kept - Duration::from_millis(1));
    moored.checked(1, &mut browser, there);
    moored.pass(kept - Duration::from_millis(1));
    moored.told(Told::Contested(id(1), way(there)));
    assert_eq!((moored.notes().len(), moored.adopted(1)), (0, Some(there)));
    moored.pass(Duration::from_millis(1));
    moored.told(Told::Contested(id(1), way(there)));
    assert_eq!(moored.notes(), [text(&Note::Left(way(there), id(1)))]);
    assert_eq!(moored.adopted(1), None);
    // One that has gone has no routes.
    moored.told(Told::Contested(id(8), way(there)));
    assert_eq!(moored.notes(), [text(&Note::Left(way(there), id(8)))]);
}

#[test]
fn a_check_for_another_call_is_sent_back_to_the_thread() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    let there = peer(4_000);
    moored.checked(1, &mut browser, there);
    moored.told(Told::Connected(id(1), there, descriptor()));
    moored.notes();
    let other = Browser::new(7, there).check(true);
    let token = moored.token(1);
    let arrived = [(other.clone(), there), (browser.check(true), there)].into();
    moored.rig.net.0.borrow_mut().waiting.insert(token, arrived);
    moored.round();
    assert_eq!(moored.notes(), [text(&Note::Astray(way(there), other))]);
    assert_eq!(moored.rig.worker.tally.dropped(DropReason::Forged), 0);
    assert_eq!(moored.rig.sent_to(4_000), 2, "its own is answered");
}

#[test]
fn a_call_that_ends_gives_its_names_and_routes_back() {
    let mut moored = Moored::start(100);
    let mut browser = moored.session(1);
    let first = browser.remote.ufrag.clone();
    moored.checked(1, &mut browser, peer(4_000));
    browser.restart(50).unwrap();
    let second = browser.remote.ufrag.clone();
    moored.apply(1, &browser);
    moored.notes();
    moored.checked(1, &mut browser, peer(4_001));
    moored.notes();
    moored.rig.tell(1, Command::Release);
    moored.round();
    let mut told = moored.notes();
    told.sort();
    let mut wanted = vec![
        text(&Note::Left(way(peer(4_000)), id(1))),
        text(&Note::Left(way(peer(4_001)), id(1))),
        text(&Note::Unnamed(first, id(1))),
        text(&Note::Unnamed(second, id(1))),
    ];
    wanted.sort();
    assert_eq!(told, wanted);
    let net = moored.rig.net.0.borrow();
    assert!(net.lent.is_empty() && net.adopted.is_empty() && net.shared.len() == 1);
}

#[test]
fn what_the_thread_had_no_room_for_is_told_later_in_order() {
    let mut moored = Moored::start(1);
    let mut browser = moored.session(1);
    let peers = (0..20).map(|at| peer(4_000 + at));
    peers.clone().for_each(|peer| moored.checked(1, &mut browser, peer));
    let mut told = Vec::new();
    for _ in 0..100 {
        told.extend(moored.notes());
        moored.pass(Duration::from_millis(100));
        moored.round();
    }
    let proved: Vec<_> = told.iter().filter(|note| note.starts_with("Proved")).cloned().collect();
    let wanted: Vec<_> = peers.map(|peer| text(&Note::Proved(way(peer), id(1)))).collect();
    assert_eq!(proved, wanted);
    let left = told.iter().filter(|note| note.starts_with("Left")).count();
    assert_eq!(left, 20 - limit::ICE_PAIRS.get(), "routes are bounded");
}
