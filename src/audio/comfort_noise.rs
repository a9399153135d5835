//! Comfort noise (RFC 3389): what a pause sounds like, as a level and a spectral shape.
//!
//! When to send it and when to play it is the caller's decision.

use crate::level::{SILENCE_DBFS, power_dbfs, rms_of_dbfs, to_sample};
use crate::lpc::{Lattice, ORDER, White, autocorrelation, reflection};
use crate::{ShortOutput, room};

/// The static payload type of comfort noise at a clock of 8 kHz (RFC 3551 table 4).
pub const PAYLOAD_TYPE: u8 = 13;

/// The most bytes that [`NoiseAnalyzer::write_payload`] writes.
pub const PAYLOAD_BYTES: usize = 1 + ORDER;

/// Plays the noise that a far end describes.
#[derive(Clone, Debug)]
pub struct ComfortNoise {
    wanted: Shape,
    current: Shape,
    lattice: Lattice,
    white: White,
}

#[derive(Clone, Debug)]
struct Shape {
    rms: f32,
    k: [f32; ORDER],
}

impl Shape {
    const SILENCE: Self = Self { rms: 0.0, k: [0.0; ORDER] };
}

/// Samples after which new noise has replaced old noise by about two thirds.
const GLIDE: f32 = 400.0;
/// Samples between two steps of the glide.
const GLIDE_STEP: usize = 16;

impl ComfortNoise {
    /// A generator of silence until told otherwise; its noise follows from `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            wanted: Shape::SILENCE,
            current: Shape::SILENCE,
            lattice: Lattice::new(),
            white: White::new(seed),
        }
    }

    /// Takes a payload of RFC 3389; an empty one changes nothing, and coefficients beyond the
    /// tenth are left out, as section 3 allows.
    pub fn handle_payload(&mut self, payload: &[u8]) {
        let Some((&level, shape)) = payload.split_first() else { return };
        self.set_level(-f32::from(level & 0x7f));
        for (k, &byte) in self.wanted.k.iter_mut().zip(shape) {
            // Section 3.2: k = 258 (N - 127) / 32768; 255 is reserved.
            *k = (258.0 * (f32::from(byte) - 127.0) / 32_768.0).clamp(-0.999, 0.999);
        }
    }

    /// Asks for flat noise at `dbfs` (0 dBov of RFC 3389 is 0 dBFS of [`crate::level`]).
    pub fn set_level(&mut self, dbfs: f32) {
        let rms = if dbfs > SILENCE_DBFS { rms_of_dbfs(dbfs.min(0.0)) } else { 0.0 };
        self.wanted = Shape { rms, k: [0.0; ORDER] };
    }

    /// Fills `out` with noise that glides to what was last asked for.
    pub fn fill(&mut self, out: &mut [i16]) {
        for part in out.chunks_mut(GLIDE_STEP) {
            let share = part.len() as f32 / GLIDE;
            self.current.rms += (self.wanted.rms - self.current.rms) * share;
            for (k, wanted) in self.current.k.iter_mut().zip(self.wanted.k) {
                *k += (wanted - *k) * share;
            }
            self.lattice.set(&self.current.k);
            for sample in part {
                *sample = to_sample(self.current.rms * self.lattice.step(self.white.next()));
            }
        }
    }
}

/// Describes background noise as a payload of RFC 3389.
#[derive(Clone, Debug, Default)]
pub struct NoiseAnalyzer {
    /// The smoothed autocorrelation, per sample.
    r: [f64; ORDER + 1],
}

impl NoiseAnalyzer {
    /// An analyzer that has heard nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens to a frame of noise; the description follows over about five frames.
    pub fn push(&mut self, pcm: &[i16]) {
        if pcm.is_empty() {
            return;
        }
        let share = if self.r[0] == 0.0 { 1.0 } else { 0.3 };
        for (r, new) in self.r.iter_mut().zip(autocorrelation(pcm)) {
            *r += (new / pcm.len() as f64 - *r) * share;
        }
    }

