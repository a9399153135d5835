//! WHIP (RFC 9725), the plain way in for browsers: POST an offer to `/whip/CALLED`, PATCH
//! candidates and ICE restarts to what `Location` names, DELETE it to hang up.
//!
//! It goes beyond the RFC, which is about sending media in, in one thing: an offer of `sendrecv` is
//! answered with `sendrecv`, so that a person and whoever is called hear each other. An offer of
//! `sendonly` is answered with `recvonly`, as the RFC says.

mod agent;
mod fragment;
mod mirror;
mod session;
mod statuses;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Extension, Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base::{Reason, limit};
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName,
    IF_MATCH, LINK, LOCATION,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use sdp::{Direction, Media, Session};
use tokio::sync::oneshot;
use tokio::time::timeout;
use transport::{CarriedPeer, OpenError, Transport};

use self::agent::{Agent, Parties, Refusal};
use self::fragment::Fragment;
pub(crate) use self::session::Sessions;
use self::session::{Ask, Condition, NoSession, Opened, Owner, Patched, Running, Tag};
use crate::auth::{TokenScope, Who};
use crate::cors::{self, Origin, Shown};
use crate::guard::Peer;
use crate::problem::Problem;
use crate::server::Ground;
use crate::tokens::Spent;

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// What pages of listed origins may do and see here.
const SHOWN: Shown = Shown {
    methods: "POST, PATCH, DELETE, OPTIONS",
    headers: "Authorization, Content-Type, If-Match",
    exposed: "Location, ETag, Link",
};

/// The routes of WHIP.
pub(crate) fn routes() -> Router<Arc<Ground>> {
    let endpoint = post(open).options(ask).fallback(wrong_method);
    let session =
        axum::routing::patch(patch).delete(hang_up).options(preflight).fallback(wrong_method);
    Router::new().route("/whip/{called}", endpoint).route("/whip/{called}/{session}", session)
}

/// A request with what every method looks at first.
struct Asked {
    ground: Arc<Ground>,
    peer: Peer,
    headers: HeaderMap,
    origin: Option<Origin>,
}

/// Serves a method: foreign origins are refused, others see the answer, a problem as well.
async fn within<F>(
    ground: Arc<Ground>,
    peer: Peer,
    headers: HeaderMap,
    serve: impl FnOnce(Asked) -> F,
) -> Response
where
    F: Future<Output = Result<Response, Problem>>,
{
    let origin = match ground.config.origins.of(&headers) {
        Ok(origin) => origin,
        Err(foreign) => return foreign.into_response(),
    };
    let asked = Asked { ground, peer, headers, origin: origin.clone() };
    let mut response = serve(asked).await.unwrap_or_else(IntoResponse::into_response);
    cors::show(&mut response, origin.as_ref(), &SHOWN);
    response
}

async fn open(
    State(ground): State<Arc<Ground>>,
    Extension(peer): Extension<Peer>,
    Path(called): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    within(ground, peer, headers, |asked| asked.open(called, uri, body)).await
}

