//! Certificates for development: an authority, a server certificate and a client certificate,
//! made when there are none that would still do. The authority's key is thrown away, so that
//! trusting `ca.pem` on a workstation lets nobody sign for other names later.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{ServerName, UnixTime};

use crate::config::{TlsFiles, Untrusted};
use crate::tls::{self, CertificatesError};

/// The names by which development certificates are known.
pub(crate) const AUTHORITY_NAME: &str = "callgate development authority";
pub(crate) const SERVER_NAME: &str = "callgate development server";

/// The name in the development client certificate.
pub const CLIENT_NAME: &str = "client.localhost";

/// Where the development certificates lie.
#[derive(Clone, Debug)]
pub struct DevelopmentCertificates {
    /// The authority, to be trusted by clients.
    pub authority: PathBuf,
    /// The server's certificate.
    pub server: PathBuf,
    /// The server's key.
    pub server_key: PathBuf,
    /// A client's certificate, for [`CLIENT_NAME`].
    pub client: PathBuf,
    /// A client's key.
    pub client_key: PathBuf,
    /// Whether they were made just now.
    pub are_new: bool,
}

impl DevelopmentCertificates {
    /// A transport's TLS files with them.
    #[must_use]
    pub fn tls_files(&self) -> TlsFiles {
        TlsFiles {
            certificate: self.server.clone(),
            key: self.server_key.clone(),
            authorities: Some(self.authority.clone()),
            system: false,
            untrusted: Untrusted::Refuse,
        }
    }
}

/// Why development certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DevelopmentError {
    /// A name cannot stand in a certificate, or the cryptography failed.
    #[error("certificates cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    /// A file cannot be written.
    #[error("{}: {cause}", file.display())]
    Write {
        /// The file or folder.
        file: PathBuf,
        /// What went wrong.
        cause: io::Error,
    },
}

/// Makes sure that `folder` holds certificates for `localhost`, its addresses and `hostnames`
/// (names or addresses) that are good for 30 days after `now`.
///
/// # Errors
/// Where a hostname is not one or the folder cannot be written to.
pub fn ensure_development(
    folder: &Path,
    hostnames: &[String],
    now: WallTime,
) -> Result<DevelopmentCertificates, DevelopmentError> {
    let mut names: Vec<String> = LOCAL_NAMES.map(str::to_owned).to_vec();
    names.extend(hostnames.iter().filter(|name| !LOCAL_NAMES.contains(&name.as_str())).cloned());
    let mut files = DevelopmentCertificates {
        authority: folder.join("ca.pem"),
        server: folder.join("server.pem"),
        server_key: folder.join("server.key"),
        client: folder.join("client.pem"),
        client_key: folder.join("client.key"),
        are_new: false,
    };
    if still_do(&files, &names, now + RENEW_BEFORE).is_ok() {
        return Ok(files);
    }
    fs::create_dir_all(folder)
        .map_err(|cause| DevelopmentError::Write { file: folder.to_path_buf(), cause })?;
    make(&files, names, now)?;
    files.are_new = true;
    Ok(files)
}

const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
const DAY: Duration = Duration::from_secs(86_400);
const RENEW_BEFORE: Duration = Duration::from_secs(30 * DAY.as_secs());
/// Browsers and phones refuse server certificates of more than 398 days.
const VALIDITY: Duration = Duration::from_secs(397 * DAY.as_secs());

/// Why existing files will not do; nobody is told, they are made anew.
enum Stale {
    Unreadable,
    Refused,
}

impl From<CertificatesError> for Stale {
    fn from(_: CertificatesError) -> Self {
        Self::Unreadable
    }
}

impl From<rustls::Error> for Stale {
    fn from(_: rustls::Error) -> Self {
        Self::Refused
    }
}

/// Asks the same verifiers that will judge the certificates in use.
fn still_do(
    files: &DevelopmentCertificates,
    names: &[String],
    until: WallTime,
) -> Result<(), Stale> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let roots = tls::read_authorities(&files.authority)?;
    let until = UnixTime::since_unix_epoch(Duration::from_millis(until.unix_millis()));

    let chain = tls::read_certificates(&files.server)?;
    let servers = tls::server_verifier(Arc::clone(&roots), &provider)?;
    for name in names {
        let name = ServerName::try_from(name.as_str()).map_err(|_| Stale::Refused)?;
        servers.verify_server_cert(&chain[0], &chain[1..], &name, &[], until)?;
    }
    CertifiedKey::from_der(chain, tls::read_key(&files.server_key)?, &provider)?;

    let chain = tls::read_certificates(&files.client)?;
    let clients = tls::client_verifier(roots, &provider)?;
    clients.verify_client_cert(&chain[0], &chain[1..], until)?;
    CertifiedKey::from_der(chain, tls::read_key(&files.client_key)?, &provider)?;
    Ok(())
}

