//! Stories of parties that have their peer carried to a voice agent.

use base::{LegId, Personal, Reason};
use media::{LegPlan, Purpose};
use sip::{Message, Request};

use super::bridging::{
    Callee, body, bridge, callee_answer, connected, dial, requests, reserve, responses,
};
use super::browsers::{self, CHROME, secured, wss};
use super::transferring::{latest, methods, news, refer};
use super::transferring_by_pass::consult;
use super::world::{Caller, POLICY, World, direction, offer, offer_with, sdp_of};
use crate::{Input, Keep, Record};

const TO_AGENT: &str = "<sip:reception@edge.example>";

pub(super) fn talks_with_agent(plan: &LegPlan) -> bool {
    matches!(plan.purpose, Purpose::Agent { .. })
}

pub(super) fn dialog_of(caller: &Caller) -> String {
    let call_id = caller.call_id.replace('@', "%40");
    format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", caller.to_tag, caller.tag)
}

#[test]
fn a_caller_carries_its_callee_to_a_voice_agent_which_begins_anew() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller, TO_AGENT);
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    assert!(talks_with_agent(&latest(&world, callee.leg)));
    let (call, agent, keep) = &world.started[0];
    assert_eq!((call, agent.as_str()), (&callee.leg.call, "reception"));
    // The callee's trunk allows no recording; what the caller's allowed left with it.
    assert_eq!(*keep, Keep { recording: false, transcript: true });
    caller.answer(&mut world, &sent[2], "200 OK", "|");
    assert_eq!(world.ends(), []);

    // Its keys are the agent's now, and so is its hold.
    callee.caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    assert_eq!(world.status(), 200);
    callee.caller.ack(&mut world, "");
    assert_eq!(world.held, [true]);
    callee.caller.request(&mut world, "BYE", "");
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}

#[test]
fn what_is_kept_is_what_the_trunk_of_who_stays_and_the_agent_allow() {
    let policy = POLICY
        .replace("dtmf    = [\"rfc4733\"]", "recording = \"allowed\"\ntranscript = \"allowed\"");
    let mut world = World::with_policy(&policy);
    let (mut caller, _) = connected(&mut world);
    refer(&mut world, &mut caller, TO_AGENT);
    assert_eq!(world.started[0].2, Keep { recording: true, transcript: true });
    let told = world.records.iter().rev().find_map(|record| match record {
        Record::Recorded { recording, transcript, unrecorded, .. } => {
            Some((*recording, *transcript, *unrecorded))
        }
        _ => None,
    });
    assert_eq!(told, Some((true, true, None)));

    // A route to the agent forbids it for whoever comes by it.
    let to_agent = "send_to = { agent = \"reception\" }";
    let policy =
        policy.replace(to_agent, &format!("{to_agent}\nrecord = false\ntranscript = false"));
    let mut world = World::with_policy(&policy);
    let (mut caller, _) = connected(&mut world);
    refer(&mut world, &mut caller, TO_AGENT);
    assert_eq!(world.started[0].2, Keep { recording: false, transcript: false });
}

#[test]
fn a_callee_carries_its_caller_to_a_voice_agent_that_may_carry_it_on() {
    let policy = POLICY.replace(
        "[[route]]\nwhen    = { called = { prefix = \"+49\" } }",
        "[[route]]\nwhen = { trunk = \"beta\", called = { user = \"help\" } }\n\
         send_to = { agent = \"reception\" }\n\n\
         [[route]]\nwhen    = { called = { prefix = \"+49\" } }",
    );
    let mut world = World::with_policy(&policy);
    let (caller, mut callee) = connected(&mut world);
    // It had put it on hold, as telephones do before they carry somebody over.
    callee.caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    callee.caller.ack(&mut world, "");
    let held = requests(&mut world).remove(0);
    assert_eq!(direction(&held.body), "sendonly");
    let first = LegId { index: 0, ..callee.leg };
    let answer = answer_to(&held, "recvonly");
    caller.answer(&mut world, &held, "200 OK", &answer);
    world.take();
    refer(&mut world, &mut callee.caller, "<sip:help@edge.example>");
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "INVITE", "NOTIFY", "BYE"]);
    assert_eq!(direction(&sent[1].body), "sendrecv", "nobody holds it any more");
    let answer = answer_to(&sent[1], "sendrecv");
    caller.answer(&mut world, &sent[1], "200 OK", &answer);
    world.take();
    assert!(talks_with_agent(&latest(&world, first)));
    assert_eq!(world.started.len(), 1);
    assert_eq!(world.started[0].2, Keep { recording: true, transcript: true });

    let call = callee.leg.call;
    let to = Personal::new("+442079460000".to_owned());
    world.input(Input::Transfer { call, to: to.clone(), is_announced: false });
    let next = Callee::reached(&mut world, "beta");
    next.answer(&mut world, "486 Busy Here", "t", "|");
    assert_eq!(world.transfers_failed, [Reason::Busy], "the agent is back");
    world.take();
    world.input(Input::Transfer { call, to, is_announced: false });
    let mut next = Callee::reached(&mut world, "beta");
    next.accept(&mut world, &callee_answer(&next, "0 101"));
    assert_eq!(world.stopped, [call]);
    assert_eq!(bridge(&latest(&world, first)).with, next.leg);
    world.take();
    // And back to it: another conversation.
    refer(&mut world, &mut next.caller, "<sip:help@edge.example>");
    assert_eq!(world.started.len(), 2);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

/// What a caller of these stories answers a re-INVITE with.
fn answer_to(reinvite: &Request, direction: &str) -> String {
    let line = sdp_of(&reinvite.body).media[0].crypto().next().unwrap().to_owned();
    let suite = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let key = if suite.contains("256") { "B".repeat(58) + "A=" } else { "B".repeat(40) };
    let lines = format!("a=crypto:{suite} inline:{key}\r\na={direction}");
    body(&super::world::described("RTP/SAVP 0 101", &lines))
}

