//! TLS: what we show, whom we believe, and what a peer's certificate says about it. Loaded from
//! files as one whole and swapped as one whole, so that a reload never mixes old and new.
//!
//! Resumption is allowed, early data is not (a replayed INVITE would ring twice).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::limit;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls::{client::danger::HandshakeSignatureValid, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::config::{TlsFiles, Untrusted};
use crate::line::Client;
use crate::proof::Trust;

/// Why TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read or is not PEM.
    #[error("{}: {cause}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: pem::Error,
    },
    /// A file holds no certificate.
    #[error("{}: no certificate in it", .0.display())]
    Empty(PathBuf),
    /// A certificate or key is of no use, or they do not belong together.
    #[error("{}: {cause}", file.display())]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        cause: rustls::Error,
    },
    /// The configuration names no TLS files.
    #[error("no certificate is configured")]
    NotConfigured,
}

/// The TLS material in use and where it comes from.
#[derive(Debug)]
pub(crate) struct TlsStore {
    files: TlsFiles,
    current: ArcSwap<Tls>,
}

impl TlsStore {
    pub(crate) fn load(files: TlsFiles) -> Result<Self, CertificatesError> {
        let current = ArcSwap::from_pointee(Tls::load(&files)?);
        Ok(Self { files, current })
    }

    /// Reads the files again; on an error everything stays as it is.
    pub(crate) fn reload(&self) -> Result<(), CertificatesError> {
        self.current.store(Arc::new(Tls::load(&self.files)?));
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<Tls> {
        self.current.load_full()
    }
}

/// One loaded set of TLS material.
#[derive(Debug)]
pub(crate) struct Tls {
    pub(crate) server: Arc<ServerConfig>,
    /// For browsers: no client certificate is asked for.
    pub(crate) web: Arc<ServerConfig>,
    /// For connections that we open; absent where nobody would be believed.
    pub(crate) client: Option<Client>,
    /// Who vouches for servers of which nothing else is said.
    pub(crate) trust: Trust,
    /// Our certificate and its key.
    pub(crate) identity: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    untrusted: Untrusted,
}

impl Tls {
    fn load(files: &TlsFiles) -> Result<Self, CertificatesError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let chain = read_certificates(&files.certificate)?;
        let key = read_key(&files.key)?;
        let identity = CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider);
        let roots = files.authorities.as_deref().map(read_authorities).transpose()?;
        let clients = roots.clone().map(|roots| client_verifier(roots, &provider)).transpose();
        let unusable = |file: &Path| {
            let file = file.to_path_buf();
            move |cause| CertificatesError::Unusable { file, cause }
        };
        let clients =
            clients.map_err(unusable(files.authorities.as_deref().unwrap_or(&files.key)))?;
        let asked = match (&clients, files.untrusted) {
            (None, _) => WebPkiClientVerifier::no_client_auth(),
            (Some(clients), Untrusted::Refuse) => Arc::clone(clients),
            (Some(clients), Untrusted::Ignore) => Arc::new(Tolerant(Arc::clone(clients))),
        };
        let config = |asked, protocols: &[&[u8]]| -> Result<_, rustls::Error> {
            let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
                .with_client_cert_verifier(asked)
                .with_single_cert(chain.clone(), key.clone_key())?;
            server.ticketer = aws_lc_rs::Ticketer::new()?;
            server.max_early_data_size = 0;
            // Most SIP clients offer no protocol. One that offers others only was led here by an
            // attacker (cross-protocol, RFC 7301 section 3.2), so it is refused.
            server.alpn_protocols = protocols.iter().map(|it| it.to_vec()).collect();
            Ok(Arc::new(server))
        };
        let server = config(asked, &ALPN).map_err(unusable(&files.key))?;
        // A session of one port is never resumed at the other: each has a ticketer of its own.
        let web = config(WebPkiClientVerifier::no_client_auth(), &WEB_ALPN);
        let web = web.map_err(unusable(&files.key))?;
        let identity = Arc::new(identity.map_err(unusable(&files.certificate))?);
        let trust = Trust::Authorities(vouching(roots, files.system));
        let client = Client::new(&provider, trust.clone(), Some(&identity));
        let client = client.map_err(unusable(&files.certificate))?;
        let untrusted = files.untrusted;
        Ok(Self { server, web, client, trust, identity, clients, untrusted })
    }

    /// The names of a client that showed `chain`; `None` where the connection must end. Checked
    /// here again, because a resumed session was verified under the authorities of its time.
    pub(crate) fn client_names(
        &self,
        chain: Option<&[CertificateDer<'_>]>,
    ) -> Option<Arc<[String]>> {
        let (Some(verifier), Some([certificate, intermediates @ ..])) = (&self.clients, chain)
        else {
            return Some(Arc::default());
        };
        match verifier.verify_client_cert(certificate, intermediates, UnixTime::now()) {
            Ok(_) => Some(names_in(certificate)),
            Err(_) if self.untrusted == Untrusted::Ignore => Some(Arc::default()),
            Err(_) => None,
        }
    }
}

