//! Proof of who sends an HTTP request: `Authorization: Bearer` (RFC 6750), and how often a source
//! may be wrong about it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use base::{Clock, Event, Instant, WallTime, limit};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use crate::auth::{BrowserToken, Credentials, Hashes, TokenUse, Who};
use crate::problem::Problem;

/// Where a request came from; an extension of every request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// The peer's address as seen here.
    pub source: SocketAddr,
    /// Our address of it.
    pub local: SocketAddr,
}

/// Takes events; shared by all that happens here.
pub type Events = Arc<dyn Fn(Event) + Send + Sync>;

/// Clocks that every task may read.
pub type SharedClock = Arc<dyn Clock + Send + Sync>;

/// Checks keys, tokens and passwords, and holds back sources that are wrong too often.
pub struct Guard {
    credentials: Arc<dyn Credentials>,
    clock: SharedClock,
    events: Events,
    tries: Mutex<Tries>,
}

impl Guard {
    /// A guard that asks these credentials.
    #[must_use]
    pub fn new(credentials: Arc<dyn Credentials>, clock: SharedClock, events: Events) -> Self {
        Self { credentials, clock, events, tries: Mutex::default() }
    }

    /// Who sends the request.
    ///
    /// # Errors
    /// 401 without credentials that hold, 429 after too many wrong ones of this source.
    pub fn bearer(&self, headers: &HeaderMap, peer: Peer) -> Result<Who, Problem> {
        let missing = |detail| Problem::new(StatusCode::UNAUTHORIZED, "api.unauthorized", detail);
        let secret = bearer_of(headers)
            .ok_or_else(|| missing("a key or a token is needed: Authorization: Bearer ..."))?;
        self.may_try(peer, "bearer").map_err(|seconds| {
            let detail = "too many wrong keys or tokens came from this address";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "api.held_back", detail)
                .retry_after(seconds)
        })?;
        match self.credentials.bearer(secret, self.wall()) {
            Some(who) => Ok(who),
            None => {
                self.was_wrong(peer, "bearer");
                Err(missing("the key or token is unknown, revoked or expired"))
            }
        }
    }

    /// Whom a key or token stands for; whoever asks counts wrong ones.
    pub(crate) fn check(&self, secret: &str) -> Option<Who> {
        self.credentials.bearer(secret, self.wall())
    }

    /// Whom a digest user stands for, with what the answer is checked against.
    pub(crate) fn digest(&self, user: &str, realm: &str) -> Option<(Who, Hashes)> {
        self.credentials.digest(user, realm, self.wall())
    }

    /// Notes that the answer to a digest challenge was right.
    pub(crate) fn came_in(&self, who: &Who) {
        self.credentials.came_in(who, self.wall());
    }

    /// Keeps beyond a restart what a token has opened.
    pub(crate) fn opened(&self, token: &BrowserToken, used: TokenUse) {
        if !self.credentials.opened(&token.id, used, self.wall()) {
            (self.events)(Event::VaultFailed { what: "token" });
        }
    }

    /// Whether credentials of this source are looked at; else the seconds until they are.
    pub(crate) fn may_try(&self, peer: Peer, how: &'static str) -> Result<(), u32> {
        let may = self.tries().may(self.clock.now(), peer.source.ip());
        if may.is_err() {
            (self.events)(Event::LoginRefused { how, is_held_back: true });
        }
        may
    }

    /// Counts credentials that do not hold.
    pub(crate) fn was_wrong(&self, peer: Peer, how: &'static str) {
        self.tries().wrong(self.clock.now(), peer.source.ip());
        (self.events)(Event::LoginRefused { how, is_held_back: false });
    }

    pub(crate) fn wall(&self) -> WallTime {
        self.clock.wall()
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The secret of the only `Authorization: Bearer` of a request.
pub(crate) fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let value = all.next()?.to_str().ok()?;
    if all.next().is_some() {
        return None;
    }
    let (scheme, secret) = value.split_once(' ')?;
    let secret = secret.trim_matches(' ');
    let is_token = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("Bearer") && is_token).then_some(secret)
}

/// How often each source was wrong in its present minute.
#[derive(Debug, Default)]
struct Tries {
    sources: BTreeMap<Option<IpAddr>, (Instant, u64)>,
}

const MINUTE: Duration = Duration::from_secs(60);

impl Tries {
    fn may(&mut self, now: Instant, source: IpAddr) -> Result<(), u32> {
        let Some((since, wrong)) = self.sources.get(&self.place(source)) else { return Ok(()) };
        let left = MINUTE.saturating_sub(now.since(*since));
        if left.is_zero() || *wrong < limit::API_WRONG_TRIES.value {
            return Ok(());
        }
        Err(u32::try_from(left.as_secs()).unwrap_or(u32::MAX).saturating_add(1))
    }

    fn wrong(&mut self, now: Instant, source: IpAddr) {
        if self.sources.len() >= limit::API_RATED_SOURCES.get() {
            self.sources.retain(|_, (since, _)| now.since(*since) < MINUTE);
        }
        let place = self.place(source);
        let (since, wrong) = self.sources.entry(place).or_insert((now, 0));
        if now.since(*since) >= MINUTE {
            (*since, *wrong) = (now, 0);
        }
        *wrong = wrong.saturating_add(1);
    }

    /// The place of a source; once the table is full, newcomers share one.
    fn place(&self, source: IpAddr) -> Option<IpAddr> {
        let network = network_of(source);
        let has_room = self.sources.len() < limit::API_RATED_SOURCES.get();
        (has_room || self.sources.contains_key(&Some(network))).then_some(network)
    }
}

/// What counts as one source: whoever has an IPv6 address has a whole /64 of them.
fn network_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn who_is_wrong_too_often_is_held_back_for_the_rest_of_a_minute_and_others_are_not() {
        let mut tries = Tries::default();
        let (bad, good) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        for _ in 0..limit::API_WRONG_TRIES.value {
            assert_eq!(tries.may(Instant::ZERO, bad), Ok(()));
            tries.wrong(Instant::ZERO, bad);
        }
        assert_eq!(tries.may(Instant::ZERO + Duration::from_secs(20), bad), Err(41));
        assert_eq!(tries.may(Instant::ZERO, good), Ok(()));
        assert_eq!(tries.may(Instant::ZERO + MINUTE, bad), Ok(()));
    }

    #[test]
    fn a_flood_of_sources_does_not_grow_the_table_and_forgets_no_one() {
        let mut tries = Tries::default();
        let at = |n: u32| IpAddr::from(n.to_be_bytes());
        let most = u32::try_from(limit::API_RATED_SOURCES.value).unwrap();
        for n in 0..most + 1_000 {
            tries.wrong(Instant::ZERO, at(n));
        }
        assert_eq!(tries.sources.len(), limit::API_RATED_SOURCES.get() + 1);
        assert!(tries.may(Instant::ZERO, at(most + 5)).is_err(), "newcomers share a place");
        assert!(tries.may(Instant::ZERO, at(5)).is_ok());
    }

    #[test]
    fn a_bearer_value_is_one_token_of_one_field() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("bearer  cg_abc "));
        assert_eq!(bearer_of(&headers), Some("cg_abc"));
        headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer other"));
        assert_eq!(bearer_of(&headers), None);
        for wrong in ["Basic abc", "Bearer", "Bearer a b", "Bearer "] {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(wrong).unwrap());
            assert_eq!(bearer_of(&headers), None, "{wrong}");
        }
    }
}
