use super::*;
use crate::codec::{Codec, Decoder, Encoder};
use crate::signals::{noise, sine, speech};
use crate::{OpusSettings, Tone, ToneGenerator, mix};

/// Pushes `pcm` in frames of 20 ms and gives what was decided.
fn listen(rate: SampleRate, pcm: &[i16]) -> (Vec<Onset>, Vec<u64>, Voice) {
    let mut detector = VoiceDetector::new(rate, Threshold::default());
    let (mut onsets, mut ends) = (Vec::new(), Vec::new());
    let mut last = detector.push(&[]);
    for frame in pcm.chunks(rate.samples(20)) {
        last = detector.push(frame);
        onsets.extend(last.onset);
        ends.extend(last.ended_at);
    }
    (onsets, ends, last)
}

/// `lead_ms` of faint noise, then speech, then a second of noise.
fn call(rate: SampleRate, lead_ms: u32, peak: f64, seed: u64) -> Vec<i16> {
    let voice = speech(rate.hz(), 1.2, peak, seed);
    let mut pcm = noise(rate.samples(lead_ms) + voice.len() + rate.samples(1000), 20.0, seed);
    mix::add(&mut pcm[rate.samples(lead_ms)..], &voice);
    pcm
}

#[test]
fn an_onset_is_decided_within_100_ms_at_every_rate_and_level() {
    for rate in SampleRate::ALL {
        for seed in 0..3 {
            for peak in [5000.0, 20_000.0] {
                let (onsets, ends, last) = listen(rate, &call(rate, 700, peak, seed));
                let ms = |at: u64| at as i64 * 1000 / i64::from(rate.hz()) - 700;
                let decided = onsets.first().map(|onset| ms(onset.decided_at));
                assert!(
                    decided.is_some_and(|ms| (0..=100).contains(&ms)),
                    "{rate:?} {seed} {peak} {decided:?}"
                );
                assert!(onsets.iter().all(|onset| onset.started_at < onset.decided_at));
                assert!(ends.last().is_some_and(|&end| (1200..1900).contains(&ms(end))));
                assert!(!last.is_speech);
            }
        }
    }
}

#[test]
fn an_onset_is_decided_within_100_ms_through_every_codec() {
    for codec in Codec::ALL {
        for seed in 0..4 {
            let settings = OpusSettings::default();
            let mut encoder = Encoder::new(codec, &settings).unwrap();
            let rate = encoder.sample_rate();
            let mut decoder = Decoder::new(codec, rate).unwrap();
            let mut out = Vec::new();
            for frame in call(rate, 700, 8000.0, seed).chunks_exact(rate.samples(20)) {
                let (mut payload, mut pcm) = ([0; 1000], [0; 5760]);
                let bytes = encoder.encode(frame, &mut payload).unwrap();
                let samples = decoder.decode(&payload[..bytes], &mut pcm).unwrap();
                out.extend_from_slice(&pcm[..samples]);
            }
            let (onsets, ..) = listen(rate, &out);
            let decided = onsets[0].decided_at * 1000 / u64::from(rate.hz());
            assert!((700..=800).contains(&decided), "{codec:?} {seed} {decided}");
        }
    }
}

#[test]
fn a_quiet_voice_is_heard_too() {
    for seed in 0..4 {
        let (onsets, ..) = listen(SampleRate::Hz8000, &call(SampleRate::Hz8000, 700, 2000.0, seed));
        assert!(onsets.first().is_some_and(|onset| onset.decided_at > 700 * 8), "{seed}");
    }
}

#[test]
fn speech_in_noise_is_heard_and_the_noise_is_not() {
    let rate = SampleRate::Hz8000;
    for seed in 0..6 {
        let mut pcm = call(rate, 1500, 12_000.0, seed);
        // About 14 dB under the speech.
        let hiss = noise(pcm.len(), 800.0, seed + 50);
        mix::add(&mut pcm, &hiss);
        let (onsets, ..) = listen(rate, &pcm);
        let decided = onsets[0].decided_at / 8;
        assert!((1500..=1620).contains(&decided), "{seed} {decided}");
    }
}

