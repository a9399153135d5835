//! *Calls*: those that go on and those that were, the newest first.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{Query, State};
use axum::response::Response;
use base::{CallId, Date, Personal, WallTime, limit};
use http::{HeaderMap, StatusCode, Uri};
use vault::{CallFilter, CallState, CallSummary};

use super::html::{Html, Tenths, put};
use super::page::{Page, Place};
use super::{Console, Stop, escaped};

/// What somebody looks for, as it stands in the address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    number: String,
    trunk: String,
    agent: String,
    since: Option<Date>,
    live: bool,
    after: Option<(WallTime, CallId)>,
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
            live: text("live") == "1",
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
            in_progress: self.live,
            after: self.after,
        }
    }

    /// The address of the page that follows this call.
    fn next(&self, last: &CallSummary) -> String {
        let since = self.since.map(|date| date.to_string()).unwrap_or_default();
        let after = format!("{}.{}", last.started.unix_millis(), last.id);
        let live = if self.live { "1" } else { "" };
        let fields = [
            ("number", &*self.number),
            ("trunk", &self.trunk),
            ("agent", &self.agent),
            ("since", &since),
            ("live", live),
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
    put!(main, "<h1>Calls</h1>");
    form(&mut main, &wanted);
    if calls.is_empty() {
        put!(main, "<p class=\"empty\">No call is like that.</p>");
    } else {
        table(&mut main, &calls);
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
    put!(
        main,
        "<div class=\"check\"><input id=\"live\" name=\"live\" type=\"checkbox\" value=\"1\""
    );
    if wanted.live {
        put!(main, " checked");
    }
    put!(
        main,
        "><label for=\"live\">In progress only</label></div>\
         <div class=\"submit\"><button>Search</button> <a href=\"/console/calls\">Clear</a></div>\
         </form>"
    );
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
        "Media",
        "Why it ended",
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
        put!(
            main,
            "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\" data-label=\"Started\">\
             <a href=\"/console/calls/{}\"><time datetime=\"{}\">{}</time></a></th>\
             <td role=\"cell\" data-label=\"State\"><span class=\"badge {}\">{}</span></td>\
             <td role=\"cell\" data-label=\"From\">{}</td>\
             <td role=\"cell\" data-label=\"To\">{}</td>\
             <td role=\"cell\" data-label=\"Agent or trunk\">{}</td>\
             <td role=\"cell\" data-label=\"Talked\">{}</td>\
             <td role=\"cell\" data-label=\"Media\">{}</td>\
             <td role=\"cell\" data-label=\"Why it ended\">{}</td></tr>",
            call.id,
            call.started,
            clock(call.started),
            state(call.state).0,
            state(call.state).1,
            from,
            to,
            call.voice_agent.as_deref().or(call.trunk.as_deref()).unwrap_or("–"),
            talked(call),
            media,
            call.reason.as_deref().unwrap_or("–"),
        );
    }
    put!(main, "</tbody></table>");
}

/// A class and a word.
pub(super) const fn state(state: CallState) -> (&'static str, &'static str) {
    match state {
        CallState::InProgress => ("live", "in progress"),
        CallState::Ended => ("ended", "ended"),
        CallState::Lost => ("lost", "lost"),
    }
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
        let query =
            [("number", "+1 555&x"), ("since", "2026-11-23"), ("live", "1"), ("after", "x")];
        let query = query.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let wanted = Wanted::read(&BTreeMap::from(query));
        assert_eq!(wanted.after, None);
        assert_eq!(wanted.filter().since.to_string(), "2026-11-23T00:00:00.000Z");
        assert!(wanted.filter().in_progress);
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
