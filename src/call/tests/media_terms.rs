//! What of an offer is taken, and on which terms.

use base::Reason;
use media::{MediaEvent, Protection};
use rtp::sdes::Suite;
use sip::Name;

use super::bridging::{Callee, callee_answer, dial, responses};
use super::world::{Caller, POLICY, World, crypto, described, key, offer, sdp_of, setup};
use crate::{Input, Record};

/// What the edge answers to an offer that it refuses before it looks for ports.
fn refused(world: &mut World, caller: &mut Caller, body: &str) -> sip::Response {
    caller.request(world, "INVITE", body);
    if world.sent.is_empty() {
        world.reserve();
    }
    world.response()
}

#[test]
fn plain_rtp_is_refused_and_a_known_trunk_is_told_why() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let response = refused(&mut world, &mut caller, &described("RTP/AVP 8", "a=sendrecv"));
    assert_eq!(response.status.code(), 488);
    let warning = response.headers.text(Name::Warning).unwrap();
    assert_eq!(warning, "399 callgate \"policy.plaintext_media\"");
    assert_eq!(world.ends(), [Reason::PlaintextMedia]);
    let audited =
        world.records.iter().any(|it| matches!(it, Record::Refused { trunk: Some(_), .. }));
    assert!(audited);
    caller.ack(&mut world, "");
    world.assert_quiet();
}

#[test]
fn an_exempted_trunk_may_use_plain_rtp_and_only_from_its_networks() {
    let (mut world, mut caller) = (World::new(), Caller::lab());
    let ok = caller.call(&mut world, &described("RTP/AVP 0", "a=sendrecv"));
    assert_eq!(sdp_of(&ok.body).media[0].protocol.name(), "RTP/AVP");
    let Protection::Plain { from } = &world.plans[0].protection else { panic!("not plain") };
    assert_eq!(from[0].to_string(), "203.0.113.7/32");
}

#[test]
fn rtp_avp_with_a_crypto_line_counts_as_srtp() {
    // RFC 8643 section 3.1.
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let ok = caller.call(&mut world, &described("RTP/AVP 8", &crypto(1, 'P')));
    let answer = sdp_of(&ok.body);
    assert_eq!(answer.media[0].protocol.name(), "RTP/AVP");
    assert_eq!(answer.media[0].crypto().count(), 1);
    assert!(matches!(world.plans[0].protection, Protection::Srtp { .. }));
}

#[test]
fn gcm_is_preferred_and_a_line_with_an_mki_is_passed_over() {
    let gcm = |length: usize| format!("inline:{}", "A".repeat(length));
    let lines = [
        crypto(1, 'P'),
        format!("a=crypto:2 AEAD_AES_256_GCM {}=|2^20|1:4", gcm(59)),
        format!("a=crypto:3 AEAD_AES_128_GCM {}==", gcm(38)),
    ];
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let ok = caller.call(&mut world, &described("RTP/SAVP 8", &lines.join("\r\n")));
    let answer = sdp_of(&ok.body);
    let chosen: Vec<&str> = answer.media[0].crypto().collect();
    assert_eq!(chosen.len(), 1);
    assert!(chosen[0].starts_with("3 AEAD_AES_128_GCM inline:"), "{chosen:?}");
    assert!(!chosen[0].contains("AAAAAAAA"), "our key is ours");
    let Protection::Srtp { suite, .. } = &world.plans[0].protection else { panic!("not SRTP") };
    assert_eq!(*suite, Suite::AeadAes128Gcm);
}

#[test]
fn an_offer_whose_only_keys_cannot_be_used_is_refused() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let line = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{}|1:4", key('P'));
    let response = refused(&mut world, &mut caller, &described("RTP/SAVP 8", &line));
    assert_eq!(response.status.code(), 488);
    assert_eq!(world.ends(), [Reason::NoCommonCrypto]);
}

#[test]
fn other_media_lines_are_answered_with_port_0() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let body = format!("{}m=video 30002 RTP/SAVP 96\r\na=rtpmap:96 VP8/90000\r\n", offer());
    let ok = caller.call(&mut world, &body);
    let answer = sdp_of(&ok.body);
    let ports: Vec<u16> = answer.media.iter().map(|media| media.port).collect();
    assert_eq!(ports, [20_000, 0]);
}

#[test]
fn codecs_follow_the_trunk_and_an_offer_without_any_of_them_is_refused() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let response = refused(&mut world, &mut caller, &described("RTP/SAVP 18", &crypto(1, 'P')));
    assert_eq!(response.status.code(), 488);
    assert_eq!(world.ends(), [Reason::NoCommonCodec]);
}

