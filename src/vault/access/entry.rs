//! What is kept of a key, an account and a token, and its sealed form.

use std::collections::{BTreeMap, BTreeSet};

use base::{Personal, Secret, WallTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Account, ApiKey, Hashes, KeyId, Locks, Token, TokenId, TokenScope, TokenUse};
use crate::seal;
use crate::store::StoreError;
use crate::store::access::Row;

/// What is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Id {
    Key(KeyId),
    /// By the keyed hash of its name.
    Account([u8; 16]),
    Token(TokenId),
}

impl Id {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) => "key",
            Self::Account(_) => "account",
            Self::Token(_) => "token",
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Key(id) => &id.0,
            Self::Account(index) => index,
            Self::Token(id) => &id.0,
        }
    }

    fn read(kind: &str, bytes: &[u8]) -> Option<Self> {
        Some(match kind {
            "key" => Self::Key(KeyId(bytes.try_into().ok()?)),
            "account" => Self::Account(bytes.try_into().ok()?),
            "token" => Self::Token(TokenId(bytes.try_into().ok()?)),
            _ => return None,
        })
    }
}

/// One of them.
#[derive(Clone)]
pub(crate) enum Entry {
    Key(KeyEntry),
    Account(AccountEntry),
    Token(TokenEntry),
}

/// Times are milliseconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeyEntry {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) hash: [u8; 32],
    pub(super) read_only: bool,
    pub(super) rate_limit: u32,
    pub(super) created: u64,
    pub(super) expires: Option<u64>,
    #[serde(with = "moment")]
    pub(super) last_used: Option<WallTime>,
    pub(super) revoked: Option<u64>,
}

