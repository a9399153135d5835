//! Cuts a byte stream (TCP, TLS) into messages and keep-alives (RFC 3261 section 18.3, RFC 5626
//! section 3.5.1). It looks at line ends and Content-Length only; [`crate::parse::stream`] does
//! the rest.

use std::fmt;

use base::limit::{
    SIP_BODY_BYTES, SIP_HEADER_BYTES, SIP_HEADERS, SIP_MESSAGE_BYTES, SIP_URI_BYTES,
};
use bytes::{Buf, Bytes, BytesMut};

use crate::fields::{HeaderError, HeaderFault};
use crate::header::Name;
use crate::lex::{is_token, number, trim_bytes};
use crate::parse::{Head, ParseError, ParseFailure, ParseFault};

/// Who opened the connection. Keep-alives come from the one who did (RFC 5626 section 4.4.1), so
/// that this tells what a lone CRLF means without waiting for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The peer: a double CRLF is a ping.
    ByPeer,
    /// We: each CRLF is a pong.
    ByUs,
}

/// What the stream held.
#[derive(Clone, PartialEq, Eq)]
pub enum Frame {
    /// One message, for [`crate::parse::stream`].
    Message(Bytes),
    /// The peer's keep-alive: answer with [`PONG`].
    Ping,
    /// The answer to a keep-alive of ours.
    Pong,
}

impl fmt::Debug for Frame {
    /// Prints no content: it holds keys and people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(bytes) => write!(f, "Message([{} bytes])", bytes.len()),
            Self::Ping => f.write_str("Ping"),
            Self::Pong => f.write_str("Pong"),
        }
    }
}

/// What answers a ping.
pub const PONG: &[u8] = b"\r\n";
/// The keep-alive to send on a connection of ours.
pub const PING: &[u8] = b"\r\n\r\n";

/// The framing of one connection.
pub struct Framer {
    opened: Opened,
    buffer: BytesMut,
    /// Bytes of the buffer already searched for the end of the head.
    scanned: usize,
    /// Where the line begins that the search is in.
    line: usize,
    /// The size of the message once its head is complete.
    size: Option<usize>,
    failure: Option<ParseFailure>,
}

impl fmt::Debug for Framer {
    /// Prints no content: it holds keys and people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Framer {{ opened: {:?}, buffered: {} }}", self.opened, self.buffer.len())
    }
}

impl Framer {
    /// A framer for a new connection.
    #[must_use]
    pub fn new(opened: Opened) -> Self {
        let buffer = BytesMut::new();
        Self { opened, buffer, scanned: 0, line: 0, size: None, failure: None }
    }

    /// Takes what was read. Call [`Framer::poll_message`] until it is empty before the next read,
    /// so that the buffer holds no more than one message and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failure.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Whether a message has begun and not ended: the time for it is limited
    /// (limit `transport.message_ms`).
    #[must_use]
    pub fn is_mid_message(&self) -> bool {
        // Line ends between messages are keep-alives or strays (RFC 3261 section 7.5).
        !PING.starts_with(&self.buffer)
    }

