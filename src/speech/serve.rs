//! The helper's one loop: takes commands as they come, and between them does one piece of work at
//! a time, the shortest kind first: an utterance that is over, a sentence, a glance at an
//! utterance on its way. One thread, one core; the edge starts as many helpers as it gives cores.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};

use base::limit;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use speech::protocol::{
    AUDIO_SAMPLES, Answer, Command, EarId, FrameReader, Message, ProtocolError, SpeakingId, Voice,
};

use crate::hearing::{Ear, Models, Outcome, Utterance};
use crate::recogniser::RecogniserError;
use crate::sentence;
use crate::voice::Synthesiser;

/// Why the helper ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("a pipe to the edge: {0}")]
    Pipe(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A fresh process takes over with an empty dictionary.
    #[error("the decoder's dictionary is full")]
    WornOut,
}

/// A text on its way to speech.
struct Speaking {
    id: SpeakingId,
    voice: Voice,
    /// What is left of it.
    sentences: VecDeque<String>,
    /// Whether its first sound was sent.
    has_begun: bool,
}

/// The synthesiser begins with a fifth of a second of silence, for which no caller should wait.
/// Samples up to this are silence: no voice exceeds 130 in it, nor is its softest sound below 160
/// for longer than [`LEAD`].
const QUIET: u16 = 150;
/// What is kept of the silence before the first sound: 30 ms.
const LEAD: usize = 480;

/// `samples` from shortly before the first sound on.
fn from_onset(samples: &[i16]) -> &[i16] {
    let onset = samples.iter().position(|sample| sample.unsigned_abs() > QUIET);
    &samples[onset.map_or(samples.len(), |at| at.saturating_sub(LEAD))..]
}

struct Room<W> {
    models: Models,
    synthesiser: Synthesiser,
    ears: BTreeMap<EarId, Ear>,
    /// Utterances that are over, in their order.
    ended: VecDeque<(EarId, Utterance)>,
    speaking: VecDeque<Speaking>,
    out: W,
    frame: Vec<u8>,
}

/// Serves the edge until it closes `commands`.
pub(crate) fn serve(
    models: Models,
    commands: impl AsFd,
    answers: impl Write,
) -> Result<(), ServeError> {
    let mut room = Room {
        models,
        synthesiser: Synthesiser::default(),
        ears: BTreeMap::new(),
        ended: VecDeque::new(),
        speaking: VecDeque::new(),
        out: answers,
        frame: Vec::new(),
    };
    room.answer(&Answer::Ready)?;
    let mut reader = FrameReader::default();
    let mut bytes = vec![0; limit::PROVIDER_FRAME_BYTES.get()];
    let mut is_busy = false;
    loop {
        if is_readable(&commands, is_busy)? {
            let count = rustix::io::read(&commands, &mut bytes).map_err(io::Error::from)?;
            if count == 0 {
                return Ok(());
            }
            reader.push(&bytes[..count]);
            while let Some(command) = reader.message()? {
                room.obey(command);
            }
        }
        is_busy = room.work()?;
    }
}

