//! Stories of browsers that call: what they offer, and when they are heard.

use base::{Event, Reason};
use media::{DtlsBackend, DtlsRole, Handshake, MediaEvent, Protection};
use policy::Transport;
use rtp::Suite;
use sip::{Name, Response};

use super::world::{Caller, POLICY, World, direction, our_fingerprint, peer, sdp_of};
use crate::{Input, Record};

/// The trunk of browsers, in front of the other stories' policy.
pub(super) const BROWSERS: &str = r#"
[trunk.browsers]
from       = { browsers = true }
codecs     = ["opus", "g722", "pcma"]
recording  = "allowed"
transcript = "allowed"
dtmf       = ["rfc4733", "info"]

[[route]]
when    = { called = { exact = "alice" } }
send_to = { account = "alice" }

[[route]]
when    = { called = { prefix = "user-" } }
send_to = { accounts = true }
"#;

pub(super) const CHROME: &str = include_str!("../../sdp/testdata/chrome.sdp");
const CHROME_WITH_OTHERS: &str = include_str!("../../sdp/testdata/chrome_with_other_lines.sdp");
pub(super) const FIREFOX: &str = include_str!("../../sdp/testdata/firefox.sdp");
const SAFARI: &str = include_str!("../../sdp/testdata/safari.sdp");

pub(super) fn world() -> World {
    World::with_policy(&format!("{BROWSERS}{POLICY}"))
}

/// A browser that has come by WHIP.
pub(super) fn whip() -> Caller {
    browser(Transport::Whip, 11)
}

/// A browser with SIP.js or JsSIP.
pub(super) fn wss(flow: u64) -> Caller {
    let mut caller = browser(Transport::Wss, flow);
    caller.contact = "<sip:k3v9q2@4f7d0a1b2c3e.invalid;transport=ws;ob>".to_owned();
    caller
}

fn browser(transport: Transport, flow: u64) -> Caller {
    Caller::new("browsers", peer("192.0.2.33:53124", flow, transport), "browser")
}

pub(super) fn body(description: &str) -> String {
    format!("application/sdp|{}", description.replace('\n', "\r\n"))
}

/// The handshake of the last plan.
pub(super) fn handshake(world: &World) -> &Handshake {
    match &world.plans.last().expect("a plan").protection {
        Protection::Dtls(handshake) => handshake,
        other => panic!("{other:?}"),
    }
}

pub(super) fn secured() -> MediaEvent {
    MediaEvent::Secured { suite: Suite::AeadAes128Gcm }
}

fn attribute(response: &Response, name: &str) -> Option<String> {
    let session = sdp_of(&response.body);
    session.attribute_of(&session.media[0], name).map(str::to_owned)
}

/// The words for the call's protection that were stored, in order.
fn protections(world: &World) -> Vec<&'static str> {
    let stored = world.records.iter().filter_map(|record| match record {
        Record::Answered { protection, .. } | Record::Secured { protection, .. } => {
            Some(*protection)
        }
        _ => None,
    });
    stored.collect()
}

#[test]
fn a_browser_is_answered_with_our_certificate_and_where_we_are_found() {
    let (mut world, mut caller) = (world(), whip());
    let ok = caller.ring(&mut world, &body(CHROME));
    let (_, need) = *world.needs.last().unwrap();
    assert!(need.dtls && !need.separate_rtcp);

    let session = sdp_of(&ok.body);
    let line = &session.media[0];
    assert!(session.attribute("ice-lite").is_some() && session.bundle().eq(["0"]));
    assert_eq!((line.port, line.protocol.name()), (20_000, "UDP/TLS/RTP/SAVPF"));
    assert_eq!((line.mid(), line.has_rtcp_mux()), (Some("0"), true));
    assert_eq!(line.attribute("setup"), Some("passive"));
    assert_eq!(line.attribute("fingerprint"), Some(our_fingerprint().to_string().as_str()));
    let candidates: Vec<&str> = line.candidates().collect();
    assert_eq!(
        candidates,
        [
            "1 1 UDP 2130706431 10.20.0.5 20000 typ host",
            "2 1 TCP 1520435199 10.20.0.5 9443 typ host tcptype passive",
        ]
    );
    assert!(line.attribute("end-of-candidates").is_some());
    assert!(line.attribute("msid").is_some_and(|it| !it.starts_with('-')));

    let agreed = handshake(&world);
    assert_eq!(agreed.role, DtlsRole::Passive);
    assert_eq!(agreed.remote.ufrag, "kQ7+");
    assert_eq!(line.attribute("ice-ufrag"), Some(agreed.local.ufrag.as_str()));
    assert_eq!(line.attribute("ice-pwd"), Some(agreed.local.pwd.expose().as_str()));
    let theirs = CHROME.lines().find_map(|it| it.strip_prefix("a=fingerprint:")).unwrap();
    assert_eq!(agreed.peer.to_string(), theirs);
    let plan = world.plans.last().unwrap();
    assert!(plan.remote.ip().is_unspecified() && plan.remote_rtcp.is_none());
    assert!(plan.direction.send && plan.direction.receive, "0.0.0.0 holds nothing here");
    assert_eq!(plan.send.unwrap().payload_type, 111);
    assert_eq!(plan.telephone_event.unwrap().clock_rate, 48_000);
}

