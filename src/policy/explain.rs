//! How [`decide`] got to its answer, for a person at three in the morning. The checks are the very
//! functions that `decide` uses, run to the end, so that every problem of a call shows at once.

use serde::Serialize;

use base::Reason;

use crate::attempt::{Attempt, Observed};
use crate::change::Change;
use crate::decide::{
    candidate, check_codecs, check_edge, check_encryption, check_room, decide, open_peers, shown,
};
use crate::decision::Decision;
use crate::flip::smallest_change;
use crate::identify::{PeerMismatch, Shown, Side, check, identify};
use crate::matching::{Candidate, Pattern, RouteMismatch};
use crate::policy::{Action, Policy, Route, Trunk};
use crate::render::{clean, joined};

/// Why a call is accepted or refused. It shows numbers and addresses: for the operator, not for a
/// log. `Display` is the text that `callgate explain` prints.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// What [`decide`] says.
    pub decision: Decision,
    /// The call in a few lines.
    pub call: Vec<String>,
    /// The trunks in their order, up to the one that the caller is.
    pub trunks: Vec<TrunkTried>,
    /// The checks of a known trunk's call; the first that fails is the verdict.
    pub steps: Vec<Step>,
    /// The routes in their order, up to the one that matches.
    pub routes: Vec<RouteTried>,
    /// Where none matches, the number of the route that the call fails least.
    pub closest: Option<u32>,
    /// The changes that flip the verdict, one after another, proved by making them; `None` where
    /// no change of the policy does.
    pub change: Option<Vec<Change>>,
    /// What to do instead of changing the policy.
    pub advice: Option<String>,
}

/// A trunk that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrunkTried {
    /// Its name.
    pub name: String,
    /// `file:line`.
    pub place: String,
    /// Whether the caller is it.
    pub matches: bool,
    /// The value that failed it and what the call has instead.
    pub why: String,
}

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// `edge`, `limits`, `encryption`, `codecs` or `destination`.
    pub stage: &'static str,
    /// Whether it lets the call through.
    pub passes: bool,
    /// The code of the refusal that it would be.
    pub reason: Option<&'static str>,
    /// The values compared.
    pub why: String,
}

/// A route that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouteTried {
    /// Counted from 1 in the order of the files.
    pub number: u32,
    /// Its name, where it has one.
    pub name: Option<String>,
    /// `file:line`.
    pub place: String,
    /// Whether it matches.
    pub matches: bool,
    /// The value that failed it, or what it does.
    pub why: String,
}

/// Explains the decision of [`decide`] for the same values.
#[must_use]
pub fn explain(policy: &Policy, attempt: &Attempt, observed: &Observed) -> Explanation {
    let decision = decide(policy, attempt, observed);
    let shown = shown(policy, attempt, observed);
    let identified = identify(policy, &shown).ok();
    let (mut steps, mut routes, mut closest) = (Vec::new(), Vec::new(), None);
    let call = identified.map(|(index, trunk)| candidate(index, trunk, attempt));
    if let (Some((_, trunk)), Some(call)) = (identified, &call) {
        steps = checks(trunk, attempt, observed);
        let tried = try_routes(policy, call);
        closest = tried.closest;
        routes = tried.routes;
        if let Some(route) = tried.matching {
            steps.extend(destination(policy, route, observed));
        }
    }
    Explanation {
        call: describe(attempt, observed, call.as_ref()),
        trunks: try_trunks(policy, &shown),
        steps,
        routes,
        closest,
        change: smallest_change(policy, attempt, observed),
        advice: advice(&decision, policy, &shown),
        decision,
    }
}

fn describe(attempt: &Attempt, observed: &Observed, call: Option<&Candidate<'_>>) -> Vec<String> {
    let certificates = if attempt.certificates.is_empty() {
        "no client certificate".to_owned()
    } else {
        format!("certificate {}", clean(&joined(&attempt.certificates)))
    };
    let offer = &attempt.offer;
    let offered = match (offer.present, offer.has_srtp, offer.has_plain) {
        (false, ..) => "no offer; this edge offers in its answer".to_owned(),
        (true, srtp, plain) => {
            let kind = match (srtp, plain) {
                (true, true) => "SRTP and plain RTP",
                (true, false) => "SRTP",
                (false, true) => "plain RTP only",
                (false, false) => "no audio",
            };
            format!("offer: {kind}; {}", clean(&joined(&offer.codecs)))
        }
    };
    let party = |written: &str, normalised: Option<&str>| match normalised {
        Some(normalised) if normalised != written => {
            format!("{} (as it came: {})", clean(normalised), clean(written))
        }
        _ => clean(written),
    };
    let called = party(&attempt.called, call.map(|it| it.called.normalised.as_str()));
    let caller = party(&attempt.caller, call.map(|it| it.caller.normalised.as_str()));
    vec![
        format!("INVITE {}", clean(&attempt.request_uri)),
        format!("from {} over {}, {certificates}", attempt.source, attempt.transport),
        format!("called {called}, caller {caller}"),
        offered,
        format!("decided as of {}", observed.wall),
    ]
}

