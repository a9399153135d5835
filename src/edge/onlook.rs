//! What pages that look on are told of calls, and which calls there are at present.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::live::{Live, LiveEvent, LiveKind};
use base::{CallId, LegId};
use call::Record;
use media::{MediaEvent, Quality};
use policy::{Attempt, Transport};
use vault::Role;

use crate::curves::Curves;

/// Tells pages of calls; clones are the same. Nothing here waits, and where nobody looks on it
/// costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Onlookers(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    live: Live,
    curves: Curves,
    /// The shard of each call in progress; locked twice in a call's life.
    present: Mutex<BTreeMap<CallId, usize>>,
}

impl Onlookers {
    /// The hub that pages follow.
    #[must_use]
    pub fn live(&self) -> Live {
        self.0.live.clone()
    }

    /// The media of calls in progress over time.
    #[must_use]
    pub fn curves(&self) -> Curves {
        self.0.curves.clone()
    }

    /// The shard of a call in progress.
    #[must_use]
    pub fn shard_of(&self, call: CallId) -> Option<usize> {
        self.present().get(&call).copied()
    }

    /// A shard's calls report something.
    pub fn record(&self, shard: usize, record: &Record) {
        let (call, kind) = match record {
            Record::Arrived { call, attempt, .. } => {
                self.present().insert(*call, shard);
                (*call, LiveKind::Began { token: token_of(attempt) })
            }
            Record::Answered { call, .. } => (*call, LiveKind::Answered),
            Record::Secured { leg, .. } if leg.index == 0 => (leg.call, LiveKind::Secured),
            Record::Ended { call, reason, .. } => {
                self.present().remove(call);
                (*call, LiveKind::Ended { reason: reason.code() })
            }
            _ => return,
        };
        self.0.live.push(LiveEvent { call, kind });
    }

    /// Somebody has said something.
    pub fn turn(&self, call: CallId, turn: &agent::Turn) {
        let role = match turn.speaking {
            agent::Speaking::Caller => Role::Caller,
            agent::Speaking::Agent => Role::Agent,
        };
        let millis =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let kind = LiveKind::Turn {
            role,
            text: turn.text.clone(),
            start_ms: millis(turn.start),
            end_ms: millis(turn.end),
            interrupted: turn.interrupted,
            latency_ms: turn.latency.map(millis),
        };
        self.0.live.push(LiveEvent { call, kind });
    }

    /// Something happened to a leg's media.
    pub fn media(&self, leg: LegId, event: &MediaEvent) {
        let speaking = |role, speaks| LiveKind::Speaking { role, speaks };
        let kind = match event {
            MediaEvent::SpeechStarted { .. } => speaking(Role::Caller, true),
            MediaEvent::SpeechEnded { .. } => speaking(Role::Caller, false),
            MediaEvent::PlayoutStarted { .. } => speaking(Role::Agent, true),
            MediaEvent::PlayoutFinished { .. } | MediaEvent::PlayoutStopped { .. } => {
                speaking(Role::Agent, false)
            }
            MediaEvent::Report { quality, .. } if leg.index == 0 => figures(quality),
            _ => return,
        };
        self.0.live.push(LiveEvent { call: leg.call, kind });
    }

    fn present(&self) -> MutexGuard<'_, BTreeMap<CallId, usize>> {
        self.0.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The browser token that a call's caller came with: api puts its id where a telephone's number
/// would stand.
fn token_of(attempt: &Attempt) -> Option<String> {
    let is_browsers = matches!(attempt.transport, Transport::Wss | Transport::Whip);
    let is_token = is_browsers && attempt.caller.starts_with("bt_");
    is_token.then(|| attempt.caller.clone())
}

fn figures(quality: &Quality) -> LiveKind {
    let expected = quality.received.saturating_add(quality.lost).max(1);
    let millis = |time: std::time::Duration| time.as_secs_f64() * 1_000.0;
    LiveKind::Media {
        loss: quality.lost as f64 / expected as f64,
        jitter_ms: millis(quality.jitter),
        round_trip_ms: quality.round_trip.map(millis),
    }
}
