//! Where calls go, and the limits on the way.

use base::{Reason, limit};

use super::world::*;
use crate::{Codec, Decision, Destination, Keep, Observed, Policy, TrunkObserved, decide};

fn agent(decision: &Decision) -> String {
    match decision.accepted().map(|it| &it.destination) {
        Some(Destination::Agent { name }) => name.to_string(),
        _ => panic!("this call should reach a voice agent"),
    }
}

fn targets(decision: &Decision) -> Vec<String> {
    match decision.accepted().map(|it| &it.destination) {
        Some(Destination::Trunk { targets }) => {
            targets.iter().map(|it| it.trunk.to_string()).collect()
        }
        _ => panic!("this call should reach a trunk: {:?}", decision.refusal()),
    }
}

#[test]
fn the_first_route_that_matches_decides() {
    let decision = decide_good(&good_call());
    assert_eq!(agent(&decision), "reception");
    assert_eq!((decision.route, decision.route_name.as_deref()), (Some(2), Some("toll free")));
    assert_eq!(decision.trunk.as_ref().unwrap().as_str(), "acme");
    let terms = &decision.accepted().unwrap().terms;
    assert_eq!((terms.recording, terms.transcript), (Keep::Never, Keep::Allowed));
}

#[test]
fn no_route_means_refused() {
    let mut call = good_call();
    call.called = "+442012345678".to_owned();
    let decision = decide_good(&call);
    assert_eq!(refusal(&decision), Reason::NoRoute);
    assert_eq!(decision.route, None);
    assert_eq!(decision.refusal().unwrap().status, 404);
}

#[test]
fn a_route_refuses_with_the_status_it_names() {
    let mut call = good_call();
    call.called = "+19005550100".to_owned();
    let decision = decide_good(&call);
    assert_eq!(refusal(&decision), Reason::RefusedByRoute);
    let busy = POLICY.replace("status = 603", "status = 486");
    let decision = decide(&policy(&busy), &call, &idle());
    assert_eq!(decision.refusal().unwrap().status, 486);
    assert_eq!(decision.route_name.as_deref(), Some("premium"));
}

#[test]
fn numbers_are_normalised_as_their_trunk_writes_them_before_routes_look() {
    for written in ["18005550100", "01118005550100", "+1 (800) 555-0100"] {
        let mut call = good_call();
        call.called = written.to_owned();
        let decision = decide_good(&call);
        assert_eq!(decision.accepted().unwrap().called, "+18005550100", "{written}");
    }
}

#[test]
fn every_kind_of_condition_works() {
    let table = [
        ("called = { exact = \"+18005550100\" }", true),
        ("called = { exact = \"+1800555010\" }", false),
        ("called = { prefix = \"+1800\", pattern = \"*0100\" }", true),
        ("called = { prefix = \"+1800\", pattern = \"*0101\" }", false),
        ("called = { pattern = \"+1800555????\" }", true),
        ("called = { user = \"1-800-555-0100\" }", true),
        ("called = { user = \"+18005550100\" }", false),
        ("caller = { prefix = \"+1212\" }", true),
        ("caller = { prefix = \"+1213\" }", false),
        ("transport = \"tls\"", true),
        ("transport = \"wss\"", false),
        ("trunk = \"acme\"", true),
    ];
    let mut call = good_call();
    call.called = "1-800-555-0100".to_owned();
    let head = POLICY.split("[[route]]").next().unwrap();
    for (condition, expected) in table {
        let text =
            format!("{head}[[route]]\nwhen = {{ {condition} }}\nsend_to = {{ agent = \"a\" }}");
        let decision = decide(&policy(&text), &call, &idle());
        assert_eq!(decision.accepted().is_some(), expected, "{condition}");
    }
}

#[test]
fn codecs_are_those_of_the_offer_in_the_order_of_the_trunk() {
    let decision = decide_good(&good_call());
    assert_eq!(decision.accepted().unwrap().terms.codecs, [Codec::G722, Codec::Pcma]);
    let mut call = good_call();
    call.offer.codecs = vec!["PCMU".to_owned(), "G729".to_owned()];
    assert_eq!(refusal(&decide_good(&call)), Reason::NoCommonCodec);
}

