//! The callee's side of a call's beginning: an INVITE that came, and how it is answered.

use base::{Instant, Random};
use sip::session_timer::SessionTermsError;
use sip::{
    AckWait, Dialog, Message, Method, Name, Received, Request, Response, ServerKey, SessionTerms,
    SessionTimer, Status, ids,
};

use super::UserAgentOutput;
use super::{AGENT, ALLOW, Confirming, Description, End, FLOW, Parties, Phase, UserAgent};
use crate::cause::{Cause, FarewellBy};

/// An INVITE without a final answer.
pub(super) struct Arrived {
    pub(super) key: ServerKey,
    request: Request,
    tag: String,
    /// Our description, once an early answer carried it: the 200 says the same.
    answer: Option<String>,
}

impl UserAgent {
    /// A call that came with this INVITE. It rings nowhere yet: [`Self::ring`], [`Self::early`],
    /// [`Self::answer`] and [`Self::refuse`] say what is sent. `None` where it is no INVITE that
    /// could be answered.
    pub(crate) fn arrived(
        now: Instant,
        parties: Parties,
        description: Description,
        random: Box<dyn Random + Send>,
        invite: Request,
    ) -> Option<Self> {
        let mut ua = Self::new(parties, description, random);
        ua.phase = Phase::Ringing;
        let message = Message::Request(invite);
        let received = ua.transactions.receive(now, FLOW, ua.parties.is_reliable, message);
        let Received::Request { key, request } = received else { return None };
        if request.method != Method::Invite {
            return None;
        }
        let tag = ids::new_tag(0, &mut *ua.random);
        ua.arrived = Some(Arrived { key, request, tag, answer: None });
        ua.pump(now);
        Some(ua)
    }

    /// Says that it rings: 180.
    pub(crate) fn ring(&mut self, now: Instant) {
        self.progress(now, Status::RINGING, None);
    }

    /// Sends early media: 183 with our answer, where the INVITE had an offer.
    pub(crate) fn early(&mut self, now: Instant) {
        let Some(arrived) = self.arrived.as_ref().filter(|it| !it.request.body.is_empty()) else {
            return self.ring(now);
        };
        let offer = arrived.request.body.clone();
        match self.description.answer(&offer, &mut *self.random) {
            Ok((agreed, session)) => {
                let answer = session.to_string();
                self.progress(now, Status::SESSION_PROGRESS, Some(&answer));
                if let Some(arrived) = &mut self.arrived {
                    arrived.answer = Some(answer);
                }
                self.outputs.push_back(UserAgentOutput::Early(Box::new(agreed)));
            }
            Err(reason) => self.refuse_for(now, Status::NOT_ACCEPTABLE_HERE, reason),
        }
    }

    fn progress(&mut self, now: Instant, status: Status, body: Option<&str>) {
        let Some(arrived) = self.arrived.as_ref().filter(|_| self.phase == Phase::Ringing) else {
            return;
        };
        let mut response = self.response(&arrived.request, status, &arrived.tag);
        if let Some(body) = body {
            response = response.with_body("application/sdp", body.to_owned());
        }
        let _ = self.transactions.respond(now, arrived.key, &response);
        self.status = Some(status);
        self.pump(now);
    }

    fn response(&self, invite: &Request, status: Status, tag: &str) -> Response {
        let mut response = Response::to(invite, status, Some(tag));
        response.headers.push(Name::Contact, format!("<{}>", self.parties.contact));
        response.headers.push(Name::Allow, ALLOW);
        response.headers.push(Name::UserAgent, AGENT);
        response
    }

    /// Refuses the call, with a cause (RFC 6432) where there is one.
    pub(crate) fn refuse(&mut self, now: Instant, status: Status, cause: Option<Cause>) {
        self.refuse_with(now, status, "refused", cause);
    }

    fn refuse_for(&mut self, now: Instant, status: Status, reason: &str) {
        self.refuse_with(now, status, reason, None);
    }

