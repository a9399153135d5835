//! Stories about what of a shard's calls is stored.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::{Clock, LegId};
use policy::Transport;
use serde_json::json;
use vault::{CallFilter, CallState, CallSummary, Reader, Vault};

use super::*;
use crate::curves::series::Series;
use crate::test_vault::config;

const POLICY: &str = r#"
[trunk.acme]
from       = { networks = ["198.51.100.0/24"] }
transports = ["tls"]
"#;

/// A clock that is set in milliseconds.
#[derive(Clone, Default)]
struct SetClock(Arc<AtomicU64>);

impl Clock for SetClock {
    fn now(&self) -> Instant {
        Instant::ZERO + Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
    fn wall(&self) -> WallTime {
        WallTime::from_unix_millis(1_795_392_000_000 + self.0.load(Ordering::Relaxed))
    }
}

struct Kept {
    folder: tempfile::TempDir,
    clock: SetClock,
    vault: Vault,
    telemetry: Arc<Telemetry>,
    refusals: Refusals,
    curves: Curves,
    archive: Archive,
    policy: policy::Policy,
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = SetClock::default();
        let vault = Vault::open(config(folder.path()), clock.clone(), Box::new(|_| {})).unwrap();
        let telemetry = Arc::new(Telemetry::new(clock.clone()).unwrap());
        let refusals = Refusals::new(vault.handle(), telemetry.clone());
        let curves = Curves::default();
        let archive =
            Archive::new(vault.handle(), telemetry.clone(), refusals.clone(), curves.clone());
        let policy = policy::load(&[("acme.toml", POLICY)], Some(&[])).unwrap().0;
        Self { folder, clock, vault, telemetry, refusals, curves, archive, policy }
    }

    /// Another shard's archive.
    fn another(&self) -> Archive {
        let (telemetry, refusals) = (self.telemetry.clone(), self.refusals.clone());
        Archive::new(self.vault.handle(), telemetry, refusals, self.curves.clone())
    }

    /// Moves the clock to so many milliseconds after its start.
    fn at(&mut self, millis: u64) {
        self.clock.0.store(millis, Ordering::Relaxed);
        self.archive.handle_timeout(self.clock.now());
    }

