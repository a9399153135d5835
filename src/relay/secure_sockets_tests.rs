//! A browser's call over real sockets on loopback, with both drivers.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant as StdInstant;

use audio::Codec;
use base::{CallId, LegId, SeededRandom};
use media::{
    Direction, DtlsBackend, DtlsRole, Format, Handshake, LegPlan, MediaEvent, Need, Protection,
    Purpose, Reserved, SourceIdentity,
};

use super::*;
use crate::path::browser::Browser;
use crate::path::counters::{DropReason, Meter};

struct Sink(SyncSender<(SessionId, MediaEvent)>);

impl EventSink for Sink {
    fn deliver(&mut self, session: SessionId, event: MediaEvent) {
        let _ = self.0.try_send((session, event));
    }
    fn failed(&mut self, session: SessionId) {
        panic!("{session} failed");
    }
}

const WAIT: Duration = Duration::from_secs(20);
const SESSION: SessionId = SessionId::new(5, 0);

fn plan(browser: &Browser, backend: DtlsBackend) -> LegPlan {
    let mut random = SeededRandom::new(5);
    let handshake = Handshake { backend, ..browser.handshake() };
    let pcmu =
        Format { codec: Codec::Pcmu, payload_type: 0, packet_ms: 20, dtx: false, bitrate: 0 };
    LegPlan {
        leg: LegId { call: CallId::random(&mut random), index: 0 },
        remote: SocketAddr::from(([0, 0, 0, 0], 9)),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Dtls(Box::new(handshake)),
        send: Some(pcmu),
        accept: vec![pcmu],
        opaque: Vec::new(),
        sendable: Vec::new(),
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(&mut random),
        purpose: Purpose::Agent { barge_in: None },
    }
}

/// A relay with one session, and a browser with its socket.
struct Call {
    relay: Relay,
    events: Receiver<(SessionId, MediaEvent)>,
    /// Those that were taken out of the queue.
    seen: Vec<MediaEvent>,
    reserved: Reserved,
    browser: Browser,
    wire: Wire,
}

/// What a browser talks over.
enum Wire {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
}

const READ: Option<Duration> = Some(Duration::from_millis(10));

impl Wire {
    fn udp() -> Self {
        Self::udp_at("127.0.0.1:0")
    }

    fn udp_at(address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(READ).unwrap();
        Self::Udp(socket)
    }

    fn tcp(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(READ).unwrap();
        Self::Tcp(stream, Vec::new())
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Udp(socket) => socket.local_addr().unwrap(),
            Self::Tcp(stream, _) => stream.local_addr().unwrap(),
        }
    }

    fn send(&mut self, to: SocketAddr, datagram: &[u8]) {
        match self {
            Self::Udp(socket) => assert_eq!(socket.send_to(datagram, to).unwrap(), datagram.len()),
            Self::Tcp(stream, _) => {
                let length = (datagram.len() as u16).to_be_bytes();
                stream.write_all(&[&length, datagram].concat()).unwrap();
            }
        }
    }

    fn receive(&mut self, from: SocketAddr) -> Option<Vec<u8>> {
        let mut buffer = [0; 2_000];
        match self {
            Self::Udp(socket) => {
                let (length, source) = socket.recv_from(&mut buffer).ok()?;
                assert_eq!(source, from);
                Some(buffer[..length].to_vec())
            }
            Self::Tcp(stream, bytes) => {
                if let Ok(length) = stream.read(&mut buffer) {
                    assert!(length > 0, "the connection was closed");
                    bytes.extend_from_slice(&buffer[..length]);
                }
                let (length, rest) = bytes.split_first_chunk::<2>()?;
                let frame = rest.get(..usize::from(u16::from_be_bytes(*length)))?.to_vec();
                bytes.drain(..2 + frame.len());
                Some(frame)
            }
        }
    }
}

impl Call {
    fn start(driver: DriverChoice, ports: RangeInclusive<u16>) -> Self {
        Self::with(driver, ports, DtlsBackend::Dimpl)
    }

