//! Both back ends against each other, in both roles, over a network that loses and confuses.

use std::time::Duration;

use base::{Instant, SeededRandom, SessionId, WallTime};
use media::{DtlsBackend, DtlsRole, Fingerprint};
use rtp::sdes::Suite;
use tokio::sync::mpsc;

use super::{Association, Backends, Failure, Identities, Identity, Keys, Output, Setup, Wake};
use crate::srtp::{OVERHEAD, Receiver, Sender};

pub(super) const BACKENDS: [DtlsBackend; 2] = [DtlsBackend::Dimpl, DtlsBackend::WebrtcDtls];
const GOOD: [Suite; 3] = [Suite::AeadAes256Gcm, Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80];
const STEP: Duration = Duration::from_millis(5);

/// Runs a story on a clock that jumps over waits.
pub(super) fn story<T>(story: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap().block_on(story)
}

pub(super) fn identity(seed: u64) -> Identity {
    let wall = WallTime::from_unix_millis(1_795_392_000_000);
    Identity::generate(&mut SeededRandom::new(seed), wall).unwrap()
}

/// What a thread of handshakes keeps; nothing comes of it for a day.
pub(crate) fn identities() -> Identities {
    let wall = WallTime::from_unix_millis(1_795_392_000_000);
    Identities::new(&mut SeededRandom::new(3), crate::driver::now(), wall).unwrap()
}

/// A clock that follows the runtime's.
#[derive(Clone, Copy)]
pub(super) struct Clock(tokio::time::Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(super) fn now(self) -> Instant {
        Instant::ZERO + Duration::from_secs(1) + self.0.elapsed()
    }
}

/// One end.
pub(super) struct End {
    pub(super) association: Association,
    pub(super) keys: Option<Keys>,
    pub(super) failure: Option<Failure>,
    pub(super) is_closed: bool,
    _woken: mpsc::Receiver<SessionId>,
}

impl End {
    pub(super) fn new(clock: Clock, setup: Setup) -> Self {
        let (queue, woken) = mpsc::channel(1_000);
        let wake = Wake { queue, session: SessionId::new(1, 0) };
        let association = Backends::new().unwrap().begin(clock.now(), setup, wake).unwrap();
        Self { association, keys: None, failure: None, is_closed: false, _woken: woken }
    }

    /// Lets time pass and takes what there is to send.
    pub(super) fn run(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.association.poll_timeout().is_some_and(|at| at <= now) || !self.is_over() {
            self.association.handle_timeout(now);
        }
        let mut datagrams = Vec::new();
        while let Some(output) = self.association.poll_output() {
            match output {
                Output::Datagram(datagram) => datagrams.push(datagram),
                Output::Keys(keys) => assert!(self.keys.replace(keys).is_none()),
                Output::Failed(failure) => self.failure = Some(failure),
                Output::Closed => self.is_closed = true,
            }
        }
        datagrams
    }

    pub(super) fn is_over(&self) -> bool {
        self.failure.is_some() || self.is_closed
    }

    fn is_settled(&self) -> bool {
        self.keys.is_some() || self.is_over()
    }
}

pub(super) fn setup(
    backend: DtlsBackend,
    role: DtlsRole,
    identity: &Identity,
    peer: &Fingerprint,
) -> Setup {
    Setup {
        backend,
        role,
        identity: identity.clone(),
        fingerprint: peer.clone(),
        suites: GOOD.to_vec(),
        has_cookie: false,
        has_13: false,
    }
}

/// What the network does with a datagram.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Arrives,
    Lost,
    Twice,
}

/// A client, a server, and what lies between.
struct World {
    clock: Clock,
    ends: [End; 2],
    /// Datagrams sent so far, both ways.
    sent: usize,
    is_reversing: bool,
}

impl World {
    fn new(pair: Pair, change: impl Fn(&mut Setup)) -> Self {
        let clock = Clock::start();
        let (ours, theirs) = (identity(1), identity(2));
        let Pair { client, server, has_13 } = pair;
        let mut client = setup(client, DtlsRole::Active, &ours, theirs.fingerprint());
        let mut server = setup(server, DtlsRole::Passive, &theirs, ours.fingerprint());
        (client.has_13, server.has_13) = (has_13, has_13);
        change(&mut client);
        change(&mut server);
        let ends = [End::new(clock, client), End::new(clock, server)];
        Self { clock, ends, sent: 0, is_reversing: false }
    }

    /// Runs until both ends have keys or are over, or `within` has passed.
    async fn run(&mut self, within: Duration, mut fate: impl FnMut(usize) -> Fate) {
        let until = self.clock.now() + within;
        while self.clock.now() < until && !self.ends.iter().all(End::is_settled) {
            self.step(&mut fate).await;
        }
        for _ in 0..3 {
            self.step(&mut fate).await;
        }
    }

