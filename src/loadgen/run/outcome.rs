//! What a run amounted to: sums, judgements, and the report of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::board::Sample;
use super::driver::is_of_actor;
use super::leg::LegEnd;
use super::{ACTOR_TOKENS, TOKENS_PER_ACTOR};
use crate::cause::Causes;
use crate::config::Transport;
use crate::engine::Totals;
use crate::report::{self, CallOutcome, Report, Spread, Tally, millis};
use crate::scenario::{ActorKind, Expectation, Measure, Scenario};

/// The name and version of the document.
const SCHEMA: &str = "callgate-load/1";
/// Late ticks in a thousand from which on the figures measure the load tester.
const BEHIND_MAX: f64 = 1.0;
/// Late starts in a hundred.
const LATE_MAX: f64 = 1.0;
/// Milliseconds that tasks wait for their turn, 99th percentile, from which on set-up times measure
/// the load tester.
const LAG_MAX: f64 = 10.0;
/// Share of its core from which on a media thread has no room left.
const THREAD_MAX: f64 = 95.0;

/// What a run is about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScenarioSummary {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its random choices follow from.
    pub seed: u64,
}

/// Calls of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KindTotals {
    /// `caller` or `callee`.
    pub role: &'static str,
    /// Its name.
    pub name: String,
    /// How many.
    pub calls: u32,
    /// How many were answered.
    pub answered: u32,
    /// How many ended unanswered as they were meant to: cancelled, refused, left ringing.
    pub planned: u32,
    /// How many failed.
    pub failed: u32,
}

/// What the way through the edge did to media: of calls whose two ends are both here.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Through {
    /// Calls whose ends found each other and were answered.
    pub paired: u32,
    /// Stamped packets that came through, both ways.
    pub packets: u64,
    /// Stamped packets that did not come.
    pub lost: u64,
    /// Packets that came a second time.
    pub replayed: u64,
    /// Packets of strangers or of other calls that came.
    pub injected: u64,
    /// Packets that came without a stamp: transcoded on the way.
    pub unstamped: u64,
    /// Packets sent before the first that came, on average for each end: what is cut off at the
    /// beginning.
    pub clipped_per_end: f64,
    /// The way from one end to the other, in milliseconds; it includes our own sending and
    /// receiving, and is no finer than half a millisecond under load.
    pub delay_ms: Option<Spread>,
    /// The longest time without a packet, by end, in milliseconds.
    pub gap_ms: Option<Spread>,
    /// Calls whose one end told a cause with its goodbye, and whose other end heard a goodbye.
    pub causes_told: u32,
    /// Those of them in which that was the same cause.
    pub causes_kept: u32,
}

/// What a bad actor achieved.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActorReport {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: ActorKind,
    /// How often it tried: calls, messages, connections.
    pub attempts: u64,
    /// What came of it, and how often.
    pub outcomes: BTreeMap<String, u64>,
    /// Attempts that got through.
    pub got_through: u64,
    /// Packets that it sent to media ports.
    pub packets: u64,
    /// Its packets that reached a caller or callee.
    pub injected: u64,
    /// Packets that it had come a second time.
    pub replayed: u64,
    /// Packets that came to it.
    pub to_strangers: u64,
    /// Whether the edge withstood it.
    pub has_passed: bool,
    /// Why, in words.
    pub verdict: String,
}

/// An expectation and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// What was expected.
    pub expectation: Expectation,
    /// What was found; `None` where nothing was measured.
    pub found: Option<f64>,
    /// Whether it is as expected.
    pub holds: bool,
}

/// What a run says of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every expectation holds, and every bad actor was withstood.
    Passed,
    /// Not so, and the load tester has no part in it.
    Failed,
    /// Expectations do not hold, but the load tester did not keep up: it may be the cause.
    NotJudged,
}

