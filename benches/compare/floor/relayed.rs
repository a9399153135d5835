//! The real relay: one worker with bridged sessions, plain RTP, one codec on both sides.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use audio::Codec;
use base::{CallId, LegId, SeededRandom, SessionId};
use benches::rig::cpu;
use media::{
    Direction, Format, KeyForm, LegPlan, MediaEvent, Need, Protection, Purpose, Rule,
    SourceIdentity, TelephoneEvent,
};
use relay::driver::DriverChoice;
use relay::{Command, Relay, RelayConfig, RelayHandle};

use super::{Subject, peers};
use crate::server::Sink;

const WITHIN: Duration = Duration::from_secs(10);

/// Ends the relay when dropped, and waits until its sockets are closed.
struct Running(Option<Relay>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(relay) = self.0.take() {
            relay.drain(Duration::ZERO);
        }
    }
}

/// Starts a relay with so many calls.
pub(super) fn start(driver: DriverChoice, calls: u32) -> anyhow::Result<Subject> {
    let (sender, events) = sync_channel(16);
    // Each relay of a run has ports of its own.
    let ports = if driver == DriverChoice::Epoll { 10_000..=20_999 } else { 21_000..=31_999 };
    let config =
        RelayConfig { workers: 1, ports, seed: 1, driver, ice_tcp: Vec::new(), browser_port: None };
    let before = cpu::threads(std::process::id())?;
    let relay = Relay::start(&config, |_| Box::new(Sink(sender.clone())))?;
    let after = cpu::threads(std::process::id())?;
    let thread = after.into_iter().find(|it| it.1.starts_with("relay-") && !before.contains(it));
    let (thread, _) = thread.context("no thread of the relay's")?;
    let (peers, handle) = (peers()?, relay.handle());
    let remote = [peers[0].local_addr()?, peers[1].local_addr()?];
    let mut random = SeededRandom::new(2);
    let mut legs = Vec::new();
    for call in 0..u64::from(calls) {
        legs.extend(open(&handle, &events, call, remote, &mut random)?);
    }
    Subject::new("relay", peers, &legs, thread, Running(Some(relay)))
}

fn open(
    relay: &RelayHandle,
    events: &Receiver<(SessionId, MediaEvent)>,
    call: u64,
    remote: [SocketAddr; 2],
    random: &mut SeededRandom,
) -> anyhow::Result<[SocketAddr; 2]> {
    let sessions = [SessionId::new(call, 0), SessionId::new(call, 1)];
    let need = Need {
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        beside: None,
        separate_rtcp: false,
        dtls: false,
        fresh_identity: false,
    };
    let reserve = |session| {
        relay.command(session, Command::Reserve(need))?;
        match events.recv_timeout(WITHIN)? {
            (_, MediaEvent::Reserved(reserved)) => Ok(reserved.rtp),
            _ => bail!("nothing reserved"),
        }
    };
    let legs = [reserve(sessions[0])?, reserve(sessions[1])?];
    let id = CallId::random(random);
    let mut first = plan(LegId { call: id, index: 0 }, remote[0], random)?;
    let mut second = plan(LegId { call: id, index: 1 }, remote[1], random)?;
    let rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };
    let there = media::between(&first, &second, rule);
    let back = media::between(&second, &first, rule);
    first.purpose = Purpose::Bridge(Some(there));
    second.purpose = Purpose::Bridge(Some(back));
    for (at, plan) in [first, second].into_iter().enumerate() {
        let with = Some(sessions[1 - at]);
        relay.command(sessions[at], Command::Apply { plan: Box::new(plan), with })?;
    }
    Ok(legs)
}

fn plan(leg: LegId, remote: SocketAddr, random: &mut SeededRandom) -> anyhow::Result<LegPlan> {
    let pcmu =
        Format { codec: Codec::Pcmu, payload_type: 0, packet_ms: 20, dtx: false, bitrate: 0 };
    Ok(LegPlan {
        leg,
        remote,
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Plain { from: vec!["127.0.0.0/8".parse()?] },
        send: Some(pcmu),
        sendable: vec![pcmu],
        accept: vec![pcmu],
        opaque: Vec::new(),
        telephone_event: Some(TelephoneEvent { send: 101, receive: 101, clock_rate: 8_000 }),
        comfort_noise: None,
        inactive: Duration::from_secs(3_600),
        source: SourceIdentity::random(random),
        purpose: Purpose::Bridge(None),
    })
}
