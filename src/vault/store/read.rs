//! Statements that read.

use base::{CallId, WallTime};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::write::Part;
use super::{StoreError, read_time, stored_time};
use crate::audit::{AuditRow, HASH_BYTES};
use crate::blind::BLIND_BYTES;
use crate::read::{CallFilter, CallState, CallSummary, RecordingSummary};
use crate::record::Direction;
use crate::recording::{RecordingId, RecordingState};

/// This edge's id.
pub(crate) async fn edge(connection: &mut SqliteConnection) -> Result<Vec<u8>, StoreError> {
    Ok(sqlx::query("SELECT id FROM edge").fetch_one(connection).await?.try_get(0)?)
}

/// A workspace's wrapped key.
pub(crate) async fn workspace(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query("SELECT wrapped_key FROM workspace WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(|row| row.try_get(0)).transpose()?)
}

/// What is known of a call's key.
pub(crate) enum StoredKey {
    /// There is none yet.
    None,
    /// It was erased.
    Erased,
    /// It is this, wrapped.
    Wrapped(Vec<u8>),
}

/// A call's wrapped key.
pub(crate) async fn call_key(
    connection: &mut SqliteConnection,
    call: CallId,
) -> Result<StoredKey, StoreError> {
    let row = sqlx::query("SELECT wrapped_key FROM call_key WHERE call = ?")
        .bind(&call.as_bytes()[..])
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(StoredKey::None) };
    Ok(row.try_get::<Option<Vec<u8>>, _>(0)?.map_or(StoredKey::Erased, StoredKey::Wrapped))
}

/// Audit records after `after`, with their stored hashes.
pub(crate) async fn audit_rows(
    connection: &mut SqliteConnection,
    after: u64,
    count: i64,
) -> Result<Vec<(AuditRow, [u8; HASH_BYTES])>, StoreError> {
    let rows = sqlx::query(
        "SELECT seq, previous, wall, kind, actor, call, sealed, details, hash FROM audit \
         WHERE seq > ? ORDER BY seq LIMIT ?",
    )
    .bind(i64::try_from(after).unwrap_or(i64::MAX))
    .bind(count)
    .fetch_all(connection)
    .await?;
    rows.iter().map(audit_row).collect()
}

/// Reads leniently where verification is to judge: a hash of the wrong length becomes zeros.
fn audit_row(row: &SqliteRow) -> Result<(AuditRow, [u8; HASH_BYTES]), StoreError> {
    let hash = |column: usize| -> Result<[u8; HASH_BYTES], StoreError> {
        Ok(row.try_get::<Vec<u8>, _>(column)?.try_into().unwrap_or([0; HASH_BYTES]))
    };
    let call: Option<Vec<u8>> = row.try_get(5)?;
    let record = AuditRow {
        seq: u64::try_from(row.try_get::<i64, _>(0)?).map_err(|_| StoreError::Row("audit"))?,
        previous: hash(1)?,
        wall: read_time(row.try_get(2)?),
        kind: row.try_get(3)?,
        actor: row.try_get(4)?,
        call: call.and_then(|call| call.try_into().ok()).map(CallId::from_bytes),
        sealed: row.try_get(6)?,
        details: row.try_get(7)?,
    };
    Ok((record, hash(8)?))
}

const CALL_COLUMNS: &str = "SELECT id, direction, trunk, voice_agent, started, answered, ended, \
    reason, setup_ms, talked_ms, transport, protection, codec, keys_exposed, recording, \
    transcript, lost, personal, transcript_erased, unrecorded FROM call ";

/// A call's row: what is readable, and what is sealed (`None`: erased).
pub(crate) type CallRow = (CallSummary, Option<Vec<u8>>);

/// The newest calls first.
pub(crate) async fn calls(
    connection: &mut SqliteConnection,
    filter: &CallFilter,
    number: Option<[u8; BLIND_BYTES]>,
) -> Result<Vec<CallRow>, StoreError> {
    let mut conditions = String::from("WHERE started >= ? ");
    let marks = vec!["?"; filter.reasons.len()].join(", ");
    let among = format!("AND (reason IN ({marks}) OR (? AND lost = 1)) ");
    let optional = [
        (number.is_some(), "AND (caller_index = ? OR callee_index = ?) "),
        (filter.trunk.is_some(), "AND trunk = ? "),
        (filter.voice_agent.is_some(), "AND voice_agent = ? "),
        (filter.in_progress, "AND ended IS NULL AND lost = 0 "),
        (!filter.reasons.is_empty(), &*among),
        (filter.after.is_some(), "AND (started < ? OR (started = ? AND id > ?)) "),
    ];
    optional.iter().filter(|(is_asked, _)| *is_asked).for_each(|it| conditions.push_str(it.1));
    let statement = format!("{CALL_COLUMNS}{conditions}ORDER BY started DESC, id LIMIT ?");
    // Made of constants above; the values are bound.
    let mut query = sqlx::query(sqlx::AssertSqlSafe(statement)).bind(stored_time(filter.since));
    if let Some(number) = number {
        query = query.bind(number.to_vec()).bind(number.to_vec());
    }
    for name in [&filter.trunk, &filter.voice_agent].into_iter().flatten() {
        query = query.bind(name.as_str());
    }
    if !filter.reasons.is_empty() {
        query = filter.reasons.iter().fold(query, |query, reason| query.bind(*reason));
        query = query.bind(filter.lost);
    }
    if let Some((started, id)) = filter.after {
        let started = stored_time(started);
        query = query.bind(started).bind(started).bind(id.as_bytes().to_vec());
    }
    query = query.bind(i64::from(filter.count));
    query.fetch_all(connection).await?.iter().map(call_row).collect()
}