/// Whether a read would not wait; where there is nothing else to do, waits until so.
fn is_readable(commands: &impl AsFd, is_busy: bool) -> io::Result<bool> {
    let mut polled = [PollFd::new(commands, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(poll(&mut polled, is_busy.then_some(&now))? > 0)
}

impl<W: Write> Room<W> {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Open { ear } => {
                if self.ears.len() < limit::PROVIDER_EARS.get() {
                    self.ears.insert(ear, Ear::new());
                }
            }
            Command::Grammar { ear, phrases } => self.with(ear, |ear, _| ear.grammar(phrases)),
            Command::Begin { ear, utterance } => self.with(ear, |ear, _| ear.begin(utterance)),
            Command::Audio { ear, is_narrowband, samples } => {
                self.with(ear, |ear, models| ear.audio(models, is_narrowband, &samples));
            }
            Command::End { ear: id } => {
                let ended = self.ears.get_mut(&id).and_then(Ear::end);
                self.ended.extend(ended.map(|utterance| (id, utterance)));
            }
            Command::Close { ear } => {
                self.ears.remove(&ear);
                self.ended.retain(|(of, _)| *of != ear);
            }
            Command::Speak { speaking: id, voice, text } => {
                let sentences = sentence::split(&text);
                self.speaking.push_back(Speaking { id, voice, sentences, has_begun: false });
            }
        }
    }

    fn with(&mut self, id: EarId, act: impl FnOnce(&mut Ear, &mut Models)) {
        if let Some(ear) = self.ears.get_mut(&id) {
            act(ear, &mut self.models);
        }
    }

    /// Does one piece of work; whether there may be more.
    fn work(&mut self) -> Result<bool, ServeError> {
        if let Some((id, utterance)) = self.ended.pop_front() {
            self.hear(id, &utterance)?;
        } else if let Some(speaking) = self.speaking.pop_front() {
            self.speak(speaking)?;
        } else {
            return self.glance();
        }
        Ok(true)
    }

    fn hear(&mut self, id: EarId, utterance: &Utterance) -> Result<(), ServeError> {
        let Some(ear) = self.ears.get_mut(&id) else { return Ok(()) };
        let number = utterance.number;
        let answer = match ear.recognise(&mut self.models, utterance) {
            Ok(Outcome::Heard(text, confidence)) => {
                Answer::Heard { ear: id, utterance: number, confidence, text }
            }
            Ok(Outcome::Nothing) => Answer::NothingHeard { ear: id, utterance: number },
            Err(RecogniserError::WornOut) => return Err(ServeError::WornOut),
            Err(_) => Answer::NotHeard { ear: id, utterance: number },
        };
        Ok(self.answer(&answer)?)
    }

    /// Speaks one sentence; the rest goes behind the others' texts.
    fn speak(&mut self, mut text: Speaking) -> Result<(), ServeError> {
        let Speaking { id, voice, .. } = text;
        let Some(sentence) = text.sentences.pop_front() else {
            return Ok(self.answer(&Answer::NotSpoken { speaking: id })?);
        };
        let (out, frame) = (&mut self.out, &mut self.frame);
        let mut sent = Ok(());
        let mut has_begun = text.has_begun;
        let mut on_piece = |samples: &[i16]| {
            let samples = if has_begun { samples } else { from_onset(samples) };
            has_begun |= !samples.is_empty();
            for samples in samples.chunks(AUDIO_SAMPLES) {
                let samples = samples.to_vec();
                let piece = Answer::Piece { speaking: id, is_last: false, samples };
                if sent.is_ok() {
                    sent = send(out, frame, &piece);
                }
            }
        };
        let made = self.synthesiser.speak(voice, &sentence, &mut on_piece);
        sent?;
        text.has_begun = has_begun;
        if made.is_err() {
            self.answer(&Answer::NotSpoken { speaking: id })?;
        } else if text.sentences.is_empty() {
            self.answer(&Answer::Piece { speaking: id, is_last: true, samples: Vec::new() })?;
        } else {
            self.speaking.push_back(text);
        }
        Ok(())
    }

    /// Looks at one utterance on its way; whether one was due.
    fn glance(&mut self) -> Result<bool, ServeError> {
        let mut glances = self.ears.iter_mut().filter_map(|(id, ear)| {
            let (utterance, text) = ear.glance(&mut self.models)?;
            Some(Answer::Partial { ear: *id, utterance, text })
        });
        let Some(partial) = glances.next() else { return Ok(false) };
        drop(glances);
        self.answer(&partial)?;
        Ok(true)
    }

    fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        send(&mut self.out, &mut self.frame, answer)
    }
}

fn send(out: &mut impl Write, frame: &mut Vec<u8>, answer: &Answer) -> io::Result<()> {
    frame.clear();
    answer.write(frame);
    out.write_all(frame)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_begins_shortly_before_its_first_sound() {
        let mut samples = vec![3; 700];
        assert!(from_onset(&samples).is_empty());
        samples.push(-900);
        assert_eq!(from_onset(&samples).len(), LEAD + 1);
        assert_eq!(from_onset(&[900, 0]), [900, 0]);
    }
}
