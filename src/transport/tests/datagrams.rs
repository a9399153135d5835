//! UDP.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use transport::{Ingress, SendError, Transport};

use crate::support::{Edge, OK, PATIENCE, Seen, Setup, loopback, request};

async fn answer(socket: &UdpSocket) -> String {
    let mut buffer = [0; 2_000];
    let size = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
    String::from_utf8(buffer[..size].to_vec()).unwrap()
}

#[tokio::test]
async fn an_answer_goes_to_where_the_request_came_from() {
    let mut edge = Edge::start().await;
    let client = UdpSocket::bind("127.0.0.3:0").await.unwrap();
    client.connect(edge.address(Transport::Udp)).await.unwrap();
    let sent = request("datagram", "");
    client.send(sent.as_bytes()).await.unwrap();
    let (flow, message) = edge.message().await;
    assert_eq!(message, sent.as_bytes());
    assert_eq!(flow.source, client.local_addr().unwrap());
    assert_eq!(flow.local, edge.address(Transport::Udp));
    assert_eq!(answer(&client).await, OK);

    client.send(sent.as_bytes()).await.unwrap();
    assert_eq!(edge.message().await.0.id, flow.id, "one peer, one flow");
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    for (everywhere, ours) in [("0.0.0.0:0", ["127.0.0.2", "127.0.0.5"]), ("[::]:0", ["::1"; 2])] {
        let address = everywhere.parse().unwrap();
        let listener = Ingress { transport: Transport::Udp, address };
        if address.is_ipv6() && UdpSocket::bind("[::1]:0").await.is_err() {
            continue; // a machine without IPv6
        }
        let mut edge = Edge::with(Setup { listeners: vec![listener], ..Setup::default() }).await;
        let port = edge.address(Transport::Udp).port();
        let client = UdpSocket::bind((ours[0], 0)).await.unwrap();
        for ours in ours {
            let asked = SocketAddr::new(ours.parse().unwrap(), port);
            // Connected: the kernel takes nothing from another address.
            client.connect(asked).await.unwrap();
            client.send(request("wild", "").as_bytes()).await.unwrap();
            let (flow, _) = edge.message().await;
            assert_eq!((flow.local, flow.source), (asked, client.local_addr().unwrap()));
            assert_eq!(answer(&client).await, OK);
        }
    }
}

#[tokio::test]
async fn ipv6_peers_are_answered_too() {
    let listener = Ingress { transport: Transport::Udp, address: "[::1]:0".parse().unwrap() };
    if UdpSocket::bind(listener.address).await.is_err() {
        return; // a machine without IPv6
    }
    let mut edge = Edge::with(Setup { listeners: vec![listener], ..Setup::default() }).await;
    let client = UdpSocket::bind("[::1]:0").await.unwrap();
    client.connect(edge.address(Transport::Udp)).await.unwrap();
    client.send(request("six", "").as_bytes()).await.unwrap();
    assert_eq!(edge.message().await.0.source, client.local_addr().unwrap());
    assert_eq!(answer(&client).await, OK);
}

#[tokio::test]
async fn keep_alives_and_stun_are_no_messages() {
    let mut edge = Edge::start().await;
    let client = UdpSocket::bind(loopback()).await.unwrap();
    client.connect(edge.address(Transport::Udp)).await.unwrap();
    for noise in [&b"\r\n\r\n"[..], b"", b"\0\0\0\0", b"\0\x01\0\0\x21\x12\xa4\x42"] {
        client.send(noise).await.unwrap();
    }
    let sent = request("after-noise", "");
    client.send(sent.as_bytes()).await.unwrap();
    assert_eq!(edge.message().await.1, sent.as_bytes());
}

#[tokio::test]
async fn a_panic_over_one_datagram_does_not_end_the_listener() {
    let mut edge = Edge::start().await;
    let client = UdpSocket::bind(loopback()).await.unwrap();
    client.connect(edge.address(Transport::Udp)).await.unwrap();
    client.send(request("PANIC", "").as_bytes()).await.unwrap();
    client.send(request("calm", "").as_bytes()).await.unwrap();
    assert!(matches!(edge.seen().await, Seen::Message(..)));
    assert!(edge.has_event("sip.message.dropped"));
}

#[tokio::test]
async fn a_closed_socket_takes_its_flows_with_it() {
    let mut edge = Edge::start().await;
    let address = edge.address(Transport::Udp);
    let client = UdpSocket::bind(loopback()).await.unwrap();
    client.send_to(request("before", "").as_bytes(), address).await.unwrap();
    let (flow, _) = edge.message().await;
    assert!(edge.handle.close_listener(Transport::Udp, address));
    let late = edge.handle.send(flow.id, Bytes::from_static(b"late"));
    assert_eq!(late, Err(SendError::Gone));
    edge.handle.open(Transport::Udp, loopback()).unwrap();
    let late = edge.handle.send(flow.id, Bytes::from_static(b"late"));
    assert_eq!(late, Err(SendError::Gone), "another socket, another flow");
}

#[tokio::test]
async fn a_request_of_ours_goes_out_by_the_open_socket() {
    let edge = Edge::start().await;
    let peer = UdpSocket::bind(loopback()).await.unwrap();
    let flow = edge.connect(peer.local_addr().unwrap(), Transport::Udp, &[]).await.unwrap();
    edge.handle.send(flow, Bytes::from_static(b"BYE")).unwrap();
    let mut buffer = [0; 10];
    let (size, source) = timeout(PATIENCE, peer.recv_from(&mut buffer)).await.unwrap().unwrap();
    assert_eq!((&buffer[..size], source), (&b"BYE"[..], edge.address(Transport::Udp)));
}
