//! One conversation: walks a [`Flow`], one input at a time.
//!
//! Contract: after each `handle_input` or `handle_timeout`, drain `poll_output` fully, then wait
//! until `poll_timeout`. Positions count samples at [`media::TAP_RATE`] since the media began.
//!
//! It does not decide *that* the caller speaks (the relay's voice detector does, so that the
//! agent falls silent within a frame) nor *what* was said (the transcriber); it decides whose
//! turn it is and what comes next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use base::{Event, Instant, Personal, Reason, limit};

use crate::announce::Told;
use crate::contract::{Input, Output};
use crate::flow::{Action, Choice, Flow, StepId};
use crate::provider::{ProviderEvent, Role, SpeechId, ThoughtId, UtteranceId};
use crate::turn::{self, Speaking, Turn};

/// A stretch of the caller's speech that is being heard.
#[derive(Debug)]
struct Utterance {
    id: UtteranceId,
    start: u64,
    end: u64,
    /// When the caller's silence ends the turn; `None` while speaking.
    silent_until: Option<Instant>,
    /// When it is over in any case.
    cap: Instant,
    /// Whether the transcriber was asked for its words.
    is_asked: bool,
}

/// Something the agent says.
#[derive(Debug)]
struct Said {
    text: String,
    /// Samples that the speaker gave so far.
    samples: u64,
    started: Option<(u64, Instant)>,
    latency: Option<Duration>,
}

/// Longest wait for a transfer: three targets that ring for their whole time.
const TRANSFER: Duration = Duration::from_millis(3 * limit::CALL_RING_MS.value);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not started.
    New,
    /// Saying what belongs to the step.
    Speaking(StepId),
    /// Waiting for the answer to the step's question.
    Listening(StepId),
    /// Waiting for the reasoner.
    Thinking(StepId, ThoughtId),
    /// The caller is being carried to somebody else.
    Transferring(StepId),
    /// The new party is told of the caller, who waits.
    Announcing(StepId),
    /// Saying goodbye.
    Leaving(Reason),
    /// Over.
    Over,
}

/// One conversation.
#[derive(Debug)]
pub struct Dialogue {
    call: base::CallId,
    pub(crate) flow: Arc<Flow>,
    pub(crate) state: State,
    /// What a wait of the present state ends at: silence, or a provider that does not answer.
    pub(crate) deadline: Option<Instant>,
    speaking: Option<SpeechId>,
    said: BTreeMap<SpeechId, Said>,
    utterance: Option<Utterance>,
    /// Where the caller's present speech began, kept while the agent still speaks.
    speech_start: Option<u64>,
    /// Where the caller's last turn ended: the next answer's latency counts from here.
    answering_since: Option<u64>,
    /// A speech that we have cut and whose turn is not written yet, and the caller's turns that
    /// come after it.
    cut: Option<(SpeechId, Vec<Turn>)>,
    last_words: Personal<String>,
    tries: u8,
    silences: u8,
    path_delay: Duration,
    /// What the new party of a transfer is told.
    pub(crate) told: Option<Told>,
    /// One moment on both clocks: the last speech began. (Its end is told when the frame that
    /// holds it is made, up to 20 ms early.)
    clocks: Option<(Instant, u64)>,
    /// Whether nobody is there to answer: silence means nothing then.
    is_held: bool,
    began: Instant,
    ids: u32,
    pub(crate) outputs: VecDeque<Output>,
}

