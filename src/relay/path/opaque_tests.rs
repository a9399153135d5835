//! Stories of what goes through although nobody here can decode it.

use audio::Codec;
use base::Instant;
use media::{BargeIn, KeyForm, LegPlan, MediaEvent, OpaqueFormat, Purpose, Rule};
use rtp::TelephoneEvent;
use rtp::sdes::Suite;
use sdp::Opaque;

use super::counters::{DropReason, Meter};
use super::pair::*;
use super::{PlanError, Session};

const WIDE: u32 = 320;

fn amr_wb(send: u8, receive: u8) -> OpaqueFormat {
    let codec = Opaque::of("AMR-WB", 16_000, 1, Some("octet-align=1;mode-set=0,2")).unwrap();
    OpaqueFormat { codec, send, receive }
}

fn g729() -> OpaqueFormat {
    let codec = Opaque::of("G729", 8_000, 1, None).unwrap();
    OpaqueFormat { codec, send: 18, receive: 18 }
}

/// A leg on SRTP whose peer has AMR-WB and nothing else.
fn mobile(side: usize, format: OpaqueFormat) -> LegPlan {
    let protection = srtp(Suite::AeadAes128Gcm, side as u64 * 9 + 1);
    LegPlan { opaque: vec![format], ..leg(side, protection, &[]) }
}

fn score(pair: &mut Pair, side: usize) -> Option<f32> {
    let reports = pair.events(side).into_iter().rev().find_map(|event| match event {
        MediaEvent::Report { quality, .. } => Some(quality.mos),
        _ => None,
    });
    reports.expect("a report")
}

#[test]
fn what_nobody_decodes_goes_on_byte_for_byte_under_the_other_sides_number() {
    let mut pair = Pair::of(mobile(0, amr_wb(97, 96)), mobile(1, amr_wb(110, 111)));
    for n in 0..300_u32 {
        if n == 7 {
            pair.lose(0, WIDE);
            continue;
        }
        // It begins to speak again after a pause: mark and time say so.
        let marker = n == 20;
        pair.sides[0].peer.timestamp += if marker { 10 * WIDE } else { 0 };
        let packet = pair.sides[0].peer.packet(96, marker, &[n as u8; 33]);
        pair.sides[0].peer.timestamp += WIDE;
        pair.deliver(0, address(0), &packet);
        pair.wait(20 * MS);
    }
    let heard = pair.heard(1);
    assert_eq!(heard.len(), 299);
    let own = &pair.sides[1].plan.source;
    for packet in &heard {
        let n = u32::from(packet.sequence.wrapping_sub(own.sequence));
        assert_eq!(packet.payload, [n as u8; 33], "and loss stays loss");
        assert_eq!((packet.payload_type, packet.ssrc), (110, own.ssrc));
        assert_eq!(packet.marker, n == 0 || n == 20);
        let pause = if n >= 20 { 10 * WIDE } else { 0 };
        assert_eq!(packet.timestamp, own.timestamp.wrapping_add(n * WIDE + pause));
    }
    assert_eq!(pair.all_drops(0), []);
    assert_eq!(pair.sides[0].world.tally.total(Meter::Frames), 0, "no clock, no codec");
    assert_eq!(score(&mut pair, 0), None, "its scale is another one");
}

#[test]
fn keys_go_on_beside_it_on_its_clock() {
    let mut pair = Pair::of(mobile(0, amr_wb(97, 96)), mobile(1, amr_wb(110, 111)));
    pair.say(0, 96, &[1; 33], WIDE);
    pair.wait(20 * MS);
    for n in 1..=5_u16 {
        let event = TelephoneEvent { event: 9, end: n == 5, volume: 10, duration: n * 320 };
        let packet = pair.sides[0].peer.packet(101, n == 1, &event.to_bytes());
        pair.deliver(0, address(0), &packet);
        pair.wait(20 * MS);
    }
    let heard = pair.heard(1);
    assert_eq!(heard.len(), 6);
    for (n, packet) in (1..).zip(&heard[1..]) {
        assert_eq!((packet.payload_type, packet.marker), (101, n == 1));
        assert_eq!(packet.timestamp.wrapping_sub(heard[0].timestamp), WIDE);
        let event = TelephoneEvent::parse(&packet.payload).unwrap();
        assert_eq!((event.event, event.duration), (9, n * 320));
    }
}

