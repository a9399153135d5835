//! More calls than a core carries: how old the audio is that still comes out.
//!
//! One core carries more calls than limit `relay.sessions` lets one worker have, so the relay's
//! core is shared: busy loops of ordinary priority take their fair part of it, and the relay has
//! too little for what comes.

use std::sync::atomic::{AtomicBool, Ordering};

use benches::rig::cpu;

use crate::anchor::Anchor;
use crate::figure::{Bar, Figure, Window};
use crate::media::{Bench, SAMPLE, TESTED_CORE};
use crate::traffic::{Traffic, Work};

/// Calls that are set up: as many as one worker takes, and the generator can speak for.
const CALLS: u32 = 1_900;
/// Who shares the core: a part, and a third.
const NEIGHBOURS: [usize; 2] = [1, 2];
/// Windows at each.
const WINDOWS: usize = 3;
/// The generator remembers for so long what it has sent; what is older is strange to it.
const FORGOTTEN_MS: f64 = 2_560.0;

impl Bench {
    /// The plain relay and SRTP. What is transcoded has other numbers than what went in, and where
    /// much is lost they tell no ages.
    pub(crate) fn overload(&self) -> anyhow::Result<Vec<Figure>> {
        let mut found = Vec::new();
        for (name, work, calls) in
            [("plain relay", Work::Plain, CALLS), ("SRTP <-> RTP", Work::SrtpToPlain, CALLS)]
        {
            eprintln!("overload, {name}, {calls} calls");
            let mut ours = self.relay()?;
            found.extend(self.overloaded(name, work, calls, &mut ours)?);
        }
        Ok(found)
    }

    fn overloaded(
        &self,
        name: &str,
        work: Work,
        calls: u32,
        ours: &mut dyn Anchor,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut traffic = Traffic::sampled(ours, &self.speech, work, 0..calls, SAMPLE)?;
        let alone = self.window("alone", &mut traffic, calls)?;
        let mut figures = Vec::new();
        for neighbours in NEIGHBOURS {
            let mut windows = Vec::new();
            for _ in 0..WINDOWS {
                windows.push(beside(neighbours, || self.window("callgate", &mut traffic, calls))?);
            }
            let part = 1.0 / (neighbours + 1) as f64;
            let what = format!(
                "age of audio that came out under overload, {name}, p99 of the worst window, {:.0} \
                 % of a core",
                part * 100.0
            );
            let worst = windows.iter().map(age).fold(0.0, f64::max);
            let lost: Vec<_> = windows.iter().map(|it| it.loss * 100.0).collect();
            let worst_lost = lost.iter().copied().fold(0.0, f64::max);
            figures.push(
                Figure::exact(what, "ms", Bar::AtMost(500.0), worst)
                    .note(format!(
                        "{calls} calls; alone it took {:.0} % of a core, so {:.2} times what it \
                         had; at most {worst_lost:.0} % was dropped",
                        alone.cpu_share * 100.0,
                        alone.cpu_share / part
                    ))
                    .windows(windows),
            );
        }
        // And afterwards all is as before.
        let after = self.window("after", &mut traffic, calls)?;
        if let Some(last) = figures.pop() {
            let said = format!(
                "alone: loss {:.2} %, p99 {:.1} ms; afterwards: loss {:.2} %, p99 {:.1} ms",
                alone.loss * 100.0,
                alone.p99_ms,
                after.loss * 100.0,
                after.p99_ms
            );
            figures.push(last.note(said).windows([alone, after]));
        }
        traffic.close(ours)?;
        Ok(figures)
    }
}

/// The age that 99 of 100 packets do not exceed, those among them that nobody remembers.
fn age(window: &Window) -> f64 {
    let is_mostly_known = window.strange * 100 <= window.received;
    if is_mostly_known { window.p99_ms } else { FORGOTTEN_MS.max(window.p99_ms) }
}

/// Does something while so many busy loops run on the relay's core.
fn beside<T>(neighbours: usize, run: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..neighbours {
            scope.spawn(|| {
                // Where it cannot be pinned there is no overload, as the report then shows.
                let _ = cpu::pin(None, TESTED_CORE);
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let done = run();
        is_over.store(true, Ordering::Relaxed);
        done
    })
}
