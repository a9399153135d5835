//! Copies of media for whoever listens along: the transcriber and the recorder. Of a voice
//! agent's leg they are sound; of a leg that another leg hears they are the packets as they came,
//! so that nothing is decoded where they are forwarded.

use audio::Codec;
use base::Instant;

/// Samples per second of a tap.
pub const TAP_RATE: u32 = 16_000;

/// Samples in one frame: 20 ms at [`TAP_RATE`].
pub const FRAME_SAMPLES: usize = 320;

/// Whose voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// The caller's, as decoded (left in a recording).
    Caller,
    /// The voice agent's, as sent (right in a recording).
    Agent,
}

/// 20 ms of one voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapFrame {
    /// Whose voice.
    pub channel: Channel,
    /// Samples at [`TAP_RATE`] from the session's first plan to the frame's first sample.
    pub position: u64,
    /// Whether the voice detector hears speech (always `false` for the agent's channel).
    pub speech: bool,
    /// Whether the audio came through a codec that carries nothing above 4 kHz.
    pub narrowband: bool,
    /// The samples.
    pub samples: [i16; FRAME_SAMPLES],
}

/// The longest payload that is copied: of Opus (RFC 6716 section 3.4).
pub const TAP_PAYLOAD_BYTES: usize = 1_275;

/// What a tapped packet holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapKind {
    /// Sound.
    Sound(Codec),
    /// The description of a silence (RFC 3389).
    Noise,
}

/// A packet as it came from a leg's peer.
#[derive(Clone, Copy, Debug)]
pub struct TapPacket {
    /// When it came.
    pub at: Instant,
    /// Who sent it.
    pub ssrc: u32,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, on the clock of its codec.
    pub timestamp: u32,
    /// Marker bit.
    pub marker: bool,
    /// What it holds.
    pub kind: TapKind,
    /// Bytes of the payload, at most [`TAP_PAYLOAD_BYTES`].
    pub length: u16,
    /// The payload, and whatever behind it.
    pub bytes: [u8; TAP_PAYLOAD_BYTES],
}

impl TapPacket {
    /// The payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}
