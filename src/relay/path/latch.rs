//! Stage: where the peer is. Its SDP says where it hopes to be; packets tell (DESIGN 4.3).
//!
//! SRTP: an authentic packet that is the newest of its source moves the latch at once; a copy
//! that somebody replays from elsewhere is no newer. Plain RTP proves nothing, so there the first
//! source within the networks stays until it has been silent while another sends steadily;
//! whoever can spoof an address inside an exempted network can still take a silent one's place.
//!
//! Where ICE finds the peer the latch is pinned: only ICE moves it.

use std::net::SocketAddr;

use base::limit;
use rtp::ice::Route;

use super::Port;

/// Where we send.
#[derive(Clone, Debug)]
pub(crate) struct Latch {
    /// From the SDP.
    told: SocketAddr,
    learnt: Option<SocketAddr>,
    /// Another source of plain RTP: address, last sequence number, packets in order.
    candidate: Option<(SocketAddr, u16, u8)>,
    /// Packets sent to `told` before anything was learnt.
    sent: u64,
    /// ICE says where we send, and by which way, as [`Port::of_route`] numbers them.
    pinned: Option<u32>,
}

/// What a packet did to the latch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Latched {
    /// It came from where we send.
    Same,
    /// It is older than others, from elsewhere; it may be heard but moves nothing.
    Elsewhere,
    /// We send to its source from now on; `true` where an earlier one was known.
    Moved(bool),
    /// Plain RTP from a second source.
    Stranger,
}

impl Latch {
    pub(crate) const fn new(told: SocketAddr) -> Self {
        Self { told, learnt: None, candidate: None, sent: 0, pinned: None }
    }

    /// Sends where ICE says from now on, and nowhere where it says nothing.
    pub(crate) fn pin(&mut self, route: Option<Route>) {
        self.learnt = route.map(|route| route.remote);
        self.pinned = Some(route.map_or(0, |route| route.socket));
    }

    /// What the next packet leaves by, where `port` is what it leaves by without ICE.
    pub(crate) const fn port(&self, port: Port) -> Port {
        match self.pinned {
            Some(0) | None => port,
            Some(way) => Port::of_route(way),
        }
    }

    /// Takes the SDP's address; another one than before must be proven anew.
    pub(crate) fn tell(&mut self, told: SocketAddr) {
        if told != self.told && self.pinned.is_none() {
            *self = Self::new(told);
        }
    }

    pub(crate) const fn is_latched(&self) -> bool {
        self.learnt.is_some()
    }

    /// An authentic packet from `source`.
    pub(crate) fn authentic(&mut self, source: SocketAddr, newest: bool) -> Latched {
        if self.learnt == Some(source) {
            Latched::Same
        } else if newest && self.pinned.is_none() {
            Latched::Moved(self.learnt.replace(source).is_some())
        } else {
            Latched::Elsewhere
        }
    }

    /// A plain packet from `source`, which is inside the networks.
    pub(crate) fn plain(&mut self, source: SocketAddr, sequence: u16) -> Latched {
        let Some(learnt) = self.learnt else {
            self.learnt = Some(source);
            return Latched::Moved(false);
        };
        if learnt == source {
            self.candidate = None;
            return Latched::Same;
        }
        let steady = match self.candidate {
            // RFC 3550 appendix A.1: a source is valid once its numbers follow each other.
            Some((known, last, count))
                if known == source && (1..=3).contains(&sequence.wrapping_sub(last)) =>
            {
                count + 1
            }
            // Two strangers undo each other's progress: none of them is steady alone.
            Some((known, last, count)) if known != source && count > 1 => {
                self.candidate = Some((known, last, count - 1));
                return Latched::Stranger;
            }
            _ => 1,
        };
        if u64::from(steady) < limit::RELAY_STEADY_PACKETS.value {
            self.candidate = Some((source, sequence, steady));
            return Latched::Stranger;
        }
        self.candidate = None;
        self.learnt = Some(source);
        Latched::Moved(true)
    }

    /// Plain RTCP from `source`: it is the peer's as far as that host is where its RTP comes from.
    pub(crate) fn beside(&mut self, rtp: &Self, source: SocketAddr) {
        let is_there = rtp.learnt.is_some_and(|learnt| learnt.ip() == source.ip());
        if is_there && self.pinned.is_none() {
            self.learnt = Some(source);
        }
    }

    /// Whether the SDP's address for RTCP is in vain: RTP has shown that the peer is at another
    /// host than it thinks, behind a NAT, and RTCP has not come yet.
    pub(crate) fn is_in_vain(&self, rtp: &Self) -> bool {
        let is_behind_nat = rtp.learnt.is_some_and(|learnt| learnt.ip() != rtp.told.ip());
        self.learnt.is_none() && is_behind_nat && self.told.ip() == rtp.told.ip()
    }

