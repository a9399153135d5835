//! Streams that speak something else than SIP: the HTTPS port of browsers and the plaintext port
//! that leads to it. Accepting, the gate, TLS and the certificate are those of SIP over TLS; what
//! is spoken is the business of whoever gives a [`Streams`].

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;

use base::Event;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tokio_rustls::server::TlsStream;

use crate::connection::Cause;
use crate::flow::Transport;
use crate::gate::Place;
use crate::handle::{OpenError, Shared, TransportHandle};
use crate::listen::{PAUSE_AFTER_ERROR, bind, reset, secured, tune};
use crate::task::{contained, contained_call};

/// What serves streams; one task each.
pub trait Streams: Send + Sync + 'static {
    /// Serves one stream to its end. A panic ends that stream alone.
    fn serve(&self, stream: WebStream) -> Serving;
}

/// Ends when a stream has been served.
pub type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether a web listener speaks TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    /// In plaintext.
    Http,
    /// Under TLS 1.2 or 1.3, with ALPN `http/1.1` and without asking for a client's certificate,
    /// which browsers would ask people about.
    Https,
}

impl Web {
    const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl TransportHandle {
    /// Opens a web listener and returns its address; one that is open already stays as it is.
    ///
    /// # Errors
    /// Where the address cannot be bound, or TLS has no certificate.
    pub fn open_web(
        &self,
        web: Web,
        address: SocketAddr,
        streams: Arc<dyn Streams>,
    ) -> Result<SocketAddr, OpenError> {
        let shared = self.shared();
        if web == Web::Https && shared.tls.is_none() {
            return Err(OpenError::NoCertificate);
        }
        let mut listeners = shared.web_listeners();
        if let Some(open) = listeners.iter().find(|it| it.is(web, address)) {
            return Ok(open.local);
        }
        let _runtime = shared.tasks.runtime().enter();
        let listener = TcpListener::from_std(bind(Transport::Tcp, address)?.into())?;
        let local = listener.local_addr()?;
        let task = shared.tasks.spawn(accept(Arc::clone(shared), listener, web, streams));
        let task = task.ok_or(OpenError::Ended)?;
        listeners.push(WebListener { web, asked: address, local, task });
        Ok(local)
    }
}

/// A web listener and the task that serves it.
#[derive(Debug)]
pub(crate) struct WebListener {
    web: Web,
    asked: SocketAddr,
    local: SocketAddr,
    pub(crate) task: AbortHandle,
}

impl WebListener {
    fn is(&self, web: Web, address: SocketAddr) -> bool {
        self.web == web && (self.asked == address || self.local == address)
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, web: Web, streams: Arc<dyn Streams>) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                if contained_call(|| admit(&shared, stream, source, web, &streams)).is_none() {
                    closed(&shared, web, Cause::Panic);
                }
            }
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
    }
}

/// Decides about a fresh connection without waiting for anything, and starts its task.
fn admit(
    shared: &Arc<Shared>,
    stream: TcpStream,
    source: SocketAddr,
    web: Web,
    streams: &Arc<dyn Streams>,
) {
    let Ok(local) = stream.local_addr() else { return closed(shared, web, Cause::Error) };
    // The same door as for SIP: whom it keeps out by address, it keeps out here.
    if !shared.inlet.admits(source, local, Transport::Wss) {
        return reset(stream);
    }
    let place = shared.gate.browser(source.ip());
    let handshake = shared.gate.handshake(source.ip());
    let (Some(place), Some(handshake)) = (place, handshake) else {
        shared.turned_away(source, Transport::Wss, Cause::Limit);
        return reset(stream);
    };
    let (shared, streams) = (Arc::clone(shared), Arc::clone(streams));
    let tasks = Arc::clone(&shared);
    tasks.tasks.spawn(async move {
        if tune(&stream).is_err() {
            return closed(&shared, web, Cause::Error);
        }
        let inner = match (web, &shared.tls) {
            (Web::Http, _) => Inner::Plain(stream),
            (Web::Https, None) => return closed(&shared, web, Cause::Error),
            (Web::Https, Some(store)) => {
                let config = Arc::clone(&store.current().web);
                match secured(&shared, config, stream, source, Transport::Wss).await {
                    Some(stream) => Inner::Tls(Box::new(stream)),
                    None => return,
                }
            }
        };
        drop(handshake);
        let transport = web.word();
        shared.inlet.event(Event::ConnectionOpened { transport, outgoing: false });
        let open = Open { shared: Arc::clone(&shared), web, _place: place };
        let stream = WebStream { inner, source, local, _open: open };
        // What the panicking task held is dropped, its stream among it.
        let _ = contained(async move { streams.serve(stream).await }).await;
    });
}

fn closed(shared: &Shared, web: Web, cause: Cause) {
    let event = Event::ConnectionClosed { transport: web.word(), cause: cause.word() };
    shared.inlet.event(event);
}

/// An accepted stream. It holds its source's place until it is dropped, whoever has it then.
pub struct WebStream {
    inner: Inner,
    source: SocketAddr,
    local: SocketAddr,
    _open: Open,
}

impl WebStream {
    /// The peer's address as seen here.
    #[must_use]
    pub const fn source(&self) -> SocketAddr {
        self.source
    }

    /// Our address of it.
    #[must_use]
    pub const fn local(&self) -> SocketAddr {
        self.local
    }
}

impl fmt::Debug for WebStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebStream")
    }
}

enum Inner {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Tells the end of a stream.
struct Open {
    shared: Arc<Shared>,
    web: Web,
    _place: Place,
}

impl Drop for Open {
    fn drop(&mut self) {
        closed(&self.shared, self.web, Cause::Peer);
    }
}

impl AsyncRead for WebStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Inner::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for WebStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Inner::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Inner::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Inner::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Inner::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
