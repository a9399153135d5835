//! Our certificate, and the far end's fingerprint (RFC 8122).

use std::fmt;

use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use webrtc_dtls::crypto;

use super::Failure;

/// A self-signed certificate of ECDSA P-256, one for any number of handshakes.
#[derive(Clone)]
pub struct Certificate {
    pub(super) own: crypto::Certificate,
    fingerprint: Fingerprint,
}

impl Certificate {
    /// A fresh one.
    ///
    /// # Errors
    /// [`Failure::Own`], where the cryptography fails.
    pub fn generate() -> Result<Self, Failure> {
        let own = crypto::Certificate::generate_self_signed(vec!["load".to_owned()]);
        let own = own.map_err(|_| Failure::Own)?;
        let first = own.certificate.first().ok_or(Failure::Own)?;
        let fingerprint = Fingerprint::of(first, "sha-256").ok_or(Failure::Own)?;
        Ok(Self { own, fingerprint })
    }

    /// What our description says of it.
    #[must_use]
    pub const fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[certificate {}]", self.fingerprint)
    }
}

/// A hash of a certificate, as `a=fingerprint` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    hash: String,
    bytes: Vec<u8>,
}

impl Fingerprint {
    /// Reads the attribute's value: `sha-256 4A:AD:..`; `None` where it is none, or of a hash that
    /// is not known here.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let (hash, hex) = value.trim().split_once(' ')?;
        let bytes = hex.trim().split(':').map(|it| u8::from_str_radix(it, 16).ok());
        let it = Self { hash: hash.to_ascii_lowercase(), bytes: bytes.collect::<Option<_>>()? };
        let known = Self::of(&[], &it.hash)?;
        (known.bytes.len() == it.bytes.len()).then_some(it)
    }

    /// Of a certificate in DER; `None` for a hash that is not known here.
    pub(super) fn of(certificate: &[u8], hash: &str) -> Option<Self> {
        let algorithm = match hash {
            "sha-256" => &SHA256,
            "sha-384" => &SHA384,
            "sha-512" => &SHA512,
            _ => return None,
        };
        let bytes = digest(algorithm, certificate).as_ref().to_vec();
        Some(Self { hash: hash.to_owned(), bytes })
    }

    pub(super) fn is_of(&self, certificate: &[u8]) -> bool {
        Self::of(certificate, &self.hash).as_ref() == Some(self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.hash)?;
        let mut before = ' ';
        for byte in &self.bytes {
            write!(f, "{before}{byte:02X}")?;
            before = ':';
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_written_as_it_is_read_and_names_one_certificate() {
        let (one, other) = (Certificate::generate().unwrap(), Certificate::generate().unwrap());
        let text = one.fingerprint().to_string();
        assert!(text.starts_with("sha-256 ") && text.len() == 8 + 32 * 3 - 1, "{text}");
        let read = Fingerprint::parse(&text.to_ascii_lowercase()).unwrap();
        assert_eq!(&read, one.fingerprint());
        assert!(read.is_of(&one.own.certificate[0]) && !read.is_of(&other.own.certificate[0]));
        for wrong in ["sha-256", "sha-256 4A:AD", "md5 4A:AD", "sha-256 zz", ""] {
            assert_eq!(Fingerprint::parse(wrong), None, "{wrong}");
        }
    }
}
