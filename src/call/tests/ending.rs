//! How a call ends, whoever ends it and whatever crosses it on the way.

use std::time::Duration;

use base::Reason;
use media::MediaEvent;
use policy::Transport;
use sip::{Message, Name};

use super::world::{Caller, World, offer, offer_with, peer};
use crate::Input;

fn statuses(messages: &[Message]) -> Vec<u16> {
    messages
        .iter()
        .map(|message| match message {
            Message::Response(response) => response.status.code(),
            Message::Request(_) => 0,
        })
        .collect()
}

fn cancel(caller: &Caller, invite: &str) -> String {
    let head = invite.split("Content-Type").next().unwrap();
    let head = head.replace("INVITE", "CANCEL");
    assert!(head.contains(&caller.call_id));
    format!("{head}Content-Length: 0\r\n\r\n")
}

#[test]
fn a_cancel_before_the_answer_ends_the_call_with_487() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let invite = caller.request(&mut world, "INVITE", &offer());
    let text = cancel(&caller, &invite);
    caller.say(&mut world, &text);
    assert_eq!(statuses(&world.take()), [200, 487]);
    assert_eq!(world.ends(), [Reason::Cancelled]);
    // The ports come too late and go back.
    world.released.clear();
    world.reserve();
    assert_eq!(world.released, [world.leg()]);
    caller.ack(&mut world, "");
    assert!(world.take().is_empty() && world.started.is_empty());
    world.assert_quiet();
}

#[test]
fn a_cancel_that_crosses_the_200_changes_nothing_and_the_bye_ends_the_call() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let invite = caller.request(&mut world, "INVITE", &offer());
    world.reserve();
    let ok = world.response();
    caller.follow(&ok);
    let text = cancel(&caller, &invite);
    caller.say(&mut world, &text);
    assert_eq!(world.status(), 200, "the CANCEL's own");
    assert_eq!(world.ends(), []);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    world.assert_quiet();
}

#[test]
fn a_200_without_an_ack_is_repeated_from_t1_to_t2_and_then_the_call_ends() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.ring(&mut world, &offer());
    let mut times = Vec::new();
    let start = world.now;
    let bye = loop {
        world.pass(Duration::from_millis(100));
        match world.take().pop() {
            Some(Message::Response(response)) => {
                assert_eq!(response.status.code(), 200);
                times.push(world.now.since(start).as_millis());
            }
            Some(Message::Request(bye)) => break bye,
            None => {}
        }
    };
    assert_eq!(times[..5], [500, 1_500, 3_500, 7_500, 11_500]);
    assert_eq!(world.now.since(start), Duration::from_secs(32));
    assert_eq!(bye.method.as_str(), "BYE");
    assert_eq!(bye.headers.text(Name::Reason), Some("SIP;cause=408;text=\"call.no_ack\""));
    assert!(world.started.is_empty());
    caller.answer(&mut world, &bye, "200 OK", "");
    assert_eq!(world.ends(), [Reason::NoAck]);
    world.assert_quiet();
}

#[test]
fn a_bye_before_the_ack_ends_the_call_and_the_late_ack_is_nothing() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.ring(&mut world, &offer());
    let ack = caller.text("ACK", caller.cseq, "");
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
    caller.say(&mut world, &ack);
    world.seconds(40);
    assert!(world.take().is_empty(), "no 200 is repeated, nobody speaks");
    assert!(world.started.is_empty());
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    world.assert_quiet();
}

#[test]
fn ports_that_take_a_while_are_bridged_by_a_100() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "INVITE", &offer());
    world.pass(Duration::from_millis(300));
    assert_eq!(statuses(&world.take()), [100]);
    world.reserve();
    assert_eq!(world.status(), 200);
}

#[test]
fn two_byes_that_cross_are_both_answered() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.hang_up(Reason::AgentHungUp);
    let ours = world.request();
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
    caller.answer(&mut world, &ours, "200 OK", "");
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    world.assert_quiet();
}