async fn patch(
    State(ground): State<Arc<Ground>>,
    Extension(peer): Extension<Peer>,
    Path((called, session)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    within(ground, peer, headers, |asked| asked.patch(called, session, body)).await
}

async fn hang_up(
    State(ground): State<Arc<Ground>>,
    Extension(peer): Extension<Peer>,
    Path((called, session)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    within(ground, peer, headers, |asked| asked.hang_up(called, session)).await
}

/// What a browser asks before it asks for something (the Fetch standard's CORS preflight).
async fn preflight(State(ground): State<Arc<Ground>>, uri: Uri, headers: HeaderMap) -> Response {
    let origin = match ground.config.origins.of(&headers) {
        Ok(origin) => origin,
        Err(foreign) => return foreign.into_response(),
    };
    let mut response = StatusCode::NO_CONTENT.into_response();
    cors::preflight(&mut response, origin.as_ref(), &SHOWN);
    advertise(response.headers_mut(), &uri);
    response
}

/// A client that wants the servers before its offer asks for them with its credentials; a browser's
/// preflight has none and learns none (RFC 9725 section 4.6).
async fn ask(
    State(ground): State<Arc<Ground>>,
    Extension(peer): Extension<Peer>,
    Path(called): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let is_preflight = headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if is_preflight || !headers.contains_key(AUTHORIZATION) {
        return preflight(State(ground), uri, headers).await;
    }
    within(ground, peer, headers, |asked| async move { asked.servers(&called, &uri) }).await
}

/// Says what a resource takes (RFC 9725 section 4.2).
fn advertise(headers: &mut HeaderMap, uri: &Uri) {
    if is_endpoint(uri) {
        headers.insert(ALLOW, HeaderValue::from_static("POST, OPTIONS"));
        headers.insert(ACCEPT_POST, HeaderValue::from_static(SDP));
    } else {
        headers.insert(ALLOW, HeaderValue::from_static("PATCH, DELETE, OPTIONS"));
        headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
    }
}

fn is_endpoint(uri: &Uri) -> bool {
    uri.path().trim_start_matches('/').split('/').count() == 2
}

/// RFC 9725 sections 4.2 and 4.5: GET, HEAD and PUT are kept for what may come.
async fn wrong_method(method: Method, uri: Uri) -> Response {
    let detail = format!("{method} is not taken here; see Allow");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "http.method_not_allowed", detail);
    let mut response = problem.into_response();
    advertise(response.headers_mut(), &uri);
    response
}

impl Asked {
    /// Who sends the request, and whether it may come from this page and call this name.
    fn proved(&self, called: &str) -> Result<Who, Problem> {
        let forbidden =
            |code, detail: &str| Problem::new(StatusCode::FORBIDDEN, code, detail.to_owned());
        let who = self.ground.guard.bearer(&self.headers, self.peer)?;
        match &who {
            Who::Key { can_write: true, .. } => {}
            Who::Key { .. } => {
                return Err(forbidden("api.read_only", "the key may read only"));
            }
            Who::Account { .. } => {
                return Err(forbidden("api.not_by_account", "accounts call by SIP over WSS"));
            }
            Who::Token(token) => {
                if !token.may(TokenScope::Call) {
                    return Err(forbidden("token.scope", "the token is not for calls"));
                }
                if token.called.as_ref().is_some_and(|only| only != called) {
                    return Err(forbidden("token.other_callee", "the token is for another callee"));
                }
                // A client without an origin is no browser: the token's holder in person.
                let is_elsewhere = match (&token.origin, &self.origin) {
                    (Some(only), Some(origin)) => Origin::parse(only).as_ref() != Ok(origin),
                    _ => false,
                };
                if is_elsewhere {
                    return Err(forbidden("token.other_origin", "the token is for another page"));
                }
            }
        }
        Ok(who)
    }

    async fn open(self, called: String, uri: Uri, body: Body) -> Result<Response, Problem> {
        let who = self.proved(&called)?;
        typed(&self.headers, SDP)?;
        accepts(&self.headers, SDP)?;
        let body = read(&self.headers, body, limit::SDP_BYTES.get()).await?;
        let offer = offer_of(&body)?;
        let id = self.ground.token();
        let first = self.start(&id, &called, &who, offer)?;
        let answered = timeout(limit::API_WHIP_ANSWER_MS.millis(), first).await;
        // Where the time is up, who waits has gone, and the session gives up.
        let opened = match answered {
            Ok(Ok(Ok(opened))) => opened,
            Ok(Ok(Err(refusal))) => return Err(statuses::problem(&refusal)),
            Ok(Err(_)) => return Err(ended()),
            Err(_) => {
                let status = StatusCode::GATEWAY_TIMEOUT;
                return Err(Problem::of(status, Reason::NoAnswer));
            }
        };
        Ok(self.opened(&uri, &id, opened))
    }

    /// Begins a session, which answers what is returned.
    fn start(
        &self,
        id: &str,
        called: &str,
        who: &Who,
        offer: Session,
    ) -> Result<oneshot::Receiver<Result<Opened, Refusal>>, Problem> {
        let ground = &self.ground;
        let busy = |reason| Problem::of(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(5);
        if ground.tasks.is_ending() {
            return Err(busy(Reason::Draining));
        }
        let claim = match who {
            Who::Token(token) => {
                let claim = ground.tokens.claim(token, ground.guard.wall());
                Some(claim.map_err(|spent| match spent {
                    Spent::Used => {
                        let detail = "the token has opened a session already";
                        Problem::new(StatusCode::FORBIDDEN, "token.used", detail)
                    }
                    Spent::Full => busy(Reason::EdgeCallLimit),
                })?)
            }
            Who::Key { .. } | Who::Account { .. } => None,
        };
        let (owner, parties) = (owner_of(who), parties(who, called, &ground.host)?);
        let place = ground.sessions.enter(id.to_owned(), called, owner);
        let place = place.ok_or_else(|| busy(Reason::EdgeCallLimit))?;
        let Peer { source, local } = self.peer;
        let carried =
            ground.transport.carry(CarriedPeer { transport: Transport::Whip, source, local });
        let carried = carried.map_err(|error| match error {
            OpenError::Ended => busy(Reason::Draining),
            _ => busy(Reason::ConnectionLimit),
        })?;
        let flow = carried.flow().id;
        let agent =
            Agent::call(ground.clock.now(), flow, &parties, offer, Box::new(ground.random()));
        let (first, answer) = oneshot::channel();
        let running = Running {
            agent,
            carried,
            place,
            clock: Arc::clone(&ground.clock),
            tag: Tag::new(ground.token()),
            first: Some(first),
            claim,
            patching: None,
        };
        let for_task = Arc::clone(ground);
        let is_started = ground.tasks.spawn(async move {
            running.run(for_task.tasks.ending()).await;
        });
        if is_started { Ok(answer) } else { Err(busy(Reason::Draining)) }
    }

    /// The STUN and TURN servers for who may call.
    fn servers(&self, called: &str, uri: &Uri) -> Result<Response, Problem> {
        self.proved(called)?;
        let mut response = StatusCode::NO_CONTENT.into_response();
        advertise(response.headers_mut(), uri);
        let now = self.ground.guard.wall();
        for server in &self.ground.config.ice_servers {
            if let Ok(link) = HeaderValue::from_str(&server.link(now)) {
                response.headers_mut().append(LINK, link);
            }
        }
        Ok(response)
    }

    /// The answer to a POST (RFC 9725 section 4.2).
    fn opened(&self, uri: &Uri, id: &str, opened: Opened) -> Response {
        let location = format!("{}/{id}", uri.path().trim_end_matches('/'));
        let mut response = (StatusCode::CREATED, opened.answer).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(SDP));
        let mut set = |name, value: &str| {
            // All of these were made or checked here.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(name, value);
            }
        };
        set(LOCATION, &location);
        set(ETAG, &opened.tag);
        let now = self.ground.guard.wall();
        self.ground.config.ice_servers.iter().for_each(|server| set(LINK, &server.link(now)));
        headers.insert(ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT));
        response
    }

    async fn patch(self, called: String, id: String, body: Body) -> Result<Response, Problem> {
        let who = self.proved(&called)?;
        let asks = self.find(&id, &called, &who)?;
        typed(&self.headers, FRAGMENT)?;
        let condition = condition(&self.headers)?;
        let body = read(&self.headers, body, limit::API_FRAGMENT_BYTES.get()).await?;
        let fragment = core::str::from_utf8(&body).ok().map(Fragment::parse);
        let fragment = match fragment {
            Some(Ok(fragment)) => Box::new(fragment),
            Some(Err(bad)) => return Err(bad_request(format!("line {} of the fragment", bad.0))),
            None => return Err(bad_request("the fragment is not UTF-8")),
        };
        let (reply, patched) = oneshot::channel();
        let asking = async {
            asks.send(Ask::Patch { condition, fragment, reply }).await.ok()?;
            patched.await.ok()
        };
        match within_step(asking).await? {
            Patched::Taken => Ok(StatusCode::NO_CONTENT.into_response()),
            Patched::Restarted { fragment, tag } => {
                let mut response = fragment.into_response();
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
                if let Ok(tag) = HeaderValue::from_str(&tag) {
                    headers.insert(ETAG, tag);
                }
                Ok(response)
            }
            Patched::Mismatch => {
                let detail = "the ICE session is another one; see ETag of its latest answer";
                Err(Problem::new(StatusCode::PRECONDITION_FAILED, "whip.other_session", detail))
            }
            Patched::OtherCredentials => {
                let detail = "other credentials than those of the ICE session that If-Match names";
                let status = StatusCode::UNPROCESSABLE_ENTITY;
                Err(Problem::new(status, "whip.other_credentials", detail))
            }
            Patched::Refused(refusal) => Err(statuses::problem(&refusal)),
        }
    }

    async fn hang_up(self, called: String, id: String) -> Result<Response, Problem> {
        let who = self.proved(&called)?;
        let asks = self.find(&id, &called, &who)?;
        let (reply, done) = oneshot::channel();
        let asking = async {
            asks.send(Ask::HangUp { reply }).await.ok()?;
            done.await.ok()
        };
        within_step(asking).await?;
        Ok(StatusCode::OK.into_response())
    }

    fn find(
        &self,
        id: &str,
        called: &str,
        who: &Who,
    ) -> Result<tokio::sync::mpsc::Sender<Ask>, Problem> {
        self.ground.sessions.find(id, called, &owner_of(who)).map_err(|none| match none {
            NoSession::Gone => ended(),
            NoSession::Foreign => {
                let detail = "the session is somebody else's";
                Problem::new(StatusCode::FORBIDDEN, "whip.foreign_session", detail)
            }
        })
    }
}

