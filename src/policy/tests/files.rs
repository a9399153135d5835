//! The files of `policies/` are what they claim to be.

use base::Reason;

use super::world::*;
use crate::file::PolicyFile;
use crate::{Attempt, Destination, Transport, decide, explain, load, schema};

const EXAMPLE: &str = include_str!("../../../policies/example.toml");
const LOCAL: &str = include_str!("../../../policies/local.toml");
const README: &str = include_str!("../../../policies/README.md");

/// Set to write the generated files anew instead of comparing them.
pub(super) const REGENERATE: &str = "CALLGATE_REGENERATE";

/// Compares `text` with the file `path` of this member's folder, or writes it there.
pub(super) fn assert_golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os(REGENERATE).is_some() {
        #[expect(clippy::disallowed_methods, reason = "a test may write its golden files")]
        std::fs::write(&path, text).unwrap();
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "a test may read its golden files")]
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{} differs: look, then set {REGENERATE}=1", path.display());
}

#[test]
fn the_schema_for_editors_is_current() {
    assert_golden("../../policies/schema.json", &schema());
}

#[test]
fn the_types_of_the_schema_read_what_load_reads() {
    for text in [EXAMPLE, LOCAL] {
        toml::from_str::<PolicyFile>(text).unwrap();
    }
    let typo = toml::from_str::<PolicyFile>("[rout]\n").unwrap_err();
    assert!(typo.message().contains("unknown field"));
}

#[test]
fn the_files_load_without_any_surprise() {
    let agents = Some(&["reception"][..]);
    let (_, found) = load(&[("local.toml", LOCAL)], agents).unwrap();
    assert_eq!(found, []);
    let (_, found) = load(&[("example.toml", EXAMPLE)], agents).unwrap();
    let only: Vec<_> = found.iter().map(|it| it.0.message.as_str()).collect();
    assert_eq!(only, ["SRTP keys of this trunk cross plaintext signalling"]);
}

#[test]
fn the_development_policy_takes_encrypted_calls_from_this_machine_only() {
    let policy = policy(LOCAL);
    let mut call = Attempt { source: socket("127.0.0.1"), ..good_call() };
    call.called = "reception".to_owned();
    let decision = decide(&policy, &call, &idle());
    let Destination::Agent { name } = &decision.accepted().unwrap().destination else {
        panic!("{decision:?}")
    };
    assert_eq!(name.as_str(), "reception");
    assert!(policy.plaintext_transports(idle().wall).is_empty());

    let other = Attempt { called: "sales".to_owned(), ..call.clone() };
    assert_eq!(refusal(&decide(&policy, &other, &idle())), Reason::NoRoute);
    let remote = Attempt { source: socket("192.0.2.1"), ..call.clone() };
    assert_eq!(refusal(&decide(&policy, &remote, &idle())), Reason::UnknownPeer);
    let plain = Attempt { transport: Transport::Udp, ..call.clone() };
    assert_eq!(refusal(&decide(&policy, &plain, &idle())), Reason::PlaintextSignalling);
    call.source = socket("::1");
    assert!(decide(&policy, &call, &idle()).accepted().is_some());
    let browser = Attempt { transport: Transport::Whip, ..call };
    assert!(decide(&policy, &browser, &idle()).accepted().is_some());
    let alice = Attempt { called: "alice".to_owned(), ..browser };
    assert!(decide(&policy, &alice, &idle()).accepted().is_some());
}

#[test]
fn the_guide_names_every_key() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let mut keys = Vec::new();
    collect_keys(&schema, &mut keys);
    assert!(keys.len() > 40, "{}", keys.len());
    for key in keys {
        let named = [format!("`{key}`"), format!("`[{key}"), format!("`[[{key}]]`")];
        assert!(named.iter().any(|it| README.contains(it)), "policies/README.md misses `{key}`");
    }
}

#[test]
fn the_guide_explains_every_refusal_of_policy() {
    for reason in Reason::ALL.iter().filter(|it| it.code().starts_with("policy.")) {
        assert!(README.contains(&format!("`{reason}`")), "policies/README.md misses {reason}");
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut Vec<String>) {
    if let Some(properties) = value.get("properties").and_then(|it| it.as_object()) {
        keys.extend(properties.keys().cloned());
    }
    match value {
        serde_json::Value::Object(map) => map.values().for_each(|it| collect_keys(it, keys)),
        serde_json::Value::Array(list) => list.iter().for_each(|it| collect_keys(it, keys)),
        _ => {}
    }
}

#[test]
fn the_guides_examples_load() {
    let mut count = 0;
    for block in README.split("```toml\n").skip(1) {
        let text = block.split("```").next().unwrap();
        policy(text);
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn the_example_can_be_explained() {
    let policy = policy(EXAMPLE);
    let mut call = good_call();
    call.certificates = vec!["sip.acme.example".to_owned()];
    let explanation = explain(&policy, &call, &idle());
    assert!(explanation.decision.accepted().is_some(), "{explanation}");
}
