//! Every manipulation of the audit log is found.

use std::fs;
use std::path::PathBuf;

use sqlx::{Connection, SqliteConnection};

use super::*;
use crate::audit::{Finding, VerifyReport, verify};
use crate::key::{HeadKey, Kms, LocalKms};
use crate::{AuditDetails, AuditEntry, Reader};

const COUNT: u64 = 20;

fn entry(details: AuditDetails) -> Record {
    Record::Audit(AuditEntry {
        kind: "test.happened",
        actor: "operator:ada".into(),
        call: None,
        details,
    })
}

/// A closed vault with the opening record and `COUNT` more, all signed.
fn log() -> Place {
    let place = Place::new();
    let vault = place.open();
    for number in 1..COUNT {
        vault.handle().submit(entry(AuditDetails::Plain(format!("event {number}")))).unwrap();
    }
    vault.close();
    place
}

fn head_key(place: &Place) -> HeadKey {
    let config = place.config();
    LocalKms::open(&config.key_file, &config.data).unwrap().head_key()
}

fn checked(place: &Place) -> VerifyReport {
    let config = place.config();
    let database = crate::database_path(&config.data);
    wait(verify(&database, &config.audit_heads, &head_key(place))).unwrap()
}

/// Rewrites the database as a SQL client would.
fn rewrite(place: &Place, sql: &'static str) {
    let url = format!("sqlite://{}", crate::database_path(&place.config().data).display());
    wait(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        let drop_guards = "DROP TRIGGER IF EXISTS audit_no_update; \
                           DROP TRIGGER IF EXISTS audit_no_delete;";
        sqlx::raw_sql(drop_guards).execute(&mut connection).await.unwrap();
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

fn findings(sql: &'static str) -> Vec<Finding> {
    let place = log();
    rewrite(&place, sql);
    checked(&place).findings
}

fn heads_file(place: &Place) -> PathBuf {
    let folder = place.config().audit_heads;
    fs::read_dir(folder).unwrap().next().unwrap().unwrap().path()
}

#[test]
fn an_honest_log_is_good_also_across_restarts() {
    let place = log();
    place.open().close();
    place.open().close();
    let report = checked(&place);
    assert_eq!(report.findings, []);
    assert_eq!((report.records, report.unsigned), (COUNT + 2, 0));
    assert_eq!(report.signed.map(|(seq, _)| seq), Some(COUNT + 2));
    assert_eq!(report.heads, 3);
}

#[test]
fn an_edited_record_is_found_and_named() {
    for sql in [
        "UPDATE audit SET details = CAST('event 99' AS BLOB) WHERE seq = 7",
        "UPDATE audit SET actor = 'operator:eve' WHERE seq = 7",
        "UPDATE audit SET kind = 'test.else' WHERE seq = 7",
        "UPDATE audit SET wall = wall + 1 WHERE seq = 7",
        "UPDATE audit SET sealed = 1 WHERE seq = 7",
        "UPDATE audit SET call = x'010101010101010101010101' WHERE seq = 7",
        "UPDATE audit SET hash = zeroblob(32) WHERE seq = 7",
    ] {
        assert_eq!(findings(sql)[0], Finding::Edited { seq: 7 }, "{sql}");
    }
}

#[test]
fn a_dropped_record_is_found_also_when_the_others_close_up() {
    let found = findings("DELETE FROM audit WHERE seq = 7");
    assert_eq!(found, [Finding::Missing { first: 7, last: 7 }]);
    let found = findings("DELETE FROM audit WHERE seq < 4");
    assert_eq!(found, [Finding::Missing { first: 1, last: 3 }]);
    let found = findings(
        "DELETE FROM audit WHERE seq = 7; UPDATE audit SET seq = -seq WHERE seq > 7; \
         UPDATE audit SET seq = -seq - 1 WHERE seq < 0",
    );
    assert_eq!(found[0], Finding::Moved { seq: 7, written: 8 });
    assert_eq!(found.last(), Some(&Finding::Cut { last: COUNT - 1, signed: COUNT }));
}

#[test]
fn reordered_records_are_found_with_their_true_places() {
    let found = findings(
        "UPDATE audit SET seq = -1 WHERE seq = 5; UPDATE audit SET seq = 5 WHERE seq = 9; \
         UPDATE audit SET seq = 9 WHERE seq = -1",
    );
    let swapped = [Finding::Moved { seq: 5, written: 9 }, Finding::Moved { seq: 9, written: 5 }];
    assert_eq!(found, swapped);
}

#[test]
fn a_cut_tail_is_found() {
    let found = findings("DELETE FROM audit WHERE seq > 15");
    assert_eq!(found, [Finding::Cut { last: 15, signed: COUNT }]);
    assert_eq!(findings("DELETE FROM audit"), [Finding::Cut { last: 0, signed: COUNT }]);
}

#[test]
fn a_cut_tail_is_found_also_after_the_log_went_on() {
    let place = log();
    rewrite(&place, "DELETE FROM audit WHERE seq > 15");
    // The edge starts again and writes over the cut.
    let vault = place.open();
    vault.handle().submit(entry(AuditDetails::Plain("goes on".into()))).unwrap();
    vault.close();
    let found = checked(&place).findings;
    assert!(found.contains(&Finding::Cut { last: 17, signed: COUNT }), "{found:?}");
    assert!(found.contains(&Finding::HeadsDisordered { seq: COUNT }), "{found:?}");

    let vault = place.open();
    for _ in 0..10 {
        vault.handle().submit(entry(AuditDetails::Plain("goes on".into()))).unwrap();
    }
    vault.close();
    let found = checked(&place).findings;
    assert!(found.iter().any(|f| matches!(f, Finding::Rewritten { seq: COUNT, .. })), "{found:?}");
}

#[test]
fn a_chain_that_was_computed_anew_is_not_the_signed_one() {
    let place = log();
    let database = crate::database_path(&place.config().data);
    wait(async {
        let url = format!("sqlite://{}", database.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("DROP TRIGGER audit_no_update").execute(&mut connection).await.unwrap();
        let rows = crate::store::read::audit_rows(&mut connection, 0, 100).await.unwrap();
        let mut previous = rows[0].0.previous;
        for (mut row, _) in rows {
            if row.seq == 7 {
                row.details = b"never happened".to_vec();
            }
            row.previous = previous;
            previous = row.hash();
            sqlx::query("UPDATE audit SET details = ?, previous = ?, hash = ? WHERE seq = ?")
                .bind(row.details.clone())
                .bind(row.previous.to_vec())
                .bind(previous.to_vec())
                .bind(row.seq as i64)
                .execute(&mut connection)
                .await
                .unwrap();
        }
        connection.close().await.unwrap();
    });
    assert_eq!(checked(&place).findings, [Finding::Rewritten { seq: COUNT, agreed: 0 }]);
}

#[test]
fn a_record_swapped_in_with_its_own_hash_breaks_the_link() {
    let place = log();
    let database = crate::database_path(&place.config().data);
    wait(async {
        let url = format!("sqlite://{}", database.display());
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        sqlx::raw_sql("DROP TRIGGER audit_no_update").execute(&mut connection).await.unwrap();
        let rows = crate::store::read::audit_rows(&mut connection, 6, 1).await.unwrap();
        let mut row = rows[0].0.clone();
        row.details = b"never happened".to_vec();
        sqlx::query("UPDATE audit SET details = ?, hash = ? WHERE seq = 7")
            .bind(row.details.clone())
            .bind(row.hash().to_vec())
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    });
    assert_eq!(checked(&place).findings, [Finding::Relinked { seq: 8 }]);
}

#[test]
fn forged_heads_are_found() {
    let place = log();
    let path = heads_file(&place);
    let good = fs::read_to_string(&path).unwrap();
    let seq = format!("\"seq\":{COUNT}");
    fs::write(&path, good.replace(&seq, "\"seq\":15")).unwrap();
    let found = checked(&place).findings;
    assert_eq!(found, [Finding::HeadForged { line: 1 }]);
    // Heads of another edge do not stand in either.
    let other = log();
    fs::copy(heads_file(&other), &path).unwrap();
    assert_eq!(checked(&place).findings, [Finding::HeadForged { line: 1 }]);
    // Half a line at the end is a crash, not a forgery; the next head starts a line of its own.
    fs::write(&path, format!("{good}{}", &good[..100])).unwrap();
    assert_eq!(checked(&place).findings, []);
    place.open().close();
    assert_eq!(checked(&place).findings, []);
}

#[test]
fn lost_heads_are_found_once_the_log_is_long_enough() {
    let place = Place::new();
    let vault = place.open();
    for _ in 0..500 {
        vault.handle().submit(entry(AuditDetails::Plain(String::new()))).unwrap();
    }
    vault.close();
    assert!(checked(&place).is_good());
    fs::remove_file(heads_file(&place)).unwrap();
    assert_eq!(checked(&place).findings, [Finding::HeadsMissing { signed: 0, last: 501 }]);
}

#[test]
fn sealed_details_are_shown_to_the_owner_and_verified_without_a_key() {
    let place = Place::new();
    let vault = place.open();
    vault.handle().submit(entry(AuditDetails::Sealed(personal("from +15550100")))).unwrap();
    vault.close();
    assert!(checked(&place).is_good());
    let reader = wait(Reader::open(&place.config())).unwrap();
    let records = wait(reader.audit(1, 10)).unwrap();
    assert_eq!(records[0].details, Some(personal("from +15550100")));
    assert_eq!(records[0].wall, WallTime::from_unix_millis(WALL));
}

#[test]
fn the_database_itself_refuses_changes_to_the_log() {
    let place = log();
    let url = format!("sqlite://{}", crate::database_path(&place.config().data).display());
    wait(async {
        let mut connection = SqliteConnection::connect(&url).await.unwrap();
        for sql in ["DELETE FROM audit WHERE seq = 1", "UPDATE audit SET actor = 'eve'"] {
            assert!(sqlx::raw_sql(sql).execute(&mut connection).await.is_err());
        }
    });
}
