//! Finds the part of a message body that one looks for, within `multipart` bodies too (RFC 5621,
//! RFC 2046). Pure functions; what the part says is its reader's business.
//!
//! Not done here: decoding. A part with a Content-Encoding, or in base64 or quoted-printable
//! (which SIP does not need, being binary-safe), counts as one that is not understood.

use std::borrow::Cow;

use base::limit::{SIP_BODY_NESTING, SIP_BODY_PARTS};
use bytes::Bytes;

use crate::fields::MediaType;
use crate::header::{Header, Headers, Name};
use crate::lex::{is_blank, is_token, trim};
use crate::params::Params;
use crate::parse;

/// Why a body is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It has a part that must be understood and is not: 415.
    #[error("a part of the body is not understood")]
    Unsupported,
    /// Its type, its boundaries or the header fields of a part break their grammar: 400.
    #[error("malformed body")]
    Malformed,
    /// More parts than limit `sip.body_parts`, or nested deeper than `sip.body_nesting`: 413.
    #[error("too many parts in the body")]
    TooManyParts,
}

/// The content of type `wanted` (as `application/sdp`, in lower case) in the body of a message
/// with these header fields; `None` where there is none and nobody insists on what there is.
///
/// The first one counts, of `multipart/alternative` the last one (RFC 2046 section 5.1.4). A part
/// of another type is passed over where its Content-Disposition says `handling=optional`, and
/// fails the whole where it says `required` (RFC 3261 section 20.11). A part that says neither is
/// `required` by that section; but where it is only to be shown to somebody (`render`, which is
/// also what a missing Content-Disposition means) or is referred to from elsewhere
/// (`by-reference`), it is passed over next to what was wanted: an emergency call is not refused
/// for the location that came with it.
///
/// # Errors
/// See [`BodyError`].
pub fn find(headers: &Headers, body: &Bytes, wanted: &str) -> Result<Option<Bytes>, BodyError> {
    if body.is_empty() {
        return Ok(None);
    }
    let mut search = Search { wanted, parts_left: SIP_BODY_PARTS.get() };
    match search.look(headers, body, SIP_BODY_NESTING.get())? {
        Look::Found(content) => Ok(Some(content)),
        Look::Nothing => Ok(None),
        Look::Unknown | Look::Required => Err(BodyError::Unsupported),
    }
}

/// What a part amounts to.
enum Look {
    /// What was wanted.
    Found(Bytes),
    /// Something that may be passed over.
    Nothing,
    /// Something that does not say whether it may be.
    Unknown,
    /// Something that must not be.
    Required,
}

struct Search<'a> {
    wanted: &'a str,
    parts_left: usize,
}

impl Search<'_> {
    fn look(
        &mut self,
        headers: &Headers,
        content: &Bytes,
        depth: usize,
    ) -> Result<Look, BodyError> {
        let kind = headers.content_type().map_err(|_| BodyError::Malformed)?;
        let disposition = Disposition::of(headers);
        let otherwise = disposition.look();
        // RFC 2046 section 5.2: without a type it is text; RFC 3261 section 20.15 wants one.
        let Some(kind) = kind.filter(|_| !is_encoded(headers)) else { return Ok(otherwise) };
        if kind.essence == self.wanted && disposition.is_session() {
            return Ok(Look::Found(content.clone()));
        }
        let Some(subtype) = kind.essence.strip_prefix("multipart/") else { return Ok(otherwise) };
        let depth = depth.checked_sub(1).ok_or(BodyError::TooManyParts)?;
        let parts = self.parts(&kind, content)?;
        let look = if subtype == "alternative" {
            self.alternative(&parts, depth)?
        } else {
            // RFC 2046 section 5.1.3: a subtype that is not known is read as `mixed`.
            self.mixed(&parts, depth)?
        };
        Ok(match look {
            Look::Found(_) => look,
            // RFC 5621 section 8.2: who says that the whole is optional says it of all its parts.
            _ if matches!(otherwise, Look::Nothing) => Look::Nothing,
            _ => look,
        })
    }

    fn mixed(&mut self, parts: &[Part], depth: usize) -> Result<Look, BodyError> {
        let mut result = Look::Nothing;
        for part in parts {
            result = match (self.look(&part.headers, &part.content, depth)?, result) {
                (Look::Required, _) | (_, Look::Required) => Look::Required,
                (_, Look::Found(content)) | (Look::Found(content), _) => Look::Found(content),
                (Look::Unknown, _) | (_, Look::Unknown) => Look::Unknown,
                (Look::Nothing, Look::Nothing) => Look::Nothing,
            };
        }
        Ok(result)
    }

    /// The last alternative that is understood; the others insist on nothing.
    fn alternative(&mut self, parts: &[Part], depth: usize) -> Result<Look, BodyError> {
        for part in parts.iter().rev() {
            let look = self.look(&part.headers, &part.content, depth)?;
            if matches!(look, Look::Found(_)) {
                return Ok(look);
            }
        }
        Ok(Look::Required)
    }

    fn parts(&mut self, kind: &MediaType, content: &Bytes) -> Result<Vec<Part>, BodyError> {
        let boundary = kind.params.unquoted("boundary").filter(|it| is_boundary(it));
        let boundary = boundary.ok_or(BodyError::Malformed)?;
        let mut parts = Vec::new();
        let mut begin = None;
        let mut at = 0;
        loop {
            let line = content.get(at..).unwrap_or_default();
            if let Some(delimiter) = Delimiter::parse(line, &boundary) {
                if let Some(begin) = begin {
                    self.parts_left =
                        self.parts_left.checked_sub(1).ok_or(BodyError::TooManyParts)?;
                    parts.push(Part::parse(&content.slice(begin..at))?);
                }
                if delimiter.is_last {
                    return Ok(parts);
                }
                at += delimiter.length;
                begin = Some(at);
                continue;
            }
            // A body without its last boundary was cut, and what is missing may matter.
            let end = line.windows(2).position(|it| it == b"\r\n").ok_or(BodyError::Malformed)?;
            at += end + 2;
        }
    }
}

