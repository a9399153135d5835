//! RTP in and out of a relay, paced evenly, by one thread that shows how much of its core it used.
//!
//! Every stream sends one packet each 20 ms (or what the load says) to an address of the relay, in
//! a phase of its own, and expects the same packets from another address of the relay. What comes
//! out is matched by RTP sequence number, with whatever constant offset the relay puts on it, so
//! that SRTP, re-originated RTP and transcoded audio are measured alike.
//!
//! All streams share a few sockets: the relay sees many destinations of its own behind one peer
//! address, and the generator needs one receive queue only. It sleeps between quanta of 50 us, so
//! its CPU time is what it needs; where the system permits it, it runs before everything else on
//! its core. Packets that are costly to make can be made before a run.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, sockopt};
use rustix::thread::clock_nanosleep_relative;
use rustix::time::{ClockId, Timespec};

use super::cpu;

/// How often the generator looks at its sockets; latencies are no finer.
const QUANTUM: Duration = Duration::from_micros(50);
/// Sent packets whose times are kept for each stream: at 20 ms more than two and a half seconds.
const REMEMBERED: u16 = 128;
/// The first packet that comes out of a relay that keeps the numbers is one of so many newest ones;
/// few, so that hardly any random number of a relay that makes its own looks like one of them.
const RECENT: u16 = 4;
/// A packet sent this long after it was due is late; the relay then sees bursts that no load is.
const LATE: Duration = Duration::from_millis(1);
/// Packets of each stream that are sent after the measured part.
const TAIL: u32 = 3;
/// Largest packet.
const PACKET_BYTES: usize = 1_500;

/// One direction of one call, from the generator's point of view.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Which of the generator's sockets sends it.
    pub socket: usize,
    /// Where to: the relay's address on the sending leg.
    pub to: SocketAddr,
    /// Where its packets come back from: the relay's address on the other leg. Must differ from
    /// that of every other stream.
    pub back: SocketAddr,
    /// Payload type.
    pub payload_type: u8,
    /// Payload bytes.
    pub payload: usize,
    /// RTP clock ticks of one packet.
    pub ticks: u32,
}

impl Stream {
    /// G.711 u-law, 20 ms.
    #[must_use]
    pub const fn pcmu(socket: usize, to: SocketAddr, back: SocketAddr) -> Self {
        Self { socket, to, back, payload_type: 0, payload: 160, ticks: 160 }
    }
}

/// What one run does.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Time between two packets of a stream.
    pub every: Duration,
    /// At the beginning, not measured: latching, caches, the relay's own adaptation.
    pub warm_up: Duration,
    /// Measured.
    pub measured: Duration,
    /// At the end: at most this long for what is still on its way.
    pub settle: Duration,
}

impl Load {
    /// Packets each 20 ms, measured for so long after a second of warm-up.
    #[must_use]
    pub const fn for_seconds(seconds: u64) -> Self {
        Self {
            every: Duration::from_millis(20),
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(seconds),
            settle: Duration::from_millis(300),
        }
    }
}

/// What one run saw, in its measured part.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Packets that the load asks for.
    pub wanted: u64,
    /// Packets sent; fewer than wanted means that the generator could not keep up.
    pub sent: u64,
    /// Of those sent, how many came out before the end of the settling.
    pub received: u64,
    /// Packets that came out and match nothing that was sent.
    pub strange: u64,
    /// Packets sent more than a millisecond after they were due.
    pub late: u64,
    /// CPU time of the generator.
    pub own_cpu: Duration,
    /// CPU time of what is measured.
    pub cpu: Duration,
    /// How long the measured part took.
    pub wall: Duration,
    /// From send call to when the generator saw it, ascending, in microseconds.
    latencies: Vec<u32>,
}

impl Seen {
    /// CPU time of what is measured, in microseconds per packet that came out.
    #[must_use]
    pub fn cpu_per_packet(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.received.max(1) as f64
    }

    /// Share of what was sent that never came out, 0 to 1.
    #[must_use]
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }

    /// The share of its core that the generator used, 0 to 1.
    #[must_use]
    pub fn own_share(&self) -> f64 {
        self.own_cpu.as_secs_f64() / self.wall.as_secs_f64().max(1e-9)
    }

    /// Whether the generator did what the load asks: all sent, at most 1 % of it late, and a tenth
    /// of its core left. Where not, the run says nothing about the relay.
    #[must_use]
    pub fn has_headroom(&self) -> bool {
        self.sent >= self.wanted && self.late * 100 <= self.sent && self.own_share() < 0.9
    }

    /// The latency that this share (0 to 1) of the packets did not exceed.
    #[must_use]
    pub fn latency(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * share).ceil() as usize;
        Duration::from_micros(u64::from(self.latencies.get(at).copied().unwrap_or(0)))
    }
}

