//! The smallest change of the policy that flips a decision. Nothing is guessed: every step is
//! applied to the texts, loaded and decided anew, until the verdict is another one.

use std::net::IpAddr;
use std::time::Duration;

use base::{Reason, WallTime};
use ipnet::IpNet;

use crate::attempt::{Attempt, Observed};
use crate::change::{Change, Draft, key, list, quoted};
use crate::compile::load;
use crate::decide::{candidate, check_room, decide, open_peers, shown};
use crate::decision::Decision;
use crate::identify::{PeerMismatch, Shown, Side, check, identify};
use crate::policy::{Action, Policy, Route, Trunk};
use crate::words::{Codec, Protection};

/// Stages that may refuse one call one after another; more steps lead nowhere.
const STEPS: usize = 8;

/// How long a suggested exemption runs.
const EXEMPTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// The reason that a suggested exemption gives, for the operator to replace.
const REASON: &str = "why, and the ticket";

/// The changes, to be made one after another, that make the policy accept what it refuses or
/// refuse what it accepts; `None` where no change of the policy does.
pub(crate) fn smallest_change(
    policy: &Policy,
    attempt: &Attempt,
    observed: &Observed,
) -> Option<Vec<Change>> {
    let mut draft = Draft::new(&policy.sources);
    let first = decide(policy, attempt, observed);
    let accepted = first.accepted().is_some();
    let (mut policy, mut decision) = (policy.clone(), first);
    for _ in 0..STEPS {
        step(&mut draft, &Case { policy: &policy, attempt, observed, decision: &decision })?;
        let files: Vec<(&str, &str)> =
            draft.sources.iter().map(|it| (it.name.as_str(), it.text.as_str())).collect();
        policy = load(&files, None).ok()?.0;
        decision = decide(&policy, attempt, observed);
        if decision.accepted().is_some() != accepted {
            return Some(draft.changes);
        }
    }
    None
}

/// What one step starts from.
struct Case<'a> {
    policy: &'a Policy,
    attempt: &'a Attempt,
    observed: &'a Observed,
    decision: &'a Decision,
}

fn step(draft: &mut Draft, case: &Case<'_>) -> Option<()> {
    let Some(refusal) = case.decision.refusal() else { return case.shut(draft) };
    let shown = shown(case.policy, case.attempt, case.observed);
    let identified = identify(case.policy, &shown);
    let Ok((index, trunk)) = identified else {
        return match identified.err().and_then(|not| not.trunk) {
            Some(trunk) => case.open_transport(draft, trunk),
            None => case.introduce(draft, &shown),
        };
    };
    match refusal.reason {
        Reason::PlaintextMedia => case.allow_plain_media(draft, trunk),
        Reason::NoCommonCodec => case.add_codec(draft, trunk),
        Reason::TrunkCallLimit | Reason::TrunkRateLimit => case.raise_limit(draft, trunk),
        Reason::ExemptionExpired => {
            let callee = case.callees().find(|it| open_peers(it, shown.wall).is_empty())?;
            renew(draft, callee, "signalling", shown.wall)
        }
        Reason::NoRoute => {
            let last = draft.sources.len().checked_sub(1)?;
            draft.append(last, &case.route(index, trunk, None))
        }
        Reason::RefusedByRoute => {
            let place = case.deciding_route()?.place;
            let route = case.route(index, trunk, None);
            draft.insert_before(place.file, place.line, &route)
        }
        _ => None,
    }
}

