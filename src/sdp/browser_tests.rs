//! What browsers offer (`testdata/`), and what is answered and offered to them.

use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::Media;
use crate::audio::OpusParameters;

const CHROME: &str = include_str!("testdata/chrome.sdp");
const CHROME_WITH_OTHERS: &str = include_str!("testdata/chrome_with_other_lines.sdp");
const FIREFOX: &str = include_str!("testdata/firefox.sdp");
const SAFARI: &str = include_str!("testdata/safari.sdp");

fn parse(text: &str) -> Session {
    Session::parse(text.as_bytes()).unwrap()
}

fn want() -> Local {
    Local {
        session_id: 77,
        version: 1,
        address: [203, 0, 113, 1].into(),
        rtp_port: 30_000,
        rtcp_port: 30_000,
        codecs: vec![Codec::opus(&OpusParameters::default()), Codec::g722(), Codec::pcmu()],
        telephone_event: true,
        comfort_noise: false,
        direction: Direction::SendRecv,
        rtcp_mux: true,
        ptime: 20,
        plaintext: false,
        crypto: BTreeMap::new(),
        dtls: [(0, ours("passive"))].into(),
        offer_protocol: Protocol::UdpTlsRtpSavpf,
        offer_crypto: Vec::new(),
        offer_dtls: ours("actpass"),
        ice_lite: true,
    }
}

fn ours(setup: &str) -> Vec<Attribute> {
    vec![Attribute::new("fingerprint", "sha-256 CC:DD"), Attribute::new("setup", setup)]
}

fn names(session: &Session) -> Vec<&str> {
    session.media.iter().filter_map(Media::mid).collect()
}

#[test]
fn what_browsers_offer_survives_the_round_trip_and_is_answered_once() {
    for (text, events) in
        [(CHROME, 48_000), (CHROME_WITH_OTHERS, 48_000), (FIREFOX, 8_000), (SAFARI, 48_000)]
    {
        let offer = parse(text);
        assert_eq!(parse(&offer.to_string()), offer);
        assert!(offer.is_secure_offer());
        let Answer { session, negotiated } = answer(&offer, &want()).unwrap();
        assert_eq!(negotiated.keying, Keying::Dtls);
        assert_eq!((negotiated.remote, negotiated.remote_rtcp), (None, None));
        assert_eq!(negotiated.codecs[0].name, "opus");
        assert_eq!(negotiated.telephone_event.unwrap().clock_rate, events);
        assert_eq!(session.media.len(), offer.media.len());
        assert_eq!(session.media.iter().filter(|line| line.port != 0).count(), 1);
        assert_eq!(names(&session), names(&offer));
        assert!(session.bundle().eq(["0"]) && session.attribute("ice-lite").is_some());
        assert!(session.media[0].attribute("rtcp").is_none());
    }
}

#[test]
fn a_line_for_which_no_handshake_is_at_hand_is_refused() {
    let nothing = Local { dtls: [(1, ours("passive"))].into(), ..want() };
    assert_eq!(answer(&parse(CHROME), &nothing), Err(AnswerError::NoCommonCrypto));
}

#[test]
fn certificates_are_those_of_the_line_or_else_of_the_session() {
    let named = |line: &str, session: &str| {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{session}\
             m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n{line}"
        );
        let session = parse(&text);
        let all = session.fingerprints_of(&session.media[0]);
        all.map(|(hash, value)| format!("{hash} {value}")).collect::<Vec<_>>()
    };
    let (one, two) = ("a=fingerprint:sha-1 AA\r\n", "a=fingerprint:sha-256 BB\r\n");
    assert_eq!(named(&format!("{one}{two}"), ""), ["sha-1 AA", "sha-256 BB"]);
    assert_eq!(named("", two), ["sha-256 BB"]);
    assert_eq!(named(one, two), ["sha-1 AA"]);
    assert!(named("", "").is_empty());
}

#[test]
fn an_offer_for_a_browser_is_one_named_line_that_shares_its_port() {
    let offer = offer(&want());
    let line = &offer.media[0];
    assert_eq!((line.mid(), line.protocol.name()), (Some("0"), "UDP/TLS/RTP/SAVPF"));
    assert!(line.has_rtcp_mux() && line.attribute("rtcp-mux-only").is_some());
    assert!(line.attribute("rtcp").is_none());
    assert!(offer.bundle().eq(["0"]) && offer.attribute("ice-lite").is_some());
    assert_eq!(line.attribute("setup"), Some("actpass"));
    let sdes = super::offer(&Local { offer_protocol: Protocol::RtpSavp, ..want() });
    assert!(sdes.attributes.is_empty() && sdes.media[0].mid().is_none());
}

#[test]
fn a_later_offer_keeps_the_browsers_names_and_leaves_the_roles_open() {
    let before = answer(&parse(CHROME_WITH_OTHERS), &want()).unwrap().session;
    let held = with_direction(&before, Direction::SendOnly);
    assert_eq!(held.media[0].attribute("setup"), Some("actpass"));
    assert_eq!(held.attributes, before.attributes);
    assert_eq!(held.origin.version, "2");
    // What says nothing new keeps its version.
    assert_eq!(with_direction(&held, Direction::SendOnly), held);

    let anew = reoffer(&before, &Local { codecs: vec![Codec::pcmu()], ..want() });
    assert_eq!(names(&anew), ["0", "1", "2", "3"]);
    assert_eq!(anew.media[0].attributes("mid").count(), 1);
    assert!(anew.bundle().eq(["0"]) && anew.attribute("ice-lite").is_some());
    assert_eq!(anew.media[0].attribute("setup"), Some("actpass"));
    assert!(anew.media[1..].iter().all(|line| line.port == 0));
}

