//! Tier 1, SIP without I/O: lossless messages, stream framing, transactions and dialogs.
//!
//! The path of a message: [`Framer`] or a datagram -> [`parse`] -> [`Transactions::receive`] ->
//! the owner's call logic with its [`Dialog`]s -> [`Transactions::respond`] or
//! [`Transactions::request`] -> [`TransactionOutput::Send`].
//!
//! This member opens no socket, resolves no name (RFC 3263), authenticates nobody and knows
//! nothing of SDP. `rsip` supplies methods and status codes ([`Method::to_rsip`],
//! `rsip::StatusCode::from(Status)`); everything on the wire is read and written here, because
//! `rsip` refuses or loses common input.

#![forbid(unsafe_code)]

mod ack_wait;
pub mod body;
pub mod dialog;
pub mod digest;
pub mod fields;
mod frame;
pub mod header;
pub mod identity;
pub mod ids;
mod lex;
pub mod message;
pub mod method;
pub mod name_addr;
pub mod params;
pub mod parse;
mod redact;
pub mod session_timer;
pub mod status;
pub mod transaction;
pub mod uri;
mod validate;
pub mod via;
mod write;

pub use ack_wait::{AckWait, AckWaitStep};
pub use body::BodyError;
pub use dialog::{Dialog, DialogError, DialogId, OutOfOrder};
pub use fields::{CSeq, Contacts, HeaderError, HeaderFault, MediaType};
pub use frame::{Frame, Framer, Opened, PING, PONG};
pub use header::{Header, Headers, Name};
pub use message::{Message, Request, Response};
pub use method::Method;
pub use name_addr::NameAddr;
pub use params::Params;
pub use parse::{ParseError, ParseFailure, ParseFault};
pub use redact::redact;
pub use session_timer::{SessionAgreement, SessionTerms, SessionTimer};
pub use status::Status;
pub use transaction::{
    Absorbed, ClientKey, FlowId, Received, RequestError, RespondError, ServerGone, ServerKey,
    TransactionKey, TransactionOutput, Transactions,
};
pub use uri::{Host, Scheme, Uri};
pub use validate::validate;
pub use via::Via;

#[cfg(test)]
mod prop_tests;
