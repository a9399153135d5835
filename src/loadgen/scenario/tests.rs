//! Scenario files: what is read, what is refused and how it is said.

use std::path::Path;
use std::time::Duration;

use audio::Codec;
use base::SeededRandom;

use super::*;

const GOOD: &str = "\
[target]
to = \"sip:reception@127.0.0.1:5061\"
[[stage]]
rate = 5
for = \"10s\"
";

fn read(text: &str, settings: &[&str]) -> Result<Scenario, String> {
    let settings: Vec<String> = settings.iter().map(|it| (*it).to_owned()).collect();
    Scenario::read("s.toml", text, &settings).map_err(|errors| errors.to_string())
}

#[test]
fn every_shipped_scenario_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../benches/scenarios");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "toml") {
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let scenario = Scenario::read(&name, &text, &[]).unwrap_or_else(|it| panic!("{it}"));
            assert_eq!(format!("{}.toml", scenario.name), name, "its name is the file's");
            assert!(!scenario.description.is_empty() && !scenario.expectations.is_empty());
            assert!(scenario.planned() >= 10);
            names.push(name);
        }
    }
    names.sort();
    let shipped = ["busy-hour", "first", "hostile", "ramp", "soak", "thousands", "trunk-to-trunk"];
    assert_eq!(names, shipped.map(|it| format!("{it}.toml")));
}

#[test]
fn the_document_names_every_key() {
    let readme = include_str!("../../../benches/scenarios/README.md");
    let files = include_str!("file.rs");
    let keys = files.lines().filter_map(|line| {
        let field = line.trim().strip_prefix("pub(super) ")?.split(':').next()?;
        (!field.contains(' ')).then_some(if field == "time" { "for" } else { field })
    });
    let is_said =
        |key: &&str| readme.contains(&format!("`{key}`")) || readme.contains(&format!("[{key}]"));
    let missing: Vec<_> = keys.filter(|key| !is_said(key)).collect();
    assert!(missing.is_empty(), "README.md does not say: {missing:?}");
}

#[test]
fn what_is_not_said_has_its_usual_value() {
    let scenario = read(GOOD, &[]).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.planned()), ("s", 50));
    let [caller] = scenario.callers.as_slice() else { panic!("{:?}", scenario.callers) };
    assert_eq!((caller.voice.ptime_ms, caller.voice.protection), (20, Protection::Srtp));
    assert_eq!(caller.voice.codecs[0], Codec::Opus);
    assert_eq!(caller.talk, Times::Fixed(Duration::from_secs(10)));
}

#[test]
fn errors_have_their_place_and_a_suggestion() {
    for (text, place, says) in [
        ("[target]\nto = \"sip:a@h\"\n[[stge]]\nrate = 1\n", "s.toml:3:3", "did you mean `stage`?"),
        (&GOOD.replace("rate = 5", "rate = 0.x"), "s.toml:4", "error"),
        (&GOOD.replace("\"10s\"", "\"10\""), "s.toml:5:7", "`10` is no time"),
        (&GOOD.replace("rate = 5", "rate = 5000"), "s.toml:4:8", "loadgen.calls_per_second"),
        (&GOOD.replace("sip:reception@", "tel:1 "), "s.toml:2:6", "cannot be called"),
        (&format!("{GOOD}[[caller]]\ncodecs = [\"pcmx\"]\n"), "s.toml:7:11", "`pcma`"),
        (&format!("{GOOD}[[caller]]\nptime = 25\n"), "s.toml:7:9", "10, 20, 30, 40 and 60"),
        (&format!("{GOOD}[[caller]]\nptime = 30\n"), "s.toml:7:9", "Opus does not have 30 ms"),
        (&format!("{GOOD}[[caller]]\nsay = [\"sing la\"]\n"), "s.toml:7:8", "cannot be said"),
        (&format!("{GOOD}[[caller]]\ntalk = \"unifrm 1s 2s\"\n"), "s.toml:7:8", "`uniform`"),
        (
            &format!("{GOOD}[[caller]]\nkeys = {{ digits = \"1x\" }}\n"),
            "s.toml:7:19",
            "`x` is no key",
        ),
        (&format!("{GOOD}[[actor]]\nkind = \"stranger_rtq\"\n"), "s.toml:7:8", "`stranger_rtp`"),
        (
            &format!("{GOOD}[[actor]]\nkind = \"srtp_replay\"\ncaller = \"x\"\n"),
            "s.toml:8:10",
            "caller 0",
        ),
        (&format!("{GOOD}[callee]\nlisten = \"here\"\n"), "s.toml:7:10", "is no address"),
        (
            &format!("{GOOD}[callee]\nlisten = \"127.0.0.1:1\"\nkey = \"k\"\n"),
            "s.toml:8:7",
            "needs its key",
        ),
        ("[[stage]]\nrate = 1\nfor = \"1s\"\n", "s.toml:1:1", "--to"),
        ("name = \"x\"\n", "s.toml:1:1", "the scenario does nothing"),
    ] {
        let found = read(text, &[]).unwrap_err();
        assert!(found.contains(place) && found.contains(says), "{place} {says}: {found}");
    }
}

