use super::*;
use crate::mix;
use crate::signals::{noise, sine, speech};
use crate::tone::{Tone, ToneGenerator};

const RATE: SampleRate = SampleRate::Hz8000;

/// A digit between two pauses.
fn digit(key: Key, on_ms: u32, levels: [f32; 2], shift: f32) -> Vec<i16> {
    let hz = key.hz().map(|hz| hz * (1.0 + shift));
    let tone = Tone { hz, dbm0: levels, on_ms, off_ms: 60, repeats: Some(1) };
    let mut pcm = vec![0; RATE.samples(50)];
    let mut sound = vec![0; RATE.samples(on_ms + 60)];
    ToneGenerator::new(&tone, RATE).fill(&mut sound);
    pcm.extend(sound);
    pcm
}

fn events(rate: SampleRate, pcm: &[i16]) -> Vec<DtmfEvent> {
    let mut detector = DtmfDetector::new(rate);
    let mut events = Vec::new();
    for frame in pcm.chunks(rate.samples(20)) {
        detector.push(frame, |event| events.push(event));
    }
    events
}

fn pressed(pcm: &[i16]) -> String {
    events(RATE, pcm)
        .iter()
        .filter_map(|event| match event {
            DtmfEvent::Pressed { key, .. } => Some(key.as_char()),
            DtmfEvent::Released { .. } => None,
        })
        .collect()
}

#[test]
fn keys_have_their_codes_characters_and_frequencies() {
    for key in Key::all() {
        assert_eq!(Key::from_event(key.event()), Some(key));
        assert_eq!(Key::from_char(key.as_char()), Some(key));
        assert_eq!(format!("{key:?}"), "[key]");
    }
    assert_eq!(Key::from_event(16), None);
    assert_eq!(Key::from_char('x'), None);
    assert_eq!(Key::from_char('d').map(Key::event), Some(15));
    assert_eq!(Key::from_char('*').map(Key::hz), Some([941.0, 1209.0]));
    assert_eq!(Key::from_char('5').map(Key::hz), Some([770.0, 1336.0]));
}

#[test]
fn every_key_is_heard_once_at_every_level_and_rate() {
    for key in Key::all() {
        for level in [0.0, -10.0, -20.0, -25.0] {
            let pcm = digit(key, 60, [level; 2], 0.0);
            assert_eq!(pressed(&pcm), key.as_char().to_string(), "{level} dBm0");
        }
        for rate in SampleRate::ALL {
            let mut pcm = vec![0; rate.samples(200)];
            let tone = Tone::dtmf(key, 80, 100);
            ToneGenerator::new(&tone, rate).fill(&mut pcm[rate.samples(50)..]);
            let heard = events(rate, &pcm);
            let [DtmfEvent::Pressed { started_at, .. }, DtmfEvent::Released { millis, .. }] =
                heard[..]
            else {
                panic!("{rate:?}: {}", heard.len())
            };
            let ms = started_at * 1000 / u64::from(rate.hz());
            assert!((40..60).contains(&ms) && (60..100).contains(&millis), "{ms} {millis}");
        }
    }
}

#[test]
fn forty_milliseconds_are_enough_and_twenty_three_are_not() {
    for key in Key::all() {
        for start in 0..51 {
            let mut pcm = vec![0; start];
            pcm.extend(digit(key, 40, [-9.0, -7.0], 0.0));
            assert_eq!(pressed(&pcm), key.as_char().to_string(), "{start}");
            let mut pcm = vec![0; start];
            pcm.extend(digit(key, 23, [-9.0, -7.0], 0.0));
            assert_eq!(pressed(&pcm), "", "{start}");
        }
    }
}

#[test]
fn a_sequence_with_short_pauses_is_told_apart_and_repeats_are_kept() {
    let mut pcm = Vec::new();
    for c in "1123580A*#".chars() {
        let mut sound = vec![0; RATE.samples(90)];
        let key = Key::from_char(c).unwrap();
        ToneGenerator::new(&Tone::dtmf(key, 50, 40), RATE).fill(&mut sound);
        pcm.extend(sound);
    }
    pcm.extend([0; 800]);
    assert_eq!(pressed(&pcm), "1123580A*#");
}

