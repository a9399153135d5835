//! Requests that become no call, and what their senders learn.

use base::{Event, Reason};
use policy::Transport;
use sip::Name;

use super::world::{Caller, World, offer, peer};

/// The answer to an INVITE that is `change`d before it is sent.
fn answer_to(change: impl FnOnce(&str) -> String) -> (World, sip::Response) {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let text = change(&caller.text("INVITE", 1, &offer()));
    caller.say(&mut world, &text);
    let response = world.response();
    (world, response)
}

fn refused(change: impl FnOnce(&str) -> String) -> (u16, sip::Response) {
    let (mut world, response) = answer_to(change);
    assert!(world.needs.is_empty(), "no port is asked for");
    let told = world.events.iter().any(|it| matches!(it, Event::RequestRefused { .. }));
    assert!(told, "the operator is told");
    world.assert_quiet();
    (response.status.code(), response)
}

#[test]
fn a_looping_invite_is_483() {
    let (status, _) = refused(|text| text.replace("Max-Forwards: 70", "Max-Forwards: 0"));
    assert_eq!(status, 483);
}

#[test]
fn an_extension_that_is_not_known_is_420_and_named() {
    let change = |text: &str| text.replace("Call-ID", "Require: timer, path, gruu\r\nCall-ID");
    let (status, response) = refused(change);
    assert_eq!(status, 420);
    assert_eq!(response.headers.list(Name::Unsupported).unwrap(), ["path", "gruu"]);
}

#[test]
fn a_body_of_another_type_is_415_and_told_what_is_taken() {
    let (status, response) = refused(|text| text.replace("application/sdp", "text/plain"));
    assert_eq!(status, 415);
    assert!(response.headers.has_token(Name::Accept, "application/sdp"));
}

#[test]
fn a_scheme_that_cannot_be_called_is_416() {
    let (status, _) =
        refused(|text| text.replace("INVITE sip:reception@edge.example", "INVITE urn:service:sos"));
    assert_eq!(status, 416);
}

#[test]
fn a_description_that_cannot_be_read_is_400() {
    let (status, _) = refused(|text| text.replace("v=0\r\no=", "v=0\r\nq="));
    assert_eq!(status, 400);
}

#[test]
fn a_record_route_that_cannot_be_read_is_400_and_counts_nowhere() {
    let change = |text: &str| text.replace("Call-ID", "Record-Route: <<<\r\nCall-ID");
    let (status, _) = refused(change);
    assert_eq!(status, 400);
}

#[test]
fn a_route_that_refuses_and_an_agent_that_is_not_there_say_so() {
    let (status, _) = refused(|text| text.replace("sip:reception@", "sip:nobody@"));
    assert_eq!(status, 603);
    let (world, response) = answer_to(|text| text.replace("sip:reception@", "sip:ghost@"));
    assert_eq!(response.status.code(), 503);
    assert!(response.headers.has(Name::RetryAfter));
    assert_eq!(world.ends(), [Reason::AgentUnavailable]);
    let statuses: Vec<u16> = world
        .events
        .iter()
        .filter_map(|event| match event {
            Event::RequestRefused { status, .. } => Some(*status),
            _ => None,
        })
        .collect();
    assert_eq!(statuses, [503]);
}

#[test]
fn methods_that_are_not_taken_are_405_or_501() {
    for (method, status) in
        [("MESSAGE", 405), ("REGISTER", 405), ("REFER", 405), ("BREW", 501), ("PUBLISH", 405)]
    {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.request(&mut world, method, "");
        let response = world.response();
        assert_eq!(response.status.code(), status, "{method}");
        assert!(response.headers.has_token(Name::Allow, "INVITE"), "{method}");
    }
}

#[test]
fn a_request_of_a_dialog_that_never_was_is_481() {
    for method in ["BYE", "UPDATE", "INFO", "INVITE", "PRACK", "NOTIFY"] {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.to_tag = "03-0011223344556677".to_owned();
        caller.request(&mut world, method, "");
        assert_eq!(world.status(), 481, "{method}");
    }
}

#[test]
fn another_trunk_cannot_touch_a_call_even_with_its_tags() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    let mut thief = caller.clone();
    thief.trunk = base::TrunkName::new("other");
    thief.peer = peer("192.0.2.66:5061", 9, Transport::Tls);
    for method in ["BYE", "INFO", "UPDATE", "INVITE"] {
        thief.request(&mut world, method, "");
        assert_eq!(world.status(), 481, "{method}");
    }
    assert_eq!(world.ends(), []);
    caller.cseq = thief.cseq;
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
}

