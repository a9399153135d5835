//! What cargo says of the workspace.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::tree;

/// A member of the workspace, the root package included.
pub(super) struct Member {
    /// The package's name.
    pub(super) name: String,
    /// The folder of its `Cargo.toml` from the top; empty for the root package.
    pub(super) folder: String,
    /// What it depends on, of all kinds.
    pub(super) dependencies: Vec<Dependency>,
    /// The files of its libraries and programs, from the top.
    pub(super) roots: Vec<String>,
}

/// A line of a member's `Cargo.toml`.
pub(super) struct Dependency {
    /// The package's name.
    pub(super) name: String,
    /// Whether only tests use it.
    pub(super) is_dev: bool,
    /// Whether it is a member too.
    pub(super) is_member: bool,
}

fn run(arguments: &[&str]) -> Vec<u8> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = Command::new(cargo).args(arguments).current_dir(tree::root()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    run.stdout
}

fn metadata(arguments: &[&str]) -> Value {
    let run = run(&[&["metadata", "--format-version", "1"], arguments].concat());
    serde_json::from_slice(&run).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap()
}

fn from_top(path: &str) -> String {
    let root = tree::root();
    let path = Path::new(path).strip_prefix(&root).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The members, read from their manifests alone.
pub(super) fn members() -> Vec<Member> {
    let metadata = metadata(&["--no-deps", "--offline"]);
    let members = list(&metadata, "packages").iter().map(|package| {
        let folder = from_top(package["manifest_path"].as_str().unwrap());
        let of_dependency = |it: &Value| Dependency {
            name: it["name"].as_str().unwrap().to_owned(),
            is_dev: it["kind"] == "dev",
            is_member: it["path"].is_string(),
        };
        let is_product = |target: &&Value| {
            list(target, "kind").iter().any(|kind| *kind != "test" && *kind != "bench")
        };
        let roots = list(package, "targets").iter().filter(is_product);
        Member {
            name: package["name"].as_str().unwrap().to_owned(),
            folder: folder.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned(),
            dependencies: list(package, "dependencies").iter().map(of_dependency).collect(),
            roots: roots.map(|it| from_top(it["src_path"].as_str().unwrap())).collect(),
        }
    });
    members.collect()
}

/// A package that is built for this machine.
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// The SPDX expression.
    pub(super) licence: Option<String>,
    /// Where it comes from; `None` for a member.
    pub(super) source: Option<String>,
}

/// Everything that is built for this machine with default features, as locked. It asks the
/// network for nothing that a build has fetched.
pub(super) fn packages() -> Vec<Package> {
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = metadata(&["--locked", "--filter-platform", host]);
    let word = |package: &Value, key: &str| package[key].as_str().map(str::to_owned);
    let packages = list(&metadata, "packages").iter().map(|package| Package {
        name: word(package, "name").unwrap(),
        version: word(package, "version").unwrap(),
        licence: word(package, "license").or_else(|| licence_in_file(package)),
        source: word(package, "source"),
    });
    packages.collect()
}

/// How many packages from outside the program is built with on this machine.
pub(super) fn shipped() -> usize {
    let arguments = ["tree", "--locked", "--package", "callgate", "--edges", "normal,build"];
    let tree = run(&[&arguments[..], &["--prefix", "none", "--format", "{p}"]].concat());
    let tree = String::from_utf8(tree).unwrap();
    // A member's line ends in its path, a repeated one in a star.
    let lines = tree.lines().map(|line| line.trim_end_matches(" (*)"));
    lines.filter(|line| !line.is_empty() && !line.contains('/')).collect::<BTreeSet<_>>().len()
}

/// The licence of a package that names a file instead of an expression, where the file is the text
/// of one that we know.
fn licence_in_file(package: &Value) -> Option<String> {
    let manifest = Path::new(package["manifest_path"].as_str()?);
    let file = manifest.parent()?.join(package["license_file"].as_str()?);
    let text = std::fs::read_to_string(file).ok()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_mit = text.contains("Permission is hereby granted, free of charge, to any person")
        && text.contains("to deal in the Software without restriction")
        && text.contains("THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY OF ANY KIND");
    // With the paragraph of X11 at the end it has a name of its own.
    let has_x11 = text.contains("shall not be used in advertising");
    is_mit.then(|| if has_x11 { "X11-swapped" } else { "MIT" }.to_owned())
}

/// A `Cargo.toml` as a table.
pub(super) fn toml(path: &str) -> toml::Table {
    tree::text(path).unwrap().parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}
