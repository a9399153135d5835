//! Stories of Opus on the way to a codec that is none: what is repaired, left out and mixed down.

use audio::{Codec, Encoder, OpusSettings, SampleRate, level};

use super::counters::Meter;
use super::pair::*;
use crate::speech;

const OPUS: u8 = 111;
const STEP: u32 = 960;

fn pair_to(to: Codec) -> Pair {
    Pair::of(leg(0, plain(), &[usual(Codec::Opus)]), leg(1, plain(), &[usual(to)]))
}

/// Says payloads, one each 20 ms, an empty one not; what the listener of PCMU plays.
fn carry(payloads: &[Vec<u8>], is_lost: impl Fn(usize) -> bool) -> Vec<i16> {
    let mut pair = pair_to(Codec::Pcmu);
    for (n, payload) in payloads.iter().enumerate() {
        if is_lost(n) {
            pair.lose(0, STEP);
        } else {
            pair.say(0, OPUS, payload, STEP);
        }
        pair.wait(20 * MS);
    }
    pair.wait(200 * MS);
    let heard = pair.heard(1);
    let mut sound = vec![0; heard.len() * 160];
    for (packet, out) in heard.iter().zip(sound.chunks_exact_mut(160)) {
        decoder(Codec::Pcmu).0.decode(&packet.payload, out).unwrap();
    }
    sound
}

#[test]
fn a_lost_packet_is_better_repaired_from_the_next_one_than_made_up() {
    let said = speech::caller();
    let error = |expected_loss_percent| {
        let settings = OpusSettings {
            sample_rate: SampleRate::Hz16000,
            bitrate: 32_000,
            complexity: 8,
            expected_loss_percent,
            is_discontinuous: false,
        };
        let mut encoder = Encoder::new(Codec::Opus, &settings).unwrap();
        let mut out = [0; 1400];
        let payloads: Vec<_> = said
            .chunks_exact(320)
            .map(|frame| {
                let length = encoder.encode(frame, &mut out).unwrap();
                out[..length].to_vec()
            })
            .collect();
        let whole = carry(&payloads, |_| false);
        let broken = carry(&payloads, |n| n % 9 == 5);
        assert_eq!(whole.len(), broken.len());
        assert!(whole != broken);
        // What of the speech is wrong, against the speech.
        let power = |sound: &[f64]| sound.iter().map(|it| it * it).sum::<f64>();
        let wrong: Vec<f64> =
            whole.iter().zip(&broken).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let right: Vec<f64> = whole.iter().copied().map(f64::from).collect();
        10.0 * (power(&wrong) / power(&right)).log10()
    };
    let (repaired, made_up) = (error(25), error(0));
    assert!(repaired < made_up - 3.0, "{repaired:.1} dB against {made_up:.1} dB");
}

#[test]
fn both_channels_of_a_stereo_source_are_heard() {
    let mut encoder =
        opus::Encoder::new(48_000, opus::Channels::Stereo, opus::Application::Audio).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(96_000)).unwrap();
    let sine = |n: usize, hz: f64| {
        ((n as f64 * std::f64::consts::TAU * hz / 48_000.0).sin() * 8_000.0) as i16
    };
    let mut out = [0; 1400];
    let payloads: Vec<_> = (0..75)
        .map(|frame| {
            let samples =
                (frame * 960..(frame + 1) * 960).flat_map(|n| [sine(n, 500.0), sine(n, 1_300.0)]);
            let samples: Vec<i16> = samples.collect();
            let length = encoder.encode(&samples, &mut out).unwrap();
            out[..length].to_vec()
        })
        .collect();
    let sound = carry(&payloads, |_| false);
    let middle = &sound[4_000..8_000];
    let amplitude = |hz: f64| {
        let turn = std::f64::consts::TAU * hz / 8_000.0;
        let (re, im) = middle.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, it)| {
            let (sin, cos) = (n as f64 * turn).sin_cos();
            (re + f64::from(*it) * cos, im + f64::from(*it) * sin)
        });
        2.0 * f64::hypot(re, im) / middle.len() as f64
    };
    // The mean of both channels: each tone at half its height.
    for hz in [500.0, 1_300.0] {
        let db = 20.0 * (amplitude(hz) / 4_000.0).log10();
        assert!(db.abs() < 1.0, "{hz}: {db:.2} dB");
    }
    assert!(amplitude(900.0) < 40.0, "and nothing else");
}

#[test]
fn silence_is_left_out_for_a_listener_that_wants_it_so() {
    let mut callee = leg(1, plain(), &[usual(Codec::Opus)]);
    callee.sendable[0].dtx = true;
    callee.send = Some(callee.sendable[0]);
    let mut pair = Pair::of(leg(0, plain(), &[usual(Codec::Pcmu)]), callee);
    let speech = speech::caller();
    let mut law = encoder(Codec::Pcmu);
    let mut out = [0; 160];
    let frames = |from: usize| {
        let narrow = speech[from..from + 320 * 50].chunks_exact(2).map(|two| two[0]);
        narrow.collect::<Vec<i16>>()
    };
    let loud = (0..4)
        .map(|n| n * 8_000)
        .max_by(|a, b| level::dbfs(&frames(*a)).total_cmp(&level::dbfs(&frames(*b))));
    let spoken = frames(loud.unwrap());
    let sound = [spoken.clone(), vec![0; 8_000 * 3], spoken].concat();
    for frame in sound.chunks_exact(160) {
        let length = law.encode(frame, &mut out).unwrap();
        pair.say(0, 0, &out[..length], 160);
        pair.wait(20 * MS);
    }
    pair.wait(200 * MS);
    let heard = pair.heard(1);
    assert_eq!(pair.sides[0].world.tally.total(Meter::Skipped), 0);
    assert!(heard.len() < 50 + 50 + 60, "{} of 250 packets", heard.len());
    let (first, last) = (&heard[0], heard.last().unwrap());
    let ticks = last.timestamp.wrapping_sub(first.timestamp);
    let passed = last.at.since(first.at).as_millis() as u32 * 48;
    assert!(ticks.abs_diff(passed) <= 48 * 40, "time goes on: {ticks} {passed}");
    for two in heard.windows(2) {
        assert_eq!(two[1].sequence, two[0].sequence.wrapping_add(1), "what is left out is no loss");
        let step = two[1].timestamp.wrapping_sub(two[0].timestamp);
        assert!(step % STEP == 0 && (step == STEP || two[1].marker), "{step}");
    }
}
