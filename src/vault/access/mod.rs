//! Who may come in: API keys, accounts of people with a password, and browser tokens.
//!
//! [`Keys`] answers from memory and never waits for the disk; what changes goes through the
//! writer's thread, in one transaction with its audit record, and counts only once it is there.
//!
//! **What is kept.** Of an API key a keyed hash: the key itself is shown once. Of an account the
//! hashes that digest needs (HA1, RFC 8760 section 2.6). Of a browser token what it allows: the
//! token is its id with a keyed hash of it, so nothing has to be kept to check it. All of it is
//! sealed under a key of the workspace's, at its place: a row of another id does not open.
//!
//! It does not count wrong tries: whoever takes requests does.

mod entry;
mod plan;
mod scope;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use base::id::ParseIdError;
use base::{Personal, Secret, WallTime, limit};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;
use thiserror::Error;
use tokio::sync::oneshot;

use crate::key::DataKey;
use crate::key::ring::Workspace;
use crate::queue::Op;
use crate::seal::SealError;
use crate::shared::Shared;
use crate::store::{self, StoreError};

pub(crate) use entry::{Entry, Held, Id};
pub(crate) use plan::{Done, Plan};
pub use scope::{NotAScope, TokenScope};

/// What an API key begins with.
pub const KEY_PREFIX: &str = "sk_call2me_";
/// The realm of accounts: where a password is good, as digest says it to the client.
pub const REALM: &str = "callgate";
/// Characters of a key that stay readable, so that its owner finds it in a list.
const SHOWN: usize = KEY_PREFIX.len() + 4;
/// How long a browser token holds where nothing is said, in seconds.
pub const TOKEN_SECONDS: u64 = 3_600;
/// Requests per minute of a key where nothing is said, and at most.
pub const KEY_RATE: (u32, u32) = (1_000, 10_000);
/// How old the noted last use becomes before it is written anew.
const USE_NOTED: Duration = Duration::from_secs(3_600);

/// Names a kind of 64 random bits.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) [u8; 8]);

        impl $name {
            pub(crate) fn random() -> Result<Self, SealError> {
                Ok(Self(random()?))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let mut bytes = [0; 8];
                let digits = text.strip_prefix($prefix).ok_or(ParseIdError)?;
                if digits.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    return Err(ParseIdError);
                }
                hex::decode_to_slice(digits, &mut bytes).map_err(|_| ParseIdError)?;
                Ok(Self(bytes))
            }
        }
    )* };
}

ids! {
    /// An API key, without its secret. `Display` is `key_` and 16 hex digits.
    KeyId "key_";
    /// A browser token, without its secret. `Display` is `bt_` and 16 hex digits.
    TokenId "bt_";
}

/// An API key as it may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// What its owner calls it.
    pub name: String,
    /// How the key begins.
    pub prefix: String,
    /// Whether it may only look.
    pub read_only: bool,
    /// Requests per minute that it may make.
    pub rate_limit: u32,
    /// When it was made.
    pub created: WallTime,
    /// When it ends by itself.
    pub expires: Option<WallTime>,
    /// When it was last used, to the hour.
    pub last_used: Option<WallTime>,
    /// When it was revoked.
    pub revoked: Option<WallTime>,
}

impl ApiKey {
    /// Whether it opens anything at `now`.
    #[must_use]
    pub fn is_active(&self, now: WallTime) -> bool {
        self.revoked.is_none() && self.expires.is_none_or(|end| now < end)
    }
}

/// A key to be made.
#[derive(Clone, Debug)]
pub struct KeyTerms {
    /// What its owner calls it: 1 to 100 characters (limit `vault.access_name`).
    pub name: String,
    /// Whether it may only look.
    pub read_only: bool,
    /// Requests per minute, 1 to 10,000.
    pub rate_limit: u32,
    /// When it ends by itself.
    pub expires: Option<WallTime>,
}

impl KeyTerms {
    /// A key of this name that may do everything and does not end.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), read_only: false, rate_limit: KEY_RATE.0, expires: None }
    }
}

/// A key that has just been made.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// As it is from now on.
    pub key: ApiKey,
    /// The key itself; nobody can show it again.
    pub secret: Secret<String>,
}

