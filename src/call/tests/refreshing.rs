//! Session timers, RFC 4028: theirs answered, ours sent.

use base::Reason;
use sip::{Name, Request};

use super::bridging::{Callee, dial, requests, responses};
use super::world::{Caller, World, crypto, described, offer};

/// A caller whose INVITE asks for a timer.
fn timed(expires: &str, allow: &str) -> Caller {
    let mut caller = Caller::acme();
    caller.extra =
        format!("Supported: timer\r\nSession-Expires: {expires}\r\nAllow: INVITE, BYE{allow}\r\n");
    caller
}

/// A call in which the refreshes are ours, by UPDATE or by re-INVITE; our first refresh.
fn refreshed(allow: &str) -> (World, Caller, Request) {
    let (mut world, mut caller) = (World::new(), timed("600;refresher=uas", allow));
    let ok = caller.call(&mut world, &offer());
    assert_eq!(ok.headers.text(Name::SessionExpires), Some("600;refresher=uas"));
    caller.extra.clear();
    world.seconds(299);
    assert!(world.take().is_empty());
    world.seconds(1);
    let refresh = world.request();
    (world, caller, refresh)
}

const AGREED: &str = "Session-Expires: 600;refresher=uac\r\n";

fn answer_body(refresh: &Request) -> String {
    let session = super::world::sdp_of(&refresh.body);
    let tag = session.media[0].crypto().next().unwrap().split(' ').next().unwrap().to_owned();
    let body = described("RTP/SAVP 8", &crypto(tag.parse().unwrap(), 'P'));
    let body = body.split_once('|').unwrap().1;
    format!("{AGREED}Content-Type: application/sdp\r\n|{body}")
}

#[test]
fn an_interval_that_is_too_small_is_422_with_what_is_taken() {
    let (mut world, mut caller) = (World::new(), timed("60", ""));
    caller.request(&mut world, "INVITE", &offer());
    let response = world.response();
    assert_eq!(response.status.code(), 422);
    assert_eq!(response.headers.text(Name::MinSe), Some("90"));
    assert_eq!(world.ends(), [Reason::SessionIntervalTooSmall]);
    caller.ack(&mut world, "");
    // The caller asks again, as RFC 4028 section 7.3 says.
    caller.extra = caller.extra.replace("60", "90");
    caller.ring(&mut world, &offer());
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn a_timer_that_cannot_be_read_is_400() {
    let (mut world, mut caller) = (World::new(), timed("soon", ""));
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 400);
    assert_eq!(world.ends(), [Reason::Malformed]);
    world.assert_quiet();
}

#[test]
fn a_caller_without_timers_is_left_alone() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let ok = caller.call(&mut world, &offer());
    assert!(!ok.headers.has(Name::SessionExpires));
    world.seconds(3_500);
    assert!(world.take().is_empty());
}

#[test]
fn we_refresh_by_update_where_the_peer_takes_it() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    assert_eq!(refresh.method.as_str(), "UPDATE");
    assert!(refresh.body.is_empty());
    assert_eq!(refresh.headers.text(Name::SessionExpires), Some("600;refresher=uac"));
    caller.answer(&mut world, &refresh, "200 OK", AGREED);
    assert!(world.take().is_empty());
    world.seconds(300);
    assert_eq!(world.request().method.as_str(), "UPDATE", "and again half an interval later");
}

#[test]
fn we_refresh_by_re_invite_where_the_peer_takes_no_update() {
    let (mut world, caller, refresh) = refreshed("");
    assert_eq!(refresh.method.as_str(), "INVITE");
    let body = answer_body(&refresh);
    caller.answer(&mut world, &refresh, "200 OK", &body);
    let ack = world.request();
    assert_eq!(ack.method.as_str(), "ACK");
    // The ACK is lost: the peer repeats its 200 and gets it again.
    caller.answer(&mut world, &refresh, "200 OK", &body);
    let again = world.request();
    assert_eq!(again.method.as_str(), "ACK");
    assert_eq!(again.headers.cseq().unwrap(), ack.headers.cseq().unwrap());
    assert_eq!(world.ends(), []);
    let first = &world.plans[0];
    assert!(world.plans.iter().all(|plan| plan.source == first.source));
    assert!(world.held.is_empty());
}

