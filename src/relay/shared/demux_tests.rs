use base::Random;
use base::SeededRandom;
use rtp::ice::stun::{Class, Writer};

use std::time::Duration;

use super::*;

const FIRST: SessionId = SessionId::new(1, 0);
const SECOND: SessionId = SessionId::new(2, 0);

fn check(ufrag: &str) -> Vec<u8> {
    let mut buffer = [0; 256];
    let mut writer = Writer::new(&mut buffer, Class::Request, [7; 12]);
    writer.username(ufrag, "peer");
    let length = writer.finish(Some(b"whatever")).unwrap();
    buffer[..length].to_vec()
}

fn way(peer: &str) -> Way {
    Way { local: IpAddr::from([192, 0, 2, 1]), peer: peer.parse().unwrap() }
}

fn at(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

const SOUND: [u8; 40] = [0x80; 40];

/// Two browsers behind one address.
fn two() -> (Demux, [Way; 2]) {
    let mut demux = Demux::default();
    demux.name("first".to_owned(), FIRST);
    demux.name("second".to_owned(), SECOND);
    (demux, [way("203.0.113.7:4000"), way("203.0.113.7:4001")])
}

#[test]
fn a_check_goes_to_whom_it_names_and_the_rest_to_whom_was_proved() {
    let (mut demux, [one, other]) = two();
    assert_eq!(demux.judge(at(0), one, &check("first")), Verdict::Hand(FIRST));
    assert_eq!(demux.judge(at(0), other, &check("second")), Verdict::Hand(SECOND));
    assert_eq!(demux.judge(at(0), one, &SOUND), Verdict::Drop(Cause::Stranger), "not proved");
    assert!(demux.claim(one, FIRST) && demux.claim(other, SECOND));
    assert_eq!(demux.judge(at(0), one, &SOUND), Verdict::Hand(FIRST));
    assert_eq!(demux.judge(at(0), other, &[22, 254, 253]), Verdict::Hand(SECOND));
    let elsewhere = Way { local: IpAddr::from([192, 0, 2, 2]), ..one };
    assert_eq!(demux.judge(at(0), elsewhere, &SOUND), Verdict::Drop(Cause::Stranger));
}

#[test]
fn a_name_that_nobody_has_is_dropped() {
    let (mut demux, [one, _]) = two();
    assert_eq!(demux.judge(at(0), one, &check("firs")), Verdict::Drop(Cause::Unknown));
    demux.forget("first", SECOND);
    assert_eq!(demux.judge(at(0), one, &check("first")), Verdict::Hand(FIRST), "not its name");
    demux.forget("first", FIRST);
    assert_eq!(demux.judge(at(0), one, &check("first")), Verdict::Drop(Cause::Unknown));
}

#[test]
fn a_route_is_one_sessions_until_it_leaves_it() {
    let (mut demux, [one, _]) = two();
    assert!(demux.claim(one, FIRST) && demux.claim(one, FIRST) && !demux.claim(one, SECOND));
    assert_eq!(demux.judge(at(0), one, &check("second")), Verdict::Contest(FIRST));
    demux.leave(one, SECOND);
    assert_eq!(demux.judge(at(0), one, &SOUND), Verdict::Hand(FIRST), "not its route");
    demux.leave(one, FIRST);
    assert_eq!(demux.judge(at(0), one, &SOUND), Verdict::Drop(Cause::Stranger));
    assert_eq!(demux.judge(at(0), one, &check("second")), Verdict::Hand(SECOND));
    assert!(demux.claim(one, SECOND));
}

#[test]
fn a_flood_of_one_source_is_cut_and_others_are_heard() {
    let (mut demux, [one, other]) = two();
    demux.claim(other, SECOND);
    let most = limit::ICE_PORT_CHECKS_PER_SOURCE.get();
    for _ in 0..most {
        assert_eq!(demux.judge(at(0), one, &check("forged")), Verdict::Drop(Cause::Unknown));
    }
    assert_eq!(demux.judge(at(0), one, &check("first")), Verdict::Drop(Cause::Flood));
    assert_eq!(demux.judge(at(0), other, &SOUND), Verdict::Hand(SECOND), "a proved route");
    let elsewhere = way("198.51.100.1:9");
    assert_eq!(demux.judge(at(0), elsewhere, &check("first")), Verdict::Hand(FIRST));
    assert_eq!(demux.judge(at(100), one, &check("first")), Verdict::Hand(FIRST), "later");
}

#[test]
fn whoever_has_one_ipv6_address_has_its_network() {
    let mut demux = Demux::default();
    for host in 0..limit::ICE_PORT_CHECKS_PER_SOURCE.value {
        let peer = way(&format!("[2001:db8::{host:x}]:9"));
        assert_eq!(demux.judge(at(0), peer, &check("x")), Verdict::Drop(Cause::Unknown));
    }
    let peer = way("[2001:db8::ffff]:9");
    assert_eq!(demux.judge(at(0), peer, &check("x")), Verdict::Drop(Cause::Flood));
    let peer = way("[2001:db8:0:1::1]:9");
    assert_eq!(demux.judge(at(0), peer, &check("x")), Verdict::Drop(Cause::Unknown));
}

#[test]
fn one_session_is_handed_so_much_and_no_more() {
    let (mut demux, [one, other]) = two();
    demux.claim(one, FIRST);
    for _ in 0..limit::ICE_PORT_DATAGRAMS_PER_SESSION.value {
        assert_eq!(demux.judge(at(0), one, &SOUND), Verdict::Hand(FIRST));
        assert_eq!(demux.judge(at(0), other, &check("second")), Verdict::Hand(SECOND));
    }
    assert_eq!(demux.judge(at(50), one, &SOUND), Verdict::Drop(Cause::Flood));
    assert_eq!(demux.judge(at(50), other, &check("second")), Verdict::Drop(Cause::Flood));
    assert_eq!(demux.judge(at(100), one, &SOUND), Verdict::Hand(FIRST));
}

#[test]
fn the_tables_are_bounded() {
    let mut demux = Demux::default();
    (0..NAMES + 10).for_each(|at| demux.name(at.to_string(), FIRST));
    assert_eq!(demux.names.len(), NAMES);
    let mut random = SeededRandom::new(1);
    for _ in 0..ROUTES + 10 {
        let [a, b, c, d, ..] = random.u64().to_be_bytes();
        let peer = SocketAddr::from(([a, b, c, d], random.below(60_000) as u16 + 1));
        demux.claim(Way { local: IpAddr::from([192, 0, 2, 1]), peer }, FIRST);
    }
    assert!(demux.routes.len() <= ROUTES);
    let mut window = Demux::default();
    for source in 0..5_000u32 {
        let peer = SocketAddr::from((source.to_be_bytes(), 9));
        let way = Way { local: IpAddr::from([192, 0, 2, 1]), peer };
        window.judge(at(u64::from(source)), way, &check("x"));
    }
    assert!(window.sources.len() <= 100, "one window only");
}

#[test]
fn what_only_looks_like_a_check_is_nobodys() {
    let (mut demux, [one, _]) = two();
    for datagram in [&[][..], &[0; 20], &[3; 1_500], &check("first")[..30]] {
        assert_eq!(demux.judge(at(0), one, datagram), Verdict::Drop(Cause::Stranger));
    }
    let mut buffer = [0; 256];
    let mut answer = Writer::new(&mut buffer, Class::Success, [7; 12]);
    answer.username("first", "peer");
    let length = answer.finish(Some(b"whatever")).unwrap();
    assert_eq!(demux.judge(at(0), one, &buffer[..length]), Verdict::Drop(Cause::Stranger));
}
