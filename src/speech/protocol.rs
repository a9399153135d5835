//! Frames between the edge and a speech helper: a length (four bytes, little endian, of what
//! follows), a kind (one byte) and a body. Numbers are little endian, texts UTF-8.
//!
//! Neither type implements `Debug`: both carry what was said.

use base::limit;

/// A call that a helper listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EarId(pub u32);

/// A text that a helper speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpeakingId(pub u32);

/// A voice of the helper's synthesiser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voice {
    /// A woman, 16 kHz.
    #[default]
    Slt,
    /// A man, 16 kHz.
    Rms,
    /// A Scotsman, 16 kHz.
    Awb,
    /// A man made of diphones, 8 kHz; the fastest.
    Kal,
}

impl Voice {
    /// Every voice.
    pub const ALL: [Self; 4] = [Self::Slt, Self::Rms, Self::Awb, Self::Kal];

    /// The voice's name, as in an agent's file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Slt => "slt",
            Self::Rms => "rms",
            Self::Awb => "awb",
            Self::Kal => "kal",
        }
    }

    /// The voice of that name; no name is the default.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.is_empty() {
            return Some(Self::default());
        }
        Self::ALL.into_iter().find(|voice| voice.name() == name)
    }
}

/// What the edge asks of a helper.
#[derive(Clone, PartialEq)]
pub enum Command {
    /// Listen to a call.
    Open {
        /// Which.
        ear: EarId,
    },
    /// What may be heard from the next utterance on; nothing where there is no phrase.
    Grammar {
        /// By which ear.
        ear: EarId,
        /// Words in lower case, separated by single spaces.
        phrases: Vec<String>,
    },
    /// An utterance begins; one that was not ended is forgotten.
    Begin {
        /// At which ear.
        ear: EarId,
        /// Its number.
        utterance: u32,
    },
    /// The utterance's next samples.
    Audio {
        /// At which ear.
        ear: EarId,
        /// Whether its codec carries nothing above 4 kHz.
        is_narrowband: bool,
        /// 16-bit mono at 16 kHz.
        samples: Vec<i16>,
    },
    /// The utterance is over; one `Heard`, `NothingHeard` or `NotHeard` follows.
    End {
        /// At which ear.
        ear: EarId,
    },
    /// The call is over.
    Close {
        /// Which.
        ear: EarId,
    },
    /// Speak a text; `Piece`s follow, or one `NotSpoken`.
    Speak {
        /// Which.
        speaking: SpeakingId,
        /// In which voice.
        voice: Voice,
        /// The text.
        text: String,
    },
}

/// What a helper answers.
#[derive(Clone, PartialEq)]
pub enum Answer {
    /// The models are loaded; the first frame of a helper.
    Ready,
    /// What an utterance sounds like so far.
    Partial {
        /// At which ear.
        ear: EarId,
        /// Which utterance.
        utterance: u32,
        /// The phrase.
        text: String,
    },
    /// What an utterance was.
    Heard {
        /// At which ear.
        ear: EarId,
        /// Which utterance.
        utterance: u32,
        /// How sure the recogniser is, 0 to 1.
        confidence: f32,
        /// The phrase.
        text: String,
    },
    /// An utterance was nothing in the grammar.
    NothingHeard {
        /// At which ear.
        ear: EarId,
        /// Which utterance.
        utterance: u32,
    },
    /// The recogniser failed at an utterance.
    NotHeard {
        /// At which ear.
        ear: EarId,
        /// Which utterance.
        utterance: u32,
    },
    /// A piece of speech.
    Piece {
        /// Of which text.
        speaking: SpeakingId,
        /// Whether it is the last.
        is_last: bool,
        /// 16-bit mono at 16 kHz.
        samples: Vec<i16>,
    },
    /// The synthesiser failed at a text.
    NotSpoken {
        /// Which.
        speaking: SpeakingId,
    },
}

