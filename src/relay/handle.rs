//! The relay as the rest of the process sees it: start, commands, counts, drain.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{SeededRandom, SessionId, limit};

use crate::driver::epoll::Epoll;
use crate::driver::files::Files;
use crate::driver::uring::Uring;
use crate::driver::{DriverChoice, Refusal, Waker, now, wall};
use crate::dtls::{
    DtlsCounters, DtlsCounts, DtlsSink, HandshakeId, Handshakes, Identities, Identity, News,
};
use crate::ice_tcp::{self, Claim, IceTcp, IceTcpCounters, IceTcpCounts, Word};
use crate::path::counters::{Published, Tally};
use crate::shared::{self, SharedPort, SharedPortCounters, SharedPortCounts};
use crate::worker::{Command, EventSink, Message, Setup, Worker};

/// How a relay is set up.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Worker threads, at least one; a core each.
    pub workers: usize,
    /// UDP ports for media, shared out among the workers.
    pub ports: RangeInclusive<u16>,
    /// From the system's randomness: spreads ports and reports, so that nobody can foresee them.
    pub seed: u64,
    /// How the workers reach their sockets.
    pub driver: DriverChoice,
    /// Where to listen for ICE-TCP, for browsers that UDP is blocked for; nowhere where it is
    /// empty; port 0 is any.
    pub ice_tcp: Vec<SocketAddr>,
    /// The one UDP port of all browsers; without it each has a pair out of `ports`.
    pub browser_port: Option<SharedPortConfig>,
}

/// One port for all browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedPortConfig {
    /// The port.
    pub port: u16,
    /// Where it is opened at once, so that it is known to be free; elsewhere at the first call.
    pub addresses: Vec<IpAddr>,
}

/// The command was not taken: the worker's queue is full (`relay.commands`) or it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the relay worker takes no command now")]
pub struct Full;

/// Counts of all workers, a fraction of a second old.
pub type RelayCounters = Tally;

/// The workers, and the thread of their DTLS handshakes. Dropping it (and every handle) lets them
/// say goodbye on all sessions and end.
#[derive(Debug)]
pub struct Relay {
    handle: RelayHandle,
    threads: Vec<JoinHandle<()>>,
    handshakes: Handshakes,
    ice_tcp: Option<IceTcp>,
    shared: Option<SharedPort>,
    refusal: Option<Refusal>,
}

/// Sends commands to the workers.
#[derive(Clone, Debug)]
pub struct RelayHandle {
    workers: Arc<[WorkerHandle]>,
    dtls: DtlsCounts,
    ice_tcp: IceTcpCounts,
    shared: SharedPortCounts,
}

struct WorkerHandle {
    commands: SyncSender<Message>,
    waker: Waker,
    /// Something was posted that it was not woken for.
    is_owed: AtomicBool,
    published: Arc<Published>,
}

impl std::fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WorkerHandle")
    }
}

impl Relay {
    /// Starts the workers and the thread of handshakes; `sink` makes each worker's event sink, by
    /// its number.
    ///
    /// # Errors
    /// Where the system refuses a thread or a poll, or io_uring where that is asked for; where no
    /// certificate can be made.
    pub fn start(
        config: &RelayConfig,
        mut sink: impl FnMut(usize) -> Box<dyn EventSink>,
    ) -> io::Result<Self> {
        let workers = config.workers.max(1);
        let files = Files::share(workers);
        let mut random = SeededRandom::new(config.seed);
        let identities = Identities::new(&mut random, now(), wall()).map_err(io::Error::other)?;
        let identity = identities.present();
        let known = Arc::new(OnceLock::new());
        let to_workers = ToWorkers(known.clone());
        let handshakes = Handshakes::start(Box::new(to_workers.clone()), identities, config.seed)?;
        let listen = || IceTcp::start(&config.ice_tcp, Arc::new(to_workers.clone()));
        let ice_tcp = (!config.ice_tcp.is_empty()).then(listen).transpose()?;
        let share = |it: &SharedPortConfig| {
            SharedPort::start(it.port, &it.addresses, Arc::new(to_workers.clone()))
        };
        let shared = config.browser_port.as_ref().map(share).transpose()?;
        let (mut handles, mut threads, mut refusal) = (Vec::new(), Vec::new(), None);
        for number in 0..workers {
            let (sender, commands) = sync_channel(limit::RELAY_COMMANDS.get());
            let published = Arc::new(Published::default());
            let setup = Setup {
                sink: sink(number),
                commands,
                published: published.clone(),
                ports: config.ports.clone(),
                worker: number,
                workers,
                seed: config.seed.wrapping_add(number as u64),
                dtls: Some((handshakes.handle(), identity.clone())),
                ice_tcp: ice_tcp.as_ref().map(IceTcp::addresses).unwrap_or_default(),
                shared: shared.as_ref().map(SharedPort::handle),
            };
            let (files, driver) = (files.clone(), config.driver);
            let (ready, is_ready) = sync_channel(1);
            let name = format!("relay-{number}");
            let run = move || work(setup, files, driver, &ready);
            threads.push(std::thread::Builder::new().name(name).spawn(run)?);
            let (waker, why) = is_ready.recv().map_err(io::Error::other)??;
            refusal = refusal.or(why);
            let is_owed = AtomicBool::new(false);
            handles.push(WorkerHandle { commands: sender, waker, is_owed, published });
        }
        let workers: Arc<[WorkerHandle]> = handles.into();
        // It was empty, and nobody else fills it.
        let _ = known.set(Arc::downgrade(&workers));
        let handle = RelayHandle {
            workers,
            dtls: handshakes.handle().counts(),
            ice_tcp: ice_tcp.as_ref().map(IceTcp::counts).unwrap_or_default(),
            shared: shared.as_ref().map(SharedPort::counts).unwrap_or_default(),
        };
        Ok(Self { handle, threads, handshakes, ice_tcp, shared, refusal })
    }

