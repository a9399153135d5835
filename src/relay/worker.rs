//! A relay worker: one thread that owns its sessions, sockets, ports and timers, with no lock and
//! no other thread's word in its loop but commands.
//!
//! Each round takes commands, runs frames that are due (at most for a budget, the rest in the next
//! round, the oldest first) and drains the sockets that have datagrams, at most `relay.batch` each.
//! A fault in one session ends that session only.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use base::{Instant, Random, SeededRandom, SessionId, limit};
use media::{LegPlan, MediaEvent, Need, Reserved, TapFrame, TapPacket};
use rtrb::Producer;

use crate::driver::ahead::{Depth, prefetch};
use crate::driver::{Network, Token};
use crate::dtls::{DtlsHandle, HandshakeId, Identity, News};
use crate::ice_tcp::{Outgoing, Word};
use crate::path::counters::{DropReason, Meter, Published, Tally};
use crate::path::receive::BUFFER_BYTES;
use crate::path::{Ask, Driver, Outbox, PHASES, Passing, Port, Session};
use crate::ports::Ports;
use crate::shared::{self, SharedPortHandle, demux};

#[path = "ties.rs"]
mod ties;

use ties::{Berths, Place, Ties, tokens};

/// What a session is told.
pub enum Command {
    /// Find ports; begins the session. Answered by `Reserved` or `ReserveFailed`.
    Reserve(Need),
    /// Follow this plan from now on.
    Apply {
        /// The plan.
        plan: Box<LegPlan>,
        /// The session of the leg that the plan's bridge names, on the same worker.
        with: Option<SessionId>,
    },
    /// Queue a piece of the agent's speech, at 16 kHz.
    Play {
        /// Which speech; its pieces follow each other.
        speech: u32,
        /// The piece.
        samples: Arc<[i16]>,
        /// Whether it is the last one.
        last: bool,
    },
    /// Cut the speech under way and those that wait.
    StopPlayout,
    /// Press keys: `0`-`9`, `*`, `#`, `A`-`D`, as telephone events.
    SendDigits(String),
    /// Let the peer hear the ring-back tone, or no longer.
    Ring(bool),
    /// Let somebody listen along, up to limit `relay.taps`.
    Tap(Producer<TapFrame>),
    /// Copy the packets that come from the leg's peer, where another leg hears it.
    TapPackets(Producer<TapPacket>),
    /// While `true`, listeners hear silence.
    Mask(bool),
    /// Say goodbye and give the ports back.
    Release,
}

impl std::fmt::Debug for Command {
    /// The command's name only: what is in it was said by a person, or is a key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reserve(_) => "Reserve",
            Self::Apply { .. } => "Apply",
            Self::Play { .. } => "Play",
            Self::StopPlayout => "StopPlayout",
            Self::SendDigits(_) => "SendDigits",
            Self::Tap(_) => "Tap",
            Self::Ring(_) => "Ring",
            Self::TapPackets(_) => "TapPackets",
            Self::Mask(_) => "Mask",
            Self::Release => "Release",
        })
    }
}

/// Where a worker's events go. It is called on the worker's thread and must not wait.
pub trait EventSink: Send {
    /// Something happened at a session.
    fn deliver(&mut self, session: SessionId, event: MediaEvent);
    /// The session is gone by a fault of ours or a plan that cannot be followed; its call must
    /// end. It needs no release.
    fn failed(&mut self, session: SessionId);
}

/// A message to a worker.
pub(crate) enum Message {
    /// To one session.
    Session(SessionId, Command),
    /// The thread of handshakes has news for a session.
    Handshake(HandshakeId, News),
    /// The certificate of new sessions.
    Identity(Identity),
    /// Of a connection of ICE-TCP.
    Stream(Word),
    /// Of the browsers' shared port.
    Shared(shared::Word),
    /// Take no more sessions, and end when the last one has gone or this much time has passed.
    Drain(Duration),
}

/// Time for frames in one round (DESIGN section 3).
const BUDGET: Duration = Duration::from_millis(1);
/// Sockets whose sessions are asked for together; measured: 16 are no quicker.
const AHEAD: usize = 8;
/// Commands taken in one round.
const COMMANDS: usize = 256;
/// The longest wait; then it is seen that nobody can send commands any more.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Spreads the stems of calls, whatever steps they have: the golden ratio of 2^64.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// How often counts are published.
const PUBLISH_EVERY: Duration = Duration::from_millis(100);

