//! SIP over WebSocket: handshakes, proof, registration, what passes and what ends one.

use std::time::Duration;

use base::{Event, Instant, limit};
use futures_util::SinkExt;
use sip::{Message, Method, Name, Status};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame as Raw, FrameHeader};
use tokio_tungstenite::tungstenite::{Error, Message as Frame};

use crate::sip_client::Browser;
use crate::support::{Edge, now};

const UPGRADE: [&str; 4] = [
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
];

#[tokio::test]
async fn a_handshake_needs_the_protocol_and_a_page_that_may() {
    let edge = Edge::start().await;
    let sip = "Sec-WebSocket-Protocol: sip";
    let with = |more: &[&'static str]| [&UPGRADE[..], more].concat();
    let reply = edge.ask("GET", "/sip", &with(&[sip]), "").await;
    assert_eq!(reply.status, 101);
    assert_eq!(reply.field("sec-websocket-protocol"), Some("sip"));
    assert_eq!(reply.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    let reply = edge.ask("GET", "/sip", &with(&[]), "").await;
    assert_eq!((reply.status, &*reply.code()), (400, "websocket.protocol"));
    let other = "Sec-WebSocket-Protocol: mqtt";
    assert_eq!(edge.ask("GET", "/sip", &with(&[other]), "").await.status, 400);
    let foreign = with(&[sip, "Origin: https://evil.example"]);
    let reply = edge.ask("GET", "/sip", &foreign, "").await;
    assert_eq!((reply.status, &*reply.code()), (403, "api.foreign_origin"));
    let reply = edge.ask("GET", "/sip", &[sip], "").await;
    assert!(matches!(reply.status, 400 | 426), "{reply:?}");
    assert_eq!(reply.code(), "websocket.handshake");
    let refused =
        Browser::from_page(&edge, "alice", "wonderland", Some("https://evil.example")).await;
    assert!(matches!(refused, Err(Error::Http(response)) if response.status() == 403));
    assert!(Browser::from_page(&edge, "alice", "wonderland", None).await.is_ok(), "no browser");
}

/// RFC 6455 section 7.4.1: browsers say so of a page that is closed or loaded again.
#[tokio::test]
async fn a_page_that_goes_away_is_told_apart_from_a_connection_that_breaks() {
    let edge = Edge::start().await;
    for (code, has_left) in
        [(Some(CloseCode::Away), true), (Some(CloseCode::Normal), false), (None, false)]
    {
        let mut alice = Browser::open(&edge, "alice", "wonderland").await;
        alice.registered().await;
        let flow = edge.api.registrar().lookup("alice", Instant::ZERO)[0].flow.id;
        match code {
            Some(code) => {
                let frame = CloseFrame { code, reason: "".into() };
                alice.socket.close(Some(frame)).await.unwrap();
            }
            None => drop(alice),
        }
        edge.calls.until_closed(flow).await;
        assert_eq!(edge.calls.has_left(flow), has_left, "{code:?}");
    }
}

#[tokio::test]
async fn a_browser_registers_and_is_found_until_it_goes() {
    let edge = Edge::start().await;
    let mut alice = Browser::open(&edge, "alice", "wonderland").await;
    let response = alice.registered().await;
    assert_eq!(response.status, Status::OK);
    assert!(response.headers.has_token(Name::Require, "outbound"));
    let contact = response.headers.contact().unwrap();
    assert_eq!(contact.uri.as_str(), "sip:x7@browser.invalid;transport=ws");
    assert_eq!(contact.params.value("reg-id"), Some("1"));
    let expires: u32 = contact.params.value("expires").unwrap().parse().unwrap();
    assert!((590..=600).contains(&expires));
    let gruu = contact.params.unquoted("pub-gruu").unwrap();
    assert_eq!(gruu, "sip:alice@edge.example;gr=urn:uuid:11111111-2222-3333-4444-555555555555");
    let temporary = contact.params.unquoted("temp-gruu").unwrap();
    assert!(temporary.starts_with("sip:tgruu.") && temporary.ends_with("@edge.example;gr"));
    let via = response.headers.top_via().unwrap();
    assert_eq!(via.received().unwrap().to_string(), "127.0.0.1");
    let registrar = edge.api.registrar();
    let found = registrar.lookup("alice", Instant::ZERO);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].contact.as_str(), "sip:x7@browser.invalid;transport=ws");
    assert_eq!(found[0].flow.transport, transport::Transport::Wss);
    assert!(edge.calls.has_heard_nothing(), "REGISTER is not the calls' business");
    // The calls reach the browser by its flow.
    let flow = found[0].flow.id;
    let invite = alice.request(Method::Invite, "sip:x7@browser.invalid;transport=ws");
    edge.calls.send(flow, invite.clone());
    let Message::Request(heard) = alice.message().await else { panic!() };
    assert_eq!((heard.method, heard.uri), (Method::Invite, invite.uri));
    drop(alice);
    edge.calls.until_closed(flow).await;
    assert!(registrar.lookup("alice", Instant::ZERO).is_empty());
}

