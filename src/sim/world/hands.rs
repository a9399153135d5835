//! The edge's hands in the simulated world: production sessions of the relay stepped in virtual
//! time, a scripted speaker, reasoner and ear, and a sink for everything that is stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::Turn;
use agent::provider::{ProviderError, ProviderEvent, SpeechId, ThoughtId, UtteranceId};
use base::{CallId, Event, Instant, Personal, SessionId, WallTime, limit};
use bytes::Bytes;
use call::{Crossing, Keep, Peer, Record};
use edge::ear::EarCommand;
use edge::shard::{Driver, Input, Shard, Wish};
use media::{Channel, MediaEvent, Reserved, TapFrame};
use relay::Command;
use relay::listen::Listener;
use relay::path::counters::Tally;
use relay::path::{Parcel, Passing, Port, Session};
use rtrb::Consumer;
use sip::FlowId;

use super::SHARDS;

/// Where the edge receives media.
pub(super) const MEDIA_IP: [u8; 4] = [10, 0, 0, 1];
/// Where it receives signalling.
pub(super) const SIP_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5061);

/// A session of the relay and its ports.
struct Running {
    session: Session,
    ports: Reserved,
}

/// What listens along.
struct Ear {
    frames: Consumer<TapFrame>,
    keeps: bool,
    utterance: Option<UtteranceId>,
}

/// A recording: both voices, and where the next frame of each has to be.
#[derive(Clone, Default)]
pub(super) struct Recording {
    pub(super) caller: Vec<i16>,
    pub(super) agent: Vec<i16>,
    next: [Option<u64>; 2],
}

/// How a provider misbehaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Speaker {
    /// It does not.
    #[default]
    Well,
    /// It says that it failed.
    Fails,
    /// It takes the request and never answers.
    Silent,
    /// It takes no request.
    Refuses,
}

/// A datagram on its way: from, to, bytes.
pub(super) type Datagram = (SocketAddr, SocketAddr, Vec<u8>);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Hands {
    pub(super) now: Instant,
    pub(super) wall: WallTime,
    pub(super) sip: Vec<(FlowId, Bytes)>,
    pub(super) media: Vec<Datagram>,
    /// The shard whose step this is.
    pub(super) shard: usize,
    /// What the shards are told, by their numbers.
    pub(super) inputs: VecDeque<(usize, Input)>,
    /// What comes back to a shard after a while.
    pub(super) later: Vec<(Duration, usize, Input)>,
    /// Utterances whose words are wanted, and the shard that wants them.
    pub(super) asked: Vec<(usize, CallId, UtteranceId)>,
    pub(super) touched: Vec<SessionId>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) records: Vec<Record>,
    pub(super) turns: Vec<(CallId, Turn)>,
    pub(super) media_events: Vec<(Instant, SessionId, MediaEvent)>,
    pub(super) callers: BTreeMap<CallId, SocketAddr>,
    pub(super) recordings: BTreeMap<CallId, Recording>,
    /// Connections that the edge opened: the flow and where to.
    pub(super) opened: Vec<(FlowId, SocketAddr)>,
    /// The same, for good.
    pub(super) dialled: BTreeSet<FlowId>,
    pub(super) speaker: Speaker,
    /// Whether the relay answers reservations at all, and how long that takes.
    pub(super) relay_is_deaf: bool,
    pub(super) reserve_delay: Duration,
    sessions: BTreeMap<SessionId, Running>,
    ears: BTreeMap<CallId, Ear>,
    ear_of: BTreeMap<SessionId, CallId>,
    /// Recordings of bridged legs.
    tapes: BTreeMap<CallId, [Listener; 2]>,
    flows: u64,
    ports: u16,
    tally: Tally,
    /// What a session left for another.
    parcels: Vec<Parcel>,
}

impl Hands {
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn ears(&self) -> usize {
        self.ears.len()
    }

    /// A flow that was never used.
    pub(super) fn new_flow(&mut self) -> FlowId {
        self.flows += 1;
        FlowId(self.flows)
    }

