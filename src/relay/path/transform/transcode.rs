//! One leg's sound for another that takes another codec or another packet time, or without the
//! tones of keys: jitter buffer, decoder, encoder, on the session's 20 ms clock.
//!
//! It works at the lower of the two codecs' own rates. A source that goes silent is continued for
//! a moment, since its codec may leave silence out where the other cannot; then nothing is sent.

use std::time::Duration;

use audio::codec::SetupError;
use audio::comfort_noise::PAYLOAD_BYTES;
use audio::{Codec, DtmfDetector, NoiseAnalyzer, SampleRate};
use base::Instant;
use media::{Bridge, Format, KeyPassage, LegPlan, Passage};
use rtp::packet::Packet;
use rtp::{Digit, DtmfEvent};

use super::super::counters::{DropReason, Meter};
use super::super::numbers::Numbered;
use super::agent::Output;
use super::hear::Hear;
use super::packets::{FRAME_MS, Packets};

/// How long a source that sends nothing is continued: longer than the pauses between two packets
/// of an Opus encoder that leaves silence out (400 ms).
const SUSTAIN: Duration = Duration::from_millis(1_000);
/// The most samples in a frame.
const FRAME_MAX: usize = SampleRate::Hz48000.samples(FRAME_MS);
/// Frames of silence before it is left out, and between two descriptions of it.
const QUIET_FRAMES: u32 = 10;
const QUIET_EVERY: u32 = 25;
/// What is below this is silence, in dBFS: the idle noise of G.711 is above.
const QUIET_DBFS: f32 = -70.0;

/// See the module.
pub(crate) struct Transcoder {
    rate: SampleRate,
    pub(crate) hear: Hear,
    packets: Packets,
    /// When there was last sound; `None` while nothing is to be sent.
    sounded: Option<Instant>,
    keys: KeyPassage,
    detector: Option<Box<DtmfDetector>>,
    mute_until: Instant,
    quiet: Option<Quiet>,
}

/// Keys that one frame's sound told of: three looks find no more than an end and a start each.
pub(crate) type Found = [Option<DtmfEvent>; 6];

/// Silence, described (RFC 3389) instead of sent.
struct Quiet {
    payload_type: u8,
    analyzer: NoiseAnalyzer,
    frames: u32,
}

impl Transcoder {
    /// Makes `to`, which is the bridge's.
    pub(crate) fn new(
        plan: &LegPlan,
        bridge: &Bridge,
        to: Format,
        timeline: u32,
    ) -> Result<Self, SetupError> {
        let formats: Vec<Format> = decoded(plan, bridge).collect();
        let rate = rate(&formats, to.codec);
        let noise = plan.comfort_noise.map(|noise| noise.receive);
        let mut transcoder = Self {
            rate,
            hear: Hear::new(&formats, noise, rate),
            packets: Packets::new(to, rate, bridge.complexity)?,
            sounded: None,
            keys: bridge.keys,
            detector: None,
            mute_until: Instant::ZERO,
            quiet: None,
        };
        transcoder.packets.set_timeline(timeline);
        transcoder.follow(bridge, to);
        Ok(transcoder)
    }

    /// Follows a new plan; `false` where another transcoder is needed.
    pub(crate) fn update(&mut self, plan: &LegPlan, bridge: &Bridge) -> Result<bool, SetupError> {
        let formats: Vec<Format> = decoded(plan, bridge).collect();
        let Some(to) = bridge.to.filter(|to| rate(&formats, to.codec) == self.rate) else {
            return Ok(false);
        };
        if formats.is_empty() {
            return Ok(false);
        }
        self.packets.set_format(to, bridge.complexity)?;
        self.hear.set_formats(&formats, plan.comfort_noise.map(|noise| noise.receive));
        self.follow(bridge, to);
        Ok(true)
    }

    fn follow(&mut self, bridge: &Bridge, to: Format) {
        self.keys = bridge.keys;
        if !bridge.detect_tones {
            self.detector = None;
        } else if self.detector.is_none() {
            self.detector = Some(Box::new(DtmfDetector::new(self.rate)));
        }
        let quiet =
            |payload_type| Quiet { payload_type, analyzer: NoiseAnalyzer::new(), frames: 0 };
        // Comfort noise is on a clock of 8 kHz (RFC 3389 section 4).
        let clock_fits = to.codec.clock_rate() == 8_000;
        let payload_type = bridge.comfort_noise.filter(|_| clock_fits);
        if self.quiet.as_ref().map(|quiet| quiet.payload_type) != payload_type {
            self.quiet = payload_type.map(quiet);
        }
    }

    /// Takes a packet to be heard.
    pub(crate) fn push(&mut self, now: Instant, packet: &Packet<'_>) -> Result<(), DropReason> {
        self.hear.push(now, packet)
    }

    /// Another source speaks, or this one in another way.
    pub(crate) fn reset(&mut self) {
        self.hear.reset();
    }

    /// What is heard from here on is left out.
    pub(crate) fn hold(&mut self) {
        self.hear.reset();
        self.sounded = None;
    }

    /// Whether there is something to be sent.
    pub(crate) const fn is_sounding(&self) -> bool {
        self.sounded.is_some()
    }

