//! Hold and every other change within a call: re-INVITE, UPDATE, INFO, OPTIONS.

use base::{Event, Reason, limit};
use sdp::Session;
use sip::transaction::ServerKey;
use sip::{AckWait, Message, Method, Request, Status};

use crate::admit;
use crate::contract::Output;
use crate::desk::Desk;
use crate::leg::{Call, PendingInvite, Stage};

/// The session description in a request, if it has one.
pub(crate) fn offer_of(request: &Request) -> Result<Option<Session>, Reason> {
    if request.body.is_empty() {
        return Ok(None);
    }
    if !admit::is_sdp(request) {
        return Err(Reason::UnsupportedBody);
    }
    if request.body.len() > limit::SDP_BYTES.get() {
        return Err(Reason::BodyTooLarge);
    }
    Session::parse(&request.body).map(Some).map_err(|_| Reason::SdpMalformed)
}

impl Call {
    /// A request within the dialog other than ACK and BYE.
    pub(crate) fn on_request(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: Request) {
        self.ladder.note(desk, true, &Message::Request(request.clone()));
        if self.dialog.receive(&request).is_err() {
            return self.refuse(desk, key, &request, Reason::OutOfOrder);
        }
        if self.stage == Stage::Ending && request.method != Method::Bye {
            return self.refuse(desk, key, &request, Reason::NoDialog);
        }
        if admit::unsupported(&request).next().is_some() {
            return self.refuse(desk, key, &request, Reason::BadExtension);
        }
        match request.method {
            Method::Bye => self.on_bye(desk, key, &request),
            Method::Invite => self.on_reinvite(desk, key, request),
            Method::Update => self.on_update(desk, key, &request),
            Method::Info => self.on_info(desk, key, &request),
            Method::Options => {
                let mut response = self.plain_ok(desk, &request);
                crate::answer::describe(&mut response);
                self.respond(desk, key, &response);
            }
            // Nothing of ours is provisional, so no PRACK can match (RFC 3262 section 3).
            Method::Prack => self.refuse(desk, key, &request, Reason::NoDialog),
            Method::Other(_) => self.refuse(desk, key, &request, Reason::MethodUnknown),
            _ => self.refuse(desk, key, &request, Reason::MethodNotAllowed),
        }
    }

    fn on_reinvite(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: Request) {
        if self.is_offer_outstanding() {
            return self.refuse(desk, key, &request, Reason::RequestPending);
        }
        // A peer that goes on with a new INVITE has seen our 200; some networks send it before
        // their ACK.
        self.invite = None;
        self.confirm(desk);
        let (session, agreed) = match self.negotiate(desk, &request) {
            Ok(described) => described,
            Err(reason) => return self.refuse(desk, key, &request, reason),
        };
        if self.refresh_session(desk, key, &request).is_err() {
            return;
        }
        self.dialog.refresh_target(&request.headers);
        let response = self.success(desk, &request, Some(&session));
        self.respond(desk, key, &response);
        self.invite = Some(PendingInvite {
            key,
            request,
            wait: Some((AckWait::new(desk.now), response)),
            wants_answer: agreed.is_none(),
        });
        if let Some(agreed) = agreed {
            self.apply(desk, agreed, false);
        }
    }

    /// RFC 3311; mostly a session refresh (RFC 4028 section 7.4).
    fn on_update(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: &Request) {
        let has_offer = !request.body.is_empty();
        if has_offer && self.is_offer_outstanding() {
            // RFC 3311 section 5.2.
            return self.refuse(desk, key, request, Reason::RequestPending);
        }
        let described = if has_offer { self.negotiate(desk, request).map(Some) } else { Ok(None) };
        let described = match described {
            Ok(described) => described,
            Err(reason) => return self.refuse(desk, key, request, reason),
        };
        if self.refresh_session(desk, key, request).is_err() {
            return;
        }
        self.dialog.refresh_target(&request.headers);
        let session = described.as_ref().map(|(session, _)| session);
        let response = self.success(desk, request, session);
        self.respond(desk, key, &response);
        if let Some((_, Some(agreed))) = described {
            self.apply(desk, agreed, false);
        }
    }

