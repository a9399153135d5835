//! Stories of calls between trunks that are recorded, and of those that are not.

use base::{LegId, Personal};

use super::bridging::{Callee, callee_answer, connected, dial};
use super::world::{Caller, POLICY, World, crypto, described, offer};
use crate::{Input, Record, Unrecorded};

const TO_BETA: &str = r#"send_to = { trunk = "beta" }"#;
const BETA: &str = r#"dtmf    = ["rfc4733"]"#;

/// The route and both trunks want and allow it, as far as asked for.
fn world(route: bool, callee: bool) -> World {
    let mut policy = POLICY.to_owned();
    if route {
        policy = policy.replace(TO_BETA, &format!("{TO_BETA}\nrecord = true"));
    }
    if callee {
        policy = policy.replace(BETA, &format!("{BETA}\nrecording = \"allowed\""));
    }
    World::with_policy(&policy)
}

fn is_said_to_be_kept(world: &World) -> bool {
    let kept = world.records.iter().find_map(|record| match record {
        Record::Answered { keep, .. } => Some(keep.recording),
        _ => None,
    });
    kept.expect("it was answered")
}

/// A world that records calls to the trunk `beta`, and lets G.729 through.
fn recorded_and_opaque() -> World {
    World::with_policy(
        &POLICY
            .replace(r#"["opus", "g722", "pcma", "pcmu"]"#, r#"["g729", "pcmu"]"#)
            .replace(r#"["pcmu", "g722"]"#, r#"["g729", "pcmu"]"#)
            .replace(TO_BETA, &format!("{TO_BETA}\nrecord = true"))
            .replace(BETA, &format!("{BETA}\nrecording = \"allowed\"")),
    )
}

#[test]
fn a_call_is_recorded_where_the_route_and_both_trunks_say_so() {
    let mut world = world(true, true);
    let (mut caller, callee) = connected(&mut world);
    let left = LegId { index: 0, ..callee.leg };
    assert_eq!(world.tapes, [Some([left, callee.leg])]);
    assert!(is_said_to_be_kept(&world));
    caller.request(&mut world, "BYE", "");
    assert!(world.released.contains(&left), "the recording ends with the media");
}

#[test]
fn one_that_does_not_say_so_is_enough() {
    for (route, callee) in [(false, true), (true, false), (false, false)] {
        let mut world = world(route, callee);
        connected(&mut world);
        assert_eq!((world.tapes.len(), is_said_to_be_kept(&world)), (0, false));
    }
}

#[test]
fn what_nobody_decodes_is_not_recorded_and_the_record_says_so() {
    let mut world = recorded_and_opaque();
    let offer = described("RTP/SAVP 18 101", &crypto(1, 'P'));
    let mut caller = dial(&mut world, "+442079460000", &offer);
    let callee = Callee::reached(&mut world, "beta");
    let answer = callee_answer(&callee, "18 101");
    callee.accept(&mut world, &answer);
    let ok = super::bridging::responses(&mut world).remove(0);
    assert_eq!(ok.status.code(), 200);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    assert_eq!((world.tapes.len(), is_said_to_be_kept(&world)), (0, false));
}

/// Why the call is not recorded, as was said last, and whether it is.
fn said(world: &World) -> (bool, Option<Unrecorded>) {
    let said = world.records.iter().rev().find_map(|record| match record {
        Record::Answered { keep, unrecorded, .. } => Some((keep.recording, *unrecorded)),
        Record::Recorded { recording, unrecorded, .. } => Some((*recording, *unrecorded)),
        _ => None,
    });
    said.expect("it was answered")
}

#[test]
fn why_a_wanted_recording_is_not_made_stands_in_the_calls_record() {
    let mut world = world(true, false);
    connected(&mut world);
    assert_eq!(said(&world), (false, Some(Unrecorded::Trunk)));
    let mut world = self::world(false, true);
    connected(&mut world);
    assert_eq!(said(&world), (false, None), "nobody wanted it");
    // A voice agent that would record its calls, and a trunk that forbids it.
    let mut world = World::new();
    Caller::lab().call(&mut world, &offer());
    assert_eq!(said(&world), (false, Some(Unrecorded::Trunk)));
    assert!(!world.started[0].2.recording);
}

#[test]
fn a_call_that_changes_to_what_is_decoded_is_recorded_from_there_and_says_so() {
    let mut world = recorded_and_opaque();
    let both = described("RTP/SAVP 18 0 101", &crypto(1, 'P'));
    let mut caller = dial(&mut world, "+442079460000", &both);
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "18 0 101"));
    let ok = super::bridging::responses(&mut world).remove(0);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    assert_eq!((world.tapes.len(), said(&world)), (0, (false, Some(Unrecorded::Codec))));
    world.take();
    caller.request(&mut world, "INVITE", &described("RTP/SAVP 0 101", &crypto(1, 'P')));
    caller.ack(&mut world, "");
    let sent = super::bridging::requests(&mut world);
    let answer = super::bridging::body(&callee_answer(&callee, "0 101"));
    callee.caller.answer(&mut world, &sent[0], "200 OK", &answer);
    assert_eq!(world.tapes.len(), 1);
    assert_eq!(said(&world), (true, Some(Unrecorded::Codec)));
}

/// A voice agent's caller is carried to a trunk.
fn carried_over(world: &mut World) -> Callee {
    let mut caller = Caller::acme();
    caller.call(world, &offer());
    world.take();
    let call = world.leg().call;
    let to = Personal::new("+442079460000".to_owned());
    world.input(Input::Transfer { call, to, is_announced: false });
    let callee = Callee::reached(world, "beta");
    callee.accept(world, &callee_answer(&callee, "0 101"));
    callee
}

#[test]
fn a_call_that_a_voice_agent_carries_over_goes_on_being_recorded_where_all_say_so() {
    for (route, callee) in [(true, true), (false, true), (true, false)] {
        let mut world = world(route, callee);
        let callee_leg = carried_over(&mut world).leg;
        let caller_leg = LegId { index: 0, ..callee_leg };
        let (tapes, expected) = match (route, callee) {
            (true, true) => (vec![Some([caller_leg, callee_leg])], (true, None)),
            // The talk with the voice agent was recorded; of the rest nobody wants it.
            (false, _) => (vec![], (true, None)),
            (true, false) => (vec![], (true, Some(Unrecorded::Trunk))),
        };
        assert_eq!((&world.tapes, said(&world)), (&tapes, expected));
    }
}

#[test]
fn what_takes_a_recorded_partys_place_is_recorded_only_where_its_trunk_allows_it() {
    let policy = POLICY
        .replace(TO_BETA, &format!("{TO_BETA}\nrecord = true"))
        .replace(BETA, &format!("{BETA}\nrecording = \"allowed\""));
    let mut world = World::with_policy(&policy);
    let (mut caller, callee) = connected(&mut world);
    assert_eq!(world.tapes.len(), 1);
    // Its route to the new party says nothing of recording, nor does the new party's trunk.
    super::transferring::refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    world.take();
    let third = Callee::reached(&mut world, "info");
    third.accept(&mut world, &callee_answer(&third, "8 101"));
    assert_eq!(world.tapes.last(), Some(&None));
    assert_eq!(world.tapes.len(), 2);
    assert_eq!(said(&world), (true, None));
    assert_eq!(callee.leg.call, third.leg.call);
}
