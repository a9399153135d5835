//! The user agent of one call, without I/O: what a good caller or callee sends and answers.
//!
//! Its own requests and their responses are here; `arrive.rs` begins a call that came from the far
//! end, `far_end.rs` answers requests of the far end within the call, `describe.rs` makes and reads
//! session descriptions. The owner passes messages and time in and
//! drains [`UserAgent::poll_output`].

mod arrive;
mod describe;
mod far_end;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use base::{Instant, Random};
use bytes::Bytes;
use sdp::{Direction, Session};
use sip::session_timer::SessionStep;
use sip::transaction::T1;
use sip::{
    AckWait, AckWaitStep, ClientKey, Dialog, DialogId, FlowId, Header, Host, Message, Method, Name,
    NameAddr, Received, Request, Response, ServerKey, SessionTerms, SessionTimer, Status,
    TransactionOutput, Transactions, Uri, Via, ids,
};

use self::arrive::Arrived;
pub(crate) use self::describe::{Agreed, Description, Keys};
use crate::cause::{Cause, Farewell, FarewellBy};
use crate::config::OfferMode;
use crate::report::{CallOutcome, CallReport, Ending};

/// The one flow of a call: its signalling connection.
const FLOW: FlowId = FlowId(0);
/// What we take, in Allow.
const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO";
const AGENT: &str = concat!("callgate-load/", env!("CARGO_PKG_VERSION"));
/// How long an answer to BYE or CANCEL is waited for; the report is worth more than the rest of
/// the 32 s of RFC 3261.
const GOODBYE: Duration = Duration::from_secs(5);

/// Who calls whom, and how.
#[derive(Clone, Debug)]
pub(crate) struct Parties {
    /// The Request-URI.
    pub(crate) target: Uri,
    /// Our address, without a tag.
    pub(crate) from: NameAddr,
    /// Where the far end reaches us.
    pub(crate) contact: Uri,
    /// The transport's name in Via.
    pub(crate) via: &'static str,
    /// Our host and port in Via.
    pub(crate) host: Host,
    /// Our port in Via.
    pub(crate) port: u16,
    /// Whether the transport repeats what is lost.
    pub(crate) is_reliable: bool,
    /// When our description travels.
    pub(crate) offer: OfferMode,
    /// The cause that we tell where we end the call as planned.
    pub(crate) cause: Option<Cause>,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before there was media.
    Failed { status: Option<u16>, reason: String },
    /// By us, before the answer.
    Cancelled,
    /// After the answer.
    Over(Ending),
}

impl End {
    fn failed(status: Option<Status>, reason: &str) -> Self {
        Self::Failed { status: status.map(Status::code), reason: reason.to_owned() }
    }

    /// Notes in a report how its call ended.
    pub(crate) fn tell(self, report: &mut CallReport) {
        match self {
            Self::Over(ending) => {
                (report.outcome, report.ending) = (CallOutcome::Answered, Some(ending));
            }
            Self::Cancelled => report.outcome = CallOutcome::Cancelled,
            Self::Failed { status, reason } => {
                report.outcome = CallOutcome::Failed;
                (report.status, report.reason) = (status.or(report.status), Some(reason));
            }
        }
    }
}

/// What the owner must do.
#[derive(Debug)]
pub(crate) enum UserAgentOutput {
    /// Put this on the connection.
    Send(Bytes),
    /// The far end answers: media starts, or goes on as this says.
    Agreed(Box<Agreed>),
    /// Media may flow before the answer, as this says.
    Early(Box<Agreed>),
    /// The far end pressed a key, in an INFO.
    Digit(char),
    /// Media ends.
    Released,
    /// There is nothing more to do.
    Ended(End),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// The INVITE has no final response yet.
    Inviting,
    /// We gave it up.
    Cancelling(End),
    /// The far end's INVITE has no final answer yet.
    Ringing,
    Up,
    /// Our BYE has no response yet.
    Leaving(End),
    Done,
}

/// A re-INVITE or UPDATE of ours without final response.
struct Proposal {
    key: ClientKey,
    request: Request,
    /// `None` for an UPDATE that only refreshes the session.
    offer: Option<Session>,
}