    /// Why a worker uses epoll; `None` where all use io_uring.
    #[must_use]
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// A handle to send commands with.
    #[must_use]
    pub fn handle(&self) -> RelayHandle {
        self.handle.clone()
    }

    /// Takes no more sessions, waits until the present ones are released or `within` has passed,
    /// says goodbye on the rest, and ends the workers. Blocks.
    pub fn drain(self, within: Duration) {
        for worker in self.handle.workers.iter() {
            // A full queue is being worked off; a worker that has ended takes nothing.
            let _ = worker.commands.send(Message::Drain(within));
            worker.waker.wake();
        }
        for thread in self.threads {
            // A worker that panicked has ended all the same.
            let _ = thread.join();
        }
        self.ice_tcp.into_iter().for_each(IceTcp::stop);
        self.shared.into_iter().for_each(SharedPort::stop);
        self.handshakes.join();
    }
}

/// The way from the threads beside them to the workers, which it keeps from their end no more than
/// while it posts something: they, too, have a handle to the thread of handshakes.
#[derive(Clone)]
struct ToWorkers(Arc<OnceLock<Weak<[WorkerHandle]>>>);

impl ToWorkers {
    /// `None` where no worker is there any more, and so no session.
    fn workers(&self) -> Option<Arc<[WorkerHandle]>> {
        self.0.get()?.upgrade()
    }
}

impl DtlsSink for ToWorkers {
    fn deliver(&mut self, of: HandshakeId, news: News) -> Result<(), News> {
        let Some(workers) = self.workers() else { return Ok(()) };
        let Some(worker) = worker_of(&workers, of.session) else { return Ok(()) };
        match worker.commands.try_send(Message::Handshake(of, news)) {
            Ok(()) => worker.waker.wake(),
            Err(TrySendError::Full(Message::Handshake(_, news))) => return Err(news),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }

    fn rotated(&mut self, identity: &Identity) -> bool {
        let Some(workers) = self.workers() else { return true };
        // Those that have been told hear it again where another one has no room.
        let told = workers.iter().map(|worker| {
            let message = Message::Identity(identity.clone());
            let is_told = worker.commands.try_send(message).is_ok();
            worker.waker.wake();
            is_told
        });
        told.fold(true, |all, one| all & one)
    }
}

impl ice_tcp::Workers for ToWorkers {
    fn tell_all(&self, claim: &Claim) {
        for worker in self.workers().iter().flat_map(|workers| workers.iter()) {
            // It is checked again, or the browser connects again.
            let word = Word::Claim(Box::new(claim.clone()));
            let _ = worker.commands.try_send(Message::Stream(word));
            worker.waker.wake();
        }
    }

