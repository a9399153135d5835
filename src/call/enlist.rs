//! Enlist: a voice agent takes the place of a party that has its peer carried to it, by REFER to
//! what a route sends to the agent, or with Replaces to a call of its own in which it talks with
//! one. Whoever stays has heard nothing of it so far, so that the conversation is a new one: from
//! the greeting on, with a transcript and a recording as its own trunk and the agent allow.

use base::{Event, Reason, VoiceAgentName};
use media::Direction;
use sip::Status;

use crate::beyond::Beyond;
use crate::bridge::Call;
use crate::contract::{AgentCard, Output, Record};
use crate::desk::Desk;
use crate::dial::Failure;
use crate::keep;
use crate::leg::Stage;
use crate::pass::Passing;

impl Call {
    /// The voice agent that talks with a leg of this call, where nothing else is under way.
    pub(crate) fn agent_of(&self, index: u8) -> Option<&VoiceAgentName> {
        let leg = &self.legs[self.place(index)?];
        let is_asked = self.passing.as_ref().is_some_and(Passing::is_asked);
        let is_free = self.transfer.is_none() && !is_asked && self.ending.is_none();
        let talks = leg.stage == Stage::Talking && leg.partner.is_none() && self.is_agent_there;
        self.agent.as_ref().filter(|_| talks && is_free)
    }

    /// The leg that stays of the transfer under way talks with a voice agent from now on, on the
    /// terms of the route that leads there, if one does; `false` where the transfer has failed.
    pub(crate) fn enlist(
        &mut self,
        desk: &mut Desk<'_>,
        name: &VoiceAgentName,
        route: policy::Forbids,
    ) -> bool {
        let (at, card) = match self.enlistable(desk, name) {
            Ok(found) => found,
            Err(reason) => {
                self.transfer_failed(desk, Failure::of(reason));
                return false;
            }
        };
        self.ring(desk, false);
        let leg = &mut self.legs[at];
        leg.partner = None;
        leg.is_to_be_recorded = card.recording;
        (self.agent, self.is_agent_there) = (Some(name.clone()), false);
        self.barge_in = card.barge_in;
        self.keep_with(desk, at, &card, route);
        desk.event(Event::TransferDone { call: self.id });
        self.join(desk, at);
        // Whoever has left may have held it.
        self.legs[at].tell_direction(desk, Direction::BOTH);
        self.notify_referrer(desk, Status::OK);
        self.let_referrer_go(desk);
        self.begin_agent(desk, at);
        if self.legs[at].is_held {
            desk.output(Output::Held { call: self.id, held: true });
        }
        true
    }

    /// Where the leg stands that is to talk with a voice agent, and what is known of the agent.
    fn enlistable(
        &self,
        desk: &Desk<'_>,
        name: &VoiceAgentName,
    ) -> Result<(usize, AgentCard), Reason> {
        let transfer = self.transfer.as_ref().ok_or(Reason::Internal)?;
        let at = self.place(transfer.stays).ok_or(Reason::PeerGone)?;
        let card = desk.setup.agents.get(name.as_str()).ok_or(Reason::AgentUnavailable)?;
        let leg = &self.legs[at];
        let media = leg.media.as_ref().filter(|_| leg.stage == Stage::Talking);
        let media = media.ok_or(Reason::TransferRefused)?;
        // What nobody here decodes an agent neither hears nor speaks.
        let is_heard = media.has_codecs_for(&Beyond::default());
        is_heard.then_some((at, *card)).ok_or(Reason::NoCommonCodec)
    }

    /// What may be kept from now on, and tells it.
    fn keep_with(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        card: &AgentCard,
        route: policy::Forbids,
    ) {
        let mut terms = self.legs[at].terms.clone();
        route.apply(&mut terms);
        self.keep = keep::with_agent(desk.setup, &terms, card);
        let forbidden = keep::forbids(desk.setup, [&terms]).filter(|_| card.recording);
        self.is_recorded |= self.keep.recording;
        self.unrecorded = forbidden.or(self.unrecorded);
        self.is_transcribed |= self.keep.transcript;
        desk.record(Record::Recorded {
            call: self.id,
            recording: self.is_recorded,
            transcript: self.is_transcribed,
            unrecorded: self.unrecorded,
        });
    }
}
