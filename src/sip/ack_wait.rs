//! Repeats the 2xx of an INVITE until its ACK arrives: the owner's work, not the transaction's,
//! and on reliable transports too (RFC 3261 section 13.3.1.4).

use std::time::Duration;

use base::Instant;

use crate::transaction::{GIVE_UP, T1, T2};

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckWaitStep {
    /// Nothing yet.
    Wait,
    /// Send the 2xx again, through [`crate::Transactions::respond`] or, once its transaction is
    /// gone, [`crate::Transactions::send`].
    Repeat,
    /// No ACK came within 64*T1: end the call with BYE ([`base::Reason::NoAck`]).
    GiveUp,
}

/// The schedule of one 2xx. Drop it when the ACK arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckWait {
    next: Instant,
    pause: Duration,
    end: Instant,
}

impl AckWait {
    /// Starts when the 2xx was sent for the first time.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { next: now + T1, pause: T1, end: now + GIVE_UP }
    }

    /// When [`AckWait::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next.min(self.end)
    }

    /// Says what is due at `now`; the pause doubles from T1 up to T2.
    pub fn handle_timeout(&mut self, now: Instant) -> AckWaitStep {
        if now >= self.end {
            return AckWaitStep::GiveUp;
        }
        if now < self.next {
            return AckWaitStep::Wait;
        }
        self.pause = self.pause.saturating_mul(2).min(T2);
        self.next = now + self.pause;
        AckWaitStep::Repeat
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_2xx_is_repeated_from_t1_to_t2_and_given_up_after_64_t1() {
        let mut wait = AckWait::new(Instant::ZERO);
        let mut repeated = Vec::new();
        let ended = loop {
            let now = wait.poll_timeout();
            match wait.handle_timeout(now) {
                AckWaitStep::Repeat => repeated.push(now.since(Instant::ZERO).as_millis()),
                AckWaitStep::GiveUp => break now,
                AckWaitStep::Wait => panic!("not due"),
            }
        };
        assert_eq!(repeated[..5], [500, 1500, 3500, 7500, 11_500]);
        assert_eq!(repeated.len(), 10);
        assert_eq!(ended, Instant::ZERO + GIVE_UP);
        assert_eq!(AckWait::new(ended).handle_timeout(ended), AckWaitStep::Wait);
    }
}
