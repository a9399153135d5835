//! The compiled policy: what [`crate::decide`] reads. Made by [`crate::load`] only, so that its
//! invariants (no plaintext transport and no optional SRTP without an exemption, every name
//! resolved) hold wherever one exists.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::{Date, TrunkName, VoiceAgentName, WallTime};
use ipnet::IpNet;

use crate::decision::{Forbids, Terms};
use crate::matching::When;
use crate::numbers::Numbers;
use crate::statuses::Statuses;
use crate::words::{
    Codec, DtlsLibrary, DtmfMethod, Exempted, Keep, Protection, RefusalManner, RingBack, Suite,
    Transfer, Transport,
};
use crate::zone::Zone;
use base::diagnostic::{Diagnostic, Warning};

/// How long before its end an exemption is warned of.
const WARN_DAYS: u32 = 30;

/// A policy that loaded. Immutable: a reload makes a new one.
#[derive(Clone, Debug)]
pub struct Policy {
    pub(crate) version: u64,
    pub(crate) fingerprint: u64,
    /// In the order of the files: the first that matches is the caller.
    pub(crate) trunks: Vec<Trunk>,
    /// In the order of the files: the first that matches decides.
    pub(crate) routes: Vec<Route>,
    pub(crate) zones: BTreeMap<String, Zone>,
    /// How a stranger is refused.
    pub(crate) strangers: RefusalManner,
    /// The texts, for `explain`.
    pub(crate) sources: Arc<[Source]>,
}

/// One file, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// Where each line begins.
    pub(crate) fn line_starts(&self) -> Vec<usize> {
        let after = self.text.match_indices('\n').map(|(at, _)| at + 1);
        [0].into_iter().chain(after).collect()
    }
}

/// Where something stands, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Which of the policy's sources.
    pub(crate) file: usize,
    /// The line, counted from 1.
    pub(crate) line: usize,
}

/// A carrier relation. Its fields are the file's keys with every default filled in; the pairs that
/// belong together (transports and `signalling`, `srtp_*` and `media`) were checked by `load`.
#[derive(Clone, Debug)]
pub(crate) struct Trunk {
    pub(crate) name: TrunkName,
    pub(crate) networks: Vec<IpNet>,
    /// In lower case.
    pub(crate) certificates: Vec<String>,
    /// Whether it is the browsers that have proved who they are.
    pub(crate) is_browsers: bool,
    pub(crate) send_to: Vec<Peer>,
    pub(crate) media_from: Vec<IpNet>,
    pub(crate) zone: Option<String>,
    /// The zone at whose listeners it is known; `None` is the edge's own listeners, also where its
    /// zone has none.
    pub(crate) home: Option<Arc<str>>,
    pub(crate) tls: TrunkTls,
    pub(crate) digest: Option<TrunkDigest>,
    pub(crate) transports: Vec<Transport>,
    pub(crate) srtp_inbound: Protection,
    pub(crate) srtp_outbound: Protection,
    /// Whether the file says `srtp.inbound` itself.
    pub(crate) says_srtp_inbound: bool,
    pub(crate) suites: Vec<Suite>,
    pub(crate) codecs: Vec<Codec>,
    pub(crate) calls: Option<u32>,
    pub(crate) calls_per_second: Option<u32>,
    pub(crate) signalling: Option<Exemption>,
    pub(crate) media: Option<Exemption>,
    pub(crate) recording: Keep,
    pub(crate) transcript: Keep,
    pub(crate) transfer: Transfer,
    pub(crate) ring_back: RingBack,
    pub(crate) dtls_library: DtlsLibrary,
    pub(crate) present: Option<String>,
    pub(crate) refuse: RefusalManner,
    pub(crate) max_duration: Duration,
    pub(crate) media_inactive: Duration,
    pub(crate) first_response: Duration,
    pub(crate) ring: Duration,
    pub(crate) dtmf: Vec<DtmfMethod>,
    pub(crate) numbers: Numbers,
    pub(crate) place: Place,
}

/// Who proves what on the TLS connections that we open to a trunk. Files are named as the policy
/// names them; reading them is the edge's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrunkTls {
    /// The PEM bundle of the only authorities that vouch for its certificates.
    pub authorities: Option<String>,
    /// SHA-256 fingerprints of its certificates, one of which it must show.
    pub pins: Vec<[u8; 32]>,
    /// Our certificate and its key, both PEM files.
    pub identity: Option<(String, String)>,
    /// Where this stands.
    pub(crate) span: Option<Range<usize>>,
}

/// The credentials that we show a trunk. Reading the file is the edge's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrunkDigest {
    /// The user name.
    pub user: String,
    /// The file that holds the password, as the policy names it.
    pub password_file: String,
    /// The only realm that is answered.
    pub realm: Option<String>,
    /// Where the file's name stands.
    pub(crate) span: Range<usize>,
}

