//! Key presses of the caller as telephone events (RFC 4733): each reported once, when it begins.
//!
//! Tones in the sound itself are not looked for.

use std::time::Duration;

use base::Instant;
use media::MediaEvent;
use rtp::dtmf::{DtmfEvent, DtmfReceiver};
use rtp::packet::Packet;

/// One receiver for each telephone-event payload type.
pub(crate) struct Keys(Vec<(u8, u32, DtmfReceiver)>);

impl Keys {
    pub(crate) fn new(events: &[(u8, u32)]) -> Self {
        let receiver =
            |(payload_type, clock): &(u8, u32)| (*payload_type, *clock, DtmfReceiver::new(*clock));
        Self(events.iter().map(receiver).collect())
    }

    /// Takes a new plan's payload types; those that stay keep their state, so that a key held
    /// over a re-INVITE is not pressed twice.
    pub(crate) fn update(&mut self, events: &[(u8, u32)]) {
        let fresh = Self::new(events).0.into_iter().map(|fresh| {
            let known = self.0.iter().find(|known| (known.0, known.1) == (fresh.0, fresh.1));
            known.cloned().unwrap_or(fresh)
        });
        self.0 = fresh.collect();
    }

    /// Whether the payload type is one of ours.
    pub(crate) fn knows(&self, payload_type: u8) -> bool {
        self.0.iter().any(|known| known.0 == payload_type)
    }

    /// Takes a telephone-event packet.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        event: &mut dyn FnMut(MediaEvent),
    ) {
        let payload_type = packet.payload_type();
        let Some((.., receiver)) = self.0.iter_mut().find(|known| known.0 == payload_type) else {
            return;
        };
        for seen in receiver.handle_packet(now, packet.timestamp(), packet.payload()) {
            if let DtmfEvent::Started { digit } = seen {
                event(MediaEvent::Digit { digit: digit.to_char(), duration: Duration::ZERO });
            }
        }
    }

    /// Whether a key is down: what is heard meanwhile is its tone, not speech.
    pub(crate) fn is_down(&mut self, now: Instant) -> bool {
        self.0.iter_mut().fold(false, |down, (.., receiver)| {
            let _ = receiver.handle_timeout(now);
            down | receiver.poll_timeout().is_some()
        })
    }

    /// Another source speaks.
    pub(crate) fn reset(&mut self) {
        self.0.iter_mut().for_each(|(.., receiver)| {
            let _ = receiver.reset();
        });
    }
}