#[test]
fn limits_of_the_trunk_refuse_with_retry_after() {
    for (calls, rate, expected) in
        [(9, 2, None), (10, 0, Some(Reason::TrunkCallLimit)), (0, 3, Some(Reason::TrunkRateLimit))]
    {
        let decision = decide(&policy(POLICY), &good_call(), &busy("acme", calls, rate));
        assert_eq!(decision.refusal().map(|it| it.reason), expected);
        if let Some(refusal) = decision.refusal() {
            assert_eq!(refusal.status, 503);
            assert!(refusal.retry_after_seconds.is_some_and(|seconds| seconds > 0));
        }
    }
}

#[test]
fn a_full_or_draining_edge_takes_no_new_calls() {
    let full = Observed { edge_calls: limit::CALL_CONCURRENT.value as u32, ..idle() };
    let small = Observed { edge_calls: 5, edge_calls_most: Some(5), ..idle() };
    let large = Observed { edge_calls_most: Some(9_000), ..full.clone() };
    assert_eq!(refusal(&decide(&policy(POLICY), &good_call(), &full)), Reason::EdgeCallLimit);
    // As its owner has set it.
    assert_eq!(refusal(&decide(&policy(POLICY), &good_call(), &small)), Reason::EdgeCallLimit);
    assert!(decide(&policy(POLICY), &good_call(), &large).refusal().is_none());
    let draining = Observed { draining: true, ..idle() };
    let decision = decide(&policy(POLICY), &good_call(), &draining);
    assert_eq!(refusal(&decision), Reason::Draining);
    assert!(decision.refusal().unwrap().retry_after_seconds.is_some());
}

const SHARED: &str = r#"
[trunk.in]
from = { networks = ["198.51.100.0/24"] }
[trunk.one]
send_to = ["sip:one.example"]
limits = { calls = 5 }
[trunk.two]
send_to = ["sip:two.example"]
[trunk.old]
send_to = ["sip:old.example;transport=udp"]
exempt.signalling = { reason = "x", expires = 2027-01-31 }
[[route]]
[route.send_to]
trunks = [{ name = "one", weight = 3 }, { name = "two", weight = 1 }, { name = "old" }]
"#;

fn draw(policy: &Policy, number: u32, observed: &Observed) -> Vec<String> {
    let mut call = good_call();
    call.called = format!("+1800{number:07}");
    targets(&decide(policy, &call, observed))
}

#[test]
fn calls_are_shared_by_weight_and_the_rest_is_for_failover() {
    let policy = policy(SHARED);
    let mut first = 0;
    for number in 0..4000 {
        let order = draw(&policy, number, &idle());
        assert_eq!(order.len(), 3);
        assert_eq!(order[2], "old", "without weight it comes last");
        first += u32::from(order[0] == "one");
    }
    assert!((2850..3150).contains(&first), "three quarters of 4000, got {first}");
}

#[test]
fn the_same_attempt_draws_the_same_trunks() {
    let policy = policy(SHARED);
    assert_eq!(draw(&policy, 7, &idle()), draw(&policy, 7, &idle()));
}

#[test]
fn a_trunk_that_is_full_is_skipped_and_one_that_does_not_answer_comes_last() {
    let policy = policy(SHARED);
    assert!(!draw(&policy, 1, &busy("one", 5, 0)).contains(&"one".to_owned()));
    let mut sick = busy("one", 0, 0);
    let stood = TrunkObserved { healthy: false, ..TrunkObserved::default() };
    sick.trunks.insert("one".to_owned(), stood);
    assert_eq!(draw(&policy, 1, &sick), ["two", "old", "one"]);
}

#[test]
fn a_plaintext_target_is_dialled_only_while_exempted_and_marks_the_call() {
    let policy = policy(SHARED);
    let decision = decide(&policy, &good_call(), &idle());
    assert!(decision.notes.contains(&crate::Note::KeysExposed));
    let later = Observed { wall: day(2027, 2, 1), ..idle() };
    let decision = decide(&policy, &good_call(), &later);
    assert_eq!(targets(&decision).len(), 2);
    assert!(decision.notes.is_empty());
}

#[test]
fn where_no_target_is_left_the_reason_is_the_last_targets() {
    let text = SHARED.split("[[route]]").next().unwrap().to_owned();
    let full = text.clone() + "[[route]]\nsend_to = { trunk = \"one\" }";
    let decision = decide(&policy(&full), &good_call(), &busy("one", 5, 0));
    assert_eq!(refusal(&decision), Reason::TrunkCallLimit);
    let ended = text + "[[route]]\nsend_to = { trunk = \"old\" }";
    let later = Observed { wall: day(2027, 2, 1), ..idle() };
    let decision = decide(&policy(&ended), &good_call(), &later);
    assert_eq!(refusal(&decision), Reason::ExemptionExpired);
}

