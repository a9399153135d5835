//! Voice activity: whether somebody speaks, since which sample, and how loud.
//!
//! A small neural network (`earshot`) judges 16 ms at a time. Three guards of our own stand beside
//! it: a level gate over an adaptive noise floor, one against tones (ringback, DTMF, beeps) and one
//! against hum, both of which the network takes for vowels. Who speaks, and whether it is an echo
//! of ours, is not judged here.
//!
//! The network needs some 40 ms of a vowel and more of a soft consonant. Where the question is not
//! whether somebody speaks but whether somebody has *begun* to, as for barge-in,
//! [`Voice::certainty`] answers sooner, from the evidence of every 10 ms.
//!
//! The network wants 16 kHz and is slow on telephone audio, whose upper half is empty. So every
//! stream goes through 8 kHz and comes back by plain linear interpolation, which leaves a weak
//! mirror image in the upper half; on G.711 speech that halves the time to recognise an onset.

mod bands;
mod evidence;
mod filter;
mod period;

use crate::SampleRate;
use crate::level::{self, SILENCE_DBFS};
use crate::resample::Resampler;
use crate::tonality::{self, Tonality};
use bands::{Bands, HOP};
use evidence::{Evidence, Hints};
use filter::Filter;
use period::{Period, Periodicity};

/// When sound counts as a voice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    /// The probability from which a 16 ms frame counts as voice, 0 to 1.
    pub probability: f32,
    /// The quietest level that can be a voice, in dBFS.
    pub level_dbfs: f32,
    /// How far a voice must be above the noise floor, in dB.
    pub above_noise_db: f32,
    /// How much voice in a row decides an onset, in milliseconds (rounded up to 16 ms).
    pub onset_ms: u32,
    /// How long a voice is held after its last frame, in milliseconds (rounded up to 16 ms).
    pub hangover_ms: u32,
}

impl Default for Threshold {
    /// For a telephone caller: an onset is decided within 100 ms, a pause of 300 ms ends it.
    fn default() -> Self {
        Self {
            probability: 0.5,
            level_dbfs: -50.0,
            above_noise_db: 6.0,
            onset_ms: 48,
            hangover_ms: 300,
        }
    }
}

/// The detector's opinion after a push.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Voice {
    /// Whether somebody speaks, hangover included.
    pub is_speech: bool,
    /// The probability of the latest 16 ms frame, 0 to 1; zero where a guard spoke against it.
    pub probability: f32,
    /// How certain it is that somebody has begun to speak, 0 to 1, at its highest within the push:
    /// one half is the balance between soon and wrongly that was measured best.
    pub certainty: f32,
    /// How long ago the sound began that makes this certain, in milliseconds.
    pub evidence_ms: u32,
    /// The level of the pushed samples, in dBFS.
    pub level_dbfs: f32,
    /// The estimated noise floor, in dBFS.
    pub noise_dbfs: f32,
    /// Set on the push in which speech was decided to have begun.
    pub onset: Option<Onset>,
    /// Set on the push in which speech was decided to have ended: the sample of the stream at which
    /// the hangover ran out.
    pub ended_at: Option<u64>,
}

/// A beginning of speech, in samples of the stream since the detector was made or reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Onset {
    /// Where the first frame of the voice began; the voice itself may be some 50 ms earlier.
    pub started_at: u64,
    /// Where that was decided.
    pub decided_at: u64,
}

/// Tells voice from noise, tones and silence in one stream.
pub struct VoiceDetector {
    rate: SampleRate,
    threshold: Threshold,
    resampler: Resampler,
    network: Box<earshot::Detector>,
    tonality: Tonality,
    /// What a telephone passes of a voice, without hum.
    band: Filter<2>,
    frame: [i16; FRAME],
    filled: usize,
    bands: Bands,
    periodicity: Periodicity,
    /// The last two frames' worth of samples, the hop that fills included.
    recent: [i16; 2 * FRAME],
    /// Samples in the hop that fills.
    hop: usize,
    evidence: Evidence,
    /// As it was before the last push.
    evidence_before: Evidence,
    /// What the network said last, and whether the frame was hum.
    likely: f32,
    is_hum: bool,
    /// The last sample before the frame, where its interpolation starts.
    before: i16,
    /// Samples at 8 kHz so far.
    heard: u64,
    probability: f32,
    noise_dbfs: Option<f32>,
    /// Frames of voice in a row, and frames since the last one of voice.
    voiced: u32,
    silent: u32,
    is_speech: bool,
}

