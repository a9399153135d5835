//! Credentials: a trunk that asks who we are (401, 407) is answered with its own user and
//! password (RFC 3261 section 22), once, and once more where only the nonce was too old. Later
//! requests of the dialog show them before they are asked for. Nothing of a caller's or another
//! trunk's credentials ever goes out: they end at this edge.

use base::{Instant, Random, Reason, limit};
use sip::digest::{Challenge, Login, Place, Session};
use sip::transaction::ClientKey;
use sip::{Header, Headers, Message, Name, Request, Response};

use crate::contract::Setup;
use crate::desk::Desk;
use crate::leg::{Leg, Pending};

/// What a leg has answered to its peer's challenges.
#[derive(Debug, Default)]
pub(crate) struct Credentials {
    sessions: Vec<Session>,
    /// CSeq and credentials of the INVITE that an ACK may still follow.
    invite: Option<(u32, Vec<Header>)>,
    /// Requests within the dialog that may still be challenged.
    sent: Vec<Sent>,
}

/// A request that waits for its final response.
#[derive(Debug)]
struct Sent {
    key: ClientKey,
    request: Request,
    tries: Tries,
}

/// Who has challenged one request, and how often.
#[derive(Debug, Default)]
pub(crate) struct Tries(Vec<(Place, u8)>);

impl Tries {
    /// Whether a challenge may be answered: the first one, and a second one that says that the
    /// password was right (RFC 7616 section 3.3, `stale`).
    fn take(&mut self, challenge: &Challenge) -> Result<(), Reason> {
        let has_room = self.0.len() < limit::SIP_CHALLENGES.get();
        let known = self.0.iter_mut().find(|(place, _)| place == challenge.place());
        match known {
            Some((_, count)) if *count == 1 && challenge.is_stale() => *count = 2,
            Some(_) => return Err(Reason::CredentialsRefused),
            None if has_room => {
                self.0.push((challenge.place().clone(), 1));
            }
            None => return Err(Reason::CredentialsRefused),
        }
        Ok(())
    }
}

impl Credentials {
    /// Takes what a 401 or 407 asks for.
    ///
    /// # Errors
    /// Nothing of it can be answered, or it was answered in vain.
    fn answer(
        &mut self,
        login: &Login,
        tries: &mut Tries,
        headers: &Headers,
        random: &mut dyn Random,
    ) -> Result<(), Reason> {
        let mut result = Err(Reason::CredentialsMissing);
        for challenge in Challenge::all(headers).into_iter().filter(|it| it.is_for(login)) {
            tries.take(&challenge)?;
            self.sessions.retain(|session| session.place() != challenge.place());
            if self.sessions.len() < limit::SIP_CHALLENGES.get() {
                self.sessions.push(Session::new(challenge, login, random));
                result = Ok(());
            }
        }
        result
    }

    /// Shows what was asked for so far.
    pub(crate) fn write(&mut self, request: &mut Request) {
        request.headers.remove(Name::Authorization);
        request.headers.remove(Name::ProxyAuthorization);
        let (method, uri) = (&request.method, request.uri.as_str());
        let fields = self.sessions.iter_mut().map(|session| session.authorize(method, uri));
        let fields: Vec<Header> = fields.collect();
        fields.iter().cloned().for_each(|field| request.headers.push_header(field));
        if request.method == sip::Method::Invite {
            let cseq = request.headers.cseq().map_or(0, |cseq| cseq.number);
            self.invite = Some((cseq, fields)).filter(|(_, fields)| !fields.is_empty());
        }
    }

    /// An ACK shows what its INVITE did (RFC 3261 section 22.1).
    pub(crate) fn write_ack(&self, cseq: u32, ack: &mut Request) {
        let of_invite = self.invite.iter().filter(|(number, _)| *number == cseq);
        of_invite
            .flat_map(|(_, fields)| fields)
            .cloned()
            .for_each(|field| ack.headers.push_header(field));
    }

    /// Takes the next nonce of a 2xx.
    pub(crate) fn renew(&mut self, headers: &Headers) {
        self.sessions.iter_mut().for_each(|session| session.renew(headers));
    }

    /// The requests that wait, for the table.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ClientKey> {
        self.sent.iter().map(|sent| sent.key)
    }

    /// A request is over.
    pub(crate) fn forget(&mut self, key: ClientKey) {
        self.take(key);
    }

    fn take(&mut self, key: ClientKey) -> Option<Sent> {
        let at = self.sent.iter().position(|sent| sent.key == key)?;
        Some(self.sent.swap_remove(at))
    }

    fn keep(&mut self, sent: Sent) {
        if self.sent.len() < limit::CALL_UNANSWERED.get() {
            self.sent.push(sent);
        }
    }
}

