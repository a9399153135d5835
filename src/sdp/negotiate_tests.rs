use super::*;
use alloc::vec;
use proptest::prelude::*;

use crate::audio::OpusParameters;

/// As carriers' session border controllers offer over TLS.
const CARRIER: &str = "v=0\r
o=Sonus_UAC 12345 67890 IN IP4 198.51.100.10\r
s=SIP Media Capabilities\r
c=IN IP4 198.51.100.20\r
t=0 0\r
m=audio 20000 RTP/SAVP 8 0 18 101\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:18 G729/8000\r
a=fmtp:18 annexb=no\r
a=rtpmap:101 telephone-event/8000\r
a=fmtp:101 0-15\r
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0LW9mLXRoZS1jYXJyaWVyLTAxMjM0NTY3\r
a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:c2VjcmV0LW9mLXRoZS1jYXJyaWVyLTAxMjM0NTY4\r
a=sendrecv\r
a=ptime:20\r
a=maxptime:40\r
";

/// As baresip offers with mandatory SRTP.
const BARESIP: &str = "v=0\r
o=- 3978932121 1271850612 IN IP4 192.0.2.30\r
s=-\r
c=IN IP4 192.0.2.30\r
t=0 0\r
a=tool:baresip 1.1.0\r
m=audio 10034 RTP/SAVP 96 9 0 8 97\r
b=AS:125\r
a=rtpmap:96 opus/48000/2\r
a=fmtp:96 stereo=1;sprop-stereo=1\r
a=rtpmap:9 G722/8000\r
a=rtpmap:0 PCMU/8000\r
a=rtpmap:8 PCMA/8000\r
a=rtpmap:97 telephone-event/8000\r
a=fmtp:97 0-15\r
a=rtcp:10035\r
a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:c2VjcmV0LW9mLXRoZS1jYXJyaWVyLTAxMjM0NTY3\r
a=sendrecv\r
a=label:1\r
a=rtcp-rsize\r
a=ssrc:1234 cname:sip:a@192.0.2.30\r
a=ptime:20\r
";

/// sipp's built-in scenario.
const SIPP: &str = "v=0\r
o=user1 53655765 2353687637 IN IP4 192.0.2.40\r
s=-\r
c=IN IP4 192.0.2.40\r
t=0 0\r
m=audio 6000 RTP/AVP 0\r
a=rtpmap:0 PCMU/8000\r
";

/// As Linphone offers with optional encryption and video.
const LINPHONE: &str = "v=0\r
o=alice 1654 2345 IN IP4 192.0.2.50\r
s=Talk\r
c=IN IP4 192.0.2.50\r
t=0 0\r
a=rtcp-xr:rcvr-rtt=all:10000 stat-summary=loss,dup,jitt,TTL voip-metrics\r
m=audio 7078 RTP/AVPF 96 97 98 0 8 18 101 99 100\r
a=rtpmap:96 opus/48000/2\r
a=fmtp:96 useinbandfec=1; maxplaybackrate=16000\r
a=rtpmap:97 speex/16000\r
a=fmtp:97 vbr=on\r
a=rtpmap:98 speex/8000\r
a=rtpmap:101 telephone-event/48000\r
a=rtpmap:99 telephone-event/16000\r
a=rtpmap:100 telephone-event/8000\r
a=rtcp-mux\r
a=crypto:1 AEAD_AES_128_GCM inline:c2VjcmV0LW9mLXRoZS1jYXJyaWVyLTAxMjM0NTY3\r
m=video 9078 RTP/AVPF 96\r
a=rtpmap:96 VP8/90000\r
a=mid:v\r
";

const CRYPTO_1: &str = "1 AES_CM_128_HMAC_SHA1_80 inline:b3Vycy1vdXJzLW91cnMtb3Vycy1vdXJzLW91cnMh";

