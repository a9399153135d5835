//! The table of open streams: how others reach a connection's task, and the end of one, which is
//! reported exactly once whichever way it comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base::{Event, TrunkName, limit};
use bytes::Bytes;
use sip::FlowId;
use tokio::sync::{mpsc, watch};

use crate::flow::{Flow, Inlet, Transport};
use crate::handle::SendError;
use crate::proof::{Wanted, names_prove};

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer closed it.
    Peer,
    /// Nothing was heard for too long.
    Idle,
    /// A peer that answers keep-alives left one without an answer.
    NoPong,
    HandshakeTimeout,
    HandshakeFailed,
    /// The server's certificate does not prove who it should be.
    Untrusted,
    /// The server does not take our certificate.
    Unwelcome,
    /// A message took too long to arrive, or one of ours to leave.
    SlowMessage,
    Malformed,
    /// There are too many connections.
    Limit,
    /// The peer does not read: its queue was full.
    QueueFull,
    /// The network failed, or a connection could not be made.
    Error,
    /// The edge asked for it.
    Local,
    Panic,
    Drain,
}

impl Cause {
    /// The word in events.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Idle => "idle",
            Self::NoPong => "no_pong",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
            Self::Untrusted => "untrusted",
            Self::Unwelcome => "certificate_refused",
            Self::SlowMessage => "slow_message",
            Self::Malformed => "malformed",
            Self::Limit | Self::QueueFull => "limit",
            Self::Error => "error",
            Self::Local => "local",
            Self::Panic => "panic",
            Self::Drain => "drain",
        }
    }
}

/// What others hold of a connection.
#[derive(Debug)]
pub(crate) struct Connection {
    queue: mpsc::Sender<Bytes>,
    stop: watch::Sender<Option<Cause>>,
    /// Set once it is up.
    up: watch::Sender<Option<Arc<Flow>>>,
    /// Those who wait for it to come up.
    wanted_by: AtomicUsize,
    /// Times that something was heard of the peer.
    heard: AtomicU64,
    /// Whether it has answered a keep-alive.
    has_ponged: AtomicBool,
}

impl Connection {
    fn new(queue: mpsc::Sender<Bytes>) -> Arc<Self> {
        Arc::new(Self {
            queue,
            stop: watch::Sender::new(None),
            up: watch::Sender::new(None),
            wanted_by: AtomicUsize::new(0),
            heard: AtomicU64::new(0),
            has_ponged: AtomicBool::new(false),
        })
    }

    /// It is up from now on.
    pub(crate) fn is_up_as(&self, flow: &Arc<Flow>) {
        self.up.send_replace(Some(Arc::clone(flow)));
    }

    /// Something was heard of the peer, perhaps the answer to a keep-alive.
    pub(crate) fn hear(&self, is_pong: bool) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        if is_pong {
            self.has_ponged.store(true, Ordering::Relaxed);
        }
    }

    /// A number that changes whenever something is heard.
    pub(crate) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Whether silence after a keep-alive means that the peer is gone.
    pub(crate) fn has_ponged(&self) -> bool {
        self.has_ponged.load(Ordering::Relaxed)
    }

    /// Queues a message. A full queue means that the peer has stopped reading: that ends the
    /// connection.
    pub(crate) fn send(&self, message: Bytes) -> Result<(), SendError> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => SendError::Gone,
            mpsc::error::TrySendError::Full(_) => {
                self.stop(Cause::QueueFull);
                SendError::QueueFull
            }
        })
    }

    /// Ends the connection after what is queued; the first cause counts.
    pub(crate) fn stop(&self, cause: Cause) {
        self.stop.send_if_modified(|current| {
            let is_first = current.is_none();
            current.get_or_insert(cause);
            is_first
        });
    }

    /// Waits until the connection is told to stop.
    pub(crate) async fn stopped(&self) -> Cause {
        let mut watching = self.stop.subscribe();
        match watching.wait_for(Option::is_some).await {
            Ok(cause) => cause.unwrap_or(Cause::Local),
            Err(_) => Cause::Local, // the sender is in `self`
        }
    }

    /// Why it ends or has ended.
    pub(crate) fn cause(&self) -> Option<Cause> {
        *self.stop.borrow()
    }
}

/// What makes two outgoing connections the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dialled {
    pub(crate) transport: Transport,
    pub(crate) target: SocketAddr,
    /// Of ours, that it belongs to.
    pub(crate) listener: Option<SocketAddr>,
    /// Over TLS, whom the peer must prove to be.
    pub(crate) wanted: Option<Wanted>,
    /// Over TLS, who is believed and what we show; a hash.
    pub(crate) proof: [u8; 32],
}

