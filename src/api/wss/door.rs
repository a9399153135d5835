//! The door between one WebSocket and the calls, without I/O: it proves who is there by digest,
//! answers REGISTER itself, and lets nothing through of anybody who has not proved who they are.
//!
//! What passes has lost its credentials, and what only a trusted neighbour may say of a caller (RFC
//! 3325). Everything after that is the business of the calls.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, Random, Reason, WallTime, limit};
use bytes::Bytes;
use sip::digest::server::{Answer, Asked, Nonce, Nonces};
use sip::{Host, Message, Method, Name, NameAddr, Request, Response, Status, Uri, ids};
use transport::Flow;

use super::register;
use super::registrar::Registrar;
use crate::auth::{BrowserToken, Hashes, TokenScope, Who};
use crate::cors::Origin;
use crate::guard::{Guard, Peer};
use crate::random::SharedRandom;
use crate::tokens::{Latest, Spent, Tokens};

/// What all doors share.
pub struct House {
    pub(crate) guard: Arc<Guard>,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) registrar: Arc<Registrar>,
    /// The host of addresses.
    pub(crate) host: Host,
    nonces: Nonces,
    random: SharedRandom,
}

impl House {
    /// A house whose accounts live at `host`; `random` must be fit for keys.
    #[must_use]
    pub fn new(guard: Arc<Guard>, host: Host, random: Box<dyn Random + Send>) -> Self {
        let tokens = Arc::new(Tokens::new(Arc::clone(&guard)));
        Self::sharing(guard, tokens, host, SharedRandom::new(random))
    }

    pub(crate) fn sharing(
        guard: Arc<Guard>,
        tokens: Arc<Tokens>,
        host: Host,
        mut random: SharedRandom,
    ) -> Self {
        let nonces = Nonces::new(&mut random, limit::API_NONCE_MS.millis());
        let registrar = Arc::default();
        Self { guard, tokens, registrar, host, nonces, random }
    }

    pub(crate) fn random(&self) -> SharedRandom {
        self.random.clone()
    }

    /// One for all edges and names: passwords are kept as hashes with it, and an edge that is
    /// called something else tomorrow still knows its accounts.
    fn realm(&self) -> String {
        crate::auth::REALM.to_owned()
    }
}

/// What becomes of a frame.
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Nothing,
    /// This is its answer.
    Reply(Bytes),
    /// This goes on to the calls.
    Deliver(Bytes),
    /// The WebSocket is to end, after this answer where there is one.
    Close(Why, Option<Bytes>),
}

impl fmt::Debug for Verdict {
    /// Prints no content of messages: it holds people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("Nothing"),
            Self::Reply(bytes) => write!(f, "Reply([{} bytes])", bytes.len()),
            Self::Deliver(bytes) => write!(f, "Deliver([{} bytes])", bytes.len()),
            Self::Close(why, _) => write!(f, "Close({why:?})"),
        }
    }
}

/// Why a WebSocket is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Too many messages.
    Flood,
    /// Too many that cannot be read.
    Malformed,
    /// Its token has expired.
    Expired,
    /// What proved who is there does not hold any more.
    Unproved,
}

/// The door of one WebSocket.
pub struct Door {
    house: Arc<House>,
    peer: Peer,
    flow: Arc<Flow>,
    /// The page that opened it.
    origin: Option<Origin>,
    who: Option<Proved>,
    /// The nonce last used and how often, so that nobody's answer is used again.
    used: Option<(String, u32)>,
    faults: u64,
    rate: Rate,
    latest: Option<Latest>,
}

/// Who is there.
#[derive(Clone)]
struct Proved {
    /// The user of its address.
    user: String,
    token: Option<Arc<BrowserToken>>,
    /// The caller as others see it.
    asserted: NameAddr,
}

/// How a request proves who sent it.
enum Proof {
    /// It does.
    Holds(Proved),
    /// It is to try (again).
    Missing { is_stale: bool },
    /// It does not, and is told this.
    Refused(Status, Option<u32>),
}

impl Door {
    /// The door of a WebSocket that is open now.
    #[must_use]
    pub fn new(house: Arc<House>, flow: Arc<Flow>, origin: Option<Origin>, now: Instant) -> Self {
        let peer = Peer { source: flow.source, local: flow.local };
        let rate = Rate::new(now);
        Self { house, peer, flow, origin, who: None, used: None, faults: 0, rate, latest: None }
    }

    /// Whether who is there has been proved.
    #[must_use]
    pub const fn is_proved(&self) -> bool {
        self.who.is_some()
    }

