//! What is done with the database: batches in one transaction each, erasing, sweeping, recovery.

use std::sync::Arc;

use base::{CallId, WallTime, limit};

use crate::access::Plan;
use crate::audit::{AuditDetails, AuditEntry, ChainTip};
use crate::key::DataKey;
use crate::key::ring::Workspace;
use crate::object::Objects;
use crate::queue::Op;
use crate::read::{CallState, RecordingSummary};
use crate::record::Record;
use crate::recording::part::{self, Closed};
use crate::recording::{RecordingId, RecordingState, play};
use crate::retention::Old;
use crate::scribe::{Openings, Scribe};
use crate::store::read::{StoredKey, Which};
use crate::store::sweep::{Cursor, Swept};
use crate::store::write::ErasedRows;
use crate::store::{self, Database, StoreError};
use crate::{EraseError, Erasure};

/// The database and what is known of it.
pub(crate) struct Ledger {
    database: Database,
    objects: Arc<Objects>,
    scribe: Scribe,
}

impl Ledger {
    pub(crate) fn new(
        database: Database,
        objects: Arc<Objects>,
        workspace: Workspace,
        edge: Vec<u8>,
        chain: ChainTip,
    ) -> Self {
        Self { database, objects, scribe: Scribe::new(workspace, edge, chain) }
    }

    /// The last audit record that is on the disk.
    pub(crate) const fn chain(&self) -> ChainTip {
        self.scribe.chain()
    }

    /// Does all of `ops` or none. They are on the disk when this returns.
    pub(crate) async fn commit(&mut self, ops: &[Op]) -> Result<Openings, StoreError> {
        self.ready().await?;
        let before = self.scribe.chain();
        let done = self.try_commit(ops).await;
        if done.is_err() {
            self.scribe.rolled_back(before);
        }
        self.database.judge(done).await
    }

    /// Sees to it that there is a connection. After a failure nobody knows whether what was told
    /// to have failed is on the disk all the same, so the chain goes on from what is there.
    async fn ready(&mut self) -> Result<(), StoreError> {
        if self.database.renew().await?
            && let Some(chain) = store::write::chain_tip(self.database.connection().await?).await?
        {
            self.scribe.follow(chain);
        }
        Ok(())
    }

    async fn try_commit(&mut self, ops: &[Op]) -> Result<Openings, StoreError> {
        let mut openings = Vec::new();
        let mut transaction = self.database.begin().await?;
        self.scribe.find_keys(&mut transaction, ops).await?;
        for op in ops {
            self.scribe.apply(&mut transaction, op, &mut openings).await?;
        }
        self.scribe.write_out(&mut transaction).await?;
        transaction.commit().await?;
        self.scribe.committed();
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
        let before = self.scribe.chain();
        let erased = self.try_erase(call, actor, wall).await;
        self.scribe.forget(call);
        if erased.is_err() {
            self.scribe.rolled_back(before);
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
        self.scribe.write_out(&mut transaction).await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Writes who may come in, with what the audit log is told of it.
    pub(crate) async fn write_access(
        &mut self,
        plan: &Plan,
        wall: WallTime,
    ) -> Result<(), StoreError> {
        self.ready().await?;
        let before = self.scribe.chain();
        let written = self.try_write_access(plan, wall).await;
        if written.is_err() {
            self.scribe.rolled_back(before);
        }
        self.database.judge(written).await
    }

    async fn try_write_access(&mut self, plan: &Plan, wall: WallTime) -> Result<(), StoreError> {
        let mut transaction = self.database.begin().await?;
        let workspace = self.scribe.workspace();
        store::access::write(&mut transaction, workspace, &plan.rows).await?;
        for entry in &plan.audit {
            self.scribe.append_audit(&mut transaction, entry, wall).await?;
        }
        self.scribe.write_out(&mut transaction).await?;
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
            self.scribe.forget(call);
        }
        store::sweep::add(&mut transaction, Swept { calls, ..Swept::default() }).await?;
        transaction.commit().await?;
        Ok((found.len(), failed))
    }

    /// Tells the audit log what was swept since it was last told.
    pub(crate) async fn note_sweep(&mut self, wall: WallTime) -> Result<Swept, StoreError> {
        self.ready().await?;
        let before = self.scribe.chain();
        let noted = self.try_note_sweep(wall).await;
        if noted.is_err() {
            self.scribe.rolled_back(before);
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
            self.scribe.write_out(&mut transaction).await?;
        }
        transaction.commit().await?;
        Ok(swept)
    }

    /// Marks what an earlier run left open: calls as lost, recordings as what they turn out to be.
    /// Returns how many of each.
    pub(crate) async fn recover(&mut self, wall: WallTime) -> Result<(u64, u64), StoreError> {
        self.ready().await?;
        let calls = store::write::mark_lost(self.database.connection().await?).await?;
        let workspace = self.scribe.workspace();
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
        let before = self.scribe.chain();
        let noted = self.try_note_closed(id, call, closed, wall).await;
        if noted.is_err() {
            self.scribe.rolled_back(before);
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
        self.scribe.write_out(&mut transaction).await?;
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
