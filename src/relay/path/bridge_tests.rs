//! Stories of two legs that hear each other without anything being decoded.

use std::time::Duration;

use audio::Codec;
use media::{Direction, KeyForm, KeyPassage, MediaEvent, Passage, Purpose, Rule, SourceIdentity};
use rtp::TelephoneEvent;
use rtp::rtcp::{Compound, ReportBlock, Rtcp, SenderInfo};
use rtp::sdes::Suite;

use super::counters::{DropReason, Meter};
use super::pair::*;
use crate::srtp::{OVERHEAD, Receiver, Sender};

const PCMU: u8 = 0;
const PCMA: u8 = 8;

fn both(codec: Codec) -> Pair {
    Pair::of(leg(0, plain(), &[usual(codec)]), leg(1, plain(), &[usual(codec)]))
}

fn pcmu() -> Pair {
    both(Codec::Pcmu)
}

/// Numbers of what a peer heard, from its first packet on.
fn numbers(heard: &[Heard]) -> Vec<(u16, u32)> {
    let first = heard.first().map_or((0, 0), |it| (it.sequence, it.timestamp));
    let from = |it: &Heard| (it.sequence.wrapping_sub(first.0), it.timestamp.wrapping_sub(first.1));
    heard.iter().map(from).collect()
}

#[test]
fn what_one_says_the_other_hears_byte_for_byte_from_a_source_of_ours() {
    for codec in Codec::ALL {
        let mut pair = both(codec);
        let payload_type = usual(codec).payload_type;
        for n in 0..50_u8 {
            pair.say(0, payload_type, &[n; 90], codec.timestamp_step(20));
            pair.say(1, payload_type, &[200 + n; 70], codec.timestamp_step(20));
            pair.wait(20 * MS);
        }
        for side in [0, 1] {
            let heard = pair.heard(side);
            assert_eq!(heard.len(), 50);
            let own = &pair.sides[side].plan.source;
            for (n, packet) in (0..).zip(&heard) {
                assert_eq!((packet.ssrc, packet.payload_type), (own.ssrc, payload_type));
                assert_eq!(packet.sequence, own.sequence.wrapping_add(n));
                let step = codec.timestamp_step(20) * u32::from(n);
                assert_eq!(packet.timestamp, own.timestamp.wrapping_add(step));
                let said =
                    if side == 1 { [n as u8; 90].to_vec() } else { [200 + n as u8; 70].to_vec() };
                assert_eq!(packet.payload, said);
                assert_eq!(packet.to, address(side));
            }
            assert_eq!(pair.all_drops(side), []);
            assert_eq!(pair.sides[side].world.tally.total(Meter::Frames), 0, "no clock, no codec");
        }
    }
}

#[test]
fn loss_overtaking_and_marks_are_heard_as_they_were() {
    let mut pair = pcmu();
    let step = |pair: &mut Pair| pair.sides[0].peer.timestamp += 160;
    let mut packets = Vec::new();
    for n in 0..12_u8 {
        packets.push(pair.sides[0].peer.packet(PCMU, n == 4, &[n; 160]));
        step(&mut pair);
    }
    for n in [0, 1, 2, 5, 4, 4, 3, 8, 9, 7, 11, 11] {
        pair.deliver(0, address(0), &packets[n]);
    }
    let heard = pair.heard(1);
    let seen: Vec<_> = heard.iter().map(|it| it.payload[0]).collect();
    assert_eq!(seen, [0, 1, 2, 5, 4, 4, 3, 8, 9, 7, 11], "6 and 10 are lost");
    for packet in &heard {
        let n = packet.payload[0];
        assert_eq!(packet.sequence.wrapping_sub(heard[0].sequence), u16::from(n));
        assert_eq!(packet.timestamp.wrapping_sub(heard[0].timestamp), u32::from(n) * 160);
        assert_eq!(packet.marker, n == 0 || n == 4);
    }
    assert_eq!(pair.all_drops(1), [(DropReason::Late, 1)], "a copy of the newest");
}

#[test]
fn the_other_law_is_a_map_of_bytes() {
    let mut pair =
        Pair::of(leg(0, plain(), &[usual(Codec::Pcmu)]), leg(1, plain(), &[usual(Codec::Pcma)]));
    let sound: Vec<u8> = (0..160).collect();
    let mut recoded = sound.clone();
    audio::g711::mu_to_a(&mut recoded);
    pair.say(0, PCMU, &sound, 160);
    let heard = pair.heard(1);
    assert_eq!((heard[0].payload_type, &heard[0].payload), (PCMA, &recoded));
    pair.say(1, PCMA, &sound, 160);
    let mut recoded = sound;
    audio::g711::a_to_mu(&mut recoded);
    assert_eq!(pair.heard(0)[0].payload, recoded);
    assert_eq!(pair.sides[0].world.tally.total(Meter::Frames), 0);
}