/// A person who signs in with a password, by SIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The name, which is also the user of the SIP address.
    pub name: Personal<String>,
    /// What the person is called; `None` where nothing was said.
    pub display: Option<Personal<String>>,
    /// The number or user that others than browsers see of the person.
    pub caller: Option<Personal<String>>,
    /// Whether it signs in by MD5, which is all that SIP.js and JsSIP know, or by SHA-256 alone.
    pub takes_md5: bool,
    /// The realm that its password is for.
    pub realm: String,
    /// When it was made.
    pub created: WallTime,
    /// When its password was last set.
    pub changed: WallTime,
    /// When it last signed in, to the hour.
    pub last_used: Option<WallTime>,
}

/// What digest answers of an account are checked against (RFC 8760 section 2.6), in lower-case
/// hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashes {
    /// MD5 of `user:realm:password`; `None` where it is not taken, and not kept either.
    pub md5: Option<Secret<String>>,
    /// SHA-256 of the same.
    pub sha256: Secret<String>,
}

impl Hashes {
    /// The hashes of a password.
    #[must_use]
    pub fn of(user: &str, realm: &str, password: &str) -> Self {
        let text = zeroize::Zeroizing::new(format!("{user}:{realm}:{password}"));
        let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        let password = Secret::new(password.to_owned());
        Self {
            md5: Some(sip::digest::server::md5_key(user, realm, &password)),
            sha256: Secret::new(hex::encode(sha256.as_ref())),
        }
    }
}

/// What a browser token allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its id.
    pub id: TokenId,
    /// The only address it may call, `None` for whatever policy allows.
    pub called: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<TokenScope>,
    /// The only origin (RFC 6454) that may use it; `None` for those of the configuration.
    pub origin: Option<String>,
    /// What the caller is called.
    pub name: Option<Personal<String>>,
    /// The number or user that others see of the caller.
    pub caller: Option<Personal<String>>,
    /// When it was made.
    pub created: WallTime,
    /// When it ends.
    pub expires: WallTime,
    /// What it has opened, which it stays good for.
    pub used: Option<TokenUse>,
}

/// What a browser token has opened: the only thing that it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// A WHIP session.
    Whip,
    /// A registration by SIP over WebSocket, on one connection after the other.
    Sip,
}

/// A token to be made.
#[derive(Clone, Debug, Default)]
pub struct TokenTerms {
    /// See [`Token::called`].
    pub called: Option<String>,
    /// See [`Token::scopes`]; all of them where nothing is said of a token that may call one
    /// address only. One that may call any has to be told.
    pub scopes: Option<BTreeSet<TokenScope>>,
    /// See [`Token::origin`].
    pub origin: Option<String>,
    /// See [`Token::name`].
    pub name: Option<Personal<String>>,
    /// See [`Token::caller`]: see [`base::is_caller`].
    pub caller: Option<Personal<String>>,
    /// How long it holds, at most limit `vault.token_ms`; an hour where nothing is said.
    pub lasts: Option<Duration>,
}

/// A token that has just been made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// As it is from now on.
    pub token: Token,
    /// The token itself: for `Authorization: Bearer`, and the digest password of its id.
    pub secret: Secret<String>,
}

/// Why nothing was changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A value is not allowed.
    #[error("{field}: {why}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// There is no such key, account or token.
    #[error("there is no such key, account or token")]
    Unknown,
    /// Only a revoked key is deleted.
    #[error("the key is in use: revoke it first")]
    InUse,
    /// There are as many as there may be.
    #[error("there are as many as there may be (limit {0})")]
    TooMany(&'static str),
    /// The vault's queue is full, or the vault is closed.
    #[error("the vault's queue is full")]
    Full,
    /// The database failed, or the system has no randomness.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<SealError> for AccessError {
    fn from(error: SealError) -> Self {
        Self::Store(error.into())
    }
}

/// What is to be changed; the writer's thread does it.
pub(crate) enum Change {
    FirstKey,
    CreateKey(KeyTerms),
    RevokeKey(KeyId),
    DeleteKey(KeyId),
    SetAccount {
        name: String,
        realm: String,
        hashes: Hashes,
    },
    /// How a person is shown; `None` stays, an empty text is nothing.
    PresentAccount {
        name: String,
        display: Option<String>,
        caller: Option<String>,
    },
    ForgetMd5(String),
    RemoveAccount(String),
    CreateToken(TokenTerms),
    RevokeToken(TokenId),
    /// Something was used; whether for the first time.
    Used {
        what: Id,
        first: bool,
    },
}

/// The keys that everything here is made and checked with.
pub(crate) struct Locks {
    hash: DataKey,
    token: DataKey,
    name: DataKey,
    seal: DataKey,
}

