//! Stories of REFERs that go on to the other party (`transfer = "pass"`).

use base::Reason;
use policy::Transport;
use sip::{Message, Name, Request, Uri};

use super::bridging::{Callee, bridge, callee_answer, connected, reserve, responses};
use super::world::{Caller, POLICY, World, offer, peer};

fn world() -> World {
    World::with_policy(&POLICY.replace("[trunk.acme]", "[trunk.acme]\ntransfer = \"pass\""))
}

fn refer(world: &mut World, from: &mut Caller, to: &str) {
    from.extra = format!("Refer-To: {to}\r\nReferred-By: <sip:secret@10.1.2.3>\r\n");
    from.request(world, "REFER", "");
    from.extra.clear();
}

/// The other party says how its own call fares.
fn tell(world: &mut World, from: &mut Caller, state: &str, line: &str) {
    from.extra = format!("Event: refer;id=77\r\nSubscription-State: {state}\r\n");
    from.request(world, "NOTIFY", &format!("message/sipfrag|{line}\r\nServer: hidden"));
    from.extra.clear();
}

/// The response that answers a NOTIFY, and the NOTIFY that goes on.
fn passed_on(world: &mut World) -> (u16, Request) {
    let sent = world.take();
    let [Message::Response(ok), Message::Request(notify)] = &sent[..] else { panic!("{sent:#?}") };
    (ok.status.code(), notify.clone())
}

fn text(request: &Request) -> String {
    String::from_utf8(Message::Request(request.clone()).to_bytes().to_vec()).unwrap()
}

#[test]
fn a_refer_goes_on_and_its_news_come_back_without_a_word_of_either_side() {
    let mut world = world();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:+49301234567@pbx.caller.example;user=phone>");
    let passed = world.request();
    assert_eq!(passed.method.as_str(), "REFER");
    let here = "<sip:+49301234567@10.20.0.5:5061;transport=tls>";
    assert_eq!(passed.headers.text(Name::ReferTo), Some(here));
    assert!(passed.headers.has(Name::Contact));
    for secret in ["caller.example", "198.51.100", "10.1.2.3", &caller.call_id, &caller.tag] {
        assert!(!text(&passed).contains(secret), "{secret} in {passed:?}");
    }
    let cseq = caller.cseq;
    callee.caller.answer(&mut world, &passed, "202 Accepted", "|");
    assert_eq!(world.status(), 202);
    tell(&mut world, &mut callee.caller, "active;expires=60", "SIP/2.0 180 It rings at 10.9.9.9");
    let (code, news) = passed_on(&mut world);
    assert_eq!((code, news.headers.text(Name::Event)), (200, Some(&*format!("refer;id={cseq}"))));
    assert_eq!(&news.body[..], b"SIP/2.0 180 Ringing\r\n");
    for secret in ["hidden", "10.9.9.9", "203.0.113", &callee.caller.call_id] {
        assert!(!text(&news).contains(secret), "{secret} in {news:?}");
    }
    tell(&mut world, &mut callee.caller, "terminated;reason=noresource", "SIP/2.0 200 OK");
    let (_, news) = passed_on(&mut world);
    assert!(news.headers.text(Name::SubscriptionState).unwrap().starts_with("terminated"));
    // The subscription is over; the call is not, until somebody hangs up.
    tell(&mut world, &mut callee.caller, "active", "SIP/2.0 200 OK");
    assert_eq!(world.status(), 481);
    assert_eq!(world.ends(), []);
    caller.request(&mut world, "BYE", "");
    assert_eq!(world.ends(), [Reason::CallerHungUp]);
    world.assert_quiet();
}

#[test]
fn a_refer_that_the_other_party_refuses_is_declined() {
    for (status, code) in [
        ("603 Decline", 603),
        ("405 Method Not Allowed", 603),
        ("491 Pending", 491),
        ("503 Sorry", 603),
    ] {
        let mut world = world();
        let (mut caller, callee) = connected(&mut world);
        refer(&mut world, &mut caller, "<sip:+49301234567@pbx.caller.example>");
        let passed = world.request();
        callee.caller.answer(&mut world, &passed, status, "|");
        assert_eq!(world.status(), code, "{status}");
        assert_eq!(world.ends(), []);
        // It may be asked again.
        refer(&mut world, &mut caller, "<sip:+49301234567@pbx.caller.example>");
        assert_eq!(world.request().method.as_str(), "REFER");
    }
}

