//! Fair shares of the shards' queues: a trunk that sends faster than its messages are handled waits
//! in its own connections, and delays nobody else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base::{TrunkName, limit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A place in a trunk's share, given back when dropped.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "kept for its end")] OwnedSemaphorePermit);

/// The shares of all trunks.
#[derive(Default)]
pub(crate) struct Shares {
    of_trunk: Mutex<BTreeMap<TrunkName, Arc<Semaphore>>>,
}

impl Shares {
    /// A place for one message of the trunk, at once.
    ///
    /// # Errors
    /// The trunk's places, where all are taken.
    pub(crate) fn hold(&self, trunk: &TrunkName) -> Result<Held, Places> {
        let places = self.of(trunk);
        let held = Arc::clone(&places).try_acquire_owned();
        held.map(Held).map_err(|_| Places(places))
    }

    fn of(&self, trunk: &TrunkName) -> Arc<Semaphore> {
        let mut of_trunk = self.of_trunk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = of_trunk.get(trunk) {
            return Arc::clone(places);
        }
        if of_trunk.len() >= limit::POLICY_TRUNKS.get() {
            // Names of earlier policies; whoever holds a place keeps his trunk's share alive.
            of_trunk.retain(|_, places| Arc::strong_count(places) > 1);
        }
        let places = Arc::new(Semaphore::new(limit::SHARD_INPUTS_PER_TRUNK.get()));
        of_trunk.insert(trunk.clone(), Arc::clone(&places));
        places
    }
}

/// The places of a trunk that has none left.
pub(crate) struct Places(Arc<Semaphore>);

impl Places {
    /// Waits for one; in the order of asking.
    pub(crate) async fn next(self) -> Option<Held> {
        self.0.acquire_owned().await.ok().map(Held) // nobody closes it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(shares: &Shares, trunk: &TrunkName) -> Vec<Held> {
        core::iter::from_fn(|| shares.hold(trunk).ok()).take(100_000).collect()
    }

    #[test]
    fn a_trunk_with_its_share_full_leaves_the_others_theirs() {
        let shares = Shares::default();
        let held = filled(&shares, &TrunkName::new("loud"));
        assert_eq!(held.len(), limit::SHARD_INPUTS_PER_TRUNK.get());
        assert!(shares.hold(&TrunkName::new("quiet")).is_ok());
    }

    #[tokio::test]
    async fn who_waits_gets_the_place_of_what_was_handled() {
        let shares = Shares::default();
        let loud = TrunkName::new("loud");
        let mut held = filled(&shares, &loud);
        let Err(places) = shares.hold(&loud) else { panic!("it is full") };
        let waiting = tokio::spawn(places.next());
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        held.pop();
        assert!(waiting.await.unwrap().is_some());
    }

    #[test]
    fn shares_of_trunks_that_are_no_more_are_forgotten_but_not_one_in_use() {
        let shares = Shares::default();
        let old = TrunkName::new("old");
        let held = filled(&shares, &old);
        for number in 0..2 * limit::POLICY_TRUNKS.get() {
            assert!(shares.hold(&TrunkName::new(&format!("t{number}"))).is_ok());
        }
        assert!(shares.hold(&old).is_err(), "a full share was forgotten");
        let known = shares.of_trunk.lock().unwrap().len();
        assert!(known <= limit::POLICY_TRUNKS.get(), "{known} shares");
        drop(held);
    }
}
