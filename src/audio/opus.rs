//! Opus (RFC 6716) through libopus, with defaults for telephony. Always mono: libopus itself
//! mixes a stereo packet down.

use crate::ShortOutput;
use crate::codec::{DecodeError, EncodeError, SetupError};
use crate::resample::SampleRate;
use ::opus::{Application, Bitrate, Channels, ErrorCode};

/// How to encode Opus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpusSettings {
    /// The rate of the PCM; libopus knows all but 32 kHz, which becomes 48 kHz.
    pub sample_rate: SampleRate,
    /// Bits per second, 6000 to 510000.
    pub bitrate: u32,
    /// CPU for quality, 0 to 10.
    pub complexity: u8,
    /// The share of packets expected to be lost, in percent; above 0 the packets carry in-band
    /// forward error correction.
    pub expected_loss_percent: u8,
    /// Whether silence is sent as (almost) nothing.
    pub is_discontinuous: bool,
}

impl Default for OpusSettings {
    /// Wideband speech at 24 kbit/s, complexity 5, correction for 5 % loss, continuous.
    fn default() -> Self {
        Self {
            sample_rate: SampleRate::Hz16000,
            bitrate: 24_000,
            complexity: 5,
            expected_loss_percent: 5,
            is_discontinuous: false,
        }
    }
}

/// An Opus encoder.
pub struct OpusEncoder {
    inner: ::opus::Encoder,
    rate: SampleRate,
    is_discontinuous: bool,
    /// For packets of 30 ms, made when first needed.
    binder: Option<::opus::Repacketizer>,
}

/// An Opus decoder.
pub struct OpusDecoder {
    inner: ::opus::Decoder,
    rate: SampleRate,
}

/// A packet of at most two bytes need not be sent (libopus, `OPUS_SET_DTX`).
const UNSENT_BYTES: usize = 2;

/// The longest packet, RFC 6716 section 3.2.5.
const PACKET_MS_MAX: u32 = 120;

/// The longest frame with its first byte (RFC 6716 section 3.4).
const FRAME_BYTES: usize = 1276;

impl OpusEncoder {
    /// An encoder.
    ///
    /// # Errors
    /// When memory is short or a setting is out of range.
    pub fn new(settings: &OpusSettings) -> Result<Self, SetupError> {
        let rate = supported(settings.sample_rate);
        let setup = || {
            let mut inner = ::opus::Encoder::new(rate.hz(), Channels::Mono, Application::Voip)?;
            let bitrate = i32::try_from(settings.bitrate).unwrap_or(i32::MAX);
            inner.set_bitrate(Bitrate::Bits(bitrate))?;
            inner.set_complexity(i32::from(settings.complexity))?;
            inner.set_signal(::opus::Signal::Voice)?;
            inner.set_dtx(settings.is_discontinuous)?;
            inner.set_inband_fec(true)?;
            inner.set_packet_loss_perc(i32::from(settings.expected_loss_percent))?;
            Ok(inner)
        };
        let inner = setup().map_err(|error: ::opus::Error| SetupError(error.code()))?;
        let is_discontinuous = settings.is_discontinuous;
        Ok(Self { inner, rate, is_discontinuous, binder: None })
    }

    /// The rate of the PCM that [`OpusEncoder::encode`] takes.
    #[must_use]
    pub const fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Encodes 2.5, 5, 10, 20, 30, 40 or 60 ms; see [`crate::Encoder::encode`].
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn encode(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        let per_2_5_ms = self.rate.samples(5) / 2;
        if pcm.len() == 12 * per_2_5_ms {
            return self.encode_three(pcm, out);
        }
        if ![1, 2, 4, 8, 16, 24].iter().any(|count| count * per_2_5_ms == pcm.len()) {
            return Err(EncodeError::FrameSize(pcm.len()));
        }
        let bytes = self.inner.encode(pcm, out).map_err(|error| refusal(&error, out.len()))?;
        Ok(if self.is_discontinuous && bytes <= UNSENT_BYTES { 0 } else { bytes })
    }

    /// 30 ms, which no frame has (RFC 6716 section 2.1.4): three frames of 10 ms in one packet.
    /// Where the encoder changes its mode between them, which frames of one packet cannot
    /// (section 3.1), the packet ends there, and the listener conceals the rest.
    fn encode_three(&mut self, pcm: &[i16], out: &mut [u8]) -> Result<usize, EncodeError> {
        let mut frames = [[0; FRAME_BYTES]; 3];
        let mut lengths = [0; 3];
        let sounds = pcm.chunks_exact(self.rate.samples(10));
        for ((sound, frame), length) in sounds.zip(&mut frames).zip(&mut lengths) {
            let bytes = self.inner.encode(sound, frame);
            *length = bytes.map_err(|error| refusal(&error, FRAME_BYTES))?;
        }
        if self.is_discontinuous && lengths.iter().all(|length| *length <= UNSENT_BYTES) {
            return Ok(0);
        }
        if self.binder.is_none() {
            let fresh = ::opus::Repacketizer::new();
            self.binder = Some(fresh.map_err(|error| EncodeError::Opus(error.code()))?);
        }
        let Some(binder) = &mut self.binder else { return Ok(0) };
        let mut packet = binder.begin();
        for (frame, length) in frames.iter().zip(lengths) {
            if packet.cat(&frame[..length]).is_err() {
                break;
            }
        }
        packet.out(out).map_err(|error| refusal(&error, out.len()))
    }

