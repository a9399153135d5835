//! What a caller with a script hears: a jitter buffer, the sound that comes out of it, whether that
//! is speech, and the file that it is saved to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Duration;

use audio::{Codec, Decoder, Resampler, SampleRate, Threshold, VoiceDetector};
use base::Instant;
use base::limit::RTP_PACKET_BYTES;
use rtp::{JitterBuffer, JitterConfig, Packet, Pull};
use sdp::NegotiatedCodec;

use super::session::Outcome;
use crate::talk::{FRAME, Heard};
use crate::wav;

/// 120 ms at 48 kHz: the most that one packet holds.
const DECODED_MAX: usize = 5_760;
/// Packets pulled in one frame at most; more would be packets of a millisecond each.
const PULLS_MAX: usize = 32;
/// Sound above this is audible: far above the noise of G.711, far below speech.
const AUDIBLE_DBFS: f32 = -50.0;

/// The decoder of one payload type.
struct Voice {
    decoder: Decoder,
    resampler: Resampler,
}

/// See the module.
pub(super) struct Ear {
    codecs: BTreeMap<u8, Codec>,
    clock_rate: u32,
    jitter: JitterBuffer,
    /// Packets of earlier streams that came too late.
    late: u64,
    voices: BTreeMap<u8, Voice>,
    /// The payload type decoded last, to conceal what is missing after it.
    current: Option<u8>,
    /// Sound to play, 16 kHz.
    ready: Vec<i16>,
    /// Only where the script listens, since it costs CPU.
    detector: Option<VoiceDetector>,
    heard: Heard,
    save: Option<PathBuf>,
    writer: Option<wav::Writer>,
    save_error: Option<String>,
    first_sound: Option<Instant>,
}

impl Ear {
    /// Hears nothing yet. `listens` asks for [`Ear::heard`]; `save` is written from the first flow
    /// on.
    pub(super) fn new(listens: bool, save: Option<PathBuf>) -> Self {
        let detector =
            listens.then(|| VoiceDetector::new(SampleRate::Hz16000, Threshold::default()));
        let hangover = Duration::from_millis(Threshold::default().hangover_ms.into());
        Self {
            codecs: BTreeMap::new(),
            clock_rate: 8_000,
            jitter: buffer(8_000),
            late: 0,
            voices: BTreeMap::new(),
            current: None,
            ready: Vec::new(),
            detector,
            heard: Heard { is_speech: false, hangover },
            save,
            writer: None,
            save_error: None,
            first_sound: None,
        }
    }

    /// These codecs may come from now on.
    pub(super) fn flow(&mut self, codecs: &[NegotiatedCodec]) {
        let known = |codec: &NegotiatedCodec| {
            Some((codec.receive_payload_type, Codec::from_name(&codec.name)?))
        };
        let codecs: BTreeMap<_, _> = codecs.iter().filter_map(known).collect();
        self.voices
            .retain(|payload_type, _| codecs.get(payload_type) == self.codecs.get(payload_type));
        self.codecs = codecs;
        if self.writer.is_none()
            && self.save_error.is_none()
            && let Some(path) = &self.save
        {
            match wav::Writer::create(path) {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => {
                    (self.save, self.save_error) = (None, Some(error.to_string()));
                }
            }
        }
    }

    /// A new stream begins, at this rate of its clock.
    pub(super) fn start_stream(&mut self, clock_rate: u32) {
        self.late = self.packets_late();
        self.jitter = buffer(clock_rate);
        self.clock_rate = clock_rate;
    }

    /// Takes a packet of the stream.
    pub(super) fn push(&mut self, now: Instant, packet: &Packet<'_>) {
        let (sequence, timestamp) = (packet.sequence(), packet.timestamp());
        let (marker, payload_type) = (packet.marker(), packet.payload_type());
        self.jitter.push(now, sequence, timestamp, marker, payload_type, packet.payload());
    }

    /// Hears 20 ms.
    pub(super) fn listen(&mut self, now: Instant) {
        let sound = self.play(now);
        if self.first_sound.is_none() && audio::level::dbfs(&sound) > AUDIBLE_DBFS {
            self.first_sound = Some(now);
        }
        if let Some(detector) = &mut self.detector {
            self.heard.is_speech = detector.push(&sound).is_speech;
        }
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write(&sound)
        {
            self.save_error = Some(error.to_string());
            self.writer = None;
        }
    }

