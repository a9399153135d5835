//! What a change comes to: rows, an audit record and an answer. Decided by the writer's thread
//! from what is in memory, which only it changes.

use std::collections::BTreeSet;

use base::{Personal, Secret, WallTime, limit};
use base64::Engine as _;

use super::entry::{self, AccountEntry, KeyEntry, TokenEntry};
use super::{
    AccessError, BASE64, Change, Entry, Held, Id, KEY_PREFIX, KEY_RATE, KeyId, KeyTerms, Locks,
    NewKey, NewToken, SHOWN, TOKEN_SECONDS, TokenId, TokenScope, TokenTerms, random, token_longest,
};
use crate::audit::{AuditDetails, AuditEntry};
use crate::store::access::Row;

/// The shortest password that a person may choose.
const PASSWORD_SHORTEST: usize = 12;

/// What the writer's thread is to write, and to say when it is written.
pub(crate) struct Plan {
    /// Rows to write; those without content go.
    pub(crate) rows: Vec<Row>,
    /// The same for memory; `None` goes.
    pub(crate) changes: Vec<(Id, Option<Entry>)>,
    /// What the audit log is told, where anything is done.
    pub(crate) audit: Vec<AuditEntry>,
    /// The answer.
    pub(crate) done: Done,
}

/// What became of a change.
pub(crate) enum Done {
    Nothing,
    Key(NewKey),
    Token(NewToken),
}

impl Plan {
    const fn nothing() -> Self {
        Self { rows: Vec::new(), changes: Vec::new(), audit: Vec::new(), done: Done::Nothing }
    }

    fn put(&mut self, locks: &Locks, id: Id, entry: Entry) -> Result<(), AccessError> {
        self.rows.push(entry::seal(locks, id, &entry)?);
        self.changes.push((id, Some(entry)));
        Ok(())
    }

    fn remove(&mut self, id: Id) {
        self.rows.push(Row {
            kind: id.kind().to_owned(),
            id: id.bytes().to_vec(),
            content: Vec::new(),
        });
        self.changes.push((id, None));
    }

    fn told(mut self, kind: &'static str, actor: &str, details: AuditDetails) -> Self {
        self.audit.push(AuditEntry { kind, actor: actor.to_owned(), call: None, details });
        self
    }
}

pub(super) fn plan(
    locks: &Locks,
    held: &Held,
    change: &Change,
    actor: &str,
    wall: WallTime,
) -> Result<Plan, AccessError> {
    match change {
        Change::FirstKey if held.had_key => Ok(Plan::nothing()),
        Change::FirstKey => create_key(locks, held, &KeyTerms::named("workspace"), actor, wall),
        Change::CreateKey(terms) => create_key(locks, held, terms, actor, wall),
        Change::RevokeKey(id) => revoke_key(locks, held, *id, actor, wall),
        Change::DeleteKey(id) => {
            let entry = held.keys.get(id).ok_or(AccessError::Unknown)?;
            if entry.revoked.is_none() {
                return Err(AccessError::InUse);
            }
            let mut plan = Plan::nothing();
            plan.remove(Id::Key(*id));
            Ok(plan.told("key.deleted", actor, AuditDetails::Plain(id.to_string())))
        }
        Change::SetAccount { name, realm, hashes } => {
            let index = locks.account(name);
            let known = held.accounts.get(&index);
            if known.is_none() && held.accounts.len() >= limit::VAULT_ACCOUNTS.get() {
                return Err(AccessError::TooMany(limit::VAULT_ACCOUNTS.name));
            }
            let mut hashes = hashes.clone();
            hashes.md5 = hashes.md5.filter(|_| known.is_none_or(AccountEntry::takes_md5));
            let entry = AccountEntry {
                name: name.clone(),
                display: known.and_then(|known| known.display.clone()),
                caller: known.and_then(|known| known.caller.clone()),
                realm: realm.clone(),
                hashes,
                created: known.map_or(wall.unix_millis(), |known| known.created),
                changed: wall.unix_millis(),
                last_used: known.and_then(|known| known.last_used),
            };
            let mut plan = Plan::nothing();
            plan.put(locks, Id::Account(index), Entry::Account(entry))?;
            Ok(plan.told("account.set", actor, sealed(name)))
        }
        Change::PresentAccount { name, display, caller } => {
            present_account(locks, held, name, (display.as_deref(), caller.as_deref()), actor)
        }
        Change::ForgetMd5(name) => forget_md5(locks, held, name, actor),
        Change::RemoveAccount(name) => {
            let index = locks.account(name);
            held.accounts.get(&index).ok_or(AccessError::Unknown)?;
            let mut plan = Plan::nothing();
            plan.remove(Id::Account(index));
            Ok(plan.told("account.removed", actor, sealed(name)))
        }
        Change::CreateToken(terms) => create_token(locks, held, terms, actor, wall),
        Change::RevokeToken(id) => {
            let known = held.tokens.get(id).filter(|entry| wall < entry.expires());
            known.ok_or(AccessError::Unknown)?;
            let mut plan = Plan::nothing();
            plan.remove(Id::Token(*id));
            Ok(plan.told("token.revoked", actor, AuditDetails::Plain(id.to_string())))
        }
        Change::Used { what, first } => used(locks, held, *what, *first),
    }
}

