//! UDP: sockets, and flow ids that a stranger's datagram costs nothing.
//!
//! The id of an IPv4 flow *is* the peer's address, so no flood can make us forget a peer. IPv6
//! addresses do not fit; they are remembered in a table of fixed size in which the addresses of
//! one network displace each other only.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use base::{Event, Reason, limit};
use bytes::Bytes;
use sip::FlowId;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Duration, sleep};

use crate::addresses::{self, Addresses, Arrived};
use crate::flow::{Flow, Inlet, Transport};
use crate::handle::SendError;
use crate::task::contained_call;

/// Pause after a failed receive, so that a broken socket does not eat a core.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(10);

/// The open UDP sockets.
#[derive(Debug, Default)]
pub(crate) struct UdpSockets {
    open: RwLock<Sockets>,
}

/// One open UDP socket.
#[derive(Debug)]
pub(crate) struct UdpIngress {
    number: u64,
    local: SocketAddr,
    socket: UdpSocket,
    /// Of a socket that listens at every address.
    addresses: Option<Addresses>,
    peers: Option<Mutex<PeerTable>>,
}

impl UdpSockets {
    /// Enters a bound socket.
    pub(crate) fn open(&self, socket: UdpSocket) -> io::Result<Arc<UdpIngress>> {
        let local = socket.local_addr()?;
        let peers = local.is_ipv6().then(|| Mutex::new(PeerTable::new()));
        let is_wild = local.ip().is_unspecified();
        let addresses = is_wild.then(|| Addresses::of(&socket, local.is_ipv6())).transpose()?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Listeners are far fewer than numbers, so a free one is found; it is not the last one
        // used, so that ids of a closed socket stay without meaning for long.
        let mut number = open.next;
        while open.sockets.iter().any(|other| other.number == number) {
            number = (number + 1) & SOCKET_MASK;
        }
        open.next = (number + 1) & SOCKET_MASK;
        let ingress = Arc::new(UdpIngress { number, local, socket, addresses, peers });
        open.sockets.push(Arc::clone(&ingress));
        Ok(ingress)
    }

    /// Takes a socket out; its flows are gone.
    pub(crate) fn close(&self, ingress: &Arc<UdpIngress>) {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.sockets.retain(|other| !Arc::ptr_eq(other, ingress));
    }

    /// Sends a datagram. UDP may lose it, so a socket without room loses it here.
    pub(crate) fn send(&self, id: FlowId, message: &[u8]) -> Result<(), SendError> {
        let number = (id.0 >> SOCKET_SHIFT) & SOCKET_MASK;
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let ingress = open.sockets.iter().find(|ingress| ingress.number == number);
        let ingress = ingress.ok_or(SendError::Gone)?;
        let peer = ingress.peer_of(id).ok_or(SendError::Gone)?;
        let number = (id.0 >> PEER_BITS) & ADDRESS_MASK;
        let from = ingress.addresses.as_ref().and_then(|known| known.address(number));
        // Past tokio, which takes a new socket for one without room until its driver has run.
        let sent = match from {
            Some(from) => addresses::send_from(&ingress.socket, from, peer, message),
            None => SockRef::from(&ingress.socket).send_to(message, &peer.into()).map(drop),
        };
        match sent {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SendError::QueueFull),
            Err(_) => Err(SendError::Gone),
        }
    }

    /// A flow to `target` over the socket of our `listener`, else over the first of its family.
    pub(crate) fn flow_to(&self, target: SocketAddr, listener: Option<SocketAddr>) -> Option<Flow> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        let fits = |it: &&Arc<UdpIngress>| match listener {
            Some(listener) => it.local == listener,
            None => it.local.is_ipv6() == target.is_ipv6(),
        };
        let ingress = open.sockets.iter().find(fits)?;
        let from = ingress.addresses.as_ref().and_then(|_| addresses::source_to(target));
        let (id, local) = ingress.named(target, from)?;
        Some(Flow {
            id,
            transport: Transport::Udp,
            source: target,
            local,
            certificates: Arc::default(),
            outgoing: true,
            reusable: false,
        })
    }
}

impl UdpIngress {
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Receives until the task is aborted.
    pub(crate) async fn receive(&self, inlet: &dyn Inlet, nobody: &Arc<[String]>) {
        let mut buffer = vec![0; limit::SIP_MESSAGE_BYTES.get()];
        let mut space = addresses::space();
        loop {
            match self.next(&mut buffer, &mut space).await {
                Ok(arrived) => {
                    let datagram = buffer.get(..arrived.size).unwrap_or_default();
                    if contained_call(|| self.take(inlet, nobody, &arrived, datagram)).is_none() {
                        let reason = Reason::Internal;
                        inlet.event(Event::MessageDropped { reason, transport: "udp" });
                    }
                }
                Err(_) => sleep(PAUSE_AFTER_ERROR).await,
            }
        }
    }