#[test]
fn lists_of_contributors_and_extensions_stay_on_their_side() {
    let mut pair = pcmu();
    let mut packet = vec![0xb2, PCMU, 0, 9, 0, 0, 0, 1, 0, 0, 0, 77];
    packet.extend([1; 8]); // two contributors
    packet.extend([0xbe, 0xde, 0, 1, 0x10, 9, 0, 0]);
    packet.extend([5; 160]);
    packet.extend([0, 0, 0, 4]); // padding
    pair.deliver(0, address(0), &packet);
    assert_eq!(pair.heard(1)[0].payload, [5; 160]);
}

#[test]
fn every_suite_meets_every_other() {
    let protections = || {
        Suite::PREFERENCE
            .into_iter()
            .map(Some)
            .chain([None])
            .map(|suite| move |seed| suite.map_or_else(plain, |suite| srtp(suite, seed)))
    };
    for one in protections() {
        for other in protections() {
            let mut pair = Pair::of(
                leg(0, one(10), &[usual(Codec::Pcmu)]),
                leg(1, other(20), &[usual(Codec::Pcmu)]),
            );
            for n in 0..20 {
                pair.say(0, PCMU, &[n; 160], 160);
                pair.say(1, PCMU, &[100 + n; 160], 160);
                pair.wait(20 * MS);
            }
            assert_eq!((pair.heard(0).len(), pair.heard(1).len()), (20, 20));
            assert_eq!((pair.all_drops(0), pair.all_drops(1)), (vec![], vec![]));
        }
    }
}

#[test]
fn a_roll_over_on_either_side_is_survived() {
    let suite = Suite::AesCm128HmacSha1_80;
    let mut pair = Pair::of(
        leg(0, srtp(suite, 1), &[usual(Codec::Pcmu)]),
        leg(1, srtp(Suite::AeadAes256Gcm, 3), &[usual(Codec::Pcmu)]),
    );
    pair.talk(1, PCMU, &[1; 160]);
    for n in 0..140_000_u32 {
        pair.say(0, PCMU, &n.to_be_bytes(), 160);
        if n % 1000 == 0 {
            pair.wait(20 * MS);
        }
    }
    let heard = pair.heard(1);
    assert_eq!(heard.len(), 140_000);
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let state = pair.sides[0].peer.send.as_ref().unwrap().state();
    assert!(state.rtp[0].highest >> 16 == 2, "the contexts' states are still there to be read");
}

#[test]
fn strangers_are_not_heard_on_a_bridged_leg_and_the_other_hears_nothing_of_them() {
    let mut pair = Pair::of(
        leg(0, srtp(Suite::AeadAes128Gcm, 1), &[usual(Codec::Pcmu)]),
        leg(1, plain(), &[usual(Codec::Pcmu)]),
    );
    let mut thief = Sender::new(
        Suite::AeadAes128Gcm,
        &rtp::KeySalt::generate(Suite::AeadAes128Gcm, &mut base::SeededRandom::new(99)),
    )
    .unwrap();
    let elsewhere = std::net::SocketAddr::from(([203, 0, 113, 66], 6666));
    let mut forged = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    forged.resize(172 + OVERHEAD, 7);
    let length = thief.protect_rtp(&mut forged, 172).unwrap();
    pair.deliver(0, elsewhere, &forged[..length]);
    pair.deliver(1, elsewhere, &[0x80; 172]);
    let replayed = pair.sides[0].peer.packet(PCMU, false, &[1; 160]);
    pair.deliver(0, address(0), &replayed);
    pair.deliver(0, elsewhere, &replayed);
    pair.talk(1, PCMU, &[2; 160]);
    assert_eq!(pair.heard(1).len(), 1);
    assert!(pair.heard(0).iter().all(|it| it.to == address(0)));
    assert_eq!(pair.drops(0, DropReason::NotAuthentic), 1);
    assert_eq!(pair.drops(0, DropReason::Replayed), 1);
    assert_eq!(pair.drops(1, DropReason::SourceNetwork), 1);
}

