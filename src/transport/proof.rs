//! Whether a server's certificate proves the SIP domain that was dialled (RFC 5922), and our own
//! certificate where a server asks for one.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sip::{Host, Scheme, Uri};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::time::ASN1Time;

/// Whom a server must prove to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// The domain or address that was dialled.
    pub(crate) host: Host,
    /// Or one of these, which the peer has proved before, within the dialog that this is for.
    pub(crate) proved: Arc<[String]>,
}

/// Why we believe a server.
#[derive(Clone, Debug)]
pub(crate) enum Trust {
    /// One of these authorities vouches for its names.
    Authorities(Arc<RootCertStore>),
    /// Its certificate has one of these SHA-256 fingerprints.
    Pinned(Arc<[[u8; 32]]>),
}

impl Trust {
    /// Whether nobody at all is believed.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Authorities(roots) => roots.is_empty(),
            Self::Pinned(pins) => pins.is_empty(),
        }
    }
}

/// Judges the certificates of one dial.
#[derive(Debug)]
pub(crate) struct Judge {
    pub(crate) trust: Trust,
    pub(crate) wanted: Wanted,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl Judge {
    /// Whether the certificate is the wanted one's. Asked again after the handshake, because a
    /// resumed session was judged for another dial.
    pub(crate) fn believes(&self, certificate: &CertificateDer<'_>) -> bool {
        match &self.trust {
            Trust::Pinned(pins) => pins.contains(&fingerprint(certificate)),
            Trust::Authorities(_) => with_parsed(certificate, |parsed| {
                // What was proved may have been a name or a `sip:` URI.
                let domain = |name: &String| domain_of_uri(name).or_else(|| Host::parse(name));
                let mut proved = self.wanted.proved.iter().filter_map(domain);
                proves(parsed, &self.wanted.host) || proved.any(|it| proves(parsed, &it))
            }),
        }
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Authorities(roots) => {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                let all = self.algorithms.all;
                verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, all)?;
            }
            Trust::Pinned(_) => {
                let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
                let in_date = |parsed: &X509Certificate<'_>| {
                    ASN1Time::from_timestamp(seconds)
                        .is_ok_and(|now| parsed.validity().is_valid_at(now))
                };
                if !with_parsed(end_entity, in_date) {
                    return Err(CertificateError::Expired.into());
                }
            }
        }
        if self.believes(end_entity) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whether names of a verified certificate, as [`crate::Flow::certificates`] holds them, stand for
/// a domain.
pub(crate) fn names_prove(names: &[String], host: &Host) -> bool {
    let uris: Vec<Host> = names.iter().filter_map(|name| domain_of_uri(name)).collect();
    if !uris.is_empty() {
        return uris.iter().any(|it| it.equivalent(host));
    }
    let is_name = matches!(host, Host::Name(_));
    is_name && names.iter().any(|name| !name.contains(':') && same_name(name, host))
}

/// The SHA-256 fingerprint of a certificate.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
    bytes
}

/// Whether our certificate may prove who we are as a client: it is for everything, or says so. One
/// that is for servers only would make a peer refuse us that takes clients without a certificate.
pub(crate) fn may_be_client(certificate: &CertificateDer<'_>) -> bool {
    with_parsed(certificate, |parsed| match parsed.extended_key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.any || usage.value.client_auth,
        Err(_) => false,
    })
}

fn with_parsed(
    certificate: &CertificateDer<'_>,
    look: impl FnOnce(&X509Certificate<'_>) -> bool,
) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| look(&parsed))
}

/// RFC 5922 section 7.1: the identities are the `sip:` URIs of the alternative names, and DNS
/// names where there is none of those. The common name counts for nothing.
fn proves(parsed: &X509Certificate<'_>, host: &Host) -> bool {
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    let names = &names.value.general_names;
    if let Some(address) = host.ip() {
        return names.iter().any(|name| {
            matches!(name, GeneralName::IPAddress(bytes) if address_of(bytes) == Some(address))
        });
    }
    let mut uris = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => domain_of_uri(uri),
            _ => None,
        })
        .peekable();
    if uris.peek().is_some() {
        return uris.any(|it| it.equivalent(host));
    }
    names.iter().any(|name| matches!(name, GeneralName::DNSName(name) if same_name(name, host)))
}