/// Protects a packet before it is sent: the stream's number, a buffer, and the packet's length in
/// it; returns the new length.
pub type Protect<'a> = &'a mut dyn FnMut(usize, &mut [u8], usize) -> usize;

/// Sockets, streams and what is known of each.
pub struct Generator {
    sockets: Vec<UdpSocket>,
    streams: Vec<State>,
    /// How many of the streams a run uses.
    used: usize,
    /// How many of the sockets are read.
    heard: usize,
    by_source: HashMap<SocketAddr, usize>,
    clock: Instant,
}

struct State {
    stream: Stream,
    /// Of the next packet to be sent.
    sequence: u16,
    /// Of the next packet to be made.
    timestamp: u32,
    prepared: Prepared,
    /// What to take off a received sequence number to have ours; learnt from the first packet.
    offset: Option<u16>,
    /// When, in microseconds of the run, and whether in the measured part; by sequence number.
    sent: [Option<(u32, bool)>; REMEMBERED as usize],
}

/// Packets that are made and not sent, each behind its length.
#[derive(Default)]
struct Prepared {
    bytes: Vec<u8>,
    /// Where the next one is.
    at: usize,
    count: u16,
}

impl Prepared {
    fn push(&mut self, packet: &[u8]) {
        if self.count == 0 {
            self.at = 0;
            self.bytes.clear();
        }
        self.bytes.extend_from_slice(&(packet.len() as u16).to_be_bytes());
        self.bytes.extend_from_slice(packet);
        self.count += 1;
    }

    fn pop(&mut self) -> Option<&[u8]> {
        self.count = self.count.checked_sub(1)?;
        let (length, rest) = self.bytes.get(self.at..)?.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        self.at += 2 + length;
        rest.get(..length)
    }

    /// Takes the place of those that were sent.
    fn tidy(&mut self) {
        self.bytes.drain(..self.at.min(self.bytes.len()));
        self.at = 0;
    }
}

impl State {
    /// Makes the next packet in a buffer; its length.
    fn make(
        &mut self,
        index: usize,
        packet: &mut [u8; PACKET_BYTES],
        protect: &mut Option<Protect<'_>>,
    ) -> usize {
        let sequence = self.sequence.wrapping_add(self.prepared.count);
        packet[0] = 0x80;
        packet[1] = self.stream.payload_type;
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        packet[8..12].copy_from_slice(&(index as u32 + 0x1000).to_be_bytes());
        self.timestamp = self.timestamp.wrapping_add(self.stream.ticks);
        let length = 12 + self.stream.payload.min(PACKET_BYTES - 12);
        match protect {
            Some(protect) => protect(index, packet, length).min(PACKET_BYTES),
            None => length,
        }
    }
}

impl Generator {
    /// Takes bound sockets (say, one for callers and one for callees) and the streams between.
    ///
    /// # Errors
    /// Where a socket refuses to be non-blocking, or two streams come back from one address.
    pub fn new(sockets: Vec<UdpSocket>, streams: &[Stream]) -> io::Result<Self> {
        for socket in &sockets {
            socket.set_nonblocking(true)?;
            // As much as the system allows: what waits here is the generator's, not the relay's.
            let _ = sockopt::set_socket_recv_buffer_size(socket, 4 << 20);
            let _ = sockopt::set_socket_send_buffer_size(socket, 4 << 20);
        }
        let by_source: HashMap<_, _> =
            streams.iter().enumerate().map(|(index, stream)| (stream.back, index)).collect();
        if by_source.len() != streams.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let streams = streams.iter().enumerate().map(|(index, stream)| State {
            stream: *stream,
            // Far from a wrap within one bench, and different, so that a mix-up shows.
            sequence: (index as u16).wrapping_mul(97) & 0x3fff,
            timestamp: 0,
            prepared: Prepared::default(),
            offset: None,
            sent: [None; REMEMBERED as usize],
        });
        let streams: Vec<State> = streams.collect();
        let (used, heard) = (streams.len(), sockets.len());
        Ok(Self { sockets, streams, used, heard, by_source, clock: Instant::now() })
    }

    /// Runs use the first so many streams from now on.
    pub fn use_streams(&mut self, count: usize) {
        self.used = count.min(self.streams.len());
    }

    /// Reads the first so many sockets only. Streams of the others are sent and not counted: a
    /// sample of a load that is too much to be heard whole.
    pub fn hear(&mut self, sockets: usize) {
        self.heard = sockets.min(self.sockets.len());
    }

