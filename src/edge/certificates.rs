//! The server certificate: a development one is made where it is missing and renewed before it
//! expires; an operator's own is never touched, only watched, so that he is warned in time.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Date, Event, WallTime};
use telemetry::{Gauge, Telemetry};
use transport::certificates::{DevelopmentError, ensure_development};
use transport::{Expiry, expiry_of};

use crate::config::Config;

/// A development certificate is renewed when fewer days are left: late, since whoever trusted its
/// authority must trust the new one.
const RENEW_DAYS: u64 = 7;
/// From how many days on an operator is warned.
const WARN_DAYS: u64 = 30;

/// Looks at the certificate once a day.
#[derive(Debug, Default)]
pub struct CertificateWatch {
    looked: Option<Date>,
    /// The end of the one in use, in seconds after 1970; 0 while it is not known.
    not_after: Arc<AtomicU64>,
}

impl CertificateWatch {
    /// Makes or renews development certificates where that is wanted and needed.
    ///
    /// # Errors
    /// Where there is no certificate and none can be made.
    pub fn start(
        config: &Config,
        wall: WallTime,
        telemetry: &Telemetry,
    ) -> Result<Self, DevelopmentError> {
        if config.tls.development && !config.tls.certificate.exists() {
            make(config, wall)?;
        }
        let watch = Self::default();
        let not_after = Arc::clone(&watch.not_after);
        telemetry.register(move |gauges| {
            let value = not_after.load(Ordering::Relaxed) as f64;
            gauges.push(Gauge { name: "certificate_not_after_seconds", labels: vec![], value });
        });
        let mut watch = watch;
        watch.look(config, wall, telemetry);
        Ok(watch)
    }

    /// The files may be others now: looks at them with the next [`CertificateWatch::look`].
    pub fn forget(&mut self) {
        self.looked = None;
    }

    /// Looks once a day: warns, or renews. Returns whether there are new files to be loaded.
    pub fn look(&mut self, config: &Config, wall: WallTime, telemetry: &Telemetry) -> bool {
        if self.looked == Some(wall.date()) {
            return false;
        }
        self.looked = Some(wall.date());
        // A file that cannot be read is told by whoever loads it.
        let Ok(found) = expiry_of(&config.tls.certificate) else { return false };
        let renewed = match renews(config, found, wall).then(|| make(config, wall)) {
            Some(Ok(())) => expiry_of(&config.tls.certificate).ok(),
            Some(Err(error)) => {
                tracing::error!(target: "callgate", "the certificate is not renewed: {error}");
                None
            }
            None => None,
        };
        if renewed.is_some() {
            telemetry.emit(&Event::CertificateRenewed {});
        }
        let present = renewed.unwrap_or(found);
        self.not_after.store(present.not_after.unix_millis() / 1_000, Ordering::Relaxed);
        let days = present.days_left(wall);
        // A development certificate takes care of itself, unless that failed.
        if days <= if present.is_development { RENEW_DAYS } else { WARN_DAYS } {
            let days = u32::try_from(days).unwrap_or(u32::MAX);
            telemetry.emit(&Event::CertificateEnding { days });
        }
        renewed.is_some()
    }
}

/// Whether a certificate is one of ours that ends too soon and lies where it would be replaced.
fn renews(config: &Config, found: Expiry, wall: WallTime) -> bool {
    let is_ours = config.tls.certificate == folder(config).join("server.pem")
        && config.tls.key == folder(config).join("server.key");
    config.tls.development && found.is_development && is_ours && found.days_left(wall) < RENEW_DAYS
}

fn folder(config: &Config) -> &Path {
    config.tls.certificate.parent().unwrap_or(Path::new("."))
}

