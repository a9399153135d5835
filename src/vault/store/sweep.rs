//! Statements of retention sweeps: what is old enough, and how it goes. They walk along by time
//! and id, so that what cannot be erased now does not stand in the way of what is younger.

use base::{CallId, WallTime};
use sqlx::{Row, SqliteConnection};

use super::read::call_id;
use super::{StoreError, stored_time};
use crate::recording::RecordingId;

/// How far a sweep has come: everything up to here was looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    started: i64,
    id: Vec<u8>,
}

/// What a sweep erased and the audit log does not yet say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) recordings: u64,
    pub(crate) transcripts: u64,
    pub(crate) calls: u64,
}

impl Swept {
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

async fn next(
    connection: &mut SqliteConnection,
    statement: &'static str,
    before: WallTime,
    cursor: &mut Cursor,
    count: usize,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let rows = sqlx::query(statement)
        .bind(stored_time(before))
        .bind(cursor.started)
        .bind(&cursor.id[..])
        .bind(i64::try_from(count).unwrap_or(i64::MAX))
        .fetch_all(connection)
        .await?;
    if let Some(last) = rows.last() {
        *cursor = Cursor { started: last.try_get(0)?, id: last.try_get(1)? };
    }
    rows.iter().map(|row| Ok(row.try_get(1)?)).collect()
}

/// The next recordings that began before `before` and are not being written.
pub(crate) async fn recordings(
    connection: &mut SqliteConnection,
    before: WallTime,
    cursor: &mut Cursor,
    count: usize,
) -> Result<Vec<RecordingId>, StoreError> {
    let statement = "SELECT started, id FROM recording WHERE state <> 'erased' \
        AND state <> 'open' AND started < ?1 AND (started, id) > (?2, ?3) \
        ORDER BY started, id LIMIT ?4";
    let found = next(connection, statement, before, cursor, count).await?;
    let malformed = |_| StoreError::Row("recording");
    let id = |bytes: Vec<u8>| Ok(RecordingId::from_bytes(bytes.try_into().map_err(malformed)?));
    found.into_iter().map(id).collect()
}

/// The next calls that began before `before`, are over, and may have a transcript.
pub(crate) async fn transcripts(
    connection: &mut SqliteConnection,
    before: WallTime,
    cursor: &mut Cursor,
    count: usize,
) -> Result<Vec<CallId>, StoreError> {
    let statement = "SELECT started, id FROM call WHERE transcript_erased = 0 \
        AND (ended IS NOT NULL OR lost = 1) AND started < ?1 AND (started, id) > (?2, ?3) \
        ORDER BY started, id LIMIT ?4";
    calls_of(next(connection, statement, before, cursor, count).await?)
}

/// The next calls that began before `before` and are over, recordings included.
pub(crate) async fn calls(
    connection: &mut SqliteConnection,
    before: WallTime,
    cursor: &mut Cursor,
    count: usize,
) -> Result<Vec<CallId>, StoreError> {
    let statement = "SELECT started, id FROM call WHERE (ended IS NOT NULL OR lost = 1) \
        AND started < ?1 AND (started, id) > (?2, ?3) AND NOT EXISTS \
        (SELECT 1 FROM recording WHERE call = call.id AND state = 'open') \
        ORDER BY started, id LIMIT ?4";
    calls_of(next(connection, statement, before, cursor, count).await?)
}

fn calls_of(found: Vec<Vec<u8>>) -> Result<Vec<CallId>, StoreError> {
    found.into_iter().map(|bytes| call_id(bytes, "call")).collect()
}

/// Notes that a recording's object is gone; how many rows say so now that did not.
pub(crate) async fn erase_recording(
    connection: &mut SqliteConnection,
    id: RecordingId,
) -> Result<u64, StoreError> {
    let done = sqlx::query("UPDATE recording SET state = 'erased' WHERE id = ?")
        .bind(&id.as_bytes()[..])
        .execute(connection)
        .await?;
    Ok(done.rows_affected())
}

/// Deletes a call's turns; whether there were any.
pub(crate) async fn erase_transcript(
    connection: &mut SqliteConnection,
    call: CallId,
) -> Result<bool, StoreError> {
    let call = &call.as_bytes()[..];
    let turns = sqlx::query("DELETE FROM turn WHERE call = ?").bind(call);
    let turns = turns.execute(&mut *connection).await?.rows_affected();
    let mark = "UPDATE call SET transcript_erased = 1 WHERE id = ?";
    sqlx::query(mark).bind(call).execute(connection).await?;
    Ok(turns > 0)
}

/// Deletes all rows of a call, its key first. Its place in the audit log stays.
pub(crate) async fn delete_call(
    connection: &mut SqliteConnection,
    call: CallId,
) -> Result<(), StoreError> {
    for statement in [
        "DELETE FROM call_key WHERE call = ?",
        "DELETE FROM turn WHERE call = ?",
        "DELETE FROM ladder WHERE call = ?",
        "DELETE FROM recording WHERE call = ?",
        "DELETE FROM call WHERE id = ?",
    ] {
        sqlx::query(statement).bind(&call.as_bytes()[..]).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Adds to what the audit log is still to be told.
pub(crate) async fn add(connection: &mut SqliteConnection, swept: Swept) -> Result<(), StoreError> {
    let stored = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE sweep SET recordings = recordings + ?, transcripts = transcripts + ?, \
         calls = calls + ?",
    )
    .bind(stored(swept.recordings))
    .bind(stored(swept.transcripts))
    .bind(stored(swept.calls))
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes what the audit log is to be told.
pub(crate) async fn take(connection: &mut SqliteConnection) -> Result<Swept, StoreError> {
    let row = sqlx::query("SELECT recordings, transcripts, calls FROM sweep")
        .fetch_one(&mut *connection)
        .await?;
    let count = |column: usize| -> Result<u64, StoreError> {
        u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::Row("sweep"))
    };
    let swept = Swept { recordings: count(0)?, transcripts: count(1)?, calls: count(2)? };
    if !swept.is_nothing() {
        let zero = "UPDATE sweep SET recordings = 0, transcripts = 0, calls = 0";
        sqlx::query(zero).execute(connection).await?;
    }
    Ok(swept)
}
