//! What every page of the console has.

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::html::{Html, put};
use super::session::Person;

/// Nothing but what this very edge serves as a file; no frame, no inline script or style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; media-src 'self' blob:; img-src 'self' data:; form-action 'self'; \
    frame-ancestors 'none'; base-uri 'none'";

/// Where a page stands in the navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    SignIn,
    Talk,
    Calls,
    Call,
}

/// A page to be filled.
pub(crate) struct Page<'a> {
    pub(crate) title: &'a str,
    pub(crate) place: Place,
    pub(crate) person: Option<Person>,
    /// The page's own script, by its name.
    pub(crate) script: Option<&'static str>,
}

impl Page<'_> {
    /// The whole page around its main part.
    pub(crate) fn around(&self, status: StatusCode, main: &Html) -> Response {
        let mut page = Html::default();
        put!(
            page,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"color-scheme\" content=\"light dark\">\
             <title>{} – callgate</title>\
             <link rel=\"icon\" href=\"/console/assets/icon.svg\" type=\"image/svg+xml\">\
             <link rel=\"stylesheet\" href=\"/console/assets/style.css\">",
            self.title,
        );
        if let Some(script) = self.script {
            put!(page, "<script type=\"module\" src=\"/console/assets/{}\"></script>", script);
        }
        put!(page, "</head><body><a class=\"skip\" href=\"#main\">Skip to the content</a>");
        self.header(&mut page);
        put!(page, "<main id=\"main\" tabindex=\"-1\">{}</main></body></html>\n", main);
        let mut response = (status, page.into_string()).into_response();
        guard(response.headers_mut());
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, html);
        response
    }

    fn header(&self, page: &mut Html) {
        put!(page, "<header><a class=\"brand\" href=\"/console\">callgate</a>");
        if let Some(person) = self.person {
            put!(page, "<nav aria-label=\"Pages\"><ul>");
            for (place, path, name) in
                [(Place::Talk, "/console/talk", "Talk"), (Place::Calls, "/console/calls", "Calls")]
            {
                let is_here =
                    place == self.place || (place, self.place) == (Place::Calls, Place::Call);
                put!(page, "<li><a href=\"{}\"", path);
                if is_here {
                    put!(page, " aria-current=\"page\"");
                }
                put!(page, ">{}</a></li>", name);
            }
            put!(
                page,
                "</ul></nav><form class=\"out\" method=\"post\" action=\"/console/sign-out\">\
                 <span class=\"who\">{}{}</span><button class=\"quiet\">Sign out</button></form>",
                person.key.to_string(),
                if person.can_write { "" } else { " (read only)" },
            );
        }
        put!(page, "</header>");
    }
}

/// The headers of whatever the console answers: its content is one person's.
pub(crate) fn guard(headers: &mut HeaderMap) {
    const PERMISSIONS: HeaderName = HeaderName::from_static("permissions-policy");
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "private, no-store"),
        // `no-referrer` would take the origin from our own forms as well.
        (REFERRER_POLICY, "same-origin"),
        (PERMISSIONS, "camera=(), geolocation=(), microphone=(self)"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
