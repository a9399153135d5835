//! A session description as owned types. What this member does not understand is kept, in order,
//! so that a description survives being parsed and printed.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

/// A whole description (RFC 8866 section 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// `o=`.
    pub origin: Origin,
    /// `s=`; `-` where the line was missing or empty.
    pub name: String,
    /// `i=`.
    pub information: Option<String>,
    /// `u=`.
    pub uri: Option<String>,
    /// `e=` lines.
    pub emails: Vec<String>,
    /// `p=` lines.
    pub phones: Vec<String>,
    /// `c=` of the session; media lines without their own inherit it.
    pub connection: Option<Connection>,
    /// `b=` lines of the session.
    pub bandwidths: Vec<Bandwidth>,
    /// `t=` lines with their `r=` lines; `0 0` where the line was missing.
    pub times: Vec<Timing>,
    /// `z=`.
    pub zones: Option<String>,
    /// `a=` lines of the session, in order.
    pub attributes: Vec<Attribute>,
    /// `m=` sections, in order; the order is the identity of a media line (RFC 3264 section 8).
    pub media: Vec<Media>,
}

/// `o=`, the identity and version of a description (RFC 8866 section 5.2).
///
/// The two numbers are kept as text because peers send more digits than any integer holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The user's name, `-` for none.
    pub username: String,
    /// The session's id.
    pub session_id: String,
    /// Grows by one with each changed description of the same session.
    pub version: String,
    /// The originating host.
    pub host: Host,
}

/// An address as written in `o=`, `c=` or `a=rtcp`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A literal address.
    Ip(IpAddr),
    /// A host name, not resolved; this member never does.
    Name {
        /// The name.
        name: String,
        /// Whether it was announced as `IP6`.
        is_ipv6: bool,
    },
}

/// `c=` (RFC 8866 section 5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Where media is to be sent.
    pub host: Host,
    /// What follows the first `/`: TTL and count of a multicast group.
    pub suffix: Option<String>,
}

/// `b=` (RFC 8866 section 5.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// `AS`, `CT`, `TIAS`, `RS`, `RR` or another word.
    pub kind: String,
    /// In the unit of the word: kb/s for `AS` and `CT`, bit/s for the others.
    pub value: u64,
}

/// `t=` with its `r=` lines (RFC 8866 sections 5.9 and 5.10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Start, in NTP seconds; 0 is "always".
    pub start: u64,
    /// End, in NTP seconds; 0 is "never".
    pub stop: u64,
    /// `r=` values.
    pub repeats: Vec<String>,
}

/// `a=` (RFC 8866 section 5.13). `Debug` hides values that hold keys; `Display` does not, because
/// it writes what is sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Attribute {
    /// What stands before the first colon; case matters.
    pub name: String,
    /// What stands after it; `None` for a flag.
    pub value: Option<String>,
}

/// One `m=` section (RFC 8866 section 5.14).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// What kind of media.
    pub kind: MediaKind,
    /// The port; 0 refuses or switches off the line.
    pub port: u16,
    /// The number after `PORT/`.
    pub port_count: Option<u16>,
    /// The transport.
    pub protocol: Protocol,
    /// Payload types of an RTP transport, otherwise as its owner defines.
    pub formats: Vec<String>,
    /// `i=`.
    pub information: Option<String>,
    /// `c=`; further ones (layered multicast) are dropped.
    pub connection: Option<Connection>,
    /// `b=` lines.
    pub bandwidths: Vec<Bandwidth>,
    /// `a=` lines, in order.
    pub attributes: Vec<Attribute>,
}

/// The first word of `m=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// `audio`
    Audio,
    /// `video`
    Video,
    /// `text`
    Text,
    /// `application`
    Application,
    /// `message`
    Message,
    /// `image`
    Image,
    /// Another word.
    Other(String),
}

