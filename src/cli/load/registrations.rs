//! `callgate load --wss`: people who are registered and do nothing.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base::Secret;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadgen::{Held, Registrations, RegistrationsConfig, Target};
use sip::digest::Login;
use tokio::sync::watch::Receiver;

use super::Options;

/// Registers as the options say.
pub(super) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let registrations = Registrations::new(configured(options)?)?;
    let (held, cancellation) = (registrations.held(), registrations.cancellation());
    let report = runtime.block_on(async {
        let drawing = tokio::spawn(draw(held, options.registrations, !options.json));
        let interrupt = tokio::spawn(async move {
            // The first Ctrl-C lets everybody go and still ends with the report.
            if tokio::signal::ctrl_c().await.is_ok() {
                cancellation.cancel();
            }
        });
        let report = registrations.run().await;
        interrupt.abort();
        // The last state is drawn before the report.
        let _ = drawing.await;
        anyhow::Ok(report?)
    })?;
    super::tell(options, &report)?;
    let all_well = report.kept == report.planned;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn configured(options: &Options) -> anyhow::Result<RegistrationsConfig> {
    let wss = options.wss.as_deref().context("--wss is missing")?;
    if !wss.starts_with("wss://") {
        bail!("--wss wants a URL such as wss://127.0.0.1:8443/sip");
    }
    let path = options.logins.as_ref().context("--wss wants --logins: who registers")?;
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let login = |line: &str| {
        let (user, password) = line.trim().split_once(' ')?;
        let password = Secret::new(password.trim().to_owned());
        Some(Login { user: user.to_owned(), password, realm: None })
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let logins: Option<Vec<Login>> = lines.map(login).collect();
    Ok(RegistrationsConfig {
        target: Target::parse(wss)?,
        count: options.registrations,
        rate: options.rate,
        hold: Duration::try_from_secs_f64(options.hold).context("--hold")?,
        logins: logins.context("each line of --logins is a user, a blank and a password")?,
        sources: options.sources.clone(),
        tls: super::tls(options),
    })
}

async fn draw(mut held: Receiver<Held>, planned: u32, visible: bool) {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(planned.into()), target);
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    while held.changed().await.is_ok() {
        let now = *held.borrow_and_update();
        bar.set_position(now.registered.into());
        bar.set_message(format!("registered, {} failed", now.failed));
    }
    bar.finish_and_clear();
}
