//! Tier 7, tests of the whole. No member depends on this one, and nothing of it ships.
//!
//! `tidy` tests the source itself: tiers, dependencies, licences, sizes, bans, citations.

#![forbid(unsafe_code)]

#[cfg(test)]
mod tidy;
