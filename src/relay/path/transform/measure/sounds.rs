//! Sounds around a voice: noises to lay under it, and what is none.

use audio::{ComfortNoise, Key, SampleRate, Tone, ToneGenerator, level, mix};
use base::{Random, SeededRandom};

use super::corpus::{self, PROSE, VOICES};

/// What is laid under a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noise {
    White,
    Pink,
    Babble,
}

/// 20 s of each noise at each rate, at 1000 rms.
pub(crate) struct Noises {
    sounds: Vec<(Noise, SampleRate, Vec<i16>)>,
}

impl Noises {
    pub(crate) fn new() -> Self {
        let crowd = babble();
        let mut sounds = Vec::new();
        for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
            let samples = rate.samples(20_000);
            let narrow = || corpus::resample(&crowd, SampleRate::Hz16000, rate);
            let crowd = if rate == SampleRate::Hz16000 { crowd.clone() } else { narrow() };
            sounds.push((Noise::White, rate, noise(samples, false, 1)));
            sounds.push((Noise::Pink, rate, noise(samples, true, 2)));
            sounds.push((Noise::Babble, rate, at_rms(&crowd, 1000.0)));
        }
        Self { sounds }
    }

    pub(crate) fn of(&self, noise: Noise, rate: SampleRate) -> &[i16] {
        &self.sounds.iter().find(|it| (it.0, it.1) == (noise, rate)).unwrap().2
    }
}

/// Many voices at once, at 16 kHz: the prose of each, begun at many places.
fn babble() -> Vec<i16> {
    let mut crowd = vec![0.0f32; 20 * 16_000];
    for (index, voice) in VOICES.iter().enumerate() {
        let voice = corpus::flite(voice, PROSE);
        for turn in 0..4 {
            let shift = (index * 4 + turn) * 17_321;
            for (at, sample) in crowd.iter_mut().enumerate() {
                *sample += f32::from(voice[(at + shift) % voice.len()]) / 8.0;
            }
        }
    }
    crowd.iter().map(|sample| *sample as i16).collect()
}

/// White or pink noise at 1000 rms.
pub(crate) fn noise(samples: usize, is_pink: bool, seed: u64) -> Vec<i16> {
    let mut random = SeededRandom::new(seed);
    let mut uniform = move || f64::from(random.u32()) / f64::from(u32::MAX) * 2.0 - 1.0;
    // Paul Kellet's filter: three poles that fall 3 dB per octave together.
    let mut poles = [0.0f64; 3];
    let mut next = move || {
        let white = uniform() + uniform() + uniform();
        if !is_pink {
            return white;
        }
        for (pole, (keep, take)) in
            poles.iter_mut().zip([(0.99765, 0.099_046), (0.963, 0.296_516_4), (0.57, 1.052_691_3)])
        {
            *pole = keep * *pole + take * white;
        }
        poles.iter().sum::<f64>() + white * 0.1848
    };
    let raw: Vec<f64> = (0..samples).map(|_| next()).collect();
    let rms = (raw.iter().map(|it| it * it).sum::<f64>() / samples as f64).sqrt();
    raw.iter().map(|it| (it / rms * 1000.0) as i16).collect()
}

/// The root mean square.
pub(crate) fn rms(pcm: &[i16]) -> f32 {
    let sum: f64 = pcm.iter().map(|it| f64::from(*it).powi(2)).sum();
    (sum / pcm.len().max(1) as f64).sqrt() as f32
}

pub(crate) fn scaled(pcm: &[i16], gain: f32) -> Vec<i16> {
    pcm.iter().map(|it| (f32::from(*it) * gain) as i16).collect()
}

fn at_rms(pcm: &[i16], wanted: f32) -> Vec<i16> {
    scaled(pcm, wanted / rms(pcm).max(1.0))
}

/// `pcm` of 1000 rms at so many dBFS.
fn at_level(pcm: &[i16], dbfs: f32) -> Vec<i16> {
    scaled(pcm, level::from_db(dbfs) * 32.768)
}

/// Sounds that are no speech, by name, at 8 kHz.
pub(crate) fn no_speech(noises: &Noises) -> Vec<(&'static str, Vec<i16>)> {
    let rate = SampleRate::Hz8000;
    let mut white_steps = Vec::new();
    let mut pink_steps = Vec::new();
    let mut comfort = vec![0; rate.samples(60_000)];
    let mut generator = ComfortNoise::new(4);
    let mut random = SeededRandom::new(8);
    for (index, part) in comfort.chunks_mut(rate.samples(3000)).enumerate() {
        generator.set_level(-70.0 + 5.0 * (index * 3 % 7) as f32);
        generator.fill(part);
    }
    for index in 0..60 {
        let dbfs = -65.0 + random.below(46) as f32;
        let at = rate.samples(2000) * (index % 9);
        let part = at..at + rate.samples(2000);
        white_steps.extend(at_level(&noises.of(Noise::White, rate)[part.clone()], dbfs));
        pink_steps.extend(at_level(&noises.of(Noise::Pink, rate)[part], dbfs));
    }
    vec![
        ("silence", vec![0; rate.samples(60_000)]),
        ("comfort noise with steps", comfort),
        ("white noise with steps", white_steps),
        ("pink noise with steps", pink_steps),
        ("clicks", clicks(60_000)),
        ("knocks", knocks(60_000)),
        ("knocks over noise", over_noise(&knocks(60_000), noises)),
        ("crackle", crackle(60_000)),
        ("breaths", breaths(90_000)),
        ("hisses", hisses(60_000)),
        ("keys", keys()),
        ("call progress", progress()),
        ("hum", hum(60_000)),
        ("chords", chords(60_000)),
    ]
}

