//! A message as text for the ladder of a call, without secrets: credentials, media keys, ICE
//! passwords and dialled digits. It still names people; it is stored sealed.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::header::{Header, Name};
use crate::message::Message;

const MASK: &str = "[redacted]";
/// Room for a status line, and for what stands in place of a few short secrets.
const SPARE_BYTES: usize = 64;

/// The message as text, with line ends as `\n`. Masked are: credentials (Authorization,
/// Proxy-Authorization, passwords in URIs), keys in SDP (`a=crypto`, `a=key-mgmt`, `k=`, every
/// `inline:` wherever it stands), `a=ice-pwd`, and bodies that carry DTMF: those of INFO, and any
/// of a DTMF or KPML type. A body that is not text is shown by its size.
#[must_use]
pub fn redact(message: &Message) -> String {
    let fields = message.headers().iter().map(|it| it.written_name().len() + it.bytes().len() + 3);
    let size = SPARE_BYTES + fields.sum::<usize>() + message.body().len();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match message {
        Message::Request(request) => {
            let uri = without_password(request.uri.as_str());
            text.reserve_exact(size + uri.len());
            writeln!(text, "{} {uri} SIP/2.0", request.method)
        }
        Message::Response(response) => {
            text.reserve_exact(size);
            writeln!(text, "SIP/2.0 {} {}", response.status.code(), response.phrase())
        }
    };
    for header in message.headers() {
        redact_header(header, &mut text);
        text.push('\n');
    }
    text.push('\n');
    redact_body(message, &mut text);
    text
}

fn redact_header(header: &Header, text: &mut String) {
    // A name is a token, and so is ASCII.
    text.push_str(std::str::from_utf8(header.written_name()).unwrap_or_default());
    text.push_str(": ");
    if matches!(header.name(), Some(Name::Authorization | Name::ProxyAuthorization)) {
        text.push_str(MASK);
        return;
    }
    // User-to-User and unknown fields could carry keys of their own; `inline:` is masked anywhere.
    text.push_str(&without_inline_keys(&without_password(&header.lossy())));
}

fn redact_body(message: &Message, text: &mut String) {
    let body = message.body();
    if body.is_empty() {
        return;
    }
    if carries_digits(message) {
        text.push_str(MASK);
        text.push('\n');
    } else if let Ok(body) = std::str::from_utf8(body) {
        for line in body.lines() {
            redact_line(line, text);
            text.push('\n');
        }
    } else {
        let _ = writeln!(text, "[{} bytes]", body.len());
    }
}

/// INFO (RFC 6086, and `application/dtmf-relay` as vendors use it) and KPML (RFC 4730).
fn carries_digits(message: &Message) -> bool {
    let is_info = message.headers().cseq().is_ok_and(|it| it.method == crate::Method::Info)
        || matches!(message, Message::Request(request) if request.method == crate::Method::Info);
    let of_type = |header: &Header| {
        let text = header.lossy().to_ascii_lowercase();
        text.contains("dtmf") || text.contains("kpml") || text.contains("telephone-event")
    };
    is_info || message.headers().all(Name::ContentType).any(of_type)
}

fn redact_line(line: &str, text: &mut String) {
    const SECRET: [&str; 6] =
        ["a=key-mgmt:", "a=ice-pwd:", "k=", "Authorization:", "Proxy-Authorization:", "Signal="];
    let trimmed = line.trim_start();
    for prefix in SECRET {
        if trimmed.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix)) {
            text.push_str(&trimmed[..prefix.len()]);
            text.push_str(MASK);
            return;
        }
    }
    text.push_str(&without_inline_keys(line));
}

/// Masks what follows each `inline:` (RFC 4568 section 9.2) up to white space, a quote or a
/// semicolon, lifetime and MKI included.
fn without_inline_keys(line: &str) -> Cow<'_, str> {
    let mut text = String::new();
    let mut rest = line;
    while let Some(at) = after_colon(rest, &["inline"]) {
        let (before, key) = rest.split_at(at);
        text.push_str(before);
        text.push_str(MASK);
        let end = key.find([' ', '\t', ';', '"', '\'', '<', '\r']).unwrap_or(key.len());
        rest = &key[end..];
    }
    joined(text, rest)
}

