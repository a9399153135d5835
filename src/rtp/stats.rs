//! What was received from one source and sent to one peer, as RTCP reports it.

use core::time::Duration;

use base::{Instant, WallTime};

use crate::rtcp::{NtpTime, ReportBlock, SenderInfo};
use crate::sequence::{Arrival, Sequence};

/// Reception of one source.
#[derive(Clone, Debug)]
pub struct ReceiveStats {
    ssrc: u32,
    clock_rate: u32,
    sequence: Sequence,
    octets: u64,
    /// Arrival minus timestamp of the last packet, in timestamp units, modulo 2^32.
    transit: Option<u32>,
    /// The last packet's timestamp.
    timestamp: Option<u32>,
    /// Sixteen times the jitter (RFC 3550 appendix A.8).
    jitter_16: u32,
    last_sender_report: Option<(u32, Instant)>,
}

impl ReceiveStats {
    /// Nothing received yet from `ssrc`, whose clock runs at `clock_rate` Hz. For `probation` see
    /// [`Sequence::new`].
    #[must_use]
    pub fn new(ssrc: u32, clock_rate: u32, probation: u8) -> Self {
        Self {
            ssrc,
            clock_rate: clock_rate.max(1),
            sequence: Sequence::new(probation),
            octets: 0,
            transit: None,
            timestamp: None,
            jitter_16: 0,
            last_sender_report: None,
        }
    }

    /// Counts a packet.
    pub fn on_packet(
        &mut self,
        now: Instant,
        sequence: u16,
        timestamp: u32,
        payload_len: usize,
    ) -> Arrival {
        let arrival = self.sequence.update(sequence);
        match arrival {
            Arrival::Probation | Arrival::Jump => return arrival,
            Arrival::Restarted => {
                (self.transit, self.timestamp, self.jitter_16) = (None, None, 0);
            }
            Arrival::InOrder { .. } | Arrival::Old => {}
        }
        self.octets = self.octets.saturating_add(payload_len as u64);
        // The packets of one key press share its timestamp (RFC 4733 section 2.5.1.2): when
        // they come says nothing of the way.
        if self.timestamp.replace(timestamp) == Some(timestamp) {
            return arrival;
        }
        let transit = arrival_units(now, self.clock_rate).wrapping_sub(timestamp);
        if let Some(last) = self.transit.replace(transit) {
            // A difference beyond a second is a new timestamp base, not jitter.
            let difference = (transit.wrapping_sub(last) as i32).unsigned_abs();
            if difference < self.clock_rate {
                let decay = (self.jitter_16 + 8) >> 4;
                self.jitter_16 = self.jitter_16.saturating_add(difference).saturating_sub(decay);
            }
        }
        arrival
    }

    /// The source speaks on another clock from its next packet on, as with another payload type
    /// (RFC 7160); jitter is measured anew.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        let clock_rate = clock_rate.max(1);
        if self.clock_rate != clock_rate {
            let jitter = u64::from(self.jitter_16) * u64::from(clock_rate);
            self.jitter_16 = u32::try_from(jitter / u64::from(self.clock_rate)).unwrap_or(u32::MAX);
            (self.clock_rate, self.transit, self.timestamp) = (clock_rate, None, None);
        }
    }

    /// Notes a sender report of this source, so that the next block lets it measure the round trip.
    pub fn on_sender_report(&mut self, now: Instant, sender: &SenderInfo) {
        self.last_sender_report = Some((sender.ntp.middle(), now));
    }

    /// The block for the next report; the fraction lost counts from the block before.
    pub fn report_block(&mut self, now: Instant) -> ReportBlock {
        let (last_sender_report, delay_since_last) = match self.last_sender_report {
            Some((middle, at)) => (middle, units_of_65536(now.since(at))),
            None => (0, 0),
        };
        ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: self.sequence.take_fraction_lost(),
            lost: self.sequence.lost(),
            highest_sequence: self.sequence.extended_highest(),
            jitter: self.jitter_16 >> 4,
            last_sender_report,
            delay_since_last,
        }
    }

    /// The source.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets counted.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.sequence.received()
    }

    /// Payload bytes counted.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Packets missing, zero where duplicates outnumber them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.sequence.expected().saturating_sub(self.sequence.received())
    }

    /// Share of packets missing, 0.0-1.0.
    #[must_use]
    pub fn loss(&self) -> f32 {
        match self.sequence.expected() {
            0 => 0.0,
            expected => self.lost() as f32 / expected as f32,
        }
    }

    /// Interarrival jitter (RFC 3550 section 6.4.1).
    #[must_use]
    pub fn jitter(&self) -> Duration {
        units_to_duration(self.jitter_16 >> 4, self.clock_rate)
    }
}

