//! The far end: rings and answers every INVITE at once, and agrees to every BYE.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use benches::rig::cpu;
use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::wire::{Framer, Message, description};
use super::{MEDIA_PORT, SUITE};

/// What it has seen.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) invites: AtomicU64,
    pub(super) byes: AtomicU64,
    /// CPU time of its thread, in microseconds; brought up to date with each message.
    pub(super) cpu_us: AtomicU64,
}

/// A callee on a thread of its own; ends when dropped.
pub(super) struct Callee {
    pub(super) address: SocketAddr,
    pub(super) counts: Arc<Counts>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Callee {
    /// Listens on any port of that address.
    pub(super) fn start(ip: std::net::IpAddr, tls: Arc<ServerConfig>) -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((ip, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let counts = Arc::new(Counts::default());
        let (stop, stopped) = oneshot::channel();
        let theirs = Arc::clone(&counts);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, async {
                let serving = serve(listener, TlsAcceptor::from(tls), theirs);
                tokio::select! {
                    // Dropped or told: both end it.
                    _ = stopped => {}
                    failed = serving => if let Err(error) = failed {
                        eprintln!("the callee cannot go on: {error:#}");
                    }
                }
            });
        };
        let thread = std::thread::Builder::new().name("callee".into()).spawn(work)?;
        Ok(Self { address, counts, stop: Some(stop), thread: Some(thread) })
    }

    /// CPU time of its thread.
    pub(super) fn cpu(&self) -> Duration {
        Duration::from_micros(self.counts.cpu_us.load(Ordering::Relaxed))
    }
}

impl Drop for Callee {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It may have panicked; then it has said so.
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    counts: Arc<Counts>,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let counts = Rc::new(counts);
    loop {
        let (stream, _) = listener.accept().await.context("accept")?;
        let (tls, counts) = (tls.clone(), Rc::clone(&counts));
        tokio::task::spawn_local(async move {
            // Whoever closes has its reasons; calls that are lost show at the caller.
            let _ = converse(stream, tls, address, &counts).await;
        });
    }
}

async fn converse(
    stream: TcpStream,
    tls: TlsAcceptor,
    address: SocketAddr,
    counts: &Counts,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = tls.accept(stream).await?;
    let (mut framer, mut buffer) = (Framer::default(), vec![0; 65_536]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        framer.push(&buffer[..read]);
        let mut out = String::new();
        while let Some(message) = framer.poll_message() {
            answer(&message, address, counts, &mut out);
        }
        if !out.is_empty() {
            stream.write_all(out.as_bytes()).await?;
            stream.flush().await?;
        }
        let cpu = u64::try_from(cpu::own_thread().as_micros()).unwrap_or(u64::MAX);
        counts.cpu_us.store(cpu, Ordering::Relaxed);
    }
}

fn answer(request: &Message, address: SocketAddr, counts: &Counts, out: &mut String) {
    if request.status().is_some() {
        return;
    }
    match request.method() {
        "INVITE" => {
            counts.invites.fetch_add(1, Ordering::Relaxed);
            respond(request, "180 Ringing", address, None, out);
            let crypto = accept(request.body());
            let body = description(address.ip(), MEDIA_PORT, &crypto);
            respond(request, "200 OK", address, Some(&body), out);
        }
        "ACK" => {}
        "BYE" => {
            counts.byes.fetch_add(1, Ordering::Relaxed);
            respond(request, "200 OK", address, None, out);
        }
        _ => respond(request, "200 OK", address, None, out),
    }
}

/// The value of our crypto line for an offer.
fn accept(offer: &str) -> String {
    let mut lines = offer.split("\r\n").filter_map(|line| line.strip_prefix("a=crypto:"));
    let tag = lines.find_map(|line| {
        let (tag, rest) = line.split_once(' ')?;
        rest.starts_with(&format!("{SUITE} ")).then_some(tag)
    });
    format!("{} {SUITE} inline:{}", tag.unwrap_or("1"), super::KEY)
}

fn respond(
    request: &Message,
    status: &str,
    address: SocketAddr,
    body: Option<&str>,
    out: &mut String,
) {
    out.push_str("SIP/2.0 ");
    out.push_str(status);
    out.push_str("\r\n");
    for name in ["Via", "Record-Route", "From", "Call-ID", "CSeq"] {
        for line in request.lines(name) {
            out.push_str(line);
            out.push_str("\r\n");
        }
    }
    let to = request.header("To").unwrap_or_default();
    let tag = if to.contains(";tag=") { "" } else { ";tag=callee" };
    let body = body.unwrap_or_default();
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    out.push_str(&format!(
        "To: {to}{tag}\r\nContact: <sip:callee@{address};transport=tls>\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    ));
}
