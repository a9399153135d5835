//! *Call*: what was said and heard on one axis of time, what was signalled and decided, and how the
//! media was.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base::{CallId, Personal, Reason};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use vault::{
    CallDetail, CallState, CallSummary, LadderEntry, RecordingState, RecordingSummary, Role, Turn,
};

use super::calls::{clock, numbers, state};
use super::html::{Html, Tenths, put};
use super::page::{self, Page, Place};
use super::{Console, Stop, escaped, quality, same_origin, talk};
use crate::live::Topic;
use crate::problem::Problem;

/// Facts of a decision that are listed; all of it is below them.
const FACTS: usize = 60;

pub(super) fn id_of(text: &str) -> Result<CallId, Problem> {
    let detail = "there is no such call";
    text.parse().map_err(|_| Problem::new(StatusCode::NOT_FOUND, "api.not_found", detail))
}

/// The page.
pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    uri: Uri,
    Path(id): Path<String>,
) -> Result<Response, Stop> {
    let person = console.viewer(&headers, &uri)?;
    let call = id.parse().map_err(|_| Stop::Missing(person))?;
    console.settle().await;
    let found = console.reader.call(call).await;
    let detail = found.map_err(|error| Stop::of(&error, person))?;
    let is_live = detail.summary.state == CallState::InProgress;
    let mut main = Html::default();
    put!(
        main,
        "<p class=\"back\"><a href=\"/console/calls\">All calls</a></p>\
         <h1>Call <code>{}</code></h1><div id=\"seen\" data-call=\"{}\" data-live=\"{}\"></div>\
         <p id=\"news\" role=\"status\"></p>",
        call,
        call,
        if is_live { "yes" } else { "no" },
    );
    facts(&mut main, &detail.summary);
    if is_live && person.can_write {
        put!(
            main,
            "<form method=\"post\" action=\"/console/calls/{}/hang-up\">\
             <button class=\"danger\">Hang up this call</button></form>",
            call,
        );
    }
    heard(&mut main, &detail);
    quality::section(&mut main, &console, &detail);
    ladder(&mut main, &detail.ladder);
    decision(&mut main, &detail);
    let (title, script) = (format!("Call {call}"), Some("call.js"));
    let page = Page { title: &title, place: Place::Call, person: Some(person), script };
    Ok(page.around(StatusCode::OK, &main))
}

/// What happens in a call that goes on.
pub(crate) async fn events(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    console.asker(&headers)?;
    talk::follow(&console, Topic::Call(id_of(&id)?))
}

/// Ends a call.
pub(crate) async fn hang_up(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Stop> {
    same_origin(&headers).map_err(Stop::Foreign)?;
    let page = format!("/console/calls/{}", escaped(&id));
    let person = console.person(&headers).ok_or_else(|| Stop::to_sign_in(&page))?;
    if !person.can_write {
        return Err(Stop::ReadOnly(person));
    }
    let call = id.parse().map_err(|_| Stop::Missing(person))?;
    if !console.backstage.hang_up(call).await {
        return Err(Stop::Over(person));
    }
    let mut response = axum::response::Redirect::to(&page).into_response();
    page::guard(response.headers_mut());
    Ok(response)
}

fn facts(main: &mut Html, call: &CallSummary) {
    let (from, to) = numbers(call);
    let (class, word) = state(call.state);
    put!(
        main,
        "<dl class=\"facts card\"><dt>State</dt><dd><span class=\"badge {}\">{}</span></dd>\
         <dt>From</dt><dd>{}</dd><dt>To</dt><dd>{}</dd>\
         <dt>Arrived</dt><dd><time datetime=\"{}\">{} UTC</time></dd>",
        class,
        word,
        from,
        to,
        call.started,
        clock(call.started),
    );
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            put!(main, "<dt>{}</dt><dd>{}</dd>", name, value);
        }
    };
    fact("Trunk", call.trunk.clone());
    fact("Voice agent", call.voice_agent.clone());
    fact("Answered after", call.setup.map(|setup| format!("{} ms", setup.as_millis())));
    fact("Talked for", call.talked.map(|talked| format!("{:.1} s", talked.as_secs_f64())));
    fact("Signalling", Some(call.transport.to_uppercase()));
    let media = (!call.codec.is_empty()).then(|| format!("{}, {}", call.codec, call.protection));
    fact("Media", media);
    let keys = "its SRTP keys crossed plaintext signalling, by exemption";
    fact("Keys exposed", call.keys_exposed.then(|| keys.to_owned()));
    let hint = |code: &String| {
        let known = Reason::ALL.iter().find(|reason| reason.code() == code);
        known.map_or_else(|| code.clone(), |reason| format!("{code}: {}", reason.hint()))
    };
    fact("Why it ended", call.reason.as_ref().map(hint));
    put!(main, "</dl>");
}

