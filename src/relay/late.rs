//! What a late driver does with audio that has waited: the old part is dropped, the rest handed on.
//!
//! Nobody asks the kernel when each datagram came; that would cost every packet for the sake of
//! overload. But a socket that was empty at some moment holds nothing older, and audio comes
//! evenly. So of what waits there, the share that is older than `relay.stale_ms` is the share of
//! the time since. Each socket is judged for itself, so that a flood at one ages no other.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, limit};

use crate::path::receive::BUFFER_BYTES;

/// Datagrams kept of one socket; two of them are no more than a worker takes from a token.
const KEPT: usize = limit::RELAY_BATCH.get() / 2;
/// Datagrams taken from one socket that is late; an honest one has never so many.
const TAKEN: usize = 4 * limit::RELAY_BATCH.get();

/// Knows since when all sockets have been looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lookout {
    clear: Instant,
    stale: Duration,
}

impl Lookout {
    /// Nothing waits yet.
    pub(crate) const fn new(now: Instant) -> Self {
        Self { clear: now, stale: limit::RELAY_STALE_MS.millis() }
    }

    /// A wait of at most so long, begun at `asked`, has ended. Nobody was away meanwhile: what came
    /// in that time ended it.
    pub(crate) fn waited(&mut self, asked: Instant, most: Duration, now: Instant) {
        self.clear = (self.clear + now.since(asked).min(most)).min(now);
    }

    /// All that waited anywhere has been handed out.
    pub(crate) const fn seen_all(&mut self, now: Instant) {
        self.clear = now;
    }

    /// What waits at a socket that was empty at `emptied` came after this.
    pub(crate) fn since(&self, emptied: Instant) -> Instant {
        self.clear.max(emptied)
    }

    /// Whether there may be old audio anywhere.
    pub(crate) fn is_late(&self, now: Instant) -> bool {
        self.is_old(self.clear, now)
    }

    /// Whether what came after `since` may be old.
    pub(crate) fn is_old(&self, since: Instant, now: Instant) -> bool {
        now.since(since) > self.stale
    }

    /// How many of so many datagrams that came after `since` are young enough. The last one
    /// always may be.
    pub(crate) fn young(&self, waiting: usize, since: Instant, now: Instant) -> usize {
        if !self.is_old(since, now) {
            return waiting;
        }
        let share = waiting as u128 * self.stale.as_nanos();
        let young = share.div_ceil(now.since(since).as_nanos().max(1));
        usize::try_from(young).unwrap_or(waiting).min(waiting)
    }

    /// Lets a test be as slow as the machine, or late without waiting.
    #[cfg(test)]
    pub(crate) const fn set(&mut self, clear: Instant, stale: Duration) {
        (self.clear, self.stale) = (clear, stale);
    }
}

/// The newest datagrams of one socket, for a driver that reads them one by one. Its memory is there
/// from the first late socket on.
#[derive(Debug, Default)]
pub(crate) struct Late {
    bytes: Vec<[u8; BUFFER_BYTES]>,
    heads: Vec<(usize, SocketAddr)>,
    /// Datagrams taken so far; the place of the next one to be handed on.
    end: usize,
    next: usize,
}

impl Late {
    /// Takes what waits at a socket; how many of it are too old, and whether that was all.
    pub(crate) fn fill(
        &mut self,
        lookout: &Lookout,
        since: Instant,
        now: Instant,
        mut receive: impl FnMut(&mut [u8]) -> Option<(usize, SocketAddr)>,
    ) -> (usize, bool) {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        self.bytes.resize(KEPT, [0; BUFFER_BYTES]);
        self.heads.resize(KEPT, (0, nobody));
        self.end = 0;
        let mut is_all = false;
        while self.end < TAKEN {
            let place = self.end % KEPT;
            let Some(head) = receive(&mut self.bytes[place]) else {
                is_all = true;
                break;
            };
            self.heads[place] = head;
            self.end += 1;
        }
        self.next = self.end - lookout.young(self.end, since, now).min(KEPT);
        (self.next, is_all)
    }

