//! The path of a packet: receive -> demux -> unprotect -> latch -> transform -> tap -> protect ->
//! send, one file for each stage, and the [`Session`] that walks it.
//!
//! A session is one leg's media at a worker. It is a synchronous step function: datagrams, ticks
//! and commands in; datagrams and events out through a [`Driver`]. It opens no socket and reads no
//! clock. It does not bridge two legs and speaks neither ICE nor DTLS.
//!
//! **Start of speech.** With the first tick after its first plan a session sends: silence until
//! the first chunk of speech is there, then the speech from its first sample on. The far jitter
//! buffer is then full and the way through NATs open, so that nothing is clipped.

pub mod counters;
pub mod receive;

mod control;
mod demux;
mod latch;
mod protect;
mod send;
mod tap;
mod transform;
mod unprotect;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base::{Instant, SeededRandom, WallTime, limit};
use media::{LegPlan, MediaEvent, Protection, Quality, StopCause, TapFrame};
use rtp::packet::Packet;
use rtp::{Header, ReceiveStats};
use rtrb::Producer;

use crate::srtp::{self, SrtpError};
use control::{Received, Timers};
use counters::{DropReason, Meter, Stage, Tally};
use demux::Media;
use latch::{Latch, Latched};
use protect::Protect;
use tap::Taps;
use transform::playout::Playout;
use transform::{Frame, Output, Transform};
use unprotect::{Believed, Unprotect};

/// One frame of the session's clock.
pub const FRAME: Duration = Duration::from_millis(20);
/// Places in a frame at which sessions' clocks are set, so that a worker's frames are spread.
pub const PHASES: u64 = 16;
/// Frames that a late tick makes up for; what is older is left out.
const CATCH_UP: u32 = 3;

const SEND_BYTES: usize = limit::RTP_PACKET_BYTES.get() + srtp::OVERHEAD;

/// Which of a leg's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// RTP, and RTCP with rtcp-mux.
    Rtp,
    /// RTCP alone.
    Rtcp,
}

/// What a session acts on the world with.
pub trait Driver {
    /// Sends one datagram from that port; `false` where it could not.
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool;
    /// Something happened.
    fn event(&mut self, event: MediaEvent);
    /// Where to count.
    fn tally(&mut self) -> &mut Tally;
}

/// A plan that cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The keys do not fit.
    #[error("keys: {0}")]
    Keys(#[from] SrtpError),
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
}

/// A session with a plan.
struct Flow {
    plan: LegPlan,
    unprotect: Unprotect,
    protect: Protect,
    latch: Latch,
    /// The peer's RTCP address, where that is not the RTP one.
    rtcp_latch: Option<Latch>,
    transform: Transform,
    received: Received,
    timers: Timers,
    next_frame: Instant,
    position: u64,
    dropped: u64,
    buffer: Box<[u8; SEND_BYTES]>,
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
        }
    }

    /// Follows a plan from now on. On a session that flows only what differs changes: SSRC,
    /// sequence numbers, timestamps and the contexts of keys that stay go on.
    ///
    /// # Errors
    /// [`PlanError`]; the session is then to be released.
    pub fn apply(&mut self, now: Instant, plan: LegPlan) -> Result<(), PlanError> {
        if let Some(flow) = &mut self.flow {
            return flow.update(now, plan);
        }
        let slot = FRAME.as_nanos() as u64;
        let phase = self.phase * (slot / PHASES);
        let next = (now.as_nanos().saturating_sub(phase) / slot + 1) * slot + phase;
        let timers = Timers::new(now, plan.inactive, &mut self.random);
        let next_frame = Instant::from_nanos(next);
        self.flow = Some(Box::new(Flow::new(plan, timers, next_frame)?));
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
        let event = &mut |event| driver.event(event);
        match &mut self.flow {
            Some(flow) => {
                let position = flow.position;
                flow.transform.stop(&mut self.playout, position, StopCause::Told, event);
            }
            None => self.playout.stop(0, 0, StopCause::Told, event),
        }
    }

    /// Sends key presses as telephone events; `false` where the peer takes none, or no more now.
    pub fn send_digits(&mut self, digits: &str) -> bool {
        self.flow.as_mut().is_some_and(|flow| flow.transform.speak.press(digits))
    }

    /// Adds a listener; `false` above limit `relay.taps`.
    pub fn tap(&mut self, ring: Producer<TapFrame>) -> bool {
        self.taps.add(ring)
    }

    /// While masked, listeners hear silence.
    pub const fn mask(&mut self, masked: bool) {
        self.taps.mask(masked);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.flow.as_ref().map(|flow| flow.next_frame.min(flow.timers.next()))
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
        let Some(flow) = &mut self.flow else {
            driver.tally().drop(DropReason::NoPlan);
            return;
        };
        let wall = wall(self.epoch, now);
        let walked = receive::receive(datagram.len())
            .and_then(|()| demux::demux(port, datagram))
            .and_then(|media| match media {
                Media::Rtp => flow.on_rtp(now, source, datagram, driver),
                Media::Rtcp => flow.on_rtcp(now, wall, port, source, datagram, driver),
            });
        if let Err(reason) = walked {
            // What we chose not to hear says nothing of the way's quality.
            flow.dropped += u64::from(reason != DropReason::Held);
            driver.tally().drop(reason);
        }
    }

    /// Runs what is due: frames, reports, inactivity.
    pub fn tick(&mut self, now: Instant, driver: &mut dyn Driver) {
        let Some(flow) = &mut self.flow else {
            return;
        };
        for _ in 0..CATCH_UP {
            if flow.next_frame > now {
                break;
            }
            flow.frame(now, &mut self.playout, &mut self.taps, driver);
        }
        if flow.next_frame <= now {
            flow.skip(now, driver);
        }
        if flow.timers.is_report_due(now, &mut self.random) {
            flow.send_report(now, wall(self.epoch, now), self.has_rtcp_port, false, driver);
        }
        if flow.timers.is_quality_due(now) {
            driver.event(MediaEvent::Report { quality: flow.quality(), last: false });
        }
        if flow.timers.is_inactive(now, flow.plan.inactive) {
            driver.event(MediaEvent::Inactive);
        }
    }

    /// Says goodbye (RTCP BYE) and reports for the last time. Nothing is sent afterwards.
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

