//! `callgate explain`: what the policy does with an INVITE, from a file or from a stored call.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use base::{CallId, Date};
use bytes::Bytes;
use clap::Args;
use edge::{Config, agents, policies};
use policy::{Attempt, Observed, Transport};
use sip::Message;

use crate::calls;

/// Options of the command.
#[derive(Args)]
pub(crate) struct Options {
    /// The INVITE, as captured on the wire; line ends may be plain.
    #[arg(value_name = "INVITE", required_unless_present = "call")]
    invite: Option<PathBuf>,
    /// Explain a stored call instead, with what was observed then.
    #[arg(long, value_name = "ID", conflicts_with = "invite")]
    call: Option<CallId>,
    /// Where the INVITE comes from.
    #[arg(long, default_value = "127.0.0.1:5061", value_name = "ADDRESS:PORT")]
    source: SocketAddr,
    /// Our address that it comes to, where the policy has zones; without it, any.
    #[arg(long, value_name = "ADDRESS:PORT")]
    local: Option<SocketAddr>,
    /// What it comes over: udp, tcp, tls.
    #[arg(long, default_value = "tls")]
    transport: String,
    /// A verified identity of the peer's certificate; may be repeated.
    #[arg(long, value_name = "NAME")]
    certificate: Vec<String>,
    /// The day to decide for, YYYY-MM-DD; exemptions end by it.
    #[arg(long, value_name = "DATE")]
    on: Option<String>,
    /// Policy files to read instead of the configured ones.
    #[arg(long, value_name = "FILE")]
    policy: Vec<PathBuf>,
}

pub(crate) fn run(config: &Config, options: &Options) -> anyhow::Result<ExitCode> {
    let (attempt, observed) = match options.call {
        Some(call) => stored(config, call)?,
        None => (from_file(options)?, Observed::default()),
    };
    let mut observed = observed;
    if let Some(day) = &options.on {
        observed.wall =
            parse_day(day).context("--on wants YYYY-MM-DD")?.end() + std::time::Duration::ZERO;
        observed.wall = base::WallTime::from_unix_millis(observed.wall.unix_millis() - 1);
    } else if options.call.is_none() {
        observed.wall = edge::boot::today();
    }
    let files = if options.policy.is_empty() { &config.policy.files } else { &options.policy };
    let agents = agents::load(&config.agents.directory).unwrap_or_default();
    let (policy, _) = policies::compile(&policies::read(files)?, &agents, observed.wall)?;
    let explanation = policy::explain(&policy, &attempt, &observed);
    println!("{explanation}");
    let accepted = policy::decide(&policy, &attempt, &observed).accepted().is_some();
    Ok(if accepted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn from_file(options: &Options) -> anyhow::Result<Attempt> {
    let path = options.invite.as_ref().context("an INVITE is wanted")?;
    let raw = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let invite = match sip::parse::datagram(&Bytes::from(with_line_ends(&raw))) {
        Ok(Message::Request(request)) => request,
        Ok(Message::Response(_)) => bail!("{} holds a response", path.display()),
        Err(failure) => bail!("{}: {}", path.display(), failure.error),
    };
    let kind = Transport::ALL.iter().find(|kind| kind.word() == options.transport);
    let transport = *kind.with_context(|| format!("unknown transport {}", options.transport))?;
    let peer = call::Peer {
        flow: sip::FlowId(0),
        transport,
        source: options.source,
        local: options.source,
        certificates: Arc::from(options.certificate.as_slice()),
        alias: false,
    };
    let mut attempt = call::attempt_of(&peer, &invite, edge::boot::today())
        .map_err(|reason| anyhow::anyhow!("{}: {reason}: {}", path.display(), reason.hint()))?;
    attempt.local = options.local;
    Ok(attempt)
}

fn stored(config: &Config, call: CallId) -> anyhow::Result<(Attempt, Observed)> {
    let detail = calls::detail(config, call)?;
    let personal = detail.personal.context("the call was erased")?;
    Ok((
        serde_json::from_str(personal.attempt.expose())?,
        serde_json::from_str(personal.observed.expose())?,
    ))
}

/// Files made by people end their lines with LF.
fn with_line_ends(raw: &[u8]) -> Vec<u8> {
    let has_crlf = raw.windows(2).any(|pair| pair == b"\r\n");
    if has_crlf {
        return raw.to_vec();
    }
    raw.iter()
        .flat_map(|byte| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] })
        .collect()
}

fn parse_day(text: &str) -> Option<Date> {
    let mut parts = text.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)
        .filter(|_| parts.next().is_none())
}
