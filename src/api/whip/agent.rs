//! The SIP user agent of one WHIP session, without I/O: it calls with the browser's offer, tells
//! the answer, restarts ICE with a re-INVITE, keeps the session alive (RFC 4028), answers what the
//! calls ask within the dialog, and hangs up.
//!
//! Reliable provisional responses are not offered: a browser has no use for early media here.

use std::collections::VecDeque;
use std::time::Duration;

use base::{Instant, Random, Reason};
use bytes::Bytes;
use sdp::Session;
use sip::{
    AckWait, AckWaitStep, ClientKey, Dialog, DialogId, FlowId, Host, Message, Method, Name,
    NameAddr, Received, Request, Response, ServerKey, SessionTerms, SessionTimer, Status,
    TransactionOutput, Transactions, Uri, Via, ids,
};

use super::mirror;

/// Who calls whom.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    /// The user of its address: an id without secret.
    pub(crate) user: String,
    /// The caller as others see it.
    pub(crate) asserted: NameAddr,
    /// Who is called.
    pub(crate) called: Uri,
}

/// Why the calls refused something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The SIP status.
    pub(crate) status: Status,
    /// The catalogued reason, where it was told.
    pub(crate) reason: Option<Reason>,
    /// Seconds.
    pub(crate) retry_after: Option<u32>,
}

impl Refusal {
    const fn of(status: Status) -> Self {
        Self { status, reason: None, retry_after: None }
    }

    fn read(response: &Response) -> Self {
        Self {
            status: response.status,
            reason: reason_of(&response.headers),
            retry_after: response.headers.seconds(Name::RetryAfter).ok().flatten(),
        }
    }
}

/// The code of ours in a Warning (RFC 3261 section 20.43).
fn reason_of(headers: &sip::Headers) -> Option<Reason> {
    let text = headers.text(Name::Warning)?;
    let quoted = text.split('"').nth(1)?;
    Reason::ALL.iter().copied().find(|reason| reason.code() == quoted)
}

/// What the agent wants done.
#[derive(Debug)]
pub(crate) enum Act {
    /// Hand this on to the calls.
    Send(Bytes),
    /// The call was answered with this description.
    Answered(Box<Session>),
    /// It was not.
    Refused(Refusal),
    /// ICE was restarted, and this is the answer.
    Restarted(Box<Session>),
    /// It was not; the session goes on.
    NotRestarted(Refusal),
    /// The session is over.
    Over,
}

enum Stage {
    Calling { key: ClientKey, is_given_up: bool },
    Up,
    Over,
}

/// A request of ours within the dialog that waits for its answer.
struct Pending {
    key: ClientKey,
    what: Asked,
}

enum Asked {
    /// A re-INVITE with this offer.
    Restart(Box<Session>),
    /// An UPDATE that keeps the session alive.
    Refresh,
}

/// See the module's documentation.
pub(crate) struct Agent {
    transactions: Transactions,
    flow: FlowId,
    random: Box<dyn Random + Send>,
    stage: Stage,
    invite: Request,
    dialog: Option<Dialog>,
    /// What the browser has said, as last sent.
    ours: Session,
    /// What it was answered.
    theirs: Option<Session>,
    /// The name in our Via, and our Contact.
    place: Host,
    contact: String,
    pending: Option<Pending>,
    /// Our BYE that waits for its answer.
    bye: Option<ClientKey>,
    /// The ACK of our latest INVITE: its CSeq, and what to send again.
    ack: Option<(u32, Bytes)>,
    /// Our 200 to their INVITE that waits for its ACK.
    awaiting: Option<(ServerKey, Response, AckWait)>,
    terms: SessionTerms,
    timer: Option<SessionTimer>,
    /// When a refresh that was refused is tried again.
    retry_at: Option<Instant>,
    acts: VecDeque<Act>,
}

