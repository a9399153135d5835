//! Voice activity: whether somebody speaks, since which sample, and how loud.
//!
//! A small neural network (`earshot`) judges 16 ms at a time. Three guards of our own stand beside
//! it: a level gate over an adaptive noise floor, one against tones (ringback, DTMF, beeps) and one
//! against hum, both of which the network takes for vowels. Who speaks, and whether it is an echo
//! of ours, is not judged here.
//!
//! The network wants 16 kHz and is slow on telephone audio, whose upper half is empty. So every
//! stream goes through 8 kHz and comes back by plain linear interpolation, which leaves a weak
//! mirror image in the upper half; on G.711 speech that halves the time to recognise an onset.

use crate::SampleRate;
use crate::level::{self, SILENCE_DBFS};
use crate::resample::Resampler;
use crate::tonality::Tonality;

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
    band: VoiceBand,
    frame: [i16; FRAME],
    filled: usize,
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
            band: VoiceBand::new(),
            frame: [0; FRAME],
            filled: 0,
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
            level_dbfs: level::dbfs(pcm),
            noise_dbfs: SILENCE_DBFS,
            onset: None,
            ended_at: None,
        };
        let mut narrow = [0; 80];
        for chunk in pcm.chunks(self.rate.samples(10)) {
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
        let is_hum = level - self.band.dbfs(&self.frame) > HUM_DB;
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

/// What a telephone passes of a voice: a Butterworth high-pass of order 4 at 300 Hz, for 8 kHz.
struct VoiceBand {
    sections: [Section; 2],
}

/// One section of order 2 (direct form 2, transposed), with its feedback and state.
struct Section {
    a: [f32; 2],
    gain: f32,
    state: [f32; 2],
}

impl VoiceBand {
    fn new() -> Self {
        let w = core::f32::consts::TAU * 300.0 / 8000.0;
        // The quality factors that make two sections a Butterworth filter.
        let sections = [0.541_196_1, 1.306_563].map(|q: f32| {
            let alpha = w.sin() / (2.0 * q);
            let a0 = 1.0 + alpha;
            Section {
                a: [-2.0 * w.cos() / a0, (1.0 - alpha) / a0],
                gain: (1.0 + w.cos()) / 2.0 / a0,
                state: [0.0; 2],
            }
        });
        Self { sections }
    }

    /// The level of the frame's part within the band.
    fn dbfs(&mut self, frame: &[i16; FRAME]) -> f32 {
        let mut power = 0.0;
        for &sample in frame {
            let mut value = f32::from(sample);
            for Section { a, gain, state } in &mut self.sections {
                let input = value * *gain;
                value = input + state[0];
                state[0] = -2.0 * input - a[0] * value + state[1];
                state[1] = input - a[1] * value;
            }
            power += f64::from(value) * f64::from(value);
        }
        level::power_dbfs(power / FRAME as f64)
    }
}

#[cfg(test)]
#[path = "voice_tests.rs"]
mod tests;
