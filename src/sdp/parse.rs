//! Reading a description (RFC 8866 section 9): tolerant where peers are sloppy and nothing hangs
//! on it (line ends, missing `s=` and `t=`, lines out of order within a section), strict where a
//! misunderstanding would send media to the wrong place.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use base::Limit;
use base::limit::{SDP_ATTRIBUTES, SDP_BYTES, SDP_FORMATS, SDP_MEDIA_LINES};

use crate::session::{
    Attribute, Bandwidth, Connection, Host, Media, MediaKind, Origin, Protocol, Session, Timing,
};

/// Why a text is no session description.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct ParseError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The text or one of its sections is larger than the limit of that name.
    #[error("over limit {0}")]
    OverLimit(&'static str),
    /// The line holds a NUL or a bare CR.
    #[error("holds a control character")]
    ControlCharacter,
    /// The line is not `x=...`.
    #[error("not of the form x=...")]
    NotALine,
    /// The first line is not `v=0`.
    #[error("must begin with v=0")]
    Version,
    /// A line that every description has is missing.
    #[error("{0}= is missing")]
    Missing(char),
    /// The line's value does not have the form that its letter demands.
    #[error("malformed {0}=")]
    Malformed(char),
    /// The line may not stand here, or not twice.
    #[error("{0}= out of place")]
    OutOfPlace(char),
}

impl Session {
    /// Reads a description. Bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// The first line that breaks the grammar where it matters, or a limit `sdp.*` exceeded.
    pub fn parse(text: &[u8]) -> Result<Self, ParseError> {
        if text.len() > SDP_BYTES.get() {
            return Err(ParseError { line: 1, problem: over(&SDP_BYTES) });
        }
        let text = String::from_utf8_lossy(text);
        let mut reader = Reader::default();
        let mut number = 0;
        for line in text.trim_end_matches(['\r', '\n', '\0']).split('\n') {
            number += 1;
            let line = line.strip_suffix('\r').unwrap_or(line);
            reader.on_line(line).map_err(|problem| ParseError { line: number, problem })?;
        }
        reader.finish().map_err(|problem| ParseError { line: number, problem })
    }
}

/// What has been read so far.
#[derive(Default)]
struct Reader {
    has_version: bool,
    origin: Option<Origin>,
    name: Option<String>,
    information: Option<String>,
    uri: Option<String>,
    emails: Vec<String>,
    phones: Vec<String>,
    connection: Option<Connection>,
    bandwidths: Vec<Bandwidth>,
    times: Vec<Timing>,
    zones: Option<String>,
    attributes: Vec<Attribute>,
    media: Vec<Media>,
}

impl Reader {
    fn on_line(&mut self, line: &str) -> Result<(), Problem> {
        if line.contains(['\0', '\r']) {
            return Err(Problem::ControlCharacter);
        }
        let mut letters = line.chars();
        let (letter, value) = match (letters.next(), letters.next()) {
            (Some(letter), Some('=')) if letter.is_ascii_lowercase() => (letter, letters.as_str()),
            _ => return Err(Problem::NotALine),
        };
        if !self.has_version {
            self.has_version = letter == 'v' && value.trim() == "0";
            return if self.has_version { Ok(()) } else { Err(Problem::Version) };
        }
        match letter {
            'm' => {
                if self.media.len() >= SDP_MEDIA_LINES.get() {
                    return Err(over(&SDP_MEDIA_LINES));
                }
                self.media.push(parse_media(value)?);
            }
            // RFC 8866 section 5.12: obsolete, and to be discarded.
            'k' => {}
            _ if self.media.is_empty() => self.on_session_line(letter, value)?,
            _ => self.on_media_line(letter, value)?,
        }
        Ok(())
    }

    fn on_session_line(&mut self, letter: char, value: &str) -> Result<(), Problem> {
        let malformed = Problem::Malformed(letter);
        match letter {
            'o' => set(&mut self.origin, parse_origin(value).ok_or(malformed)?, letter),
            // RFC 8866 section 5.3: a session without a name says "-".
            's' => {
                let name = if value.trim().is_empty() { "-" } else { value };
                set(&mut self.name, name.to_string(), letter)
            }
            'i' => set(&mut self.information, value.to_string(), letter),
            'u' => set(&mut self.uri, value.to_string(), letter),
            'e' => push(&mut self.emails, value.to_string()),
            'p' => push(&mut self.phones, value.to_string()),
            'c' => set(&mut self.connection, parse_connection(value).ok_or(malformed)?, letter),
            'b' => push(&mut self.bandwidths, parse_bandwidth(value).ok_or(malformed)?),
            't' => push(&mut self.times, parse_timing(value).ok_or(malformed)?),
            'r' => {
                let timing = self.times.last_mut().ok_or(Problem::OutOfPlace(letter))?;
                push(&mut timing.repeats, value.to_string())
            }
            'z' => set(&mut self.zones, value.to_string(), letter),
            'a' => push(&mut self.attributes, parse_attribute(value).ok_or(malformed)?),
            'v' => Err(Problem::OutOfPlace(letter)),
            // RFC 8866 section 5 would have the whole description ignored; no peer means that.
            _ => Ok(()),
        }
    }

