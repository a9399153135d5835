//! Tier 7, tests of the whole. No member depends on this one, and nothing of it ships.
//!
//! `tidy` tests the source itself: tiers, dependencies, licences, sizes, bans, citations. `world`
//! is the simulated world that runs the production shard and packet path in virtual time.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tidy;
#[cfg(test)]
mod world;
