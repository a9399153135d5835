//! One audio line: what two descriptions of it have in common, and how ours is written.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use base::Secret;

use super::{
    AcceptError, AnswerError, ComfortNoise, Keying, Local, Negotiated, NegotiatedCodec,
    TelephoneEvent,
};
use crate::audio::{self, Codec, NOISE, PayloadFormat};
use crate::opaque::{Opaque, OpaqueCodec};
use crate::session::{Attribute, Direction, Host, Media, MediaKind, Session};

/// Packet time where nothing is said (RFC 3551 section 4.2).
pub(super) const PTIME_DEFAULT: u16 = 20;
/// Packet times that the media path can make: multiples of 10 ms.
const PTIME_MIN: u16 = 10;
const PTIME_MAX: u16 = 60;

const TELEPHONE_EVENT: &str = "telephone-event";
/// The events that we take: the keys (RFC 4733 section 3.2).
const KEYS: &str = "0-15";
/// Where dynamic payload types begin (RFC 3551 section 3), and the usual number for key presses.
const DYNAMIC_MIN: u8 = 96;
const EVENT_PAYLOAD_TYPE: u8 = 101;

/// Where to send; both `None` while the peer holds with the unspecified address, or over ICE.
#[derive(Default)]
pub(super) struct Target {
    pub(super) rtp: Option<SocketAddr>,
    pub(super) rtcp: Option<SocketAddr>,
    is_hold: bool,
}

pub(super) enum TargetError {
    NoAddress,
    HostName(String),
    Unusable,
}

impl From<TargetError> for AnswerError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::NoAddress => Self::NoAddress,
            TargetError::HostName(name) => Self::HostName(name),
            TargetError::Unusable => Self::UnusableAddress,
        }
    }
}

impl From<TargetError> for AcceptError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::NoAddress => Self::NoAddress,
            TargetError::HostName(name) => Self::HostName(name),
            TargetError::Unusable => Self::UnusableAddress,
        }
    }
}

/// Where the peer's `media` is to be sent to from `our_address`.
pub(super) fn target(
    session: &Session,
    media: &Media,
    keying: &Keying,
    our_address: Option<IpAddr>,
    rtcp_mux: bool,
) -> Result<Target, TargetError> {
    // RFC 8839 section 4.2.1.1: a browser that has no candidate yet, or only such as are names,
    // writes an address that means nothing.
    if *keying == Keying::Dtls && session.attribute_of(media, "ice-ufrag").is_some() {
        return Ok(Target::default());
    }
    let connection = session.connection_of(media).ok_or(TargetError::NoAddress)?;
    let address = match &connection.host {
        Host::Ip(address) => address.to_canonical(),
        Host::Name { name, .. } => return Err(TargetError::HostName(name.clone())),
    };
    if address.is_unspecified() {
        return Ok(Target { is_hold: true, ..Target::default() });
    }
    let is_usable = |address: IpAddr| {
        !address.is_multicast()
            && !address.is_unspecified()
            && address != IpAddr::V4(Ipv4Addr::BROADCAST)
            && our_address.is_none_or(|ours| ours.is_ipv4() == address.is_ipv4())
    };
    if !is_usable(address) {
        return Err(TargetError::Unusable);
    }
    let rtcp = match media.rtcp() {
        _ if rtcp_mux => None,
        // RFC 3605: another port, perhaps at another address.
        Some((port, host)) => {
            let host = host.map_or(Some(address), |host| host.ip());
            host.map(|it| it.to_canonical()).filter(|it| is_usable(*it)).zip(Some(port))
        }
        // RFC 3550 section 11: the next higher port.
        None => media.port.checked_add(1).map(|port| (address, port)),
    };
    let rtcp = rtcp.filter(|(_, port)| *port != 0).map(SocketAddr::from);
    Ok(Target { rtp: Some(SocketAddr::new(address, media.port)), rtcp, is_hold: false })
}

