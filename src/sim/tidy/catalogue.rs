//! What base lists is used somewhere: no limit that limits nothing, no reason that nobody gives,
//! no event that never happens.

use std::collections::BTreeSet;

use super::scan::words;
use super::{none, tree};

/// Limits that nothing obeys yet.
const UNUSED_LIMITS: &[&str] = &[];

/// Reasons that nobody gives yet.
const UNUSED_REASONS: &[&str] = &["VaultUnavailable"];

/// Events that never happen yet.
const UNUSED_EVENTS: &[&str] = &[];

/// The names of the rows of a table: `Name "..."` within `opening { ... }`.
fn rows(path: &str, opening: &str) -> Vec<String> {
    let sources = tree::sources();
    let source = sources.iter().find(|source| source.path == path).unwrap();
    let at = source.code.rfind(opening).unwrap();
    let rows: Vec<String> = source.code[at..]
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('}'))
        .filter_map(|line| line.trim_start().split_once(" \""))
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_'))
        .collect();
    assert!(rows.len() > 10, "the rows of {path} are not understood");
    rows
}

/// The rows that nothing outside base uses under `prefix`, tests aside.
fn unused(rows: &[String], prefix: &str) -> BTreeSet<String> {
    let sources = tree::sources();
    let outside = sources.iter().filter(|source| source.member() != "base");
    let code: Vec<String> = outside.map(super::scan::Source::product_code).collect();
    let is_used =
        |row: &String| code.iter().any(|it| words(it, &format!("{prefix}{row}")).next().is_some());
    rows.iter().filter(|row| !is_used(row)).cloned().collect()
}

#[track_caller]
fn check(path: &str, opening: &str, prefix: &str, ratchet: &[&str], advice: &str) {
    let unused = unused(&rows(path, opening), prefix);
    let known: BTreeSet<String> = ratchet.iter().map(|row| (*row).to_owned()).collect();
    let mut wrong: Vec<String> = unused.difference(&known).cloned().collect();
    let used = known.difference(&unused);
    wrong.extend(used.map(|row| format!("{row}: used or gone now, take it out of the ratchet")));
    none(&wrong, advice);
}

#[test]
fn every_limit_limits_something() {
    check(
        "src/base/limit.rs",
        "\nlimits! {",
        "",
        UNUSED_LIMITS,
        "A limit that nothing obeys protects nobody: use it, or take the row out.",
    );
}

#[test]
fn every_reason_is_given_by_someone() {
    check(
        "src/base/outcome.rs",
        "\noutcomes! {",
        "Reason::",
        UNUSED_REASONS,
        "A reason that nobody gives misleads who reads the catalogue: use it, or take it out.",
    );
}

#[test]
fn every_event_happens() {
    check(
        "src/base/event.rs",
        "\nevents! {",
        "Event::",
        UNUSED_EVENTS,
        "An event that never happens makes an alarm that never rings: use it, or take it out.",
    );
}
