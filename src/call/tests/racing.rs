//! Stories of messages that cross each other, and of peers that say things again.

use std::time::Duration;

use base::Reason;
use sip::{Message, Name};

use super::bridging::{Callee, body, callee_answer, connected, dial, plans, requests, responses};
use super::transferring::{methods, news, refer};
use super::world::{World, direction, offer, offer_with};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_200_that_comes_again_after_our_bye_is_acknowledged_and_no_more() {
    let mut world = World::new();
    dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "tag-callee", "|");
    world.hang_up(Reason::OperatorHungUp);
    world.take();
    let answer = callee_answer(&callee, "0 101");
    callee.accept(&mut world, &answer);
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["ACK", "BYE"]);
    callee.accept(&mut world, &answer);
    assert_eq!(methods(&requests(&mut world)), ["ACK"], "one BYE is enough");
    callee.caller.answer(&mut world, &sent[1], "200 OK", "|");
    world.assert_quiet();
}

#[test]
fn of_two_re_invites_that_cross_each_side_waits_as_long_as_its_part_asks() {
    // We began the callee's dialog, and so wait the longer time (RFC 3261 section 14.1).
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    world.take();
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    caller.ack(&mut world, "");
    let told = requests(&mut world).remove(0);
    callee.caller.answer(&mut world, &told, "491 Request Pending", "|");
    world.take();
    world.pass(ms(2_099));
    assert!(requests(&mut world).is_empty(), "it is the other side's turn");
    world.pass(ms(1_902));
    let again = requests(&mut world);
    assert_eq!(methods(&again), ["INVITE"]);
    assert_eq!(direction(&again[0].body), "sendonly");

    // The caller began its own: we wait for two seconds at most.
    let mut world = World::new();
    let (caller, mut callee) = connected(&mut world);
    world.take();
    callee.caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    callee.caller.ack(&mut world, "");
    let told = requests(&mut world).remove(0);
    caller.answer(&mut world, &told, "491 Request Pending", "|");
    world.take();
    world.pass(ms(2_000));
    assert_eq!(methods(&requests(&mut world)), ["INVITE"]);
}

#[test]
fn whoever_answers_first_is_heard_however_many_ring() {
    let mut world = World::new();
    let mut caller = dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    for fork in 0..20 {
        callee.answer(&mut world, "180 Ringing", &format!("fork-{fork}"), "|");
    }
    world.take();
    callee.answer(&mut world, "200 OK", "fork-19", &body(&callee_answer(&callee, "0 101")));
    let sent = world.take();
    let [Message::Request(ack), Message::Response(ok)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!(ack.headers.to_tag().as_deref(), Some("fork-19"));
    assert_eq!(ok.status.code(), 200);
    caller.follow(ok);
    caller.ack(&mut world, "");
    assert!(plans(&world).1.send.is_some());
    assert_eq!(world.ends(), []);
}

#[test]
fn a_referrer_that_wants_no_news_is_told_that_it_gets_none() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    let to = "<sip:+49301234567@edge.example>";
    refer(&mut world, &mut caller, &format!("{to}\r\nRefer-Sub: false"));
    let accepted = responses(&mut world).remove(0);
    assert_eq!(accepted.status.code(), 202);
    let said = accepted.headers.named("Refer-Sub").next().and_then(|it| it.text());
    assert_eq!(said, Some("false"), "RFC 4488 section 4");
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "180 Ringing", "t", "|");
    assert!(requests(&mut world).is_empty());

    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    refer(&mut world, &mut caller, to);
    let sent = world.take();
    let [Message::Response(accepted), Message::Request(trying)] = &sent[..] else {
        panic!("{sent:#?}")
    };
    assert!(accepted.headers.named("Refer-Sub").next().is_none());
    assert_eq!(news(trying).0, "SIP/2.0 100 Trying");
}

#[test]
fn a_bye_that_crosses_our_re_invite_ends_the_call_for_both() {
    let mut world = World::new();
    let (mut caller, mut callee) = connected(&mut world);
    world.take();
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    caller.ack(&mut world, "");
    let hold = requests(&mut world).remove(0);
    callee.caller.request(&mut world, "BYE", "");
    let sent = world.take();
    let said: Vec<String> = sent
        .iter()
        .map(|message| match message {
            Message::Request(request) => request.method.as_str().to_owned(),
            Message::Response(response) => response.status.code().to_string(),
        })
        .collect();
    assert_eq!(said, ["200", "BYE"]);
    let Message::Request(bye) = &sent[1] else { panic!("{sent:#?}") };
    assert_eq!(bye.headers.text(Name::CallId), Some(caller.call_id.as_str()));
    callee.caller.answer(&mut world, &hold, "487 Request Terminated", "|");
    caller.answer(&mut world, bye, "200 OK", "|");
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}

#[test]
fn a_refusal_after_ringing_has_the_tag_of_the_ringing() {
    for ends in ["callee", "edge"] {
        let mut world = World::new();
        dial(&mut world, "+442079460000", &offer());
        let callee = Callee::reached(&mut world, "beta");
        callee.answer(&mut world, "180 Ringing", "t", "|");
        let ringing = world.response().headers.to_tag();
        match ends {
            "callee" => callee.answer(&mut world, "486 Busy Here", "t", "|"),
            _ => world.hang_up(Reason::OperatorHungUp),
        }
        let refused = responses(&mut world).pop().unwrap();
        assert!(refused.status.is_failure());
        assert_eq!(refused.headers.to_tag(), ringing, "RFC 3261 section 8.2.6.2");
    }
}
