//! Sound to packets: resampling, encoding, packet times from 10 to 60 ms, numbering.

use audio::codec::SetupError;
use audio::{Codec, Encoder, OpusSettings, Resampler, SampleRate};
use base::limit;
use media::Format;

use super::super::numbers::Numbered;

/// How long a frame is, in milliseconds.
pub(crate) const FRAME_MS: u32 = 20;

/// See the module. It takes frames of 20 ms at one rate and hands on the packets that are full.
pub(crate) struct Packets {
    rate: SampleRate,
    /// How much CPU Opus may take for quality.
    complexity: u8,
    format: Format,
    encoder: Encoder,
    resampler: Option<Resampler>,
    /// Sound waiting for a packet to be full.
    waiting: Vec<i16>,
    /// Timestamp of the first sample that waits.
    waiting_since: u32,
    resampled: Vec<i16>,
    /// Timestamp of the present frame.
    timestamp: u32,
    sequence: u16,
    /// Another clock is another timeline.
    timeline: u32,
    /// Nothing was sent just before, so that the next packet carries the marker.
    after_gap: bool,
}

impl Packets {
    pub(crate) fn new(
        format: Format,
        rate: SampleRate,
        complexity: u8,
    ) -> Result<Self, SetupError> {
        let encoder = encoder(&format, rate, complexity)?;
        let taken = encoder.sample_rate();
        Ok(Self {
            rate,
            complexity,
            format,
            resampler: (taken != rate).then(|| Resampler::new(rate, taken)),
            encoder,
            waiting: Vec::with_capacity(rate.samples(4 * FRAME_MS)),
            waiting_since: 0,
            resampled: vec![0; taken.samples(3 * FRAME_MS)],
            timestamp: 0,
            sequence: 0,
            timeline: 0,
            after_gap: true,
        })
    }

    /// Takes another format; the numbers go on.
    pub(crate) fn set_format(&mut self, format: Format, complexity: u8) -> Result<(), SetupError> {
        if (format, complexity) != (self.format, self.complexity) {
            let fresh = Self::new(format, self.rate, complexity)?;
            let same_clock = format.codec.clock_rate() == self.format.codec.clock_rate();
            *self = Self {
                timestamp: self.timestamp,
                sequence: self.sequence,
                timeline: self.timeline.wrapping_add(u32::from(!same_clock)),
                after_gap: self.after_gap,
                ..fresh
            };
        }
        Ok(())
    }

    /// Begins another timeline, so that nobody takes these numbers for others.
    pub(crate) const fn set_timeline(&mut self, timeline: u32) {
        self.timeline = timeline;
    }

    /// The rate of the sound that it takes.
    pub(crate) const fn rate(&self) -> SampleRate {
        self.rate
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// Takes back what has not been sent; returns how many samples that was.
    pub(crate) fn cut(&mut self) -> usize {
        // They stay as silence, so that time goes on.
        self.waiting.fill(0);
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
        self.waiting.len()
    }

    /// Tells the encoder what the peer loses, 0 to 1.
    pub(crate) fn set_loss(&mut self, loss: f32) {
        self.encoder.set_expected_loss((loss * 100.0).clamp(5.0, 30.0) as u8);
    }

    /// Lets `frames` frames pass without sending.
    pub(crate) fn skip(&mut self, frames: u32) {
        self.waiting.clear();
        let step = self.format.codec.timestamp_step(FRAME_MS).wrapping_mul(frames);
        self.timestamp = self.timestamp.wrapping_add(step);
        self.after_gap = true;
    }

    /// Takes 20 ms and hands on the packets that are full.
    pub(crate) fn frame(&mut self, frame: &[i16], send: &mut dyn FnMut(&Numbered, &[u8])) {
        let since = self.timestamp;
        self.timestamp = since.wrapping_add(self.format.codec.timestamp_step(FRAME_MS));
        let packet_ms = packet_ms(&self.format);
        let needed = self.rate.samples(packet_ms);
        if self.waiting.is_empty() {
            // Most packets are as long as a frame, and nothing waits.
            if frame.len() == needed {
                return self.packet(frame, since, send);
            }
            self.waiting_since = since;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.extend_from_slice(frame);
        let packets = waiting.chunks_exact(needed);
        let at = waiting.len() - packets.remainder().len();
        for sound in packets {
            self.packet(sound, self.waiting_since, send);
            let step = self.format.codec.timestamp_step(packet_ms);
            self.waiting_since = self.waiting_since.wrapping_add(step);
        }
        waiting.drain(..at);
        self.waiting = waiting;
    }

    /// Encodes a packet's sound and hands it on.
    fn packet(&mut self, sound: &[i16], timestamp: u32, send: &mut dyn FnMut(&Numbered, &[u8])) {
        // Not kept, so that no call has one of its own to be fetched into the caches.
        let mut payload = [0; limit::RTP_PACKET_BYTES.get()];
        let length = self.encode(sound, &mut payload);
        if length == 0 {
            self.after_gap = true;
            return;
        }
        let marker = std::mem::take(&mut self.after_gap);
        let packet = self.number(self.format.payload_type, timestamp, marker, false);
        send(&packet, &payload[..length]);
    }

    /// Lets the frame pass with something else than sound, such as comfort noise or a key:
    /// `timestamp` is the frame's own for [`Self::number`].
    pub(crate) fn other(&mut self) -> u32 {
        let timestamp = self.timestamp;
        self.skip(1);
        timestamp
    }

    /// The timestamp of the frame that comes next.
    pub(crate) const fn timestamp(&self) -> u32 {
        self.timestamp
    }

    /// The next number, for a packet that the owner makes.
    pub(crate) const fn number(
        &mut self,
        payload_type: u8,
        timestamp: u32,
        marker: bool,
        is_event: bool,
    ) -> Numbered {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Numbered {
            timeline: self.timeline,
            run: 0,
            sequence,
            timestamp,
            clock_rate: self.format.codec.clock_rate(),
            payload_type,
            marker,
            is_event,
        }
    }

    /// 0 where nothing is to be sent.
    fn encode(&mut self, sound: &[i16], payload: &mut [u8]) -> usize {
        let sound = match &mut self.resampler {
            None => sound,
            Some(resampler) => match resampler.process(sound, &mut self.resampled) {
                Ok(length) => &self.resampled[..length],
                Err(_) => return 0,
            },
        };
        self.encoder.encode(sound, payload).unwrap_or(0)
    }
}

/// Milliseconds in a packet. Opus has no packets of every length (RFC 6716 section 3.2.5), and a
/// packet time is a wish.
fn packet_ms(format: &Format) -> u32 {
    let wished = u32::from(format.packet_ms.clamp(10, 60));
    match (format.codec, wished) {
        (Codec::Opus, 41..=59) => 40,
        (Codec::Opus, _) => wished / 10 * 10,
        _ => wished,
    }
}

fn encoder(format: &Format, rate: SampleRate, complexity: u8) -> Result<Encoder, SetupError> {
    let default = OpusSettings::default();
    let bitrate = if format.bitrate == 0 { default.bitrate } else { format.bitrate };
    Encoder::new(
        format.codec,
        &OpusSettings {
            sample_rate: rate,
            // What a peer may ask for lies between these (RFC 7587 section 6.1); speech gains
            // nothing above 64 kb/s.
            bitrate: bitrate.clamp(6_000, 64_000),
            complexity,
            is_discontinuous: format.dtx,
            ..default
        },
    )
}
