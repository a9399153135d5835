//! Arrive: what the shard does with each message before it belongs to a call.

use std::sync::Arc;

use base::{CallId, Event, LegId, Reason, TrunkName};
use policy::{Note, Refusal};
use sdp::Session;
use sip::transaction::ServerKey;
use sip::{Dialog, Message, Method, Request, Response, Status, ids};

use crate::admit;
use crate::bridge::Call;
use crate::calls::Calls;
use crate::contract::{Output, Peer, Record};
use crate::desk::{Desk, Ladder};
use crate::dial::Caller;
use crate::keep;
use crate::leg::{Leg, PendingInvite, Stage};

impl Calls {
    /// A request outside any dialog.
    pub(crate) fn on_new_request(
        &mut self,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        key: ServerKey,
        request: Request,
    ) {
        if self.transactions.is_merged(key) {
            return self.refuse(key, &request, Reason::MergedRequest, true);
        }
        match request.method {
            Method::Invite => self.on_invite(peer, trunk, key, request),
            Method::Options => self.on_options(key, &request),
            // A dialog that is gone, or never was: RFC 3261 section 12.2.2.
            Method::Bye | Method::Prack | Method::Update | Method::Info | Method::Notify => {
                self.refuse(key, &request, Reason::NoDialog, true);
            }
            Method::Other(_) => self.refuse(key, &request, Reason::MethodUnknown, true),
            _ => self.refuse(key, &request, Reason::MethodNotAllowed, true),
        }
    }

    /// What we can do, for whoever asks (RFC 3261 section 11.2); also the keep-alive of carriers.
    pub(crate) fn on_options(&mut self, key: ServerKey, request: &Request) {
        let mut desk = self.desk();
        let mut response = desk.response(request, Status::OK);
        crate::answer::describe(&mut response);
        response.headers.push(sip::Name::Accept, admit::accepted_by(&Method::Options));
        desk.answer(key, &response);
    }

    fn on_invite(&mut self, peer: &Arc<Peer>, trunk: &TrunkName, key: ServerKey, invite: Request) {
        if let Some(reason) = admit::objection(&invite) {
            return self.refuse(key, &invite, reason, true);
        }
        let offer = match crate::hold::offer_of(&invite) {
            Ok(offer) => offer,
            Err(reason) => return self.refuse(key, &invite, reason, true),
        };
        if invite.headers.has(sip::Name::Replaces) {
            return self.on_replacing(peer, trunk, key, invite);
        }
        let tag = ids::new_tag(self.shard, &mut *self.random);
        let Ok(dialog) = Dialog::uas(&invite, &tag) else {
            return self.refuse(key, &invite, Reason::Malformed, true);
        };
        let (now, wall) = (self.now, self.wall);
        let attempt = admit::attempt(peer, &invite, offer.as_ref(), wall);
        let observed = self.ledger.observe(now, wall);
        self.ledger.attempt(now, trunk);
        let decision = policy::decide(&self.setup.policy, &attempt, &observed);
        let call = CallId::new(wall, &mut *self.random);
        let transport = peer.transport.word();
        let refusal = decision.refusal().cloned();
        let keys_exposed = decision.notes.contains(&Note::KeysExposed);
        let terms = admit::terms(&self.setup, &decision);
        let mut desk = self.desk();
        desk.event(Event::CallArrived { call, trunk: trunk.clone(), transport });
        desk.record(Record::Arrived { call, wall, attempt, observed, decision });
        let mut ladder = Ladder::new(LegId { call, index: 0 });
        ladder.note(&mut desk, true, &Message::Request(invite.clone()));
        let accepted = match terms {
            Ok(accepted) if self.ledger.begin(trunk) => accepted,
            other => {
                let reason = other.err().unwrap_or(Reason::EdgeCallLimit);
                let status = if refusal.as_ref().is_some_and(|it| it.silent) {
                    self.transactions.ignore(now, key);
                    0
                } else {
                    let response = self.turn_away(&invite, reason, refusal.as_ref());
                    let mut desk = self.desk();
                    desk.answer(key, &response);
                    let status = response.status.code();
                    ladder.note(&mut desk, false, &Message::Response(response));
                    status
                };
                self.desk().refused(call, reason, status, peer, trunk);
                return;
            }
        };
        let terms = self.terms_of_leg(trunk, &accepted);
        let mut leg = Leg::new(ladder.leg(), trunk.clone(), terms, true, now);
        (leg.peer, leg.dialog, leg.ladder) = (Some(Arc::clone(peer)), Some(dialog), ladder);
        leg.note_allowed(&invite.headers);
        leg.is_to_be_recorded = keep::wants_recording(&self.setup, &accepted);
        let present = self.setup.policy.present(trunk);
        let caller = match peer.transport.is_browsers() {
            true => Caller::of_browser(&invite, &accepted.caller, present),
            false => Caller::of(&invite, &accepted.caller),
        };
        leg.invite = Some(PendingInvite::new(key, invite));
        let mut call = Call::new(call, accepted, caller, vec![leg], now);
        call.barge_in = self.barge_in(&call.accepted);
        call.keep = keep::of(&self.setup, &call.accepted);
        call.keys_exposed = keys_exposed && offer.as_ref().is_none_or(Session::is_secure_offer);
        let id = call.id;
        self.keep_call(Box::new(call));
        self.with_call(id, Call::begin);
    }

    /// The terms of a caller's leg. The decision names what its offer had; later offers may have
    /// the trunk's other codecs.
    fn terms_of_leg(&self, trunk: &TrunkName, accepted: &policy::Accepted) -> policy::Terms {
        let codecs = self.setup.policy.terms(trunk, self.wall).map(|terms| terms.codecs);
        let mut terms = accepted.terms.clone();
        terms.codecs = codecs.unwrap_or(terms.codecs);
        terms
    }

    /// The refusal of an INVITE, as policy words it where it was policy.
    fn turn_away(
        &mut self,
        invite: &Request,
        reason: Reason,
        refusal: Option<&Refusal>,
    ) -> Response {
        let status = refusal.and_then(|it| Status::new(it.status));
        self.desk().refusal_with(
            invite,
            status.unwrap_or_else(|| Status::of(reason)),
            reason,
            refusal.is_none_or(|it| it.tell),
            refusal.and_then(|it| it.retry_after_seconds),
        )
    }

    /// When the voice agent's speech stops for the caller's.
    fn barge_in(&self, accepted: &policy::Accepted) -> Option<media::BargeIn> {
        match &accepted.destination {
            policy::Destination::Agent { name } => self.setup.agents.get(name.as_str())?.barge_in,
            policy::Destination::Trunk { .. } => None,
        }
    }

    /// Refuses a request that became no call.
    pub(crate) fn refuse(&mut self, key: ServerKey, request: &Request, reason: Reason, tell: bool) {
        let mut desk = self.desk();
        let response = desk.refusal(request, reason, tell);
        let status = response.status.code();
        desk.answer(key, &response);
        let transport = self.transport;
        self.desk().event(Event::RequestRefused { reason, transport, status });
    }
}

impl Call {
    /// A call that policy lets in begins: ports for the caller, and the callee is dialled.
    fn begin(&mut self, desk: &mut Desk<'_>) {
        let caller = &mut self.legs[0];
        if let Err(reason) = caller.accept_session_timer(desk) {
            // Its refusal is sent.
            caller.leave(desk, reason);
            caller.stage = Stage::Gone;
            return self.finish(desk, reason);
        }
        if let Some(need) = caller.need(desk) {
            desk.output(Output::Reserve { leg: caller.id, need });
        }
        self.route_caller(desk);
    }
}
