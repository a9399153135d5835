//! Dialling trunks: names, proof, failover, reuse, health.

use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use base::TrunkName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use transport::{Bounds, Dial, DialError, Failure, NameServers, ResolveError, Transport};

use crate::name_server::{NameServer, Zone};
use crate::peers::{Authority, Peer, dial, dial_with, line};
use crate::support::{Edge, OK, PONG, Seen, Setup, expect, request, rest};

const PING: &[u8] = b"\r\n\r\n";

/// An edge whose name server knows what `fill` says.
async fn edge_with(bounds: Bounds, fill: impl FnOnce(&mut Zone)) -> (Edge, NameServer) {
    let server = NameServer::start(fill).await;
    let names = NameServers { servers: vec![server.address], ..NameServers::default() };
    (Edge::with(Setup { bounds, names, ..Setup::default() }).await, server)
}

/// Ports that are free at several loopback addresses now.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

fn at(last: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, last], port))
}

/// `sip:acme.example` leads to 127.0.0.2 and then to 127.0.0.3, at `port`.
fn acme(zone: &mut Zone, port: u16) {
    zone.pointer("acme.example", (1, 1), "SIPS+D2T", "_sips._tcp.acme.example");
    for (priority, last) in [(1, 2), (2, 3)] {
        let host = format!("sbc{last}.hosting.example");
        zone.service("_sips._tcp.acme.example", (priority, 1), port, &host);
        zone.address(&host, 60, &format!("127.0.0.{last}"));
    }
}

/// Lines for `trunks` that believe `authority` alone and are reached by `sip:acme.example`.
fn open_lines(edge: &Edge, authority: &Authority, trunks: &[&str]) {
    let lines = trunks.iter().map(|trunk| {
        let mut line = line(edge, trunk);
        line.authorities = Some(authority.file.clone());
        line.send_to = vec!["sip:acme.example".to_owned()];
        line.load().unwrap()
    });
    edge.handle.set_lines(lines.collect());
}

#[tokio::test]
async fn a_trunk_is_found_by_its_domain_and_proves_it_whatever_its_servers_are_called() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (mut edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme"]);
    let identity = authority.issue(&["acme.example"]);
    let peer = Peer::at(at(2, port), &identity, &edge.certificates.authority).await;
    let mut call = dial(&edge, "acme", "sip:acme.example");
    let (mut stream, reached) = tokio::join!(peer.accept(), call.reached());
    assert_eq!((reached.target.transport, reached.target.address), (Transport::Tls, at(2, port)));
    assert_eq!(reached.flow.local, edge.address(Transport::Tls), "what Via and Contact name");
    assert_eq!(*reached.flow.certificates, ["acme.example".to_owned()]);
    assert!(reached.flow.outgoing && reached.flow.reusable);
    assert!(stream.get_ref().1.peer_certificates().is_some(), "our own certificate");

    edge.handle.send(reached.flow.id, request("there", "").into()).unwrap();
    expect(&mut stream, request("there", "").as_bytes()).await;
    stream.write_all(OK.as_bytes()).await.unwrap();
    let (flow, message) = edge.message().await;
    assert_eq!((flow.id, &message[..]), (reached.flow.id, OK.as_bytes()));
    // RFC 5923: what the peer asks of us may come the same way.
    stream.write_all(request("back", "").as_bytes()).await.unwrap();
    let (flow, message) = edge.message().await;
    assert_eq!((flow.id, &message[..]), (reached.flow.id, request("back", "").as_bytes()));
}

#[tokio::test]
async fn a_server_that_proves_another_name_is_passed_over() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme"]);
    let wrong = authority.issue(&["sbc2.hosting.example", "*.example", "sip:bob@acme.example"]);
    let right = authority.issue(&["sip:acme.example", "unrelated.example"]);
    let clients = &edge.certificates.authority;
    let imposter = Peer::at(at(2, port), &wrong, clients).await.keep_accepting();
    let peer = Peer::at(at(3, port), &right, clients).await.keep_accepting();
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.reached().await.target.address, at(3, port));
    edge.until_closed("untrusted", 1).await;

    let mut call = dial(&edge, "acme", "sip:sbc3.hosting.example:5061");
    assert_eq!(call.error().await, DialError::Unreachable, "nobody is at that port");
    let mut call = dial(&edge, "acme", &format!("sip:sbc3.hosting.example:{port}"));
    assert_eq!(call.error().await, DialError::Untrusted);
    drop((imposter, peer));
}