#[test]
fn a_new_key_in_a_re_invite_breaks_nothing_on_the_other_side() {
    let suite = Suite::AesCm128HmacSha1_80;
    let mut pair = Pair::of(
        leg(0, srtp(suite, 1), &[usual(Codec::Pcmu)]),
        leg(1, srtp(suite, 3), &[usual(Codec::Pcmu)]),
    );
    for n in 0..10 {
        pair.talk(0, PCMU, &[n; 160]);
        pair.talk(1, PCMU, &[n; 160]);
    }
    let in_flight = pair.sides[0].peer.packet(PCMU, false, &[10; 160]);
    let replayed = in_flight.clone();
    pair.sides[0].peer.timestamp += 160;
    pair.sides[0].plan.protection = srtp(Suite::AeadAes256Gcm, 31);
    pair.sides[0].plan.source = SourceIdentity::random(&mut base::SeededRandom::new(1));
    pair.apply(0, Some(1));
    pair.deliver(0, address(0), &in_flight);
    pair.deliver(0, address(0), &replayed);
    assert_eq!(pair.drops(0, DropReason::Replayed), 1, "the old window still counts");
    let protection = pair.sides[0].plan.protection.clone();
    pair.sides[0].peer.keyed(&protection);
    for n in 11..20 {
        pair.talk(0, PCMU, &[n; 160]);
        pair.talk(1, PCMU, &[n; 160]);
    }
    let there = pair.heard(1);
    assert_eq!(
        there.iter().map(|it| it.payload[0]).collect::<Vec<_>>(),
        (0..20).collect::<Vec<_>>()
    );
    assert!(numbers(&there).windows(2).all(|it| it[1].0 == it[0].0 + 1));
    let back = pair.heard(0);
    assert_eq!(back.len(), 19);
    assert!(back.windows(2).all(|it| it[1].ssrc == it[0].ssrc));
    assert!(numbers(&back).windows(2).all(|it| it[1].0 == it[0].0 + 1), "the numbers go on");
}

#[test]
fn another_source_at_one_peer_is_the_same_source_to_the_other() {
    let mut pair = pcmu();
    for n in 0..5 {
        pair.talk(0, PCMU, &[n; 160]);
    }
    let late = pair.sides[0].peer.packet(PCMU, false, &[99; 160]);
    let peer = &mut pair.sides[0].peer;
    (peer.ssrc, peer.sequence, peer.timestamp) = (4242, 60_000, 1_000_000);
    pair.wait(20 * MS);
    for n in 5..10 {
        pair.talk(0, PCMU, &[n; 160]);
    }
    pair.deliver(0, address(0), &late);
    let heard = pair.heard(1);
    assert_eq!(pair.drops(0, DropReason::Superseded), 1);
    let expected = (0..10_u16).map(|n| (n, u32::from(n) * 160 + if n < 5 { 0 } else { 160 }));
    assert_eq!(numbers(&heard), expected.collect::<Vec<_>>());
    assert!(heard.iter().all(|it| it.ssrc == heard[0].ssrc));
    assert!(heard[5].marker, "a break in time is marked");
}

#[test]
fn two_sources_at_one_time_do_not_break_each_other_up() {
    let mut pair = pcmu();
    for n in 0..100 {
        pair.talk(0, PCMU, &[n; 160]);
        let other = [0x80, PCMU, 1, n, 0, 0, 0, 0, 0, 0, 0, 3, 200, 200];
        pair.deliver(0, address(0), &other);
    }
    let heard = pair.heard(1);
    let turns = heard.windows(2).filter(|it| it[0].payload.len() != it[1].payload.len());
    assert!(turns.count() <= 4, "two seconds, one turn each");
}

#[test]
fn a_flood_of_sources_leaves_some_of_the_sound() {
    let mut pair = pcmu();
    for n in 0..100_u8 {
        pair.talk(0, PCMU, &[n; 160]);
        for stranger in 0..20 {
            let other = [0x80, PCMU, 1, n, 0, 0, 0, 0, 7, 7, n, stranger, 200, 200];
            pair.deliver(0, address(0), &other);
        }
    }
    let heard = pair.heard(1);
    assert!(heard.len() < 250, "{} of 2,100", heard.len());
    let changes = heard.windows(2).filter(|it| it[1].marker).count();
    assert!(changes <= 20, "{changes} changes in two seconds");
}

#[test]
fn sources_behind_one_key_are_bounded() {
    let mut pair = Pair::of(
        leg(0, srtp(Suite::AeadAes128Gcm, 1), &[usual(Codec::Pcmu)]),
        leg(1, plain(), &[usual(Codec::Pcmu)]),
    );
    let most = base::limit::RTP_SSRCS.get() as u32;
    // The peer of this test is a sender of ours, which has the same bound: two of them.
    for ssrc in 0..most + 5 {
        if ssrc == most {
            let protection = pair.sides[0].plan.protection.clone();
            pair.sides[0].peer.keyed(&protection);
        }
        pair.sides[0].peer.ssrc = ssrc + 1;
        pair.talk(0, PCMU, &[1; 160]);
        pair.wait(100 * MS);
    }
    assert_eq!(pair.drops(0, DropReason::TooManySources), 5);
    assert_eq!(pair.heard(1).len(), most as usize);
}

