//! What is compared: something that stands in the middle of a call's media.

use std::net::SocketAddr;

use anyhow::Context as _;
use audio::Codec;
use loadgen::browser::{Certificate, Credentials, Fingerprint, Peer};
use rtp::sdes::{CryptoLine, KeySalt, Suite};

/// Payload type of Opus on every leg.
pub(crate) const OPUS: u8 = 96;

/// Payload type of key presses on every leg.
pub(crate) const EVENTS_TYPE: u8 = 101;

/// What a party of a call asks for.
#[derive(Clone, Debug)]
pub(crate) struct Party {
    /// Where it receives RTP; RTCP one port above, which nobody reads.
    pub(crate) address: SocketAddr,
    pub(crate) codec: Codec,
    /// The key that it protects with; plain RTP without.
    pub(crate) key: Option<KeySalt>,
    /// Who it is where its keys come from a handshake, as a browser's do; in place of the key.
    pub(crate) browser: Option<Browser>,
    /// How much CPU callgate's Opus takes, instead of what it takes by itself.
    pub(crate) complexity: Option<u8>,
}

impl Party {
    /// Its payload type.
    pub(crate) fn payload_type(&self) -> u8 {
        self.codec.payload_type().unwrap_or(OPUS)
    }
}

/// A party that checks its path and shakes hands.
#[derive(Clone, Debug)]
pub(crate) struct Browser {
    pub(crate) credentials: Credentials,
    pub(crate) certificate: Certificate,
    /// The profile that it offers, and no other.
    pub(crate) suite: Suite,
}

/// What a party is given.
#[derive(Clone, Debug)]
pub(crate) struct Anchored {
    /// Where it sends its RTP.
    pub(crate) address: SocketAddr,
    /// The key of what it hears.
    pub(crate) key: Option<KeySalt>,
    /// Whom a browser shakes hands with.
    pub(crate) peer: Option<Peer>,
}

/// Something that anchors the media of calls; a process of its own.
pub(crate) trait Anchor {
    /// Its process.
    fn process(&self) -> u32;
    /// Sets a call up; the number is given back with [`Anchor::close`].
    fn open(&mut self, call: u32, parties: &[Party; 2]) -> anyhow::Result<[Anchored; 2]>;
    /// Tears a call down.
    fn close(&mut self, call: u32) -> anyhow::Result<()>;
}

/// A session description of `party`; `tag` is that of its crypto line.
pub(crate) fn describe(party: &Party, tag: u32) -> String {
    let (ip, port, payload_type) = (party.address.ip(), party.address.port(), party.payload_type());
    let profile = match (&party.browser, &party.key) {
        (Some(_), _) => "UDP/TLS/RTP/SAVPF",
        (None, Some(_)) => "RTP/SAVP",
        (None, None) => "RTP/AVP",
    };
    let mut text = format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n\
         m=audio {port} {profile} {payload_type} {EVENTS_TYPE}\r\n"
    );
    text.push_str(&match party.codec {
        Codec::Opus => format!("a=rtpmap:{OPUS} opus/48000/2\r\n"),
        codec => format!("a=rtpmap:{payload_type} {}/8000\r\n", codec.name()),
    });
    text.push_str(&format!(
        "a=rtpmap:{EVENTS_TYPE} telephone-event/8000\r\na=fmtp:{EVENTS_TYPE} 0-15\r\n\
         a=ptime:20\r\na=sendrecv\r\n"
    ));
    if let Some(browser) = &party.browser {
        // It begins the handshake, as the load tester's client does.
        let fingerprint = browser.certificate.fingerprint();
        text.push_str(&format!("a=rtcp-mux\r\na=setup:active\r\na=fingerprint:{fingerprint}\r\n"));
    }
    if let Some(key) = &party.key {
        let line = CryptoLine { tag, key: key.clone() };
        text.push_str(&format!("a=crypto:{}\r\n", line.to_attribute().expose()));
    }
    text
}

/// Where a description of an anchor says that it receives, its crypto line of `suite`, and whom a
/// browser shakes hands with.
pub(crate) fn read(
    text: &str,
    suite: Option<Suite>,
) -> anyhow::Result<(SocketAddr, Option<CryptoLine>, Option<Peer>)> {
    let value = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix));
    let ip = value("c=IN IP4 ").context("no address in the description")?;
    let port = value("m=audio ").and_then(|it| it.split_once(' ')).context("no audio")?.0;
    let lines = text.lines().filter_map(|line| line.strip_prefix("a=crypto:"));
    let mut lines = lines.filter_map(|value| CryptoLine::parse(value.trim()).ok());
    let line = lines.find(|line| Some(line.key.suite()) == suite);
    let address = SocketAddr::new(ip.trim().parse()?, port.parse()?);
    let fingerprint = value("a=fingerprint:").and_then(Fingerprint::parse);
    let peer = fingerprint.map(|fingerprint| {
        let is_passive = value("a=setup:").map(str::trim) == Some("passive");
        Peer { address, credentials: None, fingerprint, is_passive }
    });
    Ok((address, line, peer))
}
