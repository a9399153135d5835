//! Stories of calls from trunk to trunk.

use base::{LegId, Reason};
use media::{Bridge, KeyPassage, LegPlan, MediaEvent, Passage, Purpose, Reserved};
use policy::Transport;
use sip::{Message, Name, Request, Response};

use super::world::{Caller, World, described, direction, offer, peer, sdp_of};
use crate::{Input, Unserved};

/// Whom we called: answers the edge's INVITE as text.
pub(super) struct Callee {
    pub(super) caller: Caller,
    pub(super) invite: Request,
    pub(super) leg: LegId,
}

impl Callee {
    /// The far end of the dial that the edge asked for last: its flow and its ports are there.
    pub(super) fn reached(world: &mut World, trunk: &str) -> Self {
        let (leg, ..) = world.connects.last().expect("a flow was asked for").clone();
        let flow = 100 + world.connects.len() as u64;
        let peer = peer("203.0.113.70:5061", flow, Transport::Tls);
        world.input(Input::Connected { leg, peer: peer.clone(), contact: None });
        reserve(world, leg, 21_000);
        let invite = world.request();
        assert_eq!(invite.method.as_str(), "INVITE");
        let mut caller = Caller::new(trunk, peer, "callee");
        caller.call_id = invite.headers.call_id().unwrap().to_owned();
        caller.to_tag = invite.headers.from_tag().unwrap();
        caller.target = invite.headers.contact().unwrap().uri.as_str().to_owned();
        (caller.cseq, caller.tag) = (700, "tag-callee".to_owned());
        Self { caller, invite, leg }
    }

    /// A response to the INVITE; `more` is header lines, then `|`, then the body.
    pub(super) fn answer(&self, world: &mut World, status: &str, tag: &str, more: &str) {
        let mut invite = self.invite.clone();
        let to = format!("{};tag={tag}", invite.headers.text(Name::To).unwrap());
        invite.headers.set(Name::To, to);
        self.caller.answer(world, &invite, status, more);
    }

    /// A 200 with a description.
    pub(super) fn accept(&self, world: &mut World, description: &str) {
        self.answer(world, "200 OK", "tag-callee", &body(description));
    }
}

/// A description as the `more` of an answer.
pub(super) fn body(description: &str) -> String {
    let (kind, body) = description.split_once('|').unwrap();
    format!("Content-Type: {kind}\r\n|{body}")
}

pub(super) fn reserve(world: &mut World, leg: LegId, port: u16) {
    let at = |port| std::net::SocketAddr::from(([10, 20, 0, 5], port));
    let reserved = Reserved {
        rtp: at(port),
        rtcp: Some(at(port + 1)),
        beside: None,
        ice_tcp: Vec::new(),
        fingerprint: None,
    };
    world.input(Input::Media { leg, event: MediaEvent::Reserved(reserved) });
}

/// What the callee answers the edge's offer with: PCMU under the edge's first suite.
pub(super) fn callee_answer(callee: &Callee, formats: &str) -> String {
    let offered = sdp_of(&callee.invite.body);
    let line = offered.media[0].crypto().next().unwrap().to_owned();
    let suite = line.split(' ').nth(1).unwrap().to_owned();
    let key = if suite.contains("256") { "B".repeat(58) + "A=" } else { "B".repeat(40) };
    let lines = format!("a=crypto:1 {suite} inline:{key}");
    described(&format!("RTP/SAVP {formats}"), &lines)
}

/// A caller to a trunk, whose INVITE has arrived and whose ports are there.
pub(super) fn dial(world: &mut World, called: &str, offer: &str) -> Caller {
    let mut caller = Caller::acme();
    caller.target = format!("sip:{called}@edge.example");
    caller.request(world, "INVITE", offer);
    let leg = world.needs[0].0;
    assert_eq!(leg.index, 0);
    reserve(world, leg, 20_000);
    assert!(world.take().is_empty(), "nothing is said before the callee says something");
    caller
}

pub(super) fn responses(world: &mut World) -> Vec<Response> {
    world.take().into_iter().filter_map(response).collect()
}

fn response(message: Message) -> Option<Response> {
    match message {
        Message::Response(response) => Some(response),
        Message::Request(_) => None,
    }
}

