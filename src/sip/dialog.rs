//! Dialogs (RFC 3261 section 12): what both ends must remember to send each other requests.
//!
//! A [`Dialog`] holds no call state, no offer and no timer. The owner keeps it beside its leg,
//! finds it by [`DialogId`], and sends what it builds through [`crate::Transactions`].

use std::fmt;

use bytes::Bytes;

use crate::fields::HeaderError;
use crate::header::{Header, Headers, Name};
use crate::lex::written;
use crate::message::{Request, Response};
use crate::method::Method;
use crate::name_addr::NameAddr;
use crate::status::Status;
use crate::uri::{Scheme, Uri};

/// What identifies a dialog at this end (RFC 3261 section 12).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialogId {
    /// The Call-ID.
    pub call_id: String,
    /// Our tag.
    pub local_tag: String,
    /// The peer's tag; empty where the peer is of RFC 2543 and sent none.
    pub remote_tag: String,
}

impl DialogId {
    /// The dialog that an arriving request belongs to; `None` for a request outside any dialog.
    #[must_use]
    pub fn of_request(request: &Request) -> Option<Self> {
        let headers = &request.headers;
        Some(Self {
            call_id: headers.call_id().ok()?.to_owned(),
            local_tag: headers.to_tag()?,
            remote_tag: headers.from_tag().unwrap_or_default(),
        })
    }

    /// The dialog that an arriving response belongs to or makes; `None` without tags.
    #[must_use]
    pub fn of_response(response: &Response) -> Option<Self> {
        let headers = &response.headers;
        Some(Self {
            call_id: headers.call_id().ok()?.to_owned(),
            local_tag: headers.from_tag()?,
            remote_tag: headers.to_tag()?,
        })
    }
}

/// Why no dialog can be made of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DialogError {
    /// A field that the dialog needs is missing or malformed; answer 400 to a request.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The response has no To tag, or its status makes no dialog.
    #[error("the response makes no dialog")]
    NoDialog,
}

impl DialogError {
    /// The status to answer, where it was a request.
    #[must_use]
    pub const fn status(&self) -> Status {
        Status::BAD_REQUEST
    }
}

/// A request whose CSeq is lower than one already seen: answer 500
/// (RFC 3261 section 12.2.2), catalogued as [`base::Reason::OutOfOrder`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("CSeq {found} is lower than {seen}, which was already seen")]
pub struct OutOfOrder {
    /// The highest number seen.
    pub seen: u32,
    /// The number of this request.
    pub found: u32,
}

/// One end of a dialog.
#[derive(Clone, PartialEq, Eq)]
pub struct Dialog {
    id: DialogId,
    /// The value of our From in requests of ours.
    local: Bytes,
    /// The value of our To in requests of ours.
    remote: Bytes,
    local_seq: u32,
    remote_seq: Option<u32>,
    remote_target: Uri,
    route_set: Vec<NameAddr>,
    is_secure: bool,
}

impl Dialog {
    /// The dialog that our answer with `local_tag` to `request` makes
    /// (RFC 3261 section 12.1.1).
    ///
    /// # Errors
    /// A field is missing or malformed (Contact among them): answer 400.
    pub fn uas(request: &Request, local_tag: &str) -> Result<Self, DialogError> {
        let headers = &request.headers;
        let remote_tag = headers.from()?.tag().unwrap_or_default().to_owned();
        let call_id = headers.call_id()?.to_owned();
        let id = DialogId { call_id, local_tag: local_tag.to_owned(), remote_tag };
        let answer = Response::to(request, Status::OK, Some(local_tag));
        let target = headers.contact()?.uri;
        Ok(Self {
            id,
            local: value(&answer.headers, Name::To)?,
            remote: value(headers, Name::From)?,
            local_seq: 0,
            remote_seq: Some(headers.cseq()?.number),
            route_set: headers.record_routes()?,
            is_secure: request.uri.scheme() == Scheme::Sips,
            remote_target: target,
        })
    }

    /// The dialog that a 101-299 `response` to our `request` makes (RFC 3261 section 12.1.2):
    /// early or confirmed, one for each To tag.
    ///
    /// # Errors
    /// The response makes no dialog, or a field is missing or malformed.
    pub fn uac(request: &Request, response: &Response) -> Result<Self, DialogError> {
        if response.status == Status::TRYING || response.status.is_failure() {
            return Err(DialogError::NoDialog);
        }
        let headers = &response.headers;
        let mut dialog = Self {
            id: DialogId::of_response(response).ok_or(DialogError::NoDialog)?,
            local: value(headers, Name::From)?,
            remote: value(headers, Name::To)?,
            local_seq: headers.cseq()?.number,
            remote_seq: None,
            // RFC 3261 section 12.1.1 makes Contact mandatory in a 2xx; a provisional
            // response often lacks it, and then only the place that we called is known.
            remote_target: headers.contact().map_or_else(|_| request.uri.clone(), |it| it.uri),
            route_set: Vec::new(),
            is_secure: request.uri.scheme() == Scheme::Sips,
        };
        dialog.route_set = dialog.reversed_routes(headers)?;
        if response.status.is_success() {
            headers.contact()?;
        }
        Ok(dialog)
    }