    /// What the far end is heard to do.
    pub(super) const fn heard(&self) -> Heard {
        self.heard
    }

    /// The call is over: notes what was heard.
    pub(super) fn finish(mut self, outcome: &mut Outcome) {
        outcome.totals.packets_late = self.packets_late();
        outcome.first_sound = self.first_sound;
        let has_begun = self.writer.is_some() || self.save_error.is_some();
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.finish()
        {
            self.save_error = Some(error.to_string());
        }
        outcome.saved = self.save.filter(|_| has_begun);
        outcome.save_error = self.save_error;
    }

    fn packets_late(&self) -> u64 {
        self.late + self.jitter.stats().late + self.jitter.stats().discarded
    }

    /// The sound of this frame.
    fn play(&mut self, now: Instant) -> [i16; FRAME] {
        for _ in 0..PULLS_MAX {
            if self.ready.len() >= FRAME || !self.pull(now) {
                break;
            }
        }
        let mut frame = [0; FRAME];
        let length = self.ready.len().min(FRAME);
        frame[..length].copy_from_slice(&self.ready[..length]);
        self.ready.drain(..length);
        frame
    }

    /// Makes more sound ready; `false` where there is none.
    fn pull(&mut self, now: Instant) -> bool {
        let mut decoded = [0; DECODED_MAX];
        let (payload_type, samples) = match self.jitter.pull(now) {
            Pull::Empty => return false,
            Pull::Packet(played) => {
                let payload_type = played.payload_type;
                let Some(voice) = voice(&mut self.voices, &self.codecs, payload_type) else {
                    // A key press, or a codec that is no longer agreed on.
                    return true;
                };
                let decoder = &mut voice.decoder;
                let samples = decoder.decode(played.payload, &mut decoded).unwrap_or_else(|_| {
                    let frame = decoder.sample_rate().samples(20);
                    decoder.conceal(frame, &mut decoded)
                });
                (payload_type, samples)
            }
            Pull::Lost { ticks, following } => {
                let Some(payload_type) = self.current else { return true };
                let Some(voice) = voice(&mut self.voices, &self.codecs, payload_type) else {
                    return true;
                };
                let decoder = &mut voice.decoder;
                let rate = u64::from(decoder.sample_rate().hz());
                let samples = u64::from(ticks) * rate / u64::from(self.clock_rate.max(1));
                let samples = usize::try_from(samples).unwrap_or(usize::MAX).min(DECODED_MAX);
                let written = match following {
                    Some(next) => decoder.recover(next, samples, &mut decoded),
                    None => decoder.conceal(samples, &mut decoded),
                };
                (payload_type, written)
            }
        };
        self.current = Some(payload_type);
        let Some(voice) = self.voices.get_mut(&payload_type) else { return true };
        let mut wide = [0; DECODED_MAX];
        let written = voice.resampler.process(&decoded[..samples], &mut wide).unwrap_or(0);
        self.ready.extend_from_slice(&wide[..written]);
        true
    }
}

fn buffer(clock_rate: u32) -> JitterBuffer {
    let payload_bytes = RTP_PACKET_BYTES.get();
    JitterBuffer::new(JitterConfig { payload_bytes, ..JitterConfig::new(clock_rate) })
}

/// The decoder of a payload type, made when it is first needed.
fn voice<'a>(
    voices: &'a mut BTreeMap<u8, Voice>,
    codecs: &BTreeMap<u8, Codec>,
    payload_type: u8,
) -> Option<&'a mut Voice> {
    let codec = *codecs.get(&payload_type)?;
    match voices.entry(payload_type) {
        Entry::Occupied(known) => Some(known.into_mut()),
        Entry::Vacant(room) => {
            let decoder = Decoder::new(codec, SampleRate::Hz16000).ok()?;
            let resampler = Resampler::new(decoder.sample_rate(), SampleRate::Hz16000);
            Some(room.insert(Voice { decoder, resampler }))
        }
    }
}
