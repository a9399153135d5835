//! A session with a plan: the stages, one after the other.

use std::net::SocketAddr;

use base::{Instant, SeededRandom, SessionId, WallTime, limit};
use media::{LegPlan, MediaEvent, Protection, Purpose, Quality, StopCause};
use rtp::ice::Route;
use rtp::packet::{HEADER_BYTES, Packet};
use rtp::{Impairment, ReceiveStats};

use super::control::{self, Received, Source, Timers};
use super::counters::{DropReason, Meter, Stage, Tally};
use super::latch::{Latch, Latched};
use super::numbers::Numbered;
use super::passing::{Parcel, What};
use super::stream::Stream;
use super::tap::Taps;
use super::transform::agent::{Agent, Frame, Output};
use super::transform::bridge::{Bridged, Fixed};
use super::transform::playout::Playout;
use super::unprotect::{Believed, Unprotect};
use super::{CATCH_UP, Driver, FRAME, PlanError, Port, send};
use crate::driver::ahead::{Depth, prefetch};
use crate::srtp;

const SEND_BYTES: usize = limit::RTP_PACKET_BYTES.get() + srtp::OVERHEAD;

/// See the module.
pub(crate) struct Flow {
    plan: LegPlan,
    unprotect: Unprotect,
    stream: Stream,
    /// The peer's RTCP address, where that is not the RTP one.
    rtcp_latch: Option<Latch>,
    work: Work,
    received: Received,
    pub(crate) timers: Timers,
    next_frame: Instant,
    /// Samples at the rate of the taps since the first plan.
    position: u64,
    dropped: u64,
    /// What earlier work left in the figures: packets that came too late, and concealed frames.
    past: (u64, u64),
}

/// What the leg's sound is for.
enum Work {
    Agent(Box<Agent>),
    Bridge(Bridged),
}

impl Work {
    fn new(plan: &LegPlan, with: Option<SessionId>) -> Result<Self, PlanError> {
        Ok(match &plan.purpose {
            Purpose::Agent { barge_in } => Self::Agent(Box::new(Agent::new(plan, *barge_in)?)),
            Purpose::Bridge(bridge) => Self::Bridge(Bridged::new(plan, bridge.as_ref(), with)?),
        })
    }

    /// Whether frames of 20 ms have something to do.
    fn needs_frames(&self) -> bool {
        match self {
            Self::Agent(_) => true,
            Self::Bridge(bridged) => bridged.needs_frames(),
        }
    }

    /// The RTP clock of a payload type of sound that is accepted.
    fn clock(&self, plan: &LegPlan, payload_type: u8) -> Option<u32> {
        match self {
            Self::Agent(agent) => agent.hear.clock(payload_type),
            Self::Bridge(bridged) => bridged.clock(plan, payload_type),
        }
    }

    fn reset(&mut self, driver: &mut dyn Driver) {
        match self {
            Self::Agent(agent) => agent.reset(),
            Self::Bridge(bridged) => bridged.reset(driver),
        }
    }

    fn skip(&mut self, frames: u32) {
        match self {
            Self::Agent(agent) => agent.speak.skip(frames),
            Self::Bridge(bridged) => bridged.skip(frames),
        }
    }

    /// What decodes, where something does.
    fn hear(&self) -> Option<&super::transform::Hear> {
        match self {
            Self::Agent(agent) => Some(&agent.hear),
            Self::Bridge(bridged) => bridged.transcoder.as_ref().map(|it| &it.hear),
        }
    }
}

impl Flow {
    pub(crate) fn new(
        now: Instant,
        plan: LegPlan,
        with: Option<SessionId>,
        first_frame: Instant,
        random: &mut SeededRandom,
    ) -> Result<Self, PlanError> {
        Ok(Self {
            unprotect: Unprotect::new(&plan.protection)?,
            stream: Stream::new(&plan)?,
            rtcp_latch: plan.remote_rtcp.map(Latch::new),
            work: Work::new(&plan, with)?,
            received: Received::default(),
            timers: Timers::new(now, plan.inactive, random),
            next_frame: first_frame,
            position: 0,
            dropped: 0,
            past: (0, 0),
            plan,
        })
    }

