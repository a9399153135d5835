//! What one speech process has been asked and has not answered: which ears are open, which
//! utterances and texts are in its hands and until when. Pure but for the queue that it fills;
//! who holds it also keeps its order with the queue's.
//!
//! An utterance is *live* once the process was told of its beginning, and *lost* where it was not
//! or died on the way; a lost one is answered with `Failed` when it ends, so that exactly one
//! answer follows each end.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use agent::provider::{Grammar, ProviderEvent, ProviderSink, Role, SpeechId, UtteranceId};
use base::{CallId, Personal, limit};
use speech::protocol::{Answer, Command, EarId, Message, SpeakingId, Voice};

use crate::cache;

/// An answer on its way to a call.
pub(crate) struct Delivery {
    sink: Arc<dyn ProviderSink>,
    call: CallId,
    event: ProviderEvent,
}

impl Delivery {
    /// Hands it over; not to be called under a lock, since a sink may ask for more.
    pub(crate) fn deliver(self) {
        self.sink.deliver(self.call, self.event);
    }
}

/// Speech that was made whole and may be kept.
pub(crate) struct Made {
    pub(crate) voice: Voice,
    pub(crate) text: String,
    pub(crate) samples: Arc<[i16]>,
}

/// The book of one process.
pub(crate) struct Pending {
    /// To the process's thread; none once it is given up.
    pub(crate) queue: Option<SyncSender<Vec<u8>>>,
    /// Whether the process has loaded its models and lives.
    pub(crate) is_ready: bool,
    ears: BTreeMap<EarId, Ear>,
    texts: BTreeMap<SpeakingId, Text>,
    ids: u32,
    /// Until when an answer to anything shows that the process does not hang.
    answers_until: Option<Instant>,
}

/// The process does nothing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hung;

struct Ear {
    call: CallId,
    sink: Arc<dyn ProviderSink>,
    grammar: Arc<Grammar>,
    /// Whether the process has an older grammar.
    is_stale: bool,
    hearing: Hearing,
    /// Utterances that are over, and until when each must be answered.
    awaited: VecDeque<(UtteranceId, Instant)>,
}

#[derive(Clone, Copy)]
enum Hearing {
    Nothing,
    Live(UtteranceId),
    Lost,
}

struct Text {
    call: CallId,
    speech: SpeechId,
    sink: Arc<dyn ProviderSink>,
    voice: Voice,
    text: String,
    /// What was made so far; given up where it is too long to be kept.
    samples: Option<Vec<i16>>,
    /// Until when the next piece must come.
    until: Instant,
}

impl Ear {
    fn delivery(&self, event: ProviderEvent) -> Delivery {
        Delivery { sink: Arc::clone(&self.sink), call: self.call, event }
    }

    fn failed(&self) -> Delivery {
        self.delivery(ProviderEvent::Failed { role: Role::Transcriber })
    }
}

impl Text {
    fn delivery(&self, event: ProviderEvent) -> Delivery {
        Delivery { sink: Arc::clone(&self.sink), call: self.call, event }
    }

    fn failed(&self) -> Delivery {
        self.delivery(ProviderEvent::Failed { role: Role::Speaker })
    }
}

impl Pending {
    pub(crate) fn new(queue: SyncSender<Vec<u8>>) -> Self {
        let (ears, texts) = (BTreeMap::new(), BTreeMap::new());
        Self { queue: Some(queue), is_ready: false, ears, texts, ids: 0, answers_until: None }
    }

    /// Open ears.
    pub(crate) fn ears(&self) -> usize {
        self.ears.len()
    }

    /// Texts that are being spoken.
    pub(crate) fn texts(&self) -> usize {
        self.texts.len()
    }

    /// Puts a command into the queue; `false` where it is full or the process is not running.
    fn send(&self, command: &Command) -> bool {
        let mut frame = Vec::new();
        command.write(&mut frame);
        self.is_ready && self.queue.as_ref().is_some_and(|queue| queue.try_send(frame).is_ok())
    }

    fn id(&mut self) -> u32 {
        self.ids = self.ids.wrapping_add(1);
        self.ids
    }

    /// Opens an ear; none where the queue is full.
    pub(crate) fn open(&mut self, call: CallId, sink: Arc<dyn ProviderSink>) -> Option<EarId> {
        let id = EarId(self.id());
        if !self.send(&Command::Open { ear: id }) {
            return None;
        }
        let (grammar, hearing, awaited) = (Arc::default(), Hearing::Nothing, VecDeque::new());
        self.ears.insert(id, Ear { call, sink, grammar, is_stale: false, hearing, awaited });
        Some(id)
    }

