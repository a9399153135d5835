//! The operator's files: policy and voice agents, loaded together and swapped together. A set
//! that does not load leaves the old one in force.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use base::{Diagnostic, WallTime};
use call::Setup;
use policy::{Policy, Transport};
use transport::{Ingress, Line, LoadedLine};

use crate::agents::{self, Agents};
use crate::boot;
use crate::config::Config;
use crate::logins::{self, Logins};

/// What the files amount to.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For the calls.
    pub setup: Arc<Setup>,
    /// The voice agents.
    pub agents: Arc<Agents>,
    /// How trunks are dialled.
    pub lines: Vec<LoadedLine>,
    /// What an operator should know, as text for people.
    pub warnings: Vec<String>,
}

/// Why the files do not load: text for people, one finding after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// How many findings.
    pub count: usize,
    text: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    fn of(findings: &[Diagnostic]) -> Self {
        let text: Vec<String> = findings.iter().map(ToString::to_string).collect();
        Self { count: findings.len(), text: text.join("\n\n") }
    }
}

/// Reads the policy's texts.
///
/// # Errors
/// Where a file cannot be read.
pub fn read(paths: &[PathBuf]) -> Result<Vec<(String, String)>, LoadError> {
    let mut texts = Vec::new();
    let mut findings = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => texts.push((name, text)),
            Err(error) => {
                let message = format!("cannot be read: {error}");
                findings.push(Diagnostic::new(&name, &name, &(0..name.len()), message, None));
            }
        }
    }
    if findings.is_empty() { Ok(texts) } else { Err(LoadError::of(&findings)) }
}

/// Compiles a policy's texts.
///
/// # Errors
/// Everything wrong with them.
pub fn compile(
    texts: &[(String, String)],
    agents: &Agents,
    wall: WallTime,
) -> Result<(Policy, Vec<String>), LoadError> {
    let files: Vec<(&str, &str)> =
        texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let names: Vec<&str> = agents.keys().map(String::as_str).collect();
    let (policy, warnings) = policy::load(&files, Some(&names))
        .map_err(|errors| LoadError { count: errors.0.len(), text: errors.to_string() })?;
    let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
    warnings.extend(policy.check_dates(wall).iter().map(ToString::to_string));
    Ok((policy, warnings))
}

/// Loads everything that `config` names; `version` is the policy's.
///
/// # Errors
/// Everything wrong with any file.
pub fn load(config: &Config, version: u64, wall: WallTime) -> Result<Loaded, LoadError> {
    let agents = agents::load(&config.agents.directory).map_err(|found| LoadError::of(&found))?;
    let (policy, mut warnings) = compile(&read(&config.policy.files)?, &agents, wall)?;
    let collisions = policy.collisions(&boot::own_listeners(config));
    if !collisions.is_empty() {
        return Err(LoadError::of(&collisions));
    }
    let Logins { logins, warnings: found } =
        logins::read(&policy).map_err(|found| LoadError::of(&found))?;
    warnings.extend(found.iter().map(ToString::to_string));
    let setup = Setup {
        policy: Arc::new(policy.with_version(version)),
        agents: agents::cards(&agents),
        logins,
        recording: config.keep.recording,
        transcript: config.keep.transcript,
        advertise: Some(config.advertise.host.clone()).filter(|host| !host.is_empty()),
        media_advertise: config.advertise.media.parse().ok(),
        browser_media: config.browser_media(),
    };
    let lines = lines(&setup.policy, config)?;
    Ok(Loaded { setup: Arc::new(setup), agents: Arc::new(agents), lines, warnings })
}

/// How trunks are dialled, with the files read that their `tls` names.
fn lines(policy: &Policy, config: &Config) -> Result<Vec<LoadedLine>, LoadError> {
    let own = ingresses(boot::own_listeners(config));
    let (mut lines, mut findings) = (Vec::new(), Vec::new());
    for it in policy.lines() {
        let zone = it.zone.filter(|zone| !zone.listen.is_empty());
        let listeners = zone.map_or_else(
            || own.clone(),
            |zone| ingresses(zone.listen.iter().map(|it| (it.transport, it.address))),
        );
        let line = Line {
            trunk: it.trunk.clone(),
            send_to: it.send_to.iter().map(|peer| peer.uri.clone()).collect(),
            listeners,
            authorities: it.tls.authorities.as_ref().map(PathBuf::from),
            pins: it.tls.pins.clone(),
            identity: it.tls.identity.as_ref().map(|(it, key)| (it.into(), key.into())),
        };
        match line.load() {
            Ok(line) => lines.push(line),
            Err(error) => findings.extend(policy.wrong_tls(it.trunk, &error.to_string())),
        }
    }
    if findings.is_empty() { Ok(lines) } else { Err(LoadError::of(&findings)) }
}

fn ingresses(listeners: impl IntoIterator<Item = (Transport, SocketAddr)>) -> Vec<Ingress> {
    let ingress = |(word, address)| Some(Ingress { transport: boot::kind(word)?, address });
    listeners.into_iter().filter_map(ingress).collect()
}

/// What tells that a file changed: its time and size, and that of every voice agent.
#[must_use]
pub fn stamp(config: &Config) -> Vec<(PathBuf, Option<(SystemTime, u64)>)> {
    let of = |path: &Path| {
        let meta = std::fs::metadata(path).ok()?;
        Some((meta.modified().ok()?, meta.len()))
    };
    let mut paths = config.policy.files.clone();
    if let Ok(entries) = std::fs::read_dir(&config.agents.directory) {
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.sort();
    paths.into_iter().map(|path| (of(&path), path)).map(|(stamp, path)| (path, stamp)).collect()
}
