//! Early: what is said before the answer. Ringing and early media of the callee reach the caller,
//! reliably where it asks for that (RFC 3262); provisional responses of the callee's that want it
//! are acknowledged.

use std::time::Duration;

use base::{Instant, Reason, limit};
use policy::RingBack;
use sip::transaction::{GIVE_UP, ServerKey, T1};
use sip::{Dialog, Method, Name, Request, Response, Status};

use crate::answer;
use crate::bridge::Call;
use crate::contract::Output;
use crate::desk::Desk;
use crate::dial::Waiting;
use crate::hold;
use crate::leg::{Leg, Stage};
use crate::negotiate;

/// The option tag (RFC 3262 section 3).
pub(crate) const OPTION_TAG: &str = "100rel";

/// A provisional response of ours that waits for its PRACK.
#[derive(Debug)]
pub(crate) struct Reliable {
    key: ServerKey,
    response: Response,
    /// What its PRACK must name: RSeq and the CSeq of the INVITE.
    number: (u32, u32),
    next: Instant,
    pause: Duration,
    end: Instant,
}

impl Reliable {
    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next.min(self.end)
    }
}

impl Call {
    /// The callee rings, or plays something.
    pub(crate) fn on_progress(&mut self, desk: &mut Desk<'_>, status: Status) {
        match &mut self.route {
            Some(route) if route.waiting == Waiting::Caller => route.early = Some(status),
            _ => {
                self.ring(desk, status == Status::RINGING);
                return self.notify_referrer(desk, status);
            }
        }
        self.pass_early(desk);
    }

    /// Whoever is being carried over hears that the new party's telephone rings, or no longer.
    pub(crate) fn ring(&mut self, desk: &mut Desk<'_>, on: bool) {
        let stays = self.transfer.as_ref().and_then(|transfer| self.place(transfer.stays));
        if let Some(stays) = stays {
            desk.output(Output::Ring { leg: self.legs[stays].id, on });
        }
    }

    /// Tells the caller what the callee said last, as soon as that can be said: its ports are
    /// there, and what was said before is acknowledged.
    pub(crate) fn pass_early(&mut self, desk: &mut Desk<'_>) {
        let Some(route) = &mut self.route else { return };
        let Some(status) = route.early else { return };
        let callee = route.callee;
        let is_ready = self.legs.first().is_some_and(|caller| {
            caller.is_caller()
                && caller.stage == Stage::Inviting
                && caller.invite.is_some()
                && caller.media.is_some()
                && caller.reliable.is_none()
        });
        if !is_ready {
            return;
        }
        route.early = None;
        let has_media = callee
            .and_then(|callee| self.place(callee))
            .and_then(|at| self.legs[at].media.as_ref())
            .is_some_and(|media| media.plan().is_some());
        let is_toned = !has_media
            && status == Status::RINGING
            && self.legs[0].terms.ring_back == RingBack::Tone;
        if (has_media || is_toned)
            && let Err(reason) = self.describe_early(desk)
            && has_media
        {
            return self.hang_up(desk, reason);
        }
        let caller = &mut self.legs[0];
        let described = caller.invite.as_ref().and_then(|invite| invite.described.clone());
        let is_toned = is_toned && described.is_some();
        // A 180 would have the caller's side make a tone of its own.
        let status = if is_toned { Status::SESSION_PROGRESS } else { status };
        let passing = (status, described.is_some());
        let is_news =
            self.route.as_mut().is_some_and(|it| it.passed.replace(passing) != Some(passing));
        if is_news {
            caller.say_early(desk, status, described.as_ref());
        }
        if is_toned {
            self.ring_caller(desk, true);
        }
    }

    /// The caller hears a tone of ours while its callee's telephone rings, or no longer.
    pub(crate) fn ring_caller(&mut self, desk: &mut Desk<'_>, on: bool) {
        let Some(route) = &mut self.route else { return };
        if std::mem::replace(&mut route.is_ringing, on) != on
            && let Some(caller) = self.legs.first().filter(|leg| leg.is_caller())
        {
            desk.output(Output::Ring { leg: caller.id, on });
        }
    }

