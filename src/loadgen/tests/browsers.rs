//! Browsers against a WHIP endpoint.

use std::time::Duration;

use audio::Codec;
use base::Secret;

use super::is_echoed;
use super::whip::{Fault, TOKEN, Whip};
use crate::{Authorities, Config, Load, Report, Scenario, ScenarioRun, Target, Verdict};

fn config(whip: &Whip) -> Config {
    let target = format!("https://{}/whip/reception", whip.address);
    let mut config = Config::new(Target::parse(&target).unwrap());
    config.hold = Duration::from_millis(600);
    config.codecs = vec![Codec::Opus, Codec::Pcmu];
    config.setup_timeout = Duration::from_secs(5);
    config.token = Some(Secret::new(TOKEN.to_owned()));
    config.tls.authorities = Authorities::Pem(whip.authority.clone());
    config
}

async fn run(config: Config) -> Report {
    Load::new(config).unwrap().run().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browsers_call_by_whip_and_hear_themselves() {
    let whip = Whip::start(Fault::None).await;
    let report = run(Config { calls: 3, ..config(&whip) }).await;
    assert_eq!((report.answered, report.failed), (3, 0), "{report}");
    assert_eq!(report.codecs.get("PCMU, AEAD_AES_128_GCM"), Some(&3), "{:?}", report.codecs);
    assert_eq!(report.secured_ms.unwrap().count, 3);
    assert!(is_echoed(&report), "{report}");
    let seen = whip.seen();
    for (what, times) in [("POST /whip/reception", 3), ("DELETE /whip/session/1", 3)] {
        assert_eq!(seen.iter().filter(|it| *it == what).count(), times, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_before_there_are_keys_has_a_name() {
    let whip = Whip::start(Fault::None).await;
    let report = run(Config { token: None, ..config(&whip) }).await;
    assert_eq!(report.failures.get("401 api.unauthenticated"), Some(&1), "{:?}", report.failures);
    for (fault, name) in [(Fault::Fingerprint, "dtls.fingerprint"), (Fault::Deaf, "setup.timeout")]
    {
        let whip = Whip::start(fault).await;
        let config = Config { setup_timeout: Duration::from_secs(2), ..config(&whip) };
        let report = run(config).await;
        assert_eq!(report.failures.get(name), Some(&1), "{:?}", report.failures);
        // What was made is hung up all the same.
        assert!(whip.seen().contains(&"DELETE /whip/session/1".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_far_end_that_leaves_ends_the_call() {
    let whip = Whip::start(Fault::Leaves).await;
    let report = run(Config { hold: Duration::from_secs(20), ..config(&whip) }).await;
    assert_eq!(report.endings.get("far_end"), Some(&1), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scenario_may_have_browsers_among_its_callers() {
    let whip = Whip::start(Fault::None).await;
    let folder = tempfile::tempdir().unwrap();
    let [token, authority] = ["token", "ca.pem"].map(|name| folder.path().join(name));
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    std::fs::write(&authority, &whip.authority).unwrap();
    let text = format!(
        "name = \"browsers\"\n\
         expect = [\"answered = 100 %\", \"secured p95 <= 3000 ms\", \"rejected = 0\"]\n\
         [target]\nto = \"https://{}/whip/{{token}}\"\ntoken_file = {token:?}\nca = {authority:?}\n\
         [[stage]]\nrate = 10\nfor = \"500ms\"\n\
         [[caller]]\ncodecs = [\"pcmu\"]\nsay = [\"synth\"]\ntalk = \"400ms\"\n\
         keys = {{ digits = \"1\", after = \"100ms\" }}\n",
        whip.address
    );
    let scenario = Scenario::read("test", &text, &[]).unwrap();
    let sounds = crate::scenario_sounds(&scenario, &mut |_| Err(String::new())).unwrap();
    let report = ScenarioRun::new(scenario, sounds).run().await.unwrap();
    assert_ne!(report.verdict, Verdict::Failed, "{report}");
    assert_eq!(report.callers.unwrap().answered, 5);
    assert!(whip.seen().contains(&"POST /whip/0000004".to_owned()), "{:?}", whip.seen());
}

#[test]
fn what_a_browser_does_not_do_is_refused_before_the_run() {
    let text = "[target]\nto = \"https://127.0.0.1/whip/a\"\n\
                [[stage]]\nrate = 1\nfor = \"1s\"\n[[caller]]\n";
    assert!(Scenario::read("test", text, &[]).is_ok());
    for wrong in
        ["late_offer = true", "cancel_after = \"1s\"", "keys = { digits = \"1\", form = \"info\" }"]
    {
        let errors = Scenario::read("test", &format!("{text}{wrong}\n"), &[]).unwrap_err();
        assert!(errors.to_string().contains("`caller 0` is a browser"), "{errors}");
    }
}
