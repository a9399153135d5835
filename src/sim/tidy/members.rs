//! The members: tiers, what each may depend on, lints that each carries (DESIGN section 2).

use std::collections::BTreeSet;

use super::manifest::{self, Member};
use super::scan::words;
use super::{none, tree};

/// The tiers of DESIGN section 2. A member may use any lower tier, never its own.
const TIERS: &[(&str, u8)] = &[
    ("callgate-base", 0),
    ("callgate-sip", 1),
    ("callgate-sdp", 1),
    ("callgate-rtp", 1),
    ("callgate-audio", 1),
    ("callgate-media", 2),
    ("callgate-policy", 2),
    ("callgate-call", 3),
    ("callgate-agent", 3),
    ("callgate-speech", 3),
    ("callgate-transport", 4),
    ("callgate-relay", 4),
    ("callgate-link", 4),
    ("callgate-providers", 4),
    ("callgate-vault", 4),
    ("callgate-telemetry", 4),
    ("callgate-api", 5),
    ("callgate-loadgen", 5),
    ("callgate-edge", 6),
    ("callgate-cli", 7),
    ("callgate-sim", 7),
    ("callgate-benches", 7),
    ("callgate-fuzz", 7),
    ("callgate", 8),
];

/// Members of a tier above that only tests use: `(member, dependency, reason)`.
const UPWARD_IN_TESTS: &[(&str, &str, &str)] = &[];

