//! Stories of whoever waits while somebody else's telephone rings.

use audio::{Codec, level};
use media::Purpose;

use super::pair::*;

/// What a side's peer hears for so long, in frames of 20 ms; silence where nothing comes.
fn listen(pair: &mut Pair, side: usize, frames: usize) -> Vec<f32> {
    (0..frames)
        .map(|_| {
            pair.wait(20 * MS);
            let mut sound = [0; 160];
            let heard = pair.heard(side);
            let Some(packet) = heard.last() else { return -100.0 };
            decoder(Codec::Pcmu).0.decode(&packet.payload, &mut sound).unwrap();
            level::dbfs(&sound)
        })
        .collect()
}

fn pcmu() -> Pair {
    let mut pair =
        Pair::of(leg(0, plain(), &[usual(Codec::Pcmu)]), leg(1, plain(), &[usual(Codec::Pcmu)]));
    [0, 1].into_iter().for_each(|side| pair.talk(side, 0, &[0xff; 160]));
    pair
}

#[test]
fn the_ring_back_tone_sounds_for_a_second_in_five_until_it_ends() {
    let mut pair = pcmu();
    let now = pair.now;
    pair.sides[1].session.ring(now, true);
    let levels = listen(&mut pair, 1, 500);
    let loud = levels.iter().filter(|level| **level > -25.0).count();
    assert!((98..=104).contains(&loud), "two seconds of ten: {loud}");
    assert!(levels[20] > -25.0 && levels[100] < -50.0 && levels[270] > -25.0);
    let now = pair.now;
    pair.sides[1].session.ring(now, false);
    assert!(listen(&mut pair, 1, 100).iter().all(|level| *level <= -100.0), "it is over");
}

#[test]
fn it_takes_the_place_of_the_other_legs_sound_and_goes_when_another_answers() {
    let mut pair = pcmu();
    let first = pair.heard(1).last().unwrap().sequence;
    let now = pair.now;
    pair.sides[1].session.ring(now, true);
    for _ in 0..30 {
        pair.talk(0, 0, &[0x10; 160]);
    }
    let heard = pair.heard(1);
    assert!(heard.len() >= 29 && heard.iter().all(|packet| packet.payload != [0x10; 160]));
    for (n, packet) in (1..).zip(&heard) {
        assert_eq!(packet.sequence, first.wrapping_add(n), "one source, without a gap");
    }
    // The other leg is gone, and a new one is heard: no word of ringing any more.
    pair.sides[1].plan.purpose = Purpose::Bridge(None);
    pair.apply(1, None);
    assert!(listen(&mut pair, 1, 50).iter().all(|level| *level <= -100.0));
    pair.bridge(1, 0, EVENTS);
    pair.talk(0, 0, &[0x10; 160]);
    assert_eq!(pair.heard(1).last().unwrap().payload, [0x10; 160]);
}