/// 16 ms at 8 kHz.
const FRAME: usize = 128;
const FRAME_MS: u32 = 16;

/// The noise floor follows a quieter frame at this share, a louder one without voice at the second,
/// and one with voice by so many dB a second: a stationary noise that fools the network must sink
/// into the floor some day.
const FLOOR_DOWN: f32 = 0.3;
const FLOOR_UP: f32 = 0.06;
const FLOOR_UNDER_VOICE_DB: f32 = 1.0;
/// How much weaker the band above 300 Hz is than the whole, where it is hum.
const HUM_DB: f32 = 18.0;
/// The share of a tone that its predictor leaves at most, where two frames of it begin anywhere.
const TONE_REST: f64 = 0.05;
/// How far above the noise a hop is looked at closely, in dB, and how loud at least, in dBFS.
const SOUND_DB: f32 = 6.0;
const FAINT_DBFS: f32 = -75.0;
/// The floor assumed at most at the start, when the first thing heard may be a voice.
const FLOOR_START_DBFS: f32 = -45.0;

impl VoiceDetector {
    /// A detector on a stream at `rate`.
    #[must_use]
    pub fn new(rate: SampleRate, threshold: Threshold) -> Self {
        Self {
            rate,
            threshold,
            resampler: Resampler::new(rate, SampleRate::Hz8000),
            network: earshot::Detector::default_boxed(),
            tonality: Tonality::default(),
            band: Filter::above(300.0, 8000.0),
            frame: [0; FRAME],
            filled: 0,
            bands: Bands::new(rate),
            periodicity: Periodicity::new(),
            recent: [0; 2 * FRAME],
            hop: 0,
            evidence: Evidence::NONE,
            evidence_before: Evidence::NONE,
            likely: 0.0,
            is_hum: false,
            before: 0,
            heard: 0,
            probability: 0.0,
            noise_dbfs: None,
            voiced: 0,
            silent: 0,
            is_speech: false,
        }
    }

    /// Listens to `pcm`, any number of samples.
    pub fn push(&mut self, pcm: &[i16]) -> Voice {
        let mut voice = Voice {
            is_speech: false,
            probability: 0.0,
            certainty: 0.0,
            evidence_ms: 0,
            level_dbfs: level::dbfs(pcm),
            noise_dbfs: SILENCE_DBFS,
            onset: None,
            ended_at: None,
        };
        self.evidence_before = self.evidence;
        let mut narrow = [0; HOP];
        for chunk in pcm.chunks(self.rate.samples(10)) {
            self.bands.listen_above(chunk);
            // 10 ms fit by construction.
            let written = self.resampler.process(chunk, &mut narrow).unwrap_or(0);
            for &sample in &narrow[..written] {
                self.frame[self.filled] = sample;
                self.filled += 1;
                if self.filled == FRAME {
                    self.filled = 0;
                    self.heard += FRAME as u64;
                    self.judge(&mut voice);
                }
                self.recent[FRAME * 2 - HOP + self.hop] = sample;
                self.hop += 1;
                if self.hop == HOP {
                    self.hop = 0;
                    self.gather(&mut voice);
                }
            }
        }
        voice.is_speech = self.is_speech;
        voice.probability = self.probability;
        voice.noise_dbfs = self.noise_dbfs.unwrap_or(SILENCE_DBFS);
        voice
    }

    /// The threshold in force.
    #[must_use]
    pub const fn threshold(&self) -> Threshold {
        self.threshold
    }

    /// Changes the threshold, from the next frame on.
    pub const fn set_threshold(&mut self, threshold: Threshold) {
        self.threshold = threshold;
    }

    /// Takes back the evidence of the last push, which was not the speaker's own voice but an echo.
    pub const fn disown(&mut self) {
        self.evidence = self.evidence_before;
        self.evidence.fade();
    }

    /// Forgets the evidence gathered, as when it was acted on.
    pub const fn start_over(&mut self) {
        self.evidence.start_over();
    }

