//! Minutes of load in which calls come and go: whether it was the load that was meant, what became
//! of the calls that stood meanwhile, and what is left of the others.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::rig::cpu;
use benches::rig::generator::Seen;
use benches::rig::trend::slope;

use crate::anchor::Anchor as _;
use crate::figure::{Bar, Figure, Window};
use crate::media::Bench;
use crate::ours::Callgate;
use crate::process::Holding;
use crate::traffic::{GENERATOR_CORE, Traffic, Work, window};

/// The load that is asked for, in percent of one core.
pub(crate) const LOAD: f64 = 70.0;
/// The share of a core that is aimed at: noise must not make it less than what is asked for.
pub(crate) const AIM: f64 = 0.73;
/// What a call's coming and going may leave behind for good, in KB: less than any object of one.
const LEFT_KB: f64 = 0.05;
/// Calls that stand at most; some of them have sound.
const STANDING: u32 = 2_300;
/// The first guess of how many have.
const FIRST: u32 = 1_200;
/// Calls that come and go at one time, few enough that the generator has time for those that stand.
const COMING: u32 = 100;
/// One call in so many is heard.
const HEARD: u32 = 8;
/// Until the load is found; not counted.
const RUN_IN: [f64; 5] = [2.0, 2.0, 2.0, 4.0, 4.0];
/// Seconds of a window.
const WINDOW: f64 = 8.0;
/// Ports rest for five seconds (limit `relay.quarantine_ms`) before they count as given back.
const REST: Duration = Duration::from_secs(8);

/// Looks at a process, or several, under load.
pub(crate) struct Samples {
    began: Instant,
    last: (Instant, Duration),
    /// Shares of one core between two looks, in percent; there are no gaps.
    pub(crate) shares: Vec<f64>,
    /// Seconds and bytes.
    memory: Vec<(f64, f64)>,
}

impl Samples {
    /// From now on, of what has used that CPU time until now.
    pub(crate) fn begin(cpu: Duration) -> Self {
        let now = Instant::now();
        Self { began: now, last: (now, cpu), shares: Vec::new(), memory: Vec::new() }
    }

    /// Takes the next one.
    pub(crate) fn take(&mut self, cpu: Duration, held: Holding) {
        let (now, (since, before)) = (Instant::now(), self.last);
        let used = cpu.saturating_sub(before).as_secs_f64();
        self.shares.push(used / now.duration_since(since).as_secs_f64().max(1e-9) * 100.0);
        self.memory.push((now.duration_since(self.began).as_secs_f64(), held.anonymous as f64));
        self.last = (now, cpu);
    }

    /// What was asked of the process, held against what was meant.
    pub(crate) fn load(&self, of: &str) -> Figure {
        let bar = Bar::AtLeast(LOAD);
        let worst = self.shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.shares.iter().copied().fold(0.0, f64::max);
        let mean = self.shares.iter().sum::<f64>() / self.shares.len().max(1) as f64;
        Figure::absolute(format!("{of}: load, of one core"), "%", bar, &self.shares).note(format!(
            "{} looks without a gap between them: mean {mean:.1} %, lowest {worst:.1} %, highest \
             {most:.1} %",
            self.shares.len()
        ))
    }

    /// What each of so many calls that came and went since the beginning has left in memory for
    /// good: the slope of the second half, in which what is kept for reuse has been taken.
    pub(crate) fn growth(&self, of: &str, calls: u64, rest: [Holding; 2]) -> Figure {
        let (what, bar) = (format!("{of}: memory left by a call"), Bar::AtMost(LEFT_KB));
        let half = self.memory.get(self.memory.len() / 2..).unwrap_or_default();
        let (Some(slope), Some(all)) = (slope(half), self.memory.last()) else {
            return Figure::missing(what, bar, "too few looks at it: more minutes are needed");
        };
        let per_second = calls as f64 / all.0.max(1e-9);
        let each = (slope / per_second.max(1e-9) / 1_024.0).max(0.0);
        let at = |index: usize| self.memory.get(index).map_or(0.0, |it| it.1);
        Figure::exact(what, "KB", bar, each).note(format!(
            "heap and stacks moved by {:.1} KB a minute in the second half (median of all pairs of \
             looks, so that an allocator which trims once is no trend), {:.0} calls a minute; \
             {:.1} MB idle at first, {:.1} MB under load, {:.1} MB after half of the time, {:.1} \
             MB at the end, {:.1} MB after all calls had gone",
            slope * 60.0 / 1_024.0,
            per_second * 60.0,
            mb(rest[0].anonymous as f64),
            mb(at(0)),
            mb(at(self.memory.len() / 2)),
            mb(all.1),
            mb(rest[1].anonymous as f64),
        ))
    }
}