/// A session and what the worker keeps for it.
struct Entry {
    id: SessionId,
    session: Session,
    /// Of its pair of ports, where it has one.
    port: Option<u16>,
    /// When it is in the timer table for; older places there are void.
    due: Option<Instant>,
    /// The session that it handed something to last, and its place.
    partner: Option<(SessionId, usize)>,
    /// Of a browser's leg.
    ties: Option<Box<Ties>>,
}

/// See the module.
pub(crate) struct Worker<N> {
    network: N,
    sink: Box<dyn EventSink>,
    commands: Receiver<Message>,
    published: Arc<Published>,
    tally: Tally,
    ports: Ports,
    random: SeededRandom,
    sessions: Vec<Option<Entry>>,
    places: HashMap<SessionId, usize>,
    /// Sessions that begin when the certificate is there that they alone show.
    identified: HashMap<SessionId, Need>,
    /// Where ICE-TCP is listened for, and the sessions by user name fragment.
    ice_tcp: Vec<SocketAddr>,
    ufrags: HashMap<String, SessionId>,
    /// Where browsers share a port.
    berths: Option<Berths>,
    vacant: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    ready: Vec<Token>,
    /// Taken out while in use.
    buffer: Vec<u8>,
    /// Taken out while in use.
    outbox: Outbox,
    /// The thread of handshakes, and the certificate of new sessions.
    dtls: Option<(DtlsHandle, Identity)>,
    /// Handshakes that are over, of which the thread had no room to hear.
    over: VecDeque<HandshakeId>,
    publish_at: Instant,
    /// Set while draining: when to give up waiting.
    drain_until: Option<Instant>,
}

/// What a worker is made of.
pub(crate) struct Setup {
    pub(crate) sink: Box<dyn EventSink>,
    pub(crate) commands: Receiver<Message>,
    pub(crate) published: Arc<Published>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) worker: usize,
    pub(crate) workers: usize,
    pub(crate) seed: u64,
    pub(crate) dtls: Option<(DtlsHandle, Identity)>,
    pub(crate) ice_tcp: Vec<SocketAddr>,
    pub(crate) shared: Option<SharedPortHandle>,
}

impl<N: Network> Worker<N> {
    pub(crate) fn new(network: N, setup: Setup) -> Self {
        Self {
            publish_at: network.now(),
            network,
            sink: setup.sink,
            commands: setup.commands,
            published: setup.published,
            tally: Tally::default(),
            ports: Ports::share(&setup.ports, setup.worker, setup.workers),
            random: SeededRandom::new(setup.seed),
            sessions: Vec::new(),
            places: HashMap::new(),
            identified: HashMap::new(),
            ice_tcp: setup.ice_tcp,
            ufrags: HashMap::new(),
            berths: setup.shared.map(|handle| Berths::new(handle, setup.worker)),
            vacant: Vec::new(),
            timers: BinaryHeap::new(),
            ready: Vec::new(),
            buffer: vec![0; BUFFER_BYTES],
            outbox: Outbox::new(),
            dtls: setup.dtls,
            over: VecDeque::new(),
            drain_until: None,
        }
    }

    /// Works until drained, or until nobody can send commands any more.
    pub(crate) fn run(mut self) {
        while self.round() {}
        for place in 0..self.sessions.len() {
            self.release(place);
        }
        self.published.store(&self.tally);
    }

    /// One round; `false` when the work is done.
    fn round(&mut self) -> bool {
        let Some(has_more) = self.take_commands() else {
            return false;
        };
        self.run_frames();
        let now = self.network.now();
        if now >= self.publish_at {
            self.publish_at = now + PUBLISH_EVERY;
            self.tally.sessions = self.places.len() as u64;
            self.published.store(&self.tally);
            (0..self.over.len()).for_each(|_| self.end_again());
            self.berths.iter_mut().for_each(Berths::tell_again);
        }
        let due = self.timers.peek().map_or(WAIT_MAX, |Reverse((due, _))| due.since(now));
        let mut ready = std::mem::take(&mut self.ready);
        let most = if has_more { Duration::ZERO } else { due.min(WAIT_MAX) };
        self.network.wait(most, &mut ready);
        for tokens in ready.chunks(AHEAD) {
            self.look_ahead(tokens);
            tokens.iter().for_each(|token| self.receive(*token));
        }
        self.ready = ready;
        for _ in 0..self.network.refused() {
            self.tally.drop(DropReason::Refused);
        }
        for _ in 0..self.network.stale() {
            self.tally.drop(DropReason::Stale);
        }
        match self.drain_until {
            Some(until) => !self.places.is_empty() && self.network.now() < until,
            None => true,
        }
    }