/// Which members may use a package from outside, and why these. Whatever has no row is not used.
const OUTSIDE: &[(&str, &[&str], &str)] = &[
    // the runtime and the wire
    (
        "tokio",
        &[
            "transport",
            "relay",
            "providers",
            "vault",
            "telemetry",
            "loadgen",
            "edge",
            "cli",
            "callgate",
            "api",
            "link",
        ],
        "never in tiers 0-3; in relay for the thread of DTLS handshakes alone, whose workers are \
         plain threads (DESIGN section 3)",
    ),
    (
        "tokio-rustls",
        &["transport", "loadgen", "api"],
        "one TLS acceptor; the load generator's own end",
    ),
    (
        "rustls",
        &["transport", "relay", "loadgen", "edge", "cli", "api"],
        "edge and cli install the crypto provider and load certificates; webrtc-dtls, in relay, \
         needs one too",
    ),
    (
        "rustls-pki-types",
        &["transport", "relay", "loadgen", "api"],
        "certificates as rustls takes them",
    ),
    ("socket2", &["transport", "relay"], "socket options that std lacks"),
    (
        "rustix",
        &["relay", "vault", "edge", "providers", "speech", "cli", "loadgen", "benches"],
        "system calls without unsafe; never in tiers 0-3",
    ),
    (
        "bytes",
        &[
            "sip",
            "call",
            "transport",
            "vault",
            "telemetry",
            "loadgen",
            "edge",
            "cli",
            "fuzz",
            "sim",
            "api",
        ],
        "messages as slices of what was received",
    ),
    ("rsip", &["sip"], "methods and status codes; everything on the wire is our own"),
    (
        "rcgen",
        &["transport", "relay", "cli", "loadgen"],
        "development certificates, and the one of DTLS-SRTP",
    ),
    ("instant-acme", &["edge"], "certificates by ACME"),
    ("dimpl", &["relay"], "DTLS, by default; behind a trait"),
    ("webrtc-dtls", &["relay", "loadgen"], "DTLS, the other back end; behind the guard"),
    ("webrtc-util", &["relay", "loadgen"], "the connection that webrtc-dtls takes"),
    ("ring", &["relay", "loadgen"], "the key that webrtc-dtls takes"),
    ("async-trait", &["relay", "loadgen"], "the connection that webrtc-dtls takes"),
    ("x509-parser", &["transport"], "names in a verified certificate"),
    ("rustls-native-certs", &["transport"], "the authorities of the system"),
    ("simple-dns", &["transport"], "DNS messages; asking and caching is our own"),
    (
        "webrtc-srtp",
        &["loadgen", "fuzz"],
        "the independent end of SRTP, never the relay's (DESIGN section 2)",
    ),
    ("ipnet", &["policy", "media", "relay"], "networks in trunks and in latching"),
    ("io-uring", &["relay"], "the socket driver"),
    ("nix", &["transport"], "which address a datagram came to, without unsafe"),
    ("libc", &["relay"], "the structures that io_uring takes"),
    ("rtrb", &["relay", "edge"], "bounded rings between shard and worker"),
    ("hyper", &["telemetry", "api", "loadgen"], "HTTP/1.1, as server and for browsers under test"),
    ("hyper-util", &["telemetry", "api", "loadgen"], "hyper over tokio"),
    ("axum", &["api"], "routes, extractors and WebSockets over hyper"),
    ("http", &["api"], "statuses and header fields"),
    ("tower", &["api"], "the trait that axum's routers are called by"),
    ("http-body-util", &["telemetry", "api", "loadgen"], "bodies of HTTP"),
    // cryptography: where keys live, and nowhere else
    (
        "aws-lc-rs",
        &["relay", "vault", "loadgen", "edge", "transport", "cli"],
        "AEAD, and randomness from the system",
    ),
    ("aes", &["relay"], "AES-CM in place"),
    ("ctr", &["relay"], "AES-CM in place"),
    ("hmac", &["rtp", "relay", "fuzz"], "authentication of STUN and of AES-CM"),
    ("sha1", &["rtp", "relay", "fuzz"], "authentication of STUN and of AES-CM; both name it"),
    ("crc", &["rtp"], "the fingerprint of STUN"),
    ("blake3", &["vault"], "the audit chain and blind indices"),
    ("zeroize", &["base", "relay", "vault"], "keys that are wiped"),
    (
        "base64",
        &["rtp", "vault", "loadgen", "edge"],
        "SDES keys; signed heads as text; WebSocket keys; logins of TURN servers",
    ),
    ("hex", &["sip", "vault"], "hashes as text"),
    ("md-5", &["sip"], "digest credentials; many trunks know nothing else (RFC 8760)"),
    ("sha2", &["sip"], "digest credentials"),
    // audio
    ("opus", &["audio", "vault"], "the codec; recordings"),
    ("ogg", &["vault"], "recordings"),
    ("earshot", &["audio"], "voice activity"),
    // storage
    ("sqlx", &["vault"], "the database is the vault's alone"),
    ("object_store", &["vault"], "the object store is the vault's alone"),
    // files: protocols and calls have none
    (
        "serde",
        &["policy", "agent", "vault", "loadgen", "edge", "api", "cli"],
        "files, and what is sealed or shown",
    ),
    (
        "serde_json",
        &["policy", "vault", "telemetry", "loadgen", "edge", "cli", "api", "sim"],
        "files, logs for machines, and what is sealed or shown",
    ),
    ("toml", &["policy", "agent", "edge", "loadgen", "sim"], "files that people write"),
    ("schemars", &["policy", "agent", "edge"], "schemas for editors"),
    ("notify", &["edge"], "reload when a file changes"),
    ("arc-swap", &["edge", "transport"], "what is reloaded while it is read"),
    // errors and observation
    (
        "thiserror",
        &[
            "sip",
            "sdp",
            "rtp",
            "audio",
            "media",
            "policy",
            "call",
            "agent",
            "speech",
            "transport",
            "relay",
            "providers",
            "vault",
            "telemetry",
            "loadgen",
            "edge",
            "api",
            "link",
        ],
        "typed errors",
    ),
    (
        "anyhow",
        &["cli", "callgate"],
        "a library's caller wants to know what went wrong (STYLE P10)",
    ),
    (
        "tracing",
        &["telemetry", "edge", "cli"],
        "logs are derived from events, so only who sets them up names it",
    ),
    ("tracing-subscriber", &["telemetry"], "logs"),
    ("metrics", &["telemetry"], "metrics are derived from events"),
    ("metrics-exporter-prometheus", &["telemetry"], "metrics"),
    ("clap", &["cli"], "the command line"),
    ("indicatif", &["cli"], "progress of `callgate load`"),
    // fuzzing
    ("libfuzzer-sys", &["fuzz"], "with the feature `libfuzzer` only"),
];

