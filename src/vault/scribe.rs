//! Turns ops into rows: finds keys, seals, extends the audit chain. What it made of a batch is
//! written at once, before the batch is committed.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{CallId, WallTime, limit};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::audit::{AuditDetails, AuditEntry, AuditRow, ChainTip};
use crate::key::DataKey;
use crate::key::ring::{Workspace, wrap_object_key};
use crate::ledger::own_entry;
use crate::queue::Op;
use crate::record::{CallRecord, LadderEntry, Record, StoredLadder, StoredPersonal};
use crate::recording::part::Closed;
use crate::recording::{Opened, RecordingId, RecordingState, Track};
use crate::seal::{self, StreamHeader, StreamSealer};
use crate::store::read::StoredKey;
use crate::store::write::{CallRow, Part, PartRow, Pending, SealedCall};
use crate::store::{self, StoreError};
use crate::transcript::StoredTurn;

/// Room that most ladder rows fit in: a call's set-up on both legs.
const LADDER_BYTES: usize = 12 * 1_024;

/// Recordings that may be written once their row is on the disk.
pub(crate) type Openings = Vec<(Arc<Track>, Opened)>;

/// Everything but the connection, so that a transaction can borrow that.
pub(crate) struct Scribe {
    workspace: Workspace,
    edge: Vec<u8>,
    chain: ChainTip,
    /// Keys of the calls in progress; `None` for an erased one.
    keys: BTreeMap<CallId, Option<DataKey>>,
    /// Rows of the transaction that is open.
    pending: Pending,
    /// Calls that have ended in it.
    ended: Vec<CallId>,
}

impl Scribe {
    pub(crate) fn new(workspace: Workspace, edge: Vec<u8>, chain: ChainTip) -> Self {
        let (keys, pending, ended) = (BTreeMap::new(), Pending::default(), Vec::new());
        Self { workspace, edge, chain, keys, pending, ended }
    }

    /// The name of whose calls these are.
    pub(crate) fn workspace(&self) -> &str {
        self.workspace.name().as_str()
    }

    /// The last audit record.
    pub(crate) const fn chain(&self) -> ChainTip {
        self.chain
    }

    /// The chain goes on from here.
    pub(crate) const fn follow(&mut self, chain: ChainTip) {
        self.chain = chain;
    }

    /// Finds the keys that `ops` need, all at once, and makes those that are not there yet.
    pub(crate) async fn find_keys(
        &mut self,
        connection: &mut SqliteConnection,
        ops: &[Op],
    ) -> Result<(), StoreError> {
        let mut unknown: Vec<CallId> = ops
            .iter()
            .filter_map(sealed_for)
            .filter(|call| !self.keys.contains_key(call))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        for (call, stored) in store::rows::call_keys(connection, &unknown).await? {
            let key = self.unwrapped(call, stored)?;
            self.keys.insert(call, key);
        }
        for call in unknown {
            if !self.keys.contains_key(&call) {
                self.make_key(call)?;
            }
        }
        Ok(())
    }

    /// Writes what was made of a batch.
    pub(crate) async fn write_out(
        &mut self,
        connection: &mut SqliteConnection,
    ) -> Result<(), StoreError> {
        let workspace = self.workspace.name().as_str();
        std::mem::take(&mut self.pending).write(connection, workspace).await
    }

    /// The transaction is on the disk.
    pub(crate) fn committed(&mut self) {
        for call in std::mem::take(&mut self.ended) {
            self.keys.remove(&call);
        }
        while self.keys.len() > limit::CALL_CONCURRENT.get() * 2 {
            self.keys.pop_first();
        }
    }

    /// The transaction came to nothing; the chain ends where it did before.
    pub(crate) fn rolled_back(&mut self, chain: ChainTip) {
        self.chain = chain;
        self.pending = Pending::default();
        self.ended.clear();
        // Some may stand for rows that were rolled back.
        self.keys.clear();
    }

    /// A call was erased.
    pub(crate) fn forget(&mut self, call: CallId) {
        self.keys.remove(&call);
    }

