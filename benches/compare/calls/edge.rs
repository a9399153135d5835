//! callgate itself, as `callgate serve` with a configuration and a policy of its own.

use std::fs;
use std::net::SocketAddr;
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
        let text = CONFIGURATION
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
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < Duration::from_secs(10), "callgate does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { process, address, told })
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

const CONFIGURATION: &str = r#"
[listen]
tls     = ["@LISTEN@"]
https   = [@HTTPS@]
http    = []
metrics = "127.0.0.1:0"

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
