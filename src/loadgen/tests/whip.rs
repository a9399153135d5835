//! A WHIP endpoint on 127.0.0.1 that answers whatever it is offered and sends audio back.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use base::Random as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rtp::ice::stun::{Class, Message, Writer};
use rtp::sdes::Suite;
use rtp::{Datagram, classify};
use sdp::{Attribute, Codec, Direction, Local, Protocol, Session};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::browser::{Certificate, Credentials, Fingerprint, Peer, connect};
use crate::os::OsRandom;
use crate::srtp::{Protect, Unprotect};
use crate::tls;

/// What the endpoint does otherwise than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    /// Its description names another certificate.
    Fingerprint,
    /// It never answers a check.
    Deaf,
    /// It says goodbye by itself once media has flowed.
    Leaves,
}

/// The token that it takes.
pub(super) const TOKEN: &str = "bt_good";
const SUITES: [Suite; 1] = [Suite::AeadAes128Gcm];

pub(super) struct Whip {
    pub(super) address: SocketAddr,
    pub(super) authority: Vec<u8>,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    fault: Fault,
    certificate: Certificate,
    /// What was asked for, in order.
    seen: Mutex<Vec<String>>,
}

impl Whip {
    pub(super) async fn start(fault: Fault) -> Self {
        let (config, made) = tls::server(None, vec!["127.0.0.1".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = Certificate::generate().unwrap();
        let shared = Arc::new(Shared { fault, certificate, seen: Mutex::default() });
        let mut serving = JoinSet::new();
        let own = Arc::clone(&shared);
        serving.spawn(async move {
            let acceptor = TlsAcceptor::from(config);
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(socket).await else { continue };
                let shared = Arc::clone(&own);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        let authority = made.unwrap().into_bytes();
        Self { address, authority, shared, _serving: serving }
    }

    pub(super) fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    shared.seen.lock().unwrap().push(format!("{} {}", parts.method, parts.uri.path()));
    let authorization = parts.headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
    let response = Response::builder();
    let (status, body) = match parts.method {
        _ if authorization != Some(&format!("Bearer {TOKEN}")) => {
            (401, r#"{"code":"api.unauthenticated"}"#.to_owned())
        }
        Method::POST => {
            let offer = body.collect().await?.to_bytes();
            (201, describe(&shared, &offer).await)
        }
        _ => (200, String::new()),
    };
    let response = response.status(status).header(CONTENT_TYPE, "application/sdp");
    let response = response.header(LOCATION, "/whip/session/1");
    Ok(response.body(Full::new(body.into())).unwrap())
}

async fn describe(shared: &Arc<Shared>, offer: &[u8]) -> String {
    let offer = Session::parse(offer).unwrap();
    let line = &offer.media[0];
    let of = |name: &str| offer.attribute_of(line, name).unwrap();
    let theirs = Credentials::parse(of("ice-ufrag"), of("ice-pwd")).unwrap();
    assert_eq!((of("setup"), line.has_rtcp_mux()), ("actpass", true));
    let fingerprint = Fingerprint::parse(of("fingerprint")).unwrap();
    let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = socket.local_addr().unwrap();
    let ours = Credentials::random(&mut OsRandom);
    let shown = match shared.fault {
        Fault::Fingerprint => Certificate::generate().unwrap().fingerprint().to_string(),
        _ => shared.certificate.fingerprint().to_string(),
    };
    let attributes = vec![
        Attribute::new("ice-ufrag", ours.ufrag.clone()),
        Attribute::new("ice-pwd", ours.pwd.expose().clone()),
        Attribute::new("fingerprint", shown),
        Attribute::new("setup", "passive"),
        Attribute::new("candidate", format!("1 1 udp 1 127.0.0.1 {} typ host", address.port())),
    ];
    let local = Local {
        session_id: u64::from(OsRandom.u32() >> 1),
        version: 1,
        address: address.ip(),
        rtp_port: address.port(),
        rtcp_port: address.port(),
        codecs: vec![Codec::pcmu()],
        telephone_event: true,
        comfort_noise: false,
        direction: Direction::SendRecv,
        rtcp_mux: true,
        ptime: 20,
        plaintext: false,
        crypto: BTreeMap::new(),
        dtls: BTreeMap::from([(0, attributes)]),
        offer_protocol: Protocol::UdpTlsRtpSavpf,
        offer_crypto: Vec::new(),
        offer_dtls: Vec::new(),
        ice_lite: true,
    };
    let answer = sdp::answer(&offer, &local).unwrap();
    if shared.fault != Fault::Deaf {
        tokio::spawn(echo(Arc::clone(shared), socket, ours, theirs, fingerprint));
    }
    answer.session.to_text()
}

/// Answers checks, takes the handshake, and sends audio back as it comes.
async fn echo(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    ours: Credentials,
    theirs: Credentials,
    fingerprint: Fingerprint,
) {
    let mut buffer = [0; 2_000];
    let (length, address) = socket.recv_from(&mut buffer).await.unwrap();
    let username = format!("{}:{}", ours.ufrag, theirs.ufrag);
    assert!(take_check(&ours, &username, &buffer[..length], address, &socket).await);
    // Seen from here the handshake is the other one's to begin.
    let peer = Peer { address, credentials: None, fingerprint, is_passive: false };
    let Ok(secured) = connect(&socket, &ours, &shared.certificate, &SUITES, &peer).await else {
        return;
    };
    let mut protect = Protect::new(&secured.send).unwrap();
    let mut unprotect = Unprotect::new(secured.receive);
    let mut echoed = 0;
    while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
        let datagram = &buffer[..length];
        match classify(datagram) {
            Datagram::Stun => {
                assert!(take_check(&ours, &username, datagram, from, &socket).await);
            }
            Datagram::Rtp => {
                let packet = unprotect.rtp(datagram).unwrap();
                echoed += 1;
                socket.send_to(&protect.rtp(&packet).unwrap(), from).await.unwrap();
            }
            _ => {}
        }
        if shared.fault == Fault::Leaves && echoed == 5 {
            // An alert under the keys of the handshake: its first byte is all that can be told.
            socket.send_to(&[21, 0xfe, 0xfd, 0, 1, 0, 0, 0, 0, 0, 9, 0, 0], from).await.unwrap();
        }
    }
}

async fn take_check(
    ours: &Credentials,
    username: &str,
    datagram: &[u8],
    from: SocketAddr,
    socket: &UdpSocket,
) -> bool {
    let Ok(check) = Message::parse(datagram) else { return false };
    let key = ours.pwd.expose().as_bytes();
    let is_right = check.username() == Some(username) && check.is_signed_with(key);
    let mut bytes = [0; 200];
    let mut writer = Writer::new(&mut bytes, Class::Success, check.transaction());
    writer.mapped_address(from);
    let length = writer.finish(Some(key)).unwrap();
    socket.send_to(&bytes[..length], from).await.unwrap();
    is_right
}