    /// Answers the caller's offer before the callee answers, so that early media is heard.
    fn describe_early(&mut self, desk: &mut Desk<'_>) -> Result<(), Reason> {
        let Some(invite) = &self.legs[0].invite else { return Ok(()) };
        if invite.described.is_some() {
            return Ok(());
        }
        let Some(offer) = hold::offer_of(&invite.request)? else { return Ok(()) };
        self.prefer_partners(0);
        let caller = &mut self.legs[0];
        let media = caller.media.as_mut().ok_or(Reason::Internal)?;
        let (session, agreed) = media.answer(&offer, desk.random)?;
        if let Some(invite) = &mut caller.invite {
            invite.described = Some(session);
        }
        self.apply(desk, 0, &agreed);
        Ok(())
    }

    /// Lets a leg prefer what its partner has agreed to take, so that nothing is transcoded
    /// without need.
    pub(crate) fn prefer_partners(&mut self, at: usize) {
        let partner = self.partner(at).map(|other| &self.legs[other]);
        let agreed = partner.and_then(|leg| leg.media.as_ref()?.beyond());
        let beyond = agreed.or_else(|| partner.and_then(Leg::offers));
        if let (Some(beyond), Some(media)) = (beyond, self.legs[at].media.as_mut()) {
            media.follow(beyond);
        }
    }

    /// RFC 3262 section 3.
    pub(crate) fn on_prack(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
    ) {
        self.prefer_partners(at);
        let leg = &mut self.legs[at];
        let acknowledged = rack(request);
        let Some(_) = leg.reliable.take_if(|it| Some(it.number) == acknowledged) else {
            return leg.refuse(desk, key, request, Reason::NoDialog);
        };
        // RFC 3262 section 5: it may carry another offer.
        let described = match hold::offer_of(request) {
            Ok(None) => None,
            Ok(Some(offer)) => {
                let media = leg.media.as_mut().ok_or(Reason::RequestPending);
                match media.and_then(|media| media.answer(&offer, desk.random)) {
                    Ok(described) => Some(described),
                    Err(reason) => return leg.refuse(desk, key, request, reason),
                }
            }
            Err(reason) => return leg.refuse(desk, key, request, reason),
        };
        let mut response = leg.plain_ok(desk, request);
        if let Some((session, _)) = &described {
            response = response.with_body("application/sdp", session.to_text());
        }
        leg.respond(desk, key, &response);
        if let Some((session, agreed)) = described {
            if let Some(invite) = &mut leg.invite {
                invite.described = Some(session);
            }
            self.apply(desk, at, &agreed);
        }
        self.pass_early(desk);
        self.answer_caller(desk);
    }
}

impl Leg {
    /// Sends a provisional response to the INVITE that is being answered.
    fn say_early(&mut self, desk: &mut Desk<'_>, status: Status, described: Option<&sdp::Session>) {
        let Some(invite) = &self.invite else { return };
        let (key, request) = (invite.key, invite.request.clone());
        let mut response = desk.response_tagged(&request, status, &self.local_tag());
        if let Some(peer) = &self.peer {
            response.headers.push(Name::Contact, desk.contact(peer, self.zone()));
        }
        answer::describe(&mut response);
        if let Some(session) = described {
            response = response.with_body("application/sdp", session.to_text());
        }
        let headers = &request.headers;
        let is_asked = headers.has_token(Name::Require, OPTION_TAG);
        let is_possible = headers.has_token(Name::Supported, OPTION_TAG);
        if is_asked || (is_possible && described.is_some()) {
            // RFC 3262 section 3: any start below 2^31, then one more each time.
            let first = desk.random.below(1 << 30) + 1;
            let number = self.rseq.map_or(first, |last| last.saturating_add(1));
            self.rseq = Some(number);
            response.headers.push_tokens(Name::Require, [OPTION_TAG]);
            response.headers.push(Name::RSeq, number.to_string());
            let cseq = headers.cseq().map_or(0, |cseq| cseq.number);
            self.reliable = Some(Reliable {
                key,
                response: response.clone(),
                number: (number, cseq),
                next: desk.now + T1,
                pause: T1,
                end: desk.now + GIVE_UP,
            });
        }
        self.respond(desk, key, &response);
    }