    async fn next(&self, buffer: &mut [u8], space: &mut [u8]) -> io::Result<Arrived> {
        if self.addresses.is_none() {
            let (size, source) = self.socket.recv_from(buffer).await?;
            return Ok(Arrived { size, source, at: None });
        }
        let receive = || addresses::receive(&self.socket, buffer, space);
        self.socket.async_io(Interest::READABLE, receive).await
    }

    fn take(&self, inlet: &dyn Inlet, nobody: &Arc<[String]>, arrived: &Arrived, datagram: &[u8]) {
        let source = arrived.source;
        // Keep-alives (RFC 5626 section 3.5.1 sends CRLFs on streams, much equipment also here)
        // and STUN, whose first two bits are zero and whose answer nobody has asked us for.
        let is_text = datagram.first().is_some_and(|first| *first >= b' ');
        let local = self.local_at(arrived.at);
        if !is_text || source.port() == 0 || !inlet.admits(source, local, Transport::Udp) {
            return;
        }
        let Some((id, local)) = self.named(source, arrived.at) else { return };
        let flow = Arc::new(Flow {
            id,
            transport: Transport::Udp,
            source,
            local,
            certificates: Arc::clone(nobody),
            outgoing: false,
            reusable: false,
        });
        if !inlet.takes(&flow) {
            return;
        }
        // Nobody waits for one peer of many.
        drop(inlet.message(&flow, Bytes::copy_from_slice(datagram)));
    }

    fn local_at(&self, address: Option<IpAddr>) -> SocketAddr {
        address.map_or(self.local, |address| SocketAddr::new(address, self.local.port()))
    }

    /// A flow's id and our address of it, where `at` is the one that it came to.
    fn named(&self, peer: SocketAddr, at: Option<IpAddr>) -> Option<(FlowId, SocketAddr)> {
        let addresses = self.addresses.as_ref();
        let number = addresses.zip(at).and_then(|(known, at)| known.number(at));
        let id = self.id_of(peer)?.0 | number.unwrap_or(0) << PEER_BITS;
        Some((FlowId(id), self.local_at(at)))
    }

    fn id_of(&self, peer: SocketAddr) -> Option<FlowId> {
        let bits = match (peer, &self.peers) {
            (SocketAddr::V4(peer), None) => {
                u64::from(peer.ip().to_bits()) << 16 | u64::from(peer.port())
            }
            (SocketAddr::V6(peer), Some(peers)) => {
                let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
                IPV6_BIT | peers.remember(peer)
            }
            _ => return None,
        };
        Some(FlowId(DATAGRAM_BIT | self.number << SOCKET_SHIFT | bits))
    }

    fn peer_of(&self, id: FlowId) -> Option<SocketAddr> {
        let bits = id.0 & PEER_MASK;
        match &self.peers {
            None => {
                let ip = Ipv4Addr::from_bits((bits >> 16) as u32);
                Some(SocketAddr::V4(SocketAddrV4::new(ip, bits as u16)))
            }
            Some(peers) => {
                let mut peers = peers.lock().unwrap_or_else(PoisonError::into_inner);
                peers.find(bits).map(SocketAddr::V6)
            }
        }
    }
}

/// Whether an id is of a UDP flow.
pub(crate) const fn is_datagram(id: FlowId) -> bool {
    id.0 & DATAGRAM_BIT != 0
}

// An id is, from the top: datagram or stream, family, socket, our address (0 where the socket has
// one or the kernel chooses), peer.
const DATAGRAM_BIT: u64 = 1 << 63;
const IPV6_BIT: u64 = 1 << 62;
const SOCKET_MASK: u64 = (1 << 8) - 1;
const SOCKET_SHIFT: u32 = PEER_BITS + ADDRESS_BITS;
const ADDRESS_BITS: u32 = 6;
const ADDRESS_MASK: u64 = (1 << ADDRESS_BITS) - 1;
const _: () = assert!(limit::TRANSPORT_UDP_ADDRESSES.value <= ADDRESS_MASK);
const _: () = assert!(limit::TRANSPORT_LISTENERS.value < SOCKET_MASK);
const PEER_BITS: u32 = 48;
const PEER_MASK: u64 = (1 << PEER_BITS) - 1;
const SLOT_BITS: u32 = 16;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const GENERATION_MASK: u64 = PEER_MASK >> SLOT_BITS;

