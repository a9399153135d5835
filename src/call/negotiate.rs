//! One leg's media as signalling sees it: descriptions in, descriptions and plans out.
//!
//! Everything lives in [`LegMedia`] from the first offer to the hang-up, so that a re-INVITE
//! keeps the session id, our keys and our SSRC (RFC 3264 section 8, RFC 4568 section 7.1.4), or
//! our ICE credentials and our role in the DTLS handshake (RFC 8842 section 5.5).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use audio::Codec;
use base::{LegId, Random, Reason, limit};
use media::{
    ComfortNoise, DtlsBackend, Format, Handshake, LegPlan, OpaqueFormat, Protection, Purpose,
    Reserved, SourceIdentity, TelephoneEvent,
};
use policy::{DtlsLibrary, DtmfMethod, Terms};
use rtp::ice::Credentials;
use rtp::sdes::{CryptoLine, Suite};
use sdp::{
    Attribute, Direction, Keying, Local, Negotiated, Opaque, OpaqueCodec, OpusParameters, Protocol,
    Session,
};

use crate::beyond::Beyond;
use crate::ice::{self, Ours};

/// Milliseconds of audio per packet that we prefer.
pub(crate) const PACKET_MS: u16 = 20;

/// A leg's media.
#[derive(Debug)]
pub(crate) struct LegMedia {
    leg: LegId,
    terms: Terms,
    /// The terms' codecs, those first that the other leg has.
    codecs: Vec<policy::Codec>,
    /// What the other leg's peer takes.
    beyond: Beyond,
    reserved: Reserved,
    /// The address that our descriptions name where it is of the same family as the local one.
    advertise: Option<IpAddr>,
    session_id: u64,
    source: SourceIdentity,
    /// Whether comfort noise is taken: between two legs it goes on as it is, a voice agent's ear
    /// wants the sound of the room.
    takes_noise: bool,
    /// The peer's `a=crypto` line and ours, as last agreed.
    lines: Option<(CryptoLine, CryptoLine)>,
    /// Our latest offer. It stays: early answers come before the final one, and each fork of a
    /// call has its own.
    pending: Option<Pending>,
    /// Whether first offers of ours are DTLS-SRTP.
    offers_dtls: bool,
    /// What the DTLS handshake came to.
    secured: Option<Suite>,
    local: Option<Session>,
    plan: Option<LegPlan>,
    /// What was agreed on first, and what goes through, as the peer described it.
    codec: &'static str,
    opaque: Vec<sdp::Codec>,
    /// Whether the other leg has changed so that this one must be agreed on anew, whether that
    /// was offered, and how often.
    is_stale: bool,
    is_refitting: bool,
    refits: u64,
}

/// An offer of ours.
#[derive(Clone, Debug)]
struct Pending {
    session: Session,
    /// Its `a=crypto` lines.
    lines: Vec<CryptoLine>,
    /// The ICE credentials that it names.
    ice: Option<Credentials>,
}

/// How what is agreed is protected.
#[derive(Debug)]
enum Keys {
    /// By the peer's `a=crypto` line and ours.
    Sdes(CryptoLine, CryptoLine),
    /// By a handshake.
    Dtls(Handshake),
    /// Not at all.
    Plain,
}

/// What was agreed.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// What must flow.
    pub(crate) plan: LegPlan,
    /// The codec's name.
    pub(crate) codec: &'static str,
    /// The SRTP suite's name, `none`, or `DTLS-SRTP` (with the suite once it is known).
    pub(crate) protection: &'static str,
}

impl Agreed {
    /// Whether its keys stand in the descriptions.
    pub(crate) const fn has_told_keys(&self) -> bool {
        matches!(self.plan.protection, Protection::Srtp { .. })
    }
}

