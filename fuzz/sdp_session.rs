//! Session descriptions: parse, print, answer.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use base::SeededRandom;
use rtp::{CryptoLine, Suite};
use sdp::{Attribute, Codec, Direction, Local, OpusParameters, Protocol, Session};

/// One description, or an offer and an answer with a NUL byte between them. What parses is
/// printed and parsed back equal, and an answer to it has the shape of the offer and parses.
pub fn sdp(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let first = parts.next().and_then(|part| Session::parse(part).ok());
    let second = parts.next().and_then(|part| Session::parse(part).ok());
    let Some(first) = first else { return };
    read_all(&first);
    for plaintext in [false, true] {
        answer(&first, plaintext);
    }
    if let Some(second) = second {
        read_all(&second);
        let _ = sdp::accept_answer(&first, &second);
    }
    // What it says to an offer of ours.
    let offer = sdp::offer(&local(true));
    let _ = sdp::accept_answer(&offer, &first);
    round_trip(&sdp::reoffer(&first, &local(true)));
}

fn answer(offer: &Session, plaintext: bool) {
    let mut want = local(plaintext);
    let preference = [Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80];
    for (index, media) in offer.media.iter().enumerate() {
        if let Some(line) = CryptoLine::choose(media.crypto(), &preference).chosen {
            let mut random = SeededRandom::new(1);
            let ours = CryptoLine::generate(line.tag, line.key.suite(), &mut random);
            want.crypto.insert(index, ours.to_attribute());
        }
    }
    let Ok(answer) = sdp::answer(offer, &want) else { return };
    // RFC 3264 section 6: as many lines, of the same kinds, in the same order.
    assert_eq!(answer.session.media.len(), offer.media.len());
    for (ours, theirs) in answer.session.media.iter().zip(&offer.media) {
        assert_eq!(ours.kind, theirs.kind);
    }
    let open = answer.session.media.iter().filter(|media| media.port != 0).count();
    assert_eq!(open, 1, "one audio line is accepted");
    assert!(plaintext || offer.is_secured(&offer.media[answer.negotiated.media_index]));
    round_trip(&answer.session);
    let _ = sdp::accept_answer(offer, &answer.session);
    for direction in [Direction::SendOnly, Direction::Inactive] {
        round_trip(&sdp::with_direction(&answer.session, direction));
    }
}

fn round_trip(session: &Session) {
    let text = session.to_string();
    let read = Session::parse(text.as_bytes());
    assert_eq!(read.as_ref(), Ok(session), "{text:?}");
}

fn read_all(session: &Session) {
    let text = session.to_string();
    // Printing may add what a lenient parse did without, and so pass the largest size.
    if let Ok(read) = Session::parse(text.as_bytes()) {
        assert_eq!(read.to_string(), text, "printed twice, it differs");
    } else {
        assert!(text.len() > base::limit::SDP_BYTES.get(), "not parsed back: {text:?}");
    }
    let _ = (session.bundle().count(), session.is_secure_offer());
    let hidden = session.without_secrets();
    let keys = hidden.media.iter().flat_map(|media| media.crypto());
    assert!(keys.chain(hidden.attribute("crypto")).all(|it| it == "[secret]"), "a key is shown");
    assert!(!hidden.to_string().contains("\r\nk="), "a key is shown");
    for media in &session.media {
        let _ = (media.payload_formats(), media.ptime(), media.maxptime(), media.rtcp());
        let _ = (session.direction_of(media), session.connection_of(media), media.mid());
        media.crypto().for_each(|value| drop(CryptoLine::parse(value)));
        for fmtp in media.attributes("fmtp") {
            let parsed = OpusParameters::parse(fmtp);
            let _ = parsed.to_string();
        }
    }
}

fn local(plaintext: bool) -> Local {
    let ours = CryptoLine::generate(1, Suite::AeadAes128Gcm, &mut SeededRandom::new(2));
    Local {
        session_id: 1,
        version: 1,
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        rtp_port: 10_000,
        rtcp_port: 10_001,
        codecs: vec![
            Codec::opus(&OpusParameters::default()),
            Codec::g722(),
            Codec::pcma(),
            Codec::pcmu(),
        ],
        telephone_event: true,
        comfort_noise: true,
        direction: Direction::SendRecv,
        rtcp_mux: true,
        ptime: 20,
        plaintext,
        crypto: BTreeMap::new(),
        dtls: (0..16).map(|line| (line, vec![Attribute::new("setup", "passive")])).collect(),
        offer_protocol: Protocol::RtpSavp,
        offer_crypto: vec![ours.to_attribute()],
        offer_dtls: vec![Attribute::new("setup", "actpass")],
        ice_lite: true,
    }
}
