//! Dialling out: from a trunk and a SIP URI to a flow that is up, over one target after the other
//! (RFC 3263 section 4.3).
//!
//! [`crate::TransportHandle::dial`] answers with the first target that takes a connection. What
//! happens to the request afterwards only the one who sends it knows: it tells [`Dialling`], which
//! answers with the next target or remembers that this one works.

mod open;
mod search;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use base::{Reason, TrunkName};
use sip::Uri;
use tokio::task::AbortHandle;

use crate::flow::{Flow, Transport};
use crate::handle::Shared;
use crate::resolve::{ResolveError, Target};
use crate::task::contained_call;

use search::Search;

/// What to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The trunk that it belongs to; tells our side, and who proves what.
    pub trunk: TrunkName,
    /// Whom: a `send_to` of the trunk, or where a dialog's requests go.
    pub uri: Uri,
    /// What may carry it, the preferred first. A transport that the URI names must be among them.
    pub transports: Vec<Transport>,
    /// Names that the peer's certificate has proved before, within the dialog that this is for:
    /// any of them counts like the domain in the URI. Empty outside of a dialog.
    pub proved: Arc<[String]>,
}

impl Dial {
    /// A dial of a trunk's URI: over the transport that it names, else over TLS.
    #[must_use]
    pub fn new(trunk: TrunkName, uri: Uri) -> Self {
        let named = crate::resolve::Destination::of(&uri).ok().and_then(|it| it.transport);
        let transports = vec![named.unwrap_or(Transport::Tls)];
        Self { trunk, uri, transports, proved: Arc::default() }
    }
}

/// A target that took a connection.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Where to send; [`Flow::local`] is what Via and Contact name.
    pub flow: Arc<Flow>,
    /// Which target it is.
    pub target: Target,
}

/// What became of a request at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The flow is gone, or nothing came back (RFC 3261 timers B and F). Of a flow that is gone the
    /// same target is tried once more, over a new connection: it may just have been restarted.
    Silent,
    /// It answered 503, with this `Retry-After`.
    Unavailable(Option<Duration>),
}

/// Why there is no (further) target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The policy has no such trunk.
    #[error("there is no such trunk")]
    UnknownTrunk,
    /// The URI leads nowhere.
    #[error("{0}")]
    Resolve(#[from] ResolveError),
    /// Every target failed.
    #[error("no target of the trunk takes a connection")]
    Unreachable,
    /// Every target that is left has asked to be left alone (RFC 3261 section 21.5.4).
    #[error("the trunk has asked to be left alone for a while")]
    Unavailable,
    /// The last target did not prove who it is, and none did better.
    #[error("the trunk does not prove who it is")]
    Untrusted,
    /// The last target does not take our certificate, and none was better.
    #[error("the trunk does not take our certificate")]
    Unwelcome,
    /// Limit `transport.connections_per_trunk` or `transport.connections` is reached.
    #[error("there are too many connections")]
    Full,
    /// The transport was drained.
    #[error("the transport has ended")]
    Ended,
}

impl DialError {
    /// The catalogued outcome.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Resolve(_) => Reason::TrunkUnresolved,
            Self::Unavailable => Reason::TrunkUnavailable,
            Self::Untrusted => Reason::TrunkUntrusted,
            Self::Unwelcome => Reason::CertificateRefused,
            Self::Full => Reason::ConnectionLimit,
            Self::Unreachable | Self::UnknownTrunk => Reason::TrunkUnreachable,
            Self::Ended => Reason::Draining,
        }
    }
}

/// A dial in progress. Dropping it ends the search; a flow that was reached stays.
#[must_use = "dropping it ends the search"]
pub struct Dialling {
    shared: Arc<Shared>,
    answer: Arc<Answer>,
    slot: Arc<Slot>,
}

type Answer = dyn Fn(Result<Reached, DialError>) + Send + Sync;

/// Where the search is between its steps.
struct Slot(Mutex<State>);

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum State {
    /// Nobody searches at the moment.
    Resting(Box<Search>),
    /// A task does.
    Searching(AbortHandle),
    Ended,
}

impl Dialling {
    pub(crate) fn start(
        shared: &Arc<Shared>,
        dial: Dial,
        answer: impl Fn(Result<Reached, DialError>) + Send + Sync + 'static,
    ) -> Self {
        let line = shared.lines.load().find(&dial.trunk).cloned();
        let state = match line {
            Some(line) => State::Resting(Box::new(Search::new(shared, dial, line))),
            None => State::Ended,
        };
        let is_known = matches!(state, State::Resting(_));
        let dialling = Self {
            shared: Arc::clone(shared),
            answer: Arc::new(answer),
            slot: Arc::new(Slot(Mutex::new(state))),
        };
        if is_known {
            dialling.search();
        } else {
            (dialling.answer)(Err(DialError::UnknownTrunk));
        }
        dialling
    }

    /// The target that was reached is no good for this request: the next one is answered, or that
    /// there is none. While a search is under way this does nothing.
    pub fn failed(&self, why: Failure) {
        if let State::Resting(search) = &mut *self.slot.state() {
            search.note_failure(why);
        }
        self.search();
    }

    /// The target that was reached works: any answer but 503 says so, a refusal as well.
    pub fn worked(&self) {
        if let State::Resting(search) = &*self.slot.state() {
            search.note_success();
        }
    }

    /// Searches on, unless that is done already: at once where nothing need be waited for, such as
    /// where a connection stands, else in a task of the transport.
    fn search(&self) {
        let mut state = self.slot.state();
        let mut search = match std::mem::replace(&mut *state, State::Ended) {
            State::Resting(search) => search,
            other => {
                *state = other;
                return;
            }
        };
        let (answer, slot) = (Arc::clone(&self.answer), Arc::downgrade(&self.slot));
        let mut task = Box::pin(async move {
            let found = search.advance().await;
            let Some(slot) = slot.upgrade() else { return };
            *slot.state() = if found.is_ok() { State::Resting(search) } else { State::Ended };
            answer(found);
        });
        drop(state);
        // Sockets and timers register with the runtime.
        let runtime = self.shared.tasks.runtime().enter();
        let mut nobody = Context::from_waker(Waker::noop());
        let step = contained_call(|| task.as_mut().poll(&mut nobody));
        drop(runtime);
        // A panic is nobody's answer; whoever waits has a deadline of its own.
        let Some(Poll::Pending) = step else { return };
        let mut state = self.slot.state();
        // Under the lock, so that the task does not end before its state is set.
        if let Some(task) = self.shared.tasks.spawn(task) {
            *state = State::Searching(task);
            return;
        }
        drop(state);
        (self.answer)(Err(DialError::Ended));
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        if let State::Searching(task) = &*self.slot.state() {
            task.abort(); // nobody wants to know any more
        }
    }
}