impl LegMedia {
    pub(crate) fn new(
        leg: LegId,
        terms: Terms,
        reserved: Reserved,
        advertise: Option<IpAddr>,
        random: &mut dyn Random,
    ) -> Self {
        Self {
            leg,
            codecs: terms.codecs.clone(),
            beyond: Beyond::default(),
            terms,
            advertise,
            reserved,
            // RFC 8866 section 5.2 wants digits; 62 bits fit every parser's signed integer.
            session_id: random.u64() >> 2,
            source: SourceIdentity::random(random),
            takes_noise: false,
            lines: None,
            pending: None,
            offers_dtls: false,
            secured: None,
            local: None,
            plan: None,
            codec: "",
            opaque: Vec::new(),
            is_stale: false,
            is_refitting: false,
            refits: 0,
        }
    }

    /// The media of a leg that takes this one's place: its ports and its source go on, so that
    /// the relay's session does; descriptions and keys are its own.
    pub(crate) fn successor(&self, leg: LegId, terms: Terms, random: &mut dyn Random) -> Self {
        Self {
            source: self.source.clone(),
            takes_noise: self.takes_noise,
            offers_dtls: self.offers_dtls,
            ..Self::new(leg, terms, self.reserved.clone(), self.advertise, random)
        }
    }

    /// What is agreed at present.
    pub(crate) fn agreed(&self) -> Option<Agreed> {
        let plan = self.plan.clone()?;
        let protection = match &plan.protection {
            Protection::Srtp { suite, .. } => suite.name(),
            Protection::Plain { .. } => "none",
            Protection::Dtls(_) => self.secured.map_or("DTLS-SRTP", secured_word),
        };
        Some(Agreed { codec: self.codec, protection, plan })
    }

    /// Offers DTLS-SRTP first, as to a browser.
    pub(crate) const fn offer_dtls(&mut self) {
        self.offers_dtls = true;
    }

    /// Whether its keys come, or are to come, from a DTLS handshake.
    pub(crate) fn is_dtls(&self) -> bool {
        match &self.plan {
            Some(plan) => matches!(plan.protection, Protection::Dtls(_)),
            None => self.offers_dtls,
        }
    }

    /// The keys of its handshake are there.
    pub(crate) const fn secure(&mut self, suite: Suite) {
        self.secured = Some(suite);
    }

    /// Whether what is spoken now is heard: what waits for a handshake is not.
    pub(crate) fn is_heard(&self) -> bool {
        self.secured.is_some() || !self.is_dtls()
    }

    fn handshake(&self) -> Option<&Handshake> {
        match &self.plan.as_ref()?.protection {
            Protection::Dtls(handshake) => Some(handshake),
            _ => None,
        }
    }

    /// Takes comfort noise from now on.
    pub(crate) const fn take_noise(&mut self) {
        self.takes_noise = true;
    }

    /// What this leg's peer has agreed to take, for the other leg.
    pub(crate) fn beyond(&self) -> Option<Beyond> {
        let plan = self.plan.as_ref()?;
        let packet_ms = plan.send.map_or(PACKET_MS, |send| u16::from(send.packet_ms));
        Some(Beyond {
            names: vec![self.codec.to_owned()],
            opaque: self.opaque.clone(),
            decodes: plan.send.is_some(),
            packet_ms,
            noise: plan.comfort_noise.is_some(),
        })
    }

    /// Takes what the other leg's peer has: its codecs come before the others, so that nothing is
    /// transcoded without need, and what cannot be decoded is spoken only where it has it too.
    pub(crate) fn follow(&mut self, beyond: Beyond) {
        let rank = |codec: &policy::Codec| {
            beyond.names.iter().position(|name| name.eq_ignore_ascii_case(codec.word()))
        };
        self.codecs.sort_by_key(|codec| rank(codec).unwrap_or(usize::MAX));
        self.beyond = beyond;
    }

    /// Whether anything is left to offer.
    pub(crate) fn has_codecs(&self) -> bool {
        self.has_codecs_for(&self.beyond)
    }

