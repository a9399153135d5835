//! How many connections may be open, in all and per source, and how many handshakes one source may
//! begin in a second. A place is taken at accept, before any work is done for the peer, and given
//! back when its holder is dropped.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Bounds;

const SECOND: Duration = Duration::from_secs(1);
/// From so many sources on, those that have left are looked for at most once a second.
const SWEPT: usize = 1_024;

/// Counts what is open.
#[derive(Debug)]
pub(crate) struct Gate {
    bounds: Bounds,
    counts: Mutex<Counts>,
}

/// The right to hold one connection open or to have one handshake unfinished.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    network: IpAddr,
    kind: Kind,
}

impl Gate {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, counts: Mutex::default() })
    }

    /// A place for a connection with `source`; `None` where it or all together have enough.
    pub(crate) fn connection(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        self.take(source, Kind::Connection, Instant::now())
    }

    /// A place for what a browser at `source` has open: a connection or a WHIP session. Many of
    /// them may be behind one address, and leave to its trunks what is theirs.
    pub(crate) fn browser(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        self.take(source, Kind::Browser, Instant::now())
    }

    /// A place for an unfinished handshake of `source`; `None` where it has enough, or has begun
    /// enough of them in this second: each costs us more than it costs the source.
    pub(crate) fn handshake(self: &Arc<Self>, source: IpAddr) -> Option<Place> {
        self.take(source, Kind::Handshake, Instant::now())
    }

    fn take(self: &Arc<Self>, source: IpAddr, kind: Kind, now: Instant) -> Option<Place> {
        let network = network_of(source);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.sweep(now);
        let total = counts.connections;
        let of_source = counts.sources.get(&network).copied().unwrap_or_default();
        let is_full = match kind {
            Kind::Connection => {
                total >= self.bounds.connections
                    || of_source.connections >= self.bounds.connections_per_source
            }
            Kind::Browser => {
                total >= self.bounds.connections
                    || of_source.browsers >= self.bounds.browsers_per_source
            }
            Kind::Handshake => {
                of_source.handshakes >= self.bounds.handshakes_per_source
                    || of_source.begun_at(now) >= self.bounds.handshakes_per_second
            }
        };
        if is_full {
            return None;
        }
        let entry = counts.sources.entry(network).or_default();
        match kind {
            Kind::Connection => entry.connections += 1,
            Kind::Browser => entry.browsers += 1,
            Kind::Handshake => {
                entry.begun = match entry.begun_at(now) {
                    0 => Some((now, 1)),
                    count => entry.begun.map(|(since, _)| (since, count + 1)),
                };
                entry.handshakes += 1;
            }
        }
        if kind.is_open() {
            counts.connections += 1;
        }
        Some(Place { gate: Arc::clone(self), network, kind })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.gate.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.kind.is_open() {
            counts.connections = counts.connections.saturating_sub(1);
        }
        let Some(entry) = counts.sources.get_mut(&self.network) else { return };
        match self.kind {
            Kind::Connection => entry.connections = entry.connections.saturating_sub(1),
            Kind::Browser => entry.browsers = entry.browsers.saturating_sub(1),
            Kind::Handshake => entry.handshakes = entry.handshakes.saturating_sub(1),
        }
        if entry.is_gone(Instant::now()) {
            counts.sources.remove(&self.network);
        }
    }
}

/// What counts as one source: whoever has an IPv6 address has a whole /64 of them.
pub(crate) fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    Browser,
    Handshake,
}

impl Kind {
    /// Whether it is one of what is open in all.
    const fn is_open(self) -> bool {
        matches!(self, Self::Connection | Self::Browser)
    }
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    sources: HashMap<IpAddr, OfSource>,
    /// When sources that have left were looked for.
    swept: Option<Instant>,
}

