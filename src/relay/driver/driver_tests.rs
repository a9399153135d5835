//! One set of tests for both drivers, over real sockets on loopback. None of them looks at a
//! clock: waits end with what they wait for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::sync::atomic::{AtomicU8, Ordering};

use base::limit;

use super::epoll::Epoll;
use super::files::Files;
use super::uring::Uring;
use super::*;

/// Runs each test with each driver that this machine allows.
macro_rules! for_each_driver {
    ($($test:ident)*) => {
        mod with_epoll {
            use super::*;

            $(#[test] fn $test() { super::$test(&|files| Box::new(Epoll::new(files).unwrap())); })*
        }
        mod with_io_uring {
            use super::*;

            $(#[test] fn $test() {
                // Where the kernel forbids it, the relay does not use it either.
                if Uring::new(Files::most(8)).is_ok() {
                    super::$test(&|files| Box::new(Uring::new(files).unwrap()));
                }
            })*
        }
        mod with_io_uring_and_hardly_a_table {
            use super::*;

            $(#[test] fn $test() {
                if Uring::new(Files::most(8)).is_ok() {
                    super::$test(&|files| Box::new(Uring::with_registered(files, 1).unwrap()));
                }
            })*
        }
    };
}

for_each_driver! {
    a_datagram_goes_both_ways_over_ipv4_and_ipv6
    a_datagram_that_is_too_large_shows_it
    a_connected_peer_and_everybody_else_are_both_heard
    a_peer_that_moves_again_is_followed
    a_closed_socket_says_nothing_to_its_successor
    what_was_sent_before_closing_still_goes_out
    a_closed_port_can_be_opened_again
    one_round_sends_more_than_fits_one_submission
    a_flood_at_one_port_delays_nobody_and_is_worked_off
    more_datagrams_than_there_are_buffers_are_all_received
    a_command_ends_a_wait
    a_refused_datagram_is_told
    without_descriptors_no_socket_opens_and_scarce_ones_are_not_doubled
    no_packet_allocates
    a_driver_that_was_away_drops_what_is_old_and_keeps_the_newest
    a_socket_that_was_seen_meanwhile_loses_nothing
    a_driver_can_end_in_the_middle_of_everything
}

type Make<'a> = &'a dyn Fn(Files) -> Box<dyn Driven>;

/// What both have.
trait Driven: Network {
    fn waker(&self) -> Waker;
    fn set_lookout(&mut self, clear: Instant, stale: Duration);
}

impl Driven for Epoll {
    fn waker(&self) -> Waker {
        self.waker()
    }
    fn set_lookout(&mut self, clear: Instant, stale: Duration) {
        self.set_lookout(clear, stale);
    }
}

impl Driven for Uring {
    fn waker(&self) -> Waker {
        self.waker()
    }
    fn set_lookout(&mut self, clear: Instant, stale: Duration) {
        self.set_lookout(clear, stale);
    }
}

const LONG: Duration = Duration::from_secs(20);

struct Rig {
    net: Box<dyn Driven>,
    ready: Vec<Token>,
    /// Nobody else uses it, so that a port which is closed here is not opened elsewhere.
    ip: IpAddr,
}

/// How many have been made in this process.
static RIGS: AtomicU8 = AtomicU8::new(1);

impl Rig {
    fn new(make: Make<'_>) -> Self {
        Self::with(make, 1_000)
    }

    fn with(make: Make<'_>, files: usize) -> Self {
        let process = std::process::id().to_be_bytes();
        let ip = [127, process[2] | 0x40, process[3], RIGS.fetch_add(1, Ordering::Relaxed)];
        let mut net = make(Files::most(files));
        // A busy machine makes nothing stale.
        net.set_lookout(net.now(), LONG);
        Self { net, ready: Vec::new(), ip: ip.into() }
    }

    /// Opens a token on a free port.
    fn open(&mut self, token: Token) -> SocketAddr {
        self.open_other_than(token, None)
    }

    /// The same, but not on the port of one that has just been closed.
    fn open_other_than(&mut self, token: Token, old: Option<SocketAddr>) -> SocketAddr {
        let free = || UdpSocket::bind((self.ip, 0)).unwrap().local_addr().unwrap();
        let address = (0..100).map(|_| free()).find(|it| Some(*it) != old).unwrap();
        assert!(self.net.open(token, address));
        address
    }

