//! Whole loads against a small far end on 127.0.0.1.

mod browsers;
mod uas;
mod whip;

use std::time::Duration;

use audio::Codec;
use rtp::Suite;

use self::uas::{Behaviour, Seen, Uas};
use crate::{
    Authorities, CallOutcome, Config, Ending, Identity, Load, OfferMode, Protection, Report,
    Script, Step, Target, wav,
};

const HOLD: Duration = Duration::from_millis(600);

fn config(uas: &Uas, transport: &str) -> Config {
    let target = format!("sip:echo@{};transport={transport}", uas.address);
    let mut config = Config::new(Target::parse(&target).unwrap());
    config.hold = HOLD;
    config.setup_timeout = Duration::from_secs(5);
    config.rate = 100.0;
    config.tls.authorities = Authorities::Pem(uas.authority.clone());
    config
}

async fn run(config: Config) -> Report {
    Load::new(config).unwrap().run().await.unwrap()
}

/// Whether most of what was sent came back; the rest was on its way when the call ended.
fn is_echoed(report: &Report) -> bool {
    let media = &report.media;
    media.packets_received * 10 >= media.packets_sent * 6
        && media.packets_received > 0
        && media.packets_rejected == 0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_calls_are_echoed_and_measured() {
    let mut uas = Uas::tls(Behaviour::Echo).await;
    let config = Config { calls: 3, concurrency: 2, ..config(&uas, "tls") };
    let load = Load::new(config).unwrap();
    let progress = load.progress();
    let report = load.run().await.unwrap();
    assert_eq!((report.placed, report.answered, report.failed), (3, 3, 0), "{report}");
    assert_eq!(report.endings.get("hold"), Some(&3));
    assert_eq!(report.codecs.get("G722, AEAD_AES_256_GCM"), Some(&3), "{:?}", report.codecs);
    assert_eq!((report.setup_ms.unwrap().count, report.first_sound_ms.unwrap().count), (3, 3));
    assert!(is_echoed(&report) && report.media.rtcp_sent >= 3, "{report}");
    // With room for two, the third call had to wait for the end of one.
    assert!(report.saturation.late_starts >= 1 && report.saturation.ticks >= 60);
    let last = *progress.borrow();
    assert_eq!((last.placed, last.answered, last.over, last.talking), (3, 3, 3, 0));
    let seen = uas.seen();
    assert_eq!(seen.iter().filter(|it| **it == Seen::Bye).count(), 3);
    assert!(seen.contains(&Seen::Rtcp { has_goodbye: true }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_are_counted_by_their_reason() {
    for (behaviour, reason) in [
        (Behaviour::Busy, "486 Busy Here"),
        (Behaviour::Refuse, "403 policy.plaintext_signalling"),
        (Behaviour::Nonsense, "media.sdp_malformed"),
        (Behaviour::Close, "connect.lost"),
    ] {
        let uas = Uas::tls(behaviour).await;
        let report = run(Config { calls: 2, ..config(&uas, "tls") }).await;
        assert_eq!((report.failed, report.answered), (2, 0), "{report}");
        assert_eq!(report.failures.get(reason), Some(&2), "{:?}", report.failures);
        assert_eq!(report.setup_ms, None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_and_a_stranger_there_are_told_apart() {
    let uas = Uas::tls(Behaviour::Echo).await;
    let mut stranger = config(&uas, "tls");
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    stranger.tls.authorities = Authorities::Pem(other.cert.pem().into_bytes());
    let report = run(stranger.clone()).await;
    assert_eq!(report.failures.get("connect.bad_certificate"), Some(&1), "{:?}", report.failures);

    stranger.tls.authorities = Authorities::DangerAcceptAnyCertificate;
    assert_eq!(run(stranger).await.answered, 1);

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut nobody = config(&uas, "tcp");
    nobody.target = Target::parse(&format!("sip:a@{free};transport=tcp")).unwrap();
    let report = run(nobody).await;
    assert_eq!(report.failures.get("connect.refused"), Some(&1), "{:?}", report.failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_offer_is_answered_in_the_ack_and_media_flows() {
    let mut uas = Uas::tls(Behaviour::Echo).await;
    let report = run(Config { offer: OfferMode::Late, ..config(&uas, "tls") }).await;
    let seen = uas.seen();
    assert_eq!(seen[..2], [Seen::Invite { has_offer: false }, Seen::Ack { has_answer: true }]);
    let call = &report.calls[0];
    assert_eq!(call.suite.as_deref(), Some("AES_CM_128_HMAC_SHA1_80"));
    assert!(is_echoed(&report), "{call:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_presses_reach_the_far_end() {
    let mut uas = Uas::tls(Behaviour::Echo).await;
    let script = Script::tone(440)
        .then(Step::Wait(Duration::from_millis(100)))
        .then(Step::Digits("12#".into()))
        .then(Step::Hangup);
    let config = Config {
        script,
        hold: Duration::from_secs(10),
        codecs: vec![Codec::Pcmu],
        ..config(&uas, "tls")
    };
    let report = run(config).await;
    let digits: String = uas
        .seen()
        .into_iter()
        .filter_map(|it| match it {
            Seen::Digit(digit) => Some(digit),
            _ => None,
        })
        .collect();
    assert_eq!(digits, "12#");
    let call = &report.calls[0];
    assert_eq!((call.media.digits_sent, call.ending), (3, Some(Ending::Script)));
    // The echo brings them back.
    assert_eq!(call.digits_heard, "12#");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_heard_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    let uas = Uas::tls(Behaviour::Echo).await;
    let save = Some(folder.path().join("heard.wav"));
    let report = run(Config { calls: 2, save, ..config(&uas, "tls") }).await;
    assert_eq!(report.save_errors, 0);
    for call in &report.calls {
        let path = call.saved.as_ref().unwrap();
        assert!(path.ends_with(format!("heard-{}.wav", call.index)));
        let heard = wav::read(path).unwrap();
        assert!(heard.len() >= 16 * 500, "{}", heard.len());
        // The tone has -16 dBFS and a little.
        let level = audio::level::dbfs(&heard[heard.len() / 2..]);
        assert!((-25.0..-15.0).contains(&level), "{level}");
    }
    let nowhere = Some(folder.path().join("missing").join("heard.wav"));
    let report = run(Config { save: nowhere, ..config(&uas, "tls") }).await;
    assert_eq!((report.answered, report.save_errors), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_calls_over_udp_and_tcp_work_too() {
    for transport in ["udp", "tcp"] {
        let mut uas = match transport {
            "udp" => Uas::udp(Behaviour::Echo).await,
            _ => Uas::tcp(Behaviour::Echo).await,
        };
        let config =
            Config { protection: Protection::Plain, rtcp_mux: false, ..config(&uas, transport) };
        let report = run(config).await;
        assert_eq!(report.answered, 1, "{report}");
        assert_eq!(report.calls[0].suite, None);
        assert!(is_echoed(&report), "{report}");
        assert!(uas.seen().contains(&Seen::Bye));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn srtp_offered_as_avp_is_taken_by_a_far_end_that_knows_it() {
    let uas = Uas::tls(Behaviour::Echo).await;
    let suites = vec![Suite::AesCm128HmacSha1_32];
    let config = Config { protection: Protection::Opportunistic, suites, ..config(&uas, "tls") };
    let report = run(config).await;
    assert_eq!(report.calls[0].suite.as_deref(), Some("AES_CM_128_HMAC_SHA1_32"), "{report}");
    assert!(is_echoed(&report), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_immediate_re_invite_does_not_interrupt_media() {
    let mut uas = Uas::tls(Behaviour::EchoAndReInvite).await;
    let report = run(config(&uas, "tls")).await;
    assert!(uas.seen().contains(&Seen::ReInvite(200)));
    let call = &report.calls[0];
    assert_eq!((call.outcome, call.ending), (CallOutcome::Answered, Some(Ending::Hold)));
    assert!(is_echoed(&report), "{call:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_far_end_may_hang_up_first() {
    let uas = Uas::tls(Behaviour::HangUp(Duration::from_millis(200))).await;
    let report = run(Config { hold: Duration::from_secs(30), ..config(&uas, "tls") }).await;
    assert_eq!(report.endings.get("far_end"), Some(&1), "{report}");
    assert!(report.duration_ms.unwrap().max < 10_000.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_only_rings_is_cancelled_at_its_time() {
    let mut uas = Uas::tls(Behaviour::Ring).await;
    let setup_timeout = Duration::from_millis(200);
    let report = run(Config { setup_timeout, ..config(&uas, "tls") }).await;
    assert_eq!(report.failures.get("setup.timeout"), Some(&1), "{:?}", report.failures);
    assert!(uas.seen().contains(&Seen::Cancel));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_load_hangs_up_and_reports() {
    for (behaviour, last) in [(Behaviour::Echo, Seen::Bye), (Behaviour::Ring, Seen::Cancel)] {
        let mut uas = Uas::tls(behaviour).await;
        let config = Config {
            calls: 1000,
            concurrency: 2,
            hold: Duration::from_secs(600),
            setup_timeout: Duration::from_secs(60),
            ..config(&uas, "tls")
        };
        let load = Load::new(config).unwrap();
        let cancellation = load.cancellation();
        let mut progress = load.progress();
        let load = tokio::spawn(load.run());
        let is_answered = behaviour == Behaviour::Echo;
        progress
            .wait_for(|it| if is_answered { it.talking == 2 } else { it.ringing == 2 })
            .await
            .unwrap();
        cancellation.cancel();
        let report = load.await.unwrap().unwrap();
        assert!(report.is_cut_short);
        assert_eq!(report.placed, 2);
        let found = (report.answered, report.cancelled);
        assert_eq!(found, if is_answered { (2, 0) } else { (0, 2) }, "{report}");
        if is_answered {
            assert_eq!(report.endings.get("cancelled"), Some(&2));
            assert_eq!(uas.seen().iter().filter(|it| **it == last).count(), 2);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_ends_a_load() {
    let uas = Uas::tls(Behaviour::Echo).await;
    let deadline = Some(Duration::from_millis(300));
    let hold = Duration::from_secs(600);
    let report = run(Config { deadline, hold, ..config(&uas, "tls") }).await;
    assert!(report.is_cut_short && report.elapsed_ms < 10_000, "{report}");
}

#[test]
fn a_client_certificate_is_read_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["carrier.example".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["other.example".to_owned()]).unwrap();
    let file = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path
    };
    let certificate = file("carrier.pem", key.cert.pem());
    let keys = [file("key.pem", key.signing_key.serialize_pem()), certificate.clone()];
    let other = file("other.pem", other.signing_key.serialize_pem());
    let load = |key: &std::path::Path| {
        let mut config = Config::new(Target::parse("sip:a@127.0.0.1").unwrap());
        config.tls.authorities = Authorities::File(certificate.clone());
        config.tls.identity = Some(Identity { certificate: certificate.clone(), key: key.into() });
        Load::new(config).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(load(&keys[0]), Ok(()));
    assert!(load(&keys[1]).unwrap_err().contains("carrier.pem cannot be read"));
    assert!(load(&other).unwrap_err().contains("cannot be used"));
}

#[tokio::test]
async fn a_load_that_cannot_begin_says_why() {
    let target = Target::parse("sip:a@does-not-exist.invalid").unwrap();
    let error = |config: Config| Load::new(config).err().unwrap().to_string();
    let mut config = Config::new(target);
    config.tls.authorities = Authorities::File("/nowhere/ca.pem".into());
    assert!(error(config.clone()).contains("/nowhere/ca.pem cannot be read"));
    config.tls.authorities = Authorities::Pem(Vec::new());
    assert!(error(config.clone()).contains("no certificate of an authority"));
    config.tls.authorities = Authorities::DangerAcceptAnyCertificate;
    let unresolved = Load::new(config).unwrap().run().await.unwrap_err();
    assert!(unresolved.to_string().contains("does-not-exist.invalid cannot be found"));
}
