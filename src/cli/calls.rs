//! `callgate calls`: what the vault keeps of calls, for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context as _, bail};
use base::{CallId, Personal, Reason, WallTime};
use clap::Subcommand;
use edge::Config;
use edge::boot::vault_config;
use serde_json::json;
use vault::{CallDetail, CallFilter, CallState, CallSummary, Reader, RecordingState, Role};

/// What to do with calls.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Calls, newest first.
    List {
        /// At most this many.
        #[arg(long, default_value_t = 20)]
        count: u32,
        /// Only those from or to this number.
        #[arg(long)]
        number: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// One call: what was decided, said and signalled.
    Show {
        /// The call.
        call: CallId,
        /// With the SIP ladder.
        #[arg(long)]
        ladder: bool,
        /// With the policy's decision and what it was made from.
        #[arg(long)]
        decision: bool,
    },
    /// Play the recording: caller left, voice agent right.
    Play {
        /// The call.
        call: CallId,
    },
    /// Write transcript, ladder, decision and recording into a folder, in the clear.
    Export {
        /// The call.
        call: CallId,
        /// The folder; made where it is missing.
        #[arg(long, default_value = ".")]
        to: PathBuf,
    },
}

pub(crate) fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { count, number, json } => list(config, count, number, json)?,
        Command::Show { call, ladder, decision } => {
            let detail = detail(config, call)?;
            print!("{}", shown(&detail, ladder, decision)?);
        }
        Command::Play { call } => play(config, call)?,
        Command::Export { call, to } => return export(config, call, &to),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a future of the vault's reader.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

pub(crate) fn detail(config: &Config, call: CallId) -> anyhow::Result<CallDetail> {
    let found = block_on(async {
        let reader = Reader::open(&vault_config(config)).await?;
        reader.call(call).await
    })?;
    found.with_context(|| format!("{call}"))
}

fn list(config: &Config, count: u32, number: Option<String>, json: bool) -> anyhow::Result<()> {
    let filter =
        CallFilter { count, since: WallTime::default(), number: number.map(Personal::new) };
    let calls = block_on(async {
        let reader = Reader::open(&vault_config(config)).await?;
        reader.calls(&filter).await
    })??;
    if json {
        let rows: Vec<_> = calls.iter().map(row).collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!(
        "{:<30} {:<24} {:<9} {:>7} {:<12} {:<16} {:<16} REASON",
        "CALL", "STARTED", "STATE", "TALKED", "TRUNK", "FROM", "TO"
    );
    for call in &calls {
        let (from, to) = numbers(call);
        println!(
            "{:<30} {:<24} {:<9} {:>6.1}s {:<12} {:<16} {:<16} {}",
            call.id.to_string(),
            call.started.to_string(),
            state(call.state),
            call.talked.unwrap_or_default().as_secs_f64(),
            call.trunk.as_deref().unwrap_or("-"),
            from,
            to,
            call.reason.as_deref().unwrap_or("-"),
        );
    }
    Ok(())
}

const fn state(state: CallState) -> &'static str {
    match state {
        CallState::InProgress => "in_progress",
        CallState::Ended => "ended",
        CallState::Lost => "lost",
    }
}

fn numbers(call: &CallSummary) -> (&str, &str) {
    call.numbers
        .as_ref()
        .map_or(("[erased]", "[erased]"), |(from, to)| (from.expose(), to.expose()))
}

fn row(call: &CallSummary) -> serde_json::Value {
    let (from, to) = numbers(call);
    json!({
        "call_id": call.id.to_string(),
        "state": state(call.state),
        "trunk": call.trunk,
        "voice_agent": call.voice_agent,
        "from": from,
        "to": to,
        "started": call.started.to_string(),
        "answered": call.answered.map(|at| at.to_string()),
        "ended": call.ended.map(|at| at.to_string()),
        "reason": call.reason,
        "setup_ms": call.setup.map(|time| time.as_millis()),
        "talked_ms": call.talked.map(|time| time.as_millis()),
        "transport": call.transport,
        "protection": call.protection,
        "codec": call.codec,
        "keys_exposed": call.keys_exposed,
        "recording": call.recording,
        "transcript": call.transcript,
    })
}