impl Agent {
    /// An agent that calls now.
    pub(crate) fn call(
        now: Instant,
        flow: FlowId,
        parties: &Parties,
        offer: Session,
        mut random: Box<dyn Random + Send>,
    ) -> Self {
        let place = Host::Name(format!("{}.invalid", ids::new_call_id(&mut *random)).into());
        let contact = NameAddr::new(
            Uri::sip(Some(&parties.user), &place, None).with_param("transport", Some("ws")),
        );
        let terms = SessionTerms::default();
        let invite = first_invite(parties, &mut *random);
        let mut agent = Self {
            transactions: Transactions::new(0, &mut *random).without_automatic_trying(),
            flow,
            random,
            stage: Stage::Over,
            invite,
            dialog: None,
            ours: offer,
            theirs: None,
            place,
            contact: contact.to_string(),
            pending: None,
            bye: None,
            ack: None,
            awaiting: None,
            terms,
            timer: None,
            retry_at: None,
            acts: VecDeque::new(),
        };
        agent.send_first(now);
        agent
    }

    fn send_first(&mut self, now: Instant) {
        let mut invite = self.invite.clone();
        self.finish_request(&mut invite);
        self.terms.write_request(None, &mut invite.headers);
        let invite = invite.with_body(SDP, self.ours.to_string());
        match self.transactions.request(now, self.flow, true, invite.clone()) {
            Ok(key) => self.stage = Stage::Calling { key, is_given_up: false },
            Err(_) => self.refused(Refusal::of(Status::SERVICE_UNAVAILABLE)),
        }
        self.invite = invite;
        self.settle(now);
    }

    /// Asks the calls for new ICE credentials, with an offer that has the browser's new ones.
    pub(crate) fn restart(&mut self, now: Instant, offer: Session) {
        let is_busy = self.pending.is_some() || self.awaiting.is_some();
        let Some(dialog) = self.dialog.as_mut().filter(|_| matches!(self.stage, Stage::Up)) else {
            let gone = Refusal::of(Status::CALL_DOES_NOT_EXIST);
            return self.acts.push_back(Act::NotRestarted(gone));
        };
        if is_busy {
            let pending = Refusal::of(Status::REQUEST_PENDING);
            return self.acts.push_back(Act::NotRestarted(pending));
        }
        let mut invite = dialog.request(Method::Invite);
        self.finish_request(&mut invite);
        self.terms.write_request(self.timer.as_ref(), &mut invite.headers);
        let invite = invite.with_body(SDP, offer.to_string());
        match self.transactions.request(now, self.flow, true, invite) {
            Ok(key) => self.pending = Some(Pending { key, what: Asked::Restart(Box::new(offer)) }),
            Err(_) => {
                let full = Refusal::of(Status::SERVICE_UNAVAILABLE);
                self.acts.push_back(Act::NotRestarted(full));
            }
        }
        self.settle(now);
    }