pub(super) fn requests(world: &mut World) -> Vec<Request> {
    let requests = world.take().into_iter().filter_map(|message| match message {
        Message::Request(request) => Some(request),
        Message::Response(_) => None,
    });
    requests.collect()
}

/// The plans in force, the caller's and the callee's.
pub(super) fn plans(world: &World) -> (LegPlan, LegPlan) {
    let latest = |caller: bool| {
        let of = |plan: &&LegPlan| (plan.leg.index == 0) == caller;
        world.plans.iter().rev().find(of).expect("a plan").clone()
    };
    (latest(true), latest(false))
}

pub(super) fn bridge(plan: &LegPlan) -> Bridge {
    match &plan.purpose {
        Purpose::Bridge(Some(bridge)) => bridge.clone(),
        other => panic!("{other:?}"),
    }
}

/// A call that is up on both sides.
pub(super) fn connected(world: &mut World) -> (Caller, Callee) {
    let mut caller = dial(world, "+442079460000", &offer());
    let callee = Callee::reached(world, "beta");
    let answer = callee_answer(&callee, "0 101");
    callee.accept(world, &answer);
    let sent = world.take();
    let [Message::Request(ack), Message::Response(ok)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ack.method.as_str(), ok.status.code()), ("ACK", 200));
    caller.follow(ok);
    caller.ack(world, "");
    (caller, callee)
}

#[test]
fn a_call_goes_from_trunk_to_trunk_and_its_media_is_joined() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    let (a, b) = plans(&world);
    // Both have PCMU, so that nothing is decoded, although the caller liked PCMA better.
    assert_eq!(a.send.unwrap().codec, audio::Codec::Pcmu);
    assert_eq!(bridge(&a).audio[0], (0, Passage::Forward(0)));
    assert_eq!((bridge(&a).with, bridge(&b).with), (b.leg, a.leg));
    assert!(matches!(bridge(&b).keys, KeyPassage::Events { payload_type: 101, .. }));
    assert_eq!(world.book.with(|counts| (counts.calls, counts.legs)), (1, 1));
    assert!(world.started.is_empty(), "no voice agent has a part in it");

    caller.request(&mut world, "BYE", "");
    let sent = world.take();
    let [Message::Response(ok), Message::Request(bye)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ok.status.code(), bye.method.as_str()), (200, "BYE"));
    callee.caller.answer(&mut world, bye, "200 OK", "");
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    assert_eq!(world.book.with(|counts| counts.legs), 0);
    world.assert_quiet();
}

