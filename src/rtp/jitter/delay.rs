//! How late packets come, compared with the fastest of the last seconds.

use core::time::Duration;

use base::Instant;

const BUCKET_MICROS: i64 = 5_000;
const BUCKETS: usize = 64;
/// Sum of all weights.
const TOTAL: u32 = 1 << 24;
/// Each packet takes the share 2^-8: at 20 ms the memory is about five seconds.
const FORGET_SHIFT: u32 = 8;
/// Packets in 256 that may come later than the target.
const LATE_OF_256: u32 = 5;
/// Lateness assumed before anything is known.
const INITIAL_BUCKET: usize = 7;
/// The fastest packet counts for at least this long, and at most twice as long.
const WINDOW: Duration = Duration::from_secs(2);

/// Packets that are learnt from in one go, where none of them is later than most: the histogram is
/// then looked at once for all of them.
const BATCH: usize = 8;

/// A histogram of lateness that forgets, over a baseline that follows clock drift.
#[derive(Clone, Debug)]
pub(super) struct DelayEstimate {
    baseline: Option<Baseline>,
    /// The bucket that all but 2 % of packets stay below.
    quantile: u8,
    /// Buckets of packets that the histogram does not hold yet.
    pending: [u8; BATCH],
    pending_count: u8,
    weights: [u32; BUCKETS],
}

#[derive(Clone, Copy, Debug)]
struct Baseline {
    since: Instant,
    /// Smallest transit of this window and of the one before.
    current: i64,
    previous: i64,
}

impl DelayEstimate {
    pub(super) fn new() -> Self {
        let mut weights = [0; BUCKETS];
        weights[INITIAL_BUCKET] = TOTAL;
        let quantile = INITIAL_BUCKET as u8 + 1;
        Self { baseline: None, quantile, pending: [0; BATCH], pending_count: 0, weights }
    }

    /// Arrival minus timestamp, in microseconds: meaningful only compared with another.
    pub(super) fn transit(&self, now: Instant, timestamp_micros: i64) -> i64 {
        ((now.as_nanos() / 1000) as i64).saturating_sub(timestamp_micros)
    }

    /// How much slower `transit` is than the fastest packet; negative where it is faster.
    pub(super) fn excess(&self, transit: i64) -> i64 {
        self.baseline.map_or(0, |it| transit.saturating_sub(it.current.min(it.previous)))
    }

    /// Learns from a packet. Lateness beyond `target_max` is a stall, which no buffer covers, and
    /// not jitter.
    pub(super) fn observe(&mut self, now: Instant, transit: i64, target_max: Duration) {
        let baseline = self.baseline.get_or_insert(Baseline {
            since: now,
            current: transit,
            previous: transit,
        });
        if now.since(baseline.since) >= WINDOW {
            *baseline = Baseline { since: now, current: transit, previous: baseline.current };
        }
        baseline.current = baseline.current.min(transit);
        let excess = self.excess(transit);
        if u128::from(excess.unsigned_abs()) > target_max.as_micros() {
            return;
        }
        let bucket = ((excess / BUCKET_MICROS).max(0) as u8).min(BUCKETS as u8 - 1);
        self.pending[usize::from(self.pending_count)] = bucket;
        self.pending_count += 1;
        // What raises the target is learnt at once, what lowers it may wait.
        if usize::from(self.pending_count) == BATCH || bucket >= self.quantile {
            self.learn();
        }
    }

    /// Brings the histogram up to date.
    fn learn(&mut self) {
        for &bucket in &self.pending[..usize::from(self.pending_count)] {
            let mut taken = 0u32;
            for weight in &mut self.weights {
                // The sum of all weights is `TOTAL`.
                let share = *weight >> FORGET_SHIFT;
                *weight = weight.wrapping_sub(share);
                taken = taken.wrapping_add(share);
            }
            self.weights[usize::from(bucket)] += taken;
        }
        self.pending_count = 0;
        self.quantile = self.bucket();
    }

    /// The lateness that all but 2 % of packets stay below.
    pub(super) fn quantile(&self) -> Duration {
        Duration::from_micros(u64::from(self.quantile) * BUCKET_MICROS as u64)
    }

    fn bucket(&self) -> u8 {
        let allowed = (TOTAL >> 8) * LATE_OF_256;
        let mut above = 0;
        let mut bucket = BUCKETS;
        while bucket > 1 && above + self.weights[bucket - 1] <= allowed {
            above += self.weights[bucket - 1];
            bucket -= 1;
        }
        bucket as u8
    }

    /// Forgets the baseline: timestamps begin anew.
    pub(super) fn restart(&mut self) {
        self.baseline = None;
    }
}
