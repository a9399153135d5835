//! What of a call may be kept: its audio and its words, each by three switches. The edge, the
//! trunk and the voice agent must all allow it; each can only forbid.

use crate::contract::{Keep, Setup};

impl Keep {
    /// What all three switches allow.
    #[must_use]
    pub const fn allowed_by(edge: Self, trunk: Self, voice_agent: Self) -> Self {
        Self {
            recording: edge.recording && trunk.recording && voice_agent.recording,
            transcript: edge.transcript && trunk.transcript && voice_agent.transcript,
        }
    }
}

/// What may be kept of a call on these terms; nothing of one that no voice agent takes.
pub(crate) fn of(setup: &Setup, accepted: &policy::Accepted) -> Keep {
    let policy::Destination::Agent { name } = &accepted.destination else {
        return Keep::default();
    };
    let Some(card) = setup.agents.get(name.as_str()) else { return Keep::default() };
    let edge = Keep { recording: setup.recording, transcript: setup.transcript };
    let allows = |keep| keep == policy::Keep::Allowed;
    let terms = &accepted.terms;
    let trunk = Keep { recording: allows(terms.recording), transcript: allows(terms.transcript) };
    let voice_agent = Keep { recording: card.recording, transcript: card.transcript };
    Keep::allowed_by(edge, trunk, voice_agent)
}
