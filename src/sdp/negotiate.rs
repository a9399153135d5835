//! Offer and answer (RFC 3264) as pure functions over descriptions.
//!
//! The caller picks `a=crypto` lines (see `rtp::sdes`) before calling [`answer`], and hands them
//! in by media line.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};

use base::Secret;

use crate::audio::Codec;
use crate::opaque::Opaque;
use crate::session::{
    Attribute, Connection, Direction, Host, Media, Origin, Protocol, Session, Timing,
};

mod line;

/// What this side can do and wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Our session id (`o=`); the same for the life of the dialog.
    pub session_id: u64,
    /// Our version (`o=`); [`follow`] sets it for later descriptions.
    pub version: u64,
    /// The address that the peer is to send to.
    pub address: IpAddr,
    /// The RTP port.
    pub rtp_port: u16,
    /// The RTCP port where RTP and RTCP do not share one.
    pub rtcp_port: u16,
    /// Codecs, the best first.
    pub codecs: Vec<Codec>,
    /// Whether key presses are taken as RFC 4733 events.
    pub telephone_event: bool,
    /// Whether comfort noise (RFC 3389) is taken; it goes with G.711 only.
    pub comfort_noise: bool,
    /// What we want to do; an answer does no more than the offer allows.
    pub direction: Direction,
    /// Whether RTCP may share the RTP port (RFC 5761).
    pub rtcp_mux: bool,
    /// Milliseconds of audio per packet that we prefer.
    pub ptime: u16,
    /// Whether a line without SRTP may be answered; `false` unless policy exempts the trunk.
    pub plaintext: bool,
    /// For [`answer`]: the `a=crypto` value accepted for the media line of that index.
    pub crypto: BTreeMap<usize, Secret<String>>,
    /// For [`answer`]: what the DTLS-SRTP line of that index is answered with (`fingerprint`,
    /// `setup`, ICE attributes); others are refused.
    pub dtls: BTreeMap<usize, Vec<Attribute>>,
    /// For [`offer`]: the transport to offer.
    pub offer_protocol: Protocol,
    /// For [`offer`]: the `a=crypto` values, the best first.
    pub offer_crypto: Vec<Secret<String>>,
    /// For [`offer`] of a DTLS-SRTP line: its `fingerprint`, `setup` and ICE attributes.
    pub offer_dtls: Vec<Attribute>,
    /// Whether we are a lite ICE agent, which every description with a DTLS-SRTP line then says.
    pub ice_lite: bool,
}

/// How media of the negotiated line is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keying {
    /// Not at all: exempted plain RTP.
    Plain,
    /// SDES: the peer's `a=crypto` value. In [`answer`] that is the offered line whose tag ours
    /// carries; in [`accept_answer`] the line that the peer answered with.
    Sdes {
        /// The peer's line, which keys what we receive.
        remote: Secret<String>,
        /// Our line, which keys what we send.
        local: Secret<String>,
    },
    /// A DTLS handshake on the media path; the attributes are in the peer's description.
    Dtls,
}

/// A codec that both sides have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NegotiatedCodec {
    /// The name as in [`Local::codecs`].
    pub name: String,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Channels as written in `rtpmap`.
    pub channels: u8,
    /// The payload type to send.
    pub payload_type: u8,
    /// The payload type to expect; differs only where the peer's answer renumbers our offer.
    pub receive_payload_type: u8,
    /// The peer's `a=fmtp`: what it wants to receive.
    pub fmtp: Option<String>,
    /// What both sides mean by it, of a codec that goes through undecoded.
    pub opaque: Option<Opaque>,
}

/// RFC 4733 key presses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The payload type to send.
    pub payload_type: u8,
    /// The payload type to expect.
    pub receive_payload_type: u8,
    /// The RTP clock, in Hz; equal to the first codec's where the peer allows.
    pub clock_rate: u32,
}

/// RFC 3389 comfort noise, on the clock of 8 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComfortNoise {
    /// The payload type to send.
    pub payload_type: u8,
    /// The payload type to expect.
    pub receive_payload_type: u8,
}

