//! The shard: one owner of calls and their voice agents, and the step function that carries what
//! one member wants to the others. Synchronous and clock-free behind [`Driver`], so that the
//! simulated world runs what production runs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use agent::provider::{ProviderError, ProviderEvent, Role, SpeechId, ThoughtId};
use agent::{Dialogue, Turn};
use base::{
    CallId, Event, Instant, LegId, Personal, Reason, SessionId, TrunkName, VoiceAgentName,
    WallTime, limit,
};
use bytes::Bytes;
use call::{Calls, Crossing, Keep, Record, Unserved};
use media::{MediaEvent, Purpose, StopCause};
use policy::Transport;
use relay::Command;
use sip::FlowId;

use crate::agents::Agents;
use crate::ear::EarCommand;
use crate::share::Held;

/// What a shard is told.
#[derive(Debug)]
pub enum Input {
    /// Something for the calls.
    Call(call::Input),
    /// A message from outside, and the part of its trunk's share that it fills until handled.
    Message(call::Input, Held),
    /// Something happened at a media session.
    Media {
        /// Which.
        session: SessionId,
        /// What.
        event: MediaEvent,
    },
    /// A media session is gone by a fault.
    MediaFailed(SessionId),
    /// A provider answered.
    Provider {
        /// For which call.
        call: CallId,
        /// What.
        event: ProviderEvent,
    },
    /// New voice agents; calls in progress keep theirs.
    Agents(Arc<Agents>),
}

/// A flow that a leg needs; see [`call::Output::Connect`].
#[derive(Debug)]
pub struct Wish {
    /// The leg.
    pub leg: LegId,
    /// Whose place it is.
    pub trunk: TrunkName,
    /// The place: a SIP URI.
    pub uri: Personal<String>,
    /// Over this.
    pub transport: Transport,
    /// Names that the peer's certificate has proved before.
    pub proved: Arc<[String]>,
    /// Who tried the place's last address in vain.
    pub after: Option<(LegId, Unserved)>,
}

/// What a shard wants done. Nothing here waits; what cannot be done is said or counted.
pub trait Driver {
    /// Puts bytes on a flow.
    fn send(&mut self, flow: FlowId, bytes: Bytes);
    /// Finds a flow to a place; answered with [`call::Input::Connected`] or
    /// [`call::Input::Unreachable`].
    fn connect(&mut self, wish: Wish);
    /// The flow that was found for a leg serves.
    fn served(&mut self, leg: LegId);
    /// Commands a media session; `false` where its worker takes nothing.
    fn relay(&mut self, session: SessionId, command: Command) -> bool;
    /// Lets the transcriber, and with `keep.recording` the recorder, listen along.
    fn listen(&mut self, call: CallId, session: SessionId, keep: Keep);
    /// Lets the recorder listen to two bridged sessions: the caller's, and the callee's.
    fn tape(&mut self, call: CallId, sessions: [SessionId; 2]);
    /// Tells a call's ear.
    fn ear(&mut self, call: CallId, command: EarCommand);
    /// Asks the speaker.
    ///
    /// # Errors
    /// Where it does not take the request.
    fn speak(
        &mut self,
        call: CallId,
        speech: SpeechId,
        text: &str,
        voice: &str,
    ) -> Result<(), ProviderError>;
    /// Asks the reasoner.
    ///
    /// # Errors
    /// Where it does not take the request.
    fn think(
        &mut self,
        call: CallId,
        thought: ThoughtId,
        question: &Personal<String>,
        knowledge: &str,
    ) -> Result<(), ProviderError>;
    /// Stores something about a call.
    fn store(&mut self, record: Record);
    /// A call's media, for whoever looks on.
    fn media(&mut self, leg: LegId, event: &MediaEvent) {
        let _ = (leg, event);
    }
    /// Stores a finished turn.
    fn turn(&mut self, call: CallId, turn: Turn);
    /// Tells the calls of another shard.
    ///
    /// # Errors
    /// There is no such shard, or it takes nothing; what it was to be told comes back.
    fn cross(&mut self, shard: usize, crossing: Box<Crossing>) -> Result<(), Box<Crossing>>;
    /// Tells the operator.
    fn event(&mut self, event: Event);
}