fn make(
    files: &DevelopmentCertificates,
    names: Vec<String>,
    now: WallTime,
) -> Result<(), DevelopmentError> {
    let mut authority = parameters(Vec::new(), AUTHORITY_NAME, now)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut server = parameters(names, SERVER_NAME, now)?;
    // Towards other edges this one is a client under the same name.
    server.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let server_key = KeyPair::generate()?;
    let server = server.signed_by(&server_key, &authority)?;

    let mut client = parameters(vec![CLIENT_NAME.to_owned()], "callgate development client", now)?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client = client.signed_by(&client_key, &authority)?;

    write(&files.server_key, &server_key.serialize_pem(), 0o600)?;
    write(&files.client_key, &client_key.serialize_pem(), 0o600)?;
    write(&files.server, &server.pem(), 0o644)?;
    write(&files.client, &client.pem(), 0o644)?;
    write(&files.authority, &authority.pem(), 0o644)
}

fn parameters(
    names: Vec<String>,
    common_name: &str,
    now: WallTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.use_authority_key_identifier_extension = true;
    let now = date_time_ymd(1970, 1, 1) + Duration::from_millis(now.unix_millis());
    parameters.not_before = now - DAY; // clocks differ
    parameters.not_after = now + (VALIDITY - DAY);
    Ok(parameters)
}

/// Writes beside and renames, so that a server reading at this moment sees old or new.
fn write(file: &Path, text: &str, mode: u32) -> Result<(), DevelopmentError> {
    let beside = file.with_extension("new");
    let attempt = || -> io::Result<()> {
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut open = OpenOptions::new();
        let mut new = open.write(true).create_new(true).mode(mode).open(&beside)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&beside, file)
    };
    attempt().map_err(|cause| DevelopmentError::Write { file: file.to_path_buf(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: WallTime = WallTime::from_unix_millis(1_795_392_000_000);

    fn server_bytes(files: &DevelopmentCertificates) -> Vec<u8> {
        fs::read(&files.server).unwrap()
    }

    #[test]
    fn certificates_are_made_once_and_kept_while_they_are_good() {
        let folder = tempfile::tempdir().unwrap();
        let hostnames = ["sip.callgate.example".to_owned(), "192.0.2.7".to_owned()];
        let made = ensure_development(folder.path(), &hostnames, NOW).unwrap();
        assert!(made.are_new);
        let first = server_bytes(&made);
        let later = NOW + 300 * DAY;
        assert!(!ensure_development(folder.path(), &hostnames, later).unwrap().are_new);
        assert_eq!(server_bytes(&made), first);
    }

    #[test]
    fn certificates_are_renewed_thirty_days_before_they_expire() {
        let folder = tempfile::tempdir().unwrap();
        ensure_development(folder.path(), &[], NOW).unwrap();
        let late = NOW + (VALIDITY - 20 * DAY);
        assert!(ensure_development(folder.path(), &[], late).unwrap().are_new);
    }

    #[test]
    fn a_new_hostname_or_a_foreign_key_makes_them_anew() {
        let folder = tempfile::tempdir().unwrap();
        let made = ensure_development(folder.path(), &[], NOW).unwrap();
        let other = ["edge.example".to_owned()];
        assert!(ensure_development(folder.path(), &other, NOW).unwrap().are_new);
        fs::copy(&made.client_key, &made.server_key).unwrap();
        assert!(ensure_development(folder.path(), &other, NOW).unwrap().are_new);
    }

    #[test]
    fn only_the_owner_may_read_the_keys() {
        let folder = tempfile::tempdir().unwrap();
        let made = ensure_development(folder.path(), &[], NOW).unwrap();
        for key in [&made.server_key, &made.client_key] {
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let all = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(all, 5, "the authority's key is not kept");
    }

    #[test]
    fn a_name_that_cannot_stand_in_a_certificate_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let broken = ["höst".to_owned()];
        assert!(ensure_development(folder.path(), &broken, NOW).is_err());
    }
}
