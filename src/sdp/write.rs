//! Printing a description in the order of RFC 8866 section 5, with CRLF line ends.

use alloc::string::String;
use core::fmt::{Display, Formatter, Result, Write as _};

use crate::session::{Attribute, Bandwidth, Connection, Host, Media, Session};

/// Room that an ordinary description fits in.
const SESSION_BYTES: usize = 512;

impl Session {
    /// The description as it goes into a body; the same as its `Display`, with fewer allocations.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(SESSION_BYTES);
        // Writing to a String cannot fail.
        let _ = write!(text, "{self}");
        text
    }
}

impl Display for Session {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let origin = &self.origin;
        write!(f, "v=0\r\no={} {} ", origin.username, origin.session_id)?;
        write!(f, "{} IN {}\r\ns={}\r\n", origin.version, WithFamily(&origin.host), self.name)?;
        lines(f, 'i', &self.information)?;
        lines(f, 'u', &self.uri)?;
        lines(f, 'e', &self.emails)?;
        lines(f, 'p', &self.phones)?;
        lines(f, 'c', &self.connection)?;
        lines(f, 'b', &self.bandwidths)?;
        for timing in &self.times {
            write!(f, "t={} {}\r\n", timing.start, timing.stop)?;
            lines(f, 'r', &timing.repeats)?;
        }
        lines(f, 'z', &self.zones)?;
        lines(f, 'a', &self.attributes)?;
        self.media.iter().try_for_each(|media| media.fmt(f))
    }
}

impl Display for Media {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "m={} {}", self.kind.name(), self.port)?;
        if let Some(count) = self.port_count {
            write!(f, "/{count}")?;
        }
        write!(f, " {}", self.protocol.name())?;
        self.formats.iter().try_for_each(|format| write!(f, " {format}"))?;
        f.write_str("\r\n")?;
        lines(f, 'i', &self.information)?;
        lines(f, 'c', &self.connection)?;
        lines(f, 'b', &self.bandwidths)?;
        lines(f, 'a', &self.attributes)
    }
}

impl Display for Connection {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "IN {}", WithFamily(&self.host))?;
        self.suffix.iter().try_for_each(|suffix| write!(f, "/{suffix}"))
    }
}

impl Display for Bandwidth {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl Display for Attribute {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(&self.name)?;
        self.value.iter().try_for_each(|value| write!(f, ":{value}"))
    }
}

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { name, .. } => f.write_str(name),
        }
    }
}

struct WithFamily<'a>(&'a Host);

impl Display for WithFamily<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{} {}", if self.0.is_ipv6() { "IP6" } else { "IP4" }, self.0)
    }
}

fn lines<'a, T: Display + 'a>(
    f: &mut Formatter<'_>,
    letter: char,
    values: impl IntoIterator<Item = &'a T>,
) -> Result {
    values.into_iter().try_for_each(|value| write!(f, "{letter}={value}\r\n"))
}
