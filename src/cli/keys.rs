//! `callgate keys`: API keys, and accounts of people with a password.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use base::WallTime;
use clap::Subcommand;
use edge::Config;
use edge::keys::{Granted, KeysError, Wish, change};

use crate::calls::{block_on, reader};

/// What to do with keys and accounts.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an API key for the API and the console. It is shown once.
    Create {
        /// What it is called in lists.
        #[arg(long, default_value = "key")]
        name: String,
        /// It may only look.
        #[arg(long)]
        read_only: bool,
        /// When it ends by itself, such as 90d, 12h or 30m; never by default.
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        expires_in: Option<u64>,
    },
    /// API keys, the newest first, and accounts.
    List,
    /// Revoke an API key; it opens nothing from now on.
    Revoke {
        /// Its id, `key_...`.
        id: String,
    },
    /// Make an account for a browser or softphone that registers by WebSocket, or give it another
    /// password. A made-up password is shown once.
    Account {
        /// The user of its SIP address.
        name: String,
        /// Remove it.
        #[arg(long, conflicts_with = "password_stdin")]
        remove: bool,
        /// Read the password from standard input instead of making one up.
        #[arg(long)]
        password_stdin: bool,
    },
}

pub(crate) fn run(config: &Config, command: Command) -> anyhow::Result<ExitCode> {
    let wish = match command {
        Command::List => return list(config),
        Command::Create { name, read_only, expires_in } => {
            Wish::CreateKey { name, read_only, expires_in }
        }
        Command::Revoke { id } => Wish::RevokeKey(id),
        Command::Account { name, remove: true, .. } => Wish::RemoveAccount(name),
        Command::Account { name, password_stdin, .. } => {
            Wish::SetAccount { name, password: password_stdin.then(password).transpose()? }
        }
    };
    let is_chosen = matches!(&wish, Wish::SetAccount { password: Some(_), .. });
    match block_on(change(config, wish))? {
        Ok(Granted::Key { id, secret }) => {
            println!("{}", secret.expose());
            eprintln!("This is {id}. Keep it now: nobody can show it again.");
        }
        Ok(Granted::Password(password)) if !is_chosen => {
            println!("{}", password.expose());
            eprintln!("Keep this password now: nobody can show it again.");
        }
        Ok(Granted::Password(_) | Granted::Done) => println!("done"),
        Err(error @ (KeysError::Unknown | KeysError::Refused(_))) => {
            eprintln!("nothing was changed: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error).context("nothing was changed"),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(config: &Config) -> anyhow::Result<ExitCode> {
    let (keys, accounts) = block_on(async { reader(config).await?.access().await })??;
    let time = |at: Option<WallTime>, none: &str| at.map_or(none.to_owned(), |at| at.to_string());
    println!(
        "{:<21} {:<9} {:<24} {:<24} {:<24} {:<19} NAME",
        "KEY", "MAY", "CREATED", "LAST USED", "EXPIRES", "BEGINS"
    );
    for key in &keys {
        let may = match (key.revoked, key.read_only) {
            (Some(_), _) => "revoked",
            (None, true) => "look",
            (None, false) => "all",
        };
        println!(
            "{:<21} {may:<9} {:<24} {:<24} {:<24} {:<19} {}",
            key.id.to_string(),
            key.created.to_string(),
            time(key.last_used, "never"),
            time(key.expires, "never"),
            format!("{}...", key.prefix),
            key.name,
        );
    }
    if !accounts.is_empty() {
        println!("\n{:<24} {:<24} {:<24} LAST USED", "ACCOUNT", "CREATED", "PASSWORD SET");
    }
    for account in &accounts {
        println!(
            "{:<24} {:<24} {:<24} {}",
            account.name.expose(),
            account.created.to_string(),
            account.changed.to_string(),
            time(account.last_used, "never"),
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The first line of standard input.
fn password() -> anyhow::Result<String> {
    const LONGEST: u64 = 1_024;
    let mut text = String::new();
    std::io::stdin().take(LONGEST).read_to_string(&mut text).context("no password was read")?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        bail!("standard input has no password");
    }
    Ok(line.to_owned())
}

/// A time with its unit, in seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let wrong = || "a number with d, h or m, such as 90d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let unit = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => return Err(wrong()),
    };
    let number = number.parse::<u64>().ok().filter(|number| *number > 0);
    number.and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(
            (seconds("90d"), seconds("12h"), seconds("5m")),
            (Ok(7_776_000), Ok(43_200), Ok(300))
        );
        for wrong in ["", "d", "0d", "-1d", "90", "1y", "18446744073709551615d", "é"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
