//! The media of one call, without I/O: what a tick sends, what arrived, what is heard.
//!
//! [`Sender`](send::Sender) and [`Receiver`](receive::Receiver) are the two ways; this module
//! holds what they share: keys, addresses, RTCP and the counts.

mod receive;
mod send;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use base::limit::RTP_PACKET_BYTES;
use base::{Instant, Random, WallTime};
use bytes::Bytes;
use rtp::{Compound, Datagram, Digit, Report, Rtcp, classify};
use sdp::{Direction, NegotiatedCodec};

use self::receive::Receiver;
use self::send::Sender;
use crate::report::{CallReport, MediaTotals, millis};
use crate::srtp::{Protect, Unprotect};
use crate::talk::FRAME;
use crate::user_agent::{Agreed, Keys};

/// The mean time between two reports (RFC 3550 section 6.2).
const REPORT_INTERVAL_MS: u32 = 5_000;

/// Which of our sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// RTP, and RTCP where they share it.
    Rtp,
    /// RTCP on its own.
    Rtcp,
}

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Through which socket.
    pub(crate) port: Port,
    /// Where.
    pub(crate) to: SocketAddr,
    /// What.
    pub(crate) bytes: Bytes,
}

/// Where media flows, and which way.
#[derive(Clone, Copy, Debug)]
struct Route {
    remote: Option<SocketAddr>,
    remote_rtcp: Option<SocketAddr>,
    is_muxed: bool,
    direction: Direction,
}

/// The media of one call.
pub(crate) struct Media {
    route: Route,
    keys: Option<Keys>,
    protect: Option<Protect>,
    unprotect: Option<Unprotect>,
    sender: Sender,
    receiver: Receiver,
    cname: String,
    report_at: Instant,
    rejected: u64,
    unsent: u64,
    rtcp_sent: u64,
    rtcp_received: u64,
    first_packet: Option<Instant>,
}

