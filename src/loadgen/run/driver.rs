//! What is due in a run: new calls, arrivals, bad actors, points of the series, the end.

use std::sync::Arc;
use std::time::Duration;

use base::limit::LOADGEN_QUEUE;
use base::{Clock as _, Instant, SeededRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::MissedTickBehavior;

use super::board::Reading;
use super::leg::{self, LegEnd};
use super::outcome::{ActorReport, Driven};
use super::own::Own;
use super::{ACTOR_TOKENS, Shared, actors, token_of};
use crate::engine::stamp::Role;
use crate::line::Arrival;
use crate::load::Cancellation;
use crate::os::{OsClock, wake_at};
use crate::report::{CallOutcome, CallReport};
use crate::scenario::{Stage, choose};

/// A call begun later than this after its turn is counted.
const LATE_START: Duration = Duration::from_millis(10);
/// Time between two points.
const SAMPLE: Duration = Duration::from_secs(1);
/// Time between two looks at how late tasks are.
const PROBE: Duration = Duration::from_millis(20);
/// How long calls may take to hang up once the run is to end.
const FAREWELL: Duration = Duration::from_secs(15);
/// How long callees are waited for once nobody calls any more.
const LAST_GUESTS: Duration = Duration::from_secs(5);

/// What comes back from the tasks of a run.
pub(super) enum Done {
    /// One end of a call is over.
    Leg(Box<LegEnd>),
    /// A call that arrived could not be taken.
    Refused,
    /// A bad actor is done.
    Actor(Box<ActorReport>),
}

/// When calls are due.
struct Schedule<'a> {
    stages: &'a [Stage],
    stage: usize,
    /// Calls of the stage so far.
    count: f64,
    /// When the stage began.
    begun: Duration,
    left: u32,
}

impl<'a> Schedule<'a> {
    const fn new(stages: &'a [Stage], left: u32) -> Self {
        Self { stages, stage: 0, count: 0.0, begun: Duration::ZERO, left }
    }

    /// When the next call is due, since the start.
    fn peek(&mut self) -> Option<Duration> {
        while let Some(stage) = self.stages.get(self.stage) {
            // A little less than whole calls, so that 10 s at 1 per second are ten calls.
            if self.left > 0 && self.count + 1e-6 < stage.calls() {
                return Some(self.begun + stage.arrival(self.count));
            }
            // What is left of a call is the beginning of the next stage's first.
            self.count = (self.count - stage.calls()).clamp(0.0, 1.0);
            self.begun += stage.time;
            self.stage += 1;
        }
        None
    }

    fn next(&mut self) {
        self.count += 1.0;
        self.left -= 1;
    }
}

/// The loop's own things.
struct Driver<'a> {
    shared: &'a Arc<Shared>,
    cancellation: &'a Cancellation,
    done: mpsc::Sender<Done>,
    room: Arc<Semaphore>,
    random: SeededRandom,
    placed: u32,
    callers: u32,
    callees: u32,
    actors: u32,
    arrived: u32,
    is_stopping: bool,
    /// Calls that were due when a point was last taken.
    due: u32,
    driven: Driven,
}

/// Why the loop woke up.
enum Wake {
    Place(OwnedSemaphorePermit),
    Done(Done),
    Arrived(Arrival),
    Sample,
    Stop,
    GiveUp,
}

