//! The life of one stream, accepted or opened: bytes in become messages, queued messages become
//! bytes, until a cause ends it; then what is queued is still sent, within bounds.

use core::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;

use base::{Random as _, limit};
use bytes::Bytes;
use sip::{Frame, Framer, Opened, PING, PONG};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep_until, timeout, timeout_at};

use crate::config::Bounds;
use crate::connection::{Cause, Connection, Registration};
use crate::flow::{Flow, Inlet, Transport};
use crate::handle::Shared;
use crate::random::SystemRandom;
use crate::task::contained;
use crate::tls;

/// A flow before it has an id.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) transport: Transport,
    pub(crate) source: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) certificates: Arc<[String]>,
    pub(crate) outgoing: bool,
    pub(crate) reusable: bool,
}

/// Serves a stream to its end.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Send>(
    shared: &Shared,
    stream: S,
    peer: Peer,
    registration: Registration,
    queue: mpsc::Receiver<Bytes>,
) {
    let flow = Arc::new(Flow {
        id: registration.id(),
        transport: peer.transport,
        source: peer.source,
        local: peer.local,
        certificates: peer.certificates,
        outgoing: peer.outgoing,
        reusable: peer.reusable,
    });
    let connection = Arc::clone(registration.connection());
    connection.is_up_as(&flow);
    let (mut reader, writer) = split(stream);
    let pings = flow.outgoing.then(|| Pings::new(&shared.bounds));
    let mut writing = pin!(write(writer, queue, &connection, &shared.bounds, pings));
    let mut is_writing = true;
    let first = contained(async {
        tokio::select! {
            cause = read(&mut reader, &*shared.inlet, &flow, &connection, &shared.bounds) => cause,
            cause = &mut writing => {
                is_writing = false;
                cause
            }
            cause = connection.stopped() => cause,
        }
    });
    let cause = first.await.unwrap_or(Cause::Panic);
    // From here on nobody can send to it any more; what was queued before still goes out.
    registration.end(cause);
    // A peer that has only closed its own direction still waits for its answers.
    if matches!(cause, Cause::Error | Cause::Panic) {
        return;
    }
    let goodbye = async {
        if is_writing {
            writing.await;
        }
        discard(&mut reader).await;
    };
    // Whoever takes longer is cut off.
    let _ = timeout(shared.bounds.linger, goodbye).await;
}

/// Reads messages, one at a time, and hands them on.
async fn read<S: AsyncRead>(
    reader: &mut ReadHalf<S>,
    inlet: &dyn Inlet,
    flow: &Arc<Flow>,
    connection: &Connection,
    bounds: &Bounds,
) -> Cause {
    let opened = if flow.outgoing { Opened::ByUs } else { Opened::ByPeer };
    let mut framer = Framer::new(opened);
    let mut buffer = vec![0; READ_BYTES];
    let mut since = Instant::now();
    loop {
        let was_within = framer.is_mid_message();
        let (patience, cause) = match was_within {
            true => (bounds.message, Cause::SlowMessage),
            false => (bounds.idle, Cause::Idle),
        };
        match timeout_at(since + patience, reader.read(&mut buffer)).await {
            Err(_) => return cause,
            Ok(Ok(0)) => return Cause::Peer,
            Ok(Ok(size)) => {
                connection.hear(false);
                framer.push(buffer.get(..size).unwrap_or_default());
            }
            // Many peers close TLS without saying so.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Cause::Peer,
            // In TLS 1.3 a server judges our certificate when we think that all is well.
            Ok(Err(error)) if tls::refuses_us(&error) => return Cause::Unwelcome,
            Ok(Err(_)) => return Cause::Error,
        }
        let mut has_ended = false;
        loop {
            match framer.poll_message() {
                Ok(Some(Frame::Message(message))) => {
                    has_ended = true;
                    let is_taken = inlet.takes(flow);
                    if let Some(handed_on) =
                        is_taken.then(|| inlet.message(flow, message)).flatten()
                    {
                        handed_on.await;
                    }
                }
                Ok(Some(Frame::Ping)) => {
                    if connection.send(Bytes::from_static(PONG)).is_err() {
                        return Cause::QueueFull;
                    }
                }
                Ok(Some(Frame::Pong)) => connection.hear(true),
                Ok(None) => break,
                Err(failure) => {
                    if let Some(answer) = inlet.malformed(flow, &failure) {
                        // Where it is not sent, the peer learns from the close alone.
                        let _ = connection.send(answer);
                    }
                    return Cause::Malformed;
                }
            }
        }
        // The time of a message runs from its first byte, not from its latest.
        if !was_within || has_ended || !framer.is_mid_message() {
            since = Instant::now();
        }
    }
}

