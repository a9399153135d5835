//! What the vault's threads and handles share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use base::{Clock, Event, Instant};
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

/// A time in which the disk or the database failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outage {
    /// Records that found no room in the queue.
    pub(crate) records: u64,
    /// Recordings that ended early or did not begin.
    pub(crate) recordings: u64,
    /// How long it took.
    pub(crate) unavailable: std::time::Duration,
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
    /// Since when either is not well.
    ill_since: Mutex<Option<Instant>>,
    records_lost: AtomicU64,
    recordings_lost: AtomicU64,
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
            ill_since: Mutex::new(None),
            records_lost: AtomicU64::new(0),
            recordings_lost: AtomicU64::new(0),
        }
    }

    /// A record found no room.
    pub(crate) fn record_lost(&self) {
        self.records_lost.fetch_add(1, Ordering::Relaxed);
    }

    /// A recording did not begin.
    pub(crate) fn recording_lost(&self) {
        self.recordings_lost.fetch_add(1, Ordering::Relaxed);
    }

    fn falls_ill(&self) {
        let now = self.clock.now();
        let mut since = self.ill_since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            *since = Some(now);
            self.records_lost.store(0, Ordering::Relaxed);
            self.recordings_lost.store(0, Ordering::Relaxed);
        }
    }

    /// The outage that is over now; told once.
    pub(crate) fn outage_over(&self) -> Option<Outage> {
        if !self.is_well() {
            return None;
        }
        let since = self.ill_since.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Outage {
            records: self.records_lost.swap(0, Ordering::Relaxed),
            recordings: self.recordings_lost.swap(0, Ordering::Relaxed),
            unavailable: self.clock.now().since(since),
        })
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
        if !well {
            self.falls_ill();
        }
        self.database_well.store(well, Ordering::Release);
    }

    /// A recording failed; recordings are refused until the disk takes a file again.
    pub(crate) fn recorder_failed(&self) {
        self.falls_ill();
        self.recordings_lost.fetch_add(1, Ordering::Relaxed);
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
