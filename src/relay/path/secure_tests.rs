//! Stories of a browser's leg on a manual clock: it checks, shakes hands, speaks, moves and lies.

use audio::Codec;
use base::{CallId, LegId, Random, limit};
use media::{
    Direction, DtlsRole, Fingerprint, FingerprintHash, Format, Handshake, Purpose, SourceIdentity,
};
use rtp::ice::Credentials;
use rtp::sdes::Suite;

use super::browser::{Browser, begin, identity};
use super::*;
use crate::dtls::{Association, Failure, Keys, News, Output};

const MS: Duration = Duration::from_millis(1);

/// What the session acts on: the network, and a handshake without a thread.
#[derive(Default)]
struct World {
    now: Instant,
    sent: Vec<(Port, SocketAddr, Vec<u8>)>,
    events: Vec<MediaEvent>,
    tally: Tally,
    connected: Vec<SocketAddr>,
    ours: Option<(u32, Association)>,
    begun: usize,
    is_full: bool,
    is_silent: bool,
}

impl Driver for World {
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool {
        self.sent.push((port, to, datagram.to_vec()));
        true
    }
    fn event(&mut self, event: MediaEvent) {
        self.events.push(event);
    }
    fn connect(&mut self, _: Port, source: SocketAddr) {
        self.connected.push(source);
    }
    fn handshake(&mut self, number: u32, ask: Ask<'_>) -> bool {
        if self.is_full {
            return false;
        }
        match (ask, &mut self.ours) {
            (Ask::Begin(setup), ours) => {
                *ours = Some((number, begin(self.now, *setup)));
                self.begun += 1;
            }
            (Ask::Datagram(bytes), Some((known, association))) => {
                assert_eq!(*known, number);
                association.handle_datagram(self.now, bytes);
            }
            (Ask::Datagram(_), None) => {}
            (Ask::End, ours) => *ours = None,
        }
        true
    }
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
    fn pass(&mut self, passing: Passing, _: &[u8]) {
        panic!("a voice agent's leg hands nothing on: {passing:?}");
    }
}

struct Rig {
    now: Instant,
    session: Session,
    world: World,
    browser: Browser,
    identity: Identity,
    plan: LegPlan,
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4000))
}

fn plan(browser: &Browser) -> LegPlan {
    let mut random = SeededRandom::new(5);
    let pcmu =
        Format { codec: Codec::Pcmu, payload_type: 0, packet_ms: 20, dtx: false, bitrate: 0 };
    LegPlan {
        leg: LegId { call: CallId::random(&mut random), index: 0 },
        remote: SocketAddr::from(([0, 0, 0, 0], 9)),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Dtls(Box::new(browser.handshake())),
        send: Some(pcmu),
        accept: vec![pcmu],
        opaque: Vec::new(),
        sendable: vec![],
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(&mut random),
        purpose: Purpose::Agent { barge_in: None },
    }
}

impl Rig {
    fn new() -> Self {
        let now = Instant::from_nanos(7_000_000_000);
        let identity = identity(9);
        let browser = Browser::new(1, address(1));
        let session = Session::new(now, WallTime::default(), 3, false);
        Self {
            now,
            session: session.with_identity(Some(identity.clone())),
            world: World { now, ..World::default() },
            plan: plan(&browser),
            browser,
            identity,
        }
    }

    fn apply(&mut self) {
        self.session.apply(self.now, self.plan.clone(), None, &mut self.world).unwrap();
    }

    /// The plan names the browser as it is now.
    fn replan(&mut self) {
        self.plan.protection = Protection::Dtls(Box::new(self.browser.handshake()));
        self.apply();
    }

    fn deliver_from(&mut self, source: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        self.session.on_datagram(self.now, Port::Rtp, source, &mut datagram, &mut self.world);
    }

    fn deliver(&mut self, datagrams: Vec<Vec<u8>>) {
        for datagram in datagrams {
            self.deliver_from(self.browser.address, &datagram);
        }
    }

