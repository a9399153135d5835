//! OpenSSL's own client and server over UDP, as the independent peer.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base::SessionId;
use media::{DtlsBackend, DtlsRole, Fingerprint, FingerprintHash};
use rtp::sdes::Suite;

use super::association_tests::{BACKENDS, identities, identity, setup};
use super::{DtlsHandle, DtlsSink, Failure, HandshakeId, Handshakes, Identity, Keys, News, Setup};

const SESSION: SessionId = SessionId::new(1, 0);
const ID: HandshakeId = HandshakeId { session: SESSION, number: 1 };
const PROFILES: &str = "SRTP_AES128_CM_SHA1_80:SRTP_AEAD_AES_128_GCM";

/// Sends to the one who sent last, and tells what came of it.
struct Wire {
    socket: UdpSocket,
    peer: Arc<OnceLock<SocketAddr>>,
    told: SyncSender<Result<Keys, Failure>>,
}

impl DtlsSink for Wire {
    fn deliver(&mut self, of: HandshakeId, news: News) -> Result<(), News> {
        assert_eq!(of, ID);
        match news {
            News::Datagram(bytes) => {
                self.socket.send_to(&bytes, self.peer.get().unwrap()).unwrap();
            }
            News::Keys(keys) => self.told.send(Ok(keys)).unwrap(),
            News::Failed(failure) => self.told.send(Err(failure)).unwrap(),
            News::Closed | News::Identity(_) => {}
        }
        Ok(())
    }
    fn rotated(&mut self, _: &Identity) -> bool {
        true
    }
}

/// A thread of handshakes with a socket.
struct Ours {
    address: SocketAddr,
    handle: DtlsHandle,
    told: Receiver<Result<Keys, Failure>>,
}

impl Ours {
    fn start(peer: Option<SocketAddr>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (told, telling) = sync_channel(8);
        let known = Arc::new(OnceLock::new());
        peer.into_iter().for_each(|it| known.set(it).unwrap());
        let wire = Wire { socket: socket.try_clone().unwrap(), peer: known.clone(), told };
        let handshakes = Handshakes::start(Box::new(wire), identities(), 1).unwrap();
        let handle = handshakes.handle();
        let to = handle.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                known.get_or_init(|| from);
                to.datagram(SESSION, &buffer[..length]).unwrap();
            }
        });
        Self { address, handle, told: telling }
    }

    fn result(&self) -> Result<Keys, Failure> {
        self.told.recv_timeout(Duration::from_secs(30)).unwrap()
    }
}

/// A process that ends with its test.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        self.0.wait().unwrap();
    }
}

fn openssl(arguments: &[&str]) -> Command {
    let found = Command::new("openssl").arg("version").output();
    assert!(found.is_ok(), "these tests need the program `openssl`: apt-get install openssl");
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// Starts it and gives its lines.
fn start(mut command: Command) -> (Peer, impl Iterator<Item = String>) {
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (Peer(child), lines.map_while(Result::ok))
}

/// What `-keymatexport` has printed.
fn exported(lines: impl Iterator<Item = String>) -> Vec<u8> {
    let hex = lines.filter_map(|it| it.trim().strip_prefix("Keying material: ").map(str::to_owned));
    let hex = hex.take(1).next().expect("openssl exports no keying material");
    hex.as_bytes()
        .chunks(2)
        .map(|it| u8::from_str_radix(std::str::from_utf8(it).unwrap(), 16).unwrap())
        .collect()
}

/// The bytes that our keys were cut from.
fn material(keys: &Keys, role: DtlsRole) -> Vec<u8> {
    let (client, server) = match role {
        DtlsRole::Active => (&keys.send, &keys.receive),
        DtlsRole::Passive => (&keys.receive, &keys.send),
    };
    [client.key(), server.key(), client.salt(), server.salt()].concat()
}

fn pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (index, three) in der.chunks(3).enumerate() {
        let bits = three.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= three.len() { digit as char } else { '=' });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", text.trim_end())
}

/// A certificate and key as files for OpenSSL.
fn files(folder: &Path, identity: &Identity) -> [String; 2] {
    let files = ["cert.pem", "key.pem"].map(|it| folder.join(it).to_str().unwrap().to_owned());
    std::fs::write(&files[0], pem("CERTIFICATE", identity.certificate())).unwrap();
    std::fs::write(&files[1], pem("PRIVATE KEY", identity.key())).unwrap();
    files
}

fn client(to: SocketAddr, [cert, key]: &[String; 2], more: &[&str]) -> Command {
    let to = to.to_string();
    let fixed = ["s_client", "-dtls1_2", "-connect", &to, "-cert", cert, "-key", key];
    let export = ["-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen", "60"];
    openssl(&[&fixed[..], &export, more].concat())
}

fn passive(backend: DtlsBackend, ours: &Identity, peer: &Fingerprint, has_cookie: bool) -> Setup {
    Setup { has_cookie, ..setup(backend, DtlsRole::Passive, ours, peer) }
}

