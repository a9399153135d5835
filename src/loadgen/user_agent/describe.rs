//! Session descriptions of one call: our offer or answer, and what it amounts to.

use std::net::IpAddr;

use base::Random;
use rtp::{CryptoLine, KeySalt, Suite};
use sdp::{
    AcceptError, AnswerError, Attribute, Codec, Direction, Keying, Local, Negotiated,
    OpusParameters, Protocol, Session,
};

use crate::config::Protection;

/// What was agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    /// Addresses, codecs, direction.
    pub(crate) negotiated: Negotiated,
    /// The keys; `None` for plain RTP.
    pub(crate) keys: Option<Keys>,
}

/// The keys of both ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// Of what we send.
    pub(crate) send: KeySalt,
    /// Of what we receive.
    pub(crate) receive: KeySalt,
}

/// What this end can do, and the last description that it sent.
pub(crate) struct Description {
    local: Local,
    suites: Vec<Suite>,
    sent: Option<Session>,
    keys: Option<Keys>,
}

impl Description {
    /// Nothing sent yet. The ports are already open.
    pub(crate) fn new(
        address: IpAddr,
        ports: (u16, u16),
        codecs: &[audio::Codec],
        protection: Protection,
        suites: &[Suite],
        random: &mut dyn Random,
    ) -> Self {
        let opus = OpusParameters { use_inband_fec: Some(true), ..OpusParameters::default() };
        let mut offered: Vec<Codec> = Vec::new();
        for codec in codecs {
            let codec = match codec {
                audio::Codec::Pcmu => Codec::pcmu(),
                audio::Codec::Pcma => Codec::pcma(),
                audio::Codec::G722 => Codec::g722(),
                audio::Codec::Opus => Codec::opus(&opus),
            };
            if !offered.contains(&codec) {
                offered.push(codec);
            }
        }
        let offer_protocol = match protection {
            Protection::Srtp => Protocol::RtpSavp,
            Protection::Opportunistic | Protection::Plain => Protocol::RtpAvp,
            Protection::Dtls => Protocol::UdpTlsRtpSavpf,
        };
        let has_lines = matches!(protection, Protection::Srtp | Protection::Opportunistic);
        Self {
            local: Local {
                // RFC 8866 section 5.2: numeric; some peers read no more than 31 bits.
                session_id: u64::from(random.u32() >> 1),
                version: 1,
                address,
                rtp_port: ports.0,
                rtcp_port: ports.1,
                codecs: offered,
                telephone_event: true,
                comfort_noise: false,
                direction: Direction::SendRecv,
                rtcp_mux: true,
                ptime: 20,
                plaintext: matches!(protection, Protection::Opportunistic | Protection::Plain),
                crypto: Default::default(),
                dtls: Default::default(),
                offer_protocol,
                offer_crypto: Vec::new(),
                offer_dtls: Vec::new(),
                ice_lite: false,
            },
            suites: if has_lines { suites.to_vec() } else { Vec::new() },
            sent: None,
            keys: None,
        }
    }

    /// The same with a separate RTCP port.
    pub(crate) const fn without_rtcp_mux(mut self) -> Self {
        self.local.rtcp_mux = false;
        self
    }

    /// The same with what a browser says of ICE and of its certificate.
    pub(crate) fn with_dtls(mut self, attributes: Vec<Attribute>) -> Self {
        self.local.offer_dtls = attributes;
        self
    }

    /// The same with packets of so many milliseconds.
    pub(crate) const fn with_ptime(mut self, ptime_ms: u16) -> Self {
        self.local.ptime = ptime_ms;
        self
    }

    /// The direction that we want.
    pub(crate) const fn direction(&self) -> Direction {
        self.local.direction
    }

    /// Our first offer, with a fresh key for each suite.
    pub(crate) fn offer(&mut self, random: &mut dyn Random) -> Session {
        let line =
            |(tag, suite): (u32, &Suite)| CryptoLine::generate(tag, *suite, random).to_attribute();
        self.local.offer_crypto = (1..).zip(&self.suites).map(line).collect();
        let offer = sdp::offer(&self.local);
        self.sent = Some(offer.clone());
        offer
    }

