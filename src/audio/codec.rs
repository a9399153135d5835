//! The codecs of a call behind one encoder and one decoder.
//!
//! Which codec a leg uses is negotiated elsewhere; this module turns PCM into payloads and back.
//! Losses of G.711 and G.722 are concealed by [`Concealer`], those of Opus by libopus, as long as
//! that does not fall silent at once, which it does in tones.

use crate::conceal::Concealer;
use crate::level::mean_power;
use crate::opus::{OpusDecoder, OpusEncoder, OpusSettings};
use crate::resample::SampleRate;
use crate::{ShortOutput, g711, g722, room};
use base::limit::RTP_PACKET_BYTES;

/// A codec that a leg may carry. The order is no preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// G.711 u-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// G.722 at 64 kbit/s.
    G722,
    /// Opus (RFC 6716), mono.
    Opus,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Self; 4] = [Self::Pcmu, Self::Pcma, Self::G722, Self::Opus];

    /// The encoding name in SDP (RFC 3551 section 6, RFC 7587 section 7).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Opus => "opus",
        }
    }

    /// The codec of an SDP encoding name, whose case does not matter (RFC 4855 section 3).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name().eq_ignore_ascii_case(name))
    }

    /// The static payload type (RFC 3551 table 4); Opus has none.
    #[must_use]
    pub const fn payload_type(self) -> Option<u8> {
        match self {
            Self::Pcmu => Some(0),
            Self::Pcma => Some(8),
            Self::G722 => Some(9),
            Self::Opus => None,
        }
    }

    /// The codec of a static payload type.
    #[must_use]
    pub fn from_payload_type(payload_type: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.payload_type() == Some(payload_type))
    }

    /// Ticks of the RTP timestamp per second. G.722's is 8000 by an old error that RFC 3551
    /// section 4.5.2 keeps; Opus' is always 48000 (RFC 7587 section 4.1).
    #[must_use]
    pub const fn clock_rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 8_000,
            Self::Opus => 48_000,
        }
    }

    /// The rate of the audio that the codec carries.
    #[must_use]
    pub const fn sample_rate(self) -> SampleRate {
        match self {
            Self::Pcmu | Self::Pcma => SampleRate::Hz8000,
            Self::G722 => SampleRate::Hz16000,
            Self::Opus => SampleRate::Hz48000,
        }
    }

    /// The channels that `a=rtpmap` states; Opus' is always 2, also for mono (RFC 7587 section 7).
    #[must_use]
    pub const fn rtpmap_channels(self) -> u8 {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => 1,
            Self::Opus => 2,
        }
    }

    /// Ticks of the RTP timestamp that a packet of `ptime_ms` milliseconds covers; saturates.
    #[must_use]
    pub const fn timestamp_step(self, ptime_ms: u32) -> u32 {
        (self.clock_rate() / 1000).saturating_mul(ptime_ms)
    }

    /// Samples at [`Codec::sample_rate`] in a packet of `ptime_ms` milliseconds; saturates.
    #[must_use]
    pub const fn samples_per_packet(self, ptime_ms: u32) -> usize {
        self.sample_rate().samples(ptime_ms)
    }
}

/// Why PCM was not encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The payload would not fit.
    #[error(transparent)]
    ShortOutput(#[from] ShortOutput),
    /// The codec has no frame of so many samples.
    #[error("{0} samples are no frame of this codec")]
    FrameSize(usize),
    /// libopus refused, with its own code.
    #[error("libopus refused the frame: {0:?}")]
    Opus(::opus::ErrorCode),
}

/// Why a payload was not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The audio would not fit.
    #[error(transparent)]
    ShortOutput(#[from] ShortOutput),
    /// The payload is empty.
    #[error("the payload is empty")]
    Empty,
    /// The payload is larger than a packet can be.
    #[error("a payload of {0} bytes is larger than limit rtp.packet_bytes")]
    TooLarge(usize),
    /// libopus refused, with its own code.
    #[error("libopus refused the payload: {0:?}")]
    Opus(::opus::ErrorCode),
}

