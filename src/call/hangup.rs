//! Hang up: BYE and CANCEL both ways, the deadlines that end a call, and what is stored of it.

use std::sync::Arc;
use std::time::Duration;

use base::{Event, Personal, Reason, limit};
use policy::Transport;
use sip::transaction::{ClientKey, GIVE_UP, ServerKey};
use sip::{AckWaitStep, Message, Method, Request, Status};

use crate::bridge::Call;
use crate::cause::{self, Causes};
use crate::contract::{Output, Peer, Record};
use crate::desk::Desk;
use crate::dial::Failure;
use crate::leg::{Leg, Pending, Stage};
use crate::pass::Passing;

impl Call {
    /// A peer hangs up, and with it the call.
    pub(crate) fn on_bye(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
    ) {
        let leg = &mut self.legs[at];
        // RFC 3261 section 15.1.2: what is pending is answered first.
        if let Some(invite) = leg.invite.take()
            && leg.stage == Stage::Inviting
        {
            let (tag, reason) = (leg.local_tag(), Reason::Cancelled);
            let kind = (Status::of(reason), tag.as_str());
            let response = desk.refusal_tagged(&invite.request, kind, reason, false, None);
            leg.respond(desk, invite.key, &response);
        }
        let response = leg.plain_ok(desk, request);
        leg.respond(desk, key, &response);
        self.party_left(desk, at, Causes::of(&request.headers));
    }

    /// Who was in the call at this leg has gone for good, without a word in its dialog: a page that
    /// was closed or loaded again. That is as good as a BYE.
    pub(crate) fn on_party_gone(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &mut self.legs[at];
        if matches!(leg.stage, Stage::Answered | Stage::Talking) {
            leg.invite = None; // nobody is there to be answered
            self.party_left(desk, at, Causes::default());
        }
    }

    fn party_left(&mut self, desk: &mut Desk<'_>, at: usize, causes: Causes) {
        let leg = &mut self.legs[at];
        let reason = if leg.is_callers_side { Reason::CallerHungUp } else { Reason::CalleeHungUp };
        let was_over = leg.is_over();
        if !was_over {
            leg.leave(desk, reason);
        }
        leg.stage = Stage::Gone;
        let index = leg.id.index;
        if self.is_target(index) {
            return self.transfer_failed(desk, Failure::of(Reason::Declined));
        }
        if !was_over && !self.is_leaving(index) {
            self.end(desk, reason, causes);
        }
    }

    /// The caller gives up before the answer (RFC 3261 section 9.2); RFC 3326 tells why.
    pub(crate) fn on_cancel(&mut self, desk: &mut Desk<'_>, cancel: &Request) {
        let Some(caller) = self.legs.first_mut() else { return };
        if caller.stage != Stage::Inviting {
            return; // our 200 crossed it: BYE follows
        }
        caller.note(desk, true, &Message::Request(cancel.clone()));
        let causes = Causes::of(&cancel.headers);
        let is_elsewhere = causes.is_elsewhere();
        let reason = if is_elsewhere { Reason::CompletedElsewhere } else { Reason::Cancelled };
        self.end(desk, reason, causes);
    }

    /// We end the call, answered or not.
    pub(crate) fn hang_up(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        self.end(desk, reason, Causes::default());
    }

    /// The call comes to nothing: the caller learns why.
    pub(crate) fn fail(&mut self, desk: &mut Desk<'_>, failure: Failure) {
        if let Some(caller) = self.legs.first_mut()
            && caller.is_caller()
            && caller.stage == Stage::Inviting
        {
            caller.refuse_invite(desk, failure);
        }
        self.end(desk, failure.reason, Causes { sip: None, q850: failure.cause });
    }

    fn end(&mut self, desk: &mut Desk<'_>, reason: Reason, causes: Causes) {
        // RFC 3261 section 15.1.2: what is pending is answered first.
        self.refer_failed(desk, Reason::TransferRefused);
        for leg in &mut self.legs {
            leg.causes = leg.causes.or(causes);
            leg.hang_up(desk, reason);
        }
        self.finish(desk, reason);
    }

    /// A new flow is there for a leg, or a first one.
    pub(crate) fn on_connected(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        peer: Arc<Peer>,
        contact: Option<Personal<String>>,
    ) {
        let leg = &mut self.legs[at];
        if leg.stage == Stage::Inviting && leg.dial.is_some() && leg.peer.is_none() {
            return self.on_dialled(desk, at, peer, contact);
        }
        leg.on_reconnected(desk, &peer);
    }

