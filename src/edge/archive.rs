//! What calls report, as the vault wants it: one record per call that is written again as the
//! call goes on, turns and ladder entries numbered in order, refusals as throttled audit records.

use std::collections::BTreeMap;

use base::{CallId, Event, Instant, Personal, TrunkName, WallTime, limit};
use call::Record;
use media::Quality;
use policy::{Attempt, Decision, Destination, Observed, Transport};
use serde_json::json;
use vault::{
    AuditDetails, AuditEntry, CallPersonal, CallRecord, Direction, LadderEntry, Role, VaultHandle,
};

/// The archive of one shard's calls.
pub struct Archive {
    vault: VaultHandle,
    open: BTreeMap<CallId, Open>,
    throttle: vault::audit::Throttle,
}

struct Open {
    record: CallRecord,
    turns: u32,
    ladder: u32,
}

impl Archive {
    /// An archive that writes to `vault`.
    #[must_use]
    pub fn new(vault: VaultHandle) -> Self {
        Self { vault, open: BTreeMap::new(), throttle: vault::audit::Throttle::default() }
    }

    /// Stores what a call reports; what the vault has no room for comes back as an event.
    pub fn store(&mut self, now: Instant, record: Record) -> Option<Event> {
        match record {
            Record::Arrived { call, wall, attempt, observed, decision } => {
                let record = arrived(call, wall, &attempt, &observed, &decision);
                self.open.insert(call, Open { record, turns: 0, ladder: 0 });
                self.write(call)
            }
            Record::Answered { call, wall, codec, protection, keys_exposed, keep } => {
                let open = self.open.get_mut(&call)?;
                let record = &mut open.record;
                record.answered = Some(wall);
                record.setup = Some(between(record.started, wall));
                (record.codec, record.protection) = (codec, protection);
                record.keys_exposed = keys_exposed;
                (record.recording, record.transcript) = (keep.recording, keep.transcript);
                self.write(call)
            }
            Record::Ended { call, wall, reason, talked } => {
                let open = self.open.get_mut(&call)?;
                open.record.ended = Some(wall);
                open.record.reason = Some(reason);
                open.record.talked = Some(talked);
                let is_done = open.record.answered.is_none();
                let failed = self.write(call);
                if is_done || self.open.len() > 2 * limit::CALL_CONCURRENT.get() {
                    self.open.remove(&call);
                }
                failed
            }
            Record::Media { call, quality } => {
                self.open.get_mut(&call)?.record.personal.quality =
                    Personal::new(quality_json(&quality));
                let failed = self.write(call);
                self.open.remove(&call);
                failed
            }
            Record::Ladder { call, wall, received, text } => {
                let open = self.open.get_mut(&call)?;
                let at_ms = wall.unix_millis().saturating_sub(open.record.started.unix_millis());
                let entry = LadderEntry {
                    index: open.ladder,
                    at_ms,
                    leg: 0,
                    sent: !received,
                    message: text,
                };
                open.ladder += 1;
                self.submit(vault::Record::Ladder { call, entry }, "call")
            }
            Record::Refused { reason, source, transport, trunk } => {
                self.refused(now, reason, source, transport, trunk)
            }
        }
    }

    /// Stores a turn.
    pub fn turn(&mut self, call: CallId, turn: agent::Turn) -> Option<Event> {
        let open = self.open.get_mut(&call)?;
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
        self.submit(vault::Record::Turn { call, turn }, "turn")
    }

    /// Audits a refusal: a few per source and minute, then one summary (DESIGN 4.1).
    pub fn refused(
        &mut self,
        now: Instant,
        reason: base::Reason,
        source: Personal<std::net::SocketAddr>,
        transport: Transport,
        trunk: Option<TrunkName>,
    ) -> Option<Event> {
        let address = source.expose().ip();
        let mut failed = None;
        for summary in self.throttle.poll(now) {
            failed = failed.or(self.audit_summary(&summary));
        }
        if self.throttle.admit(now, address, reason.code()) != vault::audit::Admission::Write {
            return failed;
        }
        let actor = trunk.map_or_else(|| "stranger".to_owned(), |trunk| format!("trunk:{trunk}"));
        let details =
            json!({ "reason": reason.code(), "transport": transport.word(), "source": address });
        let entry = AuditEntry {
            kind: "sip.refused",
            actor,
            call: None,
            details: AuditDetails::Sealed(Personal::new(details.to_string())),
        };
        failed.or(self.submit(vault::Record::Audit(entry), "audit"))
    }

    fn audit_summary(&mut self, summary: &vault::audit::Summary) -> Option<Event> {
        let details = json!({
            "reason": summary.kind,
            "source": summary.source,
            "more": summary.left_out,
        });
        let entry = AuditEntry {
            kind: "sip.refused.more",
            actor: "stranger".to_owned(),
            call: None,
            details: AuditDetails::Sealed(Personal::new(details.to_string())),
        };
        self.submit(vault::Record::Audit(entry), "audit")
    }

    fn write(&mut self, call: CallId) -> Option<Event> {
        let record = Box::new(self.open.get(&call)?.record.clone());
        self.submit(vault::Record::Call(record), "call")
    }

    fn submit(&self, record: vault::Record, what: &'static str) -> Option<Event> {
        self.vault.submit(record).err().map(|_| Event::VaultFailed { what })
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

fn quality_json(quality: &Quality) -> String {
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
    .to_string()
}
