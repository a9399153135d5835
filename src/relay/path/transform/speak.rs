//! The agent's 16 kHz sound to packets: resampling, encoding, numbering; key presses in between.
//!
//! Silence is sent as well (an Opus plan with DTX excepted): it keeps the way through NATs open
//! and the far jitter buffer filled, so that a speech is heard from its first sample on.

use audio::codec::SetupError;
use audio::{Encoder, OpusSettings, Resampler, SampleRate};
use base::{Instant, limit};
use media::{FRAME_SAMPLES, Format, LegPlan};
use rtp::dtmf::DtmfSender;
use rtp::{Digit, Header, SendStats};
use std::time::Duration;

const RATE: SampleRate = SampleRate::Hz16000;
/// How long a key is held: what most receivers need twice over.
const PRESS: Duration = Duration::from_millis(120);

/// See the module.
pub(crate) struct Speak {
    format: Format,
    encoder: Encoder,
    resampler: Option<Resampler>,
    /// Sound waiting for a packet to be full, at 16 kHz.
    waiting: Vec<i16>,
    /// Timestamp of the first sample that waits.
    waiting_since: u32,
    resampled: Vec<i16>,
    payload: Box<[u8; limit::RTP_PACKET_BYTES.get()]>,
    /// Timestamp of the present frame.
    timestamp: u32,
    sequence: u16,
    /// Nothing was sent just before, so that the next packet carries the marker.
    after_gap: bool,
    keys: Option<(u8, DtmfSender)>,
    pub(crate) stats: SendStats,
}

impl Speak {
    pub(crate) fn new(plan: &LegPlan) -> Result<Self, SetupError> {
        let encoder = encoder(&plan.send)?;
        let rate = encoder.sample_rate();
        Ok(Self {
            format: plan.send,
            resampler: (rate != RATE).then(|| Resampler::new(RATE, rate)),
            encoder,
            waiting: Vec::with_capacity(4 * FRAME_SAMPLES),
            waiting_since: plan.source.timestamp,
            resampled: vec![0; 4 * FRAME_SAMPLES],
            payload: Box::new([0; limit::RTP_PACKET_BYTES.get()]),
            timestamp: plan.source.timestamp,
            sequence: plan.source.sequence,
            after_gap: true,
            keys: keys(plan),
            stats: SendStats::new(plan.source.ssrc, plan.send.codec.clock_rate()),
        })
    }

    /// Takes a new plan's format; numbers and timestamps go on (RFC 7160 section 4.1 where the
    /// clock changes).
    pub(crate) fn update(&mut self, plan: &LegPlan) -> Result<(), SetupError> {
        let was_active = self.keys.as_ref().is_some_and(|(_, sender)| sender.is_active());
        if plan.send != self.format {
            let encoder = encoder(&plan.send)?;
            let rate = encoder.sample_rate();
            self.resampler = (rate != RATE).then(|| Resampler::new(RATE, rate));
            self.encoder = encoder;
            if plan.send.codec.clock_rate() != self.format.codec.clock_rate() {
                self.stats = SendStats::new(self.stats.ssrc(), plan.send.codec.clock_rate());
            }
            self.format = plan.send;
            self.waiting.clear();
        }
        if !was_active {
            self.keys = keys(plan);
        }
        Ok(())
    }

    /// Queues key presses; `false` where the peer takes no telephone events on our clock, a
    /// character is no key or too many wait.
    pub(crate) fn press(&mut self, digits: &str) -> bool {
        let Some((_, sender)) = &mut self.keys else {
            return false;
        };
        digits
            .chars()
            .all(|key| Digit::from_char(key).is_some_and(|digit| sender.send(digit, PRESS).is_ok()))
    }

    /// Whether keys are being sent, during which sound waits.
    pub(crate) fn is_pressing(&self) -> bool {
        self.keys.as_ref().is_some_and(|(_, sender)| sender.is_active())
    }

    /// Takes back what has not been sent; returns how many samples that was.
    pub(crate) fn cut(&mut self) -> usize {
        let unsent = self.waiting.len();
        // They stay as silence, so that time goes on.
        self.waiting.fill(0);
        if let Some(resampler) = &mut self.resampler {
            resampler.reset();
        }
        unsent
    }

