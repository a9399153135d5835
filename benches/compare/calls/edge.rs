//! callgate itself, as `callgate serve` with a configuration and a policy of its own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::tls::Certificates;
use crate::process::Process;

/// A running callgate.
pub(super) struct Edge {
    process: Process,
    pub(super) address: SocketAddr,
    /// Where it tells its metrics.
    metrics: SocketAddr,
    /// The file of what it says.
    told: PathBuf,
}

impl Edge {
    /// Starts `program serve`; every call goes to `callee`. Browsers reach it at `https`, or not at
    /// all.
    pub(super) fn start(
        program: &Path,
        folder: &Path,
        certificates: &Certificates,
        (address, https): (SocketAddr, Option<SocketAddr>),
        callee: SocketAddr,
    ) -> anyhow::Result<Self> {
        let policy = folder.join("policy.toml");
        fs::write(
            &policy,
            POLICY
                .replace("@CALLEE@", &callee.to_string())
                .replace("@AUTHORITY@", &certificates.authority.display().to_string()),
        )?;
        let agents = folder.join("agents");
        fs::create_dir_all(&agents)?;
        // Any free port; nobody else takes it within the moment.
        let metrics = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let text = CONFIGURATION
            .replace("@METRICS@", &metrics.to_string())
            .replace("@LISTEN@", &address.to_string())
            .replace("@HTTPS@", &https.map(|it| format!("\"{it}\"")).unwrap_or_default())
            .replace("@FOLDER@", &folder.display().to_string())
            .replace("@CERTIFICATE@", &certificates.certificate.display().to_string())
            .replace("@KEY@", &certificates.key.display().to_string());
        let configuration = folder.join("callgate.toml");
        fs::write(&configuration, text)?;
        let told = folder.join("callgate.log");
        let log = fs::File::create(&told)?;
        let child = Command::new(program)
            .arg("serve")
            .arg("--config")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", program.display()))?;
        let process = Process::new(child, "callgate", None)?;
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < Duration::from_secs(10), "callgate does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { process, address, metrics, told })
    }

    /// The key of its API that it has told at its first start.
    pub(super) fn first_key(&self) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            let told = fs::read_to_string(&self.told)?;
            let mut lines = told.lines().skip_while(|line| !line.contains("first API key"));
            if let Some(key) = lines.nth(1) {
                return Ok(key.trim().to_owned());
            }
            ensure!(began.elapsed() < Duration::from_secs(10), "callgate tells no API key");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Its first process, the one of calls and browsers.
    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// All its processes, the speech helper included.
    pub(super) fn processes(&self) -> Vec<u32> {
        super::family(self.process.id())
    }
}

impl Edge {
    /// What it tells of itself.
    pub(super) fn figures(&self) -> anyhow::Result<Figures> {
        let mut stream = TcpStream::connect(self.metrics)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: it\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        ensure!(
            text.starts_with("HTTP/1.1 200 "),
            "no metrics: {}",
            text.lines().next().unwrap_or("")
        );
        Ok(Figures(text))
    }

    /// The same once no call and no session is left, or the last it told before patience ended.
    pub(super) fn wait_for_none(&self, patience: Duration) -> anyhow::Result<Figures> {
        let began = Instant::now();
        loop {
            let it = self.figures()?;
            let left = it.get("callgate_calls")? + it.get("callgate_relay_sessions")?;
            if left == 0.0 || began.elapsed() > patience {
                return Ok(it);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

/// Metrics in Prometheus' text.
pub(super) struct Figures(String);

impl Figures {
    /// A figure without labels.
    pub(super) fn get(&self, name: &str) -> anyhow::Result<f64> {
        let found = self.of(name).find(|it| it.0.is_empty()).map(|it| it.1);
        found.with_context(|| format!("no metric {name}"))
    }

    /// A figure's labels, with their braces, and values.
    pub(super) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.lines().filter_map(move |line| {
            let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
            let is_it = labels.is_empty() || labels.starts_with('{');
            is_it.then(|| value.parse().ok().map(|value| (labels, value)))?
        })
    }
}

const CONFIGURATION: &str = r#"
[listen]
tls     = ["@LISTEN@"]
https   = [@HTTPS@]
http    = []
metrics = "@METRICS@"

[browsers]
ice_tcp = ""

[tls]
certificate = "@CERTIFICATE@"
key         = "@KEY@"
development = false

[policy]
files = ["@FOLDER@/policy.toml"]

[agents]
directory = "@FOLDER@/agents"

[vault]
data  = "@FOLDER@/data"
key   = "@FOLDER@/vault.key"
heads = "@FOLDER@/audit-heads"

[keep]
recording  = false
transcript = false

[log]
level = "warn"
"#;

const POLICY: &str = r#"
[trunk.callers]
description = "the load"
from        = { networks = ["127.0.0.0/25"] }
transports  = ["tls"]
codecs      = ["pcmu"]
limits      = { calls = 4000, calls_per_second = 1000 }

[trunk.callee]
description = "the far end"
from        = { networks = ["127.0.0.200"] }
send_to     = ["sip:@CALLEE@;transport=tls"]
codecs      = ["pcmu"]
limits      = { calls = 4000, calls_per_second = 1000 }
tls         = { ca = "@AUTHORITY@" }

[[route]]
name    = "everything to the far end"
when    = { trunk = "callers" }
send_to = { trunks = [{ name = "callee", weight = 1 }] }
"#;
