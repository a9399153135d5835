//! `callgate load`: places calls, draws progress, ends with a table and, where asked, JSON. With a
//! scenario it does what the scenario says (`load/scenario.rs`), with `--wss` it only registers
//! (`load/registrations.rs`).

mod registrations;
mod scenario;

use std::fmt::Display;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use audio::Codec;
use base::Secret;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadgen::{
    Authorities, Config, Identity, Load, OfferMode, Protection, Script, Step, Target, Tls,
};
use rtp::sdes::Suite;
use serde::Serialize;

use crate::speak;

/// Options of the command.
#[derive(Args)]
pub(crate) struct Options {
    /// Whom to call, such as 'sip:reception@127.0.0.1:5061;transport=tls'.
    #[arg(long, value_name = "URI", required_unless_present_any = WHOM)]
    to: Option<String>,
    /// Call as browsers do, at this WHIP endpoint: https://127.0.0.1:8443/whip/reception.
    #[arg(long, value_name = "URL", conflicts_with = "to")]
    whip: Option<String>,
    /// What browsers prove themselves with: an API key or a browser token. Everybody on this
    /// machine sees arguments: better by the environment or --token-file.
    #[arg(long, env = "CALLGATE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Register by SIP over WebSockets and do nothing else: wss://127.0.0.1:8443/sip. Takes --rate,
    /// --hold, --ca, --json and --report as well.
    #[arg(long, value_name = "URL", conflicts_with_all = ["to", "whip", "scenario", "answer"])]
    wss: Option<String>,
    /// How many WebSockets register.
    #[arg(long, default_value_t = 1, requires = "wss", value_name = "N")]
    registrations: u32,
    /// Who registers, in turns: a user, a blank and a password in each line of this file.
    #[arg(long, requires = "wss", value_name = "FILE")]
    logins: Option<PathBuf>,
    /// Our addresses of these WebSockets, in turns: an edge takes so many of one.
    #[arg(long, requires = "wss", value_delimiter = ',', value_name = "ADDRESS")]
    sources: Vec<IpAddr>,
    /// Run a scenario: callers, callees and bad actors of several kinds (benches/scenarios). Of the
    /// options below it takes --to, --from, --answer, --set, --ca, --certificate, --key, --json,
    /// --report and --html.
    #[arg(long, value_name = "FILE", conflicts_with_all = ONE_COMMAND)]
    scenario: Option<PathBuf>,
    /// Set a value of the scenario, as in --set limits.calls=5 or --set stage.0.rate=2; may be
    /// repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Answer calls at this address, as in 127.0.0.1:5071; alone, until Ctrl-C or the limit of time
    /// (limits.duration, an hour).
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ONE_COMMAND)]
    answer: Option<String>,
    /// Who calls: a number, a user or a whole address.
    #[arg(long, value_name = "CALLER")]
    from: Option<String>,
    /// How many calls.
    #[arg(long, default_value_t = 1)]
    calls: u32,
    /// How many calls begin each second.
    #[arg(long, default_value_t = 10.0)]
    rate: f64,
    /// How many calls there are at most at one time.
    #[arg(long, default_value_t = 100)]
    concurrency: u32,
    /// How many signalling connections the calls share.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    /// How long a call lasts at most, in seconds.
    #[arg(long, default_value_t = 30.0)]
    hold: f64,
    /// Codecs, the best first: opus, g722, pcma, pcmu.
    #[arg(long, value_delimiter = ',', value_name = "CODEC")]
    codecs: Vec<String>,
    /// SRTP suites, the best first, such as AEAD_AES_256_GCM.
    #[arg(long, value_delimiter = ',', value_name = "SUITE")]
    suites: Vec<String>,
    /// How media is protected.
    #[arg(long, value_enum, default_value_t = Media::Srtp)]
    media: Media,
    /// Send no offer in the INVITE; answer in the ACK.
    #[arg(long)]
    late_offer: bool,
    /// What each caller says, one sentence after each of the far end's; may be repeated.
    #[arg(long, value_name = "SENTENCE", conflicts_with_all = ["wav", "tone", "silent"])]
    say: Vec<String>,
    /// What each caller says once, from a WAV (8 or 16 kHz PCM).
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tone", "silent"])]
    wav: Option<PathBuf>,
    /// A tone of this many Hz.
    #[arg(long, value_name = "HZ", conflicts_with = "silent")]
    tone: Option<u16>,
    /// Only listen.
    #[arg(long)]
    silent: bool,
    /// Keys to press after what is said.
    #[arg(long, value_name = "DIGITS")]
    digits: Option<String>,
    /// Write what is heard, a 16 kHz WAV; with several calls one each.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Who vouches for the server, PEM [default: certs/ca.pem].
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM; with --key.
    #[arg(long, requires = "key", value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Key of the client certificate, PEM.
    #[arg(long, requires = "certificate", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Believe whoever answers; only to find out why a handshake fails.
    #[arg(long)]
    danger_accept_any_certificate: bool,
    /// Print the report as JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Write the report as JSON into a file as well.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Write the report of a scenario as a page with plots, which needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Options that say whom to call, or that nobody is.
const WHOM: [&str; 4] = ["scenario", "answer", "whip", "wss"];

/// Options that only make sense without a scenario.
const ONE_COMMAND: [&str; 15] = [
    "calls",
    "rate",
    "concurrency",
    "connections",
    "hold",
    "codecs",
    "suites",
    "media",
    "late_offer",
    "say",
    "wav",
    "tone",
    "silent",
    "digits",
    "save",
];

/// Where the development certificates are.
const CA: &str = "certs/ca.pem";

