//! Runs one caller's script on the 20 ms clock, without I/O.

use std::sync::Arc;
use std::time::Duration;

use base::Instant;

use crate::script::{RATE, Script, Step};

/// Samples of one tick at 16 kHz.
pub(crate) const FRAME: usize = RATE / 50;

/// What a step asks of the call beyond sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Press these keys.
    Digits(String),
    /// Hold the far end.
    Hold,
    /// Take it back.
    Resume,
    /// Hang up.
    Hangup,
}

/// What the far end is heard to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Whether it speaks.
    pub(crate) is_speech: bool,
    /// How long the detector holds speech after its end.
    pub(crate) hangover: Duration,
}

/// Where one caller is in its script.
pub(crate) struct Talker {
    script: Script,
    index: usize,
    begun_at: Option<Instant>,
    position: usize,
    background: Arc<[i16]>,
    background_position: usize,
    silent_since: Option<Instant>,
    was_speech: bool,
    /// Whether there was speech during this step.
    has_heard: bool,
    waits_timed_out: u32,
}

/// How a step stands after a look at it.
enum Progress {
    Stays,
    Over,
    TimedOut,
    Acts(Act),
}

impl Talker {
    /// At the first step.
    pub(crate) fn new(script: Script) -> Self {
        Self {
            script,
            index: 0,
            begun_at: None,
            position: 0,
            background: Arc::from([]),
            background_position: 0,
            silent_since: None,
            was_speech: false,
            has_heard: false,
            waits_timed_out: 0,
        }
    }

    /// Steps begun so far.
    pub(crate) fn steps_begun(&self) -> u32 {
        u32::try_from(self.index + usize::from(self.begun_at.is_some())).unwrap_or(u32::MAX)
    }

    /// Waits that ran out.
    pub(crate) const fn waits_timed_out(&self) -> u32 {
        self.waits_timed_out
    }

    /// Fills the frame of this tick and says what else is to be done. `is_pressing` tells whether
    /// keys of an earlier tick are still being sent.
    pub(crate) fn tick(
        &mut self,
        now: Instant,
        heard: Heard,
        is_pressing: bool,
        frame: &mut [i16; FRAME],
    ) -> Option<Act> {
        frame.fill(0);
        if heard.is_speech {
            (self.silent_since, self.has_heard, self.was_speech) = (None, true, true);
        } else if self.silent_since.is_none() {
            // Before anything was heard, silence began with the call.
            let held = if self.was_speech { heard.hangover } else { Duration::ZERO };
            (self.silent_since, self.was_speech) = (Some(now - held), false);
        }
        let mut has_spoken = false;
        let mut act = None;
        while let Some(step) = self.script.steps.get(self.index).cloned() {
            let is_new = self.begun_at.is_none();
            let begun_at = *self.begun_at.get_or_insert(now);
            if is_new {
                (self.position, self.has_heard) = (0, heard.is_speech);
            }
            let progress = match step {
                Step::Play(pcm) if self.position < pcm.len() => {
                    let rest = &pcm[self.position..];
                    let length = rest.len().min(FRAME);
                    frame[..length].copy_from_slice(&rest[..length]);
                    self.position += length;
                    has_spoken = true;
                    Progress::Stays
                }
                Step::Play(_) => Progress::Over,
                Step::Digits(digits) if is_new => Progress::Acts(Act::Digits(digits)),
                Step::Digits(_) if is_pressing => Progress::Stays,
                Step::Digits(_) => Progress::Over,
                other => self.look(&other, now, begun_at, is_new),
            };
            match progress {
                Progress::Stays => break,
                Progress::Over => self.next(),
                Progress::TimedOut => {
                    self.waits_timed_out += 1;
                    self.next();
                }
                Progress::Acts(it) => {
                    act = Some(it);
                    break;
                }
            }
        }
        if !has_spoken {
            self.play_background(frame);
        }
        act
    }

    /// A step that makes no sound of its own.
    fn look(&mut self, step: &Step, now: Instant, begun_at: Instant, is_new: bool) -> Progress {
        let passed = now.since(begun_at);
        let wait = |is_over: bool, at_most: Duration| match (is_over, passed >= at_most) {
            (true, _) => Progress::Over,
            (false, true) => Progress::TimedOut,
            (false, false) => Progress::Stays,
        };
        let silent_for = self.silent_since.map_or(Duration::ZERO, |at| now.since(at));
        match step {
            Step::Wait(time) if passed < *time => Progress::Stays,
            Step::Wait(_) | Step::Play(_) | Step::Digits(_) => Progress::Over,
            Step::Loop(pcm) => {
                (self.background, self.background_position) = (Arc::clone(pcm), 0);
                Progress::Over
            }
            Step::WaitForSpeech { at_most } => wait(self.has_heard, *at_most),
            Step::WaitForSilence { silence, at_most } => wait(silent_for >= *silence, *at_most),
            Step::WaitForSpeechEnd { silence, at_most } => {
                wait(self.has_heard && silent_for >= *silence, *at_most)
            }
            Step::Hold if is_new => Progress::Acts(Act::Hold),
            Step::Resume if is_new => Progress::Acts(Act::Resume),
            Step::Hold | Step::Resume => Progress::Over,
            Step::Hangup => Progress::Acts(Act::Hangup),
        }
    }