    fn check(&mut self, nominates: bool) {
        let check = self.browser.check(nominates);
        self.deliver(vec![check]);
    }

    /// The browser begins its part of the handshake.
    fn shake(&mut self, role: DtlsRole) {
        let hello = self.browser.shake(self.now, role, self.identity.fingerprint());
        self.deliver(hello);
    }

    /// All that was sent arrives, and what answers it, until nobody says any more.
    fn settle(&mut self) {
        loop {
            let mut is_quiet = true;
            while let Some((number, output)) = self.output() {
                is_quiet = false;
                let news = match output {
                    Output::Datagram(bytes) => News::Datagram(bytes),
                    Output::Keys(keys) => News::Keys(keys),
                    Output::Failed(failure) => News::Failed(failure),
                    Output::Closed => News::Closed,
                };
                self.session.on_handshake(self.now, number, news, &mut self.world).unwrap();
            }
            for (_, to, datagram) in std::mem::take(&mut self.world.sent) {
                is_quiet = false;
                if to == self.browser.address {
                    let answers = self.browser.hear(self.now, &datagram);
                    self.deliver(answers);
                }
            }
            if is_quiet {
                return;
            }
        }
    }

    fn output(&mut self) -> Option<(u32, Output)> {
        let (number, association) = self.world.ours.as_mut().filter(|_| !self.world.is_silent)?;
        Some((*number, association.poll_output()?))
    }

    /// Time passes, timers run when they are due.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.session.poll_timeout().filter(|due| *due <= until) {
            self.now = due.max(self.now);
            self.world.now = self.now;
            self.session.tick(self.now, &mut self.world);
            self.settle();
        }
        (self.now, self.world.now) = (until, until);
    }

    /// A call that is secured.
    fn secured() -> Self {
        let mut rig = Self::new();
        rig.apply();
        rig.check(true);
        rig.shake(DtlsRole::Active);
        rig.settle();
        assert!(rig.suite().is_some());
        rig
    }

    fn suite(&self) -> Option<Suite> {
        self.world.events.iter().rev().find_map(|event| match event {
            MediaEvent::Secured { suite } => Some(*suite),
            _ => None,
        })
    }

    fn count(&self, wanted: &MediaEvent) -> usize {
        self.world.events.iter().filter(|event| *event == wanted).count()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        self.world.tally.dropped(reason)
    }

    fn believed(&self) -> u64 {
        self.world.tally.total(Meter::Believed)
    }

    /// The browser says something; whether it was believed.
    fn is_heard(&mut self) -> bool {
        let (before, voice) = (self.believed(), self.browser.voice());
        self.deliver(vec![voice]);
        self.believed() > before
    }

    /// Whether the browser hears us within 100 ms.
    fn hears(&mut self) -> bool {
        let before = self.browser.heard.len();
        self.pass(100 * MS);
        self.browser.heard.len() >= before + 4
    }
}

#[test]
fn a_browser_checks_shakes_hands_and_talks_with_the_agent_who_has_waited_for_it() {
    let mut rig = Rig::new();
    rig.apply();
    rig.session.play(1, Arc::from(vec![8_000_i16; 16_000]), true, &mut rig.world);
    rig.pass(3_000 * MS);
    assert!(rig.world.sent.is_empty() && rig.world.events.is_empty());
    rig.check(false);
    rig.settle();
    assert_eq!(rig.browser.mapped, [rig.browser.address]);
    let latched = MediaEvent::Latched { source: address(1), moved: false };
    assert_eq!(rig.world.events, [latched]);
    rig.shake(DtlsRole::Active);
    rig.settle();
    let keys = rig.browser.keys.clone().unwrap();
    assert_eq!(rig.suite(), Some(keys.suite));
    rig.pass(1_200 * MS);
    let spoken = |heard: &&Vec<u8>| heard.iter().any(|it| *it != 0xff);
    let frames = rig.browser.heard.iter().filter(spoken).count();
    assert!((50..=51).contains(&frames), "the whole second: {frames}");
    let finished = MediaEvent::PlayoutFinished { speech: 1, position: 0 };
    let is_finished =
        |it: &&MediaEvent| std::mem::discriminant(*it) == std::mem::discriminant(&finished);
    assert_eq!(rig.world.events.iter().filter(is_finished).count(), 1);
    assert!(rig.is_heard());
    assert_eq!(rig.world.connected, [address(1)]);
}

