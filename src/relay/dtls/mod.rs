//! DTLS-SRTP (RFC 5763, RFC 5764): handshakes that yield SRTP keys, on a thread of their own.
//!
//! An [`Association`] is one peer's DTLS, without a socket: datagrams in, datagrams and at last
//! [`Keys`] or a [`Failure`] out. Behind it is one of two libraries ([`media::DtlsBackend`]), which
//! never sees what the [guard] has not let through. [`Handshakes`] is the thread that runs them
//! all; a relay worker hands it datagrams and gets answers through a [`DtlsSink`].
//!
//! `dimpl` speaks DTLS 1.3 (RFC 9147) and 1.2 (RFC 6347), `webrtc-dtls` 1.2. A ClientHello whose
//! order of SRTP suites would bring a worse one in 1.3 is answered in 1.2, where we choose.
//!
//! Keys are given out once the peer's certificate is the one that its fingerprint in SDP names.
//! The association outlives the handshake: it repeats a last flight that was lost, and tells of a
//! `close_notify`, which is not the end of a call: signalling decides that.
//!
//! It keeps no socket, trusts no certificate but by fingerprint, resumes no session, begins no
//! handshake anew and carries no application data.

mod assemble;
mod association;
mod by_dimpl;
mod by_webrtc;
pub mod guard;
mod handshakes;
mod identity;
mod keys;
mod record;

pub use association::{Association, Backends, Output, Setup};
pub use by_webrtc::Wake;
pub use handshakes::{
    DtlsCounters, DtlsCounts, DtlsHandle, DtlsSink, HandshakeId, Handshakes, Lost, News,
};
pub use identity::{Identities, Identity, IdentityError, is_of};
pub use keys::Keys;

pub(crate) use keys::PREFERENCE;

/// Why a handshake ended without keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// The peer's certificate is not the one that its fingerprint names.
    #[error("the peer's certificate is not the one of its fingerprint")]
    Fingerprint,
    /// It was not complete within limit `dtls.handshake_ms`.
    #[error("the handshake was not complete in time")]
    Timeout,
    /// The peer offers or chooses no SRTP protection profile that is allowed.
    #[error("no common SRTP protection profile")]
    Profile,
    /// The peer gave up, with this alert (RFC 5246 section 7.2).
    #[error("the peer sent alert {0}")]
    Alert(u8),
    /// The peer sent more than a handshake needs.
    #[error("the peer sent more than a handshake needs")]
    Flood,
    /// The peer broke the protocol, or wants what is not spoken here.
    #[error("the peer broke the protocol or wants what is not spoken here")]
    Protocol,
    /// More handshakes or associations than `dtls.handshakes` and `dtls.associations` allow.
    #[error("too many handshakes")]
    Full,
    /// A fault of ours.
    #[error("a fault of ours")]
    Fault,
}

impl Failure {
    /// The stable code, for logs and metrics.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Fingerprint => "dtls.fingerprint",
            Self::Timeout => "dtls.timeout",
            Self::Profile => "dtls.profile",
            Self::Alert(_) => "dtls.alert",
            Self::Flood => "dtls.flood",
            Self::Protocol => "dtls.protocol",
            Self::Full => "dtls.full",
            Self::Fault => "dtls.fault",
        }
    }
}

#[cfg(test)]
#[path = "association_tests.rs"]
pub(crate) mod association_tests;
#[cfg(test)]
mod handmade;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile_tests;
#[cfg(test)]
#[path = "openssl_tests.rs"]
mod openssl_tests;