#[test]
fn every_browsers_offer_is_answered_on_its_audio_line_alone() {
    for (offer, opus, others) in
        [(CHROME, 111, 0), (CHROME_WITH_OTHERS, 111, 3), (FIREFOX, 109, 0), (SAFARI, 111, 0)]
    {
        let (mut world, mut caller) = (world(), wss(11));
        let ok = caller.ring(&mut world, &body(offer));
        let session = sdp_of(&ok.body);
        assert_eq!(session.media.len(), 1 + others);
        assert!(session.media[0].is_open_audio() && session.bundle().eq(["0"]));
        assert!(session.media[1..].iter().all(|line| line.port == 0 && line.mid().is_some()));
        assert_eq!(world.plans.last().unwrap().send.unwrap().payload_type, opus);
        assert_eq!(handshake(&world).role, DtlsRole::Passive);
    }
}

#[test]
fn what_we_say_to_a_browser_names_wss() {
    for mut caller in [whip(), wss(11)] {
        let mut world = world();
        let ok = caller.call(&mut world, &body(CHROME));
        assert_eq!(ok.headers.text(Name::Contact), Some("<sip:10.20.0.5:5061;transport=wss>"));
        world.hang_up(Reason::AgentHungUp);
        let bye = world.request();
        assert!(bye.headers.text(Name::Via).unwrap().starts_with("SIP/2.0/WSS "));
    }
}

#[test]
fn the_voice_agent_speaks_when_the_call_is_confirmed_and_secured() {
    for is_quick in [false, true] {
        let (mut world, mut caller) = (world(), whip());
        caller.ring(&mut world, &body(CHROME));
        if is_quick {
            world.media(secured());
            assert!(world.started.is_empty(), "not before the ACK");
            caller.ack(&mut world, "");
        } else {
            caller.ack(&mut world, "");
            assert!(world.started.is_empty(), "nobody would hear it");
            world.media(secured());
        }
        assert_eq!(world.started.len(), 1);
        assert_eq!(protections(&world), ["DTLS-SRTP", "DTLS-SRTP AEAD_AES_128_GCM"]);
        assert!(world.events.iter().any(|event| event.name() == "media.secured"));
        // Another handshake of the same leg starts nothing anew.
        world.media(secured());
        assert_eq!(world.started.len(), 1);
        caller.request(&mut world, "BYE", "");
        assert_eq!(world.status(), 200);
        world.assert_quiet();
    }
}

#[test]
fn a_handshake_that_fails_or_a_path_that_is_lost_ends_the_call_with_its_reason() {
    for (event, reason) in [
        (MediaEvent::Unsecured { code: "dtls.fingerprint" }, Reason::Unsecured),
        (MediaEvent::PathLost, Reason::PathLost),
    ] {
        let (mut world, mut caller) = (world(), whip());
        caller.call(&mut world, &body(CHROME));
        world.media(event);
        let failed = Event::MediaUnsecured { leg: world.leg(), code: "dtls.fingerprint" };
        assert_eq!(world.events.contains(&failed), reason == Reason::Unsecured);
        let bye = world.request();
        assert!(bye.headers.text(Name::Reason).unwrap().contains(reason.code()));
        caller.answer(&mut world, &bye, "200 OK", "");
        assert_eq!(world.ends(), [reason]);
        assert!(world.started.is_empty());
        world.assert_quiet();
    }
}