const WAYS: usize = limit::TRANSPORT_UDP_PEERS_PER_NETWORK.get();
const SETS: usize = limit::TRANSPORT_UDP_PEERS.get() / WAYS;
const _: () = assert!(SETS.is_power_of_two() && SETS * WAYS <= 1 << SLOT_BITS);

#[derive(Debug, Default)]
struct Sockets {
    sockets: Vec<Arc<UdpIngress>>,
    next: u64,
}

/// IPv6 peers in sets, one set for a network; the least recently used of a set makes room.
#[derive(Debug)]
struct PeerTable {
    slots: Vec<Slot>,
    hasher: RandomState,
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    peer: SocketAddrV6,
    generation: u64,
    used: u64,
}

impl PeerTable {
    fn new() -> Self {
        let nobody = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
        let slots = vec![Slot { peer: nobody, generation: 0, used: 0 }; SETS * WAYS];
        Self { slots, hasher: RandomState::new(), clock: 0 }
    }

    /// The 48 bits that stand for `peer` until it is displaced.
    fn remember(&mut self, peer: SocketAddrV6) -> u64 {
        self.clock += 1;
        let network = crate::gate::network_of(IpAddr::V6(*peer.ip()));
        let set = self.hasher.hash_one(network) as usize % SETS;
        let ways = self.slots.iter_mut().enumerate().skip(set * WAYS).take(WAYS);
        // The peer itself, or else the slot that was not used for longest.
        let chosen = ways.min_by_key(|(_, slot)| (slot.peer != peer, slot.used));
        let Some((index, slot)) = chosen else { return 0 }; // a set is never empty
        if slot.peer != peer {
            slot.peer = peer;
            slot.generation = (slot.generation + 1) & GENERATION_MASK;
        }
        slot.used = self.clock;
        slot.generation << SLOT_BITS | index as u64
    }

    /// The peer that `bits` stand for, unless it was displaced.
    fn find(&mut self, bits: u64) -> Option<SocketAddrV6> {
        self.clock += 1;
        let slot = self.slots.get_mut((bits & SLOT_MASK) as usize)?;
        if slot.generation != (bits >> SLOT_BITS) & GENERATION_MASK || slot.used == 0 {
            return None;
        }
        slot.used = self.clock;
        Some(slot.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(network: u16, host: u16) -> SocketAddrV6 {
        let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, network, 0, 0, 0, host);
        SocketAddrV6::new(ip, 5060, 0, 0)
    }

    #[test]
    fn a_remembered_peer_is_found_under_a_stable_id() {
        let mut table = PeerTable::new();
        let id = table.remember(peer(1, 1));
        assert_ne!(id, table.remember(peer(1, 2)));
        assert_eq!(id, table.remember(peer(1, 1)));
        assert_eq!(table.find(id), Some(peer(1, 1)));
    }

    #[test]
    fn a_flood_from_one_network_displaces_its_own_peers_and_never_mistakes_one_for_another() {
        let mut table = PeerTable::new();
        let friends: Vec<_> = (1..=20).map(|network| table.remember(peer(network, 1))).collect();
        let displaced = table.remember(peer(1000, 1));
        for host in 2..10_000 {
            table.remember(peer(1000, host));
        }
        assert_eq!(table.find(displaced), None);
        let kept = friends.iter().filter(|id| table.find(**id).is_some()).count();
        assert!(kept >= 17, "only a shared hash costs a friend its place: {kept}");
        assert_eq!(table.slots.len(), limit::TRANSPORT_UDP_PEERS.get());
    }

    #[tokio::test]
    async fn a_flow_from_every_address_names_the_one_that_the_kernel_chooses() {
        let sockets = UdpSockets::default();
        let socket = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let ingress = sockets.open(socket).unwrap();
        let far = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let flow = sockets.flow_to(far.local_addr().unwrap(), Some(ingress.local())).unwrap();
        assert_eq!(flow.local, SocketAddr::from(([127, 0, 0, 1], ingress.local().port())));
        sockets.send(flow.id, b"hello").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(far.recv_from(&mut buffer).unwrap(), (5, flow.local));
    }

    #[test]
    fn an_id_that_nobody_gave_out_finds_nobody() {
        let mut table = PeerTable::new();
        for bits in [0, 1, PEER_MASK, SLOT_MASK, 1 << SLOT_BITS] {
            assert_eq!(table.find(bits), None);
        }
    }
}
