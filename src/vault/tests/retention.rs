//! What is too old goes, from the disk as well, and what is erased by hand too; nothing else does.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::{Connection, Row, SqliteConnection};

use super::*;
use crate::audit::verify;
use crate::store::sweep::Swept;
use crate::{
    AuditView, CallState, Channel, EraseError, Erasure, LadderEntry, Reader, RecordingState,
    Retention, database_path,
};

const DAY: Duration = Duration::from_secs(86_400);

/// A clock that is set in milliseconds after [`WALL`].
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl SetClock {
    fn set(&self, since: Duration) {
        self.0.store(since.as_millis() as u64, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::ZERO + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn wall(&self) -> WallTime {
        WallTime::from_unix_millis(WALL + self.0.load(Ordering::Relaxed))
    }
}

struct Kept {
    place: Place,
    clock: SetClock,
    vault: Vault,
    events: mpsc::Receiver<Event>,
}

impl Kept {
    fn new(retention: Retention) -> Self {
        Self::reopen(Place::new(), retention)
    }

    fn reopen(place: Place, retention: Retention) -> Self {
        let clock = SetClock::default();
        let (send, events) = mpsc::sync_channel(100);
        let tell = Box::new(move |event| {
            let _ = send.try_send(event);
        });
        let config = VaultConfig { retention, ..place.config() };
        let vault = Vault::open(config, clock.clone(), tell).unwrap();
        Self { place, clock, vault, events }
    }

    /// A call that began `number` minutes after [`WALL`], with everything that can be kept of it.
    fn call(&self, number: u8) {
        let handle = self.vault.handle();
        let recording = handle.record(call_id(number)).unwrap();
        for frame in 0..50 {
            recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0)).unwrap();
        }
        recording.finish();
        for index in 0..4 {
            handle.submit(turn_record(number, index, "opening hours")).unwrap();
        }
        let message = personal("INVITE sip:reception@edge.example SIP/2.0");
        let entry = |index, message| LadderEntry { index, at_ms: 0, leg: 0, sent: false, message };
        let answer = personal("SIP/2.0 404 Not Found");
        let entries = vec![entry(0, message), entry(1, answer)];
        handle.submit(Record::Ladder { call: call_id(number), entries }).unwrap();
        // A number of its own: calls that share one share its blind index.
        let record = ended_call(number, &format!("+15550{number:03}"));
        handle.submit(Record::Call(Box::new(record))).unwrap();
        until(|| self.recording(number).filter(|state| *state == RecordingState::Complete));
    }

    fn reader(&self) -> Reader {
        wait(Reader::open(&self.place.config())).unwrap()
    }

    fn recording(&self, number: u8) -> Option<RecordingState> {
        Some(wait(self.reader().call(call_id(number))).ok()?.recordings.first()?.state)
    }

    fn turns(&self, number: u8) -> Option<usize> {
        Some(wait(self.reader().call(call_id(number))).ok()?.turns.len())
    }

    /// Moves the clock and waits for the sweep that is due then.
    fn sweep(&self, since: Duration) -> Swept {
        self.clock.set(since);
        until(|| {
            let event = self.events.try_recv().ok()?;
            let Event::RetentionSwept { recordings, transcripts, calls } = event else {
                return None;
            };
            Some(Swept { recordings, transcripts, calls })
        })
    }

    fn audited(&self, kind: &str) -> Vec<AuditView> {
        let all = wait(self.reader().audit(0, 10_000)).unwrap();
        all.into_iter().filter(|record| record.kind == kind).collect()
    }

    /// All that was sealed of a call, as it lies on the disk.
    fn sealed(&self, number: u8) -> Sealed {
        let id = call_id(number);
        let mut connection = self.connection();
        let mut rows = Vec::new();
        for statement in [
            "SELECT wrapped_key FROM call_key WHERE call = ?",
            "SELECT personal FROM call WHERE id = ?",
            "SELECT caller_index FROM call WHERE id = ?",
            "SELECT content FROM ladder WHERE call = ?",
            "SELECT content FROM turn WHERE call = ?",
        ] {
            let query = sqlx::query(statement).bind(&id.as_bytes()[..]);
            let found = wait(query.fetch_all(&mut connection)).unwrap();
            assert!(!found.is_empty(), "{statement}");
            rows.push(found.iter().map(|row| row.get::<Vec<u8>, _>(0)).collect());
        }
        let [key, personal, blind, ladder, turns] = rows.try_into().unwrap();
        let recording = wait(self.reader().call(id)).unwrap().recordings[0].id;
        let file = self.place.config().data.join(format!("recordings/{recording}.sealed"));
        let recording = vec![fs::read(file).unwrap()];
        Sealed { key, personal, blind, ladder, turns, recording }
    }

    fn connection(&self) -> SqliteConnection {
        let url = format!("sqlite://{}", database_path(&self.place.config().data).display());
        wait(SqliteConnection::connect(&url)).unwrap()
    }

    fn is_on_disk(&self, blobs: &[Vec<u8>]) -> bool {
        blobs.iter().any(|blob| holds(&self.place.config().data, blob))
    }

    fn verify(&self) {
        let config = self.place.config();
        let report =
            wait(verify(&database_path(&config.data), &config.audit_heads, &self.vault.head_key()));
        assert_eq!(report.unwrap().findings, []);
    }
}

