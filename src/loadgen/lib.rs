//! Tier 5, carriers and callers at scale: places calls over SIP (TLS, TCP or UDP) with SDES-SRTP
//! or plain RTP, speaks, presses keys, listens, and measures what a caller would notice.
//!
//! It is the far end of callgate and shares nothing with it above tier 1: its user agent,
//! its media, its SRTP (`webrtc-srtp`) and its DTLS (`webrtc-dtls`) are its own, so that a bug in
//! one shows in the other.
//!
//! The path of a scenario: a file -> [`Scenario::read`] (`scenario/`) -> [`ScenarioRun`] (`run/`):
//! callers, callees (`listen.rs`) and bad actors, with one task per call for signalling only, which
//! drives a user agent (`user_agent/`, without I/O), and a few media threads (`engine/`) ->
//! [`RunReport`] -> [`html()`].
//!
//! A load is a scenario of one kind of caller: [`Config`] -> [`Load`] -> the same path ->
//! [`Report`]. Its caller has a [`Script`] (`talk.rs`), so that the media threads encode and decode
//! for it.
//!
//! A caller whose target is `https://..` is a browser: it posts its offer to a WHIP endpoint
//! (`http.rs`, `run/browser.rs`), checks the path and shakes hands by `webrtc-dtls` ([`browser`]);
//! its media then flows as everybody's.
//!
//! [`Registrations`] are people who are registered by SIP over WSS (`websocket.rs`) and do nothing.
//!
//! Not here: trickle ICE, TURN, video; requests go to the target's own address on the connection
//! opened for them, whatever Contact or Route says (as through an outbound proxy).

#![forbid(unsafe_code)]

pub mod browser;
mod cause;
mod config;
mod engine;
mod html;
mod http;
mod line;
mod listen;
mod load;
mod os;
mod progress;
mod registrations;
mod report;
mod run;
mod scenario;
mod script;
mod srtp;
mod talk;
mod tls;
mod user_agent;
pub mod wav;
mod websocket;

pub use cause::{Cause, Farewell, FarewellBy};
pub use config::{
    Authorities, Config, ConfigError, Identity, OfferMode, Protection, Target, Tls, Transport,
};
pub use html::html;
pub use load::{Cancellation, Load, LoadError};
pub use progress::Progress;
pub use registrations::{Held, Registrations, RegistrationsConfig, RegistrationsReport};
pub use report::{CallOutcome, CallReport, Ending, MediaTotals, Report, Saturation, Spread};
pub use run::{
    ActorReport, Judged, KindTotals, OwnLoad, RunReport, Sample, ScenarioRun, ScenarioSummary,
    Through, Verdict,
};
pub use scenario::{
    ActorKind, Comparison, Expectation, Measure, Scenario, SoundError, Speak,
    sounds as scenario_sounds,
};
pub use script::{Script, Step};
pub use tls::TlsError;

#[cfg(test)]
mod tests;
