//! How a worker reaches the network. The worker and the path know only this trait: io_uring can
//! stand beside [`epoll`], and tests bring a network of their own.

pub(crate) mod epoll;

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, WallTime};

/// Names a socket: twice the session's place at its worker, plus one for RTCP.
pub(crate) type Token = usize;

/// Sockets, readiness and the clock of one worker.
pub(crate) trait Network {
    /// Now.
    fn now(&self) -> Instant;
    /// Now, on the wall clock.
    fn wall(&self) -> WallTime;
    /// Opens a socket; `false` where the port is taken.
    fn open(&mut self, token: Token, address: SocketAddr) -> bool;
    /// Closes a socket.
    fn close(&mut self, token: Token);
    /// Waits until a datagram or a command is there or `most` has passed, and lists the sockets
    /// that have datagrams in `ready`.
    fn wait(&mut self, most: Duration, ready: &mut Vec<Token>);
    /// The next datagram of a socket: its length (above the buffer's where it did not fit) and its
    /// source.
    fn receive(&mut self, token: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)>;
    /// Sends one datagram; `false` where the system refused.
    fn send(&mut self, token: Token, to: SocketAddr, datagram: &[u8]) -> bool;
}
