//! Tier 4, signalling both ways: UDP, TCP and TLS listeners, the connections that they accept and
//! those that we open, and the certificates of both.
//!
//! [`start`] opens what a [`TransportConfig`] lists and hands every whole SIP message to an
//! [`Inlet`], with the [`Flow`] that it came by; answers go back through
//! [`TransportHandle::send`]. What outsiders control is bounded by [`Bounds`].
//!
//! [`TransportHandle::dial`] finds out where a trunk's URI leads (RFC 3263), proves who is there
//! (RFC 5922) and fails over; [`Health`] remembers which trunks that worked for.
//!
//! [`TransportHandle::open_web`] accepts for HTTPS under the same gate and certificate, and
//! [`TransportHandle::carry`] makes a flow of what came that way.
//!
//! It does not read SIP beyond the ends of messages, decide who may call, or speak HTTP.

#![forbid(unsafe_code)]

mod addresses;
mod carry;
pub mod certificates;
mod config;
mod connection;
mod dial;
mod expiry;
mod flow;
mod gate;
mod handle;
mod health;
mod line;
mod listen;
mod proof;
mod random;
mod resolve;
mod stream;
mod task;
mod tls;
mod udp;
mod web;

#[cfg(test)]
#[path = "tests/name_server.rs"]
mod name_server;

pub use carry::{Carried, CarriedPeer};
pub use config::{Bounds, Ingress, TlsFiles, TransportConfig, Untrusted};
pub use dial::{Dial, DialError, Dialling, Failure, Reached};
pub use expiry::{Expiry, certifies, expiry_of};
pub use flow::{Flow, HandedOn, Inlet, Transport};
pub use handle::{OpenError, SendError, StartError, TransportHandle, start};
pub use health::Health;
pub use line::{Line, LoadedLine};
pub use resolve::{Destination, NameServers, ResolveError, Target};
pub use sip::FlowId;
pub use tls::CertificatesError;
pub use web::{Serving, Streams, Web, WebStream};
