//! Connections that we open to an address, as within a dialog whose own is gone.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use transport::{Bounds, DialError, SendError, Transport};

use crate::peers::line;
use crate::support::{Edge, OK, PATIENCE, Seen, Setup, expect, loopback, request, rest};

#[tokio::test]
async fn a_connection_is_used_again_until_it_is_closed() {
    let mut edge = Edge::start().await;
    let peer = TcpListener::bind(loopback()).await.unwrap();
    let target = peer.local_addr().unwrap();
    let flow = edge.connect(target, Transport::Tcp, &[]).await.unwrap();
    edge.handle.send(flow, request("first", "").into()).unwrap();
    let (mut stream, _) = timeout(PATIENCE, peer.accept()).await.unwrap().unwrap();
    expect(&mut stream, request("first", "").as_bytes()).await;
    assert_eq!(edge.connect(target, Transport::Tcp, &[]).await, Ok(flow));
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
    assert_eq!(edge.handle.send(flow, Bytes::from_static(b"x")), Err(SendError::Gone));
    assert_ne!(edge.connect(target, Transport::Tcp, &[]).await, Ok(flow));
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_unreachable() {
    let edge = Edge::start().await;
    let target = std::net::TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let failed = edge.connect(target, Transport::Tcp, &[]).await;
    assert_eq!(failed, Err(DialError::Unreachable));
    let unreachable = "[2001:db8::1]:5060".parse().unwrap();
    let failed = edge.connect(unreachable, Transport::Udp, &[]).await;
    assert_eq!(failed, Err(DialError::Unreachable), "no UDP socket of that family");
    assert_eq!(edge.causes(), ["error"]);
}

#[tokio::test]
async fn our_own_connections_count_as_well() {
    let bounds = Bounds { connections: 0, ..Bounds::default() };
    let edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let peer = TcpListener::bind(loopback()).await.unwrap();
    let failed = edge.connect(peer.local_addr().unwrap(), Transport::Tcp, &[]).await;
    assert_eq!(failed, Err(DialError::Full));
    assert_eq!(edge.causes(), ["limit"]);
}

/// A second TLS listener of the edge, at an address that its certificate does not name.
fn unnamed(edge: &Edge) -> SocketAddr {
    let address = SocketAddr::from(([127, 0, 0, 9], edge.address(Transport::Tls).port()));
    edge.handle.open(Transport::Tls, address).unwrap()
}

#[tokio::test]
async fn a_tls_server_must_prove_its_address_or_what_it_proved_before() {
    let mut edge = Edge::start().await; // its own TLS listeners serve as the peer
    let target = edge.address(Transport::Tls);
    let flow = edge.connect(target, Transport::Tls, &[]).await.unwrap();
    edge.handle.send(flow, request("to-ourselves", "").into()).unwrap();
    let (incoming, message) = edge.message().await;
    assert_eq!(message, request("to-ourselves", "").as_bytes());
    assert!(!incoming.outgoing);
    let (answered, _) = edge.message().await;
    assert_eq!(answered.id, flow, "the answer of the witness comes back");
    assert!(answered.certificates.contains(&"localhost".to_owned()));

    let other = unnamed(&edge);
    let wrong = edge.connect(other, Transport::Tls, &["other.example"]).await;
    assert_eq!(wrong, Err(DialError::Untrusted));
    let right = edge.connect(other, Transport::Tls, &["other.example", "localhost"]).await;
    edge.handle.send(right.unwrap(), request("by-name", "").into()).unwrap();
    while !matches!(edge.seen().await, Seen::Message(flow, _) if Ok(flow.id) == right) {}
}

#[tokio::test]
async fn a_domain_that_leads_to_the_trunk_counts_within_its_dialogs_only() {
    let edge = Edge::start().await;
    let other = unnamed(&edge);
    let mut acme = line(&edge, "acme");
    acme.send_to = vec!["sip:localhost;transport=tls".to_owned()];
    edge.handle.set_lines(vec![acme.clone().load().unwrap()]);
    edge.connect(other, Transport::Tls, &[]).await.unwrap();
    acme.send_to.push(format!("sip:{other};transport=tls"));
    edge.handle.set_lines(vec![acme.load().unwrap()]);
    let dialled = edge.connect(other, Transport::Tls, &[]).await;
    assert_eq!(dialled, Err(DialError::Untrusted), "the policy dials this very address");
}

#[tokio::test]
async fn without_authorities_no_tls_server_is_believed() {
    let edge = Edge::with(Setup { has_authorities: false, ..Setup::default() }).await;
    let failed = edge.connect(edge.address(Transport::Tls), Transport::Tls, &[]).await;
    assert_eq!(failed, Err(DialError::Untrusted));
    assert!(edge.causes().contains(&"untrusted"));
}
