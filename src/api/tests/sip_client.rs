//! A SIP client over WebSocket, as SIP.js and JsSIP are on the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base::{Secret, SeededRandom};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sip::digest::{Challenge, Login, Session};
use sip::{Message, Method, Name, NameAddr, Request, Response, Uri, Via};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use crate::support::{Edge, PATIENCE};

static NAMES: AtomicU64 = AtomicU64::new(0);

/// One WebSocket.
pub(crate) struct Browser {
    pub(crate) socket: WebSocketStream<TlsStream<TcpStream>>,
    user: String,
    password: String,
    sequence: u32,
    /// Tells this client's dialogs from those of others.
    name: u64,
    /// The answered challenge, which the next request counts on.
    session: Option<Session>,
}

impl Browser {
    pub(crate) async fn open(edge: &Edge, user: &str, password: &str) -> Self {
        Self::from_page(edge, user, password, Some("https://app.example")).await.unwrap()
    }

    pub(crate) async fn from_page(
        edge: &Edge,
        user: &str,
        password: &str,
        origin: Option<&str>,
    ) -> Result<Self, tungstenite::Error> {
        let stream = TcpStream::connect(edge.https).await.unwrap();
        Self::over(stream, &edge.tls, (user, password), origin).await
    }

    pub(crate) async fn over(
        stream: TcpStream,
        tls: &Arc<ClientConfig>,
        (user, password): (&str, &str),
        origin: Option<&str>,
    ) -> Result<Self, tungstenite::Error> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.unwrap();
        let mut request = "wss://localhost:8443/sip".into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Sec-WebSocket-Protocol", "sip".parse().unwrap());
        if let Some(origin) = origin {
            headers.insert("Origin", origin.parse().unwrap());
        }
        let (socket, response) = tokio_tungstenite::client_async(request, stream).await?;
        assert_eq!(response.headers()["sec-websocket-protocol"], "sip");
        let (user, password) = (user.to_owned(), password.to_owned());
        let name = NAMES.fetch_add(1, Ordering::Relaxed);
        Ok(Self { socket, user, password, sequence: 0, name, session: None })
    }

    /// A request of this user's.
    pub(crate) fn request(&mut self, method: Method, uri: &str) -> Request {
        self.sequence += 1;
        let own = Uri::parse(&format!("sip:{}@edge.example", self.user)).unwrap();
        let from = NameAddr::new(own.clone()).with_param("tag", Some("browser"));
        let uri = Uri::parse(uri).unwrap();
        let to = NameAddr::new(if method == Method::Register { own } else { uri.clone() });
        let call_id = format!("{}-{method}", self.name);
        let mut request = Request::outside_dialog(method, uri, &from, &to, &call_id, self.sequence);
        let host = sip::Host::parse("browser.invalid").unwrap();
        let branch = format!("z9hG4bK{}", self.sequence);
        request.headers.push_via(&Via::new("WSS", host, None, &branch));
        request
    }

    pub(crate) fn register(&mut self, contact: &str) -> Request {
        let mut request = self.request(Method::Register, "sip:edge.example");
        request.headers.push(Name::Contact, contact);
        request.headers.push(Name::Supported, "path, gruu, outbound");
        request
    }

    /// Adds credentials for the challenge that `response` has.
    pub(crate) fn answer_challenge(&mut self, request: &mut Request, response: &Response) {
        let challenge = Challenge::all(&response.headers).remove(0);
        let password = Secret::new(self.password.clone());
        let login = Login { user: self.user.clone(), password, realm: None };
        self.session = Some(Session::new(challenge, &login, &mut SeededRandom::new(3)));
        self.authorize(request);
    }

    pub(crate) fn authorize(&mut self, request: &mut Request) {
        let session = self.session.as_mut().unwrap();
        let field = session.authorize(&request.method, request.uri.as_str());
        request.headers.push_header(field);
    }

    pub(crate) async fn send(&mut self, message: impl Into<Message>) {
        let text = String::from_utf8(message.into().to_bytes().to_vec()).unwrap();
        self.socket.send(Frame::text(text)).await.unwrap();
    }

    /// The next frame that is no ping.
    pub(crate) async fn frame(&mut self) -> Frame {
        let next = timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
        next.expect("a frame").unwrap()
    }

    pub(crate) async fn message(&mut self) -> Message {
        let bytes = match self.frame().await {
            Frame::Text(text) => Bytes::from(text),
            Frame::Binary(bytes) => bytes,
            other => panic!("{other:?}"),
        };
        sip::parse::datagram(&bytes).unwrap()
    }

    pub(crate) async fn response(&mut self) -> Response {
        match self.message().await {
            Message::Response(response) => response,
            Message::Request(request) => panic!("{request:?}"),
        }
    }

    /// Sends a request, answers the challenge and returns what comes then.
    pub(crate) async fn proved(&mut self, request: Request) -> Response {
        self.send(request.clone()).await;
        let challenged = self.response().await;
        assert_eq!(challenged.status, sip::Status::UNAUTHORIZED);
        let mut request = request;
        self.sequence += 1;
        let method = request.method.clone();
        request.headers.set(Name::CSeq, format!("{} {method}", self.sequence));
        self.answer_challenge(&mut request, &challenged);
        self.send(request).await;
        self.response().await
    }

    /// Registers this browser's address.
    pub(crate) async fn registered(&mut self) -> Response {
        let request = self.register(CONTACT);
        self.proved(request).await
    }

    /// Waits for the end, and says which status it came with.
    pub(crate) async fn closed(&mut self) -> Option<CloseCode> {
        loop {
            match timeout(PATIENCE, self.socket.next()).await.expect("an end in time") {
                Some(Ok(Frame::Close(frame))) => return frame.map(|frame| frame.code),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }
}

pub(crate) const CONTACT: &str = "<sip:x7@browser.invalid;transport=ws>;expires=600;reg-id=1;\
    +sip.instance=\"<urn:uuid:11111111-2222-3333-4444-555555555555>\"";
