//! From mel powers to the model's features: noise is taken out, the line's and the voice's
//! colour is taken off, and a cosine transform over the bands that the line carries follows.
//!
//! All of it looks at a whole utterance at once, since a single word is too short to follow its
//! level on the way. The constants were chosen by measurement on human voices, in the middle of
//! ranges over which nothing changes by more than two words of 105 (twice or half of each).

use std::f32::consts::PI;

use crate::mel::{BANDS, Powers};

/// Coefficients in one frame of features.
pub(crate) const COEFFICIENTS: usize = 13;

/// One frame of features, without their changes in time, which the decoder adds.
pub(crate) type Cepstra = [f32; COEFFICIENTS];

/// Which of the model's bands a line carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// All.
    Wide,
    /// Those below 4 kHz: the others hold the codec's noise and no speech.
    Narrow,
}

impl Width {
    /// How many bands, from the lowest on. The twentieth is centred at 3.5 kHz.
    pub(crate) const fn bands(self) -> usize {
        match self {
            Self::Wide => BANDS,
            Self::Narrow => 20,
        }
    }
}

/// What is known of one line's colour: the sum of the log powers of speech frames so far.
#[derive(Clone, Default)]
pub(crate) struct Colour {
    sum: Powers,
    frames: f32,
}

impl Colour {
    /// Learns from an utterance whose words are certain.
    pub(crate) fn learn(&mut self, own: &Self) {
        let keep = (COLOUR_FRAMES / (self.frames + own.frames)).min(1.0);
        for (sum, own) in self.sum.iter_mut().zip(&own.sum) {
            *sum = (*sum + own) * keep;
        }
        self.frames = (self.frames + own.frames) * keep;
    }
}

/// Speech frames that a colour remembers: ten seconds.
const COLOUR_FRAMES: f32 = 1000.0;
/// How many speech frames the model's own average counts for.
const PRIOR_FRAMES: f32 = 50.0;
/// The model's average cepstra (`cmninit` of its `feat.params`).
const PRIOR: Cepstra =
    [41.0, -5.29, -0.12, 5.09, 2.48, -4.07, -1.37, -1.78, -5.08, -2.05, -6.45, -1.42, 1.17];
/// How far below the loudest a frame may be and still count as speech, in nepers of power.
const SPEECH_DEPTH: f32 = 8.0;
/// Nothing lies further below the average than this, in nepers of power: digital silence and a
/// codec's idle noise look alike then.
const FLOOR_DEPTH: f32 = 5.0;
/// The quietest share of a band's frames, which are taken for noise.
const NOISE_SHARE: f32 = 0.1;
/// Noise is more than its quietest frames.
const NOISE_FACTOR: f32 = 3.0;
/// By how much the loudest frames exceed the quietest in speech, in nepers of power: words with
/// white noise at 10 dB have more, noise alone has about a half.
const CONTRAST: f32 = 1.0;
/// What is left of a frame that is all noise.
const NOISE_REST: f32 = 0.15;

/// Features of an utterance, and its own colour to learn from.
pub(crate) fn features(powers: &[Powers], width: Width, known: &Colour) -> (Vec<Cepstra>, Colour) {
    if powers.is_empty() {
        return (Vec::new(), Colour::default());
    }
    let bands = width.bands();
    let mut logs = powers.to_vec();
    for band in 0..bands {
        clean(&mut logs, band);
    }
    let own = colour(&logs, bands);
    let mean = mean(&own, known, bands);
    let transform = Transform::new(bands);
    let features = logs.iter().map(|frame| {
        let mut frame = *frame;
        for (value, mean) in frame[..bands].iter_mut().zip(&mean) {
            *value = (*value - mean).max(-FLOOR_DEPTH);
        }
        transform.cepstra(&frame[..bands])
    });
    (features.collect(), own)
}