    fn with(driver: DriverChoice, ports: RangeInclusive<u16>, backend: DtlsBackend) -> Self {
        let (sender, events) = sync_channel(1024);
        let any = ["127.0.0.1:0", "[::1]:0"].map(|it| it.parse().unwrap());
        let config = RelayConfig {
            workers: 2,
            ports,
            seed: 7,
            driver,
            ice_tcp: any.into(),
            browser_port: None,
        };
        let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone()))).unwrap();
        let (bind, beside) = (IpAddr::from([127, 0, 0, 1]), Some(Ipv6Addr::LOCALHOST.into()));
        let need = Need { bind, beside, separate_rtcp: false, dtls: true, fresh_identity: false };
        relay.handle().command(SESSION, Command::Reserve(need)).unwrap();
        let (_, event) = events.recv_timeout(WAIT).unwrap();
        let MediaEvent::Reserved(reserved) = event else { panic!("{event:?}") };
        let wire = Wire::udp();
        let browser = Browser::new(1, wire.address());
        let plan = Box::new(plan(&browser, backend));
        relay.handle().command(SESSION, Command::Apply { plan, with: None }).unwrap();
        Self { relay, events, seen: Vec::new(), reserved, browser, wire }
    }

    fn send(&mut self, datagrams: &[Vec<u8>]) {
        let there = self.there();
        datagrams.iter().for_each(|datagram| self.wire.send(there, datagram));
    }

    /// Our port in the wire's family.
    fn there(&self) -> SocketAddr {
        let beside =
            self.reserved.beside.filter(|it| it.is_ipv6() == self.wire.address().is_ipv6());
        beside.unwrap_or(self.reserved.rtp)
    }

    /// Goes on over another wire; gives the former one.
    fn switch(&mut self, wire: Wire) -> Wire {
        self.browser.address = wire.address();
        std::mem::replace(&mut self.wire, wire)
    }

    /// Checks from where it is now, again and again as browsers do, until media comes there: a
    /// datagram is lost that reaches a socket which is just being closed.
    fn move_here(&mut self) {
        let moved = MediaEvent::Latched { source: self.browser.address, moved: true };
        self.seen.clear();
        let began = StdInstant::now();
        while !self.seen.contains(&moved) {
            assert!(began.elapsed() < WAIT, "no check moves it: {:?}", self.seen);
            self.check();
            let asked = StdInstant::now();
            self.until(|call| call.seen.contains(&moved) || asked.elapsed() > 5 * READ.unwrap());
        }
        self.talk();
    }

    /// From the first check to sound both ways.
    fn connect(&mut self) {
        self.find();
        let edge = self.reserved.fingerprint.clone().unwrap();
        let hello = self.browser.shake(now(), DtlsRole::Active, &edge);
        self.send(&hello);
        self.until(|call| call.browser.keys.is_some());
        self.talk();
        assert!(self.seen.iter().any(|it| matches!(it, MediaEvent::Secured { .. })));
    }

    /// Checks until it is answered, as browsers do: the first one may come before the plan.
    fn find(&mut self) {
        let began = StdInstant::now();
        while self.browser.mapped.is_empty() {
            assert!(began.elapsed() < WAIT, "no check is answered");
            self.check();
            let asked = StdInstant::now();
            self.until(|call| {
                !call.browser.mapped.is_empty() || asked.elapsed() > 5 * READ.unwrap()
            });
        }
    }

    fn check(&mut self) {
        let check = self.browser.check(true);
        self.send(&[check]);
    }

    /// Hears and answers until that is so.
    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let began = StdInstant::now();
        while !is_so(self) {
            assert!(began.elapsed() < WAIT, "it never came to that: {:?}", self.seen);
            let there = self.there();
            if let Some(datagram) = self.wire.receive(there) {
                let answers = self.browser.hear(now(), &datagram);
                self.send(&answers);
            }
            let late = self.browser.handle_timeout(now());
            self.send(&late);
            self.seen.extend(self.events.try_iter().map(|(_, event)| event));
        }
    }

    /// It speaks until it is believed, and hears us meanwhile.
    fn talk(&mut self) {
        let believed = |call: &Self| call.relay.handle().counters().total(Meter::Believed);
        let (before, heard) = (believed(self), self.browser.heard.len());
        for _ in 0..10 {
            let voice = self.browser.voice();
            self.send(&[voice]);
        }
        self.until(|call| believed(call) >= before + 10 && call.browser.heard.len() > heard + 10);
    }
}