/// The third word of `m=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `RTP/AVP` (RFC 3551)
    RtpAvp,
    /// `RTP/AVPF` (RFC 4585)
    RtpAvpf,
    /// `RTP/SAVP` (RFC 3711)
    RtpSavp,
    /// `RTP/SAVPF` (RFC 5124)
    RtpSavpf,
    /// `UDP/TLS/RTP/SAVP` (RFC 5764)
    UdpTlsRtpSavp,
    /// `UDP/TLS/RTP/SAVPF` (RFC 5764)
    UdpTlsRtpSavpf,
    /// Another one.
    Other(String),
}

/// Who sends, as its owner sees it (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// `sendrecv`, also where nothing is said.
    #[default]
    SendRecv,
    /// `sendonly`
    SendOnly,
    /// `recvonly`
    RecvOnly,
    /// `inactive`
    Inactive,
}

impl Session {
    /// The address that media of `media` goes to: its own `c=` or the session's.
    #[must_use]
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// The direction of `media`: its own, or the session's, or both ways.
    #[must_use]
    pub fn direction_of(&self, media: &Media) -> Direction {
        direction_in(&media.attributes)
            .or_else(|| direction_in(&self.attributes))
            .unwrap_or_default()
    }

    /// The first value of attribute `name` in `media`, or else in the session, as
    /// `fingerprint`, `setup`, `ice-ufrag`, `ice-pwd`, `ptime` and others inherit.
    #[must_use]
    pub fn attribute_of<'a>(&'a self, media: &'a Media, name: &str) -> Option<&'a str> {
        media.attribute(name).or_else(|| self.attribute(name))
    }

    /// The first value of attribute `name` of the session; the empty text for a flag.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        values_in(&self.attributes, name).next()
    }

    /// `a=fingerprint` of `media`, split into hash function and value (RFC 8122 section 5).
    #[must_use]
    pub fn fingerprint_of<'a>(&'a self, media: &'a Media) -> Option<(&'a str, &'a str)> {
        self.attribute_of(media, "fingerprint")?.trim().split_once(' ')
    }

    /// Every `a=fingerprint` of `media`, or else of the session, each split in the same way: a
    /// peer may name its certificate by several hash functions.
    pub fn fingerprints_of<'a>(
        &'a self,
        media: &'a Media,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let own = media.attribute("fingerprint").is_some();
        let named = if own { &media.attributes } else { &self.attributes };
        values_in(named, "fingerprint").filter_map(|value| value.trim().split_once(' '))
    }

    /// The `mid`s of the first `a=group:BUNDLE` (RFC 9143).
    pub fn bundle(&self) -> impl Iterator<Item = &str> {
        values_in(&self.attributes, "group")
            .find_map(|value| value.strip_prefix("BUNDLE"))
            .into_iter()
            .flat_map(str::split_ascii_whitespace)
    }

    /// Whether some audio line that is switched on asks for SRTP.
    ///
    /// `RTP/AVP` with `a=crypto` counts: that is how opportunistic peers offer it
    /// (RFC 8643 section 3.1).
    #[must_use]
    pub fn is_secure_offer(&self) -> bool {
        self.media.iter().any(|media| media.is_open_audio() && self.is_secured(media))
    }

    /// Whether `media` asks for or allows SRTP: by its transport, `a=crypto` or a fingerprint.
    #[must_use]
    pub fn is_secured(&self, media: &Media) -> bool {
        media.protocol.is_secure()
            || media.crypto().next().is_some()
            || media.protocol.is_rtp() && self.attribute_of(media, "fingerprint").is_some()
    }

    /// The same with keys and passwords struck out, to be shown to people.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let mut shown = self.clone();
        let of_media = shown.media.iter_mut().flat_map(|media| media.attributes.iter_mut());
        for attribute in of_media.chain(shown.attributes.iter_mut()) {
            if SECRET_ATTRIBUTES.contains(&attribute.name.as_str()) {
                attribute.value = Some("[secret]".into());
            }
        }
        shown
    }

    /// Puts `address` in the place of the host name `name` in every `c=`, after the caller has
    /// resolved it.
    pub fn resolve(&mut self, name: &str, address: IpAddr) {
        let connections = self.media.iter_mut().filter_map(|media| media.connection.as_mut());
        for connection in connections.chain(self.connection.as_mut()) {
            if matches!(&connection.host, Host::Name { name: known, .. } if known == name) {
                connection.host = Host::Ip(address);
            }
        }
    }
}

