//! A simulated carrier's caller: a user agent over the project's own transactions, with a script.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, Random, SeededRandom};
use bytes::Bytes;
use policy::Transport;
use sip::transaction::{ClientKey, FlowId, Received, ServerKey, TransactionOutput, Transactions};
use sip::{
    AckWait, AckWaitStep, Dialog, Host, Message, Method, Name, NameAddr, Request, Response, Status,
    Uri, Via, ids,
};

use super::phone::Phone;

/// What a caller does, and when.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Act {
    /// Speaks; the transcriber hears these words.
    Say(&'static str),
    /// Presses keys.
    Press(&'static str),
    /// Puts the call on hold, or takes it back.
    Hold(bool),
    /// Hangs up.
    Bye,
    /// Gives the call up before its answer.
    Cancel,
    /// Is gone without a word: power cut.
    Vanish,
    /// Loses its connection.
    Drop,
    /// The same, so long after the INVITE.
    DropEarly,
}

/// When a caller acknowledges our 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acks {
    AtOnce,
    After(Duration),
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Idle,
    Calling,
    Talking,
    Leaving,
    Gone,
}

/// One caller and its one call.
pub(super) struct Caller {
    pub(super) address: SocketAddr,
    pub(super) transport: Transport,
    pub(super) flow: FlowId,
    pub(super) phone: Phone,
    pub(super) state: State,
    pub(super) acks: Acks,
    /// The caller's session interval, refreshed by the edge; 0 for none.
    pub(super) session_expires: u32,
    pub(super) allows_update: bool,
    /// What it does so long after the answer, or what comes before that after the INVITE.
    pub(super) script: VecDeque<(Duration, Act)>,
    pub(super) words: VecDeque<&'static str>,
    /// Statuses of final answers to its INVITEs, each once.
    pub(super) statuses: Vec<u16>,
    /// To tags of the 200s to its first INVITE.
    pub(super) tags: Vec<String>,
    /// 491s, its own and the edge's.
    pub(super) glares: u32,
    pub(super) refreshes: u32,
    pub(super) byes: u32,
    pub(super) out: Vec<Bytes>,
    random: SeededRandom,
    transactions: Transactions,
    invite: Option<(ClientKey, Request)>,
    reinvite: Option<ClientKey>,
    bye: Option<ClientKey>,
    dialog: Option<Dialog>,
    began: Instant,
    answered: Option<Instant>,
    ack_at: Option<Instant>,
    retry_at: Option<Instant>,
    direction: &'static str,
    /// A re-INVITE of the edge that is answered and not acknowledged.
    wait: Option<(AckWait, ServerKey, Response)>,
}

impl Caller {
    pub(super) fn new(index: usize, flow: FlowId, transport: Transport, seed: u64) -> Self {
        let mut random = SeededRandom::new(seed ^ 0xca11_e500 ^ (index as u64) << 32);
        let host = if transport == Transport::Udp { [203, 0, 113, 7] } else { [198, 51, 100, 9] };
        let (sip, media) = (20_000 + index as u16, 40_000 + 2 * index as u16);
        let phone = Phone::new(SocketAddr::from((host, media)), &mut random);
        let transactions = Transactions::new(0, &mut random);
        Self {
            address: SocketAddr::from((host, sip)),
            transport,
            flow,
            phone,
            state: State::Idle,
            acks: Acks::AtOnce,
            session_expires: 0,
            allows_update: true,
            script: VecDeque::new(),
            words: VecDeque::new(),
            statuses: Vec::new(),
            tags: Vec::new(),
            glares: 0,
            refreshes: 0,
            byes: 0,
            out: Vec::new(),
            random,
            transactions,
            invite: None,
            reinvite: None,
            bye: None,
            dialog: None,
            began: Instant::ZERO,
            answered: None,
            ack_at: None,
            retry_at: None,
            direction: "sendrecv",
            wait: None,
        }
    }

