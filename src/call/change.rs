//! Change: an offer in the middle of a call that its leg cannot take, since the partner speaks only
//! what nobody here decodes, or is offered only that. The partner is offered something that goes
//! with it, and the offer is answered when the partner has answered; 488 only where that is in
//! vain. Everything else is transcoded, and needs no word to the partner.

use base::{Instant, Reason, limit};
use sip::transaction::ServerKey;
use sip::{Method, Request, Response};

use crate::beyond::Beyond;
use crate::bridge::Call;
use crate::desk::Desk;
use crate::hangup;
use crate::hold;
use crate::leg::{Leg, Stage};

/// A request whose offer waits for what the partner says.
#[derive(Debug)]
pub(crate) struct Deferred {
    pub(crate) key: ServerKey,
    pub(crate) request: Request,
    /// The leg that was asked.
    asked: u8,
    /// By when it is answered, whatever the partner does.
    pub(crate) until: Instant,
}

impl Call {
    /// Lets an offer that the leg at `at` cannot take wait for its partner, which is offered what
    /// goes with it.
    ///
    /// # Errors
    /// Why the request is to be refused at once.
    pub(crate) fn ask_partner(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
    ) -> Result<(), Reason> {
        let offer = hold::offer_of(request)?.ok_or(Reason::NoCommonCodec)?;
        let other = self.partner(at).ok_or(Reason::NoCommonCodec)?;
        let beyond = Beyond::offered(&offer, &self.legs[at].terms);
        let partner = &mut self.legs[other];
        let media = partner.media.as_mut().filter(|media| media.plan().is_some());
        let media = media.ok_or(Reason::NoCommonCodec)?;
        if !media.has_codecs_for(&beyond) {
            return Err(Reason::NoCommonCodec);
        }
        if partner.is_tied() {
            return Err(Reason::NoCommonCodec);
        }
        if partner.is_busy() {
            return Err(Reason::RequestPending);
        }
        let offer = partner.media.as_mut().and_then(|media| media.change(beyond, desk.random));
        let offer = offer.ok_or(Reason::NoCommonCodec)?;
        partner.send_offer(desk, &offer);
        if partner.pending.is_none() {
            return Err(Reason::RequestPending);
        }
        let (asked, request) = (partner.id.index, request.clone());
        let until = desk.now + limit::CALL_CHANGE_MS.millis();
        self.legs[at].deferred = Some(Box::new(Deferred { key, request, asked, until }));
        Ok(())
    }

    /// Where the leg stands whose offer waits for the one at `asked`.
    fn awaiting(&self, asked: usize) -> Option<usize> {
        let asked = self.legs[asked].id.index;
        let waits = |leg: &Leg| leg.deferred.as_ref().is_some_and(|it| it.asked == asked);
        self.legs.iter().position(waits)
    }

    /// The leg at `at` refuses what it was offered for its partner's sake: it goes on as it was.
    /// `false` where that is not what the response is about.
    pub(crate) fn change_refused(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        response: Option<&Response>,
    ) -> bool {
        let refused = response.filter(|it| it.status.is_failure());
        let refused = refused.filter(|it| !hangup::ends_dialog(it.status));
        let (Some(response), Some(waits)) = (refused, self.awaiting(at)) else { return false };
        let leg = &mut self.legs[waits];
        let Some(Deferred { key, request, .. }) = leg.deferred.take().map(|it| *it) else {
            return false;
        };
        let reason = match response.status.code() {
            491 => Reason::RequestPending,
            _ => Reason::NoCommonCodec,
        };
        leg.refuse(desk, key, &request, reason);
        self.legs[waits].tell_pending(desk);
        true
    }

    /// The leg at `at` has agreed on something else: who waits for that is answered.
    pub(crate) fn change_agreed(&mut self, desk: &mut Desk<'_>, at: usize) {
        if let Some(waits) = self.awaiting(at) {
            self.answer_deferred(desk, waits);
        }
    }

    /// The partner has said nothing for too long, or is no longer the partner.
    pub(crate) fn on_change_timeout(&mut self, desk: &mut Desk<'_>, at: usize) {
        let deferred = self.legs[at].deferred.as_ref();
        if deferred.is_some_and(|it| it.until <= desk.now) {
            self.answer_deferred(desk, at);
        }
    }

    fn answer_deferred(&mut self, desk: &mut Desk<'_>, at: usize) {
        let Some(deferred) = self.legs[at].deferred.take() else { return };
        let Deferred { key, request, .. } = *deferred;
        match request.method {
            Method::Update => self.update(desk, at, key, &request, false),
            _ => self.reinvite(desk, at, key, request, false),
        }
        self.legs[at].tell_pending(desk);
    }
}

impl Leg {
    /// Whether a request of ours with an offer would cross another one, or would not arrive.
    fn is_busy(&self) -> bool {
        let is_asking = self.pending.is_some() || self.retry_at.is_some();
        let is_asked = self.invite.is_some() || self.deferred.is_some() || self.is_offered();
        self.stage != Stage::Talking || is_asking || is_asked || self.flow_lost || self.is_moving
    }

    /// Whether nothing can be offered to its peer once its session stands: a page of WHIP (RFC 9725
    /// section 4.4). Its media session stays where it is.
    pub(crate) fn is_tied(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.transport == policy::Transport::Whip)
    }
}