#[tokio::test]
async fn a_dead_server_is_passed_over_and_left_alone_for_a_while() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme", "other"]);
    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let second = Peer::at(at(3, port), &identity, clients).await.keep_accepting();
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.reached().await.target.address, at(3, port));

    let mut first = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let mut again = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(again.reached().await.target.address, at(3, port));
    assert!(first.try_recv().is_err(), "it was not even tried");
    let mut other = dial(&edge, "other", "sip:acme.example");
    assert_eq!(other.reached().await.target.address, at(2, port), "each trunk learns for itself");
    drop(second);
}

#[tokio::test]
async fn after_503_the_next_server_is_tried_until_none_is_left() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme"]);
    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let first = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let second = Peer::at(at(3, port), &identity, clients).await.keep_accepting();
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.reached().await.target.address, at(2, port));
    let minute = Some(Duration::from_secs(60));
    call.dialling.failed(Failure::Unavailable(minute));
    assert_eq!(call.reached().await.target.address, at(3, port));
    assert!(edge.handle.health().down().is_empty());
    call.dialling.failed(Failure::Unavailable(minute));
    assert_eq!(call.error().await, DialError::Unavailable);

    let acme = TrunkName::new("acme");
    assert_eq!(edge.handle.health().down().into_iter().collect::<Vec<_>>(), [acme]);
    assert!(edge.has_event("transport.trunk.health"));
    let mut again = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(again.error().await, DialError::Unavailable, "both asked to be left alone");
    assert_eq!(DialError::Unavailable.reason().code(), "trunk.unavailable");
    drop((first, second));
}

/// A trunk with one server, and the connections that have come to it. Where it is a stranger, it
/// believes its own authority alone, which has not issued what we show.
async fn with_one_server(is_stranger: bool) -> (Edge, tokio::sync::mpsc::Receiver<()>, String) {
    let (authority, port) = (Authority::new(), free_port().await);
    let edge = Edge::start().await;
    let uri = format!("sip:127.0.0.2:{port}");
    let mut acme = line(&edge, "acme");
    acme.authorities = Some(authority.file.clone());
    acme.send_to = vec![uri.clone()];
    edge.handle.set_lines(vec![acme.load().unwrap()]);
    let identity = authority.issue(&["127.0.0.2"]);
    let believed = if is_stranger { &authority.file } else { &edge.certificates.authority };
    let peer = Peer::at(at(2, port), &identity, believed).await;
    (edge, peer.keep_accepting(), uri)
}

#[tokio::test]
async fn the_only_server_of_a_trunk_is_tried_by_every_call_whatever_failed_there() {
    let (edge, _peer, uri) = with_one_server(false).await;
    let mut call = dial(&edge, "acme", &uri);
    call.reached().await;
    // It took the connection and said nothing for `first_response`.
    call.dialling.failed(Failure::Silent);
    assert_eq!(call.error().await, DialError::Unreachable);
    assert_eq!(edge.handle.health().down().len(), 1, "the operator is told");
    for _ in 0..20 {
        dial(&edge, "acme", &uri).reached().await;
    }
    let mut call = dial(&edge, "acme", &uri);
    call.reached().await;
    call.dialling.worked();
    assert!(edge.handle.health().down().is_empty());
}

