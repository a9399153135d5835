//! A full disk: what was acknowledged stays readable, what comes waits in bounded memory, the
//! operator is told, and once there is room everything that was taken is kept.
//!
//! Each story runs in a process of its own: one on a small file system of its own, where the
//! system lets everyone make one, the other under a limit on the size of files.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Instant as OsInstant;

use base::limit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;
use crate::audit::verify;
use crate::{Channel, Reader, RecordError, RecordingState, RecordingWriter, SubmitError, Turn};

const CHILD: &str = "CALLGATE_VAULT_FULL";

/// How the disk is filled.
enum Full {
    /// A file takes the rest of a small file system.
    FileSystem(std::path::PathBuf),
    /// No file may grow any more.
    FileSize(Rlimit),
}

impl Full {
    fn fill(&self, place: &Place) {
        match self {
            Self::FileSystem(filler) => {
                let mut file = fs::File::create(filler).unwrap();
                while file.write_all(&[0; 1_024]).is_ok() {}
                while file.write_all(&[0]).is_ok() {}
            }
            Self::FileSize(before) => {
                let journal = place.config().data.join("vault.db-wal");
                let current = Some(fs::metadata(journal).unwrap().len());
                setrlimit(Resource::Fsize, Rlimit { current, ..*before }).unwrap();
            }
        }
    }

    fn make_room(&self) {
        match self {
            Self::FileSystem(filler) => fs::remove_file(filler).unwrap(),
            Self::FileSize(before) => setrlimit(Resource::Fsize, *before).unwrap(),
        }
    }
}

/// A vault in mid-call on a disk of its own.
struct Story {
    place: Place,
    full: Full,
    vault: Vault,
    events: mpsc::Receiver<Event>,
    recording: RecordingWriter,
    /// The last turn's number.
    index: u32,
    /// Turns that the vault took.
    accepted: u32,
}

impl Story {
    fn begin(how: &str) -> Self {
        let place = Place::new();
        let full = match how {
            "file system" => Full::FileSystem(place.folder.path().join("filler")),
            _ => Full::FileSize(getrlimit(Resource::Fsize)),
        };
        let (vault, events) = place.open_telling();
        let handle = vault.handle();
        handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
        let recording = handle.record(call_id(1)).unwrap();
        let mut story = Self { place, full, vault, events, recording, index: 0, accepted: 0 };
        story.turn().unwrap();
        wait(handle.flush()).unwrap();
        story.talk();
        until(|| (recorded_bytes(&story.place) > 0).then_some(()));
        story
    }