#[test]
fn while_our_bye_is_on_its_way_other_requests_are_481() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.hang_up(Reason::AgentHungUp);
    let bye = world.request();
    for method in ["INVITE", "UPDATE", "INFO"] {
        caller.request(&mut world, method, "");
        assert_eq!(world.status(), 481, "{method}");
    }
    caller.answer(&mut world, &bye, "200 OK", "");
    world.assert_quiet();
}

#[test]
fn a_bye_that_nobody_answers_is_forgotten() {
    let (mut world, mut caller) = (World::new(), Caller::lab());
    caller.call(&mut world, &offer());
    world.hang_up(Reason::AgentHungUp);
    world.seconds(33);
    let byes = world.take().len();
    assert_eq!(byes, 11, "timer E: 0.5 s doubling to 4 s within 32 s");
    world.assert_quiet();
}

#[test]
fn a_call_that_ends_before_its_answer_is_never_answered_with_a_2xx() {
    for reason in [Reason::OperatorHungUp, Reason::AgentHungUp, Reason::MaximumDuration] {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.request(&mut world, "INVITE", &offer());
        world.hang_up(reason);
        assert_eq!(world.status(), 480);
        world.assert_quiet();
    }
}

#[test]
fn a_lost_connection_does_not_end_the_call_and_the_bye_opens_a_new_one() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    world.seconds(20);
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::AgentHungUp);
    assert!(world.take().is_empty());
    let (leg, place, transport) = world.connects[0].clone();
    assert_eq!(place, format!("sip:{};transport=tls", caller.peer.source));
    assert_eq!(transport, Transport::Tls);
    // What is dialled has no local address yet.
    let mut opened = (*peer("198.51.100.9:40000", 77, Transport::Tls)).clone();
    opened.local.set_port(0);
    world.input(Input::Connected { leg, peer: opened.into(), contact: None });
    assert_eq!(world.sent[0].0.0, 77);
    let bye = world.request();
    let via = bye.headers.top_via().unwrap();
    assert!(via.to_string().contains("10.20.0.5:5061"), "{via}");
    caller.answer(&mut world, &bye, "200 OK", "");
    world.assert_quiet();
}

#[test]
fn a_peer_that_comes_back_on_a_new_connection_is_spoken_to_there() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    caller.peer = peer("198.51.100.9:41111", 5, Transport::Tls);
    caller.request(&mut world, "OPTIONS", "");
    assert_eq!(world.status(), 200);
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(world.sent[0].0.0, 5);
    assert!(world.connects.is_empty());
    let bye = world.request();
    caller.answer(&mut world, &bye, "200 OK", "");
    world.assert_quiet();
}

#[test]
fn a_connection_that_cannot_be_opened_again_does_not_keep_the_call() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    world.assert_quiet();
}

#[test]
fn silence_of_the_media_ends_the_call_but_not_on_hold() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "INVITE", &offer_with("a=inactive"));
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    world.media(MediaEvent::Inactive);
    assert_eq!(world.ends(), []);
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    world.media(MediaEvent::Inactive);
    let bye = world.request();
    assert!(bye.headers.text(Name::Reason).unwrap().contains("media.inactive"));
    caller.answer(&mut world, &bye, "200 OK", "");
    assert_eq!(world.ends(), [Reason::MediaTimeout]);
    world.assert_quiet();
}

#[test]
fn the_longest_duration_ends_the_call() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.seconds(3_599);
    assert!(world.take().is_empty());
    world.seconds(1);
    let bye = world.request();
    assert!(bye.headers.text(Name::Reason).unwrap().contains("call.maximum_duration"));
    caller.answer(&mut world, &bye, "200 OK", "");
    world.assert_quiet();
}

