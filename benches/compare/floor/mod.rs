//! What the relay costs above a bare forwarder on the same driver, and what a flood at one port
//! does to the others. Both run on threads of this process.

mod forwarder;
mod relayed;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::rig::cpu;
use benches::rig::generator::{Generator, Stream};
use relay::driver::DriverChoice;

use crate::figure::{Bar, Figure, Window};
use crate::media::{Bench, TESTED_CORE, cpu_figure};
use crate::traffic::{GENERATOR_CORE, window};

const DRIVERS: [(&str, DriverChoice); 2] =
    [("io_uring", DriverChoice::IoUring), ("epoll", DriverChoice::Epoll)];
const CALLS: [u32; 2] = [200, 650];
/// Garbage packets a second.
const FLOOD: u32 = 20_000;
const FLOODED_CALLS: u32 = 500;

/// Something that forwards, and the load on it.
struct Subject {
    name: &'static str,
    generator: Generator,
    /// The thread that is measured.
    thread: u32,
    /// A leg that carries no load.
    victim: SocketAddr,
    /// Ends it when dropped.
    _running: Box<dyn Send>,
}

impl Subject {
    /// With the addresses of its legs, two for each call; the first call carries no load.
    fn new(
        name: &'static str,
        peers: [UdpSocket; 2],
        legs: &[SocketAddr],
        thread: u32,
        running: impl Send + 'static,
    ) -> anyhow::Result<Self> {
        let victim = *legs.first().ok_or_else(|| anyhow::anyhow!("no legs"))?;
        let streams: Vec<_> = legs
            .chunks_exact(2)
            .skip(1)
            .flat_map(|pair| [Stream::pcmu(0, pair[0], pair[1]), Stream::pcmu(1, pair[1], pair[0])])
            .collect();
        cpu::pin(Some(thread), TESTED_CORE)?;
        let generator = Generator::new(peers.into(), &streams)?;
        Ok(Self { name, generator, thread, victim, _running: Box::new(running) })
    }

    /// A window of its calls, while so much garbage comes to the leg that has no call.
    fn window(&mut self, bench: &Bench, calls: u32, flood: u32) -> anyhow::Result<Window> {
        let (thread, victim, is_over) = (self.thread, self.victim, AtomicBool::new(false));
        let mut tested = || cpu::of_thread(std::process::id(), thread);
        cpu::pin(None, GENERATOR_CORE)?;
        let seen = std::thread::scope(|scope| {
            if flood > 0 {
                scope.spawn(|| pour(victim, flood, &is_over));
            }
            self.generator.use_streams(calls as usize * 2);
            self.generator.forget();
            let seen = self.generator.run(&window(bench.seconds), &mut tested, None);
            is_over.store(true, Ordering::Relaxed);
            seen
        });
        crate::process::unpin()?;
        let it = Window::of(self.name, calls, &seen?);
        it.say();
        Ok(it)
    }
}

impl Bench {
    /// The relay over a forwarder, on each driver, and under a flood.
    pub(crate) fn floor(&self) -> anyhow::Result<Vec<Figure>> {
        let mut found = Vec::new();
        for (driver, choice) in DRIVERS {
            let most = CALLS.into_iter().max().unwrap_or(0) + 1;
            let mut relay = relayed::start(choice, most)?;
            let mut bare = forwarder::start(choice, most)?;
            for calls in CALLS {
                eprintln!("relay over a bare forwarder, {driver}, {calls} calls");
                let (pairs, discarded) =
                    self.pairs(|| relay.window(self, calls, 0), || bare.window(self, calls, 0))?;
                let what = format!(
                    "CPU per packet, plain relay over a bare forwarder, {driver}, {calls} calls"
                );
                let bar =
                    if choice == DriverChoice::IoUring { Bar::AtMost(1.3) } else { Bar::None };
                found.push(cpu_figure(what, bar, "forwarder", &pairs, discarded));
            }
        }
        found.extend(self.flooded()?);
        Ok(found)
    }

    fn flooded(&self) -> anyhow::Result<Vec<Figure>> {
        eprintln!("{FLOODED_CALLS} calls, {FLOOD} packets of garbage a second at one port");
        let mut relay = relayed::start(DriverChoice::IoUring, FLOODED_CALLS + 1)?;
        let (mut windows, mut rises, mut lost) = (Vec::new(), Vec::new(), 0.0);
        for _ in 0..self.pairs {
            let quiet = relay.window(self, FLOODED_CALLS, 0)?;
            let flooded = relay.window(self, FLOODED_CALLS, FLOOD)?;
            rises.push(flooded.p99_ms - quiet.p99_ms);
            lost = flooded.loss.max(lost);
            windows.extend([quiet, flooded]);
        }
        let what = format!(
            "rise of p99 latency of {FLOODED_CALLS} calls while {FLOOD} packets of garbage a \
             second come to one port"
        );
        let figure = Figure::absolute(what, "ms", Bar::AtMost(1.0), &rises);
        let said = format!("at most {:.3} % of the calls' packets were lost", lost * 100.0);
        Ok(vec![figure.note(said).windows(windows)])
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
fn peers() -> std::io::Result<[UdpSocket; 2]> {
    Ok([UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?])
}
