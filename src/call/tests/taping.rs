//! Stories of calls between trunks that are recorded, and of those that are not.

use base::LegId;

use super::bridging::{Callee, callee_answer, connected, dial};
use super::world::{POLICY, World, crypto, described};
use crate::contract::Record;

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
    let policy = POLICY
        .replace(r#"["opus", "g722", "pcma", "pcmu"]"#, r#"["g729", "pcmu"]"#)
        .replace(r#"["pcmu", "g722"]"#, r#"["g729", "pcmu"]"#)
        .replace(TO_BETA, &format!("{TO_BETA}\nrecord = true"))
        .replace(BETA, &format!("{BETA}\nrecording = \"allowed\""));
    let mut world = World::with_policy(&policy);
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