impl KeyEntry {
    pub(super) fn shown(&self, id: KeyId) -> ApiKey {
        ApiKey {
            id,
            name: self.name.clone(),
            prefix: self.prefix.clone(),
            read_only: self.read_only,
            rate_limit: self.rate_limit,
            created: WallTime::from_unix_millis(self.created),
            expires: self.expires.map(WallTime::from_unix_millis),
            last_used: self.last_used,
            revoked: self.revoked.map(WallTime::from_unix_millis),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AccountEntry {
    pub(super) name: String,
    /// Rows of before these were kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) display: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<String>,
    pub(super) realm: String,
    #[serde(with = "hashes")]
    pub(super) hashes: Hashes,
    pub(super) created: u64,
    pub(super) changed: u64,
    #[serde(with = "moment")]
    pub(super) last_used: Option<WallTime>,
}

impl AccountEntry {
    pub(super) const fn takes_md5(&self) -> bool {
        self.hashes.md5.is_some()
    }

    pub(super) fn shown(&self) -> Account {
        Account {
            name: Personal::new(self.name.clone()),
            display: self.display.clone().map(Personal::new),
            caller: self.caller.clone().map(Personal::new),
            takes_md5: self.takes_md5(),
            realm: self.realm.clone(),
            created: WallTime::from_unix_millis(self.created),
            changed: WallTime::from_unix_millis(self.changed),
            last_used: self.last_used,
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct TokenEntry {
    pub(super) called: Option<String>,
    #[serde(default = "TokenScope::of_old")]
    pub(super) scopes: BTreeSet<TokenScope>,
    pub(super) origin: Option<String>,
    pub(super) name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) caller: Option<String>,
    pub(super) created: u64,
    pub(super) expires: u64,
    #[serde(with = "moment")]
    pub(super) last_used: Option<WallTime>,
    /// Rows of before this was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used: Option<TokenUse>,
}

impl TokenEntry {
    pub(super) const fn expires(&self) -> WallTime {
        WallTime::from_unix_millis(self.expires)
    }

    pub(super) const fn last_used(&self) -> Option<WallTime> {
        self.last_used
    }

    pub(super) fn shown(&self, id: TokenId) -> Token {
        Token {
            id,
            called: self.called.clone(),
            scopes: self.scopes.clone(),
            origin: self.origin.clone(),
            name: self.name.clone().map(Personal::new),
            caller: self.caller.clone().map(Personal::new),
            created: WallTime::from_unix_millis(self.created),
            expires: self.expires(),
            used: self.used,
        }
    }
}

/// Everything, in memory.
#[derive(Default)]
pub(crate) struct Held {
    pub(super) keys: BTreeMap<KeyId, KeyEntry>,
    pub(super) accounts: BTreeMap<[u8; 16], AccountEntry>,
    pub(super) tokens: BTreeMap<TokenId, TokenEntry>,
    /// Whether there has ever been an API key.
    pub(super) had_key: bool,
}

impl Held {
    pub(super) fn put(&mut self, id: Id, entry: Entry) {
        match (id, entry) {
            (Id::Key(id), Entry::Key(entry)) => {
                self.had_key = true;
                self.keys.insert(id, entry);
            }
            (Id::Account(index), Entry::Account(entry)) => {
                self.accounts.insert(index, entry);
            }
            (Id::Token(id), Entry::Token(entry)) => {
                self.tokens.insert(id, entry);
            }
            // An id and what it stands for are made together.
            _ => {}
        }
    }

    pub(super) fn remove(&mut self, id: Id) {
        match id {
            Id::Key(id) => drop(self.keys.remove(&id)),
            Id::Account(index) => drop(self.accounts.remove(&index)),
            Id::Token(id) => drop(self.tokens.remove(&id)),
        }
    }

    pub(super) fn entry(&self, id: Id) -> Option<Entry> {
        match id {
            Id::Key(id) => self.keys.get(&id).cloned().map(Entry::Key),
            Id::Account(index) => self.accounts.get(&index).cloned().map(Entry::Account),
            Id::Token(id) => self.tokens.get(&id).cloned().map(Entry::Token),
        }
    }

    pub(super) fn last_used_mut(&mut self, id: Id) -> Option<&mut Option<WallTime>> {
        match id {
            Id::Key(id) => self.keys.get_mut(&id).map(|entry| &mut entry.last_used),
            Id::Account(index) => self.accounts.get_mut(&index).map(|entry| &mut entry.last_used),
            Id::Token(id) => self.tokens.get_mut(&id).map(|entry| &mut entry.last_used),
        }
    }

    /// The newest first.
    pub(crate) fn shown_keys(&self) -> Vec<ApiKey> {
        let mut keys: Vec<_> = self.keys.iter().map(|(id, entry)| entry.shown(*id)).collect();
        keys.sort_by_key(|key| (std::cmp::Reverse(key.created), key.id));
        keys
    }

    /// By name.
    pub(crate) fn shown_accounts(&self) -> Vec<Account> {
        let mut accounts: Vec<_> = self.accounts.values().map(AccountEntry::shown).collect();
        accounts.sort_by(|one, other| one.name.cmp(&other.name));
        accounts
    }

    /// Those that hold, the newest first.
    pub(crate) fn shown_tokens(&self, now: WallTime) -> Vec<Token> {
        let held = self.tokens.iter().filter(|(_, entry)| now < entry.expires());
        let mut tokens: Vec<_> = held.map(|(id, entry)| entry.shown(*id)).collect();
        tokens.sort_by_key(|token| (std::cmp::Reverse(token.created), token.id));
        tokens
    }
}

fn context(id: &Id) -> [&[u8]; 3] {
    [b"access", id.kind().as_bytes(), id.bytes()]
}

/// An entry as stored.
pub(super) fn seal(locks: &Locks, id: Id, entry: &Entry) -> Result<Row, StoreError> {
    let plain = match entry {
        Entry::Key(entry) => serde_json::to_vec(entry),
        Entry::Account(entry) => serde_json::to_vec(entry),
        Entry::Token(entry) => serde_json::to_vec(entry),
    };
    let mut plain = Zeroizing::new(plain.map_err(|_| StoreError::Encode)?);
    let content = seal::seal(&locks.seal, &context(&id), &mut plain)?;
    Ok(Row { kind: id.kind().to_owned(), id: id.bytes().to_vec(), content })
}

/// An entry as read; `None` where it does not open.
pub(super) fn unseal(locks: &Locks, row: &Row) -> Option<(Id, Entry)> {
    let id = Id::read(&row.kind, &row.id)?;
    let plain = seal::unseal(&locks.seal, &context(&id), &row.content).ok()?;
    let entry = match id {
        Id::Key(_) => Entry::Key(serde_json::from_slice(&plain).ok()?),
        Id::Account(_) => Entry::Account(serde_json::from_slice(&plain).ok()?),
        Id::Token(_) => Entry::Token(serde_json::from_slice(&plain).ok()?),
    };
    Some((id, entry))
}

/// Times as numbers.
mod moment {
    use super::{Deserialize, Deserializer, Serialize, Serializer, WallTime};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<WallTime>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(WallTime::unix_millis).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<WallTime>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(WallTime::from_unix_millis))
    }
}

/// Hashes in a sealed row.
mod hashes {
    use super::{Deserialize, Deserializer, Hashes, Secret, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(hashes: &Hashes, to: S) -> Result<S::Ok, S::Error> {
        (hashes.md5.as_ref().map(Secret::expose), hashes.sha256.expose()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Hashes, D::Error> {
        let (md5, sha256) = <(Option<String>, String)>::deserialize(from)?;
        Ok(Hashes { md5: md5.map(Secret::new), sha256: Secret::new(sha256) })
    }
}