struct Sealed {
    key: Vec<Vec<u8>>,
    personal: Vec<Vec<u8>>,
    blind: Vec<Vec<u8>>,
    ladder: Vec<Vec<u8>>,
    turns: Vec<Vec<u8>>,
    recording: Vec<Vec<u8>>,
}

impl Sealed {
    fn all(&self) -> Vec<Vec<u8>> {
        let Self { key, personal, blind, ladder, turns, recording } = self;
        [key, personal, blind, ladder, turns, recording].into_iter().flatten().cloned().collect()
    }
}

/// Whether a file below `folder` holds 24 bytes in a row of `blob`'s beginning, middle or end.
fn holds(folder: &Path, blob: &[u8]) -> bool {
    let piece = |from: usize| &blob[from..(from + 24).min(blob.len())];
    let pieces = [piece(0), piece(blob.len() / 2), piece(blob.len().saturating_sub(24))];
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, blob);
        }
        let bytes = fs::read(path).unwrap_or_default();
        pieces.iter().any(|piece| bytes.windows(piece.len()).any(|window| window == *piece))
    })
}

fn days(count: u32) -> Duration {
    DAY * count
}

fn swept(recordings: u64, transcripts: u64, calls: u64) -> Swept {
    Swept { recordings, transcripts, calls }
}

#[test]
fn old_recordings_transcripts_and_calls_go_each_after_its_own_time() {
    let retention =
        Retention { transcripts: Some(days(1)), recordings: Some(days(2)), calls: Some(days(3)) };
    let kept = Kept::new(retention);
    kept.call(1);
    let sealed = kept.sealed(1);
    assert!(sealed.all().iter().all(|blob| kept.is_on_disk(std::slice::from_ref(blob))));

    // The call began a minute after the clock's start.
    assert_eq!(kept.sweep(days(1) + DAY / 2), swept(0, 1, 0));
    assert_eq!((kept.turns(1), kept.recording(1)), (Some(0), Some(RecordingState::Complete)));
    let summary = wait(kept.reader().call(call_id(1))).unwrap().summary;
    assert!(summary.transcript && summary.transcript_erased && summary.numbers.is_some());

    assert_eq!(kept.sweep(days(2) + DAY / 2), swept(1, 0, 0));
    assert_eq!(kept.recording(1), Some(RecordingState::Erased));
    assert_eq!(fs::read_dir(kept.place.config().data.join("recordings")).unwrap().count(), 0);

    assert_eq!(kept.sweep(days(3) + DAY / 2), swept(0, 0, 1));
    assert_eq!(kept.turns(1), None);
    assert_eq!(kept.audited("retention.swept").len(), 3);
    kept.verify();
    // Nothing of it is in free pages, the journal or a file.
    until(|| (!kept.is_on_disk(&sealed.all())).then_some(()));
    kept.vault.close();
}