    /// What must never be seen in an event.
    pub(super) fn secrets(&self) -> [String; 3] {
        [self.phone.secret(), "2125550".to_owned(), self.address.to_string()]
    }

    pub(super) fn due(&self) -> Option<Instant> {
        if self.state == State::Idle {
            return None;
        }
        let script = self.script.front().and_then(|(at, act)| self.time_of(*at, act));
        let wait = self.wait.as_ref().map(|(wait, ..)| wait.poll_timeout());
        let times = [script, wait, self.transactions.poll_timeout(), self.phone.next, self.ack_at];
        times.into_iter().chain([self.retry_at]).flatten().min()
    }

    fn time_of(&self, at: Duration, act: &Act) -> Option<Instant> {
        match act {
            Act::Cancel | Act::DropEarly => Some(self.began + at),
            _ => self.answered.map(|answered| answered + at),
        }
    }

    /// Calls the edge.
    pub(super) fn call(&mut self, now: Instant) {
        (self.state, self.began) = (State::Calling, now);
        let from = format!("<sip:+12125550123@{}>;tag={}", self.address.ip(), self.tag());
        let mut invite = Request::outside_dialog(
            Method::Invite,
            Uri::parse("sip:reception@edge.example").expect("a URI"),
            &NameAddr::parse(&from).expect("an address"),
            &NameAddr::parse("<sip:reception@edge.example>").expect("an address"),
            &ids::new_call_id(&mut self.random),
            1,
        );
        self.ask_for_timer(&mut invite);
        let allowed = if self.allows_update { "INVITE, BYE, UPDATE" } else { "INVITE, BYE" };
        invite.headers.push(Name::Allow, allowed);
        let invite = invite.with_body("application/sdp", self.phone.description(self.direction));
        let key = self.send(now, invite.clone());
        self.invite = key.map(|key| (key, invite));
        self.drain();
    }

    fn ask_for_timer(&self, request: &mut Request) {
        if self.session_expires > 0 {
            request.headers.push(Name::Supported, "timer");
            let expires = format!("{};refresher=uas", self.session_expires);
            request.headers.push(Name::SessionExpires, expires);
        }
    }

    fn tag(&mut self) -> String {
        ids::new_tag(0, &mut self.random)
    }

    /// Sends a request with its last header fields.
    fn send(&mut self, now: Instant, mut request: Request) -> Option<ClientKey> {
        self.dress(&mut request);
        let reliable = self.transport != Transport::Udp;
        self.transactions.request(now, self.flow, reliable, request).ok()
    }

    fn dress(&mut self, request: &mut Request) {
        let host = Host::parse(&self.address.ip().to_string()).expect("a host");
        let branch = ids::new_branch(0, &mut self.random);
        let transport = self.transport.word().to_ascii_uppercase();
        request.headers.push_via(&Via::new(&transport, host, Some(self.address.port()), &branch));
        if request.method != Method::Ack {
            let contact = self.contact();
            request.headers.push(Name::Contact, contact);
        }
    }

    fn contact(&self) -> String {
        match self.transport {
            Transport::Udp => format!("<sip:{}>", self.address),
            transport => format!("<sip:{};transport={}>", self.address, transport.word()),
        }
    }

    fn in_dialog(
        &mut self,
        now: Instant,
        method: Method,
        body: Option<String>,
    ) -> Option<ClientKey> {
        let mut request = self.dialog.as_mut()?.request(method);
        if let Some(body) = body {
            self.ask_for_timer(&mut request);
            request = request.with_body("application/sdp", body);
        }
        self.send(now, request)
    }

    fn acknowledge(&mut self, number: u32) {
        let Some(dialog) = &self.dialog else { return };
        let mut ack = dialog.ack(number);
        self.dress(&mut ack);
        let flow = self.flow;
        self.transactions.send(flow, &Message::Request(ack));
    }

