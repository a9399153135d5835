//! Certificates of an authority that speaks ACME (RFC 8555), by the challenge `http-01` (section
//! 8.3), which the plaintext HTTP listener answers.
//!
//! Chain and key are one file, so that they change together: `acme.pem` in the folder of `[tls]
//! certificate`, which is then the certificate of every listener. Until the first is there a
//! development one stands in its place. A new one is asked for when a third of its time is left, or
//! thirty days, whichever is less; after a failure an hour passes, since authorities count them.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base::{Clock, Event, WallTime, limit};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount,
    NewOrder, OrderStatus, RetryPolicy,
};
use telemetry::Telemetry;
use thiserror::Error;
use tokio::sync::mpsc;
use transport::certificates::{DevelopmentError, ensure_development};
use transport::{certifies, expiry_of};

use crate::clock::OsClock;
use crate::config::Config;

const DAY: Duration = Duration::from_secs(86_400);
/// How often the certificate is looked at.
const LOOK: Duration = Duration::from_secs(3_600);
/// From how much time left on the next one is asked for.
const RENEW: Duration = Duration::from_secs(30 * DAY.as_secs());
/// How long an authority may take for one certificate.
const PATIENCE: Duration = Duration::from_secs(300);

/// Why there is no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AcmeError {
    /// The authority refused, or did not answer.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It wants to be proved in a way that is not spoken here.
    #[error("the authority offers no http-01 challenge for {0}")]
    NoChallenge(String),
    /// It could not reach our HTTP port, or found something else there.
    #[error(
        "the authority did not find the answer to its challenge: is [listen] http reachable as \
         port 80 of each of [acme] domains?"
    )]
    NotProved,
    /// It took too long.
    #[error("no certificate within {} s", PATIENCE.as_secs())]
    Late,
    /// A file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Answers to challenges under way, by token. Clones are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Challenges(Arc<ArcSwap<BTreeMap<String, String>>>);

impl Challenges {
    /// What `/.well-known/acme-challenge/TOKEN` answers.
    #[must_use]
    pub fn answer(&self, token: &str) -> Option<String> {
        self.0.load().get(token).cloned()
    }

    fn put(&self, token: String, answer: String) {
        let mut all = BTreeMap::clone(&self.0.load());
        all.insert(token, answer);
        self.0.store(Arc::new(all)); // one task alone writes
    }

    fn clear(&self) {
        self.0.store(Arc::default());
    }
}

/// Whether certificates come by ACME.
#[must_use]
pub fn is_wanted(config: &Config) -> bool {
    !config.acme.domains.is_empty()
}

/// Where certificates come by ACME, puts the one file of chain and key in the place of both in the
/// configuration, and a development certificate into it where there is none yet.
///
/// # Errors
/// Where that cannot be made.
pub fn prepare(config: &mut Config, now: WallTime) -> Result<(), DevelopmentError> {
    if !is_wanted(config) {
        return Ok(());
    }
    let folder = config.tls.certificate.parent().unwrap_or(Path::new(".")).to_path_buf();
    let file = folder.join("acme.pem");
    if !file.exists() {
        let made = ensure_development(&folder, &config.acme.domains, now)?;
        let text = fs::read_to_string(&made.server)
            .and_then(|chain| Ok(chain + &fs::read_to_string(&made.server_key)?));
        let written = text.and_then(|text| replace(&file, text.as_bytes()));
        written.map_err(|source| DevelopmentError::Write { file: file.clone(), cause: source })?;
    }
    config.tls.certificate.clone_from(&file);
    config.tls.key = file;
    Ok(())
}

