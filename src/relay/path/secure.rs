//! A leg whose keys come from a handshake on the media path: ICE finds the peer (RFC 8445, we are
//! its lite agent), DTLS proves it and gives the keys (RFC 5763), and until then the plan waits.
//!
//! - The handshake begins with the first check that carries our password: it has shown that the
//!   peer receives what is sent there, so DTLS needs no cookie (RFC 6347 section 4.2.1).
//! - DTLS is heard only from where the present credentials were proved, media from where any were.
//! - Keys make the leg's flow one of SRTP: its packets walk as those of any other, but its latch is
//!   pinned to the route that ICE selects.
//! - Another plan goes on with the keys, unless it names another certificate or role: then a new
//!   handshake begins, and the former keys go on until the new ones are there.

use std::net::SocketAddr;
use std::time::Duration;

use base::{Instant, SessionId, limit};
use media::{Handshake, LegPlan, MediaEvent, Protection};
use rtp::Datagram;
use rtp::ice::{Change, Lite, Refused, Route};

use super::counters::{DropReason, Meter};
use super::{Ask, Driver, PlanError, Port, Session, receive};
use crate::dtls::{Failure, Identity, Keys, News, PREFERENCE, Setup};
use crate::rate::Rate;

/// Pause before a handshake that found no room is begun again.
const AGAIN: Duration = Duration::from_millis(50);
/// How much longer than the handshake itself we wait for word of its end.
const SPARE: Duration = Duration::from_secs(2);

/// See the module.
pub(super) struct Secure {
    identity: Identity,
    ice: Lite,
    /// Of the latest plan.
    handshake: Handshake,
    /// Of the handshake under way, or the latest.
    number: u32,
    state: State,
    keys: Option<Keys>,
    /// The latest plan, while it waits for keys.
    waiting: Option<(LegPlan, Option<SessionId>)>,
    /// Media that came before the keys.
    early: Vec<(Port, SocketAddr, Vec<u8>)>,
    /// Where DTLS was heard last, and is answered.
    heard: Option<Route>,
    /// DTLS datagrams, checks from where some were proved, and checks from elsewhere.
    dtls: Rate,
    checks: Rate,
    strange_checks: Rate,
    /// When to see whether something is late; moved only then, so that a check costs no timer.
    look: Option<Instant>,
    is_lost: bool,
    is_ringing: bool,
    /// ICE selected a route before, though it may be gone.
    was_selected: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To begin with the first proved check, which is waited for until then.
    Wanted(Instant),
    /// Under way; by then word of its end must have come.
    Under(Instant),
    /// The keys are there.
    Complete,
    /// There will be no keys.
    Failed,
}

impl Secure {
    fn new(now: Instant, identity: Identity, handshake: Handshake) -> Self {
        let mut secure = Self {
            identity,
            ice: Lite::new(handshake.local.clone(), &handshake.remote),
            handshake,
            number: 0,
            state: State::Failed,
            keys: None,
            waiting: None,
            early: Vec::new(),
            heard: None,
            dtls: Rate::default(),
            checks: Rate::default(),
            strange_checks: Rate::default(),
            look: None,
            is_lost: false,
            is_ringing: false,
            was_selected: false,
        };
        secure.want(now);
        secure
    }

    /// A handshake is to begin.
    fn want(&mut self, now: Instant) {
        let until = now + limit::ICE_FIRST_CHECK_MS.millis();
        self.state = State::Wanted(until);
        self.look_at(until);
    }

    /// Takes what another plan says of ICE and the handshake.
    fn update(&mut self, now: Instant, to: Handshake) {
        let from = std::mem::replace(&mut self.handshake, to);
        let to = self.handshake.clone();
        if (&from.local, &from.remote) != (&to.local, &to.remote) {
            self.ice.restart(to.local, &to.remote);
            if matches!(self.state, State::Wanted(_)) {
                self.want(now);
            }
        }
        // RFC 8842 section 4: another fingerprint or role is another association.
        if (from.role, from.peer) != (to.role, to.peer) {
            self.early.clear();
            self.want(now);
        }
    }

