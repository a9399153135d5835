//! Stories of transfers that a voice agent announces to the new party.

use base::{LegId, Personal, Reason};
use media::{LegPlan, MediaEvent, Purpose};

use super::bridging::{Callee, bridge, callee_answer, requests};
use super::world::{Caller, World, offer};
use crate::Input;

/// A voice agent's caller, and the new party that has answered.
fn reached(world: &mut World) -> (Caller, Callee) {
    let mut caller = Caller::acme();
    caller.call(world, &offer());
    world.take();
    let call = world.leg().call;
    let to = Personal::new("+442079460000".to_owned());
    world.input(Input::Transfer { call, to, is_announced: true });
    let callee = Callee::reached(world, "beta");
    callee.answer(world, "180 Ringing", "tag-callee", "|");
    callee.accept(world, &callee_answer(&callee, "0 101"));
    assert_eq!(requests(world).remove(0).method.as_str(), "ACK");
    assert_eq!(world.targets, [callee.leg]);
    (caller, callee)
}

fn answer(world: &mut World, callee: &Callee, is_accepted: bool) {
    world.input(Input::TransferAnswer { call: callee.leg.call, is_accepted });
}

fn latest(world: &World, leg: LegId) -> LegPlan {
    world.plans.iter().rev().find(|plan| plan.leg == leg).expect("a plan").clone()
}

#[test]
fn the_agent_speaks_with_the_new_party_before_the_two_are_joined() {
    let mut world = World::new();
    let (mut caller, callee) = reached(&mut world);
    let first = LegId { index: 0, ..callee.leg };
    assert!(matches!(latest(&world, callee.leg).purpose, Purpose::Agent { barge_in: None }));
    assert!(matches!(latest(&world, first).purpose, Purpose::Agent { .. }));
    assert!(world.stopped.is_empty());
    answer(&mut world, &callee, true);
    assert_eq!(world.stopped, [callee.leg.call]);
    assert_eq!(bridge(&latest(&world, first)).with, callee.leg);
    assert_eq!(bridge(&latest(&world, callee.leg)).with, first);
    answer(&mut world, &callee, false);
    assert_eq!(world.ends(), [], "what comes late changes nothing");
    caller.request(&mut world, "BYE", "");
    assert_eq!(requests(&mut world).remove(0).method.as_str(), "BYE");
    world.assert_quiet();
}

#[test]
fn a_new_party_that_does_not_take_the_call_is_let_go_and_the_agent_is_back() {
    for how in ["key", "bye", "media", "session"] {
        let mut world = World::new();
        let (mut caller, mut callee) = reached(&mut world);
        match how {
            "key" => answer(&mut world, &callee, false),
            "bye" => drop(callee.caller.request(&mut world, "BYE", "")),
            "media" => {
                world.input(Input::Media { leg: callee.leg, event: MediaEvent::Inactive });
            }
            _ => {
                // Its answer to a refresh says that it knows nothing of the call.
                callee.caller.extra = "Supported: timer\r\nSession-Expires: 90;refresher=uas\r\n\
                                       Allow: UPDATE\r\n"
                    .to_owned();
                callee.caller.request(&mut world, "UPDATE", "");
                world.take();
                world.seconds(46);
                let refresh = requests(&mut world).remove(0);
                callee.caller.answer(&mut world, &refresh, "481 Gone", "|");
            }
        }
        assert_eq!(world.transfers_failed.len(), 1, "{how}");
        assert_eq!((world.ends(), world.stopped.len()), (vec![], 0), "{how}");
        assert!(matches!(
            latest(&world, LegId { index: 0, ..callee.leg }).purpose,
            Purpose::Agent { .. }
        ));
        caller.request(&mut world, "BYE", "");
        assert_eq!(world.ends(), [Reason::CallerHungUp]);
        world.assert_quiet();
    }
}

#[test]
fn a_caller_that_hangs_up_meanwhile_takes_the_new_party_with_it() {
    let mut world = World::new();
    let (mut caller, callee) = reached(&mut world);
    caller.request(&mut world, "BYE", "");
    assert_eq!(requests(&mut world).remove(0).method.as_str(), "BYE");
    answer(&mut world, &callee, true);
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    world.assert_quiet();
}

#[test]
fn keys_and_holds_of_the_new_party_are_not_the_callers() {
    let mut world = World::new();
    let (_, mut callee) = reached(&mut world);
    let answered = callee_answer(&callee, "0 101").replace("a=rtcp-mux", "a=sendonly");
    callee.caller.request(&mut world, "INVITE", &answered);
    assert!(world.held.is_empty());
    let plan = latest(&world, callee.leg);
    assert!(!plan.direction.send, "{plan:?}");
}
