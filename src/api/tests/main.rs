//! The HTTPS port over real sockets on loopback, with a fake in place of the calls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, and these helpers have none"
)]

mod calls;
mod http_port;
mod idle;
mod sip_client;
mod support;
mod websockets;
mod whip_answers;
mod whip_sessions;
