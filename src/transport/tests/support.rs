//! A witness in place of the edge, and clients.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base::{Event, TrunkName, WallTime};
use bytes::Bytes;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use transport::certificates::{DevelopmentCertificates, ensure_development};
use transport::{
    Bounds, Dial, DialError, Flow, FlowId, HandedOn, Ingress, Inlet, NameServers, Transport,
    TransportConfig, TransportHandle,
};

/// Long enough that only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const OK: &str = "SIP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n";
pub(crate) const PONG: &[u8] = b"\r\n";

/// What the inlet saw.
#[derive(Debug)]
pub(crate) enum Seen {
    Message(Arc<Flow>, Bytes),
    Malformed(Arc<Flow>, sip::Status),
    Closed(FlowId),
}

/// An edge that remembers what it sees, answers what it is told to and panics on demand.
pub(crate) struct Witness {
    seen: mpsc::Sender<Seen>,
    events: Mutex<Vec<Event>>,
    handle: OnceLock<TransportHandle>,
    pub(crate) answers: bool,
    pub(crate) admits: bool,
    /// A place for each message to `busy` that may be handed on.
    pub(crate) places: Arc<Semaphore>,
}

impl Inlet for Witness {
    fn admits(&self, _source: SocketAddr, _local: SocketAddr, _transport: Transport) -> bool {
        self.admits
    }
    fn message(&self, flow: &Arc<Flow>, message: Bytes) -> Option<HandedOn> {
        assert!(!message.windows(5).any(|word| word == b"PANIC"), "the message said so");
        let is_request = !message.starts_with(b"SIP/2.0");
        if let (true, Some(handle)) = (self.answers && is_request, self.handle.get()) {
            handle.send(flow.id, Bytes::from_static(OK.as_bytes())).unwrap();
        }
        let is_busy = message.windows(4).any(|word| word == b"busy");
        self.seen.try_send(Seen::Message(Arc::clone(flow), message)).unwrap();
        let places = Arc::clone(&self.places);
        is_busy.then(|| -> HandedOn {
            Box::pin(async move { places.acquire().await.unwrap().forget() })
        })
    }
    fn malformed(&self, flow: &Arc<Flow>, failure: &sip::ParseFailure) -> Option<Bytes> {
        let status = failure.error.status();
        self.seen.try_send(Seen::Malformed(Arc::clone(flow), status)).unwrap();
        failure.response("tag").map(|response| response.to_bytes())
    }
    fn closed(&self, flow: FlowId) {
        self.seen.try_send(Seen::Closed(flow)).unwrap();
    }
    fn event(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }
}

/// A running transport under observation.
pub(crate) struct Edge {
    pub(crate) handle: TransportHandle,
    pub(crate) witness: Arc<Witness>,
    pub(crate) certificates: DevelopmentCertificates,
    seen: mpsc::Receiver<Seen>,
    _folder: TempDir,
}

/// How a test wants its edge.
pub(crate) struct Setup {
    pub(crate) bounds: Bounds,
    pub(crate) answers: bool,
    pub(crate) admits: bool,
    pub(crate) untrusted: transport::Untrusted,
    pub(crate) has_authorities: bool,
    pub(crate) listeners: Vec<Ingress>,
    pub(crate) names: NameServers,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            bounds: Bounds::default(),
            answers: true,
            admits: true,
            untrusted: transport::Untrusted::Refuse,
            has_authorities: true,
            listeners: vec![
                Ingress { transport: Transport::Udp, address: loopback() },
                Ingress { transport: Transport::Tcp, address: loopback() },
                Ingress { transport: Transport::Tls, address: loopback() },
            ],
            names: NameServers { servers: vec![nowhere()], ..NameServers::default() },
        }
    }
}

