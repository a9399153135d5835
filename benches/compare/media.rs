//! The figures of the relay: CPU, latency, capacity, memory, churn.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use benches::rig::ratio::median;
use benches::rig::staircase::Staircase;

use crate::anchor::Anchor;
use crate::figure::{Bar, Figure, Window};
use crate::ng::{self, Rtpengine};
use crate::ours::Callgate;
use crate::process::Holding;
use crate::traffic::{Speech, Traffic, Work, window};

/// The core of what is measured; the generator has the other one.
pub(crate) const TESTED_CORE: usize = 1;

/// How a run is made.
pub(crate) struct Bench {
    /// Pairs of each figure.
    pub(crate) pairs: usize,
    /// Seconds of a window.
    pub(crate) seconds: f64,
    /// Minutes of a soak.
    pub(crate) minutes: f64,
    /// Takes windows in which the generator had no headroom: to check the harness only.
    pub(crate) is_tolerant: bool,
    /// Puts a second rtpengine in our place: every ratio must then be about 1.
    pub(crate) is_self_check: bool,
    /// callgate itself, for whole calls.
    pub(crate) program: PathBuf,
    pub(crate) speech: Speech,
}

/// At first, not measured: rtpengine learns addresses for three seconds.
const FIRST: f64 = 4.0;

/// For each pair that is wanted so many may be thrown away: a virtual machine's host has others to
/// serve as well, for some seconds at a time.
const MOST_DISCARDED: usize = 3;

/// Ports of the peer's media, away from those of callgate.
const PEER_PORTS: (u16, u16) = (40_000, 59_998);

/// One call in so many is heard where a load is too much to be heard whole.
pub(crate) const SAMPLE: u32 = 4;

type Boxed = Box<dyn Anchor + Send>;

fn rtpengine() -> anyhow::Result<Boxed> {
    let settings = ng::Settings { threads: 1, core: Some(TESTED_CORE), ports: PEER_PORTS };
    Ok(Box::new(Rtpengine::start(settings)?))
}

impl Bench {
    /// Our relay.
    pub(crate) fn relay(&self) -> anyhow::Result<Callgate> {
        Callgate::start(1, Some(TESTED_CORE))
    }

    /// What is compared.
    fn callgate(&self) -> anyhow::Result<Boxed> {
        if self.is_self_check {
            let (core, ports) = (Some(TESTED_CORE), (20_000, 31_998));
            let settings = ng::Settings { threads: 1, core, ports };
            return Ok(Box::new(Rtpengine::start(settings)?));
        }
        Ok(Box::new(self.relay()?))
    }

    /// One window.
    pub(crate) fn window(
        &self,
        name: &'static str,
        traffic: &mut Traffic<'_>,
        calls: u32,
    ) -> anyhow::Result<Window> {
        let seen = traffic.run(calls, &window(self.seconds))?;
        let mut it = Window::of(name, calls, &seen);
        // Of what was sent, this much was counted.
        it.cpu_us /= f64::from(traffic.sample);
        it.say();
        Ok(it)
    }

    /// Pairs in which the generator had headroom, ours first in every other one; and how many
    /// pairs were thrown away.
    pub(crate) fn pairs(
        &self,
        mut ours: impl FnMut() -> anyhow::Result<Window>,
        mut theirs: impl FnMut() -> anyhow::Result<Window>,
    ) -> anyhow::Result<(Vec<(Window, Window)>, usize)> {
        let (mut pairs, mut discarded) = (Vec::new(), 0);
        while pairs.len() < self.pairs && discarded < MOST_DISCARDED * self.pairs {
            let pair = if (pairs.len() + discarded) % 2 == 0 {
                let first = ours()?;
                (first, theirs()?)
            } else {
                let first = theirs()?;
                (ours()?, first)
            };
            if self.is_tolerant || (pair.0.has_headroom && pair.1.has_headroom) {
                pairs.push(pair);
            } else {
                discarded += 1;
            }
        }
        Ok((pairs, discarded))
    }