#[test]
fn an_update_that_is_refused_as_such_becomes_a_re_invite() {
    for status in ["405 Method Not Allowed", "501 Not Implemented"] {
        let (mut world, caller, refresh) = refreshed(", UPDATE");
        caller.answer(&mut world, &refresh, status, "");
        assert_eq!(world.request().method.as_str(), "INVITE");
    }
}

#[test]
fn an_interval_that_is_too_small_for_the_peer_is_raised() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    caller.answer(&mut world, &refresh, "422 Session Interval Too Small", "Min-SE: 900\r\n");
    let again = world.request();
    assert_eq!(again.headers.text(Name::SessionExpires), Some("900;refresher=uac"));
    assert_eq!(again.headers.text(Name::MinSe), Some("900"));
}

#[test]
fn after_491_we_try_again_within_two_seconds() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    caller.answer(&mut world, &refresh, "491 Request Pending", "");
    assert!(world.take().is_empty());
    world.seconds(2);
    assert_eq!(world.request().method.as_str(), "UPDATE");
}

#[test]
fn a_re_invite_that_crosses_ours_is_491() {
    let (mut world, mut caller, refresh) = refreshed("");
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 491);
    caller.ack(&mut world, "");
    caller.answer(&mut world, &refresh, "491 Request Pending", "");
    assert_eq!(world.request().method.as_str(), "ACK");
    caller.request(&mut world, "INVITE", &offer());
    assert_eq!(world.status(), 200, "theirs goes through");
    caller.ack(&mut world, "");
    world.seconds(2);
    assert_eq!(world.request().method.as_str(), "INVITE", "then ours");
}

#[test]
fn a_peer_that_does_not_know_the_call_any_more_ends_it() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    caller.answer(&mut world, &refresh, "481 No Such Call", "");
    let bye = world.request();
    caller.answer(&mut world, &bye, "481 No Such Call", "");
    assert_eq!(world.ends(), [Reason::PeerGone]);
    world.assert_quiet();
}

#[test]
fn a_session_that_nobody_refreshes_ends_before_its_interval() {
    let (mut world, mut caller) = (World::new(), timed("600;refresher=uac", ""));
    caller.call(&mut world, &offer());
    world.seconds(567);
    assert!(world.take().is_empty());
    world.seconds(1);
    let bye = world.request();
    assert!(bye.headers.text(Name::Reason).unwrap().contains("call.session_expired"));
    caller.answer(&mut world, &bye, "200 OK", "");
    assert_eq!(world.ends(), [Reason::SessionExpired]);
    world.assert_quiet();
}

#[test]
fn the_peers_refresh_starts_the_interval_anew() {
    let (mut world, mut caller) = (World::new(), timed("600;refresher=uac", ""));
    caller.call(&mut world, &offer());
    world.seconds(400);
    caller.request(&mut world, "UPDATE", "");
    let ok = world.response();
    assert_eq!(ok.headers.text(Name::SessionExpires), Some("600;refresher=uac"));
    world.seconds(500);
    assert!(world.take().is_empty());
}

#[test]
fn a_hang_up_during_our_re_invite_ends_both() {
    let (mut world, caller, refresh) = refreshed("");
    caller.answer(&mut world, &refresh, "100 Trying", "");
    world.hang_up(Reason::AgentHungUp);
    let sent = world.take();
    let bye = sent
        .iter()
        .find_map(|message| match message {
            sip::Message::Request(it) if it.method.as_str() == "BYE" => Some(it.clone()),
            _ => None,
        })
        .expect("a BYE goes out");
    // The 200 of the re-INVITE crosses our BYE: it is acknowledged, and the BYE is still ours.
    let body = answer_body(&refresh);
    caller.answer(&mut world, &refresh, "200 OK", &body);
    assert_eq!(world.request().method.as_str(), "ACK");
    assert_eq!(world.plans.len(), 1, "nothing flows any more");
    caller.answer(&mut world, &bye, "200 OK", "");
    assert_eq!(world.ends(), [Reason::AgentHungUp]);
    world.assert_quiet();
}

#[test]
fn a_re_invite_that_is_never_answered_leaves_nothing_behind() {
    let (mut world, caller, refresh) = refreshed("");
    caller.answer(&mut world, &refresh, "100 Trying", "");
    world.seconds(400);
    assert_eq!(world.ends(), [Reason::SessionExpired]);
    world.assert_quiet();
}