impl Case<'_> {
    fn deciding_route(&self) -> Option<&Route> {
        let number = usize::try_from(self.decision.route?).ok()?;
        self.policy.routes.get(number.checked_sub(1)?)
    }

    /// The trunks that the deciding route names.
    fn callees(&self) -> impl Iterator<Item = &Trunk> {
        let trunks = self.deciding_route().into_iter().flat_map(|route| route.action.trunks());
        trunks.filter_map(|index| self.policy.trunks.get(index))
    }

    /// A route in front of the one that accepts.
    fn shut(&self, draft: &mut Draft) -> Option<()> {
        let (index, trunk) =
            identify(self.policy, &shown(self.policy, self.attempt, self.observed)).ok()?;
        let place = self.deciding_route()?.place;
        draft.insert_before(place.file, place.line, &self.route(index, trunk, Some(603)))
    }

    /// A route for exactly this call: to a voice agent that is in use, or refused with a status.
    fn route(&self, index: usize, trunk: &Trunk, status: Option<u16>) -> String {
        let called = candidate(index, trunk, self.attempt).called.normalised;
        let trunk = quoted(trunk.name.as_str());
        let when = if called.is_empty() {
            format!("when = {{ trunk = {trunk} }}")
        } else {
            format!("when = {{ trunk = {trunk}, called = {{ exact = {} }} }}", quoted(&called))
        };
        let then = match status {
            Some(status) => format!("refuse = {{ status = {status} }}"),
            None => self.destination(index),
        };
        format!("[[route]]\n{when}\n{then}")
    }

    /// Where this trunk's calls go otherwise, else where anybody's do.
    fn destination(&self, index: usize) -> String {
        let sends = |route: &&Route| !matches!(route.action, Action::Refuse(_));
        let mut sending: Vec<&Route> = self.policy.routes.iter().filter(sends).collect();
        sending.sort_by_key(|route| route.when.trunk != Some(index));
        let trunk = |at: usize| self.policy.trunks.get(at).map(|trunk| trunk.name.as_str());
        let place = sending.iter().find_map(|route| match &route.action {
            Action::Agent(name) => Some(format!("agent = {}", quoted(name.as_str()))),
            Action::Trunks(shares) => {
                Some(format!("trunk = {}", quoted(trunk(shares.first()?.trunk)?)))
            }
            Action::Account { name: Some(name), .. } => Some(format!("account = {}", quoted(name))),
            Action::Account { name: None, .. } => Some("accounts = true".to_owned()),
            Action::Refuse(_) => None,
        });
        let place = place.unwrap_or_else(|| "agent = \"reception\"".to_owned());
        format!("send_to = {{ {place} }}")
    }

    /// Makes a stranger known: as the trunk that is nearly it, else as a new one.
    fn introduce(&self, draft: &mut Draft, shown: &Shown) -> Option<()> {
        // A browser is nobody else's, wherever it comes from.
        let is_of_kind = |trunk: &&Trunk| trunk.is_browsers == shown.transport.is_browsers();
        let near = self.policy.trunks.iter().filter(is_of_kind).filter_map(|trunk| {
            let (kind, closeness) = nearness(trunk, shown)?;
            Some((trunk, kind, closeness))
        });
        match near.max_by_key(|(_, _, closeness)| *closeness) {
            Some((trunk, Near::Network, _)) => {
                let mut networks = trunk.networks.clone();
                networks.push(IpNet::from(shown.source));
                set(draft, trunk, &["from", "networks"], &list(networks))
            }
            Some((trunk, Near::Zone, _)) => {
                let Side::Zone(zone) = &shown.side else { return None };
                set(draft, trunk, &["zone"], &quoted(zone))
            }
            Some((trunk, Near::Certificate, _)) => {
                let mut certificates = trunk.certificates.clone();
                certificates.push(shown.domains.first()?.clone());
                set(draft, trunk, &["from", "certificates"], &list(certificates))
            }
            None => self.new_trunk(draft, shown),
        }
    }

    fn new_trunk(&self, draft: &mut Draft, shown: &Shown) -> Option<()> {
        let is_free = |name: &String| self.policy.trunk(name).is_none();
        let name = (1..).map(|number| format!("new-{number}")).find(is_free)?;
        let last = draft.sources.len().checked_sub(1)?;
        if shown.transport.is_browsers() {
            let toml = format!("[trunk.{}]\nfrom = {{ browsers = true }}", key(&name));
            return draft.append(last, &toml);
        }
        let networks = list([IpNet::from(shown.source)]);
        let word = shown.transport.word();
        let mut toml = format!(
            "[trunk.{}]\nfrom = {{ networks = {networks} }}\ntransports = [\"{word}\"]",
            key(&name)
        );
        if let Side::Zone(zone) = &shown.side {
            toml += &format!("\nzone = {}", quoted(zone));
        }
        if shown.transport.is_plaintext() {
            toml += &format!("\nexempt.signalling = {}", exemption(shown.wall, ""));
        }
        draft.append(last, &toml)
    }

    /// Lets a known trunk use the transport.
    fn open_transport(&self, draft: &mut Draft, trunk: &Trunk) -> Option<()> {
        let (wall, transport) = (self.observed.wall, self.attempt.transport);
        if transport.is_plaintext() {
            match &trunk.signalling {
                Some(exemption) if exemption.runs(wall) => {}
                Some(_) => renew(draft, trunk, "signalling", wall)?,
                None => {
                    set(draft, trunk, &["exempt", "signalling"], &exemption(wall, ""))?;
                }
            }
        }
        if trunk.transports.contains(&transport) {
            return Some(());
        }
        let mut transports = trunk.transports.clone();
        transports.push(transport);
        set(draft, trunk, &["transports"], &list(transports))
    }

    fn allow_plain_media(&self, draft: &mut Draft, trunk: &Trunk) -> Option<()> {
        let wall = self.observed.wall;
        if trunk.media_from.is_empty() {
            let source = IpNet::from(self.attempt.source.ip().to_canonical());
            set(draft, trunk, &["media_from"], &list([source]))?;
        }
        match &trunk.media {
            None => {
                set(draft, trunk, &["exempt", "media"], &exemption(wall, ", inbound = true"))?;
            }
            Some(exemption) => {
                if !exemption.runs(wall) {
                    renew(draft, trunk, "media", wall)?;
                }
                if !exemption.inbound {
                    set(draft, trunk, &["exempt", "media", "inbound"], "true")?;
                }
            }
        }
        if trunk.srtp_inbound == Protection::Required && trunk.says_srtp_inbound {
            set(draft, trunk, &["srtp", "inbound"], "\"optional\"")?;
        }
        Some(())
    }

    fn add_codec(&self, draft: &mut Draft, trunk: &Trunk) -> Option<()> {
        let offered = &self.attempt.offer.codecs;
        let known = |name: &String| {
            Codec::DEFAULT.into_iter().find(|codec| codec.word().eq_ignore_ascii_case(name))
        };
        let mut codecs = trunk.codecs.clone();
        codecs.push(offered.iter().find_map(known)?);
        set(draft, trunk, &["codecs"], &list(codecs))
    }

    /// Raises the limit that is in the way, of the caller's trunk or of one that the route names.
    fn raise_limit(&self, draft: &mut Draft, caller: &Trunk) -> Option<()> {
        let is_full = |trunk: &&Trunk| check_room(trunk, self.observed).is_err();
        let trunk = [caller].into_iter().chain(self.callees()).find(is_full)?;
        let stood = self.observed.trunk(trunk.name.as_str());
        let (key, value) = match check_room(trunk, self.observed).err()? {
            Reason::TrunkCallLimit => ("calls", stood.calls),
            _ => ("calls_per_second", stood.recent_rate),
        };
        set(draft, trunk, &["limits", key], &value.checked_add(1)?.to_string())
    }
}