/// Two clicks a second: 1 to 24 samples of any sign.
fn clicks(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(3);
    let mut pcm = vec![0; SampleRate::Hz8000.samples(millis)];
    let mut at = 900;
    while at + 24 < pcm.len() {
        let amplitude = 1000 << random.below(5);
        for sample in &mut pcm[at..at + 1 + random.below(24) as usize] {
            *sample = (random.below(2 * amplitude) as i32 - amplitude as i32) as i16;
        }
        at += 2000 + random.below(4000) as usize;
    }
    pcm
}

/// A handset put down, a desk hit: a sine of 60 to 400 Hz that dies away in 10 to 40 ms, with a
/// click in front.
fn knocks(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(5);
    let mut pcm = vec![0; SampleRate::Hz8000.samples(millis)];
    let mut at = 900;
    while at + 2400 < pcm.len() {
        let amplitude = f32::from(1000u16 << random.below(5));
        let step = (60 + random.below(340)) as f32 / 8000.0 * core::f32::consts::TAU;
        let decay = (80 + random.below(240)) as f32;
        for (index, sample) in pcm[at..at + 2400].iter_mut().enumerate() {
            let fall = (-(index as f32) / decay).exp();
            let scratch = random.below(1000) as f32 / 500.0 - 1.0;
            let click = scratch * (-(index as f32) / 30.0).exp();
            *sample = (amplitude * (fall * (step * index as f32).sin() + click)) as i16;
        }
        at += 4000 + random.below(6000) as usize;
    }
    pcm
}

/// The same over white noise at -52 dBFS.
fn over_noise(pcm: &[i16], noises: &Noises) -> Vec<i16> {
    let hiss = at_level(noises.of(Noise::White, SampleRate::Hz8000), -52.0);
    let hiss = hiss.iter().cycle();
    pcm.iter().zip(hiss).map(|(sample, hiss)| sample.saturating_add(*hiss)).collect()
}

/// A bad line: bursts of white or pink noise of 20 to 300 ms, at -55 to -20 dBFS.
fn crackle(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(13);
    let rate = SampleRate::Hz8000;
    let mut pcm = at_level(&noise(rate.samples(millis), true, 31), -68.0);
    let mut at = 800;
    while at + 4000 < pcm.len() {
        let length = rate.samples(20 + random.below(280));
        let burst = noise(length, random.below(2) == 0, u64::from(random.u32()));
        mix::add(&mut pcm[at..at + length], &at_level(&burst, -55.0 + random.below(36) as f32));
        at += length + rate.samples(10 + random.below(700));
    }
    pcm
}

/// Somebody breathes into the receiver every three seconds: noise through the mouth's first two
/// resonances that swells and fades within 300 to 900 ms, at -48 to -24 dBFS.
fn breaths(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(6);
    let rate = SampleRate::Hz8000;
    let mut pcm = vec![0; rate.samples(millis)];
    for (index, part) in pcm.chunks_exact_mut(rate.samples(3000)).enumerate() {
        let length = rate.samples(300 + random.below(600));
        let raw = noise(length, true, 100 + index as u64);
        let mut breath = vec![0.0f32; length];
        for hz in [400 + random.below(500), 1400 + random.below(800)] {
            let (turn, radius) = (hz as f32 / 8000.0 * core::f32::consts::TAU, 0.90f32);
            let mut state = [0.0f32; 2];
            for (sample, raw) in breath.iter_mut().zip(&raw) {
                let next = f32::from(*raw) + 2.0 * radius * turn.cos() * state[0]
                    - radius * radius * state[1];
                state = [next, state[0]];
                *sample += next;
            }
        }
        let swell: Vec<i16> = breath
            .iter()
            .enumerate()
            .map(|(at, it)| {
                let turn = at as f32 / length as f32 * core::f32::consts::PI;
                (*it * turn.sin() * 0.1) as i16
            })
            .collect();
        let dbfs = -48.0 + random.below(25) as f32;
        part[800..800 + length].copy_from_slice(&at_level(&at_rms(&swell, 1000.0), dbfs));
    }
    pcm
}

