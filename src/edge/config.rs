//! `callgate.toml`: every default stands in `deploy/callgate.toml`, which is compiled in; a file
//! of the operator's lies over it, and the environment over both.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use base::{Diagnostic, limit};
use serde::de::{SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use transport::Bounds;

/// The text of `deploy/callgate.toml`: all keys with their defaults.
pub const DEFAULTS: &str = include_str!("../../deploy/callgate.toml");

macro_rules! sections {
    ($($(#[$doc:meta])* $section:ident: $name:ident / $file:ident {
        $($(#[$fdoc:meta])* $field:ident: $type:ty,)*
    })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq)]
            pub struct $name { $($(#[$fdoc])* pub $field: $type,)* }

            #[derive(Default, Deserialize)]
            #[serde(deny_unknown_fields, default)]
            struct $file { $($field: Option<$type>,)* }
        )*

        /// The configuration.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config { $($(#[$doc])* pub $section: $name,)* }

        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct ConfigFile { $($section: $file,)* }

        impl ConfigFile {
            /// Lies over `below`: what is set here wins.
            fn over(self, below: Self) -> Self {
                Self { $($section: $file {
                    $($field: self.$section.$field.or(below.$section.$field),)*
                },)* }
            }

            /// `None` names what nobody sets.
            fn complete(self) -> Result<Config, &'static str> {
                Ok(Config { $($section: $name {
                    $($field: self.$section.$field.ok_or(
                        concat!(stringify!($section), ".", stringify!($field))
                    )?,)*
                },)* })
            }
        }

        const KEYS: &[&str] = &[$(stringify!($section), $(stringify!($field),)*)*];
        const PATHS: &[(&str, &str)] = &[$($((stringify!($section), stringify!($field)),)*)*];
    };
}

sections! {
    /// Where the edge listens.
    listen: Listen / ListenFile {
        /// SIP over TLS.
        tls: Vec<SocketAddr>,
        /// SIP over TCP, where policy opens it.
        tcp: Vec<SocketAddr>,
        /// SIP over UDP, where policy opens it.
        udp: Vec<SocketAddr>,
        /// HTTPS: WHIP, SIP over WSS, the API and the console.
        https: Vec<SocketAddr>,
        /// HTTP, which only sends people to HTTPS.
        http: Vec<SocketAddr>,
        /// Metrics and health.
        metrics: SocketAddr,
    }
    /// What browsers are told and asked for.
    browsers: Browsers / BrowsersFile {
        /// Origins of pages that may use WHIP and WSS, beside the edge's own.
        origins: Vec<String>,
        /// Servers that browsers may find their way with.
        ice_servers: Vec<IceServer>,
        /// Local addresses of their media, one of a family; empty for those of `listen.https`.
        media: Vec<IpAddr>,
        /// Where ICE over TCP is listened for, once in a family; empty for nowhere.
        ice_tcp: Addresses,
        /// The UDP port that all browsers' media shares; 0 where each call has its own.
        media_port: u16,
    }
    /// Certificates.
    tls: Tls / TlsFile {
        /// PEM chain, leaf first.
        certificate: PathBuf,
        /// PEM key.
        key: PathBuf,
        /// PEM bundle for client certificates; empty for none.
        client_ca: PathBuf,
        /// Whether to make development certificates where they are missing.
        development: bool,
    }
    /// Certificates by ACME (RFC 8555).
    acme: Acme / AcmeFile {
        /// The names to be certified; none where certificates are files of the operator's.
        domains: Vec<String>,
        /// The authority.
        directory: String,
        /// The operator's mail address, for the authority; may be empty.
        contact: String,
        /// Whether the operator agrees to the authority's terms.
        agree: bool,
        /// The file of the account, which is made.
        account: PathBuf,
        /// PEM file of the authority that vouches for the directory itself; empty for the system's.
        ca: PathBuf,
    }
    /// Names of those that are dialled.
    dns: Dns / DnsFile {
        /// Name servers, with their ports; empty for those of `/etc/resolv.conf`.
        servers: Vec<SocketAddr>,
        /// Names that need no name server.
        hosts: PathBuf,
    }
    /// How others reach us.
    advertise: Advertise / AdvertiseFile {
        /// Host in Contact and Via; empty for the flow's local address.
        host: String,
        /// Address in session descriptions; empty for the local one.
        media: String,
    }
    /// Media.
    media: Media / MediaFile {
        /// First and last port.
        ports: [u16; 2],
        /// Relay threads; 0 for one per two cores.
        workers: usize,
        /// How they reach their sockets.
        driver: SocketDriver,
    }
    /// Trunk policy.
    policy: PolicyFiles / PolicySection {
        /// The files.
        files: Vec<PathBuf>,
    }
    /// Voice agents.
    agents: Agents / AgentsFile {
        /// Directory of `NAME.toml`.
        directory: PathBuf,
        /// The speech helper; empty for the one beside this program.
        speech: PathBuf,
        /// Speech helpers.
        processes: usize,
    }
    /// The store.
    vault: Vault / VaultFile {
        /// Database and recordings.
        data: PathBuf,
        /// The local key-encryption key.
        key: PathBuf,
        /// Signed heads of the audit chain.
        heads: PathBuf,
        /// The workspace.
        workspace: String,
    }
    /// What may be kept.
    keep: Keep / KeepFile {
        /// Recordings.
        recording: bool,
        /// Transcripts.
        transcript: bool,
    }
    /// For how long it is kept, in days; 0 for as long as the call, and calls for ever.
    retention: Retention / RetentionFile {
        /// Recordings.
        recordings: u32,
        /// Transcripts.
        transcripts: u32,
        /// Calls, with all that is kept of them.
        calls: u32,
    }
    /// Limits of the same names that the owner of a larger machine, or of a smaller one, sets.
    limits: Limits / LimitsFile {
        /// Limit `call.concurrent`.
        call_concurrent: u32,
        /// Limit `transport.connections`.
        transport_connections: u32,
        /// Limit `transport.connections_per_source`.
        transport_connections_per_source: u32,
        /// Limit `transport.connections_per_trunk`.
        transport_connections_per_trunk: u32,
    }
    /// Signalling.
    signalling: Signalling / SignallingFile {
        /// Owners of calls, and threads for them and their connections; 0 for one per two cores.
        shards: usize,
    }
    /// Logs.
    log: Log / LogFile {
        /// `text` or `json`.
        format: LogFormat,
        /// `error`, `warn`, `info` or `debug`.
        level: LogLevel,
    }
}

/// Addresses with their ports: one as a text, which may be empty, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<SocketAddr>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("address and port, such as \"203.0.113.5:8444\", or a list of such")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Addresses, E> {
                if text.is_empty() {
                    return Ok(Addresses::default());
                }
                let address =
                    text.parse().map_err(|_| E::invalid_value(Unexpected::Str(text), &self));
                Ok(Addresses(vec![address?]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(address) = all.next_element()? {
                    addresses.push(address);
                }
                Ok(Addresses(addresses))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// A STUN or TURN server that browsers are told of (RFC 9725 section 4.6).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IceServer {
    /// As in `turns:turn.example:443?transport=tcp`.
    pub url: String,
    /// For TURN.
    #[serde(default)]
    pub username: String,
    /// The file that holds the password, for TURN.
    #[serde(default)]
    pub credential_file: PathBuf,
    /// The file that holds a secret shared with the TURN server, instead: each browser gets a login
    /// of its own that ends by itself.
    #[serde(default)]
    pub secret_file: PathBuf,
}

/// How relay threads reach their sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SocketDriver {
    /// io_uring where the kernel allows it, else epoll.
    Auto,
    /// io_uring, or no start.
    IoUring,
    /// epoll.
    Epoll,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Faults.
    Error,
    /// And refusals.
    Warn,
    /// And the course of calls.
    Info,
    /// And their details.
    Debug,
}

impl LogLevel {
    /// The word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Box<Diagnostic>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ConfigError {}

impl Browsers {
    fn check(&self) -> Result<(), ConfigError> {
        let Addresses(tcp) = &self.ice_tcp;
        let of_tcp: Vec<_> = tcp.iter().map(SocketAddr::ip).collect();
        for (key, addresses) in [("media", &self.media), ("ice_tcp", &of_tcp)] {
            let fours = addresses.iter().filter(|address| address.is_ipv4()).count();
            if fours > 1 || addresses.len() - fours > 1 {
                let text = format!("{key} = {addresses:?}");
                let message = format!("browsers.{key} wants one address of a family at most");
                return Err(error("callgate.toml", &text, key.len() + 3..text.len(), &message));
            }
        }
        if let Some(address) = self.media.iter().find(|it| it.is_unspecified() || it.is_multicast())
        {
            let text = format!("media = [\"{address}\"]");
            let message = "browsers.media wants addresses of this machine";
            return Err(error("callgate.toml", &text, 8..text.len(), message));
        }
        Ok(())
    }
}

impl Config {
    /// The local addresses of browsers' media: those that are named, or else those that HTTPS is
    /// listened for at, as far as they are single ones.
    #[must_use]
    pub fn browser_media(&self) -> Vec<IpAddr> {
        if !self.browsers.media.is_empty() {
            return self.browsers.media.clone();
        }
        let mut addresses = Vec::new();
        for address in self.listen.https.iter().map(SocketAddr::ip) {
            if !address.is_unspecified() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// How many shards own the calls, and how many threads they and their connections have.
    #[must_use]
    pub fn shards(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let wanted = if self.signalling.shards == 0 { cores / 2 } else { self.signalling.shards };
        wanted.clamp(1, 64)
    }

    /// Reads an operator's file (its name and text, if there is one) over the defaults, and
    /// `environment` (pairs of `CALLGATE_SECTION_KEY` and a TOML value) over both.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn load(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = parse("deploy/callgate.toml", DEFAULTS)?;
        if let Some((name, text)) = file {
            layers = parse(name, text)?.over(layers);
        }
        for (variable, value) in environment {
            let Some(rest) = variable.strip_prefix("CALLGATE_") else { continue };
            layers = parse_variable(&variable, &rest.to_lowercase(), &value)?.over(layers);
        }
        let config = layers.complete().map_err(|key| {
            error("deploy/callgate.toml", DEFAULTS, 0..0, &format!("{key} has no default"))
        })?;
        config.check()
    }

    fn check(self) -> Result<Self, ConfigError> {
        let [first, last] = self.media.ports;
        if first < 1024 || last <= first {
            let text = format!("ports = [{first}, {last}]");
            let message = "media.ports wants a first port from 1024 and a larger last one";
            return Err(error("callgate.toml", &text, 8..text.len(), message));
        }
        let media = &self.advertise.media;
        if !media.is_empty() && media.parse::<std::net::IpAddr>().is_err() {
            let text = format!("media = \"{media}\"");
            let message = "advertise.media wants an address, such as \"203.0.113.5\"";
            return Err(error("callgate.toml", &text, 8..text.len(), message));
        }
        self.browsers.check()?;
        self.limits.check()?;
        let shared = self.browsers.media_port;
        let is_sip = self.listen.udp.iter().any(|address| address.port() == shared);
        if shared != 0 && (is_sip || (first..=last).contains(&shared)) {
            let text = format!("media_port = {shared}");
            let message = "browsers.media_port wants a port that neither media.ports nor \
                           listen.udp has, such as 3478";
            return Err(error("callgate.toml", &text, 13..text.len(), message));
        }
        if !self.acme.domains.is_empty() && !self.acme.agree {
            let text = "agree = false";
            let message = "acme.agree wants to be true: read the authority's terms of service";
            return Err(error("callgate.toml", text, 8..text.len(), message));
        }
        let Retention { recordings, transcripts, calls } = self.retention;
        for (key, days) in [("recordings", recordings), ("transcripts", transcripts)] {
            if calls > 0 && days > calls {
                let text = format!("{key} = {days}");
                let message = format!("what goes with the call cannot outlive its {calls} days");
                return Err(error("callgate.toml", &text, 0..text.len(), &message));
            }
        }
        Ok(self)
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        let connections = &limit::TRANSPORT_CONNECTIONS_MOST;
        for (key, value, most) in [
            ("call_concurrent", self.call_concurrent, &limit::CALL_CONCURRENT_MOST),
            ("transport_connections", self.transport_connections, connections),
            (
                "transport_connections_per_source",
                self.transport_connections_per_source,
                connections,
            ),
            ("transport_connections_per_trunk", self.transport_connections_per_trunk, connections),
        ] {
            if !(1..=most.value).contains(&u64::from(value)) {
                let text = format!("{key} = {value}");
                let message = format!(
                    "limits.{key} wants 1 to {} (limit {}: {})",
                    most.value, most.name, most.why
                );
                return Err(error("callgate.toml", &text, key.len() + 3..text.len(), &message));
            }
        }
        Ok(())
    }

    /// As the transport wants them.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            connections: self.transport_connections as usize,
            connections_per_source: self.transport_connections_per_source as usize,
            connections_per_trunk: self.transport_connections_per_trunk as usize,
            ..Bounds::default()
        }
    }

    /// Descriptors that they may take together, with four sockets for a call.
    #[must_use]
    pub fn files(&self) -> u64 {
        let others = limit::RELAY_FILES_KEPT.value - limit::TRANSPORT_CONNECTIONS.value;
        u64::from(self.call_concurrent) * 4 + u64::from(self.transport_connections) + others
    }
}

impl Retention {
    /// As the vault wants it.
    #[must_use]
    pub fn ages(&self) -> vault::Retention {
        let age = |days: u32| (days > 0).then(|| DAY * days);
        vault::Retention {
            recordings: age(self.recordings),
            transcripts: age(self.transcripts),
            calls: age(self.calls),
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn parse(name: &str, text: &str) -> Result<ConfigFile, ConfigError> {
    toml::from_str(text).map_err(|found| {
        let span = found.span().unwrap_or(0..0);
        let word = text.get(span.clone()).unwrap_or_default().to_owned();
        let diagnostic = Diagnostic::new(name, text, &span, found.message(), None);
        ConfigError(Box::new(diagnostic.did_you_mean(&word, KEYS)))
    })
}

fn parse_variable(variable: &str, path: &str, value: &str) -> Result<ConfigFile, ConfigError> {
    let known = PATHS.iter().find(|(section, key)| {
        path.strip_prefix(section).and_then(|rest| rest.strip_prefix('_')) == Some(key)
    });
    let Some((section, key)) = known else {
        let names: Vec<String> =
            PATHS.iter().map(|(section, key)| format!("{section}_{key}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let span = 0..variable.len();
        let found = Diagnostic::new("environment", variable, &span, "unknown variable", None);
        return Err(ConfigError(Box::new(found.did_you_mean(path, &names))));
    };
    // A bare word is taken as a string, so that paths need no quotes within quotes.
    let literal = format!("[{section}]\n{key} = {value}\n");
    match toml::from_str(&literal) {
        Ok(file) => Ok(file),
        Err(_) => {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
            parse(variable, &format!("[{section}]\n{key} = \"{quoted}\"\n"))
        }
    }
}

fn error(file: &str, text: &str, span: std::ops::Range<usize>, message: &str) -> ConfigError {
    ConfigError(Box::new(Diagnostic::new(file, text, &span, message, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> [(String, String); 1] {
        [(name.to_owned(), value.to_owned())]
    }

    #[test]
    fn the_defaults_are_complete() {
        let config = Config::load(None, []).unwrap();
        assert_eq!(config.media.ports, [10_000, 32_767]);
        assert_eq!(config.log.level, LogLevel::Info);
    }

    #[test]
    fn a_file_lies_over_the_defaults_and_the_environment_over_both() {
        let text = "[media]\nworkers = 3\n[vault]\ndata = \"/srv\"\n";
        let variable = pair("CALLGATE_VAULT_DATA", "/srv/x");
        let config = Config::load(Some(("my.toml", text)), variable).unwrap();
        assert_eq!((config.media.workers, config.vault.data), (3, PathBuf::from("/srv/x")));
        let variable = pair("CALLGATE_LISTEN_TLS", "[\"0.0.0.0:5061\"]");
        let config = Config::load(None, variable).unwrap();
        assert_eq!(config.listen.tls, ["0.0.0.0:5061".parse().unwrap()]);
    }

    #[test]
    fn an_unknown_key_or_variable_is_an_error_with_its_place_and_a_guess() {
        let ConfigError(found) =
            Config::load(Some(("my.toml", "[media]\nwrokers = 3\n")), []).unwrap_err();
        assert_eq!((found.line, found.column), (2, 1));
        assert_eq!(found.help.as_deref(), Some("did you mean `workers`?"));
        let ConfigError(found) =
            Config::load(None, pair("CALLGATE_MEDIA_WORKER", "1")).unwrap_err();
        assert!(found.help.is_some());
    }

    #[test]
    fn a_value_out_of_range_is_an_error() {
        for text in [
            "[media]\nports = [20000, 10000]\n",
            "[browsers]\nmedia_port = 10000\n",
            "[browsers]\nmedia_port = 5060\n",
            "[browsers]\nmedia_port = 65536\n",
            "[browsers]\nmedia = [\"192.0.2.1\", \"192.0.2.2\"]\n",
            "[browsers]\nmedia = [\"::\"]\n",
            "[browsers]\nmedia = [\"192.0.2.1:5000\"]\n",
            "[browsers]\nice_tcp = \"192.0.2.1\"\n",
            "[browsers]\nice_tcp = [\"[::1]:1\", \"[::1]:2\"]\n",
            "[retention]\nrecordings = 31\ncalls = 30\n",
            "[retention]\ntranscripts = 31\ncalls = 30\n",
            "[retention]\ncalls = -1\n",
            "[limits]\ncall_concurrent = 0\n",
            "[limits]\ncall_concurrent = 50001\n",
            "[limits]\ntransport_connections = 100001\n",
            "[limits]\ntransport_connections_per_trunk = -1\n",
        ] {
            assert!(Config::load(Some(("my.toml", text)), []).is_err(), "{text}");
        }
    }

    #[test]
    fn browsers_media_is_where_they_connect_unless_another_place_is_named() {
        let browsers = |text: &str| Config::load(Some(("my.toml", text)), []).unwrap();
        let https =
            "[listen]\nhttps = [\"192.0.2.1:1\", \"[::1]:1\", \"[::1]:2\", \"0.0.0.0:3\"]\n";
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(browsers(https).browser_media(), addresses(&["192.0.2.1", "::1"]));
        let named = format!("{https}[browsers]\nmedia = [\"192.0.2.7\"]\n");
        assert_eq!(browsers(&named).browser_media(), addresses(&["192.0.2.7"]));
        let tcp =
            |value: &str| browsers(&format!("[browsers]\nice_tcp = {value}\n")).browsers.ice_tcp.0;
        assert_eq!(tcp("\"\""), []);
        assert_eq!(tcp("\"192.0.2.1:8\""), ["192.0.2.1:8".parse().unwrap()]);
        let both = ["192.0.2.1:8", "[::1]:8"].map(|it| it.parse::<SocketAddr>().unwrap());
        assert_eq!(tcp("[\"192.0.2.1:8\", \"[::1]:8\"]"), both);
    }

    #[test]
    fn limits_are_those_of_the_catalogue_until_an_owner_moves_them() {
        let limits = |text| Config::load(Some(("my.toml", text)), []).unwrap().limits;
        let usual = limits("");
        assert_eq!(u64::from(usual.call_concurrent), limit::CALL_CONCURRENT.value);
        assert_eq!(usual.bounds(), Bounds::default());
        assert_eq!(usual.files(), 2_000 * 4 + 9_000);
        let large = limits("[limits]\ncall_concurrent = 20000\ntransport_connections = 300\n");
        assert_eq!((large.call_concurrent, large.bounds().connections), (20_000, 300));
        let ConfigError(found) =
            Config::load(Some(("my.toml", "[limits]\ncall_concurent = 3\n")), []).unwrap_err();
        assert_eq!((found.line, found.column), (2, 1));
        assert_eq!(found.help.as_deref(), Some("did you mean `call_concurrent`?"));
        let ConfigError(found) =
            Config::load(None, pair("CALLGATE_LIMITS_CALL_CONCURRENT", "50001")).unwrap_err();
        assert!(found.message.contains("call.concurrent_most"), "{}", found.message);
    }

    #[test]
    fn everything_is_kept_for_ever_unless_told_otherwise() {
        let ages = |text| Config::load(Some(("my.toml", text)), []).unwrap().retention.ages();
        assert_eq!(ages(""), vault::Retention::default());
        let ages = ages("[retention]\nrecordings = 30\n");
        assert_eq!(ages.recordings, Some(Duration::from_secs(30 * 86_400)));
        assert_eq!((ages.transcripts, ages.calls), (None, None));
    }
}
