//! Stories of recordings that the ear makes of two legs that talk with each other.

use audio::{Codec, Encoder, OpusSettings};
use base::{CallId, Clock, Random};
use media::{TAP_PAYLOAD_BYTES, TapKind, TapPacket};
use relay::listen::Listener;
use vault::{Reader, Vault};

use super::*;
use crate::clock::{OsClock, OsRandom};

/// A second of a tone as a peer sends it, from `began` on.
fn second_of(hz: f64, began: Instant) -> Listener {
    let (mut ring, packets) = rtrb::RingBuffer::new(64);
    let mut law = Encoder::new(Codec::Pcma, &OpusSettings::default()).unwrap();
    for n in 0..50_u16 {
        let sample = |at: usize| {
            let at = (usize::from(n) * 160 + at) as f64;
            ((at * hz * std::f64::consts::TAU / 8_000.0).sin() * 8_000.0) as i16
        };
        let sound: Vec<i16> = (0..160).map(sample).collect();
        let mut bytes = [0; TAP_PAYLOAD_BYTES];
        let length = law.encode(&sound, &mut bytes).unwrap();
        let packet = TapPacket {
            at: began + Duration::from_millis(20) * u32::from(n),
            ssrc: 7,
            sequence: n,
            timestamp: u32::from(n) * 160,
            marker: n == 0,
            kind: TapKind::Sound(Codec::Pcma),
            length: length as u16,
            bytes,
        };
        ring.push(packet).unwrap();
    }
    Listener::new(packets, began)
}

/// What is recorded of a call, as WAV.
fn recorded(record: impl FnOnce(vault::RecordingWriter)) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::test_vault::config(folder.path());
    let vault = Vault::open(config.clone(), OsClock, Box::new(|_| {})).unwrap();
    let mut id = [0; 12];
    OsRandom.fill(&mut id);
    let recording = vault.handle().record(CallId::from_bytes(id)).unwrap();
    let recording_id = recording.id();
    record(recording);
    vault.close();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut wav = Vec::new();
    runtime.block_on(async {
        let reader = Reader::open(&config).await.unwrap();
        reader.recording_wav(recording_id, &mut wav).await.unwrap();
    });
    wav
}

#[test]
fn two_legs_are_recorded_each_voice_on_its_side() {
    // A second ago both began to speak; the ear looks only now.
    let began = OsClock.now();
    let voices = [400.0, 1_000.0].map(|hz| second_of(hz, began));
    let wav = recorded(|recording| {
        let mut tape = Tape { voices, recording };
        tape.hear(began + Duration::from_millis(1_200));
        tape.recording.finish();
    });
    let sample = |bytes: &[u8]| f64::from(i16::from_le_bytes([bytes[0], bytes[1]]));
    let frames = || wav[44..].chunks_exact(4).skip(4_800).take(8_000);
    let power = |side: usize, hz: f64| {
        let (mut re, mut im) = (0.0, 0.0);
        for (at, frame) in frames().enumerate() {
            let (sin, cos) = (at as f64 * hz * std::f64::consts::TAU / 16_000.0).sin_cos();
            re += sample(&frame[2 * side..]) * cos;
            im += sample(&frame[2 * side..]) * sin;
        }
        f64::hypot(re, im) / 8_000.0
    };
    assert!(power(0, 400.0) > 1_000.0 && power(1, 1_000.0) > 1_000.0);
    assert!(power(0, 1_000.0) < 50.0 && power(1, 400.0) < 50.0, "neither leaks into the other");
}

#[test]
fn a_voice_agent_that_comes_into_a_call_is_recorded_from_its_first_frame_on() {
    let (mut ring, frames) = rtrb::RingBuffer::new(64);
    let began = 60 * 16_000;
    for n in 0..50 {
        let position = began + n * FRAME_SAMPLES as u64;
        let mut samples = [0; FRAME_SAMPLES];
        for (at, sample) in samples.iter_mut().enumerate() {
            *sample = if at % 32 < 16 { 6_000 } else { -6_000 };
        }
        let (channel, speech) = (Channel::Caller, true);
        ring.push(TapFrame { channel, position, speech, narrowband: true, samples }).unwrap();
    }
    let wav = recorded(|recording| {
        let opened = Opened { frames, listening: None, recording: Some(recording) };
        let kept = VecDeque::new();
        super::Listener { opened, kept, hearing: None, origin: None }.close();
    });
    let sound: Vec<_> = wav[44..].chunks_exact(4).collect();
    assert!(sound.len() < 2 * 16_000, "{} samples", sound.len());
    let loud = |frame: &&&[u8]| i16::from_le_bytes([frame[0], frame[1]]).unsigned_abs() > 2_000;
    assert!(sound[..16_000].iter().filter(loud).count() > 12_000);
}
