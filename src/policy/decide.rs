//! The one function that decides calls. The live path, `explain` and a back-test all use it.

use std::net::{IpAddr, SocketAddr};

use base::{Reason, WallTime};

use crate::attempt::{Attempt, Observed};
use crate::decision::{
    Accepted, Admission, Decision, Destination, Note, Refusal, Target, Terms, Verdict,
};
use crate::identify::{Shown, identify};
use crate::matching::{Candidate, Party};
use crate::policy::{Action, Peer, Policy, Route, Share, Trunk, fnv};
use crate::statuses::Statuses;
use crate::words::{Codec, Protection, RefusalManner, Transport};

/// Seconds after which a caller may try again where calls must end first.
const RETRY_AFTER_FULL_SECONDS: u32 = 10;
/// Seconds after which a caller may try again where the rate of one second counts.
const RETRY_AFTER_RATE_SECONDS: u32 = 1;
/// Seconds after which a drained edge is likely to be back.
const RETRY_AFTER_DRAIN_SECONDS: u32 = 60;

/// Whether a peer may speak at all. Asked for every message before it is parsed, so it is a few
/// comparisons per trunk and nothing else. `local` is our address that it came to, which tells the
/// zone; `certificates` are the verified identities of the peer's client certificate.
#[must_use]
pub fn admit(
    policy: &Policy,
    source: IpAddr,
    local: SocketAddr,
    transport: Transport,
    certificates: &[String],
    wall: WallTime,
) -> Admission {
    let shown = Shown::new(policy, source, Some(local), transport, certificates, wall);
    match identify(policy, &shown) {
        Ok((_, trunk)) => Admission::Trunk(trunk.name.clone()),
        Err(not) => Admission::Refused {
            reason: not.reason,
            trunk: not.trunk.map(|trunk| trunk.name.clone()),
            tell: not.tells(),
            silent: not.manner == RefusalManner::Silent,
        },
    }
}

/// Decides an INVITE. A pure function: the same three values always give the same decision.
///
/// The stages, in order: who is calling, room on this edge, the trunk's limits, encryption of the
/// media, codecs, route, room on the trunks that the route names. The first refusal stands.
#[must_use]
pub fn decide(policy: &Policy, attempt: &Attempt, observed: &Observed) -> Decision {
    let mut decision = Decision {
        policy_version: policy.version,
        policy_fingerprint: policy.fingerprint(),
        trunk: None,
        route: None,
        route_name: None,
        verdict: Verdict::Refuse(Refusal::known(Reason::NoRoute)),
        notes: Vec::new(),
    };
    decision.verdict = match verdict(policy, attempt, observed, &mut decision) {
        Ok(accepted) => {
            decision.notes = notes(attempt, &accepted);
            Verdict::Accept(Box::new(accepted))
        }
        Err(refusal) => Verdict::Refuse(refusal),
    };
    decision
}

fn verdict(
    policy: &Policy,
    attempt: &Attempt,
    observed: &Observed,
    decision: &mut Decision,
) -> Result<Accepted, Refusal> {
    let (index, trunk) = identify(policy, &shown(policy, attempt, observed)).map_err(|not| {
        decision.trunk = not.trunk.map(|trunk| trunk.name.clone());
        Refusal {
            silent: not.manner == RefusalManner::Silent,
            tell: not.tells(),
            ..Refusal::known(not.reason)
        }
    })?;
    decision.trunk = Some(trunk.name.clone());
    check_edge(observed).map_err(Refusal::known)?;
    check_room(trunk, observed).map_err(Refusal::known)?;
    let mut terms = trunk.terms(observed.wall);
    check_encryption(&terms, attempt).map_err(Refusal::known)?;
    terms.codecs = check_codecs(trunk, attempt).map_err(Refusal::known)?;
    let call = candidate(index, trunk, attempt);
    let (number, route) = find_route(policy, &call).ok_or(Refusal::known(Reason::NoRoute))?;
    decision.route = Some(number);
    decision.route_name.clone_from(&route.name);
    let called = &call.called.normalised;
    let destination = destination(policy, route, called, attempt, observed)?;
    if let Destination::Agent { .. } = destination {
        route.forbids.apply(&mut terms);
    }
    Ok(Accepted {
        trunk: trunk.name.clone(),
        destination,
        called: call.called.normalised,
        caller: call.caller.normalised,
        terms,
        record: route.record,
        forbids: route.forbids,
    })
}

/// What the peer shows of itself in an attempt.
pub(crate) fn shown(policy: &Policy, attempt: &Attempt, observed: &Observed) -> Shown {
    let Attempt { source, local, transport, certificates, .. } = attempt;
    Shown::new(policy, source.ip(), *local, *transport, certificates, observed.wall)
}

/// The call as routes see it: numbers normalised as the trunk writes them.
pub(crate) fn candidate<'a>(index: usize, trunk: &Trunk, attempt: &'a Attempt) -> Candidate<'a> {
    let party = |dialled: &'a str| Party { dialled, normalised: trunk.numbers.normalise(dialled) };
    Candidate {
        trunk: index,
        transport: attempt.transport,
        called: party(&attempt.called),
        caller: party(&attempt.caller),
    }
}

