//! Stories of transfers: by REFER, of two calls into one, and by a voice agent.

use base::{LegId, Personal, Reason};
use media::{LegPlan, Purpose};
use sip::{Message, Name, Request};

use super::bridging::{
    Callee, body, bridge, callee_answer, connected, requests, reserve, responses,
};
use super::world::{Caller, World, described, direction, offer, sdp_of};
use crate::Input;

pub(super) fn refer(world: &mut World, from: &mut Caller, to: &str) {
    from.extra = format!("Refer-To: {to}\r\n");
    from.request(world, "REFER", "");
    from.extra.clear();
}

/// The sipfrag of a NOTIFY, and whether it is the last one.
pub(super) fn news(notify: &Request) -> (String, bool) {
    assert_eq!(notify.method.as_str(), "NOTIFY");
    let state = notify.headers.text(Name::SubscriptionState).unwrap();
    let line = String::from_utf8(notify.body.to_vec()).unwrap();
    (line.trim().to_owned(), state.starts_with("terminated"))
}

pub(super) fn latest(world: &World, leg: LegId) -> LegPlan {
    world.plans.iter().rev().find(|plan| plan.leg == leg).expect("a plan").clone()
}

pub(super) fn methods(sent: &[Request]) -> Vec<String> {
    sent.iter().map(|it| it.method.as_str().to_owned()).collect()
}

#[test]
fn a_blind_transfer_is_dialled_by_the_edge_and_the_referrer_is_let_go() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    let sent = world.take();
    let [Message::Response(accepted), Message::Request(trying)] = &sent[..] else {
        panic!("{sent:#?}")
    };
    assert_eq!(accepted.status.code(), 202);
    assert_eq!(news(trying), ("SIP/2.0 100 Trying".to_owned(), false));
    let third = Callee::reached(&mut world, "info");
    assert_eq!(third.invite.uri.as_str(), "sip:+49301234567@192.0.2.77");
    // Until then the two go on talking.
    let caller_leg = LegId { index: 0, ..callee.leg };
    assert_eq!(bridge(&latest(&world, callee.leg)).with, caller_leg);
    third.answer(&mut world, "180 Ringing", "t", "|");
    assert_eq!(news(&world.request()).0, "SIP/2.0 180 Ringing");
    assert_eq!(world.rings, [(callee.leg, true)], "who is carried over hears it ring");
    third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["ACK", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    assert_eq!(bridge(&latest(&world, callee.leg)).with, third.leg);
    assert_eq!(bridge(&latest(&world, third.leg)).with, callee.leg);
    assert_eq!(world.ends(), [], "the call goes on");
    caller.answer(&mut world, &sent[2], "200 OK", "|");

    let mut callee = callee;
    callee.caller.request(&mut world, "BYE", "");
    let bye = requests(&mut world).remove(0);
    assert_eq!((bye.method.as_str(), bye.headers.to_tag().as_deref()), ("BYE", Some("t")));
    assert_eq!(world.ends(), [Reason::CalleeHungUp]);
    world.assert_quiet();
}

#[test]
fn a_transfer_that_fails_leaves_the_call_as_it_was() {
    let mut world = World::new();
    let (mut caller, callee) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    world.take();
    let third = Callee::reached(&mut world, "info");
    third.answer(&mut world, "486 Busy Here", "t", "|");
    let notify = requests(&mut world).pop().unwrap();
    assert_eq!(news(&notify), ("SIP/2.0 486 Busy Here".to_owned(), true));
    assert_eq!(world.ends(), []);
    assert_eq!(bridge(&latest(&world, callee.leg)).with.index, 0);
    // It may be tried again, and policy decides on each.
    refer(&mut world, &mut caller, "<sip:nobody@edge.example>");
    let notify = requests(&mut world).pop().unwrap();
    assert_eq!(news(&notify), ("SIP/2.0 603 Decline".to_owned(), true));
}

#[test]
fn a_referrer_that_leaves_early_does_not_end_the_call_unless_the_transfer_fails() {
    for works in [true, false] {
        let mut world = World::new();
        let (mut caller, callee) = connected(&mut world);
        refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
        world.take();
        caller.request(&mut world, "BYE", "");
        assert_eq!(world.status(), 200);
        assert_eq!(world.ends(), []);
        let third = Callee::reached(&mut world, "info");
        if works {
            third.answer(&mut world, "200 OK", "t", &body(&callee_answer(&third, "8")));
            assert_eq!(methods(&requests(&mut world)), ["ACK"]);
            assert_eq!(bridge(&latest(&world, callee.leg)).with, third.leg);
            assert_eq!(world.ends(), []);
        } else {
            third.answer(&mut world, "486 Busy Here", "t", "|");
            assert_eq!(methods(&requests(&mut world)), ["ACK", "BYE"]);
            assert_eq!(world.ends(), [Reason::Busy]);
            world.assert_quiet();
        }
    }
}

#[test]
fn a_refer_that_cannot_be_followed_is_refused() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    for (to, code) in [
        ("<sip:edge.example>", 603),
        ("<sip:+49301234567@edge.example;method=BYE>", 603),
        ("<sip:a@x>, <sip:b@x>", 400),
    ] {
        refer(&mut world, &mut caller, to);
        assert_eq!(world.status(), code, "{to}");
    }
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    assert_eq!(responses(&mut world).last().unwrap().status.code(), 491, "one at a time");
    // A caller of a voice agent cannot carry it away.
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    refer(&mut world, &mut caller, "<sip:+49301234567@edge.example>");
    assert_eq!(world.status(), 603);
}

