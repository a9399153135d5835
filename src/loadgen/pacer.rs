//! The 20 ms clock of one call, honest about being late.

use std::time::Duration;

use base::Instant;

use crate::report::{Saturation, millis};

/// The time of one packet.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// From here on a tick counts as late: half of its own time.
const BEHIND: Duration = Duration::from_millis(10);
/// Packets sent in one go after a pause. What is older is skipped: the far end would throw most of
/// a longer burst away, and it would no longer be a call that one can measure.
const BURST: u64 = 3;

/// What to do at one wake-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Ticks that passed without a packet; they come before the others.
    pub(crate) skipped: u32,
    /// Ticks to serve now.
    pub(crate) ticks: u32,
}

/// The schedule of one call.
#[derive(Clone, Debug)]
pub(crate) struct Pacer {
    next: Instant,
    saturation: Saturation,
}

impl Pacer {
    /// The first tick is at `start`.
    pub(crate) fn new(start: Instant) -> Self {
        Self { next: start, saturation: Saturation::default() }
    }

    /// When the next tick is due.
    pub(crate) const fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Whether the next tick is late already.
    pub(crate) fn is_behind(&self, now: Instant) -> bool {
        now.since(self.next) > BEHIND
    }

    /// What is due at `now`; notes how late it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Due {
        if now < self.next {
            return Due::default();
        }
        let late = now.since(self.next);
        let tick = TICK.as_nanos();
        let due = u64::try_from(late.as_nanos() / tick).unwrap_or(u64::MAX).saturating_add(1);
        let ticks = due.min(BURST);
        let skipped = due - ticks;
        let behind = if late > BEHIND {
            // The newest tick may still be in time.
            let newest = Duration::from_nanos(u64::try_from(late.as_nanos() % tick).unwrap_or(0));
            due - u64::from(newest <= BEHIND)
        } else {
            0
        };
        let it = &mut self.saturation;
        it.ticks = it.ticks.saturating_add(due);
        it.behind = it.behind.saturating_add(behind);
        it.skipped = it.skipped.saturating_add(skipped);
        it.worst_ms = it.worst_ms.max(millis(late));
        self.next += Duration::from_millis(20u64.saturating_mul(due));
        // Both fit: more than 2^32 ticks are years.
        Due { skipped: u32::try_from(skipped).unwrap_or(u32::MAX), ticks: ticks as u32 }
    }

    /// How late it has been.
    pub(crate) const fn saturation(&self) -> Saturation {
        self.saturation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn in_time_there_is_one_tick_every_20_ms_without_drift() {
        let mut pacer = Pacer::new(at(100));
        assert_eq!(pacer.handle_timeout(at(99)), Due::default());
        for tick in 0..50 {
            let due = pacer.poll_timeout();
            assert_eq!(due, at(100 + 20 * tick));
            // A wake-up that is a little late does not move the schedule.
            let found = pacer.handle_timeout(due + Duration::from_millis(3));
            assert_eq!(found, Due { skipped: 0, ticks: 1 });
        }
        let found = pacer.saturation();
        assert_eq!((found.ticks, found.behind, found.skipped), (50, 0, 0));
        assert_eq!(found.worst_ms, 3.0);
    }

    #[test]
    fn more_than_10_ms_late_is_counted_and_made_up_for() {
        let mut pacer = Pacer::new(at(0));
        assert_eq!(pacer.handle_timeout(at(11)), Due { skipped: 0, ticks: 1 });
        assert_eq!(pacer.saturation().behind, 1);
        assert_eq!(pacer.poll_timeout(), at(20));
        // 35 ms late: the tick of 20 and that of 40 ms are due, both more than 10 ms late.
        assert_eq!(pacer.handle_timeout(at(55)), Due { skipped: 0, ticks: 2 });
        assert_eq!(pacer.saturation().behind, 3);
        // 25 ms late: only the older of the two counts.
        assert_eq!(pacer.handle_timeout(at(85)), Due { skipped: 0, ticks: 2 });
        assert_eq!(pacer.saturation().behind, 4);
    }

    #[test]
    fn a_long_pause_is_skipped_and_said() {
        let mut pacer = Pacer::new(at(0));
        assert_eq!(pacer.handle_timeout(at(1000)), Due { skipped: 48, ticks: 3 });
        let found = pacer.saturation();
        assert_eq!((found.ticks, found.behind, found.skipped), (51, 50, 48));
        assert_eq!(found.worst_ms, 1000.0);
        assert_eq!(pacer.poll_timeout(), at(1020));
    }
}
