//! Dial: the callee's leg, from the route to its answer. Targets are tried in policy's order;
//! nothing of the caller's side goes into our INVITE but the numbers and the name.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use base::{Event, Instant, LegId, Personal, Reason, limit};
use media::Need;
use policy::{Destination, Target, Transport};
use sip::transaction::{ClientKey, GIVE_UP};
use sip::{
    Dialog, Headers, Host, Message, Method, Name, NameAddr, Request, Response, Scheme,
    SessionTerms, Status, Uri, ids,
};

use crate::admit::SUPPORTED;
use crate::beyond::Beyond;
use crate::bridge::Call;
use crate::cause;
use crate::contract::{Output, Peer, Unserved};
use crate::credentials::{self, Tries};
use crate::desk::{ALLOW, Desk};
use crate::hold;
use crate::late::{self, Late};
use crate::leg::{Leg, Pending, Stage};
use crate::negotiate::LegMedia;

/// Who waits for the callee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The caller, whose INVITE is unanswered.
    Caller,
    /// A leg that is to be carried over.
    Transfer {
        /// Which.
        stays: u8,
    },
}

/// Whom to try for a call that goes to a trunk.
#[derive(Debug)]
pub(crate) struct Route {
    /// For whom.
    pub(crate) waiting: Waiting,
    /// Whether it wants the call recorded.
    is_recorded: bool,
    /// What is left, in order.
    left: VecDeque<Attempt>,
    /// Attempts made so far.
    made: u64,
    /// The leg that is being dialled, or has answered.
    pub(crate) callee: Option<u8>,
    /// What the callee said that the caller was not told yet.
    pub(crate) early: Option<Status>,
    /// What the caller was told last, and whether with a description.
    pub(crate) passed: Option<(Status, bool)>,
    /// Whether the caller hears a ring-back tone of ours.
    pub(crate) is_ringing: bool,
    /// Why the last attempt failed.
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
struct Attempt {
    target: Arc<Target>,
    uri: String,
    /// The leg that tried the URI's last address in vain.
    after: Option<(LegId, Unserved)>,
}

/// Why an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What the caller is told.
    pub(crate) reason: Reason,
    /// The callee's status, where it gave one that may be passed on.
    pub(crate) status: Option<Status>,
    /// The cause of ITU-T Q.850 that came with it (RFC 3326), or that its status stands for.
    pub(crate) cause: Option<u16>,
    /// How the address did not serve, where it answered so.
    pub(crate) unserved: Option<Unserved>,
}

impl Failure {
    pub(crate) const fn of(reason: Reason) -> Self {
        Self { reason, status: None, cause: None, unserved: None }
    }
}

/// Our INVITE on its way.
#[derive(Debug)]
pub(crate) struct Dialling {
    attempt: Attempt,
    /// The Contact of the account that is dialled, once its flow is there.
    contact: Option<Personal<String>>,
    /// Whether an address of the URI took a connection, and whether it has said anything.
    is_reached: bool,
    is_served: bool,
    /// The transaction, once the INVITE is sent, and the INVITE as it was sent.
    pub(crate) key: Option<ClientKey>,
    pub(crate) invite: Option<Request>,
    /// Early dialogs beside the one that the leg speaks on.
    pub(crate) forks: Vec<Dialog>,
    /// The last reliable response by To tag (RFC 3262 section 4).
    pub(crate) reliable: BTreeMap<String, u32>,
    /// When something must have been heard.
    heard_by: Option<Instant>,
    /// When the callee must have answered.
    answered_by: Option<Instant>,
    /// Whether its final response has come.
    is_final: bool,
    /// Whether a 422 was followed already.
    is_raised: bool,
    /// Who has asked for credentials.
    pub(crate) tries: Tries,
    pub(crate) late: Late,
}