/// What is held after all calls have gone and was not before there was any.
pub(crate) fn left(of: &str, before: Holding, after: Holding) -> [Figure; 2] {
    let figure = |what: &str, before: u64, after: u64| {
        let what = format!("{of}: {what} left");
        let left = after.saturating_sub(before) as f64;
        Figure::exact(what, "", Bar::AtMost(0.0), left)
            .note(format!("{before} before the first call, {after} after the last one"))
    };
    [
        figure("descriptors", before.descriptors, after.descriptors),
        figure("UDP ports of the process", before.ports, after.ports),
    ]
}

/// Runs for so long at 70 % of a core with SRTP calls, some of which come and go.
pub(crate) fn relay(bench: &Bench, minutes: f64) -> anyhow::Result<Vec<Figure>> {
    eprintln!("soak, {minutes} minutes");
    let mut ours = bench.relay()?;
    let process = ours.process();
    // What the first call of all brings in belongs to none.
    let first = 3_000_000;
    Traffic::open(&mut ours, &bench.speech, Work::SrtpToPlain, first..first + 1)?
        .close(&mut ours)?;
    std::thread::sleep(REST);
    let before = Holding::of(process)?;
    let (work, all) = (Work::SrtpToPlain, 0..STANDING);
    let mut traffic = Traffic::sampled(&mut ours, &bench.speech, work, all, HEARD)?;
    // Nobody may be silent between two windows.
    traffic.is_prepared = false;
    let (is_over, churned) = (AtomicBool::new(false), AtomicU32::new(0));
    let run = std::thread::scope(|scope| {
        let churner = scope.spawn(|| churn(bench, &mut ours, &is_over, &churned));
        let run = stand(&mut traffic, process, minutes, &churned);
        is_over.store(true, Ordering::Relaxed);
        let heard = churner.join().ok().context("the churning thread has panicked")??;
        anyhow::Ok((run?, heard))
    });
    let ((samples, windows, calls), heard) = run?;
    crate::process::unpin()?;
    traffic.close(&mut ours)?;
    std::thread::sleep(REST);
    let after = Holding::of(process)?;
    let mut figures = vec![
        samples.load("soak").note(format!(
            "{minutes} minutes of SRTP <-> RTP, {} to {} of {STANDING} standing calls with sound, \
             {COMING} at a time that came, spoke for two seconds and went: {calls} in all",
            windows.iter().map(|it| it.calls).min().unwrap_or(0),
            windows.iter().map(|it| it.calls).max().unwrap_or(0),
        )),
        Figure::exact("soak: sessions left", "", Bar::AtMost(0.0), ours.sessions()? as f64),
    ];
    figures.extend(left("soak", before, after));
    figures.push(samples.growth("soak", u64::from(calls), [before, after]));
    figures.extend(heard_of(windows, &heard));
    Ok(figures)
}

/// How the calls sounded.
fn heard_of(windows: Vec<Window>, coming: &[Window]) -> [Figure; 4] {
    let loss = |windows: &[Window]| {
        let sum = |pick: fn(&Window) -> u64| windows.iter().map(pick).sum::<u64>() as f64;
        (1.0 - sum(|it| it.received) / sum(|it| it.sent).max(1.0)) * 100.0
    };
    let slow = windows.iter().filter(|it| !it.is_healthy()).count();
    let late = windows.iter().filter(|it| !it.has_headroom).count();
    let said = format!(
        "one call in {HEARD} heard; {slow} of {} windows of {WINDOW} s had more than 0.1 % of loss \
         or a p99 above 20 ms; in {late} the generator was late itself, whose waits are in these",
        windows.len()
    );
    let worst = windows.iter().map(|it| it.loss).fold(0.0, f64::max) * 100.0;
    let p99: Vec<_> = windows.iter().map(|it| it.p99_ms).collect();
    let slowest = p99.iter().copied().fold(0.0, f64::max);
    [
        Figure::exact(
            "soak: loss of calls that stood",
            "%",
            Bar::AtMost(0.1),
            loss(&windows).max(0.0),
        )
        .note(format!("worst window {worst:.3} %")),
        Figure::absolute("soak: p99 latency of calls that stood", "ms", Bar::AtMost(20.0), &p99)
            .note(said),
        Figure::exact("soak: p99 latency, worst window", "ms", Bar::None, slowest),
        Figure::exact("soak: loss of calls that came and went", "%", Bar::AtMost(0.1), {
            loss(coming).max(0.0)
        })
        .windows(windows),
    ]
}

