//! Searching the disk for what was said and who called finds nothing, in any encoding tried.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::*;
use crate::{AuditDetails, AuditEntry, Channel, LadderEntry};

const NUMBER: &str = "15557318642";
const WORDS: &str = "marmalade xylophone";

/// The spellings of `text` that a dump could hold.
fn encodings(text: &str) -> Vec<Vec<u8>> {
    let bytes = text.as_bytes();
    let reversed: String = text.chars().rev().collect();
    let mut all = vec![
        bytes.to_vec(),
        reversed.into_bytes(),
        text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        hex::encode(bytes).into_bytes(),
        hex::encode_upper(bytes).into_bytes(),
    ];
    for (shift, shared) in [(0, 0), (1, 2), (2, 3)] {
        // Base64 of the text at each alignment, without the characters its neighbours share.
        let padded = [&[0; 2][..shift], bytes].concat();
        for engine in [&STANDARD, &URL_SAFE] {
            let encoded = engine.encode(&padded);
            all.push(encoded.as_bytes()[shared..encoded.len() - 4].to_vec());
        }
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits: Vec<u8> = text.bytes().map(|byte| byte - b'0').collect();
        for start in 0..2 {
            let pairs = digits[start..].chunks_exact(2);
            all.push(pairs.clone().map(|pair| pair[0] << 4 | pair[1]).collect());
            all.push(pairs.map(|pair| pair[1] << 4 | pair[0]).collect());
        }
        all.push(digits);
    }
    all
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let lower = |bytes: &[u8]| bytes.to_ascii_lowercase();
    let (haystack, needle) = (lower(haystack), lower(needle));
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Every file below `folder` that holds one of `needles`.
fn holders(folder: &Path, needles: &[Vec<u8>]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holders(&path, needles));
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for needle in needles {
            assert!(needle.len() >= 5, "too short to mean anything");
            if contains(&bytes, needle) {
                found.push(format!("{}: {needle:02x?}", path.display()));
            }
        }
    }
    found
}

fn needles() -> Vec<Vec<u8>> {
    let mut all = encodings(NUMBER);
    for word in WORDS.split(' ') {
        all.extend(encodings(word));
    }
    // What an unsealed recording would begin with, and raw samples.
    all.push(b"OpusHead".to_vec());
    all.push(tone(320, 300.0)[..16].iter().flat_map(|sample| sample.to_le_bytes()).collect());
    all
}

/// Everything the vault can keep, with the words and the number in all of it.
fn fill(vault: &Vault) {
    let handle = vault.handle();
    let text = format!("{WORDS} +{NUMBER}");
    let mut record = ended_call(1, &format!("+{NUMBER}"));
    record.personal.request_uri = personal(&format!("sip:+{NUMBER}@{WORDS}.example"));
    record.personal.decision = personal(&text);
    record.personal.attempt = personal(&text);
    record.personal.observed = personal(&text);
    record.personal.quality = personal(&text);
    let recording = handle.record(call_id(1)).unwrap();
    for frame in 0..100 {
        recording.push(Channel::Caller, frame * 320, &tone(frame * 320, 300.0)).unwrap();
    }
    recording.finish();
    handle.submit(Record::Call(Box::new(record))).unwrap();
    for index in 0..10 {
        handle.submit(turn_record(1, index, &text)).unwrap();
    }
    let message = personal(&text);
    let entry = LadderEntry { index: 0, at_ms: 0, leg: 0, sent: true, message };
    handle.submit(Record::Ladder { call: call_id(1), entries: vec![entry] }).unwrap();
    for call in [None, Some(call_id(1))] {
        let details = AuditDetails::Sealed(personal(&text));
        let entry = AuditEntry { kind: "test.said", actor: "edge".into(), call, details };
        handle.submit(Record::Audit(entry)).unwrap();
    }
    wait(handle.flush()).unwrap();
}

#[test]
fn words_and_numbers_are_on_no_disk() {
    let place = Place::new();
    let config = place.config();
    let vault = place.open();
    fill(&vault);
    let mut needles = needles();
    // Key bytes, too, stay out of the data folder.
    let key_file = fs::read_to_string(&config.key_file).unwrap();
    for line in key_file.lines().skip(1) {
        let key = line.split(' ').nth(1).unwrap();
        needles.push(key.as_bytes().to_vec());
        needles.push(STANDARD.decode(key).unwrap());
    }
    // While it runs, journal included, and after it was closed.
    assert_eq!(holders(&config.data, &needles), [""; 0]);
    vault.close();
    assert_eq!(holders(&config.data, &needles), [""; 0]);
    assert_eq!(holders(&config.audit_heads, &needles), [""; 0]);
}

#[test]
fn the_search_would_find_what_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for (index, needle) in needles().iter().enumerate() {
        let file = folder.path().join("dump");
        let surrounded = [&[0xaa; 7][..], needle, &[0xbb; 5]].concat();
        fs::write(&file, surrounded).unwrap();
        assert!(!holders(folder.path(), &needles()).is_empty(), "needle {index}");
    }
    for dump in [
        STANDARD.encode(format!("to: {NUMBER};")),
        STANDARD.encode(format!("to: +{NUMBER};")),
        STANDARD.encode(format!("to:  +{NUMBER};")),
        hex::encode(format!("a {WORDS} b")),
    ] {
        fs::write(folder.path().join("dump"), &dump).unwrap();
        assert!(!holders(folder.path(), &needles()).is_empty(), "{dump}");
    }
}
