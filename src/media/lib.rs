//! Tier 2, the contract between `call` and `relay`: what must flow ([`plan`]), what did
//! ([`report`]) and copies of it ([`tap`]). Plain data and pure functions: no socket, no key
//! schedule, no codec state.
//!
//! The call decides at negotiation, the relay compiles the plan to a path once; nothing here is
//! looked at per packet.

#![forbid(unsafe_code)]

pub mod plan;
pub mod report;
pub mod tap;

pub use plan::{
    BargeIn, Direction, Format, LegPlan, Need, Protection, Purpose, Reserved, SourceIdentity,
};
pub use report::{MediaEvent, Quality, StopCause};
pub use tap::{Channel, FRAME_SAMPLES, TAP_RATE, TapFrame};