/// Looks after the certificate for as long as it is polled; `renewed` is told of each new one.
pub async fn keep(
    config: Config,
    challenges: Challenges,
    telemetry: Arc<Telemetry>,
    renewed: mpsc::Sender<()>,
) {
    loop {
        if is_due(&config, OsClock.wall()) {
            let ordered = tokio::time::timeout(PATIENCE, order(&config, &challenges)).await;
            challenges.clear();
            match ordered.unwrap_or(Err(AcmeError::Late)) {
                Ok(()) => {
                    telemetry.emit(&Event::CertificateRenewed {});
                    // One reload waits already: it will see this file as well.
                    let _ = renewed.try_send(());
                }
                Err(error) => {
                    telemetry.emit(&Event::CertificateRefused {});
                    tracing::error!(target: "callgate", "no certificate by ACME: {error}");
                    tokio::time::sleep(limit::ACME_RETRY_MS.millis()).await;
                    continue;
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the next certificate is to be asked for.
fn is_due(config: &Config, now: WallTime) -> bool {
    let Ok(found) = expiry_of(&config.tls.certificate) else { return true };
    let left = found.not_after.unix_millis().saturating_sub(now.unix_millis());
    found.is_development
        || Duration::from_millis(left) < RENEW.min(found.lifetime / 3)
        || !certifies(&config.tls.certificate, &config.acme.domains)
}

async fn order(config: &Config, challenges: &Challenges) -> Result<(), AcmeError> {
    let account = account(config).await?;
    let names: Vec<_> = config.acme.domains.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue; // proved for an earlier certificate
        }
        let name = authorization.identifier().to_string();
        let mut challenge =
            authorization.challenge(ChallengeType::Http01).ok_or(AcmeError::NoChallenge(name))?;
        let answer = challenge.key_authorization().as_str().to_owned();
        challenges.put(challenge.token.clone(), answer);
        challenge.set_ready().await?;
    }
    if order.poll_ready(&RetryPolicy::default()).await? != OrderStatus::Ready {
        return Err(AcmeError::NotProved);
    }
    // The key is made here and now, and known to nobody else.
    let key = order.finalize().await?;
    let chain = order.poll_certificate(&RetryPolicy::default()).await?;
    let file = &config.tls.certificate;
    replace(file, format!("{chain}\n{key}").as_bytes())
        .map_err(|source| AcmeError::File { path: file.clone(), source })
}

/// The account of this edge, made with the first certificate.
async fn account(config: &Config) -> Result<Account, AcmeError> {
    let acme = &config.acme;
    let builder = match acme.ca.as_os_str().is_empty() {
        true => Account::builder()?,
        false => Account::builder_with_root(&acme.ca)?,
    };
    let failed = |source| AcmeError::File { path: acme.account.clone(), source };
    match fs::read(&acme.account) {
        Ok(text) => {
            let known: AccountCredentials =
                serde_json::from_slice(&text).map_err(|error| failed(error.into()))?;
            Ok(builder.from_credentials(known).await?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let contact = format!("mailto:{}", acme.contact);
            let contacts: &[&str] = if acme.contact.is_empty() { &[] } else { &[&contact] };
            let wanted = NewAccount {
                contact: contacts,
                terms_of_service_agreed: acme.agree,
                only_return_existing: false,
            };
            let made = builder.create(&wanted, acme.directory.clone(), None).await?;
            let text = serde_json::to_vec(&made.1).map_err(|error| failed(error.into()))?;
            if let Some(folder) = acme.account.parent() {
                fs::create_dir_all(folder).map_err(failed)?;
            }
            replace(&acme.account, &text).map_err(failed)?;
            Ok(made.0)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Writes a file that only we may read, in one step: whoever reads it sees the old or the new one.
fn replace(file: &Path, text: &[u8]) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut options = OpenOptions::new();
    let mut writer: File =
        options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    writer.write_all(text)?;
    writer.sync_all()?;
    fs::rename(&fresh, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration whose certificate ends so many days after `now`, made for so many.
    fn holding(folder: &Path, now: WallTime, lived: u64, left: u64) -> Config {
        let mut config = Config::load(None, []).unwrap();
        config.acme.domains = vec!["edge.example".to_owned()];
        config.tls.certificate = folder.join("acme.pem");
        let at = |days: u64| {
            std::time::UNIX_EPOCH
                + Duration::from_millis(now.unix_millis())
                + Duration::from_secs(days * DAY.as_secs())
        };
        let mut made = rcgen::CertificateParams::new(config.acme.domains.clone()).unwrap();
        made.not_after = at(left).into();
        made.not_before = (at(left) - Duration::from_secs(lived * DAY.as_secs())).into();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = made.self_signed(&key).unwrap();
        fs::write(&config.tls.certificate, certificate.pem()).unwrap();
        config
    }

    #[test]
    fn a_certificate_is_asked_for_when_a_third_of_its_life_is_left_or_a_month() {
        let folder = tempfile::tempdir().unwrap();
        let now = WallTime::from_unix_millis(1_800_000_000_000);
        for (lived, left, is_wanted) in
            [(90, 31, false), (90, 29, true), (6, 3, false), (6, 1, true), (398, 31, false)]
        {
            let config = holding(folder.path(), now, lived, left);
            assert_eq!(is_due(&config, now), is_wanted, "{left} of {lived} days");
        }
    }

    #[test]
    fn a_certificate_of_other_names_a_broken_and_a_missing_one_are_asked_for_anew() {
        let folder = tempfile::tempdir().unwrap();
        let now = WallTime::from_unix_millis(1_800_000_000_000);
        let mut config = holding(folder.path(), now, 90, 80);
        assert!(!is_due(&config, now));
        config.acme.domains.push("voice.example".to_owned());
        assert!(is_due(&config, now));
        fs::write(&config.tls.certificate, "no certificate").unwrap();
        assert!(is_due(&config, now));
        fs::remove_file(&config.tls.certificate).unwrap();
        assert!(is_due(&config, now));
    }
}