/// Our 200 to a re-INVITE, until its ACK.
struct Confirming {
    key: ServerKey,
    response: Response,
    wait: AckWait,
    /// Whether it was us who made the offer, so that the ACK has the answer.
    has_offer: bool,
}

/// One call.
pub(crate) struct UserAgent {
    parties: Parties,
    transactions: Transactions,
    random: Box<dyn Random + Send>,
    description: Description,
    phase: Phase,
    /// The highest status of our INVITE so far.
    status: Option<Status>,
    invite: Option<(ClientKey, Request)>,
    arrived: Option<Arrived>,
    dialog: Option<Dialog>,
    /// Sent again for each repeated 200.
    ack: Option<Request>,
    proposal: Option<Proposal>,
    /// When a proposal that crossed one of the far end is made again, and with which direction.
    retry: Option<(Instant, Direction)>,
    confirming: Option<Confirming>,
    bye: Option<ClientKey>,
    session_timer: Option<SessionTimer>,
    peer_takes_update: bool,
    /// When to stop waiting for the answer to CANCEL or BYE.
    give_up_at: Option<Instant>,
    /// Which message ended the call.
    farewell: Option<Farewell>,
    outputs: VecDeque<UserAgentOutput>,
}

impl UserAgent {
    /// A call that has not begun. `random` makes keys.
    pub(crate) fn new(
        parties: Parties,
        description: Description,
        mut random: Box<dyn Random + Send>,
    ) -> Self {
        Self {
            parties,
            transactions: Transactions::new(0, &mut *random),
            random,
            description,
            phase: Phase::Inviting,
            status: None,
            invite: None,
            arrived: None,
            dialog: None,
            ack: None,
            proposal: None,
            retry: None,
            confirming: None,
            bye: None,
            session_timer: None,
            peer_takes_update: false,
            give_up_at: None,
            farewell: None,
            outputs: VecDeque::new(),
        }
    }

    /// Whether it was answered, and is not over.
    pub(crate) fn is_up(&self) -> bool {
        self.phase == Phase::Up
    }