    /// Begins anew after a pause: forgets what is still on its way, and how the relay numbers
    /// packets, since it may have sent some of its own.
    pub fn forget(&mut self) {
        for socket in &self.sockets[..self.heard] {
            let mut packet = [0; PACKET_BYTES];
            while rustix::net::recv(socket, &mut packet[..], RecvFlags::DONTWAIT).is_ok() {}
        }
        for state in &mut self.streams {
            state.offset = None;
            state.sent.fill(None);
        }
    }

    /// Makes the packets of a run beforehand.
    pub fn prepare(&mut self, load: &Load, protect: Protect<'_>) {
        let all = load.warm_up + load.measured + load.every * (TAIL + 2);
        let count = all.as_nanos().div_ceil(load.every.as_nanos().max(1));
        let count = u16::try_from(count).unwrap_or(u16::MAX);
        let mut protect = Some(protect);
        for (index, state) in self.streams[..self.used].iter_mut().enumerate() {
            state.prepared.tidy();
            while state.prepared.count < count {
                let mut packet = [0x55; PACKET_BYTES];
                let length = state.make(index, &mut packet, &mut protect);
                state.prepared.push(&packet[..length]);
            }
        }
    }

    /// Sends a datagram by one of the sockets that is no part of any stream.
    ///
    /// # Errors
    /// Where there is no such socket, or it fails.
    pub fn send_now(&self, socket: usize, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let socket = self.sockets.get(socket).ok_or(io::ErrorKind::InvalidInput)?;
        rustix::net::sendto(socket, datagram, SendFlags::empty(), &to)?;
        Ok(())
    }

    /// Runs a load. `tested` reads the CPU time of what is measured (see [`cpu`]); it is asked at
    /// both ends of the measured part.
    ///
    /// # Errors
    /// Where a socket fails, or `tested` does.
    pub fn run(
        &mut self,
        load: &Load,
        tested: &mut dyn FnMut() -> io::Result<Duration>,
        mut protect: Option<Protect<'_>>,
    ) -> io::Result<Seen> {
        // Fine sleeping: the default slack of 50 us would double the quantum.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let _urgent = cpu::Urgent::begin();
        self.clock = Instant::now();
        let mut seen = Seen::default();
        let most = load.measured.as_nanos() / load.every.as_nanos().max(1) + 1;
        seen.latencies.reserve_exact(usize::try_from(most).unwrap_or(0) * self.used);
        let gap = load.every / u32::try_from(self.used.max(1)).unwrap_or(u32::MAX);
        let (from, to) = (load.warm_up, load.warm_up + load.measured);
        let (mut due, mut next) = (Duration::ZERO, 0);
        let mut marks: Option<(Duration, Duration, Duration)> = None;
        loop {
            let now = self.clock.elapsed();
            if now >= from && marks.is_none() {
                marks = Some((tested()?, cpu::own_thread(), now));
                // Until here it was learnt how the relay numbers packets.
                seen.strange = 0;
            }
            while due <= now && due < to {
                let is_heard =
                    self.streams.get(next).is_some_and(|it| it.stream.socket < self.heard);
                let is_measured = due >= from && is_heard;
                let sent = self.send(next, is_measured, &mut protect)?;
                if is_measured {
                    seen.wanted += 1;
                    seen.sent += u64::from(sent);
                    seen.late += u64::from(self.clock.elapsed() > due + LATE);
                }
                due += gap;
                next = (next + 1) % self.used.max(1);
            }
            if now >= to {
                break;
            }
            self.receive(&mut seen)?;
            nap(QUANTUM);
        }
        if let Some((cpu, own, began)) = marks {
            seen.cpu = tested()?.saturating_sub(cpu);
            seen.own_cpu = cpu::own_thread().saturating_sub(own);
            seen.wall = self.clock.elapsed().saturating_sub(began);
        }
        // Goes on for some packets: one that transcodes gives a packet out once the next has come.
        let tail = to + load.every * TAIL;
        loop {
            let now = self.clock.elapsed();
            while due <= now && due < tail {
                self.send(next, false, &mut protect)?;
                due += gap;
                next = (next + 1) % self.used.max(1);
            }
            let is_complete = seen.received >= seen.sent && now >= tail;
            if is_complete || now >= to + load.settle {
                break;
            }
            self.receive(&mut seen)?;
            nap(QUANTUM);
        }
        seen.latencies.sort_unstable();
        Ok(seen)
    }

