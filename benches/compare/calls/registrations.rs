//! Memory of people who are registered by SIP over WSS and do nothing.

use std::io::{Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use base::Secret;
use benches::rig::cpu;
use loadgen::{Authorities, Registrations, RegistrationsConfig, Target, Tls};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sip::digest::Login;
use tokio::runtime::Builder;

use super::edge::Edge;
use super::tls::Certificates;
use crate::figure::{Bar, Figure};
use crate::media::Bench;

/// Registrations of each account (limit `api.bindings_per_account`).
const PER_ACCOUNT: u32 = 10;
/// Connections of each of our addresses, below limit `transport.connections_per_source`.
const PER_SOURCE: u32 = 200;
/// How many come each second.
const RATE: f64 = 250.0;
/// How long they may take to come, beyond what their rate says.
const SPARE: Duration = Duration::from_secs(60);
/// Idle before memory is looked at.
const IDLE: Duration = Duration::from_secs(10);
const PASSWORD: &str = "compare-registrations";

impl Bench {
    /// Bytes of the edge for each of `count` idle registrations.
    pub(crate) fn registrations(&self, count: u32) -> anyhow::Result<Figure> {
        eprintln!("{count} registrations over WSS");
        let folder = tempfile::tempdir()?;
        let certificates = Certificates::make(folder.path(), &["127.0.0.1"])?;
        let [sip, https] = [(); 2].map(|()| free());
        let (sip, https) = (sip?, https?);
        let listen = (sip, Some(https));
        let edge = Edge::start(&self.program, folder.path(), &certificates, listen, sip)?;
        let key = edge.first_key()?;
        let accounts = count.div_ceil(PER_ACCOUNT);
        make_accounts(&certificates, https, &key, accounts)?;
        let config = config(&certificates, https, count, accounts)?;
        // What the first of all of them brings in is not theirs.
        self.hold(RegistrationsConfig { count: PER_ACCOUNT, ..config.clone() }, || Ok(()))?;
        let before = cpu::resident(edge.process())?;
        let mut after = 0;
        let took = self.hold(config, || {
            after = cpu::resident(edge.process())?;
            Ok(())
        })?;
        let each = after.saturating_sub(before) as f64 / 1_024.0 / f64::from(count);
        eprintln!("  {} -> {} MB, {each:.1} KB each", before >> 20, after >> 20);
        let what = format!("memory of an idle WSS registration, {count} of them");
        let note = format!(
            "resident set of the edge after {IDLE:?} of idling, less before ({} MB); all came \
             within {took:.0?} and stayed",
            before >> 20
        );
        Ok(Figure::exact(what, "KB", Bar::AtMost(30.0), each).note(note))
    }

    /// Registers, looks while all are idle, and lets them go; how long they took to come.
    fn hold(
        &self,
        config: RegistrationsConfig,
        look: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Duration> {
        let count = config.count;
        let within = Duration::from_secs_f64(f64::from(count) / config.rate) + SPARE;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let registrations = Registrations::new(config)?;
        let (held, cancellation) = (registrations.held(), registrations.cancellation());
        let began = Instant::now();
        let running = runtime.spawn(registrations.run());
        let took = loop {
            let now = *held.borrow();
            ensure!(now.failed == 0, "{} registrations failed", now.failed);
            if now.registered == count {
                break began.elapsed();
            }
            ensure!(began.elapsed() < within, "only {} are registered", now.registered);
            std::thread::sleep(Duration::from_millis(50));
        };
        std::thread::sleep(IDLE);
        look()?;
        ensure!(held.borrow().registered == count, "some have gone meanwhile");
        cancellation.cancel();
        let report = runtime.block_on(running)??;
        ensure!(report.failures.is_empty(), "{report}");
        Ok(took)
    }
}

fn config(
    certificates: &Certificates,
    https: SocketAddr,
    count: u32,
    accounts: u32,
) -> anyhow::Result<RegistrationsConfig> {
    let login =
        |at: u32| Login { user: user(at), password: Secret::new(PASSWORD.to_owned()), realm: None };
    let source = |at: u32| {
        let host = u8::try_from(at + 1).unwrap_or(u8::MAX);
        IpAddr::V4(Ipv4Addr::new(127, 0, 1, host))
    };
    Ok(RegistrationsConfig {
        target: Target::parse(&format!("wss://{https}/sip"))?,
        count,
        rate: RATE,
        // The owner ends it.
        hold: Duration::from_secs(3_600),
        logins: (0..accounts).map(login).collect(),
        sources: (0..count.div_ceil(PER_SOURCE)).map(source).collect(),
        tls: Tls {
            authorities: Authorities::File(certificates.authority.clone()),
            identity: None,
            server_name: None,
        },
    })
}

fn user(at: u32) -> String {
    format!("person{at}")
}

/// Any free port; the system gives the same one to nobody else within the moment.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Has the edge make accounts, by its API.
fn make_accounts(
    certificates: &Certificates,
    https: SocketAddr,
    key: &str,
    count: u32,
) -> anyhow::Result<()> {
    let name = ServerName::IpAddress(https.ip().into());
    let client = ClientConnection::new(certificates.client()?, name);
    let mut stream = StreamOwned::new(client?, TcpStream::connect(https)?);
    let body = format!("{{\"password\":\"{PASSWORD}\"}}");
    for at in 0..count {
        let request = format!(
            "PUT /v1/accounts/{} HTTP/1.1\r\nHost: {https}\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            user(at),
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let status = read_answer(&mut stream)?;
        ensure!(matches!(status, 200 | 201), "the edge answers {status} to account {at}");
    }
    Ok(())
}

/// Reads an answer with a `Content-Length` to its end; its status.
fn read_answer(stream: &mut impl Read) -> anyhow::Result<u16> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        ensure!(head.len() < 8_192, "an answer without an end");
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.context("no Content-Length")?.trim().parse()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    match head.split_whitespace().nth(1).map(str::parse) {
        Some(Ok(status)) => Ok(status),
        _ => bail!("no status"),
    }
}
