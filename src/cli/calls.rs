//! `callgate calls`: what the vault keeps of calls, for people.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base::{CallId, Personal, Reason};
use clap::Subcommand;
use edge::Config;
use edge::boot::vault_config;
use edge::control::{self, EraseCallError};
use edge::curves::series::{Figure, Series};
use serde_json::{Value, json};
use vault::{
    CallDetail, CallFilter, CallPersonal, CallState, CallSummary, Erasure, LadderEntry, ReadError,
    Reader, RecordingId, RecordingState, RecordingSummary, Role, Turn,
};

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
        /// As JSON.
        #[arg(long)]
        json: bool,
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
    /// Erase one call for ever: its numbers, transcript, ladder and recording. Its times and its
    /// reason stay, and the audit log says who did it. Works while the edge runs and while not.
    Erase {
        /// The call; it must be over.
        call: CallId,
    },
}

pub(crate) fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::List { count, number, json } => list(config, count, number, json)?,
        Command::Show { call, ladder, decision, json } => {
            let detail = detail(config, call)?;
            if json {
                let document = document(&detail, ladder, decision);
                println!("{}", serde_json::to_string_pretty(&document)?);
            } else {
                print!("{}", shown(&detail, ladder, decision)?);
            }
        }
        Command::Play { call } => play(config, call)?,
        Command::Export { call, to } => return export(config, call, &to),
        Command::Erase { call } => return erase(config, call),
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a future of the vault's reader.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}

/// A reader of the vault as it is now, also where an edge is running on it.
pub(crate) async fn reader(config: &Config) -> Result<Reader, ReadError> {
    control::settle(config).await;
    Reader::open(&vault_config(config)).await
}

pub(crate) fn detail(config: &Config, call: CallId) -> anyhow::Result<CallDetail> {
    let found = block_on(async { reader(config).await?.call(call).await })?;
    found.with_context(|| format!("{call}"))
}

