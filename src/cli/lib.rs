//! Tier 7, the commands. Each file is one of them; what they do is done by the members below, this
//! one reads arguments and shows results to people.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "commands talk to a terminal")]

mod audit;
mod calls;
mod certs;
mod check;
mod explain;
mod keys;
mod load;
mod options;
mod serve;
mod speak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use options::ConfigOptions;

/// The edge between the world and its voice agents.
#[derive(Parser)]
#[command(name = "callgate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(flatten)]
    config: ConfigOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Take calls until Ctrl-C or SIGTERM; SIGHUP reloads certificates, policy and voice agents.
    Serve,
    /// Read configuration, policy and voice agents, and say what is wrong with them.
    Check(check::Options),
    /// Show what the policy does with an INVITE, why, and what would change it.
    Explain(explain::Options),
    /// Place calls and measure them.
    Load(Box<load::Options>),
    /// The calls that were taken: list, show, play, export, erase.
    #[command(subcommand)]
    Calls(calls::Command),
    /// The audit log: verify, list, and the key that verifies it.
    #[command(subcommand)]
    Audit(audit::Command),
    /// API keys for the API and the console, and accounts of people: create, list, revoke, account.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Make development certificates, or show the ones in use.
    Certs(certs::Options),
    /// Print the version.
    Version,
}

/// Runs the command that the arguments name. The exit code is 0 where all is well, 1 where the
/// command found something wrong, 2 where it could not run.
#[must_use]
pub fn main() -> ExitCode {
    // Two providers may end up in the tree; rustls must be told which one before its first use.
    // A second installation could only be of the same one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("callgate: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let config = || arguments.config.load();
    match arguments.command {
        Command::Serve => serve::run(config()?, arguments.config.file()),
        Command::Check(options) => check::run(config, &options),
        Command::Explain(options) => explain::run(&config()?, &options),
        Command::Load(options) => load::run(&options),
        Command::Calls(command) => calls::run(&config()?, command),
        Command::Audit(command) => audit::run(&config()?, command),
        Command::Keys(command) => keys::run(&config()?, command),
        Command::Certs(options) => certs::run(&config()?, &options),
        Command::Version => {
            println!("callgate {}", env!("CARGO_PKG_VERSION"));
            Ok(ExitCode::SUCCESS)
        }
    }
}
