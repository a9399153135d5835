//! Recordings: from pushed samples to exported files, and what is made of broken ones.

use std::fs;
use std::path::PathBuf;

use base::Event;

use super::*;
use crate::{Channel, ReadError, Reader, RecordingId, RecordingState, VaultHandle};

/// Records `frames` frames, the caller low and the agent high; `push` decides what is left out.
fn record(handle: &VaultHandle, call: u8, frames: u64) -> RecordingId {
    handle.submit(Record::Call(Box::new(call_in_progress(call)))).unwrap();
    let recording = handle.record(call_id(call)).unwrap();
    for frame in 0..frames {
        let position = frame * 320;
        recording.push(Channel::Caller, position, &tone(position, 300.0)).unwrap();
        recording.push(Channel::Agent, position, &tone(position, 1_100.0)).unwrap();
    }
    let id = recording.id();
    recording.finish();
    id
}

fn finished(place: &Place, frames: u64) -> RecordingId {
    let vault = place.open();
    let id = record(&vault.handle(), 1, frames);
    vault.close();
    id
}

fn sealed_file(place: &Place, id: RecordingId) -> PathBuf {
    place.config().data.join(format!("recordings/{id}.sealed"))
}

fn part_file(place: &Place, id: RecordingId) -> PathBuf {
    place.config().data.join(format!("recordings/{id}.part"))
}

fn state_of(place: &Place, id: RecordingId) -> RecordingState {
    let reader = wait(Reader::open(&place.config())).unwrap();
    wait(reader.recording(id)).unwrap().state
}

/// Both channels' samples.
pub(super) fn samples(place: &Place, id: RecordingId) -> Vec<(f64, f64)> {
    let reader = wait(Reader::open(&place.config())).unwrap();
    let mut wav = Vec::new();
    wait(reader.recording_wav(id, &mut wav)).unwrap();
    let sample = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]]));
    wav[44..].chunks(4).map(|pair| (sample(pair), sample(&pair[2..]))).collect()
}

/// How much of `frequency` is in the samples.
pub(super) fn power(samples: impl Iterator<Item = f64>, frequency: f64) -> f64 {
    let (mut re, mut im, mut count) = (0.0, 0.0, 0.0);
    for (at, sample) in samples.enumerate() {
        let phase = at as f64 * frequency * std::f64::consts::TAU / 16_000.0;
        re += sample * phase.cos();
        im += sample * phase.sin();
        count += 1.0;
    }
    (re * re + im * im).sqrt() / count
}

#[test]
fn the_caller_is_heard_left_and_the_agent_right() {
    let place = Place::new();
    let id = finished(&place, 250);
    assert_eq!(state_of(&place, id), RecordingState::Complete);
    let samples = samples(&place, id);
    assert_eq!(samples.len(), 250 * 320);
    let (left, right) = (|| samples.iter().map(|s| s.0), || samples.iter().map(|s| s.1));
    assert!(power(left(), 300.0) > 100.0 * power(left(), 1_100.0));
    assert!(power(right(), 1_100.0) > 100.0 * power(right(), 300.0));
    let reader = wait(Reader::open(&place.config())).unwrap();
    let detail = wait(reader.call(call_id(1))).unwrap();
    assert_eq!(detail.recordings[0].duration.as_millis(), 5_000);
    if let Ok(folder) = std::env::var("CALLGATE_KEEP_OGG") {
        let ogg = wait(reader.recording(id)).unwrap().ogg;
        fs::write(format!("{folder}/vault-test.ogg"), ogg).unwrap();
    }
}

#[test]
fn gaps_are_silent_and_a_masked_span_keeps_time() {
    let place = Place::new();
    let vault = place.open();
    let recording = vault.handle().record(call_id(1)).unwrap();
    recording.mask(16_000, 32_000);
    for frame in (0..100).chain(150..200) {
        recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0)).unwrap();
    }
    let id = recording.id();
    recording.finish();
    vault.close();
    let samples = samples(&place, id);
    assert_eq!(samples.len(), 200 * 320);
    let loudest = |from: usize, to: usize| {
        samples[from..to].iter().map(|s| s.0.abs() as u32).max().unwrap_or(0)
    };
    assert!(loudest(2_000, 15_000) > 5_000);
    assert!(loudest(17_000, 47_000) < 100, "{}", loudest(17_000, 47_000));
    assert!(loudest(50_000, 63_000) > 5_000);
}

#[test]
fn a_recording_that_nobody_finished_is_unfinished_and_plays() {
    let place = Place::new();
    let vault = place.open();
    let recording = vault.handle().record(call_id(1)).unwrap();
    for frame in 0..100 {
        recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0)).unwrap();
    }
    let id = recording.id();
    drop(recording);
    vault.close();
    assert_eq!(state_of(&place, id), RecordingState::Unfinished);
    assert_eq!(samples(&place, id).len(), 100 * 320);
}

