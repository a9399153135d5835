//! Late: a caller that wants our offer (RFC 3261 section 13.2.1) where both trunks let codecs
//! through that nobody here decodes. What those are like only the parties know, so that the callee
//! is asked for its offer as well: the caller gets it in our 200, and the callee its answer in our
//! ACK, which waits for the caller's.

use base::Reason;
use sip::{Name, Request, Response};

use crate::admit::SUPPORTED;
use crate::beyond::Beyond;
use crate::bridge::Call;
use crate::desk::Desk;
use crate::dial::{Failure, Waiting};
use crate::early;
use crate::hold;
use crate::leg::{Leg, Stage};

/// What of our INVITE has to do with a late offer.
#[derive(Debug, Default)]
pub(crate) struct Late {
    /// Whether it had no description.
    pub(crate) is_asked: bool,
    /// The callee's offer, until it is answered.
    offered: Option<sdp::Session>,
    /// Our answer, which its ACK carries each time.
    answer: Option<String>,
}

/// Takes the promise of PRACK out of an INVITE: an offer in a reliable provisional response would
/// want its answer before the caller has seen it (RFC 3262 section 5).
pub(crate) fn without_reliability(invite: &mut Request) {
    invite.headers.remove(Name::Supported);
    let others = SUPPORTED.into_iter().filter(|tag| *tag != early::OPTION_TAG);
    invite.headers.push_tokens(Name::Supported, others);
}

impl Call {
    /// Whether the leg at `at` is to be asked for an offer: its caller has made none, and what it
    /// will choose may be something that only goes through.
    pub(crate) fn is_late(&self, at: usize) -> bool {
        let Some(caller) = self.legs.first().filter(|leg| leg.is_caller()) else { return false };
        let is_for_caller = self.route.as_ref().is_some_and(|it| it.waiting == Waiting::Caller);
        let asks = |it: &Request| hold::offer_of(it).is_ok_and(|offer| offer.is_none());
        let is_asked = caller.invite.as_ref().is_some_and(|invite| asks(&invite.request));
        let theirs = &self.legs[at].terms.codecs;
        let goes_through = |it: &policy::Codec| it.is_opaque() && theirs.contains(it);
        is_for_caller && is_asked && caller.terms.codecs.iter().any(goes_through)
    }

    /// The callee has answered with its offer.
    pub(crate) fn on_offered(&mut self, desk: &mut Desk<'_>, at: usize, response: &Response) {
        let offer = hold::description_in(&response.headers, &response.body);
        let leg = &mut self.legs[at];
        match (offer, &mut leg.dial) {
            (Ok(Some(offer)), Some(dial)) => dial.late.offered = Some(offer),
            (other, _) => {
                leg.acknowledge(desk, response);
                let reason = other.err().unwrap_or(Reason::SdpMalformed);
                return self.attempt_failed(desk, at, Failure::of(reason), false);
            }
        }
        self.answer_caller(desk);
    }

    /// Answers the offer of the partner of the leg at `at`, which has just answered ours.
    ///
    /// # Errors
    /// They have nothing in common after all.
    pub(crate) fn answer_partner(&mut self, desk: &mut Desk<'_>, at: usize) -> Result<(), Reason> {
        let Some(other) = self.partner(at) else { return Ok(()) };
        let Some(offer) = self.legs[other].dial.as_ref().and_then(|it| it.late.offered.clone())
        else {
            return Ok(());
        };
        self.prefer_partners(other);
        let leg = &mut self.legs[other];
        let media = leg.media.as_mut().ok_or(Reason::Internal)?;
        let (session, agreed) = media.answer(&offer, desk.random)?;
        if let Some(dial) = &mut leg.dial {
            dial.late.answer = Some(session.to_string());
        }
        leg.acknowledge_late(desk);
        self.apply(desk, other, &agreed);
        Ok(())
    }
}

impl Leg {
    /// Whether our INVITE wants an offer.
    pub(crate) fn is_asked_late(&self) -> bool {
        self.dial.as_ref().is_some_and(|dial| dial.late.is_asked)
    }

    /// Whether an offer of the callee's waits for the caller's answer, and its 2xx for our ACK.
    pub(crate) fn is_offered(&self) -> bool {
        self.stage == Stage::Talking
            && self.dial.as_ref().is_some_and(|dial| dial.late.offered.is_some())
    }

    /// What the callee offers that has not been answered yet.
    pub(crate) fn offers(&self) -> Option<Beyond> {
        let offer = self.dial.as_ref()?.late.offered.as_ref()?;
        Some(Beyond::offered(offer, &self.terms))
    }

    /// Our answer to the offer that came with the 2xx of this INVITE.
    pub(crate) fn late_answer(&self, number: u32) -> Option<&str> {
        let dial = self.dial.as_ref()?;
        let cseq = dial.invite.as_ref()?.headers.cseq().ok()?;
        dial.late.answer.as_deref().filter(|_| cseq.number == number)
    }

    /// Acknowledges a 2xx whose offer was answered, or never will be.
    pub(crate) fn acknowledge_late(&mut self, desk: &mut Desk<'_>) {
        let Some(dial) = &mut self.dial else { return };
        let number = dial.invite.as_ref().and_then(|invite| invite.headers.cseq().ok());
        if dial.late.offered.take().is_some()
            && let Some(cseq) = number
        {
            self.send_ack(desk, cseq.number);
        }
    }
}