    /// Where the next packet goes; `None` once an address that has proved nothing was sent
    /// `relay.unlatched_packets`, so that we are no reflector.
    pub(crate) fn destination(&mut self) -> Option<SocketAddr> {
        if let Some(learnt) = self.learnt {
            return Some(learnt);
        }
        let is_over = self.sent >= limit::RELAY_UNLATCHED_PACKETS.value || self.pinned.is_some();
        if is_over || !is_sendable(self.told) {
            return None;
        }
        self.sent += 1;
        Some(self.told)
    }
}

/// Whether one may send there at all: port 0 and the unspecified address (old-style hold) say no.
fn is_sendable(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn only_the_newest_authentic_packet_moves_it() {
        let mut latch = Latch::new(at(1));
        assert_eq!(latch.authentic(at(2), true), Latched::Moved(false));
        assert_eq!(latch.authentic(at(3), false), Latched::Elsewhere);
        assert_eq!(latch.destination(), Some(at(2)));
        assert_eq!(latch.authentic(at(3), true), Latched::Moved(true));
        assert_eq!(latch.destination(), Some(at(3)));
    }

    #[test]
    fn plain_rtcp_is_where_rtp_comes_from_and_nowhere_before_behind_a_nat() {
        let [private, public] = [[10, 0, 0, 7], [203, 0, 113, 7]];
        let at = |host, port| SocketAddr::from((host, port));
        let (mut rtp, mut rtcp) = (Latch::new(at(private, 8)), Latch::new(at(private, 9)));
        rtcp.beside(&rtp, at(public, 5));
        assert!(!rtcp.is_latched() && !rtcp.is_in_vain(&rtp), "nothing is known yet");
        rtp.plain(at(public, 4), 1);
        assert!(rtcp.is_in_vain(&rtp));
        rtcp.beside(&rtp, at([198, 51, 100, 1], 5));
        assert!(!rtcp.is_latched(), "another host");
        for port in [5, 6] {
            rtcp.beside(&rtp, at(public, port));
            assert_eq!(rtcp.destination(), Some(at(public, port)));
        }
        assert!(!rtcp.is_in_vain(&rtp));
        // Who is where it says, or says that its RTCP is elsewhere, is believed.
        let mut there = Latch::new(at(public, 8));
        there.plain(at(public, 8), 1);
        assert!(!Latch::new(at(public, 9)).is_in_vain(&there));
        assert!(!Latch::new(at([192, 0, 2, 9], 9)).is_in_vain(&rtp));
    }

    #[test]
    fn an_unproven_address_hears_a_limited_number_of_packets() {
        let mut latch = Latch::new(at(1));
        let sent = (0..5_000).filter(|_| latch.destination() == Some(at(1))).count();
        assert_eq!(sent, limit::RELAY_UNLATCHED_PACKETS.get());
        latch.authentic(at(1), true);
        assert_eq!(latch.destination(), Some(at(1)));
        assert_eq!(Latch::new(SocketAddr::from(([0, 0, 0, 0], 4000))).destination(), None);
    }

    #[test]
    fn a_plain_latch_moves_only_when_its_source_is_silent_and_another_is_steady() {
        let mut latch = Latch::new(at(1));
        assert_eq!(latch.plain(at(1), 0), Latched::Moved(false));
        for sequence in 0..100 {
            assert_eq!(latch.plain(at(2), 500 + sequence), Latched::Stranger);
            assert_eq!(latch.plain(at(1), 1 + sequence), Latched::Same);
        }
        for sequence in 0..100u16 {
            assert_eq!(latch.plain(at(2), sequence.wrapping_mul(999)), Latched::Stranger);
        }
        let moved =
            (0..20).map(|n| latch.plain(at(2), 60_000 + n)).filter(|l| *l == Latched::Moved(true));
        assert_eq!(moved.count(), 1);
    }

    #[test]
    fn a_pinned_latch_is_moved_by_ice_alone() {
        let mut latch = Latch::new(at(1));
        latch.pin(None);
        assert_eq!(latch.destination(), None);
        assert_eq!(latch.authentic(at(2), true), Latched::Elsewhere);
        latch.pin(Some(Route { socket: 0, remote: at(3) }));
        latch.tell(at(9));
        assert_eq!(latch.authentic(at(2), true), Latched::Elsewhere);
        assert_eq!(latch.authentic(at(3), true), Latched::Same);
        assert_eq!((latch.destination(), latch.port(Port::Rtp)), (Some(at(3)), Port::Rtp));
        latch.pin(Some(Route { socket: 7, remote: at(3) }));
        assert_eq!(latch.port(Port::Rtp), Port::Stream(7));
    }

    #[test]
    fn another_address_in_the_sdp_is_to_be_proven_anew() {
        let mut latch = Latch::new(at(1));
        latch.authentic(at(2), true);
        latch.tell(at(1));
        assert!(latch.is_latched());
        latch.tell(at(7));
        assert_eq!((latch.is_latched(), latch.destination()), (false, Some(at(7))));
    }
}