#[test]
fn a_browser_that_waits_for_the_handshake_has_us_begin_it() {
    let (mut world, mut caller) = (world(), whip());
    let passive = CHROME.replace("a=setup:actpass", "a=setup:passive");
    let ok = caller.call(&mut world, &body(&passive));
    assert_eq!(attribute(&ok, "setup").as_deref(), Some("active"));
    assert_eq!(handshake(&world).role, DtlsRole::Active);
    // A later offer that leaves it open keeps the association, and so the roles.
    caller.request(&mut world, "INVITE", &body(CHROME));
    let ok = world.response();
    assert_eq!(attribute(&ok, "setup").as_deref(), Some("active"));
    assert_eq!(handshake(&world).role, DtlsRole::Active);
}

#[test]
fn a_later_offer_keeps_our_credentials_unless_it_restarts_ice() {
    let (mut world, mut caller) = (world(), wss(11));
    caller.call(&mut world, &body(CHROME));
    world.media(secured());
    let first = handshake(&world).clone();

    caller.request(&mut world, "INVITE", &body(&CHROME.replace("sendrecv", "sendonly")));
    let ok = world.response();
    caller.ack(&mut world, "");
    assert_eq!(direction(&ok.body), "recvonly");
    assert_eq!(*handshake(&world), first);
    assert_eq!(world.held, [true]);

    let restart = CHROME.replace("kQ7+", "zzZ9").replace("mB2xTqv0rLZc9/", "nC3yUrw1sMAd0/");
    caller.request(&mut world, "INVITE", &body(&restart));
    let ok = world.response();
    caller.ack(&mut world, "");
    let second = handshake(&world);
    assert_eq!(second.remote.ufrag, "zzZ9");
    assert_ne!(second.local, first.local);
    assert_eq!((second.role, &second.peer), (first.role, &first.peer));
    assert_eq!(attribute(&ok, "ice-ufrag").as_ref(), Some(&second.local.ufrag));
    assert_eq!(world.held, [true, false]);
    assert_eq!(world.started.len(), 1);
}

#[test]
fn an_offer_that_proves_nothing_or_finds_nobody_is_refused_with_its_reason() {
    let fingerprint = CHROME.lines().find(|it| it.starts_with("a=fingerprint:")).unwrap();
    let sha1 = format!("a=fingerprint:sha-1 {}", ["AB"; 20].join(":"));
    let cases = [
        (CHROME.replace(fingerprint, &sha1), 488, "media.weak_fingerprint"),
        (CHROME.replace(fingerprint, "a=fingerprint:sha-256 AB:CD"), 400, "media.sdp_malformed"),
        (CHROME.replace("a=ice-ufrag:kQ7+\n", ""), 488, "media.no_ice"),
        (CHROME.replace("a=group:BUNDLE 0", "a=ice-lite"), 488, "media.no_ice"),
        (CHROME.replace("a=rtcp-mux\n", ""), 488, "media.no_rtcp_mux"),
        (CHROME.replace(fingerprint, "a=tool:none"), 488, "media.no_common_crypto"),
    ];
    for (offer, status, reason) in cases {
        let (mut world, mut caller) = (world(), whip());
        caller.request(&mut world, "INVITE", &body(&offer));
        world.reserve();
        let refusal = world.response();
        assert_eq!(refusal.status.code(), status, "{reason}");
        assert!(refusal.headers.text(Name::Warning).unwrap().contains(reason));
        caller.ack(&mut world, "");
        world.assert_quiet();
    }
}

#[test]
fn a_refused_later_offer_leaves_the_call_as_it_was() {
    let (mut world, mut caller) = (world(), wss(11));
    caller.call(&mut world, &body(CHROME));
    let before = handshake(&world).clone();
    caller.request(&mut world, "INVITE", &body(&CHROME.replace("a=rtcp-mux\n", "")));
    assert_eq!(world.status(), 488);
    caller.ack(&mut world, "");
    caller.request(&mut world, "INVITE", &body(CHROME));
    assert_eq!(world.status(), 200);
    assert_eq!(*handshake(&world), before);
}