impl Dialling {
    /// What the INVITE goes over.
    pub(crate) fn transport(&self) -> Transport {
        transport_of(&self.attempt.uri)
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.heard_by, self.answered_by].into_iter().flatten().min()
    }

    /// Another INVITE is on its way, with nothing left of what the first one began.
    pub(crate) fn begin_again(&mut self, key: ClientKey, invite: Request, heard_by: Instant) {
        (self.key, self.invite, self.is_final) = (Some(key), Some(invite), false);
        (self.heard_by, self.answered_by) = (Some(heard_by), None);
        self.forks.clear();
        self.reliable.clear();
    }
}

/// Who calls, for our INVITE: all that crosses from the caller's side.
#[derive(Clone, Default)]
pub(crate) struct Caller {
    /// Number or user after normalisation.
    pub(crate) number: String,
    /// The account of a browser that calls, which other browsers are shown.
    pub(crate) account: Option<String>,
    /// The display name of its From.
    pub(crate) display: Option<String>,
    /// Whether it asserted an identity (RFC 3325).
    pub(crate) is_asserted: bool,
    /// Its Privacy (RFC 3323).
    pub(crate) privacy: Option<String>,
    /// Hops left.
    pub(crate) hops: u8,
}

impl std::fmt::Debug for Caller {
    /// Nothing: it is a person.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Caller")
    }
}

impl Caller {
    /// What an INVITE says of its caller, whose number policy has normalised.
    pub(crate) fn of(invite: &Request, number: &str) -> Self {
        let headers = &invite.headers;
        Self {
            number: number.to_owned(),
            account: None,
            display: headers.from().ok().and_then(|from| from.display),
            is_asserted: headers.has(Name::PAssertedIdentity),
            privacy: headers.text(Name::Privacy).map(str::to_owned),
            hops: headers.max_forwards().ok().flatten().unwrap_or(70),
        }
    }

    /// The caller of a browser's call. What others see of it is what `api` asserts, and nothing of
    /// the browser's own: a number that differs from the user of its address, else the `present` of
    /// its trunk, else nobody.
    pub(crate) fn of_browser(invite: &Request, number: &str, present: Option<&str>) -> Self {
        let headers = &invite.headers;
        let asserted = headers.addresses(Name::PAssertedIdentity).unwrap_or_default();
        let asserted = asserted.into_iter().next();
        let user = |uri: &Uri| uri.user_unescaped().map(|user| user.into_owned());
        let own = headers.from().ok().and_then(|from| user(&from.uri));
        let given =
            asserted.as_ref().and_then(|it| user(&it.uri)).filter(|it| Some(it) != own.as_ref());
        let number = given.map_or(present.unwrap_or_default(), |_| number);
        Self {
            number: number.to_owned(),
            // Ids of tokens and keys are nobody's name.
            account: own.filter(|own| !own.starts_with("bt_") && !own.starts_with("key_")),
            display: asserted.and_then(|it| it.display),
            is_asserted: true,
            privacy: None,
            hops: headers.max_forwards().ok().flatten().unwrap_or(70),
        }
    }

    fn is_anonymous(&self) -> bool {
        let asks = |privacy: &str| privacy.split(';').any(|it| matches!(it.trim(), "id" | "user"));
        self.number.is_empty() || self.privacy.as_deref().is_some_and(asks)
    }
}

impl Call {
    /// Dials the callee of a call that goes to a trunk.
    pub(crate) fn route_caller(&mut self, desk: &mut Desk<'_>) {
        if let Destination::Trunk { targets } = &self.accepted.destination {
            let targets = targets.clone();
            self.route(desk, &targets, Waiting::Caller, self.accepted.record);
        }
    }

    /// Takes targets and dials the first.
    /// `is_recorded` is what the route says of recording.
    pub(crate) fn route(
        &mut self,
        desk: &mut Desk<'_>,
        targets: &[Target],
        waiting: Waiting,
        is_recorded: bool,
    ) {
        let left = targets.iter().cloned().map(Arc::new).flat_map(|target| {
            let uris = target.send_to.clone();
            uris.into_iter().map(move |uri| Attempt {
                target: Arc::clone(&target),
                uri,
                after: None,
            })
        });
        self.route = Some(Route {
            waiting,
            is_recorded,
            left: left.collect(),
            made: 0,
            callee: None,
            early: None,
            passed: None,
            is_ringing: false,
            failure: None,
        });
        self.dial_next(desk);
    }