    fn refuse_with(&mut self, now: Instant, status: Status, reason: &str, cause: Option<Cause>) {
        let Some(arrived) = self.arrived.take() else { return };
        let mut response = Response::to(&arrived.request, status, Some(&arrived.tag));
        response.headers.push(Name::UserAgent, AGENT);
        cause.into_iter().for_each(|it| response.headers.push_header(it.header()));
        self.told(FarewellBy::Refusal(status.code()), cause);
        let _ = self.transactions.respond(now, arrived.key, &response);
        self.status = Some(status);
        self.pump(now);
        self.finish(End::failed(Some(status), reason));
    }

    /// The caller gave up: 487 (RFC 3261 section 9.2).
    pub(super) fn on_cancel(&mut self, now: Instant, invite: ServerKey, cancel: &Request) {
        let Some(arrived) = self.arrived.take_if(|it| it.key == invite) else { return };
        self.heard(FarewellBy::Cancel, Cause::of(&cancel.headers));
        let status = Status::REQUEST_TERMINATED;
        let response = Response::to(&arrived.request, status, Some(&arrived.tag));
        let _ = self.transactions.respond(now, arrived.key, &response);
        self.pump(now);
        self.finish(End::Cancelled);
    }

    /// Answers the call: 200, with our answer, or with our offer where the INVITE had none.
    pub(crate) fn answer(&mut self, now: Instant) {
        if self.phase != Phase::Ringing {
            return;
        }
        let Some(arrived) = self.arrived.take() else { return };
        let refused = |reason: &'static str| (Status::NOT_ACCEPTABLE_HERE, reason);
        let body = &arrived.request.body;
        let mut agreed = None;
        let made = if body.is_empty() {
            Ok(self.description.offer(&mut *self.random).to_string())
        } else if let Some(answer) = arrived.answer.clone() {
            // Media goes on as the early answer said.
            Ok(answer)
        } else {
            self.description.answer(body, &mut *self.random).map_err(refused).map(
                |(it, session)| {
                    agreed = Some(it);
                    session.to_string()
                },
            )
        };
        let dialog = Dialog::uas(&arrived.request, &arrived.tag)
            .map_err(|error| (error.status(), "sip.malformed_request"));
        let session = SessionTerms::default().answer(&arrived.request.headers);
        let (answer, dialog, agreement) = match (made, dialog, session) {
            (Ok(answer), Ok(dialog), Ok(agreement)) => (answer, dialog, agreement),
            (Err((status, reason)), ..) | (_, Err((status, reason)), _) => {
                self.arrived = Some(arrived);
                return self.refuse_for(now, status, reason);
            }
            (_, _, Err(error)) => {
                let (status, reason) = match error {
                    SessionTermsError::TooSmall { .. } => {
                        (Status::SESSION_INTERVAL_TOO_SMALL, "sip.session_interval")
                    }
                    SessionTermsError::Header(_) => (Status::BAD_REQUEST, "sip.malformed_request"),
                };
                self.arrived = Some(arrived);
                return self.refuse_for(now, status, reason);
            }
        };
        let has_offer = body.is_empty();
        let mut response = self.response(&arrived.request, Status::OK, &arrived.tag);
        response = response.with_body("application/sdp", answer);
        response.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
        if let Some(agreement) = agreement {
            agreement.write_answer(&mut response.headers);
            self.session_timer = Some(SessionTimer::new(now, agreement));
        }
        let allows = &arrived.request.headers;
        self.peer_takes_update = allows.has_token(Name::Allow, Method::Update.as_str());
        self.dialog = Some(dialog);
        self.phase = Phase::Up;
        self.status = Some(Status::OK);
        let _ = self.transactions.respond(now, arrived.key, &response);
        let wait = AckWait::new(now);
        self.confirming = Some(Confirming { key: arrived.key, response, wait, has_offer });
        if let Some(agreed) = agreed {
            self.outputs.push_back(UserAgentOutput::Agreed(Box::new(agreed)));
        }
        self.pump(now);
    }
}
