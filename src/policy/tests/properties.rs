//! What must hold for any text and any call.

use proptest::prelude::*;

use super::world::*;
use crate::{Attempt, Observed, Offer, Transport, TrunkObserved, decide, explain, load};

const EXAMPLE: &str = include_str!("../../../policies/example.toml");

fn any_attempt() -> impl Strategy<Value = Attempt> {
    let source = prop_oneof![
        Just("198.51.100.9".to_owned()),
        Just("203.0.113.7".to_owned()),
        any::<std::net::IpAddr>().prop_map(|it| it.to_string()),
    ];
    let certificate = prop_oneof![Just("sip.acme.example".to_owned()), ".{0,12}"];
    let number = prop_oneof!["\\+1(800|900|415)[0-9]{7}", "[0-9+*#;. -]{0,20}", ".{0,20}"];
    let codec = prop_oneof![Just("PCMA".to_owned()), Just("opus".to_owned()), ".{0,8}"];
    let offer = (any::<[bool; 3]>(), proptest::collection::vec(codec, 0..4));
    (
        source,
        proptest::sample::select(Transport::ALL),
        proptest::collection::vec(certificate, 0..3),
        number.clone(),
        number,
        offer,
    )
        .prop_map(|(source, transport, certificates, called, caller, (flags, codecs))| {
            let [present, has_srtp, has_plain] = flags;
            let offer = Offer { present, has_srtp, has_plain, codecs };
            let source = socket(&source);
            Attempt { source, transport, certificates, called, caller, offer, ..good_call() }
        })
}

fn any_observed() -> impl Strategy<Value = Observed> {
    let stood = (0..600_u32, 0..30_u32, any::<bool>())
        .prop_map(|(calls, recent_rate, healthy)| TrunkObserved { calls, recent_rate, healthy });
    let names = proptest::sample::select(vec!["acme", "rhein", "lab", "overflow"]);
    let trunks = proptest::collection::btree_map(names.prop_map(str::to_owned), stood, 0..4);
    let draining = proptest::bool::weighted(0.1);
    (0..2_100_u32, trunks, draining, 0..400_u64).prop_map(|(edge_calls, trunks, draining, days)| {
        let wall = day(2026, 11, 23) + core::time::Duration::from_secs(days * 86_400);
        let edge_calls_most = (days % 2 == 0).then_some(1_000 + days as u32 * 3);
        Observed { wall, edge_calls, edge_calls_most, trunks, draining }
    })
}

/// Where to cut, how much, and what to put there.
fn any_cut() -> impl Strategy<Value = (prop::sample::Index, usize, String)> {
    (any::<prop::sample::Index>(), 0..40_usize, "[\\[\\]{}=\"., a-z0-9\n-]{0,6}")
}

/// The places of the keys that policies are written in.
fn keys(text: &str) -> Vec<core::ops::Range<usize>> {
    fn walk(table: &toml::de::DeTable<'_>, keys: &mut Vec<core::ops::Range<usize>>) {
        for (key, value) in table {
            keys.push(key.span());
            match value.get_ref() {
                toml::de::DeValue::Table(below) => walk(below, keys),
                toml::de::DeValue::Array(list) => {
                    list.iter()
                        .filter_map(|it| it.get_ref().as_table())
                        .for_each(|it| walk(it, keys));
                }
                _ => {}
            }
        }
    }
    let mut keys = Vec::new();
    walk(toml::de::DeTable::parse(text).unwrap().get_ref(), &mut keys);
    // The names of trunks and zones are free.
    keys.retain(|key| {
        let line = text[..key.start].rfind('\n').map_or(0, |at| at + 1);
        !text[line..key.start].ends_with("[trunk.") && !text[line..key.start].ends_with("[zone.")
    });
    keys
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_load_panic(text in "(\\PC|\n|\t){0,200}") {
        let _ = load(&[("a.toml", &text)], Some(&[]));
    }

    #[test]
    fn no_mutilated_policy_makes_load_panic(
        cuts in proptest::collection::vec(any_cut(), 1..4),
    ) {
        let mut chars: Vec<char> = EXAMPLE.chars().collect();
        for (at, length, put) in cuts {
            let start = at.index(chars.len().max(1)).min(chars.len());
            let end = (start + length).min(chars.len());
            chars.splice(start..end, put.chars());
        }
        let text: String = chars.into_iter().collect();
        match load(&[("a.toml", &text), ("b.toml", POLICY)], Some(&["reception"])) {
            Ok((policy, _)) => {
                let explanation = explain(&policy, &good_call(), &idle());
                prop_assert_eq!(&explanation.decision, &decide(&policy, &good_call(), &idle()));
            }
            Err(errors) => prop_assert!(!errors.0.is_empty()),
        }
    }

    #[test]
    fn a_typo_in_any_key_is_an_error_on_its_line(
        which in any::<prop::sample::Index>(), kind in 0..3,
    ) {
        let keys = keys(EXAMPLE);
        let key = keys[which.index(keys.len())].clone();
        let word = &EXAMPLE[key.clone()];
        let typo = match kind {
            0 => format!("{word}x"),
            1 => format!("{} {}", &word[..1], &word[1..]),
            _ => format!("q{word}"),
        };
        let text = format!("{}{typo}{}", &EXAMPLE[..key.start], &EXAMPLE[key.end..]);
        let line = EXAMPLE[..key.start].matches('\n').count() + 1;
        let errors = load(&[("a.toml", &text)], None).unwrap_err();
        prop_assert!(errors.0.iter().any(|it| it.line == line), "{}: {}", typo, errors);
    }

    #[test]
    fn the_same_question_has_the_same_answer_and_explain_gives_it(
        attempt in any_attempt(), observed in any_observed(),
    ) {
        let policy = policy(EXAMPLE);
        let decision = decide(&policy, &attempt, &observed);
        prop_assert_eq!(&decision, &decide(&policy.clone(), &attempt, &observed));
        let explanation = explain(&policy, &attempt, &observed);
        prop_assert_eq!(&explanation.decision, &decision);
        prop_assert!(!explanation.to_string().is_empty());
    }

    #[test]
    fn no_call_is_accepted_over_plaintext_or_without_srtp_but_under_a_running_exemption(
        attempt in any_attempt(), observed in any_observed(),
    ) {
        let decision = decide(&policy(EXAMPLE), &attempt, &observed);
        if let Some(accepted) = decision.accepted() {
            let exempted = accepted.trunk.as_str() == "lab" && observed.wall < day(2027, 7, 1);
            prop_assert!(exempted || !attempt.transport.is_plaintext());
            prop_assert!(exempted || !attempt.offer.present || attempt.offer.has_srtp);
            prop_assert!(exempted || accepted.terms.plain_media_from.is_empty());
        }
    }

    #[test]
    fn a_suggested_change_always_flips_the_verdict(
        attempt in any_attempt(), observed in any_observed(),
    ) {
        let explanation = explain(&policy(EXAMPLE), &attempt, &observed);
        if let Some(changes) = &explanation.change {
            let mut text = EXAMPLE.to_owned();
            for change in changes {
                text = change.apply(&text).unwrap();
            }
            let (changed, _) = load(&[("policy.toml", &text)], None).unwrap();
            let after = decide(&changed, &attempt, &observed).accepted().is_some();
            prop_assert_ne!(after, explanation.decision.accepted().is_some());
        }
    }
}