fn create_key(
    locks: &Locks,
    held: &Held,
    terms: &KeyTerms,
    actor: &str,
    wall: WallTime,
) -> Result<Plan, AccessError> {
    check_name("name", &terms.name)?;
    let invalid = |field, why| Err(AccessError::Invalid { field, why });
    if terms.rate_limit == 0 || terms.rate_limit > KEY_RATE.1 {
        return invalid("rate_limit", "must be between 1 and 10000");
    }
    if terms.expires.is_some_and(|end| end <= wall) {
        return invalid("expires_in_days", "must be in the future");
    }
    let mut plan = Plan::nothing();
    if held.keys.len() >= limit::VAULT_API_KEYS.get() {
        // What opens nothing any more makes room, the oldest first.
        let dead = held.keys.iter().filter(|(id, entry)| !entry.shown(**id).is_active(wall));
        let oldest = dead.min_by_key(|(_, entry)| entry.created);
        let (id, _) = oldest.ok_or(AccessError::TooMany(limit::VAULT_API_KEYS.name))?;
        plan.remove(Id::Key(*id));
        plan = plan.told("key.deleted", "edge", AuditDetails::Plain(id.to_string()));
    }
    let id = KeyId::random()?;
    let secret = Secret::new(format!("{KEY_PREFIX}{}", BASE64.encode(random::<32>()?)));
    let entry = KeyEntry {
        name: terms.name.clone(),
        prefix: secret.expose().chars().take(SHOWN).collect(),
        hash: locks.key_hash(secret.expose()),
        read_only: terms.read_only,
        rate_limit: terms.rate_limit,
        created: wall.unix_millis(),
        expires: terms.expires.map(WallTime::unix_millis),
        last_used: None,
        revoked: None,
    };
    let key = entry.shown(id);
    plan.put(locks, Id::Key(id), Entry::Key(entry))?;
    plan.done = Done::Key(NewKey { key, secret });
    let details = format!("{id} read_only={}", terms.read_only);
    Ok(plan.told("key.created", actor, AuditDetails::Plain(details)))
}

fn revoke_key(
    locks: &Locks,
    held: &Held,
    id: KeyId,
    actor: &str,
    wall: WallTime,
) -> Result<Plan, AccessError> {
    let entry = held.keys.get(&id).ok_or(AccessError::Unknown)?;
    if entry.revoked.is_some() {
        return Ok(Plan::nothing());
    }
    let revoked = KeyEntry { revoked: Some(wall.unix_millis()), ..entry.clone() };
    let mut plan = Plan::nothing();
    plan.put(locks, Id::Key(id), Entry::Key(revoked))?;
    Ok(plan.told("key.revoked", actor, AuditDetails::Plain(id.to_string())))
}

