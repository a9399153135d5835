//! *Calls*: those that go on and those that were, the newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use base::{Blame, CallId, Date, Personal, Reason, WallTime, limit};
use http::{HeaderMap, StatusCode, Uri};
use vault::{CallFilter, CallSummary};

use super::html::{Html, Tenths, put};
use super::outcome::{self, Outcome};
use super::page::{Page, Place};
use super::{Console, Stop, escaped};

/// What somebody looks for, as it stands in the address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    number: String,
    trunk: String,
    agent: String,
    since: Option<Date>,
    outcome: Wish,
    after: Option<(WallTime, CallId)>,
}

/// How the calls ended that somebody looks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Wish {
    /// However.
    #[default]
    Any,
    /// They go on.
    InProgress,
    /// For a reason that somebody may have to look at, or lost.
    Failed,
    /// For this one.
    For(Reason),
}

impl Wish {
    fn read(text: &str) -> Self {
        match text {
            "in_progress" => Self::InProgress,
            "failed" => Self::Failed,
            code => {
                let known = Reason::ALL.iter().find(|reason| reason.code() == code);
                known.map_or(Self::Any, |reason| Self::For(*reason))
            }
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::InProgress => "in_progress",
            Self::Failed => "failed",
            Self::For(reason) => reason.code(),
        }
    }

    fn reasons(self) -> Vec<&'static str> {
        match self {
            Self::Any | Self::InProgress => Vec::new(),
            Self::Failed => outcome::failures().map(Reason::code).collect(),
            Self::For(reason) => vec![reason.code()],
        }
    }
}

impl Wanted {
    /// Reads what can be read; the rest is as good as empty.
    fn read(query: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| {
            let text = query.get(name).map_or("", |text| text.trim());
            text.chars().take(limit::VAULT_ACCESS_NAME.get()).collect::<String>()
        };
        Self {
            number: text("number"),
            trunk: text("trunk"),
            agent: text("agent"),
            since: date(&text("since")),
            outcome: Wish::read(&text("outcome")),
            after: place(&text("after")),
        }
    }

    fn filter(&self) -> CallFilter {
        let some = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let page = u32::try_from(limit::API_CALLS_PER_PAGE.value).unwrap_or(u32::MAX);
        let since = self.since.map_or(0, |date| date.days().saturating_mul(86_400_000));
        CallFilter {
            // One more tells whether there is another page.
            count: page.saturating_add(1),
            since: WallTime::from_unix_millis(since),
            number: some(&self.number).map(Personal::new),
            trunk: some(&self.trunk),
            voice_agent: some(&self.agent),
            in_progress: self.outcome == Wish::InProgress,
            reasons: self.outcome.reasons(),
            lost: self.outcome == Wish::Failed,
            after: self.after,
        }
    }

    /// Whether nothing in particular is looked for.
    fn wants_all(&self) -> bool {
        *self == Self { after: self.after, ..Self::default() }
    }

    /// The address of the page that follows this call.
    fn next(&self, last: &CallSummary) -> String {
        let since = self.since.map(|date| date.to_string()).unwrap_or_default();
        let after = format!("{}.{}", last.started.unix_millis(), last.id);
        let fields = [
            ("number", &*self.number),
            ("trunk", &self.trunk),
            ("agent", &self.agent),
            ("since", &since),
            ("outcome", self.outcome.as_str()),
            ("after", &after),
        ];
        let fields = fields.iter().filter(|(_, value)| !value.is_empty());
        let fields: Vec<_> =
            fields.map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        format!("/console/calls?{}", fields.join("&"))
    }
}

fn date(text: &str) -> Option<Date> {
    let mut parts = text.splitn(3, '-');
    let year = parts.next()?.parse().ok()?;
    let month = parts.next()?.parse().ok()?;
    Date::new(year, month, parts.next()?.parse().ok()?)
}

fn place(text: &str) -> Option<(WallTime, CallId)> {
    let (millis, call) = text.split_once('.')?;
    Some((WallTime::from_unix_millis(millis.parse().ok()?), call.parse().ok()?))
}

