//! One leg of a call: a dialog with a peer, its media and its timers. A leg knows how to speak
//! SIP on its dialog; what follows for the call is decided by the call (`bridge`).

use std::sync::Arc;

use base::{Instant, LegId, Reason, TrunkName, limit};
use media::Reserved;
use policy::Terms;
use sip::transaction::{ClientKey, ServerKey};
use sip::{
    AckWait, Dialog, DialogId, Message, Method, Name, Request, Response, SessionAgreement,
    SessionTerms, SessionTimer, Status,
};

use crate::cause::Causes;
use crate::change::Deferred;
use crate::contract::Peer;
use crate::credentials::Credentials;
use crate::desk::{Desk, Ladder};
use crate::dial::Dialling;
use crate::early::Reliable;
use crate::negotiate::LegMedia;

/// Where a leg stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// An INVITE is unanswered: the peer's at us, or ours at the peer.
    Inviting,
    /// Our 200 is sent and not acknowledged.
    Answered,
    /// Both sides agree that the leg is up.
    Talking,
    /// Our BYE or CANCEL is on its way; the leg is kept to answer what crosses it.
    Ending,
    /// It has gone to another shard ([`crate::across`]); what is here is its stub.
    Moved,
    /// Over; forgotten as soon as the present input is handled.
    Gone,
}

/// An INVITE (the first or a later one) that is being answered.
#[derive(Debug)]
pub(crate) struct PendingInvite {
    pub(crate) key: ServerKey,
    pub(crate) request: Request,
    /// Our description in an early answer; the 200 repeats it.
    pub(crate) described: Option<sdp::Session>,
    /// Our 200, which is repeated until the ACK.
    pub(crate) wait: Option<(AckWait, Response)>,
    /// Whether our 200 carries an offer, so that the ACK must carry the answer.
    pub(crate) wants_answer: bool,
}

impl PendingInvite {
    /// One that nothing was said to yet.
    pub(crate) const fn new(key: ServerKey, request: Request) -> Self {
        Self { key, request, described: None, wait: None, wants_answer: false }
    }
}

/// A request of ours within the dialog that waits for its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pending {
    /// The end.
    Bye(ClientKey),
    /// A session refresh, or a change of direction.
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Leg {
    pub(crate) id: LegId,
    pub(crate) trunk: TrunkName,
    pub(crate) terms: Terms,
    /// The leg that it talks with; `None` where that is a voice agent.
    pub(crate) partner: Option<u8>,
    /// Whether the peer began it, and so chose its Call-ID.
    pub(crate) is_inbound: bool,
    /// Whether it is the caller's, or has taken its place.
    pub(crate) is_callers_side: bool,
    pub(crate) stage: Stage,
    /// Whether what brought it into its call wants its talk recorded.
    pub(crate) is_to_be_recorded: bool,
    /// Whether the trunk's and the edge's counts hold it.
    pub(crate) is_counted: bool,
    /// Whether its ports are being asked for anew, since it moves to another call.
    pub(crate) is_moving: bool,
    /// The flow; `None` of a leg that is not connected yet.
    pub(crate) peer: Option<Arc<Peer>>,
    /// Whether the flow is gone and must be opened anew before we can send.
    pub(crate) flow_lost: bool,
    /// `None` until the peer that we call has given its tag.
    pub(crate) dialog: Option<Dialog>,
    pub(crate) invite: Option<PendingInvite>,
    /// An offer of the peer's that waits for the partner.
    pub(crate) deferred: Option<Box<Deferred>>,
    /// A provisional response of ours that waits for its PRACK.
    pub(crate) reliable: Option<Reliable>,
    /// The last RSeq of ours.
    pub(crate) rseq: Option<u32>,
    /// Our INVITE, where we called.
    pub(crate) dial: Option<Box<Dialling>>,
    pub(crate) reserved: Option<Reserved>,
    pub(crate) media: Option<LegMedia>,
    /// Whether the peer holds.
    pub(crate) is_held: bool,
    /// The direction that the peer has still to be told.
    pub(crate) to_tell: Option<sdp::Direction>,
    /// The direction that our re-INVITE under way tells.
    pub(crate) told: Option<sdp::Direction>,
    pub(crate) began: Instant,
    pub(crate) ladder: Ladder,
    /// The session timer's terms, and the timer itself.
    pub(crate) agreement: Option<SessionAgreement>,
    pub(crate) session: Option<SessionTimer>,
    /// What our refreshes ask for after a 422 of the peer's.
    pub(crate) raised: Option<SessionTerms>,
    /// Whether the peer takes UPDATE.
    pub(crate) peer_allows_update: bool,
    pub(crate) pending: Option<Pending>,
    pub(crate) credentials: Credentials,
    /// Our latest re-INVITE: each 2xx that it gets is acknowledged, also after our BYE.
    pub(crate) reinvite: Option<ClientKey>,
    /// When to try a refresh again.
    pub(crate) retry_at: Option<Instant>,
    /// Refreshes refused since the last one that was taken.
    pub(crate) refusals: u64,
    /// When a peer whose flow was lost before its ACK must be back.
    pub(crate) back_by: Option<Instant>,
    /// When to look whether a browser whose flow was lost is back.
    pub(crate) look_at: Option<Instant>,
    /// In [`Stage::Ending`] and [`Stage::Moved`]: when the dialog is forgotten.
    pub(crate) forget_at: Option<Instant>,
    /// The shard that it came from, and its stub there.
    pub(crate) home: Option<(u8, LegId)>,
    /// Why it ended, for its BYE.
    pub(crate) ended_by: Option<Reason>,
    /// The causes that the other side gave.
    pub(crate) causes: Causes,
}