fn forget_md5(locks: &Locks, held: &Held, name: &str, actor: &str) -> Result<Plan, AccessError> {
    let index = locks.account(name);
    let mut entry = held.accounts.get(&index).ok_or(AccessError::Unknown)?.clone();
    entry.hashes.md5 = None;
    let mut plan = Plan::nothing();
    plan.put(locks, Id::Account(index), Entry::Account(entry))?;
    Ok(plan.told("account.strengthened", actor, sealed(name)))
}

fn present_account(
    locks: &Locks,
    held: &Held,
    name: &str,
    (display, caller): (Option<&str>, Option<&str>),
    actor: &str,
) -> Result<Plan, AccessError> {
    let index = locks.account(name);
    let known = held.accounts.get(&index).ok_or(AccessError::Unknown)?;
    let is_said = |text: &&str| !text.is_empty();
    display.filter(is_said).map_or(Ok(()), |display| check_name("display", display))?;
    check_caller(caller.filter(is_said))?;
    let said = |text: Option<&str>, known: &Option<String>| match text {
        Some(text) => Some(text.to_owned()).filter(|text| !text.is_empty()),
        None => known.clone(),
    };
    let entry = AccountEntry {
        display: said(display, &known.display),
        caller: said(caller, &known.caller),
        ..known.clone()
    };
    let mut plan = Plan::nothing();
    plan.put(locks, Id::Account(index), Entry::Account(entry))?;
    Ok(plan.told("account.presented", actor, sealed(name)))
}

fn create_token(
    locks: &Locks,
    held: &Held,
    terms: &TokenTerms,
    actor: &str,
    wall: WallTime,
) -> Result<Plan, AccessError> {
    let TokenTerms { called, scopes, origin, name, caller, lasts } = terms;
    for (field, value) in [("called", called.as_deref()), ("name", name.as_ref().map(text))] {
        value.map_or(Ok(()), |value| check_name(field, value))?;
    }
    check_caller(caller.as_ref().map(text))?;
    if origin.as_deref().is_some_and(|origin| !is_origin(origin)) {
        let why = "must be an origin such as https://example.com or https://example.com:8443";
        return Err(AccessError::Invalid { field: "origin", why });
    }
    let lasts = lasts.unwrap_or(std::time::Duration::from_secs(TOKEN_SECONDS));
    if lasts.is_zero() || lasts > token_longest() {
        let why = "must be between 1 and 86400 seconds";
        return Err(AccessError::Invalid { field: "expires_in", why });
    }
    let scopes = granted(scopes.as_ref(), called.as_deref())?;
    let mut plan = Plan::nothing();
    let expired = held.tokens.iter().filter(|(_, entry)| entry.expires() <= wall);
    // As many as go into one short transaction.
    let gone: Vec<TokenId> =
        expired.map(|(id, _)| *id).take(limit::VAULT_SWEEP_BATCH.get()).collect();
    if held.tokens.len() - gone.len() >= limit::VAULT_TOKENS.get() {
        return Err(AccessError::TooMany(limit::VAULT_TOKENS.name));
    }
    gone.into_iter().for_each(|id| plan.remove(Id::Token(id)));
    let id = TokenId::random()?;
    let entry = TokenEntry {
        called: called.clone(),
        scopes,
        origin: origin.clone(),
        name: name.as_ref().map(|name| name.expose().clone()),
        caller: caller.as_ref().map(|caller| caller.expose().clone()),
        created: wall.unix_millis(),
        expires: (wall + lasts).unix_millis(),
        last_used: None,
        used: None,
    };
    let token = entry.shown(id);
    let words: Vec<_> = token.scopes.iter().map(|scope| scope.word()).collect();
    let details = format!("{id} seconds={} scopes={}", lasts.as_secs(), words.join(","));
    plan.put(locks, Id::Token(id), Entry::Token(entry))?;
    plan.done = Done::Token(NewToken { token, secret: locks.token(id) });
    Ok(plan.told("token.created", actor, AuditDetails::Plain(details)))
}