    /// Whether anything would be left to offer if the other leg's peer took this.
    pub(crate) fn has_codecs_for(&self, beyond: &Beyond) -> bool {
        self.wanted_for(beyond).next().is_some()
    }

    /// Our offer of what goes with what the other leg's peer would take; `None` before anything
    /// was agreed. Nothing changes before its answer.
    pub(crate) fn change(&mut self, beyond: Beyond, random: &mut dyn Random) -> Option<Session> {
        let direction = worded(self.plan.as_ref()?.direction);
        self.follow(beyond);
        Some(self.offer_towards(direction, random))
    }

    /// Looks whether what was agreed still goes with what the other leg's peer takes, of which
    /// there is none where a voice agent speaks. `true` where it is to be agreed on anew, which
    /// happens no more often than limit `call.refresh_tries` says.
    pub(crate) fn refit(&mut self, other: Option<&LegMedia>) -> bool {
        let Some(plan) = &self.plan else { return false };
        let fits = match other.map(|other| other.plan.as_ref()) {
            None => plan.opaque.is_empty(),
            Some(None) => true,
            Some(Some(theirs)) => {
                let goes_on = |it: &OpaqueFormat| theirs.opaque.iter().any(|o| o.codec == it.codec);
                let is_made = theirs.send.is_some() || plan.accept.is_empty();
                plan.opaque.iter().all(goes_on) && is_made
            }
        };
        if fits || self.refits >= limit::CALL_REFRESH_TRIES.value {
            return false;
        }
        self.refits += 1;
        self.is_stale = true;
        self.follow(other.and_then(LegMedia::beyond).unwrap_or_default());
        true
    }

    /// Whether what was agreed has still to be agreed on anew, and the offer of ours that
    /// `is_pending`, if one is, asks for something else.
    pub(crate) const fn is_stale(&self, is_pending: bool) -> bool {
        self.is_stale && !(is_pending && self.is_refitting)
    }

    /// The plan in force.
    pub(crate) const fn plan(&self) -> Option<&LegPlan> {
        self.plan.as_ref()
    }

    /// The local address of its ports, and that of the other family.
    pub(crate) fn addresses(&self) -> (IpAddr, Option<IpAddr>) {
        (self.reserved.rtp.ip(), self.reserved.beside.map(|beside| beside.ip()))
    }

    /// The address that our descriptions name.
    fn address(&self) -> IpAddr {
        ice::advertised(self.advertise, self.reserved.rtp.ip())
    }

    /// Moves to other ports of another session, and makes the offer that tells so. Keys and
    /// source are fresh: the new session counts its packets anew, and a nonce must not come twice.
    /// A browser is shown another certificate, so that it makes a new handshake (RFC 8842 section
    /// 4), under other ICE credentials.
    pub(crate) fn move_to(
        &mut self,
        leg: LegId,
        reserved: Reserved,
        random: &mut dyn Random,
    ) -> Session {
        (self.leg, self.reserved, self.lines, self.secured) = (leg, reserved, None, None);
        self.source = SourceIdentity::random(random);
        if let Some(plan) = &mut self.plan {
            (plan.leg, plan.source) = (leg, self.source.clone());
            if let Protection::Dtls(handshake) = &mut plan.protection {
                handshake.local = Credentials::random(random);
            }
        }
        self.offer(random)
    }

    /// Our description in force as an offer, for a re-INVITE that changes nothing.
    pub(crate) fn repeat(&mut self) -> Option<Session> {
        let local = self.local.as_ref()?;
        let session = match local.media.iter().find(|media| media.is_open_audio()) {
            Some(line) => sdp::with_direction(local, local.direction_of(line)),
            None => local.clone(),
        };
        self.await_answer(&session);
        Some(session)
    }

    /// Our description with what is in force is on its way as an offer.
    fn await_answer(&mut self, session: &Session) {
        let lines = self.lines.iter().map(|(_, ours)| ours.clone()).collect();
        let ice = self.handshake().map(|it| it.local.clone());
        self.pending = Some(Pending { session: session.clone(), lines, ice });
    }