/// Bytes that are no frame of this protocol; its reader cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The frame is longer than `provider.frame_bytes`.
    #[error("a frame is longer than {} bytes", limit::PROVIDER_FRAME_BYTES.value)]
    TooLong,
    /// The frame is no message of its direction.
    #[error("a frame is malformed")]
    Malformed,
}

/// What travels in a frame.
pub trait Message: Sized {
    /// Appends the message as a frame. A message over `provider.frame_bytes` makes a frame that
    /// no reader takes; [`AUDIO_SAMPLES`] and the limits on grammars and texts keep below it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads the frame's kind and body.
    ///
    /// # Errors
    /// When they are no message.
    fn parse(frame: &[u8]) -> Result<Self, ProtocolError>;
}

/// The most samples in one frame.
pub const AUDIO_SAMPLES: usize = 16_000;

impl Message for Command {
    fn write(&self, out: &mut Vec<u8>) {
        let frame = Frame::begin(out);
        match self {
            Self::Open { ear } => frame.kind(0).u32(ear.0),
            Self::Grammar { ear, phrases } => {
                let frame = frame.kind(1).u32(ear.0);
                phrases.iter().fold(frame, |frame, phrase| frame.text(phrase))
            }
            Self::Begin { ear, utterance } => frame.kind(2).u32(ear.0).u32(*utterance),
            Self::Audio { ear, is_narrowband, samples } => {
                frame.kind(3).u32(ear.0).u8(u8::from(*is_narrowband)).samples(samples)
            }
            Self::End { ear } => frame.kind(4).u32(ear.0),
            Self::Close { ear } => frame.kind(5).u32(ear.0),
            Self::Speak { speaking, voice, text } => {
                frame.kind(6).u32(speaking.0).u8(*voice as u8).bytes(text.as_bytes())
            }
        }
        .end();
    }

    fn parse(frame: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body(frame);
        let command = match body.u8()? {
            0 => Self::Open { ear: EarId(body.u32()?) },
            1 => {
                let ear = EarId(body.u32()?);
                let mut phrases = Vec::new();
                while !body.0.is_empty() {
                    if phrases.len() == limit::AGENT_GRAMMAR_PHRASES.get() {
                        return Err(ProtocolError::Malformed);
                    }
                    phrases.push(body.text()?);
                }
                Self::Grammar { ear, phrases }
            }
            2 => Self::Begin { ear: EarId(body.u32()?), utterance: body.u32()? },
            3 => {
                let (ear, is_narrowband) = (EarId(body.u32()?), body.flag()?);
                Self::Audio { ear, is_narrowband, samples: body.samples()? }
            }
            4 => Self::End { ear: EarId(body.u32()?) },
            5 => Self::Close { ear: EarId(body.u32()?) },
            6 => {
                let speaking = SpeakingId(body.u32()?);
                let voice = Voice::ALL.get(usize::from(body.u8()?)).copied();
                let voice = voice.ok_or(ProtocolError::Malformed)?;
                Self::Speak { speaking, voice, text: body.rest()? }
            }
            _ => return Err(ProtocolError::Malformed),
        };
        body.finish(command)
    }
}

impl Message for Answer {
    fn write(&self, out: &mut Vec<u8>) {
        let frame = Frame::begin(out);
        match self {
            Self::Ready => frame.kind(0),
            Self::Partial { ear, utterance, text } => {
                frame.kind(1).u32(ear.0).u32(*utterance).bytes(text.as_bytes())
            }
            Self::Heard { ear, utterance, confidence, text } => {
                let frame = frame.kind(2).u32(ear.0).u32(*utterance);
                frame.u32(confidence.to_bits()).bytes(text.as_bytes())
            }
            Self::NothingHeard { ear, utterance } => frame.kind(3).u32(ear.0).u32(*utterance),
            Self::NotHeard { ear, utterance } => frame.kind(4).u32(ear.0).u32(*utterance),
            Self::Piece { speaking, is_last, samples } => {
                frame.kind(5).u32(speaking.0).u8(u8::from(*is_last)).samples(samples)
            }
            Self::NotSpoken { speaking } => frame.kind(6).u32(speaking.0),
        }
        .end();
    }

