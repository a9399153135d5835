//! HTTP/1.1 on one port: connections, limits, what every response has, drain. What is answered is
//! the business of the routes.
//!
//! Requests are read by hyper behind [`Strict`], which knows only CRLF as the end of a line, and
//! bodies come with Content-Length alone: there are no two ways to read where a request ends
//! (RFC 9112 section 11.2).

use std::convert::Infallible;
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use base::{Random, Secret, WallTime, limit};
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;
use transport::{OpenError, Serving, Streams, TransportHandle, Web, WebStream};

use crate::cors::Origins;
use crate::guard::{Events, Guard, Peer, SharedClock};
use crate::problem::{self, Problem};
use crate::random::SharedRandom;
use crate::redirect::{Challenges, Redirect};
use crate::strict::Strict;
use crate::tasks::Tasks;
use crate::tokens::Tokens;
use crate::whip;
use crate::wss::door::House;
use crate::wss::{self, Registrar};

/// What the operator decides.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// The host that SIP addresses of browsers and their callees have: the edge's own name.
    pub host: String,
    /// The port that plaintext requests are led to.
    pub https_port: u16,
    /// Pages of other origins that may call.
    pub origins: Origins,
    /// STUN and TURN servers that browsers are told of.
    pub ice_servers: Vec<IceServer>,
}

/// A STUN or TURN server for browsers.
#[derive(Clone, Debug)]
pub struct IceServer {
    /// `stun:`, `turn:` or `turns:` (RFC 7064, RFC 7065).
    pub url: String,
    /// How browsers log in, where it asks for that.
    pub login: Option<IceLogin>,
}

/// Makes out a browser's user and password at a TURN server, at the time that it is told of them.
#[derive(Clone)]
pub struct IceLogin(Arc<dyn Fn(WallTime) -> (String, Secret<String>) + Send + Sync>);

impl IceLogin {
    /// A login that is made out by `make`.
    pub fn new(
        make: impl Fn(WallTime) -> (String, Secret<String>) + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(make))
    }
}

impl fmt::Debug for IceLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IceLogin")
    }
}

/// What the edge lends.
pub struct Parts {
    /// Carries browsers' messages to the calls.
    pub transport: TransportHandle,
    /// Proves who is there; shared with `pages`.
    pub guard: Arc<Guard>,
    /// The clocks.
    pub clock: SharedClock,
    /// Randomness fit for keys.
    pub random: Box<dyn Random + Send>,
    /// Takes events.
    pub events: Events,
    /// Routes of keys and of the console.
    pub pages: Router,
    /// Answers to an authority's challenges, on the plaintext port.
    pub challenges: Challenges,
}

/// The HTTPS port of the edge and what hangs on it.
#[derive(Clone)]
pub struct Api {
    ground: Arc<Ground>,
    router: Router,
}

/// What all routes share.
pub(crate) struct Ground {
    pub(crate) config: ApiConfig,
    pub(crate) host: sip::Host,
    pub(crate) transport: TransportHandle,
    pub(crate) guard: Arc<Guard>,
    pub(crate) clock: SharedClock,
    random: SharedRandom,
    pub(crate) events: Events,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) sessions: whip::Sessions,
    pub(crate) house: Arc<House>,
    pub(crate) websockets: Arc<AtomicUsize>,
    pub(crate) tasks: Tasks,
    requests: AtomicU64,
    challenges: Challenges,
}

impl Ground {
    pub(crate) fn random(&self) -> SharedRandom {
        self.random.clone()
    }

    /// A random number in 32 hexadecimal digits.
    pub(crate) fn token(&self) -> String {
        sip::ids::new_call_id(&mut self.random())
    }
}

/// Why the API was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// [`ApiConfig::host`] is none.
    #[error("the edge's own name is neither a host name nor an address")]
    Host,
}

