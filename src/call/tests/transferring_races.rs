//! Stories of transfers that cross something else: hang-ups, other offers, other transfers.

use base::{LegId, Reason};
use media::LegPlan;
use sip::{Message, Name, Request};

use super::bridging::{Callee, body, bridge, callee_answer, connected, requests, responses};
use super::world::{Caller, World, offer_with};

const TO: &str = "Refer-To: <sip:+49301234567@edge.example>\r\n";

fn refer(world: &mut World, from: &mut Caller) {
    from.extra = TO.to_owned();
    from.request(world, "REFER", "");
    from.extra.clear();
}

fn methods(sent: &[Request]) -> Vec<&str> {
    sent.iter().map(|it| it.method.as_str()).collect()
}

fn codes(world: &mut World) -> Vec<u16> {
    responses(world).iter().map(|it| it.status.code()).collect()
}

fn latest(world: &World, leg: LegId) -> LegPlan {
    world.plans.iter().rev().find(|plan| plan.leg == leg).expect("a plan").clone()
}

#[test]
fn a_refer_that_crosses_our_bye_finds_no_dialog() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    callee.caller.request(&mut world, "BYE", "");
    world.take();
    refer(&mut world, &mut caller);
    assert_eq!(codes(&mut world), [481]);
    assert_eq!(world.connects.len(), 1, "nobody is dialled");
    world.assert_quiet();
}

#[test]
fn a_refer_whose_own_bye_has_overtaken_it_finds_no_dialog() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    caller.cseq += 1;
    caller.request(&mut world, "BYE", "");
    world.take();
    caller.cseq -= 2;
    refer(&mut world, &mut caller);
    assert_eq!(codes(&mut world), [481]);
    world.assert_quiet();
}

#[test]
fn a_refer_is_followed_while_a_reinvite_of_the_referrer_waits_for_its_ack() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    // The transferor holds first; its ACK is late.
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    let sent = world.take();
    let hold = sent.iter().find_map(|message| match message {
        Message::Request(request) if request.method.as_str() == "INVITE" => Some(request.clone()),
        _ => None,
    });
    let invite_cseq = caller.cseq;
    refer(&mut world, &mut caller);
    assert_eq!(responses(&mut world)[0].status.code(), 202);
    let ack = caller.text("ACK", invite_cseq, "");
    caller.say(&mut world, &ack);
    let third = Callee::reached(&mut world, "info");
    // The hold that the callee is told of is still open when the target answers.
    third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
    assert_eq!(methods(&requests(&mut world)), ["ACK", "NOTIFY", "BYE"]);
    let hold = hold.expect("the callee is told of the hold");
    let answer = callee_answer(&callee, "0 101").replace("a=rtcp-mux", "a=recvonly");
    callee.caller.answer(&mut world, &hold, "200 OK", &body(&answer));
    // It is taken back as soon as that can be said: nobody holds any more.
    let again = requests(&mut world);
    assert_eq!(methods(&again), ["ACK", "INVITE"]);
    assert_eq!(super::world::direction(&again[1].body), "sendrecv");
    assert_eq!(bridge(&latest(&world, callee.leg)).with, third.leg);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn a_refer_while_a_reinvite_of_ours_is_open_is_followed() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    callee.caller.request(&mut world, "INVITE", &hold_of(&callee));
    let hold = requests(&mut world).pop().unwrap();
    assert_eq!(hold.headers.call_id(), Ok(caller.call_id.as_str()));
    refer(&mut world, &mut caller);
    assert_eq!(codes(&mut world), [202]);
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "486 Busy Here", "t", "|");
    let notify = requests(&mut world).pop().unwrap();
    assert!(notify.headers.text(Name::SubscriptionState).unwrap().starts_with("terminated"));
    assert_eq!(world.ends(), []);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

fn hold_of(callee: &Callee) -> String {
    callee_answer(callee, "0 101").replace("a=rtcp-mux", "a=sendonly")
}

#[test]
fn a_200_of_the_target_that_crosses_our_cancel_is_acknowledged_and_ended() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller);
    world.take();
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "180 Ringing", "t", "|");
    world.take();
    // The transferee hangs up while the target rings.
    callee.caller.request(&mut world, "BYE", "");
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["BYE", "CANCEL"]);
    caller.answer(&mut world, &sent[0], "200 OK", "|");
    third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["ACK", "BYE"]);
    assert_eq!(sent[1].headers.to_tag().as_deref(), Some("t"));
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}

#[test]
fn a_transferee_that_hangs_up_after_its_transferor_ends_the_call_and_the_ringing() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller);
    // The transferor leaves with the 202.
    caller.request(&mut world, "BYE", "");
    world.take();
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "180 Ringing", "t", "|");
    assert!(world.take().is_empty(), "who has left is told no news");
    callee.caller.request(&mut world, "BYE", "");
    assert_eq!(methods(&requests(&mut world)), ["CANCEL"]);
    third.answer(&mut world, "487 Request Terminated", "t", "|");
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}

#[test]
fn of_two_refers_at_once_from_both_sides_one_is_followed() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller);
    world.take();
    refer(&mut world, &mut callee.caller);
    assert_eq!(codes(&mut world), [491]);
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
    assert_eq!(bridge(&latest(&world, callee.leg)).with, third.leg);
    world.take();
    // Afterwards the callee may carry on.
    refer(&mut world, &mut callee.caller);
    assert_eq!(responses(&mut world)[0].status.code(), 202);
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn a_target_that_answers_after_both_have_left_is_let_go() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller);
    caller.request(&mut world, "BYE", "");
    world.take();
    let third = Callee::reached(&mut world, "info");
    callee.caller.request(&mut world, "BYE", "");
    assert_eq!(methods(&requests(&mut world)), [""; 0], "nothing was heard of it yet");
    third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
    assert_eq!(methods(&requests(&mut world)), ["ACK", "BYE"]);
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}
