//! Browsers' calls over one shared port, over real sockets on loopback, with both drivers.

use std::net::IpAddr;

use super::*;
use crate::handle::SharedPortConfig;

const V4: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::LOCALHOST);
const DRIVERS: [DriverChoice; 2] = [DriverChoice::Epoll, DriverChoice::Auto];

/// A relay with one port for all browsers.
struct Edge {
    relay: Relay,
    events: Receiver<(SessionId, MediaEvent)>,
    seen: Vec<(SessionId, MediaEvent)>,
}

/// A browser, its session and its socket.
struct Caller {
    session: SessionId,
    browser: Browser,
    reserved: Reserved,
    wire: Wire,
}

/// A port that is free now, on both families.
fn free_port() -> u16 {
    let free = |_| {
        let port = UdpSocket::bind((V4, 0)).ok()?.local_addr().ok()?.port();
        UdpSocket::bind((V6, port)).ok().map(|_| port)
    };
    (0..100).find_map(free).unwrap()
}

fn config(driver: DriverChoice, port: u16, addresses: Vec<IpAddr>) -> RelayConfig {
    let browser_port = Some(SharedPortConfig { port, addresses });
    RelayConfig {
        workers: 2,
        ports: 24_900..=24_901,
        seed: 7,
        driver,
        ice_tcp: Vec::new(),
        browser_port,
    }
}

fn need(bind: IpAddr) -> Need {
    let beside = Some(if bind == V4 { V6 } else { V4 });
    Need { bind, beside, separate_rtcp: false, dtls: true, fresh_identity: false }
}

fn wire(address: IpAddr) -> Wire {
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.set_read_timeout(READ).unwrap();
    Wire::Udp(socket)
}

impl Edge {
    fn start(driver: DriverChoice) -> Self {
        let (sender, events) = sync_channel(1_024);
        let sink = |_| -> Box<dyn EventSink> { Box::new(Sink(sender.clone())) };
        let relay = Relay::start(&config(driver, free_port(), vec![V4]), sink).unwrap();
        Self { relay, events, seen: Vec::new() }
    }

    fn tell(&self, session: SessionId, command: Command) {
        self.relay.handle().command(session, command).unwrap();
    }

    fn event(&mut self, session: SessionId, is_it: impl Fn(&MediaEvent) -> bool) -> MediaEvent {
        let began = StdInstant::now();
        loop {
            let known = self.seen.iter().position(|(id, event)| *id == session && is_it(event));
            if let Some(at) = known {
                return self.seen.remove(at).1;
            }
            let rest = WAIT.checked_sub(began.elapsed()).expect("the event");
            self.seen.push(self.events.recv_timeout(rest).unwrap());
        }
    }

    fn reserve(&mut self, session: SessionId, bind: IpAddr) -> MediaEvent {
        self.tell(session, Command::Reserve(need(bind)));
        self.event(session, |event| {
            matches!(event, MediaEvent::Reserved(_) | MediaEvent::ReserveFailed { .. })
        })
    }

    fn apply(&self, caller: &Caller) {
        let plan = Box::new(plan(&caller.browser, DtlsBackend::Dimpl));
        self.tell(caller.session, Command::Apply { plan, with: None });
    }

    /// A call, up to sound both ways.
    fn call(&mut self, stem: u64, bind: IpAddr, wire: Wire) -> Caller {
        let session = SessionId::new(stem, 0);
        let MediaEvent::Reserved(reserved) = self.reserve(session, bind) else { panic!() };
        let browser = Browser::new(stem, wire.address());
        let mut caller = Caller { session, browser, reserved, wire };
        self.apply(&caller);
        caller.find(self);
        let edge = caller.reserved.fingerprint.clone().unwrap();
        let hello = caller.browser.shake(now(), DtlsRole::Active, &edge);
        caller.send(&hello);
        caller.until(|caller| caller.browser.keys.is_some());
        caller.talk(self);
        caller
    }

    fn release(&mut self, session: SessionId) {
        self.tell(session, Command::Release);
        self.event(session, |event| matches!(event, MediaEvent::Report { last: true, .. }));
    }

    fn counts(&self) -> crate::SharedPortCounters {
        self.relay.handle().shared_port_counters()
    }

    /// The thread has not to hear what is said any more.
    fn settle(&self, caller: &mut Caller) {
        let began = StdInstant::now();
        loop {
            assert!(began.elapsed() < WAIT, "no socket of its own");
            let before = self.counts().handed;
            caller.talk(self);
            if self.counts().handed == before {
                return;
            }
        }
    }
}

impl Caller {
    fn send(&mut self, datagrams: &[Vec<u8>]) {
        let there = self.there();
        datagrams.iter().for_each(|datagram| self.wire.send(there, datagram));
    }