#[test]
fn the_edge_begins_the_handshake_where_the_browser_waits_for_it() {
    let mut rig = Rig::new();
    let handshake = Handshake { role: DtlsRole::Active, ..rig.browser.handshake() };
    rig.plan.protection = Protection::Dtls(Box::new(handshake));
    rig.apply();
    rig.browser.shake(rig.now, DtlsRole::Passive, rig.identity.fingerprint());
    rig.check(true);
    rig.settle();
    assert!(rig.suite().is_some() && rig.is_heard() && rig.hears());
}

#[test]
fn wrong_credentials_and_forged_stun_are_met_with_silence() {
    let mut rig = Rig::new();
    rig.apply();
    let right = rig.browser.remote.clone();
    let wrong = super::browser::credentials(55);
    for remote in [
        Credentials { pwd: wrong.pwd.clone(), ..right.clone() },
        Credentials { ufrag: wrong.ufrag, ..right.clone() },
    ] {
        rig.browser.remote = remote;
        rig.check(true);
    }
    rig.browser.remote = right;
    let mut bent = rig.browser.check(true);
    bent[30] ^= 1;
    rig.deliver(vec![bent]);
    let mut cut = rig.browser.check(true);
    cut.truncate(40);
    rig.deliver(vec![cut]);
    assert!(rig.world.sent.is_empty() && rig.world.events.is_empty());
    assert_eq!(rig.dropped(DropReason::Forged) + rig.dropped(DropReason::NotCheck), 4);
    assert_eq!(rig.world.begun, 0);
}

#[test]
fn a_flood_of_checks_is_bounded_and_takes_nothing_from_the_peer() {
    let mut rig = Rig::secured();
    let (most, right) = (limit::ICE_CHECKS_PER_SESSION.value, rig.browser.remote.clone());
    rig.now += Duration::from_millis(100);
    rig.browser.remote.pwd = super::browser::credentials(55).pwd;
    for last in 0..most as u8 + 20 {
        let forged = rig.browser.check(true);
        rig.deliver_from(address(last.max(2)), &forged);
    }
    rig.browser.remote = right;
    assert_eq!((rig.dropped(DropReason::Forged), rig.dropped(DropReason::CheckFlood)), (most, 20));
    rig.check(true);
    assert_eq!(rig.world.sent.len(), 1, "the peer's own is answered");
    // From where it was never heard it waits for its turn among the strangers.
    let check = rig.browser.check(false);
    rig.deliver_from(address(250), &check);
    assert_eq!((rig.world.sent.len(), rig.dropped(DropReason::CheckFlood)), (1, 21));
    rig.now += Duration::from_millis(100);
    rig.deliver_from(address(250), &check);
    assert_eq!(rig.world.sent.len(), 2);
    // Where it was heard is bounded, too.
    for _ in 0..2 * most {
        rig.check(false);
    }
    assert_eq!(rig.dropped(DropReason::CheckFlood), 21 + most);
}

