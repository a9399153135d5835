//! What the operator decides: where to listen, with which certificate, under which bounds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base::limit;

use crate::flow::Transport;

/// A listener: what and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ingress {
    /// What it speaks.
    pub transport: Transport,
    /// Where; port 0 takes a free one. IPv6 sockets do not take IPv4.
    pub address: SocketAddr,
}

/// All that [`crate::start`] needs.
#[derive(Clone, Debug, Default)]
pub struct TransportConfig {
    /// What is opened at the start; more may follow at run time.
    pub listeners: Vec<Ingress>,
    /// Certificate and key; without them no TLS listener opens.
    pub tls: Option<TlsFiles>,
    /// Bounds against outsiders.
    pub bounds: Bounds,
}

/// Where the TLS material lies. All files are PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Our certificate, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities whose certificates we believe: of clients, and of servers that we connect
    /// to. Without it no client certificate is asked for and no outgoing TLS comes up.
    pub authorities: Option<PathBuf>,
    /// What becomes of a client whose certificate no authority vouches for.
    pub untrusted: Untrusted,
}

/// What becomes of a client certificate that does not verify. Showing none is always allowed:
/// a trunk may be known by its network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Untrusted {
    /// The handshake fails.
    #[default]
    Refuse,
    /// The connection counts as one without a certificate.
    Ignore,
}

/// Bounds against outsiders; the defaults are those of [`base::limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open connections, both directions.
    pub connections: usize,
    /// Open connections of one source (an IPv4 address or an IPv6 /64).
    pub connections_per_source: usize,
    /// Unfinished TLS handshakes of one source.
    pub handshakes_per_source: usize,
    /// Longest TLS handshake, or for outgoing connections TCP and TLS together.
    pub handshake: Duration,
    /// Longest time from a message's first byte to its last, and for writing one.
    pub message: Duration,
    /// Longest silence of the peer.
    pub idle: Duration,
    /// How long an ending connection may take to send what is queued and to say goodbye.
    pub linger: Duration,
    /// Messages waiting to be written to one connection.
    pub queue: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: limit::TRANSPORT_CONNECTIONS.get(),
            connections_per_source: limit::TRANSPORT_CONNECTIONS_PER_SOURCE.get(),
            handshakes_per_source: limit::TRANSPORT_HANDSHAKES_PER_SOURCE.get(),
            handshake: limit::TRANSPORT_HANDSHAKE_MS.millis(),
            message: limit::TRANSPORT_MESSAGE_MS.millis(),
            idle: limit::TRANSPORT_IDLE_MS.millis(),
            linger: limit::TRANSPORT_LINGER_MS.millis(),
            queue: limit::TRANSPORT_QUEUE.get(),
        }
    }
}
