//! The figures of whole calls, INVITE to BYE: TLS on both sides, media anchored, callgate against
//! Kamailio with rtpengine, the same caller and callee for both and for the direct call that both
//! are held against.

mod callee;
mod caller;
mod edge;
mod kamailio;
mod registrations;
mod soak;
mod tls;
mod wire;

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use benches::rig::cpu;
use rustls::ClientConfig;

use self::callee::Callee;
use self::caller::{Lines, Rate, Seen};
use self::edge::Edge;
use self::kamailio::Kamailio;
use self::tls::Certificates;
use crate::figure::{Bar, Figure};
use crate::media::Bench;
use crate::process::Holding;

/// Where both ends say they receive media; nobody sends any.
const MEDIA_PORT: u16 = 34_566;
const SUITE: &str = "AES_CM_128_HMAC_SHA1_80";
/// Key and salt of both ends, which protect nothing here.
const KEY: &str = "d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj";
/// The callee's address; callers count up from 127.0.0.11.
const CALLEE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 200);
const MIDDLE: Ipv4Addr = Ipv4Addr::LOCALHOST;
const CONNECTIONS: u8 = 8;
const NAMES: [&str; 2] = ["callgate", "kamailio"];

/// What stands between the ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Middle {
    Callgate,
    Kamailio,
}

/// Both ends and what is needed to start what stands between.
pub(crate) struct Stage {
    pairs: usize,
    seconds: f64,
    program: PathBuf,
    /// Puts a second Kamailio in our place.
    is_self_check: bool,
    folder: tempfile::TempDir,
    certificates: Certificates,
    tls: Arc<ClientConfig>,
    callee: Callee,
    started: std::cell::Cell<u32>,
    _media: UdpSocket,
}

/// One of them, running.
enum Running {
    Callgate(Edge),
    Kamailio(Kamailio),
}

impl Running {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Callgate(edge) => edge.address,
            Self::Kamailio(kamailio) => kamailio.address,
        }
    }

    fn processes(&self) -> Vec<u32> {
        match self {
            Self::Callgate(edge) => edge.processes(),
            Self::Kamailio(kamailio) => kamailio.processes(),
        }
    }

    fn cpu(&self) -> anyhow::Result<Duration> {
        // One that has just ended has no figure.
        Ok(self.processes().into_iter().filter_map(|it| cpu::of_process(it).ok()).sum())
    }

    /// How its CPU time divides up since its start: the names of threads, the busiest first.
    fn threads(&self) -> String {
        let mut by_name: BTreeMap<String, Duration> = BTreeMap::new();
        for process in self.processes() {
            for (thread, name) in cpu::threads(process).unwrap_or_default() {
                *by_name.entry(name).or_default() +=
                    cpu::of_thread(process, thread).unwrap_or_default();
            }
        }
        let all: Duration = by_name.values().sum();
        let mut rows: Vec<_> = by_name.into_iter().collect();
        rows.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let said = rows.iter().take(5).map(|(name, time)| {
            let share = time.as_secs_f64() / all.as_secs_f64().max(1e-9) * 100.0;
            format!("{name} {share:.0} %")
        });
        said.collect::<Vec<_>>().join(", ")
    }

    fn pss(&self) -> u64 {
        let held = self.processes().into_iter().filter_map(|it| Holding::of(it).ok());
        held.map(|it| it.pss).sum()
    }
}

