//! What of a call is kept: edge, trunk and voice agent each have a switch for its audio and one
//! for its words, and only where all three are on is it kept.

use std::sync::Arc;

use super::world::{Caller, POLICY, World, offer, setup};
use crate::{AgentCard, Input, Keep, Setup};

const SWITCHES: [Keep; 4] = [
    Keep { recording: false, transcript: false },
    Keep { recording: false, transcript: true },
    Keep { recording: true, transcript: false },
    Keep { recording: true, transcript: true },
];

/// Every setting of the three pairs of switches: edge, trunk, voice agent.
fn settings() -> impl Iterator<Item = [Keep; 3]> {
    SWITCHES.into_iter().flat_map(|edge| {
        SWITCHES.into_iter().flat_map(move |trunk| SWITCHES.map(|agent| [edge, trunk, agent]))
    })
}

#[test]
fn each_switch_can_only_forbid_and_of_its_own_kind_only() {
    for [edge, trunk, agent] in settings() {
        let kept = Keep::allowed_by(edge, trunk, agent);
        let all = [edge, trunk, agent];
        assert_eq!(kept.recording, all.iter().all(|it| it.recording), "{all:?}");
        assert_eq!(kept.transcript, all.iter().all(|it| it.transcript), "{all:?}");
    }
}

fn kept_of_a_call(edge: Keep, trunk: Keep, agent: Keep) -> Keep {
    let word = |allowed| if allowed { "\"allowed\"" } else { "\"never\"" };
    let policy = POLICY
        .replace(
            "recording      = \"allowed\"",
            &format!("recording      = {}", word(trunk.recording)),
        )
        .replace(
            "transcript     = \"allowed\"",
            &format!("transcript     = {}", word(trunk.transcript)),
        );
    let Keep { recording, transcript } = agent;
    let card = AgentCard { recording, transcript, barge_in: None };
    let made = setup(&policy);
    let made = Setup {
        policy: Arc::clone(&made.policy),
        agents: [("reception".to_owned(), card)].into(),
        logins: made.logins.clone(),
        recording: edge.recording,
        transcript: edge.transcript,
        advertise: None,
        media_advertise: None,
        browser_media: Vec::new(),
    };
    let (mut world, mut caller) = (World::new(), Caller::acme());
    world.input(Input::Reload(Arc::new(made)));
    caller.ring(&mut world, &offer());
    caller.ack(&mut world, "");
    world.started[0].2
}

#[test]
fn a_call_is_kept_as_the_three_switches_say() {
    for [edge, trunk, agent] in settings() {
        let wanted = Keep::allowed_by(edge, trunk, agent);
        assert_eq!(kept_of_a_call(edge, trunk, agent), wanted, "{:?}", [edge, trunk, agent]);
    }
}
