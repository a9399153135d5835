//! Stories of how long a trunk is waited for, and after what the next one is tried.

use base::Reason;

use super::bridging::{Callee, dial, responses};
use super::world::{POLICY, World, offer};

const CALLED: &str = "+442079460000";
const BOTH: &str = "send_to = { trunks = [{ name = \"beta\" }, { name = \"info\" }] }";

/// A call whose first target is reached; `words` are of trunk `beta`, `route` of its route.
fn dialled(words: &str, route: &str) -> (World, Callee) {
    let policy = POLICY
        .replace("[trunk.beta]\n", &format!("[trunk.beta]\n{words}\n"))
        .replace("\"sip:beta.example;transport=tls\", ", "")
        .replace("send_to = { trunk = \"beta\" }", &format!("{BOTH}\n{route}"));
    let mut world = World::with_policy(&policy);
    dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    (world, callee)
}

/// Whether the second trunk is being dialled.
fn went_on(world: &World) -> bool {
    world.connects.last().unwrap().1 == "sip:192.0.2.77"
}

#[test]
fn the_route_says_after_what_the_next_trunk_is_tried() {
    for (route, status, goes_on) in [
        ("", "500 Oops", true),
        ("", "403 Forbidden", false),
        ("failover = [403]", "403 Forbidden", true),
        ("failover = [403]", "500 Oops", false),
        ("failover = [\"4xx\"]", "404 Not Found", true),
        ("failover = [\"4xx\"]", "480 Gone for Lunch", true),
        ("failover = [\"4xx\", \"5xx\"]", "486 Busy Here", false),
        ("failover = [\"4xx\", \"5xx\"]", "603 Decline", false),
        ("failover = []", "503 Unavailable", false),
    ] {
        let (mut world, callee) = dialled("", route);
        callee.answer(&mut world, status, "t", "|");
        assert_eq!(went_on(&world), goes_on, "{route} {status}");
        assert_eq!(world.ends().is_empty(), goes_on);
    }
}

#[test]
fn a_trunk_that_says_nothing_is_left_after_its_own_time_whatever_the_list_says() {
    let (mut world, _) = dialled("first_response = \"2s\"", "failover = []");
    world.seconds(1);
    assert_eq!(world.connects.len(), 1);
    world.seconds(1);
    assert_eq!(world.connects.len(), 2, "its next address");
}

#[test]
fn ringing_ends_after_the_trunks_time_and_counts_as_480() {
    for (route, goes_on) in [("", false), ("failover = [480]", true)] {
        let (mut world, callee) = dialled("ring = \"20s\"", route);
        callee.answer(&mut world, "180 Ringing", "t", "|");
        world.seconds(19);
        assert!(world.ends().is_empty() && !went_on(&world));
        world.take();
        world.seconds(1);
        let told: Vec<u16> = responses(&mut world).iter().map(|it| it.status.code()).collect();
        if goes_on {
            assert!(went_on(&world) && told.is_empty(), "{told:?}");
        } else {
            assert_eq!((world.ends(), &told[..]), (vec![Reason::NoAnswer], &[480][..]));
        }
    }
}
