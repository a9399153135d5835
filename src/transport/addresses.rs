//! Which of our addresses a datagram came to, of a socket that listens at all of them, and answers
//! that leave from there (`IP_PKTINFO`; RFC 3542 section 6): a peer behind NAT or a firewall takes
//! an answer only from the address that it asked.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{PoisonError, RwLock};

use base::limit;
use nix::libc::{in_addr, in_pktinfo, in6_addr, in6_pktinfo};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

/// The addresses of ours that datagrams have come to. The kernel delivers only to addresses that
/// are this machine's; the table is bounded all the same, and what has no place in it is answered
/// from the address that the kernel chooses.
#[derive(Debug, Default)]
pub(crate) struct Addresses(RwLock<Vec<IpAddr>>);

impl Addresses {
    /// Has the kernel tell of each datagram where it came to.
    pub(crate) fn of(socket: &impl AsFd, is_ipv6: bool) -> io::Result<Self> {
        if is_ipv6 {
            setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        Ok(Self::default())
    }

    /// The number that stands for an address, never 0; `None` where there is no place for it.
    pub(crate) fn number(&self, address: IpAddr) -> Option<u64> {
        let place = |known: &[IpAddr]| known.iter().position(|it| *it == address);
        let found = place(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let at = found.or_else(|| {
            let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
            place(&known).or_else(|| {
                let has_room = known.len() < limit::TRANSPORT_UDP_ADDRESSES.get();
                has_room.then(|| {
                    known.push(address);
                    known.len() - 1
                })
            })
        })?;
        u64::try_from(at + 1).ok()
    }

    /// The address that a number stands for.
    pub(crate) fn address(&self, number: u64) -> Option<IpAddr> {
        let at = usize::try_from(number.checked_sub(1)?).ok()?;
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(at).copied()
    }
}

/// One datagram that was received.
pub(crate) struct Arrived {
    pub(crate) size: usize,
    pub(crate) source: SocketAddr,
    /// Our address, where it is one that can answer.
    pub(crate) at: Option<IpAddr>,
}

/// Receives a datagram without waiting; `space` is where the kernel tells of it.
pub(crate) fn receive(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
    space: &mut [u8],
) -> io::Result<Arrived> {
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(space), flags)?;
    let source = message.address.as_ref().and_then(std_address);
    let source = source.ok_or(io::ErrorKind::InvalidData)?;
    let at = message.cmsgs()?.find_map(|told| match told {
        // Where a datagram went to everybody, this is our own address on that network.
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(IpAddr::V4(Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr))))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr)))
        }
        _ => None,
    });
    let at = at.filter(|it| !it.is_multicast() && !it.is_unspecified());
    Ok(Arrived { size: message.bytes, source, at })
}

/// Room for what the kernel tells of one datagram.
pub(crate) fn space() -> Vec<u8> {
    nix::cmsg_space!(in6_pktinfo, in_pktinfo)
}

/// Sends a datagram from one of our addresses, without waiting.
pub(crate) fn send_from(
    socket: &impl AsRawFd,
    from: IpAddr,
    to: SocketAddr,
    message: &[u8],
) -> io::Result<()> {
    let (v4, v6);
    let told = match from {
        IpAddr::V4(from) => {
            let source = in_addr { s_addr: from.to_bits().to_be() };
            let any = in_addr { s_addr: 0 };
            v4 = in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: any };
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        IpAddr::V6(from) => {
            let source = in6_addr { s6_addr: from.octets() };
            v6 = in6_pktinfo { ipi6_ifindex: 0, ipi6_addr: source };
            ControlMessage::Ipv6PacketInfo(&v6)
        }
    };
    let (parts, to) = ([IoSlice::new(message)], SockaddrStorage::from(to));
    sendmsg(socket.as_raw_fd(), &parts, &[told], MsgFlags::MSG_DONTWAIT, Some(&to))?;
    Ok(())
}

/// The address of ours that the kernel would send from. Nothing is sent.
pub(crate) fn source_to(target: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(target).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::V4((*v4).into()));
    }
    address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_number_and_the_table_its_size() {
        let addresses = Addresses::default();
        let most = limit::TRANSPORT_UDP_ADDRESSES.get();
        let one = |last: usize| IpAddr::from([127, 0, 0, last as u8]);
        for last in 1..=most {
            assert_eq!(addresses.number(one(last)), Some(last as u64));
        }
        assert_eq!(addresses.number(one(1)), Some(1));
        assert_eq!(addresses.number(one(most + 1)), None);
        assert_eq!(addresses.address(2), Some(one(2)));
        assert_eq!((addresses.address(0), addresses.address(most as u64 + 1)), (None, None));
    }

    #[test]
    fn the_kernel_names_the_address_that_it_would_send_from() {
        let near = "127.0.0.1:5060".parse().unwrap();
        assert_eq!(source_to(near), Some(IpAddr::from([127, 0, 0, 1])));
    }
}
