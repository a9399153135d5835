//! How a worker reaches the network. The worker and the path know only the trait [`Network`];
//! [`uring`] and [`epoll`] stand behind it, both run by the same tests, and tests bring networks
//! of their own.
//!
//! Waking is what costs, more than the layout of sockets or the calls made for a packet (`tick`).
//! A driver allocates nothing, locks nothing and logs nothing for a packet.

pub mod epoll;
pub mod files;
pub mod uring;

pub(crate) mod ahead;
mod ring;
mod tick;
mod wake;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use base::{Instant, WallTime};
use rustix::time::ClockId;

pub use wake::Waker;

/// Names a socket: twice the session's place at its worker, plus one for RTCP.
pub type Token = usize;

/// Sockets, readiness and the clock of one worker.
pub trait Network {
    /// Now.
    fn now(&self) -> Instant;
    /// Now, on the wall clock.
    fn wall(&self) -> WallTime;
    /// Opens a socket; `false` where the port is taken or no descriptor is left.
    fn open(&mut self, token: Token, address: SocketAddr) -> bool;
    /// Opens a socket that its session can do without; `false` also where there is little room left
    /// for descriptors.
    fn open_spare(&mut self, token: Token, address: SocketAddr) -> bool;
    /// Takes a faster way to and from this peer, where there is one: a socket of its own on the
    /// same port, connected to it. The first socket goes on hearing everybody else.
    fn connect(&mut self, _token: Token, _peer: SocketAddr) {}
    /// Keeps a socket that many tokens send from and nothing is received from here; its number.
    /// `None` where no descriptor is left.
    fn share(&mut self, socket: OwnedFd) -> Option<usize>;
    /// Lets a token send from a shared socket; it has none of its own.
    fn lend(&mut self, token: Token, shared: usize);
    /// Gives a token the socket of this peer, in place of a former one; `false` where there is
    /// little room left for descriptors.
    fn adopt(&mut self, token: Token, peer: SocketAddr, socket: OwnedFd) -> bool;
    /// Closes the socket of a token's peer.
    fn part(&mut self, token: Token);
    /// Closes a token's sockets. What was sent before still goes out.
    fn close(&mut self, token: Token);
    /// Waits until a datagram or a command is there or `most` has passed, and lists the sockets
    /// that have datagrams in `ready`. Under load it lets datagrams gather for a short tick.
    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>);
    /// The next datagram of a socket: its length (above the buffer's where it did not fit) and its
    /// source.
    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)>;
    /// Sends one datagram; `false` where the driver or the system refused.
    fn send(&mut self, token: Token, to: SocketAddr, datagram: &[u8]) -> bool;
    /// How many datagrams that [`Self::send`] took the system refused afterwards, since the last
    /// time that this was asked.
    fn refused(&mut self) -> u64 {
        0
    }
    /// How many datagrams were dropped, since the last time that this was asked, because they were
    /// older than `relay.stale_ms` when the driver came to look at their socket.
    fn stale(&mut self) -> u64 {
        0
    }
}

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// io_uring where the kernel allows it, else epoll.
    #[default]
    Auto,
    /// io_uring; no relay where the kernel does not allow it.
    IoUring,
    /// epoll.
    Epoll,
}

/// Why io_uring is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The configuration says epoll.
    #[error("not wanted")]
    NotWanted,
    /// `EPERM` or `EACCES`: a container's filter, or the setting `kernel.io_uring_disabled`.
    #[error("forbidden")]
    Forbidden,
    /// `ENOSYS`: the kernel has none.
    #[error("not in this kernel")]
    Missing,
    /// `ENOMEM`: limit `RLIMIT_MEMLOCK`, or no memory.
    #[error("no memory")]
    Memory,
    /// Something that the driver needs (kernel 6.0) is missing.
    #[error("too old a kernel")]
    TooOld,
    /// Something else failed.
    #[error("failed")]
    Failed,
}

impl Refusal {
    /// One word for events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotWanted => "not_wanted",
            Self::Forbidden => "forbidden",
            Self::Missing => "missing",
            Self::Memory => "memory",
            Self::TooOld => "too_old",
            Self::Failed => "failed",
        }
    }

    fn of(error: &io::Error) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::PERM | Errno::ACCESS) => Self::Forbidden,
            Some(Errno::NOSYS) => Self::Missing,
            Some(Errno::NOMEM) => Self::Memory,
            Some(Errno::INVAL | Errno::OPNOTSUPP) => Self::TooOld,
            _ if error.kind() == io::ErrorKind::Unsupported => Self::TooOld,
            _ => Self::Failed,
        }
    }
}

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The wall clock.
pub(crate) fn wall() -> WallTime {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod driver_tests;
