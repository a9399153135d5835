//! What goes into [`crate::Dialogue`] and what comes out.

use std::sync::Arc;
use std::time::Duration;

use base::{Event, Instant, Personal, Reason};

use crate::provider::{Grammar, ProviderEvent, Role, SpeechId, ThoughtId, UtteranceId};
use crate::turn::Turn;

/// What the dialogue is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The call is answered and media flows.
    Started,
    /// A key was pressed.
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// Since when it is down; it may have been pressed before the dialogue began.
        from: Instant,
        /// Until when it was down, as far as known.
        until: Instant,
    },
    /// The caller begins to speak.
    SpeechStarted {
        /// Where.
        position: u64,
    },
    /// The caller has fallen silent.
    SpeechEnded {
        /// Where.
        position: u64,
    },
    /// The first sample of a speech went out.
    PlayoutStarted {
        /// Which.
        speech: SpeechId,
        /// Where.
        position: u64,
    },
    /// The last sample of a speech went out.
    PlayoutFinished {
        /// Which.
        speech: SpeechId,
        /// Where.
        position: u64,
    },
    /// A speech was cut.
    PlayoutStopped {
        /// Which.
        speech: SpeechId,
        /// Samples of it that went out.
        played: u64,
        /// Where.
        position: u64,
        /// Whether the caller's voice cut it (not we ourselves).
        barge_in: bool,
    },
    /// The caller put us on hold, or came back.
    Held(bool),
    /// The new party of an announced transfer has answered.
    TargetReached,
    /// It has heard a speech to its end.
    Announced {
        /// Which.
        speech: SpeechId,
    },
    /// It pressed a key.
    TargetDigit(char),
    /// The transfer came to nothing; the caller is still there.
    TransferFailed(Reason),
    /// How long a sample is on its way to the caller's ear, by RTCP.
    PathDelay(Duration),
    /// A provider answered.
    Provider(ProviderEvent),
    /// A provider would not take what it was asked.
    Refused(Role),
    /// The call is over.
    Ended,
}

/// What the dialogue wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask the speaker for this text.
    Speak {
        /// Under this id.
        speech: SpeechId,
        /// The words.
        text: String,
    },
    /// Hand these samples to the relay.
    Play {
        /// Which speech they belong to.
        speech: SpeechId,
        /// The samples.
        samples: Arc<[i16]>,
        /// Whether they are its last.
        last: bool,
    },
    /// Cut what is playing.
    StopPlayout,
    /// What may be heard from now on.
    Listen(Arc<Grammar>),
    /// Give the transcriber the caller's samples from `position` on.
    BeginUtterance {
        /// Under this id.
        utterance: UtteranceId,
        /// From where.
        position: u64,
    },
    /// The utterance is over; its words are wanted.
    EndUtterance,
    /// The utterance is of no interest any more.
    CancelUtterance,
    /// Ask the reasoner.
    Think {
        /// Under this id.
        thought: ThoughtId,
        /// The question.
        question: Personal<String>,
        /// What to answer from.
        knowledge: Arc<str>,
    },
    /// A turn is finished.
    Turn(Turn),
    /// Carry the caller to somebody else.
    Transfer {
        /// A number or SIP URI.
        to: Personal<String>,
        /// Whether the new party is told first: then [`Input::TargetReached`] follows.
        is_announced: bool,
    },
    /// Hand these samples to the relay for the new party.
    Announce {
        /// Which speech they belong to.
        speech: SpeechId,
        /// The samples.
        samples: Arc<[i16]>,
        /// Whether they are its last.
        last: bool,
    },
    /// Whether the new party takes the caller.
    TransferAnswer(bool),
    /// End the call.
    HangUp(Reason),
    /// Tell the operator.
    Event(Event),
}
