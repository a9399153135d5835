//! Listeners that come and go, and the end of it all.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use transport::{Bounds, DialError, OpenError, StartError, Transport, TransportConfig};

use crate::support::{
    Edge, OK, PATIENCE, Setup, expect, loopback, request, rest, tcp, tcp_from, tls, until,
};

#[tokio::test]
async fn a_plaintext_listener_opens_and_closes_at_run_time() {
    let edge = Edge::with(Setup { listeners: Vec::new(), ..Setup::default() }).await;
    assert_eq!(edge.handle.local_addresses(), []);
    let address = edge.handle.open(Transport::Tcp, loopback()).unwrap();
    let again = edge.handle.open(Transport::Tcp, address).unwrap();
    assert_eq!((again, edge.handle.local_addresses().len()), (address, 1), "opened once");
    let mut client = tcp(address).await;
    client.write_all(request("one", "").as_bytes()).await.unwrap();
    expect(&mut client, OK.as_bytes()).await;

    assert!(edge.handle.close_listener(Transport::Tcp, address));
    assert!(!edge.handle.close_listener(Transport::Tcp, address));
    assert_eq!(edge.handle.local_addresses(), []);
    until(|| std::net::TcpListener::bind(address).is_ok()).await;
    assert!(tcp_from([127, 0, 0, 1], address).await.is_err());
    client.write_all(request("two", "").as_bytes()).await.unwrap();
    expect(&mut client, OK.as_bytes()).await;

    edge.handle.open(Transport::Tcp, address).unwrap();
    tcp(address).await;
}

#[tokio::test]
async fn a_taken_address_and_tls_without_a_certificate_do_not_open() {
    let edge = Edge::start().await;
    let taken = std::net::TcpListener::bind(loopback()).unwrap();
    let refused = edge.handle.open(Transport::Tcp, taken.local_addr().unwrap());
    assert!(matches!(refused, Err(OpenError::Socket(_))));

    let config = TransportConfig {
        listeners: vec![transport::Ingress { transport: Transport::Tls, address: loopback() }],
        ..TransportConfig::default()
    };
    let inlet = std::sync::Arc::<crate::support::Witness>::clone(&edge.witness);
    let refused = transport::start(config, inlet).await;
    assert!(matches!(refused, Err(StartError::Open { cause: OpenError::NoCertificate, .. })));
}

#[tokio::test]
async fn a_drain_sends_what_is_queued_and_leaves_nothing_running() {
    let mut edge = Edge::with(Setup { answers: false, ..Setup::default() }).await;
    let addresses: Vec<SocketAddr> =
        edge.handle.local_addresses().iter().map(|it| it.address).collect();
    let mut client = tls(&edge).await;
    client.write_all(request("last", "").as_bytes()).await.unwrap();
    let (flow, _) = edge.message().await;
    for _ in 0..3 {
        edge.handle.send(flow.id, Bytes::from_static(OK.as_bytes())).unwrap();
    }
    let half_open = tcp(edge.address(Transport::Tls)).await;
    let draining = edge.handle.clone();
    let draining = tokio::spawn(async move { draining.drain(PATIENCE).await });
    assert_eq!(rest(&mut client).await, OK.repeat(3));
    drop(client);
    draining.await.unwrap();
    assert_eq!(edge.closed().await, flow.id);
    assert_eq!(edge.causes(), ["drain", "drain"], "the half-open one did not hold it up");
    assert_eq!(edge.handle.connection_count(), 0);
    for address in addresses {
        assert!(std::net::TcpListener::bind(address).is_ok(), "{address} is free");
    }
    drop(half_open);

    assert!(matches!(edge.handle.open(Transport::Tcp, loopback()), Err(OpenError::Ended)));
    let anywhere = "127.0.0.1:5060".parse().unwrap();
    assert_eq!(edge.connect(anywhere, Transport::Tcp, &[]).await, Err(DialError::Ended));
}

#[tokio::test]
async fn a_drain_does_not_wait_longer_than_it_is_told() {
    let bounds = Bounds { linger: Duration::from_secs(3_600), ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, answers: false, ..Setup::default() }).await;
    let mut deaf = tcp(edge.address(Transport::Tcp)).await;
    deaf.write_all(request("deaf", "").as_bytes()).await.unwrap();
    let (flow, _) = edge.message().await;
    for _ in 0..200 {
        edge.handle.send(flow.id, vec![b'x'; 60_000].into()).unwrap();
    }
    edge.handle.drain(Duration::from_millis(50)).await;
    assert_eq!(edge.closed().await, flow.id);
    assert_eq!(edge.handle.connection_count(), 0);
}
