//! The bounded queue in front of the writer's thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::limit::VAULT_GATHER_MS;
use base::{CallId, WallTime, limit};
use tokio::sync::oneshot;

use crate::access::{AccessError, Change, Done};
use crate::record::Record;
use crate::recording::{RecordingId, Track};
use crate::{EraseError, Erasure};

/// Something for the writer's thread to do.
pub(crate) enum Op {
    /// Keep a record, made at this time.
    Record(Record, WallTime),
    /// Note a recording that begins, and give its track what it needs to write.
    RecordingOpened { track: Arc<Track>, started: WallTime },
    /// Note how far a recording has come.
    RecordingNoted { id: RecordingId, chunks: u64, duration_ms: u64 },
    /// Note that a recording is complete.
    RecordingComplete {
        id: RecordingId,
        call: CallId,
        chunks: u64,
        duration_ms: u64,
        wall: WallTime,
    },
    /// Close a recording whose writer gave up.
    RecordingLeft { id: RecordingId },
    /// Erase a call.
    Erase { call: CallId, actor: String, done: oneshot::Sender<Result<Erasure, EraseError>> },
    /// Change who may come in; where nobody waits for it, it was only used.
    Access {
        change: Box<Change>,
        actor: String,
        wall: WallTime,
        done: Option<oneshot::Sender<Result<Done, AccessError>>>,
    },
}

impl Op {
    /// Whether it is written at once: what was said may not be lost, and recordings wait for
    /// their keys. The others gather.
    const fn is_urgent(&self) -> bool {
        match self {
            Self::Record(record, _) => matches!(record, Record::Turn { .. }),
            Self::RecordingNoted { .. } => false,
            Self::Access { done, .. } => done.is_some(),
            Self::RecordingOpened { .. }
            | Self::RecordingComplete { .. }
            | Self::RecordingLeft { .. }
            | Self::Erase { .. } => true,
        }
    }

    fn bytes(&self) -> usize {
        let text = match self {
            Self::Record(record, _) => record.text_bytes(),
            _ => 0,
        };
        text.saturating_add(size_of::<Self>())
    }

    /// The word for it in `Event::VaultFailed`.
    pub(crate) const fn what(&self) -> &'static str {
        match self {
            Self::Record(record, _) => record.what(),
            Self::Erase { .. } => "call",
            Self::Access { .. } => "access",
            Self::RecordingOpened { .. }
            | Self::RecordingNoted { .. }
            | Self::RecordingComplete { .. }
            | Self::RecordingLeft { .. } => "recording",
        }
    }
}

#[derive(Default)]
struct Waiting {
    ops: VecDeque<Op>,
    bytes: usize,
    pushed: u64,
    /// Something is to be written at once.
    is_urgent: bool,
    stop: bool,
}

impl Waiting {
    /// Whether a batch is better taken now than later.
    fn is_ripe(&self) -> bool {
        self.is_urgent || self.stop || self.ops.len() >= limit::VAULT_BATCH.get()
    }
}

