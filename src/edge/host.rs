//! A shard's host: the task that feeds it, and the [`Driver`] that carries what it wants to the
//! members that do I/O.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use agent::provider::{
    ProviderError, ProviderEvent, ProviderSink, Reasoner, Role, Speaker, SpeechId, ThoughtId,
    Transcriber,
};
use base::{CallId, Clock, Event, Instant, LegId, Personal, SessionId, limit};
use bytes::Bytes;
use call::{Crossing, Keep, Record};
use media::MediaEvent;
use relay::listen::Listener;
use relay::{Command, EventSink, RelayHandle};
use sip::FlowId;
use telemetry::Telemetry;
use tokio::sync::mpsc;
use transport::TransportHandle;
use vault::VaultHandle;

use crate::archive::Archive;
use crate::clock::OsClock;
use crate::dials::Dials;
use crate::ear::{EarCommand, EarHandle, Opened, Tape};
use crate::front::Shards;
use crate::onlook::Onlookers;
use crate::shard::{Driver, Input, Shard, Wish};

/// The voice agents' providers.
#[derive(Clone)]
pub struct Providers {
    /// Hears.
    pub transcriber: Arc<dyn Transcriber>,
    /// Thinks.
    pub reasoner: Arc<dyn Reasoner>,
    /// Speaks.
    pub speaker: Arc<dyn Speaker>,
}

/// What a shard's wishes are carried out with.
pub struct Host {
    /// Signalling.
    pub transport: TransportHandle,
    /// Media.
    pub relay: RelayHandle,
    /// Ears.
    pub ear: EarHandle,
    /// Providers.
    pub providers: Providers,
    /// Where their answers go.
    pub sink: Arc<dyn ProviderSink>,
    /// Recordings.
    pub vault: VaultHandle,
    /// Records.
    pub archive: Archive,
    /// Events.
    pub telemetry: Arc<Telemetry>,
    /// Flows that legs wait for.
    pub dials: Dials,
    /// All shards, this one too.
    pub shards: Shards,
    /// Pages that look on.
    pub onlookers: Onlookers,
    /// The number of the shard.
    pub number: usize,
}

impl Driver for Host {
    fn send(&mut self, flow: FlowId, bytes: Bytes) {
        // A flow that is gone is told by `closed`; the transactions' timers do the rest.
        let _ = self.transport.send(flow, bytes);
    }

    fn connect(&mut self, wish: Wish) {
        self.dials.begin(&self.transport, wish);
    }

    fn served(&mut self, leg: LegId) {
        self.dials.served(leg);
    }

    fn relay(&mut self, session: SessionId, command: Command) -> bool {
        let is_release = matches!(command, Command::Release);
        let taken = self.relay.post(session, command).is_ok();
        if !taken {
            self.telemetry.emit(&Event::QueueFull { queue: "relay" });
            if is_release {
                // Only this one is worth trying again: a session left behind holds its ports.
                let (relay, telemetry) = (self.relay.clone(), Arc::clone(&self.telemetry));
                tokio::spawn(async move {
                    for _ in 0..100 {
                        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        if relay.command(session, Command::Release).is_ok() {
                            return;
                        }
                    }
                    telemetry.emit(&Event::QueueFull { queue: "relay" });
                });
            }
        }
        taken
    }

    fn listen(&mut self, call: CallId, session: SessionId, keep: Keep) {
        let (producer, frames) = rtrb::RingBuffer::new(limit::RELAY_TAP_FRAMES.get());
        let recording = match keep.recording.then(|| self.vault.record(call)) {
            Some(Ok(recording)) => Some(recording),
            Some(Err(_)) => {
                self.telemetry.emit(&Event::VaultFailed { what: "recording" });
                None
            }
            None => None,
        };
        let listening = self.providers.transcriber.open(call, Arc::clone(&self.sink));
        if listening.is_err() {
            // Keys still work; the operator must know.
            let provider = Role::Transcriber.word();
            self.telemetry.emit(&Event::ProviderFailed { provider });
        }
        let opened = Opened { frames, listening: listening.ok(), recording };
        if !self.ear.open(call, opened) {
            self.telemetry.emit(&Event::QueueFull { queue: "ear" });
            return;
        }
        self.relay(session, Command::Tap(producer));
    }

