//! Which pages may talk to the edge: origins (RFC 6454) of the configuration, and the edge's own.
//! Others get 403 and no word of CORS, so that a browser hides the answer from them; a client
//! without an origin is no browser and is not concerned.

use axum::response::Response;
use base::limit;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, HOST, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::problem::Problem;

/// An origin, `https://host[:port]` in lower case, without the port 443.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Origin(String);

/// A text that is no origin which may be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an origin: https://HOST or https://HOST:PORT")]
pub struct NotAnOrigin;

impl Origin {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is something else, `null` and wildcards among them.
    pub fn parse(text: &str) -> Result<Self, NotAnOrigin> {
        if text.len() > limit::API_ORIGIN_BYTES.get() {
            return Err(NotAnOrigin);
        }
        let text = text.to_ascii_lowercase();
        if let Some(authority) = text.strip_prefix("http://") {
            // A page under development: browsers trust it as they trust HTTPS (Secure Contexts
            // section 3.1), since nothing of it leaves the machine.
            let (host, _) = split(authority).ok_or(NotAnOrigin)?;
            let is_here = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
            return if is_here { Ok(Self(text)) } else { Err(NotAnOrigin) };
        }
        let authority = text.strip_prefix("https://").ok_or(NotAnOrigin)?;
        let (host, port) = split(authority).ok_or(NotAnOrigin)?;
        match port {
            None | Some(443) => Ok(Self(format!("https://{host}"))),
            Some(port) => Ok(Self(format!("https://{host}:{port}"))),
        }
    }

    /// As browsers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Host and port of an authority without a user; the host as SIP reads it as well.
pub(crate) fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an IPv6 address stand between brackets.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port {
        None => None,
        Some(port) if port.bytes().all(|it| it.is_ascii_digit()) => Some(port.parse().ok()?),
        Some(_) => return None,
    };
    sip::Host::parse(host)?;
    Some((host, port))
}

/// Those that may.
#[derive(Clone, Debug, Default)]
pub struct Origins(Vec<Origin>);

impl FromIterator<Origin> for Origins {
    fn from_iter<T: IntoIterator<Item = Origin>>(origins: T) -> Self {
        Self(origins.into_iter().collect())
    }
}

/// What a response of a route lets a page of another origin see and do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shown {
    pub(crate) methods: &'static str,
    pub(crate) headers: &'static str,
    pub(crate) exposed: &'static str,
}

impl Origins {
    /// The origin of a request; `None` where it has none.
    ///
    /// # Errors
    /// Where its page may not talk to us: 403.
    pub(crate) fn of(&self, headers: &HeaderMap) -> Result<Option<Origin>, Problem> {
        let foreign = || {
            let detail = "pages of this origin may not use this edge; see [browsers] origins";
            Problem::new(StatusCode::FORBIDDEN, "api.foreign_origin", detail)
        };
        let mut named = headers.get_all(ORIGIN).iter();
        let Some(value) = named.next() else { return Ok(None) };
        if named.next().is_some() {
            return Err(foreign());
        }
        let text = value.to_str().map_err(|_| foreign())?;
        let origin = Origin::parse(text).map_err(|_| foreign())?;
        let is_listed = self.0.contains(&origin) || own(headers).as_ref() == Some(&origin);
        if is_listed { Ok(Some(origin)) } else { Err(foreign()) }
    }
}

/// The origin of the pages that come from this very address: only a page of ours is at it, since
/// the certificate is for it.
fn own(headers: &HeaderMap) -> Option<Origin> {
    let host = headers.get(HOST)?.to_str().ok()?;
    Origin::parse(&format!("https://{host}")).ok()
}

/// Tells the browser that a page of this origin may have the response.
pub(crate) fn show(response: &mut Response, origin: Option<&Origin>, shown: &Shown) {
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = origin.and_then(|it| HeaderValue::from_str(it.as_str()).ok()) else {
        return;
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(shown.exposed));
}

/// Adds what a preflight asks for.
pub(crate) fn preflight(response: &mut Response, origin: Option<&Origin>, shown: &Shown) {
    show(response, origin, shown);
    if origin.is_none() {
        return;
    }
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(shown.methods));
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(shown.headers));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(origin: &str, host: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        headers
    }

    #[test]
    fn an_origin_is_read_as_browsers_write_it() {
        let same = Origin::parse("https://app.example").unwrap();
        assert_eq!(Origin::parse("https://APP.example:443").unwrap(), same);
        assert_eq!(Origin::parse("https://[2001:db8::1]:8443").unwrap().as_str().len(), 26);
        for wrong in [
            "null",
            "*",
            "http://app.example",
            "https://",
            "https://a/b",
            "https://u@h:x",
            "",
            "https://*.a",
        ] {
            assert_eq!(Origin::parse(wrong), Err(NotAnOrigin), "{wrong}");
        }
    }

    #[test]
    fn listed_pages_and_the_edges_own_may_and_others_may_not() {
        let origins: Origins = Origin::parse("https://app.example").into_iter().collect();
        assert!(origins.of(&headers("https://app.example", "edge.example:8443")).is_ok());
        let own = origins.of(&headers("https://edge.example:8443", "edge.example:8443"));
        assert!(own.unwrap().is_some());
        for foreign in ["https://evil.example", "https://edge.example", "null", "file://"] {
            let refused = origins.of(&headers(foreign, "edge.example:8443")).unwrap_err();
            assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{foreign}");
        }
        assert_eq!(origins.of(&HeaderMap::new()), Ok(None), "no browser");
    }
}