    /// Whether its frames have nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        !self.is_sounding() && !self.hear.is_waiting()
    }

    /// Lets `frames` frames pass.
    pub(crate) fn skip(&mut self, frames: u32) {
        self.packets.skip(frames);
    }

    /// Tells the encoder what its listener loses, 0 to 1.
    pub(crate) fn set_loss(&mut self, loss: f32) {
        self.packets.set_loss(loss);
    }

    /// The numbers that go out, for an event that shares them.
    pub(crate) const fn packets(&mut self) -> &mut Packets {
        &mut self.packets
    }

    /// One frame of 20 ms; returns the keys that were found in its sound. While a key `is_down` as
    /// an event, its tone is not heard.
    pub(crate) fn frame(&mut self, now: Instant, is_down: bool, out: &mut dyn Output) -> Found {
        let mut sound = [0; FRAME_MAX];
        let sound = &mut sound[..self.rate.samples(FRAME_MS)];
        let from_packets = self.listen(now, sound, out);
        if is_down {
            // The sound is later than the event by what the jitter buffer holds.
            let delay = self.hear.buffer().map(|buffer| buffer.target()).unwrap_or_default();
            self.mute_until = now + delay;
        }
        let (is_suspected, found) = self.find_keys(sound);
        if is_suspected || now < self.mute_until {
            sound.fill(0);
        }
        let send = &mut |packet: &_, payload: &[u8]| out.packet(packet, payload);
        // A key that goes on as events takes the place of the sound (RFC 4733 section 2.1).
        let is_pressed = is_down && matches!(self.keys, KeyPassage::Events { .. });
        if self.sounded.is_none() || is_pressed {
            self.packets.skip(1);
        } else if let Some(quiet) = &mut self.quiet
            && quiet.takes(sound, from_packets)
        {
            quiet.describe(&mut self.packets, send);
        } else {
            self.packets.frame(sound, send);
        }
        found
    }

    /// Fills the frame, notes whether there is any sound, and says whether all of it is the
    /// source's.
    fn listen(&mut self, now: Instant, sound: &mut [i16], out: &mut dyn Output) -> bool {
        let before = self.hear.concealed;
        let filled = self.hear.frame(now, sound);
        out.tally().count(Meter::Frames, 1);
        out.tally().count(Meter::Concealed, self.hear.concealed - before);
        for _ in 0..filled.undecodable {
            out.tally().drop(DropReason::Undecodable);
        }
        if filled.samples > 0 || filled.noise {
            self.sounded = Some(now);
        }
        let is_full = filled.samples == sound.len();
        if !is_full && !filled.noise {
            self.sounded = self.sounded.filter(|at| now.since(*at) < SUSTAIN);
            if self.sounded.is_some() {
                self.hear.sustain(&mut sound[filled.samples..]);
            }
        }
        is_full
    }

    /// Looks for keys in the sound: whether there may be one, and what is certain.
    fn find_keys(&mut self, sound: &[i16]) -> (bool, Found) {
        let mut found = Found::default();
        let Some(detector) = &mut self.detector else {
            return (false, found);
        };
        let mut slots = found.iter_mut();
        detector.push(sound, |event| {
            let event = match event {
                audio::DtmfEvent::Pressed { key, .. } => {
                    Digit::from_event(key.event()).map(|digit| DtmfEvent::Started { digit })
                }
                audio::DtmfEvent::Released { key, millis } => {
                    let duration = Duration::from_millis(millis.into());
                    Digit::from_event(key.event()).map(|digit| DtmfEvent::Ended { digit, duration })
                }
            };
            slots.next().into_iter().for_each(|slot| *slot = event);
        });
        (detector.is_suspected(), found)
    }
}

impl Quiet {
    /// Listens to a frame; whether it is to be left out.
    fn takes(&mut self, sound: &[i16], from_packets: bool) -> bool {
        if from_packets && audio::level::dbfs(sound) >= QUIET_DBFS {
            self.frames = 0;
            return false;
        }
        self.analyzer.push(sound);
        self.frames += 1;
        self.frames > QUIET_FRAMES
    }

    /// Lets the frame pass, and describes it where that is due.
    fn describe(&self, packets: &mut Packets, send: &mut dyn FnMut(&Numbered, &[u8])) {
        let timestamp = packets.other();
        let mut payload = [0; PAYLOAD_BYTES];
        if (self.frames - QUIET_FRAMES) % QUIET_EVERY == 1
            && let Ok(length) = self.analyzer.write_payload(&mut payload)
        {
            let packet = packets.number(self.payload_type, timestamp, false, false);
            send(&packet, &payload[..length]);
        }
    }
}

/// The formats whose sound is to be decoded.
fn decoded<'a>(plan: &'a LegPlan, bridge: &'a Bridge) -> impl Iterator<Item = Format> + 'a {
    let is_decoded =
        |format: &&Format| bridge.audio.contains(&(format.payload_type, Passage::Transcode));
    plan.accept.iter().filter(is_decoded).copied()
}

/// The lower of both sides' own rates, so that nothing is computed that one of them cannot carry.
fn rate(from: &[Format], to: Codec) -> SampleRate {
    let own = from.iter().map(|format| format.codec.sample_rate().min(to.sample_rate()));
    own.max().unwrap_or(SampleRate::Hz8000)
}