#[test]
fn attempts_observations_and_decisions_survive_storage() {
    for call in [good_call(), plain_call()] {
        for observed in [idle(), busy("acme", 10, 1)] {
            for text in [POLICY, SHARED] {
                let decision = decide(&policy(text).with_version(7), &call, &observed);
                assert_eq!(decision.policy_version, 7);
                let json = serde_json::to_string(&(&call, &observed, &decision)).unwrap();
                let back: (crate::Attempt, Observed, Decision) =
                    serde_json::from_str(&json).unwrap();
                assert_eq!(back, (call.clone(), observed.clone(), decision));
            }
        }
    }
}

#[test]
fn the_fingerprint_tells_policies_apart() {
    let (one, two) =
        (policy(POLICY), policy(&POLICY.replace("500", "501").replace("4711", "4712")));
    assert_ne!(one.fingerprint(), two.fingerprint());
    assert_eq!(one.fingerprint(), policy(POLICY).fingerprint());
    assert_eq!(one.fingerprint().len(), 16);
}

#[test]
fn how_long_a_target_is_waited_for_and_when_the_next_is_tried_is_policys() {
    let text = "[defaults]\nring = \"90s\"\n\
                [trunk.acme]\nfrom = { networks = [\"198.51.100.0/24\"] }\n\
                send_to = [\"sip:a.example\"]\nfirst_response = \"2s\"\n\
                [trunk.beta]\nsend_to = [\"sip:b.example\"]\nring = \"20s\"\n\
                [[route]]\nwhen = { called = { prefix = \"+1800\" } }\n\
                send_to = { trunks = [{ name = \"acme\" }, { name = \"beta\" }] }\n\
                failover = [403, \"5xx\"]\n\
                [[route]]\nsend_to = { trunk = \"beta\" }\n";
    let policy = policy(text);
    let targets = |call: &crate::Attempt| match decide(&policy, call, &idle()).verdict {
        crate::Verdict::Accept(accepted) => match accepted.destination {
            Destination::Trunk { targets } => targets,
            Destination::Agent { .. } => panic!("no agent"),
        },
        crate::Verdict::Refuse(refusal) => panic!("{refusal:?}"),
    };
    let found = targets(&good_call());
    let seconds: Vec<(u64, u64)> = found
        .iter()
        .map(|it| (it.terms.first_response.as_secs(), it.terms.ring.as_secs()))
        .collect();
    assert_eq!(seconds, [(2, 90), (4, 20)]);
    let goes_on = |status| found[1].failover.iter().any(|it| it.contains(status));
    assert!(goes_on(403) && goes_on(599) && !goes_on(404) && !goes_on(603));
    let shown = crate::explain(&policy, &good_call(), &idle()).to_string();
    let line = "  acme: first response within 2s, rings 90s, failover after 403, 5xx\n";
    assert!(shown.contains(line), "{shown}");
    let mut other = good_call();
    other.called = "+442012345678".to_owned();
    let usual = targets(&other)[0].failover.clone();
    assert_eq!(usual, crate::Statuses::USUAL);
}

#[test]
fn a_route_to_a_voice_agent_can_only_forbid_what_is_kept() {
    let allowed = POLICY.replace("[trunk.acme]\n", "[trunk.acme]\nrecording = \"allowed\"\n");
    let to_agent = "send_to = { agent = \"reception\" }";
    for (keys, kept) in [
        ("", (Keep::Allowed, Keep::Allowed)),
        ("record = false", (Keep::Never, Keep::Allowed)),
        ("transcript = false", (Keep::Allowed, Keep::Never)),
        ("record = false\ntranscript = false", (Keep::Never, Keep::Never)),
    ] {
        let text = allowed.replacen(to_agent, &format!("{to_agent}\n{keys}"), 1);
        let decision = decide(&policy(&text), &good_call(), &idle());
        let terms = &decision.accepted().unwrap().terms;
        assert_eq!((terms.recording, terms.transcript), kept, "{keys}");
    }
    let text = POLICY.replacen(to_agent, &format!("{to_agent}\ntranscript = true"), 1);
    assert_eq!(errors(&text)[0].1, "a route can only forbid a transcript");
    let refusing = "refuse = { status = 603 }";
    let text = POLICY.replacen(refusing, &format!("{refusing}\ntranscript = false"), 1);
    assert_eq!(errors(&text)[0].1, "only calls to voice agents have a transcript");
}