/// Members without product code, and why.
const TEST_ONLY: &[(&str, &str)] = &[
    ("callgate-sim", "it tests the whole"),
    ("callgate-fuzz", "its library is what the fuzzer and the replay run"),
    ("callgate-benches", "it measures the others"),
];

/// Crate roots without `#![forbid(unsafe_code)]`, and why.
const MAY_BE_UNSAFE: &[(&str, &str)] = &[
    ("src/speech/main.rs", "links the C libraries of recognition and synthesis, in a sandbox"),
    ("src/relay/lib.rs", "denies it; the memory of the socket driver is shared with the kernel"),
];

/// Files with `unsafe` in them, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("src/speech/recogniser.rs", "calls pocketsphinx"),
    ("src/speech/voice.rs", "calls flite"),
    ("src/relay/driver/ahead.rs", "asks the processor for memory that will be read next"),
    ("src/relay/driver/ring.rs", "memory shared with the kernel, behind calls that are safe"),
];

/// What clippy must ban in every member.
const CHANNEL_BANS: &[&str] = &["tokio::sync::mpsc::unbounded_channel", "std::sync::mpsc::channel"];

fn tier(name: &str) -> u8 {
    let row = TIERS.iter().find(|(member, _)| *member == name);
    row.unwrap_or_else(|| panic!("{name} is in no tier: put it into TIERS of {}", file!())).1
}

/// The tier of the member in `src/<folder>`.
pub(super) fn tier_of_folder(folder: &str) -> Option<u8> {
    let name = format!("callgate-{folder}");
    TIERS.iter().find(|(member, _)| *member == name).map(|(_, tier)| *tier)
}

fn short(name: &str) -> &str {
    name.strip_prefix("callgate-").unwrap_or(name)
}

#[test]
fn a_member_uses_lower_tiers_only() {
    let mut found = Vec::new();
    for member in manifest::members() {
        let own = tier(&member.name);
        for used in member.dependencies.iter().filter(|it| it.is_member) {
            let is_excused = used.is_dev
                && UPWARD_IN_TESTS.iter().any(|row| row.0 == member.name && row.1 == used.name);
            let theirs = tier(&used.name);
            if theirs >= own && !is_excused {
                found
                    .push(format!("{} (tier {own}) -> {} (tier {theirs})", member.name, used.name));
            }
        }
    }
    none(
        &found,
        "A member uses lower tiers, never its own (DESIGN section 2): move what both need down.",
    );
}

#[test]
fn a_package_from_outside_is_used_where_it_belongs() {
    let mut found = Vec::new();
    for member in manifest::members() {
        let name = short(&member.name);
        for used in member.dependencies.iter().filter(|it| !it.is_member && !it.is_dev) {
            match OUTSIDE.iter().find(|row| row.0 == used.name) {
                None => found.push(format!("{name} -> {}: a new package needs a row", used.name)),
                Some((_, members, why)) if !members.contains(&name) => {
                    found.push(format!("{name} -> {}: {why}", used.name));
                }
                Some(_) => {}
            }
        }
    }
    none(&found, "Packages stay where they belong (OUTSIDE in src/sim/tidy/members.rs):");
}

#[test]
fn versions_stand_in_one_place() {
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for member in manifest::members() {
        let path = format!("{}/Cargo.toml", member.folder);
        let path = path.trim_start_matches('/');
        let file = manifest::toml(path);
        for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = file.get(kind).and_then(toml::Value::as_table) else { continue };
            for (name, value) in table {
                used.insert(name.clone());
                if value.get("workspace").and_then(toml::Value::as_bool) != Some(true) {
                    found.push(format!("{path}: {name}: write `{name}.workspace = true`"));
                }
            }
        }
        if file.get("lints").and_then(|it| it.get("workspace")?.as_bool()) != Some(true) {
            found.push(format!("{path}: write `[lints] workspace = true`"));
        }
    }
    let top = manifest::toml("Cargo.toml");
    let rows = top["workspace"]["dependencies"].as_table().unwrap();
    let unused = rows.keys().filter(|name| !used.contains(*name));
    found.extend(unused.map(|name| format!("Cargo.toml: {name}: no member uses it")));
    none(&found, "Versions and lints stand in the top Cargo.toml, and all of them are used:");
}

