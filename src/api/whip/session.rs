//! WHIP sessions: a bounded table of them, and the task that each is: it owns the user agent and
//! the carried flow, and does what its browser asks in order.

use std::collections::BTreeMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Instant, limit};
use bytes::Bytes;
use sdp::Session;
use sip::Status;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use transport::Carried;

use super::agent::{Act, Agent, Refusal};
use super::fragment::{self, Fragment};
use crate::guard::SharedClock;
use crate::tokens::Claim;

/// Whose a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Of the workspace: whoever holds a key of it that may write.
    Workspace,
    /// Of the holder of the token with this id.
    Token(String),
}

/// What a browser asks of its session.
pub(crate) enum Ask {
    Patch { condition: Condition, fragment: Box<Fragment>, reply: oneshot::Sender<Patched> },
    HangUp { reply: oneshot::Sender<()> },
}

/// `If-Match` (RFC 9725 section 4.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// `*`: whatever holds, as a restart says.
    Any,
    /// Entity tags, one of which is to be that of the ICE session.
    Tags(Vec<String>),
}

/// What became of a PATCH.
#[derive(Debug)]
pub(crate) enum Patched {
    /// Candidates were taken.
    Taken,
    /// ICE was restarted: our side of it, and its entity tag.
    Restarted { fragment: String, tag: String },
    /// The condition does not hold.
    Mismatch,
    /// Credentials of another ICE session under a condition that names this one.
    OtherCredentials,
    /// The calls refused it.
    Refused(Refusal),
}

/// An answered call.
pub(crate) struct Opened {
    pub(crate) answer: String,
    pub(crate) tag: String,
}

/// Every session, by its id.
#[derive(Default)]
pub(crate) struct Sessions(Arc<Table>);

#[derive(Default)]
struct Table(Mutex<BTreeMap<String, Entry>>);

#[derive(Clone)]
struct Entry {
    owner: Owner,
    called: String,
    asks: mpsc::Sender<Ask>,
}

/// Why there is no session to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSession {
    /// It is over, or never was.
    Gone,
    /// It is somebody else's.
    Foreign,
}

impl Sessions {
    /// A place for a session, if there is one.
    pub(crate) fn enter(&self, id: String, called: &str, owner: Owner) -> Option<Place> {
        let mut table = self.0.lock();
        if table.len() >= limit::API_WHIP_SESSIONS.get() {
            return None;
        }
        let (sender, asks) = mpsc::channel(ASKS);
        table.insert(id.clone(), Entry { owner, called: called.to_owned(), asks: sender });
        Some(Place { table: Arc::clone(&self.0), id, asks })
    }

    /// The way to a session of this owner's.
    pub(crate) fn find(
        &self,
        id: &str,
        called: &str,
        owner: &Owner,
    ) -> Result<mpsc::Sender<Ask>, NoSession> {
        let table = self.0.lock();
        let entry = table.get(id).filter(|entry| entry.called == called).ok_or(NoSession::Gone)?;
        match &entry.owner == owner || *owner == Owner::Workspace {
            true => Ok(entry.asks.clone()),
            false => Err(NoSession::Foreign),
        }
    }
}

/// A browser asks for one thing after the other.
const ASKS: usize = 4;

impl Table {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the table, until it is dropped.
pub(crate) struct Place {
    table: Arc<Table>,
    id: String,
    asks: mpsc::Receiver<Ask>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.lock().remove(&self.id);
    }
}

/// One session.
pub(crate) struct Running {
    pub(crate) agent: Agent,
    pub(crate) carried: Carried,
    pub(crate) place: Place,
    pub(crate) clock: SharedClock,
    pub(crate) tag: Tag,
    /// The POST that waits for the answer.
    pub(crate) first: Option<oneshot::Sender<Result<Opened, Refusal>>>,
    /// The token that opens this session.
    pub(crate) claim: Option<Claim>,
    /// The PATCH that waits for an answer.
    pub(crate) patching: Option<oneshot::Sender<Patched>>,
}

/// The entity tag of a session's present ICE session.
#[derive(Clone, Debug)]
pub(crate) struct Tag {
    stem: String,
    number: u32,
}

impl Tag {
    /// Tags that begin with random digits, so that nobody guesses those of another session.
    pub(crate) const fn new(stem: String) -> Self {
        Self { stem, number: 1 }
    }

    fn written(&self) -> String {
        format!("\"{}-{}\"", self.stem, self.number)
    }
}

