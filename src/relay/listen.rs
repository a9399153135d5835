//! Listening to a leg that another leg hears: tapped packets to sound, on whatever thread wants
//! it. The worker that forwards the packets has copied them and does no more.

use audio::{Codec, SampleRate};
use base::Instant;
use media::{FRAME_SAMPLES, Format, TapKind, TapPacket};
use rtp::Header;
use rtp::packet::{HEADER_BYTES, Packet};
use rtrb::Consumer;

use crate::path::FRAME;
use crate::path::transform::Hear;

/// Frames that one call may make up for; what is older is left out.
const CATCH_UP: u32 = 50;
/// Payload types as the jitter buffer is to see them; Opus and noise have one here only.
const OPUS: u8 = 111;
const NOISE: u8 = 13;

/// See the module.
pub struct Listener {
    packets: Consumer<TapPacket>,
    hear: Hear,
    ssrc: Option<u32>,
    /// When the next frame is due, and its position.
    next: Instant,
    position: u64,
}

impl Listener {
    /// Listens to these packets; positions count from `began`.
    #[must_use]
    pub fn new(packets: Consumer<TapPacket>, began: Instant) -> Self {
        let format = |codec: Codec| {
            let payload_type = codec.payload_type().unwrap_or(OPUS);
            Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 }
        };
        let formats = Codec::ALL.map(format);
        let hear = Hear::new(&formats, Some(NOISE), SampleRate::Hz16000);
        Self { packets, hear, ssrc: None, next: began + FRAME, position: 0 }
    }

    /// Takes what has come and hands on, with their positions, the frames at
    /// [`media::TAP_RATE`] that are due and hold sound. What could not be done in time is a gap.
    pub fn listen(&mut self, now: Instant, hand_on: &mut dyn FnMut(u64, &[i16; FRAME_SAMPLES])) {
        let late = now.since(self.next).as_nanos() / FRAME.as_nanos();
        let frames = u32::try_from(late).unwrap_or(u32::MAX);
        if let Some(missed) = frames.checked_sub(CATCH_UP).filter(|missed| *missed > 0) {
            self.pass(missed);
        }
        while self.next <= now {
            self.take_until(self.next);
            let mut frame = [0; FRAME_SAMPLES];
            let filled = self.hear.frame(self.next, &mut frame);
            if filled.samples > 0 || filled.noise {
                hand_on(self.position, &frame);
            }
            self.pass(1);
        }
    }

    fn pass(&mut self, frames: u32) {
        self.next += FRAME.saturating_mul(frames);
        self.position += u64::from(frames) * FRAME_SAMPLES as u64;
    }

    /// Takes what came before that time.
    fn take_until(&mut self, until: Instant) {
        while self.packets.peek().is_ok_and(|packet| packet.at <= until) {
            let Ok(tapped) = self.packets.pop() else { return };
            if self.ssrc.replace(tapped.ssrc) != Some(tapped.ssrc) {
                self.hear.reset();
            }
            let header = Header {
                marker: tapped.marker,
                payload_type: match tapped.kind {
                    TapKind::Sound(codec) => codec.payload_type().unwrap_or(OPUS),
                    TapKind::Noise => NOISE,
                },
                sequence: tapped.sequence,
                timestamp: tapped.timestamp,
                ssrc: tapped.ssrc,
            };
            let mut bytes = [0; HEADER_BYTES + media::TAP_PAYLOAD_BYTES];
            let Ok(length) = header.write(tapped.payload(), &mut bytes) else { continue };
            if let Ok(packet) = Packet::parse(&bytes[..length]) {
                // One that comes too late or does not fit is a loss in the recording.
                let _ = self.hear.push(tapped.at, &packet);
            }
        }
    }
}
