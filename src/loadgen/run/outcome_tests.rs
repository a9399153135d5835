//! The verdict of a run whose load tester kept up, and of one that did not.

use super::*;

const LISTENS: &str = "[callee]\nlisten = \"127.0.0.1:1\"\n";

/// The report of a run in which signalling waited so long in one case of a hundred.
fn report(expect: &str, lag_p99: f64, driven: Driven) -> RunReport {
    let scenario = Scenario::read("s", &format!("expect = [{expect}]\n{LISTENS}"), &[]).unwrap();
    let lag = Spread { count: 100, p50: 1.0, p95: 2.0, p99: lag_p99, max: 99.0 };
    let frame = Frame {
        wall: "2026-11-23T00:00:00.000Z".into(),
        elapsed: Duration::from_secs(60),
        listens: None,
        process: Duration::from_secs(6),
    };
    driven.report(&scenario, (Vec::new(), Some(lag)), Totals::default(), frame)
}

/// Does not hold where nothing was called.
const UNMET: &str = "\"setup p99 <= 250 ms\"";

#[test]
fn signalling_that_waits_more_than_10_ms_leaves_a_failure_unjudged() {
    let kept_up = report(UNMET, 10.0, Driven::default());
    assert_eq!((kept_up.is_valid, kept_up.verdict), (true, Verdict::Failed));

    let late = report(UNMET, 10.1, Driven::default());
    assert_eq!((late.is_valid, late.has_passed), (false, false));
    assert_eq!(late.verdict, Verdict::NotJudged);
    let [why] = &late.invalid_because[..] else { panic!("{:?}", late.invalid_because) };
    assert!(why.starts_with("signalling waited for its turn, 10.1 ms"), "{why}");
    let text = late.to_string();
    assert!(text.contains("NOT JUDGED") && text.contains(why), "{text}");
    let document = serde_json::to_value(&late).unwrap();
    assert_eq!(document["verdict"], "not_judged");
    assert_eq!(document["own"]["signalling_lag_ms"]["p99"], 10.1);
}

/// The report of a long run in which a media thread stood still once for so many milliseconds, and
/// somebody heard nothing for 620.
fn paused(still_ms: u64) -> RunReport {
    let text = format!("expect = [\"gap max <= 500 ms\"]\n{LISTENS}");
    let scenario = Scenario::read("s", &text, &[]).unwrap();
    let worst = Duration::from_millis(still_ms);
    let totals = Totals { ticks: 1_000_000, behind: 40, worst, ..Totals::default() };
    let frame = Frame {
        wall: "2026-11-23T00:00:00.000Z".into(),
        elapsed: Duration::from_secs(600),
        listens: None,
        process: Duration::from_secs(60),
    };
    let driven = Driven { gaps: vec![20.0, 620.0], ends: 2, ..Driven::default() };
    driven.report(&scenario, (Vec::new(), None), totals, frame)
}

#[test]
fn one_pause_of_a_long_run_is_no_fault_of_the_edges() {
    let ours = paused(600);
    assert_eq!((ours.is_valid, ours.verdict), (false, Verdict::NotJudged));
    let [why] = &ours.invalid_because[..] else { panic!("{:?}", ours.invalid_because) };
    assert!(why.starts_with("it stood still for 600 ms once") && why.contains("`gap max"), "{why}");
    for still_ms in [0, 9, 100] {
        let edges = paused(still_ms);
        assert_eq!((edges.is_valid, edges.verdict), (true, Verdict::Failed), "{still_ms}");
    }
}

#[test]
fn what_holds_although_the_load_tester_was_late_has_passed_but_is_not_valid() {
    let late = report("", 50.0, Driven::default());
    assert_eq!((late.is_valid, late.has_passed, late.verdict), (false, true, Verdict::Passed));
}

#[test]
fn a_bad_actor_that_got_in_fails_a_late_run_all_the_same() {
    let actor = ActorReport {
        name: "scanner".into(),
        kind: ActorKind::InviteFlood,
        attempts: 5,
        outcomes: BTreeMap::new(),
        got_through: 1,
        packets: 0,
        injected: 0,
        replayed: 0,
        to_strangers: 0,
        has_passed: false,
        verdict: String::new(),
    };
    let driven = Driven { actors: vec![actor], ..Driven::default() };
    let late = report(UNMET, 50.0, driven);
    assert_eq!((late.is_valid, late.verdict), (false, Verdict::Failed));
}
