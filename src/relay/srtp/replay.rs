//! Packet indices per source: roll-over counter and replay window (RFC 3711 sections 3.3.1, 3.3.2).

use base::limit;

use super::SrtpError;
use crate::driver::ahead::prefetch;

/// Packets that the replay window covers; RFC 3711 section 3.3.2 asks for at least 64.
const WINDOW: u64 = 128;

/// One source's place in its stream, as plain data: it moves to another worker with its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Synchronisation source.
    pub ssrc: u32,
    /// Highest index seen: for RTP 48 bits (roll-over counter and sequence number), for RTCP 31.
    pub highest: u64,
    /// Bit `n` says that `highest - n` was seen.
    pub window: u128,
}

impl SourceState {
    /// Whether `index` was not seen yet and is not too old to tell.
    fn is_fresh(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            None => true,
            Some(age) => age < WINDOW && self.window >> age & 1 == 0,
        }
    }

    fn mark(&mut self, index: u64) {
        match index.checked_sub(self.highest) {
            Some(ahead) => {
                self.window = if ahead < WINDOW { self.window << ahead } else { 0 } | 1;
                self.highest = index;
            }
            None => self.window |= 1 << (self.highest - index).min(WINDOW - 1),
        }
    }

    /// The index that a sequence number most likely stands for (RFC 3711 appendix A); `None`
    /// where it would lie before the stream's first roll-over.
    fn estimate(&self, sequence: u16) -> Option<u64> {
        let (roll_over, last) = (self.highest >> 16, (self.highest & 0xffff) as i32);
        let ahead = i32::from(sequence) - last;
        let roll_over = if last < 0x8000 && ahead > 0x8000 {
            roll_over.checked_sub(1)?
        } else if last >= 0x8000 && ahead < -0x8000 {
            roll_over + 1
        } else {
            roll_over
        };
        Some(roll_over << 16 | u64::from(sequence))
    }
}

/// The sources of one direction, at most [`limit::RTP_SSRCS`].
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<SourceState>);

impl Sources {
    pub(super) fn restore(mut states: Vec<SourceState>) -> Self {
        states.truncate(limit::RTP_SSRCS.get());
        Self(states)
    }

    pub(super) fn states(&self) -> Vec<SourceState> {
        self.0.clone()
    }

    /// Asks for the first source, which is the only one as a rule.
    pub(super) fn prefetch(&self) {
        self.0.first().into_iter().for_each(prefetch);
    }

    fn find(&self, ssrc: u32) -> Option<&SourceState> {
        self.0.iter().find(|source| source.ssrc == ssrc)
    }

    /// The index of an RTP packet, if it may still be taken. Changes nothing: what a packet
    /// says is not true before it is authentic.
    pub(super) fn rtp_index(&self, ssrc: u32, sequence: u16) -> Result<u64, SrtpError> {
        let index = match self.find(ssrc) {
            Some(source) => source.estimate(sequence).ok_or(SrtpError::Replayed)?,
            None => u64::from(sequence),
        };
        // 2^48 packets are the most under one key (RFC 3711 section 9.2).
        if index >> 48 != 0 {
            return Err(SrtpError::KeyExhausted);
        }
        self.check(ssrc, index)?;
        Ok(index)
    }

    /// Whether this index of this source may still be taken.
    pub(super) fn check(&self, ssrc: u32, index: u64) -> Result<(), SrtpError> {
        match self.find(ssrc) {
            Some(source) if !source.is_fresh(index) => Err(SrtpError::Replayed),
            _ => Ok(()),
        }
    }

    /// Marks an authentic packet as seen; tells whether it is the source's newest.
    pub(super) fn accept(&mut self, ssrc: u32, index: u64) -> Result<bool, SrtpError> {
        if let Some(source) = self.0.iter_mut().find(|source| source.ssrc == ssrc) {
            let newest = index > source.highest;
            source.mark(index);
            return Ok(newest);
        }
        if self.0.len() >= limit::RTP_SSRCS.get() {
            return Err(SrtpError::TooManySources);
        }
        // Most streams have one source for as long as they live.
        self.0.reserve_exact(1);
        self.0.push(SourceState { ssrc, highest: index, window: 1 });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_takes_each_packet_once_and_none_that_is_too_old() {
        let mut sources = Sources::default();
        for index in [1000, 1005, 1003, 1128] {
            assert_eq!(sources.check(7, index), Ok(()));
            sources.accept(7, index).unwrap();
        }
        for index in [1005, 1003, 1128, 1000, 900] {
            assert_eq!(sources.check(7, index), Err(SrtpError::Replayed), "{index}");
        }
        for index in [1001, 1002, 1004, 1127, 1129, 5000] {
            assert_eq!(sources.check(7, index), Ok(()), "{index}");
        }
        assert_eq!(sources.accept(7, 1001), Ok(false));
        assert_eq!(sources.accept(7, 5000), Ok(true));
        assert_eq!(sources.check(7, 4999), Ok(()));
    }

    #[test]
    fn indices_follow_the_sequence_number_over_its_wrap_and_back() {
        let mut sources = Sources::default();
        sources.accept(7, 0xfffe).unwrap();
        assert_eq!(sources.rtp_index(7, 1), Ok(0x1_0001));
        sources.accept(7, 0x1_0001).unwrap();
        assert_eq!(sources.rtp_index(7, 0xffff), Ok(0xffff));
        assert_eq!(sources.rtp_index(7, 2), Ok(0x1_0002));
        let start = Sources::restore(vec![SourceState { ssrc: 7, highest: 5, window: 1 }]);
        assert_eq!(start.rtp_index(7, 0xffff), Err(SrtpError::Replayed));
    }

    #[test]
    fn sources_are_bounded() {
        let mut sources = Sources::default();
        for ssrc in 0..limit::RTP_SSRCS.value as u32 {
            sources.accept(ssrc, 1).unwrap();
        }
        assert_eq!(sources.accept(1000, 1), Err(SrtpError::TooManySources));
        assert_eq!(sources.accept(0, 2), Ok(true));
    }
}