/// Runs everything to its end.
pub(super) async fn drive(
    shared: &Arc<Shared>,
    cancellation: &Cancellation,
    mut arrivals: mpsc::Receiver<Arrival>,
    started: Instant,
) -> Driven {
    let (done, mut results) = mpsc::channel(LOADGEN_QUEUE.get());
    let scenario = &shared.scenario;
    let mut schedule = Schedule::new(&scenario.stages, scenario.limits.calls);
    let mut it = Driver::new(shared, cancellation, done);
    it.let_actors_in();
    let probe = tokio::spawn(probe(Arc::clone(shared)));
    let mut own = Own::default();
    own.cores();
    let first = tokio::time::Instant::now() + SAMPLE;
    let mut points = tokio::time::interval_at(first, SAMPLE);
    points.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stop = cancellation.listen();
    let mut end = started + scenario.limits.duration;
    loop {
        let due = schedule.peek().filter(|_| !it.is_stopping).map(|due| started + due);
        if due.is_none() && it.is_idle() {
            if it.callees == 0 {
                break;
            }
            // Their callers are gone; what they still have to say is on its way.
            end = end.min(OsClock.now() + LAST_GUESTS);
        }
        let wake = {
            let room = Arc::clone(&it.room);
            let turn = async {
                tokio::time::sleep_until(wake_at(due.unwrap_or(end))).await;
                room.acquire_owned().await
            };
            tokio::select! {
                biased;
                () = stop.wait(), if !it.is_stopping => Wake::Stop,
                () = tokio::time::sleep_until(wake_at(end)) => {
                    if it.is_stopping { Wake::GiveUp } else { Wake::Stop }
                }
                Some(done) = results.recv() => Wake::Done(done),
                Ok(permit) = turn, if due.is_some() => Wake::Place(permit),
                Some(arrival) = arrivals.recv() => Wake::Arrived(arrival),
                _ = points.tick() => Wake::Sample,
            }
        };
        match wake {
            Wake::Place(permit) => {
                schedule.next();
                it.place(due.unwrap_or(started), permit);
            }
            Wake::Done(done) => it.take_in(done),
            Wake::Arrived(arrival) => it.welcome(arrival),
            Wake::Sample => it.sample(&mut own, started),
            Wake::Stop => {
                // An end by the clock of a run that only answers is no cut.
                let is_ordered = due.is_none() && it.callers == 0 && it.actors == 0;
                it.driven.is_cut_short = !is_ordered;
                it.is_stopping = true;
                it.cancellation.cancel();
                end = OsClock.now() + FAREWELL;
            }
            Wake::GiveUp => break,
        }
    }
    probe.abort();
    it.sample(&mut own, started);
    it.driven.cores = own.cores();
    it.driven
}

/// Watches how late the tasks of calls are served: as late as this one.
async fn probe(shared: Arc<Shared>) {
    let mut due = OsClock.now() + PROBE;
    loop {
        tokio::time::sleep_until(wake_at(due)).await;
        let now = OsClock.now();
        shared.board.lag(now.since(due));
        due = now + PROBE;
    }
}

