//! The console's own files, part of the program.

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::page;
use crate::problem::Problem;

const FILES: &[(&str, &str, &str)] = &[
    ("style.css", "text/css; charset=utf-8", include_str!("assets/style.css")),
    ("talk.js", "text/javascript; charset=utf-8", include_str!("assets/talk.js")),
    ("call.js", "text/javascript; charset=utf-8", include_str!("assets/call.js")),
    ("turns.js", "text/javascript; charset=utf-8", include_str!("assets/turns.js")),
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
];

/// Serves one of them; a browser that has it asks and is told that it is the same.
pub(crate) async fn serve(Path(name): Path<String>, headers: HeaderMap) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|file| file.0 == name) else {
        let detail = "there is no such file";
        return Problem::new(StatusCode::NOT_FOUND, "http.not_found", detail).into_response();
    };
    let tag = tag(text);
    let known = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = known.is_some_and(|known| known.split(',').any(|it| it.trim() == tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static(kind))], *text).into_response()
    };
    page::guard(response.headers_mut());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// Changes with the content; there is nothing to keep secret.
fn tag(text: &str) -> String {
    let hash = vault::access::fingerprint(text);
    let digits: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}