impl Locks {
    pub(crate) fn new(workspace: &Workspace) -> Self {
        let key = workspace.access_key();
        Self {
            hash: key.derive("callgate 2026 vault access api key hash v1"),
            token: key.derive("callgate 2026 vault access browser token v1"),
            name: key.derive("callgate 2026 vault access account name v1"),
            seal: key.derive("callgate 2026 vault access sealing v1"),
        }
    }

    fn key_hash(&self, secret: &str) -> [u8; 32] {
        *blake3::keyed_hash(self.hash.expose(), secret.as_bytes()).as_bytes()
    }

    fn account(&self, name: &str) -> [u8; 16] {
        let hash = blake3::keyed_hash(self.name.expose(), name.as_bytes());
        let mut index = [0; 16];
        index.copy_from_slice(&hash.as_bytes()[..16]);
        index
    }

    /// The token of an id.
    fn token(&self, id: TokenId) -> Secret<String> {
        let mac = blake3::keyed_hash(self.token.expose(), &id.0);
        Secret::new(format!("{id}.{}", BASE64.encode(mac.as_bytes())))
    }
}

/// Reads all that is kept, and how many rows of it do not open.
pub(crate) async fn load(
    connection: &mut SqliteConnection,
    workspace: &Workspace,
) -> Result<(Held, usize), StoreError> {
    let locks = Locks::new(workspace);
    let rows = store::access::rows(connection, workspace.name().as_str()).await?;
    let mut held = Held { had_key: rows.iter().any(|row| row.kind == "key"), ..Held::default() };
    let mut damaged = 0;
    for row in rows {
        match entry::unseal(&locks, &row) {
            Some((id, entry)) => held.put(id, entry),
            None => damaged += 1,
        }
    }
    Ok((held, damaged))
}

struct Inner {
    shared: Arc<Shared>,
    locks: Locks,
    held: RwLock<Held>,
}

/// API keys, accounts and browser tokens of a vault; clones are the same.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held();
        f.debug_struct("Keys")
            .field("keys", &held.keys.len())
            .field("accounts", &held.accounts.len())
            .field("tokens", &held.tokens.len())
            .finish()
    }
}

impl Keys {
    pub(crate) fn new(shared: Arc<Shared>, workspace: &Workspace, held: Held) -> Self {
        Self(Arc::new(Inner { shared, locks: Locks::new(workspace), held: RwLock::new(held) }))
    }

    fn held(&self) -> RwLockReadGuard<'_, Held> {
        self.0.held.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API key that `secret` is, where it holds at `now`.
    #[must_use]
    pub fn key(&self, secret: &str, now: WallTime) -> Option<ApiKey> {
        if !secret.starts_with(KEY_PREFIX) {
            return None;
        }
        let hash = self.0.locks.key_hash(secret);
        let found = {
            let held = self.held();
            // All of them are compared, in the same time whichever it is.
            let same = held.keys.iter().fold(None, |found, (id, entry)| {
                if is_same(&entry.hash, &hash) { Some((id, entry)) } else { found }
            });
            same.map(|(id, entry)| entry.shown(*id))
        }?;
        if !found.is_active(now) {
            return None;
        }
        self.note_use(Id::Key(found.id), found.last_used, now);
        Some(found)
    }

    /// The browser token that `secret` is, where it holds at `now`.
    #[must_use]
    pub fn token(&self, secret: &str, now: WallTime) -> Option<Token> {
        let (id, _) = secret.split_once('.')?;
        let id = id.parse().ok()?;
        let right = self.0.locks.token(id);
        if !is_same(right.expose().as_bytes(), secret.as_bytes()) {
            return None;
        }
        let (token, _) = self.token_by_id(id, now)?;
        self.token_used(id, now);
        Some(token)
    }

    /// A token by its id where it holds at `now`, and what its bearer has to know. Nothing is
    /// noted: only who knows that uses the token, see [`Keys::token_used`].
    #[must_use]
    pub fn token_by_id(&self, id: TokenId, now: WallTime) -> Option<(Token, Secret<String>)> {
        let held = self.held();
        let entry = held.tokens.get(&id).filter(|entry| now < entry.expires())?;
        Some((entry.shown(id), self.0.locks.token(id)))
    }

    /// Notes that somebody has come in with a token.
    pub fn token_used(&self, id: TokenId, now: WallTime) {
        let last_used = match self.held().tokens.get(&id) {
            Some(entry) => entry.last_used(),
            None => return,
        };
        self.note_use(Id::Token(id), last_used, now);
    }

