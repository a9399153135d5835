//! Benches of callgate: pieces (`micro.rs`), the relay beside a bare forwarder (`floor/`), and the
//! [rig] that they share. Figures are ratios within one run: each bench of ours stands beside a
//! peer's or a floor.

#![forbid(unsafe_code)]

pub mod rig;
