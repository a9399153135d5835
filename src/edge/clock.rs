//! The operating system's time and randomness, for the tiers that take them as parameters.

use std::time::{SystemTime, UNIX_EPOCH};

use base::{Clock, Instant, Random, WallTime};

/// The clocks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsClock;

impl Clock for OsClock {
    fn now(&self) -> Instant {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // Both fields of a monotonic time are never negative.
        let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
        Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The operating system's random numbers, fit for keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if aws_lc_rs::rand::fill(out).is_err() {
            // A predictable key is worse than no process; aws-lc aborts on its own account here.
            std::process::abort();
        }
    }
}
