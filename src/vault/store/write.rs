//! Statements that write. Each takes an open transaction; what they are given is sealed already.

use base::{CallId, WallTime};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::rows::{self, Bound};
use super::{StoreError, stored_time};
use crate::audit::{AuditRow, ChainTip, HASH_BYTES};
use crate::blind::BLIND_BYTES;
use crate::record::CallRecord;
use crate::recording::{RecordingId, RecordingState};

/// This edge's id, made by `new` where there is none yet.
pub(crate) async fn edge_or_insert(
    connection: &mut SqliteConnection,
    new: &[u8],
) -> Result<Vec<u8>, StoreError> {
    sqlx::query("INSERT INTO edge (id) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM edge)")
        .bind(new)
        .execute(&mut *connection)
        .await?;
    super::read::edge(connection).await
}

/// Keeps a workspace's wrapped key.
pub(crate) async fn insert_workspace(
    connection: &mut SqliteConnection,
    name: &str,
    wrapped: &[u8],
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO workspace (name, wrapped_key) VALUES (?, ?)")
        .bind(name)
        .bind(wrapped)
        .execute(connection)
        .await?;
    Ok(())
}

/// The sealed parts of a call's row.
pub(crate) struct SealedCall {
    pub(crate) caller: Option<[u8; BLIND_BYTES]>,
    pub(crate) callee: Option<[u8; BLIND_BYTES]>,
    pub(crate) personal: Vec<u8>,
}

/// A call as it stands.
pub(crate) struct CallRow {
    pub(crate) record: CallRecord,
    pub(crate) sealed: SealedCall,
}

/// Which table a numbered part of a call goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    /// A turn.
    Turn,
    /// A ladder entry.
    Ladder,
}

impl Part {
    /// Its place in the seal's context.
    pub(crate) const fn context(self) -> &'static [u8] {
        match self {
            Self::Turn => b"turn",
            Self::Ladder => b"ladder",
        }
    }
}

/// A numbered part of a call, sealed.
pub(crate) struct PartRow {
    pub(crate) call: CallId,
    pub(crate) number: u32,
    pub(crate) content: Vec<u8>,
}

/// Rows to be written in one transaction.
#[derive(Default)]
pub(crate) struct Pending {
    /// Keys of calls, wrapped.
    pub(crate) keys: Vec<(CallId, Vec<u8>)>,
    /// Calls; of one that is there twice, the last counts.
    pub(crate) calls: Vec<CallRow>,
    pub(crate) turns: Vec<PartRow>,
    /// With how many messages each holds.
    pub(crate) ladder: Vec<(PartRow, usize)>,
    /// Audit records with their hashes, in order.
    pub(crate) audits: Vec<(AuditRow, [u8; HASH_BYTES])>,
}

impl Pending {
    /// Writes them all.
    pub(crate) async fn write(
        self,
        connection: &mut SqliteConnection,
        workspace: &str,
    ) -> Result<(), StoreError> {
        let head = "INSERT INTO call_key (call, wrapped_key)";
        rows::write(connection, (head, 2, ""), &self.keys, |query, (call, wrapped)| {
            Ok(query.bind(call.as_bytes().to_vec()).bind(wrapped.clone()))
        })
        .await?;
        write_calls(connection, workspace, &self.calls).await?;
        let part = "INSERT OR REPLACE INTO turn (call, number, content)";
        rows::write(connection, (part, 3, ""), &self.turns, bind_part).await?;
        let part = "INSERT OR REPLACE INTO ladder (call, number, content, messages)";
        rows::write(connection, (part, 4, ""), &self.ladder, |query, (row, messages)| {
            Ok(bind_part(query, row)?.bind(i64::try_from(*messages).unwrap_or(i64::MAX)))
        })
        .await?;
        write_audits(connection, &self.audits).await
    }
}

fn bind_part<'q>(query: Bound<'q>, row: &PartRow) -> Result<Bound<'q>, StoreError> {
    Ok(query
        .bind(row.call.as_bytes().to_vec())
        .bind(i64::from(row.number))
        .bind(row.content.clone()))
}

