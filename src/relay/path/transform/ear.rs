//! Whether the caller speaks: the voice detector, less the agent's own echo, and the decision
//! to stop the agent for it.
//!
//! The decision falls at the end of a frame of 20 ms, on evidence of the frames before it
//! ([`audio::Voice::certainty`]). `measure` says how soon and how wrongly: with the agent speaking
//! and no echo, 98 of 100 onsets within 200 ms of the first 10 ms within 30 dB of the loudest, at
//! 20 dB of signal to noise and more (99 without noise, half of all within 80 ms); into the agent's
//! first word, 91 of 100. What the jitter buffer holds comes on top.

use audio::{SampleRate, Threshold, Voice, VoiceDetector};
use media::{BargeIn, FRAME_SAMPLES, MediaEvent};

use super::echo::EchoGuard;

const FRAME_MS: u32 = 20;

/// Own voice, in milliseconds, before speech that may be an echo counts as the caller's.
const OWN_MS: u32 = 60;

/// See the module.
pub(crate) struct Ear {
    detector: VoiceDetector,
    echo: EchoGuard,
    threshold: Threshold,
    /// Position of the detector's first sample: frames that were skipped shift it.
    origin: u64,
    /// Samples that the detector has heard.
    heard: u64,
    /// Whether the caller's speech was announced and has not ended.
    speaking: bool,
    /// Milliseconds of voice that is no echo, leaking while there is none.
    own_ms: u32,
    /// Where the present stretch of own voice began.
    own_since: u64,
    /// Milliseconds for which speech that stopped the agent still counts as speech, whatever the
    /// detector says of it.
    held_ms: u32,
    /// Frames in a row that were certain enough to stop the agent.
    certain: u32,
}

/// What a frame told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    /// The caller speaks.
    pub(crate) speech: bool,
    /// It is as certain as the plan asks that the caller has begun to speak.
    pub(crate) barge_in: bool,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let threshold = Threshold::default();
        Self {
            detector: VoiceDetector::new(SampleRate::Hz16000, threshold),
            echo: EchoGuard::new(),
            threshold,
            origin: 0,
            heard: 0,
            speaking: false,
            own_ms: 0,
            own_since: 0,
            held_ms: 0,
            certain: 0,
        }
    }

    /// Takes what the agent says in this frame.
    pub(crate) fn said(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        self.echo.said(frame);
    }

    /// Takes 20 ms of the caller at `position`.
    pub(crate) fn heard(
        &mut self,
        frame: &[i16; FRAME_SAMPLES],
        position: u64,
        barge_in: Option<BargeIn>,
        event: &mut dyn FnMut(MediaEvent),
    ) -> Heard {
        self.origin = position.saturating_sub(self.heard);
        let voice = self.detector.push(frame);
        self.heard += FRAME_SAMPLES as u64;
        let own = !self.echo.heard(frame);
        let doubtful = self.echo.is_doubtful();
        if !own {
            self.detector.disown();
        }
        let loud = voice.probability >= self.threshold.probability
            && voice.level_dbfs >= self.threshold.level_dbfs;
        if self.own_ms == 0 {
            self.own_since = position;
        }
        self.own_ms = leak(self.own_ms, own && loud, 400);
        let barge_in = self.is_barge_in(voice, own, doubtful, barge_in);

        self.held_ms = self.held_ms.saturating_sub(FRAME_MS);
        let began = if barge_in {
            self.held_ms = self.threshold.hangover_ms;
            let ends = position + FRAME_SAMPLES as u64;
            Some(ends.saturating_sub(u64::from(voice.evidence_ms) * 16))
        } else if doubtful {
            // An onset may be the echo's: the caller's is where voice that is none began.
            (voice.is_speech && self.own_ms >= OWN_MS).then_some(self.own_since)
        } else {
            let started = voice.onset.map(|onset| onset.started_at + self.origin);
            started.or_else(|| (voice.is_speech && self.own_ms > 0).then_some(self.own_since))
        };
        if let Some(position) = began.filter(|_| !self.speaking) {
            self.speaking = true;
            event(MediaEvent::SpeechStarted { position });
        }
        if self.speaking && !voice.is_speech && self.held_ms == 0 {
            self.speaking = false;
            let hangover = u64::from(self.threshold.hangover_ms) * 16;
            let ended = voice.ended_at.map_or(position, |at| at + self.origin);
            event(MediaEvent::SpeechEnded { position: ended.saturating_sub(hangover) });
        }
        Heard { speech: self.speaking, barge_in }
    }

    fn is_barge_in(
        &mut self,
        voice: Voice,
        own: bool,
        doubtful: bool,
        plan: Option<BargeIn>,
    ) -> bool {
        let Some(plan) = plan else {
            // What is said while nothing can be stopped is no evidence for later.
            self.acted();
            return false;
        };
        // Where an echo is possible, what has not been told from one in a first frame may be in the
        // next.
        let frames = if doubtful { 2 } else { 1 };
        let is_certain =
            own && voice.certainty >= plan.threshold && voice.level_dbfs >= plan.floor_dbfs;
        self.certain = if is_certain { self.certain.saturating_add(1) } else { 0 };
        self.certain >= frames
    }

    /// Forgets the evidence that was acted on.
    pub(crate) const fn acted(&mut self) {
        self.detector.start_over();
        self.certain = 0;
    }
}

/// Counts frames of voice; a frame without takes half of one back, so that a stop between two
/// syllables costs little and single clicks never add up.
fn leak(millis: u32, voice: bool, most: u32) -> u32 {
    if voice { (millis + FRAME_MS).min(most) } else { millis.saturating_sub(FRAME_MS / 2) }
}

#[cfg(test)]
#[path = "measure/mod.rs"]
mod measure;
