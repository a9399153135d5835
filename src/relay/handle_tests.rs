//! One call over real sockets on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, sync_channel};

use audio::Codec;
use base::{CallId, LegId, SeededRandom};
use media::{Direction, Format, LegPlan, MediaEvent, Need, Protection, Purpose, SourceIdentity};
use rtp::sdes::{KeySalt, Suite};

use super::*;
use crate::srtp;

struct Sink(SyncSender<(SessionId, MediaEvent)>);

impl EventSink for Sink {
    fn deliver(&mut self, session: SessionId, event: MediaEvent) {
        let _ = self.0.try_send((session, event));
    }
    fn failed(&mut self, session: SessionId) {
        panic!("{session} failed");
    }
}

const WAIT: Duration = Duration::from_secs(20);

fn wait_for<T>(
    events: &Receiver<(SessionId, MediaEvent)>,
    mut pick: impl FnMut(MediaEvent) -> Option<T>,
) -> T {
    // A session reports every five seconds: other events are no reason to wait on.
    for _ in 0..20 {
        let (_, event) = events.recv_timeout(WAIT).expect("no event");
        if let Some(found) = pick(event) {
            return found;
        }
    }
    panic!("no such event");
}

fn plan(protection: Protection, random: &mut SeededRandom) -> LegPlan {
    let pcma =
        Format { codec: Codec::Pcma, payload_type: 8, packet_ms: 20, dtx: false, bitrate: 0 };
    LegPlan {
        leg: LegId { call: CallId::random(random), index: 0 },
        remote: SocketAddr::from(([127, 0, 0, 1], 9)),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection,
        send: Some(pcma),
        accept: vec![pcma],
        opaque: Vec::new(),
        sendable: Vec::new(),
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(random),
        purpose: Purpose::Agent { barge_in: None },
    }
}

#[test]
fn a_call_flows_over_real_sockets() {
    for driver in [DriverChoice::Epoll, DriverChoice::Auto] {
        a_call_flows(driver);
    }
}

fn config(driver: DriverChoice, ports: RangeInclusive<u16>) -> RelayConfig {
    RelayConfig { workers: 2, ports, seed: 7, driver, ice_tcp: Vec::new(), browser_port: None }
}

fn a_call_flows(driver: DriverChoice) {
    let (sender, events) = sync_channel(1024);
    let config = config(driver, 21_000..=21_999);
    let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone()))).unwrap();
    assert_eq!(relay.refusal() == Some(Refusal::NotWanted), driver == DriverChoice::Epoll);
    let (handle, session) = (relay.handle(), SessionId::new(5, 0));
    let need = Need {
        bind: IpAddr::from([127, 0, 0, 1]),
        beside: None,
        separate_rtcp: true,
        dtls: false,
        fresh_identity: false,
    };
    handle.command(session, Command::Reserve(need)).unwrap();
    let reserved = wait_for(&events, |event| match event {
        MediaEvent::Reserved(reserved) => Some(reserved),
        _ => None,
    });
    assert_eq!(reserved.rtp.port() % 2, 0);
    assert_eq!(reserved.rtcp.map(|rtcp| rtcp.port()), Some(reserved.rtp.port() + 1));

    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(WAIT)).unwrap();
    let mut random = SeededRandom::new(1);
    let suite = Suite::AesCm128HmacSha1_80;
    let (ours, theirs) =
        (KeySalt::generate(suite, &mut random), KeySalt::generate(suite, &mut random));
    let protection = Protection::Srtp { suite, send: ours.clone(), receive: theirs.clone() };
    let plan = plan(protection, &mut random);
    handle.command(session, Command::Apply { plan: Box::new(plan), with: None }).unwrap();
    let samples: Arc<[i16]> = Arc::from(vec![8000; 16_000]);
    handle.command(session, Command::Play { speech: 1, samples, last: true }).unwrap();

    // What arrives before the plan is dropped, so the peer speaks when the plan is at work.
    wait_for(&events, |event| matches!(event, MediaEvent::PlayoutStarted { .. }).then_some(()));
    // The peer's SDP gave a wrong port; its packet shows the right one.
    let mut packet = [0; 200];
    packet[..2].copy_from_slice(&[0x80, 8]);
    packet[8..12].copy_from_slice(&[1, 2, 3, 4]);
    let length = srtp::Sender::new(suite, &theirs).unwrap().protect_rtp(&mut packet, 172).unwrap();
    peer.send_to(&packet[..length], reserved.rtp).unwrap();
    let source = wait_for(&events, |event| match event {
        MediaEvent::Latched { source, moved: false } => Some(source),
        _ => None,
    });
    assert_eq!(source, peer.local_addr().unwrap());

    let mut receiver = srtp::Receiver::new(suite, &ours).unwrap();
    let mut buffer = [0; 1500];
    for _ in 0..5 {
        let (length, from) = peer.recv_from(&mut buffer).unwrap();
        assert_eq!(from, reserved.rtp);
        let seen = receiver.unprotect_rtp(&mut buffer[..length]).unwrap();
        assert_eq!((seen.length, buffer[1] & 0x7f), (172, 8));
    }
    handle.command(session, Command::Release).unwrap();
    let quality = wait_for(&events, |event| match event {
        MediaEvent::Report { quality, last: true } => Some(quality),
        _ => None,
    });
    assert_eq!(quality.received, 1);
    relay.drain(WAIT);
    assert!(handle.counters().total(crate::path::counters::Meter::Sent) >= 6);
    assert_eq!(handle.command(session, Command::StopPlayout), Err(Full));
}

