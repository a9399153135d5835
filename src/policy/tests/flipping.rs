//! The smallest change, really made: the texts are changed, loaded and asked again.

use super::world::*;
use crate::{Attempt, Change, Observed, Transport, decide, explain, load};

/// Makes the changes that `explain` suggests and returns whether the verdict flipped, with them.
fn flip(text: &str, call: &Attempt, observed: &Observed) -> (bool, Vec<Change>) {
    let before = policy(text);
    let explanation = explain(&before, call, observed);
    let changes = explanation.change.clone().unwrap_or_default();
    assert!(!changes.is_empty(), "no change is suggested:\n{explanation}");
    let mut changed = text.to_owned();
    for change in &changes {
        changed = change.apply(&changed).unwrap();
    }
    let after = match load(&[("policy.toml", &changed)], None) {
        Ok((policy, _)) => policy,
        Err(errors) => panic!("{changed}\n{errors}"),
    };
    let accepted = |policy: &crate::Policy| decide(policy, call, observed).accepted().is_some();
    (accepted(&before) != accepted(&after), changes)
}

fn assert_flips(text: &str, call: &Attempt, observed: &Observed) -> Vec<Change> {
    let (flipped, changes) = flip(text, call, observed);
    assert!(flipped, "{changes:#?}");
    changes
}

#[test]
fn an_accepted_call_flips_by_a_route_in_front() {
    let changes = assert_flips(POLICY, &good_call(), &idle());
    assert_eq!(changes.len(), 1);
    assert!(changes[0].toml.contains("refuse = { status = 603 }"), "{changes:?}");
}

#[test]
fn every_refusal_that_the_policy_causes_flips() {
    let plain = {
        let mut call = good_call();
        (call.offer.has_srtp, call.offer.has_plain) = (false, true);
        call
    };
    let codec = {
        let mut call = good_call();
        call.offer.codecs = vec!["PCMU".to_owned()];
        call
    };
    let later = Observed { wall: day(2027, 2, 1), ..idle() };
    let cases = [
        (Attempt { source: socket("192.0.2.7"), ..good_call() }, idle(), 2),
        (Attempt { source: socket("198.51.77.7"), ..good_call() }, idle(), 1),
        (Attempt { transport: Transport::Udp, ..good_call() }, idle(), 2),
        (Attempt { transport: Transport::Wss, ..good_call() }, idle(), 2),
        (Attempt { source: socket("192.0.2.7"), ..plain_call() }, idle(), 3),
        (plain_call(), later, 2),
        (plain, idle(), 1),
        (codec, idle(), 1),
        (good_call(), busy("acme", 10, 0), 1),
        (good_call(), busy("acme", 0, 3), 1),
        (good_call(), busy("acme", 10, 3), 2),
        (Attempt { called: "+14155550100".to_owned(), ..good_call() }, idle(), 1),
        (Attempt { called: "reception".to_owned(), ..good_call() }, idle(), 1),
        (Attempt { called: "o\"b\\r\u{7}".to_owned(), ..good_call() }, idle(), 1),
        (Attempt { called: String::new(), ..good_call() }, idle(), 1),
        (Attempt { called: "+19005550100".to_owned(), ..good_call() }, idle(), 1),
    ];
    for (call, observed, steps) in cases {
        let changes = assert_flips(POLICY, &call, &observed);
        assert_eq!(changes.len(), steps, "{changes:#?}");
    }
}

#[test]
fn a_peer_that_proves_its_certificate_gets_its_network_and_the_other_way_round() {
    let text = "[trunk.a]\nfrom = { networks = [\"10.0.0.0/8\"], certificates = [\"a.example\"] }\n\
                [[route]]\nsend_to = { agent = \"x\" }\n";
    let mut call = good_call();
    call.certificates = vec!["a.example".to_owned()];
    let changes = assert_flips(text, &call, &idle());
    assert_eq!(changes[0].toml, "from.networks = [\"10.0.0.0/8\", \"198.51.100.9/32\"]");
    call.source = socket("10.0.0.1");
    call.certificates = vec!["b.example".to_owned()];
    let changes = assert_flips(text, &call, &idle());
    assert_eq!(changes[0].toml, "from.certificates = [\"a.example\", \"b.example\"]");
}