impl Counts {
    /// Forgets who has nothing open and began nothing lately. What is remembered is bounded by
    /// what is open and by the connections that a second can bring.
    fn sweep(&mut self, now: Instant) {
        let is_due = self.swept.is_none_or(|at| now.duration_since(at) >= SECOND);
        if is_due && self.sources.len() >= SWEPT {
            self.sources.retain(|_, source| !source.is_gone(now));
            self.swept = Some(now);
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct OfSource {
    connections: usize,
    browsers: usize,
    handshakes: usize,
    /// Since when, for at most a second, and how many were begun since.
    begun: Option<(Instant, usize)>,
}

impl OfSource {
    fn begun_at(&self, now: Instant) -> usize {
        let present = self.begun.filter(|(since, _)| now.duration_since(*since) < SECOND);
        present.map_or(0, |(_, count)| count)
    }

    fn is_gone(&self, now: Instant) -> bool {
        self.connections == 0
            && self.browsers == 0
            && self.handshakes == 0
            && self.begun_at(now) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Arc<Gate> {
        Gate::new(Bounds {
            connections: 3,
            connections_per_source: 2,
            handshakes_per_source: 1,
            handshakes_per_second: 3,
            ..Bounds::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_source_that_has_enough_leaves_places_to_others() {
        let gate = gate();
        let first = gate.connection(ip("192.0.2.1")).unwrap();
        let _second = gate.connection(ip("192.0.2.1")).unwrap();
        assert!(gate.connection(ip("192.0.2.1")).is_none());
        let _other = gate.connection(ip("192.0.2.2")).unwrap();
        assert!(gate.connection(ip("192.0.2.3")).is_none(), "three in all");
        drop(first);
        assert!(gate.connection(ip("192.0.2.3")).is_some());
    }

    #[test]
    fn browsers_of_a_source_and_its_trunks_leave_each_other_their_places() {
        let gate = Gate::new(Bounds {
            connections: 5,
            connections_per_source: 1,
            browsers_per_source: 2,
            ..Bounds::default()
        });
        let office = ip("192.0.2.1");
        let first = gate.browser(office).unwrap();
        let _second = gate.browser(office).unwrap();
        assert!(gate.browser(office).is_none());
        let _trunk = gate.connection(office).unwrap();
        assert!(gate.connection(office).is_none());
        let _others = [gate.browser(ip("192.0.2.2")), gate.connection(ip("192.0.2.2"))];
        assert!(gate.browser(ip("192.0.2.3")).is_none(), "five in all");
        drop(first);
        assert!(gate.browser(office).is_some());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_are_one_source() {
        let gate = gate();
        let _held = gate.handshake(ip("2001:db8::1")).unwrap();
        assert!(gate.handshake(ip("2001:db8::ffff:2")).is_none());
        assert!(gate.handshake(ip("2001:db8:0:1::1")).is_some());
    }

    #[test]
    fn a_source_begins_so_many_handshakes_in_a_second_however_soon_they_end() {
        let (gate, now) = (gate(), Instant::now());
        let begins = |source: &str, at| gate.take(ip(source), Kind::Handshake, at).is_some();
        assert!((0..3).all(|_| begins("192.0.2.1", now)));
        assert!(!begins("192.0.2.1", now + SECOND / 2) && begins("192.0.2.2", now));
        assert!(begins("192.0.2.1", now + SECOND));
    }

    #[test]
    fn nothing_is_remembered_of_a_source_that_left() {
        let gate = gate();
        drop(gate.connection(ip("192.0.2.1")));
        assert!(gate.counts.lock().unwrap().sources.is_empty());
        let now = Instant::now();
        for last in 0..=255_u8 {
            for third in 0..8 {
                let source = IpAddr::from([198, 18, third, last]);
                drop(gate.take(source, Kind::Handshake, now));
            }
        }
        drop(gate.take(ip("192.0.2.1"), Kind::Connection, now + 2 * SECOND));
        let counts = gate.counts.lock().unwrap();
        assert!(counts.sources.is_empty(), "{}", counts.sources.len());
        assert_eq!(counts.connections, 0);
    }
}
