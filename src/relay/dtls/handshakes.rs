//! The thread that runs all handshakes, so that none of their milliseconds is taken from a relay
//! worker's packets. It owns a tokio runtime for the tasks of `webrtc-dtls`; `dimpl` is stepped.
//!
//! Commands come over one bounded queue, of which datagrams may not have the last quarter. A fault
//! in one association ends that one only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Instant, SessionId, limit};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::Failure;
use super::association::{Association, Backends, Output, Setup};
use super::by_webrtc::Wake;
use super::keys::Keys;
use crate::driver::now;

/// Where results go; called on the thread of the handshakes, which waits meanwhile.
pub trait DtlsSink: Send {
    /// To be sent to the session's peer.
    fn datagram(&mut self, session: SessionId, bytes: &[u8]);
    /// The handshake is complete, the peer is who it should be.
    fn keys(&mut self, session: SessionId, keys: Keys);
    /// The handshake is over without keys; nothing follows.
    fn failed(&mut self, session: SessionId, failure: Failure);
    /// The peer has said goodbye to DTLS. Media and call go on until signalling says otherwise.
    fn closed(&mut self, session: SessionId);
}

/// The command was not taken: the queue is full (`dtls.commands`) or the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread of DTLS handshakes takes no command now")]
pub struct Lost;

enum Command {
    Begin(Box<Setup>),
    Datagram(Vec<u8>),
    End,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    completed: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DtlsCounters {
    /// Handshakes begun, refused ones included.
    pub begun: u64,
    /// Handshakes that gave keys.
    pub completed: u64,
    /// Handshakes that did not.
    pub failed: u64,
    /// Datagrams that found no room in the queue.
    pub lost: u64,
}

/// Sends commands to the thread. It never waits.
#[derive(Clone, Debug)]
pub struct DtlsHandle {
    commands: mpsc::Sender<(SessionId, Command)>,
    counts: Arc<Counts>,
}

impl DtlsHandle {
    /// Begins a handshake for a session, in place of one that it may have.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn begin(&self, session: SessionId, setup: Setup) -> Result<(), Lost> {
        self.send(session, Command::Begin(Box::new(setup)))
    }

    /// A datagram has come from the session's peer (RFC 7983: its first byte is 20 to 63). One of
    /// a session that has not begun is dropped.
    ///
    /// # Errors
    /// [`Lost`]; as on the way, it will be repeated.
    pub fn datagram(&self, session: SessionId, bytes: &[u8]) -> Result<(), Lost> {
        let is_room = self.commands.capacity() > limit::DTLS_COMMANDS.get() / 4;
        if bytes.len() > limit::DTLS_RECEIVED_BYTES.get() || !is_room {
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
            return Err(Lost);
        }
        self.send(session, Command::Datagram(bytes.to_vec()))
    }

    /// The session is over: its peer is told, and nothing of it is kept.
    ///
    /// # Errors
    /// [`Lost`]; to be tried again.
    pub fn end(&self, session: SessionId) -> Result<(), Lost> {
        self.send(session, Command::End)
    }

    /// Counts since the start.
    #[must_use]
    pub fn counters(&self) -> DtlsCounters {
        let Counts { begun, completed, failed, lost } = &*self.counts;
        let [begun, completed, failed, lost] =
            [begun, completed, failed, lost].map(|it| it.load(Ordering::Relaxed));
        DtlsCounters { begun, completed, failed, lost }
    }

    fn send(&self, session: SessionId, command: Command) -> Result<(), Lost> {
        self.commands.try_send((session, command)).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Closed(_) => Lost,
        })
    }
}

/// The thread. Once it and all handles are dropped, it says goodbye to all peers and ends.
#[derive(Debug)]
pub struct Handshakes {
    handle: DtlsHandle,
    thread: JoinHandle<()>,
}

impl Handshakes {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system refuses a thread, or the cryptography of a library fails its test.
    pub fn start(sink: Box<dyn DtlsSink>) -> io::Result<Self> {
        let backends = Backends::new().map_err(io::Error::other)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let (sender, commands) = mpsc::channel(limit::DTLS_COMMANDS.get());
        let counts = Arc::new(Counts::default());
        let (wake, woken) = mpsc::channel(limit::DTLS_ASSOCIATIONS.get());
        let table = Table {
            backends,
            sink,
            wake,
            counts: counts.clone(),
            entries: BTreeMap::new(),
            timers: BTreeSet::new(),
            handshaking: 0,
        };
        let run = move || runtime.block_on(table.run(commands, woken));
        let thread = std::thread::Builder::new().name("dtls".to_owned()).spawn(run)?;
        Ok(Self { handle: DtlsHandle { commands: sender, counts }, thread })
    }

    /// A handle to send commands with.
    #[must_use]
    pub fn handle(&self) -> DtlsHandle {
        self.handle.clone()
    }

    /// Waits until all other handles are dropped and all peers have been told. Blocks.
    pub fn join(self) {
        drop(self.handle);
        // A thread that panicked has ended all the same.
        let _ = self.thread.join();
    }
}

/// How long a task may take to say goodbye.
const GOODBYE: Duration = Duration::from_millis(500);
/// Commands taken before timers and tasks have their turn.
const COMMANDS_AT_ONCE: usize = 64;

struct Entry {
    association: Association,
    /// It is counted as a handshake under way.
    is_counted: bool,
    timer: Option<Instant>,
    /// It was ended; until then its goodbye may be sent.
    ending: Option<Instant>,
}