    /// The port in the wire's family.
    fn there(&self) -> SocketAddr {
        let hosts = [Some(self.reserved.rtp), self.reserved.beside];
        let is_for = |it: &SocketAddr| it.is_ipv6() == self.wire.address().is_ipv6();
        hosts.into_iter().flatten().find(is_for).unwrap()
    }

    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let began = StdInstant::now();
        while !is_so(self) {
            assert!(began.elapsed() < WAIT, "it never came to that");
            self.hear();
        }
    }

    fn hear(&mut self) {
        let there = self.there();
        if let Some(datagram) = self.wire.receive(there) {
            let answers = self.browser.hear(now(), &datagram);
            self.send(&answers);
        }
        let late = self.browser.handle_timeout(now());
        self.send(&late);
    }

    /// Checks until it is answered, as browsers do.
    fn find(&mut self, edge: &Edge) {
        let answered = self.browser.mapped.len();
        let began = StdInstant::now();
        while self.browser.mapped.len() == answered {
            assert!(began.elapsed() < WAIT, "no check is answered: {:?}", edge.counts());
            let check = self.browser.check(true);
            self.send(&[check]);
            let asked = StdInstant::now();
            self.until(|it| {
                it.browser.mapped.len() > answered || asked.elapsed() > 5 * READ.unwrap()
            });
        }
        assert_eq!(self.browser.mapped.last(), Some(&self.wire.address()));
    }

    /// It speaks until it is believed, and hears us meanwhile. Sound that is lost while a socket
    /// is closed is followed by more.
    fn talk(&mut self, edge: &Edge) {
        let believed = || edge.relay.handle().counters().total(Meter::Believed);
        let (before, heard) = (believed(), self.browser.heard.len());
        let began = StdInstant::now();
        while believed() < before + 10 || self.browser.heard.len() < heard + 10 {
            assert!(began.elapsed() < WAIT, "nobody hears it: {:?}", edge.counts());
            let voice = self.browser.voice();
            self.send(&[voice]);
            self.hear();
        }
    }

    /// Goes on over another wire; gives the former one.
    fn switch(&mut self, wire: Wire) -> Wire {
        self.browser.address = wire.address();
        std::mem::replace(&mut self.wire, wire)
    }

    /// Checks from where it is now until media comes there.
    fn move_here(&mut self, edge: &mut Edge) {
        let moved = MediaEvent::Latched { source: self.wire.address(), moved: true };
        edge.seen.clear();
        let began = StdInstant::now();
        while !edge.seen.contains(&(self.session, moved.clone())) {
            assert!(began.elapsed() < WAIT, "no check moves it: {:?}", edge.seen);
            let check = self.browser.check(true);
            self.send(&[check]);
            (0..5).for_each(|_| self.hear());
            edge.seen.extend(edge.events.try_iter());
        }
        self.talk(edge);
    }
}

#[test]
fn two_browsers_at_one_address_call_over_one_port_and_have_sockets_of_their_own() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut one = edge.call(5, V4, wire(V4));
        let mut other = edge.call(6, V4, wire(V4));
        assert_eq!(one.reserved.rtp, other.reserved.rtp);
        assert_ne!(one.browser.keys, other.browser.keys);
        for _ in 0..3 {
            edge.settle(&mut one);
            edge.settle(&mut other);
        }
        edge.release(one.session);
        edge.settle(&mut other);
        let counts = edge.counts();
        assert_eq!((counts.failed, counts.lost, counts.contested), (0, 0, 0), "{counts:?}");
        assert!(counts.connected >= 2);
        edge.relay.drain(Duration::ZERO);
    }
}

#[test]
fn a_browser_on_the_shared_port_changes_its_network_and_comes_back() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut caller = edge.call(5, V4, wire(V4));
        let mut other = edge.call(7, V4, wire(V4));
        edge.settle(&mut caller);
        let former = caller.switch(wire(V4));
        caller.move_here(&mut edge);
        edge.settle(&mut caller);
        caller.switch(former);
        caller.move_here(&mut edge);
        edge.settle(&mut caller);
        // To the other family and back.
        let former = caller.switch(wire(V6));
        caller.move_here(&mut edge);
        edge.settle(&mut caller);
        caller.switch(former);
        caller.move_here(&mut edge);
        edge.settle(&mut caller);
        edge.settle(&mut other);
        edge.relay.drain(Duration::ZERO);
    }
}

#[test]
fn ice_restarts_on_the_shared_port_where_it_was_and_elsewhere() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut caller = edge.call(5, V4, wire(V4));
        edge.settle(&mut caller);
        for (seed, is_elsewhere) in [(60, false), (70, true), (80, false)] {
            caller.browser.restart(seed).unwrap();
            edge.apply(&caller);
            if is_elsewhere {
                caller.switch(wire(V4));
            }
            caller.find(&edge);
            caller.talk(&edge);
            edge.settle(&mut caller);
        }
        let counted = edge.relay.handle().dtls_counters();
        assert_eq!((counted.begun, counted.completed), (1, 1));
    }
}

