//! Connections that we open.

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use transport::{Bounds, SendError, Transport};

use crate::support::{Edge, OK, PATIENCE, Setup, expect, loopback, request, rest};

#[tokio::test]
async fn what_was_queued_while_connecting_arrives_and_the_connection_is_used_again() {
    let mut edge = Edge::start().await;
    let peer = TcpListener::bind(loopback()).await.unwrap();
    let target = peer.local_addr().unwrap();
    let flow = edge.handle.connect(target, Transport::Tcp, None);
    edge.handle.send(flow, request("first", "").into()).unwrap();
    let (mut stream, _) = timeout(PATIENCE, peer.accept()).await.unwrap().unwrap();
    expect(&mut stream, request("first", "").as_bytes()).await;
    assert_eq!(edge.handle.connect(target, Transport::Tcp, None), flow);
    edge.handle.send(flow, request("second", "").into()).unwrap();
    expect(&mut stream, request("second", "").as_bytes()).await;

    stream.write_all(OK.as_bytes()).await.unwrap();
    let (seen, message) = edge.message().await;
    assert_eq!((seen.id, seen.source, seen.outgoing), (flow, target, true));
    assert_eq!(message, OK.as_bytes());

    edge.handle.close(flow);
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(edge.closed().await, flow);
    assert_eq!(edge.causes(), ["local"]);
    assert_ne!(edge.handle.connect(target, Transport::Tcp, None), flow);
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_reported_closed() {
    let mut edge = Edge::start().await;
    let target = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let flow = edge.handle.connect(target, Transport::Tcp, None);
    assert_eq!(edge.closed().await, flow);
    assert_eq!(edge.handle.send(flow, Bytes::from_static(b"x")), Err(SendError::Gone));

    let unreachable = "[2001:db8::1]:5060".parse().unwrap();
    let flow = edge.handle.connect(unreachable, Transport::Udp, None);
    assert_eq!(edge.closed().await, flow, "no UDP socket of that family");
    assert_eq!(edge.causes(), ["error", "error"]);
}

#[tokio::test]
async fn our_own_connections_count_as_well() {
    let bounds = Bounds { connections: 0, ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let peer = TcpListener::bind(loopback()).await.unwrap();
    let flow = edge.handle.connect(peer.local_addr().unwrap(), Transport::Tcp, None);
    assert_eq!(edge.closed().await, flow);
    assert_eq!(edge.causes(), ["limit"]);
}

#[tokio::test]
async fn a_tls_server_must_prove_the_name_that_we_wanted() {
    let mut edge = Edge::start().await; // its own TLS listener serves as the peer
    let target = edge.address(Transport::Tls);
    let flow = edge.handle.connect(target, Transport::Tls, Some("localhost"));
    edge.handle.send(flow, request("to-ourselves", "").into()).unwrap();
    let (incoming, message) = edge.message().await;
    assert_eq!(message, request("to-ourselves", "").as_bytes());
    assert!(!incoming.outgoing);
    let (answered, _) = edge.message().await;
    assert_eq!(answered.id, flow, "the answer of the witness comes back");
    assert!(answered.certificates.contains(&"localhost".to_owned()));

    let wrong = edge.handle.connect(target, Transport::Tls, Some("other.example"));
    assert_ne!(wrong, flow);
    edge.until_closed("handshake_failed", 1).await;
    assert_eq!(edge.handle.send(wrong, Bytes::from_static(b"x")), Err(SendError::Gone));
}

#[tokio::test]
async fn without_authorities_no_tls_server_is_believed() {
    let mut edge = Edge::with(Setup { has_authorities: false, ..Setup::default() }).await;
    let target = edge.address(Transport::Tls);
    let flow = edge.handle.connect(target, Transport::Tls, Some("localhost"));
    assert_eq!(edge.closed().await, flow);
    assert!(edge.causes().contains(&"handshake_failed"));
}
