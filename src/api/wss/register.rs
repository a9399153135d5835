//! The answer to a REGISTER (RFC 3261 section 10.3), with as much of outbound (RFC 5626) and GRUU
//! (RFC 5627) as browsers' clients ask for.

use std::sync::Arc;

use base::{Instant, limit};
use sip::{Contacts, Name, NameAddr, Request, Response, Scheme, Status, Uri, ids};
use transport::Flow;

use super::door::House;
use super::registrar::{Held, Order, Rejected, Wanted};

/// Does what `request` asks for, for the account that has been proved, and makes its answer; no
/// binding lasts for more than `most` seconds.
pub(super) fn answer(
    house: &House,
    (now, account): (Instant, &str),
    flow: &Arc<Flow>,
    request: &Request,
    most: Option<u32>,
    tag: &str,
) -> Response {
    let refuse = |status| Response::to(request, status, Some(tag));
    let unknown: Vec<_> = required(request).filter(|it| !KNOWN.contains(&&**it)).collect();
    if !unknown.is_empty() {
        let mut response = refuse(Status::BAD_EXTENSION);
        response.headers.push_tokens(Name::Unsupported, unknown);
        return response;
    }
    let order = match order(house, request, most) {
        Ok(order) => order,
        Err(Bad::TooBrief) => {
            let mut response = refuse(Status::INTERVAL_TOO_BRIEF);
            let least = limit::API_REGISTER_MIN_S.value.to_string();
            response.headers.push(Name::MinExpires, least);
            return response;
        }
        Err(Bad::Malformed) => return refuse(Status::BAD_REQUEST),
    };
    let (Ok(call_id), Ok(cseq)) = (request.headers.call_id(), request.headers.cseq()) else {
        return refuse(Status::BAD_REQUEST);
    };
    match house.registrar.register(now, account, flow, (call_id, cseq.number), order) {
        Ok(held) => done(house, account, request, tag, &held),
        Err(Rejected::Late) => refuse(Status::SERVER_INTERNAL_ERROR),
        Err(Rejected::Full) => {
            let mut response = refuse(Status::SERVICE_UNAVAILABLE);
            response.headers.set_retry_after(RETRY_AFTER);
            response
        }
    }
}

/// What a client may require of a registrar here.
const KNOWN: [&str; 3] = ["outbound", "gruu", "path"];

/// Seconds after which a client tries again where there is no room.
const RETRY_AFTER: u32 = 60;

fn required(request: &Request) -> impl Iterator<Item = String> {
    let tags = request.headers.list(Name::Require).unwrap_or_default();
    tags.into_iter().map(str::to_ascii_lowercase)
}

enum Bad {
    Malformed,
    TooBrief,
}

fn order(house: &House, request: &Request, most: Option<u32>) -> Result<Order, Bad> {
    let headers = &request.headers;
    // RFC 3261 section 10.3: a malformed time counts as none.
    let common = headers.seconds(Name::Expires).ok().flatten();
    let addresses = match headers.contacts().map_err(|_| Bad::Malformed)? {
        // RFC 3261 section 10.2.2: `*` with `Expires: 0` and nothing else.
        Contacts::Every if common == Some(0) => return Ok(Order::Clear),
        Contacts::Every => return Err(Bad::Malformed),
        Contacts::Addresses(addresses) if addresses.is_empty() => return Ok(Order::Ask),
        Contacts::Addresses(addresses) => addresses,
    };
    let has_outbound = supports(request, "outbound");
    let one = |address| wanted(house, address, common, most, has_outbound);
    addresses.into_iter().map(one).collect::<Result<_, _>>().map(Order::Change)
}

fn wanted(
    house: &House,
    address: NameAddr,
    common: Option<u32>,
    most: Option<u32>,
    has_outbound: bool,
) -> Result<Wanted, Bad> {
    if !matches!(address.uri.scheme(), Scheme::Sip | Scheme::Sips) {
        return Err(Bad::Malformed);
    }
    let of_limit = |limit: &base::Limit| u32::try_from(limit.value).unwrap_or(u32::MAX);
    let own = address.params.value("expires").and_then(|it| it.parse().ok());
    let longest = of_limit(&limit::API_REGISTER_MAX_S);
    let asked: u32 = own.or(common).unwrap_or(longest);
    if asked > 0 && asked < of_limit(&limit::API_REGISTER_MIN_S) {
        return Err(Bad::TooBrief);
    }
    let expires = asked.min(longest).min(most.unwrap_or(longest));
    let instance = address.params.unquoted("+sip.instance").map(std::borrow::Cow::into_owned);
    // RFC 5626 section 6: without an instance there is no flow to tell apart.
    let reg_id = address.params.value("reg-id").and_then(|it| it.parse().ok());
    let reg_id = reg_id.filter(|id: &u32| has_outbound && instance.is_some() && *id > 0);
    let temporary = format!("tgruu.{}", ids::new_call_id(&mut house.random()));
    Ok(Wanted { contact: address.uri, instance, reg_id, expires, temporary })
}

fn supports(request: &Request, tag: &str) -> bool {
    request.headers.has_token(Name::Supported, tag) || request.headers.has_token(Name::Require, tag)
}

/// The 200 with everything that is bound.
fn done(house: &House, account: &str, request: &Request, tag: &str, held: &[Held]) -> Response {
    let mut response = Response::to(request, Status::OK, Some(tag));
    let has_gruu = supports(request, "gruu");
    for it in held {
        let mut contact =
            NameAddr::new(it.contact.clone()).with_param("expires", Some(&it.expires.to_string()));
        if let Some(instance) = &it.instance {
            contact = contact.with_param("+sip.instance", Some(instance));
            if has_gruu {
                let (public, temporary) = gruus(house, account, it, instance);
                contact = contact.with_param("pub-gruu", Some(&public));
                contact = contact.with_param("temp-gruu", Some(&temporary));
            }
        }
        if let Some(id) = it.reg_id {
            contact = contact.with_param("reg-id", Some(&id.to_string()));
        }
        response.headers.push(Name::Contact, contact.to_string());
    }
    response.headers.push_tokens(Name::Supported, ["outbound", "gruu"]);
    if held.iter().any(|it| it.reg_id.is_some()) {
        response.headers.push(Name::Require, "outbound"); // RFC 5626 section 6
    }
    response
}

/// The addresses that lead to one client alone (RFC 5627 section 5): one that says whose it is, and
/// one that does not.
fn gruus(house: &House, account: &str, held: &Held, instance: &str) -> (String, String) {
    let id = instance.trim_start_matches('<').trim_end_matches('>');
    let public = Uri::sip(Some(account), &house.host, None).with_param("gr", Some(id));
    let temporary = Uri::sip(Some(&held.temporary), &house.host, None).with_param("gr", None);
    (public.to_string(), temporary.to_string())
}
