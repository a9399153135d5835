//! `compare relay-server`: callgate's relay, as production runs it, with a line of JSON in for each
//! call to set up or tear down and a line out for each answer.

use std::collections::HashMap;
use std::io::{BufRead as _, Write as _, stdin, stdout};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use audio::Codec;
use base::{CallId, LegId, Random, SeededRandom, SessionId};
use media::{
    Direction, DtlsBackend, DtlsRole, Fingerprint, Format, Handshake, KeyForm, LegPlan, MediaEvent,
    Need, Protection, Purpose, Reserved, Rule, SourceIdentity, TelephoneEvent,
};
use relay::driver::DriverChoice;
use relay::{Command, EventSink, Relay, RelayConfig, RelayHandle};
use rtp::ice::Credentials;
use rtp::sdes::{CryptoLine, KeySalt};
use serde::{Deserialize, Serialize};

use crate::anchor::{EVENTS_TYPE, OPUS};

/// Key presses as every trunk sends them.
const KEYS: TelephoneEvent =
    TelephoneEvent { send: EVENTS_TYPE, receive: EVENTS_TYPE, clock_rate: 8_000 };
/// Media ports, away from those of rtpengine and of the ephemeral range.
const PORTS: std::ops::RangeInclusive<u16> = 10_000..=31_999;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const EVENTS: usize = 65_536;

/// A line in.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Request {
    /// Set a call up.
    Open { call: u32, parties: [Side; 2] },
    /// Tear it down.
    Close { call: u32 },
    /// Tell what there is.
    Count,
}

/// A party of a call, or what it is given.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Side {
    pub(crate) address: SocketAddr,
    /// The codec's name in SDP.
    pub(crate) codec: String,
    /// The value of `a=crypto`; plain RTP without.
    pub(crate) crypto: Option<String>,
    /// Of Opus, 0 to 10, where it is not what the plan says.
    pub(crate) complexity: Option<u8>,
    /// Keys come from a handshake, in place of `crypto`.
    pub(crate) browser: Option<Box<BrowserSide>>,
}

/// What both sides of a browser's leg tell of themselves.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct BrowserSide {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    /// The value of `a=fingerprint`.
    pub(crate) fingerprint: String,
}

impl BrowserSide {
    pub(crate) fn of(credentials: &Credentials, fingerprint: String) -> Box<Self> {
        let (ufrag, pwd) = (credentials.ufrag.clone(), credentials.pwd.expose().clone());
        Box::new(Self { ufrag, pwd, fingerprint })
    }
}

/// A line out.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Answer {
    Opened([Side; 2]),
    Closed,
    Counted { sessions: u64 },
    Failed(String),
}

/// Hands on what becomes of reservations.
pub(crate) struct Sink(pub(crate) SyncSender<(SessionId, MediaEvent)>);

impl EventSink for Sink {
    fn deliver(&mut self, session: SessionId, event: MediaEvent) {
        if matches!(event, MediaEvent::Reserved(_) | MediaEvent::ReserveFailed { .. }) {
            // Nobody waits for so many at one time.
            let _ = self.0.try_send((session, event));
        }
    }

    fn failed(&mut self, session: SessionId) {
        let _ = self.0.try_send((session, MediaEvent::ReserveFailed { ports: false }));
    }
}

/// Serves until its input ends.
pub(crate) fn serve(workers: usize) -> anyhow::Result<()> {
    let (sender, events) = sync_channel(EVENTS);
    let driver = DriverChoice::Auto;
    let config = RelayConfig {
        workers,
        ports: PORTS,
        seed: 1,
        driver,
        ice_tcp: Vec::new(),
        browser_port: None,
    };
    let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone())))?;
    let mut desk = Desk {
        relay: relay.handle(),
        events,
        random: SeededRandom::new(u64::from(std::process::id())),
        open: HashMap::new(),
    };
    for line in stdin().lock().lines() {
        let answer = match serde_json::from_str(&line?) {
            Ok(request) => desk.handle(request),
            Err(error) => Err(error.into()),
        };
        let answer = answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}")));
        let mut out = stdout().lock();
        serde_json::to_writer(&mut out, &answer)?;
        out.write_all(b"\n")?;
        out.flush()?;
    }
    relay.drain(Duration::ZERO);
    Ok(())
}

struct Desk {
    relay: RelayHandle,
    events: Receiver<(SessionId, MediaEvent)>,
    random: SeededRandom,
    open: HashMap<u32, [SessionId; 2]>,
}

impl Desk {
    fn handle(&mut self, request: Request) -> anyhow::Result<Answer> {
        match request {
            Request::Open { call, parties } => self.open(call, &parties).map(Answer::Opened),
            Request::Close { call } => {
                for session in self.open.remove(&call).context("no such call")? {
                    self.relay.command(session, Command::Release)?;
                }
                Ok(Answer::Closed)
            }
            Request::Count => Ok(Answer::Counted { sessions: self.relay.counters().sessions() }),
        }
    }

