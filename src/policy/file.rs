//! What may stand in a policy file, as types: the one description that the reader, the JSON Schema
//! and the documents follow. No `flatten` and no `untagged`, which lose places and unknown keys
//! (DESIGN invariant 4.9). What the keys mean to a call is in `policies/README.md`.

use core::fmt;
use core::time::Duration;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::{Deref, Range};

use base::Date;
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, Visitor},
};
use toml::Spanned;

use crate::statuses::Statuses;
use crate::words::{
    Codec, DtlsLibrary, DtmfMethod, Keep, Protection, RefusalManner, RingBack, Suite, Transfer,
    Transport,
};

/// A value with its place in the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent, bound = "T: Deserialize<'de>")]
pub struct At<T>(Spanned<T>);

impl<T> At<T> {
    /// The bytes it stands in.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.0.span()
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0.get_ref()
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

/// A policy file. Several files make one policy, as if they were one text in the order of their
/// names.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// What trunks that say nothing else get.
    pub defaults: Option<At<DefaultsFile>>,
    /// Carrier relations by name.
    #[serde(default)]
    pub trunk: BTreeMap<String, TrunkFile>,
    /// Network sides by name.
    #[serde(default)]
    pub zone: BTreeMap<String, ZoneFile>,
    /// Where calls go; the first that matches decides, top to bottom.
    #[serde(default)]
    pub route: Vec<RouteFile>,
}

/// `[defaults]`: values for trunks that do not say otherwise. What loosens security (`from`,
/// `transports`, `srtp`, `exempt`) cannot stand here, only at its trunk.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefaultsFile {
    /// The zone.
    pub zone: Option<At<String>>,
    /// SRTP crypto suites, the preferred first.
    pub suites: Option<At<Vec<Suite>>>,
    /// Codecs, the preferred first.
    pub codecs: Option<At<Vec<Codec>>>,
    /// Limits per edge, both directions.
    pub limits: Option<LimitsFile>,
    /// Whether audio may be kept; `never` unless said otherwise.
    pub recording: Option<Keep>,
    /// Whether words may be kept; `allowed` unless said otherwise.
    pub transcript: Option<Keep>,
    /// How strangers and trunks are refused before a call; `answer` unless said otherwise.
    pub refuse: Option<RefusalManner>,
    /// The longest call, as in "4h".
    pub max_duration: Option<At<Time>>,
    /// The longest time without media, as in "60s".
    pub media_inactive: Option<At<Time>>,
    /// The longest wait for the first response to our INVITE, as in "4s".
    pub first_response: Option<At<Time>>,
    /// The longest ringing of whom we call, as in "60s".
    pub ring: Option<At<Time>>,
    /// How pressed keys are taken and sent.
    pub dtmf: Option<At<Vec<DtmfMethod>>>,
    /// Whether its calls may be transferred by REFER; `edge` unless said otherwise.
    pub transfer: Option<Transfer>,
    /// What its callers get while the telephone of whom they call rings; `signal` unless said
    /// otherwise.
    pub ring_back: Option<RingBack>,
    /// How numbers are written.
    pub numbers: Option<NumbersFile>,
}