/// Recordings and the transcript, on one axis.
fn heard(main: &mut Html, detail: &CallDetail) {
    put!(main, "<section aria-labelledby=\"said\"><h2 id=\"said\">What was said</h2>");
    let playable = detail.recordings.iter().filter(|it| is_playable(it)).collect::<Vec<_>>();
    for (number, recording) in (1_u32..).zip(&playable) {
        axis(main, detail, recording, number, playable.len());
    }
    if playable.is_empty() {
        let why = match (detail.summary.recording, &*detail.summary.unrecorded) {
            (_, "edge") => "This call was not recorded: this edge records nothing.",
            (_, "trunk") => "This call was not recorded: its trunk does not allow it.",
            (_, "codec") => "This call was not recorded: its codec is not decoded here.",
            (true, _) => "There is no audio of this call (any more).",
            (false, _) => "This call was not recorded.",
        };
        put!(main, "<p class=\"hint\">{}</p>", why);
    }
    if detail.summary.transcript_erased {
        put!(main, "<p class=\"hint\">The transcript was erased.</p>");
    } else if detail.turns.is_empty() {
        put!(main, "<p id=\"silent\" class=\"hint\">There is no transcript.</p>");
    }
    put!(main, "<ol id=\"transcript\" class=\"turns\"");
    if detail.summary.state == CallState::InProgress {
        put!(main, " role=\"log\" aria-live=\"polite\"");
    }
    put!(main, ">");
    for turn in &detail.turns {
        said(main, turn);
    }
    put!(main, "</ol></section>");
}

fn is_playable(recording: &RecordingSummary) -> bool {
    let has_file = !matches!(
        recording.state,
        RecordingState::Missing | RecordingState::Erased | RecordingState::Open
    );
    has_file && !recording.duration.is_zero()
}

fn said(main: &mut Html, turn: &Turn) {
    put!(
        main,
        "<li class=\"turn {}\" data-start=\"{}\"><span class=\"when\">{}</span>\
         <span class=\"role\">{}</span><span class=\"text\">",
        turn.role.as_str(),
        turn.start_ms,
        at(turn.start_ms),
        role(turn.role),
    );
    let text = turn.text.expose();
    match (turn.interrupted, text.is_empty()) {
        (true, true) => put!(main, "<em class=\"cut\">(interrupted before a word)</em>"),
        (true, false) => put!(main, "{} <em class=\"cut\">(interrupted)</em>", text),
        (false, _) => put!(main, "{}", text),
    }
    put!(main, "</span>");
    if let Some(latency) = turn.latency {
        let millis = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
        put!(main, "<span class=\"latency\">answered after {} ms</span>", millis);
    }
    put!(main, "</li>");
}

const fn role(role: Role) -> &'static str {
    match role {
        Role::Caller => "Caller",
        Role::Agent => "Agent",
    }
}

/// Minutes and seconds.
pub(super) fn at(millis: u64) -> String {
    format!("{}:{:02}.{}", millis / 60_000, millis / 1_000 % 60, millis / 100 % 10)
}