    /// Dials the next target, or tells the caller why none was reached.
    fn dial_next(&mut self, desk: &mut Desk<'_>) {
        self.ring_caller(desk, false);
        let Some(route) = &mut self.route else { return };
        route.callee = None;
        if route.made < limit::CALL_ATTEMPTS.value
            && let Some(attempt) = route.left.pop_front()
        {
            route.made += 1;
            return self.dial(desk, attempt);
        }
        let failure = route.failure.take().unwrap_or(Failure::of(Reason::TrunkUnreachable));
        self.route_failed(desk, failure);
    }

    fn route_failed(&mut self, desk: &mut Desk<'_>, failure: Failure) {
        match self.route.take().map(|route| route.waiting) {
            Some(Waiting::Transfer { .. }) => self.transfer_failed(desk, failure),
            Some(Waiting::Caller) | None => self.fail(desk, failure),
        }
    }

    /// Begins a leg: its ports and its connection are asked for at the same time.
    fn dial(&mut self, desk: &mut Desk<'_>, attempt: Attempt) {
        let Some(id) = self.next_leg() else {
            return self.route_failed(desk, Failure::of(Reason::TrunkUnreachable));
        };
        let (trunk, terms) = (attempt.target.trunk.clone(), attempt.target.terms.clone());
        let heard_by = desk.now + terms.first_response;
        let mut leg = Leg::new(id, trunk.clone(), terms, false, desk.now);
        let waiting = self.route.as_ref().map(|route| route.waiting);
        let partner = match waiting {
            Some(Waiting::Transfer { stays }) => stays,
            _ => 0,
        };
        (leg.is_counted, leg.partner) = (true, Some(partner));
        leg.is_to_be_recorded = self.route.as_ref().is_some_and(|route| route.is_recorded);
        desk.ledger.attempt(desk.now, &trunk);
        desk.ledger.begin_leg(&trunk);
        desk.event(Event::LegDialled { leg: id, trunk: trunk.clone() });
        let (uri, after) = (attempt.uri.clone(), attempt.after);
        leg.dial = Some(Box::new(Dialling {
            attempt,
            contact: None,
            is_reached: false,
            is_served: false,
            key: None,
            invite: None,
            forks: Vec::new(),
            reliable: BTreeMap::new(),
            heard_by: Some(heard_by),
            answered_by: None,
            is_final: false,
            is_raised: false,
            tries: Tries::default(),
            late: Late::default(),
        }));
        let zone = leg.zone().and_then(|name| desk.setup.policy.zone(name));
        // Where the zone names no address the relay takes the one of the way to the peer.
        let bind = zone.and_then(|zone| zone.media);
        let transport = transport_of(&uri);
        if let Some(bind) = bind {
            let need = leg.need_to_dial((bind, None));
            desk.output(Output::Reserve { leg: id, need });
        }
        let (uri, proved) = (Personal::new(uri), Arc::default());
        desk.output(Output::Connect { leg: id, trunk, uri, transport, proved, after });
        if let Some(route) = &mut self.route {
            route.callee = Some(id.index);
        }
        // A leg that is carried over goes on as it is until the new party has answered.
        if let (Some(Waiting::Caller), Some(caller)) = (waiting, self.place(0)) {
            self.legs[caller].partner = Some(id.index);
        }
        self.legs.push(leg);
    }

    /// The callee's flow is there.
    pub(crate) fn on_dialled(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        peer: Arc<Peer>,
        contact: Option<Personal<String>>,
    ) {
        let leg = &mut self.legs[at];
        let Some(dial) = &mut leg.dial else { return };
        (dial.is_reached, dial.contact) = (true, contact);
        let local = peer.local.ip();
        leg.peer = Some(peer);
        let zone = leg.zone().and_then(|name| desk.setup.policy.zone(name));
        if zone.and_then(|zone| zone.media).is_none() && leg.reserved.is_none() {
            let (bind, beside) = leg.addresses(desk, Some(local));
            let need = leg.need_to_dial((bind.unwrap_or(local), beside));
            desk.output(Output::Reserve { leg: leg.id, need });
        }
        self.invite(desk, at);
    }

