//! Refresh: session timers (RFC 4028), theirs answered and ours sent.

use std::time::Duration;

use base::{Reason, limit};
use sip::session_timer::{OPTION_TAG, SessionStep, SessionTermsError};
use sip::transaction::ServerKey;
use sip::{Method, Name, Request, Response, SessionAgreement, SessionTerms, SessionTimer};

use crate::desk::Desk;
use crate::hangup;
use crate::hold;
use crate::leg::{Leg, Pending};
use crate::negotiate::Agreed;

impl Leg {
    /// Agrees on a session timer with the INVITE.
    ///
    /// # Errors
    /// Why it was refused; the refusal is sent.
    pub(crate) fn accept_session_timer(&mut self, desk: &mut Desk<'_>) -> Result<(), Reason> {
        let invite = self.invite.as_ref().ok_or(Reason::Internal)?;
        let (key, request) = (invite.key, invite.request.clone());
        self.refresh_session(desk, key, &request)
    }

    /// Takes the terms of an INVITE or UPDATE.
    ///
    /// # Errors
    /// Why it was refused; the refusal is sent.
    pub(crate) fn refresh_session(
        &mut self,
        desk: &mut Desk<'_>,
        key: ServerKey,
        request: &Request,
    ) -> Result<(), Reason> {
        match SessionTerms::default().answer(&request.headers) {
            Ok(Some(agreement)) => {
                self.agreement = Some(agreement);
                self.start_session_timer(desk, agreement);
                Ok(())
            }
            Ok(None) => {
                self.agreement = None;
                self.session = None;
                Ok(())
            }
            Err(SessionTermsError::TooSmall { min }) => {
                let mut response = desk.refusal(request, Reason::SessionIntervalTooSmall, true);
                response.headers.set(Name::MinSe, min.to_string());
                self.respond(desk, key, &response);
                Err(Reason::SessionIntervalTooSmall)
            }
            Err(SessionTermsError::Header(_)) => {
                self.refuse(desk, key, request, Reason::Malformed);
                Err(Reason::Malformed)
            }
        }
    }

    pub(crate) fn start_session_timer(&mut self, desk: &Desk<'_>, agreement: SessionAgreement) {
        self.session = Some(SessionTimer::new(desk.now, agreement));
    }

    /// Session-Expires and Require in a 2xx (RFC 4028 section 9).
    pub(crate) fn write_session_timer(&self, response: &mut Response) {
        if let Some(agreement) = &self.agreement {
            agreement.write_answer(&mut response.headers);
        }
    }

    /// Refreshes the session when its timer says so.
    ///
    /// # Errors
    /// It has expired.
    pub(crate) fn on_session_timeout(&mut self, desk: &mut Desk<'_>) -> Result<(), Reason> {
        if self.retry_at.is_some_and(|at| at <= desk.now) {
            self.retry_at = None;
            if self.to_tell.is_some() {
                self.tell_pending(desk);
            } else {
                self.send_refresh(desk);
            }
            return Ok(());
        }
        match self.session.as_mut().map(|session| session.handle_timeout(desk.now)) {
            Some(SessionStep::Refresh) => self.send_refresh(desk),
            Some(SessionStep::Expired) => return Err(Reason::SessionExpired),
            Some(SessionStep::Wait) | None => {}
        }
        Ok(())
    }

    /// UPDATE where the peer takes it, since it needs no offer; otherwise a re-INVITE that
    /// repeats our description (RFC 4028 section 7.4).
    pub(crate) fn send_refresh(&mut self, desk: &mut Desk<'_>) {
        if self.pending.is_some() {
            return;
        }
        if self.flow_lost {
            // Where there is nowhere to connect to, the peer may still come back.
            self.pending = self.reconnect(desk).then_some(Pending::Reconnect);
            return;
        }
        if self.peer_allows_update {
            return self.send_change(desk, Method::Update, None);
        }
        let offer = self.media.as_mut().and_then(|media| media.repeat());
        self.send_change(desk, Method::Invite, offer.as_ref());
    }

    /// Sends a re-INVITE with an offer; it refreshes the session as well.
    pub(crate) fn send_offer(&mut self, desk: &mut Desk<'_>, offer: &sdp::Session) {
        self.send_change(desk, Method::Invite, Some(offer));
    }

    fn send_change(&mut self, desk: &mut Desk<'_>, method: Method, offer: Option<&sdp::Session>) {
        let is_invite = method == Method::Invite;
        let terms = self.refresh_terms();
        // A peer without session timers is not asked for one in the middle of a call.
        let current = self.session.clone();
        let sent = self.send(desk, method, |request| {
            if current.is_some() {
                terms.write_request(current.as_ref(), &mut request.headers);
            }
            request.headers.push(Name::Supported, OPTION_TAG);
            if let Some(offer) = offer {
                request.headers.set(Name::ContentType, "application/sdp");
                request.body = offer.to_string().into();
            }
        });
        self.reinvite = sent.filter(|_| is_invite);
        self.pending = sent.map(|key| Pending::Refresh { key, is_invite });
    }