/// Whether this edge takes calls at all.
pub(crate) fn check_edge(observed: &Observed) -> Result<(), Reason> {
    if observed.draining {
        return Err(Reason::Draining);
    }
    if u64::from(observed.edge_calls) >= observed.edge_room() {
        return Err(Reason::EdgeCallLimit);
    }
    Ok(())
}

/// Whether the trunk is within its `limits`.
pub(crate) fn check_room(trunk: &Trunk, observed: &Observed) -> Result<(), Reason> {
    let stood = observed.trunk(trunk.name.as_str());
    if trunk.calls.is_some_and(|limit| stood.calls >= limit) {
        return Err(Reason::TrunkCallLimit);
    }
    if trunk.calls_per_second.is_some_and(|limit| stood.recent_rate >= limit) {
        return Err(Reason::TrunkRateLimit);
    }
    Ok(())
}

/// Whether the offer is as encrypted as the trunk asks (DESIGN invariant 4.2).
pub(crate) fn check_encryption(terms: &Terms, attempt: &Attempt) -> Result<(), Reason> {
    let offer = &attempt.offer;
    if !offer.present || offer.has_srtp {
        return Ok(());
    }
    match (offer.has_plain, terms.srtp_inbound) {
        (false, _) => Err(Reason::NoAudio),
        (true, Protection::Required) => Err(Reason::PlaintextMedia),
        (true, Protection::Optional) => Ok(()),
    }
}

/// The trunk's codecs that the offer names, in the trunk's order; all of them without an offer.
pub(crate) fn check_codecs(trunk: &Trunk, attempt: &Attempt) -> Result<Vec<Codec>, Reason> {
    let offer = &attempt.offer;
    let common: Vec<Codec> = trunk
        .codecs
        .iter()
        .copied()
        .filter(|codec| {
            // Encoding names are case-insensitive (RFC 8866 section 6.6).
            !offer.present || offer.codecs.iter().any(|it| it.eq_ignore_ascii_case(codec.word()))
        })
        .collect();
    if common.is_empty() { Err(Reason::NoCommonCodec) } else { Ok(common) }
}

/// The first route that matches, and its number counted from 1.
fn find_route<'p>(policy: &'p Policy, call: &Candidate<'_>) -> Option<(u32, &'p Route)> {
    (1..).zip(&policy.routes).find(|(_, route)| route.when.check(call).is_ok())
}

fn destination(
    policy: &Policy,
    route: &Route,
    called: &str,
    attempt: &Attempt,
    observed: &Observed,
) -> Result<Destination, Refusal> {
    match &route.action {
        Action::Agent(name) => Ok(Destination::Agent { name: name.clone() }),
        Action::Refuse(status) => {
            Err(Refusal { status: *status, ..Refusal::known(Reason::RefusedByRoute) })
        }
        Action::Trunks(shares) => {
            let mut targets = targets(policy, shares, attempt, observed).map_err(Refusal::known)?;
            targets.iter_mut().for_each(|target| target.failover.clone_from(&route.failover));
            Ok(Destination::Trunk { targets })
        }
        Action::Account { trunk, name } => {
            let name = name.as_deref().unwrap_or(called);
            let target = account(policy, *trunk, name, observed).map_err(Refusal::known)?;
            Ok(Destination::Trunk { targets: vec![target] })
        }
    }
}

/// An account of the browsers' trunk as a target.
fn account(
    policy: &Policy,
    trunk: usize,
    name: &str,
    observed: &Observed,
) -> Result<Target, Reason> {
    let trunk = policy.trunks.get(trunk).ok_or(Reason::NoRoute)?;
    check_room(trunk, observed)?;
    if name.is_empty() {
        return Err(Reason::AccountNotRegistered);
    }
    Ok(Target {
        trunk: trunk.name.clone(),
        plaintext: false,
        failover: Statuses::USUAL.to_vec(),
        send_to: vec![account_uri(name)],
        terms: trunk.terms(observed.wall),
    })
}

/// The host of URIs that name an account of this edge; no name server knows it (RFC 2606).
pub const ACCOUNTS_HOST: &str = "accounts.invalid";

/// How an account is dialled.
fn account_uri(name: &str) -> String {
    let mut uri = String::from("sip:");
    for byte in name.bytes() {
        // RFC 3261 section 25.1: what is not unreserved may be escaped.
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()+".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{uri}@{ACCOUNTS_HOST};transport={}", Transport::Wss)
}

