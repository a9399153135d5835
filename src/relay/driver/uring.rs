//! The io_uring driver: one enter for each tick submits everything that is to be sent and brings
//! everything that has come.
//!
//! Each socket has one receive that goes on by itself (multishot) and puts datagrams into a common
//! pool of buffers. A socket that fills more than its share of a round is taken off until what it
//! brought is worked off, so that a flood cannot use up the pool. Where the pool runs out all the
//! same, sockets are taken up again in turns, a few at a time: to ask for all of them each time
//! would fail for most, and cost more than forwarding does. A socket that is closed lives on until
//! the kernel has let go of it; its place carries a generation, so that what comes late is never
//! taken for its successor's.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use base::{Instant, WallTime, limit};

use super::files::Files;
use super::ring::{Completion, Ring, Target};
use super::tick::{TICK, Tick};
use super::{Network, Refusal, Token, Waker};
use crate::late::Lookout;
use crate::socket::MediaSocket;

/// User data of the watch on the waker.
const WAKE: u64 = 1 << 62;
/// User data of the trial; no socket has this generation.
const TRIAL: u64 = (1 << 62) - 1;
/// Generations go round after so many closed sockets of one place.
const GENERATIONS: u32 = (1 << 30) - 1;
/// Datagrams that end a tick early: half of the pool of buffers.
const GATHERED: usize = 256;
/// Sends that are submitted within a round: the first of a large one do not wait for its last, and
/// one call for so many costs each nothing.
const FLUSHED: usize = 16;
/// The least that one enter hands out, if it is there; newer kernels hand out no more unless they
/// are asked to wait for more.
const HANDED_OUT: usize = 20;

/// Sockets that the ring knows by heart: two for each port of as many sessions as there may be.
const REGISTERED: usize = 4 * limit::RELAY_SESSIONS.get();

/// The kernel hands out no more of one socket at one go (`MULTISHOT_MAX_RETRY`).
const ONE_GO: usize = 32;
/// What a stream brings in a second, to guess what waits.
const PACKET_TIME: Duration = Duration::from_millis(20);
/// Sockets without a receive that one wait looks at.
const ASKED_AT_ONCE: usize = 256;

/// See the module.
pub struct Uring {
    ring: Ring,
    wake: Waker,
    files: Files,
    tick: Tick,
    /// By token.
    places: Vec<Place>,
    /// Kept until the ring has gone: what is sent from one names its descriptor.
    shared: Vec<MediaSocket>,
    sockets: Vec<Socket>,
    vacant: Vec<u32>,
    /// Sockets to be closed whose last sends the kernel has not taken yet.
    ending: VecDeque<u32>,
    /// The buffer after each, in its socket's queue.
    links: Box<[u16]>,
    /// Sockets with datagrams that wait.
    listed: Vec<u32>,
    /// Sockets whose receive has ended, the first to be taken up again in front.
    unarmed: VecDeque<u32>,
    /// Before this they are not armed again, so that one that fails each time costs a tick.
    arm_at: Instant,
    /// Datagrams since the last wait.
    fresh: usize,
    lookout: Lookout,
    /// When the present wait began, or the last one.
    entered: Instant,
    refused: u64,
    stale: u64,
}

/// A token's sockets.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Hears everybody.
    open: Option<u32>,
    /// Or it sends from this one.
    shared: Option<usize>,
    /// Hears one peer.
    connected: Option<(SocketAddr, u32)>,
}

/// A socket, or a vacant place for one.
#[derive(Default)]
struct Socket {
    socket: Option<MediaSocket>,
    token: Token,
    generation: u32,
    /// Its receive is under way.
    is_armed: bool,
    /// The receive was told to end.
    is_cancelled: bool,
    is_closing: bool,
    /// It stands in the list of those with datagrams.
    is_listed: bool,
    /// Datagrams that wait: how many, the first buffer and the last.
    waiting: usize,
    first: u16,
    last: u16,
    /// Nothing waited in the kernel then; and so many datagrams have come out of it since, those
    /// of the present wait apart.
    emptied: Instant,
    seen: usize,
    fresh: usize,
    /// How the ring knows it.
    is_registered: bool,
    /// The batch of its last send.
    batch: u64,
}