#[tokio::test]
async fn the_only_server_of_a_trunk_that_asks_to_be_left_alone_is_tried_by_one_call_a_second() {
    let (edge, _peer, uri) = with_one_server(false).await;
    let mut call = dial(&edge, "acme", &uri);
    call.reached().await;
    call.dialling.failed(Failure::Unavailable(Some(Duration::from_secs(300))));
    assert_eq!(call.error().await, DialError::Unavailable, "not merely unreachable");
    let began = tokio::time::Instant::now();
    let trickled = loop {
        let mut call = dial(&edge, "acme", &uri);
        match call.answer().await {
            Ok(_) => break call,
            Err(error) => assert_eq!(error, DialError::Unavailable),
        }
        assert!(began.elapsed() < Duration::from_secs(20), "nobody tries it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(began.elapsed() > Duration::from_millis(500), "it was left alone for a while");
    trickled.dialling.worked();
    for _ in 0..5 {
        dial(&edge, "acme", &uri).reached().await;
    }
}

#[tokio::test]
async fn a_call_whose_connection_was_lost_goes_on_over_a_new_one_to_the_same_server_once() {
    let (mut edge, mut peer, uri) = with_one_server(false).await;
    let mut call = dial(&edge, "acme", &uri);
    let first = call.reached().await.flow.id;
    for round in 0..2 {
        let flow = if round == 0 { first } else { call.reached().await.flow.id };
        assert_eq!(flow == first, round == 0);
        edge.handle.close(flow);
        assert_eq!(edge.closed().await, flow);
        call.dialling.failed(Failure::Silent);
    }
    assert_eq!(call.error().await, DialError::Unreachable, "once, and not for ever");
    for _ in 0..2 {
        peer.recv().await.unwrap();
    }
    assert!(peer.try_recv().is_err(), "two connections");
}

#[tokio::test]
async fn a_server_that_does_not_take_our_certificate_is_told_from_one_that_is_gone() {
    let (edge, mut came, uri) = with_one_server(true).await;
    let mut call = dial(&edge, "acme", &uri);
    call.reached().await;
    edge.until_closed("certificate_refused", 1).await;
    call.dialling.failed(Failure::Silent);
    let error = call.error().await;
    assert_eq!((error, error.reason().code()), (DialError::Unwelcome, "trunk.certificate_refused"));
    came.recv().await.unwrap();
    assert!(came.try_recv().is_err(), "it is not asked again");
}

#[tokio::test]
async fn a_burst_of_calls_to_one_server_finds_room_in_its_one_connection() {
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    edge.handle.set_lines(vec![line(&edge, "lab").load().unwrap()]);
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{};transport=tcp", peer.local_addr().unwrap());
    let flow = dial(&edge, "lab", &uri).reached().await.flow;
    let mut stream = peer.accept().await.unwrap().0;
    // The edge stood still for two seconds, and then has it all at once; nothing is written
    // meanwhile, since this is the only thread.
    let message = request("burst", "");
    for number in 0..1_200 {
        let sent = edge.handle.send(flow.id, message.clone().into());
        assert_eq!(sent, Ok(()), "message {number}");
    }
    expect(&mut stream, message.repeat(1_200).as_bytes()).await;
}

#[tokio::test]
async fn a_trunk_that_works_again_is_up_again() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme"]);
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.error().await, DialError::Unreachable);
    assert_eq!(edge.handle.health().down().len(), 1);

    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let peer = Peer::at(at(3, port), &identity, clients).await.keep_accepting();
    // All targets failed lately; with nothing else left they are tried nevertheless.
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.reached().await.target.address, at(3, port));
    call.dialling.worked();
    assert!(edge.handle.health().down().is_empty());
    drop(peer);
}

#[tokio::test]
async fn a_connection_that_stands_is_answered_before_the_dial_returns() {
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    edge.handle.set_lines(vec![line(&edge, "lab").load().unwrap()]);
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{};transport=tcp", peer.local_addr().unwrap());
    let first = dial(&edge, "lab", &uri).reached().await.flow.id;
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let again = Dial::new(TrunkName::new("lab"), sip::Uri::parse(&uri).unwrap());
    let _again = edge.handle.dial(again, move |answer| {
        tell.try_send(answer.map(|reached| reached.flow.id)).unwrap();
    });
    assert_eq!(told.try_recv(), Ok(Ok(first)));
}

#[tokio::test]
async fn many_calls_at_once_share_one_connection() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme"]);
    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let mut peer = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let mut calls: Vec<_> = (0..50).map(|_| dial(&edge, "acme", "sip:acme.example")).collect();
    let first = calls[0].reached().await.flow.id;
    for call in &mut calls[1..] {
        assert_eq!(call.reached().await.flow.id, first);
    }
    peer.recv().await.unwrap();
    assert!(peer.try_recv().is_err(), "one connection");
}

