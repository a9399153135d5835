//! SIP over WebSocket (RFC 7118) at `/sip`: one SIP message in each frame, text or binary; a flow
//! of the transport's carries what [`door`] lets through.
//!
//! Thousands of them are idle: buffers are small, and nothing is kept but what the door knows.

pub(crate) mod door;
mod register;
mod registrar;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Extension, State, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base::{Reason, limit};
use http::{HeaderMap, StatusCode};
use transport::{CarriedPeer, Transport};

use self::door::Door;
pub use self::registrar::{Binding, Registrar};
use crate::guard::Peer;
use crate::problem::Problem;
use crate::server::Ground;

/// The registered name (RFC 7118 section 4.1).
const PROTOCOL: &str = "sip";

/// The route of the WebSockets.
pub(crate) fn routes() -> Router<Arc<Ground>> {
    Router::new().route("/sip", get(open))
}

/// One of the WebSockets that there may be.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let seat = Self(Arc::clone(count));
        let before = count.fetch_add(1, Ordering::Relaxed);
        (before < limit::API_WEBSOCKETS.get()).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn open(
    State(ground): State<Arc<Ground>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    admit(ground, peer, &headers, upgrade).unwrap_or_else(IntoResponse::into_response)
}

fn admit(
    ground: Arc<Ground>,
    peer: Peer,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let busy = |reason| Problem::of(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(10);
    // Browsers let any page open a WebSocket: this is the only guard (RFC 6455 section 10.2).
    let origin = ground.config.origins.of(headers)?;
    let upgrade = upgrade.map_err(|rejection| {
        let status = rejection.status();
        Problem::new(status, "websocket.handshake", rejection.body_text())
    })?;
    let upgrade = upgrade.protocols([PROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let detail = "Sec-WebSocket-Protocol must name sip";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "websocket.protocol", detail));
    }
    if ground.tasks.is_ending() {
        return Err(busy(Reason::Draining));
    }
    let seat = Seat::take(&ground.websockets).ok_or_else(|| busy(Reason::ConnectionLimit))?;
    let Peer { source, local } = peer;
    let carried = ground.transport.carry(CarriedPeer { transport: Transport::Wss, source, local });
    let carried = carried.map_err(|_| busy(Reason::Draining))?;
    let flow = Arc::clone(carried.flow());
    let door = Door::new(Arc::clone(&ground.house), flow, origin, ground.clock.now());
    let message = limit::SIP_MESSAGE_BYTES.get();
    let upgrade = upgrade
        .read_buffer_size(limit::API_WEBSOCKET_BUFFER.get())
        .write_buffer_size(0)
        .max_write_buffer_size(4 * message)
        .max_message_size(message)
        .max_frame_size(message);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let for_task = Arc::clone(&ground);
        // Where everything ends, the socket is dropped with the task that was not started.
        let _ = ground.tasks.spawn(async move {
            socket::run(&for_task, socket, carried, door).await;
            drop(seat);
        });
    }))
}
