//! The epoll driver: level-triggered, so that a socket which was left with datagrams in it shows
//! up again. Under load it lets datagrams gather for a short tick, since waking for each one is
//! what costs (DESIGN section 3). The kernel's wait counts in whole milliseconds, so that a frame
//! is up to one late; its place on the session's clock stays.

use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base::{Instant, WallTime};
use rustix::event::{EventfdFlags, Timespec, epoll};
use rustix::io::Result;
use rustix::time::ClockId;

use super::{Network, Token};
use crate::socket::MediaSocket;

/// Descriptors reported by one wait.
const EVENTS: usize = 256;
/// Sockets ready at once that count as load.
const LOADED: usize = 16;
/// How long datagrams gather under load.
const TICK: Duration = Duration::from_micros(400);
const WAKE: u64 = u64::MAX;

/// Wakes a worker that waits.
#[derive(Clone, Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

impl Waker {
    pub(crate) fn wake(&self) {
        // It fails only where the counter is full, and then the worker is awake.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// See the module.
pub(crate) struct Epoll {
    poll: OwnedFd,
    wake: Waker,
    sockets: Vec<Option<MediaSocket>>,
    is_loaded: bool,
}

impl Epoll {
    pub(crate) fn new() -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let wake = Waker(Arc::new(rustix::event::eventfd(0, flags)?));
        epoll::add(&poll, &*wake.0, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        Ok(Self { poll, wake, sockets: Vec::new(), is_loaded: false })
    }

    pub(crate) fn waker(&self) -> Waker {
        self.wake.clone()
    }
}

impl Network for Epoll {
    fn now(&self) -> Instant {
        let time = rustix::time::clock_gettime(ClockId::Monotonic);
        let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
    }

    fn wall(&self) -> WallTime {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn open(&mut self, token: Token, address: SocketAddr) -> bool {
        let Ok(socket) = MediaSocket::open(address) else {
            return false;
        };
        let data = epoll::EventData::new_u64(token as u64);
        if epoll::add(&self.poll, socket.descriptor(), data, epoll::EventFlags::IN).is_err() {
            return false;
        }
        if self.sockets.len() <= token {
            self.sockets.resize_with(token + 1, || None);
        }
        self.sockets[token] = Some(socket);
        true
    }

    fn close(&mut self, token: Token) {
        // Closing the only descriptor of a socket takes it out of the poll as well.
        if let Some(slot) = self.sockets.get_mut(token) {
            *slot = None;
        }
    }

    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>) {
        if self.is_loaded && most > TICK {
            std::thread::sleep(TICK);
        }
        ready.clear();
        let most = Timespec {
            tv_sec: i64::try_from(most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(most.subsec_nanos()),
        };
        let mut events = [MaybeUninit::uninit(); EVENTS];
        // An interrupted wait is an empty one: the worker's next round waits again.
        if let Ok((events, _)) = epoll::wait(&self.poll, &mut events[..], Some(&most)) {
            for event in events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&*self.wake.0, &mut [0; 8]);
                    }
                    token => ready.extend(Token::try_from(token).ok()),
                }
            }
        }
        self.is_loaded = ready.len() >= LOADED;
    }

    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        self.sockets.get(token)?.as_ref()?.receive(buffer)
    }

    fn send(&mut self, token: Token, to: SocketAddr, datagram: &[u8]) -> bool {
        let socket = self.sockets.get(token).and_then(Option::as_ref);
        socket.is_some_and(|socket| socket.send(to, datagram).is_ok())
    }
}
