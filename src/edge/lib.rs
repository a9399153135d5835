//! Tier 6, assembly: configuration, boot order, and the shards that carry outputs between the
//! members below.
//!
//! [`Edge::start`] is a list of named steps; [`shard::Shard`] is the synchronous heart that the
//! simulated world runs as well. Threads are fixed at the start: the shards, the relay's workers,
//! the ear, the vault's and the speech helpers' threads; tasks besides are one per signalling
//! connection, the metrics port's, and one that watches files.

#![forbid(unsafe_code)]

pub mod acme;
pub mod agents;
pub mod archive;
pub mod boot;
pub mod browsers;
pub mod certificates;
pub mod clock;
pub mod config;
pub mod control;
pub mod curves;
mod dials;
pub mod ear;
pub mod front;
pub mod host;
pub mod keys;
pub mod ledger;
mod logins;
pub mod onlook;
pub mod policies;
pub mod refusals;
pub mod shard;
mod share;
#[cfg(test)]
mod test_vault;

pub use boot::{BootError, Edge};
pub use config::{Config, ConfigError};
