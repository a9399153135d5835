//! Between two sessions of one worker: what one hears on its way to the one that sends it on.

use std::time::Duration;

use base::SessionId;
use base::limit::{RELAY_PARCELS, RTP_PACKET_BYTES};
use rtp::Digit;
use rtp::packet::HEADER_BYTES;

use super::numbers::Numbered;
use crate::srtp;

/// Something for another session of the same worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Passing {
    /// The session that it is for.
    pub to: SessionId,
    pub(crate) what: What,
}

/// What is passed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum What {
    /// A packet to be sent.
    Packet(Numbered),
    /// A key goes down, to be heard as a tone or told as an event.
    Press {
        /// The key.
        digit: Digit,
        /// Whether it is to be heard, even by a peer that takes events.
        as_tone: bool,
    },
    /// It goes up, after this time.
    Release(Duration),
    /// The share of what is sent to the session's peer that it says it loses, 0 to 1.
    Loss(f32),
}

/// A [`Passing`] with its payload, which has room for a header before it and a tag behind it, so
/// that it is protected where it lies.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// What it is.
    pub passing: Passing,
    length: usize,
    bytes: [u8; HEADER_BYTES + RTP_PACKET_BYTES.get() + srtp::OVERHEAD],
}

impl Parcel {
    /// Wraps a payload; `None` where it is larger than a packet may be.
    #[must_use]
    pub fn new(passing: Passing, payload: &[u8]) -> Option<Self> {
        let bytes = [0; HEADER_BYTES + RTP_PACKET_BYTES.get() + srtp::OVERHEAD];
        let mut parcel = Self { passing, length: 0, bytes };
        parcel.fill(passing, payload).then_some(parcel)
    }

    fn fill(&mut self, passing: Passing, payload: &[u8]) -> bool {
        let fits = payload.len() <= RTP_PACKET_BYTES.get() - HEADER_BYTES;
        if fits {
            self.passing = passing;
            self.length = payload.len();
            self.bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
        }
        fits
    }

    /// The buffer around the payload, and the payload's length.
    pub(crate) const fn parts(&mut self) -> (&mut [u8], usize) {
        (&mut self.bytes, self.length)
    }
}

/// What the step of one session left for others, at most limit `relay.parcels`; its memory is taken
/// once.
#[derive(Default)]
pub struct Outbox {
    parcels: Vec<Parcel>,
    taken: usize,
}

impl Outbox {
    /// An empty one, with its memory.
    #[must_use]
    pub fn new() -> Self {
        Self { parcels: Vec::with_capacity(RELAY_PARCELS.get()), taken: 0 }
    }

    /// Leaves something; `false` where there is no room.
    pub fn push(&mut self, passing: Passing, payload: &[u8]) -> bool {
        if let Some(parcel) = self.parcels.get_mut(self.taken) {
            let fits = parcel.fill(passing, payload);
            self.taken += usize::from(fits);
            return fits;
        }
        // One that was taken out has no memory, and takes nothing.
        if self.taken >= self.parcels.capacity() {
            return false;
        }
        let parcel = Parcel::new(passing, payload);
        let fits = parcel.is_some();
        self.parcels.extend(parcel);
        self.taken += usize::from(fits);
        fits
    }

    /// Whether nothing was left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.taken == 0
    }

    /// Takes what was left, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = &mut Parcel> {
        let taken = std::mem::take(&mut self.taken);
        self.parcels[..taken].iter_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outbox_is_bounded_and_keeps_the_order() {
        let mut outbox = Outbox::new();
        let loss = |n: u8| Passing { to: SessionId::new(1, n), what: What::Loss(0.0) };
        for round in 0..3 {
            for n in 0..RELAY_PARCELS.value as u8 {
                assert!(outbox.push(loss(n), &[n; 20]), "{round}");
            }
            assert!(!outbox.push(loss(99), &[]));
            let seen: Vec<_> = outbox
                .drain()
                .map(|parcel| {
                    let to = parcel.passing.to;
                    let (bytes, length) = parcel.parts();
                    (to, bytes[HEADER_BYTES..HEADER_BYTES + length].to_vec())
                })
                .collect();
            let expected =
                (0..RELAY_PARCELS.value as u8).map(|n| (SessionId::new(1, n), vec![n; 20]));
            assert_eq!(seen, expected.collect::<Vec<_>>());
            assert!(outbox.is_empty());
        }
        assert!(!outbox.push(loss(1), &[0; 1489]) && outbox.push(loss(1), &[0; 1488]));
        assert!(!Outbox::default().push(loss(1), &[]), "one that was taken away takes nothing");
    }
}
