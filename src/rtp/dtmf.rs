//! Key presses as RFC 4733 telephone events: receiving each once, and sending them.

use alloc::collections::VecDeque;
use core::time::Duration;

use base::Instant;
use base::limit::CALL_DTMF_DIGITS;

/// A DTMF key: 0-9, `*`, `#`, A-D (RFC 4733 section 3.2, events 0-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digit(u8);

const KEYS: &[u8; 16] = b"0123456789*#ABCD";

impl Digit {
    /// The key of that event code; `None` above 15.
    #[must_use]
    pub const fn from_event(event: u8) -> Option<Self> {
        if event < 16 { Some(Self(event)) } else { None }
    }

    /// The key that `key` is printed on; letters in either case.
    #[must_use]
    pub fn from_char(key: char) -> Option<Self> {
        let key = u8::try_from(key).ok()?.to_ascii_uppercase();
        KEYS.iter().position(|known| *known == key).map(|code| Self(code as u8))
    }

    /// The event code, 0-15.
    #[must_use]
    pub const fn event(self) -> u8 {
        self.0
    }

    /// The character printed on the key.
    #[must_use]
    pub fn to_char(self) -> char {
        char::from(KEYS[usize::from(self.0 & 15)])
    }
}

/// The payload of one telephone-event packet (RFC 4733 section 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The event code; 0-15 are keys.
    pub event: u8,
    /// Whether the event is over.
    pub end: bool,
    /// Power level in -dBm0, 0-63.
    pub volume: u8,
    /// How long it has lasted, in timestamp units.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads a payload; what follows the first four bytes is passed over.
    #[must_use]
    pub const fn parse(payload: &[u8]) -> Option<Self> {
        match payload {
            [event, flags, high, low, ..] => Some(Self {
                event: *event,
                end: *flags & 0x80 != 0,
                volume: *flags & 0x3f,
                duration: u16::from_be_bytes([*high, *low]),
            }),
            _ => None,
        }
    }

    /// The payload.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        let [high, low] = self.duration.to_be_bytes();
        [self.event, (self.end as u8) << 7 | self.volume & 0x3f, high, low]
    }
}

/// What a [`DtmfReceiver`] reports: each press once, each release once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtmfEvent {
    /// A key went down; reported with its first packet that arrives.
    Started {
        /// The key.
        digit: Digit,
    },
    /// The key went up, or its packets stopped.
    Ended {
        /// The key.
        digit: Digit,
        /// How long it was down, as far as the packets that arrived tell.
        duration: Duration,
    },
}

/// After this time without a packet a key counts as released (RFC 4733 section 2.5.2.2 leaves the
/// time to the receiver); senders repeat every 20-50 ms.
const RELEASE_AFTER: Duration = Duration::from_millis(200);

/// A packet whose timestamp is older than the last one's by less than this is a straggler.
const STRAGGLER_SECONDS: u32 = 5;

/// Turns telephone-event packets into presses. Packets may be lost, repeated and reordered; any
/// one of a press is enough to report it.
#[derive(Clone, Debug)]
pub struct DtmfReceiver {
    clock_rate: u32,
    current: Option<Press>,
    /// Timestamp of the newest event, running or over.
    newest: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Press {
    digit: Digit,
    /// Timestamp of the segment being received.
    timestamp: u32,
    /// Units of the segments before it (RFC 4733 section 2.5.1.3).
    before: u32,
    /// Longest duration of this segment seen.
    duration: u16,
    heard: Instant,
}

impl DtmfReceiver {
    /// A receiver for events on a clock of `clock_rate` Hz.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        Self { clock_rate: clock_rate.max(1), current: None, newest: None }
    }

    /// Takes one telephone-event packet and says what it tells that is new: at most the end of a
    /// press whose own end was lost, a start, and an end.
    pub fn handle_packet(
        &mut self,
        now: Instant,
        timestamp: u32,
        payload: &[u8],
    ) -> impl Iterator<Item = DtmfEvent> + use<> {
        let mut events = [None; 3];
        if let Some(packet) = TelephoneEvent::parse(payload)
            && let Some(digit) = Digit::from_event(packet.event)
        {
            self.on_event(now, timestamp, digit, packet, &mut events);
        }
        events.into_iter().flatten()
    }