/// Sending to one peer, and what it reports back.
#[derive(Clone, Debug)]
pub struct SendStats {
    ssrc: u32,
    clock_rate: u32,
    packets: u64,
    octets: u64,
    last: Option<(Instant, u32)>,
    remote: Option<RemoteReport>,
}

/// What the peer last reported of our stream.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RemoteReport {
    /// Share lost between its last two reports, 0.0-1.0.
    pub fraction_lost: f32,
    /// Packets lost in all; negative where duplicates outnumber them.
    pub lost: i32,
    /// Interarrival jitter at the peer.
    pub jitter: Duration,
    /// The round trip, where it could be measured.
    pub round_trip: Option<Duration>,
}

impl SendStats {
    /// Nothing sent yet with `ssrc` on a clock of `clock_rate` Hz.
    #[must_use]
    pub fn new(ssrc: u32, clock_rate: u32) -> Self {
        let clock_rate = clock_rate.max(1);
        Self { ssrc, clock_rate, packets: 0, octets: 0, last: None, remote: None }
    }

    /// Counts a packet.
    pub fn on_packet(&mut self, now: Instant, timestamp: u32, payload_len: usize) {
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(payload_len as u64);
        self.last = Some((now, timestamp));
    }

    /// Counts a packet whose timestamp is not the present: one of a key press, whose packets all
    /// carry the time of its start, or one that was overtaken.
    pub const fn on_undated_packet(&mut self, payload_len: usize) {
        self.packets = self.packets.saturating_add(1);
        self.octets = self.octets.saturating_add(payload_len as u64);
    }

    /// What follows is sent on another clock (RFC 7160); the counts go on.
    pub fn set_clock_rate(&mut self, clock_rate: u32) {
        self.clock_rate = clock_rate.max(1);
    }

    /// Our part of a sender report at `now`, which is `wall` on the wall clock; `None` before the
    /// first packet, when a receiver report is due instead.
    #[must_use]
    pub fn sender_info(&self, now: Instant, wall: WallTime) -> Option<SenderInfo> {
        let (at, timestamp) = self.last?;
        let since = arrival_units(Instant::ZERO + now.since(at), self.clock_rate);
        Some(SenderInfo {
            ntp: wall.into(),
            rtp_timestamp: timestamp.wrapping_add(since),
            // Modulo 2^32, as the fields are (RFC 3550 section 6.4.1).
            packets: self.packets as u32,
            octets: self.octets as u32,
        })
    }

    /// Takes a block of the peer's report; one about another source is passed over.
    pub fn on_report_block(&mut self, wall: WallTime, block: &ReportBlock) {
        if block.ssrc != self.ssrc {
            return;
        }
        let before = self.remote.and_then(|remote| remote.round_trip);
        self.remote = Some(RemoteReport {
            fraction_lost: f32::from(block.fraction_lost) / 256.0,
            lost: block.lost,
            jitter: units_to_duration(block.jitter, self.clock_rate),
            round_trip: block.round_trip(NtpTime::from(wall)).or(before),
        });
    }

    /// The clock of what is sent now, in Hz.
    #[must_use]
    pub const fn clock_rate(&self) -> u32 {
        self.clock_rate
    }

    /// Our SSRC.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Packets sent.
    #[must_use]
    pub const fn packets(&self) -> u64 {
        self.packets
    }

    /// Payload bytes sent.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// What the peer last reported.
    #[must_use]
    pub const fn remote(&self) -> Option<RemoteReport> {
        self.remote
    }
}

/// A point on our clock in timestamp units, modulo 2^32.
fn arrival_units(now: Instant, clock_rate: u32) -> u32 {
    (u128::from(now.as_nanos()) * u128::from(clock_rate) / 1_000_000_000) as u32
}

fn units_to_duration(units: u32, clock_rate: u32) -> Duration {
    Duration::from_micros(u64::from(units) * 1_000_000 / u64::from(clock_rate))
}

