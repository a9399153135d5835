//! The plaintext port: every request is led to HTTPS and the connection closed, but for what an
//! authority of certificates asks there (RFC 8555 section 8.3). The query is
//! dropped on the way, since it may hold what nobody should have sent, and a key that was sent is
//! known to the whole network: its owner is told.

use std::convert::Infallible;
use std::sync::Arc;

use base::Event;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;

use crate::cors;
use crate::guard::Events;

/// Answers to an authority's challenges, by token.
pub type Challenges = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Where the plaintext port leads.
#[derive(Clone)]
pub(crate) struct Redirect {
    /// The host of a request that names none.
    pub(crate) host: String,
    /// The port of HTTPS.
    pub(crate) port: u16,
    /// What is answered here.
    pub(crate) challenges: Challenges,
}

/// Where an authority asks (RFC 8555 section 8.3).
const CHALLENGE: &str = "/.well-known/acme-challenge/";

impl Redirect {
    /// Answers any request.
    pub(crate) fn answer<B>(
        &self,
        request: &Request<B>,
        events: &Events,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.headers().contains_key(AUTHORIZATION) {
            events(Event::KeyExposed {});
        }
        let token = request.uri().path().strip_prefix(CHALLENGE);
        if let Some(answer) = token.and_then(|token| (self.challenges)(token)) {
            let mut response = Response::new(Full::from(answer));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return Ok(response);
        }
        let mut response = Response::new(Full::default());
        let location = self.location(request.headers(), request.uri().path());
        *response.status_mut() = match location {
            Some(_) => StatusCode::MOVED_PERMANENTLY,
            None => StatusCode::BAD_REQUEST,
        };
        let headers = response.headers_mut();
        if let Some(location) = location {
            headers.insert(LOCATION, location);
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        Ok(response)
    }

    /// The same path under HTTPS, without the query.
    fn location(&self, headers: &HeaderMap, path: &str) -> Option<HeaderValue> {
        let named = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = match named.filter(|it| !it.is_empty()) {
            Some(named) => cors::split(named)?.0,
            None => &self.host,
        };
        let path = if path.starts_with('/') { path } else { "/" };
        let url = match self.port {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        };
        HeaderValue::from_str(&url).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn answer(request: &Request<()>) -> (Response<Full<Bytes>>, Vec<Event>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let taking = Arc::clone(&seen);
        let events: Events = Arc::new(move |event| taking.lock().unwrap().push(event));
        let challenges: Challenges = Arc::new(|token| (token == "abc").then(|| "abc.key".into()));
        let redirect = Redirect { host: "edge.example".to_owned(), port: 8443, challenges };
        let response = redirect.answer(request, &events).unwrap();
        let events = seen.lock().unwrap().clone();
        (response, events)
    }

    #[test]
    fn a_request_is_led_to_https_without_its_query() {
        let request = Request::get("/talk/a%20b?key=cg_live_secret").header(HOST, "e.example:8080");
        let (response, events) = answer(&request.body(()).unwrap());
        assert_eq!(response.status(), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(response.headers()[LOCATION], "https://e.example:8443/talk/a%20b");
        assert_eq!(response.headers()[CONNECTION], "close");
        assert_eq!(events, []);
    }

    #[test]
    fn a_key_in_plaintext_is_told_without_the_key() {
        let request = Request::post("/v1/calls").header(AUTHORIZATION, "Bearer cg_live_secret");
        let (response, events) = answer(&request.body(()).unwrap());
        assert_eq!(response.headers()[LOCATION], "https://edge.example:8443/v1/calls");
        assert_eq!(events, [Event::KeyExposed {}]);
    }

    #[test]
    fn an_authority_finds_the_answer_to_its_challenge_and_nobody_anything_else() {
        let asked = |path: &str| answer(&Request::get(path).body(()).unwrap()).0.status();
        assert_eq!(asked("/.well-known/acme-challenge/abc"), StatusCode::OK);
        assert_eq!(asked("/.well-known/acme-challenge/abd"), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(asked("/abc"), StatusCode::MOVED_PERMANENTLY);
    }

    #[test]
    fn a_host_that_is_none_is_refused() {
        for host in ["evil.example/..", "a b", "[::1", "host:99999", "user@host"] {
            let request = Request::get("/").header(HOST, host).body(()).unwrap();
            assert_eq!(answer(&request).0.status(), StatusCode::BAD_REQUEST, "{host}");
        }
    }
}
