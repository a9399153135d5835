//! One outgoing connection, from the wish for it to its end. Whoever wishes for the same shares it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Event, TrunkName};
use bytes::Bytes;
use rustls_pki_types::ServerName;
use sip::Host;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connection::{Cause, Dialled, Joined, Registration, Wish};
use crate::flow::{Flow, Transport};
use crate::handle::Shared;
use crate::line::Client;
use crate::listen::tune;
use crate::proof::Wanted;
use crate::stream::{self, Peer};
use crate::task::contained;
use crate::tls;

/// What tells a connection from others.
pub(crate) fn dialled(
    transport: Transport,
    target: SocketAddr,
    listener: Option<SocketAddr>,
    wanted: Wanted,
    client: Option<&Client>,
) -> Dialled {
    let proof = client.map_or([0; 32], |client| client.fingerprint);
    let (wanted, proof) = match transport {
        Transport::Tls => (Some(wanted), proof),
        _ => (None, [0; 32]),
    };
    Dialled { transport, target, listener, wanted, proof }
}

/// A stream that is up, shared with whoever wants the same.
pub(crate) async fn stream(
    shared: &Arc<Shared>,
    dialled: &Dialled,
    client: Option<&Client>,
    trunk: &TrunkName,
) -> Result<Arc<Flow>, Cause> {
    let wish = || {
        let most = shared.bounds.connections_per_trunk;
        match shared.connections.join(dialled, Some(trunk), most) {
            Joined::There(wish) => Ok(wish),
            Joined::Full => Err(Cause::Limit),
            Joined::New(wish, registration, queue) => {
                start(shared, dialled.clone(), client.cloned(), registration, queue);
                Ok(wish)
            }
        }
    };
    match Wish::fulfilled(&wish()?).await {
        // The one who had wished for it gave up just now: it is ours to make.
        Err(Cause::Local) => Wish::fulfilled(&wish()?).await,
        other => other,
    }
}

fn start(
    shared: &Arc<Shared>,
    dialled: Dialled,
    client: Option<Client>,
    registration: Registration,
    queue: mpsc::Receiver<Bytes>,
) {
    // After the end of the transport the task is dropped, and with it the registration.
    shared.tasks.spawn(hold(Arc::clone(shared), dialled, client, registration, queue));
}

async fn hold(
    shared: Arc<Shared>,
    dialled: Dialled,
    client: Option<Client>,
    registration: Registration,
    queue: mpsc::Receiver<Bytes>,
) {
    let Some(place) = shared.gate.connection(dialled.target.ip()) else {
        return registration.end(Cause::Limit);
    };
    let connection = Arc::clone(registration.connection());
    let opening = open(&shared, &dialled, client.as_ref());
    let opening = contained(timeout(shared.bounds.connect, opening));
    let opened = tokio::select! {
        opened = opening => opened,
        cause = connection.stopped() => return registration.end(cause),
    };
    let opened = match opened {
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

async fn open(
    shared: &Shared,
    dialled: &Dialled,
    client: Option<&Client>,
) -> Result<Opened, Cause> {
    let failed = |_: io::Error| Cause::Error;
    let Dialled { transport, target, listener, wanted, .. } = dialled;
    if *transport == Transport::Udp {
        return Err(Cause::Error); // there is no socket of this family
    }
    let socket = socket_to(*target, *listener).map_err(failed)?;
    let stream = socket.connect(*target).await.map_err(failed)?;
    tune(&stream).map_err(failed)?;
    let mut local = stream.local_addr().map_err(failed)?;
    if let Some(listener) = listener {
        // RFC 3261 section 18.1.1: what we send names the port that we listen at.
        local.set_port(listener.port());
    }
    let certificates = Arc::clone(&shared.nobody);
    let reusable = wanted.is_some() && client.is_some_and(|client| client.shows);
    let (transport, source) = (*transport, *target);
    let peer = Peer { transport, source, local, certificates, outgoing: true, reusable };
    let (Transport::Tls, Some(wanted)) = (transport, wanted) else {
        return Ok(Opened::Tcp(stream, peer));
    };
    let name = match &wanted.host {
        Host::Name(name) => {
            let name = name.trim_end_matches('.').to_owned();
            ServerName::try_from(name).map_err(|_| Cause::Untrusted)?
        }
        Host::V4(address) => ServerName::IpAddress(IpAddr::V4(*address).into()),
        Host::V6(address) => ServerName::IpAddress(IpAddr::V6(*address).into()),
    };
    let (config, judge) = client.ok_or(Cause::Untrusted)?.judging(wanted);
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        if tls::refuses_us(&error) {
            return Cause::Unwelcome;
        }
        let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match error {
            Some(rustls::Error::InvalidCertificate(_)) => Cause::Untrusted,
            _ => Cause::HandshakeFailed,
        }
    })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let shown = chain.first().filter(|shown| judge.believes(shown)).ok_or(Cause::Untrusted)?;
    let certificates = tls::names_in(shown);
    Ok(Opened::Tls(Box::new(stream), Peer { certificates, ..peer }))
}

/// A socket at the address of our listener, where that is one.
fn socket_to(target: SocketAddr, listener: Option<SocketAddr>) -> io::Result<TcpSocket> {
    let socket = match target {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(mut from) = listener.filter(|it| !it.ip().is_unspecified()) {
        from.set_port(0);
        socket.bind(from)?;
    }
    Ok(socket)
}
