//! Many rows in one statement. A statement goes to the connection's own thread and back, which
//! costs more than the row.

use base::CallId;
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, Row, Sqlite, SqliteConnection};

use super::StoreError;
use super::read::StoredKey;

/// Rows of one statement. A few fixed sizes, since each is prepared once; any number of rows below
/// twice the largest goes in at most seven statements.
const SIZES: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

pub(super) type Bound<'q> = Query<'q, Sqlite, SqliteArguments>;

/// Writes `rows`; a statement is what stands before VALUES, how many columns there are, and what
/// stands after.
pub(super) async fn write<T>(
    connection: &mut SqliteConnection,
    (head, columns, tail): (&'static str, usize, &'static str),
    rows: &[T],
    bind: impl for<'q> Fn(Bound<'q>, &T) -> Result<Bound<'q>, StoreError>,
) -> Result<(), StoreError> {
    let mut rest = rows;
    while let Some((chunk, after)) = split(rest) {
        rest = after;
        let sql = format!("{head} VALUES {} {tail}", tuples(columns, chunk.len()));
        // Nothing of it comes from outside: values are bound.
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for row in chunk {
            query = bind(query, row)?;
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// The stored keys of some calls; those that have none are left out.
pub(crate) async fn call_keys(
    connection: &mut SqliteConnection,
    calls: &[CallId],
) -> Result<Vec<(CallId, StoredKey)>, StoreError> {
    let (mut found, mut rest) = (Vec::new(), calls);
    while let Some((chunk, after)) = split(rest) {
        rest = after;
        let places = tuples(1, chunk.len());
        let sql =
            format!("SELECT call, wrapped_key FROM call_key WHERE (call) IN (VALUES {places})");
        let mut query = sqlx::query(AssertSqlSafe(sql));
        for call in chunk {
            query = query.bind(call.as_bytes().to_vec());
        }
        for row in query.fetch_all(&mut *connection).await? {
            let call: Vec<u8> = row.try_get(0)?;
            let call = call.try_into().map_err(|_| StoreError::Row("call_key"))?;
            let wrapped: Option<Vec<u8>> = row.try_get(1)?;
            let key = wrapped.map_or(StoredKey::Erased, StoredKey::Wrapped);
            found.push((CallId::from_bytes(call), key));
        }
    }
    Ok(found)
}

/// The rows of the next statement, and the others.
fn split<T>(rows: &[T]) -> Option<(&[T], &[T])> {
    let size = SIZES.into_iter().find(|size| *size <= rows.len())?;
    Some(rows.split_at(size))
}

/// `(?,?),(?,?)`
fn tuples(columns: usize, rows: usize) -> String {
    let tuple = format!("({})", vec!["?"; columns].join(","));
    vec![tuple; rows].join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_rows_are_in_some_statement() {
        let rows: Vec<usize> = (0..203).collect();
        let (mut rest, mut seen, mut sizes) = (&rows[..], Vec::new(), Vec::new());
        while let Some((chunk, after)) = split(rest) {
            seen.extend_from_slice(chunk);
            sizes.push(chunk.len());
            rest = after;
        }
        assert_eq!((seen, sizes), (rows, vec![64, 64, 64, 8, 2, 1]));
        assert_eq!(tuples(2, 2), "(?,?),(?,?)");
    }
}