/// One recording: its waveform, who spoke when, and the player.
fn axis(
    main: &mut Html,
    detail: &CallDetail,
    recording: &RecordingSummary,
    number: u32,
    all: usize,
) {
    let millis = u64::try_from(recording.duration.as_millis()).unwrap_or(u64::MAX).max(1);
    // Turns count from the answer; a recording may begin later.
    let answered = detail.summary.answered.map_or(recording.started, |answered| answered);
    let offset = recording.started.unix_millis().saturating_sub(answered.unix_millis());
    put!(
        main,
        "<figure class=\"axis card\" data-offset=\"{}\" data-length=\"{}\">",
        offset,
        millis
    );
    if all > 1 {
        put!(main, "<figcaption>Recording {} of {}</figcaption>", number, all);
    }
    put!(
        main,
        "<div class=\"lanes\"><img class=\"wave\" src=\"/console/recordings/{}/waveform\" \
         alt=\"Loudness over time: the caller above, the agent below\" width=\"1000\" \
         height=\"120\"><svg class=\"spans\" viewBox=\"0 0 1000 40\" preserveAspectRatio=\"none\" \
         role=\"img\" aria-label=\"Who spoke when; the list below says the same\">",
        recording.id,
    );
    let length = offset.saturating_add(millis);
    for turn in detail.turns.iter().filter(|it| it.end_ms > offset && it.start_ms < length) {
        let place = |at: u64| at.saturating_sub(offset).min(millis) as f64 * 1e3 / millis as f64;
        let (start, end) = (place(turn.start_ms), place(turn.end_ms));
        put!(
            main,
            "<rect class=\"{}\" x=\"{}\" width=\"{}\" y=\"{}\" height=\"16\"><title>{}</title>\
             </rect>",
            turn.role.as_str(),
            Tenths(start),
            Tenths((end - start).max(2.0)),
            if turn.role == Role::Caller { 2_u32 } else { 22 },
            turn.text.expose(),
        );
    }
    put!(
        main,
        "</svg><div class=\"head\" hidden></div></div><div class=\"ticks\" aria-hidden=\"true\">"
    );
    for tick in 0..=4_u64 {
        put!(main, "<span>{}</span>", at(offset.saturating_add(millis.saturating_mul(tick) / 4)));
    }
    put!(
        main,
        "</div><p class=\"legend\" aria-hidden=\"true\"><span class=\"caller\">Caller (left)</span>\
         <span class=\"agent\">Agent (right)</span></p>\
         <audio controls preload=\"metadata\" src=\"/console/recordings/{}/audio\" \
         aria-label=\"Recording {}\"></audio>",
        recording.id,
        number,
    );
    let told = match recording.state {
        RecordingState::Unfinished => "The recording is unfinished: it plays up to there.",
        RecordingState::Truncated => "The recording was cut short after it was written.",
        RecordingState::Damaged => "The recording was changed after it was written.",
        _ => "",
    };
    if !told.is_empty() {
        put!(main, "<p class=\"error\">{}</p>", told);
    }
    put!(main, "</figure>");
}

pub(super) fn parsed(text: &Personal<String>) -> Value {
    serde_json::from_str(text.expose()).unwrap_or_default()
}

