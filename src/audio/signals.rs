//! Signals and measurements for tests.

use base::{Random, SeededRandom};
use core::f64::consts::{PI, TAU};

/// A sine of `amplitude` that starts at phase 0.
pub(crate) fn sine(rate: u32, hz: f64, amplitude: f64, samples: usize) -> Vec<i16> {
    (0..samples)
        .map(|i| (amplitude * (TAU * hz * i as f64 / f64::from(rate)).sin()).round() as i16)
        .collect()
}

/// White noise, uniform within `amplitude`.
pub(crate) fn noise(samples: usize, amplitude: f64, seed: u64) -> Vec<i16> {
    let mut random = SeededRandom::new(seed);
    (0..samples).map(|_| (uniform(&mut random) * amplitude) as i16).collect()
}

/// A number in -1..1.
fn uniform(random: &mut SeededRandom) -> f64 {
    f64::from(random.u32()) / f64::from(u32::MAX) * 2.0 - 1.0
}

/// Something like speech: a jittered pulse train, gliding in pitch, through four formants that
/// move from vowel to vowel, in syllables of 200 ms with short pauses and a hiss between some.
pub(crate) fn speech(rate: u32, seconds: f64, peak: f64, seed: u64) -> Vec<i16> {
    const VOWELS: [[f64; 4]; 6] = [
        [730.0, 1090.0, 2440.0, 3300.0],
        [270.0, 2290.0, 3010.0, 3500.0],
        [300.0, 870.0, 2240.0, 3200.0],
        [530.0, 1840.0, 2480.0, 3400.0],
        [570.0, 840.0, 2410.0, 3200.0],
        [660.0, 1720.0, 2410.0, 3350.0],
    ];
    let fs = f64::from(rate);
    let mut random = SeededRandom::new(seed);
    let mut states = [[0.0f64; 2]; 4];
    let mut formants = VOWELS[0];
    let (mut next_pulse, mut tilt, mut target) = (0.0, 0.0, 0);
    let samples = (seconds * fs) as usize;
    let mut out = Vec::with_capacity(samples);
    for i in 0..samples {
        let t = i as f64 / fs;
        let in_syllable = t % 0.24;
        if in_syllable < 1.0 / fs {
            target = random.below(6) as usize;
        }
        for (formant, wanted) in formants.iter_mut().zip(VOWELS[target]) {
            *formant += (wanted - *formant) * 60.0 / fs;
        }
        let pitch = 115.0 + 25.0 * (TAU * 0.7 * t).sin();
        let mut source = 0.0;
        if i as f64 >= next_pulse {
            source = 1.0;
            next_pulse = i as f64 + fs / pitch * (1.0 + 0.01 * uniform(&mut random));
        }
        tilt = 0.9 * tilt + source; // -6 dB per octave, with the lips' +6 already taken off
        let envelope = (PI * (in_syllable / 0.2).min(1.0)).sin().max(0.0).sqrt();
        let mut sample = tilt * envelope + 0.004 * uniform(&mut random) * envelope;
        for ((state, hz), width) in states.iter_mut().zip(formants).zip([70.0, 90.0, 120.0, 160.0])
        {
            let radius = (-PI * width / fs).exp();
            let c1 = 2.0 * radius * (TAU * hz.min(fs * 0.46) / fs).cos();
            let y =
                (1.0 - c1 + radius * radius) * sample + c1 * state[0] - radius * radius * state[1];
            *state = [y, state[0]];
            sample = y;
        }
        out.push(sample);
    }
    let most = out.iter().fold(1e-9f64, |most, s| most.max(s.abs()));
    out.iter().map(|s| (s / most * peak).round() as i16).collect()
}

/// The power of the component at `hz`, in dB relative to a sine of amplitude 1.
pub(crate) fn power_db(pcm: &[i16], rate: u32, hz: f64) -> f64 {
    let (mut re, mut im, mut sum) = (0.0, 0.0, 0.0);
    for (i, &sample) in pcm.iter().enumerate() {
        // Blackman-Harris: side lobes below -92 dB.
        let x = TAU * i as f64 / pcm.len() as f64;
        let window =
            0.35875 - 0.48829 * x.cos() + 0.14128 * (2.0 * x).cos() - 0.01168 * (3.0 * x).cos();
        let phase = TAU * hz * i as f64 / f64::from(rate);
        re += window * f64::from(sample) * phase.cos();
        im += window * f64::from(sample) * phase.sin();
        sum += window;
    }
    20.0 * (2.0 * re.hypot(im) / sum).max(1e-9).log10()
}

/// The best signal-to-noise ratio over delays of `actual` up to `delay_max` samples.
pub(crate) fn aligned_snr_db(reference: &[i16], actual: &[i16], delay_max: usize) -> f64 {
    (0..=delay_max)
        .map(|delay| crate::level::snr_db(reference, &actual[delay..]))
        .fold(f64::NEG_INFINITY, f64::max)
}

/// The largest step between neighbouring samples.
pub(crate) fn largest_step(pcm: &[i16]) -> i32 {
    pcm.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max().unwrap_or(0)
}
