//! Benches of callgate: pieces (`micro.rs`), the whole beside peers and floors (`compare/`), and
//! the [rig] that they share. Figures are ratios within one run: each bench of ours stands beside
//! a peer's or a floor.

#![forbid(unsafe_code)]

pub mod rig;
