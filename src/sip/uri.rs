//! URIs: `sip`, `sips`, `tel`, `urn` and whatever else stands in a Request-URI, kept byte for
//! byte. Parts are read on demand out of the one text.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use crate::lex::number;

/// What a URI begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// `sip:` (RFC 3261).
    Sip,
    /// `sips:` (RFC 3261).
    Sips,
    /// `tel:` (RFC 3966).
    Tel,
    /// `urn:`, for instance `urn:service:sos` (RFC 5031).
    Urn,
    /// Any other; [`Uri::scheme_str`] has its name.
    Other,
}

/// Where a URI or a Via points.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// A domain name, as written.
    Name(Box<str>),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, in brackets on the wire.
    V6(Ipv6Addr),
}

impl Host {
    /// Parses a host as it stands in a URI: an IPv6 address is in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(inner) = text.strip_prefix('[') {
            return inner.strip_suffix(']')?.parse().ok().map(Self::V6);
        }
        if let Ok(address) = text.parse() {
            return Some(Self::V4(address));
        }
        // Underscores are no part of a host name, but they are common in private networks.
        let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let is_name = !text.is_empty() && text.len() <= 255 && text.bytes().all(valid);
        is_name.then(|| Self::Name(text.into()))
    }

    /// The address, where it is one and not a name.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(_) => None,
            Self::V4(address) => Some(IpAddr::V4(*address)),
            Self::V6(address) => Some(IpAddr::V6(*address)),
        }
    }

    /// Whether both are the same host; names are compared without case.
    #[must_use]
    pub fn equivalent(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a.eq_ignore_ascii_case(b),
            _ => self == other,
        }
    }
}

impl From<IpAddr> for Host {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => Self::V6(address),
        }
    }
}

impl fmt::Display for Host {
    /// Writes an IPv6 address in brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::V4(address) => write!(f, "{address}"),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// Parses `host[:port]`, tolerating white space around the colon as a Via may have it.
pub(crate) fn parse_host_port(text: &str) -> Option<(Host, Option<u16>)> {
    let text = crate::lex::trim(text);
    let split = if text.starts_with('[') { text.find(']')? + 1 } else { 0 };
    match text[split..].find(':') {
        None => Some((Host::parse(text)?, None)),
        Some(colon) => {
            let host = Host::parse(crate::lex::trim(&text[..split + colon]))?;
            let port = number::<u16>(crate::lex::trim(&text[split + colon + 1..]))?;
            (port != 0).then_some((host, Some(port)))
        }
    }
}

/// Why a text is no URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// No scheme, or not a valid one.
    #[error("the URI has no valid scheme")]
    Scheme,
    /// A byte that no URI may hold unescaped.
    #[error("the URI holds a byte that must be escaped")]
    Byte,
    /// An empty user before `@`, or more than one `@`.
    #[error("the URI's user part is malformed")]
    User,
    /// Neither a name nor an address, or a bad port.
    #[error("the URI's host or port is malformed")]
    Host,
    /// A parameter or header without a name.
    #[error("the URI's parameters are malformed")]
    Params,
    /// Longer than any header line may be (64 KB).
    #[error("the URI is too long")]
    TooLong,
}

type Span = Range<u16>;

/// A URI. `==` compares the text; [`Uri::equivalent`] follows RFC 3261 section 19.1.4.
#[derive(Clone)]
pub struct Uri {
    text: Arc<str>,
    scheme: Scheme,
    /// The user, the subscriber number of `tel:`, or all after the scheme of other URIs.
    user: Option<Span>,
    password: Option<Span>,
    host: Option<Host>,
    port: Option<u16>,
    /// From the first `;` on, without it; empty where there are none.
    params: Span,
    /// From the `?` on, without it.
    headers: Option<Span>,
}

