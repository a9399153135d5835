//! Stories of parties of another shard that come to a voice agent, or into the call of a page of
//! WHIP, and of who hangs up while that is under way.

use base::{LegId, Reason};
use sip::Request;

use super::bridging::{Callee, bridge, connected, requests};
use super::browsers::{self, BROWSERS};
use super::browsers_transferring::{self, replacing};
use super::enlisting::{consulted_agent, dialog_of, talks_with_agent};
use super::transferring::{latest, methods, news, refer};
use super::transferring_across::{Chaos, Shards, in_any_order};
use super::world::{Caller, POLICY, World, offer};

/// A carrier's call here and its talk with a voice agent there, which it names in REFER; nothing
/// has crossed yet. Its caller, its callee, and the caller of the talk.
fn asked_agent(shards: &mut Shards) -> (Caller, Callee, Caller) {
    let (mut caller, callee) = connected(&mut shards.here);
    let second = consulted_agent(&mut shards.there, &caller);
    let named = dialog_of(&second);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    (caller, callee, second)
}

/// Answers the requests of ours that hang up.
fn agree(world: &mut World, person: &Caller) -> Vec<String> {
    let sent = requests(world);
    let byes = sent.iter().filter(|it| it.method == sip::Method::Bye);
    byes.for_each(|bye| person.answer(world, bye, "200 OK", "|"));
    methods(&sent)
}

#[test]
fn who_has_asked_a_voice_agent_of_another_shard_lets_its_other_party_have_it() {
    let mut shards = Shards::new();
    let (caller, mut callee, mut second) = asked_agent(&mut shards);
    shards.settle();
    let sent = requests(&mut shards.here);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    caller.answer(&mut shards.here, &sent[2], "200 OK", "|");
    let (call, agent, _) = &shards.here.started[0];
    assert_eq!((call, agent.as_str()), (&callee.leg.call, "reception"));
    assert!(talks_with_agent(&latest(&shards.here, callee.leg)));
    // The consultation is over; what its caller repeats of it is nothing.
    assert_eq!(shards.there.ends(), [Reason::Transferred]);
    let bye = requests(&mut shards.there).remove(0);
    assert_eq!(bye.headers.call_id(), Ok(second.call_id.as_str()));
    second.ack(&mut shards.there, "");
    assert!(shards.there.take().is_empty());
    second.answer(&mut shards.there, &bye, "200 OK", "|");
    assert_eq!(shards.here.ends(), []);
    callee.caller.request(&mut shards.here, "BYE", "");
    assert_eq!(shards.here.ends(), [Reason::CalleeHungUp]);
    shards.assert_quiet();
}

#[test]
fn who_hangs_up_while_a_voice_agent_of_another_shard_is_asked_for_leaves_nobody_behind() {
    for who in ["who stays", "who asks", "who asks, over there"] {
        let mut shards = Shards::new();
        let (mut caller, mut callee, mut second) = asked_agent(&mut shards);
        assert!(shards.step(), "the other shard is asked");
        match who {
            "who stays" => callee.caller.request(&mut shards.here, "BYE", ""),
            "who asks" => caller.request(&mut shards.here, "BYE", ""),
            _ => second.request(&mut shards.there, "BYE", ""),
        };
        shards.settle();
        agree(&mut shards.here, &caller);
        agree(&mut shards.there, &second);
        if who == "who stays" {
            assert_eq!(shards.here.ends(), [Reason::CalleeHungUp]);
            assert!(shards.here.started.is_empty(), "nobody is there for it");
            assert_eq!(shards.there.ends(), [], "the talk over there goes on");
            second.request(&mut shards.there, "BYE", "");
            assert_eq!(shards.there.ends(), [Reason::CallerHungUp]);
        } else {
            assert_eq!(shards.here.started.len(), 1, "{who}");
            assert!(talks_with_agent(&latest(&shards.here, callee.leg)), "{who}");
            assert_eq!((shards.here.ends().len(), shards.there.ends().len()), (0, 1), "{who}");
            callee.caller.request(&mut shards.here, "BYE", "");
        }
        shards.assert_quiet();
    }
}

#[test]
fn a_talk_with_a_voice_agent_that_is_not_acknowledged_yet_joins_nobody_and_goes_on() {
    let mut shards = Shards::new();
    let (mut caller, callee) = connected(&mut shards.here);
    let mut second = Caller::new("acme", caller.peer.clone(), "second");
    second.ring(&mut shards.there, &offer());
    let named = dialog_of(&second);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    let told = requests(&mut shards.here).pop().unwrap();
    assert_eq!(news(&told), ("SIP/2.0 481 Call/Transaction Does Not Exist".to_owned(), true));
    assert_eq!(bridge(&latest(&shards.here, callee.leg)).with.index, 0, "all is as it was");
    second.ack(&mut shards.there, "");
    assert_eq!(shards.there.started.len(), 1, "the late ACK begins the talk");
    second.request(&mut shards.there, "BYE", "");
    caller.request(&mut shards.here, "BYE", "");
    shards.assert_quiet();
}

