//! Admit and route: an INVITE becomes an [`Attempt`], policy decides, and a refusal becomes an
//! answer with its reason.

use base::{Reason, WallTime};
use policy::{Attempt, Decision, Verdict};
use sdp::Session;
use sip::{Method, Name, Request, Scheme, Uri};

use crate::contract::{Peer, Setup};
use crate::negotiate;

/// What INVITE, peer and offer amount to for policy.
pub(crate) fn attempt(
    peer: &Peer,
    invite: &Request,
    offer: Option<&Session>,
    wall: WallTime,
) -> Attempt {
    let headers = &invite.headers;
    let uri = |name| headers.addresses(name).ok().and_then(|all| all.into_iter().next());
    let from = headers.from().ok().map(|from| from.uri);
    let to = headers.to().ok().map(|to| to.uri);
    let asserted = uri(Name::PAssertedIdentity).map(|asserted| asserted.uri);
    let caller = asserted.as_ref().or(from.as_ref()).map(dialled).unwrap_or_default();
    let text = |uri: Option<Uri>| uri.map(|uri| uri.as_str().to_owned());
    Attempt {
        source: peer.source,
        local: Some(peer.local),
        transport: peer.transport,
        certificates: peer.certificates.to_vec(),
        request_uri: invite.uri.as_str().to_owned(),
        from_uri: text(from).unwrap_or_default(),
        to_uri: text(to).unwrap_or_default(),
        asserted_identity: text(asserted),
        called: dialled(&invite.uri),
        caller,
        offer: negotiate::summary(offer),
        user_agent: headers.text(Name::UserAgent).map(str::to_owned),
        at: wall,
    }
}

/// The number or user that a URI names.
fn dialled(uri: &Uri) -> String {
    match uri.number() {
        Some(number) => number,
        None => uri.user_unescaped().map(|user| user.into_owned()).unwrap_or_default(),
    }
}

/// What stands against an INVITE before policy is asked (RFC 3261 section 8.2).
pub(crate) fn objection(invite: &Request) -> Option<Reason> {
    let headers = &invite.headers;
    // RFC 3261 section 8.2.2.1.
    if !matches!(invite.uri.scheme(), Scheme::Sip | Scheme::Sips | Scheme::Tel) {
        return Some(Reason::UnsupportedScheme);
    }
    // RFC 3261 section 16.3 asks a proxy; a B2BUA is two of them, so loops end here as well.
    if matches!(headers.max_forwards(), Ok(Some(0))) {
        return Some(Reason::TooManyHops);
    }
    // RFC 3261 section 8.2.2.3.
    if unsupported(invite).next().is_some() {
        return Some(Reason::BadExtension);
    }
    if headers.contact().is_err() {
        return Some(Reason::Malformed);
    }
    None
}

/// Option tags that are understood: `timer` (RFC 4028), `replaces` (RFC 3891 section 6.2), and
/// `100rel` (RFC 3262), which binds only who sends provisional responses other than 100.
pub(crate) const SUPPORTED: [&str; 3] = ["timer", "100rel", "replaces"];

/// The option tags of Require that are not understood.
pub(crate) fn unsupported(request: &Request) -> impl Iterator<Item = &str> {
    request
        .headers
        .list(Name::Require)
        .unwrap_or_default()
        .into_iter()
        .filter(|tag| !SUPPORTED.iter().any(|known| known.eq_ignore_ascii_case(tag)))
}

/// What the Accept of an answer to `method` lists (RFC 3261 section 20.1).
pub(crate) const fn accepted_by(method: &Method) -> &'static str {
    match method {
        Method::Info => "application/dtmf-relay, application/dtmf",
        _ => "application/sdp, multipart/mixed, multipart/alternative",
    }
}

/// The terms of the call where it is accepted and this edge can carry it; else the reason.
pub(crate) fn terms(setup: &Setup, decision: &Decision) -> Result<Box<policy::Accepted>, Reason> {
    match &decision.verdict {
        Verdict::Refuse(refusal) => Err(refusal.reason),
        Verdict::Accept(accepted) => match &accepted.destination {
            policy::Destination::Agent { name } if setup.agents.contains_key(name.as_str()) => {
                Ok(accepted.clone())
            }
            policy::Destination::Agent { .. } => Err(Reason::AgentUnavailable),
            policy::Destination::Trunk { .. } => Ok(accepted.clone()),
        },
    }
}
