//! The path of a packet: receive -> demux -> unprotect -> latch -> transform -> tap -> protect ->
//! send, one file for each stage, and the [`Session`] that walks it. What is no media of a
//! browser's leg leaves it after demux, for ice or dtls, which both live in `secure`.
//!
//! A session is one leg's media at a worker. It is a synchronous step function: datagrams, ticks
//! and commands in; datagrams and events out through a [`Driver`]. It opens no socket and reads no
//! clock. Of a leg whose keys come from a DTLS handshake it speaks ICE itself and asks the thread
//! of handshakes, over its driver, for the rest (`secure`).
//!
//! **Two legs.** The session of a leg that another leg hears hands what it hears to that leg's
//! session ([`Driver::pass`], [`Session::pass`]), which owns what its peer hears: one source whose
//! numbers go on whatever becomes of the other leg.
//!
//! **Start of speech.** With the first tick after its first plan a voice agent's session sends:
//! silence until the first chunk of speech is there, then the speech from its first sample on. The
//! far jitter buffer is then full and the way through NATs open, so that nothing is clipped.

pub mod counters;
pub mod receive;

mod control;
mod demux;
mod flow;
mod latch;
mod numbers;
mod passing;
mod protect;
mod secure;
mod send;
mod stream;
mod tap;
pub(crate) mod transform;
mod unprotect;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, SeededRandom, SessionId, WallTime};
use media::{LegPlan, MediaEvent, Protection, StopCause, TapFrame, TapPacket};
use rtrb::Producer;

use crate::driver::ahead::{Depth, prefetch};
use crate::dtls::{Identity, Setup};
use crate::srtp::SrtpError;
use counters::{DropReason, Meter, Tally};
use flow::Flow;
use secure::Secure;
use tap::Taps;
use transform::playout::Playout;

pub use passing::{Outbox, Parcel, Passing};

/// One frame of the session's clock.
pub const FRAME: Duration = Duration::from_millis(20);
/// Places in a frame at which sessions' clocks are set, so that a worker's frames are spread.
pub const PHASES: u64 = 16;
/// Frames that a late tick makes up for; what is older is left out.
const CATCH_UP: u32 = 3;

/// Which of a leg's ports, or connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// RTP, and RTCP with rtcp-mux.
    Rtp,
    /// RTCP alone.
    Rtcp,
    /// What `Rtp` is, at an address of the other family; of a leg that ICE finds, with rtcp-mux.
    Beside,
    /// A connection of ICE-TCP, by its number, which is neither 0 nor 1; with rtcp-mux.
    Stream(u32),
}

impl Port {
    /// As ICE numbers the ways to a peer.
    const fn route(self) -> u32 {
        match self {
            Self::Rtp | Self::Rtcp => 0,
            Self::Beside => 1,
            Self::Stream(connection) => connection,
        }
    }

    /// The way of that number.
    const fn of_route(number: u32) -> Self {
        match number {
            0 => Self::Rtp,
            1 => Self::Beside,
            connection => Self::Stream(connection),
        }
    }
}

/// What a session wants of the thread of handshakes.
#[derive(Debug)]
pub enum Ask<'a> {
    /// Begin a handshake, in place of a former one.
    Begin(Box<Setup>),
    /// The peer has sent this.
    Datagram(&'a [u8]),
    /// It is over.
    End,
}

/// What a session acts on the world with.
pub trait Driver {
    /// Sends one datagram from that port; `false` where it could not.
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool;
    /// Something happened.
    fn event(&mut self, event: MediaEvent);
    /// The peer's packets come from there to that port from now on: there may be a faster way to
    /// it.
    fn connect(&mut self, _port: Port, _source: SocketAddr) {}
    /// Asks something of the thread of handshakes, for the handshake of this number; `false` where
    /// there is no such thread, or it has no room now.
    fn handshake(&mut self, _number: u32, _ask: Ask<'_>) -> bool {
        false
    }
    /// Where to count.
    fn tally(&mut self) -> &mut Tally;
    /// Hands something to another session, which gets it by [`Session::pass`] after this step.
    fn pass(&mut self, passing: Passing, payload: &[u8]);
}

