//! Tier 2, the contract between `call` and `relay`: what must flow ([`plan`]), how one leg
//! hears another ([`bridge`]), what did flow ([`report`], over time [`curve`]) and copies of it
//! ([`tap`]). Plain data and pure functions: no socket, no key schedule, no codec state.
//!
//! The call decides at negotiation, the relay compiles the plan to a path once; nothing here is
//! looked at per packet.

#![forbid(unsafe_code)]

pub mod bridge;
pub mod curve;
pub mod dtls;
pub mod plan;
pub mod report;
pub mod tap;

pub use bridge::{BRIDGED_COMPLEXITY, Bridge, KeyForm, KeyPassage, Passage, Rule, between};
pub use curve::{Curve, Spell};
pub use dtls::{DtlsBackend, DtlsRole, Fingerprint, FingerprintError, FingerprintHash};
pub use plan::{
    BargeIn, ComfortNoise, Direction, Format, Handshake, LegPlan, Need, OpaqueFormat, Protection,
    Purpose, Reserved, SourceIdentity, TelephoneEvent,
};
pub use report::{MediaEvent, Quality, REPORT_EVERY, StopCause};
pub use tap::{Channel, FRAME_SAMPLES, TAP_PAYLOAD_BYTES, TAP_RATE, TapFrame, TapKind, TapPacket};