    /// A second of the caller's voice; the call goes on whether the recorder takes it or not.
    fn talk(&self) {
        let second = u64::from(self.index);
        for frame in second * 50..(second + 1) * 50 {
            let _ = self.recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0));
        }
    }

    fn turn(&mut self) -> Result<(), SubmitError> {
        let began = OsInstant::now();
        self.index += 1;
        let taken = self.vault.handle().submit(turn_record(1, self.index, &"word ".repeat(200)));
        assert!(began.elapsed() < Duration::from_secs(1), "a caller had to wait");
        self.accepted += u32::from(taken.is_ok());
        taken
    }

    /// The disk fills; returns how many records found no room in the end.
    fn fill(&mut self) -> u64 {
        let handle = self.vault.handle();
        self.full.fill(&self.place);
        until(|| {
            self.turn().unwrap();
            self.talk();
            (!handle.healthy()).then_some(())
        });
        assert!(self.events.try_iter().any(|event| matches!(event, Event::VaultFailed { .. })));
        let most = limit::VAULT_QUEUE.get() + 2 * limit::VAULT_BATCH.get();
        assert!((0..=most).any(|_| self.turn().is_err()), "more than {most} are taken");
        for _ in 1..10 {
            assert_eq!(self.turn(), Err(SubmitError::Full));
        }
        assert!(matches!(handle.record(call_id(2)), Err(RecordError::Unhealthy)));
        // Whoever looks sees what was acknowledged.
        assert_eq!(self.stored()[0].index, 1);
        // Three tries of the writer: after the second one, sqlx and SQLite disagreed for ever about
        // whether a transaction was open, and nothing that was acknowledged from then on was kept.
        std::thread::sleep(Duration::from_millis(1_700));
        10
    }

    /// There is room again: everything that was taken is kept, and the operator is told.
    fn recover(&self, lost: u64) {
        self.full.make_room();
        let handle = self.vault.handle();
        until(|| handle.healthy().then_some(()));
        wait(handle.flush()).unwrap();
        // Read by another connection: it is on the disk, and not only in the writer's.
        assert_eq!(self.stored().len() as u32, self.accepted);
        let (records, recordings) = until(|| match self.events.try_recv().ok()? {
            Event::VaultRecovered { records, recordings, .. } => Some((records, recordings)),
            _ => None,
        });
        // The recording that did not begin, and (unless the recorder noticed nothing) the one cut.
        assert!(records == lost && (1..=2).contains(&recordings), "{records}, {recordings}");
        let audited = until(|| {
            let reader = wait(Reader::open(&self.place.config())).unwrap();
            let all = wait(reader.audit(0, 1_000)).unwrap();
            all.into_iter().find(|record| record.kind == "vault.recovered")?.details
        });
        let wanted = format!(" records_lost={lost} recordings_lost={recordings}");
        assert!(audited.expose().ends_with(&wanted), "{}", audited.expose());
    }

    /// The call ends, another one is recorded whole, and everything is in good order.
    fn end(self) {
        let handle = self.vault.handle();
        let again = until(|| handle.record(call_id(2)).ok());
        again.push(Channel::Caller, 0, &tone(0, 300.0)).unwrap();
        again.finish();
        self.recording.finish();
        for number in [1, 2] {
            handle.submit(Record::Call(Box::new(ended_call(number, "+15550100")))).unwrap();
        }
        let config = self.place.config();
        let state = |number: u8| {
            let reader = wait(Reader::open(&config)).unwrap();
            wait(reader.call(call_id(number))).ok()?.recordings.first().map(|it| it.state)
        };
        until(|| (state(2)? == RecordingState::Complete).then_some(()));
        until(|| (state(1)? != RecordingState::Open).then_some(()));
        let key = self.vault.head_key();
        self.vault.close();
        let database = crate::database_path(&config.data);
        let report = wait(verify(&database, &config.audit_heads, &key)).unwrap();
        assert_eq!(report.findings, []);
        println!("\nthe disk was full: {} turns taken, all kept", self.accepted);
    }

    fn stored(&self) -> Vec<Turn> {
        let reader = wait(Reader::open(&self.place.config())).unwrap();
        wait(reader.call(call_id(1))).unwrap().turns
    }
}

/// Not a test by itself (it returns at once unless told how): the process of the stories below.
#[test]
fn a_vault_on_a_disk_of_its_own() {
    let Ok(how) = std::env::var(CHILD) else { return };
    let mut story = Story::begin(&how);
    let lost = story.fill();
    story.recover(lost);
    story.end();
}

fn recorded_bytes(place: &Place) -> u64 {
    let folder = place.config().data.join("recordings");
    let files = fs::read_dir(folder).unwrap().filter_map(Result::ok);
    files.filter_map(|it| Some(it.metadata().ok()?.len())).sum()
}

/// Runs the story above by `sh -c SCRIPT`, where `"$@"` is the story's command.
fn run(how: &str, script: &str) -> Option<String> {
    let done = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["tests::full::a_vault_on_a_disk_of_its_own", "--exact", "--nocapture"])
        .env(CHILD, how)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    let told = String::from_utf8_lossy(&done.stderr);
    if told.contains("no file system of its own") {
        return None;
    }
    assert!(done.status.success(), "{said}\n{told}");
    assert!(said.contains("all kept"), "{said}\n{told}");
    Some(said)
}

#[test]
fn files_that_may_not_grow_are_like_a_full_disk() {
    // What a shell ignores is ignored by what it starts: the write fails, the process goes on.
    run("file size", "trap '' XFSZ; exec \"$@\"").unwrap();
}

#[test]
fn a_full_file_system_loses_nothing_that_was_taken() {
    // In a name space of its own, so that nothing is mounted for anybody else, nor for longer.
    let script = "unshare --user --map-root-user --mount sh -c '
        folder=$(mktemp -d) && mount -t tmpfs -o size=24m tmpfs \"$folder\" || exit 9
        export TMPDIR=$folder
        \"$@\"; code=$?
        umount \"$folder\"; rmdir \"$folder\"; exit $code' sh \"$@\" ||
        { code=$?; [ $code = 101 ] || echo no file system of its own >&2; exit $code; }";
    if run("file system", script).is_none() {
        println!("this machine lets nobody mount a file system: tried with file sizes only");
    }
}