#[test]
fn what_is_younger_or_in_progress_stays() {
    let month = Some(days(30));
    let kept = Kept::new(Retention { recordings: month, transcripts: month, calls: month });
    kept.call(1);
    kept.clock.set(days(20));
    kept.call(200);
    let open = CallRecord { started: WallTime::from_unix_millis(WALL), ..call_in_progress(9) };
    kept.vault.handle().submit(Record::Call(Box::new(open))).unwrap();
    kept.vault.handle().submit(turn_record(9, 0, "a long call")).unwrap();
    let recording = kept.vault.handle().record(call_id(9)).unwrap();
    wait(kept.vault.handle().flush()).unwrap();
    // Call 1 is one minute old, call 200 three hours; the clock stands between them.
    assert_eq!(kept.sweep(days(30) + Duration::from_secs(3_600)), swept(0, 0, 1));
    assert_eq!((kept.turns(1), kept.turns(200), kept.turns(9)), (None, Some(4), Some(1)));
    assert_eq!(kept.recording(200), Some(RecordingState::Complete));
    assert_eq!(kept.recording(9), Some(RecordingState::Open));
    recording.finish();
    kept.vault.close();
}

#[test]
fn by_default_everything_is_kept() {
    let kept = Kept::new(Retention::default());
    kept.call(1);
    kept.clock.set(days(36_500));
    // Two of the writer's rounds.
    for index in 4..6 {
        kept.vault.handle().submit(turn_record(1, index, "still here")).unwrap();
        wait(kept.vault.handle().flush()).unwrap();
    }
    assert_eq!((kept.turns(1), kept.audited("retention.swept").len()), (Some(6), 0));
    kept.vault.close();
}

#[test]
fn a_sweep_of_many_batches_is_one_audit_record_and_stays_out_of_the_way() {
    let kept = Kept::new(Retention { calls: Some(days(1)), ..Retention::default() });
    let handle = kept.vault.handle();
    let many = 5 * base::limit::VAULT_SWEEP_BATCH.value as u8;
    for number in 0..many {
        handle.submit(Record::Call(Box::new(ended_call(number, "+15550100")))).unwrap();
    }
    wait(handle.flush()).unwrap();
    kept.clock.set(days(2));
    // While it sweeps, records are taken and acknowledged as ever.
    for index in 0..50 {
        handle.submit(turn_record(255, index, "meanwhile")).unwrap();
        wait(handle.flush()).unwrap();
    }
    let event = until(|| match kept.events.try_recv().ok()? {
        Event::RetentionSwept { calls, .. } => Some(calls),
        _ => None,
    });
    assert_eq!(event, u64::from(many));
    let [audited] = &kept.audited("retention.swept")[..] else { panic!("not one") };
    let details = audited.details.as_ref().unwrap().expose();
    assert_eq!(*details, format!("recordings=0 transcripts=0 calls={many}"));
    kept.vault.close();
}

#[test]
fn a_recording_that_cannot_be_deleted_does_not_keep_the_others() {
    let kept = Kept::new(Retention { recordings: Some(days(1)), ..Retention::default() });
    kept.call(1);
    kept.call(2);
    let first = wait(kept.reader().call(call_id(1))).unwrap().recordings[0].id;
    let file = kept.place.config().data.join(format!("recordings/{first}.sealed"));
    fs::remove_file(&file).unwrap();
    fs::create_dir_all(file.join("in the way")).unwrap();
    assert_eq!(kept.sweep(days(2)), swept(1, 0, 0));
    assert_ne!(kept.recording(1), Some(RecordingState::Erased));
    assert_eq!(kept.recording(2), Some(RecordingState::Erased));
    fs::remove_dir_all(&file).unwrap();
    assert_eq!(kept.sweep(days(3)), swept(1, 0, 0));
    kept.vault.close();
}