    pub(crate) fn update(
        &mut self,
        now: Instant,
        plan: LegPlan,
        with: Option<SessionId>,
        playout: &mut Playout,
        driver: &mut dyn Driver,
    ) -> Result<(), PlanError> {
        self.unprotect.update(now, &plan.protection)?;
        self.stream.update(&plan)?;
        match (&mut self.rtcp_latch, plan.remote_rtcp) {
            (Some(latch), Some(told)) => latch.tell(told),
            (latch, told) => *latch = told.map(Latch::new),
        }
        self.timers.wait(now, plan.inactive);
        let takes = |plan: &LegPlan| (plan.send, plan.telephone_event);
        let takes_other = takes(&plan) != takes(&self.plan);
        // The identity is the first plan's for as long as the session lives.
        self.plan = LegPlan { source: self.plan.source.clone(), ..plan };
        let was_running = self.work.needs_frames();
        match (&mut self.work, &self.plan.purpose) {
            (Work::Agent(agent), Purpose::Agent { barge_in }) => {
                agent.barge_in = *barge_in;
                agent.update(&self.plan)?;
            }
            (Work::Bridge(bridged), Purpose::Bridge(bridge)) => {
                bridged.update(&self.plan, bridge.as_ref(), with)?;
                if takes_other {
                    bridged.cut_press();
                }
            }
            _ => {
                self.stop(playout, driver);
                self.past = self.concealment();
                self.stream.interrupt();
                self.work = Work::new(&self.plan, with)?;
            }
        }
        self.rouse(was_running, now);
        Ok(())
    }

    /// ICE says where we send from now on.
    pub(crate) fn pin(&mut self, route: Option<Route>) {
        self.stream.latch.pin(route);
    }

    /// ICE has no say any more.
    pub(crate) fn unpin(&mut self) {
        self.stream.latch = Latch::new(self.plan.remote);
    }

    /// Whether its clock of 20 ms runs.
    pub(crate) fn needs_frames(&self) -> bool {
        self.work.needs_frames()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let timer = self.timers.next();
        if self.needs_frames() { self.next_frame.min(timer) } else { timer }
    }

    /// Asks for memory that the next packet needs: one that arrives (`hears`), or one that another
    /// session hands over.
    pub(crate) fn prefetch(&self, hears: bool, depth: Depth) {
        if depth != Depth::State {
            return match hears {
                true => self.unprotect.prefetch(depth),
                false => self.stream.protect.prefetch(depth),
            };
        }
        prefetch(&self.stream);
        prefetch(&self.work);
        prefetch(&self.timers);
        prefetch(&self.plan.direction);
        if hears {
            prefetch(&self.received);
            prefetch(&self.unprotect);
        }
    }

    pub(crate) fn count_dropped(&mut self, reason: DropReason) {
        // What we chose not to hear says nothing of the way's quality.
        let chosen =
            matches!(reason, DropReason::Held | DropReason::Unbridged | DropReason::Superseded);
        self.dropped += u64::from(!chosen);
    }

    pub(crate) fn is_inactive(&mut self, now: Instant) -> bool {
        self.timers.is_inactive(now, self.plan.inactive)
    }

