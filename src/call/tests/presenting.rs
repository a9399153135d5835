//! Stories of what others see of a browser that calls: an operator's word, and none of its own.

use sip::{Message, Name, Request};

use super::bridging::Callee;
use super::browsers::{BROWSERS, CHROME, body, whip, wss};
use super::browsers_called::Phone;
use super::world::{Caller, POLICY, World};

/// What the story's callee is sent by a browser of which `api` asserts this.
fn dialled(policy: &str, mut caller: Caller, user: &str, asserted: &str) -> Request {
    let mut world = World::with_policy(policy);
    caller.target = "sip:+442079460000@edge.example".to_owned();
    say(&mut world, &mut caller, user, asserted);
    Callee::reached(&mut world, "beta").invite
}

fn say(world: &mut World, caller: &mut Caller, user: &str, asserted: &str) {
    caller.extra = format!("P-Asserted-Identity: {asserted}\r\n");
    let text = caller.text("INVITE", 1, &body(CHROME));
    let from = format!("From: \"Own Word\" <sip:{user}@browser.invalid>");
    caller.say(world, &text.replace("From: <sip:+12125550123@caller.example>", &from));
    world.reserve();
}

fn policy(line: &str) -> String {
    let trunk = "from       = { browsers = true }";
    format!("{}{POLICY}", BROWSERS.replace(trunk, &format!("{trunk}\n{line}")))
}

fn check(invite: &Request, from: &str, asserted: Option<&str>) {
    let shown = invite.headers.text(Name::From).unwrap();
    assert!(shown.starts_with(from), "{shown}");
    assert_eq!(invite.headers.text(Name::PAssertedIdentity), asserted);
    let text = String::from_utf8(Message::Request(invite.clone()).to_bytes().to_vec()).unwrap();
    for own in ["Own Word", "bt_0011223344556677", "browser.invalid"] {
        assert!(!text.contains(own), "{own} in {text}");
    }
}

const TOKEN: &str = "bt_0011223344556677";

#[test]
fn a_carrier_sees_the_number_and_the_name_that_a_token_was_minted_with() {
    let asserted = "\"Ann\" <sip:+498912345678@edge.example>";
    let invite = dialled(&policy(""), whip(), TOKEN, asserted);
    let told = Some("<sip:+498912345678@10.20.0.5>");
    check(&invite, "\"Ann\" <sip:+498912345678@10.20.0.5>;tag=", told);
}

#[test]
fn who_was_given_nothing_is_what_its_trunk_presents_or_nobody() {
    let asserted = format!("<sip:{TOKEN}@edge.example>");
    let invite = dialled(&policy(""), whip(), TOKEN, &asserted);
    check(&invite, "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=", None);
    let invite = dialled(&policy("present = \"+4930555\""), whip(), TOKEN, &asserted);
    check(&invite, "<sip:+4930555@10.20.0.5>;tag=", Some("<sip:+4930555@10.20.0.5>"));
    // Nor does a carrier learn how an account is called here.
    let account = "\"Alice A.\" <sip:alice@edge.example>";
    let invite = dialled(&policy(""), wss(11), "alice", account);
    check(&invite, "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=", None);
}

#[test]
fn another_browser_sees_the_account_that_calls_it() {
    for asserted in ["\"Bob B.\" <sip:bob@edge.example>", "\"Bob B.\" <sip:+49301@edge.example>"] {
        let (mut world, mut caller) = (World::with_policy(&policy("")), wss(11));
        caller.target = "sip:alice@edge.example".to_owned();
        say(&mut world, &mut caller, "bob", asserted);
        let phone = Phone::rung(&mut world, 40);
        check(&phone.invite, "\"Bob B.\" <sip:bob@10.20.0.5>;tag=", None);
    }
}