/// A part of a `multipart` body.
struct Part {
    headers: Headers,
    content: Bytes,
}

impl Part {
    /// `bytes` reach up to the next boundary, whose line break is not part of the content.
    fn parse(bytes: &Bytes) -> Result<Self, BodyError> {
        let (headers, begin) = parse::fields(bytes).map_err(|_| BodyError::Malformed)?;
        let end = bytes.len().saturating_sub(2).max(begin);
        Ok(Self { headers, content: bytes.slice(begin..end) })
    }
}

/// A line that separates parts (RFC 2046 section 5.1.1).
struct Delimiter {
    is_last: bool,
    /// With its line break.
    length: usize,
}

impl Delimiter {
    /// The delimiter that `text` begins with. What follows the boundary is looked at too, since
    /// it may be the beginning of a longer one.
    fn parse(text: &[u8], boundary: &str) -> Option<Self> {
        let rest = text.strip_prefix(b"--")?.strip_prefix(boundary.as_bytes())?;
        let (is_last, rest) = match rest.strip_prefix(b"--") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let padding = rest.iter().take_while(|byte| is_blank(**byte)).count();
        let rest = &rest[padding..];
        let is_ended = rest.starts_with(b"\r\n") || (is_last && rest.is_empty());
        let length = text.len() - rest.len() + 2;
        is_ended.then_some(Self { is_last, length })
    }
}

/// RFC 2046 section 5.1.1.
fn is_boundary(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    (1..=70).contains(&text.len()) && text.bytes().all(is_allowed) && !text.ends_with(' ')
}

/// Whether the content is not what it is until something is decoded.
fn is_encoded(headers: &Headers) -> bool {
    let is_plain = |header: &Header, plain: &[&str]| {
        header.text().is_some_and(|text| plain.iter().any(|it| it.eq_ignore_ascii_case(text)))
    };
    headers.all(Name::ContentEncoding).any(|it| !is_plain(it, &["identity"]))
        || headers
            .named("Content-Transfer-Encoding")
            .any(|it| !is_plain(it, &["7bit", "8bit", "binary"]))
}

/// What is to become of a part (RFC 3261 section 20.11).
struct Disposition<'a> {
    /// `session` and others, where the field is there and can be read.
    kind: Option<&'a str>,
    /// `optional`, `required`, or what else it says.
    handling: Option<String>,
}

impl<'a> Disposition<'a> {
    fn of(headers: &'a Headers) -> Self {
        let Some(header) = headers.first(Name::ContentDisposition) else {
            return Self { kind: None, handling: None };
        };
        let text = header.text().unwrap_or_default();
        let end = text.find(';').unwrap_or(text.len());
        let kind = trim(&text[..end]);
        // What cannot be read is neither a session nor to be passed over.
        let readable = Params::parse(&text[end..]).filter(|_| is_token(kind.as_bytes()));
        Self {
            kind: Some(kind),
            handling: match readable {
                Some(params) => params.unquoted("handling").map(Cow::into_owned),
                None => Some(String::new()),
            },
        }
    }

    fn is_session(&self) -> bool {
        self.kind.is_none_or(|kind| kind.eq_ignore_ascii_case("session"))
    }

    /// What the part amounts to where it is not understood.
    fn look(&self) -> Look {
        const SHOWN: [&str; 5] = ["render", "alert", "icon", "inline", "by-reference"];
        match (&self.handling, self.kind) {
            (Some(handling), _) if handling.eq_ignore_ascii_case("optional") => Look::Nothing,
            (Some(_), _) => Look::Required,
            (None, None) => Look::Unknown,
            (None, Some(kind)) if SHOWN.iter().any(|it| it.eq_ignore_ascii_case(kind)) => {
                Look::Unknown
            }
            (None, Some(_)) => Look::Required,
        }
    }
}

#[cfg(test)]
#[path = "body_tests.rs"]
mod tests;
