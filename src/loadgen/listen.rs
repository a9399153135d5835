//! Where others call us: accepts connections (or hears datagrams) and makes lines of them, whose
//! new calls arrive in one queue.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base::limit::{LOADGEN_CONNECTIONS, LOADGEN_QUEUE, SIP_MESSAGE_BYTES, TRANSPORT_HANDSHAKE_MS};
use bytes::Bytes;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::config::Transport;
use crate::line::{Arrival, Desk, Line, Shared, calls_of_listener};

/// Listens until it is dropped; its lines end with it.
pub(crate) struct Listener {
    local: SocketAddr,
    task: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Open lines; a closed one gives its place to the next.
#[derive(Default)]
struct Lines(Mutex<Vec<Arc<Line>>>);

impl Lines {
    /// Keeps a line; `false` where there are too many.
    fn keep(&self, line: Arc<Line>) -> bool {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|it| !it.is_gone());
        let has_room = lines.len() < LOADGEN_CONNECTIONS.get();
        if has_room {
            lines.push(line);
        }
        has_room
    }
}

impl Listener {
    /// Listens at `address`; what calls us comes out of the receiver.
    pub(crate) async fn open(
        address: SocketAddr,
        transport: Transport,
        tls: Option<TlsAcceptor>,
    ) -> io::Result<(Self, mpsc::Receiver<Arrival>)> {
        let (arrivals, arrived) = mpsc::channel(LOADGEN_QUEUE.get());
        let calls = calls_of_listener();
        let (local, task) = if transport == Transport::Udp {
            let socket = Arc::new(UdpSocket::bind(address).await?);
            let local = socket.local_addr()?;
            (local, tokio::spawn(hear(socket, local, calls, arrivals)))
        } else {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            (local, tokio::spawn(accept(listener, tls, calls, arrivals)))
        };
        Ok((Self { local, task: task.abort_handle() }, arrived))
    }

    /// Where it listens.
    pub(crate) const fn local(&self) -> SocketAddr {
        self.local
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    calls: Shared,
    arrivals: mpsc::Sender<Arrival>,
) {
    let lines = Arc::new(Lines::default());
    loop {
        // An error is a connection that ended before it was taken, or no descriptor left.
        let Ok((socket, source)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            continue;
        };
        let Ok(local) = socket.local_addr() else { continue };
        // Only a matter of speed.
        let _ = socket.set_nodelay(true);
        let (calls, arrivals, lines) = (Arc::clone(&calls), arrivals.clone(), Arc::clone(&lines));
        match tls.clone() {
            None => {
                lines.keep(Line::accepted(socket, local, source, &calls, arrivals));
            }
            Some(tls) => {
                tokio::spawn(async move {
                    let patience = TRANSPORT_HANDSHAKE_MS.millis();
                    if let Ok(Ok(stream)) = timeout(patience, tls.accept(socket)).await {
                        lines.keep(Line::accepted(stream, local, source, &calls, arrivals));
                    }
                });
            }
        }
    }
}

async fn hear(
    socket: Arc<UdpSocket>,
    local: SocketAddr,
    calls: Shared,
    arrivals: mpsc::Sender<Arrival>,
) {
    let mut buffer = vec![0; SIP_MESSAGE_BYTES.get()];
    let mut peers: BTreeMap<SocketAddr, (Arc<Line>, Desk)> = BTreeMap::new();
    loop {
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(message) = sip::parse::datagram(&Bytes::copy_from_slice(&buffer[..length])) else {
            continue;
        };
        if peers.len() >= LOADGEN_CONNECTIONS.get() && !peers.contains_key(&source) {
            peers.pop_first();
        }
        let (_, desk) = peers
            .entry(source)
            .or_insert_with(|| Line::of_peer(&socket, local, source, &calls, arrivals.clone()));
        desk.deliver(message);
    }
}