    /// Begins the handshake that is wanted, where the peer is known and there is room.
    fn begin(&mut self, now: Instant, driver: &mut dyn Driver) {
        let State::Wanted(_) = self.state else { return };
        if !self.ice.is_confirmed() {
            return;
        }
        let setup = Setup {
            backend: self.handshake.backend,
            role: self.handshake.role,
            identity: self.identity.clone(),
            fingerprint: self.handshake.peer.clone(),
            suites: PREFERENCE.to_vec(),
            has_cookie: false,
            // Proven against NSS and BoringSSL (tests/cases/handshakes.py).
            has_13: true,
        };
        let number = self.number.wrapping_add(1);
        if driver.handshake(number, Ask::Begin(Box::new(setup))) {
            let until = now + limit::DTLS_HANDSHAKE_MS.millis() + SPARE;
            (self.number, self.state, self.heard) = (number, State::Under(until), None);
            self.look_at(until);
        } else {
            self.look_at(now + AGAIN);
        }
    }

    /// There will be no keys.
    fn fail(&mut self, failure: Failure, driver: &mut dyn Driver) {
        self.state = State::Failed;
        self.early.clear();
        driver.event(MediaEvent::Unsecured { code: failure.code() });
    }

    /// Whether this is media from where the peer was proved.
    pub(super) fn admits(&self, port: Port, source: SocketAddr, datagram: &[u8]) -> bool {
        let is_media = datagram.first().is_some_and(|byte| (128..192).contains(byte));
        is_media && self.is_known(route(port, source))
    }

    /// Whether this is a check of the peer's.
    pub(super) fn is_authentic(&self, check: &[u8]) -> bool {
        self.ice.is_authentic(check)
    }

    /// When a check of the present credentials, or the former, was proved there the latest time.
    pub(super) fn proved_at(&self, port: Port, source: SocketAddr) -> Option<Instant> {
        self.ice.heard(route(port, source))
    }

    fn is_known(&self, route: Route) -> bool {
        self.ice.selected() == Some(route) || self.ice.knows(route)
    }

    /// The peer hears the ring-back tone as soon as it can hear anything, or no longer.
    pub(super) const fn ring(&mut self, on: bool) {
        self.is_ringing = on;
    }

