//! Requests and responses, and how one is made from the other (RFC 3261 sections 8.2.6, 9.1 and
//! 17.1.1.3).

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::fields::HeaderError;
use crate::header::{Headers, Name};
use crate::lex::written;
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::status::Status;
use crate::uri::Uri;
use crate::via::Via;

/// A SIP message: header fields in order and as written, body byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A request.
    Request(Request),
    /// A response.
    Response(Response),
}

impl Message {
    /// The header fields.
    #[must_use]
    pub const fn headers(&self) -> &Headers {
        match self {
            Self::Request(request) => &request.headers,
            Self::Response(response) => &response.headers,
        }
    }

    /// The body.
    #[must_use]
    pub const fn body(&self) -> &Bytes {
        match self {
            Self::Request(request) => &request.body,
            Self::Response(response) => &response.body,
        }
    }

    /// Every Via value; see [`Headers::vias`].
    ///
    /// # Errors
    /// Missing, malformed or too many.
    pub fn vias(&self) -> Result<Vec<Via>, HeaderError> {
        self.headers().vias()
    }
}

impl From<Request> for Message {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Response> for Message {
    fn from(response: Response) -> Self {
        Self::Response(response)
    }
}

/// A request.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The Request-URI.
    pub uri: Uri,
    /// The header fields; Content-Length is set when writing.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request without header fields and body.
    #[must_use]
    pub const fn new(method: Method, uri: Uri) -> Self {
        Self { method, uri, headers: Headers::new(), body: Bytes::new() }
    }

    /// A request outside any dialog (RFC 3261 section 8.1.1); `from` has our tag. Via and Contact
    /// are the owner's. Requests within a dialog come from [`crate::Dialog::request`].
    #[must_use]
    pub fn outside_dialog(
        method: Method,
        uri: Uri,
        from: &NameAddr,
        to: &NameAddr,
        call_id: &str,
        cseq: u32,
    ) -> Self {
        let mut request = Self::new(method, uri);
        let headers = &mut request.headers;
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, written(from));
        headers.push(Name::To, written(to));
        headers.push(Name::CallId, call_id);
        headers.push(Name::CSeq, format!("{cseq} {}", request.method));
        request
    }

    /// The same with a body of this type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.headers.set(Name::ContentType, content_type);
        self.body = body.into();
        self
    }

    /// Records the source address in the newest Via: the first thing to do with a request that
    /// arrived (RFC 3261 section 18.2.1, RFC 3581).
    pub fn stamp_source(&mut self, source: SocketAddr) {
        self.headers.edit_top_via(|via| via.stamp(source));
    }

    /// The CANCEL of this request as it was sent, its top Via included
    /// (RFC 3261 section 9.1); `reason` may be added to its fields.
    #[must_use]
    pub fn cancel(&self) -> Self {
        let mut cancel = self.sibling(Method::Cancel);
        cancel.headers.copy(Name::To, &self.headers);
        cancel
    }

    /// The ACK of a 3xx-6xx `response` to this INVITE as it was sent
    /// (RFC 3261 section 17.1.1.3): To comes from the response.
    #[must_use]
    pub fn ack_failure(&self, response: &Response) -> Self {
        let mut ack = self.sibling(Method::Ack);
        ack.headers.copy(Name::To, &response.headers);
        // RFC 3261 section 22.1.
        ack.headers.copy(Name::Authorization, &self.headers);
        ack.headers.copy(Name::ProxyAuthorization, &self.headers);
        ack
    }

    /// A request of the same transaction: same Request-URI, top Via, Route, From, Call-ID and
    /// CSeq number.
    fn sibling(&self, method: Method) -> Self {
        let mut sibling = Self::new(method, self.uri.clone());
        if let Ok(via) = self.headers.top_via() {
            sibling.headers.push_via(&via);
        }
        sibling.headers.copy(Name::Route, &self.headers);
        sibling.headers.push(Name::MaxForwards, "70");
        sibling.headers.copy(Name::From, &self.headers);
        sibling.headers.copy(Name::CallId, &self.headers);
        if let Ok(cseq) = self.headers.cseq() {
            sibling.headers.push(Name::CSeq, format!("{} {}", cseq.number, sibling.method));
        }
        sibling
    }
}