    /// Our description in force with another direction, as an offer that holds or resumes; anew
    /// where the other leg has changed.
    pub(crate) fn redirect(
        &mut self,
        direction: Direction,
        random: &mut dyn Random,
    ) -> Option<Session> {
        if self.is_stale {
            self.is_refitting = true;
            return Some(self.offer_towards(direction, random));
        }
        let session = sdp::with_direction(self.local.as_ref()?, direction);
        self.await_answer(&session);
        Some(session)
    }

    /// What the partner is to be told: we send it what we hear here, and hear from it what we
    /// send here.
    pub(crate) fn partner_direction(&self) -> Option<media::Direction> {
        let direction = self.plan.as_ref()?.direction;
        Some(media::Direction { send: direction.receive, receive: direction.send })
    }

    /// Answers an offer. Nothing changes where it cannot be answered (RFC 3261 section 14.2).
    pub(crate) fn answer(
        &mut self,
        offer: &Session,
        random: &mut dyn Random,
    ) -> Result<(Session, Agreed), Reason> {
        let suites = self.suites();
        let mut ours: BTreeMap<usize, (CryptoLine, CryptoLine)> = BTreeMap::new();
        for (index, media) in offer.media.iter().enumerate() {
            let Some(theirs) = CryptoLine::choose(media.crypto(), &suites).chosen else { continue };
            let line = self.our_line(&theirs, random);
            ours.insert(index, (theirs, line));
        }
        let mut want = self.local_wishes();
        let (mut handshakes, problem) = self.handshakes(offer, &mut want, random);
        // The port of handshakes may be one of many legs, where packets under other keys are
        // nobody's.
        if self.reserved.fingerprint.is_none() || handshakes.is_empty() {
            want.crypto = ours.iter().map(|(index, it)| (*index, it.1.to_attribute())).collect();
        }
        let answer = sdp::answer(offer, &want).map_err(|error| match (problem, &error) {
            (
                Some(problem),
                sdp::AnswerError::NoCommonCrypto | sdp::AnswerError::PlaintextMedia,
            ) => problem,
            _ => refusal(&error),
        })?;
        let negotiated = answer.negotiated;
        let lines = ours.remove(&negotiated.media_index);
        let keys = match (&negotiated.keying, lines) {
            (Keying::Sdes { .. }, Some((theirs, ours))) => Keys::Sdes(theirs, ours),
            (Keying::Dtls, _) => handshakes
                .remove(&negotiated.media_index)
                .map(Keys::Dtls)
                .ok_or(Reason::Internal)?,
            _ => Keys::Plain,
        };
        let agreed = self.agree(&negotiated, keys)?;
        let session = match &self.local {
            Some(previous) => sdp::follow(previous, answer.session),
            None => answer.session,
        };
        self.local = Some(session.clone());
        self.pending = None;
        Ok((session, agreed))
    }

    /// What each DTLS-SRTP line of an offer would be answered with, which is written into `want`
    /// too; and what stands against the first one that cannot be.
    fn handshakes(
        &self,
        offer: &Session,
        want: &mut Local,
        random: &mut dyn Random,
    ) -> (BTreeMap<usize, Handshake>, Option<Reason>) {
        let (mut handshakes, mut problem) = (BTreeMap::new(), None);
        for (index, line) in offer.media.iter().enumerate() {
            if !ice::is_offered(offer, line, self.offers_dtls) {
                continue;
            }
            let made = ice::read(offer, line).and_then(|theirs| {
                let known = self.handshake();
                // RFC 8839 section 4.4.1.1.1: other credentials of theirs restart ICE, and ask
                // for other ones of ours.
                let kept = known.filter(|known| known.remote == theirs.credentials);
                let local = kept.map(|known| known.local.clone());
                let handshake = Handshake {
                    role: theirs.role_to_answer(known.map(|known| known.role)),
                    peer: theirs.fingerprint,
                    backend: self.backend(),
                    local: local.unwrap_or_else(|| Credentials::random(random)),
                    remote: theirs.credentials,
                };
                let attributes = self.attributes(&handshake.local, Some(handshake.role));
                Ok((handshake, attributes.ok_or(Reason::NoCommonCrypto)?))
            });
            match made {
                Ok((handshake, attributes)) => {
                    handshakes.insert(index, handshake);
                    want.dtls.insert(index, attributes);
                }
                Err(reason) => problem = problem.or(Some(reason)),
            }
        }
        (handshakes, problem)
    }

