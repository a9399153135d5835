//! Stories of a party that changes to a codec which the other one has not agreed on.

use base::Reason;
use media::Passage;
use sip::{Message, Request, Response};

use super::bridging::{
    Callee, body, bridge, callee_answer, connected, dial, plans, requests, responses,
};
use super::passing_codecs::{answer, mobile, world};
use super::world::{Caller, World, crypto, described, offer, sdp_of};

/// A description of one G.711 law, keyed.
fn plain(format: &str) -> String {
    described(&format!("RTP/SAVP {format} 101"), &crypto(1, 'P'))
}

/// A call that speaks AMR-WB and nothing else.
fn in_amr_alone(world: &mut World) -> (Caller, Callee) {
    let mut caller = dial(world, "+442079460000", &mobile("97 102"));
    let callee = Callee::reached(world, "beta");
    let number = sdp_of(&callee.invite.body).media[0].payload_formats()[0].payload_type;
    let with = answer(&callee, &format!("{number}"), &format!("a=rtpmap:{number} AMR-WB/16000"));
    callee.accept(world, &with);
    let ok = responses(world).remove(0);
    caller.follow(&ok);
    caller.ack(world, "");
    world.take();
    (caller, callee)
}

/// The only re-INVITE among what was sent; nobody has been answered.
fn asked(world: &mut World) -> Request {
    let sent = world.take();
    let [Message::Request(reinvite)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!(reinvite.method.as_str(), "INVITE");
    reinvite.clone()
}

fn names(reinvite: &Request) -> Vec<String> {
    let formats = sdp_of(&reinvite.body).media[0].payload_formats();
    formats.into_iter().map(|it| it.name).collect()
}

/// An answer of the callee's to a re-INVITE.
fn says(callee: &Callee, formats: &str) -> String {
    body(&callee_answer(callee, formats))
}

fn split(world: &mut World) -> (Vec<Response>, Vec<String>) {
    let (mut responses, mut requests) = (Vec::new(), Vec::new());
    for message in world.take() {
        match message {
            Message::Response(response) => responses.push(response),
            Message::Request(request) => requests.push(request.method.as_str().to_owned()),
        }
    }
    (responses, requests)
}

#[test]
fn what_can_be_transcoded_is_answered_at_once_and_the_partner_hears_nothing_of_it() {
    for method in ["INVITE", "UPDATE"] {
        let mut world = World::new();
        let (mut caller, _) = connected(&mut world);
        world.take();
        let opus = "a=rtpmap:111 opus/48000/2\r\n";
        let offer = described("RTP/SAVP 111", &format!("{opus}{}", crypto(1, 'P')));
        caller.request(&mut world, method, &offer);
        let ok = world.response();
        assert_eq!(
            (ok.status.code(), &sdp_of(&ok.body).media[0].formats[..]),
            (200, &["111".to_owned()][..])
        );
        if method == "INVITE" {
            caller.ack(&mut world, "");
        }
        let (a, b) = plans(&world);
        assert_eq!(bridge(&a).audio, [(111, Passage::Transcode)]);
        assert_eq!(bridge(&b).to.unwrap().codec, audio::Codec::Opus);
        world.seconds(10);
        assert!(world.take().is_empty());
    }
}

#[test]
fn who_leaves_what_goes_through_undecoded_is_answered_once_the_partner_has_left_it_too() {
    for method in ["INVITE", "UPDATE"] {
        let mut world = world();
        let (mut caller, callee) = in_amr_alone(&mut world);
        caller.request(&mut world, method, &plain("0"));
        let reinvite = asked(&mut world);
        assert_eq!(names(&reinvite), ["PCMU", "telephone-event"], "as the one who leaves has it");
        // Meanwhile nothing else of it is taken.
        caller.request(&mut world, "UPDATE", &plain("8"));
        assert_eq!(world.status(), 491);
        caller.cseq -= 1;
        callee.caller.answer(&mut world, &reinvite, "200 OK", &says(&callee, "0"));
        let (answers, sent) = split(&mut world);
        assert_eq!(
            (answers.len(), answers[0].status.code(), sent),
            (1, 200, vec!["ACK".to_owned()])
        );
        assert_eq!(answers[0].headers.cseq().unwrap().method.as_str(), method);
        if method == "INVITE" {
            caller.ack(&mut world, "");
        }
        let (a, b) = plans(&world);
        assert!(a.opaque.is_empty() && b.opaque.is_empty());
        assert_eq!(bridge(&a).audio, [(0, Passage::Forward(0))]);
        assert_eq!(bridge(&b).audio, [(0, Passage::Forward(0))]);
        world.seconds(10);
        assert!(world.take().is_empty(), "and that is all");
        world.hang_up(Reason::OperatorHungUp);
        world.assert_quiet();
    }
}

#[test]
fn who_goes_over_to_what_is_never_decoded_takes_the_partner_with_it() {
    let mut world = world();
    let mut caller = dial(&mut world, "+442079460000", &offer());
    let callee = Callee::reached(&mut world, "beta");
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let ok = responses(&mut world).remove(0);
    caller.follow(&ok);
    caller.ack(&mut world, "");
    world.take();
    caller.request(&mut world, "INVITE", &mobile("97 102"));
    let reinvite = asked(&mut world);
    let formats = sdp_of(&reinvite.body).media[0].payload_formats();
    let amr = formats.iter().find(|it| it.name == "AMR-WB").expect("it is offered on");
    let number = amr.payload_type;
    let answered = answer(&callee, &number.to_string(), &format!("a=rtpmap:{number} AMR-WB/16000"));
    callee.caller.answer(&mut world, &reinvite, "200 OK", &body(&answered));
    let (answers, _) = split(&mut world);
    assert_eq!(answers[0].status.code(), 200);
    caller.ack(&mut world, "");
    let (a, b) = plans(&world);
    assert_eq!(bridge(&a).audio, [(97, Passage::Forward(number))]);
    assert_eq!(bridge(&b).audio, [(number, Passage::Forward(97))]);
}

#[test]
fn a_partner_that_stays_as_it_is_leaves_the_call_as_it_was() {
    for (status, told) in [("488 Not Acceptable Here", 488), ("491 Request Pending", 491)] {
        let mut world = world();
        let (mut caller, callee) = in_amr_alone(&mut world);
        let before = world.plans.len();
        caller.request(&mut world, "INVITE", &plain("0"));
        let reinvite = asked(&mut world);
        callee.caller.answer(&mut world, &reinvite, status, "|");
        let (answers, _) = split(&mut world);
        assert_eq!(answers[0].status.code(), told);
        caller.ack(&mut world, "");
        assert_eq!((world.plans.len(), world.ends().len()), (before, 0));
        // And it is asked no more than once for each offer.
        world.seconds(20);
        assert!(world.take().is_empty());
    }
}

#[test]
fn a_partner_whose_trunk_has_nothing_to_go_with_it_is_not_asked() {
    let mut world = world();
    let (mut caller, _) = in_amr_alone(&mut world);
    let g729 = described("RTP/SAVP 18", &crypto(1, 'P'));
    let evs = described("RTP/SAVP 98", &format!("a=rtpmap:98 EVS/16000\r\n{}", crypto(1, 'P')));
    caller.request(&mut world, "INVITE", &evs);
    assert_eq!(world.status(), 488, "no trunk lists it");
    caller.ack(&mut world, "");
    // Both list this one: the partner may have it after all.
    caller.request(&mut world, "INVITE", &g729);
    assert_eq!(names(&asked(&mut world))[0], "G729");
}

#[test]
fn an_offer_that_waits_is_answered_when_somebody_hangs_up_and_when_nobody_says_anything() {
    let mut world = world();
    let (mut caller, mut callee) = in_amr_alone(&mut world);
    caller.request(&mut world, "INVITE", &plain("0"));
    asked(&mut world);
    callee.caller.request(&mut world, "BYE", "");
    let (answers, sent) = split(&mut world);
    let codes: Vec<_> = answers.iter().map(|it| it.status.code()).collect();
    assert_eq!(codes, [200, 487]);
    assert!(sent.contains(&"BYE".to_owned()));
    caller.ack(&mut world, "");

    let mut world = self::world();
    let (mut caller, callee) = in_amr_alone(&mut world);
    caller.request(&mut world, "INVITE", &plain("0"));
    let reinvite = asked(&mut world);
    callee.caller.answer(&mut world, &reinvite, "100 Trying", "|");
    world.seconds(9);
    let codes: Vec<_> = split(&mut world).0.iter().map(|it| it.status.code()).collect();
    assert_eq!(codes, [100, 488]);
    caller.ack(&mut world, "");
    // It comes after all: then the caller is asked.
    callee.caller.answer(&mut world, &reinvite, "200 OK", &says(&callee, "0"));
    let sent = requests(&mut world);
    let methods: Vec<_> = sent.iter().map(|it| it.method.as_str()).collect();
    assert_eq!(methods, ["ACK", "INVITE"]);
    assert_eq!(names(&sent[1])[0], "PCMU");
}
