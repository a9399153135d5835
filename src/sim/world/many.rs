//! Many random calls with random faults, and nothing left of them in the end.

use std::collections::BTreeSet;
use std::time::Duration;

use audio::Codec;
use base::{Random, SeededRandom};
use call::Record;
use policy::Transport;

use super::caller::{Acks, Act};
use super::hands::Speaker;
use super::network::Faults;
use super::{SHARDS, World, seed};

const WORLDS: u64 = 50;
const CALLERS: usize = 4;

#[test]
fn of_two_hundred_random_calls_nothing_is_left() {
    let first = seed(10_000);
    let (mut answered, mut spoken) = (0, 0);
    let (mut shards, mut codecs) = (BTreeSet::new(), BTreeSet::new());
    for seed in first..first + WORLDS {
        // What follows prints nothing: a failure names its seed.
        let mut world = World::new(seed);
        let mut random = SeededRandom::new(seed.wrapping_mul(77));
        people(&mut world, &mut random);
        world.seconds(8);
        world.end();
        answered += world.callers.iter().filter(|it| it.statuses.first() == Some(&200)).count();
        spoken += world.hands.turns.len();
        let tags = world.callers.iter().flat_map(|caller| &caller.tags);
        shards.extend(tags.filter_map(|tag| sip::ids::shard_of_tag(tag)));
        codecs.extend(world.hands.records.iter().filter_map(|record| match record {
            Record::Answered { codec, protection, .. } => Some((*codec, *protection == "none")),
            _ => None,
        }));
    }
    assert!(answered > 100 && spoken > 100, "{answered} calls answered, {spoken} turns");
    assert_eq!(shards.len(), usize::from(SHARDS));
    assert_eq!(codecs.len(), 8, "each with and without SRTP: {codecs:?}");
}

fn people(world: &mut World, random: &mut SeededRandom) {
    let mut per_mille = |most: u32| random.below(most);
    world.sip = Faults {
        lost: per_mille(200),
        doubled: per_mille(200),
        held_back: per_mille(300),
        delay: Duration::from_millis(u64::from(per_mille(80))),
        jitter_ms: per_mille(50),
    };
    world.media = Faults {
        lost: per_mille(100),
        doubled: per_mille(50),
        held_back: per_mille(30),
        delay: Duration::from_millis(u64::from(per_mille(80))),
        jitter_ms: per_mille(40),
    };
    world.hands.reserve_delay = Duration::from_millis(u64::from(random.below(400)));
    world.hands.relay_is_deaf = random.below(25) == 0;
    world.hands.speaker = match random.below(16) {
        0 => Speaker::Fails,
        1 => Speaker::Silent,
        2 => Speaker::Refuses,
        _ => Speaker::Well,
    };
    for index in 0..CALLERS {
        let transport = if random.below(2) == 0 { Transport::Udp } else { Transport::Tls };
        let caller = world.caller(transport);
        caller.phone.is_deaf = true;
        match random.below(12) {
            0 => caller.phone.speak(Codec::Opus),
            1 | 2 => caller.phone.speak(Codec::G722),
            _ => {} // G.711
        }
        if transport == Transport::Udp && random.below(3) == 0 {
            caller.phone.bare();
        }
        caller.acks = match random.below(12) {
            0 => Acks::Never,
            1 => Acks::After(Duration::from_millis(u64::from(random.below(3_000)))),
            _ => Acks::AtOnce,
        };
        caller.session_expires = if random.below(3) == 0 { 100 } else { 0 };
        caller.allows_update = random.below(2) == 0;
        let mut at = u64::from(random.below(800));
        for _ in 0..random.below(5) {
            caller.script.push_back((Duration::from_millis(at), act(random)));
            at += u64::from(random.below(2_000));
        }
        world.call(index, Duration::from_millis(u64::from(random.below(2_000))));
    }
}

fn act(random: &mut SeededRandom) -> Act {
    match random.below(13) {
        0 | 1 => Act::Say("hours"),
        2 => Act::Say("goodbye"),
        3 => Act::Press("1"),
        4 => Act::Press("2"),
        5 => Act::Press("19*"),
        6 => Act::Hold(true),
        7 => Act::Hold(false),
        8 => Act::Cancel,
        9 => Act::Drop,
        10 => Act::Vanish,
        11 => Act::DropEarly,
        _ => Act::Bye,
    }
}
