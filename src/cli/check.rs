//! `callgate check`: configuration, policy and voice agents, read as `serve` would.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use edge::{Config, policies};

/// Options of the command.
#[derive(Args)]
pub(crate) struct Options {
    /// Policy files to read instead of the configured ones.
    #[arg(value_name = "POLICY")]
    files: Vec<PathBuf>,
    /// Exit with 1 on warnings as well.
    #[arg(long)]
    strict: bool,
}

pub(crate) fn run(
    config: impl FnOnce() -> anyhow::Result<Config>,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    let mut config = match config() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    if !options.files.is_empty() {
        config.policy.files.clone_from(&options.files);
    }
    match policies::load(&config, 1, edge::boot::today()) {
        Err(error) => {
            eprintln!("{error}");
            Ok(ExitCode::FAILURE)
        }
        Ok(loaded) => {
            for warning in &loaded.warnings {
                eprintln!("{warning}\n");
            }
            let policy = &loaded.setup.policy;
            println!(
                "policy {}: {} trunks, {} routes; {} voice agents; {} warnings",
                policy.fingerprint(),
                policy.trunks().count(),
                policy.routes(),
                loaded.agents.len(),
                loaded.warnings.len()
            );
            let fails = options.strict && !loaded.warnings.is_empty();
            Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
    }
}