/// Whether something stands out of what is steady: hiss and hum are no speech, but a recogniser
/// finds a word in their details.
pub(crate) fn stands_out(powers: &[Powers], width: Width) -> bool {
    let logs = powers.iter().map(|frame| frame.map(|power| power.max(1e-4).ln()));
    let levels = levels(&logs.collect::<Vec<_>>(), width.bands());
    let quantile = |twentieths: usize| levels.get(levels.len() * twentieths / 20);
    quantile(19).zip(quantile(2)).is_some_and(|(loud, quiet)| loud - quiet > CONTRAST)
}

/// The levels of all frames, sorted.
fn levels(logs: &[Powers], bands: usize) -> Vec<f32> {
    let mut levels: Vec<f32> = logs.iter().map(|frame| level(frame, bands)).collect();
    levels.sort_unstable_by(f32::total_cmp);
    levels
}

fn level(logs: &Powers, bands: usize) -> f32 {
    logs[..bands].iter().sum::<f32>() / bands as f32
}

/// Takes steady noise out of one band and turns its powers into their logarithms.
fn clean(frames: &mut [Powers], band: usize) {
    let powers: Vec<f32> = frames.iter().map(|frame| frame[band]).collect();
    let mut sorted = powers.clone();
    sorted.sort_unstable_by(f32::total_cmp);
    let quiet = &sorted[..((sorted.len() as f32 * NOISE_SHARE) as usize).max(1)];
    let noise = NOISE_FACTOR * quiet.iter().sum::<f32>() / quiet.len() as f32;
    for (i, frame) in frames.iter_mut().enumerate() {
        // Smoothed in time, or single frames of noise would stick out as if they were speech.
        let near = &powers[i.saturating_sub(1)..(i + 2).min(powers.len())];
        let near = near.iter().sum::<f32>() / near.len() as f32;
        let kept = if near > 0.0 { (1.0 - noise / near).max(NOISE_REST) } else { 1.0 };
        frame[band] = (powers[i] * kept).max(1e-4).ln();
    }
}

/// The colour of the speech in `logs`.
fn colour(logs: &[Powers], bands: usize) -> Colour {
    let levels = levels(logs, bands);
    let loud = levels[(levels.len() * 19 / 20).min(levels.len() - 1)];
    let mut colour = Colour::default();
    for frame in logs.iter().filter(|frame| level(frame, bands) > loud - SPEECH_DEPTH) {
        colour.frames += 1.0;
        for (sum, value) in colour.sum[..bands].iter_mut().zip(frame) {
            *sum += value;
        }
    }
    colour
}

/// The average to take off: of this utterance, of what is known of the line, and, moved to this
/// line's level, of the model.
fn mean(own: &Colour, known: &Colour, bands: usize) -> Vec<f32> {
    let full = Transform::new(BANDS);
    let prior: Vec<f32> = (0..bands).map(|band| full.log_power(&PRIOR, band)).collect();
    let frames = own.frames + known.frames;
    let seen: Vec<f32> =
        own.sum.iter().zip(&known.sum).map(|(a, b)| (a + b) / frames.max(1.0)).collect();
    let level = seen.iter().zip(&prior).map(|(a, b)| a - b).sum::<f32>() / bands as f32;
    let weight = frames / (frames + PRIOR_FRAMES);
    let blend = |(seen, prior): (&f32, &f32)| weight * seen + (1.0 - weight) * (prior + level);
    seen.iter().zip(&prior).map(blend).collect()
}

/// The cosine transform over so many bands, with the model's lifter.
pub(crate) struct Transform {
    rows: Vec<Vec<f32>>,
}

impl Transform {
    pub(crate) fn new(bands: usize) -> Self {
        let row = |i: usize| {
            let scale =
                if i == 0 { 1.0 } else { 2.0f32.sqrt() } / (bands as f32).sqrt() * lifter(i);
            let angle = move |band| PI * i as f32 * (band as f32 + 0.5) / bands as f32;
            (0..bands).map(|band| scale * angle(band).cos()).collect()
        };
        Self { rows: (0..COEFFICIENTS).map(row).collect() }
    }

    /// One coefficient's weight of one band.
    pub(crate) fn weight(&self, coefficient: usize, band: usize) -> f32 {
        self.rows[coefficient][band]
    }