    fn tell(&self, session: SessionId, word: Word) -> Result<(), Word> {
        let Some(workers) = self.workers() else { return Ok(()) };
        let Some(worker) = worker_of(&workers, session) else { return Ok(()) };
        match worker.commands.try_send(Message::Stream(word)) {
            Ok(()) => worker.waker.wake(),
            Err(TrySendError::Full(Message::Stream(word))) => return Err(word),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
        Ok(())
    }
}

impl shared::Workers for ToWorkers {
    fn tell(&self, session: SessionId, word: shared::Word) -> bool {
        let Some(workers) = self.workers() else { return true };
        worker_of(&workers, session).is_none_or(|worker| worker.tell_shared(word))
    }

    fn tell_worker(&self, worker: usize, word: shared::Word) -> bool {
        let Some(workers) = self.workers() else { return true };
        workers.get(worker).is_none_or(|worker| worker.tell_shared(word))
    }
}

impl WorkerHandle {
    fn tell_shared(&self, word: shared::Word) -> bool {
        let told = self.commands.try_send(Message::Shared(word));
        self.waker.wake();
        !matches!(told, Err(TrySendError::Full(_)))
    }
}

/// Calls that follow each other go to different workers; all legs of one go to the same.
fn worker_of(workers: &[WorkerHandle], session: SessionId) -> Option<&WorkerHandle> {
    let at = session.stem().checked_rem(workers.len() as u64)?;
    workers.get(usize::try_from(at).ok()?)
}

/// How a worker says that it has begun: by whom it is woken, and why it uses epoll.
type Begun = io::Result<(Waker, Option<Refusal>)>;

/// A worker's thread. The driver is made here: the kernel ties io_uring to the thread that uses it.
fn work(setup: Setup, files: Files, driver: DriverChoice, ready: &SyncSender<Begun>) {
    // Whoever started this thread waits for one word, for which there is room.
    let begun = |word| drop(ready.try_send(word));
    let ring = match driver {
        DriverChoice::Epoll => Err(Refusal::NotWanted),
        DriverChoice::Auto | DriverChoice::IoUring => Uring::new(files.clone()),
    };
    match (ring, driver) {
        (Ok(ring), _) => {
            begun(Ok((ring.waker(), None)));
            Worker::new(ring, setup).run();
        }
        (Err(refusal), DriverChoice::IoUring) => {
            begun(Err(io::Error::other(format!("io_uring: {refusal}"))));
        }
        (Err(refusal), _) => match Epoll::new(files) {
            Ok(poll) => {
                begun(Ok((poll.waker(), Some(refusal))));
                Worker::new(poll, setup).run();
            }
            Err(error) => begun(Err(error.into())),
        },
    }
}

impl RelayHandle {
    /// Hands a command to the worker of that session.
    ///
    /// # Errors
    /// [`Full`]; the command is lost. Only a release should be tried again.
    pub fn command(&self, session: SessionId, command: Command) -> Result<(), Full> {
        self.post(session, command)?;
        self.wake();
        Ok(())
    }

    /// The same, but the worker may sleep on until [`RelayHandle::wake`]: several commands cost one
    /// wake.
    ///
    /// # Errors
    /// As [`RelayHandle::command`].
    pub fn post(&self, session: SessionId, command: Command) -> Result<(), Full> {
        let worker = worker_of(&self.workers, session).ok_or(Full)?;
        let message = Message::Session(session, command);
        worker.commands.try_send(message).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => Full,
        })?;
        worker.is_owed.store(true, Ordering::Release);
        Ok(())
    }

    /// Wakes the workers that were posted something.
    pub fn wake(&self) {
        for worker in self.workers.iter() {
            if worker.is_owed.swap(false, Ordering::AcqRel) {
                worker.waker.wake();
            }
        }
    }

    /// Counts of all workers together.
    #[must_use]
    pub fn counters(&self) -> RelayCounters {
        let mut sum = Tally::default();
        self.workers.iter().for_each(|worker| sum.add(&worker.published.load()));
        sum
    }

    /// Counts of ICE-TCP, of now; all zero where it is not listened for.
    #[must_use]
    pub fn ice_tcp_counters(&self) -> IceTcpCounters {
        self.ice_tcp.read()
    }

    /// Counts of the browsers' shared port, of now; all zero where there is none.
    #[must_use]
    pub fn shared_port_counters(&self) -> SharedPortCounters {
        self.shared.read()
    }

    /// Counts of DTLS handshakes, of now.
    #[must_use]
    pub fn dtls_counters(&self) -> DtlsCounters {
        self.dtls.read()
    }
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod handle_tests;
#[cfg(test)]
#[path = "secure_sockets_tests.rs"]
mod secure_sockets_tests;
