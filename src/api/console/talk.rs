//! *Talk*: a person speaks with a voice agent from the browser.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::json;
use vault::{TokenId, TokenScope, TokenTerms};

use super::html::{Html, put};
use super::page::{self, Page, Place};
use super::{Console, Stop, escaped};
use crate::fields::Fields;
use crate::live::{EventStream, Topic};
use crate::problem::Problem;

/// How long one page may talk.
const LASTS: Duration = Duration::from_secs(3_600);

/// The page.
pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Stop> {
    let person = console.viewer(&headers, &uri)?;
    let agents = console.backstage.agents();
    let mut main = Html::default();
    put!(main, "<h1>Talk</h1><div id=\"talk\" class=\"talk\">");
    put!(main, "<section class=\"card\" aria-label=\"Your call\">");
    let can_call = person.can_write && !agents.is_empty();
    put!(
        main,
        "<form id=\"start\" data-can=\"{}\"><label for=\"agent\">Voice agent</label>\
         <select id=\"agent\" aria-describedby=\"about\">",
        if can_call { "yes" } else { "no" },
    );
    for agent in &agents {
        put!(
            main,
            "<option value=\"{}\" data-about=\"{}\">{}</option>",
            agent.name,
            agent.description,
            agent.name,
        );
    }
    let about = agents.first().map_or("", |agent| &*agent.description);
    put!(main, "</select><p id=\"about\" class=\"hint\">{}</p>", about);
    if agents.is_empty() {
        put!(main, "<p class=\"error\">This edge has no voice agent.</p>");
    }
    if !person.can_write {
        put!(main, "<p class=\"error\">This API key may only look: a call needs another.</p>");
    }
    put!(main, "<button id=\"call\"{}>Call</button></form>", Flag(!can_call, " disabled"));
    controls(&mut main);
    put!(main, "</section>");
    put!(
        main,
        "<section class=\"card\" aria-labelledby=\"words\"><h2 id=\"words\">Transcript</h2>\
         <div id=\"log\" role=\"log\" aria-live=\"polite\" aria-labelledby=\"words\" \
         tabindex=\"0\"><ol id=\"transcript\" class=\"turns\"></ol></div>\
         <p id=\"silent\" class=\"hint\">What is said appears here.</p></section>\
         <section class=\"card\" aria-labelledby=\"wire\"><h2 id=\"wire\">Connection</h2>\
         <dl id=\"details\" class=\"facts\"><dt>State</dt><dd>not connected</dd></dl>\
         <p><a id=\"more\" hidden target=\"_blank\" href=\"/console/calls\">Open this call in a \
         new tab</a></p></section>",
    );
    trust(&mut main, console.backstage.development_authority());
    put!(main, "</div><audio id=\"voice\" autoplay></audio>");
    let script = Some("talk.js");
    let page = Page { title: "Talk", place: Place::Talk, person: Some(person), script };
    Ok(page.around(StatusCode::OK, &main))
}

/// A word that is there or not.
struct Flag(bool, &'static str);

impl super::html::Show for Flag {
    fn show(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0 { self.1 } else { "" })
    }
}

/// What there is during a call.
fn controls(main: &mut Html) {
    put!(
        main,
        "<div class=\"now\"><p id=\"state\" class=\"state\" role=\"status\">Ready.</p>\
         <span id=\"clock\" class=\"clock\" hidden></span></div>\
         <div class=\"levels\">\
         <div id=\"me\" class=\"level\"><span class=\"name\">You</span>\
         <meter min=\"0\" max=\"1\" aria-hidden=\"true\"></meter>\
         <span class=\"word\">silent</span></div>\
         <div id=\"other\" class=\"level\"><span class=\"name\">Agent</span>\
         <meter min=\"0\" max=\"1\" aria-hidden=\"true\"></meter>\
         <span class=\"word\">silent</span></div>\
         </div>\
         <div class=\"actions\">\
         <button id=\"mute\" class=\"quiet\" aria-pressed=\"false\" disabled>Mute</button>\
         <button id=\"end\" class=\"danger\" disabled>Hang up</button></div>\
         <fieldset id=\"keypad\" class=\"keypad\" disabled><legend>Keypad</legend>",
    );
    for key in ["1", "2", "3", "4", "5", "6", "7", "8", "9", "*", "0", "#"] {
        let name = match key {
            "*" => "star",
            "#" => "pound",
            digit => digit,
        };
        put!(
            main,
            "<button type=\"button\" class=\"quiet\" data-key=\"{}\" aria-label=\"{}\">{}</button>",
            key,
            name,
            key,
        );
    }
    put!(main, "<p id=\"sent\" class=\"sent hint\"></p></fieldset>");
}

