//! Refresh: session timers (RFC 4028), theirs answered and ours sent.

use std::time::Duration;

use base::Reason;
use sip::session_timer::{OPTION_TAG, SessionStep, SessionTermsError};
use sip::transaction::ServerKey;
use sip::{
    Message, Method, Name, Request, Response, SessionAgreement, SessionTerms, SessionTimer, Status,
};

use crate::desk::Desk;
use crate::hangup;
use crate::leg::{Call, Pending, Stage};

impl Call {
    /// Agrees on a session timer with the INVITE; `false` where it was refused and the call is
    /// over before it began.
    pub(crate) fn accept_session_timer(&mut self, desk: &mut Desk<'_>) -> bool {
        let Some(invite) = &self.invite else { return false };
        let (key, request) = (invite.key, invite.request.clone());
        match self.refresh_session(desk, key, &request) {
            Ok(()) => true,
            Err(reason) => {
                self.finish(desk, reason);
                self.stage = Stage::Gone;
                false
            }
        }
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

    fn start_session_timer(&mut self, desk: &Desk<'_>, agreement: SessionAgreement) {
        self.session = Some(SessionTimer::new(desk.now, agreement));
    }

    /// Session-Expires and Require in a 2xx (RFC 4028 section 9).
    pub(crate) fn write_session_timer(&self, response: &mut Response) {
        if let Some(agreement) = &self.agreement {
            agreement.write_answer(&mut response.headers);
        }
    }

    /// Refreshes or ends the session when its timer says so.
    pub(crate) fn on_session_timeout(&mut self, desk: &mut Desk<'_>) {
        if self.retry_at.is_some_and(|at| at <= desk.now) {
            self.retry_at = None;
            return self.send_refresh(desk);
        }
        match self.session.as_mut().map(|session| session.handle_timeout(desk.now)) {
            Some(SessionStep::Refresh) => self.send_refresh(desk),
            Some(SessionStep::Expired) => self.hang_up(desk, Reason::SessionExpired),
            Some(SessionStep::Wait) | None => {}
        }
    }

    /// UPDATE where the peer takes it, since it needs no offer; otherwise a re-INVITE that
    /// repeats our description (RFC 4028 section 7.4).
    pub(crate) fn send_refresh(&mut self, desk: &mut Desk<'_>) {
        if self.pending.is_some() {
            return;
        }
        if self.flow_lost {
            // Where there is nowhere to connect to, the peer may still come back.
            self.pending = self.connect(desk).then_some(Pending::Reconnect);
            return;
        }
        let is_invite = !self.peer_allows_update;
        let method = if is_invite { Method::Invite } else { Method::Update };
        let terms = self.refresh_terms();
        let offer = self.media.as_mut().filter(|_| is_invite).map(|media| media.repeat());
        let current = self.session.clone();
        let sent = self.send(desk, method, |request| {
            terms.write_request(current.as_ref(), &mut request.headers);
            request.headers.push(Name::Supported, OPTION_TAG);
            if let Some(Some(offer)) = offer {
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

    /// The answer to our refresh; `None` is a timeout.
    pub(crate) fn on_refresh_response(
        &mut self,
        desk: &mut Desk<'_>,
        response: Option<&Response>,
        is_invite: bool,
    ) {
        let Some(response) = response else {
            return self.hang_up(desk, Reason::PeerGone);
        };
        if response.status.is_success() {
            self.dialog.refresh_target(&response.headers);
            let agreement = SessionTerms::default().accept(&response.headers).ok().flatten();
            if let Some(agreement) = agreement.or(self.agreement) {
                self.agreement = Some(agreement);
                self.start_session_timer(desk, agreement);
            }
            if is_invite {
                self.on_reinvite_answered(desk, response);
            }
        } else if response.status == Status::REQUEST_PENDING {
            // RFC 3261 section 14.1: we did not choose the Call-ID, so up to two seconds.
            let wait = Duration::from_millis(u64::from(desk.random.below(200)) * 10);
            self.retry_at = Some(desk.now + wait);
        } else if response.status.code() == 422 {
            // RFC 4028 section 7.3. Each one asks for more than the last, and the session's own
            // expiry goes on.
            let Some(raised) = self.refresh_terms().raised(&response.headers) else { return };
            self.raised = Some(raised);
            self.send_refresh(desk);
        } else if hangup::ends_dialog(response.status) {
            self.hang_up(desk, Reason::PeerGone);
        } else if matches!(response.status.code(), 405 | 501) && !is_invite {
            self.peer_allows_update = false;
            self.send_refresh(desk);
        }
        // What else is refused leaves the session as it is; its expiry decides.
    }

    /// The ACK of a 2xx to our re-INVITE, each time that it comes (RFC 3261 section 13.2.2.4).
    pub(crate) fn acknowledge(&mut self, desk: &mut Desk<'_>, response: &Response) {
        let Ok(cseq) = response.headers.cseq() else { return };
        let ack = self.dialog.ack(cseq.number);
        let message = desk.send_ack(&self.peer, self.zone().as_deref(), ack);
        self.ladder.note(desk, false, &Message::Request(message));
    }

    fn on_reinvite_answered(&mut self, desk: &mut Desk<'_>, response: &Response) {
        let answer = sdp::Session::parse(&response.body).ok();
        let agreed = match (answer, self.media.as_mut()) {
            (Some(answer), Some(media)) => media.accept(&answer),
            _ => Err(Reason::SdpMalformed),
        };
        match agreed {
            Ok(agreed) => self.apply(desk, agreed, false),
            Err(reason) => self.hang_up(desk, reason),
        }
    }
}
