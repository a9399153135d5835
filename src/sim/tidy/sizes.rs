//! Files, functions and lines stay small enough to read (STYLE section 1, budgets).

use std::collections::BTreeMap;

use super::{ratchet, tree};

const FILE_LINES: usize = 800;
const TEST_FILE_LINES: usize = 1200;
const FUNCTION_LINES: usize = 70;
const COLUMNS: usize = 100;

/// Files over the limit, with their lines.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions over the limit (`file::function`), with their lines.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Lines over the limit, by file.
const LONG_LINES: &[(&str, usize)] = &[];

/// Where a row of a table is one line, however long: breaking it would hide the table.
const TABLES: &[&str] = &["src/base/limit.rs", "src/base/outcome.rs", "src/base/event.rs"];

#[test]
fn files_are_short() {
    let mut found = BTreeMap::new();
    for source in tree::sources() {
        let most = if source.is_test { TEST_FILE_LINES } else { FILE_LINES };
        let lines = source.line_count();
        if lines > most {
            found.insert(source.path, lines);
        }
    }
    ratchet(
        &found,
        LONG_FILES,
        "LONG_FILES",
        "A file has at most 800 lines without its tests, a file of tests 1200: split it along \
         what it does, as DESIGN section 2 names the files of a member.",
    );
}

#[test]
fn functions_are_short() {
    let mut found = BTreeMap::new();
    for source in tree::sources() {
        for function in source.functions() {
            if function.lines > FUNCTION_LINES {
                found.insert(format!("{}::{}", source.path, function.name), function.lines);
            }
        }
    }
    ratchet(
        &found,
        LONG_FUNCTIONS,
        "LONG_FUNCTIONS",
        "A function has at most 70 lines, from `fn` to its closing brace: name a part of it \
         and take it out (ifs up, loops down).",
    );
}

#[test]
fn lines_are_short() {
    let mut found = BTreeMap::new();
    for source in tree::sources() {
        if TABLES.contains(&source.path.as_str()) {
            continue;
        }
        let is_long = |line: &&str| line.chars().count() > COLUMNS;
        let count = source.text.lines().filter(is_long).count();
        if count > 0 {
            let first = source.text.lines().position(|line| is_long(&line)).unwrap_or(0);
            println!("{}:{}: {count} long lines from here", source.path, first + 1);
            found.insert(source.path, count);
        }
    }
    ratchet(
        &found,
        LONG_LINES,
        "LONG_LINES",
        "A line has at most 100 columns: rustfmt leaves long strings and macros to you; break a \
         string with a backslash at the end of the line.",
    );
}
