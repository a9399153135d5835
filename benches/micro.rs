//! What a call and a packet cost, piece by piece.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use audio::Codec;
use base::{CallId, Instant, LegId, SeededRandom, WallTime};
use bytes::Bytes;
use divan::{Bencher, black_box};
use media::{BargeIn, Direction, Format, LegPlan, MediaEvent, Protection, Purpose, SourceIdentity};
use policy::{Attempt, Observed, Offer, Transport};
use relay::path::counters::Tally;
use relay::path::{Driver, Passing, Port, Session};
use relay::srtp::Sender;
use rtp::sdes::{KeySalt, Suite};

mod bridge;
mod crypto;
mod srtp;

fn main() {
    divan::main();
}

const INVITE: &str = concat!(
    "INVITE sip:+18005550100@203.0.113.5:5061;transport=tls SIP/2.0\r\n",
    "Via: SIP/2.0/TLS 198.51.100.7:5061;branch=z9hG4bK-524287-1---6c1f4b2e8d3a5f70;rport\r\n",
    "Via: SIP/2.0/TCP 10.20.30.40:5060;branch=z9hG4bKabc123;received=10.20.30.40\r\n",
    "Record-Route: <sip:198.51.100.7:5061;transport=tls;lr;did=8e1.8a2>\r\n",
    "Max-Forwards: 68\r\n",
    "Contact: <sip:+15550123@198.51.100.7:5061;transport=tls>\r\n",
    "To: <sip:+18005550100@203.0.113.5>\r\n",
    "From: \"A Caller\" <sip:+15550123@198.51.100.7>;tag=9f8e7d6c\r\n",
    "Call-ID: 84623f1e-77aa-4b1c-a6a5-3d1c2b5e9f01@198.51.100.7\r\n",
    "CSeq: 101 INVITE\r\n",
    "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, INFO, PRACK\r\n",
    "Supported: timer, 100rel, replaces\r\n",
    "Session-Expires: 1800;refresher=uac\r\nMin-SE: 90\r\n",
    "P-Asserted-Identity: <sip:+15550123@198.51.100.7>\r\n",
    "User-Agent: bench\r\nContent-Type: application/sdp\r\nContent-Length: 0\r\n\r\n",
);

#[divan::bench]
fn sip_parse(bencher: Bencher<'_, '_>) {
    let bytes = Bytes::from_static(INVITE.as_bytes());
    bencher.bench(|| sip::parse::datagram(black_box(&bytes)).is_ok());
}

#[divan::bench]
fn sip_write(bencher: Bencher<'_, '_>) {
    let message = sip::parse::datagram(&Bytes::from_static(INVITE.as_bytes()));
    bencher.bench(|| message.as_ref().map(sip::Message::to_bytes).map_or(0, |it| it.len()));
}

#[divan::bench(args = [1, 100, 1_000])]
fn policy_decide(bencher: Bencher<'_, '_>, trunks: usize) {
    let mut text = String::new();
    for index in 0..trunks {
        text.push_str(&format!(
            "[trunk.t{index}]\nfrom = {{ networks = [\"10.{}.{}.0/24\"] }}\n\
             transports = [\"tls\"]\n[[route]]\nwhen = {{ trunk = \"t{index}\" }}\n\
             send_to = {{ agent = \"reception\" }}\n",
            index / 256,
            index % 256
        ));
    }
    let Ok((policy, _)) = policy::load(&[("bench.toml", &text)], None) else { return };
    let last = trunks - 1;
    let source = format!("10.{}.{}.9:5061", last / 256, last % 256);
    let attempt = Attempt {
        source: source.parse().unwrap_or(SocketAddr::from(([10, 0, 0, 9], 5061))),
        local: None,
        transport: Transport::Tls,
        certificates: Vec::new(),
        request_uri: "sip:+18005550100@203.0.113.5".into(),
        from_uri: "sip:+15550123@198.51.100.7".into(),
        to_uri: "sip:+18005550100@203.0.113.5".into(),
        asserted_identity: None,
        called: "+18005550100".into(),
        caller: "+15550123".into(),
        offer: Offer {
            present: true,
            has_srtp: true,
            has_plain: false,
            codecs: vec!["PCMU".into()],
        },
        user_agent: None,
        at: WallTime::default(),
    };
    let observed = Observed::default();
    bencher.bench(|| policy::decide(black_box(&policy), &attempt, &observed));
}