    fn tape(&mut self, call: CallId, sessions: [SessionId; 2]) {
        let Ok(recording) = self.vault.record(call) else {
            return self.telemetry.emit(&Event::VaultFailed { what: "recording" });
        };
        let began = OsClock.now();
        let rings = sessions.map(|_| rtrb::RingBuffer::new(limit::RELAY_TAP_PACKETS.get()));
        let [(caller, caller_packets), (callee, callee_packets)] = rings;
        let voices = [caller_packets, callee_packets].map(|it| Listener::new(it, began));
        if !self.ear.tape(call, Tape { voices, recording }) {
            return self.telemetry.emit(&Event::QueueFull { queue: "ear" });
        }
        for (session, ring) in sessions.into_iter().zip([caller, callee]) {
            self.relay(session, Command::TapPackets(ring));
        }
    }

    fn ear(&mut self, call: CallId, command: EarCommand) {
        if !self.ear.tell(call, command) {
            self.telemetry.emit(&Event::QueueFull { queue: "ear" });
        }
    }

    fn speak(
        &mut self,
        call: CallId,
        speech: SpeechId,
        text: &str,
        voice: &str,
    ) -> Result<(), ProviderError> {
        self.providers.speaker.speak(call, speech, text, voice, Arc::clone(&self.sink))
    }

    fn think(
        &mut self,
        call: CallId,
        thought: ThoughtId,
        question: &Personal<String>,
        knowledge: &str,
    ) -> Result<(), ProviderError> {
        let sink = Arc::clone(&self.sink);
        self.providers.reasoner.think(call, thought, question, knowledge, sink)
    }

    fn store(&mut self, record: Record) {
        self.onlookers.record(self.number, &record);
        self.archive.store(OsClock.now(), record);
    }

    fn media(&mut self, leg: LegId, event: &MediaEvent) {
        self.onlookers.media(leg, event);
        if let MediaEvent::Report { quality, .. } = event {
            self.archive.report(OsClock.now(), leg, quality);
        }
    }

    fn turn(&mut self, call: CallId, turn: agent::Turn) {
        self.onlookers.turn(call, &turn);
        self.archive.turn(call, turn);
    }

    fn cross(&mut self, shard: usize, crossing: Box<Crossing>) -> Result<(), Box<Crossing>> {
        let Some(sender) = self.shards.get(shard) else { return Err(crossing) };
        let Err(error) = sender.try_send(Input::Call(call::Input::Crossed(crossing))) else {
            return Ok(());
        };
        self.telemetry.emit(&Event::QueueFull { queue: "shard" });
        match error.into_inner() {
            Input::Call(call::Input::Crossed(crossing)) => Err(crossing),
            _ => Ok(()),
        }
    }

    fn event(&mut self, event: Event) {
        self.archive.event(event);
    }
}

/// Inputs handled before the timers get their turn.
const BATCH: usize = 64;
/// Inputs handled before the relay is woken for what they left it, where more inputs wait.
const POSTED: usize = 8;

/// Runs a shard until every way into it is closed.
pub async fn run(mut shard: Shard, mut host: Host, mut inputs: mpsc::Receiver<Input>) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut since_wake = 0;
    let mut standstill = Standstill::default();
    loop {
        let due = [shard.poll_timeout(), host.archive.poll_timeout()].into_iter().flatten().min();
        let wait = due.map(|at| standstill.look_at(at).since(OsClock.now()));
        let received = match wait {
            Some(wait) => tokio::time::timeout(wait, inputs.recv_many(&mut batch, BATCH)).await,
            None => Ok(inputs.recv_many(&mut batch, BATCH).await),
        };
        if received == Ok(0) {
            return;
        }
        for input in batch.drain(..) {
            step(&host.telemetry.clone(), || {
                shard.handle(OsClock.now(), OsClock.wall(), input, &mut host);
            });
            // What an input has put into our own queue often leaves the relay more: one wake for
            // both.
            since_wake += 1;
            if since_wake >= POSTED {
                since_wake = 0;
                host.relay.wake();
            }
        }
        let now = OsClock.now();
        if shard.poll_timeout().is_some_and(|at| at <= now && !standstill.holds(at, now)) {
            step(&host.telemetry.clone(), || {
                shard.handle_timeout(now, OsClock.wall(), &mut host);
            });
        }
        if inputs.is_empty() {
            since_wake = 0;
            host.relay.wake();
        }
        host.archive.handle_timeout(now);
        if !inputs.is_empty() {
            // Whoever writes what this batch has sent may need this very thread; without it a
            // backlog of thousands would fill the connections' queues before anybody writes.
            tokio::task::yield_now().await;
        }
    }
}

