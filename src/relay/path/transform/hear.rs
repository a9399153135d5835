//! Packets to sound at one rate: jitter buffer, decoder, concealment, comfort noise, resampling.
//!
//! Payload types choose the decoder packet by packet. Key presses take another way
//! ([`super::keys`]).

use audio::codec::payload_samples;
use audio::{ComfortNoise, Decoder, Resampler, SampleRate, Stretcher};
use base::Instant;
use media::Format;
use rtp::jitter::{JitterBuffer, JitterConfig, Pace, Pull, Pushed};
use rtp::packet::Packet;

use super::super::counters::DropReason;

/// The longest payload of G.711 or G.722 that a slot takes, and of Opus (RFC 6716 section 3.4).
const WAVEFORM_BYTES: usize = 640;
const OPUS_BYTES: usize = 1275;
/// The most that a packet of any codec decodes to, in milliseconds.
const DECODED_MS: u32 = 120;
/// What may be left of a frame, and what the stretcher may add.
const READY_MS: u32 = DECODED_MS + 40;
/// The clock of comfort noise, in Hz (RFC 3389 section 4).
const NOISE_CLOCK: u32 = 8_000;
/// Pulls for one frame; packets of 2.5 ms need eight, and undecodable ones others.
const PULLS_MAX: usize = 12;

/// What is needed to decode one payload type.
struct Line {
    format: Format,
    /// Of the sound that is wanted.
    rate: SampleRate,
    /// Made when first needed.
    decoder: Option<(Decoder, Option<Resampler>)>,
}

/// See the module.
pub(crate) struct Hear {
    /// The rate of the sound that comes out.
    rate: SampleRate,
    lines: Vec<Line>,
    /// One buffer for each RTP clock among the formats.
    buffers: Vec<(u32, JitterBuffer)>,
    /// The buffer in use, and the line last decoded.
    active: usize,
    line: usize,
    stretcher: Stretcher,
    /// Decoded, not yet consumed.
    ready: Vec<i16>,
    decoded: Box<[i16]>,
    resampled: Box<[i16]>,
    stretched: Box<[i16]>,
    noise: Noise,
    /// Frames that hold concealed sound.
    pub(crate) concealed: u64,
}

/// Comfort noise (RFC 3389), where it was agreed on.
struct Noise {
    payload_type: Option<u8>,
    generator: ComfortNoise,
    /// The peer is silent and has said how that sounds.
    is_on: bool,
}

/// What became of a pull.
enum Pulled {
    /// Nothing is due.
    Nothing,
    /// What there was to decode, if anything, is ready.
    Ready,
    /// The frame is full.
    Frame,
}

/// What a frame is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Samples that came from packets, concealed ones included; the rest is noise or silence.
    pub(crate) samples: usize,
    /// Whether the rest is noise.
    pub(crate) noise: bool,
    /// Packets that could not be decoded.
    pub(crate) undecodable: u64,
}

impl Hear {
    /// `noise` is the payload type of comfort noise.
    pub(crate) fn new(formats: &[Format], noise: Option<u8>, rate: SampleRate) -> Self {
        let stretcher = Stretcher::new(rate);
        // G.722 decodes at 16 kHz, whatever is asked for.
        let decoded = rate.max(SampleRate::Hz16000).samples(DECODED_MS);
        let mut hear = Self {
            rate,
            lines: Vec::new(),
            buffers: Vec::new(),
            active: 0,
            line: 0,
            ready: Vec::with_capacity(rate.samples(READY_MS)),
            decoded: vec![0; decoded].into(),
            resampled: vec![0; rate.samples(DECODED_MS)].into(),
            stretched: vec![0; stretcher.output_len(rate.samples(DECODED_MS))].into(),
            stretcher,
            noise: Noise { payload_type: None, generator: ComfortNoise::new(1), is_on: false },
            concealed: 0,
        };
        hear.set_formats(formats, noise);
        hear
    }

