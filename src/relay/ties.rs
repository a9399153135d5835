//! What ties a browser's session to the threads beside the workers: its handshake, its connections
//! of ICE-TCP, and its berth at the browsers' shared port, where the worker answers checks that the
//! port's thread hands on and takes the sockets that it opens.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use base::{Instant, SessionId, limit};
use media::{LegPlan, MediaEvent, Need, Protection};

use super::Worker;
use crate::driver::{Network, Token};
use crate::dtls::{HandshakeId, Identity};
use crate::ice_tcp::{Claim, Out, Outgoing, Word, asked};
use crate::path::Port;
use crate::shared::demux::{Way, is_stun};
use crate::shared::{self, Note, SharedPortHandle};

/// Pause before a socket that has not come is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Notes that may wait, above which the thread must have ended: each session has a few.
const UNTOLD: usize = 8 * limit::RELAY_SESSIONS.get();

/// See the module.
#[derive(Default)]
pub(super) struct Ties {
    /// The number of its latest handshake, which has to be ended with it.
    pub(super) handshake: Option<u32>,
    /// What its connections of ICE-TCP are sent, by number.
    pub(super) streams: Vec<(u32, Out)>,
    /// Its ICE user name fragments: the present one and, until another follows, the one before.
    ufrags: [Option<String>; 2],
    /// Where it shares the browsers' port.
    pub(super) berth: Option<Berth>,
}

impl Ties {
    pub(super) fn moored(berth: Berth) -> Self {
        Self { berth: Some(berth), ..Self::default() }
    }
}

/// A session's place at the browsers' shared port.
#[derive(Debug)]
pub(super) struct Berth {
    local: IpAddr,
    /// Of the other family.
    beside: Option<IpAddr>,
    /// Where its peer was proved, the latest last, as the port's thread knows them.
    routes: Vec<SocketAddr>,
    /// Where ICE sends media.
    wanted: Option<SocketAddr>,
    /// Whom a socket was asked for, and when.
    asked: Option<(SocketAddr, Instant)>,
    /// Whose socket it has.
    adopted: Option<SocketAddr>,
}

impl Berth {
    const fn new(local: IpAddr, beside: Option<IpAddr>) -> Self {
        Self { local, beside, routes: Vec::new(), wanted: None, asked: None, adopted: None }
    }

    pub(super) const fn beside(&self) -> Option<IpAddr> {
        self.beside
    }

    /// Media goes there from now on.
    pub(super) const fn want(&mut self, peer: SocketAddr) {
        self.wanted = Some(peer);
    }

    /// How this peer comes: an address speaks with its own family only.
    fn way(&self, peer: SocketAddr) -> Way {
        let beside = self.beside.filter(|it| it.is_ipv4() == peer.is_ipv4());
        Way { local: beside.unwrap_or(self.local), peer }
    }

    /// Which of the session's ports that is.
    fn port(&self, peer: SocketAddr) -> Port {
        if self.way(peer).local == self.local { Port::Rtp } else { Port::Beside }
    }

    /// Keeps a route on which the peer was proved; gives the one that has to make room.
    fn keep(&mut self, peer: SocketAddr) -> Option<SocketAddr> {
        self.routes.push(peer);
        let is_full = self.routes.len() > limit::ICE_PAIRS.get();
        let oldest = self.routes.iter().position(|route| Some(*route) != self.wanted);
        oldest.filter(|_| is_full).map(|at| self.routes.remove(at))
    }

    /// Whose socket is to be asked for now.
    fn ask(&mut self, now: Instant) -> Option<SocketAddr> {
        let wanted = self.wanted.filter(|wanted| self.adopted != Some(*wanted))?;
        let is_asked = self.asked.is_some_and(|(peer, at)| peer == wanted && now.since(at) < AGAIN);
        if is_asked {
            return None;
        }
        self.asked = Some((wanted, now));
        Some(wanted)
    }
}

/// A berth to be, and what is sent from at its addresses, as the network numbers it.
pub(super) type Place = ([Option<usize>; 2], Berth);

/// The browsers' shared port as a worker knows it.
pub(super) struct Berths {
    handle: SharedPortHandle,
    worker: usize,
    /// What is sent from, by address.
    open: HashMap<IpAddr, usize>,
    /// Sessions that begin when this address is open.
    waiting: HashMap<SessionId, (IpAddr, Need, Identity)>,
    /// What the thread had no room for, in order.
    untold: VecDeque<Note>,
}

