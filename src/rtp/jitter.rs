//! The jitter buffer: takes packets as they come and gives them in order, at the pace of the
//! consumer's clock, no later than the observed jitter demands.
//!
//! It holds packets, not samples: decoding, concealing and stretching are the consumer's work.
//! The consumer pulls whenever it has less than one tick of audio left, and by what it gets
//! ([`Pull`]) decodes, conceals or plays silence. All memory is taken at creation.

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use base::Instant;
use base::limit::{RTP_JITTER_PACKETS, RTP_PACKET_BYTES};

mod delay;

use delay::DelayEstimate;

/// How a buffer is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JitterConfig {
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Packet time until it is learned from the timestamps.
    pub packet: Duration,
    /// Smallest target delay.
    pub target_min: Duration,
    /// Largest target delay.
    pub target_max: Duration,
    /// Delay above the target at which whole packets are dropped. Before that, [`Pace::Faster`]
    /// asks for time compression.
    pub margin: Duration,
    /// Bytes kept for one payload; a larger one is refused.
    pub payload_bytes: usize,
}

impl JitterConfig {
    /// The defaults for telephony: 20 ms packets, 20-200 ms of delay, payloads as large as 80 ms
    /// of G.711.
    #[must_use]
    pub const fn new(clock_rate: u32) -> Self {
        Self {
            clock_rate,
            packet: Duration::from_millis(20),
            target_min: Duration::from_millis(20),
            target_max: Duration::from_millis(200),
            margin: Duration::from_millis(80),
            payload_bytes: 640,
        }
    }
}

/// What became of a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// Kept.
    Stored,
    /// Kept, after everything before it was dropped: its sequence number or timestamp shows that
    /// the sender has started anew.
    Restarted,
    /// Dropped: it is here already.
    Duplicate,
    /// Dropped: its turn is over.
    Late,
    /// Dropped: larger than [`JitterConfig::payload_bytes`].
    TooLarge,
}

/// What the consumer has to play next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull<'a> {
    /// A packet to decode.
    Packet(Played<'a>),
    /// Audio is missing: conceal `ticks` timestamp units.
    Lost {
        /// How much, in units of the RTP clock; about one packet.
        ticks: u32,
        /// The payload right after the lost packet, where it is here: its in-band error
        /// correction may hold the lost audio. It will be given again as a packet.
        following: Option<&'a [u8]>,
    },
    /// Nothing is due: the sender is silent, or the buffer is filling. Play one tick of silence
    /// (or comfort noise).
    Empty,
}

/// A packet whose turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Played<'a> {
    /// The sequence number.
    pub sequence: u16,
    /// The timestamp.
    pub timestamp: u32,
    /// The marker bit.
    pub marker: bool,
    /// The payload type.
    pub payload_type: u8,
    /// The payload.
    pub payload: &'a [u8],
    /// Whether the delay is off its target.
    pub pace: Pace,
}

/// How the consumer should play, where it can stretch time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As it is.
    Normal,
    /// Shortened: the delay is above its target.
    Faster,
    /// Lengthened: the delay is below its target.
    Slower,
}

/// What happened since creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JitterStats {
    /// Packets kept.
    pub stored: u64,
    /// Packets given to the consumer.
    pub played: u64,
    /// Packets that had not come when their turn was over.
    pub lost: u64,
    /// Packets that came after it; counted as lost before.
    pub late: u64,
    /// Packets that were here already.
    pub duplicates: u64,
    /// Packets dropped because the delay or the count had grown too large.
    pub discarded: u64,
    /// Packets larger than a slot.
    pub too_large: u64,
    /// Pulls answered with [`Pull::Lost`].
    pub concealed: u64,
    /// Times that the sender started anew.
    pub restarts: u64,
}

/// Concealment beyond this sounds worse than silence.
const CONCEAL_MAX: Duration = Duration::from_millis(60);

/// An arrival further than this from where its timestamp belongs is a new timestamp base.
const RESTART_MICROS: i64 = 1_000_000;

/// Packet times beyond this are no packet times but silence.
const PACKET_TIME_MAX: Duration = Duration::from_millis(120);

/// The buffer of one source; see the [module](self).
#[derive(Clone, Debug)]
pub struct JitterBuffer {
    config: JitterConfig,
    /// Slot of extended sequence number `n` is `n % slots.len()`; all that are taken are in
    /// `next..next + slots.len()`.
    slots: [Slot; RTP_JITTER_PACKETS.get()],
    /// Cells of one payload each. The one that was left last is taken first, so that those that
    /// are in use are few, and at hand.
    payloads: Vec<u8>,
    free: Vec<u8>,
    timeline: Option<Timeline>,
    delay: DelayEstimate,
    /// Timestamp units of one packet, and of the last difference between neighbours.
    packet_ticks: i64,
    last_difference: i64,
    last_pushed: Option<(u64, i64)>,
    stats: JitterStats,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    is_taken: bool,
    marker: bool,
    payload_type: u8,
    /// Where its payload is, while it is taken.
    cell: u8,
    len: u16,
    sequence: u64,
    timestamp: i64,
}

