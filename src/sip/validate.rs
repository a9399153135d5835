//! The rules that make a message usable beyond its grammar (RFC 3261 section 8.1.1).
//!
//! Tolerated on purpose: no Max-Forwards and no From tag, as RFC 2543 peers send them.

use crate::fields::{HeaderError, HeaderFault};
use crate::header::{Headers, Name};
use crate::message::Message;
use crate::parse::{ParseError, ParseFault};

/// Checks the mandatory header fields, that those which may stand once do, and that CSeq names
/// the request's method.
///
/// # Errors
/// The first rule that is broken.
pub fn validate(message: &Message) -> Result<(), ParseError> {
    let headers = message.headers();
    headers.vias().map_err(ParseError::whole)?;
    headers.from().map_err(ParseError::whole)?;
    headers.to().map_err(ParseError::whole)?;
    headers.call_id().map_err(ParseError::whole)?;
    let cseq = headers.cseq().map_err(ParseError::whole)?;
    headers.content_length().map_err(ParseError::whole)?;
    for name in [Name::MaxForwards, Name::ContentType, Name::Expires, Name::SessionExpires] {
        at_most_once(headers, name)?;
    }
    if let Message::Request(request) = message {
        headers.max_forwards().map_err(ParseError::whole)?;
        headers.content_type().map_err(ParseError::whole)?;
        if cseq.method != request.method {
            return Err(ParseError::whole(ParseFault::CSeqMethod));
        }
    }
    Ok(())
}

fn at_most_once(headers: &Headers, name: Name) -> Result<(), ParseError> {
    if headers.all(name).nth(1).is_some() {
        return Err(ParseError::whole(HeaderError::new(name, HeaderFault::Repeated)));
    }
    Ok(())
}
