//! Hold and every other change within a call: re-INVITE, UPDATE, INFO, OPTIONS. Each leg answers
//! for itself at once; what a hold means for the other leg is told to it afterwards.

use base::{Reason, limit};
use bytes::Bytes;
use sdp::Session;
use sip::transaction::ServerKey;
use sip::{AckWait, BodyError, Headers, Message, Method, Name, Request, body};

use crate::admit;
use crate::bridge::Call;
use crate::desk::Desk;
use crate::leg::{Leg, Pending, PendingInvite, Stage};
use crate::negotiate::{self, Agreed};

/// The session description in a request, if it has one.
pub(crate) fn offer_of(request: &Request) -> Result<Option<Session>, Reason> {
    Ok(description_in(&request.headers, &request.body)?.map(Session::unbundled))
}

/// The session description in a body, alone or as a part of it.
pub(crate) fn description_in(headers: &Headers, body: &Bytes) -> Result<Option<Session>, Reason> {
    let found = body::find(headers, body, "application/sdp").map_err(|error| match error {
        BodyError::Unsupported => Reason::UnsupportedBody,
        BodyError::Malformed => Reason::Malformed,
        BodyError::TooManyParts => Reason::BodyTooLarge,
    })?;
    let Some(found) = found else { return Ok(None) };
    if found.len() > limit::SDP_BYTES.get() {
        return Err(Reason::BodyTooLarge);
    }
    Session::parse(&found).map(Some).map_err(|_| Reason::SdpMalformed)
}

impl Call {
    /// A request within a leg's dialog, other than ACK.
    pub(crate) fn on_request(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: Request,
    ) {
        let leg = &mut self.legs[at];
        leg.note(desk, true, &Message::Request(request.clone()));
        if leg.dialog.as_mut().is_some_and(|dialog| dialog.receive(&request).is_err()) {
            return leg.refuse(desk, key, &request, Reason::OutOfOrder);
        }
        if leg.stage == Stage::Ending && request.method != Method::Bye {
            return leg.refuse(desk, key, &request, Reason::NoDialog);
        }
        if admit::unsupported(&request).next().is_some() {
            return leg.refuse(desk, key, &request, Reason::BadExtension);
        }
        match request.method {
            Method::Bye => self.on_bye(desk, at, key, &request),
            Method::Invite => self.on_reinvite(desk, at, key, request),
            Method::Update => self.on_update(desk, at, key, &request),
            Method::Info => {
                if let Some(digit) = leg.on_info(desk, key, &request) {
                    self.on_digit(desk, at, digit);
                }
            }
            Method::Options => {
                let mut response = leg.plain_ok(desk, &request);
                crate::answer::describe(&mut response);
                leg.respond(desk, key, &response);
            }
            Method::Prack => self.on_prack(desk, at, key, &request),
            Method::Refer => self.on_refer(desk, at, key, &request),
            Method::Notify => self.on_notify(desk, at, key, &request),
            Method::Other(_) => leg.refuse(desk, key, &request, Reason::MethodUnknown),
            _ => leg.refuse(desk, key, &request, Reason::MethodNotAllowed),
        }
    }

    fn on_reinvite(&mut self, desk: &mut Desk<'_>, at: usize, key: ServerKey, request: Request) {
        self.reinvite(desk, at, key, request, true);
    }

    /// Answers a re-INVITE; where `may_wait`, perhaps not before the partner has said something.
    pub(crate) fn reinvite(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: Request,
        may_wait: bool,
    ) {
        if self.legs[at].is_offer_outstanding() {
            return self.legs[at].refuse(desk, key, &request, Reason::RequestPending);
        }
        // A peer that goes on with a new INVITE has seen our 200; some networks send it before
        // their ACK.
        self.legs[at].invite = None;
        self.confirm(desk, at);
        self.prefer_partners(at);
        let leg = &mut self.legs[at];
        let described = offer_of(&request).and_then(|offer| leg.negotiate(desk, offer));
        let (session, agreed) = match described {
            Ok(described) => described,
            Err(reason) => return self.not_taken(desk, at, (key, &request), reason, may_wait),
        };
        if leg.refresh_session(desk, key, &request).is_err() {
            return;
        }
        leg.refresh_target(&request.headers);
        let response = leg.success(desk, &request, Some(&session));
        leg.respond(desk, key, &response);
        leg.invite = Some(PendingInvite {
            wait: Some((AckWait::new(desk.now), response)),
            wants_answer: agreed.is_none(),
            ..PendingInvite::new(key, request)
        });
        if let Some(agreed) = agreed {
            self.apply(desk, at, &agreed);
        }
    }

    /// An offer cannot be answered as things are.
    fn not_taken(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        (key, request): (ServerKey, &Request),
        reason: Reason,
        may_wait: bool,
    ) {
        let may_change = may_wait && reason == Reason::NoCommonCodec;
        let waits = may_change.then(|| self.ask_partner(desk, at, key, request));
        match waits {
            Some(Ok(())) => {}
            Some(Err(reason)) => self.legs[at].refuse(desk, key, request, reason),
            None => self.legs[at].refuse(desk, key, request, reason),
        }
    }

    /// RFC 3311; mostly a session refresh (RFC 4028 section 7.4).
    fn on_update(&mut self, desk: &mut Desk<'_>, at: usize, key: ServerKey, request: &Request) {
        self.update(desk, at, key, request, true);
    }

