//! Who may speak at all: DESIGN invariants 4.1 and 4.2.

use std::net::IpAddr;

use base::{Reason, WallTime};

use super::world::*;
use crate::{Admission, Attempt, Note, Policy, Protection, Transport, admit, decide};

fn ask(policy: &Policy, source: &str, transport: Transport, certificates: &[&str]) -> Admission {
    ask_at(policy, source, transport, certificates, idle().wall)
}

fn ask_at(
    policy: &Policy,
    source: &str,
    transport: Transport,
    certificates: &[&str],
    wall: WallTime,
) -> Admission {
    let certificates: Vec<String> = certificates.iter().map(|it| (*it).to_owned()).collect();
    let local = socket("192.0.2.250");
    admit(policy, source.parse::<IpAddr>().unwrap(), local, transport, &certificates, wall)
}

fn name(admission: &Admission) -> &str {
    match admission {
        Admission::Trunk(name) => name.as_str(),
        Admission::Refused { reason, .. } => reason.code(),
    }
}

fn refused(reason: Reason, trunk: Option<&str>) -> Admission {
    let tell = trunk.is_some();
    let trunk = trunk.map(base::TrunkName::new);
    Admission::Refused { reason, trunk, tell, silent: false }
}

#[test]
fn plaintext_from_a_stranger_is_refused_and_learns_nothing() {
    let policy = policy(POLICY);
    for transport in [Transport::Udp, Transport::Tcp, Transport::Ws] {
        let answer = ask(&policy, "192.0.2.1", transport, &[]);
        assert_eq!(answer, refused(Reason::PlaintextSignalling, None));
    }
}

#[test]
fn plaintext_from_a_trunk_without_exemption_is_refused_and_told() {
    let answer = ask(&policy(POLICY), "198.51.100.9", Transport::Udp, &[]);
    assert_eq!(answer, refused(Reason::PlaintextSignalling, Some("acme")));
}

#[test]
fn an_exemption_covers_only_the_transports_that_the_trunk_lists() {
    let policy = policy(POLICY);
    assert_eq!(name(&ask(&policy, "203.0.113.7", Transport::Udp, &[])), "lab");
    for other in [Transport::Tcp, Transport::Ws] {
        let answer = ask(&policy, "203.0.113.7", other, &[]);
        assert_eq!(answer, refused(Reason::PlaintextSignalling, Some("lab")));
    }
}

#[test]
fn an_exemption_holds_to_the_last_millisecond_of_its_day_and_not_longer() {
    let policy = policy(POLICY);
    let end = day(2027, 2, 1);
    let last = WallTime::from_unix_millis(end.unix_millis() - 1);
    assert_eq!(name(&ask_at(&policy, "203.0.113.7", Transport::Udp, &[], last)), "lab");
    let after = ask_at(&policy, "203.0.113.7", Transport::Udp, &[], end);
    assert_eq!(after, refused(Reason::ExemptionExpired, Some("lab")));
    assert_eq!(name(&ask_at(&policy, "203.0.113.7", Transport::Tls, &[], end)), "lab");
}

#[test]
fn plaintext_ports_are_open_only_while_some_trunk_is_exempted() {
    let policy = policy(POLICY);
    let open: Vec<_> = policy.plaintext_transports(day(2027, 1, 31)).into_iter().collect();
    assert_eq!(open, [Transport::Udp]);
    assert!(policy.plaintext_transports(day(2027, 2, 1)).is_empty());
    let dialled = super::world::policy(
        "[trunk.a]\nsend_to = [\"sip:a.example;transport=udp\", \"sip:a.example;transport=tcp\"]\n\
         exempt.signalling = { reason = \"x\", expires = 2027-01-31 }",
    );
    let open: Vec<_> = dialled.plaintext_transports(idle().wall).into_iter().collect();
    assert_eq!(open, [Transport::Udp], "answers come back to it; TCP answers on its connection");
    let local = super::world::policy("[trunk.a]\nfrom = { networks = [\"10.0.0.1\"] }");
    assert!(local.plaintext_transports(idle().wall).is_empty());
}