/// Many threads push, one takes.
#[derive(Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `op` and gives its number, counted from 1; gives it back where the queue is full or
    /// closed. Never waits.
    pub(crate) fn push(&self, op: Op) -> Result<u64, Op> {
        let bytes = op.bytes();
        let mut waiting = self.lock();
        let is_full = waiting.ops.len() >= limit::VAULT_QUEUE.get()
            || waiting.bytes.saturating_add(bytes) > limit::VAULT_QUEUE_BYTES.get();
        if is_full || waiting.stop {
            return Err(op);
        }
        waiting.bytes += bytes;
        waiting.is_urgent |= op.is_urgent();
        waiting.ops.push_back(op);
        waiting.pushed += 1;
        let number = waiting.pushed;
        // Nobody is woken for what only gathers.
        let wakes = waiting.ops.len() == 1 || waiting.is_ripe();
        drop(waiting);
        if wakes {
            self.wake.notify_one();
        }
        Ok(number)
    }

    /// Has what is in it written at once; the number of the last op added.
    pub(crate) fn hurry(&self) -> u64 {
        let mut waiting = self.lock();
        waiting.is_urgent = !waiting.ops.is_empty();
        let number = waiting.pushed;
        drop(waiting);
        self.wake.notify_one();
        number
    }

    /// The number of the last op added.
    pub(crate) fn pushed(&self) -> u64 {
        self.lock().pushed
    }

    /// Takes up to limit `vault.batch` ops, waiting at most `patience` for the first and at most
    /// limit `vault.gather_ms` for others to go with it.
    pub(crate) fn take(&self, patience: Duration) -> Vec<Op> {
        let is_empty = |waiting: &mut Waiting| waiting.ops.is_empty() && !waiting.stop;
        let waited = self.wake.wait_timeout_while(self.lock(), patience, is_empty);
        let waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        let gather = if waiting.ops.is_empty() { Duration::ZERO } else { VAULT_GATHER_MS.millis() };
        let gathers = |waiting: &mut Waiting| !waiting.is_ripe();
        let waited = self.wake.wait_timeout_while(waiting, gather, gathers);
        let mut waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
        let count = waiting.ops.len().min(limit::VAULT_BATCH.get());
        let batch: Vec<Op> = waiting.ops.drain(..count).collect();
        let bytes: usize = batch.iter().map(Op::bytes).sum();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.is_urgent &= !waiting.ops.is_empty();
        batch
    }

    /// Takes no more ops; what is in it is still to be taken.
    pub(crate) fn close(&self) {
        self.lock().stop = true;
        self.wake.notify_all();
    }

    /// Whether it is closed and empty.
    pub(crate) fn is_through(&self) -> bool {
        let waiting = self.lock();
        waiting.stop && waiting.ops.is_empty()
    }

    /// Whether it is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().stop
    }
}

#[cfg(test)]
mod tests {
    use base::Personal;

    use super::*;
    use crate::audit::{AuditDetails, AuditEntry};
    use crate::{Role, Turn};

    fn op(text: usize) -> Op {
        let details = AuditDetails::Plain("x".repeat(text));
        let entry = AuditEntry { kind: "test.op", actor: String::new(), call: None, details };
        Op::Record(Record::Audit(entry), WallTime::default())
    }

    #[test]
    fn a_full_queue_gives_the_record_back_at_once() {
        let queue = Queue::default();
        for n in 1..=limit::VAULT_QUEUE.value {
            assert_eq!(queue.push(op(0)).ok(), Some(n));
        }
        assert!(queue.push(op(0)).is_err());
        assert_eq!(queue.take(Duration::ZERO).len(), limit::VAULT_BATCH.get());
        assert!(queue.push(op(0)).is_ok());
    }

    #[test]
    fn large_records_fill_the_queue_by_their_bytes() {
        let queue = Queue::default();
        let taken = (0..limit::VAULT_QUEUE.get())
            .take_while(|_| queue.push(op(limit::VAULT_RECORD_BYTES.get())).is_ok())
            .count();
        assert!(taken < limit::VAULT_QUEUE_BYTES.get() / limit::VAULT_RECORD_BYTES.get());
        while !queue.take(Duration::ZERO).is_empty() {}
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn what_was_said_waits_for_nothing_and_the_rest_gathers() {
        let queue = Queue::default();
        assert!(queue.push(op(0)).is_ok());
        assert!(!queue.lock().is_ripe());
        let turn = Turn {
            index: 0,
            role: Role::Caller,
            text: Personal::new("yes".into()),
            start_ms: 0,
            end_ms: 0,
            interrupted: false,
            latency: None,
        };
        let record = Record::Turn { call: CallId::from_bytes([1; 12]), turn };
        assert!(queue.push(Op::Record(record, WallTime::default())).is_ok());
        assert!(queue.lock().is_ripe());
        assert_eq!(queue.take(Duration::from_secs(60)).len(), 2);
        assert!(!queue.lock().is_ripe());
        assert!(queue.push(op(0)).is_ok());
        queue.hurry();
        assert!(queue.lock().is_ripe());
        assert_eq!(queue.take(Duration::from_secs(60)).len(), 1);
        (0..limit::VAULT_BATCH.get()).for_each(|_| assert!(queue.push(op(0)).is_ok()));
        assert!(queue.lock().is_ripe());
    }

    #[test]
    fn a_closed_queue_hands_out_what_it_holds() {
        let queue = Queue::default();
        assert!(queue.push(op(0)).is_ok());
        queue.close();
        assert!(queue.push(op(0)).is_err());
        assert!(!queue.is_through());
        assert_eq!(queue.take(Duration::from_secs(60)).len(), 1);
        assert!(queue.is_through() && queue.is_closed());
    }
}
