//! How the servers of trunks are: learnt from calls, without probes of our own.
//!
//! A target that fails is left alone for a while that doubles with each failure, or for as long as
//! its `Retry-After` says; then one call tries it, and the others wait for how that goes. That is
//! for trunks that have another target: who has failed is tried all the same where nothing else is
//! left, and who has asked to be left alone by one call each `transport.trickle_ms`. A trunk is
//! down while every URI that leads to it is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Event, TrunkName, limit};
use tokio::time::{Duration, Instant};

use crate::flow::Inlet;
use crate::resolve::Target;

/// Which trunks can be reached; clones see the same.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    table: Mutex<Table>,
    inlet: Arc<dyn Inlet>,
}

impl Health {
    pub(crate) fn new(inlet: Arc<dyn Inlet>) -> Self {
        Self(Arc::new(Shared { table: Mutex::default(), inlet }))
    }

    /// The trunks that cannot be reached at the moment. A trunk that is due for another try is not
    /// among them until somebody tries it.
    #[must_use]
    pub fn down(&self) -> BTreeSet<TrunkName> {
        self.table().down(Instant::now())
    }

    /// Tells which URIs lead to which trunk.
    pub(crate) fn set_routes(&self, routes: BTreeMap<TrunkName, Vec<String>>) {
        self.change(|table, now| table.set_routes(routes, now));
    }

    /// How a target stands; one that is due for another try is being tried from now on.
    pub(crate) fn begin(&self, trunk: &TrunkName, place: Place) -> Standing {
        self.table().begin(&(trunk.clone(), place), Instant::now())
    }

    /// Whether a target that has asked to be left alone may be tried nevertheless, since nothing
    /// else is left; whoever is told so tries it.
    pub(crate) fn trickles(&self, trunk: &TrunkName, place: Place) -> bool {
        self.table().trickles(&(trunk.clone(), place), Instant::now())
    }

    /// Something failed.
    pub(crate) fn failed(&self, trunk: &TrunkName, place: Place, retry_after: Option<Duration>) {
        self.change(|table, now| table.failed((trunk.clone(), place), retry_after, now));
    }

    /// Something worked.
    pub(crate) fn worked(&self, trunk: &TrunkName, place: Place) {
        self.change(|table, now| table.worked(&(trunk.clone(), place), now));
    }

