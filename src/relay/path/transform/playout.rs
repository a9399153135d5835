//! The agent's speech, waiting to be sent: where it starts, ends or is cut, to the sample.

use std::collections::VecDeque;
use std::sync::Arc;

use base::limit;
use media::{MediaEvent, StopCause, TAP_RATE};

/// Most samples waiting.
const QUEUE_SAMPLES: u64 = limit::RELAY_PLAYOUT_MS.value * (TAP_RATE as u64 / 1000);

/// A piece of a speech.
struct Chunk {
    speech: u32,
    samples: Arc<[i16]>,
    /// Samples already sent.
    offset: usize,
    last: bool,
}

/// See the module. A speech is a run of chunks under one number; speeches do not interleave.
#[derive(Default)]
pub(crate) struct Playout {
    queue: VecDeque<Chunk>,
    queued: u64,
    /// The speech under way, and how many of its samples were sent.
    current: Option<(u32, u64)>,
    /// The speech that was cut while its end had not arrived: its rest is ignored.
    cut: Option<u32>,
}

impl Playout {
    /// Queues a piece; returns how many samples found no room within `relay.playout_ms`.
    pub(crate) fn push(&mut self, speech: u32, samples: Arc<[i16]>, last: bool) -> usize {
        if self.cut == Some(speech) {
            if last {
                self.cut = None;
            }
            return 0;
        }
        let room = usize::try_from(QUEUE_SAMPLES - self.queued).unwrap_or(usize::MAX);
        let (samples, left_out) = if samples.len() > room {
            (Arc::from(&samples[..room]), samples.len() - room)
        } else {
            (samples, 0)
        };
        self.queued += samples.len() as u64;
        if last || !samples.is_empty() {
            self.queue.push_back(Chunk { speech, samples, offset: 0, last });
        }
        left_out
    }

    /// Whether a speech is under way; between its pieces as well.
    pub(crate) const fn is_playing(&self) -> bool {
        self.current.is_some()
    }

    /// Fills a frame whose first sample is at `position`, with silence where there is no speech;
    /// returns how many samples are speech.
    pub(crate) fn fill(
        &mut self,
        frame: &mut [i16],
        position: u64,
        event: &mut dyn FnMut(MediaEvent),
    ) -> usize {
        let mut at = 0;
        while let Some(chunk) = self.queue.front_mut() {
            let speech = chunk.speech;
            let here = position + at as u64;
            let rest = &chunk.samples[chunk.offset..];
            let count = rest.len().min(frame.len() - at);
            if self.current.is_none_or(|(number, _)| number != speech) && (count > 0 || chunk.last)
            {
                self.current = Some((speech, 0));
                event(MediaEvent::PlayoutStarted { speech, position: here });
            }
            frame[at..at + count].copy_from_slice(&rest[..count]);
            at += count;
            chunk.offset += count;
            self.queued -= count as u64;
            if let Some((_, played)) = &mut self.current {
                *played += count as u64;
            }
            if chunk.offset < chunk.samples.len() {
                break; // the frame is full
            }
            if chunk.last {
                self.current = None;
                event(MediaEvent::PlayoutFinished { speech, position: position + at as u64 });
            }
            self.queue.pop_front();
        }
        frame[at..].fill(0);
        at
    }

    /// Cuts the speech under way and forgets those that wait. `unsent` samples at the end of what
    /// [`Self::fill`] gave have not left yet and will not.
    pub(crate) fn stop(
        &mut self,
        unsent: u64,
        position: u64,
        cause: StopCause,
        event: &mut dyn FnMut(MediaEvent),
    ) {
        if let Some((speech, played)) = self.current.take() {
            event(MediaEvent::PlayoutStopped {
                speech,
                played: played.saturating_sub(unsent),
                position: position.saturating_sub(unsent),
                cause,
            });
            self.cut = Some(speech);
        }
        let mut told = self.cut;
        for chunk in self.queue.drain(..) {
            if told != Some(chunk.speech) {
                told = Some(chunk.speech);
                let speech = chunk.speech;
                event(MediaEvent::PlayoutStopped { speech, played: 0, position, cause });
            }
            self.cut = (!chunk.last).then_some(chunk.speech);
        }
        self.queued = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(playout: &mut Playout, position: u64) -> ([i16; 320], Vec<MediaEvent>) {
        let (mut frame, mut events) = ([9; 320], Vec::new());
        playout.fill(&mut frame, position, &mut |event| events.push(event));
        (frame, events)
    }

    fn stop(playout: &mut Playout, unsent: u64, position: u64) -> Vec<MediaEvent> {
        let mut events = Vec::new();
        playout.stop(unsent, position, StopCause::Told, &mut |event| events.push(event));
        events
    }

    #[test]
    fn a_speech_starts_and_ends_at_its_samples() {
        let mut playout = Playout::default();
        playout.push(1, Arc::from([1; 400]), false);
        playout.push(1, Arc::from([2; 100]), true);
        let (frame, events) = fill(&mut playout, 320);
        assert_eq!(frame, [1; 320]);
        assert_eq!(events, [MediaEvent::PlayoutStarted { speech: 1, position: 320 }]);
        let (frame, events) = fill(&mut playout, 640);
        assert_eq!((frame[79], frame[80], frame[179], frame[180]), (1, 2, 2, 0));
        assert_eq!(events, [MediaEvent::PlayoutFinished { speech: 1, position: 820 }]);
        assert!(!playout.is_playing());
    }

    #[test]
    fn a_speech_that_starves_goes_on_when_more_arrives() {
        let mut playout = Playout::default();
        playout.push(1, Arc::from([1; 100]), false);
        assert_eq!(fill(&mut playout, 0).1.len(), 1);
        assert_eq!(fill(&mut playout, 320), ([0; 320], vec![]));
        assert!(playout.is_playing());
        playout.push(1, Arc::from([1; 10]), false);
        playout.push(1, Arc::from([]), true);
        let (_, events) = fill(&mut playout, 640);
        assert_eq!(events, [MediaEvent::PlayoutFinished { speech: 1, position: 650 }]);
    }

    #[test]
    fn a_cut_counts_what_was_sent_and_swallows_the_rest() {
        let mut playout = Playout::default();
        playout.push(1, Arc::from([1; 1000]), false);
        playout.push(2, Arc::from([2; 1000]), false);
        fill(&mut playout, 0);
        fill(&mut playout, 320);
        let stopped = |speech, played, position| MediaEvent::PlayoutStopped {
            speech,
            played,
            position,
            cause: StopCause::Told,
        };
        assert_eq!(stop(&mut playout, 160, 640), [stopped(1, 480, 480), stopped(2, 0, 640)]);
        playout.push(2, Arc::from([2; 1000]), false);
        assert_eq!(fill(&mut playout, 640), ([0; 320], vec![]));
        playout.push(2, Arc::from([2; 5]), true);
        playout.push(3, Arc::from([3; 320]), true);
        assert_eq!(fill(&mut playout, 960).0, [3; 320]);
        assert!(stop(&mut playout, 0, 1280).is_empty());
    }

    #[test]
    fn a_queue_without_end_is_cut_at_its_limit() {
        let mut playout = Playout::default();
        let minute: Arc<[i16]> = Arc::from(vec![1; 960_000]);
        assert_eq!(playout.push(1, minute.clone(), false), 0);
        assert_eq!(playout.push(1, minute.clone(), false), 0);
        assert_eq!(playout.push(1, minute, true), 960_000);
    }
}
