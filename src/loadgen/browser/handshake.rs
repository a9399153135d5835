//! From a socket to keys: a check, then the handshake by `webrtc-dtls`, never by what the relay
//! has made of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use base::limit::{LOADGEN_QUEUE, RTP_PACKET_BYTES};
use base::{Clock as _, Random as _};
use rtp::sdes::{KeySalt, Suite};
use rtp::{Datagram, classify};
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;
use webrtc_dtls::cipher_suite::CipherSuiteId;
use webrtc_dtls::config::{ClientAuthType, Config, ExtendedMasterSecretType};
use webrtc_dtls::conn::DTLSConn;
use webrtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use webrtc_util::{Conn, KeyingMaterialExporter as _};

use super::check::{answer, check};
use super::{Certificate, Credentials, Early, Failure, Fingerprint, Peer, WITHIN};
use crate::os::{OsClock, OsRandom};

/// First wait for the answer to a check; it doubles (RFC 8489 section 6.2.1 has 500 ms, browsers
/// begin with less).
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Checks without an answer after which there is no path.
const CHECKS: u32 = 8;
/// Between two repetitions of a flight.
const FLIGHT: Duration = Duration::from_millis(250);
/// Media that came before the keys and is kept for them.
const EARLY: usize = 200;
/// RFC 5764 section 4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// What a handshake is for.
#[derive(Clone, Debug)]
pub struct Secured {
    /// Key of what we send.
    pub send: KeySalt,
    /// Key of what we receive.
    pub receive: KeySalt,
    /// Media that came before.
    pub(crate) early: Vec<Early>,
}

/// Checks the path and shakes hands, within [`WITHIN`]. Datagrams of others than the peer are
/// thrown away.
///
/// # Errors
/// [`Failure`].
pub async fn connect(
    socket: &Arc<UdpSocket>,
    ours: &Credentials,
    certificate: &Certificate,
    suites: &[Suite],
    peer: &Peer,
) -> Result<Secured, Failure> {
    let mut early = Vec::new();
    let done = timeout(WITHIN, async {
        if let Some(theirs) = &peer.credentials {
            find(socket, ours, theirs, peer.address).await?;
        }
        shake(socket, certificate, suites, peer, &mut early).await
    });
    let (send, receive) = done.await.unwrap_or(Err(Failure::Timeout))?;
    Ok(Secured { send, receive, early })
}

/// Repeats a check until it is answered.
async fn find(
    socket: &UdpSocket,
    ours: &Credentials,
    theirs: &Credentials,
    to: SocketAddr,
) -> Result<(), Failure> {
    let mut transaction = [0; 12];
    OsRandom.fill(&mut transaction);
    let check = check(ours, theirs, transaction);
    let mut buffer = vec![0; RTP_PACKET_BYTES.get()];
    let mut wait = FIRST_WAIT;
    for _ in 0..CHECKS {
        // What the network does not take now it may take later.
        let _ = socket.send_to(&check, to).await;
        let answered = timeout(wait, async {
            loop {
                let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
                if let Some(said) = answer(theirs, &buffer[..length], transaction)
                    && from == to
                {
                    return said;
                }
            }
        });
        if let Ok(said) = answered.await {
            return said;
        }
        wait *= 2;
    }
    Err(Failure::NoPath)
}

async fn shake(
    socket: &Arc<UdpSocket>,
    certificate: &Certificate,
    suites: &[Suite],
    peer: &Peer,
    early: &mut Vec<Early>,
) -> Result<(KeySalt, KeySalt), Failure> {
    // `webrtc-dtls` asks rustls for the process's provider, and two are built in. An error means
    // that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let is_foreign = Arc::new(AtomicBool::new(false));
    let config = config(certificate, suites, &peer.fingerprint, Arc::clone(&is_foreign));
    let (to_library, inbound) = mpsc::channel(LOADGEN_QUEUE.get().min(EARLY));
    let wire = Wire { inbound: Mutex::new(inbound), socket: Arc::clone(socket), to: peer.address };
    let shaking = DTLSConn::new(Arc::new(wire), config, peer.is_passive, None);
    tokio::pin!(shaking);
    let mut buffer = vec![0; RTP_PACKET_BYTES.get()];
    // The library never reads the socket itself: it would go on doing so when media flows.
    let made = loop {
        tokio::select! {
            biased;
            made = &mut shaking => break made,
            Ok((length, from)) = socket.recv_from(&mut buffer) => {
                let datagram = &buffer[..length];
                match classify(datagram) {
                    _ if from != peer.address => {}
                    // What finds no room is lost as on the way, and comes again.
                    Datagram::Dtls => drop(to_library.try_send(datagram.to_vec())),
                    Datagram::Rtp if early.len() < EARLY => {
                        early.push((OsClock.now(), from, datagram.to_vec()));
                    }
                    _ => {}
                }
            }
        }
    };
    let connection = made.map_err(|_| match is_foreign.load(Ordering::Relaxed) {
        true => Failure::Fingerprint,
        false => Failure::Handshake,
    })?;
    keys(&connection, peer.is_passive).await
}

