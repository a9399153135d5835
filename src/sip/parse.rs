//! Bytes to messages. Pure functions; [`datagram`] and [`stream`] are the fuzzer's entry points.
//!
//! Lines end in CRLF. A bare CR or LF in the head is an error, not a line end: peers that read it
//! differently from us could be made to see other header fields than we do. NUL bytes in values
//! are kept, since a quoted pair may hold one (RFC 3261 section 25.1).

use std::ops::Range;

use base::Reason;
use base::limit::{
    SIP_BODY_BYTES, SIP_HEADER_BYTES, SIP_HEADERS, SIP_MESSAGE_BYTES, SIP_URI_BYTES,
};
use bytes::Bytes;

use crate::fields::{HeaderError, HeaderFault};
use crate::header::{Header, Headers, Name};
use crate::lex::{is_blank, is_token, trim_bytes};
use crate::message::{Message, Request, Response};
use crate::method::Method;
use crate::status::Status;
use crate::uri::{Uri, UriError};
use crate::validate::validate;

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseFault {
    /// Nothing but line ends.
    #[error("empty message")]
    Empty,
    /// The first line is neither a request line nor a status line.
    #[error("malformed start line")]
    StartLine,
    /// Another version than SIP/2.0.
    #[error("version not supported")]
    Version,
    /// The Request-URI is malformed.
    #[error("malformed Request-URI: {0}")]
    Uri(UriError),
    /// The Request-URI is over limit `sip.uri_bytes`.
    #[error("Request-URI too long")]
    UriTooLong,
    /// A header line without a colon or with a name that is no token.
    #[error("malformed header line")]
    HeaderLine,
    /// A CR or LF that is not part of a CRLF.
    #[error("bare CR or LF")]
    BareLineBreak,
    /// A header field is over limit `sip.header_bytes`.
    #[error("header field too long")]
    HeaderTooLong,
    /// More header fields than limit `sip.headers`.
    #[error("too many header fields")]
    TooManyHeaders,
    /// The message ends before the empty line.
    #[error("no empty line after the header fields")]
    Unterminated,
    /// Over limit `sip.message_bytes`.
    #[error("message too large")]
    MessageTooLarge,
    /// Over limit `sip.body_bytes`.
    #[error("body too large")]
    BodyTooLarge,
    /// Content-Length promises more than there is.
    #[error("body shorter than Content-Length")]
    BodyTruncated,
    /// A field is missing, repeated or malformed.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// CSeq names another method than the request line.
    #[error("CSeq method differs from the request's")]
    CSeqMethod,
}

/// What is wrong, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct ParseError {
    /// What.
    pub fault: ParseFault,
    /// The byte at which it shows, where it is at one place.
    pub offset: Option<usize>,
}

impl ParseError {
    pub(crate) const fn at(fault: ParseFault, offset: usize) -> Self {
        Self { fault, offset: Some(offset) }
    }

    pub(crate) fn whole(fault: impl Into<ParseFault>) -> Self {
        Self { fault: fault.into(), offset: None }
    }

    /// Whether a reader of the stream can no longer tell where the message ends: a header line
    /// that was not understood may have been its Content-Length.
    pub(crate) const fn is_about_framing(&self) -> bool {
        matches!(
            self.fault,
            ParseFault::HeaderLine
                | ParseFault::BareLineBreak
                | ParseFault::HeaderTooLong
                | ParseFault::TooManyHeaders
        )
    }

    /// The status to answer.
    #[must_use]
    pub const fn status(&self) -> Status {
        match self.fault {
            ParseFault::Version => Status::VERSION_NOT_SUPPORTED,
            ParseFault::UriTooLong => Status::REQUEST_URI_TOO_LONG,
            ParseFault::BodyTooLarge => Status::REQUEST_ENTITY_TOO_LARGE,
            ParseFault::MessageTooLarge
            | ParseFault::HeaderTooLong
            | ParseFault::TooManyHeaders => Status::MESSAGE_TOO_LARGE,
            _ => Status::BAD_REQUEST,
        }
    }

    /// The catalogued outcome.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self.fault {
            ParseFault::Version => Reason::VersionNotSupported,
            ParseFault::UriTooLong => Reason::UriTooLong,
            ParseFault::BodyTooLarge => Reason::BodyTooLarge,
            ParseFault::MessageTooLarge
            | ParseFault::HeaderTooLong
            | ParseFault::TooManyHeaders => Reason::MessageTooLarge,
            _ => Reason::Malformed,
        }
    }
}

