//! What calls report, as the vault wants it: one record per call that is written again as the
//! call goes on, turns and ladder entries numbered in order.
//!
//! A call is stored once it is answered, is over, or has rung for a second (limit
//! `vault.arrival_ms`): by then it is known whether it is one of a flood of refused ones, of which
//! a few are stored and the rest is counted ([`Refusals`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Blame, CallId, Event, Instant, Personal, Reason, TrunkName, WallTime, limit};
use call::Record;
use media::Quality;
use policy::{Attempt, Decision, Destination, Observed};
use serde_json::json;
use telemetry::Telemetry;
use vault::{CallPersonal, CallRecord, Direction, LadderEntry, Role, VaultHandle};

use crate::refusals::Refusals;

/// The archive of one shard's calls, and the log of their beginnings and ends. What the vault has
/// no room for is told as an event.
pub struct Archive {
    vault: VaultHandle,
    telemetry: Arc<Telemetry>,
    refusals: Refusals,
    open: BTreeMap<CallId, Open>,
    /// An arrival whose record is about to come.
    arriving: Option<(CallId, Event)>,
    /// Calls that arrived, by time; settled ones among them.
    arrivals: VecDeque<(Instant, CallId)>,
    /// Calls that ended and may still report their last figures, by time.
    endings: VecDeque<(Instant, CallId)>,
}

struct Open {
    record: CallRecord,
    turns: u32,
    ladder: u32,
    /// Legs that have said something, and the last figures of those that are over.
    legs: usize,
    qualities: BTreeMap<u8, Quality>,
    /// While it is not stored.
    waiting: Option<Waiting>,
}

impl Open {
    const fn new(record: CallRecord, waiting: Option<Waiting>) -> Self {
        let qualities = BTreeMap::new();
        Self { record, turns: 0, ladder: 0, legs: 1, qualities, waiting }
    }
}

#[derive(Default)]
struct Waiting {
    ladder: Vec<LadderEntry>,
    lines: Vec<Event>,
}

impl Archive {
    /// An archive that writes to `vault`.
    #[must_use]
    pub const fn new(vault: VaultHandle, telemetry: Arc<Telemetry>, refusals: Refusals) -> Self {
        Self {
            vault,
            telemetry,
            refusals,
            open: BTreeMap::new(),
            arriving: None,
            arrivals: VecDeque::new(),
            endings: VecDeque::new(),
        }
    }

    /// Stores what a call reports.
    pub fn store(&mut self, now: Instant, record: Record) {
        match record {
            Record::Arrived { call, wall, attempt, observed, decision } => {
                let record = arrived(call, wall, &attempt, &observed, &decision);
                let line = self.arriving.take().filter(|(of, _)| *of == call).map(|it| it.1);
                let lines = line.into_iter().collect();
                let waiting = Some(Waiting { lines, ..Waiting::default() });
                self.open.insert(call, Open::new(record, waiting));
                self.arrivals.push_back((now, call));
            }
            Record::Answered { call, wall, codec, protection, keys_exposed, keep } => {
                let Some(open) = self.open.get_mut(&call) else { return };
                let record = &mut open.record;
                record.answered = Some(wall);
                record.setup = Some(between(record.started, wall));
                (record.codec, record.protection) = (codec, protection);
                record.keys_exposed = keys_exposed;
                (record.recording, record.transcript) = (keep.recording, keep.transcript);
                self.write(call);
            }
            Record::Ended { call, wall, reason, talked } => {
                let Some(open) = self.open.get_mut(&call) else { return };
                open.record.ended = Some(wall);
                open.record.reason = Some(reason);
                open.record.talked = Some(talked);
                self.ended(now, call, reason);
            }
            Record::Media { leg, quality } => {
                let call = leg.call;
                let Some(open) = self.open.get_mut(&call) else { return };
                open.qualities.insert(leg.index, quality);
                open.record.personal.quality = Personal::new(qualities_json(&open.qualities));
                let is_last = open.record.ended.is_some() && open.qualities.len() >= open.legs;
                self.write(call);
                if is_last {
                    self.open.remove(&call);
                }
            }
            Record::Ladder { leg, wall, received, text } => {
                let call = leg.call;
                let Some(open) = self.open.get_mut(&call) else { return };
                open.legs = open.legs.max(usize::from(leg.index) + 1);
                let at_ms = wall.unix_millis().saturating_sub(open.record.started.unix_millis());
                let index = open.ladder;
                let entry =
                    LadderEntry { index, at_ms, leg: leg.index, sent: !received, message: text };
                open.ladder += 1;
                match &mut open.waiting {
                    Some(waiting) => waiting.ladder.push(entry),
                    None => self.submit(vault::Record::Ladder { call, entry }, "call"),
                }
            }
            Record::Replaced { leg, by, trunk, source } => {
                self.refusals.replaced(leg, by, &trunk, &source);
            }
            Record::Refused { reason, source, transport, trunk } => {
                self.refusals.audit(now, reason, &source, transport, trunk);
            }
        }
    }

