//! What is said: words, files, tones, something like speech, nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audio::{Key, Tone, ToneGenerator};
use base::limit::LOADGEN_AUDIO_MS;

use super::Speak;
use super::words::{Wrong, wrong};
use crate::script::RATE;
use crate::wav::{self, WavError};

/// How long a tone, speech without words, or silence lasts before it begins anew.
const ROUND: usize = 4 * RATE;
/// Amplitude of what is made here: about -13 dBm0, as people speak.
const LOUDNESS: f32 = 7_000.0;

/// One thing to say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// Nothing.
    Silence,
    /// A tone of so many Hz.
    Tone(u16),
    /// A file.
    Wav(PathBuf),
    /// Words.
    Text(String),
    /// Something that has the rhythm and the spectrum of speech, without words.
    Synth,
}

/// What one kind of caller says, in a round.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Sound {
    /// Pieces one after the other.
    Pieces {
        /// Silence before the first.
        after: Duration,
        /// Silence behind each.
        pause: Duration,
        /// What is said.
        pieces: Vec<Piece>,
    },
    /// Keys as tones.
    Keys(String),
}

/// Why something cannot be said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SoundError {
    /// A file cannot be used.
    #[error("{file}: {why}")]
    Wav {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: WavError,
    },
    /// Words cannot be spoken.
    #[error("\"{text}\" cannot be spoken: {why}")]
    Text {
        /// The words.
        text: String,
        /// Why.
        why: String,
    },
    /// A round would be too long.
    #[error(
        "one round of what is said is longer than {} ms (limit loadgen.audio_ms)",
        LOADGEN_AUDIO_MS.value
    )]
    TooLong,
}

impl Piece {
    /// `silence`, `synth`, `tone 440`, `wav FILE`, `text WORDS`.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let help = "write \"silence\", \"synth\", \"tone 440\", \"wav FILE\" or \"text WORDS\"";
        let (word, rest) =
            text.split_once(' ').map_or((text, ""), |(word, rest)| (word, rest.trim()));
        match (word, rest) {
            ("silence", "") => Ok(Self::Silence),
            ("synth", "") => Ok(Self::Synth),
            ("tone", hz) => match hz.parse() {
                Ok(hz @ 20..=7_999) => Ok(Self::Tone(hz)),
                _ => Err(wrong(
                    format!("`{hz}` is no tone"),
                    "write 20 to 7999 Hz, as in \"tone 440\"",
                )),
            },
            ("wav", file) if !file.is_empty() => Ok(Self::Wav(file.into())),
            ("text", words) if !words.is_empty() => Ok(Self::Text(words.to_owned())),
            _ => Err(wrong(format!("`{text}` cannot be said"), help)),
        }
    }

    fn pcm(&self, speak: &mut Speak<'_>) -> Result<Arc<[i16]>, SoundError> {
        match self {
            Self::Silence => Ok(vec![0; ROUND].into()),
            Self::Tone(hz) => {
                let tone = Tone {
                    hz: [f32::from(*hz), 0.0],
                    on_ms: u32::MAX,
                    repeats: None,
                    ..Tone::BEEP
                };
                let mut pcm = vec![0; ROUND];
                ToneGenerator::new(&tone, audio::SampleRate::Hz16000).fill(&mut pcm);
                Ok(pcm.into())
            }
            Self::Synth => Ok(synthetic()),
            Self::Wav(path) => wav::read(path)
                .map_err(|why| SoundError::Wav { file: path.display().to_string(), why }),
            Self::Text(text) => {
                speak(text).map_err(|why| SoundError::Text { text: text.clone(), why })
            }
        }
    }
}

impl Sound {
    /// As 16 kHz PCM.
    pub(super) fn pcm(&self, speak: &mut Speak<'_>) -> Result<Arc<[i16]>, SoundError> {
        let mut out = Vec::new();
        match self {
            Self::Pieces { after, pause, pieces } => {
                let silence = |time: &Duration| vec![0; time.as_millis() as usize * RATE / 1000];
                out.extend(silence(after));
                for piece in pieces {
                    out.extend_from_slice(&piece.pcm(speak)?);
                    out.extend(silence(pause));
                }
            }
            Self::Keys(digits) => {
                for key in digits.chars().filter_map(Key::from_char) {
                    let mut pcm = vec![0; RATE / 5];
                    let tone = Tone::dtmf(key, 120, 80);
                    ToneGenerator::new(&tone, audio::SampleRate::Hz16000).fill(&mut pcm);
                    out.extend_from_slice(&pcm);
                }
            }
        }
        if out.len() / (RATE / 1000) > LOADGEN_AUDIO_MS.get() {
            return Err(SoundError::TooLong);
        }
        Ok(out.into())
    }
}

/// Talk spurts of a buzzing voice with two formants, in syllables, with pauses between them.
fn synthetic() -> Arc<[i16]> {
    let rate = RATE as f32;
    let sample = |at: usize| {
        let time = at as f32 / rate;
        // 1.4 s of talk, 0.6 s of silence.
        if time % 2.0 > 1.4 {
            return 0;
        }
        let syllable = (std::f32::consts::TAU * 4.0 * time).cos().mul_add(-0.5, 0.5);
        let pitch = 20.0f32.mul_add((std::f32::consts::TAU * 0.5 * time).sin(), 120.0);
        let voice: f32 = (1..=24)
            .map(|harmonic| {
                let hz = pitch * harmonic as f32;
                let near =
                    |formant: f32, width: f32| 1.0 / (1.0 + ((hz - formant) / width).powi(2));
                let loud = 0.6 * near(600.0, 150.0) + 0.3 * near(1_700.0, 250.0) + 0.02;
                loud * (std::f32::consts::TAU * hz * time).sin()
            })
            .sum();
        (voice * syllable * LOUDNESS * 0.6) as i16
    };
    (0..ROUND).map(sample).collect()
}
