//! Hang up: BYE and CANCEL both ways, the deadlines that end a call, and what is stored of it.

use base::{Event, Reason};
use sip::transaction::{GIVE_UP, ServerKey};
use sip::{AckWaitStep, Host, Message, Method, Request, Scheme, Status, Uri};
use std::net::SocketAddr;

use crate::contract::{Output, Record};
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
                    let response = desk.refusal(&invite.request, reason, true);
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
                if self.flow_lost { self.connect(desk) } else { self.send_bye(desk) }
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

    /// Asks for a new flow for our BYE; without an address to go to the peer is left alone.
    pub(crate) fn connect(&mut self, desk: &mut Desk<'_>) {
        let Some(target) = address_of(self.dialog.next_hop()) else {
            self.stage = Stage::Gone;
            return;
        };
        let transport = self.peer.transport;
        desk.output(Output::Connect { leg: self.leg, target, transport });
    }

    /// The new flow is there.
    pub(crate) fn on_connected(&mut self, desk: &mut Desk<'_>, peer: std::sync::Arc<crate::Peer>) {
        self.peer = peer;
        self.flow_lost = false;
        if self.stage == Stage::Ending && self.pending.is_none() {
            self.send_bye(desk);
        }
    }

    /// The flow is gone; the call goes on, media does not need it (RFC 3261 section 18.4).
    pub(crate) fn on_flow_closed(&mut self) {
        self.flow_lost = true;
    }

    /// A response to a request of ours; `None` is a timeout or a flow that failed.
    pub(crate) fn on_response(&mut self, desk: &mut Desk<'_>, response: Option<&sip::Response>) {
        if let Some(response) = response {
            self.ladder.note(desk, true, &Message::Response(response.clone()));
        }
        if response.is_some_and(|response| response.status.is_provisional()) {
            return;
        }
        match self.pending.take() {
            Some(Pending::Bye(_)) => self.stage = Stage::Gone,
            Some(Pending::Refresh { is_invite, .. }) => {
                self.on_refresh_response(desk, response, is_invite);
            }
            None => {}
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
        let end = self.answered.map(|answered| answered + self.terms().max_duration);
        if self.stage != Stage::Ending && end.is_some_and(|end| end <= now) {
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