/// What offer and answer amount to, seen from this side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// Which media line carries the audio.
    pub media_index: usize,
    /// Its transport as written.
    pub protocol: Protocol,
    /// How it is protected.
    pub keying: Keying,
    /// What may be sent and received, the one to send first.
    pub codecs: Vec<NegotiatedCodec>,
    /// Key presses, where both sides take them.
    pub telephone_event: Option<TelephoneEvent>,
    /// Comfort noise, where both sides take it.
    pub comfort_noise: Option<ComfortNoise>,
    /// Where to send RTP; `None` while the peer holds with `0.0.0.0` (RFC 2543), and where ICE
    /// finds it.
    pub remote: Option<SocketAddr>,
    /// Where to send RTCP; `None` with rtcp-mux (it goes to `remote`) and while held as above.
    pub remote_rtcp: Option<SocketAddr>,
    /// Whether RTCP shares the RTP port, both ways.
    pub rtcp_mux: bool,
    /// What we do.
    pub direction: Direction,
    /// Milliseconds of audio per packet that the peer wants.
    pub ptime: u16,
}

/// An answer and what it amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The description to send.
    pub session: Session,
    /// What was agreed.
    pub negotiated: Negotiated,
}

/// Why an offer cannot be answered: what stood against its most promising audio line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// There is no audio line over RTP that is switched on.
    #[error("no usable audio line")]
    NoAudio,
    /// The line has no SRTP and plain RTP is not allowed.
    #[error("only plain RTP is offered")]
    PlaintextMedia,
    /// The line demands SRTP, and none of its `a=crypto` lines was accepted.
    #[error("no acceptable crypto line")]
    NoCommonCrypto,
    /// No codec in common.
    #[error("no codec in common")]
    NoCommonCodec,
    /// The line has no `c=`, nor has the session.
    #[error("no connection address")]
    NoAddress,
    /// The address is a host name: resolve it, call [`Session::resolve`], and try again.
    #[error("the connection address is a host name")]
    HostName(String),
    /// The address is a group, broadcast or of the other family than ours.
    #[error("the connection address cannot be sent to")]
    UnusableAddress,
}

/// Why an answer to our offer cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The answer's media lines are not those of the offer (RFC 3264 section 6).
    #[error("the answer's media lines differ from the offer's")]
    MediaLines,
    /// The audio line was refused.
    #[error("the audio line was refused")]
    Refused,
    /// The transport of the line was changed.
    #[error("the answer changed the transport")]
    Protocol,
    /// We offered SRTP and the answer names no `a=crypto` line of ours.
    #[error("the answer accepts none of our crypto lines")]
    NoCommonCrypto,
    /// No codec of ours in the answer.
    #[error("no codec in common")]
    NoCommonCodec,
    /// As in [`AnswerError::NoAddress`].
    #[error("no connection address")]
    NoAddress,
    /// As in [`AnswerError::HostName`].
    #[error("the connection address is a host name")]
    HostName(String),
    /// As in [`AnswerError::UnusableAddress`].
    #[error("the connection address cannot be sent to")]
    UnusableAddress,
}

/// Answers `offer`: the first usable audio line (a protected one before a plain one) is accepted,
/// every other line refused with port 0.
///
/// # Errors
/// What stood against the most promising audio line.
pub fn answer(offer: &Session, want: &Local) -> Result<Answer, AnswerError> {
    let open =
        |secured: bool| {
            offer.media.iter().enumerate().filter(move |(_, media)| {
                media.is_open_audio() && offer.is_secured(media) == secured
            })
        };
    let mut error = AnswerError::NoAudio;
    for (index, _) in open(true).chain(open(false)) {
        match answer_line(offer, index, want) {
            Ok((audio, negotiated)) => {
                let session = answer_session(offer, want, index, audio, &negotiated);
                return Ok(Answer { session, negotiated });
            }
            Err(found) if error == AnswerError::NoAudio => error = found,
            Err(_) => {}
        }
    }
    Err(error)
}

