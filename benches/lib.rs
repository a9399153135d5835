//! Micro-benches of callgate; see `micro.rs`. Figures are ratios within one run: each bench of
//! ours stands beside a peer's or a floor.

#![forbid(unsafe_code)]

pub mod rig;
