//! Kamailio with its dialog module and rtpengine: a record-routing stateful proxy that anchors
//! media, the nearest that the field has to what callgate does.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::tls::Certificates;
use crate::anchor::Anchor as _;
use crate::ng::{Rtpengine, Settings};
use crate::process::Process;

/// A running Kamailio and its rtpengine.
pub(super) struct Kamailio {
    process: Process,
    media: Rtpengine,
    pub(super) address: SocketAddr,
}

impl Kamailio {
    /// Starts both; every call goes to `callee`.
    pub(super) fn start(
        folder: &Path,
        certificates: &Certificates,
        address: SocketAddr,
        callee: SocketAddr,
    ) -> anyhow::Result<Self> {
        let media = Rtpengine::start(Settings { threads: 2, core: None, ports: (40_000, 59_998) })?;
        let tls = folder.join("tls.cfg");
        fs::write(&tls, tls_file(certificates))?;
        let configuration = folder.join("kamailio.cfg");
        let text = configure(address, callee, media.control(), &tls);
        fs::write(&configuration, text)?;
        let log = fs::File::create(folder.join("kamailio.log"))?;
        let child = Command::new("kamailio")
            .args(["-DD", "-E", "-m", "512", "-M", "16"])
            .arg("-f")
            .arg(&configuration)
            .arg("-Y")
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("Kamailio cannot be started; deploy/compare.sh installs it")?;
        let process = Process::new(child, "kamailio", None)?;
        let began = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(began.elapsed() < Duration::from_secs(10), "Kamailio does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(Self { process, media, address })
    }

    /// All processes of both.
    pub(super) fn processes(&self) -> Vec<u32> {
        let mut all = super::family(self.process.id());
        all.push(self.media.process());
        all
    }
}

fn tls_file(certificates: &Certificates) -> String {
    let Certificates { authority, certificate, key } = certificates;
    let (authority, certificate, key) = (authority.display(), certificate.display(), key.display());
    format!(
        "[server:default]\nmethod = TLSv1.2+\nverify_certificate = no\nrequire_certificate = no\n\
         private_key = {key}\ncertificate = {certificate}\n\
         [client:default]\nmethod = TLSv1.2+\nverify_certificate = yes\n\
         require_certificate = yes\nca_list = {authority}\n"
    )
}

fn configure(address: SocketAddr, callee: SocketAddr, media: SocketAddr, tls: &Path) -> String {
    CONFIGURATION
        .replace("@LISTEN@", &address.to_string())
        .replace("@CALLEE@", &callee.to_string())
        .replace("@MEDIA@", &media.to_string())
        .replace("@TLS@", &tls.display().to_string())
}

const CONFIGURATION: &str = include_str!("kamailio.cfg");