#[test]
fn nothing_of_the_callers_side_reaches_the_callee_but_number_and_name() {
    let mut world = World::new();
    let mut caller = Caller::acme();
    caller.target = "sip:+442079460000@edge.example".to_owned();
    caller.extra = "User-Agent: SecretPBX/1\r\nX-Internal: 10.1.2.3\r\nP-Asserted-Identity: \
                    \"Ann\" <sip:+12125550123@10.9.9.9>\r\nServer: hidden\r\n"
        .to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let invite = Callee::reached(&mut world, "beta").invite;
    let text = String::from_utf8(Message::Request(invite.clone()).to_bytes().to_vec()).unwrap();
    for secret in ["SecretPBX", "10.1.2.3", "10.9.9.9", "hidden", "198.51.100", "caller.example"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    for secret in [&caller.call_id, &caller.tag] {
        assert!(!text.contains(secret.as_str()), "{secret} in {text}");
    }
    assert_eq!(invite.uri.as_str(), "sip:+442079460000@beta.example;transport=tls");
    assert!(invite.headers.text(Name::From).unwrap().starts_with("<sip:+12125550123@10.20.0.5>"));
    assert_eq!(invite.headers.text(Name::PAssertedIdentity), Some("<sip:+12125550123@10.20.0.5>"));
    assert_eq!(invite.headers.max_forwards(), Ok(Some(69)));
}

#[test]
fn a_caller_that_asks_for_privacy_is_not_named_in_from() {
    let mut world = World::new();
    let mut caller = Caller::acme();
    caller.target = "sip:+442079460000@edge.example".to_owned();
    caller.extra = "Privacy: id\r\n".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let invite = Callee::reached(&mut world, "beta").invite;
    let from = invite.headers.text(Name::From).unwrap();
    assert!(from.contains("sip:anonymous@anonymous.invalid"), "{from}");
    assert_eq!(invite.headers.text(Name::Privacy), Some("id"));
}

#[test]
fn ringing_and_early_media_reach_the_caller_and_the_200_repeats_the_description() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    let ringing = world.response();
    assert_eq!((ringing.status.code(), ringing.body.len()), (180, 0));
    callee.answer(&mut world, "180 Ringing", "t", "|");
    assert!(world.take().is_empty(), "nothing new");
    let answer = callee_answer(&callee, "0 101");
    callee.answer(&mut world, "183 Session Progress", "t", &body(&answer));
    let early = world.response();
    assert_eq!(early.status.code(), 183);
    let (a, b) = plans(&world);
    assert_eq!((bridge(&b).with, bridge(&a).with), (a.leg, b.leg));
    callee.answer(&mut world, "200 OK", "t", &body(&answer));
    let ok = responses(&mut world).remove(0);
    assert_eq!((ok.status.code(), &ok.body), (200, &early.body));
    caller.follow(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn a_reliable_183_is_repeated_until_its_prack_and_the_200_waits_for_it() {
    let mut world = World::new();
    let mut caller = Caller::acme();
    caller.target = "sip:+442079460000@edge.example".to_owned();
    caller.extra = "Supported: 100rel\r\n".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let leg = world.needs[0].0;
    reserve(&mut world, leg, 20_000);
    let callee = Callee::reached(&mut world, "beta");
    let answer = callee_answer(&callee, "0 101");
    callee.answer(&mut world, "183 Session Progress", "t", &body(&answer));
    let early = world.response();
    let number = early.headers.text(Name::RSeq).unwrap().to_owned();
    assert!(early.headers.has_token(Name::Require, "100rel"));
    world.seconds(2);
    assert_eq!(responses(&mut world).len(), 2, "after T1 and 3 T1");
    callee.answer(&mut world, "200 OK", "t", &body(&answer));
    assert_eq!(requests(&mut world).remove(0).method.as_str(), "ACK");
    caller.follow(&early);
    let invite_cseq = caller.cseq;
    caller.extra = format!("RAck: 1 {invite_cseq} INVITE\r\n");
    caller.request(&mut world, "PRACK", "");
    assert_eq!(world.status(), 481);
    caller.extra = format!("RAck: {number} {invite_cseq} INVITE\r\n");
    caller.request(&mut world, "PRACK", "");
    let codes: Vec<u16> = responses(&mut world).iter().map(|it| it.status.code()).collect();
    assert_eq!(codes, [200, 200]);
}

#[test]
fn a_caller_that_never_acknowledges_a_reliable_183_is_refused() {
    let mut world = World::new();
    let mut caller = Caller::acme();
    caller.target = "sip:+442079460000@edge.example".to_owned();
    caller.extra = "Require: 100rel\r\n".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let leg = world.needs[0].0;
    reserve(&mut world, leg, 20_000);
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    assert!(world.response().headers.has(Name::RSeq));
    world.seconds(40);
    assert_eq!(world.ends(), [Reason::NoPrack]);
    world.assert_quiet();
}

#[test]
fn a_reliable_response_of_the_callee_gets_one_prack() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    let head = "Require: 100rel\r\nRSeq: 42\r\n|";
    callee.answer(&mut world, "180 Ringing", "t", head);
    let prack = requests(&mut world).remove(0);
    assert_eq!(prack.method.as_str(), "PRACK");
    let cseq = callee.invite.headers.cseq().unwrap().number;
    assert_eq!(prack.headers.text(Name::RAck), Some(format!("42 {cseq} INVITE").as_str()));
    callee.answer(&mut world, "180 Ringing", "t", head);
    assert!(world.take().is_empty());
}

#[test]
fn a_target_that_fails_is_followed_by_the_next_and_a_busy_one_is_not() {
    for (status, follows) in [
        ("503 Unavailable", true),
        ("500 Oops", true),
        ("486 Busy Here", false),
        ("603 Decline", false),
        ("404 Not Found", false),
    ] {
        let mut world = World::new();
        let caller = dial(&mut world, "+442079460000", &offer());
        let callee = Callee::reached(&mut world, "beta");
        callee.answer(&mut world, status, "t", "Reason: Q.850;cause=17;text=\"x\"\r\n|");
        let sent = world.take();
        assert!(
            sent.iter()
                .any(|it| matches!(it, Message::Request(ack) if ack.method.as_str() == "ACK"))
        );
        assert_eq!(world.connects.len() == 2, follows, "{status}");
        if follows {
            if status.starts_with("503") {
                // Its name may have another address.
                let retry = (callee.leg, Unserved::Unavailable(None));
                assert_eq!((&world.retries[..], &world.served[..]), (&[retry][..], &[][..]));
                let (leg, ..) = world.connects[1].clone();
                world.input(Input::Unreachable { leg, reason: Reason::TrunkUnreachable });
            }
            let (_, place, _) = world.connects.last().unwrap();
            assert_eq!(place, "sip:second.beta.example;transport=tls");
            let second = Callee::reached(&mut world, "beta");
            assert_ne!(second.invite.headers.call_id(), callee.invite.headers.call_id());
            second.answer(&mut world, "503 Unavailable", "t", "|");
            let (leg, ..) = world.connects.last().unwrap().clone();
            world.input(Input::Unreachable { leg, reason: Reason::TrunkUnreachable });
        }
        let answers: Vec<Response> = sent
            .into_iter()
            .chain(world.take())
            .filter_map(response)
            .filter(|it| it.headers.call_id() == Ok(caller.call_id.as_str()))
            .collect();
        let told = if follows { "502" } else { &status[..3] };
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0].status.code().to_string(), told);
        if !follows {
            assert!(answers[0].headers.reasons().iter().any(|it| it.cause == Some(17)));
        }
        world.assert_quiet();
    }
}