    /// No address of the callee's name can be reached, or none is left.
    pub(crate) fn on_undialled(&mut self, desk: &mut Desk<'_>, at: usize, reason: Reason) {
        self.attempt_failed(desk, at, Failure::of(reason), true);
    }

    /// Sends the INVITE once ports and flow are there.
    pub(crate) fn invite(&mut self, desk: &mut Desk<'_>, at: usize) {
        let (beyond, is_late) = (self.beyond(&self.legs[at]), self.is_late(at));
        let leg = &mut self.legs[at];
        let is_sent = leg.dial.as_ref().is_none_or(|dial| dial.key.is_some());
        if is_sent || leg.stage != Stage::Inviting {
            return;
        }
        let (Some(peer), Some(media)) = (leg.peer.clone(), leg.media.as_mut()) else { return };
        beyond.into_iter().for_each(|beyond| media.follow(beyond));
        if !media.has_codecs() {
            return self.attempt_failed(desk, at, Failure::of(Reason::NoCommonCodec), true);
        }
        let session = (!is_late).then(|| media.offer(desk.random));
        let request = leg.invitation(desk, &self.caller, &self.called, &peer);
        let Some(mut request) = request else {
            return self.attempt_failed(desk, at, Failure::of(Reason::TrunkUnreachable), true);
        };
        match session {
            Some(session) => request = request.with_body("application/sdp", session.to_text()),
            None => late::without_reliability(&mut request),
        }
        leg.credentials.write(&mut request);
        let Some((key, request)) = desk.call(&peer, leg.terms.zone.as_deref(), request) else {
            return self.attempt_failed(desk, at, Failure::of(Reason::EdgeCallLimit), false);
        };
        leg.note(desk, false, &Message::Request(request.clone()));
        if let Some(dial) = &mut leg.dial {
            (dial.key, dial.invite, dial.late.is_asked) = (Some(key), Some(request), is_late);
            dial.heard_by = Some(desk.now + leg.terms.first_response);
        }
    }

    /// What the party takes that a leg is to talk with: as it has agreed, or as it offers.
    pub(crate) fn beyond(&self, leg: &Leg) -> Option<Beyond> {
        let waits = &self.legs[self.place(leg.partner?)?];
        let agreed = waits.media.as_ref().and_then(|media| media.beyond());
        agreed.or_else(|| {
            let offer = hold::offer_of(&waits.invite.as_ref()?.request).ok()??;
            Some(Beyond::offered(&offer, &waits.terms))
        })
    }

    /// A response to our INVITE; `None` is a timeout or a flow that failed.
    pub(crate) fn on_dial_response(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        response: Option<&Response>,
    ) {
        let leg = &mut self.legs[at];
        if let Some(dial) = &mut leg.dial {
            dial.is_final |= response.is_none_or(|response| response.status.is_final());
        }
        let Some(response) = response else {
            let was_heard = leg.dial.as_ref().is_some_and(|dial| dial.heard_by.is_none());
            let reason = if was_heard { Reason::NoAnswer } else { Reason::TrunkUnreachable };
            return self.attempt_failed(desk, at, Failure::of(reason), true);
        };
        leg.note_served(desk, response);
        if response.status.is_success() {
            return self.on_callee_answered(desk, at, response);
        }
        if !response.status.is_provisional() {
            return self.on_callee_refused(desk, at, response);
        }
        let Some(dial) = &mut leg.dial else { return };
        dial.heard_by = None;
        let ring = desk.now + leg.terms.ring;
        dial.answered_by.get_or_insert(ring);
        let is_news = leg.stage == Stage::Inviting && response.status != Status::TRYING;
        if !is_news || !leg.follow_fork(response) && response.headers.to_tag().is_some() {
            return;
        }
        if !leg.acknowledge_early(desk, response) {
            return;
        }
        leg.note_allowed(&response.headers);
        if let Some(agreed) = leg.take_early(response) {
            self.apply(desk, at, &agreed);
        }
        self.on_progress(desk, response.status);
    }