    /// CPU per packet at some numbers of calls, each with its bar.
    pub(crate) fn cpu(
        &self,
        name: &str,
        work: Work,
        steps: &[(u32, Bar)],
    ) -> anyhow::Result<Vec<Figure>> {
        let most = steps.iter().map(|(calls, _)| *calls).max().unwrap_or(0);
        let (mut ours, mut theirs) = (self.callgate()?, rtpengine()?);
        let mut through_ours = Traffic::open(&mut *ours, &self.speech, work, 0..most)?;
        let mut through_theirs = Traffic::open(&mut *theirs, &self.speech, work, 0..most)?;
        through_theirs.run(most, &window(FIRST))?;
        through_ours.run(most, &window(1.0))?;
        let mut figures = Vec::new();
        for (calls, bar) in steps.iter().copied() {
            eprintln!("{name}, {calls} calls");
            let (pairs, discarded) = self.pairs(
                || self.window("callgate", &mut through_ours, calls),
                || self.window("rtpengine", &mut through_theirs, calls),
            )?;
            let what = format!("CPU per packet, {name}, {calls} calls");
            figures.push(cpu_figure(what, bar, "rtpengine", &pairs, discarded));
        }
        through_ours.close(&mut *ours)?;
        through_theirs.close(&mut *theirs)?;
        Ok(figures)
    }

    /// G.711 of one law into the other, against our plain relay, and rtpengine's beside it.
    pub(crate) fn recode(&self, calls: u32) -> anyhow::Result<Vec<Figure>> {
        eprintln!("PCMU <-> PCMA, {calls} calls");
        let (mut plain, mut recoding, mut theirs) =
            (self.callgate()?, self.callgate()?, rtpengine()?);
        let mut first = Traffic::open(&mut *plain, &self.speech, Work::Plain, 0..calls)?;
        let mut second = Traffic::open(&mut *recoding, &self.speech, Work::Recode, 0..calls)?;
        let mut third = Traffic::open(&mut *theirs, &self.speech, Work::Recode, 0..calls)?;
        third.run(calls, &window(FIRST))?;
        let (pairs, discarded) = self.pairs(
            || self.window("callgate", &mut second, calls),
            || self.window("plain", &mut first, calls),
        )?;
        let what =
            format!("CPU per packet, PCMU <-> PCMA over plain relay, both ours, {calls} calls");
        let ours = cpu_figure(what, Bar::AtMost(1.15), "callgate, plain", &pairs, discarded);
        let (pairs, discarded) = self.pairs(
            || self.window("callgate", &mut second, calls),
            || self.window("rtpengine", &mut third, calls),
        )?;
        let what = format!("CPU per packet, PCMU <-> PCMA, {calls} calls");
        Ok(vec![ours, cpu_figure(what, Bar::None, "rtpengine", &pairs, discarded)])
    }

    /// Most calls on one core, by steps of 5 % up and down from where the last pair ended.
    pub(crate) fn capacity(
        &self,
        name: &str,
        work: Work,
        most: [u32; 2],
        start: [u32; 2],
        bar: Bar,
    ) -> anyhow::Result<Figure> {
        eprintln!("capacity, {name}");
        let (mut ours, mut theirs) = (self.callgate()?, rtpengine()?);
        // What the generator sends is what it must send; what it hears is a sample.
        let sample = if matches!(work, Work::Opus | Work::OpusAlike) { 1 } else { SAMPLE };
        let mut through_ours =
            Traffic::sampled(&mut *ours, &self.speech, work, 0..most[0], sample)?;
        let mut through_theirs =
            Traffic::sampled(&mut *theirs, &self.speech, work, 0..most[1], sample)?;
        let most = [&through_ours, &through_theirs].map(|it| it.calls.len() as u32);
        through_theirs.run(start[1] / 2, &window(FIRST))?;
        let mut steps = [Staircase::new(start[0], most[0]), Staircase::new(start[1], most[1])];
        let (mut pairs, mut windows, mut nowhere) = (Vec::new(), Vec::new(), 0);
        for _ in 0..self.pairs {
            let mut found = [0; 2];
            for side in [0, 1] {
                let (name, traffic) = match side {
                    0 => ("callgate", &mut through_ours),
                    _ => ("rtpengine", &mut through_theirs),
                };
                let base = quiet(work, self, name, traffic)?;
                found[side] = steps[side].climb(|calls| {
                    self.is_carried(|| {
                        let it = self.window(name, traffic, calls)?;
                        windows.push(it);
                        Ok((it, it.p99_ms < base + 20.0))
                    })
                })?;
            }
            eprintln!("  -> callgate {}, rtpengine {} calls", found[0], found[1]);
            if found.contains(&0) {
                nowhere += 1;
            } else {
                pairs.push((f64::from(found[0]), f64::from(found[1])));
            }
        }
        if pairs.is_empty() {
            let why = "nothing was carried well, not even a few calls";
            return Ok(Figure::missing(format!("most calls on one core, {name}"), bar, why));
        }
        let what = format!("most calls on one core, {name}");
        let mut figure = Figure::ratio(what, "calls", bar, "rtpengine", &pairs);
        if pairs.iter().any(|pair| pair.0 >= f64::from(most[0])) {
            let why = "limit relay.sessions, or what the harness opens";
            figure = figure.note(format!("ours takes {} calls at most ({why})", most[0]));
        }
        if nowhere > 0 {
            let why = "one side carried nothing well";
            figure = figure.note(format!("{nowhere} pairs thrown away: {why}"));
        }
        if sample > 1 {
            figure = figure.note(format!("one call in {sample} was heard, the rest thrown away"));
        }
        Ok(figure.windows(windows))
    }

