//! Messages over streams, and streams that misbehave.

use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use transport::{Bounds, SendError, Transport};

use crate::support::{
    Edge, OK, PONG, Seen, Setup, expect, loopback, request, rest, tcp, tcp_from, tls, until,
};

#[tokio::test]
async fn a_message_that_comes_byte_by_byte_arrives_whole() {
    let mut edge = Edge::start().await;
    let mut client = tls(&edge).await;
    let sent = request("slowly", "hello");
    for byte in sent.as_bytes() {
        client.write_all(&[*byte]).await.unwrap();
        client.flush().await.unwrap();
    }
    let (flow, message) = edge.message().await;
    assert_eq!(message, sent.as_bytes());
    assert_eq!((flow.transport, flow.outgoing), (Transport::Tls, false));
    assert_eq!(flow.local, edge.address(Transport::Tls));
    expect(&mut client, OK.as_bytes()).await;
}

#[tokio::test]
async fn pipelined_messages_arrive_one_by_one_in_order() {
    let mut edge = Edge::start().await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    let all: Vec<_> = (0..50).map(|index| request(&format!("c{index}"), "body")).collect();
    client.write_all(all.concat().as_bytes()).await.unwrap();
    for sent in &all {
        assert_eq!(edge.message().await.1, sent.as_bytes());
    }
    expect(&mut client, OK.repeat(50).as_bytes()).await;
}

#[tokio::test]
async fn a_ping_is_answered_and_a_pong_swallowed() {
    let mut edge = Edge::start().await;
    let mut client = tls(&edge).await;
    client.write_all(b"\r\n\r\n").await.unwrap();
    expect(&mut client, PONG).await;
    client.write_all(b"\r\n").await.unwrap();
    let sent = request("after-pong", "");
    client.write_all(sent.as_bytes()).await.unwrap();
    assert_eq!(edge.message().await.1, sent.as_bytes());
    expect(&mut client, OK.as_bytes()).await;
}

#[tokio::test]
async fn too_large_a_body_is_answered_before_the_connection_ends() {
    let mut edge = Edge::start().await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    let mut sent = request("huge", "").replace("Content-Length: 0", "Content-Length: 99999");
    sent.push_str(&"x".repeat(99_999));
    client.write_all(sent.as_bytes()).await.unwrap();
    let Seen::Malformed(flow, status) = edge.seen().await else { panic!("not refused") };
    assert_eq!(status.code(), 413);
    assert!(rest(&mut client).await.starts_with("SIP/2.0 413 "));
    assert_eq!(edge.closed().await, flow.id);
    assert_eq!(edge.causes(), ["malformed"]);
    assert_eq!(edge.handle.send(flow.id, Bytes::from_static(b"x")), Err(SendError::Gone));
}

#[tokio::test]
async fn headers_without_an_end_are_refused() {
    let mut edge = Edge::start().await;
    let mut client = tls(&edge).await;
    let header = format!("X-Pad: {}\r\n", "p".repeat(1_000));
    let sent = format!("OPTIONS sip:e SIP/2.0\r\n{}", header.repeat(200));
    // The edge may have closed before all is written.
    let _ = client.write_all(sent.as_bytes()).await;
    let Seen::Malformed(_, status) = edge.seen().await else { panic!("not refused") };
    assert!(status.is_failure(), "{status:?}");
    edge.closed().await;
    assert_eq!(edge.causes(), ["malformed"]);
}

