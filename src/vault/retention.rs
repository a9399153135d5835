//! Erasing what has grown too old: a sweep an hour, in small steps between the writer's batches,
//! told to the audit log as one summary. Nobody waits for it; while the disk fails it rests.
//!
//! Ages are counted from a call's arrival, and from a recording's beginning, by the wall clock: a
//! machine whose clock is far ahead erases too early. Calls in progress are never touched.

use std::time::Duration;

use base::{Event, Instant, WallTime, limit};
use tokio::runtime::Runtime;

use crate::ledger::Ledger;
use crate::shared::Shared;
use crate::store::StoreError;
use crate::store::sweep::{Cursor, Swept};

/// For how long what is kept of calls is kept; `None`: as long as the call, and calls for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Recordings.
    pub recordings: Option<Duration>,
    /// Transcripts.
    pub transcripts: Option<Duration>,
    /// Calls, with everything that is kept of them but the audit log.
    pub calls: Option<Duration>,
}

/// What a sweep erases.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Old {
    Recordings,
    Transcripts,
    Calls,
}

/// The pause before each step, so that what calls report goes first.
const PAUSE: Duration = Duration::from_millis(20);
/// Batches of the queue that may go before a step that is due.
const BATCHES: u32 = 8;

struct Sweep {
    what: Vec<(Old, WallTime)>,
    cursor: Cursor,
    failed: u64,
}

/// When sweeps are, and how far the present one has come. Owned by the writer's thread.
pub(crate) struct Sweeper {
    retention: Retention,
    due: Instant,
    sweep: Option<Sweep>,
    batches: u32,
}

impl Sweeper {
    /// The first sweep is at once: an edge that restarts daily must sweep too.
    pub(crate) const fn new(retention: Retention) -> Self {
        Self { retention, due: Instant::ZERO, sweep: None, batches: 0 }
    }

    /// How long the writer may wait for something to write.
    pub(crate) fn patience(&self, otherwise: Duration) -> Duration {
        if self.sweep.is_some() { PAUSE } else { otherwise }
    }

    /// Does one step where one is due. `wrote`: the queue was not empty. Returns whether the
    /// journal now holds what was erased.
    pub(crate) fn step(
        &mut self,
        wrote: bool,
        ledger: &mut Ledger,
        runtime: &Runtime,
        shared: &Shared,
    ) -> bool {
        let (now, wall) = (shared.clock.now(), shared.clock.wall());
        if self.sweep.is_none() {
            if now < self.due || self.retention == Retention::default() {
                return false;
            }
            self.sweep = Some(self.begin(wall));
            self.due = now + limit::VAULT_SWEEP_MS.millis();
        }
        self.batches += 1;
        if wrote && self.batches < BATCHES {
            return false;
        }
        self.batches = 0;
        let Some(sweep) = &mut self.sweep else { return false };
        match runtime.block_on(sweep.step(ledger)) {
            Ok(true) => return false,
            Ok(false) if sweep.failed > 0 => shared.tell(Event::VaultFailed { what: "recording" }),
            Ok(false) => {}
            // The next one begins where this one could not go on.
            Err(_) => shared.tell(Event::VaultFailed { what: "call" }),
        }
        self.sweep = None;
        self.note(ledger, runtime, shared)
    }

    /// Ends a sweep that is under way, for whoever closes.
    pub(crate) fn close(&mut self, ledger: &mut Ledger, runtime: &Runtime, shared: &Shared) {
        if self.sweep.take().is_some() {
            self.note(ledger, runtime, shared);
        }
    }

    fn note(&self, ledger: &mut Ledger, runtime: &Runtime, shared: &Shared) -> bool {
        match runtime.block_on(ledger.note_sweep(shared.clock.wall())) {
            Ok(swept) if swept.is_nothing() => false,
            Ok(Swept { recordings, transcripts, calls }) => {
                shared.tell(Event::RetentionSwept { recordings, transcripts, calls });
                true
            }
            // The numbers are on the disk, and the next sweep or start tells them.
            Err(_) => {
                shared.tell(Event::VaultFailed { what: "audit" });
                true
            }
        }
    }

    fn begin(&self, wall: WallTime) -> Sweep {
        let before = |age: Option<Duration>| {
            let age = u64::try_from(age?.as_millis()).unwrap_or(u64::MAX);
            Some(WallTime::from_unix_millis(wall.unix_millis().checked_sub(age)?))
        };
        let Retention { recordings, transcripts, calls } = self.retention;
        // Calls first, with all that is theirs; taken from the end.
        let what = [
            (Old::Transcripts, before(transcripts)),
            (Old::Recordings, before(recordings)),
            (Old::Calls, before(calls)),
        ];
        let what = what.into_iter().filter_map(|(what, before)| Some((what, before?))).collect();
        Sweep { what, cursor: Cursor::default(), failed: 0 }
    }
}

impl Sweep {
    /// Whether there is more to do.
    async fn step(&mut self, ledger: &mut Ledger) -> Result<bool, StoreError> {
        let Some((what, before)) = self.what.last().copied() else { return Ok(false) };
        let (seen, failed) = ledger.sweep(what, before, &mut self.cursor).await?;
        self.failed = self.failed.saturating_add(failed);
        if seen < limit::VAULT_SWEEP_BATCH.get() {
            self.what.pop();
            self.cursor = Cursor::default();
        }
        Ok(!self.what.is_empty())
    }
}
