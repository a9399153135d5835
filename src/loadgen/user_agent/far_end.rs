//! Answers to what the far end asks for within the call.

use base::Instant;
use sip::session_timer::SessionTermsError;
use sip::{
    AckWait, DialogId, Method, Name, Request, Response, ServerKey, SessionTerms, SessionTimer,
    Status,
};

use super::{AGENT, ALLOW, Confirming, End, Phase, UserAgent, UserAgentOutput};
use crate::cause::{Cause, FarewellBy};
use crate::report::Ending;

impl UserAgent {
    pub(super) fn on_request(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let id = DialogId::of_request(request);
        let Some(dialog) = self.dialog.as_mut().filter(|it| Some(it.id()) == id.as_ref()) else {
            return self.reply(now, key, request, Status::CALL_DOES_NOT_EXIST);
        };
        if dialog.receive(request).is_err() {
            return self.reply(now, key, request, Status::SERVER_INTERNAL_ERROR);
        }
        match &request.method {
            Method::Bye => {
                self.reply(now, key, request, Status::OK);
                self.heard(FarewellBy::Bye, Cause::of(&request.headers));
                match &self.phase {
                    // Both hung up at the same time.
                    Phase::Leaving(end) => self.finish(end.clone()),
                    _ => self.finish(End::Over(Ending::FarEnd)),
                }
            }
            Method::Options => self.reply(now, key, request, Status::OK),
            Method::Info => {
                self.reply(now, key, request, Status::OK);
                if let Some(digit) = digit_of(&request.body) {
                    self.outputs.push_back(UserAgentOutput::Digit(digit));
                }
            }
            Method::Invite | Method::Update => self.on_offer(now, key, request),
            Method::Other(_) => self.reply(now, key, request, Status::NOT_IMPLEMENTED),
            _ => self.reply(now, key, request, Status::METHOD_NOT_ALLOWED),
        }
    }

    fn reply(&mut self, now: Instant, key: ServerKey, request: &Request, status: Status) {
        let mut response = Response::to(request, status, Some("load"));
        response.headers.push(Name::UserAgent, AGENT);
        if matches!(request.method, Method::Options) || status == Status::METHOD_NOT_ALLOWED {
            response.headers.push(Name::Allow, ALLOW);
            response.headers.push(Name::Accept, "application/sdp");
        }
        // Fails only where the request was answered already.
        let _ = self.transactions.respond(now, key, &response);
    }

    /// A re-INVITE or UPDATE (RFC 3261 section 14.2, RFC 3311 section 5.2).
    fn on_offer(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let is_invite = request.method == Method::Invite;
        if self.phase != Phase::Up {
            return self.reply(now, key, request, Status::CALL_DOES_NOT_EXIST);
        }
        let offers = is_invite || !request.body.is_empty();
        if offers && (self.proposal.is_some() || self.confirming.is_some()) {
            return self.reply(now, key, request, Status::REQUEST_PENDING);
        }
        if !request.body.is_empty() {
            let media_type = request.headers.content_type().ok().flatten();
            if media_type.is_none_or(|it| it.essence != "application/sdp") {
                return self.reply(now, key, request, Status::UNSUPPORTED_MEDIA_TYPE);
            }
        }
        let agreement = match SessionTerms::default().answer(&request.headers) {
            Ok(agreement) => agreement,
            Err(SessionTermsError::TooSmall { min }) => {
                let status = Status::SESSION_INTERVAL_TOO_SMALL;
                let mut response = Response::to(request, status, None);
                response.headers.push(Name::MinSe, min.to_string());
                let _ = self.transactions.respond(now, key, &response);
                return;
            }
            Err(SessionTermsError::Header(_)) => {
                return self.reply(now, key, request, Status::BAD_REQUEST);
            }
        };
        let mut response = Response::to(request, Status::OK, None);
        if !request.body.is_empty() {
            let Ok((agreed, answer)) = self.description.answer(&request.body, &mut *self.random)
            else {
                return self.reply(now, key, request, Status::NOT_ACCEPTABLE_HERE);
            };
            response = response.with_body("application/sdp", answer.to_string());
            self.outputs.push_back(UserAgentOutput::Agreed(Box::new(agreed)));
        } else if let (true, Some(offer)) = (is_invite, self.description.again()) {
            response = response.with_body("application/sdp", offer.to_string());
        }
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(&request.headers);
        }
        response.headers.push(Name::Contact, format!("<{}>", self.parties.contact));
        response.headers.push(Name::Allow, ALLOW);
        response.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
        if let Some(agreement) = agreement {
            agreement.write_answer(&mut response.headers);
            self.session_timer = Some(SessionTimer::new(now, agreement));
        }
        let _ = self.transactions.respond(now, key, &response);
        if is_invite {
            let (wait, has_offer) = (AckWait::new(now), request.body.is_empty());
            self.confirming = Some(Confirming { key, response, wait, has_offer });
        }
    }

    /// The ACK of our 200 to a re-INVITE; it has the answer where the 200 had the offer.
    pub(super) fn on_ack(&mut self, now: Instant, ack: &Request) {
        let of = |headers: &sip::Headers| headers.cseq().map(|it| it.number).ok();
        let number = of(&ack.headers);
        let Some(confirming) = self.confirming.take_if(|it| of(&it.response.headers) == number)
        else {
            return;
        };
        if !confirming.has_offer || self.phase != Phase::Up {
            return;
        }
        match self.description.accept(&ack.body) {
            Ok(agreed) => self.outputs.push_back(UserAgentOutput::Agreed(Box::new(agreed))),
            // RFC 3261 section 14.2: an answer that cannot be used ends the call.
            Err(_) => self.leave(now, End::Over(Ending::Lost)),
        }
    }
}

/// The key of an `application/dtmf-relay` or `application/dtmf` body.
fn digit_of(body: &[u8]) -> Option<char> {
    let text = std::str::from_utf8(body).ok()?;
    let signal = text.lines().find_map(|line| line.trim().strip_prefix("Signal="));
    let key = signal.unwrap_or(text).trim();
    let mut keys = key.chars();
    match (keys.next(), keys.next()) {
        (Some(key), None) => rtp::Digit::from_char(key).map(rtp::Digit::to_char),
        _ => None,
    }
}