    fn arrive(&mut self, number: u32) -> CallId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let (call, trunk) = (CallId::from_bytes(bytes), TrunkName::new("acme"));
        self.archive.event(Event::CallArrived { call, trunk, transport: "tls" });
        let wall = self.clock.wall();
        let attempt: Attempt = serde_json::from_value(json!({
            "source": "198.51.100.7:5061",
            "transport": "tls",
            "request_uri": "sip:nobody@edge.example",
            "from_uri": "sip:+15550100@acme.example",
            "to_uri": "sip:nobody@edge.example",
            "called": "nobody",
            "caller": "+15550100",
            "offer": { "present": true, "has_srtp": true, "has_plain": false, "codecs": ["PCMA"] },
            "at": wall.unix_millis(),
        }))
        .unwrap();
        let observed = Observed { wall, ..Observed::default() };
        let decision = policy::decide(&self.policy, &attempt, &observed);
        assert!(decision.refusal().is_some());
        self.store(Record::Arrived { call, wall, attempt, observed, decision });
        self.message(call, true);
        call
    }

    fn message(&mut self, call: CallId, received: bool) {
        let text = Personal::new("INVITE sip:nobody@edge.example SIP/2.0".to_owned());
        self.store(Record::Ladder {
            leg: LegId { call, index: 0 },
            wall: self.clock.wall(),
            received,
            text,
        });
    }

    /// As `Desk::refused` of `call` says it.
    fn refuse(&mut self, call: CallId, reason: Reason) {
        self.message(call, false);
        let talked = Duration::ZERO;
        self.archive.event(Event::RequestRefused { reason, transport: "tls", status: 404 });
        self.archive.event(Event::CallEnded { call, reason, talked });
        self.store(Record::Ended { call, wall: self.clock.wall(), reason, talked });
        let source = Personal::new("198.51.100.7:5061".parse().unwrap());
        let trunk = Some(TrunkName::new("acme"));
        self.store(Record::Refused { reason, source, transport: Transport::Tls, trunk });
    }

    /// A call with one message before its answer.
    fn answered(&mut self, number: u32) -> CallId {
        let call = self.arrive(number);
        self.answer(call);
        call
    }

    fn answer(&mut self, call: CallId) {
        self.store(Record::Answered {
            call,
            wall: self.clock.wall(),
            codec: "PCMA",
            protection: "AES_CM_128_HMAC_SHA1_80",
            keys_exposed: false,
            keep: call::Keep::default(),
            unrecorded: None,
        });
    }

    fn end(&mut self, call: CallId) {
        let (wall, talked) = (self.clock.wall(), Duration::from_secs(1));
        self.store(Record::Ended { call, wall, reason: Reason::CallerHungUp, talked });
    }

    fn detail(&self, call: CallId) -> vault::CallDetail {
        wait(async {
            self.vault.handle().flush().await.unwrap();
            let reader = Reader::open(&config(self.folder.path())).await.unwrap();
            reader.call(call).await.unwrap()
        })
    }

    /// Messages that are stored.
    fn ladder(&self, call: CallId) -> usize {
        self.detail(call).ladder.len()
    }

    fn store(&mut self, record: Record) {
        self.archive.store(self.clock.now(), record);
    }

    fn stored(&self) -> Vec<CallSummary> {
        wait(async {
            self.vault.handle().flush().await.unwrap();
            let reader = Reader::open(&config(self.folder.path())).await.unwrap();
            let (since, number) = (WallTime::default(), None);
            let filter = CallFilter { count: 10_000, since, number, ..CallFilter::default() };
            reader.calls(&filter).await.unwrap()
        })
    }

    /// The details of the audit records of a kind.
    fn audited(&self, kind: &str) -> Vec<String> {
        wait(async {
            self.vault.handle().flush().await.unwrap();
            let reader = Reader::open(&config(self.folder.path())).await.unwrap();
            let all = reader.audit(0, 10_000).await.unwrap();
            let all = all.into_iter().filter(|record| record.kind == kind);
            all.map(|record| record.details.unwrap().expose().clone()).collect()
        })
    }

    #[track_caller]
    fn assert_metric(&self, sample: &str) {
        let text = self.telemetry.render();
        assert!(text.contains(&format!("{sample}\n")), "no {sample} in\n{text}");
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_flood_of_refused_calls_leaves_examples_and_a_count_and_no_memory() {
    let mut kept = Kept::new();
    for number in 0..1_000 {
        let call = kept.arrive(number);
        kept.refuse(call, Reason::NoRoute);
    }
    let share = limit::VAULT_REFUSED_CALLS_PER_MINUTE.get();
    assert!(kept.archive.open.is_empty());
    kept.at(1_000);
    assert!(kept.archive.arrivals.is_empty() && kept.archive.poll_timeout().is_none());

    let stored = kept.stored();
    assert_eq!(stored.len(), share);
    let detail = wait(async {
        let reader = Reader::open(&config(kept.folder.path())).await.unwrap();
        reader.call(stored[0].id).await.unwrap()
    });
    // Enough for `calls show` and `explain`.
    assert_eq!(detail.ladder.len(), 2);
    assert_eq!(detail.summary.reason.as_deref(), Some("policy.no_route"));
    assert!(detail.personal.unwrap().decision.expose().contains("no_route"));

    kept.assert_metric("callgate_call_arrived_total{trunk=\"acme\",transport=\"tls\"} 1000");
    kept.assert_metric("callgate_call_ended_total{reason=\"policy.no_route\"} 1000");
    kept.refusals.tick(Instant::ZERO + Duration::from_secs(59));
    assert_eq!(kept.audited("call.refused.more"), [""; 0]);
    kept.refusals.tick(Instant::ZERO + Duration::from_secs(60));
    let left_out = 1_000 - share;
    let wanted = format!("reason=policy.no_route calls={left_out}");
    assert_eq!(kept.audited("call.refused.more"), [wanted]);
    let labels = "{trunk=\"acme\",reason=\"policy.no_route\"}";
    kept.assert_metric(&format!("callgate_call_refused_more_total{labels} {left_out}"));
    assert_eq!(
        kept.audited("sip.refused").len() as u64,
        limit::VAULT_AUDIT_PER_SOURCE_MINUTE.value
    );
    kept.vault.close();
}

#[test]
fn each_reason_and_each_minute_has_its_own_examples_across_the_shards() {
    let mut kept = Kept::new();
    let share = limit::VAULT_REFUSED_CALLS_PER_MINUTE.get();
    let mut number = 0;
    let mut flood = |kept: &mut Kept, reason| {
        for _ in 0..100 {
            number += 1;
            let call = kept.arrive(number);
            kept.refuse(call, reason);
        }
    };
    flood(&mut kept, Reason::NoRoute);
    flood(&mut kept, Reason::TrunkRateLimit);
    kept.archive = kept.another();
    flood(&mut kept, Reason::NoRoute);
    assert_eq!(kept.stored().len(), 2 * share);
    kept.at(60_000);
    kept.refusals.tick(kept.clock.now());
    flood(&mut kept, Reason::NoRoute);
    assert_eq!(kept.stored().len(), 3 * share);
    // Who stops loses no count.
    kept.refusals.close();
    assert_eq!(kept.audited("call.refused.more").len(), 3);
    kept.vault.close();
}

#[test]
fn a_call_that_is_answered_or_given_up_is_always_stored_whole() {
    let mut kept = Kept::new();
    for number in 0..20 {
        let call = kept.arrive(number);
        assert_eq!(kept.stored().len() as u32, number);
        if number < 10 {
            kept.refuse(call, Reason::Cancelled);
        } else {
            kept.answer(call);
            kept.message(call, false);
            kept.at(u64::from(number) * 2_000);
        }
        assert_eq!(kept.stored().len() as u32, number + 1);
        let reader = wait(Reader::open(&config(kept.folder.path()))).unwrap();
        assert_eq!(wait(reader.call(call)).unwrap().ladder.len(), 2);
    }
    kept.vault.close();
}

#[test]
fn an_ended_call_is_written_once_with_its_figures_and_its_last_messages_follow() {
    let mut kept = Kept::new();
    let call = kept.answered(1);
    kept.message(call, true);
    assert_eq!(kept.ladder(call), 1, "messages after the answer gather");
    kept.end(call);
    kept.at(limit::VAULT_END_MS.value - 1);
    assert_eq!(kept.stored()[0].state, CallState::InProgress);
    kept.store(Record::Media { leg: LegId { call, index: 0 }, quality: Quality::default() });
    assert_eq!(kept.stored()[0].state, CallState::Ended);
    assert_eq!(kept.ladder(call), 2);
    // The answer to our BYE.
    kept.message(call, true);
    kept.at(limit::VAULT_END_MS.value + limit::VAULT_LADDER_MS.value);
    assert_eq!(kept.ladder(call), 3);
    let personal = kept.detail(call).personal.unwrap();
    assert!(personal.decision.expose().contains("no_route"));
    assert!(personal.quality.expose().contains("jitter_ms"));
    assert!(kept.archive.open.is_empty());
    kept.vault.close();
}

#[test]
fn the_media_of_both_legs_over_time_is_stored_with_the_call() {
    let mut kept = Kept::new();
    let call = kept.arrive(1);
    let leg = |index| LegId { call, index };
    let heard = |received, lost| Quality { received, lost, ..Quality::default() };
    kept.archive.event(Event::LegDialled { leg: leg(1), trunk: TrunkName::new("far") });
    // Before the answer somebody hears something, which is no part of the talk.
    kept.archive.report(kept.clock.now(), leg(0), &heard(40, 9));
    kept.at(1_000);
    kept.answer(call);
    for (millis, index, quality) in [
        (5_000, 0, heard(240, 9)),
        (6_000, 1, heard(250, 0)),
        (10_000, 0, heard(440, 59)),
        (11_000, 1, heard(500, 0)),
    ] {
        kept.at(millis);
        kept.archive.report(kept.clock.now(), leg(index), &quality);
    }
    assert!(kept.curves.present(call).unwrap().contains("until_ms"), "the console sees it live");
    kept.archive.report(kept.clock.now(), leg(2), &heard(70, 0));
    for (trunk, what, count) in [
        ("acme", "received", 400),
        ("acme", "lost", 50),
        ("far", "received", 500),
        ("far", "lost", 0),
        ("other", "received", 70),
    ] {
        let labels = format!("{{trunk=\"{trunk}\",what=\"{what}\"}}");
        kept.assert_metric(&format!("callgate_media_packets_total{labels} {count}"));
    }
    kept.message(call, true);
    kept.store(Record::Ladder {
        leg: leg(1),
        wall: kept.clock.wall(),
        received: true,
        text: Personal::new("BYE sip:x SIP/2.0".to_owned()),
    });
    kept.end(call);
    for (index, quality) in [(0, heard(440, 59)), (1, heard(501, 0))] {
        kept.archive.report(kept.clock.now(), leg(index), &quality);
        kept.store(Record::Media { leg: leg(index), quality });
    }
    let text = kept.detail(call).personal.unwrap().quality;
    let stored: serde_json::Value = serde_json::from_str(text.expose()).unwrap();
    let caller = Series::read(&stored).unwrap();
    assert_eq!((&*caller.received, &*caller.lost), (&[200, 200, 0][..], &[0, 50, 0][..]));
    assert_eq!(caller.until_ms, [4_000, 9_000, 10_000], "after the answer");
    let callee = Series::read(&stored["legs"]["1"]).unwrap();
    assert_eq!(callee.received, [250, 250, 1]);
    assert_eq!(kept.curves.present(call), None, "nothing stays in memory");
    kept.vault.close();
}

#[test]
fn a_handshake_tells_the_suite_of_the_caller() {
    let mut kept = Kept::new();
    let protection = "DTLS-SRTP AEAD_AES_128_GCM";
    let call = kept.answered(1);
    kept.store(Record::Secured { leg: LegId { call, index: 1 }, protection });
    assert_eq!(kept.detail(call).summary.protection, "AES_CM_128_HMAC_SHA1_80");
    kept.store(Record::Secured { leg: LegId { call, index: 0 }, protection });
    assert_eq!(kept.detail(call).summary.protection, protection);
    kept.vault.close();
}

#[test]
fn an_end_waits_for_figures_a_moment_and_is_written_again_with_them() {
    let mut kept = Kept::new();
    let call = kept.answered(1);
    kept.end(call);
    kept.at(limit::VAULT_END_MS.value);
    assert_eq!(kept.stored()[0].state, CallState::Ended);
    assert_eq!(kept.detail(call).personal.unwrap().quality.expose(), "");
    kept.store(Record::Media { leg: LegId { call, index: 0 }, quality: Quality::default() });
    kept.stored();
    assert_ne!(kept.detail(call).personal.unwrap().quality.expose(), "");
    kept.vault.close();
}

#[test]
fn what_waits_when_the_edge_ends_is_stored() {
    let mut kept = Kept::new();
    let (first, second, third) = (kept.answered(1), kept.answered(2), kept.arrive(3));
    kept.end(first);
    kept.message(second, true);
    kept.archive = kept.another();
    assert!(kept.stored().iter().all(|call| call.id != third), "nobody knows yet what it is");
    let states: Vec<CallState> = kept.stored().iter().map(|call| call.state).collect();
    assert!(states.contains(&CallState::Ended) && states.contains(&CallState::InProgress));
    assert_eq!(kept.ladder(second), 2);
    kept.vault.close();
}

#[test]
fn a_chatty_call_does_not_gather_for_ever() {
    let mut kept = Kept::new();
    let call = kept.answered(1);
    for _ in 0..limit::VAULT_LADDER_MESSAGES.get() {
        kept.message(call, true);
    }
    assert_eq!(kept.ladder(call), 1 + limit::VAULT_LADDER_MESSAGES.get());
    kept.vault.close();
}

#[test]
fn a_call_that_rings_shows_after_a_second() {
    let mut kept = Kept::new();
    let call = kept.arrive(1);
    kept.at(999);
    assert_eq!(kept.stored().len(), 0);
    kept.at(1_000);
    let stored = kept.stored();
    assert_eq!((stored[0].id, stored[0].state), (call, CallState::InProgress));
    kept.refuse(call, Reason::NoRoute);
    assert_eq!(kept.stored()[0].state, CallState::Ended);
    kept.vault.close();
}

#[test]
fn figures_that_never_come_are_not_waited_for_for_ever() {
    let mut kept = Kept::new();
    for number in 0..100 {
        let call = kept.answered(number);
        kept.end(call);
    }
    assert_eq!(kept.archive.open.len(), 100);
    kept.at(limit::VAULT_LAST_FIGURES_MS.value);
    assert!(kept.archive.open.is_empty() && kept.archive.poll_timeout().is_none());
    kept.vault.close();
}
