//! One `[trunk.NAME]`: defaults filled in, contradictions found. Here stand the rules that keep
//! plaintext out (DESIGN invariants 4.1 and 4.2): none without an exemption, no exemption without a
//! reason and a last day.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base::{Limit, TrunkName, limit};
use ipnet::IpNet;

use super::Defaults;
use super::digest;
use super::read::Item;
use super::report::Report;
use super::route::Callee;
use super::tls;
use super::uri::transport_of;
use crate::file::{At, Bare, Day, FromFile, Network, NumbersFile, Time, TrunkFile};
use crate::identify::domain_of;
use crate::numbers::Numbers;
use crate::policy::{Exemption, Peer, Trunk};
use crate::words::{
    Codec, DtlsLibrary, DtmfMethod, Keep, Protection, RefusalManner, RingBack, Suite, Transfer,
    Transport,
};
use crate::zone::Zone;
use base::diagnostic::suggest;

const DTMF: &[DtmfMethod] = &[DtmfMethod::Rfc4733, DtmfMethod::Info];
const ADD_SIGNALLING: &str =
    "remove it, or add `exempt.signalling = { reason = \"...\", expires = YYYY-MM-DD }`";

const BROWSERS_USE: &str = "write `wss`, `whip` or both; for others make another trunk";
const FOR_BROWSERS: &str =
    "remove it, or make a trunk with `from = { browsers = true }`, which has it";

/// What a trunk is compiled against.
pub(super) struct Surroundings<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) zones: &'a [&'a str],
    pub(super) compiled: &'a BTreeMap<String, Zone>,
}

/// Where findings of one item go, and whether there were any.
pub(super) struct Desk<'r, 'a> {
    report: &'r mut Report<'a>,
    file: usize,
}

impl Desk<'_, '_> {
    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.report.error(self.file, span, message, help);
    }

    pub(super) fn warning(&mut self, span: Range<usize>, message: impl Into<String>, help: &str) {
        let help = (!help.is_empty()).then(|| help.to_owned());
        self.report.warning(self.file, span, message, help);
    }

    /// A list that must not be empty and names nothing twice.
    fn list<T: Copy + PartialEq + core::fmt::Display>(&mut self, list: &At<Vec<T>>) -> Vec<T> {
        if list.is_empty() {
            self.error(list.span(), "the list is empty", "leave the key out for the default");
        }
        for (index, word) in list.iter().enumerate() {
            if list[..index].contains(word) {
                self.error(list.span(), format!("`{word}` is listed twice"), "");
            }
        }
        (**list).clone()
    }

    fn time(&mut self, time: &At<Time>, bound: &Limit) -> Duration {
        if time.0.is_zero() || time.0 > bound.millis() {
            let most = bound.value / 1000;
            let help = format!("at least 1s and at most {most}s (limit {})", bound.name);
            self.error(time.span(), "the time is out of range", &help);
        }
        time.0
    }

    fn zone(&mut self, zone: &At<String>, zones: &[&str]) -> String {
        if !zones.contains(&zone.as_str()) {
            let help = suggest(zone, zones).unwrap_or_else(|| format!("add [zone.{}]", **zone));
            self.error(zone.span(), format!("there is no zone `{}`", **zone), &help);
        }
        (**zone).clone()
    }
}

/// Checks `[defaults]` where it stands, so that its errors are not those of every trunk.
pub(super) fn check_defaults(report: &mut Report<'_>, from: &Surroundings<'_>) {
    let defaults = from.defaults;
    let mut desk = Desk { report, file: defaults.file };
    if let Some(zone) = &defaults.zone {
        desk.zone(zone, from.zones);
    }
    if let Some(suites) = &defaults.suites {
        desk.list(suites);
    }
    if let Some(codecs) = &defaults.codecs {
        desk.list(codecs);
    }
    if let Some(dtmf) = &defaults.dtmf {
        desk.list(dtmf);
    }
    if let Some(time) = &defaults.max_duration {
        desk.time(time, &limit::CALL_DURATION_MS);
    }
    if let Some(time) = &defaults.media_inactive {
        desk.time(time, &limit::CALL_DURATION_MS);
    }
    if let Some(time) = &defaults.first_response {
        desk.time(time, &limit::CALL_RESPONSE_LONGEST_MS);
    }
    if let Some(time) = &defaults.ring {
        desk.time(time, &limit::CALL_RING_MS);
    }
    if let Some(file) = &defaults.numbers {
        numbers(&mut desk, file);
    }
}