#[test]
fn a_softphone_in_a_browser_carries_a_carriers_party_to_a_voice_agent() {
    let (mut world, mut caller) = (browsers::world(), wss(11));
    caller.target = "sip:+442079460000@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &browsers::body(CHROME));
    world.reserve();
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let ok = responses(&mut world).remove(0);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    world.media(secured());
    world.take();
    refer(&mut world, &mut caller, TO_AGENT);
    assert_eq!(methods(&requests(&mut world)), ["NOTIFY", "NOTIFY", "BYE"]);
    assert_eq!(world.started.len(), 1);
    assert!(talks_with_agent(&latest(&world, callee.leg)));
}

#[test]
fn a_voice_agent_that_is_not_there_takes_nobody_and_the_call_goes_on() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:ghost@edge.example>");
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY"]);
    assert!(news(&sent[1]).0.starts_with("SIP/2.0 50"), "{:?}", news(&sent[1]));
    assert_eq!(bridge(&latest(&world, callee.leg)).with.index, 0);
    assert!(world.started.is_empty() && world.ends().is_empty());
    // It may be tried again.
    refer(&mut world, &mut caller, TO_AGENT);
    assert_eq!(world.started.len(), 1);
}

#[test]
fn what_no_agent_understands_is_agreed_on_anew() {
    let mut world = super::passing_codecs::world();
    let mut caller = dial(&mut world, "+442079460000", &super::passing_codecs::mobile("97 0 102"));
    let callee = Callee::reached(&mut world, "beta");
    let number = sdp_of(&callee.invite.body).media[0].payload_formats()[0].payload_type;
    let with = super::passing_codecs::answer(
        &callee,
        &format!("{number}"),
        &format!("a=rtpmap:{number} AMR-WB/16000"),
    );
    callee.accept(&mut world, &with);
    let ok = responses(&mut world).remove(0);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    world.take();
    refer(&mut world, &mut caller, TO_AGENT);
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "INVITE", "NOTIFY", "BYE"]);
    let formats = sdp_of(&sent[1].body).media[0].payload_formats();
    assert_eq!(formats[0].name, "PCMU");
    assert!(formats.iter().all(|it| it.name != "AMR-WB"));
}

/// The carrier's other call, in which it talks with a voice agent.
pub(super) fn consulted_agent(world: &mut World, caller: &Caller) -> Caller {
    let mut second = Caller::new("acme", caller.peer.clone(), "second");
    second.request(world, "INVITE", &offer());
    let leg = world.needs.last().unwrap().0;
    reserve(world, leg, 22_000);
    let ok = world.response();
    second.follow(&ok);
    second.ack(world, "");
    world.take();
    second
}

#[test]
fn who_has_asked_a_voice_agent_first_lets_its_other_party_have_it() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    let second = consulted_agent(&mut world, &caller);
    let consulted = world.started[0].0;
    refer(
        &mut world,
        &mut caller,
        &format!("<sip:x@edge.example?Replaces={}>", dialog_of(&second)),
    );
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY", "BYE", "BYE"]);
    assert_eq!(sent[3].headers.call_id(), Ok(second.call_id.as_str()), "the consultation is over");
    assert_eq!(world.ends(), [Reason::Transferred]);
    assert_eq!(world.started.len(), 2, "it greets whoever hears it for the first time");
    assert_eq!((world.started[1].0, consulted == callee.leg.call), (callee.leg.call, false));
    assert!(talks_with_agent(&latest(&world, callee.leg)));
    world.hang_up(Reason::OperatorHungUp);
}

#[test]
fn early_only_is_for_who_has_not_answered() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    let (second, _) = consult(&mut world, &caller);
    let named = format!("{}%3Bearly-only", dialog_of(&second));
    refer(&mut world, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    let notify = requests(&mut world).pop().unwrap();
    assert_eq!(news(&notify), ("SIP/2.0 486 Busy Here".to_owned(), true));
    assert_eq!(world.ends(), []);
}

#[test]
fn a_call_that_who_asks_has_begun_and_that_is_unanswered_joins_nobody() {
    // RFC 3891 section 3: an early dialog is replaced only by whom it began at.
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    let mut second = Caller::new("acme", caller.peer.clone(), "second");
    second.target = "sip:+49301234567@edge.example".to_owned();
    second.request(&mut world, "INVITE", &offer());
    let leg = world.needs.last().unwrap().0;
    reserve(&mut world, leg, 22_000);
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "180 Ringing", "t", "|");
    let ringing = world.response();
    second.follow(&ringing);
    refer(
        &mut world,
        &mut caller,
        &format!("<sip:x@edge.example?Replaces={}>", dialog_of(&second)),
    );
    let notify = requests(&mut world).pop().unwrap();
    assert_eq!(news(&notify).0, "SIP/2.0 481 Call/Transaction Does Not Exist");
    assert_eq!(world.ends(), []);
}

#[test]
fn nobody_is_left_out_where_the_referrer_has_hung_up_meanwhile() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    caller.extra = format!("Refer-To: {TO_AGENT}\r\nRefer-Sub: false\r\n");
    caller.request(&mut world, "REFER", "");
    caller.extra.clear();
    caller.request(&mut world, "BYE", "");
    let sent = world.take();
    let codes = sent.iter().filter_map(|it| match it {
        Message::Response(response) => Some(response.status.code()),
        Message::Request(_) => None,
    });
    let codes: Vec<u16> = codes.collect();
    assert_eq!(codes, [202, 200]);
    assert_eq!(world.ends(), []);
    assert!(talks_with_agent(&latest(&world, callee.leg)));
}
