//! SDES keys: the value of `a=crypto` (RFC 4568), its suites (RFC 4568 section 6.2, RFC 7714
//! section 14) and their keys. Nothing here protects a packet.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use base::{Random, Secret};
use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

/// An SRTP crypto suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suite {
    /// `AEAD_AES_256_GCM` (RFC 7714)
    AeadAes256Gcm,
    /// `AEAD_AES_128_GCM` (RFC 7714)
    AeadAes128Gcm,
    /// `AES_CM_128_HMAC_SHA1_80` (RFC 4568 section 6.2.1)
    AesCm128HmacSha1_80,
    /// `AES_CM_128_HMAC_SHA1_32` (RFC 4568 section 6.2.2)
    AesCm128HmacSha1_32,
}

impl Suite {
    /// Every suite in the default order of preference, the strongest first.
    pub const PREFERENCE: [Self; 4] = [
        Self::AeadAes256Gcm,
        Self::AeadAes128Gcm,
        Self::AesCm128HmacSha1_80,
        Self::AesCm128HmacSha1_32,
    ];

    /// The registered name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AeadAes256Gcm => "AEAD_AES_256_GCM",
            Self::AeadAes128Gcm => "AEAD_AES_128_GCM",
            Self::AesCm128HmacSha1_80 => "AES_CM_128_HMAC_SHA1_80",
            Self::AesCm128HmacSha1_32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of that name; RFC 4568 section 9.1 makes the names case-sensitive.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::PREFERENCE.into_iter().find(|suite| suite.name() == name)
    }

    /// Bytes of the master key.
    #[must_use]
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            _ => 16,
        }
    }

    /// Bytes of the master salt.
    #[must_use]
    pub const fn salt_len(self) -> usize {
        match self {
            // RFC 7714 section 12.
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 14,
        }
    }

    /// Bytes that protection adds to an RTP packet.
    #[must_use]
    pub const fn rtp_tag_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::AesCm128HmacSha1_80 => 10,
            Self::AesCm128HmacSha1_32 => 4,
        }
    }

    /// Bytes of the authentication tag of an RTCP packet, the index word not counted. The `_32`
    /// suite shortens RTP tags only (RFC 4568 section 6.2.2).
    #[must_use]
    pub const fn rtcp_tag_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::AesCm128HmacSha1_80 | Self::AesCm128HmacSha1_32 => 10,
        }
    }

    /// Whether it is an AEAD suite.
    #[must_use]
    pub const fn is_aead(self) -> bool {
        matches!(self, Self::AeadAes256Gcm | Self::AeadAes128Gcm)
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A master key and salt, of the lengths that a suite demands.
#[derive(Clone, PartialEq, Eq)]
pub struct KeySalt {
    suite: Suite,
    bytes: Secret<Vec<u8>>,
}

impl KeySalt {
    /// A fresh one; `random` must be cryptographic.
    pub fn generate(suite: Suite, random: &mut dyn Random) -> Self {
        let mut bytes = vec![0; suite.key_len() + suite.salt_len()];
        random.fill(&mut bytes);
        Self { suite, bytes: Secret::new(bytes) }
    }

    /// Wraps a key followed by its salt; `None` where the length is not the suite's.
    #[must_use]
    pub fn from_bytes(suite: Suite, bytes: Vec<u8>) -> Option<Self> {
        let bytes = Secret::new(bytes);
        (bytes.expose().len() == suite.key_len() + suite.salt_len())
            .then_some(Self { suite, bytes })
    }

    /// The suite that it is for.
    #[must_use]
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The master key; must not be printed.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.bytes.expose()[..self.suite.key_len()]
    }

    /// The master salt; must not be printed.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.bytes.expose()[self.suite.key_len()..]
    }
}

impl fmt::Debug for KeySalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{} key]", self.suite)
    }
}

/// An `a=crypto` line that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CryptoLine {
    /// The tag, which the answer repeats.
    pub tag: u32,
    /// The key of whoever wrote the line, for what it sends; names the suite.
    pub key: KeySalt,
}

impl CryptoLine {
    /// A line of ours with a fresh key: for an offer any tag from 1, for an answer the tag and
    /// suite of the line that it accepts. `random` must be cryptographic.
    pub fn generate(tag: u32, suite: Suite, random: &mut dyn Random) -> Self {
        Self { tag, key: KeySalt::generate(suite, random) }
    }

    /// Reads the value of `a=crypto`.
    ///
    /// # Errors
    /// Why the line is to be passed over; the next one may do (RFC 4568 section 5.1.2).
    pub fn parse(value: &str) -> Result<Self, Skip> {
        let mut words = value.split_ascii_whitespace();
        let (tag, suite) = match (words.next(), words.next()) {
            (Some(tag), Some(suite)) => (tag, suite),
            _ => return Err(Skip::Malformed),
        };
        // RFC 4568 section 9.1: 1*9DIGIT.
        if tag.len() > 9 || !tag.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Skip::Malformed);
        }
        let tag = tag.parse().map_err(|_| Skip::Malformed)?;
        let suite = Suite::from_name(suite).ok_or(Skip::UnknownSuite)?;
        let key = parse_key(words.next().ok_or(Skip::Malformed)?, suite)?;
        words.try_for_each(check_session_parameter)?;
        Ok(Self { tag, key })
    }

    /// The line of `values` (an m-line's `a=crypto` values, in its order) whose suite stands
    /// foremost in `preference`.
    #[must_use]
    pub fn choose<'a>(values: impl Iterator<Item = &'a str>, preference: &[Suite]) -> Choice {
        let mut choice = Choice { chosen: None, skipped: Vec::new() };
        let mut best = preference.len();
        for (index, value) in values.enumerate() {
            let line = Self::parse(value).and_then(|line| {
                let rank = preference.iter().position(|suite| *suite == line.key.suite());
                rank.map(|rank| (rank, line)).ok_or(Skip::NotPreferred)
            });
            match line {
                Ok((rank, line)) if rank < best => {
                    best = rank;
                    choice.chosen = Some(line);
                }
                Ok(_) => {}
                Err(skip) => choice.skipped.push((index, skip)),
            }
        }
        choice
    }

    /// The value of `a=crypto`, key included: it goes into a description and nowhere else.
    #[must_use]
    pub fn to_attribute(&self) -> Secret<String> {
        let encoded = Secret::new(BASE64.encode(self.key.bytes.expose()));
        Secret::new(format!("{} {} inline:{}", self.tag, self.key.suite, encoded.expose()))
    }
}

