//! What a late worker does with audio that has waited: the old part is dropped, the rest passed on.
//!
//! Nobody asks the kernel when each datagram came; that would cost every packet for the sake of
//! overload. A worker that was away for so long knows that what waits at a socket came in that
//! time, in order and, being audio, evenly. So the share of it that is older than `relay.stale_ms`
//! is the share of the time.

use std::net::SocketAddr;
use std::time::Duration;

use base::limit;

use crate::driver::{Network, Token};
use crate::path::receive::BUFFER_BYTES;

/// Datagrams kept of one socket.
const KEPT: usize = limit::RELAY_BATCH.get();
/// Datagrams taken from one socket in a late round; an honest one has never so many.
const TAKEN: usize = 4 * KEPT;

/// Whether a worker that was away for so long has old audio before it.
pub(crate) fn is_late(away: Duration) -> bool {
    away > limit::RELAY_STALE_MS.millis()
}

/// The newest datagrams of one socket. Its memory is there from the first late round on.
#[derive(Debug, Default)]
pub(crate) struct Late {
    bytes: Vec<[u8; BUFFER_BYTES]>,
    heads: Vec<(usize, SocketAddr)>,
    /// Datagrams taken so far; the place of the next one to be passed on.
    end: usize,
    next: usize,
}

impl Late {
    /// Takes what waits at a socket; how many of it are too old.
    pub(crate) fn fill(
        &mut self,
        network: &mut impl Network,
        token: Token,
        away: Duration,
    ) -> usize {
        let nobody = SocketAddr::from(([0, 0, 0, 0], 0));
        self.bytes.resize(KEPT, [0; BUFFER_BYTES]);
        self.heads.resize(KEPT, (0, nobody));
        self.end = 0;
        while self.end < TAKEN {
            let place = self.end % KEPT;
            let Some(head) = network.receive(token, &mut self.bytes[place]) else { break };
            self.heads[place] = head;
            self.end += 1;
        }
        let fresh = self.end as u128 * limit::RELAY_STALE_MS.millis().as_nanos();
        let fresh = fresh.div_ceil(away.as_nanos().max(1));
        let fresh = usize::try_from(fresh).unwrap_or(KEPT).min(KEPT).min(self.end);
        self.next = self.end - fresh;
        self.next
    }

    /// The next datagram that is young enough: its length, its source, and its bytes, cut to
    /// [`BUFFER_BYTES`].
    pub(crate) fn next(&mut self) -> Option<(SocketAddr, &mut [u8])> {
        if self.next == self.end {
            return None;
        }
        let place = self.next % KEPT;
        self.next += 1;
        let (length, source) = self.heads[place];
        Some((source, &mut self.bytes[place][..length.min(BUFFER_BYTES)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::{Instant, WallTime};

    /// A socket with numbered datagrams, each with its number in its length as well.
    struct Waiting(std::ops::Range<u16>);

    impl Network for Waiting {
        fn now(&self) -> Instant {
            Instant::ZERO
        }
        fn wall(&self) -> WallTime {
            WallTime::default()
        }
        fn open(&mut self, _: Token, _: SocketAddr) -> bool {
            true
        }
        fn close(&mut self, _: Token) {}
        fn wait(&mut self, _: Duration, _: &mut Vec<Token>) {}
        fn receive(&mut self, _: Token, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
            let number = self.0.next()?;
            buffer[..2].copy_from_slice(&number.to_be_bytes());
            Some((2 + usize::from(number), SocketAddr::from(([192, 0, 2, 1], number))))
        }
        fn send(&mut self, _: Token, _: SocketAddr, _: &[u8]) -> bool {
            true
        }
    }

    /// What is dropped of so many datagrams after so long, and the numbers of what is passed on.
    fn after(away_ms: u64, waiting: u16) -> (usize, Vec<u16>) {
        let (mut late, mut network) = (Late::default(), Waiting(0..waiting));
        let dropped = late.fill(&mut network, 0, Duration::from_millis(away_ms));
        let mut passed = Vec::new();
        while let Some((source, bytes)) = late.next() {
            assert_eq!(bytes[..2], source.port().to_be_bytes());
            assert_eq!(bytes.len(), (2 + usize::from(source.port())).min(BUFFER_BYTES));
            passed.push(source.port());
        }
        (dropped, passed)
    }

    #[test]
    fn of_half_a_second_of_audio_the_last_150_ms_are_passed_on() {
        assert!(!is_late(Duration::from_millis(150)) && is_late(Duration::from_millis(151)));
        let (dropped, passed) = after(500, 25);
        assert_eq!((dropped, passed), (17, (17..25).collect::<Vec<_>>()));
        assert_eq!(after(30_000, 3).1, [2], "the newest may be young");
        assert_eq!(after(500, 0), (0, Vec::new()));
    }

    #[test]
    fn of_a_flood_no_more_than_a_batch_is_passed_on_and_a_late_round_ends() {
        let (dropped, passed) = after(160, 60_000);
        assert_eq!((dropped, passed.len()), (TAKEN - KEPT, KEPT));
        assert_eq!(passed.last(), Some(&(TAKEN as u16 - 1)));
    }
}