/// How media is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Media {
    /// SRTP or no call.
    Srtp,
    /// SRTP offered as RTP/AVP with a=crypto.
    Opportunistic,
    /// Plain RTP.
    Plain,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if options.wss.is_some() {
        return registrations::run(options);
    }
    if options.scenario.is_some() || options.answer.is_some() {
        return scenario::run(options);
    }
    if options.html.is_some() || !options.set.is_empty() {
        bail!("--html and --set go with --scenario");
    }
    let config = configured(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let report = runtime.block_on(async {
        let load = Load::new(config)?;
        let (progress, cancellation) = (load.progress(), load.cancellation());
        let drawing = tokio::spawn(draw(progress, !options.json));
        let interrupt = tokio::spawn(async move {
            // The first Ctrl-C hangs up every call and still ends with the report.
            if tokio::signal::ctrl_c().await.is_ok() {
                cancellation.cancel();
            }
        });
        let report = load.run().await;
        interrupt.abort();
        // The last state is drawn before the report.
        let _ = drawing.await;
        anyhow::Ok(report?)
    })?;
    tell(options, &report)?;
    let all_well = report.failed == 0 && report.answered == report.placed;
    Ok(if all_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the report to its file, and prints it.
fn tell(options: &Options, report: &(impl Serialize + Display)) -> anyhow::Result<()> {
    let document = serde_json::to_string_pretty(report)?;
    if let Some(path) = &options.report {
        std::fs::write(path, &document)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if options.json {
        println!("{document}");
    } else {
        println!("{report}");
    }
    Ok(())
}

fn configured(options: &Options) -> anyhow::Result<Config> {
    let to = options.to.as_deref().or(options.whip.as_deref()).context("--to is missing")?;
    let mut config = Config::new(Target::parse(to)?);
    if let Some(from) = &options.from {
        config = config.with_caller(from)?;
    }
    config.calls = options.calls;
    config.rate = options.rate;
    config.concurrency = options.concurrency;
    config.connections = options.connections;
    config.hold = Duration::try_from_secs_f64(options.hold).context("--hold")?;
    if !options.codecs.is_empty() {
        config.codecs = options
            .codecs
            .iter()
            .map(|name| {
                Codec::from_name(name).with_context(|| {
                    format!("unknown codec {name}; there are opus, g722, pcma, pcmu")
                })
            })
            .collect::<anyhow::Result<_>>()?;
    }
    if !options.suites.is_empty() {
        config.suites = options
            .suites
            .iter()
            .map(|name| Suite::from_name(name).with_context(|| format!("unknown suite {name}")))
            .collect::<anyhow::Result<_>>()?;
    }
    config.protection = match options.media {
        Media::Srtp => Protection::Srtp,
        Media::Opportunistic => Protection::Opportunistic,
        Media::Plain => Protection::Plain,
    };
    config.offer = if options.late_offer { OfferMode::Late } else { OfferMode::Early };
    config.tls = tls(options);
    config.token = token(options)?;
    config.save.clone_from(&options.save);
    config.script = script(options)?;
    Ok(config)
}

fn tls(options: &Options) -> Tls {
    let authorities = if options.danger_accept_any_certificate {
        Authorities::DangerAcceptAnyCertificate
    } else {
        Authorities::File(options.ca.clone().unwrap_or_else(|| CA.into()))
    };
    let identity = options.certificate.clone().zip(options.key.clone());
    let identity = identity.map(|(certificate, key)| Identity { certificate, key });
    Tls { authorities, identity, server_name: None }
}

fn token(options: &Options) -> anyhow::Result<Option<Secret<String>>> {
    let token = match &options.token_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            Some(text.with_context(|| format!("cannot read {}", path.display()))?)
        }
        None => options.token.clone(),
    };
    Ok(token.map(|it| Secret::new(it.trim().to_owned())))
}

/// What a caller does who was told nothing: a whole conversation with the shipped voice agent.
const FIRST_CALL: [&str; 2] = ["opening hours", "goodbye"];

fn script(options: &Options) -> anyhow::Result<Script> {
    let mut script = if let Some(path) = &options.wav {
        Script::play(loadgen::wav::read(path)?)
    } else if let Some(hz) = options.tone {
        if hz >= 8_000 {
            bail!("--tone wants less than 8000 Hz");
        }
        Script::tone(hz)
    } else if options.silent {
        Script::silence()
    } else if !options.say.is_empty() {
        Script::sentences(speak::all(options.say.iter().map(String::as_str))?)
    } else if options.calls == 1 {
        Script::sentences(speak::all(FIRST_CALL)?)
    } else {
        Script::tone(440)
    };
    if let Some(digits) = &options.digits {
        let (silence, at_most) = (Duration::from_millis(700), Duration::from_secs(15));
        script = script
            .then(Step::WaitForSpeechEnd { silence, at_most })
            .then(Step::Digits(digits.clone()));
    }
    Ok(script)
}

async fn draw(mut progress: tokio::sync::watch::Receiver<loadgen::Progress>, visible: bool) {
    let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let planned = u64::from(progress.borrow().planned);
    let bar = ProgressBar::with_draw_target(Some(planned), target);
    if let Ok(style) = ProgressStyle::with_template("[{elapsed}] {bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    while progress.changed().await.is_ok() {
        let now = *progress.borrow();
        bar.set_position(u64::from(now.over));
        bar.set_message(format!(
            "ringing {} talking {} answered {} failed {}",
            now.ringing, now.talking, now.answered, now.failed
        ));
    }
    bar.finish_and_clear();
}