#[test]
fn a_dropout_of_10_ms_does_not_split_a_key() {
    for start in 0..51 {
        let mut pcm = vec![0; start];
        pcm.extend(digit(Key(5), 120, [-9.0, -7.0], 0.0));
        pcm[start + 800..start + 880].fill(0);
        assert_eq!(pressed(&pcm), "5", "{start}");
    }
}

#[test]
fn twist_within_q24_is_taken_and_beyond_is_not() {
    for key in Key::all() {
        let expected = key.as_char().to_string();
        assert_eq!(pressed(&digit(key, 60, [-14.0, -10.0], 0.0)), expected, "+4 dB");
        assert_eq!(pressed(&digit(key, 60, [-6.0, -14.0], 0.0)), expected, "-8 dB");
        assert_eq!(pressed(&digit(key, 60, [-18.0, -10.0], 0.0)), "", "+8 dB");
        assert_eq!(pressed(&digit(key, 60, [-6.0, -18.0], 0.0)), "", "-12 dB");
    }
}

#[test]
fn frequencies_within_1_5_percent_are_taken_and_beyond_3_5_are_not() {
    for key in Key::all() {
        for shift in [-0.015, 0.015] {
            let pcm = digit(key, 60, [-9.0, -7.0], shift);
            assert_eq!(pressed(&pcm), key.as_char().to_string(), "{shift}");
        }
        for shift in [-0.035, 0.035] {
            assert_eq!(pressed(&digit(key, 200, [-9.0, -7.0], shift)), "", "{shift}");
        }
    }
}

#[test]
fn keys_are_heard_through_noise_at_15_db() {
    let mut missed = 0;
    for (seed, key) in (0..20).flat_map(|seed| Key::all().map(move |key| (seed, key))) {
        let mut pcm = digit(key, 60, [-9.0, -9.0], 0.0);
        // The tones have -12.1 dBFS together; uniform noise of this amplitude -27.1.
        let hiss = noise(pcm.len(), 32_768.0 * 0.0441 * 1.732, seed);
        mix::add(&mut pcm, &hiss);
        missed += usize::from(pressed(&pcm) != key.as_char().to_string());
    }
    assert!(missed <= 3, "{missed} of 320");
}

#[test]
fn keys_survive_g711() {
    for law in [crate::g711::Law::A, crate::g711::Law::Mu] {
        for key in Key::all() {
            let mut pcm = digit(key, 50, [-25.0, -22.0], 0.0);
            let mut coded = vec![0; pcm.len()];
            law.encode(&pcm, &mut coded);
            law.decode(&coded, &mut pcm);
            assert_eq!(pressed(&pcm), key.as_char().to_string());
        }
    }
}

#[test]
fn noise_single_tones_and_silence_are_no_keys() {
    assert_eq!(pressed(&noise(8000 * 30, 20_000.0, 3)), "");
    assert_eq!(pressed(&[0; 8000]), "");
    for hz in ROWS.into_iter().chain(COLUMNS).chain([440.0, 1000.0, 2100.0]) {
        assert_eq!(pressed(&sine(8000, hz.into(), 12_000.0, 8000)), "", "{hz}");
    }
    for tone in [Tone::RINGBACK_US, Tone::RINGBACK_EU, Tone::BUSY_US] {
        let mut pcm = vec![0; 8000 * 3];
        ToneGenerator::new(&tone, RATE).fill(&mut pcm);
        assert_eq!(pressed(&pcm), "");
    }
}

#[test]
fn voices_are_no_keys() {
    for seed in 0..12 {
        assert_eq!(pressed(&speech(8000, 10.0, 20_000.0, seed)), "", "{seed}");
    }
}

#[test]
fn a_suspicion_comes_before_the_certainty() {
    let pcm = digit(Key(7), 60, [-9.0, -7.0], 0.0);
    let mut detector = DtmfDetector::new(RATE);
    detector.push(&pcm[..RATE.samples(50) + 140], |_| panic!("too early"));
    assert!(detector.is_suspected());
    detector.push(&pcm[RATE.samples(50) + 140..], |_| ());
    detector.push(&[0; 800], |_| ());
    assert!(!detector.is_suspected());
}
