//! Linear prediction: the spectral envelope of a signal as reflection coefficients, and the
//! lattice filter that gives it back. `A(z) = 1 + a1 z^-1 + ...`, so that k1 = -r(1)/r(0).

/// The highest order used here.
pub(crate) const ORDER: usize = 10;

/// `r(0)` to `r(ORDER)` of `pcm`.
pub(crate) fn autocorrelation(pcm: &[i16]) -> [f64; ORDER + 1] {
    core::array::from_fn(|lag| {
        let late = pcm.get(lag..).unwrap_or_default();
        late.iter().zip(pcm).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    })
}

/// The reflection coefficients of `r` by Levinson and Durbin, each within -1..1; zeros for silence.
pub(crate) fn reflection(r: &[f64; ORDER + 1]) -> [f32; ORDER] {
    let mut k = [0.0; ORDER];
    let mut a = [0.0f64; ORDER];
    // White noise at -40 dB under the signal keeps the recursion stable for pure tones.
    let mut error = r[0] * 1.0001;
    for i in 0..ORDER {
        if error <= 0.0 {
            break;
        }
        let sum: f64 = (0..i).map(|j| a[j] * r[i - j]).sum();
        let ki = (-(r[i + 1] + sum) / error).clamp(-0.999, 0.999);
        let before = a;
        for j in 0..i {
            a[j] = before[j] + ki * before[i - 1 - j];
        }
        a[i] = ki;
        k[i] = ki as f32;
        error *= 1.0 - ki * ki;
    }
    k
}

/// An all-pole lattice filter in normalised form: white noise of unit power comes out coloured and
/// still of unit power, and its state stays bounded for any coefficients, also while they change.
#[derive(Clone, Debug)]
pub(crate) struct Lattice {
    k: [f32; ORDER],
    /// The square roots of 1 - k^2.
    c: [f32; ORDER],
    backward: [f32; ORDER],
}

impl Lattice {
    /// A filter that colours nothing.
    pub(crate) const fn new() -> Self {
        Self { k: [0.0; ORDER], c: [1.0; ORDER], backward: [0.0; ORDER] }
    }

    /// Changes the colour; each coefficient must be within -1..1.
    pub(crate) fn set(&mut self, k: &[f32; ORDER]) {
        self.k = *k;
        self.c = k.map(|k| (1.0 - k * k).max(0.0).sqrt());
    }

    /// Filters one sample of the excitation.
    pub(crate) fn step(&mut self, excitation: f32) -> f32 {
        let mut forward = excitation;
        for i in (0..ORDER).rev() {
            let (k, c, backward) = (self.k[i], self.c[i], self.backward[i]);
            if i + 1 < ORDER {
                self.backward[i + 1] = k * forward + c * backward;
            }
            forward = c * forward - k * backward;
        }
        self.backward[0] = forward;
        forward
    }
}

/// A small generator of white noise of unit power (uniform), for signals only.
#[derive(Clone, Debug)]
pub(crate) struct White(u64);

impl White {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn next(&mut self) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let upper = (self.0 >> 40) as f32; // 24 bits
        (upper / 8_388_608.0 - 1.0) * 1.732_050_8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::noise;

    #[test]
    fn the_coefficients_of_filtered_noise_are_found_again() {
        let k = [-0.7, 0.3, 0.1, 0.0, -0.2, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (mut lattice, mut white) = (Lattice::new(), White::new(1));
        lattice.set(&k);
        let pcm: Vec<i16> =
            (0..80_000).map(|_| (1000.0 * lattice.step(white.next())) as i16).collect();
        for (found, k) in reflection(&autocorrelation(&pcm)).iter().zip(k) {
            assert!((found - k).abs() < 0.03, "{found} {k}");
        }
        let power = pcm.iter().map(|s| f32::from(*s).powi(2)).sum::<f32>() / 80_000.0 / 1e6;
        assert!((power - 1.0).abs() < 0.1, "{power}");
    }

    #[test]
    fn silence_and_short_input_have_no_shape() {
        assert_eq!(reflection(&autocorrelation(&[0; 100])), [0.0; ORDER]);
        assert_eq!(reflection(&autocorrelation(&[])), [0.0; ORDER]);
        assert!(reflection(&autocorrelation(&noise(3, 99.0, 1))).iter().all(|k| k.abs() < 1.0));
    }

    #[test]
    fn white_noise_has_unit_power() {
        let mut white = White::new(7);
        let power = (0..100_000).map(|_| white.next().powi(2)).sum::<f32>() / 100_000.0;
        assert!((power - 1.0).abs() < 0.01, "{power}");
    }
}