#[test]
fn without_rtcp_mux_rtcp_gets_a_port_of_its_own() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let body = offer().replace("a=rtcp-mux\r\n", "");
    let ok = caller.call(&mut world, &body);
    assert!(world.needs[0].1.separate_rtcp);
    assert!(!sdp_of(&ok.body).media[0].has_rtcp_mux());
    assert_eq!(world.plans[0].remote_rtcp, "198.51.100.9:30001".parse().ok());

    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.call(&mut world, &offer());
    assert!(!world.needs[0].1.separate_rtcp);
    assert_eq!(world.plans[0].remote_rtcp, None);
}

#[test]
fn behind_nat_the_advertised_addresses_are_told_and_the_local_ones_bound() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let zone = "[defaults]\nzone = \"out\"\n[zone.out]\nmedia = \"10.20.0.9\"\n\
                media_advertise = \"203.0.113.5\"\nadvertise = \"sip.voice.example\"\n";
    world.input(Input::Reload(setup(&format!("{zone}{POLICY}"))));
    let ok = caller.call(&mut world, &offer());
    assert_eq!(world.needs[0].1.bind.to_string(), "10.20.0.9");
    let answer = sdp_of(&ok.body);
    let address = answer.connection_of(&answer.media[0]).unwrap().host.ip();
    assert_eq!(address, "203.0.113.5".parse().ok());
    assert!(ok.headers.text(Name::Contact).unwrap().contains("sip.voice.example"));
}

#[test]
fn an_advertised_address_of_the_other_family_is_not_told() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    let zone = "[defaults]\nzone = \"out\"\n[zone.out]\nmedia = \"10.20.0.9\"\n\
                media_advertise = \"2001:db8::5\"\n";
    world.input(Input::Reload(setup(&format!("{zone}{POLICY}"))));
    let ok = caller.call(&mut world, &offer());
    let answer = sdp_of(&ok.body);
    let address = answer.connection_of(&answer.media[0]).unwrap().host.ip();
    assert!(address.is_some_and(|address| address.is_ipv4()), "{address:?}");
}

#[test]
fn without_a_free_port_the_caller_may_try_again() {
    for (ports, reason) in [(true, Reason::NoMediaPort), (false, Reason::RelayFull)] {
        let (mut world, mut caller) = (World::new(), Caller::acme());
        caller.request(&mut world, "INVITE", &offer());
        world.media(MediaEvent::ReserveFailed { ports });
        let response = world.response();
        assert_eq!(response.status.code(), 503);
        assert!(response.headers.has(Name::RetryAfter));
        assert_eq!(world.ends(), [reason]);
        caller.follow(&response);
        caller.ack(&mut world, "");
        world.assert_quiet();
    }
}

#[test]
fn ports_that_never_come_do_not_keep_the_caller_waiting() {
    let (mut world, mut caller) = (World::new(), Caller::acme());
    caller.request(&mut world, "INVITE", &offer());
    world.seconds(6);
    let statuses: Vec<u16> = world
        .take()
        .iter()
        .map(|message| match message {
            sip::Message::Response(response) => response.status.code(),
            sip::Message::Request(request) => panic!("{request:?}"),
        })
        .collect();
    assert_eq!(statuses, [100, 503]);
    assert_eq!(world.ends(), [Reason::RelayFull]);
    // They come after all, and go back.
    world.released.clear();
    world.reserve();
    assert_eq!(world.released, [world.leg()]);
    world.assert_quiet();
}

/// RFC 3389.
#[test]
fn comfort_noise_is_taken_of_a_caller_only_where_the_callee_takes_it() {
    let has_noise = |body: &bytes::Bytes| sdp_of(body).media[0].has_comfort_noise();
    for (offered, answered) in [("0 13 101", "0 101"), ("0 13 101", "0 13 101"), ("0 101", "0 101")]
    {
        let mut world = World::new();
        let offer = described(&format!("RTP/SAVP {offered}"), &crypto(1, 'P'));
        dial(&mut world, "+442079460000", &offer);
        let callee = Callee::reached(&mut world, "beta");
        assert_eq!(has_noise(&callee.invite.body), offered.contains("13"), "as the caller offers");
        callee.accept(&mut world, &callee_answer(&callee, answered));
        // Else a caller that sends nothing but noise in its pauses would not be heard of.
        let ok = responses(&mut world).remove(0);
        assert_eq!(has_noise(&ok.body), answered.contains("13"), "{offered}, {answered}");
    }
}