/// The page.
pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    uri: Uri,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Response, Stop> {
    let person = console.viewer(&headers, &uri)?;
    let wanted = Wanted::read(&query);
    console.settle().await;
    let found = console.reader.calls(&wanted.filter()).await;
    let mut calls = found.map_err(|error| Stop::of(&error, person))?;
    let has_more = calls.len() > limit::API_CALLS_PER_PAGE.get();
    calls.truncate(limit::API_CALLS_PER_PAGE.get());
    let mut main = Html::default();
    let now = clock(console.guard.wall());
    put!(
        main,
        "<div class=\"top\"><h1>Calls</h1><p class=\"hint\">As of {} UTC. \
         <a href=\"{}\">Refresh</a>\
         </p></div>",
        now,
        uri.path_and_query().map_or("/console/calls", |it| it.as_str()),
    );
    form(&mut main, &wanted);
    match (calls.is_empty(), wanted.wants_all()) {
        (false, _) => table(&mut main, &calls),
        (true, true) => put!(
            main,
            "<p class=\"empty card\">No calls yet. \
             <a href=\"/console/talk\">Talk to a voice agent</a> \
             to make the first one.</p>"
        ),
        (true, false) => put!(
            main,
            "<p class=\"empty card\">No call is like that. <a href=\"/console/calls\">Show all \
             calls</a></p>"
        ),
    }
    if wanted.after.is_some() || has_more {
        pages(&mut main, &wanted, calls.last().filter(|_| has_more));
    }
    let page = Page { title: "Calls", place: Place::Calls, person: Some(person), script: None };
    Ok(page.around(StatusCode::OK, &main))
}

fn pages(main: &mut Html, wanted: &Wanted, last: Option<&CallSummary>) {
    put!(main, "<nav class=\"pages\" aria-label=\"Older and newer calls\">");
    if wanted.after.is_some() {
        put!(main, "<a href=\"/console/calls\">Newest calls</a>");
    }
    if let Some(last) = last {
        put!(main, "<a rel=\"next\" href=\"{}\">Older calls</a>", wanted.next(last));
    }
    put!(main, "</nav>");
}

fn form(main: &mut Html, wanted: &Wanted) {
    put!(main, "<form class=\"filter card\" method=\"get\" role=\"search\" aria-label=\"Calls\">");
    let fields = [
        ("number", "From or to number", "search", &wanted.number),
        ("trunk", "Trunk", "text", &wanted.trunk),
        ("agent", "Voice agent", "text", &wanted.agent),
        (
            "since",
            "Since (UTC)",
            "date",
            &wanted.since.map(|it| it.to_string()).unwrap_or_default(),
        ),
    ];
    for (name, label, kind, value) in fields {
        put!(
            main,
            "<div><label for=\"{}\">{}</label><input id=\"{}\" name=\"{}\" type=\"{}\" \
             value=\"{}\" autocomplete=\"off\"></div>",
            name,
            label,
            name,
            name,
            kind,
            value,
        );
    }
    outcomes(main, wanted.outcome);
    put!(
        main,
        "<div class=\"submit\"><button>Search</button> <a href=\"/console/calls\">Clear</a></div>\
         </form>"
    );
}

/// How they ended, the failures by who has to act.
fn outcomes(main: &mut Html, wanted: Wish) {
    put!(
        main,
        "<div><label for=\"outcome\">Outcome</label><select id=\"outcome\" name=\"outcome\">"
    );
    let option = |main: &mut Html, wish: Wish, name: &str| {
        let chosen = if wish == wanted { " selected" } else { "" };
        put!(main, "<option value=\"{}\"{}>{}</option>", wish.as_str(), chosen, name);
    };
    option(main, Wish::Any, "Any");
    option(main, Wish::InProgress, "In progress");
    option(main, Wish::Failed, "Failed");
    for blame in [Blame::Edge, Blame::Policy, Blame::Peer] {
        let name = format!("Failed: up to {}", outcome::whose(blame));
        put!(main, "<optgroup label=\"{}\">", name);
        for reason in outcome::failures().filter(|reason| reason.blame() == blame) {
            option(main, Wish::For(reason), &outcome::words(reason));
        }
        put!(main, "</optgroup>");
    }
    put!(main, "<optgroup label=\"Ended well\">");
    let failed: Vec<_> = outcome::failures().collect();
    for reason in Reason::ALL.iter().filter(|reason| !failed.contains(reason)) {
        option(main, Wish::For(*reason), &outcome::words(*reason));
    }
    put!(main, "</optgroup></select></div>");
}

