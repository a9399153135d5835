//! The epoll driver, for where io_uring is not allowed. Level-triggered, so that a socket which was
//! left with datagrams in it shows up again.
//!
//! A socket that shows up has one datagram, nearly always: a stream sends one in 20 ms and a tick
//! is a fiftieth of that. So one is taken and the kernel is not asked in vain for another; a socket
//! that shows up twice in a row, or has not been looked at for long, is emptied. There is nothing
//! for `sendmmsg` and `recvmmsg` to batch, since they serve one socket and each leg has its own.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use base::{Instant, WallTime};
use rustix::event::{PollFd, PollFlags, Timespec, epoll};
use rustix::io::Result;
use rustix::thread::clock_nanosleep_relative;
use rustix::time::ClockId;

use super::files::Files;
use super::tick::{RESTED, Tick};
use super::{Network, Token, Waker};
use crate::late::{Late, Lookout};
use crate::socket::MediaSocket;

/// Descriptors reported by one wait.
const EVENTS: usize = 256;
const WAKE: u64 = u64::MAX;

/// See the module.
pub struct Epoll {
    poll: OwnedFd,
    wake: Waker,
    files: Files,
    tick: Tick,
    /// By token.
    places: Vec<Option<Place>>,
    shared: Vec<MediaSocket>,
    /// Counts the waits.
    round: u64,
    /// The last wait could not list all.
    has_more: bool,
    lookout: Lookout,
    /// When the last wait ended.
    looked: Instant,
    /// It found that there may be old audio.
    is_late: bool,
    late: Late,
    /// Whose datagrams `late` has.
    late_for: Option<Token>,
    stale: u64,
}

/// A token's sockets.
#[derive(Default)]
struct Place {
    /// Hears everybody.
    open: Option<Leg>,
    /// Or it sends from this one.
    shared: Option<usize>,
    /// Hears one peer.
    connected: Option<(SocketAddr, Leg)>,
}

/// A socket and when it last had datagrams.
struct Leg {
    socket: MediaSocket,
    /// The last wait that found it ready.
    ready: u64,
    /// Whether the wait before that did so too.
    is_backlogged: bool,
    /// Whether this round may still ask it.
    may_have_more: bool,
    /// What waits came after this.
    since: Instant,
    /// Nothing waited then.
    emptied: Instant,
}

impl Leg {
    fn new(socket: MediaSocket) -> Self {
        let now = super::now();
        Self {
            socket,
            ready: 0,
            is_backlogged: false,
            may_have_more: false,
            since: now,
            emptied: now,
        }
    }

    /// A wait found datagrams in it that came after `since`.
    const fn found(&mut self, round: u64, since: Instant, is_backlogged: bool) {
        self.is_backlogged = is_backlogged || self.ready + 1 == round;
        self.ready = round;
        self.since = since;
        self.may_have_more = true;
    }

    fn receive(&mut self, buffer: &mut [u8], now: Instant) -> Option<(usize, SocketAddr)> {
        if !self.may_have_more {
            return None;
        }
        let datagram = self.socket.receive(buffer);
        self.may_have_more = datagram.is_some() && self.is_backlogged;
        if datagram.is_none() {
            self.emptied = now;
        }
        datagram
    }
}

impl Epoll {
    /// A driver without sockets.
    ///
    /// # Errors
    /// Where the system refuses a descriptor.
    pub fn new(files: Files) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = Waker::new()?;
        epoll::add(&poll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let now = super::now();
        Ok(Self {
            poll,
            wake,
            files,
            tick: Tick::default(),
            places: Vec::new(),
            shared: Vec::new(),
            round: 1,
            has_more: false,
            lookout: Lookout::new(now),
            looked: now,
            is_late: false,
            late: Late::default(),
            late_for: None,
            stale: 0,
        })
    }

