//! Turns ops into rows: finds keys, seals, extends the audit chain. One transaction per batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::{CallId, WallTime, limit};
use serde::Serialize;
use sqlx::SqliteConnection;

use crate::audit::{AuditDetails, AuditEntry, AuditRow, ChainTip};
use crate::key::DataKey;
use crate::key::ring::{Workspace, wrap_object_key};
use crate::object::Objects;
use crate::queue::Op;
use crate::read::{CallState, RecordingSummary};
use crate::record::{CallRecord, Record, StoredLadder, StoredPersonal};
use crate::recording::part::{self, Closed};
use crate::recording::{Opened, RecordingId, RecordingState, Track, play};
use crate::retention::Old;
use crate::seal::{self, StreamHeader, StreamSealer};
use crate::store::read::{StoredKey, Which};
use crate::store::sweep::{Cursor, Swept};
use crate::store::write::{ErasedRows, Part, SealedCall};
use crate::store::{self, Database, StoreError};
use crate::transcript::StoredTurn;
use crate::{EraseError, Erasure};

/// Recordings that may be written once their row is on the disk.
pub(crate) type Openings = Vec<(Arc<Track>, Opened)>;

/// The database and what is known of it.
pub(crate) struct Ledger {
    database: Database,
    objects: Arc<Objects>,
    scribe: Scribe,
}

/// Everything but the connection, so that a transaction can borrow that.
struct Scribe {
    workspace: Workspace,
    edge: Vec<u8>,
    chain: ChainTip,
    /// Keys of the calls in progress; `None` for an erased one. Never more than twice limit
    /// `call.concurrent`.
    keys: BTreeMap<CallId, Option<DataKey>>,
}

impl Ledger {
    pub(crate) const fn new(
        database: Database,
        objects: Arc<Objects>,
        workspace: Workspace,
        edge: Vec<u8>,
        chain: ChainTip,
    ) -> Self {
        let scribe = Scribe { workspace, edge, chain, keys: BTreeMap::new() };
        Self { database, objects, scribe }
    }

    /// The last audit record that is on the disk.
    pub(crate) const fn chain(&self) -> ChainTip {
        self.scribe.chain
    }

    /// Does all of `ops` or none. They are on the disk when this returns.
    pub(crate) async fn commit(&mut self, ops: &[Op]) -> Result<Openings, StoreError> {
        self.ready().await?;
        let before = self.scribe.chain;
        let done = self.try_commit(ops).await;
        if done.is_err() {
            self.scribe.chain = before;
            // Some may stand for rows that were rolled back.
            self.scribe.keys.clear();
        }
        self.database.judge(done).await
    }

    /// Sees to it that there is a connection. After a failure nobody knows whether what was told
    /// to have failed is on the disk all the same, so the chain goes on from what is there.
    async fn ready(&mut self) -> Result<(), StoreError> {
        if self.database.renew().await?
            && let Some(chain) = store::write::chain_tip(self.database.connection().await?).await?
        {
            self.scribe.chain = chain;
        }
        Ok(())
    }

    async fn try_commit(&mut self, ops: &[Op]) -> Result<Openings, StoreError> {
        let mut openings = Vec::new();
        let mut transaction = self.database.begin().await?;
        for op in ops {
            self.scribe.apply(&mut transaction, op, &mut openings).await?;
        }
        transaction.commit().await?;
        Ok(openings)
    }

    /// Writes one audit record of the vault's own.
    pub(crate) async fn audit(
        &mut self,
        entry: AuditEntry,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        self.commit(&[Op::Record(Record::Audit(entry), wall)]).await.map(drop)
    }

