//! Answer: the caller's INVITE gets its 200, as soon as its ports are there and whoever it calls
//! has answered; its ACK starts the voice agent.

use std::net::IpAddr;

use base::Reason;
use media::{Need, Reserved};
use policy::Destination;
use sdp::Session;
use sip::{AckWait, Message, Method, Name, Request, Response, Status};

use crate::admit::SUPPORTED;
use crate::bridge::Call;
use crate::desk::{ALLOW, Desk};
use crate::dial::Failure;
use crate::hold;
use crate::ice;
use crate::leg::{Leg, Stage};
use crate::negotiate::{Agreed, LegMedia};

/// Allow and Supported, in every answer that describes us (RFC 3261 section 13.3.1.4).
pub(crate) fn describe(response: &mut Response) {
    response.headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
    response.headers.push_tokens(Name::Supported, SUPPORTED);
}

impl Call {
    /// The ports of a leg are found.
    pub(crate) fn on_reserved(&mut self, desk: &mut Desk<'_>, at: usize, reserved: Reserved) {
        let leg = &mut self.legs[at];
        if leg.is_moving && leg.stage == Stage::Talking {
            return self.on_moved(desk, at, reserved);
        }
        if leg.stage != Stage::Inviting {
            return;
        }
        leg.reserve(desk, reserved);
        if !leg.is_caller() {
            return self.invite(desk, at);
        }
        self.pass_early(desk);
        self.answer_caller(desk);
    }

    /// Ports could not be had.
    pub(crate) fn on_reserve_failed(&mut self, desk: &mut Desk<'_>, at: usize, ports: bool) {
        let reason = if ports { Reason::NoMediaPort } else { Reason::RelayFull };
        if self.legs[at].is_moving {
            return self.leg_lost(desk, at, reason);
        }
        if self.legs[at].dial.is_some() {
            return self.attempt_failed(desk, at, Failure::of(reason), false);
        }
        self.hang_up(desk, reason);
    }

    /// Answers the caller, where nothing is left to wait for.
    pub(crate) fn answer_caller(&mut self, desk: &mut Desk<'_>) {
        let is_answered = match &self.accepted.destination {
            Destination::Agent { .. } => true,
            Destination::Trunk { .. } => {
                self.partner(0).is_some_and(|callee| self.legs[callee].stage == Stage::Talking)
            }
        };
        let Some(caller) = self.legs.first_mut().filter(|leg| leg.is_caller()) else { return };
        // RFC 3262 section 3: not before the PRACK of a description that went ahead.
        let is_ready =
            caller.stage == Stage::Inviting && caller.media.is_some() && caller.reliable.is_none();
        if !is_answered || !is_ready {
            return;
        }
        self.prefer_partners(0);
        match self.legs[0].accept_invite(desk) {
            Ok(agreed) => {
                self.answered = Some(desk.now);
                if let Some(agreed) = agreed {
                    self.apply(desk, 0, &agreed);
                }
                if let Some(agreed) = self.legs[0].media.as_ref().and_then(LegMedia::agreed) {
                    self.answered(desk, &agreed);
                }
            }
            Err(reason) => self.hang_up(desk, reason),
        }
    }

    /// The ACK of a 2xx of ours.
    pub(crate) fn on_ack(&mut self, desk: &mut Desk<'_>, at: usize, ack: &Request) {
        let leg = &mut self.legs[at];
        let Some(invite) = leg.invite.take_if(|invite| invite.wait.is_some()) else {
            return; // again, or after the BYE
        };
        // An ACK that belongs to another INVITE acknowledges nothing (RFC 3261 section 13.2.2.4).
        let number = |request: &Request| request.headers.cseq().map(|cseq| cseq.number).ok();
        if number(ack) != number(&invite.request) {
            leg.invite = Some(invite);
            return;
        }
        leg.note(desk, true, &Message::Request(ack.clone()));
        let is_first = leg.stage == Stage::Answered;
        if invite.wants_answer {
            match leg.accept_answer(ack) {
                Ok(agreed) => {
                    let is_caller = leg.is_caller();
                    self.apply(desk, at, &agreed);
                    if let Err(reason) = self.answer_partner(desk, at) {
                        return self.leg_lost(desk, at, reason);
                    }
                    if is_first && is_caller {
                        self.answered(desk, &agreed);
                    }
                }
                Err(reason) => return self.leg_lost(desk, at, reason),
            }
        }
        self.confirm(desk, at);
        if is_first {
            self.successor_is_up(desk, at);
        }
    }
}

impl Leg {
    /// Whether a browser is at its end.
    pub(crate) fn is_browsers(&self) -> bool {
        let dialled = || self.dial.as_ref().map(|dial| dial.transport());
        let transport = self.peer.as_ref().map(|peer| peer.transport).or_else(dialled);
        transport.is_some_and(policy::Transport::is_browsers)
    }