/// As much of a bad request as could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartialRequest {
    /// The method.
    pub method: Method,
    /// The header lines that could be read, in order.
    pub headers: Headers,
}

/// A message that is not taken, with what is needed to say so to its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct ParseFailure {
    /// What is wrong.
    pub error: ParseError,
    /// What could be read, where it was a request.
    pub partial: Option<Box<PartialRequest>>,
}

impl ParseFailure {
    pub(crate) fn new(error: ParseError, method: Option<Method>, headers: Headers) -> Self {
        let partial = method.map(|method| Box::new(PartialRequest { method, headers }));
        Self { error, partial }
    }

    /// The stateless answer; its phrase says what is wrong. `None` where none may be sent (to a
    /// response or an ACK) or where too little could be read for it to find its way: Via, From,
    /// To, Call-ID and CSeq are needed.
    #[must_use]
    pub fn response(&self, tag: &str) -> Option<Response> {
        let PartialRequest { method, headers } = self.partial.as_deref()?;
        let readable = headers.top_via().is_ok()
            && [Name::From, Name::To, Name::CallId, Name::CSeq].iter().all(|it| headers.has(*it));
        (readable && *method != Method::Ack).then(|| {
            let status = self.error.status();
            let response = Response::to_head(method, headers, status, Some(tag));
            if status == Status::BAD_REQUEST {
                return response.with_phrase(&self.error.to_string());
            }
            response
        })
    }
}

/// Parses and validates a whole datagram. Bytes beyond Content-Length are dropped; without
/// Content-Length the body reaches to the end (RFC 3261 section 18.3).
///
/// # Errors
/// Says what is wrong, which status to answer, and holds what an answer needs.
pub fn datagram(bytes: &Bytes) -> Result<Message, ParseFailure> {
    let message = syntax(bytes, Delivery::Datagram)?;
    validated(message)
}

/// Parses and validates one message cut from a stream by [`crate::Framer`], where Content-Length
/// is mandatory (RFC 3261 section 18.3).
///
/// # Errors
/// As [`datagram`].
pub fn stream(bytes: &Bytes) -> Result<Message, ParseFailure> {
    let message = syntax(bytes, Delivery::Stream)?;
    validated(message)
}

fn validated(message: Message) -> Result<Message, ParseFailure> {
    let Err(error) = validate(&message) else { return Ok(message) };
    Err(match message {
        Message::Request(it) => ParseFailure::new(error, Some(it.method), it.headers),
        Message::Response(it) => ParseFailure::new(error, None, it.headers),
    })
}

/// Whether a datagram is a keep-alive: nothing but line ends (RFC 5626 section 3.5.1), or empty.
#[must_use]
pub fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0))
}

/// How the bytes arrived: it decides what a missing Content-Length means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The datagram ends where the message ends.
    Datagram,
    /// Only Content-Length tells where the message ends.
    Stream,
}

/// Parses without [`crate::validate`]: the grammar, Content-Length and the limits only.
///
/// # Errors
/// As [`datagram`].
pub fn syntax(bytes: &Bytes, delivery: Delivery) -> Result<Message, ParseFailure> {
    let mut head = Head::parse(bytes);
    let body = match head.fault {
        Some(error) => Err(error),
        None if bytes.len() > SIP_MESSAGE_BYTES.get() => {
            Err(ParseError::whole(ParseFault::MessageTooLarge))
        }
        None => body_range(&head, bytes.len(), delivery),
    };
    match (body, head.start.take()) {
        (Ok(body), Some(Start::Request(method, Some(uri)))) => {
            let body = bytes.slice(body);
            Ok(Message::Request(Request { method, uri, headers: head.headers, body }))
        }
        (Ok(body), Some(Start::Response(status, phrase))) => {
            let body = bytes.slice(body);
            Ok(Message::Response(Response::parsed(status, phrase, head.headers, body)))
        }
        (Ok(_), start) => {
            let error = ParseError::at(ParseFault::StartLine, 0);
            Err(ParseFailure::new(error, start.and_then(Start::method), head.headers))
        }
        (Err(error), start) => {
            Err(ParseFailure::new(error, start.and_then(Start::method), head.headers))
        }
    }
}