/// libopus could not be set up (out of memory, or a setting out of its range).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("libopus could not be set up: {0:?}")]
pub struct SetupError(pub ::opus::ErrorCode);

/// Turns PCM into payloads of one codec.
pub struct Encoder {
    rate: SampleRate,
    kind: EncoderKind,
}

enum EncoderKind {
    G711(g711::Law),
    G722(Box<g722::Encoder>),
    Opus(OpusEncoder),
}

impl Encoder {
    /// An encoder; `opus` counts for Opus only.
    ///
    /// # Errors
    /// Only Opus can fail, when memory is short or the settings are out of range.
    pub fn new(codec: Codec, opus: &OpusSettings) -> Result<Self, SetupError> {
        let (rate, kind) = match codec {
            Codec::Pcmu => (codec.sample_rate(), EncoderKind::G711(g711::Law::Mu)),
            Codec::Pcma => (codec.sample_rate(), EncoderKind::G711(g711::Law::A)),
            Codec::G722 => (codec.sample_rate(), EncoderKind::G722(Box::default())),
            Codec::Opus => {
                let encoder = OpusEncoder::new(opus)?;
                (encoder.sample_rate(), EncoderKind::Opus(encoder))
            }
        };
        Ok(Self { rate, kind })
    }

    /// The rate of the PCM that [`Encoder::encode`] takes.
    #[must_use]
    pub const fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Writes the payload of `pcm` to `out` and returns its length. G.711 takes any number of
    /// samples, G.722 an even one, Opus 2.5, 5, 10, 20, 30, 40 or 60 ms. Zero bytes mean that
    /// nothing is to be sent (discontinuous transmission of Opus).
    ///
    /// # Errors
    /// See [`EncodeError`]; the encoder goes on as if the frame had not been offered.
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        match &mut self.kind {
            EncoderKind::G711(law) => {
                law.encode(pcm, room(out, pcm.len())?);
                Ok(pcm.len())
            }
            EncoderKind::G722(encoder) => encoder.encode(pcm, out),
            EncoderKind::Opus(encoder) => encoder.encode(pcm, out),
        }
    }

    /// Tells the encoder the share of its packets that the peer reports lost, in percent. Opus
    /// spends more on in-band correction the higher it is; the others do not care.
    pub fn set_expected_loss(&mut self, percent: u8) {
        if let EncoderKind::Opus(encoder) = &mut self.kind {
            encoder.set_expected_loss(percent);
        }
    }
}

/// Turns payloads of one codec into PCM, and fills the gaps that lost packets leave.
pub struct Decoder {
    rate: SampleRate,
    kind: DecoderKind,
}

enum DecoderKind {
    G711(g711::Law, Concealer),
    G722(Box<g722::Decoder>, Concealer),
    Opus(OpusDecoder, Spare),
}

/// What conceals where libopus does not.
struct Spare(Concealer);

/// A concealed frame whose end has less than this share of the last frame's power, 12 dB down, has
/// fallen silent: speech fades slower.
const SILENT: f64 = 1.0 / 16.0;

impl Decoder {
    /// A decoder. Opus decodes at `wanted` (at 48 kHz where that is 32 kHz, which libopus does
    /// not know); G.711 and G.722 have one rate each. [`Decoder::sample_rate`] says what comes.
    ///
    /// # Errors
    /// Only Opus can fail, when memory is short.
    pub fn new(codec: Codec, wanted: SampleRate) -> Result<Self, SetupError> {
        let mut rate = codec.sample_rate();
        let kind = match codec {
            Codec::Pcmu => DecoderKind::G711(g711::Law::Mu, Concealer::new(rate)),
            Codec::Pcma => DecoderKind::G711(g711::Law::A, Concealer::new(rate)),
            Codec::G722 => DecoderKind::G722(Box::default(), Concealer::new(rate)),
            Codec::Opus => {
                let decoder = OpusDecoder::new(wanted)?;
                rate = decoder.sample_rate();
                DecoderKind::Opus(decoder, Spare(Concealer::new(rate)))
            }
        };
        Ok(Self { rate, kind })
    }