impl Stage {
    /// Starts the callee.
    pub(crate) fn set(bench: &Bench) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let names = ["127.0.0.1", "127.0.0.200", "localhost"];
        let certificates = Certificates::make(folder.path(), &names)?;
        let callee = Callee::start(CALLEE.into(), certificates.server()?)?;
        Ok(Self {
            pairs: bench.pairs,
            seconds: bench.seconds,
            program: bench.program.clone(),
            is_self_check: bench.is_self_check,
            tls: certificates.client()?,
            certificates,
            folder,
            callee,
            started: std::cell::Cell::new(0),
            _media: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, MEDIA_PORT))?,
        })
    }

    fn start(&self, middle: Middle) -> anyhow::Result<Running> {
        self.started.set(self.started.get() + 1);
        let folder = self.folder.path().join(format!("{middle:?}-{}", self.started.get()));
        fs::create_dir_all(&folder)?;
        // Any free port; nobody else takes it within the moment.
        let address = TcpListener::bind((MIDDLE, 0))?.local_addr()?;
        let (certificates, callee) = (&self.certificates, self.callee.address);
        Ok(match middle {
            Middle::Callgate if !self.is_self_check => Running::Callgate(Edge::start(
                &self.program,
                &folder,
                certificates,
                (address, None),
                callee,
            )?),
            Middle::Callgate | Middle::Kamailio => {
                Running::Kamailio(Kamailio::start(&folder, certificates, address, callee)?)
            }
        })
    }

    /// Places calls through what runs, or without it.
    fn calls(&self, name: &str, through: Option<&Running>, rate: Rate) -> anyhow::Result<Seen> {
        let target = through.map_or(self.callee.address, Running::address);
        let callee_cpu = self.callee.cpu();
        let mut tested = || through.map_or(Ok(Duration::ZERO), Running::cpu);
        let seen = caller::run(target, Arc::clone(&self.tls), rate, &mut tested)?;
        let callee_cpu = self.callee.cpu().saturating_sub(callee_cpu);
        eprintln!(
            "  {name:<9} {:>4.0}/s: {} placed, {} answered, {} ended, {:.2} ms CPU per call, \
             set-up p50 {:.2} p99 {:.2} ms; ends {:.0} % + {:.1} s, late {}{}",
            rate.per_second,
            seen.placed,
            seen.answered,
            seen.ended,
            cpu_ms(&seen),
            seen.setup(0.5),
            seen.setup(0.99),
            seen.own_cpu.as_secs_f64() / seen.wall.as_secs_f64().max(1e-9) * 100.0,
            callee_cpu.as_secs_f64(),
            seen.late,
            if seen.failures.is_empty() { String::new() } else { format!(" {:?}", seen.failures) },
        );
        Ok(seen)
    }

    fn rate(&self, per_second: f64, lines: Lines) -> Rate {
        Rate {
            per_second,
            hold: Duration::from_millis(500),
            warm_up: Duration::from_millis(1_500),
            measured: Duration::from_secs_f64(self.seconds * 2.0),
            lines,
        }
    }

    /// CPU and set-up over connections that stand.
    pub(crate) fn standing(&self, per_second: f64, bar: Bar) -> anyhow::Result<Vec<Figure>> {
        eprintln!("whole calls, {per_second}/s, standing connections");
        let (ours, theirs) = (self.start(Middle::Callgate)?, self.start(Middle::Kamailio)?);
        let rate = self.rate(per_second, Lines::Shared(CONNECTIONS));
        let (mut cpu, mut setups, mut notes) = (Vec::new(), Vec::new(), Notes::default());
        for pair in 0..self.pairs {
            let direct = self.calls("direct", None, rate)?;
            let mut seen = Vec::new();
            for turn in [pair % 2, 1 - pair % 2] {
                let running = [&ours, &theirs][turn];
                seen.push((turn, self.calls(NAMES[turn], Some(running), rate)?));
            }
            seen.sort_by_key(|(turn, _)| *turn);
            let [(_, ours), (_, theirs)] = &seen[..] else { continue };
            notes.add(ours, theirs);
            cpu.push((cpu_ms(ours), cpu_ms(theirs)));
            let added = |share| {
                let base = direct.setup(share);
                (ours.setup(share) - base, theirs.setup(share) - base)
            };
            setups.push((added(0.5), added(0.99)));
        }
        let what = format!("CPU per whole call, TLS both sides, media anchored, {per_second}/s");
        let figure = Figure::ratio(what, "ms", bar, "Kamailio + rtpengine", &cpu)
            .note(notes.say())
            .note(format!("callgate by thread: {}", ours.threads()));
        let mut figures = vec![figure];
        if bar != Bar::None {
            let samples = |pick: fn(&Setups) -> f64| setups.iter().map(pick).collect::<Vec<_>>();
            let what = |share| format!("set-up added over a direct call, {share}, {per_second}/s");
            figures.push(Figure::absolute(
                what("p50"),
                "ms",
                Bar::AtMost(1.0),
                &samples(|it| it.0.0),
            ));
            figures.push(Figure::absolute(
                what("p99"),
                "ms",
                Bar::AtMost(5.0),
                &samples(|it| it.1.0),
            ));
            figures.push(Figure::absolute(
                format!("the same of Kamailio + rtpengine, p99, {per_second}/s"),
                "ms",
                Bar::None,
                &samples(|it| it.1.1),
            ));
        }
        Ok(figures)
    }

    /// CPU with a connection for each call. A pair in which calls were lost counts for nothing:
    /// half a call is cheap.
    pub(crate) fn fresh(&self, per_second: f64, bar: Bar) -> anyhow::Result<Figure> {
        eprintln!("whole calls, {per_second}/s, a TLS connection for each");
        let mut running = [self.start(Middle::Callgate)?, self.start(Middle::Kamailio)?];
        let rate = self.rate(per_second, Lines::PerCall);
        let (mut pairs, mut lost) = (Vec::new(), [0; 2]);
        while pairs.len() < self.pairs && lost.iter().all(|lost| *lost < self.pairs) {
            let mut cpu = [None; 2];
            let first = (pairs.len() + lost[0] + lost[1]) % 2;
            for side in [first, 1 - first] {
                let seen = self.calls(NAMES[side], Some(&running[side]), rate)?;
                if seen.ended == seen.placed {
                    cpu[side] = Some(cpu_ms(&seen));
                } else {
                    lost[side] += 1;
                    running[side] = self.start([Middle::Callgate, Middle::Kamailio][side])?;
                }
            }
            if let [Some(ours), Some(theirs)] = cpu {
                pairs.push((ours, theirs));
            }
        }
        let what = format!("CPU per whole call, a TLS connection for each, {per_second}/s");
        let said = format!(
            "windows in which calls were lost, and after which it was started anew: callgate {}, \
             Kamailio {}",
            lost[0], lost[1]
        );
        if pairs.is_empty() {
            return Ok(Figure::missing(what, bar, said));
        }
        Ok(Figure::ratio(what, "ms", bar, "Kamailio + rtpengine", &pairs).note(said))
    }

    /// Calls that are lost at a rate at which Kamailio falls over.
    pub(crate) fn lost(&self, per_second: f64) -> anyhow::Result<Figure> {
        eprintln!("calls lost, {per_second}/s, a TLS connection for each");
        let ours = self.start(Middle::Callgate)?;
        let rate = self.rate(per_second, Lines::PerCall);
        let mut lost = Vec::new();
        for _ in 0..self.pairs {
            let seen = self.calls("callgate", Some(&ours), rate)?;
            lost.push((seen.placed - seen.ended) as f64);
        }
        let theirs = self.start(Middle::Kamailio)?;
        let seen = self.calls("kamailio", Some(&theirs), rate);
        let is_alive = self.calls("kamailio", Some(&theirs), self.rate(10.0, Lines::PerCall));
        let said = format!(
            "Kamailio: {}, {} afterwards",
            seen.map_or_else(
                |error| format!("{error:#}"),
                |seen| format!("{} of {} lost", seen.placed - seen.ended, seen.placed)
            ),
            match is_alive {
                Ok(seen) if seen.ended == seen.placed => "well",
                _ => "gone",
            }
        );
        let most = lost.iter().copied().fold(0.0, f64::max);
        let what = format!("calls lost, a TLS connection for each, {per_second}/s, worst window");
        Ok(Figure::exact(what, "calls", Bar::AtMost(0.0), most).note(said))
    }

    /// Memory of a call that stands: fresh processes, before and after a thousand calls.
    pub(crate) fn memory(&self) -> anyhow::Result<Figure> {
        eprintln!("memory of a whole call");
        let rate = Rate {
            per_second: 250.0,
            hold: Duration::from_secs(6),
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(4),
            lines: Lines::Shared(CONNECTIONS),
        };
        let mut pairs = Vec::new();
        for _ in 0..self.pairs {
            let (ours, theirs) =
                (self.memory_of(Middle::Callgate, rate)?, self.memory_of(Middle::Kamailio, rate)?);
            eprintln!("  -> callgate {ours:.1}, kamailio {theirs:.1} KB per call");
            pairs.push((ours, theirs));
        }
        let what = "memory per whole call, 1,000 calls";
        Ok(Figure::ratio(what, "KB", Bar::AtMost(0.7), "Kamailio + rtpengine", &pairs))
    }

    fn memory_of(&self, middle: Middle, rate: Rate) -> anyhow::Result<f64> {
        let running = self.start(middle)?;
        // The first calls bring in what all of them share.
        let few = Rate { measured: Duration::from_millis(100), hold: Duration::ZERO, ..rate };
        self.calls("few", Some(&running), few)?;
        let mut held = Vec::new();
        let target = running.address();
        let mut tested = || {
            held.push(running.pss());
            Ok(Duration::ZERO)
        };
        let seen = caller::run(target, Arc::clone(&self.tls), rate, &mut tested)?;
        anyhow::ensure!(seen.ended == seen.placed, "calls were lost: {:?}", seen.failures);
        let (before, after) = (held.first(), held.last());
        let (before, after) = before.zip(after).context("nothing was measured")?;
        Ok(after.saturating_sub(*before) as f64 / 1024.0 / seen.placed as f64)
    }
}

