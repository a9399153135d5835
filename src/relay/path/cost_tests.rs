//! What a leg takes of memory, and that a packet takes none.

use std::hint::black_box;

use allocation_counter::measure;
use audio::Codec;
use media::{KeyForm, LegPlan, Protection, Rule};
use rtp::sdes::Suite;

use super::pair::*;
use super::{Driver, Outbox, Passing, Port, Session};
use crate::path::counters::Tally;
use base::{Instant, SessionId, WallTime};

/// What a worker gives a session to work with; it takes no memory for a packet.
struct Quiet<'a> {
    sent: &'a mut Vec<u8>,
    count: &'a mut u64,
    tally: &'a mut Tally,
    outbox: &'a mut Outbox,
}

impl Driver for Quiet<'_> {
    fn send(&mut self, _: Port, _: std::net::SocketAddr, datagram: &[u8]) -> bool {
        self.sent.clear();
        self.sent.extend_from_slice(datagram);
        *self.count += 1;
        true
    }
    fn event(&mut self, event: media::MediaEvent) {
        black_box(event);
    }
    fn tally(&mut self) -> &mut Tally {
        self.tally
    }
    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        assert!(self.outbox.push(passing, payload));
    }
}

/// Two sessions as a worker has them.
struct Bench {
    now: Instant,
    sessions: [Session; 2],
    sent: Vec<u8>,
    count: u64,
    tally: Tally,
    outbox: Outbox,
}

impl Bench {
    fn new() -> Self {
        let now = Instant::from_nanos(7_000_000_000);
        let session = |seed| Session::new(now, WallTime::default(), seed, false);
        Self {
            now,
            sessions: [session(1), session(2)],
            sent: Vec::with_capacity(2_000),
            count: 0,
            tally: Tally::default(),
            outbox: Outbox::new(),
        }
    }

    fn step(&mut self, side: usize, step: impl FnOnce(&mut Session, Instant, &mut dyn Driver)) {
        let Self { now, sessions, sent, count, tally, outbox } = self;
        let mut quiet = Quiet { sent, count, tally, outbox };
        step(&mut sessions[side], *now, &mut quiet);
        let mut outbox = std::mem::take(&mut self.outbox);
        for parcel in outbox.drain() {
            let Self { now, sessions, sent, count, tally, .. } = self;
            let mut quiet = Quiet { sent, count, tally, outbox: &mut Outbox::default() };
            sessions[1 - side].pass(*now, session_id(side), parcel, &mut quiet);
        }
        self.outbox = outbox;
    }

    fn apply(&mut self, plans: &[LegPlan; 2]) {
        for side in [0, 1] {
            let plan = plans[side].clone();
            self.step(side, |session, now, driver| {
                session.apply(now, plan, Some(session_id(1 - side)), driver).unwrap();
            });
        }
    }

    fn deliver(&mut self, side: usize, datagram: &mut [u8]) {
        self.step(side, |session, now, driver| {
            session.on_datagram(now, Port::Rtp, address(side), datagram, driver);
        });
    }

    fn tick(&mut self, side: usize) {
        let now = self.now;
        if self.sessions[side].poll_timeout().is_some_and(|due| due <= now) {
            self.step(side, |session, now, driver| session.tick(now, driver));
        }
    }
}

fn bridged(mut plans: [LegPlan; 2], rule: Rule) -> [LegPlan; 2] {
    let there = media::between(&plans[0], &plans[1], rule);
    let back = media::between(&plans[1], &plans[0], rule);
    plans[0].purpose = media::Purpose::Bridge(Some(there));
    plans[1].purpose = media::Purpose::Bridge(Some(back));
    plans
}

/// Packets of both peers for some seconds, each as it arrives.
fn traffic(plans: &[LegPlan; 2], frames: usize) -> Vec<[Vec<u8>; 2]> {
    let mut pair = Pair::apart([plans[0].clone(), plans[1].clone()]);
    let mut encoders = [0, 1].map(|side: usize| encoder(plans[side].accept[0].codec));
    let packets = (0..frames).map(|frame| {
        [0, 1].map(|side| {
            let format = plans[side].accept[0];
            let samples = format.codec.samples_per_packet(20);
            let sound: Vec<i16> = (0..samples)
                .map(|at| ((at * (frame % 7 + 3) * 97) % 9_000) as i16 - 4_500)
                .collect();
            let mut payload = [0; 1_000];
            let length = encoders[side].encode(&sound, &mut payload).unwrap();
            let peer = &mut pair.sides[side].peer;
            let packet = peer.packet(format.payload_type, false, &payload[..length]);
            peer.timestamp += format.codec.timestamp_step(20);
            packet
        })
    });
    packets.collect()
}

/// Runs traffic, and says how many allocations its second half made.
fn allocations(plans: &[LegPlan; 2]) -> u64 {
    allocations_in(Bench::new(), plans)
}

fn allocations_in(mut bench: Bench, plans: &[LegPlan; 2]) -> u64 {
    bench.apply(plans);
    let mut packets = traffic(plans, 600);
    let run = |bench: &mut Bench, packets: &mut [[Vec<u8>; 2]]| {
        for packet in packets {
            bench.deliver(0, &mut packet[0]);
            bench.deliver(1, &mut packet[1]);
            for _ in 0..4 {
                bench.now += 5 * MS;
                bench.tick(0);
                bench.tick(1);
            }
        }
    };
    let (warm, steady) = packets.split_at_mut(300);
    run(&mut bench, warm);
    let before = bench.count;
    let counted = measure(|| run(&mut bench, steady));
    assert!(bench.count - before > 490, "{}", bench.count - before);
    counted.count_total
}

