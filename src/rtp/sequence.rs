//! Sequence numbers of one source: extension to 32 bits, validity and loss (RFC 3550 appendices
//! A.1 and A.3).

/// Forward jump that is still a loss (RFC 3550 appendix A.1, MAX_DROPOUT).
const DROPOUT_MAX: u16 = 3000;
/// Backward step that is still a reordering (MAX_MISORDER).
const MISORDER_MAX: u16 = 100;

/// What a sequence number means for its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The source is not yet trusted; the packet is not counted.
    Probation,
    /// In order; so many numbers before it are missing for now.
    InOrder {
        /// Numbers skipped.
        skipped: u16,
    },
    /// Older than the newest, or the newest again.
    Old,
    /// Far off; not counted, and if the next packet follows it the source has restarted.
    Jump,
    /// The source has restarted here; all counts begin anew.
    Restarted,
}

/// The sequence numbers of one source.
#[derive(Clone, Debug)]
pub struct Sequence {
    highest: u16,
    cycles: u32,
    base: u32,
    /// The number that would confirm a restart.
    expected_after_jump: Option<u16>,
    probation: u8,
    probation_wanted: u8,
    is_started: bool,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
}

impl Sequence {
    /// A source that is trusted after `probation` packets in order: 2 for plain RTP (RFC 3550
    /// MIN_SEQUENTIAL), 1 where packets are authenticated.
    #[must_use]
    pub const fn new(probation: u8) -> Self {
        Self {
            highest: 0,
            cycles: 0,
            base: 0,
            expected_after_jump: None,
            probation,
            probation_wanted: probation,
            is_started: false,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
        }
    }

    /// Takes the next packet's number.
    pub fn update(&mut self, sequence: u16) -> Arrival {
        if !self.is_started {
            self.is_started = true;
            self.restart(sequence);
            self.highest = sequence.wrapping_sub(1);
            self.probation = self.probation_wanted.max(1);
        }
        let ahead = sequence.wrapping_sub(self.highest);
        if self.probation > 0 {
            return self.on_probation(sequence, ahead);
        }
        if ahead == 0 {
            self.received += 1;
            return Arrival::Old;
        }
        if ahead < DROPOUT_MAX {
            if sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest = sequence;
            self.received += 1;
            self.expected_after_jump = None;
            return Arrival::InOrder { skipped: ahead - 1 };
        }
        if ahead <= u16::MAX - MISORDER_MAX {
            // Two packets in a row: the other side restarted without telling us.
            if self.expected_after_jump == Some(sequence) {
                self.restart(sequence);
                self.received = 1;
                return Arrival::Restarted;
            }
            self.expected_after_jump = Some(sequence.wrapping_add(1));
            return Arrival::Jump;
        }
        self.received += 1;
        Arrival::Old
    }

    /// The highest number received, extended by the count of wraps.
    #[must_use]
    pub const fn extended_highest(&self) -> u32 {
        self.cycles.wrapping_add(self.highest as u32)
    }

    /// Packets received since the source was trusted, duplicates included.
    #[must_use]
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Packets that should have been received.
    #[must_use]
    pub const fn expected(&self) -> u64 {
        if self.received == 0 {
            return 0;
        }
        self.extended_highest().wrapping_sub(self.base) as u64 + 1
    }

    /// Packets missing; negative where duplicates outnumber them (RFC 3550 appendix A.3). In the
    /// range of the 24-bit field.
    #[must_use]
    pub fn lost(&self) -> i32 {
        let lost = i128::from(self.expected()) - i128::from(self.received);
        lost.clamp(-0x80_0000, 0x7f_ffff) as i32
    }

    /// The share of packets lost since the last call, in 1/256 (RFC 3550 appendix A.3).
    pub fn take_fraction_lost(&mut self) -> u8 {
        let expected = self.expected().saturating_sub(self.expected_prior);
        let received = self.received.saturating_sub(self.received_prior);
        self.expected_prior = self.expected();
        self.received_prior = self.received;
        let lost = expected.saturating_sub(received);
        (lost * 256).checked_div(expected).unwrap_or(0).min(255) as u8
    }

    fn on_probation(&mut self, sequence: u16, ahead: u16) -> Arrival {
        self.highest = sequence;
        // A packet out of order is the first of a new row.
        let wanted = if ahead == 1 { self.probation } else { self.probation_wanted.max(1) };
        self.probation = wanted - 1;
        if self.probation > 0 {
            return Arrival::Probation;
        }
        self.restart(sequence);
        self.received = 1;
        Arrival::InOrder { skipped: 0 }
    }

    fn restart(&mut self, sequence: u16) {
        self.base = u32::from(sequence);
        self.highest = sequence;
        self.cycles = 0;
        self.expected_after_jump = None;
        self.received = 0;
        self.expected_prior = 0;
        self.received_prior = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(first: u16) -> Sequence {
        let mut sequence = Sequence::new(1);
        assert_eq!(sequence.update(first), Arrival::InOrder { skipped: 0 });
        sequence
    }

    #[test]
    fn a_plain_source_is_trusted_after_two_packets_in_order() {
        let mut sequence = Sequence::new(2);
        assert_eq!(sequence.update(10), Arrival::Probation);
        assert_eq!(sequence.update(500), Arrival::Probation);
        assert_eq!(sequence.update(501), Arrival::InOrder { skipped: 0 });
        assert_eq!((sequence.expected(), sequence.received(), sequence.lost()), (1, 1, 0));
    }

    #[test]
    fn numbers_extend_over_the_wrap() {
        let mut sequence = trusted(65_534);
        for next in [65_535, 0, 1] {
            assert_eq!(sequence.update(next), Arrival::InOrder { skipped: 0 });
        }
        assert_eq!(sequence.extended_highest(), 0x1_0001);
        assert_eq!((sequence.expected(), sequence.lost()), (4, 0));
    }

    #[test]
    fn losses_and_late_arrivals_are_counted() {
        let mut sequence = trusted(100);
        assert_eq!(sequence.update(104), Arrival::InOrder { skipped: 3 });
        assert_eq!(sequence.lost(), 3);
        assert_eq!(sequence.take_fraction_lost(), 153);
        assert_eq!(sequence.update(102), Arrival::Old);
        assert_eq!(sequence.lost(), 2);
        assert_eq!(sequence.take_fraction_lost(), 0);
    }

    #[test]
    fn duplicates_make_the_loss_negative() {
        let mut sequence = trusted(1);
        sequence.update(1);
        sequence.update(1);
        assert_eq!(sequence.lost(), -2);
    }

    #[test]
    fn one_far_packet_is_not_believed_but_two_in_a_row_restart() {
        let mut sequence = trusted(100);
        assert_eq!(sequence.update(20_000), Arrival::Jump);
        assert_eq!(sequence.update(101), Arrival::InOrder { skipped: 0 });
        assert_eq!(sequence.update(20_001), Arrival::Jump);
        assert_eq!(sequence.update(20_002), Arrival::Restarted);
        assert_eq!((sequence.expected(), sequence.received()), (1, 1));
    }
}