/// A response.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    phrase: Bytes,
    /// The header fields; Content-Length is set when writing.
    pub headers: Headers,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// A response without header fields and body.
    #[must_use]
    pub const fn new(status: Status) -> Self {
        let phrase = Bytes::from_static(status.phrase().as_bytes());
        Self { status, phrase, headers: Headers::new(), body: Bytes::new() }
    }

    /// A parsed response; `phrase` holds no line break.
    pub(crate) const fn parsed(
        status: Status,
        phrase: Bytes,
        headers: Headers,
        body: Bytes,
    ) -> Self {
        Self { status, phrase, headers, body }
    }

    /// The answer to `request`: Via, From, To, Call-ID and CSeq copied (RFC 3261 section 8.2.6.2),
    /// Record-Route where it makes a dialog (section 12.1.1), Timestamp in a 100 (section 8.2.6.1).
    /// `tag` goes into To where To has none and the status is not 100; a final response without
    /// it breaks section 8.2.6.2.
    #[must_use]
    pub fn to(request: &Request, status: Status, tag: Option<&str>) -> Self {
        Self::to_head(&request.method, &request.headers, status, tag)
    }

    pub(crate) fn to_head(
        method: &Method,
        request: &Headers,
        status: Status,
        tag: Option<&str>,
    ) -> Self {
        let mut response = Self::new(status);
        let headers = &mut response.headers;
        headers.copy(Name::Via, request);
        if method.makes_dialog() && status.code() > 100 && !status.is_failure() {
            headers.copy(Name::RecordRoute, request);
        }
        headers.copy(Name::From, request);
        headers.copy(Name::To, request);
        let tag = tag.filter(|_| status != Status::TRYING && request.to_tag().is_none());
        if let (Some(tag), Some(to)) = (tag, request.first(Name::To)) {
            let mut value = to.bytes().to_vec();
            let mut params = crate::params::Params::new();
            params.set("tag", Some(tag));
            value.extend_from_slice(written(&params).as_bytes());
            headers.set(Name::To, value);
        }
        headers.copy(Name::CallId, request);
        headers.copy(Name::CSeq, request);
        if status == Status::TRYING {
            headers.copy(Name::Timestamp, request);
        }
        response
    }

    /// The same with another phrase; line breaks become spaces.
    #[must_use]
    pub fn with_phrase(mut self, phrase: &str) -> Self {
        self.phrase = phrase.replace(['\r', '\n', '\0'], " ").into();
        self
    }

    /// The same with a body of this type.
    #[must_use]
    pub fn with_body(mut self, content_type: &str, body: impl Into<Bytes>) -> Self {
        self.headers.set(Name::ContentType, content_type);
        self.body = body.into();
        self
    }

    /// The phrase as it came, with what is not UTF-8 replaced.
    #[must_use]
    pub fn phrase(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.phrase)
    }

    pub(crate) const fn phrase_bytes(&self) -> &Bytes {
        &self.phrase
    }
}

/// Bodies hold media keys and digits; header values identify people.
fn debug_parts(headers: &Headers, body: &Bytes, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, " {headers:?} [{} bytes]", body.len())
}

impl fmt::Debug for Request {
    /// Prints names and sizes only; [`crate::redact`] prints more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.method, self.uri)?;
        debug_parts(&self.headers, &self.body, f)
    }
}

