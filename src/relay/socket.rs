//! A media socket: UDP, non-blocking, bound to the zone's address, marked as voice.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use base::limit;
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

/// Expedited forwarding (RFC 3246) as a traffic class: audio's DSCP by RFC 4594 section 4.1.
const EXPEDITED: u8 = 46 << 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct MediaSocket(OwnedFd);

impl MediaSocket {
    /// Opens and binds one; nobody else has its port then.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket = Self::new(address)?;
        rustix::net::bind(&socket.0, &address)?;
        Ok(socket)
    }

    /// Opens another one on the same port that hears only this peer; `self` goes on hearing
    /// everybody else.
    pub(crate) fn open_connected(&self, peer: SocketAddr) -> Result<Self> {
        let socket = self.open_beside()?;
        // The port was shared for that moment only, or a second process could share it as well.
        sockopt::set_socket_reuseport(&socket.0, false)?;
        socket.connect(peer)?;
        Ok(socket)
    }

    /// The same, as one of many: it leaves its port to be shared, because the system lets another
    /// one bind there only if the latest before it does. Until it is connected, which is on return,
    /// it may have been given what others sent.
    pub(crate) fn open_among(&self, peer: SocketAddr) -> Result<Self> {
        let socket = self.open_beside()?;
        socket.connect(peer)?;
        Ok(socket)
    }

    /// Opens another one on the same port. While `self` is shared, which is for this moment, the
    /// system looks for a receiver among all; afterwards it finds `self` as the only one.
    fn open_beside(&self) -> Result<Self> {
        let address = self.address()?;
        let socket = Self::new(address)?;
        sockopt::set_socket_reuseport(&self.0, true)?;
        let bound = sockopt::set_socket_reuseport(&socket.0, true)
            .and_then(|()| rustix::net::bind(&socket.0, &address));
        sockopt::set_socket_reuseport(&self.0, false)?;
        bound.map(|()| socket)
    }

    /// Where it is bound to.
    pub(crate) fn address(&self) -> Result<SocketAddr> {
        SocketAddr::try_from(rustix::net::getsockname(&self.0)?)
    }

    /// Another descriptor of the same socket.
    pub(crate) fn duplicate(&self) -> Result<Self> {
        rustix::io::fcntl_dupfd_cloexec(&self.0, 0).map(Self)
    }

    /// Room for so much that has arrived, or for as much as the system gives.
    pub(crate) fn set_room(&self, bytes: usize) {
        let _ = sockopt::set_socket_recv_buffer_size(&self.0, bytes);
    }

    /// Hears and reaches another peer from now on.
    pub(crate) fn connect(&self, peer: SocketAddr) -> Result<()> {
        rustix::net::connect(&self.0, &peer)
    }

    fn new(address: SocketAddr) -> Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        // Marks and sizes are wishes: a container may forbid them and calls still work.
        let _ = match address {
            SocketAddr::V4(_) => sockopt::set_ip_tos(&socket, EXPEDITED),
            SocketAddr::V6(_) => sockopt::set_ipv6_tclass(&socket, u32::from(EXPEDITED)),
        };
        let _ = sockopt::set_socket_recv_buffer_size(&socket, limit::RELAY_SOCKET_BYTES.get());
        if address.is_ipv6() {
            // One family a socket: the other has one of its own, perhaps on the same port.
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok(Self(socket))
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

    /// Sends one datagram to the peer that the socket is connected to.
    pub(crate) fn send(&self, datagram: &[u8]) -> Result<()> {
        rustix::net::send(&self.0, datagram, SendFlags::DONTWAIT).map(|_| ())
    }

    /// Sends one datagram to any address.
    pub(crate) fn send_to(&self, to: SocketAddr, datagram: &[u8]) -> Result<()> {
        rustix::net::sendto(&self.0, datagram, SendFlags::DONTWAIT, &to).map(|_| ())
    }
}

impl From<OwnedFd> for MediaSocket {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<MediaSocket> for OwnedFd {
    fn from(socket: MediaSocket) -> Self {
        socket.0
    }
}

impl AsFd for MediaSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    fn own(socket: &MediaSocket) -> SocketAddr {
        socket.address().unwrap()
    }

