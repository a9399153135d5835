//! Stories of codecs that nobody here decodes: both parties have them or they are not spoken.

use media::Passage;
use sip::{Message, Name};

use super::bridging::{Callee, bridge, callee_answer, dial, plans, requests};
use super::world::{Caller, POLICY, World, crypto, described, sdp_of};

/// Both trunks let AMR-WB and G.729 through; one of them prefers it.
pub(super) fn world() -> World {
    let policy = POLICY
        .replace(r#"["opus", "g722", "pcma", "pcmu"]"#, r#"["amr-wb", "g729", "pcma", "pcmu"]"#)
        .replace(r#"["pcmu", "g722"]"#, r#"["amr-wb", "g729", "pcmu"]"#);
    World::with_policy(&policy)
}

/// What a mobile network offers: two layouts, and perhaps something for others.
pub(super) fn mobile(formats: &str) -> String {
    let lines = "a=rtpmap:96 AMR-WB/16000\r\n\
                 a=fmtp:96 octet-align=1; mode-set=0,1,2; x-site=10.7\r\n\
                 a=rtpmap:97 AMR-WB/16000/1\r\na=rtpmap:102 telephone-event/16000\r\n";
    described(&format!("RTP/SAVP {formats}"), &format!("{lines}{}", crypto(1, 'P')))
}

/// The callee's answer, with the lines of its formats.
pub(super) fn answer(callee: &Callee, formats: &str, lines: &str) -> String {
    let answer = callee_answer(callee, formats);
    format!("{}\r\n{lines}", answer.trim_end())
}

/// The payload type under which the edge offers an aligned AMR-WB.
fn aligned(callee: &Callee) -> u8 {
    let formats = sdp_of(&callee.invite.body).media[0].payload_formats();
    let is_aligned = |it: &&sdp::PayloadFormat| {
        it.name == "AMR-WB" && it.fmtp.as_deref() == Some("octet-align=1;mode-set=0,1,2")
    };
    formats.iter().find(is_aligned).expect("offered on, without what is no parameter").payload_type
}

/// Lets the callee answer; returns the caller's 200.
fn answered(world: &mut World, caller: &mut Caller, callee: &Callee, with: &str) -> sdp::Session {
    callee.accept(world, with);
    let sent = world.take();
    let [Message::Request(_), Message::Response(ok)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!(ok.status.code(), 200);
    caller.follow(ok);
    caller.ack(world, "");
    sdp_of(&ok.body)
}

/// A call in AMR-WB, with PCMU agreed on beside it.
fn in_amr(world: &mut World) -> (Caller, Callee) {
    let mut caller = dial(world, "+442079460000", &mobile("96 97 0 102"));
    let callee = Callee::reached(world, "beta");
    let number = aligned(&callee);
    let lines =
        format!("a=rtpmap:{number} AMR-WB/16000\r\na=fmtp:{number} mode-set=0,1,2;octet-align=1");
    let with = answer(&callee, &format!("{number} 0"), &lines);
    let ok = answered(world, &mut caller, &callee, &with);
    assert_eq!(ok.media[0].formats, ["96", "0", "102"]);
    let fmtp = ok.media[0].attributes("fmtp").next();
    assert_eq!(fmtp, Some("96 octet-align=1;mode-set=0,1,2"));
    (caller, callee)
}

#[test]
fn a_codec_that_both_have_is_offered_on_and_goes_through() {
    let mut world = world();
    let (_, callee) = in_amr(&mut world);
    let number = aligned(&callee);
    let (a, b) = plans(&world);
    assert_eq!(bridge(&a).audio, [(0, Passage::Forward(0)), (96, Passage::Forward(number))]);
    assert_eq!(bridge(&b).audio, [(0, Passage::Forward(0)), (number, Passage::Forward(96))]);
    assert_eq!(a.opaque[0].codec, b.opaque[0].codec);
}

#[test]
fn a_callee_without_it_is_spoken_to_in_another_and_the_caller_too() {
    let mut world = world();
    let mut caller = dial(&mut world, "+442079460000", &mobile("96 97 8 0 102"));
    let callee = Callee::reached(&mut world, "beta");
    let with = callee_answer(&callee, "0 101");
    let ok = answered(&mut world, &mut caller, &callee, &with);
    assert!(!ok.media[0].formats.iter().any(|it| it == "96" || it == "97"));
    let (a, b) = plans(&world);
    assert_eq!((a.opaque.len(), b.opaque.len()), (0, 0));
    assert_eq!(bridge(&a).audio[0], (0, Passage::Forward(0)));
}

#[test]
fn a_caller_that_has_nothing_else_is_answered_with_nothing_else() {
    let mut world = world();
    let mut caller = dial(&mut world, "+442079460000", &mobile("97 102"));
    let callee = Callee::reached(&mut world, "beta");
    let offered = sdp_of(&callee.invite.body).media[0].payload_formats();
    let names: Vec<_> = offered.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["AMR-WB", "telephone-event"], "PCMU could not be carried over");
    let number = offered[0].payload_type;
    let with = answer(&callee, &format!("{number}"), &format!("a=rtpmap:{number} AMR-WB/16000"));
    let ok = answered(&mut world, &mut caller, &callee, &with);
    assert_eq!(ok.media[0].formats, ["97", "102"]);
    let (a, b) = plans(&world);
    assert_eq!((a.send, b.send), (None, None));
    assert_eq!(bridge(&a).audio, [(97, Passage::Forward(number))]);
}

#[test]
fn a_layout_that_the_caller_does_not_have_is_no_answer() {
    let mut world = world();
    let mut caller = dial(&mut world, "+442079460000", &mobile("96 102"));
    let callee = Callee::reached(&mut world, "beta");
    let number = aligned(&callee);
    let with = answer(&callee, &format!("{number}"), &format!("a=rtpmap:{number} AMR-WB/16000"));
    callee.accept(&mut world, &with);
    let status = world.take().into_iter().find_map(|message| match message {
        Message::Response(response) => Some(response.status.code()),
        Message::Request(_) => None,
    });
    assert_eq!(status, Some(488));
    caller.ack(&mut world, "");
}

#[test]
fn a_voice_agent_is_never_spoken_to_in_it() {
    let mut world = world();
    let mut caller = Caller::acme();
    caller.target = "sip:reception@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &mobile("96 97 102"));
    let leg = world.needs[0].0;
    super::bridging::reserve(&mut world, leg, 20_000);
    assert_eq!(world.status(), 488);

    let (mut world, mut caller) = (self::world(), Caller::acme());
    let ok = caller.call(&mut world, &mobile("96 97 8 102"));
    assert_eq!(sdp_of(&ok.body).media[0].formats, ["8", "102"]);
}

#[test]
fn a_trunk_that_does_not_list_it_is_not_offered_it() {
    let policy = POLICY.replace(r#"["opus", "g722", "pcma", "pcmu"]"#, r#"["amr-wb", "pcmu"]"#);
    let mut world = World::with_policy(&policy);
    dial(&mut world, "+442079460000", &mobile("96 0 102"));
    let invite = Callee::reached(&mut world, "beta").invite;
    let formats = sdp_of(&invite.body).media[0].payload_formats();
    assert!(formats.iter().all(|format| format.name != "AMR-WB"), "{formats:?}");
}

#[test]
fn a_party_that_changes_to_another_codec_takes_the_other_one_with_it() {
    let mut world = world();
    let (mut caller, callee) = in_amr(&mut world);
    caller.request(&mut world, "INVITE", &described("RTP/SAVP 0 101", &crypto(1, 'P')));
    let sent = requests(&mut world);
    let [reinvite] = &sent[..] else { panic!("{sent:#?}") };
    caller.ack(&mut world, "");
    let formats = sdp_of(&reinvite.body).media[0].payload_formats();
    assert!(formats.iter().all(|format| format.name != "AMR-WB"), "{formats:?}");
    let mut with = callee_answer(&callee, "0 101");
    with = super::bridging::body(&with);
    callee.caller.answer(&mut world, reinvite, "200 OK", &with);
    let (a, b) = plans(&world);
    assert!(a.opaque.is_empty() && b.opaque.is_empty());
    assert_eq!(bridge(&b).audio, [(0, Passage::Forward(0))]);
    assert!(requests(&mut world).iter().all(|it| it.method.as_str() == "ACK"), "and that is all");
}

/// A call without an offer, up to the caller's 200: what the callee offers is in it.
fn late(world: &mut World, offered: &str) -> (Caller, Callee, sip::Response) {
    let mut caller = dial(world, "+442079460000", "");
    let callee = Callee::reached(world, "beta");
    assert!(callee.invite.body.is_empty(), "only the parties know what these are like");
    assert!(!callee.invite.headers.has_token(Name::Supported, "100rel"));
    callee.answer(world, "180 Ringing", "tag-callee", "|");
    assert_eq!(world.status(), 180);
    callee.accept(world, offered);
    let sent = world.take();
    let [Message::Response(ok)] = &sent[..] else { panic!("no ACK yet: {sent:#?}") };
    assert_eq!(ok.status.code(), 200);
    caller.follow(ok);
    (caller, callee, ok.clone())
}

/// The caller's answer to our offer: these formats under our first suite.
fn chosen(ok: &sip::Response, formats: &str, lines: &str) -> String {
    let line = sdp_of(&ok.body).media[0].crypto().next().unwrap().to_owned();
    let suite = line.split(' ').nth(1).unwrap().to_owned();
    let key = if suite.contains("256") { "C".repeat(58) + "A=" } else { "C".repeat(40) };
    described(&format!("RTP/SAVP {formats}"), &format!("{lines}a=crypto:1 {suite} inline:{key}"))
}

#[test]
fn a_late_offer_is_the_callees_and_its_ack_carries_what_the_caller_chose() {
    let mut world = world();
    let (mut caller, callee, ok) = late(&mut world, &mobile("96 97 0 102"));
    let formats = sdp_of(&ok.body).media[0].payload_formats();
    let aligned =
        formats.iter().find(|it| it.fmtp.as_deref() == Some("octet-align=1;mode-set=0,1,2"));
    let number = aligned.expect("offered on as the callee described it").payload_type;
    callee.accept(&mut world, &mobile("96 97 0 102"));
    assert!(world.take().is_empty(), "its 2xx comes again, and still waits");
    callee.caller.clone().request(&mut world, "INVITE", &mobile("0"));
    assert_eq!(world.status(), 491);

    let lines = format!(
        "a=rtpmap:{number} AMR-WB/16000\r\na=fmtp:{number} octet-align=1;mode-set=0,1,2\r\n"
    );
    caller.ack(&mut world, &chosen(&ok, &format!("{number} 101"), &lines));
    let ack = world.request();
    assert_eq!(ack.method.as_str(), "ACK");
    let answered = sdp_of(&ack.body);
    assert_eq!(answered.media[0].formats, ["96", "102"]);
    assert!(answered.media[0].crypto().next().is_some());
    let (a, b) = plans(&world);
    assert_eq!(bridge(&a).audio, [(number, Passage::Forward(96))]);
    assert_eq!(bridge(&b).audio, [(96, Passage::Forward(number))]);
    callee.accept(&mut world, &mobile("96 97 0 102"));
    assert_eq!(world.request().body, ack.body, "each ACK says the same");
    caller.request(&mut world, "BYE", "");
    assert_eq!(requests(&mut world)[0].method.as_str(), "BYE");
    world.assert_quiet();
}

#[test]
fn a_caller_that_chooses_what_is_decoded_from_a_late_offer_gets_that() {
    let mut world = world();
    let (mut caller, _, ok) = late(&mut world, &mobile("96 0 102"));
    caller.ack(&mut world, &chosen(&ok, "0 101", ""));
    assert_eq!(sdp_of(&world.request().body).media[0].formats, ["0", "102"]);
    let (a, b) = plans(&world);
    assert!(a.opaque.is_empty() && b.opaque.is_empty());
    assert_eq!(bridge(&a).audio[0], (0, Passage::Forward(0)));
}

#[test]
fn a_callee_that_waits_for_its_ack_gets_one_and_a_bye_where_nothing_comes_of_it() {
    let mut world = world();
    let (_, _, _) = late(&mut world, &mobile("96 102"));
    world.seconds(33);
    let sent: Vec<_> =
        requests(&mut world).iter().map(|it| it.method.as_str().to_owned()).collect();
    assert_eq!(sent, ["BYE", "ACK", "BYE"], "the caller never acknowledged");
    assert_eq!(world.ends(), [base::Reason::NoAck]);
    world.assert_quiet();

    // What it offers its caller may not have.
    let mut world = self::world();
    dial(&mut world, "+442079460000", "");
    let callee = Callee::reached(&mut world, "beta");
    let evs = described("RTP/SAVP 98", &format!("a=rtpmap:98 EVS/16000\r\n{}", crypto(1, 'P')));
    callee.accept(&mut world, &evs);
    let sent = world.take();
    let said = |message: &Message| match message {
        Message::Request(request) => request.method.as_str().to_owned(),
        Message::Response(response) => response.status.code().to_string(),
    };
    let said: Vec<_> = sent.iter().map(said).collect();
    assert_eq!(said, ["488", "ACK", "BYE"]);
    world.assert_quiet();
}

#[test]
fn a_re_invite_without_an_offer_is_offered_what_goes_through_now() {
    let mut world = world();
    let (mut caller, _) = in_amr(&mut world);
    caller.request(&mut world, "INVITE", "");
    let ok = world.response();
    let formats = sdp_of(&ok.body).media[0].payload_formats();
    let is_amr = |it: &&sdp::PayloadFormat| it.name == "AMR-WB";
    assert_eq!(formats.iter().find(is_amr).map(|it| it.payload_type), Some(96));
}