#[test]
fn silence_noise_and_hum_are_no_voice() {
    for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
        let length = rate.samples(3000);
        assert_eq!(listen(rate, &vec![0; length]).0, []);
        for amplitude in [5.0, 50.0, 500.0, 4000.0] {
            for seed in 0..2 {
                let hiss = noise(length, amplitude, seed);
                assert_eq!(listen(rate, &hiss).0, [], "{rate:?} {amplitude} from the start");
                let mut late = vec![0; rate.samples(1000)];
                late.extend(&hiss);
                assert_eq!(listen(rate, &late).0, [], "{rate:?} {amplitude} after silence");
            }
        }
        for mains in [50.0, 60.0] {
            let mut hum = noise(length, 10.0, 1);
            for (harmonic, amplitude) in [(1.0, 2000.0), (2.0, 1200.0), (3.0, 900.0), (5.0, 400.0)]
            {
                mix::add(&mut hum, &sine(rate.hz(), mains * harmonic, amplitude, length));
            }
            assert_eq!(listen(rate, &hum).0, [], "{rate:?} {mains}");
            let mut late = vec![0; rate.samples(1000)];
            late.extend(&hum);
            assert_eq!(listen(rate, &late).0, [], "{rate:?} {mains} after silence");
        }
    }
}

#[test]
fn keys_ringback_and_beeps_are_no_voice() {
    for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
        let keys =
            crate::Key::all().map(|key| Tone { repeats: Some(4), ..Tone::dtmf(key, 100, 100) });
        let progress = [Tone::RINGBACK_EU, Tone::RINGBACK_US, Tone::BUSY_EU, Tone::BUSY_US];
        let beep = Tone { repeats: Some(5), off_ms: 300, ..Tone::BEEP };
        for tone in keys.chain(progress).chain([beep]) {
            let mut pcm = vec![0; rate.samples(1500)];
            ToneGenerator::new(&tone, rate).fill(&mut pcm[rate.samples(300)..]);
            assert_eq!(listen(rate, &pcm).0, [], "{rate:?} {tone:?}");
            mix::add(&mut pcm, &noise(rate.samples(1500), 20.0, 1));
            assert_eq!(listen(rate, &pcm).0, [], "{rate:?} {tone:?} on a noisy line");
        }
    }
}

#[test]
fn the_threshold_is_obeyed() {
    let pcm = call(SampleRate::Hz16000, 500, 3000.0, 1);
    let onset_with = |threshold: Threshold| {
        let mut detector = VoiceDetector::new(SampleRate::Hz16000, Threshold::default());
        detector.set_threshold(threshold);
        assert_eq!(detector.threshold(), threshold);
        pcm.chunks(320).find_map(|frame| detector.push(frame).onset)
    };
    let default = Threshold::default();
    let usual = onset_with(default).unwrap();
    assert_eq!(onset_with(Threshold { level_dbfs: -5.0, ..default }), None);
    assert_eq!(onset_with(Threshold { above_noise_db: 80.0, ..default }), None);
    assert_eq!(onset_with(Threshold { probability: 1.1, ..default }), None);
    let slow = onset_with(Threshold { onset_ms: 96, ..default }).unwrap();
    assert!(slow.decided_at >= usual.decided_at + 768);
}

#[test]
fn the_level_and_the_floor_are_told_and_reset_forgets() {
    let mut detector = VoiceDetector::new(SampleRate::Hz8000, Threshold::default());
    let hiss = noise(8000, 100.0, 2);
    let mut last = detector.push(&[]);
    assert_eq!((last.level_dbfs, last.noise_dbfs), (SILENCE_DBFS, SILENCE_DBFS));
    for frame in hiss.chunks(160) {
        last = detector.push(frame);
    }
    assert!((last.level_dbfs + 55.1).abs() < 2.0, "{}", last.level_dbfs);
    assert!((last.noise_dbfs + 55.1).abs() < 2.0, "{}", last.noise_dbfs);
    detector.reset();
    assert_eq!(detector.push(&[]).noise_dbfs, SILENCE_DBFS);
}

#[test]
fn extreme_samples_of_any_frame_size_are_survived() {
    for rate in SampleRate::ALL {
        let mut detector = VoiceDetector::new(rate, Threshold::default());
        let wild = noise(20_000, 32_767.0, 3);
        for size in [1, 7, 333, 5000] {
            for frame in wild.chunks(size) {
                let voice = detector.push(frame);
                assert!((0.0..=1.0).contains(&voice.probability));
            }
        }
        for constant in [i16::MIN, i16::MAX, 0] {
            detector.push(&vec![constant; 5000]);
        }
        let square: Vec<i16> =
            (0..5000).map(|i| if i % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        detector.push(&square);
    }
}
