//! The vocabulary between this member and whoever assembles the edge: a [`Flow`] is where a
//! message came from and where its answer goes; an [`Inlet`] is what messages are handed to.

use core::fmt;
use core::pin::Pin;
use std::net::SocketAddr;
use std::sync::Arc;

use base::{Event, Reason};
use bytes::Bytes;
use sip::{FlowId, ParseFailure};

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// Datagrams in plaintext.
    Udp,
    /// A stream in plaintext.
    Tcp,
    /// A stream under TLS.
    Tls,
    /// A WebSocket under TLS (RFC 7118); carried by [`crate::TransportHandle::carry`].
    Wss,
    /// A WHIP session (RFC 9725), which the HTTP member speaks SIP for; carried likewise.
    Whip,
}

impl Transport {
    /// The word in policies, events and a URI's `transport` parameter.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Wss => "wss",
            Self::Whip => "whip",
        }
    }

    /// Whether an onlooker can read it.
    #[must_use]
    pub const fn is_plaintext(self) -> bool {
        matches!(self, Self::Udp | Self::Tcp)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One connection, or one peer of a UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its name, for answers.
    pub id: FlowId,
    /// What carries it.
    pub transport: Transport,
    /// The peer's address as seen here (RFC 3581: where answers go).
    pub source: SocketAddr,
    /// Our address of it.
    pub local: SocketAddr,
    /// DNS names (lower case) and URIs of the peer's verified certificate; empty where it
    /// showed none or one that we do not trust.
    pub certificates: Arc<[String]>,
    /// Whether we opened it.
    pub outgoing: bool,
    /// Whether the peer may send requests of its own over it, although we opened it: it is TLS,
    /// and we have a certificate to show there (RFC 5923 section 5).
    pub reusable: bool,
}

/// Ends when a message that had to wait has been handed on.
pub type HandedOn = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What messages are handed to. Every method is called from a task of this member, must not
/// block, and may call the [`crate::TransportHandle`]; a panic in it ends one connection.
pub trait Inlet: Send + Sync + 'static {
    /// Whether a peer may talk to us at our address `local`: asked at accept (before TLS) and for
    /// each datagram, before anything is allocated for it. The place to limit how often a source
    /// may connect.
    fn admits(&self, source: SocketAddr, local: SocketAddr, transport: Transport) -> bool;

    /// A connection was refused or given up before it had a flow, for a reason of ours.
    fn turned_away(&self, source: SocketAddr, transport: Transport, reason: Reason) {
        let _ = (source, transport, reason);
    }

    /// Whether the next message of a flow is taken, asked before [`Inlet::message`]; the place
    /// for a cheap rate limit per source. A message that is not taken is dropped.
    fn takes(&self, flow: &Flow) -> bool {
        let _ = flow;
        true
    }

    /// One whole SIP message; of UDP, a datagram as it came (its length decides nothing here,
    /// RFC 3261 section 18.3 is the parser's). `Some` where it has to wait: a stream is not read on
    /// before that has ended, so that its peer slows down. Of UDP, `None`.
    fn message(&self, flow: &Arc<Flow>, message: Bytes) -> Option<HandedOn>;

    /// A stream that can no longer be told apart into messages and is closed after this. Returns
    /// the answer to send before, if any ([`ParseFailure::response`] makes one).
    fn malformed(&self, flow: &Arc<Flow>, failure: &ParseFailure) -> Option<Bytes>;

    /// A stream is gone, or an outgoing one never came up. Never called for UDP peers.
    fn closed(&self, flow: FlowId);

    /// The peer of a stream has said that it is gone for good and comes back on no other;
    /// [`Inlet::closed`] follows. Only carried ones can.
    fn left(&self, _flow: FlowId) {}

    /// Something to count or log.
    fn event(&self, event: Event);
}