    /// Takes a round's commands; whether there may be more, or `None` when none will come.
    fn take_commands(&mut self) -> Option<bool> {
        for _ in 0..COMMANDS {
            match self.commands.try_recv() {
                Ok(Message::Session(id, command)) => self.command(id, command),
                Ok(Message::Stream(word)) => self.on_stream(word),
                Ok(Message::Shared(word)) => self.on_shared(word),
                Ok(Message::Handshake(of, news)) => self.on_handshake(of, news),
                Ok(Message::Identity(identity)) => {
                    self.dtls.iter_mut().for_each(|(_, present)| *present = identity.clone());
                }
                Ok(Message::Drain(within)) => {
                    self.drain_until = Some(self.network.now() + within);
                }
                Err(TryRecvError::Empty) => return Some(false),
                Err(TryRecvError::Disconnected) => return None,
            }
        }
        Some(true)
    }

    fn command(&mut self, id: SessionId, command: Command) {
        let place = self.places.get(&id).copied();
        if let (Command::Apply { plan, .. }, Some(place)) = (&command, place) {
            self.name(place, plan);
        }
        match (command, place) {
            // Nothing but ICE finds a session there: its media would be dead.
            (Command::Apply { plan, .. }, Some(place)) if self.is_lost_at_berth(place, &plan) => {
                self.release(place);
                self.sink.failed(id);
            }
            (Command::Reserve(need), None) if !self.is_waiting(id) => self.reserve(id, need),
            (Command::Release, Some(place)) => self.release(place),
            (Command::Release, None) if self.give_up(id) => {}
            (Command::Reserve(_), Some(_)) | (_, None) => self.tally.count(Meter::Orphans, 1),
            (command, Some(place)) => self.step(place, |session, now, driver| match command {
                Command::Apply { plan, with } => session.apply(now, *plan, with, driver).is_ok(),
                Command::Play { speech, samples, last } => {
                    session.play(speech, samples, last, driver);
                    true
                }
                Command::StopPlayout => {
                    session.stop_playout(driver);
                    true
                }
                Command::SendDigits(digits) => {
                    if !session.send_digits(now, &digits) {
                        driver.tally().count(Meter::Unpressed, 1);
                    }
                    true
                }
                Command::Tap(ring) => {
                    if !session.tap(ring) {
                        driver.tally().count(Meter::Untapped, 1);
                    }
                    true
                }
                Command::Ring(on) => {
                    session.ring(now, on);
                    true
                }
                Command::TapPackets(ring) => {
                    session.tap_packets(ring);
                    true
                }
                Command::Mask(masked) => {
                    session.mask(masked);
                    true
                }
                Command::Reserve(_) | Command::Release => true, // taken above
            }),
        }
    }

    /// News of a session that has gone are nobody's.
    fn on_handshake(&mut self, of: HandshakeId, news: News) {
        match (news, self.places.get(&of.session).copied()) {
            (News::Identity(identity), _) => {
                if let Some(need) = self.identified.remove(&of.session) {
                    self.begin(of.session, need, identity);
                }
            }
            (news, Some(place)) => self.step(place, |session, now, driver| {
                session.on_handshake(now, of.number, news, driver).is_ok()
            }),
            (_, None) => {}
        }
    }

    /// Begins a session with the certificate of new ones, or asks for one of its own.
    fn reserve(&mut self, id: SessionId, need: Need) {
        let dtls = self.dtls.as_ref().filter(|_| need.dtls);
        let Some((dtls, _)) = dtls.filter(|_| need.fresh_identity) else {
            let present = dtls.map(|(_, present)| present.clone());
            return self.begin(id, need, present);
        };
        if self.has_room() && dtls.identify(id).is_ok() {
            self.identified.insert(id, need);
        } else {
            self.sink.deliver(id, MediaEvent::ReserveFailed { ports: false });
        }
    }

