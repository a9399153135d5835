//! Stories of browsers that transfer, and of browsers that are to be carried over.

use base::{LegId, Reason};
use media::{Handshake, MediaEvent, Protection};
use sip::{Message, Name, Request, Response};

use super::bridging::{Callee, bridge, callee_answer, requests, responses};
use super::browsers::{
    BROWSERS, CHROME, FIREFOX, answer_of, body, handshake, secured, whip, world, wss,
};
use super::browsers_called::{Phone, up};
use super::transferring::{latest, methods, news, refer};
use super::world::{Caller, POLICY, World, fresh_fingerprint, sdp_of};
use crate::Input;

/// A softphone over WSS calls a number of a trunk, which answers.
pub(super) fn connected(
    world: &mut World,
    caller: &mut Caller,
    called: &str,
    trunk: &str,
) -> Callee {
    caller.target = format!("sip:{called}@edge.example");
    caller.request(world, "INVITE", &body(CHROME));
    world.reserve();
    let callee = Callee::reached(world, trunk);
    callee.accept(world, &callee_answer(&callee, "8 0 101"));
    let ok = responses(world).remove(0);
    assert_eq!(ok.status.code(), 200);
    caller.follow(&ok);
    caller.ack(world, "");
    world.take();
    callee
}

/// A dialog as SIP.js names it: by the Contact that we gave it.
fn replaces(caller: &Caller) -> String {
    let call_id = caller.call_id.replace('@', "%40");
    let (to, from) = (&caller.to_tag, &caller.tag);
    let dialog = format!("{call_id}%3Bto-tag%3D{to}%3Bfrom-tag%3D{from}");
    format!("\"Carol\" <sip:edge.example:8443;transport=wss?Replaces={dialog}>")
}

#[test]
fn a_softphone_carries_a_carriers_party_to_another_number() {
    let (mut world, mut caller) = (world(), wss(11));
    let callee = connected(&mut world, &mut caller, "+442079460000", "beta");
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    world.take();
    let third = Callee::reached(&mut world, "info");
    third.accept(&mut world, &callee_answer(&third, "8"));
    let sent = requests(&mut world);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    assert_eq!(bridge(&latest(&world, callee.leg)).with, third.leg);
}

#[test]
fn a_softphone_joins_the_far_ends_of_its_two_calls() {
    let (mut world, mut caller) = (world(), wss(11));
    let first = connected(&mut world, &mut caller, "+442079460000", "beta");
    let mut second = wss(11);
    (second.call_id, second.tag) = ("second@softphone".to_owned(), "tag-second".to_owned());
    connected(&mut world, &mut second, "+49301234567", "info");
    refer(&mut world, &mut caller, &replaces(&second));
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "BYE"]);
    let (moved, _) = *world.needs.last().unwrap();
    assert_eq!(moved.call, first.leg.call);
    world.reserve();
    assert_eq!(bridge(&latest(&world, moved)).with, first.leg);
}

