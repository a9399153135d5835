//! The operator's keys and accounts: made and revoked by the edge that runs, or, where none does,
//! by opening the vault. What is shown of them is read beside it ([`vault::Reader::access`]).

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use base::{Clock, Secret};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vault::access::REALM;
use vault::{AccessError, KeyTerms, Keys, OpenError};

use crate::boot::vault_config;
use crate::clock::OsClock;
use crate::config::Config;
use crate::control::{self, Request};

/// What an operator wants.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// An API key.
    CreateKey {
        /// What it is called.
        name: String,
        /// Whether it may only look.
        read_only: bool,
        /// When it ends, in seconds from now.
        expires_in: Option<u64>,
    },
    /// An API key's end, by its id.
    RevokeKey(String),
    /// An account with this password, or with a made-up one.
    SetAccount {
        /// The user of its SIP address.
        name: String,
        /// The password.
        password: Option<String>,
    },
    /// An account's end.
    RemoveAccount(String),
}

/// What came of it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    Key { id: String, secret: String },
    Password(String),
    Done,
    Unknown,
    Refused(String),
    Failed,
}

/// What an operator gets.
#[derive(Debug)]
pub enum Granted {
    /// A key, to be shown once.
    Key {
        /// Its id.
        id: String,
        /// The key itself.
        secret: Secret<String>,
    },
    /// An account's password, to be shown once where it was made up.
    Password(Secret<String>),
    /// It is done.
    Done,
}

/// Why it was not done.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum KeysError {
    /// There is no vault.
    #[error("there is no vault in {0}: start `serve` once first")]
    NoVault(PathBuf),
    /// There is no such key or account.
    #[error("there is no such key or account")]
    Unknown,
    /// Something of it is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The store failed.
    #[error("the store failed; see the edge's log and /health")]
    Failed,
    /// The vault cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The running edge does not answer.
    #[error("the running edge does not answer: {0}")]
    Silent(io::Error),
}

/// Does it. The audit log says that the operator did it who runs this process.
///
/// # Errors
/// Why it was not done.
pub async fn change(config: &Config, wish: Wish) -> Result<Granted, KeysError> {
    let vault = vault_config(config);
    if !vault::database_path(&vault.data).exists() {
        return Err(KeysError::NoVault(vault.data));
    }
    let answer = match control::connect(&vault.data).await {
        Ok(stream) => control::ask(stream, &Request::Access(wish)).await,
        Err(error) if control::is_alone(&error) => {
            let opened = control::open(vault)?;
            let answer = grant(&opened.handle().keys(), wish, control::own_operator()).await;
            // Signs the head over what was done.
            let _ = tokio::task::spawn_blocking(move || opened.close()).await;
            Ok(answer)
        }
        Err(error) => Err(error),
    };
    Ok(match answer.map_err(KeysError::Silent)? {
        Answer::Key { id, secret } => Granted::Key { id, secret: Secret::new(secret) },
        Answer::Password(password) => Granted::Password(Secret::new(password)),
        Answer::Done => Granted::Done,
        Answer::Unknown => return Err(KeysError::Unknown),
        Answer::Refused(why) => return Err(KeysError::Refused(why)),
        Answer::Failed => return Err(KeysError::Failed),
    })
}