/// How the load tester itself fared.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OwnLoad {
    /// Calls begun more than 10 ms after their turn.
    pub late_starts: u64,
    /// The latest of them, in milliseconds.
    pub latest_start_ms: f64,
    /// Ticks of media.
    pub ticks: u64,
    /// Those that came more than 10 ms late.
    pub behind: u64,
    /// Those that came so late that their packet was not sent at all.
    pub skipped: u64,
    /// The latest of them, in milliseconds.
    pub worst_ms: f64,
    /// Datagrams that our sockets had no room for.
    pub receive_drops: u64,
    /// How long tasks of calls waited for their turn, in milliseconds: what our own signalling adds
    /// to set-up times at most.
    pub signalling_lag_ms: Option<Spread>,
    /// Cores that this process used, on average.
    pub cores: f64,
    /// The share of its core that each media thread used, on average, in percent.
    pub media_threads_percent: Vec<f64>,
    /// How busy each core of the machine was, with everything on it, in percent.
    pub machine_percent: Vec<f64>,
}

/// What a run amounted to. The names are stable within a version of [`RunReport::schema`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunReport {
    /// `callgate-load/1`.
    pub schema: &'static str,
    /// What was run.
    pub scenario: ScenarioSummary,
    /// Who was called.
    pub target: Option<String>,
    /// Where callees listened.
    pub listen: Option<String>,
    /// When it began, RFC 3339.
    pub started_at: String,
    /// How long it took.
    pub elapsed_ms: u64,
    /// Whether it was cut short: cancelled, or stopped by its limit of time.
    pub is_cut_short: bool,
    /// Whether the figures are the edge's: the load tester kept up.
    pub is_valid: bool,
    /// Why they are not.
    pub invalid_because: Vec<String>,
    /// What it says of the edge.
    pub verdict: Verdict,
    /// Whether every expectation holds and every bad actor was withstood.
    pub has_passed: bool,
    /// What was expected.
    pub expectations: Vec<Judged>,
    /// The callers' ends.
    pub callers: Option<Report>,
    /// The callees' ends.
    pub callees: Option<Report>,
    /// Calls by kind.
    pub kinds: Vec<KindTotals>,
    /// The way through the edge.
    pub through: Option<Through>,
    /// Bad actors.
    pub actors: Vec<ActorReport>,
    /// How the load tester itself fared.
    pub own: OwnLoad,
    /// What happened when.
    pub series: Vec<Sample>,
}

/// What the report says of the run as a whole.
pub(super) struct Frame {
    pub(super) wall: String,
    pub(super) elapsed: Duration,
    pub(super) listens: Option<String>,
    /// CPU time of this process.
    pub(super) process: Duration,
}

/// Sums over one side.
#[derive(Default)]
struct Side {
    tally: Tally,
    calls: u32,
    planned: u32,
    kinds: BTreeMap<usize, KindTotals>,
    /// Numbers of the calls that were answered.
    answered: BTreeSet<u32>,
}

/// Everything that came of a run, as it comes.
#[derive(Default)]
pub(super) struct Driven {
    callers: Side,
    callees: Side,
    through: Through,
    causes: Causes,
    ends: u64,
    clipped: u64,
    gaps: Vec<f64>,
    /// What bad actors' calls saw, by actor.
    attacked: BTreeMap<usize, Attacked>,
    pub(super) actors: Vec<ActorReport>,
    pub(super) is_cut_short: bool,
    pub(super) latest: Duration,
    pub(super) drops: u64,
    pub(super) threads: Vec<Duration>,
    pub(super) cores: Vec<f64>,
}

/// What the callees of a bad actor's calls saw.
#[derive(Clone, Copy, Default)]
struct Attacked {
    injected: u64,
    replayed: u64,
    is_watched: bool,
}

