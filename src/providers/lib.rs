//! Tier 4, adapters of the voice agent's providers. So far the embedded default, which needs no
//! network and no download: [`EmbeddedSpeech`] hears and speaks through `callgate-speech`
//! processes, [`EmbeddedReasoner`] answers from a small text.
//!
//! Audio and words are in memory and in the pipes to the helpers only.

#![forbid(unsafe_code)]

mod answers;
mod cache;
mod embedded;
mod pending;
mod process;

pub use answers::EmbeddedReasoner;
pub use embedded::{EmbeddedSpeech, EmbeddedSpeechConfig, OnEvent};
pub use process::StartError;