    /// When [`Self::handle_timeout`] is due.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.look
    }

    /// Makes sure that nothing is looked at later than `at`.
    fn look_at(&mut self, at: Instant) {
        self.look = Some(self.look.map_or(at, |look| look.min(at)));
    }

    /// Sees whether something is late.
    pub(super) fn handle_timeout(&mut self, now: Instant, driver: &mut dyn Driver) {
        if self.look.is_none_or(|look| now < look) {
            return;
        }
        self.look = None;
        self.begin(now, driver);
        match self.state {
            State::Wanted(until) | State::Under(until) if now < until => self.look_at(until),
            State::Wanted(_) if !self.ice.is_confirmed() => {
                // A check may still come; nobody but the call gives it up.
                self.lose(driver);
            }
            State::Wanted(_) => self.fail(Failure::Full, driver),
            State::Under(_) => self.fail(Failure::Timeout, driver),
            State::Complete | State::Failed => {}
        }
        match self.ice.expires() {
            Some(expires) if expires <= now => self.lose(driver),
            Some(expires) => self.look_at(expires),
            None => {}
        }
    }

    fn lose(&mut self, driver: &mut dyn Driver) {
        if !std::mem::replace(&mut self.is_lost, true) {
            driver.event(MediaEvent::PathLost);
        }
    }

    /// What came looks like STUN. Gives the route that ICE selects, where that changes.
    fn on_check(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
        driver: &mut dyn Driver,
    ) -> Result<Option<Route>, DropReason> {
        let route = route(port, source);
        // Strangers take nothing of what is left for the peer.
        let known = self.ice.knows(route);
        let rate = if known { &mut self.checks } else { &mut self.strange_checks };
        if !rate.admits(now, limit::ICE_CHECKS_PER_SESSION.value) {
            return Err(DropReason::CheckFlood);
        }
        let mut answer = [0; rtp::ice::stun::ANSWER_BYTES];
        let taken = self.ice.handle(now, route, datagram, &mut answer);
        let taken = taken.map_err(|refused| match refused {
            Refused::Malformed | Refused::NotRequest => DropReason::NotCheck,
            Refused::Credentials => DropReason::Forged,
        })?;
        driver.tally().count(Meter::Checks, 1);
        match driver.send(port, source, &answer[..taken.answer]) {
            true => driver.tally().count(Meter::Sent, 1),
            false => driver.tally().drop(DropReason::Refused),
        }
        self.is_lost = false;
        if let Some(expires) = self.ice.expires() {
            // Where a timer runs it finds out by itself.
            self.look = self.look.or(Some(expires));
        }
        self.begin(now, driver);
        let Some(Change::Selected(route)) = taken.change else { return Ok(None) };
        if self.state == State::Complete {
            // What is repeated of the handshake goes where the peer is now.
            self.heard = None;
        }
        self.tell_selected(route, driver);
        Ok(Some(route))
    }

    fn tell_selected(&mut self, route: Route, driver: &mut dyn Driver) {
        let moved = std::mem::replace(&mut self.was_selected, true);
        let port = Port::of_route(route.socket);
        if matches!(port, Port::Rtp | Port::Beside) {
            driver.connect(port, route.remote);
        }
        driver.event(MediaEvent::Latched { source: route.remote, moved });
    }

    /// What came looks like DTLS.
    fn on_dtls(
        &mut self,
        now: Instant,
        route: Route,
        datagram: &[u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        if !self.ice.proves(route) {
            return Err(DropReason::Unchecked);
        }
        if !matches!(self.state, State::Under(_) | State::Complete) {
            return Err(DropReason::Unexpected);
        }
        if !self.dtls.admits(now, limit::RELAY_DTLS_DATAGRAMS.value) {
            return Err(DropReason::Flood);
        }
        self.heard = Some(route);
        let is_taken = driver.handshake(self.number, Ask::Datagram(datagram));
        is_taken.then_some(()).ok_or(DropReason::Crowded)
    }

    /// Media before the first keys.
    fn on_early(
        &mut self,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        if !self.is_known(route(port, source)) {
            return Err(DropReason::Unchecked);
        }
        let has_room = self.early.len() < limit::RELAY_EARLY_PACKETS.get();
        if !has_room || !matches!(self.state, State::Under(_)) {
            return Err(DropReason::Early);
        }
        driver.tally().count(Meter::Waited, 1);
        self.early.push((port, source, datagram.to_vec()));
        Ok(())
    }

    /// Sends a datagram of the handshake.
    fn send(&self, datagram: &[u8], driver: &mut dyn Driver) {
        let Some(route) = self.heard.or(self.ice.selected()) else {
            return driver.tally().drop(DropReason::Unlatched);
        };
        match driver.send(Port::of_route(route.socket), route.remote, datagram) {
            true => driver.tally().count(Meter::Sent, 1),
            false => driver.tally().drop(DropReason::Refused),
        }
    }

    /// The plan under the keys, where there are some.
    fn keyed(&self, plan: &LegPlan) -> Option<LegPlan> {
        let Keys { suite, send, receive } = self.keys.clone()?;
        Some(LegPlan { protection: Protection::Srtp { suite, send, receive }, ..plan.clone() })
    }
}

const fn route(port: Port, source: SocketAddr) -> Route {
    Route { socket: port.route(), remote: source }
}

impl Session {
    /// Takes a plan whose keys come from a handshake.
    pub(super) fn apply_secure(
        &mut self,
        now: Instant,
        plan: LegPlan,
        handshake: Handshake,
        with: Option<SessionId>,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        // Who does ICE and DTLS multiplexes RTCP: one component is all that we answer for.
        let plan = LegPlan { remote_rtcp: None, ..plan };
        let secure = match &mut self.secure {
            Some(secure) => {
                secure.update(now, handshake);
                secure
            }
            none => {
                let identity = self.identity.clone().ok_or(PlanError::Unidentified)?;
                none.insert(Box::new(Secure::new(now, identity, handshake)))
            }
        };
        secure.begin(now, driver);
        let keyed = secure.keyed(&plan);
        if secure.state != State::Complete {
            secure.waiting = Some((plan, with));
        }
        keyed.map_or(Ok(()), |keyed| self.follow_secure(now, keyed, with, driver))
    }

