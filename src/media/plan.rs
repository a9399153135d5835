//! What must flow on a leg.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use audio::Codec;
use base::{LegId, Random};
use ipnet::IpNet;
use rtp::ice::Credentials;
use rtp::sdes::{KeySalt, Suite};
use sdp::Opaque;

use crate::bridge::Bridge;
use crate::dtls::{DtlsBackend, DtlsRole, Fingerprint};

/// What the relay has to find before an answer can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Local address of the zone, which the ports are bound to.
    pub bind: IpAddr,
    /// With `dtls` and without `separate_rtcp`: an address of the other family, for the same port
    /// there. ICE finds out which of both the peer reaches; one that cannot be had is left out.
    pub beside: Option<IpAddr>,
    /// Whether a port of its own is wanted for RTCP; `false` where rtcp-mux is agreed on or
    /// still possible. RTP is even and RTCP the next port (RFC 3550 section 11).
    pub separate_rtcp: bool,
    /// Whether keys come from a DTLS handshake on the media path ([`Protection::Dtls`]): then one
    /// of our certificates is chosen for it.
    pub dtls: bool,
    /// With `dtls`: whether that certificate is made for this leg alone. A peer that knows another
    /// association of ours under a certificate takes the same one for the same association.
    pub fresh_identity: bool,
}

/// What the relay found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Where we receive RTP; its address is the local one, the call writes the advertised one.
    pub rtp: SocketAddr,
    /// Where we receive RTCP, if that is not the same port.
    pub rtcp: Option<SocketAddr>,
    /// Where we receive the same as at `rtp` in the other family, if that was asked for.
    pub beside: Option<SocketAddr>,
    /// Where ICE-TCP is listened for (RFC 6544), if it is and [`Need::dtls`] was asked for.
    pub ice_tcp: Vec<SocketAddr>,
    /// Of the certificate that a handshake on this leg shows, where [`Need::dtls`] was asked for.
    pub fingerprint: Option<Fingerprint>,
}

/// Which ways media flows, as we see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direction {
    /// We send to the party.
    pub send: bool,
    /// We listen to the party.
    pub receive: bool,
}

impl Direction {
    /// Both ways.
    pub const BOTH: Self = Self { send: true, receive: true };
}

/// How a leg's packets are protected.
#[derive(Clone, Debug)]
pub enum Protection {
    /// SRTP under keys that the signalling exchanged (RFC 4568).
    Srtp {
        /// Cipher and tag of both directions.
        suite: Suite,
        /// Key of what we send.
        send: KeySalt,
        /// Key of what we receive.
        receive: KeySalt,
    },
    /// Plain RTP by exemption; only packets from these networks are taken (DESIGN 4.3).
    Plain {
        /// The trunk's `media_from`.
        from: Vec<IpNet>,
    },
    /// SRTP under keys of a DTLS handshake on the media path (RFC 5763, RFC 5764), with a peer that
    /// ICE finds. Nothing is heard or sent before [`crate::MediaEvent::Secured`].
    Dtls(Box<Handshake>),
}

/// How a leg is found by ICE, and what its DTLS handshake is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Our side of the handshake.
    pub role: DtlsRole,
    /// The peer's certificate.
    pub peer: Fingerprint,
    /// Who does the handshake.
    pub backend: DtlsBackend,
    /// What the peer's checks are signed with. Other credentials than before restart ICE; the
    /// handshake and its keys go on (RFC 8445 section 9, RFC 8842 section 5.5).
    pub local: Credentials,
    /// The peer's, of whose checks ours answer.
    pub remote: Credentials,
}

/// A codec that is decoded and made here, under a payload type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// The codec.
    pub codec: Codec,
    /// RTP payload type, 0 to 127.
    pub payload_type: u8,
    /// Milliseconds of audio per packet that we send: 10, 20, 30, 40 or 60.
    pub packet_ms: u8,
    /// Opus: whether we may leave out silence (DTX, RFC 7587 `usedtx`).
    pub dtx: bool,
    /// Opus: most bits per second that the peer wants, 0 for no wish (`maxaveragebitrate`).
    pub bitrate: u32,
}

/// A codec that goes through undecoded, under its payload types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpaqueFormat {
    /// What both sides mean by it.
    pub codec: Opaque,
    /// Payload type that we send.
    pub send: u8,
    /// Payload type that we expect.
    pub receive: u8,
}

/// Telephone events as agreed with the peer (RFC 4733).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// Payload type that we send.
    pub send: u8,
    /// Payload type that we expect.
    pub receive: u8,
    /// RTP clock in Hz, of both.
    pub clock_rate: u32,
}