/// Added set-up of ours and theirs: p50 and p99.
type Setups = ((f64, f64), (f64, f64));

fn cpu_ms(seen: &Seen) -> f64 {
    seen.cpu.as_secs_f64() * 1e3 / seen.placed.max(1) as f64
}

/// Calls and how many were lost, by whom.
#[derive(Default)]
struct Notes {
    placed: [usize; 2],
    lost: [usize; 2],
    late: usize,
}

impl Notes {
    fn add(&mut self, ours: &Seen, theirs: &Seen) {
        for (side, seen) in [ours, theirs].into_iter().enumerate() {
            self.placed[side] += seen.placed;
            self.lost[side] += seen.placed - seen.ended;
            self.late += seen.late;
        }
    }

    fn say(&self) -> String {
        format!(
            "callgate lost {} of {} calls, Kamailio {} of {}; {} begun late",
            self.lost[0], self.placed[0], self.lost[1], self.placed[1], self.late
        )
    }
}

/// A process and all that came of it.
fn family(process: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|child: u32| {
            let text = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            // The name may hold anything; state and parent follow its closing bracket.
            let parent = text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((child, parent))
        })
        .collect();
    let mut found = vec![process];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|it| it.1 == parent).map(|it| it.0));
        at += 1;
    }
    found
}
