//! What browsers reach: the HTTPS port with its routes, and the accounts that are registered by it.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::auth::VaultCredentials;
use api::console::{AgentLine, Backstage, HungUp, Stage};
use api::{Api, ApiConfig, Guard, IceLogin, IceServer, Origin, Origins, Parts};
use arc_swap::ArcSwap;
use aws_lc_rs::hmac;
use base::{CallId, Clock, Event, Personal, Reason, Secret, WallTime, limit};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use policy::ACCOUNTS_HOST;
use sip::Uri;
use telemetry::Telemetry;
use thiserror::Error;
use transport::{OpenError, TransportHandle, expiry_of};
use vault::{AccessError, Reader, VaultHandle};

use crate::acme::Challenges;
use crate::agents::Agents;
use crate::boot::vault_config;
use crate::clock::{OsClock, OsRandom};
use crate::config::{self, Config};
use crate::front::Shards;
use crate::onlook::Onlookers;
use crate::shard::Input;

/// Why browsers are not served.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BrowsersError {
    /// An address cannot be listened at.
    #[error("cannot listen on {what} {address}: {source}")]
    Listen {
        /// `https` or `http`.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: OpenError,
    },
    /// An origin of the configuration is none.
    #[error("[browsers] origins: {0:?}: {1}")]
    Origin(String, api::NotAnOrigin),
    /// The password of a TURN server cannot be read.
    #[error("[browsers] ice_servers: {path}: {source}")]
    Credential {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A TURN server has a password and a shared secret.
    #[error("[browsers] ice_servers: {0}: credential_file or secret_file, not both")]
    TwoLogins(String),
    /// The name of this edge.
    #[error(transparent)]
    Api(#[from] api::ApiError),
    /// What has happened cannot be read.
    #[error("the store: {0}")]
    Read(#[from] vault::ReadError),
    /// The first key cannot be kept.
    #[error("the first API key: {0}")]
    FirstKey(#[from] AccessError),
}

/// The voice agents that the console offers; a reload replaces them.
type Offered = Arc<ArcSwap<Vec<AgentLine>>>;

/// What the routes stand on.
#[derive(Clone, Copy)]
pub struct Ground<'a> {
    /// What the operator decides.
    pub config: &'a Config,
    /// Signalling.
    pub transport: &'a TransportHandle,
    /// Keys, and what has happened.
    pub vault: &'a VaultHandle,
    /// Events.
    pub telemetry: &'a Arc<Telemetry>,
    /// Who owns calls.
    pub shards: &'a Shards,
    /// Answers to an authority's challenges.
    pub challenges: &'a Challenges,
}

/// The routes for browsers, which serve from [`Browsers::listen`] on.
pub struct Browsers {
    api: Api,
    onlookers: Onlookers,
    agents: Offered,
    first_key: Option<Secret<String>>,
    https: Vec<SocketAddr>,
    http: Vec<SocketAddr>,
}

impl Browsers {
    /// Makes the routes, and the workspace's first key where it has none.
    ///
    /// # Errors
    /// Where the configuration cannot be used.
    pub async fn prepare(ground: Ground<'_>) -> Result<Self, BrowsersError> {
        let Ground { config, transport, vault, .. } = ground;
        let (keys, challenges) = (vault.keys(), ground.challenges.clone());
        let first_key = keys.first_key().await?.map(|made| made.secret);
        let telemetry = Arc::clone(ground.telemetry);
        let events: api::Events = Arc::new(move |event: Event| telemetry.emit(&event));
        let clock: api::SharedClock = Arc::new(OsClock);
        let credentials = Arc::new(VaultCredentials::new(keys.clone()));
        let guard = Arc::new(Guard::new(credentials, Arc::clone(&clock), Arc::clone(&events)));
        let onlookers = Onlookers::default();
        let agents = Offered::default();
        let ice_servers = ice_servers(config)?;
        let stage = Stage {
            guard: Arc::clone(&guard),
            keys: keys.clone(),
            backstage: Arc::new(Behind::new(ground, onlookers.clone(), Arc::clone(&agents))),
            ice_servers: ice_servers.clone(),
            live: onlookers.live(),
            reader: Reader::open(&vault_config(config)).await?,
            vault: vault.clone(),
            random: Box::new(OsRandom),
        };
        let pages = api::keys::routes(Arc::clone(&guard), keys).merge(api::console::routes(stage));
        let parts = Parts {
            transport: transport.clone(),
            guard,
            clock,
            random: Box::new(OsRandom),
            events,
            pages,
            challenges: Arc::new(move |token: &str| challenges.answer(token)),
        };
        let api = Api::new(api_config(config, ice_servers)?, parts)?;
        Ok(Self { api, onlookers, agents, first_key, https: Vec::new(), http: Vec::new() })
    }

    /// Who tells pages of calls.
    #[must_use]
    pub fn onlookers(&self) -> Onlookers {
        self.onlookers.clone()
    }

    /// Offers these voice agents from now on.
    pub fn offer(&self, agents: &Agents) {
        let line = |(name, flow): (&String, &Arc<agent::Flow>)| AgentLine {
            name: name.clone(),
            description: flow.description.clone(),
        };
        self.agents.store(Arc::new(agents.iter().map(line).collect()));
    }

    /// Begins to serve.
    ///
    /// # Errors
    /// Where an address cannot be bound.
    pub fn listen(&mut self, config: &Config) -> Result<(), BrowsersError> {
        let failed = |what, address| move |source| BrowsersError::Listen { what, address, source };
        for address in config.listen.https.iter().copied() {
            self.https.push(self.api.listen(address).map_err(failed("https", address))?);
        }
        for address in config.listen.http.iter().copied() {
            let bound = self.api.listen_plaintext(address).map_err(failed("http", address))?;
            self.http.push(bound);
        }
        Ok(())
    }

    /// Where HTTPS is served.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    /// The key that was made with this start, which nobody can show again.
    #[must_use]
    pub const fn first_key(&self) -> Option<&Secret<String>> {
        self.first_key.as_ref()
    }

    /// The ways to accounts.
    #[must_use]
    pub fn accounts(&self) -> Accounts {
        Accounts(self.api.registrar())
    }

    /// Hangs up what browsers talk about and closes their connections.
    pub async fn drain(&self, patience: Duration) {
        self.onlookers.live().close();
        self.api.drain(patience).await;
    }
}

/// What the console asks the edge.
struct Behind {
    agents: Offered,
    shards: Shards,
    onlookers: Onlookers,
    authority: Option<String>,
}

impl Behind {
    fn new(ground: Ground<'_>, onlookers: Onlookers, agents: Offered) -> Self {
        let file = &ground.config.tls.certificate;
        let is_ours = expiry_of(file).is_ok_and(|it| it.is_development);
        let authority = is_ours.then(|| file.with_file_name("ca.pem").display().to_string());
        Self { agents, shards: Arc::clone(ground.shards), onlookers, authority }
    }
}

impl Backstage for Behind {
    fn agents(&self) -> Vec<AgentLine> {
        self.agents.load().to_vec()
    }

    fn quality(&self, call: CallId) -> Option<Personal<String>> {
        self.onlookers.curves().present(call).map(Personal::new)
    }

    fn hang_up(&self, call: CallId) -> HungUp {
        let shard = self.onlookers.shard_of(call).and_then(|shard| self.shards.get(shard)).cloned();
        Box::pin(async move {
            let Some(shard) = shard else { return false };
            let input = call::Input::HangUp { call, reason: Reason::OperatorHungUp };
            shard.send(Input::Call(input)).await.is_ok()
        })
    }

    fn development_authority(&self) -> Option<String> {
        self.authority.clone()
    }
}

/// The accounts that are registered.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<api::Registrar>);

/// A way to an account: its flow, and what its INVITE is addressed to.
#[derive(Clone, Debug)]
pub struct Way {
    /// The WebSocket.
    pub flow: Arc<transport::Flow>,
    /// The Contact that its client registered.
    pub contact: Personal<String>,
}

impl Accounts {
    /// Registered addresses of all accounts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// The ways to the account that a SIP URI names, the newest first; where it is a Contact that
    /// was registered, the way to that client alone.
    #[must_use]
    pub fn ways_of(&self, uri: &str) -> Vec<Way> {
        let Ok(uri) = Uri::parse(uri) else { return Vec::new() };
        let is_account = uri.host().is_some_and(|host| host.to_string() == ACCOUNTS_HOST);
        let found = match (is_account, uri.user_unescaped()) {
            (true, Some(account)) => self.0.lookup(&account, OsClock.now()),
            (true, None) => Vec::new(),
            (false, _) => self.0.lookup_contact(&uri, OsClock.now()),
        };
        let way = |it: api::Binding| Way {
            flow: it.flow,
            contact: Personal::new(it.contact.as_str().to_owned()),
        };
        found.into_iter().map(way).collect()
    }
}

fn api_config(config: &Config, ice_servers: Vec<IceServer>) -> Result<ApiConfig, BrowsersError> {
    let first = config.listen.https.first();
    let host = match (config.advertise.host.as_str(), first) {
        ("", Some(address)) if !address.ip().is_unspecified() => match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            SocketAddr::V6(address) => format!("[{}]", address.ip()),
        },
        ("", _) => "localhost".to_owned(),
        (named, _) => named.to_owned(),
    };
    let origins = config.browsers.origins.iter().map(|text| {
        Origin::parse(text).map_err(|error| BrowsersError::Origin(text.clone(), error))
    });
    Ok(ApiConfig {
        host,
        https_port: first.map_or(443, SocketAddr::port),
        origins: origins.collect::<Result<Origins, _>>()?,
        ice_servers,
    })
}

fn ice_servers(config: &Config) -> Result<Vec<IceServer>, BrowsersError> {
    config.browsers.ice_servers.iter().map(ice_server).collect()
}

fn ice_server(from: &config::IceServer) -> Result<IceServer, BrowsersError> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path)
            .map(|text| Secret::new(text.trim_end().to_owned()))
            .map_err(|source| BrowsersError::Credential { path: path.clone(), source })
    };
    let (fixed, shared) = (&from.credential_file, &from.secret_file);
    let login = match (fixed.as_os_str().is_empty(), shared.as_os_str().is_empty()) {
        (true, true) => None,
        (false, true) => {
            let (user, password) = (from.username.clone(), read(fixed)?);
            Some(IceLogin::new(move |_| (user.clone(), password.clone())))
        }
        (true, false) => {
            let (name, secret) = (from.username.clone(), read(shared)?);
            Some(IceLogin::new(move |now| minted(&name, &secret, now)))
        }
        (false, false) => return Err(BrowsersError::TwoLogins(from.url.clone())),
    };
    Ok(IceServer { url: from.url.clone(), login })
}