    /// What the relay has to find for the caller's leg.
    pub(crate) fn need(&self, desk: &Desk<'_>) -> Option<Need> {
        let (bind, beside) = self.addresses(desk, self.peer.as_ref().map(|it| it.local.ip()));
        let offer = self.invite.as_ref().and_then(|it| hold::offer_of(&it.request).ok().flatten());
        let is_any = |is: &dyn Fn(&Session, &sdp::Media) -> bool| {
            offer.as_ref().is_some_and(|offer| offer.media.iter().any(|line| is(offer, line)))
        };
        let is_browsers = self.is_browsers();
        let by_handshake = |offer: &Session, line: &sdp::Media| {
            ice::is_offered(offer, line, is_browsers) && ice::read(offer, line).is_ok()
        };
        let dtls = if offer.is_some() { is_any(&by_handshake) } else { is_browsers };
        // Without rtcp-mux in the offer RTCP needs a port of its own (RFC 5761 section 5.1.1);
        // where we are to offer, the peer may still refuse it. A browser may not.
        let is_unmuxed = is_any(&|_, line| line.is_open_audio() && !line.has_rtcp_mux());
        let separate_rtcp = is_unmuxed || offer.is_none() && !dtls;
        Some(Need { bind: bind?, beside, separate_rtcp, dtls, fresh_identity: false })
    }

    /// The local address of its media, where signalling is at `local`, and that of the other
    /// family where there is one: a browser may reach us for media in one that it does not have for
    /// HTTPS.
    pub(crate) fn addresses(
        &self,
        desk: &Desk<'_>,
        local: Option<IpAddr>,
    ) -> (Option<IpAddr>, Option<IpAddr>) {
        let zone = self.zone().and_then(|name| desk.setup.policy.zone(name));
        match (zone.and_then(|zone| zone.media), local) {
            (Some(media), _) => (Some(media), None),
            (None, Some(local)) if self.is_browsers() => {
                ice::addresses(local, &desk.setup.browser_media)
            }
            (None, local) => (local, None),
        }
    }

    fn reserve(&mut self, desk: &mut Desk<'_>, reserved: Reserved) {
        let zone = self.zone().and_then(|name| desk.setup.policy.zone(name));
        let advertise = zone.and_then(|zone| zone.media_advertise).or(desk.setup.media_advertise);
        let terms = self.terms.clone();
        self.reserved = Some(reserved.clone());
        let mut media = LegMedia::new(self.id, terms, reserved, advertise, desk.random);
        if self.partner.is_some() {
            media.take_noise();
        }
        if self.is_browsers() {
            media.offer_dtls();
        }
        self.media = Some(media);
    }

    /// Sends our 200 to the INVITE; what was agreed, unless that was earlier or comes with the
    /// ACK.
    ///
    /// # Errors
    /// Why the offer cannot be answered.
    pub(crate) fn accept_invite(&mut self, desk: &mut Desk<'_>) -> Result<Option<Agreed>, Reason> {
        let invite = self.invite.as_ref().ok_or(Reason::Internal)?;
        let (key, request) = (invite.key, invite.request.clone());
        let media = self.media.as_mut().ok_or(Reason::Internal)?;
        let offer = hold::offer_of(&request)?;
        let (session, agreed) = match (&invite.described, &offer) {
            (Some(described), _) => (described.clone(), None),
            (None, Some(offer)) => {
                let (session, agreed) = media.answer(offer, desk.random)?;
                (session, Some(agreed))
            }
            // RFC 3261 section 13.2.1: an INVITE without an offer wants ours in the 200.
            (None, None) if !media.has_codecs() => return Err(Reason::NoCommonCodec),
            (None, None) => (media.offer(desk.random), None),
        };
        let response = self.success(desk, &request, Some(&session));
        self.respond(desk, key, &response);
        if let Some(invite) = &mut self.invite {
            invite.wants_answer = offer.is_none();
            invite.wait = Some((AckWait::new(desk.now), response));
        }
        self.stage = Stage::Answered;
        Ok(agreed)
    }

    /// The 2xx to an INVITE or UPDATE of this leg.
    pub(crate) fn success(
        &mut self,
        desk: &mut Desk<'_>,
        request: &Request,
        session: Option<&Session>,
    ) -> Response {
        let mut response = desk.response_tagged(request, Status::OK, &self.local_tag());
        if let Some(peer) = &self.peer {
            response.headers.push(Name::Contact, desk.contact(peer, self.zone()));
        }
        describe(&mut response);
        self.write_session_timer(&mut response);
        match session {
            Some(session) => response.with_body("application/sdp", session.to_text()),
            None => response,
        }
    }

    fn accept_answer(&mut self, ack: &Request) -> Result<Agreed, Reason> {
        let answer = hold::offer_of(ack)?.ok_or(Reason::SdpMalformed)?;
        self.media.as_mut().ok_or(Reason::Internal)?.accept(&answer)
    }
}