/// Where reception and play-out of the current run of numbers stand. Numbers and timestamps are
/// extended, so that they do not wrap.
#[derive(Clone, Copy, Debug)]
struct Timeline {
    highest: u64,
    highest_timestamp: i64,
    /// The number whose turn is next.
    next: u64,
    /// The timestamp whose turn is next; `None` while filling.
    play: Option<i64>,
    /// Units concealed since the last packet in the hope that the missing one still comes.
    held: i64,
    has_played: bool,
}

impl JitterBuffer {
    /// An empty buffer; all its memory is taken here.
    #[must_use]
    pub fn new(config: JitterConfig) -> Self {
        let payload_bytes = config.payload_bytes.clamp(1, RTP_PACKET_BYTES.get());
        let config = JitterConfig { clock_rate: config.clock_rate.max(1), payload_bytes, ..config };
        let capacity = RTP_JITTER_PACKETS.get();
        let mut buffer = Self {
            config,
            slots: [Slot::default(); RTP_JITTER_PACKETS.get()],
            payloads: vec![0; capacity * payload_bytes],
            free: (0..capacity as u8).rev().collect(),
            timeline: None,
            delay: DelayEstimate::new(),
            packet_ticks: 0,
            last_difference: 0,
            last_pushed: None,
            stats: JitterStats::default(),
        };
        buffer.packet_ticks = buffer.ticks(config.packet).max(1);
        buffer
    }

    /// Takes a packet that arrived at `now`.
    pub fn push(
        &mut self,
        now: Instant,
        sequence: u16,
        timestamp: u32,
        marker: bool,
        payload_type: u8,
        payload: &[u8],
    ) -> Pushed {
        if payload.len() > self.config.payload_bytes {
            self.stats.too_large += 1;
            return Pushed::TooLarge;
        }
        let (line, is_restart) = match self.place(now, sequence, timestamp) {
            Ok(placed) => placed,
            Err(pushed) => return pushed,
        };
        let (sequence, timestamp, line) = line;
        self.learn_packet_time(sequence, timestamp);
        self.timeline = Some(line);
        self.make_room(sequence);

        let index = self.index(sequence);
        // There are as many cells as slots, and a slot that is taken is not given away.
        self.release(index);
        let cell = self.free.pop().unwrap_or(0);
        let start = usize::from(cell) * self.config.payload_bytes;
        self.payloads[start..start + payload.len()].copy_from_slice(payload);
        let len = payload.len() as u16;
        self.slots[index] =
            Slot { is_taken: true, marker, payload_type, cell, len, sequence, timestamp };
        self.stats.stored += 1;
        if is_restart { Pushed::Restarted } else { Pushed::Stored }
    }