/// Compiles one trunk; `None` where something in it was reported as an error.
pub(super) fn compile(
    report: &mut Report<'_>,
    item: &Item<TrunkFile>,
    from: &Surroundings<'_>,
) -> Option<Trunk> {
    report.check_name(item, "trunk");
    let file = item.value.as_ref()?;
    let errors_before = report.errors();
    let place = report.place(item);
    let mut desk = Desk { report, file: item.file };
    let (networks, certificates) = identity(&mut desk, item, file);
    let is_browsers = browsers(&mut desk, file);
    let transports = transports(&mut desk, file, is_browsers);
    let present = present(&mut desk, file, is_browsers);
    let send_to = peers(&mut desk, file);
    let (signalling, media) = exemptions(&mut desk, file, &transports, &send_to);
    let media_from = media_from(&mut desk, file, &networks);
    let (srtp_inbound, srtp_outbound) = protections(&mut desk, file);
    check_certificates(&mut desk, file.from.as_ref(), &transports);
    let tls = tls::compile(&mut desk, file.tls.as_ref());
    let is_plain = send_to.iter().any(|peer| peer.transport.is_plaintext());
    let digest = digest::compile(&mut desk, file.digest.as_ref(), is_plain);
    let trunk = with_defaults(
        &mut desk,
        file,
        from,
        Trunk {
            name: TrunkName::new(&item.name),
            networks,
            certificates,
            is_browsers,
            send_to,
            media_from,
            zone: None,
            home: None,
            tls,
            digest,
            transports,
            srtp_inbound,
            srtp_outbound,
            says_srtp_inbound: file.srtp.as_ref().is_some_and(|srtp| srtp.inbound.is_some()),
            suites: Suite::ALL.to_vec(),
            codecs: Codec::DEFAULT.to_vec(),
            calls: None,
            calls_per_second: None,
            signalling,
            media,
            recording: Keep::Never,
            transcript: Keep::Allowed,
            transfer: Transfer::Edge,
            ring_back: RingBack::usual(),
            dtls_library: DtlsLibrary::usual(),
            present,
            refuse: RefusalManner::Answer,
            max_duration: limit::CALL_DURATION_MS.millis(),
            media_inactive: limit::CALL_MEDIA_INACTIVE_MS.millis(),
            first_response: limit::CALL_RESPONSE_MS.millis(),
            ring: limit::CALL_RING_MS.millis(),
            dtmf: DTMF.to_vec(),
            numbers: Numbers::default(),
            place,
        },
    );
    (report.errors() == errors_before).then_some(trunk)
}

