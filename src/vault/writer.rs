//! The writer's thread: takes batches from the queue, commits them, signs audit heads.
//!
//! **Durability.** A record counts as *acknowledged* when [`crate::VaultHandle::flush`] returns
//! after it. It is then in SQLite's write-ahead log, synced (`synchronous = FULL`): it survives
//! `kill -9` and a power cut. A record that was only submitted is in memory; it reaches the disk
//! with the next batch, on a healthy disk within limit `vault.gather_ms`, and within some
//! milliseconds where it is a turn.
//!
//! Where the disk is full or fails, the batch stays and is tried again twice a second, the queue
//! fills, and [`crate::VaultHandle::healthy`] says no. Once it takes writes again, an event and an
//! audit record say for how long it did not and what was lost meanwhile.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as OsInstant};

use base::{Event, Instant, WallTime, limit};
use tokio::runtime::Runtime;

use crate::Erasure;
use crate::access::{AccessError, Change, Done, Keys};
use crate::audit::HeadFile;
use crate::key::Kms;
use crate::ledger::{Ledger, own_entry};
use crate::object::Objects;
use crate::queue::Op;
use crate::recording::RecordingId;
use crate::retention::Sweeper;
use crate::shared::{Outage, Shared};

/// How long the thread sleeps where there is nothing to do.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long it waits before it tries a failed batch again.
const RETRY: Duration = Duration::from_millis(500);
/// How often the audit log is told of outages: a disk at its brim fails and recovers all the time.
const TELL: Duration = Duration::from_secs(60);
/// How often it tries while the vault is being closed.
const CLOSING_TRIES: u32 = 3;

/// The writer's state; owned by its thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Runtime,
    pub(crate) ledger: Ledger,
    pub(crate) objects: Arc<Objects>,
    pub(crate) heads: Heads,
    pub(crate) sweeper: Sweeper,
    pub(crate) chores: Chores,
    pub(crate) keys: Keys,
    /// The vault is being closed and the disk still fails: what is left is lost, and said so.
    pub(crate) gave_up: bool,
}