    pub(crate) fn on_rtp(
        &mut self,
        now: Instant,
        source: SocketAddr,
        datagram: &mut [u8],
        taps: &mut Taps,
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let believed = self.unprotect.rtp(now, source, datagram)?;
        let datagram = &mut datagram[..believed.length];
        let packet = Packet::parse(datagram).map_err(|_| DropReason::Malformed)?;
        let latch = &mut self.stream.latch;
        let latched = if believed.authentic {
            latch.authentic(source, believed.newest)
        } else {
            latch.plain(source, packet.sequence())
        };
        match latched {
            Latched::Stranger => return Err(DropReason::Stranger),
            Latched::Moved(moved) => {
                driver.connect(Port::Rtp, source);
                driver.event(MediaEvent::Latched { source, moved });
            }
            Latched::Same | Latched::Elsewhere => {}
        }
        driver.tally().count(Meter::Believed, 1);
        self.timers.heard(now);
        self.count_received(now, &packet, driver)?;
        if !self.plan.direction.receive {
            if let Work::Bridge(bridged) = &mut self.work {
                bridged.hold();
            }
            return Err(DropReason::Held);
        }
        match &mut self.work {
            Work::Agent(agent) => agent.receive(now, &packet, &mut |event| driver.event(event)),
            Work::Bridge(bridged) => {
                let was_running = bridged.needs_frames();
                taps.packet(now, &self.plan, &packet, driver.tally());
                let fixed = Fixed::of(&packet);
                let done = bridged.receive(now, &self.plan, fixed, datagram, driver);
                self.rouse(was_running, now);
                done
            }
        }
    }

    /// Keeps the receiver's statistics, and starts anew with another source.
    fn count_received(
        &mut self,
        now: Instant,
        packet: &Packet<'_>,
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let clock = self.work.clock(&self.plan, packet.payload_type());
        match self.received.source(now, packet.ssrc()) {
            Source::Superseded => return Err(DropReason::Superseded),
            Source::New => {
                // Whatever a source says first, its clock is that of its sound.
                let clock = clock.unwrap_or(self.plan.clock_rate());
                // RFC 3550 appendix A.1: an unproven source is trusted after two packets in order.
                let proven = matches!(self.plan.protection, Protection::Srtp { .. });
                let probation = if proven { 1 } else { 2 };
                let stats = ReceiveStats::new(packet.ssrc(), clock, probation);
                self.received.begin(now, stats);
                self.work.reset(driver);
            }
            Source::Present => {}
        }
        if let Some(stats) = &mut self.received.present {
            clock.into_iter().for_each(|clock| stats.set_clock_rate(clock));
            let (sequence, timestamp) = (packet.sequence(), packet.timestamp());
            let _ = stats.on_packet(now, sequence, timestamp, packet.payload().len());
        }
        Ok(())
    }

    pub(crate) fn on_rtcp(
        &mut self,
        now: Instant,
        wall: WallTime,
        port: Port,
        source: SocketAddr,
        datagram: &mut [u8],
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let Believed { length, newest, authentic } = self.unprotect.rtcp(now, source, datagram)?;
        let (bytes, sent) = (&datagram[..length], &mut self.stream.stats);
        control::read_report(now, wall, bytes, sent, &mut self.received)
            .map_err(|_| DropReason::Malformed)?;
        if let Some(remote) = self.stream.stats.remote() {
            match &mut self.work {
                Work::Agent(agent) => agent.speak.set_loss(remote.fraction_lost),
                Work::Bridge(bridged) => bridged.tell_loss(remote.fraction_lost, driver),
            }
        }
        if authentic {
            match (&mut self.rtcp_latch, port) {
                (Some(latch), _) => {
                    latch.authentic(source, newest);
                }
                // A peer that only listens is known by its reports.
                (None, Port::Rtp) if !self.stream.latch.is_latched() => {
                    if let Latched::Moved(moved) = self.stream.latch.authentic(source, newest) {
                        driver.connect(Port::Rtp, source);
                        driver.event(MediaEvent::Latched { source, moved });
                    }
                }
                (None, _) => {}
            }
        } else if let (Some(latch), Port::Rtcp) = (&mut self.rtcp_latch, port) {
            // Plain RTCP moves no more than itself: what it could prove, RTP proves better.
            latch.beside(&self.stream.latch, source);
        }
        self.timers.heard(now);
        Ok(())
    }