    /// Makes rows of an op.
    pub(crate) async fn apply(
        &mut self,
        connection: &mut SqliteConnection,
        op: &Op,
        openings: &mut Openings,
    ) -> Result<(), StoreError> {
        match op {
            Op::Record(Record::Call(record), _) => self.write_call(connection, record).await,
            Op::Record(Record::Turn { call, turn }, _) => {
                let content = StoredTurn::from(turn);
                self.write_turn(connection, *call, turn.index, &content).await
            }
            Op::Record(Record::Ladder { call, entries }, _) => {
                self.write_ladder(connection, *call, entries).await
            }
            Op::Record(Record::Audit(entry), wall) => {
                self.append_audit(connection, entry, *wall).await
            }
            Op::RecordingOpened { track, started } => {
                if let Some(key) = self.call_key(connection, track.call).await? {
                    store::write::insert_recording(connection, track.id, track.call, *started)
                        .await?;
                    openings.push((track.clone(), opening(track, &key)?));
                }
                Ok(())
            }
            Op::RecordingNoted { id, chunks, duration_ms } => {
                let state = RecordingState::Open;
                store::write::update_recording(connection, *id, state, *chunks, *duration_ms).await
            }
            Op::RecordingComplete { id, call, chunks, duration_ms, wall } => {
                let closed = Closed {
                    state: RecordingState::Complete,
                    chunks: *chunks,
                    duration_ms: *duration_ms,
                };
                self.note_closed(connection, *id, *call, closed, *wall).await
            }
            // These are no part of a batch: see `Writer::process`.
            Op::RecordingLeft { .. } | Op::Erase { .. } | Op::Access { .. } => Ok(()),
        }
    }

    /// A call's key, made where there is none yet; `None` where it was erased.
    pub(crate) async fn call_key(
        &mut self,
        connection: &mut SqliteConnection,
        call: CallId,
    ) -> Result<Option<DataKey>, StoreError> {
        if !self.keys.contains_key(&call) {
            match store::read::call_key(connection, call).await? {
                StoredKey::None => self.make_key(call)?,
                stored => {
                    let key = self.unwrapped(call, stored)?;
                    self.keys.insert(call, key);
                }
            }
        }
        Ok(self.keys.get(&call).cloned().flatten())
    }

    fn make_key(&mut self, call: CallId) -> Result<(), StoreError> {
        let key = DataKey::random()?;
        self.pending.keys.push((call, self.workspace.wrap_call_key(call, &key)?));
        self.keys.insert(call, Some(key));
        Ok(())
    }

    fn unwrapped(&self, call: CallId, stored: StoredKey) -> Result<Option<DataKey>, StoreError> {
        Ok(match stored {
            StoredKey::None | StoredKey::Erased => None,
            StoredKey::Wrapped(wrapped) => Some(self.workspace.unwrap_call_key(call, &wrapped)?),
        })
    }

    async fn write_call(
        &mut self,
        connection: &mut SqliteConnection,
        record: &CallRecord,
    ) -> Result<(), StoreError> {
        let Some(key) = self.call_key(connection, record.id).await? else { return Ok(()) };
        let content = StoredPersonal::from(&record.personal);
        let index = |number: &base::Personal<String>| self.workspace.blind().of(number.expose());
        let sealed = SealedCall {
            caller: index(&record.personal.caller),
            callee: index(&record.personal.callee),
            personal: seal_json(&key, &[b"call", record.id.as_bytes()], &content)?,
        };
        self.pending.calls.push(CallRow { record: record.clone(), sealed });
        if record.ended.is_some() {
            self.ended.push(record.id);
        }
        Ok(())
    }

    async fn write_turn(
        &mut self,
        connection: &mut SqliteConnection,
        call: CallId,
        number: u32,
        content: &StoredTurn<'_>,
    ) -> Result<(), StoreError> {
        let Some(key) = self.call_key(connection, call).await? else { return Ok(()) };
        let context = [Part::Turn.context(), call.as_bytes(), &number.to_be_bytes()];
        let row = PartRow { call, number, content: seal_json(&key, &context, content)? };
        self.pending.turns.push(row);
        Ok(())
    }

