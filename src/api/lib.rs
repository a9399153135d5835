//! Tier 5, what people and browsers reach by HTTPS on one port: WHIP (RFC 9725), SIP over WebSocket
//! (RFC 7118), keys and tokens, and the console.
//!
//! The HTTP member makes no decision about calls: a browser's session is carried to the front door
//! as a flow of SIP like any other ([`transport::TransportHandle::carry`]), so that policy, call
//! and media logic are the same for browsers and carriers. What it adds is proof: no message comes
//! from here whose sender has not shown a key, a token or a password.

#![forbid(unsafe_code)]

pub mod auth;
pub mod console;
mod cors;
mod fields;
mod guard;
pub mod keys;
pub mod live;
mod problem;
mod random;
mod rates;
mod redirect;
pub mod series;
mod server;
mod strict;
mod tasks;
mod tokens;
mod whip;
mod wss;

pub use cors::{NotAnOrigin, Origin, Origins};
pub use guard::{Events, Guard, Peer, SharedClock};
pub use problem::Problem;
pub use redirect::Challenges;
pub use server::{Api, ApiConfig, ApiError, IceLogin, IceServer, Parts};
pub use wss::door::{Door, House, Verdict, Why};
pub use wss::{Binding, Registrar};
