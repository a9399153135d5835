//! What policy answers. Stored with every call.

use core::fmt;
use core::time::Duration;

use base::{Reason, TrunkName, VoiceAgentName, limit};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::statuses::Statuses;
use crate::wire;
use crate::words::{Codec, DtlsLibrary, DtmfMethod, Keep, Protection, RingBack, Suite, Transfer};

/// Whether a peer may speak at all, before anything it says is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The peer is this trunk.
    Trunk(TrunkName),
    /// The peer is refused; no transaction is made for it.
    Refused {
        /// Why.
        reason: Reason,
        /// The trunk whose networks and certificates match, where only the transport does not.
        trunk: Option<TrunkName>,
        /// Whether the peer may learn the reason (a known trunk: `Warning: 399`).
        tell: bool,
        /// Whether nothing is sent back.
        silent: bool,
    },
}

/// The answer to an INVITE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The policy's version, see [`crate::Policy::version`].
    pub policy_version: u64,
    /// A hash of the policy's texts, see [`crate::Policy::fingerprint`]: the version starts anew
    /// with the process, this does not.
    pub policy_fingerprint: String,
    /// The trunk that the caller is, also where it is refused but known.
    #[serde(with = "wire::some_trunk")]
    pub trunk: Option<TrunkName>,
    /// The route that decided, counted from 1 in the order of the files.
    pub route: Option<u32>,
    /// The name of that route, where it has one.
    pub route_name: Option<String>,
    /// Accept or refuse.
    pub verdict: Verdict,
    /// What to mark the call with.
    pub notes: Vec<Note>,
}

impl Decision {
    /// The terms of the call, where it is accepted.
    #[must_use]
    pub const fn accepted(&self) -> Option<&Accepted> {
        match &self.verdict {
            Verdict::Accept(accepted) => Some(accepted),
            Verdict::Refuse(_) => None,
        }
    }

    /// The refusal, where it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        match &self.verdict {
            Verdict::Accept(_) => None,
            Verdict::Refuse(refusal) => Some(refusal),
        }
    }
}

/// Accept or refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The call goes ahead on these terms.
    Accept(Box<Accepted>),
    /// It does not.
    Refuse(Refusal),
}

/// Something to mark a call with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// SRTP keys cross exempted plaintext signalling: whoever reads the signalling hears the call.
    KeysExposed,
    /// The call may run without SRTP under an exemption.
    PlaintextMediaAllowed,
}

/// A refused call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The stable reason.
    #[serde(with = "wire::reason")]
    pub reason: Reason,
    /// The SIP status to send: the reason's, or the one that a route with `refuse` names.
    pub status: u16,
    /// The value of `Retry-After`, in seconds, where trying again makes sense.
    pub retry_after_seconds: Option<u32>,
    /// Whether nothing is sent back.
    pub silent: bool,
    /// Whether the peer may learn the reason (a known trunk: `Warning: 399`).
    pub tell: bool,
}

/// An accepted call.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    /// The trunk that the caller is.
    #[serde(with = "wire::trunk")]
    pub trunk: TrunkName,
    /// Where the call goes.
    pub destination: Destination,
    /// The called number or user after normalisation. Personal.
    pub called: String,
    /// The caller's number or user after normalisation. Personal.
    pub caller: String,
    /// The terms of the caller's leg.
    pub terms: Terms,
    /// Whether a call to a trunk is recorded, where the terms of both legs allow it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub record: bool,
    /// What the route forbids to keep of a call to a voice agent; `terms` say it already.
    #[serde(default, skip_serializing_if = "Forbids::is_nothing")]
    pub forbids: Forbids,
}

/// What a route forbids to keep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forbids {
    /// The audio.
    pub recording: bool,
    /// The words.
    pub transcript: bool,
}

impl Forbids {
    /// Takes off what trunk and defaults allow.
    pub const fn apply(self, terms: &mut Terms) {
        if self.recording {
            terms.recording = Keep::Never;
        }
        if self.transcript {
            terms.transcript = Keep::Never;
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    const fn is_nothing(&self) -> bool {
        !self.recording && !self.transcript
    }
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("trunk", &self.trunk)
            .field("destination", &self.destination)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

/// Where a call goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Destination {
    /// To a voice agent of this edge.
    Agent {
        /// Its name.
        #[serde(with = "wire::agent")]
        name: VoiceAgentName,
    },
    /// To another trunk.
    Trunk {
        /// Whom to try, in this order; never empty.
        targets: Vec<Target>,
    },
}

/// A trunk to dial.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The trunk.
    #[serde(with = "wire::trunk")]
    pub trunk: TrunkName,
    /// SIP URIs to dial in this order; a transport whose exemption has ended is left out. Of an
    /// account it names a person.
    pub send_to: Vec<String>,
    /// Whether some of them are dialled over exempted plaintext.
    pub plaintext: bool,
    /// Refusals of it after which the next target is tried.
    #[serde(default = "usual_failover")]
    pub failover: Vec<Statuses>,
    /// The terms of that leg.
    pub terms: Terms,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("trunk", &self.trunk)
            .field("plaintext", &self.plaintext)
            .field("terms", &self.terms)
            .finish_non_exhaustive()
    }
}

/// The terms of one leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Codecs in the trunk's order; on the caller's leg only those that were offered.
    pub codecs: Vec<Codec>,
    /// Whether a call that the trunk places to us must be SRTP.
    pub srtp_inbound: Protection,
    /// Whether a call that we place to the trunk must be SRTP.
    pub srtp_outbound: Protection,
    /// Crypto suites in order of preference.
    pub suites: Vec<Suite>,
    /// Whence plain RTP may come; empty unless an exemption runs.
    pub plain_media_from: Vec<IpNet>,
    /// The zone, whose addresses [`crate::Policy::zone`] tells; `None` is the edge's own.
    pub zone: Option<String>,
    /// Whether audio may be kept.
    pub recording: Keep,
    /// Whether words may be kept.
    pub transcript: Keep,
    /// The longest call.
    #[serde(with = "wire::millis")]
    pub max_duration: Duration,
    /// The longest time without media.
    #[serde(with = "wire::millis")]
    pub media_inactive: Duration,
    /// The longest wait for the first response to our INVITE.
    #[serde(with = "wire::millis", default = "usual_first_response")]
    pub first_response: Duration,
    /// The longest ringing of whom we call.
    #[serde(with = "wire::millis", default = "usual_ring")]
    pub ring: Duration,
    /// How keys are taken and sent.
    pub dtmf: Vec<DtmfMethod>,
    /// Whether the peer may transfer.
    #[serde(default)]
    pub transfer: Transfer,
    /// What callers get while it rings at whom they call.
    #[serde(default = "RingBack::usual", skip_serializing_if = "RingBack::is_usual")]
    pub ring_back: RingBack,
    /// What does DTLS handshakes.
    #[serde(default = "DtlsLibrary::usual", skip_serializing_if = "DtlsLibrary::is_usual")]
    pub dtls_library: DtlsLibrary,
}

/// Of decisions that were stored before the word existed.
fn usual_failover() -> Vec<Statuses> {
    Statuses::USUAL.to_vec()
}

/// The same.
const fn usual_first_response() -> Duration {
    limit::CALL_RESPONSE_MS.millis()
}

/// The same.
const fn usual_ring() -> Duration {
    limit::CALL_RING_MS.millis()
}