    async fn step(&mut self, fate: &mut impl FnMut(usize) -> Fate) {
        // The runtime's tasks run until all wait; then the clock jumps.
        tokio::time::sleep(STEP).await;
        let now = self.clock.now();
        for from in 0..2 {
            let mut flight = self.ends[from].run(now);
            assert!(flight.iter().all(|it| it.len() <= 1_200), "larger than dtls.datagram_bytes");
            if self.is_reversing {
                flight.reverse();
            }
            for datagram in flight {
                let times = match fate(self.sent) {
                    Fate::Lost => 0,
                    Fate::Arrives => 1,
                    Fate::Twice => 2,
                };
                self.sent += 1;
                for _ in 0..times {
                    self.ends[1 - from].association.handle_datagram(now, &datagram);
                }
            }
        }
    }

    /// Both have the same keys, and SRTP passes both ways under them.
    fn check_keys(&self, story: &str) -> Suite {
        let keys = |at: usize| {
            let end = &self.ends[at];
            end.keys.as_ref().unwrap_or_else(|| panic!("{story}: {at} {:?}", end.failure))
        };
        let (client, server) = (keys(0), keys(1));
        assert_eq!(client.suite, server.suite, "{story}");
        assert_eq!(client.send, server.receive, "{story}");
        assert_eq!(client.receive, server.send, "{story}");
        assert_ne!(client.send, client.receive, "{story}");
        for (from, to) in [(client, server), (server, client)] {
            let mut sender = Sender::new(from.suite, &from.send).unwrap();
            let mut receiver = Receiver::new(to.suite, &to.receive).unwrap();
            let mut packet = [&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7][..], &[0x55; 160]].concat();
            let length = packet.len();
            packet.resize(length + OVERHEAD, 0);
            let length = sender.protect_rtp(&mut packet, length).unwrap();
            let read = receiver.unprotect_rtp(&mut packet[..length]).unwrap();
            assert_eq!(packet[12..read.length], [0x55; 160]);
        }
        client.suite
    }
}

const LONG: Duration = Duration::from_secs(20);

/// Who talks with whom.
#[derive(Clone, Copy, Debug)]
struct Pair {
    client: DtlsBackend,
    server: DtlsBackend,
    /// Whether both may speak DTLS 1.3.
    has_13: bool,
}

const WITH_13: Pair = Pair { client: DtlsBackend::Dimpl, server: DtlsBackend::Dimpl, has_13: true };

fn pairs() -> impl Iterator<Item = Pair> {
    let of_12 = |client| BACKENDS.map(|server| Pair { client, server, has_13: false });
    BACKENDS.into_iter().flat_map(of_12).chain([WITH_13])
}

#[test]
fn each_pair_of_back_ends_agrees_on_keys_and_srtp_passes() {
    for pair in pairs() {
        for has_cookie in [false, true] {
            story(async {
                let mut world = World::new(pair, |it| it.has_cookie = has_cookie);
                world.run(LONG, |_| Fate::Arrives).await;
                let story = format!("{pair:?} {has_cookie}");
                assert_eq!(world.check_keys(&story), Suite::AeadAes256Gcm);
                assert!(world.sent <= 8, "{story}: {} datagrams", world.sent);
            });
        }
    }
}

#[test]
fn each_single_datagram_may_be_lost() {
    for pair in pairs() {
        for has_cookie in [false, true] {
            for lost in 0..8 {
                story(async {
                    let mut world = World::new(pair, |it| it.has_cookie = has_cookie);
                    let fate = |at| if at == lost { Fate::Lost } else { Fate::Arrives };
                    world.run(LONG, fate).await;
                    world.check_keys(&format!("{pair:?} {has_cookie} lost {lost}"));
                });
            }
        }
    }
}

#[test]
fn duplicates_and_reordered_flights_do_no_harm() {
    for pair in pairs() {
        for is_reversing in [false, true] {
            story(async {
                let mut world = World::new(pair, |it| it.has_cookie = true);
                world.is_reversing = is_reversing;
                world.run(LONG, |_| Fate::Twice).await;
                world.check_keys(&format!("{pair:?} reversed {is_reversing}"));
            });
        }
    }
}

#[test]
fn a_network_that_loses_every_third_datagram_is_enough() {
    for pair in pairs() {
        for phase in 0..3 {
            story(async {
                let mut world = World::new(pair, |_| {});
                let fate = |at| if at % 3 == phase { Fate::Lost } else { Fate::Arrives };
                world.run(LONG, fate).await;
                world.check_keys(&format!("{pair:?} phase {phase}"));
            });
        }
    }
}

