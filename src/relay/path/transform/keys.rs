//! Key presses of the caller as telephone events (RFC 4733): each reported once, when it begins.
//!
//! Tones in the sound itself are not looked for.

use std::time::Duration;

use base::Instant;
use media::{MediaEvent, TelephoneEvent};
use rtp::dtmf::{DtmfEvent, DtmfReceiver};
use rtp::packet::Packet;

/// The receiver of the telephone events that were agreed on.
pub(crate) struct Keys(Option<(u8, u32, DtmfReceiver)>);

impl Keys {
    pub(crate) fn new(event: Option<&TelephoneEvent>) -> Self {
        let receiver = |event: &TelephoneEvent| {
            (event.receive, event.clock_rate, DtmfReceiver::new(event.clock_rate))
        };
        Self(event.map(receiver))
    }

    /// Takes a new plan's payload type; where it stays so does the state, so that a key held
    /// over a re-INVITE is not pressed twice.
    pub(crate) fn update(&mut self, event: Option<&TelephoneEvent>) {
        let known = |known: &(u8, u32, _)| (known.0, known.1);
        let fresh = event.map(|event| (event.receive, event.clock_rate));
        if self.0.as_ref().map(known) != fresh {
            *self = Self::new(event);
        }
    }

    /// Whether the payload type is one of ours.
    pub(crate) fn knows(&self, payload_type: u8) -> bool {
        self.0.as_ref().is_some_and(|known| known.0 == payload_type)
    }

    /// Takes a telephone-event packet.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        event: &mut dyn FnMut(MediaEvent),
    ) {
        let Some((.., receiver)) = &mut self.0 else { return };
        for seen in receiver.handle_packet(now, packet.timestamp(), packet.payload()) {
            if let DtmfEvent::Started { digit } = seen {
                event(MediaEvent::Digit { digit: digit.to_char(), duration: Duration::ZERO });
            }
        }
    }

    /// Whether a key is down: what is heard meanwhile is its tone, not speech.
    pub(crate) fn is_down(&mut self, now: Instant) -> bool {
        self.0.as_mut().is_some_and(|(.., receiver)| {
            let _ = receiver.handle_timeout(now);
            receiver.poll_timeout().is_some()
        })
    }

    /// Another source speaks.
    pub(crate) fn reset(&mut self) {
        if let Some((.., receiver)) = &mut self.0 {
            let _ = receiver.reset();
        }
    }
}