    /// What we ask for in a refresh: what was agreed, or more where the peer wants more.
    fn refresh_terms(&self) -> SessionTerms {
        let terms = SessionTerms::default();
        let interval = self.agreement.map_or(terms.interval, |agreement| agreement.seconds);
        match self.raised {
            Some(raised) => SessionTerms { interval: interval.max(raised.interval), ..raised },
            None => SessionTerms { interval, ..terms },
        }
    }

    /// The answer to our refresh; `None` is a timeout. What was agreed, where it was a re-INVITE.
    ///
    /// # Errors
    /// The peer is gone, or what it answers cannot be used: the call is to end.
    pub(crate) fn on_refresh_response(
        &mut self,
        desk: &mut Desk<'_>,
        response: Option<&Response>,
        is_invite: bool,
    ) -> Result<Option<Agreed>, Reason> {
        let response = response.ok_or(Reason::PeerGone)?;
        let told = self.told.take();
        if response.status.is_success() {
            (self.refusals, self.retry_at) = (0, None);
            self.refresh_target(&response.headers);
            let agreement = SessionTerms::default().accept(&response.headers).ok().flatten();
            if let Some(agreement) = agreement.or(self.agreement) {
                self.agreement = Some(agreement);
                self.start_session_timer(desk, agreement);
            }
            if is_invite {
                return self.on_reinvite_answered(response).map(Some);
            }
            return Ok(None);
        }
        if response.status.code() == 491 && self.to_tell.is_none() {
            self.to_tell = told;
        }
        self.on_refresh_refused(desk, response, is_invite)?;
        Ok(None)
    }

    /// The session stays as it was; where nothing helps, its expiry ends it (RFC 4028 section 10).
    fn on_refresh_refused(
        &mut self,
        desk: &mut Desk<'_>,
        response: &Response,
        is_invite: bool,
    ) -> Result<(), Reason> {
        self.refusals = self.refusals.saturating_add(1);
        let may_hurry = self.refusals <= limit::CALL_REFRESH_TRIES.value;
        let asked = response.headers.seconds(Name::RetryAfter).ok().flatten();
        let raised = self.refresh_terms().raised(&response.headers);
        match response.status.code() {
            _ if hangup::ends_dialog(response.status) => return Err(Reason::PeerGone),
            491 if may_hurry => {
                // RFC 3261 section 14.1: who chose the Call-ID waits for 2.1 to 4 seconds, the
                // other side for up to 2, in steps of 10 ms.
                let steps = match self.is_inbound {
                    true => desk.random.below(201),
                    false => 210 + desk.random.below(191),
                };
                let wait = Duration::from_millis(u64::from(steps) * 10);
                self.retry_at = Some(desk.now + wait);
            }
            // RFC 4028 section 7.3.
            422 if may_hurry && raised.is_some() => {
                self.raised = raised;
                self.send_refresh(desk);
            }
            405 | 501 if !is_invite => {
                self.peer_allows_update = false;
                self.send_refresh(desk);
            }
            // RFC 3261 section 20.33.
            _ if may_hurry && asked.is_some() => self.try_refresh_later(desk, asked),
            // What passes: glare, overload, a fault of theirs.
            491 | 500 | 503 | 504 => self.try_refresh_later(desk, None),
            // What lasts is asked once more, in the other form where there is one, and then left
            // alone: RFC 4028 section 10 warns of asking again and again.
            _ if self.refusals == 1 => {
                self.peer_allows_update = false;
                self.try_refresh_later(desk, None);
            }
            _ => {}
        }
        Ok(())
    }

    /// Tries again after as many seconds as the peer asked for, or when it seems best.
    pub(crate) fn try_refresh_later(&mut self, desk: &Desk<'_>, asked: Option<u32>) {
        let asked = asked.map(|seconds| Duration::from_secs(u64::from(seconds)));
        let session = self.session.as_ref();
        self.retry_at = session.and_then(|session| session.retry_at(desk.now, asked));
    }

    fn on_reinvite_answered(&mut self, response: &Response) -> Result<Agreed, Reason> {
        let answer = hold::description_in(&response.headers, &response.body)?;
        let media = self.media.as_mut().ok_or(Reason::Internal)?;
        media.accept(&answer.ok_or(Reason::SdpMalformed)?)
    }
}