    /// Tells the encoder what the peer loses, 0 to 1.
    pub(crate) fn set_loss(&mut self, loss: f32) {
        self.encoder.set_expected_loss((loss * 100.0).clamp(5.0, 30.0) as u8);
    }

    /// Lets `frames` frames pass without sending.
    pub(crate) fn skip(&mut self, frames: u32) {
        self.waiting.clear();
        let step = self.format.codec.timestamp_step(20).wrapping_mul(frames);
        self.timestamp = self.timestamp.wrapping_add(step);
        self.after_gap = true;
    }

    /// Takes 20 ms and hands on the packets that are full: header and payload.
    pub(crate) fn frame(
        &mut self,
        now: Instant,
        frame: &[i16; FRAME_SAMPLES],
        send: &mut dyn FnMut(&Header, &[u8]),
    ) {
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(self.format.codec.timestamp_step(20));
        if self.send_keys(now, timestamp, send) {
            return;
        }
        if self.waiting.is_empty() {
            self.waiting_since = timestamp;
        }
        self.waiting.extend_from_slice(frame);
        let packet_ms = u32::from(self.format.packet_ms.clamp(10, 60));
        let needed = RATE.samples(packet_ms);
        let mut at = 0;
        while self.waiting.len() - at >= needed {
            let length = self.encode(at, needed);
            at += needed;
            let timestamp = self.waiting_since;
            self.waiting_since =
                timestamp.wrapping_add(self.format.codec.timestamp_step(packet_ms));
            if length == 0 {
                self.after_gap = true;
                continue;
            }
            let header = self.header(self.format.payload_type, timestamp, self.after_gap);
            self.after_gap = false;
            self.stats.on_packet(now, timestamp, length);
            send(&header, &self.payload[..length]);
        }
        self.waiting.drain(..at);
    }

    /// Sends the key packet of this frame; whether keys have the line.
    fn send_keys(
        &mut self,
        now: Instant,
        timestamp: u32,
        send: &mut dyn FnMut(&Header, &[u8]),
    ) -> bool {
        let Some((payload_type, sender)) = self.keys.as_mut().filter(|(_, k)| k.is_active()) else {
            return false;
        };
        self.waiting.clear();
        self.after_gap = true;
        let payload_type = *payload_type;
        if let Some(packet) = sender.poll_packet(timestamp) {
            let header = self.header(payload_type, packet.timestamp, packet.marker);
            self.stats.on_packet(now, timestamp, packet.payload.len());
            send(&header, &packet.payload);
        }
        true
    }

    fn header(&mut self, payload_type: u8, timestamp: u32, marker: bool) -> Header {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        Header { marker, payload_type, sequence, timestamp, ssrc: self.stats.ssrc() }
    }

    /// Encodes `count` of the waiting samples from `at` on into `payload`; 0 where nothing is to
    /// be sent.
    fn encode(&mut self, at: usize, count: usize) -> usize {
        let sound = &self.waiting[at..at + count];
        let sound = match &mut self.resampler {
            None => sound,
            Some(resampler) => {
                let room = resampler.output_len(sound.len());
                if self.resampled.len() < room {
                    self.resampled.resize(room, 0);
                }
                match resampler.process(sound, &mut self.resampled) {
                    Ok(length) => &self.resampled[..length],
                    Err(_) => return 0,
                }
            }
        };
        self.encoder.encode(sound, &mut self.payload[..]).unwrap_or(0)
    }
}

fn encoder(format: &Format) -> Result<Encoder, SetupError> {
    let default = OpusSettings::default();
    let bitrate = if format.bitrate == 0 { default.bitrate } else { format.bitrate };
    Encoder::new(
        format.codec,
        &OpusSettings {
            sample_rate: RATE,
            // What a peer may ask for lies between these (RFC 7587 section 6.1); speech gains
            // nothing above 64 kb/s.
            bitrate: bitrate.clamp(6_000, 64_000),
            is_discontinuous: format.dtx,
            ..default
        },
    )
}

/// Telephone events share the audio's timestamps, so they must be on its clock (RFC 4733 section
/// 2.1).
fn keys(plan: &LegPlan) -> Option<(u8, DtmfSender)> {
    let clock = plan.send.codec.clock_rate();
    let event = plan.telephone_event.filter(|event| event.clock_rate == clock)?;
    Some((event.send, DtmfSender::new(clock)))
}
