//! A compiled flow: steps by index, every reference resolved. Made by [`crate::file::compile`].

use std::sync::Arc;
use std::time::Duration;

use base::Personal;

use crate::provider::Grammar;

/// A step of a [`Flow`], an index into [`Flow::steps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepId(pub u16);

/// A voice agent's behaviour.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// What its author says of it, for who chooses an agent.
    pub description: String,
    /// The speaker's voice; empty for its default.
    pub voice: String,
    /// Whether calls may be recorded, as far as the agent is concerned.
    pub recording: bool,
    /// Whether a transcript is kept, as far as the agent is concerned.
    pub transcript: bool,
    /// Whether the caller's voice stops the agent's.
    pub barge_in: bool,
    /// Silence after a question before it is put again.
    pub reprompt_after: Duration,
    /// How often a question meets silence before the agent hangs up.
    pub silences: u8,
    /// Silence that ends the caller's turn.
    pub end_of_turn: Duration,
    /// What is said before hanging up on a silent caller; empty for nothing.
    pub silent_goodbye: String,
    /// Where a call begins.
    pub start: StepId,
    /// The steps.
    pub steps: Vec<Step>,
}

impl Flow {
    /// The step of that id.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(usize::from(id.0))
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Its name in the file.
    pub name: String,
    /// What it does.
    pub action: Action,
}

/// What a step does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Says something and goes on.
    Say {
        /// The words.
        text: String,
        /// Where to.
        next: StepId,
    },
    /// Asks and waits for one of the choices, spoken or keyed.
    Ask {
        /// The question.
        text: String,
        /// What may be answered.
        choices: Vec<Choice>,
        /// The same as a grammar; each phrase's meaning is the choice's index.
        grammar: Arc<Grammar>,
        /// Said when the answer was not understood, before listening again.
        misheard: String,
        /// How often.
        tries: u8,
        /// Where to after that.
        give_up: StepId,
    },
    /// Answers what the caller last said (or a fixed question) from a text.
    Answer {
        /// The fixed question; `None` for the caller's words.
        question: Option<String>,
        /// The text.
        knowledge: Arc<str>,
        /// Said where the text has no answer.
        unknown: String,
        /// Where to.
        next: StepId,
    },
    /// Says something and has the caller carried to somebody else.
    Transfer {
        /// The words; may be empty.
        text: String,
        /// To whom: a number or a SIP URI, which the policy's routes are asked for. Personal.
        to: Personal<String>,
        /// What the new party is told before it gets the caller; `None` joins them at once.
        announcement: Option<Announcement>,
        /// Where to when it comes to nothing.
        failed: StepId,
    },
    /// Says something and hangs up.
    Goodbye {
        /// The words; may be empty.
        text: String,
    },
}

/// What is said to the new party of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The words.
    pub text: String,
    /// The key that takes the call; with `None` whoever stays to the end has taken it.
    pub accept: Option<char>,
}

/// One way to go on from a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The key that chooses it.
    pub key: Option<char>,
    /// The phrases that choose it.
    pub phrases: Vec<String>,
    /// Where to.
    pub go: StepId,
}
