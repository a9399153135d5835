//! What name servers said, for as long as it is good; bounded, and never a reason to wait.

use std::collections::HashMap;
use std::sync::Arc;

use base::limit;
use tokio::time::{Duration, Instant};

use super::message::{Kind, Record};

/// What is known about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Its records; none where there are none.
    Records(Arc<[Record]>),
    /// The name servers failed a moment ago.
    Failed,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<(String, Kind), Entry>,
}

#[derive(Debug)]
struct Entry {
    records: Option<Arc<[Record]>>,
    /// Until when `records` are good.
    until: Instant,
    /// Until when nobody is asked again after a failure.
    failed_until: Option<Instant>,
}

impl Cache {
    /// What is known now; `None` where somebody must be asked.
    pub(crate) fn find(&self, name: &str, kind: Kind, now: Instant) -> Option<Known> {
        let entry = self.entries.get(&(name.to_owned(), kind))?;
        match &entry.records {
            Some(records) if now < entry.until => Some(Known::Records(Arc::clone(records))),
            _ if entry.failed_until.is_some_and(|until| now < until) => {
                Some(entry.stale(now).map_or(Known::Failed, Known::Records))
            }
            _ => None,
        }
    }

    /// Keeps an answer.
    pub(crate) fn keep(
        &mut self,
        name: &str,
        kind: Kind,
        records: Arc<[Record]>,
        ttl: Duration,
        now: Instant,
    ) {
        let until = now + ttl.min(limit::TRANSPORT_DNS_TTL_MS.millis());
        self.make_room(now);
        let entry = Entry { records: Some(records), until, failed_until: None };
        self.entries.insert((name.to_owned(), kind), entry);
    }

    /// Notes that the name servers failed. Returns what was known before, where that may still
    /// serve (RFC 8767).
    pub(crate) fn note_failure(
        &mut self,
        name: &str,
        kind: Kind,
        now: Instant,
    ) -> Option<Arc<[Record]>> {
        self.make_room(now);
        let fresh = || Entry { records: None, until: now, failed_until: None };
        let entry = self.entries.entry((name.to_owned(), kind)).or_insert_with(fresh);
        entry.failed_until = Some(now + limit::TRANSPORT_DNS_FAILURE_MS.millis());
        entry.stale(now)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }

    /// Makes room for one more: what no longer serves goes first, then what ends soonest.
    fn make_room(&mut self, now: Instant) {
        let most = limit::TRANSPORT_DNS_CACHE.get();
        if self.entries.len() < most {
            return;
        }
        self.entries.retain(|_, entry| now < entry.until);
        if self.entries.len() < most {
            return;
        }
        // A part of them at a time, so that a full cache is not searched for each answer.
        let mut ends: Vec<Instant> = self.entries.values().map(|entry| entry.until).collect();
        let (_, end, _) = ends.select_nth_unstable(most / 8);
        let end = *end;
        self.entries.retain(|_, entry| entry.until > end);
    }
}

impl Entry {
    fn stale(&self, now: Instant) -> Option<Arc<[Record]>> {
        let last = self.until + limit::TRANSPORT_DNS_STALE_MS.millis();
        self.records.clone().filter(|records| now < last && !records.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn records(last: u8) -> Arc<[Record]> {
        [Record::A(Ipv4Addr::new(192, 0, 2, last))].into()
    }

    const TTL: Duration = Duration::from_secs(60);

    #[test]
    fn an_answer_is_known_for_its_time_and_its_absence_too() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        assert_eq!(cache.find("a", Kind::A, now), None);
        cache.keep("a", Kind::A, records(1), TTL, now);
        cache.keep("b", Kind::A, [].into(), TTL, now);
        let soon = now + TTL / 2;
        assert_eq!(cache.find("a", Kind::A, soon), Some(Known::Records(records(1))));
        assert_eq!(cache.find("b", Kind::A, soon), Some(Known::Records([].into())));
        assert_eq!(cache.find("a", Kind::Aaaa, soon), None);
        assert_eq!(cache.find("a", Kind::A, now + TTL), None);
        let long = Duration::from_secs(u64::from(u32::MAX));
        cache.keep("a", Kind::A, records(1), long, now);
        assert_eq!(cache.find("a", Kind::A, now + limit::TRANSPORT_DNS_TTL_MS.millis()), None);
    }

    #[test]
    fn while_name_servers_fail_what_was_known_serves_for_a_while() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        assert_eq!(cache.note_failure("new", Kind::A, now), None);
        assert_eq!(cache.find("new", Kind::A, now), Some(Known::Failed));
        let again = now + limit::TRANSPORT_DNS_FAILURE_MS.millis();
        assert_eq!(cache.find("new", Kind::A, again), None, "asked again");

        cache.keep("old", Kind::A, records(1), TTL, now);
        let later = now + 2 * TTL;
        assert_eq!(cache.find("old", Kind::A, later), None);
        assert_eq!(cache.note_failure("old", Kind::A, later), Some(records(1)));
        assert_eq!(cache.find("old", Kind::A, later), Some(Known::Records(records(1))));
        let much_later = later + limit::TRANSPORT_DNS_STALE_MS.millis();
        assert_eq!(cache.note_failure("old", Kind::A, much_later), None);
    }

    #[test]
    fn the_cache_is_bounded_and_what_ends_soonest_goes_first() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let most = limit::TRANSPORT_DNS_CACHE.get();
        for number in 0..3 * most {
            let ttl = TTL + Duration::from_millis(number as u64);
            cache.keep(&number.to_string(), Kind::A, records(1), ttl, now);
            assert!(cache.entries.len() <= most);
        }
        let last = (3 * most - 1).to_string();
        assert!(cache.find(&last, Kind::A, now).is_some());
        assert!(cache.find("0", Kind::A, now).is_none());
    }
}
