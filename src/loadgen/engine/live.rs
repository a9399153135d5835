//! A caller with a script within a media thread: what it says is encoded as it says it, and what
//! it hears is decoded, so that it costs far more CPU than one that only says a [`super::clip`].

use std::time::Duration;

use audio::{Codec, Encoder, OpusSettings, Resampler, SampleRate};
use base::Instant;
use base::limit::RTP_PACKET_BYTES;
use rtp::Packet;
use sdp::NegotiatedCodec;
use tokio::sync::mpsc;

use super::ear::Ear;
use super::session::Outcome;
use crate::scenario::Talk;
use crate::talk::{Act, FRAME, Talker};

/// Samples of one frame at the highest rate.
const SAMPLES_MAX: usize = 960;
/// Frames heard after a pause in which nothing was sent; a machine that slept hears no more.
const LISTEN_MAX: u32 = 500;

/// See the module.
pub(crate) struct Live {
    talker: Talker,
    ear: Ear,
    encoder: Option<(Codec, Encoder, Resampler)>,
    payload: Vec<u8>,
    /// What the script asks of the call's task.
    acts: mpsc::Sender<Act>,
}

impl Live {
    /// At the first step of the script of call `index`.
    pub(crate) fn new(talk: &Talk, index: u32, acts: mpsc::Sender<Act>) -> Self {
        Self {
            talker: Talker::new(talk.script.clone()),
            ear: Ear::new(talk.script.listens(), talk.save_path(index)),
            encoder: None,
            payload: Vec::new(),
            acts,
        }
    }

    /// Goes on with these codecs, saying everything in the first.
    pub(super) fn flow(&mut self, codecs: &[NegotiatedCodec], codec: Codec) -> Option<()> {
        if self.encoder.as_ref().is_none_or(|(known, ..)| *known != codec) {
            let encoder = Encoder::new(codec, &OpusSettings::default()).ok()?;
            let resampler = Resampler::new(SampleRate::Hz16000, encoder.sample_rate());
            self.encoder = Some((codec, encoder, resampler));
        }
        self.ear.flow(codecs);
        Some(())
    }

    /// Hears 20 ms, goes on with the script for 20 ms, and has what it says in
    /// [`Live::payload`]; the keys to press, where some are.
    pub(super) fn tick(&mut self, now: Instant, is_pressing: bool) -> Option<String> {
        self.ear.listen(now);
        let mut frame = [0; FRAME];
        let act = self.talker.tick(now, self.ear.heard(), is_pressing, &mut frame);
        // The encoder hears everything, so that audio goes on without a click.
        if self.encode(&frame).is_none() {
            self.payload.clear();
        }
        match act {
            Some(Act::Digits(digits)) => return Some(digits),
            // A script has no more steps than the queue has places; the task may be gone.
            Some(act) => drop(self.acts.try_send(act)),
            None => {}
        }
        None
    }

    fn encode(&mut self, frame: &[i16; FRAME]) -> Option<()> {
        let (_, encoder, resampler) = self.encoder.as_mut()?;
        let mut samples = [0; SAMPLES_MAX];
        let count = resampler.process(frame, &mut samples).ok()?;
        self.payload.resize(RTP_PACKET_BYTES.get(), 0);
        let length = encoder.encode(&samples[..count], &mut self.payload).ok()?;
        self.payload.truncate(length);
        Some(())
    }

    /// What is said in this tick.
    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Lets ticks pass without a packet, the first of them at `from`, each `every` after the one
    /// before. What is heard keeps its time.
    pub(super) fn skip(&mut self, from: Instant, every: Duration, ticks: u32) {
        for tick in 0..ticks.min(LISTEN_MAX) {
            self.ear.listen(from + every.saturating_mul(tick));
        }
    }

    /// A new stream of the far end begins, at this rate of its clock.
    pub(super) fn start_stream(&mut self, clock_rate: u32) {
        self.ear.start_stream(clock_rate);
    }

    /// Takes a packet of the stream.
    pub(super) fn push(&mut self, now: Instant, packet: &Packet<'_>) {
        self.ear.push(now, packet);
    }

    /// The call is over: notes what was said and heard.
    pub(super) fn finish(self, outcome: &mut Outcome) {
        outcome.steps_begun = self.talker.steps_begun();
        outcome.waits_timed_out = self.talker.waits_timed_out();
        self.ear.finish(outcome);
    }
}