#[test]
fn hold_and_resume_leave_no_gap_in_the_numbers_but_the_time_that_passed() {
    let mut pair = pcmu();
    let receive = |pair: &mut Pair, receive| {
        pair.sides[0].plan.direction = Direction { receive, ..Direction::BOTH };
        pair.apply(0, Some(1));
    };
    pair.talk(0, PCMU, &[1; 160]);
    receive(&mut pair, false);
    (0..100).for_each(|_| pair.talk(0, PCMU, &[2; 160]));
    receive(&mut pair, true);
    pair.talk(0, PCMU, &[3; 160]);
    assert_eq!(numbers(&pair.heard(1)), [(0, 0), (1, 101 * 160)]);
    assert_eq!(pair.drops(0, DropReason::Held), 100);

    // The same where the one who listens is on hold.
    pair.sides[1].plan.direction = Direction { send: false, receive: true };
    pair.apply(1, Some(0));
    (0..100).for_each(|_| pair.talk(0, PCMU, &[4; 160]));
    assert_eq!(pair.heard(1).len(), 0);
    pair.sides[1].plan.direction = Direction::BOTH;
    pair.apply(1, Some(0));
    pair.talk(0, PCMU, &[5; 160]);
    pair.talk(0, PCMU, &[6; 160]);
    let heard = pair.heard(1);
    let first = pair.sides[1].plan.source.clone();
    assert_eq!(heard[0].sequence, first.sequence.wrapping_add(2));
    let passed = heard[0].timestamp.wrapping_sub(first.timestamp);
    assert_eq!(passed, 202 * 160);
    let stats = pair.sides[1].session.flow.as_ref().unwrap().quality();
    assert_eq!(stats.sent, 4);
}

#[test]
fn nothing_is_passed_before_the_other_leg_is_there() {
    let mut pair = Pair::apart([
        leg(0, plain(), &[usual(Codec::Pcmu)]),
        leg(1, plain(), &[usual(Codec::Pcmu)]),
    ]);
    pair.talk(0, PCMU, &[1; 160]);
    assert_eq!(pair.drops(0, DropReason::Unbridged), 1);
    pair.bridge(0, 1, EVENTS);
    pair.talk(0, PCMU, &[2; 160]);
    assert_eq!(pair.heard(1)[0].payload[0], 2);
    let quality = pair.sides[0].session.flow.as_ref().unwrap().quality();
    assert_eq!((quality.received, quality.dropped), (1, 0), "its first packet is on probation");
}

#[test]
fn a_transfer_to_another_leg_keeps_the_source_and_its_numbers() {
    let legs = [0, 1, 2].map(|side| leg(side, plain(), &[usual(Codec::Pcmu)]));
    let mut pair = Pair::apart(legs);
    pair.bridge(0, 1, EVENTS);
    pair.bridge(1, 0, EVENTS);
    for n in 0..10 {
        pair.talk(1, PCMU, &[n; 160]);
    }
    // The caller is joined with a third leg; the second still sends for a while.
    pair.bridge(0, 2, EVENTS);
    pair.bridge(2, 0, EVENTS);
    for n in 10..20 {
        pair.say(1, PCMU, &[99; 160], 160);
        pair.talk(2, PCMU, &[n; 160]);
    }
    let heard = pair.heard(0);
    assert!(heard.iter().all(|it| it.payload[0] != 99 && it.ssrc == heard[0].ssrc));
    let expected: Vec<_> = (0..20).map(|n| (n, u32::from(n) * 160)).collect();
    assert_eq!(numbers(&heard), expected);
    assert_eq!(pair.drops(0, DropReason::Unbridged), 10);
}

