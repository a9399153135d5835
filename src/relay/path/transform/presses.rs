//! Key presses that we make: as telephone events (RFC 4733) or as tones in the sound.

use std::collections::VecDeque;
use std::time::Duration;

use audio::{Key, SampleRate, Tone, ToneGenerator};
use base::limit;
use media::TelephoneEvent;
use rtp::Digit;
use rtp::dtmf::{DtmfSender, EventPacket};

use super::packets::FRAME_MS;

/// How long a key is held: what most receivers need twice over.
pub(crate) const PRESS: Duration = Duration::from_millis(120);
/// Shortest tone, in milliseconds, so that it is known for a key everywhere (ITU-T Q.24).
const TONE_MS_MIN: u32 = 70;
/// Pause after a tone, in milliseconds.
const PAUSE_MS: u32 = 60;
/// Longest press, in milliseconds.
const HELD_MS_MAX: u32 = limit::RELAY_PRESS_MS.value as u32;

/// Keys as telephone events, on the clock of 20 ms.
pub(crate) struct Events {
    event: TelephoneEvent,
    sender: DtmfSender,
    /// The present on the clock of the events, which may be another than the sound's.
    present: u32,
    /// When the key that is held went down.
    held: Option<u32>,
}

impl Events {
    pub(crate) fn new(event: TelephoneEvent) -> Self {
        Self { event, sender: DtmfSender::new(event.clock_rate), present: 0, held: None }
    }

    pub(crate) const fn event(&self) -> TelephoneEvent {
        self.event
    }

    /// Queues presses; `false` where a character is no key or too many wait.
    pub(crate) fn send(&mut self, keys: &str) -> bool {
        keys.chars().all(|key| {
            Digit::from_char(key).is_some_and(|digit| self.sender.send(digit, PRESS).is_ok())
        })
    }

    /// A key goes down, and stays until [`Self::release`].
    pub(crate) fn press(&mut self, digit: Digit) {
        // Beyond the limit a key is lost, as one is that was pressed too fast.
        let _ = self.sender.press(digit);
        self.held = Some(self.present);
    }

    pub(crate) fn release(&mut self) {
        self.sender.release(self.present);
        self.held = None;
    }

    pub(crate) fn is_active(&self) -> bool {
        self.sender.is_active()
    }

    /// The packet of this frame, whose sound would have `timestamp` on a clock of `clock_rate`.
    /// The packet's timestamp is on the sound's clock, since both share one source (RFC 4733
    /// section 2.1), its duration on the clock of the events.
    pub(crate) fn poll(&mut self, timestamp: u32, clock_rate: u32) -> Option<EventPacket> {
        let present = self.present;
        self.present = present.wrapping_add(self.event.clock_rate / 1000 * FRAME_MS);
        let most = scaled(HELD_MS_MAX, 1000, self.event.clock_rate);
        if self.held.is_some_and(|since| present.wrapping_sub(since) > most) {
            self.release();
        }
        let packet = self.sender.poll_packet(present)?;
        let since =
            scaled(present.wrapping_sub(packet.timestamp), self.event.clock_rate, clock_rate);
        Some(EventPacket { timestamp: timestamp.wrapping_sub(since), ..packet })
    }
}

/// Brings units of one clock to another.
pub(crate) fn scaled(units: u32, from: u32, to: u32) -> u32 {
    (u64::from(units) * u64::from(to) / u64::from(from.max(1))) as u32
}

/// Keys as tones: each sounds until it is released and has been long enough, then pauses.
pub(crate) struct Tones {
    rate: SampleRate,
    waiting: VecDeque<Press>,
    sounding: Option<(ToneGenerator, Press)>,
    /// Samples that are left of a pause.
    pause: usize,
}

#[derive(Clone, Copy)]
struct Press {
    key: Key,
    /// Samples after which it ends; `None` while it is held.
    length: Option<usize>,
    /// Samples that have sounded.
    sounded: usize,
}

impl Tones {
    pub(crate) const fn new(rate: SampleRate) -> Self {
        Self { rate, waiting: VecDeque::new(), sounding: None, pause: 0 }
    }

    /// Queues presses; `false` where a character is no key or too many wait.
    pub(crate) fn send(&mut self, keys: &str) -> bool {
        let millis = u32::try_from(PRESS.as_millis()).unwrap_or(TONE_MS_MIN);
        keys.chars().all(|key| {
            Key::from_char(key).is_some_and(|key| self.push(key, Some(self.rate.samples(millis))))
        })
    }

    /// A key goes down, and stays until [`Self::release`].
    pub(crate) fn press(&mut self, key: Key) {
        // Beyond the limit a key is lost, as one is that was pressed too fast.
        self.push(key, None);
    }

    fn push(&mut self, key: Key, length: Option<usize>) -> bool {
        let room = self.waiting.len() < limit::CALL_DTMF_DIGITS.get();
        if room {
            self.waiting.push_back(Press { key, length, sounded: 0 });
        }
        room
    }