impl Leg {
    /// A leg that has nothing yet; `is_inbound` where the peer begins it.
    pub(crate) fn new(
        id: LegId,
        trunk: TrunkName,
        mut terms: Terms,
        is_inbound: bool,
        began: Instant,
    ) -> Self {
        // An exemption holds for one direction of calls.
        let srtp = if is_inbound { terms.srtp_inbound } else { terms.srtp_outbound };
        if srtp == policy::Protection::Required {
            terms.plain_media_from.clear();
        }
        Self {
            id,
            trunk,
            terms,
            partner: None,
            is_inbound,
            is_callers_side: id.index == 0,
            stage: Stage::Inviting,
            is_to_be_recorded: false,
            is_counted: false,
            is_moving: false,
            peer: None,
            flow_lost: false,
            dialog: None,
            invite: None,
            deferred: None,
            reliable: None,
            rseq: None,
            dial: None,
            reserved: None,
            media: None,
            is_held: false,
            to_tell: None,
            told: None,
            began,
            ladder: Ladder::new(id),
            agreement: None,
            session: None,
            raised: None,
            peer_allows_update: false,
            pending: None,
            credentials: Credentials::default(),
            reinvite: None,
            retry_at: None,
            refusals: 0,
            back_by: None,
            look_at: None,
            forget_at: None,
            home: None,
            ended_by: None,
            causes: Causes::default(),
        }
    }

    pub(crate) fn zone(&self) -> Option<&str> {
        self.terms.zone.as_deref()
    }

    pub(crate) fn dialog_id(&self) -> Option<&DialogId> {
        self.dialog.as_ref().map(Dialog::id)
    }

