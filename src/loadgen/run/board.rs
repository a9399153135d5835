//! What a run shows while it runs: counts, and a point of each series every second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::limit::LOADGEN_SAMPLES;
use base::{Clock as _, Instant};
use serde::Serialize;
use tokio::sync::watch;

use crate::engine::histogram::Histogram;
use crate::os::OsClock;
use crate::progress::Progress;
use crate::report::{Spread, millis};

/// Seconds that a point stands for at least: what media threads tell comes in steps, which the end
/// of a run would show as a rate that never was.
const SHORTEST: f64 = 0.5;

/// One point of the series of a run: what happened since the point before.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the start, at the end of the interval.
    pub at_s: f64,
    /// Calls per second that were due; more than were begun where the load tester is behind.
    pub offered: f64,
    /// Calls per second begun.
    pub placed: f64,
    /// Calls per second answered.
    pub answered: f64,
    /// Calls per second that failed.
    pub failed: f64,
    /// Calls that talked at the end of the interval.
    pub talking: u32,
    /// The median set-up time, in milliseconds.
    pub setup_p50_ms: Option<f64>,
    /// The 99th percentile.
    pub setup_p99_ms: Option<f64>,
    /// RTP packets per second sent.
    pub sent: f64,
    /// RTP packets per second received.
    pub received: f64,
    /// Share of media ticks that came more than 10 ms late, in percent.
    pub behind_percent: f64,
    /// Datagrams per second that our sockets had no room for.
    pub drops: f64,
    /// The longest that a task of a call waited for its turn, in milliseconds.
    pub signalling_lag_ms: f64,
    /// Cores that this process used.
    pub cores: f64,
    /// The share of its core that the busiest media thread used, in percent.
    pub media_thread_percent: f64,
}

/// Counts since the start.
#[derive(Clone, Debug, Default)]
struct Counts {
    /// Calls that were due.
    offered: u32,
    placed: u32,
    answered: u32,
    failed: u32,
    /// Calls over, and those of them that had been answered.
    over: u32,
    hung_up: u32,
    taken: u32,
    serving: u32,
    /// Set-up times since the last point.
    setup: Histogram,
}

impl Counts {
    const fn talking(&self) -> u32 {
        self.answered.saturating_sub(self.hung_up)
    }

    fn show(&self, progress: &mut Progress) {
        let unanswered = self.over.saturating_sub(self.hung_up);
        progress.placed = self.placed;
        progress.ringing = self.placed.saturating_sub(self.answered + unanswered);
        progress.talking = self.talking();
        progress.answered = self.answered;
        progress.failed = self.failed;
        progress.over = self.over;
        progress.taken = self.taken;
        progress.serving = self.serving;
    }
}

/// What the media threads and the system said at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) ticks: u64,
    pub(super) behind: u64,
    pub(super) drops: u64,
    pub(super) process: Duration,
    /// CPU time of each media thread.
    pub(super) threads: Vec<Duration>,
}

#[derive(Default)]
struct State {
    counts: Counts,
    last: (Counts, Reading, Duration),
    samples: Vec<Sample>,
    /// Points that make one, once there were too many.
    merged: u32,
    pending: Vec<Sample>,
    /// How late tasks were, since the start, and the worst since the last point.
    lag: Histogram,
    lag_max: Duration,
}

/// See the module.
pub(crate) struct Board {
    started: Instant,
    progress: watch::Sender<Progress>,
    state: Mutex<State>,
}

impl Board {
    pub(super) fn new(started: Instant, progress: watch::Sender<Progress>) -> Self {
        let state = State { merged: 1, ..State::default() };
        Self { started, progress, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step, so that a panic elsewhere leaves nothing torn.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut state = self.state();
        change(&mut state.counts);
        self.progress.send_modify(|progress| state.counts.show(progress));
    }

    /// A call began.
    pub(super) fn placed(&self) {
        self.count(|it| it.placed += 1);
    }

    /// A call arrived.
    pub(super) fn taken(&self) {
        self.count(|it| it.taken += 1);
    }

    /// A call was answered.
    pub(super) fn answered(&self, is_caller: bool, setup: Duration) {
        self.count(|it| {
            if is_caller {
                it.answered += 1;
                it.setup.add(setup);
            } else {
                it.serving += 1;
            }
        });
    }

    /// A call of ours is over.
    pub(super) fn over(&self, is_caller: bool, was_answered: bool, has_failed: bool) {
        self.count(|it| {
            if is_caller {
                it.over += 1;
                it.hung_up += u32::from(was_answered);
                it.failed += u32::from(has_failed);
            } else {
                it.serving = it.serving.saturating_sub(u32::from(was_answered));
            }
        });
    }

    /// Takes a point; `due` calls were due until now.
    pub(super) fn sample(&self, reading: Reading, due: u32) {
        let elapsed = OsClock.now().since(self.started);
        let mut state = self.state();
        state.counts.offered = due;
        let (before, was, at) = std::mem::take(&mut state.last);
        let seconds = elapsed.saturating_sub(at).as_secs_f64().max(SHORTEST);
        let rate = |now: u32, then: u32| f64::from(now.saturating_sub(then)) / seconds;
        let packets = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        let setup = std::mem::take(&mut state.counts.setup).spread();
        let counts = state.counts.clone();
        let ticks = reading.ticks.saturating_sub(was.ticks);
        let behind = reading.behind.saturating_sub(was.behind);
        let busiest = reading
            .threads
            .iter()
            .enumerate()
            .map(|(index, now)| {
                let then = was.threads.get(index).copied().unwrap_or_default();
                now.saturating_sub(then).as_secs_f64() / seconds
            })
            .fold(0.0, f64::max);
        let sample = Sample {
            at_s: elapsed.as_secs_f64(),
            offered: rate(counts.offered, before.offered),
            placed: rate(counts.placed, before.placed),
            answered: rate(counts.answered, before.answered),
            failed: rate(counts.failed, before.failed),
            talking: counts.talking(),
            setup_p50_ms: setup.map(|it| it.p50),
            setup_p99_ms: setup.map(|it| it.p99),
            sent: packets(reading.sent, was.sent),
            received: packets(reading.received, was.received),
            behind_percent: if ticks == 0 { 0.0 } else { behind as f64 * 100.0 / ticks as f64 },
            drops: packets(reading.drops, was.drops),
            signalling_lag_ms: millis(std::mem::take(&mut state.lag_max)),
            cores: reading.process.saturating_sub(was.process).as_secs_f64() / seconds,
            media_thread_percent: busiest * 100.0,
        };
        self.progress.send_modify(|progress| {
            counts.show(progress);
            progress.elapsed = elapsed;
            progress.setup_p50_ms = sample.setup_p50_ms;
            progress.packets_per_second = sample.sent + sample.received;
            progress.is_behind = reading.behind > 0 || reading.drops > 0;
        });
        state.last = (counts, reading, elapsed);
        state.push(sample);
    }

    /// A task was so late.
    pub(super) fn lag(&self, late: Duration) {
        let mut state = self.state();
        state.lag.add(late);
        state.lag_max = state.lag_max.max(late);
    }

    /// How late tasks were.
    pub(super) fn signalling_lag(&self) -> Option<Spread> {
        self.state().lag.spread()
    }

    /// The series.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut state = self.state();
        state.flush();
        state.samples.clone()
    }
}

