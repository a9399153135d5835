//! Trunk policy files.

use std::net::{Ipv4Addr, SocketAddr};

use base::{Date, WallTime};
use policy::{Attempt, Observed, Offer, Transport};

/// One policy file. What loads decides every call, and explains it with the same verdict; what
/// does not says where and why.
pub fn policy_file(data: &[u8]) {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let policy = match policy::load(&[("fuzz.toml", text)], Some(&["reception"])) {
        Ok((policy, warnings)) => {
            warnings.iter().for_each(|it| drop(it.to_string()));
            policy
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused without a reason");
            for finding in &errors.0 {
                assert!(finding.line <= text.matches('\n').count() + 1, "{finding}");
                let _ = finding.to_string();
            }
            return;
        }
    };
    let observed = Observed { wall: wall(), ..Observed::default() };
    let _ = (policy.fingerprint(), policy.check_dates(observed.wall), policy.agents());
    let _ = policy.plaintext_transports(observed.wall);
    for attempt in attempts() {
        let decision = policy::decide(&policy, &attempt, &observed);
        let explanation = policy::explain(&policy, &attempt, &observed);
        assert_eq!(explanation.decision, decision, "explain tells of another decision");
        let _ = explanation.to_string();
    }
}

fn wall() -> WallTime {
    let days = Date::new(2026, 11, 23).map_or(0, Date::days);
    WallTime::from_unix_millis(days * 86_400_000)
}

/// A TLS call with SRTP, and a UDP call without.
fn attempts() -> [Attempt; 2] {
    let secure = Attempt {
        source: SocketAddr::from((Ipv4Addr::new(198, 51, 100, 9), 40_000)),
        local: None,
        transport: Transport::Tls,
        certificates: vec!["sip.acme.example".to_owned()],
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
            codecs: vec!["PCMA".to_owned(), "opus".to_owned()],
        },
        user_agent: None,
        at: wall(),
    };
    let mut plain = secure.clone();
    plain.source = SocketAddr::from((Ipv4Addr::new(203, 0, 113, 7), 5060));
    plain.transport = Transport::Udp;
    plain.certificates = Vec::new();
    plain.called = "reception".to_owned();
    (plain.offer.has_srtp, plain.offer.has_plain) = (false, true);
    [secure, plain]
}
