//! Keeps a scanner from filling the audit log: per source, kind and minute a few records, and one
//! that counts the rest (limit `vault.audit_per_source_minute`).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use base::{Instant, limit};

const MINUTE: Duration = Duration::from_secs(60);

/// Whether an audit record is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Write it.
    Write,
    /// Leave it out: it is counted, and a [`Summary`] will tell.
    Count,
}

/// Records left out in one minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The source; `None` for all sources beyond limit `vault.audit_sources`.
    pub source: Option<IpAddr>,
    /// The records' kind.
    pub kind: &'static str,
    /// How many were left out.
    pub left_out: u64,
}

#[derive(Debug)]
struct Minute {
    since: Instant,
    seen: u64,
}

/// Counts audit records per source. Owned by one thread; time is a parameter.
#[derive(Debug, Default)]
pub struct Throttle {
    minutes: BTreeMap<(Option<IpAddr>, &'static str), Minute>,
}

impl Throttle {
    /// Decides about one record of `kind` caused by `source`.
    pub fn admit(&mut self, now: Instant, source: IpAddr, kind: &'static str) -> Admission {
        let mut key = (Some(source), kind);
        if !self.minutes.contains_key(&key)
            && self.minutes.len() >= limit::VAULT_AUDIT_SOURCES.get()
        {
            key.0 = None;
        }
        let minute = self.minutes.entry(key).or_insert(Minute { since: now, seen: 0 });
        minute.seen = minute.seen.saturating_add(1);
        if minute.seen <= limit::VAULT_AUDIT_PER_SOURCE_MINUTE.value {
            Admission::Write
        } else {
            Admission::Count
        }
    }

    /// The summaries that are due; to be asked at least once a minute.
    pub fn poll(&mut self, now: Instant) -> Vec<Summary> {
        let mut due = Vec::new();
        self.minutes.retain(|(source, kind), minute| {
            if now.since(minute.since) < MINUTE {
                return true;
            }
            let left_out = minute.seen.saturating_sub(limit::VAULT_AUDIT_PER_SOURCE_MINUTE.value);
            if left_out > 0 {
                due.push(Summary { source: *source, kind, left_out });
            }
            false
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn source(number: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(number))
    }

    #[test]
    fn a_scanner_leaves_a_few_records_and_one_summary_a_minute() {
        let mut throttle = Throttle::default();
        let start = Instant::ZERO;
        let written = (0..1_000)
            .filter(|_| throttle.admit(start, source(1), "sip.refused") == Admission::Write)
            .count();
        assert_eq!(written as u64, limit::VAULT_AUDIT_PER_SOURCE_MINUTE.value);
        assert_eq!(throttle.admit(start, source(2), "sip.refused"), Admission::Write);
        assert_eq!(throttle.poll(start + Duration::from_secs(59)), []);
        let summary = Summary { source: Some(source(1)), kind: "sip.refused", left_out: 994 };
        assert_eq!(throttle.poll(start + MINUTE), [summary]);
        assert_eq!(throttle.admit(start + MINUTE, source(1), "sip.refused"), Admission::Write);
    }

    #[test]
    fn many_sources_share_one_bucket_beyond_the_limit() {
        let mut throttle = Throttle::default();
        let sources = limit::VAULT_AUDIT_SOURCES.value as u32;
        let written = (0..sources * 2)
            .filter(|n| throttle.admit(Instant::ZERO, source(*n), "k") == Admission::Write)
            .count() as u64;
        assert_eq!(written, u64::from(sources) + limit::VAULT_AUDIT_PER_SOURCE_MINUTE.value);
        assert!(throttle.minutes.len() <= limit::VAULT_AUDIT_SOURCES.get() + 1);
        let summaries = throttle.poll(Instant::ZERO + MINUTE);
        assert_eq!(summaries.len(), 1);
        assert_eq!(summaries[0].source, None);
    }
}
