//! The media of one call within a media thread: what each tick sends, and what becomes of what
//! arrives. Without I/O: the thread owns the sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audio::Codec;
use base::limit::{CALL_DTMF_DIGITS, RTP_PACKET_BYTES};
use base::{Instant, Random, WallTime};
use bytes::Bytes;
use rtp::{
    Compound, Datagram, Digit, DtmfEvent, DtmfReceiver, DtmfSender, Header, Packet, ReceiveStats,
    Report, Rtcp, SendStats, classify,
};
use sdp::TelephoneEvent;

use super::Port;
use super::attack::Attack;
use super::clip::Clip;
use super::histogram::Histogram;
use super::live::Live;
use super::stamp::{Mark, STAMP_AT, STAMP_BYTES, Seen, Stamp};
use crate::browser::Upkeep;
use crate::report::{CallReport, MediaTotals, Saturation, millis};
use crate::srtp::{Protect, Unprotect};
use crate::user_agent::{Agreed, Keys};

/// How long a key is pressed.
const PRESS: Duration = Duration::from_millis(120);
/// The mean time between two reports (RFC 3550 section 6.2).
const REPORT_INTERVAL_MS: u32 = 5_000;
/// A tick later than this is late: half of the usual packet time.
const BEHIND: Duration = Duration::from_millis(10);
/// RFC 5246 appendix A.1.
const DTLS_ALERT: u8 = 21;
/// Packets sent in one go after a pause; older ones are skipped, as a real sender's would be late.
const BURST: u32 = 3;

/// How media flows from now on.
pub(crate) struct Terms {
    /// As agreed.
    pub(crate) agreed: Box<Agreed>,
    /// What is said, in the codec and packet time agreed on; `None` where a script says it.
    pub(crate) clip: Option<Arc<Clip>>,
    /// Whether the clip begins anew when it is over.
    pub(crate) repeats: bool,
    /// Milliseconds of a packet.
    pub(crate) ptime_ms: u16,
    /// Milliseconds from one packet to the next, where that is more.
    pub(crate) every_ms: Option<u16>,
    /// When the first packet is sent; a stranger may be first.
    pub(crate) send_from: Instant,
    /// Of a browser.
    pub(crate) upkeep: Option<Box<Upkeep>>,
}

/// What a media thread counts over all its calls.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) ticks: u64,
    pub(crate) behind: u64,
    pub(crate) skipped: u64,
    pub(crate) worst: Duration,
    /// The way from one end to the other.
    pub(crate) delay: Histogram,
}

/// What one call's media amounted to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) totals: MediaTotals,
    pub(crate) codec: Option<&'static str>,
    pub(crate) suite: Option<&'static str>,
    pub(crate) jitter: Duration,
    pub(crate) round_trip: Option<Duration>,
    pub(crate) digits_heard: String,
    pub(crate) first_packet: Option<Instant>,
    /// The longest time without a packet while some were due.
    pub(crate) gap_max: Duration,
    /// What the stamps say, where the call has any.
    pub(crate) seen: Option<Seen>,
    /// Packets that came to strangers of the call.
    pub(crate) to_strangers: u64,
    /// Packets that strangers sent, and packets that were sent again.
    pub(crate) attacked: u64,
    /// Whether our clock kept up.
    pub(crate) saturation: Saturation,
    /// Of a caller with a script: steps begun, and those that went on because their time was over.
    pub(crate) steps_begun: u32,
    pub(crate) waits_timed_out: u32,
    /// When it first heard anything.
    pub(crate) first_sound: Option<Instant>,
    /// Where what it heard is, and why it is not, or not whole.
    pub(crate) saved: Option<PathBuf>,
    pub(crate) save_error: Option<String>,
}

impl Outcome {
    /// Fills in what was measured of a call answered at `answered`.
    pub(crate) fn report(&self, answered: Option<Instant>, report: &mut CallReport) {
        let since = |at: Option<Instant>| Some(millis(at?.since(answered?)));
        report.first_audio_ms = since(self.first_packet);
        report.first_sound_ms = since(self.first_sound);
        report.saturation.add(&self.saturation);
        (report.steps_begun, report.waits_timed_out) = (self.steps_begun, self.waits_timed_out);
        report.saved.clone_from(&self.saved);
        report.save_error.clone_from(&self.save_error);
        report.codec = self.codec.map(str::to_owned);
        report.suite = self.suite.map(str::to_owned);
        report.media = self.totals;
        let expected = self.totals.packets_received + self.totals.packets_lost;
        if expected > 0 {
            report.loss_percent = Some(self.totals.packets_lost as f64 * 100.0 / expected as f64);
            report.jitter_ms = Some(millis(self.jitter));
        }
        report.round_trip_ms = self.round_trip.map(millis);
        report.digits_heard.clone_from(&self.digits_heard);
    }
}