#[test]
fn an_attended_transfer_joins_the_far_ends_of_two_calls() {
    let mut world = World::new();
    let (mut caller, first) = connected(&mut world);
    // The same carrier has a second call.
    let mut second = Caller::new("acme", caller.peer.clone(), "second");
    second.target = "sip:+49301234567@edge.example".to_owned();
    second.request(&mut world, "INVITE", &offer());
    let leg = world.needs.last().unwrap().0;
    reserve(&mut world, leg, 22_000);
    let third = Callee::reached(&mut world, "info");
    third.accept(&mut world, &callee_answer(&third, "8"));
    let ok = responses(&mut world).remove(0);
    second.follow(&ok);
    second.ack(&mut world, "");
    world.take();
    let call_id = second.call_id.replace('@', "%40");
    let replaces = format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
    refer(&mut world, &mut caller, &format!("<sip:x@edge.example?Replaces={replaces}>"));
    // The second call's own leg is let go; its far end moves.
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["NOTIFY", "BYE"]);
    second.answer(&mut world, &sent[1], "200 OK", "|");
    assert_eq!(world.ends(), [Reason::Transferred]);
    let (moved, _) = *world.needs.last().unwrap();
    assert_eq!(moved.call, first.leg.call);
    reserve(&mut world, moved, 23_000);
    let sent = requests(&mut world);
    assert_eq!(methods(&sent), ["INVITE", "NOTIFY", "BYE"]);
    assert_eq!(sent[0].headers.to_tag().as_deref(), Some("tag-callee"));
    assert_eq!(sdp_of(&sent[0].body).media[0].port, 23_000);
    assert_ne!(latest(&world, moved).source.ssrc, latest(&world, third.leg).source.ssrc);
    assert_eq!(bridge(&latest(&world, moved)).with, first.leg);
    assert_eq!(bridge(&latest(&world, first.leg)).with, moved);
    assert_eq!(world.ends(), [Reason::Transferred], "the first call goes on");
    assert_eq!(world.book.with(|counts| (counts.calls, counts.legs)), (1, 2));
    caller.answer(&mut world, &sent[2], "200 OK", "|");
    world.hang_up(Reason::OperatorHungUp);
    world.assert_quiet();
}

#[test]
fn a_replaces_that_names_a_strangers_call_joins_nothing() {
    let mut world = World::new();
    let (mut caller, _) = connected(&mut world);
    let nothing = "nothing%3Bto-tag%3Da%3Bfrom-tag%3Db";
    refer(&mut world, &mut caller, &format!("<sip:x@edge.example?Replaces={nothing}>"));
    let notify = requests(&mut world).pop().unwrap();
    assert_eq!(news(&notify).0, "SIP/2.0 481 Call/Transaction Does Not Exist");
    refer(&mut world, &mut caller, "<sip:x@edge.example?Replaces=garbage>");
    assert_eq!(world.status(), 400);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_voice_agent_carries_its_caller_to_a_trunk_and_is_back_where_that_fails() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    world.take();
    let call = world.leg().call;
    let to = || Personal::new("+442079460000".to_owned());
    world.input(Input::Transfer { call, to: to(), is_announced: false });
    let callee = Callee::reached(&mut world, "beta");
    let purpose = latest(&world, LegId { call, index: 0 }).purpose;
    assert!(matches!(purpose, Purpose::Agent { .. }), "it talks on meanwhile");
    callee.answer(&mut world, "486 Busy Here", "t", "|");
    assert_eq!(world.transfers_failed, [Reason::Busy]);
    assert_eq!(world.ends(), []);

    world.take();
    world.input(Input::Transfer { call, to: to(), is_announced: false });
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    assert_eq!(world.stopped, [call]);
    let plan = latest(&world, LegId { call, index: 0 });
    assert_eq!(bridge(&plan).with, callee.leg);
    world.take();
    caller.request(&mut world, "BYE", "");
    assert_eq!(methods(&requests(&mut world)), ["BYE"]);
    world.assert_quiet();
}

#[test]
fn a_voice_agent_cannot_transfer_to_what_no_route_allows() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    let call = world.leg().call;
    for to in ["nobody", "sip:reception@edge.example", "::"] {
        world.input(Input::Transfer {
            call,
            to: Personal::new(to.to_owned()),
            is_announced: false,
        });
    }
    assert_eq!(world.transfers_failed.len(), 3);
    assert_eq!(world.ends(), []);
}

#[test]
fn an_exemption_of_one_direction_does_not_loosen_the_other() {
    // lab may call us with plain RTP; a re-INVITE to plain RTP by another trunk may not.
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    caller.request(&mut world, "INVITE", &described("RTP/AVP 0", "a=sendrecv"));
    assert_eq!(world.status(), 488);
    let outbound = super::world::POLICY.replace("inbound = true", "outbound = true");
    let mut world = World::with_policy(&outbound);
    let mut lab = Caller::lab();
    let srtp = offer();
    lab.call(&mut world, &srtp);
    world.take();
    lab.request(&mut world, "INVITE", &described("RTP/AVP 0", "a=sendrecv"));
    assert_eq!(world.status(), 488);
    lab.request(&mut world, "INVITE", "");
    let ours = world.response();
    assert_eq!(sdp_of(&ours.body).media[0].protocol, sdp::Protocol::RtpSavp);
    assert_eq!(direction(&ours.body), "sendrecv");
}