    pub(crate) fn close(&mut self, id: EarId) {
        if self.ears.remove(&id).is_some() {
            // Where the queue is full, the process keeps an ear that costs it nothing but a place.
            self.send(&Command::Close { ear: id });
        }
    }

    /// Remembers and sends the grammar; `false` where the queue is full, and then it is sent again
    /// before the next utterance.
    pub(crate) fn grammar(&mut self, id: EarId, grammar: Arc<Grammar>) -> bool {
        let is_sent = self.send(&grammar_command(id, &grammar));
        if let Some(ear) = self.ears.get_mut(&id) {
            (ear.grammar, ear.is_stale) = (grammar, !is_sent);
        }
        is_sent || !self.is_ready
    }

    /// Begins an utterance; `false` where the queue is full.
    pub(crate) fn begin(&mut self, id: EarId, utterance: UtteranceId) -> bool {
        let Some(ear) = self.ears.get(&id) else { return true };
        let is_stale = ear.is_stale && !self.send(&grammar_command(id, &ear.grammar));
        let is_live = !is_stale && self.send(&Command::Begin { ear: id, utterance: utterance.0 });
        if let Some(ear) = self.ears.get_mut(&id) {
            ear.is_stale = is_stale;
            ear.hearing = if is_live { Hearing::Live(utterance) } else { Hearing::Lost };
        }
        is_live || !self.is_ready
    }

    /// Sends samples of a live utterance; `false` where the queue is full, which loses it.
    pub(crate) fn audio(&mut self, id: EarId, is_narrowband: bool, samples: &[i16]) -> bool {
        let hearing = self.ears.get(&id).map(|ear| ear.hearing);
        let Some(Hearing::Live(_)) = hearing else { return true };
        let pieces = samples.chunks(speech::protocol::AUDIO_SAMPLES);
        for samples in pieces.map(<[i16]>::to_vec) {
            if !self.send(&Command::Audio { ear: id, is_narrowband, samples }) {
                if let Some(ear) = self.ears.get_mut(&id) {
                    ear.hearing = Hearing::Lost;
                }
                return false;
            }
        }
        true
    }

    /// Ends the utterance; what is lost fails now, what is live is awaited until `until`.
    pub(crate) fn end(&mut self, id: EarId, until: Instant) -> Option<Delivery> {
        let ear = self.ears.get_mut(&id)?;
        let hearing = std::mem::replace(&mut ear.hearing, Hearing::Nothing);
        match hearing {
            Hearing::Nothing => None,
            Hearing::Live(utterance) if self.send(&Command::End { ear: id }) => {
                let ear = self.ears.get_mut(&id)?;
                ear.awaited.push_back((utterance, until));
                None
            }
            Hearing::Live(_) | Hearing::Lost => Some(self.ears.get(&id)?.failed()),
        }
    }

    /// Has a text spoken; `false` where the queue is full.
    pub(crate) fn speak(
        &mut self,
        (call, speech, sink): (CallId, SpeechId, Arc<dyn ProviderSink>),
        (voice, text): (Voice, &str),
        until: Instant,
    ) -> bool {
        let id = SpeakingId(self.id());
        let (text, samples) = (text.to_owned(), Some(Vec::new()));
        let is_sent = self.send(&Command::Speak { speaking: id, voice, text: text.clone() });
        if is_sent {
            self.texts.insert(id, Text { call, speech, sink, voice, text, samples, until });
        }
        is_sent
    }

    /// Takes an answer of the process: what goes to a call, and what may be kept. An answer to
    /// nothing that is awaited is dropped: its call has ended.
    pub(crate) fn answer(
        &mut self,
        answer: Answer,
        until: Instant,
    ) -> (Option<Delivery>, Option<Made>) {
        self.answers_until = Some(until);
        let delivery = match answer {
            Answer::Ready => {
                self.reopen();
                None
            }
            Answer::Partial { ear, utterance, text } => self.ears.get(&ear).and_then(|ear| {
                let utterance = UtteranceId(utterance);
                let is_live = matches!(ear.hearing, Hearing::Live(live) if live == utterance);
                let text = Personal::new(text);
                is_live.then(|| ear.delivery(ProviderEvent::Partial { utterance, text }))
            }),
            Answer::Heard { ear, utterance, confidence, text } => {
                let utterance = UtteranceId(utterance);
                let text = Personal::new(text);
                self.heard(ear, utterance, ProviderEvent::Heard { utterance, text, confidence })
            }
            Answer::NothingHeard { ear, utterance } => {
                let utterance = UtteranceId(utterance);
                self.heard(ear, utterance, ProviderEvent::NothingHeard { utterance })
            }
            Answer::NotHeard { ear, utterance } => {
                let event = ProviderEvent::Failed { role: Role::Transcriber };
                self.heard(ear, UtteranceId(utterance), event)
            }
            Answer::Piece { speaking, is_last, samples } => {
                return self.piece(speaking, is_last, &samples, until);
            }
            Answer::NotSpoken { speaking } => {
                self.texts.remove(&speaking).map(|text| text.failed())
            }
        };
        (delivery, None)
    }