    fn attributes(
        &self,
        credentials: &Credentials,
        role: Option<media::DtlsRole>,
    ) -> Option<Vec<Attribute>> {
        let (reserved, advertise, source) = (&self.reserved, self.advertise, &self.source);
        Ours { reserved, advertise, credentials, source, role }.attributes()
    }

    /// Our offer, for an INVITE that came without one.
    pub(crate) fn offer(&mut self, random: &mut dyn Random) -> Session {
        self.offer_towards(Direction::SendRecv, random)
    }

    fn offer_towards(&mut self, direction: Direction, random: &mut dyn Random) -> Session {
        let suites = self.suites();
        let lines: Vec<CryptoLine> = suites
            .iter()
            .zip(1..)
            .map(|(suite, tag)| match &self.lines {
                // The key in use goes on where its suite is offered again.
                Some((_, ours)) if ours.key.suite() == *suite => {
                    CryptoLine { tag, key: ours.key.clone() }
                }
                _ => CryptoLine::generate(tag, *suite, random),
            })
            .collect();
        let mut want = self.local_wishes();
        let ice = self.is_dtls().then(|| self.local_credentials(random));
        let dtls = ice.as_ref().and_then(|ice| self.attributes(ice, None));
        // Where plain RTP is allowed both are offered in one line (RFC 8643 section 4).
        let is_exempt = !self.terms.plain_media_from.is_empty();
        want.offer_protocol = match &dtls {
            Some(_) => Protocol::UdpTlsRtpSavpf,
            None if is_exempt => Protocol::RtpAvp,
            None => Protocol::RtpSavp,
        };
        want.direction = direction;
        want.offer_crypto = lines.iter().map(CryptoLine::to_attribute).collect();
        want.offer_dtls = dtls.unwrap_or_default();
        let session = match &self.local {
            // Every line and payload number keeps its place (RFC 3264 section 8).
            Some(previous) => sdp::reoffer(previous, &want),
            None => sdp::offer(&want),
        };
        self.pending = Some(Pending { session: session.clone(), lines, ice });
        session
    }

    /// The ICE credentials of the next offer: those in force, or those of an offer that waits.
    fn local_credentials(&self, random: &mut dyn Random) -> Credentials {
        let agreed = self.handshake().map(|it| it.local.clone());
        let offered = || self.pending.as_ref().and_then(|it| it.ice.clone());
        agreed.or_else(offered).unwrap_or_else(|| Credentials::random(random))
    }

