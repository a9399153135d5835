//! Ratios out of interleaved pairs.
//!
//! Absolute figures on a shared machine move by a factor of two within minutes, so ours and theirs
//! are measured in turns and each pair gives one ratio. The bound makes no assumption about how
//! the noise is distributed: it is an order statistic of the median.

use std::fmt;

/// The ratio ours / theirs of some pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// The median of the pairs' ratios.
    pub median: f64,
    /// With at least 95 % confidence the median is not above this; infinite below five pairs.
    pub upper: f64,
    /// The median of what was measured for ours.
    pub ours: f64,
    /// The median of what was measured for theirs.
    pub theirs: f64,
    /// How many pairs.
    pub pairs: usize,
}

impl Ratio {
    /// From pairs of `(ours, theirs)`.
    #[must_use]
    pub fn of(pairs: &[(f64, f64)]) -> Self {
        let mut ratios: Vec<f64> = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        ratios.sort_by(f64::total_cmp);
        let upper = upper_rank(ratios.len()).and_then(|rank| ratios.get(rank)).copied();
        Self {
            median: median(&ratios),
            upper: upper.unwrap_or(f64::INFINITY),
            ours: median(&pairs.iter().map(|it| it.0).collect::<Vec<_>>()),
            theirs: median(&pairs.iter().map(|it| it.1).collect::<Vec<_>>()),
            pairs: pairs.len(),
        }
    }

    /// Whether the bar is met: the upper bound passes, not only the median.
    #[must_use]
    pub fn is_at_most(&self, bar: f64) -> bool {
        self.upper <= bar
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, upper, ours, theirs, pairs } = self;
        write!(f, "{median:.3} (95 % <= {upper:.3}; {ours:.2} / {theirs:.2}, {pairs} pairs)")
    }
}

/// Measures `pairs` pairs, ours first in every other one, so that a drift of the machine's speed
/// favours neither.
///
/// # Errors
/// The first one of a measurement.
pub fn interleave<E>(
    pairs: usize,
    mut ours: impl FnMut() -> Result<f64, E>,
    mut theirs: impl FnMut() -> Result<f64, E>,
) -> Result<Vec<(f64, f64)>, E> {
    (0..pairs)
        .map(|pair| {
            if pair % 2 == 0 {
                let first = ours()?;
                Ok((first, theirs()?))
            } else {
                let first = theirs()?;
                Ok((ours()?, first))
            }
        })
        .collect()
}

/// The middle value; of an even number of values the mean of the two in the middle; of none, not
/// a number.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match (sorted.get(half), sorted.len() % 2) {
        (Some(middle), 1) => *middle,
        (Some(above), _) => (sorted[half - 1] + above) / 2.0,
        (None, _) => f64::NAN,
    }
}

/// The place, in ascending order, of the value that is an upper bound of the median with at least
/// 95 % confidence: the smallest `k` with P(at least `k` of `count` values lie below the median)
/// at most 5 %, each value lying below with probability one half.
fn upper_rank(count: usize) -> Option<usize> {
    let mut tail = 1.0;
    let mut probability = 0.5f64.powi(i32::try_from(count).ok()?);
    for below in 0..count {
        tail -= probability;
        // `tail` is now P(more than `below` values lie below the median).
        if tail <= 0.05 {
            return Some(below);
        }
        probability *= (count - below) as f64 / (below + 1) as f64;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_binomial_one() {
        // P(X > 7) of 9 is 10/512; P(X > 6) is 46/512.
        assert_eq!(upper_rank(9), Some(7));
        assert_eq!(upper_rank(5), Some(4));
        assert_eq!(upper_rank(4), None);
        assert_eq!(upper_rank(15), Some(11));
    }

    #[test]
    fn one_wild_pair_of_nine_moves_neither_median_nor_bound() {
        let mut pairs = vec![(1.0, 2.0); 9];
        pairs[3] = (100.0, 2.0);
        let ratio = Ratio::of(&pairs);
        assert_eq!((ratio.median, ratio.upper), (0.5, 0.5));
        assert!(ratio.is_at_most(0.5));
        pairs[4] = (100.0, 2.0);
        assert!(!Ratio::of(&pairs).is_at_most(0.5));
    }

    #[test]
    fn too_few_pairs_prove_nothing() {
        assert!(!Ratio::of(&[(1.0, 2.0); 4]).is_at_most(0.9));
    }

    #[test]
    fn turns_are_taken() {
        let order = std::cell::RefCell::new(String::new());
        let turn = |who: char| {
            order.borrow_mut().push(who);
            Ok::<_, ()>(1.0)
        };
        interleave(3, || turn('a'), || turn('b')).unwrap();
        assert_eq!(*order.borrow(), "abbaab");
    }
}