    fn drain(&mut self) {
        let mut failed = Vec::new();
        while let Some(output) = self.transactions.poll_output() {
            match output {
                TransactionOutput::Send { bytes, .. } => self.out.push(bytes),
                TransactionOutput::Timeout { key } | TransactionOutput::TransportFailed { key } => {
                    failed.push(key)
                }
                TransactionOutput::ServerGone { .. } | TransactionOutput::Terminated { .. } => {}
            }
        }
        for key in failed {
            if self.invite.as_ref().is_some_and(|(invite, _)| *invite == key)
                && self.state == State::Calling
            {
                self.statuses.push(408);
                self.leave();
            } else if self.bye == Some(key) {
                self.leave();
            }
        }
    }

    fn leave(&mut self) {
        self.state = State::Gone;
        self.script.clear();
        self.phone.hang_up();
        // An ACK that is still to come comes late.
        (self.retry_at, self.wait) = (None, None);
    }

    /// Hangs up, if there is something to hang up.
    pub(super) fn hang_up(&mut self, now: Instant) {
        if self.state == State::Talking {
            self.bye = self.in_dialog(now, Method::Bye, None);
            self.state = State::Leaving;
            self.script.clear();
            self.phone.hang_up();
            self.drain();
        }
    }

    /// Its connection is gone; what it says next opens another.
    pub(super) fn reconnect(&mut self, now: Instant, flow: FlowId) {
        self.transactions.flow_failed(now, self.flow);
        self.flow = flow;
        self.drain();
    }

    /// Does what is due; returns the acts that the world has to carry out, and media to send.
    pub(super) fn tick(&mut self, now: Instant) -> (Vec<Act>, Option<(SocketAddr, Vec<u8>)>) {
        self.transactions.handle_timeout(now);
        let mut acts = Vec::new();
        while let Some((at, act)) = self.script.front().cloned()
            && self.time_of(at, &act).is_some_and(|at| at <= now)
        {
            self.script.pop_front();
            self.act(now, &act);
            acts.push(act);
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.acknowledge(1);
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.reinvite(now);
        }
        self.repeat_answer(now);
        self.drain();
        let is_due = self.phone.next.is_some_and(|next| next <= now);
        (acts, if is_due { self.phone.tick(now) } else { None })
    }

    fn repeat_answer(&mut self, now: Instant) {
        let Some((wait, key, response)) = &mut self.wait else { return };
        match wait.handle_timeout(now) {
            AckWaitStep::Wait => {}
            AckWaitStep::Repeat => {
                let (key, response) = (*key, response.clone());
                if self.transactions.respond(now, key, &response).is_err() {
                    self.transactions.send(self.flow, &Message::Response(response));
                }
            }
            AckWaitStep::GiveUp => self.wait = None,
        }
    }

    fn act(&mut self, now: Instant, act: &Act) {
        match act {
            Act::Say(words) => {
                self.words.push_back(words);
                self.phone.say(&voice());
            }
            Act::Press(keys) => self.phone.press(keys),
            Act::Hold(held) => {
                self.direction = if *held { "sendonly" } else { "sendrecv" };
                self.reinvite(now);
            }
            Act::Bye => self.hang_up(now),
            Act::Cancel => {
                if let Some((key, _)) = &self.invite {
                    self.transactions.cancel(now, *key, None);
                }
            }
            Act::Vanish => {
                self.leave();
                (self.ack_at, self.dialog) = (None, None);
            }
            Act::Drop | Act::DropEarly => {}
        }
    }

    fn reinvite(&mut self, now: Instant) {
        if self.state == State::Talking {
            let body = self.phone.description(self.direction);
            self.reinvite = self.in_dialog(now, Method::Invite, Some(body));
        }
    }

