//! Two callers' media face to face, on a manual clock.

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use base::SeededRandom;
use rtp::{KeySalt, Suite};
use sdp::{Codec as Described, Direction, Keying, Negotiated, NegotiatedCodec, Protocol};
use tokio::sync::mpsc;

use super::super::stamp::Role;
use super::*;
use crate::scenario::Talk;
use crate::script::Script;
use crate::talk::FRAME;

const TICK: Duration = Duration::from_millis(20);
/// The level of what arrives: a tone of -13 dBm0 has -19.1 dBFS.
const TONE_DBFS: std::ops::Range<f32> = -20.5..-18.0;

/// Each end has an address of its own, for without SRTP it is all that tells who sends.
fn address(end: usize) -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, end as u8 + 1), 4_000).into()
}

fn key(suite: Suite, seed: u64) -> KeySalt {
    KeySalt::generate(suite, &mut SeededRandom::new(seed))
}

/// What end `end` agreed on.
fn agreed(end: usize, codec: &Described, payload_type: u8, keys: Option<Keys>) -> Agreed {
    let clock_rate = codec.clock_rate;
    let codec = NegotiatedCodec {
        name: codec.name.clone(),
        clock_rate,
        channels: codec.channels,
        payload_type,
        receive_payload_type: payload_type,
        fmtp: None,
        opaque: None,
    };
    let event = TelephoneEvent { payload_type: 101, receive_payload_type: 101, clock_rate };
    let negotiated = Negotiated {
        media_index: 0,
        protocol: Protocol::RtpSavp,
        keying: Keying::Plain,
        codecs: vec![codec],
        telephone_event: Some(event),
        comfort_noise: None,
        remote: Some(address(1 - end)),
        remote_rtcp: None,
        rtcp_mux: true,
        direction: Direction::SendRecv,
        ptime: 20,
    };
    Agreed { negotiated, keys }
}

fn opus() -> Described {
    Described::opus(&sdp::OpusParameters::default())
}

/// Two ends with a network between them that takes no time. End 0 says a tone, end 1 nothing;
/// both keep what they hear.
struct World {
    now: Instant,
    ends: [Session; 2],
    agreed: [Agreed; 2],
    /// What waits in the sockets of each end.
    inbox: [VecDeque<Vec<u8>>; 2],
    sent: u64,
    /// Which packets of end 0 are lost.
    loses: fn(u64) -> bool,
    /// Whether the thread of end 0 does not get to run.
    is_asleep: bool,
    totals: [Totals; 2],
    folder: tempfile::TempDir,
}

/// What became of an end.
struct Ended {
    report: CallReport,
    heard: Vec<i16>,
}

impl World {
    fn new(codec: &Described, payload_type: u8, suite: Option<Suite>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let agreed = [(0, 1, 2), (1, 2, 1)].map(|(end, send, receive)| {
            let keys = suite.map(|it| Keys { send: key(it, send), receive: key(it, receive) });
            agreed(end, codec, payload_type, keys)
        });
        let ends = [Script::tone(440), Script::silence()].map(|script| {
            let (acts, _) = mpsc::channel(1);
            let seed = script.steps.len() as u64;
            let save = Some(folder.path().join(format!("{seed}.wav")));
            let talk = Talk { script, save, is_one_of_many: false };
            let live = Box::new(Live::new(&talk, 0, acts));
            Session::new(Instant::ZERO, None, Some(live), &mut SeededRandom::new(seed))
        });
        let mut world = Self {
            now: Instant::ZERO,
            ends,
            agreed,
            inbox: Default::default(),
            sent: 0,
            loses: |_| false,
            is_asleep: false,
            totals: Default::default(),
            folder,
        };
        world.agree(0);
        world.agree(1);
        world
    }

    /// Tells an end what is agreed.
    fn agree(&mut self, end: usize) {
        let agreed = Box::new(self.agreed[end].clone());
        let send_from = Instant::ZERO + TICK;
        let terms = Terms {
            agreed,
            clip: None,
            repeats: false,
            ptime_ms: 20,
            every_ms: None,
            send_from,
            upkeep: None,
        };
        self.ends[end].flow(self.now, terms).unwrap();
    }

    fn wall(&self) -> WallTime {
        WallTime::from_unix_millis(1_800_000_000_000) + self.now.since(Instant::ZERO)
    }

