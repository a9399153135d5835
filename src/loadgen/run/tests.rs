//! Whole runs on 127.0.0.1: both ends are ours, with nothing or with a faulty edge between them.

use std::net::TcpListener;

use crate::run::ScenarioRun;
use crate::{RunReport, Scenario, html};

/// A port that was free a moment ago.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Runs a scenario whose callers call its own callee directly.
async fn run(transport: &str, text: &str) -> RunReport {
    let port = port();
    let head = format!(
        "[target]\nto = \"sip:4930{{token}}@127.0.0.1:{port};transport={transport}\"\n\
         danger_accept_any_certificate = true\n\
         [callee]\nlisten = \"127.0.0.1:{port}\"\ntransport = \"{transport}\"\n"
    );
    // What stands above the first table must stay there.
    let first = if text.starts_with('[') { 0 } else { text.find("\n[").map_or(0, |it| it + 1) };
    let (above, tables) = text.split_at(first);
    let text = format!("{above}{head}{tables}");
    let scenario = Scenario::read("test", &text, &[]).unwrap_or_else(|it| panic!("{it}\n{text}"));
    let mut mute = |_: &str| Err("no helper in tests".to_owned());
    let sounds = crate::scenario_sounds(&scenario, &mut mute).unwrap();
    ScenarioRun::new(scenario, sounds).run().await.unwrap()
}

