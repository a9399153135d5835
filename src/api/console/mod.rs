//! The console: pages that the edge makes itself, for whoever has an API key.
//!
//! Plain HTML with small scripts of our own; nothing is loaded from elsewhere, and a strict content
//! security policy sees to it. It decides nothing about calls: what goes on comes from the edge
//! ([`Backstage`], [`Live`]), what went on from the vault.

mod assets;
mod call;
mod calls;
mod html;
mod ladder;
mod outcome;
mod page;
mod quality;
mod recording;
mod session;
mod sign;
mod talk;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base::{CallId, Personal, Random, Secret, limit};
use http::{HeaderMap, StatusCode, Uri};
use tokio::sync::Semaphore;
use vault::{Keys, ReadError, Reader, VaultHandle};

use crate::cors::Origins;
use crate::guard::Guard;
use crate::live::Live;
use crate::problem::Problem;
use crate::server::IceServer;
use html::{Html, put};
use page::{Page, Place};
use session::{Person, Sessions};

/// A voice agent as the console offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentLine {
    /// The name that is called.
    pub name: String,
    /// What it says of itself.
    pub description: String,
}

/// Whether a call was asked to end.
pub type HungUp = Pin<Box<dyn Future<Output = bool> + Send>>;

/// What the edge answers for the console.
pub trait Backstage: Send + Sync + 'static {
    /// The voice agents that a browser may talk to, by name.
    fn agents(&self) -> Vec<AgentLine>;

    /// The media of a call in progress, as it would be stored now: JSON with the caller's figures,
    /// and under `legs` those of the others. `None` where there are none yet.
    fn quality(&self, call: CallId) -> Option<Personal<String>>;

    /// Has a call end; `false` where there is no such call any more.
    fn hang_up(&self, call: CallId) -> HungUp;

    /// What to do where the browser does not trust this edge's certificate: the path of the
    /// authority's file where it is one of development, else `None`.
    fn development_authority(&self) -> Option<String>;
}

/// What the console is made of.
pub struct Stage {
    /// Proves who is there; the server's own.
    pub guard: Arc<Guard>,
    /// Keys and tokens.
    pub keys: Keys,
    /// The edge.
    pub backstage: Arc<dyn Backstage>,
    /// STUN and TURN servers for *Talk*.
    pub ice_servers: Vec<IceServer>,
    /// What happens in calls.
    pub live: Live,
    /// What happened.
    pub reader: Reader,
    /// Brings what happened just now to where the reader finds it.
    pub vault: VaultHandle,
    /// Randomness fit for keys.
    pub random: Box<dyn Random + Send>,
}

/// What all pages share.
pub(crate) struct Console {
    guard: Arc<Guard>,
    keys: Keys,
    backstage: Arc<dyn Backstage>,
    ice_servers: Vec<IceServer>,
    live: Live,
    reader: Arc<Reader>,
    vault: VaultHandle,
    random: Mutex<Box<dyn Random + Send>>,
    sessions: Sessions,
    /// Recordings that may be in memory at one time.
    players: Arc<Semaphore>,
}

/// `/console` and everything below. Every request must have a [`crate::Peer`] as an extension.
pub fn routes(stage: Stage) -> Router {
    let Stage { guard, keys, backstage, ice_servers, live, reader, vault, random } = stage;
    let console = Arc::new(Console {
        guard,
        keys,
        backstage,
        ice_servers,
        live,
        reader: Arc::new(reader),
        vault,
        random: Mutex::new(random),
        sessions: Sessions::default(),
        players: Arc::new(Semaphore::new(limit::API_PLAYERS.get())),
    });
    Router::new()
        .route("/console", get(sign::show))
        .route("/console/sign-in", post(sign::sign_in))
        .route("/console/sign-out", post(sign::sign_out))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/talk", get(talk::show))
        .route("/console/talk/token", post(talk::token))
        .route("/console/talk/{token}/events", get(talk::events))
        .route("/console/calls", get(calls::show))
        .route("/console/calls/{call}", get(call::show))
        .route("/console/calls/{call}/events", get(call::events))
        .route("/console/calls/{call}/quality", get(quality::show))
        .route("/console/calls/{call}/hang-up", post(call::hang_up))
        .route("/console/recordings/{recording}/audio", get(recording::audio))
        .route("/console/recordings/{recording}/waveform", get(recording::waveform))
        .route("/console/{*rest}", get(missing))
        .with_state(console)
}

impl Console {
    fn person(&self, headers: &HeaderMap) -> Option<Person> {
        self.sessions.person(headers, &self.keys, self.guard.wall())
    }

