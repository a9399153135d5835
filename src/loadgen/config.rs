//! What to place, how often, and with what.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use audio::Codec;
use base::limit::{
    CALL_DURATION_MS, LOADGEN_AUDIO_MS, LOADGEN_CALLS, LOADGEN_CALLS_PER_SECOND,
    LOADGEN_CONCURRENT, LOADGEN_CONNECTIONS, LOADGEN_SCRIPT_STEPS, LOADGEN_SETUP_MS,
};
use base::{Limit, Secret};
use rtp::{Digit, Suite};
use sip::{Host, NameAddr, Scheme, Uri};

use crate::script::{RATE, Script, Step};

/// How signalling travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// In datagrams, in the clear.
    Udp,
    /// In a stream, in the clear.
    Tcp,
    /// In a stream, protected.
    Tls,
    /// Not SIP: a browser's offer and answer over HTTPS (RFC 9725).
    Whip,
    /// In a WebSocket, protected; for registrations alone.
    Wss,
}

impl Transport {
    /// The name in a URI's `transport` parameter.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Whip => "whip",
            Self::Wss => "wss",
        }
    }

    /// The name in Via.
    pub(crate) const fn via(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls | Self::Whip => "TLS",
            Self::Wss => "WSS",
        }
    }

    /// Whether the transport itself repeats what is lost.
    pub(crate) const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => 5060,
            Self::Tls => 5061,
            Self::Whip | Self::Wss => 443,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whom to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Request-URI of every call.
    pub uri: Uri,
    /// How signalling travels.
    pub transport: Transport,
    /// The host to connect to, an address or a name.
    pub host: Host,
    /// The port to connect to.
    pub port: u16,
    /// Of [`Transport::Whip`], the path that offers are posted to; of [`Transport::Wss`] that of
    /// the WebSocket; otherwise empty.
    pub path: String,
}

impl Target {
    /// Reads `sip:reception@127.0.0.1:5061;transport=tls`. Without `transport` it is TLS; without
    /// a port it is the transport's own (5061 or 5060). `https://127.0.0.1:8443/whip/reception` is
    /// where browsers call,
    /// `wss://127.0.0.1:8443/sip` where they register.
    ///
    /// # Errors
    /// The text is no SIP URI, or names a transport that is not spoken here.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |why: String| ConfigError::Target { target: text.to_owned(), why };
        for (scheme, transport) in [("https://", Transport::Whip), ("wss://", Transport::Wss)] {
            if let Some(rest) = text.strip_prefix(scheme) {
                return Self::parse_web(rest, transport).map_err(wrong);
            }
        }
        let uri = Uri::parse(text).map_err(|error| wrong(error.to_string()))?;
        if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) {
            return Err(wrong("only sip: and sips: URIs can be called".into()));
        }
        let transport = match uri.param("transport").map(str::to_ascii_lowercase).as_deref() {
            None | Some("tls") => Transport::Tls,
            Some("tcp") if uri.scheme() == Scheme::Sips => Transport::Tls,
            Some("tcp") => Transport::Tcp,
            Some("udp") if uri.scheme() == Scheme::Sip => Transport::Udp,
            Some(other) => return Err(wrong(format!("the transport {other} is not spoken here"))),
        };
        let host = uri.host().cloned().ok_or_else(|| wrong("it names no host".into()))?;
        let port = uri.port().unwrap_or(transport.default_port());
        Ok(Self { uri, transport, host, port, path: String::new() })
    }

    /// What follows `https://` or `wss://`. Of the first the last part is who is called.
    fn parse_web(rest: &str, transport: Transport) -> Result<Self, String> {
        let is_plain = |it: char| it.is_ascii_graphic() && !matches!(it, '?' | '#' | '@');
        if !rest.chars().all(is_plain) {
            return Err("it has more than a host and a path".into());
        }
        let (host, path) = rest.split_once('/').ok_or("it names nobody behind the host")?;
        let user = path.rsplit('/').next().unwrap_or_default();
        let uri = Uri::parse(&format!("sip:{user}@{host}")).map_err(|error| error.to_string())?;
        let host = uri.host().cloned().ok_or("it names no host")?;
        let port = uri.port().unwrap_or(transport.default_port());
        Ok(Self { uri, transport, host, port, path: format!("/{path}") })
    }
}

/// Whom a TLS server must be vouched for by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorities {
    /// The certificates of this PEM file.
    File(PathBuf),
    /// These certificates, PEM.
    Pem(Vec<u8>),
    /// Nobody: whoever answers is believed. Only to find out why a handshake fails.
    DangerAcceptAnyCertificate,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The PEM file of the certificate and its chain.
    pub certificate: PathBuf,
    /// The PEM file of its key.
    pub key: PathBuf,
}

/// How TLS connections are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Who vouches for the server.
    pub authorities: Authorities,
    /// What we show of ourselves.
    pub identity: Option<Identity>,
    /// The name that the server's certificate must have; by default the target's host.
    pub server_name: Option<String>,
}

/// When our session description travels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OfferMode {
    /// In the INVITE.
    #[default]
    Early,
    /// In the ACK, as the answer to the offer in the 200 (RFC 3261 section 13.2.1).
    Late,
}