#[tokio::test]
async fn a_trunk_opens_no_more_connections_than_its_limit() {
    let (authority, port) = (Authority::new(), free_port().await);
    let bounds = Bounds { connections_per_trunk: 1, ..Bounds::default() };
    let (edge, _names) = edge_with(bounds, |zone| acme(zone, port)).await;
    open_lines(&edge, &authority, &["acme", "other"]);
    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let first = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let second = Peer::at(at(3, port), &identity, clients).await.keep_accepting();
    let mut call = dial(&edge, "acme", "sip:acme.example");
    let held = call.reached().await;
    call.dialling.failed(Failure::Silent);
    assert_eq!(call.error().await, DialError::Full);
    assert!(edge.handle.health().down().is_empty(), "our limit says nothing about the trunk");
    edge.handle.close(held.flow.id);
    edge.until_closed("local", 1).await;
    let mut call = dial(&edge, "acme", "sip:acme.example");
    assert_eq!(call.reached().await.target.address, at(3, port), "there is room again");
    drop((first, second));
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_holds_up_nobody() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |zone| {
        zone.address("acme.example", 60, "127.0.0.2");
        zone.address("acme.example", 60, "127.0.0.3");
    })
    .await;
    open_lines(&edge, &authority, &["acme"]);
    let mute = TcpListener::bind(at(2, port)).await.unwrap();
    let identity = authority.issue(&["acme.example"]);
    let clients = &edge.certificates.authority;
    let peer = Peer::at(at(3, port), &identity, clients).await.keep_accepting();
    let mut call = dial(&edge, "acme", &format!("sip:acme.example:{port}"));
    assert_eq!(call.reached().await.target.address, at(3, port));
    let (mut given_up, _) = mute.accept().await.unwrap();
    let mut hello = Vec::new();
    given_up.read_to_end(&mut hello).await.unwrap();
    assert!(!hello.is_empty(), "it was tried, and is closed now");
    drop(peer);
}

#[tokio::test]
async fn a_dial_that_nobody_wants_any_more_leaves_nothing_behind() {
    let authority = Authority::new();
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    open_lines(&edge, &authority, &["acme"]);
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let call = dial(&edge, "acme", &format!("sip:{}", mute.local_addr().unwrap()));
    let (mut stream, _) = mute.accept().await.unwrap();
    assert_eq!(edge.handle.connection_count(), 1);
    drop(call);
    let mut hello = Vec::new();
    stream.read_to_end(&mut hello).await.unwrap();
    edge.until_closed("local", 1).await;
    assert_eq!(edge.handle.connection_count(), 0);
}

#[tokio::test]
async fn a_pinned_certificate_needs_nobody_who_vouches_for_it_and_no_name() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    let pinned = authority.issue(&["whatever.example"]);
    let other = authority.issue(&["127.0.0.3"]);
    let clients = &edge.certificates.authority;
    let peers = [
        Peer::at(at(2, port), &pinned, clients).await.keep_accepting(),
        Peer::at(at(3, port), &other, clients).await.keep_accepting(),
    ];
    let pin = digest::digest(&digest::SHA256, &pinned.der());
    let mut it = line(&edge, "acme");
    it.pins = vec![[7; 32], pin.as_ref().try_into().unwrap()];
    edge.handle.set_lines(vec![it.load().unwrap()]);
    dial(&edge, "acme", &format!("sip:127.0.0.2:{port}")).reached().await;
    let mut wrong = dial(&edge, "acme", &format!("sip:127.0.0.3:{port}"));
    assert_eq!(wrong.error().await, DialError::Untrusted);
    drop(peers);
}

#[tokio::test]
async fn a_trunk_with_its_own_authority_believes_no_other() {
    let (own, foreign, port) = (Authority::new(), Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    open_lines(&edge, &own, &["acme"]);
    let clients = &edge.certificates.authority;
    let peers = [
        Peer::at(at(2, port), &own.issue(&["127.0.0.2"]), clients).await.keep_accepting(),
        Peer::at(at(3, port), &foreign.issue(&["127.0.0.3"]), clients).await.keep_accepting(),
    ];
    dial(&edge, "acme", &format!("sip:127.0.0.2:{port}")).reached().await;
    let mut wrong = dial(&edge, "acme", &format!("sip:127.0.0.3:{port}"));
    assert_eq!(wrong.error().await, DialError::Untrusted);
    // The edge's common authority, which vouches for its own listeners, counts for nothing here.
    let own = edge.address(Transport::Tls);
    let mut itself = dial(&edge, "acme", &format!("sip:{own}"));
    assert_eq!(itself.error().await, DialError::Untrusted);
    drop(peers);
}

#[tokio::test]
async fn a_connection_opened_under_another_proof_is_not_used_again() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    open_lines(&edge, &authority, &["acme"]);
    let identity = authority.issue(&["127.0.0.2"]);
    let clients = &edge.certificates.authority;
    let peer = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let uri = format!("sip:127.0.0.2:{port}");
    let first = dial(&edge, "acme", &uri).reached().await.flow.id;
    open_lines(&edge, &authority, &["acme"]);
    assert_eq!(dial(&edge, "acme", &uri).reached().await.flow.id, first, "nothing has changed");
    open_lines(&edge, &Authority::new(), &["acme"]);
    assert_eq!(dial(&edge, "acme", &uri).error().await, DialError::Untrusted);
    drop(peer);
}