/// Comfort noise as agreed with the peer (RFC 3389), on the clock of 8 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComfortNoise {
    /// Payload type that we send.
    pub send: u8,
    /// Payload type that we expect.
    pub receive: u8,
}

/// The identity of what we send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    /// Synchronisation source.
    pub ssrc: u32,
    /// First sequence number; below 2^15, so that a lost first packet cannot hide a roll-over
    /// from the receiver (RFC 3711 section 3.3.1).
    pub sequence: u16,
    /// First timestamp.
    pub timestamp: u32,
    /// Canonical name in RTCP; random, since a real one would identify us (RFC 7022).
    pub cname: [u8; 12],
}

impl SourceIdentity {
    /// A fresh identity.
    pub fn random(random: &mut dyn Random) -> Self {
        let mut cname = [0; 12];
        random.fill(&mut cname);
        for byte in &mut cname {
            *byte = b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(*byte & 31)];
        }
        Self {
            ssrc: random.u32().max(1),
            sequence: (random.u32() & 0x7fff) as u16,
            timestamp: random.u32(),
            cname,
        }
    }
}

/// When the caller's voice stops the agent's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BargeIn {
    /// How certain it must be that the caller has begun to speak, 0 to 1; see
    /// [`audio::Voice::certainty`]. Lower is sooner and more often wrong.
    pub threshold: f32,
    /// Quietest speech that counts, in dB below full scale (negative).
    pub floor_dbfs: f32,
}

impl Default for BargeIn {
    /// Decides within 200 ms of onset (DESIGN section 6), yet not on a click or a breath.
    fn default() -> Self {
        Self { threshold: 0.5, floor_dbfs: -50.0 }
    }
}

/// What the leg's media is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    /// A voice agent listens and speaks.
    Agent {
        /// When its speech stops for the caller's; `None` lets it finish.
        barge_in: Option<BargeIn>,
    },
    /// Another leg of the same call hears what this one says; `None` until that leg has a plan,
    /// while what arrives is counted and dropped.
    Bridge(Option<Bridge>),
}

/// What must flow on one leg. Applying a new plan to a session that flows changes only what
/// differs; SRTP contexts, sequence numbers and timestamps go on where the keys are the same.
#[derive(Clone, Debug)]
pub struct LegPlan {
    /// The leg.
    pub leg: LegId,
    /// Where the peer's SDP says it receives RTP.
    pub remote: SocketAddr,
    /// Where it receives RTCP; `None` with rtcp-mux (RFC 5761).
    pub remote_rtcp: Option<SocketAddr>,
    /// Which ways media flows.
    pub direction: Direction,
    /// How packets are protected.
    pub protection: Protection,
    /// What we make; `None` where the peer takes nothing that is made here.
    pub send: Option<Format>,
    /// Whatever else the peer takes, under the payload types that it expects; `send` is the first.
    pub sendable: Vec<Format>,
    /// What we take, under the payload types that we expect; other packets are dropped.
    pub accept: Vec<Format>,
    /// What goes through undecoded, to a leg that has it too.
    pub opaque: Vec<OpaqueFormat>,
    /// Telephone events (RFC 4733), where both sides take them.
    pub telephone_event: Option<TelephoneEvent>,
    /// Comfort noise (RFC 3389), where both sides take it: its payload types.
    pub comfort_noise: Option<ComfortNoise>,
    /// Longest time without authenticated RTP or RTCP before [`crate::MediaEvent::Inactive`].
    pub inactive: Duration,
    /// Identity of what we send.
    pub source: SourceIdentity,
    /// What the media is for.
    pub purpose: Purpose,
}

impl LegPlan {
    /// The RTP clock that the leg begins with, in Hz.
    #[must_use]
    pub fn clock_rate(&self) -> u32 {
        let opaque = || self.opaque.first().map(|format| format.codec.clock_rate);
        let made = self.send.map(|format| format.codec.clock_rate());
        made.or_else(opaque).unwrap_or(8_000)
    }

    /// Whether all that may come can be decoded here.
    #[must_use]
    pub fn is_decodable(&self) -> bool {
        self.opaque.is_empty() && !self.accept.is_empty()
    }

    /// Whether the codec that we send carries nothing above 4 kHz.
    #[must_use]
    pub const fn is_narrowband(&self) -> bool {
        matches!(self.send, Some(Format { codec: Codec::Pcmu | Codec::Pcma, .. }))
    }
}