/// `[trunk.NAME]`: a carrier relation.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrunkFile {
    /// For people.
    pub description: Option<String>,
    /// Who may be this trunk; without it, calls only go to it.
    pub from: Option<At<FromFile>>,
    /// SIP URIs that we dial, in this order; without it, calls only come from it.
    pub send_to: Option<Vec<At<String>>>,
    /// Networks whence plain RTP may come where media is exempted; `from.networks` unless said.
    pub media_from: Option<At<Vec<At<Network>>>>,
    /// The zone that it is at, and whose addresses its calls use.
    pub zone: Option<At<String>>,
    /// Who proves what on the TLS connections that we open to it.
    pub tls: Option<At<TrunkTlsFile>>,
    /// What we show where it asks for a user and a password.
    pub digest: Option<At<DigestFile>>,
    /// Transports it may use; `["tls"]` unless said otherwise, of browsers `["wss", "whip"]`.
    pub transports: Option<At<Vec<At<Transport>>>>,
    /// Whether media must be SRTP.
    pub srtp: Option<SrtpFile>,
    /// SRTP crypto suites, the preferred first.
    pub suites: Option<At<Vec<Suite>>>,
    /// Codecs, the preferred first.
    pub codecs: Option<At<Vec<Codec>>>,
    /// Limits per edge, both directions.
    pub limits: Option<LimitsFile>,
    /// Rules lifted for a while.
    pub exempt: Option<At<ExemptFile>>,
    /// Whether audio may be kept.
    pub recording: Option<Keep>,
    /// Whether words may be kept.
    pub transcript: Option<Keep>,
    /// How it is refused before a call.
    pub refuse: Option<RefusalManner>,
    /// The longest call, as in "4h".
    pub max_duration: Option<At<Time>>,
    /// The longest time without media, as in "60s".
    pub media_inactive: Option<At<Time>>,
    /// The longest wait for its first response to our INVITE, as in "4s".
    pub first_response: Option<At<Time>>,
    /// The longest ringing of whom we call through it, as in "60s".
    pub ring: Option<At<Time>>,
    /// How pressed keys are taken and sent.
    pub dtmf: Option<At<Vec<DtmfMethod>>>,
    /// Whether its calls may be transferred by REFER; `edge` unless said otherwise.
    pub transfer: Option<Transfer>,
    /// What its callers get while the telephone of whom they call rings; `signal` unless said
    /// otherwise.
    pub ring_back: Option<RingBack>,
    /// What does the DTLS handshakes of its media, browsers' first of all; `dimpl` unless said
    /// otherwise.
    pub dtls_library: Option<DtlsLibrary>,
    /// Of browsers: the number or user that other trunks are shown of a caller who was given none.
    pub present: Option<At<String>>,
    /// How its numbers are written.
    pub numbers: Option<NumbersFile>,
}

/// Who may be a trunk; all that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// Source networks or addresses.
    pub networks: Option<At<Vec<At<Network>>>>,
    /// Subject alternative names of the client certificate.
    pub certificates: Option<At<Vec<At<String>>>>,
    /// Browsers and softphones that have shown this edge a key, a token or a password, over
    /// `wss` and `whip`; one trunk at most.
    pub browsers: Option<At<bool>>,
}

/// Who proves what on the TLS connections that we open to a trunk.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrunkTlsFile {
    /// A PEM bundle of the only authorities that vouch for it; without it, those of the system
    /// and of `[tls] client_ca`.
    pub ca: Option<At<String>>,
    /// Fingerprints of its certificates, as in "sha256:0123...": one of them must be shown, and
    /// neither authority nor name is asked for.
    pub pins: Option<At<Vec<At<String>>>>,
    /// Our certificate towards it, a PEM chain; without it, the listener's.
    pub certificate: Option<At<String>>,
    /// The key of `certificate`.
    pub key: Option<At<String>>,
}

/// The credentials that we show a trunk (RFC 3261 section 22).
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DigestFile {
    /// The user name.
    pub user: At<String>,
    /// A file that holds the password, and nothing else but a line end.
    pub password_file: At<String>,
    /// The only realm that is answered; any without it.
    pub realm: Option<At<String>>,
}

/// Whether media must be SRTP, by the direction of the call.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SrtpFile {
    /// On calls that come from the trunk.
    pub inbound: Option<At<Protection>>,
    /// On calls that go to the trunk.
    pub outbound: Option<At<Protection>>,
}

/// Limits per edge, both directions; what is left out has no limit but the edge's.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsFile {
    /// Calls at one time; 0 closes the trunk.
    pub calls: Option<u32>,
    /// New calls in one second; 0 closes the trunk.
    pub calls_per_second: Option<u32>,
}

/// Rules lifted for a while, each with a reason and a last day.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExemptFile {
    /// Signalling may be plaintext, over the plaintext transports that `transports` lists.
    pub signalling: Option<At<SignallingExemptFile>>,
    /// Media may be plain RTP.
    pub media: Option<At<MediaExemptFile>>,
}

