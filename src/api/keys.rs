//! API keys, browser tokens and accounts by HTTP, for whoever has an API key.
//!
//! It makes no key by itself: what comes in is the vault's to decide ([`vault::Keys`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use base::{Personal, Secret, WallTime, limit};
use http::header::{CACHE_CONTROL, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};
use vault::access::{KEY_RATE, REALM, TOKEN_SECONDS};
use vault::{
    AccessError, Account, ApiKey, KeyId, KeyTerms, Keys, NotAScope, Token, TokenId, TokenScope,
    TokenTerms,
};

use crate::auth::Who;
use crate::fields::Fields;
use crate::guard::{Guard, Peer};
use crate::problem::{Invalid, Problem};
use crate::rates::{Rate, Rates};

/// A day in seconds.
const DAY: u64 = 86_400;
/// A key that holds for longer may as well have no end.
const KEY_DAYS_LONGEST: u64 = 36_500;

struct Shared {
    guard: Arc<Guard>,
    keys: Keys,
    rates: Rates,
}

/// `/v1/api-keys`, `/v1/browser-tokens` and `/v1/accounts`. Every request must have a [`Peer`] as
/// an extension.
pub fn routes(guard: Arc<Guard>, keys: Keys) -> Router {
    let shared = Arc::new(Shared { guard, keys, rates: Rates::default() });
    Router::new()
        .route("/v1/api-keys", get(list_keys).post(create_key))
        .route("/v1/api-keys/{id}", get(show_key).delete(revoke_key))
        .route("/v1/api-keys/{id}/permanent", delete(delete_key))
        .route("/v1/browser-tokens", get(list_tokens).post(create_token))
        .route("/v1/browser-tokens/{id}", get(show_token).delete(revoke_token))
        .route("/v1/accounts", get(list_accounts))
        .route(
            "/v1/accounts/{name}",
            get(show_account).put(set_account).patch(present_account).delete(remove_account),
        )
        .with_state(shared)
}

/// Whether a request changes something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Look,
    Write,
}

/// The holder of a key, as the audit log names it, and what that key may still ask.
struct Caller {
    actor: String,
    rate: Rate,
}

impl Shared {
    fn caller(&self, headers: &HeaderMap, peer: Peer, does: Does) -> Result<Caller, Problem> {
        let forbidden = |code, detail: &str| Err(Problem::new(StatusCode::FORBIDDEN, code, detail));
        let (id, can_write) = match self.guard.bearer(headers, peer)? {
            Who::Key { id, can_write } => (id, can_write),
            Who::Token(_) | Who::Account { .. } => {
                return forbidden("api.forbidden", "a browser token opens calls only");
            }
        };
        if does == Does::Write && !can_write {
            return forbidden("api.read_only", "this API key may only look");
        }
        let key: Option<ApiKey> = id.parse().ok().and_then(|id| self.keys.key_by_id(id));
        // It may have been deleted this very moment.
        let Some(key) = key else { return forbidden("api.forbidden", "the key is gone") };
        let rate = self.rates.count(key.id, key.rate_limit, self.guard.wall())?;
        Ok(Caller { actor: format!("key:{id}"), rate })
    }

    fn account(&self, name: &str) -> Result<Account, Problem> {
        let found = self.keys.account(name, REALM);
        found.map(|(account, _)| account).ok_or_else(|| not_found("Account"))
    }
}

impl Caller {
    fn answer(self, status: StatusCode, body: Value) -> Response {
        let mut response = (status, Json(body)).into_response();
        // Some have a secret in them, and all are the owner's alone.
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        self.rate.tell(response)
    }

    fn gone(self) -> Response {
        self.rate.tell(StatusCode::NO_CONTENT.into_response())
    }
}

type Answer = Result<Response, Problem>;
type Asked = State<Arc<Shared>>;

fn not_found(what: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "api.not_found", format!("{what} not found"))
}

/// The vault's refusal as the client sees it.
fn refused(what: &str, error: AccessError) -> Problem {
    match error {
        AccessError::Invalid { field, why } => {
            let field = field.to_owned();
            let (kind, message) = ("value_error", why.to_owned());
            Problem::invalid(vec![Invalid { place: "body", field, kind, message }])
        }
        AccessError::Unknown => not_found(what),
        error @ AccessError::InUse => {
            Problem::new(StatusCode::CONFLICT, "api.in_use", error.to_string())
        }
        error @ AccessError::TooMany(_) => {
            Problem::new(StatusCode::CONFLICT, "api.too_many", error.to_string())
        }
        _ => {
            let detail = "the store cannot write now";
            let code = "vault.unavailable";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(5)
        }
    }
}