impl Socket {
    const fn key(&self, index: u32) -> u64 {
        (self.generation as u64) << 32 | index as u64
    }

    /// What an operation on it names; `None` of a vacant place.
    fn target(&self, index: u32) -> Option<Target> {
        let socket = self.socket.as_ref()?;
        Some(match self.is_registered {
            true => Target::Registered(index),
            false => Target::Descriptor(socket.as_fd().as_raw_fd()),
        })
    }

    /// Whether the present wait has brought all that waited in the kernel.
    const fn is_drained(&self) -> bool {
        self.is_armed && self.fresh < ONE_GO
    }

    /// A wait that began at `entered` is over.
    const fn settle(&mut self, entered: Instant) {
        if self.is_drained() {
            (self.emptied, self.seen) = (entered, 0);
        } else {
            self.seen += self.fresh;
        }
        self.fresh = 0;
    }

    /// The next datagram's buffer.
    fn take(&mut self, links: &[u16]) -> Option<u16> {
        let buffer = self.first;
        self.waiting = self.waiting.checked_sub(1)?;
        self.first = links[usize::from(buffer)];
        Some(buffer)
    }
}

impl Uring {
    /// A driver without sockets, for the calling thread.
    ///
    /// # Errors
    /// Why the kernel does not allow it, found out by use: flags alone do not tell what a
    /// container's filter forbids.
    pub fn new(files: Files) -> Result<Self, Refusal> {
        let registered = files.room().min(REGISTERED);
        Self::with_registered(files, registered as u32)
    }

    /// One that registers so many sockets; of the others the ring is told the descriptors.
    pub(super) fn with_registered(files: Files, registered: u32) -> Result<Self, Refusal> {
        let mut ring = Ring::new(registered).map_err(|error| Refusal::of(&error))?;
        try_out(&mut ring).map_err(|error| Refusal::of(&error))?;
        let wake = Waker::new().map_err(|error| Refusal::of(&error.into()))?;
        if !ring.watch(wake.as_fd(), WAKE) {
            return Err(Refusal::Failed);
        }
        Ok(Self {
            links: vec![0; ring.buffers()].into(),
            ring,
            wake,
            files,
            tick: Tick::default(),
            places: Vec::new(),
            shared: Vec::new(),
            sockets: Vec::new(),
            vacant: Vec::new(),
            ending: VecDeque::new(),
            listed: Vec::new(),
            unarmed: VecDeque::new(),
            arm_at: Instant::ZERO,
            fresh: 0,
            lookout: Lookout::new(super::now()),
            entered: super::now(),
            refused: 0,
            stale: 0,
        })
    }