    /// Notes what a token has opened: at once for whoever looks at it, and soon on the disk.
    /// `false` where that is not going to be: there is no such token, or the queue is full.
    pub fn token_opened(&self, id: TokenId, used: TokenUse, now: WallTime) -> bool {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(entry) = held.tokens.get_mut(&id) else { return false };
        entry.used = Some(used);
        // The row is made of what is in memory then.
        let change = Change::Used { what: Id::Token(id), first: false };
        let actor = "edge".to_owned();
        let op = Op::Access { change: Box::new(change), actor, wall: now, done: None };
        self.0.shared.queue.push(op).is_ok()
    }

    /// The API key of this id, as it stands.
    #[must_use]
    pub fn key_by_id(&self, id: KeyId) -> Option<ApiKey> {
        self.held().keys.get(&id).map(|entry| entry.shown(id))
    }

    /// The account of this name, and what its answers are checked against. Nothing is noted: only
    /// a right answer is a use, see [`Keys::account_used`].
    #[must_use]
    pub fn account(&self, name: &str, realm: &str) -> Option<(Account, Hashes)> {
        let index = self.0.locks.account(name);
        let held = self.held();
        let entry = held.accounts.get(&index).filter(|entry| entry.realm == realm)?;
        Some((entry.shown(), entry.hashes.clone()))
    }

    /// Notes that somebody has signed in with an account.
    pub fn account_used(&self, name: &str, now: WallTime) {
        let index = self.0.locks.account(name);
        let last_used = match self.held().accounts.get(&index) {
            Some(entry) => entry.shown().last_used,
            None => return,
        };
        self.note_use(Id::Account(index), last_used, now);
    }

    fn note_use(&self, what: Id, last_used: Option<WallTime>, now: WallTime) {
        if last_used.is_some_and(|last| now < last + USE_NOTED) {
            return;
        }
        // Once for all who come at the same time: whoever changes it writes it.
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        let Some(noted) = held.last_used_mut(what) else { return };
        if noted.is_some_and(|last| now < last + USE_NOTED) {
            return;
        }
        let change = Change::Used { what, first: noted.is_none() };
        let actor = "edge".to_owned();
        let op = Op::Access { change: Box::new(change), actor, wall: now, done: None };
        // A full queue: the next use tries again.
        if self.0.shared.queue.push(op).is_ok() {
            *noted = Some(now);
        }
    }

    /// All API keys, the newest first; revoked ones too.
    #[must_use]
    pub fn keys(&self) -> Vec<ApiKey> {
        self.held().shown_keys()
    }

    /// All accounts, by name.
    #[must_use]
    pub fn accounts(&self) -> Vec<Account> {
        self.held().shown_accounts()
    }

    /// The browser tokens that hold at `now`, the newest first.
    #[must_use]
    pub fn tokens(&self, now: WallTime) -> Vec<Token> {
        self.held().shown_tokens(now)
    }

    /// Makes the workspace's first key, where there has never been one.
    ///
    /// # Errors
    /// The disk failed or is not asked.
    pub async fn first_key(&self) -> Result<Option<NewKey>, AccessError> {
        match self.change(Change::FirstKey, "edge".to_owned()).await? {
            Done::Key(new) => Ok(Some(new)),
            Done::Nothing | Done::Token(_) => Ok(None),
        }
    }

    /// Makes an API key; the audit log says that `actor` did it, see [`crate::AuditEntry::actor`].
    ///
    /// # Errors
    /// The terms are not allowed, there are too many keys, or the disk failed.
    pub async fn create_key(&self, terms: KeyTerms, actor: String) -> Result<NewKey, AccessError> {
        match self.change(Change::CreateKey(terms), actor).await? {
            Done::Key(new) => Ok(new),
            Done::Nothing | Done::Token(_) => Err(AccessError::Full),
        }
    }

    /// Revokes an API key; it opens nothing from now on. One that was revoked before stays so.
    ///
    /// # Errors
    /// There is no such key, or the disk failed.
    pub async fn revoke_key(&self, id: KeyId, actor: String) -> Result<(), AccessError> {
        self.change(Change::RevokeKey(id), actor).await.map(drop)
    }

    /// Forgets a revoked key.
    ///
    /// # Errors
    /// There is no such key, it is not revoked, or the disk failed.
    pub async fn delete_key(&self, id: KeyId, actor: String) -> Result<(), AccessError> {
        self.change(Change::DeleteKey(id), actor).await.map(drop)
    }

