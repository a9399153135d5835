//! Stamps: who sent a packet, which one it is, and when, in its payload, so that the other end of
//! a call (in the same process) can tell what the network did to it.
//!
//! A stamp survives whatever carries payloads unchanged: relaying, other SRTP keys, other RTP
//! numbers. Transcoding destroys it, and the packet then counts as unstamped. It makes the audio
//! worthless to listen to; nobody does.

use std::time::Duration;

use base::Instant;

/// The first bytes of a stamp.
const MAGIC: [u8; 4] = *b"cgLT";
/// Magic, role, token, number, time.
pub(crate) const STAMP_BYTES: usize = 4 + 1 + 4 + 4 + 8;
/// A payload of Opus begins with a byte that must stay (RFC 6716 section 3.1).
pub(crate) const STAMP_AT: usize = 1;

/// Who sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The caller of a pair.
    Caller,
    /// The callee of a pair.
    Callee,
    /// Somebody who has no business in the call.
    Stranger,
}

impl Role {
    const fn code(self) -> u8 {
        match self {
            Self::Caller => 1,
            Self::Callee => 2,
            Self::Stranger => 3,
        }
    }

    /// The one at the other end.
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
            Self::Stranger => Self::Stranger,
        }
    }
}

/// What a sender writes into its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Which pair of calls.
    pub(crate) token: u32,
    /// Which end of it.
    pub(crate) role: Role,
}

/// One stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) mark: Mark,
    pub(crate) number: u32,
    pub(crate) sent: Instant,
}

impl Stamp {
    /// Writes it into a payload; one too short for it stays as it is.
    pub(crate) fn write(&self, payload: &mut [u8]) {
        let Some(place) = payload.get_mut(STAMP_AT..STAMP_AT + STAMP_BYTES) else { return };
        place[..4].copy_from_slice(&MAGIC);
        place[4] = self.mark.role.code();
        place[5..9].copy_from_slice(&self.mark.token.to_be_bytes());
        place[9..13].copy_from_slice(&self.number.to_be_bytes());
        place[13..21].copy_from_slice(&self.sent.as_nanos().to_be_bytes());
    }

    /// The stamp of a payload.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        let place = payload.get(STAMP_AT..STAMP_AT + STAMP_BYTES)?;
        let (magic, rest) = place.split_first_chunk::<4>()?;
        let role = match (*magic == MAGIC, rest.first()?) {
            (true, 1) => Role::Caller,
            (true, 2) => Role::Callee,
            (true, 3) => Role::Stranger,
            _ => return None,
        };
        let (token, rest) = rest[1..].split_first_chunk::<4>()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let (sent, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            mark: Mark { token: u32::from_be_bytes(*token), role },
            number: u32::from_be_bytes(*number),
            sent: Instant::from_nanos(u64::from_be_bytes(*sent)),
        })
    }
}

/// What one end saw of the other's stamps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    first: Option<u32>,
    highest: u32,
    /// Which of the 128 numbers up to the highest were seen, the newest lowest.
    window: u128,
    /// Packets of the other end, each counted once.
    pub(crate) unique: u64,
    /// Packets of the other end that came again.
    pub(crate) again: u64,
    /// Packets of a stranger, or of another call.
    pub(crate) strange: u64,
    /// Packets without a stamp.
    pub(crate) unstamped: u64,
    /// The sum of the ways, for the mean.
    pub(crate) delay_sum: Duration,
    /// The longest way.
    pub(crate) delay_max: Duration,
}

impl Seen {
    /// Takes a payload that came to `mine`; how long it was on the way, where it is the other
    /// end's and new.
    pub(crate) fn take(&mut self, now: Instant, mine: Mark, payload: &[u8]) -> Option<Duration> {
        let Some(stamp) = Stamp::read(payload) else {
            self.unstamped += 1;
            return None;
        };
        if stamp.mark != (Mark { token: mine.token, role: mine.role.other() }) {
            self.strange += 1;
            return None;
        }
        if !self.is_new(stamp.number) {
            self.again += 1;
            return None;
        }
        self.unique += 1;
        let way = now.since(stamp.sent);
        self.delay_sum += way;
        self.delay_max = self.delay_max.max(way);
        Some(way)
    }