/// How a trunk is dialled.
#[derive(Clone, Copy, Debug)]
pub struct Line<'p> {
    /// The trunk.
    pub trunk: &'p TrunkName,
    /// The URIs to dial, in this order.
    pub send_to: &'p [Peer],
    /// Its zone, where it has one.
    pub zone: Option<&'p Zone>,
    /// Who proves what.
    pub tls: &'p TrunkTls,
    /// What we show where it asks for a user and a password.
    pub digest: Option<&'p TrunkDigest>,
}

/// An address that we dial.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The SIP URI.
    pub uri: String,
    /// The transport: the one that the URI names, else TLS.
    pub transport: Transport,
}

/// A rule lifted for a while.
#[derive(Clone, Debug)]
pub(crate) struct Exemption {
    pub(crate) expires: Date,
    /// Where the date stands in the trunk's file.
    pub(crate) span: Range<usize>,
    /// Whether it covers calls from the trunk.
    pub(crate) inbound: bool,
}

impl Exemption {
    /// An exemption holds to the end of its last day, UTC (DESIGN invariant 4.1).
    pub(crate) fn runs(&self, wall: WallTime) -> bool {
        wall < self.expires.end()
    }

    /// Whole days until it ends; 0 on the last day and after.
    fn days_left(&self, wall: WallTime) -> u32 {
        u32::try_from(self.expires.days().saturating_sub(wall.date().days())).unwrap_or(u32::MAX)
    }
}

/// One `[[route]]`.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) name: Option<String>,
    pub(crate) when: When,
    pub(crate) action: Action,
    /// After what the next trunk is tried.
    pub(crate) failover: Vec<Statuses>,
    /// Whether calls to trunks are recorded.
    pub(crate) record: bool,
    /// What of calls to a voice agent is not kept, whatever trunk and agent allow.
    pub(crate) forbids: Forbids,
    pub(crate) place: Place,
}

/// What a route does with a call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Agent(VoiceAgentName),
    /// Trunks to share calls and to fail over to.
    Trunks(Vec<Share>),
    /// A registered account of the browsers' trunk; `None` is the one that the call names.
    Account {
        trunk: usize,
        name: Option<String>,
    },
    Refuse(u16),
}

impl Action {
    /// The trunks that calls go to, by their places.
    pub(crate) fn trunks(&self) -> impl Iterator<Item = usize> {
        let (shares, account) = match self {
            Self::Trunks(shares) => (shares.as_slice(), None),
            Self::Account { trunk, .. } => (&[][..], Some(*trunk)),
            Self::Agent(_) | Self::Refuse(_) => (&[][..], None),
        };
        shares.iter().map(|share| share.trunk).chain(account)
    }
}

/// One trunk of a route's `send_to`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Share {
    /// Which of the policy's trunks.
    pub(crate) trunk: usize,
    /// Its part of the calls; 0 is for failover only.
    pub(crate) weight: u32,
}

/// An exemption that ends soon or has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiring {
    /// The trunk.
    pub trunk: TrunkName,
    /// What is exempted.
    pub what: Exempted,
    /// Its last day, UTC.
    pub expires: Date,
    /// Days left: 1 ends tomorrow, 0 ends today or has ended.
    pub days_left: u32,
    /// Whether it has ended.
    pub ended: bool,
}

impl Policy {
    /// A number that the edge gives to each policy it puts in force; 0 before that.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The same policy under the version that the edge counts.
    #[must_use]
    pub const fn with_version(mut self, version: u64) -> Self {
        self.version = version;
        self
    }