/// Fills in what the trunk says, else what `[defaults]` says; `trunk` holds what holds otherwise.
fn with_defaults(
    desk: &mut Desk<'_, '_>,
    file: &TrunkFile,
    from: &Surroundings<'_>,
    mut trunk: Trunk,
) -> Trunk {
    let defaults: &Defaults = from.defaults;
    trunk.zone = match &file.zone {
        Some(zone) => Some(desk.zone(zone, from.zones)),
        None => defaults.zone.as_ref().map(|zone| (**zone).clone()),
    };
    let zone = trunk.zone.as_ref().and_then(|name| from.compiled.get(name));
    // The port of browsers is the edge's own, whatever zone their media is at.
    let zone = zone.filter(|zone| !zone.listen.is_empty() && !trunk.is_browsers);
    trunk.home = zone.map(|zone| Arc::clone(&zone.name));
    if let Some(suites) = &file.suites {
        trunk.suites = desk.list(suites);
    } else if let Some(suites) = &defaults.suites {
        trunk.suites.clone_from(suites);
    }
    if let Some(codecs) = &file.codecs {
        trunk.codecs = desk.list(codecs);
    } else if let Some(codecs) = &defaults.codecs {
        trunk.codecs.clone_from(codecs);
    }
    if let Some(dtmf) = &file.dtmf {
        trunk.dtmf = desk.list(dtmf);
    } else if let Some(dtmf) = &defaults.dtmf {
        trunk.dtmf.clone_from(dtmf);
    }
    times(desk, file, defaults, &mut trunk);
    if let Some(file) = &file.numbers {
        trunk.numbers = numbers(desk, file);
    } else if let Some(file) = &defaults.numbers {
        trunk.numbers = plain_numbers(file);
    }
    for limits in [&defaults.limits, &file.limits].into_iter().flatten() {
        trunk.calls = limits.calls.or(trunk.calls);
        trunk.calls_per_second = limits.calls_per_second.or(trunk.calls_per_second);
    }
    trunk.recording = file.recording.or(defaults.recording).unwrap_or(trunk.recording);
    trunk.transcript = file.transcript.or(defaults.transcript).unwrap_or(trunk.transcript);
    trunk.transfer = file.transfer.or(defaults.transfer).unwrap_or(trunk.transfer);
    trunk.ring_back = file.ring_back.or(defaults.ring_back).unwrap_or(trunk.ring_back);
    trunk.dtls_library = file.dtls_library.unwrap_or(trunk.dtls_library);
    trunk.refuse = file.refuse.or(defaults.refuse).unwrap_or(trunk.refuse);
    trunk
}

/// Each time with its bound.
fn times(desk: &mut Desk<'_, '_>, file: &TrunkFile, defaults: &Defaults, trunk: &mut Trunk) {
    for (time, said, usual, bound) in [
        (
            &mut trunk.max_duration,
            &file.max_duration,
            &defaults.max_duration,
            &limit::CALL_DURATION_MS,
        ),
        (
            &mut trunk.media_inactive,
            &file.media_inactive,
            &defaults.media_inactive,
            &limit::CALL_DURATION_MS,
        ),
        (
            &mut trunk.first_response,
            &file.first_response,
            &defaults.first_response,
            &limit::CALL_RESPONSE_LONGEST_MS,
        ),
        (&mut trunk.ring, &file.ring, &defaults.ring, &limit::CALL_RING_MS),
    ] {
        if let Some(said) = said {
            *time = desk.time(said, bound);
        } else if let Some(usual) = usual {
            *time = usual.0;
        }
    }
}

/// Who may be this trunk.
fn identity(
    desk: &mut Desk<'_, '_>,
    item: &Item<TrunkFile>,
    file: &TrunkFile,
) -> (Vec<IpNet>, Vec<String>) {
    let Some(from) = &file.from else {
        if file.send_to.as_ref().is_none_or(Vec::is_empty) {
            let message = format!("trunk `{}` has neither `from` nor `send_to`", item.name);
            let help = "say who may be it, where it is dialled, or both";
            desk.error(item.name_span.clone(), message, help);
        }
        return (Vec::new(), Vec::new());
    };
    let networks = from.networks.as_ref().map(|list| nets(desk, list)).unwrap_or_default();
    let mut certificates = Vec::new();
    for name in from.certificates.iter().flat_map(|list| list.iter()) {
        // RFC 5922 section 7.2: a wildcard proves no SIP domain.
        let bad =
            name.is_empty() || name.contains(['*', '@']) || name.contains(char::is_whitespace);
        match domain_of(name).filter(|_| !bad) {
            Some(domain) => certificates.push(domain),
            None => {
                let help = "write the name in the peer's certificate, as in \"sip.acme.example\"";
                desk.error(name.span(), format!("`{}` names no peer", **name), help);
            }
        }
    }
    let given = from.networks.as_ref().is_some_and(|list| !list.is_empty())
        || from.certificates.as_ref().is_some_and(|list| !list.is_empty())
        || from.browsers.as_ref().is_some_and(|it| **it);
    if !given {
        let help = "name networks or certificates; leave `from` out if calls only go to this trunk";
        desk.error(from.span(), "`from` names nobody", help);
    }
    (networks, certificates)
}

