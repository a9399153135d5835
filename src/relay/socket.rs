//! A media socket: UDP, non-blocking, bound to the zone's address, marked as voice.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Expedited forwarding (RFC 3246) as a traffic class: audio's DSCP by RFC 4594 section 4.1.
const EXPEDITED: u8 = 46 << 2;

/// Receive buffer: what 4 s of one call need, so that a late worker loses nothing, and a flood
/// fills no memory.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct MediaSocket(OwnedFd);

impl MediaSocket {
    /// Opens and binds one.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        // Marks and sizes are wishes: a container may forbid them and calls still work.
        let _ = match address {
            SocketAddr::V4(_) => sockopt::set_ip_tos(&socket, EXPEDITED),
            SocketAddr::V6(_) => sockopt::set_ipv6_tclass(&socket, u32::from(EXPEDITED)),
        };
        let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
        rustix::net::bind(&socket, &address)?;
        Ok(Self(socket))
    }

    /// The descriptor, to be polled.
    pub(crate) const fn descriptor(&self) -> &OwnedFd {
        &self.0
    }

    /// The next datagram: its length (above the buffer's where it did not fit) and source; `None`
    /// where none waits.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        // An error about an earlier packet of ours (unreachable) is reported here once.
        for _ in 0..4 {
            match rustix::net::recvfrom(&self.0, &mut *buffer, RecvFlags::TRUNC) {
                Ok((_, length, Some(source))) => {
                    return SocketAddr::try_from(source).ok().map(|source| (length, source));
                }
                Ok((_, _, None)) | Err(Errno::AGAIN) => return None,
                Err(_) => {}
            }
        }
        None
    }

    /// Sends one datagram. Each call has its own socket and sends one packet in 20 ms, so there is
    /// nothing for `sendmmsg` to batch; one submission for many sockets is io_uring's gain.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        rustix::net::sendto(&self.0, datagram, SendFlags::DONTWAIT, &to).map(|_| ())
    }
}
