//! Stories of INVITEs with Replaces: a party is taken out of a call by another one.

use base::{Event, LegId, Reason};
use media::{LegPlan, Purpose};
use policy::Transport;
use sip::{Message, Name, Request, Response};

use super::bridging::{Callee, body, bridge, callee_answer, connected, dial, requests};
use super::world::{Caller, POLICY, World, crypto, described, offer, offer_with, peer, sdp_of};
use crate::Record;

/// Another phone of the caller's carrier.
fn colleague(name: &str) -> Caller {
    let mut caller = Caller::new("acme", peer("198.51.100.44:40000", 9, Transport::Tls), name);
    caller.target = "sip:10.20.0.5:5061;transport=tls".to_owned();
    caller
}

/// A Replaces of the dialog that a party of a story speaks on.
fn of(party: &Caller) -> String {
    format!("{};to-tag={};from-tag={}", party.call_id, party.to_tag, party.tag)
}

fn take_over(world: &mut World, by: &mut Caller, replaces: &str, offer: &str) {
    by.extra = format!("Require: replaces\r\nReplaces: {replaces}\r\n");
    by.request(world, "INVITE", offer);
    by.extra.clear();
}

fn latest(world: &World, leg: LegId) -> LegPlan {
    world.plans.iter().rev().find(|plan| plan.leg == leg).expect("a plan").clone()
}

/// What was sent: the only response, and the requests.
fn split(world: &mut World) -> (Response, Vec<Request>) {
    let (mut responses, mut requests) = (Vec::new(), Vec::new());
    for message in world.take() {
        match message {
            Message::Response(response) => responses.push(response),
            Message::Request(request) => requests.push(request),
        }
    }
    assert_eq!(responses.len(), 1, "{responses:#?}");
    (responses.remove(0), requests)
}

fn methods(sent: &[Request]) -> Vec<&str> {
    sent.iter().map(|it| it.method.as_str()).collect()
}

#[test]
fn a_colleague_takes_the_callers_place_and_the_callee_stays() {
    let mut world = World::new();
    let (caller, callee) = connected(&mut world);
    let first = LegId { index: 0, ..callee.leg };
    let source = latest(&world, first).source.ssrc;
    let mut colleague = colleague("colleague");
    take_over(&mut world, &mut colleague, &of(&caller), &offer_with("a=ptime:20"));
    let (ok, sent) = split(&mut world);
    assert_eq!(ok.status.code(), 200, "{ok:#?}");
    assert!(ok.headers.has_token(Name::Supported, "replaces"));
    assert_eq!(methods(&sent), ["BYE"]);
    assert_eq!(sent[0].headers.call_id(), Ok(caller.call_id.as_str()));
    caller.answer(&mut world, &sent[0], "200 OK", "|");

    let second = world.handed_over[0].1;
    assert_eq!(world.handed_over, [(first, second)]);
    // The ports stay, and so does the source, under a key that only the new peer knows.
    assert_eq!(sdp_of(&ok.body).media[0].port, 20_000);
    assert_eq!(latest(&world, second).source.ssrc, source);
    assert_eq!(bridge(&latest(&world, second)).with, callee.leg);
    assert_eq!(bridge(&latest(&world, callee.leg)).with, second);
    assert_eq!(world.book.with(|counts| (counts.calls, counts.legs)), (1, 1));
    let told = |record: &Record| match record {
        Record::Replaced { leg, by, .. } => (*leg, *by) == (first, second),
        _ => false,
    };
    assert_eq!(world.records.iter().filter(|it| told(it)).count(), 1);
    assert!(world.events.iter().any(|it| matches!(it, Event::LegReplaced { .. })));
    assert_eq!(world.ends(), [], "the call goes on");

    colleague.follow(&ok);
    colleague.ack(&mut world, "");
    assert!(world.take().is_empty());
    colleague.request(&mut world, "BYE", "");
    let (_, sent) = split(&mut world);
    assert_eq!(methods(&sent), ["BYE"]);
    assert_eq!(sent[0].headers.call_id().unwrap(), callee.caller.call_id);
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    world.assert_quiet();
}

#[test]
fn a_colleague_takes_the_callees_place_and_the_caller_stays() {
    let mut world = World::new();
    let (caller, callee) = connected(&mut world);
    let at_beta = peer("203.0.113.99:5061", 12, Transport::Tls);
    let mut colleague = Caller::new("beta", at_beta, "colleague");
    take_over(&mut world, &mut colleague, &of(&callee.caller), &offer());
    let (ok, sent) = split(&mut world);
    assert_eq!((ok.status.code(), methods(&sent)), (200, vec!["BYE"]));
    colleague.follow(&ok);
    colleague.ack(&mut world, "");
    let second = world.handed_over[0].1;
    let first = LegId { index: 0, ..second };
    assert_eq!(bridge(&latest(&world, first)).with, second);
    colleague.request(&mut world, "BYE", "");
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    let bye = requests(&mut world).pop().unwrap();
    assert_eq!(bye.headers.call_id().unwrap(), caller.call_id);
    world.assert_quiet();
}

