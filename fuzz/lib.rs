//! The fuzz targets, each a function of bytes: what it reads of them, and what must hold
//! whatever they are. A broken promise is a panic.
//!
//! `fuzz/run.sh` gives them to libFuzzer; the tests here give them the files of
//! `fuzz/corpus/<target>`, so that an input that once failed stays tried in every ordinary test
//! run. Nothing here depends on libFuzzer unless the feature `libfuzzer` is on.

#![forbid(unsafe_code)]

mod dtls_guard;
mod ice_agent;
mod policy_file;
mod rtp_packets;
mod sdp_session;
mod sip_wire;
mod srtp_differential;
mod websocket_sip;

pub use dtls_guard::dtls_guard;
pub use ice_agent::stun;
pub use policy_file::policy_file;
pub use rtp_packets::rtp;
pub use sdp_session::sdp;
pub use sip_wire::{sip_framing, sip_message};
pub use srtp_differential::srtp_differential;
pub use websocket_sip::websocket_sip;

#[cfg(test)]
mod replay_tests;