#[test]
fn a_refer_that_is_never_answered_is_declined_in_the_end() {
    let mut world = world();
    let (mut caller, _) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:+49301234567@pbx.caller.example>");
    world.take();
    world.seconds(21);
    assert_eq!(responses(&mut world).pop().unwrap().status.code(), 603);
}

#[test]
fn who_wants_no_news_gets_none() {
    let mut world = world();
    let (mut caller, mut callee) = connected(&mut world);
    caller.extra = "Refer-Sub: false\r\n".to_owned();
    let extra = caller.extra.clone();
    caller.extra = format!("Refer-To: <sip:+49301@x>\r\n{extra}");
    caller.request(&mut world, "REFER", "");
    let passed = world.request();
    assert!(passed.headers.named("Refer-Sub").any(|it| it.text() == Some("false")));
    callee.caller.answer(&mut world, &passed, "200 OK", "|");
    assert_eq!(world.status(), 202);
    tell(&mut world, &mut callee.caller, "active", "SIP/2.0 100 Trying");
    assert_eq!(world.status(), 481);
}

#[test]
fn a_notify_that_nobody_waits_for_or_that_says_nothing_is_refused() {
    let mut world = world();
    let (mut caller, mut callee) = connected(&mut world);
    tell(&mut world, &mut callee.caller, "active", "SIP/2.0 100 Trying");
    assert_eq!(world.status(), 481);
    refer(&mut world, &mut caller, "<sip:+49301@x>");
    world.take();
    tell(&mut world, &mut caller, "active", "SIP/2.0 100 Trying");
    assert_eq!(world.status(), 481, "the referrer tells no news");
    tell(&mut world, &mut callee.caller, "active", "nothing");
    assert_eq!(world.status(), 400);
}

#[test]
fn one_refer_at_a_time_goes_on() {
    let mut world = world();
    let (mut caller, mut callee) = connected(&mut world);
    refer(&mut world, &mut caller, "<sip:+49301@x>");
    world.take();
    refer(&mut world, &mut caller, "<sip:+49302@x>");
    assert_eq!(world.status(), 491);
    callee.caller.extra = "Refer-To: <sip:+49303@x>\r\n".to_owned();
    callee.caller.request(&mut world, "REFER", "");
    assert_eq!(world.status(), 491);
}

#[test]
fn whoever_hangs_up_leaves_no_refer_unanswered() {
    for who in ["caller", "callee"] {
        let mut world = world();
        let (mut caller, mut callee) = connected(&mut world);
        refer(&mut world, &mut caller, "<sip:+49301@x>");
        let passed = world.request();
        if who == "caller" {
            caller.request(&mut world, "BYE", "");
        } else {
            callee.caller.request(&mut world, "BYE", "");
        }
        let codes: Vec<u16> = responses(&mut world).iter().map(|it| it.status.code()).collect();
        assert_eq!(codes, [200, 603], "{who}");
        callee.caller.answer(&mut world, &passed, "202 Accepted", "|");
        world.assert_quiet();
    }
}

/// The caller's carrier has a second call, to the trunk `info`.
pub(super) fn consult(world: &mut World, caller: &Caller) -> (Caller, Callee) {
    let mut second = Caller::new("acme", caller.peer.clone(), "second");
    second.target = "sip:+49301234567@edge.example".to_owned();
    second.request(world, "INVITE", &offer());
    let leg = world.needs.last().unwrap().0;
    reserve(world, leg, 22_000);
    let third = Callee::reached(world, "info");
    third.accept(world, &callee_answer(&third, "8"));
    let ok = responses(world).remove(0);
    second.follow(&ok);
    second.ack(world, "");
    world.take();
    (second, third)
}

