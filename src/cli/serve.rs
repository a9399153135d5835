//! `callgate serve`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use edge::config::LogFormat;
use edge::{Config, Edge};
use policy::Transport;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// How long calls in progress may go on after the first signal.
const PATIENCE: Duration = Duration::from_secs(30);
/// What `callgate load` trusts by itself.
const DEFAULT_AUTHORITY: &str = "certs/ca.pem";
/// Its number on Linux, whatever the machine but MIPS.
const SIGXFSZ: i32 = 25;

pub(crate) fn run(config: Config, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let format = match config.log.format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    telemetry::start_log(format, config.log.level.word())?;
    guard_process(&config);
    // More threads than shards hand every message from one to another: a sixth more CPU per call.
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(config.shards()).enable_all().build()?;
    runtime.block_on(serve(config, file))?;
    Ok(ExitCode::SUCCESS)
}

/// Live audio and keys are in this process's memory: no core dump may hold them (DESIGN 4.4).
/// And a call needs four sockets, so as many files as the system allows are asked for.
fn guard_process(config: &Config) {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if setrlimit(Resource::Core, none).is_err() {
        tracing::warn!(target: "callgate", "core dumps cannot be switched off");
    }
    let files = getrlimit(Resource::Nofile);
    // The soft limit may always be raised to the hard one.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
    let (wanted, allowed) = (config.limits.files(), files.maximum.unwrap_or(u64::MAX));
    if allowed < wanted {
        tracing::warn!(
            target: "callgate",
            "[limits] may need {wanted} open files, the system allows {allowed}: raise LimitNOFILE \
             (ulimit -Hn), or lower them"
        );
    }
}

async fn serve(config: Config, file: Option<&Path>) -> anyhow::Result<()> {
    // A limit on the size of files is like a full disk: the write fails, the process goes on.
    let _beyond_limit = signal(SignalKind::from_raw(SIGXFSZ))?;
    let authority = config.tls.certificate.with_file_name("ca.pem");
    let mut edge = Edge::start(config).await.context("callgate did not start")?;
    greet(&edge, &authority, file);
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (ask, mut asked) = mpsc::channel(1);
    let reloads = tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // One reload waits already: it will see these files as well.
            let _ = ask.try_send(());
        }
    });
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    edge.serve(stop, &mut asked).await;
    reloads.abort();
    let calls = edge.calls();
    if calls > 0 {
        eprintln!(
            "finishing {calls} calls (at most {} s); press Ctrl-C again to cut them",
            PATIENCE.as_secs()
        );
    }
    let hurry = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    edge.stop(PATIENCE, hurry).await;
    Ok(())
}

fn greet(edge: &Edge, authority: &Path, file: Option<&Path>) {
    let mut secure = None;
    for (transport, address) in edge.listeners() {
        println!("SIP over {:<4} {address}", transport.word().to_uppercase());
        if transport == Transport::Tls {
            secure = secure.or(Some(address));
        }
    }
    for address in edge.browsers().addresses() {
        println!("console       https://{address}/console");
        println!("WHIP          https://{address}/whip/NAME");
        println!("SIP over WSS  wss://{address}/sip");
    }
    println!("metrics       http://{}/metrics   (and /health)", edge.metrics());
    if let Some(key) = edge.browsers().first_key() {
        println!();
        println!("The workspace's first API key, for console and API; it is not shown again:");
        println!("  {}", key.expose());
    }
    let Some(address) = secure else { return };
    println!();
    // As it was started, which after `make run` is not by a folder of $PATH; and from the folder
    // that all paths, those of the configuration too, are relative to.
    let callgate = std::env::args_os().next().unwrap_or_else(|| "callgate".into());
    let callgate = quoted(&callgate);
    let option = |name: &str, path: Option<&Path>| {
        path.map_or_else(String::new, |it| format!(" --{name} {}", quoted(it.as_os_str())))
    };
    println!("First call, from another terminal:");
    if let Ok(folder) = std::env::current_dir() {
        println!("  cd {}", quoted(folder.as_os_str()));
    }
    let to = format!("sip:reception@{address};transport=tls");
    let ca = option("ca", Some(authority).filter(|it| *it != Path::new(DEFAULT_AUTHORITY)));
    println!("  {callgate} load --calls 1 --to '{to}' --save heard.wav{ca}");
    println!("With a softphone: account sip:me@{address}, transport TLS, SRTP (SDES) mandatory,");
    println!("  trust {} and dial sip:reception@{address}", authority.display());
    println!("Afterwards:");
    println!("  {callgate} calls list{}", option("config", file));
}

/// As a shell reads it again.
fn quoted(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+=:@%,".contains(it);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shell_would_take_apart_is_quoted() {
        for (text, wanted) in [
            ("./target/release/callgate", "./target/release/callgate"),
            ("/srv/my files", "'/srv/my files'"),
            ("it's", "'it'\\''s'"),
            ("$HOME/x;y", "'$HOME/x;y'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(OsStr::new(text)), wanted);
        }
    }
}