fn time(at: Option<WallTime>) -> Value {
    at.map_or(Value::Null, |at| at.to_string().into())
}

fn key_json(key: &ApiKey, now: WallTime) -> Value {
    json!({
        "key_id": key.id.to_string(),
        "name": key.name,
        "key_prefix": key.prefix,
        "permissions": [],
        "rate_limit": key.rate_limit,
        "read_only": key.read_only,
        "is_active": key.is_active(now),
        "created_at": key.created.to_string(),
        "expires_at": time(key.expires),
        "last_used_at": time(key.last_used),
        "revoked_at": time(key.revoked),
    })
}

async fn list_keys(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let now = shared.guard.wall();
    let keys = shared.keys.keys().iter().map(|key| key_json(key, now)).collect();
    Ok(caller.answer(StatusCode::OK, keys))
}

async fn create_key(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let mut fields = Fields::read(body).await?;
    let name = fields.text("name");
    if name.is_none() {
        fields.wrong("name", "missing", "a name is needed");
    }
    let read_only = fields.flag("read_only").unwrap_or(false);
    let rate = fields.number("rate_limit", 1..=u64::from(KEY_RATE.1));
    let days = fields.number("expires_in_days", 1..=KEY_DAYS_LONGEST);
    fields.empty_list("permissions", "there are none here: use read_only");
    fields.finish()?;
    let now = shared.guard.wall();
    let terms = KeyTerms {
        name: name.unwrap_or_default(),
        read_only,
        rate_limit: rate.and_then(|rate| u32::try_from(rate).ok()).unwrap_or(KEY_RATE.0),
        expires: days.map(|days| now + Duration::from_secs(days.saturating_mul(DAY))),
    };
    let made = shared.keys.create_key(terms, caller.actor.clone()).await;
    let made = made.map_err(|error| refused("API key", error))?;
    let mut body = key_json(&made.key, now);
    body["api_key"] = made.secret.expose().as_str().into();
    let location = format!("/v1/api-keys/{}", made.key.id);
    Ok(created(caller, body, &location))
}

