//! Zones: the sides of the network that the edge has, each with the addresses to use there. A
//! message is at the zone whose listener it came to; what comes to no zone's listener came to the
//! edge's own, which are those of `[listen]` in `callgate.toml`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use base::WallTime;
use base::diagnostic::Diagnostic;

use crate::policy::Policy;
use crate::words::Transport;

/// A side of the network: the addresses to use there. What is `None` is the edge's own default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Where its signalling arrives; where this is empty, at the edge's own listeners.
    pub listen: Vec<Listener>,
    /// The host that Via, Contact and Record-Route name.
    pub advertise: Option<String>,
    /// The local address of media.
    pub media: Option<IpAddr>,
    /// The address that session descriptions name.
    pub media_advertise: Option<IpAddr>,
    pub(crate) name: Arc<str>,
    /// Which of the policy's sources.
    pub(crate) file: usize,
}

/// A local address of signalling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What it speaks.
    pub transport: Transport,
    /// Where.
    pub address: SocketAddr,
    /// Where it stands in the zone's file.
    pub(crate) span: Range<usize>,
}

impl Policy {
    /// The addresses of a zone.
    #[must_use]
    pub fn zone(&self, name: &str) -> Option<&Zone> {
        self.zones.get(name)
    }

    /// Every zone, by name.
    pub fn zones(&self) -> impl Iterator<Item = (&str, &Zone)> {
        self.zones.iter().map(|(name, zone)| (name.as_str(), zone))
    }

    /// The zone that a message came to at our address `local`; `None` is the edge's own side.
    #[must_use]
    pub fn zone_at(&self, transport: Transport, local: SocketAddr) -> Option<&str> {
        self.name_at(transport, local).map(|name| &**name)
    }

    pub(crate) fn name_at(&self, transport: Transport, local: SocketAddr) -> Option<&Arc<str>> {
        // No two listeners overlap, so that at most one of them takes it.
        let takes = |it: &Listener| it.transport == transport && covers(it.address, local);
        self.zones.values().find(|zone| zone.listen.iter().any(takes)).map(|zone| &zone.name)
    }

    /// The listeners of zones that are open at this time: those of plaintext only while some trunk
    /// of the zone exempts them (DESIGN invariant 4.1).
    #[must_use]
    pub fn listeners(&self, wall: WallTime) -> Vec<(Transport, SocketAddr)> {
        let mut open = Vec::new();
        for zone in self.zones.values().filter(|zone| !zone.listen.is_empty()) {
            let plaintext = self.plaintext_at(Some(&zone.name), wall);
            let wanted =
                |it: &&Listener| !it.transport.is_plaintext() || plaintext.contains(&it.transport);
            open.extend(zone.listen.iter().filter(wanted).map(|it| (it.transport, it.address)));
        }
        open
    }

    /// The plaintext transports that some trunk may now use at the edge's own listeners. The
    /// sockets of the others stay closed (DESIGN invariant 4.1). UDP is among them also where a
    /// trunk is only dialled over it, because answers come back to the same socket.
    #[must_use]
    pub fn plaintext_transports(&self, wall: WallTime) -> BTreeSet<Transport> {
        self.plaintext_at(None, wall)
    }

    fn plaintext_at(&self, home: Option<&Arc<str>>, wall: WallTime) -> BTreeSet<Transport> {
        self.trunks
            .iter()
            .filter(|trunk| trunk.home.as_ref() == home)
            .filter(|trunk| trunk.signalling.as_ref().is_some_and(|it| it.runs(wall)))
            .flat_map(|trunk| {
                let dialled = trunk.send_to.iter().map(|peer| &peer.transport);
                trunk.transports.iter().chain(dialled.filter(|it| **it == Transport::Udp))
            })
            .copied()
            .filter(|transport| transport.is_plaintext())
            .collect()
    }

    /// The listeners of zones that cannot be opened beside the edge's own ones.
    #[must_use]
    pub fn collisions(&self, own: &[(Transport, SocketAddr)]) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for zone in self.zones.values() {
            let Some(source) = self.sources.get(zone.file) else { continue };
            for it in &zone.listen {
                let taken = own.iter().find(|(transport, address)| {
                    collide((*transport, *address), (it.transport, it.address))
                });
                let Some((transport, address)) = taken else { continue };
                let message = format!("[listen] of the edge has {transport} {address} already");
                let help = Some("take it out of one of the two".to_owned());
                let (name, text) = (&source.name, &source.text);
                found.push(Diagnostic::new(name, text, &it.span, message, help));
            }
        }
        found
    }
}

/// Whether two listeners cannot both be open: the same port of one family and one kind of socket,
/// where the addresses are the same or one of them is every address.
pub(crate) fn collide(a: (Transport, SocketAddr), b: (Transport, SocketAddr)) -> bool {
    let same_socket = (a.0 == Transport::Udp) == (b.0 == Transport::Udp);
    same_socket && (covers(a.1, b.1) || covers(b.1, a.1))
}

/// Whether what is sent to `local` arrives at a socket that is bound to `bound`. IPv6 sockets take
/// no IPv4.
fn covers(bound: SocketAddr, local: SocketAddr) -> bool {
    bound.port() == local.port()
        && bound.is_ipv4() == local.is_ipv4()
        && (bound.ip() == local.ip() || bound.ip().is_unspecified())
}
