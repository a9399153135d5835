//! Listeners: sockets as we want them, and what happens at accept, in the order of its cost:
//! may this peer talk to us, has it a place, TLS, then messages.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use base::{Event, limit};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{Duration, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::Ingress;
use crate::connection::Cause;
use crate::flow::Transport;
use crate::gate::Place;
use crate::handle::{OpenError, OpenListener, Shared};
use crate::stream::{self, Peer};
use crate::task::{contained, contained_call};

/// Pause after a failed accept: the usual cause, no free file, does not pass at once.
pub(crate) const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

/// Opens a listener and starts its task.
pub(crate) fn open(shared: &Arc<Shared>, ingress: Ingress) -> Result<OpenListener, OpenError> {
    let Ingress { transport, address } = ingress;
    if transport == Transport::Tls && shared.tls.is_none() {
        return Err(OpenError::NoCertificate);
    }
    let _runtime = shared.tasks.runtime().enter();
    let socket = bind(transport, address)?;
    if transport == Transport::Udp {
        let udp = shared.udp.open(UdpSocket::from_std(socket.into())?)?;
        let (local, receiving, for_task) = (udp.local(), Arc::clone(&udp), Arc::clone(shared));
        let task = shared.tasks.spawn(async move {
            receiving.receive(&*for_task.inlet, &for_task.nobody).await;
        });
        let Some(task) = task else {
            shared.udp.close(&udp);
            return Err(OpenError::Ended);
        };
        return Ok(OpenListener { ingress, local, task, udp: Some(udp) });
    }
    let listener = TcpListener::from_std(socket.into())?;
    let local = listener.local_addr()?;
    let task = shared.tasks.spawn(accept(Arc::clone(shared), listener, transport));
    Ok(OpenListener { ingress, local, task: task.ok_or(OpenError::Ended)?, udp: None })
}

/// Sets what every signalling stream has, accepted or opened.
pub(crate) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let unacknowledged = limit::TRANSPORT_UNACKNOWLEDGED_MS.millis();
    SockRef::from(stream).set_tcp_user_timeout(Some(unacknowledged))
}

pub(crate) fn bind(transport: Transport, address: SocketAddr) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        _ => (Type::STREAM, Protocol::TCP),
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // one family a socket, so that no address has two spellings
    }
    socket.set_nonblocking(true)?;
    if transport == Transport::Udp {
        socket.bind(&address.into())?;
        return Ok(socket);
    }
    socket.set_reuse_address(true)?; // a restart must not wait for TIME_WAIT
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(limit::TRANSPORT_BACKLOG.value).unwrap_or(i32::MAX))?;
    Ok(socket)
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, transport: Transport) {
    loop {
        match listener.accept().await {
            Ok((stream, source)) => {
                if contained_call(|| admit(&shared, stream, source, transport)).is_none() {
                    shared.refused(transport, Cause::Panic);
                }
            }
            Err(_) => sleep(PAUSE_AFTER_ERROR).await,
        }
    }
}

/// Decides about a fresh connection without waiting for anything, and starts its task.
fn admit(shared: &Arc<Shared>, stream: TcpStream, source: SocketAddr, transport: Transport) {
    let Ok(local) = stream.local_addr() else { return shared.refused(transport, Cause::Error) };
    if !shared.inlet.admits(source, local, transport) {
        return reset(stream);
    }
    let place = shared.gate.connection(source.ip());
    let handshake = match transport {
        Transport::Tls => shared.gate.handshake(source.ip()).map(Some),
        _ => Some(None),
    };
    let (Some(place), Some(handshake)) = (place, handshake) else {
        shared.turned_away(source, transport, Cause::Limit);
        return reset(stream);
    };
    let shared_by_task = Arc::clone(shared);
    shared.tasks.spawn(async move {
        match handshake {
            None => accepted_tcp(shared_by_task, stream, source, local, place).await,
            Some(handshake) => {
                accepted_tls(shared_by_task, stream, source, local, place, handshake).await;
            }
        }
    });
}

/// Closes without leaving anything behind: no TIME_WAIT, no unsent bytes.
pub(crate) fn reset(stream: TcpStream) {
    // Where it fails, the close is merely a polite one.
    let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

async fn accepted_tcp(
    shared: Arc<Shared>,
    stream: TcpStream,
    source: SocketAddr,
    local: SocketAddr,
    place: Place,
) {
    if tune(&stream).is_err() {
        return shared.refused(Transport::Tcp, Cause::Error);
    }
    let certificates = Arc::clone(&shared.nobody);
    let peer = Peer {
        transport: Transport::Tcp,
        source,
        local,
        certificates,
        outgoing: false,
        reusable: false,
    };
    serve(shared, stream, peer, place).await;
}

async fn accepted_tls(
    shared: Arc<Shared>,
    stream: TcpStream,
    source: SocketAddr,
    local: SocketAddr,
    place: Place,
    handshake: Place,
) {
    let (Ok(()), Some(store)) = (tune(&stream), &shared.tls) else {
        return shared.refused(Transport::Tls, Cause::Error);
    };
    let tls = store.current();
    let config = Arc::clone(&tls.server);
    let Some(stream) = secured(&shared, config, stream, source, Transport::Tls).await else {
        return;
    };
    let Some(certificates) = tls.client_names(stream.get_ref().1.peer_certificates()) else {
        return shared.turned_away(source, Transport::Tls, Cause::HandshakeFailed);
    };
    drop(handshake);
    let peer = Peer {
        transport: Transport::Tls,
        source,
        local,
        certificates,
        outgoing: false,
        reusable: false,
    };
    serve(shared, stream, peer, place).await;
}

/// The stream under TLS; `None`, and told, where the handshake failed or took too long.
pub(crate) async fn secured(
    shared: &Shared,
    config: Arc<ServerConfig>,
    stream: TcpStream,
    source: SocketAddr,
    transport: Transport,
) -> Option<TlsStream<TcpStream>> {
    let accepting = TlsAcceptor::from(config).accept(stream);
    // A panic inside must be counted like any other failure of a handshake.
    let accepting = contained(timeout(shared.bounds.handshake, accepting));
    let accepted = tokio::select! {
        accepted = accepting => accepted,
        () = shared.connections.draining() => {
            shared.refused(transport, Cause::Drain);
            return None;
        }
    };
    match accepted {
        Some(Ok(Ok(stream))) => return Some(stream),
        Some(Err(_)) => shared.turned_away(source, transport, Cause::HandshakeTimeout),
        // A peer that leaves by itself, as what probes a port does, was not turned away.
        Some(Ok(Err(error))) if error.kind() != io::ErrorKind::InvalidData => {
            shared.refused(transport, Cause::HandshakeFailed);
        }
        Some(Ok(Err(_))) => shared.turned_away(source, transport, Cause::HandshakeFailed),
        None => shared.refused(transport, Cause::Panic),
    }
    None
}

async fn serve<S>(shared: Arc<Shared>, stream: S, peer: Peer, place: Place)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send,
{
    let (registration, queue) = shared.connections.register(peer.transport);
    let transport = peer.transport.word();
    shared.inlet.event(Event::ConnectionOpened { transport, outgoing: false });
    stream::run(&shared, stream, peer, registration, queue).await;
    drop(place);
}