impl State {
    fn push(&mut self, sample: Sample) {
        self.pending.push(sample);
        if self.pending.len() >= self.merged as usize {
            self.flush();
        }
        if self.samples.len() > LOADGEN_SAMPLES.get() {
            let all = std::mem::take(&mut self.samples);
            self.samples = all.chunks(2).map(mean).collect();
            self.merged = self.merged.saturating_mul(2);
        }
    }

    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.samples.push(mean(&self.pending));
            self.pending.clear();
        }
    }
}

/// Points as one: rates are averaged, the worst of what should be small is kept.
fn mean(points: &[Sample]) -> Sample {
    let count = points.len().max(1) as f64;
    let rate = |of: fn(&Sample) -> f64| points.iter().map(of).sum::<f64>() / count;
    let worst = |of: fn(&Sample) -> f64| points.iter().map(of).fold(0.0, f64::max);
    let most = |of: fn(&Sample) -> Option<f64>| points.iter().filter_map(of).reduce(f64::max);
    let last = points.last().cloned().unwrap_or_default();
    Sample {
        offered: rate(|it| it.offered),
        placed: rate(|it| it.placed),
        answered: rate(|it| it.answered),
        failed: rate(|it| it.failed),
        setup_p50_ms: most(|it| it.setup_p50_ms),
        setup_p99_ms: most(|it| it.setup_p99_ms),
        sent: rate(|it| it.sent),
        received: rate(|it| it.received),
        behind_percent: worst(|it| it.behind_percent),
        drops: worst(|it| it.drops),
        signalling_lag_ms: worst(|it| it.signalling_lag_ms),
        cores: rate(|it| it.cores),
        media_thread_percent: worst(|it| it.media_thread_percent),
        ..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new(OsClock.now(), watch::Sender::new(Progress::default()))
    }

    #[test]
    fn counts_become_rates_of_the_interval() {
        let board = board();
        board.placed();
        board.answered(true, Duration::from_millis(8));
        board.over(true, true, false);
        board.over(true, false, true);
        board.sample(Reading { ticks: 100, behind: 1, ..Reading::default() }, 3);
        board.sample(Reading { ticks: 200, behind: 1, ..Reading::default() }, 3);
        let samples = board.samples();
        assert!(samples[0].offered > 0.0 && samples[0].failed > 0.0);
        assert_eq!((samples[0].talking, samples[0].setup_p50_ms), (0, Some(8.0)));
        assert_eq!((samples[0].behind_percent, samples[1].behind_percent), (1.0, 0.0));
        assert_eq!((samples[1].offered, samples[1].setup_p50_ms), (0.0, None));
    }

    #[test]
    fn the_lag_of_the_run_has_its_tail_and_each_sample_its_worst() {
        let board = board();
        assert_eq!(board.signalling_lag(), None);
        (0..98).for_each(|_| board.lag(Duration::from_millis(1)));
        board.sample(Reading::default(), 0);
        (0..2).for_each(|_| board.lag(Duration::from_millis(20)));
        board.sample(Reading::default(), 0);
        let lag = board.signalling_lag().unwrap();
        assert!(lag.p50 < 1.5 && lag.p99 > 18.0, "{lag:?}");
        let worst: Vec<f64> = board.samples().iter().map(|it| it.signalling_lag_ms).collect();
        assert_eq!(worst, [1.0, 20.0]);
    }

    #[test]
    fn a_long_series_gets_coarser_and_keeps_its_worst() {
        let mut state = State { merged: 1, ..State::default() };
        let count = LOADGEN_SAMPLES.get() * 3;
        for index in 0..count {
            let behind_percent = f64::from(u8::from(index == 77));
            let at_s = index as f64;
            state.push(Sample { at_s, placed: 5.0, behind_percent, ..Sample::default() });
        }
        assert!(state.samples.len() <= LOADGEN_SAMPLES.get() + 1);
        assert!(state.samples.iter().all(|it| it.placed == 5.0));
        assert_eq!(state.samples.iter().filter(|it| it.behind_percent == 1.0).count(), 1);
        assert!(state.samples.is_sorted_by(|one, other| one.at_s < other.at_s));
    }
}