impl Flow {
    fn new(plan: LegPlan, timers: Timers, next_frame: Instant) -> Result<Self, PlanError> {
        Ok(Self {
            unprotect: Unprotect::new(&plan.protection)?,
            protect: Protect::new(&plan.protection)?,
            latch: Latch::new(plan.remote),
            rtcp_latch: plan.remote_rtcp.map(Latch::new),
            transform: Transform::new(&plan)?,
            received: Received::default(),
            timers,
            next_frame,
            position: 0,
            dropped: 0,
            buffer: Box::new([0; SEND_BYTES]),
            plan,
        })
    }

    fn update(&mut self, now: Instant, plan: LegPlan) -> Result<(), PlanError> {
        self.unprotect.update(now, &plan.protection)?;
        self.protect.update(&plan.protection)?;
        self.latch.tell(plan.remote);
        match (&mut self.rtcp_latch, plan.remote_rtcp) {
            (Some(latch), Some(told)) => latch.tell(told),
            (latch, told) => *latch = told.map(Latch::new),
        }
        self.transform.update(&plan)?;
        self.timers.heard(now, plan.inactive);
        // The identity is the first plan's for as long as the session lives.
        self.plan = LegPlan { source: self.plan.source.clone(), ..plan };
        Ok(())
    }

    fn on_rtp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let believed = self.unprotect.rtp(now, source, datagram)?;
        let packet = &datagram[..believed.length];
        let packet = Packet::parse(packet).map_err(|_| DropReason::Malformed)?;
        let latched = if believed.authentic {
            self.latch.authentic(source, believed.newest)
        } else {
            self.latch.plain(source, packet.sequence())
        };
        match latched {
            Latched::Stranger => return Err(DropReason::Stranger),
            Latched::Moved(moved) => driver.event(MediaEvent::Latched { source, moved }),
            Latched::Same | Latched::Elsewhere => {}
        }
        driver.tally().count(Meter::Believed, 1);
        self.timers.heard(now, self.plan.inactive);
        self.count_received(now, &packet);
        if !self.plan.direction.receive {
            return Err(DropReason::Held);
        }
        self.transform.receive(now, &packet, &mut |event| driver.event(event))
    }

    /// Keeps the receiver's statistics, and starts anew with another source.
    fn count_received(&mut self, now: Instant, packet: &Packet<'_>) {
        if self.received.is_new(packet.ssrc()) {
            let Some(clock) = self.transform.hear.clock(packet.payload_type()) else {
                return;
            };
            // RFC 3550 appendix A.1: an unproven source is trusted after two packets in order.
            let proven = matches!(self.plan.protection, Protection::Srtp { .. });
            let probation = if proven { 1 } else { 2 };
            self.received.begin(ReceiveStats::new(packet.ssrc(), clock, probation));
            self.transform.reset();
        }
        if let Some(stats) = &mut self.received.present {
            let (sequence, timestamp) = (packet.sequence(), packet.timestamp());
            let _ = stats.on_packet(now, sequence, timestamp, packet.payload().len());
        }
    }

    fn on_rtcp(
        &mut self,
        now: Instant,
        wall: WallTime,
        port: Port,
        source: SocketAddr,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let Believed { length, newest, authentic } = self.unprotect.rtcp(now, source, datagram)?;
        let speak = &mut self.transform.speak;
        let bytes = &datagram[..length];
        control::read_report(now, wall, bytes, &mut speak.stats, &mut self.received)
            .map_err(|_| DropReason::Malformed)?;
        if let Some(remote) = speak.stats.remote() {
            speak.set_loss(remote.fraction_lost);
        }
        // Plain RTCP moves nothing: what it could prove, RTP proves better.
        if authentic {
            match (&mut self.rtcp_latch, port) {
                (Some(latch), _) => {
                    latch.authentic(source, newest);
                }
                // A peer that only listens is known by its reports.
                (None, Port::Rtp) if !self.latch.is_latched() => {
                    if let Latched::Moved(moved) = self.latch.authentic(source, newest) {
                        driver.event(MediaEvent::Latched { source, moved });
                    }
                }
                (None, _) => {}
            }
        }
        self.timers.heard(now, self.plan.inactive);
        Ok(())
    }

    fn frame(
        &mut self,
        now: Instant,
        playout: &mut Playout,
        taps: &mut Taps,
        driver: &mut dyn Driver,
    ) {
        let frame = Frame { now, position: self.position, plan: &self.plan, playout, taps };
        let mut out = Outgoing {
            protect: &mut self.protect,
            latch: &mut self.latch,
            buffer: &mut self.buffer,
            dropped: &mut self.dropped,
            driver,
        };
        self.transform.frame(frame, &mut out);
        self.position += media::FRAME_SAMPLES as u64;
        self.next_frame += FRAME;
    }

    /// Leaves out what a late worker has missed: old audio is dropped, never queued.
    fn skip(&mut self, now: Instant, driver: &mut dyn Driver) {
        let frames = now.since(self.next_frame).as_nanos() / FRAME.as_nanos() + 1;
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.next_frame += FRAME * frames;
        self.position += u64::from(frames) * media::FRAME_SAMPLES as u64;
        self.transform.speak.skip(frames);
        driver.tally().count(Meter::Skipped, u64::from(frames));
    }

    fn send_report(
        &mut self,
        now: Instant,
        wall: WallTime,
        has_rtcp_port: bool,
        goodbye: bool,
        driver: &mut dyn Driver,
    ) {
        let (cname, sent) = (&self.plan.source.cname, &self.transform.speak.stats);
        let out = &mut self.buffer[..limit::RTP_PACKET_BYTES.get()];
        let written =
            control::write_report(now, wall, cname, sent, &mut self.received, goodbye, out);
        let Ok(length) = written else {
            return driver.tally().drop(DropReason::Unprotected);
        };
        let own_port = self.rtcp_latch.is_some() && has_rtcp_port;
        let port = if own_port { Port::Rtcp } else { Port::Rtp };
        let latch = self.rtcp_latch.as_mut().unwrap_or(&mut self.latch);
        let sent = self
            .protect
            .rtcp(&mut self.buffer[..], length)
            .and_then(|length| send::send(latch, port, &self.buffer[..length], driver));
        if let Err(reason) = sent {
            driver.tally().drop(reason);
        }
    }

    fn quality(&self) -> Quality {
        let hear = &self.transform.hear;
        let stats = hear.buffer().map(|buffer| buffer.stats()).unwrap_or_default();
        let heard = control::Heard {
            codec: hear.format().map_or(self.plan.send.codec, |format| format.codec),
            late: stats.late,
            dropped: self.dropped,
            delay: hear.buffer().map(|buffer| buffer.target()).unwrap_or_default(),
            concealed: hear.concealed,
        };
        control::quality(&self.received, &self.transform.speak.stats, &heard)
    }
}

/// The last stages, for what a frame sends.
struct Outgoing<'a> {
    protect: &'a mut Protect,
    latch: &'a mut Latch,
    buffer: &'a mut [u8; SEND_BYTES],
    dropped: &'a mut u64,
    driver: &'a mut dyn Driver,
}

impl Output for Outgoing<'_> {
    fn event(&mut self, event: MediaEvent) {
        self.driver.event(event);
    }

    fn packet(&mut self, header: &Header, payload: &[u8]) {
        let sent = header
            .write(payload, &mut self.buffer[..limit::RTP_PACKET_BYTES.get()])
            .map_err(|_| DropReason::Unprotected)
            .and_then(|length| self.protect.rtp(self.buffer, length))
            .and_then(|length| {
                send::send(self.latch, Port::Rtp, &self.buffer[..length], self.driver)
            });
        if let Err(reason) = sent {
            // A full reflection limit is no fault of the peer's packets.
            *self.dropped += u64::from(reason.stage() != Stage::Send);
            self.driver.tally().drop(reason);
        }
    }

    fn tally(&mut self) -> &mut Tally {
        self.driver.tally()
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod session_tests;