#[tokio::test]
async fn our_certificate_is_the_trunks_own_or_the_listeners() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    let ours = authority.issue(&["us-at-acme.example"]);
    let mut plain = line(&edge, "plain");
    plain.authorities = Some(authority.file.clone());
    let mut named = line(&edge, "named");
    named.authorities = Some(authority.file.clone());
    named.identity = Some((ours.certificate.clone(), ours.key.clone()));
    edge.handle.set_lines(vec![plain.load().unwrap(), named.load().unwrap()]);

    // The peer believes both of them.
    let both = authority.file.with_extension("both");
    let read = |file| std::fs::read_to_string(file).unwrap();
    std::fs::write(&both, read(&authority.file) + &read(&edge.certificates.authority)).unwrap();
    let peer = Peer::at(at(2, port), &authority.issue(&["127.0.0.2"]), &both).await;
    let uri = format!("sip:127.0.0.2:{port}");
    let listeners = rustls_pki_types::pem::PemObject::from_pem_file(&edge.certificates.server);
    for (trunk, expected) in [("plain", listeners.unwrap()), ("named", ours.der())] {
        let mut call = dial(&edge, trunk, &uri);
        let (stream, _) = tokio::join!(peer.accept(), call.reached());
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], expected, "{trunk}");
    }
}

#[tokio::test]
async fn within_a_dialog_a_name_that_was_proved_before_counts_for_an_address() {
    let (authority, port) = (Authority::new(), free_port().await);
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    open_lines(&edge, &authority, &["acme"]);
    let identity = authority.issue(&["sip.acme.example"]);
    let clients = &edge.certificates.authority;
    let peer = Peer::at(at(2, port), &identity, clients).await.keep_accepting();
    let contact = sip::Uri::parse(&format!("sip:127.0.0.2:{port};transport=tls")).unwrap();
    let outside = Dial::new(TrunkName::new("acme"), contact);
    assert_eq!(dial_with(&edge, outside.clone()).error().await, DialError::Untrusted);
    let other = Dial { proved: ["other.example".to_owned()].into(), ..outside.clone() };
    assert_eq!(dial_with(&edge, other).error().await, DialError::Untrusted);
    let inside = Dial { proved: ["sip.acme.example".to_owned()].into(), ..outside.clone() };
    dial_with(&edge, inside).reached().await;
    assert_eq!(dial_with(&edge, outside).error().await, DialError::Untrusted, "not by reuse");
    drop(peer);
}

