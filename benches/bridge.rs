//! What one packet costs between two legs, from the datagram to the datagram, without the socket.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use audio::{Codec, Encoder, OpusSettings};
use base::{CallId, Instant, LegId, SeededRandom, SessionId, WallTime};
use divan::{Bencher, black_box};
use media::{
    Direction, Format, KeyForm, LegPlan, MediaEvent, Protection, Purpose, Rule, SourceIdentity,
};
use relay::path::counters::Tally;
use relay::path::{Driver, Parcel, Passing, Port, Session};
use relay::srtp::{OVERHEAD, Sender};
use rtp::Header;
use rtp::sdes::{KeySalt, Suite};

const IDS: [SessionId; 2] = [SessionId::new(1, 0), SessionId::new(1, 1)];
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)), 4_000);

/// A worker's hands, less the sockets.
#[derive(Default)]
struct Hands {
    tally: Tally,
    parcels: Vec<Parcel>,
    sent: usize,
}

impl Driver for Hands {
    fn send(&mut self, _: Port, _: SocketAddr, datagram: &[u8]) -> bool {
        black_box(datagram);
        self.sent += 1;
        true
    }
    fn event(&mut self, event: MediaEvent) {
        black_box(event);
    }
    fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }
    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        self.parcels.extend(Parcel::new(passing, payload));
    }
}

/// How one leg is protected.
#[derive(Clone, Copy, Debug)]
enum Cover {
    Plain,
    Srtp(Suite),
}

fn protection(cover: Cover, seed: u64) -> Protection {
    let key = |suite, seed| KeySalt::generate(suite, &mut SeededRandom::new(seed));
    match cover {
        Cover::Plain => Protection::Plain { from: "192.0.2.0/24".parse().into_iter().collect() },
        Cover::Srtp(suite) => {
            Protection::Srtp { suite, send: key(suite, seed), receive: key(suite, seed + 1) }
        }
    }
}

fn plan(index: u8, cover: Cover, codec: Codec) -> LegPlan {
    let random = &mut SeededRandom::new(index.into());
    let payload_type = codec.payload_type().unwrap_or(96);
    let format = Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 };
    LegPlan {
        leg: LegId { call: CallId::random(random), index },
        remote: PEER,
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: protection(cover, 10 * u64::from(index)),
        send: Some(format),
        accept: vec![format],
        opaque: Vec::new(),
        sendable: vec![format],
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(random),
        purpose: Purpose::Bridge(None),
    }
}

/// Two sessions and what the first one's peer sends.
struct Call {
    now: Instant,
    sessions: [Session; 2],
    hands: Hands,
    protect: Option<Sender>,
    header: Header,
    step: u32,
    payloads: Vec<Vec<u8>>,
}

impl Call {
    fn new(covers: [Cover; 2], codecs: [Codec; 2]) -> Option<Self> {
        let now = Instant::from_nanos(1_000_000_000);
        let mut plans = [plan(0, covers[0], codecs[0]), plan(1, covers[1], codecs[1])];
        let rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };
        let there = media::between(&plans[0], &plans[1], rule);
        let back = media::between(&plans[1], &plans[0], rule);
        plans[0].purpose = Purpose::Bridge(Some(there));
        plans[1].purpose = Purpose::Bridge(Some(back));
        let protect = match &plans[0].protection {
            Protection::Srtp { suite, receive, .. } => Some(Sender::new(*suite, receive).ok()?),
            Protection::Plain { .. } | Protection::Dtls(_) => None,
        };
        let mut call = Self {
            now,
            sessions: [1, 2].map(|seed| Session::new(now, WallTime::default(), seed, false)),
            hands: Hands { parcels: Vec::with_capacity(16), ..Hands::default() },
            protect,
            header: Header {
                marker: false,
                payload_type: plans[0].accept[0].payload_type,
                sequence: 0,
                timestamp: 0,
                ssrc: 9,
            },
            step: codecs[0].timestamp_step(20),
            payloads: payloads(codecs[0])?,
        };
        for (at, plan) in plans.into_iter().enumerate() {
            let with = Some(IDS[1 - at]);
            call.sessions[at].apply(now, plan, with, &mut call.hands).ok()?;
        }
        // The second peer is known: else nothing is sent to it after a while.
        let latch = if let Cover::Plain = covers[1] { call.packet().0 } else { Vec::new() };
        call.sessions[1].on_datagram(now, Port::Rtp, PEER, &mut { latch }, &mut call.hands);
        Some(call)
    }

    fn packet(&mut self) -> (Vec<u8>, usize) {
        let payload = &self.payloads[usize::from(self.header.sequence) % self.payloads.len()];
        let mut packet = vec![0; 12 + payload.len() + OVERHEAD];
        let mut length = self.header.write(payload, &mut packet).unwrap_or(0);
        self.header.sequence = self.header.sequence.wrapping_add(1);
        self.header.timestamp = self.header.timestamp.wrapping_add(self.step);
        if let Some(sender) = &mut self.protect {
            length = sender.protect_rtp(&mut packet, length).unwrap_or(0);
        }
        packet.truncate(length);
        (packet, length)
    }

    fn carry(&mut self) {
        let Self { now, sessions, hands, .. } = self;
        let mut parcels = std::mem::take(&mut hands.parcels);
        for parcel in &mut parcels {
            sessions[1].pass(*now, IDS[0], parcel, hands);
        }
        parcels.clear();
        hands.parcels = parcels;
    }

    fn arrive(&mut self, packet: &mut [u8]) {
        self.sessions[0].on_datagram(self.now, Port::Rtp, PEER, packet, &mut self.hands);
        self.carry();
    }

    /// 20 ms pass.
    fn tick(&mut self) {
        self.now += Duration::from_millis(20);
        self.sessions[0].tick(self.now, &mut self.hands);
        self.carry();
    }
}