async fn write_calls(
    connection: &mut SqliteConnection,
    workspace: &str,
    calls: &[CallRow],
) -> Result<(), StoreError> {
    let millis = |duration: Option<std::time::Duration>| {
        duration.map(|duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    };
    let head = "INSERT INTO call (id, workspace, direction, trunk, voice_agent, \
        started, answered, ended, reason, setup_ms, talked_ms, transport, protection, codec, \
        keys_exposed, recording, unrecorded, transcript, caller_index, callee_index, personal)";
    // What the indices stand on never changes, so they are left alone.
    let tail = "ON CONFLICT (id) DO UPDATE SET answered = excluded.answered, \
        ended = excluded.ended, reason = excluded.reason, setup_ms = excluded.setup_ms, \
        talked_ms = excluded.talked_ms, protection = excluded.protection, \
        codec = excluded.codec, keys_exposed = excluded.keys_exposed, \
        recording = excluded.recording, unrecorded = excluded.unrecorded, \
        transcript = excluded.transcript, \
        personal = excluded.personal";
    rows::write(connection, (head, 21, tail), calls, |query, CallRow { record, sealed }| {
        Ok(query
            .bind(record.id.as_bytes().to_vec())
            .bind(workspace.to_owned())
            .bind(record.direction.as_str())
            .bind(record.trunk.as_ref().map(|trunk| trunk.as_str().to_owned()))
            .bind(record.voice_agent.as_ref().map(|agent| agent.as_str().to_owned()))
            .bind(stored_time(record.started))
            .bind(record.answered.map(stored_time))
            .bind(record.ended.map(stored_time))
            .bind(record.reason.map(base::Reason::code))
            .bind(millis(record.setup))
            .bind(millis(record.talked))
            .bind(record.transport)
            .bind(record.protection)
            .bind(record.codec)
            .bind(record.keys_exposed)
            .bind(record.recording)
            .bind(record.unrecorded)
            .bind(record.transcript)
            .bind(sealed.caller.map(|index| index.to_vec()))
            .bind(sealed.callee.map(|index| index.to_vec()))
            .bind(sealed.personal.clone()))
    })
    .await
}

async fn write_audits(
    connection: &mut SqliteConnection,
    audits: &[(AuditRow, [u8; HASH_BYTES])],
) -> Result<(), StoreError> {
    let head = "INSERT INTO audit (seq, previous, wall, kind, actor, call, sealed, details, hash)";
    rows::write(connection, (head, 9, ""), audits, |query, (row, hash)| {
        Ok(query
            .bind(i64::try_from(row.seq).map_err(|_| StoreError::Row("audit"))?)
            .bind(row.previous.to_vec())
            .bind(stored_time(row.wall))
            .bind(row.kind.clone())
            .bind(row.actor.clone())
            .bind(row.call.map(|call| call.as_bytes().to_vec()))
            .bind(row.sealed)
            .bind(row.details.clone())
            .bind(hash.to_vec()))
    })
    .await
}

/// The last record of the chain; `None` for an empty log.
pub(crate) async fn chain_tip(
    connection: &mut SqliteConnection,
) -> Result<Option<ChainTip>, StoreError> {
    let row = sqlx::query("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
        .fetch_optional(connection)
        .await?;
    row.map(|row: SqliteRow| {
        let seq: i64 = row.try_get(0)?;
        let hash: Vec<u8> = row.try_get(1)?;
        Ok(ChainTip {
            seq: u64::try_from(seq).map_err(|_| StoreError::Row("audit"))?,
            hash: hash.try_into().map_err(|_| StoreError::Row("audit"))?,
        })
    })
    .transpose()
}

/// Notes a recording that begins.
pub(crate) async fn insert_recording(
    connection: &mut SqliteConnection,
    id: RecordingId,
    call: CallId,
    started: WallTime,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO recording (id, call, started, state, chunks, duration_ms) \
         VALUES (?, ?, ?, 'open', 0, 0)",
    )
    .bind(&id.as_bytes()[..])
    .bind(&call.as_bytes()[..])
    .bind(stored_time(started))
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes how far a recording has come, or how it ended. What was erased stays erased.
pub(crate) async fn update_recording(
    connection: &mut SqliteConnection,
    id: RecordingId,
    state: RecordingState,
    chunks: u64,
    duration_ms: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE recording SET state = ?, chunks = ?, duration_ms = ? \
         WHERE id = ? AND state <> 'erased'",
    )
    .bind(state.as_str())
    .bind(i64::try_from(chunks).unwrap_or(i64::MAX))
    .bind(i64::try_from(duration_ms).unwrap_or(i64::MAX))
    .bind(&id.as_bytes()[..])
    .execute(connection)
    .await?;
    Ok(())
}

/// Marks calls that an earlier run left without an end.
pub(crate) async fn mark_lost(connection: &mut SqliteConnection) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE call SET lost = 1 WHERE ended IS NULL AND lost = 0")
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Gives what an earlier run kept of a call, but for the call itself, a call that is lost: it was
/// dropped while the disk was full. Without it nothing could be listed, erased or grow too old.
pub(crate) async fn adopt_orphans(
    connection: &mut SqliteConnection,
    workspace: &str,
    found: WallTime,
) -> Result<u64, StoreError> {
    let done = sqlx::query(
        "INSERT INTO call (id, workspace, direction, started, transport, protection, codec, \
         keys_exposed, recording, transcript, lost) \
         SELECT call, ?, 'incoming', ?, '', '', '', 0, 0, 0, 1 FROM call_key \
         WHERE wrapped_key IS NOT NULL AND NOT EXISTS (SELECT 1 FROM call WHERE id = call)",
    )
    .bind(workspace)
    .bind(stored_time(found))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// What was erased of a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ErasedRows {
    pub(crate) turns: u64,
    pub(crate) messages: u64,
    pub(crate) recordings: u64,
}

/// Deletes a call's key and everything sealed under it; its times and counts stay.
pub(crate) async fn erase_call(
    connection: &mut SqliteConnection,
    call: CallId,
) -> Result<ErasedRows, StoreError> {
    let counted = "SELECT COALESCE(SUM(messages), 0) FROM ladder WHERE call = ?";
    let counted = sqlx::query(counted).bind(&call.as_bytes()[..]).fetch_one(&mut *connection);
    let messages = counted.await?.try_get::<i64, _>(0)?.unsigned_abs();
    let mut rows = [0; 5];
    let statements = [
        "UPDATE call_key SET wrapped_key = NULL WHERE call = ?",
        "UPDATE call SET caller_index = NULL, callee_index = NULL, personal = NULL, \
         transcript_erased = 1 WHERE id = ?",
        "DELETE FROM turn WHERE call = ?",
        "DELETE FROM ladder WHERE call = ?",
        "UPDATE recording SET state = 'erased' WHERE call = ? AND state <> 'erased'",
    ];
    for (statement, rows) in statements.into_iter().zip(&mut rows) {
        let query = sqlx::query(statement).bind(&call.as_bytes()[..]);
        *rows = query.execute(&mut *connection).await?.rows_affected();
    }
    let [_, _, turns, _, recordings] = rows;
    Ok(ErasedRows { turns, messages, recordings })
}