    /// Repeats what waits for its PRACK.
    ///
    /// # Errors
    /// It never came: the INVITE is to be refused (RFC 3262 section 3).
    pub(crate) fn on_reliable_timeout(&mut self, desk: &mut Desk<'_>) -> Result<(), Reason> {
        let Some(reliable) = &mut self.reliable else { return Ok(()) };
        if reliable.end <= desk.now {
            return Err(Reason::NoPrack);
        }
        if reliable.next <= desk.now {
            reliable.pause *= 2;
            reliable.next = desk.now + reliable.pause;
            desk.answer(reliable.key, &reliable.response);
        }
        Ok(())
    }

    /// Acknowledges a provisional response of the callee's that wants it, once and in order
    /// (RFC 3262 section 4). `false` where it is one that was seen, or came too early.
    pub(crate) fn acknowledge_early(&mut self, desk: &mut Desk<'_>, response: &Response) -> bool {
        let headers = &response.headers;
        let number = headers.text(Name::RSeq).and_then(|text| text.trim().parse::<u32>().ok());
        let is_reliable = headers.has_token(Name::Require, OPTION_TAG);
        let (Some(number), true) = (number, is_reliable) else { return true };
        let (Some(dial), Some(dialog)) = (&mut self.dial, &self.dialog) else { return true };
        let tag = dialog.id().remote_tag.clone();
        let seen = dial.reliable.get(&tag).copied();
        if seen.is_some_and(|seen| number != seen.wrapping_add(1)) {
            return false;
        }
        dial.reliable.insert(tag, number);
        let cseq = headers.cseq().map_or(0, |cseq| cseq.number);
        self.send(desk, Method::Prack, |prack| {
            prack.headers.push(Name::RAck, format!("{number} {cseq} INVITE"));
        });
        true
    }

    /// Lets the leg speak on the early dialog of this response, which a proxy may have forked.
    /// `false` where it belongs to none, or to one more than limit `call.forks`.
    pub(crate) fn follow_fork(&mut self, response: &Response) -> bool {
        let Some(dial) = &mut self.dial else { return false };
        let Some(invite) = &dial.invite else { return false };
        let Some(tag) = response.headers.to_tag() else { return false };
        if self.dialog.as_ref().is_some_and(|dialog| dialog.id().remote_tag == tag) {
            return true;
        }
        let known = dial.forks.iter().position(|dialog| dialog.id().remote_tag == tag);
        let fork = match known {
            Some(at) => dial.forks.swap_remove(at),
            // Whoever answers is heard, however many ring.
            None if response.status.is_provisional()
                && dial.forks.len() >= limit::CALL_FORKS.get() =>
            {
                return false;
            }
            None => match Dialog::uac(invite, response) {
                Ok(dialog) => dialog,
                Err(_) => return false,
            },
        };
        dial.forks.extend(self.dialog.replace(fork));
        true
    }

    /// Takes the description of an early answer; `None` where there is none that can be used.
    pub(crate) fn take_early(&mut self, response: &Response) -> Option<negotiate::Agreed> {
        if self.is_asked_late() {
            return None; // not before the 2xx, since nothing of ours was reliable
        }
        let answer = hold::description_in(&response.headers, &response.body).ok().flatten()?;
        self.media.as_mut()?.accept(&answer).ok()
    }
}

/// What a PRACK acknowledges: RSeq and the CSeq number of the INVITE (RFC 3262 section 7.2).
fn rack(request: &Request) -> Option<(u32, u32)> {
    let mut words = request.headers.text(Name::RAck)?.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let cseq = words.next()?.parse().ok()?;
    let method = words.next()?;
    (method == Method::Invite.as_str() && words.next().is_none()).then_some((number, cseq))
}