/// Three seconds of speech-like sound.
fn payloads(codec: Codec) -> Option<Vec<Vec<u8>>> {
    let rate = codec.sample_rate();
    let settings = OpusSettings { sample_rate: rate, ..OpusSettings::default() };
    let mut encoder = Encoder::new(codec, &settings).ok()?;
    let sound: Vec<i16> = (0..rate.samples(3_000))
        .map(|at| {
            let time = at as f32 / rate.hz() as f32;
            let pitch = 120.0 + 30.0 * (time * 4.0).sin();
            let envelope = (time * 9.0).sin().abs() * 7_000.0;
            let voice =
                (1..12).map(|n| (time * pitch * n as f32 * std::f32::consts::TAU).sin() / n as f32);
            (voice.sum::<f32>() * envelope) as i16
        })
        .collect();
    let frames = sound.chunks_exact(rate.samples(20)).map(|frame| {
        let mut out = [0; 1_000];
        let length = encoder.encode(frame, &mut out).unwrap_or(0);
        out[..length].to_vec()
    });
    Some(frames.collect())
}

const CM: Cover = Cover::Srtp(Suite::AesCm128HmacSha1_80);
const GCM: Cover = Cover::Srtp(Suite::AeadAes128Gcm);

/// A packet that goes on as it is.
#[divan::bench(args = [[Cover::Plain; 2], [CM, Cover::Plain], [CM, CM], [GCM, GCM]])]
fn forward(bencher: Bencher<'_, '_>, covers: [Cover; 2]) {
    packets(bencher, covers, [Codec::Pcmu; 2]);
}

/// G.711 of the other law.
#[divan::bench]
fn recode(bencher: Bencher<'_, '_>) {
    packets(bencher, [Cover::Plain; 2], [Codec::Pcmu, Codec::Pcma]);
}

fn packets(bencher: Bencher<'_, '_>, covers: [Cover; 2], codecs: [Codec; 2]) {
    let Some(call) = Call::new(covers, codecs) else { return };
    let call = std::cell::RefCell::new(call);
    bencher
        .with_inputs(|| call.borrow_mut().packet().0)
        .bench_local_refs(|packet| call.borrow_mut().arrive(packet));
}

/// A packet of 20 ms that is decoded and encoded: jitter buffer, decoder, encoder, frame.
#[divan::bench(args = [
    [Codec::Pcmu, Codec::G722],
    [Codec::G722, Codec::Pcmu],
    [Codec::Pcmu, Codec::Opus],
    [Codec::Opus, Codec::Pcmu],
    [Codec::G722, Codec::Opus],
    [Codec::Opus, Codec::G722],
])]
fn transcode(bencher: Bencher<'_, '_>, codecs: [Codec; 2]) {
    let Some(call) = Call::new([Cover::Plain; 2], codecs) else { return };
    let call = std::cell::RefCell::new(call);
    bencher.with_inputs(|| call.borrow_mut().packet().0).bench_local_refs(|packet| {
        let call = &mut *call.borrow_mut();
        call.arrive(packet);
        call.tick();
    });
}

/// The codecs alone, for the same packets: what `transcode` may not be much more than.
#[divan::bench(args = [[Codec::Pcmu, Codec::Opus], [Codec::Opus, Codec::Pcmu]])]
fn codecs_alone(bencher: Bencher<'_, '_>, codecs: [Codec; 2]) {
    let rate = audio::SampleRate::Hz8000;
    let settings = OpusSettings { sample_rate: rate, complexity: 1, ..OpusSettings::default() };
    let (Some(payloads), Ok(mut encoder), Ok(mut decoder)) = (
        payloads(codecs[0]),
        Encoder::new(codecs[1], &settings),
        audio::Decoder::new(codecs[0], rate),
    ) else {
        return;
    };
    let mut at = 0;
    let (mut sound, mut out) = ([0; 960], [0; 1_000]);
    bencher.bench_local(|| {
        at = (at + 1) % payloads.len();
        let length = decoder.decode(&payloads[at], &mut sound).unwrap_or(0);
        encoder.encode(&sound[..length], &mut out).unwrap_or(0)
    });
}
