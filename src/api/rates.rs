//! How often each API key may ask: a sliding minute, and the headers that tell of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use axum::response::Response;
use base::{WallTime, limit};
use http::{HeaderValue, StatusCode};
use vault::KeyId;

use crate::problem::Problem;

const MINUTE_MS: u64 = 60_000;

/// The requests of each key in this minute and the one before.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<BTreeMap<KeyId, Minutes>>);

#[derive(Clone, Copy, Debug, Default)]
struct Minutes {
    minute: u64,
    now: u32,
    before: u32,
}

/// What a key may still ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    limit: u32,
    remaining: u32,
    /// In Unix seconds.
    reset: u64,
}

impl Rates {
    /// Counts a request of a key that may make `limit` of them in a minute.
    ///
    /// # Errors
    /// 429: it has made them.
    pub(crate) fn count(&self, key: KeyId, limit: u32, wall: WallTime) -> Result<Rate, Problem> {
        let (minute, into) = (wall.unix_millis() / MINUTE_MS, wall.unix_millis() % MINUTE_MS);
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= limit::API_RATED_KEYS.get() {
            keys.retain(|_, counts| counts.minute + 1 >= minute);
        }
        let counts = keys.entry(key).or_default();
        match minute.saturating_sub(counts.minute) {
            0 => {}
            1 => (counts.before, counts.now) = (counts.now, 0),
            _ => (counts.before, counts.now) = (0, 0),
        }
        counts.minute = minute;
        // The share of the minute before that the window still covers.
        let before = u64::from(counts.before) * (MINUTE_MS - into) / MINUTE_MS;
        let used = u64::from(counts.now) + before;
        if used >= u64::from(limit) {
            let seconds = (MINUTE_MS - into).div_ceil(1_000);
            let detail = format!("Rate limit exceeded. {limit} requests per minute are allowed.");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "api.rate_limited", detail);
            return Err(problem.retry_after(u32::try_from(seconds).unwrap_or(60)));
        }
        counts.now += 1;
        let remaining = u32::try_from(u64::from(limit) - used - 1).unwrap_or(0);
        Ok(Rate { limit, remaining, reset: (minute + 1) * MINUTE_MS / 1_000 })
    }
}

impl Rate {
    /// Tells the client (REST contract 1.4).
    pub(crate) fn tell(self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert("x-ratelimit-limit", HeaderValue::from(self.limit));
        headers.insert("x-ratelimit-remaining", HeaderValue::from(self.remaining));
        headers.insert("x-ratelimit-reset", HeaderValue::from(self.reset));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_so_many_requests_in_any_minute() {
        let (rates, key) = (Rates::default(), "key_0123456789abcdef".parse().unwrap());
        let at = |millis| WallTime::from_unix_millis(MINUTE_MS * 1_000 + millis);
        let may = |millis| rates.count(key, 10, at(millis)).map(|rate| rate.remaining);
        assert_eq!(
            (0..10).map(|_| may(0).unwrap()).collect::<Vec<_>>(),
            [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
        );
        assert_eq!(may(59_999).unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        // Half a minute later half of them count no more.
        assert_eq!((0..6).filter(|_| may(90_000).is_ok()).count(), 5);
        assert_eq!(may(200_000).unwrap(), 9);
        let other = "key_0123456789abcdee".parse().unwrap();
        assert!(rates.count(other, 1, at(0)).is_ok());
    }
}
