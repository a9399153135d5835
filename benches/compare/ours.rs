//! callgate's relay in a process of its own (this program as `relay-server`), driven by lines.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, bail};
use loadgen::browser::{Credentials, Fingerprint, Peer};
use rtp::sdes::CryptoLine;

use crate::anchor::{Anchor, Anchored, Party};
use crate::process::Process;
use crate::server::{Answer, BrowserSide, Request, Side};

/// A running relay.
pub(crate) struct Callgate {
    process: Process,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Callgate {
    /// Starts it with so many workers, on one core or on all.
    pub(crate) fn start(workers: usize, core: Option<usize>) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["relay-server", "--workers", &workers.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the relay cannot be started")?;
        let mut process = Process::new(child, "callgate's relay", core)?;
        let (input, output) = process.pipes()?;
        let mut it = Self { process, input, output: BufReader::new(output) };
        it.request(&Request::Count)?;
        it.process.pin()?;
        Ok(it)
    }

    /// How many sessions it says it has; a fraction of a second old.
    pub(crate) fn sessions(&mut self) -> anyhow::Result<u64> {
        match self.request(&Request::Count)? {
            Answer::Counted { sessions } => Ok(sessions),
            other => bail!("unexpected: {other:?}"),
        }
    }

    fn request(&mut self, request: &Request) -> anyhow::Result<Answer> {
        serde_json::to_writer(&mut self.input, request)?;
        self.input.write_all(b"\n")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        match serde_json::from_str(&line).context("callgate's relay has ended")? {
            Answer::Failed(why) => bail!("callgate's relay refuses: {why}"),
            answer => Ok(answer),
        }
    }
}

impl Anchor for Callgate {
    fn process(&self) -> u32 {
        self.process.id()
    }

    fn open(&mut self, call: u32, parties: &[Party; 2]) -> anyhow::Result<[Anchored; 2]> {
        let parties = parties.each_ref().map(|party| Side {
            address: party.address,
            codec: party.codec.name().to_owned(),
            crypto: party.key.as_ref().map(|key| {
                let line = CryptoLine { tag: 1, key: key.clone() };
                line.to_attribute().expose().clone()
            }),
            complexity: party.complexity,
            browser: party.browser.as_ref().map(|it| {
                BrowserSide::of(&it.credentials, it.certificate.fingerprint().to_string())
            }),
        });
        let Answer::Opened(sides) = self.request(&Request::Open { call, parties })? else {
            bail!("callgate's relay answers something else");
        };
        let anchored = |side: Side| -> anyhow::Result<Anchored> {
            let key = side.crypto.map(|value| CryptoLine::parse(&value)).transpose()?;
            let peer = side.browser.map(|it| {
                anyhow::Ok(Peer {
                    address: side.address,
                    credentials: Some(Credentials::parse(&it.ufrag, &it.pwd)?),
                    fingerprint: Fingerprint::parse(&it.fingerprint).context("fingerprint")?,
                    is_passive: true,
                })
            });
            let key = key.map(|line| line.key);
            Ok(Anchored { address: side.address, key, peer: peer.transpose()? })
        };
        let [first, second] = sides;
        Ok([anchored(first)?, anchored(second)?])
    }

    fn close(&mut self, call: u32) -> anyhow::Result<()> {
        self.request(&Request::Close { call }).map(drop)
    }
}
