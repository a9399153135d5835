//! One media thread: many calls, one epoll, one clock. It sleeps until a packet is due or has come;
//! where there are many it gathers them for half a millisecond, so that waking costs little.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::mem::MaybeUninit;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use base::limit::RTP_PACKET_BYTES;
use base::{Clock as _, Instant};
use rustix::event::{Timespec, epoll};
use rustix::thread::clock_nanosleep_relative;
use rustix::time::ClockId;
use tokio::sync::mpsc::Receiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::attack::By;
use super::session::{Session, Totals};
use super::{Command, Gauges, Opened, Port, SessionId};
use crate::os::{OsClock, OsRandom};

/// Descriptors reported by one wait.
const EVENTS: usize = 512;
/// The longest sleep: commands are looked at so often.
const LOOK: Duration = Duration::from_millis(2);
/// Sleep where there is much to do; one-way delays are no finer.
const GATHER: Duration = Duration::from_micros(500);
/// From so many packets per wake-up on, gathering pays.
const MANY: usize = 4;
/// Packets read from one socket at once; more wait for the next round.
const READS: usize = 16;
/// How often the gauges are brought up to date.
const SHOW: Duration = Duration::from_millis(100);

/// A call's place in the thread.
struct Place {
    session: Session,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// Tells a timer of this call from one of an earlier call in the same place.
    round: u32,
}

/// See the module.
pub(super) struct MediaThread {
    poll: OwnedFd,
    commands: Receiver<Command>,
    gauges: Arc<Gauges>,
    places: Vec<Option<Place>>,
    free: Vec<usize>,
    by_id: BTreeMap<SessionId, usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u32)>>,
    totals: Totals,
    round: u32,
    out: Vec<u8>,
    buffer: Vec<u8>,
    shown_at: Instant,
    is_over: bool,
}

impl MediaThread {
    pub(super) fn new(
        commands: Receiver<Command>,
        gauges: Arc<Gauges>,
    ) -> Result<Self, rustix::io::Errno> {
        Ok(Self {
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            commands,
            gauges,
            places: Vec::new(),
            free: Vec::new(),
            by_id: BTreeMap::new(),
            timers: BinaryHeap::new(),
            totals: Totals::default(),
            round: 0,
            out: Vec::with_capacity(RTP_PACKET_BYTES.get()),
            buffer: vec![0; RTP_PACKET_BYTES.get()],
            shown_at: Instant::ZERO,
            is_over: false,
        })
    }

    /// Runs until its owner is gone; gives back what was counted.
    pub(super) fn run(mut self) -> Totals {
        // Sleep as finely as asked; the default slack of 50 us would add to each gathering.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1_000));
        let mut done = 0;
        while !self.is_over {
            self.obey();
            let sent = self.send_due();
            let most = if done + sent >= MANY { GATHER } else { self.rest() };
            done = self.receive(most, done + sent >= MANY) + sent;
            let now = OsClock.now();
            if now.since(self.shown_at) >= SHOW {
                self.show(now);
            }
        }
        self.show(OsClock.now());
        self.totals
    }

    /// How long nothing is due.
    fn rest(&self) -> Duration {
        let now = OsClock.now();
        match self.timers.peek() {
            Some(Reverse((at, ..))) => at.since(now).min(LOOK),
            None => LOOK,
        }
    }