#[test]
fn the_change_follows_the_way_in_which_a_file_is_written() {
    let route = "[[route]]\nsend_to = { agent = \"x\" }\n";
    let heads = [
        "[trunk.a]\nfrom = { networks = [\"198.51.100.0/24\"] }\n",
        "[trunk.a]\nfrom.networks = [\"198.51.100.0/24\"]\n",
        "[trunk.a]\n[trunk.a.from]\nnetworks = [\"198.51.100.0/24\"]\n",
        "[trunk.a.from]\nnetworks = [\"198.51.100.0/24\"]\n",
        "trunk.a = { from = { networks = [\"198.51.100.0/24\"] } }\n",
        "trunk.a.from.networks = [\"198.51.100.0/24\"]\n",
        "[trunk.a]\nlimits = {}\nfrom.networks = [\"198.51.100.0/24\"]\n",
        "[trunk.a]\nlimits.calls = 7\nfrom.networks = [\"198.51.100.0/24\"]\n",
        "[trunk.a] # the carrier\n# limits\nfrom.networks = [\"198.51.100.0/24\"]\n",
        "[trunk.a]\r\nfrom = { networks = [\"198.51.100.0/24\"] }\r\n",
        "[trunk.\"a\"]\nfrom.networks = [\"198.51.100.0/24\"]\n",
    ];
    let plain = {
        let mut call = good_call();
        (call.offer.has_srtp, call.offer.has_plain) = (false, true);
        call
    };
    let udp = Attempt { transport: Transport::Udp, ..good_call() };
    let mut failed = Vec::new();
    for head in heads {
        let text = format!("{head}{route}");
        for call in [&udp, &plain] {
            if explain(&policy(&text), call, &idle()).change.is_none() {
                failed.push(head);
            } else {
                assert_flips(&text, call, &idle());
            }
        }
    }
    // Dotted keys at the top of a file leave no header to write under; nothing wrong is suggested.
    failed.dedup();
    assert_eq!(failed, ["trunk.a.from.networks = [\"198.51.100.0/24\"]\n"]);
}

#[test]
fn an_exemption_that_ended_is_renewed_in_place() {
    let later = Observed { wall: day(2027, 2, 1), ..idle() };
    let changes = assert_flips(POLICY, &plain_call(), &later);
    assert_eq!(changes[0].toml, "exempt.signalling.expires = 2027-03-03");
    assert_eq!((changes[0].file.as_str(), changes[0].line), ("policy.toml", 12));
}

#[test]
fn srtp_that_is_required_in_so_many_words_is_made_optional_too() {
    let text =
        POLICY.replace("transports        =", "srtp.inbound = \"required\"\ntransports        =");
    let call = Attempt { transport: Transport::Tls, ..plain_call() };
    let changes = assert_flips(&text, &call, &idle());
    assert_eq!(changes.last().unwrap().toml, "srtp.inbound = \"optional\"");
}

#[test]
fn comments_and_the_rest_of_the_file_stay() {
    let text = format!("# top\n{POLICY}\n# end");
    let call = Attempt { called: "+14155550100".to_owned(), ..good_call() };
    let changes = assert_flips(&text, &call, &idle());
    let changed = changes[0].apply(&text).unwrap();
    assert!(changed.starts_with(&text));
}

#[test]
fn a_route_goes_in_front_of_the_comments_of_the_route_it_overtakes() {
    let text = POLICY.replace(
        "[[route]]\nname   = \"premium\"",
        "# no premium\n[[route]]\nname   = \"premium\"",
    );
    let call = Attempt { called: "+19005550100".to_owned(), ..good_call() };
    let changes = assert_flips(&text, &call, &idle());
    let changed = changes[0].apply(&text).unwrap();
    assert!(changed.contains("# no premium\n[[route]]\nname   = \"premium\""), "{changed}");
}

#[test]
fn what_no_policy_can_change_gets_no_suggestion() {
    let draining = Observed { draining: true, ..idle() };
    let mut unknown_codec = good_call();
    unknown_codec.offer.codecs = vec!["G729".to_owned()];
    let mut no_audio = good_call();
    (no_audio.offer.has_srtp, no_audio.offer.has_plain) = (false, false);
    for (call, observed) in [(good_call(), draining), (unknown_codec, idle()), (no_audio, idle())] {
        let explanation = explain(&policy(POLICY), &call, &observed);
        assert_eq!(explanation.change, None);
        assert!(explanation.advice.is_some());
    }
}
