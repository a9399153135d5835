//! Counts of times, exact to 3 %, that cost nothing per value and can be added up.

use std::time::Duration;

use crate::report::Spread;

/// Values below this are counted one by one.
const EXACT_BITS: u32 = 5;
/// Steps of each power of two.
const STEPS: usize = 1 << EXACT_BITS;
/// Microseconds are 32 bits: over an hour.
const BUCKETS: usize = STEPS * (33 - EXACT_BITS as usize);

/// A histogram of microseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    max: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into(), count: 0, max: 0 }
    }
}

fn bucket(value: u32) -> usize {
    if (value as usize) < STEPS {
        return value as usize;
    }
    let power = 31 - value.leading_zeros();
    let shift = power - EXACT_BITS;
    let step = (value >> shift) as usize & (STEPS - 1);
    (shift as usize + 1) * STEPS + step
}

/// The largest value of a bucket.
fn top(bucket: usize) -> u32 {
    if bucket < STEPS {
        return bucket as u32;
    }
    let shift = bucket / STEPS - 1;
    let least = ((STEPS + bucket % STEPS) as u64) << shift;
    u32::try_from(least + (1 << shift) - 1).unwrap_or(u32::MAX)
}

impl Histogram {
    /// Counts one time.
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.counts[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Adds another's counts.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, more)| *sum += more);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The percentiles in milliseconds; `None` where nothing was counted.
    pub(crate) fn spread(&self) -> Option<Spread> {
        if self.count == 0 {
            return None;
        }
        let rank = |percent: u64| {
            let wanted = (self.count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = self.counts.iter().position(|count| {
                seen += count;
                seen >= wanted
            });
            f64::from(found.map_or(self.max, top).min(self.max)) / 1000.0
        };
        let max = f64::from(self.max) / 1000.0;
        Some(Spread { count: self.count, p50: rank(50), p95: rank(95), p99: rank(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_percent() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.spread(), None);
        for micros in 1..=100_000u64 {
            histogram.add(Duration::from_micros(micros));
        }
        let found = histogram.spread().unwrap();
        for (found, wanted) in [(found.p50, 50.0), (found.p95, 95.0), (found.p99, 99.0)] {
            assert!((wanted..wanted * 1.032).contains(&found), "{found} is not {wanted}");
        }
        assert_eq!((found.count, found.max), (100_000, 100.0));
    }

    #[test]
    fn every_value_has_a_bucket_and_buckets_ascend() {
        let mut last = 0;
        for power in 0..32 {
            for value in [1u32 << power, (1u32 << power) | 1, ((1u64 << (power + 1)) - 1) as u32] {
                let at = bucket(value);
                assert!(at < BUCKETS && top(at) >= value && at >= last, "{value}");
                last = at;
            }
        }
    }

    #[test]
    fn sums_count_both() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        one.add(Duration::from_millis(1));
        two.add(Duration::from_millis(9));
        one.merge(&two);
        let found = one.spread().unwrap();
        assert_eq!((found.count, found.max), (2, 9.0));
    }
}
