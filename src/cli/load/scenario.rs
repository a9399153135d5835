//! `callgate load --scenario` and `--answer`: reads the scenario, shows where it stands, writes
//! what it amounted to.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use loadgen::{Progress, RunReport, Scenario, ScenarioRun, Verdict};
use tokio::sync::watch::Receiver;

use super::Options;
use crate::speak;

/// What only answers, where no scenario says how.
const ANSWER: &str = "\
name = \"answer\"
description = \"answers every call at once and sends something like speech\"
[callee]
[[callee.kind]]
say = [\"synth\"]
";
/// The exit code where the load tester itself may be what failed.
const NOT_JUDGED: u8 = 3;
/// Where `--token` is in the environment.
const TOKEN: &str = "CALLGATE_TOKEN";
/// How often a line is redrawn.
const REDRAW: Duration = Duration::from_millis(100);
/// How often a line is printed where no terminal redraws one.
const LINE: Duration = Duration::from_secs(5);

/// Runs the scenario that the options name.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let scenario = read(options)?;
    let mut speak = |text: &str| -> Result<_, String> {
        let spoken = speak::all([text]).map_err(|error| format!("{error:#}"))?;
        spoken.into_iter().next().ok_or_else(|| "nothing was spoken".to_owned())
    };
    let sounds = loadgen::scenario_sounds(&scenario, &mut speak)?;
    if !options.json {
        eprintln!("{}: {}", scenario.name, scenario.description);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let run = ScenarioRun::new(scenario, sounds);
        let (progress, cancellation) = (run.progress(), run.cancellation());
        let is_shown = !options.json;
        let drawing = tokio::spawn(draw(progress, is_shown));
        let interrupt = tokio::spawn(async move {
            // The first Ctrl-C hangs up every call and still ends with the report.
            if tokio::signal::ctrl_c().await.is_ok() {
                cancellation.cancel();
            }
        });
        let report = run.run().await;
        interrupt.abort();
        // The last state is drawn before the report.
        let _ = drawing.await;
        anyhow::Ok(report?)
    })?;
    write(options, &report)?;
    Ok(match report.verdict {
        Verdict::Passed => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
        Verdict::NotJudged => ExitCode::from(NOT_JUDGED),
    })
}

fn read(options: &Options) -> anyhow::Result<Scenario> {
    let (name, text) = match &options.scenario {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            (path.display().to_string(), text)
        }
        None => ("answer".to_owned(), ANSWER.to_owned()),
    };
    let mut settings = options.set.clone();
    let quoted = |path: &Path| format!("{:?}", path.display().to_string());
    if let Some(to) = options.to.as_ref().or(options.whip.as_ref()) {
        settings.push(format!("target.to={to:?}"));
    }
    if let Some(from) = &options.from {
        settings.push(format!("target.from={from:?}"));
    }
    if let Some(address) = &options.answer {
        settings.push(format!("callee.listen={address:?}"));
    }
    if let Some(file) = &options.token_file {
        settings.push(format!("target.token_file={}", quoted(file)));
    } else if std::env::var_os(TOKEN).is_some() {
        settings.push(format!("target.token_env={TOKEN:?}"));
    } else if options.token.is_some() {
        bail!("with --scenario and --answer give the token by {TOKEN} or --token-file");
    }
    if let Some(ca) = &options.ca {
        settings.push(format!("target.ca={}", quoted(ca)));
    }
    if let (Some(certificate), Some(key)) = (&options.certificate, &options.key) {
        settings.push(format!("target.certificate={}", quoted(certificate)));
        settings.push(format!("target.key={}", quoted(key)));
    }
    if options.danger_accept_any_certificate {
        settings.push("target.danger_accept_any_certificate=true".to_owned());
    }
    match Scenario::read(&name, &text, &settings) {
        Ok(scenario) => Ok(scenario),
        Err(errors) => bail!("the scenario cannot be run\n{errors}"),
    }
}

fn write(options: &Options, report: &RunReport) -> anyhow::Result<()> {
    let document = serde_json::to_string_pretty(report)?;
    let save = |path: &Path, text: &str| {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    if let Some(path) = &options.report {
        save(path, &document)?;
    }
    if let Some(path) = &options.html {
        save(path, &loadgen::html(report))?;
    }
    if options.json {
        println!("{document}");
    } else {
        println!("{report}");
    }
    Ok(())
}

/// One line that redraws on a terminal, a line every few seconds elsewhere.
async fn draw(mut progress: Receiver<Progress>, is_shown: bool) {
    let is_terminal = std::io::stderr().is_terminal();
    let mut shown: Option<Instant> = None;
    while progress.changed().await.is_ok() {
        let line = line(&progress.borrow_and_update());
        if !is_shown {
            continue;
        }
        if is_terminal && shown.is_none_or(|at| at.elapsed() >= REDRAW) {
            shown = Some(Instant::now());
            eprint!("\r\x1b[2K{line}");
            // A terminal that is gone shows nothing, and that is all.
            let _ = std::io::stderr().flush();
        } else if !is_terminal && shown.is_none_or(|at| at.elapsed() >= LINE) {
            shown = Some(Instant::now());
            eprintln!("{line}");
        }
    }
    if is_shown && is_terminal {
        eprintln!();
    }
}

fn line(now: &Progress) -> String {
    let seconds = now.elapsed.as_secs();
    let mut line = format!(
        "{:>4}:{:02}  calls {} placed, {} talking, {} answered, {} failed",
        seconds / 60,
        seconds % 60,
        now.placed,
        now.talking,
        now.answered,
        now.failed
    );
    if now.taken > 0 {
        line.push_str(&format!("; {} taken, {} served", now.taken, now.serving));
    }
    if let Some(setup) = now.setup_p50_ms {
        line.push_str(&format!("; set-up {setup:.0} ms"));
    }
    line.push_str(&format!("; {:.0} packets/s", now.packets_per_second));
    if now.is_behind {
        line.push_str("; BEHIND");
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scenario_that_only_answers_can_be_read() {
        let settings = ["callee.listen=\"127.0.0.1:5071\"".to_owned()];
        let scenario = Scenario::read("answer", ANSWER, &settings).unwrap();
        assert!(!scenario.calls_out());
    }

    #[test]
    fn the_line_says_where_a_run_stands() {
        let now = Progress {
            elapsed: Duration::from_secs(75),
            placed: 12,
            talking: 3,
            answered: 11,
            failed: 1,
            setup_p50_ms: Some(4.2),
            is_behind: true,
            ..Progress::default()
        };
        let line = line(&now);
        assert!(line.starts_with("   1:15  calls 12 placed, 3 talking, 11 answered, 1 failed"));
        assert!(line.contains("set-up 4 ms") && line.ends_with("BEHIND"), "{line}");
    }
}
