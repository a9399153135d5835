//! The near end: places calls at a rate, whatever comes of them, and measures each.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::rig::cpu;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::wire::{Framer, Message, description};
use super::{KEY, MEDIA_PORT, SUITE};

/// How calls reach the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Over so many connections that stand.
    Shared(u8),
    /// Each over one of its own.
    PerCall,
}

/// What one run places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) per_second: f64,
    /// From answer to BYE.
    pub(super) hold: Duration,
    /// Not measured; longer than a call lasts, so that as many end as begin.
    pub(super) warm_up: Duration,
    pub(super) measured: Duration,
    pub(super) lines: Lines,
}

/// What it saw of calls that began in the measured part.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) placed: usize,
    pub(super) answered: usize,
    /// Answered, and their BYE agreed to.
    pub(super) ended: usize,
    /// Statuses and faults of the others.
    pub(super) failures: BTreeMap<String, usize>,
    /// From INVITE (or, with a connection for each call, from connecting) to 200, in ms, ascending.
    pub(super) setups: Vec<f64>,
    /// CPU time of what is measured, and of our own thread.
    pub(super) cpu: Duration,
    pub(super) own_cpu: Duration,
    pub(super) wall: Duration,
    /// Calls begun more than 10 ms after their turn.
    pub(super) late: usize,
}

impl Seen {
    pub(super) fn setup(&self, share: f64) -> f64 {
        let last = self.setups.len().saturating_sub(1);
        self.setups.get((last as f64 * share).ceil() as usize).copied().unwrap_or(f64::NAN)
    }
}

/// One call, as far as it got.
#[derive(Debug, Default)]
struct Call {
    began: Option<Instant>,
    setup: Option<Duration>,
    is_over: bool,
    failure: Option<String>,
    is_measured: bool,
}

/// What all tasks of a run share.
struct Run {
    target: SocketAddr,
    tls: Arc<ClientConfig>,
    hold: Duration,
    calls: RefCell<Vec<Call>>,
    /// Makes the Call-IDs of this run differ from those of others.
    name: String,
}

/// A connection; calls write through it one at a time.
struct Line {
    local: SocketAddr,
    is_of_one_call: bool,
    writer: Mutex<WriteHalf<TlsStream<TcpStream>>>,
}

/// The first address that calls come from; further connections count up.
const SOURCE: [u8; 3] = [127, 0, 0];
const FIRST_SOURCE: u8 = 11;
/// Sources that connections of single calls take turns with.
const SOURCES: usize = 64;
/// After the last call has begun, for those still under way.
const PATIENCE: Duration = Duration::from_secs(6);
const LATE: Duration = Duration::from_millis(10);

/// Places calls to `target`. `tested` tells the CPU time of what is measured.
pub(super) fn run(
    target: SocketAddr,
    tls: Arc<ClientConfig>,
    rate: Rate,
    tested: &mut dyn FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, place_all(target, tls, rate, tested))
}

async fn place_all(
    target: SocketAddr,
    tls: Arc<ClientConfig>,
    rate: Rate,
    tested: &mut dyn FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Seen> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let name = format!("{:x}", since.unwrap_or_default().as_nanos());
    let (hold, calls) = (rate.hold, RefCell::default());
    let run = Rc::new(Run { target, tls, hold, calls, name });
    let mut lines = Vec::new();
    if let Lines::Shared(count) = rate.lines {
        for index in 0..count {
            lines.push(open(&run, FIRST_SOURCE + index, false).await.context("connect")?);
        }
    }
    let (began, mut seen, mut marks) = (Instant::now(), Seen::default(), None);
    let end = rate.warm_up + rate.measured;
    for index in 0.. {
        let due = Duration::from_secs_f64(index as f64 / rate.per_second);
        if due >= end {
            break;
        }
        tokio::time::sleep_until((began + due).into()).await;
        let is_measured = due >= rate.warm_up;
        if is_measured && marks.is_none() {
            marks = Some((tested()?, cpu::own_thread(), Instant::now()));
        }
        seen.late += usize::from(is_measured && began.elapsed() > due + LATE);
        run.calls.borrow_mut().push(Call { is_measured, ..Call::default() });
        let line = (!lines.is_empty()).then(|| Rc::clone(&lines[index % lines.len()]));
        tokio::task::spawn_local(place(Rc::clone(&run), index, line));
    }
    if let Some((cpu, own, since)) = marks {
        seen.cpu = tested()?.saturating_sub(cpu);
        seen.own_cpu = cpu::own_thread().saturating_sub(own);
        seen.wall = since.elapsed();
    }
    let patience = Instant::now() + rate.hold + PATIENCE;
    while Instant::now() < patience && run.calls.borrow().iter().any(|call| !call.is_over) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    add_up(&run.calls.borrow(), &mut seen);
    Ok(seen)
}