    fn on_callee_refused(&mut self, desk: &mut Desk<'_>, at: usize, response: &Response) {
        let leg = &mut self.legs[at];
        if leg.stage != Stage::Inviting {
            leg.stage = Stage::Gone; // the 487 of our CANCEL
            return;
        }
        if response.status.code() == 422 && leg.raise(desk, &response.headers) {
            return;
        }
        if credentials::is_challenge(response) {
            return match leg.invite_again(desk, response) {
                Ok(()) => {}
                Err(reason) => self.on_not_let_in(desk, at, reason),
            };
        }
        let is_redirect = (300..400).contains(&response.status.code());
        if is_redirect {
            self.redirect(at, &response.headers);
        }
        let is_passing = self.legs[at].goes_on_after(response.status.code());
        self.attempt_failed(desk, at, cause::of_refusal(response), is_passing || is_redirect);
    }

    /// A trunk does not take our credentials: neither will its other addresses, and asking each of
    /// them could lock the account.
    fn on_not_let_in(&mut self, desk: &mut Desk<'_>, at: usize, reason: Reason) {
        let trunk = &self.legs[at].trunk;
        if let Some(route) = &mut self.route {
            route.left.retain(|attempt| attempt.target.trunk != *trunk);
        }
        self.attempt_failed(desk, at, Failure::of(reason), true);
    }

    /// An attempt is over: the next target, where the failure is not the callee's own word.
    pub(crate) fn attempt_failed(
        &mut self,
        desk: &mut Desk<'_>,
        at: usize,
        failure: Failure,
        is_passing: bool,
    ) {
        let leg = &mut self.legs[at];
        if leg.is_over() {
            leg.stage = Stage::Gone;
            return;
        }
        desk.event(Event::LegFailed { leg: leg.id, reason: failure.reason });
        let retried = leg.dial.as_ref().filter(|_| is_passing && leg.stage == Stage::Inviting);
        // What has served once is no better at its next address.
        let retried = retried.filter(|dial| dial.is_reached && !dial.is_served).map(|dial| {
            let after = Some((leg.id, failure.unserved.unwrap_or(Unserved::Silent)));
            Attempt { after, ..dial.attempt.clone() }
        });
        leg.give_up(desk, failure.reason);
        let Some(route) = &mut self.route else { return };
        route.failure = Some(failure);
        if !is_passing {
            route.left.clear();
        } else if let Some(retried) = retried {
            route.left.push_front(retried);
        }
        self.dial_next(desk);
    }

    /// Takes the contacts of a 3xx that are at the trunk itself: another number there is followed,
    /// another network is not, since the caller's side would pay for a call that no route allows.
    fn redirect(&mut self, at: usize, headers: &Headers) {
        let Some(dial) = &self.legs[at].dial else { return };
        let Some(route) = &mut self.route else { return };
        let Ok(base) = Uri::parse(&dial.attempt.uri) else { return };
        let contacts = headers.addresses(Name::Contact).unwrap_or_default();
        for contact in contacts.into_iter().rev().take(limit::CALL_REDIRECTS.get()) {
            let known = dial.attempt.target.send_to.iter().filter_map(|uri| Uri::parse(uri).ok());
            let is_there = contact.uri.host().is_some_and(|host| {
                known.clone().any(|uri| uri.host().is_some_and(|it| it.equivalent(host)))
            });
            let (Some(user), Some(host), true) = (contact.uri.user(), base.host(), is_there) else {
                continue;
            };
            let mut uri = Uri::sip(Some(user), host, base.port());
            if let Some(transport) = base.param("transport") {
                uri = uri.with_param("transport", Some(transport));
            }
            let uri = uri.as_str().to_owned();
            let target = Arc::clone(&dial.attempt.target);
            route.left.push_front(Attempt { target, uri, after: None });
        }
    }