struct Table {
    backends: Backends,
    sink: Box<dyn DtlsSink>,
    wake: mpsc::Sender<SessionId>,
    counts: Arc<Counts>,
    entries: BTreeMap<SessionId, Entry>,
    timers: BTreeSet<(Instant, SessionId)>,
    handshaking: usize,
}

impl Table {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<(SessionId, Command)>,
        mut woken: mpsc::Receiver<SessionId>,
    ) {
        let mut is_open = true;
        while is_open || !self.entries.is_empty() {
            let next = self.timers.first().map(|(at, _)| *at);
            tokio::select! {
                command = commands.recv(), if is_open => match command {
                    Some(first) => {
                        self.command(first);
                        for _ in 1..COMMANDS_AT_ONCE {
                            let Ok(next) = commands.try_recv() else { break };
                            self.command(next);
                        }
                    }
                    None => {
                        is_open = false;
                        let sessions: Vec<_> = self.entries.keys().copied().collect();
                        sessions.into_iter().for_each(|session| self.end(session));
                    }
                },
                session = woken.recv() => {
                    if let Some(session) = session {
                        self.step(session, |association, now| association.handle_timeout(now));
                    }
                }
                () = until(next) => {}
            }
            self.fire(now());
        }
    }

    fn command(&mut self, (session, command): (SessionId, Command)) {
        match command {
            Command::Begin(setup) => self.begin(session, *setup),
            Command::Datagram(bytes) => {
                self.step(session, |association, now| association.handle_datagram(now, &bytes));
            }
            Command::End => self.end(session),
        }
    }

    fn begin(&mut self, session: SessionId, setup: Setup) {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        self.remove(session);
        if self.handshaking >= limit::DTLS_HANDSHAKES.get()
            || self.entries.len() >= limit::DTLS_ASSOCIATIONS.get()
        {
            return self.failed(session, Failure::Full);
        }
        let wake = Wake { queue: self.wake.clone(), session };
        let begin = || self.backends.begin(now(), setup, wake);
        match catch_unwind(AssertUnwindSafe(begin)).unwrap_or(Err(Failure::Fault)) {
            Ok(association) => {
                let entry = Entry { association, is_counted: true, timer: None, ending: None };
                self.entries.insert(session, entry);
                self.handshaking += 1;
                self.settle(session);
            }
            Err(failure) => self.failed(session, failure),
        }
    }

    fn end(&mut self, session: SessionId) {
        if let Some(entry) = self.entries.get_mut(&session) {
            entry.ending = Some(now() + GOODBYE);
            self.step(session, Association::close);
        }
    }

    /// Lets an association do something, and carries out what comes of it.
    fn step(&mut self, session: SessionId, act: impl FnOnce(&mut Association, Instant)) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        let act = || act(&mut entry.association, now());
        if catch_unwind(AssertUnwindSafe(act)).is_ok() {
            self.settle(session);
        } else if self.remove(session) {
            self.failed(session, Failure::Fault);
        } else {
            self.sink.closed(session);
        }
    }

    fn settle(&mut self, session: SessionId) {
        loop {
            let Some(entry) = self.entries.get_mut(&session) else { return };
            if entry.is_counted && !entry.association.is_handshaking() {
                entry.is_counted = false;
                self.handshaking -= 1;
            }
            let is_ending = entry.ending.is_some();
            match entry.association.poll_output() {
                None => break,
                Some(Output::Datagram(bytes)) => self.sink.datagram(session, &bytes),
                Some(Output::Keys(keys)) => {
                    self.counts.completed.fetch_add(1, Ordering::Relaxed);
                    if !is_ending {
                        self.sink.keys(session, keys);
                    }
                }
                Some(Output::Failed(failure)) => {
                    self.remove(session);
                    self.failed(session, failure);
                }
                Some(Output::Closed) => {
                    self.remove(session);
                    if !is_ending {
                        self.sink.closed(session);
                    }
                }
            }
        }
        self.set_timer(session);
    }

    fn failed(&mut self, session: SessionId, failure: Failure) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        self.sink.failed(session, failure);
    }

    fn set_timer(&mut self, session: SessionId) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        let timeout = entry.association.poll_timeout();
        let wanted = timeout.into_iter().chain(entry.ending).min();
        if entry.timer != wanted {
            if let Some(old) = std::mem::replace(&mut entry.timer, wanted) {
                self.timers.remove(&(old, session));
            }
            self.timers.extend(wanted.map(|at| (at, session)));
        }
    }

    fn fire(&mut self, now: Instant) {
        while let Some((at, session)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&session) else { continue };
            entry.timer = None;
            if entry.ending.is_some_and(|ending| ending <= now) {
                self.remove(session);
            } else {
                self.step(session, |association, now| association.handle_timeout(now));
            }
        }
    }

    /// Forgets a session; whether its handshake was under way.
    fn remove(&mut self, session: SessionId) -> bool {
        let Some(entry) = self.entries.remove(&session) else { return false };
        if let Some(at) = entry.timer {
            self.timers.remove(&(at, session));
        }
        if entry.is_counted {
            self.handshaking -= 1;
        }
        entry.is_counted
    }
}

async fn until(next: Option<Instant>) {
    match next {
        Some(at) => tokio::time::sleep(at.since(now())).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[path = "handshakes_tests.rs"]
mod handshakes_tests;
