//! ICE-TCP (RFC 6544): a browser behind a network that blocks UDP connects to a passive candidate
//! of ours and sends over TCP what it would send in datagrams, each with its length before it
//! (RFC 4571). A thread of its own accepts the connections of all sessions, at an address of each
//! family, and stands between them and the workers.
//!
//! - The first message must be a check; the worker whose session it names takes the connection
//!   (`Claim`), and drops it again unless the check was proved. Nothing else keeps one open.
//! - Connections are bounded in all, for each source and for each session, and so is how fast they
//!   are accepted and read.
//! - What is to be sent waits in a bounded queue. A peer that reads too slowly misses the oldest.
//!
//! It knows neither keys nor passwords, connects to nobody, and no worker ever waits for it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use base::{SessionId, limit};
use rtp::ice::stun::{Class, Message as Stun};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// Time in which `ice.tcp_datagrams` are counted.
const WINDOW: Duration = Duration::from_millis(100);
/// Pause before a word that a worker had no room for is tried again, or the system asked again.
const AGAIN: Duration = Duration::from_millis(50);
/// The first connection's number: those below are sockets.
const FIRST: u32 = 2;
/// What is read at one go.
const CHUNK_BYTES: usize = 4_096;

/// What a worker is told of a connection.
#[derive(Debug)]
pub(crate) enum Word {
    /// A check came first. Whoever has the session that it names answers and keeps `out`, where
    /// the check is proved; others drop it.
    Claim(Box<Claim>),
    /// A datagram for a session that has claimed the connection.
    Datagram(SessionId, u32, SocketAddr, Vec<u8>),
    /// The connection is closed.
    Closed(SessionId, u32),
}

/// A connection that is nobody's yet.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// Its number, which is neither 0 nor 1: those are sockets.
    pub(crate) number: u32,
    pub(crate) peer: SocketAddr,
    /// Of ours, whom the check asks.
    pub(crate) ufrag: String,
    pub(crate) check: Vec<u8>,
    pub(crate) out: Out,
}

/// Where a worker puts what is to be sent. The connection ends when all clones are dropped.
pub(crate) type Out = mpsc::Sender<Outgoing>;

/// What comes from a worker.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// The connection is this session's, whose answer to the check went before.
    Claimed(SessionId),
    /// To be sent.
    Datagram(Vec<u8>),
}

/// The way to the workers.
pub(crate) trait Workers: Send + Sync + 'static {
    /// Tells all workers; those without room miss it.
    fn tell_all(&self, claim: &Claim);
    /// Tells the worker of a session, or gives the word back where it has no room. A worker that
    /// has gone has heard it.
    fn tell(&self, session: SessionId, word: Word) -> Result<(), Word>;
}

#[derive(Debug, Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    unproved: AtomicU64,
    lost: AtomicU64,
}

/// Counts of ICE-TCP since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IceTcpCounters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed at once, above limit `ice.tcp_connections` or
    /// `ice.tcp_connections_per_source`.
    pub refused: u64,
    /// Connections closed because no session's check came first, or not in time.
    pub unproved: u64,
    /// Datagrams that found no room, at a worker or on the way to a slow peer.
    pub lost: u64,
}

/// Reads the counts.
#[derive(Clone, Debug, Default)]
pub(crate) struct IceTcpCounts(Arc<Counts>);