    /// The last status to our INVITE.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status.map(Status::code)
    }

    /// By whom, by what and with which cause the call was ended.
    pub(crate) const fn farewell(&self) -> Option<Farewell> {
        self.farewell
    }

    /// Notes what the far end ended the call with; the first word stands.
    fn heard(&mut self, by: FarewellBy, cause: Option<Cause>) {
        self.farewell.get_or_insert(Farewell { by_us: false, by, cause });
    }

    /// Notes what we end the call with.
    fn told(&mut self, by: FarewellBy, cause: Option<Cause>) {
        self.farewell = Some(Farewell { by_us: true, by, cause });
    }

    /// The cause of an end of ours: none where it is no plan of ours.
    const fn cause_of(&self, end: &End) -> Option<Cause> {
        match end {
            End::Over(Ending::Lost) | End::Failed { .. } => None,
            End::Over(_) | End::Cancelled => self.parties.cause,
        }
    }

    /// Sends the INVITE.
    pub(crate) fn start(&mut self, now: Instant, call_id: &str) {
        let tag = ids::new_tag(0, &mut *self.random);
        let from = self.parties.from.clone().with_param("tag", Some(&tag));
        let target = self.parties.target.clone();
        let to = NameAddr::new(target.without_headers());
        let mut invite = Request::outside_dialog(Method::Invite, target, &from, &to, call_id, 1);
        invite.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
        if self.parties.offer == OfferMode::Early {
            let offer = self.description.offer(&mut *self.random);
            invite = invite.with_body("application/sdp", offer.to_string());
        }
        let invite = self.dress(invite);
        match self.transactions.request(now, FLOW, self.parties.is_reliable, invite.clone()) {
            Ok(key) => self.invite = Some((key, invite)),
            Err(_) => self.finish(End::failed(None, "load.internal")),
        }
        self.pump(now);
    }

    /// A request of ours with Via, Contact and what it says of us.
    fn dress(&mut self, mut request: Request) -> Request {
        let branch = ids::new_branch(0, &mut *self.random);
        let parties = &self.parties;
        let via = Via::new(parties.via, parties.host.clone(), Some(parties.port), &branch);
        request.headers.push_via(&via);
        if matches!(request.method, Method::Invite | Method::Update) {
            request.headers.push(Name::Contact, format!("<{}>", parties.contact));
            request.headers.push(Name::Allow, ALLOW);
        }
        request.headers.push(Name::UserAgent, AGENT);
        request
    }

    /// Takes a message of this call.
    pub(crate) fn receive(&mut self, now: Instant, message: Message) {
        match self.transactions.receive(now, FLOW, self.parties.is_reliable, message) {
            Received::Request { key, request } => self.on_request(now, key, &request),
            Received::Ack { request, .. } => self.on_ack(now, &request),
            Received::Response { key, response } => self.on_response(now, key, &response),
            Received::Overloaded(request) => {
                let response = Response::to(&request, Status::SERVICE_UNAVAILABLE, Some("full"));
                self.transactions.send(FLOW, &response.into());
            }
            // A re-INVITE is answered at once, so that nothing is left to cancel.
            Received::Cancelled { invite, request } => self.on_cancel(now, invite, &request),
            Received::Stray(_) | Received::Absorbed(_) => {}
        }
        self.pump(now);
    }

    /// The connection is gone.
    pub(crate) fn flow_failed(&mut self, now: Instant) {
        self.transactions.flow_failed(now, FLOW);
        self.pump(now);
        match &self.phase {
            Phase::Done => {}
            Phase::Up => self.finish(End::Over(Ending::Lost)),
            Phase::Cancelling(end) | Phase::Leaving(end) => self.finish(end.clone()),
            Phase::Inviting | Phase::Ringing => {
                self.finish(End::failed(self.status, "connect.lost"));
            }
        }
    }

    /// Ends the call: CANCEL before the answer, BYE after it. `end` says why; before the answer
    /// [`End::Over`] counts as cancelled.
    pub(crate) fn end(&mut self, now: Instant, end: End) {
        match &self.phase {
            Phase::Inviting => {
                let cause = self.cause_of(&end);
                if let Some((key, _)) = &self.invite {
                    self.transactions.cancel(now, *key, cause.map(Cause::header));
                }
                self.told(FarewellBy::Cancel, cause);
                let end = if matches!(end, End::Over(_)) { End::Cancelled } else { end };
                self.phase = Phase::Cancelling(end);
                self.give_up_at = Some(now + GOODBYE);
            }
            Phase::Up => self.leave(now, end),
            Phase::Ringing => self.refuse(now, Status::TEMPORARILY_UNAVAILABLE, None),
            Phase::Cancelling(_) | Phase::Leaving(_) | Phase::Done => {}
        }
        self.pump(now);
    }

    /// Holds the far end, or takes it back, by a re-INVITE.
    pub(crate) fn hold(&mut self, now: Instant, direction: Direction) {
        if self.phase == Phase::Up && self.proposal.is_none() {
            self.propose(now, direction);
        } else if self.phase == Phase::Up {
            self.retry = Some((now + T1, direction));
        }
        self.pump(now);
    }

    /// Presses a key by an INFO within the call.
    pub(crate) fn press(&mut self, now: Instant, key: char, duration: Duration) {
        let body = format!("Signal={key}\r\nDuration={}\r\n", duration.as_millis());
        // Its answer changes nothing.
        self.request_within(now, Method::Info, |info| {
            info.with_body("application/dtmf-relay", body)
        });
        self.pump(now);
    }

    fn propose(&mut self, now: Instant, direction: Direction) {
        let Some(offer) = self.description.with_direction(direction) else { return };
        let body = offer.to_string();
        self.request_within(now, Method::Invite, |request| {
            request.with_body("application/sdp", body)
        })
        .into_iter()
        .for_each(|(key, request)| {
            self.proposal = Some(Proposal { key, request, offer: Some(offer.clone()) });
        });
    }

    /// Sends a request within the dialog.
    fn request_within(
        &mut self,
        now: Instant,
        method: Method,
        finish: impl FnOnce(Request) -> Request,
    ) -> Option<(ClientKey, Request)> {
        let mut request = finish(self.dialog.as_mut()?.request(method));
        if matches!(request.method, Method::Invite | Method::Update) {
            request.headers.push(Name::Supported, sip::session_timer::OPTION_TAG);
            if let Some(timer) = &self.session_timer {
                SessionTerms::default().write_request(Some(timer), &mut request.headers);
            }
        }
        let request = self.dress(request);
        let sent = request.clone();
        let key = self.transactions.request(now, FLOW, self.parties.is_reliable, sent).ok()?;
        Some((key, request))
    }

    fn leave(&mut self, now: Instant, end: End) {
        self.release();
        let cause = self.cause_of(&end);
        let bye = self.request_within(now, Method::Bye, |mut bye| {
            cause.into_iter().for_each(|it| bye.headers.push_header(it.header()));
            bye
        });
        self.bye = bye.map(|(key, _)| key);
        self.told(FarewellBy::Bye, cause);
        self.phase = Phase::Leaving(end);
        self.give_up_at = Some(now + GOODBYE);
    }

    fn release(&mut self) {
        if self.phase == Phase::Up {
            self.outputs.push_back(UserAgentOutput::Released);
        }
        (self.proposal, self.retry, self.session_timer) = (None, None, None);
    }

    fn finish(&mut self, end: End) {
        if self.phase == Phase::Done {
            return;
        }
        self.release();
        self.phase = Phase::Done;
        self.give_up_at = None;
        self.outputs.push_back(UserAgentOutput::Ended(end));
    }

    fn on_response(&mut self, now: Instant, key: ClientKey, response: &Response) {
        if self.bye == Some(key) {
            if let (true, Phase::Leaving(end)) = (response.status.is_final(), &self.phase) {
                self.finish(end.clone());
            }
        } else if self.proposal.as_ref().is_some_and(|it| it.key == key) {
            self.on_proposal_response(now, response);
        } else if let Some((_, invite)) = self.invite.clone().filter(|(it, _)| *it == key) {
            if response.status.is_success() {
                self.on_success(now, &invite, response);
            } else {
                self.on_invite_response(response);
            }
        } else if response.status.is_success() {
            self.acknowledge_again(response);
        }
    }

    fn on_invite_response(&mut self, response: &Response) {
        self.status = Some(response.status);
        if !response.status.is_failure() {
            return self.on_provisional(response);
        }
        match &self.phase {
            Phase::Cancelling(end) => self.finish(end.clone()),
            _ => {
                let by = FarewellBy::Refusal(response.status.code());
                self.heard(by, Cause::of(&response.headers));
                self.finish(End::failed(Some(response.status), &refusal(response)));
            }
        }
    }

    /// An answer in a 18x is what the 2xx will say again (RFC 3261 section 13.2.1).
    fn on_provisional(&mut self, response: &Response) {
        let is_early = self.parties.offer == OfferMode::Early && self.phase == Phase::Inviting;
        if !is_early || response.body.is_empty() {
            return;
        }
        if let Ok(agreed) = self.description.accept(&response.body) {
            self.outputs.push_back(UserAgentOutput::Early(Box::new(agreed)));
        }
    }

    /// A 2xx to our INVITE: the first one makes the dialog, a repetition gets its ACK again, and
    /// one of another branch of a fork is hung up (RFC 3261 section 13.2.2.4).
    fn on_success(&mut self, now: Instant, invite: &Request, response: &Response) {
        let known = self.dialog.as_ref().map(|dialog| dialog.id());
        if known.is_some() && known == DialogId::of_response(response).as_ref() {
            return self.acknowledge_again(response);
        }
        let Ok(mut dialog) = Dialog::uac(invite, response) else {
            return self.finish(End::failed(Some(response.status), "sip.malformed_answer"));
        };
        if known.is_some() || self.phase == Phase::Done {
            let ack = self.dress(dialog.ack(1));
            self.transactions.send(FLOW, &ack.into());
            let bye = self.dress(dialog.request(Method::Bye));
            // Nobody waits for its answer; the transaction repeats it as needed.
            let _ = self.transactions.request(now, FLOW, self.parties.is_reliable, bye);
            return;
        }
        self.status = Some(response.status);
        let agreed = match self.parties.offer {
            OfferMode::Early => self.description.accept(&response.body).map(|it| (it, None)),
            OfferMode::Late => self
                .description
                .answer(&response.body, &mut *self.random)
                .map(|(agreed, answer)| (agreed, Some(answer))),
        };
        let mut ack = dialog.ack(1);
        if let Ok((_, Some(answer))) = &agreed {
            ack = ack.with_body("application/sdp", answer.to_string());
        }
        let ack = self.dress(ack);
        self.transactions.send(FLOW, &ack.clone().into());
        self.ack = Some(ack);
        self.dialog = Some(dialog);
        self.peer_takes_update = response.headers.has_token(Name::Allow, Method::Update.as_str());
        match (&self.phase, agreed) {
            (Phase::Cancelling(end), _) => self.leave(now, end.clone()),
            (_, Err(reason)) => self.leave(now, End::failed(Some(response.status), reason)),
            (_, Ok((agreed, _))) => {
                self.phase = Phase::Up;
                self.note_session(now, response);
                self.outputs.push_back(UserAgentOutput::Agreed(Box::new(agreed)));
            }
        }
    }

    /// A repeated 2xx means that our ACK was lost.
    fn acknowledge_again(&mut self, response: &Response) {
        let number = response.headers.cseq().map(|it| it.number);
        let is_of = |ack: &&Request| ack.headers.cseq().map(|it| it.number) == number;
        if let Some(ack) = self.ack.as_ref().filter(is_of) {
            self.transactions.send(FLOW, &ack.clone().into());
        }
    }

    /// Takes the session timer that a 2xx sets (RFC 4028 section 7.2).
    fn note_session(&mut self, now: Instant, response: &Response) {
        let agreement = SessionTerms::default().accept(&response.headers).ok().flatten();
        self.session_timer = agreement.map(|agreement| SessionTimer::new(now, agreement));
    }

    fn on_proposal_response(&mut self, now: Instant, response: &Response) {
        if response.status.is_provisional() {
            return;
        }
        let Some(Proposal { request, offer, .. }) = self.proposal.take() else { return };
        if response.status.is_success() {
            return self.on_proposal_taken(now, &request, offer, response);
        }
        match response.status.code() {
            // RFC 3261 section 14.1: the one who made the Call-ID waits 2.1-4 s.
            491 => {
                let pause = 2_100 + u64::from(self.random.below(190)) * 10;
                let direction = offer.and_then(|it| describe::direction_of(&it));
                let at = now + Duration::from_millis(pause);
                self.retry = direction.map(|direction| (at, direction));
            }
            // RFC 3261 section 12.2.1.2.
            408 | 481 => self.leave(now, End::Over(Ending::Lost)),
            // The session stays as it was (RFC 3261 section 14.1).
            _ => {}
        }
    }

    fn on_proposal_taken(
        &mut self,
        now: Instant,
        request: &Request,
        offer: Option<Session>,
        response: &Response,
    ) {
        let number = request.headers.cseq().map_or(0, |it| it.number);
        if let Some(dialog) = &mut self.dialog {
            dialog.refresh_target(&response.headers);
            if request.method == Method::Invite {
                let ack = dialog.ack(number);
                let ack = self.dress(ack);
                self.transactions.send(FLOW, &ack.clone().into());
                self.ack = Some(ack);
            }
        }
        self.note_session(now, response);
        let Some(offer) = offer else { return };
        match self.description.accept_for(offer, &response.body) {
            Ok(agreed) => self.outputs.push_back(UserAgentOutput::Agreed(Box::new(agreed))),
            Err(_) => self.leave(now, End::Over(Ending::Lost)),
        }
    }

    /// A request of ours got no answer, or could not be sent.
    fn on_failed(&mut self, now: Instant, key: ClientKey, reason: &str) {
        if self.bye == Some(key) {
            if let Phase::Leaving(end) = &self.phase {
                self.finish(end.clone());
            }
        } else if self.proposal.as_ref().is_some_and(|it| it.key == key) {
            self.proposal = None;
            self.leave(now, End::Over(Ending::Lost));
        } else if self.invite.as_ref().is_some_and(|(it, _)| *it == key) {
            match &self.phase {
                Phase::Inviting => self.finish(End::failed(self.status, reason)),
                Phase::Cancelling(end) => self.finish(end.clone()),
                Phase::Up | Phase::Ringing | Phase::Leaving(_) | Phase::Done => {}
            }
        }
    }

    /// When [`UserAgent::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let timer = self.session_timer.as_ref().map(SessionTimer::poll_timeout);
        let wait = self.confirming.as_ref().map(|it| it.wait.poll_timeout());
        let retry = self.retry.map(|(at, _)| at);
        [self.transactions.poll_timeout(), timer, wait, retry, self.give_up_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.transactions.handle_timeout(now);
        self.pump(now);
        self.repeat_confirmation(now);
        if let Some((_, direction)) = self.retry.take_if(|(at, _)| *at <= now) {
            self.hold(now, direction);
        }
        match self.session_timer.as_mut().map(|timer| timer.handle_timeout(now)) {
            Some(SessionStep::Refresh) => self.refresh(now),
            Some(SessionStep::Expired) => self.leave(now, End::Over(Ending::Lost)),
            Some(SessionStep::Wait) | None => {}
        }
        if self.give_up_at.is_some_and(|at| at <= now) {
            match &self.phase {
                Phase::Cancelling(end) | Phase::Leaving(end) => self.finish(end.clone()),
                Phase::Inviting | Phase::Ringing | Phase::Up | Phase::Done => {}
            }
        }
        self.pump(now);
    }

    /// RFC 4028 section 7.4: an UPDATE without a description where the peer takes it, else a
    /// re-INVITE with the description in force.
    fn refresh(&mut self, now: Instant) {
        if self.proposal.is_some() {
            return;
        }
        if !self.peer_takes_update {
            return self.propose(now, self.description.direction());
        }
        if let Some((key, request)) = self.request_within(now, Method::Update, |it| it) {
            self.proposal = Some(Proposal { key, request, offer: None });
        }
    }

    fn repeat_confirmation(&mut self, now: Instant) {
        let Some(confirming) = &mut self.confirming else { return };
        match confirming.wait.handle_timeout(now) {
            AckWaitStep::Wait => {}
            AckWaitStep::Repeat => {
                let response = &confirming.response;
                if self.transactions.respond(now, confirming.key, response).is_err() {
                    self.transactions.send(FLOW, &response.clone().into());
                }
            }
            AckWaitStep::GiveUp => {
                self.confirming = None;
                self.leave(now, End::Over(Ending::Lost));
            }
        }
    }

    /// Carries the outputs of the transactions on.
    fn pump(&mut self, now: Instant) {
        while let Some(output) = self.transactions.poll_output() {
            match output {
                TransactionOutput::Send { bytes, .. } => {
                    self.outputs.push_back(UserAgentOutput::Send(bytes));
                }
                TransactionOutput::Timeout { key } => self.on_failed(now, key, "sip.timeout"),
                TransactionOutput::TransportFailed { key } => {
                    self.on_failed(now, key, "connect.lost");
                }
                TransactionOutput::ServerGone { .. } | TransactionOutput::Terminated { .. } => {}
            }
        }
    }

    /// What the owner must do next.
    pub(crate) fn poll_output(&mut self) -> Option<UserAgentOutput> {
        self.outputs.pop_front()
    }
}

/// Why a call was refused: the stable code of a `Warning: 399` (callgate sends one), else the
/// phrase.
fn refusal(response: &Response) -> String {
    response.headers.all(Name::Warning).find_map(code_of_warning).unwrap_or_else(|| {
        let phrase = response.phrase();
        if phrase.is_empty() { response.status.phrase().to_owned() } else { phrase.into_owned() }
    })
}

/// `area.cause` at the start of the text of a Warning with code 399 (RFC 3261 section 20.43).
fn code_of_warning(header: &Header) -> Option<String> {
    let value = header.text()?.trim_start().strip_prefix("399 ")?;
    let (_, text) = value.split_once('"')?;
    let end = text.find(|it: char| !matches!(it, 'a'..='z' | '_' | '.')).unwrap_or(text.len());
    let (area, cause) = text[..end].split_once('.')?;
    (!area.is_empty() && !cause.is_empty()).then(|| text[..end].to_owned())
}
