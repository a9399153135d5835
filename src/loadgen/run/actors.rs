//! Bad actors: what they try, and what came of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use audio::Codec;
use base::Clock as _;
use base::limit::{LOADGEN_QUEUE, TRANSPORT_HANDSHAKE_MS};
use rtp::Suite;
use sip::{Host, Message, NameAddr, Uri, ids};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;

use super::leg::{self, Ambush};
use super::outcome::ActorReport;
use super::raw::{self, Raw};
use super::{ACTOR_TOKENS, Shared, TOKENS_PER_ACTOR};
use crate::config::{OfferMode, Protection, Transport};
use crate::engine::attack::{Attack, Means};
use crate::line::{Far, Line};
use crate::load::Cancellation;
use crate::os::{OsClock, OsRandom, wake_at};
use crate::report::{CallOutcome, CallReport, Ending};
use crate::scenario::{Actor, ActorKind};
use crate::user_agent::{Description, End, Parties, UserAgent, UserAgentOutput};

/// How long an attempt waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long malformed bytes wait for one; most get none.
const MUTE: Duration = Duration::from_millis(700);
/// The discard port, where nobody listens: bad actors want no media.
const DISCARD: (u16, u16) = (9, 9);
/// The beginning of a ClientHello: a record header and the first bytes of a handshake.
const HALF_HELLO: &[u8] = &[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];

/// Lets a bad actor do what it does, until it is done or the run is to end.
pub(super) async fn act(
    shared: Arc<Shared>,
    index: usize,
    cancellation: Cancellation,
) -> ActorReport {
    let actor = shared.scenario.actors[index].clone();
    let mut report = ActorReport::new(&actor);
    let mut stop = cancellation.listen();
    tokio::select! {
        () = stop.wait() => return report,
        () = tokio::time::sleep(actor.start) => {}
    }
    let mut stop = cancellation.listen();
    let acting = async {
        match actor.kind {
            ActorKind::StrangerRtp | ActorKind::SrtpReplay => {
                ambush(&shared, index, &actor, &cancellation, &mut report).await;
            }
            _ => match far_of(&shared, &actor).await {
                Ok(far) => match actor.kind {
                    ActorKind::MalformedSip => malform(&actor, &far, &mut report).await,
                    ActorKind::HalfOpenTls => half_open(&actor, &far, &mut report).await,
                    _ => invite(&shared, &actor, &far, &mut report).await,
                },
                Err(reason) => report.note(reason, false),
            },
        }
    };
    tokio::select! {
        () = acting => {}
        // Attempts of media actors end with their calls, which the cancellation reaches too.
        () = stop.wait() => tokio::time::sleep(Duration::from_millis(200)).await,
    }
    report
}

impl ActorReport {
    fn new(actor: &Actor) -> Self {
        Self {
            name: actor.name.clone(),
            kind: actor.kind,
            attempts: 0,
            outcomes: BTreeMap::new(),
            got_through: 0,
            packets: 0,
            injected: 0,
            replayed: 0,
            to_strangers: 0,
            has_passed: false,
            verdict: String::new(),
        }
    }

    /// Of one that ended before its time, by a fault of ours.
    pub(super) fn panicked(actor: &Actor) -> Self {
        let mut report = Self::new(actor);
        report.unharmed("load.panicked");
        report
    }

    fn note(&mut self, outcome: &str, got_through: bool) {
        self.attempts += 1;
        self.got_through += u64::from(got_through);
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
}

/// Where it goes: where it says, else where ordinary calls go; a plaintext actor without TLS.
async fn far_of(shared: &Shared, actor: &Actor) -> Result<Far, &'static str> {
    let far = match (&actor.to, &shared.scenario.outward) {
        (Some(target), Some(outward)) => {
            super::far(target, &outward.tls).await.map_err(|_| "load.no_target")?
        }
        _ => shared.target.clone().ok_or("load.no_target")?,
    };
    if actor.kind == ActorKind::PlaintextInvite && far.transport == Transport::Tls {
        return Ok(Far { transport: Transport::Tcp, tls: None, ..far });
    }
    Ok(far)
}

