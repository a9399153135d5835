//! The table of open streams: how others reach a connection's task, and the end of one, which is
//! reported exactly once whichever way it comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use base::Event;
use bytes::Bytes;
use sip::FlowId;
use tokio::sync::{mpsc, watch};

use crate::flow::{Inlet, Transport};
use crate::handle::SendError;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer closed it.
    Peer,
    /// Nothing was heard for too long.
    Idle,
    HandshakeTimeout,
    HandshakeFailed,
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
            Self::HandshakeTimeout => "handshake_timeout",
            Self::HandshakeFailed => "handshake_failed",
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
}

impl Connection {
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

    fn cause(&self) -> Option<Cause> {
        *self.stop.borrow()
    }
}

/// What makes two outgoing connections the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Dialled {
    pub(crate) transport: Transport,
    pub(crate) target: SocketAddr,
    pub(crate) server_name: Option<String>,
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

    /// Enters a connection that `dialled` says we open, or that was accepted.
    pub(crate) fn register(
        self: &Arc<Self>,
        transport: Transport,
        dialled: Option<Dialled>,
    ) -> (Registration, mpsc::Receiver<Bytes>) {
        let (queue, messages) = mpsc::channel(self.queue);
        let connection = Arc::new(Connection { queue, stop: watch::Sender::new(None) });
        let id = self.fresh_id();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.connections.insert(id, Arc::clone(&connection));
        if let Some(dialled) = &dialled {
            table.dialled.insert(dialled.clone(), id);
        }
        if *self.ending.borrow() {
            connection.stop(Cause::Drain);
        }
        drop(table);
        let connections = Arc::clone(self);
        (Registration { connections, id, transport, dialled, connection }, messages)
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

    /// The connection that was opened for the same target and is not yet told to stop.
    pub(crate) fn find_dialled(&self, dialled: &Dialled) -> Option<FlowId> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let id = table.dialled.get(dialled)?;
        let connection = table.connections.get(id)?;
        connection.cause().is_none().then_some(*id)
    }

    /// Tells every connection to stop, and those that are still to come.
    pub(crate) fn drain(&self) {
        // Under the lock, so that a connection is either in the table or sees the mark.
        let table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        self.ending.send_replace(true);
        table.connections.values().for_each(|connection| connection.stop(Cause::Drain));
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

    fn forget(&self, id: FlowId, dialled: Option<&Dialled>) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        table.connections.remove(&id);
        if let Some(dialled) = dialled
            && table.dialled.get(dialled) == Some(&id)
        {
            table.dialled.remove(dialled);
        }
    }
}

/// A connection's entry in the table. Dropping it takes the entry out and reports the end: the
/// connection's task owns it, so that this holds for a panic and an abort as well.
pub(crate) struct Registration {
    connections: Arc<Connections>,
    id: FlowId,
    transport: Transport,
    dialled: Option<Dialled>,
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
        self.connections.forget(self.id, self.dialled.as_ref());
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
}
