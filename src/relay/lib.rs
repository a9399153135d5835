//! Tier 4, the data plane: workers, sockets, the path of a packet and SRTP. It knows nothing of
//! SIP or policy: a call hands it a plan ([`media`]) and gets events back.
//!
//! The path of a packet is the list of files in [`path`]: receive, demux, unprotect, latch,
//! transform, tap, protect, send. A [`path::Session`] is a synchronous step function over a
//! [`path::Driver`], so that tests and the simulated world run what production runs. A [`Relay`]
//! is a set of worker threads that own sessions and sockets; beside them one thread runs DTLS
//! handshakes ([`dtls`]), one carries browsers that have TCP only (`ice_tcp`), and one finds the
//! sessions of browsers that share a port (`shared`). Nothing here writes a live audio frame to a
//! disk or a log.

#![deny(unsafe_code)]

pub mod driver;
pub mod dtls;
pub mod listen;
pub mod path;
pub mod srtp;

mod handle;
mod ice_tcp;
mod late;
mod ports;
mod rate;
mod shared;
mod socket;
mod worker;

pub use handle::{Full, Relay, RelayConfig, RelayCounters, RelayHandle, SharedPortConfig};
pub use ice_tcp::IceTcpCounters;
pub use shared::SharedPortCounters;
pub use worker::{Command, EventSink};

#[cfg(test)]
mod speech;