impl Edge {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificates = ensure_development(folder.path(), &[], now()).unwrap();
        let mut files = certificates.tls_files();
        files.untrusted = setup.untrusted;
        files.authorities = files.authorities.filter(|_| setup.has_authorities);
        let (sender, seen) = mpsc::channel(100_000);
        let witness = Arc::new(Witness {
            seen: sender,
            events: Mutex::default(),
            handle: OnceLock::new(),
            answers: setup.answers,
            admits: setup.admits,
            places: Arc::new(Semaphore::new(0)),
        });
        let config = TransportConfig {
            listeners: setup.listeners,
            tls: Some(files),
            names: setup.names,
            bounds: setup.bounds,
        };
        let inlet = Arc::<Witness>::clone(&witness);
        let handle = transport::start(config, inlet).await.unwrap();
        witness.handle.set(handle.clone()).ok().unwrap();
        handle.set_lines(vec![crate::peers::bare_line("acme").load().unwrap()]);
        Self { handle, witness, certificates, seen, _folder: folder }
    }

    /// A flow to an address of trunk `acme`, within a dialog in which it has `proved` these names.
    pub(crate) async fn connect(
        &self,
        to: SocketAddr,
        over: Transport,
        proved: &[&str],
    ) -> Result<FlowId, DialError> {
        let uri = sip::Uri::parse(&format!("sip:{to};transport={over}")).unwrap();
        let proved = proved.iter().map(|name| (*name).to_owned()).collect();
        let dial = Dial { proved, ..Dial::new(TrunkName::new("acme"), uri) };
        crate::peers::dial_with(self, dial).answer().await.map(|reached| reached.flow.id)
    }

    pub(crate) fn address(&self, transport: Transport) -> SocketAddr {
        let listeners = self.handle.local_addresses();
        listeners.iter().find(|it| it.transport == transport).unwrap().address
    }

    pub(crate) async fn seen(&mut self) -> Seen {
        timeout(PATIENCE, self.seen.recv()).await.expect("something to be seen").unwrap()
    }

    pub(crate) fn has_seen_nothing(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }

    pub(crate) async fn message(&mut self) -> (Arc<Flow>, Bytes) {
        match self.seen().await {
            Seen::Message(flow, message) => (flow, message),
            other => panic!("not a message: {other:?}"),
        }
    }

    pub(crate) async fn closed(&mut self) -> FlowId {
        match self.seen().await {
            Seen::Closed(flow) => flow,
            other => panic!("not closed: {other:?}"),
        }
    }

    /// Why connections were closed so far.
    pub(crate) fn causes(&self) -> Vec<&'static str> {
        let events = self.witness.events.lock().unwrap();
        let cause = |event: &Event| match event {
            Event::ConnectionClosed { cause, .. } => Some(*cause),
            _ => None,
        };
        events.iter().filter_map(cause).collect()
    }

    pub(crate) fn has_event(&self, name: &str) -> bool {
        self.witness.events.lock().unwrap().iter().any(|event| event.name() == name)
    }

    /// Waits until `count` connections were closed because of `cause`.
    pub(crate) async fn until_closed(&self, cause: &str, count: usize) {
        until(|| self.causes().iter().filter(|it| **it == cause).count() >= count).await;
    }
}

/// Waits until a claim is true.
pub(crate) async fn until(mut claim: impl FnMut() -> bool) {
    let waiting = async {
        while !claim() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("the claim to become true");
}

pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap())
}

/// An address that nobody answers at.
pub(crate) fn nowhere() -> SocketAddr {
    std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap()
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// A request whose Call-ID and body are recognisable.
pub(crate) fn request(call: &str, body: &str) -> String {
    format!(
        "OPTIONS sip:edge.example SIP/2.0\r\nVia: SIP/2.0/TLS h.example;branch=z9hG4bK{call}\r\n\
         From: <sip:a@h.example>;tag=1\r\nTo: <sip:edge.example>\r\nCall-ID: {call}\r\n\
         CSeq: 1 OPTIONS\r\nMax-Forwards: 70\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A TCP connection from an address of one's choice.
pub(crate) async fn tcp_from(source: [u8; 4], target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(target).await
}

pub(crate) async fn tcp(target: SocketAddr) -> TcpStream {
    tcp_from([127, 0, 0, 1], target).await.unwrap()
}

/// A client's view of TLS: trusts `authority`, and shows `identity` (certificate, key).
pub(crate) fn client_config(authority: &Path, identity: Option<(&Path, &Path)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let Some((certificate, key)) = identity else { return builder.with_no_client_auth() };
    let chain = CertificateDer::pem_file_iter(certificate).unwrap();
    let chain = chain.collect::<Result<_, _>>().unwrap();
    builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
}

pub(crate) async fn handshake(
    config: ClientConfig,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A TLS client without a certificate.
pub(crate) async fn tls(edge: &Edge) -> TlsStream<TcpStream> {
    let config = client_config(&edge.certificates.authority, None);
    handshake(config, tcp(edge.address(Transport::Tls)).await).await.unwrap()
}

/// Reads exactly what is expected.
pub(crate) async fn expect(stream: &mut (impl AsyncRead + Unpin), expected: &[u8]) {
    let mut got = vec![0; expected.len()];
    timeout(PATIENCE, stream.read_exact(&mut got)).await.expect("an answer").unwrap();
    assert_eq!(got.escape_ascii().to_string(), expected.escape_ascii().to_string());
}

/// Reads to the end of the stream.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut got = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut got)).await.expect("an end");
    String::from_utf8(got).unwrap()
}
