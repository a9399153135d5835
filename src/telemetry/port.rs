//! The metrics and health port, on loopback: `/metrics`, `/health`, `/health/live`,
//! `/health/ready`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::Telemetry;

/// How the edge is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// All is well.
    Healthy,
    /// Calls are taken, but something needs a look.
    Degraded {
        /// What, as a stable word.
        what: &'static str,
    },
    /// No calls are taken.
    Unhealthy {
        /// Why, as a stable word.
        what: &'static str,
    },
}

/// Connections served at a time; a scraper needs one.
const CONNECTIONS: usize = 32;
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// Serves the port until the task is dropped.
pub async fn serve(
    listener: TcpListener,
    telemetry: Arc<Telemetry>,
    health: Arc<dyn Fn() -> Health + Send + Sync>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: a pause lets other connections end.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let telemetry = Arc::clone(&telemetry);
        let health = Arc::clone(&health);
        tasks.spawn(async move {
            let answer = service_fn(move |request| {
                let response = respond(&request, &telemetry, health());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIME)
                .serve_connection(TokioIo::new(stream), answer);
            // A scraper that breaks off is no news.
            let _ = connection.await;
            drop(place);
        });
    }
}

fn respond(
    request: &Request<Incoming>,
    telemetry: &Telemetry,
    health: Health,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
    }
    match request.uri().path() {
        "/metrics" => answer(StatusCode::OK, "text/plain; version=0.0.4", telemetry.render()),
        "/health" | "/health/ready" => {
            let (status, word, what) = match health {
                Health::Healthy => (StatusCode::OK, "healthy", ""),
                Health::Degraded { what } => (StatusCode::OK, "degraded", what),
                Health::Unhealthy { what } => (StatusCode::SERVICE_UNAVAILABLE, "unhealthy", what),
            };
            let version = env!("CARGO_PKG_VERSION");
            let identity = format!(r#""service":"callgate","version":"{version}""#);
            let body = format!(r#"{{"status":"{word}",{identity},"checks":{{"edge":"{what}"}}}}"#);
            answer(status, "application/json", body)
        }
        "/health/live" => answer(
            StatusCode::OK,
            "application/json",
            String::from(r#"{"status":"healthy","service":"callgate"}"#),
        ),
        _ => problem(StatusCode::NOT_FOUND, "there are /metrics and /health"),
    }
}

fn problem(status: StatusCode, detail: &str) -> Response<Full<Bytes>> {
    let body = format!(r#"{{"status":{},"detail":"{detail}"}}"#, status.as_u16());
    answer(status, "application/problem+json", body)
}

fn answer(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
