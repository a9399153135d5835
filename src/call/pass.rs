//! Pass: a REFER goes on to the other party (`transfer = "pass"`), which is to call the new one
//! itself, by the edge. What the referrer says of places stays on its side: Refer-To names a number
//! at this edge, and where it names another call of the referrer's (Replaces, RFC 3891) the other
//! party gets a name of that dialog which serves its trunk alone, for a while.

use std::collections::BTreeMap;

use base::{Event, Instant, LegId, Reason, TrunkName, limit};
use sip::transaction::{ClientKey, ServerKey};
use sip::{DialogId, Header, Method, Name, Request, Response, Status, Uri};

use crate::bridge::Call;
use crate::desk::{Desk, Join, Joined};
use crate::leg::{Leg, Stage};

/// A REFER that goes on to the other party.
#[derive(Debug)]
pub(crate) struct Passing {
    /// The leg that it came from.
    from: u8,
    /// The leg that it goes to.
    to: u8,
    /// Its CSeq at the referrer, by which it knows our NOTIFYs (RFC 3515 section 2.4.6).
    id: u32,
    /// Whether the referrer wants them (RFC 4488).
    subscribes: bool,
    /// Where it points.
    place: Uri,
    /// The referrer's REFER, while it is unanswered.
    asked: Option<(ServerKey, Request)>,
    /// Ours.
    sent: Option<ClientKey>,
    /// By when the other party must have answered.
    answer_by: Instant,
    /// When nothing is expected of it any more.
    until: Instant,
}

impl Passing {
    /// Whether another one has to wait for it.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        self.asked.is_some() || self.until > now
    }

    /// Whether ours is still to be sent.
    pub(crate) const fn is_unsent(&self) -> bool {
        self.asked.is_some() && self.sent.is_none()
    }

    pub(crate) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    /// By when it must be answered.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.asked.as_ref().map(|_| self.answer_by)
    }

    /// Our REFER and the leg that it was sent on.
    pub(crate) fn sent(&self) -> Option<(ClientKey, u8)> {
        self.sent.map(|key| (key, self.to))
    }
}

/// Names of dialogs that were given to a trunk, so that it may replace them.
#[derive(Debug, Default)]
pub(crate) struct Grants(BTreeMap<DialogId, Grant>);

#[derive(Debug)]
struct Grant {
    leg: LegId,
    to: TrunkName,
    until: Instant,
}

impl Grants {
    /// Gives a trunk a name for the dialog of a leg; `false` beyond limit `call.referrals`.
    pub(crate) fn give(&mut self, now: Instant, name: DialogId, leg: LegId, to: TrunkName) -> bool {
        self.0.retain(|_, grant| grant.until > now);
        let has_room = self.0.len() < limit::CALL_REFERRALS.get();
        if has_room {
            let until = now + limit::CALL_REFERRAL_MS.millis();
            self.0.insert(name, Grant { leg, to, until });
        }
        has_room
    }

    /// The leg that a trunk knows by this name.
    pub(crate) fn leg(&self, now: Instant, name: &DialogId, trunk: &TrunkName) -> Option<LegId> {
        let grant = self.0.get(name).filter(|grant| grant.until > now && grant.to == *trunk)?;
        Some(grant.leg)
    }
}

impl Call {
    /// Passes a REFER of the leg at `at` on, as soon as it is known what its Replaces names.
    pub(crate) fn pass(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        (key, request): (ServerKey, &Request),
        (place, replaces): (&Uri, Option<DialogId>),
    ) {
        let leg = &self.legs[at];
        let Some(to) = leg.partner else { return };
        let (from, trunk) = (leg.id, leg.trunk.clone());
        let headers = &request.headers;
        self.passing = Some(Passing {
            from: from.index,
            to,
            id: headers.cseq().map_or(0, |cseq| cseq.number),
            subscribes: !declines_news(request),
            place: place.clone(),
            asked: Some((key, request.clone())),
            sent: None,
            answer_by: desk.now + limit::CALL_REFER_MS.millis(),
            until: desk.now + limit::CALL_REFERRAL_MS.millis(),
        });
        desk.event(Event::TransferBegan { call: self.id });
        match replaces {
            Some(dialog) => {
                let partner = self.place(to).map(|at| self.legs[at].trunk.clone());
                let how = Joined::Named { to: partner.unwrap_or_else(|| trunk.clone()) };
                desk.joins.push_back(Join { leg: from, trunk, dialog, early_only: false, how });
            }
            None => self.send_refer(desk, None),
        }
    }

