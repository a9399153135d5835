//! Where a SIP URI leads (RFC 3263): names to addresses, ports and transports, in the order in
//! which they are to be tried.
//!
//! Its own stub resolver asks recursive name servers over UDP and TCP and keeps what they say.
//! It does not walk from the root, validate DNSSEC (what proves a peer is its certificate) or
//! append search domains (a trunk's name is whole).

mod cache;
mod client;
mod files;
mod locate;
mod lookup;
mod message;

pub use client::NameServers;
pub use locate::{Destination, Target};
pub use lookup::ResolveError;

pub(crate) use locate::{Family, Targets, Wanted};
pub(crate) use lookup::Resolver;