    /// Changes the table, and tells of every trunk that came up or went down.
    fn change(&self, act: impl FnOnce(&mut Table, Instant)) {
        let mut table = self.table();
        let now = Instant::now();
        act(&mut table, now);
        let changed = table.changed(now);
        drop(table);
        for (trunk, is_up) in changed {
            self.0.inlet.event(Event::TrunkHealth { trunk, is_up });
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What can fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// One address.
    Target(Target),
    /// All that a URI leads to.
    Uri(Arc<str>),
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing speaks against it.
    Up,
    /// It failed a while ago and is now tried again.
    Trial,
    /// It failed, or somebody else is trying it.
    Down,
    /// It asked to be left alone (RFC 3261 section 21.5.4).
    Told,
}

type Key = (TrunkName, Place);

#[derive(Debug, Default)]
struct Table {
    states: BTreeMap<Key, State>,
    routes: BTreeMap<TrunkName, Vec<Arc<str>>>,
    /// The trunks that were last told to be down.
    told: BTreeSet<TrunkName>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    failures: u32,
    /// Until when it is left alone.
    until: Instant,
    /// Until when somebody is trying it.
    tried_until: Option<Instant>,
    has_asked: bool,
    /// When it was last tried although it had asked to be left alone, or asked for that.
    trickled: Instant,
}

impl State {
    fn is_down(&self, now: Instant) -> bool {
        now < self.until || self.tried_until.is_some_and(|until| now < until)
    }
}

impl Table {
    fn begin(&mut self, key: &Key, now: Instant) -> Standing {
        let Some(state) = self.states.get_mut(key) else { return Standing::Up };
        if state.is_down(now) {
            let is_told = state.has_asked && now < state.until;
            return if is_told { Standing::Told } else { Standing::Down };
        }
        state.tried_until = Some(now + limit::TRANSPORT_PROBE_MS.millis());
        Standing::Trial
    }

    fn trickles(&mut self, key: &Key, now: Instant) -> bool {
        let Some(state) = self.states.get_mut(key) else { return true };
        let may = now >= state.trickled + limit::TRANSPORT_TRICKLE_MS.millis();
        if may {
            state.trickled = now;
        }
        may
    }

    fn failed(&mut self, key: Key, retry_after: Option<Duration>, now: Instant) {
        self.make_room(now);
        let fresh =
            State { failures: 0, until: now, tried_until: None, has_asked: false, trickled: now };
        let state = self.states.entry(key).or_insert(fresh);
        // Failures of calls that were under way together count as one.
        if now >= state.until {
            state.failures = state.failures.saturating_add(1);
        }
        let most = limit::TRANSPORT_DOWN_MS_MAX.millis();
        let doublings = state.failures.saturating_sub(1).min(16);
        let pause = limit::TRANSPORT_DOWN_MS.millis().saturating_mul(1 << doublings);
        let pause = retry_after.unwrap_or(pause).min(most);
        state.until = state.until.max(now + pause);
        state.has_asked |= retry_after.is_some();
        state.tried_until = None;
    }

    fn worked(&mut self, key: &Key, _now: Instant) {
        self.states.remove(key);
    }

    fn set_routes(&mut self, routes: BTreeMap<TrunkName, Vec<String>>, _now: Instant) {
        let shared = |uris: Vec<String>| uris.into_iter().map(Arc::from).collect();
        self.routes = routes.into_iter().map(|(trunk, uris)| (trunk, shared(uris))).collect();
        let routes = &self.routes;
        self.states.retain(|(trunk, _), _| routes.contains_key(trunk));
    }

    fn down(&self, now: Instant) -> BTreeSet<TrunkName> {
        let is_down = |trunk: &TrunkName, uri: &Arc<str>| {
            let key = (trunk.clone(), Place::Uri(Arc::clone(uri)));
            self.states.get(&key).is_some_and(|state| state.is_down(now))
        };
        self.states
            .keys()
            .filter(|(_, place)| matches!(place, Place::Uri(_)))
            .filter_map(|(trunk, _)| self.routes.get_key_value(trunk))
            .filter(|(trunk, uris)| uris.iter().all(|uri| is_down(trunk, uri)))
            .map(|(trunk, _)| trunk.clone())
            .collect()
    }

    /// The trunks that went down or came up since this was last asked. One whose pause is over has
    /// not come up before somebody reached it.
    fn changed(&mut self, now: Instant) -> Vec<(TrunkName, bool)> {
        let down = self.down(now);
        let is_up = |trunk: &&TrunkName| {
            let worked = |uri: &Arc<str>| {
                !self.states.contains_key(&((*trunk).clone(), Place::Uri(Arc::clone(uri))))
            };
            self.routes.get(*trunk).is_none_or(|uris| uris.iter().any(worked))
        };
        let up: Vec<_> = self.told.iter().filter(is_up).cloned().collect();
        let mut changed: Vec<_> =
            down.difference(&self.told).map(|trunk| (trunk.clone(), false)).collect();
        self.told.extend(down);
        for trunk in up {
            self.told.remove(&trunk);
            changed.push((trunk, true));
        }
        changed
    }

    /// Makes room for one more: what has not failed for longest goes first.
    fn make_room(&mut self, now: Instant) {
        if self.states.len() < limit::TRANSPORT_HEALTH.get() {
            return;
        }
        let long = limit::TRANSPORT_DOWN_MS_MAX.millis();
        self.states.retain(|_, state| now < state.until + long);
        if self.states.len() >= limit::TRANSPORT_HEALTH.get() {
            let oldest = self.states.iter().min_by_key(|(_, state)| state.until);
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.states.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::Transport;

    const PAUSE: Duration = limit::TRANSPORT_DOWN_MS.millis();
    const PROBE: Duration = limit::TRANSPORT_PROBE_MS.millis();

    fn target(last: u8) -> Key {
        let address = std::net::SocketAddr::from(([192, 0, 2, last], 5061));
        let target = Target { transport: Transport::Tls, address };
        (TrunkName::new("acme"), Place::Target(target))
    }

    fn uri(uri: &str) -> Key {
        (TrunkName::new("acme"), Place::Uri(uri.into()))
    }

    fn routes(uris: &[&str]) -> BTreeMap<TrunkName, Vec<String>> {
        let uris = uris.iter().map(|uri| (*uri).to_owned()).collect();
        BTreeMap::from([(TrunkName::new("acme"), uris)])
    }

    #[test]
    fn a_target_that_fails_is_left_alone_and_then_tried_by_one() {
        let (mut table, now) = (Table::default(), Instant::now());
        assert_eq!(table.begin(&target(1), now), Standing::Up);
        table.failed(target(1), None, now);
        assert_eq!(table.begin(&target(1), now), Standing::Down);
        assert_eq!(table.begin(&target(2), now), Standing::Up);
        let later = now + PAUSE;
        assert_eq!(table.begin(&target(1), later), Standing::Trial);
        assert_eq!(table.begin(&target(1), later), Standing::Down, "one is enough");
        assert_eq!(table.begin(&target(1), later + PROBE), Standing::Trial, "nobody came back");
        table.worked(&target(1), later);
        assert_eq!(table.begin(&target(1), later), Standing::Up);
    }

    #[test]
    fn the_pause_doubles_with_each_failure_to_a_limit() {
        let (mut table, mut now) = (Table::default(), Instant::now());
        for failures in 0..40 {
            table.failed(target(1), None, now);
            table.failed(target(1), None, now);
            let pause =
                (PAUSE * (1 << failures.min(10))).min(limit::TRANSPORT_DOWN_MS_MAX.millis());
            let almost = now + pause - Duration::from_millis(1);
            assert_eq!(table.begin(&target(1), almost), Standing::Down, "{failures}");
            now += pause;
            assert_eq!(table.begin(&target(1), now), Standing::Trial, "{failures}");
        }
    }

    #[test]
    fn who_asks_to_be_left_alone_is_left_alone_but_not_for_ever() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.failed(target(1), Some(Duration::from_secs(60)), now);
        assert_eq!(table.begin(&target(1), now + PAUSE), Standing::Told);
        assert_eq!(table.begin(&target(1), now + Duration::from_secs(60)), Standing::Trial);
        table.failed(target(2), Some(Duration::from_secs(86_400 * 365)), now);
        let most = limit::TRANSPORT_DOWN_MS_MAX.millis();
        assert_eq!(table.begin(&target(2), now + most), Standing::Trial);
    }

    #[test]
    fn who_asks_to_be_left_alone_still_gets_a_trickle_where_nothing_else_is_left() {
        let trickle: Duration = limit::TRANSPORT_TRICKLE_MS.millis();
        let (mut table, now) = (Table::default(), Instant::now());
        table.failed(target(1), Some(Duration::from_secs(300)), now);
        assert!(!table.trickles(&target(1), now), "it has just asked");
        for seconds in 1..5 {
            let then = now + trickle * seconds;
            assert_eq!(table.begin(&target(1), then), Standing::Told);
            assert!(table.trickles(&target(1), then), "{seconds}");
            assert!(!table.trickles(&target(1), then), "one is enough");
            table.failed(target(1), Some(Duration::from_secs(300)), then);
        }
        table.worked(&target(1), now + trickle * 5);
        assert_eq!(table.begin(&target(1), now + trickle * 5), Standing::Up, "it is back");
    }

    #[test]
    fn a_trunk_is_down_while_all_its_uris_are() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.set_routes(routes(&["sip:a", "sip:b"]), now);
        table.failed(uri("sip:a"), None, now);
        table.failed(target(1), None, now);
        assert!(table.down(now).is_empty() && table.changed(now).is_empty());
        table.failed(uri("sip:b"), None, now);
        let acme = TrunkName::new("acme");
        assert_eq!(table.down(now), BTreeSet::from([acme.clone()]));
        assert_eq!(table.changed(now), [(acme.clone(), false)]);
        assert!(table.changed(now).is_empty(), "told once");

        let later = now + PAUSE;
        assert!(table.down(later).is_empty(), "a call may try");
        assert!(table.changed(later).is_empty(), "nobody has reached it yet");
        assert_eq!(table.begin(&uri("sip:a"), later), Standing::Trial);
        assert_eq!(table.begin(&uri("sip:b"), later), Standing::Trial);
        assert_eq!(table.down(later).len(), 1, "both are being tried");
        table.worked(&uri("sip:a"), later);
        assert_eq!(table.changed(later), [(acme, true)]);
        assert!(table.down(later).is_empty());
    }

    #[test]
    fn a_trunk_that_is_gone_from_the_policy_is_forgotten() {
        let (mut table, now) = (Table::default(), Instant::now());
        table.set_routes(routes(&["sip:a"]), now);
        table.failed(uri("sip:a"), None, now);
        table.set_routes(BTreeMap::new(), now);
        assert!(table.states.is_empty() && table.down(now).is_empty());
    }

    #[test]
    fn no_more_is_remembered_than_the_limit() {
        let (mut table, now) = (Table::default(), Instant::now());
        for number in 0..limit::TRANSPORT_HEALTH.get() + 100 {
            table.failed(
                uri(&number.to_string()),
                None,
                now + Duration::from_millis(number as u64),
            );
        }
        assert_eq!(table.states.len(), limit::TRANSPORT_HEALTH.get());
        assert!(!table.states.contains_key(&uri("0")));
    }
}