fn try_trunks(policy: &Policy, shown: &Shown) -> Vec<TrunkTried> {
    let mut tried = Vec::new();
    for trunk in &policy.trunks {
        let result = check(trunk, shown);
        tried.push(TrunkTried {
            name: trunk.name.to_string(),
            place: policy.at(trunk.place),
            matches: result.is_ok(),
            why: match result {
                Ok(()) => "the caller is this trunk".to_owned(),
                Err(why) => peer_mismatch(trunk, shown, why),
            },
        });
        if result.is_ok() {
            break;
        }
    }
    tried
}

fn peer_mismatch(trunk: &Trunk, shown: &Shown, why: PeerMismatch) -> String {
    let certificates = joined(&trunk.certificates);
    let transport = shown.transport;
    match why {
        PeerMismatch::NoFrom => "it has no `from`: no call comes from it".to_owned(),
        PeerMismatch::Zone => {
            let name = |side: &Side| match side {
                Side::Zone(zone) => format!("zone {zone}"),
                Side::Own | Side::Unknown => "the edge's own listeners".to_owned(),
            };
            let (home, side) = (name(&Side::of(trunk)), name(&shown.side));
            format!("it is at {home}; the message came to {side}")
        }
        PeerMismatch::Network => {
            format!("from.networks = {}; the source is {}", joined(&trunk.networks), shown.source)
        }
        PeerMismatch::NoCertificate if transport.is_plaintext() => {
            format!("from.certificates = {certificates}; {transport} carries none")
        }
        PeerMismatch::NoCertificate => {
            format!("from.certificates = {certificates}; the peer showed none")
        }
        PeerMismatch::OtherCertificate => {
            let domains = clean(&joined(&shown.domains));
            format!("from.certificates = {certificates}; the peer showed {domains}")
        }
        PeerMismatch::NotAlike => {
            format!("from.browsers = {}; the message came over {transport}", trunk.is_browsers)
        }
        PeerMismatch::Transport => {
            let transports = joined(&trunk.transports);
            format!("transports = {transports}; the message came over {transport}")
        }
        PeerMismatch::Expired(date) => {
            format!("exempt.signalling.expires = {date}; it ended with that day, UTC")
        }
    }
}

fn checks(trunk: &Trunk, attempt: &Attempt, observed: &Observed) -> Vec<Step> {
    let terms = trunk.terms(observed.wall);
    let edge = if observed.draining {
        "this edge is draining and takes no new calls".to_owned()
    } else {
        format!("{} of {} calls on this edge", observed.edge_calls, observed.edge_room())
    };
    let offer = &attempt.offer;
    let offered = match (offer.present, offer.has_srtp) {
        (false, _) => "there is no offer",
        (true, true) => "the offer has SRTP",
        (true, false) if offer.has_plain => "the offer has plain RTP only",
        (true, false) => "the offer has no audio",
    };
    let mut encryption = format!("srtp.inbound = {}; {offered}", terms.srtp_inbound);
    if let Some(media) = trunk.media.as_ref().filter(|media| !media.runs(observed.wall)) {
        encryption += &format!("; exempt.media ended with {}, UTC", media.expires);
    }
    let codecs = if offer.present {
        let offered = clean(&joined(&offer.codecs));
        format!("codecs = {}; the offer has {offered}", joined(&trunk.codecs))
    } else {
        format!("codecs = {}; there is no offer", joined(&trunk.codecs))
    };
    vec![
        step("edge", check_edge(observed), edge),
        step("limits", check_room(trunk, observed), room(trunk, observed)),
        step("encryption", check_encryption(&terms, attempt), encryption),
        step("codecs", check_codecs(trunk, attempt).map(drop), codecs),
    ]
}

fn step(stage: &'static str, result: Result<(), Reason>, why: String) -> Step {
    Step { stage, passes: result.is_ok(), reason: result.err().map(Reason::code), why }
}

fn room(trunk: &Trunk, observed: &Observed) -> String {
    let stood = observed.trunk(trunk.name.as_str());
    let of = |limit: Option<u32>| limit.map(|it| format!(" of {it}")).unwrap_or_default();
    let (calls, rate) = (of(trunk.calls), of(trunk.calls_per_second));
    format!(
        "{}: {}{calls} calls, {}{rate} new in the last second",
        trunk.name, stood.calls, stood.recent_rate
    )
}

