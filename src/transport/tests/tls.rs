//! Certificates: who is whom, reload, and what is negotiated.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::NamedGroup;
use tokio::io::AsyncWriteExt;
use tokio_rustls::client::TlsStream;
use transport::certificates::{CLIENT_NAME, ensure_development};
use transport::{CertificatesError, Transport, Untrusted};

use crate::support::{Edge, OK, Setup, client_config, expect, handshake, now, request, tcp, tls};

async fn connect(
    edge: &Edge,
    identity: Option<(&Path, &Path)>,
) -> TlsStream<tokio::net::TcpStream> {
    let config = client_config(&edge.certificates.authority, identity);
    handshake(config, tcp(edge.address(Transport::Tls)).await).await.unwrap()
}

fn certificate_of(stream: &TlsStream<tokio::net::TcpStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_client_certificate_names_its_owner_also_when_the_session_is_resumed() {
    let mut edge = Edge::start().await;
    let made = edge.certificates.clone();
    let config = client_config(&made.authority, Some((&made.client, &made.client_key)));
    let mut held = Vec::new();
    for expected in [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed] {
        let stream = tcp(edge.address(Transport::Tls)).await;
        let mut client = handshake(config.clone(), stream).await.unwrap();
        client.write_all(request("known", "").as_bytes()).await.unwrap();
        let (flow, _) = edge.message().await;
        assert_eq!(*flow.certificates, [CLIENT_NAME.to_owned()]);
        expect(&mut client, OK.as_bytes()).await;
        assert_eq!(client.get_ref().1.handshake_kind(), Some(expected));
        held.push(client);
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody_but_served() {
    let mut edge = Edge::start().await;
    let mut client = connect(&edge, None).await;
    client.write_all(request("nobody", "").as_bytes()).await.unwrap();
    assert!(edge.message().await.0.certificates.is_empty());
    expect(&mut client, OK.as_bytes()).await;
}

#[tokio::test]
async fn a_certificate_of_a_foreign_authority_fails_the_handshake() {
    let mut edge = Edge::start().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = ensure_development(elsewhere.path(), &[], now()).unwrap();
    let identity = Some((&*foreign.client, &*foreign.client_key));
    let config = client_config(&edge.certificates.authority, identity);
    let stream = tcp(edge.address(Transport::Tls)).await;
    // In TLS 1.3 the client's side of the handshake ends before the server has judged.
    if let Ok(mut client) = handshake(config, stream).await {
        let _ = client.write_all(request("foreign", "").as_bytes()).await;
        assert_eq!(crate::support::rest(&mut client).await, "");
    }
    edge.until_closed("handshake_failed", 1).await;
    assert!(edge.has_seen_nothing());
}

#[tokio::test]
async fn a_foreign_certificate_counts_for_nothing_where_it_is_ignored() {
    let mut edge = Edge::with(Setup { untrusted: Untrusted::Ignore, ..Setup::default() }).await;
    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = ensure_development(elsewhere.path(), &[], now()).unwrap();
    let mut client = connect(&edge, Some((&foreign.client, &foreign.client_key))).await;
    client.write_all(request("foreign", "").as_bytes()).await.unwrap();
    assert!(edge.message().await.0.certificates.is_empty());

    let own = edge.certificates.clone();
    let mut client = connect(&edge, Some((&own.client, &own.client_key))).await;
    client.write_all(request("own", "").as_bytes()).await.unwrap();
    assert_eq!(*edge.message().await.0.certificates, [CLIENT_NAME.to_owned()]);
}

#[tokio::test]
async fn new_connections_see_a_reloaded_certificate_and_open_ones_go_on() {
    let mut edge = Edge::start().await;
    let mut old = tls(&edge).await;
    let own = edge.certificates.clone();
    let elsewhere = tempfile::tempdir().unwrap();
    let new = ensure_development(elsewhere.path(), &[], now()).unwrap();
    fs::copy(&new.server, &own.server).unwrap();
    fs::copy(&new.server_key, &own.server_key).unwrap();
    fs::copy(&new.authority, &own.authority).unwrap();
    edge.handle.reload_certificates().unwrap();
    assert!(edge.has_event("transport.certificates.reloaded"));

    let fresh = tls(&edge).await; // trusts the new authority only
    assert_ne!(certificate_of(&fresh), certificate_of(&old));
    old.write_all(request("still-here", "").as_bytes()).await.unwrap();
    edge.message().await;
    expect(&mut old, OK.as_bytes()).await;
}

#[tokio::test]
async fn bad_files_leave_the_old_certificate_in_use() {
    let edge = Edge::start().await;
    let before = certificate_of(&tls(&edge).await);
    let own = &edge.certificates;
    fs::copy(&own.client_key, &own.server_key).unwrap();
    let refused = edge.handle.reload_certificates();
    assert!(matches!(refused, Err(CertificatesError::Unusable { .. })), "a key of another");
    fs::write(&own.server, "no certificate").unwrap();
    let refused = edge.handle.reload_certificates();
    assert!(matches!(refused, Err(CertificatesError::Empty(_))), "{refused:?}");
    assert!(edge.has_event("transport.certificates.rejected"));
    assert_eq!(certificate_of(&tls(&edge).await), before);
}

#[tokio::test]
async fn the_post_quantum_group_is_preferred_and_tls_1_2_still_served() {
    let edge = Edge::start().await;
    let client = tls(&edge).await;
    let session = client.get_ref().1;
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));

    let base = client_config(&edge.certificates.authority, None);
    let provider = Arc::clone(base.crypto_provider());
    let mut roots = rustls::RootCertStore::empty();
    let authority = fs::read(&edge.certificates.authority).unwrap();
    let authority = rustls_pki_types::pem::PemObject::from_pem_slice(&authority).unwrap();
    roots.add(authority).unwrap();
    let old = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tcp(edge.address(Transport::Tls)).await;
    let mut client = handshake(old, stream).await.unwrap();
    client.write_all(request("old", "").as_bytes()).await.unwrap();
    expect(&mut client, OK.as_bytes()).await;
}

#[tokio::test]
async fn a_client_of_another_protocol_is_turned_away() {
    let edge = Edge::start().await;
    let mut config = client_config(&edge.certificates.authority, None);
    config.alpn_protocols = vec![b"sip".to_vec()];
    let stream = tcp(edge.address(Transport::Tls)).await;
    handshake(config.clone(), stream).await.unwrap();

    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = tcp(edge.address(Transport::Tls)).await;
    assert!(handshake(config, stream).await.is_err());

    let mut plain = tcp(edge.address(Transport::Tls)).await;
    plain.write_all(request("plain", "").as_bytes()).await.unwrap();
    edge.until_closed("handshake_failed", 2).await;
}
