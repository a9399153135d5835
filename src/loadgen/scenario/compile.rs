//! What a file's words amount to, with every limit checked.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use audio::Codec;
use base::diagnostic::Errors;
use base::limit::{
    CALL_DURATION_MS, LOADGEN_ACTOR_PER_SECOND, LOADGEN_ATTEMPTS, LOADGEN_CALLS,
    LOADGEN_CALLS_PER_SECOND, LOADGEN_CONCURRENT, LOADGEN_CONNECTIONS, LOADGEN_KINDS,
    LOADGEN_MEDIA_THREADS, LOADGEN_RUN_MS, LOADGEN_SCRIPT_STEPS, LOADGEN_SETUP_MS,
};
use base::{Limit, Secret};
use rtp::{Digit, Suite};
use toml::Spanned;

use super::expect::Expectation;
use super::file::{
    ActorFile, CalleeFile, CalleeKindFile, CallerFile, KeysFile, LimitsFile, ScenarioFile,
    StageFile, TargetFile, Text,
};
use super::read::Source;
use super::sound::{Piece, Sound};
use super::words::{Wrong, time, times, word, wrong};
use super::{
    Actor, ActorKind, Called, Callee, CalleeKind, CallerKind, KeyForm, Keys, Limits, Outward, Says,
    Scenario, Stage, TOKEN, TOKEN_DIGITS, Taking, Times, Voice,
};
use crate::cause::Cause;
use crate::config::{Authorities, Identity, OfferMode, Protection, Target, Tls, Transport};

const CODECS: &[(&str, Codec)] =
    &[("opus", Codec::Opus), ("g722", Codec::G722), ("pcma", Codec::Pcma), ("pcmu", Codec::Pcmu)];
const MEDIA: &[(&str, Protection)] = &[
    ("srtp", Protection::Srtp),
    ("opportunistic", Protection::Opportunistic),
    ("plain", Protection::Plain),
];
const TRANSPORTS: &[(&str, Transport)] =
    &[("tls", Transport::Tls), ("tcp", Transport::Tcp), ("udp", Transport::Udp)];
const FORMS: &[(&str, KeyForm)] =
    &[("rfc4733", KeyForm::Rfc4733), ("info", KeyForm::Info), ("inband", KeyForm::Inband)];
const ACTORS: &[(&str, ActorKind)] = &[
    ("plaintext_invite", ActorKind::PlaintextInvite),
    ("invite_flood", ActorKind::InviteFlood),
    ("malformed_sip", ActorKind::MalformedSip),
    ("half_open_tls", ActorKind::HalfOpenTls),
    ("stranger_rtp", ActorKind::StrangerRtp),
    ("srtp_replay", ActorKind::SrtpReplay),
];
/// Who hangs up: whether the caller waits for it.
const HANG_UP: &[(&str, bool)] = &[("caller", false), ("callee", true)];
/// Longest time between two packets: a relay that hears nothing for longer may take a path for
/// lost.
const EVERY_MOST: Duration = Duration::from_secs(20);
const PTIMES: &[u16] = &[10, 20, 30, 40, 60];

/// Bounds that a scenario has without saying so.
const DURATION: Duration = Duration::from_secs(3_600);
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);
const CONCURRENCY: u32 = 1_000;

/// Collects what is wrong, and what is said.
struct Compiler<'a> {
    source: &'a Source<'a>,
    errors: Errors,
    sounds: Vec<Sound>,
}

/// What callers and callees have in common in a file.
struct VoiceFile {
    codecs: Option<Vec<Text>>,
    ptime: Option<Spanned<u16>>,
    every: Option<Text>,
    media: Option<Text>,
    suites: Option<Vec<Text>>,
    rtcp_mux: bool,
    say: Option<Vec<Text>>,
    say_after: Option<Text>,
    pause: Option<Text>,
    once: bool,
}

