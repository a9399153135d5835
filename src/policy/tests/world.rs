//! What the stories share: a call that a good policy admits, and ways to change it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use base::{Date, WallTime};

use crate::{
    Attempt, Decision, Observed, Offer, Policy, Transport, TrunkObserved, Warning, decide, load,
};

/// One trunk over TLS and one exempted until the end of January 2027.
pub(super) const POLICY: &str = r#"
[trunk.acme]
from       = { networks = ["198.51.100.0/24"] }
send_to    = ["sip:sip.acme.example;transport=tls"]
codecs     = ["opus", "g722", "pcma"]
limits     = { calls = 10, calls_per_second = 3 }
numbers    = { country = "+1", international = "011", national = "1" }

[trunk.lab]
from              = { networks = ["203.0.113.7/32"] }
transports        = ["tls", "udp"]
exempt.signalling = { reason = "NET-4711", expires = 2027-01-31 }
exempt.media      = { reason = "NET-4711", expires = 2027-01-31, inbound = true }

[[route]]
name   = "premium"
when   = { called = { prefix = "+1900" } }
refuse = { status = 603 }

[[route]]
name    = "toll free"
when    = { trunk = "acme", called = { prefix = "+1800" } }
send_to = { agent = "reception" }

[[route]]
when    = { trunk = "lab" }
send_to = { agent = "echo" }
"#;

pub(super) fn policy(text: &str) -> Policy {
    match load(&[("policy.toml", text)], None) {
        Ok((policy, _)) => policy,
        Err(errors) => panic!("{errors}"),
    }
}

pub(super) fn warnings(text: &str, agents: &[&str]) -> Vec<Warning> {
    match load(&[("policy.toml", text)], Some(agents)) {
        Ok((_, warnings)) => warnings,
        Err(errors) => panic!("{errors}"),
    }
}

/// The messages of the errors of `text`, with their lines.
pub(super) fn errors(text: &str) -> Vec<(usize, String)> {
    match load(&[("policy.toml", text)], None) {
        Ok(_) => panic!("this should not load:\n{text}"),
        Err(errors) => errors.0.into_iter().map(|it| (it.line, it.message)).collect(),
    }
}

/// The start of a day, UTC.
pub(super) fn day(year: u16, month: u8, day: u8) -> WallTime {
    let days = Date::new(year, month, day).unwrap().days();
    WallTime::from_unix_millis(days * 86_400_000)
}

pub(super) fn socket(address: &str) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), 40_000)
}

/// A toll-free call from ACME over TLS with SRTP.
pub(super) fn good_call() -> Attempt {
    Attempt {
        source: socket("198.51.100.9"),
        local: None,
        transport: Transport::Tls,
        certificates: Vec::new(),
        request_uri: "sip:+18005550100@edge.example".to_owned(),
        from_uri: "sip:+12125550123@acme.example".to_owned(),
        to_uri: "sip:+18005550100@edge.example".to_owned(),
        asserted_identity: None,
        called: "+18005550100".to_owned(),
        caller: "+12125550123".to_owned(),
        offer: Offer {
            present: true,
            has_srtp: true,
            has_plain: false,
            codecs: vec!["PCMA".to_owned(), "G722".to_owned(), "telephone-event".to_owned()],
        },
        user_agent: None,
        at: day(2026, 11, 23),
    }
}

/// The same call from the lab over UDP with plain RTP.
pub(super) fn plain_call() -> Attempt {
    let mut call =
        Attempt { source: socket("203.0.113.7"), transport: Transport::Udp, ..good_call() };
    call.offer.has_srtp = false;
    call.offer.has_plain = true;
    call
}

/// An idle edge on 23 November 2026.
pub(super) fn idle() -> Observed {
    Observed { wall: day(2026, 11, 23), ..Observed::default() }
}

/// An edge with one busy trunk.
pub(super) fn busy(trunk: &str, calls: u32, recent_rate: u32) -> Observed {
    let stood = TrunkObserved { calls, recent_rate, healthy: true };
    Observed { trunks: BTreeMap::from([(trunk.to_owned(), stood)]), ..idle() }
}

pub(super) fn refusal(decision: &Decision) -> base::Reason {
    match decision.refusal() {
        Some(refusal) => refusal.reason,
        None => panic!("this call should be refused"),
    }
}

pub(super) fn decide_good(call: &Attempt) -> Decision {
    decide(&policy(POLICY), call, &idle())
}
