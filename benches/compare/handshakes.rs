//! What handshakes do to calls that stand: 200 of them a second, each of a browser's own.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use audio::Codec;
use base::SeededRandom;
use loadgen::browser::{Certificate, Credentials, connect};
use rtp::sdes::Suite;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::anchor::{Anchor, Browser, Party};
use crate::figure::{Bar, Figure, Window};
use crate::media::Bench;
use crate::traffic::{Traffic, Work, window};

/// Handshakes that may be under way.
const UNDER_WAY: usize = 256;
/// Numbers of the calls that shake hands, away from those that stand.
const FIRST: u32 = 2_000_000;
/// Handshakes made of those that were to be, at least, or the figure means nothing.
const LEAST: f64 = 0.95;

impl Bench {
    /// The rise of p99 of calls that stand.
    pub(crate) fn handshakes(&self, calls: u32, per_second: f64) -> anyhow::Result<Figure> {
        eprintln!("{calls} calls, {per_second} handshakes each second");
        let mut ours = self.relay()?;
        let mut traffic = Traffic::open(&mut ours, &self.speech, Work::Plain, 0..calls)?;
        traffic.run(calls, &window(1.0))?;
        let mut hall = Hall::open(per_second)?;
        let (mut rises, mut windows) = (Vec::new(), Vec::new());
        for _ in 0..self.pairs {
            let quiet = self.window("quiet", &mut traffic, calls)?;
            let busy = hall.beside(&mut ours, || self.window("shaking", &mut traffic, calls))?;
            rises.push(busy.p99_ms - quiet.p99_ms);
            windows.extend([quiet, busy]);
        }
        traffic.close(&mut ours)?;
        let rate = hall.rate();
        ensure!(rate >= LEAST * per_second, "only {rate:.0} handshakes a second were made");
        let what = format!(
            "rise of p99 latency of {calls} standing calls during {per_second} handshakes/s"
        );
        let note = format!("{rate:.0} handshakes a second, {} failed", hall.failed());
        Ok(Figure::absolute(what, "ms", Bar::AtMost(1.0), &rises).note(note).windows(windows))
    }
}

/// Where browsers come and go.
struct Hall {
    per_second: f64,
    certificate: Certificate,
    runtime: Runtime,
    random: SeededRandom,
    next: u32,
    made: Arc<AtomicU32>,
    failed: Arc<AtomicU32>,
    took: Duration,
}

impl Hall {
    fn open(per_second: f64) -> anyhow::Result<Self> {
        Ok(Self {
            per_second,
            certificate: Certificate::generate()?,
            runtime: Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            random: SeededRandom::new(7),
            next: FIRST,
            made: Arc::default(),
            failed: Arc::default(),
            took: Duration::ZERO,
        })
    }

    fn rate(&self) -> f64 {
        f64::from(self.made.load(Ordering::Relaxed)) / self.took.as_secs_f64().max(1e-9)
    }

    fn failed(&self) -> u32 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Measures while another thread has browsers come and go.
    fn beside(
        &mut self,
        anchor: &mut (dyn Anchor + Send),
        measure: impl FnOnce() -> anyhow::Result<Window>,
    ) -> anyhow::Result<Window> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let coming = scope.spawn(|| self.come_and_go(anchor, &is_over));
            let measured = measure();
            is_over.store(true, Ordering::Relaxed);
            coming.join().ok().context("the thread of the browsers has panicked")??;
            measured
        })
    }

    fn come_and_go(
        &mut self,
        anchor: &mut (dyn Anchor + Send),
        is_over: &AtomicBool,
    ) -> anyhow::Result<()> {
        let began = Instant::now();
        let gap = Duration::from_secs_f64(1.0 / self.per_second);
        let (leave, mut leaving) = channel(UNDER_WAY);
        let (mut due, mut here) = (began, BTreeMap::new());
        while !is_over.load(Ordering::Relaxed) {
            self.come(anchor, &leave, &mut here)?;
            part(anchor, &mut leaving, &mut here)?;
            due += gap;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        self.took += began.elapsed();
        // The last ones.
        while !here.is_empty() {
            part(anchor, &mut leaving, &mut here)?;
            std::thread::sleep(gap);
        }
        Ok(())
    }

    fn come(
        &mut self,
        anchor: &mut (dyn Anchor + Send),
        leave: &Sender<u32>,
        here: &mut BTreeMap<u32, UdpSocket>,
    ) -> anyhow::Result<()> {
        let (socket, callee) =
            (UdpSocket::bind(("127.0.0.1", 0))?, UdpSocket::bind(("127.0.0.1", 0))?);
        let suite = Suite::AeadAes128Gcm;
        let credentials = Credentials::random(&mut self.random);
        let browser = Browser { credentials, certificate: self.certificate.clone(), suite };
        let party = |socket: &UdpSocket, browser| {
            let (codec, key) = (Codec::Pcmu, None);
            anyhow::Ok(Party {
                address: socket.local_addr()?,
                codec,
                key,
                browser,
                complexity: None,
            })
        };
        let parties = [party(&socket, Some(browser.clone()))?, party(&callee, None)?];
        let call = self.next;
        self.next += 1;
        let [anchored, _] = anchor.open(call, &parties)?;
        let peer = anchored.peer.context("no handshake is offered")?;
        here.insert(call, callee);
        socket.set_nonblocking(true)?;
        let (made, failed, leave) = (self.made.clone(), self.failed.clone(), leave.clone());
        self.runtime.spawn(async move {
            let shaken = async {
                let socket = Arc::new(tokio::net::UdpSocket::from_std(socket)?);
                let Browser { credentials, certificate, suite } = &browser;
                connect(&socket, credentials, certificate, &[*suite], &peer).await?;
                anyhow::Ok(())
            };
            let count = if shaken.await.is_ok() { made } else { failed };
            count.fetch_add(1, Ordering::Relaxed);
            // Whoever has gone closes its calls itself.
            let _ = leave.send(call).await;
        });
        Ok(())
    }
}

/// Tears down the calls of those who have shaken hands.
fn part(
    anchor: &mut (dyn Anchor + Send),
    leaving: &mut Receiver<u32>,
    here: &mut BTreeMap<u32, UdpSocket>,
) -> anyhow::Result<()> {
    while let Ok(call) = leaving.try_recv() {
        here.remove(&call);
        anchor.close(call)?;
    }
    Ok(())
}
