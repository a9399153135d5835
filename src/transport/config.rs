//! What the operator decides: where to listen, with which certificate, under which bounds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base::limit;

use crate::flow::Transport;
use crate::resolve::NameServers;

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
    /// Who is asked for names.
    pub names: NameServers,
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
    /// to. Without it no client certificate is asked for.
    pub authorities: Option<PathBuf>,
    /// Whether the system's authorities vouch for servers that we connect to as well.
    pub system: bool,
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
    /// Open connections for browsers and WHIP sessions of one source, which are not counted with
    /// those above.
    pub browsers_per_source: usize,
    /// Unfinished TLS handshakes of one source.
    pub handshakes_per_source: usize,
    /// TLS handshakes that one source may begin in a second.
    pub handshakes_per_second: usize,
    /// Longest TLS handshake of a connection that we accept.
    pub handshake: Duration,
    /// Longest wait for a connection that we open, TLS included.
    pub connect: Duration,
    /// Open connections that one trunk made us open.
    pub connections_per_trunk: usize,
    /// Between our keep-alives on connections that we opened; each waits for 80 to 100 % of it.
    pub ping: Duration,
    /// Longest wait for the answer to one.
    pub pong: Duration,
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
            browsers_per_source: limit::TRANSPORT_BROWSERS_PER_SOURCE.get(),
            handshakes_per_source: limit::TRANSPORT_HANDSHAKES_PER_SOURCE.get(),
            handshakes_per_second: limit::TRANSPORT_HANDSHAKES_PER_SECOND.get(),
            handshake: limit::TRANSPORT_HANDSHAKE_MS.millis(),
            connect: limit::TRANSPORT_CONNECT_MS.millis(),
            connections_per_trunk: limit::TRANSPORT_CONNECTIONS_PER_TRUNK.get(),
            ping: limit::TRANSPORT_PING_MS.millis(),
            pong: limit::TRANSPORT_PONG_MS.millis(),
            message: limit::TRANSPORT_MESSAGE_MS.millis(),
            idle: limit::TRANSPORT_IDLE_MS.millis(),
            linger: limit::TRANSPORT_LINGER_MS.millis(),
            queue: limit::TRANSPORT_QUEUE.get(),
        }
    }
}