#[test]
fn expectations_are_read_and_judged() {
    let with = |expect: &str| format!("expect = [\"{expect}\"]\n{GOOD}");
    let scenario = read(&with("setup p99 <= 250 ms"), &[]).unwrap();
    let expectation = scenario.expectations()[0];
    assert_eq!(expectation.measure, Measure::SetupP99);
    assert!(expectation.holds(250.0) && !expectation.holds(250.1));
    assert_eq!(expectation.to_string(), "setup p99 <= 250 ms");
    let least = read(&with("answered >= 99.9 %"), &[]).unwrap().expectations()[0];
    assert!(least.holds(100.0) && !least.holds(99.8));
    let none = read(&with("injected = 0"), &[]).unwrap().expectations()[0];
    assert!(none.holds(0.0) && !none.holds(1.0));
    for (text, says) in [
        ("setup p99", "compares nothing"),
        ("setpu p99 <= 5 ms", "did you mean `setup p99`?"),
        ("setup p99 <= 5 s", "measured in ms"),
        ("injected = 0 ms", "without a unit"),
        ("answered >= ninety %", "is measured in %"),
    ] {
        let found = read(&with(text), &[]).unwrap_err();
        assert!(found.contains(says) && found.contains("s.toml:1:11"), "{text}: {found}");
    }
}

#[test]
fn settings_win_over_the_file_and_their_errors_name_them() {
    let scenario = read(GOOD, &["stage.0.rate=2", "limits.calls=7", "target.to=sip:x@h"]).unwrap();
    assert_eq!((scenario.stages[0].from, scenario.limits.calls), (2.0, 7));
    assert_eq!(scenario.outward.unwrap().to.text, "sip:x@h");
    for (setting, says) in [
        ("limits.cals=7", "did you mean `calls`?"),
        ("stage.1.rate=2", "count from 0"),
        ("limits.calls=0", "is not between 1"),
        ("limits.calls", "sets nothing"),
        ("limits=3", "no such place"),
    ] {
        let found = read(&format!("{GOOD}[limits]\ncalls = 3\n"), &[setting]).unwrap_err();
        assert!(found.contains(says) && found.contains("--set:1"), "{setting}: {found}");
    }
}

#[test]
fn steps_lead_from_one_rate_to_another() {
    let text = GOOD.replace("rate = 5", "rate = 10\nto = 40\nsteps = 4");
    let stages = read(&text, &[]).unwrap().stages;
    let rates: Vec<f64> = stages.iter().map(|it| it.from).collect();
    assert_eq!(rates, [10.0, 20.0, 30.0, 40.0]);
    assert!(stages.iter().all(|it| it.from == it.to && it.time == Duration::from_millis(2_500)));
}

#[test]
fn a_called_number_has_its_token() {
    let text = GOOD.replace("sip:reception@", "sip:+4930{token}@");
    let outward = read(&text, &[]).unwrap().outward.unwrap();
    assert_eq!(outward.to.of(42).uri.user(), Some("+49300000042"));
    let twice = GOOD.replace("sip:reception@", "sip:{token}{token}@");
    assert!(read(&twice, &[]).unwrap_err().contains("write it once"));
}