    fn heard(
        &mut self,
        id: EarId,
        utterance: UtteranceId,
        event: ProviderEvent,
    ) -> Option<Delivery> {
        let ear = self.ears.get_mut(&id)?;
        let at = ear.awaited.iter().position(|(awaited, _)| *awaited == utterance)?;
        ear.awaited.remove(at);
        Some(ear.delivery(event))
    }

    fn piece(
        &mut self,
        id: SpeakingId,
        is_last: bool,
        samples: &[i16],
        until: Instant,
    ) -> (Option<Delivery>, Option<Made>) {
        let Some(text) = self.texts.get_mut(&id) else { return (None, None) };
        text.until = until;
        match &mut text.samples {
            Some(made) if made.len() + samples.len() <= cache::longest() => {
                made.extend_from_slice(samples);
            }
            made => *made = None,
        }
        let (speech, samples) = (text.speech, samples.into());
        let delivery = text.delivery(ProviderEvent::Speech { speech, samples, last: is_last });
        let done = if is_last { self.texts.remove(&id) } else { None };
        let made = done.and_then(|it| {
            Some(Made { voice: it.voice, text: it.text, samples: it.samples?.into() })
        });
        (Some(delivery), made)
    }

    /// Gives up what should have been answered by now. An error where not even another answer came
    /// in that time: the process hangs, rather than having too much to do.
    pub(crate) fn expire(&mut self, now: Instant) -> Result<Vec<Delivery>, Hung> {
        let awaited = self.ears.values().flat_map(|ear| &ear.awaited).map(|(_, until)| *until);
        if !awaited.chain(self.texts.values().map(|text| text.until)).any(|until| until < now) {
            return Ok(Vec::new());
        }
        if self.answers_until.is_some_and(|until| until < now) {
            return Err(Hung);
        }
        let mut failed = Vec::new();
        for ear in self.ears.values_mut() {
            let before = ear.awaited.len();
            ear.awaited.retain(|(_, until)| *until >= now);
            failed.extend((ear.awaited.len()..before).map(|_| ear.failed()));
        }
        failed.extend(
            self.texts.extract_if(.., |_, text| text.until < now).map(|(_, it)| it.failed()),
        );
        Ok(failed)
    }

    /// The process is gone: everything in its hands has failed.
    pub(crate) fn fail(&mut self) -> Vec<Delivery> {
        self.is_ready = false;
        let mut failed = Vec::new();
        for ear in self.ears.values_mut() {
            if let Hearing::Live(_) = ear.hearing {
                ear.hearing = Hearing::Lost;
            }
            let awaited = std::mem::take(&mut ear.awaited);
            failed.extend(awaited.iter().map(|_| ear.failed()));
        }
        failed.extend(std::mem::take(&mut self.texts).into_values().map(|text| text.failed()));
        failed
    }

    /// Tells a new process of the ears that are open. The queue is empty: nothing enters it while
    /// there is no process.
    fn reopen(&mut self) {
        self.is_ready = true;
        let ears: Vec<_> =
            self.ears.iter().map(|(id, ear)| (*id, Arc::clone(&ear.grammar))).collect();
        for (id, grammar) in ears {
            self.send(&Command::Open { ear: id });
            self.grammar(id, grammar);
        }
    }
}

fn grammar_command(ear: EarId, grammar: &Grammar) -> Command {
    let phrases = grammar.phrases.iter().map(|phrase| &phrase.words);
    let phrases = phrases.filter(|words| words.len() <= limit::AGENT_PHRASE_BYTES.get()).cloned();
    Command::Grammar { ear, phrases: phrases.take(limit::AGENT_GRAMMAR_PHRASES.get()).collect() }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