    /// When [`Self::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.current.map(|press| press.heard + RELEASE_AFTER)
    }

    /// Releases a key whose packets have stopped.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<DtmfEvent> {
        if self.poll_timeout().is_none_or(|due| now < due) {
            return None;
        }
        self.release()
    }

    /// Forgets what was received: the sender's SSRC has changed, and with it its timestamps.
    /// Returns the release of a key that was down.
    pub fn reset(&mut self) -> Option<DtmfEvent> {
        self.newest = None;
        self.release()
    }

    fn on_event(
        &mut self,
        now: Instant,
        timestamp: u32,
        digit: Digit,
        packet: TelephoneEvent,
        events: &mut [Option<DtmfEvent>; 3],
    ) {
        if self.is_straggler(timestamp) {
            return;
        }
        if !self.continues(timestamp, digit) {
            events[0] = self.release();
            if self.newest == Some(timestamp) {
                // A repeated end packet, or an update that arrived after it.
                return;
            }
            self.current = Some(Press { digit, timestamp, before: 0, duration: 0, heard: now });
            events[1] = Some(DtmfEvent::Started { digit });
        }
        self.newest = Some(timestamp);
        if let Some(press) = &mut self.current {
            if press.timestamp != timestamp {
                press.before = press.before.saturating_add(timestamp.wrapping_sub(press.timestamp));
                (press.timestamp, press.duration) = (timestamp, 0);
            }
            press.duration = press.duration.max(packet.duration);
            press.heard = now;
        }
        if packet.end {
            events[2] = self.release();
        }
    }

    /// Whether the packet belongs to the press that is down: the same timestamp, or the next
    /// segment of a long press, which begins where the last one was full.
    fn continues(&self, timestamp: u32, digit: Digit) -> bool {
        self.current.is_some_and(|press| {
            let ahead = timestamp.wrapping_sub(press.timestamp);
            // RFC 4733 section 2.5.1.3; the last updates of the full segment may be lost.
            let is_next_segment = press.digit == digit
                && (0xff00..=0x1_0000).contains(&ahead)
                && u32::from(press.duration) + self.clock_rate / 4 >= ahead;
            ahead == 0 || is_next_segment
        })
    }

    fn is_straggler(&self, timestamp: u32) -> bool {
        self.newest.is_some_and(|newest| {
            let behind = newest.wrapping_sub(timestamp);
            behind != 0 && behind < self.clock_rate.saturating_mul(STRAGGLER_SECONDS)
        })
    }

    fn release(&mut self) -> Option<DtmfEvent> {
        let press = self.current.take()?;
        let units = u64::from(press.before) + u64::from(press.duration);
        let duration = Duration::from_micros(units * 1_000_000 / u64::from(self.clock_rate));
        Some(DtmfEvent::Ended { digit: press.digit, duration })
    }
}

/// A telephone-event packet to send. It takes the next sequence number of the audio stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPacket {
    /// The marker bit: set on the first packet of an event.
    pub marker: bool,
    /// The RTP timestamp: that of the event's start.
    pub timestamp: u32,
    /// The payload.
    pub payload: [u8; 4],
}

/// The queue of digits is full ([`CALL_DTMF_DIGITS`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many digits waiting")]
pub struct DigitQueueFull;

/// End packets of an event (RFC 4733 section 2.5.1.4).
const END_PACKETS: u8 = 3;
/// Shortest press: ITU-T Q.24 receivers need 40 ms.
const PRESS_MIN: Duration = Duration::from_millis(40);
/// Pause between two presses; Q.24 asks for at least 40-70 ms.
const PAUSE: Duration = Duration::from_millis(60);
/// Power level, in -dBm0, as most senders set it.
const VOLUME: u8 = 10;

/// Sends key presses, one packet for each tick of the audio clock. While [`Self::is_active`], its
/// packets replace audio packets, whose timestamps go on as if they were sent.
#[derive(Clone, Debug)]
pub struct DtmfSender {
    clock_rate: u32,
    state: Sending,
    /// Digit and length; `None` is a live press, which lasts until [`Self::release`].
    queue: VecDeque<(Digit, Option<Duration>)>,
}

#[derive(Clone, Copy, Debug)]
enum Sending {
    Idle,
    Down {
        digit: Digit,
        /// Start of the press.
        start: u32,
        /// Start of the segment.
        segment: u32,
        /// Units after which it ends; `None` while a live press lasts.
        length: Option<u32>,
        is_first: bool,
    },
    Ending {
        digit: Digit,
        segment: u32,
        duration: u16,
        left: u8,
    },
    Pausing {
        start: u32,
    },
}

impl DtmfSender {
    /// A sender on a clock of `clock_rate` Hz.
    #[must_use]
    pub fn new(clock_rate: u32) -> Self {
        let queue = VecDeque::with_capacity(CALL_DTMF_DIGITS.get());
        Self { clock_rate: clock_rate.max(1), state: Sending::Idle, queue }
    }

