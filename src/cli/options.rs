//! Options that several commands take.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use edge::Config;

/// Where the configuration is.
#[derive(Args)]
pub(crate) struct ConfigOptions {
    /// Configuration over the defaults of deploy/callgate.toml.
    #[arg(long, global = true, value_name = "FILE", env = "CALLGATE_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigOptions {
    /// The file, where there is one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    pub(crate) fn load(&self) -> anyhow::Result<Config> {
        let file = match &self.config {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Some((path.display().to_string(), text))
            }
            None => None,
        };
        let file = file.as_ref().map(|(name, text)| (name.as_str(), text.as_str()));
        let environment = std::env::vars().filter(|(name, _)| name != "CALLGATE_CONFIG");
        Ok(Config::load(file, environment)?)
    }
}
