//! Keys, accounts and tokens, sealed.

use sqlx::{Row as _, SqliteConnection};

use super::StoreError;

/// One of them.
pub(crate) struct Row {
    /// `key`, `account` or `token`.
    pub(crate) kind: String,
    pub(crate) id: Vec<u8>,
    /// Sealed; empty where the row is to go.
    pub(crate) content: Vec<u8>,
}

/// All of a workspace.
pub(crate) async fn rows(
    connection: &mut SqliteConnection,
    workspace: &str,
) -> Result<Vec<Row>, StoreError> {
    let rows = sqlx::query("SELECT kind, id, content FROM access WHERE workspace = ?")
        .bind(workspace)
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| Ok(Row { kind: row.try_get(0)?, id: row.try_get(1)?, content: row.try_get(2)? }))
        .collect()
}

/// Writes rows, or removes those without content.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    workspace: &str,
    rows: &[Row],
) -> Result<(), StoreError> {
    for Row { kind, id, content } in rows {
        let query = if content.is_empty() {
            sqlx::query("DELETE FROM access WHERE workspace = ? AND kind = ? AND id = ?")
        } else {
            sqlx::query(
                "INSERT OR REPLACE INTO access (workspace, kind, id, content) VALUES (?, ?, ?, ?)",
            )
        };
        let query = query.bind(workspace).bind(kind.as_str()).bind(&id[..]);
        let query = if content.is_empty() { query } else { query.bind(&content[..]) };
        query.execute(&mut *connection).await?;
    }
    Ok(())
}