    fn send(&mut self, end: usize, packet: &[u8]) {
        self.sent += u64::from(end == 0);
        if end == 1 || !(self.loses)(self.sent) {
            self.inbox[1 - end].push_back(packet.to_vec());
        }
    }

    fn receive(&mut self, end: usize) {
        while let Some(packet) = self.inbox[end].pop_front() {
            self.deliver(end, address(1 - end), &packet);
        }
    }

    fn deliver(&mut self, end: usize, from: SocketAddr, packet: &[u8]) {
        let wall = self.wall();
        self.ends[end].receive(self.now, wall, from, packet, &mut self.totals[end]);
    }

    /// 20 ms at both ends, as a media thread goes about it.
    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now += TICK;
            let first = usize::from(self.is_asleep);
            let mut out = Vec::new();
            let (now, wall) = (self.now, self.wall());
            for end in first..2 {
                if self.ends[end].hears_late(now) {
                    self.receive(end);
                }
                while self.ends[end].is_due(now, &mut self.totals[end]) {
                    if let Some(outgoing) = self.ends[end].tick(now, &mut out) {
                        assert_eq!((outgoing.port, outgoing.to), (Port::Rtp, address(1 - end)));
                        self.send(end, &out);
                    }
                }
                let random = &mut SeededRandom::new(now.as_nanos());
                if self.ends[end].poll_report(now, wall, false, &mut out, random).is_some() {
                    self.send(end, &out);
                }
            }
            for end in first..2 {
                self.receive(end);
            }
        }
    }

    fn rejected(&self, end: usize) -> u64 {
        self.ends[end].outcome.totals.packets_rejected
    }

    /// Ends both calls.
    fn end(self) -> [Ended; 2] {
        let ended = self.ends.map(|session| {
            let outcome = session.finish();
            let mut report = CallReport::default();
            outcome.report(None, &mut report);
            assert_eq!(report.save_error, None);
            let heard = crate::wav::read(report.saved.as_deref().unwrap()).unwrap().to_vec();
            Ended { report, heard }
        });
        drop(self.folder);
        ended
    }
}

/// The level of the last `ticks`.
fn level(heard: &[i16], ticks: usize) -> f32 {
    audio::level::dbfs(&heard[heard.len() - ticks * FRAME..])
}

#[test]
fn the_tone_arrives_through_every_codec_and_suite() {
    for (codec, payload_type) in
        [(Described::pcmu(), 0), (Described::pcma(), 8), (Described::g722(), 9), (opus(), 111)]
    {
        for suite in Suite::PREFERENCE.map(Some).into_iter().chain([None]) {
            let mut world = World::new(&codec, payload_type, suite);
            world.run(100);
            let [_, Ended { report, heard }] = world.end();
            let name = format!("{} {suite:?}", codec.name);
            let level = level(&heard, 50);
            assert!(TONE_DBFS.contains(&level), "{name}: {level}");
            // Without SRTP the first packet only puts its source on probation.
            let expected = if suite.is_some() { 100 } else { 99 };
            let media = report.media;
            assert_eq!((media.packets_received, media.packets_lost), (expected, 0), "{name}");
            assert_eq!((media.packets_rejected, report.loss_percent), (0, Some(0.0)), "{name}");
            assert_eq!(
                report.codec.map(|it| it.to_ascii_lowercase()),
                Some(codec.name.to_ascii_lowercase())
            );
            assert_eq!(report.suite.as_deref(), suite.map(Suite::name));
        }
    }
}

#[test]
fn loss_is_counted_reported_back_and_concealed() {
    for codec in [Described::pcmu(), opus()] {
        let mut world = World::new(&codec, 96, Some(Suite::AeadAes128Gcm));
        world.loses = |packet| packet % 10 == 5;
        world.run(1_000);
        let [speaker, listener] = world.end();
        let loss = listener.report.loss_percent.unwrap();
        assert!((9.5..10.5).contains(&loss), "{loss}");
        assert!(listener.report.media.packets_lost > 90);
        // Reports come about every 5 s in 20 s, in both directions.
        let media = speaker.report.media;
        assert!((3..=9).contains(&media.rtcp_received), "{media:?}");
        assert!((3..=9).contains(&media.rtcp_sent), "{media:?}");
        assert!(speaker.report.round_trip_ms.is_some());
        // Wherever a packet of silence began, one of these would be all of it.
        let quietest = listener.heard[listener.heard.len() / 2..]
            .chunks_exact(FRAME / 2)
            .map(audio::level::dbfs)
            .fold(f32::MAX, f32::min);
        assert!(quietest > -40.0, "{}: {quietest}", codec.name);
    }
}