#[test]
fn a_refresh_that_finds_its_connection_gone_opens_a_new_one() {
    let (mut world, mut caller) = (World::new(), timed("600;refresher=uas", ", UPDATE"));
    caller.call(&mut world, &offer());
    world.input(crate::Input::FlowClosed(caller.peer.flow));
    world.seconds(300);
    assert!(world.take().is_empty());
    let leg = world.connects[0].0;
    caller.peer = super::world::peer("198.51.100.9:40000", 78, policy::Transport::Tls);
    world.input(crate::Input::Connected { leg, peer: caller.peer.clone(), contact: None });
    let refresh = world.request();
    assert_eq!(refresh.method.as_str(), "UPDATE");
    caller.answer(&mut world, &refresh, "200 OK", AGREED);
    world.seconds(299);
    assert_eq!(world.ends(), []);
}

/// Lets the session run to its end while the peer refuses every refresh in these words; how
/// many it refused.
fn refused_each_time(world: &mut World, caller: &Caller, first: Request, words: &[&str]) -> usize {
    let mut refresh = Some(first);
    for count in 0.. {
        let Some(request) = refresh.take() else { continue };
        let (status, more) = words[count % words.len()].split_once('|').unwrap();
        let more = more.replace("COUNT", &(700 + count).to_string());
        caller.answer(world, &request, status, &more);
        for _ in 0..600 {
            // Our ACK of a refused re-INVITE comes with the next request, if that comes at once.
            let requests = world.take().into_iter().filter_map(|message| match message {
                sip::Message::Request(it) if it.method.as_str() != "ACK" => Some(it),
                _ => None,
            });
            refresh = requests.last();
            if refresh.is_some() {
                break;
            }
            world.seconds(1);
        }
        if refresh.as_ref().is_none_or(|it| it.method.as_str() == "BYE") {
            let bye = refresh.expect("the session expires");
            assert!(bye.headers.text(Name::Reason).unwrap().contains("call.session_expired"));
            caller.answer(world, &bye, "200 OK", "");
            assert_eq!(world.ends(), [Reason::SessionExpired]);
            world.assert_quiet();
            return count + 1;
        }
    }
    unreachable!("it returns")
}

#[test]
fn a_peer_that_asks_for_time_gets_it() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    caller.answer(&mut world, &refresh, "503 Service Unavailable", "Retry-After: 30\r\n");
    world.seconds(29);
    assert!(world.take().is_empty());
    world.seconds(1);
    let again = world.request();
    assert_eq!(again.method.as_str(), "UPDATE");
    caller.answer(&mut world, &again, "200 OK", AGREED);
    world.seconds(299);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_fault_of_the_peers_is_waited_out_until_two_thirds_of_the_interval() {
    let (mut world, caller, refresh) = refreshed(", UPDATE");
    caller.answer(&mut world, &refresh, "500 Server Error", "");
    world.seconds(99);
    assert!(world.take().is_empty());
    world.seconds(1);
    let again = world.request();
    assert_eq!(again.method.as_str(), "UPDATE");
    caller.answer(&mut world, &again, "200 OK", AGREED);
    world.seconds(299);
    assert_eq!(world.ends(), []);
}

#[test]
fn a_refusal_that_lasts_is_tried_once_more_in_the_other_form_and_then_the_session_expires() {
    for status in ["403 Forbidden", "488 Not Acceptable Here", "401 Unauthorized", "603 Decline"] {
        let (mut world, caller, refresh) = refreshed(", UPDATE");
        caller.answer(&mut world, &refresh, status, "");
        world.seconds(100);
        let again = world.request();
        assert_eq!(again.method.as_str(), "INVITE", "{status}");
        caller.answer(&mut world, &again, status, "");
        assert_eq!(world.request().method.as_str(), "ACK");
        world.seconds(167);
        assert!(world.take().is_empty(), "{status}");
        world.seconds(1);
        let bye = world.request();
        assert_eq!(bye.method.as_str(), "BYE", "{status}");
        caller.answer(&mut world, &bye, "200 OK", "");
        assert_eq!(world.ends(), [Reason::SessionExpired]);
        world.assert_quiet();
    }
}

