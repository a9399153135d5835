//! Stories about the whole vault.

mod access;
mod audit;
mod full;
mod kill;
mod recordings;
mod records;
mod retention;
mod search;

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use base::{
    CallId, Clock, Event, Instant, Personal, Reason, TrunkName, VoiceAgentName, WallTime,
    WorkspaceId,
};

use crate::{CallPersonal, CallRecord, Direction, Record, Role, Turn, Vault, VaultConfig};

pub(crate) const WALL: u64 = 1_795_392_000_000;

/// A clock that stands still, so that heads are signed by count and at the end only.
struct StoppedClock;

impl Clock for StoppedClock {
    fn now(&self) -> Instant {
        Instant::ZERO
    }
    fn wall(&self) -> WallTime {
        WallTime::from_unix_millis(WALL)
    }
}

/// A place for a vault.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> VaultConfig {
        config_in(self.folder.path().to_owned())
    }

    fn open(&self) -> Vault {
        Vault::open(self.config(), StoppedClock, Box::new(|_| {})).unwrap()
    }

    /// A vault that tells its events.
    fn open_telling(&self) -> (Vault, mpsc::Receiver<Event>) {
        let (send, receive) = mpsc::sync_channel(100);
        let tell = Box::new(move |event| {
            let _ = send.try_send(event);
        });
        (Vault::open(self.config(), StoppedClock, tell).unwrap(), receive)
    }
}

fn config_in(folder: PathBuf) -> VaultConfig {
    VaultConfig {
        data: folder.join("data"),
        key_file: folder.join("keys/callgate.key"),
        audit_heads: folder.join("heads"),
        workspace: WorkspaceId::new("default"),
        retention: crate::Retention::default(),
    }
}

/// Runs a future to its end.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What another thread brings about, asked for until it is there.
fn until<T>(mut there: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6_000 {
        if let Some(found) = there() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within a minute");
}

fn call_id(number: u8) -> CallId {
    CallId::from_bytes([number; 12])
}

fn personal(text: &str) -> Personal<String> {
    Personal::new(text.to_owned())
}

/// A call that was answered and ended.
fn ended_call(number: u8, caller: &str) -> CallRecord {
    let at = |seconds: u64| {
        WallTime::from_unix_millis(WALL + u64::from(number) * 60_000 + seconds * 1_000)
    };
    CallRecord {
        id: call_id(number),
        direction: Direction::Incoming,
        trunk: Some(TrunkName::new("acme")),
        voice_agent: Some(VoiceAgentName::new("reception")),
        started: at(0),
        answered: Some(at(1)),
        ended: Some(at(31)),
        reason: Some(Reason::CallerHungUp),
        setup: Some(Duration::from_millis(850)),
        talked: Some(Duration::from_secs(30)),
        transport: "tls",
        protection: "AEAD_AES_128_GCM",
        codec: "opus",
        keys_exposed: false,
        unrecorded: "",
        recording: true,
        transcript: true,
        personal: CallPersonal {
            caller: personal(caller),
            callee: personal("+18005550199"),
            request_uri: personal("sip:+18005550199@edge.example"),
            attempt: personal("{\"trunk\":\"acme\"}"),
            observed: personal("{}"),
            decision: personal("{\"verdict\":\"agent\"}"),
            quality: personal("{\"loss\":0}"),
        },
    }
}

fn call_in_progress(number: u8) -> CallRecord {
    CallRecord { ended: None, reason: None, talked: None, ..ended_call(number, "+15550100") }
}

fn turn(index: u32, text: &str) -> Turn {
    Turn {
        index,
        role: if index.is_multiple_of(2) { Role::Agent } else { Role::Caller },
        text: personal(text),
        start_ms: u64::from(index) * 2_000,
        end_ms: u64::from(index) * 2_000 + 1_500,
        interrupted: index == 2,
        latency: Some(Duration::from_micros(312_500)),
    }
}

fn turn_record(call: u8, index: u32, text: &str) -> Record {
    Record::Turn { call: call_id(call), turn: turn(index, text) }
}

/// 20 ms of a tone at sample `position`.
fn tone(position: u64, frequency: f64) -> Vec<i16> {
    (position..position + 320)
        .map(|at| at as f64 * frequency * std::f64::consts::TAU / 16_000.0)
        .map(|phase| (phase.sin() * 10_000.0) as i16)
        .collect()
}
