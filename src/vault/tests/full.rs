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
use crate::{Channel, Reader, RecordError, RecordingState, SubmitError};

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

/// Not a test by itself (it returns at once unless told how): the process of the stories below.
#[test]
fn a_vault_on_a_disk_of_its_own() {
    let Ok(how) = std::env::var(CHILD) else { return };
    let place = Place::new();
    let full = match how.as_str() {
        "file system" => Full::FileSystem(place.folder.path().join("filler")),
        _ => Full::FileSize(getrlimit(Resource::Fsize)),
    };
    let (vault, events) = place.open_telling();
    let handle = vault.handle();
    handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    handle.submit(turn_record(1, 0, "before")).unwrap();
    wait(handle.flush()).unwrap();
    let recording = handle.record(call_id(1)).unwrap();
    let push = |second: u64| {
        for frame in second * 50..(second + 1) * 50 {
            // The call goes on whether the recorder takes it or not.
            let _ = recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0));
        }
    };
    push(0);
    until(|| (vault_files(&place) > 0).then_some(()));

    full.fill(&place);
    let mut accepted = 0;
    let mut submit = |index: u32| {
        let began = OsInstant::now();
        let taken = handle.submit(turn_record(1, index, &"word ".repeat(200)));
        assert!(began.elapsed() < Duration::from_secs(1), "a caller had to wait");
        accepted += u32::from(taken.is_ok());
        taken
    };
    let mut index = 0;
    until(|| {
        index += 1;
        submit(index).unwrap();
        push(u64::from(index));
        (!handle.healthy()).then_some(())
    });
    assert!(events.try_iter().any(|event| matches!(event, Event::VaultFailed { .. })));
    let refused = (0..2 * limit::VAULT_QUEUE.value).find_map(|_| {
        index += 1;
        submit(index).err()
    });
    assert_eq!(refused, Some(SubmitError::Full));
    for _ in 0..9 {
        index += 1;
        assert_eq!(submit(index), Err(SubmitError::Full));
    }
    assert!(accepted as usize <= limit::VAULT_QUEUE.get() + 2 * limit::VAULT_BATCH.get());
    assert!(matches!(handle.record(call_id(2)), Err(RecordError::Unhealthy)));
    // Whoever looks sees what was acknowledged.
    let turns = || {
        let reader = wait(Reader::open(&place.config())).unwrap();
        wait(reader.call(call_id(1))).unwrap().turns
    };
    assert_eq!(*turns()[0].text.expose(), "before");
    // Three tries of the writer: after the second one, sqlx and SQLite disagreed for ever about
    // whether a transaction was open, and nothing that was acknowledged from then on was kept.
    std::thread::sleep(Duration::from_millis(1_700));

    full.make_room();
    until(|| handle.healthy().then_some(()));
    wait(handle.flush()).unwrap();
    // Read by another connection: it is on the disk, and not only in the writer's.
    assert_eq!(turns().len() as u32, accepted + 1);
    let (records, recordings) = until(|| match events.try_recv().ok()? {
        Event::VaultRecovered { records, recordings, .. } => Some((records, recordings)),
        _ => None,
    });
    // The recording that did not begin, and (unless the recorder noticed nothing) the one cut.
    assert!(records == 10 && (1..=2).contains(&recordings), "{records}, {recordings}");
    let audited = until(|| {
        let reader = wait(Reader::open(&place.config())).unwrap();
        let all = wait(reader.audit(0, 1_000)).unwrap();
        let found = all.into_iter().find(|record| record.kind == "vault.recovered")?;
        found.details
    });
    assert!(audited.expose().contains(" records_lost=10 "), "{}", audited.expose());
    // Recording begins again with the next call; this one's plays up to where it was cut.
    let again = until(|| handle.record(call_id(2)).ok());
    again.push(Channel::Caller, 0, &tone(0, 300.0)).unwrap();
    again.finish();
    recording.finish();
    handle.submit(Record::Call(Box::new(ended_call(1, "+15550100")))).unwrap();
    let state = |number: u8| {
        let reader = wait(Reader::open(&place.config())).unwrap();
        wait(reader.call(call_id(number))).ok()?.recordings.first().map(|it| it.state)
    };
    handle.submit(Record::Call(Box::new(ended_call(2, "+15550100")))).unwrap();
    until(|| (state(2)? == RecordingState::Complete).then_some(()));
    until(|| (state(1)? != RecordingState::Open).then_some(()));
    vault.close();
    let config = place.config();
    let key = crate::key::Kms::head_key(
        &crate::key::LocalKms::open(&config.key_file, &config.data).unwrap(),
    );
    let database = crate::database_path(&config.data);
    let report = wait(verify(&database, &config.audit_heads, &key)).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(turns().len() as u32, accepted + 1);
    println!("\nthe disk was full: {accepted} turns taken, all kept");
}

fn vault_files(place: &Place) -> u64 {
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