#[test]
fn a_leg_goes_from_an_agent_to_a_trunk_and_back_with_one_source() {
    let mut pair = pcmu();
    pair.sides[0].plan.purpose = Purpose::Agent { barge_in: None };
    pair.apply(0, None);
    let speech: std::sync::Arc<[i16]> = vec![8000; 16_000].into();
    let Side { session, world, .. } = &mut pair.sides[0];
    session.play(1, speech.clone(), true, world);
    pair.wait(200 * MS);
    pair.bridge(0, 1, EVENTS);
    let stopped = pair.events(0).into_iter().find_map(|event| match event {
        MediaEvent::PlayoutStopped { played, .. } => Some(played),
        _ => None,
    });
    assert_eq!(stopped, Some(3_200));
    for n in 0..10 {
        pair.talk(1, PCMU, &[n; 160]);
    }
    pair.sides[0].plan.purpose = Purpose::Agent { barge_in: None };
    pair.apply(0, None);
    let Side { session, world, .. } = &mut pair.sides[0];
    session.play(2, speech, true, world);
    pair.wait(200 * MS);
    let heard = pair.heard(0);
    assert_eq!(heard.len(), 30);
    assert!(heard.iter().all(|it| it.ssrc == heard[0].ssrc));
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    for pair in heard.windows(2) {
        let (passed, ticks) =
            (pair[1].at.since(pair[0].at), pair[1].timestamp.wrapping_sub(pair[0].timestamp));
        let passed = (passed.as_millis() * 8) as u32;
        assert!(ticks.abs_diff(passed) <= 80, "{ticks} ticks in {} ms", passed / 8);
    }
    let started = pair.events(0).into_iter().find_map(|event| match event {
        MediaEvent::PlayoutStarted { speech: 2, position } => Some(position),
        _ => None,
    });
    assert_eq!(started, Some(20 * 320), "positions count the time in between");
}

#[test]
fn another_codec_after_a_re_invite_goes_on_in_the_same_numbers() {
    let formats = [usual(Codec::Pcmu), usual(Codec::Opus), usual(Codec::Pcma)];
    let mut pair = Pair::of(leg(0, plain(), &formats), leg(1, plain(), &formats[..2]));
    for _ in 0..5 {
        pair.talk(0, PCMU, &[1; 160]);
    }
    for _ in 0..5 {
        pair.say(0, 111, &[2; 60], 960);
        pair.wait(20 * MS);
    }
    for _ in 0..5 {
        pair.talk(0, PCMA, &[3; 160]);
    }
    let heard = pair.heard(1);
    let types: Vec<_> = heard.iter().map(|it| it.payload_type).collect();
    assert_eq!(types, [[0; 5], [111; 5], [0; 5]].concat());
    let mut expected = vec![(0, 0)];
    for n in 1..15_u16 {
        // The step before a packet of Opus is on its clock (RFC 7160).
        let step = if (5..10).contains(&n) { 960 } else { 160 };
        expected.push((n, expected[usize::from(n) - 1].1 + step));
    }
    assert_eq!(numbers(&heard), expected);
}

#[test]
fn comfort_noise_goes_on_where_both_take_it_and_is_no_loss_where_not() {
    let noise = Some(media::ComfortNoise { send: 13, receive: 13 });
    for agreed in [true, false] {
        let mut legs = [0, 1].map(|side| leg(side, plain(), &[usual(Codec::Pcmu)]));
        legs[0].comfort_noise = noise;
        legs[1].comfort_noise = noise.filter(|_| agreed);
        let mut pair = Pair::new(legs, [EVENTS; 2]);
        pair.talk(0, PCMU, &[1; 160]);
        pair.say(0, 13, &[50], 1600);
        pair.wait(200 * MS);
        pair.talk(0, PCMU, &[2; 160]);
        let heard = pair.heard(1);
        if agreed {
            assert_eq!(numbers(&heard), [(0, 0), (1, 160), (2, 1760)]);
            assert_eq!((heard[1].payload_type, &heard[1].payload), (13, &vec![50]));
        } else {
            assert_eq!(numbers(&heard), [(0, 0), (1, 1760)]);
        }
        assert_eq!(pair.all_drops(0), []);
    }
}

/// A press of key 5, held for `updates` packets and ended thrice, as its peer sends it.
fn press(pair: &mut Pair, side: usize, clock: u32, updates: u16, wait: Duration) {
    let step = clock / 50;
    for n in 1..=updates + 2 {
        let ended = n >= updates;
        let duration = u16::try_from(u32::from(n.min(updates)) * step).unwrap();
        let event = TelephoneEvent { event: 5, end: ended, volume: 10, duration };
        let packet = pair.sides[side].peer.packet(101, n == 1, &event.to_bytes());
        pair.deliver(side, address(side), &packet);
        pair.wait(wait);
    }
    pair.sides[side].peer.timestamp += u32::from(updates + 2) * step;
}