impl Media {
    /// The first value of attribute `name`; the empty text for a flag.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        values_in(&self.attributes, name).next()
    }

    /// Every value of attribute `name`, in order.
    pub fn attributes<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        values_in(&self.attributes, name)
    }

    /// The raw values of `a=crypto`, in order (RFC 4568); `rtp::sdes` reads them.
    pub fn crypto(&self) -> impl Iterator<Item = &str> {
        values_in(&self.attributes, "crypto")
    }

    /// The raw values of `a=candidate`, in order (RFC 8839).
    pub fn candidates(&self) -> impl Iterator<Item = &str> {
        values_in(&self.attributes, "candidate")
    }

    /// `a=mid` (RFC 5888).
    #[must_use]
    pub fn mid(&self) -> Option<&str> {
        self.attribute("mid")
    }

    /// Whether RTP and RTCP may share a port (RFC 5761).
    #[must_use]
    pub fn has_rtcp_mux(&self) -> bool {
        self.attribute("rtcp-mux").is_some()
    }

    /// `a=rtcp`: the RTCP port and, where given, its address (RFC 3605).
    #[must_use]
    pub fn rtcp(&self) -> Option<(u16, Option<Host>)> {
        let mut words = self.attribute("rtcp")?.split_ascii_whitespace();
        let port = words.next()?.parse().ok()?;
        let host = match (words.next(), words.next(), words.next()) {
            (Some("IN"), Some(family), Some(host)) => Host::parse(family, host),
            _ => None,
        };
        Some((port, host))
    }

    /// Whether this is an audio line over RTP that is not switched off.
    #[must_use]
    pub fn is_open_audio(&self) -> bool {
        self.kind == MediaKind::Audio && self.port != 0 && self.protocol.is_rtp()
    }

    pub(crate) fn set_direction(&mut self, direction: Direction) {
        let place = self
            .attributes
            .iter()
            .position(|it| it.value.is_none() && Direction::from_name(&it.name).is_some());
        self.attributes.retain(|it| it.value.is_some() || Direction::from_name(&it.name).is_none());
        let place = place.unwrap_or(self.attributes.len()).min(self.attributes.len());
        self.attributes.insert(place, Attribute::flag(direction.name()));
    }
}

impl Attribute {
    /// `a=NAME:VALUE`.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: Some(value.into()) }
    }

    /// `a=NAME`.
    pub fn flag(name: impl Into<String>) -> Self {
        Self { name: name.into(), value: None }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if SECRET_ATTRIBUTES.contains(&self.name.as_str()) {
            return write!(f, "{}:[secret]", self.name);
        }
        fmt::Display::fmt(self, f)
    }
}

/// Attributes whose values are keys or passwords (RFC 4568, RFC 8839, RFC 4567).
const SECRET_ATTRIBUTES: [&str; 3] = ["crypto", "ice-pwd", "key-mgmt"];

impl Host {
    /// The literal address, where it is one.
    #[must_use]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Name { .. } => None,
        }
    }

    /// Whether it is printed with `IP6`.
    #[must_use]
    pub const fn is_ipv6(&self) -> bool {
        match self {
            Self::Ip(address) => address.is_ipv6(),
            Self::Name { is_ipv6, .. } => *is_ipv6,
        }
    }

    /// Reads `family` (`IP4` or `IP6`) and `host`. A literal decides the family by itself, since
    /// peers behind translators mislabel it.
    pub(crate) fn parse(family: &str, host: &str) -> Option<Self> {
        let is_ipv6 = match family {
            "IP4" => false,
            "IP6" => true,
            _ => return None,
        };
        if let Ok(address) = host.parse() {
            return Some(Self::Ip(address));
        }
        // RFC 8866 section 9, FQDN: letters, digits, hyphens and dots (and the underscore of
        // container names).
        let is_name = (1..=255).contains(&host.len())
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        is_name.then(|| Self::Name { name: host.into(), is_ipv6 })
    }
}