#[test]
fn times_are_drawn_as_they_are_distributed() {
    let mut random = SeededRandom::new(5);
    let (least, most) = (Duration::from_secs(10), Duration::from_secs(20));
    let uniform = Times::Uniform(least, most);
    assert!((0..1000).map(|_| uniform.draw(&mut random)).all(|it| it >= least && it <= most));
    let exponential = Times::Exponential(least);
    let drawn: Vec<f64> = (0..5000).map(|_| exponential.draw(&mut random).as_secs_f64()).collect();
    let mean = drawn.iter().sum::<f64>() / 5000.0;
    assert!((9.5..10.5).contains(&mean), "{mean}");
    assert!(drawn.iter().all(|it| *it <= 100.0));
}

#[test]
fn kinds_are_chosen_by_their_weights() {
    let mut random = SeededRandom::new(5);
    let mut counts = [0; 3];
    for _ in 0..4000 {
        counts[choose([3, 0, 1].into_iter(), &mut random)] += 1;
    }
    assert!(counts[1] == 0 && (2900..3100).contains(&counts[0]), "{counts:?}");
    assert_eq!(choose([0].into_iter(), &mut random), 0);
}

#[test]
fn what_is_said_becomes_sound() {
    let text = format!(
        "{GOOD}[[caller]]\nsay = [\"text a b\", \"tone 440\"]\nsay_after = \"1s\"\n\
         pause = \"500ms\"\n[[caller]]\nname = \"b\"\nsay = [\"synth\"]\n\
         keys = {{ digits = \"12\", form = \"inband\" }}\n"
    );
    let scenario = read(&text, &[]).unwrap();
    let mut said = Vec::new();
    let mut speak = |text: &str| -> Result<Arc<[i16]>, String> {
        said.push(text.to_owned());
        Ok(vec![9; 1600].into())
    };
    let sounds = sounds(&scenario, &mut speak).unwrap();
    // 1 s of silence, 100 ms of words, a pause, 4 s of tone, a pause.
    let seconds: Vec<f64> = sounds.iter().map(|it| it.len() as f64 / 16_000.0).collect();
    assert_eq!(seconds, [6.1, 4.0, 0.4]);
    assert_eq!(said, ["a b"]);
    assert!(
        sounds
            .iter()
            .all(|it| it.iter().any(|sample| sample.unsigned_abs() > 1_000) || it.contains(&9))
    );
    let mut mute = |_: &str| -> Result<Arc<[i16]>, String> { Err("no helper".into()) };
    let error = super::sounds(&scenario, &mut mute).unwrap_err().to_string();
    assert_eq!(error, "\"a b\" cannot be spoken: no helper");
}

#[test]
fn causes_are_told_by_callers_and_callees_and_never_by_browsers() {
    let both = format!(
        "{GOOD}[[caller]]\ncause = \"Q.850 16\"\n[callee]\nlisten = \"127.0.0.1:1\"\n\
         [[callee.kind]]\nrefuse = 486\ncause = \"SIP 486\"\n"
    );
    let scenario = read(&both, &[]).unwrap();
    assert_eq!(scenario.callers[0].cause, Some(crate::Cause::Q850(16)));
    assert_eq!(scenario.callee.unwrap().kinds[0].cause, Some(crate::Cause::Sip(486)));
    let wrong = read(&both, &["caller.0.cause=Q.850 160"]).unwrap_err();
    assert!(wrong.contains("causes of Q.850 are 1 to 127"), "{wrong}");
    let browser = GOOD.replace("sip:reception@127.0.0.1:5061", "https://h:8443/whip/a");
    let wrong = read(&format!("{browser}[[caller]]\ncause = \"SIP 200\"\n"), &[]).unwrap_err();
    assert!(wrong.contains("is a browser") && wrong.contains("cause"), "{wrong}");
}

#[test]
fn who_is_mostly_silent_sends_a_packet_now_and_then_and_presses_no_keys() {
    let sparse = |more: &str| read(&format!("{GOOD}[[caller]]\nevery = \"1s\"\n{more}"), &[]);
    assert_eq!(sparse("").unwrap().callers[0].voice.every_ms, Some(1_000));
    assert!(sparse("keys = { digits = \"1\" }\n").unwrap_err().contains("mostly silent"));
    for wrong in ["caller.0.every=10ms", "caller.0.every=21s"] {
        let text = format!("{GOOD}[[caller]]\nevery = \"1s\"\n");
        assert!(read(&text, &[wrong]).unwrap_err().contains("that far apart"), "{wrong}");
    }
}