/// A carrier's callee has a call here, and one with a page of WHIP there, which it names in REFER;
/// nothing has crossed yet. The caller here, the callee here, the page, and the callee there.
fn asked_page(shards: &mut Shards) -> (Caller, Callee, Caller, Callee) {
    let (caller, mut callee) = connected(&mut shards.here);
    let mut page = browsers::whip();
    let with_page =
        browsers_transferring::connected(&mut shards.there, &mut page, "+442079460000", "beta");
    refer(&mut shards.here, &mut callee.caller, &replacing(&with_page));
    (caller, callee, page, with_page)
}

fn with_pages(seed: u64) -> Shards {
    Shards::seeded(seed, &format!("{BROWSERS}{POLICY}"))
}

fn of<'a>(sent: &'a [Request], call_id: &str) -> Vec<&'a str> {
    let its = sent.iter().filter(|it| it.headers.call_id() == Ok(call_id));
    its.map(|it| it.method.as_str()).collect()
}

#[test]
fn who_is_to_talk_with_a_page_of_another_shard_goes_there() {
    let mut shards = with_pages(1);
    let (mut caller, callee, page, with_page) = asked_page(&mut shards);
    shards.settle();
    let sent = requests(&mut shards.here);
    assert_eq!(methods(&sent), ["NOTIFY", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    callee.caller.answer(&mut shards.here, &sent[2], "200 OK", "|");
    assert_eq!(shards.here.ends(), [Reason::Transferred]);
    let (moved, _) = *shards.there.needs.last().unwrap();
    assert_eq!(moved.call, with_page.leg.call);
    shards.there.reserve();
    let sent = requests(&mut shards.there);
    assert_eq!(of(&sent, &caller.call_id), ["INVITE"], "who came");
    assert_eq!(of(&sent, &with_page.caller.call_id), ["BYE"], "who asked");
    assert_eq!(of(&sent, &page.call_id), [""; 0], "the page hears no offer");
    let page_leg = LegId { index: 0, ..with_page.leg };
    assert_eq!(bridge(&latest(&shards.there, page_leg)).with, moved);
    // Its peer still speaks to the shard that its tag names.
    caller.request(&mut shards.here, "BYE", "");
    shards.settle();
    assert_eq!(shards.there.ends().len(), 1);
    agree(&mut shards.there, &page);
    agree(&mut shards.here, &caller);
    shards.assert_quiet();
}

#[test]
fn who_hangs_up_while_a_leg_goes_to_a_page_of_another_shard_leaves_nobody_behind() {
    for who in ["who comes", "the page", "who asks, over there"] {
        for steps in 0..4 {
            let mut shards = with_pages(1);
            let (mut caller, callee, mut page, mut with_page) = asked_page(&mut shards);
            for _ in 0..steps {
                shards.step();
            }
            match who {
                "who comes" => caller.request(&mut shards.here, "BYE", ""),
                "the page" => page.request(&mut shards.there, "BYE", ""),
                _ => with_page.caller.request(&mut shards.there, "BYE", ""),
            };
            shards.settle();
            for _ in 0..4 {
                agree(&mut shards.here, &callee.caller);
                agree(&mut shards.there, &page);
                shards.settle();
            }
            if who == "who comes" {
                // Whoever stayed behind has hung up, or talks with whom it talked before.
                page.request(&mut shards.there, "BYE", "");
                agree(&mut shards.there, &page);
                assert_eq!(shards.here.ends().len(), 1, "{steps}");
            }
            caller.request(&mut shards.here, "BYE", "");
            shards.settle();
            agree(&mut shards.here, &callee.caller);
            agree(&mut shards.there, &page);
            assert_eq!(shards.there.ends().len(), 1, "{who}, after {steps}");
            shards.assert_quiet();
        }
    }
}

#[test]
fn whatever_crosses_a_voice_agents_coming_from_another_shard_nothing_is_left_of_it() {
    let (mut came, mut stayed) = (0, 0);
    let begin = |seed| {
        let mut shards = Shards::seeded(seed, POLICY);
        let (caller, callee, second) = asked_agent(&mut shards);
        Chaos::of(shards, vec![(true, caller), (true, callee.caller), (false, second)])
    };
    in_any_order(150, begin, |shards| match shards.here.started.len() {
        0 => stayed += 1,
        _ => came += 1,
    });
    assert!(came > 50 && stayed > 0, "{came} came, {stayed} did not");
}

#[test]
fn whatever_crosses_a_legs_going_to_a_page_of_another_shard_nothing_is_left_of_it() {
    let (mut went, mut stayed) = (0, 0);
    let begin = |seed| {
        let mut shards = with_pages(seed);
        let (caller, callee, page, with_page) = asked_page(&mut shards);
        let here = [caller, callee.caller].map(|it| (true, it));
        let there = [page, with_page.caller].map(|it| (false, it));
        Chaos::of(shards, here.into_iter().chain(there).collect())
    };
    in_any_order(150, begin, |shards| match shards.here.ends().contains(&Reason::Transferred) {
        true => went += 1,
        false => stayed += 1,
    });
    assert!(went > 50 && stayed > 0, "{went} went, {stayed} did not");
}