impl Api {
    /// An API that listens nowhere yet.
    ///
    /// # Errors
    /// Where the configuration cannot be used.
    pub fn new(config: ApiConfig, parts: Parts) -> Result<Self, ApiError> {
        let host = sip::Host::parse(&config.host).ok_or(ApiError::Host)?;
        let Parts { transport, guard, clock, random, events, pages, challenges } = parts;
        let tokens = Arc::new(Tokens::new(Arc::clone(&guard)));
        let random = SharedRandom::new(random);
        let house =
            House::sharing(Arc::clone(&guard), Arc::clone(&tokens), host.clone(), random.clone());
        let ground = Arc::new(Ground {
            config,
            host,
            transport,
            guard,
            clock,
            random,
            events,
            tokens,
            sessions: whip::Sessions::default(),
            house: Arc::new(house),
            websockets: Arc::default(),
            tasks: Tasks::default(),
            requests: AtomicU64::new(0),
            challenges,
        });
        let router = Router::new()
            .route("/health", get(health))
            .merge(whip::routes())
            .merge(wss::routes())
            .with_state(Arc::clone(&ground))
            .merge(pages)
            .fallback(nothing)
            .method_not_allowed_fallback(wrong_method);
        Ok(Self { ground, router })
    }

    /// Serves HTTPS at an address and returns it.
    ///
    /// # Errors
    /// Where the address cannot be bound, or there is no certificate.
    pub fn listen(&self, address: SocketAddr) -> Result<SocketAddr, OpenError> {
        self.ground.transport.open_web(Web::Https, address, Arc::new(self.clone()))
    }

    /// Leads plaintext requests at an address to HTTPS, and returns the address.
    ///
    /// # Errors
    /// Where it cannot be bound.
    pub fn listen_plaintext(&self, address: SocketAddr) -> Result<SocketAddr, OpenError> {
        let config = &self.ground.config;
        let challenges = Arc::clone(&self.ground.challenges);
        let redirect = Redirect { host: config.host.clone(), port: config.https_port, challenges };
        let events = Arc::clone(&self.ground.events);
        let plaintext = Plaintext { redirect, events, ground: Arc::clone(&self.ground) };
        self.ground.transport.open_web(Web::Http, address, Arc::new(plaintext))
    }

    /// Where accounts are registered.
    #[must_use]
    pub fn registrar(&self) -> Arc<Registrar> {
        Arc::clone(&self.ground.house.registrar)
    }

    /// Ends what is served: no new sessions, idle connections close, WHIP sessions hang up and
    /// WebSockets end; what has not ended after `patience` is cut. To be called before the
    /// transport drains.
    pub async fn drain(&self, patience: Duration) {
        self.ground.tasks.end(Instant::now() + patience).await;
    }
}

impl Streams for Api {
    fn serve(&self, stream: WebStream) -> Serving {
        let peer = Peer { source: stream.source(), local: stream.local() };
        Box::pin(self.clone().connection(stream, peer))
    }
}

/// The limits of a connection.
fn limited() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .max_headers(limit::API_HEADERS.get())
        .max_buf_size(limit::API_HEAD_BYTES.get())
        .max_header_size(limit::API_HEAD_BYTES.get())
        // This is the longest silence between two requests as well.
        .header_read_timeout(limit::API_HEAD_MS.millis())
        .half_close(false);
    http
}

