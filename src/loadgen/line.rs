//! One signalling connection (or UDP socket) that many calls share: messages out, and messages in
//! to the call whose Call-ID they have. `listen.rs` makes lines of the connections that others open
//! to us; on those, an INVITE of a new call rings a [`Doorbell`].

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use base::limit::{LOADGEN_QUEUE, SIP_MESSAGE_BYTES, TRANSPORT_HANDSHAKE_MS};
use bytes::Bytes;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use sip::{Frame, Framer, Message, Method, Name, Opened, PING, PONG, Request, Response, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::Transport;

/// Silence after which a keep-alive is sent (RFC 5626 section 4.4.1 has 95-120 s at most).
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long the last messages of a line may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Where lines lead.
#[derive(Clone)]
pub(crate) struct Far {
    pub(crate) address: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Far {
    /// A connection without TLS yet, and our address on it.
    async fn connect(&self, source: Option<IpAddr>) -> Result<(TcpStream, SocketAddr), OpenError> {
        let connecting = async {
            let Some(source) = source else { return TcpStream::connect(self.address).await };
            let socket = match self.address {
                SocketAddr::V4(_) => TcpSocket::new_v4()?,
                SocketAddr::V6(_) => TcpSocket::new_v6()?,
            };
            socket.bind((source, 0).into())?;
            socket.connect(self.address).await
        };
        let connecting = timeout(TRANSPORT_HANDSHAKE_MS.millis(), connecting);
        let connecting = connecting.await.map_err(|_| OpenError("connect.timeout"))?;
        let socket = connecting.map_err(|error| OpenError::of(&error))?;
        let local = socket.local_addr().map_err(|error| OpenError::of(&error))?;
        // Only a matter of speed.
        let _ = socket.set_nodelay(true);
        Ok((socket, local))
    }

    /// A connection with TLS, from this address or the one that the system chooses; and our
    /// address on it.
    pub(crate) async fn open(
        &self,
        source: Option<IpAddr>,
    ) -> Result<(TlsStream<TcpStream>, SocketAddr), OpenError> {
        let (config, name) = self.tls.as_ref().ok_or(OpenError("connect.tls_failed"))?;
        let (socket, local) = self.connect(source).await?;
        Ok((secure(socket, config, name).await?, local))
    }
}

async fn secure(
    socket: TcpStream,
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
) -> Result<TlsStream<TcpStream>, OpenError> {
    let handshake = TlsConnector::from(Arc::clone(config)).connect(name.clone(), socket);
    let stream = timeout(TRANSPORT_HANDSHAKE_MS.millis(), handshake).await;
    let stream = stream.map_err(|_| OpenError("connect.timeout"))?;
    stream.map_err(|error| OpenError::of_tls(&error))
}

/// The stable code of why no connection came about; the report counts by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenError(pub(crate) &'static str);

impl OpenError {
    fn of(error: &io::Error) -> Self {
        Self(match error.kind() {
            io::ErrorKind::ConnectionRefused => "connect.refused",
            io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof => "connect.reset",
            io::ErrorKind::TimedOut => "connect.timeout",
            io::ErrorKind::AddrNotAvailable => "connect.no_local_port",
            _ => "connect.failed",
        })
    }

    fn of_tls(error: &io::Error) -> Self {
        match error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(_)) => Self("connect.bad_certificate"),
            Some(_) => Self("connect.tls_failed"),
            None => Self::of(error),
        }
    }
}

/// The line does not take the message: it is closed, or the far end has stopped reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clogged;

pub(crate) enum Out {
    Message(Bytes),
    End(oneshot::Sender<()>),
}

#[derive(Default)]
pub(crate) struct Calls {
    is_closed: bool,
    /// Whether the calls belong to all lines of a listener, so that the end of one line ends none:
    /// a far end may go on with a call on another connection.
    is_of_listener: bool,
    inboxes: BTreeMap<String, mpsc::Sender<Message>>,
}

pub(crate) type Shared = Arc<Mutex<Calls>>;

/// The calls of a listener, empty.
pub(crate) fn calls_of_listener() -> Shared {
    Arc::new(Mutex::new(Calls { is_of_listener: true, ..Calls::default() }))
}

/// A call that begins on a line of a listener.
pub(crate) struct Arrival {
    /// The line that its answers take.
    pub(crate) line: Arc<Line>,
    /// Its INVITE.
    pub(crate) invite: Request,
    /// What follows.
    pub(crate) inbox: mpsc::Receiver<Message>,
}

/// Where new calls are told.
#[derive(Clone)]
pub(crate) struct Doorbell {
    /// Whom to tell.
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    /// The line that they come by.
    pub(crate) line: Weak<Line>,
}

/// Calls are added and removed in one step each, so that a panic elsewhere leaves nothing torn.
fn lock(calls: &Shared) -> MutexGuard<'_, Calls> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One line.
pub(crate) struct Line {
    out: mpsc::Sender<Out>,
    calls: Shared,
    local: SocketAddr,
    /// Ends with the line; a line of a shared socket has none of its own.
    reader: OnceLock<AbortHandle>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.get() {
            reader.abort();
        }
    }
}