    /// When its token ends.
    #[must_use]
    pub fn expires(&self) -> Option<WallTime> {
        Some(self.who.as_ref()?.token.as_ref()?.expires)
    }

    /// The claim of its token; once.
    pub(crate) fn take_latest(&mut self) -> Option<Latest> {
        self.latest.take()
    }

    /// Takes the content of one frame: one SIP message (RFC 7118 section 5), or a keep-alive.
    pub fn handle_frame(&mut self, now: Instant, wall: WallTime, frame: &Bytes) -> Verdict {
        if !self.rate.takes(now) {
            return Verdict::Close(Why::Flood, None);
        }
        if self.expires().is_some_and(|expires| expires <= wall) {
            return Verdict::Close(Why::Expired, None);
        }
        if sip::parse::is_keep_alive(frame) {
            // RFC 7118 section 6, RFC 5626 section 3.5.1.
            let is_ping = &**frame == sip::PING;
            return if is_ping { Verdict::Reply(sip::PONG.into()) } else { Verdict::Nothing };
        }
        match sip::parse::datagram(frame) {
            Ok(Message::Request(request)) => self.handle_request(now, wall, request),
            Ok(Message::Response(response)) => match self.who {
                Some(_) => Verdict::Deliver(response.to_bytes()),
                None => Verdict::Nothing,
            },
            Err(failure) => {
                self.faults = self.faults.saturating_add(1);
                let answer = failure.response(&self.tag()).map(|answer| answer.to_bytes());
                match answer {
                    answer if self.faults >= limit::API_WEBSOCKET_FAULTS.value => {
                        Verdict::Close(Why::Malformed, answer)
                    }
                    Some(answer) => Verdict::Reply(answer),
                    None => Verdict::Nothing,
                }
            }
        }
    }

    fn handle_request(&mut self, now: Instant, wall: WallTime, mut request: Request) -> Verdict {
        let is_proved = self.who.is_some();
        match request.method {
            // Neither can be challenged (RFC 3261 section 22.1).
            Method::Ack | Method::Cancel if !is_proved => return Verdict::Nothing,
            Method::Ack | Method::Cancel => return self.deliver(request),
            Method::Register => return self.handle_register(now, wall, &request),
            _ => {}
        }
        if !is_proved {
            match self.prove(now, wall, &request) {
                Proof::Holds(proved) => self.who = Some(proved),
                Proof::Missing { is_stale } => return self.challenge(now, &request, is_stale),
                Proof::Refused(status, retry) => return self.refuse(&request, status, retry),
            }
        }
        if let Err(code) = self.may_send(&request) {
            return self.forbid(&request, code);
        }
        let headers = &mut request.headers;
        [
            Name::Authorization,
            Name::ProxyAuthorization,
            Name::PAssertedIdentity,
            Name::PPreferredIdentity,
            Name::Privacy,
        ]
        .into_iter()
        .for_each(|name| headers.remove(name));
        // Who calls is the operator's word, and not the browser's.
        if request.method == Method::Invite
            && let Some(who) = &self.who
        {
            headers.push(Name::PAssertedIdentity, who.asserted.to_string());
        }
        self.deliver(request)
    }

    fn deliver(&self, mut request: Request) -> Verdict {
        request.headers.remove(Name::Authorization);
        request.headers.remove(Name::ProxyAuthorization);
        Verdict::Deliver(request.to_bytes())
    }

