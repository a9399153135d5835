//! Tasks that somebody owns: every task of this member lives in one set, which ends them all.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

/// All tasks of one transport.
#[derive(Debug)]
pub(crate) struct Tasks {
    runtime: Handle,
    /// `None` once ended: nothing starts any more.
    set: Mutex<Option<JoinSet<()>>>,
}

impl Tasks {
    pub(crate) fn new(runtime: Handle) -> Self {
        Self { runtime, set: Mutex::new(Some(JoinSet::new())) }
    }

    /// The runtime, for sockets that register with it outside of a task.
    pub(crate) const fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// Starts a task; `None` once ended, and `task` is dropped.
    pub(crate) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Option<AbortHandle> {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = set.as_mut() else {
            drop(set); // the task's guards may come back here
            return None;
        };
        while open.try_join_next().is_some() {}
        Some(open.spawn_on(task, &self.runtime))
    }

    /// Starts nothing more, waits for all tasks until `deadline`, then aborts the rest. Returns
    /// how many had to be aborted.
    pub(crate) async fn end(&self, deadline: Instant) -> usize {
        let taken = self.set.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut set) = taken else { return 0 };
        while let Ok(Some(_)) = timeout_at(deadline, set.join_next()).await {}
        let aborted = set.len();
        set.shutdown().await;
        aborted
    }
}

/// Runs `body`; `None` where it panicked. What it owned is dropped outside of the panic.
pub(crate) async fn contained<F: Future>(body: F) -> Option<F::Output> {
    let mut body = pin!(body);
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| body.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Some),
        Err(_) => Poll::Ready(None),
    })
    .await
}

/// Calls `body`; `None` where it panicked.
pub(crate) fn contained_call<T>(body: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(body)).ok()
}
