//! How soon and how wrongly a caller is heard: the measurement behind DESIGN section 6.
//!
//! Words and sentences of five voices go through a codec, at levels and over noises, into the
//! [`Ear`] of a leg whose agent is speaking. What is measured is the time from the onset to the
//! end of the 20 ms frame in which the agent is stopped; the codec's own delay and the resampler's
//! count, the network's and the jitter buffer's do not.
//!
//! The onset is read off the clean signal at the codec's sampling rate: the start of the first
//! 10 ms whose power is within 30 dB of the loudest 10 ms. Two variants stand beside it: within
//! 40 dB, and the first of those within 30 dB that the noise laid under does not exceed, before
//! which nothing can be heard. Signal to noise is that of the stretches within 25 dB of the
//! loudest.
//!
//! `CALLGATE_MEASURE=1 cargo nextest run -p callgate-relay --no-capture -E 'test(measure)'` runs
//! everything (22 000 onsets, half an hour of other sounds, 368 echoes) and prints tables. Without
//! the variable a share is run. Both fail where a bound is broken.

mod corpus;
mod echo;
mod onset;
mod sounds;

use audio::{Codec, Decoder, Encoder, OpusSettings, Resampler, SampleRate};
use media::{BargeIn, FRAME_SAMPLES, MediaEvent};

use super::Ear;

/// Whether everything is to be measured.
fn measures_all() -> bool {
    std::env::var_os("CALLGATE_MEASURE").is_some()
}

/// Sound as the relay hears it behind a codec: 16 kHz, in frames of 20 ms.
pub(crate) fn carried(codec: Codec, pcm: &[i16]) -> Vec<i16> {
    let rate = codec.sample_rate();
    let rate = if rate == SampleRate::Hz8000 { rate } else { SampleRate::Hz16000 };
    let settings = OpusSettings { sample_rate: rate, ..OpusSettings::default() };
    let mut encoder = Encoder::new(codec, &settings).unwrap();
    let mut decoder = Decoder::new(codec, SampleRate::Hz16000).unwrap();
    let narrow = decoder.sample_rate() != SampleRate::Hz16000;
    let mut resampler = narrow.then(|| Resampler::new(SampleRate::Hz8000, SampleRate::Hz16000));
    let (mut payload, mut decoded) = (vec![0; 1500], vec![0; 5760]);
    let mut out = Vec::with_capacity(pcm.len() * 2);
    for frame in pcm.chunks_exact(rate.samples(20)) {
        let length = encoder.encode(frame, &mut payload).unwrap();
        let count = decoder.decode(&payload[..length], &mut decoded).unwrap();
        match &mut resampler {
            None => out.extend_from_slice(&decoded[..count]),
            Some(resampler) => {
                let mut wide = vec![0; resampler.output_len(count)];
                let count = resampler.process(&decoded[..count], &mut wide).unwrap();
                out.extend_from_slice(&wide[..count]);
            }
        }
    }
    out
}

/// What an ear made of a caller.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Ends of the frames in which the agent was stopped, in milliseconds of the stream.
    pub(crate) stops: Vec<i64>,
    /// Where speech was said to have begun, in milliseconds.
    pub(crate) started: Vec<i64>,
}

/// Lets an ear hear `caller` at 16 kHz while the agent says `agent`, over and over.
pub(crate) fn heard(caller: &[i16], agent: &[i16], only_first: bool) -> Outcome {
    let mut ear = Ear::new();
    let mut outcome = Outcome::default();
    let mut spoken = agent.chunks_exact(FRAME_SAMPLES).cycle();
    for (index, frame) in caller.as_chunks::<FRAME_SAMPLES>().0.iter().enumerate() {
        let position = (index * FRAME_SAMPLES) as u64;
        let heard = ear.heard(frame, position, Some(BargeIn::default()), &mut |event| {
            if let MediaEvent::SpeechStarted { position } = event {
                outcome.started.push(position as i64 / 16);
            }
        });
        if heard.barge_in {
            ear.acted();
            outcome.stops.push((index as i64 + 1) * 20);
            if only_first {
                break;
            }
        }
        ear.said(spoken.next().unwrap().try_into().unwrap());
    }
    outcome
}