/// What a tick asks to send.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing {
    pub(crate) port: Port,
    pub(crate) to: SocketAddr,
}

/// See the module.
pub(crate) struct Session {
    mark: Option<Mark>,
    live: Option<Box<Live>>,
    flow: Option<Flow>,
    /// Whether the call is over, so that nothing more is sent or taken.
    is_over: bool,
    keys: Option<Keys>,
    protect: Option<Protect>,
    unprotect: Option<Unprotect>,
    ssrc: u32,
    sequence: u16,
    timestamp: u32,
    number: u32,
    is_start: bool,
    position: usize,
    sound: Option<(Arc<Clip>, usize)>,
    keypad: Option<DtmfSender>,
    hearing: Option<DtmfReceiver>,
    event: Option<TelephoneEvent>,
    sent: SendStats,
    received: Option<ReceiveStats>,
    /// The rate of the clock of the stream received.
    clock_rate: u32,
    last_packet: Option<Instant>,
    report_at: Instant,
    cname: String,
    pub(crate) next: Instant,
    pub(crate) attack: Option<Box<Attack>>,
    upkeep: Option<Box<Upkeep>>,
    outcome: Outcome,
    /// Of streams that ended.
    past: (u64, u64),
}

/// What was agreed on.
struct Flow {
    agreed: Box<Agreed>,
    clip: Option<Arc<Clip>>,
    repeats: bool,
    codec: Codec,
    payload_type: u8,
    /// From one packet to the next.
    ptime: Duration,
    step: u32,
    /// When a packet was last expected to follow the one before: reset by each change.
    is_listening: bool,
}

impl Session {
    /// Nothing flows yet. With `live` a script says what is said.
    pub(crate) fn new(
        now: Instant,
        mark: Option<Mark>,
        live: Option<Box<Live>>,
        random: &mut dyn Random,
    ) -> Self {
        let ssrc = random.u32();
        Self {
            mark,
            live,
            flow: None,
            is_over: false,
            keys: None,
            protect: None,
            unprotect: None,
            ssrc,
            // Below 2^15, so that the loss of the first packets cannot hide a roll-over
            // (RFC 3711 section 3.3.1).
            sequence: (random.u32() & 0x7fff) as u16,
            timestamp: random.u32(),
            number: 0,
            is_start: true,
            position: 0,
            sound: None,
            keypad: None,
            hearing: None,
            event: None,
            sent: SendStats::new(ssrc, 8_000),
            received: None,
            clock_rate: 0,
            last_packet: None,
            report_at: now + Duration::from_millis(u64::from(REPORT_INTERVAL_MS) / 2),
            cname: format!("{:08x}@load", random.u32()),
            next: now,
            attack: None,
            upkeep: None,
            outcome: Outcome { seen: mark.map(|_| Seen::default()), ..Outcome::default() },
            past: (0, 0),
        }
    }

