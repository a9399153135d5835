//! `kill -9` in the middle of a call: no acknowledged record and at most a second of audio is lost.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Instant as OsInstant, SystemTime};

use super::recordings::{power, samples};
use super::*;
use crate::audit::verify;
use crate::{CallState, Channel, Reader, RecordingState};

const CHILD: &str = "CALLGATE_VAULT_CHILD";

/// The operating system's clock, as `edge` passes it.
struct OsClock(OsInstant);

impl Clock for OsClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.0.elapsed()
    }
    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        WallTime::from_unix_millis(since.as_millis() as u64)
    }
}

/// Not a test by itself (it returns at once unless told where): the process that is killed by the
/// test below. It records in real time and says what it did.
#[test]
fn a_call_in_a_process_of_its_own() {
    let Ok(folder) = std::env::var(CHILD) else { return };
    let clock = OsClock(OsInstant::now());
    let vault = Vault::open(config_in(folder.into()), clock, Box::new(|_| {})).unwrap();
    let handle = vault.handle();
    handle.submit(Record::Call(Box::new(call_in_progress(1)))).unwrap();
    let recording = handle.record(call_id(1)).unwrap();
    println!("\nrecording {}", recording.id());
    let start = OsInstant::now();
    for frame in 0..3_000_u64 {
        let position = frame * 320;
        recording.push(Channel::Caller, position, &tone(position, 300.0)).unwrap();
        // The agent is silent: its channel must not hold the caller's back for long.
        println!("pushed {}", position + 320);
        if frame % 25 == 0 {
            let index = (frame / 25) as u32;
            handle.submit(turn_record(1, index, &format!("turn {index}"))).unwrap();
            wait(handle.flush()).unwrap();
            println!("turn {index}");
        }
        // Real time: what is tested is how far the disk lags behind a live call.
        let due = Duration::from_millis(20 * (frame + 1));
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
}

#[test]
fn kill_9_loses_no_finished_turn_and_at_most_a_second_of_audio() {
    let place = Place::new();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["tests::kill::a_call_in_a_process_of_its_own", "--exact", "--nocapture"])
        .env(CHILD, place.folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut id, mut pushed, mut turns) = (None, 0_u64, 0_usize);
    let mut killed = false;
    // After the kill, the pipe still holds what the child had said before.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match line.split_once(' ') {
            Some(("recording", text)) => id = text.parse::<crate::RecordingId>().ok(),
            Some(("pushed", text)) => pushed = text.parse().unwrap_or(pushed),
            Some(("turn", text)) => turns = text.parse::<usize>().map_or(turns, |n| n + 1),
            _ => {}
        }
        if turns == 7 && !killed {
            // SIGKILL, on unix.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    let id = id.unwrap();
    assert!(killed && pushed > 3 * 16_000 - 320, "{pushed}");

    let config = place.config();
    // Before anything is recovered, whoever looks sees what there is.
    let reader = wait(Reader::open(&config)).unwrap();
    assert!(wait(reader.call(call_id(1))).unwrap().turns.len() >= turns);
    assert_eq!(wait(reader.recording(id)).unwrap().state, RecordingState::Open);
    drop(reader);

    place.open().close();
    let reader = wait(Reader::open(&config)).unwrap();
    let detail = wait(reader.call(call_id(1))).unwrap();
    assert_eq!(detail.summary.state, CallState::Lost);
    assert!(detail.turns.len() >= turns, "{} of {turns} turns", detail.turns.len());
    for (index, kept) in detail.turns.iter().enumerate() {
        assert_eq!(*kept.text.expose(), format!("turn {index}"));
    }
    assert_eq!(detail.recordings[0].state, RecordingState::Unfinished);
    assert_eq!(wait(reader.recording(id)).unwrap().state, RecordingState::Unfinished);
    let heard = samples(&place, id);
    let lost_ms = pushed.saturating_sub(heard.len() as u64) / 16;
    println!("{lost_ms} ms of audio lost");
    assert!(lost_ms <= 1_000, "{lost_ms} ms lost");
    assert!(power(heard.iter().map(|pair| pair.0), 300.0) > 1_000.0);

    // The audit log is whole, too.
    let key = crate::key::Kms::head_key(
        &crate::key::LocalKms::open(&config.key_file, &config.data).unwrap(),
    );
    let database = crate::database_path(&config.data);
    let report = wait(verify(&database, &config.audit_heads, &key)).unwrap();
    assert_eq!(report.findings, []);
}