    /// The key that is held goes up after `duration`.
    pub(crate) fn release(&mut self, duration: Duration) {
        let millis = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).min(HELD_MS_MAX);
        let least = self.rate.samples(millis.max(TONE_MS_MIN));
        let held = self.sounding.as_mut().map(|(_, press)| press).into_iter();
        let mut presses = held.chain(&mut self.waiting);
        if let Some(press) = presses.find(|press| press.length.is_none()) {
            press.length = Some(least.max(press.sounded));
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.sounding.is_some() || !self.waiting.is_empty() || self.pause > 0
    }

    /// Replaces a frame by tones and pauses; `false` where there are none and the frame stays.
    pub(crate) fn fill(&mut self, frame: &mut [i16]) -> bool {
        if !self.is_active() {
            return false;
        }
        let mut at = 0;
        while at < frame.len() {
            let rest = &mut frame[at..];
            if self.pause > 0 {
                let count = self.pause.min(rest.len());
                rest[..count].fill(0);
                self.pause -= count;
                at += count;
                continue;
            }
            if self.sounding.is_none() {
                self.sounding = self.waiting.pop_front().map(|press| (self.begin(press), press));
            }
            let Some((tone, press)) = &mut self.sounding else {
                rest.fill(0);
                break;
            };
            let length = press.length.unwrap_or_else(|| self.rate.samples(HELD_MS_MAX));
            let left = length.saturating_sub(press.sounded);
            if left == 0 {
                tone.release();
            }
            let count = if left == 0 { rest.len() } else { left.min(rest.len()) };
            let filled = tone.fill(&mut rest[..count]);
            press.sounded += filled;
            at += filled;
            if tone.is_over() {
                self.sounding = None;
                self.pause = self.rate.samples(PAUSE_MS);
            }
        }
        true
    }

    fn begin(&self, press: Press) -> ToneGenerator {
        ToneGenerator::new(&Tone::dtmf(press.key, u32::MAX, 0), self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use audio::{DtmfDetector, DtmfEvent};

    const RATE: SampleRate = SampleRate::Hz8000;

    fn heard(sound: &[i16]) -> Vec<(char, u32)> {
        let (mut detector, mut keys) = (DtmfDetector::new(RATE), Vec::new());
        detector.push(sound, |event| {
            if let DtmfEvent::Released { key, millis } = event {
                keys.push((key.as_char(), millis));
            }
        });
        keys
    }

    fn play(tones: &mut Tones, frames: usize) -> Vec<i16> {
        let mut sound = vec![99; frames * 160];
        let filled = sound.chunks_mut(160).filter_map(|frame| tones.fill(frame).then_some(()));
        let _ = filled.count();
        sound
    }

    #[test]
    fn keys_sound_one_after_another_with_pauses() {
        let mut tones = Tones::new(RATE);
        assert!(tones.send("19#D"));
        assert!(!tones.send("x"));
        let sound = play(&mut tones, 50);
        let keys = heard(&sound);
        assert_eq!(keys.iter().map(|(key, _)| *key).collect::<String>(), "19#D");
        assert!(keys.iter().all(|(_, millis)| (100..=140).contains(millis)), "{keys:?}");
        assert!(!tones.is_active());
        assert_eq!(sound.last(), Some(&99), "what follows is left alone");
    }

    #[test]
    fn a_held_key_sounds_until_it_is_released_and_a_short_one_long_enough() {
        let mut tones = Tones::new(RATE);
        let key = |c| Key::from_char(c).unwrap();
        tones.press(key('5'));
        let mut sound = play(&mut tones, 20);
        tones.release(Duration::from_millis(450));
        sound.extend(play(&mut tones, 20));
        tones.press(key('6'));
        tones.release(Duration::from_millis(10));
        sound.extend(play(&mut tones, 20));
        let keys = heard(&sound);
        assert_eq!(keys.iter().map(|(key, _)| *key).collect::<String>(), "56");
        assert!((430..=470).contains(&keys[0].1) && (50..=90).contains(&keys[1].1), "{keys:?}");
    }

    #[test]
    fn events_on_another_clock_than_the_sound_keep_its_timestamps() {
        let event = TelephoneEvent { send: 101, receive: 101, clock_rate: 8_000 };
        let mut events = Events::new(event);
        assert!(events.send("7"));
        let seen: Vec<_> =
            (0..12_u32).filter_map(|n| events.poll(9_000 + n * 960, 48_000)).collect();
        assert!(seen.len() >= 6 && seen.iter().all(|packet| packet.timestamp == 9_000));
        let last = rtp::TelephoneEvent::parse(&seen.last().unwrap().payload).unwrap();
        assert_eq!((last.event, last.end, last.duration), (7, true, 960));
    }
}