    /// Makes an account, or gives it this password; `None` makes one up. The password is returned
    /// and cannot be shown again.
    ///
    /// # Errors
    /// Name or password are not allowed, there are too many accounts, or the disk failed.
    pub async fn set_account(
        &self,
        name: &str,
        realm: &str,
        password: Option<Secret<String>>,
        actor: String,
    ) -> Result<Secret<String>, AccessError> {
        let password = match password {
            Some(password) => password,
            None => Secret::new(BASE64.encode(random::<18>()?)),
        };
        plan::check_account(name, &password)?;
        let hashes = Hashes::of(name, realm, password.expose());
        let (name, realm) = (name.to_owned(), realm.to_owned());
        self.change(Change::SetAccount { name, realm, hashes }, actor).await?;
        Ok(password)
    }

    /// Says how the person of an account is shown to whom it calls: `display` to all, `caller` to
    /// others than browsers. What is `None` stays as it is; an empty text takes it away.
    ///
    /// # Errors
    /// There is no such account, one of them is not allowed, or the disk failed.
    pub async fn present_account(
        &self,
        name: &str,
        display: Option<String>,
        caller: Option<String>,
        actor: String,
    ) -> Result<(), AccessError> {
        let change = Change::PresentAccount { name: name.to_owned(), display, caller };
        self.change(change, actor).await.map(drop)
    }

    /// Forgets the MD5 hash of an account's password: from now on it signs in by SHA-256 alone,
    /// also with its next password.
    ///
    /// # Errors
    /// There is no such account, or the disk failed.
    pub async fn forget_md5(&self, name: &str, actor: String) -> Result<(), AccessError> {
        self.change(Change::ForgetMd5(name.to_owned()), actor).await.map(drop)
    }

    /// Removes an account.
    ///
    /// # Errors
    /// There is no such account, or the disk failed.
    pub async fn remove_account(&self, name: &str, actor: String) -> Result<(), AccessError> {
        self.change(Change::RemoveAccount(name.to_owned()), actor).await.map(drop)
    }

    /// Makes a browser token.
    ///
    /// # Errors
    /// The terms are not allowed, there are too many tokens, or the disk failed.
    pub async fn create_token(
        &self,
        terms: TokenTerms,
        actor: String,
    ) -> Result<NewToken, AccessError> {
        match self.change(Change::CreateToken(terms), actor).await? {
            Done::Token(new) => Ok(new),
            Done::Nothing | Done::Key(_) => Err(AccessError::Full),
        }
    }

    /// Revokes a browser token.
    ///
    /// # Errors
    /// There is no such token, or the disk failed.
    pub async fn revoke_token(&self, id: TokenId, actor: String) -> Result<(), AccessError> {
        self.change(Change::RevokeToken(id), actor).await.map(drop)
    }

    /// Has the writer's thread do it; it is done also where whoever asked goes away.
    async fn change(&self, change: Change, actor: String) -> Result<Done, AccessError> {
        let (done, answer) = oneshot::channel();
        let wall = self.0.shared.clock.wall();
        let op = Op::Access { change: Box::new(change), actor, wall, done: Some(done) };
        self.0.shared.queue.push(op).map_err(|_| AccessError::Full)?;
        answer.await.unwrap_or(Err(AccessError::Full))
    }

    /// What a change comes to, for the writer's thread, which is the only one that changes things.
    pub(crate) fn plan(
        &self,
        change: &Change,
        actor: &str,
        wall: WallTime,
    ) -> Result<Plan, AccessError> {
        plan::plan(&self.0.locks, &self.held(), change, actor, wall)
    }

    /// The plan is on the disk.
    pub(crate) fn apply(&self, plan: Plan) -> Done {
        let mut held = self.0.held.write().unwrap_or_else(PoisonError::into_inner);
        for (id, entry) in plan.changes {
            match entry {
                Some(entry) => held.put(id, entry),
                None => held.remove(id),
            }
        }
        plan.done
    }
}

/// A hash of a random secret, for whoever keeps secrets of its own in memory only.
#[must_use]
pub fn fingerprint(secret: &str) -> [u8; 32] {
    blake3::derive_key("callgate 2026 fingerprint of a secret v1", secret.as_bytes())
}

/// As many random bytes as are asked for.
fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError)?;
    Ok(bytes)
}

/// In the same time whatever they are.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

/// The longest that a token may hold.
const fn token_longest() -> Duration {
    limit::VAULT_TOKEN_MS.millis()
}
