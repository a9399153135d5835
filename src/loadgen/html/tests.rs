//! The page: whole, self-contained, and harmless whatever the far end says.

use std::collections::BTreeMap;

use super::*;
use crate::cause::{Cause, Farewell, FarewellBy};
use crate::report::{CallOutcome, CallReport, Frame, Tally};
use crate::run::{OwnLoad, RunReport, ScenarioSummary, Through};
use crate::scenario::ActorKind;
use crate::{Scenario, Transport};

fn scanner() -> ActorReport {
    ActorReport {
        name: "scanner".into(),
        kind: ActorKind::InviteFlood,
        attempts: 500,
        outcomes: BTreeMap::from([("404 policy.no_route".to_owned(), 500)]),
        got_through: 0,
        packets: 0,
        injected: 0,
        replayed: 0,
        to_strangers: 0,
        has_passed: true,
        verdict: "nothing got through".into(),
    }
}

fn report() -> RunReport {
    let mut tally = Tally::default();
    for index in 0..50 {
        tally.add(CallReport {
            index,
            outcome: CallOutcome::Answered,
            setup_ms: Some(f64::from(index)),
            jitter_ms: Some(0.1 * f64::from(index)),
            loss_percent: Some(0.0),
            farewell: Some(Farewell {
                by_us: index % 2 == 0,
                by: FarewellBy::Bye,
                cause: (index % 4 == 0).then_some(Cause::Q850(16)),
            }),
            ..CallReport::default()
        });
    }
    let reason = Some("<script>alert(1)</script>\u{202e}".to_owned());
    tally.add(CallReport { status: Some(486), reason, ..CallReport::default() });
    let callers = tally.finish(Frame {
        target: "sip:a@h".into(),
        transport: Transport::Tls,
        started_at: "2026-11-23T00:00:00.000Z".into(),
        elapsed: std::time::Duration::from_secs(90),
        is_cut_short: false,
        planned: 51,
    });
    let series = (1..=90)
        .map(|at| Sample {
            at_s: f64::from(at),
            offered: 5.0,
            answered: 4.9,
            talking: at.min(40),
            setup_p50_ms: Some(8.0),
            setup_p99_ms: (at != 7).then_some(30.0),
            sent: 2000.0,
            received: 1999.0,
            ..Sample::default()
        })
        .collect();
    let text = "expect = [\"setup p99 <= 250 ms\"]\n[callee]\nlisten = \"127.0.0.1:1\"\n";
    let expectation = Scenario::read("s", text, &[]).unwrap().expectations()[0];
    RunReport {
        schema: "callgate-load/1",
        scenario: ScenarioSummary {
            name: "a & b".into(),
            description: "what it is for".into(),
            seed: 1,
        },
        target: Some("sip:a@h".into()),
        listen: None,
        started_at: "2026-11-23T00:00:00.000Z".into(),
        elapsed_ms: 90_000,
        is_cut_short: false,
        is_valid: true,
        invalid_because: Vec::new(),
        verdict: crate::run::Verdict::Passed,
        has_passed: true,
        expectations: vec![crate::run::Judged { expectation, found: Some(48.0), holds: true }],
        callers: Some(callers),
        callees: None,
        kinds: Vec::new(),
        through: Some(Through::default()),
        actors: vec![scanner()],
        own: OwnLoad::default(),
        series,
    }
}

#[test]
fn the_page_is_whole_and_needs_nothing_else() {
    let page = html(&report());
    for part in ["<title>a &amp; b", "setup p99 &lt;= 250 ms", "withstood", "404 policy.no_route"] {
        assert!(page.contains(part), "{part}");
    }
    for part in ["The load tester kept up", "us, BYE, Q.850 16", "far end, BYE, no cause"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.contains("prefers-color-scheme:dark"));
    for foreign in ["<script", "http:", "https:", "url(", "<link", "<img", "@import"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    for tag in ["figure", "svg", "table", "tbody", "section", "div", "main", "span", "tr", "td"] {
        let opened =
            page.matches(&format!("<{tag} ")).count() + page.matches(&format!("<{tag}>")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(page.matches("<svg").count() >= 7 && !page.contains("NaN") && !page.contains("inf"));
}

#[test]
fn what_the_far_end_says_stays_a_text() {
    let page = html(&report());
    assert!(page.contains("&lt;script&gt;alert(1)"));
    assert!(!page.contains('\u{202e}'));
}

#[test]
fn a_run_that_measured_nothing_is_a_page_too() {
    let empty = RunReport {
        callers: None,
        through: None,
        series: Vec::new(),
        is_valid: false,
        invalid_because: vec!["it slept".into()],
        ..report()
    };
    let page = html(&empty);
    assert!(page.contains("not valid") && page.contains("it slept"));
    assert!(!page.contains("The load tester kept up"));
}

#[test]
fn the_verdict_is_named_and_the_lag_that_it_hangs_on() {
    let lag = Spread { count: 100, p50: 1.0, p95: 4.0, p99: 12.5, max: 40.0 };
    for (verdict, is_valid, badge) in [
        (Verdict::Passed, true, "badge good\">passed</strong>"),
        (Verdict::Passed, false, "badge doubt\">passed, not valid</strong>"),
        (Verdict::Failed, true, "badge bad\">failed</strong>"),
        (Verdict::Failed, false, "badge bad\">failed</strong>"),
        (Verdict::NotJudged, false, "badge doubt\">not judged</strong>"),
    ] {
        let own = OwnLoad { signalling_lag_ms: Some(lag), ..OwnLoad::default() };
        let page = html(&RunReport { verdict, is_valid, own, ..report() });
        assert!(page.contains(badge), "{badge}");
        assert!(page.contains("12.5 ms (worst 40 ms)"));
    }
    assert!(html(&report()).contains("not measured"));
}

#[test]
fn figures_have_the_digits_that_say_something() {
    for (value, text) in [
        (0.0, "0"),
        (0.123, "0.12"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1_234_567.0, "1\u{2009}234\u{2009}567"),
        (-1_500.0, "\u{2212}1\u{2009}500"),
        (f64::NAN, "-"),
    ] {
        assert_eq!(figure(value), text);
    }
}

#[test]
fn the_json_of_a_run_has_its_golden_shape() {
    let mut report = report();
    report.series.truncate(1);
    if let Some(callers) = &mut report.callers {
        callers.calls.truncate(1);
        callers.failures.clear();
    }
    let json = serde_json::to_string_pretty(&report).unwrap();
    assert_eq!(json, include_str!("../testdata/run.json").trim_end(), "found:\n{json}");
}