fn make(config: &Config, wall: WallTime) -> Result<(), DevelopmentError> {
    let names = match config.advertise.host.as_str() {
        "" => Vec::new(),
        host => vec![host.to_owned()],
    };
    ensure_development(folder(config), &names, wall).map(drop)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use base::{Clock, Instant};

    use super::*;

    const NOW: WallTime = WallTime::from_unix_millis(1_795_392_000_000);
    const DAY: Duration = Duration::from_secs(86_400);
    /// A development certificate is good for so many days.
    const GOOD: u32 = 396;

    struct StoppedClock;

    impl Clock for StoppedClock {
        fn now(&self) -> Instant {
            Instant::ZERO
        }
        fn wall(&self) -> WallTime {
            NOW
        }
    }

    struct Place {
        _folder: tempfile::TempDir,
        config: Config,
        telemetry: Telemetry,
    }

    impl Place {
        fn new(name: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let text = format!(
                "[tls]\ncertificate = \"{0}/{name}.pem\"\nkey = \"{0}/{name}.key\"\n",
                folder.path().display()
            );
            let config = Config::load(Some(("test.toml", &text)), []).unwrap();
            let telemetry = Telemetry::new(StoppedClock).unwrap();
            Self { _folder: folder, config, telemetry }
        }

        fn start(&self, wall: WallTime) -> CertificateWatch {
            CertificateWatch::start(&self.config, wall, &self.telemetry).unwrap()
        }

        fn pem(&self) -> Vec<u8> {
            fs::read(&self.config.tls.certificate).unwrap()
        }

        fn metric(&self, name: &str) -> Option<f64> {
            let text = self.telemetry.render();
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.map(|value| value.parse().unwrap())
        }

        fn warned(&self) -> Option<f64> {
            self.metric("callgate_transport_certificate_ending_total")
        }
    }

    fn days(count: u32) -> WallTime {
        NOW + DAY * count
    }

    #[test]
    fn a_development_certificate_is_made_and_renewed_a_week_before_its_end() {
        let place = Place::new("server");
        let mut watch = place.start(NOW);
        let first = place.pem();
        let end = (days(GOOD).unix_millis() / 1_000) as f64;
        assert_eq!(place.metric("callgate_certificate_not_after_seconds"), Some(end));
        assert!(!watch.look(&place.config, days(GOOD - 7), &place.telemetry));
        assert_eq!(place.pem(), first);
        assert!(watch.look(&place.config, days(GOOD - 6), &place.telemetry));
        assert_ne!(place.pem(), first);
        let end = (days(2 * GOOD - 6).unix_millis() / 1_000) as f64;
        assert_eq!(place.metric("callgate_certificate_not_after_seconds"), Some(end));
        assert_eq!(place.metric("callgate_transport_certificate_renewed_total"), Some(1.0));
        // At a start as well, and also where it has expired.
        place.start(days(5 * GOOD));
        let end = (days(6 * GOOD).unix_millis() / 1_000) as f64;
        assert_eq!(place.metric("callgate_transport_certificate_renewed_total"), Some(2.0));
        assert!(place.telemetry.render().contains(&format!("not_after_seconds {end}\n")));
    }

    #[test]
    fn an_operators_certificate_is_never_touched_and_warned_of_each_day_of_its_last_month() {
        // One of the same names that somebody put under another name is an operator's, too.
        let place = Place::new("mine");
        let folder = folder(&place.config);
        ensure_development(folder, &[], NOW).unwrap();
        fs::rename(folder.join("server.pem"), &place.config.tls.certificate).unwrap();
        fs::rename(folder.join("server.key"), &place.config.tls.key).unwrap();
        let before = place.pem();
        place.start(days(GOOD + 10));
        assert_eq!(place.pem(), before);
        assert_eq!(place.warned(), Some(1.0));

        let place = Place::new("server");
        let theirs = include_str!("testdata/operator.pem");
        fs::write(&place.config.tls.certificate, theirs).unwrap();
        let end = expiry_of(&place.config.tls.certificate).unwrap().not_after;
        let before_end = |count: u32| {
            WallTime::from_unix_millis(end.unix_millis() - u64::from(count) * 86_400_000)
        };
        let mut watch = place.start(before_end(31));
        assert_eq!(place.warned(), None);
        for (looked, warned) in [(30, 1.0), (30, 1.0), (29, 2.0), (0, 3.0)] {
            assert!(!watch.look(&place.config, before_end(looked), &place.telemetry));
            assert_eq!(place.warned(), Some(warned), "{looked} days before");
        }
        assert!(!watch.look(&place.config, end + DAY, &place.telemetry));
        assert_eq!(place.pem(), theirs.as_bytes());
    }

    #[test]
    fn without_development_nothing_is_made() {
        let mut place = Place::new("server");
        place.config.tls.development = false;
        let mut watch = place.start(NOW);
        assert!(!place.config.tls.certificate.exists());
        ensure_development(folder(&place.config), &[], NOW).unwrap();
        let before = place.pem();
        watch.forget();
        assert!(!watch.look(&place.config, days(GOOD + 1), &place.telemetry));
        assert_eq!(place.pem(), before);
    }
}
