//! The measuring rig that benches share: a [generator] of RTP that shows its headroom, CPU time
//! [by thread](cpu), [ratios](ratio) out of interleaved pairs, the [edge](staircase) of what is
//! well, and the [trend] of a figure over time.
//!
//! It knows nothing of what it measures but addresses: one thread here sends to a relay and hears
//! what comes out, wherever that relay runs.

pub mod cpu;
pub mod generator;
pub mod ratio;
pub mod staircase;
pub mod trend;