    fn on_media_line(&mut self, letter: char, value: &str) -> Result<(), Problem> {
        let Some(media) = self.media.last_mut() else { return Ok(()) };
        let malformed = Problem::Malformed(letter);
        match letter {
            'i' => set(&mut media.information, value.to_string(), letter),
            'c' => {
                let connection = parse_connection(value).ok_or(malformed)?;
                media.connection.get_or_insert(connection);
                Ok(())
            }
            'b' => push(&mut media.bandwidths, parse_bandwidth(value).ok_or(malformed)?),
            'a' => push(&mut media.attributes, parse_attribute(value).ok_or(malformed)?),
            // Session lines behind the first "m=" would change what came before.
            'v' | 'o' | 's' | 't' => Err(Problem::OutOfPlace(letter)),
            _ => Ok(()),
        }
    }

    fn finish(self) -> Result<Session, Problem> {
        if !self.has_version {
            return Err(Problem::Version);
        }
        let times = match self.times {
            times if times.is_empty() => [Timing { start: 0, stop: 0, repeats: Vec::new() }].into(),
            times => times,
        };
        Ok(Session {
            origin: self.origin.ok_or(Problem::Missing('o'))?,
            name: self.name.unwrap_or_else(|| "-".into()),
            information: self.information,
            uri: self.uri,
            emails: self.emails,
            phones: self.phones,
            connection: self.connection,
            bandwidths: self.bandwidths,
            times,
            zones: self.zones,
            attributes: self.attributes,
            media: self.media,
        })
    }
}

fn over(limit: &Limit) -> Problem {
    Problem::OverLimit(limit.name)
}

fn set<T>(place: &mut Option<T>, value: T, letter: char) -> Result<(), Problem> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Problem::OutOfPlace(letter)),
    }
}

/// All repeatable lines of a section share the bound of its attributes.
fn push<T>(list: &mut Vec<T>, value: T) -> Result<(), Problem> {
    if list.len() >= SDP_ATTRIBUTES.get() {
        return Err(over(&SDP_ATTRIBUTES));
    }
    list.push(value);
    Ok(())
}

fn parse_origin(value: &str) -> Option<Origin> {
    let mut words = value.split_ascii_whitespace();
    // A user name with spaces is against the grammar but sent: the last five words are the rest.
    let count = words.clone().count();
    let mut username = String::new();
    for word in words.by_ref().take(count.checked_sub(5)?) {
        if !username.is_empty() {
            username.push('_');
        }
        username.push_str(word);
    }
    if username.is_empty() {
        username.push('-');
    }
    let (session_id, version) = (words.next()?, words.next()?);
    if words.next()? != "IN" {
        return None;
    }
    // Nothing is ever sent to the address in "o=", so that any text will do.
    let (family, host) = (words.next()?, words.next()?);
    let host = Host::parse(family, host).unwrap_or(Host::Ip(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
    Some(Origin { username, session_id: session_id.into(), version: version.into(), host })
}

fn parse_connection(value: &str) -> Option<Connection> {
    let mut words = value.split_ascii_whitespace();
    let (network, family, address) = (words.next()?, words.next()?, words.next()?);
    if network != "IN" || words.next().is_some() {
        return None;
    }
    let (host, suffix) = match address.split_once('/') {
        Some((host, suffix)) => (host, Some(suffix.to_string())),
        None => (address, None),
    };
    Some(Connection { host: Host::parse(family, host)?, suffix })
}

fn parse_bandwidth(value: &str) -> Option<Bandwidth> {
    let (kind, value) = value.split_once(':')?;
    let kind = kind.trim();
    if kind.is_empty() || kind.contains(char::is_whitespace) {
        return None;
    }
    Some(Bandwidth { kind: kind.into(), value: parse_number(value.trim())? })
}

fn parse_timing(value: &str) -> Option<Timing> {
    let mut words = value.split_ascii_whitespace();
    let (start, stop) = (parse_number(words.next()?)?, parse_number(words.next()?)?);
    words.next().is_none().then_some(Timing { start, stop, repeats: Vec::new() })
}

fn parse_attribute(value: &str) -> Option<Attribute> {
    let (name, value) = match value.split_once(':') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (value, None),
    };
    let name = name.trim();
    let is_token = !name.is_empty() && !name.contains(char::is_whitespace);
    is_token.then(|| Attribute { name: name.into(), value })
}

fn parse_media(value: &str) -> Result<Media, Problem> {
    let mut words = value.split_ascii_whitespace();
    let (Some(kind), Some(port), Some(protocol)) = (words.next(), words.next(), words.next())
    else {
        return Err(Problem::Malformed('m'));
    };
    let (port, port_count) = match port.split_once('/') {
        Some((port, count)) => (port, Some(count)),
        None => (port, None),
    };
    let number = |text: &str| {
        parse_number(text).and_then(|it| u16::try_from(it).ok()).ok_or(Problem::Malformed('m'))
    };
    let formats: Vec<String> = words.take(SDP_FORMATS.get() + 1).map(ToString::to_string).collect();
    if formats.len() > SDP_FORMATS.get() {
        return Err(over(&SDP_FORMATS));
    }
    Ok(Media {
        kind: MediaKind::from_name(kind),
        port: number(port)?,
        port_count: port_count.map(number).transpose()?,
        protocol: Protocol::from_name(protocol),
        formats,
        information: None,
        connection: None,
        bandwidths: Vec::new(),
        attributes: Vec::new(),
    })
}

/// A number of digits only: `str::parse` would take a sign.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok())?
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
