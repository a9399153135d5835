//! Via: the way back of a response (RFC 3261 section 18.2, RFC 3581).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::lex::{is_token, number, trim};
use crate::params::Params;
use crate::uri::{Host, parse_host_port};

/// How a branch begins that RFC 3261 section 8.1.1.7 makes unique.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One Via value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The transport as written, `TLS` for instance.
    pub transport: Box<str>,
    /// The sender's host as it calls itself.
    pub host: Host,
    /// The sender's port, where one is written.
    pub port: Option<u16>,
    /// The parameters, `branch` among them.
    pub params: Params,
}

impl Via {
    /// A Via of ours. `rport` asks for the response at the source of the request
    /// (RFC 3581 section 3).
    #[must_use]
    pub fn new(transport: &str, host: Host, port: Option<u16>, branch: &str) -> Self {
        let mut params = Params::new();
        params.set("branch", Some(branch));
        params.set("rport", None);
        Self { transport: transport.into(), host, port, params }
    }

    /// Parses one value (not a comma list), white space in odd places included; `None` where it
    /// is malformed or of another version than SIP/2.0.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (protocol, rest) = text.split_once('/')?;
        let (version, rest) = rest.split_once('/')?;
        if !trim(protocol).eq_ignore_ascii_case("SIP") || trim(version) != "2.0" {
            return None;
        }
        let (transport, rest) = trim(rest).split_once([' ', '\t'])?;
        if !is_token(transport.as_bytes()) {
            return None;
        }
        let end = rest.find(';').unwrap_or(rest.len());
        let (host, port) = parse_host_port(&rest[..end])?;
        let params = Params::parse(&rest[end..])?;
        Some(Self { transport: transport.into(), host, port, params })
    }

    /// The branch; `None` where it is missing or empty.
    #[must_use]
    pub fn branch(&self) -> Option<&str> {
        self.params.value("branch").filter(|branch| !branch.is_empty())
    }

    /// Whether the branch alone tells the transaction (RFC 3261 section 8.1.1.7).
    #[must_use]
    pub fn has_cookie(&self) -> bool {
        // RFC 3261 section 25.1 makes tokens case-insensitive, so that a lower-cased copy counts.
        let cookie = MAGIC_COOKIE.len();
        self.branch().is_some_and(|branch| {
            branch.len() > cookie
                && branch.get(..cookie).is_some_and(|it| it.eq_ignore_ascii_case(MAGIC_COOKIE))
        })
    }

    /// The address that the receiver saw.
    #[must_use]
    pub fn received(&self) -> Option<IpAddr> {
        let value = self.params.value("received")?;
        value.trim_start_matches('[').trim_end_matches(']').parse().ok()
    }

    /// The port that the receiver saw.
    #[must_use]
    pub fn rport(&self) -> Option<u16> {
        self.params.value("rport").and_then(number)
    }

    /// Records where the request came from: `received` where it differs from what the sender
    /// calls itself (RFC 3261 section 18.2.1) or where `rport` was asked for, and then `rport`
    /// too (RFC 3581 section 4).
    pub fn stamp(&mut self, source: SocketAddr) {
        let wants_rport = self.params.has("rport");
        // RFC 3261 section 18.2.1: only the receiver fills these in.
        self.params.remove("received");
        if wants_rport {
            self.params.set("rport", Some(&source.port().to_string()));
        }
        if wants_rport || self.host.ip() != Some(source.ip()) {
            self.params.set("received", Some(&source.ip().to_string()));
        }
    }

    /// Where a response goes when no flow is left to send it on: `received` and `rport` where
    /// they are set, else the host and port (RFC 3261 section 18.2.2).
    #[must_use]
    pub fn reply_to(&self) -> (Host, Option<u16>) {
        let host = self.received().map_or_else(|| self.host.clone(), Host::from);
        (host, self.rport().or(self.port))
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "{}", self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_in_odd_places_is_read() {
        let text = "SIP  / 2.0\t/UDP   [2001:db8::1] : 4000 ;ttl = 16 ; branch= z9hG4bKa7c6 ;rport";
        let via = Via::parse(text).unwrap();
        assert_eq!(via.branch(), Some("z9hG4bKa7c6"));
        assert_eq!(via.port, Some(4000));
        assert!(via.has_cookie());
        assert_eq!(
            via.to_string(),
            "SIP/2.0/UDP [2001:db8::1]:4000;ttl=16;branch=z9hG4bKa7c6;rport"
        );
    }

    #[test]
    fn a_malformed_via_is_refused() {
        for wrong in [
            "",
            "SIP/2.0/UDP",
            "SIP/3.0/UDP h",
            "HTTP/2.0/UDP h",
            "SIP/2.0/UDP h:x",
            "SIP/2.0/UDP h;;,;,,",
            "SIP/2.0/U@P h",
            "SIP/2.0/UDP h i",
        ] {
            assert_eq!(Via::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_source_is_stamped_as_rfc_3581_asks() {
        let source: SocketAddr = "192.0.2.9:40123".parse().unwrap();
        let mut via = Via::parse("SIP/2.0/TLS 10.0.0.1:5061;branch=z9hG4bKx;rport").unwrap();
        via.stamp(source);
        assert_eq!((via.received(), via.rport()), (Some(source.ip()), Some(40_123)));
        assert_eq!(via.reply_to(), (Host::from(source.ip()), Some(40_123)));

        let mut same =
            Via::parse("SIP/2.0/UDP 192.0.2.9;branch=z9hG4bKx;received=6.6.6.6").unwrap();
        same.stamp(source);
        assert_eq!((same.received(), same.rport()), (None, None));

        let mut named = Via::parse("SIP/2.0/UDP pbx.example;branch=z9hG4bKx").unwrap();
        named.stamp(source);
        assert_eq!((named.received(), named.rport()), (Some(source.ip()), None));
    }

    #[test]
    fn a_branch_without_the_cookie_is_the_old_kind() {
        for (branch, new) in [("z9hG4bK", false), ("1", false), ("Z9HG4BKx", true)] {
            let via = Via::parse(&format!("SIP/2.0/UDP h;branch={branch}")).unwrap();
            assert_eq!(via.has_cookie(), new, "{branch}");
        }
    }
}
