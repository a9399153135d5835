//! Sections of order 2, and the Butterworth filters made of them.

use core::f32::consts::TAU;

/// One section (direct form 2, transposed): feed-forward and feedback weights, and its state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    b: [f32; 3],
    a: [f32; 2],
    state: [f32; 2],
}

/// The quality factor of a Butterworth filter of one section, and of one of two.
pub(super) const ORDER_2: [f32; 1] = [core::f32::consts::FRAC_1_SQRT_2];
pub(super) const ORDER_4: [f32; 2] = [0.541_196_1, 1.306_563];

impl Section {
    /// Passes what is above `hz` of a stream at `rate`.
    pub(super) fn high_pass(hz: f32, quality: f32, rate: f32) -> Self {
        let (cos, alpha) = Self::angle(hz, quality, rate);
        Self::new([(1.0 + cos) / 2.0, -(1.0 + cos), (1.0 + cos) / 2.0], cos, alpha)
    }

    /// Passes what is below `hz`.
    pub(super) fn low_pass(hz: f32, quality: f32, rate: f32) -> Self {
        let (cos, alpha) = Self::angle(hz, quality, rate);
        Self::new([(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0], cos, alpha)
    }

    fn angle(hz: f32, quality: f32, rate: f32) -> (f32, f32) {
        let (sin, cos) = (TAU * hz / rate).sin_cos();
        (cos, sin / (2.0 * quality))
    }

    fn new(b: [f32; 3], cos: f32, alpha: f32) -> Self {
        let a0 = 1.0 + alpha;
        Self {
            b: b.map(|weight| weight / a0),
            a: [-2.0 * cos / a0, (1.0 - alpha) / a0],
            state: [0.0; 2],
        }
    }

    pub(super) fn step(&mut self, input: f32) -> f32 {
        let output = self.b[0] * input + self.state[0];
        self.state[0] = self.b[1] * input - self.a[0] * output + self.state[1];
        self.state[1] = self.b[2] * input - self.a[1] * output;
        output
    }
}

/// Sections in a row.
#[derive(Clone, Debug)]
pub(super) struct Filter<const N: usize>(pub(super) [Section; N]);

impl Filter<2> {
    /// Passes what lies between, at 8 kHz: 12 dB per octave on either side.
    pub(super) fn band(low_hz: f32, high_hz: f32) -> Self {
        Self([
            Section::high_pass(low_hz, ORDER_2[0], 8000.0),
            Section::low_pass(high_hz, ORDER_2[0], 8000.0),
        ])
    }

    /// Passes what is above, with 24 dB per octave.
    pub(super) fn above(hz: f32, rate: f32) -> Self {
        Self(ORDER_4.map(|quality| Section::high_pass(hz, quality, rate)))
    }
}

impl<const N: usize> Filter<N> {
    pub(super) fn step(&mut self, input: f32) -> f32 {
        self.0.iter_mut().fold(input, |value, section| section.step(value))
    }

    /// Lets what has died away be nothing: the smallest of floats are slow.
    pub(super) fn settle(&mut self) {
        for state in self.0.iter_mut().flat_map(|section| &mut section.state) {
            if state.abs() < 1e-15 {
                *state = 0.0;
            }
        }
    }

    /// The mean power of what passes.
    pub(super) fn power(&mut self, pcm: &[i16]) -> f64 {
        let sum: f64 = pcm
            .iter()
            .map(|&sample| {
                let passed = f64::from(self.step(f32::from(sample)));
                passed * passed
            })
            .sum();
        self.settle();
        sum / pcm.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::sine;

    #[test]
    fn a_filter_passes_its_band_and_takes_the_rest() {
        let power = |filter: &mut Filter<2>, hz: f64| {
            let pcm = sine(8000, hz, 10_000.0, 8000);
            10.0 * (filter.power(&pcm) / 5e7).log10()
        };
        assert!(power(&mut Filter::band(300.0, 900.0), 520.0) > -1.5);
        assert!(power(&mut Filter::band(300.0, 900.0), 75.0) < -20.0);
        assert!(power(&mut Filter::band(300.0, 900.0), 3000.0) < -20.0);
        assert!(power(&mut Filter::above(2000.0, 8000.0), 3000.0) > -1.0);
        assert!((power(&mut Filter::above(2000.0, 8000.0), 2000.0) + 3.0).abs() < 0.2);
        assert!(power(&mut Filter::above(2000.0, 8000.0), 1000.0) < -23.0);
    }
}