#[tokio::test]
async fn wrong_passwords_and_strange_names_are_refused() {
    let edge = Edge::start().await;
    for (user, password) in [("alice", "wrong"), ("nobody", "wonderland")] {
        let mut browser = Browser::open(&edge, user, password).await;
        assert_eq!(browser.registered().await.status, Status::FORBIDDEN);
    }
    let mut alice = Browser::open(&edge, "alice", "wonderland").await;
    let mut request = alice.register("<sip:x@h.invalid>");
    request.headers.set(Name::To, "<sip:bob@edge.example>");
    assert_eq!(alice.proved(request).await.status, Status::FORBIDDEN, "another's address");
    assert_eq!(edge.api.registrar().count(), 0);
    assert!(edge.has_event(|it| matches!(it, Event::LoginRefused { how: "digest", .. })));
}

#[tokio::test]
async fn too_many_wrong_passwords_hold_a_source_back() {
    let edge = Edge::start().await;
    let mut browser = Browser::open(&edge, "alice", "wrong").await;
    for _ in 0..limit::API_WRONG_TRIES.value {
        assert_eq!(browser.registered().await.status, Status::FORBIDDEN);
    }
    let mut alice = Browser::open(&edge, "alice", "wonderland").await;
    let response = alice.registered().await;
    assert_eq!(response.status, Status::FORBIDDEN);
    assert!(response.headers.has(Name::RetryAfter));
}

