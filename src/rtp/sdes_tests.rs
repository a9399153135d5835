use super::*;
use alloc::string::ToString as _;
use base::SeededRandom;
use proptest::prelude::*;

// 30 bytes of 0x00..0x1d.
const KEY_30: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd";

fn parse_80(rest: &str) -> Result<CryptoLine, Skip> {
    CryptoLine::parse(&format!("1 AES_CM_128_HMAC_SHA1_80 {rest}"))
}

#[test]
fn a_line_gives_tag_suite_key_and_salt() {
    let line = parse_80(&format!("inline:{KEY_30}")).unwrap();
    assert_eq!((line.tag, line.key.suite()), (1, Suite::AesCm128HmacSha1_80));
    assert!(line.key.key().iter().copied().eq(0..16));
    assert!(line.key.salt().iter().copied().eq(16..30));
}

#[test]
fn generated_lines_are_read_back_for_every_suite() {
    let mut random = SeededRandom::new(3);
    for suite in Suite::PREFERENCE {
        let line = CryptoLine::generate(7, suite, &mut random);
        assert_eq!(
            line.key.key().len() + line.key.salt().len(),
            suite.key_len() + suite.salt_len()
        );
        assert_eq!(CryptoLine::parse(line.to_attribute().expose()), Ok(line));
        assert_eq!(Suite::from_name(suite.name()), Some(suite));
    }
}

#[test]
fn two_generated_keys_differ() {
    let mut random = SeededRandom::new(3);
    let first = KeySalt::generate(Suite::AeadAes256Gcm, &mut random);
    assert!(first != KeySalt::generate(Suite::AeadAes256Gcm, &mut random));
}

#[test]
fn no_key_is_printed_by_accident() {
    let line = parse_80(&format!("inline:{KEY_30}")).unwrap();
    let printed = format!("{line:?} {line} {:?}", line.to_attribute());
    assert!(!printed.contains("AAEC") && !printed.contains("0, 1, 2"), "{printed}");
}

#[test]
fn padding_of_the_key_is_optional() {
    // 28 bytes need "==".
    let mut random = SeededRandom::new(4);
    let value = CryptoLine::generate(1, Suite::AeadAes128Gcm, &mut random).to_attribute();
    assert!(value.expose().ends_with("=="));
    let bare = value.expose().trim_end_matches('=').to_string();
    assert_eq!(CryptoLine::parse(&bare), CryptoLine::parse(value.expose()));
}

#[test]
fn lifetimes_that_outlast_a_call_are_taken() {
    for lifetime in ["2^31", "2^48", "2^20", "1048576"] {
        assert!(parse_80(&format!("inline:{KEY_30}|{lifetime}")).is_ok(), "{lifetime}");
    }
    for lifetime in ["2^49", "2^64", "2^10", "100", "0", "", "x", "2^", "2^+31", "-1"] {
        let found = parse_80(&format!("inline:{KEY_30}|{lifetime}"));
        assert_eq!(found, Err(Skip::Lifetime), "{lifetime}");
    }
}

#[test]
fn lines_with_key_identifiers_or_several_keys_are_passed_over() {
    for (rest, skip) in [
        (format!("inline:{KEY_30}|2^20|1:4"), Skip::Mki),
        (format!("inline:{KEY_30}|1:4"), Skip::Mki),
        (format!("inline:{KEY_30}|2^20|1:4;inline:{KEY_30}|2^20|2:4"), Skip::KeyParameters),
        (format!("inline:{KEY_30}|2^20|2^20"), Skip::Malformed),
        (format!("uri:{KEY_30}"), Skip::KeyParameters),
        (KEY_30.into(), Skip::Malformed),
    ] {
        assert_eq!(parse_80(&rest), Err(skip), "{rest}");
    }
}