#[tokio::test]
async fn a_message_that_never_ends_ends_its_connection() {
    let message = Duration::from_millis(150);
    let bounds = Bounds { message, ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    client.write_all(b"OPTIONS sip:edge").await.unwrap();
    edge.closed().await;
    assert_eq!(edge.causes(), ["slow_message"]);
    assert_eq!(rest(&mut client).await, "");
}

#[tokio::test]
async fn a_silent_connection_ends_but_one_that_sends_keep_alives_stays() {
    let bounds = Bounds { idle: Duration::from_millis(1_500), ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let mut lively = tcp(edge.address(Transport::Tcp)).await;
    let mut silent = tcp(edge.address(Transport::Tcp)).await;
    while edge.causes().is_empty() {
        lively.write_all(b"\r\n\r\n").await.unwrap();
        expect(&mut lively, PONG).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    edge.closed().await;
    assert_eq!(edge.causes(), ["idle"]);
    assert_eq!(rest(&mut silent).await, "");
    lively.write_all(b"\r\n\r\n").await.unwrap();
    expect(&mut lively, PONG).await;
}

#[tokio::test]
async fn a_lone_line_end_is_no_message_that_must_end() {
    let message = Duration::from_millis(100);
    let bounds = Bounds { message, idle: Duration::from_millis(1_000), ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    client.write_all(b"\r\n").await.unwrap();
    edge.closed().await;
    assert_eq!(edge.causes(), ["idle"]);
}

#[tokio::test]
async fn a_peer_that_has_closed_its_direction_still_gets_its_answers() {
    let mut edge = Edge::start().await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    client.write_all(request("half", "").repeat(20).as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await, OK.repeat(20));
    for _ in 0..20 {
        edge.message().await;
    }
    edge.closed().await;
    assert_eq!(edge.causes(), ["peer"]);
}

#[tokio::test]
async fn a_peer_whose_message_has_to_wait_is_not_read_on_and_another_is() {
    let bounds = Bounds { message: Duration::from_millis(300), ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, answers: false, ..Setup::default() }).await;
    let mut loud = tcp(edge.address(Transport::Tcp)).await;
    let next = request("next", "");
    let (begun, rest) = next.split_at(20);
    loud.write_all(format!("{}{begun}", request("busy", "")).as_bytes()).await.unwrap();
    loud.write_all(rest.as_bytes()).await.unwrap();
    let (first, _) = edge.message().await;
    let mut other = tcp(edge.address(Transport::Tcp)).await;
    other.write_all(request("other", "").as_bytes()).await.unwrap();
    let (second, _) = edge.message().await;
    assert_ne!(first.id, second.id);
    // Its waiting is not counted as slowness of its own.
    tokio::time::sleep(bounds.message + Duration::from_millis(50)).await;
    assert!(edge.has_seen_nothing(), "it was read on");
    edge.witness.places.add_permits(1);
    let (third, message) = edge.message().await;
    assert_eq!(third.id, first.id);
    assert!(message.windows(4).any(|word| word == b"next"));
}

#[tokio::test]
async fn a_peer_that_does_not_read_loses_its_connection_and_nobody_waits_for_it() {
    let bounds = Bounds { linger: Duration::from_millis(50), ..Bounds::default() };
    let mut edge = Edge::with(Setup { bounds, answers: false, ..Setup::default() }).await;
    let mut client = tcp(edge.address(Transport::Tcp)).await;
    client.write_all(request("deaf", "").as_bytes()).await.unwrap();
    let (flow, _) = edge.message().await;
    let large = Bytes::from(vec![b'x'; 60_000]);
    let mut refused = None;
    for _ in 0..10_000 {
        if let Err(error) = edge.handle.send(flow.id, large.clone()) {
            refused = Some(error);
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(refused, Some(SendError::QueueFull));
    assert_eq!(edge.closed().await, flow.id);
    assert_eq!(edge.causes(), ["limit"]);
    assert!(edge.has_event("edge.queue.full"));
    assert_eq!(edge.handle.send(flow.id, large), Err(SendError::Gone));
    assert_eq!(edge.handle.connection_count(), 0);
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_no_other() {
    let mut edge = Edge::start().await;
    let mut good = tcp(edge.address(Transport::Tcp)).await;
    let mut bad = tcp(edge.address(Transport::Tcp)).await;
    bad.write_all(request("PANIC", "").as_bytes()).await.unwrap();
    edge.closed().await;
    assert_eq!(edge.causes(), ["panic"]);
    assert_eq!(rest(&mut bad).await, "");
    good.write_all(request("good", "").as_bytes()).await.unwrap();
    expect(&mut good, OK.as_bytes()).await;
}

#[tokio::test]
async fn a_source_with_enough_connections_gets_no_more_and_others_do() {
    let bounds = Bounds { connections_per_source: 2, ..Bounds::default() };
    let edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let target = edge.address(Transport::Tcp);
    let mut held = [tcp(target).await, tcp(target).await];
    for client in &mut held {
        client.write_all(b"\r\n\r\n").await.unwrap();
        expect(client, PONG).await;
    }
    if let Ok(mut third) = tcp_from([127, 0, 0, 1], target).await {
        assert_eq!(rest(&mut third).await, "");
    }
    assert_eq!(edge.causes(), ["limit"]);
    let mut other = tcp_from([127, 0, 0, 2], target).await.unwrap();
    other.write_all(b"\r\n\r\n").await.unwrap();
    expect(&mut other, PONG).await;
    drop(held);
    edge.until_closed("peer", 2).await;
    until(|| edge.handle.connection_count() == 1).await;
    let mut again = tcp(target).await;
    again.write_all(b"\r\n\r\n").await.unwrap();
    expect(&mut again, PONG).await;
}

#[tokio::test]
async fn a_stranger_who_is_not_admitted_gets_nothing_at_all() {
    let mut edge = Edge::with(Setup { admits: false, ..Setup::default() }).await;
    for transport in [Transport::Tcp, Transport::Tls] {
        let target = edge.address(transport);
        if let Ok(mut client) = tcp_from([127, 0, 0, 1], target).await {
            let _ = client.write_all(request("stranger", "").as_bytes()).await;
            assert_eq!(rest(&mut client).await, "");
        }
    }
    let socket = tokio::net::UdpSocket::bind(loopback()).await.unwrap();
    let sent = request("stranger", "");
    socket.send_to(sent.as_bytes(), edge.address(Transport::Udp)).await.unwrap();
    edge.handle.drain(Duration::from_secs(1)).await;
    assert!(edge.has_seen_nothing());
}