#[test]
fn keys_that_would_have_to_be_tones_are_left_out_and_the_sound_goes_on() {
    let mut callee = mobile(1, amr_wb(110, 111));
    callee.telephone_event = None;
    let rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Tones };
    let mut pair = Pair::new([mobile(0, amr_wb(97, 96)), callee], [rule; 2]);
    for n in 0..10 {
        pair.say(0, if n == 5 { 101 } else { 96 }, &[9, 10, 0, 160], WIDE);
        pair.wait(20 * MS);
    }
    assert_eq!(pair.heard(1).len(), 9);
    let now = pair.now;
    assert!(!pair.sides[1].session.send_digits(now, "5"), "by signalling neither");
}

#[test]
fn a_listener_without_it_hears_what_can_be_decoded_and_nothing_else() {
    let caller = LegPlan { opaque: vec![amr_wb(97, 96)], ..leg(0, plain(), &[usual(Codec::G722)]) };
    let mut pair = Pair::of(caller, leg(1, plain(), &[usual(Codec::Pcma)]));
    for _ in 0..10 {
        pair.say(0, 96, &[1; 33], WIDE);
        pair.wait(20 * MS);
    }
    assert_eq!(pair.heard(1), []);
    assert_eq!(pair.all_drops(0), [(DropReason::PayloadType, 10)]);
    for _ in 0..50 {
        pair.say(0, 9, &[0x55; 160], 160);
        pair.wait(20 * MS);
    }
    let heard = pair.heard(1);
    assert!(heard.len() > 40 && heard.iter().all(|packet| packet.payload_type == 8));
}

#[test]
fn a_source_may_change_between_what_goes_through_and_what_is_decoded() {
    let formats = [usual(Codec::Pcmu)];
    let caller = LegPlan { opaque: vec![g729()], ..leg(0, plain(), &formats) };
    let callee = LegPlan { opaque: vec![g729()], ..leg(1, plain(), &[usual(Codec::G722)]) };
    let mut pair = Pair::of(caller, callee);
    for n in 0..400 {
        let (payload_type, payload) =
            if n % 100 < 50 { (18, vec![3; 20]) } else { (0, vec![3; 160]) };
        pair.say(0, payload_type, &payload, 160);
        pair.wait(20 * MS);
    }
    let heard = pair.heard(1);
    let count = |wanted| heard.iter().filter(|packet| packet.payload_type == wanted).count();
    assert_eq!(count(18), 200);
    assert!(count(9) > 180, "{}", count(9));
    for two in heard.windows(2) {
        assert_eq!(two[1].sequence, two[0].sequence.wrapping_add(1), "no gap between them");
        let step = two[1].timestamp.wrapping_sub(two[0].timestamp);
        assert!((80..=8_000).contains(&step), "{step}");
    }
}

#[test]
fn a_score_is_that_of_the_codec_where_it_is_known() {
    let plan = |side| LegPlan { opaque: vec![g729()], ..leg(side, plain(), &[]) };
    let mut pair = Pair::of(plan(0), plan(1));
    for _ in 0..300 {
        pair.say(0, 18, &[3; 20], 160);
        pair.wait(20 * MS);
    }
    // G.113: Ie 11, so R is about 82.
    let score = score(&mut pair, 0).unwrap();
    assert!((4.0..4.2).contains(&score), "{score}");
}

#[test]
fn a_voice_agent_is_not_given_what_nobody_decodes() {
    let barge_in = Some(BargeIn::default());
    let plan = LegPlan { purpose: Purpose::Agent { barge_in }, ..mobile(0, amr_wb(97, 96)) };
    let (now, wall) = (Instant::ZERO, base::WallTime::from_unix_millis(0));
    let mut session = Session::new(now, wall, 1, false);
    let refused = session.apply(now, plan, None, &mut World::default());
    assert_eq!(refused, Err(PlanError::Opaque));
}