/// What the peer does on its line. The unspecified address means that it does not listen
/// (RFC 3264 section 8.4, for RFC 2543's way of holding).
pub(super) fn remote_direction(session: &Session, media: &Media, target: &Target) -> Direction {
    let stated = session.direction_of(media);
    if target.is_hold { stated.and(Direction::SendOnly) } else { stated }
}

/// The packet time that the peer wants, brought into what can be made; `ours` where it says
/// nothing of use.
pub(super) fn ptime(session: &Session, media: &Media, ours: u16) -> u16 {
    let stated = media.ptime().or_else(|| audio::milliseconds(session.attribute("ptime")?));
    let can_be_made =
        |it: &u16| (PTIME_MIN..=PTIME_MAX).contains(it) && it.is_multiple_of(PTIME_MIN);
    let chosen = stated.filter(can_be_made).unwrap_or(ours.clamp(PTIME_MIN, PTIME_MAX));
    match media.maxptime() {
        Some(most) if most < chosen => (most / PTIME_MIN * PTIME_MIN).max(PTIME_MIN),
        _ => chosen,
    }
}

/// How the offered line `index` can be protected.
pub(super) fn answered_keying(
    offer: &Session,
    index: usize,
    want: &Local,
) -> Result<Keying, AnswerError> {
    let media = &offer.media[index];
    let has_crypto = media.crypto().next().is_some();
    // Whoever asks says for which lines a handshake is at hand; it goes before keys in the clear.
    if offer.fingerprint_of(media).is_some() && want.dtls.contains_key(&index) {
        return Ok(Keying::Dtls);
    }
    if let Some(local) = want.crypto.get(&index)
        && !media.protocol.is_dtls()
    {
        // RFC 4568 section 5.1.2: the answer repeats tag and suite of the line it accepts.
        let remote = media.crypto().find(|it| crypto_head(it) == crypto_head(local.expose()));
        let remote = remote.ok_or(AnswerError::NoCommonCrypto)?;
        return Ok(Keying::Sdes { remote: Secret::new(remote.into()), local: local.clone() });
    }
    match (media.protocol.is_secure(), want.plaintext) {
        (true, _) => Err(AnswerError::NoCommonCrypto),
        (false, true) => Ok(Keying::Plain),
        (false, false) if has_crypto => Err(AnswerError::NoCommonCrypto),
        (false, false) => Err(AnswerError::PlaintextMedia),
    }
}

/// How the answered line `index` is protected.
pub(super) fn accepted_keying(
    offer: &Session,
    answer: &Session,
    index: usize,
) -> Result<Keying, AcceptError> {
    let (ours, theirs) = (&offer.media[index], &answer.media[index]);
    // AVP for AVPF and the like is forgiven (RFC 8643 peers differ); a change of protection is not.
    if !theirs.protocol.is_rtp()
        || ours.protocol.is_dtls() != theirs.protocol.is_dtls()
        || ours.protocol.is_secure() && !theirs.protocol.is_secure()
    {
        return Err(AcceptError::Protocol);
    }
    if ours.protocol.is_dtls() {
        let has_fingerprint = answer.fingerprint_of(theirs).is_some();
        return if has_fingerprint { Ok(Keying::Dtls) } else { Err(AcceptError::NoCommonCrypto) };
    }
    // RFC 4568 section 5.1.3: tag and suite of the answer are those of a line that was offered.
    let pair = theirs.crypto().find_map(|remote| {
        let local = ours.crypto().find(|line| crypto_head(line) == crypto_head(remote))?;
        Some(Keying::Sdes { remote: Secret::new(remote.into()), local: Secret::new(local.into()) })
    });
    match pair {
        Some(keying) => Ok(keying),
        None if theirs.protocol.is_secure() || theirs.crypto().next().is_some() => {
            Err(AcceptError::NoCommonCrypto)
        }
        None => Ok(Keying::Plain),
    }
}

/// Tag and suite of an `a=crypto` value.
fn crypto_head(value: &str) -> (Option<&str>, Option<&str>) {
    let mut words = value.split_ascii_whitespace();
    let tag = words.next().map(|tag| tag.trim_start_matches('0'));
    (tag, words.next())
}