    /// Ends the call, or gives it up before its answer.
    pub(crate) fn hang_up(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Calling { key, is_given_up } => {
                if !core::mem::replace(is_given_up, true) {
                    let key = *key;
                    self.transactions.cancel(now, key, None);
                }
            }
            Stage::Up => self.bye(now),
            Stage::Over => {}
        }
        self.settle(now);
    }

    /// The flow to the calls is gone.
    pub(crate) fn flow_gone(&mut self, now: Instant) {
        self.transactions.flow_failed(now, self.flow);
        self.settle(now);
        match self.stage {
            Stage::Calling { .. } => self.refused(Refusal::of(Status::SERVICE_UNAVAILABLE)),
            Stage::Up => self.over(),
            Stage::Over => {}
        }
    }

    /// Takes a message of the calls.
    pub(crate) fn handle_message(&mut self, now: Instant, message: Message) {
        match self.transactions.receive(now, self.flow, true, message) {
            Received::Request { key, request } => self.handle_request(now, key, &request),
            Received::Response { key, response } => self.handle_response(now, key, &response),
            Received::Ack { .. } => self.awaiting = None,
            Received::Overloaded(request) => {
                let tag = self.tag();
                let busy = Response::to(&request, Status::SERVICE_UNAVAILABLE, Some(&tag));
                self.transactions.send(self.flow, &busy.into());
            }
            // Every INVITE of theirs is answered at once, so that a CANCEL comes too late.
            Received::Cancelled { .. } | Received::Stray(_) | Received::Absorbed(_) => {}
        }
        self.settle(now);
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        self.repeat_answer(now);
        if self.retry_at.take_if(|at| *at <= now).is_some() {
            self.refresh(now);
        }
        match self.timer.as_mut().map(|timer| timer.handle_timeout(now)) {
            Some(sip::session_timer::SessionStep::Refresh) => self.refresh(now),
            Some(sip::session_timer::SessionStep::Expired) => self.bye(now),
            Some(sip::session_timer::SessionStep::Wait) | None => {}
        }
        self.settle(now);
    }

    /// When [`Agent::handle_timeout`] is next to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.timer.as_ref().map(SessionTimer::poll_timeout);
        let awaiting = self.awaiting.as_ref().map(|(_, _, wait)| wait.poll_timeout());
        [self.transactions.poll_timeout(), timer, awaiting, self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// The next thing to do; drain until `None`.
    pub(crate) fn poll_output(&mut self) -> Option<Act> {
        self.acts.pop_front()
    }

    /// Whether nothing is left to send or to wait for. A flow is reliable: nothing comes again that
    /// would have to be answered again.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Over) && self.bye.is_none() && self.acts.is_empty()
    }

    /// What the browser has said last.
    pub(crate) const fn ours(&self) -> &Session {
        &self.ours
    }

    fn tag(&mut self) -> String {
        // Never the name of a shard: the door reads shards out of the calls' own tags only.
        ids::new_call_id(&mut *self.random)
    }

    fn via(&mut self) -> Via {
        let branch = format!("z9hG4bK{}", ids::new_call_id(&mut *self.random));
        Via::new("WSS", self.place.clone(), None, &branch)
    }

    /// Gives a request of ours its Via, Contact and capabilities.
    fn finish_request(&mut self, request: &mut Request) {
        let via = self.via();
        request.headers.push_via(&via);
        if request.method.refreshes_target() {
            request.headers.push(Name::Contact, &self.contact);
            request.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
            request.headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
        }
        request.headers.push(Name::UserAgent, USER_AGENT);
    }

    fn handle_response(&mut self, now: Instant, key: ClientKey, response: &Response) {
        if response.status.is_provisional() {
            return;
        }
        let is_first = matches!(self.stage, Stage::Calling { key: calling, .. } if calling == key);
        if is_first {
            return match response.status.is_success() {
                true => self.answered(now, response),
                false => self.not_answered(now, response),
            };
        }
        if self.bye.take_if(|bye| *bye == key).is_some() {
            return;
        }
        if self.pending.as_ref().is_some_and(|pending| pending.key == key) {
            if let Some(pending) = self.pending.take() {
                self.handle_pending(now, pending.what, response);
            }
            return;
        }
        // A 200 that comes again: so must its ACK (RFC 3261 section 13.2.2.4).
        let cseq = response.headers.cseq().ok();
        if let (Some((number, ack)), Some(cseq)) = (&self.ack, cseq)
            && cseq.method == Method::Invite
            && cseq.number == *number
            && response.status.is_success()
        {
            self.acts.push_back(Act::Send(ack.clone()));
        }
    }

    fn answered(&mut self, now: Instant, response: &Response) {
        let Stage::Calling { is_given_up, .. } = self.stage else { return };
        let Ok(dialog) = Dialog::uac(&self.invite, response) else {
            // Nothing says where an ACK or a BYE would go.
            return self.refused(Refusal::of(Status::BAD_GATEWAY));
        };
        self.dialog = Some(dialog);
        self.send_ack(response);
        self.stage = Stage::Up;
        if is_given_up {
            self.bye(now);
            return;
        }
        let Some(answer) = description(&response.headers, &response.body) else {
            self.acts.push_back(Act::Refused(Refusal::of(Status::BAD_GATEWAY)));
            self.bye(now);
            return;
        };
        let agreed = self.terms.accept(&response.headers).ok().flatten();
        self.timer = agreed.map(|agreed| SessionTimer::new(now, agreed));
        self.theirs = Some(answer.clone());
        self.acts.push_back(Act::Answered(Box::new(answer)));
    }

    fn not_answered(&mut self, now: Instant, response: &Response) {
        if response.status == Status::SESSION_INTERVAL_TOO_SMALL
            && let Some(raised) = self.terms.raised(&response.headers)
            && !matches!(self.stage, Stage::Calling { is_given_up: true, .. })
        {
            self.terms = raised;
            let headers = &mut self.invite.headers;
            let names = [
                Name::Via,
                Name::Contact,
                Name::Supported,
                Name::Allow,
                Name::UserAgent,
                Name::SessionExpires,
                Name::MinSe,
                Name::ContentType,
            ];
            names.into_iter().for_each(|name| headers.remove(name));
            if let Ok(cseq) = headers.cseq() {
                headers.set(Name::CSeq, format!("{} INVITE", cseq.number.saturating_add(1)));
            }
            return self.send_first(now);
        }
        self.refused(Refusal::read(response));
    }

    fn handle_pending(&mut self, now: Instant, asked: Asked, response: &Response) {
        let is_gone = matches!(
            response.status,
            Status::CALL_DOES_NOT_EXIST | Status::REQUEST_TIMEOUT | Status::GONE
        );
        if !response.status.is_success() {
            match asked {
                Asked::Restart(_) => {
                    self.acts.push_back(Act::NotRestarted(Refusal::read(response)));
                }
                Asked::Refresh => self.retry_refresh(now, response),
            }
            // RFC 3261 section 12.2.1.2.
            if is_gone {
                self.bye(now);
            }
            return;
        }
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(&response.headers);
        }
        let agreed = self.terms.accept(&response.headers).ok().flatten();
        self.timer = agreed.map(|agreed| SessionTimer::new(now, agreed));
        let Asked::Restart(offer) = asked else { return };
        self.send_ack(response);
        match description(&response.headers, &response.body) {
            Some(answer) => {
                (self.ours, self.theirs) = (*offer, Some(answer.clone()));
                self.acts.push_back(Act::Restarted(Box::new(answer)));
            }
            None => {
                // Nobody knows any more what holds (RFC 3261 section 13.2.2.4).
                self.acts.push_back(Act::NotRestarted(Refusal::of(Status::BAD_GATEWAY)));
                self.bye(now);
            }
        }
    }

    /// Acknowledges a 2xx to an INVITE of ours.
    fn send_ack(&mut self, response: &Response) {
        let Ok(cseq) = response.headers.cseq() else { return };
        let Some(mut ack) = self.dialog.as_ref().map(|dialog| dialog.ack(cseq.number)) else {
            return;
        };
        self.finish_request(&mut ack);
        let bytes = ack.to_bytes();
        self.ack = Some((cseq.number, bytes.clone()));
        self.acts.push_back(Act::Send(bytes));
    }

    fn refresh(&mut self, now: Instant) {
        if self.pending.is_some() || !matches!(self.stage, Stage::Up) {
            return; // what is pending refreshes as well
        }
        let Some(dialog) = &mut self.dialog else { return };
        let mut update = dialog.request(Method::Update);
        self.finish_request(&mut update);
        self.terms.write_request(self.timer.as_ref(), &mut update.headers);
        if let Ok(key) = self.transactions.request(now, self.flow, true, update) {
            self.pending = Some(Pending { key, what: Asked::Refresh });
        }
    }

    /// A refresh was refused: the timer's end comes, unless another try is due before.
    fn retry_refresh(&mut self, now: Instant, response: &Response) {
        let asked = response.headers.seconds(Name::RetryAfter).ok().flatten();
        let asked = asked.map(|seconds| Duration::from_secs(u64::from(seconds)));
        self.retry_at = self.timer.as_ref().and_then(|timer| timer.retry_at(now, asked));
    }

    fn bye(&mut self, now: Instant) {
        if !matches!(self.stage, Stage::Up) {
            return;
        }
        if let Some(dialog) = &mut self.dialog {
            let mut bye = dialog.request(Method::Bye);
            self.finish_request(&mut bye);
            // Where there is no room for it, the end of the flow tells the calls.
            self.bye = self.transactions.request(now, self.flow, true, bye).ok();
        }
        self.over();
    }

    fn refused(&mut self, refusal: Refusal) {
        self.acts.push_back(Act::Refused(refusal));
        self.over();
    }

    fn over(&mut self) {
        if let Some(Pending { what: Asked::Restart(_), .. }) = self.pending.take() {
            let gone = Refusal::of(Status::CALL_DOES_NOT_EXIST);
            self.acts.push_back(Act::NotRestarted(gone));
        }
        (self.timer, self.retry_at, self.awaiting) = (None, None, None);
        self.stage = Stage::Over;
        self.acts.push_back(Act::Over);
    }

    /// Passes on what the transactions want.
    fn settle(&mut self, now: Instant) {
        while let Some(output) = self.transactions.poll_output() {
            match output {
                TransactionOutput::Send { bytes, .. } => self.acts.push_back(Act::Send(bytes)),
                TransactionOutput::Timeout { key } => {
                    self.failed(now, key, Status::REQUEST_TIMEOUT);
                }
                TransactionOutput::TransportFailed { key } => {
                    self.failed(now, key, Status::SERVICE_UNAVAILABLE);
                }
                TransactionOutput::ServerGone { .. } | TransactionOutput::Terminated { .. } => {}
            }
        }
    }

    /// A request of ours had no answer (RFC 3261 section 8.1.3.1).
    fn failed(&mut self, now: Instant, key: ClientKey, status: Status) {
        if matches!(self.stage, Stage::Calling { key: calling, .. } if calling == key) {
            return self.refused(Refusal::of(status));
        }
        self.bye.take_if(|bye| *bye == key);
        if self.pending.as_ref().is_some_and(|pending| pending.key == key) {
            if let Some(Pending { what: Asked::Restart(_), .. }) = self.pending.take() {
                self.acts.push_back(Act::NotRestarted(Refusal::of(status)));
            }
            self.bye(now);
        }
    }

    fn handle_request(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let tag = self.tag();
        let is_ours = match (DialogId::of_request(request), &self.dialog) {
            (Some(id), Some(dialog)) => id == *dialog.id(),
            _ => false,
        };
        let status = match request.method {
            Method::Options if request.headers.to_tag().is_none() => Status::OK,
            _ if !is_ours || matches!(self.stage, Stage::Over) => Status::CALL_DOES_NOT_EXIST,
            _ => match self.dialog.as_mut().map(|dialog| dialog.receive(request)) {
                Some(Ok(())) => return self.handle_within(now, key, request),
                _ => Status::SERVER_INTERNAL_ERROR,
            },
        };
        self.respond(now, key, &Response::to(request, status, Some(&tag)));
    }

    /// A request of the dialog, in order.
    fn handle_within(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let status = match request.method {
            Method::Invite | Method::Update => return self.reoffered(now, key, request),
            Method::Bye => Status::OK,
            Method::Options => Status::OK,
            Method::Info if request.body.is_empty() => Status::OK,
            // The browser hears of no digits: it has no signalling to hear them by.
            Method::Info => Status::UNSUPPORTED_MEDIA_TYPE,
            _ => Status::METHOD_NOT_ALLOWED,
        };
        let mut response = Response::to(request, status, None);
        if status == Status::METHOD_NOT_ALLOWED {
            response.headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
        }
        self.respond(now, key, &response);
        if request.method == Method::Bye {
            self.over();
        }
    }

    /// The calls offer anew, or ask what holds, or keep the session alive.
    fn reoffered(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let is_invite = request.method == Method::Invite;
        let offer = description(&request.headers, &request.body);
        let refuse = |status| Response::to(request, status, None);
        if self.pending.is_some() || (is_invite && self.awaiting.is_some()) {
            // RFC 3261 section 14.2.
            return self.respond(now, key, &refuse(Status::REQUEST_PENDING));
        }
        let agreed = match self.terms.answer(&request.headers) {
            Ok(agreed) => agreed,
            Err(sip::session_timer::SessionTermsError::TooSmall { min }) => {
                let mut response = refuse(Status::SESSION_INTERVAL_TOO_SMALL);
                response.headers.set(Name::MinSe, min.to_string());
                return self.respond(now, key, &response);
            }
            Err(_) => return self.respond(now, key, &refuse(Status::BAD_REQUEST)),
        };
        let said = match (&offer, &self.theirs) {
            (Some(offer), Some(theirs)) => mirror::answer(&self.ours, theirs, offer),
            (None, _) if !request.body.is_empty() => {
                return self.respond(now, key, &refuse(Status::UNSUPPORTED_MEDIA_TYPE));
            }
            // RFC 3261 section 14.2: without an offer, ours is what holds.
            (None, _) => Some(self.ours.clone()),
            (Some(_), None) => None,
        };
        let Some(said) = said else {
            let mut response = refuse(Status::NOT_ACCEPTABLE_HERE);
            response.headers.push_warning("callgate", Reason::NoCommonCodec.code());
            return self.respond(now, key, &response);
        };
        let mut response = refuse(Status::OK);
        response.headers.push(Name::Contact, &self.contact);
        response.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
        response.headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
        if let Some(agreed) = agreed {
            agreed.write_answer(&mut response.headers);
            self.timer = Some(SessionTimer::new(now, agreed));
        }
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(&request.headers);
        }
        if is_invite || offer.is_some() {
            response = response.with_body(SDP, said.to_string());
        }
        if let Some(offer) = offer {
            // The version of what we said counts on, the rest of it is the browser's.
            self.ours.origin = said.origin;
            self.theirs = Some(offer);
        }
        self.respond(now, key, &response);
        if is_invite {
            self.awaiting = Some((key, response, AckWait::new(now)));
        }
    }

    fn repeat_answer(&mut self, now: Instant) {
        let Some((key, response, wait)) = &mut self.awaiting else { return };
        match wait.handle_timeout(now) {
            AckWaitStep::Wait => {}
            AckWaitStep::Repeat => {
                if self.transactions.respond(now, *key, response).is_err() {
                    self.transactions.send(self.flow, &Message::from(response.clone()));
                }
            }
            AckWaitStep::GiveUp => self.bye(now),
        }
    }

    fn respond(&mut self, now: Instant, key: ServerKey, response: &Response) {
        // The transaction was made just now: it takes a first response.
        let _ = self.transactions.respond(now, key, response);
    }
}

