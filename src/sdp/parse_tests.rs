use super::*;
use crate::session::Direction;
use alloc::format;
use alloc::vec;
use proptest::prelude::*;

fn parse(text: &str) -> Session {
    Session::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn problem(text: &str) -> (usize, Problem) {
    let error = Session::parse(text.as_bytes()).unwrap_err();
    (error.line, error.problem)
}

const HEAD: &str = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n";

/// As a browser offers audio (shortened).
const BROWSER: &str = "v=0\r
o=- 4611731400430051336 2 IN IP4 127.0.0.1\r
s=-\r
t=0 0\r
a=group:BUNDLE 0\r
a=extmap-allow-mixed\r
a=msid-semantic: WMS\r
m=audio 54321 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126\r
c=IN IP4 203.0.113.5\r
a=rtcp:9 IN IP4 0.0.0.0\r
a=candidate:1 1 udp 2122260223 192.0.2.5 54321 typ host generation 0\r
a=candidate:2 1 udp 1686052607 203.0.113.5 54321 typ srflx raddr 192.0.2.5 rport 54321\r
a=ice-ufrag:4ZcD\r
a=ice-pwd:2/1muCWoOi3uLifh0NuRHlZb\r
a=ice-options:trickle\r
a=fingerprint:sha-256 75:74:5A:A6:A4:E5:52:F4:A7:67:4C:01:C7:EE:91:3F\r
a=setup:actpass\r
a=mid:0\r
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r
a=sendrecv\r
a=rtcp-mux\r
a=rtpmap:111 opus/48000/2\r
a=rtcp-fb:111 transport-cc\r
a=fmtp:111 minptime=10;useinbandfec=1\r
a=rtpmap:63 red/48000/2\r
a=fmtp:63 111/111\r
a=rtpmap:9 G722/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:13 CN/8000\r
a=rtpmap:110 telephone-event/48000\r
a=rtpmap:126 telephone-event/8000\r
a=ssrc:3735928559 cname:abcdefgh\r
";

#[test]
fn a_browsers_offer_is_understood_and_printed_as_it_came() {
    let session = parse(BROWSER);
    assert_eq!(format!("{session}"), BROWSER);
    let audio = &session.media[0];
    assert_eq!(audio.protocol, Protocol::UdpTlsRtpSavpf);
    assert!(session.is_secure_offer() && audio.protocol.is_dtls());
    assert!(audio.has_rtcp_mux());
    assert_eq!(audio.rtcp(), Some((9, Some(Host::Ip([0, 0, 0, 0].into())))));
    assert_eq!(session.fingerprint_of(audio).map(|(hash, _)| hash), Some("sha-256"));
    assert_eq!(session.attribute_of(audio, "setup"), Some("actpass"));
    assert_eq!(session.attribute_of(audio, "ice-ufrag"), Some("4ZcD"));
    assert_eq!(audio.candidates().count(), 2);
    assert_eq!(audio.mid(), Some("0"));
    assert!(session.bundle().eq(["0"]));
    let formats = audio.payload_formats();
    assert_eq!(formats.len(), 8);
    let opus = &formats[0];
    assert_eq!((opus.name.as_str(), opus.clock_rate, opus.channels), ("opus", 48_000, 2));
    assert_eq!(opus.fmtp.as_deref(), Some("minptime=10;useinbandfec=1"));
}

#[test]
fn static_payload_types_need_no_rtpmap() {
    let session = parse(&format!("{HEAD}m=audio 4000 RTP/AVP 0 8 9 13 18 3 4 96 200 x 0\r\n"));
    let formats = session.media[0].payload_formats();
    let found: Vec<_> =
        formats.iter().map(|it| (it.payload_type, it.name.as_str(), it.clock_rate)).collect();
    assert_eq!(
        found,
        [
            (0, "PCMU", 8000),
            (8, "PCMA", 8000),
            (9, "G722", 8000),
            (13, "CN", 8000),
            (18, "G729", 8000),
            (3, "GSM", 8000),
            (4, "G723", 8000)
        ]
    );
}

#[test]
fn a_broken_rtpmap_of_a_static_type_does_not_hide_it() {
    let text = format!("{HEAD}m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:0 PCMU\r\na=rtpmap:96 x/0\r\n");
    let formats = parse(&text).media[0].payload_formats();
    assert_eq!(formats.len(), 1);
    assert_eq!(formats[0].name, "PCMU");
}

#[test]
fn bare_line_feeds_and_missing_optional_lines_are_taken() {
    let session =
        parse("v=0\no=x 1 1 IN IP4 192.0.2.1\nc=IN IP4 192.0.2.1\nm=audio 9 RTP/AVP 0\n\n");
    assert_eq!(session.name, "-");
    assert_eq!(session.times, [Timing { start: 0, stop: 0, repeats: vec![] }]);
    assert_eq!(session.media.len(), 1);
    let again = parse(&format!("{session}"));
    assert_eq!(again, session);
}

#[test]
fn every_line_of_the_grammar_survives_in_order() {
    let text = "v=0\r\no=jdoe 2890844526 2890842807 IN IP4 10.47.16.5\r\ns=SDP Seminar\r\n\
        i=A Seminar\r\nu=http://www.example.com/sdp.ps\r\ne=j.doe@example.com (Jane Doe)\r\n\
        p=+1 617 555-6011\r\nc=IN IP4 192.0.2.12\r\nb=AS:128\r\nb=X-YZ:1\r\n\
        t=2873397496 2873404696\r\nr=604800 3600 0 90000\r\nz=2882844526 -1h\r\n\
        a=recvonly\r\na=x-unknown:value: with colons\r\n\
        m=audio 49170/2 RTP/AVP 0\r\ni=floor\r\nc=IN IP6 2001:db8::1\r\nb=TIAS:64000\r\na=q:\r\n\
        m=image 5000 udptl t38\r\na=T38FaxVersion:0\r\n";
    assert_eq!(format!("{}", parse(text)), text);
}

#[test]
fn direction_and_address_are_inherited_and_overridden() {
    let session = parse(&format!(
        "{HEAD}a=sendonly\r\nm=audio 1 RTP/AVP 0\r\nm=audio 2 RTP/AVP 0\r\n\
         c=IN IP4 192.0.2.9\r\na=inactive\r\n"
    ));
    let [first, second] = &session.media[..] else { panic!() };
    assert_eq!(session.direction_of(first), Direction::SendOnly);
    assert_eq!(session.direction_of(second), Direction::Inactive);
    let address = |media| session.connection_of(media).and_then(|it| it.host.ip());
    assert_eq!(address(first), Some([192, 0, 2, 1].into()));
    assert_eq!(address(second), Some([192, 0, 2, 9].into()));
}

#[test]
fn plain_avp_with_crypto_counts_as_secure() {
    let audio = |protocol: &str, extra: &str| {
        parse(&format!("{HEAD}m=audio 4000 {protocol} 0\r\n{extra}")).is_secure_offer()
    };
    let crypto = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:x\r\n";
    assert!(audio("RTP/AVP", crypto));
    assert!(audio("RTP/SAVP", ""));
    assert!(audio("UDP/TLS/RTP/SAVP", ""));
    assert!(!audio("RTP/AVP", ""));
    let off = parse(&format!("{HEAD}m=audio 0 RTP/SAVP 0\r\nm=audio 2 RTP/AVP 0\r\n"));
    assert!(!off.is_secure_offer());
}

#[test]
fn errors_name_the_line() {
    for (text, expected) in [
        ("", (1, Problem::NotALine)),
        ("o=- 1 2 IN IP4 192.0.2.1\r\n", (1, Problem::Version)),
        ("v=1\r\n", (1, Problem::Version)),
        ("v=0\r\n", (1, Problem::Missing('o'))),
        ("v=0\r\no=- IN IP4 192.0.2.1\r\n", (2, Problem::Malformed('o'))),
        (&format!("{HEAD}hello\r\n"), (6, Problem::NotALine)),
        (&format!("{HEAD}\r\na=x\r\n"), (6, Problem::NotALine)),
        (&format!("{HEAD}c=IN IP4 192.0.2.1\r\n"), (6, Problem::OutOfPlace('c'))),
        (&format!("{HEAD}m=audio\r\n"), (6, Problem::Malformed('m'))),
        (&format!("{HEAD}m=audio 70000 RTP/AVP 0\r\n"), (6, Problem::Malformed('m'))),
        (&format!("{HEAD}m=audio -1 RTP/AVP 0\r\n"), (6, Problem::Malformed('m'))),
        (&format!("{HEAD}m=audio 9 RTP/AVP 0\r\nc=IN IP4 a b\r\n"), (7, Problem::Malformed('c'))),
        (&format!("{HEAD}m=audio 9 RTP/AVP 0\r\nc=ATM NSAP x\r\n"), (7, Problem::Malformed('c'))),
        (
            &format!("{HEAD}m=audio 9 RTP/AVP 0\r\no=- 1 2 IN IP4 1.2.3.4\r\n"),
            (7, Problem::OutOfPlace('o')),
        ),
        (&format!("{HEAD}b=AS:18446744073709551616\r\n"), (6, Problem::Malformed('b'))),
        (&format!("{HEAD}a=x\0y\r\n"), (6, Problem::ControlCharacter)),
        (&format!("{HEAD}a= :y\r\n"), (6, Problem::Malformed('a'))),
    ] {
        assert_eq!(problem(text), expected, "{text:?}");
    }
}

#[test]
fn numbers_of_the_origin_may_be_larger_than_any_integer() {
    let session =
        parse("v=0\r\no=a b 123456789012345678901234567890 0x2 IN IP4 not/an/address\r\n");
    assert_eq!(session.origin.username, "a_b");
    assert_eq!(session.origin.session_id, "123456789012345678901234567890");
}

#[test]
fn a_host_name_is_kept_as_such() {
    let session = parse(&format!("{HEAD}m=audio 9 RTP/AVP 0\r\nc=IN IP4 media.example.com\r\n"));
    let host = session.media[0].connection.as_ref().map(|it| &it.host);
    assert_eq!(host, Some(&Host::Name { name: "media.example.com".into(), is_ipv6: false }));
}

#[test]
fn every_count_has_a_limit() {
    let lines = |line: &str, count: usize| -> String {
        core::iter::once(HEAD.to_string())
            .chain((0..count).map(|_| format!("{line}\r\n")))
            .collect()
    };
    let limit = |text: &str| match problem(text) {
        (_, Problem::OverLimit(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(&lines("a=x", 257)), "sdp.attributes");
    assert_eq!(limit(&lines("b=AS:1", 257)), "sdp.attributes");
    assert_eq!(limit(&lines("m=audio 9 RTP/AVP 0", 17)), "sdp.media_lines");
    let formats: String = (0..65).map(|n| format!(" {n}")).collect();
    assert_eq!(limit(&format!("{HEAD}m=audio 9 RTP/AVP{formats}\r\n")), "sdp.formats");
    assert_eq!(limit(&format!("{HEAD}a={:x<32768}\r\n", "")), "sdp.bytes");
    assert!(Session::parse(lines("a=x", 256).as_bytes()).is_ok());
}

#[test]
fn keys_are_not_printed_by_debug() {
    let session = parse(&format!(
        "{HEAD}m=audio 9 RTP/SAVP 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:KEY\r\n\
         a=ice-pwd:PWD\r\n"
    ));
    let printed = format!("{session:?} {}", session.without_secrets());
    assert!(!printed.contains("KEY") && !printed.contains("PWD"), "{printed}");
    assert!(format!("{session}").contains("inline:KEY"));
}

#[test]
fn bytes_that_are_not_utf8_do_not_stop_it() {
    let mut text = HEAD.as_bytes().to_vec();
    text.extend(b"a=tool:\xff\xfe\r\nm=audio 9 RTP/AVP 0\r\n");
    assert_eq!(Session::parse(&text).unwrap().media.len(), 1);
}

fn any_line() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]=[ -~]{0,30}",
        "a=[a-z]{1,8}(:[ -~é]{0,20})?",
        "m=(audio|video|x) [0-9]{1,5}(/2)? (RTP/AVP|RTP/SAVP|udptl)( [0-9]{1,3}){0,4}",
        "c=IN IP[46] (192\\.0\\.2\\.1|::1|host\\.example|224\\.2\\.2\\.2/127)",
        "b=[A-Z]{2}:[0-9]{1,6}",
        "t=[0-9]{1,9} [0-9]{1,9}",
        "[ -~\\x00\\t]{0,20}",
    ]
}

proptest! {
    #[test]
    fn what_is_parsed_prints_to_the_same(lines in prop::collection::vec(any_line(), 0..20)) {
        let mut text = String::from("v=0\no=- 1 1 IN IP4 192.0.2.1\n");
        for line in lines {
            let longer = format!("{text}{line}\n");
            // Lines that do not fit what came before are left out.
            if Session::parse(longer.as_bytes()).is_ok() {
                text = longer;
            }
        }
        let session = Session::parse(text.as_bytes()).unwrap();
        let printed = format!("{session}");
        let again = Session::parse(printed.as_bytes()).unwrap();
        prop_assert_eq!(again, session);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Session::parse(&bytes);
        let mut text = HEAD.as_bytes().to_vec();
        text.extend(&bytes);
        if let Ok(session) = Session::parse(&text) {
            session.media.iter().for_each(|media| drop(media.payload_formats()));
        }
    }
}