fn mb(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

/// Speaks through the calls that stand, as many of them as make the load; the looks, the windows,
/// and how many calls came and went meanwhile.
fn stand(
    traffic: &mut Traffic<'_>,
    process: u32,
    minutes: f64,
    churned: &AtomicU32,
) -> anyhow::Result<(Samples, Vec<Window>, u32)> {
    let most = traffic.calls.len() as u32;
    let used = || cpu::of_process(process);
    let mut calls = FIRST.min(most);
    let mut found = Samples::begin(used()?);
    for seconds in RUN_IN {
        let seen = Window::of("callgate", calls, &run(traffic, calls, seconds)?);
        found.take(used()?, Holding::default());
        say(&seen, &found);
        calls = steered(&seen, found.shares.last(), 1.0).clamp(50, most);
    }
    let mut samples = Samples::begin(used()?);
    let (mut windows, first) = (Vec::new(), churned.load(Ordering::Relaxed));
    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < end {
        let seen = Window::of("callgate", calls, &run(traffic, calls, WINDOW)?);
        samples.take(used()?, Holding::memory_of(process)?);
        say(&seen, &samples);
        windows.push(seen);
        // Slowly: others use the machine as well, for a moment.
        calls = steered(&seen, samples.shares.last(), 0.3).clamp(50, most);
    }
    Ok((samples, windows, churned.load(Ordering::Relaxed) - first))
}

/// A window; what comes between windows leaves the relay its core too.
fn run(traffic: &mut Traffic<'_>, calls: u32, seconds: f64) -> anyhow::Result<Seen> {
    let seen = traffic.run(calls, &window(seconds));
    cpu::pin(None, GENERATOR_CORE)?;
    seen
}

/// As many calls as bring the share to what is aimed at, by so much of the way. Packets that were
/// lost cost little: where some were, nobody knows what more calls would take.
fn steered(seen: &Window, share: Option<&f64>, way: f64) -> u32 {
    let share = share.map_or(AIM, |it| it / 100.0).max(0.05);
    let most = if seen.loss > 0.001 { 0.0 } else { 0.5 };
    (f64::from(seen.calls) * (1.0 + (AIM / share - 1.0).clamp(-0.5, most) * way)) as u32
}

fn say(window: &Window, samples: &Samples) {
    eprintln!(
        "  {} calls, core {:.0} %, loss {:.3} %, p99 {:.2} ms, {:.1} MB; generator {:.0} %, late \
         {:.2} %{}",
        window.calls,
        samples.shares.last().copied().unwrap_or(f64::NAN),
        window.loss * 100.0,
        window.p99_ms,
        samples.memory.last().map_or(f64::NAN, |it| mb(it.1)),
        window.generator_share * 100.0,
        window.generator_late * 100.0,
        if window.has_headroom { "" } else { " (no headroom)" }
    );
}

/// Sets calls up, speaks through them for some seconds and tears them down, over and over; what was
/// heard through them.
fn churn(
    bench: &Bench,
    ours: &mut Callgate,
    is_over: &AtomicBool,
    churned: &AtomicU32,
) -> anyhow::Result<Vec<Window>> {
    cpu::pin(None, GENERATOR_CORE)?;
    let (mut next, mut heard) = (2_000_000, Vec::new());
    while !is_over.load(Ordering::Relaxed) {
        let numbers = next..next + COMING;
        next = numbers.end;
        let mut traffic = Traffic::open(ours, &bench.speech, Work::SrtpToPlain, numbers)?;
        heard.push(Window::of("coming", COMING, &run(&mut traffic, COMING, 1.0)?));
        traffic.close(ours)?;
        churned.fetch_add(COMING, Ordering::Relaxed);
    }
    Ok(heard)
}