/// A login that ends by itself, as TURN servers make them out with whom they share a secret
/// (draft-uberti-behave-turn-rest, `use-auth-secret` of coturn): until when and for whom, and the
/// HMAC-SHA1 of that.
fn minted(name: &str, secret: &Secret<String>, now: WallTime) -> (String, Secret<String>) {
    let until = (now + limit::API_ICE_LOGIN_MS.millis()).unix_millis() / 1_000;
    let user = if name.is_empty() { until.to_string() } else { format!("{until}:{name}") };
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    let password = STANDARD.encode(hmac::sign(&key, user.as_bytes()));
    (user, Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_server_that_shares_a_secret_knows_the_login_by_itself() {
        let secret = Secret::new("north".to_owned());
        let now = WallTime::from_unix_millis(1_795_392_000_999);
        let (user, password) = minted("callgate", &secret, now);
        let until = 1_795_392_000 + limit::API_ICE_LOGIN_MS.value / 1_000;
        assert_eq!(user, format!("{until}:callgate"));
        // By another's hand: `printf %s USER | openssl dgst -sha1 -hmac north -binary`.
        assert_eq!(password.expose(), "Nts1ezvrHK1j5ifzW3/X6Kwf/o0=");
        assert_eq!(minted("", &secret, now).0, until.to_string());
    }

    #[test]
    fn a_server_has_one_login() {
        let url = "turn:turn.example".to_owned();
        let (username, file) = (String::new(), PathBuf::from("/nonexistent"));
        let server = |credential_file: &PathBuf, secret_file: &PathBuf| {
            let (url, username) = (url.clone(), username.clone());
            let (credential_file, secret_file) = (credential_file.clone(), secret_file.clone());
            ice_server(&config::IceServer { url, username, credential_file, secret_file })
        };
        let none = PathBuf::new();
        assert!(matches!(server(&file, &file), Err(BrowsersError::TwoLogins(_))));
        assert!(matches!(server(&none, &file), Err(BrowsersError::Credential { .. })));
        assert!(server(&none, &none).is_ok_and(|it| it.login.is_none()));
    }
}