/// Where packets end.
struct Nowhere(Tally);

impl Driver for Nowhere {
    fn send(&mut self, _: Port, _: SocketAddr, datagram: &[u8]) -> bool {
        black_box(datagram);
        true
    }
    fn event(&mut self, event: MediaEvent) {
        black_box(event);
    }
    fn tally(&mut self) -> &mut Tally {
        &mut self.0
    }
    fn pass(&mut self, passing: Passing, payload: &[u8]) {
        black_box((passing, payload));
    }
}

/// One voice-agent leg for one second of the caller's speech-like audio: SRTP both ways, jitter
/// buffer, decoding, voice detection, encoding. Divide by 50 for a frame.
#[divan::bench(args = [Codec::Pcmu, Codec::G722, Codec::Opus], sample_count = 20)]
fn agent_leg_second(bencher: Bencher<'_, '_>, codec: Codec) {
    let (suite, random) = (Suite::AeadAes128Gcm, &mut SeededRandom::new(1));
    let theirs = KeySalt::generate(suite, random);
    let address = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 4_000);
    let payload_type = codec.payload_type().unwrap_or(96);
    let format = Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 };
    let plan = LegPlan {
        leg: LegId { call: CallId::random(random), index: 0 },
        remote: address,
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Srtp {
            suite,
            send: KeySalt::generate(suite, random),
            receive: theirs.clone(),
        },
        send: Some(format),
        accept: vec![format],
        opaque: Vec::new(),
        sendable: vec![],
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(random),
        purpose: Purpose::Agent { barge_in: Some(BargeIn::default()) },
    };
    let mut now = Instant::from_nanos(1_000_000_000);
    let mut session = Session::new(now, WallTime::default(), 1, false);
    let mut driver = Nowhere(Tally::default());
    let applied = session.apply(now, plan, None, &mut driver);
    let (Ok(()), Ok(mut sender)) = (applied, Sender::new(suite, &theirs)) else {
        return;
    };
    let speech: Arc<[i16]> = (0..16_000_i32).map(|at| ((at * 37 % 4_000) - 2_000) as i16).collect();
    let Ok(mut encoder) = audio::Encoder::new(codec, &audio::OpusSettings::default()) else {
        return;
    };
    let samples = encoder.sample_rate().samples(20);
    let pcm: Vec<i16> = speech.iter().copied().cycle().take(samples).collect();
    let mut payload = [0; 1_000];
    let length = encoder.encode(&pcm, &mut payload).unwrap_or(0);
    let mut sequence = 0_u16;
    bencher.bench_local(|| {
        session.play(1, Arc::clone(&speech), true, &mut driver);
        for _ in 0..50 {
            sequence = sequence.wrapping_add(1);
            let mut buffer = [0; 1_200];
            buffer[0] = 0x80;
            buffer[1] = payload_type;
            buffer[2..4].copy_from_slice(&sequence.to_be_bytes());
            let timestamp = u32::from(sequence).wrapping_mul(codec.timestamp_step(20));
            buffer[4..8].copy_from_slice(&timestamp.to_be_bytes());
            buffer[8..12].copy_from_slice(&9_u32.to_be_bytes());
            buffer[12..12 + length].copy_from_slice(&payload[..length]);
            let size = sender.protect_rtp(&mut buffer, 12 + length).unwrap_or(0);
            session.on_datagram(now, Port::Rtp, address, &mut buffer[..size], &mut driver);
            now += Duration::from_millis(20);
            session.tick(now, &mut driver);
        }
    });
}