#[test]
fn a_key_goes_on_as_it_was_pressed_with_all_its_packets() {
    let mut legs = [0, 1].map(|side| leg(side, plain(), &[usual(Codec::Pcmu)]));
    legs[1].telephone_event =
        Some(media::TelephoneEvent { send: 96, receive: 96, clock_rate: 8_000 });
    let mut pair = Pair::new(legs, [EVENTS; 2]);
    pair.talk(0, PCMU, &[1; 160]);
    press(&mut pair, 0, 8_000, 6, 20 * MS);
    pair.talk(0, PCMU, &[2; 160]);
    let heard = pair.heard(1);
    assert_eq!(heard.len(), 10);
    for (n, packet) in (1..).zip(&heard[1..9]) {
        assert_eq!(packet.payload_type, 96);
        assert_eq!(packet.timestamp.wrapping_sub(heard[0].timestamp), 160);
        assert_eq!(packet.sequence, heard[0].sequence.wrapping_add(n));
        assert_eq!(packet.marker, n == 1);
        let event = TelephoneEvent::parse(&packet.payload).unwrap();
        assert_eq!((event.event, event.end, event.duration), (5, n >= 6, n.min(6) * 160));
    }
    assert_eq!(heard[9].timestamp.wrapping_sub(heard[0].timestamp), 9 * 160);
    assert_eq!(
        pair.events(0).iter().filter(|it| matches!(it, MediaEvent::Digit { .. })).count(),
        0
    );
}

#[test]
fn a_key_on_another_clock_is_brought_to_the_sounds_and_the_listeners() {
    // Opus with events at 8 kHz, as some send them, to Opus with events at 48 kHz and back.
    let mut legs = [0, 1].map(|side| leg(side, plain(), &[usual(Codec::Opus)]));
    legs[0].telephone_event =
        Some(media::TelephoneEvent { send: 101, receive: 101, clock_rate: 8_000 });
    let mut pair = Pair::new(legs, [EVENTS; 2]);
    pair.say(0, 111, &[1; 60], 960);
    pair.say(1, 111, &[1; 60], 960);
    pair.wait(20 * MS);
    press(&mut pair, 0, 8_000, 6, 20 * MS);
    let heard = pair.heard(1);
    let event = |packet: &Heard| TelephoneEvent::parse(&packet.payload).unwrap();
    assert!(heard[1..].iter().all(|it| it.timestamp.wrapping_sub(heard[0].timestamp) == 960));
    assert_eq!(event(&heard[8]).duration, 6 * 960);
    press(&mut pair, 1, 48_000, 6, 20 * MS);
    let heard = pair.heard(0);
    assert!(heard[1..].iter().all(|it| it.timestamp == heard[1].timestamp));
    assert_eq!((event(&heard[8]).duration, event(&heard[8]).end), (6 * 160, true));
}

#[test]
fn a_long_press_on_a_faster_clock_is_cut_into_segments() {
    let mut legs = [0, 1].map(|side| leg(side, plain(), &[usual(Codec::Opus)]));
    legs[0].telephone_event =
        Some(media::TelephoneEvent { send: 101, receive: 101, clock_rate: 8_000 });
    let mut pair = Pair::new(legs, [EVENTS; 2]);
    press(&mut pair, 0, 8_000, 100, 20 * MS);
    let heard = pair.heard(1);
    let start = heard[0].timestamp;
    for (n, packet) in (1..=102_u32).zip(&heard) {
        let event = TelephoneEvent::parse(&packet.payload).unwrap();
        let total = packet.timestamp.wrapping_sub(start) + u32::from(event.duration);
        assert_eq!(total, n.min(100) * 960);
        assert!(packet.timestamp.wrapping_sub(start) % 65_535 == 0);
    }
}

#[test]
fn keys_by_signalling_are_reported_once_and_leave_no_gap() {
    let to_info = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Info };
    let legs = [0, 1].map(|side| leg(side, plain(), &[usual(Codec::Pcmu)]));
    let mut pair = Pair::new(legs, [to_info, EVENTS]);
    pair.talk(0, PCMU, &[1; 160]);
    press(&mut pair, 0, 8_000, 6, 20 * MS);
    pair.talk(0, PCMU, &[2; 160]);
    let digits =
        pair.events(0).into_iter().filter(|it| matches!(it, MediaEvent::Digit { digit: '5', .. }));
    assert_eq!(digits.count(), 1);
    assert_eq!(numbers(&pair.heard(1)), [(0, 0), (1, 9 * 160)]);
}