#[test]
fn a_truncated_recording_is_told_from_an_unfinished_one() {
    let place = Place::new();
    let id = finished(&place, 250);
    let path = sealed_file(&place, id);
    let bytes = fs::read(&path).unwrap();
    for keep in [bytes.len() - 1, bytes.len() / 2] {
        fs::write(&path, &bytes[..keep]).unwrap();
        assert_eq!(state_of(&place, id), RecordingState::Truncated);
        assert!(!samples(&place, id).is_empty(), "what is left plays");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(state_of(&place, id), RecordingState::Missing);
}

#[test]
fn a_changed_recording_is_damaged_from_there_on() {
    let place = Place::new();
    let id = finished(&place, 250);
    let path = sealed_file(&place, id);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(state_of(&place, id), RecordingState::Damaged);
}

#[test]
fn one_recording_cannot_stand_in_for_another() {
    let place = Place::new();
    let vault = place.open();
    let (one, two) = (record(&vault.handle(), 1, 60), record(&vault.handle(), 2, 60));
    vault.close();
    fs::copy(sealed_file(&place, one), sealed_file(&place, two)).unwrap();
    let reader = wait(Reader::open(&place.config())).unwrap();
    assert!(matches!(wait(reader.recording(two)), Err(ReadError::Unseal(_))));
    assert!(wait(reader.recording(one)).is_ok());
}

/// Turns a complete recording back into one that a crash left open with `noted` chunks.
fn reopen(place: &Place, id: RecordingId, bytes: &[u8], noted: i64) {
    use sqlx::Connection;
    let _ = fs::remove_file(sealed_file(place, id));
    fs::write(part_file(place, id), bytes).unwrap();
    let url = format!("sqlite://{}", crate::database_path(&place.config().data).display());
    wait(async {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        sqlx::query("UPDATE recording SET state = 'open', chunks = ?")
            .bind(noted)
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_restart_closes_what_a_crash_left_and_says_when_more_is_missing() {
    let place = Place::new();
    let id = finished(&place, 250);
    let bytes = fs::read(sealed_file(&place, id)).unwrap();
    // 250 frames are 25 pages and the end. Torn in the last chunk: unfinished.
    let torn = &bytes[..bytes.len() - 20];
    for (content, noted, expected) in [
        (torn, 20, RecordingState::Unfinished),
        (&torn[..torn.len() / 2], 20, RecordingState::Truncated),
        (&bytes[..], 10, RecordingState::Complete),
        (&bytes[..30], 0, RecordingState::Missing),
        (&bytes[..30], 10, RecordingState::Damaged),
    ] {
        reopen(&place, id, content, noted);
        place.open().close();
        let reader = wait(Reader::open(&place.config())).unwrap();
        let row = wait(reader.call(call_id(1))).unwrap().recordings[0].clone();
        assert_eq!(row.state, expected);
        assert!(!part_file(&place, id).exists());
        if expected == RecordingState::Unfinished {
            assert_eq!(state_of(&place, id), RecordingState::Unfinished);
            // Closing cut the torn chunk off and added the closing one.
            assert_eq!(row.chunks, 25);
            assert_eq!(row.duration.as_millis() / 100, 49);
        }
        let _ = fs::remove_file(sealed_file(&place, id));
    }
}

#[test]
fn a_recording_in_progress_can_be_heard() {
    let place = Place::new();
    let vault = place.open();
    let handle = vault.handle();
    let recording = handle.record(call_id(1)).unwrap();
    let id = recording.id();
    for frame in 0..200 {
        recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0)).unwrap();
    }
    let reader = wait(Reader::open(&place.config()));
    let reader = reader.unwrap();
    let heard = until(|| {
        let audio = wait(reader.recording(id)).ok()?;
        (audio.state == RecordingState::Open && audio.ogg.len() > 2_000).then_some(audio)
    });
    assert!(heard.ogg.starts_with(b"OggS"));
    recording.finish();
    vault.close();
    assert_eq!(state_of(&place, id), RecordingState::Complete);
}

#[test]
fn a_disk_that_takes_no_recording_is_unhealthy_until_it_does() {
    let place = Place::new();
    let (vault, events) = place.open_telling();
    let handle = vault.handle();
    let folder = place.config().data.join("recordings");
    fs::remove_dir(&folder).unwrap();
    let recording = handle.record(call_id(1)).unwrap();
    assert_eq!(events.recv().unwrap(), Event::VaultFailed { what: "recording" });
    assert!(recording.has_failed());
    assert!(recording.push(Channel::Caller, 0, &[1; 320]).is_err());
    assert!(handle.record(call_id(2)).is_err());
    fs::create_dir(&folder).unwrap();
    until(|| handle.record(call_id(3)).ok());
    vault.close();
}