#[test]
fn a_browsers_answer_is_taken_by_its_handshake_and_nothing_less() {
    let offer = offer(&want());
    let answer = |lines: &str| {
        parse(&format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 96 101\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n\
             a=rtpmap:96 opus/48000/2\r\na=rtcp-mux\r\n{lines}"
        ))
    };
    let good = "a=ice-ufrag:abcd\r\na=fingerprint:sha-256 AA:BB\r\na=setup:active\r\n";
    let negotiated = accept_answer(&offer, &answer(good)).unwrap();
    assert_eq!((negotiated.keying, negotiated.remote), (Keying::Dtls, None));
    assert!(negotiated.rtcp_mux && negotiated.direction == Direction::SendRecv);
    let bare = accept_answer(&offer, &answer("a=ice-ufrag:abcd\r\n"));
    assert_eq!(bare, Err(AcceptError::NoCommonCrypto));
    let sdes = answer(good).to_string().replace("UDP/TLS/RTP/SAVPF", "RTP/SAVP");
    assert_eq!(accept_answer(&offer, &parse(&sdes)), Err(AcceptError::Protocol));
}

/// As pages of `max-bundle` offer that add their video first; `own` is what the audio line says of
/// its way.
fn video_first(own: &str) -> Session {
    parse(&format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE v a\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=mid:v\r\na=rtcp-mux\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:aaaabbbbccccddddeeeeffff\r\n\
         a=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=rtpmap:96 VP8/90000\r\n\
         m=audio 0 UDP/TLS/RTP/SAVPF 111\r\na=mid:a\r\na=bundle-only\r\n{own}\
         a=rtpmap:111 opus/48000/2\r\n"
    ))
}

#[test]
fn a_line_that_is_there_only_within_its_bundle_is_open_and_shares_its_way() {
    let offered = video_first("");
    assert_eq!(answer(&offered, &want()), Err(AnswerError::NoAudio), "as it is written");
    let offer = offered.unbundled();
    let line = &offer.media[1];
    assert!(line.is_open_audio() && line.has_rtcp_mux());
    assert_eq!(
        (line.attribute("ice-ufrag"), line.attribute("setup")),
        (Some("abcd"), Some("actpass"))
    );
    let want = Local { dtls: [(1, ours("passive"))].into(), ..want() };
    let Answer { session, negotiated } = answer(&offer, &want).unwrap();
    assert_eq!((negotiated.keying, negotiated.media_index), (Keying::Dtls, 1));
    let ports: Vec<_> = session.media.iter().map(|line| line.port).collect();
    assert_eq!(ports, [0, 30_000]);
    assert_eq!(names(&session), ["v", "a"]);
    // RFC 9143 section 7.3.1: the answer names what is accepted, and has no such line.
    assert!(session.bundle().eq(["a"]) && session.media[1].attribute("bundle-only").is_none());
}

#[test]
fn a_bundled_line_keeps_what_it_says_of_itself_and_other_lines_stay_closed() {
    let own = "a=ice-ufrag:wxyz\r\na=ice-pwd:ffffeeeeddddccccbbbbaaaa\r\na=setup:active\r\n";
    let offer = video_first(own).unbundled();
    let line = &offer.media[1];
    assert_eq!((line.port, line.attribute("ice-ufrag")), (9, Some("wxyz")));
    assert_eq!((line.attributes("setup").count(), line.attribute("setup")), (1, Some("active")));
    let text = video_first("").to_string();
    for (known, changed) in [
        ("a=bundle-only\r\n", ""),                        // switched off
        ("BUNDLE v a", "BUNDLE v"),                       // not of the group
        ("m=video 9", "m=video 0"),                       // a group without a way
        ("a=group:BUNDLE v a\r\n", "a=group:LS v a\r\n"), // no such group
    ] {
        let offer = parse(&text.replace(known, changed));
        assert_eq!(offer.clone().unbundled(), offer, "{changed}");
        assert!(!offer.media[1].is_open_audio());
    }
}

#[test]
fn a_line_with_both_kinds_of_keys_is_answered_by_the_handshake_that_is_at_hand() {
    let both = "m=audio 9 RTP/SAVPF 111\r\nc=IN IP4 192.0.2.1\r\n\
                a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:abc\r\n\
                a=ice-ufrag:abcd\r\na=ice-pwd:aaaabbbbccccddddeeeeffff\r\na=rtcp-mux\r\n\
                a=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\n";
    let offer = parse(&format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n{both}"));
    let local = Secret::new("1 AES_CM_128_HMAC_SHA1_80 inline:def".into());
    let want = Local { crypto: [(0, local)].into(), ..want() };
    assert_eq!(answer(&offer, &want).unwrap().negotiated.keying, Keying::Dtls);
    let without = Local { dtls: BTreeMap::new(), ..want };
    assert!(matches!(answer(&offer, &without).unwrap().negotiated.keying, Keying::Sdes { .. }));
}
