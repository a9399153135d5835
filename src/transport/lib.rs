//! Tier 4, signalling both ways: UDP, TCP and TLS listeners, the connections that they accept and
//! those that we open, and the certificates of both.
//!
//! [`start`] opens what a [`TransportConfig`] lists and hands every whole SIP message to an
//! [`Inlet`], with the [`Flow`] that it came by; answers go back through
//! [`TransportHandle::send`]. What outsiders control is bounded by [`Bounds`].
//!
//! It does not read SIP beyond the ends of messages, resolve names, decide who may call, or speak
//! WebSocket.

#![forbid(unsafe_code)]

pub mod certificates;
mod config;
mod connection;
mod dial;
mod flow;
mod gate;
mod handle;
mod listen;
mod stream;
mod task;
mod tls;
mod udp;

pub use config::{Bounds, Ingress, TlsFiles, TransportConfig, Untrusted};
pub use flow::{Flow, Inlet, Transport};
pub use handle::{OpenError, SendError, StartError, TransportHandle, start};
pub use sip::FlowId;
pub use tls::CertificatesError;