    /// The next frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// The stream cannot be followed any longer: answer as the failure says, then close. It is
    /// returned again from then on.
    pub fn poll_message(&mut self) -> Result<Option<Frame>, ParseFailure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        if let Some(frame) = self.take_line_ends() {
            return Ok(Some(frame));
        }
        let size = match self.size {
            Some(size) => size,
            None => match self.find_size() {
                Ok(Some(size)) => size,
                Ok(None) => return Ok(None),
                Err(error) => return Err(self.fail(error)),
            },
        };
        self.size = Some(size);
        if self.buffer.len() < size {
            return Ok(None);
        }
        let message = self.buffer.split_to(size).freeze();
        (self.scanned, self.line, self.size) = (0, 0, None);
        Ok(Some(Frame::Message(message)))
    }

    /// Takes CRLFs before a message (RFC 3261 section 7.5 has them ignored).
    fn take_line_ends(&mut self) -> Option<Frame> {
        while self.scanned == 0 && self.buffer.starts_with(b"\r\n") {
            match self.opened {
                Opened::ByUs => {
                    self.buffer.advance(2);
                    return Some(Frame::Pong);
                }
                Opened::ByPeer if self.buffer.starts_with(PING) => {
                    self.buffer.advance(4);
                    return Some(Frame::Ping);
                }
                // The second half of a ping may be on its way.
                Opened::ByPeer if PING.starts_with(&self.buffer) => return None,
                Opened::ByPeer => self.buffer.advance(2),
            }
        }
        None
    }

    /// Searches for the end of the head from where it stopped the last time.
    fn find_size(&mut self) -> Result<Option<usize>, ParseError> {
        if PING.starts_with(&self.buffer) {
            return Ok(None);
        }
        while let Some(found) = self.buffer[self.scanned..].iter().position(|b| *b == b'\n') {
            let end = self.scanned + found;
            self.scanned = end + 1;
            if end == self.line || self.buffer[end - 1] != b'\r' {
                return Err(ParseError::at(ParseFault::BareLineBreak, end));
            }
            self.check_line(end - 1)?;
            if end - 1 == self.line {
                return self.size_with_head(end + 1).map(Some);
            }
            self.line = end + 1;
        }
        self.scanned = self.buffer.len();
        self.check_line(self.scanned)?;
        if self.buffer.len() > SIP_MESSAGE_BYTES.get() {
            return Err(ParseError::whole(ParseFault::MessageTooLarge));
        }
        Ok(None)
    }

    fn check_line(&self, end: usize) -> Result<(), ParseError> {
        let length = end - self.line;
        // A start line is a method, a Request-URI and a version.
        if self.line == 0 && length > SIP_URI_BYTES.get() + 128 {
            return Err(ParseError::at(ParseFault::UriTooLong, 0));
        }
        if length > SIP_HEADER_BYTES.get() {
            return Err(ParseError::at(ParseFault::HeaderTooLong, self.line));
        }
        Ok(())
    }

    fn size_with_head(&self, head: usize) -> Result<usize, ParseError> {
        if head > SIP_MESSAGE_BYTES.get() {
            return Err(ParseError::whole(ParseFault::MessageTooLarge));
        }
        let length = match plain_length(&self.buffer[..head]) {
            Some(length) => length,
            None => self.length_in(head)?,
        };
        if length > SIP_BODY_BYTES.get() {
            return Err(ParseError::at(ParseFault::BodyTooLarge, head));
        }
        let size = head + length;
        if size > SIP_MESSAGE_BYTES.get() {
            return Err(ParseError::whole(ParseFault::MessageTooLarge));
        }
        Ok(size)
    }

    /// The length that a head says, or what is wrong with it.
    fn length_in(&self, head: usize) -> Result<usize, ParseError> {
        let parsed = Head::parse(&Bytes::copy_from_slice(&self.buffer[..head]));
        let missing = HeaderError { name: Name::ContentLength, fault: HeaderFault::Missing };
        // A head with a fault in it may hide its true length from us: nothing after it is safe.
        if let Some(error) = parsed.fault.filter(|error| error.is_about_framing()) {
            return Err(error);
        }
        let length = parsed.headers.content_length().map_err(ParseError::whole)?;
        length.ok_or(ParseError::whole(missing))
    }

    fn fail(&mut self, error: ParseError) -> ParseFailure {
        let head = Bytes::copy_from_slice(&self.buffer[..self.scanned]);
        self.buffer = BytesMut::new();
        let failure = Head::parse(&head).into_failure(error);
        self.failure = Some(failure.clone());
        failure
    }
}

/// The length that an ordinary head says: one whose lines are whole, tell a name each, and of which
/// one is Content-Length. Whatever else a head may hold is for [`Head`] to judge.
fn plain_length(head: &[u8]) -> Option<usize> {
    let mut lines = head.strip_suffix(b"\r\n\r\n")?.split(|byte| *byte == b'\n');
    let whole = |line: &[u8]| !line.is_empty() && !line.contains(&b'\r');
    let start = lines.next()?;
    whole(start.strip_suffix(b"\r").unwrap_or(start)).then_some(())?;
    let (mut found, mut count) = (None, 0);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = line[..colon].trim_ascii_end();
        count += 1;
        // A folded line begins with white space, which is no token.
        if !is_token(name) || !whole(line) || count > SIP_HEADERS.get() {
            return None;
        }
        let is_length = matches!(name, b"l" | b"L") || name.eq_ignore_ascii_case(b"Content-Length");
        if is_length {
            let value = std::str::from_utf8(trim_bytes(&line[colon + 1..])).ok()?;
            if found.replace(number(value)?).is_some() {
                return None;
            }
        }
    }
    found
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