    /// Takes the 2xx that confirms an early dialog of ours: its Record-Route replaces the route
    /// set and its Contact the target (RFC 3261 section 13.2.2.4).
    ///
    /// # Errors
    /// A field is malformed; the dialog stays as it was.
    pub fn confirm(&mut self, response: &Response) -> Result<(), DialogError> {
        let route_set = self.reversed_routes(&response.headers)?;
        self.remote_target = response.headers.contact()?.uri;
        self.route_set = route_set;
        Ok(())
    }

    fn reversed_routes(&self, headers: &Headers) -> Result<Vec<NameAddr>, HeaderError> {
        let mut routes = headers.record_routes()?;
        routes.reverse();
        Ok(routes)
    }

    /// What identifies the dialog.
    #[must_use]
    pub const fn id(&self) -> &DialogId {
        &self.id
    }

    /// Where requests of ours go in the end.
    #[must_use]
    pub const fn remote_target(&self) -> &Uri {
        &self.remote_target
    }

    /// Whether it was made by a `sips:` request: every hop must be TLS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The URI of the first hop of our requests, for RFC 3263: the first route or the target.
    #[must_use]
    pub fn next_hop(&self) -> &Uri {
        self.route_set.first().map_or(&self.remote_target, |route| &route.uri)
    }

    /// Checks the CSeq of a request that arrived within the dialog and remembers it
    /// (RFC 3261 section 12.2.2). ACK and CANCEL repeat the number of their INVITE and pass.
    ///
    /// # Errors
    /// The number is lower than one already seen: answer 500.
    pub fn receive(&mut self, request: &Request) -> Result<(), OutOfOrder> {
        if matches!(request.method, Method::Ack | Method::Cancel) {
            return Ok(());
        }
        let found = request.headers.cseq().map_or(0, |cseq| cseq.number);
        match self.remote_seq {
            Some(seen) if found < seen => Err(OutOfOrder { seen, found }),
            _ => {
                self.remote_seq = Some(found);
                Ok(())
            }
        }
    }

    /// Takes the peer's new Contact, from a target refresh request that we answer with 2xx or
    /// from a 2xx to one of ours (RFC 3261 section 12.2, RFC 6141 section 4). A Contact that is
    /// missing or malformed leaves the target as it is.
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Ok(contact) = headers.contact() {
            self.remote_target = contact.uri;
        }
    }

    /// A request within the dialog, with the next CSeq, the route set (loose or strict, RFC 3261
    /// section 12.2.1.1) and Max-Forwards; Via and Contact are the owner's. For an ACK
    /// use [`Dialog::ack`].
    #[must_use]
    pub fn request(&mut self, method: Method) -> Request {
        // RFC 3261 section 8.1.1.5: the number stays below 2^31.
        self.local_seq = (self.local_seq + 1) & 0x7fff_ffff;
        self.build(method, self.local_seq)
    }

    /// The ACK of a 2xx to our INVITE with this CSeq number (RFC 3261 section 13.2.2.4). It needs
    /// a new branch and is sent outside any transaction, again for each repeated 2xx.
    #[must_use]
    pub fn ack(&self, invite_cseq: u32) -> Request {
        self.build(Method::Ack, invite_cseq)
    }

    fn build(&self, method: Method, seq: u32) -> Request {
        let (uri, routes) = self.routing();
        let mut request = Request::new(method, uri);
        let headers = &mut request.headers;
        for route in routes {
            headers.push(Name::Route, written(&route));
        }
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, &self.local);
        headers.push(Name::To, &self.remote);
        headers.push(Name::CallId, &self.id.call_id);
        headers.push(Name::CSeq, format!("{seq} {}", request.method));
        request
    }

    fn routing(&self) -> (Uri, Vec<NameAddr>) {
        match self.route_set.split_first() {
            // RFC 3261 section 12.2.1.1: a first hop without `lr` takes its own URI as the
            // Request-URI, and the target goes to the end of the routes.
            Some((first, rest)) if !first.uri.is_loose_router() => {
                let mut routes = rest.to_vec();
                routes.push(NameAddr::new(self.remote_target.clone()));
                (first.uri.without_headers().without_param("method"), routes)
            }
            _ => (self.remote_target.without_headers(), self.route_set.clone()),
        }
    }
}

impl fmt::Debug for Dialog {
    /// Leaves the parties out: they are people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} -> {:?} by {:?}", self.id, self.remote_target, self.route_set)
    }
}

fn value(headers: &Headers, name: Name) -> Result<Bytes, HeaderError> {
    let missing = HeaderError { name, fault: crate::fields::HeaderFault::Missing };
    headers.first(name).map(Header::bytes).cloned().ok_or(missing)
}

#[cfg(test)]
#[path = "dialog_tests.rs"]
mod tests;
