//! One media port for all browsers: a firewall lets one UDP port through, and whose a datagram is
//! tells ICE. A thread has the port's socket, one for each local address, and hears there whoever
//! is not known yet; a browser that is known has a socket of its own on the same port.
//!
//! - A check names its session ([`demux`]), whose worker answers it, if it is proved, from the
//!   shared socket. Nothing else of strangers goes further than this thread.
//! - The route that ICE selects gets a socket of its own, bound to the same address and port and
//!   connected to the peer, and the worker has it. The system then hands it all that comes from
//!   there: the way of a packet is that of any leg, without this thread, a queue or a copy.
//! - What else comes from where a check was proved (another route of the same browser, or what was
//!   under way while the socket was opened) is handed on from here, at a bounded rate. So a session
//!   for which no descriptor is left is served as well.
//! - Only this thread opens sockets on the port and keeps the table of routes, so that no two
//!   sessions ever have sockets for one peer. What a new socket was given before it was connected
//!   is not lost: it is dealt with as if it had come to the shared one.
//! - There is nothing to put in quarantine. A session is found by name and proof; the routes of one
//!   that has gone are nobody's. Whoever comes again from the address of a session that still lives
//!   waits until that one has not been checked from there for `ice.port_kept_ms`: no other caller
//!   can take a route away by checks with a forged source.
//!
//! A datagram finds its connected socket by a hash of both addresses from Linux 6.13 on. Before
//! that, and for strangers still, the system walks through all sockets of the port. Measured with
//! 6.18: a peer's datagram costs 1 us whatever the number of calls; a stranger's 1 us beside ten,
//! 9 us beside a thousand, 126 us beside four thousand. So the port is a choice, not the default.
//!
//! The thread knows neither keys nor passwords and sends nothing. No worker waits for it. The port
//! is taken exclusively at first; later the system lets others of the same user bind it, too, as
//! it does with any port that is shared.

pub(crate) mod demux;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use base::{SessionId, limit};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use self::demux::{Cause, Demux, Verdict, Way};
use crate::driver::now;
use crate::path::receive::BUFFER_BYTES;
use crate::socket::MediaSocket;

/// Time in which `ice.port_datagrams` are read.
const SLICE: Duration = Duration::from_millis(10);
/// Pause before a worker that had no room is told again.
const AGAIN: Duration = Duration::from_millis(50);

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Word {
    /// What to send from at this address; nothing where the port cannot be had there.
    Open(IpAddr, Option<OwnedFd>),
    /// A datagram for a session, as the table says; it may be forged.
    Datagram(SessionId, SocketAddr, Vec<u8>),
    /// The socket of a session's peer.
    Connected(SessionId, SocketAddr, OwnedFd),
    /// Another session is called from where this session's peer was.
    Contested(SessionId, Way),
}

/// What a worker tells.
#[derive(Debug)]
pub(crate) enum Note {
    /// This worker wants to send from there. It is answered.
    Open(IpAddr, usize),
    /// A session hears this user name fragment.
    Named(String, SessionId),
    /// It no longer does.
    Unnamed(String, SessionId),
    /// A session's peer was proved there.
    Proved(Way, SessionId),
    /// And is sent to: a socket of its own is wanted.
    Selected(Way, SessionId),
    /// A session has no business there any more.
    Left(Way, SessionId),
    /// A check for somebody else, which came to the socket of a session's peer.
    Astray(Way, Vec<u8>),
}

/// The way to the workers.
pub(crate) trait Workers: Send + Sync + 'static {
    /// Tells the worker of a session; `false` where it has no room. A worker that has gone has
    /// heard it.
    fn tell(&self, session: SessionId, word: Word) -> bool;
    /// Tells the worker of this number; the same.
    fn tell_worker(&self, worker: usize, word: Word) -> bool;
}

