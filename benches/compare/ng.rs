//! rtpengine: started with a configuration of its own, driven through its `ng` protocol
//! (bencoded dictionaries in datagrams, each behind a cookie).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use audio::{Codec, OpusSettings};
use rtp::sdes::KeySalt;

use crate::anchor::{Anchor, Anchored, Party, describe, read};
use crate::bencode::Value;
use crate::process::Process;

const ANSWER_WITHIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 6;

/// How it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Threads for media.
    pub(crate) threads: usize,
    /// The core that it may use, if not all.
    pub(crate) core: Option<usize>,
    /// First and last port for media.
    pub(crate) ports: (u16, u16),
}

/// A running rtpengine.
pub(crate) struct Rtpengine {
    process: Process,
    control: SocketAddr,
    socket: UdpSocket,
    cookie: u64,
}

impl Rtpengine {
    /// Starts it in the foreground, in user space only, and waits until it answers.
    pub(crate) fn start(settings: Settings) -> anyhow::Result<Self> {
        // Any free port; the system gives the same one to nobody else within the moment.
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let control = free.local_addr()?;
        drop(free);
        let child = spawn(&settings, control)?;
        let process = Process::new(child, "rtpengine", settings.core)?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(control)?;
        socket.set_read_timeout(Some(ANSWER_WITHIN))?;
        let mut it = Self { process, control, socket, cookie: 0 };
        let began = Instant::now();
        loop {
            match it.request(Value::map([("command", "ping".into())])) {
                Ok(_) => break,
                Err(error) if began.elapsed() > Duration::from_secs(10) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        // Threads that it has started meanwhile.
        it.process.pin()?;
        Ok(it)
    }

    /// Where it listens for commands.
    pub(crate) const fn control(&self) -> SocketAddr {
        self.control
    }

    /// Its version, as it says.
    pub(crate) fn version() -> Option<String> {
        let said = Command::new("rtpengine").arg("--version").output().ok()?;
        let both = [said.stdout, said.stderr].concat();
        let text = String::from_utf8_lossy(&both).trim().to_owned();
        Some(text.trim_start_matches("Version: ").to_owned())
    }

    fn request(&mut self, request: Value) -> anyhow::Result<Value> {
        self.cookie += 1;
        let mut text = format!("{} ", self.cookie);
        request.write(&mut text);
        let mut buffer = vec![0; 65_536];
        for _ in 0..TRIES {
            self.socket.send(text.as_bytes())?;
            let Ok(length) = self.socket.recv(&mut buffer) else { continue };
            let answer = String::from_utf8_lossy(&buffer[..length]);
            let Some((cookie, body)) = answer.split_once(' ') else { continue };
            if cookie != self.cookie.to_string() {
                continue; // the answer to an earlier try
            }
            let answer = Value::parse(body).context("rtpengine's answer is malformed")?;
            return match answer.text("result") {
                Some("ok" | "pong") => Ok(answer),
                _ => bail!("rtpengine refuses: {answer:?}"),
            };
        }
        bail!("rtpengine does not answer")
    }
}

fn spawn(settings: &Settings, control: SocketAddr) -> anyhow::Result<Child> {
    Command::new("rtpengine")
        .args(["--config-file=none", "--table=-1", "--foreground", "--log-stderr"])
        .args(["--log-level=3", "--interface=127.0.0.1", "--timeout=3600"])
        .args(["--silent-timeout=3600", "--offer-timeout=3600", "--delete-delay=0"])
        .arg(format!("--listen-ng={control}"))
        .arg(format!("--num-threads={}", settings.threads))
        .arg(format!("--port-min={}", settings.ports.0))
        .arg(format!("--port-max={}", settings.ports.1))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("rtpengine cannot be started; deploy/compare.sh installs it")
}

impl Anchor for Rtpengine {
    fn process(&self) -> u32 {
        self.process.id()
    }

    fn open(&mut self, call: u32, parties: &[Party; 2]) -> anyhow::Result<[Anchored; 2]> {
        let (call, [caller, callee]) = (format!("compare-{call}"), parties);
        let profile = if callee.key.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
        let is_browser = caller.browser.is_some();
        let mut offer = vec![
            ("command", "offer".into()),
            ("call-id", call.as_str().into()),
            ("from-tag", "caller".into()),
            ("sdp", describe(caller, 1).as_str().into()),
            ("transport-protocol", profile.into()),
            ("replace", Value::words(&["origin", "session-connection"])),
            ("ICE", "remove".into()),
        ];
        if is_browser {
            // It leaves the handshake to the browser, and speaks to it by one port.
            offer.extend([("DTLS", "passive".into()), ("rtcp-mux", Value::words(&["demux"]))]);
        }
        if caller.codec != callee.codec {
            let (from, to) = (caller.codec.name(), target(callee.codec));
            let codecs = [("transcode", Value::words(&[&to])), ("mask", Value::words(&[from]))];
            offer.push(("codec", Value::map(codecs)));
        }
        let offered = self.request(Value::map(offer))?;
        let suite = |party: &Party| party.key.as_ref().map(KeySalt::suite);
        let (to_callee, line, peer) = read(sdp(&offered)?, suite(callee))?;
        let tag = line.as_ref().map_or(1, |line| line.tag);
        let key = line.map(|line| line.key);
        let for_callee = Anchored { address: to_callee, key, peer };
        let mut answer = vec![
            ("command", "answer".into()),
            ("call-id", call.as_str().into()),
            ("from-tag", "caller".into()),
            ("to-tag", "callee".into()),
            ("sdp", describe(callee, tag).as_str().into()),
            ("replace", Value::words(&["origin", "session-connection"])),
            ("ICE", "remove".into()),
        ];
        if is_browser {
            answer.push(("DTLS", "passive".into()));
        }
        let answered = self.request(Value::map(answer))?;
        let (address, line, peer) = read(sdp(&answered)?, suite(caller))?;
        let for_caller = Anchored { address, key: line.map(|line| line.key), peer };
        Ok([for_caller, for_callee])
    }

    fn close(&mut self, call: u32) -> anyhow::Result<()> {
        let call = format!("compare-{call}");
        let delete = [
            ("command", "delete".into()),
            ("call-id", call.as_str().into()),
            ("from-tag", "caller".into()),
        ];
        self.request(Value::map(delete)).map(drop)
    }
}

fn sdp(answer: &Value) -> anyhow::Result<&str> {
    answer.text("sdp").context("no description in the answer")
}

/// What it makes for the party: Opus at the bitrate that callgate encodes with.
fn target(codec: Codec) -> String {
    match codec {
        Codec::Opus => format!("opus/48000/2/{}", OpusSettings::default().bitrate),
        codec => codec.name().to_owned(),
    }
}