impl Media {
    /// Starts as agreed; fails with a stable code.
    pub(crate) fn new(
        now: Instant,
        agreed: &Agreed,
        random: &mut dyn Random,
    ) -> Result<Self, &'static str> {
        let negotiated = &agreed.negotiated;
        let codec = codec_of(&negotiated.codecs)?;
        let mut media = Self {
            route: route_of(agreed),
            keys: None,
            protect: None,
            unprotect: None,
            sender: Sender::new(codec, negotiated.telephone_event, random)?,
            receiver: Receiver::new(&negotiated.codecs, negotiated.telephone_event),
            cname: sip::ids::new_call_id(random),
            // RFC 3550 section 6.2: the first report comes after half the interval.
            report_at: now + interval(random) / 2,
            rejected: 0,
            unsent: 0,
            rtcp_sent: 0,
            rtcp_received: 0,
            first_packet: None,
        };
        media.rekey(agreed)?;
        Ok(media)
    }

    /// Goes on as newly agreed: other addresses, direction, codec or keys. What did not change
    /// stays, roll-over counters and replay windows included.
    pub(crate) fn update(&mut self, agreed: &Agreed) -> Result<(), &'static str> {
        let negotiated = &agreed.negotiated;
        self.route = route_of(agreed);
        let codec = codec_of(&negotiated.codecs)?;
        self.sender.update(codec, negotiated.telephone_event)?;
        self.receiver.update(&negotiated.codecs, negotiated.telephone_event);
        self.rekey(agreed)
    }

    fn rekey(&mut self, agreed: &Agreed) -> Result<(), &'static str> {
        let known = self.keys.take();
        if let Some(keys) = &agreed.keys {
            if known.as_ref().map(|it| &it.send) != Some(&keys.send) {
                self.protect = Some(Protect::new(&keys.send).map_err(|_| "media.bad_key")?);
            }
            if known.as_ref().map(|it| &it.receive) != Some(&keys.receive) {
                self.unprotect = Some(Unprotect::new(keys.receive.clone()));
            }
        } else {
            (self.protect, self.unprotect) = (None, None);
        }
        self.keys.clone_from(&agreed.keys);
        Ok(())
    }

    /// Lets a tick pass without a packet.
    pub(crate) const fn skip_tick(&mut self) {
        self.sender.skip();
    }

    /// The packet of this tick, which says `pcm` or is part of a key press.
    pub(crate) fn tick(&mut self, now: Instant, pcm: &[i16; FRAME]) -> Option<Packet> {
        let is_open = self.route.direction.sends();
        let packet = self.sender.tick(now, pcm, is_open)?;
        let to = self.route.remote?;
        let bytes = match &mut self.protect {
            Some(protect) => protect.rtp(&packet).ok()?,
            None => Bytes::copy_from_slice(&packet),
        };
        Some(Packet { port: Port::Rtp, to, bytes })
    }

    /// The report that is due, if one is; at the end of the call one is due always.
    pub(crate) fn poll_report(
        &mut self,
        now: Instant,
        wall: WallTime,
        is_last: bool,
        random: &mut dyn Random,
    ) -> Option<Packet> {
        if now < self.report_at && !is_last {
            return None;
        }
        self.report_at = now + interval(random);
        let blocks: Vec<_> = self.receiver.report_block(now).into_iter().collect();
        let report = Report {
            ssrc: self.sender.ssrc(),
            sender: self.sender.info(now, wall),
            blocks: &blocks,
            cname: &self.cname,
            goodbye: is_last,
        };
        let mut compound = vec![0; RTP_PACKET_BYTES.get()];
        let length = report.write(&mut compound).ok()?;
        let bytes = match &mut self.protect {
            Some(protect) => protect.rtcp(&compound[..length]).ok()?,
            None => Bytes::copy_from_slice(&compound[..length]),
        };
        let (port, to) = match self.route.is_muxed {
            true => (Port::Rtp, self.route.remote?),
            false => (Port::Rtcp, self.route.remote_rtcp?),
        };
        self.rtcp_sent += 1;
        Some(Packet { port, to, bytes })
    }

    /// Takes note that a packet could not be sent.
    pub(crate) const fn note_unsent(&mut self) {
        self.unsent += 1;
    }

    /// Takes a datagram that arrived.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        wall: WallTime,
        from: SocketAddr,
        datagram: &[u8],
    ) {
        let is_taken = match classify(datagram) {
            Datagram::Rtp => self.receive_rtp(now, from, datagram),
            Datagram::Rtcp => self.receive_rtcp(now, wall, from, datagram),
            _ => None,
        };
        if is_taken.is_none() {
            self.rejected += 1;
        }
    }

    fn receive_rtp(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) -> Option<()> {
        let opened;
        let bytes = match &mut self.unprotect {
            Some(unprotect) => {
                opened = unprotect.rtp(datagram).ok()?;
                &opened[..]
            }
            None => datagram.get(..).filter(|_| self.is_expected(from))?,
        };
        let packet = rtp::Packet::parse(bytes).ok()?;
        let is_protected = self.unprotect.is_some();
        self.receiver.receive(now, &packet, is_protected)?;
        self.first_packet.get_or_insert(now);
        Some(())
    }

    fn receive_rtcp(
        &mut self,
        now: Instant,
        wall: WallTime,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Option<()> {
        let opened;
        let bytes = match &mut self.unprotect {
            Some(unprotect) => {
                opened = unprotect.rtcp(datagram).ok()?;
                &opened[..]
            }
            None => datagram.get(..).filter(|_| self.is_expected(from))?,
        };
        let compound = Compound::parse(bytes).ok()?;
        self.rtcp_received += 1;
        for packet in compound.packets() {
            if let Rtcp::Report { ssrc, sender, blocks } = packet {
                if let Some(sender) = sender {
                    self.receiver.on_sender_report(now, ssrc, &sender);
                }
                blocks.for_each(|block| self.sender.on_report_block(wall, &block));
            }
        }
        Some(())
    }

    /// Without SRTP the address is all that tells the far end.
    fn is_expected(&self, from: SocketAddr) -> bool {
        let addresses = [self.route.remote, self.route.remote_rtcp];
        addresses.into_iter().flatten().any(|it| it.ip() == from.ip())
    }

    /// What is heard in this tick, 16 kHz.
    pub(crate) fn play(&mut self, now: Instant) -> [i16; FRAME] {
        self.receiver.play(now)
    }

    /// Presses these keys one after the other; one that is no key, or for which there is no room,
    /// is left out.
    pub(crate) fn press(&mut self, digits: &str) {
        digits.chars().filter_map(Digit::from_char).for_each(|digit| self.sender.press(digit));
    }

    /// Whether keys are being pressed.
    pub(crate) fn is_pressing(&self) -> bool {
        self.sender.is_pressing()
    }

    /// When the first packet arrived.
    pub(crate) const fn first_packet(&self) -> Option<Instant> {
        self.first_packet
    }

    /// Fills in what was measured.
    pub(crate) fn report(&self, report: &mut CallReport) {
        let received = self.receiver.totals();
        report.codec = Some(self.sender.codec().name().to_owned());
        report.suite = self.keys.as_ref().map(|keys| keys.send.suite().name().to_owned());
        report.media = MediaTotals {
            packets_sent: self.sender.packets(),
            packets_received: received.packets,
            packets_lost: received.lost,
            packets_late: received.late,
            packets_rejected: self.rejected,
            packets_unsent: self.unsent,
            rtcp_sent: self.rtcp_sent,
            rtcp_received: self.rtcp_received,
            digits_sent: self.sender.digits(),
        };
        let expected = received.packets + received.lost;
        if expected > 0 {
            report.loss_percent = Some(received.lost as f64 * 100.0 / expected as f64);
            report.jitter_ms = Some(millis(received.jitter));
        }
        report.round_trip_ms = self.sender.round_trip().map(millis);
        report.digits_heard = self.receiver.digits().to_owned();
    }
}

fn interval(random: &mut dyn Random) -> Duration {
    // RFC 3550 section 6.3.1: between half and one and a half of the mean.
    let spread = REPORT_INTERVAL_MS / 2 + random.below(REPORT_INTERVAL_MS);
    Duration::from_millis(spread.into())
}

fn route_of(agreed: &Agreed) -> Route {
    let it = &agreed.negotiated;
    Route {
        remote: it.remote,
        remote_rtcp: it.remote_rtcp,
        is_muxed: it.rtcp_mux,
        direction: it.direction,
    }
}

fn codec_of(codecs: &[NegotiatedCodec]) -> Result<&NegotiatedCodec, &'static str> {
    codecs.first().ok_or("media.no_common_codec")
}
