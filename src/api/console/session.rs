//! Who is signed in at the console. A session is a cookie of 256 random bits, of which memory has a
//! hash; it ends with the edge, with its API key, or after twelve hours.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use base::{WallTime, limit};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use vault::{KeyId, Keys};

/// Only over HTTPS, from this host, for all of it: the prefix makes browsers see to that.
const NAME: &str = "__Host-callgate";

/// Somebody who is signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Person {
    /// The key that was shown.
    pub(crate) key: KeyId,
    /// Whether it may change things.
    pub(crate) can_write: bool,
}

/// All who are.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<BTreeMap<[u8; 32], Session>>);

#[derive(Clone, Copy, Debug)]
struct Session {
    key: KeyId,
    expires: WallTime,
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, BTreeMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a session under `secret`, which is random, and returns its cookie. Where there are too
    /// many, the one that ends first makes room.
    pub(crate) fn open(&self, secret: &str, key: KeyId, now: WallTime) -> Option<HeaderValue> {
        let mut all = self.all();
        all.retain(|_, session| now < session.expires);
        if all.len() >= limit::API_CONSOLE_SESSIONS.get() {
            let first = all.iter().min_by_key(|(_, session)| session.expires).map(|it| *it.0);
            first.and_then(|first| all.remove(&first));
        }
        let lasts = limit::API_CONSOLE_SESSION_MS.millis();
        all.insert(vault::access::fingerprint(secret), Session { key, expires: now + lasts });
        cookie(secret, lasts.as_secs())
    }

    /// Who sends a request.
    pub(crate) fn person(&self, headers: &HeaderMap, keys: &Keys, now: WallTime) -> Option<Person> {
        let place = vault::access::fingerprint(secret_of(headers)?);
        let session = *self.all().get(&place).filter(|session| now < session.expires)?;
        let key = keys.key_by_id(session.key).filter(|key| key.is_active(now));
        if key.is_none() {
            self.all().remove(&place);
        }
        key.map(|key| Person { key: key.id, can_write: !key.read_only })
    }

    /// Ends a session, and returns the cookie that says so.
    pub(crate) fn close(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if let Some(secret) = secret_of(headers) {
            self.all().remove(&vault::access::fingerprint(secret));
        }
        cookie("", 0)
    }
}

fn cookie(secret: &str, seconds: u64) -> Option<HeaderValue> {
    let text =
        format!("{NAME}={secret}; Path=/; Max-Age={seconds}; HttpOnly; Secure; SameSite=Strict");
    HeaderValue::from_str(&text).ok()
}

/// The session of a request, whose browser may send other cookies too.
fn secret_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).map(str::trim);
    pairs.find_map(|pair| pair.strip_prefix(NAME)?.strip_prefix('=')).filter(|it| !it.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use vault::KeyTerms;

    use super::*;
    use crate::auth::tests::{NOW, Place};

    fn headers(secret: &str) -> HeaderMap {
        let text = format!("theme=dark; {NAME}={secret}; other=1");
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(&text).unwrap())])
    }

    #[tokio::test]
    async fn a_session_ends_with_its_time_its_key_and_when_it_is_told_to() {
        let (place, sessions) = (Place::new(), Sessions::default());
        let keys = place.keys();
        let who = || "operator:tester".to_owned();
        let key = keys.create_key(KeyTerms::named("me"), who()).await.unwrap().key.id;
        let cookie = sessions.open("one", key, NOW).unwrap();
        let cookie = cookie.to_str().unwrap();
        for part in ["__Host-callgate=one", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
            assert!(cookie.split("; ").any(|it| it == part), "{cookie}");
        }
        let is_in = |secret, now| sessions.person(&headers(secret), &keys, now).is_some();
        assert!(is_in("one", NOW) && !is_in("two", NOW) && !is_in("", NOW));
        assert!(!is_in("one", NOW + limit::API_CONSOLE_SESSION_MS.millis()));
        sessions.open("two", key, NOW);
        sessions.close(&headers("one"));
        assert!(!is_in("one", NOW) && is_in("two", NOW));
        keys.revoke_key(key, who()).await.unwrap();
        assert!(!is_in("two", NOW));
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes_first() {
        let sessions = Sessions::default();
        let key = "key_0123456789abcdef".parse().unwrap();
        for number in 0..=limit::API_CONSOLE_SESSIONS.value {
            sessions.open(&number.to_string(), key, NOW + Duration::from_secs(number));
        }
        let all = sessions.all();
        assert_eq!(all.len(), limit::API_CONSOLE_SESSIONS.get());
        assert!(!all.contains_key(&vault::access::fingerprint("0")));
    }
}
