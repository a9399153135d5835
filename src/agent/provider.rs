//! What the voice agent asks of the world, as traits: a *transcriber* hears, a *reasoner* thinks,
//! a *speaker* speaks. The adapters live in `providers`; this module only fixes the contract.
//!
//! Nothing here blocks: a call returns at once and the answer comes through [`ProviderSink`],
//! from whatever thread the adapter owns. An answer may come late or never; the dialogue has
//! its own deadlines.

use std::fmt;
use std::sync::Arc;

use base::{CallId, Personal};

/// Samples per second at which voice agents hear and speak: 16-bit mono at 16 kHz.
pub const RATE: u32 = 16_000;

/// One stretch of the caller's speech, counted from 1 within a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtteranceId(pub u32);

/// One thing that the agent says, counted from 1 within a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpeechId(pub u32);

/// One question to the reasoner, counted from 1 within a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ThoughtId(pub u32);

/// What may be heard in one state of the dialogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grammar {
    /// The phrases; none means that nothing is recognised, only keys count.
    pub phrases: Vec<Phrase>,
}

/// One way of saying something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phrase {
    /// Words in lower case, separated by single spaces; letters and apostrophes only.
    pub words: String,
    /// What they mean to the flow: the key of a choice.
    pub meaning: String,
}

/// What a provider answers.
#[derive(Clone, Debug, PartialEq)]
pub enum ProviderEvent {
    /// What the utterance sounds like so far.
    Partial {
        /// Which utterance.
        utterance: UtteranceId,
        /// The words.
        text: Personal<String>,
    },
    /// What the utterance was.
    Heard {
        /// Which utterance.
        utterance: UtteranceId,
        /// The words.
        text: Personal<String>,
        /// How sure the transcriber is, 0 to 1.
        confidence: f32,
    },
    /// The utterance was speech, but nothing in the grammar.
    NothingHeard {
        /// Which utterance.
        utterance: UtteranceId,
    },
    /// A piece of synthesised speech.
    Speech {
        /// What it is a piece of.
        speech: SpeechId,
        /// Samples at [`RATE`]; may be empty on the last piece.
        samples: Arc<[i16]>,
        /// Whether it is the last piece.
        last: bool,
    },
    /// The reasoner's answer.
    Thought {
        /// Which question.
        thought: ThoughtId,
        /// What to say; `None` where it knows no answer.
        answer: Option<String>,
    },
    /// A provider failed; what it had been asked will not be answered.
    Failed {
        /// Which of the three.
        role: Role,
    },
}

/// Which provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Hears.
    Transcriber,
    /// Thinks.
    Reasoner,
    /// Speaks.
    Speaker,
}

impl Role {
    /// The role as a word for events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Transcriber => "transcriber",
            Self::Reasoner => "reasoner",
            Self::Speaker => "speaker",
        }
    }
}

/// Where answers go. Must not block: a full queue drops the event and counts it.
pub trait ProviderSink: Send + Sync {
    /// Takes one answer for `call`.
    fn deliver(&self, call: CallId, event: ProviderEvent);
}

/// A provider cannot take the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderError {
    /// It is at its limit of concurrent work.
    Busy,
    /// It is not running (not installed, or being restarted).
    Unavailable,
    /// The request is outside what it takes (an unknown voice, a text too long).
    Unsupported,
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Busy => "the provider is at its limit of concurrent work",
            Self::Unavailable => "the provider is not running",
            Self::Unsupported => "the provider does not take this request",
        })
    }
}

impl std::error::Error for ProviderError {}

/// Hears: turns speech into words.
pub trait Transcriber: Send + Sync {
    /// Starts listening to one call.
    ///
    /// # Errors
    /// Where the provider takes no more calls or is not running.
    fn open(
        &self,
        call: CallId,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<Box<dyn Listening>, ProviderError>;
}

/// A transcriber's ear on one call. Dropping it ends the work without an answer.
pub trait Listening: Send {
    /// What may be heard from the next utterance on.
    fn grammar(&mut self, grammar: Arc<Grammar>);
    /// An utterance begins.
    fn begin(&mut self, utterance: UtteranceId);
    /// The next samples of the utterance, at [`RATE`]. `narrowband` says that the audio came
    /// through a codec that carries nothing above 4 kHz, so that the adapter can match its
    /// model to it.
    fn audio(&mut self, samples: &[i16], narrowband: bool);
    /// The utterance is over; exactly one `Heard`, `NothingHeard` or `Failed` follows.
    fn end(&mut self);
}

/// Speaks: turns text into samples.
pub trait Speaker: Send + Sync {
    /// Asks for `text` in `voice` (empty: the default); pieces follow in order.
    ///
    /// # Errors
    /// Where the provider takes no more work, is not running or does not know the voice.
    fn speak(
        &self,
        call: CallId,
        speech: SpeechId,
        text: &str,
        voice: &str,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<(), ProviderError>;
}

/// Thinks: answers from knowledge.
pub trait Reasoner: Send + Sync {
    /// Asks `question` of `knowledge`; one `Thought` or `Failed` follows.
    ///
    /// # Errors
    /// Where the provider takes no more work or is not running.
    fn think(
        &self,
        call: CallId,
        thought: ThoughtId,
        question: &Personal<String>,
        knowledge: &str,
        sink: Arc<dyn ProviderSink>,
    ) -> Result<(), ProviderError>;
}