impl Driven {
    /// Counts one end of a call that is over.
    pub(super) fn add(&mut self, end: LegEnd, is_caller: bool) {
        let is_answered = end.report.outcome == CallOutcome::Answered;
        if is_of_actor(end.token) {
            let actor = ((end.token - ACTOR_TOKENS) / TOKENS_PER_ACTOR) as usize;
            let found = self.attacked.entry(actor).or_default();
            if let Some(seen) = &end.media.seen {
                found.injected += seen.strange;
                found.replayed += seen.again;
                found.is_watched |= seen.unique > 0;
            }
            return;
        }
        if let Some(farewell) = end.report.farewell {
            self.causes.add(end.token, farewell);
        }
        let side = if is_caller { &mut self.callers } else { &mut self.callees };
        side.calls += 1;
        // Whom the other end left waiting has not failed.
        let is_left = end.report.outcome == CallOutcome::Cancelled;
        let is_planned = !is_answered && (end.is_planned || is_left);
        side.planned += u32::from(is_planned);
        let kind = side.kinds.entry(end.kind).or_default();
        kind.calls += 1;
        kind.answered += u32::from(is_answered);
        kind.planned += u32::from(is_planned);
        kind.failed += u32::from(!is_answered && !is_planned);
        if is_answered {
            side.answered.insert(end.token);
            if end.media.first_packet.is_some() {
                self.gaps.push(millis(end.media.gap_max));
            }
        }
        if let Some(seen) = end.media.seen.as_ref().filter(|seen| seen.unique > 0) {
            self.ends += 1;
            self.clipped += u64::from(seen.clipped());
            self.through.packets += seen.unique;
            self.through.lost += seen.lost();
            self.through.replayed += seen.again;
            self.through.injected += seen.strange;
            self.through.unstamped += seen.unstamped;
        }
        // What is meant to fail is no failure of the edge: it stands among the kinds.
        let mut report = end.report;
        if is_planned && report.outcome == CallOutcome::Failed {
            report.outcome = CallOutcome::Cancelled;
        }
        side.tally.add(report);
    }

    /// The callers' side alone, of a load of calls of one kind.
    pub(super) fn load_report(self, scenario: &Scenario, frame: Frame) -> Report {
        let called = scenario.outward.as_ref().map(|it| &it.to);
        self.callers.tally.finish(report::Frame {
            target: called.map(|it| it.text.clone()).unwrap_or_default(),
            transport: called.map_or(Transport::Tls, |it| it.target.transport),
            started_at: frame.wall,
            elapsed: frame.elapsed,
            is_cut_short: self.is_cut_short,
            planned: scenario.planned(),
        })
    }

    /// The report.
    pub(super) fn report(
        mut self,
        scenario: &Scenario,
        series: (Vec<Sample>, Option<Spread>),
        totals: Totals,
        frame: Frame,
    ) -> RunReport {
        let target = scenario.outward.as_ref().map(|it| it.to.text.clone());
        let own = self.own(&totals, &frame, series.1);
        let through = self.through(&totals);
        let actors = self.judge_actors(scenario);
        let kinds = kinds(scenario, &self.callers, &self.callees);
        let transport = scenario.outward.as_ref().map(|it| it.to.target.transport);
        let planned = (self.callers.planned, self.callers.calls);
        let part = |side: Side, target: String, transport: Option<Transport>| {
            let wanted = side.calls;
            (wanted > 0).then(|| {
                side.tally.finish(report::Frame {
                    target,
                    transport: transport.unwrap_or(Transport::Tls),
                    started_at: frame.wall.clone(),
                    elapsed: frame.elapsed,
                    is_cut_short: self.is_cut_short,
                    planned: wanted,
                })
            })
        };
        let callers = part(self.callers, target.clone().unwrap_or_default(), transport);
        let transport = scenario.callee.as_ref().map(|it| it.transport);
        let callees = part(self.callees, frame.listens.clone().unwrap_or_default(), transport);
        let invalid_because = own.faults(planned.1);
        let mut report = RunReport {
            schema: SCHEMA,
            scenario: ScenarioSummary {
                name: scenario.name.clone(),
                description: scenario.description.clone(),
                seed: scenario.seed,
            },
            target,
            listen: frame.listens,
            started_at: frame.wall,
            elapsed_ms: u64::try_from(frame.elapsed.as_millis()).unwrap_or(u64::MAX),
            is_cut_short: self.is_cut_short,
            is_valid: invalid_because.is_empty(),
            invalid_because,
            verdict: Verdict::Passed,
            has_passed: true,
            expectations: Vec::new(),
            callers,
            callees,
            kinds,
            through,
            actors,
            own,
            series: series.0,
        };
        report.expectations = scenario
            .expectations
            .iter()
            .map(|expectation| {
                let found = report.measure(expectation.measure, planned);
                let holds = found.is_some_and(|found| expectation.holds(found));
                Judged { expectation: *expectation, found, holds }
            })
            .collect();
        report.judge();
        report
    }

