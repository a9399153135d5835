//! The browser's end of media: ICE checks as the controlling side, a DTLS handshake by
//! `webrtc-dtls`, and SRTP keys out of it. Without signalling, which `run/browser.rs` and benches
//! have.
//!
//! The path: [`Peer`] (out of the far end's description) -> [`connect`]: a check that nominates
//! (RFC 8445), then the handshake (RFC 5763), then [`Secured`]. Afterwards the owner keeps the
//! path open with [`Checks`] (RFC 7675).
//!
//! Only one address of the far end is tried, the first one; nothing is gathered, and nothing is
//! relayed.

mod certificate;
mod check;
mod handshake;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::Instant;
use tokio::sync::Notify;

pub use certificate::{Certificate, Fingerprint};
pub use check::{Checks, check};
pub use handshake::{Secured, connect};
pub use rtp::ice::Credentials;

/// How long checks and handshake together may take.
pub const WITHIN: Duration = Duration::from_secs(10);

/// Where the far end is and who it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its first candidate over UDP, or the address in its media line.
    pub address: SocketAddr,
    /// Of its ICE agent; `None` where it wants no checks.
    pub credentials: Option<Credentials>,
    /// Of its certificate.
    pub fingerprint: Fingerprint,
    /// Whether we begin the handshake (RFC 8842 section 5.3).
    pub is_passive: bool,
}

/// Why there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No check was answered in time.
    #[error("no ICE check was answered")]
    NoPath,
    /// The far end refused a check.
    #[error("an ICE check was refused with {0}")]
    Refused(u16),
    /// The handshake did not end in time.
    #[error("the DTLS handshake took too long")]
    Timeout,
    /// The far end's certificate is not the one of its description.
    #[error("the certificate is not the one of the fingerprint")]
    Fingerprint,
    /// The handshake failed.
    #[error("the DTLS handshake failed")]
    Handshake,
    /// No SRTP profile was agreed on.
    #[error("no SRTP profile was agreed on")]
    Profile,
    /// The socket failed, or no certificate could be used.
    #[error("a socket or a certificate of ours cannot be used")]
    Own,
}

impl Failure {
    /// The stable code for reports.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::NoPath => "ice.no_path",
            Self::Refused(_) => "ice.refused",
            Self::Timeout => "dtls.timeout",
            Self::Fingerprint => "dtls.fingerprint",
            Self::Handshake => "dtls.failed",
            Self::Profile => "dtls.profile",
            Self::Own => "load.no_handshake",
        }
    }
}

/// A packet that came before there were keys, and when.
pub(crate) type Early = (Instant, SocketAddr, Vec<u8>);

/// What a browser's media needs beyond SRTP, once there are keys.
pub(crate) struct Upkeep {
    pub(crate) checks: Option<Checks>,
    pub(crate) early: Vec<Early>,
    /// Told when the far end says goodbye to DTLS.
    pub(crate) left: Arc<Notify>,
}