#[test]
fn a_peer_that_refuses_every_refresh_is_not_asked_in_a_loop() {
    for words in [
        &["491 Request Pending|"][..],
        &["422 Session Interval Too Small|Min-SE: COUNT\r\n"],
        &["422 Session Interval Too Small|"],
        &["500 Server Error|Retry-After: 0\r\n"],
        &["503 Service Unavailable|"],
        &["405 Method Not Allowed|"],
        &["501 Not Implemented|Retry-After: 1\r\n", "491 Request Pending|"],
        &["488 Not Acceptable Here|Retry-After: 0 (soon)\r\n"],
    ] {
        for allow in ["", ", UPDATE"] {
            let (mut world, caller, refresh) = refreshed(allow);
            let tries = refused_each_time(&mut world, &caller, refresh, words);
            assert!((2..=16).contains(&tries), "{words:?} {allow}: {tries}");
        }
    }
}

#[test]
fn a_refresh_whose_connection_is_lost_is_sent_again_over_a_new_one() {
    for allow in ["", ", UPDATE"] {
        let (mut world, mut caller, _) = refreshed(allow);
        world.input(crate::Input::FlowClosed(caller.peer.flow));
        assert_eq!(world.ends(), [], "a call that is up stays up");
        world.seconds(100);
        assert!(world.take().is_empty());
        let leg = world.connects[0].0;
        // That one cannot be opened either: no loop.
        for (flow, seconds) in [(78, 84), (79, 42)] {
            caller.peer = super::world::peer("198.51.100.9:40000", flow, policy::Transport::Tls);
            world.input(crate::Input::Connected { leg, peer: caller.peer.clone(), contact: None });
            assert_ne!(world.request().method.as_str(), "BYE");
            world.input(crate::Input::FlowClosed(caller.peer.flow));
            world.seconds(seconds - 1);
            assert!(world.take().is_empty());
            world.seconds(1);
        }
        assert_eq!(world.connects.len(), 3);
        caller.peer = super::world::peer("198.51.100.9:40001", 80, policy::Transport::Tls);
        caller.request(&mut world, "OPTIONS", "");
        let sent = world.take();
        assert_eq!(sent.len(), 1, "its answer; the refresh follows at once");
        world.pass(std::time::Duration::ZERO);
        let refresh = world.request();
        let body = if allow.is_empty() { answer_body(&refresh) } else { AGREED.to_owned() };
        caller.answer(&mut world, &refresh, "200 OK", &body);
        world.seconds(299);
        assert_eq!(world.ends(), []);
    }
}

#[test]
fn a_callee_that_wants_a_longer_session_is_asked_once_more_within_the_same_call() {
    let mut world = World::new();
    let caller = dial(&mut world, "+442079460000", &offer());
    let mut callee = Callee::reached(&mut world, "beta");
    let first = callee.invite.clone();
    callee.answer(&mut world, "422 Session Interval Too Small", "t", "Min-SE: 2000\r\n|");
    let sent = requests(&mut world);
    let [ack, again] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ack.method.as_str(), again.method.as_str()), ("ACK", "INVITE"));
    let known = |invite: &sip::Request| {
        let headers = &invite.headers;
        let cseq = headers.cseq().unwrap().number;
        (headers.call_id().unwrap().to_owned(), headers.from_tag(), headers.to_tag(), cseq)
    };
    let (call_id, from_tag, to_tag, cseq) = known(&first);
    assert_eq!(known(again), (call_id, from_tag, to_tag, cseq + 1), "RFC 3261 section 8.1.3.5");
    let branch = |invite: &sip::Request| invite.headers.text(Name::Via).unwrap().to_owned();
    assert_ne!(branch(again), branch(&first));
    assert_eq!(again.headers.text(Name::SessionExpires), Some("2000"));
    assert_eq!(again.headers.text(Name::MinSe), Some("2000"));
    assert_eq!(again.body, first.body);
    // Once: whoever wants still more is no callee for us.
    callee.invite = again.clone();
    callee.answer(&mut world, "422 Session Interval Too Small", "t", "Min-SE: 4000\r\n|");
    let refused = responses(&mut world).pop().unwrap();
    assert_eq!(refused.headers.call_id(), Ok(caller.call_id.as_str()));
    assert_eq!(refused.status.code(), 502);
    world.assert_quiet();
}