/// The scenario of a file.
pub(super) fn compile(source: &Source<'_>, file: ScenarioFile) -> Result<Scenario, Errors> {
    let mut it = Compiler { source, errors: Errors(Vec::new()), sounds: Vec::new() };
    it.count("stages", file.stage.len());
    it.count("kinds of caller", file.caller.len());
    it.count("actors", file.actor.len());
    let limits = it.limits(file.limits.unwrap_or_default());
    let outward = file.target.map(|target| it.outward(target));
    let stages: Vec<Stage> = file.stage.into_iter().flat_map(|stage| it.stages(stage)).collect();
    let mut callers: Vec<CallerKind> = Vec::new();
    for (index, caller) in file.caller.into_iter().enumerate() {
        let span = caller.span();
        let caller = it.caller(index, caller.into_inner());
        if callers.iter().any(|known| known.name == caller.name) {
            it.error(span, format!("two kinds of caller are called `{}`", caller.name), None);
        }
        callers.push(caller);
    }
    if callers.is_empty() {
        let plain = it.caller(0, CallerFile::default());
        callers.push(plain);
    }
    let callee = file.callee.and_then(|callee| it.callee(callee));
    let actors = file.actor.into_iter().map(|actor| it.actor(actor, &callers)).collect();
    let expectations = file.expect.iter().filter_map(|text| it.text(text, Expectation::parse));
    let expectations: Vec<Expectation> = expectations.collect();
    let scenario = Scenario {
        name: file.name.map_or_else(|| source.stem(), Spanned::into_inner),
        description: file.description.unwrap_or_default(),
        seed: file.seed.unwrap_or(1),
        outward: outward.flatten(),
        limits,
        stages,
        callers,
        callee,
        actors,
        expectations,
        sounds: it.sounds,
    };
    let mut errors = it.errors;
    if scenario.calls_out() && scenario.outward.is_none() && errors.0.is_empty() {
        let help = Some("write [target] with to = \"sip:..\", or give --to".to_owned());
        errors.0.push(source.diagnostic(0..0, "nobody is there to be called", help));
    }
    for kind in scenario.callers.iter().filter(|kind| is_browser(&scenario, kind)) {
        let keys = kind.keys.as_ref().is_some_and(|keys| keys.form != KeyForm::Rfc4733);
        let is_late = kind.offer == OfferMode::Late;
        let tells = kind.cancel_after.is_some() || kind.cause.is_some();
        if keys || is_late || kind.on_hold.is_some() || tells {
            let message = format!("`{}` is a browser", kind.name);
            let help =
                "leave out late_offer, on_hold, cancel_after and cause, and press by rfc4733";
            errors.0.push(source.diagnostic(0..0, message, Some(help.to_owned())));
        }
    }
    if !scenario.calls_out() && scenario.callee.is_none() && errors.0.is_empty() {
        let help = Some("write [[stage]] to call, or [callee] to be called".to_owned());
        errors.0.push(source.diagnostic(0..0, "the scenario does nothing", help));
    }
    if errors.0.is_empty() { Ok(scenario) } else { Err(errors) }
}

/// Whether a kind of caller calls by WHIP.
fn is_browser(scenario: &Scenario, kind: &CallerKind) -> bool {
    let to = kind.to.as_ref().or(scenario.outward.as_ref().map(|it| &it.to));
    to.is_some_and(|it| it.target.transport == Transport::Whip)
}