    /// A leg's peer cannot be connected to.
    pub(crate) fn on_unreachable(&mut self, desk: &mut Desk<'_>, at: usize, reason: Reason) {
        let leg = &mut self.legs[at];
        match leg.stage {
            Stage::Inviting if leg.dial.is_some() => self.on_undialled(desk, at, reason),
            // It comes back by itself, and what waits for it has a deadline.
            _ if leg.is_browsers() => leg.look_at = Some(desk.now + FLOW_LOOK),
            Stage::Ending => leg.stage = Stage::Gone,
            _ => {
                // The peer may still come back; the session's expiry decides.
                leg.pending.take_if(|pending| *pending == Pending::Reconnect);
            }
        }
    }

    /// A leg's flow is gone (RFC 3261 section 18.4). What is up goes on: media does not need it,
    /// and what a browser has still to be told waits for its next connection.
    /// A caller that has not got our 200 cannot get it any more, which is as if it had given up;
    /// one that has not acknowledged it may come back on another flow (RFC 5626), for a while.
    pub(crate) fn on_flow_closed(&mut self, desk: &mut Desk<'_>, at: usize) {
        let leg = &mut self.legs[at];
        leg.flow_lost = true;
        match leg.stage {
            // Of an INVITE of ours its transaction tells.
            Stage::Inviting if leg.is_caller() => self.hang_up(desk, Reason::FlowLost),
            Stage::Answered => leg.back_by = Some(desk.now + limit::CALL_FLOW_RETURN_MS.millis()),
            Stage::Inviting | Stage::Talking | Stage::Ending | Stage::Moved | Stage::Gone => {}
        }
    }

    /// The flow of a request of ours is gone, and its response with it.
    pub(crate) fn on_unsent(&mut self, desk: &mut Desk<'_>, at: usize, key: ClientKey) {
        let leg = &mut self.legs[at];
        match leg.pending {
            Some(Pending::Refresh { key: sent, .. }) if sent == key => {
                leg.credentials.forget(key);
                leg.pending = None;
                leg.try_refresh_later(desk, None);
            }
            Some(Pending::Bye(sent)) if sent == key && leg.is_browsers() => {
                leg.credentials.forget(key);
                (leg.pending, leg.flow_lost) = (None, true);
                leg.await_flow(desk);
            }
            _ => self.on_response(desk, at, key, None),
        }
    }

    /// A response to a request of ours; `None` is a timeout or a flow that failed.
    pub(crate) fn on_response(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ClientKey,
        response: Option<&sip::Response>,
    ) {
        let leg = &mut self.legs[at];
        if let Some(response) = response {
            leg.note(desk, true, &Message::Response(response.clone()));
            if response.status.is_success() {
                leg.credentials.renew(&response.headers);
            }
        }
        if leg.dial.as_ref().is_some_and(|dial| dial.key == Some(key)) {
            return self.on_dial_response(desk, at, response);
        }
        if leg.answer_challenge(desk, key, response) {
            return;
        }
        if self.passing.as_ref().and_then(Passing::sent).is_some_and(|(sent, _)| sent == key) {
            return self.on_refer_response(desk, response);
        }
        if let Some(response) = response
            && leg.reinvite == Some(key)
            && response.status.is_success()
        {
            leg.acknowledge(desk, response);
        }
        if response.is_some_and(|response| response.status.is_provisional()) {
            return;
        }
        // What belongs to neither came too late to matter.
        match leg.pending.take_if(|pending| pending.key() == Some(key)) {
            Some(Pending::Bye(_)) => leg.stage = Stage::Gone,
            Some(Pending::Refresh { is_invite, .. }) => {
                let told = leg.told;
                if self.change_refused(desk, at, response) {
                    self.legs[at].told = None;
                    return self.legs[at].tell_pending(desk);
                }
                let leg = &mut self.legs[at];
                match leg.on_refresh_response(desk, response, is_invite) {
                    Ok(Some(agreed)) => {
                        self.change_agreed(desk, at);
                        self.apply_told(desk, at, &agreed, told);
                    }
                    Ok(None) => {}
                    Err(reason) => return self.leg_lost(desk, at, reason),
                }
                self.legs[at].tell_pending(desk);
            }
            Some(Pending::Reconnect) | None => {}
        }
    }

    /// Acts on whatever is due.
    pub(crate) fn on_timeout(&mut self, desk: &mut Desk<'_>) {
        for at in 0..self.legs.len() {
            self.on_leg_timeout(desk, at);
        }
        self.on_join_timeout(desk);
        let refer = self.passing.as_ref().and_then(Passing::deadline);
        if refer.is_some_and(|by| by <= desk.now) {
            self.refer_failed(desk, Reason::TransferRefused);
        }
        let is_over = self.ends_at().is_some_and(|end| end <= desk.now);
        if is_over && self.ending.is_none() {
            self.hang_up(desk, Reason::MaximumDuration);
        }
    }

