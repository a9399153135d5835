//! Puts two channels' pieces onto one timeline and cuts it into frames. Pure: no clock, no I/O.

use std::collections::VecDeque;

use super::{Channel, Mask, Piece};

/// Samples of one channel in a frame: 20 ms.
pub(crate) const FRAME: u64 = 320;
/// How long a frame waits for the slower channel before that is taken as silent, in samples.
pub(crate) const HOLD_BACK: u64 = 10 * FRAME;

/// A frame, interleaved: caller, agent, caller, agent, ...
pub(crate) type Frame = [i16; 2 * FRAME as usize];

/// The timeline of one recording. Gaps cost no memory.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    channels: [Pieces; 2],
    masks: Vec<Mask>,
    /// The position of the next frame.
    next: u64,
}

#[derive(Debug, Default)]
struct Pieces {
    /// By position; where two overlap, the later in the queue is heard.
    queue: VecDeque<(u64, Vec<i16>)>,
    /// Up to where this channel is known.
    known: u64,
}

impl Pieces {
    fn add(&mut self, position: u64, samples: Vec<i16>) {
        self.known = self.known.max(position.saturating_add(samples.len() as u64));
        if samples.is_empty() {
            return;
        }
        let at = self.queue.iter().rposition(|(other, _)| *other <= position);
        self.queue.insert(at.map_or(0, |at| at + 1), (position, samples));
    }

    /// Writes the samples from `start` on into one side of `frame`; forgets what is past.
    fn render(&mut self, start: u64, side: usize, frame: &mut Frame) {
        let end = start + FRAME;
        self.queue.retain(|(position, samples)| {
            if *position >= end {
                return true;
            }
            let past = position + samples.len() as u64;
            for at in start.max(*position)..end.min(past) {
                let slot = (at - start) as usize * 2 + side;
                frame[slot] = samples[(at - position) as usize];
            }
            past > end
        });
    }
}

impl Timeline {
    /// Adds a piece; what lies before the next frame is too late.
    pub(crate) fn add(&mut self, piece: Piece) {
        let end = piece.position.saturating_add(piece.samples.len() as u64);
        if end > self.next {
            self.channels[piece.channel as usize].add(piece.position, piece.samples);
        }
    }

    /// Replaces the masks.
    pub(crate) fn set_masks(&mut self, masks: Vec<Mask>) {
        self.masks = masks;
    }

    /// The next frame, where it is known or has waited long enough; with `ended`, up to the last
    /// sample.
    pub(crate) fn next_frame(&mut self, ended: bool) -> Option<Frame> {
        let [caller, agent] = &self.channels;
        let (slower, faster) = (caller.known.min(agent.known), caller.known.max(agent.known));
        let end = self.next.saturating_add(FRAME);
        let is_due = slower >= end
            || faster >= end.saturating_add(HOLD_BACK)
            || (ended && faster > self.next);
        if !is_due {
            return None;
        }
        let mut frame: Frame = [0; 2 * FRAME as usize];
        for side in [Channel::Caller, Channel::Agent] {
            self.channels[side as usize].render(self.next, side as usize, &mut frame);
        }
        for mask in &self.masks {
            for at in self.next.max(mask.from)..end.min(mask.to) {
                let slot = (at - self.next) as usize * 2;
                frame[slot] = 0;
                frame[slot + 1] = 0;
            }
        }
        self.next = end;
        Some(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(channel: Channel, position: u64, count: u64, value: i16) -> Piece {
        Piece { channel, position, samples: vec![value; count as usize] }
    }

    /// All frames that are due, as (caller, agent) pairs of samples.
    fn due(timeline: &mut Timeline, ended: bool) -> Vec<(i16, i16)> {
        std::iter::from_fn(|| timeline.next_frame(ended))
            .flat_map(|frame| frame.chunks(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn both_channels_stand_at_their_positions_and_gaps_are_silent() {
        let mut timeline = Timeline::default();
        timeline.add(piece(Channel::Caller, 100, 220, 1));
        timeline.add(piece(Channel::Agent, 0, 50, 2));
        timeline.add(piece(Channel::Agent, 300, 340, 3));
        timeline.add(piece(Channel::Caller, 640, 0, 0));
        let heard = due(&mut timeline, false);
        assert_eq!(heard.len(), 640);
        for (at, pair) in heard.iter().enumerate() {
            let caller = if (100..320).contains(&at) { 1 } else { 0 };
            let agent = match at {
                0..50 => 2,
                300..640 => 3,
                _ => 0,
            };
            assert_eq!(*pair, (caller, agent), "sample {at}");
        }
    }

    #[test]
    fn a_silent_channel_holds_the_other_back_for_a_moment_only() {
        let mut timeline = Timeline::default();
        timeline.add(piece(Channel::Caller, 0, FRAME + HOLD_BACK - 1, 1));
        assert!(due(&mut timeline, false).is_empty());
        timeline.add(piece(Channel::Caller, FRAME + HOLD_BACK - 1, 1, 1));
        assert_eq!(due(&mut timeline, false).len() as u64, FRAME);
        assert_eq!(due(&mut timeline, true).len() as u64, HOLD_BACK);
    }

    #[test]
    fn late_and_repeated_pieces_do_not_disturb() {
        let mut timeline = Timeline::default();
        for channel in [Channel::Caller, Channel::Agent] {
            timeline.add(piece(channel, 0, 400, 1));
        }
        assert_eq!(due(&mut timeline, false), vec![(1, 1); 320]);
        timeline.add(piece(Channel::Caller, 0, 320, 9));
        timeline.add(piece(Channel::Caller, 310, 40, 5));
        timeline.add(piece(Channel::Agent, 640, 0, 0));
        timeline.add(piece(Channel::Caller, 640, 0, 0));
        let heard = due(&mut timeline, false);
        assert_eq!(heard[..30], [(5, 1); 30]);
        assert_eq!(heard[30..80], [(1, 1); 50]);
        assert_eq!(heard[80..], vec![(0, 0); 240]);
    }

    #[test]
    fn a_leap_of_hours_costs_no_memory() {
        let mut timeline = Timeline::default();
        timeline.add(piece(Channel::Caller, 16_000 * 3_600 * 4, 320, 1));
        assert!(timeline.next_frame(false).is_some_and(|frame| frame.iter().all(|s| *s == 0)));
        assert_eq!(timeline.channels[0].queue.len(), 1);
    }

    #[test]
    fn a_masked_span_is_silent_on_both_sides_and_keeps_time() {
        let mut timeline = Timeline::default();
        timeline.set_masks(vec![Mask { from: 10, to: 330 }, Mask { from: 900, to: u64::MAX }]);
        for channel in [Channel::Caller, Channel::Agent] {
            timeline.add(piece(channel, 0, 960, 7));
        }
        let heard = due(&mut timeline, false);
        assert_eq!(heard.len(), 960);
        for (at, pair) in heard.iter().enumerate() {
            let expected = if (10..330).contains(&at) || at >= 900 { (0, 0) } else { (7, 7) };
            assert_eq!(*pair, expected, "sample {at}");
        }
    }
}