/// INVITEs at a rate, `count` of them at most, each on the line or on one of its own.
async fn invite(shared: &Arc<Shared>, actor: &Actor, far: &Far, report: &mut ActorReport) {
    let is_flood = actor.kind == ActorKind::InviteFlood;
    let line = match is_flood {
        true => match Line::open(far).await {
            Ok(line) => Some(Arc::new(line)),
            Err(error) => return report.note(error.0, false),
        },
        false => None,
    };
    let started = OsClock.now();
    let room = Arc::new(Semaphore::new(LOADGEN_QUEUE.get()));
    let mut attempts = JoinSet::new();
    let outward = shared.scenario.outward.as_ref();
    let uri = actor.to.as_ref().or(outward.map(|it| &it.to.target)).map(|it| it.uri.clone());
    let Some(uri) = uri else { return };
    for number in 0..actor.count {
        let due = Duration::try_from_secs_f64(f64::from(number) / actor.rate);
        let due = due.unwrap_or(Duration::MAX);
        if due > actor.time {
            break;
        }
        tokio::time::sleep_until(wake_at(started + due)).await;
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { break };
        let (line, far, uri) = (line.clone(), far.clone(), uri.clone());
        attempts.spawn(async move {
            let found = attempt(line, &far, uri).await;
            drop(permit);
            found
        });
        while let Some(found) = attempts.try_join_next() {
            note_attempt(report, found, is_flood);
        }
    }
    while let Some(found) = attempts.join_next().await {
        note_attempt(report, found, is_flood);
    }
}

fn note_attempt(
    report: &mut ActorReport,
    found: Result<(String, bool), tokio::task::JoinError>,
    is_flood: bool,
) {
    let (outcome, has_rung) = found.unwrap_or_else(|_| ("load.panicked".to_owned(), false));
    // A flood of calls that are allowed may ring: what counts is that it is answered somehow.
    report.note(&outcome, has_rung && !is_flood);
}

/// One INVITE that is given up as soon as anybody takes it; whether anybody did.
async fn attempt(line: Option<Arc<Line>>, far: &Far, uri: Uri) -> (String, bool) {
    let line = match line {
        Some(line) => line,
        None => match Line::open(far).await {
            Ok(line) => Arc::new(line),
            Err(error) => return (error.0.to_owned(), false),
        },
    };
    let local = line.local();
    let host = Host::from(local.ip());
    let media = Description::new(
        local.ip(),
        DISCARD,
        &[Codec::Pcmu],
        Protection::Srtp,
        &Suite::PREFERENCE,
        &mut OsRandom,
    );
    let contact = Uri::sip(Some("load"), &host, Some(local.port()));
    let parties = Parties {
        target: uri,
        from: NameAddr::new(Uri::sip(Some("load"), &host, None)),
        contact: contact.with_param("transport", Some(far.transport.name())),
        via: far.transport.via(),
        host,
        port: local.port(),
        is_reliable: far.transport.is_reliable(),
        offer: OfferMode::Early,
        cause: None,
    };
    let call_id = ids::new_call_id(&mut OsRandom);
    let mut inbox = line.register(&call_id);
    let mut ua = UserAgent::new(parties, media, Box::new(OsRandom));
    ua.start(OsClock.now(), &call_id);
    let (end, has_rung) = follow(&line, &mut inbox, &mut ua).await;
    line.release(&call_id);
    let outcome = match end {
        End::Failed { status: Some(status), reason } => format!("{status} {reason}"),
        End::Failed { status: None, reason } => reason,
        End::Cancelled if has_rung => "rang".to_owned(),
        End::Cancelled => "silence".to_owned(),
        End::Over(_) => "answered".to_owned(),
    };
    (outcome, has_rung)
}