    fn on_leg_timeout(&mut self, desk: &mut Desk<'_>, at: usize) {
        let (now, leg) = (desk.now, &mut self.legs[at]);
        if leg.forget_at.is_some_and(|at| at <= now) {
            leg.stage = Stage::Gone;
        }
        if leg.look_at.take_if(|at| *at <= now).is_some() {
            leg.look_for_flow(desk);
        }
        if leg.is_over() {
            return;
        }
        if leg.back_by.take_if(|by| *by <= now).is_some() {
            return self.leg_lost(desk, at, Reason::FlowLost);
        }
        if leg.reserved_by().is_some_and(|by| by <= now) {
            return self.hang_up(desk, Reason::RelayFull);
        }
        let waited = leg.on_ack_timeout(desk).and_then(|()| leg.on_session_timeout(desk));
        if let Err(reason) = waited {
            return self.leg_lost(desk, at, reason);
        }
        if let Err(reason) = leg.on_reliable_timeout(desk) {
            return self.fail(desk, Failure::of(reason));
        }
        self.on_change_timeout(desk, at);
        let leg = &self.legs[at];
        if leg.stage == Stage::Inviting {
            self.on_dial_timeout(desk, at);
        }
    }

    /// Nothing came for the trunk's limit. On hold by the peer nothing has to.
    pub(crate) fn on_media_inactive(&mut self, desk: &mut Desk<'_>, at: usize) {
        let expects = self.legs[at].media.as_ref().and_then(|media| media.plan());
        let is_up = self.answered.is_some();
        if is_up && expects.is_some_and(|plan| plan.direction.receive) {
            self.leg_lost(desk, at, Reason::MediaTimeout);
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
        desk.event(Event::CallEnded { call, reason, talked });
        desk.record(Record::Ended { call, wall, reason, talked });
    }
}

impl Leg {
    /// Ends the leg, whatever it is at.
    pub(crate) fn hang_up(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        match self.stage {
            Stage::Inviting if self.dial.is_some() => self.give_up(desk, reason),
            Stage::Inviting => self.refuse_invite(desk, Failure::of(reason)),
            Stage::Answered | Stage::Talking => {
                self.leave(desk, reason);
                self.stage = Stage::Ending;
                self.forget_at = Some(desk.now + GIVE_UP);
                if let Some(Pending::Refresh { key, is_invite: true }) = self.pending.take() {
                    // Without it the transaction of a re-INVITE that only rings would never end.
                    let why = cause::of_cancel(reason, self.causes);
                    desk.transactions.cancel(desk.now, key, Some(why));
                }
                self.acknowledge_late(desk);
                if !self.flow_lost {
                    self.send_bye(desk);
                } else {
                    self.await_flow(desk);
                }
            }
            Stage::Ending | Stage::Moved | Stage::Gone => {}
        }
    }

    /// Refuses the INVITE that began the leg.
    fn refuse_invite(&mut self, desk: &mut Desk<'_>, failure: Failure) {
        let reason = failure.reason;
        if let Some(invite) = self.invite.take() {
            // What ends a call well, before its answer is no answer.
            let status = failure.status.unwrap_or_else(|| Status::of(reason));
            let is_failure = status.is_failure();
            let status = if is_failure { status } else { Status::TEMPORARILY_UNAVAILABLE };
            let tag = self.local_tag();
            let kind = (status, tag.as_str());
            let mut response = desk.refusal_tagged(&invite.request, kind, reason, true, None);
            // RFC 6432 section 3. Who has given up needs no telling.
            let is_told = !matches!(reason, Reason::Cancelled | Reason::CompletedElsewhere);
            if let Some(cause) =
                failure.cause.or_else(|| cause::of_reason(reason)).filter(|_| is_told)
            {
                response.headers.push_reason("Q.850", cause, cause::q850_text(cause));
            }
            self.respond(desk, invite.key, &response);
        }
        self.leave(desk, reason);
        self.stage = Stage::Gone;
    }

    /// The leg's media is over.
    pub(crate) fn leave(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        (self.invite, self.reliable) = (None, None);
        // RFC 3261 section 15.1.2: what is pending is answered first.
        if let Some(deferred) = self.deferred.take() {
            self.refuse(desk, deferred.key, &deferred.request, Reason::Cancelled);
        }
        self.ended_by = Some(reason);
        desk.output(Output::Release { leg: self.id });
    }

    pub(crate) fn send_bye(&mut self, desk: &mut Desk<'_>) {
        let reason = self.ended_by.unwrap_or(Reason::Internal);
        let cause = self.causes.q850.or_else(|| cause::of_reason(reason));
        let sent = self.send(desk, Method::Bye, |bye| {
            // RFC 3326: why, for the peer's records; nothing that our policy would not tell.
            bye.headers.push_reason("SIP", reason.sip_status(), reason.code());
            if let Some(cause) = cause {
                bye.headers.push_reason("Q.850", cause, cause::q850_text(cause));
            }
        });
        match sent {
            Some(key) => self.pending = Some(Pending::Bye(key)),
            None => self.stage = Stage::Gone,
        }
    }