fn units_of_65536(duration: Duration) -> u32 {
    u32::try_from((duration.as_micros() << 16) / 1_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    #[test]
    fn an_even_stream_has_no_jitter_and_no_loss() {
        let mut stats = ReceiveStats::new(1, 8000, 1);
        for n in 0..100u16 {
            stats.on_packet(at(u32::from(n) * 20), n, u32::from(n) * 160, 160);
        }
        assert_eq!(stats.jitter(), Duration::ZERO);
        assert_eq!((stats.packets(), stats.octets(), stats.lost()), (100, 16_000, 0));
    }

    #[test]
    fn jitter_approaches_the_mean_deviation() {
        let mut stats = ReceiveStats::new(1, 8000, 1);
        for n in 0..400u16 {
            // Every other packet comes 10 ms late, so that neighbours differ by 10 ms.
            let late = if n % 2 == 0 { 0 } else { 10 };
            stats.on_packet(at(u32::from(n) * 20 + late), n, u32::from(n) * 160, 160);
        }
        let jitter = stats.jitter();
        assert!(jitter > MS * 9 && jitter <= MS * 10, "{jitter:?}");
    }

    #[test]
    fn a_long_key_press_is_not_jitter() {
        let mut stats = ReceiveStats::new(1, 8000, 1);
        for index in 0..100_u16 {
            // From the 50th packet on a key is held for 400 ms: its timestamp stands still.
            let pressed = (50..70).contains(&index);
            let timestamp = if pressed { 50 * 160 } else { u32::from(index) * 160 };
            stats.on_packet(at(u32::from(index) * 20), index, timestamp, 160);
        }
        assert_eq!(stats.jitter(), Duration::ZERO);
    }

    #[test]
    fn a_new_timestamp_base_is_not_jitter() {
        let mut stats = ReceiveStats::new(1, 8000, 1);
        stats.on_packet(at(0), 1, 0, 160);
        stats.on_packet(at(20), 2, 0x7000_0000, 160);
        assert_eq!(stats.jitter(), Duration::ZERO);
    }

    #[test]
    fn another_clock_keeps_the_counts_and_is_not_jitter() {
        let mut stats = ReceiveStats::new(1, 8000, 1);
        for n in 0..50u16 {
            let late = u32::from(n % 2) * 10;
            stats.on_packet(at(u32::from(n) * 20 + late), n, u32::from(n) * 160, 160);
        }
        let before = stats.jitter();
        stats.set_clock_rate(48_000);
        let same = stats.jitter();
        assert!(same.abs_diff(before) < MS, "{same:?} {before:?}");
        stats.on_packet(at(1000), 50, 77, 80);
        stats.on_packet(at(1020), 51, 77 + 960, 80);
        assert!(stats.jitter() <= before && stats.packets() == 52);

        let mut sent = SendStats::new(9, 8000);
        sent.on_packet(at(0), 1000, 160);
        sent.set_clock_rate(48_000);
        sent.on_packet(at(20), 1160, 80);
        sent.on_undated_packet(4);
        let info = sent.sender_info(at(30), WallTime::from_unix_millis(0)).unwrap();
        assert_eq!((info.packets, info.octets, info.rtp_timestamp), (3, 244, 1160 + 480));
    }

    #[test]
    fn blocks_tell_loss_and_the_delay_since_the_senders_report() {
        let mut stats = ReceiveStats::new(9, 8000, 1);
        for n in [0u16, 1, 3] {
            stats.on_packet(at(u32::from(n) * 20), n, u32::from(n) * 160, 160);
        }
        let sender = SenderInfo { ntp: NtpTime(0x0001_0203_0405_0607), ..SenderInfo::default() };
        stats.on_sender_report(at(100), &sender);
        let block = stats.report_block(at(600));
        assert_eq!((block.ssrc, block.lost, block.fraction_lost), (9, 1, 64));
        assert_eq!(block.last_sender_report, 0x0203_0405);
        assert_eq!(block.delay_since_last, 32_768);
        assert!((stats.loss() - 0.25).abs() < 1e-6);
    }

    #[test]
    fn two_ends_measure_their_round_trip() {
        let wall = WallTime::from_unix_millis(1_795_392_000_000);
        let mut sender = SendStats::new(9, 48_000);
        assert_eq!(sender.sender_info(at(0), wall), None);
        sender.on_packet(at(0), 1000, 80);
        let info = sender.sender_info(at(10), wall).unwrap();
        assert_eq!((info.rtp_timestamp, info.packets, info.octets), (1480, 1, 80));

        let mut receiver = ReceiveStats::new(9, 48_000, 1);
        receiver.on_packet(at(30), 1, 1000, 80);
        receiver.on_sender_report(at(40), &info);
        let block = receiver.report_block(at(240));
        // 30 ms there, 200 ms of waiting, 30 ms back.
        sender.on_report_block(wall + MS * 260, &block);
        let round_trip = sender.remote().unwrap().round_trip.unwrap();
        assert!(round_trip > MS * 58 && round_trip < MS * 62, "{round_trip:?}");

        sender.on_report_block(wall, &ReportBlock { ssrc: 8, lost: 99, ..block });
        assert_eq!(sender.remote().unwrap().lost, 0);
    }
}
