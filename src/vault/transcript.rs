//! The transcript: one turn after the other, each kept as soon as it is finished.

use std::borrow::Cow;
use std::time::Duration;

use base::Personal;
use serde::{Deserialize, Serialize};

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The caller.
    Caller,
    /// The voice agent.
    Agent,
}

impl Role {
    /// The word that people see.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Agent => "agent",
        }
    }
}

/// One stretch of what one side said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Its place, counted from 0 per call.
    pub index: u32,
    /// Who spoke.
    pub role: Role,
    /// What was said, as far as it was heard.
    pub text: Personal<String>,
    /// When it began, in milliseconds after the answer.
    pub start_ms: u64,
    /// When it ended, in milliseconds after the answer.
    pub end_ms: u64,
    /// Whether the other side cut it short.
    pub interrupted: bool,
    /// From the end of the caller's speech to the first audio of this turn, where it is an answer.
    pub latency: Option<Duration>,
}

/// The sealed form of [`Turn`]; its index is its place.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredTurn<'a> {
    role: Role,
    #[serde(borrow)]
    text: Cow<'a, str>,
    start_ms: u64,
    end_ms: u64,
    interrupted: bool,
    latency_us: Option<u64>,
}

impl<'a> From<&'a Turn> for StoredTurn<'a> {
    fn from(turn: &'a Turn) -> Self {
        Self {
            role: turn.role,
            text: turn.text.expose().as_str().into(),
            start_ms: turn.start_ms,
            end_ms: turn.end_ms,
            interrupted: turn.interrupted,
            latency_us: turn
                .latency
                .map(|latency| u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)),
        }
    }
}

impl StoredTurn<'_> {
    /// The turn at place `index`.
    pub(crate) fn into_turn(self, index: u32) -> Turn {
        Turn {
            index,
            role: self.role,
            text: Personal::new(self.text.into_owned()),
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            interrupted: self.interrupted,
            latency: self.latency_us.map(Duration::from_micros),
        }
    }
}
