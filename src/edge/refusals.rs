//! Refusals, so that a flood of them fills neither the audit log nor the store: of each source
//! and reason a few are audited in a minute, of each trunk and reason a few refused calls are
//! stored whole. The rest is counted, in every counter and in one summary a minute.
//!
//! Counted across the edge: one short lock per refusal.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::event::Times;
use base::throttle::Summary;
use base::{CallId, Event, Instant, LegId, Personal, Reason, Throttle, TrunkName, limit};
use policy::Transport;
use serde_json::json;
use telemetry::Telemetry;
use vault::{AuditDetails, AuditEntry, VaultHandle};

/// Counts of refusals; clones count together.
#[derive(Clone)]
pub struct Refusals(Arc<Inner>);

struct Inner {
    vault: VaultHandle,
    telemetry: Arc<Telemetry>,
    counts: Mutex<Counts>,
}

struct Counts {
    audits: Throttle<IpAddr, Reason>,
    calls: Throttle<TrunkName, Reason>,
}

impl Refusals {
    /// Counts that are told to `vault`'s audit log and to `telemetry`.
    #[must_use]
    pub fn new(vault: VaultHandle, telemetry: Arc<Telemetry>) -> Self {
        let (share, places) = (&limit::VAULT_AUDIT_PER_SOURCE_MINUTE, &limit::VAULT_AUDIT_SOURCES);
        let audits = Throttle::new(share, places);
        let (share, places) = (&limit::VAULT_REFUSED_CALLS_PER_MINUTE, &limit::VAULT_REFUSED_KINDS);
        let counts = Mutex::new(Counts { audits, calls: Throttle::new(share, places) });
        Self(Arc::new(Inner { vault, telemetry, counts }))
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Audits a refusal: a few per source and minute (DESIGN 4.1).
    pub fn audit(
        &self,
        now: Instant,
        reason: Reason,
        source: &Personal<SocketAddr>,
        transport: Transport,
        trunk: Option<TrunkName>,
    ) {
        let address = source.expose().ip();
        if !self.counts().audits.admits(now, address, reason) {
            return;
        }
        let actor = trunk.map_or_else(|| "stranger".to_owned(), |trunk| format!("trunk:{trunk}"));
        let details =
            json!({ "reason": reason.code(), "transport": transport.word(), "source": address });
        let details = AuditDetails::Sealed(Personal::new(details.to_string()));
        self.write("sip.refused", actor, None, details);
    }

    /// Writes who took whose place in a call.
    pub fn replaced(
        &self,
        leg: LegId,
        by: LegId,
        trunk: &TrunkName,
        source: &Personal<SocketAddr>,
    ) {
        let address = source.expose().to_string();
        let details = json!({ "leg": leg.index, "by": by.index, "source": address });
        let details = AuditDetails::Sealed(Personal::new(details.to_string()));
        self.write("call.replaced", format!("trunk:{trunk}"), Some(leg.call), details);
    }

    /// Whether one more refused call of `trunk` is stored whole; else it is counted here.
    #[must_use]
    pub fn stores(&self, now: Instant, trunk: TrunkName, reason: Reason) -> bool {
        self.counts().calls.admits(now, trunk, reason)
    }

    /// Tells what was left out in the minutes that are over; to be called once a second.
    pub fn tick(&self, now: Instant) {
        let (audits, calls) = {
            let mut counts = self.counts();
            (counts.audits.poll(now), counts.calls.poll(now))
        };
        self.tell(&audits, calls);
    }

    /// Tells all that was left out and not yet told.
    pub fn close(&self) {
        let (audits, calls) = {
            let mut counts = self.counts();
            (counts.audits.close(), counts.calls.close())
        };
        self.tell(&audits, calls);
    }

    fn tell(&self, audits: &[Summary<IpAddr, Reason>], calls: Vec<Summary<TrunkName, Reason>>) {
        for Summary { source, kind, left_out } in audits {
            let details = json!({ "reason": kind.code(), "source": source, "more": left_out });
            let details = AuditDetails::Sealed(Personal::new(details.to_string()));
            self.write("sip.refused.more", "stranger".to_owned(), None, details);
        }
        for Summary { source, kind: reason, left_out } in calls {
            let trunk = source.unwrap_or_else(|| TrunkName::new("others"));
            let details = AuditDetails::Plain(format!("reason={reason} calls={left_out}"));
            self.write("call.refused.more", format!("trunk:{trunk}"), None, details);
            let calls = Times(left_out);
            self.0.telemetry.emit(&Event::CallsRefused { trunk, reason, calls });
        }
    }

    fn write(
        &self,
        kind: &'static str,
        actor: String,
        call: Option<CallId>,
        details: AuditDetails,
    ) {
        let entry = AuditEntry { kind, actor, call, details };
        if self.0.vault.submit(vault::Record::Audit(entry)).is_err() {
            self.0.telemetry.emit(&Event::VaultFailed { what: "audit" });
        }
    }
}
