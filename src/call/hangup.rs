//! Hang up: BYE and CANCEL both ways, the deadlines that end a call, and what is stored of it.

use base::{Event, Reason};
use sip::transaction::{ClientKey, GIVE_UP, ServerKey};
use sip::{AckWaitStep, Host, Message, Method, Request, Scheme, Status, Uri};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::contract::{Output, Peer, Record};
use crate::desk::Desk;
use crate::leg::{Call, Pending, Stage};

impl Call {
    /// The peer hangs up.
    pub(crate) fn on_bye(&mut self, desk: &mut Desk<'_>, key: ServerKey, request: &Request) {
        // RFC 3261 section 15.1.2: what is pending is answered first.
        if let Some(invite) = self.invite.take()
            && self.stage == Stage::Reserving
        {
            let response = desk.refusal(&invite.request, Reason::Cancelled, false);
            self.respond(desk, invite.key, &response);
        }
        let response = self.plain_ok(desk, request);
        self.respond(desk, key, &response);
        self.finish(desk, Reason::CallerHungUp);
        self.stage = Stage::Gone;
    }

    /// The peer gives up before the answer (RFC 3261 section 9.2).
    pub(crate) fn on_cancel(&mut self, desk: &mut Desk<'_>, cancel: &Request) {
        if self.stage != Stage::Reserving {
            return; // our 200 crossed it: BYE follows
        }
        self.ladder.note(desk, true, &Message::Request(cancel.clone()));
        self.hang_up(desk, Reason::Cancelled);
    }

    /// We end the call, answered or not.
    pub(crate) fn hang_up(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        match self.stage {
            Stage::Reserving => {
                if let Some(invite) = self.invite.take() {
                    // What ends a call well, before its answer is no answer.
                    let status = Some(Status::of(reason)).filter(|status| status.is_failure());
                    let status = status.unwrap_or(Status::TEMPORARILY_UNAVAILABLE);
                    let response = desk.refusal_with(&invite.request, status, reason, true, None);
                    self.respond(desk, invite.key, &response);
                }
                self.finish(desk, reason);
                self.stage = Stage::Gone;
            }
            Stage::Answered | Stage::Talking => {
                self.invite = None;
                self.finish(desk, reason);
                self.stage = Stage::Ending;
                self.forget_at = Some(desk.now + GIVE_UP);
                if let Some(Pending::Refresh { key, is_invite: true }) = self.pending.take() {
                    // Without it the transaction of a re-INVITE that only rings would never end.
                    desk.transactions.cancel(desk.now, key, None);
                }
                if !self.flow_lost {
                    self.send_bye(desk);
                } else if !self.connect(desk) {
                    self.stage = Stage::Gone;
                }
            }
            Stage::Ending | Stage::Gone => {}
        }
    }

    fn send_bye(&mut self, desk: &mut Desk<'_>) {
        let reason = self.ending.unwrap_or(Reason::Internal);
        let sent = self.send(desk, Method::Bye, |bye| {
            // RFC 3326: why, for the peer's records; nothing that our policy would not tell.
            bye.headers.push_reason("SIP", reason.sip_status(), reason.code());
        });
        match sent {
            Some(key) => self.pending = Some(Pending::Bye(key)),
            None => self.stage = Stage::Gone,
        }
    }

    /// Sends a request within the dialog over the present flow.
    pub(crate) fn send(
        &mut self,
        desk: &mut Desk<'_>,
        method: Method,
        finish: impl FnOnce(&mut Request),
    ) -> Option<sip::transaction::ClientKey> {
        let zone = self.zone();
        let (key, message) =
            desk.request(&self.peer, zone.as_deref(), &mut self.dialog, method, finish)?;
        self.ladder.note(desk, false, &message);
        Some(key)
    }

    /// Asks for a new flow; `false` without an address to go to, when the peer is left alone.
    pub(crate) fn connect(&self, desk: &mut Desk<'_>) -> bool {
        let Some(target) = address_of(self.dialog.next_hop()) else { return false };
        let transport = self.peer.transport;
        desk.output(Output::Connect { leg: self.leg, target, transport });
        true
    }