    /// Who looks at a page; others are led to where one signs in.
    fn viewer(&self, headers: &HeaderMap, uri: &Uri) -> Result<Person, Stop> {
        let to = || uri.path_and_query().map_or("", |it| it.as_str());
        self.person(headers).ok_or_else(|| Stop::to_sign_in(to()))
    }

    /// Who asks for something that is no page.
    fn asker(&self, headers: &HeaderMap) -> Result<Person, Problem> {
        let detail = "sign in at /console";
        self.person(headers)
            .ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "console.signed_out", detail))
    }

    /// Who changes something, by a page of ours.
    fn writer(&self, headers: &HeaderMap) -> Result<Person, Problem> {
        same_origin(headers)?;
        let person = self.asker(headers)?;
        if !person.can_write {
            let detail = "this API key may only look";
            return Err(Problem::new(StatusCode::FORBIDDEN, "api.read_only", detail));
        }
        Ok(person)
    }

    /// 256 random bits in hexadecimal.
    fn secret(&self) -> Secret<String> {
        let mut bytes = Secret::new([0_u8; 32]);
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes.expose_mut());
        Secret::new(bytes.expose().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Lets the reader see what has just happened; a vault that cannot write is not waited for.
    async fn settle(&self) {
        let _ = tokio::time::timeout(limit::API_SETTLE_MS.millis(), self.vault.flush()).await;
    }
}

/// Where there is no page.
async fn missing(State(console): State<Arc<Console>>, headers: HeaderMap, uri: Uri) -> Stop {
    console.viewer(&headers, &uri).map_or_else(|away| away, Stop::Missing)
}

/// Whether a request that changes something comes from a page of ours. The cookie is not sent by
/// others either (`SameSite=Strict`); this holds where that one fails.
fn same_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let own = Origins::default().of(headers)?;
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if own.is_some() && site.is_none_or(|site| site == "same-origin") {
        return Ok(());
    }
    let detail = "only pages of this edge may do that";
    Err(Problem::new(StatusCode::FORBIDDEN, "api.foreign_origin", detail))
}

/// Why there is not the page that was asked for.
#[derive(Debug)]
enum Stop {
    /// Somebody has to sign in first, here.
    Away(String),
    /// There is no such thing.
    Missing(Person),
    /// The call that was to be ended is over.
    Over(Person),
    /// Their key may only look.
    ReadOnly(Person),
    /// A page of somebody else's asks.
    Foreign(Problem),
    /// The store cannot be read.
    Unread(Person),
}

impl Stop {
    /// To where one signs in, and from there to this page.
    fn to_sign_in(page: &str) -> Self {
        Self::Away(format!("/console?to={}", escaped(page)))
    }

    const fn of(error: &ReadError, person: Person) -> Self {
        match error {
            ReadError::Unknown | ReadError::Erased => Self::Missing(person),
            _ => Self::Unread(person),
        }
    }
}

impl IntoResponse for Stop {
    fn into_response(self) -> Response {
        let (status, person, title, text) = match self {
            Self::Away(to) => {
                let mut response = Redirect::to(&to).into_response();
                page::guard(response.headers_mut());
                return response;
            }
            Self::Foreign(problem) => return problem.into_response(),
            Self::Over(person) => {
                let text = "There was nothing to hang up any more.";
                (StatusCode::CONFLICT, person, "The call is over", text)
            }
            Self::ReadOnly(person) => {
                let text = "The API key that you signed in with may only look.";
                (StatusCode::FORBIDDEN, person, "Not allowed", text)
            }
            Self::Missing(person) => {
                let text = "There is nothing here: it never was, or it was erased.";
                (StatusCode::NOT_FOUND, person, "Not found", text)
            }
            Self::Unread(person) => {
                let text = "The store cannot be read now. Look at the edge's log and /health.";
                (StatusCode::SERVICE_UNAVAILABLE, person, "Not available", text)
            }
        };
        let mut main = Html::default();
        put!(
            main,
            "<h1>{}</h1><p class=\"card\">{}</p><p><a href=\"/console/calls\">All calls</a></p>",
            title,
            text,
        );
        let page = Page { title, place: Place::Call, person: Some(person), script: None };
        page.around(status, &main)
    }
}

/// A reader's refusal of something that is no page.
fn unread(error: &ReadError) -> Problem {
    match error {
        ReadError::Unknown | ReadError::Erased => {
            Problem::new(StatusCode::NOT_FOUND, "api.not_found", error.to_string())
        }
        _ => {
            let detail = "the store cannot be read now";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "vault.unavailable", detail)
                .retry_after(5)
        }
    }
}

/// A value in the query of an address.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests;
