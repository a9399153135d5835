//! Carried connections: flows whose messages somebody else reads and writes, such as a WebSocket
//! or a WHIP session of the HTTP member. For everybody behind the [`Inlet`] they are streams like
//! any other: an id of their own, a bounded queue of what is sent, an end that is told once.

use std::net::SocketAddr;
use std::sync::Arc;

use base::{Event, Reason};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::connection::{Cause, Registration};
use crate::flow::{Flow, HandedOn, Inlet, Transport};
use crate::gate::Place;
use crate::handle::{OpenError, Shared, TransportHandle};
use crate::task::{contained, contained_call};

/// Whom a carried connection is with.
#[derive(Clone, Copy, Debug)]
pub struct CarriedPeer {
    /// What carries it: [`Transport::Wss`] or [`Transport::Whip`].
    pub transport: Transport,
    /// The peer's address as seen here.
    pub source: SocketAddr,
    /// Our address of it.
    pub local: SocketAddr,
}

impl TransportHandle {
    /// Enters a connection that the caller carries. It is open until the [`Carried`] is dropped.
    ///
    /// A WHIP session takes a place of its source's, as a browser's connection does; a WebSocket
    /// has that of the connection below it.
    ///
    /// # Errors
    /// Where the source or all together have enough, or the transport was drained.
    pub fn carry(&self, peer: CarriedPeer) -> Result<Carried, OpenError> {
        let CarriedPeer { transport, source, local } = peer;
        let shared = self.shared();
        if shared.connections.is_draining() {
            return Err(OpenError::Ended);
        }
        let place = match transport {
            Transport::Whip => match shared.gate.browser(source.ip()) {
                None => {
                    shared.turned_away(source, transport, Cause::Limit);
                    return Err(OpenError::Full);
                }
                place => place,
            },
            Transport::Udp | Transport::Tcp | Transport::Tls | Transport::Wss => None,
        };
        let (registration, queue) = shared.connections.register(transport);
        shared
            .inlet
            .event(Event::ConnectionOpened { transport: transport.word(), outgoing: false });
        let flow = Arc::new(Flow {
            id: registration.id(),
            transport,
            source,
            local,
            certificates: Arc::clone(&shared.nobody),
            outgoing: false,
            reusable: false,
        });
        registration.connection().is_up_as(&flow);
        let shared = Arc::clone(shared);
        Ok(Carried { shared, flow, registration, queue, _place: place })
    }
}

/// A carried connection. Dropping it ends the flow, which the [`Inlet`] is told.
pub struct Carried {
    shared: Arc<Shared>,
    flow: Arc<Flow>,
    registration: Registration,
    queue: mpsc::Receiver<Bytes>,
    _place: Option<Place>,
}

impl Carried {
    /// Its flow; `certificates` is empty.
    #[must_use]
    pub const fn flow(&self) -> &Arc<Flow> {
        &self.flow
    }

    /// Hands on one whole SIP message, which has Content-Length. `Some` where it has to wait: the
    /// next one may follow when that has ended. A fault behind the inlet ends this connection
    /// alone.
    pub fn deliver(&self, message: Bytes) -> Option<HandedOn> {
        let inlet: &dyn Inlet = &*self.shared.inlet;
        let connection = Arc::clone(self.registration.connection());
        connection.hear(false);
        let handed = contained_call(|| {
            inlet.takes(&self.flow).then(|| inlet.message(&self.flow, message)).flatten()
        });
        let Some(handed) = handed else {
            connection.stop(Cause::Panic);
            return None;
        };
        let waiting = handed?;
        Some(Box::pin(async move {
            if contained(waiting).await.is_none() {
                connection.stop(Cause::Panic);
            }
        }))
    }

    /// The next message for the peer; `None` once the connection was told to end and nothing is
    /// left to send. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        let connection = Arc::clone(self.registration.connection());
        loop {
            tokio::select! {
                biased;
                message = self.queue.recv() => return message,
                _ = connection.stopped(), if !self.queue.is_closed() => self.queue.close(),
            }
        }
    }

    /// Waits until the connection is told to end: by the calls, by a drain, by a full queue or by
    /// a fault.
    pub async fn ended(&self) {
        self.registration.connection().stopped().await;
    }

    /// The peer has said that it is gone for good ([`Inlet::left`]); dropping this is to follow.
    pub fn peer_left(&self) {
        let inlet: &dyn Inlet = &*self.shared.inlet;
        if contained_call(|| inlet.left(self.flow.id)).is_none() {
            self.registration.connection().stop(Cause::Panic);
        }
    }

    /// Says that the carrier gives the connection up for a reason of its own, before it drops it.
    pub fn give_up(&self, reason: Reason) {
        self.registration.connection().stop(match reason {
            Reason::Malformed => Cause::Malformed,
            Reason::Draining => Cause::Drain,
            Reason::Flood => Cause::Limit,
            _ => Cause::Local,
        });
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        // Where nobody gave another cause, the peer has gone.
        self.registration.connection().stop(Cause::Peer);
    }
}
