//! Messages to bytes. Every part was checked or cleaned when it was parsed or built, so that
//! nothing here can break a line; Content-Length always fits the body.

use bytes::{BufMut, Bytes, BytesMut};

use crate::header::{Headers, Name};
use crate::lex::number;
use crate::message::{Message, Request, Response};

/// Room for a status line, and for Content-Length.
const SPARE: usize = 64;

/// How long a message becomes beside its start line, or a little more.
fn room(headers: &Headers, body: &[u8]) -> usize {
    let fields = headers.iter().map(|it| it.written_name().len() + it.bytes().len() + 4);
    SPARE + fields.sum::<usize>() + body.len()
}

impl Request {
    /// The request on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out =
            BytesMut::with_capacity(room(&self.headers, &self.body) + self.uri.as_str().len());
        for part in [self.method.as_str(), " ", self.uri.as_str(), " SIP/2.0\r\n"] {
            out.put_slice(part.as_bytes());
        }
        write_rest(&self.headers, &self.body, &mut out);
        out.freeze()
    }
}

impl Response {
    /// The response on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(room(&self.headers, &self.body));
        out.put_slice(format!("SIP/2.0 {} ", self.status.code()).as_bytes());
        out.put_slice(self.phrase_bytes());
        out.put_slice(b"\r\n");
        write_rest(&self.headers, &self.body, &mut out);
        out.freeze()
    }
}

impl Message {
    /// The message on the wire.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Request(request) => request.to_bytes(),
            Self::Response(response) => response.to_bytes(),
        }
    }
}

fn write_rest(headers: &Headers, body: &[u8], out: &mut BytesMut) {
    let mut has_length = false;
    for header in headers {
        let is_length = header.name() == Some(Name::ContentLength);
        if is_length && has_length {
            continue;
        }
        out.put_slice(header.written_name());
        out.put_slice(b": ");
        // A length that is right stays as it was written.
        if is_length && header.text().and_then(number) != Some(body.len()) {
            out.put_slice(body.len().to_string().as_bytes());
        } else {
            out.put_slice(header.bytes());
        }
        out.put_slice(b"\r\n");
        has_length |= is_length;
    }
    if !has_length {
        out.put_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.put_slice(b"\r\n");
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::status::Status;
    use crate::uri::Uri;

    #[test]
    fn the_length_is_right_whatever_the_headers_say() {
        let mut request = Request::new(Method::Info, Uri::parse("sip:h").unwrap())
            .with_body("application/octet-stream", &b"\0\xff\r\n"[..]);
        request.headers.push(Name::ContentLength, "999");
        request.headers.push(Name::ContentLength, "5");
        let expected: &[u8] = b"INFO sip:h SIP/2.0\r\nContent-Type: application/octet-stream\r\n\
            Content-Length: 4\r\n\r\n\0\xff\r\n";
        assert_eq!(request.to_bytes(), expected);
    }

    #[test]
    fn a_phrase_cannot_break_the_line() {
        let response = Response::new(Status::BAD_REQUEST).with_phrase("no\r\nVia: x");
        let expected: &[u8] = b"SIP/2.0 400 no  Via: x\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(response.to_bytes(), expected);
    }
}