#[test]
fn a_voice_agent_goes_on_talking_with_whoever_takes_its_callers_place() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.take();
    let first = world.leg();
    // Its caller holds, as phones do before they carry somebody over.
    caller.request(&mut world, "INVITE", &offer_with("a=inactive"));
    caller.ack(&mut world, "");
    world.take();
    assert_eq!(world.held, [true]);
    let mut colleague = colleague("colleague");
    take_over(&mut world, &mut colleague, &of(&caller), &offer());
    let (ok, sent) = split(&mut world);
    assert_eq!((ok.status.code(), methods(&sent)), (200, vec!["BYE"]));
    caller.answer(&mut world, &sent[0], "200 OK", "|");
    colleague.follow(&ok);
    colleague.ack(&mut world, "");
    let second = LegId { index: 1, ..first };
    assert_eq!(world.handed_over, [(first, second)]);
    assert!(matches!(latest(&world, second).purpose, Purpose::Agent { .. }));
    assert_eq!(world.held, [true, false]);
    assert_eq!((world.started.len(), world.stopped.len()), (1, 0), "it is the same conversation");

    // And the agent may carry the new one to somebody else.
    let to = base::Personal::new("+442079460000".to_owned());
    world.input(crate::Input::Transfer { call: first.call, to, is_announced: false });
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    assert_eq!(bridge(&latest(&world, second)).with, callee.leg);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn an_invite_without_an_offer_gets_one_and_its_answer_is_joined() {
    let mut world = World::new();
    let (caller, callee) = connected(&mut world);
    let mut colleague = colleague("colleague");
    take_over(&mut world, &mut colleague, &of(&caller), "");
    let (ok, _) = split(&mut world);
    let ours = sdp_of(&ok.body);
    let line = ours.media[0].crypto().next().unwrap().to_owned();
    let suite = line.split(' ').nth(1).unwrap();
    let key = if suite.contains("256") { "B".repeat(58) + "A=" } else { "B".repeat(40) };
    colleague.follow(&ok);
    let answer = described("RTP/SAVP 0 101", &format!("a=crypto:1 {suite} inline:{key}"));
    colleague.ack(&mut world, &answer);
    let second = world.handed_over[0].1;
    assert_eq!(bridge(&latest(&world, second)).with, callee.leg);
    assert_eq!(bridge(&latest(&world, callee.leg)).with, second);
}

#[test]
fn a_call_that_rings_is_picked_up_by_a_colleague_of_whom_it_rings_at() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+442079460000", &offer());
    let leg = world.needs[0].0;
    let mut callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "fork", "|");
    callee.answer(&mut world, "180 Ringing", "tag-callee", "|");
    world.take();
    callee.caller.tag = "fork".to_owned();
    let at_beta = peer("203.0.113.99:5061", 12, Transport::Tls);
    let mut colleague = Caller::new("beta", at_beta, "colleague");
    let replaces = format!("{};early-only", of(&callee.caller));
    take_over(&mut world, &mut colleague, &replaces, &offer());
    let (ok, sent) = split(&mut world);
    assert_eq!((ok.status.code(), methods(&sent)), (200, vec!["CANCEL"]));
    let why = sent[0].headers.reasons().remove(0);
    assert_eq!((&*why.protocol, why.cause), ("SIP", Some(200)), "answered elsewhere");
    callee.answer(&mut world, "487 Request Terminated", "tag-callee", "|");
    world.take();
    colleague.follow(&ok);
    colleague.ack(&mut world, "");
    let answered = world.response();
    assert_eq!((answered.status.code(), answered.headers.call_id()), (200, Ok("one@caller")));
    caller.follow(&answered);
    caller.ack(&mut world, "");
    let second = world.handed_over[0].1;
    assert_eq!(bridge(&latest(&world, second)).with, leg);
    assert_eq!(bridge(&latest(&world, leg)).with, second);
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn the_target_of_a_transfer_that_rings_is_picked_up() {
    let mut world = World::new();
    let (mut caller, first) = connected(&mut world);
    caller.extra = "Refer-To: <sip:+442079460001@edge.example>\r\n".to_owned();
    caller.request(&mut world, "REFER", "");
    caller.extra.clear();
    world.take();
    let mut target = Callee::reached(&mut world, "beta");
    target.answer(&mut world, "180 Ringing", "tag-callee", "|");
    world.take();
    target.caller.tag = "tag-callee".to_owned();
    let at_beta = peer("203.0.113.99:5061", 12, Transport::Tls);
    let mut colleague = Caller::new("beta", at_beta, "colleague");
    take_over(&mut world, &mut colleague, &of(&target.caller), &offer());
    let (ok, _) = split(&mut world);
    colleague.follow(&ok);
    colleague.ack(&mut world, "");
    assert_eq!(methods(&requests(&mut world)), ["NOTIFY", "BYE"]);
    let second = world.handed_over[0].1;
    assert_eq!(bridge(&latest(&world, first.leg)).with, second);
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn a_200_of_the_replaced_callee_that_crosses_the_cancel_is_acknowledged_and_ended() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "tag-callee", "|");
    world.take();
    let at_beta = peer("203.0.113.99:5061", 12, Transport::Tls);
    let mut colleague = Caller::new("beta", at_beta, "colleague");
    take_over(&mut world, &mut colleague, &of(&callee.caller), &offer());
    world.take();
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    assert_eq!(methods(&requests(&mut world)), ["ACK", "BYE"]);
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn what_names_no_dialog_of_its_own_trunk_learns_nothing() {
    let mut world = World::new();
    let (caller, callee) = connected(&mut world);
    let strange = peer("192.0.2.7:5061", 11, Transport::Tls);
    let mut stranger = Caller::new("other", strange, "stranger");
    for replaces in [of(&caller), of(&callee.caller), "x@y;to-tag=1;from-tag=2".to_owned()] {
        take_over(&mut world, &mut stranger, &replaces, &offer());
        assert_eq!(world.status(), 481, "{replaces}");
    }
    let audited = world.records.iter().filter(|it| matches!(it, Record::Refused { .. })).count();
    assert_eq!((audited, world.handed_over.len()), (3, 0));
}

