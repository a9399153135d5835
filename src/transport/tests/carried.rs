//! Flows that others carry, and streams that speak something else.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use transport::{Bounds, CarriedPeer, OpenError, Serving, Streams, Transport, Web, WebStream};

use crate::support::{
    Edge, OK, PATIENCE, Seen, Setup, client_config, handshake, loopback, request, rest, tcp,
    tcp_from,
};

fn peer(transport: Transport) -> CarriedPeer {
    let source = "192.0.2.1:5000".parse().unwrap();
    CarriedPeer { transport, source, local: "192.0.2.2:8443".parse().unwrap() }
}

#[tokio::test]
async fn messages_go_both_ways_over_a_carried_flow_until_it_is_dropped() {
    let mut edge = Edge::start().await;
    let mut carried = edge.handle.carry(peer(Transport::Wss)).unwrap();
    let flow = Arc::clone(carried.flow());
    assert_eq!((flow.transport, flow.outgoing), (Transport::Wss, false));
    assert!(carried.deliver(request("c1", "").into()).is_none());
    let (seen, _) = edge.message().await;
    assert_eq!(seen, flow);
    assert_eq!(carried.next().await, Some(Bytes::from_static(OK.as_bytes())));
    drop(carried);
    assert_eq!(edge.closed().await, flow.id);
    assert!(edge.handle.send(flow.id, Bytes::new()).is_err());
    assert_eq!(edge.causes(), ["peer"]);
}

#[tokio::test]
async fn a_carried_flow_waits_where_a_message_has_to() {
    let edge = Edge::start().await;
    let carried = edge.handle.carry(peer(Transport::Wss)).unwrap();
    let waiting = carried.deliver(request("busy", "").into()).unwrap();
    edge.witness.places.add_permits(1);
    timeout(PATIENCE, waiting).await.unwrap();
}

#[tokio::test]
async fn the_calls_end_a_carried_flow_after_what_is_queued() {
    let mut edge = Edge::start().await;
    let mut carried = edge.handle.carry(peer(Transport::Whip)).unwrap();
    let id = carried.flow().id;
    edge.handle.send(id, Bytes::from_static(b"last")).unwrap();
    edge.handle.close(id);
    assert_eq!(carried.next().await, Some(Bytes::from_static(b"last")));
    assert_eq!(carried.next().await, None);
    carried.ended().await;
    drop(carried);
    assert_eq!(edge.closed().await, id);
    assert_eq!(edge.causes(), ["local"]);
}

#[tokio::test]
async fn a_fault_ends_a_carried_flow_alone_and_a_full_queue_too() {
    let edge = Edge::with(Setup {
        answers: false,
        bounds: Bounds { queue: 2, ..Bounds::default() },
        ..Setup::default()
    })
    .await;
    let mut carried = edge.handle.carry(peer(Transport::Wss)).unwrap();
    assert!(carried.deliver(request("c1", "PANIC").into()).is_none());
    assert_eq!(carried.next().await, None);
    drop(carried);
    edge.until_closed("panic", 1).await;
    let slow = edge.handle.carry(peer(Transport::Wss)).unwrap();
    let send = || edge.handle.send(slow.flow().id, Bytes::from_static(b"x"));
    assert!(send().is_ok() && send().is_ok() && send().is_err());
    slow.ended().await;
    drop(slow);
    edge.until_closed("limit", 1).await;
}

#[tokio::test]
async fn whip_sessions_of_one_source_have_its_places() {
    let edge = Edge::with(Setup {
        bounds: Bounds { browsers_per_source: 1, ..Bounds::default() },
        ..Setup::default()
    })
    .await;
    let first = edge.handle.carry(peer(Transport::Whip)).unwrap();
    let second = edge.handle.carry(peer(Transport::Whip));
    assert!(matches!(second, Err(OpenError::Full)));
    assert!(edge.handle.carry(peer(Transport::Wss)).is_ok(), "its place is the connection's");
    drop(first);
    assert!(edge.handle.carry(peer(Transport::Whip)).is_ok());
}

#[tokio::test]
async fn a_drain_ends_carried_flows_and_begins_none() {
    let edge = Edge::start().await;
    let mut carried = edge.handle.carry(peer(Transport::Wss)).unwrap();
    edge.handle.drain(Duration::ZERO).await;
    assert_eq!(carried.next().await, None);
    drop(carried);
    assert_eq!(edge.causes(), ["drain"]);
    assert!(matches!(edge.handle.carry(peer(Transport::Wss)), Err(OpenError::Ended)));
}

/// Says back what it hears, and panics on demand.
struct Echo;

impl Streams for Echo {
    fn serve(&self, mut stream: WebStream) -> Serving {
        Box::pin(async move {
            let mut buffer = [0; 5];
            stream.read_exact(&mut buffer).await.unwrap();
            assert_ne!(&buffer, b"PANIC");
            stream.write_all(&buffer).await.unwrap();
            stream.shutdown().await.unwrap();
        })
    }
}

#[tokio::test]
async fn a_web_listener_serves_tls_and_plaintext_and_survives_faults() {
    let edge = Edge::start().await;
    let https = edge.handle.open_web(Web::Https, loopback(), Arc::new(Echo)).unwrap();
    let again = edge.handle.open_web(Web::Https, https, Arc::new(Echo)).unwrap();
    assert_eq!(again, https, "it is open already");
    let http = edge.handle.open_web(Web::Http, loopback(), Arc::new(Echo)).unwrap();
    for (said, heard) in [("PANIC", ""), ("hello", "hello")] {
        let config = client_config(&edge.certificates.authority, None);
        let mut client = handshake(config, tcp(https).await).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut client).await, heard);
        let mut client = tcp(http).await;
        client.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut client).await, heard);
    }
    assert!(edge.handle.listeners().iter().all(|it| it.transport != Transport::Wss));
}

#[tokio::test]
async fn a_web_listener_speaks_http_1_1_only_and_asks_for_no_certificate() {
    let edge = Edge::start().await;
    let https = edge.handle.open_web(Web::Https, loopback(), Arc::new(Echo)).unwrap();
    let with = |protocol: &str| {
        let mut config = client_config(&edge.certificates.authority, None);
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        config
    };
    assert!(handshake(with("sip"), tcp(https).await).await.is_err());
    let client = handshake(with("http/1.1"), tcp(https).await).await.unwrap();
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    edge.handle.reload_certificates().unwrap();
    assert!(handshake(with("http/1.1"), tcp(https).await).await.is_ok());
}

#[tokio::test]
async fn a_source_with_too_many_web_streams_is_turned_away() {
    let mut edge = Edge::with(Setup {
        bounds: Bounds { browsers_per_source: 1, ..Bounds::default() },
        ..Setup::default()
    })
    .await;
    let http = edge.handle.open_web(Web::Http, loopback(), Arc::new(Echo)).unwrap();
    let held = tcp(http).await;
    // The reset may come before the connection is seen to stand.
    if let Ok(mut second) = tcp_from([127, 0, 0, 1], http).await {
        assert_eq!(rest(&mut second).await, "");
    }
    edge.until_closed("limit", 1).await;
    drop(held);
    edge.until_closed("peer", 1).await;
    assert!(edge.has_seen_nothing() || matches!(edge.seen().await, Seen::Closed(_)));
}
