//! A workspace's keys: all derived from one key that the KMS wraps.

use base::{CallId, Secret, WorkspaceId};

use super::{DataKey, Kms, KmsError};
use crate::blind::BlindIndex;
use crate::seal::{self, OBJECT_ID_BYTES, SealError, UnsealError};

/// The keys of one workspace, unwrapped.
pub(crate) struct Workspace {
    name: WorkspaceId,
    wrap: DataKey,
    audit: DataKey,
    blind: BlindIndex,
    access: DataKey,
}

impl Workspace {
    /// Makes a workspace's key; returns it and its wrapped form, which is to be stored.
    pub(crate) fn create(kms: &dyn Kms, name: &WorkspaceId) -> Result<(Self, Vec<u8>), KmsError> {
        let key = DataKey::random().map_err(|_| KmsError::Failed)?;
        let wrapped = kms.wrap(name.as_str(), &key)?;
        Ok((Self::new(name, &key), wrapped))
    }

    /// Unwraps a workspace's key.
    pub(crate) fn open(
        kms: &dyn Kms,
        name: &WorkspaceId,
        wrapped: &[u8],
    ) -> Result<Self, KmsError> {
        Ok(Self::new(name, &kms.unwrap(name.as_str(), wrapped)?))
    }

    /// One derived key per purpose: the workspace key itself seals nothing.
    fn new(name: &WorkspaceId, key: &DataKey) -> Self {
        Self {
            name: name.clone(),
            wrap: key.derive("callgate 2026 vault workspace wrapping v1"),
            audit: key.derive("callgate 2026 vault workspace audit v1"),
            blind: BlindIndex::new(key.derive("callgate 2026 vault workspace blind index v1")),
            access: key.derive("callgate 2026 vault workspace access v1"),
        }
    }

    /// The workspace's name.
    pub(crate) const fn name(&self) -> &WorkspaceId {
        &self.name
    }

    /// The index of numbers.
    pub(crate) const fn blind(&self) -> &BlindIndex {
        &self.blind
    }

    /// The key of everything that [`crate::access`] makes and seals.
    pub(crate) const fn access_key(&self) -> &DataKey {
        &self.access
    }

    /// The key of audit details that belong to no call.
    pub(crate) const fn audit_key(&self) -> &DataKey {
        &self.audit
    }

    /// Wraps a call's key.
    pub(crate) fn wrap_call_key(&self, call: CallId, key: &DataKey) -> Result<Vec<u8>, SealError> {
        let mut plain = Secret::new(*key.expose());
        seal::seal(&self.wrap, &[b"call key", call.as_bytes()], plain.expose_mut())
    }

    /// Unwraps a call's key.
    pub(crate) fn unwrap_call_key(
        &self,
        call: CallId,
        wrapped: &[u8],
    ) -> Result<DataKey, UnsealError> {
        let mut plain = seal::unseal(&self.wrap, &[b"call key", call.as_bytes()], wrapped)?;
        DataKey::from_bytes(&mut plain).ok_or(UnsealError::Format)
    }
}

/// Wraps a recording's key under its call's.
pub(crate) fn wrap_object_key(
    call_key: &DataKey,
    object: &[u8; OBJECT_ID_BYTES],
    key: &DataKey,
) -> Result<Vec<u8>, SealError> {
    let mut plain = Secret::new(*key.expose());
    seal::seal(call_key, &[b"object key", object], plain.expose_mut())
}

/// Unwraps a recording's key.
pub(crate) fn unwrap_object_key(
    call_key: &DataKey,
    object: &[u8; OBJECT_ID_BYTES],
    wrapped: &[u8],
) -> Result<DataKey, UnsealError> {
    let mut plain = seal::unseal(call_key, &[b"object key", object], wrapped)?;
    DataKey::from_bytes(&mut plain).ok_or(UnsealError::Format)
}