impl fmt::Debug for Response {
    /// Prints names and sizes only; [`crate::redact`] prints more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        debug_parts(&self.headers, &self.body, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Request {
        let mut invite = Request::new(Method::Invite, Uri::parse("sip:b@h").unwrap());
        let fields = [
            (Name::Via, "SIP/2.0/TLS a;branch=z9hG4bK1, SIP/2.0/TLS b;branch=z9hG4bK2"),
            (Name::RecordRoute, "<sip:p;lr>"),
            (Name::Route, "<sip:q;lr>"),
            (Name::From, "\"A\" <sip:a@h>;tag=1"),
            (Name::To, "sip:b@h"),
            (Name::CallId, "c1"),
            (Name::CSeq, "7 INVITE"),
            (Name::Timestamp, "54"),
        ];
        fields.iter().for_each(|(name, value)| invite.headers.push(*name, value));
        invite
    }

    #[test]
    fn a_response_copies_what_rfc_3261_section_8_2_6_says() {
        let ok = Response::to(&invite(), Status::OK, Some("99"));
        assert_eq!(ok.headers.vias().unwrap().len(), 2);
        assert_eq!(ok.headers.text(Name::To), Some("sip:b@h;tag=99"));
        assert_eq!(ok.headers.from_tag().as_deref(), Some("1"));
        assert!(ok.headers.has(Name::RecordRoute) && !ok.headers.has(Name::Timestamp));

        let trying = Response::to(&invite(), Status::TRYING, Some("99"));
        assert_eq!(trying.headers.to_tag(), None);
        assert!(trying.headers.has(Name::Timestamp) && !trying.headers.has(Name::RecordRoute));

        let mut within = invite();
        within.headers.set(Name::To, "<sip:b@h>;tag=old");
        let busy = Response::to(&within, Status::BUSY_HERE, Some("99"));
        assert_eq!(busy.headers.to_tag().as_deref(), Some("old"));
        assert!(!busy.headers.has(Name::RecordRoute));
    }

    #[test]
    fn cancel_and_ack_share_the_transaction() {
        let cancel = invite().cancel();
        assert_eq!(cancel.headers.vias().unwrap().len(), 1);
        assert_eq!(cancel.headers.cseq().unwrap().to_string(), "7 CANCEL");
        assert_eq!(cancel.headers.to_tag(), None);
        assert!(cancel.headers.has(Name::Route));

        let ack = invite().ack_failure(&Response::to(&invite(), Status::BUSY_HERE, Some("99")));
        assert_eq!(ack.headers.top_via().unwrap().branch(), Some("z9hG4bK1"));
        assert_eq!(ack.headers.cseq().unwrap().to_string(), "7 ACK");
        assert_eq!(ack.headers.to_tag().as_deref(), Some("99"));
    }

    #[test]
    fn debug_output_holds_neither_people_nor_bodies() {
        let message = Message::from(invite().with_body("application/sdp", "inline:s3cret"));
        let printed = format!("{message:?}");
        assert!(printed.starts_with("Request(INVITE sip:[user]@h"), "{printed}");
        for hidden in ["s3cret", "sip:a@h", "115", "c1"] {
            assert!(!printed.contains(hidden), "{printed}");
        }
        assert!(printed.ends_with("[13 bytes])"), "{printed}");
    }

    #[test]
    fn a_request_outside_a_dialog_is_valid_once_it_has_a_via() {
        let from = NameAddr::new(Uri::parse("sip:a@h").unwrap())
            .with_display("A \"b\"")
            .with_param("tag", Some("07-1"));
        let to = NameAddr::new(Uri::parse("tel:+15550100").unwrap());
        let uri = Uri::parse("sip:b@h").unwrap();
        let mut it = Request::outside_dialog(Method::Options, uri, &from, &to, "c1", 1);
        assert!(crate::validate(&Message::Request(it.clone())).is_err());
        let host = crate::Host::parse("edge.example").unwrap();
        it.headers.push_via(&Via::new("TLS", host, Some(5061), "z9hG4bK07-1"));
        assert_eq!(crate::validate(&Message::Request(it.clone())), Ok(()));
        assert_eq!(it.headers.from(), Ok(from));
    }
}
