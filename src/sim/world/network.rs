//! The network between callers and edge: what it loses, doubles, delays and puts out of order.

use std::time::Duration;

use base::{Random, SeededRandom};

/// What happens to packets of one kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    /// Of a thousand packets, how many are lost.
    pub(super) lost: u32,
    /// How many arrive twice.
    pub(super) doubled: u32,
    /// How many are held back by up to 120 ms, so that later ones overtake them.
    pub(super) held_back: u32,
    /// How long a packet travels.
    pub(super) delay: Duration,
    /// Most milliseconds that it may travel longer.
    pub(super) jitter_ms: u32,
}

impl Faults {
    /// A good network: 10 ms, nothing lost.
    pub(super) const NONE: Self =
        Self { lost: 0, doubled: 0, held_back: 0, delay: Duration::from_millis(10), jitter_ms: 0 };

    /// The times after which copies of one packet arrive: none, one or two.
    pub(super) fn arrivals(&self, random: &mut SeededRandom) -> Vec<Duration> {
        let copies = match random.below(1_000) {
            drawn if drawn < self.lost => 0,
            drawn if drawn < self.lost + self.doubled => 2,
            _ => 1,
        };
        (0..copies)
            .map(|_| {
                let held = if random.below(1_000) < self.held_back { random.below(120) } else { 0 };
                let jitter = random.below(self.jitter_ms + 1);
                self.delay + Duration::from_millis(u64::from(held + jitter))
            })
            .collect()
    }
}