#[test]
fn its_client_exports_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (identity(2), identity(1));
    let files = files(folder.path(), &theirs);
    let alpn = ["z"; 90].map(|it| it.repeat(12)).join(",");
    for backend in BACKENDS {
        let cases: [(&[&str], Suite); 4] = [
            (&["-use_srtp", PROFILES], Suite::AeadAes128Gcm),
            (&["-use_srtp", "SRTP_AES128_CM_SHA1_80"], Suite::AesCm128HmacSha1_80),
            (&["-use_srtp", "SRTP_AEAD_AES_256_GCM", "-curves", "P-256"], Suite::AeadAes256Gcm),
            // A ClientHello of 1.3 KB in pieces.
            (&["-use_srtp", PROFILES, "-mtu", "300", "-alpn", &alpn], Suite::AeadAes128Gcm),
        ];
        for (index, (more, suite)) in cases.into_iter().enumerate() {
            let server = Ours::start(None);
            let setup = passive(backend, &ours, theirs.fingerprint(), index % 2 == 1);
            server.handle.begin(ID, setup).unwrap();
            let (peer, lines) = start(client(server.address, &files, more));
            let keys = server.result().unwrap_or_else(|it| panic!("{backend:?} {more:?}: {it}"));
            assert_eq!(keys.suite, suite, "{backend:?} {more:?}");
            let bytes = material(&keys, DtlsRole::Passive);
            let length = bytes.len().min(60);
            assert_eq!(exported(lines)[..length], bytes[..length], "{backend:?} {more:?}");
            drop(peer);
        }
    }
}

#[test]
fn its_server_exports_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (identity(2), identity(1));
    let [cert, key] = &files(folder.path(), &theirs);
    for backend in BACKENDS {
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let at = free.to_string();
        let fixed = ["s_server", "-dtls1_2", "-accept", &at, "-cert", cert, "-key", key];
        let more = ["-Verify", "1", "-use_srtp", "SRTP_AEAD_AES_128_GCM", "-naccept", "1"];
        let export = ["-keymatexport", "EXTRACTOR-dtls_srtp", "-keymatexportlen", "60"];
        let (peer, mut lines) = start(openssl(&[&fixed[..], &more, &export].concat()));
        assert!(lines.any(|it| it.contains("ACCEPT")));
        let client = Ours::start(Some(free));
        let setup = setup(backend, DtlsRole::Active, &ours, theirs.fingerprint());
        client.handle.begin(ID, setup).unwrap();
        let keys = client.result().unwrap_or_else(|it| panic!("{backend:?}: {it}"));
        let bytes = material(&keys, DtlsRole::Active);
        assert_eq!(exported(lines)[..bytes.len()], bytes, "{backend:?}");
        drop(peer);
    }
}

#[test]
fn an_rsa_peer_is_for_webrtc_dtls() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["cert.pem", "key.pem", "cert.der"]
        .map(|it| folder.path().join(it).to_str().unwrap().to_owned());
    let [cert, key, der] = &paths;
    let made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old"];
    let made = openssl(&[&made[..], &["-out", cert, "-keyout", key]].concat()).status().unwrap();
    assert!(made.success());
    let read = openssl(&["x509", "-in", cert, "-outform", "der", "-out", der]).status().unwrap();
    assert!(read.success());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &std::fs::read(der).unwrap());
    let peer = Fingerprint::new(FingerprintHash::Sha256, hash.as_ref().to_vec()).unwrap();
    for backend in BACKENDS {
        let server = Ours::start(None);
        let setup = passive(backend, &identity(2), &peer, false);
        server.handle.begin(ID, setup).unwrap();
        let files = [cert.clone(), key.clone()];
        let (_peer, lines) = start(client(server.address, &files, &["-use_srtp", PROFILES]));
        match backend {
            DtlsBackend::WebrtcDtls => {
                let bytes = material(&server.result().unwrap(), DtlsRole::Passive);
                assert_eq!(exported(lines)[..bytes.len()], bytes);
            }
            DtlsBackend::Dimpl => assert_eq!(server.result(), Err(Failure::Protocol)),
        }
    }
}

#[test]
fn a_client_without_srtp_or_with_a_foreign_certificate_gets_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (identity(2), identity(1));
    let files = files(folder.path(), &theirs);
    let stranger = identity(3);
    let cases: [(&[&str], &Identity, Failure); 2] = [
        (&[], &theirs, Failure::Profile),
        (&["-use_srtp", PROFILES], &stranger, Failure::Fingerprint),
    ];
    for backend in BACKENDS {
        for (more, expected, failure) in cases {
            let server = Ours::start(None);
            let setup = passive(backend, &ours, expected.fingerprint(), false);
            server.handle.begin(ID, setup).unwrap();
            let (_peer, lines) = start(client(server.address, &files, more));
            assert_eq!(server.result(), Err(failure), "{backend:?}");
            // It is told, and so ends by itself.
            assert!(lines.count() > 0);
        }
    }
}