    /// What to play from `now` on. Call it while less than one tick of decoded audio is left;
    /// packets of 10 ms are then pulled twice a tick, those of 40 ms every other tick.
    pub fn pull(&mut self, now: Instant) -> Pull<'_> {
        let Some(line) = self.timeline else { return Pull::Empty };
        self.drop_old(now);
        let Some(head) = self.head() else { return self.starve(line) };
        let mut line = self.timeline.unwrap_or(line);
        let play = match line.play {
            Some(play) => play,
            None if self.is_due(now, head.timestamp) => {
                // What is missing before the first packet was covered by silence.
                self.stats.lost += self.skip_to(&mut line, head.sequence);
                head.timestamp
            }
            None => return Pull::Empty,
        };
        let mut gap = head.timestamp - play;
        if head.sequence > line.next {
            // Something is missing, and it may be that it was concealed already.
            let covered = line.held.min(gap).max(0);
            gap -= covered;
            line.held -= covered;
            if gap > 0 {
                return self.conceal_missing(line, head, gap);
            }
            self.stats.lost += self.skip_to(&mut line, head.sequence);
        } else if gap > 0 && !self.is_due(now, head.timestamp) {
            // Nothing is missing but time: the sender was silent (DTX).
            return Pull::Empty;
        }
        self.play(now, line, head)
    }

    /// Forgets packets and timeline, as when the SSRC changes; what was learned of the network
    /// and the counts stay.
    pub fn reset(&mut self) {
        (0..self.slots.len()).for_each(|index| self.release(index));
        self.timeline = None;
        self.last_pushed = None;
        self.delay.restart();
    }

    /// The delay that the buffer aims at.
    #[must_use]
    pub fn target(&self) -> Duration {
        let low = self.config.target_min.max(self.duration(self.packet_ticks));
        self.delay.quantile().clamp(low, self.config.target_max.max(low))
    }

    /// Audio held, from the next packet's turn to the end of the newest.
    #[must_use]
    pub fn depth(&self) -> Duration {
        match (self.timeline, self.head()) {
            (Some(line), Some(head)) => self.depth_from(&line, head.timestamp),
            _ => Duration::ZERO,
        }
    }

    /// Packet time as learned from the timestamps.
    #[must_use]
    pub fn packet_time(&self) -> Duration {
        self.duration(self.packet_ticks)
    }

    /// What happened since creation.
    #[must_use]
    pub const fn stats(&self) -> JitterStats {
        self.stats
    }

    /// Extends number and timestamp, and decides whether the packet is wanted.
    fn place(
        &mut self,
        now: Instant,
        sequence: u16,
        timestamp: u32,
    ) -> Result<((u64, i64, Timeline), bool), Pushed> {
        let Some(line) = self.timeline else {
            return Ok((self.begin(now, sequence, timestamp), false));
        };
        let ahead = sequence.wrapping_sub(line.highest as u16) as i16;
        let number = line.highest.saturating_add_signed(i64::from(ahead));
        let ticks = timestamp.wrapping_sub(line.highest_timestamp as u32) as i32;
        let time = line.highest_timestamp.saturating_add(i64::from(ticks));
        let transit = self.delay.transit(now, self.micros(time));
        let is_turn_over = number < line.next && (line.has_played || line.play.is_some());
        // A number from the past with a timestamp from the future is no late packet.
        let is_renumbered = is_turn_over && line.play.is_some_and(|play| time >= play);
        if self.delay.excess(transit).abs() > RESTART_MICROS || is_renumbered {
            self.reset();
            self.stats.restarts += 1;
            return Ok((self.begin(now, sequence, timestamp), true));
        }
        self.delay.observe(now, transit, self.config.target_max);
        let reach = self.slots.len() as u64;
        if is_turn_over || number + reach <= line.highest {
            self.stats.late += 1;
            return Err(Pushed::Late);
        }
        let slot = self.slots[self.index(number)];
        if slot.is_taken && slot.sequence == number {
            self.stats.duplicates += 1;
            return Err(Pushed::Duplicate);
        }
        let mut line = line;
        if number > line.highest {
            (line.highest, line.highest_timestamp) = (number, time);
        }
        line.next = line.next.min(number);
        Ok(((number, time, line), false))
    }

    fn begin(&mut self, now: Instant, sequence: u16, timestamp: u32) -> (u64, i64, Timeline) {
        // Far from zero, so that a reordered predecessor can be numbered too.
        let number = (1 << 32) + u64::from(sequence);
        let time = i64::from(timestamp);
        let line = Timeline {
            highest: number,
            highest_timestamp: time,
            next: number,
            play: None,
            held: 0,
            has_played: false,
        };
        let transit = self.delay.transit(now, self.micros(time));
        self.delay.observe(now, transit, self.config.target_max);
        (number, time, line)
    }

    /// A packet time is believed once two neighbouring pairs of packets agree on it.
    fn learn_packet_time(&mut self, sequence: u64, timestamp: i64) {
        let Some((before, time)) = self.last_pushed.replace((sequence, timestamp)) else { return };
        let difference = timestamp - time;
        if before + 1 != sequence || difference <= 0 || difference > self.ticks(PACKET_TIME_MAX) {
            return;
        }
        if core::mem::replace(&mut self.last_difference, difference) == difference {
            self.packet_ticks = difference;
        }
    }

    /// Drops the oldest packets where `sequence` would not fit behind them.
    fn make_room(&mut self, sequence: u64) {
        let Some(mut line) = self.timeline else { return };
        let first = (sequence + 1).saturating_sub(self.slots.len() as u64);
        if first <= line.next {
            return;
        }
        self.stats.lost += self.skip_to(&mut line, first);
        if line.play.is_some() {
            // What was dropped is not to be concealed.
            let missing = self.slots.iter().filter(|slot| slot.is_taken);
            let head = missing.min_by_key(|slot| slot.sequence).map(|slot| slot.timestamp);
            line.play = Some(head.unwrap_or(line.highest_timestamp));
        }
        self.timeline = Some(line);
    }

    /// Drops packets while the delay is beyond its target by more than the margin, and the buffer
    /// holds more than the target.
    fn drop_old(&mut self, now: Instant) {
        let Some(mut line) = self.timeline else { return };
        let Some(mut head) = self.head() else { return };
        let target = self.target();
        let too_old = target + self.config.margin;
        if self.age(now, head.timestamp) <= too_old {
            return;
        }
        let goal = target + self.duration(self.packet_ticks);
        while self.age(now, head.timestamp) > goal
            && self.depth_from(&line, head.timestamp) > target
            && head.sequence < line.highest
        {
            self.stats.lost += self.skip_to(&mut line, head.sequence + 1);
            self.timeline = Some(line);
            let Some(next) = self.head() else { return };
            head = next;
            // The gap was cut out on purpose, and so are packets missing within it.
            self.stats.lost += self.skip_to(&mut line, head.sequence);
            line.play = line.play.map(|_| head.timestamp);
            line.held = 0;
            self.timeline = Some(line);
        }
    }

    /// Moves `line.next` up to `to`, drops what is passed, and returns how many were missing.
    fn skip_to(&mut self, line: &mut Timeline, to: u64) -> u64 {
        let passed = to.saturating_sub(line.next);
        let mut dropped = 0;
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            if slot.is_taken && slot.sequence < to {
                self.release(index);
                dropped += 1;
            }
        }
        self.stats.discarded += dropped;
        line.next = line.next.max(to);
        passed.saturating_sub(dropped)
    }

    fn conceal_missing(&mut self, mut line: Timeline, head: Slot, gap: i64) -> Pull<'_> {
        let ticks = self.packet_ticks.min(gap);
        // Beyond the missing packets the gap is silence, which `pull` finds next time.
        self.stats.lost += 1;
        self.stats.concealed += 1;
        line.next += 1;
        line.play = Some(head.timestamp - gap + ticks);
        self.timeline = Some(line);
        let following = (line.next == head.sequence).then(|| self.payload(&head));
        Pull::Lost { ticks: ticks as u32, following }
    }

    /// The buffer ran dry. What comes late may still be played if the time goes on without it.
    fn starve(&mut self, mut line: Timeline) -> Pull<'_> {
        if line.play.is_none() {
            return Pull::Empty;
        }
        if line.held >= self.ticks(CONCEAL_MAX) {
            line.play = None;
            self.timeline = Some(line);
            return Pull::Empty;
        }
        line.held += self.packet_ticks;
        self.timeline = Some(line);
        self.stats.concealed += 1;
        Pull::Lost { ticks: self.packet_ticks as u32, following: None }
    }

    fn play(&mut self, now: Instant, mut line: Timeline, head: Slot) -> Pull<'_> {
        let packet = self.duration(self.packet_ticks);
        let (age, target) = (self.age(now, head.timestamp), self.target());
        let pace = if age > target + packet + packet / 2
            && self.depth_from(&line, head.timestamp) > packet
        {
            Pace::Faster
        } else if age + packet < target {
            Pace::Slower
        } else {
            Pace::Normal
        };
        line.next = head.sequence + 1;
        line.play = Some(head.timestamp + self.packet_ticks);
        line.held = 0;
        line.has_played = true;
        self.timeline = Some(line);
        let index = self.index(head.sequence);
        self.release(index);
        self.stats.played += 1;
        Pull::Packet(Played {
            sequence: head.sequence as u16,
            timestamp: head.timestamp as u32,
            marker: head.marker,
            payload_type: head.payload_type,
            payload: self.payload(&head),
            pace,
        })
    }

    fn head(&self) -> Option<Slot> {
        let line = self.timeline?;
        (line.next..=line.highest)
            .map(|number| self.slots[self.index(number)])
            .find(|slot| slot.is_taken)
    }

    fn payload(&self, slot: &Slot) -> &[u8] {
        let start = usize::from(slot.cell) * self.config.payload_bytes;
        &self.payloads[start..start + usize::from(slot.len)]
    }

    /// Empties a slot; its payload stays where it is until the next packet comes.
    fn release(&mut self, index: usize) {
        if core::mem::take(&mut self.slots[index].is_taken) {
            self.free.push(self.slots[index].cell);
        }
    }

    const fn index(&self, sequence: u64) -> usize {
        (sequence % self.slots.len() as u64) as usize
    }

    /// How long after the earliest possible moment this timestamp would be played now.
    fn age(&self, now: Instant, timestamp: i64) -> Duration {
        let excess = self.delay.excess(self.delay.transit(now, self.micros(timestamp)));
        Duration::from_micros(excess.max(0) as u64)
    }

    fn is_due(&self, now: Instant, timestamp: i64) -> bool {
        self.age(now, timestamp) >= self.target()
    }

    fn depth_from(&self, line: &Timeline, timestamp: i64) -> Duration {
        self.duration(line.highest_timestamp - timestamp + self.packet_ticks)
    }

    fn micros(&self, ticks: i64) -> i64 {
        ticks.saturating_mul(1_000_000) / i64::from(self.config.clock_rate)
    }

    fn duration(&self, ticks: i64) -> Duration {
        Duration::from_micros(self.micros(ticks).max(0) as u64)
    }

    fn ticks(&self, duration: Duration) -> i64 {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        micros.saturating_mul(i64::from(self.config.clock_rate)) / 1_000_000
    }
}

#[cfg(test)]
#[path = "jitter_tests.rs"]
mod tests;
