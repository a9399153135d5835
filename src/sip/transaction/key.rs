//! How messages find their transaction (RFC 3261 sections 17.1.3 and 17.2.3).

use crate::fields::CSeq;
use crate::header::{Header, Headers, Name};
use crate::lex::{split_list, written};
use crate::message::{Request, Response};
use crate::method::Method;
use crate::via::Via;

/// What two messages of one transaction have in common. Server and client keys never meet.
pub(super) type MatchKey = Box<[u8]>;

/// The key of a server transaction; an ACK has that of its INVITE, for a CANCEL
/// see [`cancelled`]. `None` where the request was not validated.
pub(super) fn server(request: &Request) -> Option<MatchKey> {
    match request.method {
        Method::Ack => server_as(request, &Method::Invite),
        _ => server_as(request, &request.method),
    }
}

/// The key of the INVITE that a CANCEL wants to end (RFC 3261 section 9.2).
pub(super) fn cancelled(cancel: &Request) -> Option<MatchKey> {
    server_as(cancel, &Method::Invite)
}

fn server_as(request: &Request, method: &Method) -> Option<MatchKey> {
    let headers = &request.headers;
    let via = headers.top_via().ok()?;
    match via.branch().filter(|_| via.has_cookie()) {
        Some(branch) => {
            let sent_by = format!("{}:{}", via.host, via.port.unwrap_or(0)).to_ascii_lowercase();
            Some(join(&[b"new", branch.as_bytes(), sent_by.as_bytes(), method.as_str().as_bytes()]))
        }
        None => old(request, headers, method),
    }
}

/// RFC 3261 section 17.2.3 for RFC 2543 peers. The To tag is left out, since an ACK carries the one
/// that our response set; all else must match.
fn old(request: &Request, headers: &Headers, method: &Method) -> Option<MatchKey> {
    let text = headers.text(Name::Via)?;
    let via = split_list(text).next()?;
    // `received` and `rport` were set by us and may differ between two copies.
    let mut via = Via::parse(via)?;
    via.params.remove("received");
    via.params.remove("rport");
    Some(join(&[
        b"old",
        request.uri.as_str().as_bytes(),
        headers.from_tag().unwrap_or_default().as_bytes(),
        headers.call_id().ok()?.as_bytes(),
        headers.cseq().ok()?.number.to_string().as_bytes(),
        written(&via).as_bytes(),
        method.as_str().as_bytes(),
    ]))
}

/// The key of a client transaction, of a request as well as of its responses.
pub(super) fn client(via: &Via, cseq: &CSeq) -> Option<MatchKey> {
    Some(join(&[via.branch()?.as_bytes(), cseq.method.as_str().as_bytes()]))
}

pub(super) fn client_of(response: &Response) -> Option<MatchKey> {
    client(&response.headers.top_via().ok()?, &response.headers.cseq().ok()?)
}

/// What two copies of one request that came by different paths have in common
/// (RFC 3261 section 8.2.2.2); `None` for requests within a dialog.
pub(super) fn merged(request: &Request) -> Option<MatchKey> {
    let headers = &request.headers;
    if headers.to_tag().is_some() || matches!(request.method, Method::Ack | Method::Cancel) {
        return None;
    }
    Some(join(&[
        headers.from_tag()?.as_bytes(),
        headers.call_id().ok()?.as_bytes(),
        headers.first(Name::CSeq).map(Header::bytes)?,
    ]))
}

/// Header values hold no line feed, so that none can imitate a border.
fn join(parts: &[&[u8]]) -> MatchKey {
    parts.join(&b'\n').into()
}