#[test]
fn a_browser_that_wants_our_offer_gets_one_that_it_can_answer() {
    let (mut world, mut caller) = (world(), wss(11));
    let ok = caller.ring(&mut world, "");
    let (_, need) = *world.needs.last().unwrap();
    assert!(need.dtls && !need.separate_rtcp);
    let ours = sdp_of(&ok.body);
    assert_eq!(ours.media[0].protocol.name(), "UDP/TLS/RTP/SAVPF");
    assert!(ours.attribute("ice-lite").is_some() && ours.bundle().eq(["0"]));
    assert_eq!(ours.media[0].attribute("setup"), Some("actpass"));
    assert!(ours.media[0].crypto().next().is_none(), "no key is shown");
    let answer = answer_of(CHROME, "active");
    caller.ack(&mut world, &answer);
    assert_eq!(handshake(&world).role, DtlsRole::Passive);
    assert!(world.started.is_empty());
    world.media(secured());
    assert_eq!(world.started.len(), 1);
    let offered = ours.media[0].attribute("ice-ufrag");
    assert_eq!(offered, Some(handshake(&world).local.ufrag.as_str()));
}

/// What the browser answers to an offer of ours that names Opus as 96.
pub(super) fn answer_of(browser: &str, setup: &str) -> String {
    let answer = browser.replace("a=setup:actpass", &format!("a=setup:{setup}"));
    let line = "UDP/TLS/RTP/SAVPF 96 101";
    let answer = answer.replace("UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126", line);
    body(&answer.replace("rtpmap:111 opus", "rtpmap:96 opus"))
}

#[test]
fn a_session_of_whip_is_hung_up_over_its_flow() {
    let (mut world, mut caller) = (world(), whip());
    caller.call(&mut world, &body(CHROME));
    world.input(Input::HangUp { call: world.leg().call, reason: Reason::AgentHungUp });
    let (flow, _) = world.sent.last().unwrap();
    assert_eq!(*flow, caller.peer.flow);
}

#[test]
fn the_policy_chooses_the_library_of_the_handshakes() {
    for (line, backend) in
        [("", DtlsBackend::Dimpl), ("dtls_library = \"webrtc-dtls\"\n", DtlsBackend::WebrtcDtls)]
    {
        let browsers = BROWSERS.replace("dtmf ", &format!("{line}dtmf "));
        let mut world = World::with_policy(&format!("{browsers}{POLICY}"));
        whip().ring(&mut world, &body(CHROME));
        assert_eq!(handshake(&world).backend, backend);
    }
}

#[test]
fn a_browser_whose_line_has_keys_as_well_is_answered_by_handshake() {
    // RFC 4568 keys beside a fingerprint, as some libraries write them for both kinds of servers.
    let key =
        format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}\na=fingerprint:", "P".repeat(40));
    let offer = CHROME.replace("UDP/TLS/RTP/SAVPF", "RTP/SAVPF").replace("a=fingerprint:", &key);
    let (mut world, mut caller) = (world(), wss(11));
    let ok = caller.ring(&mut world, &body(&offer));
    assert!(world.needs.last().unwrap().1.dtls);
    assert_eq!(handshake(&world).role, DtlsRole::Passive);
    let line = &sdp_of(&ok.body).media[0];
    assert!(line.crypto().next().is_none() && line.attribute("fingerprint").is_some());
}

#[test]
fn an_audio_line_behind_another_one_of_its_bundle_is_the_one_that_is_answered() {
    let (mut world, mut caller) = (world(), wss(11));
    let (head, audio) = CHROME.split_once("m=audio").unwrap();
    let shared: Vec<_> = audio.lines().skip(1).filter(|it| it.contains("ice-")).collect();
    let shared = shared.join("\n");
    let fingerprint = audio.lines().find(|it| it.starts_with("a=fingerprint")).unwrap();
    let video = format!(
        "m=video 9 UDP/TLS/RTP/SAVPF 96\nc=IN IP4 0.0.0.0\na=mid:v\na=rtcp-mux\na=setup:actpass\n\
         {shared}\n{fingerprint}\na=rtpmap:96 VP8/90000\n"
    );
    let own = |it: &&str| !it.contains("ice-") && !it.starts_with("a=fingerprint");
    let audio: Vec<_> = audio.lines().filter(own).collect();
    let port = audio[0].split_whitespace().next().unwrap();
    let audio = audio.join("\n").replacen(port, "0", 1);
    let head = head.replace("BUNDLE 0", "BUNDLE v 0");
    let offer = format!("{head}{video}m=audio {}\na=bundle-only\n", audio.trim());
    let ok = caller.ring(&mut world, &body(&offer));
    let session = sdp_of(&ok.body);
    assert!(session.media[0].port == 0 && session.media[1].is_open_audio());
    assert!(session.bundle().eq(["0"]));
    assert_eq!(handshake(&world).remote.ufrag, "kQ7+");
}