#[test]
fn endings_are_announced_thirty_days_ahead() {
    let policy = policy(POLICY);
    assert!(policy.expiring(day(2026, 12, 31), 30).is_empty());
    let soon = policy.expiring(day(2027, 1, 1), 30);
    assert_eq!(soon.len(), 2, "signalling and media");
    assert_eq!((soon[0].trunk.as_str(), soon[0].days_left, soon[0].ended), ("lab", 30, false));
    assert!(policy.expiring(day(2027, 2, 1), 30).iter().all(|it| it.ended && it.days_left == 0));
    let warning = policy.check_dates(day(2027, 1, 20))[0].to_string();
    assert!(warning.contains("signalling exemption of `lab` ends in 11 days"), "{warning}");
    assert!(warning.contains("policy.toml:12:"), "{warning}");
    assert!(policy.check_dates(day(2027, 2, 1))[0].to_string().contains("has ended"));
}

#[test]
fn a_stranger_over_tls_is_refused_and_learns_nothing() {
    let answer = ask(&policy(POLICY), "192.0.2.1", Transport::Tls, &["other.example"]);
    assert_eq!(answer, refused(Reason::UnknownPeer, None));
}

#[test]
fn a_known_trunk_on_an_encrypted_transport_it_does_not_use_is_told_so() {
    let text = "[trunk.b]\nfrom = { browsers = true }\ntransports = [\"whip\"]\n";
    let answer = ask(&policy(text), "198.51.100.9", Transport::Wss, &[]);
    assert_eq!(answer, refused(Reason::TransportNotAllowed, Some("b")));
    // A browser is no carrier, whatever network it is in.
    let answer = ask(&policy(POLICY), "198.51.100.9", Transport::Wss, &[]);
    assert_eq!(answer, refused(Reason::UnknownPeer, None));
}

#[test]
fn where_networks_and_certificates_are_asked_for_both_must_hold() {
    let policy = policy(
        "[trunk.both]\nfrom.networks = [\"10.0.0.0/8\"]\n\
         from.certificates = [\"SIP.acme.example\"]\n\
         [trunk.cert]\nfrom = { certificates = [\"rhein.example\"] }\n",
    );
    let cases: &[(&str, &[&str], &str)] = &[
        ("10.1.1.1", &["sip.acme.example"], "both"),
        ("10.1.1.1", &["x.example", "Sip.Acme.Example"], "both"),
        ("10.1.1.1", &["sip:sip.acme.example"], "both"),
        ("10.1.1.1", &["sip:alice@sip.acme.example"], "policy.unknown_peer"),
        ("10.1.1.1", &["a.sip.acme.example"], "policy.unknown_peer"),
        ("10.1.1.1", &[], "policy.unknown_peer"),
        ("192.0.2.1", &["sip.acme.example"], "policy.unknown_peer"),
        ("192.0.2.1", &["rhein.example"], "cert"),
        ("2001:db8::1", &["rhein.example"], "cert"),
    ];
    for (source, certificates, expected) in cases {
        let answer = ask(&policy, source, Transport::Tls, certificates);
        assert_eq!(name(&answer), *expected, "{source} {certificates:?}");
    }
}

#[test]
fn an_ipv4_peer_on_a_dual_stack_socket_is_the_same_peer() {
    let answer = ask(&policy(POLICY), "::ffff:198.51.100.9", Transport::Tls, &[]);
    assert_eq!(name(&answer), "acme");
}

#[test]
fn of_two_trunks_that_fit_the_first_in_the_file_wins_and_a_fitting_transport_comes_before() {
    let text = "[trunk.zulu]\nfrom = { networks = [\"10.0.0.0/8\"] }\n\
                [trunk.alpha]\nfrom = { networks = [\"10.0.0.0/8\"] }\n\
                transports = [\"tls\", \"tcp\"]\n\
                exempt.signalling = { reason = \"x\", expires = 2027-01-31 }\n";
    let policy = policy(text);
    assert_eq!(name(&ask(&policy, "10.0.0.1", Transport::Tls, &[])), "zulu");
    assert_eq!(name(&ask(&policy, "10.0.0.1", Transport::Tcp, &[])), "alpha");
}