    pub(super) fn due(&self, session: SessionId) -> Option<Instant> {
        self.sessions.get(&session).and_then(|running| running.session.poll_timeout())
    }

    /// Runs one session's clock.
    pub(super) fn tick(&mut self, session: SessionId) {
        let now = self.now;
        self.step(session, |session, driver| session.tick(now, driver));
    }

    /// A datagram arrives at one of our ports.
    pub(super) fn receive(&mut self, from: SocketAddr, to: SocketAddr, datagram: &mut [u8]) {
        let now = self.now;
        let found = self.sessions.iter().find_map(|(id, running)| match &running.ports {
            Reserved { rtp, .. } if *rtp == to => Some((*id, Port::Rtp)),
            Reserved { rtcp, .. } if *rtcp == Some(to) => Some((*id, Port::Rtcp)),
            _ => None,
        });
        // Late packets of a call that is over find nobody.
        if let Some((id, port)) = found {
            self.step(id, |session, driver| {
                session.on_datagram(now, port, from, datagram, driver);
            });
        }
    }

    /// Runs one step of a session, and then those of sessions that it left something for.
    fn step(&mut self, id: SessionId, step: impl FnOnce(&mut Session, &mut Acting<'_>)) {
        self.step_alone(id, step);
        let now = self.now;
        for mut parcel in std::mem::take(&mut self.parcels) {
            self.step_alone(parcel.passing.to, |session, driver| {
                session.pass(now, id, &mut parcel, driver);
            });
        }
    }

    fn step_alone(&mut self, id: SessionId, step: impl FnOnce(&mut Session, &mut Acting<'_>)) {
        let Some(running) = self.sessions.get_mut(&id) else { return };
        let mut acting = Acting {
            id,
            ports: running.ports.clone(),
            media: &mut self.media,
            inputs: &mut self.inputs,
            tally: &mut self.tally,
            parcels: &mut self.parcels,
            log: &mut self.media_events,
            now: self.now,
        };
        step(&mut running.session, &mut acting);
        self.touched.push(id);
        self.hear(id);
    }

    /// Takes what was tapped; positions never go back, and a frame is never told twice.
    fn hear(&mut self, session: SessionId) {
        let Some(call) = self.ear_of.get(&session) else { return };
        let Some(ear) = self.ears.get_mut(call) else { return };
        while let Ok(frame) = ear.frames.pop() {
            if !ear.keeps {
                continue;
            }
            let recording = self.recordings.entry(*call).or_default();
            let (sound, index) = match frame.channel {
                Channel::Caller => (&mut recording.caller, 0),
                Channel::Agent => (&mut recording.agent, 1),
            };
            let next = recording.next[index].replace(frame.position + 320);
            assert!(next.is_none_or(|next| next <= frame.position), "a tap went back");
            sound.extend_from_slice(&frame.samples);
        }
    }

    fn reserve(&mut self, id: SessionId, need: media::Need) {
        if self.relay_is_deaf {
            return;
        }
        self.ports = if self.ports >= 30_000 { 0 } else { self.ports + 2 };
        let ip = std::net::IpAddr::from(MEDIA_IP);
        let rtp = SocketAddr::new(ip, 10_000 + self.ports);
        let rtcp = need.separate_rtcp.then(|| SocketAddr::new(ip, 10_001 + self.ports));
        let session = Session::new(self.now, self.wall, id.number(), need.separate_rtcp);
        let ports = Reserved { rtp, rtcp, beside: None, ice_tcp: Vec::new(), fingerprint: None };
        let event = MediaEvent::Reserved(ports.clone());
        self.sessions.insert(id, Running { session, ports });
        let input = Input::Media { session: id, event };
        self.later.push((self.reserve_delay, owner(id), input));
    }

    fn answer(&mut self, millis: u64, call: CallId, event: ProviderEvent) {
        let input = Input::Provider { call, event };
        self.later.push((Duration::from_millis(millis), self.shard, input));
    }
}

impl Driver for Hands {
    fn send(&mut self, flow: FlowId, bytes: Bytes) {
        self.sip.push((flow, bytes));
    }

    fn connect(&mut self, wish: Wish) {
        let (leg, transport) = (wish.leg, wish.transport);
        let uri = sip::Uri::parse(wish.uri.expose()).expect("a URI");
        // Names lead nowhere here.
        let target = uri.host().and_then(sip::Host::ip).filter(|_| wish.after.is_none());
        let input = match target {
            Some(ip) => {
                let flow = self.new_flow();
                let source = SocketAddr::new(ip, uri.port().unwrap_or(5061));
                self.opened.push((flow, source));
                let (local, certificates) = (SIP_ADDRESS, [].into());
                let alias = false;
                let peer = Peer { flow, transport, source, local, certificates, alias };
                let peer = Arc::new(peer);
                call::Input::Connected { leg, peer, contact: None }
            }
            None => call::Input::Unreachable { leg, reason: base::Reason::TrunkUnreachable },
        };
        self.inputs.push_back((self.shard, Input::Call(input)));
    }

    fn served(&mut self, _: base::LegId) {}

    fn relay(&mut self, id: SessionId, command: Command) -> bool {
        let now = self.now;
        match command {
            Command::Reserve(need) => self.reserve(id, need),
            Command::Apply { plan, with } => self.step(id, |session, driver| {
                let applied = session.apply(now, *plan, with, driver);
                applied.expect("a plan of ours can be followed");
            }),
            Command::Play { speech, samples, last } => self.step(id, |session, driver| {
                session.play(speech, samples, last, driver);
            }),
            Command::StopPlayout => self.step(id, |session, driver| session.stop_playout(driver)),
            Command::Tap(ring) => self.step(id, |session, _| assert!(session.tap(ring))),
            Command::Ring(on) => self.step(id, |session, _| session.ring(now, on)),
            Command::TapPackets(ring) => self.step(id, |session, _| session.tap_packets(ring)),
            Command::Mask(masked) => self.step(id, |session, _| session.mask(masked)),
            Command::SendDigits(digits) => self.step(id, |session, _| {
                session.send_digits(now, &digits);
            }),
            Command::Release => {
                self.step(id, |session, driver| session.release(now, driver));
                self.sessions.remove(&id);
            }
        }
        true
    }

    fn listen(&mut self, call: CallId, session: SessionId, keep: Keep) {
        let (producer, frames) = rtrb::RingBuffer::new(limit::RELAY_TAP_FRAMES.get());
        self.ears.insert(call, Ear { frames, keeps: keep.recording, utterance: None });
        self.ear_of.insert(session, call);
        self.relay(session, Command::Tap(producer));
    }

    fn tape(&mut self, call: CallId, sessions: [SessionId; 2]) {
        let began = self.now;
        let voices = sessions.map(|session| {
            let (ring, packets) = rtrb::RingBuffer::new(limit::RELAY_TAP_PACKETS.get());
            self.relay(session, Command::TapPackets(ring));
            Listener::new(packets, began)
        });
        self.tapes.insert(call, voices);
    }

    fn ear(&mut self, call: CallId, command: EarCommand) {
        if let EarCommand::CloseTape = command {
            self.tapes.remove(&call).expect("a tape that is closed was begun");
            return;
        }
        let Some(ear) = self.ears.get_mut(&call) else { return };
        match command {
            EarCommand::Grammar(grammar) => assert!(!grammar.phrases.is_empty()),
            EarCommand::Begin { utterance, .. } => {
                assert!(ear.utterance.is_none(), "two utterances at one time");
                ear.utterance = Some(utterance);
            }
            EarCommand::End => {
                let utterance = ear.utterance.take();
                self.asked.extend(utterance.map(|utterance| (self.shard, call, utterance)));
            }
            EarCommand::Cancel => ear.utterance = None,
            EarCommand::Close => {
                self.ears.remove(&call);
                self.ear_of.retain(|_, of| *of != call);
            }
            EarCommand::CloseTape => {} // seen above
        }
    }

    fn speak(
        &mut self,
        call: CallId,
        speech: SpeechId,
        text: &str,
        _: &str,
    ) -> Result<(), ProviderError> {
        match self.speaker {
            Speaker::Well => {
                let samples = spoken(text);
                let (first, rest) = samples.split_at(samples.len() / 2);
                let piece = |samples: &[i16], last| ProviderEvent::Speech {
                    speech,
                    samples: samples.into(),
                    last,
                };
                self.answer(70, call, piece(first, false));
                self.answer(90, call, piece(rest, true));
            }
            Speaker::Fails => {
                let role = agent::provider::Role::Speaker;
                self.answer(50, call, ProviderEvent::Failed { role });
            }
            Speaker::Silent => {}
            Speaker::Refuses => return Err(ProviderError::Busy),
        }
        Ok(())
    }

    fn think(
        &mut self,
        call: CallId,
        thought: ThoughtId,
        _: &Personal<String>,
        knowledge: &str,
    ) -> Result<(), ProviderError> {
        let answer = Some(knowledge.trim().to_owned());
        self.answer(30, call, ProviderEvent::Thought { thought, answer });
        Ok(())
    }

    fn store(&mut self, record: Record) {
        if let Record::Arrived { call, attempt, .. } = &record {
            self.callers.insert(*call, attempt.source);
        }
        self.records.push(record);
    }

    fn turn(&mut self, call: CallId, turn: Turn) {
        self.turns.push((call, turn));
    }

    fn cross(&mut self, shard: usize, crossing: Box<Crossing>) -> Result<(), Box<Crossing>> {
        if shard >= usize::from(SHARDS) {
            return Err(crossing);
        }
        self.inputs.push_back((shard, Input::Call(call::Input::Crossed(crossing))));
        Ok(())
    }

    fn event(&mut self, event: Event) {
        self.events.push((self.now, event));
    }
}

/// One session's hands.
struct Acting<'a> {
    id: SessionId,
    ports: Reserved,
    media: &'a mut Vec<Datagram>,
    inputs: &'a mut VecDeque<(usize, Input)>,
    tally: &'a mut Tally,
    parcels: &'a mut Vec<Parcel>,
    log: &'a mut Vec<(Instant, SessionId, MediaEvent)>,
    now: Instant,
}

impl relay::path::Driver for Acting<'_> {
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool {
        let from = match port {
            Port::Rtp => self.ports.rtp,
            Port::Rtcp => self.ports.rtcp.unwrap_or(self.ports.rtp),
            Port::Beside | Port::Stream(_) => return false, // nobody here speaks ICE
        };
        self.media.push((from, to, datagram.to_vec()));
        true
    }