    /// Whether who is there may send this under this name; else the code of why not.
    fn may_send(&self, request: &Request) -> Result<(), &'static str> {
        let Some(who) = &self.who else { return Err(Reason::UnknownPeer.code()) };
        let callee = who.token.as_ref().and_then(|token| token.called.as_ref());
        let is_within = request.headers.to_tag().is_some();
        let begins = !is_within || request.method == Method::Refer;
        if begins && who.token.as_ref().is_some_and(|token| !token.may(TokenScope::Call)) {
            return Err(OUT_OF_SCOPE);
        }
        // Who may call one only, may not carry a call to another.
        if callee.is_some() && request.method == Method::Refer {
            return Err(Reason::TransferRefused.code());
        }
        if is_within {
            return Ok(()); // whose dialog it is, the calls know
        }
        if callee.is_some_and(|only| request.uri.user_unescaped().as_deref() != Some(only)) {
            return Err(Reason::NoRoute.code());
        }
        if !is_user(request.headers.from().ok().map(|from| from.uri), &who.user) {
            return Err(Reason::UnknownPeer.code());
        }
        Ok(())
    }

    fn handle_register(&mut self, now: Instant, wall: WallTime, request: &Request) -> Verdict {
        // Each time: an account may have been closed, a password changed.
        let proved = match self.prove(now, wall, request) {
            Proof::Holds(proved) => proved,
            Proof::Missing { is_stale } => return self.challenge(now, request, is_stale),
            Proof::Refused(status, retry) => {
                let verdict = self.refuse(request, status, retry);
                let Verdict::Reply(answer) = verdict else { return verdict };
                // Somebody else's wrong tries, of the same address, end nobody's session.
                if retry.is_some() || self.who.take().is_none() {
                    return Verdict::Reply(answer);
                }
                return Verdict::Close(Why::Unproved, Some(answer));
            }
        };
        let to = request.headers.to().ok().map(|to| to.uri);
        let from = request.headers.from().ok().map(|from| from.uri);
        if !is_user(to, &proved.user) || !is_user(from, &proved.user) {
            return self.refuse(request, Status::FORBIDDEN, None);
        }
        if proved.token.as_ref().is_some_and(|token| !token.may(TokenScope::Register)) {
            self.who = Some(proved); // it may call as well as if it had not asked
            return self.forbid(request, OUT_OF_SCOPE);
        }
        let most = proved.token.as_ref().map(|token| seconds_until(wall, token.expires));
        let account = proved.user.clone();
        self.who = Some(proved);
        let tag = self.tag();
        let response =
            register::answer(&self.house, (now, &account), &self.flow, request, most, &tag);
        Verdict::Reply(self.stamped(response).to_bytes())
    }

    /// Checks the credentials of a request.
    fn prove(&mut self, now: Instant, wall: WallTime, request: &Request) -> Proof {
        let missing = Proof::Missing { is_stale: false };
        let house = Arc::clone(&self.house);
        let realm = house.realm();
        let texts = request.headers.all(Name::Authorization).filter_map(|it| it.text());
        let ours = texts.filter_map(Answer::parse).filter(|it| it.realm == realm);
        let known = ours.filter_map(|it| Some((it.algorithm()?, it)));
        // Whoever answers both challenges is taken by the stronger one.
        let Some((algorithm, answer)) = known.max_by_key(|(algorithm, _)| *algorithm) else {
            return missing;
        };
        match house.nonces.look(&answer.nonce, now, self.flow.id.0) {
            Nonce::Fresh => {}
            Nonce::Stale => return Proof::Missing { is_stale: true },
            // A client that came back on another connection; nobody is suspected of anything.
            Nonce::Foreign => return Proof::Missing { is_stale: true },
        }
        let is_again = self
            .used
            .as_ref()
            .is_some_and(|(nonce, count)| *nonce == answer.nonce && answer.count <= *count);
        if is_again || answer.count == 0 {
            return Proof::Missing { is_stale: true };
        }
        if let Err(seconds) = house.guard.may_try(self.peer, "digest") {
            return Proof::Refused(Status::FORBIDDEN, Some(seconds));
        }
        let is_for_it = answer.uri == request.uri.as_str()
            || Uri::parse(&answer.uri).is_ok_and(|uri| uri.equivalent(&request.uri));
        let known = house.guard.digest(&answer.user, &realm).filter(|_| is_for_it);
        let is_right = |hashes: &Hashes| {
            let key = match algorithm {
                Asked::Md5 => hashes.md5.as_ref(),
                Asked::Sha256 => Some(&hashes.sha256),
            };
            key.is_some_and(|key| answer.is_by(key, &request.method))
        };
        let Some((who, _)) = known.filter(|(_, hashes)| is_right(hashes)) else {
            house.guard.was_wrong(self.peer, "digest");
            return Proof::Refused(Status::FORBIDDEN, None);
        };
        self.used = Some((answer.nonce.clone(), answer.count));
        house.guard.came_in(&who);
        self.welcome(who, wall)
    }

    /// Lets somebody in who has the password, unless something else is against it.
    fn welcome(&mut self, who: Who, wall: WallTime) -> Proof {
        let asserted = who.asserted(&self.house.host);
        let (user, token) = match who {
            Who::Key { .. } => return Proof::Refused(Status::FORBIDDEN, None),
            Who::Account { name, .. } => (name.expose().clone(), None),
            Who::Token(token) => (token.id.clone(), Some(token)),
        };
        let proved = Proved { user, token, asserted };
        if self.who.as_ref().is_some_and(|known| known.user != proved.user) {
            return Proof::Refused(Status::FORBIDDEN, None); // one WebSocket, one person
        }
        let Some(token) = proved.token.as_ref() else { return Proof::Holds(proved) };
        let is_elsewhere = match (&token.origin, &self.origin) {
            (Some(only), Some(origin)) => Origin::parse(only).as_ref() != Ok(origin),
            _ => false,
        };
        if is_elsewhere || token.expires <= wall {
            return Proof::Refused(Status::FORBIDDEN, None);
        }
        if self.who.is_none() {
            match self.house.tokens.connect(token, wall) {
                Ok(latest) => self.latest = Some(latest),
                Err(Spent::Used) => return Proof::Refused(Status::FORBIDDEN, None),
                Err(Spent::Full) => {
                    return Proof::Refused(Status::SERVICE_UNAVAILABLE, Some(RETRY_AFTER));
                }
            }
        }
        Proof::Holds(proved)
    }

    fn challenge(&self, now: Instant, request: &Request, is_stale: bool) -> Verdict {
        let nonce = self.house.nonces.issue(now, self.flow.id.0);
        let mut response = self.response(request, Status::UNAUTHORIZED);
        let field = self.asked(request).challenge(&self.house.realm(), &nonce, is_stale);
        response.headers.push(Name::WwwAuthenticate, field);
        Verdict::Reply(response.to_bytes())
    }

    /// What a request's sender is asked for, by the account that it names: MD5, unless that one
    /// takes none.
    fn asked(&self, request: &Request) -> Asked {
        let from = request.headers.from().ok().map(|from| from.uri);
        let named = from.as_ref().and_then(Uri::user_unescaped);
        let known = named.and_then(|user| self.house.guard.digest(&user, &self.house.realm()));
        match known {
            Some((_, hashes)) if hashes.md5.is_none() => Asked::Sha256,
            _ => Asked::Md5,
        }
    }

    fn forbid(&self, request: &Request, code: &str) -> Verdict {
        let mut response = self.response(request, Status::FORBIDDEN);
        response.headers.push_warning("callgate", code);
        Verdict::Reply(response.to_bytes())
    }

    fn refuse(&self, request: &Request, status: Status, retry: Option<u32>) -> Verdict {
        let mut response = self.response(request, status);
        if let Some(seconds) = retry {
            response.headers.set_retry_after(seconds);
        }
        Verdict::Reply(response.to_bytes())
    }

    /// An answer of the door's.
    fn response(&self, request: &Request, status: Status) -> Response {
        self.stamped(Response::to(request, status, Some(&self.tag())))
    }

    /// With the source that RFC 3261 section 18.2.1 wants in the top Via.
    fn stamped(&self, mut response: Response) -> Response {
        let source = self.peer.source;
        response.headers.edit_top_via(|via| via.stamp(source));
        response
    }

    fn tag(&self) -> String {
        // Never the name of a shard: a dialog of the door's is none of the calls'.
        ids::new_call_id(&mut self.house.random())
    }
}

