//! Keys, from the outside in: a [`Kms`] key wraps each workspace's key, which wraps one key per
//! call, which seals that call's messages and wraps the keys of its recordings. Deleting a call's
//! key therefore erases everything of that call, in backups of the object store too.
//!
//! The KMS also holds the Ed25519 key that signs audit heads.

mod local;
pub(crate) mod ring;

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

pub use crate::seal::DataKey;
pub use local::{KeyFileError, LocalKms};

/// Bytes of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The KMS did not do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KmsError {
    /// The wrapped key was made by another KMS key, or changed.
    #[error("the key was wrapped by another KMS key, or changed")]
    WrongKey,
    /// The KMS could not be reached or failed.
    #[error("the KMS failed")]
    Failed,
}

/// Where the outermost key lives: a file here, a service elsewhere.
pub trait Kms: Send + Sync {
    /// Wraps `key`; `context` is bound to it.
    fn wrap(&self, context: &str, key: &DataKey) -> Result<Vec<u8>, KmsError>;

    /// Unwraps what [`Self::wrap`] made with the same context.
    fn unwrap(&self, context: &str, wrapped: &[u8]) -> Result<DataKey, KmsError>;

    /// Signs an audit head (Ed25519).
    fn sign_head(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], KmsError>;

    /// The public key of [`Self::sign_head`].
    fn head_key(&self) -> HeadKey;
}

/// The public key that audit heads are verified with. `Display` and `FromStr` are base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadKey([u8; 32]);

impl HeadKey {
    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether `signature` is this key's over `message`.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64.encode(self.0))
    }
}

/// A string that is no base64 of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not an audit key: expected 44 characters of base64")]
pub struct ParseHeadKeyError;

impl FromStr for HeadKey {
    type Err = ParseHeadKeyError;
    fn from_str(text: &str) -> Result<Self, ParseHeadKeyError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| ParseHeadKeyError)?;
        Ok(Self(bytes.try_into().map_err(|_| ParseHeadKeyError)?))
    }
}
