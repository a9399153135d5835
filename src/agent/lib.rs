//! Tier 3, the voice agent without I/O: it is told what was heard, pressed and played, and says
//! what to speak, what to listen for and when to hang up.
//!
//! - [`mod@file`] reads `agents/NAME.toml` and compiles it to a [`flow::Flow`];
//! - [`dialogue::Dialogue`] walks the flow through one call, turn by turn;
//! - [`provider`] holds the traits of transcriber, reasoner and speaker.
//!
//! It owns no thread, no clock and no audio: samples pass through it only as references from
//! the speaker to the relay.

#![forbid(unsafe_code)]

mod announce;
mod contract;
pub mod dialogue;
pub mod file;
pub mod flow;
pub mod provider;
pub mod turn;

pub use contract::{Input, Output};
pub use dialogue::Dialogue;
pub use flow::Flow;
pub use turn::{Speaking, Turn};