    /// The share of one coefficient in the log power of one band: the transform's inverse, which
    /// is smooth since there are fewer coefficients than bands.
    pub(crate) fn inverse(&self, band: usize, coefficient: usize) -> f32 {
        self.weight(coefficient, band) / (lifter(coefficient) * lifter(coefficient))
    }

    fn cepstra(&self, logs: &[f32]) -> Cepstra {
        std::array::from_fn(|i| self.rows[i].iter().zip(logs).map(|(a, b)| a * b).sum())
    }

    fn log_power(&self, cepstra: &Cepstra, band: usize) -> f32 {
        cepstra.iter().enumerate().map(|(i, value)| self.inverse(band, i) * value).sum()
    }
}

/// The model's lifter (`-lifter 22`).
fn lifter(coefficient: usize) -> f32 {
    1.0 + 11.0 * (PI * coefficient as f32 / 22.0).sin()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two seconds: a quiet second, then a second with its power mostly in the lower bands.
    fn utterance(gain: f32) -> Vec<Powers> {
        let frame = |i: usize| {
            let speech = if i < 100 { 1e2 } else { 1e6 };
            std::array::from_fn(|band| {
                let ripple = 1.0 + 0.5 * ((i * (band + 1)) as f32).sin();
                gain * speech * ripple * (-0.2 * band as f32).exp()
            })
        };
        (0..200).map(frame).collect()
    }

    #[test]
    fn the_level_of_the_line_does_not_matter() {
        for width in [Width::Wide, Width::Narrow] {
            let (loud, _) = features(&utterance(1.0), width, &Colour::default());
            let (quiet, _) = features(&utterance(0.001), width, &Colour::default());
            for (a, b) in loud.iter().flatten().zip(quiet.iter().flatten()) {
                assert!((a - b).abs() < 0.05, "{a} {b}");
            }
        }
    }

    #[test]
    fn a_narrow_line_looks_at_no_band_above_4_khz() {
        let mut hissing = utterance(1.0);
        hissing.iter_mut().for_each(|frame| frame[Width::Narrow.bands()..].fill(1e9));
        let (a, _) = features(&utterance(1.0), Width::Narrow, &Colour::default());
        let (b, _) = features(&hissing, Width::Narrow, &Colour::default());
        assert_eq!(a, b);
    }

    #[test]
    fn a_known_colour_outweighs_a_short_utterance() {
        let mut known = Colour::default();
        for _ in 0..20 {
            let (_, own) = features(&utterance(1.0), Width::Wide, &known);
            known.learn(&own);
        }
        assert!((known.frames - COLOUR_FRAMES).abs() < 1.0);
        let strange: Vec<Powers> = utterance(1.0)
            .iter()
            .map(|frame| std::array::from_fn(|band| frame[band] * 1.2f32.powi(band as i32)))
            .collect();
        let tilt = |known| features(&strange, Width::Wide, known).0[150][1];
        assert!((tilt(&known) - tilt(&Colour::default())).abs() > 1.0);
    }

    #[test]
    fn only_what_changes_stands_out() {
        let hiss: Vec<Powers> = utterance(1.0)[100..].to_vec();
        for width in [Width::Wide, Width::Narrow] {
            assert!(stands_out(&utterance(1.0), width));
            assert!(!stands_out(&hiss, width));
            assert!(!stands_out(&[[0.0; BANDS]; 50], width));
            assert!(!stands_out(&[], width));
        }
    }

    #[test]
    fn silence_and_a_single_frame_make_features_that_are_numbers() {
        for powers in [vec![[0.0; BANDS]; 3], vec![[0.0; BANDS]; 1], utterance(1e20)] {
            let (features, _) = features(&powers, Width::Wide, &Colour::default());
            assert_eq!(features.len(), powers.len());
            assert!(features.iter().flatten().all(|value| value.is_finite()));
        }
        assert!(features(&[], Width::Narrow, &Colour::default()).0.is_empty());
    }
}
