//! The thread that runs all handshakes, so that none of their milliseconds is taken from a relay
//! worker's packets. It owns a tokio runtime for the tasks of `webrtc-dtls`; `dimpl` is stepped.
//!
//! Commands come over one bounded queue, of which datagrams may not have the last quarter. A fault
//! in one association ends that one only. What a worker has no room for is tried again, but for
//! datagrams, which are repeated by those who miss them.
//!
//! The thread also keeps the certificate of new legs and tells the workers of each new one, and
//! makes those that one leg alone shows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{Instant, SeededRandom, SessionId, WallTime, limit};
use tokio::sync::mpsc::{self, error::TrySendError};

use super::Failure;
use super::association::{Association, Backends, Output, Setup};
use super::by_webrtc::Wake;
use super::identity::{Identities, Identity};
use super::keys::Keys;
use crate::driver::{now, wall};

/// One of a session's handshakes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandshakeId {
    /// The session.
    pub session: SessionId,
    /// Tells the handshakes of one session apart, so that late news of a former one are known.
    pub number: u32,
}

/// What a handshake has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// To be sent to the session's peer.
    Datagram(Vec<u8>),
    /// The handshake is complete, the peer is who it should be.
    Keys(Keys),
    /// The handshake is over without keys; nothing follows.
    Failed(Failure),
    /// The peer has said goodbye to DTLS. Media and call go on until signalling says otherwise.
    Closed,
    /// The certificate that [`DtlsHandle::identify`] asked for; `None` where it cannot be made.
    Identity(Option<Identity>),
}

/// Where results go; called on the thread of the handshakes, which waits meanwhile.
pub trait DtlsSink: Send {
    /// Takes news, or gives them back where there is no room for them now.
    ///
    /// # Errors
    /// The news.
    fn deliver(&mut self, of: HandshakeId, news: News) -> Result<(), News>;

    /// Takes the certificate of new legs; `false` where it has to be offered again.
    fn rotated(&mut self, identity: &Identity) -> bool;
}

/// The command was not taken: the queue is full (`dtls.commands`) or the thread has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the thread of DTLS handshakes takes no command now")]
pub struct Lost;

enum Command {
    Begin(u32, Box<Setup>),
    Datagram(Vec<u8>),
    End(u32),
    Identify,
}

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU64,
    completed: AtomicU64,
    completed_13: AtomicU64,
    failed: AtomicU64,
    lost: AtomicU64,
    unsent: AtomicU64,
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DtlsCounters {
    /// Handshakes begun, refused ones included.
    pub begun: u64,
    /// Handshakes that gave keys.
    pub completed: u64,
    /// Those of them that were of DTLS 1.3.
    pub completed_13: u64,
    /// Handshakes that did not.
    pub failed: u64,
    /// Datagrams that found no room in the queue.
    pub lost: u64,
    /// Datagrams for peers that found no room at their worker.
    pub unsent: u64,
}

/// Reads the counts; keeps no thread from its end.
#[derive(Clone, Debug, Default)]
pub struct DtlsCounts(Arc<Counts>);

