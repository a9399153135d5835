//! The way in from the edge: start, send, connect, open and close listeners, reload, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use base::{Event, Reason, limit};
use bytes::Bytes;
use sip::FlowId;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use crate::config::{Bounds, Ingress, TransportConfig};
use crate::connection::{Cause, Connections};
use crate::dial::{Dial, DialError, Dialling, Reached};
use crate::flow::{Flow, Inlet, Transport};
use crate::gate::Gate;
use crate::health::Health;
use crate::line::{Lines, LoadedLine};
use crate::listen;
use crate::resolve::Resolver;
use crate::task::Tasks;
use crate::tls::{CertificatesError, TlsStore};
use crate::udp::{UdpIngress, UdpSockets, is_datagram};
use crate::web::WebListener;

/// Why a message was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no such flow any more.
    #[error("the connection is gone")]
    Gone,
    /// The peer does not read as fast as we write: a stream is now being closed, a datagram was
    /// lost.
    #[error("the peer does not read")]
    QueueFull,
}

/// Why a listener was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// TLS without a certificate.
    #[error("a TLS listener needs a certificate")]
    NoCertificate,
    /// There are too many.
    #[error("more than {} listeners", limit::TRANSPORT_LISTENERS.value)]
    TooMany,
    /// The transport was drained.
    #[error("the transport has ended")]
    Ended,
    /// The source, or all together, have as many connections as they may.
    #[error("there are too many connections")]
    Full,
    /// The operating system refused.
    #[error("{0}")]
    Socket(#[from] io::Error),
}

/// Why the transport did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The TLS material cannot be used.
    #[error("{0}")]
    Certificates(#[from] CertificatesError),
    /// A listener was not opened.
    #[error("cannot listen on {} {}: {cause}", ingress.transport, ingress.address)]
    Open {
        /// Which.
        ingress: Ingress,
        /// Why.
        cause: OpenError,
    },
}

/// Starts the transport on the current tokio runtime: opens what `config` lists and hands what
/// arrives to `inlet`. It runs until [`TransportHandle::drain`], also without any handle.
///
/// # Errors
/// Where the TLS files or one of the listeners cannot be used; nothing is left open then.
pub async fn start(
    config: TransportConfig,
    inlet: Arc<dyn Inlet>,
) -> Result<TransportHandle, StartError> {
    let tls = config.tls.map(TlsStore::load).transpose()?;
    let health_inlet = Arc::clone(&inlet);
    let shared = Arc::new(Shared {
        connections: Arc::new(Connections::new(Arc::clone(&inlet), config.bounds.queue)),
        inlet,
        bounds: config.bounds,
        gate: Gate::new(config.bounds),
        udp: UdpSockets::default(),
        health: Health::new(Arc::clone(&health_inlet)),
        resolver: Arc::new(Resolver::new(config.names)),
        lines: ArcSwap::default(),
        tls,
        listeners: Mutex::default(),
        web: Mutex::default(),
        tasks: Tasks::new(Handle::current()),
        nobody: Arc::default(),
    });
    let handle = TransportHandle { shared };
    for ingress in config.listeners {
        if let Err(cause) = handle.open(ingress.transport, ingress.address) {
            handle.drain(Duration::ZERO).await;
            return Err(StartError::Open { ingress, cause });
        }
    }
    Ok(handle)
}

/// Reaches a running transport from anywhere. Nothing here blocks.
#[derive(Clone)]
pub struct TransportHandle {
    shared: Arc<Shared>,
}

impl TransportHandle {
    /// Sends one whole message.
    ///
    /// # Errors
    /// Where the flow is gone or its peer does not read. Success means queued, not delivered.
    pub fn send(&self, flow: FlowId, message: Bytes) -> Result<(), SendError> {
        if is_datagram(flow) {
            return self.shared.udp.send(flow, &message);
        }
        self.shared.connections.find(flow).ok_or(SendError::Gone)?.send(message)
    }

    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Dials a trunk. `answer` is called with the first target that takes a connection, and after
    /// each [`Dialling::failed`] with the next one, or with why there is none: at once where that
    /// needs no waiting, else from a task of the transport. It must not block. An error is the
    /// last answer.
    pub fn dial(
        &self,
        dial: Dial,
        answer: impl Fn(Result<Reached, DialError>) + Send + Sync + 'static,
    ) -> Dialling {
        Dialling::start(&self.shared, dial, answer)
    }

    /// Replaces how trunks are dialled. Connections that were opened under what still holds are
    /// used again.
    pub fn set_lines(&self, lines: Vec<LoadedLine>) {
        let tls = self.shared.tls.as_ref().map(TlsStore::current);
        let lines = Lines::open(lines, tls.as_deref());
        self.shared.health.set_routes(lines.routes());
        self.shared.lines.store(Arc::new(lines));
    }

    /// How trunks are, as far as calls have told.
    #[must_use]
    pub fn health(&self) -> Health {
        self.shared.health.clone()
    }

    /// Lets the connection that a peer opened serve for requests of ours to its `port`, as it asks
    /// for with `alias` in its Via (RFC 5923). Only a peer that proved itself by certificate may:
    /// for others this does nothing.
    pub fn alias(&self, flow: &Arc<Flow>, port: u16) {
        if flow.transport == Transport::Tls && !flow.outgoing && !flow.certificates.is_empty() {
            self.shared.connections.alias(flow, port);
        }
    }

