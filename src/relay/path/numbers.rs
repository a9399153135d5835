//! The numbers of what a leg sends: one source, whose sequence numbers and timestamps go on
//! whoever speaks.
//!
//! Who speaks brings numbers of its own ([`Numbered`]), which are shifted and not replaced: gaps
//! and overtaking stay as they were, so that the far jitter buffer sees what was truly lost.

use base::{Instant, SessionId};

use super::counters::DropReason;

/// A step ahead beyond this is no loss but another numbering (RFC 3550 appendix A.1, MAX_DROPOUT).
const AHEAD_MAX: u16 = 3_000;
/// How old a packet may be and still find its place: what an SRTP receiver's replay window covers.
const BACK_MAX: u16 = 127;

/// A packet in the numbers of whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// Packets of one timeline have timestamps that go with each other.
    pub(crate) timeline: u32,
    /// Packets of one run have sequence numbers that go with each other; another run within a
    /// timeline begins where packets were left out on purpose, which is no loss.
    pub(crate) run: u32,
    /// Sequence number.
    pub(crate) sequence: u16,
    /// Timestamp.
    pub(crate) timestamp: u32,
    /// Its clock, in Hz.
    pub(crate) clock_rate: u32,
    /// Payload type to be sent.
    pub(crate) payload_type: u8,
    /// Marker bit.
    pub(crate) marker: bool,
    /// A key press: its timestamp is that of its start.
    pub(crate) is_event: bool,
}

/// A packet's place in what the leg sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    /// No packet with a higher number was sent.
    pub(crate) newest: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Numbers {
    /// The sequence number after the highest.
    next: u16,
    /// The newest sound's timestamp.
    timestamp: u32,
    /// When it was sent; `None` before the first.
    sent: Option<Instant>,
    shift: Option<Shift>,
}

/// How one speaker's numbers become ours.
#[derive(Clone, Copy, Debug)]
struct Shift {
    origin: Option<SessionId>,
    timeline: u32,
    run: u32,
    sequence: u16,
    timestamp: u32,
    /// The speaker's highest number.
    highest: u16,
    /// How far below it a packet may lie without meeting another speaker's number.
    reach: u16,
}

impl Numbers {
    pub(crate) const fn new(sequence: u16, timestamp: u32) -> Self {
        Self { next: sequence, timestamp, sent: None, shift: None }
    }

    /// Whoever speaks next begins anew, without a gap in the numbers.
    pub(crate) const fn interrupt(&mut self) {
        self.shift = None;
    }

    /// The present, as a timestamp.
    fn present(&self, now: Instant, clock_rate: u32) -> u32 {
        let Some(sent) = self.sent else { return self.timestamp };
        // Two pieces of sound are never at one time: 10 ms is the shortest packet.
        let passed = ticks(now, sent, clock_rate).max(clock_rate / 100);
        self.timestamp.wrapping_add(passed)
    }

    /// Finds a packet's place; refuses one that has none any more.
    pub(crate) fn place(
        &mut self,
        now: Instant,
        origin: Option<SessionId>,
        packet: &Numbered,
    ) -> Result<Placed, DropReason> {
        let known = self.shift.filter(|it| (it.origin, it.timeline) == (origin, packet.timeline));
        let in_run = known.filter(|shift| shift.run == packet.run);
        let ahead = in_run.map_or(1, |shift| packet.sequence.wrapping_sub(shift.highest));
        let back = ahead.wrapping_neg();
        if let Some(shift) = in_run.filter(|_| back <= BACK_MAX) {
            // It was overtaken. One that was sent already, or that would take a number of before
            // this run, comes too late.
            if back == 0 || back > shift.reach {
                return Err(DropReason::Late);
            }
            let sequence = packet.sequence.wrapping_add(shift.sequence);
            let timestamp = packet.timestamp.wrapping_add(shift.timestamp);
            return Ok(Placed { sequence, timestamp, marker: packet.marker, newest: false });
        }
        let goes_on = in_run.filter(|_| ahead <= AHEAD_MAX);
        // A step too far ahead is a stream that began anew: so do its timestamps.
        let dated = if in_run.is_some() { goes_on } else { known };
        let shift = Shift {
            origin,
            timeline: packet.timeline,
            run: packet.run,
            sequence: goes_on
                .map_or_else(|| self.next.wrapping_sub(packet.sequence), |it| it.sequence),
            timestamp: dated.map_or_else(
                || self.present(now, packet.clock_rate).wrapping_sub(packet.timestamp),
                |it| it.timestamp,
            ),
            highest: packet.sequence,
            reach: goes_on.map_or(0, |it| it.reach.saturating_add(ahead).min(BACK_MAX)),
        };
        self.shift = Some(shift);
        let sequence = packet.sequence.wrapping_add(shift.sequence);
        let timestamp = packet.timestamp.wrapping_add(shift.timestamp);
        self.next = sequence.wrapping_add(1);
        if !packet.is_event || dated.is_none() {
            (self.timestamp, self.sent) = (timestamp, Some(now));
        }
        // The first packet after a break in time says so.
        let marker = packet.marker || dated.is_none();
        Ok(Placed { sequence, timestamp, marker, newest: true })
    }
}

