//! Calls, turns and ladders: kept, found, shown, erased.

use std::fs;
use std::os::unix::fs::MetadataExt;

use base::{Event, WallTime};

use super::*;
use crate::key::KeyFileError;
use crate::{
    AuditDetails, AuditEntry, CallFilter, CallState, EraseError, LadderEntry, OpenError, ReadError,
    Reader, RecordingState, SubmitError,
};

fn filter(number: Option<&str>) -> CallFilter {
    CallFilter { count: 10, number: number.map(personal), ..CallFilter::default() }
}

#[test]
fn a_call_comes_back_as_it_was_told_next_to_a_running_edge() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    let record = ended_call(1, "+15550100");
    let entry = |index, sent, text| {
        let (at_ms, leg, message) = (12 + u64::from(index), 0, personal(text));
        LadderEntry { index, at_ms, leg, sent, message }
    };
    let ladder = vec![
        entry(0, false, "INVITE sip:reception@edge.example SIP/2.0\r\n\r\nv=0\r\n"),
        entry(1, true, "SIP/2.0 200 OK\r\n\r\n"),
        entry(2, false, "ACK sip:reception@edge.example SIP/2.0\r\n\r\n"),
    ];
    handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    let (set_up, rest) = ladder.split_at(2);
    for entries in [set_up.to_vec(), rest.to_vec()] {
        handle.submit(Record::Ladder { call: call_id(1), entries }).unwrap();
    }
    handle.submit(turn_record(1, 0, "Hello.")).unwrap();
    handle.submit(turn_record(1, 1, "Opening hours, \"please\".\n")).unwrap();
    handle.submit(Record::Call(Box::new(record.clone()))).unwrap();
    wait(handle.flush()).unwrap();

    let detail = wait(async {
        Reader::open(&place.config()).await.unwrap().call(call_id(1)).await.unwrap()
    });
    assert_eq!(detail.personal, Some(record.personal));
    assert_eq!(detail.ladder, ladder);
    assert_eq!(detail.turns, [turn(0, "Hello."), turn(1, "Opening hours, \"please\".\n")]);
    let summary = detail.summary;
    assert_eq!(summary.state, CallState::Ended);
    assert_eq!((summary.started, summary.ended), (record.started, record.ended));
    assert_eq!(summary.reason.as_deref(), Some("call.caller_hung_up"));
    assert_eq!(summary.trunk.as_deref(), Some("acme"));
    assert_eq!((summary.setup, summary.talked), (record.setup, record.talked));
    vault.close();
}

#[test]
fn calls_are_found_by_number_in_any_spelling_and_by_time() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    for (number, caller) in [(1, "+15550100"), (2, "+15550122"), (3, "sip:+15550100@a.example")] {
        handle.submit(Record::Call(Box::new(ended_call(number, caller)))).unwrap();
    }
    wait(handle.flush()).unwrap();
    let found = |filter: CallFilter| -> Vec<_> {
        let reader = wait(Reader::open(&place.config())).unwrap();
        wait(reader.calls(&filter)).unwrap().iter().map(|call| call.id).collect()
    };
    assert_eq!(found(filter(None)), [call_id(3), call_id(2), call_id(1)]);
    assert_eq!(found(filter(Some("001 555-0100"))), [call_id(3), call_id(1)]);
    assert_eq!(found(filter(Some("tel:+1-800-555-0199"))).len(), 3);
    assert_eq!(found(filter(Some("+15550101"))), []);
    assert_eq!(found(filter(Some(""))), []);
    let since = WallTime::from_unix_millis(WALL + 2 * 60_000);
    assert_eq!(found(CallFilter { since, ..filter(None) }), [call_id(3), call_id(2)]);
    assert_eq!(found(CallFilter { count: 1, ..filter(None) }), [call_id(3)]);
    let after = Some((ended_call(3, "").started, call_id(3)));
    assert_eq!(found(CallFilter { after, count: 1, ..filter(None) }), [call_id(2)]);
    let (trunk, agent) = (Some("acme".to_owned()), Some("reception".to_owned()));
    assert!(found(CallFilter { in_progress: true, ..filter(None) }).is_empty());
    let ended = |reasons: &[&'static str]| CallFilter { reasons: reasons.to_vec(), ..filter(None) };
    assert_eq!(found(ended(&["call.caller_hung_up", "policy.no_route"])), found(filter(None)));
    assert!(found(CallFilter { lost: true, ..ended(&["policy.no_route"]) }).is_empty());
    let named = CallFilter { trunk, voice_agent: agent, ..filter(None) };
    assert_eq!(found(named.clone()), found(filter(None)));
    assert!(found(CallFilter { trunk: Some("other".into()), ..named }).is_empty());
    vault.close();
}

#[test]
fn a_call_without_an_end_is_lost_after_a_restart() {
    let place = Place::new();
    let vault = place.open();
    vault.handle().submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    vault.close();
    let state = || {
        let reader = wait(Reader::open(&place.config())).unwrap();
        wait(reader.call(call_id(1))).unwrap().summary.state
    };
    assert_eq!(state(), CallState::InProgress);
    place.open().close();
    assert_eq!(state(), CallState::Lost);
}

#[test]
fn closing_writes_what_was_submitted() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    for index in 0..1_000 {
        handle.submit(turn_record(1, index, "word")).unwrap();
    }
    handle.submit(Record::Call(Box::new(ended_call(1, "+1")))).unwrap();
    vault.close();
    let reader = wait(Reader::open(&place.config())).unwrap();
    assert_eq!(wait(reader.call(call_id(1))).unwrap().turns.len(), 1_000);
    assert_eq!(handle.submit(turn_record(1, 0, "late")), Err(SubmitError::Full));
    // What was taken before the end is on the disk; nothing is pending.
    assert_eq!(wait(handle.flush()), Ok(()));
}

