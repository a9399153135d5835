//! The agent's echo: what must not stop it, and a caller who talks over it, who must.

use audio::{Codec, SampleRate, level, mix};
use base::{Random, SeededRandom};
use media::{BargeIn, FRAME_SAMPLES};

use super::corpus::{self, PROSE};
use super::sounds::scaled;
use super::{Ear, carried};

/// Where an echo comes from.
#[derive(Clone, Copy, Debug)]
struct Place {
    codec: Codec,
    delay_ms: usize,
    /// In dB.
    gain: f32,
    room: Room,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    /// A hybrid of a telephone network: a copy.
    Line,
    /// A small room: 60 dB of decay in 250 ms.
    Small,
    /// The same with a loudspeaker that clips.
    Clipping,
    /// A copy whose delay grows by 60 ms in the middle.
    Late,
    /// One whose delay shrinks by 60 ms.
    Soon,
}

/// What comes back of `said`, at 16 kHz, as the far end's codec is given it.
fn returned(said: &[i16], place: Place) -> Vec<i16> {
    let heard = carried(place.codec, &at_rate(said, place.codec));
    let delayed =
        |samples: &[i16], millis: usize| [&vec![0; (millis + 20) * 16][..], samples].concat();
    let mut echo = match place.room {
        Room::Line => delayed(&heard, place.delay_ms),
        Room::Small => delayed(&in_room(&heard), place.delay_ms),
        Room::Clipping => {
            let most = i32::from(audio::level::peak(&heard)) * 7 / 10;
            let clip = |it: &i16| i32::from(*it).clamp(-most, most) as i16;
            let clipped: Vec<i16> = heard.iter().map(clip).collect();
            delayed(&in_room(&clipped), place.delay_ms)
        }
        Room::Late | Room::Soon => {
            let (first, second) = heard.split_at(heard.len() / 2 / 320 * 320);
            let mut echo = delayed(first, place.delay_ms);
            if place.room == Room::Late {
                echo.extend([0; 60 * 16]);
            } else {
                echo.truncate(echo.len() - 60 * 16);
            }
            echo.extend_from_slice(second);
            echo
        }
    };
    let loudness = super::sounds::rms(&heard) / super::sounds::rms(&echo).max(1.0);
    echo = scaled(&echo, level::from_db(place.gain) * loudness);
    echo.truncate(said.len());
    echo
}

/// The response of a small room: noise that decays by 60 dB in 250 ms, behind a direct sound.
fn in_room(dry: &[i16]) -> Vec<i16> {
    let mut random = SeededRandom::new(21);
    // Sparse taps are as good as dense ones to the ear of a detector.
    let taps: Vec<(usize, f32)> = std::iter::once((0, 1.0))
        .chain((1..300).map(|index| {
            let at = index * 12 + random.below(12) as usize;
            let decay = level::from_db(-60.0 * at as f32 / 4000.0);
            (at, 0.35 * decay * (random.below(2000) as f32 / 1000.0 - 1.0))
        }))
        .collect();
    let mut wet = vec![0.0f32; dry.len()];
    for (at, gain) in taps {
        for (slot, sample) in wet[at..].iter_mut().zip(dry) {
            *slot += gain * f32::from(*sample);
        }
    }
    wet.iter().map(|it| *it as i16).collect()
}

fn at_rate(pcm: &[i16], codec: Codec) -> Vec<i16> {
    if matches!(codec, Codec::Pcmu | Codec::Pcma) {
        corpus::resample(pcm, SampleRate::Hz16000, SampleRate::Hz8000)
    } else {
        pcm.to_vec()
    }
}

/// Ends of the frames in which an agent that says `said` was stopped by `caller`, in milliseconds.
fn stops(said: &[i16], caller: &[i16], codec: Codec) -> (Vec<i64>, usize) {
    let heard = carried(codec, &at_rate(caller, codec));
    let mut ear = Ear::new();
    let (mut stops, mut started) = (Vec::new(), 0);
    let frames = heard.as_chunks::<FRAME_SAMPLES>().0.iter().zip(said.as_chunks().0);
    for (index, (heard, said)) in frames.enumerate() {
        let position = (index * FRAME_SAMPLES) as u64;
        let outcome = ear.heard(heard, position, Some(BargeIn::default()), &mut |event| {
            started += usize::from(matches!(event, media::MediaEvent::SpeechStarted { .. }));
        });
        if outcome.barge_in {
            ear.acted();
            stops.push((index as i64 + 1) * 20);
        }
        ear.said(said);
    }
    (stops, started)
}

