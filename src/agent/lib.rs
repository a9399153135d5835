//! Tier 3, the voice agent without I/O.

#![forbid(unsafe_code)]

pub mod provider;