/// Writes what is queued until told to stop, then the rest of it and the end of the stream.
async fn write<S: AsyncWrite>(
    mut writer: WriteHalf<S>,
    mut queue: mpsc::Receiver<Bytes>,
    connection: &Connection,
    bounds: &Bounds,
    mut pings: Option<Pings>,
) -> Cause {
    loop {
        let due = pings.as_ref().map(Pings::due);
        let message = tokio::select! {
            biased;
            message = queue.recv() => message,
            () = at(due) => match pings.as_mut().map(|pings| pings.next(connection)) {
                Some(Ping::Missing) => return Cause::NoPong,
                Some(Ping::Send) => Some(Bytes::from_static(PING)),
                Some(Ping::Heard) | None => continue,
            },
            _ = connection.stopped(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        let Some(message) = message else {
            // A peer that is gone already needs no goodbye.
            let _ = writer.shutdown().await;
            return Cause::Local; // the cause that closed the queue came before
        };
        let writing = async {
            writer.write_all(&message).await?;
            if queue.is_empty() { writer.flush().await } else { Ok(()) }
        };
        match timeout(bounds.message, writing).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Cause::Error,
            Err(_) => return Cause::SlowMessage,
        }
    }
}

/// Our keep-alives on a connection that we opened (RFC 5626 section 4.4.1). A peer that has never
/// answered one need not know of them: then they only keep NAT and firewalls open, and TCP tells
/// when nobody is there any more.
struct Pings {
    every: Duration,
    patience: Duration,
    next: Instant,
    /// When the latest was sent, what had been heard before it, and until when it may be answered.
    sent: Option<(u64, Instant)>,
}

enum Ping {
    Send,
    Heard,
    Missing,
}

impl Pings {
    fn new(bounds: &Bounds) -> Self {
        let mut pings =
            Self { every: bounds.ping, patience: bounds.pong, next: Instant::now(), sent: None };
        pings.plan();
        pings
    }

    /// The next one: 80 to 100 % of the interval from now, so that connections that were opened
    /// together do not stay together.
    fn plan(&mut self) {
        let share = SystemRandom.below(200);
        self.next = Instant::now() + self.every * (800 + share) / 1000;
    }

    fn due(&self) -> Instant {
        self.sent.map_or(self.next, |(_, until)| until)
    }

    /// What is to be done now that it is due.
    fn next(&mut self, connection: &Connection) -> Ping {
        if let Some((heard, _)) = self.sent.take() {
            let is_missing = connection.has_ponged() && connection.heard() == heard;
            return if is_missing { Ping::Missing } else { Ping::Heard };
        }
        self.sent = Some((connection.heard(), Instant::now() + self.patience));
        self.plan();
        Ping::Send
    }
}

/// Waits until then; for ever where there is no such point.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Reads on for a while after our end: closing with bytes unread would reset the connection, and
/// the reset may overtake the answer that says why.
async fn discard<S: AsyncRead>(reader: &mut ReadHalf<S>) {
    let mut buffer = vec![0; READ_BYTES];
    let mut left = limit::TRANSPORT_LINGER_BYTES.get();
    while left > 0 {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(size) => left = left.saturating_sub(size),
        }
    }
}

/// Asked of the stream at once; a signalling message is rarely longer.
const READ_BYTES: usize = 4_096;
