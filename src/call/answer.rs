//! Answer: ports are there, so the INVITE gets its 200; the ACK starts the voice agent.

use base::{Event, Reason};
use media::{Need, Reserved};
use sdp::Session;
use sip::{AckWait, Message, Method, Name, Request, Response, Status};

use crate::admit::SUPPORTED;
use crate::contract::{Output, Record};
use crate::desk::{ALLOW, Desk};
use crate::hold;
use crate::leg::{Call, PendingInvite, Stage};
use crate::negotiate::{Agreed, LegMedia};

/// Allow and Supported, in every answer that describes us (RFC 3261 section 13.3.1.4).
pub(crate) fn describe(response: &mut Response) {
    response.headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
    response.headers.push_tokens(Name::Supported, SUPPORTED);
}

impl Call {
    /// What the relay has to find for this call.
    pub(crate) fn need(&self, desk: &Desk<'_>) -> Need {
        let zone = self.zone();
        let zone = zone.as_deref().and_then(|name| desk.setup.policy.zone(name));
        let bind = zone.and_then(|zone| zone.media).unwrap_or(self.peer.local.ip());
        let offer = self.invite.as_ref().and_then(|it| hold::offer_of(&it.request).ok().flatten());
        // Without rtcp-mux in the offer RTCP needs a port of its own (RFC 5761 section 5.1.1);
        // where we are to offer, the peer may still refuse it.
        let is_muxed = offer.is_some_and(|offer| {
            offer.media.iter().filter(|media| media.is_open_audio()).all(sdp::Media::has_rtcp_mux)
        });
        Need { bind, separate_rtcp: !is_muxed }
    }

    /// The ports are found: answers the INVITE.
    pub(crate) fn on_reserved(&mut self, desk: &mut Desk<'_>, reserved: Reserved) {
        if self.stage != Stage::Reserving {
            return;
        }
        self.reserved = Some(reserved);
        // It stays where it is, so that it gets an answer whatever happens here.
        let Some(invite) = &self.invite else { return };
        let (key, request) = (invite.key, invite.request.clone());
        let zone = self.zone();
        let zone = zone.as_deref().and_then(|name| desk.setup.policy.zone(name));
        let advertise = zone.and_then(|zone| zone.media_advertise).or(desk.setup.media_advertise);
        let (leg, purpose, terms) = (self.leg, self.purpose.clone(), self.terms().clone());
        let mut media = LegMedia::new(leg, terms, purpose, reserved, advertise, desk.random);
        let offer = hold::offer_of(&request).ok().flatten();
        let described = match &offer {
            Some(offer) => {
                media.answer(offer, desk.random).map(|(session, agreed)| (session, Some(agreed)))
            }
            // RFC 3261 section 13.2.1: an INVITE without an offer wants ours in the 200.
            None => Ok((media.offer(desk.random), None)),
        };
        self.media = Some(media);
        let (session, agreed) = match described {
            Ok(described) => described,
            Err(reason) => return self.hang_up(desk, reason),
        };
        let response = self.success(desk, &request, Some(&session));
        self.respond(desk, key, &response);
        self.invite = Some(PendingInvite {
            key,
            request,
            wait: Some((AckWait::new(desk.now), response)),
            wants_answer: agreed.is_none(),
        });
        self.stage = Stage::Answered;
        self.answered = Some(desk.now);
        if let Some(agreed) = agreed {
            self.apply(desk, agreed, true);
        }
    }

    /// The 2xx to an INVITE or UPDATE of this call.
    pub(crate) fn success(
        &mut self,
        desk: &mut Desk<'_>,
        request: &Request,
        session: Option<&Session>,
    ) -> Response {
        let mut response =
            desk.response_tagged(request, Status::OK, &self.dialog.id().local_tag.clone());
        let contact = desk.contact(&self.peer, self.zone().as_deref());
        response.headers.push(Name::Contact, contact);
        describe(&mut response);
        self.write_session_timer(&mut response);
        match session {
            Some(session) => response.with_body("application/sdp", session.to_string()),
            None => response,
        }
    }

    /// What was agreed begins to flow. `first` says that the call was not up before.
    pub(crate) fn apply(&mut self, desk: &mut Desk<'_>, agreed: Agreed, first: bool) {
        let Agreed { plan, codec, protection } = agreed;
        let held = !plan.direction.send;
        desk.output(Output::Apply { plan: Box::new(plan) });
        if first {
            let (call, setup) = (self.id, desk.now.since(self.arrived));
            desk.event(Event::CallAnswered { call, setup, codec, protection });
            let keys_exposed = self.keys_exposed && protection != "none";
            if keys_exposed {
                desk.event(Event::KeysExposed { call });
            }
            let (wall, keep) = (desk.wall, self.keep);
            desk.record(Record::Answered { call, wall, codec, protection, keys_exposed, keep });
        }
        if held != self.is_held {
            self.is_held = held;
            desk.output(Output::Held { call: self.id, held });
        }
    }

    /// The ACK of a 2xx of ours.
    pub(crate) fn on_ack(&mut self, desk: &mut Desk<'_>, ack: &Request) {
        let Some(invite) = self.invite.take_if(|invite| invite.wait.is_some()) else {
            return; // again, or after the BYE
        };
        // An ACK that belongs to another INVITE acknowledges nothing (RFC 3261 section 13.2.2.4).
        let number = |request: &Request| request.headers.cseq().map(|cseq| cseq.number).ok();
        if number(ack) != number(&invite.request) {
            self.invite = Some(invite);
            return;
        }
        self.ladder.note(desk, true, &Message::Request(ack.clone()));
        if invite.wants_answer {
            let first = self.stage == Stage::Answered;
            match self.accept_answer(ack) {
                Ok(agreed) => self.apply(desk, agreed, first),
                Err(reason) => return self.hang_up(desk, reason),
            }
        }
        self.confirm(desk);
    }

    fn accept_answer(&mut self, ack: &Request) -> Result<Agreed, Reason> {
        let answer = hold::offer_of(ack)?.ok_or(Reason::SdpMalformed)?;
        self.media.as_mut().ok_or(Reason::Internal)?.accept(&answer)
    }

    /// Both sides know that the call is up.
    pub(crate) fn confirm(&mut self, desk: &mut Desk<'_>) {
        if self.stage != Stage::Answered {
            return;
        }
        self.stage = Stage::Talking;
        if let policy::Destination::Agent { name } = &self.accepted.destination {
            let (call, leg, agent, keep) = (self.id, self.leg, name.clone(), self.keep);
            desk.output(Output::StartAgent { call, leg, agent, keep });
        }
    }

    /// Ports could not be had.
    pub(crate) fn on_reserve_failed(&mut self, desk: &mut Desk<'_>, ports: bool) {
        let reason = if ports { Reason::NoMediaPort } else { Reason::RelayFull };
        self.hang_up(desk, reason);
    }
}