/// The messages in their order, each to be opened.
fn ladder(main: &mut Html, entries: &[LadderEntry]) {
    put!(main, "<section aria-labelledby=\"sip\"><h2 id=\"sip\">SIP</h2>");
    if entries.is_empty() {
        put!(main, "<p class=\"hint\">No messages are kept of this call.</p>");
    }
    put!(main, "<ol class=\"ladder\">");
    for entry in entries {
        let message = entry.message.expose();
        let peer = if entry.leg == 0 { "Caller".to_owned() } else { format!("Leg {}", entry.leg) };
        let (from, to) = if entry.sent { ("Edge", &*peer) } else { (&*peer, "Edge") };
        let way = match (entry.leg, entry.sent) {
            (0, false) | (1.., true) => "right",
            _ => "left",
        };
        put!(
            main,
            "<li><details><summary><span class=\"when\">{}</span><span class=\"way\">{} → {}</span>\
             <span class=\"line {}\">{}</span></summary><pre>{}</pre></details></li>",
            at_ms(entry.at_ms),
            from,
            to,
            way,
            message.lines().next().unwrap_or_default(),
            message,
        );
    }
    put!(main, "</ol></section>");
}

fn at_ms(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1_000, millis % 1_000)
}

/// What policy decided, and from what.
fn decision(main: &mut Html, detail: &CallDetail) {
    let Some(personal) = &detail.personal else { return };
    let decided = parsed(&personal.decision);
    put!(main, "<section aria-labelledby=\"policy\"><h2 id=\"policy\">Policy decision</h2>");
    let mut found = Vec::new();
    flatten(&decided, String::new(), &mut found);
    put!(main, "<dl class=\"facts card\">");
    for (name, value) in found.iter().take(FACTS) {
        put!(main, "<dt>{}</dt><dd>{}</dd>", name, value);
    }
    put!(main, "</dl>");
    let parts = [
        ("Decision", &personal.decision),
        ("Attempt", &personal.attempt),
        ("Observed", &personal.observed),
    ];
    for (name, text) in parts.into_iter().filter(|(_, text)| !text.expose().is_empty()) {
        let pretty = serde_json::to_string_pretty(&parsed(text)).unwrap_or_default();
        put!(
            main,
            "<details class=\"whole\"><summary>{} as JSON</summary><pre>{}</pre></details>",
            name,
            pretty,
        );
    }
    put!(main, "</section>");
}

/// The leaves of a document that say something, by their way from its root.
fn flatten(value: &Value, name: String, found: &mut Vec<(String, String)>) {
    if found.len() > FACTS {
        return;
    }
    let below = |key: &str| {
        let mut path = name.clone();
        let dot = if path.is_empty() { "" } else { " › " };
        // Writing to a string does not fail.
        let _ = write!(path, "{dot}{}", key.replace('_', " "));
        path
    };
    match value {
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(key, value)| flatten(value, below(key), found));
        }
        Value::Array(items) if items.iter().all(|it| !it.is_object() && !it.is_array()) => {
            let words: Vec<_> = items.iter().map(word).collect();
            if !words.is_empty() {
                found.push((name, words.join(", ")));
            }
        }
        Value::Array(items) => {
            for (number, item) in (1_u32..).zip(items) {
                flatten(item, below(&number.to_string()), found);
            }
        }
        leaf => found.push((name, word(leaf))),
    }
}

fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_decision_is_told_in_words_by_its_leaves() {
        let decided = json!({
            "trunk": "acme", "route_name": null,
            "verdict": { "accept": { "destination": { "agent": "reception" }, "record": true } },
            "notes": [], "codecs": ["opus", "pcma"],
        });
        let mut found = Vec::new();
        flatten(&decided, String::new(), &mut found);
        let texts: Vec<_> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            texts,
            [
                "codecs=opus, pcma",
                "trunk=acme",
                "verdict › accept › destination › agent=reception",
                "verdict › accept › record=yes",
            ]
        );
    }

    #[test]
    fn a_hostile_document_is_cut() {
        let decided: Value = (0..1_000).map(|n| (n.to_string(), json!(n))).collect();
        let mut found = Vec::new();
        flatten(&decided, String::new(), &mut found);
        assert!(found.len() <= FACTS + 1);
    }

    #[test]
    fn times_are_minutes_and_seconds() {
        assert_eq!((&*at(0), &*at(61_250), &*at_ms(12_007)), ("0:00.0", "1:01.2", "12.007 s"));
    }
}
