//! The life of one WebSocket: frames in go through the door, messages of the calls go out, until
//! one of many causes ends it.

use std::future::pending;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use base::{Event, Instant, Reason, WallTime, limit};
use bytes::Bytes;
use tokio::time::{sleep, timeout};
use transport::Carried;

use super::door::{Door, Verdict, Why};
use crate::server::Ground;
use crate::tokens::Latest;

/// Why a WebSocket ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The peer has gone.
    Peer,
    Unproved,
    Flood,
    Malformed,
    TooLarge,
    Idle,
    Expired,
    /// Its token is used by another one.
    Replaced,
    /// The peer does not read.
    Slow,
    Drain,
    /// The calls or the transport ended it.
    Local,
}

impl End {
    /// The word in events; nothing is told of a peer that leaves.
    const fn word(self) -> Option<&'static str> {
        Some(match self {
            Self::Peer => return None,
            Self::Unproved => "unproved",
            Self::Flood => "flood",
            Self::Malformed => "malformed",
            Self::TooLarge => "too_large",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Slow => "slow",
            Self::Drain => "drain",
            Self::Local => "local",
        })
    }

    /// The status of the closing frame (RFC 6455 section 7.4.1).
    const fn code(self) -> u16 {
        match self {
            Self::Peer => close_code::NORMAL,
            Self::TooLarge => close_code::SIZE,
            Self::Malformed => close_code::PROTOCOL,
            Self::Unproved | Self::Flood | Self::Expired | Self::Replaced => close_code::POLICY,
            Self::Idle | Self::Slow | Self::Drain | Self::Local => close_code::AWAY,
        }
    }

    /// What the table of connections is told.
    const fn reason(self) -> Option<Reason> {
        match self {
            Self::Peer => None,
            Self::Malformed | Self::TooLarge => Some(Reason::Malformed),
            Self::Flood => Some(Reason::Flood),
            Self::Drain => Some(Reason::Draining),
            _ => Some(Reason::OperatorHungUp),
        }
    }
}

impl From<Why> for End {
    fn from(why: Why) -> Self {
        match why {
            Why::Flood => Self::Flood,
            Why::Malformed => Self::Malformed,
            Why::Expired => Self::Expired,
            Why::Unproved => Self::Unproved,
        }
    }
}

/// Serves a WebSocket to its end.
pub(super) async fn run(ground: &Ground, socket: WebSocket, carried: Carried, door: Door) {
    let now = ground.clock.now();
    let flow = carried.flow().id;
    let mut running = Running {
        ground,
        socket,
        carried,
        door,
        heard: now,
        opened: now,
        has_pinged: false,
        latest: None,
    };
    let end = running.serve().await;
    ground.house.registrar.flow_gone(flow);
    if let Some(cause) = end.word() {
        (ground.events)(Event::WebSocketClosed { cause });
    }
    if let Some(reason) = end.reason() {
        running.carried.give_up(reason);
    }
    let Running { mut socket, carried, .. } = running;
    drop(carried); // the calls need not wait for the goodbye
    if end != End::Peer {
        let reason = Utf8Bytes::from_static(end.word().unwrap_or_default());
        let goodbye = Message::Close(Some(CloseFrame { code: end.code(), reason }));
        // A peer that does not read is not waited for.
        let _ = timeout(limit::TRANSPORT_LINGER_MS.millis(), socket.send(goodbye)).await;
    }
}

struct Running<'a> {
    ground: &'a Ground,
    socket: WebSocket,
    carried: Carried,
    door: Door,
    heard: Instant,
    opened: Instant,
    has_pinged: bool,
    latest: Option<Latest>,
}