    fn has_room(&self) -> bool {
        let waiting = self.berths.as_ref().map_or(0, Berths::waiting);
        let sessions = self.places.len() + self.identified.len() + waiting;
        sessions < limit::RELAY_SESSIONS.get() && self.drain_until.is_none()
    }

    fn begin(&mut self, id: SessionId, need: Need, identity: Option<Identity>) {
        if !self.has_room() || identity.is_some() != need.dtls {
            return self.sink.deliver(id, MediaEvent::ReserveFailed { ports: false });
        }
        let Some(berth) = self.berth(id, need, identity.as_ref()) else { return };
        let place = self.vacant.pop().unwrap_or(self.sessions.len());
        let now = self.network.now();
        let found = self.find_port(place, need, berth.as_ref());
        if place == self.sessions.len() {
            self.sessions.push(None);
        }
        let Some((port, beside)) = found else {
            self.vacant.push(place);
            return self.sink.deliver(id, MediaEvent::ReserveFailed { ports: true });
        };
        let own_port = berth.is_none().then_some(port);
        // Both legs of a call have their frames at one time: what the one makes finds the other in
        // the caches, and so does the other's own frame after it.
        let phase = (id.stem().wrapping_mul(SPREAD) >> 32) % PHASES;
        let seed = self.random.u64() / PHASES * PHASES + phase;
        let fingerprint = identity.as_ref().map(|identity| identity.fingerprint().clone());
        let session = Session::new(now, self.network.wall(), seed, need.separate_rtcp);
        let session = session.with_identity(identity);
        let ties = berth.map(|(_, berth)| Box::new(Ties::moored(berth)));
        self.sessions[place] =
            Some(Entry { id, session, port: own_port, due: None, partner: None, ties });
        self.places.insert(id, place);
        let rtcp = need.separate_rtcp.then(|| SocketAddr::new(need.bind, port + 1));
        let reserved = Reserved {
            rtp: SocketAddr::new(need.bind, port),
            rtcp,
            beside: beside.map(|address| SocketAddr::new(address, port)),
            ice_tcp: if need.dtls { self.ice_tcp.clone() } else { Vec::new() },
            fingerprint,
        };
        self.sink.deliver(id, MediaEvent::Reserved(reserved));
    }

    /// The session's port, and its address of the other family: the shared one, or that of a pair
    /// whose sockets are open then.
    fn find_port(
        &mut self,
        place: usize,
        need: Need,
        berth: Option<&Place>,
    ) -> Option<(u16, Option<IpAddr>)> {
        let (now, network) = (self.network.now(), &mut self.network);
        if let (Some((sockets, berth)), Some(berths)) = (berth, &self.berths) {
            for (token, socket) in (place * 2..).zip(sockets.iter().flatten()) {
                network.lend(token, *socket);
            }
            return Some((berths.port(), berth.beside()));
        }
        let port =
            self.ports.take(now, &mut self.random, |port| open(network, place, need, port))?;
        let beside = need.beside.filter(|_| need.dtls && !need.separate_rtcp);
        let open =
            |address: &IpAddr| network.open_spare(place * 2 + 1, SocketAddr::new(*address, port));
        Some((port, beside.filter(open)))
    }

    fn release(&mut self, place: usize) {
        self.step(place, |session, now, driver| {
            session.release(now, driver);
            true
        });
        self.forget(place);
    }

    /// Closes a session's sockets and lets its ports rest.
    fn forget(&mut self, place: usize) {
        let Some(entry) = self.sessions.get_mut(place).and_then(Option::take) else {
            return;
        };
        self.places.remove(&entry.id);
        self.vacant.push(place);
        self.network.close(place * 2);
        self.network.close(place * 2 + 1);
        if let Some(port) = entry.port {
            self.ports.give_back(self.network.now(), port);
        }
        if let Some(ties) = entry.ties {
            self.untie(entry.id, *ties);
        }
    }

    /// Tells the thread of handshakes that one is over; where it has no room, again later.
    fn end_handshake(&mut self, id: HandshakeId) {
        let Some((dtls, _)) = &self.dtls else { return };
        if dtls.end(id).is_err() {
            if self.over.len() >= limit::RELAY_SESSIONS.get() {
                self.over.pop_front();
            }
            self.over.push_back(id);
        }
    }

    fn end_again(&mut self) {
        if let Some(id) = self.over.pop_front() {
            self.end_handshake(id);
        }
    }

