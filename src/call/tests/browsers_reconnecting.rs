//! Stories of browsers whose connection is lost, and who come back.

use base::Reason;
use policy::Transport;
use sip::{Message, Method};

use super::browsers::{CHROME, body, secured, world, wss};
use super::world::{Caller, World, peer};
use crate::Input;

/// A call with the voice agent, by SIP over WSS.
fn talking(world: &mut World) -> Caller {
    let mut caller = wss(11);
    caller.call(world, &body(CHROME));
    world.media(secured());
    world.take();
    caller
}

fn lose(world: &mut World, caller: &Caller) {
    world.input(Input::FlowClosed(caller.peer.flow));
}

/// The browser's next connection.
fn back(caller: &mut Caller, flow: u64) {
    caller.peer = peer("192.0.2.33:53999", flow, Transport::Wss);
}

fn byes(world: &mut World) -> Vec<u64> {
    let sent = std::mem::take(&mut world.sent).into_iter();
    sent.filter_map(|(flow, message)| match message {
        Message::Request(request) if request.method == Method::Bye => Some(flow.0),
        _ => None,
    })
    .collect()
}

#[test]
fn a_lost_connection_does_not_end_the_call() {
    let mut world = world();
    let mut caller = talking(&mut world);
    lose(&mut world, &caller);
    world.seconds(60);
    assert!(world.ends().is_empty() && world.released.is_empty());
    back(&mut caller, 12);
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.sent.last().map(|(flow, _)| flow.0), Some(12));
    assert_eq!(world.status(), 200);
    world.assert_quiet();
}

#[test]
fn a_page_that_says_that_it_goes_has_hung_up() {
    let mut world = world();
    let caller = talking(&mut world);
    world.input(Input::PartyGone(caller.peer.flow));
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    assert_eq!(world.released.len(), 1);
    lose(&mut world, &caller);
    world.seconds(60);
    assert!(byes(&mut world).is_empty(), "nobody is there to be told");
    world.assert_quiet();
}

#[test]
fn only_the_page_at_that_connection_has_gone() {
    let mut world = world();
    let mut caller = talking(&mut world);
    lose(&mut world, &caller);
    let before = caller.peer.flow;
    back(&mut caller, 12);
    caller.request(&mut world, "INVITE", &body(CHROME));
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    world.input(Input::PartyGone(before));
    assert!(world.ends().is_empty());
    world.input(Input::PartyGone(caller.peer.flow));
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
}

#[test]
fn what_we_say_goes_over_the_connection_that_the_browser_has_spoken_on_last() {
    let mut world = world();
    let mut caller = talking(&mut world);
    lose(&mut world, &caller);
    back(&mut caller, 12);
    caller.request(&mut world, "INVITE", &body(CHROME));
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(byes(&mut world), [12]);
}

#[test]
fn a_bye_waits_for_the_browser_and_asks_where_it_is() {
    let mut world = world();
    let caller = talking(&mut world);
    lose(&mut world, &caller);
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(byes(&mut world), [0; 0]);
    let (leg, uri, transport) = world.connects.last().unwrap().clone();
    assert_eq!(transport, Transport::Wss);
    assert!(uri.contains("k3v9q2@4f7d0a1b2c3e.invalid"), "{uri}");

    world.input(Input::Unreachable { leg, reason: Reason::AccountNotRegistered });
    let asked = world.connects.len();
    world.seconds(2);
    assert_eq!(world.connects.len(), asked + 1, "it is looked for again");
    let fresh = peer("192.0.2.33:53999", 12, Transport::Wss);
    world.input(Input::Connected { leg, peer: fresh, contact: None });
    assert_eq!(byes(&mut world), [12]);
    world.assert_quiet();
}

#[test]
fn a_bye_that_waits_goes_out_when_the_browser_says_something() {
    let mut world = world();
    let mut caller = talking(&mut world);
    lose(&mut world, &caller);
    world.hang_up(Reason::AgentHungUp);
    back(&mut caller, 12);
    caller.request(&mut world, "INFO", "");
    assert_eq!(byes(&mut world), [12]);
    world.assert_quiet();
}

#[test]
fn a_bye_whose_connection_breaks_is_said_again() {
    let mut world = world();
    let caller = talking(&mut world);
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(byes(&mut world), [11]);
    lose(&mut world, &caller);
    let (leg, ..) = world.connects.last().expect("another flow is asked for").clone();
    let fresh = peer("192.0.2.33:53999", 12, Transport::Wss);
    world.input(Input::Connected { leg, peer: fresh, contact: None });
    assert_eq!(byes(&mut world), [12]);
    world.assert_quiet();
}

#[test]
fn a_browser_that_does_not_come_back_is_waited_for_no_longer_than_the_limit() {
    let mut world = world();
    let caller = talking(&mut world);
    lose(&mut world, &caller);
    world.hang_up(Reason::AgentHungUp);
    for _ in 0..40 {
        let Some((leg, ..)) = world.connects.pop() else { break };
        world.input(Input::Unreachable { leg, reason: Reason::AccountNotRegistered });
        world.seconds(1);
    }
    assert!(world.calls.is_empty());
    world.assert_quiet();
}

#[test]
fn nobody_else_takes_a_browsers_call_over() {
    let mut world = world();
    let mut caller = talking(&mut world);
    let theirs = caller.peer.clone();
    caller.trunk = base::TrunkName::new("acme");
    caller.peer = peer("198.51.100.9:40000", 99, Transport::Tls);
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 481);
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(byes(&mut world), [theirs.flow.0]);
}

#[test]
fn an_unacknowledged_answer_waits_for_the_browser_for_a_while_only() {
    let (mut world, mut caller) = (world(), wss(11));
    caller.ring(&mut world, &body(CHROME));
    lose(&mut world, &caller);
    world.seconds(6);
    assert_eq!(world.ends(), [Reason::FlowLost]);
    world.assert_quiet();
}