    /// Answers an UPDATE; where `may_wait`, perhaps not before the partner has said something.
    pub(crate) fn update(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
        may_wait: bool,
    ) {
        self.prefer_partners(at);
        let leg = &mut self.legs[at];
        let offer = match offer_of(request) {
            Ok(offer) => offer,
            Err(reason) => return leg.refuse(desk, key, request, reason),
        };
        if offer.is_some() && leg.is_offer_outstanding() {
            // RFC 3311 section 5.2.
            return leg.refuse(desk, key, request, Reason::RequestPending);
        }
        let described = offer.map(|offer| leg.negotiate(desk, Some(offer))).transpose();
        let described = match described {
            Ok(described) => described,
            Err(reason) => return self.not_taken(desk, at, (key, request), reason, may_wait),
        };
        if leg.refresh_session(desk, key, request).is_err() {
            return;
        }
        leg.refresh_target(&request.headers);
        let session = described.as_ref().map(|(session, _)| session);
        let response = leg.success(desk, request, session);
        leg.respond(desk, key, &response);
        if let Some((_, Some(agreed))) = described {
            self.apply(desk, at, &agreed);
        }
    }
}

impl Leg {
    /// RFC 3261 section 14.2: one offer at a time.
    fn is_offer_outstanding(&self) -> bool {
        let ours = self.pending.is_some_and(Pending::is_invite);
        let unanswered = self.invite.as_ref().is_some_and(|invite| invite.wants_answer);
        // An early dialog may be changed once its first offer is answered (RFC 6337 section 3).
        let is_early = self.invite.as_ref().is_some_and(|invite| invite.described.is_some());
        let is_new = self.stage == Stage::Inviting && !(is_early && self.reliable.is_none());
        ours || unanswered || is_new || self.is_offered() || self.deferred.is_some()
    }

    fn negotiate(
        &mut self,
        desk: &mut Desk<'_>,
        offer: Option<Session>,
    ) -> Result<(Session, Option<Agreed>), Reason> {
        let media = self.media.as_mut().ok_or(Reason::RequestPending)?;
        match offer {
            Some(offer) => {
                let (session, agreed) = media.answer(&offer, desk.random)?;
                Ok((session, Some(agreed)))
            }
            None => Ok((media.offer(desk.random), None)),
        }
    }

    /// Takes the peer's new Contact.
    pub(crate) fn refresh_target(&mut self, headers: &Headers) {
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(headers);
        }
    }

    /// Tells the peer that the other side holds or resumes, with a re-INVITE; nothing where it is
    /// told that already.
    pub(crate) fn tell_direction(&mut self, desk: &mut Desk<'_>, wanted: media::Direction) {
        let present = self.media.as_ref().and_then(|media| media.plan()).map(|it| it.direction);
        if present.is_none() {
            return; // its first offer and answer are still to come
        }
        let is_pending = self.pending.is_some();
        let is_stale = self.media.as_ref().is_some_and(|media| media.is_stale(is_pending));
        let wanted = negotiate::worded(wanted);
        // What is on its way counts, not what it is about to change.
        let on_its_way = self.told.filter(|_| is_pending);
        let is_news = on_its_way.or(present.map(negotiate::worded)) != Some(wanted) || is_stale;
        self.to_tell = is_news.then_some(wanted);
        self.tell_pending(desk);
    }

    /// Tells what is still to be told, unless something else is under way: then it is looked at
    /// again when that is over.
    pub(crate) fn tell_pending(&mut self, desk: &mut Desk<'_>) {
        let is_busy = self.pending.is_some() || self.invite.is_some() || self.flow_lost;
        let is_busy = is_busy || self.retry_at.is_some() || self.deferred.is_some();
        if self.stage != Stage::Talking || is_busy {
            return;
        }
        let Some(direction) = self.to_tell.take() else { return };
        let offer = self.media.as_mut().and_then(|media| media.redirect(direction, desk.random));
        let Some(offer) = offer else { return };
        self.send_offer(desk, &offer);
        if self.pending.is_some() {
            self.told = Some(direction);
        }
    }

    /// A key to a peer that takes them by INFO.
    pub(crate) fn send_digit(&mut self, desk: &mut Desk<'_>, digit: char) {
        if self.stage != Stage::Talking || self.flow_lost {
            return;
        }
        self.send(desk, Method::Info, |info| {
            info.headers.set(Name::ContentType, "application/dtmf-relay");
            info.body = format!("Signal={digit}\r\nDuration={KEY_MS}\r\n").into();
        });
    }

    /// Keys by signalling: `application/dtmf-relay` and `application/dtmf`, as PBXs send them.
    fn on_info(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: &Request) -> Option<char> {
        let kind = request.headers.content_type().ok().flatten();
        let digit = match kind.as_ref().map(|kind| kind.essence.as_str()) {
            None if request.body.is_empty() => None, // a probe
            Some("application/dtmf-relay") => signal(&request.body, "signal="),
            Some("application/dtmf") => signal(&request.body, ""),
            _ => {
                self.refuse(desk, key, request, Reason::UnsupportedBody);
                return None;
            }
        };
        let response = self.plain_ok(desk, request);
        self.respond(desk, key, &response);
        digit.filter(|_| self.terms.dtmf.contains(&policy::DtmfMethod::Info))
    }
}

/// How long a key is said to be pressed: what handsets send.
const KEY_MS: u32 = 160;

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