    /// Runs sessions that are due, the oldest first, until the budget is spent.
    fn run_frames(&mut self) {
        let began = self.network.now();
        let mut now = began;
        while let Some(Reverse((due, place))) = self.timers.peek().copied() {
            if due > now {
                return;
            }
            if now.since(began) >= BUDGET {
                return self.tally.count(Meter::OverBudget, 1);
            }
            self.timers.pop();
            let entry = self.sessions.get_mut(place).and_then(Option::as_mut);
            // A place in the table may be void: the session has gone, or was given another.
            if let Some(entry) = entry.filter(|entry| entry.due == Some(due)) {
                entry.due = None;
                self.step(place, |session, now, driver| {
                    session.tick(now, driver);
                    true
                });
            }
            now = self.network.now();
        }
    }

    /// Asks for the sessions of these sockets, and of those that they talk with, step by step: what
    /// one step asks for is on its way while it asks for the others'.
    fn look_ahead(&self, tokens: &[Token]) {
        let at = |place: usize| self.sessions.get(place).and_then(Option::as_ref);
        let hearing = || tokens.iter().filter_map(|token| at(token / 2));
        let places = || hearing().filter_map(|entry| Some(entry.partner?.1));
        let sending = || places().filter_map(at);
        tokens.iter().filter_map(|token| self.sessions.get(token / 2)).for_each(prefetch);
        hearing().for_each(|entry| entry.session.prefetch(true, Depth::State));
        places().filter_map(|place| self.sessions.get(place)).for_each(prefetch);
        hearing().for_each(|entry| entry.session.prefetch(true, Depth::Keys));
        sending().for_each(|entry| entry.session.prefetch(false, Depth::State));
        hearing().for_each(|entry| entry.session.prefetch(true, Depth::Schedule));
        sending().for_each(|entry| entry.session.prefetch(false, Depth::Keys));
        sending().for_each(|entry| entry.session.prefetch(false, Depth::Schedule));
    }

    /// Takes what waits at a socket, at most `relay.batch`, so that a flood at one port leaves the
    /// others their turn.
    fn receive(&mut self, token: Token) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..limit::RELAY_BATCH.get() {
            let Some((length, source)) = self.network.receive(token, &mut buffer) else {
                break;
            };
            self.datagram(token, source, &mut buffer[..length.min(BUFFER_BYTES)]);
        }
        self.buffer = buffer;
    }

    fn datagram(&mut self, token: Token, source: SocketAddr, datagram: &mut [u8]) {
        if demux::is_stun(datagram) && self.is_astray(token / 2, source, datagram) {
            return;
        }
        let port = if token.is_multiple_of(2) { Port::Rtp } else { self.second_port(token / 2) };
        self.step(token / 2, |session, now, driver| {
            session.on_datagram(now, port, source, datagram, driver);
            true
        });
    }

    fn second_port(&self, place: usize) -> Port {
        let entry = self.sessions.get(place).and_then(Option::as_ref);
        entry.map_or(Port::Rtcp, |entry| entry.session.second_port())
    }

    /// Runs one step of a session, and then those of sessions that it left something for.
    fn step(
        &mut self,
        place: usize,
        step: impl FnOnce(&mut Session, Instant, &mut dyn Driver) -> bool,
    ) {
        let now = self.network.now();
        let id = self.sessions.get(place).and_then(Option::as_ref).map(|entry| entry.id);
        self.step_alone(now, place, step);
        let Some(from) = id.filter(|_| !self.outbox.is_empty()) else {
            return;
        };
        // Whoever gets something hands nothing on: an outbox that was taken out takes nothing.
        let mut outbox = std::mem::take(&mut self.outbox);
        for parcel in outbox.drain() {
            match self.partner(place, parcel.passing.to) {
                Some(partner) => self.step_alone(now, partner, |session, now, driver| {
                    session.pass(now, from, parcel, driver);
                    true
                }),
                None => self.tally.drop(DropReason::Unbridged),
            }
        }
        self.outbox = outbox;
    }

    /// Where a session is that this one talks with; remembered, since it is asked for per packet.
    fn partner(&mut self, place: usize, id: SessionId) -> Option<usize> {
        let at = |place: usize| self.sessions.get(place).and_then(Option::as_ref);
        let known = at(place).and_then(|entry| entry.partner).filter(|(known, _)| *known == id);
        let known = known.map(|(_, place)| place);
        if let Some(partner) = known.filter(|known| at(*known).is_some_and(|it| it.id == id)) {
            return Some(partner);
        }
        let found = self.places.get(&id).copied();
        if let Some(Some(entry)) = self.sessions.get_mut(place) {
            entry.partner = found.map(|partner| (id, partner));
        }
        found
    }

    /// Runs one step of a session. A panic, or `false` from the step, ends the session and only
    /// that.
    fn step_alone(
        &mut self,
        now: Instant,
        place: usize,
        step: impl FnOnce(&mut Session, Instant, &mut dyn Driver) -> bool,
    ) {
        let Some(entry) = self.sessions.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let mut driver = Acting {
            network: &mut self.network,
            sink: &mut *self.sink,
            tally: &mut self.tally,
            outbox: &mut self.outbox,
            dtls: self.dtls.as_ref().map(|(handle, _)| handle),
            ties: &mut entry.ties,
            place,
            id: entry.id,
        };
        // After a panic the session is dropped, so nobody sees it half-changed.
        let session = &mut entry.session;
        let done = catch_unwind(AssertUnwindSafe(|| step(session, now, &mut driver)));
        if let Ok(true) = done {
            let due = entry.session.poll_timeout();
            if due != entry.due {
                entry.due = due;
                self.timers.extend(due.map(|due| Reverse((due, place))));
            }
            return;
        }
        if done.is_err() {
            self.tally.count(Meter::Panics, 1);
        }
        let id = entry.id;
        self.forget(place);
        self.sink.failed(id);
    }
}

