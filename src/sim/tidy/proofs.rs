//! What SECURITY.md calls a proof is there: each `file::test` and each `area.case` that it names.

use std::collections::BTreeSet;

use super::{none, tree};

/// The texts between backticks, with the spaces of line breaks taken out.
fn quoted(text: &str) -> Vec<String> {
    let pieces = text.split('`').skip(1).step_by(2);
    pieces.map(|piece| piece.split_whitespace().collect()).collect()
}

/// `(file, test)` of each citation; one without a file is of the file named last.
fn cited(text: &str) -> Vec<(String, String)> {
    let mut file = String::new();
    let mut cited = Vec::new();
    for piece in quoted(text) {
        let Some((path, tests)) = piece.split_once("::") else { continue };
        if path.ends_with(".rs") {
            path.clone_into(&mut file);
        } else if !path.is_empty() {
            continue; // a path of Rust, not of a file
        }
        let tests = tests.trim_start_matches('{').trim_end_matches('}').split(',');
        cited.extend(tests.map(|test| (file.clone(), test.to_owned())));
    }
    cited
}

#[test]
fn every_test_that_is_called_a_proof_exists() {
    let text = tree::text("SECURITY.md").unwrap();
    let sources = tree::sources();
    let is_there = |(file, test): &(String, String)| {
        let path = format!("src/{file}");
        let source = sources.iter().find(|source| source.path == path);
        source.is_some_and(|source| source.code.contains(&format!("fn {test}(")))
    };
    let cited = cited(&text);
    assert!(cited.len() > 50, "the citations of SECURITY.md are not understood");
    let gone: Vec<String> = cited
        .into_iter()
        .filter(|citation| !is_there(citation))
        .map(|(file, test)| format!("{file}::{test}"))
        .collect();
    none(&gone, "SECURITY.md names tests that are not there");
}

#[test]
fn every_case_that_is_called_a_proof_exists() {
    let text = tree::text("SECURITY.md").unwrap();
    let cases: Vec<String> =
        tree::tracked().into_iter().filter(|path| path.starts_with("tests/cases/")).collect();
    let areas: BTreeSet<&str> = cases
        .iter()
        .filter_map(|path| path.strip_prefix("tests/cases/")?.strip_suffix(".py"))
        .collect();
    let mut found = 0;
    let mut gone = Vec::new();
    for piece in quoted(&text) {
        let Some((area, case)) = piece.split_once('.').filter(|(area, _)| areas.contains(area))
        else {
            continue;
        };
        found += 1;
        let code = tree::text(&format!("tests/cases/{area}.py")).unwrap_or_default();
        // Some are made in a loop, so that only a word of the name stands there.
        if case != "*" && !code.to_lowercase().contains(case) {
            gone.push(piece);
        }
    }
    assert!(found > 15, "the cases that SECURITY.md names are not understood");
    none(&gone, "SECURITY.md names cases that are not there");
}