    const fn next(&mut self) {
        self.index += 1;
        self.begun_at = None;
    }

    fn play_background(&mut self, frame: &mut [i16; FRAME]) {
        if self.background.is_empty() {
            return;
        }
        for sample in frame {
            *sample = self.background[self.background_position];
            self.background_position = (self.background_position + 1) % self.background.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 20;
    const HANGOVER: Duration = Duration::from_millis(300);

    struct World {
        talker: Talker,
        at_ms: u64,
    }

    impl World {
        fn new(steps: &[Step]) -> Self {
            Self { talker: Talker::new(Script { steps: steps.to_vec() }), at_ms: 0 }
        }

        fn tick(&mut self, is_speech: bool, is_pressing: bool) -> (Vec<i16>, Option<Act>) {
            let mut frame = [0; FRAME];
            let now = Instant::ZERO + Duration::from_millis(self.at_ms);
            let heard = Heard { is_speech, hangover: HANGOVER };
            let act = self.talker.tick(now, heard, is_pressing, &mut frame);
            self.at_ms += TICK;
            (frame.to_vec(), act)
        }

        /// Ticks until something is said or done.
        fn until_act(&mut self, is_speech: bool) -> (u64, Option<Act>) {
            for _ in 0..10_000 {
                let at = self.at_ms;
                let (frame, act) = self.tick(is_speech, false);
                if act.is_some() || frame.iter().any(|it| *it != 0) {
                    return (at, act);
                }
            }
            panic!("nothing happens");
        }
    }

    fn pcm(sample: i16, length: usize) -> Arc<[i16]> {
        vec![sample; length].into()
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_to_be_said_is_said_whole_and_the_loop_fills_the_gaps() {
        let mut world = World::new(&[Step::Loop(pcm(1, 7)), Step::Play(pcm(5, FRAME + 10))]);
        assert_eq!(world.tick(false, false).0, [5; FRAME]);
        let (frame, _) = world.tick(false, false);
        assert_eq!((&frame[..10], &frame[10..12]), (&[5; 10][..], &[0; 2][..]));
        assert_eq!(world.tick(false, false).0, [1; FRAME]);
    }

    #[test]
    fn digits_and_hangup_come_in_order_and_at_their_time() {
        let mut world = World::new(&[
            Step::Wait(Duration::from_millis(100)),
            Step::Digits("1#".into()),
            Step::Hangup,
        ]);
        let (at, act) = world.until_act(false);
        assert_eq!((at, act), (100, Some(Act::Digits("1#".into()))));
        assert_eq!(world.tick(false, true).1, None);
        assert_eq!(world.tick(false, true).1, None);
        assert_eq!(world.tick(false, false).1, Some(Act::Hangup));
        assert_eq!(world.talker.steps_begun(), 3);
    }

    #[test]
    fn a_turn_is_over_when_the_far_end_has_spoken_and_is_silent() {
        let wait = Step::WaitForSpeechEnd { silence: secs(1), at_most: secs(60) };
        let mut world = World::new(&[wait, Step::Play(pcm(5, 10))]);
        for _ in 0..100 {
            assert_eq!(world.tick(false, false).0, [0; FRAME], "silence alone is no turn");
        }
        for _ in 0..50 {
            world.tick(true, false);
        }
        let ended = world.at_ms;
        let (at, _) = world.until_act(false);
        assert_eq!(at - ended, 700, "the detector's hangover is part of the second");
        assert_eq!(world.talker.waits_timed_out(), 0);
    }

    #[test]
    fn a_pause_within_a_sentence_does_not_end_the_turn() {
        let wait = Step::WaitForSpeechEnd { silence: secs(1), at_most: secs(60) };
        let mut world = World::new(&[wait, Step::Hangup]);
        for tick in 0..200 {
            assert_eq!(world.tick(tick % 30 < 15, false).1, None);
        }
        assert_eq!(world.until_act(false).1, Some(Act::Hangup));
    }

    #[test]
    fn waits_end_all_the_same_and_are_counted() {
        let wait = Step::WaitForSpeech { at_most: secs(2) };
        let mut world = World::new(&[wait.clone(), Step::Hangup]);
        assert_eq!(world.until_act(false), (2000, Some(Act::Hangup)));
        assert_eq!(world.talker.waits_timed_out(), 1);

        let mut world = World::new(&[wait, Step::Hangup]);
        world.tick(false, false);
        assert_eq!(world.until_act(true), (20, Some(Act::Hangup)));
        assert_eq!(world.talker.waits_timed_out(), 0);
    }

    #[test]
    fn silence_counts_from_the_start_of_the_call() {
        let wait = Step::WaitForSilence { silence: secs(1), at_most: secs(9) };
        let mut world = World::new(&[wait, Step::Hangup]);
        assert_eq!(world.until_act(false), (1000, Some(Act::Hangup)));
    }
}
