//! How a call comes up.

use base::{Event, Reason};
use policy::Transport;
use sip::Name;

use super::world::{Caller, World, crypto, described, direction, offer, sdp_of};
use crate::{Keep, Record};

#[test]
fn a_call_is_answered_talks_and_is_hung_up_by_the_caller() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "INVITE", &offer());
    assert!(world.take().is_empty(), "ports come first");
    assert_eq!(world.calls_counted(), 1);
    world.reserve();

    let ok = world.response();
    assert_eq!(ok.status.code(), 200);
    assert!(ok.headers.has_token(Name::Allow, "UPDATE"));
    assert!(ok.headers.has_token(Name::Supported, "timer"));
    assert_eq!(ok.headers.text(Name::Contact), Some("<sip:10.20.0.5:5061;transport=tls>"));
    let answer = sdp_of(&ok.body);
    assert_eq!((answer.media[0].port, answer.media[0].protocol.name()), (20_000, "RTP/SAVP"));
    assert!(world.started.is_empty(), "nobody speaks before the ACK");
    caller.follow(&ok);

    caller.ack(&mut world, "");
    assert_eq!(world.started[0].1.as_str(), "reception");
    assert_eq!(world.started[0].2, Keep { recording: true, transcript: true });
    world.seconds(42);
    assert!(world.take().is_empty(), "an acknowledged 200 is not repeated");

    caller.request(&mut world, "BYE", "");
    assert_eq!(world.status(), 200);
    let kinds: Vec<&str> = world
        .records
        .iter()
        .filter_map(|record| match record {
            Record::Arrived { .. } => Some("arrived"),
            Record::Answered { codec: "PCMA", keys_exposed: false, .. } => Some("answered"),
            Record::Ended { reason: Reason::CallerHungUp, talked, .. } => {
                assert_eq!(talked.as_secs(), 42);
                Some("ended")
            }
            _ => None,
        })
        .collect();
    assert_eq!(kinds, ["arrived", "answered", "ended"]);
    let ladder = world.records.iter().filter(|it| matches!(it, Record::Ladder { .. })).count();
    assert_eq!(ladder, 5, "INVITE 200 ACK BYE 200");
    world.assert_quiet();
}

#[test]
fn an_invite_without_an_offer_gets_ours_and_the_ack_answers_it() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let ok = caller.ring(&mut world, "");
    let ours = sdp_of(&ok.body);
    assert_eq!(direction(&ok.body), "sendrecv");
    let line = ours.media[0].crypto().find(|it| it.contains("SHA1_80")).unwrap().to_owned();
    let tag: u32 = line.split(' ').next().unwrap().parse().unwrap();
    assert!(world.plans.is_empty() && world.started.is_empty());

    caller.ack(&mut world, &described("RTP/SAVP 8", &crypto(tag, 'P')));
    assert_eq!(world.plans.len(), 1);
    assert_eq!(world.plans[0].remote, "198.51.100.9:30000".parse().unwrap());
    assert_eq!(world.started.len(), 1);
    assert!(world.records.iter().any(|it| matches!(it, Record::Answered { .. })));
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

/// The same body as the second part of several, as carriers send it with ISUP.
fn among_others(body: &str) -> String {
    let (kind, body) = body.split_once('|').unwrap();
    format!(
        "multipart/mixed; boundary=\"a b\"|--a b\r\nContent-Type: application/ISUP;version=ansi\r\n\
         Content-Disposition: signal; handling=optional\r\n\r\n\u{1}\0\r\n--a b\r\n\
         Content-Type: {kind}\r\n\r\n{body}\r\n--a b\r\n\r\nhello\r\n--a b--"
    )
}

#[test]
fn a_description_among_other_parts_is_taken_in_invite_and_ack() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &among_others(&offer()));
    assert_eq!(world.plans[0].remote, "198.51.100.9:30000".parse().unwrap());
    let held = offer().replace("a=sendrecv", "a=inactive");
    caller.request(&mut world, "UPDATE", &among_others(&held));
    assert_eq!(direction(&world.response().body), "inactive");
    // What is no offer and need not be understood changes nothing.
    caller.extra = "Content-Disposition: render;handling=optional\r\n".to_owned();
    caller.request(&mut world, "UPDATE", "text/plain|hello");
    let ok = world.response();
    assert_eq!((ok.status.code(), ok.body.len()), (200, 0));
    caller.extra.clear();
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();

    let (mut world, mut caller) = (World::new(), Caller::acme());
    let ok = caller.ring(&mut world, "");
    let line =
        sdp_of(&ok.body).media[0].crypto().find(|it| it.contains("SHA1_80")).unwrap().to_owned();
    let tag = line.split(' ').next().unwrap().parse().unwrap();
    caller.ack(&mut world, &among_others(&described("RTP/SAVP 8", &crypto(tag, 'P'))));
    assert_eq!((world.plans.len(), world.started.len()), (1, 1));
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn an_ack_without_the_answer_that_it_owes_ends_the_call() {
    for answer in [String::new(), described("RTP/SAVP 8", "a=crypto:77 NOT_OURS inline:AAAA")] {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.ring(&mut world, "");
        caller.ack(&mut world, &answer);
        let bye = world.request();
        assert_eq!(bye.method.as_str(), "BYE");
        assert!(bye.headers.text(Name::Reason).unwrap().contains("media."), "{bye:?}");
        assert!(world.started.is_empty());
        caller.answer(&mut world, &bye, "200 OK", "");
        assert_eq!(world.ends().len(), 1);
        world.assert_quiet();
    }
}