    /// Takes the answer to our offer.
    pub(crate) fn accept(&mut self, answer: &Session) -> Result<Agreed, Reason> {
        let Pending { session: offer, lines, ice: local } =
            self.pending.clone().ok_or(Reason::SdpMalformed)?;
        let negotiated = sdp::accept_answer(&offer, answer).map_err(|error| match error {
            sdp::AcceptError::NoCommonCrypto => Reason::NoCommonCrypto,
            sdp::AcceptError::NoCommonCodec => Reason::NoCommonCodec,
            sdp::AcceptError::Refused => Reason::NoAudio,
            _ => Reason::SdpMalformed,
        })?;
        let keys = match &negotiated.keying {
            Keying::Sdes { remote, local } => {
                let ours = lines.into_iter().find(|line| line.to_attribute() == *local);
                let theirs = CryptoLine::parse(remote.expose()).ok();
                theirs.zip(ours).map_or(Keys::Plain, |(theirs, ours)| Keys::Sdes(theirs, ours))
            }
            Keying::Plain => Keys::Plain,
            Keying::Dtls => {
                let line = answer.media.get(negotiated.media_index).ok_or(Reason::Internal)?;
                let theirs = ice::read(answer, line)?;
                Keys::Dtls(Handshake {
                    role: theirs.role_by_answer()?,
                    peer: theirs.fingerprint,
                    backend: self.backend(),
                    local: local.ok_or(Reason::Internal)?,
                    remote: theirs.credentials,
                })
            }
        };
        let agreed = self.agree(&negotiated, keys)?;
        self.local = Some(offer);
        Ok(agreed)
    }

    /// Our line for the peer's: the key in use where the peer's line is the one in use, since a
    /// changed key would cut what is on its way (RFC 4568 section 7.1.4).
    fn our_line(&self, theirs: &CryptoLine, random: &mut dyn Random) -> CryptoLine {
        if let Some((known, ours)) = &self.lines
            && known.key == theirs.key
        {
            return CryptoLine { tag: theirs.tag, key: ours.key.clone() };
        }
        CryptoLine::generate(theirs.tag, theirs.key.suite(), random)
    }

    /// What does the leg's handshakes.
    const fn backend(&self) -> DtlsBackend {
        match self.terms.dtls_library {
            DtlsLibrary::Dimpl => DtlsBackend::Dimpl,
            DtlsLibrary::WebrtcDtls => DtlsBackend::WebrtcDtls,
        }
    }

    fn suites(&self) -> Vec<Suite> {
        self.terms.suites.iter().filter_map(|suite| Suite::from_name(suite.word())).collect()
    }

    /// What we would speak to who takes this beyond, the best first.
    fn wanted_for<'a>(&'a self, beyond: &'a Beyond) -> impl Iterator<Item = sdp::Codec> + 'a {
        let Beyond { opaque, decodes, .. } = beyond;
        self.codecs.iter().flat_map(move |codec| {
            let made = match codec {
                _ if !decodes => None,
                policy::Codec::Opus => Some(sdp::Codec::opus(&OpusParameters {
                    use_inband_fec: Some(true),
                    stereo: Some(false),
                    ..OpusParameters::default()
                })),
                policy::Codec::G722 => Some(sdp::Codec::g722()),
                policy::Codec::Pcma => Some(sdp::Codec::pcma()),
                policy::Codec::Pcmu => Some(sdp::Codec::pcmu()),
                _ => None,
            };
            let of = |it: &&sdp::Codec| it.name.eq_ignore_ascii_case(codec.word());
            made.into_iter().chain(opaque.iter().filter(of).cloned())
        })
    }

    fn local_wishes(&self) -> Local {
        let rtcp_port = self.reserved.rtcp.map_or(self.reserved.rtp.port(), |rtcp| rtcp.port());
        Local {
            session_id: self.session_id,
            version: 1,
            address: self.address(),
            rtp_port: self.reserved.rtp.port(),
            rtcp_port,
            codecs: self.wanted_for(&self.beyond).collect(),
            telephone_event: self.terms.dtmf.contains(&DtmfMethod::Rfc4733),
            comfort_noise: self.takes_noise && self.beyond.noise,
            direction: Direction::SendRecv,
            rtcp_mux: true,
            ptime: self.beyond.packet_ms,
            plaintext: !self.terms.plain_media_from.is_empty(),
            crypto: BTreeMap::new(),
            dtls: BTreeMap::new(),
            offer_protocol: Protocol::RtpSavp,
            offer_crypto: Vec::new(),
            offer_dtls: Vec::new(),
            ice_lite: true,
        }
    }

