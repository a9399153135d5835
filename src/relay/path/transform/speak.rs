//! The agent's 16 kHz sound to packets, with key presses in between.
//!
//! Silence is sent as well (an Opus plan with DTX excepted): it keeps the way through NATs open
//! and the far jitter buffer filled, so that a speech is heard from its first sample on.

use audio::SampleRate;
use audio::codec::SetupError;
use media::{FRAME_SAMPLES, Format, LegPlan};

use super::super::numbers::Numbered;
use super::packets::Packets;
use super::presses::Events;

const RATE: SampleRate = SampleRate::Hz16000;
/// The voice is heard by a person and one leg costs little beside its speech: Opus may try.
const COMPLEXITY: u8 = 5;

/// See the module.
pub(crate) struct Speak {
    packets: Packets,
    keys: Option<Events>,
}

impl Speak {
    pub(crate) fn new(plan: &LegPlan, send: Format) -> Result<Self, SetupError> {
        let packets = Packets::new(send, RATE, COMPLEXITY)?;
        Ok(Self { packets, keys: plan.telephone_event.map(Events::new) })
    }

    /// Takes a new plan's format; the numbers go on.
    pub(crate) fn update(&mut self, plan: &LegPlan, send: Format) -> Result<(), SetupError> {
        self.packets.set_format(send, COMPLEXITY)?;
        if !self.is_pressing() && self.keys.as_ref().map(Events::event) != plan.telephone_event {
            self.keys = plan.telephone_event.map(Events::new);
        }
        Ok(())
    }

    /// Queues key presses; `false` where the peer takes no telephone events, a character is no
    /// key or too many wait.
    pub(crate) fn press(&mut self, digits: &str) -> bool {
        self.keys.as_mut().is_some_and(|keys| keys.send(digits))
    }

    /// Whether keys are being sent, during which sound waits.
    pub(crate) fn is_pressing(&self) -> bool {
        self.keys.as_ref().is_some_and(Events::is_active)
    }

    /// Takes back what has not been sent; returns how many samples that was.
    pub(crate) fn cut(&mut self) -> usize {
        self.packets.cut()
    }

    /// Tells the encoder what the peer loses, 0 to 1.
    pub(crate) fn set_loss(&mut self, loss: f32) {
        self.packets.set_loss(loss);
    }

    /// Lets `frames` frames pass without sending.
    pub(crate) fn skip(&mut self, frames: u32) {
        self.packets.skip(frames);
    }

    /// Takes 20 ms and hands on the packets that are full.
    pub(crate) fn frame(
        &mut self,
        frame: &[i16; FRAME_SAMPLES],
        send: &mut dyn FnMut(&Numbered, &[u8]),
    ) {
        match self.keys.as_mut().filter(|keys| keys.is_active()) {
            Some(keys) => press(keys, &mut self.packets, send),
            None => self.packets.frame(frame, send),
        }
    }
}

/// Lets a frame pass with the packet of a key, if one is due.
pub(crate) fn press(
    keys: &mut Events,
    packets: &mut Packets,
    send: &mut dyn FnMut(&Numbered, &[u8]),
) {
    let timestamp = packets.other();
    let clock_rate = packets.format().codec.clock_rate();
    if let Some(packet) = keys.poll(timestamp, clock_rate) {
        let payload_type = keys.event().send;
        let header = packets.number(payload_type, packet.timestamp, packet.marker, true);
        send(&header, &packet.payload);
    }
}
