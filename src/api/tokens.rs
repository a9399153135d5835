//! What browser tokens were used for: a token opens one session, and stays good for that session
//! alone until it expires. A WHIP session is opened once; a SIP session is one WebSocket after the
//! other, the latest of which counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{WallTime, limit};
use tokio::sync::watch;

use crate::auth::BrowserToken;

/// Why a token opens no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spent {
    /// It has opened one.
    Used,
    /// There are too many to remember (limit `api.tokens`).
    Full,
}

/// The used ones.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<BTreeMap<String, Used>>);

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
    fn used(&self) -> MutexGuard<'_, BTreeMap<String, Used>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a token for a WHIP session. It is given back with the claim, unless
    /// [`Claim::keep`] says that the session was opened.
    pub(crate) fn claim(
        self: &Arc<Self>,
        token: &BrowserToken,
        now: WallTime,
    ) -> Result<Claim, Spent> {
        let mut used = self.used();
        if used.contains_key(&token.id) {
            return Err(Spent::Used);
        }
        make_room(&mut used, now)?;
        used.insert(token.id.clone(), Used { expires: token.expires, by: By::Whip });
        Ok(Claim { tokens: Arc::clone(self), id: Some(token.id.clone()) })
    }

    /// Takes a token for a WebSocket, in place of the one before.
    pub(crate) fn connect(&self, token: &BrowserToken, now: WallTime) -> Result<Latest, Spent> {
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
#[derive(Debug)]
pub(crate) struct Claim {
    tokens: Arc<Tokens>,
    id: Option<String>,
}

impl Claim {
    /// The session was opened: the token opens no other.
    pub(crate) fn keep(mut self) {
        self.id = None;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.tokens.used().remove(&id);
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

    const NOW: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

    fn token(id: &str) -> BrowserToken {
        let expires = NOW + Duration::from_secs(60);
        BrowserToken { id: id.to_owned(), called: None, origin: None, name: None, expires }
    }

    #[test]
    fn a_token_opens_one_session_and_an_attempt_that_failed_does_not_count() {
        let tokens = Arc::new(Tokens::default());
        drop(tokens.claim(&token("bt_1"), NOW).unwrap());
        let claim = tokens.claim(&token("bt_1"), NOW).unwrap();
        assert_eq!(tokens.claim(&token("bt_1"), NOW).unwrap_err(), Spent::Used, "while it waits");
        claim.keep();
        assert_eq!(tokens.claim(&token("bt_1"), NOW).unwrap_err(), Spent::Used);
        assert_eq!(tokens.connect(&token("bt_1"), NOW).unwrap_err(), Spent::Used, "nor by SIP");
        assert!(tokens.claim(&token("bt_2"), NOW).is_ok());
    }

    #[tokio::test]
    async fn the_latest_websocket_of_a_token_counts() {
        let tokens = Arc::new(Tokens::default());
        let mut first = tokens.connect(&token("bt_1"), NOW).unwrap();
        let mut second = tokens.connect(&token("bt_1"), NOW).unwrap();
        first.replaced().await;
        let waiting = tokio::time::timeout(Duration::from_millis(5), second.replaced());
        assert!(waiting.await.is_err());
        assert_eq!(tokens.claim(&token("bt_1"), NOW).unwrap_err(), Spent::Used);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends_with_the_token() {
        let tokens = Arc::new(Tokens::default());
        for number in 0..limit::API_TOKENS.get() {
            tokens.claim(&token(&format!("bt_{number}")), NOW).unwrap().keep();
        }
        assert_eq!(tokens.claim(&token("new"), NOW).unwrap_err(), Spent::Full);
        assert!(tokens.claim(&token("new"), NOW + Duration::from_secs(60)).is_ok());
    }
}