/// Paper, a spray, a tap: noise without lows that begins within 0 to 90 ms and lasts 0.2 to 1.6 s,
/// at -55 to -25 dBFS over a quiet line.
fn hisses(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(7);
    let rate = SampleRate::Hz8000;
    let mut pcm = at_level(&noise(rate.samples(millis), true, 55), -65.0);
    for (index, part) in pcm.chunks_exact_mut(rate.samples(2000)).enumerate() {
        let length = rate.samples(200 + random.below(1400));
        let attack = rate.samples(random.below(90)) + 1;
        let mut hiss = noise(length, false, 200 + index as u64);
        for _ in 0..1 + random.below(3) {
            // Each turn takes 6 dB per octave from below 2.5 kHz.
            let mut before = 0;
            for sample in &mut hiss {
                (before, *sample) = (*sample, (*sample - before) / 2);
            }
        }
        let hiss = at_level(&at_rms(&hiss, 1000.0), -55.0 + random.below(31) as f32);
        for (at, sample) in hiss.iter().enumerate() {
            let edge = (at.min(length - at) as f32 / attack as f32).min(1.0);
            part[800 + at] += (f32::from(*sample) * edge) as i16;
        }
    }
    pcm
}

/// Every key, of three lengths.
fn keys() -> Vec<i16> {
    let mut pcm = vec![0; 8000];
    for on_ms in [60, 100, 400] {
        for key in Key::all() {
            pcm.extend(played(&Tone::dtmf(key, on_ms, 100), on_ms + 100));
        }
    }
    pcm
}

/// Ringback, busy, dial tone, beeps, special information tones, fax calling.
fn progress() -> Vec<i16> {
    let one = |hz: f32, on_ms, off_ms| Tone {
        hz: [hz, 0.0],
        dbm0: [-13.0; 2],
        on_ms,
        off_ms,
        repeats: None,
    };
    let mut pcm = vec![0; 8000];
    for tone in [Tone::RINGBACK_US, Tone::RINGBACK_EU, Tone::BUSY_US, Tone::BUSY_EU] {
        pcm.extend(played(&tone, 12_000));
    }
    let dial = Tone { hz: [350.0, 440.0], off_ms: 0, on_ms: 8000, ..Tone::RINGBACK_US };
    pcm.extend(played(&dial, 8000));
    pcm.extend(played(&one(1100.0, 500, 3000), 10_000));
    pcm.extend(played(&one(1000.0, 200, 800), 6000));
    for _ in 0..3 {
        for hz in [950.0, 1400.0, 1800.0] {
            pcm.extend(played(&one(hz, 330, 0), 330));
        }
        pcm.extend([0; 8000]);
    }
    pcm
}

fn played(tone: &Tone, millis: u32) -> Vec<i16> {
    let mut pcm = vec![0; SampleRate::Hz8000.samples(millis)];
    ToneGenerator::new(tone, SampleRate::Hz8000).fill(&mut pcm);
    pcm
}

/// Mains hum with its harmonics, at levels that step.
fn hum(millis: u32) -> Vec<i16> {
    let mut pcm = vec![0; SampleRate::Hz8000.samples(millis)];
    for (index, part) in pcm.chunks_exact_mut(SampleRate::Hz8000.samples(3000)).enumerate() {
        let mains = [50.0, 60.0][index % 2] / 8000.0 * core::f32::consts::TAU;
        let loud = level::from_db(-(index as f32 * 7.0 % 25.0));
        for (at, sample) in part.iter_mut().enumerate().skip(4000) {
            let partials = [(1.0, 2000.0), (2.0, 1200.0), (3.0, 900.0), (5.0, 400.0), (7.0, 100.0)];
            let sum: f32 =
                partials.iter().map(|(n, gain)| gain * (mains * n * at as f32).sin()).sum();
            *sample = (sum * loud) as i16;
        }
    }
    let hiss = at_level(&noise(pcm.len(), false, 9), -72.0);
    mix::add(&mut pcm, &hiss);
    pcm
}

/// Hold music of a poor machine: struck chords of three notes with four partials each, every
/// 400 ms.
fn chords(millis: u32) -> Vec<i16> {
    let mut random = SeededRandom::new(12);
    let mut pcm = vec![0; SampleRate::Hz8000.samples(millis)];
    for part in pcm.chunks_exact_mut(SampleRate::Hz8000.samples(400)) {
        let root = 220.0 * 2f32.powf(random.below(12) as f32 / 12.0);
        for interval in [1.0, 1.26, 1.498] {
            for partial in 1..=4 {
                let hz = root * interval * partial as f32;
                let step = hz / 8000.0 * core::f32::consts::TAU;
                for (at, sample) in part.iter_mut().enumerate() {
                    let fall = (-(at as f32) / 1600.0).exp() * (at as f32 / 40.0).min(1.0);
                    *sample += (900.0 / partial as f32 * fall * (step * at as f32).sin()) as i16;
                }
            }
        }
    }
    pcm
}