impl Running {
    /// Runs the session to its end. `ending` ends when everything is to end.
    pub(crate) async fn run(mut self, ending: impl Future<Output = ()>) {
        let mut ending = core::pin::pin!(ending);
        let mut is_ending = false;
        loop {
            self.drain().await;
            if self.agent.is_done() {
                return;
            }
            let due = self.agent.poll_timeout();
            tokio::select! {
                message = self.carried.next() => match message {
                    Some(message) => self.receive(&message),
                    None => {
                        self.agent.flow_gone(self.clock.now());
                        self.drain().await;
                        return;
                    }
                },
                ask = self.place.asks.recv() => {
                    if let Some(ask) = ask {
                        self.asked(ask);
                    }
                }
                () = until(due, &self.clock) => self.agent.handle_timeout(self.clock.now()),
                () = gone(&mut self.first) => {
                    // The browser waits no longer: the call is nobody's.
                    self.first = None;
                    self.agent.hang_up(self.clock.now());
                }
                () = &mut ending, if !is_ending => {
                    is_ending = true;
                    self.agent.hang_up(self.clock.now());
                }
            }
        }
    }

    fn receive(&mut self, bytes: &Bytes) {
        // What the calls write, they could read.
        if let Ok(message) = sip::parse::datagram(bytes) {
            self.agent.handle_message(self.clock.now(), message);
        }
    }

    /// Does what the agent wants.
    async fn drain(&mut self) {
        while let Some(act) = self.agent.poll_output() {
            match act {
                Act::Send(bytes) => {
                    if let Some(waiting) = self.carried.deliver(bytes) {
                        tokio::select! {
                            () = waiting => {}
                            () = self.carried.ended() => {}
                        }
                    }
                }
                Act::Answered(answer) => self.answered(&answer),
                Act::Refused(refusal) => {
                    if let Some(first) = self.first.take() {
                        // Who waited may have gone.
                        let _ = first.send(Err(refusal));
                    }
                }
                Act::Restarted(answer) => self.restarted(&answer),
                Act::NotRestarted(refusal) => self.patched(Patched::Refused(refusal)),
                Act::Over => {
                    // From now on it is not found; what waits is told by the closed channel.
                    self.place.table.lock().remove(&self.place.id);
                    self.place.asks.close();
                }
            }
        }
    }

    fn answered(&mut self, answer: &Session) {
        let opened = Opened { answer: answer.to_string(), tag: self.tag.written() };
        let told = self.first.take().is_some_and(|first| first.send(Ok(opened)).is_ok());
        match (told, self.claim.take()) {
            (true, Some(claim)) => claim.keep(),
            (true, None) => {}
            (false, _) => self.agent.hang_up(self.clock.now()),
        }
    }

    fn restarted(&mut self, answer: &Session) {
        self.tag.number = self.tag.number.wrapping_add(1);
        let tag = self.tag.written();
        match fragment::written(answer) {
            Some(fragment) => self.patched(Patched::Restarted { fragment, tag }),
            None => {
                let status = Status::BAD_GATEWAY;
                let refusal = Refusal { status, reason: None, retry_after: None };
                self.patched(Patched::Refused(refusal));
            }
        }
    }

    fn patched(&mut self, patched: Patched) {
        if let Some(reply) = self.patching.take() {
            // Who asked may have gone.
            let _ = reply.send(patched);
        }
    }

    fn asked(&mut self, ask: Ask) {
        let now = self.clock.now();
        match ask {
            Ask::HangUp { reply } => {
                self.agent.hang_up(now);
                let _ = reply.send(());
            }
            Ask::Patch { condition, fragment, reply } => {
                let decided = self.decide(&condition, &fragment);
                if let Some(patched) = decided {
                    let _ = reply.send(patched);
                    return;
                }
                let offer = fragment.restarting(self.agent.ours());
                if self.patching.is_some() {
                    let status = Status::REQUEST_PENDING;
                    let refusal = Refusal { status, reason: None, retry_after: None };
                    let _ = reply.send(Patched::Refused(refusal));
                    return;
                }
                self.patching = Some(reply);
                self.agent.restart(now, offer);
            }
        }
    }

    /// What a PATCH comes to; `None` where ICE is to be restarted.
    fn decide(&self, condition: &Condition, fragment: &Fragment) -> Option<Patched> {
        let is_known = fragment.is_of(self.agent.ours());
        match condition {
            Condition::Any if is_known => Some(Patched::Taken),
            Condition::Any => None,
            Condition::Tags(tags) if !tags.contains(&self.tag.written()) => Some(Patched::Mismatch),
            // RFC 9725 section 4.3.3: a restart says `*`.
            Condition::Tags(_) if !is_known => Some(Patched::OtherCredentials),
            // ICE-lite asks no candidate: checks come from where they come (RFC 8445 section 7.3).
            Condition::Tags(_) => Some(Patched::Taken),
        }
    }
}

/// Ends when who waits for the first answer has gone.
async fn gone<T>(waiting: &mut Option<oneshot::Sender<T>>) {
    match waiting {
        Some(waiting) => waiting.closed().await,
        None => pending().await,
    }
}

/// Waits until then; for ever where there is no such point.
async fn until(due: Option<Instant>, clock: &SharedClock) {
    match due {
        Some(due) => sleep(due.since(clock.now())).await,
        None => pending().await,
    }
}