    fn obey(&mut self) {
        loop {
            match self.commands.try_recv() {
                Ok(command) => self.run_command(command),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }

    fn run_command(&mut self, command: Command) {
        let now = OsClock.now();
        match command {
            Command::Open(opened) => self.open(now, *opened),
            Command::Flow { id, terms } => {
                let Some(place) = self.place(id) else { return };
                if place.session.flow(now, *terms).is_err() {
                    return;
                }
                let at = self.by_id.get(&id).copied().unwrap_or(usize::MAX);
                if let Some(Some(place)) = self.places.get_mut(at) {
                    place.session.receive_early(OsClock.wall(), &mut self.totals);
                }
                self.arm(id);
            }
            Command::Press { id, digits } => {
                if let Some(place) = self.place(id) {
                    place.session.press(&digits);
                }
            }
            Command::Say { id, clip } => {
                if let Some(place) = self.place(id) {
                    place.session.say(clip);
                }
            }
            Command::Attack { id, attack } => {
                let data = self.by_id.get(&id).map(|at| *at as u64 * 4 + 2);
                if let Some(data) = data {
                    // Without it only strangers' packets are not counted, which the report shows.
                    let data = epoll::EventData::new_u64(data);
                    let _ = epoll::add(&self.poll, &attack.socket, data, epoll::EventFlags::IN);
                }
                if let Some(place) = self.place(id) {
                    place.session.attack = Some(attack);
                    self.arm(id);
                }
            }
            Command::Release { id } => self.release(now, id),
            Command::Close { id, done } => {
                if let (Some(outcome), Some(done)) = (self.close(now, id), done) {
                    // Nobody waits for it any more where the load was given up.
                    let _ = done.send(outcome);
                }
            }
            Command::Stop => self.is_over = true,
        }
    }

    fn place(&mut self, id: SessionId) -> Option<&mut Place> {
        let at = *self.by_id.get(&id)?;
        self.places.get_mut(at)?.as_mut()
    }

    fn open(&mut self, now: Instant, opened: Opened) {
        let at = self.free.pop().unwrap_or(self.places.len());
        if at == self.places.len() {
            self.places.push(None);
        }
        self.round = self.round.wrapping_add(1);
        for (offset, socket) in [(0, &opened.rtp), (1, &opened.rtcp)] {
            let data = epoll::EventData::new_u64(at as u64 * 4 + offset);
            // Fails where descriptors run out; the call then hears nothing, and says so.
            let _ = epoll::add(&self.poll, socket, data, epoll::EventFlags::IN);
        }
        let session = Session::new(now, opened.mark, opened.live, &mut OsRandom);
        let place = Place { session, rtp: opened.rtp, rtcp: opened.rtcp, round: self.round };
        self.places[at] = Some(place);
        self.by_id.insert(opened.id, at);
    }

    fn release(&mut self, now: Instant, id: SessionId) {
        let Some(at) = self.by_id.get(&id) else { return };
        let Some(Some(place)) = self.places.get_mut(*at) else { return };
        let wall = OsClock.wall();
        let report = place.session.poll_report(now, wall, true, &mut self.out, &mut OsRandom);
        if let Some(outgoing) = report {
            let socket = if outgoing.port == Port::Rtp { &place.rtp } else { &place.rtcp };
            // The far end may have closed its port already.
            let _ = socket.send_to(&self.out, outgoing.to);
        }
        place.session.stop();
    }

    fn close(&mut self, now: Instant, id: SessionId) -> Option<Box<super::Outcome>> {
        self.release(now, id);
        let at = self.by_id.remove(&id)?;
        let place = self.places.get_mut(at)?.take()?;
        self.free.push(at);
        Some(Box::new(place.session.finish()))
    }

    /// Sets the timer of a call.
    fn arm(&mut self, id: SessionId) {
        let Some(at) = self.by_id.get(&id).copied() else { return };
        let Some(Some(place)) = self.places.get_mut(at) else { return };
        self.round = self.round.wrapping_add(1);
        place.round = self.round;
        if let Some(next) = place.session.poll_timeout() {
            self.timers.push(Reverse((next, at, place.round)));
        }
    }

    fn send_due(&mut self) -> usize {
        let mut sent = 0;
        loop {
            let now = OsClock.now();
            let Some(Reverse((due, at, round))) = self.timers.peek().copied() else { break };
            if due > now {
                break;
            }
            self.timers.pop();
            let Some(Some(place)) = self.places.get_mut(at) else { continue };
            if place.round != round {
                continue;
            }
            sent += place.send(now, &mut self.out, &mut self.buffer, &mut self.totals);
            if let Some(next) = place.session.poll_timeout() {
                self.timers.push(Reverse((next, at, round)));
            }
        }
        sent
    }

    fn receive(&mut self, most: Duration, is_gathering: bool) -> usize {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let wait = if is_gathering {
            let _ = clock_nanosleep_relative(ClockId::Monotonic, &timespec(most));
            Duration::ZERO
        } else {
            most
        };
        let found = epoll::wait(&self.poll, &mut events[..], Some(&timespec(wait)));
        // An interrupted wait is an empty one.
        let found = found.map_or(&mut [][..], |it| it.0);
        let mut received = 0;
        for event in found {
            let data = event.data.u64();
            let Ok(at) = usize::try_from(data / 4) else { continue };
            let Some(Some(place)) = self.places.get_mut(at) else { continue };
            received += place.receive(data % 4, &mut self.buffer, &mut self.totals);
        }
        received
    }

    fn show(&mut self, now: Instant) {
        self.shown_at = now;
        let (gauges, totals) = (&self.gauges, &self.totals);
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        gauges.sent.store(totals.sent, Relaxed);
        gauges.received.store(totals.received, Relaxed);
        gauges.ticks.store(totals.ticks, Relaxed);
        gauges.behind.store(totals.behind, Relaxed);
        gauges.skipped.store(totals.skipped, Relaxed);
        gauges.worst_us.store(micros(totals.worst), Relaxed);
        gauges.cpu_us.store(micros(crate::os::thread_time()), Relaxed);
        gauges.sessions.store(self.by_id.len() as u64, Relaxed);
    }
}

impl Place {
    /// Sends what is due; returns how many packets.
    fn send(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        buffer: &mut [u8],
        totals: &mut Totals,
    ) -> usize {
        if self.session.hears_late(now) {
            // What waits in the socket came in time; it was us who were late.
            self.receive(0, buffer, totals);
        }
        let mut sent = 0;
        while self.session.is_due(now, totals) {
            if let Some(outgoing) = self.session.tick(now, out) {
                sent += 1;
                totals.sent += 1;
                if self.rtp.send_to(out, outgoing.to).is_err() {
                    self.session.note_unsent();
                }
                if let Some(attack) = &mut self.session.attack {
                    attack.overhear(out);
                }
            }
        }
        let wall = OsClock.wall();
        if let Some(outgoing) = self.session.poll_report(now, wall, false, out, &mut OsRandom) {
            let socket = if outgoing.port == Port::Rtp { &self.rtp } else { &self.rtcp };
            if socket.send_to(out, outgoing.to).is_err() {
                self.session.note_unsent();
            }
        }
        if let Some(to) = self.session.poll_check(now, out, &mut OsRandom)
            && self.rtp.send_to(out, to).is_err()
        {
            self.session.note_unsent();
        }
        sent + self.attack(now, out)
    }

    fn attack(&mut self, now: Instant, out: &mut Vec<u8>) -> usize {
        let (aim, mark) = (self.session.aim(), self.session.mark());
        let Some(attack) = &mut self.session.attack else { return 0 };
        let Some((to, header)) = aim else {
            attack.pause(now);
            return 0;
        };
        let Some(by) = attack.poll(now, mark, header, out) else { return 0 };
        let socket = match by {
            By::Stranger => &attack.socket,
            By::Caller => &self.rtp,
        };
        // What the network does not take harms nobody.
        let is_sent = socket.send_to(out, to).is_ok();
        if is_sent {
            self.session.note_attack();
        }
        usize::from(is_sent)
    }

    /// Reads what has come to one of the sockets; returns how many packets.
    fn receive(&mut self, which: u64, buffer: &mut [u8], totals: &mut Totals) -> usize {
        for count in 0..READS {
            let socket = match (which, &self.session.attack) {
                (0, _) => &self.rtp,
                (1, _) => &self.rtcp,
                (_, Some(attack)) => &attack.socket,
                (_, None) => return count,
            };
            let Ok((length, from)) = socket.recv_from(buffer) else { return count };
            if which == 2 {
                self.session.note_stranger();
                continue;
            }
            let (now, wall) = (OsClock.now(), OsClock.wall());
            self.session.receive(now, wall, from, &buffer[..length], totals);
        }
        READS
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}
