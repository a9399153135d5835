//! Keys pressed for a bridged leg's peer, in the form that it takes, on the session's 20 ms clock:
//! those that came by signalling, and those that the other leg's source makes in another form;
//! and the tone that tells it that somebody's telephone rings. The other leg's sound makes room
//! for them meanwhile.

use std::time::Duration;

use audio::{Key, SampleRate, Tone, ToneGenerator};
use media::LegPlan;
use rtp::Digit;

use super::super::numbers::Numbered;
use super::agent::Output;
use super::packets::{FRAME_MS, Packets};
use super::presses::{Events, Tones};

/// See the module.
pub(crate) enum Press {
    Events(Line),
    Tones(Tones, Box<Packets>),
    Ring(Box<(ToneGenerator, Packets)>),
}

/// Events and their numbers.
pub(crate) struct Line {
    events: Events,
    sequence: u16,
    timestamp: u32,
    timeline: u32,
    clock_rate: u32,
}

impl Press {
    /// Presses for the peer of `plan`, as events where it takes them and nothing else is wanted;
    /// its `number` tells its numbers from those of others. `None` where memory is short, or where
    /// the peer takes no sound that is made here.
    pub(crate) fn new(plan: &LegPlan, as_tone: bool, number: u32) -> Option<Self> {
        if let Some(event) = plan.telephone_event.filter(|_| !as_tone) {
            return Some(Self::Events(Line {
                events: Events::new(event),
                sequence: 0,
                timestamp: 0,
                timeline: number,
                clock_rate: plan.clock_rate(),
            }));
        }
        let send = plan.send?;
        let rate = send.codec.sample_rate().min(SampleRate::Hz16000);
        let mut packets = Packets::new(send, rate, 0).ok()?;
        packets.set_timeline(number);
        Some(Self::Tones(Tones::new(rate), Box::new(packets)))
    }

    /// The ring-back tone (ITU-T E.180), until it is taken away; `None` as with [`Self::new`].
    pub(crate) fn ring(plan: &LegPlan, number: u32) -> Option<Self> {
        let send = plan.send?;
        let rate = send.codec.sample_rate().min(SampleRate::Hz16000);
        let mut packets = Packets::new(send, rate, 0).ok()?;
        packets.set_timeline(number);
        Some(Self::Ring(Box::new((ToneGenerator::new(&Tone::RINGBACK_EU, rate), packets))))
    }

    /// Whether it is the ring-back tone.
    pub(crate) const fn is_ring(&self) -> bool {
        matches!(self, Self::Ring(_))
    }

    /// Queues keys; `false` where a character is none or too many wait.
    pub(crate) fn send(&mut self, keys: &str) -> bool {
        match self {
            Self::Events(line) => line.events.send(keys),
            Self::Tones(tones, _) => tones.send(keys),
            Self::Ring(_) => false,
        }
    }

    /// A key goes down, and stays until [`Self::release`].
    pub(crate) fn press(&mut self, digit: Digit) {
        match self {
            Self::Events(line) => line.events.press(digit),
            Self::Tones(tones, _) => {
                Key::from_event(digit.event()).into_iter().for_each(|key| tones.press(key));
            }
            Self::Ring(_) => {}
        }
    }

    /// The key that is held goes up, after `duration`.
    pub(crate) fn release(&mut self, duration: Duration) {
        match self {
            Self::Events(line) => line.events.release(),
            Self::Tones(tones, _) => tones.release(duration),
            Self::Ring(_) => {}
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        match self {
            Self::Events(line) => line.events.is_active(),
            Self::Tones(tones, _) => tones.is_active(),
            Self::Ring(_) => true,
        }
    }

    /// One frame of 20 ms.
    pub(crate) fn frame(&mut self, out: &mut dyn Output) {
        match self {
            Self::Events(line) => line.frame(out),
            Self::Ring(ring) => {
                let (tone, packets) = ring.as_mut();
                let mut sound = [0; SampleRate::Hz16000.samples(FRAME_MS)];
                let sound = &mut sound[..packets.rate().samples(FRAME_MS)];
                tone.fill(sound);
                packets.frame(sound, &mut |packet, payload| out.packet(packet, payload));
            }
            Self::Tones(tones, packets) => {
                let mut sound = [0; SampleRate::Hz16000.samples(FRAME_MS)];
                let sound = &mut sound[..packets.rate().samples(FRAME_MS)];
                tones.fill(sound);
                packets.frame(sound, &mut |packet, payload| out.packet(packet, payload));
            }
        }
    }
}

impl Line {
    fn frame(&mut self, out: &mut dyn Output) {
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(self.clock_rate / 1000 * FRAME_MS);
        let Some(packet) = self.events.poll(timestamp, self.clock_rate) else {
            return;
        };
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        let numbered = Numbered {
            timeline: self.timeline,
            run: 0,
            sequence,
            timestamp: packet.timestamp,
            clock_rate: self.clock_rate,
            payload_type: self.events.event().send,
            marker: packet.marker,
            is_event: true,
        };
        out.packet(&numbered, &packet.payload);
    }
}