    /// Queues a press of `duration` (at least 40 ms).
    ///
    /// # Errors
    /// [`DigitQueueFull`]
    pub fn send(&mut self, digit: Digit, duration: Duration) -> Result<(), DigitQueueFull> {
        self.enqueue(digit, Some(duration.max(PRESS_MIN)))
    }

    /// Queues a press that lasts until [`Self::release`].
    ///
    /// # Errors
    /// [`DigitQueueFull`]
    pub fn press(&mut self, digit: Digit) -> Result<(), DigitQueueFull> {
        self.enqueue(digit, None)
    }

    /// Releases the oldest live press; a press that has not begun is then sent at its shortest.
    pub fn release(&mut self, timestamp: u32) {
        if let Sending::Down { start, length: length @ None, .. } = &mut self.state {
            *length = Some(timestamp.wrapping_sub(*start).max(units(PRESS_MIN, self.clock_rate)));
        } else if let Some((_, length)) = self.queue.iter_mut().find(|(_, it)| it.is_none()) {
            *length = Some(PRESS_MIN);
        }
    }

    /// Whether an event is being sent or waits, so that audio must be left out.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !matches!(self.state, Sending::Idle) || !self.queue.is_empty()
    }

    /// The packet for this tick, if any. `timestamp` is what an audio packet of this tick would
    /// carry; ticks are 20 ms apart.
    pub fn poll_packet(&mut self, timestamp: u32) -> Option<EventPacket> {
        if let Sending::Pausing { start } = self.state
            && timestamp.wrapping_sub(start) >= units(PAUSE, self.clock_rate)
        {
            self.state = Sending::Idle;
        }
        if matches!(self.state, Sending::Idle)
            && let Some((digit, length)) = self.queue.pop_front()
        {
            let length = length.map(|it| units(it, self.clock_rate));
            self.state = Sending::Down {
                digit,
                start: timestamp,
                segment: timestamp,
                length,
                is_first: true,
            };
        }
        match self.state {
            Sending::Idle | Sending::Pausing { .. } => None,
            Sending::Down { .. } => self.poll_update(timestamp),
            Sending::Ending { digit, segment, duration, left } => {
                self.state = match left {
                    0 | 1 => Sending::Pausing { start: timestamp },
                    _ => Sending::Ending { digit, segment, duration, left: left - 1 },
                };
                Some(packet(digit, false, true, segment, duration))
            }
        }
    }

    fn poll_update(&mut self, now: u32) -> Option<EventPacket> {
        let Sending::Down { digit, start, segment, length, is_first } = &mut self.state else {
            return None;
        };
        // The packet covers the tick that it opens.
        let tick = self.clock_rate / 50;
        let elapsed = now.wrapping_sub(*start).saturating_add(tick);
        let marker = core::mem::replace(is_first, false);
        let total = length.map_or(elapsed, |length| elapsed.min(length));
        let (digit, of_segment) = (*digit, *segment);
        let in_segment = total.wrapping_sub(of_segment.wrapping_sub(*start));
        let duration = u16::try_from(in_segment).unwrap_or(u16::MAX);
        if duration == u16::MAX {
            // RFC 4733 section 2.5.1.3: a full segment ends without the end bit, and the next one
            // starts where it ended.
            *segment = of_segment.wrapping_add(u32::from(u16::MAX));
        } else if length.is_some_and(|length| elapsed >= length) {
            self.state =
                Sending::Ending { digit, segment: of_segment, duration, left: END_PACKETS };
            if !marker {
                return self.poll_packet(now);
            }
        }
        Some(packet(digit, marker, false, of_segment, duration))
    }

    fn enqueue(&mut self, digit: Digit, length: Option<Duration>) -> Result<(), DigitQueueFull> {
        if self.queue.len() >= CALL_DTMF_DIGITS.get() {
            return Err(DigitQueueFull);
        }
        self.queue.push_back((digit, length));
        Ok(())
    }
}

fn packet(digit: Digit, marker: bool, end: bool, timestamp: u32, duration: u16) -> EventPacket {
    let event = TelephoneEvent { event: digit.event(), end, volume: VOLUME, duration };
    EventPacket { marker, timestamp, payload: event.to_bytes() }
}

fn units(duration: Duration, clock_rate: u32) -> u32 {
    let units = duration.as_micros() * u128::from(clock_rate) / 1_000_000;
    u32::try_from(units).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "dtmf_tests.rs"]
mod tests;
