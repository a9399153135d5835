//! The client's side of TLS: rustls on aws-lc-rs, 1.2 and 1.3.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::config::{Authorities, Identity, Tls};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error("{file} cannot be read: {why}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate of our own cannot be made, or not be written.
    #[error("no certificate can be made: {0}")]
    Make(String),
    /// There is no certificate of an authority.
    #[error("{0} holds no certificate of an authority")]
    NoAuthority(String),
    /// rustls refuses the certificates or the key.
    #[error("the certificates cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The configuration of every connection.
pub(crate) fn client(tls: &Tls) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let builder = match authorities(&tls.authorities)? {
        Some(roots) => builder.with_root_certificates(roots),
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(DangerAcceptAny(provider))),
    };
    let config = match &tls.identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unreadable(certificate, &error))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            builder.with_client_auth_cert(chain, key)?
        }
    };
    Ok(Arc::new(config))
}

/// The configuration of a listener: with a certificate of files, or with one made now for `names`,
/// which is returned as PEM.
pub(crate) fn server(
    identity: Option<(&Path, &Path)>,
    names: Vec<String>,
) -> Result<(Arc<ServerConfig>, Option<String>), TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth();
    let (chain, key, made) = match identity {
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| unreadable(certificate, &error))?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error))?;
            (chain, key, None)
        }
        None => {
            let made = rcgen::generate_simple_self_signed(names)
                .map_err(|error| TlsError::Make(error.to_string()))?;
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der())
                .map_err(|why| TlsError::Make(why.to_owned()))?;
            (vec![made.cert.der().clone()], key, Some(made.cert.pem()))
        }
    };
    Ok((Arc::new(builder.with_single_cert(chain, key)?), made))
}

/// `None` where nobody needs to vouch.
fn authorities(authorities: &Authorities) -> Result<Option<RootCertStore>, TlsError> {
    let (name, certificates) = match authorities {
        Authorities::DangerAcceptAnyCertificate => return Ok(None),
        Authorities::File(path) => (
            path.display().to_string(),
            CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>),
        ),
        Authorities::Pem(pem) => {
            ("the given PEM".into(), CertificateDer::pem_slice_iter(pem).collect())
        }
    };
    let certificates = certificates
        .map_err(|error| TlsError::File { file: name.clone(), why: error.to_string() })?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    if roots.is_empty() { Err(TlsError::NoAuthority(name)) } else { Ok(Some(roots)) }
}

fn unreadable(file: &Path, error: &rustls_pki_types::pem::Error) -> TlsError {
    TlsError::File { file: file.display().to_string(), why: error.to_string() }
}

/// Believes every certificate; signatures are still checked, so that a fault in the handshake
/// shows.
#[derive(Debug)]
struct DangerAcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for DangerAcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