    /// Whether a number of calls is well: in one of three windows, since others use the machine as
    /// well, and not if two say no. A generator that is late makes bursts, which are harder to
    /// carry: its windows may say yes and not no.
    fn is_carried(
        &self,
        mut window: impl FnMut() -> anyhow::Result<(Window, bool)>,
    ) -> anyhow::Result<bool> {
        let mut refused = 0;
        for _ in 0..3 {
            let (it, is_quick) = window()?;
            if it.loss < 0.001 && is_quick && it.sent >= it.wanted {
                return Ok(true);
            }
            refused += usize::from(it.has_headroom || self.is_tolerant);
            if refused == 2 {
                break;
            }
        }
        Ok(false)
    }

    /// Latency where our relay uses half a core.
    pub(crate) fn latency(&self) -> anyhow::Result<Vec<Figure>> {
        eprintln!("latency at half a core");
        let most = 1_900;
        let mut ours = self.callgate()?;
        let mut traffic = Traffic::open(&mut *ours, &self.speech, Work::Plain, 0..most)?;
        let mut calls = 500;
        for _ in 0..4 {
            let share = self.window("callgate", &mut traffic, calls)?.cpu_share;
            let wanted = f64::from(calls) * 0.5 / share.max(0.01);
            calls = (wanted as u32).clamp(50, most);
        }
        let mut windows = Vec::new();
        for _ in 0..self.pairs {
            windows.push(self.window("callgate", &mut traffic, calls)?);
        }
        let share = median(&windows.iter().map(|it| it.cpu_share).collect::<Vec<_>>());
        let said = format!("{calls} calls, {:.0} % of a core", share * 100.0);
        let of = |pick: fn(&Window) -> f64| windows.iter().map(pick).collect::<Vec<_>>();
        let figure = |what: &str, bar: f64, pick: fn(&Window) -> f64| {
            Figure::absolute(what, "ms", Bar::AtMost(bar), &of(pick)).note(said.clone())
        };
        let figures = vec![
            figure("added latency at half a core, p50", 1.0, |it| it.p50_ms),
            figure("added latency at half a core, p99", 3.0, |it| it.p99_ms)
                .windows(windows.iter().copied()),
        ];
        traffic.close(&mut *ours)?;
        Ok(figures)
    }

    /// Memory of a relayed call: fresh processes, before and after `calls` calls with traffic.
    pub(crate) fn memory(
        &self,
        name: &str,
        work: Work,
        calls: u32,
        most_kb: f64,
    ) -> anyhow::Result<Vec<Figure>> {
        eprintln!("memory, {name}");
        let mut pairs = Vec::new();
        for _ in 0..self.pairs {
            let ours = self.memory_of(&mut *self.callgate()?, work, calls)?;
            let theirs = self.memory_of(&mut *rtpengine()?, work, calls)?;
            eprintln!("  callgate {ours:.1}, rtpengine {theirs:.1} KB per call");
            pairs.push((ours, theirs));
        }
        let own: Vec<_> = pairs.iter().map(|pair| pair.0).collect();
        let what = format!("memory per call, {name}");
        let said = format!(
            "proportional set size after {calls} calls with traffic, less before, RTCP ports \
             included"
        );
        Ok(vec![
            Figure::absolute(&what, "KB", Bar::AtMost(most_kb), &own).note(said),
            Figure::ratio(what, "KB", Bar::None, "rtpengine", &pairs),
        ])
    }