#[test]
fn keys_are_heard_at_the_other_end_and_audio_goes_on_after_them() {
    for codec in [Described::pcmu(), opus()] {
        let mut world = World::new(&codec, 96, Some(Suite::AesCm128HmacSha1_80));
        world.run(20);
        world.ends[0].press("12#");
        world.run(110);
        let [speaker, listener] = world.end();
        assert_eq!(listener.report.digits_heard, "12#");
        assert_eq!(speaker.report.media.digits_sent, 3);
        assert_eq!(listener.report.media.packets_lost, 0);
        let level = level(&listener.heard, 25);
        assert!(TONE_DBFS.contains(&level), "{}: {level}", codec.name);
    }
}

#[test]
fn on_hold_nothing_is_sent_and_afterwards_it_goes_on() {
    let mut world = World::new(&Described::g722(), 9, Some(Suite::AeadAes256Gcm));
    world.run(50);
    world.agreed[0].negotiated.direction = Direction::RecvOnly;
    world.agree(0);
    world.run(50);
    assert_eq!(world.ends[0].sent.packets(), 50);
    world.agreed[0].negotiated.direction = Direction::SendRecv;
    world.agree(0);
    world.run(50);
    let [speaker, listener] = world.end();
    assert_eq!(speaker.report.media.packets_sent, 100);
    let media = listener.report.media;
    assert_eq!((media.packets_received, media.packets_lost), (100, 0));
    assert_eq!((media.packets_rejected, media.packets_late), (0, 0));
    // The clock of the stream ran on, so that the pause is silence and no jitter.
    assert!(listener.report.jitter_ms.unwrap() < 1.0, "{:?}", listener.report);
    assert!(audio::level::dbfs(&listener.heard[80 * FRAME..95 * FRAME]) < -50.0);
    let level = level(&listener.heard, 25);
    assert!(TONE_DBFS.contains(&level), "{level}");
    // Who holds goes on hearing the other end, which knows nothing of it.
    assert_eq!(speaker.report.media.packets_received, 150);
}

#[test]
fn a_new_key_takes_effect_at_once() {
    let suite = Suite::AeadAes128Gcm;
    let mut world = World::new(&Described::pcmu(), 0, Some(suite));
    world.run(50);
    world.agreed[0].keys = Some(Keys { send: key(suite, 11), receive: key(suite, 2) });
    world.agree(0);
    world.run(10);
    assert_eq!(world.rejected(1), 10);
    world.agreed[1].keys = Some(Keys { send: key(suite, 2), receive: key(suite, 11) });
    world.agree(1);
    world.run(50);
    assert_eq!((world.rejected(0), world.rejected(1)), (0, 10));
    let [speaker, listener] = world.end();
    // Those that could not be read are missing; the way back kept its key and lost nothing.
    let media = listener.report.media;
    assert_eq!((media.packets_received, media.packets_lost), (100, 10));
    let media = speaker.report.media;
    assert_eq!((media.packets_received, media.packets_lost), (110, 0));
}

#[test]
fn without_srtp_only_the_far_ends_address_is_heard() {
    let stranger: SocketAddr = "198.51.100.1:2".parse().unwrap();
    for (suite, taken, rejected) in [(None, 9, 4), (Some(Suite::AeadAes128Gcm), 11, 2)] {
        let mut world = World::new(&Described::pcmu(), 0, suite);
        world.run(10);
        let (now, wall, mut out) = (world.now, world.wall(), Vec::new());
        assert!(world.ends[0].tick(now, &mut out).is_some());
        world.deliver(1, stranger, &out);
        let random = &mut SeededRandom::new(1);
        assert!(world.ends[0].poll_report(now, wall, true, &mut out, random).is_some());
        world.deliver(1, stranger, &out);
        world.deliver(1, address(0), b"\x16junk");
        world.deliver(1, address(0), &[]);
        let [_, listener] = world.end();
        let media = listener.report.media;
        assert_eq!((media.packets_received, media.packets_rejected), (taken, rejected));
        assert_eq!(media.rtcp_received, u64::from(suite.is_some()));
    }
}

