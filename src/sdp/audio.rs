//! Payload formats of audio lines: `rtpmap` and `fmtp`, the static types of RFC 3551, and the
//! parameters of Opus (RFC 7587).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::opaque::{self, Opaque, OpaqueCodec};
use crate::session::Media;

/// One payload type of an audio line with everything said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadFormat {
    /// 0-127.
    pub payload_type: u8,
    /// The encoding's name as written; compare without case.
    pub name: String,
    /// The RTP clock, in Hz. G.722 says 8000 although it samples at 16000 (RFC 3551 section 4.5.2).
    pub clock_rate: u32,
    /// Channels; 1 where not written.
    pub channels: u8,
    /// The value of `a=fmtp` behind the payload type.
    pub fmtp: Option<String>,
}

impl PayloadFormat {
    /// Whether it is comfort noise (RFC 3389), on the clock of G.711.
    pub(crate) fn is_comfort_noise(&self) -> bool {
        self.name.eq_ignore_ascii_case(NOISE) && self.clock_rate == 8_000 && self.channels == 1
    }

    /// The codec that goes through undecoded, where it is one.
    #[must_use]
    pub fn opaque(&self) -> Option<Opaque> {
        Opaque::of(&self.name, self.clock_rate, self.channels, self.fmtp.as_deref())
    }
}

/// A codec that this side can send and receive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codec {
    /// The encoding's name as it should be printed.
    pub name: String,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Channels as written in `rtpmap` (2 for Opus always).
    pub channels: u8,
    /// What we want to receive, printed as `a=fmtp`.
    pub fmtp: Option<String>,
}

impl Codec {
    /// G.711 mu-law.
    #[must_use]
    pub fn pcmu() -> Self {
        Self { name: "PCMU".into(), clock_rate: 8000, channels: 1, fmtp: None }
    }

    /// G.711 A-law.
    #[must_use]
    pub fn pcma() -> Self {
        Self { name: "PCMA".into(), clock_rate: 8000, channels: 1, fmtp: None }
    }

    /// G.722 at 64 kb/s.
    #[must_use]
    pub fn g722() -> Self {
        Self { name: "G722".into(), clock_rate: 8000, channels: 1, fmtp: None }
    }

    /// Opus, wanting to receive what `parameters` say.
    #[must_use]
    pub fn opus(parameters: &OpusParameters) -> Self {
        let fmtp = Some(parameters.to_string()).filter(|text| !text.is_empty());
        Self { name: "opus".into(), clock_rate: 48_000, channels: 2, fmtp }
    }

    /// The static payload type of RFC 3551, where the codec has one.
    #[must_use]
    pub fn static_payload_type(&self) -> Option<u8> {
        STATIC_FORMATS
            .iter()
            .find(|(_, name, rate)| {
                name.eq_ignore_ascii_case(&self.name)
                    && *rate == self.clock_rate
                    && self.channels == 1
            })
            .map(|(payload_type, ..)| *payload_type)
    }

    /// A codec that goes through, as the other end described it; `None` where `format` is none.
    #[must_use]
    pub fn opaque(format: &PayloadFormat) -> Option<Self> {
        let opaque = format.opaque()?;
        let fmtp = format.fmtp.as_deref().and_then(|it| opaque::passable(opaque.codec, it));
        let (name, clock_rate) = (opaque.codec.name().into(), opaque.clock_rate);
        Some(Self { name, clock_rate, channels: 1, fmtp })
    }

    /// Whether `format` is this codec: names compare without case; `fmtp` counts only where the
    /// codec is not decoded here.
    #[must_use]
    pub fn matches(&self, format: &PayloadFormat) -> bool {
        self.name.eq_ignore_ascii_case(&format.name)
            && self.clock_rate == format.clock_rate
            && self.channels == format.channels
            && (OpaqueCodec::from_name(&self.name).is_none() || self.agree(format).is_some())
    }

    /// What may be exchanged undecoded with a peer that says `format`.
    pub(crate) fn agree(&self, format: &PayloadFormat) -> Option<Opaque> {
        self.as_opaque()?.agree(format.opaque()?)
    }

    /// What it means where it goes through undecoded.
    pub(crate) fn as_opaque(&self) -> Option<Opaque> {
        Opaque::of(&self.name, self.clock_rate, self.channels, self.fmtp.as_deref())
    }
}

impl Media {
    /// The payload types of this line in order of preference, with `rtpmap`, `fmtp` and static
    /// defaults applied. Numbers above 127, unmapped dynamic types and repeats are left out.
    #[must_use]
    pub fn payload_formats(&self) -> Vec<PayloadFormat> {
        let mut formats: Vec<PayloadFormat> = Vec::new();
        for word in &self.formats {
            let Some(payload_type) = word.parse::<u8>().ok().filter(|it| *it < 128) else {
                continue;
            };
            if formats.iter().any(|known| known.payload_type == payload_type) {
                continue;
            }
            let mapped = self
                .attributes("rtpmap")
                .filter_map(|value| of_payload_type(value, payload_type))
                .find_map(parse_encoding)
                .or_else(|| static_encoding(payload_type));
            let Some((name, clock_rate, channels)) = mapped else { continue };
            let fmtp = self
                .attributes("fmtp")
                .find_map(|value| of_payload_type(value, payload_type))
                .map(ToString::to_string);
            formats.push(PayloadFormat { payload_type, name, clock_rate, channels, fmtp });
        }
        formats
    }

