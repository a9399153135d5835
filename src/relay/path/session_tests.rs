//! Stories of one leg: a peer with its own SRTP on the other side of a session, on a manual clock.

use audio::{Codec, Decoder, Encoder, OpusSettings};
use base::{CallId, LegId, Random, limit};
use media::{BargeIn, Channel, Direction, Format, Protection, Purpose, SourceIdentity};
use rtp::Header;
use rtp::packet::Packet;
use rtp::rtcp::{Compound, Rtcp};
use rtp::sdes::{KeySalt, Suite};

use super::*;
use crate::speech;
use crate::srtp::{OVERHEAD, Receiver, Sender};

const MS: Duration = Duration::from_millis(1);
const SUITE: Suite = Suite::AeadAes128Gcm;

fn peer_address() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 10], 4000))
}

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 66], 6666))
}

fn format(codec: Codec, payload_type: u8) -> Format {
    Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 }
}

#[derive(Default)]
struct World {
    sent: Vec<(Port, SocketAddr, Vec<u8>)>,
    events: Vec<MediaEvent>,
    tally: Tally,
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
    fn pass(&mut self, passing: Passing, _: &[u8]) {
        panic!("a voice agent's leg hands nothing on: {passing:?}");
    }
}

/// A session and its peer.
struct Rig {
    now: Instant,
    session: Session,
    world: World,
    plan: LegPlan,
    send: Sender,
    receive: Receiver,
    encoder: Encoder,
    decoder: Decoder,
    source: SocketAddr,
    sequence: u16,
    timestamp: u32,
    tap: rtrb::Consumer<TapFrame>,
    /// What the peer heard, at its codec's rate.
    heard: Vec<i16>,
}

fn keys(seed: u64) -> KeySalt {
    KeySalt::generate(SUITE, &mut SeededRandom::new(seed))
}

fn srtp(send: u64, receive: u64) -> Protection {
    Protection::Srtp { suite: SUITE, send: keys(send), receive: keys(receive) }
}

fn plan(codec: Codec) -> LegPlan {
    let mut random = SeededRandom::new(5);
    let payload_type = codec.payload_type().unwrap_or(111);
    LegPlan {
        leg: LegId { call: CallId::random(&mut random), index: 0 },
        remote: peer_address(),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: srtp(1, 2),
        send: Some(format(codec, payload_type)),
        accept: vec![format(codec, payload_type)],
        opaque: Vec::new(),
        sendable: vec![],
        telephone_event: Some(media::TelephoneEvent {
            send: 101,
            receive: 101,
            clock_rate: codec.clock_rate(),
        }),
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(&mut random),
        purpose: Purpose::Agent { barge_in: Some(BargeIn::default()) },
    }
}

impl Rig {
    fn new() -> Self {
        Self::with(plan(Codec::Pcmu))
    }

    fn with(plan: LegPlan) -> Self {
        let now = Instant::from_nanos(7_000_000_000);
        let mut session =
            Session::new(now, WallTime::from_unix_millis(1_800_000_000_000), 3, false);
        let (ring, tap) = rtrb::RingBuffer::new(4096);
        assert!(session.tap(ring));
        session.apply(now, plan.clone(), None, &mut World::default()).unwrap();
        let codec = plan.send.unwrap().codec;
        let opus = OpusSettings { sample_rate: codec.sample_rate(), ..OpusSettings::default() };
        Self {
            now,
            session,
            world: World::default(),
            send: Sender::new(SUITE, &keys(2)).unwrap(),
            receive: Receiver::new(SUITE, &keys(1)).unwrap(),
            encoder: Encoder::new(codec, &opus).unwrap(),
            decoder: Decoder::new(codec, codec.sample_rate()).unwrap(),
            plan,
            source: peer_address(),
            sequence: 100,
            timestamp: 5_000,
            tap,
            heard: Vec::new(),
        }
    }

