//! What calls report, as the vault wants it: one record per call that is written again as the
//! call goes on, turns and ladder entries numbered in order. A row costs more than what is in it,
//! so messages gather until their call is written or for limit `vault.ladder_ms`, and the end of a
//! call waits for its last figures, for limit `vault.end_ms`.
//!
//! A call is stored once it is answered, is over, or has rung for a second (limit
//! `vault.arrival_ms`): by then it is known whether it is one of a flood of refused ones, of which
//! a few are stored and the rest is counted ([`Refusals`]).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Blame, CallId, Event, Instant, LegId, Personal, Reason, TrunkName, WallTime, limit};
use call::{Record, Unrecorded};
use media::Quality;
use policy::{Attempt, Decision, Destination, Observed};
use telemetry::{MediaFigures, Telemetry};
use vault::{CallPersonal, CallRecord, Direction, LadderEntry, Role, VaultHandle};

use crate::curves::Curves;
use crate::refusals::Refusals;

/// The archive of one shard's calls, and the log of their beginnings and ends. What the vault has
/// no room for is told as an event.
pub struct Archive {
    vault: VaultHandle,
    telemetry: Arc<Telemetry>,
    refusals: Refusals,
    curves: Curves,
    open: BTreeMap<CallId, Open>,
    /// An arrival whose record is about to come.
    arriving: Option<(CallId, Event)>,
    /// Calls that arrived, by time; settled ones among them.
    arrivals: VecDeque<(Instant, CallId)>,
    /// Calls with messages that gather, by the time of the first.
    gathering: VecDeque<(Instant, CallId)>,
    /// Calls that ended and may still report their last figures, by time.
    endings: VecDeque<(Instant, CallId)>,
    /// Those of them that are not written as ended, by time; written ones among them.
    unwritten: VecDeque<(Instant, CallId)>,
}

/// In place of the trunk of a leg that came from another call.
const OTHER: &str = "other";

struct Open {
    record: CallRecord,
    turns: u32,
    answered: Option<Instant>,
    /// Messages so far.
    messages: u32,
    /// The last of them, which are not stored.
    ladder: Vec<LadderEntry>,
    /// It stands among those that gather.
    is_gathering: bool,
    /// It ended, and that is not written.
    is_unwritten: bool,
    /// All but its last messages is written; it stays for those.
    is_done: bool,
    /// Legs that have said something, and the last figures of those that are over.
    legs: usize,
    qualities: BTreeMap<u8, Quality>,
    /// The trunks of its legs (limit `media.curves`).
    trunks: BTreeMap<u8, TrunkName>,
    /// Lines of the log that wait until it is stored.
    waiting: Option<Vec<Event>>,
}

impl Open {
    const fn new(record: CallRecord, waiting: Option<Vec<Event>>) -> Self {
        Self {
            record,
            turns: 0,
            answered: None,
            messages: 0,
            ladder: Vec::new(),
            is_gathering: false,
            is_unwritten: false,
            is_done: false,
            legs: 1,
            qualities: BTreeMap::new(),
            trunks: BTreeMap::new(),
            waiting,
        }
    }

    /// Whether it ended and all its legs have reported.
    fn is_complete(&self) -> bool {
        self.record.ended.is_some() && self.qualities.len() >= self.legs
    }

    /// Whether its messages are better stored now than later.
    fn is_full(&self) -> bool {
        let bytes = || self.ladder.iter().map(|entry| entry.message.expose().len()).sum::<usize>();
        self.ladder.len() >= limit::VAULT_LADDER_MESSAGES.get()
            || bytes() >= limit::SIP_MESSAGE_BYTES.get()
    }
}

impl Archive {
    /// An archive that writes to `vault`; `curves` are those of all shards.
    #[must_use]
    pub const fn new(
        vault: VaultHandle,
        telemetry: Arc<Telemetry>,
        refusals: Refusals,
        curves: Curves,
    ) -> Self {
        Self {
            vault,
            telemetry,
            refusals,
            curves,
            open: BTreeMap::new(),
            arriving: None,
            arrivals: VecDeque::new(),
            gathering: VecDeque::new(),
            endings: VecDeque::new(),
            unwritten: VecDeque::new(),
        }
    }

