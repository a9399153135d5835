//! `callgate audit`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use edge::Config;
use edge::boot::vault_config;
use vault::key::{HeadKey, LocalKms};
use vault::{audit, database_path};

use crate::calls::{block_on, reader};

/// What to do with the audit log.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Prove that no record was edited, dropped, reordered or cut.
    Verify {
        /// The database; the configured one by default.
        #[arg(long, value_name = "FILE")]
        database: Option<PathBuf>,
        /// The exported heads; the configured folder by default.
        #[arg(long, value_name = "PATH")]
        heads: Option<PathBuf>,
        /// The public key of the heads; by default that of the configured key file.
        #[arg(long, value_name = "BASE64")]
        key: Option<String>,
    },
    /// Show records, oldest first.
    List {
        /// After this record.
        #[arg(long, default_value_t = 0)]
        after: u64,
        /// At most this many.
        #[arg(long, default_value_t = 100)]
        count: u32,
    },
    /// Print the public key that verifies exported heads; keep it elsewhere.
    Key,
}

pub(crate) fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let vault = vault_config(config);
    match command {
        Command::Verify { database, heads, key } => {
            let key = match key {
                Some(text) => text.parse::<HeadKey>()?,
                None => head_key(config)?,
            };
            let database = database.unwrap_or_else(|| database_path(&vault.data));
            let heads = heads.unwrap_or(vault.audit_heads);
            let report = block_on(audit::verify(&database, &heads, &key))??;
            println!(
                "edge {}: {} records, {} signed heads",
                report.edge, report.records, report.heads
            );
            if let Some((record, wall)) = report.signed {
                println!("signed up to record {record} at {wall}; {} after it", report.unsigned);
            }
            for finding in &report.findings {
                println!("FOUND: {finding}");
            }
            let good = report.is_good();
            println!(
                "{}",
                if good { "the audit log is whole" } else { "the audit log was changed" }
            );
            Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::List { after, count } => {
            let records = block_on(async { reader(config).await?.audit(after, count).await })??;
            for record in records {
                let details = record.details.as_ref().map_or("[erased]", |it| it.expose());
                let call = record.call.map(|call| call.to_string()).unwrap_or_default();
                println!(
                    "{:>6} {} {:<20} {:<16} {call} {details}",
                    record.seq, record.wall, record.kind, record.actor
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Key => {
            println!("{}", head_key(config)?);
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn head_key(config: &Config) -> anyhow::Result<HeadKey> {
    use vault::key::Kms as _;
    Ok(LocalKms::open(&config.vault.key, &config.vault.data)?.head_key())
}
