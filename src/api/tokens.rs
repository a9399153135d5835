//! What browser tokens were used for: a token opens one session, and stays good for that session
//! alone until it expires. A WHIP session is opened once; a SIP session is one WebSocket after the
//! other, the latest of which counts.
//!
//! Here is what this process knows; what a token has opened is kept in the vault as well, so that
//! an edge that starts again does not let it open another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{WallTime, limit};
use tokio::sync::watch;

use crate::auth::{BrowserToken, TokenUse};
use crate::guard::Guard;

/// Why a token opens no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// It has opened one.
    Used,
    /// There are too many to remember (limit `api.tokens`).
    Full,
}

/// The used ones.
pub(crate) struct Tokens {
    guard: Arc<Guard>,
    used: Mutex<BTreeMap<String, Used>>,
}

#[derive(Debug)]
struct Used {
    expires: WallTime,
    by: By,
}

#[derive(Debug)]
enum By {
    Whip,
    /// The number of its latest WebSocket.
    Sip(watch::Sender<u64>),
}

impl Tokens {
    /// Of none so far, but for what `guard` finds in the vault.
    pub(crate) const fn new(guard: Arc<Guard>) -> Self {
        Self { guard, used: Mutex::new(BTreeMap::new()) }
    }

    fn used(&self) -> MutexGuard<'_, BTreeMap<String, Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for a WHIP session. It is given back with the claim, unless
    /// [`Claim::keep`] says that the session was opened.
    pub(crate) fn claim(
        self: &Arc<Self>,
        token: &Arc<BrowserToken>,
        now: WallTime,
    ) -> Result<Claim, Spent> {
        let mut used = self.used();
        if token.used.is_some() || used.contains_key(&token.id) {
            return Err(Spent::Used);
        }
        make_room(&mut used, now)?;
        used.insert(token.id.clone(), Used { expires: token.expires, by: By::Whip });
        Ok(Claim { tokens: Arc::clone(self), token: Some(Arc::clone(token)) })
    }

    /// Takes a token for a WebSocket, in place of the one before.
    pub(crate) fn connect(&self, token: &BrowserToken, now: WallTime) -> Result<Latest, Spent> {
        if token.used == Some(TokenUse::Whip) {
            return Err(Spent::Used);
        }
        let mut used = self.used();
        if !used.contains_key(&token.id) {
            make_room(&mut used, now)?;
        }
        let fresh = || Used { expires: token.expires, by: By::Sip(watch::Sender::new(0)) };
        let By::Sip(latest) = &used.entry(token.id.clone()).or_insert_with(fresh).by else {
            return Err(Spent::Used);
        };
        latest.send_modify(|number| *number = number.wrapping_add(1));
        let watching = latest.subscribe();
        let number = *watching.borrow();
        drop(used);
        if token.used.is_none() {
            self.guard.opened(token, TokenUse::Sip);
        }
        Ok(Latest { number, watching })
    }
}

/// Forgets what has expired; an expired token proves nothing any more.
fn make_room(used: &mut BTreeMap<String, Used>, now: WallTime) -> Result<(), Spent> {
    if used.len() >= limit::API_TOKENS.get() {
        used.retain(|_, it| it.expires > now);
    }
    if used.len() >= limit::API_TOKENS.get() { Err(Spent::Full) } else { Ok(()) }
}

/// A token that is being used for a WHIP session.
pub(crate) struct Claim {
    tokens: Arc<Tokens>,
    token: Option<Arc<BrowserToken>>,
}

