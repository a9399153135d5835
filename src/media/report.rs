//! What did flow: events while a session lives, and its quality.

use std::net::SocketAddr;
use std::time::Duration;

use rtp::Impairment;
use rtp::sdes::Suite;

use crate::plan::Reserved;

/// Why an agent's speech was cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// The caller spoke.
    BargeIn,
    /// The agent was told to stop.
    Told,
}

/// Something that happened at a session. Positions count samples at
/// [`crate::tap::TAP_RATE`] since the session's first plan.
#[derive(Clone, Debug, PartialEq)]
pub enum MediaEvent {
    /// The ports are found.
    Reserved(Reserved),
    /// No port is free, or the worker is full.
    ReserveFailed {
        /// `true` where the port range is used up, `false` where the worker is full.
        ports: bool,
    },
    /// The peer's source was learnt, or learnt anew.
    Latched {
        /// The source; identifies a person's network, so it is not logged.
        source: SocketAddr,
        /// Whether an earlier one was known.
        moved: bool,
    },
    /// The DTLS handshake is complete and the peer is who its fingerprint says: from now on
    /// media flows. Told once for each handshake.
    Secured {
        /// What was agreed on.
        suite: Suite,
    },
    /// There will be no keys: the leg can never be heard.
    Unsecured {
        /// The stable code of what failed, as in `dtls.fingerprint`.
        code: &'static str,
    },
    /// ICE has not heard the peer for so long that its path is lost, or never heard it at all
    /// (RFC 7675).
    PathLost,
    /// No authenticated packet for the plan's `inactive`; repeated each time that it passes.
    Inactive,
    /// A key was pressed.
    Digit {
        /// `0`-`9`, `*`, `#`, `A`-`D`.
        digit: char,
        /// How long it has been down when reported, as far as known.
        duration: Duration,
    },
    /// The caller begins to speak.
    SpeechStarted {
        /// Where the speech begins (before the decision).
        position: u64,
    },
    /// The caller has stopped, after the detector's hangover.
    SpeechEnded {
        /// Where the speech ended.
        position: u64,
    },
    /// The first sample of a speech was sent.
    PlayoutStarted {
        /// Which speech.
        speech: u32,
        /// Where.
        position: u64,
    },
    /// The last sample of a speech was sent.
    PlayoutFinished {
        /// Which speech.
        speech: u32,
        /// Where.
        position: u64,
    },
    /// A speech was cut; no sample of it follows.
    PlayoutStopped {
        /// Which speech.
        speech: u32,
        /// Samples of it that were sent.
        played: u64,
        /// Where.
        position: u64,
        /// Why.
        cause: StopCause,
    },
    /// How the leg is doing; each [`REPORT_EVERY`], and once after its release.
    Report {
        /// The figures.
        quality: Quality,
        /// Whether it is the last one.
        last: bool,
    },
}

/// How often a leg reports how it is doing.
pub const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How a leg's media is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// RTP packets accepted.
    pub received: u64,
    /// RTP packets missing, by sequence numbers.
    pub lost: u64,
    /// Packets that came too late to be heard.
    pub late: u64,
    /// Packets dropped for any reason of the path (not authentic, replayed, unknown type ...).
    pub dropped: u64,
    /// Interarrival jitter, RFC 3550 section 6.4.1.
    pub jitter: Duration,
    /// Present delay of the jitter buffer.
    pub delay: Duration,
    /// RTP packets sent.
    pub sent: u64,
    /// Loss that the peer reports of what we send, 0 to 1.
    pub remote_loss: f32,
    /// Jitter that the peer reports.
    pub remote_jitter: Duration,
    /// Round trip by RTCP, once known.
    pub round_trip: Option<Duration>,
    /// Estimated mean opinion score of what we hear, 1 to 4.5 (ITU-T G.107); `None` of a codec
    /// whose impairment is not known.
    pub mos: Option<f32>,
    /// What the codec costs, for scores of parts of the call; `None` where `mos` is.
    pub impairment: Option<Impairment>,
    /// 20 ms frames that had to be concealed.
    pub concealed: u64,
}
