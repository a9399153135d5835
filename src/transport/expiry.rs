//! Until when a certificate file is good, and whether it is one of ours: read without using it,
//! so that an operator can be warned in time.

use std::path::Path;
use std::time::Duration;

use base::WallTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::x509::X509Name;

use crate::certificates::{AUTHORITY_NAME, SERVER_NAME};
use crate::tls::{self, CertificatesError};

/// What a certificate file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// The first end among the certificates of the chain.
    pub not_after: WallTime,
    /// For how long the leaf was made.
    pub lifetime: Duration,
    /// Whether it is a development certificate that was made here, and may be replaced.
    pub is_development: bool,
}

impl Expiry {
    /// Whole days left at `now`; 0 once it has expired.
    #[must_use]
    pub const fn days_left(&self, now: WallTime) -> u64 {
        self.not_after.unix_millis().saturating_sub(now.unix_millis()) / 86_400_000
    }
}

/// Reads a PEM chain, leaf first.
///
/// # Errors
/// Where the file cannot be read, holds no certificate, or none that can be parsed.
pub fn expiry_of(file: &Path) -> Result<Expiry, CertificatesError> {
    let chain = tls::read_certificates(file)?;
    let unusable = || CertificatesError::Unusable {
        file: file.to_path_buf(),
        cause: rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding),
    };
    let mut found: Option<Expiry> = None;
    for certificate in &chain {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| unusable())?;
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        let end = WallTime::from_unix_millis(end.saturating_mul(1_000));
        match &mut found {
            // The leaf tells whose it is.
            None => {
                let is_development = is_development(&parsed);
                let begin = u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0);
                let begin = WallTime::from_unix_millis(begin.saturating_mul(1_000));
                let lifetime = end.unix_millis().saturating_sub(begin.unix_millis());
                let lifetime = Duration::from_millis(lifetime);
                found = Some(Expiry { not_after: end, lifetime, is_development });
            }
            Some(found) => found.not_after = found.not_after.min(end),
        }
    }
    found.ok_or_else(unusable)
}

/// Whether the leaf of a PEM chain is for each of these names; `false` where it cannot be read.
#[must_use]
pub fn certifies(file: &Path, names: &[String]) -> bool {
    let chain = tls::read_certificates(file).unwrap_or_default();
    let known = chain.first().map(tls::names_in).unwrap_or_default();
    names.iter().all(|name| known.contains(&name.to_ascii_lowercase()))
}

fn is_development(leaf: &X509Certificate<'_>) -> bool {
    let is_named = |name: &X509Name<'_>, wanted: &str| {
        let mut names = name.iter_common_name().filter_map(|it| it.as_str().ok());
        names.next() == Some(wanted) && names.next().is_none()
    };
    is_named(leaf.issuer(), AUTHORITY_NAME) && is_named(leaf.subject(), SERVER_NAME)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;
    use crate::certificates::ensure_development;

    const NOW: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

    #[test]
    fn a_development_certificate_is_told_from_an_operators_and_its_days_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let made = ensure_development(folder.path(), &[], NOW).unwrap();
        let ours = expiry_of(&made.server).unwrap();
        assert!(ours.is_development);
        assert_eq!(ours.lifetime.as_secs() / 86_400, 397);
        let names = |names: &[&str]| names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert!(certifies(&made.server, &names(&["Localhost"])));
        assert!(!certifies(&made.server, &names(&["localhost", "edge.example"])));
        assert!(!certifies(&folder.path().join("nothing.pem"), &names(&["localhost"])));
        assert_eq!(ours.days_left(NOW), 396);
        assert_eq!(ours.days_left(NOW + Duration::from_secs(500 * 86_400)), 0);

        // Of the same name, by somebody else.
        let mut theirs = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        theirs.distinguished_name.push(DnType::CommonName, SERVER_NAME);
        theirs.not_after = date_time_ymd(2026, 12, 24);
        let theirs = theirs.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let file = folder.path().join("theirs.pem");
        fs::write(&file, &theirs).unwrap();
        let found = expiry_of(&file).unwrap();
        assert!(!found.is_development);
        assert_eq!(found.not_after.to_string(), "2026-12-24T00:00:00.000Z");

        // A chain is as good as its weakest certificate, and whose its leaf is.
        fs::write(&file, fs::read_to_string(&made.server).unwrap() + &theirs).unwrap();
        let chain = expiry_of(&file).unwrap();
        assert_eq!((chain.not_after, chain.is_development), (found.not_after, true));
    }

    #[test]
    fn a_file_without_a_certificate_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.pem");
        assert!(expiry_of(&file).is_err());
        for text in
            ["", "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            fs::write(&file, text).unwrap();
            assert!(expiry_of(&file).is_err(), "{text:?}");
        }
    }
}
