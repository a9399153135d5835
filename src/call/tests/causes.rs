//! Stories of causes: what each leg learns of why the other one ended (RFC 3326).

use base::Reason;
use sip::{Headers, Message, Name, Request};

use super::bridging::{Callee, body, callee_answer, connected, dial, requests, responses};
use super::world::{Caller, World, offer};

/// The CANCEL of the caller's INVITE, with further header lines.
fn cancel(caller: &mut Caller, lines: &str) -> String {
    let (cseq, tag) = (caller.cseq, caller.tag.clone());
    caller.extra = lines.to_owned();
    let text = caller.text("INVITE", cseq, "").replace("INVITE sip", "CANCEL sip");
    caller.extra.clear();
    text.replace(&format!("{cseq} INVITE"), &format!("{cseq} CANCEL"))
        .replace(&format!("z9hG4bK-{tag}-2;"), &format!("z9hG4bK-{tag}-1;"))
}

/// A call that rings at a trunk.
fn ringing(world: &mut World) -> (Caller, Callee) {
    let caller = dial(world, "+442079460000", &offer());
    let callee = Callee::reached(world, "beta");
    callee.answer(world, "180 Ringing", "tag-callee", "|");
    world.take();
    (caller, callee)
}

fn reason(headers: &Headers) -> Option<&str> {
    headers.text(Name::Reason)
}

/// The only CANCEL among what was sent.
fn cancelled(world: &mut World) -> Request {
    let mut all = requests(world);
    all.retain(|it| it.method.as_str() == "CANCEL");
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn a_callee_learns_that_its_caller_gave_up() {
    let mut world = World::new();
    let (mut caller, callee) = ringing(&mut world);
    let text = cancel(&mut caller, "");
    caller.say(&mut world, &text);
    let sent = world.take();
    let terminated = sent.iter().find_map(|it| match it {
        Message::Response(response) if response.status.code() == 487 => Some(response),
        _ => None,
    });
    assert_eq!(reason(&terminated.unwrap().headers), None, "it knows that itself");
    let Some(Message::Request(told)) = sent.last() else { panic!("{sent:#?}") };
    assert_eq!(told.method.as_str(), "CANCEL");
    assert_eq!(reason(&told.headers), Some("Q.850;cause=16;text=\"Normal call clearing\""));
    assert_eq!(world.ends(), [Reason::Cancelled]);

    // The callee had just answered: its BYE says the same.
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let bye = requests(&mut world).pop().unwrap();
    assert!(bye.headers.reasons().iter().any(|it| it.cause == Some(16)), "{bye:#?}");
    callee.caller.answer(&mut world, &bye, "200 OK", "|");
    world.assert_quiet();
}

#[test]
fn a_call_that_was_answered_elsewhere_is_missed_nowhere() {
    let lines = [
        "Reason: SIP;cause=200;text=\"picked up at desk.inside.example\"\r\n",
        "Reason: Q.850;cause=26\r\n",
        "Reason: X-PBX;cause=1;text=\"10.1.2.3\", sip ; cause=200\r\n",
    ];
    for line in lines {
        let mut world = World::new();
        let (mut caller, callee) = ringing(&mut world);
        let text = cancel(&mut caller, line);
        caller.say(&mut world, &text);
        let told = cancelled(&mut world);
        let said = reason(&told.headers).unwrap();
        match line.contains("Q.850") {
            true => assert_eq!(said, "Q.850;cause=26;text=\"Non-selected user clearing\""),
            false => assert_eq!(said, "SIP;cause=200;text=\"Call completed elsewhere\""),
        }
        assert_eq!(told.headers.all(Name::Reason).count(), 1);
        assert_eq!(world.ends(), [Reason::CompletedElsewhere], "{line}");
        callee.answer(&mut world, "487 Request Terminated", "tag-callee", "|");
        world.assert_quiet();
    }
}

#[test]
fn other_causes_of_a_caller_who_gives_up_cross_as_numbers() {
    let mut world = World::new();
    let (mut caller, _) = ringing(&mut world);
    let line = "Reason: SIP;cause=600;text=\"of 10.1.2.3\", Q.850;cause=17;location=LN\r\n";
    let text = cancel(&mut caller, line);
    caller.say(&mut world, &text);
    let told = cancelled(&mut world);
    let words = "SIP;cause=600;text=\"Busy Everywhere\", Q.850;cause=17;text=\"User busy\"";
    assert_eq!(reason(&told.headers), Some(words));
    assert_eq!(world.ends(), [Reason::Cancelled]);
}

#[test]
fn whoever_rings_for_too_long_or_is_stopped_by_an_operator_learns_why() {
    for (by_time, cause) in [(true, 19), (false, 16)] {
        let mut world = World::new();
        ringing(&mut world);
        match by_time {
            true => world.seconds(200),
            false => world.hang_up(Reason::OperatorHungUp),
        }
        let sent = world.take();
        let of = |wanted: &str| {
            let headers = sent.iter().find_map(|it| match it {
                Message::Request(it) if it.method.as_str() == wanted => Some(&it.headers),
                Message::Response(it) if it.status.code().to_string() == wanted => {
                    Some(&it.headers)
                }
                _ => None,
            });
            headers.unwrap().reasons().first().and_then(|it| it.cause)
        };
        assert_eq!((of("CANCEL"), of("480")), (Some(cause), Some(cause)));
    }
}

#[test]
fn a_refusal_without_a_cause_gets_the_one_of_its_status() {
    for (status, told, cause) in
        [("486 Busy", 486, 17), ("404 No", 404, 1), ("603 No", 603, 21), ("480 Gone", 480, 18)]
    {
        let mut world = World::new();
        dial(&mut world, "+442079460000", &offer());
        let callee = Callee::reached(&mut world, "beta");
        callee.answer(&mut world, status, "t", "|");
        if world.connects.len() > 1 {
            let second = Callee::reached(&mut world, "beta");
            second.answer(&mut world, status, "t", "|");
        }
        let refused = responses(&mut world).pop().unwrap();
        let reasons = refused.headers.reasons();
        let [only] = &reasons[..] else { panic!("{refused:#?}") };
        let is_so = (refused.status.code(), only.protocol.as_str(), only.cause);
        assert_eq!(is_so, (told, "Q.850", Some(cause)), "RFC 6432 section 3");
    }
}

#[test]
fn a_hang_up_without_a_cause_is_normal_clearing_on_the_other_side() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    world.take();
    caller.request(&mut world, "BYE", "");
    let bye = requests(&mut world).pop().unwrap();
    let causes: Vec<_> = bye.headers.reasons().into_iter().map(|it| it.cause).collect();
    assert_eq!(causes, [Some(200), Some(16)]);
}

#[test]
fn a_fork_that_answers_second_learns_that_somebody_else_has_the_call() {
    let mut world = World::new();
    let (_, callee) = connected(&mut world);
    callee.answer(&mut world, "200 OK", "another", &body(&callee_answer(&callee, "0 101")));
    let bye = requests(&mut world).pop().unwrap();
    assert_eq!(bye.method.as_str(), "BYE");
    assert_eq!(reason(&bye.headers), Some("SIP;cause=200;text=\"Call completed elsewhere\""));
}
