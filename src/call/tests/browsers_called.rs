//! Stories of accounts that are called.

use base::{LegId, Personal, Reason};
use media::{DtlsRole, MediaEvent, Protection};
use policy::Transport;
use sip::{Name, Request};

use super::browsers::{CHROME, answer_of, body, handshake, secured, world};
use super::world::{Caller, World, crypto, described, offer, offer_with, peer, sdp_of};
use crate::Input;

const CONTACT: &str = "sip:k3v9q2@4f7d0a1b2c3e.invalid;transport=ws";

/// A registered softphone that the edge has called.
pub(super) struct Phone {
    caller: Caller,
    pub(super) invite: Request,
    pub(super) leg: LegId,
}

impl Phone {
    /// The edge finds its flow and its ports.
    pub(super) fn rung(world: &mut World, flow: u64) -> Self {
        let (leg, ..) = world.connects.last().expect("a flow was asked for").clone();
        let peer = peer("192.0.2.33:53124", flow, Transport::Wss);
        let contact = Some(Personal::new(CONTACT.to_owned()));
        world.input(Input::Connected { leg, peer: peer.clone(), contact });
        world.reserve();
        let invite = world.request();
        let mut caller = Caller::new("browsers", peer, "phone");
        caller.call_id = invite.headers.call_id().unwrap().to_owned();
        caller.to_tag = invite.headers.from_tag().unwrap();
        caller.contact = format!("<{CONTACT}>");
        (caller.cseq, caller.tag) = (700, "tag-phone".to_owned());
        Self { caller, invite, leg }
    }

    /// Takes the call.
    pub(super) fn accept(&self, world: &mut World, setup: &str) {
        self.say(world, &self.invite, "200 OK", &answer_of(CHROME, setup));
    }

    /// Answers a request of the edge with a description.
    pub(super) fn say(
        &self,
        world: &mut World,
        request: &Request,
        status: &str,
        description: &str,
    ) {
        let mut request = request.clone();
        if request.headers.to_tag().is_none() {
            let to = format!("{};tag=tag-phone", request.headers.text(Name::To).unwrap());
            request.headers.set(Name::To, to);
        }
        let more = match description.split_once('|') {
            Some((kind, body)) => format!("Content-Type: {kind}\r\n|{body}"),
            None => String::new(),
        };
        self.caller.answer(world, &request, status, &more);
    }
}

/// A carrier calls an account, which answers.
pub(super) fn up(world: &mut World, setup: &str) -> (Caller, Phone) {
    let name = format!("carrier-{}", world.needs.len());
    let mut caller = Caller::new("acme", Caller::acme().peer, &name);
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(world, "INVITE", &offer());
    world.reserve();
    let phone = Phone::rung(world, 40);
    phone.accept(world, setup);
    let sent = world.take();
    let ok = sent.iter().find_map(|it| match it {
        sip::Message::Response(response) => Some(response),
        sip::Message::Request(_) => None,
    });
    caller.follow(ok.expect("the caller is answered"));
    caller.ack(world, "");
    (caller, phone)
}

#[test]
fn an_account_is_called_at_its_contact_with_an_offer_for_browsers() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let (_, uri, transport) = world.connects.last().unwrap().clone();
    assert_eq!(
        (uri.as_str(), transport),
        ("sip:alice@accounts.invalid;transport=wss", Transport::Wss)
    );
    world.reserve();
    let phone = Phone::rung(&mut world, 40);
    let (_, need) = *world.needs.last().unwrap();
    assert!(need.dtls && !need.separate_rtcp);
    assert_eq!(phone.invite.uri.as_str(), CONTACT);
    assert_eq!(phone.invite.headers.text(Name::To), Some("<sip:alice@accounts.invalid>"));
    assert!(phone.invite.headers.text(Name::Via).unwrap().starts_with("SIP/2.0/WSS "));
    assert!(phone.invite.headers.text(Name::Contact).unwrap().contains("transport=wss"));
    let ours = sdp_of(&phone.invite.body);
    assert_eq!(ours.media[0].protocol.name(), "UDP/TLS/RTP/SAVPF");
    assert_eq!(ours.media[0].attribute("setup"), Some("actpass"));
    assert!(ours.media[0].attribute("rtcp").is_none(), "RTCP has no port of its own");
}

