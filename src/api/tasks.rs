//! Tasks that outlive the request that began them: they belong to a set, which the end of the API
//! waits for.

use core::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

/// All of them.
#[derive(Debug)]
pub(crate) struct Tasks {
    /// `None` once ended: nothing starts any more.
    set: Mutex<Option<JoinSet<()>>>,
    ending: watch::Sender<bool>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { set: Mutex::new(Some(JoinSet::new())), ending: watch::Sender::new(false) }
    }
}

impl Tasks {
    fn set(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a task on the current runtime; returns whether it was started. A panic ends it
    /// alone.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut set = self.set();
        let Some(open) = set.as_mut() else {
            drop(set); // the task's guards may come back here
            return false;
        };
        while open.try_join_next().is_some() {}
        open.spawn(task);
        true
    }

    /// Whether everything is to end.
    pub(crate) fn is_ending(&self) -> bool {
        *self.ending.borrow()
    }

    /// Waits until everything is to end.
    pub(crate) async fn ending(&self) {
        // The sender is in `self`, so that waiting cannot fail.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Tells everything to end; new work is refused from now on.
    pub(crate) fn announce_end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until `deadline` for all tasks, then aborts the rest.
    pub(crate) async fn end(&self, deadline: Instant) {
        self.announce_end();
        let taken = self.set().take();
        let Some(mut set) = taken else { return };
        while let Ok(Some(_)) = timeout_at(deadline, set.join_next()).await {}
        set.shutdown().await;
    }
}