/// A call's conversation with its voice agent.
#[derive(Debug)]
struct Talk {
    dialogue: Dialogue,
    leg: LegId,
    /// The new party of a transfer, while the voice agent speaks with it.
    target: Option<LegId>,
    voice: String,
    keeps_transcript: bool,
}

/// How long a released session may still report.
const LAST_REPORT: Duration = Duration::from_secs(10);

/// See the module's documentation.
pub struct Shard {
    number: u64,
    shards: u64,
    calls: Calls,
    agents: Arc<Agents>,
    talks: BTreeMap<CallId, Talk>,
    /// Keys pressed before the voice agent began, between our 200 and a late ACK.
    early_keys: BTreeMap<CallId, Vec<agent::Input>>,
    /// Legs that talk with another leg.
    bridged: BTreeSet<LegId>,
    /// Calls whose bridged legs are recorded, and which these are.
    taped: BTreeMap<CallId, [LegId; 2]>,
    sessions: BTreeMap<LegId, SessionId>,
    legs: BTreeMap<SessionId, LegId>,
    released: VecDeque<(Instant, SessionId)>,
    stems_made: u64,
}

impl Shard {
    /// The shard `number` of `shards`, which owns `calls`.
    #[must_use]
    pub fn new(number: u8, shards: u8, calls: Calls, agents: Arc<Agents>) -> Self {
        Self {
            number: u64::from(number),
            shards: u64::from(shards.max(1)),
            calls,
            agents,
            talks: BTreeMap::new(),
            early_keys: BTreeMap::new(),
            bridged: BTreeSet::new(),
            taped: BTreeMap::new(),
            sessions: BTreeMap::new(),
            legs: BTreeMap::new(),
            released: VecDeque::new(),
            stems_made: 0,
        }
    }

    /// The shard that owns a session, of `shards`.
    #[must_use]
    pub const fn of_session(session: SessionId, shards: u64) -> u64 {
        session.stem() % shards
    }

    /// Takes one input and carries out all that follows from it.
    pub fn handle(&mut self, now: Instant, wall: WallTime, input: Input, driver: &mut dyn Driver) {
        match input {
            Input::Call(input) => self.calls.handle_input(now, wall, input),
            Input::Message(input, held) => {
                self.calls.handle_input(now, wall, input);
                drop(held);
            }
            Input::Media { session, event } => self.on_media(now, wall, session, event, driver),
            Input::MediaFailed(session) => {
                if let Some(leg) = self.forget(session) {
                    let (call, reason) = (leg.call, Reason::Internal);
                    self.calls.handle_input(now, wall, call::Input::HangUp { call, reason });
                }
            }
            Input::Provider { call, event } => {
                self.tell(now, wall, call, agent::Input::Provider(event), driver);
            }
            Input::Agents(agents) => self.agents = agents,
        }
        self.drain(now, wall, driver);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, wall: WallTime, driver: &mut dyn Driver) {
        self.calls.handle_timeout(now, wall);
        let due: Vec<CallId> = self
            .talks
            .iter()
            .filter(|(_, talk)| talk.dialogue.poll_timeout().is_some_and(|at| at <= now))
            .map(|(call, _)| *call)
            .collect();
        for call in due {
            if let Some(talk) = self.talks.get_mut(&call) {
                talk.dialogue.handle_timeout(now);
            }
            self.follow(now, wall, call, driver);
        }
        while let Some((_, session)) =
            self.released.pop_front_if(|(at, _)| now.since(*at) >= LAST_REPORT)
        {
            self.forget(session);
        }
        self.drain(now, wall, driver);
    }

