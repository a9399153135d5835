//! The database: what is in it, how it is opened, and when a failed write may be tried again.
//!
//! One connection writes, see [`crate::writer`]; readers open their own, read-only. Everything
//! personal is sealed before it comes here.

pub(crate) mod access;
pub(crate) mod read;
pub(crate) mod rows;
mod schema;
pub(crate) mod sweep;
pub(crate) mod write;

use std::path::{Path, PathBuf};
use std::time::Duration;

use base::WallTime;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row, Sqlite, SqliteConnection, Transaction};
use thiserror::Error;

use crate::seal::{SealError, UnsealError};

/// The database's name below the data folder.
pub(crate) const FILE: &str = "vault.db";
/// How long a statement waits for another process, such as a backup, before it is tried anew.
const BUSY: Duration = Duration::from_secs(1);

/// The store did not take or give something. The text holds no personal data: values are bound,
/// never written into statements.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The database was written by an older version and is still to be brought up to date.
    #[error("the database has schema {found}, this program has {known}: start `serve` once first")]
    Older {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// The database was written by a newer version.
    #[error("the database has schema {found}, this program knows up to {known}")]
    Newer {
        /// Its schema.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// A row does not have the form that was written.
    #[error("a row of table `{0}` is malformed")]
    Row(&'static str),
    /// A row could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A row could not be opened.
    #[error(transparent)]
    Unseal(#[from] UnsealError),
    /// Text could not be turned into its stored form.
    #[error("a record could not be encoded")]
    Encode,
}

impl StoreError {
    /// Whether the same write may succeed later: disk full, input/output, locked, no memory.
    pub(crate) fn is_passing(&self) -> bool {
        // https://sqlite.org/rescode.html: BUSY LOCKED NOMEM READONLY IOERR FULL CANTOPEN
        const PASSING: [u32; 7] = [5, 6, 7, 8, 10, 13, 14];
        match self {
            Self::Database(sqlx::Error::Database(error)) => error
                .code()
                .and_then(|code| code.parse::<u32>().ok())
                .is_some_and(|code| PASSING.contains(&(code & 0xff))),
            Self::Database(sqlx::Error::Io(_)) => true,
            _ => false,
        }
    }
}

/// Opens the database for writing and brings its schema up to date.
pub(crate) async fn open(path: &Path) -> Result<SqliteConnection, StoreError> {
    // SQLite gives its journal files the permissions of the database.
    crate::files::open_private(path).map_err(sqlx::Error::Io)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: a commit is on the disk when it returns, also after a power cut. NORMAL would
        // lose the last commits then, and with them audit records whose head is already signed.
        .synchronous(SqliteSynchronous::Full)
        .pragma("secure_delete", "ON")
        .pragma("temp_store", "MEMORY")
        .busy_timeout(BUSY)
        .disable_statement_logging();
    let mut connection = options.connect().await?;
    schema::migrate(&mut connection).await?;
    Ok(connection)
}

/// The writer's connection.
///
/// One on which something has failed is not used again. A full disk makes SQLite roll a
/// transaction back by itself, and sqlx, which does not know, then takes the next ones for parts
/// of it: they would be acknowledged and never committed.
pub(crate) struct Database {
    path: PathBuf,
    connection: Option<SqliteConnection>,
    is_new: bool,
}

impl Database {
    /// The database at `path`, by a connection of [`open`].
    pub(crate) const fn new(path: PathBuf, connection: SqliteConnection) -> Self {
        Self { path, connection: Some(connection), is_new: false }
    }

    /// Sees to it that there is a connection; whether it is a new one.
    pub(crate) async fn renew(&mut self) -> Result<bool, StoreError> {
        self.connection().await?;
        Ok(std::mem::take(&mut self.is_new))
    }

    /// The connection, a new one after a failure.
    pub(crate) async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                self.is_new = true;
                open(&self.path).await?
            }
        };
        Ok(self.connection.insert(connection))
    }

    /// Begins a transaction; it is rolled back where it is not committed.
    pub(crate) async fn begin(&mut self) -> Result<Transaction<'_, Sqlite>, StoreError> {
        Ok(self.connection().await?.begin().await?)
    }

    /// Gives the connection up where something on it has failed.
    pub(crate) async fn judge<T, E>(&mut self, done: Result<T, E>) -> Result<T, E> {
        if done.is_err()
            && let Some(connection) = self.connection.take()
        {
            // Whatever it still held is rolled back, here or when the file is opened again.
            let _ = connection.close().await;
        }
        done
    }

    /// Closes the connection in good order.
    pub(crate) async fn close(self) -> Result<(), StoreError> {
        match self.connection {
            Some(connection) => Ok(connection.close().await?),
            None => Ok(()),
        }
    }
}

/// Opens the database next to a running edge, read-only.
pub(crate) async fn open_read_only(path: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY)
        .disable_statement_logging();
    let mut connection = options.connect().await?;
    schema::check(&mut connection).await?;
    Ok(connection)
}

/// Forces what was deleted out of the journal; `false` where a reader still looks at it, and
/// nothing was truncated.
pub(crate) async fn truncate_journal(
    connection: &mut SqliteConnection,
) -> Result<bool, StoreError> {
    let row = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(connection).await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}

/// A time as stored.
pub(crate) fn stored_time(time: WallTime) -> i64 {
    i64::try_from(time.unix_millis()).unwrap_or(i64::MAX)
}

/// A time as read.
pub(crate) fn read_time(stored: i64) -> WallTime {
    WallTime::from_unix_millis(u64::try_from(stored).unwrap_or(0))
}
