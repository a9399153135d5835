//! Two bridged legs and their peers on a manual clock, for stories.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use audio::{Codec, Decoder, Encoder, OpusSettings, SampleRate};
use base::{CallId, Instant, LegId, SeededRandom, SessionId, WallTime};
use media::{
    Bridge, Direction, Format, KeyForm, LegPlan, MediaEvent, Protection, Purpose, Rule,
    SourceIdentity, TelephoneEvent,
};
use rtp::Header;
use rtp::packet::Packet;
use rtp::sdes::{KeySalt, Suite};

use super::counters::{DropReason, Tally};
use super::{Driver, Parcel, Passing, Port, Session};
use crate::srtp::{OVERHEAD, Receiver, Sender};

pub(crate) const MS: Duration = Duration::from_millis(1);
/// Both directions take and send telephone events.
pub(crate) const EVENTS: Rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };

pub(crate) fn format(codec: Codec, payload_type: u8) -> Format {
    Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 }
}

/// A format under the payload type that everybody uses.
pub(crate) fn usual(codec: Codec) -> Format {
    format(codec, codec.payload_type().unwrap_or(111))
}

pub(crate) fn address(side: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 10 + side as u8], 4000))
}

pub(crate) fn plain() -> Protection {
    Protection::Plain { from: vec!["192.0.2.0/24".parse().unwrap()] }
}

pub(crate) fn srtp(suite: Suite, seed: u64) -> Protection {
    let key = |seed| KeySalt::generate(suite, &mut SeededRandom::new(seed));
    Protection::Srtp { suite, send: key(seed), receive: key(seed + 1) }
}

/// A plan of one side, not yet bridged.
pub(crate) fn leg(side: usize, protection: Protection, formats: &[Format]) -> LegPlan {
    let clock_rate = formats.first().map_or(16_000, |format| format.codec.clock_rate());
    LegPlan {
        leg: leg_id(side),
        remote: address(side),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection,
        send: formats.first().copied(),
        sendable: formats.to_vec(),
        accept: formats.to_vec(),
        opaque: Vec::new(),
        telephone_event: Some(TelephoneEvent { send: 101, receive: 101, clock_rate }),
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(&mut SeededRandom::new(side as u64 + 50)),
        purpose: Purpose::Bridge(None),
    }
}

pub(crate) fn leg_id(side: usize) -> LegId {
    LegId { call: CallId::random(&mut SeededRandom::new(5)), index: side as u8 }
}

pub(crate) fn session_id(side: usize) -> SessionId {
    SessionId::new(1, side as u8)
}

/// What a session did to the world.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) sent: Vec<(Port, SocketAddr, Vec<u8>)>,
    pub(crate) events: Vec<MediaEvent>,
    pub(crate) tally: Tally,
    pub(crate) parcels: VecDeque<Parcel>,
}

impl Driver for World {
    fn send(&mut self, port: Port, to: SocketAddr, datagram: &[u8]) -> bool {
        self.sent.push((port, to, datagram.to_vec()));
        true
    }
    fn event(&mut self, event: MediaEvent) {
        self.events.push(event);
    }
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        self.parcels.extend(Parcel::new(passing, payload));
    }
}

/// A packet that a peer heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    pub(crate) to: SocketAddr,
    pub(crate) ssrc: u32,
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) payload: Vec<u8>,
}

/// Who is at the far end of a leg.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) send: Option<Sender>,
    pub(crate) receive: Option<Receiver>,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) heard: Vec<Heard>,
    pub(crate) reports: Vec<Vec<u8>>,
}

impl Peer {
    fn new(side: usize, protection: &Protection) -> Self {
        let mut peer = Self {
            address: address(side),
            send: None,
            receive: None,
            ssrc: 700 + side as u32,
            sequence: 100 + 1000 * side as u16,
            timestamp: 5_000,
            heard: Vec::new(),
            reports: Vec::new(),
        };
        peer.keyed(protection);
        peer
    }