/// An offer of one audio line, for an INVITE or for the answer to an INVITE without one.
#[must_use]
pub fn offer(want: &Local) -> Session {
    let mut audio = line::offer_audio(want, &[]);
    if want.offer_protocol.is_dtls() {
        // Browsers tell lines apart by it (RFC 9429 section 5.2.1).
        audio.attributes.insert(0, Attribute::new("mid", "0"));
    }
    offer_session(want, [audio].into())
}

/// A new offer in a dialog where `previous` was our last description: its media lines stay in
/// their places and keep their names, payload type numbers keep their meaning, and the version
/// goes up where anything changed (RFC 3264 section 8).
#[must_use]
pub fn reoffer(previous: &Session, want: &Local) -> Session {
    let index = previous.media.iter().position(Media::is_open_audio);
    let known = index.map(|index| previous.media[index].payload_formats()).unwrap_or_default();
    let mut audio = line::offer_audio(want, &known);
    let mut media: Vec<Media> = previous.media.iter().map(line::closed).collect();
    // RFC 3264 section 8.1: a line that was switched off may be used again, so the lines do not
    // grow without end.
    match index.or_else(|| media.iter().position(|line| line.port == 0)) {
        Some(index) => {
            // What `closed` keeps of a line: its `mid`.
            audio.attributes.splice(0..0, core::mem::take(&mut media[index].attributes));
            media[index] = audio;
        }
        None => media.push(audio),
    }
    follow(previous, offer_session(want, media))
}

/// The re-offer that holds or resumes: `previous`, our last description, with `direction` on its
/// open audio line and the next version.
#[must_use]
pub fn with_direction(previous: &Session, direction: Direction) -> Session {
    let mut next = previous.clone();
    next.media.iter_mut().filter(|it| it.is_open_audio()).for_each(|it| {
        it.set_direction(direction);
        // RFC 8842 section 5.5: an answer said which role we have; an offer leaves it open again.
        for setup in it.attributes.iter_mut().filter(|it| it.name == "setup") {
            setup.value = Some("actpass".into());
        }
    });
    follow(previous, next)
}

/// `next` as the description that follows `previous` in the same dialog: the same `o=`, with a
/// version one higher where anything else has changed (RFC 3264 section 8).
#[must_use]
pub fn follow(previous: &Session, mut next: Session) -> Session {
    next.origin = previous.origin.clone();
    if next != *previous {
        let version = previous.origin.version.parse().unwrap_or(0u64);
        next.origin.version = version.saturating_add(1).to_string();
    }
    next
}

/// What `answer` makes of our `offer`.
///
/// [`Keying::Plain`] comes out only where the offer itself allowed it.
///
/// # Errors
/// Where the answer breaks RFC 3264 or refuses what we need.
pub fn accept_answer(offer: &Session, answer: &Session) -> Result<Negotiated, AcceptError> {
    // RFC 3264 section 6: as many lines, of the same kinds, in the same order.
    let is_same_shape = offer.media.len() == answer.media.len()
        && offer.media.iter().zip(&answer.media).all(|(ours, theirs)| ours.kind == theirs.kind);
    if !is_same_shape {
        return Err(AcceptError::MediaLines);
    }
    let index = (0..offer.media.len())
        .find(|index| offer.media[*index].is_open_audio() && answer.media[*index].port != 0)
        .ok_or(AcceptError::Refused)?;
    let (ours, theirs) = (&offer.media[index], &answer.media[index]);
    let keying = line::accepted_keying(offer, answer, index)?;
    let codecs = line::accepted_codecs(ours, theirs);
    let rate = codecs.first().ok_or(AcceptError::NoCommonCodec)?.clock_rate;
    let rtcp_mux = ours.has_rtcp_mux() && theirs.has_rtcp_mux();
    let our_address = offer.connection_of(ours).and_then(|it| it.host.ip());
    let target = line::target(answer, theirs, &keying, our_address, rtcp_mux)?;
    Ok(Negotiated {
        media_index: index,
        protocol: theirs.protocol.clone(),
        keying,
        telephone_event: line::accepted_event(ours, theirs, rate),
        comfort_noise: line::accepted_noise(ours, theirs),
        codecs,
        remote: target.rtp,
        remote_rtcp: target.rtcp,
        rtcp_mux,
        direction: line::remote_direction(answer, theirs, &target)
            .reversed()
            .and(offer.direction_of(ours)),
        ptime: line::ptime(answer, theirs, ours.ptime().unwrap_or(line::PTIME_DEFAULT)),
    })
}