    /// Stores what a call reports.
    pub fn store(&mut self, now: Instant, record: Record) {
        match record {
            Record::Arrived { call, wall, attempt, observed, decision } => {
                let record = arrived(call, wall, &attempt, &observed, &decision);
                let line = self.arriving.take().filter(|(of, _)| *of == call).map(|it| it.1);
                let waiting = Some(line.into_iter().collect());
                let mut open = Open::new(record, waiting);
                open.trunks.extend(decision.trunk.clone().map(|trunk| (0, trunk)));
                self.open.insert(call, open);
                self.arrivals.push_back((now, call));
            }
            Record::Answered { call, wall, codec, protection, keys_exposed, keep, unrecorded } => {
                let Some(open) = self.open.get_mut(&call) else { return };
                open.answered.get_or_insert(now);
                let record = &mut open.record;
                record.answered = Some(wall);
                record.setup = Some(between(record.started, wall));
                (record.codec, record.protection) = (codec, protection);
                record.keys_exposed = keys_exposed;
                (record.recording, record.transcript) = (keep.recording, keep.transcript);
                record.unrecorded = unrecorded.map_or("", Unrecorded::word);
                self.write(call);
            }
            Record::Secured { leg, protection } => self.secured(leg, protection),
            Record::Recorded { call, recording, transcript, unrecorded } => {
                self.recorded(call, (recording, transcript), unrecorded);
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
                let open = self.open.get_mut(&call).filter(|open| !open.is_done);
                let Some(open) = open else { return };
                open.qualities.insert(leg.index, quality);
                // Those of a leg that goes before its call are written with the call's end.
                if open.is_complete() || (open.record.ended.is_some() && !open.is_unwritten) {
                    self.write(call);
                    self.gather(now, call);
                }
            }
            Record::Ladder { leg, wall, received, text } => {
                let call = leg.call;
                let Some(open) = self.open.get_mut(&call) else { return };
                open.legs = open.legs.max(usize::from(leg.index) + 1);
                let at_ms = wall.unix_millis().saturating_sub(open.record.started.unix_millis());
                let (index, leg) = (open.messages, leg.index);
                open.messages += 1;
                open.ladder.push(LadderEntry { index, at_ms, leg, sent: !received, message: text });
                if open.waiting.is_some() {
                    return;
                }
                if open.is_full() {
                    self.write_ladder(call);
                } else {
                    self.gather(now, call);
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
            Event::LegDialled { leg, trunk, .. } | Event::LegReplaced { leg, trunk, .. } => {
                if let Some(open) = self.open.get_mut(&leg.call)
                    && open.trunks.len() < limit::MEDIA_CURVES.get()
                {
                    open.trunks.insert(leg.index, trunk.clone());
                }
                self.telemetry.emit(&event);
            }
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
                    Some(lines) => {
                        self.telemetry.count(&event);
                        lines.push(event);
                    }
                    None => self.telemetry.emit(&event),
                }
            }
            Event::CallAnswered { call, .. } | Event::KeysExposed { call } => {
                let waiting = self.open.get_mut(call).and_then(|open| open.waiting.as_mut());
                // Lines stand in the order of what happened.
                for line in waiting.map(std::mem::take).unwrap_or_default() {
                    self.telemetry.log(&line);
                }
                self.telemetry.emit(&event);
            }
            _ => self.telemetry.emit(&event),
        }
    }

