//! *Call*: what was said and heard on one axis of time, what was signalled and decided, and how the
//! media was.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base::{CallId, Personal, WallTime};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use vault::{CallDetail, CallState, CallSummary, RecordingState, RecordingSummary, Role, Turn};

use super::calls::{clock, numbers};
use super::html::{Html, Tenths, put};
use super::outcome::Outcome;
use super::page::{self, Page, Place};
use super::{Console, Stop, escaped, ladder, quality, same_origin, talk};
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
         <h1>Call <code data-copy=\"the call's id\">{}</code></h1>\
         <div id=\"seen\" data-call=\"{}\" data-live=\"{}\"></div>\
         <p id=\"news\" role=\"status\"></p>\
         <p id=\"told\" class=\"hidden\" role=\"status\"></p>",
        call,
        call,
        if is_live { "yes" } else { "no" },
    );
    facts(&mut main, &detail);
    if is_live && person.can_write {
        hang_up_form(&mut main, &detail.summary);
    }
    heard(&mut main, &detail);
    quality::section(&mut main, &console, &detail);
    ladder::section(&mut main, &detail.ladder);
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

/// Asks before it hangs up, where the page's script runs.
fn hang_up_form(main: &mut Html, call: &CallSummary) {
    let (from, to) = numbers(call);
    put!(
        main,
        "<form id=\"ending\" method=\"post\" action=\"/console/calls/{}/hang-up\">\
         <button class=\"danger\">Hang up this call</button></form>\
         <dialog id=\"sure\" class=\"card\" aria-labelledby=\"sure-title\" \
         aria-describedby=\"sure-text\"><h2 id=\"sure-title\">Hang up this call?</h2>\
         <p id=\"sure-text\">From {} to {}. It ends at once for both sides.</p>\
         <form method=\"dialog\" class=\"actions\"><button class=\"quiet\" value=\"no\" autofocus>\
         Keep the call</button><button class=\"danger\" value=\"yes\">Hang up</button></form>\
         </dialog>",
        call.id,
        from,
        to,
    );
}

/// How it stands at the top, then what is known of it.
fn facts(main: &mut Html, detail: &CallDetail) {
    let call = &detail.summary;
    let (from, to) = numbers(call);
    put!(main, "<section id=\"summary\" class=\"part\" aria-label=\"Summary\">");
    verdict(main, call);
    put!(
        main,
        "<dl class=\"facts card\"><dt>From</dt><dd><span data-copy=\"the caller\">{}</span></dd>\
         <dt>To</dt><dd><span data-copy=\"the called\">{}</span></dd>\
         <dt>Arrived</dt><dd>{}</dd>",
        from,
        to,
        time(call.started),
    );
    if let Some(ended) = call.ended {
        put!(main, "<dt>Ended</dt><dd>{}</dd>", time(ended));
    }
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
    for (name, value) in ladder::call_ids(&detail.ladder) {
        put!(main, "<dt>{}</dt><dd><code data-copy=\"{}\">{}</code></dd>", name, name, value);
    }
    put!(main, "</dl></section>");
}

/// How the call stands, and why it ended, in words: what somebody who was woken looks for first.
fn verdict(main: &mut Html, call: &CallSummary) {
    let outcome = Outcome::of(call);
    put!(
        main,
        "<div class=\"verdict {}\"><p><span class=\"badge {}\">{}</span> ",
        outcome.class,
        outcome.class,
        outcome.state,
    );
    if call.state == CallState::InProgress {
        let since = call.answered.unwrap_or(call.started);
        let word = if call.answered.is_some() { "Answered" } else { "Arrived" };
        put!(main, "<b>{} <span data-since=\"{}\">at {} UTC</span></b>", word, since, clock(since));
    } else {
        put!(main, "<b>{}</b>", capital(&outcome.cause()));
    }
    put!(main, "</p>");
    if !outcome.hint().is_empty() {
        put!(main, "<p>{}.</p>", capital(outcome.hint()));
    }
    if let Some(whose) = outcome.whose() {
        put!(main, "<p>To be looked at: {}.</p>", whose);
    }
    if let Some(code) = &call.reason {
        put!(main, "<p>Reason <code data-copy=\"the reason\">{}</code></p>", code);
    }
    put!(main, "</div>");
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or_else(String::new, |first| first.to_uppercase().chain(rest).collect())
}

/// With its zone; the page's script adds the reader's own.
fn time(at: WallTime) -> Html {
    let mut html = Html::default();
    put!(html, "<time datetime=\"{}\">{} UTC</time>", at, clock(at));
    html
}