fn answer_line(
    offer: &Session,
    index: usize,
    want: &Local,
) -> Result<(Media, Negotiated), AnswerError> {
    let theirs = &offer.media[index];
    let keying = line::answered_keying(offer, index, want)?;
    let codecs = line::answered_codecs(theirs, &want.codecs);
    let rate = codecs.first().ok_or(AnswerError::NoCommonCodec)?.clock_rate;
    let rtcp_mux = want.rtcp_mux && theirs.has_rtcp_mux();
    let target = line::target(offer, theirs, &keying, Some(want.address), rtcp_mux)?;
    let negotiated = Negotiated {
        media_index: index,
        protocol: theirs.protocol.clone(),
        keying,
        telephone_event: want.telephone_event.then(|| line::answered_event(theirs, rate)).flatten(),
        comfort_noise: want.comfort_noise.then(|| line::answered_noise(theirs, &codecs)).flatten(),
        codecs,
        remote: target.rtp,
        remote_rtcp: target.rtcp,
        rtcp_mux,
        direction: line::remote_direction(offer, theirs, &target).reversed().and(want.direction),
        ptime: line::ptime(offer, theirs, want.ptime),
    };
    Ok((line::answer_audio(theirs, want, &negotiated), negotiated))
}

fn answer_session(
    offer: &Session,
    want: &Local,
    index: usize,
    audio: Media,
    negotiated: &Negotiated,
) -> Session {
    let mut media: Vec<Media> = offer.media.iter().map(line::closed).collect();
    let mid = audio.mid().map(ToString::to_string);
    media[index] = audio;
    let mut session = new_session(want, media);
    // RFC 9143 section 7.3: the answer's group names the lines that are accepted.
    if let Some(mid) = mid
        && negotiated.keying == Keying::Dtls
        && offer.bundle().any(|it| it == mid)
    {
        session.attributes.push(Attribute::new("group", format!("BUNDLE {mid}")));
    }
    if negotiated.keying == Keying::Dtls && want.ice_lite {
        session.attributes.push(Attribute::flag(ICE_LITE));
    }
    session
}

/// An offer with these lines.
fn offer_session(want: &Local, media: Vec<Media>) -> Session {
    let mut session = new_session(want, media);
    if want.offer_protocol.is_dtls() {
        let open = session.media.iter().find(|media| media.is_open_audio());
        let group = open.and_then(Media::mid).map(|mid| format!("BUNDLE {mid}"));
        session.attributes.extend(group.map(|group| Attribute::new("group", group)));
        session.attributes.extend(want.ice_lite.then(|| Attribute::flag(ICE_LITE)));
    }
    session
}

/// Said by who is found and searches for nobody (RFC 8839 section 5.3).
const ICE_LITE: &str = "ice-lite";

fn new_session(want: &Local, media: Vec<Media>) -> Session {
    let host = Host::Ip(want.address);
    Session {
        origin: Origin {
            username: "-".into(),
            session_id: want.session_id.to_string(),
            version: want.version.to_string(),
            host: host.clone(),
        },
        name: "-".into(),
        information: None,
        uri: None,
        emails: Vec::new(),
        phones: Vec::new(),
        connection: Some(Connection { host, suffix: None }),
        bandwidths: Vec::new(),
        times: [Timing { start: 0, stop: 0, repeats: Vec::new() }].into(),
        zones: None,
        attributes: Vec::new(),
        media,
    }
}

#[cfg(test)]
#[path = "negotiate_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "browser_tests.rs"]
mod browser_tests;