async fn keys(connection: &DTLSConn, is_client: bool) -> Result<(KeySalt, KeySalt), Failure> {
    let profile = connection.selected_srtpprotection_profile();
    let suite = [Suite::AeadAes256Gcm, Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80];
    let suite = suite.into_iter().find(|it| profile_of(*it) == profile).ok_or(Failure::Profile)?;
    let (key, salt) = (suite.key_len(), suite.salt_len());
    let state = connection.connection_state().await;
    let material = state.export_keying_material(EXPORTER_LABEL, &[], 2 * (key + salt)).await;
    let material = material.map_err(|_| Failure::Handshake)?;
    // The client's key, the server's key, the client's salt, the server's salt.
    let of = |side: usize| {
        let (key_at, salt_at) = (side * key, 2 * key + side * salt);
        let bytes = [material.get(key_at..key_at + key)?, material.get(salt_at..salt_at + salt)?];
        KeySalt::from_bytes(suite, bytes.concat())
    };
    let (client, server) = (of(0).ok_or(Failure::Handshake)?, of(1).ok_or(Failure::Handshake)?);
    Ok(if is_client { (client, server) } else { (server, client) })
}

fn config(
    certificate: &Certificate,
    suites: &[Suite],
    peer: &Fingerprint,
    is_foreign: Arc<AtomicBool>,
) -> Config {
    let peer = peer.clone();
    Config {
        certificates: vec![certificate.own.clone()],
        cipher_suites: vec![CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256],
        srtp_protection_profiles: suites.iter().map(|it| profile_of(*it)).collect(),
        client_auth: ClientAuthType::RequireAnyClientCert,
        extended_master_secret: ExtendedMasterSecretType::Require,
        flight_interval: FLIGHT,
        // There is no authority to ask: the fingerprint decides.
        insecure_skip_verify: true,
        verify_peer_certificate: Some(Arc::new(move |chain, _| {
            let is_it = chain.first().is_some_and(|leaf: &Vec<u8>| peer.is_of(leaf));
            is_foreign.store(!is_it, Ordering::Relaxed);
            is_it.then_some(()).ok_or(webrtc_dtls::Error::ErrInvalidCertificate)
        })),
        server_name: "load".to_owned(),
        ..Config::default()
    }
}

const fn profile_of(suite: Suite) -> SrtpProtectionProfile {
    match suite {
        Suite::AeadAes256Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
        Suite::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        Suite::AesCm128HmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
        Suite::AesCm128HmacSha1_32 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_32,
    }
}

/// The socket as the library sees it.
struct Wire {
    inbound: Mutex<mpsc::Receiver<Vec<u8>>>,
    socket: Arc<UdpSocket>,
    to: SocketAddr,
}

type Io<T> = Result<T, webrtc_util::Error>;

#[async_trait]
impl Conn for Wire {
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
            // A connection that reports an error is asked again at once, for ever.
            None => std::future::pending().await,
        }
    }

    async fn recv_from(&self, buffer: &mut [u8]) -> Io<(usize, SocketAddr)> {
        Ok((self.recv(buffer).await?, self.to))
    }

    async fn send(&self, datagram: &[u8]) -> Io<usize> {
        // What the network does not take is lost as on the way.
        let _ = self.socket.send_to(datagram, self.to).await;
        Ok(datagram.len())
    }

    async fn send_to(&self, datagram: &[u8], _: SocketAddr) -> Io<usize> {
        self.send(datagram).await
    }

    fn local_addr(&self) -> Io<SocketAddr> {
        Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        Some(self.to)
    }

    async fn close(&self) -> Io<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}