    fn own(&self, totals: &Totals, frame: &Frame, lag: Option<Spread>) -> OwnLoad {
        let seconds = frame.elapsed.as_secs_f64().max(1e-3);
        let threads = self.threads.iter().map(|it| it.as_secs_f64() * 100.0 / seconds);
        OwnLoad {
            late_starts: self.callers.tally.late_starts(),
            latest_start_ms: millis(self.latest),
            ticks: totals.ticks,
            behind: totals.behind,
            skipped: totals.skipped,
            worst_ms: millis(totals.worst),
            receive_drops: self.drops,
            signalling_lag_ms: lag,
            cores: frame.process.as_secs_f64() / seconds,
            media_threads_percent: threads.collect(),
            machine_percent: self.cores.clone(),
        }
    }

    fn through(&mut self, totals: &Totals) -> Option<Through> {
        let mut through = std::mem::take(&mut self.through);
        let both = self.callers.answered.intersection(&self.callees.answered);
        through.paired = u32::try_from(both.count()).unwrap_or(u32::MAX);
        through.delay_ms = totals.delay.spread();
        through.gap_ms = Spread::of(std::mem::take(&mut self.gaps));
        through.clipped_per_end = self.clipped as f64 / self.ends.max(1) as f64;
        (through.causes_told, through.causes_kept) = (self.causes.told, self.causes.kept);
        let is_there = self.ends > 0 || through.gap_ms.is_some() || through.causes_told > 0;
        is_there.then_some(through)
    }

    fn judge_actors(&mut self, scenario: &Scenario) -> Vec<ActorReport> {
        let mut actors = std::mem::take(&mut self.actors);
        for report in &mut actors {
            let index = scenario.actors.iter().position(|actor| actor.name == report.name);
            let Some(index) = index else { continue };
            let seen = self.attacked.get(&index).copied().unwrap_or_default();
            report.injected += seen.injected;
            report.replayed += seen.replayed;
            report.judge(&scenario.actors[index].allow, seen.is_watched);
        }
        actors.sort_by_key(|it| scenario.actors.iter().position(|actor| actor.name == it.name));
        actors
    }
}

fn kinds(scenario: &Scenario, callers: &Side, callees: &Side) -> Vec<KindTotals> {
    let caller = |index: usize| scenario.callers.get(index).map(|kind| kind.name.clone());
    let callee = |index: usize| {
        scenario.callee.as_ref().and_then(|it| it.kinds.get(index)).map(|kind| kind.name.clone())
    };
    let of = |side: &Side, role: &'static str, name: &dyn Fn(usize) -> Option<String>| {
        let kinds = side.kinds.iter();
        let named = kinds.map(|(index, kind)| KindTotals {
            role,
            name: name(*index).unwrap_or_default(),
            ..kind.clone()
        });
        named.collect::<Vec<_>>()
    };
    let mut all = of(callers, "caller", &caller);
    all.extend(of(callees, "callee", &callee));
    all
}