    /// Takes a new plan's formats; those that stay keep their state.
    pub(crate) fn set_formats(&mut self, formats: &[Format], noise: Option<u8>) {
        if self.noise.payload_type != noise {
            (self.noise.payload_type, self.noise.is_on) = (noise, false);
        }
        let mut known = core::mem::take(&mut self.lines);
        for format in formats {
            let same = |line: &Line| {
                (line.format.payload_type, line.format.codec) == (format.payload_type, format.codec)
            };
            let decoder = known.iter_mut().find(|line| same(line)).and_then(|l| l.decoder.take());
            self.lines.push(Line { format: *format, rate: self.rate, decoder });
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
        if self.noise.payload_type == Some(payload_type) {
            return Some(NOISE_CLOCK);
        }
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
            // Noise on another clock than the sound's has no place in it.
            if self.noise.payload_type == Some(packet.payload_type()) {
                return Err(DropReason::PayloadType);
            }
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
        self.noise.is_on = false;
        if let Some((_, buffer)) = self.buffers.get_mut(self.active) {
            buffer.reset();
        }
    }

    /// Whether packets wait for their turn.
    pub(crate) fn is_waiting(&self) -> bool {
        self.buffer().is_some_and(|buffer| !buffer.depth().is_zero())
    }

    /// Packets that came too late, and the present delay, of the buffer in use.
    pub(crate) fn buffer(&self) -> Option<&JitterBuffer> {
        self.buffers.get(self.active).map(|(_, buffer)| buffer)
    }

    /// The next 20 ms; noise or silence where nothing is due.
    pub(crate) fn frame(&mut self, now: Instant, out: &mut [i16]) -> Filled {
        let (mut undecodable, mut concealed) = (0, false);
        let mut count = self.take_ready(out);
        for _ in 0..PULLS_MAX {
            if count == out.len() {
                break;
            }
            let rest = &mut out[count..];
            match self.pull(now, rest, &mut undecodable, &mut concealed) {
                Pulled::Nothing => break,
                Pulled::Frame => count = out.len(),
                Pulled::Ready => count += self.take_ready(rest),
            }
        }
        if self.noise.is_on {
            self.noise.generator.fill(&mut out[count..]);
        } else {
            out[count..].fill(0);
        }
        self.concealed += u64::from(concealed);
        Filled { samples: count, noise: self.noise.is_on, undecodable }
    }

    /// Moves what is ready to the front of `out`; how much that was.
    fn take_ready(&mut self, out: &mut [i16]) -> usize {
        let count = self.ready.len().min(out.len());
        if count > 0 {
            out[..count].copy_from_slice(&self.ready[..count]);
            self.ready.drain(..count);
        }
        count
    }

    /// Fills `out` where no packet is due and the peer has not said how its silence sounds: what
    /// the codec makes of a loss, which fades to the background (and is the silence of an Opus
    /// encoder that leaves it out).
    pub(crate) fn sustain(&mut self, out: &mut [i16]) {
        out.fill(0);
        let Some((decoder, resampler)) = self.lines.get_mut(self.line).and_then(Line::decoder)
        else {
            return;
        };
        let wanted = out.len() * decoder.sample_rate().samples(1) / self.rate.samples(1);
        let length = decoder.conceal(wanted, &mut self.decoded);
        let sound = &self.decoded[..length];
        match resampler {
            None => out[..length].copy_from_slice(sound),
            // It writes as much as fits the frame by construction, or nothing.
            Some(resampler) => drop(resampler.process(sound, out)),
        }
    }

    /// Decodes what is next, straight into `frame` where it is as long as that.
    fn pull(
        &mut self,
        now: Instant,
        frame: &mut [i16],
        undecodable: &mut u64,
        concealed: &mut bool,
    ) -> Pulled {
        let Some((clock, buffer)) = self.buffers.get_mut(self.active) else {
            return Pulled::Nothing;
        };
        let out = &mut self.decoded[..];
        let (samples, pace) = match buffer.pull(now) {
            Pull::Empty => return Pulled::Nothing,
            Pull::Packet(packet) if self.noise.payload_type == Some(packet.payload_type) => {
                self.noise.generator.handle_payload(packet.payload);
                self.noise.is_on = true;
                return Pulled::Ready;
            }
            Pull::Lost { .. } if self.noise.is_on => return Pulled::Nothing,
            Pull::Packet(packet) => {
                self.noise.is_on = false;
                let mut lines = self.lines.iter();
                let at = lines.position(|line| line.format.payload_type == packet.payload_type);
                // A plan may have taken a payload type away while its packets waited.
                let Some(at) = at else {
                    *undecodable += 1;
                    return Pulled::Ready;
                };
                self.line = at;
                let line = &mut self.lines[at];
                let codec = line.format.codec;
                let Some((decoder, resampler)) = line.decoder() else {
                    *undecodable += 1;
                    return Pulled::Ready;
                };
                // Most packets are: then their sound is copied nowhere.
                if packet.pace == Pace::Normal
                    && resampler.is_none()
                    && payload_samples(codec, packet.payload, self.rate) == Some(frame.len())
                    && decoder.decode(packet.payload, frame) == Ok(frame.len())
                {
                    self.stretcher.keep();
                    return Pulled::Frame;
                }
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
                    return Pulled::Nothing;
                };
                let rate = u64::from(decoder.sample_rate().hz());
                let samples = u64::from(ticks) * rate / u64::from((*clock).max(1));
                let samples = usize::try_from(samples).unwrap_or(usize::MAX).min(out.len());
                *concealed = true;
                let samples = match following {
                    Some(next) => decoder.recover(next, samples, out),
                    None => decoder.conceal(samples, out),
                };
                (samples, Pace::Normal)
            }
        };
        if self.append(samples, pace) { Pulled::Ready } else { Pulled::Nothing }
    }

    /// Brings decoded sound to our rate and to the pace that the jitter buffer asks for.
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
            let decoder = Decoder::new(self.format.codec, self.rate).ok()?;
            let rate = decoder.sample_rate();
            let resampler = (rate != self.rate).then(|| Resampler::new(rate, self.rate));
            self.decoder = Some((decoder, resampler));
        }
        self.decoder.as_mut()
    }
}