    fn memory_of(&self, anchor: &mut dyn Anchor, work: Work, calls: u32) -> anyhow::Result<f64> {
        // The first call brings in what all of them share.
        let first = Traffic::open(anchor, &self.speech, work, 100_000..100_001)?;
        first.close(anchor)?;
        let before = Holding::of(anchor.process())?;
        let mut traffic = Traffic::open(anchor, &self.speech, work, 0..calls)?;
        traffic.run(calls, &window(0.5))?;
        let after = Holding::of(anchor.process())?;
        Ok(after.pss.saturating_sub(before.pss) as f64 / 1024.0 / f64::from(calls))
    }

    /// What setting calls up and tearing them down does to calls that stand.
    pub(crate) fn churn(&self, calls: u32, per_second: f64) -> anyhow::Result<Figure> {
        eprintln!("{calls} calls, {per_second} set up and torn down each second");
        let mut ours = self.callgate()?;
        let mut traffic = Traffic::open(&mut *ours, &self.speech, Work::Plain, 0..calls)?;
        traffic.run(calls, &window(1.0))?;
        let (mut pairs, mut windows, mut next) = (Vec::new(), Vec::new(), 1_000_000);
        for _ in 0..self.pairs {
            let quiet = self.window("quiet", &mut traffic, calls)?;
            let (busy, churned) =
                self.churned(&mut *ours, &mut traffic, calls, per_second, next)?;
            next = churned;
            pairs.push((busy.p99_ms - quiet.p99_ms, 1.0));
            windows.extend([quiet, busy]);
        }
        let rises: Vec<_> = pairs.iter().map(|pair| pair.0).collect();
        traffic.close(&mut *ours)?;
        let what = format!(
            "rise of p99 latency of {calls} standing calls while {per_second} calls/s come and go"
        );
        Ok(Figure::absolute(what, "ms", Bar::AtMost(1.0), &rises).windows(windows))
    }

    /// A window while another thread sets calls up and tears them down; and the next number.
    fn churned(
        &self,
        anchor: &mut (dyn Anchor + Send),
        traffic: &mut Traffic<'_>,
        calls: u32,
        per_second: f64,
        mut next: u32,
    ) -> anyhow::Result<(Window, u32)> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let churner = scope.spawn(|| {
                let gap = Duration::from_secs_f64(1.0 / per_second);
                while !is_over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let call = Traffic::open(anchor, &self.speech, Work::Plain, next..next + 1)?;
                    call.close(anchor)?;
                    next += 1;
                    std::thread::sleep(gap.saturating_sub(began.elapsed()));
                }
                anyhow::Ok(next)
            });
            let busy = self.window("churn", traffic, calls);
            is_over.store(true, Ordering::Relaxed);
            let next = churner.join().ok().context("the churning thread has panicked")??;
            Ok((busy?, next))
        })
    }
}

/// The latency of a work that is no queue: what p99 is held against.
fn quiet(
    work: Work,
    bench: &Bench,
    name: &'static str,
    traffic: &mut Traffic<'_>,
) -> anyhow::Result<f64> {
    match work {
        // A codec's frames and a jitter buffer take their time on their own.
        Work::Opus | Work::OpusAlike => Ok(bench.window(name, traffic, 4)?.p99_ms),
        _ => Ok(0.0),
    }
}

/// CPU per packet over that of a peer.
pub(crate) fn cpu_figure(
    what: String,
    bar: Bar,
    peer: &'static str,
    pairs: &[(Window, Window)],
    discarded: usize,
) -> Figure {
    if pairs.is_empty() {
        return Figure::missing(what, bar, "the generator had headroom in no pair of windows");
    }
    let values: Vec<_> = pairs.iter().map(|(ours, theirs)| (ours.cpu_us, theirs.cpu_us)).collect();
    let mut figure = Figure::ratio(what, "us", bar, peer, &values);
    let side = |pick: fn(&(Window, Window)) -> Window| pairs.iter().map(pick).collect::<Vec<_>>();
    for windows in [side(|it| it.0), side(|it| it.1)] {
        let of = |pick: fn(&Window) -> f64| median(&windows.iter().map(pick).collect::<Vec<_>>());
        figure = figure.note(format!(
            "{}: p50 {:.2} ms, p99 {:.2} ms, loss {:.3} %, {} of {} windows healthy",
            windows[0].anchor,
            of(|it| it.p50_ms),
            of(|it| it.p99_ms),
            of(|it| it.loss * 100.0),
            windows.iter().filter(|it| it.is_healthy()).count(),
            windows.len(),
        ));
    }
    if discarded > 0 {
        figure = figure.note(format!("{discarded} pairs thrown away: the generator was late"));
    }
    figure.windows(pairs.iter().flat_map(|pair| [pair.0, pair.1]))
}