/// Carries a call that is hung up as soon as it is answered, and given up where nobody answers; how
/// it ended, and whether it rang.
async fn follow(line: &Line, inbox: &mut Receiver<Message>, ua: &mut UserAgent) -> (End, bool) {
    let give_up = OsClock.now() + PATIENCE;
    let mut has_rung = false;
    let mut is_given_up = false;
    loop {
        while let Some(output) = ua.poll_output() {
            match output {
                UserAgentOutput::Send(bytes) => {
                    let sent = line.send(bytes);
                    if sent.is_err() {
                        ua.flow_failed(OsClock.now());
                    }
                }
                UserAgentOutput::Agreed(_) => {
                    has_rung = true;
                    ua.end(OsClock.now(), End::Over(Ending::Script));
                }
                UserAgentOutput::Ended(end) => return (end, has_rung),
                _ => {}
            }
        }
        has_rung |= ua.status().is_some_and(|status| (101..300).contains(&status));
        let timer = ua.poll_timeout().unwrap_or(give_up);
        let wake = if is_given_up { timer } else { timer.min(give_up) };
        tokio::select! {
            message = inbox.recv() => match message {
                Some(message) => ua.receive(OsClock.now(), message),
                None => ua.flow_failed(OsClock.now()),
            },
            () = tokio::time::sleep_until(wake_at(wake)) => {
                let now = OsClock.now();
                if !is_given_up && now >= give_up {
                    is_given_up = true;
                    ua.end(now, End::Over(Ending::Cancelled));
                }
                ua.handle_timeout(now);
            }
        }
    }
}

/// Messages that are no SIP, or lie about themselves, each on a connection of its own; then one
/// that is well, to see whether the edge still answers.
async fn malform(actor: &Actor, far: &Far, report: &mut ActorReport) {
    let started = OsClock.now();
    for number in 0..actor.count {
        if OsClock.now().since(started) > actor.time {
            break;
        }
        let (name, bytes) = malformed(number as usize, far);
        let outcome = match Raw::open(far).await {
            Ok(mut raw) => raw.ask(&bytes, MUTE).await,
            Err(reason) => reason.to_owned(),
        };
        let got_through = outcome.starts_with('2') || outcome.starts_with("18");
        report.note(&format!("{outcome} ({name})"), got_through);
    }
    let alive = match Raw::open(far).await {
        Ok(mut raw) => raw.ask(options(far).as_bytes(), PATIENCE).await,
        Err(reason) => reason.to_owned(),
    };
    // Whatever it answers, it is alive; a plaintext edge may refuse with silence.
    let is_dead = far.transport != Transport::Udp
        && matches!(alive.as_str(), "connect.refused" | "connect.timeout" | "silence");
    if is_dead {
        report.note("the edge no longer answers", true);
    }
}

fn options(far: &Far) -> String {
    let via = far.transport.via();
    format!(
        "OPTIONS sip:{at} SIP/2.0\r\nVia: SIP/2.0/{via} 192.0.2.1:5060;branch=z9hG4bKload\r\n\
         From: <sip:load@192.0.2.1>;tag=load\r\nTo: <sip:{at}>\r\nCall-ID: load\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
        at = far.address
    )
}

