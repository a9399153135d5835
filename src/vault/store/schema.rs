//! The schema, as the steps that lead to it.

use sqlx::{Connection, Row, SqliteConnection};

use super::StoreError;

/// Each step is applied once and never changed after a release; `user_version` counts them.
const STEPS: &[&str] = &[BEGINNING, RETENTION, LADDER, UNRECORDED, ACCESS];

const BEGINNING: &str = "
CREATE TABLE edge (
    id BLOB NOT NULL                 -- names this edge's audit chain
);
CREATE TABLE workspace (
    name TEXT PRIMARY KEY,
    wrapped_key BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE call_key (
    call BLOB PRIMARY KEY,
    wrapped_key BLOB                 -- NULL: erased, and nothing more is kept of this call
) WITHOUT ROWID;
CREATE TABLE call (
    id BLOB PRIMARY KEY,
    workspace TEXT NOT NULL,
    direction TEXT NOT NULL,
    trunk TEXT,
    voice_agent TEXT,
    started INTEGER NOT NULL,
    answered INTEGER,
    ended INTEGER,
    reason TEXT,
    setup_ms INTEGER,
    talked_ms INTEGER,
    transport TEXT NOT NULL,
    protection TEXT NOT NULL,
    codec TEXT NOT NULL,
    keys_exposed INTEGER NOT NULL,
    recording INTEGER NOT NULL,
    transcript INTEGER NOT NULL,
    lost INTEGER NOT NULL DEFAULT 0, -- the edge died before it ended
    caller_index BLOB,
    callee_index BLOB,
    personal BLOB                    -- sealed
) WITHOUT ROWID;
CREATE INDEX call_started ON call (started);
CREATE INDEX call_caller ON call (caller_index, started);
CREATE INDEX call_callee ON call (callee_index, started);
CREATE TABLE turn (
    call BLOB NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,           -- sealed
    PRIMARY KEY (call, number)
) WITHOUT ROWID;
CREATE TABLE ladder (
    call BLOB NOT NULL,
    number INTEGER NOT NULL,
    content BLOB NOT NULL,           -- sealed
    PRIMARY KEY (call, number)
) WITHOUT ROWID;
CREATE TABLE recording (
    id BLOB PRIMARY KEY,
    call BLOB NOT NULL,
    started INTEGER NOT NULL,
    state TEXT NOT NULL,
    chunks INTEGER NOT NULL,
    duration_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX recording_call ON recording (call);
CREATE INDEX recording_state ON recording (state);
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    previous BLOB NOT NULL,
    wall INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    call BLOB,
    sealed INTEGER NOT NULL,
    details BLOB NOT NULL,
    hash BLOB NOT NULL
);
CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
";

/// What sweeps look at, without what they have erased, and what they have not yet told the audit
/// log.
const RETENTION: &str = "
ALTER TABLE call ADD COLUMN transcript_erased INTEGER NOT NULL DEFAULT 0;
CREATE INDEX call_transcript ON call (started, id) WHERE transcript_erased = 0;
CREATE INDEX recording_kept ON recording (started, id) WHERE state <> 'erased';
CREATE TABLE sweep (
    recordings INTEGER NOT NULL,
    transcripts INTEGER NOT NULL,
    calls INTEGER NOT NULL
);
INSERT INTO sweep (recordings, transcripts, calls) VALUES (0, 0, 0);
";

/// A row holds messages that follow each other, a line each; `number` is the first one's.
const LADDER: &str = "
ALTER TABLE ladder ADD COLUMN messages INTEGER NOT NULL DEFAULT 1;
";

/// Why a call was not recorded, or not all the time, where that was wanted.
const UNRECORDED: &str = "
ALTER TABLE call ADD COLUMN unrecorded TEXT NOT NULL DEFAULT '';
";

/// API keys, accounts and browser tokens: what is sealed is their place's alone.
const ACCESS: &str = "
CREATE TABLE access (
    workspace TEXT NOT NULL,
    kind TEXT NOT NULL,
    id BLOB NOT NULL,                -- of an account, a keyed hash of its name
    content BLOB NOT NULL,           -- sealed
    PRIMARY KEY (workspace, kind, id)
) WITHOUT ROWID;
";

async fn version(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(sqlx::query("PRAGMA user_version").fetch_one(connection).await?.try_get(0)?)
}

fn known() -> i64 {
    STEPS.len() as i64
}

/// Refuses a database of another schema.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    match version(connection).await? {
        found if found == known() => Ok(()),
        found if found < known() => Err(StoreError::Older { found, known: known() }),
        found => Err(StoreError::Newer { found, known: known() }),
    }
}

/// Applies the steps that are missing, all or none.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = version(connection).await?;
    let done = usize::try_from(found).ok().filter(|done| *done <= STEPS.len());
    let Some(missing) = done.and_then(|done| STEPS.get(done..)) else {
        return Err(StoreError::Newer { found, known: known() });
    };
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    for step in missing {
        sqlx::raw_sql(*step).execute(&mut *transaction).await?;
    }
    // A pragma takes no bound value; the number is ours.
    let statement = format!("PRAGMA user_version = {}", known());
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(())
}
