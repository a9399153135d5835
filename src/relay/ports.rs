//! Which media ports a worker may use: pairs, RTP even and RTCP the next (RFC 3550 section 11).
//!
//! Each worker has its own share of the range, so that none waits for another.

use std::collections::VecDeque;
use std::ops::RangeInclusive;

use base::limit;
use base::{Instant, Random};

/// The pairs of one worker.
#[derive(Debug)]
pub(crate) struct Ports {
    /// The first pair's even port.
    first: u16,
    /// Whether each pair is in use or in quarantine.
    taken: Vec<bool>,
    free: usize,
    /// Pairs that wait until late audio of their old call is gone, oldest first.
    quarantine: VecDeque<(Instant, usize)>,
}

impl Ports {
    /// The share of `worker` out of `workers`.
    pub(crate) fn share(range: &RangeInclusive<u16>, worker: usize, workers: usize) -> Self {
        let first = u32::from(*range.start()).next_multiple_of(2);
        let pairs = ((u32::from(*range.end()) + 1).saturating_sub(first) / 2) as usize;
        let from = pairs * worker / workers.max(1);
        let count = pairs * (worker + 1) / workers.max(1) - from;
        let first = (first as usize + 2 * from).min(65_534) as u16;
        Self { first, taken: vec![false; count], free: count, quarantine: VecDeque::new() }
    }

    /// Takes a free pair for which `open` succeeds, from a random place on: a port that others
    /// could foresee would be easier to flood. `open` fails where another process has the port.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        random: &mut dyn Random,
        mut open: impl FnMut(u16) -> bool,
    ) -> Option<u16> {
        self.end_quarantines(now);
        if self.free == 0 {
            return None;
        }
        let count = self.taken.len();
        let start = random.below(count as u32) as usize;
        let mut tries = limit::RELAY_PORT_TRIES.get();
        for pair in (start..count).chain(0..start) {
            if self.taken[pair] {
                continue;
            }
            let port = self.port(pair);
            if open(port) {
                self.taken[pair] = true;
                self.free -= 1;
                return Some(port);
            }
            tries -= 1;
            if tries == 0 {
                break;
            }
        }
        None
    }

    /// Gives a pair back, by its even port; it rests for `relay.quarantine_ms`.
    pub(crate) fn give_back(&mut self, now: Instant, port: u16) {
        let pair = usize::from(port.saturating_sub(self.first) / 2);
        if self.taken.get(pair) == Some(&true) {
            self.quarantine.push_back((now + limit::RELAY_QUARANTINE_MS.millis(), pair));
        }
    }

    fn end_quarantines(&mut self, now: Instant) {
        while let Some((_, pair)) = self.quarantine.pop_front_if(|(until, _)| *until <= now) {
            self.taken[pair] = false;
            self.free += 1;
        }
    }

    fn port(&self, pair: usize) -> u16 {
        // `share` made the table from ports that exist.
        self.first.saturating_add((pair as u16).saturating_mul(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::SeededRandom;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const START: Instant = Instant::ZERO;

    #[test]
    fn shares_are_even_disjoint_and_cover_the_range() {
        let mut seen = BTreeSet::new();
        let mut random = SeededRandom::new(1);
        for worker in 0..3 {
            let mut ports = Ports::share(&(10_001..=10_021), worker, 3);
            while let Some(port) = ports.take(START, &mut random, |_| true) {
                assert!(port % 2 == 0 && (10_002..10_021).contains(&port), "{port}");
                assert!(seen.insert(port));
            }
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_port_that_another_process_has_is_skipped() {
        let mut ports = Ports::share(&(10_000..=10_007), 0, 1);
        let port = ports.take(START, &mut SeededRandom::new(1), |port| port == 10_004);
        assert_eq!(port, Some(10_004));
        assert_eq!(ports.take(START, &mut SeededRandom::new(1), |_| false), None);
    }

    #[test]
    fn a_port_rests_after_its_call() {
        let mut random = SeededRandom::new(2);
        let mut ports = Ports::share(&(10_000..=10_001), 0, 1);
        assert_eq!(ports.take(START, &mut random, |_| true), Some(10_000));
        ports.give_back(START, 10_000);
        let rest = limit::RELAY_QUARANTINE_MS.millis();
        let early = START + (rest - Duration::from_millis(1));
        assert_eq!(ports.take(early, &mut random, |_| true), None);
        assert_eq!(ports.take(START + rest, &mut random, |_| true), Some(10_000));
    }

    #[test]
    fn the_ends_of_the_port_numbers_are_no_trouble() {
        let mut ports = Ports::share(&(65_530..=65_535), 0, 1);
        let count = std::iter::from_fn(|| ports.take(START, &mut SeededRandom::new(3), |_| true));
        assert_eq!(count.count(), 3);
        let none = RangeInclusive::new(9, 8);
        let taken = Ports::share(&none, 0, 1).take(START, &mut SeededRandom::new(3), |_| true);
        assert_eq!(taken, None);
    }
}