    /// Sends our REFER; `replaces` is what the other party may call the dialog to be replaced.
    pub(crate) fn send_refer(&mut self, desk: &mut Desk<'_>, replaces: Option<&DialogId>) {
        let Some(passing) = &self.passing else { return };
        let to = self.place(passing.to).filter(|at| self.legs[*at].stage == Stage::Talking);
        let Some(to) = to else { return self.refer_failed(desk, Reason::TransferRefused) };
        let user = passing.place.user_unescaped().map(|user| user.into_owned());
        let user = user.or_else(|| passing.place.number());
        let leg = &mut self.legs[to];
        let Some(peer) = leg.peer.clone() else { return };
        let place = desk.place(&peer, leg.zone(), user.as_deref());
        let place = match replaces {
            // Call-ID and tags are of our making: nothing else in them wants escaping.
            Some(DialogId { call_id, local_tag, remote_tag }) => format!(
                "<{}?Replaces={call_id}%3Bto-tag%3D{local_tag}%3Bfrom-tag%3D{remote_tag}>",
                place.as_str()
            ),
            None => format!("<{}>", place.as_str()),
        };
        let subscribes = passing.subscribes;
        let sent = leg.send(desk, Method::Refer, |refer| {
            refer.headers.push(Name::ReferTo, place);
            if !subscribes && let Some(header) = Header::extension("Refer-Sub", "false") {
                refer.headers.push_header(header);
            }
        });
        match (sent, &mut self.passing) {
            (Some(key), Some(passing)) => passing.sent = Some(key),
            _ => self.refer_failed(desk, Reason::TransferRefused),
        }
    }

    /// The other party's word on our REFER; `None` where none came.
    pub(crate) fn on_refer_response(&mut self, desk: &mut Desk<'_>, response: Option<&Response>) {
        let status = response.map(|response| response.status);
        if status.is_some_and(Status::is_provisional) {
            return;
        }
        if !status.is_some_and(Status::is_success) {
            let is_glare = status.is_some_and(|status| status.code() == 491);
            let reason = if is_glare { Reason::RequestPending } else { Reason::TransferRefused };
            return self.refer_failed(desk, reason);
        }
        let Some(passing) = &mut self.passing else { return };
        let (asked, from) = (passing.asked.take(), passing.from);
        self.passing.take_if(|passing| !passing.subscribes);
        if let (Some((key, request)), Some(at)) = (asked, self.place(from)) {
            self.legs[at].accept_refer(desk, key, &request);
        }
    }

    /// A REFER that is to go on does not: the referrer is told.
    pub(crate) fn refer_failed(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        let Some(passing) = self.passing.take() else { return };
        if let (Some((key, request)), Some(at)) = (passing.asked, self.place(passing.from)) {
            self.legs[at].refuse(desk, key, &request, reason);
            desk.event(Event::TransferFailed { call: self.id, reason });
        }
    }