#[test]
fn a_call_that_follows_from_the_same_address_hears_nothing_of_the_one_before() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut first = edge.call(5, V4, wire(V4));
        edge.settle(&mut first);
        let late: Vec<_> = (0..20).map(|_| first.browser.voice()).collect();
        edge.release(first.session);
        let mut second = edge.call(6, V4, first.wire);
        edge.settle(&mut second);
        let handle = edge.relay.handle();
        // Their numbers may be new or not to this call.
        let refused = || {
            let counters = handle.counters();
            counters.dropped(DropReason::NotAuthentic) + counters.dropped(DropReason::Replayed)
        };
        let before = refused();
        second.send(&late);
        second.talk(&edge);
        second.until(|_| refused() >= before + 20);
        edge.relay.drain(Duration::ZERO);
    }
}

#[test]
fn checks_of_strangers_and_forgers_get_no_answer_and_hurt_no_call() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut caller = edge.call(5, V4, wire(V4));
        edge.settle(&mut caller);
        let (right, stranger) = (caller.browser.remote.clone(), UdpSocket::bind((V4, 0)).unwrap());
        stranger.set_read_timeout(READ).unwrap();
        let unknown = crate::path::browser::credentials(99);
        caller.browser.remote.pwd = unknown.pwd.clone();
        let forged = caller.browser.check(true);
        caller.browser.remote = unknown;
        let astray = caller.browser.check(true);
        caller.browser.remote = right;
        let sound = caller.browser.voice();
        let handle = edge.relay.handle();
        let before = handle.counters().dropped(DropReason::Forged);
        let counts = edge.counts();
        let (unknown, strange) = (counts.unknown, counts.stranger);
        for datagram in [&forged, &astray, &sound, &vec![22; 60], &vec![0; 20]] {
            stranger.send_to(datagram, caller.reserved.rtp).unwrap();
        }
        caller.until(|_| {
            let counts = handle.shared_port_counters();
            let forged = handle.counters().dropped(DropReason::Forged);
            (counts.unknown, counts.stranger, forged) == (unknown + 1, strange + 3, before + 1)
        });
        // And the same from the browser's own address, where its own socket hears them.
        caller.send(&[astray, forged]);
        caller.until(|_| {
            let forged = handle.counters().dropped(DropReason::Forged);
            handle.shared_port_counters().unknown == unknown + 2 && forged == before + 2
        });
        // A flood: what is above the limits is dropped, and the call goes on.
        for _ in 0..2_000 {
            let _ = stranger.send_to(&[0x80; 200], caller.reserved.rtp);
        }
        edge.settle(&mut caller);
        assert!(stranger.recv_from(&mut [0; 10]).is_err(), "a stranger is answered");
    }
}

#[test]
fn a_proved_route_that_is_not_chosen_is_heard_through_the_thread() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut caller = edge.call(5, V4, wire(V4));
        edge.settle(&mut caller);
        let former = caller.switch(wire(V4));
        let answered = caller.browser.mapped.len();
        let began = StdInstant::now();
        while caller.browser.mapped.len() == answered {
            assert!(began.elapsed() < WAIT);
            let check = caller.browser.check(false);
            caller.send(&[check]);
            caller.hear();
        }
        let handle = edge.relay.handle();
        let (believed, handed) =
            (handle.counters().total(Meter::Believed), handle.shared_port_counters().handed);
        for _ in 0..10 {
            let voice = caller.browser.voice();
            caller.send(&[voice]);
        }
        caller.until(|_| handle.counters().total(Meter::Believed) >= believed + 10);
        assert!(handle.shared_port_counters().handed >= handed + 10);
        caller.switch(former);
        edge.settle(&mut caller);
    }
}

#[test]
fn another_address_is_opened_when_a_call_comes_there() {
    for driver in DRIVERS {
        let mut edge = Edge::start(driver);
        let mut caller = edge.call(5, V6, wire(V6));
        edge.settle(&mut caller);
        let mut other = edge.call(6, V4, wire(V4));
        edge.settle(&mut other);
        assert_eq!(caller.reserved.rtp.port(), other.reserved.rtp.port());
        // An address that is none of ours: the call that needs it fails, and no other.
        let failed = edge.reserve(SessionId::new(9, 0), IpAddr::from([192, 0, 2, 77]));
        assert_eq!(failed, MediaEvent::ReserveFailed { ports: true });
        edge.settle(&mut caller);
    }
}

#[test]
fn a_port_that_somebody_has_is_an_error_at_the_start() {
    let taken = UdpSocket::bind((V4, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let (sender, _events) = sync_channel(10);
    let sink = |_| -> Box<dyn EventSink> { Box::new(Sink(sender.clone())) };
    let error = Relay::start(&config(DriverChoice::Epoll, port, vec![V4]), sink).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn a_relay_that_is_dropped_gives_the_shared_port_back() {
    let mut edge = Edge::start(DriverChoice::Auto);
    let caller = edge.call(5, V4, wire(V4));
    edge.relay.drain(Duration::ZERO);
    UdpSocket::bind(caller.reserved.rtp).unwrap();
}
