use std::time::Duration;

use audio::Codec;
use base::{CallId, LegId, SeededRandom};

use super::*;
use crate::plan::{
    ComfortNoise, Direction, OpaqueFormat, Protection, Purpose, SourceIdentity, TelephoneEvent,
};

fn format(codec: Codec, payload_type: u8) -> Format {
    Format { codec, payload_type, packet_ms: 20, dtx: false, bitrate: 0 }
}

fn leg(index: u8, formats: &[Format]) -> LegPlan {
    let random = &mut SeededRandom::new(1);
    LegPlan {
        leg: LegId { call: CallId::random(random), index },
        remote: ([192, 0, 2, 1], 4000).into(),
        remote_rtcp: None,
        direction: Direction::BOTH,
        protection: Protection::Plain { from: Vec::new() },
        send: formats.first().copied(),
        sendable: formats.to_vec(),
        accept: formats.to_vec(),
        opaque: Vec::new(),
        telephone_event: None,
        comfort_noise: None,
        inactive: Duration::from_secs(60),
        source: SourceIdentity::random(random),
        purpose: Purpose::Bridge(None),
    }
}

const EVENTS: Rule = Rule { keys_from: KeyForm::Events, keys_to: KeyForm::Events };

fn event(send: u8) -> Option<TelephoneEvent> {
    Some(TelephoneEvent { send, receive: 101, clock_rate: 8_000 })
}

#[test]
fn each_codec_takes_the_cheapest_way_there_is() {
    let from = leg(
        0,
        &[
            format(Codec::Opus, 111),
            format(Codec::G722, 9),
            format(Codec::Pcma, 8),
            format(Codec::Pcmu, 0),
        ],
    );
    let to = leg(1, &[format(Codec::Opus, 96), format(Codec::Pcma, 8)]);
    let bridge = between(&from, &to, EVENTS);
    let expected = vec![
        (111, Passage::Forward(96)),
        (9, Passage::Transcode),
        (8, Passage::Forward(8)),
        (0, Passage::Recode(8)),
    ];
    assert_eq!((bridge.audio, bridge.with, bridge.to), (expected, to.leg, to.send));
}

#[test]
fn packets_of_another_length_are_made_anew() {
    let mut to = leg(1, &[format(Codec::Pcmu, 0)]);
    to.sendable[0].packet_ms = 30;
    let bridge = between(&leg(0, &[format(Codec::Pcmu, 0)]), &to, EVENTS);
    assert_eq!(bridge.audio, [(0, Passage::Transcode)]);
}

#[test]
fn keys_go_on_in_the_form_that_the_listener_wants() {
    let told = |from_events, to_events, keys_from, keys_to| {
        let [mut from, mut to] = [0, 1].map(|index| leg(index, &[format(Codec::Pcmu, 0)]));
        from.telephone_event = event(101).filter(|_| from_events);
        to.telephone_event = event(96).filter(|_| to_events);
        let bridge = between(&from, &to, Rule { keys_from, keys_to });
        let decoded = bridge.audio[0].1 == Passage::Transcode;
        assert_eq!(decoded, bridge.detect_tones, "nothing else needs the sound");
        (bridge.keys, bridge.detect_tones)
    };
    let events = KeyPassage::Events { payload_type: 96, clock_rate: 8_000 };
    use KeyForm::{Events, Info, Tones};
    // What arrives as events.
    assert_eq!(told(true, true, Events, Events), (events, false));
    assert_eq!(told(true, false, Events, Events), (KeyPassage::Tones, false));
    assert_eq!(told(true, true, Events, Tones), (KeyPassage::Tones, false));
    assert_eq!(told(true, true, Events, Info), (KeyPassage::Report, false));
    // What arrives in the sound.
    assert_eq!(told(false, true, Tones, Events), (events, true));
    assert_eq!(told(false, true, Tones, Info), (KeyPassage::Report, true));
    assert_eq!(told(false, false, Tones, Events), (KeyPassage::Drop, false), "it stays there");
    assert_eq!(told(false, true, Tones, Tones), (KeyPassage::Drop, false));
    // A caller who agreed on events does not press into the sound.
    assert_eq!(told(true, true, Tones, Events), (events, false));
    // What arrives by signalling.
    assert_eq!(told(false, false, Info, Events), (KeyPassage::Drop, false));
}

#[test]
fn noise_goes_on_where_the_listener_takes_it_and_the_sound_is_left_alone() {
    let from = leg(0, &[format(Codec::Pcmu, 0)]);
    let mut to = leg(1, &[format(Codec::Pcmu, 0)]);
    to.comfort_noise = Some(ComfortNoise { send: 13, receive: 13 });
    to.telephone_event = event(96);
    assert_eq!(between(&from, &to, EVENTS).comfort_noise, Some(13));
    let found = between(&from, &to, Rule { keys_from: KeyForm::Tones, ..EVENTS });
    assert_eq!(found.comfort_noise, None);
}

fn opaque(fmtp: &str, send: u8, receive: u8) -> OpaqueFormat {
    let codec = sdp::Opaque::of("AMR-WB", 16_000, 1, Some(fmtp)).unwrap();
    OpaqueFormat { codec, send, receive }
}

#[test]
fn what_cannot_be_decoded_goes_to_its_like_or_nowhere() {
    let mut from = leg(0, &[format(Codec::Pcmu, 0)]);
    from.opaque = vec![opaque("octet-align=1", 96, 97), opaque("", 98, 99)];
    let mut to = leg(1, &[format(Codec::Pcma, 8)]);
    to.opaque = vec![opaque("octet-align=1", 110, 111)];
    let bridge = between(&from, &to, EVENTS);
    assert_eq!(bridge.audio, [(0, Passage::Recode(8)), (97, Passage::Forward(110))]);
    to.opaque.clear();
    assert_eq!(between(&from, &to, EVENTS).audio, [(0, Passage::Recode(8))]);
}

#[test]
fn a_leg_that_takes_nothing_made_here_gets_nothing_made_here() {
    let mut from = leg(0, &[format(Codec::Pcmu, 0)]);
    from.telephone_event = event(101);
    from.opaque = vec![opaque("", 96, 96)];
    let mut to = leg(1, &[]);
    to.opaque = vec![opaque("", 110, 111)];
    let bridge = between(&from, &to, Rule { keys_to: KeyForm::Tones, ..EVENTS });
    assert_eq!((&bridge.audio[..], bridge.to), (&[(96, Passage::Forward(110))][..], None));
    assert_eq!(bridge.keys, KeyPassage::Drop, "no tone can be made in it");
    to.telephone_event = event(101);
    assert!(matches!(between(&from, &to, EVENTS).keys, KeyPassage::Events { .. }));
}