    /// A socket of a peer's.
    fn peer(&self) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((self.ip, 0)).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let address = socket.local_addr().unwrap();
        (socket, address)
    }

    /// What comes next: token, bytes, source.
    fn next(&mut self) -> (Token, Vec<u8>, SocketAddr) {
        let mut buffer = [0; 1_501];
        for _ in 0..1_000 {
            self.net.wait(LONG, &mut self.ready);
            for token in self.ready.clone() {
                if let Some((length, source)) = self.net.receive(token, &mut buffer) {
                    return (token, buffer[..length.min(1_501)].to_vec(), source);
                }
            }
        }
        panic!("nothing comes");
    }

    /// Everything that comes until there are so many datagrams, `batch` of a token in a round;
    /// per round how many of each token.
    fn take(&mut self, count: usize, batch: usize) -> Vec<BTreeMap<Token, usize>> {
        let (mut rounds, mut seen) = (Vec::new(), 0);
        while seen < count {
            let mut round = BTreeMap::new();
            self.net.wait(LONG, &mut self.ready);
            for token in self.ready.clone() {
                let mut buffer = [0; 1_501];
                for _ in 0..batch {
                    if self.net.receive(token, &mut buffer).is_none() {
                        break;
                    }
                    *round.entry(token).or_default() += 1;
                    seen += 1;
                }
            }
            rounds.push(round);
            assert!(rounds.len() < 100_000, "{seen} of {count}");
        }
        rounds
    }

    /// Gives the driver a few rounds in which nothing comes.
    fn rest(&mut self) {
        (0..5).for_each(|_| self.net.wait(Duration::from_millis(1), &mut self.ready));
    }
}

fn hears(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = [0; 2_000];
    loop {
        match socket.recv_from(&mut buffer) {
            // A ring that is gone interrupts the thread that had it once more.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            got => {
                let (length, source) = got.unwrap();
                return (buffer[..length].to_vec(), source);
            }
        }
    }
}

fn a_datagram_goes_both_ways_over_ipv4_and_ipv6(make: Make<'_>) {
    for is_new in [false, true] {
        let mut rig = Rig::new(make);
        if is_new {
            rig.ip = Ipv6Addr::LOCALHOST.into();
        }
        let here = rig.open(6);
        let (socket, there) = rig.peer();
        socket.send_to(b"hello", here).unwrap();
        assert_eq!(rig.next(), (6, b"hello".to_vec(), there));
        assert!(rig.net.send(6, there, b"and back"));
        rig.rest();
        assert_eq!(hears(&socket), (b"and back".to_vec(), here));
    }
}

fn a_datagram_that_is_too_large_shows_it(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let here = rig.open(0);
    let (socket, _) = rig.peer();
    for (sent, seen) in [(1_500, 1_500), (1_501, 1_501), (9_000, 1_501)] {
        socket.send_to(&vec![7; sent], here).unwrap();
        assert_eq!(rig.next().1.len(), seen);
    }
}

fn a_connected_peer_and_everybody_else_are_both_heard(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let here = rig.open(2);
    let ((known, there), (stranger, elsewhere)) = (rig.peer(), rig.peer());
    rig.net.connect(2, there);
    for _ in 0..100 {
        known.send_to(b"known", here).unwrap();
        assert_eq!(rig.next(), (2, b"known".to_vec(), there));
        stranger.send_to(b"stranger", here).unwrap();
        assert_eq!(rig.next(), (2, b"stranger".to_vec(), elsewhere));
    }
    // Both are reached, from the same port.
    assert!(rig.net.send(2, there, b"one") && rig.net.send(2, elsewhere, b"two"));
    rig.rest();
    assert_eq!(hears(&known), (b"one".to_vec(), here));
    assert_eq!(hears(&stranger), (b"two".to_vec(), here));
}

fn a_peer_that_moves_again_is_followed(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let here = rig.open(0);
    let peers: Vec<_> = (0..4).map(|_| rig.peer()).collect();
    for _ in 0..3 {
        for (socket, there) in &peers {
            rig.net.connect(0, *there);
            rig.net.connect(0, *there);
            for (any, from) in &peers {
                any.send_to(b"x", here).unwrap();
                assert_eq!(rig.next().2, *from);
            }
            assert!(rig.net.send(0, *there, b"y"));
            rig.rest();
            assert_eq!(hears(socket).1, here);
        }
    }
}