fn nets(desk: &mut Desk<'_, '_>, list: &At<Vec<At<Network>>>) -> Vec<IpNet> {
    for net in list.iter().filter(|net| net.0.prefix_len() == 0) {
        let help = "anybody can be this trunk; name its networks";
        desk.warning(net.span(), format!("`{}` is every address", net.0), help);
    }
    list.iter().map(|net| net.0).collect()
}

/// Whether it is the trunk of browsers. What cannot be true of them is an error.
fn browsers(desk: &mut Desk<'_, '_>, file: &TrunkFile) -> bool {
    if !is_browsers(file) {
        return false;
    }
    let certificates = file.from.as_ref().and_then(|from| from.certificates.as_ref());
    let media = file.exempt.as_ref().and_then(|exempt| exempt.media.as_ref());
    let first_uri = file.send_to.as_ref().and_then(|list| list.first());
    for (span, message, help) in [
        (
            certificates.map(At::span),
            "browsers show no client certificate",
            "remove it: they prove themselves by a key, a token or a password",
        ),
        (
            first_uri.map(At::span),
            "browsers are called by their account",
            "remove it, and route with `send_to = { account = \"...\" }`",
        ),
        (file.tls.as_ref().map(At::span), "no connection is opened to browsers", "remove it"),
        (file.digest.as_ref().map(At::span), "browsers ask for no password of ours", "remove it"),
        (media.map(At::span), "browsers have no plain RTP", "remove it"),
    ] {
        if let Some(span) = span {
            desk.error(span, message, help);
        }
    }
    true
}

/// What other trunks are shown of browsers' callers who were given nothing.
fn present(desk: &mut Desk<'_, '_>, file: &TrunkFile, is_browsers: bool) -> Option<String> {
    let present = file.present.as_ref()?;
    if !is_browsers {
        let help = "a carrier says itself who calls; remove it";
        desk.error(present.span(), "only the callers of browsers are presented by us", help);
    } else if !base::is_caller(present) {
        let help = "a number, as in \"+498912345678\", or the user of a SIP address";
        desk.error(present.span(), format!("`{}` names no caller", **present), help);
    }
    Some((**present).clone())
}

fn is_browsers(file: &TrunkFile) -> bool {
    let from = file.from.as_ref().and_then(|from| from.browsers.as_ref());
    from.is_some_and(|it| **it)
}