#[test]
fn a_silent_target_is_left_after_its_time_and_a_name_has_several_addresses() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let first = Callee::reached(&mut world, "beta");
    world.seconds(4);
    assert_eq!(world.connects.len(), 2);
    assert_eq!(world.connects[0].1, world.connects[1].1, "the same name, its next address");
    assert!(world.released.contains(&first.leg));
    let (leg, ..) = world.connects[1].clone();
    world.input(Input::Unreachable { leg, reason: Reason::TrunkUnreachable });
    assert_eq!(world.connects[2].1, "sip:second.beta.example;transport=tls");
    let (leg, ..) = world.connects[2].clone();
    world.input(Input::Unreachable { leg, reason: Reason::TrunkUnreachable });
    assert_eq!(world.ends(), [Reason::TrunkUnreachable]);
    let refused = responses(&mut world);
    assert_eq!(refused.last().unwrap().status.code(), 502);
    // The first one may still answer: it is told that nobody waits.
    first.accept(&mut world, &callee_answer(&first, "0 101"));
    let sent = requests(&mut world);
    assert_eq!(sent.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["ACK", "BYE"]);
    world.assert_quiet();
}

#[test]
fn a_cancel_goes_to_the_callee_and_one_that_crosses_the_200_ends_in_a_bye() {
    for crosses in [false, true] {
        let mut world = World::new();
        let mut caller = dial(&mut world, "+442079460000", &offer());
        let callee = Callee::reached(&mut world, "beta");
        callee.answer(&mut world, "180 Ringing", "t", "|");
        world.take();
        let cancel = caller.text("INVITE", caller.cseq, "").replace("INVITE sip", "CANCEL sip");
        let branch = format!("z9hG4bK-{}-1;", caller.tag);
        let cancel = cancel
            .replace(&format!("{} INVITE", caller.cseq), &format!("{} CANCEL", caller.cseq))
            .replace(&format!("z9hG4bK-{}-2;", caller.tag), &branch);
        caller.say(&mut world, &cancel);
        let sent = world.take();
        let codes: Vec<u16> =
            sent.iter().cloned().filter_map(response).map(|it| it.status.code()).collect();
        assert_eq!(codes, [200, 487]);
        let Some(Message::Request(last)) = sent.last() else { panic!("{sent:#?}") };
        assert_eq!(last.method.as_str(), "CANCEL");
        assert_eq!(world.ends(), [Reason::Cancelled]);
        if crosses {
            callee.answer(&mut world, "200 OK", "t", &body(&callee_answer(&callee, "0 101")));
            let sent = requests(&mut world);
            assert_eq!(
                sent.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(),
                ["ACK", "BYE"]
            );
            callee.caller.answer(&mut world, &sent[1], "200 OK", "");
        } else {
            callee.answer(&mut world, "487 Request Terminated", "t", "|");
        }
        world.assert_quiet();
    }
}

