//! What a decision is made from: what the peer sent ([`Attempt`]) and how things stood at this
//! edge ([`Observed`]). Both are stored with every call, so that `explain` and a back-test later
//! see what the live path saw.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use base::{WallTime, limit};
use serde::{Deserialize, Serialize};

use crate::wire;
use crate::words::Transport;

/// An INVITE as policy sees it.
///
/// `source` and every URI, number and name identify a person: the JSON form must be sealed before
/// it is stored, and `Debug` leaves them out so that a log line cannot hold them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Where the message came from, as the socket says. Personal.
    pub source: SocketAddr,
    /// Our address that it came to, which tells the zone. `None`, which the live path never says,
    /// leaves it open: each trunk is taken to be at its own.
    #[serde(default)]
    pub local: Option<SocketAddr>,
    /// How it came.
    pub transport: Transport,
    /// DNS and URI subject alternative names of the peer's client certificate, which the TLS layer
    /// has verified; empty where none was shown.
    #[serde(default)]
    pub certificates: Vec<String>,
    /// The Request-URI. Personal.
    pub request_uri: String,
    /// The URI of From. Personal.
    pub from_uri: String,
    /// The URI of To. Personal.
    pub to_uri: String,
    /// The URI of P-Asserted-Identity, where there is one. Personal.
    #[serde(default)]
    pub asserted_identity: Option<String>,
    /// The user or telephone number of the Request-URI, as it came. Personal.
    pub called: String,
    /// The user or telephone number of the asserted identity or else From, as it came. Personal.
    pub caller: String,
    /// What the session description offers.
    pub offer: Offer,
    /// The User-Agent header.
    #[serde(default)]
    pub user_agent: Option<String>,
    /// When it arrived.
    #[serde(with = "wire::wall")]
    pub at: WallTime,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("transport", &self.transport)
            .field("certificates", &self.certificates)
            .field("offer", &self.offer)
            .field("at", &self.at)
            .finish_non_exhaustive()
    }
}

/// What policy looks at in an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// Whether there is one; an INVITE without it asks us to offer in the answer.
    pub present: bool,
    /// Whether some audio line can be SRTP: `RTP/SAVP(F)`, or `RTP/AVP(F)` with `a=crypto`
    /// (RFC 8643).
    pub has_srtp: bool,
    /// Whether some audio line can be plain RTP.
    pub has_plain: bool,
    /// Encoding names of the audio lines in their order, as in `a=rtpmap`; case does not matter.
    pub codecs: Vec<String>,
}

/// How things stood when the decision was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observed {
    /// The wall clock: exemptions end by it.
    #[serde(with = "wire::wall")]
    pub wall: WallTime,
    /// Calls on this edge.
    pub edge_calls: u32,
    /// How many it takes; where nobody says so, limit `call.concurrent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edge_calls_most: Option<u32>,
    /// By the trunk's name; a trunk that is missing is idle and healthy.
    #[serde(default)]
    pub trunks: BTreeMap<String, TrunkObserved>,
    /// Whether the edge finishes its calls and takes no new ones.
    pub draining: bool,
}

impl Observed {
    /// How many calls this edge takes at a time.
    #[must_use]
    pub fn edge_room(&self) -> u64 {
        self.edge_calls_most.map_or(limit::CALL_CONCURRENT.value, u64::from)
    }

    /// How the trunk `name` stood.
    #[must_use]
    pub fn trunk(&self, name: &str) -> TrunkObserved {
        self.trunks.get(name).copied().unwrap_or_default()
    }
}

/// How one trunk stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrunkObserved {
    /// Calls over it, both directions.
    pub calls: u32,
    /// New calls over it in the last second, both directions.
    pub recent_rate: u32,
    /// Whether some address of it answers.
    pub healthy: bool,
}

impl Default for TrunkObserved {
    fn default() -> Self {
        Self { calls: 0, recent_rate: 0, healthy: true }
    }
}