    /// Sends the next packet of a stream; `false` where the system had no room for it.
    fn send(
        &mut self,
        index: usize,
        is_measured: bool,
        protect: &mut Option<Protect<'_>>,
    ) -> io::Result<bool> {
        let Some(state) = self.streams.get_mut(index) else { return Ok(true) };
        let stream = state.stream;
        let mut packet = [0x55; PACKET_BYTES];
        if state.prepared.count == 0 {
            let length = state.make(index, &mut packet, protect);
            state.prepared.push(&packet[..length]);
        }
        let now = u32::try_from(self.clock.elapsed().as_micros()).unwrap_or(u32::MAX);
        state.sent[usize::from(state.sequence % REMEMBERED)] = Some((now, is_measured));
        state.sequence = state.sequence.wrapping_add(1);
        let packet = state.prepared.pop().ok_or(io::ErrorKind::InvalidData)?;
        let socket = self.sockets.get(stream.socket).ok_or(io::ErrorKind::InvalidInput)?;
        match rustix::net::sendto(socket, packet, SendFlags::DONTWAIT, &stream.to) {
            Ok(_) => Ok(true),
            // The relay's port may be gone, or a queue full: both are what a run should show.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::CONNREFUSED) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self, seen: &mut Seen) -> io::Result<()> {
        let mut packet = [0; PACKET_BYTES];
        for at in 0..self.heard {
            loop {
                let got =
                    rustix::net::recvfrom(&self.sockets[at], &mut packet[..], RecvFlags::DONTWAIT);
                let (length, source) = match got {
                    Ok((length, _, source)) => (length, source),
                    Err(Errno::AGAIN) => break,
                    // About an earlier packet of ours.
                    Err(Errno::CONNREFUSED | Errno::INTR) => continue,
                    Err(error) => return Err(error.into()),
                };
                let source = source.and_then(|it| SocketAddr::try_from(it).ok());
                let is_rtp =
                    length >= 12 && packet[0] >> 6 == 2 && !(64..96).contains(&(packet[1] & 0x7f));
                if is_rtp {
                    let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                    let index = source.and_then(|it| self.by_source.get(&it).copied());
                    self.match_up(index, sequence, seen);
                }
            }
        }
        Ok(())
    }

    /// Finds when a received packet was sent.
    fn match_up(&mut self, index: Option<usize>, sequence: u16, seen: &mut Seen) {
        let now = u32::try_from(self.clock.elapsed().as_micros()).unwrap_or(u32::MAX);
        let Some(state) = index.and_then(|it| self.streams.get_mut(it)) else {
            seen.strange += 1;
            return;
        };
        let newest = state.sequence.wrapping_sub(1);
        let offset = state.offset.get_or_insert_with(|| {
            // A relay that keeps the numbers shows it; of others the first packet that comes out
            // is thought to be the newest that went in.
            let is_kept = newest.wrapping_sub(sequence) < RECENT;
            if is_kept { 0 } else { sequence.wrapping_sub(newest) }
        });
        // Nothing comes out before it went in: that first packet was an older one.
        let ahead = sequence.wrapping_sub(*offset).wrapping_sub(newest);
        if (1..REMEMBERED).contains(&ahead) {
            *offset = offset.wrapping_add(ahead);
        }
        let sequence = sequence.wrapping_sub(*offset);
        let slot = usize::from(sequence % REMEMBERED);
        let is_known = newest.wrapping_sub(sequence) < REMEMBERED;
        match state.sent[slot].take().filter(|_| is_known) {
            Some((sent, true)) => {
                seen.received += 1;
                seen.latencies.push(now.saturating_sub(sent));
            }
            Some((_, false)) => {}
            None => seen.strange += 1,
        }
    }
}

fn nap(time: Duration) {
    let request = Timespec { tv_sec: 0, tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = clock_nanosleep_relative(ClockId::Monotonic, &request);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_first_is_sent_first() {
        let mut prepared = Prepared::default();
        for round in 0..3u8 {
            prepared.push(&[round; 20]);
            prepared.push(&[round + 100; 7]);
            assert_eq!(prepared.pop(), Some(&[round; 20][..]));
            prepared.tidy();
            assert_eq!(prepared.pop(), Some(&[round + 100; 7][..]));
            assert_eq!(prepared.pop(), None);
        }
    }

    #[test]
    fn what_does_not_come_back_is_loss_and_not_latency() {
        let seen =
            Seen { wanted: 10, sent: 10, received: 9, latencies: vec![7; 9], ..Seen::default() };
        assert!((seen.loss() - 0.1).abs() < 1e-9);
        assert_eq!(seen.latency(0.99), Duration::from_micros(7));
        assert!(seen.has_headroom());
        assert!(!Seen { sent: 9, ..seen }.has_headroom());
    }
}