    fn parse(frame: &[u8]) -> Result<Self, ProtocolError> {
        let mut body = Body(frame);
        let answer = match body.u8()? {
            0 => Self::Ready,
            1 => {
                let (ear, utterance) = (EarId(body.u32()?), body.u32()?);
                Self::Partial { ear, utterance, text: body.rest()? }
            }
            2 => {
                let (ear, utterance) = (EarId(body.u32()?), body.u32()?);
                let confidence = f32::from_bits(body.u32()?);
                if !(0.0..=1.0).contains(&confidence) {
                    return Err(ProtocolError::Malformed);
                }
                Self::Heard { ear, utterance, confidence, text: body.rest()? }
            }
            3 => Self::NothingHeard { ear: EarId(body.u32()?), utterance: body.u32()? },
            4 => Self::NotHeard { ear: EarId(body.u32()?), utterance: body.u32()? },
            5 => {
                let (speaking, is_last) = (SpeakingId(body.u32()?), body.flag()?);
                Self::Piece { speaking, is_last, samples: body.samples()? }
            }
            6 => Self::NotSpoken { speaking: SpeakingId(body.u32()?) },
            _ => return Err(ProtocolError::Malformed),
        };
        body.finish(answer)
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    /// Where the first whole frame begins.
    start: usize,
}

impl FrameReader {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.start);
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, where it is whole.
    ///
    /// # Errors
    /// When the bytes are no message; the stream is of no use then.
    pub fn message<M: Message>(&mut self) -> Result<Option<M>, ProtocolError> {
        let Some((length, rest)) = self.bytes[self.start..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > limit::PROVIDER_FRAME_BYTES.get() {
            return Err(ProtocolError::TooLong);
        }
        let Some(frame) = rest.get(..length) else { return Ok(None) };
        let message = M::parse(frame)?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

struct Frame<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Frame<'a> {
    fn begin(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        Self { out, start }
    }

    fn kind(self, kind: u8) -> Self {
        self.u8(kind)
    }

    fn u8(self, value: u8) -> Self {
        self.bytes(&[value])
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A text among others; its length, in two bytes, goes before it.
    fn text(self, text: &str) -> Self {
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.bytes(&length.to_le_bytes()).bytes(&text.as_bytes()[..usize::from(length)])
    }

    fn samples(self, samples: &[i16]) -> Self {
        self.out.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        self
    }

    fn bytes(self, bytes: &[u8]) -> Self {
        self.out.extend_from_slice(bytes);
        self
    }

    fn end(self) {
        let length = u32::try_from(self.out.len() - self.start - 4).unwrap_or(u32::MAX);
        self.out[self.start..self.start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(ProtocolError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8, ProtocolError> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, ProtocolError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(ProtocolError::Malformed),
        }
    }

    fn u32(&mut self) -> Result<u32, ProtocolError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(ProtocolError::Malformed)?;
        self.0 = rest;
        Ok(u32::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Result<String, ProtocolError> {
        let length = self.take(2)?;
        let bytes = self.take(usize::from(length[0]) | usize::from(length[1]) << 8)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| ProtocolError::Malformed)
    }

    fn rest(&mut self) -> Result<String, ProtocolError> {
        let bytes = core::mem::take(&mut self.0);
        String::from_utf8(bytes.to_vec()).map_err(|_| ProtocolError::Malformed)
    }

    fn samples(&mut self) -> Result<Vec<i16>, ProtocolError> {
        let (pairs, []) = core::mem::take(&mut self.0).as_chunks::<2>() else {
            return Err(ProtocolError::Malformed);
        };
        Ok(pairs.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
    }

    fn finish<M>(self, message: M) -> Result<M, ProtocolError> {
        if self.0.is_empty() { Ok(message) } else { Err(ProtocolError::Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands() -> Vec<Command> {
        let ear = EarId(7);
        vec![
            Command::Open { ear },
            Command::Grammar { ear, phrases: vec!["yes please".into(), "no".into()] },
            Command::Grammar { ear, phrases: vec![] },
            Command::Begin { ear, utterance: 3 },
            Command::Audio { ear, is_narrowband: true, samples: vec![-1, 0, i16::MAX] },
            Command::End { ear },
            Command::Close { ear },
            Command::Speak {
                speaking: SpeakingId(9), voice: Voice::Kal, text: "Grüß Gott".into()
            },
        ]
    }

    fn answers() -> Vec<Answer> {
        let ear = EarId(u32::MAX);
        vec![
            Answer::Ready,
            Answer::Partial { ear, utterance: 1, text: "yes".into() },
            Answer::Heard { ear, utterance: 1, confidence: 0.75, text: "yes".into() },
            Answer::NothingHeard { ear, utterance: 2 },
            Answer::NotHeard { ear, utterance: 2 },
            Answer::Piece { speaking: SpeakingId(1), is_last: true, samples: vec![i16::MIN] },
            Answer::NotSpoken { speaking: SpeakingId(1) },
        ]
    }

    fn read<M: Message>(bytes: &[u8], step: usize) -> Result<Vec<M>, ProtocolError> {
        let (mut reader, mut found) = (FrameReader::default(), Vec::new());
        for piece in bytes.chunks(step) {
            reader.push(piece);
            while let Some(message) = reader.message()? {
                found.push(message);
            }
        }
        Ok(found)
    }

    fn written<M: Message>(messages: &[M]) -> Vec<u8> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| message.write(&mut bytes));
        bytes
    }

    #[test]
    fn messages_survive_the_round_trip_however_the_stream_is_cut() {
        for step in [1, 3, 7, 1000] {
            assert!(read(&written(&commands()), step) == Ok(commands()));
            assert!(read(&written(&answers()), step) == Ok(answers()));
        }
    }

    #[test]
    fn a_changed_or_cut_frame_is_an_error_or_another_message_but_never_a_panic() {
        let (whole, answers) = (written(&commands()), written(&answers()));
        for bytes in [whole, answers] {
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut changed = bytes.clone();
                    changed[at] = value;
                    let _ = read::<Command>(&changed, 64);
                    let _ = read::<Answer>(&changed, 64);
                }
            }
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_before_it_is_buffered() {
        let mut reader = FrameReader::default();
        reader.push(&u32::MAX.to_le_bytes());
        assert!(reader.message::<Command>() == Err(ProtocolError::TooLong));
    }

    #[test]
    fn the_largest_of_everything_fits_a_frame() {
        let phrase = "a".repeat(limit::AGENT_PHRASE_BYTES.get());
        let largest = [
            Command::Grammar {
                ear: EarId(1),
                phrases: vec![phrase; limit::AGENT_GRAMMAR_PHRASES.get()],
            },
            Command::Audio { ear: EarId(1), is_narrowband: false, samples: vec![1; AUDIO_SAMPLES] },
            Command::Speak {
                speaking: SpeakingId(1),
                voice: Voice::Slt,
                text: "a".repeat(limit::AGENT_TEXT_BYTES.get()),
            },
        ];
        assert!(read::<Command>(&written(&largest), 4096).is_ok_and(|read| read == largest));
    }

    #[test]
    fn a_voice_goes_by_its_name() {
        assert_eq!(Voice::named(""), Some(Voice::Slt));
        assert!(Voice::ALL.into_iter().all(|voice| Voice::named(voice.name()) == Some(voice)));
        assert_eq!(Voice::named("siri"), None);
        assert!(Voice::ALL.into_iter().enumerate().all(|(index, voice)| voice as usize == index));
    }
}