/// Its roles are named, since the layout of narrow windows would take them away.
fn table(main: &mut Html, calls: &[CallSummary]) {
    put!(
        main,
        "<table class=\"calls\" role=\"table\"><caption class=\"hidden\">Calls, the newest first; \
         times are UTC</caption><thead role=\"rowgroup\"><tr role=\"row\">",
    );
    for name in [
        "Started (UTC)",
        "State",
        "From",
        "To",
        "Agent or trunk",
        "Talked",
        "Why it ended",
        "Media",
    ] {
        put!(main, "<th scope=\"col\" role=\"columnheader\">{}</th>", name);
    }
    put!(main, "</tr></thead><tbody role=\"rowgroup\">");
    for call in calls {
        let (from, to) = numbers(call);
        let media = if call.codec.is_empty() {
            "–".to_owned()
        } else {
            format!("{} {}", call.codec, call.protection)
        };
        let outcome = Outcome::of(call);
        put!(
            main,
            "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\" data-label=\"Started (UTC)\">\
             <a href=\"/console/calls/{}\"><time datetime=\"{}\">{}</time></a></th>\
             <td role=\"cell\" data-label=\"State\"><span class=\"badge {}\">{}</span></td>\
             <td role=\"cell\" data-label=\"From\">{}</td>\
             <td role=\"cell\" data-label=\"To\">{}</td>\
             <td role=\"cell\" data-label=\"Agent or trunk\">{}</td>\
             <td role=\"cell\" data-label=\"Talked\">{}</td>\
             <td role=\"cell\" data-label=\"Why it ended\"><span>{}</span></td>\
             <td role=\"cell\" data-label=\"Media\">{}</td></tr>",
            call.id,
            call.started,
            clock(call.started),
            outcome.class,
            outcome.state,
            from,
            to,
            call.voice_agent.as_deref().or(call.trunk.as_deref()).unwrap_or("–"),
            talked(call),
            why(&outcome),
            media,
        );
    }
    put!(main, "</tbody></table>");
}

/// The cause; of what failed, what to look at as well.
fn why(outcome: &Outcome) -> Html {
    let mut html = Html::default();
    match outcome.cause() {
        cause if cause.is_empty() => put!(html, "–"),
        cause if outcome.has_failed() => {
            put!(html, "<b>{}</b> <span class=\"hint\">{}</span>", cause, outcome.hint());
        }
        cause => put!(html, "{}", cause),
    }
    html
}

/// From whom to whom.
pub(super) fn numbers(call: &CallSummary) -> (&str, &str) {
    let known = call.numbers.as_ref();
    known.map_or(("erased", "erased"), |(from, to)| (from.expose(), to.expose()))
}

/// A time as people read it.
pub(super) fn clock(at: WallTime) -> String {
    at.to_string().chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

fn talked(call: &CallSummary) -> Html {
    let mut html = Html::default();
    match call.talked {
        Some(talked) if talked.as_secs() >= 60 => {
            let seconds = talked.as_secs();
            put!(html, "{} min {} s", seconds / 60, seconds % 60);
        }
        Some(talked) => put!(html, "{} s", Tenths(talked.as_secs_f64())),
        None => put!(html, "–"),
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_survives_the_next_page() {
        let query = [
            ("number", "+1 555&x"),
            ("since", "2026-11-23"),
            ("outcome", "in_progress"),
            ("after", "x"),
        ];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let wanted = Wanted::read(&BTreeMap::from(query));
        assert_eq!(wanted.after, None);
        assert_eq!(wanted.filter().since.to_string(), "2026-11-23T00:00:00.000Z");
        assert!(wanted.filter().in_progress && !wanted.wants_all());
        for text in ["", "in_progress", "failed", "trunk.busy"] {
            assert_eq!(Wish::read(text).as_str(), text);
        }
        assert_eq!(Wish::read("nonsense"), Wish::Any);
        assert!(Wish::Failed.reasons().contains(&"trunk.busy"));
        let empty = Wanted::read(&BTreeMap::new());
        assert_eq!(empty, Wanted::default());
        for wrong in ["2026-13-01", "2026", "", "x-y-z"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
        let call = CallId::from_bytes([7; 12]);
        let at = WallTime::from_unix_millis(1_795_392_000_123);
        assert_eq!(place(&format!("1795392000123.{call}")), Some((at, call)));
        assert_eq!(clock(at), "2026-11-23 00:00:00");
    }
}
