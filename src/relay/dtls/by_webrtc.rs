//! DTLS by `webrtc-dtls`, as a task of the runtime it was begun in, behind a connection that is
//! two queues. What the library does wrong by itself is kept from it:
//!
//! - It puts handshake messages together by recursion and without a bound: it gets whole ones.
//! - Its own cipher suites have CBC with a panic on short records: it gets two AEAD ones.
//! - It takes the client's order of SRTP profiles: it gets only the one that we want.
//! - It waits forever: the association has a deadline.
//! - A connection that reports an error is asked again at once, forever: ours never does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::{Instant, Secret, SessionId, limit};
use media::{DtlsRole, Fingerprint};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use rtp::sdes::Suite;
use rustls_pki_types::CertificateDer;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::AbortHandle;
use webrtc_dtls::Error;
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::crypto::{Certificate, CryptoPrivateKey, CryptoPrivateKeyKind};
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::{Conn, KeyingMaterialExporter};

use super::Failure;
use super::association::{Backend, Choice, Made, Setup};
use super::guard::GuardForm;
use super::identity::is_of;
use super::keys::{EXPORTER_LABEL, Keys, PREFERENCE};

/// Time between repetitions of a flight, which does not grow.
const WAIT: Duration = Duration::from_millis(300);
/// AES-GCM adds eight bytes of nonce and a tag (RFC 5288 section 3).
const OVERHEAD: usize = 8 + 16;
/// Headers and protection that the library does not count into its datagrams.
const HEADERS: usize = 64;
/// The name that the library wants of a server. It looks at fingerprints only.
const SERVER_NAME: &str = "dtls";

/// Tells whoever runs an association to look at it: [`super::Association::handle_timeout`].
#[derive(Clone, Debug)]
pub struct Wake {
    /// Where sessions that want attention queue.
    pub queue: mpsc::Sender<SessionId>,
    /// The session.
    pub session: SessionId,
}

/// One association.
pub(crate) struct WebrtcDtls {
    to_task: mpsc::Sender<Vec<u8>>,
    from_task: mpsc::Receiver<Made>,
    /// The handshake, until it is begun.
    waiting: Option<Waiting>,
    close: Option<oneshot::Sender<()>>,
    task: Option<AbortHandle>,
    runtime: Handle,
    role: DtlsRole,
}

/// What a task gets.
struct Waiting {
    config: Config,
    pipe: Arc<Pipe>,
    close: oneshot::Receiver<()>,
    is_foreign: Arc<AtomicBool>,
}

impl WebrtcDtls {
    pub(crate) fn new(setup: &Setup, wake: Wake) -> Result<Self, Failure> {
        let runtime = Handle::try_current().map_err(|_| Failure::Fault)?;
        let (to_task, inbound) = mpsc::channel(limit::DTLS_QUEUE.get());
        let (outbound, from_task) = mpsc::channel(limit::DTLS_QUEUE.get());
        let (close, closing) = oneshot::channel();
        let is_foreign = Arc::new(AtomicBool::new(false));
        let config = config(setup, is_foreign.clone())?;
        let pipe = Arc::new(Pipe { inbound: Mutex::new(inbound), outbound, wake });
        let waiting = Waiting { config, pipe, close: closing, is_foreign };
        let mut backend = Self {
            to_task,
            from_task,
            waiting: Some(waiting),
            close: Some(close),
            task: None,
            runtime,
            role: setup.role,
        };
        if setup.role == DtlsRole::Active {
            backend.begin();
        }
        Ok(backend)
    }

    fn begin(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            let is_client = self.role == DtlsRole::Active;
            self.task = Some(self.runtime.spawn(run(waiting, is_client)).abort_handle());
        }
    }
}

impl Drop for WebrtcDtls {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Backend for WebrtcDtls {
    fn form(&self) -> GuardForm {
        GuardForm { overhead: OVERHEAD, has_13: false }
    }

    /// A server begins here: what a ClientHello offers is known first.
    fn prefer(&mut self, choice: Choice) {
        if let Some(waiting) = &mut self.waiting {
            waiting.config.srtp_protection_profiles = vec![profile_of(choice.best)];
        }
        self.begin();
    }

    fn handle_datagram(&mut self, _now: Instant, datagram: &[u8]) {
        // What finds no room is lost as on the way, and comes again.
        let _ = self.to_task.try_send(datagram.to_vec());
    }

    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn poll_made(&mut self) -> Option<Made> {
        match self.from_task.try_recv() {
            Ok(made) => Some(made),
            Err(mpsc::error::TryRecvError::Empty) => None,
            // The task has ended without a last word: it panicked.
            Err(mpsc::error::TryRecvError::Disconnected) => Some(Made::Failed(Failure::Fault)),
        }
    }

    fn close(&mut self) {
        if let Some(close) = self.close.take() {
            // A task that has ended has said so.
            let _ = close.send(());
        }
    }
}

/// The connection as the library sees it.
struct Pipe {
    inbound: Mutex<mpsc::Receiver<Vec<u8>>>,
    outbound: mpsc::Sender<Made>,
    wake: Wake,
}

impl Pipe {
    /// Waits while there is no room; nobody listens only where the association has gone.
    async fn put(&self, made: Made) {
        if self.outbound.send(made).await.is_ok() {
            let _ = self.wake.queue.send(self.wake.session).await;
        }
    }
}

type Io<T> = Result<T, webrtc_util::Error>;

#[async_trait]
impl Conn for Pipe {
    async fn connect(&self, _: SocketAddr) -> Io<()> {
        Ok(())
    }