    /// Takes the keys of a plan of its leg.
    pub(crate) fn keyed(&mut self, protection: &Protection) {
        if let Protection::Srtp { suite, send, receive } = protection {
            self.send = Some(Sender::new(*suite, receive).unwrap());
            self.receive = Some(Receiver::new(*suite, send).unwrap());
        } else {
            (self.send, self.receive) = (None, None);
        }
    }

    /// A packet in its present numbers, which go on.
    pub(crate) fn packet(&mut self, payload_type: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            marker,
            payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: self.ssrc,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0; 12 + payload.len() + OVERHEAD];
        let mut length = header.write(payload, &mut packet).unwrap();
        if let Some(sender) = &mut self.send {
            length = sender.protect_rtp(&mut packet, length).unwrap();
        }
        packet.truncate(length);
        packet
    }

    fn hear(&mut self, now: Instant, to: SocketAddr, mut datagram: Vec<u8>) {
        if rtp::classify(&datagram) == rtp::Datagram::Rtcp {
            if let Some(receiver) = &mut self.receive {
                let (length, _) = receiver.unprotect_rtcp(&mut datagram).unwrap();
                datagram.truncate(length);
            }
            return self.reports.push(datagram);
        }
        if let Some(receiver) = &mut self.receive {
            let length = receiver.unprotect_rtp(&mut datagram).unwrap().length;
            datagram.truncate(length);
        }
        let packet = Packet::parse(&datagram).unwrap();
        assert_eq!(packet.header_len(), 12, "no lists, no extensions");
        self.heard.push(Heard {
            at: now,
            to,
            ssrc: packet.ssrc(),
            marker: packet.marker(),
            payload_type: packet.payload_type(),
            sequence: packet.sequence(),
            timestamp: packet.timestamp(),
            payload: packet.payload().to_vec(),
        });
    }
}

/// One side.
pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) world: World,
    pub(crate) plan: LegPlan,
    pub(crate) peer: Peer,
}

/// See the module. Side 0 is the caller.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) sides: Vec<Side>,
}

impl Pair {
    /// Two legs that hear each other.
    pub(crate) fn new(plans: [LegPlan; 2], rules: [Rule; 2]) -> Self {
        let mut pair = Self::apart(plans);
        pair.bridge(0, 1, rules[0]);
        pair.bridge(1, 0, rules[1]);
        pair
    }

    /// The same by one rule.
    pub(crate) fn of(caller: LegPlan, callee: LegPlan) -> Self {
        Self::new([caller, callee], [EVENTS; 2])
    }

    /// Legs that hear nobody.
    pub(crate) fn apart<const N: usize>(plans: [LegPlan; N]) -> Self {
        let now = Instant::from_nanos(7_000_000_000);
        let side = |(index, plan): (usize, LegPlan)| {
            let wall = WallTime::from_unix_millis(1_800_000_000_000);
            let mut session = Session::new(now, wall, index as u64 * 5 + 3, false);
            let mut world = World::default();
            session.apply(now, plan.clone(), None, &mut world).unwrap();
            let peer = Peer::new(index, &plan.protection);
            Side { session, world, plan, peer }
        };
        Self { now, sides: plans.into_iter().enumerate().map(side).collect() }
    }

    /// Lets `to` hear `from`.
    pub(crate) fn bridge(&mut self, from: usize, to: usize, rule: Rule) {
        let bridge = media::between(&self.sides[from].plan, &self.sides[to].plan, rule);
        self.bridge_as(from, to, bridge);
    }

    pub(crate) fn bridge_as(&mut self, from: usize, to: usize, bridge: Bridge) {
        self.sides[from].plan.purpose = Purpose::Bridge(Some(bridge));
        self.apply(from, Some(to));
    }

    /// Applies the plan of a side as it is now.
    pub(crate) fn apply(&mut self, side: usize, with: Option<usize>) {
        let Side { session, world, plan, .. } = &mut self.sides[side];
        session.apply(self.now, plan.clone(), with.map(session_id), world).unwrap();
    }