    fn any(ip: &str) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), 0)
    }

    fn sources(socket: &MediaSocket) -> Vec<SocketAddr> {
        std::iter::from_fn(|| socket.receive(&mut [0; 16])).map(|(_, source)| source).collect()
    }

    #[test]
    fn a_connected_socket_and_its_sibling_share_out_a_port_exactly() {
        for ip in ["127.0.0.1", "::1"] {
            let open = MediaSocket::open(any(ip)).unwrap();
            let (peer, stranger) =
                (UdpSocket::bind(any(ip)).unwrap(), UdpSocket::bind(any(ip)).unwrap());
            let connected = open.open_connected(peer.local_addr().unwrap()).unwrap();
            for _ in 0..20 {
                peer.send_to(b"x", own(&open)).unwrap();
                stranger.send_to(b"x", own(&open)).unwrap();
            }
            assert_eq!(sources(&connected), vec![peer.local_addr().unwrap(); 20]);
            assert_eq!(sources(&open), vec![stranger.local_addr().unwrap(); 20]);
            connected.connect(stranger.local_addr().unwrap()).unwrap();
            peer.send_to(b"x", own(&open)).unwrap();
            assert_eq!(sources(&open), [peer.local_addr().unwrap()]);
        }
    }

    #[test]
    fn one_port_is_shared_out_among_many_peers_and_strangers_find_the_first_socket() {
        for ip in ["127.0.0.1", "::1"] {
            let open = MediaSocket::open(any(ip)).unwrap();
            let peers: Vec<_> = (0..50).map(|_| UdpSocket::bind(any(ip)).unwrap()).collect();
            let address = |peer: &UdpSocket| peer.local_addr().unwrap();
            let mut connected: Vec<_> =
                peers.iter().map(|peer| open.open_among(address(peer)).unwrap()).collect();
            let stranger = UdpSocket::bind(any(ip)).unwrap();
            for _ in 0..3 {
                for sender in peers.iter().chain([&stranger]) {
                    sender.send_to(b"x", own(&open)).unwrap();
                }
            }
            for (socket, peer) in connected.iter().zip(&peers) {
                assert_eq!(sources(socket), vec![address(peer); 3]);
            }
            assert_eq!(sources(&open), vec![address(&stranger); 3]);
            // Whose socket is closed is a stranger again, and the next one still finds room.
            drop(connected.swap_remove(7));
            peers[7].send_to(b"x", own(&open)).unwrap();
            assert_eq!(sources(&open), [address(&peers[7])]);
            assert!(open.open_among(address(&peers[7])).is_ok());
        }
    }

    #[test]
    fn a_shared_port_that_somebody_has_is_not_shared_with_him() {
        let first = MediaSocket::open(any("127.0.0.1")).unwrap();
        let peer = UdpSocket::bind(any("127.0.0.1")).unwrap();
        let _one = first.open_among(peer.local_addr().unwrap()).unwrap();
        assert_eq!(MediaSocket::open(own(&first)).unwrap_err(), Errno::ADDRINUSE);
    }

    #[test]
    fn nobody_else_can_share_a_port() {
        let open = MediaSocket::open(any("127.0.0.1")).unwrap();
        let peer = UdpSocket::bind(any("127.0.0.1")).unwrap();
        let _connected = open.open_connected(peer.local_addr().unwrap()).unwrap();
        let third = MediaSocket::new(own(&open)).unwrap();
        sockopt::set_socket_reuseport(&third.0, true).unwrap();
        assert_eq!(rustix::net::bind(&third.0, &own(&open)), Err(Errno::ADDRINUSE));
    }

    #[test]
    fn both_are_marked_as_voice_and_bounded() {
        let peer = UdpSocket::bind(any("127.0.0.1")).unwrap();
        let open = MediaSocket::open(any("127.0.0.1")).unwrap();
        let connected = open.open_connected(peer.local_addr().unwrap()).unwrap();
        for socket in [&open, &connected] {
            assert_eq!(sockopt::ip_tos(&socket.0), Ok(EXPEDITED));
            // The kernel doubles what it is told, for its own bookkeeping.
            let bytes = sockopt::socket_recv_buffer_size(&socket.0).unwrap();
            assert!(bytes <= 2 * limit::RELAY_SOCKET_BYTES.get());
        }
        let six = MediaSocket::open(any("::1")).unwrap();
        assert_eq!(sockopt::ipv6_tclass(&six.0), Ok(u32::from(EXPEDITED)));
    }
}
