//! So many in a window of time: what is counted of outsiders in a session or for a source.

use std::time::Duration;

use base::Instant;

/// The time in which is counted.
pub(crate) const WINDOW: Duration = Duration::from_millis(100);

/// What came in this window.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    began: Instant,
    count: u64,
}

impl Rate {
    /// Counts one more; `false` above `most`.
    pub(crate) fn admits(&mut self, now: Instant, most: u64) -> bool {
        if now.since(self.began) >= WINDOW {
            *self = Self { began: now, count: 0 };
        }
        self.count += 1;
        self.count <= most
    }
}