/// Looks that browsers are one trunk at most; the first of several is the one that routes get.
pub(super) fn check_browsers(
    report: &mut Report<'_>,
    items: &[Item<TrunkFile>],
    callees: &mut [Callee<'_>],
) {
    let mut first: Option<&Item<TrunkFile>> = None;
    for (item, callee) in items.iter().zip(callees) {
        let Some(from) = item.value.as_ref().filter(|it| is_browsers(it)).map(|it| &it.from) else {
            continue;
        };
        callee.is_browsers = true; // also where something else is wrong with it
        let Some(first) = first else {
            first = Some(item);
            continue;
        };
        let span = from.as_ref().map_or_else(|| item.name_span.clone(), At::span);
        let message = format!("browsers are trunk `{}` already", first.name);
        let help = "one trunk has all of them; tell them apart by `when.transport` or the account";
        report.error(item.file, span, message, Some(help.to_owned()));
    }
}

fn transports(desk: &mut Desk<'_, '_>, file: &TrunkFile, is_browsers: bool) -> Vec<Transport> {
    let Some(list) = &file.transports else {
        return match is_browsers {
            true => vec![Transport::Wss, Transport::Whip],
            false => vec![Transport::Tls],
        };
    };
    if list.is_empty() {
        let usual = if is_browsers { "[\"wss\", \"whip\"]" } else { "[\"tls\"]" };
        desk.error(list.span(), "the list is empty", &format!("leave the key out for `{usual}`"));
    }
    let exempted = file.exempt.as_ref().is_some_and(|exempt| exempt.signalling.is_some());
    let mut words: Vec<Transport> = Vec::new();
    for word in list.iter() {
        if words.contains(word) {
            desk.error(word.span(), format!("`{}` is listed twice", **word), "");
        }
        if is_browsers != word.is_browsers() {
            let (message, help) = match is_browsers {
                true => (format!("no browser comes over `{}`", **word), BROWSERS_USE),
                false => (format!("only browsers come over `{}`", **word), FOR_BROWSERS),
            };
            desk.error(word.span(), message, help);
        } else if word.is_plaintext() && !exempted {
            let message = format!("`{}` is plaintext and this trunk is not exempted", **word);
            desk.error(word.span(), message, ADD_SIGNALLING);
        }
        words.push(**word);
    }
    words
}

fn peers(desk: &mut Desk<'_, '_>, file: &TrunkFile) -> Vec<Peer> {
    let exempted = file.exempt.as_ref().is_some_and(|exempt| exempt.signalling.is_some());
    let mut peers = Vec::new();
    for uri in file.send_to.iter().flatten() {
        match transport_of(uri) {
            Err(wrong) => {
                let help = "write it as in \"sip:sip.acme.example;transport=tls\"";
                desk.error(uri.span(), wrong, help);
            }
            Ok(transport) => {
                if transport.is_plaintext() && !exempted {
                    let message =
                        format!("`{transport}` is plaintext and this trunk is not exempted");
                    desk.error(uri.span(), message, ADD_SIGNALLING);
                }
                peers.push(Peer { uri: (**uri).clone(), transport });
            }
        }
    }
    peers
}

fn exemptions(
    desk: &mut Desk<'_, '_>,
    file: &TrunkFile,
    transports: &[Transport],
    send_to: &[Peer],
) -> (Option<Exemption>, Option<Exemption>) {
    let exempt = file.exempt.as_deref();
    let signalling = exempt.and_then(|it| it.signalling.as_ref()).map(|it| {
        let mut used = transports.iter().chain(send_to.iter().map(|peer| &peer.transport));
        if used.any(|transport| transport.is_plaintext()) {
            let help = "whoever reads the signalling can decrypt the calls; prefer TLS";
            desk.warning(it.span(), "SRTP keys of this trunk cross plaintext signalling", help);
        } else {
            let help = "remove it; no transport of this trunk is plaintext";
            desk.warning(it.span(), "this exemption has no effect", help);
        }
        exemption(desk, &it.reason, &it.expires, true)
    });
    let media = exempt.and_then(|it| it.media.as_ref()).map(|it| {
        if !it.inbound && !it.outbound {
            let help = "add `inbound = true`, `outbound = true` or both";
            desk.error(it.span(), "this exemption names no direction", help);
        }
        exemption(desk, &it.reason, &it.expires, it.inbound)
    });
    (signalling, media)
}

fn exemption(
    desk: &mut Desk<'_, '_>,
    reason: &At<String>,
    expires: &At<Day>,
    inbound: bool,
) -> Exemption {
    if reason.trim().is_empty() {
        let help = "say why and name a ticket: somebody will ask";
        desk.error(reason.span(), "an exemption needs a reason", help);
    }
    Exemption { expires: expires.0, span: expires.span(), inbound }
}

fn media_from(desk: &mut Desk<'_, '_>, file: &TrunkFile, networks: &[IpNet]) -> Vec<IpNet> {
    let media_from = match &file.media_from {
        Some(list) => nets(desk, list),
        None => networks.to_vec(),
    };
    if let Some(media) = file.exempt.as_ref().and_then(|it| it.media.as_ref())
        && media_from.is_empty()
    {
        let help = "add `media_from = [\"...\"]`";
        let message = "plain RTP needs networks to come from, and this trunk has none";
        desk.error(media.span(), message, help);
    }
    media_from
}

/// What the file says, else what the exemption lifts: to write the exemption is to want it.
fn protections(desk: &mut Desk<'_, '_>, file: &TrunkFile) -> (Protection, Protection) {
    let media = file.exempt.as_ref().and_then(|it| it.media.as_ref());
    let srtp = file.srtp.as_ref();
    let mut one = |direction: &str, said: Option<&At<Protection>>, lifted: bool| match said {
        Some(word) if **word == Protection::Optional && !lifted => {
            let help = format!(
                "write `required`, or add `exempt.media = {{ reason = \"...\", expires = \
                 YYYY-MM-DD, {direction} = true }}`"
            );
            desk.error(word.span(), "plain RTP is not exempted on this trunk", &help);
            Protection::Required
        }
        Some(word) => {
            if **word == Protection::Required
                && lifted
                && let Some(media) = media
            {
                let message = format!("`{direction}` of this exemption has no effect");
                let help = format!("`srtp.{direction}` is `required`; remove one of the two");
                desk.warning(media.span(), message, &help);
            }
            **word
        }
        None if lifted => Protection::Optional,
        None => Protection::Required,
    };
    (
        one("inbound", srtp.and_then(|it| it.inbound.as_ref()), media.is_some_and(|it| it.inbound)),
        one(
            "outbound",
            srtp.and_then(|it| it.outbound.as_ref()),
            media.is_some_and(|it| it.outbound),
        ),
    )
}

fn check_certificates(
    desk: &mut Desk<'_, '_>,
    from: Option<&At<FromFile>>,
    transports: &[Transport],
) {
    let Some(list) = from.and_then(|from| from.certificates.as_ref()) else { return };
    let plaintext: Vec<&str> =
        transports.iter().filter(|it| it.is_plaintext()).map(|it| it.word()).collect();
    if list.is_empty() || plaintext.is_empty() {
        return;
    }
    let all = plaintext.len() == transports.len();
    let message = if all {
        "a certificate is asked for, but no transport of this trunk carries one".to_owned()
    } else {
        format!("no certificate comes over {}: nobody is this trunk there", plaintext.join(", "))
    };
    desk.warning(list.span(), message, "add `tls`, or make another trunk for plaintext");
}

fn numbers(desk: &mut Desk<'_, '_>, file: &NumbersFile) -> Numbers {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(country) = &file.country
        && !country.strip_prefix('+').is_some_and(|code| digits(code) && code.len() <= 3)
    {
        desk.error(country.span(), "not a country code", "write it as in \"+1\" or \"+49\"");
    }
    for prefix in [&file.international, &file.national].into_iter().flatten() {
        if !digits(prefix) {
            desk.error(prefix.span(), "not a dialling prefix", "write digits only");
        }
    }
    if let Some(strip) = file.strip.as_ref().filter(|strip| strip.is_empty()) {
        desk.error(strip.span(), "nothing to strip", "remove it");
    }
    if file.country.is_none() {
        let needs = "which country? add `country = \"+...\"`";
        if let Some(national) = &file.national {
            desk.error(national.span(), "national numbers without a country", needs);
        }
        if let Some(bare) = file.bare.as_ref().filter(|bare| ***bare == Bare::National) {
            desk.error(bare.span(), "national numbers without a country", needs);
        }
    }
    plain_numbers(file)
}

fn plain_numbers(file: &NumbersFile) -> Numbers {
    let text = |it: &Option<At<String>>| it.as_ref().map(|it| (**it).clone());
    Numbers {
        country: text(&file.country),
        international: text(&file.international),
        national: text(&file.national),
        strip: text(&file.strip),
        bare: file.bare.as_ref().map_or(Bare::Keep, |bare| **bare),
    }
}
