//! Errors of the HTTP port as JSON (RFC 9457): `type`, `title`, `status`, `detail`, with a stable
//! `code` and the `request_id` that the response's header has too. Clients of the REST contract
//! read `detail` alone.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use base::Reason;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

/// Why a request was not served. As a response it has a body only once `finish` gave it the
/// request's id, which the server does with every response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u32>,
    closes: bool,
    invalid: Vec<Invalid>,
}

/// A field of a request that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// `body`, `query` or `path`.
    pub place: &'static str,
    /// Its name; empty for the whole.
    pub field: String,
    /// A stable word for what is wrong.
    pub kind: &'static str,
    /// The same for a person.
    pub message: String,
}

impl Problem {
    /// A problem with a stable `code`, `area.cause`, and words for a person.
    #[must_use]
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: None,
            closes: false,
            invalid: Vec::new(),
        }
    }

    /// 422 with each field that is not as it must be (REST contract 1.3: `detail` is a list then).
    #[must_use]
    pub fn invalid(fields: Vec<Invalid>) -> Self {
        let detail = "some fields are not as they must be";
        let problem = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "api.invalid", detail);
        Self { invalid: fields, ..problem }
    }

    /// A catalogued outcome with the status that suits it in HTTP.
    #[must_use]
    pub fn of(status: StatusCode, reason: Reason) -> Self {
        Self::new(status, reason.code(), reason.hint())
    }

    /// The same with the seconds after which to try again.
    #[must_use]
    pub const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The same, and the connection ends: what follows on it cannot be told for sure.
    #[must_use]
    pub const fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.closes {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            // RFC 9110 section 11.6.1.
            let challenge = HeaderValue::from_static("Bearer realm=\"callgate\"");
            headers.insert(http::header::WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the problem that a response carries, if it does, for the request with this id.
pub(crate) fn finish(response: Response, request_id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let Some(problem) = parts.extensions.remove::<Problem>() else {
        return Response::from_parts(parts, body);
    };
    let fields = problem.invalid.iter().map(|it| {
        let mut place = vec![it.place];
        if !it.field.is_empty() {
            place.push(&it.field);
        }
        json!({ "loc": place, "msg": it.message, "type": it.kind })
    });
    let fields: Vec<_> = fields.collect();
    let detail = if fields.is_empty() { problem.detail.into() } else { Value::Array(fields) };
    let written = json!({
        "type": format!("urn:callgate:problem:{}", problem.code),
        "title": problem.status.canonical_reason().unwrap_or("Error"),
        "status": problem.status.as_u16(),
        "detail": detail,
        "code": problem.code,
        "request_id": request_id,
    });
    parts.headers.remove(CONTENT_LENGTH); // that of the response without a body
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    Response::from_parts(parts, Body::from(written.to_string()))
}