    /// How the other party fares with our REFER (RFC 3515 section 2.4.5). Of its NOTIFY nothing
    /// goes on but the status.
    pub(crate) fn on_notify(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        key: ServerKey,
        request: &Request,
    ) {
        let leg = &mut self.legs[at];
        let index = leg.id.index;
        let headers = &request.headers;
        let event = headers.text(Name::Event).unwrap_or_default();
        let is_refer = event.split(';').next().is_some_and(|it| it.trim() == "refer");
        let Some(passing) = self.passing.as_ref().filter(|it| it.to == index && is_refer) else {
            return leg.refuse(desk, key, request, Reason::NoDialog);
        };
        let Some(status) = fragment(&request.body) else {
            return leg.refuse(desk, key, request, Reason::Malformed);
        };
        let response = leg.plain_ok(desk, request);
        leg.respond(desk, key, &response);
        let state = headers.text(Name::SubscriptionState).unwrap_or_default();
        let is_over = status.is_final() || state.trim_start().starts_with("terminated");
        let (from, id, subscribes) = (passing.from, passing.id, passing.subscribes);
        if let Some(from) = self.place(from).filter(|_| subscribes) {
            self.legs[from].notify(desk, id, status, is_over);
        }
        if is_over {
            let call = self.id;
            desk.event(match status.is_success() {
                true => Event::TransferDone { call },
                false => Event::TransferFailed { call, reason: Reason::TransferRefused },
            });
            // Who asked may still wait for the answer to its REFER.
            self.passing.take_if(|passing| !passing.is_asked());
        }
    }
}

impl Leg {
    /// Answers a REFER with 202 (RFC 3515 section 2.4.2).
    pub(crate) fn accept_refer(&mut self, desk: &mut Desk<'_>, key: ServerKey, refer: &Request) {
        let accepted = Status::new(202).unwrap_or(Status::OK);
        let mut response = desk.response_tagged(refer, accepted, &self.local_tag());
        if let Some(peer) = &self.peer {
            response.headers.push(Name::Contact, desk.contact(peer, self.zone()));
        }
        // RFC 4488 section 4: nobody is told how it goes, as was asked for.
        if declines_news(refer)
            && let Some(header) = Header::extension("Refer-Sub", "false")
        {
            response.headers.push_header(header);
        }
        self.respond(desk, key, &response);
    }

    /// Tells who sent the REFER of this CSeq how it goes (RFC 3515 section 2.4.5).
    pub(crate) fn notify(&mut self, desk: &mut Desk<'_>, id: u32, status: Status, is_over: bool) {
        if self.stage != Stage::Talking || self.flow_lost {
            return;
        }
        self.send(desk, Method::Notify, |notify| {
            let headers = &mut notify.headers;
            headers.push(Name::Event, format!("refer;id={id}"));
            let state = if is_over { "terminated;reason=noresource" } else { "active;expires=180" };
            headers.push(Name::SubscriptionState, state);
            headers.set(Name::ContentType, "message/sipfrag;version=2.0");
            notify.body = format!("SIP/2.0 {status}\r\n").into();
        });
    }
}

/// Whether who sent a REFER wants to hear nothing of it (RFC 4488).
pub(crate) fn declines_news(refer: &Request) -> bool {
    refer.headers.named("Refer-Sub").any(|it| it.text() == Some("false"))
}

/// The status in a sipfrag body (RFC 3420).
fn fragment(body: &[u8]) -> Option<Status> {
    let text = std::str::from_utf8(body).ok()?;
    let mut words = text.lines().next()?.split_ascii_whitespace();
    let is_sip = words.next()?.eq_ignore_ascii_case("SIP/2.0");
    Status::new(words.next()?.parse().ok()?).filter(|_| is_sip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_a_status_line() {
        let code = |text: &[u8]| fragment(text).map(Status::code);
        assert_eq!(code(b"SIP/2.0 486 Busy Here\r\nReason: x\r\n"), Some(486));
        assert_eq!(code(b"SIP/2.0 100 Trying"), Some(100));
        for wrong in [&b""[..], b"SIP/2.0", b"HTTP/1.1 200 OK", b"SIP/2.0 20 OK", b"\xff 200"] {
            assert_eq!(code(wrong), None);
        }
    }
}
