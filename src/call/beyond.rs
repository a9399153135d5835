//! What the other leg's peer takes, which a leg's own description follows.

use base::limit;
use policy::Terms;
use sdp::Session;

use crate::negotiate::PACKET_MS;

/// What the other leg's peer takes, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) struct Beyond {
    /// Names of its codecs, the best first.
    pub(crate) names: Vec<String>,
    /// What can only go through to it, as it described that.
    pub(crate) opaque: Vec<sdp::Codec>,
    /// Whether it takes anything that is made here.
    pub(crate) decodes: bool,
    /// Milliseconds of audio per packet that it wants.
    pub(crate) packet_ms: u16,
    /// Whether it takes comfort noise. Where it does not, a party that sends noise in its pauses,
    /// as browsers do that are muted, would not be heard of at all for as long.
    pub(crate) noise: bool,
}

impl Default for Beyond {
    /// A voice agent, or nobody yet.
    fn default() -> Self {
        let (names, opaque) = (Vec::new(), Vec::new());
        Self { names, opaque, decodes: true, packet_ms: PACKET_MS, noise: true }
    }
}

impl Beyond {
    /// What the caller offers, as far as its trunk's terms allow.
    pub(crate) fn offered(offer: &Session, terms: &Terms) -> Self {
        let is_allowed = |name: &str| {
            terms.codecs.iter().find(|codec| codec.word().eq_ignore_ascii_case(name)).copied()
        };
        let lines = || offer.media.iter().filter(|media| media.is_open_audio());
        let formats: Vec<_> = lines().flat_map(sdp::Media::payload_formats).collect();
        let allowed = || formats.iter().filter_map(|it| Some((it, is_allowed(&it.name)?)));
        let opaque = allowed().filter_map(|(format, _)| sdp::Codec::opaque(format));
        let wishes = lines().filter_map(sdp::Media::ptime);
        Self {
            names: formats.iter().map(|format| format.name.clone()).collect(),
            opaque: opaque.take(limit::SDP_OPAQUE_FORMATS.get()).collect(),
            decodes: allowed().any(|(_, codec)| !codec.is_opaque()),
            packet_ms: wishes.min().unwrap_or(PACKET_MS),
            noise: lines().any(sdp::Media::has_comfort_noise),
        }
    }
}