fn body_range(head: &Head, end: usize, delivery: Delivery) -> Result<Range<usize>, ParseError> {
    let start = head.end.ok_or(ParseError::at(ParseFault::Unterminated, end))?;
    let available = end.saturating_sub(start);
    let length = match (head.headers.content_length().map_err(ParseError::whole)?, delivery) {
        (Some(length), _) => length,
        (None, Delivery::Datagram) => available,
        (None, Delivery::Stream) => {
            let missing = HeaderError::new(Name::ContentLength, HeaderFault::Missing);
            return Err(ParseError::whole(missing));
        }
    };
    if length > SIP_BODY_BYTES.get() {
        return Err(ParseError::at(ParseFault::BodyTooLarge, start));
    }
    if length > available {
        return Err(ParseError::at(ParseFault::BodyTruncated, end));
    }
    Ok(start..start + length)
}

enum Start {
    /// The URI is missing where it was malformed.
    Request(Method, Option<Uri>),
    Response(Status, Bytes),
}

impl Start {
    fn method(self) -> Option<Method> {
        match self {
            Self::Request(method, _) => Some(method),
            Self::Response(..) => None,
        }
    }
}

/// Room for the fields of an ordinary message.
const USUAL_FIELDS: usize = 16;

/// A head read to its end in spite of faults, of which the first is kept.
pub(crate) struct Head {
    start: Option<Start>,
    pub(crate) headers: Headers,
    /// Where the body begins.
    end: Option<usize>,
    pub(crate) fault: Option<ParseError>,
}

impl Head {
    pub(crate) fn parse(bytes: &Bytes) -> Self {
        let mut head = Self { start: None, headers: Headers::new(), end: None, fault: None };
        let mut at = 0;
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
        }
        if at == bytes.len() {
            head.note(ParseFault::Empty, 0);
            return head;
        }
        let Some(line) = Line::at(bytes, at) else {
            head.note(ParseFault::Unterminated, bytes.len());
            return head;
        };
        head.read_start(bytes, &line);
        at = line.next;
        let mut fields = Vec::with_capacity(USUAL_FIELDS);
        loop {
            let Some(line) = Line::at(bytes, at) else {
                head.note(ParseFault::Unterminated, bytes.len());
                break;
            };
            at = line.next;
            if line.text.is_empty() {
                head.end = Some(at);
                break;
            }
            match line.field(bytes) {
                _ if fields.len() >= SIP_HEADERS.get() => {
                    head.note(ParseFault::TooManyHeaders, line.text.start);
                }
                Ok(header) => fields.push(header),
                Err(error) => head.note(error.0, error.1),
            }
        }
        head.headers = fields.into_iter().collect();
        head
    }

    pub(crate) fn into_failure(self, error: ParseError) -> ParseFailure {
        ParseFailure::new(error, self.start.and_then(Start::method), self.headers)
    }

    fn note(&mut self, fault: ParseFault, offset: usize) {
        self.fault.get_or_insert(ParseError::at(fault, offset));
    }

    fn read_start(&mut self, bytes: &Bytes, line: &Line) {
        let (text, at) = (&bytes[line.text.clone()], line.text.start);
        if line.is_broken {
            self.note(ParseFault::BareLineBreak, at);
        } else if line.is_folded {
            self.note(ParseFault::StartLine, at);
        } else if text.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(b"SIP/")) {
            match status_line(bytes, line.text.clone()) {
                Ok(start) => self.start = Some(start),
                Err(fault) => self.note(fault, at),
            }
        } else {
            let (start, fault) = request_line(text);
            self.start = start;
            if let Some((fault, offset)) = fault {
                self.note(fault, at + offset);
            }
        }
    }
}

/// Header fields up to the empty line or the end, and where they end: those of a body's part.
pub(crate) fn fields(bytes: &Bytes) -> Result<(Headers, usize), ParseFault> {
    let mut fields = Vec::new();
    let mut at = 0;
    while let Some(line) = Line::at(bytes, at) {
        at = line.next;
        if line.text.is_empty() {
            break;
        }
        if fields.len() >= SIP_HEADERS.get() {
            return Err(ParseFault::TooManyHeaders);
        }
        fields.push(line.field(bytes).map_err(|(fault, _)| fault)?);
    }
    Ok((fields.into_iter().collect(), at))
}

type Fault = (ParseFault, usize);