#[test]
fn a_fault_in_one_call_ends_that_call_and_no_other() {
    let (mut world, mut good, mut bad) = (World::new(), Caller::acme(), Caller::lab());
    good.call(&mut world, &offer());
    bad.call(&mut world, &offer());
    // The randomness for new keys fails in the middle of a re-INVITE.
    *world.fuse.lock().unwrap() = Some(0);
    bad.request(&mut world, "INVITE", "");
    let panicked =
        world.events.iter().filter(|it| matches!(it, base::Event::CallPanicked { .. })).count();
    assert_eq!(panicked, 1);
    assert_eq!(world.ends(), [Reason::Internal]);
    assert_eq!(world.calls_counted(), 1);
    let bye = world.take().pop().expect("the peer is told");
    let Message::Request(bye) = bye else { panic!("{bye:?}") };
    assert_eq!(bye.method.as_str(), "BYE");
    bad.answer(&mut world, &bye, "200 OK", "");
    good.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
    world.assert_quiet();
}

#[test]
fn a_fault_before_the_answer_answers_the_invite() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "INVITE", &offer());
    *world.fuse.lock().unwrap() = Some(1);
    world.reserve();
    assert_eq!(world.status(), 500);
    assert_eq!(world.ends(), [Reason::Internal]);
    world.assert_quiet();
}

#[test]
fn a_connection_that_is_lost_before_the_answer_gives_the_call_up() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let invite = caller.request(&mut world, "INVITE", &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    assert!(world.take().is_empty(), "nobody is there to answer");
    assert_eq!(world.ends(), [Reason::FlowLost]);
    assert_eq!(world.calls_counted(), 0);
    // The ports come too late and go back.
    world.released.clear();
    world.reserve();
    assert_eq!(world.released, [world.leg()]);
    // Who sends the same INVITE again on another connection learns that it is over.
    caller.peer = peer("198.51.100.9:41111", 5, Transport::Tls);
    caller.say(&mut world, &invite);
    assert_eq!(world.sent[0].0.0, 5);
    assert_eq!(world.status(), 503);
    world.assert_quiet();
}

#[test]
fn a_caller_that_lost_its_connection_before_the_ack_may_come_back_on_another() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.ring(&mut world, &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    world.seconds(4);
    assert!(world.take().is_empty(), "nothing is sent on a connection that is gone");
    caller.peer = peer("198.51.100.9:41111", 5, Transport::Tls);
    caller.ack(&mut world, "");
    assert_eq!(world.started.len(), 1);
    world.seconds(60);
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(world.sent[0].0.0, 5, "it is spoken to where it is now");
    let bye = world.request();
    caller.answer(&mut world, &bye, "200 OK", "");
    world.assert_quiet();
}

#[test]
fn a_caller_that_does_not_come_back_before_its_ack_is_given_up_within_seconds() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.ring(&mut world, &offer());
    world.input(Input::FlowClosed(caller.peer.flow));
    world.pass(Duration::from_millis(4_900));
    assert_eq!(world.ends(), []);
    world.pass(Duration::from_millis(100));
    assert_eq!(world.ends(), [Reason::FlowLost]);
    assert_eq!(world.released.len(), 1);
    // The peer may be up all the same: it is told over a connection of ours.
    let leg = world.connects[0].0;
    let opened = peer("198.51.100.9:40000", 77, Transport::Tls);
    world.input(Input::Connected { leg, peer: opened, contact: None });
    let bye = world.request();
    assert!(bye.headers.text(Name::Reason).unwrap().contains("transport.flow_lost"));
    caller.answer(&mut world, &bye, "481 Gone", "");
    world.assert_quiet();
}

#[test]
fn an_invite_that_is_repeated_on_another_connection_gets_the_200_there() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let invite = caller.request(&mut world, "INVITE", &offer());
    world.reserve();
    let ok = world.response();
    caller.follow(&ok);
    world.input(Input::FlowClosed(caller.peer.flow));
    world.seconds(1);
    caller.peer = peer("198.51.100.9:41111", 5, Transport::Tls);
    caller.say(&mut world, &invite);
    world.seconds(1);
    assert_eq!(world.sent[0].0.0, 5);
    assert_eq!(world.response().body, ok.body);
    caller.ack(&mut world, "");
    assert_eq!(world.started.len(), 1);
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}