impl<'a> Driver<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        cancellation: &'a Cancellation,
        done: mpsc::Sender<Done>,
    ) -> Self {
        let scenario = &shared.scenario;
        Self {
            shared,
            cancellation,
            done,
            room: Arc::new(Semaphore::new(scenario.limits.concurrency as usize)),
            random: SeededRandom::new(scenario.seed),
            placed: 0,
            callers: 0,
            callees: 0,
            actors: 0,
            arrived: 0,
            is_stopping: false,
            due: 0,
            driven: Driven::default(),
        }
    }

    /// Takes a point, and notes how we fared until now.
    fn sample(&mut self, own: &mut Own, started: Instant) {
        if !self.is_stopping {
            self.due = self.shared.scenario.due_by(OsClock.now().since(started));
        }
        let reading: Reading = own.read(self.shared);
        self.driven.drops = reading.drops;
        self.driven.threads.clone_from(&reading.threads);
        self.shared.board.sample(reading, self.due);
    }

    /// Whether nobody calls any more. A run that only answers waits for its end.
    fn is_idle(&self) -> bool {
        let is_over = self.callers == 0 && self.actors == 0;
        is_over && (self.is_stopping || self.shared.scenario.calls_out())
    }

    fn let_actors_in(&mut self) {
        for index in 0..self.shared.scenario.actors.len() {
            self.actors += 1;
            let (shared, done) = (Arc::clone(self.shared), self.done.clone());
            let cancellation = self.cancellation.clone();
            tokio::spawn(async move {
                let acting = tokio::spawn(actors::act(Arc::clone(&shared), index, cancellation));
                let actor = &shared.scenario.actors[index];
                let report = acting.await.unwrap_or_else(|_| ActorReport::panicked(actor));
                // Nobody listens any more where the run was given up.
                let _ = done.send(Done::Actor(Box::new(report))).await;
            });
        }
    }

    fn place(&mut self, due: Instant, permit: OwnedSemaphorePermit) {
        let scenario = &self.shared.scenario;
        let weights = scenario.callers.iter().map(|kind| kind.weight);
        let kind = choose(weights, &mut self.random);
        let token = self.placed;
        let mut report = CallReport { index: token, ..CallReport::default() };
        let late = OsClock.now().since(due);
        report.saturation.late_starts = u64::from(late > LATE_START);
        self.driven.latest = self.driven.latest.max(late);
        self.placed += 1;
        self.callers += 1;
        self.shared.board.placed();
        let (shared, done) = (Arc::clone(self.shared), self.done.clone());
        let cancelled = self.cancellation.listen();
        let call = leg::call(shared, kind, token, report.clone(), None, cancelled);
        tokio::spawn(async move {
            // A call ends its own task but by a panic, which tokio has caught.
            let end = tokio::spawn(call)
                .await
                .unwrap_or_else(|_| LegEnd::failed(Role::Caller, kind, report, "load.panicked"));
            drop(permit);
            let _ = done.send(Done::Leg(Box::new(end))).await;
        });
    }

    fn welcome(&mut self, arrival: Arrival) {
        let Some(callee) = &self.shared.scenario.callee else { return };
        let user = arrival.invite.uri.user().unwrap_or_default();
        let known = token_of(user).filter(|_| self.shared.has_tokens());
        let token = known.unwrap_or(u32::MAX);
        // Which kind it is follows from the call where that is known, else from its turn.
        let turn = if token == u32::MAX { self.arrived } else { token };
        let mut random = self.shared.random(turn, Role::Callee);
        let kind = choose(callee.kinds.iter().map(|kind| kind.weight), &mut random);
        self.arrived = self.arrived.wrapping_add(1);
        self.callees += 1;
        self.shared.board.taken();
        let (shared, done) = (Arc::clone(self.shared), self.done.clone());
        let cancelled = self.cancellation.listen();
        let call = leg::take(shared, kind, token, arrival, cancelled);
        tokio::spawn(async move {
            let end = tokio::spawn(call).await.unwrap_or_else(|_| {
                let report = CallReport { index: token, ..CallReport::default() };
                Some(LegEnd::failed(Role::Callee, kind, report, "load.panicked"))
            });
            let _ = done.send(end.map_or(Done::Refused, |end| Done::Leg(Box::new(end)))).await;
        });
    }

    fn take_in(&mut self, done: Done) {
        match done {
            Done::Leg(end) => {
                let is_caller = end.role == Role::Caller;
                if is_caller {
                    self.callers = self.callers.saturating_sub(1);
                } else {
                    self.callees = self.callees.saturating_sub(1);
                }
                let has_failed = end.report.outcome == CallOutcome::Failed && !end.is_planned;
                let was_answered = end.report.setup_ms.is_some();
                self.shared.board.over(is_caller, was_answered, has_failed);
                self.driven.add(*end, is_caller);
            }
            Done::Refused => self.callees = self.callees.saturating_sub(1),
            Done::Actor(report) => {
                self.actors = self.actors.saturating_sub(1);
                self.driven.actors.push(*report);
            }
        }
    }
}

/// Whether a call is a bad actor's.
pub(super) const fn is_of_actor(token: u32) -> bool {
    token >= ACTOR_TOKENS && token != u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(stages: &[Stage], left: u32) -> Vec<f64> {
        let mut schedule = Schedule::new(stages, left);
        std::iter::from_fn(|| {
            let due = schedule.peek()?;
            schedule.next();
            Some(due.as_secs_f64())
        })
        .collect()
    }

    fn stage(from: f64, to: f64, seconds: u64) -> Stage {
        Stage { from, to, time: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_rate_places_its_calls_evenly_and_a_limit_ends_them() {
        let found = due(&[stage(2.0, 2.0, 3)], 100);
        assert_eq!(found, [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
        assert_eq!(due(&[stage(2.0, 2.0, 3)], 2).len(), 2);
    }

    #[test]
    fn a_ramp_places_more_and_more_and_stages_follow_each_other() {
        let found = due(&[stage(0.0, 10.0, 10), stage(0.0, 0.0, 5), stage(1.0, 1.0, 2)], 1000);
        assert_eq!(found.len(), 52);
        assert!(found.is_sorted());
        let half = found.iter().filter(|at| **at < 5.0).count();
        assert!((12..=14).contains(&half), "{half} in the first half of the ramp");
        assert_eq!(found[50..], [15.0, 16.0]);
    }
}
