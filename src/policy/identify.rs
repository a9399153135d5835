//! Which trunk a peer is. Used alike before parsing, by `decide` and by `explain`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Date, Reason, WallTime};

use crate::policy::{Policy, Trunk};
use crate::words::{RefusalManner, Transport};

/// What a peer shows of itself.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) source: IpAddr,
    pub(crate) side: Side,
    pub(crate) transport: Transport,
    /// Whether it showed a client certificate, whatever that says.
    pub(crate) has_certificate: bool,
    /// What its certificate stands for.
    pub(crate) domains: Vec<String>,
    pub(crate) wall: WallTime,
}

impl Shown {
    pub(crate) fn new(
        policy: &Policy,
        source: IpAddr,
        local: Option<SocketAddr>,
        transport: Transport,
        certificates: &[String],
        wall: WallTime,
    ) -> Self {
        Self {
            // A dual-stack socket shows IPv4 peers as ::ffff:a.b.c.d.
            source: source.to_canonical(),
            side: local.map_or(Side::Unknown, |local| {
                policy.name_at(transport, local).map_or(Side::Own, |zone| Side::Zone(zone.clone()))
            }),
            transport,
            has_certificate: !certificates.is_empty(),
            domains: certificates.iter().filter_map(|it| domain_of(it)).collect(),
            wall,
        }
    }
}

/// The side of the network that a message came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Nobody says: a message from a file. Each trunk is taken to be at its own side.
    Unknown,
    /// The edge's own listeners.
    Own,
    /// Those of a zone.
    Zone(Arc<str>),
}

impl Side {
    /// Where a trunk is known.
    pub(crate) fn of(trunk: &Trunk) -> Self {
        trunk.home.clone().map_or(Self::Own, Self::Zone)
    }
}

/// Why a peer is not a trunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerMismatch {
    /// The trunk has no `from`: calls go to it, none come from it.
    NoFrom,
    /// The message came to the listeners of another zone.
    Zone,
    /// The source is in none of its networks.
    Network,
    /// No certificate was shown, and the trunk asks for one.
    NoCertificate,
    /// A certificate was shown, of somebody else.
    OtherCertificate,
    /// One of both, trunk and message, is a browser's, and the other is not.
    NotAlike,
    /// The peer is this trunk, but may not use this transport.
    Transport,
    /// It might, until this date.
    Expired(Date),
}

impl PeerMismatch {
    /// Whether the peer has proved to be this trunk and only the transport is wrong.
    pub(crate) const fn is_known(self) -> bool {
        matches!(self, Self::Transport | Self::Expired(_))
    }
}

/// A peer that is no trunk, or not over this transport.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotAdmitted<'p> {
    pub(crate) reason: Reason,
    pub(crate) trunk: Option<&'p Trunk>,
    pub(crate) manner: RefusalManner,
}

impl NotAdmitted<'_> {
    /// Whether the peer may learn why: a known trunk that gets an answer at all.
    pub(crate) const fn tells(&self) -> bool {
        self.trunk.is_some() && matches!(self.manner, RefusalManner::Answer)
    }
}

/// The first trunk that the peer is over this transport. A later trunk that allows the transport
/// is better than an earlier one that does not.
pub(crate) fn identify<'p>(
    policy: &'p Policy,
    shown: &Shown,
) -> Result<(usize, &'p Trunk), NotAdmitted<'p>> {
    let mut known: Option<(&Trunk, PeerMismatch)> = None;
    for (index, trunk) in policy.trunks.iter().enumerate() {
        match check(trunk, shown) {
            Ok(()) => return Ok((index, trunk)),
            // Of those that know the peer, an exemption that has ended says most.
            Err(why) if why.is_known() => {
                let ended = matches!(why, PeerMismatch::Expired(_));
                let had_ended = matches!(known, Some((_, PeerMismatch::Expired(_))));
                if known.is_none() || (ended && !had_ended) {
                    known = Some((trunk, why));
                }
            }
            Err(_) => {}
        }
    }
    let plaintext = shown.transport.is_plaintext();
    Err(match known {
        Some((trunk, why)) => NotAdmitted {
            reason: match why {
                PeerMismatch::Expired(_) => Reason::ExemptionExpired,
                _ if plaintext => Reason::PlaintextSignalling,
                _ => Reason::TransportNotAllowed,
            },
            trunk: Some(trunk),
            manner: trunk.refuse,
        },
        None => NotAdmitted {
            reason: if plaintext { Reason::PlaintextSignalling } else { Reason::UnknownPeer },
            trunk: None,
            manner: policy.strangers,
        },
    })
}

/// Whether the peer is this trunk and may use its transport.
pub(crate) fn check(trunk: &Trunk, shown: &Shown) -> Result<(), PeerMismatch> {
    if !trunk.has_from() {
        return Err(PeerMismatch::NoFrom);
    }
    if trunk.is_browsers != shown.transport.is_browsers() {
        return Err(PeerMismatch::NotAlike);
    }
    if shown.side != Side::Unknown && shown.side != Side::of(trunk) {
        return Err(PeerMismatch::Zone);
    }
    if !trunk.networks.is_empty() && !trunk.networks.iter().any(|it| it.contains(&shown.source)) {
        return Err(PeerMismatch::Network);
    }
    if !trunk.certificates.is_empty() {
        if !shown.has_certificate {
            return Err(PeerMismatch::NoCertificate);
        }
        if !shown.domains.iter().any(|domain| trunk.certificates.contains(domain)) {
            return Err(PeerMismatch::OtherCertificate);
        }
    }
    if !trunk.transports.contains(&shown.transport) {
        return Err(PeerMismatch::Transport);
    }
    if shown.transport.is_plaintext() {
        return match &trunk.signalling {
            Some(exemption) if exemption.runs(shown.wall) => Ok(()),
            Some(exemption) => Err(PeerMismatch::Expired(exemption.expires)),
            None => Err(PeerMismatch::Transport),
        };
    }
    Ok(())
}

impl Trunk {
    /// Whether anybody may be it.
    pub(crate) fn has_from(&self) -> bool {
        !self.networks.is_empty() || !self.certificates.is_empty() || self.is_browsers
    }
}

/// The domain that a subject alternative name stands for, in lower case. A `sip:` URI counts where
/// it names a domain only, another URI stands for itself (RFC 5922 section 7.1).
pub(crate) fn domain_of(identity: &str) -> Option<String> {
    let identity = identity.to_ascii_lowercase();
    match identity.strip_prefix("sip:") {
        Some(rest) if rest.contains('@') => None,
        Some(domain) => Some(domain.to_owned()),
        None => Some(identity),
    }
}