/// How media is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// SRTP with keys in SDP, offered as `RTP/SAVP`; a call without it fails.
    #[default]
    Srtp,
    /// SRTP offered as `RTP/AVP` with `a=crypto` (RFC 8643); plain RTP if the far end wants it.
    Opportunistic,
    /// Plain RTP.
    Plain,
    /// SRTP with the keys of a DTLS handshake, as browsers have it.
    Dtls,
}

/// What to place, how often, and with what.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whom to call.
    pub target: Target,
    /// Who calls; by default `load` at our own address.
    pub from: Option<NameAddr>,
    /// How many calls.
    pub calls: u32,
    /// How many calls begin each second.
    pub rate: f64,
    /// How many calls there are at most at one time; a call that would be one more waits and is
    /// counted in [`crate::Saturation::late_starts`].
    pub concurrency: u32,
    /// How many signalling connections (UDP: sockets) the calls share.
    pub connections: u32,
    /// How long a call lasts at most, from its answer to our BYE.
    pub hold: Duration,
    /// How long a call may take until its answer.
    pub setup_timeout: Duration,
    /// The codecs, the best first.
    pub codecs: Vec<Codec>,
    /// How media is protected.
    pub protection: Protection,
    /// The crypto suites, the best first; of no use with [`Protection::Plain`].
    pub suites: Vec<Suite>,
    /// When our session description travels.
    pub offer: OfferMode,
    /// Whether RTP and RTCP share a port, where the far end agrees.
    pub rtcp_mux: bool,
    /// How TLS connections are made.
    pub tls: Tls,
    /// What browsers prove themselves with: an API key or a browser token.
    pub token: Option<Secret<String>>,
    /// Our address for media; by default the one that signalling uses.
    pub media_address: Option<IpAddr>,
    /// What each caller does after the answer.
    pub script: Script,
    /// Where to write what is heard, a 16 kHz mono WAV; with several calls, `-N` goes before the
    /// extension.
    pub save: Option<PathBuf>,
    /// When the whole load must be over; by default what its calls can need at most.
    pub deadline: Option<Duration>,
}

impl Config {
    /// One call of ten seconds with a tone, over SRTP with every codec and suite; the authorities
    /// are in `certs/ca.pem`.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            from: None,
            calls: 1,
            rate: 10.0,
            concurrency: 100,
            connections: 1,
            hold: Duration::from_secs(10),
            setup_timeout: Duration::from_secs(30),
            codecs: vec![Codec::Opus, Codec::G722, Codec::Pcma, Codec::Pcmu],
            protection: Protection::Srtp,
            suites: Suite::PREFERENCE.to_vec(),
            offer: OfferMode::Early,
            rtcp_mux: true,
            tls: Tls {
                authorities: Authorities::File("certs/ca.pem".into()),
                identity: None,
                server_name: None,
            },
            token: None,
            media_address: None,
            script: Script::tone(440),
            save: None,
            deadline: None,
        }
    }

    /// The same, called by this number, user or whole address (`+15550100`, `alice`,
    /// `"Alice" <sip:alice@example.com>`).
    ///
    /// # Errors
    /// It is none of these.
    pub fn with_caller(mut self, caller: &str) -> Result<Self, ConfigError> {
        let has_scheme = caller.contains(':') || caller.contains('<');
        let text = if has_scheme {
            caller.to_owned()
        } else {
            Uri::sip(Some(caller), &self.target.host, None).to_string()
        };
        let from = NameAddr::parse(&text).map_err(|error| ConfigError::Caller {
            caller: caller.into(),
            why: error.to_string(),
        })?;
        self.from = Some(from);
        Ok(self)
    }

    /// Refuses what cannot be placed or would never end.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if self.target.transport == Transport::Wss {
            let why = "nobody is called by a WebSocket here; it is for registrations".to_owned();
            return Err(ConfigError::Target { target: self.target.path.clone(), why });
        }
        within("calls", f64::from(self.calls), 1.0, &LOADGEN_CALLS)?;
        within("rate", self.rate, f64::MIN_POSITIVE, &LOADGEN_CALLS_PER_SECOND)?;
        within("concurrency", f64::from(self.concurrency), 1.0, &LOADGEN_CONCURRENT)?;
        within("connections", f64::from(self.connections), 1.0, &LOADGEN_CONNECTIONS)?;
        within("hold (ms)", millis(self.hold), 0.0, &CALL_DURATION_MS)?;
        within("setup_timeout (ms)", millis(self.setup_timeout), 1.0, &LOADGEN_SETUP_MS)?;
        if self.codecs.is_empty() {
            return Err(ConfigError::Empty("codecs"));
        }
        if self.suites.is_empty() && self.protection != Protection::Plain {
            return Err(ConfigError::Empty("suites"));
        }
        if self.media_address.is_some_and(|address| address.is_unspecified()) {
            return Err(ConfigError::MediaAddress);
        }
        let steps = self.script.steps.len() as f64;
        within("script steps", steps, 0.0, &LOADGEN_SCRIPT_STEPS)?;
        self.script.steps.iter().try_for_each(check_step)
    }
}