impl Berths {
    pub(super) fn new(handle: SharedPortHandle, worker: usize) -> Self {
        Self {
            handle,
            worker,
            open: HashMap::new(),
            waiting: HashMap::new(),
            untold: VecDeque::new(),
        }
    }

    pub(super) const fn port(&self) -> u16 {
        self.handle.port
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Tells the thread, or keeps it for later; notes keep their order.
    fn tell(&mut self, note: Note) {
        let untold = if self.untold.is_empty() { self.handle.tell(note) } else { Err(note) };
        if let Err(note) = untold
            && self.untold.len() < UNTOLD
        {
            self.untold.push_back(note);
        }
    }

    pub(super) fn tell_again(&mut self) {
        while let Some(note) = self.untold.pop_front() {
            if let Err(note) = self.handle.tell(note) {
                return self.untold.push_front(note);
            }
        }
    }
}

/// The token of a session's port, and of its other one.
pub(super) const fn tokens(place: usize, port: Port) -> (Token, Token) {
    let (first, second) = (place * 2, place * 2 + 1);
    match port {
        Port::Rtcp | Port::Beside => (second, first),
        Port::Rtp | Port::Stream(_) => (first, second),
    }
}

impl<N: Network> Worker<N> {
    /// Keeps a session's user name fragments, by which it is found.
    pub(super) fn name(&mut self, place: usize, plan: &LegPlan) {
        let Protection::Dtls(handshake) = &plan.protection else { return };
        let Some(Some(entry)) = self.sessions.get_mut(place) else { return };
        let is_moored = entry.ties.as_ref().is_some_and(|ties| ties.berth.is_some());
        if self.ice_tcp.is_empty() && !is_moored {
            return;
        }
        let (ufrag, ties) = (&handshake.local.ufrag, entry.ties.get_or_insert_default());
        if ties.ufrags[0].as_ref() == Some(ufrag) {
            return;
        }
        ties.ufrags.swap(0, 1);
        let (id, former) = (entry.id, ties.ufrags[0].replace(ufrag.clone()));
        let mut berths = self.berths.as_mut().filter(|_| is_moored);
        if let Some(former) = former {
            self.ufrags.remove(&former);
            berths.iter_mut().for_each(|it| it.tell(Note::Unnamed(former.clone(), id)));
        }
        self.ufrags.insert(ufrag.clone(), id);
        berths.iter_mut().for_each(|it| it.tell(Note::Named(ufrag.clone(), id)));
    }

    /// A session has gone.
    pub(super) fn untie(&mut self, id: SessionId, ties: Ties) {
        for ufrag in ties.ufrags.into_iter().flatten() {
            self.ufrags.remove(&ufrag);
            if let (Some(berths), Some(_)) = (&mut self.berths, &ties.berth) {
                berths.tell(Note::Unnamed(ufrag, id));
            }
        }
        if let (Some(berths), Some(berth)) = (&mut self.berths, &ties.berth) {
            for peer in &berth.routes {
                berths.tell(Note::Left(berth.way(*peer), id));
            }
        }
        if let Some(number) = ties.handshake {
            self.end_handshake(HandshakeId { session: id, number });
        }
    }

    pub(super) fn on_stream(&mut self, word: Word) {
        match word {
            Word::Claim(claim) => self.claim(*claim),
            Word::Datagram(id, number, peer, mut datagram) => {
                if let Some(place) = self.places.get(&id).copied() {
                    self.arrived(place, Port::Stream(number), peer, &mut datagram);
                }
            }
            Word::Closed(id, number) => {
                if let Some(place) = self.places.get(&id).copied() {
                    self.close_stream(place, number);
                }
            }
        }
    }

    /// A datagram came through a thread beside this one.
    fn arrived(&mut self, place: usize, port: Port, peer: SocketAddr, datagram: &mut [u8]) {
        self.step(place, |session, now, driver| {
            session.on_datagram(now, port, peer, datagram, driver);
            true
        });
        self.moor(place);
    }