    /// A 2xx to our INVITE, each time that one comes (RFC 3261 section 13.2.2.4).
    fn on_callee_answered(&mut self, desk: &mut Desk<'_>, at: usize, response: &Response) {
        let leg = &mut self.legs[at];
        let tag = response.headers.to_tag();
        let is_known = leg.dialog_id().is_some_and(|id| Some(&id.remote_tag) == tag.as_ref());
        match leg.stage {
            Stage::Talking | Stage::Moved if is_known => return leg.acknowledge(desk, response),
            // Another fork answered as well: it is told that it came second.
            Stage::Talking | Stage::Moved => return leg.dismiss(desk, response),
            // Our BYE is on its way.
            Stage::Ending if leg.pending.is_some() && is_known => {
                return leg.acknowledge(desk, response);
            }
            Stage::Ending if leg.pending.is_some() => return leg.dismiss(desk, response),
            Stage::Gone => return,
            Stage::Inviting | Stage::Answered | Stage::Ending => {}
        }
        let is_followed = leg.follow_fork(response);
        let confirmed = leg.dialog.as_mut().filter(|_| is_followed);
        if confirmed.is_none_or(|dialog| dialog.confirm(response).is_err()) {
            leg.dismiss(desk, response);
            return self.attempt_failed(desk, at, Failure::of(Reason::Malformed), false);
        }
        let is_late = leg.is_asked_late() && leg.stage != Stage::Ending;
        if !is_late {
            leg.acknowledge(desk, response);
        }
        if leg.stage == Stage::Ending {
            // It crossed our CANCEL.
            return leg.send_bye(desk);
        }
        if let Some(dial) = &mut leg.dial {
            (dial.heard_by, dial.answered_by) = (None, None);
        }
        leg.stage = Stage::Talking;
        leg.note_allowed(&response.headers);
        leg.take_session_terms(desk, &response.headers);
        if is_late {
            return self.on_offered(desk, at, response);
        }
        let agreed = match hold::description_in(&response.headers, &response.body) {
            Ok(Some(answer)) => leg.media.as_mut().map(|media| media.accept(&answer)),
            // A reliable provisional response had it (RFC 3262 section 5).
            Ok(None) => leg
                .media
                .as_ref()
                .and_then(|it| it.plan())
                .is_none()
                .then_some(Err(Reason::SdpMalformed)),
            Err(reason) => Some(Err(reason)),
        };
        match agreed {
            Some(Ok(agreed)) => self.apply(desk, at, &agreed),
            Some(Err(reason)) => return self.attempt_failed(desk, at, Failure::of(reason), false),
            None => {}
        }
        match self.route.as_ref().map(|route| route.waiting) {
            Some(Waiting::Transfer { .. }) => self.target_is_up(desk, at),
            _ => self.answer_caller(desk),
        }
    }

    /// Acts on what is due while a leg is being dialled.
    pub(crate) fn on_dial_timeout(&mut self, desk: &mut Desk<'_>, at: usize) {
        let Some(dial) = &self.legs[at].dial else { return };
        if dial.heard_by.is_some_and(|by| by <= desk.now) {
            let failure = Failure::of(Reason::TrunkUnreachable);
            self.attempt_failed(desk, at, failure, true);
        } else if dial.answered_by.is_some_and(|by| by <= desk.now) {
            // What the caller would be told counts.
            let is_passing = self.legs[at].goes_on_after(Reason::NoAnswer.sip_status());
            self.attempt_failed(desk, at, Failure::of(Reason::NoAnswer), is_passing);
        }
    }
}

impl Leg {
    /// What the relay has to find for a leg that offers, at this address, and in the other family.
    pub(crate) fn need_to_dial(&self, (bind, beside): (IpAddr, Option<IpAddr>)) -> Need {
        let negotiated = self.media.as_ref().map(LegMedia::is_dtls);
        let dtls = negotiated.unwrap_or_else(|| self.is_browsers());
        Need { bind, beside, separate_rtcp: !dtls, dtls, fresh_identity: false }
    }