fn add_up(calls: &[Call], seen: &mut Seen) {
    for call in calls.iter().filter(|call| call.is_measured) {
        seen.placed += 1;
        seen.answered += usize::from(call.setup.is_some());
        let failure = match (&call.failure, call.setup, call.is_over) {
            (Some(why), ..) => why.as_str(),
            (None, None, _) => "no answer",
            (None, Some(_), false) => "no answer to BYE",
            (None, Some(_), true) => {
                seen.ended += 1;
                continue;
            }
        };
        *seen.failures.entry(failure.to_owned()).or_default() += 1;
    }
    let setups = calls.iter().filter(|call| call.is_measured).filter_map(|call| call.setup);
    seen.setups = setups.map(|it| it.as_secs_f64() * 1e3).collect();
    seen.setups.sort_by(f64::total_cmp);
}

/// Opens a connection and reads what comes over it.
async fn open(run: &Rc<Run>, source: u8, is_of_one_call: bool) -> anyhow::Result<Rc<Line>> {
    let [a, b, c] = SOURCE;
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((Ipv4Addr::new(a, b, c, source), 0)))?;
    let stream = socket.connect(run.target).await?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    let name = ServerName::from(run.target.ip());
    let stream = TlsConnector::from(Arc::clone(&run.tls)).connect(name, stream).await?;
    let (reader, writer) = tokio::io::split(stream);
    let line = Rc::new(Line { local, is_of_one_call, writer: Mutex::new(writer) });
    tokio::task::spawn_local(read(Rc::clone(run), Rc::clone(&line), reader));
    Ok(line)
}

async fn send(line: &Line, text: &str) -> std::io::Result<()> {
    let mut writer = line.writer.lock().await;
    writer.write_all(text.as_bytes()).await?;
    writer.flush().await
}

async fn place(run: Rc<Run>, index: usize, line: Option<Rc<Line>>) {
    let began = Instant::now();
    run.calls.borrow_mut()[index].began = Some(began);
    let line = match line {
        Some(line) => Ok(line),
        None => open(&run, FIRST_SOURCE + (index % SOURCES) as u8, true).await,
    };
    let sent = match line {
        Ok(line) => send(&line, &invite(&run, &line, index)).await.map_err(Into::into),
        Err(error) => Err(error),
    };
    if let Err(error) = sent {
        run.over(index, Some(format!("connection: {error}")));
    }
}

/// Reads a connection to its end.
async fn read(run: Rc<Run>, line: Rc<Line>, mut reader: ReadHalf<TlsStream<TcpStream>>) {
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 65_536]);
    while let Ok(read @ 1..) = reader.read(&mut buffer).await {
        framer.push(&buffer[..read]);
        while let Some(message) = framer.poll_message() {
            on_message(&run, &line, &message).await;
        }
    }
}

async fn on_message(run: &Rc<Run>, line: &Rc<Line>, message: &Message) {
    let index = message.header("Call-ID").and_then(|it| it.split('-').next()?.parse().ok());
    let (Some(index), Some(status)) = (index, message.status()) else { return };
    match (message.method(), status) {
        (_, 100..200) => {}
        ("INVITE", 200..300) => {
            let ack = within(run, line, index, message, "ACK", 1);
            // A line that is lost shows as a call without an end.
            let _ = send(line, &ack).await;
            let is_first = run.answered(index);
            if is_first {
                let bye = within(run, line, index, message, "BYE", 2);
                let (line, hold) = (Rc::clone(line), run.hold);
                tokio::task::spawn_local(async move {
                    tokio::time::sleep(hold).await;
                    let _ = send(&line, &bye).await;
                });
            }
        }
        ("INVITE", _) => {
            let ack = refusal_ack(run, line, index, message);
            let _ = send(line, &ack).await;
            run.over(index, Some(format!("INVITE {status}")));
        }
        ("BYE", 200..300) => run.over(index, None),
        ("BYE", _) => run.over(index, Some(format!("BYE {status}"))),
        _ => {}
    }
    let is_over = run.calls.borrow().get(index).is_some_and(|call| call.is_over);
    if is_over && line.is_of_one_call {
        let _ = line.writer.lock().await.shutdown().await;
    }
}