#[test]
fn strangers_are_not_heard_before_or_after_the_keys() {
    let mut rig = Rig::new();
    rig.apply();
    let hello = rig.browser.shake(rig.now, DtlsRole::Active, rig.identity.fingerprint());
    let rtp = [&[0x80, 0][..], &[0; 170]].concat();
    rig.deliver(hello.clone());
    rig.deliver(vec![rtp.clone()]);
    assert_eq!((rig.dropped(DropReason::Unchecked), rig.world.begun), (2, 0));
    rig = Rig::secured();
    let voice = rig.browser.voice();
    for stranger in [&voice, &hello[0], &rtp] {
        rig.deliver_from(address(66), stranger);
    }
    assert_eq!(rig.dropped(DropReason::Unchecked), 3, "authentic or not");
    rig.deliver(vec![rtp]);
    assert_eq!(rig.dropped(DropReason::NotAuthentic), 1);
    assert_eq!(rig.world.events.len(), 2);
    assert!(rig.is_heard() && rig.hears());
}

#[test]
fn what_is_said_before_our_keys_are_there_is_heard_with_them() {
    let mut rig = Rig::new();
    rig.apply();
    rig.check(true);
    rig.shake(DtlsRole::Active);
    // Both have their keys, but we have not heard of ours yet.
    let mut held = None;
    while held.is_none() {
        while let Some((number, output)) = rig.output() {
            match output {
                Output::Keys(keys) => held = Some((number, keys)),
                Output::Datagram(bytes) => {
                    let news = News::Datagram(bytes);
                    rig.session.on_handshake(rig.now, number, news, &mut rig.world).unwrap();
                }
                other => panic!("{other:?}"),
            }
        }
        for (_, _, datagram) in std::mem::take(&mut rig.world.sent) {
            let answers = rig.browser.hear(rig.now, &datagram);
            rig.deliver(answers);
        }
    }
    let most = limit::RELAY_EARLY_PACKETS.value;
    for _ in 0..most + 5 {
        let voice = rig.browser.voice();
        rig.deliver(vec![voice]);
    }
    let stranger = rig.browser.voice();
    rig.deliver_from(address(66), &stranger);
    assert_eq!((rig.dropped(DropReason::Early), rig.dropped(DropReason::Unchecked)), (5, 1));
    let (number, keys) = held.unwrap();
    rig.session.on_handshake(rig.now, number, News::Keys(keys), &mut rig.world).unwrap();
    assert_eq!((rig.believed(), rig.world.tally.total(Meter::Waited)), (most, most));
    assert!(rig.is_heard());
}

#[test]
fn a_certificate_that_the_fingerprint_does_not_name_gives_no_keys() {
    let mut rig = Rig::new();
    let handshake = rig.browser.handshake();
    let peer = Fingerprint::new(FingerprintHash::Sha256, vec![7; 32]).unwrap();
    rig.plan.protection = Protection::Dtls(Box::new(Handshake { peer, ..handshake }));
    rig.apply();
    rig.check(true);
    rig.shake(DtlsRole::Active);
    rig.settle();
    assert_eq!(rig.count(&MediaEvent::Unsecured { code: "dtls.fingerprint" }), 1);
    assert_eq!((rig.suite(), rig.believed()), (None, 0));
    let hello = rig.browser.shake(rig.now, DtlsRole::Active, rig.identity.fingerprint());
    rig.deliver(hello);
    assert_eq!(rig.world.begun, 1, "it is not tried again");
    assert!(rig.dropped(DropReason::Unexpected) > 0);
}

#[test]
fn a_browser_that_never_checks_is_lost_once_and_may_still_come() {
    let mut rig = Rig::new();
    rig.apply();
    rig.pass(limit::ICE_FIRST_CHECK_MS.millis() - MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 0);
    rig.pass(100_000 * MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 1);
    rig.check(true);
    rig.shake(DtlsRole::Active);
    rig.settle();
    assert!(rig.suite().is_some());
}

#[test]
fn consent_ends_thirty_seconds_after_the_last_check() {
    let mut rig = Rig::secured();
    for _ in 0..20 {
        rig.pass(10_000 * MS);
        rig.check(false);
    }
    rig.pass(29_000 * MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 0);
    rig.pass(1_000 * MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 1);
    rig.pass(100_000 * MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 1);
    rig.check(false);
    rig.pass(31_000 * MS);
    assert_eq!(rig.count(&MediaEvent::PathLost), 2, "it had come back");
}