    /// A hash of the names and texts of the files, 16 hex digits; no protection against forgery.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:016x}", self.fingerprint)
    }

    /// The terms of a leg to or from a trunk, at this time; `None` where there is no such trunk.
    #[must_use]
    pub fn terms(&self, trunk: &TrunkName, wall: WallTime) -> Option<Terms> {
        self.trunk(trunk.as_str()).map(|trunk| trunk.terms(wall))
    }

    /// The number or user that other trunks are shown of a trunk's caller who was given none of its
    /// own: `present`, of browsers.
    #[must_use]
    pub fn present(&self, trunk: &TrunkName) -> Option<&str> {
        self.trunk(trunk.as_str())?.present.as_deref()
    }

    /// The names of the trunks, in the order of the files.
    pub fn trunks(&self) -> impl Iterator<Item = &TrunkName> {
        self.trunks.iter().map(|trunk| &trunk.name)
    }

    /// How many routes there are.
    #[must_use]
    pub const fn routes(&self) -> usize {
        self.routes.len()
    }

    /// How each trunk is dialled, also those that only call us: a request within such a call may
    /// need a new connection.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        self.trunks.iter().map(|trunk| Line {
            trunk: &trunk.name,
            send_to: &trunk.send_to,
            zone: trunk.zone.as_deref().and_then(|name| self.zone(name)),
            tls: &trunk.tls,
            digest: trunk.digest.as_ref(),
        })
    }

    /// Whether signalling with a trunk may go over this transport at this time.
    #[must_use]
    pub fn lets_signal(&self, trunk: &TrunkName, transport: Transport, wall: WallTime) -> bool {
        let trunk = self.trunk(trunk.as_str());
        let exemption = trunk.and_then(|trunk| trunk.signalling.as_ref());
        !transport.is_plaintext() || exemption.is_some_and(|exemption| exemption.runs(wall))
    }

    /// Something wrong with what a trunk's `tls` names, found by who reads those files.
    #[must_use]
    pub fn wrong_tls(&self, trunk: &TrunkName, message: &str) -> Option<Diagnostic> {
        let trunk = self.trunk(trunk.as_str())?;
        let (source, span) = (self.sources.get(trunk.place.file)?, trunk.tls.span.as_ref()?);
        Some(Diagnostic::new(&source.name, &source.text, span, message, None))
    }

    /// Something wrong with the file that a trunk's `digest` names, found by who reads it.
    #[must_use]
    pub fn wrong_password(
        &self,
        trunk: &TrunkName,
        message: &str,
        help: &str,
    ) -> Option<Diagnostic> {
        let trunk = self.trunk(trunk.as_str())?;
        let source = self.sources.get(trunk.place.file)?;
        let (name, text, span) = (&source.name, &source.text, &trunk.digest.as_ref()?.span);
        Some(Diagnostic::new(name, text, span, message, Some(help.to_owned())))
    }

    /// The voice agents that routes name.
    #[must_use]
    pub fn agents(&self) -> BTreeSet<&VoiceAgentName> {
        self.routes
            .iter()
            .filter_map(|route| match &route.action {
                Action::Agent(name) => Some(name),
                Action::Trunks(_) | Action::Account { .. } | Action::Refuse(_) => None,
            })
            .collect()
    }

    /// The exemptions that end within `days` days or have ended, the soonest first.
    #[must_use]
    pub fn expiring(&self, wall: WallTime, days: u32) -> Vec<Expiring> {
        let mut all: Vec<_> = self
            .trunks
            .iter()
            .flat_map(|trunk| {
                let both =
                    [(Exempted::Signalling, &trunk.signalling), (Exempted::Media, &trunk.media)];
                both.into_iter().filter_map(|(what, exemption)| {
                    let exemption = exemption.as_ref()?;
                    Some(Expiring {
                        trunk: trunk.name.clone(),
                        what,
                        expires: exemption.expires,
                        days_left: exemption.days_left(wall),
                        ended: !exemption.runs(wall),
                    })
                })
            })
            .filter(|it| it.days_left <= days)
            .collect();
        all.sort_by_key(|it| it.expires);
        all
    }

    /// Warnings that depend on the date: exemptions that have ended or end within 30 days
    /// (DESIGN invariant 4.1).
    #[must_use]
    pub fn check_dates(&self, wall: WallTime) -> Vec<Warning> {
        let mut warnings = Vec::new();
        for it in self.expiring(wall, WARN_DAYS) {
            let trunk = self.trunk(it.trunk.as_str());
            let exemption = trunk.and_then(|trunk| match it.what {
                Exempted::Signalling => trunk.signalling.as_ref(),
                Exempted::Media => trunk.media.as_ref(),
            });
            let (Some(trunk), Some(exemption)) = (trunk, exemption) else { continue };
            let Some(source) = self.sources.get(trunk.place.file) else { continue };
            let (message, help) = if it.ended {
                let message = format!("the {} exemption of `{}` has ended", it.what, it.trunk);
                (message, "its calls are refused; renew it or remove it")
            } else {
                let (what, days) = (it.what, it.days_left);
                let message = format!("the {what} exemption of `{}` ends in {days} days", it.trunk);
                (message, "then its calls are refused; move the peer to encryption or renew it")
            };
            let (name, text, span) = (&source.name, &source.text, &exemption.span);
            let help = Some(help.to_owned());
            warnings.push(Warning(Diagnostic::new(name, text, span, message, help)));
        }
        warnings
    }

    /// The accounts that routes name, for who knows which there are.
    pub fn accounts(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().filter_map(|route| match &route.action {
            Action::Account { name, .. } => name.as_deref(),
            Action::Agent(_) | Action::Trunks(_) | Action::Refuse(_) => None,
        })
    }

    /// The trunk of this name.
    pub(crate) fn trunk(&self, name: &str) -> Option<&Trunk> {
        self.trunks.iter().find(|trunk| trunk.name.as_str() == name)
    }

    /// `file:line`, for people.
    pub(crate) fn at(&self, place: Place) -> String {
        let name = self.sources.get(place.file).map_or("?", |source| source.name.as_str());
        format!("{name}:{}", place.line)
    }
}

/// FNV-1a. Stable for ever, because stored decisions and weighted draws depend on it.
pub(crate) fn fnv(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        // The 0xff between the parts is no byte of UTF-8: ("ab", "c") and ("a", "bc") differ.
        for byte in part.iter().chain(&[0xff]) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}
