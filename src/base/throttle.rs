//! Keeps whoever sends too much from filling a log or a store: per source, kind and minute a few
//! are written, the rest is counted and told in one [`Summary`]. Nothing is lost from the counts.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use crate::limit::Limit;
use crate::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

/// What was left out in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary<S, K> {
    /// The source; `None` for all sources beyond the limit.
    pub source: Option<S>,
    /// Of which kind.
    pub kind: K,
    /// How many were left out; never 0.
    pub left_out: u64,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    seen: u64,
}

/// Counts per source and kind. Owned by one thread (or behind a lock); time is a parameter.
#[derive(Debug)]
pub struct Throttle<S, K> {
    share: u64,
    places: usize,
    minutes: BTreeMap<(Option<S>, K), Minute>,
}

impl<S: Ord + Clone, K: Ord + Clone> Throttle<S, K> {
    /// Lets `share` of each source and kind through in a minute. Beyond `places` pairs of source
    /// and kind, new sources share one place for each kind.
    #[must_use]
    pub const fn new(share: &Limit, places: &Limit) -> Self {
        Self { share: share.value, places: places.get(), minutes: BTreeMap::new() }
    }

    /// Whether one more of `kind`, caused by `source`, is to be written; else it is counted.
    #[must_use]
    pub fn admits(&mut self, now: Instant, source: S, kind: K) -> bool {
        let mut key = (Some(source), kind);
        if !self.minutes.contains_key(&key) && self.minutes.len() >= self.places {
            key.0 = None;
        }
        let minute = self.minutes.entry(key).or_insert(Minute { since: now, seen: 0 });
        minute.seen = minute.seen.saturating_add(1);
        minute.seen <= self.share
    }

    /// The summaries that are due; to be asked at least once a minute.
    pub fn poll(&mut self, now: Instant) -> Vec<Summary<S, K>> {
        self.take(|minute| now.since(minute.since) >= MINUTE)
    }

    /// All summaries, for whoever stops.
    pub fn close(&mut self) -> Vec<Summary<S, K>> {
        self.take(|_| true)
    }

    fn take(&mut self, is_over: impl Fn(&Minute) -> bool) -> Vec<Summary<S, K>> {
        let mut due = Vec::new();
        let share = self.share;
        self.minutes.retain(|(source, kind), minute| {
            let is_over = is_over(minute);
            let left_out = minute.seen.saturating_sub(share);
            if is_over && left_out > 0 {
                due.push(Summary { source: source.clone(), kind: kind.clone(), left_out });
            }
            !is_over
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Limit = Limit { name: "test.share", value: 6, why: "a test" };
    const PLACES: Limit = Limit { name: "test.places", value: 100, why: "a test" };

    fn throttle() -> Throttle<u32, &'static str> {
        Throttle::new(&SHARE, &PLACES)
    }

    #[test]
    fn a_scanner_leaves_a_few_records_and_one_summary_a_minute() {
        let mut throttle = throttle();
        let start = Instant::ZERO;
        let written = (0..1_000).filter(|_| throttle.admits(start, 1, "sip.refused")).count();
        assert_eq!(written, 6);
        assert!(throttle.admits(start, 2, "sip.refused"));
        assert!(throttle.admits(start, 1, "sip.malformed"));
        assert_eq!(throttle.poll(start + Duration::from_secs(59)), []);
        let summary = Summary { source: Some(1), kind: "sip.refused", left_out: 994 };
        assert_eq!(throttle.poll(start + MINUTE), [summary]);
        assert!(throttle.admits(start + MINUTE, 1, "sip.refused"));
    }

    #[test]
    fn many_sources_share_one_place_beyond_the_limit() {
        let mut throttle = throttle();
        let written = (0..200).filter(|n| throttle.admits(Instant::ZERO, *n, "k")).count();
        assert_eq!(written, 106);
        assert!(throttle.minutes.len() <= 101);
        let summaries = throttle.poll(Instant::ZERO + MINUTE);
        assert_eq!(summaries, [Summary { source: None, kind: "k", left_out: 94 }]);
    }

    #[test]
    fn who_stops_gets_what_is_not_yet_due() {
        let mut throttle = throttle();
        let written = (0..8).filter(|_| throttle.admits(Instant::ZERO, 1, "k")).count();
        let [summary] = throttle.close()[..] else { panic!() };
        assert_eq!(written as u64 + summary.left_out, 8);
        assert_eq!(throttle.close(), []);
    }
}
