//! The agent's echo: what must not stop it, and a caller who talks over it, who must.

use audio::{Codec, SampleRate, level, mix};
use base::{Random, SeededRandom};
use media::{BargeIn, FRAME_SAMPLES};

use super::corpus::{self, PROSE, VOICES};
use super::onset::{active_dbfs, onset_ms};
use super::sounds::scaled;
use super::{Ear, carried, measures_all};

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
    let gain = level::from_db(-20.0 - active_dbfs(&voice, SampleRate::Hz16000));
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

/// A share of the places where not all are measured.
fn some_places() -> impl Iterator<Item = (usize, Place)> {
    places().into_iter().enumerate().filter(|it| measures_all() || it.0 % 17 == 0)
}

/// The agent, for as long as is measured.
fn said(voice: &str) -> Vec<i16> {
    let mut said = agent(voice);
    said.truncate(if measures_all() { said.len() } else { 8 * 16_000 });
    said
}

#[test]
fn an_echo_does_not_stop_the_agent() {
    let voices = VOICES.map(said);
    let (mut total, mut wrong) = (0, Vec::new());
    for (index, place) in some_places() {
        let said = &voices[index % voices.len()];
        let (stops, started) = stops(said, &returned(said, place), place.codec);
        total += 1;
        if !stops.is_empty() {
            println!("{place:?}: {stops:?}, {started} starts of speech");
            wrong.push(place);
        }
    }
    println!("{} of {total} echoes stop the agent", wrong.len());
    // Only where the delay shrinks at once: see `echo`.
    assert!(wrong.iter().all(|it| it.room == Room::Soon), "{wrong:?}");
    assert!(wrong.len() * 50 <= total, "{wrong:?} of {total}");
}

#[test]
fn a_caller_who_talks_over_an_echo_stops_the_agent_within_300_ms() {
    let said = said("slt");
    let callers = corpus::recordings(6);
    let mut latencies: Vec<(i64, Place, &str)> = Vec::new();
    for (index, place) in some_places() {
        let caller = &callers[index % callers.len()];
        let voice = caller.at(SampleRate::Hz16000);
        let gain = level::from_db(-22.0 - active_dbfs(voice, SampleRate::Hz16000));
        let begin = 4000 + index * 37 % 3000;
        let mut line = returned(&said, place);
        let count = voice.len().min(line.len() - begin * 16);
        mix::add(&mut line[begin * 16..][..count], &scaled(&voice[..count], gain));
        let (stops, _) = stops(&said, &line, place.codec);
        let onset = (begin + onset_ms(voice, SampleRate::Hz16000, 30.0)) as i64;
        let latency = stops.iter().find(|it| **it >= onset).map_or(9999, |it| it - onset);
        latencies.push((latency, place, &caller.name));
    }
    latencies.sort_by_key(|it| it.0);
    for (latency, place, name) in latencies.iter().rev().take(30) {
        println!("{latency} {name} {place:?}");
    }
    for (gain, most_late) in [(-6.0, 20), (-12.0, 4), (-20.0, 4), (-30.0, 6)] {
        let own: Vec<i64> =
            latencies.iter().filter(|it| it.1.gain == gain).map(|it| it.0).collect();
        let at = |share: usize| own[(own.len() * share).div_ceil(100).max(1) - 1];
        let late = own.iter().filter(|it| **it > 300).count();
        println!(
            "{gain} dB: n {} p50 {} p90 {} p99 {} over 300 ms {late}",
            own.len(),
            at(50),
            at(90),
            at(99)
        );
        assert!(at(50) <= 150, "{gain} dB: median {}", at(50));
        assert!(late <= (own.len() * most_late).div_ceil(100), "{gain} dB: {late} late");
    }
}