    /// Writes the payload; returns its length.
    ///
    /// # Errors
    /// When `out` is shorter than [`PAYLOAD_BYTES`].
    pub fn write_payload(&self, out: &mut [u8]) -> Result<usize, ShortOutput> {
        let out = room(out, PAYLOAD_BYTES)?;
        out[0] = (-power_dbfs(self.r[0])).round().clamp(0.0, 127.0) as u8;
        for (byte, k) in out[1..].iter_mut().zip(reflection(&self.r)) {
            *byte = (127.0 + k * 32_768.0 / 258.0).round().clamp(0.0, 254.0) as u8;
        }
        Ok(PAYLOAD_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::dbfs;
    use crate::signals::{noise, power_db};

    #[test]
    fn the_level_of_a_payload_is_the_level_of_the_noise() {
        for level in [30u8, 50, 70] {
            let mut generator = ComfortNoise::new(1);
            generator.handle_payload(&[level]);
            let mut out = vec![0; 16_000];
            generator.fill(&mut out);
            let heard = dbfs(&out[4000..]);
            assert!((heard + f32::from(level)).abs() < 0.7, "{level}: {heard}");
        }
    }

    #[test]
    fn level_and_colour_survive_the_round_trip() {
        // Noise with a slope: each sample leans on the one before.
        let mut last = 0.0;
        let coloured: Vec<i16> = noise(16_000, 1000.0, 3)
            .iter()
            .map(|&s| {
                last = 0.8 * last + 0.6 * f64::from(s);
                last as i16
            })
            .collect();
        let mut analyzer = NoiseAnalyzer::new();
        coloured.chunks(160).for_each(|frame| analyzer.push(frame));
        let mut payload = [0; PAYLOAD_BYTES];
        assert_eq!(analyzer.write_payload(&mut payload), Ok(PAYLOAD_BYTES));
        let mut generator = ComfortNoise::new(2);
        generator.handle_payload(&payload);
        let mut out = vec![0; 16_000];
        generator.fill(&mut out);
        let steady = &out[2000..];
        assert!((dbfs(steady) - dbfs(&coloured)).abs() < 1.5, "{}", dbfs(steady));
        let slope = |pcm: &[i16]| {
            let band = |from: u32| -> f64 {
                (0..50)
                    .map(|i| 10f64.powf(power_db(pcm, 8000, f64::from(from + i * 9)) / 10.0))
                    .sum()
            };
            10.0 * (band(200) / band(3400)).log10()
        };
        assert!((slope(steady) - slope(&coloured)).abs() < 3.0);
        assert!(slope(&coloured) > 12.0);
    }

    #[test]
    fn silence_until_asked_and_after_level_127() {
        let mut generator = ComfortNoise::new(3);
        let mut out = [1; 160];
        generator.fill(&mut out);
        assert_eq!(out, [0; 160]);
        generator.handle_payload(&[]);
        generator.handle_payload(&[0x80 | 127, 0, 254]);
        generator.fill(&mut out);
        assert_eq!(out, [0; 160]);
    }

    #[test]
    fn any_payload_gives_bounded_noise() {
        let bytes: Vec<u8> = noise(4000, 32_767.0, 9).iter().map(|s| *s as u8).collect();
        let mut generator = ComfortNoise::new(4);
        let mut out = [0; 160];
        for payload in bytes.chunks(40) {
            generator.handle_payload(payload);
            generator.fill(&mut out);
        }
        generator.handle_payload(&[40, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0]);
        for _ in 0..100 {
            generator.fill(&mut out);
        }
        assert!(dbfs(&out) < -25.0, "{}", dbfs(&out));
    }

    #[test]
    fn a_change_glides_without_a_step() {
        let mut generator = ComfortNoise::new(5);
        generator.set_level(-60.0);
        let mut out = vec![0; 8000];
        generator.fill(&mut out);
        generator.set_level(-30.0);
        generator.fill(&mut out);
        assert!(dbfs(&out[..40]) < -45.0, "{}", dbfs(&out[..40]));
        assert!(dbfs(&out[4000..]) > -31.0);
    }
}