impl Compiler<'_> {
    fn error(&mut self, span: Range<usize>, message: impl Into<String>, help: Option<String>) {
        let finding = self.source.diagnostic(span, message, help);
        self.errors.0.push(finding);
    }

    fn count(&mut self, what: &str, count: usize) {
        if count > LOADGEN_KINDS.get() {
            let (most, name) = (LOADGEN_KINDS.value, LOADGEN_KINDS.name);
            self.error(0..0, format!("more than {most} {what} (limit {name})"), None);
        }
    }

    /// Reads a text; what is wrong is noted.
    fn text<T>(&mut self, text: &Text, read: impl Fn(&str) -> Result<T, Wrong>) -> Option<T> {
        match read(text.get_ref()) {
            Ok(value) => Some(value),
            Err((message, help)) => {
                self.error(text.span(), message, help);
                None
            }
        }
    }

    fn texts<T>(&mut self, texts: &[Text], read: impl Fn(&str) -> Result<T, Wrong>) -> Vec<T> {
        texts.iter().filter_map(|text| self.text(text, &read)).collect()
    }

    /// A number within 1 (or `least`) and a limit.
    fn number<T: Copy + Into<f64>>(&mut self, value: &Spanned<T>, least: f64, most: &Limit) -> T {
        let number: f64 = (*value.get_ref()).into();
        if !(number >= least && number <= most.value as f64) {
            let message = format!("{number} is not between {least} and {}", most.value);
            self.error(value.span(), message, Some(format!("limit {}: {}", most.name, most.why)));
        }
        *value.get_ref()
    }

    fn time(&mut self, text: Option<&Text>, most: &Limit, otherwise: Duration) -> Duration {
        let Some(text) = text else { return otherwise };
        let found = self.text(text, time).unwrap_or(otherwise);
        self.bounded(text, found, most);
        found
    }

    fn times(&mut self, text: Option<&Text>) -> Option<Times> {
        let text = text?;
        let found = self.text(text, times)?;
        self.bounded(text, found.most(), &CALL_DURATION_MS);
        Some(found)
    }

    fn bounded(&mut self, text: &Text, time: Duration, most: &Limit) {
        if time > most.millis() {
            let message = format!("`{}` is longer than {} ms", text.get_ref(), most.value);
            self.error(text.span(), message, Some(format!("limit {}: {}", most.name, most.why)));
        }
    }

    fn limits(&mut self, file: LimitsFile) -> Limits {
        let duration = self.time(file.duration.as_ref(), &LOADGEN_RUN_MS, DURATION);
        let setup = self.time(file.setup_timeout.as_ref(), &LOADGEN_SETUP_MS, SETUP_TIMEOUT);
        let most = u32::try_from(LOADGEN_CALLS.value).unwrap_or(u32::MAX);
        Limits {
            calls: file.calls.map_or(most, |it| self.number(&it, 1.0, &LOADGEN_CALLS)),
            concurrency: file
                .concurrency
                .map_or(CONCURRENCY, |it| self.number(&it, 1.0, &LOADGEN_CONCURRENT)),
            duration,
            setup_timeout: setup,
            media_threads: file
                .media_threads
                .map(|it| self.number(&it, 1.0, &LOADGEN_MEDIA_THREADS)),
        }
    }

    fn called(&mut self, text: &Text) -> Option<Called> {
        let written = text.get_ref();
        let sample = written.replace(TOKEN, &"0".repeat(TOKEN_DIGITS));
        let user = written.split('@').next().unwrap_or_default();
        if written.matches(TOKEN).count() > 1 || written.contains(TOKEN) && !user.contains(TOKEN) {
            let help = Some("write it once, before the @, as in sip:+4930{token}@..".to_owned());
            self.error(text.span(), "{token} stands for the called number", help);
            return None;
        }
        let target = self.text(text, |_| match Target::parse(&sample) {
            Ok(target) if target.transport == Transport::Wss => {
                Err(wrong("nobody is called by a WebSocket here", "write https:// and WHIP's path"))
            }
            Ok(target) => Ok(target),
            Err(error) => {
                let help = "write it as in \"sip:reception@127.0.0.1:5061\"";
                Err(wrong(error.to_string(), help))
            }
        })?;
        Some(Called { text: written.clone(), target })
    }

    fn outward(&mut self, file: TargetFile) -> Option<Outward> {
        let authorities = if file.danger_accept_any_certificate.unwrap_or(false) {
            Authorities::DangerAcceptAnyCertificate
        } else {
            Authorities::File(file.ca.unwrap_or_else(|| "certs/ca.pem".to_owned()).into())
        };
        let identity = self.identity(file.certificate, file.key);
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        let media_address = file.media_address.and_then(|text| {
            self.text(&text, |text| match text.parse::<IpAddr>() {
                Ok(address) if !address.is_unspecified() => Ok(address),
                _ => Err(wrong(format!("`{text}` is no address"), "write one of this machine's")),
            })
        });
        let connections =
            file.connections.map_or(1, |it| self.number(&it, 1.0, &LOADGEN_CONNECTIONS));
        let token = self.token(file.token_env, file.token_file);
        let to = file.to?;
        Some(Outward {
            to: self.called(&to)?,
            from: file.from.map(Spanned::into_inner),
            tls: Tls { authorities, identity, server_name: file.server_name },
            connections,
            token,
            media_address,
        })
    }

    /// A browser's token, which stands in no scenario itself.
    fn token(&mut self, variable: Option<Text>, file: Option<Text>) -> Option<Secret<String>> {
        let read = |text: Result<String, String>, place: &str| match text {
            Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim().to_owned())),
            Ok(_) => Err((format!("{place} holds no token"), None)),
            Err(why) => Err((format!("{place}: {why}"), None)),
        };
        match (variable, file) {
            (Some(name), _) => self.text(&name, |name| {
                read(std::env::var(name).map_err(|error| error.to_string()), name)
            }),
            (None, Some(path)) => self.text(&path, |path| {
                read(std::fs::read_to_string(path).map_err(|error| error.to_string()), path)
            }),
            (None, None) => None,
        }
    }

    fn identity(
        &mut self,
        certificate: Option<Text>,
        key: Option<Text>,
    ) -> Option<(PathBuf, PathBuf)> {
        match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some((certificate.into_inner().into(), key.into_inner().into()))
            }
            (None, None) => None,
            (Some(lone), None) | (None, Some(lone)) => {
                let help = Some("write both, `certificate` and `key`".to_owned());
                self.error(lone.span(), "a certificate needs its key", help);
                None
            }
        }
    }

    fn stages(&mut self, stage: Spanned<StageFile>) -> Vec<Stage> {
        let stage = stage.into_inner();
        let time = self.time(Some(&stage.time), &LOADGEN_RUN_MS, Duration::ZERO);
        let from = self.number(&stage.rate, 0.0, &LOADGEN_CALLS_PER_SECOND);
        let to = stage.to.as_ref().map(|to| self.number(to, 0.0, &LOADGEN_CALLS_PER_SECOND));
        let to = to.unwrap_or(from);
        let Some(steps) = &stage.steps else { return vec![Stage { from, to, time }] };
        if stage.to.is_none() {
            let help = Some("write `to`, the rate of the last step".to_owned());
            self.error(steps.span(), "steps lead from `rate` to `to`", help);
        }
        let steps = self.number(steps, 2.0, &LOADGEN_KINDS);
        let step = (to - from) / f64::from(steps.max(2) - 1);
        (0..steps.min(u32::try_from(LOADGEN_KINDS.value).unwrap_or(u32::MAX)))
            .map(|index| {
                let rate = step.mul_add(f64::from(index), from);
                Stage { from: rate, to: rate, time: time / steps.max(1) }
            })
            .collect()
    }

    fn voice(&mut self, file: VoiceFile) -> Voice {
        let protection = file.media.and_then(|it| self.text(&it, |it| word(it, MEDIA)));
        let suites: Vec<(&str, Suite)> =
            Suite::PREFERENCE.iter().map(|suite| (suite.name(), *suite)).collect();
        let codecs = match &file.codecs {
            Some(codecs) => self.texts(codecs, |it| word(it, CODECS)),
            None => CODECS.iter().map(|(_, codec)| *codec).collect(),
        };
        let ptime_ms = file.ptime.as_ref().map_or(20, |ptime| {
            if !PTIMES.contains(ptime.get_ref()) {
                let help = Some("there is 10, 20, 30, 40 and 60 ms".to_owned());
                self.error(ptime.span(), "no packet has that time", help);
            }
            if *ptime.get_ref() == 30 && codecs.contains(&Codec::Opus) {
                let help = Some("take 20 or 40, or leave opus out of `codecs`".to_owned());
                self.error(ptime.span(), "a packet of Opus does not have 30 ms", help);
            }
            *ptime.get_ref()
        });
        let silence = [Piece::Silence].to_vec();
        let pieces = file.say.map_or(silence, |say| self.texts(&say, Piece::parse));
        let after = self.time(file.say_after.as_ref(), &CALL_DURATION_MS, Duration::ZERO);
        let pause = self.time(file.pause.as_ref(), &CALL_DURATION_MS, Duration::ZERO);
        let sound = self.sound(Sound::Pieces { after, pause, pieces });
        let every_ms = file.every.and_then(|text| {
            let every = self.text(&text, time)?;
            if every < Duration::from_millis(ptime_ms.into()) || every > EVERY_MOST {
                let help = Some("write it as in every = \"1s\"; 20 s at most".to_owned());
                self.error(text.span(), "packets are not that far apart", help);
            }
            u16::try_from(every.as_millis()).ok()
        });
        Voice {
            codecs,
            ptime_ms,
            every_ms,
            protection: protection.unwrap_or_default(),
            suites: match &file.suites {
                Some(list) => self.texts(list, |it| word(it, &suites)),
                None => Suite::PREFERENCE.to_vec(),
            },
            rtcp_mux: file.rtcp_mux,
            says: Says::Sound { index: sound, repeats: !file.once },
        }
    }

    /// The place of a sound among all.
    fn sound(&mut self, sound: Sound) -> usize {
        self.sounds.iter().position(|known| *known == sound).unwrap_or_else(|| {
            self.sounds.push(sound);
            self.sounds.len() - 1
        })
    }

    fn caller(&mut self, index: usize, file: CallerFile) -> CallerKind {
        if let (Some(every), Some(_)) = (&file.every, &file.keys) {
            let help = Some("a press is packets in a row: leave one of them out".to_owned());
            self.error(every.span(), "somebody who presses keys is not mostly silent", help);
        }
        let voice = self.voice(VoiceFile {
            codecs: file.codecs,
            ptime: file.ptime,
            every: file.every,
            media: file.media,
            suites: file.suites,
            rtcp_mux: file.rtcp_mux.unwrap_or(true),
            say: file.say,
            say_after: file.say_after,
            pause: file.pause,
            once: file.once.unwrap_or(false),
        });
        let on_hold = file.on_hold.map(|hold| {
            let most = &CALL_DURATION_MS;
            let after = self.time(Some(&hold.after), most, Duration::ZERO);
            (after, self.time(Some(&hold.time), most, Duration::ZERO))
        });
        CallerKind {
            name: file.name.map_or_else(|| format!("caller {index}"), Spanned::into_inner),
            weight: file.weight.map_or(1, |it| self.number(&it, 0.0, &LOADGEN_CALLS)),
            to: file.to.and_then(|to| self.called(&to)),
            from: file.from.map(Spanned::into_inner),
            offer: if file.late_offer.unwrap_or(false) {
                OfferMode::Late
            } else {
                OfferMode::Early
            },
            talk: self.times(file.talk.as_ref()).unwrap_or(Times::Fixed(Duration::from_secs(10))),
            waits: file
                .hang_up
                .and_then(|it| self.text(&it, |it| word(it, HANG_UP)))
                .unwrap_or(false),
            cause: file.cause.and_then(|it| self.text(&it, Cause::parse)),
            cancel_after: self.times(file.cancel_after.as_ref()),
            keys: file.keys.map(|keys| self.keys(&keys)),
            on_hold,
            voice,
        }
    }

    fn keys(&mut self, file: &KeysFile) -> Keys {
        let digits = self.text(&file.digits, |digits| {
            match digits.chars().find(|it| Digit::from_char(*it).is_none()) {
                Some(key) => Err(wrong(format!("`{key}` is no key"), "keys are 0-9, *, # and A-D")),
                None if digits.len() > LOADGEN_SCRIPT_STEPS.get() => {
                    Err(wrong("these are too many keys", "limit loadgen.script_steps"))
                }
                None => Ok(digits.to_owned()),
            }
        });
        let digits = digits.unwrap_or_default();
        let form = file.form.as_ref().and_then(|it| self.text(it, |it| word(it, FORMS)));
        let form = form.unwrap_or(KeyForm::Rfc4733);
        let sound = (form == KeyForm::Inband).then(|| self.sound(Sound::Keys(digits.clone())));
        let second = Duration::from_secs(1);
        let after = self.time(file.after.as_ref(), &CALL_DURATION_MS, second);
        Keys { digits, form, after, sound }
    }

    fn callee(&mut self, file: Spanned<CalleeFile>) -> Option<Callee> {
        let span = file.span();
        let file = file.into_inner();
        self.count("kinds of callee", file.kind.len());
        let mut kinds: Vec<CalleeKind> = Vec::new();
        for (index, kind) in file.kind.into_iter().enumerate() {
            kinds.push(self.callee_kind(index, kind.into_inner()));
        }
        if kinds.is_empty() {
            let plain = self.callee_kind(0, CalleeKindFile::default());
            kinds.push(plain);
        }
        let transport = file.transport.and_then(|it| self.text(&it, |it| word(it, TRANSPORTS)));
        let identity = self.identity(file.certificate, file.key);
        let Some(listen) = &file.listen else {
            let help = Some("write listen = \"127.0.0.1:5071\", or give --answer".to_owned());
            self.error(span, "the callee has no address", help);
            return None;
        };
        let listen = self.text(listen, |text| {
            let address: Result<SocketAddr, _> = text.parse();
            address.map_err(|_| {
                wrong(format!("`{text}` is no address"), "write it as in \"127.0.0.1:5071\"")
            })
        })?;
        Some(Callee {
            listen,
            transport: transport.unwrap_or(Transport::Tls),
            identity,
            authority: file.authority.map(PathBuf::from),
            kinds,
        })
    }

    fn callee_kind(&mut self, index: usize, file: CalleeKindFile) -> CalleeKind {
        let at_once = Times::Fixed(Duration::ZERO);
        let after = self.times(file.answer_after.as_ref()).unwrap_or(at_once);
        let never = file.never_answer.unwrap_or(false);
        let taking = match &file.refuse {
            Some(status) => {
                if !(300..700).contains(status.get_ref()) {
                    let help = Some("a refusal is 300 to 699, as in 486".to_owned());
                    self.error(status.span(), "that status refuses nothing", help);
                }
                if never {
                    let help = Some("leave one of them out".to_owned());
                    self.error(status.span(), "it cannot refuse and never answer", help);
                }
                Taking::Refuse(*status.get_ref(), after)
            }
            None if never => Taking::Never,
            None => Taking::Answer(after),
        };
        let zero = Duration::ZERO;
        CalleeKind {
            name: file.name.map_or_else(|| format!("callee {index}"), Spanned::into_inner),
            weight: file.weight.map_or(1, |it| self.number(&it, 0.0, &LOADGEN_CALLS)),
            ring_after: file
                .ring_after
                .map(|it| self.time(Some(&it), &CALL_DURATION_MS, zero))
                .or((taking != Taking::Answer(at_once)).then_some(zero)),
            early_media: file.early_media.unwrap_or(false),
            taking,
            hang_up_after: self.times(file.hang_up_after.as_ref()),
            cause: file.cause.and_then(|it| self.text(&it, Cause::parse)),
            voice: self.voice(VoiceFile {
                codecs: file.codecs,
                ptime: file.ptime,
                every: file.every,
                media: file.media,
                suites: file.suites,
                rtcp_mux: true,
                say: file.say,
                say_after: file.say_after,
                pause: file.pause,
                once: file.once.unwrap_or(false),
            }),
        }
    }

    fn actor(&mut self, file: Spanned<ActorFile>, callers: &[CallerKind]) -> Actor {
        let file = file.into_inner();
        let kind = self.text(&file.kind, |it| word(it, ACTORS));
        let names: Vec<(&str, usize)> =
            callers.iter().enumerate().map(|(index, it)| (it.name.as_str(), index)).collect();
        let from = file.from.and_then(|text| {
            self.text(&text, |text| {
                let address: Result<IpAddr, _> = text.parse();
                address.map_err(|_| {
                    wrong(format!("`{text}` is no address"), "write one of this machine's")
                })
            })
        });
        let most = &LOADGEN_RUN_MS;
        Actor {
            kind: kind.unwrap_or(ActorKind::MalformedSip),
            name: file.name.map_or_else(|| file.kind.get_ref().clone(), Spanned::into_inner),
            start: self.time(file.start.as_ref(), most, Duration::ZERO),
            time: self.time(file.time.as_ref(), most, Duration::from_secs(5)),
            rate: file.rate.map_or(50.0, |it| self.number(&it, 0.1, &LOADGEN_ACTOR_PER_SECOND)),
            count: file.count.map_or(10, |it| self.number(&it, 1.0, &LOADGEN_ATTEMPTS)),
            to: file.to.and_then(|to| self.called(&to)).map(|it| it.target),
            caller: file.caller.and_then(|it| self.text(&it, |it| word(it, &names))).unwrap_or(0),
            from,
            before: self.time(file.before.as_ref(), most, Duration::from_millis(300)),
            allow: file.allow.unwrap_or_default().into_iter().map(Spanned::into_inner).collect(),
        }
    }
}
