//! The operating system's time and randomness.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Clock, Instant, Random, WallTime};

/// The clocks of this machine; the monotonic one starts with the first question.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OsClock;

fn origin() -> tokio::time::Instant {
    static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
    *ORIGIN.get_or_init(tokio::time::Instant::now)
}

impl Clock for OsClock {
    fn now(&self) -> Instant {
        Instant::ZERO + origin().elapsed()
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// `at` as a point that the runtime can sleep until; one too far away becomes a day from now.
pub(crate) fn wake_at(at: Instant) -> tokio::time::Instant {
    let far = || tokio::time::Instant::now() + Duration::from_secs(86_400);
    origin().checked_add(at.since(Instant::ZERO)).unwrap_or_else(far)
}

/// The operating system's random numbers, fit for keys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) {
        if aws_lc_rs::rand::fill(out).is_err() {
            // A predictable key is worse than no process; aws-lc aborts on its own account here.
            std::process::abort();
        }
    }
}

/// CPU time of the calling thread.
pub(crate) fn thread_time() -> Duration {
    cpu_time(rustix::time::ClockId::ThreadCPUTime)
}

/// CPU time of this process.
pub(crate) fn process_time() -> Duration {
    cpu_time(rustix::time::ClockId::ProcessCPUTime)
}

fn cpu_time(clock: rustix::time::ClockId) -> Duration {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Has as many descriptors as the system allows; returns how many.
pub(crate) fn raise_descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let most = Rlimit { current: now.maximum, maximum: now.maximum };
    // Refused only where it would change nothing.
    let _ = setrlimit(Resource::Nofile, most);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}
