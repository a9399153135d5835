//! Two callers' media face to face, on a manual clock.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use base::SeededRandom;
use rtp::{KeySalt, Suite};
use sdp::{Codec, Keying, Negotiated, Protocol, TelephoneEvent};

use super::*;

const TICK: Duration = Duration::from_millis(20);

fn address(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn key(suite: Suite, seed: u64) -> KeySalt {
    KeySalt::generate(suite, &mut SeededRandom::new(seed))
}

fn agreed(codec: &Codec, payload_type: u8, remote: u16, keys: Option<Keys>) -> Agreed {
    let codec = NegotiatedCodec {
        name: codec.name.clone(),
        clock_rate: codec.clock_rate,
        channels: codec.channels,
        payload_type,
        receive_payload_type: payload_type,
        fmtp: None,
        opaque: None,
    };
    let event = TelephoneEvent {
        payload_type: 101,
        receive_payload_type: 101,
        clock_rate: codec.clock_rate,
    };
    let negotiated = Negotiated {
        media_index: 0,
        protocol: Protocol::RtpSavp,
        keying: Keying::Plain,
        codecs: vec![codec],
        telephone_event: Some(event),
        comfort_noise: None,
        remote: Some(address(remote)),
        remote_rtcp: None,
        rtcp_mux: true,
        direction: Direction::SendRecv,
        ptime: 20,
    };
    Agreed { negotiated, keys }
}

/// Two ends, 1 and 2, with a network between them that takes no time.
struct World {
    now: Instant,
    ends: [Media; 2],
    on_way: [VecDeque<Packet>; 2],
    sent: u64,
    /// Which packets of end 1 are lost.
    loses: fn(u64) -> bool,
    tone: audio::ToneGenerator,
}

impl World {
    fn new(codec: &Codec, payload_type: u8, suite: Option<Suite>) -> Self {
        let keys = |send, receive| {
            let suite = suite?;
            Some(Keys { send: key(suite, send), receive: key(suite, receive) })
        };
        let end = |seed, agreed: Agreed| {
            Media::new(Instant::ZERO, &agreed, &mut SeededRandom::new(seed)).unwrap()
        };
        let first = end(1, agreed(codec, payload_type, 2, keys(1, 2)));
        let second = end(2, agreed(codec, payload_type, 1, keys(2, 1)));
        let tone = audio::Tone { on_ms: u32::MAX, ..audio::Tone::BEEP };
        Self {
            now: Instant::ZERO,
            ends: [first, second],
            on_way: Default::default(),
            sent: 0,
            loses: |_| false,
            tone: audio::ToneGenerator::new(&tone, audio::SampleRate::Hz16000),
        }
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_millis(1_800_000_000_000) + self.now.since(Instant::ZERO)
    }

    /// One tick at both ends; returns what end 2 hears.
    fn tick(&mut self) -> [i16; FRAME] {
        self.now += TICK;
        let (now, wall) = (self.now, self.wall());
        let mut tone = [0; FRAME];
        self.tone.fill(&mut tone);
        for index in 0..2 {
            let end = &mut self.ends[index];
            let random = &mut SeededRandom::new(now.as_nanos());
            let pcm = if index == 0 { tone } else { [0; FRAME] };
            let report = end.poll_report(now, wall, false, random);
            self.on_way[index].extend(end.tick(now, &pcm).into_iter().chain(report));
        }
        for index in 0..2 {
            while let Some(packet) = self.on_way[index].pop_front() {
                self.sent += u64::from(index == 0);
                if index == 0 && (self.loses)(self.sent) {
                    continue;
                }
                let from = address(index as u16 + 1);
                self.ends[1 - index].receive(now, wall, from, &packet.bytes);
            }
        }
        self.ends[1].play(now)
    }

    fn run(&mut self, ticks: usize) -> Vec<i16> {
        (0..ticks).flat_map(|_| self.tick()).collect()
    }

    fn report(&self, end: usize) -> CallReport {
        let mut report = CallReport::default();
        self.ends[end].report(&mut report);
        report
    }
}

#[test]
fn the_tone_arrives_through_every_codec_and_suite() {
    let opus = Codec::opus(&sdp::OpusParameters::default());
    for (codec, payload_type) in
        [(Codec::pcmu(), 0), (Codec::pcma(), 8), (Codec::g722(), 9), (opus, 111)]
    {
        for suite in Suite::PREFERENCE.map(Some).into_iter().chain([None]) {
            let mut world = World::new(&codec, payload_type, suite);
            let heard = world.run(100);
            let name = format!("{} {suite:?}", codec.name);
            // The beep has -13 dBm0, which is -19.1 dBFS.
            let level = audio::level::dbfs(&heard[heard.len() / 2..]);
            assert!((-20.5..-18.0).contains(&level), "{name}: {level}");
            let report = world.report(1);
            let media = report.media;
            // Without SRTP the first packet only puts its source on probation.
            let expected = if suite.is_some() { 100 } else { 99 };
            let found = (media.packets_received, media.packets_lost);
            assert_eq!(found, (expected, 0), "{name}");
            assert_eq!((media.packets_rejected, report.loss_percent), (0, Some(0.0)), "{name}");
            assert_eq!(report.suite.as_deref(), suite.map(Suite::name));
        }
    }
}

#[test]
fn loss_is_counted_and_reported_back() {
    let mut world = World::new(&Codec::pcmu(), 0, Some(Suite::AeadAes128Gcm));
    world.loses = |packet| packet % 10 == 5;
    world.run(1_000);
    let report = world.report(1);
    let loss = report.loss_percent.unwrap();
    assert!((9.5..10.5).contains(&loss), "{loss}");
    assert!(report.media.packets_lost > 90);
    // Reports come about every 5 s in 20 s, in both directions.
    let media = world.report(0).media;
    assert!((3..=9).contains(&media.rtcp_received), "{media:?}");
    assert!(world.report(0).round_trip_ms.is_some());
}

#[test]
fn keys_are_heard_at_the_other_end_and_audio_goes_on_after_them() {
    for codec in [Codec::pcmu(), Codec::opus(&sdp::OpusParameters::default())] {
        let mut world = World::new(&codec, 96, Some(Suite::AesCm128HmacSha1_80));
        world.run(20);
        world.ends[0].press("12#");
        assert!(world.ends[0].is_pressing());
        world.run(60);
        assert!(!world.ends[0].is_pressing());
        assert_eq!(world.report(1).digits_heard, "12#");
        assert_eq!(world.report(0).media.digits_sent, 3);
        let heard = world.run(50);
        assert!(audio::level::dbfs(&heard[heard.len() / 2..]) > -20.5, "{}", codec.name);
    }
}

#[test]
fn on_hold_nothing_is_sent_and_afterwards_it_goes_on() {
    let suite = Suite::AeadAes256Gcm;
    let mut world = World::new(&Codec::g722(), 9, Some(suite));
    world.run(50);
    let keys = Some(Keys { send: key(suite, 1), receive: key(suite, 2) });
    let mut held = agreed(&Codec::g722(), 9, 2, keys);
    held.negotiated.direction = Direction::RecvOnly;
    world.ends[0].update(&held).unwrap();
    let before = world.report(0).media.packets_sent;
    world.run(50);
    assert_eq!(world.report(0).media.packets_sent, before);
    held.negotiated.direction = Direction::SendRecv;
    world.ends[0].update(&held).unwrap();
    let heard = world.run(50);
    assert!(audio::level::dbfs(&heard[heard.len() / 2..]) > -20.5);
    let report = world.report(1);
    assert_eq!((report.media.packets_lost, report.media.packets_rejected), (0, 0));
}

#[test]
fn a_new_key_takes_effect_at_once() {
    let suite = Suite::AeadAes128Gcm;
    let mut world = World::new(&Codec::pcmu(), 0, Some(suite));
    world.run(50);
    let first = Some(Keys { send: key(suite, 11), receive: key(suite, 2) });
    world.ends[0].update(&agreed(&Codec::pcmu(), 0, 2, first)).unwrap();
    world.run(10);
    assert_eq!(world.report(1).media.packets_rejected, 10);
    let second = Some(Keys { send: key(suite, 2), receive: key(suite, 11) });
    world.ends[1].update(&agreed(&Codec::pcmu(), 0, 1, second)).unwrap();
    world.run(50);
    assert_eq!(world.report(1).media.packets_rejected, 10);
    assert_eq!(world.report(0).media.packets_rejected, 0);
}

#[test]
fn without_srtp_only_the_far_ends_address_is_heard() {
    let mut world = World::new(&Codec::pcmu(), 0, None);
    world.run(10);
    let stranger: SocketAddr = "192.0.2.1:2".parse().unwrap();
    let packet = world.ends[0].tick(world.now, &[0; FRAME]).unwrap();
    let wall = world.wall();
    world.ends[1].receive(world.now, wall, stranger, &packet.bytes);
    world.ends[1].receive(world.now, wall, address(1), b"\x16junk");
    world.ends[1].receive(world.now, wall, address(1), &[]);
    let media = world.report(1).media;
    assert_eq!((media.packets_received, media.packets_rejected), (9, 3));
}

#[test]
fn skipped_ticks_are_a_pause_and_no_loss() {
    let mut world = World::new(&Codec::pcmu(), 0, Some(Suite::AeadAes128Gcm));
    world.run(50);
    for _ in 0..20 {
        world.ends[0].skip_tick();
        world.now += TICK;
    }
    world.run(50);
    let report = world.report(1);
    assert_eq!((report.media.packets_received, report.media.packets_lost), (100, 0));
    assert!(report.jitter_ms.unwrap() < 1.0, "{report:?}");
}

#[test]
fn a_goodbye_is_said_at_the_end() {
    let mut world = World::new(&Codec::pcmu(), 0, None);
    world.run(10);
    let (now, wall) = (world.now, world.wall());
    let random = &mut SeededRandom::new(1);
    assert_eq!(world.ends[0].poll_report(now, wall, false, random), None);
    let last = world.ends[0].poll_report(now, wall, true, random).unwrap();
    let compound = Compound::parse(&last.bytes).unwrap();
    assert!(compound.packets().any(|it| matches!(it, Rtcp::Goodbye(_))));
}
