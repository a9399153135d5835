//! Signing in with an API key, and out.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use base::{Secret, limit};
use http::header::SET_COOKIE;
use http::{HeaderMap, StatusCode, Uri};

use super::html::{Html, put};
use super::page::{self, Page, Place};
use super::{Console, same_origin};
use crate::auth::Who;
use crate::guard::Peer;
use crate::problem::Problem;

/// Where somebody who signs in wanted to go.
type Wish = Query<BTreeMap<String, String>>;

/// The first page.
pub(crate) async fn show(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
    Query(query): Wish,
) -> Response {
    if console.person(&headers).is_some() {
        return led("/console/talk");
    }
    let to = query.get("to").map_or("", String::as_str);
    form(StatusCode::OK, to, None)
}

fn led(to: &str) -> Response {
    let mut response = Redirect::to(to).into_response();
    page::guard(response.headers_mut());
    response
}

fn form(status: StatusCode, to: &str, wrong: Option<&str>) -> Response {
    let mut main = Html::default();
    put!(
        main,
        "<div class=\"sign card\"><h1>Sign in</h1>\
         <p>Use an API key of this edge. The first one was printed when the edge started for the \
         first time; <code>callgate keys create</code> makes another.</p>\
         <form method=\"post\" action=\"/console/sign-in\">\
         <label for=\"key\">API key</label>",
    );
    match wrong {
        None => put!(main, "<input id=\"key\" name=\"key\" type=\"password\" "),
        Some(_) => put!(
            main,
            "<input id=\"key\" name=\"key\" type=\"password\" aria-invalid=\"true\" \
             aria-describedby=\"wrong\" "
        ),
    }
    put!(
        main,
        "autocomplete=\"current-password\" placeholder=\"sk_call2me_…\" spellcheck=\"false\" \
         required autofocus><input type=\"hidden\" name=\"to\" value=\"{}\">",
        to,
    );
    if let Some(wrong) = wrong {
        put!(main, "<p id=\"wrong\" class=\"error\" role=\"alert\">{}</p>", wrong);
    }
    put!(main, "<button>Sign in</button></form></div>");
    let page = Page { title: "Sign in", place: Place::SignIn, person: None, script: None };
    page.around(status, &main)
}

/// Takes the key.
pub(crate) async fn sign_in(
    State(console): State<Arc<Console>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    same_origin(&headers)?;
    let mut fields = fields(body).await?;
    let to = fields.remove("to").unwrap_or_default();
    let key = Secret::new(fields.remove("key").unwrap_or_default());
    let key_text = key.expose().trim();
    if let Err(seconds) = console.guard.may_try(peer, "bearer") {
        let wrong =
            format!("Too many wrong keys came from this address. Try again in {seconds} s.");
        return Ok(form(StatusCode::TOO_MANY_REQUESTS, &to, Some(&wrong)));
    }
    let who = console.guard.check(key_text);
    let Some(Who::Key { id, .. }) = who else {
        console.guard.was_wrong(peer, "bearer");
        let wrong = "This key is unknown, revoked or expired.";
        return Ok(form(StatusCode::FORBIDDEN, &to, Some(wrong)));
    };
    let secret = console.secret();
    let cookie = id
        .parse()
        .ok()
        .and_then(|id| console.sessions.open(secret.expose(), id, console.guard.wall()));
    let mut response = led(inside(&to));
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Ends the session.
pub(crate) async fn sign_out(
    State(console): State<Arc<Console>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    same_origin(&headers)?;
    let mut response = led("/console");
    if let Some(cookie) = console.sessions.close(&headers) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// A page of the console: nobody is led elsewhere.
pub(super) fn inside(to: &str) -> &str {
    let is_ours = to.starts_with("/console/")
        && to.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
        && !to.contains("//");
    if is_ours { to } else { "/console/talk" }
}

/// The fields of a form (`application/x-www-form-urlencoded`).
async fn fields(body: Body) -> Result<BTreeMap<String, String>, Problem> {
    let malformed =
        || Problem::new(StatusCode::BAD_REQUEST, "http.malformed", "this is not the form");
    let bytes = axum::body::to_bytes(body, limit::API_FORM_BYTES.get());
    let bytes = tokio::time::timeout(limit::API_BODY_MS.millis(), bytes).await;
    let bytes = bytes.map_err(|_| malformed().closing())?.map_err(|_| malformed().closing())?;
    let text = Secret::new(bytes.to_vec());
    let text = std::str::from_utf8(text.expose()).map_err(|_| malformed())?;
    // The same form as the query of an address.
    let uri = Uri::builder().path_and_query(format!("/?{text}")).build();
    let uri = uri.map_err(|_| malformed())?;
    Query::try_from_uri(&uri).map(|Query(fields)| fields).map_err(|_| malformed())
}