    /// Ends this driver's wait from another thread.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.wake.clone()
    }

    fn place(&mut self, token: Token) -> Option<&mut Place> {
        self.places.get_mut(token)?.as_mut()
    }

    /// Adds a socket to the poll.
    fn watch(&self, socket: &MediaSocket, token: Token, connected: bool) -> bool {
        let data = epoll::EventData::new_u64(token as u64 * 2 + u64::from(connected));
        epoll::add(&self.poll, socket, data, epoll::EventFlags::IN).is_ok()
    }

    /// Opens a socket that a descriptor has been taken for.
    fn add_open(&mut self, token: Token, address: SocketAddr) -> bool {
        let socket = MediaSocket::open(address).ok();
        let Some(socket) = socket.filter(|socket| self.watch(socket, token, false)) else {
            self.files.give_back();
            return false;
        };
        self.make_room(token);
        self.places[token] = Some(Place { open: Some(Leg::new(socket)), ..Place::default() });
        true
    }

    /// A second socket for this peer; where it cannot be had, one socket does.
    fn add_connected(&mut self, token: Token, peer: SocketAddr) {
        if !self.files.take_extra() {
            return;
        }
        let open = self.place(token).and_then(|it| it.open.as_ref());
        let socket = open.and_then(|open| open.socket.open_connected(peer).ok());
        if !socket.is_some_and(|socket| self.keep_connected(token, peer, socket)) {
            self.files.give_back();
        }
    }

    /// Keeps a connected socket that a descriptor has been taken for.
    fn keep_connected(&mut self, token: Token, peer: SocketAddr, socket: MediaSocket) -> bool {
        let is_watched = self.watch(&socket, token, true);
        let Some(place) = self.place(token).filter(|_| is_watched) else { return false };
        place.connected = Some((peer, Leg::new(socket)));
        true
    }

    fn make_room(&mut self, token: Token) {
        if self.places.len() <= token {
            self.places.resize_with(token + 1, || None);
        }
        self.close(token);
    }

    /// Sleeps as the load asks; whether something may have come.
    fn sleep(&mut self, most: Duration) -> bool {
        if most.is_zero() || self.has_more {
            return true;
        }
        let asked = self.now();
        if let Some(gather) = self.tick.gather(asked, most) {
            if !gather.is_zero() {
                let _ = clock_nanosleep_relative(ClockId::Monotonic, &timespec(gather));
                self.lookout.waited(asked, gather, self.now());
            }
            return true;
        }
        // `epoll_wait` counts in whole milliseconds; this counts in nanoseconds. An interrupted
        // wait is an empty one: the worker's next round waits again.
        let mut poll = [PollFd::new(&self.poll, PollFlags::IN)];
        let ready = rustix::event::poll(&mut poll, Some(&timespec(most)));
        self.lookout.waited(asked, most, self.now());
        ready.is_ok_and(|ready| ready > 0)
    }

    /// The next datagram of a socket that is late, out of what is left of it.
    fn receive_late(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        loop {
            if self.late_for == Some(token) {
                if let Some(datagram) = self.late.next(buffer) {
                    return Some(datagram);
                }
                self.late_for = None;
            }
            let place = self.places.get_mut(token)?.as_mut()?;
            let connected = place.connected.as_mut().map(|(_, leg)| leg);
            let mut legs = connected.into_iter().chain(&mut place.open);
            let leg =
                legs.find(|leg| leg.may_have_more && self.lookout.is_old(leg.since, self.looked))?;
            leg.may_have_more = false;
            self.stale += self.late.clear() as u64;
            let receive = |buffer: &mut [u8]| leg.socket.receive(buffer);
            let (old, is_all) = self.late.fill(&self.lookout, leg.since, self.looked, receive);
            self.stale += old as u64;
            if is_all {
                leg.emptied = self.looked;
            }
            self.late_for = Some(token);
        }
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

impl Network for Epoll {
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
        self.places[token] = Some(Place { shared: Some(shared), ..Place::default() });
    }

    fn adopt(&mut self, token: Token, peer: SocketAddr, socket: OwnedFd) -> bool {
        self.part(token);
        if !self.files.take_extra() {
            return false;
        }
        let is_kept = self.keep_connected(token, peer, socket.into());
        if !is_kept {
            self.files.give_back();
        }
        is_kept
    }

    fn part(&mut self, token: Token) {
        let parted = self.place(token).and_then(|place| place.connected.take());
        if parted.is_some() {
            self.files.give_back();
        }
    }

    fn connect(&mut self, token: Token, peer: SocketAddr) {
        let Some(place) = self.place(token) else { return };
        match &mut place.connected {
            Some((known, _)) if *known == peer => {}
            Some((known, leg)) if leg.socket.connect(peer).is_ok() => *known = peer,
            Some(_) => {
                place.connected = None;
                self.files.give_back();
            }
            None => self.add_connected(token, peer),
        }
    }

    fn close(&mut self, token: Token) {
        // Closing the only descriptor of a socket takes it out of the poll as well.
        if let Some(place) = self.places.get_mut(token).and_then(Option::take) {
            let sockets = u8::from(place.open.is_some()) + u8::from(place.connected.is_some());
            (0..sockets).for_each(|_| self.files.give_back());
        }
    }

    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>) {
        ready.clear();
        self.round += 1;
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let zero = Some(&Timespec { tv_sec: 0, tv_nsec: 0 });
        let found = if self.sleep(most) {
            epoll::wait(&self.poll, &mut events[..], zero).map_or(&mut [][..], |it| it.0)
        } else {
            &mut []
        };
        self.has_more = found.len() == EVENTS;
        self.looked = super::now();
        let has_rested = self.tick.has_rested(self.looked);
        let mut count = 0;
        for event in found {
            let data = event.data.u64();
            if data == WAKE {
                self.wake.clear();
                continue;
            }
            let Ok(token) = Token::try_from(data / 2) else { continue };
            let Some(place) = self.places.get_mut(token).and_then(Option::as_mut) else { continue };
            let leg = match (&mut place.connected, data % 2) {
                (Some((_, leg)), 1) => Some(leg),
                _ => place.open.as_mut(),
            };
            let Some(leg) = leg else { continue };
            let since = self.lookout.since(leg.emptied);
            let is_backlogged = has_rested || self.looked.since(since) > RESTED;
            leg.found(self.round, since, is_backlogged);
            // Both sockets of a token may be ready.
            if ready.last() != Some(&token) {
                ready.push(token);
            }
            count += 1;
        }
        self.tick.seen(self.looked, count);
        self.is_late = self.lookout.is_late(self.looked);
        if !self.has_more {
            self.lookout.seen_all(self.looked);
        }
    }

    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        if self.is_late
            && let Some(datagram) = self.receive_late(token, buffer)
        {
            return Some(datagram);
        }
        let looked = self.looked;
        let place = self.place(token)?;
        let connected = place.connected.as_mut().and_then(|(_, leg)| leg.receive(buffer, looked));
        connected.or_else(|| place.open.as_mut()?.receive(buffer, looked))
    }

    fn send(&mut self, token: Token, to: SocketAddr, datagram: &[u8]) -> bool {
        let Some(Some(place)) = self.places.get(token) else { return false };
        if let Some((peer, leg)) = &place.connected
            && *peer == to
        {
            return leg.socket.send(datagram).is_ok();
        }
        let open = place.open.as_ref().map(|leg| &leg.socket);
        let socket = open.or_else(|| self.shared.get(place.shared?));
        socket.is_some_and(|socket| socket.send_to(to, datagram).is_ok())
    }

    fn stale(&mut self) -> u64 {
        std::mem::take(&mut self.stale)
    }
}

#[cfg(test)]
impl Epoll {
    /// As if nobody had looked since then, and what is older than this were stale.
    pub(super) fn set_lookout(&mut self, clear: Instant, stale: Duration) {
        self.lookout.set(clear, stale);
        let places = self.places.iter_mut().flatten();
        let legs =
            places.flat_map(|it| it.connected.iter_mut().map(|it| &mut it.1).chain(&mut it.open));
        legs.for_each(|leg| leg.emptied = leg.emptied.min(clear));
    }
}