    /// Reads the files that tell names and name servers again, and forgets what those said.
    pub fn reload_names(&self) {
        self.shared.resolver.reload();
    }

    /// Ends a connection after what is queued for it. UDP flows need no end.
    pub fn close(&self, flow: FlowId) {
        if let Some(connection) = self.shared.connections.find(flow) {
            connection.stop(Cause::Local);
        }
    }

    /// Opens a listener and returns its address; one that is open already stays as it is.
    ///
    /// # Errors
    /// Where the address cannot be bound, or TLS has no certificate.
    pub fn open(&self, transport: Transport, address: SocketAddr) -> Result<SocketAddr, OpenError> {
        let shared = &self.shared;
        let mut listeners = shared.listeners();
        if let Some(open) = listeners.iter().find(|open| open.is(transport, address)) {
            return Ok(open.local);
        }
        if listeners.len() >= limit::TRANSPORT_LISTENERS.get() {
            return Err(OpenError::TooMany);
        }
        let opened = listen::open(shared, Ingress { transport, address })?;
        let local = opened.local;
        listeners.push(opened);
        Ok(local)
    }

    /// Closes the listener that was opened for `address` or is bound to it; its connections stay.
    /// Returns whether there was one.
    pub fn close_listener(&self, transport: Transport, address: SocketAddr) -> bool {
        let mut listeners = self.shared.listeners();
        let found = listeners.iter().position(|open| open.is(transport, address));
        found.map(|index| listeners.swap_remove(index).close(&self.shared)).is_some()
    }

    /// What is listened on, with the addresses that port 0 became.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<Ingress> {
        let listeners = self.shared.listeners();
        let bound = |open: &OpenListener| Ingress { address: open.local, ..open.ingress };
        listeners.iter().map(bound).collect()
    }

    /// What is listened on, as it was asked for.
    #[must_use]
    pub fn listeners(&self) -> Vec<Ingress> {
        self.shared.listeners().iter().map(|open| open.ingress).collect()
    }

    /// Open and opening connections.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shared.connections.count()
    }

    /// Reads the TLS files again. New connections see the new certificate, open ones go on;
    /// where the files are bad, everything stays as it was. An event says which it was.
    ///
    /// # Errors
    /// Where the files are bad.
    pub fn reload_certificates(&self) -> Result<(), CertificatesError> {
        let store = self.shared.tls.as_ref().ok_or(CertificatesError::NotConfigured)?;
        let reloaded = store.reload();
        if reloaded.is_ok() {
            let lines = self.shared.lines.load().reopen(Some(&store.current()));
            self.shared.lines.store(Arc::new(lines));
        }
        self.shared.inlet.event(match reloaded {
            Ok(()) => Event::CertificatesReloaded {},
            Err(_) => Event::CertificatesRejected {},
        });
        reloaded
    }

    /// Ends the transport: stops listening, lets every connection send what is queued, and cuts
    /// those that have not finished after `patience`. Afterwards nothing of it runs.
    pub async fn drain(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let listeners: Vec<_> = self.shared.listeners().drain(..).collect();
        for listener in listeners {
            listener.close(&self.shared);
        }
        self.shared.web_listeners().drain(..).for_each(|web| web.task.abort());
        self.shared.connections.drain();
        self.shared.tasks.end(deadline).await;
    }
}

/// What the tasks of one transport share.
pub(crate) struct Shared {
    pub(crate) inlet: Arc<dyn Inlet>,
    pub(crate) bounds: Bounds,
    pub(crate) gate: Arc<Gate>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) udp: UdpSockets,
    pub(crate) health: Health,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) lines: ArcSwap<Lines>,
    pub(crate) tls: Option<TlsStore>,
    pub(crate) tasks: Tasks,
    /// The names of a peer without a certificate.
    pub(crate) nobody: Arc<[String]>,
    listeners: Mutex<Vec<OpenListener>>,
    web: Mutex<Vec<WebListener>>,
}

impl Shared {
    fn listeners(&self) -> std::sync::MutexGuard<'_, Vec<OpenListener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn web_listeners(&self) -> std::sync::MutexGuard<'_, Vec<WebListener>> {
        self.web.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reports a connection that ended before it had a flow, for a reason of the peer's.
    pub(crate) fn turned_away(&self, source: SocketAddr, transport: Transport, cause: Cause) {
        self.refused(transport, cause);
        let reason = match cause {
            Cause::Limit => Reason::ConnectionLimit,
            _ => Reason::HandshakeFailed,
        };
        self.inlet.turned_away(source, transport, reason);
    }

    /// Reports a connection that ended before it had a flow.
    pub(crate) fn refused(&self, transport: Transport, cause: Cause) {
        let event = Event::ConnectionClosed { transport: transport.word(), cause: cause.word() };
        self.inlet.event(event);
    }
}

/// A listener and the task that serves it.
#[derive(Debug)]
pub(crate) struct OpenListener {
    pub(crate) ingress: Ingress,
    pub(crate) local: SocketAddr,
    pub(crate) task: AbortHandle,
    pub(crate) udp: Option<Arc<UdpIngress>>,
}

impl OpenListener {
    fn is(&self, transport: Transport, address: SocketAddr) -> bool {
        self.ingress.transport == transport
            && (self.ingress.address == address || self.local == address)
    }

    fn close(self, shared: &Shared) {
        self.task.abort();
        if let Some(udp) = &self.udp {
            shared.udp.close(udp);
        }
    }
}
