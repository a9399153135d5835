//! The writer's thread: takes batches from the queue, commits them, signs audit heads.
//!
//! **Durability.** A record counts as *acknowledged* when [`crate::VaultHandle::flush`] returns
//! after it. It is then in SQLite's write-ahead log, synced (`synchronous = FULL`): it survives
//! `kill -9` and a power cut. A record that was only submitted is in memory; it reaches the disk
//! with the next batch, some milliseconds later on a healthy disk.
//!
//! Where the disk is full or fails, the batch stays and is tried again twice a second, the queue
//! fills, and [`crate::VaultHandle::healthy`] says no.

use std::sync::Arc;
use std::time::Duration;

use base::{Event, Instant, limit};
use tokio::runtime::Runtime;

use crate::audit::HeadFile;
use crate::key::Kms;
use crate::ledger::Ledger;
use crate::object::Objects;
use crate::queue::Op;
use crate::shared::Shared;

/// How long the thread sleeps where there is nothing to do.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits before it tries a failed batch again.
const RETRY: Duration = Duration::from_millis(500);
/// How often it tries while the vault is being closed.
const CLOSING_TRIES: u32 = 3;

/// The writer's state; owned by its thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Runtime,
    pub(crate) ledger: Ledger,
    pub(crate) objects: Arc<Objects>,
    pub(crate) heads: Heads,
    /// The vault is being closed and the disk still fails: what is left is lost, and said so.
    pub(crate) gave_up: bool,
}

/// When heads are signed.
pub(crate) struct Heads {
    pub(crate) file: HeadFile,
    pub(crate) kms: Box<dyn Kms>,
    /// The last record that was signed.
    pub(crate) signed: u64,
    /// Since when a record waits to be signed.
    pub(crate) waiting_since: Option<Instant>,
    /// After a failure, not before this.
    pub(crate) not_before: Instant,
}

impl Writer {
    /// Runs until the queue is closed and empty.
    pub(crate) fn run(mut self) {
        while !self.shared.queue.is_through() {
            let batch = self.shared.queue.take(PATIENCE);
            if batch.is_empty() && !self.shared.is_recorder_well() && self.objects.probe().is_ok() {
                self.shared.recorder_recovered();
            }
            self.process(batch);
            self.sign_head(false);
        }
        self.sign_head(true);
        // What was committed is on the disk; closing only tidies the journal up.
        let _ = self.runtime.block_on(self.ledger.close());
    }

    fn process(&mut self, batch: Vec<Op>) {
        let mut group = Vec::with_capacity(batch.len());
        for op in batch {
            match op {
                Op::Erase { .. } | Op::RecordingLeft { .. } => {
                    self.commit(std::mem::take(&mut group));
                    self.alone(op);
                }
                other => group.push(other),
            }
        }
        self.commit(group);
    }

    /// Does what needs more than a transaction.
    fn alone(&mut self, op: Op) {
        let wall = self.shared.clock.wall();
        if let Op::Erase { call, done } = op {
            let erased = self.runtime.block_on(self.ledger.erase(call, wall));
            // Whoever asked may be gone.
            let _ = done.send(erased);
        } else if let Op::RecordingLeft { id } = op
            && self.runtime.block_on(self.ledger.settle(id, wall)).is_err()
        {
            self.shared.tell(Event::VaultFailed { what: "recording" });
        }
        self.finished(1);
    }

    /// Commits all ops, in one transaction where that works.
    fn commit(&mut self, ops: Vec<Op>) {
        let Some(what) = ops.first().map(Op::what) else { return };
        if self.gave_up {
            return;
        }
        let mut tries = 0;
        loop {
            match self.runtime.block_on(self.ledger.commit(&ops)) {
                Ok(openings) => {
                    self.shared.database_is(true);
                    for (track, opened) in openings {
                        track.open(opened);
                    }
                    return self.finished(ops.len());
                }
                Err(error) if error.is_passing() => {
                    if self.shared.is_database_well() {
                        self.shared.database_is(false);
                        self.shared.tell(Event::VaultFailed { what });
                    }
                    tries += 1;
                    if self.shared.queue.is_closed() && tries >= CLOSING_TRIES {
                        self.gave_up = true;
                        return;
                    }
                    std::thread::sleep(RETRY);
                }
                // One of them cannot be written, ever: find it, keep the others.
                Err(_) if ops.len() > 1 => {
                    return ops.into_iter().for_each(|op| self.commit(vec![op]));
                }
                Err(_) => {
                    self.shared.tell(Event::VaultFailed { what });
                    return self.finished(1);
                }
            }
        }
    }

    fn finished(&self, count: usize) {
        self.shared.progress.send_modify(|progress| progress.done += count as u64);
    }

    fn sign_head(&mut self, closing: bool) {
        let now = self.shared.clock.now();
        let tip = self.ledger.chain();
        if tip.seq <= self.heads.signed {
            return;
        }
        let since = *self.heads.waiting_since.get_or_insert(now);
        let is_due = tip.seq - self.heads.signed >= limit::VAULT_AUDIT_HEAD_RECORDS.value
            || now.since(since) >= limit::VAULT_AUDIT_HEAD_MS.millis();
        if !closing && (!is_due || now < self.heads.not_before) {
            return;
        }
        let wall = self.shared.clock.wall();
        match self.heads.file.append(&*self.heads.kms, tip, wall) {
            Ok(()) => {
                self.heads.signed = tip.seq;
                self.heads.waiting_since = None;
            }
            Err(_) => {
                self.heads.not_before = now + limit::VAULT_AUDIT_HEAD_MS.millis();
                self.shared.tell(Event::VaultFailed { what: "audit" });
            }
        }
    }
}