fn a_closed_socket_says_nothing_to_its_successor(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (socket, there) = rig.peer();
    for round in 0..200u8 {
        let old = rig.open(4);
        if round % 3 == 0 {
            rig.net.connect(4, there);
        }
        socket.send_to(b"taken in, not taken out", old).unwrap();
        if round % 2 == 0 {
            rig.net.wait(LONG, &mut rig.ready);
        }
        rig.net.close(4);
        // A free place is taken by the next one at once.
        let new = rig.open_other_than(4, Some(old));
        socket.send_to(b"late", old).unwrap();
        socket.send_to(&[round], new).unwrap();
        assert_eq!(rig.next(), (4, vec![round], there));
        rig.net.close(4);
        rig.rest();
    }
}

fn what_was_sent_before_closing_still_goes_out(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (socket, there) = rig.peer();
    let here = rig.open(0);
    assert!(rig.net.send(0, there, b"goodbye"));
    rig.net.close(0);
    let next = rig.open(0);
    assert!(rig.net.send(0, there, b"hello"));
    rig.rest();
    assert_eq!(hears(&socket), (b"goodbye".to_vec(), here));
    assert_eq!(hears(&socket), (b"hello".to_vec(), next));
    assert!(!rig.net.send(1, there, b"from nowhere"));
}

fn a_closed_port_can_be_opened_again(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (_socket, there) = rig.peer();
    let here = rig.open(0);
    rig.net.connect(0, there);
    assert!(!rig.net.open(2, here), "the port is taken");
    rig.net.close(0);
    rig.rest();
    assert!(rig.net.open(0, here));
}

fn one_round_sends_more_than_fits_one_submission(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (socket, there) = rig.peer();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).unwrap();
    rig.open(0);
    for number in 0..2_000u16 {
        assert!(rig.net.send(0, there, &number.to_be_bytes()));
    }
    rig.rest();
    let heard: Vec<_> = (0..2_000).map(|_| hears(&socket).0).collect();
    assert!((0..2_000u16).zip(heard).all(|(sent, heard)| heard == sent.to_be_bytes()));
    assert_eq!(rig.net.refused(), 0);
}

fn a_flood_at_one_port_delays_nobody_and_is_worked_off(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let batch = limit::RELAY_BATCH.get();
    let (socket, _) = rig.peer();
    let victim = rig.open(0);
    let others: Vec<_> = (1..=40).map(|call| rig.open(call * 2)).collect();
    rig.rest();
    for _ in 0..3 {
        // As much as its socket holds, and more.
        (0..2_000).for_each(|_| assert_eq!(socket.send_to(&[0x80; 172], victim).unwrap(), 172));
        for other in &others {
            socket.send_to(&[0x80; 172], other).unwrap();
        }
        let rounds = rig.take(50 + others.len(), batch);
        let of = |token: Token| rounds.iter().map(move |it| it.get(&token).copied().unwrap_or(0));
        // Nobody waits for more than a batch of the flood, and one receive of each other.
        for call in 1..=40 {
            let flood: usize =
                of(0).zip(of(call * 2)).take_while(|it| it.1 == 0).map(|it| it.0).sum();
            assert!(flood <= batch, "call {call} waited for {flood} packets of the flood");
            assert_eq!(of(call * 2).sum::<usize>(), 1);
        }
        assert!(of(0).all(|count| count <= batch));
        // What is left in the victim's own socket comes as well, and then it is an ordinary one.
        let mut buffer = [0; 1_501];
        let mut quiet = 0;
        while quiet < 5 {
            rig.net.wait(Duration::from_millis(1), &mut rig.ready);
            quiet = if rig.ready.is_empty() { quiet + 1 } else { 0 };
            while rig.net.receive(0, &mut buffer).is_some() {}
        }
        socket.send_to(b"still there", victim).unwrap();
        assert_eq!(rig.next().1, b"still there");
    }
}

