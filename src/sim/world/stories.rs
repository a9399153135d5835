//! Stories of the whole: what a caller and a carrier see, and what is kept of it.

use std::time::Duration;

use policy::Transport;

use super::caller::Act;
use super::{GREETING, World, seed};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn the_greeting_is_heard_from_its_first_sample() {
    let mut world = World::new(seed(1));
    world.caller(Transport::Tls).script = [(ms(6_000), Act::Bye)].into();
    world.call(0, ms(0));
    world.seconds(7);
    world.end();
    assert_eq!(world.callers[0].statuses, [200]);
    assert_eq!(world.transcript()[0], format!("A: {GREETING}"));
}
