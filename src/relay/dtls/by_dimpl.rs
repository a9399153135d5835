//! DTLS by `dimpl`: no task, no runtime, a step per datagram or timeout.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use base::{Instant, Secret, limit};
use dimpl::{
    Config, Dtls, DtlsCertificate, Error, Output, ProtocolVersion, SecurityError, SrtpProfile,
};
use media::DtlsRole;
use rtp::sdes::Suite;

use super::Failure;
use super::association::{Backend, Choice, Made, Setup};
use super::guard::GuardForm;

/// First wait for an answer; it doubles. A browser's own is 50 to 400 ms.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// A wait this long is none.
const FOREVER: Duration = Duration::from_secs(86_400);
/// ChaCha20-Poly1305 adds a tag and no nonce (RFC 7905 section 2).
const OVERHEAD: usize = 16;

/// Configurations, made once: making one tries the cryptography out.
pub(crate) struct DimplConfigs {
    with_cookie: Arc<Config>,
    without: Arc<Config>,
}

impl DimplConfigs {
    pub(crate) fn new() -> Result<Self, Error> {
        let config = |has_cookie| {
            Config::builder()
                .mtu(limit::DTLS_DATAGRAM_BYTES.get())
                .require_client_certificate(true)
                .use_server_cookie(has_cookie)
                .flight_start_rto(FIRST_WAIT)
                .flight_retries(limit::DTLS_UNASKED_REPEATS.get())
                // The association's deadline comes first.
                .handshake_timeout(2 * limit::DTLS_HANDSHAKE_MS.millis())
                .build()
                .map(Arc::new)
        };
        Ok(Self { with_cookie: config(true)?, without: config(false)? })
    }
}

/// One association.
pub(crate) struct Dimpl {
    dtls: Dtls,
    form: GuardForm,
    /// The same moment on both clocks.
    origin: (Instant, StdInstant),
    timeout: Option<Instant>,
    /// What DTLS 1.2 is spoken with instead, by a server that has not heard its client yet.
    instead: Option<(Arc<Config>, DtlsCertificate)>,
    keys: Option<(Suite, Secret<Vec<u8>>)>,
    made: VecDeque<Made>,
}

impl Dimpl {
    pub(crate) fn new(configs: &DimplConfigs, now: Instant, setup: &Setup) -> Self {
        let config = if setup.has_cookie { &configs.with_cookie } else { &configs.without };
        let certificate = DtlsCertificate {
            certificate: setup.identity.certificate().to_vec(),
            private_key: setup.identity.key().to_vec(),
        };
        let begun = StdInstant::now();
        let new = if setup.has_13 { Dtls::new_auto } else { Dtls::new_12 };
        let has_choice = setup.has_13 && setup.role == DtlsRole::Passive;
        let instead = has_choice.then(|| (config.clone(), certificate.clone()));
        let mut dtls = new(config.clone(), certificate, begun);
        if setup.role == DtlsRole::Active {
            dtls.set_active(true);
        }
        Self {
            dtls,
            form: GuardForm { overhead: OVERHEAD, has_13: setup.has_13 },
            origin: (now, begun),
            timeout: None,
            instead,
            keys: None,
            made: VecDeque::new(),
        }
    }

    fn is_13(&self) -> bool {
        self.dtls.protocol_version() == Some(ProtocolVersion::DTLS1_3)
    }

    /// Does one thing at a time, then takes all that comes of it.
    fn step(&mut self, now: Instant, act: impl FnOnce(&mut Dtls) -> Result<(), Error>) {
        let at = self.origin.1 + now.since(self.origin.0);
        let done = self.dtls.handle_timeout(at).and_then(|()| act(&mut self.dtls));
        self.drain(now);
        if let Err(error) = done {
            self.made.push_back(Made::Failed(failure(&error)));
        }
    }

    fn drain(&mut self, now: Instant) {
        let mut buffer = vec![0; limit::DTLS_RECEIVED_BYTES.get()];
        let (mut datagrams, mut is_connected) = (Vec::new(), false);
        loop {
            match self.dtls.poll_output(&mut buffer) {
                Output::Packet(packet) => datagrams.push(Made::Datagram(packet.to_vec())),
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                Output::PeerCert(der) => self.made.push_back(Made::Certificate(der.to_vec())),
                Output::KeyingMaterial(material, profile) => {
                    self.keys = suite(profile).map(|it| (it, Secret::new(material.to_vec())));
                }
                Output::Connected => is_connected = true,
                Output::CloseNotify => datagrams.push(Made::Closed),
                Output::Timeout(at) => {
                    let wait = at.saturating_duration_since(self.origin.1);
                    let at = self.origin.0 + wait;
                    self.timeout = (at.since(now) < FOREVER).then_some(at);
                    break;
                }
                Output::ApplicationData(_) | _ => {}
            }
        }
        if is_connected {
            // Whoever completes without a profile has agreed on none.
            datagrams.push(match self.keys.take() {
                Some((suite, material)) => Made::Complete { suite, material, is_13: self.is_13() },
                None => Made::Failed(Failure::Profile),
            });
        }
        // Certificates stand before them.
        self.made.extend(datagrams);
    }
}

impl Backend for Dimpl {
    fn form(&self) -> GuardForm {
        self.form
    }

    fn prefer(&mut self, choice: Choice) {
        // As a server of DTLS 1.3 it takes the first suite of the peer's order, of 1.2 the best.
        // Chromium names AES-CM before the AEAD ones, which cost less and are the better ones.
        if let Some((config, certificate)) = self.instead.take()
            && !choice.is_first_as_good
        {
            self.dtls = Dtls::new_12(config, certificate, self.origin.1);
        }
    }

    fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        self.step(now, |dtls| dtls.handle_packet(datagram));
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.step(now, |_| Ok(()));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    fn poll_made(&mut self) -> Option<Made> {
        self.made.pop_front()
    }

    fn close(&mut self) {
        // One that cannot be closed has nobody to say it to.
        let _ = self.dtls.close();
        self.drain(self.origin.0);
        self.made.push_back(Made::Closed);
    }

    fn refuse(&mut self) -> Option<Vec<u8>> {
        self.made.clear();
        if !self.is_13() {
            return None;
        }
        self.close();
        self.made.drain(..).find_map(|made| match made {
            Made::Datagram(datagram) => Some(datagram),
            _ => None,
        })
    }
}

const fn suite(profile: SrtpProfile) -> Option<Suite> {
    match profile {
        SrtpProfile::AEAD_AES_256_GCM => Some(Suite::AeadAes256Gcm),
        SrtpProfile::AEAD_AES_128_GCM => Some(Suite::AeadAes128Gcm),
        SrtpProfile::AES128_CM_SHA1_80 => Some(Suite::AesCm128HmacSha1_80),
        _ => None,
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::SecurityError(SecurityError::FatalAlert { description }) => {
            Failure::Alert(*description)
        }
        Error::Timeout(_) => Failure::Timeout,
        Error::ReceiveQueueFull | Error::TooManyClientHelloFragments => Failure::Flood,
        _ => Failure::Protocol,
    }
}
