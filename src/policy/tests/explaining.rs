//! What `callgate explain` prints, as golden files (`golden/*.txt`).

use base::limit;

use super::files::assert_golden;
use super::world::*;
use crate::{Attempt, Observed, Transport, decide, explain, load};

fn golden(name: &str, text: &str, call: &Attempt, observed: &Observed) {
    let explanation = explain(&policy(text), call, observed);
    assert_golden(&format!("golden/{name}.txt"), &explanation.to_string());
}

#[test]
fn an_accepted_call() {
    golden("accepted", POLICY, &good_call(), &busy("acme", 4, 1));
}

#[test]
fn an_accepted_call_over_exempted_plaintext() {
    let mut call = plain_call();
    call.offer.has_srtp = true;
    golden("accepted_plaintext", POLICY, &call, &idle());
}

#[test]
fn plaintext_of_a_trunk_that_is_not_exempted() {
    let call = Attempt { transport: Transport::Udp, ..good_call() };
    golden("plaintext_signalling", POLICY, &call, &idle());
}

#[test]
fn an_exemption_that_has_ended() {
    let later = Observed { wall: day(2027, 2, 1), ..idle() };
    golden("exemption_expired", POLICY, &plain_call(), &later);
}

#[test]
fn a_stranger() {
    let call = Attempt { source: socket("192.0.2.77"), ..good_call() };
    golden("unknown_peer", POLICY, &call, &idle());
}

#[test]
fn a_peer_with_the_wrong_certificate() {
    let text = POLICY.replace(
        "\"198.51.100.0/24\"]",
        "\"198.51.100.0/24\"], certificates = [\"sip.acme.example\"]",
    );
    let mut call = good_call();
    golden("no_certificate", &text, &call, &idle());
    call.certificates = vec!["new.acme.example".to_owned()];
    golden("other_certificate", &text, &call, &idle());
}

#[test]
fn plain_rtp() {
    let mut call = good_call();
    (call.offer.has_srtp, call.offer.has_plain) = (false, true);
    golden("plaintext_media", POLICY, &call, &idle());
}

#[test]
fn no_codec_in_common() {
    let mut call = good_call();
    call.offer.codecs = vec!["PCMU".to_owned()];
    golden("no_common_codec", POLICY, &call, &idle());
}

#[test]
fn no_route() {
    let call = Attempt { called: "+14155550100".to_owned(), ..good_call() };
    golden("no_route", POLICY, &call, &idle());
}

#[test]
fn a_route_that_refuses() {
    let call = Attempt { called: "1-900-555-0100".to_owned(), ..good_call() };
    golden("refused", POLICY, &call, &idle());
}

#[test]
fn a_trunk_at_its_limit() {
    golden("trunk_call_limit", POLICY, &good_call(), &busy("acme", 10, 0));
}

#[test]
fn a_draining_edge() {
    golden("draining", POLICY, &good_call(), &Observed { draining: true, ..idle() });
}

#[test]
fn a_call_that_would_be_sent_to_a_full_trunk() {
    let text = POLICY.replace("{ agent = \"echo\" }", "{ trunk = \"acme\" }");
    golden("target_full", &text, &plain_call(), &busy("acme", 10, 0));
}

#[test]
fn the_verdict_is_that_of_decide_and_the_first_failing_step_is_its_reason() {
    let policy = policy(POLICY);
    let mut calls = vec![good_call(), plain_call()];
    for change in [0, 1, 2, 3] {
        let mut call = good_call();
        match change {
            0 => (call.offer.has_srtp, call.offer.has_plain) = (false, true),
            1 => call.offer.codecs.clear(),
            2 => call.called = "+19001234567".to_owned(),
            _ => call.source = socket("192.0.2.1"),
        }
        calls.push(call);
    }
    for call in &calls {
        for observed in [idle(), busy("acme", 10, 9), Observed { draining: true, ..idle() }] {
            let explanation = explain(&policy, call, &observed);
            let decision = decide(&policy, call, &observed);
            assert_eq!(explanation.decision, decision);
            let failing = explanation.steps.iter().find(|step| !step.passes);
            if let Some(step) = failing {
                assert_eq!(step.reason, decision.refusal().map(|it| it.reason.code()));
            }
        }
    }
}

#[test]
fn values_from_outside_cannot_drive_the_terminal() {
    let call = Attempt {
        called: "\u{1b}[2Jbell\u{7}\u{202e}".to_owned(),
        request_uri: format!("sip:{}", "x".repeat(9_000)),
        ..good_call()
    };
    let printed = explain(&policy(POLICY), &call, &idle()).to_string();
    assert!(!printed.contains(|it: char| it.is_control() && it != '\n'));
    assert!(!printed.contains('\u{202e}') && printed.lines().all(|line| line.len() < 400));
}

#[test]
fn of_a_thousand_routes_only_those_that_matter_are_printed() {
    let mut text = POLICY.split("[[route]]").next().unwrap().to_owned();
    for number in 0..1000 {
        text += &format!(
            "[[route]]\nwhen = {{ called = {{ exact = \"+1800{number:07}\" }} }}\nrefuse = {{}}\n"
        );
    }
    text += "[[route]]\nname = \"the one\"\nsend_to = { agent = \"x\" }\n";
    assert!(1001 < limit::POLICY_ROUTES.get());
    let printed = explain(&policy(&text), &good_call(), &idle()).to_string();
    assert!(printed.lines().count() < 60, "{printed}");
    assert!(printed.contains("yes 1001 \"the one\"") && printed.contains("and 980 more"));
}

#[test]
fn an_empty_policy_refuses_everything_and_can_say_so() {
    let (empty, _) = load(&[], None).unwrap();
    let explanation = explain(&empty, &good_call(), &idle());
    assert_eq!(refusal(&explanation.decision), base::Reason::UnknownPeer);
    assert_eq!(explanation.change, None);
    assert!(explanation.to_string().contains("there are none"));
}

#[test]
fn a_carrier_that_calls_an_account_and_a_stranger_at_the_port_of_browsers() {
    let text = format!(
        "[trunk.browsers]\nfrom = {{ browsers = true, networks = [\"192.0.2.0/24\"] }}\n\
         [[route]]\nname = \"people\"\nwhen = {{ called = {{ exact = \"alice\" }} }}\n\
         send_to = {{ account = \"alice\" }}\n{POLICY}"
    );
    let call = Attempt { called: "alice".to_owned(), ..good_call() };
    golden("accepted_account", &text, &call, &idle());
    let far = Attempt { transport: Transport::Whip, ..call };
    golden("browser_elsewhere", &text, &far, &idle());
}
