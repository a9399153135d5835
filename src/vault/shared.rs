//! What the vault's threads and handles share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use base::{Clock, Event};
use tokio::sync::watch;

use crate::queue::Queue;
use crate::recording::recorder;

/// How far the writer's thread has come.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// The number of the last op that is on the disk (or was reported as failed).
    pub(crate) done: u64,
    /// Whether it has ended.
    pub(crate) stopped: bool,
}

/// One vault.
pub(crate) struct Shared {
    pub(crate) queue: Queue,
    pub(crate) clock: Box<dyn Clock + Send + Sync>,
    on_event: Box<dyn Fn(Event) + Send + Sync>,
    pub(crate) progress: watch::Sender<Progress>,
    recorders: AtomicUsize,
    database_well: AtomicBool,
    recorder_well: AtomicBool,
}

impl Shared {
    pub(crate) fn new(
        clock: Box<dyn Clock + Send + Sync>,
        on_event: Box<dyn Fn(Event) + Send + Sync>,
    ) -> Self {
        Self {
            queue: Queue::default(),
            clock,
            on_event,
            progress: watch::Sender::new(Progress::default()),
            recorders: AtomicUsize::new(0),
            database_well: AtomicBool::new(true),
            recorder_well: AtomicBool::new(true),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        (self.on_event)(event);
    }

    pub(crate) fn is_well(&self) -> bool {
        self.is_database_well() && self.is_recorder_well()
    }

    pub(crate) fn is_database_well(&self) -> bool {
        self.database_well.load(Ordering::Acquire)
    }

    pub(crate) fn is_recorder_well(&self) -> bool {
        self.recorder_well.load(Ordering::Acquire)
    }

    pub(crate) fn database_is(&self, well: bool) {
        self.database_well.store(well, Ordering::Release);
    }

    /// A recording failed; recordings are refused until the disk takes a file again.
    pub(crate) fn recorder_failed(&self) {
        self.recorder_well.store(false, Ordering::Release);
        self.tell(recorder::FAILED);
    }

    pub(crate) fn recorder_recovered(&self) {
        self.recorder_well.store(true, Ordering::Release);
    }

    /// One more recorder's thread has started.
    pub(crate) fn recorder_starts(&self) {
        self.recorders.fetch_add(1, Ordering::AcqRel);
    }

    /// A recorder's thread has ended; after the last one there is nothing more to write.
    pub(crate) fn recorder_ends(&self) {
        if self.recorders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.queue.close();
        }
    }

    /// The writer's thread has ended, in good order or not.
    pub(crate) fn writer_ends(&self) {
        let left = self.queue.pushed();
        self.progress.send_modify(|progress| progress.stopped = true);
        if self.progress.borrow().done < left {
            self.database_is(false);
            self.tell(Event::VaultFailed { what: "call" });
        }
    }
}