impl Claim {
    /// The session was opened: the token opens no other.
    pub(crate) fn keep(mut self) {
        if let Some(token) = self.token.take() {
            self.tokens.guard.opened(&token, TokenUse::Whip);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(token) = self.token.take() {
            self.tokens.used().remove(&token.id);
        }
    }
}

/// A WebSocket's view of its token.
#[derive(Debug)]
pub(crate) struct Latest {
    number: u64,
    watching: watch::Receiver<u64>,
}

impl Latest {
    /// Waits until another WebSocket has taken its place.
    pub(crate) async fn replaced(&mut self) {
        let own = self.number;
        if self.watching.wait_for(|number| *number != own).await.is_err() {
            // Forgotten, since it expired; the expiry ends the WebSocket.
            core::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use vault::{Keys, TokenTerms, Vault};

    use crate::auth::VaultCredentials;
    use crate::auth::tests::{NOW, Place, StoppedClock};
    use crate::auth::{Credentials, Hashes, TokenScope, Who};

    /// Nobody is known, and nothing is kept.
    struct Nobody;

    impl Credentials for Nobody {
        fn bearer(&self, _secret: &str, _now: WallTime) -> Option<Who> {
            None
        }
        fn digest(&self, _user: &str, _realm: &str, _now: WallTime) -> Option<(Who, Hashes)> {
            None
        }
    }

    fn tokens(credentials: impl Credentials) -> Arc<Tokens> {
        let clock = Arc::new(StoppedClock);
        let guard = Guard::new(Arc::new(credentials), clock, Arc::new(|_| {}));
        Arc::new(Tokens::new(Arc::new(guard)))
    }

    fn token(id: &str) -> Arc<BrowserToken> {
        let expires = NOW + Duration::from_secs(60);
        let id = id.to_owned();
        Arc::new(BrowserToken {
            id,
            called: None,
            scopes: TokenScope::ALL.into(),
            origin: None,
            name: None,
            caller: None,
            expires,
            used: None,
        })
    }

    #[test]
    fn a_token_opens_one_session_and_an_attempt_that_failed_does_not_count() {
        let tokens = tokens(Nobody);
        drop(tokens.claim(&token("bt_1"), NOW).unwrap());
        let claim = tokens.claim(&token("bt_1"), NOW).unwrap();
        assert_eq!(tokens.claim(&token("bt_1"), NOW).err(), Some(Spent::Used), "while it waits");
        claim.keep();
        assert_eq!(tokens.claim(&token("bt_1"), NOW).err(), Some(Spent::Used));
        assert_eq!(tokens.connect(&token("bt_1"), NOW).unwrap_err(), Spent::Used, "nor by SIP");
        assert!(tokens.claim(&token("bt_2"), NOW).is_ok());
    }

    #[tokio::test]
    async fn the_latest_websocket_of_a_token_counts() {
        let tokens = tokens(Nobody);
        let mut first = tokens.connect(&token("bt_1"), NOW).unwrap();
        let mut second = tokens.connect(&token("bt_1"), NOW).unwrap();
        first.replaced().await;
        let waiting = tokio::time::timeout(Duration::from_millis(5), second.replaced());
        assert!(waiting.await.is_err());
        assert_eq!(tokens.claim(&token("bt_1"), NOW).err(), Some(Spent::Used));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_token() {
        let tokens = tokens(Nobody);
        for number in 0..limit::API_TOKENS.get() {
            tokens.claim(&token(&format!("bt_{number}")), NOW).unwrap().keep();
        }
        assert_eq!(tokens.claim(&token("new"), NOW).err(), Some(Spent::Full));
        assert!(tokens.claim(&token("new"), NOW + Duration::from_secs(60)).is_ok());
    }

    #[tokio::test]
    async fn an_edge_that_starts_again_knows_what_tokens_have_opened() {
        let mut place = Place::new();
        let made = async |keys: &Keys| {
            let terms = TokenTerms { called: Some("agent".into()), ..TokenTerms::default() };
            let made = keys.create_token(terms, "operator:tester".into()).await;
            made.unwrap().secret
        };
        let keys = place.keys();
        let (by_whip, by_sip, failed) = (made(&keys).await, made(&keys).await, made(&keys).await);
        let found = |credentials: &VaultCredentials, secret: &base::Secret<String>| {
            let Some(Who::Token(token)) = credentials.bearer(secret.expose(), NOW) else {
                panic!()
            };
            token
        };
        let credentials = VaultCredentials::new(keys);
        let before = tokens(credentials.clone());
        before.claim(&found(&credentials, &by_whip), NOW).unwrap().keep();
        drop(before.connect(&found(&credentials, &by_sip), NOW).unwrap());
        drop(before.claim(&found(&credentials, &failed), NOW).unwrap());
        place.vault.close();
        place.vault = Vault::open(place.config.clone(), StoppedClock, Box::new(|_| {})).unwrap();

        let credentials = VaultCredentials::new(place.keys());
        let after = tokens(credentials.clone());
        let token = found(&credentials, &by_whip);
        assert_eq!(after.claim(&token, NOW).err(), Some(Spent::Used));
        assert_eq!(after.connect(&token, NOW).err(), Some(Spent::Used));
        let token = found(&credentials, &by_sip);
        assert_eq!(after.claim(&token, NOW).err(), Some(Spent::Used));
        assert!(after.connect(&token, NOW).is_ok(), "its own session goes on");
        assert!(after.claim(&found(&credentials, &failed), NOW).is_ok(), "it opened nothing");
    }
}