#[test]
fn what_cannot_be_replaced_is_refused_as_rfc_3891_says() {
    let mut world = World::new();
    let (caller, _) = connected(&mut world);
    let named = of(&caller);
    let both = format!("{named}\r\nReplaces: {named}");
    for (number, (replaces, offered, code)) in [
        ("garbage".to_owned(), offer(), 400),
        (both, offer(), 400),
        (format!("{named};early-only"), offer(), 486),
        (named.clone(), described("RTP/SAVP 99", &crypto(1, 'P')), 488),
        (named.clone(), described("RTP/AVP 0", "a=sendrecv"), 488),
        (named.clone(), offer().replace("IP4 198.51.100.9", "IP6 2001:db8::9"), 488),
    ]
    .into_iter()
    .enumerate()
    {
        let mut colleague = colleague(&format!("colleague-{number}"));
        take_over(&mut world, &mut colleague, &replaces, &offered);
        assert_eq!(world.status(), code, "{replaces}");
        assert_eq!((world.handed_over.len(), world.ends().len()), (0, 0));
    }
    let mut colleague = colleague("colleague");
    colleague.extra = format!("Require: replaces, path\r\nReplaces: {named}\r\n");
    colleague.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 420);
    let mut caller = caller;
    for method in ["INVITE", "OPTIONS", "INFO"] {
        caller.extra = format!("Replaces: {named}\r\n");
        caller.request(&mut world, method, "");
        assert_eq!(world.status(), 400, "{method} within a dialog");
    }
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::OperatorHungUp);
    world.take();
    take_over(&mut world, &mut colleague, &named, &offer());
    assert_eq!(world.status(), 603, "it has ended");
    world.assert_quiet();
    take_over(&mut world, &mut colleague, &named, &offer());
    assert_eq!(world.status(), 481, "it is forgotten");
}

#[test]
fn a_caller_that_waits_for_its_answer_is_not_replaced() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    let ringing = world.response();
    caller.follow(&ringing);
    take_over(&mut world, &mut colleague("colleague"), &of(&caller), &offer());
    assert_eq!(world.status(), 481);
}

#[test]
fn a_trunk_that_may_not_transfer_replaces_nothing() {
    let policy = POLICY.replace("recording      = \"allowed\"", "transfer = \"refuse\"");
    let mut world = World::with_policy(&policy);
    let (caller, _) = connected(&mut world);
    take_over(&mut world, &mut colleague("colleague"), &of(&caller), &offer());
    assert_eq!(world.status(), 603);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_leg_that_is_being_carried_over_is_not_replaced_meanwhile() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    caller.extra = "Refer-To: <sip:+49301234567@edge.example>\r\n".to_owned();
    caller.request(&mut world, "REFER", "");
    caller.extra.clear();
    world.take();
    let third = Callee::reached(&mut world, "info");
    take_over(&mut world, &mut colleague("colleague"), &of(&caller), &offer());
    assert_eq!(world.status(), 491);
    third.answer(&mut world, "486 Busy Here", "t", &body(&callee_answer(&third, "8")));
    world.take();
    take_over(&mut world, &mut colleague("again"), &of(&caller), &offer());
    assert_eq!(split(&mut world).0.status.code(), 200);
    assert_eq!(bridge(&latest(&world, callee.leg)).with, world.handed_over[0].1);
}