/// What a browser is offered that moves, and its leg's handshake until it answers.
fn moved(world: &mut World, phone: &Phone) -> (Request, LegId, Handshake) {
    let before = of(world, phone.leg);
    let (leg, need) = *world.needs.last().unwrap();
    assert!(need.dtls && need.fresh_identity && !need.separate_rtcp);
    assert!(world.released.contains(&phone.leg), "its old association ends");
    world.reserve();
    let sent = requests(world);
    assert_eq!(methods(&sent), ["INVITE", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    let reinvite = sent.into_iter().next().unwrap();
    let session = sdp_of(&reinvite.body);
    let line = &session.media[0];
    assert_eq!(line.attribute("fingerprint"), Some(fresh_fingerprint().to_string().as_str()));
    assert_eq!((line.attribute("setup"), line.mid()), (Some("actpass"), Some("0")));
    let ufrag = line.attribute("ice-ufrag").unwrap();
    assert_ne!(ufrag, before.local.ufrag);
    let after = of(world, leg);
    assert_eq!(after.local.ufrag, ufrag, "checks that come before the answer are known");
    assert_ne!(latest(world, leg).source.ssrc, latest(world, phone.leg).source.ssrc);
    (reinvite, leg, before)
}

fn of(world: &World, leg: LegId) -> Handshake {
    match latest(world, leg).protection {
        Protection::Dtls(handshake) => *handshake,
        other => panic!("{other:?}"),
    }
}

/// What it answers the offer of another association with, as Chromium does: the role and the
/// certificate that it had, under other ICE credentials.
fn restarted() -> String {
    answer_of(CHROME, "active").replace("a=ice-ufrag:kQ7+", "a=ice-ufrag:mV2a")
}

/// A softphone's second call.
fn another() -> Caller {
    let mut second = wss(11);
    (second.call_id, second.tag) = ("second@softphone".to_owned(), "tag-second".to_owned());
    second
}

/// A softphone calls an account whose browser answers.
fn consulted(world: &mut World, caller: &mut Caller, flow: u64) -> Phone {
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(world, "INVITE", &body(CHROME));
    world.reserve();
    let phone = Phone::rung(world, flow);
    phone.accept(world, "active");
    let ok = accepted(&world.take());
    caller.follow(&ok);
    caller.ack(world, "");
    world.input(Input::Media { leg: phone.leg, event: secured() });
    phone
}

#[test]
fn a_browser_that_is_carried_into_another_call_makes_another_association() {
    let mut world = world();
    let (mut caller, mut second) = (wss(11), another());
    let first = consulted(&mut world, &mut caller, 40);
    let phone = consulted(&mut world, &mut second, 41);
    refer(&mut world, &mut caller, &replaces(&second));
    assert_eq!(methods(&requests(&mut world)), ["NOTIFY", "BYE"]);
    let (reinvite, leg, before) = moved(&mut world, &phone);
    assert_eq!(leg.call, first.leg.call);
    assert_eq!(bridge(&latest(&world, first.leg)).with, leg);

    phone.say(&mut world, &reinvite, "200 OK", &restarted());
    assert_eq!(methods(&requests(&mut world)), ["ACK"]);
    let after = of(&world, leg);
    assert_eq!((after.role, &after.peer), (before.role, &before.peer));
    assert_eq!(after.remote.ufrag, "mV2a");
    assert_eq!(bridge(&latest(&world, leg)).with, first.leg);
    world.input(Input::Media { leg, event: secured() });
    assert_eq!(world.ends(), [Reason::Transferred], "the second call, and no other");
}

#[test]
fn a_browser_that_makes_no_other_association_ends_the_call_that_it_was_carried_into() {
    let mut world = world();
    let (mut caller, mut second) = (wss(11), another());
    consulted(&mut world, &mut caller, 40);
    let phone = consulted(&mut world, &mut second, 41);
    refer(&mut world, &mut caller, &replaces(&second));
    world.take();
    let (reinvite, leg, _) = moved(&mut world, &phone);
    phone.say(&mut world, &reinvite, "200 OK", &restarted());
    let event = MediaEvent::Unsecured { code: "dtls.timeout" };
    world.input(Input::Media { leg, event });
    assert_eq!(world.ends(), [Reason::Transferred, Reason::Unsecured]);
}

#[test]
fn a_browser_is_carried_into_a_carriers_call() {
    let mut world = world();
    let (mut caller, first) = up(&mut world, "active");
    let (second, phone) = up(&mut world, "active");
    refer(&mut world, &mut caller, &replaces(&second));
    assert_eq!(methods(&requests(&mut world)), ["NOTIFY", "BYE"]);
    let (_, leg, _) = moved(&mut world, &phone);
    assert_eq!(bridge(&latest(&world, first.leg)).with, leg);
}

/// A carrier has two calls from browsers, and names the second one in REFER on the first.
fn joined_by_carrier(world: &mut World, pages: [Caller; 2]) -> [Callee; 2] {
    let mut callees = pages.map(|mut page| connected(world, &mut page, "+442079460000", "beta"));
    let [first, second] = &mut callees;
    refer(world, &mut first.caller, &replacing(second));
    callees
}

/// A Refer-To that names the dialog that a callee has with us.
pub(super) fn replacing(callee: &Callee) -> String {
    let (call_id, named) = (&callee.caller.call_id, callee.invite.headers.from_tag().unwrap());
    let dialog = format!("{call_id}%3Bto-tag%3D{named}%3Bfrom-tag%3D{}", callee.caller.tag);
    format!("<sip:x@edge.example?Replaces={}>", dialog.replace('@', "%40"))
}

#[test]
fn who_is_to_talk_with_a_page_of_whip_comes_into_its_call_and_the_page_hears_no_offer() {
    let mut world = world();
    let [first, second] = joined_by_carrier(&mut world, [another(), whip()]);
    let page = LegId { index: 0, ..second.leg };
    let before = latest(&world, page);
    // Who asked is told that it works, and leaves the first call.
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    assert_eq!(world.ends(), [Reason::Transferred], "the first call");
    let (moved, need) = *world.needs.last().unwrap();
    assert_eq!((moved.call, need.fresh_identity), (second.leg.call, true));
    assert!(world.released.contains(&LegId { index: 0, ..first.leg }));
    assert!(!world.released.contains(&page));

    world.reserve();
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["INVITE", "BYE"]);
    assert_eq!(sent[0].headers.call_id(), Ok(another().call_id.as_str()), "who came");
    assert_eq!(sent[1].headers.call_id().unwrap(), second.caller.call_id, "who asked");
    let after = latest(&world, page);
    assert_eq!(bridge(&after).with, moved);
    assert_eq!(bridge(&latest(&world, moved)).with, page);
    assert_eq!(after.source, before.source);
    assert_eq!(
        of(&world, page),
        match before.protection {
            Protection::Dtls(handshake) => *handshake,
            other => panic!("{other:?}"),
        }
    );
    assert_eq!(world.ends(), [Reason::Transferred], "the second call goes on");
    world.hang_up(Reason::OperatorHungUp);
}

#[test]
fn two_pages_of_whip_are_not_joined_and_both_calls_go_on() {
    let mut world = world();
    let mut other = whip();
    (other.call_id, other.tag) = ("second@page".to_owned(), "tag-second".to_owned());
    let callees = joined_by_carrier(&mut world, [whip(), other]);
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 603 Decline".to_owned(), true));
    assert!(world.ends().is_empty());
    for callee in &callees {
        assert_eq!(bridge(&latest(&world, callee.leg)).with.index, 0);
    }
}

#[test]
fn a_page_whose_new_party_gets_no_ports_talks_on_with_who_asked() {
    let mut world = world();
    let [_, second] = joined_by_carrier(&mut world, [another(), whip()]);
    world.take();
    let (moved, _) = *world.needs.last().unwrap();
    world.input(Input::Media { leg: moved, event: MediaEvent::ReserveFailed { ports: true } });
    assert_eq!(methods(&requests(&mut world)), ["BYE"], "who had come");
    assert_eq!(world.ends(), [Reason::Transferred]);
    let page = LegId { index: 0, ..second.leg };
    assert_eq!(bridge(&latest(&world, second.leg)).with, page);
    assert_eq!(bridge(&latest(&world, page)).with, second.leg);
}

#[test]
fn a_reloaded_page_takes_its_own_call_over_with_another_certificate() {
    let (mut world, mut caller) = (world(), wss(11));
    caller.call(&mut world, &body(CHROME));
    world.media(secured());
    world.take();
    let before = handshake(&world).clone();

    let mut reloaded = wss(12);
    (reloaded.call_id, reloaded.tag) = ("reloaded@softphone".to_owned(), "tag-new".to_owned());
    let (call_id, to, from) = (&caller.call_id, &caller.to_tag, &caller.tag);
    reloaded.extra = format!("Replaces: {call_id};to-tag={to};from-tag={from}\r\n");
    reloaded.request(&mut world, "INVITE", &body(FIREFOX));
    let ok = accepted(&world.take());
    assert_eq!(sdp_of(&ok.body).media[0].attribute("setup"), Some("passive"));
    let after = handshake(&world);
    assert_ne!(after.peer, before.peer);
    assert_ne!(after.local, before.local);
    assert_eq!(world.handed_over.len(), 1);
    assert_eq!(world.started.len(), 1, "the voice agent goes on");
}

fn accepted(sent: &[Message]) -> Response {
    let mut responses = sent.iter().filter_map(|message| match message {
        Message::Response(response) if response.status.is_success() => Some(response.clone()),
        _ => None,
    });
    responses.next().unwrap_or_else(|| panic!("{sent:#?}"))
}

#[test]
fn a_voice_agent_carries_a_browser_to_a_carrier() {
    let (mut world, mut caller) = (world(), wss(11));
    caller.call(&mut world, &body(CHROME));
    world.media(secured());
    let call = world.leg().call;
    let to = base::Personal::new("+442079460000".to_owned());
    world.input(Input::Transfer { call, to, is_announced: false });
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    assert_eq!(world.stopped, [call]);
    let browsers = latest(&world, LegId { call, index: 0 });
    assert!(matches!(browsers.protection, Protection::Dtls(_)));
    assert_eq!(bridge(&browsers).with, callee.leg);
}

#[test]
fn a_voice_agent_carries_a_carrier_to_a_browser_that_is_secured_later() {
    let policy = format!("{BROWSERS}{POLICY}");
    let (mut world, mut caller) = (World::with_policy(&policy), Caller::acme());
    caller.call(&mut world, &super::world::offer());
    let call = world.leg().call;
    let to = base::Personal::new("sip:alice@edge.example".to_owned());
    world.input(Input::Transfer { call, to, is_announced: false });
    let phone = Phone::rung(&mut world, 40);
    phone.accept(&mut world, "active");
    assert_eq!(world.stopped, [call], "who is carried over hears the browser as soon as it can");
    world.input(Input::Media { leg: phone.leg, event: secured() });
    assert!(world.targets.is_empty() && world.ends().is_empty());
}

#[test]
fn softphones_of_the_two_usual_libraries_are_understood() {
    let js_sip = "INVITE sip:reception@edge.example SIP/2.0\n\
        Via: SIP/2.0/WSS h1p7c9p5u2hv.invalid;branch=z9hG4bK4961127\n\
        Max-Forwards: 69\n\
        To: <sip:reception@edge.example>\n\
        From: \"Alice\" <sip:alice@edge.example>;tag=c4l3s0a1bd\n\
        Call-ID: 3k9r5v7m2p0q8s1tw6x4\n\
        CSeq: 6313 INVITE\n\
        Contact: <sip:4nq0d3ge@h1p7c9p5u2hv.invalid;transport=ws;ob>\n\
        Content-Type: application/sdp\n\
        Session-Expires: 90\n\
        Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\n\
        Supported: timer,gruu,outbound\n";
    let sip_js = "INVITE sip:reception@edge.example SIP/2.0\n\
        Via: SIP/2.0/WSS a1b2c3d4e5f6.invalid;branch=z9hG4bK8734102\n\
        To: <sip:reception@edge.example>\n\
        From: <sip:alice@edge.example>;tag=tj8u4q0kdi\n\
        CSeq: 1 INVITE\n\
        Call-ID: u5qj2o8m1r4b7n0v3c6x\n\
        Max-Forwards: 70\n\
        Contact: <sip:alice@edge.example;gr=urn:uuid:5d2f7f3e-6a52-4e0f-9d3f-7f0a1c2b3d4e;ob>\n\
        Allow: ACK,CANCEL,INVITE,MESSAGE,BYE,OPTIONS,INFO,NOTIFY,REFER\n\
        Supported: outbound\n\
        Content-Type: application/sdp\n";
    for (head, has_timer) in [(js_sip, true), (sip_js, false)] {
        let (mut world, caller) = (world(), wss(11));
        let offer = CHROME.replace('\n', "\r\n");
        let head = head.replace('\n', "\r\n");
        caller.say(&mut world, &format!("{head}Content-Length: {}\r\n\r\n{offer}", offer.len()));
        world.reserve();
        let ok = world.response();
        assert_eq!(ok.status.code(), 200);
        assert_eq!(ok.headers.text(Name::SessionExpires).is_some(), has_timer);
        assert!(ok.headers.text(Name::Via).unwrap().contains("received=192.0.2.33"));

        let head = head.replace("INVITE sip", "INFO sip").replace(" INVITE\r\n", " INFO\r\n");
        let head = head.replace("application/sdp", "application/dtmf-relay");
        let head = head.replace("CSeq: ", "CSeq: 1").replace("branch=z9hG4bK", "branch=z9hG4bKi");
        let tag = format!("To: <sip:reception@edge.example>;tag={}", ok.headers.to_tag().unwrap());
        let head = head.replace("To: <sip:reception@edge.example>", &tag);
        caller
            .say(&mut world, &format!("{head}Content-Length: 22\r\n\r\nSignal=5\r\nDuration=100"));
        assert_eq!(world.status(), 200);
        assert_eq!(world.digits, ['5']);
    }
}