macro_rules! counts {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        #[derive(Debug, Default)]
        struct Counts { $($field: AtomicU64,)* }

        /// Counts of the browsers' shared port since the start.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct SharedPortCounters { $($(#[$doc])* pub $field: u64,)* }

        impl SharedPortCounters {
            /// Each count with its word.
            #[must_use]
            pub const fn all(&self) -> [(&'static str, u64); 8] {
                [$((stringify!($field), self.$field),)*]
            }
        }

        impl SharedPortCounts {
            pub(crate) fn read(&self) -> SharedPortCounters {
                SharedPortCounters { $($field: self.0.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counts! {
    /// Datagrams handed on to sessions.
    handed,
    /// Sockets opened for peers.
    connected,
    /// Sockets that could not be opened.
    failed,
    /// Checks dropped that name no living session.
    unknown,
    /// Other datagrams dropped, from where no check was proved.
    stranger,
    /// Datagrams dropped above limit `ice.port_checks_per_source` or
    /// `ice.port_datagrams_per_session`.
    flood,
    /// Checks dropped that came from where another session's peer is.
    contested,
    /// Datagrams and sockets that a worker had no room for.
    lost,
}

/// Reads the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedPortCounts(Arc<Counts>);

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Tells the thread something, and knows the port.
#[derive(Clone, Debug)]
pub(crate) struct SharedPortHandle {
    pub(crate) port: u16,
    notes: mpsc::Sender<Note>,
}

impl SharedPortHandle {
    pub(crate) const fn new(port: u16, notes: mpsc::Sender<Note>) -> Self {
        Self { port, notes }
    }

    /// Gives a note back for which there is no room. A thread that has gone has heard it.
    pub(crate) fn tell(&self, note: Note) -> Result<(), Note> {
        match self.notes.try_send(note) {
            Err(mpsc::error::TrySendError::Full(note)) => Err(note),
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
        }
    }
}

/// The thread. Dropping it closes the port.
#[derive(Debug)]
pub(crate) struct SharedPort {
    handle: SharedPortHandle,
    counts: SharedPortCounts,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl SharedPort {
    /// Opens the port at these addresses; at others when a worker asks for it.
    ///
    /// # Errors
    /// Where the system refuses the port at one of them, or a thread.
    pub(crate) fn start(
        port: u16,
        addresses: &[IpAddr],
        workers: Arc<dyn Workers>,
    ) -> io::Result<Self> {
        let open = |address: &IpAddr| Ok((*address, open(*address, port)?));
        let sockets = addresses.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let (notes, told) = mpsc::channel(limit::ICE_PORT_NOTES.get());
        let counts = SharedPortCounts::default();
        let counted = counts.0.clone();
        let run = move || {
            let hall = Rc::new(Hall {
                port,
                workers,
                counts: counted,
                notes: RefCell::new(told),
                doors: RefCell::default(),
                demux: RefCell::default(),
            });
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async {
                for (address, socket) in sockets {
                    // What cannot be listened at is answered as what cannot be opened.
                    let _ = hall.listen(address, socket);
                }
                let hear = async {
                    while let Some(note) = poll_fn(|it| hall.notes.borrow_mut().poll_recv(it)).await
                    {
                        hall.hear(note);
                    }
                };
                tokio::select! { () = hear => {} _ = stopped => {} }
            });
        };
        let thread = std::thread::Builder::new().name("browser-port".to_owned()).spawn(run)?;
        Ok(Self { handle: SharedPortHandle::new(port, notes), counts, stop, thread })
    }

    pub(crate) fn handle(&self) -> SharedPortHandle {
        self.handle.clone()
    }

    pub(crate) fn counts(&self) -> SharedPortCounts {
        self.counts.clone()
    }

    /// Closes the port and waits for the thread. Blocks for a moment.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // A thread that panicked has ended all the same.
        let _ = self.thread.join();
    }
}

fn open(address: IpAddr, port: u16) -> io::Result<MediaSocket> {
    let socket = MediaSocket::open(SocketAddr::new(address, port))?;
    socket.set_room(limit::ICE_PORT_BYTES.get());
    Ok(socket)
}

/// The socket of one address, for asking the system and for waiting.
struct Door {
    socket: MediaSocket,
    heard: UdpSocket,
}

/// What all tasks of this thread share.
struct Hall {
    port: u16,
    workers: Arc<dyn Workers>,
    counts: Arc<Counts>,
    notes: RefCell<mpsc::Receiver<Note>>,
    doors: RefCell<BTreeMap<IpAddr, Rc<Door>>>,
    demux: RefCell<Demux>,
}

impl Hall {
    fn listen(self: &Rc<Self>, address: IpAddr, socket: MediaSocket) -> io::Result<Rc<Door>> {
        let heard = std::net::UdpSocket::from(OwnedFd::from(socket.duplicate()?));
        let door = Rc::new(Door { heard: UdpSocket::from_std(heard)?, socket });
        self.doors.borrow_mut().insert(address, Rc::clone(&door));
        tokio::task::spawn_local(receive(Rc::clone(self), address, Rc::clone(&door)));
        Ok(door)
    }

    fn door(self: &Rc<Self>, address: IpAddr) -> io::Result<Rc<Door>> {
        if let Some(door) = self.doors.borrow().get(&address) {
            return Ok(Rc::clone(door));
        }
        if self.doors.borrow().len() >= limit::ICE_PORT_ADDRESSES.get() {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        self.listen(address, open(address, self.port)?)
    }

    fn hear(self: &Rc<Self>, note: Note) {
        match note {
            Note::Open(address, worker) => {
                tokio::task::spawn_local(answer(Rc::clone(self), address, worker));
            }
            Note::Named(ufrag, session) => self.demux.borrow_mut().name(ufrag, session),
            Note::Unnamed(ufrag, session) => self.demux.borrow_mut().forget(&ufrag, session),
            Note::Proved(way, session) => drop(self.demux.borrow_mut().claim(way, session)),
            Note::Selected(way, session) => self.connect(way, session),
            Note::Left(way, session) => self.demux.borrow_mut().leave(way, session),
            Note::Astray(way, datagram) => self.arrived(way, &datagram),
        }
    }

    /// Opens a socket for a session's peer.
    fn connect(&self, way: Way, session: SessionId) {
        if !self.demux.borrow_mut().claim(way, session) {
            return count(&self.counts.contested);
        }
        let door = self.doors.borrow().get(&way.local).cloned();
        let Some(Ok(socket)) = door.map(|door| door.socket.open_among(way.peer)) else {
            return count(&self.counts.failed);
        };
        let mut buffer = [0; BUFFER_BYTES];
        // Others' datagrams come first; the peer's may go on coming, and are the worker's then.
        for _ in 0..limit::ICE_PORT_DATAGRAMS.get() {
            let Some((length, peer)) = socket.receive(&mut buffer) else { break };
            let datagram = &buffer[..length.min(BUFFER_BYTES)];
            self.arrived(Way { peer, ..way }, datagram);
        }
        count(&self.counts.connected);
        if !self.workers.tell(session, Word::Connected(session, way.peer, socket.into())) {
            count(&self.counts.lost);
        }
    }

    /// A datagram came to a shared socket.
    fn taken(self: &Rc<Self>, way: Way, datagram: &[u8]) {
        let verdict = self.demux.borrow_mut().judge(now(), way, datagram);
        if verdict != Verdict::Drop(Cause::Stranger) {
            return self.follow(verdict, way, datagram);
        }
        // A worker has told whose this is before it answered the check that let this come.
        loop {
            let note = self.notes.borrow_mut().try_recv();
            let Ok(note) = note else { break };
            self.hear(note);
        }
        self.arrived(way, datagram);
    }

    fn arrived(&self, way: Way, datagram: &[u8]) {
        let verdict = self.demux.borrow_mut().judge(now(), way, datagram);
        self.follow(verdict, way, datagram);
    }

    fn follow(&self, verdict: Verdict, way: Way, datagram: &[u8]) {
        let counts = &self.counts;
        let (session, word) = match verdict {
            Verdict::Hand(session) => {
                count(&counts.handed);
                (session, Word::Datagram(session, way.peer, datagram.to_vec()))
            }
            Verdict::Contest(session) => {
                count(&counts.contested);
                (session, Word::Contested(session, way))
            }
            Verdict::Drop(cause) => {
                return count(match cause {
                    Cause::Unknown => &counts.unknown,
                    Cause::Stranger => &counts.stranger,
                    Cause::Flood => &counts.flood,
                });
            }
        };
        if !self.workers.tell(session, word) {
            count(&counts.lost);
        }
    }
}

/// Gives a worker what it sends from at an address. Calls wait for it, so it is told until it has
/// heard.
async fn answer(hall: Rc<Hall>, address: IpAddr, worker: usize) {
    loop {
        let socket = hall.door(address).and_then(|door| Ok(door.socket.duplicate()?));
        if socket.is_err() {
            count(&hall.counts.failed);
        }
        let word = Word::Open(address, socket.ok().map(OwnedFd::from));
        if hall.workers.tell_worker(worker, word) {
            return;
        }
        count(&hall.counts.lost);
        sleep(AGAIN).await;
    }
}

/// Takes what comes to a shared socket, so much in each slice of time: a flood leaves the rest of
/// the machine its cores, and what it costs is lost in the system's buffer.
async fn receive(hall: Rc<Hall>, local: IpAddr, door: Rc<Door>) {
    let mut buffer = [0; BUFFER_BYTES];
    let (mut slice, mut taken) = (now(), 0);
    while door.heard.readable().await.is_ok() {
        while taken < limit::ICE_PORT_DATAGRAMS.get() {
            let Ok((length, peer)) = door.heard.try_recv_from(&mut buffer) else { break };
            taken += 1;
            hall.taken(Way { local, peer }, &buffer[..length]);
        }
        let rest = SLICE.saturating_sub(now().since(slice));
        let is_full = taken == limit::ICE_PORT_DATAGRAMS.get();
        if is_full && !rest.is_zero() {
            sleep(rest).await;
        }
        if is_full || rest.is_zero() {
            (slice, taken) = (now(), 0);
        }
    }
}