    fn open(&mut self, call: u32, parties: &[Side; 2]) -> anyhow::Result<[Side; 2]> {
        let sessions = [0, 1].map(|index| SessionId::new(u64::from(call), index));
        for (session, party) in sessions.into_iter().zip(parties) {
            let (bind, dtls) = (IpAddr::V4(Ipv4Addr::LOCALHOST), party.browser.is_some());
            let need =
                Need { bind, beside: None, separate_rtcp: !dtls, dtls, fresh_identity: false };
            self.relay.command(session, Command::Reserve(need))?;
        }
        let reserved = [self.reserved(sessions[0])?, self.reserved(sessions[1])?];
        let id = CallId::random(&mut self.random);
        let crypto = [crypto(&parties[0])?, crypto(&parties[1])?];
        let keys = crypto.each_ref().map(|line| {
            let suite = line.as_ref().map(|line| line.key.suite());
            suite.map(|suite| KeySalt::generate(suite, &mut self.random))
        });
        let ours = [0, 1].map(|_| Credentials::random(&mut self.random));
        let mut plans = [0, 1].map(|index| {
            let keys = crypto[index].as_ref().map(|line| &line.key).zip(keys[index].as_ref());
            let protection = protection(&parties[index], keys, &ours[index])?;
            self.plan(LegId { call: id, index: index as u8 }, &parties[index], protection)
        });
        let [Ok(first), Ok(second)] = &mut plans else { bail!("a party that is not understood") };
        let rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };
        let (mut there, mut back) =
            (media::between(first, second, rule), media::between(second, first, rule));
        if let Some(complexity) = parties[0].complexity.or(parties[1].complexity) {
            (there.complexity, back.complexity) = (complexity, complexity);
        }
        first.purpose = Purpose::Bridge(Some(there));
        second.purpose = Purpose::Bridge(Some(back));
        for (plan, at) in plans.into_iter().flatten().zip([0, 1]) {
            self.relay.command(sessions[at], apply(plan, sessions[1 - at]))?;
        }
        self.open.insert(call, sessions);
        let side = |index: usize| Side {
            address: reserved[index].rtp,
            codec: parties[index].codec.clone(),
            complexity: None,
            browser: reserved[index]
                .fingerprint
                .as_ref()
                .map(|it| BrowserSide::of(&ours[index], it.to_string())),
            crypto: keys[index].as_ref().map(|key| {
                let line = CryptoLine { tag: 1, key: key.clone() };
                line.to_attribute().expose().clone()
            }),
        };
        Ok([side(0), side(1)])
    }

    fn reserved(&mut self, wanted: SessionId) -> anyhow::Result<Reserved> {
        loop {
            match self.events.recv_timeout(ANSWER_WITHIN)? {
                (session, MediaEvent::Reserved(reserved)) if session == wanted => {
                    return Ok(reserved);
                }
                (session, MediaEvent::ReserveFailed { ports }) if session == wanted => {
                    bail!("nothing reserved ({})", if ports { "no ports" } else { "full" })
                }
                _ => {}
            }
        }
    }

    /// A leg's plan.
    fn plan(&mut self, leg: LegId, side: &Side, protection: Protection) -> anyhow::Result<LegPlan> {
        let codec = Codec::from_name(&side.codec).context("unknown codec")?;
        let payload_type = codec.payload_type().unwrap_or(OPUS);
        let format = Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 };
        let rtcp_port = side.address.port().saturating_add(1);
        let remote_rtcp = SocketAddr::new(side.address.ip(), rtcp_port);
        Ok(LegPlan {
            leg,
            remote: side.address,
            remote_rtcp: side.browser.is_none().then_some(remote_rtcp),
            direction: Direction::BOTH,
            protection,
            send: Some(format),
            sendable: vec![format],
            accept: vec![format],
            opaque: Vec::new(),
            // Without, each key press would have to be a tone, and all sound be decoded for it.
            telephone_event: Some(KEYS),
            comfort_noise: None,
            inactive: Duration::from_secs(3_600),
            source: SourceIdentity::random(&mut self.random as &mut dyn Random),
            purpose: Purpose::Bridge(None),
        })
    }
}

/// How a leg is protected; the keys are the party's and ours.
fn protection(
    side: &Side,
    keys: Option<(&KeySalt, &KeySalt)>,
    ours: &Credentials,
) -> anyhow::Result<Protection> {
    if let Some(browser) = &side.browser {
        let (hash, value) = browser.fingerprint.split_once(' ').context("fingerprint")?;
        return Ok(Protection::Dtls(Box::new(Handshake {
            role: DtlsRole::Passive,
            peer: Fingerprint::parse(hash, value)?,
            backend: DtlsBackend::Dimpl,
            local: ours.clone(),
            remote: Credentials::parse(&browser.ufrag, &browser.pwd)?,
        })));
    }
    Ok(match keys {
        Some((theirs, ours)) => {
            Protection::Srtp { suite: theirs.suite(), send: ours.clone(), receive: theirs.clone() }
        }
        None => Protection::Plain { from: vec!["127.0.0.0/8".parse()?] },
    })
}

fn crypto(side: &Side) -> anyhow::Result<Option<CryptoLine>> {
    side.crypto.as_ref().map(|value| CryptoLine::parse(value).context("crypto line")).transpose()
}

/// The command that makes a session follow a plan which bridges it `with` another one.
fn apply(plan: LegPlan, with: SessionId) -> Command {
    Command::Apply { plan: Box::new(plan), with: Some(with) }
}
