//! How loud, and how alike.

/// The level of silence, in dBFS; nothing that 16 bits hold is quieter.
pub const SILENCE_DBFS: f32 = -96.0;

/// 0 dBFS: the mean power of a square wave at full scale (0 dBov of RFC 3389 and RFC 6464), so
/// that a full-scale sine is at -3.01.
const FULL_SCALE_POWER: f64 = 32768.0 * 32768.0;

/// The level of `pcm` in dBFS, [`SILENCE_DBFS`] to 0; of no samples, silence.
#[must_use]
pub fn dbfs(pcm: &[i16]) -> f32 {
    power_dbfs(mean_power(pcm))
}

/// The largest magnitude of `pcm`.
#[must_use]
pub fn peak(pcm: &[i16]) -> u16 {
    pcm.iter().map(|sample| sample.unsigned_abs()).max().unwrap_or(0)
}

/// The amplitude of a factor in dB.
#[must_use]
pub fn from_db(db: f32) -> f32 {
    10f32.powf(db / 20.0)
}

/// The signal-to-noise ratio of `actual` against `reference`, in dB, over the shorter of the two;
/// infinite where they are equal. For measurements and tests.
#[must_use]
pub fn snr_db(reference: &[i16], actual: &[i16]) -> f64 {
    let (mut signal, mut noise) = (0.0, 0.0);
    for (&r, &a) in reference.iter().zip(actual) {
        signal += f64::from(r) * f64::from(r);
        noise += (f64::from(r) - f64::from(a)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

/// The mean power of `pcm`, in squared sample units.
pub(crate) fn mean_power(pcm: &[i16]) -> f64 {
    // In lanes, and without checks for what cannot overflow, so that the compiler uses vectors.
    let square = |sample: i16| i64::from(i32::from(sample).wrapping_mul(i32::from(sample)));
    let (whole, rest) = pcm.as_chunks::<8>();
    let mut lanes = [0i64; 8];
    for chunk in whole {
        for (lane, &sample) in lanes.iter_mut().zip(chunk) {
            *lane = lane.wrapping_add(square(sample));
        }
    }
    let sum: i64 = lanes.into_iter().chain(rest.iter().map(|&sample| square(sample))).sum();
    if pcm.is_empty() { 0.0 } else { sum as f64 / pcm.len() as f64 }
}

/// `power`, in squared sample units, as dBFS.
pub(crate) fn power_dbfs(power: f64) -> f32 {
    let ratio = power / FULL_SCALE_POWER;
    if ratio <= 0.0 { SILENCE_DBFS } else { (10.0 * ratio.log10()).max(-96.0) as f32 }
}

/// The amplitude (root mean square) of `dbfs`, in sample units.
pub(crate) fn rms_of_dbfs(dbfs: f32) -> f32 {
    32768.0 * from_db(dbfs)
}

/// `value` as a sample, saturated; not-a-number becomes silence.
pub(crate) fn to_sample(value: f32) -> i16 {
    value.round() as i16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::sine;

    #[test]
    fn levels_are_relative_to_a_full_scale_square_wave() {
        assert_eq!(dbfs(&[]), SILENCE_DBFS);
        assert_eq!(dbfs(&[0; 160]), SILENCE_DBFS);
        assert_eq!(dbfs(&[-32768; 160]), 0.0);
        let full = sine(8000, 1000.0, 32767.0, 8000);
        assert!((dbfs(&full) + 3.01).abs() < 0.01, "{}", dbfs(&full));
        assert!((dbfs(&[1; 160]) + 90.3).abs() < 0.1);
        assert_eq!(peak(&[3, -32768, 9]), 32768);
    }

    #[test]
    fn samples_saturate_and_round() {
        assert_eq!(to_sample(1e9), i16::MAX);
        assert_eq!(to_sample(-1e9), i16::MIN);
        assert_eq!(to_sample(f32::NAN), 0);
        assert_eq!(to_sample(2.6), 3);
    }

    #[test]
    fn snr_measures_added_noise() {
        let clean = sine(8000, 500.0, 10_000.0, 800);
        let noisy: Vec<i16> =
            clean.iter().enumerate().map(|(i, s)| s + [100, -100][i % 2]).collect();
        assert!((snr_db(&clean, &noisy) - 36.99).abs() < 0.1);
        assert_eq!(snr_db(&clean, &clean), f64::INFINITY);
    }
}