    fn is_new(&mut self, number: u32) -> bool {
        let Some(first) = self.first else {
            (self.first, self.highest, self.window) = (Some(number), number, 1);
            return true;
        };
        if number > self.highest {
            let ahead = number - self.highest;
            self.window = self.window.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = number;
            return true;
        }
        let behind = self.highest - number;
        self.first = Some(first.min(number));
        // What is older than the window cannot be told from a repetition.
        let Some(bit) = 1u128.checked_shl(behind) else { return false };
        let is_new = self.window & bit == 0;
        self.window |= bit;
        is_new
    }

    /// Packets between the first and the last that never came.
    pub(crate) fn lost(&self) -> u64 {
        let Some(first) = self.first else { return 0 };
        (u64::from(self.highest - first) + 1).saturating_sub(self.unique)
    }

    /// Packets that were sent before the first that came.
    pub(crate) fn clipped(&self) -> u32 {
        self.first.unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLER: Mark = Mark { token: 7, role: Role::Caller };
    const CALLEE: Mark = Mark { token: 7, role: Role::Callee };

    fn packet(mark: Mark, number: u32, at_ms: u64) -> [u8; 160] {
        let mut payload = [0xd5; 160];
        let sent = Instant::ZERO + Duration::from_millis(at_ms);
        Stamp { mark, number, sent }.write(&mut payload);
        payload
    }

    #[test]
    fn a_stamp_is_read_back_and_noise_is_none() {
        let payload = packet(CALLEE, 3, 5);
        let stamp = Stamp::read(&payload).unwrap();
        assert_eq!((stamp.mark, stamp.number), (CALLEE, 3));
        assert_eq!(payload[0], 0xd5, "the first byte of Opus stays");
        assert_eq!(Stamp::read(&[0xd5; 160]), None);
        assert_eq!(Stamp::read(&payload[..STAMP_BYTES]), None);
        let mut short = [1; 4];
        Stamp { mark: CALLEE, number: 1, sent: Instant::ZERO }.write(&mut short);
        assert_eq!(short, [1; 4]);
    }

    #[test]
    fn loss_repetition_order_and_strangers_are_told_apart() {
        let mut seen = Seen::default();
        let now = Instant::ZERO + Duration::from_millis(100);
        for number in [2, 3, 6, 5, 5] {
            seen.take(now, CALLER, &packet(CALLEE, number, 90));
        }
        assert_eq!((seen.unique, seen.again, seen.lost(), seen.clipped()), (4, 1, 1, 2));
        assert_eq!(seen.delay_max, Duration::from_millis(10));
        // Our own packets, another call's, a stranger's, and ordinary audio.
        seen.take(now, CALLER, &packet(CALLER, 9, 90));
        seen.take(now, CALLER, &packet(Mark { token: 8, ..CALLEE }, 9, 90));
        seen.take(now, CALLER, &packet(Mark { role: Role::Stranger, ..CALLEE }, 9, 90));
        seen.take(now, CALLER, &[0xd5; 160]);
        assert_eq!((seen.strange, seen.unstamped, seen.lost()), (3, 1, 1));
    }

    #[test]
    fn a_long_gap_loses_what_it_skipped_and_old_packets_are_repetitions() {
        let mut seen = Seen::default();
        let now = Instant::ZERO;
        seen.take(now, CALLER, &packet(CALLEE, 0, 0));
        seen.take(now, CALLER, &packet(CALLEE, 1000, 0));
        assert_eq!(seen.lost(), 999);
        seen.take(now, CALLER, &packet(CALLEE, 0, 0));
        assert_eq!((seen.again, seen.lost()), (1, 999));
    }
}