#[test]
fn a_late_thread_sends_no_long_burst_and_its_pause_is_no_loss() {
    let mut world = World::new(&Described::pcmu(), 0, Some(Suite::AeadAes128Gcm));
    world.run(50);
    world.is_asleep = true;
    world.run(20);
    world.is_asleep = false;
    world.run(1);
    // Of 21 packets that were due, only the last three are sent.
    assert_eq!(world.ends[0].sent.packets(), 53);
    assert_eq!((world.totals[0].skipped, world.totals[0].ticks), (18, 71));
    world.run(19);
    let [speaker, listener] = world.end();
    let own = &speaker.report.saturation;
    assert_eq!((own.ticks, own.skipped, own.worst_ms), (90, 18, 400.0));
    let media = listener.report.media;
    assert_eq!((media.packets_received, media.packets_lost), (72, 0));
    // Their time was let pass too: otherwise all that follows would be 360 ms late.
    assert!(listener.report.jitter_ms.unwrap() < 2.0, "{:?}", listener.report.jitter_ms);
    // What came meanwhile came in time, and the file that it is saved to keeps the time.
    assert_eq!((speaker.report.media.packets_received, speaker.report.media.packets_late), (90, 0));
    assert_eq!((speaker.heard.len(), listener.heard.len()), (90 * FRAME, 90 * FRAME));
}

#[test]
fn a_goodbye_is_said_at_the_end_and_nothing_after_it() {
    let mut world = World::new(&Described::pcmu(), 0, None);
    world.run(10);
    let (now, wall, mut out) = (world.now, world.wall(), Vec::new());
    let random = &mut SeededRandom::new(1);
    assert!(world.ends[0].poll_report(now, wall, false, &mut out, random).is_none());
    assert!(world.ends[0].poll_report(now, wall, true, &mut out, random).is_some());
    let compound = Compound::parse(&out).unwrap();
    assert!(compound.packets().any(|it| matches!(it, Rtcp::Goodbye(_))));
    world.ends[0].stop();
    assert_eq!(world.ends[0].poll_timeout(), None);
    assert!(world.ends[0].poll_report(now, wall, true, &mut out, random).is_none());
    world.run(10);
    assert_eq!(world.rejected(0), 0);
    let [speaker, _] = world.end();
    let media = speaker.report.media;
    assert_eq!((media.packets_sent, media.packets_received, media.rtcp_sent), (10, 9, 1));
}

#[test]
fn every_packet_of_a_clip_is_told_apart_by_its_stamp() {
    let suite = Suite::AeadAes128Gcm;
    let clip = Arc::new(Clip::encode(&[1_000; 5 * FRAME], Codec::Pcma, 20).unwrap());
    let mut ends = [(0, Role::Caller, 1, 2), (1, Role::Callee, 2, 1)].map(|it| {
        let (end, role, send, receive) = it;
        let mark = Mark { token: 7, role };
        let mut session =
            Session::new(Instant::ZERO, Some(mark), None, &mut SeededRandom::new(send));
        let keys = Keys { send: key(suite, send), receive: key(suite, receive) };
        let agreed = Box::new(agreed(end, &Described::pcma(), 8, Some(keys)));
        let (clip, send_from) = (Some(Arc::clone(&clip)), Instant::ZERO);
        let terms = Terms {
            agreed,
            clip,
            repeats: true,
            ptime_ms: 20,
            every_ms: None,
            send_from,
            upkeep: None,
        };
        session.flow(Instant::ZERO, terms).unwrap();
        session
    });
    let (mut totals, mut out) = (Totals::default(), Vec::new());
    let wall = WallTime::from_unix_millis(1_800_000_000_000);
    for number in 0..20 {
        let now = Instant::ZERO + TICK * number;
        assert!(ends[0].is_due(now, &mut totals));
        assert!(ends[0].tick(now, &mut out).is_some());
        // The third and the eighth are lost, the ninth comes again.
        let times = match number {
            2 | 7 => 0,
            8 => 2,
            _ => 1,
        };
        for _ in 0..times {
            let at = now + Duration::from_millis(5);
            ends[1].receive(at, wall, address(0), &out, &mut totals);
        }
    }
    let [_, listener] = ends;
    let outcome = listener.finish();
    let seen = outcome.seen.unwrap();
    assert_eq!((seen.unique, seen.lost(), seen.strange, seen.unstamped), (18, 2, 0, 0));
    assert_eq!(seen.delay_max, Duration::from_millis(5));
    // SRTP refuses what comes again before the stamp is looked at.
    assert_eq!((outcome.totals.packets_rejected, outcome.totals.packets_lost), (1, 2));
    assert_eq!(outcome.gap_max, 2 * TICK);
}