    /// The rate of the PCM that comes out.
    #[must_use]
    pub const fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Decodes one payload and returns the samples written. `out` should hold 120 ms, the most
    /// that one Opus packet carries; G.711 needs as many samples as bytes, G.722 twice as many.
    ///
    /// # Errors
    /// See [`DecodeError`]. The payload is then to be treated as lost ([`Decoder::conceal`]).
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, DecodeError> {
        check_size(payload)?;
        match &mut self.kind {
            DecoderKind::G711(law, concealer) => {
                let out = room(out, payload.len())?;
                law.decode(payload, out);
                concealer.received(out);
                Ok(out.len())
            }
            DecoderKind::G722(decoder, concealer) => {
                let samples = decoder.decode(payload, out)?;
                concealer.received(room(out, samples)?);
                Ok(samples)
            }
            DecoderKind::Opus(decoder, spare) => {
                let samples = decoder.decode(payload, out)?;
                spare.0.received(room(out, samples)?);
                Ok(samples)
            }
        }
    }

    /// Writes `samples` samples in place of a lost packet; returns how many were written, which
    /// is less only where `out` is shorter or the codec rounds to its own frames (2.5 ms, Opus).
    pub fn conceal(&mut self, samples: usize, out: &mut [i16]) -> usize {
        let samples = samples.min(out.len());
        match &mut self.kind {
            DecoderKind::G711(_, concealer) | DecoderKind::G722(_, concealer) => {
                concealer.lost(&mut out[..samples]);
                samples
            }
            DecoderKind::Opus(decoder, spare) => {
                let written = decoder.conceal(&mut out[..samples]);
                spare.take(&mut out[..written]);
                written
            }
        }
    }

    /// Writes `samples` samples in place of a lost packet, given the payload that follows it:
    /// Opus may carry a coarse copy of the lost one there (RFC 6716 section 2.1.7). Without one,
    /// and with the other codecs, this is [`Decoder::conceal`]. Decode `next` afterwards.
    pub fn recover(&mut self, next: &[u8], samples: usize, out: &mut [i16]) -> usize {
        let samples = samples.min(out.len());
        match &mut self.kind {
            DecoderKind::Opus(decoder, spare) if check_size(next).is_ok() => {
                let written = decoder.recover(next, &mut out[..samples]);
                if crate::opus::repeats_the_last(next) {
                    spare.0.replaced(&out[..written]);
                } else {
                    spare.take(&mut out[..written]);
                }
                written
            }
            _ => self.conceal(samples, out),
        }
    }
}

impl Spare {
    /// Takes what libopus made of a lost frame, or puts something else in its place.
    fn take(&mut self, frame: &mut [i16]) {
        let end = &frame[frame.len() - frame.len() / 4..];
        if self.0.is_concealing() || mean_power(end) < self.0.power() * SILENT {
            self.0.lost(frame);
        } else {
            self.0.replaced(frame);
        }
    }
}

/// The time that `payload` covers, in samples at `rate`; `None` where it is no payload of `codec`.
#[must_use]
pub fn payload_samples(codec: Codec, payload: &[u8], rate: SampleRate) -> Option<usize> {
    check_size(payload).ok()?;
    match codec {
        // 8000 bytes a second each, whatever the audio rate.
        Codec::Pcmu | Codec::Pcma | Codec::G722 => Some(rate.samples(1) * payload.len() / 8),
        Codec::Opus => crate::opus::payload_samples(payload, rate),
    }
}

fn check_size(payload: &[u8]) -> Result<(), DecodeError> {
    match payload.len() {
        0 => Err(DecodeError::Empty),
        size if size > RTP_PACKET_BYTES.get() => Err(DecodeError::TooLarge(size)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
