//! The media of thousands of calls: a few threads, each with its own calls, sockets and clock.
//!
//! The task of a call opens its sockets, hands them over ([`Engine::open`]), says how media flows,
//! and gets back what it amounted to. Where a call only says a sound, nothing is encoded per
//! packet: it is encoded once for all ([`clip`]). Nothing is decoded either: what
//! arrives is authenticated, counted, and told apart by its [`stamp`]. A caller with a
//! script ([`live`]) encodes what it says and decodes what it hears.

pub(crate) mod attack;
pub(crate) mod clip;
mod ear;
pub(crate) mod histogram;
pub(crate) mod live;
pub(crate) mod session;
pub(crate) mod stamp;
mod thread;

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;

use base::limit::LOADGEN_QUEUE;
use tokio::sync::{mpsc, oneshot};

use self::attack::Attack;
use self::clip::Clip;
use self::live::Live;
pub(crate) use self::session::{Outcome, Terms, Totals};
use self::stamp::Mark;
use self::thread::MediaThread;

/// One call's media.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionId(u64);

/// Which socket of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// RTP, and RTCP where they share it.
    Rtp,
    /// RTCP on its own.
    Rtcp,
}

struct Opened {
    id: SessionId,
    mark: Option<Mark>,
    live: Option<Box<Live>>,
    rtp: UdpSocket,
    rtcp: UdpSocket,
}

enum Command {
    Open(Box<Opened>),
    Flow { id: SessionId, terms: Box<Terms> },
    Press { id: SessionId, digits: String },
    Say { id: SessionId, clip: Arc<Clip> },
    Attack { id: SessionId, attack: Box<Attack> },
    Release { id: SessionId },
    Close { id: SessionId, done: Option<oneshot::Sender<Box<Outcome>>> },
    Stop,
}

/// What a thread shows while it runs.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub(crate) sessions: AtomicU64,
    pub(crate) sent: AtomicU64,
    pub(crate) received: AtomicU64,
    pub(crate) ticks: AtomicU64,
    pub(crate) behind: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) worst_us: AtomicU64,
    pub(crate) cpu_us: AtomicU64,
}

/// The threads.
pub(crate) struct Engine {
    threads: Vec<(mpsc::Sender<Command>, Arc<Gauges>)>,
    next: AtomicU64,
}

/// The threads' ends, to wait for.
pub(crate) struct Running(Vec<JoinHandle<Totals>>);

impl Running {
    /// Waits for the threads, which end once they are told to stop.
    pub(crate) fn join(self) -> Totals {
        let mut sum = Totals::default();
        for thread in self.0 {
            // A thread ends otherwise by a panic only; its calls were reported as lost then.
            let Ok(one) = thread.join() else { continue };
            sum.sent += one.sent;
            sum.received += one.received;
            sum.ticks += one.ticks;
            sum.behind += one.behind;
            sum.skipped += one.skipped;
            sum.worst = sum.worst.max(one.worst);
            sum.delay.merge(&one.delay);
        }
        sum
    }
}

impl Engine {
    /// Starts so many threads.
    pub(crate) fn start(count: usize) -> io::Result<(Arc<Self>, Running)> {
        let (mut threads, mut running) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let (sender, commands) = mpsc::channel(LOADGEN_QUEUE.get());
            let gauges = Arc::new(Gauges::default());
            let thread = MediaThread::new(commands, Arc::clone(&gauges))?;
            let name = format!("load-media-{index}");
            running.push(std::thread::Builder::new().name(name).spawn(|| thread.run())?);
            threads.push((sender, gauges));
        }
        Ok((Arc::new(Self { threads, next: AtomicU64::new(0) }), Running(running)))
    }

    /// What the threads show.
    pub(crate) fn gauges(&self) -> impl Iterator<Item = &Gauges> {
        self.threads.iter().map(|(_, gauges)| &**gauges)
    }

    /// Ends the threads.
    pub(crate) async fn stop(&self) {
        for (commands, _) in &self.threads {
            // One that is gone needs no word.
            let _ = commands.send(Command::Stop).await;
        }
    }

    /// Takes the sockets of a call, which must not block.
    pub(crate) async fn open(
        self: &Arc<Self>,
        rtp: UdpSocket,
        rtcp: UdpSocket,
        mark: Option<Mark>,
        live: Option<Box<Live>>,
    ) -> Media {
        let id = SessionId(self.next.fetch_add(1, Relaxed));
        let media = Media { engine: Arc::clone(self), id, is_closed: false };
        media.tell(Command::Open(Box::new(Opened { id, mark, live, rtp, rtcp }))).await;
        media
    }
}

/// A call's handle on its media.
pub(crate) struct Media {
    engine: Arc<Engine>,
    id: SessionId,
    is_closed: bool,
}

impl Drop for Media {
    fn drop(&mut self) {
        if !self.is_closed {
            // A full queue leaves the sockets open until the run ends.
            let _ = self.thread().try_send(Command::Close { id: self.id, done: None });
        }
    }
}

impl Media {
    fn thread(&self) -> &mpsc::Sender<Command> {
        let threads = &self.engine.threads;
        let at = usize::try_from(self.id.0).unwrap_or(0) % threads.len();
        &threads[at].0
    }

    async fn tell(&self, command: Command) {
        // A thread that is gone has panicked; the call then measures nothing, which shows.
        let _ = self.thread().send(command).await;
    }

    /// Media flows as this says.
    pub(crate) async fn flow(&self, terms: Terms) {
        self.tell(Command::Flow { id: self.id, terms: Box::new(terms) }).await;
    }

    /// Presses keys (RFC 4733).
    pub(crate) async fn press(&self, digits: &str) {
        self.tell(Command::Press { id: self.id, digits: digits.to_owned() }).await;
    }

    /// Says this once.
    pub(crate) async fn say(&self, clip: Arc<Clip>) {
        self.tell(Command::Say { id: self.id, clip }).await;
    }

    /// Has a bad actor at the call's media.
    pub(crate) async fn attack(&self, attack: Attack) {
        self.tell(Command::Attack { id: self.id, attack: Box::new(attack) }).await;
    }

    /// The call is over (RFC 3261 section 15.1.1): says goodbye, sends and takes nothing more. The
    /// sockets stay, for what is on its way.
    pub(crate) async fn release(&self) {
        self.tell(Command::Release { id: self.id }).await;
    }

    /// Ends the media: what it amounted to.
    pub(crate) async fn close(mut self) -> Outcome {
        let (done, outcome) = oneshot::channel();
        self.is_closed = true;
        self.tell(Command::Close { id: self.id, done: Some(done) }).await;
        outcome.await.map(|it| *it).unwrap_or_default()
    }
}