fn list(config: &Config, count: u32, number: Option<String>, json: bool) -> anyhow::Result<()> {
    let number = number.map(Personal::new);
    let filter = CallFilter { count, number, ..CallFilter::default() };
    let calls = block_on(async { reader(config).await?.calls(&filter).await })??;
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

fn row(call: &CallSummary) -> Value {
    let (from, to) = call.numbers.as_ref().map(|(from, to)| (from.expose(), to.expose())).unzip();
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
        "unrecorded": Some(&call.unrecorded).filter(|it| !it.is_empty()),
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
    if let Some(personal) = &detail.personal {
        out.push_str(&quality_text(&parsed(&personal.quality))?);
    }
    for recording in &detail.recordings {
        let (seconds, state) = (recording.duration.as_secs_f64(), state_of(detail, recording));
        match recording.state {
            RecordingState::Open => writeln!(out, "  recording: {state}")?,
            _ => writeln!(out, "  recording: {seconds:.1} s, {state}")?,
        }
    }
    if call.recording && call.numbers.is_some() && detail.recordings.is_empty() {
        writeln!(out, "  recording: none, the store failed when it was to begin")?;
    }
    if let Some(why) = unrecorded(&call.unrecorded) {
        let how_much = if call.recording { "not all of it" } else { "none" };
        writeln!(out, "  recording: {how_much}, {why}")?;
    }
    if call.transcript && call.transcript_erased {
        writeln!(out, "  transcript: erased")?;
    }
    out.push_str(&transcript(detail)?);
    if let Some(personal) = detail.personal.as_ref().filter(|_| decision) {
        for (what, text) in decided(personal) {
            writeln!(out, "\n{what}: {}", serde_json::to_string_pretty(&parsed(text))?)?;
        }
    }
    if ladder {
        out.push_str(&ladder_text(detail)?);
    }
    Ok(out)
}

/// What of a call led to the decision, as JSON texts.
fn decided(personal: &CallPersonal) -> [(&'static str, &Personal<String>); 3] {
    [
        ("attempt", &personal.attempt),
        ("observed", &personal.observed),
        ("decision", &personal.decision),
    ]
}

/// A JSON text; null where there is none.
fn parsed(text: &Personal<String>) -> Value {
    serde_json::from_str(text.expose()).unwrap_or_default()
}

/// Why a call was not recorded that should have been, for people.
fn unrecorded(word: &str) -> Option<String> {
    Some(match word {
        "" => return None,
        "edge" => "this edge records nothing (`recording` of its [keep])".to_owned(),
        "trunk" => "a trunk does not allow it (`recording` in the policy)".to_owned(),
        "codec" => "its codec goes through and is not decoded here".to_owned(),
        other => other.to_owned(),
    })
}

/// How a recording stands, in words.
const fn state_of(detail: &CallDetail, recording: &RecordingSummary) -> &'static str {
    match (recording.state, detail.summary.state) {
        (RecordingState::Open, CallState::InProgress) => "being recorded",
        // The recorder writes its last second.
        (RecordingState::Open, CallState::Ended) => "finishing",
        // Closed at the next start.
        (RecordingState::Open, CallState::Lost) => "not yet closed",
        (state, _) => state.as_str(),
    }
}

/// The media of each leg, for people; nothing where there was none.
fn quality_text(quality: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    let Some(others) = quality["legs"].as_object() else {
        return leg_text("media", quality);
    };
    out.push_str(&leg_text("media of the caller", quality)?);
    for (leg, quality) in others {
        out.push_str(&leg_text(&format!("media of leg {leg}"), quality)?);
    }
    Ok(out)
}

fn leg_text(what: &str, quality: &Value) -> anyhow::Result<String> {
    let mut out = String::new();
    if !quality["received"].is_u64() {
        return Ok(out);
    }
    let figure = |name: &str| quality[name].as_f64().unwrap_or_default();
    let (received, lost) = (figure("received"), figure("lost"));
    let percent = |part: f64, whole: f64| if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    let verdict = match quality["mos"].as_f64() {
        _ if received == 0.0 => "nothing was heard".to_owned(),
        None => "a codec without a score".to_owned(),
        Some(mos) if mos >= 4.0 => format!("good, MOS {mos:.1}"),
        Some(mos) if mos >= 3.6 => format!("fair, MOS {mos:.1}"),
        Some(mos) => format!("poor, MOS {mos:.1}"),
    };
    let round_trip = match quality["round_trip_ms"].as_f64() {
        Some(ms) => format!(", round trip {ms:.0} ms"),
        None => String::new(),
    };
    writeln!(out, "  {what}: {verdict}{round_trip}")?;
    writeln!(
        out,
        "    heard  {received:.0} packets: {lost:.0} lost ({:.1} %), {:.0} late, {:.0} dropped, \
         {:.0} ms concealed, jitter {:.1} ms, buffer {:.0} ms",
        percent(lost, received + lost),
        figure("late"),
        figure("dropped"),
        figure("concealed") * 20.0,
        figure("jitter_ms"),
        figure("delay_ms"),
    )?;
    writeln!(
        out,
        "    sent   {:.0} packets: {:.1} % lost, jitter {:.1} ms, as the peer says",
        figure("sent"),
        figure("remote_loss") * 100.0,
        figure("remote_jitter_ms"),
    )?;
    if let Some(series) = Series::read(quality) {
        out.push_str(&series_text(&series)?);
    }
    Ok(out)
}

/// How the media was over time, in short.
fn series_text(series: &Series) -> anyhow::Result<String> {
    let figures = [
        (Figure::Mos, "MOS", ""),
        (Figure::Loss, "lost or late", " %"),
        (Figure::Jitter, "jitter", " ms"),
        (Figure::RoundTrip, "round trip", " ms"),
    ];
    let mut out = String::new();
    for (figure, name, unit) in figures {
        let Some(it) = series.summary(figure) else { continue };
        let (minutes, seconds) = (it.worst_at / 60_000, it.worst_at / 1_000 % 60);
        let start = if out.is_empty() { "    over time:" } else { ";" };
        write!(
            out,
            "{start} {name} median {:.1}{unit}, worst {:.1}{unit} at {minutes}:{seconds:02}",
            it.median, it.worst,
        )?;
    }
    if !out.is_empty() {
        out.push('\n');
    }
    Ok(out)
}

/// Everything about a call, for machines.
fn document(detail: &CallDetail, ladder: bool, decision: bool) -> Value {
    let turn = |turn: &Turn| {
        json!({
            "role": turn.role.as_str(),
            "text": turn.text.expose(),
            "start_ms": turn.start_ms,
            "end_ms": turn.end_ms,
            "interrupted": turn.interrupted,
            "latency_ms": turn.latency.map(|it| it.as_millis()),
        })
    };
    let recording = |recording: &RecordingSummary| {
        json!({
            "recording_id": recording.id.to_string(),
            "started": recording.started.to_string(),
            "state": recording.state.as_str(),
            "duration_ms": recording.duration.as_millis(),
        })
    };
    let message = |entry: &LadderEntry| {
        json!({
            "at_ms": entry.at_ms,
            "leg": entry.leg,
            "sent": entry.sent,
            "message": entry.message.expose(),
        })
    };
    let personal = detail.personal.as_ref();
    let mut document = json!({
        "call": row(&detail.summary),
        "media": personal.map(|it| parsed(&it.quality)),
        "recordings": detail.recordings.iter().map(recording).collect::<Vec<_>>(),
        "transcript": detail.turns.iter().map(turn).collect::<Vec<_>>(),
    });
    if ladder {
        document["ladder"] = detail.ladder.iter().map(message).collect();
    }
    if let Some(personal) = personal.filter(|_| decision) {
        for (what, text) in decided(personal) {
            document[what] = parsed(text);
        }
    }
    document
}

fn transcript(detail: &CallDetail) -> anyhow::Result<String> {
    let mut out = String::new();
    for turn in &detail.turns {
        let who = match turn.role {
            Role::Caller => "caller",
            Role::Agent => "agent ",
        };
        let latency = turn.latency.map_or(String::new(), |it| format!("  ({} ms)", it.as_millis()));
        let cut = match (turn.interrupted, turn.text.expose().is_empty()) {
            (true, true) => "(interrupted before a word)",
            (true, false) => " --",
            (false, _) => "",
        };
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

/// The recordings in their order: a call that is carried over, or whose parties change, has
/// several.
fn wavs(config: &Config, detail: &CallDetail) -> anyhow::Result<Vec<(Vec<u8>, bool)>> {
    detail.recordings.iter().map(|recording| wav(config, recording.id)).collect()
}

/// A recording as WAV, and whether it is as it was written. What was tampered with is heard up to
/// that place, and said to be.
fn wav(config: &Config, recording: RecordingId) -> anyhow::Result<(Vec<u8>, bool)> {
    let mut audio = Vec::new();
    let state =
        block_on(async { reader(config).await?.recording_wav(recording, &mut audio).await })??;
    let problem = match state {
        RecordingState::Truncated => Some("was cut short after it was written"),
        RecordingState::Missing => bail!("the recording's file is missing"),
        RecordingState::Damaged => Some("was changed after it was written; it plays up to there"),
        RecordingState::Open => Some("goes on; this is what there is of it so far"),
        RecordingState::Complete | RecordingState::Unfinished | RecordingState::Erased => None,
    };
    if let Some(problem) = problem {
        eprintln!("the recording {problem}");
    }
    Ok((audio, problem.is_none()))
}

/// A call whose recording is closed, where the call is over: the recorder takes a moment for its
/// last second.
fn finished(config: &Config, call: CallId) -> anyhow::Result<CallDetail> {
    let mut found = detail(config, call)?;
    for _ in 0..FINISHING_LOOKS {
        let is_open = |it: &RecordingSummary| it.state == RecordingState::Open;
        if found.summary.state != CallState::Ended || !found.recordings.iter().any(is_open) {
            break;
        }
        std::thread::sleep(FINISHING_PAUSE);
        found = detail(config, call)?;
    }
    Ok(found)
}

/// How often, and how long between, a recording is looked at that is being finished.
const FINISHING_LOOKS: u32 = 25;
const FINISHING_PAUSE: Duration = Duration::from_millis(200);

fn erase(config: &Config, call: CallId) -> anyhow::Result<ExitCode> {
    match block_on(control::erase(config, call))? {
        Ok(Erasure::Now) => {
            println!("{call} is erased: its numbers, words, ladder and recording are gone.");
            println!("Its times and its reason stay; the audit log says who erased it.");
            Ok(ExitCode::SUCCESS)
        }
        Ok(Erasure::Before) => {
            println!("{call} had been erased before.");
            Ok(ExitCode::SUCCESS)
        }
        Err(error @ (EraseCallError::Unknown | EraseCallError::InProgress)) => {
            eprintln!("{call} is not erased: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error).with_context(|| format!("{call} is not erased")),
    }
}

fn play(config: &Config, call: CallId) -> anyhow::Result<()> {
    let detail = finished(config, call)?;
    let recordings = wavs(config, &detail)?;
    if recordings.is_empty() {
        bail!("the call has no recording");
    }
    recordings.iter().try_for_each(|(audio, _)| play_wav(call, audio))
}

fn play_wav(call: CallId, audio: &[u8]) -> anyhow::Result<()> {
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
            let _ = input.write_all(audio);
        }
        child.wait()?;
        return Ok(());
    }
    bail!("no player found (aplay, paplay, ffplay); use `callgate calls export {call}`")
}

fn export(config: &Config, call: CallId, to: &Path) -> anyhow::Result<ExitCode> {
    let detail = finished(config, call)?;
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let write = |name: String, bytes: &[u8]| -> anyhow::Result<()> {
        let path = to.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
        Ok(())
    };
    write(format!("{call}.txt"), shown(&detail, true, true)?.as_bytes())?;
    let document = document(&detail, true, true);
    write(format!("{call}.json"), serde_json::to_string_pretty(&document)?.as_bytes())?;
    let recordings = wavs(config, &detail)?;
    for (number, (audio, _)) in (1..).zip(&recordings) {
        let name = if number == 1 { format!("{call}.wav") } else { format!("{call}-{number}.wav") };
        write(name, audio)?;
    }
    let is_whole = recordings.iter().all(|(_, is_whole)| *is_whole);
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_is_told_in_words_and_units() {
        let quality = json!({
            "received": 412, "lost": 3, "late": 0, "dropped": 1, "concealed": 3,
            "jitter_ms": 2.14, "delay_ms": 40.0, "sent": 498, "remote_loss": 0.012,
            "remote_jitter_ms": 0.4, "round_trip_ms": 11.6, "mos": 4.32,
        });
        assert_eq!(
            quality_text(&quality).unwrap(),
            "  media: good, MOS 4.3, round trip 12 ms\n    \
             heard  412 packets: 3 lost (0.7 %), 0 late, 1 dropped, 60 ms concealed, \
             jitter 2.1 ms, buffer 40 ms\n    \
             sent   498 packets: 1.2 % lost, jitter 0.4 ms, as the peer says\n"
        );
    }

    #[test]
    fn media_over_time_is_told_by_its_median_and_its_worst() {
        let mut quality = json!({ "received": 700, "lost": 50, "sent": 700, "mos": 3.9 });
        let was = quality_text(&quality).unwrap();
        quality["series"] = json!({
            "from_ms": 60_000, "until_ms": [65_000, 70_000, 75_000], "received": [250, 200, 250],
            "lost": [0, 50, 0], "late": [0, 0, 0], "concealed": [0, 50, 0],
            "jitter_ms": [2.0, 31.0, 3.0], "round_trip_ms": [null, null, null],
            "mos": [4.41, 2.2, 4.38],
        });
        assert_eq!(
            quality_text(&quality).unwrap(),
            was + "    over time: MOS median 4.4, worst 2.2 at 1:05; lost or late median 0.0 %, \
                   worst 20.0 % at 1:05; jitter median 3.0 ms, worst 31.0 ms at 1:05\n"
        );
    }

    #[test]
    fn a_call_without_media_has_no_media_line_and_a_silent_one_says_so() {
        assert_eq!(quality_text(&parsed(&Personal::default())).unwrap(), "");
        assert_eq!(quality_text(&json!({})).unwrap(), "");
        let silent = json!({ "received": 0, "lost": 0, "sent": 100, "mos": 1.0 });
        let text = quality_text(&silent).unwrap();
        assert!(text.starts_with("  media: nothing was heard\n"), "{text}");
        assert!(text.contains("0 lost (0.0 %)"), "{text}");
    }

    #[test]
    fn each_leg_of_a_call_between_trunks_has_its_lines() {
        let leg = json!({ "received": 9, "lost": 1, "sent": 10, "mos": 3.7 });
        let mut both = leg.clone();
        both["legs"] = json!({ "1": leg });
        let text = quality_text(&both).unwrap();
        assert!(text.starts_with("  media of the caller: fair, MOS 3.7\n"), "{text}");
        assert!(text.contains("  media of leg 1: fair, MOS 3.7\n"), "{text}");
    }
}