/// A plan that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The keys do not fit.
    #[error("keys: {0}")]
    Keys(#[from] SrtpError),
    /// A handshake is wanted of a leg that no certificate was chosen for.
    #[error("the leg was reserved without a certificate")]
    Unidentified,
    /// A voice agent's leg has no codec that is decoded here.
    #[error("a voice agent needs a codec that is decoded here")]
    Opaque,
    /// A codec could not be set up.
    #[error("codec: {0}")]
    Codec(#[from] audio::codec::SetupError),
}

/// See the module.
pub struct Session {
    has_rtcp_port: bool,
    /// Where this session's frames lie, 0 to 15 sixteenths.
    phase: u64,
    /// One moment on both clocks.
    epoch: (Instant, WallTime),
    random: SeededRandom,
    taps: Taps,
    playout: Playout,
    flow: Option<Box<Flow>>,
    /// Where keys come from a handshake.
    secure: Option<Box<Secure>>,
    /// The certificate that a handshake shows.
    identity: Option<Identity>,
}

impl Session {
    /// A session without a plan. `seed` spreads its reports in time and its frames over the
    /// phases; it guards no secret.
    #[must_use]
    pub fn new(now: Instant, wall: WallTime, seed: u64, has_rtcp_port: bool) -> Self {
        Self {
            has_rtcp_port,
            phase: seed % PHASES,
            epoch: (now, wall),
            random: SeededRandom::new(seed),
            taps: Taps::default(),
            playout: Playout::default(),
            flow: None,
            secure: None,
            identity: None,
        }
    }

    /// Gives it the certificate that it shows, should its keys come from a handshake.
    #[must_use]
    pub fn with_identity(self, identity: Option<Identity>) -> Self {
        Self { identity, ..self }
    }

    /// Follows a plan from now on. On a session that flows only what differs changes: SSRC,
    /// sequence numbers, timestamps and the contexts of keys that stay go on. `with` is the
    /// session of the leg that a bridge names. A plan whose keys come from a handshake waits for
    /// them; the latest that waits is followed then.
    ///
    /// # Errors
    /// [`PlanError`]; the session is then to be released.
    pub fn apply(
        &mut self,
        now: Instant,
        plan: LegPlan,
        with: Option<SessionId>,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        if let Protection::Dtls(handshake) = &plan.protection {
            let handshake = (**handshake).clone();
            return self.apply_secure(now, plan, handshake, with, driver);
        }
        self.end_secure(driver);
        self.follow(now, plan, with, driver)
    }

    fn follow(
        &mut self,
        now: Instant,
        plan: LegPlan,
        with: Option<SessionId>,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        if let Some(flow) = &mut self.flow {
            return flow.update(now, plan, with, &mut self.playout, driver);
        }
        let slot = FRAME.as_nanos() as u64;
        let phase = self.phase * (slot / PHASES);
        let next = (now.as_nanos().saturating_sub(phase) / slot + 1) * slot + phase;
        let first = Instant::from_nanos(next);
        let flow = Flow::new(now, plan, with, first, &mut self.random)?;
        self.flow = Some(Box::new(flow));
        Ok(())
    }

    /// Queues a piece of speech: 16 kHz samples; `last` ends the speech.
    pub fn play(&mut self, speech: u32, samples: Arc<[i16]>, last: bool, driver: &mut dyn Driver) {
        if self.playout.push(speech, samples, last) > 0 {
            driver.tally().drop(DropReason::PlayoutFull);
        }
    }

    /// Cuts the speech under way and those that wait.
    pub fn stop_playout(&mut self, driver: &mut dyn Driver) {
        match &mut self.flow {
            Some(flow) => flow.stop(&mut self.playout, driver),
            None => self.playout.stop(0, 0, StopCause::Told, &mut |event| driver.event(event)),
        }
    }

    /// Sends key presses: as telephone events where the peer takes them, else, on a bridged leg,
    /// as tones. `false` where they are no keys, too many, or the peer of a voice agent takes none.
    pub fn send_digits(&mut self, now: Instant, digits: &str) -> bool {
        self.flow.as_mut().is_some_and(|flow| flow.press(now, digits))
    }

    /// The peer hears the ring-back tone, in place of the leg that it talks with, from now on or
    /// no longer; it ends also when another leg is to be heard.
    pub fn ring(&mut self, now: Instant, on: bool) {
        match (&mut self.flow, &mut self.secure) {
            (Some(flow), _) => flow.ring(now, on),
            (None, Some(secure)) => secure.ring(on),
            (None, None) => {}
        }
    }

    /// Adds a listener; `false` above limit `relay.taps`.
    pub fn tap(&mut self, ring: Producer<TapFrame>) -> bool {
        self.taps.add(ring)
    }

    /// Gives the packets of this leg, as they come from its peer, to a recorder, instead of one
    /// before; those of a voice agent's leg are not given.
    pub fn tap_packets(&mut self, ring: Producer<TapPacket>) {
        self.taps.give_packets(ring);
    }

    /// While masked, listeners hear silence.
    pub const fn mask(&mut self, masked: bool) {
        self.taps.mask(masked);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let flow = self.flow.as_ref().map(|flow| flow.poll_timeout());
        let secure = self.secure.as_ref().and_then(|secure| secure.poll_timeout());
        flow.into_iter().chain(secure).min()
    }

    /// Asks for memory that the next packet needs: one that arrives (`hears`), or one that another
    /// session hands over.
    pub(crate) fn prefetch(&self, hears: bool, depth: Depth) {
        if hears && depth == Depth::State {
            self.secure.iter().for_each(|secure| prefetch(&**secure));
        }
        self.flow.iter().for_each(|flow| flow.prefetch(hears, depth));
    }

    /// A datagram arrived; its bytes are deciphered in place. One that was cut to
    /// [`receive::BUFFER_BYTES`] counts as oversized.
    pub fn on_datagram(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) {
        driver.tally().count(Meter::Received, 1);
        let is_ready = match &self.secure {
            None => true,
            Some(secure) => self.flow.is_some() && secure.admits(port, source, datagram),
        };
        if is_ready {
            return self.walk(now, port, source, datagram, driver);
        }
        if let Err(reason) = self.on_other(now, port, source, datagram, driver) {
            driver.tally().drop(reason);
        }
    }

    /// Takes media through the stages.
    fn walk(
        &mut self,
        now: Instant,
        port: Port,
        source: SocketAddr,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) {
        let Some(flow) = &mut self.flow else {
            driver.tally().drop(DropReason::NoPlan);
            return;
        };
        let epoch = self.epoch;
        let walked = receive::receive(datagram.len())
            .and_then(|()| demux::demux(port, datagram))
            .and_then(|media| match media {
                demux::Media::Rtp => flow.on_rtp(now, source, datagram, &mut self.taps, driver),
                demux::Media::Rtcp => {
                    flow.on_rtcp(now, wall(epoch, now), port, source, datagram, driver)
                }
            });
        if let Err(reason) = walked {
            flow.count_dropped(reason);
            driver.tally().drop(reason);
        }
    }

    /// Another session hands over what its peer says, or what its peer reports.
    pub fn pass(
        &mut self,
        now: Instant,
        from: SessionId,
        parcel: &mut Parcel,
        driver: &mut dyn Driver,
    ) {
        let passed = match &mut self.flow {
            Some(flow) => flow.pass(now, from, parcel, driver),
            None => Err(DropReason::NoPlan),
        };
        if let Err(reason) = passed {
            driver.tally().drop(reason);
        }
    }

    /// Whether this is a check of the peer's.
    pub(crate) fn is_authentic(&self, check: &[u8]) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.is_authentic(check))
    }

    /// Which port the second of its sockets is.
    pub(crate) const fn second_port(&self) -> Port {
        if self.has_rtcp_port { Port::Rtcp } else { Port::Beside }
    }

    /// When a check proved that the peer is there, the latest time.
    pub(crate) fn proved_at(&self, port: Port, source: SocketAddr) -> Option<Instant> {
        self.secure.as_ref()?.proved_at(port, source)
    }

    /// Runs what is due: frames, reports, inactivity.
    pub fn tick(&mut self, now: Instant, driver: &mut dyn Driver) {
        self.secure.iter_mut().for_each(|secure| secure.handle_timeout(now, driver));
        let Some(flow) = &mut self.flow else {
            return;
        };
        flow.run_frames(now, &mut self.playout, &mut self.taps, driver);
        if flow.timers.is_report_due(now, &mut self.random) {
            flow.send_report(now, wall(self.epoch, now), self.has_rtcp_port, false, driver);
        }
        if flow.timers.is_quality_due(now) {
            driver.event(MediaEvent::Report { quality: flow.quality(), last: false });
        }
        if flow.is_inactive(now) {
            driver.event(MediaEvent::Inactive);
        }
    }

    /// Says goodbye (RTCP BYE) and reports for the last time. Nothing is sent afterwards. Whoever
    /// has let a handshake begin for this session ends it now.
    pub fn release(&mut self, now: Instant, driver: &mut dyn Driver) {
        if let Some(mut flow) = self.flow.take() {
            flow.send_report(now, wall(self.epoch, now), self.has_rtcp_port, true, driver);
            driver.event(MediaEvent::Report { quality: flow.quality(), last: true });
        }
    }
}

fn wall(epoch: (Instant, WallTime), now: Instant) -> WallTime {
    epoch.1 + now.since(epoch.0)
}

#[cfg(test)]
pub(crate) mod browser;

#[cfg(test)]
mod bridge_tests;
#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod opaque_tests;
#[cfg(test)]
mod opus_tests;
#[cfg(test)]
mod pair;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod secure_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod tape_tests;
#[cfg(test)]
mod transcode_tests;
