//! What of a call may be kept: its audio and its words, each by three switches. The edge, the
//! trunk and the voice agent must all allow it; each can only forbid.

use crate::contract::{AgentCard, Keep, Setup, Unrecorded};

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
    with_agent(setup, &accepted.terms, card)
}

/// What may be kept of the talk of a voice agent with a leg on these terms.
pub(crate) fn with_agent(setup: &Setup, terms: &policy::Terms, card: &AgentCard) -> Keep {
    let edge = Keep { recording: setup.recording, transcript: setup.transcript };
    let allows = |keep| keep == policy::Keep::Allowed;
    let trunk = Keep { recording: allows(terms.recording), transcript: allows(terms.transcript) };
    let voice_agent = Keep { recording: card.recording, transcript: card.transcript };
    Keep::allowed_by(edge, trunk, voice_agent)
}

/// Whether the route or the voice agent of a call wants it to be recorded.
pub(crate) fn wants_recording(setup: &Setup, accepted: &policy::Accepted) -> bool {
    match &accepted.destination {
        policy::Destination::Agent { name } => {
            setup.agents.get(name.as_str()).is_some_and(|card| card.recording)
        }
        policy::Destination::Trunk { .. } => accepted.record,
    }
}

/// What forbids to record these legs, before it is known what they speak.
pub(crate) fn forbids<'a>(
    setup: &Setup,
    terms: impl IntoIterator<Item = &'a policy::Terms>,
) -> Option<Unrecorded> {
    if !setup.recording {
        return Some(Unrecorded::Edge);
    }
    let mut terms = terms.into_iter();
    let is_forbidden = terms.any(|terms| terms.recording != policy::Keep::Allowed);
    is_forbidden.then_some(Unrecorded::Trunk)
}