/// Waits for a step of a session; `None` where the session is over.
async fn within_step<T>(asking: impl Future<Output = Option<T>>) -> Result<T, Problem> {
    match timeout(limit::API_WHIP_STEP_MS.millis(), asking).await {
        Ok(Some(done)) => Ok(done),
        Ok(None) => Err(ended()),
        Err(_) => {
            let detail = "the calls did not answer in time";
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, "whip.no_answer", detail))
        }
    }
}

fn ended() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "whip.no_session", "the session is over, or never was")
}

fn bad_request(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "whip.malformed", detail)
}

fn owner_of(who: &Who) -> Owner {
    match who {
        Who::Token(token) => Owner::Token(token.id.clone()),
        Who::Key { .. } | Who::Account { .. } => Owner::Workspace,
    }
}

/// Caller and callee as SIP names them.
fn parties(who: &Who, called: &str, host: &sip::Host) -> Result<Parties, Problem> {
    let is_plain = |it: char| !it.is_control();
    if called.is_empty() || called.len() > MOST_CALLED || !called.chars().all(is_plain) {
        return Err(bad_request("whom to call is missing or too long"));
    }
    let called = sip::Uri::sip(Some(called), host, None);
    let user = match who {
        Who::Key { id, .. } => id.clone(),
        Who::Token(token) => token.id.clone(),
        Who::Account { name, .. } => name.expose().clone(),
    };
    Ok(Parties { user, asserted: who.asserted(host), called })
}

