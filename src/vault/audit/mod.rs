//! The audit log: one hash chain per edge, its heads signed and exported.
//!
//! Each record holds the hash of the one before it, over everything including its place, time and
//! details *as stored*, so that the chain is verified without any secret and stays whole when a
//! call's key is erased. A chain alone does not show that its tail was cut: for that its heads
//! are signed and written to a folder that the operator ships off this machine. Records younger
//! than the last exported head (limits `vault.audit_head_records`, `vault.audit_head_ms`) are
//! the window in which a cut goes unseen.

mod head;
mod verify;

use base::{CallId, Personal, WallTime};

pub(crate) use head::HeadFile;

pub use verify::{Finding, VerifyError, VerifyReport, verify};

/// Bytes of a chain's hash.
pub(crate) const HASH_BYTES: usize = 32;

/// Something an auditor wants to see.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    /// What happened, `area.thing`, such as `sip.refused` or `policy.loaded`.
    pub kind: &'static str,
    /// Who did it: `edge`, `trunk:NAME`, `operator:NAME`. Stored readable: never a person's number
    /// or address.
    pub actor: String,
    /// The call it belongs to; its details are erased with the call.
    pub call: Option<CallId>,
    /// The rest.
    pub details: AuditDetails,
}

impl AuditEntry {
    pub(crate) fn text_bytes(&self) -> usize {
        let details = match &self.details {
            AuditDetails::Plain(text) => text.len(),
            AuditDetails::Sealed(text) => text.expose().len(),
        };
        self.actor.len().saturating_add(details)
    }
}

/// What an audit record says.
#[derive(Clone, Debug)]
pub enum AuditDetails {
    /// Nothing that identifies a person; stored readable.
    Plain(String),
    /// Sealed under the call's key, or the workspace's where there is no call.
    Sealed(Personal<String>),
}

/// A record as stored.
#[derive(Clone, Debug)]
pub(crate) struct AuditRow {
    pub(crate) seq: u64,
    pub(crate) previous: [u8; HASH_BYTES],
    pub(crate) wall: WallTime,
    pub(crate) kind: String,
    pub(crate) actor: String,
    pub(crate) call: Option<CallId>,
    pub(crate) sealed: bool,
    pub(crate) details: Vec<u8>,
}

impl AuditRow {
    /// The record's hash, as if it stood at `seq`.
    pub(crate) fn hash_at(&self, seq: u64) -> [u8; HASH_BYTES] {
        let mut hasher = blake3::Hasher::new_derive_key("callgate 2026 audit record v1");
        hasher.update(&seq.to_be_bytes());
        hasher.update(&self.previous);
        hasher.update(&self.wall.unix_millis().to_be_bytes());
        let call = self.call.map(|call| *call.as_bytes());
        let parts = [
            self.kind.as_bytes(),
            self.actor.as_bytes(),
            call.as_ref().map_or(&[][..], |call| &call[..]),
            &[u8::from(self.sealed)],
            &self.details,
        ];
        for part in parts {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
        *hasher.finalize().as_bytes()
    }

    /// The record's hash.
    pub(crate) fn hash(&self) -> [u8; HASH_BYTES] {
        self.hash_at(self.seq)
    }
}

/// What the first record of an edge's chain holds as the hash of the one before it.
pub(crate) fn genesis(edge: &[u8]) -> [u8; HASH_BYTES] {
    blake3::derive_key("callgate 2026 audit genesis v1", edge)
}

/// Where the chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainTip {
    /// The last record's number; 0 before the first.
    pub(crate) seq: u64,
    /// The last record's hash.
    pub(crate) hash: [u8; HASH_BYTES],
}