#[test]
fn nobody_gets_keys_under_a_foreign_certificate() {
    for pair in pairs() {
        for deceived in [DtlsRole::Active, DtlsRole::Passive] {
            story(async {
                let stranger = identity(3).fingerprint().clone();
                let mut world = World::new(pair, |it| {
                    if it.role == deceived {
                        it.fingerprint = stranger.clone();
                    }
                });
                world.run(LONG, |_| Fate::Arrives).await;
                let at = usize::from(deceived == DtlsRole::Passive);
                let story = format!("{pair:?} {deceived:?}");
                assert_eq!(world.ends[at].failure, Some(Failure::Fingerprint), "{story}");
                assert_eq!(world.ends[at].keys, None, "{story}");
                // The deceiver is told at once, unless it was done already: the server speaks
                // last.
                let other = &world.ends[1 - at];
                let is_told = other.failure == Some(Failure::Alert(42)) || other.is_closed;
                assert!(is_told || other.keys.is_some(), "{story}: {:?}", other.failure);
                // A client of DTLS 1.3 is done first; it is told under its keys.
                let is_done = pair.has_13 && other.is_closed;
                let is_innocent = deceived == DtlsRole::Active || other.keys.is_none();
                assert!(is_innocent || is_done, "{story}");
            });
        }
    }
}

#[test]
fn the_best_common_profile_is_chosen_and_no_other() {
    let cm = Suite::AesCm128HmacSha1_80;
    let cases: [(&[Suite], &[Suite], Option<Suite>); 5] = [
        (&[cm, Suite::AeadAes128Gcm], &GOOD, Some(Suite::AeadAes128Gcm)),
        (&[cm], &GOOD, Some(cm)),
        (&GOOD, &GOOD[..2], Some(Suite::AeadAes256Gcm)),
        (&[cm], &GOOD[..2], None),
        (&[Suite::AesCm128HmacSha1_32], &GOOD, None),
    ];
    // dimpl as client offers all three, whatever is allowed.
    for server in BACKENDS {
        for (offered, allowed, expected) in cases {
            story(async {
                let client = DtlsBackend::WebrtcDtls;
                let pair = Pair { client, server, has_13: true };
                let mut world = World::new(pair, |it| {
                    let is_client = it.role == DtlsRole::Active;
                    it.suites = if is_client { offered.to_vec() } else { allowed.to_vec() };
                });
                world.run(LONG, |_| Fate::Arrives).await;
                let story = format!("{server:?} {offered:?} {allowed:?}");
                if expected.is_some() {
                    assert_eq!(Some(world.check_keys(&story)), expected, "{story}");
                } else {
                    assert_eq!(world.ends[1].failure, Some(Failure::Profile), "{story}");
                    assert!(world.ends.iter().all(|it| it.keys.is_none()), "{story}");
                }
            });
        }
    }
}

#[test]
fn a_profile_that_is_not_allowed_gives_no_keys() {
    for pair in pairs() {
        story(async {
            let mut world = World::new(pair, |it| {
                if it.role == DtlsRole::Active {
                    it.suites = vec![Suite::AesCm128HmacSha1_80];
                }
            });
            world.run(LONG, |_| Fate::Arrives).await;
            let keys = world.ends[0].keys.as_ref();
            assert!(keys.is_none_or(|it| it.suite == Suite::AesCm128HmacSha1_80));
            let is_dimpl = pair.client == DtlsBackend::Dimpl;
            assert_eq!(world.ends[0].failure, is_dimpl.then_some(Failure::Profile));
        });
    }
}

#[test]
fn a_silent_peer_is_given_up_in_time() {
    for pair in pairs() {
        story(async {
            let mut world = World::new(pair, |_| {});
            world.run(LONG, |_| Fate::Lost).await;
            for end in &world.ends {
                assert_eq!(end.failure, Some(Failure::Timeout));
            }
            let took = world.clock.now().since(Instant::ZERO);
            assert!(took < Duration::from_millis(11_200), "{took:?}");
            assert!((2..40).contains(&world.sent), "{} datagrams", world.sent);
        });
    }
}

#[test]
fn a_goodbye_is_heard_and_is_all_that_is_heard() {
    for pair in pairs() {
        for leaving in 0..2 {
            story(async {
                let mut world = World::new(pair, |_| {});
                world.run(LONG, |_| Fate::Arrives).await;
                world.check_keys("before the goodbye");
                world.ends[leaving].association.close(world.clock.now());
                for _ in 0..4 {
                    world.step(&mut |_| Fate::Arrives).await;
                }
                let story = format!("{pair:?} {leaving}");
                assert!(world.ends.iter().all(|it| it.is_closed), "{story}");
                assert!(world.ends.iter().all(|it| it.failure.is_none()), "{story}");
            });
        }
    }
}

#[test]
fn dtls_1_3_is_spoken_where_the_switch_says_so_and_1_2_where_only_one_end_can() {
    for (client_13, server_13) in [(true, true), (true, false), (false, true)] {
        for has_cookie in [false, true] {
            story(async {
                let mut world = World::new(WITH_13, |it| {
                    let is_client = it.role == DtlsRole::Active;
                    it.has_13 = if is_client { client_13 } else { server_13 };
                    it.has_cookie = has_cookie;
                });
                world.run(LONG, |_| Fate::Arrives).await;
                world.check_keys(&format!("{client_13} {server_13} {has_cookie}"));
                let is_13 = world.ends.each_ref().map(|it| it.association.is_13());
                assert_eq!(is_13, [client_13 && server_13; 2]);
            });
        }
    }
}
