//! The transport over real sockets on loopback, against clients made of tokio and tokio-rustls.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, and these helpers have none"
)]

mod carried;
mod datagrams;
mod dialling;
mod flood;
mod listeners;
#[allow(dead_code, reason = "the unit tests use the rest of it")]
mod name_server;
mod outgoing;
mod peers;
mod streams;
mod support;
mod tls;
