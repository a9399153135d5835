//! Tier 5, carriers and callers at scale: places calls over SIP (TLS, TCP or UDP) with SDES-SRTP
//! or plain RTP, speaks, presses keys, listens, and measures what a caller would notice.
//!
//! It is the far end of callgate and shares nothing with it above tier 1: its user agent,
//! its media and its SRTP (`webrtc-srtp`) are its own, so that a bug in one shows in the other.
//!
//! The path of a load: [`Config`] -> [`Load::new`] -> [`Load::run`] (places each call when it is
//! due) -> one task per call (`call.rs`) that drives the user agent (`user_agent/`, without I/O),
//! the [`Script`] (`talk.rs`) and the media (`media/`) -> [`Report`].
//!
//! The path of a scenario: a file -> [`Scenario::read`] (`scenario/`) -> [`ScenarioRun`] (`run/`):
//! callers, callees (`listen.rs`) and bad actors, with one task per call for signalling only, and a
//! few media threads (`engine/`) that neither encode nor decode -> [`RunReport`] -> [`html()`].
//!
//! Not here: registering, digest, ICE, DTLS, video; requests go to the target's own address on
//! the connection opened for them, whatever Contact or Route says (as through an outbound proxy).

#![forbid(unsafe_code)]

mod call;
mod config;
mod engine;
mod html;
mod line;
mod listen;
mod load;
mod media;
mod os;
mod pacer;
mod progress;
mod report;
mod run;
mod scenario;
mod script;
mod srtp;
mod talk;
mod tls;
mod user_agent;
pub mod wav;

pub use config::{
    Authorities, Config, ConfigError, Identity, OfferMode, Protection, Target, Tls, Transport,
};
pub use html::html;
pub use load::{Cancellation, Load, LoadError};
pub use progress::Progress;
pub use report::{CallOutcome, CallReport, Ending, MediaTotals, Report, Saturation, Spread};
pub use run::{
    ActorReport, Judged, KindTotals, OwnLoad, RunProgress, RunReport, Sample, ScenarioRun,
    ScenarioSummary, Through,
};
pub use scenario::{
    ActorKind, Comparison, Expectation, Measure, Scenario, SoundError, Speak,
    sounds as scenario_sounds,
};
pub use script::{Script, Step};
pub use tls::TlsError;

#[cfg(test)]
mod tests;