/// What keeps the trunks of a route from taking the call; nothing for other routes.
fn destination(policy: &Policy, route: &Route, observed: &Observed) -> Option<Step> {
    let is_dialled = matches!(route.action, Action::Trunks(_));
    route.action.trunks().next()?;
    let (mut passes, mut reason) = (false, Reason::TrunkUnreachable);
    let mut why = Vec::new();
    for trunk in route.action.trunks().filter_map(|index| policy.trunks.get(index)) {
        let mut text = room(trunk, observed);
        if let Err(full) = check_room(trunk, observed) {
            reason = full;
            text += " (no room)";
        } else if is_dialled && open_peers(trunk, observed.wall).is_empty() {
            reason = Reason::ExemptionExpired;
            text += " (its exemption has ended)";
        } else {
            passes = true;
        }
        if !observed.trunk(trunk.name.as_str()).healthy {
            text += " (does not answer at the moment)";
        }
        why.push(text);
    }
    Some(step("destination", if passes { Ok(()) } else { Err(reason) }, why.join("; ")))
}

struct Tried<'p> {
    routes: Vec<RouteTried>,
    matching: Option<&'p Route>,
    closest: Option<u32>,
}

fn try_routes<'p>(policy: &'p Policy, call: &Candidate<'_>) -> Tried<'p> {
    let mut tried = Tried { routes: Vec::new(), matching: None, closest: None };
    // The fewest conditions missed, and of those the most conditions met.
    let mut least = (usize::MAX, usize::MAX);
    for (number, route) in (1..).zip(&policy.routes) {
        let result = route.when.check(call);
        let why = match result {
            Ok(()) => act(policy, &route.action),
            Err(why) => route_mismatch(policy, call, why),
        };
        tried.routes.push(RouteTried {
            number,
            name: route.name.as_deref().map(clean),
            place: policy.at(route.place),
            matches: result.is_ok(),
            why,
        });
        if result.is_ok() {
            tried.matching = Some(route);
            tried.closest = None;
            break;
        }
        let misses = route.when.misses(call);
        let distance = (misses, usize::MAX - route.when.count());
        if distance < least {
            least = distance;
            tried.closest = Some(number);
        }
    }
    tried
}

fn act(policy: &Policy, action: &Action) -> String {
    match action {
        Action::Agent(name) => format!("matches: to voice agent {}", clean(name.as_str())),
        Action::Refuse(status) => format!("matches: refuses with {status}"),
        Action::Trunks(_) => {
            let names = action.trunks().filter_map(|index| policy.trunks.get(index));
            format!("matches: to trunk {}", joined(names.map(|trunk| &trunk.name)))
        }
        Action::Account { name: Some(name), .. } => {
            format!("matches: to account {}", clean(name))
        }
        Action::Account { name: None, .. } => "matches: to the account that is called".to_owned(),
    }
}

fn route_mismatch(policy: &Policy, call: &Candidate<'_>, why: RouteMismatch<'_>) -> String {
    let name = |index: usize| {
        policy.trunks.get(index).map_or_else(String::new, |trunk| trunk.name.to_string())
    };
    let pattern = |side: &str, pattern: &Pattern, party: &crate::matching::Party<'_>| {
        let seen = match pattern {
            Pattern::User(_) => format!("it came as {}", clean(party.dialled)),
            _ => format!("it is {}", clean(&party.normalised)),
        };
        format!("when.{side}.{} = {}; {seen}", pattern.key(), clean(pattern.value()))
    };
    match why {
        RouteMismatch::Trunk(index) => {
            format!("when.trunk = {}; the call is from {}", name(index), name(call.trunk))
        }
        RouteMismatch::Transport(word) => {
            format!("when.transport = {word}; it came over {}", call.transport)
        }
        RouteMismatch::Called(wanted) => pattern("called", wanted, &call.called),
        RouteMismatch::Caller(wanted) => pattern("caller", wanted, &call.caller),
    }
}

fn advice(decision: &Decision, policy: &Policy, shown: &Shown) -> Option<String> {
    let reason = decision.refusal()?.reason;
    let text = match reason {
        Reason::PlaintextSignalling | Reason::ExemptionExpired if decision.route.is_none() => {
            "have the peer call over TLS, which needs no exemption".to_owned()
        }
        Reason::UnknownPeer => {
            let lacks = |trunk: &&Trunk| check(trunk, shown) == Err(PeerMismatch::NoCertificate);
            let trunk = policy.trunks.iter().find(lacks)?;
            let names = joined(&trunk.certificates);
            format!("if this is `{}`, have it show its client certificate ({names})", trunk.name)
        }
        Reason::PlaintextMedia => "have the peer offer SRTP, which needs no exemption".to_owned(),
        Reason::NoAudio => "have the peer offer audio; no policy admits a call without".to_owned(),
        Reason::NoCommonCodec => "have the peer offer one of the trunk's codecs".to_owned(),
        Reason::AccountNotRegistered => "have the caller name an account".to_owned(),
        Reason::Draining | Reason::EdgeCallLimit | Reason::TrunkUnreachable => {
            format!("no change of the policy admits it: {}", reason.hint())
        }
        Reason::TrunkCallLimit | Reason::TrunkRateLimit => {
            "it passes by itself when calls end; raise a limit only if the carrier agreed"
                .to_owned()
        }
        _ => return None,
    };
    Some(text)
}