    /// What the keys protect, and the lines that they came in.
    fn protect(
        &self,
        keys: Keys,
    ) -> Result<(Protection, Option<(CryptoLine, CryptoLine)>), Reason> {
        Ok(match keys {
            Keys::Sdes(theirs, ours) => {
                let (suite, send) = (ours.key.suite(), ours.key.clone());
                let receive = theirs.key.clone();
                (Protection::Srtp { suite, send, receive }, Some((theirs, ours)))
            }
            Keys::Dtls(handshake) => (Protection::Dtls(Box::new(handshake)), None),
            Keys::Plain if self.terms.plain_media_from.is_empty() => {
                return Err(Reason::PlaintextMedia);
            }
            Keys::Plain => (Protection::Plain { from: self.terms.plain_media_from.clone() }, None),
        })
    }

    /// Where the peer listens; nowhere in particular where ICE finds it.
    fn remote(&self, negotiated: &Negotiated, is_found: bool) -> Option<SocketAddr> {
        if is_found {
            let nowhere: IpAddr = match self.address() {
                IpAddr::V4(_) => [0; 4].into(),
                IpAddr::V6(_) => [0; 16].into(),
            };
            return Some(SocketAddr::new(nowhere, 0));
        }
        // Held by 0.0.0.0 (RFC 2543): nothing is sent, and the address stays for the resumption.
        negotiated.remote.or_else(|| self.plan.as_ref().map(|plan| plan.remote))
    }

    fn agree(&mut self, negotiated: &Negotiated, keys: Keys) -> Result<Agreed, Reason> {
        let (protection, lines) = self.protect(keys)?;
        let formats = |payload_type: fn(&sdp::NegotiatedCodec) -> u8| -> Vec<Format> {
            let formats = negotiated.codecs.iter();
            formats.filter_map(|it| format(it, payload_type(it), negotiated.ptime)).collect()
        };
        let accept = formats(|codec| codec.receive_payload_type);
        let sendable = formats(|codec| codec.payload_type);
        let passing = || negotiated.codecs.iter().filter_map(|it| Some((it, it.opaque?)));
        let opaque = passing().map(|(it, codec)| OpaqueFormat {
            codec,
            send: it.payload_type,
            receive: it.receive_payload_type,
        });
        // Where ICE finds the peer, 0.0.0.0 holds nothing.
        let is_found = matches!(protection, Protection::Dtls(_));
        let held = !is_found && negotiated.remote.is_none();
        let plan = LegPlan {
            leg: self.leg,
            remote: self.remote(negotiated, is_found).ok_or(Reason::SdpMalformed)?,
            remote_rtcp: negotiated.remote_rtcp.filter(|_| !is_found),
            direction: media::Direction {
                send: !held && sends(negotiated.direction),
                receive: receives(negotiated.direction),
            },
            protection,
            send: sendable.first().copied(),
            sendable,
            accept,
            opaque: opaque.collect(),
            telephone_event: negotiated.telephone_event.map(|event| TelephoneEvent {
                send: event.payload_type,
                receive: event.receive_payload_type,
                clock_rate: event.clock_rate,
            }),
            comfort_noise: negotiated.comfort_noise.map(|noise| ComfortNoise {
                send: noise.payload_type,
                receive: noise.receive_payload_type,
            }),
            inactive: self.terms.media_inactive,
            source: self.source.clone(),
            // Filled in when the leg is joined with what it talks to.
            purpose: Purpose::Bridge(None),
        };
        let is_other = |known: &Handshake| match &plan.protection {
            Protection::Dtls(handshake) => handshake.peer != known.peer,
            _ => true,
        };
        if self.handshake().is_some_and(is_other) {
            self.secured = None;
        }
        let first = negotiated.codecs.first().and_then(|it| known_name(&it.name));
        self.codec = first.ok_or(Reason::NoCommonCodec)?;
        self.opaque = passing().map(|(it, codec)| described(it, codec)).collect();
        (self.is_stale, self.is_refitting, self.lines) = (false, false, lines);
        self.plan = Some(plan);
        self.agreed().ok_or(Reason::Internal)
    }
}

