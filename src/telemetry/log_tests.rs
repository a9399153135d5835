//! Stories about log lines.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::event::{EventField, Times};
use base::{CallId, LegId, Personal, Reason, Secret, SeededRandom, TrunkName};
use serde_json::{Value as Json, json};

use super::*;

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl io::Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is logged at `level` while `act` runs.
pub(crate) fn logged(format: LogFormat, level: &str, act: impl FnOnce()) -> String {
    let captured = Captured::default();
    let writer = captured.clone();
    tracing::subscriber::with_default(subscriber(format, level, move || writer.clone()), act);
    let bytes = captured.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

fn json_of(act: impl FnOnce()) -> Json {
    let text = logged(LogFormat::Json, "debug", act);
    assert_eq!(text.matches('\n').count(), 1, "{text:?}");
    serde_json::from_str(&text).unwrap()
}

fn call() -> CallId {
    CallId::random(&mut SeededRandom::new(1))
}

fn ended() -> Event {
    let talked = Duration::from_millis(1_500);
    Event::CallEnded { call: call(), reason: Reason::CallerHungUp, talked }
}

#[test]
fn an_event_is_one_object_with_a_field_for_each_of_its_fields() {
    let line = json_of(|| write(&ended()));
    let time = line["time"].as_str().unwrap();
    assert!(time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
    let mut rest = line.as_object().unwrap().clone();
    rest.remove("time");
    assert_eq!(
        Json::from(rest),
        json!({
            "level": "info",
            "event": "call.ended",
            "call": call().to_string(),
            "reason": "call.caller_hung_up",
            "talked_us": 1_500_000,
        })
    );
}

#[test]
fn numbers_and_claims_are_no_strings_and_a_leg_is_named_by_its_call() {
    let leg = LegId { call: call(), index: 0 };
    let line = json_of(|| write(&Event::MediaLatched { leg, moved: true }));
    assert_eq!(line["moved"], json!(true));
    assert_eq!(line["call"], json!(call().to_string()));
    assert_eq!(line.get("leg"), None);
    let status = 403;
    let refused = Event::RequestRefused { reason: Reason::UnknownPeer, transport: "tls", status };
    let line = json_of(|| write(&refused));
    assert_eq!((&line["status"], &line["level"]), (&json!(403), &json!("warn")));
    let (trunk, reason) = (TrunkName::new("a \"b\"\n"), Reason::NoRoute);
    let line = json_of(|| write(&Event::CallsRefused { trunk, reason, calls: Times(994) }));
    assert_eq!((&line["calls"], &line["trunk"]), (&json!(994), &json!("a \"b\"\n")));
}

#[test]
fn the_text_format_is_for_people() {
    let text = logged(LogFormat::Text, "info", || write(&ended()));
    let call = call();
    let wanted =
        format!("Z  INFO call.ended call={call} reason=call.caller_hung_up talked_us=1500000\n");
    assert!(text.ends_with(&wanted), "{text:?}");
}

#[test]
fn only_what_is_asked_for_is_written() {
    let moved =
        || write(&Event::MediaLatched { leg: LegId { call: call(), index: 0 }, moved: true });
    assert_eq!(logged(LogFormat::Text, "info", moved), "");
    assert_ne!(logged(LogFormat::Text, "debug", moved), "");
}

#[test]
fn free_text_is_told_from_events_and_writes_no_lines_of_its_own() {
    let line = json_of(|| tracing::warn!(target: "callgate", "a \"policy\"\nof two lines"));
    assert_eq!(line["event"], json!("log.message"));
    assert_eq!(line["message"], json!("a \"policy\"\nof two lines"));
    let forged = "x\n2026-01-01T00:00:00Z  INFO call.ended";
    let library = || tracing::warn!(target: "hyper", peer = %forged, time = "noon", "{forged}");
    let line = json_of(library);
    assert_eq!((&line["message"], &line["fields"]["peer"]), (&json!(forged), &json!(forged)));
    assert_eq!(line["fields"]["time"], json!("noon"));
    assert_eq!(logged(LogFormat::Text, "info", library).lines().count(), 1);
}

/// Whether a type may stand in an event: the associated constant of the type itself is preferred
/// to that of the trait, and is there only where the bound holds.
trait NoField {
    const MAY_STAND: bool = false;
}
struct Probe<T>(std::marker::PhantomData<T>);
impl<T> NoField for Probe<T> {}
impl<T: EventField> Probe<T> {
    const MAY_STAND: bool = true;
}

#[test]
fn what_is_personal_or_secret_can_stand_in_no_event_and_prints_nothing() {
    const { assert!(Probe::<CallId>::MAY_STAND && Probe::<Reason>::MAY_STAND) };
    const { assert!(!Probe::<Personal<String>>::MAY_STAND) };
    const { assert!(!Probe::<Personal<u64>>::MAY_STAND) };
    const { assert!(!Probe::<Secret<Vec<u8>>>::MAY_STAND) };
    // Free text could hold anything.
    const { assert!(!Probe::<String>::MAY_STAND) };
    const { assert!(!Probe::<std::net::IpAddr>::MAY_STAND) };
    for format in [LogFormat::Json, LogFormat::Text] {
        let text = logged(format, "debug", || {
            let (number, key) =
                (Personal::new("+4915735550123"), Secret::new(b"hunter2 hunter2".to_vec()));
            tracing::warn!(target: "callgate", ?number, "from {number} with {key:?}");
            tracing::error!(target: "a_library", caller = %number, key = ?key, "failed");
        });
        assert!(!text.contains("1573555") && !text.contains("hunter"), "{text}");
        assert!(!text.contains("104, 117") && text.contains("[personal]"), "{text}");
    }
}