fn parse(text: &str) -> Session {
    Session::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn want() -> Local {
    let opus = OpusParameters {
        max_playback_rate: Some(16_000),
        max_average_bitrate: Some(24_000),
        stereo: Some(false),
        use_inband_fec: Some(true),
        use_dtx: Some(false),
        cbr: None,
    };
    Local {
        session_id: 77,
        version: 1,
        address: [203, 0, 113, 1].into(),
        rtp_port: 30_000,
        rtcp_port: 30_001,
        codecs: vec![Codec::opus(&opus), Codec::g722(), Codec::pcma(), Codec::pcmu()],
        telephone_event: true,
        comfort_noise: false,
        direction: Direction::SendRecv,
        rtcp_mux: true,
        ptime: 20,
        plaintext: false,
        crypto: BTreeMap::new(),
        dtls: BTreeMap::new(),
        offer_protocol: Protocol::RtpSavp,
        offer_crypto: vec![Secret::new(CRYPTO_1.into())],
        offer_dtls: Vec::new(),
        ice_lite: true,
    }
}

/// Wants SRTP with our key for line 0.
fn want_srtp() -> Local {
    Local { crypto: [(0, Secret::new(CRYPTO_1.into()))].into(), ..want() }
}

fn want_plain() -> Local {
    Local { plaintext: true, ..want() }
}

fn names(negotiated: &Negotiated) -> Vec<(&str, u8)> {
    negotiated.codecs.iter().map(|it| (it.name.as_str(), it.payload_type)).collect()
}

fn answer_plain(text: &str) -> Answer {
    answer(&parse(text), &want_plain()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// sipp's offer with other lines after its own.
fn sipp_with(lines: &str) -> String {
    alloc::format!("{SIPP}{lines}")
}

#[test]
fn a_carriers_srtp_offer_is_answered_with_our_key_and_its_numbers() {
    let Answer { session, negotiated } = answer(&parse(CARRIER), &want_srtp()).unwrap();
    assert_eq!(
        session.to_string(),
        alloc::format!(
            "v=0\r\no=- 77 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n\
             m=audio 30000 RTP/SAVP 8 0 101\r\n\
             a=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n\
             a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\n\
             a=ptime:20\r\na=crypto:{CRYPTO_1}\r\na=sendrecv\r\n"
        )
    );
    assert_eq!(names(&negotiated), [("PCMA", 8), ("PCMU", 0)]);
    assert_eq!(negotiated.remote, Some(([198, 51, 100, 20], 20_000).into()));
    assert_eq!(negotiated.remote_rtcp, Some(([198, 51, 100, 20], 20_001).into()));
    let Keying::Sdes { remote, local } = &negotiated.keying else { panic!("{negotiated:?}") };
    assert!(remote.expose().starts_with("1 AES_CM_128_HMAC_SHA1_80 inline:c2Vj"));
    assert_eq!(local.expose(), CRYPTO_1);
}

#[test]
fn no_key_reaches_a_debug_print() {
    let answer = answer(&parse(CARRIER), &want_srtp()).unwrap();
    let printed = alloc::format!("{answer:?} {:?}", want_srtp());
    assert!(!printed.contains("inline"), "{printed}");
}

#[test]
fn baresip_gets_opus_with_our_wishes_and_events_at_its_rate() {
    let Answer { session, negotiated } = answer(&parse(BARESIP), &want_srtp()).unwrap();
    assert_eq!(names(&negotiated), [("opus", 96), ("G722", 9), ("PCMA", 8), ("PCMU", 0)]);
    assert_eq!(
        session.media[0].attributes("fmtp").next(),
        Some("96 maxplaybackrate=16000;maxaveragebitrate=24000;stereo=0;useinbandfec=1;usedtx=0")
    );
    // The peer's wishes are for our encoder.
    let theirs = OpusParameters::parse(negotiated.codecs[0].fmtp.as_deref().unwrap());
    assert_eq!(theirs.stereo, Some(true));
    // Only 8000 is offered, although Opus runs at 48000.
    let event = negotiated.telephone_event.unwrap();
    assert_eq!((event.payload_type, event.clock_rate), (97, 8000));
    assert_eq!(negotiated.remote_rtcp, Some(([192, 0, 2, 30], 10_035).into()));
}

#[test]
fn linphones_optional_srtp_is_used_and_its_video_refused() {
    let key = "1 AEAD_AES_128_GCM inline:b3Vycy1vdXJzLW91cnMtb3Vycy1vdXJzLW91cnM=";
    let want = Local { crypto: [(0, Secret::new(key.into()))].into(), ..want() };
    let Answer { session, negotiated } = answer(&parse(LINPHONE), &want).unwrap();
    assert!(matches!(negotiated.keying, Keying::Sdes { .. }));
    assert_eq!(negotiated.protocol, Protocol::RtpAvpf);
    assert_eq!(
        negotiated.telephone_event.map(|it| (it.payload_type, it.clock_rate)),
        Some((101, 48_000))
    );
    assert!(negotiated.rtcp_mux && session.media[0].has_rtcp_mux());
    assert_eq!(negotiated.remote_rtcp, None);
    let video = &session.media[1];
    assert_eq!(
        (video.port, video.formats.as_slice(), video.mid()),
        (0, &["96".to_string()][..], Some("v"))
    );
    assert_eq!(video.attributes.len(), 1);
}

#[test]
fn plain_rtp_is_refused_unless_it_is_allowed() {
    let offer = parse(SIPP);
    assert_eq!(answer(&offer, &want()), Err(AnswerError::PlaintextMedia));
    let answer = answer(&offer, &want_plain()).unwrap();
    assert_eq!(answer.negotiated.keying, Keying::Plain);
    assert_eq!(answer.session.media[0].crypto().count(), 0);
}

#[test]
fn srtp_without_a_usable_key_is_never_answered_in_the_clear() {
    assert_eq!(answer(&parse(CARRIER), &want_plain()), Err(AnswerError::NoCommonCrypto));
    // Optional SRTP may be declined, but only where plain RTP is allowed.
    assert_eq!(answer(&parse(LINPHONE), &want()), Err(AnswerError::NoCommonCrypto));
    let declined = answer(&parse(LINPHONE), &want_plain()).unwrap();
    assert_eq!(declined.negotiated.keying, Keying::Plain);
    // A key for a line that was not offered is no agreement.
    let wrong_suite = "1 AEAD_AES_256_GCM inline:x";
    let want = Local { crypto: [(0, Secret::new(wrong_suite.into()))].into(), ..want() };
    assert_eq!(answer(&parse(CARRIER), &want), Err(AnswerError::NoCommonCrypto));
}

#[test]
fn a_protected_line_is_taken_before_a_plain_one() {
    let crypto = "1 AES_CM_128_HMAC_SHA1_80 inline:dGhlaXJz";
    let offer = sipp_with(&alloc::format!("m=audio 6002 RTP/SAVP 0\r\na=crypto:{crypto}\r\n"));
    let key = Secret::new(CRYPTO_1.into());
    let want = Local { crypto: [(1, key)].into(), ..want_plain() };
    let Answer { session, negotiated } = answer(&parse(&offer), &want).unwrap();
    assert_eq!(negotiated.media_index, 1);
    assert_eq!((session.media[0].port, session.media[1].port), (0, 30_000));
}

#[test]
fn directions_are_mirrored() {
    for (offered, ours, wanted_only) in [
        ("sendrecv", "sendrecv", "recvonly"),
        ("sendonly", "recvonly", "recvonly"),
        ("recvonly", "sendonly", "inactive"),
        ("inactive", "inactive", "inactive"),
    ] {
        let offer = parse(&sipp_with(&alloc::format!("a={offered}\r\n")));
        let found = answer(&offer, &want_plain()).unwrap();
        assert_eq!(found.negotiated.direction.name(), ours);
        assert!(found.session.media[0].attribute(ours).is_some());
        let want = Local { direction: Direction::RecvOnly, ..want_plain() };
        assert_eq!(answer(&offer, &want).unwrap().negotiated.direction.name(), wanted_only);
    }
}

#[test]
fn the_unspecified_address_is_a_hold_and_nothing_is_sent_there() {
    for address in ["IP4 0.0.0.0", "IP6 ::"] {
        let text = SIPP.replace("c=IN IP4 192.0.2.40", &alloc::format!("c=IN {address}"));
        let negotiated = answer_plain(&text).negotiated;
        assert_eq!(negotiated.direction, Direction::RecvOnly);
        assert_eq!((negotiated.remote, negotiated.remote_rtcp), (None, None));
    }
}

#[test]
fn near_misses_of_codec_names_match() {
    for (format, maps, expected) in [
        ("0", "", ("PCMU", 0)),
        ("8", "a=rtpmap:8 pcma/8000/1\r\n", ("PCMA", 8)),
        ("9", "a=rtpmap:9 g722/8000\r\n", ("G722", 9)),
        ("115", "a=rtpmap:115 OPUS/48000/2\r\na=fmtp:115 x=y; ;=\r\n", ("opus", 115)),
        ("98", "a=rtpmap:98  PCMU/8000\r\n", ("PCMU", 98)),
    ] {
        let text = SIPP.replace(
            "RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n",
            &alloc::format!("RTP/AVP {format}\r\n{maps}"),
        );
        assert_eq!(names(&answer_plain(&text).negotiated), [expected], "{text}");
    }
}

#[test]
fn codecs_that_only_look_alike_do_not_match() {
    for maps in
        ["opus/48000", "opus/16000/2", "G722/16000", "PCMU/16000", "PCMU/8000/2", "iLBC/8000"]
    {
        let text = SIPP.replace(
            "AVP 0\r\na=rtpmap:0 PCMU/8000",
            &alloc::format!("AVP 99\r\na=rtpmap:99 {maps}"),
        );
        assert_eq!(answer(&parse(&text), &want_plain()), Err(AnswerError::NoCommonCodec), "{maps}");
    }
}

#[test]
fn comfort_noise_goes_with_g711_and_is_told_apart_from_codecs() {
    let noisy = SIPP
        .replace("AVP 0\r\n", "AVP 0 13\r\n")
        .replace("a=rtpmap:0", "a=rtpmap:13 CN/8000\r\na=rtpmap:0");
    let want = Local { comfort_noise: true, ..want_plain() };
    let answered = answer(&parse(&noisy), &want).unwrap();
    let noise = answered.negotiated.comfort_noise.unwrap();
    assert_eq!((noise.payload_type, noise.receive_payload_type), (13, 13));
    assert!(answered.session.to_string().contains("m=audio 30000 RTP/AVP 0 13\r\n"));
    assert_eq!(answer(&parse(&noisy), &want_plain()).unwrap().negotiated.comfort_noise, None);

    let offered = offer(&Local { offer_protocol: Protocol::RtpAvp, ..want });
    assert!(offered.to_string().contains("a=rtpmap:13 CN/8000"));
    let agreed = accept_answer(&offered, &answered.session).unwrap();
    assert_eq!(agreed.comfort_noise, Some(noise));
    assert!(agreed.codecs.iter().all(|codec| codec.name != "CN"));
    let wideband = Local { codecs: vec![Codec::g722()], comfort_noise: true, ..want_plain() };
    assert!(!offer(&wideband).to_string().contains("CN/8000"));
}

#[test]
fn key_presses_are_left_out_where_one_side_does_not_take_them() {
    assert_eq!(answer_plain(SIPP).negotiated.telephone_event, None);
    let want = Local { telephone_event: false, ..want_srtp() };
    let answer = answer(&parse(CARRIER), &want).unwrap();
    assert_eq!(answer.negotiated.telephone_event, None);
    assert!(!answer.session.media[0].formats.contains(&"101".to_string()));
}

#[test]
fn packet_times_that_can_be_made_are_taken() {
    for (lines, expected) in [
        ("", 20),
        ("a=ptime:30\r\n", 30),
        ("a=ptime:20.0\r\n", 20),
        ("a=ptime:25\r\n", 20),
        ("a=ptime:500\r\n", 20),
        ("a=ptime:99999999999\r\n", 20),
        ("a=ptime:40\r\na=maxptime:30\r\n", 30),
        ("a=maxptime:5\r\n", 10),
    ] {
        assert_eq!(answer_plain(&sipp_with(lines)).negotiated.ptime, expected, "{lines}");
    }
}

#[test]
fn addresses_that_must_not_be_sent_to_are_refused() {
    for (address, error) in [
        ("IP4 224.2.1.1/127", AnswerError::UnusableAddress),
        ("IP6 ff02::1", AnswerError::UnusableAddress),
        ("IP4 255.255.255.255", AnswerError::UnusableAddress),
        ("IP6 2001:db8::1", AnswerError::UnusableAddress),
        ("IP6 ::ffff:224.0.0.1", AnswerError::UnusableAddress),
        ("IP4 media.example.com", AnswerError::HostName("media.example.com".into())),
    ] {
        let text = SIPP.replace("c=IN IP4 192.0.2.40", &alloc::format!("c=IN {address}"));
        assert_eq!(answer(&parse(&text), &want_plain()), Err(error), "{address}");
    }
    let none = SIPP.replace("c=IN IP4 192.0.2.40\r\n", "");
    assert_eq!(answer(&parse(&none), &want_plain()), Err(AnswerError::NoAddress));
}

#[test]
fn rtcp_goes_only_where_it_may() {
    for (lines, expected) in [
        ("a=rtcp:7001\r\n", Some("192.0.2.40:7001")),
        ("a=rtcp:7001 IN IP4 192.0.2.41\r\n", Some("192.0.2.41:7001")),
        ("a=rtcp:7001 IN IP4 224.0.0.1\r\n", None),
        ("a=rtcp:0\r\n", None),
        ("a=rtcp:nonsense\r\n", Some("192.0.2.40:6001")),
    ] {
        let found = answer_plain(&sipp_with(lines)).negotiated.remote_rtcp;
        assert_eq!(found, expected.map(|it| it.parse().unwrap()), "{lines}");
    }
    let last_port = SIPP.replace("6000", "65535");
    assert_eq!(answer_plain(&last_port).negotiated.remote_rtcp, None);
}

#[test]
fn ipv6_is_answered_over_ipv6() {
    let text = SIPP.replace("c=IN IP4 192.0.2.40", "c=IN IP6 2001:db8::40");
    let address: IpAddr = "2001:db8::1".parse().unwrap();
    let want = Local { address, ..want_plain() };
    let answer = answer(&parse(&text), &want).unwrap();
    assert_eq!(answer.negotiated.remote, Some("[2001:db8::40]:6000".parse().unwrap()));
    assert!(answer.session.to_string().contains("c=IN IP6 2001:db8::1\r\n"));
}

#[test]
fn a_resolved_host_name_is_used() {
    let mut offer = parse(&SIPP.replace("c=IN IP4 192.0.2.40", "c=IN IP4 media.example.com"));
    offer.resolve("media.example.com", [192, 0, 2, 99].into());
    let answer = answer(&offer, &want_plain()).unwrap();
    assert_eq!(answer.negotiated.remote, Some(([192, 0, 2, 99], 6000).into()));
}

#[test]
fn offers_without_open_audio_are_refused() {
    for text in [
        SIPP.replace("m=audio 6000", "m=audio 0"),
        SIPP.replace("m=audio", "m=video"),
        SIPP.replace("RTP/AVP", "udptl"),
        SIPP.split("m=").next().unwrap().to_string(),
    ] {
        assert_eq!(answer(&parse(&text), &want_plain()), Err(AnswerError::NoAudio));
    }
}

#[test]
fn a_browser_is_answered_where_dtls_is_at_hand() {
    let offer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n\
        a=fingerprint:sha-256 AA:BB\r\na=setup:actpass\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 192.0.2.9\r\na=mid:0\r\na=rtcp-mux\r\n\
        a=rtpmap:111 opus/48000/2\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:1\r\n";
    assert_eq!(answer(&parse(offer), &want_plain()), Err(AnswerError::NoCommonCrypto));
    let ours =
        vec![Attribute::new("fingerprint", "sha-256 CC:DD"), Attribute::new("setup", "passive")];
    let dtls = [(0, ours)].into();
    let Answer { session, negotiated } = answer(&parse(offer), &Local { dtls, ..want() }).unwrap();
    assert_eq!(negotiated.keying, Keying::Dtls);
    assert!(session.bundle().eq(["0"]));
    assert_eq!(session.attribute_of(&session.media[0], "setup"), Some("passive"));
    assert_eq!(session.media[1].port, 0);
}

#[test]
fn the_address_of_a_browser_that_is_found_by_ice_means_nothing() {
    for host in ["IP4 0.0.0.0", "IP4 1b2c.local", "IP6 ::", "IP6 2001:db8::9"] {
        let offer = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=fingerprint:sha-256 AA:BB\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN {host}\r\na=ice-ufrag:abcd\r\n\
             a=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
        );
        let dtls = [(0, vec![Attribute::new("fingerprint", "sha-256 CC:DD")])].into();
        let negotiated = answer(&parse(&offer), &Local { dtls, ..want() }).expect(host).negotiated;
        assert_eq!((negotiated.remote, negotiated.remote_rtcp), (None, None), "{host}");
        assert_eq!(negotiated.direction, Direction::SendRecv, "{host}");
    }
}

#[test]
fn an_offer_of_ours_names_every_codec_and_its_key_presses() {
    let session = offer(&want());
    let audio = &session.media[0];
    assert_eq!(audio.formats, ["96", "9", "8", "0", "101", "102"]);
    let maps: Vec<_> = audio.attributes("rtpmap").collect();
    assert_eq!(
        maps,
        [
            "96 opus/48000/2",
            "9 G722/8000",
            "8 PCMA/8000",
            "0 PCMU/8000",
            "101 telephone-event/48000",
            "102 telephone-event/8000"
        ]
    );
    assert_eq!(audio.crypto().collect::<Vec<_>>(), [CRYPTO_1]);
    assert!(session.is_secure_offer() && audio.has_rtcp_mux());
    assert_eq!(parse(&session.to_string()), session);
}

#[test]
fn two_of_us_agree() {
    let ours = offer(&want());
    let peer = Local {
        address: [203, 0, 113, 2].into(),
        rtp_port: 40_000,
        rtcp_port: 40_005,
        rtcp_mux: false,
        ..want_srtp()
    };
    let theirs = answer(&ours, &peer).unwrap();
    let agreed = accept_answer(&ours, &parse(&theirs.session.to_string())).unwrap();
    assert_eq!(agreed.codecs.len(), 4);
    assert_eq!(agreed.telephone_event, theirs.negotiated.telephone_event);
    assert_eq!(agreed.remote, Some(([203, 0, 113, 2], 40_000).into()));
    assert_eq!(agreed.remote_rtcp, Some(([203, 0, 113, 2], 40_005).into()));
    assert!(!agreed.rtcp_mux);
    assert_eq!(agreed.direction, Direction::SendRecv);
}

/// An answer to `offer(&want())` with this audio section.
fn accept(section: &str) -> Result<Negotiated, AcceptError> {
    let text = alloc::format!(
        "v=0\r\no=x 1 1 IN IP4 192.0.2.8\r\ns=-\r\nc=IN IP4 192.0.2.8\r\nt=0 0\r\n{section}"
    );
    accept_answer(&offer(&want()), &parse(&text))
}

const ANSWERED_KEY: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:dGhlaXJz\r\n";

#[test]
fn an_answer_may_renumber_and_leave_out() {
    let agreed = accept(&alloc::format!(
        "m=audio 5000 RTP/SAVP 120 126\r\na=rtpmap:120 OPUS/48000/2\r\n\
         a=rtpmap:126 telephone-event/8000\r\na=recvonly\r\n{ANSWERED_KEY}"
    ))
    .unwrap();
    let codec = &agreed.codecs[0];
    assert_eq!(
        (codec.name.as_str(), codec.payload_type, codec.receive_payload_type),
        ("opus", 120, 96)
    );
    let event = agreed.telephone_event.unwrap();
    assert_eq!(
        (event.payload_type, event.receive_payload_type, event.clock_rate),
        (126, 102, 8000)
    );
    assert_eq!(agreed.direction, Direction::SendOnly);
    let Keying::Sdes { remote, local } = agreed.keying else { panic!() };
    assert_eq!(
        (remote.expose().as_str(), local.expose().as_str()),
        (&ANSWERED_KEY[9..ANSWERED_KEY.len() - 2], CRYPTO_1)
    );
}

#[test]
fn an_answer_without_rtpmap_means_our_numbers() {
    let agreed = accept(&alloc::format!("m=audio 5000 RTP/SAVP 96 102\r\n{ANSWERED_KEY}")).unwrap();
    assert_eq!(names(&agreed), [("opus", 96)]);
    assert_eq!(agreed.telephone_event.map(|it| it.clock_rate), Some(8000));
}

#[test]
fn answers_that_break_the_rules_are_told_apart() {
    let key = ANSWERED_KEY;
    for (section, error) in [
        (alloc::format!("m=audio 0 RTP/SAVP 0\r\n{key}"), AcceptError::Refused),
        (String::new(), AcceptError::MediaLines),
        (alloc::format!("m=video 5000 RTP/SAVP 0\r\n{key}"), AcceptError::MediaLines),
        (
            alloc::format!("m=audio 5000 RTP/SAVP 0\r\n{key}m=audio 2 RTP/SAVP 0\r\n"),
            AcceptError::MediaLines,
        ),
        (alloc::format!("m=audio 5000 RTP/AVP 0\r\n{key}"), AcceptError::Protocol),
        (alloc::format!("m=audio 5000 UDP/TLS/RTP/SAVP 0\r\n{key}"), AcceptError::Protocol),
        ("m=audio 5000 RTP/SAVP 0\r\n".into(), AcceptError::NoCommonCrypto),
        (
            alloc::format!("m=audio 5000 RTP/SAVP 0\r\n{}", key.replace(":1 ", ":2 ")),
            AcceptError::NoCommonCrypto,
        ),
        (
            alloc::format!("m=audio 5000 RTP/SAVP 0\r\n{}", key.replace("_80", "_32")),
            AcceptError::NoCommonCrypto,
        ),
        (alloc::format!("m=audio 5000 RTP/SAVP 18\r\n{key}"), AcceptError::NoCommonCodec),
        (alloc::format!("m=audio 5000 RTP/SAVP 101\r\n{key}"), AcceptError::NoCommonCodec),
        (
            alloc::format!("m=audio 5000 RTP/SAVP 0\r\nc=IN IP4 224.1.1.1\r\n{key}"),
            AcceptError::UnusableAddress,
        ),
    ] {
        assert_eq!(accept(&section), Err(error), "{section}");
    }
}

#[test]
fn an_opportunistic_offer_may_be_answered_in_the_clear() {
    let ours = offer(&Local { offer_protocol: Protocol::RtpAvp, ..want() });
    assert!(ours.is_secure_offer());
    assert_eq!(accept_answer(&ours, &parse(SIPP)).unwrap().keying, Keying::Plain);
}

#[test]
fn holding_and_resuming_raise_the_version_and_keep_the_rest() {
    let first = answer(&parse(CARRIER), &want_srtp()).unwrap().session;
    let held = with_direction(&first, Direction::SendOnly);
    assert_eq!(held.origin.version, "2");
    assert_eq!(held.media[0].attribute("sendonly"), Some(""));
    assert_eq!(held.media[0].attribute("sendrecv"), None);
    assert_eq!(with_direction(&held, Direction::SendOnly), held);
    let resumed = with_direction(&held, Direction::SendRecv);
    assert_eq!(resumed.origin.version, "3");
    assert_eq!(resumed.media, first.media);
}

#[test]
fn a_repeated_answer_keeps_its_version_and_a_changed_one_raises_it() {
    let first = answer(&parse(CARRIER), &want_srtp()).unwrap().session;
    let same = answer(&parse(CARRIER), &Local { version: 9, session_id: 3, ..want_srtp() });
    assert_eq!(follow(&first, same.unwrap().session), first);
    let moved = answer(&parse(CARRIER), &Local { rtp_port: 30_100, ..want_srtp() });
    let next = follow(&first, moved.unwrap().session);
    assert_eq!((next.origin.session_id.as_str(), next.origin.version.as_str()), ("77", "2"));
}

#[test]
fn a_reoffer_keeps_places_and_numbers() {
    // The peer called Opus 96 and key presses 97 and had a video line.
    let offered = alloc::format!("{BARESIP}m=video 7000 RTP/AVP 99\r\n");
    let previous = answer(&parse(&offered), &want_srtp()).unwrap().session;
    let mut want = want_srtp();
    want.codecs.push(Codec { name: "L16".into(), clock_rate: 16_000, channels: 1, fmtp: None });
    let next = reoffer(&previous, &want);
    assert_eq!((next.media.len(), next.media[1].port), (2, 0));
    let formats = next.media[0].payload_formats();
    let number = |name: &str, rate| {
        formats.iter().find(|it| it.name == name && it.clock_rate == rate).map(|it| it.payload_type)
    };
    assert_eq!(number("opus", 48_000), Some(96));
    assert_eq!(number("telephone-event", 8000), Some(97));
    assert_eq!(number("L16", 16_000), Some(98));
    assert_eq!(number("telephone-event", 48_000), Some(101));
    assert_eq!(next.origin.version, "2");
}

#[test]
fn opus_parameters_are_brought_into_range() {
    let parsed = OpusParameters::parse(
        "maxplaybackrate=1; maxaveragebitrate=99999999999; useinbandfec=1;usedtx=2;STEREO=0;cbr",
    );
    assert_eq!(
        parsed,
        OpusParameters {
            max_playback_rate: Some(8000),
            max_average_bitrate: Some(510_000),
            use_inband_fec: Some(true),
            stereo: Some(false),
            ..OpusParameters::default()
        }
    );
    assert_eq!(OpusParameters::parse(&parsed.to_string()), parsed);
}

proptest! {
    #[test]
    fn an_answer_always_mirrors_the_offers_lines(
        lines in prop::collection::vec(
            "m=(audio|video) (0|5000|9) (RTP/AVP|RTP/SAVP|udptl)( (0|8|9|96|101)){1,4}\r\n\
             (a=(sendonly|inactive|rtcp-mux|rtpmap:96 opus/48000/2|rtpmap:101 telephone-event/8000)\
             \r\n){0,3}",
            0..5,
        ),
    ) {
        let mut text = String::from("v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\n");
        text.extend(lines);
        let offer = parse(&text);
        if let Ok(Answer { session, negotiated }) = answer(&offer, &want_plain()) {
            prop_assert_eq!(session.media.len(), offer.media.len());
            for (index, (ours, theirs)) in session.media.iter().zip(&offer.media).enumerate() {
                prop_assert_eq!(&ours.kind, &theirs.kind);
                prop_assert_eq!(&ours.protocol, &theirs.protocol);
                prop_assert_eq!(ours.port != 0, index == negotiated.media_index);
                prop_assert!(ours.formats.iter().all(|format| theirs.formats.contains(format)));
            }
            prop_assert_eq!(parse(&session.to_string()), session.clone());
            // The other side comes to the same.
            let mirrored = accept_answer(&offer, &session).unwrap();
            prop_assert_eq!(mirrored.direction, negotiated.direction.reversed());
            prop_assert_eq!(mirrored.codecs.len(), negotiated.codecs.len());
        }
    }
}
