//! Tests of the source (DESIGN section 2, STYLE habit 13): the rules that matter, each with what
//! to do instead. What breaks a rule already stands in a ratchet: a table whose rows only go down.
//!
//! It reads text and `cargo metadata`; it does not parse Rust, so a rule that needs types is
//! clippy's (`clippy.toml` of each member).

mod bans;
mod catalogue;
mod citations;
mod licences;
mod manifest;
mod members;
mod places;
mod proofs;
mod scan;
mod sizes;
mod tree;

use std::collections::BTreeMap;

/// Fails with `advice` where anything was found.
#[track_caller]
fn none(found: &[String], advice: &str) {
    assert!(found.is_empty(), "{advice}\n  {}\n", found.join("\n  "));
}

/// Compares counts with a ratchet: more than a row allows fails, and so does a row that allows
/// more than there is.
#[track_caller]
fn ratchet(found: &BTreeMap<String, usize>, table: &[(&str, usize)], name: &str, advice: &str) {
    let allowed: BTreeMap<&str, usize> = table.iter().copied().collect();
    let mut wrong = Vec::new();
    for (key, count) in found {
        match allowed.get(key.as_str()) {
            None => wrong.push(format!("{key}: {count}")),
            Some(most) if count > most => wrong.push(format!("{key}: {count}, was {most}")),
            Some(most) if count < most => {
                wrong.push(format!("{key}: better now, set its row of {name} to {count}"));
            }
            Some(_) => {}
        }
    }
    let gone = table.iter().filter(|(key, _)| !found.contains_key(*key));
    wrong.extend(gone.map(|(key, _)| format!("{key}: good now, take its row out of {name}")));
    none(&wrong, advice);
}

#[test]
#[should_panic(expected = "a: 3, was 2")]
fn a_ratchet_does_not_go_up() {
    ratchet(&BTreeMap::from([("a".to_owned(), 3)]), &[("a", 2)], "ROWS", "advice");
}

#[test]
#[should_panic(expected = "a: good now")]
fn a_ratchet_goes_down() {
    ratchet(&BTreeMap::new(), &[("a", 2)], "ROWS", "advice");
}