    /// A datagram arrives at a side's session.
    pub(crate) fn deliver(&mut self, side: usize, source: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        let now = self.now;
        let Side { session, world, .. } = &mut self.sides[side];
        session.on_datagram(now, Port::Rtp, source, &mut datagram, world);
        self.carry(side);
    }

    /// Takes what a step left: parcels to other sessions, datagrams to the peers.
    fn carry(&mut self, side: usize) {
        while let Some(mut parcel) = self.sides[side].world.parcels.pop_front() {
            let to = (0..self.sides.len()).find(|side| session_id(*side) == parcel.passing.to);
            let Side { session, world, .. } = &mut self.sides[to.unwrap()];
            session.pass(self.now, session_id(side), &mut parcel, world);
        }
        for Side { world, peer, .. } in &mut self.sides {
            for (_, to, datagram) in std::mem::take(&mut world.sent) {
                peer.hear(self.now, to, datagram);
            }
        }
    }

    /// A side's peer says something; its timestamp goes on by `ticks`.
    pub(crate) fn say(&mut self, side: usize, payload_type: u8, payload: &[u8], ticks: u32) {
        let packet = self.sides[side].peer.packet(payload_type, false, payload);
        let peer = &mut self.sides[side].peer;
        peer.timestamp = peer.timestamp.wrapping_add(ticks);
        self.deliver(side, self.sides[side].peer.address, &packet);
    }

    /// A side's peer loses a packet on the way.
    pub(crate) fn lose(&mut self, side: usize, ticks: u32) {
        let packet = self.sides[side].peer.packet(0, false, &[]);
        drop(packet);
        let peer = &mut self.sides[side].peer;
        peer.timestamp = peer.timestamp.wrapping_add(ticks);
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let due = self.sides.iter().filter_map(|side| side.session.poll_timeout()).min();
            let due = due.filter(|due| *due <= until);
            self.now = due.map_or(until, |due| due.max(self.now));
            for side in 0..self.sides.len() {
                let Side { session, world, .. } = &mut self.sides[side];
                if session.poll_timeout().is_some_and(|due| due <= self.now) {
                    session.tick(self.now, world);
                    self.carry(side);
                }
            }
            if due.is_none() {
                return;
            }
        }
    }

    /// One packet of 20 ms of G.711 and the time that it takes.
    pub(crate) fn talk(&mut self, side: usize, payload_type: u8, payload: &[u8]) {
        self.say(side, payload_type, payload, 160);
        self.wait(20 * MS);
    }

    pub(crate) fn heard(&mut self, side: usize) -> Vec<Heard> {
        std::mem::take(&mut self.sides[side].peer.heard)
    }

    pub(crate) fn events(&mut self, side: usize) -> Vec<MediaEvent> {
        std::mem::take(&mut self.sides[side].world.events)
    }

    pub(crate) fn drops(&self, side: usize, reason: DropReason) -> u64 {
        self.sides[side].world.tally.dropped(reason)
    }

    /// All that was dropped, for whatever reason.
    pub(crate) fn all_drops(&self, side: usize) -> Vec<(DropReason, u64)> {
        let all = DropReason::ALL.iter().map(|reason| (*reason, self.drops(side, *reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// A codec's encoder as a peer has it, at the codec's own rate.
pub(crate) fn encoder(codec: Codec) -> Encoder {
    let settings = OpusSettings {
        sample_rate: codec.sample_rate(),
        bitrate: 32_000,
        complexity: 9,
        ..OpusSettings::default()
    };
    Encoder::new(codec, &settings).unwrap()
}

/// A codec's decoder as a peer has it.
pub(crate) fn decoder(codec: Codec) -> (Decoder, SampleRate) {
    let decoder = Decoder::new(codec, codec.sample_rate()).unwrap();
    let rate = decoder.sample_rate();
    (decoder, rate)
}
