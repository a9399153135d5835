//! The timers of all transactions in one ordered table (RFC 3261 section 17.1.1.1, table 4);
//! none of them is a task.

use std::collections::BTreeSet;
use std::time::Duration;

use base::Instant;

/// The estimate of a round trip.
pub const T1: Duration = Duration::from_millis(500);
/// The longest pause between two retransmissions of a non-INVITE request or INVITE response.
pub const T2: Duration = Duration::from_secs(4);
/// How long a message stays in the network.
pub const T4: Duration = Duration::from_secs(5);
/// 64 * T1: timers B, D, F, H, J, L and M.
pub const GIVE_UP: Duration = Duration::from_secs(32);
/// After this a server INVITE transaction sends 100 where its owner has not answered
/// (RFC 3261 section 17.2.1).
pub const TRYING_AFTER: Duration = Duration::from_millis(200);

/// What a timer of one transaction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// When to send again: timers A, E, G.
    Retransmit,
    /// When to give up or to forget: timers B, D, F, H, I, J, K, L, M.
    End,
    /// When to send 100.
    Trying,
}

/// The deadlines of one transaction, by timer.
#[derive(Default)]
pub(super) struct Deadlines([Option<Instant>; 3]);

/// Every deadline, soonest first.
#[derive(Default)]
pub(super) struct TimerTable(BTreeSet<(Instant, u64, Timer)>);

impl Deadlines {
    /// Whether the end timer runs.
    pub(super) const fn is_ending(&self) -> bool {
        self.0[Timer::End as usize].is_some()
    }
}

impl TimerTable {
    pub(super) fn arm(&mut self, id: u64, own: &mut Deadlines, timer: Timer, at: Instant) {
        self.disarm(id, own, timer);
        own.0[timer as usize] = Some(at);
        self.0.insert((at, id, timer));
    }

    pub(super) fn disarm(&mut self, id: u64, own: &mut Deadlines, timer: Timer) {
        if let Some(at) = own.0[timer as usize].take() {
            self.0.remove(&(at, id, timer));
        }
    }

    pub(super) fn disarm_all(&mut self, id: u64, own: &mut Deadlines) {
        for timer in [Timer::Retransmit, Timer::End, Timer::Trying] {
            self.disarm(id, own, timer);
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, ..)| *at)
    }

    /// The next timer that is due; its owner must clear it with [`TimerTable::disarm`].
    pub(super) fn due(&self, now: Instant) -> Option<(u64, Timer)> {
        self.0.first().filter(|(at, ..)| *at <= now).map(|(_, id, timer)| (*id, *timer))
    }
}