impl Api {
    async fn connection(self, stream: WebStream, peer: Peer) {
        let (stream, lax) = Strict::new(stream);
        let served = Arc::new(AtomicU64::new(0));
        let ground = Arc::clone(&self.ground);
        let service = service_fn(move |request| {
            let number = served.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            self.clone().answer(request, peer, number, Arc::clone(&lax))
        });
        let serving = limited().serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut serving = pin!(serving);
        // How it ended is the peer's business; faults of ours have answers.
        tokio::select! {
            _ = &mut serving => return,
            () = ground.tasks.ending() => serving.as_mut().graceful_shutdown(),
        }
        let _ = serving.await;
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        peer: Peer,
        number: u64,
        lax: Arc<AtomicBool>,
    ) -> Result<axum::response::Response, Infallible> {
        let request_id = self.request_id();
        let response = match ambiguous(&request) {
            Some(problem) => problem.into_response(),
            None => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(peer);
                let Ok(response) = self.router.oneshot(request).await;
                response
            }
        };
        let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switches {
            // What follows is no head of a request.
            lax.store(true, Ordering::Relaxed);
        }
        let mut response = problem::finish(response, &request_id);
        dress(response.headers_mut(), &request_id);
        let is_last = number >= limit::API_CONNECTION_REQUESTS.value;
        if !switches && (is_last || self.ground.tasks.is_ending()) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// A name for a request, in its response and in its problem.
    fn request_id(&self) -> String {
        let number = self.ground.requests.fetch_add(1, Ordering::Relaxed);
        let random = self.ground.random().u32();
        format!("req_{number:012x}{random:08x}")
    }
}

/// A request that two readers might end at different places (RFC 9112 section 6.3).
fn ambiguous(request: &Request<Incoming>) -> Option<Problem> {
    let headers = request.headers();
    let bad = |detail| Problem::new(StatusCode::BAD_REQUEST, "http.malformed", detail).closing();
    if headers.contains_key(TRANSFER_ENCODING) {
        let detail = "a body needs Content-Length; Transfer-Encoding is not taken";
        let problem = Problem::new(StatusCode::LENGTH_REQUIRED, "http.length_required", detail);
        return Some(problem.closing());
    }
    if headers.get_all(http::header::HOST).iter().count() > 1 {
        return Some(bad("more than one Host"));
    }
    if request.version() != Version::HTTP_11 && headers.contains_key(UPGRADE) {
        return Some(bad("an upgrade needs HTTP/1.1"));
    }
    None
}

/// Gives a response what every response has, where its route has not said otherwise.
fn dress(headers: &mut HeaderMap, request_id: &str) {
    const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");
    const RESOURCES: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
    let defaults = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (CACHE_CONTROL, "no-store"),
        (PERMISSIONS, "camera=(), geolocation=(), microphone=()"),
        (RESOURCES, "same-origin"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
}

async fn health() -> &'static str {
    "ok\n"
}

async fn nothing() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "http.not_found", "there is nothing at this path")
}

async fn wrong_method() -> Problem {
    let detail = "the path does not take this method; see Allow";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "http.method_not_allowed", detail)
}

/// The plaintext port.
struct Plaintext {
    redirect: Redirect,
    events: Events,
    ground: Arc<Ground>,
}

impl Streams for Plaintext {
    fn serve(&self, stream: WebStream) -> Serving {
        let (redirect, events) = (self.redirect.clone(), Arc::clone(&self.events));
        let ground = Arc::clone(&self.ground);
        Box::pin(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                core::future::ready(redirect.answer(&request, &events))
            });
            let (stream, _) = Strict::new(stream);
            let mut http = limited();
            let serving = http.keep_alive(false).serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = serving => {}
                () = ground.tasks.ending() => {}
            }
        })
    }
}

impl IceServer {
    /// As a Link field (RFC 9725 section 4.6), with a login that is good from now on.
    pub(crate) fn link(&self, now: WallTime) -> String {
        let mut link = format!("<{}>; rel=\"ice-server\"", self.url.replace(['<', '>'], ""));
        if let Some((user, password)) = self.login.as_ref().map(|login| (login.0)(now)) {
            let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
            link += &format!(
                "; username=\"{}\"; credential=\"{}\"; credential-type=\"password\"",
                quoted(&user),
                quoted(password.expose()),
            );
        }
        link
    }

    /// As an `RTCIceServer` (WebRTC section 4.2.4), with a login that is good from now on.
    pub(crate) fn entry(&self, now: WallTime) -> Value {
        let mut entry = json!({ "urls": self.url });
        if let Some((user, password)) = self.login.as_ref().map(|login| (login.0)(now)) {
            entry["username"] = user.into();
            entry["credential"] = password.expose().as_str().into();
        }
        entry
    }
}