#[test]
fn an_attended_transfer_gives_the_other_party_a_name_of_the_dialog_that_only_it_can_use() {
    let mut world = world();
    let (mut caller, callee) = connected(&mut world);
    let (second, third) = consult(&mut world, &caller);
    let call_id = second.call_id.replace('@', "%40");
    let replaces = format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
    refer(&mut world, &mut caller, &format!("<sip:third@pbx.caller.example?Replaces={replaces}>"));
    let passed = world.request();
    let target = passed.headers.addresses(Name::ReferTo).unwrap().remove(0).uri;
    assert_eq!(target.without_headers().as_str(), "sip:third@10.20.0.5:5061;transport=tls");
    for secret in [&second.call_id[..], &call_id, &second.tag, &second.to_tag, "caller.example"] {
        assert!(!text(&passed).contains(secret), "{secret} in {passed:?}");
    }
    callee.caller.answer(&mut world, &passed, "202 Accepted", "|");
    world.take();
    let named = named(&target);
    // A stranger that has overheard it gets nothing.
    let mut stranger = Caller::new("other", peer("192.0.2.7:5061", 11, Transport::Tls), "stranger");
    stranger.extra = format!("Replaces: {named}\r\n");
    stranger.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 481);
    // The other party takes the place of the referrer in the second call.
    let mut far = Caller::new("beta", peer("203.0.113.99:5061", 12, Transport::Tls), "far");
    far.target = target.without_headers().as_str().to_owned();
    far.extra = format!("Require: replaces\r\nReplaces: {named}\r\n");
    far.request(&mut world, "INVITE", &offer());
    let sent = world.take();
    let [Message::Response(ok), Message::Request(bye)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ok.status.code(), bye.headers.call_id()), (200, Ok(second.call_id.as_str())));
    far.follow(ok);
    far.ack(&mut world, "");
    let by = world.handed_over[0].1;
    assert_eq!(by.call, third.leg.call);
    let plan = world.plans.iter().rev().find(|plan| plan.leg == third.leg).unwrap();
    assert_eq!(bridge(plan).with, by);
    world.input(crate::Input::HangUpAll { reason: Reason::OperatorHungUp });
    world.assert_quiet();
}

fn named(target: &Uri) -> String {
    let (_, value) = target.headers().find(|(name, _)| *name == "Replaces").unwrap();
    sip::uri::unescape(value).into_owned()
}

#[test]
fn a_name_is_good_for_a_while() {
    let mut world = world();
    let (mut caller, callee) = connected(&mut world);
    let (second, _) = consult(&mut world, &caller);
    let call_id = second.call_id.replace('@', "%40");
    let replaces = format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
    refer(&mut world, &mut caller, &format!("<sip:x@y?Replaces={replaces}>"));
    let passed = world.request();
    callee.caller.answer(&mut world, &passed, "202 Accepted", "|");
    world.take();
    let target = passed.headers.addresses(Name::ReferTo).unwrap().remove(0).uri;
    world.now += std::time::Duration::from_secs(181);
    let mut far = Caller::new("beta", peer("203.0.113.99:5061", 12, Transport::Tls), "far");
    far.extra = format!("Replaces: {}\r\n", named(&target));
    far.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 481);
}

#[test]
fn an_attended_transfer_to_a_dialog_that_is_not_the_referrers_is_declined() {
    let mut world = world();
    let (mut caller, _) = connected(&mut world);
    let own = format!(
        "{}%3Bto-tag%3D{}%3Bfrom-tag%3D{}",
        caller.call_id.replace('@', "%40"),
        caller.to_tag,
        caller.tag
    );
    for replaces in ["nothing%3Bto-tag%3Da%3Bfrom-tag%3Db", &own] {
        refer(&mut world, &mut caller, &format!("<sip:x@y?Replaces={replaces}>"));
        assert_eq!(world.status(), 603, "{replaces}");
    }
}

#[test]
fn who_may_not_be_recorded_takes_no_place_in_a_call_that_is() {
    for (word, code) in [("never", 603), ("allowed", 200)] {
        let policy = POLICY
            .replace("[trunk.acme]", "[trunk.acme]\ntransfer = \"pass\"")
            .replace("[trunk.beta]", &format!("[trunk.beta]\nrecording = \"{word}\""));
        let mut world = World::with_policy(&policy);
        let (mut caller, callee) = connected(&mut world);
        let mut second = Caller::new("acme", caller.peer.clone(), "second");
        second.call(&mut world, &offer());
        world.take();
        assert!(world.started[0].2.recording);
        let call_id = second.call_id.replace('@', "%40");
        let replaces =
            format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
        refer(&mut world, &mut caller, &format!("<sip:x@y?Replaces={replaces}>"));
        let passed = world.request();
        callee.caller.answer(&mut world, &passed, "202 Accepted", "|");
        world.take();
        let target = passed.headers.addresses(Name::ReferTo).unwrap().remove(0).uri;
        let mut far = Caller::new("beta", peer("203.0.113.99:5061", 12, Transport::Tls), "far");
        far.extra = format!("Replaces: {}\r\n", named(&target));
        far.request(&mut world, "INVITE", &offer());
        let sent = world.take();
        let Message::Response(answer) = &sent[0] else { panic!("{sent:#?}") };
        assert_eq!(answer.status.code(), code, "recording = {word}");
        assert_eq!(world.ends(), []);
    }
}