    async fn recv(&self, buffer: &mut [u8]) -> Io<usize> {
        match self.inbound.lock().await.recv().await {
            Some(datagram) => {
                let length = datagram.len().min(buffer.len());
                buffer[..length].copy_from_slice(&datagram[..length]);
                Ok(length)
            }
            None => std::future::pending().await,
        }
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Io<(usize, SocketAddr)> {
        Ok((self.recv(buffer).await?, self.local_addr()?))
    }

    async fn send(&self, datagram: &[u8]) -> Io<usize> {
        self.put(Made::Datagram(datagram.to_vec())).await;
        Ok(datagram.len())
    }

    async fn send_to(&self, datagram: &[u8], _: SocketAddr) -> Io<usize> {
        self.send(datagram).await
    }

    fn local_addr(&self) -> Io<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> Io<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

/// One association's task.
async fn run(mut waiting: Waiting, is_client: bool) {
    let pipe = waiting.pipe.clone();
    let last = match handshake(&mut waiting, is_client).await {
        Ok(connection) => {
            let mut buffer = [0; 64];
            // Only alerts are let through to it, so what can be read is an end.
            let said_goodbye = async { while connection.read(&mut buffer, None).await.is_ok() {} };
            tokio::select! {
                () = said_goodbye => {}
                _ = &mut waiting.close => drop(connection.close().await),
            }
            Made::Closed
        }
        Err(failure) => Made::Failed(failure),
    };
    pipe.put(last).await;
}

async fn handshake(waiting: &mut Waiting, is_client: bool) -> Result<DTLSConn, Failure> {
    let (pipe, config) = (waiting.pipe.clone(), waiting.config.clone());
    let connection = DTLSConn::new(pipe.clone(), config, is_client, None).await;
    let connection =
        connection.map_err(|error| match waiting.is_foreign.load(Ordering::Relaxed) {
            true => Failure::Fingerprint,
            false => failure(&error),
        })?;
    let state = connection.connection_state().await;
    let certificate = state.peer_certificates.first().cloned().ok_or(Failure::Fingerprint)?;
    let profile = connection.selected_srtpprotection_profile();
    let is_it = |it: &Suite| profile_of(*it) == profile;
    let suite = PREFERENCE.into_iter().find(is_it).ok_or(Failure::Profile)?;
    let length = Keys::material_len(suite);
    let material = state.export_keying_material(EXPORTER_LABEL, &[], length).await;
    let material = Secret::new(material.map_err(|_| Failure::Fault)?);
    pipe.put(Made::Certificate(certificate)).await;
    pipe.put(Made::Complete { suite, material, is_13: false }).await;
    Ok(connection)
}

fn config(setup: &Setup, is_foreign: Arc<AtomicBool>) -> Result<Config, Failure> {
    let (expected, identity) = (setup.fingerprint.clone(), &setup.identity);
    let algorithm = &ECDSA_P256_SHA256_ASN1_SIGNING;
    let key = EcdsaKeyPair::from_pkcs8(algorithm, identity.key(), &SystemRandom::new());
    let kind = CryptoPrivateKeyKind::Ecdsa256(key.map_err(|_| Failure::Fault)?);
    let private_key = CryptoPrivateKey { kind, serialized_der: identity.key().to_vec() };
    let certificate = vec![CertificateDer::from(identity.certificate().to_vec())];
    let allowed = PREFERENCE.into_iter().filter(|it| setup.suites.contains(it));
    Ok(Config {
        certificates: vec![Certificate { certificate, private_key }],
        cipher_suites: vec![
            CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
            CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
        ],
        srtp_protection_profiles: allowed.map(profile_of).collect(),
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        flight_interval: WAIT,
        // There is no authority to ask: the fingerprint decides.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |chain, _| {
            verify(&expected, chain).inspect_err(|_| is_foreign.store(true, Ordering::Relaxed))
        })),
        server_name: SERVER_NAME.to_owned(),
        mtu: limit::DTLS_DATAGRAM_BYTES.get() - HEADERS,
        ..Config::default()
    })
}

fn verify(expected: &Fingerprint, chain: &[Vec<u8>]) -> Result<(), Error> {
    let is_expected = chain.first().is_some_and(|leaf| is_of(expected, leaf));
    is_expected.then_some(()).ok_or(Error::ErrInvalidCertificate)
}

const fn profile_of(suite: Suite) -> SrtpProtectionProfile {
    match suite {
        Suite::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        Suite::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        Suite::AesCm128HmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        Suite::AesCm128HmacSha1_32 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32,
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::ErrServerNoMatchingSrtpProfile
        | Error::ErrClientNoMatchingSrtpProfile
        | Error::ErrRequestedButNoSrtpExtension => Failure::Profile,
        _ => Failure::Protocol,
    }
}