/// What to do about a certificate that the browser does not know.
fn trust(main: &mut Html, authority: Option<String>) {
    let Some(path) = authority else { return };
    put!(
        main,
        "<section class=\"card\" aria-labelledby=\"trust\"><h2 id=\"trust\">Certificate</h2>\
         <p>This edge uses a certificate of its own development authority. If the browser warned \
         you about it, the microphone and SIP over WebSocket may not work until it trusts that \
         authority:</p><ol class=\"steps\">\
         <li>Import <code>{}</code> of the edge's machine as a certificate authority: in Firefox \
         under Settings, Privacy and security, Certificates; elsewhere into the certificates of \
         the system.</li>\
         <li>Open the console under a name that the certificate is for, such as \
         <code>https://localhost:8443/console</code> on the same machine.</li>\
         <li>Elsewhere than at a desk of yours, use the owner's own certificates or ACME.</li>\
         </ol></section>",
        path,
    );
}

/// Makes the token that the page calls with.
pub(crate) async fn token(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let person = console.writer(&headers)?;
    let mut fields = Fields::read(body).await?;
    let agent = fields.text("agent");
    let agents = console.backstage.agents();
    let known = agent.filter(|name| agents.iter().any(|agent| agent.name == *name));
    if known.is_none() {
        fields.wrong("agent", "value_error", "there is no such voice agent");
    }
    fields.finish()?;
    let agent = known.unwrap_or_default();
    let origin = headers.get(http::header::ORIGIN).and_then(|value| value.to_str().ok());
    let terms = TokenTerms {
        called: Some(agent.clone()),
        scopes: Some([TokenScope::Call].into()),
        origin: origin.map(|origin| origin.trim_end_matches(":443").to_owned()),
        name: None,
        caller: None,
        lasts: Some(LASTS),
    };
    let made = console.keys.create_token(terms, format!("key:{}", person.key)).await;
    let made = made.map_err(|_| {
        let detail = "no token could be made: the store is full or cannot write";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "vault.unavailable", detail).retry_after(5)
    })?;
    let id = made.token.id;
    // With the token, before the offer: what a browser gathers for it already goes by them.
    let now = console.guard.wall();
    let servers: Vec<_> = console.ice_servers.iter().map(|server| server.entry(now)).collect();
    let mut response = Json(json!({
        "token": made.secret.expose(),
        "id": id.to_string(),
        "whip": format!("/whip/{}", escaped(&agent)),
        "events": format!("/console/talk/{id}/events"),
        "ice_servers": servers,
    }))
    .into_response();
    page::guard(response.headers_mut());
    Ok(response)
}

/// What happens in the call that a token opens.
pub(crate) async fn events(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Path(token): Path<String>,
) -> Result<Response, Problem> {
    console.asker(&headers)?;
    let id: Option<TokenId> = token.parse().ok();
    let known = id.and_then(|id| console.keys.token_by_id(id, console.guard.wall()));
    if known.is_none() {
        let detail = "there is no such token";
        return Err(Problem::new(StatusCode::NOT_FOUND, "api.not_found", detail));
    }
    follow(&console, Topic::Token(token))
}

/// An answer that goes on.
pub(super) fn follow(console: &Console, topic: Topic) -> Result<Response, Problem> {
    let following = console.live.follow(topic).map_err(|error| {
        let code = "api.live_full";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string()).retry_after(30)
    })?;
    let mut response = Body::new(EventStream::new(following)).into_response();
    page::guard(response.headers_mut());
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok(response)
}