    /// Our INVITE without Via and Contact (RFC 3261 section 8.1.1).
    fn invitation(
        &self,
        desk: &mut Desk<'_>,
        caller: &Caller,
        called: &str,
        peer: &Peer,
    ) -> Option<Request> {
        let uri = Uri::parse(&self.dial.as_ref()?.attempt.uri).ok()?;
        let host = uri.host()?;
        let user = uri.user_unescaped().map(|user| user.into_owned());
        let user = user.unwrap_or_else(|| called.to_owned());
        let to = Uri::sip(Some(&user), host, None);
        let mut target = match uri.scheme() {
            Scheme::Sips => Uri::sips(Some(&user), host, uri.port()),
            _ => Uri::sip(Some(&user), host, uri.port()),
        };
        for (name, value) in uri.params() {
            target = target.with_param(name, value);
        }
        // RFC 3261 section 10.3: what is registered takes the place of the address of record.
        if let Some(contact) = &self.dial.as_ref()?.contact {
            target = Uri::parse(contact.expose()).ok()?.without_headers();
        }
        let us = desk.host(peer, self.zone());
        let tag = ids::new_tag(desk.shard, desk.random);
        let anonymous = Host::parse("anonymous.invalid")?;
        // RFC 3323 section 4.1.1.3.
        let account = caller.account.as_deref().filter(|_| self.is_browsers());
        let from = match account {
            None if caller.is_anonymous() => {
                let nobody = NameAddr::new(Uri::sip(Some("anonymous"), &anonymous, None));
                nobody.with_display("Anonymous")
            }
            _ => {
                let user = account.unwrap_or(&caller.number);
                let from = NameAddr::new(Uri::sip(Some(user), &us, None));
                match &caller.display {
                    Some(display) => from.with_display(display),
                    None => from,
                }
            }
        };
        let from = from.with_param("tag", Some(&tag));
        let call_id = ids::new_call_id(desk.random);
        let cseq = desk.random.below(1 << 16) + 1;
        let to = NameAddr::new(to);
        let mut request =
            Request::outside_dialog(Method::Invite, target, &from, &to, &call_id, cseq);
        let headers = &mut request.headers;
        // RFC 3261 section 16.6: a B2BUA is a proxy where loops are concerned.
        headers.set(Name::MaxForwards, caller.hops.saturating_sub(1).to_string());
        headers.push_tokens(Name::Allow, ALLOW.iter().map(Method::as_str));
        headers.push_tokens(Name::Supported, SUPPORTED);
        // RFC 3325 section 5: a trunk is a peer that both sides have agreed to trust. A browser is
        // in a person's hands, who is not told what the caller wants hidden.
        let is_told = account.is_none() && !(self.is_browsers() && caller.is_anonymous());
        if caller.is_asserted && !caller.number.is_empty() && is_told {
            let asserted = NameAddr::new(Uri::sip(Some(&caller.number), &us, None));
            headers.push(Name::PAssertedIdentity, asserted.to_string());
        }
        if let Some(privacy) = &caller.privacy {
            headers.push(Name::Privacy, privacy);
        }
        let terms = self.raised.unwrap_or_default();
        terms.write_request(None, headers);
        Some(request)
    }

    /// Whether the route tries its next target after a refusal with this status.
    fn goes_on_after(&self, status: u16) -> bool {
        let failover = self.dial.iter().flat_map(|dial| &dial.attempt.target.failover);
        failover.copied().any(|statuses| statuses.contains(status))
    }

    /// Takes note that the peer is there: whatever it says but 503 tells so.
    fn note_served(&mut self, desk: &mut Desk<'_>, response: &Response) {
        let Some(dial) = &mut self.dial else { return };
        if response.status.code() != 503 && !std::mem::replace(&mut dial.is_served, true) {
            desk.output(Output::Served { leg: self.id });
        }
    }