impl Run {
    /// Notes the answer; whether it is the first one.
    fn answered(&self, index: usize) -> bool {
        let mut calls = self.calls.borrow_mut();
        let Some(call) = calls.get_mut(index).filter(|call| call.setup.is_none()) else {
            return false;
        };
        call.setup = call.began.map(|began| began.elapsed());
        true
    }

    fn over(&self, index: usize, failure: Option<String>) {
        if let Some(call) = self.calls.borrow_mut().get_mut(index) {
            (call.is_over, call.failure) = (true, failure);
        }
    }
}

fn invite(run: &Run, line: &Line, index: usize) -> String {
    let crypto = format!("1 {SUITE} inline:{KEY}");
    let body = description(IpAddr::from(Ipv4Addr::new(127, 0, 0, 1)), MEDIA_PORT, &crypto);
    let (local, target, name) = (line.local, run.target, &run.name);
    format!(
        "INVITE sip:+18005550100@{target};transport=tls SIP/2.0\r\n\
         Via: SIP/2.0/TLS {local};branch=z9hG4bK-{name}-{index}-1;rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:+15550123@{}>;tag=caller{index}\r\n\
         To: <sip:+18005550100@{}>\r\n\
         Call-ID: {index}-{name}\r\n\
         CSeq: 1 INVITE\r\n\
         Contact: <sip:+15550123@{local};transport=tls>\r\n\
         Allow: INVITE, ACK, CANCEL, BYE, OPTIONS\r\n\
         Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        local.ip(),
        target.ip(),
        body.len()
    )
}

/// A request within the dialog that an answer made.
fn within(
    run: &Run,
    line: &Line,
    index: usize,
    answer: &Message,
    method: &str,
    number: u32,
) -> String {
    let (local, name) = (line.local, &run.name);
    let target = answer.contact().unwrap_or_default();
    let mut routes: Vec<&str> = answer.lines("Record-Route").collect();
    // RFC 3261 section 12.1.2: in reverse order.
    routes.reverse();
    let routes: String =
        routes.iter().map(|line| format!("{}\r\n", line.replacen("Record-", "", 1))).collect();
    let cseq = if method == "ACK" { 1 } else { number };
    format!(
        "{method} {target} SIP/2.0\r\n\
         Via: SIP/2.0/TLS {local};branch=z9hG4bK-{name}-{index}-{method};rport\r\n\
         Max-Forwards: 70\r\n{routes}\
         From: <sip:+15550123@{}>;tag=caller{index}\r\n\
         To: {}\r\n\
         Call-ID: {index}-{name}\r\n\
         CSeq: {cseq} {method}\r\n\
         Content-Length: 0\r\n\r\n",
        local.ip(),
        answer.header("To").unwrap_or_default(),
    )
}

/// The ACK of a final answer that is no 2xx (RFC 3261 section 17.1.1.3).
fn refusal_ack(run: &Run, line: &Line, index: usize, answer: &Message) -> String {
    let (local, target, name) = (line.local, run.target, &run.name);
    format!(
        "ACK sip:+18005550100@{target};transport=tls SIP/2.0\r\n\
         Via: SIP/2.0/TLS {local};branch=z9hG4bK-{name}-{index}-1;rport\r\n\
         Max-Forwards: 70\r\n\
         From: <sip:+15550123@{}>;tag=caller{index}\r\n\
         To: {}\r\n\
         Call-ID: {index}-{name}\r\n\
         CSeq: 1 ACK\r\n\
         Content-Length: 0\r\n\r\n",
        local.ip(),
        answer.header("To").unwrap_or_default(),
    )
}