impl Dialogue {
    /// A conversation that has not begun.
    #[must_use]
    pub fn new(call: base::CallId, flow: Arc<Flow>) -> Self {
        Self {
            call,
            flow,
            state: State::New,
            deadline: None,
            speaking: None,
            said: BTreeMap::new(),
            utterance: None,
            speech_start: None,
            answering_since: None,
            cut: None,
            last_words: Personal::default(),
            tries: 0,
            silences: 0,
            path_delay: Duration::ZERO,
            told: None,
            clocks: None,
            is_held: false,
            began: Instant::ZERO,
            ids: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Takes one input.
    pub fn handle_input(&mut self, now: Instant, input: Input) {
        if self.state == State::Over {
            return;
        }
        match input {
            Input::Started => {
                self.began = now;
                self.enter(now, self.flow.start);
            }
            Input::Digit { digit, from, until } => self.on_digit(now, digit, from, until),
            Input::SpeechStarted { position } => self.on_speech_started(now, position),
            Input::SpeechEnded { position } => self.on_speech_ended(now, position),
            Input::PlayoutStarted { speech, position } => {
                self.on_playout_started(now, speech, position);
            }
            Input::PlayoutFinished { speech, position } => {
                self.finish_turn(speech, None, position);
                if self.speaking == Some(speech) {
                    self.speaking = None;
                    self.on_said(now);
                }
            }
            Input::PlayoutStopped { speech, played, position, barge_in } => {
                self.finish_turn(speech, Some(played), position);
                if barge_in && self.speaking == Some(speech) {
                    self.on_barge_in(now);
                }
            }
            Input::Held(held) => self.on_held(now, held),
            Input::TargetReached => self.on_target_reached(now),
            Input::Announced { speech } => self.on_announced(now, speech),
            Input::TargetDigit(digit) => self.on_target_digit(now, digit),
            Input::TransferFailed(_) => self.on_transfer_failed(now),
            Input::PathDelay(delay) => self.path_delay = delay,
            Input::Provider(event) => self.on_provider(now, event),
            Input::Refused(role) => self.on_failed(now, role),
            Input::Ended => self.on_ended(now),
        }
    }

    /// Acts on the deadlines that have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(utterance) = &mut self.utterance {
            let is_over = utterance.cap <= now
                || utterance.silent_until.is_some_and(|silent_until| silent_until <= now);
            if is_over && !utterance.is_asked {
                utterance.is_asked = true;
                self.outputs.push_back(Output::EndUtterance);
                self.deadline = Some(now + limit::PROVIDER_REPLY_MS.millis());
                return;
            }
        }
        if self.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.deadline = None;
        match self.state {
            State::Listening(step) if self.utterance.is_some() => {
                self.fail(Role::Transcriber);
                self.drop_utterance();
                self.on_misheard(now, step);
            }
            State::Listening(step) => self.on_silence(now, step),
            State::Speaking(_) | State::Leaving(_) => self.on_failed(now, Role::Speaker),
            State::Thinking(..) => self.on_failed(now, Role::Reasoner),
            State::Transferring(_) => self.on_transfer_failed(now),
            State::Announcing(_) => self.on_target_silent(now),
            State::New | State::Over => {}
        }
    }