/// Whether a response asks who we are.
pub(crate) const fn is_challenge(response: &Response) -> bool {
    matches!(response.status.code(), 401 | 407)
}

impl Leg {
    /// Our credentials towards this leg's trunk, where they may cross its transport.
    fn login<'a>(&self, desk: &Desk<'a>) -> Option<&'a Login> {
        let setup: &'a Setup = desk.setup;
        let peer = self.peer.as_ref()?;
        let is_allowed = setup.policy.lets_signal(&self.trunk, peer.transport, desk.wall);
        setup.logins.get(&self.trunk).filter(|_| is_allowed)
    }

    /// Remembers a request within the dialog while it may be challenged.
    pub(crate) fn remember(&mut self, desk: &Desk<'_>, key: ClientKey, message: &Message) {
        if let Message::Request(request) = message
            && self.login(desk).is_some()
        {
            let request = request.clone();
            self.credentials.keep(Sent { key, request, tries: Tries::default() });
        }
    }

    /// Sends a challenged INVITE of ours again, which began no dialog yet.
    ///
    /// # Errors
    /// We have nothing to show, or it was refused.
    pub(crate) fn invite_again(
        &mut self,
        desk: &mut Desk<'_>,
        response: &Response,
    ) -> Result<(), Reason> {
        let login = self.login(desk).ok_or(Reason::CredentialsMissing)?;
        let dial = self.dial.as_mut().ok_or(Reason::Internal)?;
        self.credentials.answer(login, &mut dial.tries, &response.headers, desk.random)?;
        self.repeat_invite(desk, |_| ())
    }

    /// Sends our INVITE again, changed as its refusal wants it.
    ///
    /// # Errors
    /// There is none, or no room for another transaction.
    pub(crate) fn repeat_invite(
        &mut self,
        desk: &mut Desk<'_>,
        change: impl FnOnce(&mut Request),
    ) -> Result<(), Reason> {
        let (Some(peer), Some(dial)) = (self.peer.clone(), &mut self.dial) else {
            return Err(Reason::Internal);
        };
        let mut invite = dial.invite.clone().ok_or(Reason::Internal)?;
        change(&mut invite);
        // RFC 3261 sections 8.1.3.5 and 22.2: the next CSeq of the same Call-ID and From tag.
        let cseq = invite.headers.cseq().map_or(0, |cseq| cseq.number);
        let next = cseq.saturating_add(1);
        invite.headers.set(Name::CSeq, format!("{next} {}", invite.method));
        self.credentials.write(&mut invite);
        let sent = desk.repeat(&peer, self.terms.zone.as_deref(), invite);
        let (key, invite) = sent.ok_or(Reason::EdgeCallLimit)?;
        self.ladder.note(desk, false, &Message::Request(invite.clone()));
        let heard_by: Instant = desk.now + self.terms.first_response;
        dial.begin_again(key, invite, heard_by);
        self.dialog = None;
        Ok(())
    }

    /// Sends a challenged request within the dialog again, in the place of the one that was sent;
    /// `false` where that cannot be or need not be, so that the response stands as it is.
    pub(crate) fn answer_challenge(
        &mut self,
        desk: &mut Desk<'_>,
        key: ClientKey,
        response: Option<&Response>,
    ) -> bool {
        if response.is_some_and(|response| response.status.is_provisional()) {
            return false;
        }
        let Some(Sent { mut request, mut tries, .. }) = self.credentials.take(key) else {
            return false;
        };
        let Some(challenge) = response.filter(|response| is_challenge(response)) else {
            return false;
        };
        let (Some(login), Some(peer)) = (self.login(desk), self.peer.clone()) else { return false };
        let answered = self.credentials.answer(login, &mut tries, &challenge.headers, desk.random);
        let (Ok(()), Some(dialog)) = (answered, &mut self.dialog) else { return false };
        let next = dialog.request(request.method.clone());
        request.headers.set(Name::CSeq, next.headers.text(Name::CSeq).unwrap_or_default());
        self.credentials.write(&mut request);
        let sent = desk.repeat(&peer, self.terms.zone.as_deref(), request);
        let Some((again, request)) = sent else { return false };
        self.ladder.note(desk, false, &Message::Request(request.clone()));
        self.credentials.keep(Sent { key: again, request, tries });
        self.reinvite = self.reinvite.map(|it| if it == key { again } else { it });
        self.pending = self.pending.map(|pending| match pending {
            Pending::Bye(it) if it == key => Pending::Bye(again),
            Pending::Refresh { key: it, is_invite } if it == key => {
                Pending::Refresh { key: again, is_invite }
            }
            other => other,
        });
        true
    }
}