    /// Asks again with the higher terms of a 422, once (RFC 4028 section 7.3); `false` where they
    /// help not.
    fn raise(&mut self, desk: &mut Desk<'_>, headers: &Headers) -> bool {
        let Some(dial) = &mut self.dial else { return false };
        let raised = self.raised.unwrap_or_default().raised(headers);
        let Some(terms) = raised.filter(|_| !std::mem::replace(&mut dial.is_raised, true)) else {
            return false;
        };
        self.raised = raised;
        let sent = self.repeat_invite(desk, |it| terms.write_request(None, &mut it.headers));
        sent.is_ok()
    }

    /// Takes what a 2xx to our INVITE says of session timers.
    fn take_session_terms(&mut self, desk: &Desk<'_>, headers: &Headers) {
        let agreement = SessionTerms::default().accept(headers).ok().flatten();
        if let Some(agreement) = agreement {
            self.agreement = Some(agreement);
            self.start_session_timer(desk, agreement);
        }
    }

    /// Ends a leg that has not answered, or has just: CANCEL or BYE where there is somebody to
    /// tell.
    pub(crate) fn give_up(&mut self, desk: &mut Desk<'_>, reason: Reason) {
        if self.stage == Stage::Talking {
            return self.hang_up(desk, reason);
        }
        let open = self.dial.as_ref().filter(|dial| !dial.is_final).and_then(|dial| dial.key);
        self.leave(desk, reason);
        match open {
            Some(key) => {
                let why = cause::of_cancel(reason, self.causes);
                desk.transactions.cancel(desk.now, key, Some(why));
                self.stage = Stage::Ending;
                self.forget_at = Some(desk.now + GIVE_UP + GIVE_UP);
            }
            None => self.stage = Stage::Gone,
        }
    }

    /// Acknowledges and ends a dialog that nobody wants (RFC 3261 section 13.2.2.4).
    fn dismiss(&mut self, desk: &mut Desk<'_>, response: &Response) {
        let Some(invite) = self.dial.as_ref().and_then(|dial| dial.invite.as_ref()) else { return };
        let (Some(peer), Ok(mut dialog)) = (&self.peer, Dialog::uac(invite, response)) else {
            return;
        };
        let Ok(cseq) = response.headers.cseq() else { return };
        let zone = self.terms.zone.as_deref();
        let mut ack = dialog.ack(cseq.number);
        self.credentials.write_ack(cseq.number, &mut ack);
        desk.send_ack(peer, zone, ack);
        let (credentials, stage) = (&mut self.credentials, self.stage);
        desk.request(peer, zone, &mut dialog, Method::Bye, |bye| {
            if matches!(stage, Stage::Talking | Stage::Moved) {
                bye.headers.push_header(cause::elsewhere());
            }
            credentials.write(bye);
        });
    }

    /// Forgets how it was dialled, once no other answer can come.
    pub(crate) fn dialled(&mut self, key: ClientKey) {
        self.dial.take_if(|dial| dial.key == Some(key) && self.stage != Stage::Inviting);
    }

    /// What a leg was dialled by, for the table.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ClientKey> {
        let dialled = self.dial.as_ref().and_then(|dial| dial.key);
        let waiting = [dialled, self.pending.and_then(Pending::key)];
        waiting.into_iter().flatten().chain(self.credentials.keys())
    }
}

/// How a `send_to` URI is dialled: without a word by TLS, since plaintext is never a default here
/// (policy refuses what is no transport).
fn transport_of(uri: &str) -> Transport {
    let uri = Uri::parse(uri).ok();
    match uri.as_ref().and_then(|uri| uri.param("transport")) {
        Some(word) if word.eq_ignore_ascii_case("udp") => Transport::Udp,
        Some(word) if word.eq_ignore_ascii_case("tcp") => Transport::Tcp,
        Some(word) if word.eq_ignore_ascii_case("wss") => Transport::Wss,
        _ => Transport::Tls,
    }
}