/// The trunks to try, best first: weighted ones as drawn, then those for failover in the order of
/// the file; those that do not answer at the moment come last, those without room not at all.
fn targets(
    policy: &Policy,
    shares: &[Share],
    attempt: &Attempt,
    observed: &Observed,
) -> Result<Vec<Target>, Reason> {
    let (mut targets, mut unhealthy) = (Vec::new(), Vec::new());
    let mut why = Reason::TrunkUnreachable;
    for share in draw(shares, attempt) {
        let Some(trunk) = policy.trunks.get(share.trunk) else { continue };
        if let Err(full) = check_room(trunk, observed) {
            why = full;
            continue;
        }
        let peers = open_peers(trunk, observed.wall);
        if peers.is_empty() {
            why = Reason::ExemptionExpired;
            continue;
        }
        let target = Target {
            trunk: trunk.name.clone(),
            plaintext: peers.iter().any(|peer| peer.transport.is_plaintext()),
            failover: Vec::new(),
            send_to: peers.into_iter().map(|peer| peer.uri.clone()).collect(),
            terms: trunk.terms(observed.wall),
        };
        let healthy = observed.trunk(trunk.name.as_str()).healthy;
        if healthy { &mut targets } else { &mut unhealthy }.push(target);
    }
    targets.append(&mut unhealthy);
    if targets.is_empty() { Err(why) } else { Ok(targets) }
}

/// The addresses of a trunk that may be dialled now.
pub(crate) fn open_peers(trunk: &Trunk, wall: WallTime) -> Vec<&Peer> {
    let exempted = trunk.signalling.as_ref().is_some_and(|exemption| exemption.runs(wall));
    trunk.send_to.iter().filter(|peer| exempted || !peer.transport.is_plaintext()).collect()
}

/// Orders weighted shares by chance, the others stay behind them. The chance comes from the
/// attempt itself, so that `explain` and a back-test draw what the live path drew.
fn draw<'p>(shares: &'p [Share], attempt: &Attempt) -> Vec<&'p Share> {
    let mut weighted: Vec<&Share> = shares.iter().filter(|share| share.weight > 0).collect();
    let mut order = Vec::with_capacity(shares.len());
    let at = attempt.at.unix_millis().to_le_bytes();
    let source = attempt.source.to_string();
    let from = [attempt.called.as_bytes(), attempt.caller.as_bytes(), source.as_bytes(), &at[..]];
    let mut chance = fnv(&from);
    while !weighted.is_empty() {
        let total: u64 = weighted.iter().map(|share| u64::from(share.weight)).sum();
        // The upper half: the lower bits of FNV-1a are the weaker ones.
        let mut left = (chance >> 32).wrapping_mul(total) >> 32;
        let position = weighted.iter().position(|share| {
            let taken = left < u64::from(share.weight);
            left = left.saturating_sub(u64::from(share.weight));
            taken
        });
        order.push(weighted.remove(position.unwrap_or(0)));
        chance = fnv(&[&chance.to_le_bytes()]);
    }
    order.extend(shares.iter().filter(|share| share.weight == 0));
    order
}

fn notes(attempt: &Attempt, accepted: &Accepted) -> Vec<Note> {
    let mut notes = Vec::new();
    let dials_plaintext = match &accepted.destination {
        Destination::Agent { .. } => false,
        Destination::Trunk { targets } => targets.iter().any(|target| target.plaintext),
    };
    let offer = &attempt.offer;
    let keyed = offer.has_srtp || !offer.present;
    if dials_plaintext || (attempt.transport.is_plaintext() && keyed) {
        notes.push(Note::KeysExposed);
    }
    if accepted.terms.srtp_inbound == Protection::Optional {
        notes.push(Note::PlaintextMediaAllowed);
    }
    notes
}

impl Refusal {
    /// A refusal of a peer that is a known trunk.
    fn known(reason: Reason) -> Self {
        let retry_after_seconds = match reason {
            Reason::TrunkCallLimit | Reason::EdgeCallLimit => Some(RETRY_AFTER_FULL_SECONDS),
            Reason::TrunkRateLimit => Some(RETRY_AFTER_RATE_SECONDS),
            Reason::Draining => Some(RETRY_AFTER_DRAIN_SECONDS),
            _ => None,
        };
        let status = reason.sip_status();
        Self { reason, status, retry_after_seconds, silent: false, tell: true }
    }
}

impl Trunk {
    /// The terms of a leg to or from this trunk at this time: what an exemption lifted comes back
    /// when it ends.
    pub(crate) fn terms(&self, wall: WallTime) -> Terms {
        let exempted = self.media.as_ref().is_some_and(|exemption| exemption.runs(wall));
        let now = |wanted| if exempted { wanted } else { Protection::Required };
        let (srtp_inbound, srtp_outbound) = (now(self.srtp_inbound), now(self.srtp_outbound));
        let plain = [srtp_inbound, srtp_outbound].contains(&Protection::Optional);
        Terms {
            codecs: self.codecs.clone(),
            srtp_inbound,
            srtp_outbound,
            suites: self.suites.clone(),
            plain_media_from: if plain { self.media_from.clone() } else { Vec::new() },
            zone: self.zone.clone(),
            recording: self.recording,
            transcript: self.transcript,
            max_duration: self.max_duration,
            media_inactive: self.media_inactive,
            first_response: self.first_response,
            ring: self.ring,
            dtmf: self.dtmf.clone(),
            transfer: self.transfer,
            ring_back: self.ring_back,
            dtls_library: self.dtls_library,
        }
    }
}