#[test]
fn what_was_posted_is_done_with_one_wake() {
    for driver in [DriverChoice::Epoll, DriverChoice::Auto] {
        let (sender, events) = sync_channel(1024);
        let config = config(driver, 23_000..=23_999);
        let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone()))).unwrap();
        let handle = relay.handle();
        let need = Need {
            bind: IpAddr::from([127, 0, 0, 1]),
            beside: None,
            separate_rtcp: true,
            dtls: false,
            fresh_identity: false,
        };
        // Stems that follow each other belong to different workers.
        let sessions = [(7, 0), (7, 1), (8, 0)].map(|(stem, leg)| SessionId::new(stem, leg));
        for session in sessions {
            handle.post(session, Command::Reserve(need)).unwrap();
        }
        handle.wake();
        for _ in sessions {
            wait_for(&events, |event| matches!(event, MediaEvent::Reserved(_)).then_some(()));
        }
        relay.drain(Duration::ZERO);
    }
}

#[test]
fn two_legs_hear_each_other_over_real_sockets() {
    for driver in [DriverChoice::Auto, DriverChoice::Epoll] {
        let (sender, events) = sync_channel(1024);
        let config = config(driver, 22_000..=22_999);
        let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone()))).unwrap();
        let (handle, sessions) = (relay.handle(), [0, 1].map(|leg| SessionId::new(6, leg)));
        let need = Need {
            bind: IpAddr::from([127, 0, 0, 1]),
            beside: None,
            separate_rtcp: false,
            dtls: false,
            fresh_identity: false,
        };
        let ports = sessions.map(|session| {
            handle.command(session, Command::Reserve(need)).unwrap();
            wait_for(&events, |event| match event {
                MediaEvent::Reserved(reserved) => Some(reserved.rtp),
                _ => None,
            })
        });
        let peers = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut plans = [0, 1].map(|leg: usize| {
            let from = vec!["127.0.0.0/8".parse().unwrap()];
            let mut plan = plan(Protection::Plain { from }, &mut SeededRandom::new(leg as u64));
            plan.leg.index = leg as u8;
            plan.remote = peers[leg].local_addr().unwrap();
            plan.sendable = plan.accept.clone();
            plan
        });
        let rule =
            media::Rule { keys_from: media::KeyForm::Events, keys_to: media::KeyForm::Events };
        let there = media::between(&plans[0], &plans[1], rule);
        let back = media::between(&plans[1], &plans[0], rule);
        plans[0].purpose = Purpose::Bridge(Some(there));
        plans[1].purpose = Purpose::Bridge(Some(back));
        for (at, plan) in plans.into_iter().enumerate() {
            let with = Some(sessions[1 - at]);
            handle.command(sessions[at], Command::Apply { plan: Box::new(plan), with }).unwrap();
        }
        let mut buffer = [0; 1500];
        for n in 0..20_u8 {
            for (one, other) in [(0, 1), (1, 0)] {
                let mut packet = [n; 172];
                packet[..4].copy_from_slice(&[0x80, 8, 0, n]);
                packet[8..12].copy_from_slice(&[1, 2, 3, one as u8]);
                peers[other].set_read_timeout(Some(WAIT / 100)).unwrap();
                // What arrives before the plan is dropped; what comes twice goes on once.
                let heard = (0..100).find_map(|_| {
                    peers[one].send_to(&packet, ports[one]).unwrap();
                    peers[other].recv_from(&mut buffer).ok()
                });
                assert_eq!(heard, Some((172, ports[other])));
                assert_eq!(buffer[12..172], [n; 160]);
            }
        }
        relay.drain(Duration::ZERO);
    }
}