    async fn write_ladder(
        &mut self,
        connection: &mut SqliteConnection,
        call: CallId,
        entries: &[LadderEntry],
    ) -> Result<(), StoreError> {
        let Some(number) = entries.first().map(|entry| entry.index) else { return Ok(()) };
        let Some(key) = self.call_key(connection, call).await? else { return Ok(()) };
        let mut lines = zeroize::Zeroizing::new(Vec::with_capacity(LADDER_BYTES));
        for entry in entries {
            let stored = StoredLadder {
                at_ms: entry.at_ms,
                leg: entry.leg,
                sent: entry.sent,
                message: entry.message.expose().as_str().into(),
            };
            serde_json::to_writer(&mut *lines, &stored).map_err(|_| StoreError::Encode)?;
            lines.push(b'\n');
        }
        let context = [Part::Ladder.context(), call.as_bytes(), &number.to_be_bytes()];
        let content = seal::seal(&key, &context, &mut lines)?;
        self.pending.ladder.push((PartRow { call, number, content }, entries.len()));
        Ok(())
    }

    /// Appends to the audit chain.
    pub(crate) async fn append_audit(
        &mut self,
        connection: &mut SqliteConnection,
        entry: &AuditEntry,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let seq = self.chain.seq.checked_add(1).ok_or(StoreError::Row("audit"))?;
        let (sealed, details) = match &entry.details {
            AuditDetails::Plain(text) => (false, text.clone().into_bytes()),
            AuditDetails::Sealed(text) => {
                let edge = self.edge.clone();
                let context = [b"audit", &edge[..], &seq.to_be_bytes()];
                let mut plain = zeroize::Zeroizing::new(text.expose().clone().into_bytes());
                let bytes = match entry.call {
                    None => seal::seal(self.workspace.audit_key(), &context, &mut plain)?,
                    Some(call) => match self.call_key(connection, call).await? {
                        Some(key) => seal::seal(&key, &context, &mut plain)?,
                        // Details of an erased call are not kept.
                        None => Vec::new(),
                    },
                };
                (true, bytes)
            }
        };
        let row = AuditRow {
            seq,
            previous: self.chain.hash,
            wall,
            kind: entry.kind.to_owned(),
            actor: entry.actor.clone(),
            call: entry.call,
            sealed,
            details,
        };
        let hash = row.hash();
        self.pending.audits.push((row, hash));
        self.chain = ChainTip { seq, hash };
        Ok(())
    }

    /// Notes how a recording ended.
    pub(crate) async fn note_closed(
        &mut self,
        connection: &mut SqliteConnection,
        id: RecordingId,
        call: CallId,
        closed: Closed,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let Closed { state, chunks, duration_ms } = closed;
        store::write::update_recording(connection, id, state, chunks, duration_ms).await?;
        // In the chain too, so that a row cannot be changed to match a file that was cut.
        let details = format!("{id} {} chunks={chunks}", state.as_str());
        let entry = own_entry("recording.closed", Some(call), details);
        self.append_audit(connection, &entry, wall).await
    }
}

/// The call under whose key something of this op is sealed.
fn sealed_for(op: &Op) -> Option<CallId> {
    match op {
        Op::Record(Record::Call(record), _) => Some(record.id),
        Op::Record(Record::Turn { call, .. } | Record::Ladder { call, .. }, _) => Some(*call),
        Op::Record(Record::Audit(entry), _) => match entry.details {
            AuditDetails::Sealed(_) => entry.call,
            AuditDetails::Plain(_) => None,
        },
        Op::RecordingOpened { track, .. } => Some(track.call),
        Op::RecordingNoted { .. }
        | Op::RecordingComplete { .. }
        | Op::RecordingLeft { .. }
        | Op::Erase { .. }
        | Op::Access { .. } => None,
    }
}

fn seal_json<T: Serialize>(
    key: &DataKey,
    context: &[&[u8]],
    content: &T,
) -> Result<Vec<u8>, StoreError> {
    let plain = serde_json::to_vec(content).map_err(|_| StoreError::Encode)?;
    Ok(seal::seal(key, context, &mut zeroize::Zeroizing::new(plain))?)
}

/// A key, a header and a sealer for a new recording. They go to its track and nowhere else.
fn opening(track: &Track, call_key: &DataKey) -> Result<Opened, StoreError> {
    let key = DataKey::random()?;
    let object = *track.id.as_bytes();
    let header = StreamHeader { object, wrapped_key: wrap_object_key(call_key, &object, &key)? };
    let sealer = StreamSealer::new(&key, &header)?;
    Ok(Opened { header, sealer })
}