fn more_datagrams_than_there_are_buffers_are_all_received(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (socket, _) = rig.peer();
    let ports: Vec<_> = (0..60).map(|token| rig.open(token)).collect();
    rig.rest();
    for port in &ports {
        for _ in 0..30 {
            socket.send_to(&[0x80; 172], port).unwrap();
        }
    }
    let rounds = rig.take(1_800, 64);
    for token in 0..60 {
        let count: usize = rounds.iter().filter_map(|round| round.get(&token)).sum();
        assert_eq!(count, 30, "{token}");
    }
}

fn a_command_ends_a_wait(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let waker = rig.net.waker();
    let (next, again) = std::sync::mpsc::sync_channel(8);
    let thread = std::thread::spawn(move || {
        for count in again {
            (0..count).for_each(|_| waker.wake());
        }
    });
    // A wake may come while the last one is just being heard.
    for round in 0..2_000 {
        next.send(round % 3 + 1).unwrap();
        // Far longer than the test runner's patience.
        rig.net.wait(Duration::from_secs(3_600), &mut rig.ready);
        assert!(rig.ready.is_empty());
    }
    drop(next);
    thread.join().unwrap();
}

fn a_refused_datagram_is_told(make: Make<'_>) {
    let mut rig = Rig::new(make);
    rig.open(0);
    // Broadcast is not allowed on such a socket.
    let taken = rig.net.send(0, SocketAddr::from(([255, 255, 255, 255], 9)), b"x");
    rig.rest();
    assert_eq!(u64::from(!taken) + rig.net.refused(), 1);
    assert_eq!(rig.net.refused(), 0);
    let (_socket, there) = rig.peer();
    assert!(!rig.net.send(0, there, &[0; 70_000]), "too large for any datagram");
}

fn without_descriptors_no_socket_opens_and_scarce_ones_are_not_doubled(make: Make<'_>) {
    let mut rig = Rig::with(make, 4);
    let (socket, there) = rig.peer();
    let ports: Vec<_> = (0..3).map(|token| rig.open(token)).collect();
    // A quarter stays for new sessions: this one goes on with one socket.
    rig.net.connect(0, there);
    rig.open(3);
    assert!(!rig.net.open(4, SocketAddr::from(([127, 0, 0, 1], 0))));
    socket.send_to(b"x", ports[0]).unwrap();
    assert_eq!(rig.next().0, 0);
    assert!(rig.net.send(0, there, b"y"));
    rig.rest();
    assert_eq!(hears(&socket).1, ports[0]);
    // What is closed is free again.
    (0..4).for_each(|token| rig.net.close(token));
    rig.rest();
    for token in 0..4 {
        rig.open(token);
    }
}

fn no_packet_allocates(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let legs: Vec<_> = (0..40).map(|token| rig.open(token)).collect();
    let (socket, there) = rig.peer();
    socket.set_nonblocking(true).unwrap();
    (0..40).step_by(2).for_each(|token| rig.net.connect(token, there));
    let mut buffer = [0; 1_501];
    let mut round = |rig: &mut Rig| {
        let mut heard = 0;
        for leg in &legs {
            socket.send_to(&[0x80; 172], leg).unwrap();
        }
        for _ in 0..4 {
            rig.net.wait(Duration::from_micros(200), &mut rig.ready);
            for at in 0..rig.ready.len() {
                let token = rig.ready[at];
                while let Some((length, source)) = rig.net.receive(token, &mut buffer) {
                    assert!(rig.net.send(token, source, &buffer[..length]));
                }
            }
        }
        while socket.recv_from(&mut buffer).is_ok() {
            heard += 1;
        }
        heard
    };
    // The first ones find lists that still grow.
    assert!((0..20).map(|_| round(&mut rig)).sum::<usize>() > 0);
    let mut heard = 0;
    let counted =
        allocation_counter::measure(|| heard = (0..100).map(|_| round(&mut rig)).sum::<usize>());
    assert!(heard > 3_500, "{heard}");
    assert_eq!(counted.count_total, 0);
}