    /// See [`crate::Encoder::set_expected_loss`].
    pub fn set_expected_loss(&mut self, percent: u8) {
        // Cannot fail within 0..=100; were it to, the old value stays, which is harmless.
        let _ = self.inner.set_packet_loss_perc(i32::from(percent.min(100)));
    }
}

impl OpusDecoder {
    /// A decoder that gives PCM at `wanted`, or at 48 kHz where that is 32 kHz.
    ///
    /// # Errors
    /// When memory is short.
    pub fn new(wanted: SampleRate) -> Result<Self, SetupError> {
        let rate = supported(wanted);
        let inner = ::opus::Decoder::new(rate.hz(), Channels::Mono)
            .map_err(|error| SetupError(error.code()))?;
        Ok(Self { inner, rate })
    }

    /// The rate of the PCM that comes out.
    #[must_use]
    pub const fn sample_rate(&self) -> SampleRate {
        self.rate
    }

    /// Decodes one payload; see [`crate::Decoder::decode`].
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn decode(&mut self, payload: &[u8], out: &mut [i16]) -> Result<usize, DecodeError> {
        if payload.is_empty() {
            return Err(DecodeError::Empty); // libopus would take it for a loss
        }
        let needed = payload_samples(payload, self.rate)
            .ok_or(DecodeError::Opus(ErrorCode::InvalidPacket))?;
        let out = crate::room(out, needed)?;
        self.inner.decode(payload, out, false).map_err(|error| DecodeError::Opus(error.code()))
    }

    /// Fills `out` in place of a lost packet; see [`crate::Decoder::conceal`].
    pub fn conceal(&mut self, out: &mut [i16]) -> usize {
        self.fill(&[], out)
    }

    /// Fills `out` in place of the packet before `next`; see [`crate::Decoder::recover`].
    pub fn recover(&mut self, next: &[u8], out: &mut [i16]) -> usize {
        self.fill(next, out)
    }

    fn fill(&mut self, next: &[u8], out: &mut [i16]) -> usize {
        let step = self.rate.samples(5) / 2;
        let samples = out.len().min(self.rate.samples(PACKET_MS_MAX)) / step * step;
        let out = &mut out[..samples];
        if samples == 0 {
            return 0;
        }
        match self.inner.decode(next, out, !next.is_empty()) {
            Ok(written) => written.min(samples),
            Err(_) if !next.is_empty() => self.fill(&[], out),
            Err(_) => {
                out.fill(0);
                samples
            }
        }
    }
}

/// The time that an Opus payload covers, in samples at `rate`; `None` where it is malformed.
#[must_use]
pub fn payload_samples(payload: &[u8], rate: SampleRate) -> Option<usize> {
    let decoded = supported(rate);
    let samples = ::opus::packet::get_nb_samples(payload, decoded.hz()).ok()?;
    Some(samples * rate.samples(1) / decoded.samples(1))
}

/// Whether `payload` holds a coarse copy of the packet before it (RFC 6716 section 4.2.3).
#[must_use]
pub fn repeats_the_last(payload: &[u8]) -> bool {
    let (Some(&toc), Some(&flags)) = (payload.first(), payload.get(1)) else {
        return false;
    };
    let (config, is_stereo, code) = (toc >> 3, toc & 4 != 0, toc & 3);
    // SILK frames of 20 ms in one Opus frame; CELT alone repeats nothing.
    let frames = match config {
        0..12 => [1, 1, 2, 3][usize::from(config & 3)],
        12..16 => 1,
        _ => return false,
    };
    if code > 1 {
        return true; // where the first frame begins takes more to tell; the decoder knows
    }
    let middle = flags >> (7 - frames) & 1;
    let side = if is_stereo { flags >> (6 - 2 * frames) & 1 } else { 0 };
    middle | side != 0
}

fn refusal(error: &::opus::Error, room: usize) -> EncodeError {
    match error.code() {
        ErrorCode::BufferTooSmall => ShortOutput { needed: room + 1 }.into(),
        code => EncodeError::Opus(code),
    }
}

/// libopus knows 8, 12, 16, 24 and 48 kHz.
const fn supported(rate: SampleRate) -> SampleRate {
    match rate {
        SampleRate::Hz32000 => SampleRate::Hz48000,
        other => other,
    }
}

#[cfg(test)]
#[path = "opus_tests.rs"]
mod tests;