    /// Ends this driver's wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wake.clone()
    }

    /// Gives a socket a place and lets it receive.
    fn add(&mut self, socket: MediaSocket, token: Token) -> u32 {
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.sockets.push(Socket::default());
            u32::try_from(self.sockets.len() - 1).unwrap_or(u32::MAX)
        });
        let entry = &mut self.sockets[index as usize];
        let generation = (entry.generation + 1) % GENERATIONS;
        let emptied = super::now();
        let is_registered = self.ring.register(index, socket.as_fd());
        let socket = Some(socket);
        *entry = Socket { socket, token, generation, emptied, is_registered, ..Socket::default() };
        if !arm(&mut self.ring, entry, index) {
            self.unarmed.push_back(index);
        }
        index
    }

    /// Lets sockets receive again whose datagrams are worked off; how long until some more may.
    fn arm_again(&mut self, now: Instant) -> Option<Duration> {
        if self.unarmed.is_empty() {
            return None;
        }
        if now >= self.arm_at {
            self.arm_at = now + TICK;
            let mut room = GATHERED;
            for _ in 0..self.unarmed.len().min(ASKED_AT_ONCE) {
                if room == 0 {
                    break;
                }
                let Some(index) = self.unarmed.pop_front() else { break };
                let entry = &mut self.sockets[index as usize];
                let is_over = entry.is_closing || entry.socket.is_none() || entry.is_armed;
                if is_over {
                    continue;
                }
                if entry.waiting > 0 || !arm(&mut self.ring, entry, index) {
                    self.unarmed.push_back(index);
                } else {
                    let guess = now.since(entry.emptied).as_nanos() / PACKET_TIME.as_nanos();
                    room = room.saturating_sub(ONE_GO.min(1 + guess as usize));
                }
            }
        }
        (!self.unarmed.is_empty()).then(|| self.arm_at.since(now))
    }

    /// Takes in what there is without a wait. A wait for no time would cost as much as a long one.
    fn look(&mut self) {
        loop {
            let before = self.fresh;
            self.ring.enter(0, Duration::ZERO);
            self.reap();
            let brought = self.fresh - before;
            // Another go that brings as much must find buffers.
            let is_full = self.fresh >= GATHERED || self.fresh + brought > self.ring.buffers();
            if brought < HANDED_OUT || is_full {
                return;
            }
        }
    }

    /// Takes in what the kernel has done.
    fn reap(&mut self) {
        while let Some(completion) = self.ring.next() {
            match completion {
                Completion::Event { data: WAKE, more, .. } => {
                    self.wake.heard();
                    if !more {
                        self.ring.watch(self.wake.as_fd(), WAKE);
                    }
                }
                Completion::Event { data, buffer, more, .. } => self.arrived(data, buffer, more),
                Completion::Refused => self.refused += 1,
            }
        }
    }

    /// A receive brought a datagram, or ended, or both.
    fn arrived(&mut self, data: u64, buffer: Option<u16>, more: bool) {
        let index = data as u32;
        let entry = self.sockets.get_mut(index as usize);
        let Some(entry) = entry.filter(|entry| entry.key(index) == data) else {
            return buffer.map_or((), |buffer| self.ring.give_back(buffer));
        };
        if let Some(buffer) = buffer {
            if entry.is_closing {
                self.ring.give_back(buffer);
            } else {
                if entry.waiting == 0 {
                    entry.first = buffer;
                } else {
                    self.links[usize::from(entry.last)] = buffer;
                }
                entry.last = buffer;
                entry.waiting += 1;
                entry.fresh += 1;
                self.fresh += 1;
                if !std::mem::replace(&mut entry.is_listed, true) {
                    self.listed.push(index);
                }
            }
        }
        if !more {
            (entry.is_armed, entry.is_cancelled) = (false, false);
            if entry.is_closing {
                self.end(index);
            } else {
                self.unarmed.push_back(index);
            }
        } else if entry.waiting > limit::RELAY_BATCH.get() && !entry.is_cancelled {
            entry.is_cancelled = self.ring.cancel(data);
        }
    }

    /// Gives back what is too old of what waits. Of a socket that has more in the kernel, that is
    /// all: what is young comes last.
    fn drop_stale(&mut self, now: Instant) {
        for at in 0..self.listed.len() {
            let entry = &mut self.sockets[self.listed[at] as usize];
            let since = self.lookout.since(entry.emptied);
            if !self.lookout.is_old(since, now) {
                continue;
            }
            let young = match entry.is_drained() {
                true => self.lookout.young(entry.seen + entry.fresh, since, now),
                false => 0,
            };
            for _ in young..entry.waiting {
                let Some(buffer) = entry.take(&self.links) else { break };
                self.ring.give_back(buffer);
                self.stale += 1;
            }
        }
    }

    /// The next datagram's buffer of a socket.
    fn take(&mut self, index: u32) -> Option<u16> {
        self.sockets.get_mut(index as usize)?.take(&self.links)
    }

    /// Begins to close a socket.
    fn retire(&mut self, index: u32) {
        while let Some(buffer) = self.take(index) {
            self.ring.give_back(buffer);
        }
        let entry = &mut self.sockets[index as usize];
        entry.is_closing = true;
        if entry.is_armed && !entry.is_cancelled {
            entry.is_cancelled = self.ring.cancel(entry.key(index));
        }
        self.end(index);
    }

    /// Closes a socket that was to be closed once the kernel has let go of it.
    fn end(&mut self, index: u32) {
        let entry = &mut self.sockets[index as usize];
        if !entry.is_closing || entry.is_armed {
            return;
        }
        if !self.ring.is_over(entry.batch) {
            return self.ending.push_back(index);
        }
        if std::mem::take(&mut entry.is_registered) {
            self.ring.unregister(index);
        }
        entry.is_closing = false;
        entry.socket = None;
        self.vacant.push(index);
        self.files.give_back();
    }

    /// Closes those whose last sends have gone out since.
    fn end_all(&mut self) {
        for _ in 0..self.ending.len() {
            if let Some(index) = self.ending.pop_front() {
                self.end(index);
            }
        }
    }

    fn make_room(&mut self, token: Token) {
        if self.places.len() <= token {
            self.places.resize(token + 1, Place::default());
        }
        self.close(token);
    }

    /// Opens a socket that a descriptor has been taken for.
    fn add_open(&mut self, token: Token, address: SocketAddr) -> bool {
        let Ok(socket) = MediaSocket::open(address) else {
            self.files.give_back();
            return false;
        };
        self.make_room(token);
        self.places[token] = Place { open: Some(self.add(socket, token)), ..Place::default() };
        true
    }

    fn add_connected(&mut self, token: Token, peer: SocketAddr) {
        let open = self.places.get(token).and_then(|place| place.open);
        let Some(open) = open.filter(|_| self.files.take_extra()) else { return };
        let open = self.sockets[open as usize].socket.as_ref();
        match open.map(|open| open.open_connected(peer)) {
            Some(Ok(socket)) => {
                let index = self.add(socket, token);
                self.places[token].connected = Some((peer, index));
            }
            _ => self.files.give_back(),
        }
    }
}