fn created(caller: Caller, body: Value, location: &str) -> Response {
    let mut response = caller.answer(StatusCode::CREATED, body);
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

async fn show_key(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let key = id.parse().ok().and_then(|id| shared.keys.key_by_id(id));
    let key = key.ok_or_else(|| not_found("API key"))?;
    Ok(caller.answer(StatusCode::OK, key_json(&key, shared.guard.wall())))
}

fn key_id(id: &str) -> Result<KeyId, Problem> {
    id.parse().map_err(|_| not_found("API key"))
}

async fn revoke_key(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let revoked = shared.keys.revoke_key(key_id(&id)?, caller.actor.clone()).await;
    revoked.map_err(|error| refused("API key", error))?;
    Ok(caller.gone())
}

async fn delete_key(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let deleted = shared.keys.delete_key(key_id(&id)?, caller.actor.clone()).await;
    deleted.map_err(|error| refused("API key", error))?;
    Ok(caller.gone())
}

fn token_json(token: &Token) -> Value {
    json!({
        "id": token.id.to_string(),
        "called": token.called,
        "scopes": token.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>(),
        "origin": token.origin,
        "name": token.name.as_ref().map(Personal::expose),
        "caller": token.caller.as_ref().map(Personal::expose),
        "created_at": token.created.to_string(),
        "expires_at": token.expires.to_string(),
    })
}

async fn list_tokens(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let tokens = shared.keys.tokens(shared.guard.wall()).iter().map(token_json).collect();
    Ok(caller.answer(StatusCode::OK, tokens))
}

async fn create_token(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let mut fields = Fields::read(body).await?;
    let (called, agent) = (fields.text("called"), fields.text("agent"));
    if called.is_some() && agent.is_some() {
        fields.wrong("agent", "value_error", "is another word for called: give one of them");
    }
    let scopes = scopes(&mut fields);
    let (origin, name) = (fields.text("origin"), fields.text("name"));
    let shown = fields.text("caller");
    let seconds = fields.number("expires_in", 1..=limit::VAULT_TOKEN_MS.value / 1_000);
    fields.finish()?;
    let seconds = seconds.unwrap_or(TOKEN_SECONDS);
    let terms = TokenTerms {
        called: called.or(agent),
        scopes,
        origin,
        name: name.map(Personal::new),
        caller: shown.map(Personal::new),
        lasts: Some(Duration::from_secs(seconds)),
    };
    let made = shared.keys.create_token(terms, caller.actor.clone()).await;
    let made = made.map_err(|error| refused("Browser token", error))?;
    let mut body = token_json(&made.token);
    body["token"] = made.secret.expose().as_str().into();
    body["expires_in"] = seconds.into();
    let location = format!("/v1/browser-tokens/{}", made.token.id);
    Ok(created(caller, body, &location))
}

/// What a token may do: `scopes` as the REST contract has it (2.12), or its words in one text as
/// OAuth has it (RFC 6749 section 3.3).
fn scopes(fields: &mut Fields) -> Option<BTreeSet<TokenScope>> {
    let (listed, written) = (fields.texts("scopes"), fields.text("scope"));
    if listed.is_some() && written.is_some() {
        fields.wrong("scope", "value_error", "is another form of scopes: give one of them");
    }
    let (field, words) = match (listed, written) {
        (Some(words), _) => ("scopes", words),
        (None, Some(text)) => ("scope", text.split_whitespace().map(str::to_owned).collect()),
        (None, None) => return None,
    };
    let found: Result<_, NotAScope> = words.iter().map(|word| word.parse()).collect();
    match found {
        Ok(scopes) => Some(scopes),
        Err(error) => {
            fields.wrong(field, "enum", error.to_string());
            None
        }
    }
}

async fn show_token(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let id: Option<TokenId> = id.parse().ok();
    let token = id.and_then(|id| shared.keys.token_by_id(id, shared.guard.wall()));
    let (token, _) = token.ok_or_else(|| not_found("Browser token"))?;
    Ok(caller.answer(StatusCode::OK, token_json(&token)))
}

async fn revoke_token(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let id = id.parse().map_err(|_| not_found("Browser token"))?;
    let revoked = shared.keys.revoke_token(id, caller.actor.clone()).await;
    revoked.map_err(|error| refused("Browser token", error))?;
    Ok(caller.gone())
}

fn account_json(account: &Account) -> Value {
    json!({
        "name": account.name.expose(),
        "display": account.display.as_ref().map(Personal::expose),
        "caller": account.caller.as_ref().map(Personal::expose),
        "digest": if account.takes_md5 { "md5" } else { "sha-256" },
        "realm": account.realm,
        "created_at": account.created.to_string(),
        "changed_at": account.changed.to_string(),
        "last_used_at": time(account.last_used),
    })
}

async fn list_accounts(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let accounts = shared.keys.accounts().iter().map(account_json).collect();
    Ok(caller.answer(StatusCode::OK, accounts))
}

async fn show_account(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Look)?;
    let account = shared.account(&name)?;
    Ok(caller.answer(StatusCode::OK, account_json(&account)))
}

async fn set_account(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let mut fields = Fields::read(body).await?;
    let password = fields.text("password").map(Secret::new);
    fields.finish()?;
    let is_chosen = password.is_some();
    let is_new = shared.keys.account(&name, REALM).is_none();
    let set = shared.keys.set_account(&name, REALM, password, caller.actor.clone()).await;
    let password = set.map_err(|error| refused("Account", error))?;
    let account = shared.account(&name)?;
    let mut body = account_json(&account);
    if !is_chosen {
        // Shown once: nobody but its owner knows it from now on.
        body["password"] = password.expose().as_str().into();
    }
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(caller.answer(status, body))
}

/// How a person is shown to whom it calls, and by which digest it signs in; the password stays.
async fn present_account(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let mut fields = Fields::read(body).await?;
    let (display, shown) = (fields.text("display"), fields.text("caller"));
    let digest = fields.text("digest");
    if digest.as_ref().is_some_and(|digest| digest != "sha-256") {
        let message = "can be sha-256; for md5, remove the account and make it again";
        fields.wrong("digest", "enum", message);
    }
    fields.finish()?;
    let set = shared.keys.present_account(&name, display, shown, caller.actor.clone()).await;
    set.map_err(|error| refused("Account", error))?;
    if digest.is_some() {
        let done = shared.keys.forget_md5(&name, caller.actor.clone()).await;
        done.map_err(|error| refused("Account", error))?;
    }
    let account = shared.account(&name)?;
    Ok(caller.answer(StatusCode::OK, account_json(&account)))
}

async fn remove_account(
    State(shared): Asked,
    Extension(peer): Extension<Peer>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer {
    let caller = shared.caller(&headers, peer, Does::Write)?;
    let removed = shared.keys.remove_account(&name, caller.actor.clone()).await;
    removed.map_err(|error| refused("Account", error))?;
    Ok(caller.gone())
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