    /// Forgets the stream, as when a call is transferred; sample numbers start again at zero.
    pub fn reset(&mut self) {
        *self = Self::new(self.rate, self.threshold);
    }

    fn judge(&mut self, voice: &mut Voice) {
        let level = level::dbfs(&self.frame);
        let wide = self.doubled();
        let likely = self.network.predict_i16(&wide);
        let is_tone = self.tonality.is_tone(&self.frame);
        let floor = self.noise_dbfs.unwrap_or(level.min(FLOOR_START_DBFS));
        let is_hum = level - level::power_dbfs(self.band.power(&self.frame)) > HUM_DB;
        (self.likely, self.is_hum) = (likely, is_hum);
        let is_loud =
            level >= self.threshold.level_dbfs && level >= floor + self.threshold.above_noise_db;
        self.probability =
            if is_loud && !is_tone && !is_hum { likely.clamp(0.0, 1.0) } else { 0.0 };
        let is_voice = self.probability >= self.threshold.probability;
        self.noise_dbfs = Some(if level < floor {
            floor + (level - floor) * FLOOR_DOWN
        } else if is_voice || is_tone {
            floor + FLOOR_UNDER_VOICE_DB * FRAME_MS as f32 / 1000.0
        } else {
            floor + (level - floor) * FLOOR_UP
        });
        self.decide(is_voice, voice);
    }

    /// Takes the hop at the end of `recent`.
    fn gather(&mut self, voice: &mut Voice) {
        let (_, hop) = self.recent.split_last_chunk::<HOP>().unwrap_or((&[], &[0; HOP]));
        let levels = self.bands.measure(hop);
        self.periodicity.push(hop);
        // Where there is no voice there is nothing to be periodic.
        let above = levels.low.above.max(levels.middle.above);
        let is_sound = above >= SOUND_DB && levels.all.level >= FAINT_DBFS;
        let period = if is_sound { self.periodicity.period() } else { Period::default() };
        let (before, now) = self.recent.split_at(FRAME);
        let is_tone = levels.all.above >= SOUND_DB
            && levels.all.level >= FAINT_DBFS
            && tonality::unpredicted(before, now) < TONE_REST;
        let hints = Hints {
            period,
            likely: self.likely,
            is_steady: is_tone || self.is_hum,
            level_dbfs: self.threshold.level_dbfs,
        };
        self.evidence.add(&levels, &hints);
        let certainty = self.evidence.certainty();
        if certainty > voice.certainty {
            voice.certainty = certainty;
            voice.evidence_ms = self.evidence.age_ms();
        }
        self.recent.copy_within(HOP.., 0);
    }

    fn decide(&mut self, is_voice: bool, voice: &mut Voice) {
        if is_voice {
            self.voiced = self.voiced.saturating_add(1);
            self.silent = 0;
        } else {
            self.voiced = 0;
            self.silent = self.silent.saturating_add(1);
        }
        let frames = |millis: u32| millis.div_ceil(FRAME_MS).max(1);
        if !self.is_speech && self.voiced >= frames(self.threshold.onset_ms) {
            self.is_speech = true;
            let length = u64::from(self.voiced) * FRAME as u64;
            let start = self.heard - length.min(self.heard);
            let delay = self.resampler.delay() as u64;
            voice.onset = Some(Onset {
                started_at: self.in_stream(start.saturating_sub(delay)),
                decided_at: self.in_stream(self.heard),
            });
        } else if self.is_speech && self.silent >= frames(self.threshold.hangover_ms) {
            self.is_speech = false;
            voice.ended_at = Some(self.in_stream(self.heard));
        }
    }

    /// A count of samples at 8 kHz as one of the stream.
    fn in_stream(&self, narrow: u64) -> u64 {
        narrow * u64::from(self.rate.hz()) / 8000
    }

    /// The frame at 16 kHz by linear interpolation; see the module's text.
    fn doubled(&mut self) -> [i16; 2 * FRAME] {
        let mut wide = [0; 2 * FRAME];
        for (pair, &sample) in wide.as_chunks_mut::<2>().0.iter_mut().zip(&self.frame) {
            *pair = [self.before.midpoint(sample), sample];
            self.before = sample;
        }
        wide
    }
}

#[cfg(test)]
#[path = "voice_tests.rs"]
mod tests;