/// Seconds after which a client tries again where there is no room.
const RETRY_AFTER: u32 = 30;

/// The code of what a token was not made for, as WHIP says it as well.
const OUT_OF_SCOPE: &str = "token.scope";

fn is_user(uri: Option<Uri>, user: &str) -> bool {
    uri.is_some_and(|uri| uri.user_unescaped().as_deref() == Some(user))
}

fn seconds_until(wall: WallTime, then: WallTime) -> u32 {
    let millis = then.unix_millis().saturating_sub(wall.unix_millis());
    u32::try_from(millis / 1_000).unwrap_or(u32::MAX)
}

/// A bucket of messages, ten seconds deep.
struct Rate {
    filled: Instant,
    left: u64,
}

const DEPTH: u64 = 10;

impl Rate {
    const fn new(now: Instant) -> Self {
        Self { filled: now, left: limit::API_WEBSOCKET_MESSAGES.value * DEPTH }
    }

    fn takes(&mut self, now: Instant) -> bool {
        let rate = limit::API_WEBSOCKET_MESSAGES.value;
        let whole = now.since(self.filled).as_secs();
        if whole > 0 {
            self.filled += Duration::from_secs(whole);
            self.left = self.left.saturating_add(whole.saturating_mul(rate)).min(rate * DEPTH);
        }
        let takes = self.left > 0;
        self.left = self.left.saturating_sub(1);
        takes
    }
}

#[cfg(test)]
#[path = "door_tests.rs"]
mod tests;
