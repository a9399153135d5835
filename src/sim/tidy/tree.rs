//! The files of the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::scan::Source;

/// The top of the repository.
pub(super) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// What is tracked or about to be, by path from the top, without what was deleted.
pub(super) fn tracked() -> Vec<String> {
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .args(["--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    let mut names: Vec<String> = names
        .split_terminator('\0')
        .filter(|name| root().join(name).is_file())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    assert!(names.len() > 100, "git lists hardly any file");
    names
}

/// The text of a file; `None` for one that is not UTF-8.
pub(super) fn text(path: &str) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(path)).unwrap()).ok()
}

/// Every Rust file, scanned, with those marked as test files that only a `#[cfg(test)] mod` names.
pub(super) fn sources() -> Vec<Source> {
    let rust = tracked().into_iter().filter(|path| path.ends_with(".rs"));
    let mut sources: Vec<Source> =
        rust.filter_map(|path| text(&path).map(|text| Source::new(path, text))).collect();
    let named: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
    for source in &mut sources {
        if named.iter().any(|module| {
            source.path == format!("{module}.rs") || source.path.starts_with(&format!("{module}/"))
        }) {
            source.is_test = true;
        }
    }
    sources
}