/// What could not be done at once and is tried again, twice a second.
#[derive(Default)]
pub(crate) struct Chores {
    /// Not before this. Of the operating system, since it is the disk that is waited for.
    not_before: Option<OsInstant>,
    /// An outage that the audit log does not know of yet.
    untold: Option<Outage>,
    /// When it was last told of one.
    told: Option<OsInstant>,
    /// Recordings that could not be closed on a full disk.
    left: VecDeque<RecordingId>,
    /// The journal may still hold what was erased.
    journal: bool,
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
            let batch = self.shared.queue.take(self.sweeper.patience(PATIENCE));
            let wrote = !batch.is_empty();
            self.process(batch);
            self.do_chores();
            if self.shared.is_well() && !self.shared.queue.is_closed() {
                let (ledger, runtime) = (&mut self.ledger, &self.runtime);
                self.chores.journal |= self.sweeper.step(wrote, ledger, runtime, &self.shared);
            }
            self.sign_head(false);
        }
        self.sweeper.close(&mut self.ledger, &self.runtime, &self.shared);
        self.chores.not_before = None;
        self.do_chores();
        self.sign_head(true);
        // What was committed is on the disk; closing only tidies the journal up.
        let _ = self.runtime.block_on(self.ledger.close());
    }

    fn do_chores(&mut self) {
        if let Some(Outage { records, recordings, unavailable }) = self.shared.outage_over() {
            let lost = Event::VaultRecovered { records, recordings, unavailable };
            self.shared.tell(lost);
            let untold = self.chores.untold.get_or_insert(Outage {
                records: 0,
                recordings: 0,
                unavailable: Duration::ZERO,
            });
            untold.records = untold.records.saturating_add(records);
            untold.recordings = untold.recordings.saturating_add(recordings);
            untold.unavailable = untold.unavailable.saturating_add(unavailable);
        }
        let now = OsInstant::now();
        if self.chores.not_before.is_some_and(|at| now < at) {
            return;
        }
        self.chores.not_before = Some(now + RETRY);
        if !self.shared.is_recorder_well() && self.objects.probe().is_ok() {
            self.shared.recorder_recovered();
        }
        if !self.shared.is_database_well() {
            return;
        }
        self.tell_outage();
        self.close_left();
        if self.chores.journal {
            let truncated = self.runtime.block_on(self.ledger.truncate_journal());
            self.chores.journal = !truncated.is_ok_and(|whole| whole);
        }
    }

    /// Tells the audit log of an outage that is over.
    fn tell_outage(&mut self) {
        let Some(Outage { records, recordings, unavailable }) = self.chores.untold else { return };
        let now = OsInstant::now();
        let is_soon = self.chores.told.is_some_and(|at| now < at + TELL);
        if is_soon && !self.shared.queue.is_closed() {
            return;
        }
        let seconds = unavailable.as_secs();
        let details =
            format!("seconds={seconds} records_lost={records} recordings_lost={recordings}");
        let entry = own_entry("vault.recovered", None, details);
        let wall = self.shared.clock.wall();
        if self.runtime.block_on(self.ledger.audit(entry, wall)).is_ok() {
            self.chores.untold = None;
            self.chores.told = Some(now);
        }
    }

    /// Closes recordings that could not be closed before, a few at a time.
    fn close_left(&mut self) {
        let wall = self.shared.clock.wall();
        for _ in 0..self.chores.left.len().min(limit::VAULT_SWEEP_BATCH.get()) {
            let Some(id) = self.chores.left.pop_front() else { return };
            if !self.runtime.block_on(self.ledger.settle(id, wall)).is_ok_and(|closed| closed) {
                self.leave(id);
            }
        }
    }

    /// Notes a recording to be closed later; beyond the limit the next start closes it.
    fn leave(&mut self, id: RecordingId) {
        if self.chores.left.len() < limit::CALL_CONCURRENT.get() {
            self.chores.left.push_back(id);
        }
    }

    fn process(&mut self, batch: Vec<Op>) {
        let mut group = Vec::with_capacity(batch.len());
        for op in batch {
            match op {
                Op::Erase { .. } | Op::RecordingLeft { .. } | Op::Access { .. } => {
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
        if let Op::Erase { call, actor, done } = op {
            let erased = self.runtime.block_on(self.ledger.erase(call, &actor, wall));
            if matches!(erased, Ok(Erasure::Now)) {
                self.shared.tell(Event::CallErased { call });
                let truncated = self.runtime.block_on(self.ledger.truncate_journal());
                self.chores.journal |= !truncated.is_ok_and(|whole| whole);
            }
            // Whoever asked may be gone.
            let _ = done.send(erased);
        } else if let Op::Access { change, actor, wall, done } = op {
            let changed = self.access(&change, &actor, wall);
            match done {
                // Whoever asked may be gone; it is done all the same.
                Some(done) => drop(done.send(changed)),
                None if changed.is_err() => {
                    self.shared.tell(Event::VaultFailed { what: "access" });
                }
                None => {}
            }
        } else if let Op::RecordingLeft { id } = op {
            match self.runtime.block_on(self.ledger.settle(id, wall)) {
                Ok(true) => {}
                Ok(false) => self.leave(id),
                Err(_) => {
                    self.shared.tell(Event::VaultFailed { what: "recording" });
                    self.leave(id);
                }
            }
        }
        self.finished(1);
    }

    /// Changes who may come in: on the disk first, then in memory.
    fn access(
        &mut self,
        change: &Change,
        actor: &str,
        wall: WallTime,
    ) -> Result<Done, AccessError> {
        let plan = self.keys.plan(change, actor, wall)?;
        if !plan.rows.is_empty() {
            self.runtime.block_on(self.ledger.write_access(&plan, wall))?;
        }
        Ok(self.keys.apply(plan))
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