    fn packet(&mut self, payload_type: u8, payload: &[u8]) -> Vec<u8> {
        let header = Header {
            marker: false,
            payload_type,
            sequence: self.sequence,
            timestamp: self.timestamp,
            ssrc: 77,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut packet = vec![0; 12 + payload.len() + OVERHEAD];
        let length = header.write(payload, &mut packet).unwrap();
        if matches!(self.plan.protection, Protection::Srtp { .. }) {
            let length = self.send.protect_rtp(&mut packet, length).unwrap();
            packet.truncate(length);
        } else {
            packet.truncate(length);
        }
        packet
    }

    /// A packet with 20 ms of sound at the codec's rate; the peer's clock goes on.
    fn voice(&mut self, sound: &[i16]) -> Vec<u8> {
        let mut payload = [0; 1500];
        let length = self.encoder.encode(sound, &mut payload).unwrap();
        let packet = self.packet(self.plan.accept[0].payload_type, &payload[..length]);
        self.timestamp = self.timestamp.wrapping_add(self.plan.accept[0].codec.timestamp_step(20));
        packet
    }

    fn deliver(&mut self, source: SocketAddr, packet: &[u8]) {
        let mut packet = packet.to_vec();
        self.session.on_datagram(self.now, Port::Rtp, source, &mut packet, &mut self.world);
    }

    /// 20 ms pass; returns what was sent in them, RTP unprotected.
    fn pass(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        self.now += FRAME;
        self.session.tick(self.now, &mut self.world);
        let mut rtp = Vec::new();
        for (_, to, mut packet) in std::mem::take(&mut self.world.sent) {
            if rtp::classify(&packet) == rtp::Datagram::Rtp {
                if matches!(self.plan.protection, Protection::Srtp { .. }) {
                    let length = self.receive.unprotect_rtp(&mut packet).unwrap().length;
                    packet.truncate(length);
                }
                let parsed = Packet::parse(&packet).unwrap();
                if Some(parsed.payload_type()) == self.plan.send.map(|it| it.payload_type) {
                    let mut sound = [0; 5760];
                    let length = self.decoder.decode(parsed.payload(), &mut sound).unwrap();
                    self.heard.extend_from_slice(&sound[..length]);
                }
            }
            rtp.push((to, packet));
        }
        rtp
    }

    /// 20 ms pass in which the peer sends `sound`.
    fn talk(&mut self, sound: &[i16]) -> Vec<(SocketAddr, Vec<u8>)> {
        let packet = self.voice(sound);
        self.deliver(self.source, &packet);
        self.pass()
    }

    fn play(&mut self, samples: &[i16]) {
        self.session.play(1, Arc::from(samples), true, &mut self.world);
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.world.tally.dropped(reason)
    }

    /// What the recogniser heard of one channel.
    fn tapped(&mut self, channel: Channel) -> Vec<i16> {
        let mut sound = Vec::new();
        while let Ok(frame) = self.tap.pop() {
            if frame.channel == channel {
                sound.extend_from_slice(&frame.samples);
            }
        }
        sound
    }

    fn events(&mut self) -> Vec<MediaEvent> {
        std::mem::take(&mut self.world.events)
    }
}

fn sine(rate: u32, samples: usize) -> Vec<i16> {
    let turn = 440.0 * 2.0 * std::f32::consts::PI / rate as f32;
    (0..samples).map(|at| ((at as f32 * turn).sin() * 8000.0) as i16).collect()
}

/// How well `heard` repeats `said`, in dB, at the best of the delays up to `most`.
fn likeness(said: &[i16], heard: &[i16], most: usize) -> f64 {
    let at = |delay: usize| audio::level::snr_db(said, heard.get(delay..).unwrap_or(&[]));
    (0..most).map(at).fold(f64::NEG_INFINITY, f64::max)
}

fn stopped(events: &[MediaEvent]) -> Option<(u64, u64)> {
    events.iter().find_map(|event| match event {
        MediaEvent::PlayoutStopped { played, position, .. } => Some((*played, *position)),
        _ => None,
    })
}

#[test]
fn the_greeting_is_heard_from_its_first_sample_on() {
    for codec in [Codec::Pcmu, Codec::Pcma, Codec::G722] {
        let mut rig = Rig::with(plan(codec));
        (0..5).for_each(|_| drop(rig.pass()));
        let greeting = sine(16_000, 16_000);
        rig.play(&greeting);
        (0..60).for_each(|_| drop(rig.pass()));
        let rate = codec.sample_rate();
        let start = rate.samples(100);
        assert!(audio::level::peak(&rig.heard[..start]) < 16, "{codec:?}: silence first");
        let said = sine(rate.hz(), rate.samples(900));
        let snr = likeness(&said, &rig.heard[start..], rate.samples(8));
        assert!(snr > 15.0, "{codec:?}: {snr}");
        let events = rig.events();
        assert!(events.contains(&MediaEvent::PlayoutStarted { speech: 1, position: 1600 }));
        assert!(events.contains(&MediaEvent::PlayoutFinished { speech: 1, position: 17_600 }));
    }
}

#[test]
fn every_codec_carries_both_voices() {
    for codec in Codec::ALL {
        let mut rig = Rig::with(plan(codec));
        let samples = codec.sample_rate().samples(20);
        let tone = sine(codec.sample_rate().hz(), samples * 50);
        rig.play(&sine(16_000, 16_000));
        tone.chunks(samples).for_each(|sound| drop(rig.talk(sound)));
        let heard = audio::level::dbfs(&rig.tapped(Channel::Caller)[8_000..]);
        assert!((heard + 15.3).abs() < 3.0, "{codec:?}: {heard}");
        let said = audio::level::dbfs(&rig.heard[rig.heard.len() / 2..]);
        assert!((said + 15.3).abs() < 3.0, "{codec:?}: {said}");
        assert_eq!(rig.world.tally.total(Meter::Concealed), 0);
    }
}

#[test]
fn sequence_and_timestamps_go_on_without_a_gap() {
    let mut rig = Rig::new();
    let first = rig.plan.source.clone();
    for n in 0..100u16 {
        let sent = rig.pass();
        let packet = Packet::parse(&sent[0].1).unwrap();
        assert_eq!(packet.sequence(), first.sequence.wrapping_add(n));
        assert_eq!(packet.timestamp(), first.timestamp.wrapping_add(u32::from(n) * 160));
        assert_eq!((packet.ssrc(), packet.marker()), (first.ssrc, n == 0));
    }
}

#[test]
fn a_stranger_is_neither_heard_nor_sent_to() {
    let mut rig = Rig::new();
    let mut thief = Rig::new();
    thief.send = Sender::new(SUITE, &keys(99)).unwrap();
    thief.sequence = 500;
    let noise = thief.voice(&[9000; 160]);
    rig.deliver(elsewhere(), &noise);
    for to in rig.pass() {
        assert_eq!(to.0, peer_address());
    }
    (0..20).for_each(|_| drop(rig.talk(&[0; 160])));
    let noise = thief.voice(&[9000; 160]);
    rig.deliver(elsewhere(), &noise);
    assert_eq!(rig.drops(DropReason::NotAuthentic), 2);
    for to in rig.pass() {
        assert_eq!(to.0, peer_address());
    }
    assert!(audio::level::peak(&rig.tapped(Channel::Caller)) < 16);
    assert_eq!(rig.events(), [MediaEvent::Latched { source: peer_address(), moved: false }]);
}

#[test]
fn a_replayed_packet_from_elsewhere_moves_nothing() {
    let mut rig = Rig::new();
    let first = rig.voice(&[0; 160]);
    let late = rig.voice(&[0; 160]);
    let newest = rig.voice(&[0; 160]);
    rig.deliver(peer_address(), &first);
    rig.deliver(peer_address(), &newest);
    rig.deliver(elsewhere(), &first);
    rig.deliver(elsewhere(), &late);
    assert_eq!(rig.drops(DropReason::Replayed), 1);
    assert_eq!(rig.pass()[0].0, peer_address());
    assert_eq!(rig.events().len(), 1);
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    let mut rig = Rig::new();
    rig.talk(&[0; 160]);
    rig.source = elsewhere();
    assert_eq!(rig.talk(&[0; 160])[0].0, elsewhere());
    let moved = MediaEvent::Latched { source: elsewhere(), moved: true };
    assert!(rig.events().contains(&moved));
}

#[test]
fn an_address_that_never_answers_is_sent_to_for_a_while_only() {
    let mut rig = Rig::new();
    let sent: usize = (0..2_000).map(|_| rig.pass().len()).sum();
    assert_eq!(sent, limit::RELAY_UNLATCHED_PACKETS.get());
    assert!(rig.drops(DropReason::Unlatched) > 400);
    rig.talk(&[0; 160]);
    assert_eq!(rig.pass().len(), 1);
}

#[test]
fn plain_audio_is_taken_from_the_trunks_networks_only() {
    let mut plain = plan(Codec::Pcmu);
    plain.protection = Protection::Plain { from: vec!["192.0.2.0/24".parse().unwrap()] };
    let mut rig = Rig::with(plain);
    let packet = rig.voice(&[0; 160]);
    rig.deliver(elsewhere(), &packet);
    assert_eq!(rig.drops(DropReason::SourceNetwork), 1);
    rig.deliver(peer_address(), &packet);
    let intruder = SocketAddr::from(([192, 0, 2, 99], 1));
    let packet = rig.voice(&[9000; 160]);
    rig.deliver(intruder, &packet);
    assert_eq!(rig.drops(DropReason::Stranger), 1);
    assert_eq!(rig.pass()[0].0, peer_address());
    assert_eq!(rig.events().len(), 1);
}

/// Runs the agent's speech against what the far end sends for each frame that it hears.
fn converse(rig: &mut Rig, frames: usize, mut far: impl FnMut(usize, &[i16]) -> Vec<i16>) {
    rig.play(&speech::agent());
    for frame in 0..frames {
        let sound = far(frame, &rig.heard);
        rig.talk(&sound);
    }
}

fn narrow(voice: &[i16]) -> Vec<i16> {
    voice.iter().step_by(2).copied().collect()
}

/// The far end's echo of what it heard, for one frame.
fn echo(heard: &[i16], frame: usize, delay: usize, db: f32) -> Vec<i16> {
    let gain = audio::level::from_db(db);
    let at = |n: usize| (frame * 160 + n).checked_sub(delay).and_then(|at| heard.get(at));
    (0..160).map(|n| (f32::from(at(n).copied().unwrap_or(0)) * gain) as i16).collect()
}

#[test]
fn the_agent_stops_for_the_caller_within_200_ms() {
    let mut rig = Rig::new();
    let caller = narrow(&speech::caller());
    let onset = 50;
    let mut decided = None;
    rig.play(&speech::agent());
    for frame in 0..100 {
        let at = (frame as usize).checked_sub(onset).map_or(0, |f| f * 160);
        let sound =
            if frame as usize >= onset { caller[at..at + 160].to_vec() } else { vec![0; 160] };
        rig.talk(&sound);
        if let Some((played, position)) = stopped(&rig.world.events) {
            decided = Some((frame as usize, played, position));
            break;
        }
    }
    let (frame, played, position) = decided.expect("never stopped");
    assert!(frame - onset <= 10, "{} ms after the onset", (frame - onset) * 20);
    // The speech began with the first frame, so all that was sent is all that passed.
    assert_eq!((played, position), (frame as u64 * 320, frame as u64 * 320));
    // The frame of the decision holds no speech, beyond what rings in the resampler.
    let last = &rig.heard[frame * 160..];
    assert_eq!(last.len(), 160);
    assert!(audio::level::peak(last) < 16, "{}", audio::level::peak(last));
    assert!(rig.events().iter().any(|event| matches!(event, MediaEvent::SpeechStarted { .. })));
}

#[test]
fn the_agents_own_echo_does_not_stop_it() {
    for (delay_ms, db) in [(40, -10.0), (120, -10.0), (200, -15.0), (300, -20.0), (300, -10.0)] {
        let mut rig = Rig::new();
        converse(&mut rig, 150, |frame, heard| echo(heard, frame, delay_ms * 8, db));
        let events = rig.events();
        assert_eq!(stopped(&events), None, "{delay_ms} ms {db} dB");
        let spoke = events.iter().any(|event| matches!(event, MediaEvent::SpeechStarted { .. }));
        assert!(!spoke, "{delay_ms} ms {db} dB: {events:?}");
    }
}

#[test]
fn a_caller_who_talks_over_the_echo_stops_the_agent() {
    let caller = narrow(&speech::caller());
    let mut rig = Rig::new();
    converse(&mut rig, 110, |frame, heard| {
        let echo = echo(heard, frame, 960, -15.0);
        match frame.checked_sub(60) {
            Some(at) => speech::mix(&echo, &caller[at * 160..(at + 1) * 160]),
            None => echo,
        }
    });
    let (_, position) = stopped(&rig.events()).expect("never stopped");
    assert!(position >= 60 * 320, "the echo did it");
    assert!(position <= 80 * 320, "{} ms", (position - 60 * 320) / 16);
}

#[test]
fn a_sentence_in_silence_has_a_start_and_an_end() {
    let mut rig = Rig::new();
    let caller = narrow(&speech::caller());
    let sound = [vec![0; 160 * 50], caller, vec![0; 160 * 60]].concat();
    sound.chunks_exact(160).for_each(|sound| drop(rig.talk(sound)));
    let events = rig.events();
    let begins = events.iter().find_map(|event| match event {
        MediaEvent::SpeechStarted { position } => Some(*position),
        _ => None,
    });
    let ends = events.iter().rev().find_map(|event| match event {
        MediaEvent::SpeechEnded { position } => Some(*position),
        _ => None,
    });
    // The sentence lasts from 1.0 s to 4.0 s; the jitter buffer adds its delay.
    let (begins, ends) = (begins.unwrap(), ends.unwrap());
    assert!((16_000..=20_000).contains(&begins), "{begins}");
    assert!((55_000..=72_000).contains(&ends), "{ends}");
}

#[test]
fn an_agent_that_may_finish_is_not_stopped() {
    let mut stubborn = plan(Codec::Pcmu);
    stubborn.purpose = Purpose::Agent { barge_in: None };
    let mut rig = Rig::with(stubborn);
    let caller = narrow(&speech::caller());
    converse(&mut rig, 100, |frame, _| caller[frame * 160..(frame + 1) * 160].to_vec());
    assert_eq!(stopped(&rig.events()), None);
}

#[test]
fn a_speech_that_is_stopped_by_order_leaves_no_sample_behind() {
    for packet_ms in [10, 20, 30, 40, 60] {
        let mut slow = plan(Codec::Pcmu);
        slow.send = slow.send.map(|send| Format { packet_ms, ..send });
        let mut rig = Rig::with(slow);
        rig.play(&[8000; 32_000]);
        (0..13).for_each(|_| drop(rig.pass()));
        rig.session.stop_playout(&mut rig.world);
        let sent = rig.heard.len();
        let (played, position) = stopped(&rig.events()).unwrap();
        assert_eq!((played, position), (sent as u64 * 2, sent as u64 * 2), "{packet_ms}");
        (0..10).for_each(|_| drop(rig.pass()));
        assert!(audio::level::peak(&rig.heard[sent..]) < 16, "{packet_ms}");
    }
}

#[test]
fn a_key_is_reported_once_and_not_heard() {
    let mut rig = Rig::new();
    (0..10).for_each(|_| drop(rig.talk(&[0; 160])));
    rig.tapped(Channel::Caller);
    for n in 1..=8u16 {
        let end = if n > 5 { 0x80 } else { 0 };
        let [high, low] = (n.min(6) * 160).to_be_bytes();
        let packet = rig.packet(101, &[5, end | 10, high, low]);
        rig.deliver(peer_address(), &packet);
        rig.deliver(peer_address(), &packet);
        rig.pass();
    }
    rig.timestamp += 8 * 160;
    (0..10).for_each(|_| drop(rig.talk(&[0; 160])));
    let digits =
        rig.events().into_iter().filter(|e| matches!(e, MediaEvent::Digit { digit: '5', .. }));
    assert_eq!(digits.count(), 1);
    assert!(audio::level::peak(&rig.tapped(Channel::Caller)) < 200);
}

#[test]
fn keys_are_pressed_as_events_and_speech_waits_for_them() {
    let mut rig = Rig::new();
    rig.play(&[8000; 3200]);
    assert!(rig.session.send_digits(rig.now, "1#"));
    assert!(!rig.session.send_digits(rig.now, "x"));
    let mut seen = Vec::new();
    for _ in 0..60 {
        for (_, packet) in rig.pass() {
            let packet = Packet::parse(&packet).unwrap();
            if packet.payload_type() == 101 && packet.marker() {
                seen.push(packet.payload()[0]);
            }
        }
    }
    assert_eq!(seen, [1, 11]);
    let finished = |event: &MediaEvent| matches!(event, MediaEvent::PlayoutFinished { .. });
    assert!(rig.events().iter().any(finished));
    assert!(audio::level::peak(&rig.heard) > 7000);
}

#[test]
fn loss_reordering_and_jitter_leave_no_hole_in_a_tone() {
    let mut rig = Rig::new();
    let mut random = SeededRandom::new(11);
    let mut flying: Vec<(Instant, Vec<u8>)> = Vec::new();
    for sound in sine(8_000, 160 * 400).chunks(160) {
        let packet = rig.voice(sound);
        if random.below(100) >= 5 {
            flying.push((rig.now + MS * random.below(50), packet));
        }
        for step in 0..4 {
            let now = rig.now + MS * (step * 5);
            let mut due: Vec<_> = Vec::new();
            flying.retain(|(at, packet)| {
                let arrived = *at <= now;
                if arrived {
                    due.push(packet.clone());
                }
                !arrived
            });
            for mut packet in due {
                let source = rig.source;
                rig.session.on_datagram(now, Port::Rtp, source, &mut packet, &mut rig.world);
            }
        }
        rig.pass();
    }
    let heard = rig.tapped(Channel::Caller);
    let holes = heard[32_000..].chunks(320).filter(|frame| audio::level::dbfs(frame) < -30.0);
    assert!(holes.count() <= 4);
    assert!(rig.world.tally.total(Meter::Concealed) > 5);
}

#[test]
fn a_leg_on_hold_is_silent_and_still_reports() {
    let mut rig = Rig::new();
    rig.talk(&[0; 160]);
    let mut hold = rig.plan.clone();
    hold.direction = Direction { send: false, receive: false };
    rig.session.apply(rig.now, hold, None, &mut rig.world).unwrap();
    rig.tapped(Channel::Caller);
    let mut control = 0;
    for _ in 0..600 {
        for (_, packet) in rig.talk(&[9000; 160]) {
            assert_eq!(rtp::classify(&packet), rtp::Datagram::Rtcp);
            control += 1;
        }
    }
    assert!(control >= 2, "{control}");
    assert!(rig.drops(DropReason::Held) > 500);
    assert_eq!(audio::level::peak(&rig.tapped(Channel::Caller)), 0);
    rig.session.apply(rig.now, rig.plan.clone(), None, &mut rig.world).unwrap();
    let back = rig.pass();
    assert!(Packet::parse(&back[0].1).unwrap().marker());
}

#[test]
fn new_keys_take_over_without_a_break_in_the_numbers() {
    let mut rig = Rig::new();
    let last = rig.talk(&[0; 160]);
    let last = Packet::parse(&last[0].1).unwrap().sequence();
    let old = rig.voice(&[0; 160]);
    let mut again = rig.plan.clone();
    again.protection = srtp(31, 32);
    again.source = SourceIdentity::random(&mut SeededRandom::new(77));
    rig.session.apply(rig.now, again, None, &mut rig.world).unwrap();
    rig.receive = Receiver::new(SUITE, &keys(31)).unwrap();
    rig.deliver(peer_address(), &old);
    assert_eq!(rig.drops(DropReason::NotAuthentic), 0, "old packets are in flight");
    rig.send = Sender::new(SUITE, &keys(32)).unwrap();
    let next = rig.talk(&[0; 160]);
    let next = Packet::parse(&next[0].1).unwrap();
    assert_eq!((next.sequence(), next.ssrc()), (last.wrapping_add(1), rig.plan.source.ssrc));
    assert_eq!(rig.drops(DropReason::NotAuthentic), 0);
    rig.now += Duration::from_secs(3);
    rig.send = Sender::new(SUITE, &keys(2)).unwrap();
    let old = rig.voice(&[0; 160]);
    rig.deliver(peer_address(), &old);
    assert_eq!(rig.drops(DropReason::NotAuthentic), 1);
}

#[test]
fn a_silent_peer_is_reported_again_and_again() {
    let mut quiet = plan(Codec::Pcmu);
    quiet.inactive = Duration::from_secs(2);
    let mut rig = Rig::with(quiet);
    let inactive = |rig: &mut Rig| {
        let events = rig.events();
        events.iter().filter(|event| **event == MediaEvent::Inactive).count()
    };
    (0..220).for_each(|_| drop(rig.pass()));
    assert_eq!(inactive(&mut rig), 2);
    (0..220).for_each(|_| drop(rig.talk(&[0; 160])));
    assert_eq!(inactive(&mut rig), 0);
}

#[test]
fn reports_come_every_five_seconds_and_a_goodbye_at_the_end() {
    let mut rig = Rig::new();
    let mut control: Vec<Vec<u8>> = Vec::new();
    let is_rtcp = |packet: &[u8]| rtp::classify(packet) == rtp::Datagram::Rtcp;
    for _ in 0..1_500 {
        let sent = rig.talk(&[0; 160]);
        control.extend(sent.into_iter().map(|(_, packet)| packet).filter(|p| is_rtcp(p)));
    }
    assert!((5..=15).contains(&control.len()), "{}", control.len());
    let reports = rig.events().into_iter().filter_map(|event| match event {
        MediaEvent::Report { quality, last: false } => Some(quality),
        _ => None,
    });
    let reports: Vec<_> = reports.collect();
    assert_eq!(reports.len(), 6);
    let last = reports[5];
    assert!(last.received > 1_400 && last.sent > 1_400 && last.lost == 0 && last.mos > Some(4.0));
    let now = rig.now;
    rig.session.release(now, &mut rig.world);
    let (_, to, mut packet) = rig.world.sent.pop().unwrap();
    assert_eq!(to, peer_address());
    let (length, _) = rig.receive.unprotect_rtcp(&mut packet).unwrap();
    let packets = Compound::parse(&packet[..length]).unwrap().packets().collect::<Vec<_>>();
    assert!(matches!(packets.last(), Some(Rtcp::Goodbye(_))));
    assert!(matches!(rig.events()[..], [MediaEvent::Report { last: true, .. }]));
    assert_eq!(rig.session.poll_timeout(), None);
    assert_eq!(rig.pass().len(), 0);
}

#[test]
fn reports_have_a_way_of_their_own_without_mux() {
    let told = SocketAddr::from(([192, 0, 2, 10], 4001));
    let mut apart = plan(Codec::Pcmu);
    apart.remote_rtcp = Some(told);
    let mut rig = Rig::with(apart.clone());
    let now = rig.now;
    rig.session = Session::new(now, WallTime::default(), 3, true);
    rig.session.apply(now, apart, None, &mut rig.world).unwrap();
    let reported = |rig: &mut Rig| -> (Port, SocketAddr) {
        for _ in 0..500 {
            rig.now += FRAME;
            rig.session.tick(rig.now, &mut rig.world);
            let sent = std::mem::take(&mut rig.world.sent);
            let rtcp = |bytes: &[u8]| rtp::classify(bytes) == rtp::Datagram::Rtcp;
            if let Some((port, to, _)) = sent.into_iter().find(|(.., bytes)| rtcp(bytes)) {
                return (port, to);
            }
        }
        panic!("no report");
    };
    assert_eq!(reported(&mut rig), (Port::Rtcp, told));
    let mut report = [0x80, 201, 0, 1, 0, 0, 0, 77].to_vec();
    report.resize(8 + OVERHEAD, 0);
    let length = rig.send.protect_rtcp(&mut report, 8).unwrap();
    let report = &mut report[..length];
    rig.session.on_datagram(rig.now, Port::Rtcp, elsewhere(), report, &mut rig.world);
    assert_eq!(reported(&mut rig), (Port::Rtcp, elsewhere()));
    let mut rtp = rig.voice(&[0; 160]);
    rig.session.on_datagram(rig.now, Port::Rtcp, elsewhere(), &mut rtp, &mut rig.world);
    assert_eq!(rig.drops(DropReason::NotMedia), 1);
}

#[test]
fn silence_may_be_left_out_and_the_next_word_is_marked() {
    let mut saving = plan(Codec::Opus);
    saving.send = saving.send.map(|send| Format { dtx: true, ..send });
    let mut rig = Rig::with(saving);
    let silent: usize = (0..200).map(|_| rig.pass().len()).sum();
    assert!(silent < 80, "{silent}");
    rig.play(&sine(16_000, 6_400));
    let mut marked = Vec::new();
    for _ in 0..20 {
        for (_, packet) in rig.pass() {
            let packet = Packet::parse(&packet).unwrap();
            let frame = packet.timestamp().wrapping_sub(rig.plan.source.timestamp) / 960;
            marked.extend(packet.marker().then_some(frame));
        }
    }
    assert!(marked.iter().all(|frame| *frame == 200) && marked.len() == 1, "{marked:?}");
}

#[test]
fn a_late_worker_leaves_old_frames_out() {
    let mut rig = Rig::new();
    rig.pass();
    rig.now += Duration::from_secs(1);
    assert_eq!(rig.pass().len(), CATCH_UP as usize);
    assert!((45..=50).contains(&rig.world.tally.total(Meter::Skipped)));
    assert_eq!(rig.pass().len(), 1);
}

#[test]
fn no_bytes_make_a_session_panic() {
    let mut plain = plan(Codec::Opus);
    plain.protection = Protection::Plain { from: vec!["0.0.0.0/0".parse().unwrap()] };
    plain.accept.push(format(Codec::Pcma, 8));
    let mut rig = Rig::with(plain);
    let mut random = SeededRandom::new(1);
    for n in 0..20_000u32 {
        let mut packet = vec![0; random.below(200) as usize];
        random.fill(&mut packet);
        if packet.len() > 12 && n % 2 == 0 {
            packet[0] = 0x80;
            packet[1] = [111, 8, 101, 200, 201, 203][random.below(6) as usize];
            packet[2..4].copy_from_slice(&(n as u16).to_be_bytes());
            packet[8..12].copy_from_slice(&7u32.to_be_bytes());
        }
        rig.deliver(peer_address(), &packet);
        if n % 10 == 0 {
            rig.now += FRAME;
            rig.session.tick(rig.now, &mut rig.world);
            rig.world.sent.clear();
        }
    }
    assert!(rig.drops(DropReason::NotMedia) > 100 && rig.drops(DropReason::Malformed) > 100);
}
