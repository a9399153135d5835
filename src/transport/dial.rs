//! Connections that we open, by address: finding it out (RFC 3263) is not done here.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base::Event;
use bytes::Bytes;
use rustls_pki_types::ServerName;
use sip::FlowId;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connection::{Cause, Dialled, Registration};
use crate::flow::Transport;
use crate::handle::Shared;
use crate::listen::tune;
use crate::stream::{self, Peer};
use crate::task::contained;
use crate::tls;

/// The flow to `target`, which may still have to come up.
pub(crate) fn connect(
    shared: &Arc<Shared>,
    target: SocketAddr,
    transport: Transport,
    server_name: Option<&str>,
) -> FlowId {
    if transport == Transport::Udp
        && let Some(flow) = shared.udp.flow_to(target)
    {
        return flow;
    }
    let dialled = Dialled { transport, target, server_name: server_name.map(str::to_owned) };
    if let Some(flow) = shared.connections.find_dialled(&dialled) {
        return flow;
    }
    if shared.tasks.have_ended() {
        return shared.connections.fresh_id();
    }
    let (registration, queue) = shared.connections.register(transport, Some(dialled.clone()));
    let flow = registration.id();
    let shared_by_task = Arc::clone(shared);
    shared.tasks.spawn(dial(shared_by_task, dialled, registration, queue));
    flow
}

async fn dial(
    shared: Arc<Shared>,
    dialled: Dialled,
    registration: Registration,
    queue: mpsc::Receiver<Bytes>,
) {
    let Some(place) = shared.gate.connection(dialled.target.ip()) else {
        return registration.end(Cause::Limit);
    };
    let connection = Arc::clone(registration.connection());
    let dialling = contained(timeout(shared.bounds.handshake, open(&shared, &dialled)));
    let dialling = tokio::select! {
        dialling = dialling => dialling,
        cause = connection.stopped() => return registration.end(cause),
    };
    let opened = match dialling {
        Some(Ok(Ok(opened))) => opened,
        Some(Ok(Err(cause))) => return registration.end(cause),
        Some(Err(_)) => return registration.end(Cause::HandshakeTimeout),
        None => return registration.end(Cause::Panic),
    };
    let transport = dialled.transport.word();
    shared.inlet.event(Event::ConnectionOpened { transport, outgoing: true });
    match opened {
        Opened::Tcp(stream, peer) => stream::run(&shared, stream, peer, registration, queue).await,
        Opened::Tls(stream, peer) => stream::run(&shared, stream, peer, registration, queue).await,
    }
    drop(place);
}

enum Opened {
    Tcp(TcpStream, Peer),
    Tls(Box<TlsStream<TcpStream>>, Peer),
}

async fn open(shared: &Shared, dialled: &Dialled) -> Result<Opened, Cause> {
    let failed = |_: io::Error| Cause::Error;
    let Dialled { transport, target, server_name } = dialled;
    if *transport == Transport::Udp {
        return Err(Cause::Error); // there is no socket of this family
    }
    let stream = TcpStream::connect(target).await.map_err(failed)?;
    tune(&stream).map_err(failed)?;
    let local = stream.local_addr().map_err(failed)?;
    let certificates = Arc::clone(&shared.nobody);
    let peer = Peer { transport: *transport, source: *target, local, certificates, outgoing: true };
    if *transport != Transport::Tls {
        return Ok(Opened::Tcp(stream, peer));
    }
    let client = shared.tls.as_ref().and_then(|store| store.current().client.clone());
    let name = match server_name {
        Some(name) => ServerName::try_from(name.clone()).map_err(|_| Cause::HandshakeFailed)?,
        None => ServerName::IpAddress(target.ip().into()),
    };
    let connector = TlsConnector::from(client.ok_or(Cause::HandshakeFailed)?);
    let stream = connector.connect(name, stream).await.map_err(|_| Cause::HandshakeFailed)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let certificates = chain.first().map(tls::names_in).unwrap_or_default();
    Ok(Opened::Tls(Box::new(stream), Peer { certificates, ..peer }))
}