/// How a stranger is nearly a trunk.
#[derive(Clone, Copy)]
enum Near {
    /// From a network that is not listed.
    Network,
    /// With a certificate that is not listed.
    Certificate,
    /// At the listeners of another zone.
    Zone,
}

/// How a stranger is nearly this trunk, and how nearly: a proved certificate counts most, then an
/// address inside of the networks, then an address close to them.
fn nearness(trunk: &Trunk, shown: &Shown) -> Option<(Near, u8)> {
    match check(trunk, shown).err()? {
        PeerMismatch::Zone => {
            let there = Shown { side: Side::Unknown, ..shown.clone() };
            check(trunk, &there).is_ok().then_some((Near::Zone, 254))
        }
        PeerMismatch::OtherCertificate if !shown.domains.is_empty() => {
            Some((Near::Certificate, 200))
        }
        PeerMismatch::Network => {
            let proved = shown.domains.iter().any(|domain| trunk.certificates.contains(domain));
            if proved {
                return Some((Near::Network, 255));
            }
            if !trunk.certificates.is_empty() {
                return None;
            }
            let shared = |net: &IpNet| shared_bits(net.addr(), shown.source);
            let enough = match shown.source {
                _ if trunk.is_browsers => 0, // there is no other trunk that it could be
                IpAddr::V4(_) => 16,
                IpAddr::V6(_) => 32,
            };
            let most = trunk.networks.iter().map(shared).max().filter(|bits| *bits >= enough)?;
            Some((Near::Network, most))
        }
        _ => None,
    }
}

fn shared_bits(a: IpAddr, b: IpAddr) -> u8 {
    let bits = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    u8::try_from(bits).unwrap_or(u8::MAX)
}

fn set(draft: &mut Draft, trunk: &Trunk, keys: &[&str], value: &str) -> Option<()> {
    draft.set(trunk.place.file, trunk.name.as_str(), keys, value)
}

fn renew(draft: &mut Draft, trunk: &Trunk, what: &str, wall: WallTime) -> Option<()> {
    let expires = (wall + EXEMPTION).date().to_string();
    set(draft, trunk, &["exempt", what, "expires"], &expires)
}

fn exemption(wall: WallTime, more: &str) -> String {
    let expires = (wall + EXEMPTION).date();
    format!("{{ reason = {}, expires = {expires}{more} }}", quoted(REASON))
}