/// Timers that come so late were not looked at in time: the whole process has stood still.
const LATE: Duration = Duration::from_millis(500);
/// What the peers sent meanwhile is in our sockets; so long it has to reach the shard.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Keeps a shard whose process stood still from blaming its peers for the silence: what is long
/// due waits until what came meanwhile was heard.
#[derive(Debug, Default)]
struct Standstill(Option<Instant>);

impl Standstill {
    /// Whether what was due at `due` waits.
    fn holds(&mut self, due: Instant, now: Instant) -> bool {
        if now.since(due) < LATE {
            self.0 = None;
            return false;
        }
        now < *self.0.get_or_insert(now + CATCH_UP)
    }

    /// When to look whether what is due at `due` may happen.
    fn look_at(&self, due: Instant) -> Instant {
        self.0.map_or(due, |until| due.max(until))
    }
}

/// One step; the calls guard themselves, this is for what lies between them.
fn step(telemetry: &Telemetry, act: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(act)).is_err() {
        telemetry.emit(&Event::ShardPanicked {});
    }
}

/// Takes a relay worker's events to the shard that owns the session.
pub struct ToShards {
    /// The shards.
    pub shards: Shards,
    /// For what finds no room.
    pub telemetry: Arc<Telemetry>,
}

impl ToShards {
    fn send(&self, session: SessionId, input: Input) {
        let shard = Shard::of_session(session, self.shards.len() as u64);
        let sender = usize::try_from(shard).ok().and_then(|shard| self.shards.get(shard));
        if sender.is_none_or(|sender| sender.try_send(input).is_err()) {
            self.telemetry.emit(&Event::QueueFull { queue: "shard" });
        }
    }
}

impl EventSink for ToShards {
    fn deliver(&mut self, session: SessionId, event: MediaEvent) {
        self.send(session, Input::Media { session, event });
    }

    fn failed(&mut self, session: SessionId) {
        self.send(session, Input::MediaFailed(session));
    }
}

/// Takes providers' answers to one shard.
pub struct ToShard {
    /// The shard.
    pub shard: mpsc::Sender<Input>,
    /// For what finds no room.
    pub telemetry: Arc<Telemetry>,
}

impl ProviderSink for ToShard {
    fn deliver(&self, call: CallId, event: ProviderEvent) {
        if self.shard.try_send(Input::Provider { call, event }).is_err() {
            self.telemetry.emit(&Event::QueueFull { queue: "shard" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_standstill_what_came_meanwhile_is_heard_before_anybody_is_given_up() {
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(ms);
        let mut standstill = Standstill::default();
        assert!(!standstill.holds(at(1_000), at(1_020)), "in time");
        assert!(standstill.holds(at(1_000), at(6_000)), "five seconds are gone");
        assert_eq!(standstill.look_at(at(1_000)), at(6_050), "no spinning until then");
        assert!(standstill.holds(at(1_000), at(6_049)));
        assert!(!standstill.holds(at(1_000), at(6_050)), "it is really silent");
        assert!(!standstill.holds(at(6_100), at(6_100)));
        assert_eq!(standstill.look_at(at(7_000)), at(7_000), "as ever");
        assert!(standstill.holds(at(7_000), at(9_000)), "and once more");
    }
}