#[test]
fn a_second_fork_that_answers_is_dismissed() {
    let mut world = World::new();
    let (_, callee) = connected(&mut world);
    let answer = callee_answer(&callee, "0 101");
    callee.answer(&mut world, "200 OK", "another", &body(&answer));
    let sent = requests(&mut world);
    assert_eq!(sent.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["ACK", "BYE"]);
    assert!(sent.iter().all(|it| it.headers.to_tag().as_deref() == Some("another")));
    callee.accept(&mut world, &answer);
    assert_eq!(world.request().method.as_str(), "ACK", "the first one repeats its 200");
    assert_eq!(world.ends(), []);
}

#[test]
fn early_media_follows_the_fork_that_answers() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    let answer = callee_answer(&callee, "0 101");
    callee.answer(&mut world, "183 Session Progress", "one", &body(&answer));
    let moved = answer.replace("m=audio 30000", "m=audio 31000");
    callee.answer(&mut world, "183 Session Progress", "two", &body(&moved));
    assert_eq!(plans(&world).1.remote.port(), 31_000);
    callee.answer(&mut world, "200 OK", "one", &body(&answer));
    assert_eq!(plans(&world).1.remote.port(), 30_000);
    world.take();
    world.hang_up(Reason::OperatorHungUp);
    let bye = requests(&mut world).pop().unwrap();
    assert_eq!(bye.headers.to_tag().as_deref(), Some("one"));
}

#[test]
fn an_invite_without_an_offer_gets_ours_when_the_callee_has_answered() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+442079460000", "");
    let callee = Callee::reached(&mut world, "beta");
    assert!(!callee.invite.body.is_empty(), "the callee is offered something all the same");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let ok = responses(&mut world).remove(0);
    caller.follow(&ok);
    let offered = sdp_of(&ok.body);
    assert_eq!(offered.media[0].formats[0], "0", "what the callee chose comes first");
    let line = offered.media[0].crypto().next().unwrap().to_owned();
    let key = "C".repeat(58) + "A=";
    let suite = line.split(' ').nth(1).unwrap();
    let lines = format!("a=crypto:1 {suite} inline:{key}");
    caller.ack(&mut world, &described("RTP/SAVP 0 101", &lines));
    let (a, b) = plans(&world);
    assert_eq!((bridge(&a).with, bridge(&b).with), (b.leg, a.leg));
    caller.request(&mut world, "BYE", "");
    world.take();
    world.assert_quiet();
}