    /// A connection looks for its session, by a check that has still to be proved.
    fn claim(&mut self, mut claim: Claim) {
        let Some(id) = self.ufrags.get(&claim.ufrag).copied() else { return };
        let Some(place) = self.places.get(&id).copied() else { return };
        let Some(Some(entry)) = self.sessions.get_mut(place) else { return };
        let streams = &mut entry.ties.get_or_insert_default().streams;
        if streams.len() >= limit::ICE_TCP_CONNECTIONS_PER_SESSION.get() {
            return;
        }
        streams.push((claim.number, claim.out.clone()));
        let port = Port::Stream(claim.number);
        self.arrived(place, port, claim.peer, &mut claim.check);
        let entry = self.sessions.get(place).and_then(Option::as_ref);
        let is_proved =
            entry.is_some_and(|entry| entry.session.proved_at(port, claim.peer).is_some());
        if !is_proved || claim.out.try_send(Outgoing::Claimed(id)).is_err() {
            self.close_stream(place, claim.number);
        }
    }

    fn close_stream(&mut self, place: usize, number: u32) {
        if let Some(Some(super::Entry { ties: Some(ties), .. })) = self.sessions.get_mut(place) {
            ties.streams.retain(|(known, _)| *known != number);
        }
        self.step(place, |session, _, driver| {
            session.close_stream(number, driver);
            true
        });
        self.moor(place);
    }

    /// The place that a session is to have at the shared port, or `Some(None)` for one that gets
    /// ports of its own. `None` for one that waits for its address to be open.
    pub(super) fn berth(
        &mut self,
        id: SessionId,
        need: Need,
        identity: Option<&Identity>,
    ) -> Option<Option<Place>> {
        let (Some(berths), Some(identity)) = (&mut self.berths, identity) else {
            return Some(None);
        };
        if need.separate_rtcp {
            return Some(None);
        }
        let addresses = [Some(need.bind), need.beside];
        let closed = addresses.into_iter().flatten().find(|it| !berths.open.contains_key(it));
        let Some(closed) = closed else {
            let sockets = addresses.map(|address| berths.open.get(&address?).copied());
            return Some(Some((sockets, Berth::new(need.bind, need.beside))));
        };
        let is_asked = berths.waiting.values().any(|(known, ..)| *known == closed);
        berths.waiting.insert(id, (closed, need, identity.clone()));
        if !is_asked {
            let note = Note::Open(closed, berths.worker);
            berths.tell(note);
        }
        None
    }

    /// Whether a session has been reserved that has not begun.
    pub(super) fn is_waiting(&self, id: SessionId) -> bool {
        let is_moored = |berths: &Berths| berths.waiting.contains_key(&id);
        self.identified.contains_key(&id) || self.berths.as_ref().is_some_and(is_moored)
    }

    /// Such a session is not wanted any more; `false` where there is none.
    pub(super) fn give_up(&mut self, id: SessionId) -> bool {
        let moored = self.berths.as_mut().and_then(|berths| berths.waiting.remove(&id));
        self.identified.remove(&id).is_some() || moored.is_some()
    }

    pub(super) fn on_shared(&mut self, word: shared::Word) {
        match word {
            shared::Word::Open(local, socket) => self.on_open(local, socket),
            shared::Word::Datagram(id, peer, mut datagram) => {
                if let Some(place) = self.places.get(&id).copied() {
                    self.keep_route(place, peer, &datagram);
                    let port = self.berth_of(place).map_or(Port::Rtp, |berth| berth.port(peer));
                    self.arrived(place, port, peer, &mut datagram);
                }
            }
            shared::Word::Connected(id, peer, socket) => self.on_connected(id, peer, socket),
            shared::Word::Contested(id, way) => self.on_contested(id, way),
        }
    }

    /// Whether a session at the shared port is to speak without ICE.
    pub(super) fn is_lost_at_berth(&mut self, place: usize, plan: &LegPlan) -> bool {
        !matches!(plan.protection, Protection::Dtls(_)) && self.berth_of(place).is_some()
    }

    fn berth_of(&mut self, place: usize) -> Option<&mut Berth> {
        self.sessions.get_mut(place)?.as_mut()?.ties.as_mut()?.berth.as_mut()
    }

    /// Sessions that have waited for this address begin, or fail; without one beside its first
    /// address a session does as well.
    fn on_open(&mut self, local: IpAddr, socket: Option<OwnedFd>) {
        let Some(berths) = &mut self.berths else { return };
        let begun: Vec<_> = berths.waiting.extract_if(|_, (known, ..)| *known == local).collect();
        if !berths.open.contains_key(&local)
            && let Some(shared) = socket.and_then(|socket| self.network.share(socket))
        {
            berths.open.insert(local, shared);
        }
        let is_open = berths.open.contains_key(&local);
        for (id, (_, need, identity)) in begun {
            if is_open {
                self.begin(id, need, Some(identity));
            } else if need.bind != local {
                self.begin(id, Need { beside: None, ..need }, Some(identity));
            } else {
                self.sink.deliver(id, MediaEvent::ReserveFailed { ports: true });
            }
        }
    }