    /// Flows as these terms say, from now on.
    pub(crate) fn flow(&mut self, now: Instant, terms: Terms) -> Result<(), &'static str> {
        let negotiated = &terms.agreed.negotiated;
        let first = negotiated.codecs.first().ok_or("media.no_common_codec")?;
        let codec = Codec::from_name(&first.name).ok_or("media.no_common_codec")?;
        if let Some(keys) = &terms.agreed.keys {
            if self.keys.as_ref().map(|it| &it.send) != Some(&keys.send) {
                self.protect = Some(Protect::new(&keys.send).map_err(|_| "media.bad_key")?);
            }
            if self.keys.as_ref().map(|it| &it.receive) != Some(&keys.receive) {
                self.unprotect = Some(Unprotect::new(keys.receive.clone()));
            }
        } else {
            (self.protect, self.unprotect) = (None, None);
        }
        self.keys.clone_from(&terms.agreed.keys);
        let event = negotiated.telephone_event;
        if event != self.event {
            self.keypad = event.map(|event| DtmfSender::new(event.clock_rate));
            self.hearing = event.map(|event| DtmfReceiver::new(event.clock_rate));
            self.event = event;
        }
        if let Some(live) = &mut self.live {
            live.flow(&negotiated.codecs, codec).ok_or("load.no_encoder")?;
        }
        if self.flow.is_none() {
            self.sent = SendStats::new(self.ssrc, codec.clock_rate());
            self.next = terms.send_from.max(now);
        } else {
            self.sent.set_clock_rate(codec.clock_rate());
        }
        self.outcome.codec = Some(codec.name());
        self.outcome.suite = terms.agreed.keys.as_ref().map(|it| it.send.suite().name());
        self.last_packet = None;
        self.upkeep = terms.upkeep;
        let every_ms = u32::from(terms.every_ms.unwrap_or(terms.ptime_ms));
        self.flow = Some(Flow {
            codec,
            payload_type: first.payload_type,
            ptime: Duration::from_millis(every_ms.into()),
            step: codec.timestamp_step(every_ms),
            is_listening: negotiated.direction.receives(),
            clip: terms.clip,
            repeats: terms.repeats,
            agreed: terms.agreed,
        });
        Ok(())
    }

    /// Presses these keys one after the other (RFC 4733).
    pub(crate) fn press(&mut self, digits: &str) {
        let Some(keypad) = &mut self.keypad else { return };
        for digit in digits.chars().filter_map(Digit::from_char) {
            self.outcome.totals.digits_sent += u64::from(keypad.send(digit, PRESS).is_ok());
        }
    }

    /// Says this once, instead of what is said otherwise.
    pub(crate) fn say(&mut self, clip: Arc<Clip>) {
        self.sound = Some((clip, 0));
    }

    /// When there is something to send, be it a bad actor's; `None` before anything was agreed on,
    /// and once the call is over.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let attack = self.attack.as_ref().map(|it| it.next);
        self.next_tick().map(|next| attack.map_or(next, |attack| attack.min(next)))
    }

    fn next_tick(&self) -> Option<Instant> {
        self.flow.as_ref().filter(|_| !self.is_over).map(|_| self.next)
    }

    /// Whether a tick is due so late that what waits in the sockets came before it. Only who
    /// listens needs to know.
    pub(crate) fn hears_late(&self, now: Instant) -> bool {
        self.live.is_some() && self.next_tick().is_some_and(|next| now.since(next) > BEHIND)
    }

    /// Whether a tick is due. Where the thread was so late that packets would come in bursts, lets
    /// the oldest pass.
    pub(crate) fn is_due(&mut self, now: Instant, totals: &mut Totals) -> bool {
        if self.next_tick().is_none_or(|next| next > now) {
            return false;
        }
        let Some(flow) = &self.flow else { return false };
        let late = now.since(self.next);
        let passed = late.as_nanos() / flow.ptime.as_nanos().max(1);
        let skipped = u32::try_from(passed).unwrap_or(u32::MAX).saturating_sub(BURST - 1);
        let more = u64::from(skipped);
        let own = &mut self.outcome.saturation;
        own.worst_ms = own.worst_ms.max(millis(late));
        totals.worst = totals.worst.max(late);
        for (ticks, behind, all) in [
            (&mut own.ticks, &mut own.behind, &mut own.skipped),
            (&mut totals.ticks, &mut totals.behind, &mut totals.skipped),
        ] {
            *ticks += 1 + more;
            *behind += u64::from(late > BEHIND) + more;
            *all += more;
        }
        if skipped > 0 {
            self.timestamp = self.timestamp.wrapping_add(flow.step.wrapping_mul(skipped));
            self.is_start = true;
            if let Some(live) = &mut self.live {
                live.skip(self.next, flow.ptime, skipped);
            }
            self.next += flow.ptime.saturating_mul(skipped);
        }
        true
    }

    /// Has a caller with a script go on with it.
    fn go_on(&mut self, now: Instant) {
        let Some(live) = &mut self.live else { return };
        let is_pressing = self.keypad.as_ref().is_some_and(DtmfSender::is_active);
        if let Some(digits) = live.tick(now, is_pressing) {
            self.press(&digits);
        }
    }

    /// Makes the packet of this tick in `out`; `None` where none is sent.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<u8>) -> Option<Outgoing> {
        self.go_on(now);
        let flow = self.flow.as_ref()?;
        self.next += flow.ptime;
        let timestamp = self.timestamp;
        self.timestamp = timestamp.wrapping_add(flow.step);
        let event = self.keypad.as_mut().and_then(|keypad| keypad.poll_packet(timestamp));
        let is_pressing = self.keypad.as_ref().is_some_and(DtmfSender::is_active);
        let position = self.position;
        self.position += 1;
        let packets = flow.clip.as_ref().map_or(0, |clip| clip.packets());
        if self.position >= packets && flow.repeats {
            self.position = 0;
        }
        let to = flow.agreed.negotiated.remote?;
        if !flow.agreed.negotiated.direction.sends() {
            self.is_start = true;
            return None;
        }
        let event_type = flow.agreed.negotiated.telephone_event.map(|it| it.payload_type);
        let sound = self.sound.as_mut().map(|(clip, at)| {
            *at += 1;
            (Arc::clone(clip), *at - 1)
        });
        let (marker, payload_type, timestamp, payload, is_audio) = match (&event, event_type) {
            (Some(event), Some(event_type)) => {
                self.is_start = true;
                (event.marker, event_type, event.timestamp, &event.payload[..], false)
            }
            // RFC 4733 section 2.5.1.2: between the packets of a press there is no audio.
            _ if is_pressing => return None,
            _ => {
                let payload = match (&self.live, &sound, &flow.clip) {
                    (Some(live), ..) => live.payload(),
                    (None, Some((clip, at)), _) if *at < clip.packets() => clip.packet(*at),
                    (None, _, Some(clip)) => clip.packet(position.min(packets.saturating_sub(1))),
                    (None, _, None) => &[],
                };
                if payload.is_empty() {
                    return None;
                }
                let marker = std::mem::replace(&mut self.is_start, false);
                (marker, flow.payload_type, timestamp, payload, sound.is_none())
            }
        };
        if sound.as_ref().is_some_and(|(clip, at)| *at >= clip.packets()) {
            self.sound = None;
        }
        let header =
            Header { marker, payload_type, sequence: self.sequence, timestamp, ssrc: self.ssrc };
        out.clear();
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(payload);
        if let (Some(mark), true) = (self.mark, is_audio && payload.len() >= STAMP_AT + STAMP_BYTES)
        {
            let at = out.len() - payload.len();
            Stamp { mark, number: self.number, sent: now }.write(&mut out[at..]);
            self.number = self.number.wrapping_add(1);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.sent.on_packet(now, timestamp, payload.len());
        if let Some(protect) = &mut self.protect {
            let sealed = protect.rtp(out).ok()?;
            out.clear();
            out.extend_from_slice(&sealed);
        }
        Some(Outgoing { port: Port::Rtp, to })
    }

    /// The report that is due, in `out`.
    pub(crate) fn poll_report(
        &mut self,
        now: Instant,
        wall: WallTime,
        is_last: bool,
        out: &mut Vec<u8>,
        random: &mut dyn Random,
    ) -> Option<Outgoing> {
        let flow = self.flow.as_ref().filter(|_| !self.is_over)?;
        if now < self.report_at && !is_last {
            return None;
        }
        let spread = REPORT_INTERVAL_MS / 2 + random.below(REPORT_INTERVAL_MS);
        self.report_at = now + Duration::from_millis(spread.into());
        let negotiated = &flow.agreed.negotiated;
        let (port, to) = match negotiated.rtcp_mux {
            true => (Port::Rtp, negotiated.remote?),
            false => (Port::Rtcp, negotiated.remote_rtcp?),
        };
        let block = self.received.as_mut().filter(|it| it.packets() > 0);
        let block = block.map(|stats| stats.report_block(now));
        let report = Report {
            ssrc: self.ssrc,
            sender: self.sent.sender_info(now, wall),
            blocks: block.as_slice(),
            cname: &self.cname,
            goodbye: is_last,
        };
        out.clear();
        out.resize(RTP_PACKET_BYTES.get(), 0);
        let length = report.write(out).ok()?;
        out.truncate(length);
        if let Some(protect) = &mut self.protect {
            let sealed = protect.rtcp(out).ok()?;
            out.clear();
            out.extend_from_slice(&sealed);
        }
        self.outcome.totals.rtcp_sent += 1;
        Some(Outgoing { port, to })
    }

    /// Takes a datagram that arrived.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        wall: WallTime,
        from: SocketAddr,
        datagram: &[u8],
        totals: &mut Totals,
    ) {
        if self.flow.is_none() || self.is_over {
            // Before there are keys nothing can be told of it, and afterwards nobody asks.
            return;
        }
        let is_taken = match classify(datagram) {
            Datagram::Rtp => self.receive_rtp(now, from, datagram, totals),
            Datagram::Rtcp => self.receive_rtcp(now, wall, from, datagram),
            other => self.receive_other(other, datagram),
        };
        if is_taken.is_none() {
            self.outcome.totals.packets_rejected += 1;
        }
    }

    /// Takes what came before there were keys.
    pub(crate) fn receive_early(&mut self, wall: WallTime, totals: &mut Totals) {
        let early = self.upkeep.as_mut().map(|it| std::mem::take(&mut it.early));
        for (at, from, datagram) in early.into_iter().flatten() {
            self.receive(at, wall, from, &datagram, totals);
        }
    }

    /// Answers to a browser's checks, and goodbyes.
    fn receive_other(&mut self, kind: Datagram, datagram: &[u8]) -> Option<()> {
        let upkeep = self.upkeep.as_mut()?;
        match (kind, datagram) {
            (Datagram::Stun, _) => {
                let checks = upkeep.checks.as_mut()?;
                checks.receive(datagram).then_some(())?;
            }
            // After the handshake an alert can only be the end (RFC 5246 section 7.2.1).
            (Datagram::Dtls, [DTLS_ALERT, ..]) => upkeep.left.notify_one(),
            // The last flight, again.
            (Datagram::Dtls, _) => {}
            _ => return None,
        }
        Some(())
    }

    /// The check of a browser's path that is due, in `out`.
    pub(crate) fn poll_check(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
        random: &mut dyn Random,
    ) -> Option<SocketAddr> {
        let to = self.flow.as_ref().filter(|_| !self.is_over)?.agreed.negotiated.remote?;
        let check = self.upkeep.as_mut()?.checks.as_mut()?.poll(now, random)?;
        out.clear();
        out.extend_from_slice(&check);
        Some(to)
    }

    fn receive_rtp(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        totals: &mut Totals,
    ) -> Option<()> {
        let flow = self.flow.as_ref()?;
        let opened;
        let bytes = match &mut self.unprotect {
            Some(unprotect) => {
                opened = unprotect.rtp(datagram).ok()?;
                &opened[..]
            }
            None => datagram.get(..).filter(|_| is_expected(flow, from))?,
        };
        let packet = Packet::parse(bytes).ok()?;
        let payload_type = packet.payload_type();
        let negotiated = &flow.agreed.negotiated;
        let event = negotiated.telephone_event.map(|it| it.receive_payload_type);
        let is_event = event == Some(payload_type);
        let known = |it: &&sdp::NegotiatedCodec| it.receive_payload_type == payload_type;
        let clock_rate = match (is_event, self.clock_rate) {
            (true, 0) => flow.codec.clock_rate(),
            (true, rate) => rate,
            (false, _) => {
                Codec::from_name(&negotiated.codecs.iter().find(known)?.name)?.clock_rate()
            }
        };
        let is_known = self.received.as_ref().is_some_and(|it| it.ssrc() == packet.ssrc());
        if !is_known || clock_rate != self.clock_rate {
            self.start_stream(packet.ssrc(), clock_rate);
        }
        let (sequence, timestamp, payload) =
            (packet.sequence(), packet.timestamp(), packet.payload());
        if let Some(stats) = &mut self.received {
            stats.on_packet(now, sequence, timestamp, payload.len());
        }
        if let Some(live) = &mut self.live {
            live.push(now, &packet);
        }
        totals.received += 1;
        let is_listening = self.flow.as_ref().is_some_and(|it| it.is_listening);
        if let (Some(last), true) = (self.last_packet, is_listening) {
            self.outcome.gap_max = self.outcome.gap_max.max(now.since(last));
        }
        self.last_packet = Some(now);
        self.outcome.first_packet.get_or_insert(now);
        if is_event {
            self.hear(now, timestamp, payload);
        } else if let (Some(mark), Some(seen)) = (self.mark, &mut self.outcome.seen)
            && let Some(way) = seen.take(now, mark, payload)
        {
            totals.delay.add(way);
        }
        Some(())
    }

    fn start_stream(&mut self, ssrc: u32, clock_rate: u32) {
        self.past = self.counts();
        // RFC 3550 appendix A.1: two packets in order prove a source that nothing else proves.
        let probation = if self.unprotect.is_some() { 1 } else { 2 };
        self.received = Some(ReceiveStats::new(ssrc, clock_rate, probation));
        self.clock_rate = clock_rate;
        // The release of a key that was down says nothing that is counted here.
        let _ = self.hearing.as_mut().map(DtmfReceiver::reset);
        if let Some(live) = &mut self.live {
            live.start_stream(clock_rate);
        }
    }

    fn hear(&mut self, now: Instant, timestamp: u32, payload: &[u8]) {
        let Some(hearing) = &mut self.hearing else { return };
        for event in hearing.handle_packet(now, timestamp, payload) {
            if let DtmfEvent::Started { digit } = event
                && self.outcome.digits_heard.len() < CALL_DTMF_DIGITS.get()
            {
                self.outcome.digits_heard.push(digit.to_char());
            }
        }
    }

    fn receive_rtcp(
        &mut self,
        now: Instant,
        wall: WallTime,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<()> {
        let flow = self.flow.as_ref()?;
        let opened: Bytes;
        let bytes = match &mut self.unprotect {
            Some(unprotect) => {
                opened = unprotect.rtcp(datagram).ok()?;
                &opened[..]
            }
            None => datagram.get(..).filter(|_| is_expected(flow, from))?,
        };
        let compound = Compound::parse(bytes).ok()?;
        self.outcome.totals.rtcp_received += 1;
        for packet in compound.packets() {
            if let Rtcp::Report { ssrc, sender, blocks } = packet {
                if let (Some(sender), Some(stats)) = (sender, &mut self.received)
                    && stats.ssrc() == ssrc
                {
                    stats.on_sender_report(now, &sender);
                }
                blocks.for_each(|block| self.sent.on_report_block(wall, &block));
            }
        }
        Some(())
    }

    fn counts(&self) -> (u64, u64) {
        let (packets, lost) = self.past;
        match &self.received {
            Some(stats) => (packets + stats.packets(), lost + stats.lost()),
            None => (packets, lost),
        }
    }

    /// The call is over: nothing more is sent or taken.
    pub(crate) const fn stop(&mut self) {
        self.is_over = true;
    }

    /// Takes note that a packet could not be sent.
    pub(crate) const fn note_unsent(&mut self) {
        self.outcome.totals.packets_unsent += 1;
    }

    /// Takes note that a packet came to a stranger's socket.
    pub(crate) fn note_stranger(&mut self) {
        self.outcome.to_strangers += 1;
    }

    /// Takes note of a packet that a bad actor sent.
    pub(crate) fn note_attack(&mut self) {
        self.outcome.attacked += 1;
    }

    /// Which call it is, to bad actors too.
    pub(crate) fn mark(&self) -> Mark {
        self.mark.unwrap_or(Mark { token: 0, role: super::stamp::Role::Stranger })
    }

    /// Where bad actors send: the address that our own packets go to, its payload type, and the
    /// SSRC and number that the last of ours had.
    pub(crate) fn aim(&self) -> Option<(SocketAddr, Header)> {
        let flow = self.flow.as_ref().filter(|_| !self.is_over)?;
        let header = Header {
            marker: false,
            payload_type: flow.payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        Some((flow.agreed.negotiated.remote?, header))
    }

    /// The call is over: what its media amounted to.
    pub(crate) fn finish(mut self) -> Outcome {
        let (packets, lost) = self.counts();
        let outcome = &mut self.outcome;
        outcome.totals.packets_sent = self.sent.packets();
        (outcome.totals.packets_received, outcome.totals.packets_lost) = (packets, lost);
        if let Some(stats) = &self.received {
            outcome.jitter = stats.jitter();
        }
        outcome.round_trip = self.sent.remote().and_then(|it| it.round_trip);
        if let Some(live) = self.live.take() {
            live.finish(outcome);
        }
        self.outcome
    }
}

/// Without SRTP the address is all that tells the far end.
fn is_expected(flow: &Flow, from: SocketAddr) -> bool {
    let negotiated = &flow.agreed.negotiated;
    let addresses = [negotiated.remote, negotiated.remote_rtcp];
    addresses.into_iter().flatten().any(|it| it.ip() == from.ip())
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
