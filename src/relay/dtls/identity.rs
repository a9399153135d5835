//! The certificate that our side of a handshake shows: self-signed, its fingerprint in our SDP,
//! one for all new legs until the next takes its place. A handshake under way keeps its own. A leg
//! that moves to another session has one that nobody else shows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Digest, SHA256, SHA384, SHA512, digest};
use base::{Instant, Random, Secret, WallTime, limit};
use media::{Fingerprint, FingerprintHash};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, date_time_ymd};

const DAY: Duration = Duration::from_secs(86_400);
/// Nobody checks the dates of a certificate known by its fingerprint; they are honest all the same.
const VALIDITY: Duration = Duration::from_secs(30 * DAY.as_secs());

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
#[error("no certificate for DTLS can be made: {0}")]
pub struct IdentityError(#[from] rcgen::Error);

/// A certificate of ECDSA P-256 and its key. Clones are one and the same.
#[derive(Clone)]
pub struct Identity(Arc<Made>);

struct Made {
    certificate: Vec<u8>,
    key: Secret<Vec<u8>>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// A fresh one. `random` makes its name, which tells nothing of us; the key is of the system's
    /// randomness.
    ///
    /// # Errors
    /// [`IdentityError`], where the cryptography fails.
    pub fn generate(random: &mut dyn Random, now: WallTime) -> Result<Self, IdentityError> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::CommonName, format!("{:016x}", random.u64()));
        let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.unix_millis());
        parameters.not_before = now - DAY; // clocks differ
        parameters.not_after = now + VALIDITY;
        let certificate = parameters.self_signed(&key)?.der().to_vec();
        let hash = hash_of(FingerprintHash::Sha256, &certificate).as_ref().to_vec();
        let fingerprint = Fingerprint::new(FingerprintHash::Sha256, hash);
        let fingerprint = fingerprint.ok_or(rcgen::Error::RingUnspecified)?;
        let key = Secret::new(key.serialize_der());
        Ok(Self(Arc::new(Made { certificate, key, fingerprint })))
    }

    /// The SHA-256 fingerprint, for `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.0.certificate
    }

    /// The key, in DER of PKCS #8; must not be printed.
    pub(crate) fn key(&self) -> &[u8] {
        self.0.key.expose()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.0.certificate == other.0.certificate
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[identity {}]", self.0.fingerprint)
    }
}

/// The present identity, and when its time is over.
#[derive(Debug)]
pub struct Identities {
    present: Identity,
    until: Instant,
}

impl Identities {
    /// With a first identity.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn new(
        random: &mut dyn Random,
        now: Instant,
        wall: WallTime,
    ) -> Result<Self, IdentityError> {
        let present = Identity::generate(random, wall)?;
        Ok(Self { present, until: now + limit::DTLS_IDENTITY_MS.millis() })
    }

    /// The identity for a new leg.
    #[must_use]
    pub fn present(&self) -> Identity {
        self.present.clone()
    }

    /// When to call [`Identities::rotate`].
    #[must_use]
    pub const fn poll_timeout(&self) -> Instant {
        self.until
    }

    /// Makes a new identity for new legs, where the present one's time is over; says whether.
    ///
    /// # Errors
    /// [`IdentityError`]; the present one stays.
    pub fn rotate(
        &mut self,
        random: &mut dyn Random,
        now: Instant,
        wall: WallTime,
    ) -> Result<bool, IdentityError> {
        if now < self.until {
            return Ok(false);
        }
        *self = Self::new(random, now, wall)?;
        Ok(true)
    }
}

/// The hash of a certificate in DER.
fn hash_of(hash: FingerprintHash, certificate: &[u8]) -> Digest {
    let algorithm = match hash {
        FingerprintHash::Sha256 => &SHA256,
        FingerprintHash::Sha384 => &SHA384,
        FingerprintHash::Sha512 => &SHA512,
    };
    digest(algorithm, certificate)
}

/// Whether a certificate in DER is the one that `expected` names; takes the same time either way.
#[must_use]
pub fn is_of(expected: &Fingerprint, certificate: &[u8]) -> bool {
    let found = hash_of(expected.hash(), certificate);
    verify_slices_are_equal(found.as_ref(), expected.bytes()).is_ok()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod identity_tests;