impl Running<'_> {
    async fn serve(&mut self) -> End {
        loop {
            let due = self.due();
            let waiting = due.since(self.ground.clock.now());
            let step = tokio::select! {
                frame = self.socket.recv() => match frame {
                    Some(Ok(frame)) => self.receive(frame).await,
                    Some(Err(error)) => Err(end_of(error)),
                    None => Err(End::Peer),
                },
                message = self.carried.next() => match message {
                    Some(message) => self.send(frame_of(message)).await,
                    None => Err(End::Local),
                },
                () = sleep(waiting) => self.is_due().await,
                () = replaced(&mut self.latest) => Err(End::Replaced),
                () = self.ground.tasks.ending() => Err(End::Drain),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// When something is to be done at the latest.
    fn due(&self) -> Instant {
        let idle = limit::API_WEBSOCKET_IDLE_MS.millis();
        let quiet = self.heard + if self.has_pinged { idle } else { idle / 2 };
        if self.door.is_proved() {
            let left = self.door.expires().map(|at| until(self.ground.clock.wall(), at));
            let expires = left.map(|left| self.ground.clock.now() + left);
            return expires.map_or(quiet, |at| quiet.min(at));
        }
        quiet.min(self.opened + limit::API_WEBSOCKET_PROOF_MS.millis())
    }

    async fn is_due(&mut self) -> Result<(), End> {
        let (now, wall) = (self.ground.clock.now(), self.ground.clock.wall());
        if self.door.expires().is_some_and(|at| at <= wall) {
            return Err(End::Expired);
        }
        let is_late = now.since(self.opened) >= limit::API_WEBSOCKET_PROOF_MS.millis();
        if is_late && !self.door.is_proved() {
            return Err(End::Unproved);
        }
        let (silence, idle) = (now.since(self.heard), limit::API_WEBSOCKET_IDLE_MS.millis());
        if silence >= idle {
            return Err(End::Idle);
        }
        if silence >= idle / 2 && !self.has_pinged {
            self.has_pinged = true;
            return self.send(Message::Ping(Bytes::new())).await;
        }
        Ok(())
    }

    async fn receive(&mut self, frame: Message) -> Result<(), End> {
        let (now, wall) = (self.ground.clock.now(), self.ground.clock.wall());
        (self.heard, self.has_pinged) = (now, false);
        let content = match frame {
            Message::Text(text) => Bytes::from(text),
            Message::Binary(bytes) => bytes,
            // Pings are answered below us; their number is bounded as messages are.
            Message::Ping(_) | Message::Pong(_) => Bytes::new(),
            Message::Close(frame) => {
                // RFC 6455 section 7.4.1: the page was closed, loaded again or left for another
                // one. No page can say so of itself while it lives.
                if frame.is_some_and(|frame| frame.code == close_code::AWAY) {
                    self.carried.peer_left();
                }
                return Err(End::Peer);
            }
        };
        let verdict = self.door.handle_frame(now, wall, &content);
        if let Some(latest) = self.door.take_latest() {
            self.latest = Some(latest);
        }
        match verdict {
            Verdict::Nothing => Ok(()),
            Verdict::Reply(answer) => self.send(frame_of(answer)).await,
            Verdict::Deliver(message) => {
                if let Some(waiting) = self.carried.deliver(message) {
                    tokio::select! {
                        () = waiting => {}
                        () = self.carried.ended() => {}
                    }
                }
                Ok(())
            }
            Verdict::Close(why, answer) => {
                if let Some(answer) = answer {
                    self.send(frame_of(answer)).await?;
                }
                Err(why.into())
            }
        }
    }

    async fn send(&mut self, frame: Message) -> Result<(), End> {
        match timeout(limit::TRANSPORT_MESSAGE_MS.millis(), self.socket.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Peer),
            Err(_) => Err(End::Slow),
        }
    }
}

/// A message as a frame: text where it is UTF-8, as SIP is (RFC 7118 section 5.3).
fn frame_of(message: Bytes) -> Message {
    match Utf8Bytes::try_from(message.clone()) {
        Ok(text) => Message::Text(text),
        Err(_) => Message::Binary(message),
    }
}

/// What a broken WebSocket says of its peer.
fn end_of(error: axum::Error) -> End {
    let text = error.to_string();
    // The library's error is not of a type that we could name; its words are tested.
    if text.contains("too long") {
        End::TooLarge
    } else if text.contains("IO error") || text.contains("without closing handshake") {
        End::Peer
    } else {
        End::Malformed
    }
}

async fn replaced(latest: &mut Option<Latest>) {
    match latest {
        Some(latest) => latest.replaced().await,
        None => pending().await,
    }
}

fn until(wall: WallTime, then: WallTime) -> Duration {
    Duration::from_millis(then.unix_millis().saturating_sub(wall.unix_millis()))
}