#[tokio::test]
async fn nothing_of_an_unproved_sender_passes() {
    let edge = Edge::start().await;
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    let mut ack = browser.request(Method::Ack, "sip:agent@edge.example");
    ack.headers.set(Name::CSeq, "9 ACK");
    browser.send(ack).await;
    let request = browser.request(Method::Options, "sip:agent@edge.example");
    browser.send(sip::Response::to(&request, Status::OK, Some("t"))).await;
    let mut within = browser.request(Method::Bye, "sip:agent@edge.example");
    within.headers.set(Name::To, "<sip:agent@edge.example>;tag=00-0000000000000000");
    browser.send(within).await;
    assert_eq!(browser.response().await.status, Status::UNAUTHORIZED);
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn a_proved_browser_calls_without_its_credentials_reaching_the_calls() {
    let edge = Edge::start().await;
    let mut alice = Browser::open(&edge, "alice", "wonderland").await;
    let mut invite = alice.request(Method::Invite, "sip:agent@edge.example");
    invite.headers.push(Name::Contact, "<sip:x7@browser.invalid;transport=ws>");
    invite.headers.push(Name::PAssertedIdentity, "<sip:boss@edge.example>");
    invite.headers.push(Name::Privacy, "id");
    let invite = invite.with_body("application/sdp", crate::calls::OFFER);
    assert_eq!(alice.proved(invite).await.status, Status::OK);
    let (flow, invite) = edge.calls.request(&Method::Invite).await;
    assert_eq!(flow.transport, transport::Transport::Wss);
    assert!(!invite.headers.has(Name::Authorization));
    // What stands there is the edge's word for alice, who was given no number.
    let asserted = invite.headers.text(Name::PAssertedIdentity).unwrap();
    assert!(asserted.starts_with("<sip:alice@"), "{asserted}");
    assert!(!invite.headers.has(Name::Privacy));
    // From now on the WebSocket is alice's, and nobody else's.
    let request = alice.request(Method::Options, "sip:agent@edge.example");
    alice.send(request).await;
    assert_eq!(alice.response().await.status, Status::OK);
    let mut other = alice.request(Method::Options, "sip:agent@edge.example");
    other.headers.set(Name::From, "<sip:bob@edge.example>;tag=browser");
    alice.send(other).await;
    let response = alice.response().await;
    assert_eq!(response.status, Status::FORBIDDEN);
    assert_eq!(response.headers.text(Name::Warning), Some("399 callgate \"policy.unknown_peer\""));
}

#[tokio::test]
async fn a_token_is_a_password_for_one_page_and_one_callee() {
    let edge = Edge::start().await;
    edge.add_token("tok-1", |token| {
        token.called = Some("agent".to_owned());
        token.origin = Some("https://app.example".to_owned());
    });
    let id = "bt_0000000000000001";
    let own = Some("https://localhost:8443");
    let mut elsewhere = Browser::from_page(&edge, id, "tok-1", own).await.unwrap();
    assert_eq!(elsewhere.registered().await.status, Status::FORBIDDEN);
    let mut browser = Browser::open(&edge, id, "tok-1").await;
    let response = browser.registered().await;
    assert_eq!(response.status, Status::OK);
    let expires = response.headers.contact().unwrap();
    let expires: u32 = expires.params.value("expires").unwrap().parse().unwrap();
    assert!(expires <= 60, "no longer than the token");
    let request = browser.request(Method::Invite, "sip:sales@edge.example");
    browser.send(request).await;
    assert_eq!(browser.response().await.status, Status::FORBIDDEN);
    let request = browser.request(Method::Options, "sip:agent@edge.example");
    browser.send(request).await;
    assert_eq!(browser.response().await.status, Status::OK);
    // A reconnect takes the place of the WebSocket before.
    let mut again = Browser::open(&edge, id, "tok-1").await;
    assert_eq!(again.registered().await.status, Status::OK);
    assert_eq!(browser.closed().await, Some(CloseCode::Policy));
    assert!(edge.has_event(|it| matches!(it, Event::WebSocketClosed { cause: "replaced" })));
    let whip = [
        "Authorization: Bearer tok-1",
        "Content-Type: application/sdp",
        "Origin: https://app.example",
    ];
    let reply = edge.ask("POST", "/whip/agent", &whip, crate::calls::OFFER).await;
    assert_eq!((reply.status, &*reply.code()), (403, "token.used"));
}

#[tokio::test]
async fn a_websocket_ends_with_its_token() {
    let edge = Edge::start().await;
    edge.add_token("tok-1", |token| token.expires = now() + Duration::from_millis(1_500));
    let mut browser = Browser::open(&edge, "bt_0000000000000001", "tok-1").await;
    let mut options = browser.request(Method::Options, "sip:agent@edge.example");
    options.headers.set(Name::CallId, "c");
    assert_eq!(browser.proved(options).await.status, Status::OK);
    assert_eq!(browser.closed().await, Some(CloseCode::Policy));
    assert!(edge.has_event(|it| matches!(it, Event::WebSocketClosed { cause: "expired" })));
}

#[tokio::test]
async fn binary_frames_keep_alives_and_pings_are_answered() {
    let edge = Edge::start().await;
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    browser.socket.send(Frame::text("\r\n\r\n")).await.unwrap();
    assert_eq!(browser.frame().await, Frame::text("\r\n"));
    browser.socket.send(Frame::Ping("are you".into())).await.unwrap();
    assert_eq!(browser.frame().await, Frame::Pong("are you".into()));
    let request = browser.register("<sip:x@h.invalid>");
    browser.socket.send(Frame::Binary(request.to_bytes())).await.unwrap();
    assert_eq!(browser.response().await.status, Status::UNAUTHORIZED);
}

#[tokio::test]
async fn what_is_no_sip_is_answered_where_it_can_be_and_ends_the_websocket_at_last() {
    let edge = Edge::start().await;
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    let bad = browser.register("<sip:x@h.invalid>").to_bytes();
    let bad =
        String::from_utf8(bad.to_vec()).unwrap().replace("Content-Length: 0", "Content-Length: 9");
    browser.socket.send(Frame::text(bad)).await.unwrap();
    assert_eq!(browser.response().await.status, Status::BAD_REQUEST);
    for _ in 1..limit::API_WEBSOCKET_FAULTS.value {
        browser.socket.send(Frame::text("GET / HTTP/1.1\r\n\r\n")).await.unwrap();
    }
    assert_eq!(browser.closed().await, Some(CloseCode::Protocol));
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn bad_frames_end_the_websocket() {
    let edge = Edge::start().await;
    let header =
        |opcode| FrameHeader { opcode, mask: Some([1, 2, 3, 4]), ..FrameHeader::default() };
    let text = OpCode::Data(Data::Text);
    let reserved = FrameHeader { rsv1: true, ..header(text) };
    let unmasked = FrameHeader { mask: None, ..header(text) };
    let continuing = header(OpCode::Data(Data::Continue));
    let unknown = header(OpCode::Data(Data::Reserved(5)));
    for header in [reserved, unmasked, continuing, unknown] {
        let mut browser = Browser::open(&edge, "alice", "wonderland").await;
        let mut bytes = Vec::new();
        Raw::from_payload(header.clone(), "hello".into()).format(&mut bytes).unwrap();
        browser.socket.get_mut().write_all(&bytes).await.unwrap();
        browser.socket.get_mut().flush().await.unwrap();
        let code = browser.closed().await;
        assert!(matches!(code, None | Some(CloseCode::Protocol)), "{header:?}: {code:?}");
    }
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    let mut bytes = Vec::new();
    Raw::from_payload(header(text), vec![0xff, 0xfe].into()).format(&mut bytes).unwrap();
    browser.socket.get_mut().write_all(&bytes).await.unwrap();
    browser.socket.get_mut().flush().await.unwrap();
    assert!(matches!(browser.closed().await, None | Some(CloseCode::Protocol)), "no UTF-8");
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    let large = "x".repeat(limit::SIP_MESSAGE_BYTES.get() + 1);
    let _ = browser.socket.send(Frame::text(large)).await;
    assert!(matches!(browser.closed().await, None | Some(CloseCode::Size)));
    assert!(edge.has_event(|it| matches!(it, Event::WebSocketClosed { cause: "too_large" })));
}

#[tokio::test]
async fn a_flood_ends_the_websocket() {
    let edge = Edge::start().await;
    let mut browser = Browser::open(&edge, "alice", "wonderland").await;
    for _ in 0..limit::API_WEBSOCKET_MESSAGES.value * 12 {
        if browser.socket.send(Frame::text("\r\n")).await.is_err() {
            break;
        }
    }
    let code = browser.closed().await;
    assert!(matches!(code, None | Some(CloseCode::Policy)));
    assert!(edge.has_event(|it| matches!(it, Event::WebSocketClosed { cause: "flood" })));
}

#[tokio::test]
async fn a_drain_says_goodbye() {
    let edge = Edge::start().await;
    let mut alice = Browser::open(&edge, "alice", "wonderland").await;
    assert_eq!(alice.registered().await.status, Status::OK);
    let (code, ()) = tokio::join!(alice.closed(), edge.api.drain(crate::support::PATIENCE));
    assert_eq!(code, Some(CloseCode::Away));
    assert_eq!(edge.api.registrar().count(), 0);
}
