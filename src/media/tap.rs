//! Copies of media for whoever listens along: the transcriber and the recorder.

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