fn shown(detail: &CallDetail, ladder: bool, decision: bool) -> anyhow::Result<String> {
    let call = &detail.summary;
    let (from, to) = numbers(call);
    let mut out = String::new();
    writeln!(out, "{}", call.id)?;
    writeln!(out, "  from {from} to {to}, trunk {}", call.trunk.as_deref().unwrap_or("-"))?;
    writeln!(out, "  arrived {}", call.started)?;
    if let Some(answered) = call.answered {
        let setup = call.setup.unwrap_or_default().as_millis();
        writeln!(
            out,
            "  answered {answered} after {setup} ms by {}",
            call.voice_agent.as_deref().unwrap_or("-")
        )?;
        writeln!(out, "  over {}, media {} {}", call.transport, call.protection, call.codec)?;
    }
    if call.keys_exposed {
        writeln!(out, "  KEYS EXPOSED: its SRTP keys crossed plaintext signalling by exemption")?;
    }
    match (call.state, call.reason.as_deref()) {
        (CallState::InProgress, _) => writeln!(out, "  in progress")?,
        (CallState::Lost, _) => writeln!(out, "  lost: the edge died during it")?,
        (CallState::Ended, reason) => {
            let code = reason.unwrap_or("-");
            let hint = Reason::ALL.iter().find(|it| it.code() == code).map_or("", |it| it.hint());
            let talked = call.talked.unwrap_or_default().as_secs_f64();
            writeln!(out, "  ended: {code} after {talked:.1} s ({hint})")?;
        }
    }
    if let Some(quality) = detail.personal.as_ref().map(|it| it.quality.expose()) {
        writeln!(out, "  media: {quality}")?;
    }
    for recording in &detail.recordings {
        writeln!(
            out,
            "  recording: {:.1} s, {:?}",
            recording.duration.as_secs_f64(),
            recording.state
        )?;
    }
    out.push_str(&transcript(detail)?);
    if let Some(personal) = detail.personal.as_ref().filter(|_| decision) {
        for (what, text) in [
            ("attempt", &personal.attempt),
            ("observed", &personal.observed),
            ("decision", &personal.decision),
        ] {
            let value: serde_json::Value = serde_json::from_str(text.expose()).unwrap_or_default();
            writeln!(out, "\n{what}: {}", serde_json::to_string_pretty(&value)?)?;
        }
    }
    if ladder {
        out.push_str(&ladder_text(detail)?);
    }
    Ok(out)
}

fn transcript(detail: &CallDetail) -> anyhow::Result<String> {
    let mut out = String::new();
    for turn in &detail.turns {
        let who = match turn.role {
            Role::Caller => "caller",
            Role::Agent => "agent ",
        };
        let latency = turn.latency.map_or(String::new(), |it| format!("  ({} ms)", it.as_millis()));
        let cut = if turn.interrupted { " --" } else { "" };
        writeln!(
            out,
            "  {:>7.2} {who} {}{cut}{latency}",
            turn.start_ms as f64 / 1e3,
            turn.text.expose()
        )?;
    }
    Ok(out)
}

fn ladder_text(detail: &CallDetail) -> anyhow::Result<String> {
    let mut out = String::new();
    for entry in &detail.ladder {
        let arrow = if entry.sent { "<-" } else { "->" };
        writeln!(out, "\n{arrow} {:.3} s", entry.at_ms as f64 / 1e3)?;
        for line in entry.message.expose().lines() {
            writeln!(out, "   {line}")?;
        }
    }
    Ok(out)
}

/// The recording as WAV, and whether it is as it was written. What was tampered with is heard up
/// to that place, and said to be.
fn wav(config: &Config, detail: &CallDetail) -> anyhow::Result<Option<(Vec<u8>, bool)>> {
    let Some(recording) = detail.recordings.first().map(|recording| recording.id) else {
        return Ok(None);
    };
    let mut audio = Vec::new();
    let state = block_on(async {
        let reader = Reader::open(&vault_config(config)).await?;
        reader.recording_wav(recording, &mut audio).await
    })??;
    let problem = match state {
        RecordingState::Truncated => Some("was cut short after it was written"),
        RecordingState::Missing => bail!("the recording's file is missing"),
        RecordingState::Damaged => Some("was changed after it was written; it plays up to there"),
        _ => None,
    };
    if let Some(problem) = problem {
        eprintln!("the recording {problem}");
    }
    Ok(Some((audio, problem.is_none())))
}

fn play(config: &Config, call: CallId) -> anyhow::Result<()> {
    let detail = detail(config, call)?;
    let (audio, _) = wav(config, &detail)?.context("the call has no recording")?;
    let players: [(&str, &[&str]); 3] = [
        ("aplay", &["-q", "-"]),
        ("paplay", &["/dev/stdin"]),
        ("ffplay", &["-nodisp", "-autoexit", "-loglevel", "error", "-"]),
    ];
    for (player, arguments) in players {
        let started =
            std::process::Command::new(player).args(arguments).stdin(Stdio::piped()).spawn();
        let Ok(mut child) = started else { continue };
        if let Some(mut input) = child.stdin.take() {
            // A player that is closed early has heard enough.
            let _ = input.write_all(&audio);
        }
        child.wait()?;
        return Ok(());
    }
    bail!("no player found (aplay, paplay, ffplay); use `callgate calls export {call}`")
}

fn export(config: &Config, call: CallId, to: &Path) -> anyhow::Result<ExitCode> {
    let detail = detail(config, call)?;
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let write = |name: String, bytes: &[u8]| -> anyhow::Result<()> {
        let path = to.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
        Ok(())
    };
    write(format!("{call}.txt"), shown(&detail, true, true)?.as_bytes())?;
    let turns: Vec<_> = detail
        .turns
        .iter()
        .map(|turn| {
            json!({
                "role": turn.role.as_str(),
                "text": turn.text.expose(),
                "start_ms": turn.start_ms,
                "end_ms": turn.end_ms,
                "interrupted": turn.interrupted,
                "latency_ms": turn.latency.map(|it| it.as_millis()),
            })
        })
        .collect();
    let document = json!({ "call": row(&detail.summary), "transcript": turns });
    write(format!("{call}.json"), serde_json::to_string_pretty(&document)?.as_bytes())?;
    let Some((audio, is_whole)) = wav(config, &detail)? else { return Ok(ExitCode::SUCCESS) };
    write(format!("{call}.wav"), &audio)?;
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