/// Returns what could be read beside what is wrong: an answer to a bad Request-URI needs the
/// method.
fn request_line(line: &[u8]) -> (Option<Start>, Option<Fault>) {
    let Some(first) = line.iter().position(|byte| *byte == b' ') else {
        return (None, Some((ParseFault::StartLine, 0)));
    };
    let Some(method) = std::str::from_utf8(&line[..first]).ok().and_then(Method::parse) else {
        return (None, Some((ParseFault::StartLine, 0)));
    };
    let last = line.iter().rposition(|byte| *byte == b' ').filter(|last| *last > first);
    let Some(last) = last else {
        return (Some(Start::Request(method, None)), Some((ParseFault::StartLine, first)));
    };
    let (uri, version) = (&line[first + 1..last], &line[last + 1..]);
    let fault = if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        let named = version.get(..4).is_some_and(|it| it.eq_ignore_ascii_case(b"SIP/"));
        Some((if named { ParseFault::Version } else { ParseFault::StartLine }, last + 1))
    } else if uri.len() > SIP_URI_BYTES.get() {
        Some((ParseFault::UriTooLong, first + 1))
    } else {
        None
    };
    if fault.is_some() {
        return (Some(Start::Request(method, None)), fault);
    }
    match std::str::from_utf8(uri).map_err(|_| UriError::Byte).and_then(Uri::parse) {
        Ok(uri) => (Some(Start::Request(method, Some(uri))), None),
        Err(error) => {
            (Some(Start::Request(method, None)), Some((ParseFault::Uri(error), first + 1)))
        }
    }
}

fn status_line(bytes: &Bytes, line: Range<usize>) -> Result<Start, ParseFault> {
    let text = &bytes[line.clone()];
    if text.len() < 11 || text[7] != b' ' {
        return Err(ParseFault::StartLine);
    }
    if !text[..7].eq_ignore_ascii_case(b"SIP/2.0") {
        return Err(ParseFault::Version);
    }
    let code = std::str::from_utf8(&text[8..11]).ok().and_then(crate::lex::number);
    let status = code.and_then(Status::new).ok_or(ParseFault::StartLine)?;
    // The space before an empty phrase is mandatory and often forgotten.
    let phrase = match text.get(11) {
        None => Bytes::new(),
        Some(b' ') => bytes.slice(line.start + 12..line.end),
        Some(_) => return Err(ParseFault::StartLine),
    };
    Ok(Start::Response(status, phrase))
}

/// A logical line: a physical one and those folded into it (RFC 3261 section 7.3.1).
struct Line {
    /// The text without its last line end; line ends of folds are in it.
    text: Range<usize>,
    /// Where the next line begins.
    next: usize,
    is_folded: bool,
    /// Whether a bare CR or LF is in it.
    is_broken: bool,
}

impl Line {
    fn at(bytes: &[u8], start: usize) -> Option<Self> {
        let mut line = Self { text: start..start, next: start, is_folded: false, is_broken: false };
        loop {
            let begin = line.next;
            let end = begin + bytes[begin..].iter().position(|byte| *byte == b'\n')?;
            let has_cr = end > begin && bytes[end - 1] == b'\r';
            let text_end = if has_cr { end - 1 } else { end };
            line.is_broken |= !has_cr || bytes[begin..text_end].contains(&b'\r');
            line.text.end = text_end;
            line.next = end + 1;
            let is_continued = bytes.get(line.next).is_some_and(|byte| is_blank(*byte));
            if line.text.is_empty() || !is_continued {
                return Some(line);
            }
            line.is_folded = true;
        }
    }

    fn field(&self, bytes: &Bytes) -> Result<Header, Fault> {
        let (text, at) = (&bytes[self.text.clone()], self.text.start);
        if self.is_broken {
            return Err((ParseFault::BareLineBreak, at));
        }
        if text.len() > SIP_HEADER_BYTES.get() {
            return Err((ParseFault::HeaderTooLong, at));
        }
        let colon = text.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or((ParseFault::HeaderLine, at))?;
        // RFC 3261 section 7.3.1: white space may stand before the colon.
        let name = text[..colon].trim_ascii_end();
        if !is_token(name) {
            return Err((ParseFault::HeaderLine, at));
        }
        let name = bytes.slice(at..at + name.len());
        if self.is_folded {
            return Ok(Header::parsed(name, unfold(&text[colon + 1..])));
        }
        let value = trim_bytes(&text[colon + 1..]);
        Ok(Header::parsed(name, bytes.slice_ref(value)))
    }
}

/// Line ends and the white space around them become one space (RFC 3261 section 7.3.1).
fn unfold(value: &[u8]) -> Bytes {
    let mut unfolded = Vec::with_capacity(value.len());
    for part in value.split(|byte| *byte == b'\n') {
        let part = trim_bytes(part.strip_suffix(b"\r").unwrap_or(part));
        if !part.is_empty() && !unfolded.is_empty() {
            unfolded.push(b' ');
        }
        unfolded.extend_from_slice(part);
    }
    unfolded.into()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