/// An exemption of signalling.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignallingExemptFile {
    /// Why, for whoever finds it later.
    pub reason: At<String>,
    /// The last day, UTC.
    pub expires: At<Day>,
}

/// An exemption of media.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MediaExemptFile {
    /// Why, for whoever finds it later.
    pub reason: At<String>,
    /// The last day, UTC.
    pub expires: At<Day>,
    /// On calls that come from the trunk.
    #[serde(default)]
    pub inbound: bool,
    /// On calls that go to the trunk.
    #[serde(default)]
    pub outbound: bool,
}

/// How numbers are written; they become E.164 before routes see them.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NumbersFile {
    /// `+` and the country code, as in "+1".
    pub country: Option<At<String>>,
    /// What stands before an international number, as in "011".
    pub international: Option<At<String>>,
    /// What stands before a national number, as in "0".
    pub national: Option<At<String>>,
    /// What is taken off first, as in a technical prefix.
    pub strip: Option<At<String>>,
    /// What a number without any of these is; `keep` unless said otherwise.
    pub bare: Option<At<Bare>>,
}

/// What a number without `+` and without a prefix is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Bare {
    /// It stays as it is.
    #[default]
    Keep,
    /// A national one: the country code goes before it.
    National,
    /// An international one without its `+`.
    International,
}

/// `[zone.NAME]`: the addresses to use on one side of the network. What is left out is the edge's.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneFile {
    /// For people.
    pub description: Option<String>,
    /// Where its signalling arrives. With it, its trunks are recognised there and nowhere else;
    /// without it, at the edge's own listeners.
    pub listen: Option<At<ListenFile>>,
    /// The host that Via, Contact and Record-Route name, where it differs.
    pub advertise: Option<At<String>>,
    /// The local address of media.
    pub media: Option<At<IpAddr>>,
    /// The address that session descriptions name, where it differs.
    pub media_advertise: Option<At<IpAddr>>,
}

/// Local addresses of signalling, by transport. The plaintext ones are open only while an
/// exemption of some trunk of the zone runs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenFile {
    /// SIP over TLS, as in "10.20.0.5:5061".
    #[serde(default)]
    pub tls: Vec<At<Endpoint>>,
    /// SIP over TCP.
    #[serde(default)]
    pub tcp: Vec<At<Endpoint>>,
    /// SIP over UDP.
    #[serde(default)]
    pub udp: Vec<At<Endpoint>>,
}

/// `[[route]]`: one rule; exactly one of `send_to` and `refuse`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteFile {
    /// For people, in `explain` and in stored decisions.
    pub name: Option<At<String>>,
    /// Which calls; all without it.
    pub when: Option<WhenFile>,
    /// Where they go.
    pub send_to: Option<At<SendToFile>>,
    /// Refusals of one trunk after which the next is tried; 408, 500, 502, 503 and 504 unless
    /// said otherwise.
    pub failover: Option<At<Vec<At<Statuses>>>>,
    /// Whether calls to trunks are recorded, where both trunks' `recording` allows it; no unless
    /// said otherwise. `false` forbids it for calls to a voice agent.
    pub record: Option<At<bool>>,
    /// `false` forbids a transcript of calls to a voice agent.
    pub transcript: Option<At<bool>>,
    /// Or how they are refused.
    pub refuse: Option<At<RefuseFile>>,
}

/// Which calls a route is for; all that is given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhenFile {
    /// The trunk that the call comes from.
    pub trunk: Option<At<String>>,
    /// The called number or user.
    pub called: Option<At<PatternFile>>,
    /// The caller's number or user.
    pub caller: Option<At<PatternFile>>,
    /// The transport of the INVITE.
    pub transport: Option<Transport>,
}

/// Conditions on a number or user; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatternFile {
    /// It is this, after normalisation.
    pub exact: Option<At<String>>,
    /// It begins with this, after normalisation.
    pub prefix: Option<At<String>>,
    /// It is this as it came, before normalisation.
    pub user: Option<At<String>>,
    /// It fits this, after normalisation: `*` is any run of characters, `?` any one.
    pub pattern: Option<At<String>>,
}