/// The agent at -20 dBFS: three sentences, with a second of silence before.
fn agent(voice: &str) -> Vec<i16> {
    let voice = corpus::flite(voice, PROSE);
    let gain = level::from_db(-20.0 - super::onset::active_dbfs(&voice, SampleRate::Hz16000));
    [vec![0; 16_000], scaled(&voice, gain)].concat()
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let rooms = [Room::Line, Room::Small, Room::Clipping, Room::Late, Room::Soon];
    for room in rooms {
        for codec in Codec::ALL {
            for delay_ms in [0, 40, 130, 235, 400] {
                for gain in [-6.0, -12.0, -20.0, -30.0] {
                    if room != Room::Soon || delay_ms >= 60 {
                        places.push(Place { codec, delay_ms, gain, room });
                    }
                }
            }
        }
    }
    places
}

#[test]
fn echoes() {
    let all = std::env::var_os("CALLGATE_MEASURE").is_some();
    let said = agent("slt");
    let (mut total, mut wrong, mut starts) = (0, 0, 0);
    for (_, place) in places().into_iter().enumerate().filter(|it| all || it.0 % 7 == 0) {
        let (stops, started) = stops(&said, &returned(&said, place), place.codec);
        total += 1;
        starts += started;
        wrong += usize::from(!stops.is_empty());
        if !stops.is_empty() {
            println!("{place:?} stops at {stops:?}, {started} starts");
        }
    }
    println!("{wrong} of {total} echoes stop the agent, {starts} starts of speech");
}

#[test]
fn talking_over_an_echo() {
    let all = std::env::var_os("CALLGATE_MEASURE").is_some();
    let said = agent("slt");
    let callers = corpus::recordings(if all { 6 } else { 12 });
    let mut latencies = Vec::new();
    for (index, place) in places().into_iter().enumerate().filter(|it| all || it.0 % 7 == 0) {
        let echo = returned(&said, place);
        let caller = &callers[index % callers.len()];
        let rate = SampleRate::Hz16000;
        let voice = caller.at(rate);
        let gain = level::from_db(-22.0 - super::onset::active_dbfs(voice, rate));
        let onset = super::onset::onset_ms(voice, rate, 30.0);
        let begin = 4000 + index * 37 % 3000;
        let mut line = echo.clone();
        let voice = scaled(voice, gain);
        let at = begin * 16;
        let count = voice.len().min(line.len() - at);
        mix::add(&mut line[at..at + count], &voice[..count]);
        let (stops, _) = stops(&said, &line, place.codec);
        let onset = (begin + onset) as i64;
        let latency = stops.iter().find(|it| **it >= onset).map_or(9999, |it| it - onset);
        latencies.push((latency, place, caller.name.clone()));
    }
    latencies.sort_by_key(|it| it.0);
    for gain in [-6.0, -12.0, -20.0, -30.0] {
        let own: Vec<i64> =
            latencies.iter().filter(|it| it.1.gain == gain).map(|it| it.0).collect();
        let at = |share: usize| own[(own.len() * share).div_ceil(100).max(1) - 1];
        println!("{gain} dB: n {} p50 {} p90 {} p99 {}", own.len(), at(50), at(90), at(99));
    }
    for (latency, place, name) in latencies.iter().rev().take(12) {
        println!("{latency} {name} {place:?}");
    }
}

#[test]
fn zz_no_echo() {
    let said = agent("slt");
    for caller in corpus::recordings(12) {
        let rate = SampleRate::Hz16000;
        let voice = caller.at(rate);
        let gain = level::from_db(-22.0 - super::onset::active_dbfs(voice, rate));
        let mut line = vec![0; 64_000];
        let voice = scaled(voice, gain);
        let count = voice.len().min(line.len() - 48_000);
        mix::add(&mut line[48_000..48_000 + count], &voice[..count]);
        println!("== {}", caller.name);
        stops(&said[..64_000], &line, Codec::Pcmu);
    }
}