impl Protocol {
    /// The protocol that `text` names.
    #[must_use]
    pub fn from_name(text: &str) -> Self {
        match text {
            "RTP/AVP" => Self::RtpAvp,
            "RTP/AVPF" => Self::RtpAvpf,
            "RTP/SAVP" => Self::RtpSavp,
            "RTP/SAVPF" => Self::RtpSavpf,
            "UDP/TLS/RTP/SAVP" => Self::UdpTlsRtpSavp,
            "UDP/TLS/RTP/SAVPF" => Self::UdpTlsRtpSavpf,
            other => Self::Other(other.into()),
        }
    }

    /// As written in `m=`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::RtpAvp => "RTP/AVP",
            Self::RtpAvpf => "RTP/AVPF",
            Self::RtpSavp => "RTP/SAVP",
            Self::RtpSavpf => "RTP/SAVPF",
            Self::UdpTlsRtpSavp => "UDP/TLS/RTP/SAVP",
            Self::UdpTlsRtpSavpf => "UDP/TLS/RTP/SAVPF",
            Self::Other(name) => name,
        }
    }

    /// Whether RTP flows over it.
    #[must_use]
    pub const fn is_rtp(&self) -> bool {
        !matches!(self, Self::Other(_))
    }

    /// Whether its profile demands SRTP.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        matches!(self, Self::RtpSavp | Self::RtpSavpf | Self::UdpTlsRtpSavp | Self::UdpTlsRtpSavpf)
    }

    /// Whether its keys come from a DTLS handshake.
    #[must_use]
    pub const fn is_dtls(&self) -> bool {
        matches!(self, Self::UdpTlsRtpSavp | Self::UdpTlsRtpSavpf)
    }
}

impl MediaKind {
    /// The kind that `text` names.
    #[must_use]
    pub fn from_name(text: &str) -> Self {
        match text {
            "audio" => Self::Audio,
            "video" => Self::Video,
            "text" => Self::Text,
            "application" => Self::Application,
            "message" => Self::Message,
            "image" => Self::Image,
            other => Self::Other(other.into()),
        }
    }

    /// As written in `m=`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Text => "text",
            Self::Application => "application",
            Self::Message => "message",
            Self::Image => "image",
            Self::Other(name) => name,
        }
    }
}

impl Direction {
    /// The direction that the attribute `name` states.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "sendrecv" => Some(Self::SendRecv),
            "sendonly" => Some(Self::SendOnly),
            "recvonly" => Some(Self::RecvOnly),
            "inactive" => Some(Self::Inactive),
            _ => None,
        }
    }

    /// The attribute's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The direction with these two claims.
    #[must_use]
    pub const fn new(sends: bool, receives: bool) -> Self {
        match (sends, receives) {
            (true, true) => Self::SendRecv,
            (true, false) => Self::SendOnly,
            (false, true) => Self::RecvOnly,
            (false, false) => Self::Inactive,
        }
    }

    /// Whether its owner sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether its owner receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }

    /// The same seen from the other end.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self::new(self.receives(), self.sends())
    }

    /// What both allow.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self::new(self.sends() && other.sends(), self.receives() && other.receives())
    }
}

fn values_in<'a>(attributes: &'a [Attribute], name: &str) -> impl Iterator<Item = &'a str> {
    attributes
        .iter()
        .filter(move |attribute| attribute.name == name)
        .map(|attribute| attribute.value.as_deref().unwrap_or(""))
}

fn direction_in(attributes: &[Attribute]) -> Option<Direction> {
    // The last one wins where a peer contradicts itself, as in most implementations.
    attributes
        .iter()
        .filter(|attribute| attribute.value.is_none())
        .filter_map(|attribute| Direction::from_name(&attribute.name))
        .next_back()
}