#[test]
fn nothing_that_weakens_protection_is_accepted() {
    for parameter in [
        "UNENCRYPTED_SRTP",
        "UNENCRYPTED_SRTCP",
        "UNAUTHENTICATED_SRTP",
        "-UNENCRYPTED_SRTP",
        "unencrypted_srtcp",
        "WSH=64 UNAUTHENTICATED_SRTP",
        "UNENCRYPTED_SRTP=1",
    ] {
        let found = parse_80(&format!("inline:{KEY_30} {parameter}"));
        assert_eq!(found, Err(Skip::Unprotected), "{parameter}");
    }
}

#[test]
fn other_session_parameters_are_ignored_only_where_they_may_be() {
    for (parameter, expected) in [
        ("WSH=64", None),
        ("-KDR=3", None),
        ("-X-NEW", None),
        ("KDR=1", Some(Skip::SessionParameter)),
        ("FEC_ORDER=FEC_SRTP", Some(Skip::SessionParameter)),
        ("FEC_KEY=inline:x", Some(Skip::SessionParameter)),
    ] {
        let found = parse_80(&format!("inline:{KEY_30} {parameter}")).err();
        assert_eq!(found, expected, "{parameter}");
    }
}

#[test]
fn keys_of_the_wrong_length_or_alphabet_are_passed_over() {
    for key in [
        "",
        "AAEC",
        &KEY_30[..39],
        &format!("{KEY_30}AAEC"),
        "*AECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd",
    ] {
        assert_eq!(parse_80(&format!("inline:{key}")), Err(Skip::Key), "{key}");
    }
    let gcm = format!("1 AEAD_AES_256_GCM inline:{KEY_30}");
    assert_eq!(CryptoLine::parse(&gcm), Err(Skip::Key));
}

#[test]
fn broken_lines_say_so() {
    for (value, skip) in [
        ("", Skip::Malformed),
        ("1", Skip::Malformed),
        ("x AES_CM_128_HMAC_SHA1_80 inline:x", Skip::Malformed),
        ("+1 AES_CM_128_HMAC_SHA1_80 inline:x", Skip::Malformed),
        ("1234567890 AES_CM_128_HMAC_SHA1_80 inline:x", Skip::Malformed),
        ("1 AES_CM_128_HMAC_SHA1_80", Skip::Malformed),
        ("1 F8_128_HMAC_SHA1_80 inline:x", Skip::UnknownSuite),
        ("1 aes_cm_128_hmac_sha1_80 inline:x", Skip::UnknownSuite),
    ] {
        assert_eq!(CryptoLine::parse(value), Err(skip), "{value}");
    }
}

#[test]
fn our_preference_chooses_not_the_order_of_the_lines() {
    let mut random = SeededRandom::new(5);
    let lines: Vec<String> =
        [Suite::AesCm128HmacSha1_32, Suite::AesCm128HmacSha1_80, Suite::AeadAes128Gcm]
            .iter()
            .zip(1..)
            .map(|(suite, tag)| {
                CryptoLine::generate(tag, *suite, &mut random).to_attribute().expose().clone()
            })
            .chain([format!("4 AES_CM_128_HMAC_SHA1_80 inline:{KEY_30} UNENCRYPTED_SRTP")])
            .collect();
    let values = || lines.iter().map(String::as_str);

    let choice = CryptoLine::choose(values(), &Suite::PREFERENCE);
    assert_eq!(choice.chosen.map(|line| line.tag), Some(3));
    assert_eq!(choice.skipped, [(3, Skip::Unprotected)]);

    let only_80 = CryptoLine::choose(values(), &[Suite::AesCm128HmacSha1_80]);
    assert_eq!(only_80.chosen.map(|line| line.tag), Some(2));
    assert_eq!(only_80.skipped.len(), 3);

    assert_eq!(CryptoLine::choose([].into_iter(), &Suite::PREFERENCE).chosen, None);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[0-9 A-Z_a-z:|^;=+/]{0,90}") {
        let _ = CryptoLine::parse(&text);
        let _ = parse_80(&format!("inline:{text}"));
    }
}