    /// The new flow is there.
    pub(crate) fn on_connected(&mut self, desk: &mut Desk<'_>, peer: Arc<Peer>) {
        // What is only being dialled has no local port yet: the old one still names us.
        let local = if peer.local.port() == 0 { self.peer.local } else { peer.local };
        self.peer = Arc::new(Peer { local, ..(*peer).clone() });
        self.flow_lost = false;
        if self.stage == Stage::Ending && self.pending.is_none() {
            self.send_bye(desk);
        } else if self.pending == Some(Pending::Reconnect) {
            self.pending = None;
            self.send_refresh(desk);
        }
    }

    /// The flow is gone; the call goes on, media does not need it (RFC 3261 section 18.4).
    pub(crate) fn on_flow_closed(&mut self) {
        self.flow_lost = true;
    }

    /// A response to a request of ours; `None` is a timeout or a flow that failed.
    pub(crate) fn on_response(
        &mut self,
        desk: &mut Desk<'_>,
        key: ClientKey,
        response: Option<&sip::Response>,
    ) {
        if let Some(response) = response {
            self.ladder.note(desk, true, &Message::Response(response.clone()));
            if self.reinvite == Some(key) && response.status.is_success() {
                self.acknowledge(desk, response);
            }
        }
        if response.is_some_and(|response| response.status.is_provisional()) {
            return;
        }
        // What belongs to neither came too late to matter.
        match self.pending.take_if(|pending| pending.key() == Some(key)) {
            Some(Pending::Bye(_)) => self.stage = Stage::Gone,
            Some(Pending::Refresh { is_invite, .. }) => {
                self.on_refresh_response(desk, response, is_invite);
            }
            Some(Pending::Reconnect) | None => {}
        }
    }

    /// Acts on whatever is due.
    pub(crate) fn on_timeout(&mut self, desk: &mut Desk<'_>) {
        let now = desk.now;
        if self.forget_at.is_some_and(|at| at <= now) {
            self.stage = Stage::Gone;
            return;
        }
        if let Some(invite) = &mut self.invite
            && let Some((wait, response)) = &mut invite.wait
        {
            match wait.handle_timeout(now) {
                AckWaitStep::Wait => {}
                AckWaitStep::Repeat => {
                    let response = response.clone();
                    let key = invite.key;
                    desk.answer_again(key, self.peer.flow, &response);
                }
                // RFC 3261 section 13.3.1.4.
                AckWaitStep::GiveUp => return self.hang_up(desk, Reason::NoAck),
            }
        }
        if self.reserved_by().is_some_and(|by| by <= now) {
            return self.hang_up(desk, Reason::RelayFull);
        }
        if self.ends_at().is_some_and(|end| end <= now) {
            return self.hang_up(desk, Reason::MaximumDuration);
        }
        self.on_session_timeout(desk);
    }

    /// Nothing came for the trunk's limit. On hold by the peer nothing has to.
    pub(crate) fn on_media_inactive(&mut self, desk: &mut Desk<'_>) {
        let expects = self.media.as_ref().and_then(|media| media.plan());
        if expects.is_some_and(|plan| plan.direction.receive) {
            self.hang_up(desk, Reason::MediaTimeout);
        }
    }

    /// Stores the end, once.
    pub(crate) fn finish(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        if self.ending.is_some() {
            return;
        }
        self.ending = Some(reason);
        let (call, wall) = (self.id, desk.wall);
        let talked = self.answered.map(|at| desk.now.since(at)).unwrap_or_default();
        desk.output(Output::Release { leg: self.leg });
        desk.event(Event::CallEnded { call, reason, talked });
        desk.record(Record::Ended { call, wall, reason, talked });
    }
}

/// The address that a URI names literally; names are resolved elsewhere (RFC 3263).
fn address_of(uri: &Uri) -> Option<SocketAddr> {
    let default = if uri.scheme() == Scheme::Sips || uri.param("transport") == Some("tls") {
        5061
    } else {
        5060
    };
    let address = uri.host().and_then(Host::ip)?;
    Some(SocketAddr::new(address, uri.port().unwrap_or(default)))
}

/// Whether a failed refresh ends the dialog (RFC 3261 section 12.2.1.2).
pub(crate) const fn ends_dialog(status: Status) -> bool {
    matches!(status.code(), 404 | 408 | 410 | 416 | 480 | 481 | 482 | 483 | 484 | 485 | 502 | 604)
}