/// Somebody's wish for an outgoing connection. One that nobody wishes for before it is up is given
/// up.
pub(crate) struct Wish {
    connection: Arc<Connection>,
}

impl Wish {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.wanted_by.fetch_add(1, Ordering::Relaxed);
        Self { connection: Arc::clone(connection) }
    }

    /// Waits until the connection is up or has failed.
    pub(crate) async fn fulfilled(&self) -> Result<Arc<Flow>, Cause> {
        let mut watching = self.connection.up.subscribe();
        tokio::select! {
            biased;
            cause = self.connection.stopped() => Err(cause),
            up = watching.wait_for(Option::is_some) => match up {
                Ok(flow) => flow.clone().ok_or(Cause::Error),
                Err(_) => Err(Cause::Error), // the sender is in `self`
            },
        }
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        let was_last = self.connection.wanted_by.fetch_sub(1, Ordering::Relaxed) == 1;
        if was_last && self.connection.up.borrow().is_none() {
            self.connection.stop(Cause::Local);
        }
    }
}

/// The answer to a wish.
pub(crate) enum Joined {
    /// The connection exists, or is being made.
    There(Wish),
    /// It is to be made: by whoever gets this.
    New(Wish, Registration, mpsc::Receiver<Bytes>),
    /// The trunk has enough.
    Full,
}

/// Every open or opening stream.
pub(crate) struct Connections {
    inlet: Arc<dyn Inlet>,
    queue: usize,
    next: AtomicU64,
    table: RwLock<Table>,
    ending: watch::Sender<bool>,
}

impl Connections {
    /// An empty table, whose connections queue at most `queue` messages each.
    pub(crate) fn new(inlet: Arc<dyn Inlet>, queue: usize) -> Self {
        Self {
            inlet,
            queue: queue.max(1),
            next: AtomicU64::new(1),
            table: RwLock::default(),
            ending: watch::Sender::new(false),
        }
    }

    /// Enters a connection that was accepted.
    pub(crate) fn register(
        self: &Arc<Self>,
        transport: Transport,
    ) -> (Registration, mpsc::Receiver<Bytes>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        self.enter(&mut table, transport, None)
    }

    /// Wishes for a connection that we open: the one that exists, or a new one, of which `trunk`
    /// may have at most `most`.
    pub(crate) fn join(
        self: &Arc<Self>,
        dialled: &Dialled,
        trunk: Option<&TrunkName>,
        most: usize,
    ) -> Joined {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = table.dialled.get(dialled)
            && let Some(connection) = table.connections.get(id)
            && connection.cause().is_none()
        {
            return Joined::There(Wish::new(connection));
        }
        if let Some(trunk) = trunk {
            let count = table.of_trunk.entry(trunk.clone()).or_default();
            if *count >= most {
                return Joined::Full;
            }
            *count += 1;
        }
        let opened = Some((dialled.clone(), trunk.cloned()));
        let (registration, messages) = self.enter(&mut table, dialled.transport, opened);
        let wish = Wish::new(&registration.connection);
        Joined::New(wish, registration, messages)
    }

    fn enter(
        self: &Arc<Self>,
        table: &mut Table,
        transport: Transport,
        opened: Option<(Dialled, Option<TrunkName>)>,
    ) -> (Registration, mpsc::Receiver<Bytes>) {
        let (queue, messages) = mpsc::channel(self.queue);
        let connection = Connection::new(queue);
        let id = self.fresh_id();
        table.connections.insert(id, Arc::clone(&connection));
        if let Some((dialled, _)) = &opened {
            table.dialled.insert(dialled.clone(), id);
        }
        if *self.ending.borrow() {
            connection.stop(Cause::Drain);
        }
        let connections = Arc::clone(self);
        (Registration { connections, id, transport, opened, connection }, messages)
    }

