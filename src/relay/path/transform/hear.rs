//! The caller's packets to 16 kHz sound: jitter buffer, decoder, concealment, resampling.
//!
//! Payload types choose the decoder packet by packet. Key presses take another way
//! ([`super::keys`]).

use audio::{Decoder, Resampler, SampleRate, Stretcher};
use base::Instant;
use media::{FRAME_SAMPLES, Format};
use rtp::jitter::{JitterBuffer, JitterConfig, Pace, Pull, Pushed};
use rtp::packet::Packet;

use super::super::counters::DropReason;

/// The internal rate.
const RATE: SampleRate = SampleRate::Hz16000;
/// The longest payload of G.711 or G.722 that a slot takes, and of Opus (RFC 6716 section 3.4).
const WAVEFORM_BYTES: usize = 640;
const OPUS_BYTES: usize = 1275;
/// Samples of 120 ms at 48 kHz, the most that a packet of any codec decodes to.
const DECODED_MAX: usize = 5_760;
/// Pulls for one frame; 10 ms packets need two, and an undecodable one another.
const PULLS_MAX: usize = 8;

/// What is needed to decode one payload type.
struct Line {
    format: Format,
    /// Made when first needed.
    decoder: Option<(Decoder, Option<Resampler>)>,
}

/// See the module.
pub(crate) struct Hear {
    lines: Vec<Line>,
    /// One buffer for each RTP clock among the formats.
    buffers: Vec<(u32, JitterBuffer)>,
    /// The buffer in use, and the line last decoded.
    active: usize,
    line: usize,
    stretcher: Stretcher,
    /// Decoded, not yet consumed, at 16 kHz.
    ready: Vec<i16>,
    decoded: Box<[i16; DECODED_MAX]>,
    resampled: Box<[i16; DECODED_MAX]>,
    stretched: Vec<i16>,
    /// Frames that hold concealed sound.
    pub(crate) concealed: u64,
}

impl Hear {
    pub(crate) fn new(formats: &[Format]) -> Self {
        let mut hear = Self {
            lines: Vec::new(),
            buffers: Vec::new(),
            active: 0,
            line: 0,
            stretcher: Stretcher::new(RATE),
            ready: Vec::with_capacity(DECODED_MAX),
            decoded: Box::new([0; DECODED_MAX]),
            resampled: Box::new([0; DECODED_MAX]),
            stretched: Vec::new(),
            concealed: 0,
        };
        hear.set_formats(formats);
        hear
    }

    /// Takes a new plan's formats; those that stay keep their state.
    pub(crate) fn set_formats(&mut self, formats: &[Format]) {
        let mut known = core::mem::take(&mut self.lines);
        for format in formats {
            let same = |line: &Line| {
                (line.format.payload_type, line.format.codec) == (format.payload_type, format.codec)
            };
            let decoder = known.iter_mut().find(|line| same(line)).and_then(|l| l.decoder.take());
            self.lines.push(Line { format: *format, decoder });
        }
        self.line = 0;
        let active = self.buffers.get(self.active).map(|(clock, _)| *clock);
        let wanted = |clock: u32| formats.iter().any(|format| format.codec.clock_rate() == clock);
        self.buffers.retain(|(clock, _)| wanted(*clock));
        for format in formats {
            let clock = format.codec.clock_rate();
            if self.buffers.iter().all(|(known, _)| *known != clock) {
                let payload_bytes = if clock == 48_000 { OPUS_BYTES } else { WAVEFORM_BYTES };
                let config = JitterConfig { payload_bytes, ..JitterConfig::new(clock) };
                self.buffers.push((clock, JitterBuffer::new(config)));
            }
        }
        self.active =
            self.buffers.iter().position(|(clock, _)| Some(*clock) == active).unwrap_or(0);
    }

    /// The RTP clock of a payload type that is accepted.
    pub(crate) fn clock(&self, payload_type: u8) -> Option<u32> {
        let line = self.lines.iter().find(|line| line.format.payload_type == payload_type)?;
        Some(line.format.codec.clock_rate())
    }

    /// The format decoded last, or to be expected.
    pub(crate) fn format(&self) -> Option<Format> {
        self.lines.get(self.line).map(|line| line.format)
    }

    /// Takes a packet of an accepted payload type.
    pub(crate) fn push(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), DropReason> {
        let clock = self.clock(packet.payload_type()).ok_or(DropReason::PayloadType)?;
        let buffer = self.buffers.iter().position(|(known, _)| *known == clock);
        let buffer = buffer.ok_or(DropReason::PayloadType)?;
        if buffer != self.active {
            self.reset();
            self.active = buffer;
        }
        let pushed = self.buffers[buffer].1.push(
            now,
            packet.sequence(),
            packet.timestamp(),
            packet.marker(),
            packet.payload_type(),
            packet.payload(),
        );
        match pushed {
            Pushed::Stored | Pushed::Restarted => Ok(()),
            Pushed::Duplicate | Pushed::Late => Err(DropReason::Late),
            Pushed::TooLarge => Err(DropReason::Overflow),
        }
    }