#[test]
fn a_browser_calls_changes_its_network_and_goes_on() {
    for (driver, ports) in
        [(DriverChoice::Epoll, 24_000..=24_099), (DriverChoice::Auto, 24_100..=24_199)]
    {
        let mut call = Call::start(driver, ports);
        call.connect();
        // Another network: another address, from which it checks.
        let former = call.switch(Wire::udp());
        call.move_here();
        let answered = call.browser.mapped.len();
        call.check();
        call.until(|call| call.browser.mapped.len() > answered);
        // And back again, to an address that a socket was connected to before.
        call.switch(former);
        call.move_here();
        // To the other family and back.
        assert_eq!(call.reserved.beside.unwrap().port(), call.reserved.rtp.port());
        let former = call.switch(Wire::udp_at("[::1]:0"));
        call.move_here();
        assert_eq!(call.browser.mapped.last(), Some(&call.browser.address));
        let beside = call.switch(former);
        call.move_here();
        call.switch(beside);
        call.move_here();

        let handle = call.relay.handle();
        handle.command(SESSION, Command::Release).unwrap();
        call.until(|call| {
            call.seen.iter().any(|it| matches!(it, MediaEvent::Report { last: true, .. }))
        });
        call.relay.drain(WAIT);
        let counted = handle.dtls_counters();
        assert_eq!((counted.begun, counted.completed, counted.failed), (1, 1, 0));
    }
}

#[test]
fn a_browser_that_has_media_in_the_other_family_only_calls() {
    for (driver, ports) in
        [(DriverChoice::Epoll, 25_000..=25_009), (DriverChoice::Auto, 25_010..=25_019)]
    {
        let mut call = Call::start(driver, ports);
        call.switch(Wire::udp_at("[::1]:0"));
        call.connect();
        call.relay.drain(Duration::ZERO);
    }
}

#[test]
fn an_address_beside_that_cannot_be_had_is_left_out() {
    let taken = UdpSocket::bind("[::1]:25020").unwrap();
    let mut call = Call::start(DriverChoice::Auto, 25_020..=25_021);
    assert_eq!(call.reserved.beside, None);
    drop(taken);
    call.connect();
    call.relay.drain(Duration::ZERO);
}

#[test]
fn the_other_library_gives_keys_as_well() {
    let mut call = Call::with(DriverChoice::Auto, 24_500..=24_599, DtlsBackend::WebrtcDtls);
    call.connect();
    call.relay.drain(Duration::ZERO);
}

#[test]
fn a_new_certificate_is_that_of_new_sessions_and_the_old_one_of_old_ones() {
    let mut call = Call::start(DriverChoice::Auto, 24_700..=24_799);
    let known = Arc::new(OnceLock::new());
    known.set(Arc::downgrade(&call.relay.handle.workers)).unwrap();
    let fresh = crate::path::browser::identity(71);
    assert!(ToWorkers(known).rotated(&fresh));
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: false,
        dtls: true,
        fresh_identity: false,
    };
    for stem in [6, 7] {
        let command = Command::Reserve(need);
        call.relay.handle().command(SessionId::new(stem, 0), command).unwrap();
    }
    let fresh = Some(fresh.fingerprint().clone());
    let is_fresh = |event: &&MediaEvent| match event {
        MediaEvent::Reserved(reserved) => reserved.fingerprint == fresh,
        _ => false,
    };
    call.until(|call| call.seen.iter().filter(is_fresh).count() == 2);
    call.connect();
}

#[test]
fn a_leg_that_moves_shows_a_certificate_of_its_own_and_hands_other_keys() {
    let mut call = Call::start(DriverChoice::Auto, 24_800..=24_899);
    call.connect();
    let (first, former) = (call.reserved.clone(), call.browser.keys.take());
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: false,
        dtls: true,
        fresh_identity: true,
    };
    // Of two that ask, each has its own; both live on one worker, which answers in turn.
    let moved = SessionId::new(6, 0);
    for session in [moved, SessionId::new(8, 0)] {
        call.relay.handle().command(session, Command::Reserve(need)).unwrap();
    }
    let reserved = |call: &Call| -> Vec<Reserved> {
        let events = call.seen.iter().filter_map(|event| match event {
            MediaEvent::Reserved(reserved) => Some(reserved.clone()),
            _ => None,
        });
        events.collect()
    };
    call.until(|call| reserved(call).len() == 2);
    let [one, other] = &reserved(&call)[..] else { panic!() };
    let shown = [&first, one, other].map(|it| it.fingerprint.clone().unwrap());
    assert!(shown[0] != shown[1] && shown[1] != shown[2] && shown[0] != shown[2]);

    call.browser.restart(50).unwrap();
    let plan = plan(&call.browser, DtlsBackend::Dimpl);
    for (session, place) in [(moved, one), (SessionId::new(8, 0), other)] {
        let plan = Box::new(plan.clone());
        call.relay.handle().command(session, Command::Apply { plan, with: None }).unwrap();
        call.reserved = place.clone();
        call.switch(Wire::udp());
        call.seen.clear();
        call.browser.mapped.clear();
        call.connect();
        assert!(call.browser.keys.is_some() && call.browser.keys != former);
        call.browser.keys = None;
    }
    let counted = call.relay.handle().dtls_counters();
    assert_eq!((counted.begun, counted.completed, counted.failed), (3, 3, 0));
}