    /// RFC 3261 section 14.2: one offer at a time.
    fn is_offer_outstanding(&self) -> bool {
        let ours = self.pending.is_some_and(|pending| pending.is_invite());
        let unanswered = self.invite.as_ref().is_some_and(|invite| invite.wants_answer);
        ours || unanswered || self.stage == Stage::Reserving
    }

    fn negotiate(
        &mut self,
        desk: &mut Desk<'_>,
        request: &Request,
    ) -> Result<(Session, Option<crate::negotiate::Agreed>), Reason> {
        let offer = offer_of(request)?;
        let media = self.media.as_mut().ok_or(Reason::RequestPending)?;
        match offer {
            Some(offer) => {
                let (session, agreed) = media.answer(&offer, desk.random)?;
                Ok((session, Some(agreed)))
            }
            None => Ok((media.offer(desk.random), None)),
        }
    }

    /// Keys by signalling: `application/dtmf-relay` and `application/dtmf`, as PBXs send them.
    fn on_info(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: &Request) {
        let kind = request.headers.content_type().ok().flatten();
        let digit = match kind.as_ref().map(|kind| kind.essence.as_str()) {
            None if request.body.is_empty() => None, // a probe
            Some("application/dtmf-relay") => signal(&request.body, "signal="),
            Some("application/dtmf") => signal(&request.body, ""),
            _ => return self.refuse(desk, key, request, Reason::UnsupportedBody),
        };
        let response = self.plain_ok(desk, request);
        self.respond(desk, key, &response);
        if let Some(digit) = digit.filter(|_| self.terms().dtmf.contains(&policy::DtmfMethod::Info))
        {
            desk.output(Output::Digit { call: self.id, digit });
        }
    }

    pub(crate) fn plain_ok(&mut self, desk: &mut Desk<'_>, request: &Request) -> sip::Response {
        desk.response_tagged(request, Status::OK, &self.dialog.id().local_tag.clone())
    }

    pub(crate) fn respond(
        &mut self,
        desk: &mut Desk<'_>,
        key: ServerKey,
        response: &sip::Response,
    ) {
        desk.answer(key, response);
        self.ladder.note(desk, false, &Message::Response(response.clone()));
    }

    /// Refuses a request within the call; the call goes on as it was (RFC 3261 section 14.2).
    pub(crate) fn refuse(
        &mut self,
        desk: &mut Desk<'_>,
        key: ServerKey,
        request: &Request,
        reason: Reason,
    ) {
        let response = desk.refusal(request, reason, true);
        let (transport, status) = (self.peer.transport.word(), response.status.code());
        self.respond(desk, key, &response);
        desk.event(Event::RequestRefused { reason, transport, status });
    }
}

/// The key in an INFO body: the first letter after `label`, in any case.
fn signal(body: &[u8], label: &str) -> Option<char> {
    let text = std::str::from_utf8(body).ok()?.to_ascii_lowercase();
    let line = text.lines().find_map(|line| {
        line.split_whitespace().collect::<String>().strip_prefix(label).map(str::to_owned)
    })?;
    let key = match line.as_str() {
        "10" => '*',
        "11" => '#',
        line => line.chars().next()?.to_ascii_uppercase(),
    };
    "0123456789*#ABCD".contains(key).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::signal;

    #[test]
    fn keys_are_read_from_both_kinds_of_body() {
        assert_eq!(signal(b"Signal= 5\r\nDuration=160\r\n", "signal="), Some('5'));
        assert_eq!(signal(b"Signal=*\r\n", "signal="), Some('*'));
        assert_eq!(signal(b"11", ""), Some('#'));
        assert_eq!(signal(b"a", ""), Some('A'));
        for wrong in [&b""[..], b"Duration=1", b"\xff", b"Signal=!"] {
            assert_eq!(signal(wrong, "signal="), None);
        }
    }
}