impl IceTcpCounts {
    pub(crate) fn read(&self) -> IceTcpCounters {
        let Counts { accepted, refused, unproved, lost } = &*self.0;
        let [accepted, refused, unproved, lost] =
            [accepted, refused, unproved, lost].map(|it| it.load(Ordering::Relaxed));
        IceTcpCounters { accepted, refused, unproved, lost }
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The thread. Dropping it closes all connections.
#[derive(Debug)]
pub(crate) struct IceTcp {
    addresses: Vec<SocketAddr>,
    counts: IceTcpCounts,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl IceTcp {
    /// Listens there.
    ///
    /// # Errors
    /// Where the system refuses an address or a thread.
    pub(crate) fn start(addresses: &[SocketAddr], workers: Arc<dyn Workers>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listeners = {
            let _entered = runtime.enter();
            addresses.iter().map(|address| listen(*address)).collect::<io::Result<Vec<_>>>()?
        };
        let addresses =
            listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let (stop, stopped) = oneshot::channel();
        let counts = IceTcpCounts::default();
        let counted = counts.0.clone();
        let run = move || {
            let door = Rc::new(Door { workers, counts: counted, open: RefCell::default() });
            let tasks = tokio::task::LocalSet::new();
            tasks.block_on(&runtime, async {
                tokio::select! {
                    () = accept(listeners, door) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("ice-tcp".to_owned()).spawn(run)?;
        Ok(Self { addresses, counts, stop, thread })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.clone()
    }

    pub(crate) fn counts(&self) -> IceTcpCounts {
        self.counts.clone()
    }

    /// Closes all connections and waits for the thread. Blocks for a moment.
    pub(crate) fn stop(self) {
        drop(self.stop);
        // A thread that panicked has ended all the same.
        let _ = self.thread.join();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?; // the other family has a listener of its own
    }
    sockopt::set_socket_reuseaddr(&socket, true)?; // a restart must not wait for TIME_WAIT
    rustix::net::bind(&socket, &address)?;
    let backlog = i32::try_from(limit::ICE_TCP_BACKLOG.value).unwrap_or(i32::MAX);
    rustix::net::listen(&socket, backlog)?;
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

/// What all connections share, all of them tasks of this thread.
struct Door {
    workers: Arc<dyn Workers>,
    counts: Arc<Counts>,
    open: RefCell<Open>,
}

/// Connections now, in all and by source.
#[derive(Default)]
struct Open {
    all: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

/// A connection's place among those that are open.
struct Place {
    door: Rc<Door>,
    source: IpAddr,
}

impl Place {
    fn take(door: &Rc<Door>, peer: SocketAddr) -> Option<Self> {
        let source = network(peer.ip());
        let mut open = door.open.borrow_mut();
        let of_source = open.by_source.get(&source).copied().unwrap_or(0);
        let has_room = open.all < limit::ICE_TCP_CONNECTIONS.get()
            && of_source < limit::ICE_TCP_CONNECTIONS_PER_SOURCE.get();
        if !has_room {
            return None;
        }
        open.all += 1;
        open.by_source.insert(source, of_source + 1);
        Some(Self { door: Rc::clone(door), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.door.open.borrow_mut();
        open.all -= 1;
        if let Some(count) = open.by_source.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.by_source.remove(&self.source);
            }
        }
    }
}

/// Whose address it is: of IPv6 whoever has one has all of its /64.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The next connection; each listener has its turn to be the first that is asked.
async fn next(listeners: &[TcpListener], turn: usize) -> io::Result<(TcpStream, SocketAddr)> {
    let (late, early) = listeners.split_at(turn % listeners.len().max(1));
    poll_fn(|context| {
        let mut each = early.iter().chain(late).map(|listener| listener.poll_accept(context));
        each.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

async fn accept(listeners: Vec<TcpListener>, door: Rc<Door>) {
    let (mut number, mut turn) = (0u32, 0usize);
    let pause = Duration::from_secs(1) / limit::ICE_TCP_ACCEPTS_PER_SECOND.value as u32;
    loop {
        sleep(pause).await;
        turn = turn.wrapping_add(1);
        let Ok((stream, peer)) = next(&listeners, turn).await else {
            // No descriptor is left, or the peer has gone already.
            sleep(AGAIN).await;
            continue;
        };
        let Some(place) = Place::take(&door, peer) else {
            count(&door.counts.refused);
            continue;
        };
        count(&door.counts.accepted);
        number = number.wrapping_add(1).max(FIRST);
        let _ = stream.set_nodelay(true); // slower without
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        tokio::task::spawn_local(serve(stream, peer, number, place));
    }
}

/// One connection, from its first message to its end.
async fn serve(mut stream: TcpStream, peer: SocketAddr, number: u32, place: Place) {
    let door = &place.door;
    let (reader, writer) = stream.split();
    let mut incoming = Incoming { reader, bytes: Vec::new() };
    let within = limit::ICE_TCP_FIRST_MS.millis();
    let claimed = timeout(within, claim(&mut incoming, peer, number, door)).await;
    let Ok(Some((session, queue, backlog))) = claimed else {
        return count(&door.counts.unproved);
    };
    let connection = Connection { peer, number, session };
    connection.run(incoming, (writer, backlog), queue, door).await;
    let mut closed = Word::Closed(session, number);
    while let Err(word) = door.workers.tell(session, closed) {
        closed = word;
        sleep(AGAIN).await;
    }
}

/// Waits for the first message and lets the workers find its session; what that has to say by then
/// comes along.
async fn claim(
    incoming: &mut Incoming<'_>,
    peer: SocketAddr,
    number: u32,
    door: &Door,
) -> Option<(SessionId, mpsc::Receiver<Outgoing>, Backlog)> {
    let check = loop {
        if let Some(frame) = incoming.frame().ok()? {
            break frame;
        }
        incoming.read().await?;
    };
    let ufrag = asked(&check)?;
    let (out, mut queue) = mpsc::channel(limit::ICE_TCP_QUEUE.get());
    door.workers.tell_all(&Claim { number, peer, ufrag, check, out });
    let mut backlog = Backlog::default();
    loop {
        match queue.recv().await? {
            Outgoing::Claimed(session) => return Some((session, queue, backlog)),
            Outgoing::Datagram(datagram) => backlog.push(&datagram),
        };
    }
}

/// Whom a check asks.
pub(crate) fn asked(check: &[u8]) -> Option<String> {
    let message = Stun::parse(check).ok().filter(|it| it.class() == Class::Request)?;
    let (asked, _) = message.username()?.split_once(':')?;
    Some(asked.to_owned())
}

/// A connection that a session has claimed.
struct Connection {
    peer: SocketAddr,
    number: u32,
    session: SessionId,
}

impl Connection {
    async fn run(
        &self,
        mut incoming: Incoming<'_>,
        (writer, mut backlog): (WriteHalf<'_>, Backlog),
        mut queue: mpsc::Receiver<Outgoing>,
        door: &Door,
    ) {
        let (mut window, mut read) = (Instant::now(), 0);
        loop {
            let now = Instant::now();
            if now >= window + WINDOW {
                (window, read) = (now, 0);
            }
            // A peer that sends too much is read more slowly; TCP tells it so.
            let may_read = read < limit::ICE_TCP_DATAGRAMS.value;
            if may_read {
                match incoming.frame() {
                    Ok(Some(frame)) => {
                        read += 1;
                        self.arrived(frame, door);
                        continue;
                    }
                    Ok(None) => {}
                    Err(TooLarge) => return,
                }
            }
            tokio::select! {
                more = incoming.read(), if may_read => if more.is_none() { return },
                () = sleep_until(window + WINDOW), if !may_read => {}
                out = queue.recv() => match out {
                    Some(Outgoing::Datagram(datagram)) => {
                        if !backlog.push(&datagram) {
                            count(&door.counts.lost);
                        }
                    }
                    Some(Outgoing::Claimed(_)) => {}
                    None => return,
                },
                ready = writer.writable(), if !backlog.is_empty() => {
                    if ready.is_err() || backlog.write(&writer).is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn arrived(&self, datagram: Vec<u8>, door: &Door) {
        let word = Word::Datagram(self.session, self.number, self.peer, datagram);
        if door.workers.tell(self.session, word).is_err() {
            count(&door.counts.lost);
        }
    }
}

/// A frame that is larger than any packet.
#[derive(Debug, PartialEq, Eq)]
struct TooLarge;

/// What has been read and is no whole frame yet.
struct Incoming<'a> {
    reader: ReadHalf<'a>,
    bytes: Vec<u8>,
}

impl Incoming<'_> {
    /// Reads what there is; `None` at the end.
    async fn read(&mut self) -> Option<()> {
        let mut chunk = [0; CHUNK_BYTES];
        let length = self.reader.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        self.bytes.extend_from_slice(&chunk[..length]);
        Some(())
    }

    fn frame(&mut self) -> Result<Option<Vec<u8>>, TooLarge> {
        take_frame(&mut self.bytes)
    }
}

/// Takes the next whole frame that is not empty (RFC 4571 section 2).
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<Vec<u8>>, TooLarge> {
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length));
        if length > limit::RTP_PACKET_BYTES.get() {
            return Err(TooLarge);
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let frame = frame.to_vec();
        bytes.drain(..2 + length);
        if !frame.is_empty() {
            return Ok(Some(frame));
        }
    }
    Ok(None)
}

/// What is to be sent, the oldest in front; of that one some may be sent already.
#[derive(Default)]
struct Backlog {
    frames: VecDeque<Vec<u8>>,
    written: usize,
}

impl Backlog {
    fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Adds a datagram; `false` where an older one had to make room.
    fn push(&mut self, datagram: &[u8]) -> bool {
        let Ok(length) = u16::try_from(datagram.len()) else { return false };
        let has_room = self.frames.len() < limit::ICE_TCP_QUEUE.get();
        if !has_room {
            // Half a frame cannot be left out.
            self.frames.remove(usize::from(self.written > 0));
        }
        self.frames.push_back([&length.to_be_bytes()[..], datagram].concat());
        has_room
    }

    /// Writes what the system takes.
    fn write(&mut self, writer: &WriteHalf<'_>) -> io::Result<()> {
        while let Some(frame) = self.frames.front() {
            match writer.try_write(&frame[self.written..]) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            if self.written == frame.len() {
                self.frames.pop_front();
                self.written = 0;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "ice_tcp_tests.rs"]
mod ice_tcp_tests;
