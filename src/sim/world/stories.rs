//! Stories of the whole: what a caller and a carrier see, and what is kept of it.

use std::collections::BTreeSet;
use std::time::Duration;

use audio::Codec;
use base::{Event, Instant, Reason};
use call::Record;
use media::{MediaEvent, StopCause};
use policy::Transport;

use super::caller::{Acks, Act};
use super::hands::{MARK, Speaker};
use super::network::Faults;
use super::{GREETING, SHARDS, World, seed};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A world with one caller and its script.
fn world(own: u64, transport: Transport, script: &[(u64, Act)]) -> World {
    let mut world = World::new(seed(own));
    world.caller(transport).script =
        script.iter().map(|(at, act)| (ms(*at), act.clone())).collect();
    world.call(0, ms(0));
    world
}

/// How much of the sound's power is at this frequency, 0 to 1; at 8 kHz.
fn share_of(sound: &[i16], hertz: f32) -> f32 {
    let (mut re, mut im, mut power) = (0.0f32, 0.0f32, 0.0f32);
    for (at, sample) in sound.iter().enumerate() {
        let angle = at as f32 / 8_000.0 * hertz * std::f32::consts::TAU;
        let sample = f32::from(*sample);
        re += sample * angle.cos();
        im += sample * angle.sin();
        power += sample * sample;
    }
    2.0 * (re * re + im * im) / (sound.len() as f32 * power.max(1.0))
}

#[test]
fn the_greeting_is_heard_from_its_first_sample() {
    let mut world = world(1, Transport::Tls, &[(3_500, Act::Bye)]);
    world.seconds(5);
    world.end();
    assert_eq!(world.callers[0].statuses, [200]);
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    assert_eq!(world.transcript()[0], format!("A: {GREETING}"));
    let heard = &world.callers[0].phone.heard;
    let onset = heard.iter().position(|sample| sample.unsigned_abs() > 1_000).expect("a voice");
    assert!(onset > 0 && onset < 8_000, "silence opens the way, then the voice comes soon");
    let mark = &heard[onset..onset + MARK / 2];
    assert!(share_of(mark, 1_000.0) > 0.95, "the first 40 ms are whole");
    assert!(share_of(&heard[onset + 400..onset + 1_200], 440.0) > 0.95, "and the rest follows");
    assert_eq!(world.callers[0].phone.goodbyes, 1, "RTCP says goodbye");
}

#[test]
fn a_spoken_answer_leads_on_and_the_agent_hangs_up() {
    let script = [(4_500, Act::Say("hours")), (12_000, Act::Say("goodbye"))];
    let mut world = world(2, Transport::Tls, &script);
    world.seconds(25);
    world.end();
    let said = world.transcript();
    let expected = [
        format!("A: {GREETING}"),
        "A: Hours or goodbye?".to_owned(),
        "C: hours".to_owned(),
        "A: From nine to five.".to_owned(),
        "A: Hours or goodbye?".to_owned(),
        "C: goodbye".to_owned(),
        "A: Goodbye.".to_owned(),
    ];
    assert_eq!(said, expected);
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    assert_eq!(world.callers[0].byes, 1);
    let recording = world.hands.recordings.values().next().expect("a recording");
    assert!(audio::level::dbfs(&recording.caller) > -40.0, "the caller's voice is in it");
    assert!(share_of(&recording.agent[8_000..16_000], 220.0) > 0.9, "440 Hz at 16 kHz");
}

#[test]
fn lost_doubled_and_disordered_messages_make_one_call_one_answer_one_end() {
    for own in 0..30 {
        let is_ours = own % 2 == 0;
        let act = if is_ours { Act::Press("2") } else { Act::Bye };
        let mut world = World::new(seed(100 + own));
        world.sip = Faults { lost: 150, doubled: 150, held_back: 200, ..Faults::NONE };
        world.caller(Transport::Udp).script = [(ms(1_500), act)].into();
        world.call(0, ms(0));
        world.seconds(60);
        world.end();
        let caller = &world.callers[0];
        assert_eq!((caller.tags.len(), &caller.statuses[..]), (1, &[200][..]));
        let reason = if is_ours { Reason::AgentHungUp } else { Reason::CallerHungUp };
        assert_eq!(world.ends(), [reason], "seed {}", world.seed);
        assert_eq!(caller.byes, u32::from(is_ours));
        let arrived =
            world.hands.events.iter().filter(|(_, it)| matches!(it, Event::CallArrived { .. }));
        assert_eq!(arrived.count(), 1);
    }
}