/// Recordings and the transcript, on one axis.
fn heard(main: &mut Html, detail: &CallDetail) {
    put!(
        main,
        "<section id=\"heard\" class=\"part\" aria-labelledby=\"said\">\
         <h2 id=\"said\">What was said</h2>"
    );
    let playable = detail.recordings.iter().filter(|it| is_playable(it)).collect::<Vec<_>>();
    for (number, recording) in (1_u32..).zip(&playable) {
        axis(main, detail, recording, number, playable.len());
    }
    if playable.is_empty() {
        put!(main, "<p class=\"hint\">{}</p>", unheard(&detail.summary));
    }
    if detail.summary.transcript_erased {
        put!(main, "<p class=\"hint\">The transcript was erased.</p>");
    } else if detail.turns.is_empty() {
        put!(main, "<p id=\"silent\" class=\"hint\">There is no transcript.</p>");
    }
    if detail.summary.state == CallState::InProgress {
        put!(
            main,
            "<p class=\"voices\">Caller <b id=\"caller-voice\">silent</b> \
             Agent <b id=\"agent-voice\">silent</b></p>\
             <div role=\"log\" aria-live=\"polite\" aria-labelledby=\"said\">"
        );
    } else {
        put!(main, "<div>");
    }
    put!(main, "<ol id=\"transcript\" class=\"turns\">");
    for turn in &detail.turns {
        said(main, turn);
    }
    put!(main, "</ol></div></section>");
}

/// Why there is nothing to be played.
fn unheard(call: &CallSummary) -> &'static str {
    let is_live = call.state == CallState::InProgress;
    match (call.recording, &*call.unrecorded) {
        (_, "edge") => "This call was not recorded: this edge records nothing.",
        (_, "trunk") => "This call was not recorded: its trunk does not allow it.",
        (_, "codec") => "This call was not recorded: its codec is not decoded here.",
        (true, _) if is_live => "It can be played here once the call has ended.",
        (false, _) if is_live => "",
        (true, _) => "There is no audio of this call (any more).",
        (false, _) => "This call was not recorded.",
    }
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

/// What policy decided, and from what.
fn decision(main: &mut Html, detail: &CallDetail) {
    let Some(personal) = &detail.personal else { return };
    let decided = parsed(&personal.decision);
    put!(
        main,
        "<section id=\"decision\" class=\"part\" aria-labelledby=\"policy\">\
         <h2 id=\"policy\">Policy decision</h2><p>{}</p>",
        told(&decided),
    );
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
            "<details class=\"whole\"><summary>{} as JSON</summary>\
             <pre tabindex=\"0\">{}</pre></details>",
            name,
            pretty,
        );
    }
    put!(main, "</section>");
}

/// The decision as a sentence.
fn told(decided: &Value) -> Html {
    let mut html = Html::default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (&decided["route_name"], decided["route"].as_u64()) {
        (Value::String(name), Some(number)) => put!(html, "Route {} ({})", number, *name),
        (_, Some(number)) => put!(html, "Route {}", number),
        _ => put!(html, "No route"),
    }
    match &decided["trunk"] {
        Value::String(trunk) => put!(html, ", for a caller of trunk <b>{}</b>, ", *trunk),
        _ => put!(html, ", for a caller of no known trunk, "),
    }
    let accepted = &decided["verdict"]["accept"];
    if accepted.is_object() {
        let destination = &accepted["destination"];
        match &destination["agent"]["name"] {
            Value::String(agent) => put!(html, "sent the call to voice agent <b>{}</b>.", *agent),
            _ => put!(html, "accepted the call."),
        }
    } else {
        let refused = &decided["verdict"]["refuse"];
        let status = refused["status"].as_u64().unwrap_or_default();
        put!(html, "so it was refused with {}: <code>{}</code>.", status, text(&refused["reason"]));
    }
    html
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
        leaf => {
            let is_time = TIMES.iter().any(|time| name.ends_with(time));
            let time = leaf.as_u64().filter(|_| is_time).map(span);
            found.push((name, time.unwrap_or_else(|| word(leaf))));
        }
    }
}

/// What a decision has in milliseconds.
const TIMES: [&str; 4] = ["max duration", "media inactive", "first response", "ring"];

fn span(millis: u64) -> String {
    match millis {
        0 => "0 s".to_owned(),
        it if it % 3_600_000 == 0 => format!("{} h", it / 3_600_000),
        it if it % 60_000 == 0 => format!("{} min", it / 60_000),
        it if it % 1_000 == 0 => format!("{} s", it / 1_000),
        it => format!("{it} ms"),
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
        let sentence = ", for a caller of trunk <b>acme</b>, accepted the call.";
        assert_eq!(told(&decided).into_string(), format!("No route{sentence}"));
        let refused = json!({
            "trunk": null, "route": 3, "route_name": "<late>",
            "verdict": { "refuse": { "status": 603, "reason": "policy.refused" } },
        });
        let sentence = "Route 3 (&lt;late&gt;), for a caller of no known trunk, so it was refused \
             with 603: <code>policy.refused</code>.";
        assert_eq!(told(&refused).into_string(), sentence);
    }

    #[test]
    fn times_of_a_decision_have_their_unit() {
        let decided =
            json!({ "terms": { "max_duration": 14_400_000, "ring": 180_000, "route": 1 } });
        let mut found = Vec::new();
        flatten(&decided, String::new(), &mut found);
        let values: Vec<_> = found.into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["4 h", "3 min", "1"]);
        assert_eq!(
            (span(0), span(4_000), span(1_500)),
            ("0 s".into(), "4 s".into(), "1500 ms".into())
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
        assert_eq!((&*at(0), &*at(61_250)), ("0:00.0", "1:01.2"));
    }
}