impl Line {
    /// Connects.
    pub(crate) async fn open(far: &Far) -> Result<Self, OpenError> {
        if far.transport == Transport::Udp {
            return Self::open_udp(far.address).await.map_err(|error| OpenError::of(&error));
        }
        let (socket, local) = far.connect(None).await?;
        let Some((config, name)) = &far.tls else {
            return Ok(Self::run(socket, local, far.address));
        };
        Ok(Self::run(secure(socket, config, name).await?, local, far.address))
    }

    async fn open_udp(address: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(address).await?;
        let local = socket.local_addr()?;
        let (out, outbox) = mpsc::channel(LOADGEN_QUEUE.get());
        let calls = Shared::default();
        let socket = Arc::new(socket);
        let desk = Desk {
            calls: Arc::clone(&calls),
            out: out.downgrade(),
            source: address,
            doorbell: None,
        };
        let reader = tokio::spawn(read_datagrams(Arc::clone(&socket), desk)).abort_handle();
        tokio::spawn(write_datagrams(socket, None, outbox));
        Ok(Self { out, calls, local, reader: reader.into() })
    }

    fn run(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        local: SocketAddr,
        source: SocketAddr,
    ) -> Self {
        let (out, outbox) = mpsc::channel(LOADGEN_QUEUE.get());
        let calls = Shared::default();
        let (incoming, outgoing) = tokio::io::split(stream);
        let desk = Desk { calls: Arc::clone(&calls), out: out.downgrade(), source, doorbell: None };
        let reader = tokio::spawn(read_stream(incoming, Opened::ByUs, desk)).abort_handle();
        tokio::spawn(write_stream(outgoing, outbox, Arc::clone(&calls)));
        Self { out, calls, local, reader: reader.into() }
    }

    /// A line of a connection that `source` opened to us.
    pub(crate) fn accepted(
        stream: impl AsyncRead + AsyncWrite + Send + 'static,
        local: SocketAddr,
        source: SocketAddr,
        calls: &Shared,
        arrivals: mpsc::Sender<Arrival>,
    ) -> Arc<Self> {
        let (out, outbox) = mpsc::channel(LOADGEN_QUEUE.get());
        let (incoming, outgoing) = tokio::io::split(stream);
        tokio::spawn(write_stream(outgoing, outbox, Arc::clone(calls)));
        let weak = out.downgrade();
        let reader = OnceLock::new();
        let line = Arc::new(Self { out, calls: Arc::clone(calls), local, reader });
        let doorbell = Some(Doorbell { arrivals, line: Arc::downgrade(&line) });
        let desk = Desk { calls: Arc::clone(calls), out: weak, source, doorbell };
        // Only now, so that the first call finds its line.
        let reader = tokio::spawn(read_stream(incoming, Opened::ByPeer, desk)).abort_handle();
        line.reader.get_or_init(|| reader);
        line
    }

    /// A line to one peer of a datagram socket that hears many, and the desk for what it hears.
    pub(crate) fn of_peer(
        socket: &Arc<UdpSocket>,
        local: SocketAddr,
        source: SocketAddr,
        calls: &Shared,
        arrivals: mpsc::Sender<Arrival>,
    ) -> (Arc<Self>, Desk) {
        let (out, outbox) = mpsc::channel(LOADGEN_QUEUE.get());
        tokio::spawn(write_datagrams(Arc::clone(socket), Some(source), outbox));
        let weak = out.downgrade();
        let line = Arc::new(Self { out, calls: Arc::clone(calls), local, reader: OnceLock::new() });
        let doorbell = Some(Doorbell { arrivals, line: Arc::downgrade(&line) });
        (line, Desk { calls: Arc::clone(calls), out: weak, source, doorbell })
    }

    /// Our address on it.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Whether no more calls can use it.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.calls).is_closed
    }

    /// Whether nothing can be sent any more.
    pub(crate) fn is_gone(&self) -> bool {
        self.out.is_closed()
    }

    /// Has messages of this call delivered; the inbox ends when the line does.
    pub(crate) fn register(&self, call_id: &str) -> mpsc::Receiver<Message> {
        let (sender, inbox) = mpsc::channel(LOADGEN_QUEUE.get());
        let mut calls = lock(&self.calls);
        if !calls.is_closed {
            calls.inboxes.insert(call_id.to_owned(), sender);
        }
        inbox
    }

    /// Ends the delivery to a call.
    pub(crate) fn release(&self, call_id: &str) {
        lock(&self.calls).inboxes.remove(call_id);
    }

    /// Sends a message.
    pub(crate) fn send(&self, message: Bytes) -> Result<(), Clogged> {
        self.out.try_send(Out::Message(message)).map_err(|_| Clogged)
    }

    /// Waits until what was sent is on its way, and says goodbye.
    pub(crate) async fn close(&self) {
        let (done, ended) = oneshot::channel();
        let farewell = async {
            if self.out.send(Out::End(done)).await.is_ok() {
                // An error means that the writer has ended already.
                let _ = ended.await;
            }
        };
        let _ = timeout(FAREWELL, farewell).await;
    }
}