impl ActorReport {
    /// Whether the edge withstood it. `is_watched` tells whether the other end of its calls was
    /// here, so that injected packets would have shown.
    fn judge(&mut self, allow: &[String], is_watched: bool) {
        let strange = self.outcomes.keys().find(|outcome| {
            !allow.is_empty() && !allow.iter().any(|it| outcome.starts_with(it.as_str()))
        });
        let is_media = matches!(self.kind, ActorKind::StrangerRtp | ActorKind::SrtpReplay);
        let fault = if self.attempts == 0 {
            Some("it did nothing: no call was there to attack".to_owned())
        } else if self.got_through > 0 {
            Some(format!("{} of {} attempts got through", self.got_through, self.attempts))
        } else if self.injected > 0 {
            Some(format!("{} strange packets reached the other end", self.injected))
        } else if self.replayed > 0 {
            Some(format!("{} packets reached the other end twice", self.replayed))
        } else if self.to_strangers > 0 {
            Some(format!("{} packets were sent to a stranger", self.to_strangers))
        } else {
            strange.map(|outcome| format!("`{outcome}` is not among the outcomes allowed"))
        };
        self.has_passed = fault.is_none();
        self.verdict = fault.unwrap_or_else(|| match (is_media, is_watched) {
            (true, true) => "nothing injected, nothing sent to a stranger".to_owned(),
            (true, false) => "nothing sent to a stranger; nobody watched the other end".to_owned(),
            (false, _) => "nothing got through".to_owned(),
        });
    }
}

impl OwnLoad {
    /// Why figures would be the load tester's own.
    fn faults(&self, calls: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let share = |part: u64, all: u64| part as f64 / all.max(1) as f64;
        if share(self.behind, self.ticks) * 1000.0 > BEHIND_MAX {
            let percent = share(self.behind, self.ticks) * 100.0;
            faults.push(format!("{percent:.2} % of media ticks were more than 10 ms late"));
        }
        if share(self.late_starts, calls.into()) * 100.0 > LATE_MAX {
            let late = self.late_starts;
            faults.push(format!(
                "{late} of {calls} calls began more than 10 ms late: for want of time, or of room \
                 (limits.concurrency)"
            ));
        }
        if let Some(lag) = self.signalling_lag_ms.filter(|it| it.p99 > LAG_MAX) {
            faults.push(format!(
                "signalling waited for its turn, {:.1} ms and more in one case of a hundred",
                lag.p99
            ));
        }
        if self.receive_drops > 0 {
            faults.push(format!("our sockets dropped {} datagrams", self.receive_drops));
        }
        if self.media_threads_percent.iter().any(|share| *share > THREAD_MAX) {
            faults.push("a media thread used all of its core".to_owned());
        }
        faults
    }

    /// The longest time for which the load tester did nothing, in milliseconds.
    fn stood_still_ms(&self) -> f64 {
        self.worst_ms.max(self.signalling_lag_ms.map_or(0.0, |it| it.max))
    }
}

impl RunReport {
    /// One pause of ours is a longest time, be it one of a million: what would hold without it is
    /// not the edge's fault.
    fn own_the_longest(&mut self) {
        let still = self.own.stood_still_ms();
        let ours = self.expectations.iter().filter(|it| {
            let without = it.found.map(|found| (found - still).max(0.0));
            !it.holds
                && still > LAG_MAX
                && self.is_longest(it.expectation.measure)
                && without.is_some_and(|rest| it.expectation.holds(rest))
        });
        let ours: Vec<String> = ours.map(|it| it.expectation.to_string()).collect();
        if !ours.is_empty() {
            self.is_valid = false;
            self.invalid_because.push(format!(
                "it stood still for {still:.0} ms once, which is what `{}` may have met",
                ours.join("`, `")
            ));
        }
    }

    /// Whether a figure is the longest time of all: of fewer than a hundred, so is the 99th
    /// percentile.
    fn is_longest(&self, measure: Measure) -> bool {
        let of = |spread: fn(&Report) -> Option<Spread>| self.callers.as_ref().and_then(spread);
        let is_one_of = |spread: Option<Spread>, few: u64| spread.is_some_and(|it| it.count < few);
        match measure {
            Measure::SetupMax | Measure::DelayMax | Measure::GapMax => true,
            Measure::SetupP99 => is_one_of(of(|it| it.setup_ms), 100),
            Measure::FirstPacketP99 => is_one_of(of(|it| it.first_audio_ms), 100),
            Measure::JitterP99 => is_one_of(of(|it| it.jitter_ms), 100),
            Measure::SetupP95 => is_one_of(of(|it| it.setup_ms), 20),
            Measure::SecuredP95 => is_one_of(of(|it| it.secured_ms), 20),
            _ => false,
        }
    }