    /// Whether comfort noise is among its formats (RFC 3389), on the clock of G.711.
    #[must_use]
    pub fn has_comfort_noise(&self) -> bool {
        self.payload_formats().iter().any(PayloadFormat::is_comfort_noise)
    }

    /// `a=ptime` in milliseconds, rounded down (RFC 8866 section 6.4).
    #[must_use]
    pub fn ptime(&self) -> Option<u16> {
        milliseconds(self.attribute("ptime")?)
    }

    /// `a=maxptime` in milliseconds, rounded down (RFC 8866 section 6.5).
    #[must_use]
    pub fn maxptime(&self) -> Option<u16> {
        milliseconds(self.attribute("maxptime")?)
    }
}

/// The parameters of Opus (RFC 7587 section 6.1). Each states what its owner wants to receive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpusParameters {
    /// Highest useful sampling rate, in Hz, 8000-48000; `None` is 48000.
    pub max_playback_rate: Option<u32>,
    /// Highest average bit rate, in bit/s, 6000-510000.
    pub max_average_bitrate: Option<u32>,
    /// Whether in-band error correction is of use; the default is no.
    pub use_inband_fec: Option<bool>,
    /// Whether discontinuous transmission is wanted; the default is no.
    pub use_dtx: Option<bool>,
    /// Whether two channels are preferred; the default is no.
    pub stereo: Option<bool>,
    /// Whether a constant bit rate is wanted; the default is no.
    pub cbr: Option<bool>,
}

impl OpusParameters {
    /// Reads the value of `a=fmtp`. Unknown and malformed parameters are passed over; numbers are
    /// brought into the range of RFC 7587.
    #[must_use]
    pub fn parse(fmtp: &str) -> Self {
        let mut parameters = Self::default();
        for part in fmtp.split(';') {
            let Some((name, value)) = part.split_once('=') else { continue };
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            let flag = match value {
                "1" => Some(true),
                "0" => Some(false),
                _ => None,
            };
            let number = |low, high| {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                digits.then(|| value.parse().unwrap_or(u32::MAX).clamp(low, high))
            };
            match name.as_str() {
                "maxplaybackrate" => parameters.max_playback_rate = number(8000, 48_000),
                "maxaveragebitrate" => parameters.max_average_bitrate = number(6000, 510_000),
                "useinbandfec" => parameters.use_inband_fec = flag,
                "usedtx" => parameters.use_dtx = flag,
                "stereo" => parameters.stereo = flag,
                "cbr" => parameters.cbr = flag,
                _ => {}
            }
        }
        parameters
    }
}

impl fmt::Display for OpusParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("maxplaybackrate", self.max_playback_rate),
            ("maxaveragebitrate", self.max_average_bitrate),
            ("stereo", self.stereo.map(u32::from)),
            ("useinbandfec", self.use_inband_fec.map(u32::from)),
            ("usedtx", self.use_dtx.map(u32::from)),
            ("cbr", self.cbr.map(u32::from)),
        ];
        let mut separator = "";
        for (name, value) in parts {
            let Some(value) = value else { continue };
            write!(f, "{separator}{name}={value}")?;
            separator = ";";
        }
        Ok(())
    }
}

/// The `rtpmap` value of a payload format.
pub(crate) fn rtpmap(payload_type: u8, codec: &Codec) -> String {
    let Codec { name, clock_rate, channels, .. } = codec;
    match channels {
        1 => format!("{payload_type} {name}/{clock_rate}"),
        _ => format!("{payload_type} {name}/{clock_rate}/{channels}"),
    }
}

/// The name of comfort noise.
pub(crate) const NOISE: &str = "CN";

/// RFC 3551 section 6, the audio types still in use.
const STATIC_FORMATS: &[(u8, &str, u32)] = &[
    (0, "PCMU", 8000),
    (3, "GSM", 8000),
    (4, "G723", 8000),
    (8, "PCMA", 8000),
    (9, "G722", 8000),
    (13, NOISE, 8000),
    (18, "G729", 8000),
];

fn static_encoding(payload_type: u8) -> Option<(String, u32, u8)> {
    STATIC_FORMATS
        .iter()
        .find(|(known, ..)| *known == payload_type)
        .map(|(_, name, rate)| ((*name).into(), *rate, 1))
}

fn of_payload_type(value: &str, payload_type: u8) -> Option<&str> {
    let (number, rest) = value.trim_start().split_once(' ')?;
    (number.parse() == Ok(payload_type)).then(|| rest.trim())
}

fn parse_encoding(text: &str) -> Option<(String, u32, u8)> {
    let mut parts = text.split('/').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let clock_rate = parts.next()?.parse().ok().filter(|rate| *rate > 0)?;
    let channels = match parts.next() {
        None | Some("") => 1,
        Some(channels) => channels.parse().ok().filter(|it| *it > 0)?,
    };
    Some((name.into(), clock_rate, channels))
}

pub(crate) fn milliseconds(text: &str) -> Option<u16> {
    // Peers send "20", "20.0" and " 20".
    text.trim().split('.').next()?.parse().ok().filter(|it| *it > 0)
}