/// The DNS names and URIs of a certificate that was verified.
pub(crate) fn names_in(certificate: &CertificateDer<'_>) -> Arc<[String]> {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
        return Arc::default();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return Arc::default() };
    let names = names.value.general_names.iter().filter_map(|name| match name {
        // RFC 5922 section 7.2: a wildcard stands for no SIP domain.
        GeneralName::DNSName(name) if is_plain(name) && !name.contains('*') => {
            Some(name.to_ascii_lowercase())
        }
        GeneralName::URI(uri) if is_plain(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    names.take(limit::TRANSPORT_CERTIFICATE_NAMES.get()).collect()
}

/// The certificates of a PEM file, at least one.
pub(crate) fn read_certificates(
    file: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificatesError> {
    let read = |cause| CertificatesError::Read { file: file.to_path_buf(), cause };
    let certificates = CertificateDer::pem_file_iter(file).map_err(read)?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(read)?;
    if certificates.is_empty() {
        return Err(CertificatesError::Empty(file.to_path_buf()));
    }
    Ok(certificates)
}

/// The private key of a PEM file.
pub(crate) fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, CertificatesError> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|cause| CertificatesError::Read { file: file.to_path_buf(), cause })
}

/// The authorities who vouch for servers: the configured ones and those of the system.
fn vouching(configured: Option<Arc<RootCertStore>>, system: bool) -> Arc<RootCertStore> {
    let configured = configured.unwrap_or_else(|| Arc::new(RootCertStore::empty()));
    if !system {
        return configured;
    }
    let mut roots = (*configured).clone();
    // What cannot be read of the system's store vouches for nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    Arc::new(roots)
}

/// The authorities of a PEM file.
pub(crate) fn read_authorities(file: &Path) -> Result<Arc<RootCertStore>, CertificatesError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots
            .add(certificate)
            .map_err(|cause| CertificatesError::Unusable { file: file.to_path_buf(), cause })?;
    }
    Ok(Arc::new(roots))
}

/// Verifies clients that show a certificate and lets others in.
pub(crate) fn client_verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, rustls::Error> {
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))
}

/// Verifies servers.
pub(crate) fn server_verifier(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    let builder = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider));
    match builder.build() {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(rustls::Error::General(error.to_string())),
    }
}

/// Whether a stream failed since its other end does not take our certificate (RFC 8446 section
/// 6.2).
pub(crate) fn refuses_us(error: &std::io::Error) -> bool {
    use rustls::AlertDescription as Alert;
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::AlertReceived(alert)) = error else { return false };
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
    )
}

/// The registered id and the one in use before it was.
const ALPN: [&[u8]; 2] = [b"sip/2", b"sip"];

/// What is spoken to browsers; WebSockets need no other.
const WEB_ALPN: [&[u8]; 1] = [b"http/1.1"];

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Completes the handshake of a client whose certificate nobody vouches for, if it has the key;
/// [`Tls::client_names`] then finds no name for it.
#[derive(Debug)]
struct Tolerant(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Tolerant {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