    /// What another session hands over.
    pub(crate) fn pass(
        &mut self,
        now: Instant,
        from: SessionId,
        parcel: &mut Parcel,
        driver: &mut dyn Driver,
    ) -> Result<(), DropReason> {
        let Work::Bridge(bridged) = &mut self.work else {
            return Err(DropReason::Unbridged);
        };
        if !bridged.hears(from) {
            return Err(DropReason::Unbridged);
        }
        let was_running = bridged.needs_frames();
        match parcel.passing.what {
            What::Loss(loss) => bridged.set_loss(loss),
            _ if !self.plan.direction.send => {
                self.stream.interrupt();
                return Err(DropReason::Held);
            }
            What::Press { digit, as_tone } => {
                bridged.press_down(&self.plan, digit, as_tone);
                self.rouse(was_running, now);
            }
            What::Release(duration) => bridged.let_go(duration),
            What::Packet(_) if bridged.is_pressing() => return Err(DropReason::Pressed),
            What::Packet(packet) => {
                let (buffer, length) = parcel.parts();
                self.stream.send(now, Some(from), &packet, buffer, length, driver)?;
            }
        }
        Ok(())
    }

    pub(crate) fn press(&mut self, now: Instant, digits: &str) -> bool {
        match &mut self.work {
            Work::Agent(agent) => agent.speak.press(digits),
            Work::Bridge(bridged) => {
                let was_running = bridged.needs_frames();
                let taken = bridged.press(&self.plan, digits);
                self.rouse(was_running, now);
                taken
            }
        }
    }

    /// The peer hears that somebody's telephone rings, or no longer.
    pub(crate) fn ring(&mut self, now: Instant, on: bool) {
        match &mut self.work {
            Work::Agent(agent) => agent.ring(on),
            Work::Bridge(bridged) => {
                let was_running = bridged.needs_frames();
                bridged.ring(&self.plan, on);
                self.rouse(was_running, now);
            }
        }
    }

    /// Cuts the agent's speech.
    pub(crate) fn stop(&mut self, playout: &mut Playout, driver: &mut dyn Driver) {
        let (position, told) = (self.position, StopCause::Told);
        let event = &mut |event| driver.event(event);
        match &mut self.work {
            Work::Agent(agent) => agent.stop(playout, position, told, event),
            Work::Bridge(_) => playout.stop(0, position, told, event),
        }
    }

    /// Runs the frames that are due.
    pub(crate) fn run_frames(
        &mut self,
        now: Instant,
        playout: &mut Playout,
        taps: &mut Taps,
        driver: &mut dyn Driver,
    ) {
        for _ in 0..CATCH_UP {
            if self.next_frame > now || !self.work.needs_frames() {
                return;
            }
            self.frame(now, playout, taps, driver);
            self.position += media::FRAME_SAMPLES as u64;
            self.next_frame += FRAME;
        }
        if self.next_frame <= now {
            let frames = self.skip(now);
            driver.tally().count(Meter::Skipped, u64::from(frames));
        }
    }

    fn frame(
        &mut self,
        now: Instant,
        playout: &mut Playout,
        taps: &mut Taps,
        driver: &mut dyn Driver,
    ) {
        let Self { stream, dropped, plan, position, work, .. } = self;
        match work {
            Work::Agent(agent) => {
                let frame = Frame { now, position: *position, plan, playout, taps };
                agent.frame(frame, &mut Outgoing { now, stream, dropped, driver });
            }
            Work::Bridge(bridged) => {
                bridged.transcode_frame(now, driver);
                let sends = plan.direction.send;
                bridged.press_frame(sends, &mut Outgoing { now, stream, dropped, driver });
            }
        }
    }

    /// Leaves out what a late worker has missed: old audio is dropped, never queued.
    fn skip(&mut self, now: Instant) -> u32 {
        let frames = now.since(self.next_frame).as_nanos() / FRAME.as_nanos() + 1;
        let frames = u32::try_from(frames).unwrap_or(u32::MAX);
        self.next_frame += FRAME * frames;
        self.position += u64::from(frames) * media::FRAME_SAMPLES as u64;
        self.work.skip(frames);
        frames
    }

    /// Sets the clock going again where there is work for it anew.
    fn rouse(&mut self, was_running: bool, now: Instant) {
        if !was_running && self.next_frame <= now && self.work.needs_frames() {
            self.skip(now);
        }
    }