#[test]
fn an_immediate_re_invite_counts_as_the_ack() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.ring(&mut world, &offer());
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 200);
    assert_eq!(world.started.len(), 1);
    // The ACK of the first INVITE comes late and is not taken for that of the second.
    let late = caller.text("ACK", caller.cseq - 1, "");
    caller.say(&mut world, &late);
    world.pass(sip::transaction::T1);
    assert_eq!(world.status(), 200, "the second 200 still waits for its ACK");
    caller.ack(&mut world, "");
    world.seconds(40);
    assert!(world.take().is_empty());
    assert_eq!(world.started.len(), 1);
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn two_vias_in_one_header_both_come_back() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let text = caller.text("INVITE", 1, &offer());
    let text = text.replacen(";rport\r\n", ";rport, SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKb\r\n", 1);
    caller.say(&mut world, &text);
    world.reserve();
    let ok = world.response();
    let vias = ok.headers.vias().unwrap();
    assert_eq!(vias.len(), 2);
    assert_eq!(vias[1].branch(), Some("z9hG4bKb"));
    assert_eq!(vias[0].rport(), Some(40_000));
}

#[test]
fn a_tel_uri_is_called_like_a_sip_uri() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.target = "tel:+1-800-555-0100".to_owned();
    caller.call(&mut world, &offer());
    let called = world.records.iter().find_map(|record| match record {
        Record::Arrived { attempt, .. } => Some(attempt.called.clone()),
        _ => None,
    });
    assert_eq!(called.as_deref(), Some("+18005550100"));
}

#[test]
fn the_200_goes_to_the_place_that_the_record_route_names() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.extra = "Record-Route: <sip:proxy.example;lr>\r\n".to_owned();
    let ok = caller.call(&mut world, &offer());
    assert_eq!(ok.headers.text(Name::RecordRoute), Some("<sip:proxy.example;lr>"));
    world.hang_up(Reason::AgentHungUp);
    let bye = world.request();
    assert_eq!(bye.headers.text(Name::Route), Some("<sip:proxy.example;lr>"));
    assert!(bye.uri.as_str().contains("198.51.100.9"));
}

#[test]
fn keys_that_crossed_exempted_plaintext_are_marked() {
    let (mut world, mut caller) = (World::new(), Caller::lab());
    assert_eq!(caller.peer.transport, Transport::Udp);
    caller.call(&mut world, &offer());
    assert!(world.events.iter().any(|it| matches!(it, Event::KeysExposed { .. })));
    let marked =
        world.records.iter().any(|it| matches!(it, Record::Answered { keys_exposed: true, .. }));
    assert!(marked);
}

#[test]
fn an_options_is_answered_with_what_we_can_do() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "OPTIONS", "");
    let ok = world.response();
    assert_eq!(ok.status.code(), 200);
    assert!(ok.headers.has_token(Name::Allow, "INVITE"));
    for kind in ["application/sdp", "multipart/mixed", "multipart/alternative"] {
        assert!(ok.headers.has_token(Name::Accept, kind), "{kind}");
    }
    world.assert_quiet();
}

#[test]
fn no_event_holds_a_number_a_name_or_a_key() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "BYE", "");
    let events = format!("{:?}", world.events);
    let kept = format!("{:?}", world.records);
    for secret in ["+1212555", "2125550123", "198.51.100", "caller.example", "PAAAAAAA"] {
        assert!(!events.contains(secret), "{secret} in an event");
        assert!(!kept.contains(secret), "{secret} in what a record prints");
    }
    let ladder = world.records.iter().filter_map(|record| match record {
        Record::Ladder { text, .. } => Some(text.expose().clone()),
        _ => None,
    });
    for text in ladder {
        assert!(!text.contains("PAAAAAAA"), "a key in the ladder: {text}");
    }
}
