//! Counts that span the shards: calls and recent attempts by trunk. One short lock per call
//! set-up and hang-up, never per packet or per message.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use base::{Instant, TrunkName, WallTime, limit};
use policy::{Observed, TrunkObserved};
use transport::Health;

/// Shared counts; clones count together.
#[derive(Clone)]
pub struct SharedLedger(Arc<Inner>);

impl Default for SharedLedger {
    fn default() -> Self {
        Self::of(limit::CALL_CONCURRENT.value as u32)
    }
}

struct Inner {
    /// Calls at one time.
    most: u32,
    counts: Mutex<Counts>,
    draining: AtomicBool,
    /// How the servers of trunks are; nobody says so in the simulated world.
    health: OnceLock<Health>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: u32,
    trunks: BTreeMap<TrunkName, OfTrunk>,
}

#[derive(Debug, Default)]
struct OfTrunk {
    calls: u32,
    /// Attempts in the second that began at `second`, and in the one before it.
    attempts: [u32; 2],
    second: u64,
}

impl OfTrunk {
    /// Attempts of the last second: those of the present one and the share of the previous one
    /// that the sliding window still covers.
    fn rate(&mut self, now: Instant) -> u32 {
        const SECOND: u64 = 1_000_000_000;
        let second = now.as_nanos() / SECOND;
        match second.saturating_sub(self.second) {
            0 => {}
            1 => self.attempts = [0, self.attempts[0]],
            _ => self.attempts = [0, 0],
        }
        self.second = second;
        let left = SECOND - now.as_nanos() % SECOND;
        let previous = u64::from(self.attempts[1]) * left / SECOND;
        self.attempts[0].saturating_add(u32::try_from(previous).unwrap_or(u32::MAX))
    }
}