#[test]
fn silence_is_a_choice_of_the_trunk_or_for_strangers_of_the_defaults() {
    let text = "[defaults]\nrefuse = \"silent\"\n\
                [trunk.a]\nfrom = { networks = [\"10.0.0.1\"] }\nrefuse = \"answer\"\n\
                [trunk.b]\nfrom = { networks = [\"10.0.0.2\"] }\n";
    let policy = policy(text);
    for (source, expected) in [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.3", true)] {
        match ask(&policy, source, Transport::Udp, &[]) {
            Admission::Refused { silent, tell, trunk, .. } => {
                assert_eq!(silent, expected, "{source}");
                assert_eq!(tell, trunk.is_some() && !silent, "silence tells nothing");
            }
            Admission::Trunk(name) => panic!("{name}"),
        }
        let call = Attempt { source: socket(source), transport: Transport::Udp, ..good_call() };
        assert_eq!(decide(&policy, &call, &idle()).refusal().unwrap().silent, expected);
    }
}

#[test]
fn plain_rtp_is_refused_on_every_trunk_without_a_media_exemption() {
    let mut call = good_call();
    (call.offer.has_srtp, call.offer.has_plain) = (false, true);
    let decision = decide_good(&call);
    let refusal = decision.refusal().unwrap();
    assert_eq!((refusal.reason, refusal.status, refusal.tell), (Reason::PlaintextMedia, 488, true));
    call.offer.has_srtp = true;
    assert!(decide_good(&call).accepted().is_some(), "SRTP beside plain RTP is enough");
}

#[test]
fn an_exempted_trunk_may_use_plain_rtp_from_its_networks_until_the_day_ends() {
    let decision = decide_good(&plain_call());
    let accepted = decision.accepted().unwrap();
    assert_eq!(accepted.terms.srtp_inbound, Protection::Optional);
    assert_eq!(accepted.terms.srtp_outbound, Protection::Required, "only inbound is exempted");
    assert_eq!(accepted.terms.plain_media_from, ["203.0.113.7/32".parse().unwrap()]);
    assert_eq!(decision.notes, [Note::PlaintextMediaAllowed]);

    let mut over_tls = plain_call();
    over_tls.transport = Transport::Tls;
    let mut later = idle();
    later.wall = day(2027, 2, 1);
    let decision = decide(&policy(POLICY), &over_tls, &later);
    assert_eq!(refusal(&decision), Reason::PlaintextMedia);
    over_tls.offer.has_srtp = true;
    let decision = decide(&policy(POLICY), &over_tls, &later);
    let terms = &decision.accepted().unwrap().terms;
    assert_eq!(terms.srtp_inbound, Protection::Required);
    assert!(terms.plain_media_from.is_empty());
}

#[test]
fn srtp_over_exempted_plaintext_is_marked_as_keys_exposed() {
    let mut call = plain_call();
    call.offer.has_srtp = true;
    assert!(decide_good(&call).notes.contains(&Note::KeysExposed));
    call.offer.present = false;
    assert!(decide_good(&call).notes.contains(&Note::KeysExposed), "our own offer has keys");
    call.transport = Transport::Tls;
    assert!(!decide_good(&call).notes.contains(&Note::KeysExposed));
}

#[test]
fn an_invite_without_offer_is_admitted() {
    let mut call = good_call();
    call.offer = crate::Offer::default();
    let decision = decide_good(&call);
    let terms = &decision.accepted().unwrap().terms;
    assert_eq!(terms.codecs.len(), 3, "all of the trunk's, for our offer");
    assert_eq!(terms.srtp_inbound, Protection::Required);
}

#[test]
fn an_offer_without_audio_is_refused_as_such() {
    let mut call = good_call();
    (call.offer.has_srtp, call.offer.has_plain) = (false, false);
    assert_eq!(refusal(&decide_good(&call)), Reason::NoAudio);
}

#[test]
fn personal_values_do_not_reach_debug_output() {
    let printed = format!("{:?} {:?}", good_call(), decide_good(&good_call()));
    for secret in ["5550100", "5550123", "198.51.100.9"] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
}