/// One call.
pub(crate) async fn call(
    connection: &mut SqliteConnection,
    id: CallId,
) -> Result<Option<CallRow>, StoreError> {
    let statement = format!("{CALL_COLUMNS}WHERE id = ?");
    let row = sqlx::query(sqlx::AssertSqlSafe(statement))
        .bind(&id.as_bytes()[..])
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(call_row).transpose()
}

fn call_row(row: &SqliteRow) -> Result<CallRow, StoreError> {
    let time = |column: usize| -> Result<Option<WallTime>, StoreError> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(read_time))
    };
    let millis = |column: usize| -> Result<Option<std::time::Duration>, StoreError> {
        let stored = row.try_get::<Option<i64>, _>(column)?;
        Ok(stored.and_then(|ms| u64::try_from(ms).ok()).map(std::time::Duration::from_millis))
    };
    let ended = time(6)?;
    let state = match (row.try_get(16)?, ended) {
        (_, Some(_)) => CallState::Ended,
        (true, None) => CallState::Lost,
        (false, None) => CallState::InProgress,
    };
    let summary = CallSummary {
        id: call_id(row.try_get(0)?, "call")?,
        state,
        direction: Direction::from_word(row.try_get(1)?),
        trunk: row.try_get(2)?,
        voice_agent: row.try_get(3)?,
        started: read_time(row.try_get(4)?),
        answered: time(5)?,
        ended,
        reason: row.try_get(7)?,
        setup: millis(8)?,
        talked: millis(9)?,
        transport: row.try_get(10)?,
        protection: row.try_get(11)?,
        codec: row.try_get(12)?,
        keys_exposed: row.try_get(13)?,
        recording: row.try_get(14)?,
        unrecorded: row.try_get(19)?,
        transcript: row.try_get(15)?,
        transcript_erased: row.try_get(18)?,
        numbers: None,
    };
    Ok((summary, row.try_get(17)?))
}

pub(super) fn call_id(bytes: Vec<u8>, table: &'static str) -> Result<CallId, StoreError> {
    Ok(CallId::from_bytes(bytes.try_into().map_err(|_| StoreError::Row(table))?))
}

/// A call's turns or ladder, sealed, with their numbers.
pub(crate) async fn parts(
    connection: &mut SqliteConnection,
    part: Part,
    call: CallId,
) -> Result<Vec<(u32, Vec<u8>)>, StoreError> {
    let rows = sqlx::query(match part {
        Part::Turn => "SELECT number, content FROM turn WHERE call = ? ORDER BY number",
        Part::Ladder => "SELECT number, content FROM ladder WHERE call = ? ORDER BY number",
    })
    .bind(&call.as_bytes()[..])
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Which recordings to list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    /// Those of one call.
    OfCall(CallId),
    /// This one.
    One(RecordingId),
    /// Those of one state.
    InState(RecordingState),
}

/// Recordings, oldest first.
pub(crate) async fn recordings(
    connection: &mut SqliteConnection,
    which: Which,
) -> Result<Vec<RecordingSummary>, StoreError> {
    const COLUMNS: &str = "SELECT id, call, started, state, chunks, duration_ms FROM recording ";
    let (condition, value) = match which {
        Which::OfCall(call) => ("WHERE call = ?", Ok(call.as_bytes().to_vec())),
        Which::One(id) => ("WHERE id = ?", Ok(id.as_bytes().to_vec())),
        Which::InState(state) => ("WHERE state = ?", Err(state.as_str())),
    };
    let statement = format!("{COLUMNS}{condition} ORDER BY started, id");
    let query = sqlx::query(sqlx::AssertSqlSafe(statement));
    let query = match value {
        Ok(bytes) => query.bind(bytes),
        Err(word) => query.bind(word),
    };
    query.fetch_all(connection).await?.iter().map(recording_row).collect()
}

fn recording_row(row: &SqliteRow) -> Result<RecordingSummary, StoreError> {
    let malformed = || StoreError::Row("recording");
    let id: Vec<u8> = row.try_get(0)?;
    let unsigned = |column: usize| -> Result<u64, StoreError> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| malformed())
    };
    Ok(RecordingSummary {
        id: RecordingId::from_bytes(id.try_into().map_err(|_| malformed())?),
        call: call_id(row.try_get(1)?, "recording")?,
        started: read_time(row.try_get(2)?),
        state: RecordingState::from_word(row.try_get(3)?).ok_or_else(malformed)?,
        chunks: unsigned(4)?,
        duration: std::time::Duration::from_millis(unsigned(5)?),
    })
}
