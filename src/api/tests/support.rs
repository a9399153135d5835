//! An API with a fake behind it, and a client that writes requests byte by byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::auth::{BrowserToken, Credentials, Hashes, TokenScope, Who};
use api::{Api, ApiConfig, Guard, IceServer, Origin, Parts};
use base::{Clock, Event, Instant, Personal, Random, Secret, WallTime};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use transport::certificates::ensure_development;
use transport::{TransportConfig, TransportHandle};

use crate::calls::Calls;

/// Long enough that only a fault reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The system's clocks.
pub(crate) struct TestClock(std::time::Instant);

impl Clock for TestClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.0.elapsed().as_nanos()).unwrap())
    }
    fn wall(&self) -> WallTime {
        now()
    }
}

pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap())
}

/// Keys `key-write` and `key-read`, account alice with password `wonderland`, and tokens.
#[derive(Default)]
pub(crate) struct Known {
    tokens: Mutex<BTreeMap<String, Arc<BrowserToken>>>,
}

impl Known {
    fn token(&self, secret: &str, now: WallTime) -> Option<Who> {
        let tokens = self.tokens.lock().unwrap();
        let token = tokens.get(secret).filter(|token| token.expires > now)?;
        Some(Who::Token(Arc::clone(token)))
    }
}

impl Credentials for Known {
    fn bearer(&self, secret: &str, now: WallTime) -> Option<Who> {
        let key = |can_write| Who::Key { id: "key_0011223344556677".to_owned(), can_write };
        match secret {
            "key-write" => Some(key(true)),
            "key-read" => Some(key(false)),
            _ => self.token(secret, now),
        }
    }

    fn digest(&self, user: &str, realm: &str, now: WallTime) -> Option<(Who, Hashes)> {
        let (who, password) = match user {
            _ if matches!(user, "alice" | "bob") || user.starts_with("user") => {
                let name = Personal::new(user.to_owned());
                (Who::Account { name, display: None, caller: None }, "wonderland".to_owned())
            }
            _ => {
                let tokens = self.tokens.lock().unwrap();
                let (secret, _) = tokens.iter().find(|(_, token)| token.id == user)?;
                let secret = secret.clone();
                drop(tokens);
                (self.token(&secret, now)?, secret)
            }
        };
        Some((who, Hashes::of(user, realm, &password)))
    }
}

/// The API, what it carries to, and what it tells.
pub(crate) struct Edge {
    pub(crate) api: Api,
    pub(crate) calls: Arc<Calls>,
    pub(crate) transport: TransportHandle,
    pub(crate) known: Arc<Known>,
    pub(crate) https: SocketAddr,
    pub(crate) http: SocketAddr,
    pub(crate) tls: Arc<ClientConfig>,
    events: Arc<Mutex<Vec<Event>>>,
    pub(crate) authority: std::path::PathBuf,
    _folder: TempDir,
}

struct OsRandom;

impl Random for OsRandom {
    fn fill(&mut self, out: &mut [u8]) {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.secure_random.fill(out).unwrap();
    }
}

impl Edge {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificates = ensure_development(folder.path(), &[], now()).unwrap();
        let calls = Arc::new(Calls::default());
        let config = TransportConfig { tls: Some(certificates.tls_files()), ..Default::default() };
        let transport = transport::start(config, Arc::clone(&calls) as _).await.unwrap();
        calls.connect(transport.clone());
        let (known, events) = (Arc::new(Known::default()), Arc::new(Mutex::new(Vec::new())));
        let taking = Arc::clone(&events);
        let taking: api::Events = Arc::new(move |event| taking.lock().unwrap().push(event));
        let clock: api::SharedClock = Arc::new(TestClock(std::time::Instant::now()));
        let credentials = Arc::clone(&known) as Arc<dyn Credentials>;
        let guard = Arc::new(Guard::new(credentials, Arc::clone(&clock), Arc::clone(&taking)));
        let config = ApiConfig {
            host: "edge.example".to_owned(),
            https_port: 8443,
            origins: [Origin::parse("https://app.example").unwrap()].into_iter().collect(),
            ice_servers: vec![
                IceServer { url: "stun:stun.example".to_owned(), login: None },
                IceServer {
                    url: "turns:turn.example?transport=tcp".to_owned(),
                    login: Some(api::IceLogin::new(|_| {
                        ("u".to_owned(), Secret::new("p\"w".to_owned()))
                    })),
                },
            ],
        };
        let parts = Parts {
            challenges: Arc::new(|_| None),
            transport: transport.clone(),
            guard,
            clock,
            random: Box::new(OsRandom),
            events: taking,
            pages: axum::Router::new(),
        };
        let api = Api::new(config, parts).unwrap();
        let https = api.listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let http = api.listen_plaintext("127.0.0.1:0".parse().unwrap()).unwrap();
        let authority = certificates.authority;
        let tls = Arc::new(client_config(&authority));
        let _folder = folder;
        Self { api, calls, transport, known, https, http, tls, events, authority, _folder }
    }

    /// Knows a token from now on.
    pub(crate) fn add_token(&self, secret: &str, change: impl FnOnce(&mut BrowserToken)) {
        let mut tokens = self.known.tokens.lock().unwrap();
        let mut token = BrowserToken {
            id: format!("bt_{:016x}", tokens.len() + 1),
            called: None,
            scopes: TokenScope::ALL.into(),
            origin: None,
            name: None,
            caller: None,
            expires: now() + Duration::from_secs(60),
            used: None,
        };
        change(&mut token);
        tokens.insert(secret.to_owned(), Arc::new(token));
    }

    pub(crate) async fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.https).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.unwrap();
        Client { stream, left: Vec::new() }
    }

    /// One request on a connection of its own.
    pub(crate) async fn ask(&self, method: &str, path: &str, fields: &[&str], body: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(&request(method, path, fields, body)).await;
        client.reply().await
    }

    pub(crate) fn has_event(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(is)
    }
}

pub(crate) fn client_config(authority: &std::path::Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    builder.with_no_client_auth()
}

pub(crate) fn request(method: &str, path: &str, fields: &[&str], body: &str) -> String {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = if body.is_empty() && method != "POST" {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost:8443\r\n{fields}{length}\r\n{body}")
}

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: TlsStream<TcpStream>,
    left: Vec<u8>,
}

/// A response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    fields: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn parse(head: &str) -> Self {
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Self { status, fields: lines.filter_map(field).collect(), body: String::new() }
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(it, _)| it == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// The stable code of a problem.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 5), "{self:?}");
        assert_eq!(problem["request_id"].as_str(), self.field("x-request-id"));
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A server that has answered and closed already need not hear the rest.
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.until(b"\r\n\r\n").await.expect("a whole head");
        let mut reply = Reply::parse(&head);
        let length = reply.field("content-length").map_or(0, |it| it.parse().unwrap());
        while self.left.len() < length {
            assert!(self.read().await, "a whole body");
        }
        reply.body = String::from_utf8(self.left.drain(..length).collect()).unwrap();
        reply
    }

    /// Whether the server closes the connection without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.left.is_empty() && !self.read().await
    }

    async fn until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            let found = self.left.windows(end.len()).position(|window| window == end);
            if let Some(at) = found {
                let bytes = self.left.drain(..at + end.len()).collect();
                return Some(String::from_utf8(bytes).unwrap());
            }
            if !self.read().await {
                return None;
            }
        }
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4_096];
        let reading = timeout(PATIENCE, self.stream.read(&mut buffer)).await;
        let size = reading.expect("an answer in time").unwrap_or(0);
        self.left.extend_from_slice(&buffer[..size]);
        size > 0
    }
}