    /// Renders an event. The line of a call's arrival waits until the call is stored, so that of
    /// calls that are counted only, none is written; counters count at once.
    pub fn event(&mut self, event: Event) {
        match &event {
            Event::CallArrived { call, .. } => {
                let call = *call;
                self.telemetry.count(&event);
                if let Some((_, line)) = self.arriving.replace((call, event)) {
                    self.telemetry.log(&line);
                }
            }
            Event::CallEnded { call, .. } => {
                let waiting = self.open.get_mut(call).and_then(|open| open.waiting.as_mut());
                match waiting {
                    Some(waiting) => {
                        self.telemetry.count(&event);
                        waiting.lines.push(event);
                    }
                    None => self.telemetry.emit(&event),
                }
            }
            Event::CallAnswered { call, .. } | Event::KeysExposed { call } => {
                let waiting = self.open.get_mut(call).and_then(|open| open.waiting.as_mut());
                // Lines stand in the order of what happened.
                for line in waiting.map(|it| std::mem::take(&mut it.lines)).unwrap_or_default() {
                    self.telemetry.log(&line);
                }
                self.telemetry.emit(&event);
            }
            _ => self.telemetry.emit(&event),
        }
    }

    /// Stores a turn.
    pub fn turn(&mut self, call: CallId, turn: agent::Turn) {
        let Some(open) = self.open.get_mut(&call) else { return };
        let index = open.turns;
        open.turns += 1;
        let turn = vault::Turn {
            index,
            role: match turn.speaking {
                agent::Speaking::Caller => Role::Caller,
                agent::Speaking::Agent => Role::Agent,
            },
            text: turn.text,
            start_ms: turn.start.as_millis() as u64,
            end_ms: turn.end.as_millis() as u64,
            interrupted: turn.interrupted,
            latency: turn.latency,
        };
        self.submit(vault::Record::Turn { call, turn }, "turn");
    }

    /// Stores calls that have rung for so long, and gives up waiting for figures that do not come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let wait = limit::VAULT_ARRIVAL_MS.millis();
        while let Some((_, call)) = self.arrivals.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            if self.open.get(&call).is_some_and(|open| open.waiting.is_some()) {
                self.write(call);
            }
        }
        let wait = limit::VAULT_LAST_FIGURES_MS.millis();
        while let Some((_, call)) = self.endings.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            self.open.remove(&call);
        }
    }

    /// When [`Archive::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let arrival = self.arrivals.front().map(|(at, _)| *at + limit::VAULT_ARRIVAL_MS.millis());
        let ending =
            self.endings.front().map(|(at, _)| *at + limit::VAULT_LAST_FIGURES_MS.millis());
        [arrival, ending].into_iter().flatten().min()
    }

    fn ended(&mut self, now: Instant, call: CallId, reason: Reason) {
        let Some(open) = self.open.get(&call) else { return };
        let was_refused = open.waiting.is_some()
            && open.record.answered.is_none()
            && reason.blame() != Blame::Nobody;
        if was_refused {
            let trunk = open.record.trunk.clone().unwrap_or_else(|| TrunkName::new("none"));
            if !self.refusals.stores(now, trunk, reason) {
                self.open.remove(&call);
                return;
            }
        }
        let is_done = open.record.answered.is_none();
        self.write(call);
        if is_done {
            self.open.remove(&call);
        } else {
            self.endings.push_back((now, call));
        }
    }

    /// Writes a call as it stands, and what waited for it to be stored.
    fn write(&mut self, call: CallId) {
        let Some(open) = self.open.get_mut(&call) else { return };
        let (record, waiting) = (Box::new(open.record.clone()), open.waiting.take());
        self.submit(vault::Record::Call(record), "call");
        let Some(waiting) = waiting else { return };
        for entry in waiting.ladder {
            self.submit(vault::Record::Ladder { call, entry }, "call");
        }
        for line in waiting.lines {
            self.telemetry.log(&line);
        }
    }

    fn submit(&self, record: vault::Record, what: &'static str) {
        if self.vault.submit(record).is_err() {
            self.telemetry.emit(&Event::VaultFailed { what });
        }
    }
}

