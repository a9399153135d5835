//! Tier 3, the call: every INVITE from its arrival to its hang-up, without I/O.
//!
//! [`Calls`] holds the calls of one shard behind four verbs: `handle_input`, `handle_timeout`,
//! `poll_timeout`, `poll_output`; drain the outputs fully before the next input. The files stand
//! in the order in which a call meets them: `arrive`, `admit`, `dial`, `early`, `negotiate`, `ice`,
//! `answer`, `late`, `bridge`, `hold`, `change`, `transfer`,
//! `enlist`, `pass`, `replaces`, `across`, `refresh`, `hangup`.
//!
//! It opens no port and reads no clock: ports are asked for with [`Output::Reserve`], keys and
//! tags come from the injected randomness, limits that span shards from the [`Ledger`]. A panic
//! in one call ends that call ([`base::Reason::Internal`]) and no other.

#![forbid(unsafe_code)]

mod across;
mod admit;
mod answer;
mod arrive;
mod beyond;
mod bridge;
mod calls;
mod cause;
mod change;
mod contract;
mod credentials;
mod desk;
mod dial;
mod early;
mod enlist;
mod hangup;
mod hold;
mod ice;
mod keep;
mod late;
mod leg;
mod negotiate;
mod pass;
mod refresh;
mod replaces;
mod tape;
mod transfer;

pub use across::Crossing;
pub use calls::Calls;
pub use contract::{
    AgentCard, Input, Keep, Ledger, Output, Peer, Record, Setup, Unrecorded, Unserved,
};

/// The shard that owns the dialog which a Replaces value names (RFC 3891); `None` where it cannot
/// be one of ours.
#[must_use]
pub fn shard_of_replaces(value: &str) -> Option<u8> {
    let named = replaces::Replaces::parse(value)?;
    sip::ids::shard_of_tag(&named.dialog.local_tag)
}

/// What policy sees of an INVITE: the same as on the live path, for `callgate explain`.
///
/// # Errors
/// Where its session description cannot be read.
pub fn attempt_of(
    peer: &Peer,
    invite: &sip::Request,
    wall: base::WallTime,
) -> Result<policy::Attempt, base::Reason> {
    let offer = hold::offer_of(invite)?;
    Ok(admit::attempt(peer, invite, offer.as_ref(), wall))
}

#[cfg(test)]
mod tests;