#[test]
fn an_ack_that_comes_after_the_bye_starts_nothing() {
    let mut world = world(3, Transport::Tls, &[(1_000, Act::Bye)]);
    world.callers[0].acks = Acks::After(ms(2_000));
    world.seconds(10);
    world.end();
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    assert!(world.transcript().is_empty(), "nobody spoke");
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_call() {
    let mut world = world(4, Transport::Udp, &[]);
    world.callers[0].acks = Acks::Never;
    world.seconds(40);
    world.end();
    assert_eq!(world.ends(), [Reason::NoAck]);
    assert_eq!(world.callers[0].byes, 1);
}

#[test]
fn a_cancel_that_crosses_the_200_ends_by_bye() {
    let mut world = world(5, Transport::Tls, &[(300, Act::Cancel), (0, Act::Bye)]);
    world.hands.reserve_delay = ms(290);
    world.seconds(5);
    world.end();
    assert_eq!(world.callers[0].statuses, [200]);
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
}

#[test]
fn a_cancel_before_the_200_is_487() {
    let mut world = world(6, Transport::Tls, &[(250, Act::Cancel)]);
    world.hands.reserve_delay = ms(900);
    world.seconds(5);
    world.end();
    assert_eq!(world.callers[0].statuses, [487]);
    assert_eq!(world.ends(), [Reason::Cancelled]);
}

#[test]
fn re_invites_that_cross_are_both_tried_again() {
    let script = [(1_000, Act::Hold(true)), (51_015, Act::Hold(false)), (57_000, Act::Bye)];
    let mut world = world(7, Transport::Tls, &script);
    (world.callers[0].session_expires, world.callers[0].allows_update) = (100, false);
    world.seconds(60);
    world.end();
    let caller = &world.callers[0];
    assert_eq!(caller.statuses, [200, 200, 491, 200], "the answer, hold, glare, resumption");
    assert_eq!(caller.glares, 2, "each refused the other's");
    assert!(caller.refreshes >= 1, "ours went through as well");
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
}

/// When the greeting was cut, by whom, and how many samples of it had been sent.
fn stop_of(world: &World) -> (Instant, StopCause, u64) {
    let stop = world.hands.media_events.iter().find_map(|(at, _, event)| match event {
        MediaEvent::PlayoutStopped { cause, played, .. } => Some((*at, *cause, *played)),
        _ => None,
    });
    stop.expect("the greeting was cut")
}

/// The phone hears nothing between one frame after `stop` and the next speech.
fn assert_silent_after(world: &World, stop: Instant) {
    let next = world.hands.media_events.iter().find_map(|(at, _, event)| match event {
        MediaEvent::PlayoutStarted { .. } if *at > stop => Some(*at),
        _ => None,
    });
    let from = stop + Faults::NONE.delay + ms(20);
    let to = next.map_or(from + ms(500), |next| next);
    let loud = world.callers[0].phone.loudness.iter();
    let loud = loud.filter(|(at, level)| *at > from && *at < to && *level > -60.0).count();
    assert_eq!(loud, 0, "the agent spoke on");
}

#[test]
fn barge_in_stops_the_voice_within_a_frame_and_cuts_the_transcript() {
    let mut world = world(8, Transport::Tls, &[(600, Act::Say("goodbye"))]);
    world.seconds(15);
    world.end();
    let (stop, cause, played) = stop_of(&world);
    assert_eq!(cause, StopCause::BargeIn);
    let sent = Instant::ZERO + ms(620 + 10);
    assert!(stop.since(sent) < ms(700), "decided {:?} after the first sound", stop.since(sent));
    assert_silent_after(&world, stop);
    let said = world.transcript();
    let cut = said[0].strip_prefix("A: ").expect("the agent's turn");
    assert!(GREETING.starts_with(cut) && cut.len() < GREETING.len(), "{cut}");
    // At 50 ms for each letter, what is written is what was played, but for one word.
    let letters = cut.chars().filter(|it| it.is_alphanumeric()).count() as u64;
    assert!(letters * 800 <= played && played < (letters + 12) * 800, "{cut}: {played}");
    assert!(world.hands.turns[0].1.interrupted);
    assert_eq!(said[1..], ["C: goodbye", "A: Goodbye."]);
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
}

#[test]
fn keys_pressed_during_the_greeting_count() {
    let mut world = world(9, Transport::Tls, &[(700, Act::Press("2"))]);
    world.seconds(8);
    world.end();
    let (stop, cause, _) = stop_of(&world);
    assert_eq!(cause, StopCause::Told);
    assert_silent_after(&world, stop);
    let said = world.transcript();
    assert!(said.contains(&"C: [keys 2]".to_owned()), "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("A: Goodbye."));
    let keys = said.iter().filter(|turn| turn.contains("[keys")).count();
    assert_eq!(keys, 1, "one press is one key");
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
}

#[test]
fn five_percent_of_loss_and_jitter_leave_a_conversation() {
    let script = [(4_500, Act::Say("hours")), (9_000, Act::Press("2"))];
    let mut world = world(10, Transport::Tls, &script);
    world.media = Faults { lost: 50, doubled: 20, jitter_ms: 40, ..Faults::NONE };
    world.seconds(20);
    world.end();
    let said = world.transcript();
    assert!(said.contains(&"C: hours".to_owned()), "{said:?}");
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    let lost = world.hands.events.iter().any(|(_, event)| {
        matches!(event, Event::MediaReported { lost, received, .. }
            if *lost > 5 && lost * 10 < *received)
    });
    assert!(lost, "the report tells of the loss");
    let heard = &world.callers[0].phone.heard;
    let onset = heard.iter().position(|it| it.unsigned_abs() > 1_000).expect("a voice");
    let frames = heard[onset..onset + 20_000].chunks(160);
    let loud = frames.filter(|frame| audio::level::dbfs(frame) > -40.0).count();
    assert!(loud > 110, "{loud} of 125 frames of the greeting");
    let recording = world.hands.recordings.values().next().expect("a recording");
    let spoken = recording.caller.chunks(320).filter(|it| audio::level::dbfs(it) > -45.0).count();
    assert!(spoken > 60, "{spoken} frames of the caller's three seconds");
}

#[test]
fn a_caller_that_vanishes_is_missed_by_its_media() {
    // On hold, so that the agent's silence limit does not end the call first.
    let mut world = world(11, Transport::Tls, &[(500, Act::Hold(true)), (2_000, Act::Vanish)]);
    world.seconds(21);
    assert_eq!(world.ends(), []);
    world.seconds(2);
    assert_eq!(world.ends(), [Reason::MediaTimeout]);
    world.end();
}

#[test]
fn on_hold_nobody_is_spoken_to() {
    let script = [(400, Act::Hold(true)), (30_000, Act::Hold(false)), (34_000, Act::Bye)];
    let mut world = world(12, Transport::Tls, &script);
    world.seconds(40);
    world.end();
    assert_eq!(world.ends(), [Reason::CallerHungUp], "silence on hold is no silence");
    let start = Instant::ZERO + ms(420 + 60);
    let loud = world.callers[0].phone.loudness.iter();
    let loud = loud
        .filter(|(at, level)| *at > start && *at < start + ms(29_500) && *level > -60.0)
        .count();
    assert_eq!(loud, 0, "the agent spoke into the hold");
    assert_eq!(world.transcript()[0], format!("A: {GREETING}"), "it is finished afterwards");
}

#[test]
fn a_lost_connection_leaves_the_call_up_and_the_bye_finds_a_new_one() {
    let mut world = world(13, Transport::Tls, &[(1_000, Act::Drop), (1_500, Act::Press("2"))]);
    world.seconds(10);
    world.end();
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    assert_eq!(world.callers[0].byes, 1);
}

#[test]
fn a_speaker_that_fails_ends_the_call_and_says_so() {
    for speaker in [Speaker::Fails, Speaker::Refuses, Speaker::Silent] {
        let mut world = world(14, Transport::Tls, &[]);
        world.hands.speaker = speaker;
        world.seconds(30);
        world.end();
        assert_eq!(world.ends(), [Reason::AgentFailed], "{speaker:?}");
        let told =
            world.hands.events.iter().any(|(_, it)| matches!(it, Event::ProviderFailed { .. }));
        assert!(told, "{speaker:?}");
        assert_eq!(world.callers[0].byes, 1, "{speaker:?}");
    }
}

#[test]
fn a_relay_that_does_not_answer_costs_the_caller_five_seconds() {
    let mut world = world(15, Transport::Tls, &[]);
    world.hands.relay_is_deaf = true;
    world.seconds(10);
    world.end();
    assert_eq!(world.callers[0].statuses, [503]);
    assert_eq!(world.ends(), [Reason::RelayFull]);
}

#[test]
fn silence_is_asked_after_and_then_the_agent_leaves() {
    let mut world = world(16, Transport::Tls, &[]);
    world.seconds(30);
    world.end();
    assert_eq!(world.ends(), [Reason::CallerSilent]);
    assert_eq!(world.transcript().last().map(String::as_str), Some("A: Bye."));
}

#[test]
fn every_codec_carries_the_greeting_a_voice_and_keys() {
    for (own, codec) in (30..).zip(Codec::ALL) {
        for is_plain in [false, true] {
            let transport = if is_plain { Transport::Udp } else { Transport::Tls };
            let script = [(4_500, Act::Say("hours")), (10_000, Act::Press("2"))];
            let mut world = world(own, transport, &script);
            world.callers[0].phone.speak(codec);
            if is_plain {
                world.callers[0].phone.bare();
            }
            world.seconds(20);
            world.end();
            let said = world.transcript();
            let what = format!("{codec:?}, plain {is_plain}: {said:?}");
            assert_eq!(world.ends(), [Reason::AgentHungUp], "{what}");
            assert!(said.contains(&"C: hours".to_owned()), "{what}");
            assert!(said.contains(&"C: [keys 2]".to_owned()), "{what}");
            let told = world.hands.records.iter().find_map(|record| match record {
                Record::Answered { codec, protection, .. } => Some((*codec, *protection == "none")),
                _ => None,
            });
            assert_eq!(told, Some((codec.name(), is_plain)));
            let heard = &world.callers[0].phone.heard;
            let onset = heard.iter().position(|it| it.unsigned_abs() > 1_000).expect("a voice");
            let mark = &heard[onset..onset + MARK / 2];
            assert!(share_of(mark, 1_000.0) > 0.9, "the first 40 ms are whole: {what}");
            let voice = &heard[onset + 400..onset + 1_200];
            assert!(share_of(voice, 440.0) > 0.9, "and the rest follows: {what}");
            let recording = world.hands.recordings.values().next();
            assert_eq!(recording.is_some(), !is_plain, "the trunk lab allows none");
        }
    }
}

#[test]
fn keys_pressed_before_a_late_ack_wait_for_the_agent() {
    let mut world = world(17, Transport::Tls, &[(500, Act::Press("2"))]);
    world.callers[0].acks = Acks::After(ms(2_500));
    world.seconds(10);
    world.end();
    assert_eq!(world.transcript(), ["C: [keys 2]", "A: Goodbye."]);
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
}

#[test]
fn a_key_that_cuts_the_greeting_stands_after_it_where_it_was_pressed() {
    let mut world = world(9, Transport::Tls, &[(700, Act::Press("2"))]);
    world.seconds(8);
    world.end();
    let turns: Vec<_> = world.hands.turns.iter().map(|(_, turn)| turn).collect();
    let said = world.transcript();
    assert!(said[0].starts_with("A: ") && said[1] == "C: [keys 2]", "{said:?}");
    assert!(turns.windows(2).all(|pair| pair[0].start <= pair[1].start), "{said:?}");
    // The media began with the 200, 10 ms before the caller had it; the way back is as long.
    let (from, to) = (ms(700), ms(700 + 2 * 10 + 2 * 20));
    assert!((from..=to).contains(&turns[1].start), "{:?}", turns[1].start);
}

#[test]
fn a_connection_that_is_lost_before_the_answer_gives_the_call_up() {
    let mut world = world(18, Transport::Tls, &[(250, Act::DropEarly)]);
    world.hands.reserve_delay = ms(900);
    world.pass(ms(300));
    assert_eq!(world.ends(), [Reason::FlowLost]);
    world.seconds(5);
    world.end();
    assert_eq!(world.callers[0].tags.len(), 0, "no 200 was sent");
}

#[test]
fn a_caller_that_loses_its_connection_before_its_ack_has_five_seconds_to_come_back() {
    let mut back = world(19, Transport::Tls, &[(500, Act::Drop), (8_000, Act::Bye)]);
    back.callers[0].acks = Acks::After(ms(4_000));
    back.seconds(12);
    back.end();
    assert_eq!(back.ends(), [Reason::CallerHungUp]);
    assert_eq!(back.transcript()[0], format!("A: {GREETING}"));

    let mut gone = world(19, Transport::Tls, &[(500, Act::Drop)]);
    gone.callers[0].acks = Acks::Never;
    gone.seconds(6);
    assert_eq!(gone.ends(), [Reason::FlowLost]);
    gone.end();
    assert_eq!(gone.callers[0].byes, 1, "it is told over a connection of ours");
}

#[test]
fn calls_are_spread_over_the_shards_and_each_stays_with_its_own() {
    let mut world = World::new(seed(20));
    for index in 0..8 {
        let transport = if index % 2 == 0 { Transport::Tls } else { Transport::Udp };
        let caller = world.caller(transport);
        let drop = if index % 2 == 0 { Act::Drop } else { Act::Say("hours") };
        let script = [(1_000, Act::Hold(true)), (2_000, drop), (3_000, Act::Hold(false))];
        caller.script = script.map(|(at, act)| (ms(at), act)).into();
        caller.script.push_back((ms(8_000), Act::Bye));
        world.call(index, ms(100 * index as u64));
    }
    world.seconds(15);
    world.end();
    let shards: BTreeSet<_> = world.callers.iter().map(|it| shard_of(&it.tags[0])).collect();
    assert_eq!(shards.len(), usize::from(SHARDS), "{shards:?}");
    assert!(world.callers.iter().all(|it| it.statuses == [200; 3]), "answer, hold, back");
    assert_eq!(world.ends(), [Reason::CallerHungUp; 8]);
}

/// The shard that a tag of the edge names.
fn shard_of(tag: &str) -> Option<u8> {
    sip::ids::shard_of_tag(tag)
}

#[test]
fn a_stranger_is_turned_away_at_the_door() {
    for (transport, why) in
        [(Transport::Tls, Reason::UnknownPeer), (Transport::Udp, Reason::PlaintextSignalling)]
    {
        let mut world = world(21, transport, &[]);
        world.callers[0].address = "192.0.2.66:5060".parse().expect("an address");
        world.seconds(40);
        world.end();
        assert_eq!(world.callers[0].statuses, [403], "{transport:?}");
        assert!(world.hands.records.is_empty(), "no call");
        let told = world.hands.events.iter().any(
            |(_, event)| matches!(event, Event::RequestRefused { reason, .. } if *reason == why),
        );
        assert!(told, "{transport:?}");
    }
}
