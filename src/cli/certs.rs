//! `callgate certs`: development certificates.

use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use edge::Config;

/// Options of the command.
#[derive(Args)]
pub(crate) struct Options {
    /// A further host name or address in the certificate; may be repeated.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
}

pub(crate) fn run(config: &Config, options: &Options) -> anyhow::Result<ExitCode> {
    if !config.tls.development {
        anyhow::bail!(
            "[tls] development is off: the certificates in use are not to be overwritten"
        );
    }
    let folder = config.tls.certificate.parent().unwrap_or(Path::new("."));
    let made =
        transport::certificates::ensure_development(folder, &options.host, edge::boot::today())?;
    println!("{}", if made.are_new { "made new ones:" } else { "still good:" });
    for (what, path) in [
        ("authority, for clients to trust", &made.authority),
        ("server certificate", &made.server),
        ("server key", &made.server_key),
        ("client certificate, for a test peer", &made.client),
        ("client key", &made.client_key),
    ] {
        println!("  {:<40} {what}", path.display());
    }
    println!(
        "These are for development: their authority's key is thrown away, trust them nowhere else."
    );
    Ok(ExitCode::SUCCESS)
}
