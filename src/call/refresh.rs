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
use crate::leg::{Call, Pending};

impl Call {
    /// Agrees on a session timer with the INVITE; `false` where it was refused and the call is
    /// over before it began.
    pub(crate) fn accept_session_timer(&mut self, desk: &mut Desk<'_>) -> bool {
        let Some(invite) = self.invite.take() else { return false };
        let goes_on = self.refresh_session(desk, invite.key, &invite.request);
        if goes_on {
            self.invite = Some(invite);
        } else {
            self.finish(desk, Reason::SessionIntervalTooSmall);
        }
        goes_on
    }

    /// Takes the terms of an INVITE or UPDATE; `false` where it was answered with a refusal.
    pub(crate) fn refresh_session(
        &mut self,
        desk: &mut Desk<'_>,
        key: ServerKey,
        request: &Request,
    ) -> bool {
        match SessionTerms::default().answer(&request.headers) {
            Ok(Some(agreement)) => {
                self.agreement = Some(agreement);
                self.start_session_timer(desk, agreement);
                true
            }
            Ok(None) => {
                self.agreement = None;
                self.session = None;
                true
            }
            Err(SessionTermsError::TooSmall { min }) => {
                let mut response = desk.refusal(request, Reason::SessionIntervalTooSmall, true);
                response.headers.set(Name::MinSe, min.to_string());
                self.respond(desk, key, &response);
                false
            }
            Err(SessionTermsError::Header(_)) => {
                self.refuse(desk, key, request, Reason::Malformed);
                false
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
    fn send_refresh(&mut self, desk: &mut Desk<'_>) {
        if self.pending.is_some() || self.flow_lost {
            return;
        }
        let is_invite = !self.peer_allows_update;
        let method = if is_invite { Method::Invite } else { Method::Update };
        let terms = SessionTerms {
            interval: self.agreement.map_or(1_800, |agreement| agreement.seconds),
            ..SessionTerms::default()
        };
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
        self.pending = sent.map(|key| Pending::Refresh { key, is_invite });
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
        } else if hangup::ends_dialog(response.status) {
            self.hang_up(desk, Reason::PeerGone);
        } else if matches!(response.status.code(), 405 | 501) && !is_invite {
            self.peer_allows_update = false;
            self.send_refresh(desk);
        }
        // What else is refused leaves the session as it is; its expiry decides.
    }

    fn on_reinvite_answered(&mut self, desk: &mut Desk<'_>, response: &Response) {
        let Ok(cseq) = response.headers.cseq() else { return };
        let ack = self.dialog.ack(cseq.number);
        let message = desk.send_ack(&self.peer, self.zone().as_deref(), ack);
        self.ladder.note(desk, false, &Message::Request(message));
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
