//! The vault: what the edge keeps, sealed before it reaches a disk (DESIGN section 4, invariants 4,
//! 5, 8 and 11).
//!
//! - [`Vault::open`] starts it, [`VaultHandle::submit`] takes [`Record`]s without ever waiting,
//!   [`VaultHandle::flush`] waits until they are on the disk.
//! - [`VaultHandle::record`] gives a [`RecordingWriter`] that takes audio without ever waiting.
//! - [`VaultHandle::keys`] knows who may come in: API keys, accounts, browser tokens.
//! - [`Reader`] reads next to a running edge; [`audit::verify`] proves the audit log offline.
//!
//! **What survives.** `kill -9`: every acknowledged record, and audio to the last second. A power
//! cut: every acknowledged record, and audio to about one and a half seconds (files are synced once
//! a second). What was torn is found at the next start: calls are marked lost, recordings are
//! closed as unfinished and play up to there.
//!
//! **What does not leave memory.** Audio, unless [`VaultHandle::record`] was called for the call.
//! The vault decides neither whether a call is recorded nor what is personal: its callers do, by
//! the types they fill in.
//!
//! Threads: one writer (SQLite, keys, audit), a few recorders (Opus, sealing, files).

#![forbid(unsafe_code)]

pub mod access;
pub mod audit;
mod blind;
mod files;
pub mod key;
mod ledger;
mod object;
mod queue;
mod read;
mod record;
mod recording;
mod retention;
mod scribe;
mod seal;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod transcript;
mod vault;
mod writer;

pub use access::{
    AccessError, Account, ApiKey, Hashes, KeyId, KeyTerms, Keys, NewKey, NewToken, NotAScope,
    Token, TokenId, TokenScope, TokenTerms, TokenUse,
};
pub use audit::{AuditDetails, AuditEntry};
pub use object::ObjectError;
pub use read::{
    AuditView, CallDetail, CallFilter, CallState, CallSummary, ReadError, Reader, RecordedAudio,
    RecordingSummary, database_path,
};
pub use record::{CallPersonal, CallRecord, Direction, LadderEntry, Record};
pub use recording::play::{Peaks, PlayError};
pub use recording::{
    Channel, PushError, RecordingId, RecordingState, RecordingWriter, SAMPLE_RATE,
};
pub use retention::Retention;
pub use seal::{SealError, UnsealError};
pub use store::StoreError;
pub use transcript::{Role, Turn};
pub use vault::{
    EraseError, Erasure, FlushError, OpenError, RecordError, SubmitError, Vault, VaultConfig,
    VaultHandle,
};
