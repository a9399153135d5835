//! Minutes of whole calls that come and go, and what is left when the last one has gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::caller::{self, Lines, Rate, Seen};
use super::edge::{Edge, Figures};
use super::{CONNECTIONS, Middle, Running, Stage};
use crate::figure::{Bar, Figure};
use crate::process::Holding;
use crate::soak::{AIM, Samples, left};

/// From answer to BYE: with some hundred calls a second about a thousand stand at one time.
const HOLD: Duration = Duration::from_secs(2);
/// Rates at which it is found out what a call costs, and for how long.
const PROBES: [f64; 2] = [100.0, 300.0];
const PROBE: Duration = Duration::from_secs(4);
/// Most calls a second: the policy of the stage, and both ends, take no more.
const MOST: f64 = 900.0;
/// Between two looks at what is measured.
const LOOK: Duration = Duration::from_secs(5);
/// After the last call: ports rest, transactions linger.
const REST: Duration = Duration::from_secs(12);
/// For the gauges to reach zero.
const PATIENCE: Duration = Duration::from_secs(40);

/// Counters that tell why calls were refused or ended, by reason.
const BY_REASON: [&str; 4] = [
    "callgate_call_ended_total",
    "callgate_call_refused_more_total",
    "callgate_sip_request_refused_total",
    "callgate_edge_queue_full_total",
];

impl Stage {
    /// Whole calls at 70 % of one core for so many minutes, every one of which comes and goes.
    pub(crate) fn soak(&self, minutes: f64) -> anyhow::Result<Vec<Figure>> {
        eprintln!("soak of whole calls, {minutes} minutes");
        let running = self.start(Middle::Callgate)?;
        let Running::Callgate(edge) = &running else {
            anyhow::bail!("a soak has no peer to check itself against");
        };
        let mut per_second = PROBES[0];
        for probe in PROBES {
            let seen = self.calls("callgate", Some(&running), rate(probe, PROBE))?;
            ensure!(seen.ended == seen.placed, "calls are lost before it has begun");
            let each = seen.cpu.as_secs_f64() / seen.placed.max(1) as f64;
            per_second = (AIM / each.max(1e-6)).min(MOST);
        }
        std::thread::sleep(REST);
        let (before, counted) = (held(edge), edge.figures()?);
        let seconds = Duration::from_secs_f64(minutes * 60.0);
        let (seen, samples) = self.watched(&running, edge, rate(per_second, seconds))?;
        std::thread::sleep(REST);
        let gone = edge.wait_for_none(PATIENCE)?;
        let after = held(edge);
        let said = format!(
            "{minutes} minutes at {per_second:.0} calls a second, TLS on both sides, SRTP \
             anchored, no packets of it, each held for {} s: {} calls, set-up p50 {:.1} ms, p99 \
             {:.1} ms; the caller used {:.0} % of a core and began {} calls late",
            HOLD.as_secs(),
            seen.placed,
            seen.setup(0.5),
            seen.setup(0.99),
            seen.own_cpu.as_secs_f64() / seen.wall.as_secs_f64().max(1e-9) * 100.0,
            seen.late,
        );
        let (of, none) = ("soak of whole calls", Bar::AtMost(0.0));
        let failures = by_reason(&counted, &gone, &seen);
        let mut figures = vec![
            samples.load(of).note(said),
            Figure::exact(
                format!("{of}: refused or lost"),
                "calls",
                none,
                (seen.placed - seen.ended) as f64,
            )
            .note(failures),
            Figure::exact(
                format!("{of}: calls left (gauge)"),
                "",
                none,
                gone.get("callgate_calls")?,
            ),
            Figure::exact(
                format!("{of}: media sessions left (gauge)"),
                "",
                none,
                gone.get("callgate_relay_sessions")?,
            ),
        ];
        figures.extend(left(of, before, after));
        figures.push(samples.growth(of, seen.placed as u64, [before, after]));
        Ok(figures)
    }

    /// Places the calls, with a look at callgate now and then.
    fn watched(
        &self,
        running: &Running,
        edge: &Edge,
        rate: Rate,
    ) -> anyhow::Result<(Seen, Samples)> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watching = scope.spawn(|| {
                // From when as many calls stand as will, to before the last one has begun.
                std::thread::sleep(rate.warm_up + HOLD);
                let looks = rate.measured.saturating_sub(HOLD).as_secs() / LOOK.as_secs();
                let mut samples = Samples::begin(running.cpu()?);
                for _ in 0..looks {
                    std::thread::sleep(LOOK);
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let memory = edge.processes().into_iter().map(Holding::memory_of);
                    let memory = Holding::sum(memory.filter_map(Result::ok));
                    samples.take(running.cpu()?, memory);
                    eprintln!(
                        "  core {:.0} %, {:.1} MB, {} calls",
                        samples.shares.last().copied().unwrap_or(f64::NAN),
                        memory.anonymous as f64 / 1_048_576.0,
                        edge.figures()?.get("callgate_calls")?
                    );
                }
                anyhow::Ok(samples)
            });
            let mut tested = || running.cpu();
            let seen = caller::run(running.address(), Arc::clone(&self.tls), rate, &mut tested);
            is_over.store(true, Ordering::Relaxed);
            let samples = watching.join().ok().context("the watching thread has panicked")??;
            Ok((seen?, samples))
        })
    }
}

fn rate(per_second: f64, measured: Duration) -> Rate {
    let warm_up = HOLD + Duration::from_secs(1);
    Rate { per_second, hold: HOLD, warm_up, measured, lines: Lines::Shared(CONNECTIONS) }
}

fn held(edge: &Edge) -> Holding {
    Holding::sum(edge.processes().into_iter().filter_map(|it| Holding::of(it).ok()))
}

/// What the caller heard instead of a whole call, and what callgate says of it.
fn by_reason(before: &Figures, after: &Figures, seen: &Seen) -> String {
    let mut said: Vec<String> =
        seen.failures.iter().map(|(what, count)| format!("caller: {what} {count}")).collect();
    for name in BY_REASON {
        let told = after.of(name).filter_map(|(labels, value)| {
            let more = value - before.of(name).find(|it| it.0 == labels).map_or(0.0, |it| it.1);
            (more > 0.0).then(|| format!("{name}{labels} {more}"))
        });
        said.extend(told);
    }
    said.join("; ")
}
