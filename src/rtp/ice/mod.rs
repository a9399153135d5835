//! ICE as the edge speaks it: [`stun`] messages and the [`lite`] agent of a leg, which answers
//! checks and never sends any (RFC 8445 section 2.5).

pub mod lite;
pub mod stun;

pub use lite::{Change, Credentials, Lite, MalformedCredentials, Refused, Route, Taken};