impl Uri {
    /// Parses a whole URI.
    ///
    /// # Errors
    /// Says which part is malformed.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let end = u16::try_from(text.len()).map_err(|_| UriError::TooLong)?;
        let colon = text.find(':').ok_or(UriError::Scheme)?;
        let scheme = parse_scheme(&text[..colon]).ok_or(UriError::Scheme)?;
        // RFC 3261 section 25.1: none of these is reserved or unreserved; letting them through
        // would end the Request-URI or the name-addr that the URI is written into.
        if text.bytes().any(|b| b <= b' ' || b == 0x7f || matches!(b, b'<' | b'>' | b'"')) {
            return Err(UriError::Byte);
        }
        let rest = colon + 1;
        let empty = end..end;
        let mut uri = Self {
            text: text.into(),
            scheme,
            user: None,
            password: None,
            host: None,
            port: None,
            params: empty,
            headers: None,
        };
        match scheme {
            Scheme::Sip | Scheme::Sips => uri.parse_sip(rest)?,
            Scheme::Tel => uri.parse_tel(rest)?,
            Scheme::Urn | Scheme::Other if rest == text.len() => return Err(UriError::User),
            Scheme::Urn | Scheme::Other => uri.user = Some(span(rest, text.len())),
        }
        Ok(uri)
    }

    fn parse_sip(&mut self, start: usize) -> Result<(), UriError> {
        let text = Arc::clone(&self.text);
        let mut host_start = start;
        // `;`, `?` and `/` may stand in a user part, `@` may not: so it comes first.
        if let Some(at) = text[start..].find('@').map(|at| start + at) {
            let user_end = text[start..at].find(':').map_or(at, |colon| start + colon);
            if user_end == start || text[at + 1..].contains('@') {
                return Err(UriError::User);
            }
            self.user = Some(span(start, user_end));
            self.password = (user_end < at).then(|| span(user_end + 1, at));
            host_start = at + 1;
        }
        let mut end = text.len();
        if let Some(mark) = text[host_start..].find('?').map(|mark| host_start + mark) {
            self.headers = Some(span(mark + 1, end));
            end = mark;
        }
        if let Some(mark) = text[host_start..end].find(';').map(|mark| host_start + mark) {
            self.params = span(mark + 1, end);
            end = mark;
            if text[mark + 1..usize::from(self.params.end)].split(';').any(is_nameless) {
                return Err(UriError::Params);
            }
        }
        let (host, port) = parse_host_port(&text[host_start..end]).ok_or(UriError::Host)?;
        (self.host, self.port) = (Some(host), port);
        Ok(())
    }

    fn parse_tel(&mut self, start: usize) -> Result<(), UriError> {
        let text = Arc::clone(&self.text);
        let end = text[start..].find(';').map_or(text.len(), |mark| start + mark);
        if end == start {
            return Err(UriError::User);
        }
        self.user = Some(span(start, end));
        if end < text.len() {
            self.params = span(end + 1, text.len());
            if text[end + 1..].split(';').any(is_nameless) {
                return Err(UriError::Params);
            }
        }
        Ok(())
    }

    /// A `sip:` URI; what `user` may not hold unescaped is escaped.
    #[must_use]
    pub fn sip(user: Option<&str>, host: &Host, port: Option<u16>) -> Self {
        Self::build(Scheme::Sip, user, host, port)
    }

    /// A `sips:` URI; see [`Uri::sip`].
    #[must_use]
    pub fn sips(user: Option<&str>, host: &Host, port: Option<u16>) -> Self {
        Self::build(Scheme::Sips, user, host, port)
    }

    fn build(scheme: Scheme, user: Option<&str>, host: &Host, port: Option<u16>) -> Self {
        let mut text = String::from(if scheme == Scheme::Sips { "sips:" } else { "sip:" });
        let start = text.len();
        let user = user.filter(|user| !user.is_empty()).map(|user| {
            escape(user, b"&=+$,;?/", &mut text);
            let user = span(start, text.len());
            text.push('@');
            user
        });
        // A `Host` made by hand may hold anything; what is written is a host.
        let host = Host::parse(&host.to_string()).unwrap_or_else(|| Host::Name("invalid".into()));
        text.push_str(&host.to_string());
        if let Some(port) = port.filter(|port| *port != 0) {
            text.push_str(&format!(":{port}"));
        }
        let params = span(text.len(), text.len());
        Self {
            text: text.into(),
            scheme,
            user,
            password: None,
            host: Some(host),
            port: port.filter(|port| *port != 0),
            params,
            headers: None,
        }
    }

    /// The same URI with this parameter at the end, or with the one of this name replaced.
    /// Bytes that a parameter may not hold are escaped. URIs without parameters
    /// (`urn:` and unknown schemes) stay as they are, and so does one that would grow beyond 64 KB.
    #[must_use]
    pub fn with_param(&self, name: &str, value: Option<&str>) -> Self {
        if matches!(self.scheme, Scheme::Urn | Scheme::Other) || name.is_empty() {
            return self.clone();
        }
        let mut text = self.head_without_param(name);
        text.push(';');
        escape(name, b"[]/:&+$", &mut text);
        if let Some(value) = value {
            text.push('=');
            escape(value, b"[]/:&+$", &mut text);
        }
        text.push_str(&self.text[self.head_end()..]);
        Self::parse(&text).unwrap_or_else(|_| self.clone())
    }

    /// The same URI without the parameters of this name.
    #[must_use]
    pub fn without_param(&self, name: &str) -> Self {
        let text = self.head_without_param(name) + &self.text[self.head_end()..];
        Self::parse(&text).unwrap_or_else(|_| self.clone())
    }

    /// The same URI without its headers: they have no place in a Request-URI
    /// (RFC 3261 section 19.1.1).
    #[must_use]
    pub fn without_headers(&self) -> Self {
        Self::parse(&self.text[..self.head_end()]).unwrap_or_else(|_| self.clone())
    }

    /// Where the headers begin, with their `?`.
    fn head_end(&self) -> usize {
        self.headers.as_ref().map_or(self.text.len(), |span| usize::from(span.start) - 1)
    }

    /// All before the headers, without the parameters of this name.
    fn head_without_param(&self, name: &str) -> String {
        if self.params.is_empty() {
            return self.text[..self.head_end()].to_string();
        }
        let mut text = self.text[..usize::from(self.params.start) - 1].to_string();
        for (param, whole) in self.raw_params() {
            if !param.eq_ignore_ascii_case(name) {
                text.push(';');
                text.push_str(whole);
            }
        }
        text
    }

    /// The whole URI as it was parsed or built.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The scheme as written.
    #[must_use]
    pub fn scheme_str(&self) -> &str {
        self.text.split(':').next().unwrap_or_default()
    }

    /// The user part as written; of `tel:` the number, of `urn:` and others all after the scheme.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.clone().map(|span| self.slice(span))
    }

    /// The user part with its escapes resolved; what is then not UTF-8 becomes U+FFFD.
    #[must_use]
    pub fn user_unescaped(&self) -> Option<Cow<'_, str>> {
        self.user().map(unescape)
    }

    /// The password (deprecated by RFC 3261 section 19.1.1; a secret).
    #[must_use]
    pub fn password(&self) -> Option<&str> {
        self.password.clone().map(|span| self.slice(span))
    }

    /// The host of a `sip:` or `sips:` URI.
    #[must_use]
    pub const fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The port, where one is written.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// The parameters in order, as written: name, and value where there is a `=`.
    pub fn params(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        self.raw_params().map(|(name, whole)| (name, whole.split_once('=').map(|(_, value)| value)))
    }

    /// The value of a parameter, empty for a flag; names are compared without case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params().find(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, v)| v.unwrap_or(""))
    }

    /// Whether the parameter is there.
    #[must_use]
    pub fn has_param(&self, name: &str) -> bool {
        self.param(name).is_some()
    }

    /// Whether the `lr` parameter marks a loose router (RFC 3261 section 19.1.1).
    #[must_use]
    pub fn is_loose_router(&self) -> bool {
        self.has_param("lr")
    }

    /// The headers after `?`, in order, as written.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = self.headers.clone().map_or("", |span| self.slice(span));
        text.split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
    }

    /// The telephone number that the URI dials, without visual separators
    /// (RFC 3966 section 3) and parameters within the user part: `+`, digits, `*`, `#`, `A`-`D`.
    /// `None` where the user part is no number.
    #[must_use]
    pub fn number(&self) -> Option<String> {
        if matches!(self.scheme, Scheme::Urn | Scheme::Other) {
            return None;
        }
        let user = self.user_unescaped()?;
        let dialled: String = user
            .split(';')
            .next()?
            .chars()
            .filter(|character| !matches!(character, '-' | '.' | '(' | ')' | ' '))
            .collect();
        let digits = dialled.strip_prefix('+').unwrap_or(&dialled);
        let is_dialled = |b: u8| b.is_ascii_digit() || matches!(b, b'*' | b'#' | b'A'..=b'D');
        let is_number = digits.bytes().all(is_dialled)
            && digits.bytes().any(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#'));
        is_number.then_some(dialled)
    }

    /// Whether both mean the same under RFC 3261 section 19.1.4. This is no equivalence
    /// relation: a parameter that only one of them has is mostly ignored.
    #[must_use]
    pub fn equivalent(&self, other: &Self) -> bool {
        if self.scheme != other.scheme {
            return false;
        }
        match (&self.host, &other.host) {
            (Some(ours), Some(theirs)) => {
                same_escaped(self.user(), other.user(), false)
                    && same_escaped(self.password(), other.password(), false)
                    && ours.equivalent(theirs)
                    && self.port == other.port
                    && self.params_match(other)
                    && other.params_match(self)
                    && self.sorted_headers() == other.sorted_headers()
            }
            _ if self.scheme == Scheme::Tel => {
                // RFC 3966 section 4: without visual separators; parameters as a set.
                let number = |it: &Self| {
                    it.number().unwrap_or_else(|| it.user().unwrap_or_default().to_lowercase())
                };
                number(self) == number(other) && self.sorted_params() == other.sorted_params()
            }
            _ => self.text.eq_ignore_ascii_case(&other.text),
        }
    }

    fn params_match(&self, other: &Self) -> bool {
        // RFC 3261 section 19.1.4: these count even where only one URI has them.
        const SIGNIFICANT: [&str; 5] = ["user", "ttl", "method", "maddr", "transport"];
        self.params().all(|(name, value)| match other.param(name) {
            Some(theirs) => same_escaped(Some(value.unwrap_or("")), Some(theirs), true),
            None => !SIGNIFICANT.iter().any(|it| it.eq_ignore_ascii_case(name)),
        })
    }

    fn sorted_params(&self) -> Vec<(String, String)> {
        let lower = |(name, value): (&str, Option<&str>)| {
            (name.to_ascii_lowercase(), value.unwrap_or("").to_ascii_lowercase())
        };
        let mut params: Vec<_> = self.params().map(lower).collect();
        params.sort();
        params
    }

    fn sorted_headers(&self) -> Vec<(String, String)> {
        let plain =
            |(name, value): (&str, &str)| (name.to_ascii_lowercase(), unescape(value).into_owned());
        let mut headers: Vec<_> = self.headers().map(plain).collect();
        headers.sort();
        headers
    }

    fn raw_params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.slice(self.params.clone())
            .split(';')
            .filter(|part| !part.is_empty())
            .map(|part| (part.split('=').next().unwrap_or(part), part))
    }

    fn slice(&self, span: Span) -> &str {
        &self.text[usize::from(span.start)..usize::from(span.end)]
    }
}

