//! What a leg's DTLS-SRTP handshake is told: plain data, as it stands in SDP and in a plan.

use std::fmt;
use std::str::FromStr;

/// The hash functions of certificate fingerprints that are taken. SHA-1 and MD5 are not: a
/// certificate that has a given one of theirs can be made (RFC 8122 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FingerprintHash {
    /// `sha-256`
    Sha256,
    /// `sha-384`
    Sha384,
    /// `sha-512`
    Sha512,
}

impl FingerprintHash {
    /// The name in SDP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// Bytes of a hash.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// The hash of a certificate in DER, as in `a=fingerprint` (RFC 8122 section 5). `Display` is the
/// value of the attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    hash: FingerprintHash,
    bytes: Vec<u8>,
}

/// Why an `a=fingerprint` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FingerprintError {
    /// Its hash function is not one of [`FingerprintHash`].
    Hash,
    /// It is not hexadecimal bytes divided by colons, or not as long as its hash function's.
    Malformed,
}

impl fmt::Display for FingerprintError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hash => "the hash function of the fingerprint is not SHA-256, -384 or -512",
            Self::Malformed => "the fingerprint is not a hash in hexadecimal",
        })
    }
}

impl std::error::Error for FingerprintError {}

impl Fingerprint {
    /// Wraps a hash; `None` where the length is not that of the hash function.
    #[must_use]
    pub fn new(hash: FingerprintHash, bytes: Vec<u8>) -> Option<Self> {
        (bytes.len() == hash.size()).then_some(Self { hash, bytes })
    }

    /// Reads hash function and value, as [`sdp::Session::fingerprint_of`] divides them.
    ///
    /// # Errors
    /// [`FingerprintError`].
    pub fn parse(hash: &str, value: &str) -> Result<Self, FingerprintError> {
        // RFC 8122 section 5: the names are tokens, which are written in either case.
        let hash = [FingerprintHash::Sha256, FingerprintHash::Sha384, FingerprintHash::Sha512]
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(hash.trim()))
            .ok_or(FingerprintError::Hash)?;
        let value = value.trim();
        if value.len() != 3 * hash.size() - 1 {
            return Err(FingerprintError::Malformed);
        }
        let bytes: Option<Vec<u8>> = value.split(':').map(byte).collect();
        bytes.and_then(|bytes| Self::new(hash, bytes)).ok_or(FingerprintError::Malformed)
    }

    /// The hash function.
    #[must_use]
    pub const fn hash(&self) -> FingerprintHash {
        self.hash
    }

    /// The hash.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

fn byte(text: &str) -> Option<u8> {
    let is_byte = text.len() == 2 && text.bytes().all(|it| it.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(text, 16).ok())?
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    /// Reads the value of the attribute, `sha-256 AB:CD:..`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (hash, value) = text.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
        Self::parse(hash, value)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.name())?;
        for (index, byte) in self.bytes.iter().enumerate() {
            // RFC 8122 section 5: upper-case bytes divided by colons.
            write!(f, "{}{byte:02X}", if index == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

/// Who begins the handshake, of our side (RFC 5763 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtlsRole {
    /// We begin it: `a=setup:active` in what we wrote. The DTLS client.
    Active,
    /// We wait for it: `a=setup:passive` in what we wrote. The DTLS server.
    Passive,
}

/// Which implementation of DTLS a leg uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DtlsBackend {
    /// `dimpl`: the cheaper one; takes no RSA certificate.
    #[default]
    Dimpl,
    /// `webrtc-dtls`, which takes RSA peers too.
    WebrtcDtls,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(size: usize) -> String {
        (0..size).map(|it| format!("{:02x}", it % 256)).collect::<Vec<_>>().join(":")
    }

    #[test]
    fn fingerprints_survive_the_round_trip_in_upper_case() {
        for (name, size) in [("sha-256", 32), ("SHA-384", 48), ("sha-512", 64)] {
            let read: Fingerprint = format!(" {name} {} ", of(size)).parse().unwrap();
            assert_eq!(read.bytes()[..3], [0, 1, 2]);
            let printed = read.to_string();
            assert!(printed.starts_with(&format!("{} 00:01:02:", name.to_ascii_lowercase())));
            assert!(printed.contains(":1F"));
            assert_eq!(printed.parse(), Ok(read));
        }
    }

    #[test]
    fn weak_hash_functions_are_refused() {
        for (name, size) in [("sha-1", 20), ("md5", 16), ("md2", 16), ("sha-224", 28)] {
            let read = format!("{name} {}", of(size)).parse::<Fingerprint>();
            assert_eq!(read, Err(FingerprintError::Hash));
        }
    }

    #[test]
    fn what_is_not_a_hash_is_refused() {
        let cases = [
            "sha-256".to_owned(),
            format!("sha-256 {}", of(31)),
            format!("sha-256 {}", of(33)),
            format!("sha-256 {}", of(32).replace(":1f", ":+f")),
            format!("sha-256 {}", of(32).replace(':', "-")),
            format!("sha-256 {}", of(32).replace("0a:", "a::")),
            format!("sha-512 {}", of(32)),
        ];
        for case in cases {
            assert_eq!(case.parse::<Fingerprint>(), Err(FingerprintError::Malformed), "{case}");
        }
        assert_eq!(Fingerprint::new(FingerprintHash::Sha384, vec![0; 32]), None);
    }
}
