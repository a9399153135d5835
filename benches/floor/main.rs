//! What the relay costs above a bare forwarder on the same driver:
//! `cargo bench -p callgate-benches --bench relay_floor -- --calls 200,1000 --pairs 9`.
//!
//! Everything is measured in turns within one run and told as a ratio. The generator runs on one
//! core, what is measured on another; a run in which the generator had no headroom is said to say
//! nothing.

mod forwarder;
mod relayed;

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::rig::cpu;
use benches::rig::generator::{Generator, Load, Seen, Stream};
use benches::rig::ratio::{Ratio, median};
use clap::Parser;
use relay::driver::DriverChoice;

/// The core of what is measured, and the generator's.
const CORES: (usize, usize) = (0, 1);

#[derive(Parser)]
struct Options {
    /// Calls at one time, two streams of 50 packets a second each.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 1_000])]
    calls: Vec<usize>,
    /// Turns.
    #[arg(long, default_value_t = 9)]
    pairs: usize,
    /// Seconds measured in each turn.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Garbage packets a second to one port of one more call.
    #[arg(long, default_value_t = 0)]
    flood: u32,
    /// Only what has this in its name.
    #[arg(long, default_value = "")]
    only: String,
    /// What cargo says to benches.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Something that forwards, and the load on it.
struct Subject {
    name: String,
    generator: Generator,
    /// The thread that is measured.
    thread: u32,
    /// A leg that carries no load.
    victim: SocketAddr,
    seen: Vec<Seen>,
    /// Ends it when dropped.
    _running: Box<dyn Send>,
}

impl Subject {
    /// With the addresses of its legs, two for each call; the first call carries no load.
    fn new(
        name: String,
        peers: [UdpSocket; 2],
        legs: &[SocketAddr],
        thread: u32,
        running: impl Send + 'static,
    ) -> io::Result<Self> {
        let victim = *legs.first().ok_or(io::ErrorKind::InvalidInput)?;
        let streams: Vec<_> = legs
            .chunks_exact(2)
            .skip(1)
            .flat_map(|pair| [Stream::pcmu(0, pair[0], pair[1]), Stream::pcmu(1, pair[1], pair[0])])
            .collect();
        cpu::pin(Some(thread), CORES.0)?;
        let generator = Generator::new(peers.into(), &streams)?;
        let running = Box::new(running);
        Ok(Self { name, generator, thread, victim, seen: Vec::new(), _running: running })
    }

    fn turn(&mut self, load: &Load, flood: u32) -> io::Result<()> {
        let (thread, victim, is_over) = (self.thread, self.victim, AtomicBool::new(false));
        let mut tested = || cpu::of_thread(std::process::id(), thread);
        let seen = std::thread::scope(|scope| {
            if flood > 0 {
                scope.spawn(|| pour(victim, flood, &is_over));
            }
            let seen = self.generator.run(load, &mut tested, None);
            is_over.store(true, Ordering::Relaxed);
            seen
        });
        self.seen.push(seen?);
        Ok(())
    }

    fn costs(&self) -> Vec<f64> {
        self.seen.iter().map(Seen::cpu_per_packet).collect()
    }

    fn row(&self, calls: usize, out: &mut impl Write) -> io::Result<()> {
        let of =
            |value: &dyn Fn(&Seen) -> f64| median(&self.seen.iter().map(value).collect::<Vec<_>>());
        let late = |share: f64| of(&|it| it.latency(share).as_secs_f64() * 1e3);
        let fit = self.seen.iter().filter(|it| it.has_headroom()).count();
        writeln!(
            out,
            "| {calls} | {} | {:.2} | {:.0} % | {:.2} / {:.2} ms | {:.2} % | {} | {:.0} % | \
             {fit} of {} |",
            self.name,
            of(&Seen::cpu_per_packet),
            of(&|it| it.cpu.as_secs_f64() / it.wall.as_secs_f64() * 100.0),
            late(0.5),
            late(0.99),
            of(&|it| it.loss() * 100.0),
            of(&|it| it.strange as f64),
            of(&|it| it.own_share() * 100.0),
            self.seen.len(),
        )
    }
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    cpu::pin(None, CORES.1)?;
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| calls | what | us of CPU per packet | of a core | added p50 / p99 | loss | strange | \
         generator | turns with headroom |\n|---|---|---|---|---|---|---|---|---|"
    )?;
    let mut ratios = Vec::new();
    for (calls, group) in options.calls.iter().flat_map(|calls| GROUPS.map(|it| (*calls, it))) {
        let mut subjects: Vec<_> = group
            .iter()
            .filter(|name| name.contains(&options.only))
            .map(|name| subject(name, calls))
            .collect::<Result<_, _>>()?;
        let load =
            Load { warm_up: Duration::from_millis(500), ..Load::for_seconds(options.seconds) };
        for turn in 0..options.pairs {
            // Each is first as often as last.
            if turn % 2 == 0 {
                subjects.iter_mut().try_for_each(|it| it.turn(&load, options.flood))?;
            } else {
                subjects.iter_mut().rev().try_for_each(|it| it.turn(&load, options.flood))?;
            }
        }
        subjects.iter().try_for_each(|it| it.row(calls, &mut out))?;
        for (ours, theirs) in COMPARED {
            let costs =
                |name: &str| subjects.iter().find(|it| it.name == *name).map(Subject::costs);
            let (Some(a), Some(b)) = (costs(ours), costs(theirs)) else { continue };
            let pairs: Vec<_> = a.into_iter().zip(b).collect();
            ratios.push(format!("{calls} calls: {ours} / {theirs}: {}", Ratio::of(&pairs)));
        }
    }
    writeln!(out, "\n{}", ratios.join("\n"))?;
    Ok(())
}

/// Which ratios are told.
const COMPARED: [(&str, &str); 5] = [
    ("relay, io_uring", "forwarder, io_uring, connected"),
    ("relay, epoll", "forwarder, epoll, connected"),
    ("forwarder, io_uring, connected", "forwarder, io_uring"),
    ("forwarder, epoll, connected", "forwarder, epoll"),
    ("forwarder, io_uring, connected", "forwarder, epoll, connected"),
];

/// What is measured together; descriptors do not suffice for all at once.
const GROUPS: [&[&str]; 2] = [
    &[
        "forwarder, io_uring",
        "forwarder, io_uring, connected",
        "relay, io_uring",
        "forwarder, epoll, connected",
    ],
    &["forwarder, epoll", "forwarder, epoll, connected", "relay, epoll"],
];

fn subject(name: &str, calls: usize) -> anyhow::Result<Subject> {
    let is_epoll = name.contains("epoll");
    let driver = if is_epoll { DriverChoice::Epoll } else { DriverChoice::IoUring };
    if name.starts_with("relay") {
        relayed::start(name.to_owned(), driver, calls + 1)
    } else {
        forwarder::start(name.to_owned(), driver, calls + 1, name.ends_with("connected"))
    }
}

/// Sends garbage to a port until told to stop, evenly.
fn pour(victim: SocketAddr, per_second: u32, is_over: &AtomicBool) {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return };
    let (began, mut sent) = (Instant::now(), 0);
    while !is_over.load(Ordering::Relaxed) {
        let due = began.elapsed().as_secs_f64() * f64::from(per_second);
        while f64::from(sent) < due {
            // What finds no room is lost, as it should be.
            let _ = socket.send_to(&[0xff; 172], victim);
            sent += 1;
        }
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// One socket for all callers and one for all callees.
fn peers() -> io::Result<[UdpSocket; 2]> {
    Ok([UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?])
}