    /// A message from the edge.
    pub(super) fn receive(&mut self, now: Instant, bytes: &Bytes) {
        if self.state == State::Gone && self.dialog.is_none() {
            return;
        }
        let message = sip::parse::datagram(bytes).expect("what the edge sends is SIP");
        let reliable = self.transport != Transport::Udp;
        match self.transactions.receive(now, self.flow, reliable, message) {
            Received::Request { key, request } => self.on_request(now, key, &request),
            Received::Ack { .. } => self.wait = None,
            Received::Response { key, response } => self.on_response(now, key, &response),
            _ => {}
        }
        self.drain();
    }

    fn on_request(&mut self, now: Instant, key: ServerKey, request: &Request) {
        let status = match request.method {
            _ if self.dialog.is_none() => Status::CALL_DOES_NOT_EXIST,
            Method::Invite if self.reinvite.is_some() => Status::REQUEST_PENDING,
            _ => Status::OK,
        };
        let mut response = Response::to(request, status, None);
        response.headers.push(Name::Contact, self.contact());
        match request.method {
            Method::Bye => {
                self.byes += 1;
                if status == Status::OK {
                    self.leave();
                }
            }
            Method::Invite | Method::Update if status == Status::OK => {
                self.refreshes += 1;
                if let Some(expires) = request.headers.text(Name::SessionExpires) {
                    response.headers.push(Name::SessionExpires, expires);
                }
                if !request.body.is_empty() {
                    self.phone.connect(now, &request.body);
                    let body = self.phone.description(self.direction);
                    response = response.with_body("application/sdp", body);
                }
                if request.method == Method::Invite {
                    self.wait = Some((AckWait::new(now), key, response.clone()));
                }
            }
            _ => self.glares += u32::from(status == Status::REQUEST_PENDING),
        }
        // A transaction that is gone has nobody waiting.
        let _ = self.transactions.respond(now, key, &response);
    }

    fn on_response(&mut self, now: Instant, key: ClientKey, response: &Response) {
        if response.status.is_provisional() {
            return;
        }
        if self.invite.as_ref().is_some_and(|(invite, _)| *invite == key) {
            self.on_answer(now, response);
        } else if self.reinvite == Some(key) {
            self.reinvite = None;
            self.statuses.push(response.status.code());
            if response.status.is_success() {
                let number = response.headers.cseq().map_or(0, |cseq| cseq.number);
                self.acknowledge(number);
                self.phone.connect(now, &response.body);
            } else if response.status == Status::REQUEST_PENDING {
                self.glares += 1;
                // RFC 3261 section 14.1: the owner of the Call-ID waits 2.1 to 4 s.
                let wait = 2_100 + 10 * u64::from(self.random.below(190));
                self.retry_at = Some(now + Duration::from_millis(wait));
            }
        } else if self.bye == Some(key) {
            self.leave();
        }
    }

    fn on_answer(&mut self, now: Instant, response: &Response) {
        if !response.status.is_success() {
            self.statuses.push(response.status.code());
            return self.leave();
        }
        let tag = response.headers.to_tag().unwrap_or_default();
        if !self.tags.contains(&tag) {
            self.tags.push(tag);
        }
        if let (State::Calling, Some((_, invite))) = (self.state, &self.invite) {
            self.statuses.push(response.status.code());
            self.dialog = Dialog::uac(invite, response).ok();
            self.state = State::Talking;
            self.answered = Some(now);
            self.phone.connect(now, &response.body);
            // Too late for a CANCEL that was not sent yet.
            self.script.retain(|(_, act)| !matches!(act, Act::Cancel | Act::DropEarly));
            if let Acks::After(after) = self.acks {
                self.ack_at = Some(now + after);
            }
        }
        if self.acks == Acks::AtOnce {
            self.acknowledge(1);
        }
    }
}

/// A sentence that somebody speaks, at 8 kHz.
pub(super) fn voice() -> Vec<i16> {
    let law = include_bytes!("../../relay/testdata/caller.ulaw");
    let mut sound = vec![0; law.len()];
    audio::g711::Law::Mu.decode(law, &mut sound);
    sound
}
