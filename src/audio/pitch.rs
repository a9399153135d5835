//! The period of a signal, found where it is most like itself.

/// The best period of a signal and how well it fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Period {
    /// In samples.
    pub(crate) lag: usize,
    /// The normalised correlation at that lag, -1 to 1; 0 for silence.
    pub(crate) similarity: f32,
}

/// The lag in `lags` at which the window of `length` samples from `at` is most like the one `lag`
/// samples later. What reaches beyond the end of `pcm` is not tried.
pub(crate) fn find(
    pcm: &[i16],
    at: usize,
    length: usize,
    lags: core::ops::RangeInclusive<usize>,
) -> Option<Period> {
    let early = pcm.get(at..at + length)?;
    let mut best: Option<Period> = None;
    for lag in lags {
        let Some(late) = pcm.get(at + lag..at + lag + length) else { break };
        let similarity = similarity(early, late);
        if best.is_none_or(|best| similarity > best.similarity) {
            best = Some(Period { lag, similarity });
        }
    }
    best
}

/// The normalised correlation of two equally long pieces.
fn similarity(a: &[i16], b: &[i16]) -> f32 {
    // Sums of at most some hundred products of 16 bits: far below 63 bits.
    let (mut cross, mut power_a, mut power_b) = (0i64, 0i64, 0i64);
    for (&a, &b) in a.iter().zip(b) {
        let (a, b) = (i64::from(a), i64::from(b));
        cross += a * b;
        power_a += a * a;
        power_b += b * b;
    }
    let power = (power_a as f32 * power_b as f32).sqrt();
    if power > 0.0 { cross as f32 / power } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{noise, sine};

    #[test]
    fn the_period_of_a_tone_is_found_and_noise_has_none() {
        let tone = sine(8000, 200.0, 5000.0, 400);
        let period = find(&tone, 0, 160, 20..=60).unwrap();
        assert_eq!(period.lag, 40);
        assert!(period.similarity > 0.999);
        assert!(find(&noise(400, 5000.0, 1), 0, 160, 20..=120).unwrap().similarity < 0.4);
        assert_eq!(find(&[0; 400], 0, 160, 20..=120).unwrap().similarity, 0.0);
        assert_eq!(find(&tone, 300, 160, 20..=120), None);
    }
}