#[test]
fn the_same_invite_by_two_paths_is_482() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let first = caller.text("INVITE", 1, &offer());
    let second = caller.text("INVITE", 1, &offer());
    caller.say(&mut world, &first);
    caller.say(&mut world, &second);
    assert_eq!(world.status(), 482);
    assert_eq!(world.needs.len(), 1);
}

#[test]
fn a_repeated_invite_is_one_call() {
    let (mut world, mut caller) = (World::new(), Caller::lab());
    let text = caller.text("INVITE", 1, &offer());
    for _ in 0..3 {
        caller.say(&mut world, &text);
    }
    assert_eq!(world.needs.len(), 1);
    world.reserve();
    caller.say(&mut world, &text);
    let sent = world.take();
    assert!(!sent.is_empty());
    assert_eq!(world.calls_counted(), 1);
}

#[test]
fn over_a_limit_or_while_draining_the_caller_may_try_again() {
    type Change = fn(&mut super::world::Counts);
    let cases: [(Change, Reason); 4] = [
        (|it| it.calls = 3, Reason::TrunkCallLimit),
        (|it| it.rate = 50, Reason::TrunkRateLimit),
        (|it| it.full = true, Reason::EdgeCallLimit),
        (|it| it.draining = true, Reason::Draining),
    ];
    for (change, reason) in cases {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        world.book.with(change);
        let before = world.calls_counted();
        caller.request(&mut world, "INVITE", &offer());
        let response = world.response();
        assert_eq!(response.status.code(), 503, "{reason}");
        assert!(response.headers.has(Name::RetryAfter), "{reason}");
        assert_eq!(world.ends(), [reason]);
        assert_eq!(world.calls_counted(), before, "{reason}");
    }
}

/// An offer with a further part; `part` is its header fields.
fn with_part(part: &str) -> String {
    let offer = offer();
    let offer = offer.split_once('|').unwrap().1;
    format!(
        "multipart/mixed;boundary=unique|--unique\r\nContent-Type: application/sdp\r\n\r\n{offer}\
         \r\n--unique\r\n{part}\r\nx\r\n--unique--\r\n"
    )
}

#[test]
fn a_part_of_a_body_that_must_be_understood_and_is_not_is_415() {
    let isup =
        "Content-Type: application/ISUP\r\nContent-Disposition: signal;handling=required\r\n";
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "INVITE", &with_part(isup));
    let response = world.response();
    assert_eq!(response.status.code(), 415);
    assert!(response.headers.has_token(Name::Accept, "application/sdp"));
    assert!(response.headers.has_token(Name::Accept, "multipart/mixed"));
    assert!(world.needs.is_empty());
    world.assert_quiet();
}

#[test]
fn a_multipart_body_that_cannot_be_taken_apart_is_400_and_one_of_too_many_parts_413() {
    let broken = with_part("").replace("--unique--", "");
    let many = with_part("").replace("--unique--", &"--unique\r\n\r\n".repeat(20));
    for (body, status) in [(broken, 400), (many, 413)] {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.request(&mut world, "INVITE", &body);
        assert_eq!(world.status(), status);
        world.assert_quiet();
    }
}

#[test]
fn a_peer_whom_policy_refuses_in_silence_hears_nothing() {
    let (mut world, mut caller) = (World::new(), Caller::lab());
    let silent = super::world::POLICY.replace("[trunk.lab]", "[trunk.lab]\nrefuse = \"silent\"");
    world.input(crate::Input::Reload(super::world::setup(&silent)));
    // The exemption ends between the front door and here.
    world.seconds(71 * 24 * 3_600);
    let invite = caller.request(&mut world, "INVITE", &offer());
    for _ in 0..5 {
        world.pass(std::time::Duration::from_millis(500));
        caller.say(&mut world, &invite);
    }
    let again = caller.text("INVITE", caller.cseq, &offer());
    caller.say(&mut world, &again);
    let head = invite.split("Content-Type").next().unwrap().replace("INVITE", "CANCEL");
    caller.say(&mut world, &format!("{head}Content-Length: 0\r\n\r\n"));
    world.seconds(60);
    assert!(world.take().is_empty(), "not even 100, 482, or 200 to the CANCEL");
    assert_eq!(world.ends(), [Reason::ExemptionExpired; 2]);
    let silent = world
        .events
        .iter()
        .filter(|it| matches!(it, Event::RequestRefused { status: 0, .. }))
        .count();
    assert_eq!(silent, 2, "the operator is told");
    world.assert_quiet();
}
