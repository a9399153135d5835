//! Servers that are dialled, with certificates of a test's choice.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::TrunkName;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use transport::{Dial, DialError, Dialling, Ingress, Line, Reached};

use crate::support::{Edge, PATIENCE};

/// Vouches for peers, and lets them see who their clients are.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
    /// Its certificate.
    pub(crate) file: PathBuf,
}

/// A certificate and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(parameters, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, folder, file }
    }

    /// A certificate for DNS names, addresses and URIs.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let base = self.folder.path().join(names.join("_").replace([':', '/', '*'], "_"));
        let identity = Identity {
            certificate: base.with_extension("cert.pem"),
            key: base.with_extension("key.pem"),
        };
        fs::write(&identity.certificate, certificate.pem()).unwrap();
        fs::write(&identity.key, key.serialize_pem()).unwrap();
        identity
    }
}

fn alternative(name: &str) -> SanType {
    match name.parse() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) if name.contains(':') => SanType::URI(name.try_into().unwrap()),
        Err(_) => SanType::DnsName(name.try_into().unwrap()),
    }
}

impl Identity {
    pub(crate) fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }
}

/// A SIP server over TLS that asks for client certificates of `clients`.
pub(crate) struct Peer {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Peer {
    pub(crate) async fn at(address: SocketAddr, identity: &Identity, clients: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(clients).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients.allow_unauthenticated().build().unwrap())
            .with_single_cert(
                vec![identity.der()],
                PrivateKeyDer::from_pem_file(&identity.key).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind(address).await.unwrap();
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }

    /// The next connection, TLS included.
    pub(crate) async fn accept(&self) -> TlsStream<TcpStream> {
        let accepting = async {
            let (stream, _) = self.listener.accept().await.unwrap();
            self.acceptor.accept(stream).await.unwrap()
        };
        timeout(PATIENCE, accepting).await.expect("a connection")
    }

    /// Accepts whatever comes and keeps it open; says how many came.
    pub(crate) fn keep_accepting(self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(1000);
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (stream, _) = self.listener.accept().await.unwrap();
                sender.try_send(()).unwrap();
                // One that is given up in the handshake is no fault here.
                open.extend(self.acceptor.accept(stream).await);
            }
        });
        receiver
    }
}

/// A line from the edge's TLS listener.
pub(crate) fn line(edge: &Edge, trunk: &str) -> Line {
    let address = edge.address(transport::Transport::Tls);
    let listeners = vec![Ingress { transport: transport::Transport::Tls, address }];
    Line { listeners, ..bare_line(trunk) }
}

/// A line without any wish.
pub(crate) fn bare_line(trunk: &str) -> Line {
    Line {
        trunk: TrunkName::new(trunk),
        send_to: Vec::new(),
        listeners: Vec::new(),
        authorities: None,
        pins: Vec::new(),
        identity: None,
    }
}

/// A dial and its answers.
pub(crate) struct Dialled {
    pub(crate) dialling: Dialling,
    answers: mpsc::Receiver<Result<Reached, DialError>>,
}

pub(crate) fn dial(edge: &Edge, trunk: &str, uri: &str) -> Dialled {
    dial_with(edge, Dial::new(TrunkName::new(trunk), sip::Uri::parse(uri).unwrap()))
}

pub(crate) fn dial_with(edge: &Edge, dial: Dial) -> Dialled {
    let (sender, answers) = mpsc::channel(100);
    let dialling = edge.handle.dial(dial, move |answer| sender.try_send(answer).unwrap());
    Dialled { dialling, answers }
}

impl Dialled {
    pub(crate) async fn answer(&mut self) -> Result<Reached, DialError> {
        timeout(PATIENCE, self.answers.recv()).await.expect("an answer").unwrap()
    }

    pub(crate) async fn reached(&mut self) -> Reached {
        self.answer().await.unwrap()
    }

    pub(crate) async fn error(&mut self) -> DialError {
        self.answer().await.map(|reached| reached.target).unwrap_err()
    }
}