/// What a token may do. Nothing is open to one of which nothing was said: neither whom it may call
/// nor what it may do.
fn granted(
    scopes: Option<&BTreeSet<TokenScope>>,
    called: Option<&str>,
) -> Result<BTreeSet<TokenScope>, AccessError> {
    let invalid = |why| Err(AccessError::Invalid { field: "scopes", why });
    match scopes {
        Some(scopes) if scopes.is_empty() => invalid("must name call, register or both"),
        Some(scopes) => Ok(scopes.clone()),
        None if called.is_some() => Ok(TokenScope::ALL.into()),
        None => invalid("must be given where called is not: call, register or both"),
    }
}

/// Writes when something was last used, and what for, which memory knows already.
fn used(locks: &Locks, held: &Held, what: Id, first: bool) -> Result<Plan, AccessError> {
    let mut plan = Plan::nothing();
    // It may be gone by now.
    let Some(entry) = held.entry(what) else { return Ok(plan) };
    let (kind, details) = match (&what, &entry) {
        (Id::Key(id), _) => ("key.used", AuditDetails::Plain(id.to_string())),
        (Id::Token(id), _) => ("token.used", AuditDetails::Plain(id.to_string())),
        (_, Entry::Account(account)) => ("account.used", sealed(&account.name)),
        _ => return Ok(plan),
    };
    // Memory stays as it is: it may know more by the time that this is on the disk.
    plan.rows.push(entry::seal(locks, what, &entry)?);
    Ok(if first { plan.told(kind, "edge", details) } else { plan })
}

/// A person's name stays readable to nobody but the workspace.
fn sealed(name: &str) -> AuditDetails {
    AuditDetails::Sealed(Personal::new(name.to_owned()))
}

fn text(name: &Personal<String>) -> &str {
    name.expose()
}

/// Who a caller is to others: an operator's word, and none of the caller's.
fn check_caller(caller: Option<&str>) -> Result<(), AccessError> {
    if caller.is_none_or(base::is_caller) {
        return Ok(());
    }
    let why = "must be a number such as +498912345678, or the user of a SIP address";
    Err(AccessError::Invalid { field: "caller", why })
}

fn check_name(field: &'static str, name: &str) -> Result<(), AccessError> {
    let length = name.chars().count();
    if length == 0 || length > limit::VAULT_ACCESS_NAME.get() {
        return Err(AccessError::Invalid { field, why: "must have 1 to 100 characters" });
    }
    if name.chars().any(char::is_control) {
        return Err(AccessError::Invalid { field, why: "must have no control characters" });
    }
    Ok(())
}

/// Checks what an account is to be called and its password. A name is the user of a SIP address,
/// and never looks like a token's.
pub(super) fn check_account(name: &str, password: &Secret<String>) -> Result<(), AccessError> {
    let is_allowed = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-' | '+')
    };
    if name.is_empty()
        || name.len() > limit::VAULT_ACCESS_NAME.get()
        || !name.chars().all(is_allowed)
    {
        let why = "must have 1 to 100 of a-z, 0-9, '.', '_', '-' and '+'";
        return Err(AccessError::Invalid { field: "name", why });
    }
    if name.starts_with("bt_") {
        let why = "must not begin like a browser token";
        return Err(AccessError::Invalid { field: "name", why });
    }
    let length = password.expose().chars().count();
    if length < PASSWORD_SHORTEST || password.expose().len() > limit::VAULT_PASSWORD_BYTES.get() {
        let why = "must have at least 12 characters and at most 256 bytes";
        return Err(AccessError::Invalid { field: "password", why });
    }
    if password.expose().chars().any(char::is_control) {
        let why = "must have no control characters";
        return Err(AccessError::Invalid { field: "password", why });
    }
    Ok(())
}

/// Scheme, host and perhaps a port, as browsers write it (RFC 6454 section 6.2); only a page that
/// came by HTTPS has a microphone.
fn is_origin(text: &str) -> bool {
    let is_allowed = |c: char| {
        c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | ':' | '[' | ']')
    };
    text.len() <= limit::API_ORIGIN_BYTES.get()
        && text
            .strip_prefix("https://")
            .is_some_and(|host| !host.is_empty() && host.chars().all(is_allowed))
        && !text.ends_with(":443")
}