/// Opens a session's sockets on a pair of ports.
fn open(network: &mut impl Network, place: usize, need: Need, port: u16) -> bool {
    if !network.open(place * 2, SocketAddr::new(need.bind, port)) {
        return false;
    }
    let both =
        !need.separate_rtcp || network.open(place * 2 + 1, SocketAddr::new(need.bind, port + 1));
    if !both {
        network.close(place * 2);
    }
    both
}

/// One session's hands.
struct Acting<'a, N> {
    network: &'a mut N,
    sink: &'a mut dyn EventSink,
    tally: &'a mut Tally,
    outbox: &'a mut Outbox,
    dtls: Option<&'a DtlsHandle>,
    ties: &'a mut Option<Box<Ties>>,
    place: usize,
    id: SessionId,
}

impl<N: Network> Driver for Acting<'_, N> {
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool {
        let token = match port {
            Port::Rtp => self.place * 2,
            Port::Rtcp | Port::Beside => self.place * 2 + 1,
            Port::Stream(number) => {
                let streams = self.ties.iter().flat_map(|ties| &ties.streams);
                let stream = streams.into_iter().find(|(known, _)| *known == number);
                let outgoing = || Outgoing::Datagram(datagram.to_vec());
                return stream.is_some_and(|(_, out)| out.try_send(outgoing()).is_ok());
            }
        };
        self.network.send(token, to, datagram)
    }

    fn event(&mut self, event: MediaEvent) {
        self.sink.deliver(self.id, event);
    }

    fn connect(&mut self, port: Port, source: SocketAddr) {
        if let Some(berth) = self.ties.as_mut().and_then(|ties| ties.berth.as_mut()) {
            return berth.want(source);
        }
        let (token, other) = tokens(self.place, port);
        self.network.connect(token, source);
        // The peer is in one family at a time.
        self.network.part(other);
    }

    fn handshake(&mut self, number: u32, ask: Ask<'_>) -> bool {
        let Some(dtls) = self.dtls else { return false };
        let id = HandshakeId { session: self.id, number };
        match ask {
            Ask::Begin(setup) => {
                let has_begun = dtls.begin(id, *setup).is_ok();
                if has_begun {
                    self.ties.get_or_insert_default().handshake = Some(number);
                }
                has_begun
            }
            Ask::Datagram(bytes) => dtls.datagram(self.id, bytes).is_ok(),
            Ask::End => {
                // It is kept in mind where there is no room, and ended with the session.
                let is_ended = dtls.end(id).is_ok();
                if let Some(ties) = self.ties.as_mut().filter(|_| is_ended) {
                    ties.handshake = None;
                }
                is_ended
            }
        }
    }

    fn tally(&mut self) -> &mut Tally {
        self.tally
    }

    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        if !self.outbox.push(passing, payload) {
            self.tally.drop(DropReason::PassingFull);
        }
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod worker_tests;