    /// Keeps a new route on which a check is proved. The thread is told before the check is
    /// answered, so that it knows where what follows the answer belongs.
    fn keep_route(&mut self, place: usize, peer: SocketAddr, datagram: &[u8]) {
        let Some(berths) = &mut self.berths else { return };
        let Some(Some(entry)) = self.sessions.get_mut(place) else { return };
        let berth = entry.ties.as_mut().and_then(|ties| ties.berth.as_mut());
        let Some(berth) = berth.filter(|it| !it.routes.contains(&peer)) else { return };
        if !is_stun(datagram) || !entry.session.is_authentic(datagram) {
            return;
        }
        let left = berth.keep(peer);
        berths.tell(Note::Proved(berth.way(peer), entry.id));
        if let Some(left) = left {
            berths.tell(Note::Left(berth.way(left), entry.id));
        }
    }

    /// Asks for the socket of where media goes now.
    fn moor(&mut self, place: usize) {
        let Some(berths) = &mut self.berths else { return };
        let Some(Some(entry)) = self.sessions.get_mut(place) else { return };
        let Some(berth) = entry.ties.as_mut().and_then(|ties| ties.berth.as_mut()) else {
            return;
        };
        if let Some(wanted) = berth.ask(self.network.now()) {
            berths.tell(Note::Selected(berth.way(wanted), entry.id));
        }
    }

    /// A socket that comes too late is closed.
    fn on_connected(&mut self, id: SessionId, peer: SocketAddr, socket: OwnedFd) {
        let Some(place) = self.places.get(&id).copied() else { return };
        let Some(Some(entry)) = self.sessions.get_mut(place) else { return };
        let berth = entry.ties.as_mut().and_then(|ties| ties.berth.as_mut());
        let Some(berth) = berth.filter(|berth| berth.wanted == Some(peer)) else { return };
        let (token, other) = tokens(place, berth.port(peer));
        let is_adopted = self.network.adopt(token, peer, socket);
        berth.adopted = is_adopted.then_some(peer);
        // The peer is in one family at a time.
        self.network.part(other);
    }

    /// A route is given up where the session has not been checked from there for a while.
    fn on_contested(&mut self, id: SessionId, way: Way) {
        let now = self.network.now();
        let place = self.places.get(&id).copied();
        let entry = place.and_then(|place| self.sessions.get_mut(place)?.as_mut());
        if let (Some(entry), Some(place)) = (entry, place) {
            let kept = limit::ICE_PORT_KEPT_MS.millis();
            let berth = entry.ties.as_mut().and_then(|ties| ties.berth.as_mut());
            let Some(berth) = berth.filter(|berth| berth.way(way.peer) == way) else { return };
            let port = berth.port(way.peer);
            let heard = entry.session.proved_at(port, way.peer);
            if heard.is_some_and(|heard| now.since(heard) < kept) {
                return;
            }
            berth.routes.retain(|route| *route != way.peer);
            berth.wanted = berth.wanted.filter(|peer| *peer != way.peer);
            if berth.adopted.take_if(|peer| *peer == way.peer).is_some() {
                self.network.part(tokens(place, port).0);
            }
        }
        self.berths.iter_mut().for_each(|berths| berths.tell(Note::Left(way, id)));
    }

    /// Whether this is a check for another session, which comes from where this one's peer was;
    /// the port's thread has it then.
    pub(super) fn is_astray(&mut self, place: usize, peer: SocketAddr, datagram: &[u8]) -> bool {
        let Some(berths) = &self.berths else { return false };
        let Some(Some(entry)) = self.sessions.get(place) else { return false };
        let Some(ties) = &entry.ties else { return false };
        let Some(berth) = &ties.berth else { return false };
        let asked = is_stun(datagram).then(|| asked(datagram)).flatten();
        let is_astray =
            asked.is_some_and(|asked| ties.ufrags.iter().flatten().all(|known| *known != asked));
        if is_astray {
            // Whoever finds no room checks again.
            let _ = berths.handle.tell(Note::Astray(berth.way(peer), datagram.to_vec()));
        }
        is_astray
    }
}