/// Lets a socket receive until further notice.
fn arm(ring: &mut Ring, entry: &mut Socket, index: u32) -> bool {
    let key = entry.key(index);
    entry.is_armed = entry.target(index).is_some_and(|target| ring.receive(target, key));
    entry.is_armed
}

/// Sends a datagram through a ring and receives it, by all that the driver uses, and leaves the
/// ring as it was.
fn try_out(ring: &mut Ring) -> io::Result<()> {
    let (here, there) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    let source = here.local_addr()?;
    let [from, to] = [&here, &there].map(|it| Target::Descriptor(it.as_raw_fd()));
    let is_queued =
        ring.receive(to, TRIAL) && ring.send(from, Some(there.local_addr()?), b"try").is_some();
    let mut outcome = Err(io::ErrorKind::TimedOut.into());
    let mut is_over = !is_queued;
    for _ in 0..20 {
        ring.enter(1, Duration::from_millis(50));
        while let Some(completion) = ring.next() {
            let Completion::Event { buffer, more, result, .. } = completion else { continue };
            let seen = buffer.and_then(|buffer| ring.datagram(buffer));
            if seen == Some((b"try", source)) && more {
                outcome = Ok(());
            } else if outcome.is_err() {
                outcome = Err(if result < 0 {
                    io::Error::from_raw_os_error(-result)
                } else {
                    io::ErrorKind::Unsupported.into()
                });
            }
            buffer.into_iter().for_each(|buffer| ring.give_back(buffer));
            is_over = !more || !ring.cancel(TRIAL);
        }
        if is_over {
            break;
        }
    }
    outcome
}

impl Network for Uring {
    fn now(&self) -> Instant {
        super::now()
    }

    fn wall(&self) -> WallTime {
        super::wall()
    }

    fn open(&mut self, token: Token, address: SocketAddr) -> bool {
        self.files.take() && self.add_open(token, address)
    }

    fn open_spare(&mut self, token: Token, address: SocketAddr) -> bool {
        self.files.take_extra() && self.add_open(token, address)
    }

    fn share(&mut self, socket: OwnedFd) -> Option<usize> {
        let has_room = self.files.take();
        has_room.then(|| {
            self.shared.push(socket.into());
            self.shared.len() - 1
        })
    }

    fn lend(&mut self, token: Token, shared: usize) {
        self.make_room(token);
        self.places[token] = Place { shared: Some(shared), ..Place::default() };
    }

    fn adopt(&mut self, token: Token, peer: SocketAddr, socket: OwnedFd) -> bool {
        self.part(token);
        let has_room = token < self.places.len() && self.files.take_extra();
        if has_room {
            let index = self.add(socket.into(), token);
            self.places[token].connected = Some((peer, index));
        }
        has_room
    }

    fn part(&mut self, token: Token) {
        let place = self.places.get_mut(token);
        if let Some((_, index)) = place.and_then(|place| place.connected.take()) {
            self.retire(index);
        }
    }