    /// The flow of a connection that is up and was dialled the same way.
    pub(crate) fn find_up(&self, dialled: &Dialled) -> Option<Arc<Flow>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let connection = table.connections.get(table.dialled.get(dialled)?)?;
        let flow = connection.up.borrow().clone();
        flow.filter(|_| connection.cause().is_none())
    }

    /// Lets an incoming connection serve for requests of ours to the peer's `port` (RFC 5923).
    pub(crate) fn alias(&self, flow: &Arc<Flow>, port: u16) {
        // Every request of the peer's asks for it.
        if self.table.read().is_ok_and(|table| table.alias_of.contains_key(&flow.id)) {
            return;
        }
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let at = SocketAddr::new(flow.source.ip(), port);
        let is_open = table.connections.contains_key(&flow.id);
        let has_room = table.aliases.len() < limit::TRANSPORT_ALIASES.get();
        // One each, so that nobody fills the table alone.
        if is_open && has_room && !table.alias_of.contains_key(&flow.id) {
            table.alias_of.insert(flow.id, at);
            table.aliases.insert(at, Arc::clone(flow));
        }
    }

    /// An incoming connection of whom `wanted` names, if it may serve and came to the same side.
    pub(crate) fn find_alias(&self, dialled: &Dialled) -> Option<Arc<Flow>> {
        let wanted = dialled.wanted.as_ref()?;
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let flow = table.aliases.get(&dialled.target)?;
        let is_open = table.connections.get(&flow.id).is_some_and(|it| it.cause().is_none());
        let is_here = dialled.listener.is_none_or(|listener| {
            listener.port() == flow.local.port()
                && (listener.ip().is_unspecified() || listener.ip() == flow.local.ip())
        });
        let is_proved = names_prove(&flow.certificates, &wanted.host);
        (is_open && is_here && is_proved).then(|| Arc::clone(flow))
    }

    /// An id that no connection has. The top bit tells datagram flows; 2^63 connections do not
    /// happen.
    pub(crate) fn fresh_id(&self) -> FlowId {
        FlowId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn find(&self, id: FlowId) -> Option<Arc<Connection>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.connections.get(&id).cloned()
    }

    /// Tells every connection to stop, and those that are still to come.
    pub(crate) fn drain(&self) {
        // Under the lock, so that a connection is either in the table or sees the mark.
        let table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        self.ending.send_replace(true);
        table.connections.values().for_each(|connection| connection.stop(Cause::Drain));
    }

    /// Whether the transport drains.
    pub(crate) fn is_draining(&self) -> bool {
        *self.ending.borrow()
    }

    /// Waits until the transport drains.
    pub(crate) async fn draining(&self) {
        // The sender is in `self`, so that waiting cannot fail.
        let _ = self.ending.subscribe().wait_for(|ending| *ending).await;
    }

    /// Open and opening connections.
    pub(crate) fn count(&self) -> usize {
        self.table.read().unwrap_or_else(PoisonError::into_inner).connections.len()
    }

    fn forget(&self, id: FlowId, opened: Option<&(Dialled, Option<TrunkName>)>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.connections.remove(&id);
        if let Some(at) = table.alias_of.remove(&id)
            && table.aliases.get(&at).is_some_and(|flow| flow.id == id)
        {
            table.aliases.remove(&at);
        }
        let Some((dialled, trunk)) = opened else { return };
        if table.dialled.get(dialled) == Some(&id) {
            table.dialled.remove(dialled);
        }
        let Some(trunk) = trunk else { return };
        if let Some(count) = table.of_trunk.get_mut(trunk) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                table.of_trunk.remove(trunk);
            }
        }
    }
}

/// A connection's entry in the table. Dropping it takes the entry out and reports the end: the
/// connection's task owns it, so that this holds for a panic and an abort as well.
pub(crate) struct Registration {
    connections: Arc<Connections>,
    id: FlowId,
    transport: Transport,
    /// Of one that we open: how, and for whom.
    opened: Option<(Dialled, Option<TrunkName>)>,
    connection: Arc<Connection>,
}

impl Registration {
    pub(crate) const fn id(&self) -> FlowId {
        self.id
    }

    pub(crate) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Ends it with `cause`, unless something else ended it before.
    pub(crate) fn end(self, cause: Cause) {
        self.connection.stop(cause);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.connection.stop(Cause::Drain); // no other cause: the task was aborted
        self.connections.forget(self.id, self.opened.as_ref());
        let cause = self.connection.cause().unwrap_or(Cause::Drain);
        let transport = self.transport.word();
        if cause == Cause::QueueFull {
            self.connections.inlet.event(Event::QueueFull { queue: "transport.write" });
        }
        self.connections.inlet.event(Event::ConnectionClosed { transport, cause: cause.word() });
        self.connections.inlet.closed(self.id);
    }
}

#[derive(Debug, Default)]
struct Table {
    connections: HashMap<FlowId, Arc<Connection>>,
    dialled: HashMap<Dialled, FlowId>,
    /// How many connections each trunk made us open.
    of_trunk: HashMap<TrunkName, usize>,
    /// Incoming connections by the address that their peers would be called at.
    aliases: HashMap<SocketAddr, Arc<Flow>>,
    alias_of: HashMap<FlowId, SocketAddr>,
}