/// What [`CryptoLine::choose`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The line to accept: answer it with [`CryptoLine::generate`] of its tag and suite.
    pub chosen: Option<CryptoLine>,
    /// The lines that cannot be used, by index, and why.
    pub skipped: Vec<(usize, Skip)>,
}

impl fmt::Display for CryptoLine {
    /// Prints tag and suite, never the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tag, self.key.suite)
    }
}

/// Why an `a=crypto` line is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Skip {
    /// Not `TAG SUITE KEY-PARAMETERS`.
    #[error("malformed crypto line")]
    Malformed,
    /// A suite that is not known here.
    #[error("unknown crypto suite")]
    UnknownSuite,
    /// A suite that is not in the list of acceptable ones.
    #[error("crypto suite not allowed")]
    NotPreferred,
    /// A key method other than `inline`, or several keys.
    #[error("unsupported key parameters")]
    KeyParameters,
    /// The key is not base64, or not of the suite's length.
    #[error("key of the wrong form or length")]
    Key,
    /// The lifetime is not a number that the suite allows.
    #[error("bad key lifetime")]
    Lifetime,
    /// A master key identifier is demanded.
    #[error("master key identifiers are not supported")]
    Mki,
    /// A session parameter would switch off encryption or authentication.
    #[error("a session parameter switches protection off")]
    Unprotected,
    /// A mandatory session parameter that is not known here.
    #[error("unsupported session parameter")]
    SessionParameter,
}

/// RFC 4568 section 6.1 takes the alphabet of RFC 3548 with padding; peers that leave the padding
/// out mean the same key.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

fn parse_key(text: &str, suite: Suite) -> Result<KeySalt, Skip> {
    // RFC 4568 section 9.1: several keys are divided by ";" and need identifiers.
    if text.contains(';') {
        return Err(Skip::KeyParameters);
    }
    let (method, key) = text.split_once(':').ok_or(Skip::Malformed)?;
    if !method.eq_ignore_ascii_case("inline") {
        return Err(Skip::KeyParameters);
    }
    let mut parts = key.split('|');
    let encoded = parts.next().unwrap_or_default();
    for (index, part) in parts.enumerate() {
        // RFC 4568 section 6.1: KEY ["|" LIFETIME] ["|" MKI ":" LENGTH].
        match part.contains(':') {
            true => return Err(Skip::Mki),
            false if index == 0 => check_lifetime(part)?,
            false => return Err(Skip::Malformed),
        }
    }
    let bytes = BASE64.decode(encoded).map_err(|_| Skip::Key)?;
    KeySalt::from_bytes(suite, bytes).ok_or(Skip::Key)
}

/// A lifetime limits how long its key may be used. We accept those no shorter than a call can
/// last, and so never need to count.
fn check_lifetime(text: &str) -> Result<(), Skip> {
    let number = |text: &str| -> Option<u64> {
        text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
    };
    let packets = match text.strip_prefix("2^") {
        Some(exponent) => number(exponent)
            .and_then(|exponent| u32::try_from(exponent).ok())
            .and_then(|exponent| 1u64.checked_shl(exponent)),
        None => number(text),
    };
    match packets {
        // RFC 4568 section 6.1: at most 2^48 packets.
        Some(packets) if (LIFETIME_MIN..=1 << 48).contains(&packets) => Ok(()),
        _ => Err(Skip::Lifetime),
    }
}

/// The packets of the longest call ([`base::limit::CALL_DURATION_MS`]) at one per 20 ms.
const LIFETIME_MIN: u64 = base::limit::CALL_DURATION_MS.value / 20;

fn check_session_parameter(parameter: &str) -> Result<(), Skip> {
    let name = parameter.split_once('=').map_or(parameter, |(name, _)| name);
    match name.trim_start_matches('-').to_ascii_uppercase().as_str() {
        "UNENCRYPTED_SRTP" | "UNENCRYPTED_SRTCP" | "UNAUTHENTICATED_SRTP" => Err(Skip::Unprotected),
        // A hint for the size of the replay window (RFC 4568 section 6.3.6); ours is fixed.
        "WSH" => Ok(()),
        // RFC 4568 section 6.3.7: a leading "-" marks what may be passed over.
        _ if parameter.starts_with('-') => Ok(()),
        _ => Err(Skip::SessionParameter),
    }
}

#[cfg(test)]
#[path = "sdes_tests.rs"]
mod tests;