    fn connect(&mut self, token: Token, peer: SocketAddr) {
        let Some((known, index)) = self.places.get(token).and_then(|place| place.connected) else {
            return self.add_connected(token, peer);
        };
        if known == peer {
            return;
        }
        let socket = self.sockets[index as usize].socket.as_ref();
        let is_moved = socket.is_some_and(|socket| socket.connect(peer).is_ok());
        self.places[token].connected = is_moved.then_some((peer, index));
        if !is_moved {
            self.retire(index);
        }
    }

    fn close(&mut self, token: Token) {
        if let Some(place) = self.places.get_mut(token).map(std::mem::take) {
            let connected = place.connected.map(|(_, index)| index);
            place.open.into_iter().chain(connected).for_each(|index| self.retire(index));
        }
    }

    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>) {
        let sockets = &mut self.sockets;
        self.listed.retain(|index| {
            let entry = &mut sockets[*index as usize];
            entry.is_listed = entry.waiting > 0;
            entry.is_listed
        });
        let now = self.now();
        let most = self.arm_again(now).map_or(most, |until| until.min(most));
        let most = if self.listed.is_empty() { most } else { Duration::ZERO };
        self.entered = now;
        // As many datagrams as a wait brings that left some behind.
        let full = match self.tick.gather(now, most) {
            Some(gather) if !gather.is_zero() => {
                self.ring.enter(GATHERED, gather);
                self.lookout.waited(now, gather, self.now());
                GATHERED
            }
            None if !most.is_zero() => {
                self.ring.enter(1, most);
                self.lookout.waited(now, most, self.now());
                HANDED_OUT
            }
            _ => {
                self.look();
                GATHERED
            }
        };
        self.reap();
        self.end_all();
        let fresh = std::mem::take(&mut self.fresh);
        let now = self.now();
        self.tick.seen(now, fresh);
        if self.lookout.is_late(now) {
            self.drop_stale(now);
        }
        if fresh < full && self.unarmed.is_empty() {
            self.lookout.seen_all(now);
        }
        ready.clear();
        for index in &self.listed {
            let entry = &mut self.sockets[*index as usize];
            entry.settle(self.entered);
            if entry.waiting > 0 {
                ready.push(entry.token);
            }
        }
    }

    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        let place = *self.places.get(token)?;
        let connected = place.connected.and_then(|(_, index)| self.take(index));
        let taken = connected.or_else(|| self.take(place.open?))?;
        let datagram = self.ring.datagram(taken).map(|(bytes, source)| {
            let length = bytes.len().min(buffer.len());
            buffer[..length].copy_from_slice(&bytes[..length]);
            (bytes.len(), source)
        });
        self.ring.give_back(taken);
        datagram
    }

    fn send(&mut self, token: Token, to: SocketAddr, datagram: &[u8]) -> bool {
        let Some(place) = self.places.get(token) else { return false };
        let (index, to) = match (place.connected, place.open) {
            (Some((peer, index)), _) if peer == to => (index, None),
            (_, Some(index)) => (index, Some(to)),
            (_, None) => {
                let Some(socket) = place.shared.and_then(|at| self.shared.get(at)) else {
                    return false;
                };
                let target = Target::Descriptor(socket.as_fd().as_raw_fd());
                let is_queued = self.ring.send(target, Some(to), datagram).is_some();
                self.ring.flush(FLUSHED);
                return is_queued;
            }
        };
        let entry = &mut self.sockets[index as usize];
        let Some(target) = entry.target(index) else { return false };
        let Some(batch) = self.ring.send(target, to, datagram) else { return false };
        entry.batch = batch;
        self.ring.flush(FLUSHED);
        true
    }

    fn refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    fn stale(&mut self) -> u64 {
        std::mem::take(&mut self.stale)
    }
}

#[cfg(test)]
impl Uring {
    /// As if nobody had looked since then, and what is older than this were stale.
    pub(super) fn set_lookout(&mut self, clear: Instant, stale: Duration) {
        self.lookout.set(clear, stale);
        self.sockets.iter_mut().for_each(|it| it.emptied = it.emptied.min(clear));
    }
}
