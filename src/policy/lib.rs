//! Trunk policy (DESIGN section 5): [file](mod@file) -> [compile](load) -> [`decide`] ->
//! [`explain`].
//!
//! [`load`] turns the texts of `policies/*.toml` into a [`Policy`], or into every error with its
//! place. [`admit`] answers before anything of a message is parsed, [`decide`] answers for an
//! INVITE, and [`explain`] shows how `decide` got there and the smallest change that would flip it.
//! All of it is pure: no file, clock or socket is touched here. Reading the files, watching them
//! and swapping the policy is `edge`; enforcing the answers is `call`, `transport` and `relay`.

#![forbid(unsafe_code)]

mod attempt;
mod change;
mod compile;
mod decide;
mod decision;
mod explain;
pub mod file;
mod flip;
mod identify;
mod matching;
mod numbers;
mod policy;
mod render;
mod schema;
mod statuses;
mod wire;
mod words;
mod zone;

pub use attempt::{Attempt, Observed, Offer, TrunkObserved};
pub use base::diagnostic::{Errors, Warning};
pub use change::Change;
pub use compile::load;
pub use decide::{ACCOUNTS_HOST, admit, decide};
pub use decision::{
    Accepted, Admission, Decision, Destination, Forbids, Note, Refusal, Target, Terms, Verdict,
};
pub use explain::{Explanation, RouteTried, Step, TrunkTried, explain};
pub use policy::{Expiring, Line, Peer, Policy, TrunkDigest, TrunkTls};
pub use schema::schema;
pub use statuses::Statuses;
pub use words::{
    Codec, DtlsLibrary, DtmfMethod, Exempted, Keep, Protection, RefusalManner, RingBack, Suite,
    Transfer, Transport,
};
pub use zone::{Listener, Zone};

#[cfg(test)]
mod tests;