    /// Asks for the flow that our BYE needs, which waits for it; where there is no place to ask
    /// at, the peer is left alone.
    fn await_flow(&mut self, desk: &mut Desk<'_>) {
        if !self.reconnect(desk) {
            self.stage = Stage::Gone;
        } else if self.is_browsers() {
            self.forget_at = Some(desk.now + limit::CALL_FLOW_WAIT_MS.millis());
        }
    }

    /// Asks again whether a browser has come back, where something waits for it.
    fn look_for_flow(&mut self, desk: &mut Desk<'_>) {
        let is_ending = self.stage == Stage::Ending && self.pending.is_none();
        if self.flow_lost && (is_ending || self.pending == Some(Pending::Reconnect)) {
            self.reconnect(desk);
        }
    }

    /// Asks for a new flow; `false` without a place to go to, when the peer is left alone.
    pub(crate) fn reconnect(&self, desk: &mut Desk<'_>) -> bool {
        let (Some(peer), Some(dialog)) = (&self.peer, &self.dialog) else { return false };
        let (mut uri, transport) = (dialog.next_hop(), peer.transport);
        if transport == Transport::Wss {
            // A browser is where its registration says; its names lead nowhere (RFC 7118
            // section 5).
            uri = dialog.remote_target();
        }
        // A session of WHIP keeps its flow as long as it lives.
        if uri.host().is_none() || matches!(transport, Transport::Ws | Transport::Whip) {
            return false;
        }
        let uri = Personal::new(uri.as_str().to_owned());
        let (leg, trunk, proved) = (self.id, self.trunk.clone(), Arc::clone(&peer.certificates));
        desk.output(Output::Connect { leg, trunk, uri, transport, proved, after: None });
        true
    }

    /// The new flow is there.
    fn on_reconnected(&mut self, desk: &mut Desk<'_>, peer: &Arc<Peer>) {
        // What is only being dialled has no local port yet: the old one still names us.
        let known = self.peer.as_ref().map(|peer| peer.local);
        let local = known.filter(|_| peer.local.port() == 0).unwrap_or(peer.local);
        self.peer = Some(Arc::new(Peer { local, ..(**peer).clone() }));
        (self.flow_lost, self.look_at) = (false, None);
        if self.stage == Stage::Ending && self.pending.is_none() {
            self.say_goodbye(desk);
        } else if self.pending == Some(Pending::Reconnect) {
            self.pending = None;
            self.send_refresh(desk);
        }
    }

    /// The peer has spoken to us over this flow, which may be another one than before.
    pub(crate) fn heard_from(&mut self, desk: &mut Desk<'_>, peer: &Arc<Peer>) {
        if self.peer.as_ref().is_none_or(|known| known.flow != peer.flow) {
            self.peer = Some(Arc::clone(peer));
        }
        let was_lost = std::mem::take(&mut self.flow_lost);
        (self.back_by, self.look_at) = (None, None);
        if self.pending == Some(Pending::Reconnect) {
            (self.pending, self.retry_at) = (None, Some(desk.now));
        } else if was_lost && self.stage == Stage::Ending && self.pending.is_none() {
            self.say_goodbye(desk);
        }
    }

    /// Sends the BYE that has waited for a flow, which has as long as any for its answer.
    fn say_goodbye(&mut self, desk: &mut Desk<'_>) {
        self.forget_at = Some(desk.now + GIVE_UP);
        self.send_bye(desk);
    }

    /// Repeats a 200 that waits for its ACK.
    ///
    /// # Errors
    /// It never came.
    fn on_ack_timeout(&mut self, desk: &mut Desk<'_>) -> Result<(), Reason> {
        let Some(invite) = &mut self.invite else { return Ok(()) };
        let Some((wait, response)) = &mut invite.wait else { return Ok(()) };
        match wait.handle_timeout(desk.now) {
            AckWaitStep::Wait => {}
            AckWaitStep::Repeat => {
                if let Some(peer) = &self.peer {
                    desk.answer_again(invite.key, peer.flow, response);
                }
            }
            // RFC 3261 section 13.3.1.4.
            AckWaitStep::GiveUp => return Err(Reason::NoAck),
        }
        Ok(())
    }
}

/// How long after one look for a browser's flow the next one follows.
const FLOW_LOOK: Duration = limit::CALL_FLOW_LOOK_MS.millis();

/// Whether a failed refresh ends the dialog (RFC 3261 section 12.2.1.2).
pub(crate) const fn ends_dialog(status: Status) -> bool {
    matches!(status.code(), 404 | 408 | 410 | 416 | 480 | 481 | 482 | 483 | 484 | 485 | 502 | 604)
}
