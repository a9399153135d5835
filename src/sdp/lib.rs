//! Tier 1, session descriptions: [parse](Session::parse) and print (`Display`)
//! (RFC 8866), and [offer/answer](mod@negotiate) (RFC 3264) as pure functions.
//!
//! This member opens no socket, resolves no name and does not read `a=crypto` values: keys are
//! the business of `rtp::sdes`, whose chosen line is handed to [`answer`] as text. Only one audio
//! line is ever negotiated; every other line is refused with port 0.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod audio;
mod bundle;
pub mod negotiate;
pub mod opaque;
pub mod parse;
pub mod session;
mod write;

pub use audio::{Codec, OpusParameters, PayloadFormat};
pub use negotiate::{
    AcceptError, Answer, AnswerError, ComfortNoise, Keying, Local, Negotiated, NegotiatedCodec,
    TelephoneEvent, accept_answer, answer, follow, offer, reoffer, with_direction,
};
pub use opaque::{Opaque, OpaqueCodec};
pub use parse::{ParseError, Problem};
pub use session::{
    Attribute, Bandwidth, Connection, Direction, Host, Media, MediaKind, Origin, Protocol, Session,
    Timing,
};
