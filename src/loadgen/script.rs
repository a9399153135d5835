//! What one caller does, step by step.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One step; the next begins when it is over.
#[derive(Clone, PartialEq)]
pub enum Step {
    /// Do nothing for this long.
    Wait(Duration),
    /// Say this: 16 kHz mono PCM.
    Play(Arc<[i16]>),
    /// From now on say this over and over, 16 kHz mono PCM, wherever nothing else is said. Over
    /// at once; an empty slice ends it.
    Loop(Arc<[i16]>),
    /// Press these keys, `0`-`9`, `*`, `#`, `A`-`D`, one after the other (RFC 4733).
    Digits(String),
    /// Wait until the far end has been silent for `silence`, whether it ever spoke or not.
    WaitForSilence {
        /// How long the silence must be.
        silence: Duration,
        /// When to go on all the same; counted in [`crate::CallReport::waits_timed_out`].
        at_most: Duration,
    },
    /// Wait until the far end begins to speak, or go on at once while it speaks.
    WaitForSpeech {
        /// When to go on all the same.
        at_most: Duration,
    },
    /// Wait until the far end has said something during this step, or was speaking when it began,
    /// and has then been silent for `silence`: its turn is over.
    WaitForSpeechEnd {
        /// How long the silence must be.
        silence: Duration,
        /// When to go on all the same.
        at_most: Duration,
    },
    /// Put the far end on hold: a re-INVITE with `sendonly` (RFC 3264 section 8.4).
    Hold,
    /// Take it back: a re-INVITE with `sendrecv`.
    Resume,
    /// Hang up.
    Hangup,
}

impl fmt::Debug for Step {
    /// Leaves out what is said and pressed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |pcm: &[i16]| pcm.len() / 16;
        match self {
            Self::Wait(time) => write!(f, "Wait({time:?})"),
            Self::Play(pcm) => write!(f, "Play({} ms)", ms(pcm)),
            Self::Loop(pcm) => write!(f, "Loop({} ms)", ms(pcm)),
            Self::Digits(digits) => write!(f, "Digits({})", digits.chars().count()),
            Self::WaitForSilence { silence, .. } => write!(f, "WaitForSilence({silence:?})"),
            Self::WaitForSpeech { .. } => f.write_str("WaitForSpeech"),
            Self::WaitForSpeechEnd { silence, .. } => write!(f, "WaitForSpeechEnd({silence:?})"),
            Self::Hold => f.write_str("Hold"),
            Self::Resume => f.write_str("Resume"),
            Self::Hangup => f.write_str("Hangup"),
        }
    }
}

/// What one caller does after the answer. When it is over without [`Step::Hangup`], the caller
/// stays silent (or goes on with its loop) until [`crate::Config::hold`] is over or the far end
/// hangs up.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A pause after which a sentence counts as finished: longer than those inside sentences, shorter
/// than what callers find rude.
const SENTENCE_PAUSE: Duration = Duration::from_millis(700);
/// How long a caller waits for the far end to say something.
const PATIENCE: Duration = Duration::from_secs(15);

impl Script {
    /// A caller that only listens.
    #[must_use]
    pub const fn silence() -> Self {
        Self { steps: Vec::new() }
    }

    /// A caller that sends a sine of `hz` (a whole number, below 8000) at about -13 dBm0.
    #[must_use]
    pub fn tone(hz: u16) -> Self {
        let tone =
            audio::Tone { hz: [f32::from(hz), 0.0], on_ms: 0, repeats: None, ..audio::Tone::BEEP };
        // One second holds whole periods, so that the loop has no seam.
        let mut pcm = vec![0; RATE];
        let tone = audio::Tone { on_ms: u32::MAX, ..tone };
        let mut generator = audio::ToneGenerator::new(&tone, audio::SampleRate::Hz16000);
        // The first second has the soft edge; the second is the one to repeat.
        generator.fill(&mut pcm);
        generator.fill(&mut pcm);
        Self { steps: vec![Step::Loop(pcm.into())] }
    }

    /// A caller that says this once, from the answer on.
    #[must_use]
    pub fn play(pcm: Arc<[i16]>) -> Self {
        Self { steps: vec![Step::Play(pcm)] }
    }

    /// A caller that holds a conversation: waits each time until the far end has finished its
    /// sentence, then says its next one.
    #[must_use]
    pub fn sentences(sentences: impl IntoIterator<Item = Arc<[i16]>>) -> Self {
        let turn = |pcm| {
            let wait = Step::WaitForSpeechEnd { silence: SENTENCE_PAUSE, at_most: PATIENCE };
            [wait, Step::Play(pcm)]
        };
        Self { steps: sentences.into_iter().flat_map(turn).collect() }
    }

    /// The same with one more step.
    #[must_use]
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    /// Whether any step listens for speech, which costs CPU per call.
    pub(crate) fn listens(&self) -> bool {
        self.steps.iter().any(|step| {
            matches!(
                step,
                Step::WaitForSilence { .. }
                    | Step::WaitForSpeech { .. }
                    | Step::WaitForSpeechEnd { .. }
            )
        })
    }
}

/// Samples per second of everything said and heard here.
pub(crate) const RATE: usize = 16_000;