    /// Forgets what waits: another source speaks.
    pub(crate) fn reset(&mut self) {
        if let Some((_, buffer)) = self.buffers.get_mut(self.active) {
            buffer.reset();
        }
    }

    /// Packets that came too late, and the present delay, of the buffer in use.
    pub(crate) fn buffer(&self) -> Option<&JitterBuffer> {
        self.buffers.get(self.active).map(|(_, buffer)| buffer)
    }

    /// The next 20 ms; silence where nothing is due. Returns the packets that could not be decoded.
    pub(crate) fn frame(&mut self, now: Instant, out: &mut [i16; FRAME_SAMPLES]) -> u64 {
        let (mut undecodable, mut concealed) = (0, false);
        for _ in 0..PULLS_MAX {
            if self.ready.len() >= FRAME_SAMPLES
                || !self.pull(now, &mut undecodable, &mut concealed)
            {
                break;
            }
        }
        let count = self.ready.len().min(FRAME_SAMPLES);
        out[..count].copy_from_slice(&self.ready[..count]);
        out[count..].fill(0);
        self.ready.drain(..count);
        self.concealed += u64::from(concealed);
        undecodable
    }

    /// Decodes what is next; `false` where nothing is due.
    fn pull(&mut self, now: Instant, undecodable: &mut u64, concealed: &mut bool) -> bool {
        let Some((clock, buffer)) = self.buffers.get_mut(self.active) else {
            return false;
        };
        let out = &mut self.decoded[..];
        let (samples, pace) = match buffer.pull(now) {
            Pull::Empty => return false,
            Pull::Packet(packet) => {
                let line = self.lines.iter();
                let at = line.clone().position(|l| l.format.payload_type == packet.payload_type);
                // A plan may have taken a payload type away while its packets waited.
                let Some(at) = at else {
                    *undecodable += 1;
                    return true;
                };
                self.line = at;
                let Some((decoder, _)) = self.lines[at].decoder() else {
                    *undecodable += 1;
                    return true;
                };
                let samples = decoder.decode(packet.payload, out).unwrap_or_else(|_| {
                    *undecodable += 1;
                    *concealed = true;
                    decoder.conceal(decoder.sample_rate().samples(20), out)
                });
                (samples, packet.pace)
            }
            Pull::Lost { ticks, following } => {
                let Some((decoder, _)) = self.lines.get_mut(self.line).and_then(Line::decoder)
                else {
                    return false;
                };
                let rate = u64::from(decoder.sample_rate().hz());
                let samples = u64::from(ticks) * rate / u64::from((*clock).max(1));
                let samples = usize::try_from(samples).unwrap_or(usize::MAX).min(DECODED_MAX);
                *concealed = true;
                let samples = match following {
                    Some(next) => decoder.recover(next, samples, out),
                    None => decoder.conceal(samples, out),
                };
                (samples, Pace::Normal)
            }
        };
        self.append(samples, pace)
    }

    /// Brings decoded sound to 16 kHz and to the pace that the jitter buffer asks for.
    fn append(&mut self, samples: usize, pace: Pace) -> bool {
        let Some((_, resampler)) = self.lines.get_mut(self.line).and_then(Line::decoder) else {
            return false;
        };
        let decoded = &self.decoded[..samples];
        let sound = match resampler {
            None => decoded,
            Some(resampler) => {
                let Ok(length) = resampler.process(decoded, &mut self.resampled[..]) else {
                    return false;
                };
                &self.resampled[..length]
            }
        };
        let pace = match pace {
            Pace::Normal => audio::Pace::Keep,
            Pace::Faster => audio::Pace::Shrink,
            Pace::Slower => audio::Pace::Grow,
        };
        let room = self.stretcher.output_len(sound.len());
        if self.stretched.len() < room {
            self.stretched.resize(room, 0);
        }
        let Ok(length) = self.stretcher.process(pace, sound, &mut self.stretched) else {
            return false;
        };
        self.ready.extend_from_slice(&self.stretched[..length]);
        samples > 0
    }
}

impl Line {
    fn decoder(&mut self) -> Option<&mut (Decoder, Option<Resampler>)> {
        if self.decoder.is_none() {
            // Opus fails to set up only where memory is short; the packet then counts as lost.
            let decoder = Decoder::new(self.format.codec, RATE).ok()?;
            let rate = decoder.sample_rate();
            let resampler = (rate != RATE).then(|| Resampler::new(rate, RATE));
            self.decoder = Some((decoder, resampler));
        }
        self.decoder.as_mut()
    }
}
