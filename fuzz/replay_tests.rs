//! The corpus, replayed.

use std::path::Path;

/// Gives every file of `fuzz/corpus/<name>` to `target`; the last file named is the one that
/// failed.
fn replay(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{} needs at least ten seeds", folder.display());
    for file in files {
        println!("{}", file.display());
        let bytes = std::fs::read(&file).unwrap();
        target(&bytes);
        // A prefix is what a fuzzer tries first and what a cut connection leaves.
        target(&bytes[..bytes.len() / 2]);
    }
}

#[test]
fn sip_messages() {
    replay("sip_message", crate::sip_message);
}

#[test]
fn sip_streams() {
    replay("sip_framing", crate::sip_framing);
}

#[test]
fn session_descriptions() {
    replay("sdp", crate::sdp);
}

#[test]
fn media_packets() {
    replay("rtp", crate::rtp);
}

#[test]
fn protected_packets() {
    replay("srtp_differential", crate::srtp_differential);
}

#[test]
fn dtls_records() {
    replay("dtls_guard", crate::dtls_guard);
}

#[test]
fn policy_files() {
    replay("policy_file", crate::policy_file);
}

#[test]
fn frames_of_websockets() {
    replay("websocket_sip", crate::websocket_sip);
}

#[test]
fn checks_of_ice() {
    replay("stun", crate::stun);
}