#[test]
fn the_account_that_the_call_names_is_dialled() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.target = "sip:user-%5dbob@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    let (_, uri, _) = world.connects.last().unwrap().clone();
    assert_eq!(uri, "sip:user-%5Dbob@accounts.invalid;transport=wss");
}

#[test]
fn a_carrier_and_a_browser_talk_each_with_its_own_protection() {
    for (setup, role) in [("active", DtlsRole::Passive), ("passive", DtlsRole::Active)] {
        let mut world = world();
        let (mut caller, phone) = up(&mut world, setup);
        let of = |leg| world.plans.iter().rev().find(|plan| plan.leg == leg).unwrap();
        let browsers = of(phone.leg);
        assert!(matches!(&browsers.protection, Protection::Dtls(it) if it.role == role));
        let carriers = of(LegId { index: 0, ..phone.leg });
        assert!(matches!(carriers.protection, Protection::Srtp { .. }));
        world.input(Input::Media { leg: phone.leg, event: secured() });
        caller.request(&mut world, "BYE", "");
        let bye = world.take().into_iter().find_map(|it| match it {
            sip::Message::Request(request) => Some(request),
            sip::Message::Response(_) => None,
        });
        let bye = bye.expect("the browser is told");
        assert_eq!(bye.uri.host().map(ToString::to_string), Some("192.0.2.33".to_owned()));
        phone.say(&mut world, &bye, "200 OK", "");
        world.assert_quiet();
    }
}

#[test]
fn an_answer_that_leaves_the_roles_open_or_wants_a_port_for_rtcp_is_no_answer() {
    for (answer, reason) in [
        (answer_of(CHROME, "actpass"), Reason::SdpMalformed),
        (answer_of(CHROME, "holdconn"), Reason::SdpMalformed),
        (answer_of(&CHROME.replace("a=rtcp-mux\n", ""), "active"), Reason::NoRtcpMux),
        (described("RTP/SAVP 0", &crypto(1, 'P')), Reason::SdpMalformed),
    ] {
        let (mut world, mut caller) = (world(), Caller::acme());
        caller.target = "sip:alice@edge.example".to_owned();
        caller.request(&mut world, "INVITE", &offer());
        world.reserve();
        let phone = Phone::rung(&mut world, 40);
        let invite = phone.invite.clone();
        phone.say(&mut world, &invite, "200 OK", &answer);
        let requests = world.take();
        let says_bye = requests
            .iter()
            .any(|it| matches!(it, sip::Message::Request(it) if it.method == sip::Method::Bye));
        assert!(says_bye);
        assert_eq!(world.ends(), [reason]);
    }
}

#[test]
fn a_hold_by_the_carrier_keeps_the_browsers_path_and_role() {
    let mut world = world();
    let (mut caller, phone) = up(&mut world, "active");
    world.input(Input::Media { leg: phone.leg, event: secured() });
    let before = handshake(&world).clone();
    for (word, theirs) in [("sendonly", "recvonly"), ("sendrecv", "sendrecv")] {
        caller.request(&mut world, "INVITE", &offer_with(&format!("a={word}")));
        let sent = world.take();
        caller.ack(&mut world, "");
        let reinvite = sent.into_iter().find_map(|it| match it {
            sip::Message::Request(request) => Some(request),
            sip::Message::Response(_) => None,
        });
        let reinvite = reinvite.expect("the browser is told");
        let ours = sdp_of(&reinvite.body);
        let line = &ours.media[0];
        assert_eq!(ours.direction_of(line).name(), word);
        assert_eq!(line.attribute("setup"), Some("actpass"));
        assert_eq!(line.attribute("ice-ufrag"), Some(before.local.ufrag.as_str()));
        assert_eq!(line.mid(), Some("0"));
        assert!(ours.attribute("ice-lite").is_some() && ours.bundle().eq(["0"]));
        let answer = answer_of(CHROME, "active").replace("a=sendrecv", &format!("a={theirs}"));
        phone.say(&mut world, &reinvite, "200 OK", &answer);
        world.take();
        let plan = world.plans.iter().rev().find(|plan| plan.leg == phone.leg).unwrap();
        assert!(matches!(&plan.protection, Protection::Dtls(it) if **it == before));
    }
}