impl PartialEq for Uri {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Uri {}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Uri {
    /// Prints no more than the scheme and the host: the user part identifies a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:[user]", self.scheme_str())?;
        self.host.iter().try_for_each(|host| write!(f, "@{host}"))
    }
}

impl FromStr for Uri {
    type Err = UriError;
    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

fn is_nameless(param: &str) -> bool {
    param.is_empty() || param.starts_with('=')
}

/// Both offsets are below 65 536: the text was measured, or is cut from a measured one.
fn span(start: usize, end: usize) -> Span {
    u16::try_from(start).unwrap_or(u16::MAX)..u16::try_from(end).unwrap_or(u16::MAX)
}

fn parse_scheme(text: &str) -> Option<Scheme> {
    let mut bytes = text.bytes();
    let valid = bytes.next()?.is_ascii_alphabetic()
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
    let known =
        [("sip", Scheme::Sip), ("sips", Scheme::Sips), ("tel", Scheme::Tel), ("urn", Scheme::Urn)];
    valid.then(|| {
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map_or(Scheme::Other, |(_, scheme)| *scheme)
    })
}

/// Appends `text` with everything but unreserved characters and `also` percent-escaped.
fn escape(text: &str, also: &[u8], out: &mut String) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
            || also.contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
}

/// `text` with its escapes resolved (RFC 3261 section 25.1, `escaped`); what is then not UTF-8
/// becomes U+FFFD.
#[must_use]
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = match (first, hex_pair(tail)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                &tail[2..]
            }
            _ => {
                bytes.push(*first);
                tail
            }
        };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// Compares parts after resolving their escapes (RFC 3261 section 19.1.4).
fn same_escaped(ours: Option<&str>, theirs: Option<&str>, ignore_case: bool) -> bool {
    match (ours.map(unescape), theirs.map(unescape)) {
        (None, None) => true,
        (Some(a), Some(b)) if ignore_case => a.eq_ignore_ascii_case(&b),
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

#[cfg(test)]
#[path = "uri_tests.rs"]
mod tests;
