//! What is tracked belongs to no machine: no path of the one it was written on, no host that only
//! its author can reach.

use super::scan::line_of;
use super::{none, tree};

/// Paths that exist on one machine only. Put together so that this file holds none of them.
const PATHS: &[&str] =
    &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tm", "p/")];

/// Files that may hold one of [`PATHS`]: `(file, path, reason)`.
const PATHS_ALLOWED: &[(&str, &str, &str)] = &[
    ("README.md", concat!("/tm", "p/"), "where a reader may put an export"),
    ("src/edge/config.rs", concat!("/tm", "p/"), "a value in a test; no file is touched"),
];

/// Hosts that a link may name: documents of standards and tools.
const HOSTS: &[&str] = &[
    "apache.org",
    "crates.io",
    "docs.rs",
    "github.com",
    "iana.org",
    "json-schema.org",
    "letsencrypt.org",
    "keepachangelog.com",
    "nexte.st",
    "opus-codec.org",
    "rfc-editor.org",
    "rust-lang.org",
    "rustup.rs",
    "semver.org",
    "spdx.org",
    "sqlite.org",
    "w3.org",
    // Reserved for documents (RFC 2606, RFC 6761).
    "example",
    "example.com",
    "example.net",
    "example.org",
    "invalid",
    "localhost",
    "test",
];

const SCHEMES: &[&str] = &["http://", "https://", "ws://", "wss://", "ftp://", "git://", "ssh://"];

/// First labels of names that are where one machine fetches packages from.
const REGISTRIES: &[&str] =
    &["registry", "mirror", "mirrors", "artifactory", "nexus", "pypi", "npm", "proxy", "goproxy"];

fn is_known_host(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    // Numbers are addresses; what has no dot and is not reserved is a placeholder in a pattern.
    let is_address = host.chars().all(|it| it.is_ascii_digit() || it == '.');
    let is_below =
        |known: &str| host == known || host.strip_suffix(known).is_some_and(|it| it.ends_with('.'));
    is_address || HOSTS.iter().any(|known| is_below(known))
}

fn host_at(text: &str) -> &str {
    let end = text.find(|it: char| !it.is_ascii_alphanumeric() && it != '.' && it != '-');
    &text[..end.unwrap_or(text.len())]
}

fn files() -> impl Iterator<Item = (String, String)> {
    tree::tracked().into_iter().filter_map(|path| tree::text(&path).map(|text| (path, text)))
}

#[test]
fn no_path_of_one_machine_is_tracked() {
    let mut found = Vec::new();
    for (path, text) in files() {
        for place in PATHS {
            if PATHS_ALLOWED.iter().any(|row| row.0 == path && row.1 == *place) {
                continue;
            }
            let hits = text.match_indices(place).filter(|(at, _)| {
                // The middle of a longer path is no path of its own.
                let before = text[..*at].chars().next_back();
                !before.is_some_and(|it| it.is_alphanumeric() || "._-}/)".contains(it))
            });
            found.extend(hits.map(|(at, _)| format!("{path}:{}: {place}", line_of(&text, at))));
        }
    }
    none(
        &found,
        "A path of one machine: take it from the repository's top, or ask the system (mktemp, \
         std::env::temp_dir, tempfile):",
    );
}

#[test]
fn links_lead_to_hosts_that_everyone_reaches() {
    let mut found = Vec::new();
    for (path, text) in files() {
        for scheme in SCHEMES {
            for (at, _) in text.match_indices(scheme) {
                let host = host_at(&text[at + scheme.len()..]);
                if host.contains('.') && !is_known_host(host) {
                    found.push(format!("{path}:{}: {host}", line_of(&text, at)));
                }
            }
        }
    }
    none(&found, "Hosts that are not in HOSTS of src/sim/tidy/places.rs:");
}

#[test]
fn no_private_registry_is_named() {
    let mut found = Vec::new();
    // In code a dot is mostly a field; hosts of registries stand in files that tools read.
    for (path, text) in files().filter(|(path, _)| !path.ends_with(".rs")) {
        let is_name = |it: char| it.is_ascii_alphanumeric() || it == '.' || it == '-';
        for (index, line) in text.lines().enumerate() {
            for host in line.split(|it: char| !is_name(it)) {
                let mut labels = host.split('.');
                let is_registry = labels.next().is_some_and(|it| REGISTRIES.contains(&it));
                if is_registry
                    && labels.next().is_some_and(|it| !it.is_empty())
                    && !is_known_host(host)
                {
                    found.push(format!("{path}:{}: {host}", index + 1));
                }
            }
        }
    }
    none(
        &found,
        "Where packages are fetched from is the machine's business, not the repository's:",
    );
}

#[test]
fn a_host_is_known_by_its_domain() {
    assert!(is_known_host("www.rfc-editor.org") && is_known_host("sip.acme.example"));
    assert!(is_known_host("192.0.2.1") && !is_known_host("registry.intern.corp"));
    assert!(!is_known_host("notgithub.com"));
}