/// Longest name of a callee, in bytes; a number has 15 digits.
const MOST_CALLED: usize = 128;

/// The offer of a POST.
fn offer_of(body: &Bytes) -> Result<Session, Problem> {
    let offer = Session::parse(body)
        .map_err(|error| bad_request(format!("the offer cannot be read: {error}")))?
        .unbundled();
    let unusable = |reason| Problem::of(StatusCode::UNPROCESSABLE_ENTITY, reason);
    let audio = offer.media.iter().find(|media| Media::is_open_audio(media));
    let audio = audio.ok_or_else(|| unusable(Reason::NoAudio))?;
    if !matches!(offer.direction_of(audio), Direction::SendOnly | Direction::SendRecv) {
        // RFC 9725 section 4.2: who comes this way sends.
        let detail = "an offer must be sendonly or sendrecv";
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        return Err(Problem::new(status, "whip.direction", detail));
    }
    Ok(offer)
}

/// Checks the type of a request's body.
fn typed(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let named = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = named.map(|it| it.split(';').next().unwrap_or_default().trim());
    if essence.is_some_and(|it| it.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let detail = format!("the body must be {wanted}");
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "http.unsupported_type", detail))
}

/// Checks that the answer's type is one that the client takes (RFC 9110 section 12.5.1).
fn accepts(headers: &HeaderMap, ours: &'static str) -> Result<(), Problem> {
    let mut all = headers.get_all(ACCEPT).iter().peekable();
    let (kind, _) = ours.split_once('/').unwrap_or((ours, ""));
    let takes = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let is_refused = parts.any(|it| matches!(it, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"));
        let fits = name == "*/*" || name == ours || name == format!("{kind}/*");
        fits && !is_refused
    };
    let is_any = all.peek().is_none();
    let mut texts = all.filter_map(|it| it.to_str().ok());
    if is_any || texts.any(|text| text.split(',').any(takes)) {
        return Ok(());
    }
    let detail = format!("the answer is {ours}");
    Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "http.not_acceptable", detail))
}

/// `If-Match`, which a PATCH must have (RFC 9725 section 4.3.1).
fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let texts: Vec<_> =
        headers.get_all(IF_MATCH).iter().filter_map(|it| it.to_str().ok()).collect();
    if texts.is_empty() {
        let detail = "If-Match is needed: the ETag of the session, or * to restart ICE";
        let status = StatusCode::PRECONDITION_REQUIRED;
        return Err(Problem::new(status, "whip.condition_required", detail));
    }
    if texts.iter().any(|it| it.trim() == "*") {
        return Ok(Condition::Any);
    }
    let tags = texts.iter().flat_map(|text| text.split(','));
    Ok(Condition::Tags(tags.map(|tag| tag.trim().to_owned()).collect()))
}

/// Reads a body of at most `most` bytes.
async fn read(headers: &HeaderMap, body: Body, most: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body has more than {most} bytes");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "http.too_large", detail).closing()
    };
    let announced = headers.get(http::header::CONTENT_LENGTH).and_then(|it| it.to_str().ok());
    if announced.is_some_and(|it| it.parse::<usize>().is_ok_and(|length| length > most)) {
        return Err(too_large()); // before a byte of it is asked for
    }
    match timeout(limit::API_BODY_MS.millis(), axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(too_large()),
        Err(_) => {
            let detail = "the body did not arrive in time";
            let status = StatusCode::REQUEST_TIMEOUT;
            Err(Problem::new(status, "http.slow", detail).closing())
        }
    }
}