    /// What the run comes to.
    fn judge(&mut self) {
        self.own_the_longest();
        self.has_passed = self.expectations.iter().all(|it| it.holds)
            && self.actors.iter().all(|it| it.has_passed);
        self.verdict = self.verdict();
    }

    /// What it says of the edge. A load tester that is late spoils times and counts; it lets no bad
    /// actor in.
    fn verdict(&self) -> Verdict {
        let is_broken = |it: &&Judged| !it.holds && it.expectation.measure.is_security();
        match self.has_passed {
            true => Verdict::Passed,
            false
                if self.is_valid
                    || self.actors.iter().any(|it| !it.has_passed)
                    || self.expectations.iter().any(|it| is_broken(&it)) =>
            {
                Verdict::Failed
            }
            false => Verdict::NotJudged,
        }
    }

    /// One figure; `None` where nothing was measured.
    fn measure(&self, measure: Measure, (planned, calls): (u32, u32)) -> Option<f64> {
        let callers = self.callers.as_ref();
        let percent = |part: u64, all: u64| (all > 0).then(|| part as f64 * 100.0 / all as f64);
        let sum = |of: fn(&ActorReport) -> u64| self.actors.iter().map(of).sum::<u64>();
        let spread = |of: fn(&Report) -> Option<Spread>| callers.and_then(of);
        let through = self.through.as_ref();
        let delay = through.and_then(|it| it.delay_ms);
        let answered = callers.map_or(0, |it| it.answered);
        match measure {
            Measure::Answered => percent(answered.into(), u64::from(calls - planned.min(calls))),
            Measure::Failed => callers.map(|it| it.failed.into()),
            Measure::SetupP50 => spread(|it| it.setup_ms).map(|it| it.p50),
            Measure::SecuredP95 => spread(|it| it.secured_ms).map(|it| it.p95),
            Measure::SetupP95 => spread(|it| it.setup_ms).map(|it| it.p95),
            Measure::SetupP99 => spread(|it| it.setup_ms).map(|it| it.p99),
            Measure::SetupMax => spread(|it| it.setup_ms).map(|it| it.max),
            Measure::FirstPacketP99 => spread(|it| it.first_audio_ms).map(|it| it.p99),
            Measure::JitterP99 => spread(|it| it.jitter_ms).map(|it| it.p99),
            Measure::Loss => {
                let ends = [callers, self.callees.as_ref()].into_iter().flatten();
                let (lost, came) = ends.fold((0, 0), |(lost, came), it| {
                    (lost + it.media.packets_lost, came + it.media.packets_received)
                });
                percent(lost, lost + came)
            }
            Measure::Rejected => callers.map(|it| it.media.packets_rejected as f64),
            Measure::DelayP50 => delay.map(|it| it.p50),
            Measure::DelayP99 => delay.map(|it| it.p99),
            Measure::DelayMax => delay.map(|it| it.max),
            Measure::ThroughLoss => through.and_then(|it| percent(it.lost, it.lost + it.packets)),
            Measure::GapMax => through.and_then(|it| it.gap_ms).map(|it| it.max),
            Measure::CausesKept => {
                through.and_then(|it| percent(it.causes_kept.into(), it.causes_told.into()))
            }
            Measure::Paired => through.and_then(|it| percent(it.paired.into(), answered.into())),
            Measure::Injected => {
                Some((through.map_or(0, |it| it.injected) + sum(|it| it.injected)) as f64)
            }
            Measure::Replayed => {
                Some((through.map_or(0, |it| it.replayed) + sum(|it| it.replayed)) as f64)
            }
            Measure::ToStrangers => Some(sum(|it| it.to_strangers) as f64),
            Measure::GotThrough => Some(sum(|it| it.got_through) as f64),
            Measure::LateStarts => percent(self.own.late_starts, calls.into()),
        }
    }
}

