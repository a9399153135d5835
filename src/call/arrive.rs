//! Arrive: what the shard does with each message before it belongs to a call.

use std::sync::Arc;

use base::{CallId, Event, Reason, TrunkName};
use media::Purpose;
use policy::{Note, Refusal};
use sdp::Session;
use sip::transaction::ServerKey;
use sip::{Dialog, Message, Method, Request, Response, Status, ids};

use crate::admit;
use crate::calls::Calls;
use crate::contract::{Output, Peer, Record};
use crate::desk::Ladder;
use crate::leg::{Call, PendingInvite};

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
        response.headers.push(sip::Name::Accept, "application/sdp");
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
        let tag = ids::new_tag(self.shard, &mut *self.random);
        let Ok(dialog) = Dialog::uas(&invite, &tag) else {
            return self.refuse(key, &invite, Reason::Malformed, true);
        };
        let (now, wall) = (self.now, self.wall);
        let attempt = admit::attempt(peer, &invite, offer.as_ref(), wall);
        let observed = self.ledger.observe(now, wall);
        self.ledger.attempt(now, trunk);
        let decision = policy::decide(&self.setup.policy, &attempt, &observed);
        let call = CallId::random(&mut *self.random);
        let transport = peer.transport.word();
        let refusal = decision.refusal().cloned();
        let keys_exposed = decision.notes.contains(&Note::KeysExposed);
        let terms = admit::terms(&self.setup, &decision);
        let mut desk = self.desk();
        desk.event(Event::CallArrived { call, trunk: trunk.clone(), transport });
        desk.record(Record::Arrived { call, wall, attempt, observed, decision });
        let mut ladder = Ladder::new(call);
        ladder.note(&mut desk, true, &Message::Request(invite.clone()));
        let accepted = match terms {
            Ok(accepted) if self.ledger.begin(trunk) => accepted,
            other => {
                let reason = other.err().unwrap_or(Reason::EdgeCallLimit);
                let response = self.turn_away(&invite, reason, refusal.as_ref());
                let mut desk = self.desk();
                ladder.note(&mut desk, false, &Message::Response(response.clone()));
                desk.answer(key, &response);
                desk.refused(call, reason, response.status.code(), peer, trunk);
                return;
            }
        };
        let mut call = Call::new(call, peer, trunk, dialog, ladder, accepted);
        call.arrived = now;
        call.purpose = self.purpose(&call.accepted);
        call.keep = self.keep(&call.accepted);
        call.keys_exposed = keys_exposed && offer.as_ref().is_none_or(Session::is_secure_offer);
        call.note_allowed(&invite);
        call.invite = Some(PendingInvite { key, request: invite, wait: None, wants_answer: false });
        let leg = call.leg;
        let id = call.id;
        self.keep_call(call);
        self.with_call(id, |call, desk| {
            if call.accept_session_timer(desk) {
                let need = call.need(desk);
                desk.output(Output::Reserve { leg, need });
            }
        });
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

    fn purpose(&self, accepted: &policy::Accepted) -> Purpose {
        let barge_in = match &accepted.destination {
            policy::Destination::Agent { name } => {
                self.setup.agents.get(name.as_str()).and_then(|card| card.barge_in)
            }
            policy::Destination::Trunk { .. } => None,
        };
        Purpose::Agent { barge_in }
    }

    /// Switches: voice agent, trunk and edge; the most restrictive wins.
    fn keep(&self, accepted: &policy::Accepted) -> crate::Keep {
        let policy::Destination::Agent { name } = &accepted.destination else {
            return crate::Keep::default();
        };
        let card = self.setup.agents.get(name.as_str());
        let allows = |keep| keep == policy::Keep::Allowed;
        crate::Keep {
            recording: self.setup.recording
                && allows(accepted.terms.recording)
                && card.is_some_and(|card| card.recording),
            transcript: self.setup.transcript
                && allows(accepted.terms.transcript)
                && card.is_some_and(|card| card.transcript),
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