    /// Erases a call: its recordings' files first, then its key and all that is sealed under it.
    /// What a crash in between leaves can be erased again.
    pub(crate) async fn erase(
        &mut self,
        call: CallId,
        actor: &str,
        wall: WallTime,
    ) -> Result<Erasure, EraseError> {
        self.ready().await?;
        let stored = store::read::call(self.database.connection().await?, call).await?;
        if stored.is_some_and(|(summary, _)| summary.state == CallState::InProgress) {
            return Err(EraseError::InProgress);
        }
        let key = store::read::call_key(self.database.connection().await?, call).await?;
        if matches!(key, StoredKey::None) {
            return Err(EraseError::Unknown);
        }
        let recordings =
            store::read::recordings(self.database.connection().await?, Which::OfCall(call)).await?;
        let is_erased = |of: &RecordingSummary| of.state == RecordingState::Erased;
        if matches!(key, StoredKey::Erased) && recordings.iter().all(is_erased) {
            return Ok(Erasure::Before);
        }
        if recordings.iter().any(|recording| recording.state == RecordingState::Open) {
            return Err(EraseError::InProgress);
        }
        for recording in recordings {
            self.objects.delete(recording.id).await?;
        }
        let before = self.scribe.chain;
        let erased = self.try_erase(call, actor, wall).await;
        self.scribe.keys.remove(&call);
        if erased.is_err() {
            self.scribe.chain = before;
        }
        self.database.judge(erased).await?;
        Ok(Erasure::Now)
    }

