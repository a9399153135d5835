use super::*;
use crate::Message;
use crate::parse;

fn invite(extra: &str) -> Request {
    let text = format!(
        "INVITE sip:b@edge SIP/2.0\r\nVia: SIP/2.0/TLS a;branch=z9hG4bK1\r\n\
         From: \"A\" <sip:a@h>;tag=at\r\nTo: <sip:b@edge>\r\nCall-ID: c1\r\nCSeq: 10 INVITE\r\n\
         {extra}\r\n"
    );
    match parse::datagram(&text.into()) {
        Ok(Message::Request(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn uris(request: &Request) -> Vec<String> {
    request.headers.routes().unwrap().iter().map(|route| route.uri.to_string()).collect()
}

const CONTACT: &str = "Contact: <sip:a@192.0.2.1:5061;transport=tls>\r\n";
const ROUTES: &str = "Record-Route: <sip:p1;lr>, <sip:p2;lr>\r\n";

#[test]
fn the_callee_side_takes_routes_in_order_and_swaps_the_parties() {
    let mut dialog = Dialog::uas(&invite(&[CONTACT, ROUTES].concat()), "bt").unwrap();
    assert_eq!(dialog.next_hop().as_str(), "sip:p1;lr");
    let bye = dialog.request(Method::Bye);
    assert_eq!(bye.uri.as_str(), "sip:a@192.0.2.1:5061;transport=tls");
    assert_eq!(uris(&bye), ["sip:p1;lr", "sip:p2;lr"]);
    assert_eq!(bye.headers.text(Name::From), Some("<sip:b@edge>;tag=bt"));
    assert_eq!(bye.headers.text(Name::To), Some("\"A\" <sip:a@h>;tag=at"));
    assert_eq!(bye.headers.text(Name::CSeq), Some("1 BYE"));
    let next = dialog.request(Method::Info);
    assert_eq!(next.headers.text(Name::CSeq), Some("2 INFO"));
}

#[test]
fn both_ends_name_the_same_dialog() {
    let invite = invite(CONTACT);
    let mut answer = Response::to(&invite, Status::OK, Some("bt"));
    answer.headers.push(Name::Contact, "<sip:b@edge:5061>");
    let mut caller = Dialog::uac(&invite, &answer).unwrap();
    let mut callee = Dialog::uas(&invite, "bt").unwrap();
    let bye = caller.request(Method::Bye);
    assert_eq!(bye.headers.text(Name::CSeq), Some("11 BYE"));
    assert_eq!(DialogId::of_request(&bye).as_ref(), Some(callee.id()));
    assert_eq!(callee.receive(&bye), Ok(()));
    let info = callee.request(Method::Info);
    assert_eq!(DialogId::of_request(&info).as_ref(), Some(caller.id()));
    assert_eq!(DialogId::of_response(&answer).as_ref(), Some(caller.id()));
    assert_eq!(DialogId::of_request(&invite), None);
}

#[test]
fn the_caller_side_reverses_the_routes_and_the_2xx_overrides_the_early_dialog() {
    let invite = invite(&[CONTACT, ROUTES].concat());
    let ringing = Response::to(&invite, Status::RINGING, Some("bt"));
    let mut dialog = Dialog::uac(&invite, &ringing).unwrap();
    assert_eq!(dialog.remote_target().as_str(), "sip:b@edge");
    assert_eq!(dialog.next_hop().as_str(), "sip:p2;lr");

    let mut ok = Response::to(&invite, Status::OK, Some("bt"));
    assert!(dialog.confirm(&ok).is_err(), "a 2xx needs a Contact");
    ok.headers.set(Name::RecordRoute, "<sip:p3;lr>");
    ok.headers.push(Name::Contact, "<sip:b@192.0.2.7?Subject=x>");
    dialog.confirm(&ok).unwrap();
    let ack = dialog.ack(10);
    assert_eq!(ack.headers.text(Name::CSeq), Some("10 ACK"));
    assert_eq!(ack.uri.as_str(), "sip:b@192.0.2.7");
    assert_eq!(uris(&ack), ["sip:p3;lr"]);
}

#[test]
fn a_strict_router_takes_the_request_uri() {
    let strict = "Record-Route: <sip:old?X=1>, <sip:p2;lr>\r\n";
    let mut dialog = Dialog::uas(&invite(&[CONTACT, strict].concat()), "bt").unwrap();
    let bye = dialog.request(Method::Bye);
    assert_eq!(bye.uri.as_str(), "sip:old");
    assert_eq!(uris(&bye), ["sip:p2;lr", "sip:a@192.0.2.1:5061;transport=tls"]);
}

#[test]
fn a_lower_cseq_is_out_of_order_and_an_ack_is_not() {
    let invite = invite(CONTACT);
    let mut dialog = Dialog::uas(&invite, "bt").unwrap();
    let with = |number: u32, method: Method| {
        let mut request = Request::new(method, invite.uri.clone());
        request.headers.push(Name::CSeq, format!("{number} {}", request.method));
        request
    };
    assert_eq!(dialog.receive(&with(12, Method::Info)), Ok(()));
    let late = dialog.receive(&with(11, Method::Update));
    assert_eq!(late, Err(OutOfOrder { seen: 12, found: 11 }));
    assert_eq!(dialog.receive(&with(10, Method::Ack)), Ok(()));
    assert_eq!(dialog.receive(&with(13, Method::Bye)), Ok(()));
}

#[test]
fn the_target_follows_the_peers_contact() {
    let mut dialog = Dialog::uas(&invite(CONTACT), "bt").unwrap();
    dialog.refresh_target(&invite("Contact: <sip:a@moved>\r\n").headers);
    assert_eq!(dialog.remote_target().as_str(), "sip:a@moved");
    dialog.refresh_target(&invite("").headers);
    assert_eq!(dialog.remote_target().as_str(), "sip:a@moved");
}

#[test]
fn what_makes_no_dialog_is_refused() {
    assert!(Dialog::uas(&invite(""), "bt").is_err());
    assert!(Dialog::uas(&invite("Contact: *\r\n"), "bt").is_err());
    assert!(Dialog::uas(&invite(&[CONTACT, "Record-Route: nonsense\r\n"].concat()), "bt").is_err());
    let invite = invite(CONTACT);
    for response in [
        Response::to(&invite, Status::TRYING, Some("bt")),
        Response::to(&invite, Status::BUSY_HERE, Some("bt")),
        Response::to(&invite, Status::RINGING, None),
    ] {
        assert_eq!(Dialog::uac(&invite, &response), Err(DialogError::NoDialog));
    }
}