/// The word for a leg whose handshake came to a suite.
const fn secured_word(suite: Suite) -> &'static str {
    match suite {
        Suite::AeadAes256Gcm => "DTLS-SRTP AEAD_AES_256_GCM",
        Suite::AeadAes128Gcm => "DTLS-SRTP AEAD_AES_128_GCM",
        Suite::AesCm128HmacSha1_80 => "DTLS-SRTP AES_CM_128_HMAC_SHA1_80",
        Suite::AesCm128HmacSha1_32 => "DTLS-SRTP AES_CM_128_HMAC_SHA1_32",
    }
}

/// The name of a codec that is decoded here or goes through.
fn known_name(name: &str) -> Option<&'static str> {
    let opaque = || OpaqueCodec::from_name(name).map(OpaqueCodec::name);
    Codec::from_name(name).map(Codec::name).or_else(opaque)
}

/// A codec that goes through, as the peer described it.
fn described(codec: &sdp::NegotiatedCodec, opaque: Opaque) -> sdp::Codec {
    let fmtp = codec.fmtp.as_deref().and_then(|fmtp| sdp::opaque::passable(opaque.codec, fmtp));
    let (name, clock_rate) = (opaque.codec.name().into(), opaque.clock_rate);
    sdp::Codec { name, clock_rate, channels: 1, fmtp }
}

/// A direction in the words of a description.
pub(crate) const fn worded(direction: media::Direction) -> Direction {
    match (direction.send, direction.receive) {
        (true, true) => Direction::SendRecv,
        (true, false) => Direction::SendOnly,
        (false, true) => Direction::RecvOnly,
        (false, false) => Direction::Inactive,
    }
}

const fn sends(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::SendOnly)
}

const fn receives(direction: Direction) -> bool {
    matches!(direction, Direction::SendRecv | Direction::RecvOnly)
}

fn format(codec: &sdp::NegotiatedCodec, payload_type: u8, ptime: u16) -> Option<Format> {
    let kind = Codec::from_name(&codec.name)?;
    let opus = codec.fmtp.as_deref().map(OpusParameters::parse).unwrap_or_default();
    Some(Format {
        codec: kind,
        payload_type,
        // The relay sends 10, 20, 30, 40 or 60 ms; what is between is rounded down.
        packet_ms: match ptime {
            0..20 => 10,
            20..30 => 20,
            30..40 => 30,
            40..60 => 40,
            _ => 60,
        },
        dtx: opus.use_dtx.unwrap_or(false),
        bitrate: opus.max_average_bitrate.unwrap_or(0),
    })
}

fn refusal(error: &sdp::AnswerError) -> Reason {
    match error {
        sdp::AnswerError::PlaintextMedia => Reason::PlaintextMedia,
        sdp::AnswerError::NoCommonCrypto => Reason::NoCommonCrypto,
        sdp::AnswerError::NoCommonCodec => Reason::NoCommonCodec,
        sdp::AnswerError::NoAudio => Reason::NoAudio,
        _ => Reason::SdpMalformed,
    }
}

/// What policy looks at in an offer.
pub(crate) fn summary(offer: Option<&Session>) -> policy::Offer {
    let Some(offer) = offer else { return policy::Offer::default() };
    let lines = || offer.media.iter().filter(|media| media.is_open_audio());
    let codecs = lines().flat_map(|media| media.payload_formats()).map(|format| format.name);
    policy::Offer {
        present: true,
        has_srtp: lines().any(|media| offer.is_secured(media)),
        has_plain: lines().any(|media| {
            matches!(media.protocol, Protocol::RtpAvp | Protocol::RtpAvpf)
                && media.crypto().next().is_none()
        }),
        codecs: codecs.collect(),
    }
}