fn row(f: &mut fmt::Formatter<'_>, title: &str, spread: Option<Spread>) -> fmt::Result {
    let Some(Spread { p50, p95, p99, max, .. }) = spread else { return Ok(()) };
    writeln!(f, "{title:<21}{p50:>9.2}{p95:>9.2}{p99:>9.2}{max:>9.2}")
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "scenario {}: {}", self.scenario.name, self.scenario.description)?;
        for (title, part) in [("callers", &self.callers), ("callees", &self.callees)] {
            if let Some(report) = part {
                writeln!(f, "\n{title}: {report}")?;
            }
        }
        writeln!(f, "\nkinds")?;
        for kind in &self.kinds {
            writeln!(
                f,
                "  {} {:<18}{:>6} calls, {} answered, {} ended as planned, {} failed",
                kind.role, kind.name, kind.calls, kind.answered, kind.planned, kind.failed
            )?;
        }
        if let Some(through) = &self.through {
            writeln!(
                f,
                "\nthrough    {} pairs; {} packets came, {} lost, {} replayed, {} injected, \
                 {} unstamped; {:.1} packets cut off at the beginning of each end",
                through.paired,
                through.packets,
                through.lost,
                through.replayed,
                through.injected,
                through.unstamped,
                through.clipped_per_end
            )?;
            if through.causes_told > 0 {
                let Through { causes_told, causes_kept, .. } = through;
                writeln!(f, "causes     {causes_told} told, {causes_kept} of them came through")?;
            }
            row(f, "one way, ms", through.delay_ms)?;
            row(f, "longest gap, ms", through.gap_ms)?;
        }
        for actor in &self.actors {
            let mark = if actor.has_passed { "withstood" } else { "FAILED" };
            writeln!(f, "\n{mark:<10} {}: {}", actor.name, actor.verdict)?;
            for (outcome, count) in &actor.outcomes {
                writeln!(f, "  {count:>8}  {outcome}")?;
            }
        }
        self.write_own(f)?;
        for judged in &self.expectations {
            let mark = if judged.holds { "holds" } else { "FAILED" };
            let unit = judged.expectation.measure.unit();
            match judged.found {
                Some(found) => {
                    writeln!(f, "{mark:<10} {}: {found:.3} {unit}", judged.expectation)?;
                }
                None => writeln!(f, "{mark:<10} {}: nothing was measured", judged.expectation)?,
            }
        }
        let verdict = match self.verdict {
            Verdict::Passed => "passed",
            Verdict::Failed => "FAILED",
            Verdict::NotJudged => "NOT JUDGED: what failed may be the load tester's own doing",
        };
        write!(f, "{verdict}")?;
        if !self.is_valid {
            let why = self.invalid_because.join("; ");
            write!(f, "\nNOT VALID: the load tester did not keep up: {why}")?;
        }
        Ok(())
    }
}

impl RunReport {
    fn write_own(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = &self.own;
        writeln!(
            f,
            "\nown load   {} of {} ticks more than 10 ms late (worst {:.1} ms), {} skipped, {} \
             datagrams dropped",
            own.behind, own.ticks, own.worst_ms, own.skipped, own.receive_drops
        )?;
        let threads: Vec<String> =
            own.media_threads_percent.iter().map(|it| format!("{it:.0} %")).collect();
        let cores: Vec<String> =
            own.machine_percent.iter().map(|it| format!("{it:.0} %")).collect();
        writeln!(
            f,
            "           {} calls begun late (worst {:.1} ms); signalling up to {:.1} ms late; \
             {:.2} cores, media threads {}; machine {}",
            own.late_starts,
            own.latest_start_ms,
            own.signalling_lag_ms.map_or(0.0, |it| it.max),
            own.cores,
            threads.join(" "),
            cores.join(" ")
        )
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