fn protections() -> Vec<(&'static str, [Protection; 2])> {
    let [cm, short, gcm, long] = [
        Suite::AesCm128HmacSha1_80,
        Suite::AesCm128HmacSha1_32,
        Suite::AeadAes128Gcm,
        Suite::AeadAes256Gcm,
    ];
    vec![
        ("plain", [plain(), plain()]),
        ("CM to plain", [srtp(cm, 1), plain()]),
        ("CM to CM", [srtp(cm, 1), srtp(short, 3)]),
        ("GCM to GCM", [srtp(gcm, 1), srtp(long, 3)]),
    ]
}

/// Plans of two legs that take one codec each.
fn plans(protections: &[Protection; 2], codecs: [Codec; 2], rule: Rule) -> [LegPlan; 2] {
    let plan = |side: usize| leg(side, protections[side].clone(), &[usual(codecs[side])]);
    bridged([plan(0), plan(1)], rule)
}

#[test]
fn a_packet_that_goes_on_takes_no_memory() {
    for (name, protections) in protections() {
        for codecs in [[Codec::Pcmu; 2], [Codec::Opus; 2], [Codec::Pcmu, Codec::Pcma]] {
            let made = allocations(&plans(&protections, codecs, EVENTS));
            // Some reports fall into the time: each SRTCP packet expands its keys.
            let reports = if name == "plain" { 0 } else { 6 };
            assert!(made <= reports, "{name} {codecs:?}: {made} allocations for 600 packets");
        }
    }
}

#[test]
fn a_packet_that_is_recorded_takes_no_memory() {
    let mut bench = Bench::new();
    let rings = [0, 1].map(|_| rtrb::RingBuffer::new(64));
    let mut packets = Vec::new();
    for (session, (ring, reader)) in bench.sessions.iter_mut().zip(rings) {
        session.tap_packets(ring);
        // It is not read, and full most of the time.
        packets.push(reader);
    }
    let plans = plans(&[plain(), plain()], [Codec::Opus; 2], EVENTS);
    assert_eq!(allocations_in(bench, &plans), 0);
    assert!(packets.iter().all(|reader| reader.slots() == 64));
}

#[test]
fn a_packet_that_is_decoded_and_encoded_takes_no_memory() {
    let pairs = [
        [Codec::Pcmu, Codec::G722],
        [Codec::Pcma, Codec::Opus],
        [Codec::G722, Codec::Opus],
        [Codec::Pcmu, Codec::Pcmu],
    ];
    for codecs in pairs {
        let mut legs = [0, 1].map(|side| leg(side, plain(), &[usual(codecs[side])]));
        if codecs[0] == codecs[1] {
            // Packets of another length, and tones to be looked for.
            legs[1].sendable[0].packet_ms = 30;
            legs[1].send = Some(legs[1].sendable[0]);
            legs[1].telephone_event = None;
        }
        let rule = Rule { keys_from: KeyForm::Tones, keys_to: KeyForm::Events };
        let made = allocations(&bridged(legs, rule));
        assert_eq!(made, 0, "{codecs:?}");
    }
}

/// Bytes that a worker holds for one leg of a call that flows, without its sockets.
fn bytes_per_leg(plans: &[LegPlan; 2]) -> u64 {
    let mut packets = traffic(plans, 400);
    let mut bench = None;
    let counted = measure(|| {
        let mut fresh = Bench::new();
        fresh.sent = Vec::new();
        fresh.outbox = Outbox::default();
        bench = Some(fresh);
    });
    let mut bench = bench.unwrap();
    let scratch = counted.bytes_current;
    let held = measure(|| {
        bench.apply(plans);
    });
    bench.outbox = Outbox::new();
    bench.sent = Vec::with_capacity(2_000);
    let grown = measure(|| {
        for packet in &mut packets {
            bench.deliver(0, &mut packet[0]);
            bench.deliver(1, &mut packet[1]);
            bench.now += 20 * MS;
            bench.tick(0);
            bench.tick(1);
        }
    });
    assert!(bench.count > 700);
    let heap = scratch + held.bytes_current + grown.bytes_current;
    // The session itself stands in the worker's table; its place in the map and in the timers
    // takes about as much as a few words.
    let table = size_of::<Option<(SessionId, Session, u16, [u64; 5])>>() as i64 + 96;
    (heap / 2 + table) as u64
}

#[test]
fn a_bridged_leg_is_small() {
    for (name, protections) in protections() {
        let formats = [Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu].map(usual);
        let plan = |side: usize| leg(side, protections[side].clone(), &formats);
        let bytes = bytes_per_leg(&bridged([plan(0), plan(1)], EVENTS));
        println!("{name}: {bytes} bytes for each leg");
        let most = if name == "plain" { 3_000 } else { 5_000 };
        assert!(bytes < most, "{name}: {bytes}");
    }
}

#[test]
fn a_leg_that_is_decoded_takes_what_its_jitter_buffer_and_codecs_need() {
    for (codecs, most) in [([Codec::Pcmu, Codec::G722], 70), ([Codec::Pcmu, Codec::Opus], 90)] {
        let bytes = bytes_per_leg(&plans(&[plain(), plain()], codecs, EVENTS)) / 1_000;
        println!("{codecs:?}: {bytes} KB for each leg, libopus' own memory not counted");
        assert!(bytes < most, "{codecs:?}: {bytes} KB");
    }
}