    /// What the answer to our first offer amounts to, or a stable code of why it cannot be used.
    pub(crate) fn accept(&mut self, body: &[u8]) -> Result<Agreed, &'static str> {
        let offer = self.sent.clone().ok_or("media.no_offer")?;
        self.accept_for(offer, body)
    }

    /// What the answer to `offer` amounts to; it becomes the description in force.
    pub(crate) fn accept_for(
        &mut self,
        offer: Session,
        body: &[u8],
    ) -> Result<Agreed, &'static str> {
        let answer = parse(body)?;
        let negotiated = sdp::accept_answer(&offer, &answer).map_err(|error| match error {
            AcceptError::Refused => "media.refused",
            AcceptError::NoCommonCrypto | AcceptError::Protocol => "media.no_common_crypto",
            AcceptError::NoCommonCodec => "media.no_common_codec",
            _ => "media.bad_answer",
        })?;
        let agreed = self.agree(negotiated)?;
        if let Some(direction) = direction_of(&offer) {
            self.local.direction = direction;
        }
        self.sent = Some(offer);
        Ok(agreed)
    }

    /// Answers an offer. Our key stays where its suite does, so that the stream goes on.
    pub(crate) fn answer(
        &mut self,
        body: &[u8],
        random: &mut dyn Random,
    ) -> Result<(Agreed, Session), &'static str> {
        let offer = parse(body)?;
        self.local.crypto.clear();
        for (index, media) in offer.media.iter().enumerate() {
            let Some(theirs) = CryptoLine::choose(media.crypto(), &self.suites).chosen else {
                continue;
            };
            let suite = theirs.key.suite();
            let kept = self.keys.as_ref().map(|keys| &keys.send);
            let key = match kept.filter(|key| key.suite() == suite) {
                Some(key) => key.clone(),
                None => KeySalt::generate(suite, random),
            };
            let line = CryptoLine { tag: theirs.tag, key };
            self.local.crypto.insert(index, line.to_attribute());
        }
        let answer = sdp::answer(&offer, &self.local).map_err(|error| match error {
            AnswerError::NoAudio => "media.no_audio",
            AnswerError::PlaintextMedia => "media.plaintext_media",
            AnswerError::NoCommonCrypto => "media.no_common_crypto",
            AnswerError::NoCommonCodec => "media.no_common_codec",
            _ => "media.bad_offer",
        })?;
        let session = match &self.sent {
            Some(sent) => sdp::follow(sent, answer.session),
            None => answer.session,
        };
        let agreed = self.agree(answer.negotiated)?;
        self.sent = Some(session.clone());
        Ok((agreed, session))
    }

    fn agree(&mut self, negotiated: Negotiated) -> Result<Agreed, &'static str> {
        let key =
            |line: &str| CryptoLine::parse(line).map(|it| it.key).map_err(|_| "media.bad_key");
        self.keys = match &negotiated.keying {
            Keying::Plain => None,
            Keying::Sdes { remote, local } => {
                Some(Keys { send: key(local.expose())?, receive: key(remote.expose())? })
            }
            // The keys come later, out of the handshake.
            Keying::Dtls if self.local.offer_protocol.is_dtls() => None,
            Keying::Dtls => return Err("media.no_common_crypto"),
        };
        Ok(Agreed { negotiated, keys: self.keys.clone() })
    }

    /// The description in force, offered again with the direction that we want: what the far end
    /// allowed us last may be the hold that it now wants to end.
    pub(crate) fn again(&mut self) -> Option<Session> {
        self.sent = self.with_direction(self.local.direction);
        self.sent.clone()
    }

    /// The description in force with another direction.
    pub(crate) fn with_direction(&self, direction: Direction) -> Option<Session> {
        self.sent.as_ref().map(|sent| sdp::with_direction(sent, direction))
    }
}

/// What a description says that its writer wants to do.
pub(crate) fn direction_of(session: &Session) -> Option<Direction> {
    let audio = session.media.iter().find(|media| media.is_open_audio())?;
    Some(session.direction_of(audio))
}

fn parse(body: &[u8]) -> Result<Session, &'static str> {
    if body.is_empty() {
        return Err("media.no_description");
    }
    Session::parse(body).map_err(|_| "media.sdp_malformed")
}
