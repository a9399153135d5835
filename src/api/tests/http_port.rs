//! The port itself: what every response has, limits, and requests that two readers would read in
//! two ways.

use base::{Event, limit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Edge, Reply, request};

/// Sends bytes, and expects this status and the end of the connection.
async fn refused(edge: &Edge, bytes: &str, status: u16) {
    let mut client = edge.connect().await;
    client.send(bytes).await;
    let reply = client.reply().await;
    assert_eq!(reply.status, status, "{bytes:?}");
    assert!(client.is_closed().await, "{bytes:?} left the connection open");
}

#[tokio::test]
async fn health_answers_and_every_response_is_dressed() {
    let edge = Edge::start().await;
    let reply = edge.ask("GET", "/health", &[], "").await;
    assert_eq!((reply.status, &*reply.body), (200, "ok\n"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("x-frame-options", "DENY"),
        ("strict-transport-security", "max-age=31536000"),
    ] {
        assert_eq!(reply.field(name), Some(value));
    }
    assert!(reply.field("x-request-id").unwrap().starts_with("req_"));
    assert!(reply.field("server").is_none());
}

#[tokio::test]
async fn what_is_not_there_and_wrong_methods_are_problems() {
    let edge = Edge::start().await;
    let reply = edge.ask("GET", "/nothing", &[], "").await;
    assert_eq!((reply.status, &*reply.code()), (404, "http.not_found"));
    let reply = edge.ask("DELETE", "/health", &[], "").await;
    assert_eq!((reply.status, &*reply.code()), (405, "http.method_not_allowed"));
}

#[tokio::test]
async fn smuggling_attempts_get_400_and_the_end_of_the_connection() {
    let edge = Edge::start().await;
    let head = "POST /whip/agent HTTP/1.1\r\nHost: a\r\n";
    let next = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    for attempt in [
        format!("{head}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{next}"),
        format!("{head}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{next}"),
        format!("{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde{next}"),
        format!("{head}Content-Length: 5, 6\r\n\r\nabcde{next}"),
        format!("{head}Content-Length: +5\r\n\r\nabcde{next}"),
        format!("{head}Content-Length: 0x5\r\n\r\nabcde{next}"),
        format!("{head}Content-Length : 5\r\n\r\nabcde{next}"),
        format!("{head}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1\nHost: a\n\n{next}"),
        format!("GET /health HTTP/1.1\r\nHost: a\nX: b\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX: b\rContent-Length: 9\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n{next}"),
        format!("GET /health  HTTP/1.1\r\nHost: a\r\n\r\n{next}"),
        format!("GET /health HTTP/1.1 \r\nHost: a\r\n\r\n{next}"),
    ] {
        refused(&edge, &attempt, 400).await;
    }
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn bodies_in_chunks_are_not_taken_however_large_their_extensions() {
    let edge = Edge::start().await;
    let chunk = format!("5;{}\r\nabcde\r\n0\r\n\r\n", "x".repeat(20_000));
    let head = "POST /whip/agent HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    refused(&edge, &format!("{head}{chunk}"), 411).await;
}

#[tokio::test]
async fn heads_have_limits() {
    let edge = Edge::start().await;
    let many: String = (0..=limit::API_HEADERS.get()).map(|n| format!("X-{n}: 1\r\n")).collect();
    refused(&edge, &format!("GET /health HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431).await;
    let long = "x".repeat(limit::API_HEAD_BYTES.get());
    refused(&edge, &format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431).await;
    let path = "x".repeat(limit::API_HEAD_BYTES.get());
    let mut client = edge.connect().await;
    client.send(&format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    assert!(matches!(client.reply().await.status, 414 | 431));
}

#[tokio::test]
async fn a_connection_serves_many_requests_in_order() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    let two = request("GET", "/health", &[], "") + &request("GET", "/nothing", &[], "");
    client.send(&two).await;
    assert_eq!(client.reply().await.status, 200);
    assert_eq!(client.reply().await.status, 404);
}

#[tokio::test]
async fn only_http_1_1_is_offered_and_no_certificate_is_asked_for() {
    let edge = Edge::start().await;
    let client = edge.connect().await;
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), None, "offered none");
    let mut config = (*edge.tls).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config.clone()));
    let stream = TcpStream::connect(edge.https).await.unwrap();
    let name = || rustls_pki_types::ServerName::try_from("localhost").unwrap();
    let stream = connector.connect(name(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    config.alpn_protocols = vec![b"sip".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = TcpStream::connect(edge.https).await.unwrap();
    assert!(connector.connect(name(), stream).await.is_err(), "cross-protocol");
}

async fn plaintext(edge: &Edge, bytes: &str) -> Reply {
    let mut stream = TcpStream::connect(edge.http).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    Reply::parse(&text)
}

#[tokio::test]
async fn the_plaintext_port_redirects_closes_and_tells_of_keys() {
    let edge = Edge::start().await;
    let reply =
        plaintext(&edge, "GET /talk?key=secret HTTP/1.1\r\nHost: edge.example:8080\r\n\r\n").await;
    assert_eq!(reply.status, 301);
    assert_eq!(reply.field("location"), Some("https://edge.example:8443/talk"));
    assert_eq!(reply.field("connection"), Some("close"));
    assert!(!edge.has_event(|event| matches!(event, Event::KeyExposed {})));
    let keyed = "POST /v1/keys HTTP/1.1\r\nHost: e\r\nAuthorization: Bearer key-write\r\n\r\n";
    assert_eq!(plaintext(&edge, keyed).await.status, 301);
    assert!(edge.has_event(|event| matches!(event, Event::KeyExposed {})));
    assert!(edge.calls.has_heard_nothing());
}

#[tokio::test]
async fn a_drain_ends_idle_connections_and_leaves_nothing() {
    let edge = Edge::start().await;
    let mut client = edge.connect().await;
    client.send(&request("GET", "/health", &[], "")).await;
    assert_eq!(client.reply().await.status, 200);
    edge.api.drain(crate::support::PATIENCE).await;
    assert!(client.is_closed().await);
    edge.transport.drain(crate::support::PATIENCE).await;
    assert!(TcpStream::connect(edge.https).await.is_err());
}