#[test]
fn an_oversize_record_is_refused_at_once() {
    let place = Place::new();
    let vault = place.open();
    let text = "x".repeat(base::limit::VAULT_RECORD_BYTES.get() + 1);
    assert_eq!(vault.handle().submit(turn_record(1, 0, &text)), Err(SubmitError::TooLarge));
    vault.close();
}

#[test]
fn an_erased_call_leaves_times_and_nothing_personal() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    let recording = handle.record(call_id(1)).unwrap();
    recording.push(crate::Channel::Caller, 0, &tone(0, 440.0)).unwrap();
    let id = recording.id();
    assert!(matches!(
        wait(handle.erase(call_id(1), "operator:ada".into())),
        Err(EraseError::InProgress)
    ));
    recording.finish();
    handle.submit(turn_record(1, 0, "my name is Ada")).unwrap();
    handle
        .submit(Record::Audit(AuditEntry {
            kind: "test.seen",
            actor: "edge".into(),
            call: Some(call_id(1)),
            details: AuditDetails::Sealed(personal("from +15550100")),
        }))
        .unwrap();
    vault.close();

    let vault = place.open();
    let handle = vault.handle();
    handle.submit(Record::Call(Box::new(ended_call(1, "+15550100")))).unwrap();
    wait(handle.flush()).unwrap();
    wait(handle.erase(call_id(1), "operator:ada".into())).unwrap();
    assert!(matches!(
        wait(handle.erase(call_id(9), "operator:ada".into())),
        Err(EraseError::Unknown)
    ));
    // What comes late is not kept either.
    handle.submit(turn_record(1, 1, "late words")).unwrap();
    wait(handle.flush()).unwrap();

    let reader = wait(Reader::open(&place.config())).unwrap();
    let detail = wait(reader.call(call_id(1))).unwrap();
    assert_eq!(detail.personal, None);
    assert!(detail.turns.is_empty() && detail.ladder.is_empty());
    assert_eq!(detail.summary.trunk.as_deref(), Some("acme"));
    assert_eq!(detail.recordings[0].state, RecordingState::Erased);
    assert!(matches!(wait(reader.recording(id)), Err(ReadError::Erased)));
    assert_eq!(wait(reader.calls(&filter(Some("+15550100")))).unwrap().len(), 0);
    let audit = wait(reader.audit(0, 100)).unwrap();
    let seen = audit.iter().find(|record| record.kind == "test.seen").unwrap();
    assert_eq!(seen.details, None);
    assert!(audit.iter().any(|record| record.kind == "call.erased"));
    let files = fs::read_dir(place.config().data.join("recordings")).unwrap().count();
    assert_eq!(files, 0);
    vault.close();
}

#[test]
fn everything_in_the_data_folder_is_private() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    let recording = handle.record(call_id(1)).unwrap();
    recording.push(crate::Channel::Caller, 0, &tone(0, 440.0)).unwrap();
    recording.finish();
    vault.close();
    let vault = place.open();
    let _recording = vault.handle().record(call_id(2)).unwrap();
    let mut folders = vec![place.config().data];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o7777, 0o700);
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
                assert_eq!(mode, 0o600, "{}", path.display());
                files += 1;
            }
        }
    }
    assert!(files >= 4, "database, journal, lock and recording: {files}");
    vault.close();
}

#[test]
fn a_second_edge_does_not_open_the_same_vault() {
    let place = Place::new();
    let vault = place.open();
    let second = Vault::open(place.config(), StoppedClock, Box::new(|_| {}));
    assert!(matches!(second, Err(OpenError::InUse(_))));
    vault.close();
    place.open().close();
}

#[test]
fn a_vault_without_its_own_key_file_is_not_opened() {
    let place = Place::new();
    place.open().close();
    let mut config = place.config();
    config.key_file = place.folder.path().join("keys/other.key");
    let opened = Vault::open(config.clone(), StoppedClock, Box::new(|_| {}));
    assert!(matches!(opened, Err(OpenError::KeyFile(KeyFileError::Missing(_)))));
    // Another vault's key opens nothing.
    let other = Place::new();
    other.open().close();
    fs::copy(other.config().key_file, &config.key_file).unwrap();
    let opened = Vault::open(config, StoppedClock, Box::new(|_| {}));
    assert!(matches!(opened, Err(OpenError::Kms(_))));
}

#[test]
fn a_database_that_cannot_be_written_is_unhealthy_until_it_can() {
    use sqlx::Connection;
    let place = Place::new();
    let (vault, events) = place.open_telling();
    let handle = vault.handle();
    let url = format!("sqlite://{}", crate::database_path(&place.config().data).display());
    let mut other = wait(sqlx::SqliteConnection::connect(&url)).unwrap();
    wait(sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other)).unwrap();
    handle.submit(turn_record(1, 0, "kept all the same")).unwrap();
    assert_eq!(events.recv().unwrap(), Event::VaultFailed { what: "turn" });
    assert!(!handle.healthy());
    assert!(handle.record(call_id(2)).is_err());
    wait(sqlx::raw_sql("ROLLBACK").execute(&mut other)).unwrap();
    wait(handle.flush()).unwrap();
    assert!(handle.healthy());
    handle.submit(Record::Call(Box::new(ended_call(1, "+1")))).unwrap();
    vault.close();
    let reader = wait(Reader::open(&place.config())).unwrap();
    assert_eq!(wait(reader.call(call_id(1))).unwrap().turns.len(), 1);
}