/// Masks `password` in each `sip:user:password@` and its `sips:` twin (RFC 3261 section 19.1.1).
fn without_password(line: &str) -> Cow<'_, str> {
    let mut text = String::new();
    // From `kept` on nothing is in the text yet; up to `at` no password is left.
    let (mut kept, mut at) = (0, 0);
    while let Some(found) =
        line[at..].contains('@').then(|| after_colon(&line[at..], &["sip", "sips"])).flatten()
    {
        at += found;
        let rest = &line[at..];
        let end = rest.find(['@', ' ', '<', '>', '"', ',']).unwrap_or(rest.len());
        if rest[end..].starts_with('@')
            && let Some(colon) = rest[..end].find(':')
        {
            text.push_str(&line[kept..=at + colon]);
            text.push_str(MASK);
            at += end;
            kept = at;
        }
    }
    joined(text, &line[kept..])
}

/// What follows the first colon before which one of `words` stands.
fn after_colon(text: &str, words: &[&str]) -> Option<usize> {
    let ends_with = |before: &[u8], word: &str| {
        let start = before.len().checked_sub(word.len());
        start.is_some_and(|start| before[start..].eq_ignore_ascii_case(word.as_bytes()))
    };
    let bytes = text.as_bytes();
    let is_wanted = |at: &usize| words.iter().any(|word| ends_with(&bytes[..*at], word));
    let colons = bytes.iter().enumerate().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
    // A colon is ASCII, so that what follows it begins a character.
    colons.into_iter().find(is_wanted).map(|at| at + 1)
}

fn joined(text: String, rest: &str) -> Cow<'_, str> {
    if text.is_empty() { Cow::Borrowed(rest) } else { Cow::Owned(text + rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;
    use crate::method::Method;
    use crate::uri::Uri;

    fn request(method: Method, content_type: &str, body: &'static str) -> Message {
        let mut request = Request::new(method, Uri::parse("sip:bob:hunter2@h;x=1").unwrap())
            .with_body(content_type, body);
        request.headers.push(Name::Authorization, "Digest response=\"s3cret\"");
        request.headers.push(Name::ProxyAuthorization, "Digest response=\"s3cret\"");
        request.headers.push(Name::From, "\"A\" <sips:alice:s3cret@h>, <sip:b@h:5060>");
        request.headers.push(Name::Via, "SIP/2.0/TLS a;branch=z9hG4bK1");
        Message::Request(request)
    }

    #[test]
    fn keys_and_credentials_are_masked_and_the_rest_stays() {
        let sdp = "v=0\r\nk=base64:s3cret\r\n\
            a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:s3cretKEY+/=|2^20|1:4 KDR=0\r\n\
            A=CRYPTO:2 X INLINE:s3cret1;inline:s3cret2\r\n\
            a=ice-ufrag:abcd\r\na=ice-pwd:s3cret\r\na=key-mgmt:mikey s3cret\r\n";
        let text = redact(&request(Method::Invite, "application/sdp", sdp));
        assert!(!text.contains("s3cret") && !text.contains("hunter2"), "{text}");
        assert!(text.contains("inline:[redacted] KDR=0\n"));
        assert!(text.contains("a=ice-ufrag:abcd"));
        assert!(text.contains("sip:bob:[redacted]@h;x=1"));
        assert!(text.contains("<sip:b@h:5060>"));
        assert!(text.contains("branch=z9hG4bK1"));
        assert!(text.contains("Proxy-Authorization: [redacted]"));
    }

    #[test]
    fn dialled_digits_are_masked_whatever_carries_them() {
        for (method, content_type) in [
            (Method::Info, "application/dtmf-relay"),
            (Method::Info, "text/plain"),
            (Method::Notify, "application/kpml-response+xml"),
            (Method::Message, "Application/DTMF"),
        ] {
            let text = redact(&request(method, content_type, "Signal=4711\r\nDuration=160\r\n"));
            assert!(!text.contains("4711"), "{text}");
        }
    }

    #[test]
    fn a_binary_body_is_shown_by_its_size() {
        let Message::Request(mut request) = request(Method::Message, "image/png", "") else {
            panic!("a request")
        };
        request.body = bytes::Bytes::from_static(b"\xff\xfe\0");
        assert!(redact(&Message::Request(request)).ends_with("[3 bytes]\n"));
    }
}