#[test]
fn a_browser_that_changes_its_address_is_followed_when_it_nominates_the_new_one() {
    let mut rig = Rig::secured();
    rig.browser.address = address(2);
    rig.pass(2_000 * MS);
    rig.check(false);
    assert!(rig.is_heard(), "from where it was proved");
    assert!(!rig.hears(), "it is not asked for there yet");
    rig.check(true);
    let moved = MediaEvent::Latched { source: address(2), moved: true };
    assert_eq!(rig.count(&moved), 1);
    assert!(rig.is_heard() && rig.hears());
    assert_eq!(
        (rig.world.begun, rig.world.connected.as_slice()),
        (1, &[address(1), address(2)][..])
    );
}

#[test]
fn a_restart_of_ice_keeps_the_keys_and_the_sound() {
    let mut rig = Rig::secured();
    rig.browser.restart(40).unwrap();
    rig.replan();
    assert!(rig.is_heard() && rig.hears(), "where it went before");
    rig.browser.address = address(3);
    rig.check(true);
    assert_eq!(rig.count(&MediaEvent::Latched { source: address(3), moved: true }), 1);
    assert!(rig.is_heard() && rig.hears());
    assert_eq!(rig.world.begun, 1);
}

#[test]
fn hold_and_what_follows_keep_the_keys() {
    let mut rig = Rig::secured();
    rig.plan.direction = Direction { send: false, receive: false };
    rig.apply();
    assert!(!rig.hears());
    rig.plan.direction = Direction::BOTH;
    rig.apply();
    assert!(rig.is_heard() && rig.hears());
    assert_eq!((rig.world.begun, rig.world.events.len() > 1), (1, true));
    let secured = |it: &&MediaEvent| matches!(it, MediaEvent::Secured { .. });
    assert_eq!(rig.world.events.iter().filter(secured).count(), 1);
}

#[test]
fn the_latest_plan_is_the_one_that_is_followed_with_the_keys() {
    let mut rig = Rig::new();
    rig.apply();
    rig.plan.direction = Direction { send: false, receive: true };
    rig.apply();
    rig.check(true);
    rig.shake(DtlsRole::Active);
    rig.settle();
    assert!(rig.is_heard() && !rig.hears());
}

#[test]
fn another_browser_in_its_place_shakes_hands_anew_while_the_old_keys_go_on() {
    let mut rig = Rig::secured();
    let mut other = Browser::new(30, address(5));
    other.remote = super::browser::credentials(31);
    rig.plan.protection = Protection::Dtls(Box::new(other.handshake()));
    rig.apply();
    assert!(rig.is_heard() && rig.hears());
    assert_eq!(rig.world.begun, 1, "not before the other one has checked");
    rig.browser = other;
    rig.check(true);
    rig.shake(DtlsRole::Active);
    rig.settle();
    assert!(rig.browser.keys.is_some());
    assert_eq!(rig.world.begun, 2);
    assert!(rig.is_heard() && rig.hears());
}

#[test]
fn another_role_is_another_handshake() {
    let mut rig = Rig::secured();
    let handshake = Handshake { role: DtlsRole::Active, ..rig.browser.handshake() };
    rig.plan.protection = Protection::Dtls(Box::new(handshake));
    rig.browser.shake(rig.now, DtlsRole::Passive, rig.identity.fingerprint());
    let former = rig.browser.keys.take();
    rig.apply();
    rig.settle();
    assert!(rig.browser.keys.is_some() && rig.browser.keys != former);
    assert!(rig.is_heard() && rig.hears());
}

