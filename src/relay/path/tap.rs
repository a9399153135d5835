//! Stage: copies of both voices for the recogniser and the recorder, through bounded rings. Of a
//! leg that another leg hears, its packets are copied as they came, and decoded elsewhere.
//!
//! A reader that is too slow loses frames, which are counted; it never holds the call up.

use base::{Instant, limit};
use media::{Channel, FRAME_SAMPLES, LegPlan, TAP_PAYLOAD_BYTES, TapFrame, TapKind, TapPacket};
use rtp::packet::Packet;
use rtrb::Producer;

use super::counters::{DropReason, Meter, Tally};

/// The listeners of one session.
#[derive(Default)]
pub(crate) struct Taps {
    rings: Vec<Producer<TapFrame>>,
    /// Who wants the packets of a leg that another leg hears.
    packets: Option<Producer<TapPacket>>,
    masked: bool,
}

impl Taps {
    /// Adds a listener; one more than limit `relay.taps` is refused.
    pub(crate) fn add(&mut self, ring: Producer<TapFrame>) -> bool {
        self.rings.retain(|ring| !ring.is_abandoned());
        let room = self.rings.len() < limit::RELAY_TAPS.get();
        if room {
            self.rings.push(ring);
        }
        room
    }

    /// Gives the packets to a recorder, instead of one before.
    pub(crate) fn give_packets(&mut self, ring: Producer<TapPacket>) {
        self.packets = Some(ring);
    }

    /// Copies a packet of sound or noise that is decoded by nobody here; nothing of one that
    /// cannot be decoded, or while masked.
    #[inline]
    pub(crate) fn packet(
        &mut self,
        now: Instant,
        plan: &LegPlan,
        packet: &Packet<'_>,
        tally: &mut Tally,
    ) {
        if self.packets.is_some() && !self.masked {
            self.copy(now, plan, packet, tally);
        }
    }

    fn copy(&mut self, now: Instant, plan: &LegPlan, packet: &Packet<'_>, tally: &mut Tally) {
        let payload_type = packet.payload_type();
        let sound = plan.accept.iter().find(|format| format.payload_type == payload_type);
        let is_noise = plan.comfort_noise.is_some_and(|noise| noise.receive == payload_type);
        let kind = match sound {
            Some(format) => TapKind::Sound(format.codec),
            None if is_noise => TapKind::Noise,
            None => return,
        };
        let (Some(ring), payload) = (&mut self.packets, packet.payload()) else { return };
        let mut bytes = [0; TAP_PAYLOAD_BYTES];
        let Some(room) = bytes.get_mut(..payload.len()) else { return };
        room.copy_from_slice(payload);
        let pushed = ring.push(TapPacket {
            at: now,
            ssrc: packet.ssrc(),
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            kind,
            length: payload.len() as u16,
            bytes,
        });
        match pushed {
            Ok(()) => tally.count(Meter::Tapped, 1),
            Err(_) if ring.is_abandoned() => self.packets = None,
            Err(_) => tally.drop(DropReason::TapFull),
        }
    }

    /// While masked, listeners get silence: time goes on, words do not (DESIGN 4.7).
    pub(crate) const fn mask(&mut self, masked: bool) {
        self.masked = masked;
    }

    /// Hands 20 ms to every listener.
    pub(crate) fn push(&mut self, mut frame: TapFrame, tally: &mut Tally) {
        if self.rings.is_empty() {
            return;
        }
        if self.masked {
            frame.samples = [0; FRAME_SAMPLES];
            frame.speech = false;
        }
        frame.speech &= frame.channel == Channel::Caller;
        let mut gone = false;
        for ring in &mut self.rings {
            match ring.push(frame) {
                Ok(()) => tally.count(Meter::Tapped, 1),
                Err(_) if ring.is_abandoned() => gone = true,
                Err(_) => tally.drop(DropReason::TapFull),
            }
        }
        if gone {
            self.rings.retain(|ring| !ring.is_abandoned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(position: u64) -> TapFrame {
        let samples = [5; FRAME_SAMPLES];
        TapFrame { channel: Channel::Caller, position, speech: true, narrowband: true, samples }
    }

    #[test]
    fn a_slow_reader_loses_frames_and_others_do_not() {
        let (mut taps, mut tally) = (Taps::default(), Tally::default());
        let (slow, mut slow_reader) = rtrb::RingBuffer::new(2);
        let (quick, mut quick_reader) = rtrb::RingBuffer::new(8);
        assert!(taps.add(slow) && taps.add(quick));
        (0..5).for_each(|n| taps.push(frame(n * 320), &mut tally));
        assert_eq!(tally.dropped(DropReason::TapFull), 3);
        assert_eq!((slow_reader.slots(), quick_reader.slots()), (2, 5));
        assert_eq!(slow_reader.pop(), Ok(frame(0)));
        assert_eq!(quick_reader.pop(), Ok(frame(0)));
    }

    #[test]
    fn a_masked_span_keeps_time_and_holds_no_sound() {
        let (mut taps, mut tally) = (Taps::default(), Tally::default());
        let (ring, mut reader) = rtrb::RingBuffer::new(8);
        taps.add(ring);
        taps.mask(true);
        taps.push(frame(640), &mut tally);
        let seen = reader.pop().unwrap();
        assert_eq!((seen.position, seen.speech), (640, false));
        assert_eq!(seen.samples, [0; FRAME_SAMPLES]);
    }

    #[test]
    fn listeners_are_bounded_and_make_room_when_they_leave() {
        let mut taps = Taps::default();
        let mut readers = Vec::new();
        for _ in 0..limit::RELAY_TAPS.get() {
            let (ring, reader) = rtrb::RingBuffer::new(1);
            assert!(taps.add(ring));
            readers.push(reader);
        }
        assert!(!taps.add(rtrb::RingBuffer::new(1).0));
        readers.pop();
        assert!(taps.add(rtrb::RingBuffer::new(1).0));
    }
}