/// Sends 25 numbered datagrams to each port, and tells the driver that nobody looked for so long.
fn after_half_a_second(rig: &mut Rig, socket: &UdpSocket, ports: &[SocketAddr]) {
    rig.rest();
    for port in ports {
        (0..25).for_each(|number| assert_eq!(socket.send_to(&[number], port).unwrap(), 1));
    }
    let away = Duration::from_millis(500);
    rig.net.set_lookout(rig.net.now() - away, limit::RELAY_STALE_MS.millis());
}

/// The numbers that come out at each token until nothing comes any more.
fn numbers(rig: &mut Rig) -> BTreeMap<Token, Vec<u8>> {
    let mut heard: BTreeMap<Token, Vec<u8>> = BTreeMap::new();
    let (mut quiet, mut buffer) = (0, [0; 1_501]);
    while quiet < 5 {
        rig.net.wait(Duration::from_millis(1), &mut rig.ready);
        quiet = if rig.ready.is_empty() { quiet + 1 } else { 0 };
        for token in rig.ready.clone() {
            while rig.net.receive(token, &mut buffer).is_some() {
                heard.entry(token).or_default().push(buffer[0]);
            }
        }
    }
    heard
}

fn a_driver_that_was_away_drops_what_is_old_and_keeps_the_newest(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let ports: Vec<_> = (0..8).map(|call| rig.open(call * 2)).collect();
    let (socket, there) = rig.peer();
    (0..4).for_each(|call| rig.net.connect(call * 2, there));
    after_half_a_second(&mut rig, &socket, &ports);
    let heard = numbers(&mut rig);
    assert_eq!(heard.len(), 8);
    let mut passed = 0;
    for numbers in heard.values() {
        // 150 of the 500 ms; fewer, where this machine is slow.
        assert!((1..=8).contains(&numbers.len()), "{numbers:?}");
        assert!(numbers.iter().copied().eq(25 - numbers.len() as u8..25), "{numbers:?}");
        passed += numbers.len() as u64;
    }
    assert_eq!((rig.net.stale(), rig.net.stale()), (200 - passed, 0));
    // Then it is an ordinary driver again.
    rig.net.set_lookout(rig.net.now(), LONG);
    (0..25).for_each(|number| assert_eq!(socket.send_to(&[number], ports[0]).unwrap(), 1));
    assert_eq!(numbers(&mut rig)[&0].len(), 25);
    assert_eq!(rig.net.stale(), 0);
}

fn a_socket_that_was_seen_meanwhile_loses_nothing(make: Make<'_>) {
    let mut rig = Rig::new(make);
    let (socket, _) = rig.peer();
    rig.rest();
    let away = rig.net.now();
    rig.net.set_lookout(away - Duration::from_secs(3_600), Duration::from_secs(1_800));
    // It is newer than the last look at all of them.
    let port = rig.open(0);
    (0..25).for_each(|number| assert_eq!(socket.send_to(&[number], port).unwrap(), 1));
    assert_eq!(numbers(&mut rig)[&0].len(), 25);
    assert_eq!(rig.net.stale(), 0);
}

fn a_driver_can_end_in_the_middle_of_everything(make: Make<'_>) {
    for _ in 0..10 {
        let mut rig = Rig::new(make);
        let (socket, there) = rig.peer();
        let ports: Vec<_> = (0..100).map(|token| rig.open(token)).collect();
        rig.rest();
        for (token, port) in ports.iter().enumerate() {
            socket.send_to(b"unread", port).unwrap();
            rig.net.send(token, there, b"unsent");
            if token % 3 == 0 {
                rig.net.close(token);
            }
        }
        drop(rig);
        let mut rig = Rig::new(make);
        // Its ports are free: no socket outlived it.
        assert!(ports.iter().enumerate().all(|(token, port)| rig.net.open(token, *port)));
    }
}

#[test]
fn a_refusal_says_why() {
    let refusal = |errno: i32| Refusal::of(&io::Error::from_raw_os_error(errno));
    assert_eq!(refusal(libc::EPERM), Refusal::Forbidden);
    assert_eq!(refusal(libc::EACCES), Refusal::Forbidden);
    assert_eq!(refusal(libc::ENOSYS), Refusal::Missing);
    assert_eq!(refusal(libc::ENOMEM), Refusal::Memory);
    assert_eq!(refusal(libc::EINVAL), Refusal::TooOld);
    assert_eq!(refusal(libc::EIO), Refusal::Failed);
}
