//! From samples to mel powers: the front half of the acoustic model's features, as the model was
//! trained (`feat.params`: 25 bands from 130 to 6,800 Hz). The back half is [`crate::cepstra`].

use std::f32::consts::PI;

/// Mel bands of the acoustic model.
pub(crate) const BANDS: usize = 25;
/// Frames per second.
pub(crate) const FRAMES_PER_SECOND: usize = 100;

const RATE: f32 = 16_000.0;
const FRAME: usize = 410;
const STEP: usize = 160;
const TRANSFORM: usize = 512;
const LOWEST_HZ: f32 = 130.0;
const HIGHEST_HZ: f32 = 6_800.0;
const PRE_EMPHASIS: f32 = 0.97;

/// The power in each mel band of one frame.
pub(crate) type Powers = [f32; BANDS];

/// Window, transform and filters; one for all utterances.
pub(crate) struct MelBank {
    window: Vec<f32>,
    /// Cosines and sines of the transform.
    turns: Vec<(f32, f32)>,
    /// For each band the first bin and the weights from there on.
    filters: Vec<(usize, Vec<f32>)>,
}

impl MelBank {
    pub(crate) fn new() -> Self {
        let window = |i| 0.54 - 0.46 * (2.0 * PI * i as f32 / (FRAME - 1) as f32).cos();
        let turn = |i| -2.0 * PI * i as f32 / TRANSFORM as f32;
        Self {
            window: (0..FRAME).map(window).collect(),
            turns: (0..TRANSFORM / 2).map(turn).map(|a| (a.cos(), a.sin())).collect(),
            filters: (0..BANDS).map(filter).collect(),
        }
    }

    /// The powers of one frame; `before` is the sample before it.
    fn powers(&self, before: i16, frame: &[i16]) -> Powers {
        let mut points = [(0.0f32, 0.0f32); TRANSFORM];
        let mut before = f32::from(before);
        for ((point, &sample), window) in points.iter_mut().zip(frame).zip(&self.window) {
            let sample = f32::from(sample);
            point.0 = (sample - PRE_EMPHASIS * before) * window;
            before = sample;
        }
        self.transform(&mut points);
        let mut powers = [0.0; BANDS];
        for (power, (first, weights)) in powers.iter_mut().zip(&self.filters) {
            let bins = points[*first..].iter().zip(weights);
            *power = bins.map(|((re, im), weight)| weight * (re * re + im * im)).sum();
        }
        powers
    }

    /// The discrete Fourier transform, radix 2, in place.
    fn transform(&self, points: &mut [(f32, f32); TRANSFORM]) {
        for i in 0..TRANSFORM {
            let mirrored = i.reverse_bits() >> (usize::BITS - TRANSFORM.ilog2());
            if i < mirrored {
                points.swap(i, mirrored);
            }
        }
        let mut half = 1;
        while half < TRANSFORM {
            let stride = TRANSFORM / (2 * half);
            for group in points.chunks_exact_mut(2 * half) {
                let (upper, lower) = group.split_at_mut(half);
                let turns = self.turns.iter().step_by(stride);
                for ((a, b), (cos, sin)) in upper.iter_mut().zip(lower).zip(turns) {
                    let turned = (b.0 * cos - b.1 * sin, b.0 * sin + b.1 * cos);
                    *b = (a.0 - turned.0, a.1 - turned.1);
                    *a = (a.0 + turned.0, a.1 + turned.1);
                }
            }
            half *= 2;
        }
    }
}

/// A triangle of unit area, its corners on bins.
fn filter(band: usize) -> (usize, Vec<f32>) {
    let mel = |hz: f32| 2595.0 * (1.0 + hz / 700.0).log10();
    let hz = |mel: f32| 700.0 * (10f32.powf(mel / 2595.0) - 1.0);
    let bin = RATE / TRANSFORM as f32;
    let between = (mel(HIGHEST_HZ) - mel(LOWEST_HZ)) / (BANDS + 1) as f32;
    let corner = |i: usize| (hz(mel(LOWEST_HZ) + between * i as f32) / bin).round() as usize;
    let (left, centre, right) = (corner(band), corner(band + 1), corner(band + 2));
    let height = 2.0 / ((right - left) as f32 * bin);
    let weight = |i: usize| {
        let rising = (i - left) as f32 / (centre - left) as f32;
        let falling = (right - i) as f32 / (right - centre) as f32;
        height * rising.min(falling)
    };
    (left, (left..=right).map(weight).collect())
}

/// One utterance on its way to powers.
#[derive(Default)]
pub(crate) struct MelStream {
    /// The sample before `held`.
    before: Option<i16>,
    held: Vec<i16>,
}

impl MelStream {
    /// Takes the next samples and appends the frames that they complete.
    pub(crate) fn push(&mut self, bank: &MelBank, samples: &[i16], out: &mut Vec<Powers>) {
        self.held.extend_from_slice(samples);
        let mut start = 0;
        while let Some(frame) = self.held.get(start..start + FRAME) {
            out.push(bank.powers(self.before.unwrap_or(frame[0]), frame));
            self.before = Some(frame[STEP - 1]);
            start += STEP;
        }
        self.held.drain(..start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, samples: usize) -> Vec<i16> {
        let angle = |i| 2.0 * PI * hz * i as f32 / RATE;
        (0..samples).map(|i| (8000.0 * angle(i).sin()) as i16).collect()
    }

    fn frames(samples: &[i16], step: usize) -> Vec<Powers> {
        let (bank, mut stream, mut out) = (MelBank::new(), MelStream::default(), Vec::new());
        samples.chunks(step).for_each(|piece| stream.push(&bank, piece, &mut out));
        out
    }

    #[test]
    fn a_tone_is_loudest_in_the_band_around_it() {
        for (hz, band) in [(200.0, 0), (1000.0, 7), (3000.0, 17), (6300.0, 24)] {
            let powers = frames(&tone(hz, 1600), 1600)[4];
            let loudest = (0..BANDS).max_by(|&a, &b| powers[a].total_cmp(&powers[b]));
            assert_eq!(loudest, Some(band), "{hz} Hz");
        }
    }

    #[test]
    fn the_same_frames_come_however_the_audio_is_cut() {
        let samples = tone(700.0, 4000);
        let whole = frames(&samples, 4000);
        assert_eq!(whole.len(), (4000 - FRAME) / STEP + 1);
        assert_eq!(frames(&samples, 320), whole);
        assert_eq!(frames(&samples, 7), whole);
    }
}