/// The domain that a `sip:` URI in a certificate stands for. One with a user part stands for no
/// domain, nor does another scheme (RFC 5922 section 7.1).
fn domain_of_uri(uri: &str) -> Option<Host> {
    let uri = Uri::parse(uri).ok()?;
    let is_domain = uri.scheme() == Scheme::Sip && uri.user().is_none();
    uri.host().filter(|_| is_domain).cloned()
}

/// RFC 5922 section 7.2: names are compared whole and without case; a wildcard matches nothing,
/// because it is no host name.
fn same_name(name: &str, host: &Host) -> bool {
    let whole = |name: &str| name.trim_end_matches('.').to_ascii_lowercase();
    matches!(host, Host::Name(host) if !whole(host).is_empty() && whole(host) == whole(name))
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name.push(DnType::CommonName, "acme.example");
        parameters.subject_alt_names = names;
        parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn dns(name: &str) -> SanType {
        SanType::DnsName(name.try_into().unwrap())
    }

    fn uri(uri: &str) -> SanType {
        SanType::URI(uri.try_into().unwrap())
    }

    fn is_proved(names: Vec<SanType>, host: &str) -> bool {
        let host = Host::parse(host).unwrap();
        with_parsed(&certificate(names), |parsed| proves(parsed, &host))
    }

    #[test]
    fn a_sip_uri_names_the_domain_and_then_dns_names_do_not_count() {
        let both = || vec![uri("sip:acme.example"), dns("other.example")];
        assert!(is_proved(both(), "ACME.example"));
        assert!(!is_proved(both(), "other.example"));
        for wrong in ["sip:bob@acme.example", "sips:acme.example", "https://acme.example"] {
            assert!(!is_proved(vec![uri(wrong)], "acme.example"), "{wrong}");
            let with_dns = vec![uri(wrong), dns("acme.example")];
            assert!(is_proved(with_dns, "acme.example"), "{wrong} is no identity at all");
        }
    }

    #[test]
    fn dns_names_are_whole_without_wildcards_and_without_the_common_name() {
        assert!(is_proved(vec![dns("x.example"), dns("Acme.Example")], "acme.example."));
        assert!(!is_proved(vec![dns("*.acme.example")], "sip.acme.example"));
        assert!(!is_proved(vec![dns("acme.example")], "sip.acme.example"));
        assert!(!is_proved(vec![dns("sip.acme.example")], "acme.example"));
        assert!(!is_proved(Vec::new(), "acme.example"), "the common name");
    }

    #[test]
    fn an_address_is_proved_by_an_address_only() {
        let address = SanType::IpAddress("192.0.2.1".parse().unwrap());
        assert!(is_proved(vec![address.clone()], "192.0.2.1"));
        assert!(!is_proved(vec![address], "192.0.2.2"));
        assert!(!is_proved(vec![dns("192.0.2.1")], "192.0.2.1"));
        assert!(!is_proved(vec![uri("sip:192.0.2.1")], "192.0.2.1"));
        let six = SanType::IpAddress("2001:db8::1".parse().unwrap());
        assert!(is_proved(vec![six], "[2001:db8::1]"));
    }

    #[test]
    fn names_of_a_flow_follow_the_same_rules() {
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let host = Host::parse("acme.example").unwrap();
        assert!(names_prove(&names(&["other.example", "acme.example"]), &host));
        assert!(names_prove(&names(&["other.example", "sip:acme.example"]), &host));
        assert!(!names_prove(&names(&["acme.example", "sip:other.example"]), &host));
        assert!(!names_prove(&[], &host));
        let address = Host::parse("192.0.2.1").unwrap();
        assert!(!names_prove(&names(&["192.0.2.1"]), &address));
    }

    #[test]
    fn a_certificate_for_servers_only_is_not_shown_as_a_clients() {
        use rcgen::ExtendedKeyUsagePurpose as Purpose;
        let of = |purposes: Vec<Purpose>| {
            let mut parameters = CertificateParams::default();
            parameters.extended_key_usages = purposes;
            may_be_client(parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
        };
        assert!(of(vec![]) && of(vec![Purpose::ServerAuth, Purpose::ClientAuth]));
        assert!(of(vec![Purpose::Any]) && !of(vec![Purpose::ServerAuth]));
    }
}
