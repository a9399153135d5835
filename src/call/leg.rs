//! A call's state: one leg, the caller's. (The callee of this edge's calls is a voice agent;
//! trunk-to-trunk calls add legs of the same type.)

use std::sync::Arc;

use base::{CallId, Instant, LegId, Reason, TrunkName, limit};
use media::{Purpose, Reserved};
use policy::{Accepted, Terms};
use sip::transaction::{ClientKey, ServerKey};
use sip::{
    AckWait, Dialog, DialogId, Method, Request, SessionAgreement, SessionTerms, SessionTimer,
};

use crate::contract::{Keep, Peer};
use crate::desk::Ladder;
use crate::negotiate::LegMedia;

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Ports are asked for; the INVITE is unanswered.
    Reserving,
    /// 200 is sent and not acknowledged.
    Answered,
    /// Both sides agree that the call is up.
    Talking,
    /// Our BYE is on its way; the dialog is kept to answer what crosses it.
    Ending,
    /// Over; forgotten as soon as the present input is handled.
    Gone,
}

/// An INVITE (the first or a later one) that is being answered.
#[derive(Debug)]
pub(crate) struct PendingInvite {
    pub(crate) key: ServerKey,
    pub(crate) request: Request,
    /// Our 200, which is repeated until the ACK.
    pub(crate) wait: Option<(AckWait, sip::Response)>,
    /// Whether our 200 carries an offer, so that the ACK must carry the answer.
    pub(crate) wants_answer: bool,
}

/// A request of ours within the call that waits for its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// The end.
    Bye(ClientKey),
    /// A session refresh.
    Refresh { key: ClientKey, is_invite: bool },
    /// A refresh that waits for a connection.
    Reconnect,
}

impl Pending {
    pub(crate) const fn key(self) -> Option<ClientKey> {
        match self {
            Self::Bye(key) | Self::Refresh { key, .. } => Some(key),
            Self::Reconnect => None,
        }
    }

    pub(crate) const fn is_invite(self) -> bool {
        matches!(self, Self::Refresh { is_invite: true, .. })
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: CallId,
    pub(crate) leg: LegId,
    pub(crate) peer: Arc<Peer>,
    /// Whether the peer's flow is gone and must be opened anew before we can send.
    pub(crate) flow_lost: bool,
    pub(crate) trunk: TrunkName,
    pub(crate) accepted: Box<Accepted>,
    pub(crate) purpose: Purpose,
    pub(crate) keep: Keep,
    pub(crate) keys_exposed: bool,
    pub(crate) stage: Stage,
    pub(crate) invite: Option<PendingInvite>,
    pub(crate) dialog: Dialog,
    pub(crate) reserved: Option<Reserved>,
    pub(crate) media: Option<LegMedia>,
    /// Whether the peer holds the call.
    pub(crate) is_held: bool,
    pub(crate) arrived: Instant,
    pub(crate) answered: Option<Instant>,
    pub(crate) ladder: Ladder,
    /// The session timer's terms, and the timer itself.
    pub(crate) agreement: Option<SessionAgreement>,
    pub(crate) session: Option<SessionTimer>,
    /// What our refreshes ask for after a 422 of the peer's.
    pub(crate) raised: Option<SessionTerms>,
    /// Whether the peer takes UPDATE.
    pub(crate) peer_allows_update: bool,
    pub(crate) pending: Option<Pending>,
    /// Our latest re-INVITE: each 2xx that it gets is acknowledged, also after our BYE.
    pub(crate) reinvite: Option<ClientKey>,
    /// When to try a refresh again that met 491.
    pub(crate) retry_at: Option<Instant>,
    /// In [`Stage::Ending`]: when the dialog is forgotten.
    pub(crate) forget_at: Option<Instant>,
    /// Why the call ends, once it does.
    pub(crate) ending: Option<Reason>,
}

impl Call {
    /// A call that waits for its ports. What its INVITE adds is filled in by who takes it.
    pub(crate) fn new(
        id: CallId,
        peer: &Arc<Peer>,
        trunk: &TrunkName,
        dialog: Dialog,
        ladder: Ladder,
        accepted: Box<Accepted>,
    ) -> Self {
        Self {
            id,
            leg: LegId { call: id, index: 0 },
            peer: Arc::clone(peer),
            flow_lost: false,
            trunk: trunk.clone(),
            accepted,
            purpose: Purpose::Agent { barge_in: None },
            keep: Keep::default(),
            keys_exposed: false,
            stage: Stage::Reserving,
            invite: None,
            dialog,
            reserved: None,
            media: None,
            is_held: false,
            arrived: Instant::ZERO,
            answered: None,
            ladder,
            agreement: None,
            session: None,
            raised: None,
            peer_allows_update: false,
            pending: None,
            reinvite: None,
            retry_at: None,
            forget_at: None,
            ending: None,
        }
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.accepted.terms
    }

    pub(crate) fn zone(&self) -> Option<String> {
        self.accepted.terms.zone.clone()
    }

    pub(crate) fn dialog_id(&self) -> &DialogId {
        self.dialog.id()
    }

    /// When this call next needs time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.stage == Stage::Ending {
            return self.forget_at;
        }
        let wait = self.invite.as_ref().and_then(|invite| invite.wait.as_ref());
        [
            wait.map(|(wait, _)| wait.poll_timeout()),
            self.session.as_ref().map(SessionTimer::poll_timeout),
            self.retry_at,
            self.reserved_by(),
            self.ends_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the relay must have found ports.
    pub(crate) fn reserved_by(&self) -> Option<Instant> {
        let is_waiting = self.stage == Stage::Reserving;
        is_waiting.then(|| self.arrived + limit::CALL_RESERVE_MS.millis())
    }

    /// When the longest duration is over.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        self.answered.map(|answered| answered + self.terms().max_duration)
    }

    /// Whether the peer's Allow names a method; RFC 3311 makes UPDATE optional.
    pub(crate) fn note_allowed(&mut self, request: &Request) {
        if request.headers.has(sip::Name::Allow) {
            self.peer_allows_update =
                request.headers.has_token(sip::Name::Allow, Method::Update.as_str());
        }
    }
}