    /// Takes a leg's media figures, so that there is a curve of them, and counts of its trunk.
    pub fn report(&mut self, now: Instant, leg: LegId, quality: &Quality) {
        let Some(open) = self.open.get(&leg.call).filter(|open| !open.is_done) else { return };
        let after = open.answered.map(|at| now.since(at));
        let Some(spell) = self.curves.report(leg, after, quality) else { return };
        let trunk = open.trunks.get(&leg.index).map_or(OTHER, TrunkName::as_str);
        let figures = MediaFigures {
            received: spell.received.into(),
            lost: spell.lost.into(),
            late: spell.late.into(),
            concealed: spell.concealed.into(),
            // A peer that has told nothing of a round trip has sent no report.
            remote_loss: spell.round_trip.map(|_| quality.remote_loss.into()),
            mos: spell.mos.map(Into::into),
        };
        self.telemetry.media(trunk, &figures);
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

    /// Stores what has waited for so long, and gives up waiting for figures that do not come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let wait = limit::VAULT_ARRIVAL_MS.millis();
        while let Some((_, call)) = self.arrivals.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            if self.open.get(&call).is_some_and(|open| open.waiting.is_some()) {
                self.write(call);
            }
        }
        let wait = limit::VAULT_END_MS.millis();
        while let Some((_, call)) = self.unwritten.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            if self.open.get(&call).is_some_and(|open| open.is_unwritten) {
                self.write(call);
            }
        }
        let wait = limit::VAULT_LADDER_MS.millis();
        while let Some((_, call)) = self.gathering.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            self.write_ladder(call);
            let Some(open) = self.open.get_mut(&call) else { continue };
            open.is_gathering = false;
            if open.is_done {
                self.open.remove(&call);
            }
        }
        let wait = limit::VAULT_LAST_FIGURES_MS.millis();
        while let Some((_, call)) = self.endings.pop_front_if(|(at, _)| now.since(*at) >= wait) {
            self.write_ladder(call);
            self.forget(call);
        }
    }

    /// When [`Archive::handle_timeout`] is next to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let waits = [
            (&self.arrivals, limit::VAULT_ARRIVAL_MS),
            (&self.gathering, limit::VAULT_LADDER_MS),
            (&self.endings, limit::VAULT_LAST_FIGURES_MS),
            (&self.unwritten, limit::VAULT_END_MS),
        ];
        waits.iter().filter_map(|(queue, wait)| Some(queue.front()?.0 + wait.millis())).min()
    }

    /// What is said of the protection of a call is said of its caller.
    fn secured(&mut self, leg: LegId, protection: &'static str) {
        let open = self.open.get_mut(&leg.call).filter(|_| leg.index == 0);
        let Some(open) = open else { return };
        open.record.protection = protection;
        // Before the answer, that writes it.
        if open.record.answered.is_some() {
            self.write(leg.call);
        }
    }

    fn recorded(&mut self, call: CallId, kept: (bool, bool), unrecorded: Option<Unrecorded>) {
        let Some(open) = self.open.get_mut(&call).filter(|open| !open.is_done) else { return };
        (open.record.recording, open.record.transcript) = kept;
        open.record.unrecorded = unrecorded.map_or("", Unrecorded::word);
        self.write(call);
    }

    fn ended(&mut self, now: Instant, call: CallId, reason: Reason) {
        let Some(open) = self.open.get(&call) else { return };
        let was_refused = open.waiting.is_some()
            && open.record.answered.is_none()
            && reason.blame() != Blame::Nobody;
        if was_refused {
            let trunk = open.record.trunk.clone().unwrap_or_else(|| TrunkName::new("none"));
            if !self.refusals.stores(now, trunk, reason) {
                return self.forget(call);
            }
        }
        if open.record.answered.is_none() {
            self.write(call);
            return self.forget(call);
        }
        self.endings.push_back((now, call));
        if open.is_complete() {
            self.write(call);
            self.gather(now, call);
        } else {
            self.unwritten.push_back((now, call));
            self.open.get_mut(&call).into_iter().for_each(|open| open.is_unwritten = true);
        }
    }

    /// Writes a call as it stands, its messages, and what waited for it to be stored.
    fn write(&mut self, call: CallId) {
        let Some(open) = self.open.get_mut(&call) else { return };
        open.is_unwritten = false;
        if !open.qualities.is_empty() {
            let figures = self.curves.last(call, &open.qualities);
            open.record.personal.quality = Personal::new(figures);
        }
        let waiting = open.waiting.take();
        open.is_done = open.is_complete();
        let record = if open.is_done {
            self.curves.forget(call);
            let personal = std::mem::take(&mut open.record.personal);
            CallRecord { personal, ..open.record.clone() }
        } else {
            open.record.clone()
        };
        self.submit(vault::Record::Call(Box::new(record)), "call");
        self.write_ladder(call);
        for line in waiting.into_iter().flatten() {
            self.telemetry.log(&line);
        }
    }

    fn forget(&mut self, call: CallId) {
        self.open.remove(&call);
        self.curves.forget(call);
    }

    /// Has a call looked at again when its last messages have had time to gather.
    fn gather(&mut self, now: Instant, call: CallId) {
        let Some(open) = self.open.get_mut(&call) else { return };
        if !std::mem::replace(&mut open.is_gathering, true) {
            self.gathering.push_back((now, call));
        }
    }

    fn write_ladder(&mut self, call: CallId) {
        let Some(open) = self.open.get_mut(&call) else { return };
        let entries = std::mem::take(&mut open.ladder);
        if !entries.is_empty() {
            self.submit(vault::Record::Ladder { call, entries }, "call");
        }
    }

    fn submit(&self, record: vault::Record, what: &'static str) {
        if self.vault.submit(record).is_err() {
            self.telemetry.emit(&Event::VaultFailed { what });
        }
    }
}

impl Drop for Archive {
    /// Stores what waits, however its shard ends: the edge aborts shards when it stops.
    fn drop(&mut self) {
        let stored = self.open.iter().filter(|(_, open)| open.waiting.is_none());
        let stored: Vec<(CallId, bool)> = stored.map(|(id, it)| (*id, it.is_unwritten)).collect();
        for (call, is_unwritten) in stored {
            if is_unwritten {
                self.write(call);
            }
            self.write_ladder(call);
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
        unrecorded: "",
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

/// Room that what is known of an ordinary call fits in.
const JSON_BYTES: usize = 1_024;

/// Plain data that holds nothing JSON cannot; an empty text would say that this is wrong.
fn sealed_json(value: &impl serde::Serialize) -> Personal<String> {
    let mut text = Vec::with_capacity(JSON_BYTES);
    let written = serde_json::to_writer(&mut text, value).is_ok();
    // It is kept as long as the call lasts.
    text.shrink_to_fit();
    let text = String::from_utf8(text).ok().filter(|_| written);
    Personal::new(text.unwrap_or_default())
}

fn between(start: WallTime, end: WallTime) -> std::time::Duration {
    let millis = end.unix_millis().saturating_sub(start.unix_millis());
    std::time::Duration::from_millis(millis)
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