/// Time between two points in units of a clock, modulo 2^32.
pub(crate) fn ticks(now: Instant, since: Instant, clock_rate: u32) -> u32 {
    (now.since(since).as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FIRST: (u16, u32) = (1000, 50_000);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn packet(timeline: u32, run: u32, sequence: u16, timestamp: u32) -> Numbered {
        Numbered {
            timeline,
            run,
            sequence,
            timestamp,
            clock_rate: 8_000,
            payload_type: 0,
            marker: false,
            is_event: false,
        }
    }

    fn numbers() -> Numbers {
        Numbers::new(FIRST.0, FIRST.1)
    }

    fn place(numbers: &mut Numbers, ms: u64, packet: Numbered) -> Result<(u16, u32), DropReason> {
        let origin = Some(SessionId::new(1, 0));
        let placed = numbers.place(at(ms), origin, &packet)?;
        Ok((placed.sequence, placed.timestamp))
    }

    #[test]
    fn loss_and_overtaking_stay_as_they_were() {
        let mut numbers = numbers();
        let seen: Vec<_> = [65_534_u16, 65_535, 2, 1, 0, 3]
            .into_iter()
            .map(|n| {
                let at = u32::from(n.wrapping_sub(65_534)) * 160;
                place(&mut numbers, 0, packet(1, 1, n, at.wrapping_sub(320))).unwrap()
            })
            .collect();
        let expected = [0, 1, 4, 3, 2, 5].map(|n| (1000 + n, 50_000 + u32::from(n) * 160));
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_copy_of_the_newest_and_what_is_older_than_the_run_find_no_place() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 500, 0)).unwrap();
        for old in [500, 499, 400] {
            let late = place(&mut numbers, 1, packet(1, 1, old, 0));
            assert_eq!(late, Err(DropReason::Late), "{old}");
        }
        for n in 501..700 {
            place(&mut numbers, 2, packet(1, 1, n, 0)).unwrap();
        }
        assert_eq!(place(&mut numbers, 3, packet(1, 1, 573, 0)), Ok((1073, 50_000)));
    }

    #[test]
    fn another_speaker_goes_on_with_the_next_number_after_the_time_that_passed() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 7, 9_999)).unwrap();
        let next = place(&mut numbers, 40, packet(2, 1, 60_000, 3));
        assert_eq!(next, Ok((1001, 50_000 + 320)));
        let after = place(&mut numbers, 60, packet(2, 1, 60_001, 163));
        assert_eq!(after, Ok((1002, 50_000 + 480)));
        // On another clock as well (RFC 7160).
        let wide = Numbered { clock_rate: 48_000, ..packet(3, 1, 1, 1) };
        assert_eq!(place(&mut numbers, 80, wide), Ok((1003, 50_480 + 960)));
    }

    #[test]
    fn another_session_is_another_speaker() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 7, 0)).unwrap();
        let other = Some(SessionId::new(1, 2));
        let placed = numbers.place(at(20), other, &packet(1, 1, 7, 0)).unwrap();
        assert_eq!((placed.sequence, placed.timestamp), (1001, 50_160));
        assert!(placed.marker && placed.newest);
    }

    #[test]
    fn what_was_left_out_on_purpose_is_no_gap() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 7, 0)).unwrap();
        let after = place(&mut numbers, 500, packet(1, 2, 20, 2080));
        assert_eq!(after, Ok((1001, 52_080)), "the time that passed stays");
    }

    #[test]
    fn a_stream_that_begins_anew_makes_no_leap() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 7, 0)).unwrap();
        assert_eq!(place(&mut numbers, 20, packet(1, 1, 7 + 3_000, 160)), Ok((4000, 50_160)));
        let leap = place(&mut numbers, 40, packet(1, 1, 40_000, 777_777));
        assert_eq!(leap, Ok((4001, 50_320)));
    }

    #[test]
    fn a_key_press_does_not_move_the_clock() {
        let mut numbers = numbers();
        place(&mut numbers, 0, packet(1, 1, 7, 0)).unwrap();
        let press = |n| Numbered { is_event: true, ..packet(1, 1, n, 160) };
        for n in 8..20 {
            let placed = place(&mut numbers, u64::from(n) * 20, press(n)).unwrap();
            assert_eq!(placed.1, 50_160);
        }
        assert_eq!(place(&mut numbers, 400, packet(2, 1, 7, 0)), Ok((1013, 50_000 + 3200)));
    }
}