#[test]
fn keys_that_came_by_signalling_are_pressed_as_events_in_the_same_source() {
    let mut pair = pcmu();
    for n in 0..5 {
        pair.talk(1, PCMU, &[n; 160]);
    }
    let now = pair.now;
    assert!(pair.sides[0].session.send_digits(now, "1#"));
    assert!(!pair.sides[0].session.send_digits(now, "z"));
    for n in 5..60 {
        pair.talk(1, PCMU, &[n; 160]);
    }
    let heard = pair.heard(0);
    assert!(heard.windows(2).all(|it| it[1].sequence == it[0].sequence.wrapping_add(1)));
    let keys: Vec<_> = heard.iter().filter(|it| it.payload_type == 101).collect();
    let began: Vec<_> = keys.iter().filter(|it| it.marker).map(|it| it.payload[0]).collect();
    assert_eq!(began, [1, 11]);
    assert!(pair.drops(0, DropReason::Pressed) > 10);
    let last = heard.last().unwrap();
    assert_eq!(last.payload[0], 59, "the sound is back");
    for it in [keys[0], last] {
        let passed = (it.at.since(heard[0].at).as_millis() * 8) as u32;
        let ticks = it.timestamp.wrapping_sub(heard[0].timestamp);
        assert!(ticks.abs_diff(passed) <= 160, "{ticks} {passed}");
    }
    pair.wait(60 * MS);
    let frames = pair.sides[0].world.tally.total(Meter::Frames);
    assert_eq!((pair.sides[0].session.flow.as_ref().unwrap().needs_frames(), frames), (false, 0));
}

#[test]
fn reports_end_here_and_each_leg_gets_its_own() {
    let mut pair = pcmu();
    for n in 0..600_u32 {
        if n % 10 == 3 {
            pair.lose(0, 160);
            pair.wait(20 * MS);
        } else {
            pair.talk(0, PCMU, &[1; 160]);
        }
    }
    let sent = pair.heard(1);
    let reports = std::mem::take(&mut pair.sides[1].peer.reports);
    assert!((2..=6).contains(&reports.len()), "{}", reports.len());
    let (mut info, mut own) = (None, 0);
    for report in &reports {
        for packet in Compound::parse(report).unwrap().packets() {
            if let Rtcp::Report { ssrc, sender, blocks } = packet {
                (info, own) = (sender, ssrc);
                assert_eq!(blocks.count(), 0, "its peer said nothing");
            }
        }
    }
    let info = info.unwrap();
    assert_eq!(own, pair.sides[1].plan.source.ssrc);
    let before = sent.iter().filter(|it| it.timestamp.wrapping_sub(info.rtp_timestamp) as i32 <= 0);
    assert_eq!(info.packets as usize, before.clone().count());
    assert_eq!(info.octets as usize, before.map(|it| it.payload.len()).sum::<usize>());

    // What the caller lost on its way to us is told to the caller, and to nobody else.
    let report = pair.sides[0].peer.reports.last().cloned().unwrap();
    let lost = Compound::parse(&report).unwrap().packets().find_map(|packet| match packet {
        Rtcp::Report { sender, mut blocks, .. } => Some((sender, blocks.next()?)),
        _ => None,
    });
    let (sender, block) = lost.unwrap();
    assert_eq!(sender, None, "it was sent nothing");
    assert_eq!(block.ssrc, pair.sides[0].peer.ssrc);
    assert!((20..=30).contains(&block.fraction_lost), "{}", block.fraction_lost);
    let quality = pair.events(0).into_iter().rev().find_map(|event| match event {
        MediaEvent::Report { quality, .. } => Some(quality),
        _ => None,
    });
    let quality = quality.unwrap();
    assert!((40..=60).contains(&quality.lost) && quality.mos.unwrap() < 3.9, "{quality:?}");
}

#[test]
fn a_peers_report_tells_its_own_leg_loss_jitter_and_round_trip() {
    let mut pair = Pair::of(
        leg(0, srtp(Suite::AeadAes128Gcm, 1), &[usual(Codec::Pcmu)]),
        leg(1, plain(), &[usual(Codec::Pcmu)]),
    );
    (0..300).for_each(|_| pair.talk(1, PCMU, &[1; 160]));
    let report = pair.sides[0].peer.reports.last().cloned().unwrap();
    let sent = Compound::parse(&report).unwrap().packets().find_map(|packet| match packet {
        Rtcp::Report { sender, .. } => sender,
        _ => None,
    });
    let SenderInfo { ntp, .. } = sent.unwrap();
    let ours = pair.sides[0].plan.source.ssrc;
    let block = ReportBlock {
        ssrc: ours,
        fraction_lost: 64,
        jitter: 80,
        last_sender_report: ntp.middle(),
        ..ReportBlock::default()
    };
    let blocks = [block];
    let report =
        rtp::Report { ssrc: 1, sender: None, blocks: &blocks, cname: "peer", goodbye: false };
    let mut bytes = [0; 200];
    let length = report.write(&mut bytes).unwrap();
    let sender = pair.sides[0].peer.send.as_mut().unwrap();
    let length = sender.protect_rtcp(&mut bytes, length).unwrap();
    pair.deliver(0, address(0), &bytes[..length]);
    let quality = pair.sides[0].session.flow.as_ref().unwrap().quality();
    assert_eq!((quality.remote_loss, quality.remote_jitter), (0.25, 10 * MS));
    assert!(quality.round_trip.is_some());
    let other = pair.sides[1].session.flow.as_ref().unwrap().quality();
    assert_eq!((other.remote_loss, other.round_trip), (0.0, None));
}