const FAST: &str = "[[stage]]\nrate = 20\nfor = \"200ms\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_and_callees_find_each_other_over_every_transport() {
    for transport in ["tls", "tcp", "udp"] {
        let text = format!(
            "expect = [\"answered = 100 %\", \"paired = 100 %\", \"through loss = 0 %\"]\n\
             [[callee.kind]]\ncodecs = [\"pcma\"]\nsay = [\"synth\"]\n{FAST}\
             [[caller]]\ntalk = \"500ms\"\nsay = [\"tone 440\"]\n"
        );
        let report = run(transport, &text).await;
        assert!(report.has_passed, "{transport}: {report}");
        let through = report.through.as_ref().unwrap();
        assert_eq!((through.paired, through.unstamped, through.injected), (4, 0, 0));
        // 4 calls, two ends, 25 packets each, but for what was on its way at the end.
        assert!((120..=216).contains(&through.packets), "{through:?}");
        assert!(through.delay_ms.unwrap().p50 < 500.0);
        let (callers, callees) = (report.callers.unwrap(), report.callees.unwrap());
        assert_eq!((callers.answered, callees.answered), (4, 4));
        assert_eq!(callers.codecs.get("PCMA, AEAD_AES_256_GCM"), Some(&4), "{:?}", callers.codecs);
        assert_eq!(callees.endings.get("far_end"), Some(&4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callees_answer_refuse_ring_and_hang_up_as_they_are_told() {
    let kind = |callee: &str, caller: &str| {
        format!(
            "expect = [\"failed = 0\"]\n[limits]\nsetup_timeout = \"600ms\"\n\
             [[callee.kind]]\n{callee}\n{FAST}[[caller]]\ntalk = \"20s\"\n{caller}\n"
        )
    };
    let report = run("tls", &kind("refuse = 486\nanswer_after = \"50ms\"", "")).await;
    assert!(report.has_passed, "{report}");
    assert_eq!((report.kinds[0].planned, report.kinds[1].planned), (4, 4));

    let report = run("tls", &kind("never_answer = true", "")).await;
    assert!(report.has_passed && report.kinds[0].planned == 4, "{report}");

    let report = run("tls", &kind("answer_after = \"5s\"", "cancel_after = \"100ms\"")).await;
    assert!(report.has_passed && report.kinds[0].planned == 4, "{report}");
    assert_eq!(report.kinds[1].planned, 4, "the callee saw the CANCEL: {report}");

    let callee = "early_media = true\nanswer_after = \"200ms\"\nhang_up_after = \"300ms\"";
    let report = run("tls", &kind(callee, "hang_up = \"callee\"")).await;
    let callers = report.callers.as_ref().unwrap();
    assert_eq!(callers.endings.get("far_end"), Some(&4), "{report}");
    let first = callers.first_audio_ms.unwrap();
    assert_eq!(first.max, 0.0, "early media was there before the answer");
    assert!(callers.setup_ms.unwrap().p50 >= 200.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_heard_in_each_form_that_carries_keys() {
    for form in ["rfc4733", "info"] {
        let text = format!(
            "[[callee.kind]]\ncodecs = [\"pcmu\"]\n[[stage]]\nrate = 10\nfor = \"100ms\"\n\
             [[caller]]\ntalk = \"1200ms\"\n\
             keys = {{ digits = \"42#\", form = \"{form}\", after = \"100ms\" }}\n"
        );
        let report = run("tls", &text).await;
        let heard = &report.callees.as_ref().unwrap().calls[0].digits_heard;
        assert_eq!(heard, "42#", "{form}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_media_flows() {
    for media in [
        "codecs = [\"opus\"]\nptime = 40",
        "codecs = [\"g722\"]\nptime = 10\nlate_offer = true",
        "codecs = [\"pcmu\"]\nsuites = [\"AES_CM_128_HMAC_SHA1_80\"]\nrtcp_mux = false",
        "media = \"plain\"",
        "media = \"opportunistic\"",
        "on_hold = { after = \"100ms\", for = \"100ms\" }",
    ] {
        let text = format!(
            "expect = [\"answered = 100 %\", \"paired = 100 %\", \"rejected = 0\"]\n\
             [[callee.kind]]\nmedia = \"opportunistic\"\n[[stage]]\nrate = 10\nfor = \"200ms\"\n\
             [[caller]]\ntalk = \"600ms\"\nsay = [\"synth\"]\n{media}\n"
        );
        let report = run("tls", &text).await;
        assert!(report.has_passed, "{media}: {report}");
        let packets = report.through.as_ref().unwrap().packets;
        assert!(packets >= 40, "{media}: {packets} packets");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_that_lets_strangers_in_is_found_out() {
    // There is no edge: the stranger shares the caller's address, and plain RTP knows no other.
    let text = "[[callee.kind]]\nmedia = \"opportunistic\"\n\
         [[caller]]\ntalk = \"600ms\"\nmedia = \"plain\"\nsay = [\"synth\"]\n\
         [[actor]]\nkind = \"stranger_rtp\"\ncount = 1\nfrom = \"127.0.0.1\"\nbefore = \"100ms\"\n\
         [[actor]]\nkind = \"srtp_replay\"\ncount = 1\nfrom = \"127.0.0.1\"\n";
    let report = run("tls", text).await;
    assert!(!report.has_passed, "{report}");
    let (stranger, replay) = (&report.actors[0], &report.actors[1]);
    assert!(stranger.injected > 5 && !stranger.has_passed, "{report}");
    assert!(replay.replayed > 5 && !replay.has_passed, "{report}");
    assert!(report.callers.is_none(), "a bad actor's calls are not the callers'");

    // SRTP keeps both out.
    let text = text.replace("\"plain\"", "\"srtp\"");
    let report = run("tls", &text).await;
    assert!(report.has_passed, "{report}");
    assert!(report.actors.iter().all(|it| it.packets > 5 && it.injected == 0), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_gets_through_or_is_not_allowed_fails_the_run() {
    // Our own callee takes plaintext, as an edge must not.
    let actor = "[[callee.kind]]\nanswer_after = \"1s\"\n\
         [[actor]]\nkind = \"plaintext_invite\"\ncount = 2\nrate = 50\n";
    let report = run("tcp", actor).await;
    assert!(!report.has_passed && report.actors[0].got_through == 2, "{report}");

    let actor = "[[callee.kind]]\nrefuse = 403\n\
         [[actor]]\nkind = \"invite_flood\"\ncount = 20\nrate = 200\nallow = [\"404\"]\n";
    let report = run("tls", actor).await;
    assert!(!report.has_passed, "{report}");
    assert!(report.actors[0].verdict.contains("is not among"), "{report}");
    assert_eq!(report.actors[0].outcomes.get("403 Forbidden"), Some(&20), "{report}");

    let report = run("tls", &actor.replace("404", "403")).await;
    assert!(report.has_passed, "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expectations_that_do_not_hold_fail_and_nobody_there_is_said() {
    let text = format!(
        "expect = [\"setup max <= 50 ms\", \"delay p50 <= 1000 ms\"]\n\
         [[callee.kind]]\nanswer_after = \"100ms\"\n{FAST}[[caller]]\ntalk = \"100ms\"\n"
    );
    let report = run("tls", &text).await;
    let holds: Vec<bool> = report.expectations.iter().map(|it| it.holds).collect();
    assert_eq!((holds, report.has_passed), (vec![false, true], false));

    let text = format!(
        "expect = [\"answered = 100 %\", \"setup max <= 50 ms\"]\n\
         [target]\nto = \"sip:a@127.0.0.1:{};transport=tcp\"\n{FAST}",
        port()
    );
    let scenario = Scenario::read("test", &text, &[]).unwrap();
    let sounds = crate::scenario_sounds(&scenario, &mut |_| Err(String::new())).unwrap();
    let report = ScenarioRun::new(scenario, sounds).run().await.unwrap();
    let found: Vec<Option<f64>> = report.expectations.iter().map(|it| it.found).collect();
    assert_eq!(found, [Some(0.0), None]);
    let failures = &report.callers.as_ref().unwrap().failures;
    assert_eq!(failures.get("connect.refused"), Some(&4));
    assert!(html(&report).contains("connect.refused"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_cancelled_hangs_up_and_reports() {
    let port = port();
    let text = format!(
        "[target]\nto = \"sip:4930{{token}}@127.0.0.1:{port}\"\n\
         danger_accept_any_certificate = true\n[callee]\nlisten = \"127.0.0.1:{port}\"\n\
         [[stage]]\nrate = 20\nfor = \"60s\"\n[[caller]]\ntalk = \"60s\"\n"
    );
    let scenario = Scenario::read("test", &text, &[]).unwrap();
    let sounds = crate::scenario_sounds(&scenario, &mut |_| Err(String::new())).unwrap();
    let run = ScenarioRun::new(scenario, sounds);
    let (cancellation, mut progress) = (run.cancellation(), run.progress());
    let running = tokio::spawn(run.run());
    progress.wait_for(|it| it.answered >= 3).await.unwrap();
    cancellation.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(report.is_cut_short);
    let callers = report.callers.unwrap();
    assert!(callers.answered >= 3 && callers.placed < 100, "{callers}");
    assert!(callers.endings.contains_key("cancelled"), "{callers}");
}