/// Our codecs that the offered line has too, in our order, under the offer's numbers.
pub(super) fn answered_codecs(theirs: &Media, ours: &[Codec]) -> Vec<NegotiatedCodec> {
    let mut formats = theirs.payload_formats();
    ours.iter()
        .filter_map(|codec| {
            let at = formats.iter().position(|format| codec.matches(format))?;
            // Two layouts of one codec are two formats, never one number twice.
            let format = formats.remove(at);
            let opaque = codec.agree(&format);
            Some(negotiated(&codec.name, format.payload_type, format, opaque))
        })
        .collect()
}

/// The answered codecs that we offered, in the answer's order.
pub(super) fn accepted_codecs(ours: &Media, theirs: &Media) -> Vec<NegotiatedCodec> {
    let offered = ours.payload_formats();
    let mut codecs: Vec<NegotiatedCodec> = Vec::new();
    for format in answered_formats(&offered, theirs) {
        let mut alike = offered.iter().filter(|known| {
            known.name.eq_ignore_ascii_case(&format.name)
                && known.clock_rate == format.clock_rate
                && known.channels == format.channels
                && !is_event(known)
                && !known.is_comfort_noise()
        });
        if OpaqueCodec::from_name(&format.name).is_none() {
            if let Some(known) = alike.next() {
                codecs.push(negotiated(&known.name, known.payload_type, format, None));
            }
            continue;
        }
        let agreed = |known: &PayloadFormat| known.opaque()?.agree(format.opaque()?);
        if let Some((known, opaque)) = alike.find_map(|known| Some((known, agreed(known)?))) {
            codecs.push(negotiated(&known.name, known.payload_type, format, Some(opaque)));
        }
    }
    codecs
}

/// The formats of an answer; a number without `rtpmap` means what we offered under it.
fn answered_formats(offered: &[PayloadFormat], theirs: &Media) -> Vec<PayloadFormat> {
    let stated = theirs.payload_formats();
    let of_number = |list: &[PayloadFormat], number: u8| {
        list.iter().find(|format| format.payload_type == number).cloned()
    };
    let mut formats: Vec<PayloadFormat> = Vec::new();
    for number in theirs.formats.iter().filter_map(|word| word.parse().ok()) {
        if formats.iter().all(|known| known.payload_type != number) {
            formats.extend(of_number(&stated, number).or_else(|| of_number(offered, number)));
        }
    }
    formats
}

fn negotiated(
    name: &str,
    receive_payload_type: u8,
    format: PayloadFormat,
    opaque: Option<Opaque>,
) -> NegotiatedCodec {
    NegotiatedCodec {
        name: name.into(),
        clock_rate: format.clock_rate,
        channels: format.channels,
        payload_type: format.payload_type,
        receive_payload_type,
        fmtp: format.fmtp,
        opaque,
    }
}

/// The key presses of the offered line: on the codec's clock, or else on any
/// (RFC 4733 section 2.1 wants the same, softphones offer Opus with events at 8000).
pub(super) fn answered_event(theirs: &Media, rate: u32) -> Option<TelephoneEvent> {
    choose_event(&theirs.payload_formats(), rate).map(|format| TelephoneEvent {
        payload_type: format.payload_type,
        receive_payload_type: format.payload_type,
        clock_rate: format.clock_rate,
    })
}

/// The key presses of the answered line.
pub(super) fn accepted_event(ours: &Media, theirs: &Media, rate: u32) -> Option<TelephoneEvent> {
    let offered = ours.payload_formats();
    let mut answered = answered_formats(&offered, theirs);
    answered.retain(|format| {
        offered.iter().any(|known| is_event(known) && known.clock_rate == format.clock_rate)
    });
    let format = choose_event(&answered, rate)?;
    let known =
        offered.iter().find(|known| is_event(known) && known.clock_rate == format.clock_rate)?;
    Some(TelephoneEvent {
        payload_type: format.payload_type,
        receive_payload_type: known.payload_type,
        clock_rate: format.clock_rate,
    })
}