#[test]
fn every_folder_of_src_is_a_member() {
    let members: BTreeSet<String> = manifest::members().into_iter().map(|it| it.folder).collect();
    let folders: BTreeSet<String> = tree::tracked()
        .iter()
        .filter_map(|path| path.strip_prefix("src/")?.split_once('/'))
        .map(|(folder, _)| format!("src/{folder}"))
        .collect();
    let strays: Vec<String> = folders.difference(&members).cloned().collect();
    none(&strays, "A folder of src is a member of the workspace, listed by hand in Cargo.toml.");
}

#[test]
fn no_member_is_empty() {
    let sources = tree::sources();
    let mut found = Vec::new();
    for Member { name, folder, .. } in manifest::members() {
        let prefix =
            if folder.is_empty() { "src/main.rs".to_owned() } else { format!("{folder}/") };
        let of_member = || sources.iter().filter(|source| source.path.starts_with(&prefix));
        let has_code = of_member().any(|it| !it.is_test && !it.functions().is_empty());
        let is_test_only = TEST_ONLY.iter().any(|(known, _)| *known == name)
            && of_member().any(|it| !it.functions().is_empty());
        if !has_code && !is_test_only {
            found.push(name);
        }
    }
    none(
        &found,
        "A member without code is a promise: take it out of Cargo.toml until it has some.",
    );
}

#[test]
fn every_member_carries_its_bans() {
    let list = |table: &toml::Table, key: &str| -> BTreeSet<String> {
        let rows = table.get(key).and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let path = |row: &toml::Value| row.get("path")?.as_str().map(str::to_owned);
        let reason = |row: &toml::Value| row.get("reason")?.as_str().map(str::len);
        assert!(rows.iter().all(|row| reason(row).is_some_and(|it| it > 10)), "a ban has a reason");
        rows.iter().filter_map(path).collect()
    };
    let base = manifest::toml("src/base/clippy.toml");
    let mut found = Vec::new();
    for member in manifest::members().iter().filter(|it| !it.folder.is_empty()) {
        let path = format!("{}/clippy.toml", member.folder);
        if !tree::root().join(&path).exists() {
            found.push(format!("{path} is missing"));
            continue;
        }
        let own = manifest::toml(&path);
        let mut needed = Vec::new();
        if tier(&member.name) <= 3 {
            for key in ["disallowed-methods", "disallowed-types"] {
                needed.extend(list(&base, key).into_iter().map(|ban| (key, ban)));
            }
        } else {
            let bans = CHANNEL_BANS.iter().map(|ban| ("disallowed-methods", (*ban).to_owned()));
            needed.extend(bans);
        }
        for (key, ban) in needed {
            if !list(&own, key).contains(&ban) {
                found.push(format!("{path}: {key}: {ban}"));
            }
        }
    }
    none(&found, "A member's clippy.toml replaces the top one, so it holds the whole list:");
}

#[test]
fn unsafe_code_is_forbidden() {
    let mut found = Vec::new();
    for root in manifest::members().into_iter().flat_map(|member| member.roots) {
        let is_excused = MAY_BE_UNSAFE.iter().any(|(path, _)| *path == root);
        let text = tree::text(&root).unwrap();
        if !is_excused && !text.contains("#![forbid(unsafe_code)]") {
            found.push(format!("{root}: begin it with `#![forbid(unsafe_code)]`"));
        }
    }
    for source in tree::sources() {
        let is_excused = UNSAFE.iter().any(|(path, _)| *path == source.path);
        if !is_excused && words(&source.code, "unsafe").next().is_some() {
            found.push(format!("{}: find a safe way", source.path));
        }
    }
    none(&found, "Unsafe code stays in the speech helper and, where it must, the socket driver:");
}