    fn event(&mut self, event: MediaEvent) {
        self.log.push((self.now, self.id, event.clone()));
        self.inputs.push_back((owner(self.id), Input::Media { session: self.id, event }));
    }

    fn tally(&mut self) -> &mut Tally {
        self.tally
    }

    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        self.parcels.extend(Parcel::new(passing, payload));
    }
}

/// The shard that a session belongs to, as its id says.
fn owner(session: SessionId) -> usize {
    usize::try_from(Shard::of_session(session, u64::from(SHARDS))).expect("a small number")
}

/// Samples of a speech before its tone changes: the mark of its beginning.
pub(super) const MARK: usize = 640;

/// How a text sounds: 40 ms of 1,000 Hz, then 440 Hz, 50 ms for each letter.
pub(super) fn spoken(text: &str) -> Vec<i16> {
    let letters = text.chars().filter(|letter| letter.is_alphanumeric()).count();
    let tone = |hertz: f32, samples: usize| -> Vec<i16> {
        let angle = |at: usize| at as f32 / 16_000.0 * hertz * std::f32::consts::TAU;
        (0..samples).map(|at| (angle(at).sin() * 9_000.0) as i16).collect()
    };
    // Whole periods of each tone.
    let (mark, voice) = (tone(1_000.0, 16), tone(440.0, 400));
    (0..letters * 800)
        .map(|at| if at < MARK { mark[at % mark.len()] } else { voice[at % voice.len()] })
        .collect()
}