fn choose_event(formats: &[PayloadFormat], rate: u32) -> Option<&PayloadFormat> {
    let events = || formats.iter().filter(|format| is_event(format));
    events().find(|format| format.clock_rate == rate).or_else(|| events().next())
}

fn is_event(format: &PayloadFormat) -> bool {
    format.name.eq_ignore_ascii_case(TELEPHONE_EVENT) && format.channels == 1
}

/// Comfort noise of the offered line, where the codec to be used leaves room for it.
pub(super) fn answered_noise(theirs: &Media, codecs: &[NegotiatedCodec]) -> Option<ComfortNoise> {
    let format = theirs.payload_formats().into_iter().find(PayloadFormat::is_comfort_noise)?;
    is_g711(&codecs.first()?.name).then_some(ComfortNoise {
        payload_type: format.payload_type,
        receive_payload_type: format.payload_type,
    })
}

/// Comfort noise of the answered line.
pub(super) fn accepted_noise(ours: &Media, theirs: &Media) -> Option<ComfortNoise> {
    let offered = ours.payload_formats();
    let known = offered.iter().find(|format| format.is_comfort_noise())?;
    let answered =
        answered_formats(&offered, theirs).into_iter().find(PayloadFormat::is_comfort_noise)?;
    Some(ComfortNoise {
        payload_type: answered.payload_type,
        receive_payload_type: known.payload_type,
    })
}

fn is_g711(name: &str) -> bool {
    name.eq_ignore_ascii_case("PCMU") || name.eq_ignore_ascii_case("PCMA")
}

/// `media` refused or switched off: the same line with port 0 (RFC 3264 section 6).
pub(super) fn closed(media: &Media) -> Media {
    Media {
        kind: media.kind.clone(),
        port: 0,
        port_count: None,
        protocol: media.protocol.clone(),
        formats: media.formats.clone(),
        information: None,
        connection: None,
        bandwidths: Vec::new(),
        attributes: media.mid().map(|mid| Attribute::new("mid", mid)).into_iter().collect(),
    }
}

/// Our line that accepts `theirs`.
pub(super) fn answer_audio(theirs: &Media, want: &Local, negotiated: &Negotiated) -> Media {
    let mut audio = Media { port: want.rtp_port, ..closed(theirs) };
    audio.formats.clear();
    for codec in &negotiated.codecs {
        let ours = want.codecs.iter().find(|it| {
            it.name == codec.name
                && it.clock_rate == codec.clock_rate
                && it.channels == codec.channels
                && codec.opaque.is_none_or(|agreed| {
                    it.as_opaque().and_then(|it| it.agree(agreed)) == Some(agreed)
                })
        });
        if let Some(ours) = ours {
            add_format(&mut audio, codec.payload_type, ours);
        }
    }
    if let Some(event) = negotiated.telephone_event {
        add_format(&mut audio, event.payload_type, &event_codec(event.clock_rate));
    }
    if let Some(noise) = negotiated.comfort_noise {
        add_format(&mut audio, noise.payload_type, &noise_codec());
    }
    if !negotiated.rtcp_mux {
        add_rtcp(&mut audio, want);
    }
    let crypto = match &negotiated.keying {
        Keying::Sdes { local, .. } => core::slice::from_ref(local),
        _ => &[],
    };
    let dtls = match negotiated.keying {
        Keying::Dtls => want.dtls.get(&negotiated.media_index).map_or(&[][..], |it| &it[..]),
        _ => &[],
    };
    let rtcp_mux = negotiated.rtcp_mux;
    finish_audio(&mut audio, negotiated.direction, negotiated.ptime, rtcp_mux, crypto, dtls);
    audio
}