impl DtlsCounts {
    /// Counts since the start.
    #[must_use]
    pub fn read(&self) -> DtlsCounters {
        let Counts { begun, completed, completed_13, failed, lost, unsent } = &*self.0;
        let [begun, completed, completed_13, failed, lost, unsent] =
            [begun, completed, completed_13, failed, lost, unsent]
                .map(|it| it.load(Ordering::Relaxed));
        DtlsCounters { begun, completed, completed_13, failed, lost, unsent }
    }
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
    pub fn begin(&self, id: HandshakeId, setup: Setup) -> Result<(), Lost> {
        self.send(id.session, Command::Begin(id.number, Box::new(setup)))
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
    pub fn end(&self, id: HandshakeId) -> Result<(), Lost> {
        self.send(id.session, Command::End(id.number))
    }

    /// Asks for a certificate that no other session shows, for one that is still to begin; it
    /// comes as [`News::Identity`], whatever the number.
    ///
    /// # Errors
    /// [`Lost`].
    pub fn identify(&self, session: SessionId) -> Result<(), Lost> {
        self.send(session, Command::Identify)
    }

    /// Where to read the counts.
    #[must_use]
    pub fn counts(&self) -> DtlsCounts {
        DtlsCounts(self.counts.clone())
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
    /// Starts the thread, which gives each new certificate of `identities` to the sink, but not the
    /// present one. `seed` makes their names.
    ///
    /// # Errors
    /// Where the system refuses a thread, or the cryptography of a library fails its test.
    pub fn start(sink: Box<dyn DtlsSink>, identities: Identities, seed: u64) -> io::Result<Self> {
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
            undelivered: VecDeque::new(),
            again: None,
            rotate: identities.poll_timeout(),
            identities,
            random: SeededRandom::new(seed),
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
/// Pause before news that found no room are tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// The same, of a certificate that could not be made or told.
const ROTATE_AGAIN: Duration = Duration::from_secs(10);
/// News that wait for room, at most: of each association its keys and its end.
const UNDELIVERED: usize = 2 * limit::DTLS_ASSOCIATIONS.get();

struct Entry {
    number: u32,
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
    /// News that found no room, and when they are tried again.
    undelivered: VecDeque<(HandshakeId, News)>,
    again: Option<Instant>,
    identities: Identities,
    rotate: Instant,
    random: SeededRandom,
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
            let next = next.into_iter().chain(self.again).chain([self.rotate]).min();
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
                        let id = |(session, entry): (&_, &Entry)| (*session, entry.number);
                        let all: Vec<_> = self.entries.iter().map(id).collect();
                        all.into_iter().for_each(|(session, number)| self.end(session, number));
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
            self.deliver_again(now());
            self.rotate(now(), wall());
        }
    }

    fn command(&mut self, (session, command): (SessionId, Command)) {
        match command {
            Command::Begin(number, setup) => self.begin(HandshakeId { session, number }, *setup),
            Command::Datagram(bytes) => {
                self.step(session, |association, now| association.handle_datagram(now, &bytes));
            }
            Command::End(number) => self.end(session, number),
            Command::Identify => {
                let made = Identity::generate(&mut self.random, wall()).ok();
                self.tell(HandshakeId { session, number: 0 }, News::Identity(made));
            }
        }
    }

    fn begin(&mut self, id: HandshakeId, setup: Setup) {
        self.counts.begun.fetch_add(1, Ordering::Relaxed);
        self.remove(id.session);
        if self.handshaking >= limit::DTLS_HANDSHAKES.get()
            || self.entries.len() >= limit::DTLS_ASSOCIATIONS.get()
        {
            return self.failed(id, Failure::Full);
        }
        let wake = Wake { queue: self.wake.clone(), session: id.session };
        let begin = || self.backends.begin(now(), setup, wake);
        match catch_unwind(AssertUnwindSafe(begin)).unwrap_or(Err(Failure::Fault)) {
            Ok(association) => {
                let number = id.number;
                let entry =
                    Entry { number, association, is_counted: true, timer: None, ending: None };
                self.entries.insert(id.session, entry);
                self.handshaking += 1;
                self.settle(id.session);
            }
            Err(failure) => self.failed(id, failure),
        }
    }

    fn end(&mut self, session: SessionId, number: u32) {
        self.undelivered.retain(|(id, _)| *id != HandshakeId { session, number });
        let entry = self.entries.get_mut(&session).filter(|entry| entry.number == number);
        if let Some(entry) = entry {
            entry.ending = Some(now() + GOODBYE);
            self.step(session, Association::close);
        }
    }

    /// Lets an association do something, and carries out what comes of it.
    fn step(&mut self, session: SessionId, act: impl FnOnce(&mut Association, Instant)) {
        let Some(entry) = self.entries.get_mut(&session) else { return };
        let id = HandshakeId { session, number: entry.number };
        let act = || act(&mut entry.association, now());
        if catch_unwind(AssertUnwindSafe(act)).is_ok() {
            self.settle(session);
        } else if self.remove(session) {
            self.failed(id, Failure::Fault);
        } else {
            self.tell(id, News::Closed);
        }
    }

    fn settle(&mut self, session: SessionId) {
        loop {
            let Some(entry) = self.entries.get_mut(&session) else { return };
            if entry.is_counted && !entry.association.is_handshaking() {
                entry.is_counted = false;
                self.handshaking -= 1;
            }
            let id = HandshakeId { session, number: entry.number };
            let is_ending = entry.ending.is_some();
            let is_13 = entry.association.is_13();
            match entry.association.poll_output() {
                None => break,
                Some(Output::Datagram(bytes)) => self.tell(id, News::Datagram(bytes)),
                Some(Output::Keys(keys)) => {
                    self.counts.completed.fetch_add(1, Ordering::Relaxed);
                    self.counts.completed_13.fetch_add(u64::from(is_13), Ordering::Relaxed);
                    if !is_ending {
                        self.tell(id, News::Keys(keys));
                    }
                }
                Some(Output::Failed(failure)) => {
                    self.remove(session);
                    self.failed(id, failure);
                }
                Some(Output::Closed) => {
                    self.remove(session);
                    if !is_ending {
                        self.tell(id, News::Closed);
                    }
                }
            }
        }
        self.set_timer(session);
    }

    fn failed(&mut self, id: HandshakeId, failure: Failure) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        self.tell(id, News::Failed(failure));
    }

    fn tell(&mut self, id: HandshakeId, news: News) {
        let Err(news) = self.sink.deliver(id, news) else { return };
        if matches!(news, News::Datagram(_)) || self.undelivered.len() >= UNDELIVERED {
            self.counts.unsent.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.undelivered.push_back((id, news));
        self.again = self.again.or_else(|| Some(now() + AGAIN));
    }

    fn deliver_again(&mut self, now: Instant) {
        if self.again.is_none_or(|again| now < again) {
            return;
        }
        for _ in 0..self.undelivered.len() {
            if let Some((id, news)) = self.undelivered.pop_front()
                && let Err(news) = self.sink.deliver(id, news)
            {
                self.undelivered.push_back((id, news));
            }
        }
        self.again = (!self.undelivered.is_empty()).then(|| now + AGAIN);
    }

    /// Makes the next certificate when the present one's time is over, and tells of it. Where it
    /// cannot be made, new legs keep the present one meanwhile.
    fn rotate(&mut self, now: Instant, wall: WallTime) {
        if now < self.rotate {
            return;
        }
        let made = self.identities.rotate(&mut self.random, now, wall);
        let is_told = made.is_ok() && self.sink.rotated(&self.identities.present());
        self.rotate = if is_told { self.identities.poll_timeout() } else { now + ROTATE_AGAIN };
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