#[test]
fn a_leg_that_says_goodbye_leaves_the_other_flowing() {
    let mut pair = pcmu();
    pair.talk(0, PCMU, &[1; 160]);
    pair.talk(1, PCMU, &[1; 160]);
    let now = pair.now;
    let Side { session, world, .. } = &mut pair.sides[0];
    session.release(now, world);
    pair.talk(1, PCMU, &[2; 160]);
    assert_eq!(pair.drops(0, DropReason::NoPlan), 1);
    assert_eq!(pair.all_drops(1), []);
}

#[test]
fn what_the_bridge_does_not_name_is_dropped() {
    let mut pair = pcmu();
    pair.say(0, 77, &[1; 160], 160);
    assert_eq!(pair.all_drops(0), [(DropReason::PayloadType, 1)]);
    let bridge = media::Bridge {
        with: leg_id(1),
        audio: vec![(PCMU, Passage::Forward(PCMU))],
        to: Some(usual(Codec::Pcmu)),
        complexity: media::BRIDGED_COMPLEXITY,
        keys: KeyPassage::Drop,
        detect_tones: false,
        comfort_noise: None,
    };
    pair.bridge_as(0, 1, bridge);
    pair.talk(0, PCMU, &[1; 160]);
    press(&mut pair, 0, 8_000, 6, 20 * MS);
    pair.talk(0, PCMU, &[1; 160]);
    assert_eq!(numbers(&pair.heard(1)), [(0, 0), (1, 9 * 160)]);
    assert_eq!(pair.events(0).len(), 1, "latched, and no more");
}

#[test]
fn no_bytes_make_a_bridge_panic() {
    let formats = [usual(Codec::Pcmu), usual(Codec::Opus), usual(Codec::G722)];
    let noise = Some(media::ComfortNoise { send: 13, receive: 13 });
    let mut legs =
        [leg(0, plain(), &formats), leg(1, plain(), &[usual(Codec::Pcma), usual(Codec::G722)])];
    legs.iter_mut().for_each(|leg| leg.comfort_noise = noise);
    for rule in [EVENTS, Rule { keys_to: KeyForm::Tones, ..EVENTS }] {
        let mut pair = Pair::new(legs.clone(), [rule; 2]);
        let mut random = base::SeededRandom::new(1);
        for n in 0..6_000_u32 {
            use base::Random;
            let mut packet = vec![0; random.below(200) as usize];
            random.fill(&mut packet);
            if packet.len() > 12 {
                packet[0] = 0x80;
                packet[1] = [111, 8, 9, 13, 101, 0, 200, 201][random.below(8) as usize];
                packet[2..4].copy_from_slice(&((n / 3) as u16).to_be_bytes());
                if n % 50 > 0 {
                    packet[8..12].copy_from_slice(&7u32.to_be_bytes());
                }
            }
            let side = (n % 2) as usize;
            pair.deliver(side, address(side), &packet);
            if n % 10 == 0 {
                pair.wait(20 * MS);
            }
        }
        assert!(pair.heard(0).len() > 100 && pair.heard(1).len() > 100);
    }
}

/// The receiver of a plan's own keys reads what its session sends.
#[test]
fn a_receiver_of_the_plans_key_reads_a_bridged_legs_packets() {
    let protection = srtp(Suite::AesCm128HmacSha1_32, 8);
    let media::Protection::Srtp { suite, send, .. } = &protection else { panic!() };
    let (suite, key) = (*suite, send.clone());
    let mut pair =
        Pair::of(leg(0, protection, &[usual(Codec::Pcmu)]), leg(1, plain(), &[usual(Codec::Pcmu)]));
    pair.sides[0].peer.receive = Some(Receiver::new(suite, &key).unwrap());
    pair.talk(1, PCMU, &[1; 160]);
    assert_eq!(pair.heard(0).len(), 1);
}