#[test]
fn a_sweep_that_was_cut_off_is_told_at_the_next_start() {
    let kept = Kept::new(Retention::default());
    let mut connection = kept.connection();
    let statement = "UPDATE sweep SET recordings = 3, calls = 40";
    wait(sqlx::raw_sql(statement).execute(&mut connection)).unwrap();
    let Kept { place, vault, .. } = kept;
    vault.close();
    let kept = Kept::reopen(place, Retention::default());
    let [audited] = &kept.audited("retention.swept")[..] else { panic!("not one") };
    let details = audited.details.as_ref().unwrap().expose();
    assert_eq!(details, "recordings=3 transcripts=0 calls=40");
    let Kept { place, vault, .. } = kept;
    vault.close();
    let kept = Kept::reopen(place, Retention::default());
    assert_eq!(kept.audited("retention.swept").len(), 1);
    kept.vault.close();
}

#[test]
fn an_erased_call_is_on_no_disk_and_the_audit_log_says_who_did_it() {
    let kept = Kept::new(Retention::default());
    kept.call(1);
    kept.call(2);
    let (first, second) = (kept.sealed(1), kept.sealed(2));
    // Somebody reads meanwhile: the journal cannot be truncated under his feet.
    let mut reading = kept.connection();
    wait(sqlx::raw_sql("BEGIN; SELECT count(*) FROM call").execute(&mut reading)).unwrap();
    let handle = kept.vault.handle();
    let erase = || wait(handle.erase(call_id(1), "operator:ada".to_owned())).unwrap();
    assert_eq!(erase(), Erasure::Now);
    wait(sqlx::raw_sql("COMMIT").execute(&mut reading)).unwrap();
    until(|| (!kept.is_on_disk(&first.all())).then_some(()));
    assert!(second.all().iter().all(|blob| kept.is_on_disk(std::slice::from_ref(blob))));

    assert_eq!(erase(), Erasure::Before);
    let [audited] = &kept.audited("call.erased")[..] else { panic!("not one") };
    assert_eq!((audited.actor.as_str(), audited.call), ("operator:ada", Some(call_id(1))));
    let details = audited.details.as_ref().unwrap().expose();
    assert_eq!(details, "recordings=1 turns=4 messages=2");
    assert!(kept.events.try_iter().any(|it| it == Event::CallErased { call: call_id(1) }));
    kept.verify();
    kept.vault.close();
}

#[test]
fn a_call_that_a_crash_left_open_can_be_erased_after_the_restart() {
    let kept = Kept::new(Retention::default());
    let handle = kept.vault.handle();
    handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    // Of this one only a turn found room.
    handle.submit(turn_record(2, 0, "an orphan")).unwrap();
    wait(handle.flush()).unwrap();
    let erased = wait(handle.erase(call_id(1), "operator:ada".to_owned()));
    assert!(matches!(erased, Err(EraseError::InProgress)), "{erased:?}");
    let Kept { place, vault, .. } = kept;
    vault.close();

    let kept = Kept::reopen(place, Retention::default());
    let orphan = wait(kept.reader().call(call_id(2))).unwrap();
    assert_eq!((orphan.summary.state, orphan.turns.len()), (CallState::Lost, 1));
    for number in [1, 2] {
        let handle = kept.vault.handle();
        let erased = wait(handle.erase(call_id(number), "operator:ada".to_owned())).unwrap();
        assert_eq!(erased, Erasure::Now);
        assert_eq!(kept.turns(number), Some(0));
    }
    kept.vault.close();
}