#[tokio::test]
async fn a_peer_that_proved_itself_may_be_called_over_the_connection_that_it_opened() {
    let (mut edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    let made = edge.certificates.clone();
    edge.handle.set_lines(vec![line(&edge, "acme").load().unwrap()]);
    let identity = Some((&*made.client, &*made.client_key));
    let config = crate::support::client_config(&made.authority, identity);
    let stream = crate::support::tcp(edge.address(Transport::Tls)).await;
    let mut client = crate::support::handshake(config, stream).await.unwrap();
    client.write_all(request("hello", "").as_bytes()).await.unwrap();
    let (flow, _) = edge.message().await;
    let port = free_port().await;
    let uri = format!("sip:client.localhost:{port}");
    assert_eq!(dial(&edge, "acme", &uri).error().await, DialError::Unreachable, "it did not ask");
    edge.handle.alias(&flow, port);
    assert_eq!(dial(&edge, "acme", &uri).reached().await.flow.id, flow.id);
    let other = format!("sip:127.0.0.1:{port}");
    assert_eq!(dial(&edge, "acme", &other).error().await, DialError::Unreachable, "not its name");
    drop(client);
    while !matches!(edge.seen().await, Seen::Closed(closed) if closed == flow.id) {}
    assert_eq!(dial(&edge, "acme", &uri).error().await, DialError::Unreachable);
}

#[tokio::test]
async fn a_peer_without_a_certificate_gets_no_alias() {
    let (mut edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    edge.handle.set_lines(vec![line(&edge, "acme").load().unwrap()]);
    let mut client = crate::support::tls(&edge).await;
    client.write_all(request("hello", "").as_bytes()).await.unwrap();
    let (flow, _) = edge.message().await;
    let port = free_port().await;
    edge.handle.alias(&flow, port);
    let uri = format!("sip:client.localhost:{port}");
    assert_eq!(dial(&edge, "acme", &uri).error().await, DialError::Unreachable);
}

#[tokio::test]
async fn plaintext_is_dialled_where_the_uri_says_so() {
    let (mut edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    edge.handle.set_lines(vec![line(&edge, "lab").load().unwrap()]);
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{};transport=tcp", peer.local_addr().unwrap());
    let reached = dial(&edge, "lab", &uri).reached().await;
    assert!(!reached.flow.reusable, "RFC 5923 section 5: only where both sides are proved");
    edge.handle.send(reached.flow.id, request("tcp", "").into()).unwrap();
    let mut stream = peer.accept().await.unwrap().0;
    expect(&mut stream, request("tcp", "").as_bytes()).await;

    let peer = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("sip:{};transport=udp", peer.local_addr().unwrap());
    let reached = dial(&edge, "lab", &uri).reached().await;
    assert_eq!(reached.flow.local, edge.address(Transport::Udp));
    edge.handle.send(reached.flow.id, request("udp", "").into()).unwrap();
    let mut buffer = [0; 2000];
    let (size, source) = peer.recv_from(&mut buffer).await.unwrap();
    assert_eq!((&buffer[..size], source), (request("udp", "").as_bytes(), reached.flow.local));
    peer.send_to(OK.as_bytes(), source).await.unwrap();
    assert_eq!(edge.message().await.0.id, reached.flow.id);
    let six = dial(&edge, "lab", "sip:[::1]:5060;transport=udp").error().await;
    assert_eq!(six, DialError::Unreachable, "there is no such socket");
}

#[tokio::test]
async fn what_cannot_be_dialled_is_said_with_its_reason() {
    let (edge, _names) = edge_with(Bounds::default(), |_| ()).await;
    let mut unknown = dial(&edge, "nobody", "sip:192.0.2.1");
    assert_eq!(unknown.error().await, DialError::UnknownTrunk);
    let mut acme = line(&edge, "acme");
    acme.send_to = vec!["sip:gone.example".to_owned()];
    edge.handle.set_lines(vec![acme.load().unwrap()]);
    let gone = dial(&edge, "acme", "sip:gone.example").error().await;
    assert_eq!(gone, DialError::Resolve(ResolveError::Nowhere));
    assert_eq!(gone.reason(), base::Reason::TrunkUnresolved);
    assert_eq!(edge.handle.health().down().len(), 1);
    edge.handle.drain(Duration::ZERO).await;
    assert_eq!(dial(&edge, "acme", "sip:192.0.2.1").error().await, DialError::Ended);
}

#[tokio::test]
async fn a_line_whose_files_are_bad_does_not_load() {
    let edge = Edge::start().await;
    let mut bad = line(&edge, "acme");
    bad.authorities = Some("/nowhere/ca.pem".into());
    assert!(bad.clone().load().unwrap_err().to_string().contains("/nowhere/ca.pem"));
    bad.authorities = None;
    let made = &edge.certificates;
    bad.identity = Some((made.server.clone(), made.client_key.clone()));
    assert!(bad.load().is_err(), "a key of another");
}

/// A connection that we opened, with keep-alives at a pace that a test can wait for.
async fn pinged(pong_ms: u64) -> (Edge, tokio::net::TcpStream, sip::FlowId) {
    let (ping, pong) = (Duration::from_millis(20), Duration::from_millis(pong_ms));
    let bounds = Bounds { ping, pong, ..Bounds::default() };
    let edge = Edge::with(Setup { bounds, ..Setup::default() }).await;
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let flow = edge.connect(peer.local_addr().unwrap(), Transport::Tcp, &[]).await.unwrap();
    let stream = peer.accept().await.unwrap().0;
    (edge, stream, flow)
}

#[tokio::test]
async fn a_peer_that_leaves_a_keep_alive_without_an_answer_after_others_is_gone() {
    let (mut edge, mut stream, flow) = pinged(700).await;
    for _ in 0..2 {
        expect(&mut stream, PING).await;
        stream.write_all(PONG).await.unwrap();
    }
    expect(&mut stream, PING).await;
    assert_eq!(edge.closed().await, flow);
    assert_eq!(edge.causes(), ["no_pong"]);
    assert_eq!(rest(&mut stream).await, "");
}

#[tokio::test]
async fn a_peer_that_never_answers_keep_alives_need_not_know_of_them() {
    let (edge, mut stream, flow) = pinged(20).await;
    for _ in 0..4 {
        expect(&mut stream, PING).await;
    }
    edge.handle.send(flow, request("still", "").into()).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(request("still", "").as_bytes()) {
        seen.push(stream.read_u8().await.unwrap());
    }
    assert!(edge.causes().is_empty());
}