    /// The next datagram that is young enough, copied to where a receive would put it.
    pub(crate) fn next(&mut self, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
        if self.next == self.end {
            return None;
        }
        let place = self.next % KEPT;
        self.next += 1;
        let (length, source) = self.heads[place];
        let copied = length.min(BUFFER_BYTES).min(buffer.len());
        buffer[..copied].copy_from_slice(&self.bytes[place][..copied]);
        Some((length, source))
    }

    /// Forgets what nobody has asked for; how many that were.
    pub(crate) fn clear(&mut self) -> usize {
        let left = self.end - self.next;
        self.next = self.end;
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_nanos(60_000_000_000);

    fn at(millis: u64) -> Instant {
        START + Duration::from_millis(millis)
    }

    /// What is dropped of so many datagrams after so long, whether that was all, and the numbers
    /// of what is handed on.
    fn after(away_ms: u64, waiting: u16) -> ((usize, bool), Vec<u16>) {
        let (mut late, mut numbers) = (Late::default(), 0..waiting);
        let told = late.fill(&Lookout::new(START), START, at(away_ms), |buffer| {
            let number = numbers.next()?;
            buffer[..2].copy_from_slice(&number.to_be_bytes());
            Some((2 + usize::from(number), SocketAddr::from(([192, 0, 2, 1], number))))
        });
        let (mut passed, mut buffer) = (Vec::new(), [0; BUFFER_BYTES]);
        while let Some((length, source)) = late.next(&mut buffer) {
            assert_eq!(buffer[..2], source.port().to_be_bytes());
            assert_eq!(length, 2 + usize::from(source.port()));
            passed.push(source.port());
        }
        (told, passed)
    }

    #[test]
    fn of_half_a_second_of_audio_the_last_150_ms_are_handed_on() {
        let lookout = Lookout::new(START);
        assert!(!lookout.is_late(at(150)) && lookout.is_late(at(151)));
        assert_eq!(lookout.young(25, START, at(500)), 8);
        assert_eq!(lookout.young(25, at(350), at(500)), 25, "this socket was empty since");
        assert_eq!(after(500, 25), ((17, true), (17..25).collect::<Vec<_>>()));
        assert_eq!(after(30_000, 3).1, [2], "the newest may be young");
        assert_eq!(after(500, 0), ((0, true), Vec::new()));
    }

    #[test]
    fn of_a_flood_no_more_than_half_a_batch_is_handed_on_and_it_ends() {
        let ((dropped, is_all), passed) = after(160, 60_000);
        assert_eq!((dropped, is_all, passed.len()), (TAKEN - KEPT, false, KEPT));
        assert_eq!(passed.last(), Some(&(TAKEN as u16 - 1)));
    }

    #[test]
    fn what_nobody_asked_for_is_counted_once() {
        let (mut late, mut numbers) = (Late::default(), 0..25);
        let source = SocketAddr::from(([192, 0, 2, 1], 5));
        let receive = |_: &mut [u8]| numbers.next().map(|_| (172, source));
        late.fill(&Lookout::new(START), START, at(500), receive);
        assert_eq!(late.next(&mut [0; 200]), Some((172, source)));
        assert_eq!((late.clear(), late.clear()), (7, 0));
        assert_eq!(late.next(&mut [0; 200]), None);
    }

    #[test]
    fn a_wait_is_no_absence_but_one_that_ends_too_late_is() {
        let mut lookout = Lookout::new(START);
        lookout.waited(START, Duration::from_secs(1), at(1_000));
        assert!(!lookout.is_late(at(1_150)));
        lookout.waited(at(1_100), Duration::from_millis(10), at(1_300));
        assert!(lookout.is_late(at(1_300)), "290 ms of which nobody knows");
        lookout.seen_all(at(1_300));
        assert!(!lookout.is_late(at(1_450)));
        lookout.waited(at(1_300), Duration::from_secs(1), at(1_301));
        assert!(lookout.since(START) <= at(1_301), "never in the future");
        assert_eq!(lookout.since(at(1_400)), at(1_400));
    }
}
