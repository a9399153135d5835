//! Changes within a call: hold, resume, and whatever else a peer sends in its dialog.

use base::Reason;
use media::Protection;
use rtp::sdes::KeySalt;

use super::world::{Caller, World, crypto, described, direction, offer, offer_with, sdp_of};

fn keys(protection: &Protection) -> (KeySalt, KeySalt) {
    match protection {
        Protection::Srtp { send, receive, .. } => (send.clone(), receive.clone()),
        Protection::Plain { .. } | Protection::Dtls(_) => panic!("not SDES"),
    }
}

#[test]
fn hold_and_resume_keep_keys_and_source() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    let ok = world.response();
    assert_eq!(direction(&ok.body), "recvonly");
    caller.ack(&mut world, "");
    assert_eq!(world.held, [true]);
    assert!(!world.plans[1].direction.send && world.plans[1].direction.receive);

    caller.request(&mut world, "INVITE", &offer());
    let ok = world.response();
    assert_eq!(direction(&ok.body), "sendrecv");
    caller.ack(&mut world, "");
    assert_eq!(world.held, [true, false]);
    for plan in &world.plans[1..] {
        assert_eq!(keys(&plan.protection), keys(&world.plans[0].protection));
        assert_eq!(plan.source, world.plans[0].source);
    }
    assert_eq!(world.started.len(), 1);
    // RFC 3264 section 8: the version counts up with each change.
    assert_eq!(sdp_of(&ok.body).origin.version, "3");
}

#[test]
fn the_old_hold_by_0_0_0_0_is_understood() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    let held = offer().replace("c=IN IP4 198.51.100.9", "c=IN IP4 0.0.0.0");
    caller.request(&mut world, "INVITE", &held);
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    assert_eq!(world.held, [true]);
    assert_eq!(world.plans[1].remote, world.plans[0].remote, "kept for the resumption");
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 200);
    assert_eq!(world.held, [true, false]);
}

#[test]
fn a_re_invite_without_an_offer_gets_ours_with_the_same_key() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let first = caller.call(&mut world, &offer());
    let ours = sdp_of(&first.body).media[0].crypto().next().unwrap().to_owned();
    let inline = ours.split("inline:").nth(1).unwrap().to_owned();
    caller.request(&mut world, "INVITE", "");
    let again = world.response();
    let session = sdp_of(&again.body);
    let line = session.media[0].crypto().find(|line| line.contains(&inline));
    let tag = line.expect("the key in use goes on").split(' ').next().unwrap().to_owned();
    caller.ack(&mut world, &described("RTP/SAVP 8", &crypto(tag.parse().unwrap(), 'P')));
    assert_eq!(world.plans.len(), 2);
    assert_eq!(keys(&world.plans[1].protection), keys(&world.plans[0].protection));
}

#[test]
fn a_re_invite_that_cannot_be_answered_leaves_the_call_as_it_was() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    for (body, status) in [
        (described("RTP/AVP 8", "a=sendrecv"), 488),
        (described("RTP/SAVP 18", &crypto(1, 'P')), 488),
        ("application/sdp|nonsense".to_owned(), 400),
        ("text/plain|hello".to_owned(), 415),
    ] {
        caller.request(&mut world, "INVITE", &body);
        assert_eq!(world.status(), status, "{body}");
        caller.ack(&mut world, "");
    }
    assert_eq!(world.plans.len(), 1);
    assert_eq!(world.ends(), []);
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 200);
}

#[test]
fn a_second_re_invite_while_ours_waits_for_its_answer_is_491() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "INVITE", "");
    assert_eq!(world.status(), 200);
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 491);
    caller.request(&mut world, "UPDATE", &offer());
    assert_eq!(world.status(), 491);
}

#[test]
fn an_update_changes_media_and_one_without_a_body_does_not() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "UPDATE", "");
    let ok = world.response();
    assert_eq!((ok.status.code(), ok.body.len()), (200, 0));
    assert_eq!(world.plans.len(), 1);
    caller.request(&mut world, "UPDATE", &offer_with("a=sendonly"));
    let ok = world.response();
    assert_eq!(direction(&ok.body), "recvonly");
    assert_eq!(world.held, [true]);
    world.seconds(40);
    assert!(world.take().is_empty(), "an UPDATE has no ACK to wait for");
}

#[test]
fn keys_come_by_info_too() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    for body in ["application/dtmf-relay|Signal= 5\r\nDuration= 160\r\n", "application/dtmf|#"] {
        caller.request(&mut world, "INFO", body);
        assert_eq!(world.status(), 200);
    }
    caller.request(&mut world, "INFO", "");
    assert_eq!(world.status(), 200);
    caller.request(&mut world, "INFO", "application/xml|<x/>");
    assert_eq!(world.status(), 415);
    assert_eq!(world.digits, ['5', '#']);
}

#[test]
fn a_request_out_of_order_is_500_and_changes_nothing() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.cseq = 100;
    caller.call(&mut world, &offer());
    let old = caller.text("BYE", 50, "");
    caller.say(&mut world, &old);
    assert_eq!(world.status(), 500);
    assert_eq!(world.ends(), []);
}

#[test]
fn an_extension_that_is_not_known_is_420_within_a_call_too() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.extra = "Require: path\r\n".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 420);
    assert_eq!(world.ends(), []);
}

#[test]
fn the_peers_new_contact_is_where_the_bye_goes() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    let moved = caller.text("INVITE", 9, &offer()).replace(
        "Contact: <sip:198.51.100.9:40000;transport=tls>",
        "Contact: <sip:moved@198.51.100.77>",
    );
    caller.cseq = 9;
    caller.say(&mut world, &moved);
    assert_eq!(world.status(), 200);
    caller.ack(&mut world, "");
    world.hang_up(Reason::AgentHungUp);
    assert_eq!(world.request().uri.as_str(), "sip:moved@198.51.100.77");
}