#[test]
fn an_account_that_nobody_has_signed_in_to_is_not_there() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    world.reserve();
    let (leg, ..) = world.connects.last().unwrap().clone();
    world.input(Input::Unreachable { leg, reason: Reason::AccountNotRegistered });
    let refusal = world.response();
    assert_eq!(refusal.status.code(), 480);
    assert!(refusal.headers.text(Name::Warning).unwrap().contains("account.not_registered"));
    caller.ack(&mut world, "");
    world.assert_quiet();
}

#[test]
fn the_next_registration_is_tried_where_one_says_nothing() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &offer());
    world.reserve();
    let phone = Phone::rung(&mut world, 40);
    world.input(Input::FlowClosed(phone.caller.peer.flow));
    let (leg, uri, _) = world.connects.last().unwrap().clone();
    assert_ne!(leg, phone.leg);
    assert!(uri.contains("alice@"));
    assert_eq!(world.retries.last().map(|it| it.0), Some(phone.leg));
}

#[test]
fn an_announced_transfer_to_a_browser_waits_until_it_is_heard() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.call(&mut world, &offer());
    let call = world.leg().call;
    let to = Personal::new("sip:alice@edge.example".to_owned());
    world.input(Input::Transfer { call, to, is_announced: true });
    let phone = Phone::rung(&mut world, 40);
    phone.accept(&mut world, "active");
    assert!(world.targets.is_empty(), "the voice agent would speak to nobody");
    world.input(Input::Media { leg: phone.leg, event: secured() });
    assert_eq!(world.targets, [phone.leg]);
}

#[test]
fn a_browser_that_is_carried_over_and_never_heard_leaves_the_caller_where_it_was() {
    let (mut world, mut caller) = (world(), Caller::acme());
    caller.call(&mut world, &offer());
    let call = world.leg().call;
    let to = Personal::new("sip:alice@edge.example".to_owned());
    world.input(Input::Transfer { call, to, is_announced: true });
    let phone = Phone::rung(&mut world, 40);
    phone.accept(&mut world, "active");
    world.take();
    let event = MediaEvent::Unsecured { code: "dtls.timeout" };
    world.input(Input::Media { leg: phone.leg, event });
    assert_eq!(world.transfers_failed, [Reason::Unsecured]);
    assert!(world.ends().is_empty());
}

#[test]
fn browsers_call_each_other() {
    let mut world = world();
    let mut caller = super::browsers::wss(11);
    caller.target = "sip:alice@edge.example".to_owned();
    caller.request(&mut world, "INVITE", &body(CHROME));
    world.reserve();
    let phone = Phone::rung(&mut world, 40);
    phone.accept(&mut world, "active");
    let both = world.plans.iter().filter(|it| matches!(it.protection, Protection::Dtls(_)));
    assert!(both.count() >= 2);
}

#[test]
fn a_caller_that_hides_its_number_is_not_named_to_a_browser() {
    for (privacy, is_named) in [("Privacy: id\r\n", false), ("", true)] {
        let (mut world, mut caller) = (world(), Caller::acme());
        caller.target = "sip:alice@edge.example".to_owned();
        let asserted = "P-Asserted-Identity: <sip:+12125550123@caller.example>\r\n";
        caller.extra = format!("{asserted}{privacy}");
        caller.request(&mut world, "INVITE", &offer());
        world.reserve();
        let phone = Phone::rung(&mut world, 40);
        assert_eq!(phone.invite.headers.has(Name::PAssertedIdentity), is_named);
        assert_eq!(
            String::from_utf8_lossy(&phone.invite.to_bytes()).contains("2125550123"),
            is_named
        );
    }
}