/// Does it with these keys.
pub(crate) async fn grant(keys: &Keys, wish: Wish, actor: String) -> Answer {
    let done = match wish {
        Wish::CreateKey { name, read_only, expires_in } => {
            let expires = expires_in.map(|seconds| OsClock.wall() + Duration::from_secs(seconds));
            let terms = KeyTerms { read_only, expires, ..KeyTerms::named(name) };
            keys.create_key(terms, actor).await.map(|new| Answer::Key {
                id: new.key.id.to_string(),
                secret: new.secret.expose().clone(),
            })
        }
        Wish::RevokeKey(id) => match id.parse() {
            Ok(id) => keys.revoke_key(id, actor).await.map(|()| Answer::Done),
            Err(_) => return Answer::Unknown,
        },
        Wish::SetAccount { name, password } => {
            let set = keys.set_account(&name, REALM, password.map(Secret::new), actor).await;
            set.map(|password| Answer::Password(password.expose().clone()))
        }
        Wish::RemoveAccount(name) => keys.remove_account(&name, actor).await.map(|()| Answer::Done),
    };
    done.unwrap_or_else(|error| match error {
        AccessError::Unknown => Answer::Unknown,
        AccessError::Invalid { .. } | AccessError::TooMany(_) | AccessError::InUse => {
            Answer::Refused(error.to_string())
        }
        _ => Answer::Failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Event;
    use vault::{Reader, Vault};

    /// A vault's place.
    fn place() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let text =
            format!("[vault]\ndata = \"{at}/data\"\nkey = \"{at}/keys/k\"\nheads = \"{at}/h\"\n");
        let config = Config::load(Some(("test.toml", &text)), []).unwrap();
        (folder, config)
    }

    fn opened(config: &Config) -> Vault {
        Vault::open(vault_config(config), OsClock, Box::new(|_: Event| {})).unwrap()
    }

    fn create(name: &str) -> Wish {
        Wish::CreateKey { name: name.to_owned(), read_only: true, expires_in: Some(3_600) }
    }

    async fn actors(config: &Config) -> Vec<(String, String)> {
        let reader = Reader::open(&vault_config(config)).await.unwrap();
        let all = reader.audit(0, 1_000).await.unwrap().into_iter();
        let all = all.filter(|it| it.kind.starts_with("key.") || it.kind.starts_with("account."));
        all.map(|it| (it.kind, it.actor)).collect()
    }

    #[tokio::test]
    async fn the_running_edge_makes_and_revokes_keys_and_knows_them_at_once() {
        let (_folder, config) = place();
        let vault = opened(&config);
        let listener = control::listen(&config.vault.data).unwrap();
        let served = tokio::spawn(control::serve(listener, vault.handle()));
        let granted = change(&config, create("laptop")).await.unwrap();
        let Granted::Key { id, secret } = granted else { panic!() };
        let key = vault.handle().keys().key(secret.expose(), OsClock.wall()).unwrap();
        assert_eq!(
            (key.id.to_string(), key.read_only, key.name.as_str()),
            (id.clone(), true, "laptop")
        );
        assert!(key.expires.is_some());
        change(&config, Wish::RevokeKey(id)).await.unwrap();
        assert!(vault.handle().keys().key(secret.expose(), OsClock.wall()).is_none());
        let unknown = change(&config, Wish::RevokeKey("key_0000000000000000".into())).await;
        assert!(matches!(unknown, Err(KeysError::Unknown)));
        assert!(matches!(change(&config, create("")).await, Err(KeysError::Refused(_))));
        vault.handle().flush().await.unwrap();
        let who = control::own_operator();
        let said = actors(&config).await;
        assert_eq!(said[0], ("key.created".to_owned(), who.clone()));
        assert!(said.contains(&("key.revoked".to_owned(), who)), "{said:?}");
        served.abort();
    }

    #[tokio::test]
    async fn where_no_edge_runs_the_vault_is_opened_for_it() {
        let (_folder, config) = place();
        assert!(matches!(change(&config, create("x")).await, Err(KeysError::NoVault(_))));
        opened(&config).close();
        let password = "\u{1d11e}".repeat(60);
        let wish = |password| Wish::SetAccount { name: "alice".to_owned(), password };
        let Granted::Password(made_up) = change(&config, wish(None)).await.unwrap() else {
            panic!()
        };
        assert!(made_up.expose().len() > 20);
        change(&config, wish(Some(password.clone()))).await.unwrap();
        let vault = opened(&config);
        let hashes = vault.handle().keys().account("alice", REALM).unwrap().1;
        assert_eq!(hashes, vault::Hashes::of("alice", REALM, &password));
        vault.close();
        change(&config, Wish::RemoveAccount("alice".to_owned())).await.unwrap();
        let gone = change(&config, Wish::RemoveAccount("alice".to_owned())).await;
        assert!(matches!(gone, Err(KeysError::Unknown)));
        assert_eq!(actors(&config).await.len(), 3);
    }

    #[tokio::test]
    async fn the_longest_request_fits_the_line() {
        let (_folder, config) = place();
        let vault = opened(&config);
        let listener = control::listen(&config.vault.data).unwrap();
        let served = tokio::spawn(control::serve(listener, vault.handle()));
        let password = Some("\"\\".repeat(128));
        let wish = Wish::SetAccount { name: "a".repeat(100), password };
        assert!(matches!(change(&config, wish).await.unwrap(), Granted::Password(_)));
        served.abort();
    }
}