#[test]
fn late_news_of_a_former_handshake_are_nobodys() {
    let mut rig = Rig::secured();
    let handshake = Handshake { role: DtlsRole::Active, ..rig.browser.handshake() };
    rig.plan.protection = Protection::Dtls(Box::new(handshake));
    rig.apply();
    let keys: Keys = rig.browser.keys.clone().unwrap();
    for news in [News::Failed(Failure::Timeout), News::Keys(keys), News::Closed] {
        rig.session.on_handshake(rig.now, 1, news, &mut rig.world).unwrap();
    }
    let secured =
        |it: &&MediaEvent| matches!(it, MediaEvent::Secured { .. } | MediaEvent::Unsecured { .. });
    assert_eq!(rig.world.events.iter().filter(secured).count(), 1);
    assert!(rig.is_heard());
}

#[test]
fn a_goodbye_of_dtls_is_not_the_end_of_the_call() {
    let mut rig = Rig::secured();
    rig.session.on_handshake(rig.now, 1, News::Closed, &mut rig.world).unwrap();
    assert!(rig.is_heard() && rig.hears());
}

#[test]
fn a_flood_of_dtls_at_one_port_is_bounded() {
    let mut rig = Rig::new();
    rig.apply();
    rig.check(true);
    let flood = [22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..1_000 {
        rig.deliver(vec![flood.to_vec()]);
    }
    assert_eq!(rig.dropped(DropReason::Flood), 1_000 - limit::RELAY_DTLS_DATAGRAMS.value);
    // The guard has had enough of it, too, but the next tenth of a second is taken.
    rig.pass(100 * MS);
    let before = rig.dropped(DropReason::Flood);
    rig.deliver(vec![flood.to_vec()]);
    assert_eq!(rig.dropped(DropReason::Flood), before);
}

#[test]
fn a_handshake_that_finds_no_room_is_begun_again() {
    let mut rig = Rig::new();
    rig.apply();
    rig.world.is_full = true;
    rig.check(true);
    rig.pass(1_000 * MS);
    assert_eq!(rig.world.begun, 0);
    rig.world.is_full = false;
    rig.pass(100 * MS);
    assert_eq!(rig.world.begun, 1);
    rig.shake(DtlsRole::Active);
    rig.settle();
    assert!(rig.is_heard());
}

#[test]
fn a_thread_that_never_has_room_or_never_answers_ends_the_wait() {
    let mut rig = Rig::new();
    rig.apply();
    rig.world.is_full = true;
    for _ in 0..10 {
        rig.check(true);
        rig.pass(5_000 * MS);
    }
    assert_eq!(rig.count(&MediaEvent::Unsecured { code: "dtls.full" }), 1);
    rig = Rig::new();
    rig.apply();
    rig.world.is_silent = true;
    rig.check(true);
    rig.pass(limit::DTLS_HANDSHAKE_MS.millis() + 3_000 * MS);
    assert_eq!(rig.count(&MediaEvent::Unsecured { code: "dtls.timeout" }), 1);
    assert_eq!(rig.count(&MediaEvent::PathLost), 0);
}

#[test]
fn a_telephone_that_rang_before_the_keys_is_heard_with_them() {
    let mut rig = Rig::new();
    rig.apply();
    rig.session.ring(rig.now, true);
    rig.check(true);
    rig.shake(DtlsRole::Active);
    rig.settle();
    rig.pass(500 * MS);
    assert!(rig.browser.heard.iter().flatten().any(|it| *it != 0xff));
}

#[test]
fn a_plan_without_a_handshake_ends_it_and_learns_the_source_again() {
    let mut rig = Rig::secured();
    rig.plan.protection = Protection::Plain { from: vec!["192.0.2.0/24".parse().unwrap()] };
    rig.apply();
    assert!(rig.world.ours.is_none());
    rig.deliver_from(address(8), &[&[0x80, 0][..], &[0; 170]].concat());
    assert_eq!(rig.count(&MediaEvent::Latched { source: address(8), moved: false }), 1);
    let check = rig.browser.check(true);
    rig.deliver_from(address(1), &check);
    assert_eq!(rig.dropped(DropReason::NotMedia), 1);
}

#[test]
fn a_browser_whose_only_connection_broke_has_moved_when_it_comes_back() {
    let mut rig = Rig::new();
    rig.apply();
    let check = rig.browser.check(true);
    let mut datagram = check.clone();
    let port = Port::Stream(3);
    rig.session.on_datagram(rig.now, port, address(9), &mut datagram, &mut rig.world);
    assert_eq!(rig.count(&MediaEvent::Latched { source: address(9), moved: false }), 1);
    rig.session.close_stream(3, &mut rig.world);
    rig.deliver_from(address(2), &check);
    assert_eq!(rig.count(&MediaEvent::Latched { source: address(2), moved: true }), 1);
}

#[test]
fn a_connection_that_closes_leaves_media_on_the_best_way_that_is_left() {
    let mut rig = Rig::secured();
    let check = rig.browser.check(true);
    let deliver = |rig: &mut Rig, datagram: &[u8]| {
        let (port, mut datagram) = (Port::Stream(3), datagram.to_vec());
        rig.session.on_datagram(rig.now, port, address(9), &mut datagram, &mut rig.world);
    };
    rig.pass(2_000 * MS);
    deliver(&mut rig, &check);
    let voice = rig.browser.voice();
    let before = rig.believed();
    deliver(&mut rig, &voice);
    assert_eq!(rig.believed(), before + 1);
    rig.session.tick(rig.now + FRAME, &mut rig.world);
    assert!(rig.world.sent.iter().all(|it| (it.0, it.1) == (Port::Stream(3), address(9))));
    rig.session.close_stream(3, &mut rig.world);
    rig.world.sent.clear();
    assert!(rig.hears());
    rig.deliver_from(address(9), &voice);
    assert_eq!(rig.dropped(DropReason::Unchecked), 1);
    assert_eq!(rig.world.connected, [address(1), address(1)]);
}

#[test]
fn a_packet_of_a_browser_takes_no_memory() {
    let mut rig = Rig::secured();
    let packets: Vec<_> = (0..200).map(|_| rig.browser.voice()).collect();
    let (known, fresh) = packets.split_at(150);
    rig.deliver(known.to_vec());
    let mut fresh = fresh.to_vec();
    let Rig { now, session, world, .. } = &mut rig;
    let taken = allocation_counter::measure(|| {
        for datagram in &mut fresh {
            session.on_datagram(*now, Port::Rtp, address(1), datagram, world);
        }
    });
    assert_eq!(taken.count_total, 0);
    assert_eq!(rig.believed(), 200);
}

#[test]
fn a_leg_without_a_certificate_cannot_shake_hands() {
    let mut rig = Rig::new();
    rig.session = Session::new(rig.now, WallTime::default(), 3, false);
    let applied = rig.session.apply(rig.now, rig.plan.clone(), None, &mut rig.world);
    assert_eq!(applied, Err(PlanError::Unidentified));
}

#[test]
fn whatever_a_known_browser_sends_is_survived() {
    let mut rig = Rig::secured();
    let mut random = SeededRandom::new(77);
    let check = rig.browser.check(true);
    for round in 0..20_000 {
        let mut datagram = if round % 2 == 0 { check.clone() } else { vec![0; 200] };
        let length = random.u32() as usize % (datagram.len() + 1);
        if round % 2 == 1 {
            random.fill(&mut datagram);
        } else {
            for _ in 0..1 + random.u32() % 4 {
                let at = random.u32() as usize % datagram.len();
                datagram[at] = random.u32() as u8;
            }
        }
        datagram.truncate(length.max(1));
        rig.deliver(vec![datagram]);
        rig.world.sent.clear();
    }
    assert!(rig.is_heard());
}
