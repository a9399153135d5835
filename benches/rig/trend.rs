//! How a figure moves over time, whatever single samples do.

use super::ratio::median;

/// Fewer samples have no slope worth telling.
const FEWEST: usize = 8;

/// The slope of `(time, value)` samples: the median of the slopes between all pairs of them (Theil
/// and Sen). A step that an allocator takes once, up or down, does not make one; a leak does.
/// `None` below eight samples.
#[must_use]
pub fn slope(samples: &[(f64, f64)]) -> Option<f64> {
    if samples.len() < FEWEST {
        return None;
    }
    let mut slopes = Vec::with_capacity(samples.len() * (samples.len() - 1) / 2);
    for (at, later) in samples.iter().enumerate() {
        let earlier = samples.get(..at).unwrap_or_default();
        slopes.extend(
            earlier
                .iter()
                .filter(|it| it.0 < later.0)
                .map(|it| (later.1 - it.1) / (later.0 - it.0)),
        );
    }
    Some(median(&slopes)).filter(|it| it.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(value: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        (0..40).map(|at| (f64::from(at), value(f64::from(at)))).collect()
    }

    #[test]
    fn a_leak_is_a_slope_and_noise_is_none() {
        let leaking = samples(|at| 100.0 + 0.5 * at + (at * 2.3).sin());
        assert!((slope(&leaking).unwrap() - 0.5).abs() < 0.05, "{:?}", slope(&leaking));
        let still = samples(|at| 100.0 + (at * 2.3).sin());
        assert!(slope(&still).unwrap().abs() < 0.03, "{:?}", slope(&still));
    }

    #[test]
    fn memory_that_is_given_back_once_or_taken_once_is_no_slope() {
        let trimmed = samples(|at| if at < 35.0 { 100.0 } else { 60.0 });
        assert_eq!(slope(&trimmed), Some(0.0));
        let grown = samples(|at| if at < 5.0 { 100.0 } else { 130.0 });
        assert_eq!(slope(&grown), Some(0.0));
    }

    #[test]
    fn a_few_samples_tell_nothing() {
        assert_eq!(slope(&samples(|at| at)[..7]), None);
        assert_eq!(slope(&[(1.0, 1.0); 9]), None, "all at one time");
    }
}