#[test]
fn a_browser_that_is_another_one_gets_no_keys() {
    let mut call = Call::start(DriverChoice::Auto, 24_600..=24_699);
    call.find();
    call.browser.identity = crate::path::browser::identity(70);
    let edge = call.reserved.fingerprint.clone().unwrap();
    let hello = call.browser.shake(now(), DtlsRole::Active, &edge);
    call.send(&hello);
    let unsecured = MediaEvent::Unsecured { code: "dtls.fingerprint" };
    call.until(|call| call.seen.contains(&unsecured));
    let counted = call.relay.handle().dtls_counters();
    assert_eq!((counted.begun, counted.completed, counted.failed), (1, 0, 1));
}

#[test]
fn a_relay_that_is_dropped_ends_its_handshakes() {
    let mut call = Call::start(DriverChoice::Auto, 24_200..=24_299);
    call.find();
    let Relay { handle, threads, handshakes, ice_tcp, .. } = call.relay;
    drop((handle, ice_tcp));
    // Each of them would wait for ever, were it kept by another.
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    handshakes.join();
}

#[test]
fn a_browser_that_has_only_tcp_calls_over_it_and_leaves_it_when_it_can() {
    let mut call = Call::start(DriverChoice::Auto, 24_300..=24_399);
    let door = call.reserved.ice_tcp[0];
    call.switch(Wire::tcp(door));
    call.connect();
    call.switch(Wire::udp_at("[::1]:0"));
    call.move_here();
    call.switch(Wire::tcp(call.reserved.ice_tcp[1]));
    call.move_here();
    // The connection breaks: media goes on where it was proved before.
    call.switch(Wire::udp());
    call.move_here();
    let there = call.browser.address;
    let udp = call.switch(Wire::tcp(door));
    call.move_here();
    call.seen.clear();
    call.switch(udp);
    let back = MediaEvent::Latched { source: there, moved: true };
    call.until(|call| call.seen.contains(&back));
    call.talk();
    let counted = call.relay.handle().ice_tcp_counters();
    assert_eq!((counted.accepted, counted.unproved), (3, 0));
    call.relay.drain(Duration::ZERO);
}

#[test]
fn a_connection_that_proves_nothing_is_closed() {
    let mut call = Call::start(DriverChoice::Auto, 24_400..=24_499);
    let door = call.reserved.ice_tcp[0];
    call.connect();
    let right = call.browser.remote.clone();
    let other = crate::path::browser::credentials(77);
    let mut first = vec![vec![0; 20], call.browser.voice(), vec![0x16; 100]];
    call.browser.remote.pwd = other.pwd.clone();
    first.push(call.browser.check(true));
    call.browser.remote = other;
    first.push(call.browser.check(true));
    call.browser.remote = right;
    let most = 2 + limit::RTP_PACKET_BYTES.get();
    for bytes in &first {
        let mut stream = TcpStream::connect(door).unwrap();
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.write_all(&[&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()).unwrap();
        assert!(matches!(stream.read(&mut [0; 10]), Ok(0) | Err(_)));
    }
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.write_all(&vec![0xff; most]).unwrap();
    assert!(matches!(stream.read(&mut [0; 10]), Ok(0) | Err(_)));
    call.until(|call| call.relay.handle().ice_tcp_counters().unproved == 6);
    call.talk();
    // A released session has no connections.
    let mut wire = Wire::tcp(door);
    let check = call.browser.check(false);
    wire.send(door, &check);
    let _former = call.switch(wire);
    call.until(|call| call.browser.mapped.len() > 1);
    call.relay.handle().command(SESSION, Command::Release).unwrap();
    let Wire::Tcp(stream, _) = &mut call.wire else { panic!("a connection") };
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_ok(), "closed in order");
}

#[path = "shared_sockets_tests.rs"]
mod shared_sockets_tests;
