//! Who is there: API keys, browser tokens and accounts.

use std::collections::BTreeSet;
use std::sync::Arc;

use base::{Personal, WallTime};
use sip::{Host, NameAddr, Uri};

/// The realm of every challenge, which the passwords of accounts are hashed with.
pub use vault::access::REALM;
pub use vault::{Hashes, TokenScope, TokenUse};

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub enum Who {
    /// The holder of an API key of the workspace.
    Key {
        /// Its id, `key_` and 16 hexadecimal digits; no secret.
        id: String,
        /// Whether it may change things.
        can_write: bool,
    },
    /// The browser that holds a token.
    Token(Arc<BrowserToken>),
    /// A person with a password of the edge's own, by SIP over WSS.
    Account {
        /// The name, which is also the user of its SIP address.
        name: Personal<String>,
        /// What the person is called.
        display: Option<Personal<String>>,
        /// The number or user that others than browsers see.
        caller: Option<Personal<String>>,
    },
}

impl Who {
    /// The caller as an operator has said that others see it (RFC 3325): name and number, or where
    /// there is none the user of its address, which the calls take for none. Nothing of it is the
    /// caller's own word.
    pub(crate) fn asserted(&self, host: &Host) -> NameAddr {
        let text = |text: &Option<Personal<String>>| text.as_ref().map(|it| it.expose().clone());
        let (user, display, caller) = match self {
            Self::Key { id, .. } => (id.clone(), None, None),
            Self::Token(token) => (token.id.clone(), text(&token.name), text(&token.caller)),
            Self::Account { name, display, caller } => {
                (name.expose().clone(), text(display), text(caller))
            }
        };
        let user = caller.as_deref().unwrap_or(&user);
        let asserted = NameAddr::new(Uri::sip(Some(user), host, None));
        match &display {
            Some(display) => asserted.with_display(display),
            None => asserted,
        }
    }
}

/// What a browser token allows. The token itself is not kept: it is made of the id under a key of
/// the vault's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserToken {
    /// Its id, `bt_` and 16 hexadecimal digits; no secret.
    pub id: String,
    /// The only address it may call (the user of the Request-URI), as a voice agent's name; `None`
    /// for whatever policy allows.
    pub called: Option<String>,
    /// What it may do.
    pub scopes: BTreeSet<TokenScope>,
    /// The only origin (RFC 6454) that may use it; `None` for those of the configuration.
    pub origin: Option<String>,
    /// What the caller is called.
    pub name: Option<Personal<String>>,
    /// The number or user that others see of the caller.
    pub caller: Option<Personal<String>>,
    /// When it ends.
    pub expires: WallTime,
    /// What it has opened, as far as the vault knows.
    pub used: Option<TokenUse>,
}

impl BrowserToken {
    /// Whether it may do this.
    #[must_use]
    pub fn may(&self, scope: TokenScope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// Where credentials are checked; the edge gives the vault's.
pub trait Credentials: Send + Sync + 'static {
    /// Whom an `Authorization: Bearer` value stands for: an API key or a browser token that holds.
    fn bearer(&self, secret: &str, now: WallTime) -> Option<Who>;

    /// Who the digest user is, with what the answer is checked against: an account by its name, or
    /// a token by its id, whose password is the token. MD5 is among it, since SIP.js and JsSIP know
    /// nothing else; only over WSS.
    fn digest(&self, user: &str, realm: &str, now: WallTime) -> Option<(Who, Hashes)>;

    /// Notes that the answer to a digest challenge was right; a bearer is noted with its check.
    fn came_in(&self, _who: &Who, _now: WallTime) {}

    /// Keeps beyond a restart what a token has opened, by the token's id; `false` where that
    /// cannot be.
    fn opened(&self, _token: &str, _used: TokenUse, _now: WallTime) -> bool {
        true
    }
}

/// The vault's keys, tokens and accounts.
#[derive(Clone, Debug)]
pub struct VaultCredentials(vault::Keys);

impl VaultCredentials {
    /// Those of `keys`.
    #[must_use]
    pub const fn new(keys: vault::Keys) -> Self {
        Self(keys)
    }
}

impl Credentials for VaultCredentials {
    fn bearer(&self, secret: &str, now: WallTime) -> Option<Who> {
        if let Some(key) = self.0.key(secret, now) {
            return Some(Who::Key { id: key.id.to_string(), can_write: !key.read_only });
        }
        Some(Who::Token(Arc::new(self.0.token(secret, now)?.into())))
    }