    /// When `handle_timeout` is next due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let utterance = self.utterance.as_ref().filter(|utterance| !utterance.is_asked);
        let turn = utterance.map(|it| it.silent_until.map_or(it.cap, |until| until.min(it.cap)));
        match (turn, self.deadline) {
            (Some(turn), _) => Some(turn),
            (None, deadline) => deadline,
        }
    }

    /// The next thing it wants.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn enter(&mut self, now: Instant, mut step: StepId) {
        let flow = Arc::clone(&self.flow);
        // Steps with nothing to say fall through; the compiler refuses circles of them.
        for _ in 0..limit::AGENT_FLOW_SPIN.get() {
            self.state = State::Speaking(step);
            match flow.step(step).map(|step| &step.action) {
                Some(Action::Say { text, next }) => {
                    if !text.is_empty() {
                        return self.speak(now, text);
                    }
                    step = *next;
                }
                Some(Action::Ask { text, grammar, .. }) => {
                    self.tries = 0;
                    self.silences = 0;
                    self.outputs.push_back(Output::Listen(Arc::clone(grammar)));
                    return self.speak(now, text);
                }
                Some(Action::Answer { question, knowledge, .. }) => {
                    let thought = ThoughtId(self.next_id());
                    let question = question.clone().map(Personal::new);
                    self.outputs.push_back(Output::Think {
                        thought,
                        question: question.unwrap_or_else(|| self.last_words.clone()),
                        knowledge: Arc::clone(knowledge),
                    });
                    self.state = State::Thinking(step, thought);
                    self.deadline = Some(now + limit::PROVIDER_REPLY_MS.millis());
                    return;
                }
                Some(Action::Transfer { text, .. }) => return self.speak(now, text),
                Some(Action::Goodbye { text }) => {
                    return self.leave(now, text, Reason::AgentHungUp);
                }
                None => return self.hang_up(now, Reason::AgentFailed),
            }
        }
        self.hang_up(now, Reason::AgentFailed);
    }

    fn speak(&mut self, now: Instant, text: &str) {
        if text.is_empty() {
            return self.on_said(now);
        }
        let speech = SpeechId(self.next_id());
        let said = Said { text: text.to_owned(), samples: 0, started: None, latency: None };
        self.said.insert(speech, said);
        self.speaking = Some(speech);
        self.deadline = Some(now + limit::PROVIDER_REPLY_MS.millis());
        self.outputs.push_back(Output::Speak { speech, text: text.to_owned() });
    }

    fn leave(&mut self, now: Instant, text: &str, reason: Reason) {
        self.state = State::Leaving(reason);
        self.speak(now, text);
    }

    /// What the present state had to say is said.
    fn on_said(&mut self, now: Instant) {
        self.deadline = None;
        match self.state {
            State::Speaking(step) => match self.flow.step(step).map(|step| &step.action) {
                Some(Action::Say { next, .. } | Action::Answer { next, .. }) => {
                    let next = *next;
                    self.enter(now, next);
                }
                Some(Action::Ask { .. }) => self.listen(now, step),
                Some(Action::Transfer { to, announcement, .. }) => {
                    self.state = State::Transferring(step);
                    self.deadline = Some(now + TRANSFER);
                    let is_announced = announcement.is_some();
                    self.outputs.push_back(Output::Transfer { to: to.clone(), is_announced });
                }
                Some(Action::Goodbye { .. }) | None => self.hang_up(now, Reason::AgentHungUp),
            },
            State::Leaving(reason) => self.hang_up(now, reason),
            State::New
            | State::Listening(_)
            | State::Thinking(..)
            | State::Transferring(_)
            | State::Announcing(_)
            | State::Over => {}
        }
    }

    /// The transfer came to nothing: the flow goes on where it says.
    fn on_transfer_failed(&mut self, now: Instant) {
        let (State::Transferring(step) | State::Announcing(step)) = self.state else { return };
        (self.deadline, self.told) = (None, None);
        match self.flow.step(step).map(|step| &step.action) {
            Some(Action::Transfer { failed, .. }) => {
                let failed = *failed;
                self.enter(now, failed);
            }
            _ => self.hang_up(now, Reason::AgentFailed),
        }
    }

    fn on_held(&mut self, now: Instant, held: bool) {
        self.is_held = held;
        match self.state {
            State::Listening(_) if self.utterance.is_none() => {
                self.deadline = (!held).then(|| now + self.flow.reprompt_after);
            }
            State::Speaking(_) | State::Leaving(_) => {
                let said = self.speaking.and_then(|speech| self.said.get(&speech));
                if let Some(samples) = said.map(|said| said.samples).filter(|it| *it > 0) {
                    self.deadline = self.playout_ends_by(now, samples);
                }
            }
            _ => {}
        }
    }

    /// When the relay must have played `samples`; its clock stands still on hold.
    fn playout_ends_by(&self, now: Instant, samples: u64) -> Option<Instant> {
        let playout = Duration::from_secs(samples / u64::from(media::TAP_RATE));
        (!self.is_held).then(|| now + playout + limit::PROVIDER_REPLY_MS.millis())
    }

    fn listen(&mut self, now: Instant, step: StepId) {
        self.state = State::Listening(step);
        self.deadline = (!self.is_held).then(|| now + self.flow.reprompt_after);
        if let Some(position) = self.speech_start {
            self.begin_utterance(now, position);
        }
    }

    fn on_speech_started(&mut self, now: Instant, position: u64) {
        self.speech_start = Some(position);
        match &mut self.utterance {
            Some(utterance) => utterance.silent_until = None,
            None if matches!(self.state, State::Listening(_)) => {
                self.begin_utterance(now, position);
            }
            None => {}
        }
    }

    fn on_speech_ended(&mut self, now: Instant, position: u64) {
        self.speech_start = None;
        if let Some(utterance) = &mut self.utterance {
            utterance.end = position;
            // The voice detector has waited already before it said so.
            let heard_since = self.clocks.map_or(Duration::ZERO, |(at, there)| {
                (turn::at(there) + now.since(at)).saturating_sub(turn::at(position))
            });
            let silence = self.flow.end_of_turn.saturating_sub(heard_since);
            utterance.silent_until = Some(now + silence);
        }
    }

    fn begin_utterance(&mut self, now: Instant, position: u64) {
        let id = UtteranceId(self.next_id());
        self.outputs.push_back(Output::BeginUtterance { utterance: id, position });
        self.deadline = None;
        self.utterance = Some(Utterance {
            id,
            start: position,
            end: position,
            silent_until: None,
            cap: now + limit::AGENT_UTTERANCE_MS.millis(),
            is_asked: false,
        });
    }

    fn drop_utterance(&mut self) {
        if self.utterance.take().is_some() {
            self.outputs.push_back(Output::CancelUtterance);
        }
    }

    /// The caller's voice has cut the agent's: it is the caller's turn.
    fn on_barge_in(&mut self, now: Instant) {
        self.speaking = None;
        self.deadline = None;
        match self.state {
            State::Speaking(step) => match self.question_after(step) {
                Some(ask) => {
                    if ask != step
                        && let Some(Action::Ask { grammar, .. }) =
                            self.flow.step(ask).map(|step| &step.action)
                    {
                        self.tries = 0;
                        self.silences = 0;
                        self.outputs.push_back(Output::Listen(Arc::clone(grammar)));
                    }
                    self.listen(now, ask);
                }
                None => self.on_said(now),
            },
            _ => self.on_said(now),
        }
    }

    /// The question that what is being said leads to, if only speech is on the way.
    fn question_after(&self, mut step: StepId) -> Option<StepId> {
        for _ in 0..limit::AGENT_FLOW_SPIN.get() {
            match &self.flow.step(step)?.action {
                Action::Ask { .. } => return Some(step),
                // An answer that is being spoken is past its thinking.
                Action::Answer { next, .. } if self.state == State::Speaking(step) => step = *next,
                Action::Say { next, .. } => step = *next,
                Action::Answer { .. } | Action::Transfer { .. } | Action::Goodbye { .. } => {
                    return None;
                }
            }
        }
        None
    }

    fn on_digit(&mut self, now: Instant, digit: char, from: Instant, until: Instant) {
        let ask = match self.state {
            State::Listening(step) => Some(step),
            State::Speaking(step) => self.question_after(step),
            _ => None,
        };
        let Some(step) = ask else { return };
        self.answering_since = None;
        self.stop_speaking();
        self.drop_utterance();
        self.write_turn(Turn {
            speaking: Speaking::Caller,
            text: Personal::new(format!("[keys {digit}]")),
            start: self.place_of(from),
            end: self.place_of(until),
            interrupted: false,
            latency: None,
        });
        match self.choice(step, |choice| choice.key == Some(digit)) {
            Some((go, words)) => {
                self.last_words = Personal::new(words);
                self.enter(now, go);
            }
            None => self.on_misheard(now, step),
        }
    }

    fn choice(&self, step: StepId, is_meant: impl Fn(&Choice) -> bool) -> Option<(StepId, String)> {
        let Some(Action::Ask { choices, .. }) = self.flow.step(step).map(|step| &step.action)
        else {
            return None;
        };
        let choice = choices.iter().find(|choice| is_meant(choice))?;
        Some((choice.go, choice.phrases.first().cloned().unwrap_or_default()))
    }

    fn stop_speaking(&mut self) {
        if let Some(speech) = self.speaking.take() {
            self.outputs.push_back(Output::StopPlayout);
            if self.said.get(&speech).is_some_and(|said| said.started.is_some()) {
                self.write_waiting();
                self.cut = Some((speech, Vec::new()));
            }
        }
    }

    /// Turns are written in the order in which they began: what cut a speech comes after it.
    pub(crate) fn write_turn(&mut self, turn: Turn) {
        match &mut self.cut {
            Some((_, waiting)) if waiting.len() < limit::CALL_DTMF_DIGITS.get() => {
                waiting.push(turn);
            }
            _ => self.outputs.push_back(Output::Turn(turn)),
        }
    }

    fn write_waiting(&mut self) {
        let waiting = self.cut.take().map(|(_, waiting)| waiting).unwrap_or_default();
        self.outputs.extend(waiting.into_iter().map(Output::Turn));
    }

    /// Where a moment is in the call's media.
    pub(crate) fn place_of(&self, moment: Instant) -> Duration {
        match self.clocks {
            Some((then, position)) => {
                (turn::at(position) + moment.since(then)).saturating_sub(then.since(moment))
            }
            None => moment.since(self.began),
        }
    }

    fn on_silence(&mut self, now: Instant, step: StepId) {
        self.silences = self.silences.saturating_add(1);
        if self.silences >= self.flow.silences {
            let flow = Arc::clone(&self.flow);
            return self.leave(now, &flow.silent_goodbye, Reason::CallerSilent);
        }
        let Some(Action::Ask { text, .. }) = self.flow.step(step).map(|step| &step.action) else {
            return;
        };
        let text = text.clone();
        self.state = State::Speaking(step);
        self.speak(now, &text);
    }

    fn on_misheard(&mut self, now: Instant, step: StepId) {
        let Some(Action::Ask { text, misheard, tries, give_up, .. }) =
            self.flow.step(step).map(|step| &step.action)
        else {
            return;
        };
        self.tries = self.tries.saturating_add(1);
        if self.tries >= *tries {
            let give_up = *give_up;
            return self.enter(now, give_up);
        }
        let words = if misheard.is_empty() { text.clone() } else { misheard.clone() };
        self.state = State::Speaking(step);
        self.speak(now, &words);
    }

    fn on_provider(&mut self, now: Instant, event: ProviderEvent) {
        match event {
            // Partial words are for who watches live; the turn ends by silence.
            ProviderEvent::Partial { .. } => {}
            ProviderEvent::Heard { utterance, text, .. } => self.on_heard(now, utterance, text),
            ProviderEvent::NothingHeard { utterance } => {
                self.on_heard(now, utterance, Personal::default());
            }
            ProviderEvent::Speech { speech, samples, last } => {
                self.on_speech(now, speech, samples, last);
            }
            ProviderEvent::Thought { thought, answer } => self.on_thought(now, thought, answer),
            ProviderEvent::Failed { role } => self.on_failed(now, role),
        }
    }

    fn on_heard(&mut self, now: Instant, id: UtteranceId, text: Personal<String>) {
        let State::Listening(step) = self.state else { return };
        let Some(utterance) = self.utterance.take_if(|utterance| utterance.id == id) else {
            return;
        };
        self.deadline = None;
        self.answering_since = Some(utterance.end);
        let found = self.choice(step, |choice| choice.phrases.contains(text.expose()));
        self.write_turn(Turn {
            speaking: Speaking::Caller,
            text: if text.expose().is_empty() {
                Personal::new(String::from("[not understood]"))
            } else {
                text.clone()
            },
            start: turn::at(utterance.start),
            end: turn::at(utterance.end),
            interrupted: false,
            latency: None,
        });
        match found {
            Some((go, _)) => {
                self.last_words = text;
                self.enter(now, go);
            }
            None => self.on_misheard(now, step),
        }
    }

    fn on_speech(&mut self, now: Instant, speech: SpeechId, samples: Arc<[i16]>, last: bool) {
        if self.is_announcing(speech) {
            return self.on_announcement(now, speech, samples, last);
        }
        if self.speaking != Some(speech) {
            return; // cut before it was synthesised
        }
        let Some(said) = self.said.get_mut(&speech) else { return };
        said.samples += samples.len() as u64;
        let queued = said.samples;
        // From here the relay's clock decides; a playout that never ends would be its fault.
        self.deadline = self.playout_ends_by(now, queued);
        if last && queued == 0 {
            self.said.remove(&speech);
            self.speaking = None;
            return self.on_said(now);
        }
        self.outputs.push_back(Output::Play { speech, samples, last });
    }

    fn on_thought(&mut self, now: Instant, thought: ThoughtId, answer: Option<String>) {
        let State::Thinking(step, expected) = self.state else { return };
        if thought != expected {
            return;
        }
        let Some(Action::Answer { unknown, .. }) = self.flow.step(step).map(|step| &step.action)
        else {
            return;
        };
        let text = answer.unwrap_or_else(|| unknown.clone());
        self.state = State::Speaking(step);
        self.speak(now, &text);
    }

    fn on_failed(&mut self, now: Instant, role: Role) {
        self.fail(role);
        match (role, self.state) {
            (Role::Speaker, State::Speaking(_) | State::Leaving(_)) => {
                self.speaking = None;
                self.hang_up(now, Reason::AgentFailed);
            }
            (Role::Speaker, State::Announcing(_)) => self.decline(now),
            (Role::Reasoner, State::Thinking(_, thought)) => self.on_thought(now, thought, None),
            (Role::Transcriber, State::Listening(step)) if self.utterance.is_some() => {
                self.drop_utterance();
                self.on_misheard(now, step);
            }
            _ => {}
        }
    }

    pub(crate) fn fail(&mut self, role: Role) {
        self.outputs.push_back(Output::Event(Event::ProviderFailed { provider: role.word() }));
    }

    fn on_playout_started(&mut self, now: Instant, speech: SpeechId, position: u64) {
        self.clocks = Some((now, position));
        let since = self.answering_since.take();
        if let Some(said) = self.said.get_mut(&speech) {
            said.started = Some((position, now));
            said.latency = since.map(|since| turn::at(position.saturating_sub(since)));
        }
    }

    /// Writes the agent's turn into the transcript, cut where the caller stopped hearing it.
    fn finish_turn(&mut self, speech: SpeechId, played: Option<u64>, position: u64) {
        let Some(said) = self.said.remove(&speech) else { return };
        let Some((start, _)) = said.started else { return };
        let delay = self.path_delay.as_micros() as u64 * u64::from(media::TAP_RATE) / 1_000_000;
        let text = match played {
            Some(played) => {
                turn::heard(&said.text, played.saturating_sub(delay), said.samples).to_owned()
            }
            None => said.text,
        };
        if let Some(latency) = said.latency {
            self.outputs.push_back(Output::Event(Event::AgentTurn {
                call: self.call,
                latency,
                interrupted: played.is_some(),
            }));
        }
        self.outputs.push_back(Output::Turn(Turn {
            speaking: Speaking::Agent,
            text: Personal::new(text),
            start: turn::at(start),
            end: turn::at(position),
            interrupted: played.is_some(),
            latency: said.latency,
        }));
        if self.cut.as_ref().is_some_and(|(cut, _)| *cut == speech) {
            self.write_waiting();
        }
    }

    fn on_ended(&mut self, now: Instant) {
        let playing = self.said.iter().find_map(|(id, said)| Some((*id, said.started?)));
        if let Some((speech, (start, since))) = playing {
            let samples =
                now.since(since).as_micros() as u64 * u64::from(media::TAP_RATE) / 1_000_000;
            self.finish_turn(speech, Some(samples), start + samples);
        }
        self.write_waiting();
        self.state = State::Over;
        self.utterance = None;
        self.deadline = None;
    }

    fn hang_up(&mut self, now: Instant, reason: Reason) {
        // Nothing that comes later is heard any more.
        self.on_ended(now);
        self.outputs.push_back(Output::HangUp(reason));
    }

    pub(crate) const fn next_id(&mut self) -> u32 {
        self.ids = self.ids.wrapping_add(1);
        self.ids
    }
}

#[cfg(test)]
#[path = "dialogue_tests.rs"]
mod tests;
