//! What comes from outside: licences, sources, banned packages, as `deny.toml` says. This is what
//! `deploy/licences.sh` runs where cargo-deny is not installed, from the same file.

use std::collections::BTreeSet;

use super::manifest::{self, Package};
use super::none;

/// Packages from outside that the program is built with on this machine: the budget with browsers.
const PACKAGES_MAX: usize = 420;

fn strings(table: &toml::Value, path: &[&str]) -> Vec<String> {
    let found = path.iter().try_fold(table, |it, key| it.get(key));
    let rows = found.and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let text = |row: &toml::Value| {
        let row = row.get("crate").unwrap_or(row);
        row.as_str().map(str::to_owned)
    };
    rows.iter().filter_map(text).collect()
}

fn deny() -> toml::Value {
    toml::Value::Table(manifest::toml("deny.toml"))
}

/// Whether an SPDX expression can be kept by licences of `allowed` alone.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = either(&mut words, allowed);
    verdict && words.next().is_none()
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = both(words, allowed);
    while words.next_if_eq(&"OR").is_some() {
        verdict |= both(words, allowed);
    }
    verdict
}

fn both(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let mut verdict = one(words, allowed);
    while words.next_if_eq(&"AND").is_some() {
        verdict &= one(words, allowed);
    }
    verdict
}

fn one(words: &mut Words<'_>, allowed: &BTreeSet<String>) -> bool {
    let Some(word) = words.next() else { return false };
    if word == "(" {
        let verdict = either(words, allowed);
        return words.next() == Some(")") && verdict;
    }
    let mut licence = word.to_owned();
    if words.next_if_eq(&"WITH").is_some() {
        licence = format!("{licence} WITH {}", words.next().unwrap_or_default());
    }
    allowed.contains(&licence)
}

#[test]
fn licences_are_ones_that_a_product_may_carry() {
    let deny = deny();
    let allowed: BTreeSet<String> = strings(&deny, &["licenses", "allow"]).into_iter().collect();
    assert!(!allowed.is_empty());
    let exceptions = deny["licenses"].get("exceptions").and_then(toml::Value::as_array).cloned();
    let excused = |package: &Package| {
        let rows = exceptions.iter().flatten();
        let row = rows.into_iter().find(|row| row["crate"].as_str() == Some(&package.name))?;
        Some(strings(row, &["allow"]).into_iter().chain(allowed.iter().cloned()).collect())
    };
    let mut found = Vec::new();
    for package in manifest::packages() {
        let allowed = excused(&package).unwrap_or_else(|| allowed.clone());
        let licence = package.licence.as_deref().unwrap_or("none");
        if !is_allowed(licence, &allowed) {
            found.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    none(&found, "Licences that deny.toml does not allow:");
}

#[test]
fn packages_come_from_crates_io() {
    let allowed = strings(&deny(), &["sources", "allow-registry"]);
    let is_known = |source: &str| {
        source.strip_prefix("registry+").is_some_and(|it| allowed.iter().any(|known| known == it))
    };
    let lock = manifest::toml("Cargo.lock");
    let locked = lock["package"].as_array().unwrap();
    let mut found = Vec::new();
    for package in locked {
        let name = package["name"].as_str().unwrap();
        match package.get("source").and_then(toml::Value::as_str) {
            None if name == "callgate" || name.starts_with("callgate-") => {}
            Some(source) if is_known(source) && package.get("checksum").is_some() => {}
            other => found.push(format!("{name}: {}", other.unwrap_or("a path"))),
        }
    }
    let built = manifest::packages();
    let strange = built.iter().filter(|it| it.source.as_deref().is_some_and(|it| !is_known(it)));
    found.extend(strange.map(|it| it.name.clone()));
    none(&found, "Packages come from crates.io, with a checksum in Cargo.lock:");
}

#[test]
fn banned_packages_are_not_built() {
    let banned = strings(&deny(), &["bans", "deny"]);
    assert!(!banned.is_empty());
    let built = manifest::packages();
    let found = built.iter().filter(|it| banned.contains(&it.name)).map(|it| it.name.clone());
    none(&found.collect::<Vec<_>>(), "Packages that deny.toml bans (the reason stands there):");
}

#[test]
fn the_build_stays_within_its_budget() {
    let count = manifest::shipped();
    assert!(
        count <= PACKAGES_MAX,
        "the program is built with {count} packages, the budget is {PACKAGES_MAX}: switch off \
         default features, or do without the newest one"
    );
}

#[test]
fn an_spdx_expression_is_understood() {
    let allowed = ["MIT", "ISC", "A WITH B"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("MIT AND GPL-3.0", false),
        ("MIT/Apache-2.0", true),
        ("(GPL-3.0 OR ISC) AND MIT", true),
        ("GPL-3.0 OR ISC AND Zlib", false),
        ("A WITH B", true),
        ("MIT WITH B", false),
        ("(MIT", false),
        ("none", false),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