    async fn try_erase(
        &mut self,
        call: CallId,
        actor: &str,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database.begin().await?;
        let rows = store::write::erase_call(&mut transaction, call).await?;
        let ErasedRows { turns, messages, recordings } = rows;
        let details = format!("recordings={recordings} turns={turns} messages={messages}");
        let actor = actor.to_owned();
        let entry = AuditEntry { actor, ..own_entry("call.erased", Some(call), details) };
        self.scribe.append_audit(&mut transaction, &entry, wall).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Forces what was deleted out of the journal; `false`: try again later.
    pub(crate) async fn truncate_journal(&mut self) -> Result<bool, StoreError> {
        self.ready().await?;
        let truncated = store::truncate_journal(self.database.connection().await?).await;
        self.database.judge(truncated).await
    }

    /// One step of a sweep: erases the next things of `what` that began before `before`. Returns
    /// how many it looked at (0: there is no more) and how many objects could not be deleted.
    pub(crate) async fn sweep(
        &mut self,
        what: Old,
        before: WallTime,
        cursor: &mut Cursor,
    ) -> Result<(usize, u64), StoreError> {
        self.ready().await?;
        let swept = match what {
            Old::Recordings => self.sweep_recordings(before, cursor).await,
            Old::Transcripts => self.sweep_transcripts(before, cursor).await,
            Old::Calls => self.sweep_calls(before, cursor).await,
        };
        self.database.judge(swept).await
    }

    async fn sweep_recordings(
        &mut self,
        before: WallTime,
        cursor: &mut Cursor,
    ) -> Result<(usize, u64), StoreError> {
        let count = limit::VAULT_SWEEP_BATCH.get();
        let found =
            store::sweep::recordings(self.database.connection().await?, before, cursor, count)
                .await?;
        let (mut gone, mut failed) = (Vec::new(), 0);
        for id in &found {
            // The file first: what a crash leaves is found again by its row.
            match self.objects.delete(*id).await {
                Ok(()) => gone.push(*id),
                Err(_) => failed += 1,
            }
        }
        let mut transaction = self.database.begin().await?;
        let mut swept = Swept::default();
        for id in gone {
            swept.recordings += store::sweep::erase_recording(&mut transaction, id).await?;
        }
        store::sweep::add(&mut transaction, swept).await?;
        transaction.commit().await?;
        Ok((found.len(), failed))
    }

    async fn sweep_transcripts(
        &mut self,
        before: WallTime,
        cursor: &mut Cursor,
    ) -> Result<(usize, u64), StoreError> {
        let count = limit::VAULT_SWEEP_BATCH.get();
        let found =
            store::sweep::transcripts(self.database.connection().await?, before, cursor, count)
                .await?;
        let mut transaction = self.database.begin().await?;
        let mut swept = Swept::default();
        for call in &found {
            let had_one = store::sweep::erase_transcript(&mut transaction, *call).await?;
            swept.transcripts += u64::from(had_one);
        }
        store::sweep::add(&mut transaction, swept).await?;
        transaction.commit().await?;
        Ok((found.len(), 0))
    }

    async fn sweep_calls(
        &mut self,
        before: WallTime,
        cursor: &mut Cursor,
    ) -> Result<(usize, u64), StoreError> {
        let count = limit::VAULT_SWEEP_BATCH.get();
        let found =
            store::sweep::calls(self.database.connection().await?, before, cursor, count).await?;
        let (mut gone, mut failed) = (Vec::new(), 0);
        for call in &found {
            let of_call = Which::OfCall(*call);
            let mut is_gone = true;
            for recording in
                store::read::recordings(self.database.connection().await?, of_call).await?
            {
                is_gone &= self.objects.delete(recording.id).await.is_ok();
            }
            if is_gone {
                gone.push(*call);
            } else {
                failed += 1;
            }
        }
        let mut transaction = self.database.begin().await?;
        let calls = gone.len() as u64;
        for call in gone {
            store::sweep::delete_call(&mut transaction, call).await?;
            self.scribe.keys.remove(&call);
        }
        store::sweep::add(&mut transaction, Swept { calls, ..Swept::default() }).await?;
        transaction.commit().await?;
        Ok((found.len(), failed))
    }

    /// Tells the audit log what was swept since it was last told.
    pub(crate) async fn note_sweep(&mut self, wall: WallTime) -> Result<Swept, StoreError> {
        self.ready().await?;
        let before = self.scribe.chain;
        let noted = self.try_note_sweep(wall).await;
        if noted.is_err() {
            self.scribe.chain = before;
        }
        self.database.judge(noted).await
    }

    async fn try_note_sweep(&mut self, wall: WallTime) -> Result<Swept, StoreError> {
        let mut transaction = self.database.begin().await?;
        let swept = store::sweep::take(&mut transaction).await?;
        if !swept.is_nothing() {
            let Swept { recordings, transcripts, calls } = swept;
            let details =
                format!("recordings={recordings} transcripts={transcripts} calls={calls}");
            let entry = own_entry("retention.swept", None, details);
            self.scribe.append_audit(&mut transaction, &entry, wall).await?;
        }
        transaction.commit().await?;
        Ok(swept)
    }

    /// Marks what an earlier run left open: calls as lost, recordings as what they turn out to be.
    /// Returns how many of each.
    pub(crate) async fn recover(&mut self, wall: WallTime) -> Result<(u64, u64), StoreError> {
        self.ready().await?;
        let calls = store::write::mark_lost(self.database.connection().await?).await?;
        let workspace = self.scribe.workspace.name().as_str();
        let orphans =
            store::write::adopt_orphans(self.database.connection().await?, workspace, wall).await?;
        // A sweep that was cut off.
        self.note_sweep(wall).await?;
        let open = Which::InState(RecordingState::Open);
        let mut recordings = 0;
        for recording in store::read::recordings(self.database.connection().await?, open).await? {
            self.settle(recording.id, wall).await?;
            recordings += 1;
        }
        Ok((calls + orphans, recordings))
    }

    /// Finds out how a recording stands that nobody writes any more, closes it and notes it.
    /// `false`: its file cannot be written now; try again later, or at the next start.
    pub(crate) async fn settle(
        &mut self,
        id: RecordingId,
        wall: WallTime,
    ) -> Result<bool, StoreError> {
        self.ready().await?;
        let found =
            store::read::recordings(self.database.connection().await?, Which::One(id)).await?;
        let Some(row) = found.first().filter(|row| row.state == RecordingState::Open) else {
            return Ok(true);
        };
        let (call, noted) = (row.call, row.chunks);
        let closed = match self.scribe.call_key(self.database.connection().await?, call).await {
            Ok(Some(key)) => self.close_file(id, &key, noted).await,
            Ok(None) => None,
            // One call's broken key must not keep the edge from starting.
            Err(StoreError::Unseal(_)) => Some(nothing(RecordingState::Damaged)),
            Err(error) => return Err(error),
        };
        let Some(closed) = closed else { return Ok(false) };
        let before = self.scribe.chain;
        let noted = self.try_note_closed(id, call, closed, wall).await;
        if noted.is_err() {
            self.scribe.chain = before;
        }
        self.database.judge(noted).await.map(|()| true)
    }

    async fn try_note_closed(
        &mut self,
        id: RecordingId,
        call: CallId,
        closed: Closed,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        let mut transaction = self.database.begin().await?;
        self.scribe.note_closed(&mut transaction, id, call, closed, wall).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// `None`: not now.
    async fn close_file(&self, id: RecordingId, key: &DataKey, noted: u64) -> Option<Closed> {
        let path = self.objects.part(id);
        if path.try_exists().ok()? {
            let closed = part::close(&path, id, key, noted).ok()?;
            if closed.state == RecordingState::Missing {
                std::fs::remove_file(&path).ok()?;
            } else {
                self.objects.adopt(id).ok()?;
            }
            return Some(closed);
        }
        if !self.objects.exists(id).await.ok()? {
            return Some(nothing(RecordingState::Missing));
        }
        // It was complete; only the database had not heard.
        let bytes = self.objects.read(id).await.ok()?;
        let damaged = nothing(RecordingState::Damaged);
        Some(part::open(&bytes, id, key).map_or(damaged, |content| Closed {
            state: content.state(),
            chunks: content.chunks,
            duration_ms: play::duration_ms(&content.ogg),
        }))
    }

    /// Closes the database in good order.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        self.database.close().await
    }
}

/// A recording of which nothing opens.
const fn nothing(state: RecordingState) -> Closed {
    Closed { state, chunks: 0, duration_ms: 0 }
}

/// An audit record that the vault writes by itself.
pub(crate) fn own_entry(kind: &'static str, call: Option<CallId>, details: String) -> AuditEntry {
    AuditEntry { kind, actor: "edge".to_owned(), call, details: AuditDetails::Plain(details) }
}

impl Scribe {
    async fn apply(
        &mut self,
        connection: &mut SqliteConnection,
        op: &Op,
        openings: &mut Openings,
    ) -> Result<(), StoreError> {
        match op {
            Op::Record(Record::Call(record), _) => self.write_call(connection, record).await,
            Op::Record(Record::Turn { call, turn }, _) => {
                let content = StoredTurn::from(turn);
                self.write_part(connection, Part::Turn, *call, turn.index, &content).await
            }
            Op::Record(Record::Ladder { call, entry }, _) => {
                let content = StoredLadder {
                    at_ms: entry.at_ms,
                    leg: entry.leg,
                    sent: entry.sent,
                    message: entry.message.expose().as_str().into(),
                };
                self.write_part(connection, Part::Ladder, *call, entry.index, &content).await
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
            // These two are no part of a batch: see `Writer::process`.
            Op::RecordingLeft { .. } | Op::Erase { .. } => Ok(()),
        }
    }

    /// A call's key, made where there is none yet; `None` where it was erased.
    async fn call_key(
        &mut self,
        connection: &mut SqliteConnection,
        call: CallId,
    ) -> Result<Option<DataKey>, StoreError> {
        if let Some(key) = self.keys.get(&call) {
            return Ok(key.clone());
        }
        let key = match store::read::call_key(connection, call).await? {
            StoredKey::Erased => None,
            StoredKey::Wrapped(wrapped) => Some(self.workspace.unwrap_call_key(call, &wrapped)?),
            StoredKey::None => {
                let key = DataKey::random()?;
                let wrapped = self.workspace.wrap_call_key(call, &key)?;
                store::write::insert_call_key(connection, call, &wrapped).await?;
                Some(key)
            }
        };
        while self.keys.len() >= limit::CALL_CONCURRENT.get() * 2 {
            self.keys.pop_first();
        }
        self.keys.insert(call, key.clone());
        Ok(key)
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
        let workspace = self.workspace.name().as_str();
        store::write::upsert_call(connection, workspace, record, &sealed).await?;
        if record.ended.is_some() {
            self.keys.remove(&record.id);
        }
        Ok(())
    }

    async fn write_part<T: Serialize + Sync>(
        &mut self,
        connection: &mut SqliteConnection,
        part: Part,
        call: CallId,
        number: u32,
        content: &T,
    ) -> Result<(), StoreError> {
        let Some(key) = self.call_key(connection, call).await? else { return Ok(()) };
        let context = [part.context(), call.as_bytes(), &number.to_be_bytes()];
        let sealed = seal_json(&key, &context, content)?;
        store::write::upsert_part(connection, part, call, number, &sealed).await
    }

    async fn append_audit(
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
        store::write::insert_audit(connection, &row, &hash).await?;
        self.chain = ChainTip { seq, hash };
        Ok(())
    }

    async fn note_closed(
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