/// What we take within the dialog.
const ALLOW: [Method; 7] = [
    Method::Invite,
    Method::Ack,
    Method::Bye,
    Method::Cancel,
    Method::Options,
    Method::Update,
    Method::Info,
];

/// What calls, in place of the browser's own word, which would tell a callee much about a person.
const USER_AGENT: &str = "callgate-whip";

fn first_invite(parties: &Parties, random: &mut dyn Random) -> Request {
    let nowhere = Host::Name("browser.invalid".into());
    let tag = ids::new_call_id(random);
    let mut from = NameAddr::new(Uri::sip(Some(&parties.user), &nowhere, None));
    if let Some(name) = &parties.asserted.display {
        from = from.with_display(name);
    }
    let from = from.with_param("tag", Some(&tag));
    let to = NameAddr::new(parties.called.clone());
    let call_id = ids::new_call_id(random);
    let called = parties.called.clone();
    let mut invite = Request::outside_dialog(Method::Invite, called, &from, &to, &call_id, 1);
    invite.headers.push(Name::PAssertedIdentity, parties.asserted.to_string());
    invite
}

const SDP: &str = "application/sdp";

/// The description that a message carries.
fn description(headers: &sip::Headers, body: &Bytes) -> Option<Session> {
    let is_sdp = headers.content_type().ok().flatten().is_some_and(|it| it.essence == SDP);
    if is_sdp { Session::parse(body).ok() } else { None }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