    /// When `handle_timeout` is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let talks = self.talks.values().filter_map(|talk| talk.dialogue.poll_timeout()).min();
        let released = self.released.front().map(|(at, _)| *at + LAST_REPORT);
        [self.calls.poll_timeout(), talks, released].into_iter().flatten().min()
    }

    /// Calls that are not yet forgotten.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// Media sessions that are not yet forgotten.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.legs.len()
    }

    /// Conversations in progress.
    #[must_use]
    pub fn talks(&self) -> usize {
        self.talks.len()
    }

    fn on_media(
        &mut self,
        now: Instant,
        wall: WallTime,
        session: SessionId,
        event: MediaEvent,
        driver: &mut dyn Driver,
    ) {
        let Some(leg) = self.legs.get(&session).copied() else { return };
        if let MediaEvent::Report { last: true, .. } = &event {
            self.forget(session);
        }
        driver.media(leg, &event);
        let talk = self.talks.get(&leg.call);
        if talk.is_some_and(|talk| talk.target == Some(leg)) {
            if let Some(input) = of_target(&event) {
                self.tell(now, wall, leg.call, input, driver);
            }
        } else {
            match (to_agent(now, &event), talk.is_some_and(|talk| talk.leg == leg)) {
                (Some(input), true) => self.tell(now, wall, leg.call, input, driver),
                (Some(input @ agent::Input::Digit { .. }), false) => {
                    self.hold_key(leg, input, driver);
                }
                _ => {}
            }
        }
        self.calls.handle_input(now, wall, call::Input::Media { leg, event });
    }

    /// Carries out what the calls want, until they want nothing more.
    fn drain(&mut self, now: Instant, wall: WallTime, driver: &mut dyn Driver) {
        while let Some(output) = self.calls.poll_output() {
            self.carry(now, wall, output, driver);
        }
    }

    fn carry(
        &mut self,
        now: Instant,
        wall: WallTime,
        output: call::Output,
        driver: &mut dyn Driver,
    ) {
        match output {
            call::Output::Send { flow, bytes } => driver.send(flow, bytes),
            call::Output::Connect { leg, trunk, uri, transport, proved, after } => {
                driver.connect(Wish { leg, trunk, uri, transport, proved, after });
            }
            call::Output::Served { leg } => driver.served(leg),
            call::Output::Reserve { leg, need } => {
                let session = self.new_session(leg);
                if !driver.relay(session, Command::Reserve(need)) {
                    self.forget(session);
                    let event = MediaEvent::ReserveFailed { ports: false };
                    self.calls.handle_input(now, wall, call::Input::Media { leg, event });
                }
            }
            call::Output::Apply { plan } => self.apply(now, wall, plan, driver),
            call::Output::HandOver { from, to } => self.hand_over(from, to),
            call::Output::Release { leg } => self.release(now, wall, leg, driver),
            call::Output::StartAgent { call, leg, agent, keep } => {
                self.start_agent(now, wall, call, leg, &agent, keep, driver);
            }
            call::Output::Ring { leg, on } => {
                if let Some(session) = self.sessions.get(&leg) {
                    driver.relay(*session, Command::Ring(on));
                }
            }
            call::Output::Tape { call, caller, callee } => {
                let session = |leg| self.sessions.get(&leg).copied();
                if let (Some(caller_session), Some(callee_session)) =
                    (session(caller), session(callee))
                {
                    self.taped.insert(call, [caller, callee]);
                    driver.tape(call, [caller_session, callee_session]);
                }
            }
            call::Output::StopTape { call } => self.stop_tape(call, driver),
            call::Output::Held { call, held } => {
                self.tell(now, wall, call, agent::Input::Held(held), driver);
            }
            call::Output::Digit { leg, digit } => self.on_key(now, wall, leg, digit, driver),
            call::Output::Press { leg, digit } => {
                if let Some(session) = self.sessions.get(&leg) {
                    driver.relay(*session, Command::SendDigits(digit.to_string()));
                }
            }
            call::Output::StopAgent { call } => self.stop_agent(now, wall, call, driver),
            call::Output::TargetReached { leg } => {
                self.set_target(leg.call, Some(leg));
                self.tell(now, wall, leg.call, agent::Input::TargetReached, driver);
            }
            call::Output::TransferFailed { call, reason } => {
                self.set_target(call, None);
                self.tell(now, wall, call, agent::Input::TransferFailed(reason), driver);
            }
            call::Output::Cross { shard, crossing } => {
                if let Err(crossing) = driver.cross(usize::from(shard), crossing) {
                    let input = call::Input::NotCrossed(crossing);
                    self.calls.handle_input(now, wall, input);
                }
            }
            call::Output::Record(record) => driver.store(*record),
            call::Output::Event(event) => driver.event(event),
        }
    }

    fn apply(
        &mut self,
        now: Instant,
        wall: WallTime,
        plan: Box<media::LegPlan>,
        driver: &mut dyn Driver,
    ) {
        let (leg, Some(session)) = (plan.leg, self.sessions.get(&plan.leg).copied()) else {
            return;
        };
        let with = match &plan.purpose {
            Purpose::Bridge(Some(bridge)) => self.sessions.get(&bridge.with).copied(),
            Purpose::Bridge(None) | Purpose::Agent { .. } => None,
        };
        match &plan.purpose {
            Purpose::Agent { .. } => self.bridged.remove(&leg),
            Purpose::Bridge(_) => self.bridged.insert(leg),
        };
        if !driver.relay(session, Command::Apply { plan, with }) {
            // Without its plan the leg is mute: the call must not look well.
            let (call, reason) = (leg.call, Reason::RelayFull);
            self.calls.handle_input(now, wall, call::Input::HangUp { call, reason });
        }
    }

    /// A key came by signalling.
    fn on_key(
        &mut self,
        now: Instant,
        wall: WallTime,
        leg: LegId,
        digit: char,
        driver: &mut dyn Driver,
    ) {
        let input = agent::Input::Digit { digit, from: now, until: now };
        let target = agent::Input::TargetDigit(digit);
        match self.talks.get(&leg.call).map(|talk| talk.target == Some(leg)) {
            Some(true) => self.tell(now, wall, leg.call, target, driver),
            Some(false) => self.tell(now, wall, leg.call, input, driver),
            None => self.hold_key(leg, input, driver),
        }
    }

    fn set_target(&mut self, call: CallId, target: Option<LegId>) {
        if let Some(talk) = self.talks.get_mut(&call) {
            talk.target = target;
        }
    }

    fn new_session(&mut self, leg: LegId) -> SessionId {
        let known = self.sessions.range(LegId { index: 0, ..leg }..).next();
        let stem = match known.filter(|(known, _)| known.call == leg.call) {
            Some((_, session)) => session.stem(),
            None => {
                self.stems_made += 1;
                self.stems_made * self.shards + self.number
            }
        };
        let session = SessionId::new(stem, leg.index);
        self.sessions.insert(leg, session);
        self.legs.insert(session, leg);
        session
    }

    /// The media session of one leg is another one's, with the voice agent that talks there.
    fn hand_over(&mut self, from: LegId, to: LegId) {
        let Some(session) = self.sessions.remove(&from) else { return };
        self.sessions.insert(to, session);
        self.legs.insert(session, to);
        if self.bridged.remove(&from) {
            self.bridged.insert(to);
        }
        if let Some(talk) = self.talks.get_mut(&from.call).filter(|talk| talk.leg == from) {
            talk.leg = to;
        }
        let taped = self.taped.get_mut(&from.call).into_iter().flatten();
        taped.filter(|leg| **leg == from).for_each(|leg| *leg = to);
    }

    fn forget(&mut self, session: SessionId) -> Option<LegId> {
        let leg = self.legs.remove(&session)?;
        if self.sessions.get(&leg) == Some(&session) {
            self.sessions.remove(&leg);
        }
        Some(leg)
    }

    /// Keeps a key for a voice agent that has not begun.
    fn hold_key(&mut self, leg: LegId, key: agent::Input, driver: &mut dyn Driver) {
        if !self.sessions.contains_key(&leg) || self.bridged.contains(&leg) {
            return; // the call is over, or no voice agent will take it
        }
        let keys = self.early_keys.entry(leg.call).or_default();
        if keys.len() < limit::CALL_DTMF_DIGITS.get() {
            keys.push(key);
        } else {
            driver.event(Event::QueueFull { queue: "keys" });
        }
    }

    /// The voice agent's part is over.
    fn stop_agent(&mut self, now: Instant, wall: WallTime, call: CallId, driver: &mut dyn Driver) {
        self.early_keys.remove(&call);
        if self.talks.contains_key(&call) {
            self.tell(now, wall, call, agent::Input::Ended, driver);
            self.talks.remove(&call);
            driver.ear(call, EarCommand::Close);
        }
    }

    /// The recording of two bridged legs is over.
    fn stop_tape(&mut self, call: CallId, driver: &mut dyn Driver) {
        if self.taped.remove(&call).is_some() {
            driver.ear(call, EarCommand::CloseTape);
        }
    }

    fn release(&mut self, now: Instant, wall: WallTime, leg: LegId, driver: &mut dyn Driver) {
        self.bridged.remove(&leg);
        if self.taped.get(&leg.call).is_some_and(|legs| legs.contains(&leg)) {
            self.stop_tape(leg.call, driver);
        }
        if self.talks.get(&leg.call).is_none_or(|talk| talk.leg == leg) {
            self.stop_agent(now, wall, leg.call, driver);
        }
        if let Some(session) = self.sessions.remove(&leg) {
            // A worker that takes no command now takes none at all: its session ends with it.
            driver.relay(session, Command::Release);
            self.released.push_back((now, session));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one output, taken apart")]
    fn start_agent(
        &mut self,
        now: Instant,
        wall: WallTime,
        call: CallId,
        leg: LegId,
        name: &VoiceAgentName,
        keep: Keep,
        driver: &mut dyn Driver,
    ) {
        let (flow, session) = (self.agents.get(name.as_str()), self.sessions.get(&leg).copied());
        let (Some(flow), Some(session)) = (flow, session) else {
            let reason = Reason::AgentUnavailable;
            return self.calls.handle_input(now, wall, call::Input::HangUp { call, reason });
        };
        driver.listen(call, session, keep);
        let talk = Talk {
            dialogue: Dialogue::new(call, Arc::clone(flow)),
            leg,
            target: None,
            voice: flow.voice.clone(),
            keeps_transcript: keep.transcript,
        };
        self.talks.insert(call, talk);
        self.tell(now, wall, call, agent::Input::Started, driver);
        for key in self.early_keys.remove(&call).unwrap_or_default() {
            self.tell(now, wall, call, key, driver);
        }
    }

    /// Tells a voice agent something and carries out what it wants.
    fn tell(
        &mut self,
        now: Instant,
        wall: WallTime,
        call: CallId,
        input: agent::Input,
        driver: &mut dyn Driver,
    ) {
        if let Some(talk) = self.talks.get_mut(&call) {
            talk.dialogue.handle_input(now, input);
            self.follow(now, wall, call, driver);
        }
    }

    /// Hands a piece of speech to a leg's session; who failed, where it is not taken.
    fn play(
        &self,
        leg: Option<LegId>,
        (speech, samples, last): (SpeechId, Arc<[i16]>, bool),
        driver: &mut dyn Driver,
    ) -> Option<Role> {
        let command = Command::Play { speech: speech.0, samples, last };
        let session = leg.and_then(|leg| self.sessions.get(&leg));
        let taken = session.is_some_and(|session| driver.relay(*session, command));
        (!taken).then_some(Role::Speaker)
    }

    fn stop_playout(&self, leg: Option<LegId>, driver: &mut dyn Driver) {
        if let Some(session) = leg.and_then(|leg| self.sessions.get(&leg)) {
            driver.relay(*session, Command::StopPlayout);
        }
    }

    fn follow(&mut self, now: Instant, wall: WallTime, call: CallId, driver: &mut dyn Driver) {
        while let Some(talk) = self.talks.get_mut(&call) {
            let Some(output) = talk.dialogue.poll_output() else { return };
            let (talk_leg, talk_target) = (talk.leg, talk.target);
            let refused = match output {
                agent::Output::Speak { speech, text } => {
                    driver.speak(call, speech, &text, &talk.voice).err().map(|_| Role::Speaker)
                }
                agent::Output::Think { thought, question, knowledge } => {
                    driver.think(call, thought, &question, &knowledge).err().map(|_| Role::Reasoner)
                }
                agent::Output::Play { speech, samples, last } => {
                    self.play(Some(talk_leg), (speech, samples, last), driver)
                }
                agent::Output::Announce { speech, samples, last } => {
                    self.play(talk_target, (speech, samples, last), driver)
                }
                agent::Output::StopPlayout => {
                    self.stop_playout(Some(talk_leg), driver);
                    None
                }
                agent::Output::Listen(grammar) => {
                    driver.ear(call, EarCommand::Grammar(grammar));
                    None
                }
                agent::Output::BeginUtterance { utterance, position } => {
                    driver.ear(call, EarCommand::Begin { utterance, position });
                    None
                }
                agent::Output::EndUtterance => {
                    driver.ear(call, EarCommand::End);
                    None
                }
                agent::Output::CancelUtterance => {
                    driver.ear(call, EarCommand::Cancel);
                    None
                }
                agent::Output::Turn(turn) => {
                    if talk.keeps_transcript {
                        driver.turn(call, turn);
                    }
                    None
                }
                agent::Output::Transfer { to, is_announced } => {
                    let input = call::Input::Transfer { call, to, is_announced };
                    self.calls.handle_input(now, wall, input);
                    None
                }
                agent::Output::TransferAnswer(is_accepted) => {
                    self.set_target(call, None);
                    self.stop_playout(talk_target, driver);
                    let input = call::Input::TransferAnswer { call, is_accepted };
                    self.calls.handle_input(now, wall, input);
                    None
                }
                agent::Output::HangUp(reason) => {
                    self.calls.handle_input(now, wall, call::Input::HangUp { call, reason });
                    None
                }
                agent::Output::Event(event) => {
                    driver.event(event);
                    None
                }
            };
            if let (Some(role), Some(talk)) = (refused, self.talks.get_mut(&call)) {
                talk.dialogue.handle_input(now, agent::Input::Refused(role));
            }
        }
    }
}

/// What of a media event of a transfer's new party concerns the voice agent.
const fn of_target(event: &MediaEvent) -> Option<agent::Input> {
    match *event {
        MediaEvent::Digit { digit, .. } => Some(agent::Input::TargetDigit(digit)),
        MediaEvent::PlayoutFinished { speech, .. } => {
            Some(agent::Input::Announced { speech: SpeechId(speech) })
        }
        _ => None,
    }
}

/// What of a media event concerns the voice agent.
fn to_agent(now: Instant, event: &MediaEvent) -> Option<agent::Input> {
    Some(match *event {
        MediaEvent::Digit { digit, duration } => {
            agent::Input::Digit { digit, from: now - duration, until: now }
        }
        MediaEvent::SpeechStarted { position } => agent::Input::SpeechStarted { position },
        MediaEvent::SpeechEnded { position } => agent::Input::SpeechEnded { position },
        MediaEvent::PlayoutStarted { speech, position } => {
            agent::Input::PlayoutStarted { speech: SpeechId(speech), position }
        }
        MediaEvent::PlayoutFinished { speech, position } => {
            agent::Input::PlayoutFinished { speech: SpeechId(speech), position }
        }
        MediaEvent::PlayoutStopped { speech, played, position, cause } => {
            agent::Input::PlayoutStopped {
                speech: SpeechId(speech),
                played,
                position,
                barge_in: cause == StopCause::BargeIn,
            }
        }
        MediaEvent::Report { ref quality, .. } => agent::Input::PathDelay(quality.round_trip? / 2),
        MediaEvent::Reserved(_)
        | MediaEvent::ReserveFailed { .. }
        | MediaEvent::Latched { .. }
        | MediaEvent::Secured { .. }
        | MediaEvent::Unsecured { .. }
        | MediaEvent::PathLost
        | MediaEvent::Inactive => return None,
    })
}