impl SharedLedger {
    /// One of an edge that takes so many calls at a time.
    #[must_use]
    pub fn of(most: u32) -> Self {
        let (counts, draining, health) = Default::default();
        Self(Arc::new(Inner { most, counts, draining, health }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at how the servers of trunks are from now on; once.
    pub fn watch(&self, health: Health) {
        // A second call would name the same one.
        let _ = self.0.health.set(health);
    }

    /// No new calls from now on.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether [`SharedLedger::drain`] was called.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    /// Calls in progress.
    #[must_use]
    pub fn calls(&self) -> u32 {
        self.counts().calls
    }
}

impl call::Ledger for SharedLedger {
    fn observe(&self, now: Instant, wall: WallTime) -> Observed {
        let mut counts = self.counts();
        let trunks = counts.trunks.iter_mut().map(|(name, of)| {
            let recent_rate = of.rate(now);
            let observed = TrunkObserved { calls: of.calls, recent_rate, healthy: true };
            (name.as_str().to_owned(), observed)
        });
        let mut trunks: BTreeMap<String, TrunkObserved> = trunks.collect();
        for down in self.0.health.get().map(Health::down).unwrap_or_default() {
            trunks.entry(down.as_str().to_owned()).or_default().healthy = false;
        }
        Observed {
            wall,
            edge_calls: counts.calls,
            edge_calls_most: Some(self.0.most),
            trunks,
            draining: self.is_draining(),
        }
    }

    fn attempt(&self, now: Instant, trunk: &TrunkName) {
        let mut counts = self.counts();
        let of = counts.trunks.entry(trunk.clone()).or_default();
        of.rate(now);
        of.attempts[0] = of.attempts[0].saturating_add(1);
    }

    fn begin(&self, trunk: &TrunkName) -> bool {
        let mut counts = self.counts();
        if counts.calls >= self.0.most {
            return false;
        }
        counts.calls += 1;
        let of = counts.trunks.entry(trunk.clone()).or_default();
        of.calls = of.calls.saturating_add(1);
        true
    }

    fn begin_leg(&self, trunk: &TrunkName) {
        let mut counts = self.counts();
        let of = counts.trunks.entry(trunk.clone()).or_default();
        of.calls = of.calls.saturating_add(1);
    }

    fn end_leg(&self, trunk: &TrunkName) {
        if let Some(of) = self.counts().trunks.get_mut(trunk) {
            of.calls = of.calls.saturating_sub(1);
        }
    }

    fn end(&self, trunk: &TrunkName) {
        let mut counts = self.counts();
        counts.calls = counts.calls.saturating_sub(1);
        if let Some(of) = counts.trunks.get_mut(trunk) {
            of.calls = of.calls.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use call::Ledger as _;
    use std::net::SocketAddr;
    use transport::{Dial, Line, TransportConfig};

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let ledger = SharedLedger::default();
        let acme = TrunkName::new("acme");
        for attempt in 0..10 {
            ledger.attempt(at(5_000 + attempt * 100), &acme);
        }
        let rate = |ms| ledger.observe(at(ms), WallTime::default()).trunk("acme").recent_rate;
        assert_eq!(rate(5_950), 10);
        assert_eq!(rate(6_500), 5);
        assert_eq!(rate(8_000), 0);
    }

    #[test]
    fn calls_are_counted_by_trunk_and_in_all() {
        let ledger = SharedLedger::default();
        let (acme, lab) = (TrunkName::new("acme"), TrunkName::new("lab"));
        assert!(ledger.begin(&acme) && ledger.begin(&acme) && ledger.begin(&lab));
        ledger.end(&acme);
        let observed = ledger.observe(at(1), WallTime::default());
        assert_eq!((observed.edge_calls, observed.trunk("acme").calls), (2, 1));
    }

    /// Hears nothing.
    struct Deaf;

    impl transport::Inlet for Deaf {
        fn admits(&self, _: SocketAddr, _: SocketAddr, _: transport::Transport) -> bool {
            false
        }
        fn message(
            &self,
            _: &Arc<transport::Flow>,
            _: bytes::Bytes,
        ) -> Option<transport::HandedOn> {
            None
        }
        fn malformed(
            &self,
            _: &Arc<transport::Flow>,
            _: &sip::ParseFailure,
        ) -> Option<bytes::Bytes> {
            None
        }
        fn closed(&self, _: sip::FlowId) {}
        fn event(&self, _: base::Event) {}
    }

    #[tokio::test]
    async fn a_trunk_that_cannot_be_reached_is_observed_as_such() {
        let handle = transport::start(TransportConfig::default(), Arc::new(Deaf)).await.unwrap();
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let uri = format!("sip:{nobody};transport=tcp");
        let line = Line {
            trunk: TrunkName::new("acme"),
            send_to: vec![uri.clone()],
            listeners: Vec::new(),
            authorities: None,
            pins: Vec::new(),
            identity: None,
        };
        handle.set_lines(vec![line.load().unwrap()]);
        let ledger = SharedLedger::default();
        ledger.watch(handle.health());
        let healthy = || ledger.observe(at(1), WallTime::default()).trunk("acme").healthy;
        assert!(healthy());
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let dial = Dial::new(TrunkName::new("acme"), sip::Uri::parse(&uri).unwrap());
        let _dialling = handle.dial(dial, move |answer| tell.try_send(answer.is_err()).unwrap());
        assert_eq!(told.recv().await, Some(true));
        assert!(!healthy());
    }

    #[test]
    fn the_edge_takes_no_more_than_its_limit() {
        let ledger = SharedLedger::default();
        let acme = TrunkName::new("acme");
        let taken = (0..limit::CALL_CONCURRENT.get() + 5).filter(|_| ledger.begin(&acme)).count();
        assert_eq!(taken, limit::CALL_CONCURRENT.get());
        let small = SharedLedger::of(3);
        assert_eq!((0..9).filter(|_| small.begin(&acme)).count(), 3);
        let observed = small.observe(at(1), WallTime::default());
        assert_eq!((observed.edge_calls, observed.edge_calls_most), (3, Some(3)));
    }
}