/// Where a call goes: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SendToFile {
    /// A voice agent of this edge.
    pub agent: Option<At<String>>,
    /// One trunk.
    pub trunk: Option<At<String>>,
    /// Several trunks that share the calls or fail over.
    pub trunks: Option<At<Vec<At<ShareFile>>>>,
    /// A browser or softphone that has registered under this account of the edge.
    pub account: Option<At<String>>,
    /// The account that the call is for: its name is the called number or user.
    pub accounts: Option<At<bool>>,
}

/// One of several trunks.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShareFile {
    /// The trunk.
    pub name: At<String>,
    /// Its part of the calls, 1 to 1000; without it, it is for failover only.
    pub weight: Option<At<u32>>,
}

/// How a route refuses.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RefuseFile {
    /// The SIP status: 403, 404, 410, 480, 484, 486, 488, 600, 603, 604, 607 or 608; 603 unless
    /// said otherwise.
    pub status: Option<At<u16>>,
}

/// A network as `198.51.100.0/24` or one address as `198.51.100.7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("a network such as \"198.51.100.0/24\"", |text| {
            let net = match text.parse::<IpAddr>() {
                Ok(address) => IpNet::from(address),
                Err(_) => text.parse::<IpNet>().map_err(|_| {
                    "not a network such as 198.51.100.0/24 or 2001:db8::/32".to_owned()
                })?,
            };
            let (trunc, address) = (net.trunc(), net.addr());
            if trunc == net {
                return Ok(Self(net));
            }
            Err(format!("{text} has bits set after its prefix; write {trunc} or {address}"))
        }))
    }
}

/// Reads a string. The parsing happens inside of the visitor, so that its errors get their place.
struct Text<T>(&'static str, fn(&str) -> Result<T, String>);

impl<T> Visitor<'_> for Text<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        (self.1)(text).map_err(E::custom)
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A network as 198.51.100.0/24 or one address as 198.51.100.7.",
            "type": "string",
            "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$",
        })
    }
}

/// A local address with its port, as `10.20.0.5:5061` or `[2001:db8::5]:5061`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr);

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("an address with a port such as \"10.20.0.5:5061\"", |text| {
            let wrong = |_| "not an address with a port such as 10.20.0.5:5061".to_owned();
            text.parse().map(Self).map_err(wrong)
        }))
    }
}

impl JsonSchema for Endpoint {
    fn schema_name() -> Cow<'static, str> {
        "Endpoint".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A local address and port, as 10.20.0.5:5061 or [2001:db8::5]:5061.",
            "type": "string",
            "pattern": "^[0-9a-zA-Z.:%\\[\\]]+:[0-9]{1,5}$",
        })
    }
}

/// A time as `90s`, `5m` or `4h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text("a time such as \"90s\"", |text| {
            let seconds =
                [("s", 1), ("m", 60), ("h", 3600)].into_iter().find_map(|(unit, size)| {
                    let digits =
                        text.strip_suffix(unit).filter(|digits| !digits.starts_with('+'))?;
                    digits.parse::<u32>().ok().map(|number| u64::from(number) * size)
                });
            let wrong = || "not a time such as \"90s\", \"5m\" or \"4h\"".to_owned();
            seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(wrong)
        }))
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A time as 90s, 5m or 4h.",
            "type": "string",
            "pattern": "^[0-9]+[smh]$",
        })
    }
}

/// A day as `2027-01-31`, without quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(pub Date);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("not a day such as 2027-01-31, without time and quotes");
        let value = toml::value::Datetime::deserialize(from).map_err(|_| wrong())?;
        let date = value.date.filter(|_| value.time.is_none()).ok_or_else(wrong)?;
        Date::new(date.year, date.month, date.day).map(Self).ok_or_else(wrong)
    }
}

impl JsonSchema for Day {
    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A day as 2027-01-31, without quotes.",
            "type": "string",
            "format": "date",
        })
    }
}