    /// Whether it still counts as part of the call.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ending | Stage::Moved | Stage::Gone)
    }

    /// Whether it is the side that called us.
    pub(crate) const fn is_caller(&self) -> bool {
        self.id.index == 0
    }

    /// When this leg next needs time.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if matches!(self.stage, Stage::Ending | Stage::Moved) {
            return [self.forget_at, self.look_at].into_iter().flatten().min();
        }
        let wait = self.invite.as_ref().and_then(|invite| invite.wait.as_ref());
        [
            wait.map(|(wait, _)| wait.poll_timeout()),
            self.reliable.as_ref().map(Reliable::poll_timeout),
            self.session.as_ref().map(SessionTimer::poll_timeout),
            self.dial.as_ref().and_then(|dial| dial.deadline()),
            self.retry_at,
            self.reserved_by(),
            self.back_by,
            self.look_at,
            self.deferred.as_ref().map(|it| it.until),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// When the relay must have found ports.
    pub(crate) fn reserved_by(&self) -> Option<Instant> {
        let is_waiting = self.stage == Stage::Inviting && self.reserved.is_none();
        is_waiting.then(|| self.began + limit::CALL_RESERVE_MS.millis())
    }

    /// Whether the peer's Allow names a method; RFC 3311 makes UPDATE optional.
    pub(crate) fn note_allowed(&mut self, headers: &sip::Headers) {
        if headers.has(Name::Allow) {
            self.peer_allows_update = headers.has_token(Name::Allow, Method::Update.as_str());
        }
    }

    /// Puts a message into the ladder.
    pub(crate) fn note(&mut self, desk: &mut Desk<'_>, received: bool, message: &Message) {
        self.ladder.note(desk, received, message);
    }

    /// Answers a request within the dialog or the INVITE that begins it.
    pub(crate) fn respond(&mut self, desk: &mut Desk<'_>, key: ServerKey, response: &Response) {
        desk.answer(key, response);
        self.note(desk, false, &Message::Response(response.clone()));
    }

    /// Our tag.
    pub(crate) fn local_tag(&self) -> String {
        self.dialog_id().map(|id| id.local_tag.clone()).unwrap_or_default()
    }

    pub(crate) fn plain_ok(&self, desk: &mut Desk<'_>, request: &Request) -> Response {
        desk.response_tagged(request, Status::OK, &self.local_tag())
    }

    /// Refuses a request within the dialog; the call goes on as it was (RFC 3261 section 14.2).
    pub(crate) fn refuse(
        &mut self,
        desk: &mut Desk<'_>,
        key: ServerKey,
        request: &Request,
        reason: Reason,
    ) {
        let response = desk.refusal(request, reason, true);
        let transport = self.peer.as_ref().map_or("", |peer| peer.transport.word());
        let status = response.status.code();
        self.respond(desk, key, &response);
        desk.event(base::Event::RequestRefused { reason, transport, status });
    }

    /// Sends a request within the dialog over the present flow.
    pub(crate) fn send(
        &mut self,
        desk: &mut Desk<'_>,
        method: Method,
        finish: impl FnOnce(&mut Request),
    ) -> Option<ClientKey> {
        let (peer, dialog) = (self.peer.as_ref()?, self.dialog.as_mut()?);
        let zone = self.terms.zone.as_deref();
        let credentials = &mut self.credentials;
        let (key, message) = desk.request(peer, zone, dialog, method, |request| {
            finish(request);
            credentials.write(request);
        })?;
        self.ladder.note(desk, false, &message);
        self.remember(desk, key, &message);
        Some(key)
    }

    /// The ACK of a 2xx to an INVITE of ours, each time that it comes (RFC 3261 section
    /// 13.2.2.4).
    pub(crate) fn acknowledge(&mut self, desk: &mut Desk<'_>, response: &Response) {
        if let Ok(cseq) = response.headers.cseq()
            && !self.is_offered()
        {
            self.send_ack(desk, cseq.number);
        }
    }

    /// The ACK of our INVITE with this number.
    pub(crate) fn send_ack(&mut self, desk: &mut Desk<'_>, number: u32) {
        let (Some(peer), Some(dialog)) = (&self.peer, &self.dialog) else { return };
        let mut ack = dialog.ack(number);
        self.credentials.write_ack(number, &mut ack);
        if let Some(answer) = self.late_answer(number) {
            ack = ack.with_body("application/sdp", answer.to_owned());
        }
        let message = desk.send_ack(peer, self.terms.zone.as_deref(), ack);
        self.ladder.note(desk, false, &Message::Request(message));
    }
}