    pub(crate) fn send_report(
        &mut self,
        now: Instant,
        wall: WallTime,
        has_rtcp_port: bool,
        goodbye: bool,
        driver: &mut dyn Driver,
    ) {
        let mut buffer = [0; SEND_BYTES];
        let (cname, sent) = (&self.plan.source.cname, &self.stream.stats);
        let out = &mut buffer[..limit::RTP_PACKET_BYTES.get()];
        let written =
            control::write_report(now, wall, cname, sent, &mut self.received, goodbye, out);
        let Ok(length) = written else {
            return driver.tally().drop(DropReason::Unprotected);
        };
        let own_port = self.rtcp_latch.is_some() && has_rtcp_port;
        let port = if own_port { Port::Rtcp } else { Port::Rtp };
        let Stream { protect, latch, .. } = &mut self.stream;
        if self.rtcp_latch.as_ref().is_some_and(|rtcp| rtcp.is_in_vain(latch)) {
            return driver.tally().drop(DropReason::Unlatched);
        }
        let latch = self.rtcp_latch.as_mut().unwrap_or(latch);
        let sent = protect
            .rtcp(&mut buffer, length)
            .and_then(|length| send::send(latch, port, &buffer[..length], driver));
        if let Err(reason) = sent {
            driver.tally().drop(reason);
        }
    }

    /// Packets that came too late and concealed frames, of all work so far.
    fn concealment(&self) -> (u64, u64) {
        let hear = self.work.hear();
        let late = hear.and_then(|it| it.buffer()).map_or(0, |buffer| buffer.stats().late);
        let concealed = hear.map_or(0, |hear| hear.concealed);
        (self.past.0 + late, self.past.1 + concealed)
    }

    /// What the codec that is heard costs, where that is known.
    fn impairment(&self) -> Option<Impairment> {
        let decoded = self.work.hear().and_then(|hear| hear.format());
        let heard = match &self.work {
            Work::Bridge(bridged) => bridged.heard(),
            Work::Agent(_) => None,
        };
        let Self { plan: LegPlan { accept, opaque, .. }, .. } = self;
        let known = accept.iter().find(|format| Some(format.payload_type) == heard);
        let passed = opaque.iter().find(|format| Some(format.receive) == heard);
        match decoded.as_ref().or(known) {
            Some(format) => Some(control::impairment(format.codec)),
            None if passed.is_some() || accept.is_empty() => {
                passed.or(opaque.first()).and_then(|it| control::opaque_impairment(it.codec.codec))
            }
            None => accept.first().map(|format| control::impairment(format.codec)),
        }
    }

    pub(crate) fn quality(&self) -> Quality {
        let hear = self.work.hear();
        let (late, concealed) = self.concealment();
        let heard = control::Heard {
            impairment: self.impairment(),
            late,
            dropped: self.dropped,
            delay: hear.and_then(|it| it.buffer()).map(|it| it.target()).unwrap_or_default(),
            concealed,
        };
        control::quality(&self.received, &self.stream.stats, &heard)
    }
}

/// The last stages, for what a frame sends.
struct Outgoing<'a> {
    now: Instant,
    stream: &'a mut Stream,
    dropped: &'a mut u64,
    driver: &'a mut dyn Driver,
}

impl Output for Outgoing<'_> {
    fn event(&mut self, event: MediaEvent) {
        self.driver.event(event);
    }

    fn packet(&mut self, packet: &Numbered, payload: &[u8]) {
        let mut buffer = [0; SEND_BYTES];
        let room = &mut buffer[HEADER_BYTES..limit::RTP_PACKET_BYTES.get()];
        let sent = match room.get_mut(..payload.len()) {
            Some(room) => {
                room.copy_from_slice(payload);
                let length = payload.len();
                self.stream.send(self.now, None, packet, &mut buffer, length, self.driver)
            }
            None => Err(DropReason::Unprotected),
        };
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