/// The messages, in turn, and what is wrong with each.
fn malformed(number: usize, far: &Far) -> (&'static str, Vec<u8>) {
    let good = options(far);
    let invite = good.replace("OPTIONS", "INVITE");
    let text: (&str, String) = match number % 10 {
        0 => ("no CSeq", invite.replace("CSeq: 1 INVITE\r\n", "")),
        1 => ("negative length", invite.replace("Content-Length: 0", "Content-Length: -1")),
        2 => ("huge length", invite.replace("Content-Length: 0", "Content-Length: 99999999999")),
        3 => ("no version", invite.replacen(" SIP/2.0", "", 1)),
        4 => ("another method in CSeq", invite.replace("1 INVITE", "1 BYE")),
        5 => {
            ("endless header", invite.replace("From: <", &format!("From: <{}", "a".repeat(60_000))))
        }
        6 => (
            "thousand Vias",
            invite.replace("From:", &format!("{}From:", "Via: x\r\n".repeat(1_000))),
        ),
        7 => ("HTTP", "GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()),
        8 => ("nothing but nulls", "\0".repeat(512)),
        _ => ("broken address", invite.replace("sip:load@192.0.2.1>", "sip:@@[[>")),
    };
    (text.0, text.1.into_bytes())
}

/// TCP connections that never finish a handshake: the edge must not keep them.
async fn half_open(actor: &Actor, far: &Far, report: &mut ActorReport) {
    let mut held = JoinSet::new();
    let patience = actor.time.max(TRANSPORT_HANDSHAKE_MS.millis() + Duration::from_secs(2));
    for number in 0..actor.count {
        let address = far.address;
        held.spawn(async move {
            let mut socket = match raw::connect(address).await {
                Ok(socket) => socket,
                Err(reason) => return (reason.to_owned(), false),
            };
            // Half of them say nothing at all.
            if number % 2 == 0 && socket.write_all(HALF_HELLO).await.is_err() {
                return ("closed at once".to_owned(), false);
            }
            let mut buffer = [0; 64];
            let closed = async {
                // An alert may come before the end.
                while let Ok(1..) = socket.read(&mut buffer).await {}
            };
            match tokio::time::timeout(patience, closed).await {
                Ok(()) => ("closed by the edge".to_owned(), false),
                Err(_) => (format!("still open after {} s", patience.as_secs()), true),
            }
        });
    }
    while let Some(found) = held.join_next().await {
        let (outcome, is_kept) = found.unwrap_or_else(|_| ("load.panicked".to_owned(), false));
        report.note(&outcome, is_kept);
    }
}

/// Calls of its own, with a stranger at their media ports.
async fn ambush(
    shared: &Arc<Shared>,
    index: usize,
    actor: &Actor,
    cancellation: &Cancellation,
    report: &mut ActorReport,
) {
    let means = match actor.kind {
        ActorKind::SrtpReplay => Means::Replay,
        _ => Means::Stranger,
    };
    let every = Duration::try_from_secs_f64(1.0 / actor.rate).unwrap_or(Duration::from_secs(1));
    let mut calls = JoinSet::new();
    let count = actor.count.min(TOKENS_PER_ACTOR);
    for number in 0..count {
        let socket = match stranger(shared, actor) {
            Ok(socket) => socket,
            Err(_) => {
                report.note("load.no_stranger_address", false);
                continue;
            }
        };
        let attack = Attack::new(means, socket, every, OsClock.now());
        let before = if means == Means::Stranger { actor.before } else { Duration::ZERO };
        let ambush = Some(Ambush { attack, before });
        let first = ACTOR_TOKENS + u32::try_from(index).unwrap_or(0) * TOKENS_PER_ACTOR;
        let token = first + number;
        let (shared, cancelled) = (Arc::clone(shared), cancellation.listen());
        let kind = actor.caller;
        calls.spawn(async move {
            leg::call(shared, kind, token, CallReport::default(), ambush, cancelled).await
        });
    }
    while let Some(found) = calls.join_next().await {
        let Ok(end) = found else {
            report.note("load.panicked", false);
            continue;
        };
        report.packets += end.media.attacked;
        report.to_strangers += end.media.to_strangers;
        if let Some(seen) = &end.media.seen {
            report.injected += seen.strange;
            report.replayed += seen.again;
        }
        match end.report.outcome {
            CallOutcome::Answered if end.media.attacked > 0 => {
                report.note("call attacked", false);
            }
            CallOutcome::Answered => report.unharmed("call not attacked: no media"),
            _ => {
                let reason = end.report.reason.unwrap_or_else(|| "cancelled".to_owned());
                report.unharmed(&format!("no call: {reason}"));
            }
        }
    }
}

impl ActorReport {
    /// Notes what was no attempt.
    fn unharmed(&mut self, outcome: &str) {
        *self.outcomes.entry(outcome.to_owned()).or_default() += 1;
    }
}

/// A socket at an address that is not the caller's, where the machine has one: on the loopback any
/// of 127.0.0.0/8, else another port.
fn stranger(shared: &Shared, actor: &Actor) -> io::Result<UdpSocket> {
    let target = shared.target.as_ref().map(|it| it.address);
    let otherwise: IpAddr = match target.map(|it| it.ip()) {
        Some(IpAddr::V4(ip)) if ip.is_loopback() => Ipv4Addr::new(127, 6, 6, 6).into(),
        Some(IpAddr::V6(_)) => Ipv6Addr::UNSPECIFIED.into(),
        _ => Ipv4Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((actor.from.unwrap_or(otherwise), 0))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