/// Our line for an offer; codecs that `known` has keep its numbers, and no number of it gets
/// another meaning.
pub(super) fn offer_audio(want: &Local, known: &[PayloadFormat]) -> Media {
    let mut audio = Media {
        kind: MediaKind::Audio,
        port: want.rtp_port,
        port_count: None,
        protocol: want.offer_protocol.clone(),
        formats: Vec::new(),
        information: None,
        connection: None,
        bandwidths: Vec::new(),
        attributes: Vec::new(),
    };
    let mut events: Vec<Codec> = Vec::new();
    for codec in &want.codecs {
        if want.telephone_event && events.iter().all(|it| it.clock_rate != codec.clock_rate) {
            events.push(event_codec(codec.clock_rate));
        }
    }
    let mut used: Vec<u8> = known.iter().map(|format| format.payload_type).collect();
    let mut add = |codec: &Codec, first: u8| {
        let number = known
            .iter()
            .find(|format| codec.matches(format))
            .map(|format| format.payload_type)
            .or_else(|| codec.static_payload_type().filter(|it| !used.contains(it)))
            .or_else(|| {
                // The usual number of key presses is left to them.
                let is_free = |it: &u8| {
                    !used.contains(it) && (first == EVENT_PAYLOAD_TYPE || *it != EVENT_PAYLOAD_TYPE)
                };
                (first..128).chain(DYNAMIC_MIN..first).find(is_free)
            });
        if let Some(number) = number {
            used.push(number);
            add_format(&mut audio, number, codec);
        }
    };
    want.codecs.iter().for_each(|codec| add(codec, DYNAMIC_MIN));
    if want.comfort_noise && want.codecs.iter().any(|codec| is_g711(&codec.name)) {
        add(&noise_codec(), DYNAMIC_MIN);
    }
    events.iter().for_each(|codec| add(codec, EVENT_PAYLOAD_TYPE));

    let is_dtls = want.offer_protocol.is_dtls();
    if is_dtls {
        audio.attributes.push(Attribute::flag("rtcp-mux-only")); // RFC 8858 section 3
    } else {
        // The peer may not want to share the port, so that it must know the other one too.
        add_rtcp(&mut audio, want);
    }
    let crypto = if is_dtls { &[] } else { &want.offer_crypto[..] };
    let dtls = if is_dtls { &want.offer_dtls[..] } else { &[] };
    let ptime = want.ptime.clamp(PTIME_MIN, PTIME_MAX);
    finish_audio(&mut audio, want.direction, ptime, want.rtcp_mux, crypto, dtls);
    audio
}

/// RFC 3551 section 6 gives it payload type 13.
fn noise_codec() -> Codec {
    Codec { name: NOISE.into(), clock_rate: 8_000, channels: 1, fmtp: None }
}

fn event_codec(clock_rate: u32) -> Codec {
    Codec { name: TELEPHONE_EVENT.into(), clock_rate, channels: 1, fmtp: Some(KEYS.into()) }
}

fn add_format(audio: &mut Media, payload_type: u8, codec: &Codec) {
    audio.formats.push(payload_type.to_string());
    audio.attributes.push(Attribute::new("rtpmap", audio::rtpmap(payload_type, codec)));
    if let Some(fmtp) = &codec.fmtp {
        let value = alloc::format!("{payload_type} {fmtp}");
        audio.attributes.push(Attribute::new("fmtp", value));
    }
}

/// RFC 3605: to be said where the RTCP port is not the next one.
fn add_rtcp(audio: &mut Media, want: &Local) {
    if want.rtcp_port != 0 && want.rtp_port.checked_add(1) != Some(want.rtcp_port) {
        audio.attributes.push(Attribute::new("rtcp", want.rtcp_port.to_string()));
    }
}

fn finish_audio(
    audio: &mut Media,
    direction: Direction,
    ptime: u16,
    rtcp_mux: bool,
    crypto: &[Secret<String>],
    dtls: &[Attribute],
) {
    let attributes = &mut audio.attributes;
    attributes.push(Attribute::new("ptime", ptime.to_string()));
    if rtcp_mux {
        attributes.push(Attribute::flag("rtcp-mux"));
    }
    attributes.extend(crypto.iter().map(|value| Attribute::new("crypto", value.expose().as_str())));
    attributes.extend(dtls.iter().cloned());
    attributes.push(Attribute::flag(direction.name()));
}