fn close(calls: &Shared) {
    let mut calls = lock(calls);
    if calls.is_of_listener {
        return;
    }
    calls.is_closed = true;
    calls.inboxes.clear();
}

/// Sorts what arrives.
pub(crate) struct Desk {
    calls: Shared,
    out: mpsc::WeakSender<Out>,
    source: SocketAddr,
    doorbell: Option<Doorbell>,
}

impl Desk {
    pub(crate) fn deliver(&self, mut message: Message) {
        if let Message::Request(request) = &mut message {
            request.stamp_source(self.source);
        }
        let inbox = message
            .headers()
            .call_id()
            .ok()
            .and_then(|call_id| lock(&self.calls).inboxes.get(call_id).cloned());
        match (inbox, message) {
            // A call that does not keep up loses messages as on a lossy network; its transactions
            // repeat or time out.
            (Some(inbox), message) => drop(inbox.try_send(message)),
            (None, Message::Request(request)) if request.method != Method::Ack => {
                let Some(request) = self.ring(request) else { return };
                let status = match request.method {
                    Method::Options => Status::OK,
                    _ => Status::CALL_DOES_NOT_EXIST,
                };
                let mut response = Response::to(&request, status, Some("load"));
                response.headers.push(Name::Accept, "application/sdp");
                self.send(response.to_bytes());
            }
            (None, _) => {}
        }
    }

    /// Tells of a new call; gives back what is none, or what nobody takes.
    fn ring(&self, request: Request) -> Option<Request> {
        let Some(doorbell) = &self.doorbell else { return Some(request) };
        let is_new = request.method == Method::Invite && request.headers.to_tag().is_none();
        let call_id = request.headers.call_id().ok().filter(|_| is_new).map(str::to_owned);
        let (Some(call_id), Some(line)) = (call_id, doorbell.line.upgrade()) else {
            return Some(request);
        };
        let (sender, inbox) = mpsc::channel(LOADGEN_QUEUE.get());
        lock(&self.calls).inboxes.insert(call_id.clone(), sender);
        match doorbell.arrivals.try_send(Arrival { line, invite: request, inbox }) {
            Ok(()) => None,
            Err(refused) => {
                lock(&self.calls).inboxes.remove(&call_id);
                let request = refused.into_inner().invite;
                let busy = Response::to(&request, Status::SERVICE_UNAVAILABLE, Some("load"));
                self.send(busy.to_bytes());
                None
            }
        }
    }

    fn send(&self, bytes: Bytes) {
        if let Some(out) = self.out.upgrade() {
            // A full queue means that the far end does not read; it then has no use for this.
            let _ = out.try_send(Out::Message(bytes));
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        close(&self.calls);
    }
}

async fn read_stream(mut stream: impl AsyncRead + Unpin, opened: Opened, desk: Desk) {
    let mut framer = Framer::new(opened);
    let mut buffer = vec![0; 16_384];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        framer.push(&buffer[..read]);
        loop {
            match framer.poll_message() {
                Ok(Some(Frame::Message(bytes))) => {
                    if let Ok(message) = sip::parse::stream(&bytes) {
                        desk.deliver(message);
                    }
                }
                Ok(Some(Frame::Ping)) => desk.send(Bytes::from_static(PONG)),
                Ok(Some(Frame::Pong)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}

async fn read_datagrams(socket: Arc<UdpSocket>, desk: Desk) {
    let mut buffer = vec![0; SIP_MESSAGE_BYTES.get()];
    // An error is an ICMP message: nobody listens there.
    while let Ok(read) = socket.recv(&mut buffer).await {
        let bytes = Bytes::copy_from_slice(&buffer[..read]);
        if let Ok(message) = sip::parse::datagram(&bytes) {
            desk.deliver(message);
        }
    }
}

async fn write_stream(
    mut stream: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<Out>,
    calls: Shared,
) {
    let mut end = None;
    loop {
        let bytes = match timeout(KEEP_ALIVE, outbox.recv()).await {
            Ok(Some(Out::Message(bytes))) => bytes,
            Ok(Some(Out::End(done))) => {
                end = Some(done);
                break;
            }
            Ok(None) => break,
            Err(_) => Bytes::from_static(PING),
        };
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    close(&calls);
    // The far end may be gone already.
    let _ = stream.shutdown().await;
    drop(end);
}

async fn write_datagrams(
    socket: Arc<UdpSocket>,
    to: Option<SocketAddr>,
    mut outbox: mpsc::Receiver<Out>,
) {
    while let Some(Out::Message(bytes)) = outbox.recv().await {
        // What the network does not take is repeated by its transaction.
        let _ = match to {
            Some(to) => socket.send_to(&bytes, to).await,
            None => socket.send(&bytes).await,
        };
    }
}