/// The record of a call that has just arrived.
fn arrived(
    call: CallId,
    wall: WallTime,
    attempt: &Attempt,
    observed: &Observed,
    decision: &Decision,
) -> CallRecord {
    let accepted = decision.accepted();
    let called = accepted.map_or(&attempt.called, |accepted| &accepted.called);
    let caller = accepted.map_or(&attempt.caller, |accepted| &accepted.caller);
    let voice_agent = accepted.and_then(|it| match &it.destination {
        Destination::Agent { name } => Some(name.clone()),
        Destination::Trunk { .. } => None,
    });
    CallRecord {
        id: call,
        direction: Direction::Incoming,
        trunk: decision.trunk.clone(),
        voice_agent,
        started: wall,
        answered: None,
        ended: None,
        reason: None,
        setup: None,
        talked: None,
        transport: attempt.transport.word(),
        protection: "none",
        codec: "",
        keys_exposed: false,
        recording: false,
        transcript: false,
        personal: CallPersonal {
            caller: Personal::new(caller.clone()),
            callee: Personal::new(called.clone()),
            request_uri: Personal::new(attempt.request_uri.clone()),
            attempt: sealed_json(attempt),
            observed: sealed_json(observed),
            decision: sealed_json(decision),
            quality: Personal::default(),
        },
    }
}

/// Plain data that holds nothing JSON cannot; an empty text would say that this is wrong.
fn sealed_json(value: &impl serde::Serialize) -> Personal<String> {
    Personal::new(serde_json::to_string(value).unwrap_or_default())
}

fn between(start: WallTime, end: WallTime) -> std::time::Duration {
    let millis = end.unix_millis().saturating_sub(start.unix_millis());
    std::time::Duration::from_millis(millis)
}

/// The caller's figures, and under `legs` those of the other legs by their numbers.
fn qualities_json(qualities: &BTreeMap<u8, Quality>) -> String {
    let mut all = qualities.get(&0).map_or_else(|| json!({}), quality_json);
    let others = qualities.iter().filter(|(index, _)| **index != 0);
    let others: serde_json::Map<_, _> =
        others.map(|(index, quality)| (index.to_string(), quality_json(quality))).collect();
    if !others.is_empty() {
        all["legs"] = others.into();
    }
    all.to_string()
}

fn quality_json(quality: &Quality) -> serde_json::Value {
    let ms = |time: std::time::Duration| time.as_micros() as f64 / 1e3;
    json!({
        "received": quality.received,
        "lost": quality.lost,
        "late": quality.late,
        "dropped": quality.dropped,
        "concealed": quality.concealed,
        "jitter_ms": ms(quality.jitter),
        "delay_ms": ms(quality.delay),
        "sent": quality.sent,
        "remote_loss": quality.remote_loss,
        "remote_jitter_ms": ms(quality.remote_jitter),
        "round_trip_ms": quality.round_trip.map(ms),
        "mos": quality.mos,
    })
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
