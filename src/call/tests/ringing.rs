//! Stories of what a caller is told and hears before the answer: ringing, tones of ours, several
//! telephones at once, and redirections.

use base::{LegId, Reason};
use sip::{Message, Name};

use super::bridging::{Callee, body, callee_answer, dial, plans, requests, reserve, responses};
use super::world::{Caller, POLICY, World, offer, sdp_of};

const CALLED: &str = "+442079460000";

/// The caller's trunk wants a tone of ours.
fn toned() -> World {
    World::with_policy(&POLICY.replace("[trunk.acme]", "[trunk.acme]\nring_back = \"tone\""))
}

#[test]
fn a_caller_whose_trunk_wants_it_hears_a_tone_of_ours_while_it_rings() {
    let mut world = toned();
    let mut caller = dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    let early = world.response();
    assert_eq!(early.status.code(), 183);
    assert_eq!(sdp_of(&early.body).media[0].port, 20_000);
    let leg = LegId { index: 0, ..callee.leg };
    assert_eq!(world.rings, [(leg, true)]);
    callee.answer(&mut world, "180 Ringing", "t", "|");
    assert!(world.take().is_empty(), "nothing new");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let ok = responses(&mut world).remove(0);
    assert_eq!((ok.status.code(), &ok.body), (200, &early.body));
    assert_eq!(world.rings, [(leg, true), (leg, false)]);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    caller.request(&mut world, "BYE", "");
    world.assert_quiet();
}

#[test]
fn a_tone_of_ours_ends_with_the_callees_early_media_and_with_its_refusal() {
    let mut world = toned();
    dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    let answer = callee_answer(&callee, "0 101");
    callee.answer(&mut world, "183 Session Progress", "t", &body(&answer));
    assert_eq!(world.rings.iter().map(|(_, on)| *on).collect::<Vec<_>>(), [true, false]);

    let mut world = toned();
    dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    callee.answer(&mut world, "500 Oops", "t", "|");
    assert_eq!(world.connects.len(), 2, "its next address");
    assert_eq!(world.rings.iter().map(|(_, on)| *on).collect::<Vec<_>>(), [true, false]);
    world.take();
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    assert_eq!(world.rings.len(), 3, "and the next telephone rings");
}

#[test]
fn where_no_tone_can_be_agreed_on_the_ringing_goes_on_as_it_came() {
    // Without an offer there is nothing to play into; nor where nothing of it can be made here.
    let mut world = toned();
    dial(&mut world, CALLED, "");
    let callee = Callee::reached(&mut world, "beta");
    callee.answer(&mut world, "180 Ringing", "t", "|");
    assert_eq!(world.status(), 180);
    assert_eq!(world.rings, []);
}

/// A caller that takes reliable responses, up to its callee's INVITE.
fn reliable(world: &mut World) -> (Caller, Callee) {
    let mut caller = Caller::acme();
    caller.target = format!("sip:{CALLED}@edge.example");
    caller.extra = "Supported: 100rel\r\n".to_owned();
    caller.request(world, "INVITE", &offer());
    let leg = world.needs[0].0;
    reserve(world, leg, 20_000);
    (caller, Callee::reached(world, "beta"))
}

#[test]
fn each_of_several_forks_gets_its_own_pracks_and_the_caller_one_dialog() {
    let mut world = World::new();
    let (mut caller, callee) = reliable(&mut world);
    let answer = callee_answer(&callee, "0 101");
    let with = |number: u32, answer: &str| {
        let more = body(answer);
        format!("Require: 100rel\r\nRSeq: {number}\r\n{more}")
    };
    callee.answer(&mut world, "183 Session Progress", "one", &with(7, &answer));
    let sent = world.take();
    let [Message::Request(prack), Message::Response(early)] = &sent[..] else {
        panic!("{sent:#?}")
    };
    assert_eq!(prack.headers.to_tag().as_deref(), Some("one"));
    let cseq = callee.invite.headers.cseq().unwrap().number;
    assert_eq!(prack.headers.text(Name::RAck), Some(format!("7 {cseq} INVITE").as_str()));
    let first_tag = early.headers.to_tag();

    // Another telephone, with the same number: its sequence is its own.
    let moved = answer.replace("m=audio 30000", "m=audio 31000");
    callee.answer(&mut world, "183 Session Progress", "two", &with(7, &moved));
    let prack = requests(&mut world).remove(0);
    assert_eq!(prack.headers.to_tag().as_deref(), Some("two"));
    assert_eq!(prack.headers.text(Name::RAck), Some(format!("7 {cseq} INVITE").as_str()));
    assert_eq!(plans(&world).1.remote.port(), 31_000);
    // What comes again or ahead of its turn is not acknowledged.
    callee.answer(&mut world, "183 Session Progress", "one", &with(7, &answer));
    callee.answer(&mut world, "183 Session Progress", "two", &with(9, &moved));
    assert!(requests(&mut world).is_empty());

    caller.follow(early);
    let number = early.headers.text(Name::RSeq).unwrap().to_owned();
    caller.extra = format!("RAck: {number} {} INVITE\r\n", caller.cseq);
    caller.request(&mut world, "PRACK", "");
    assert_eq!(responses(&mut world)[0].status.code(), 200);
    caller.extra.clear();
    callee.answer(&mut world, "200 OK", "two", &body(&moved));
    let sent = world.take();
    let ok = sent.iter().find_map(|message| match message {
        Message::Response(response) => Some(response),
        Message::Request(_) => None,
    });
    let ok = ok.expect("the caller is answered");
    assert_eq!((ok.status.code(), ok.headers.to_tag()), (200, first_tag), "one dialog");
    assert_eq!(plans(&world).1.remote.port(), 31_000);
}

#[test]
fn redirections_end_after_a_few_and_are_never_told_to_the_caller() {
    let mut world = World::new();
    dial(&mut world, CALLED, &offer());
    let mut dialled = 0;
    while world.ends().is_empty() {
        let callee = Callee::reached(&mut world, "beta");
        dialled += 1;
        assert!(dialled < 20, "it goes round for ever");
        let contact = format!("Contact: <sip:+4420794600{dialled:02}@beta.example>\r\n|");
        callee.answer(&mut world, "302 Moved Temporarily", "t", &contact);
        let told = responses(&mut world);
        assert!(told.iter().all(|it| it.status.code() >= 400), "{told:#?}");
    }
    assert_eq!(dialled, base::limit::CALL_ATTEMPTS.value);
    assert_eq!(world.ends(), [Reason::TrunkRefused]);
    world.assert_quiet();
}

#[test]
fn a_redirection_to_several_contacts_tries_them_in_order() {
    let mut world = World::new();
    dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    let contacts = "Contact: <sip:+442079460001@beta.example>\r\n\
                    Contact: <sip:+442079460002@beta.example>\r\n|";
    callee.answer(&mut world, "300 Multiple Choices", "t", contacts);
    world.take();
    for number in ["+442079460001", "+442079460002"] {
        assert!(world.connects.last().unwrap().1.contains(number), "{:?}", world.connects);
        let callee = Callee::reached(&mut world, "beta");
        assert_eq!(callee.invite.uri.user(), Some(number));
        callee.answer(&mut world, "500 Oops", "t", "|");
        world.take();
    }
}