#[test]
fn a_hold_is_answered_at_once_and_told_to_the_other_side() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    caller.request(&mut world, "INVITE", &offer().replace("sendrecv", "sendonly"));
    let sent = world.take();
    let [Message::Response(ok), Message::Request(told)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!(direction(&ok.body), "recvonly");
    assert_eq!((told.method.as_str(), direction(&told.body)), ("INVITE", "sendonly"));
    caller.ack(&mut world, "");
    // It crosses a re-INVITE of the callee's: that one waits, ours is tried again.
    callee.caller.answer(&mut world, told, "491 Request Pending", "|");
    world.take();
    world.seconds(4);
    let again = requests(&mut world).remove(0);
    assert_eq!(direction(&again.body), "sendonly");
    let held = callee_answer(&callee, "0 101").replace("a=crypto", "a=recvonly\r\na=crypto");
    callee.caller.answer(&mut world, &again, "200 OK", &body(&held));
    assert_eq!(world.request().method.as_str(), "ACK");
    let (a, b) = plans(&world);
    assert_eq!((a.direction.send, a.direction.receive), (false, true));
    assert_eq!((b.direction.send, b.direction.receive), (true, false));

    caller.request(&mut world, "INVITE", &offer());
    let sent = world.take();
    let [Message::Response(ok), Message::Request(told)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((direction(&ok.body), direction(&told.body)), ("sendrecv", "sendrecv"));
    caller.ack(&mut world, "");
    callee.caller.answer(&mut world, told, "200 OK", &body(&callee_answer(&callee, "0 101")));
    let (a, b) = plans(&world);
    assert!([a, b].iter().all(|plan| plan.direction.send && plan.direction.receive));
    assert_eq!(world.ends(), []);
}

#[test]
fn keys_cross_in_the_form_that_each_side_takes() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+49301234567", &offer());
    let callee = Callee::reached(&mut world, "info");
    callee.accept(&mut world, &callee_answer(&callee, "8"));
    let ok = responses(&mut world).remove(0);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    let (a, _) = plans(&world);
    assert_eq!(bridge(&a).keys, KeyPassage::Report);
    let event = MediaEvent::Digit { digit: '7', duration: std::time::Duration::ZERO };
    world.input(Input::Media { leg: a.leg, event });
    let info = world.request();
    assert_eq!(info.method.as_str(), "INFO");
    assert!(info.body.starts_with(b"Signal=7\r\n"), "{:?}", info.body);
    callee.caller.answer(&mut world, &info, "200 OK", "|");

    let mut callee = callee;
    callee.caller.call_id = callee.invite.headers.call_id().unwrap().to_owned();
    callee.caller.tag = "tag-callee".to_owned();
    callee.caller.request(&mut world, "INFO", "application/dtmf-relay|Signal=5\r\n");
    assert_eq!(world.pressed, [(a.leg, '5')]);
}

#[test]
fn the_callee_hangs_up_and_its_cause_reaches_the_caller() {
    let mut world = World::new();
    let (_, mut callee) = connected(&mut world);
    callee.caller.tag = "tag-callee".to_owned();
    callee.caller.extra = "Reason: Q.850;cause=16;text=\"host-7\"\r\n".to_owned();
    callee.caller.request(&mut world, "BYE", "");
    let bye = requests(&mut world).pop().unwrap();
    let reasons = bye.headers.reasons();
    assert!(reasons.iter().any(|it| it.protocol == "Q.850" && it.cause == Some(16)));
    assert!(!format!("{reasons:?}").contains("host-7"));
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
}

#[test]
fn a_stranger_trunk_cannot_touch_the_callees_dialog() {
    let mut world = World::new();
    let (_, mut callee) = connected(&mut world);
    callee.caller.tag = "tag-callee".to_owned();
    callee.caller.trunk = base::TrunkName::new("acme");
    callee.caller.peer = peer("198.51.100.9:40000", 1, Transport::Tls);
    callee.caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 481);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_redirection_is_followed_within_the_trunk_only() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    let contacts = "Contact: <sip:+442079469999@beta.example>, <sip:x@evil.example>\r\n|";
    callee.answer(&mut world, "302 Moved", "t", contacts);
    assert_eq!(world.connects[1].1, "sip:+442079469999@beta.example;transport=tls");
    world.take();
    let next = Callee::reached(&mut world, "beta");
    assert_eq!(next.invite.uri.as_str(), "sip:+442079469999@beta.example;transport=tls");
    assert!(world.connects.iter().all(|(_, uri, _)| !uri.contains("evil")));
}

#[test]
fn a_callee_may_call_back_over_a_connection_that_we_have_proved_ourselves_on() {
    for alias in [true, false] {
        let mut world = World::new();
        dial(&mut world, "+442079460000", &offer());
        let (leg, ..) = world.connects.last().unwrap().clone();
        let opened = peer("203.0.113.70:5061", 100, Transport::Tls);
        let opened = std::sync::Arc::new(crate::Peer { alias, ..(*opened).clone() });
        world.input(Input::Connected { leg, peer: opened, contact: None });
        reserve(&mut world, leg, 21_000);
        let via = world.request().headers.top_via().unwrap();
        assert_eq!(via.params.has("alias"), alias, "RFC 5923 section 5");
    }
}