    /// Follows a plan under the keys of the handshake.
    fn follow_secure(
        &mut self,
        now: Instant,
        plan: LegPlan,
        with: Option<SessionId>,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        let is_first = self.flow.is_none();
        self.follow(now, plan, with, driver)?;
        if let (Some(flow), Some(secure)) = (&mut self.flow, &mut self.secure) {
            flow.pin(secure.ice.selected());
            if is_first && std::mem::take(&mut secure.is_ringing) {
                flow.ring(now, true);
            }
        }
        Ok(())
    }

    /// No plan wants a handshake any more.
    pub(super) fn end_secure(&mut self, driver: &mut dyn Driver) {
        if let Some(secure) = self.secure.take() {
            driver.handshake(secure.number, Ask::End);
            self.flow.iter_mut().for_each(|flow| flow.unpin());
        }
    }

    /// Takes what is not media with keys from a known place (RFC 7983).
    pub(super) fn on_other(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &[u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        receive::receive(datagram.len())?;
        let secure = self.secure.as_mut().ok_or(DropReason::NoPlan)?;
        if port == Port::Rtcp {
            return Err(DropReason::NotMedia);
        }
        match rtp::classify(datagram) {
            Datagram::Stun => {
                let selected = secure.on_check(now, port, source, datagram, driver)?;
                if let (Some(route), Some(flow), Some(_)) = (selected, &mut self.flow, &secure.keys)
                {
                    flow.pin(Some(route));
                }
                Ok(())
            }
            Datagram::Dtls => secure.on_dtls(now, route(port, source), datagram, driver),
            Datagram::Rtp | Datagram::Rtcp if secure.keys.is_none() => {
                secure.on_early(port, source, datagram, driver)
            }
            Datagram::Rtp | Datagram::Rtcp => Err(DropReason::Unchecked),
            Datagram::Zrtp | Datagram::Turn | Datagram::Unknown => Err(DropReason::NotMedia),
        }
    }

    /// A connection is closed. Media goes on by the best way that is left.
    pub(crate) fn close_stream(&mut self, connection: u32, driver: &mut dyn Driver) {
        let Some(secure) = &mut self.secure else { return };
        let before = secure.ice.selected();
        secure.ice.close(connection);
        secure.heard = secure.heard.filter(|route| route.socket != connection);
        let selected = secure.ice.selected();
        if selected == before {
            return;
        }
        if let Some(route) = selected {
            secure.tell_selected(route, driver);
        }
        if let (Some(flow), Some(_)) = (&mut self.flow, &secure.keys) {
            flow.pin(selected);
        }
    }

    /// The thread of handshakes has news of the handshake of this number.
    ///
    /// # Errors
    /// [`PlanError`] of the plan that waited; the session is then to be released.
    pub fn on_handshake(
        &mut self,
        now: Instant,
        number: u32,
        news: News,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        let Some(secure) = self.secure.as_mut().filter(|secure| secure.number == number) else {
            return Ok(());
        };
        match (news, secure.state) {
            (News::Datagram(bytes), _) => secure.send(&bytes, driver),
            (News::Keys(keys), State::Under(_)) => return self.on_keys(now, keys, driver),
            (News::Failed(failure), State::Under(_)) => secure.fail(failure, driver),
            // What the peer says of DTLS ends no call; signalling does.
            (News::Keys(_) | News::Failed(_) | News::Closed | News::Identity(_), _) => {}
        }
        Ok(())
    }

    fn on_keys(
        &mut self,
        now: Instant,
        keys: Keys,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        let Some(secure) = &mut self.secure else { return Ok(()) };
        let suite = keys.suite;
        (secure.state, secure.keys) = (State::Complete, Some(keys));
        let early = std::mem::take(&mut secure.early);
        if let Some((plan, with)) = secure.waiting.take()
            && let Some(keyed) = secure.keyed(&plan)
        {
            self.follow_secure(now, keyed, with, driver)?;
        }
        driver.event(MediaEvent::Secured { suite });
        for (port, source, mut datagram) in early {
            self.walk(now, port, source, &mut datagram, driver);
        }
        Ok(())
    }
}
