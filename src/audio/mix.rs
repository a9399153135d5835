//! Adding and scaling with saturation.

use crate::level::{from_db, to_sample};

/// Adds `from` to `into`, saturating; the longer one's end is left alone.
pub fn add(into: &mut [i16], from: &[i16]) {
    for (sample, &other) in into.iter_mut().zip(from) {
        *sample = sample.saturating_add(other);
    }
}

/// Scales `pcm` by `db` decibels, saturating.
pub fn gain(pcm: &mut [i16], db: f32) {
    let factor = from_db(db);
    fade(pcm, factor, factor);
}

/// Scales `pcm` by a factor that goes linearly from `start` to `end`, saturating; so that a
/// change of loudness, or a cut, is not heard as a click.
pub fn fade(pcm: &mut [i16], start: f32, end: f32) {
    let step = (end - start) / pcm.len().max(1) as f32;
    for (i, sample) in pcm.iter_mut().enumerate() {
        *sample = to_sample(f32::from(*sample) * (start + step * i as f32));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_saturate_and_lengths_may_differ() {
        let mut into = [30_000, -30_000, 5];
        add(&mut into, &[10_000, -10_000]);
        assert_eq!(into, [i16::MAX, i16::MIN, 5]);
    }

    #[test]
    fn gain_scales_and_saturates() {
        let mut pcm = [1000, -1000, 30_000, -30_000];
        gain(&mut pcm, 6.0206);
        assert_eq!(pcm, [2000, -2000, i16::MAX, i16::MIN]);
        gain(&mut pcm, f32::NEG_INFINITY);
        assert_eq!(pcm, [0; 4]);
    }

    #[test]
    fn a_fade_goes_from_one_factor_to_the_other() {
        let mut pcm = [1000; 100];
        fade(&mut pcm, 1.0, 0.0);
        assert_eq!((pcm[0], pcm[50], pcm[99]), (1000, 500, 10));
        fade(&mut [], 1.0, 0.0);
    }
}