fn check_step(step: &Step) -> Result<(), ConfigError> {
    match step {
        Step::Play(pcm) | Step::Loop(pcm) => {
            let length = (pcm.len() / (RATE / 1000)) as f64;
            within("audio of one step (ms)", length, 0.0, &LOADGEN_AUDIO_MS)
        }
        Step::Digits(digits) => match digits.chars().find(|it| Digit::from_char(*it).is_none()) {
            Some(key) => Err(ConfigError::Digit(key)),
            None => Ok(()),
        },
        Step::Wait(time)
        | Step::WaitForSpeech { at_most: time }
        | Step::WaitForSilence { at_most: time, .. }
        | Step::WaitForSpeechEnd { at_most: time, .. } => {
            within("wait of one step (ms)", millis(*time), 0.0, &CALL_DURATION_MS)
        }
        Step::Hold | Step::Resume | Step::Hangup => Ok(()),
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(crate) fn within(
    what: &'static str,
    value: f64,
    least: f64,
    most: &Limit,
) -> Result<(), ConfigError> {
    // Written so that not-a-number is refused.
    if value >= least && value <= most.value as f64 {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { what, value, most: most.value, limit: most.name })
}

/// Why a load cannot be placed as asked.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The target cannot be called.
    #[error("`{target}` cannot be called: {why}")]
    Target {
        /// As given.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// The caller is no address.
    #[error("`{caller}` is neither a number nor an address: {why}")]
    Caller {
        /// As given.
        caller: String,
        /// What is wrong with it.
        why: String,
    },
    /// A number is absurd.
    #[error("{what} is {value}, but must be above zero and at most {most} (limit {limit})")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// As given.
        value: f64,
        /// The largest value taken.
        most: u64,
        /// The limit's name.
        limit: &'static str,
    },
    /// A list that must hold something is empty.
    #[error("{0} must not be empty")]
    Empty(&'static str),
    /// The far end could not send to the media address.
    #[error("the media address must be one that the far end can send to, not the unspecified one")]
    MediaAddress,
    /// Not a key of a telephone.
    #[error("`{0}` is not a key; keys are 0-9, *, # and A-D")]
    Digit(char),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new(Target::parse("sip:reception@127.0.0.1:5061;transport=tls").unwrap())
    }

    #[test]
    fn a_target_is_read_with_its_transport_and_port() {
        for (text, transport, port) in [
            ("sip:a@127.0.0.1", Transport::Tls, 5061),
            ("sip:a@[::1]:5070;transport=UDP", Transport::Udp, 5070),
            ("sip:a@edge.example;transport=tcp", Transport::Tcp, 5060),
            ("sips:a@edge.example;transport=tcp", Transport::Tls, 5061),
        ] {
            let target = Target::parse(text).unwrap();
            assert_eq!((target.transport, target.port), (transport, port), "{text}");
        }
        let target = Target::parse("https://edge.example:8443/whip/reception").unwrap();
        assert_eq!((target.transport, target.port), (Transport::Whip, 8443));
        assert_eq!((target.uri.user(), &*target.path), (Some("reception"), "/whip/reception"));
        for wrong in [
            "tel:+15550100",
            "sip:a@h;transport=sctp",
            "sips:a@h;transport=udp",
            "a@h",
            "https://edge.example",
            "https://edge.example/whip/a?b",
            "http://edge.example/whip/a",
        ] {
            let error = Target::parse(wrong).unwrap_err();
            assert!(error.to_string().starts_with(&format!("`{wrong}` cannot be called")));
        }
    }

    #[test]
    fn a_caller_may_be_a_number_or_an_address() {
        let from = |caller| config().with_caller(caller).unwrap().from.unwrap().to_string();
        assert_eq!(from("+15550100"), "<sip:+15550100@127.0.0.1>");
        assert_eq!(from("\"Al\" <sip:al@example.com>"), "\"Al\" <sip:al@example.com>");
        assert!(config().with_caller("<sip:").is_err());
    }

    #[test]
    fn absurd_values_are_refused_with_their_limit() {
        let refused = |change: fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert_eq!(config().check(), Ok(()));
        assert!(refused(|it| it.calls = 0).contains("loadgen.calls"));
        assert!(refused(|it| it.rate = f64::NAN).contains("loadgen.calls_per_second"));
        assert!(refused(|it| it.rate = 0.0).contains("rate is 0"));
        assert!(refused(|it| it.concurrency = u32::MAX).contains("loadgen.concurrent"));
        assert!(refused(|it| it.hold = Duration::MAX).contains("call.duration_ms"));
        assert!(refused(|it| it.codecs.clear()).contains("codecs"));
        assert!(refused(|it| it.suites.clear()).contains("suites"));
        let anywhere =
            |it: &mut Config| it.media_address = Some(std::net::Ipv4Addr::UNSPECIFIED.into());
        assert!(refused(anywhere).contains("media address"));
        let digits =
            |it: &mut Config| it.script = Script::default().then(Step::Digits("1x".into()));
        assert!(refused(digits).contains("`x` is not a key"));
    }
}
