//! What the rest of the edge hands over to be kept.

use std::time::Duration;

use base::{CallId, Personal, Reason, TrunkName, VoiceAgentName, WallTime};
use serde::{Deserialize, Serialize};

use crate::audit::AuditEntry;
use crate::transcript::Turn;

/// Something to keep.
#[derive(Clone, Debug)]
pub enum Record {
    /// A call as it stands now: at its start, when something changes, and at its end. The last
    /// one wins.
    Call(Box<CallRecord>),
    /// A finished turn.
    Turn {
        /// The call.
        call: CallId,
        /// The turn; one of the same index replaces it.
        turn: Turn,
    },
    /// Signalling messages of a call that follow each other, secrets removed. They are one row of
    /// the store: few rows of many messages cost a fraction of many rows.
    Ladder {
        /// The call.
        call: CallId,
        /// The messages; those before that began with the same index are replaced.
        entries: Vec<LadderEntry>,
    },
    /// Something an auditor wants to see.
    Audit(AuditEntry),
}

impl Record {
    /// Bytes of text that it holds.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Call(record) => record.personal.text_bytes(),
            Self::Turn { turn, .. } => turn.text.expose().len(),
            Self::Ladder { entries, .. } => {
                entries.iter().map(|entry| entry.message.expose().len()).sum()
            }
            Self::Audit(entry) => entry.text_bytes(),
        }
    }

    /// The word for it in `Event::VaultFailed`.
    pub(crate) const fn what(&self) -> &'static str {
        match self {
            Self::Call(_) | Self::Ladder { .. } => "call",
            Self::Turn { .. } => "turn",
            Self::Audit(_) => "audit",
        }
    }
}

/// Which way a call goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// A trunk or browser called us.
    Incoming,
    /// We placed the call.
    Outgoing,
}

impl Direction {
    /// The word that is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Outgoing => "outgoing",
        }
    }

    pub(crate) fn from_word(word: &str) -> Self {
        if word == Self::Outgoing.as_str() { Self::Outgoing } else { Self::Incoming }
    }
}

/// A call, for the archive. Every field but `personal` is stored readable, so that lists are
/// fast; nothing in them identifies a person, and whatever does belongs into `personal`.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// The call.
    pub id: CallId,
    /// Which way.
    pub direction: Direction,
    /// The trunk, where one was recognised.
    pub trunk: Option<TrunkName>,
    /// The voice agent, where the call was routed to one.
    pub voice_agent: Option<VoiceAgentName>,
    /// When it arrived.
    pub started: WallTime,
    /// When it was answered.
    pub answered: Option<WallTime>,
    /// When it ended; `None` while it goes on.
    pub ended: Option<WallTime>,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// From arrival to our answer.
    pub setup: Option<Duration>,
    /// From answer to end.
    pub talked: Option<Duration>,
    /// The signalling transport, such as `tls`.
    pub transport: &'static str,
    /// The SRTP suite's name, or `none`.
    pub protection: &'static str,
    /// The codec's name, empty before the answer.
    pub codec: &'static str,
    /// Whether SDES keys crossed exempted plaintext signalling.
    pub keys_exposed: bool,
    /// Whether recording was on.
    pub recording: bool,
    /// A word for why not, or not all the time, where it was wanted; else empty.
    pub unrecorded: &'static str,
    /// Whether the transcript was on.
    pub transcript: bool,
    /// What identifies a person; sealed.
    pub personal: CallPersonal,
}

/// The part of a call's record that is stored sealed. Empty strings are allowed everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPersonal {
    /// Who called; found again through the blind index.
    pub caller: Personal<String>,
    /// Who was called; found again through the blind index.
    pub callee: Personal<String>,
    /// The Request-URI as it arrived.
    pub request_uri: Personal<String>,
    /// The policy's input, as JSON.
    pub attempt: Personal<String>,
    /// What the policy saw of the world, as JSON.
    pub observed: Personal<String>,
    /// The policy's decision, as JSON.
    pub decision: Personal<String>,
    /// Loss, jitter and delays per leg, as JSON.
    pub quality: Personal<String>,
}

impl CallPersonal {
    fn text_bytes(&self) -> usize {
        [
            &self.caller,
            &self.callee,
            &self.request_uri,
            &self.attempt,
            &self.observed,
            &self.decision,
            &self.quality,
        ]
        .iter()
        .map(|text| text.expose().len())
        .sum()
    }
}

/// One message of a call's SIP ladder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LadderEntry {
    /// Its place, counted from 0 per call.
    pub index: u32,
    /// When, in milliseconds after the call's arrival.
    pub at_ms: u64,
    /// The leg: 0 is the caller.
    pub leg: u8,
    /// Whether we sent it.
    pub sent: bool,
    /// The message, with keys, credentials and masked digits already removed.
    pub message: Personal<String>,
}

/// The sealed form of [`CallPersonal`].
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredPersonal<'a> {
    #[serde(borrow)]
    pub(crate) caller: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) callee: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) request_uri: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) attempt: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) observed: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) decision: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) quality: std::borrow::Cow<'a, str>,
}

impl<'a> From<&'a CallPersonal> for StoredPersonal<'a> {
    fn from(personal: &'a CallPersonal) -> Self {
        let text = |field: &'a Personal<String>| field.expose().as_str().into();
        Self {
            caller: text(&personal.caller),
            callee: text(&personal.callee),
            request_uri: text(&personal.request_uri),
            attempt: text(&personal.attempt),
            observed: text(&personal.observed),
            decision: text(&personal.decision),
            quality: text(&personal.quality),
        }
    }
}

impl From<StoredPersonal<'_>> for CallPersonal {
    fn from(stored: StoredPersonal<'_>) -> Self {
        let text = |field: std::borrow::Cow<'_, str>| Personal::new(field.into_owned());
        Self {
            caller: text(stored.caller),
            callee: text(stored.callee),
            request_uri: text(stored.request_uri),
            attempt: text(stored.attempt),
            observed: text(stored.observed),
            decision: text(stored.decision),
            quality: text(stored.quality),
        }
    }
}

/// The sealed form of [`LadderEntry`], a line of its row; its index is its row's number and its
/// line.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredLadder<'a> {
    pub(crate) at_ms: u64,
    pub(crate) leg: u8,
    pub(crate) sent: bool,
    #[serde(borrow)]
    pub(crate) message: std::borrow::Cow<'a, str>,
}