    fn digest(&self, user: &str, realm: &str, now: WallTime) -> Option<(Who, Hashes)> {
        if let Ok(id) = user.parse() {
            let (token, secret) = self.0.token_by_id(id, now)?;
            let hashes = Hashes::of(user, realm, secret.expose());
            return Some((Who::Token(Arc::new(token.into())), hashes));
        }
        let (account, hashes) = self.0.account(user, realm)?;
        let vault::Account { name, display, caller, .. } = account;
        Some((Who::Account { name, display, caller }, hashes))
    }

    fn came_in(&self, who: &Who, now: WallTime) {
        match who {
            Who::Account { name, .. } => self.0.account_used(name.expose(), now),
            Who::Token(token) => {
                if let Ok(id) = token.id.parse() {
                    self.0.token_used(id, now);
                }
            }
            // Noted with its check.
            Who::Key { .. } => {}
        }
    }

    fn opened(&self, token: &str, used: TokenUse, now: WallTime) -> bool {
        // An id that is none has opened nothing either.
        token.parse().is_ok_and(|id| self.0.token_opened(id, used, now))
    }
}

impl From<vault::Token> for BrowserToken {
    fn from(token: vault::Token) -> Self {
        let vault::Token { id, called, scopes, origin, name, caller, created: _, expires, used } =
            token;
        Self { id: id.to_string(), called, scopes, origin, name, caller, expires, used }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use base::{Clock, Instant, WorkspaceId};
    use vault::{KeyTerms, Keys, Retention, TokenTerms, Vault, VaultConfig};

    use super::*;

    pub(crate) const NOW: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

    /// A clock that stands still.
    pub(crate) struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Instant {
            Instant::ZERO
        }
        fn wall(&self) -> WallTime {
            NOW
        }
    }

    /// A vault in a folder of its own.
    pub(crate) struct Place {
        pub(crate) vault: Vault,
        pub(crate) config: VaultConfig,
        _folder: tempfile::TempDir,
    }

    impl Place {
        pub(crate) fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let config = VaultConfig {
                data: folder.path().join("data"),
                key_file: folder.path().join("keys/callgate.key"),
                audit_heads: folder.path().join("heads"),
                workspace: WorkspaceId::new("default"),
                retention: Retention::default(),
            };
            let vault = Vault::open(config.clone(), StoppedClock, Box::new(|_| {})).unwrap();
            Self { vault, config, _folder: folder }
        }

        pub(crate) fn keys(&self) -> Keys {
            self.vault.handle().keys()
        }
    }

    #[tokio::test]
    async fn a_bearer_is_a_key_or_a_token_and_a_digest_user_a_token_or_an_account() {
        let place = Place::new();
        let keys = place.keys();
        let credentials = VaultCredentials::new(keys.clone());
        let who = || "operator:tester".to_owned();
        let terms = KeyTerms { read_only: true, ..KeyTerms::named("looks") };
        let key = keys.create_key(terms, who()).await.unwrap();
        let found = credentials.bearer(key.secret.expose(), NOW).unwrap();
        assert!(matches!(found, Who::Key { can_write: false, id } if id == key.key.id.to_string()));

        let terms = TokenTerms { called: Some("reception".into()), ..TokenTerms::default() };
        let token = keys.create_token(terms, who()).await.unwrap();
        let (id, secret) = (token.token.id.to_string(), token.secret.expose());
        let Some(Who::Token(found)) = credentials.bearer(secret, NOW) else { panic!() };
        assert_eq!((found.id.as_str(), found.called.as_deref()), (&*id, Some("reception")));
        let (_, hashes) = credentials.digest(&id, "callgate", NOW).unwrap();
        assert_eq!(hashes, Hashes::of(&id, "callgate", secret));
        assert!(credentials.digest(&id, "callgate", NOW + Duration::from_secs(3_600)).is_none());

        let password = keys.set_account("alice", "callgate", None, who()).await.unwrap();
        let (found, hashes) = credentials.digest("alice", "callgate", NOW).unwrap();
        assert!(matches!(&found, Who::Account { name, .. } if name.expose() == "alice"));
        assert_eq!(hashes, Hashes::of("alice", "callgate", password.expose()));
        assert!(credentials.digest("alice", "other", NOW).is_none());
        assert!(credentials.bearer(password.expose(), NOW).is_none());
        credentials.came_in(&found, NOW);
        assert_eq!(keys.accounts()[0].last_used, Some(NOW));
    }
}
