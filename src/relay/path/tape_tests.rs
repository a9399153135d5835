//! Stories of a bridged call that is recorded: what is forwarded does not notice.

use audio::{Codec, SampleRate, level};
use base::{Instant, limit};
use media::{FRAME_SAMPLES, TapPacket};

use super::counters::{DropReason, Meter};
use super::pair::*;
use crate::listen::Listener;

/// Lets a side's packets be copied.
fn tap(pair: &mut Pair, side: usize) -> Listener {
    let (ring, packets) = rtrb::RingBuffer::<TapPacket>::new(limit::RELAY_TAP_PACKETS.get());
    pair.sides[side].session.tap_packets(ring);
    Listener::new(packets, pair.now)
}

/// What a listener hears until now, silence where there is nothing.
fn hear(listener: &mut Listener, now: Instant, sound: &mut Vec<i16>) {
    listener.listen(now, &mut |position, frame| {
        sound.resize(position as usize, 0);
        sound.extend_from_slice(frame);
    });
}

fn sine(rate: SampleRate, hz: f64, millis: u32) -> Vec<i16> {
    let turn = std::f64::consts::TAU * hz / f64::from(rate.hz());
    (0..rate.samples(millis)).map(|n| ((n as f64 * turn).sin() * 8_000.0) as i16).collect()
}

/// Both say a tone for two seconds, one of them with losses; what they hear, and the recording.
fn call(codec: Codec, is_recorded: bool) -> (Vec<Heard>, Vec<Heard>, [Vec<i16>; 2]) {
    let plans = [0, 1].map(|side| leg(side, plain(), &[usual(codec)]));
    let [one, other] = plans;
    let mut pair = Pair::of(one, other);
    let mut listeners: Vec<_> =
        (0..2).filter(|_| is_recorded).map(|side| tap(&mut pair, side)).collect();
    let rate = codec.sample_rate();
    let samples = codec.samples_per_packet(20);
    let mut encoders = [encoder(codec), encoder(codec)];
    let said = [sine(rate, 440.0, 2_000), sine(rate, 700.0, 2_000)];
    let mut sounds = [Vec::new(), Vec::new()];
    for n in 0..100 {
        for side in [0, 1] {
            let mut out = [0; 1400];
            let frame = &said[side][n * samples..][..samples];
            let length = encoders[side].encode(frame, &mut out).unwrap();
            if side == 1 && n % 25 == 7 {
                pair.lose(side, codec.timestamp_step(20));
            } else {
                let step = codec.timestamp_step(20);
                pair.say(side, usual(codec).payload_type, &out[..length], step);
            }
        }
        pair.wait(20 * MS);
        // The ear looks when it finds the time.
        if n % 3 == 0 {
            let now = pair.now;
            listeners.iter_mut().zip(&mut sounds).for_each(|(it, sound)| hear(it, now, sound));
        }
    }
    pair.wait(200 * MS);
    let now = pair.now;
    listeners.iter_mut().zip(&mut sounds).for_each(|(it, sound)| hear(it, now, sound));
    for side in [0, 1] {
        assert_eq!(pair.all_drops(side), []);
        let frames = pair.sides[side].world.tally.total(Meter::Frames);
        assert_eq!(frames, 0, "nothing is decoded where packets are forwarded");
    }
    (pair.heard(0), pair.heard(1), sounds)
}

#[test]
fn what_is_forwarded_is_the_same_with_and_without_a_recording() {
    for codec in Codec::ALL {
        let (a, b, _) = call(codec, false);
        let (recorded_a, recorded_b, sounds) = call(codec, true);
        assert!(a == recorded_a && b == recorded_b, "{codec:?}: bytes, numbers and times");
        for (side, hz) in [(0, 440.0), (1, 700.0)] {
            let sound = &sounds[side];
            assert!(sound.len() >= 16 * 1_900, "{codec:?} {}", sound.len());
            // Each voice is whole and alone.
            let middle = &sound[8_000..24_000];
            let loud = level::dbfs(middle);
            for window in middle.chunks_exact(FRAME_SAMPLES) {
                assert!(level::dbfs(window) > loud - 10.0, "{codec:?} {side}: a hole");
            }
            let at = |hz: f64| {
                let turn = std::f64::consts::TAU * hz / 16_000.0;
                let (re, im) = middle.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, it)| {
                    let (sin, cos) = (n as f64 * turn).sin_cos();
                    (re + f64::from(*it) * cos, im + f64::from(*it) * sin)
                });
                f64::hypot(re, im)
            };
            assert!(at(hz) > 20.0 * at(1_140.0 - hz), "{codec:?} {side}");
        }
    }
}

#[test]
fn a_recorder_that_does_not_look_loses_packets_and_the_call_none() {
    let mut pair =
        Pair::of(leg(0, plain(), &[usual(Codec::Pcmu)]), leg(1, plain(), &[usual(Codec::Pcmu)]));
    let mut listener = tap(&mut pair, 0);
    for n in 0..200_u8 {
        pair.talk(0, 0, &[n; 160]);
    }
    assert_eq!(pair.heard(1).len(), 200);
    let lost = 200 - limit::RELAY_TAP_PACKETS.value;
    assert_eq!(pair.all_drops(0), [(DropReason::TapFull, lost)]);
    // It comes back and takes what there is, and no more time than it has.
    let mut frames = 0;
    listener.listen(pair.now, &mut |_, _| frames += 1);
    assert!(frames <= 64, "{frames}");
    drop(listener);
    pair.talk(0, 0, &[1; 160]);
    assert_eq!(pair.heard(1).len(), 1, "nobody listens any more");
}

#[test]
fn a_masked_span_is_not_copied() {
    let mut pair =
        Pair::of(leg(0, plain(), &[usual(Codec::Pcmu)]), leg(1, plain(), &[usual(Codec::Pcmu)]));
    let mut listener = tap(&mut pair, 0);
    let mut sound = Vec::new();
    for n in 0..90 {
        if n % 30 == 0 {
            pair.sides[0].session.mask(n == 30);
        }
        pair.talk(0, 0, &[0x12; 160]);
        hear(&mut listener, pair.now, &mut sound);
    }
    assert_eq!(pair.heard(1).len(), 90, "it is said all the same");
    let loud = |from: usize, until: usize| level::dbfs(&sound[from * 320..until * 320]);
    assert!(loud(10, 25) > -20.0 && loud(70, 85) > -20.0);
    assert!(loud(42, 58) < -60.0, "{}", loud(42, 58));
}
