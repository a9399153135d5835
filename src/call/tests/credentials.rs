//! Stories of trunks that ask who we are.

use base::Reason;
use sip::{Message, Name, Request};

use super::bridging::{Callee, body, callee_answer, dial, requests, responses};
use super::world::{Caller, POLICY, World, offer, offer_with};
use crate::Input;

const CALLED: &str = "+442079460000";

/// The usual policy, where `beta` has a user.
fn policy() -> String {
    let digest = "digest = { user = \"edge\", password_file = \"unread\" }\n";
    let policy = POLICY.replace("[trunk.beta]\n", &format!("[trunk.beta]\n{digest}"));
    assert_ne!(policy, POLICY);
    policy
}

/// A challenge as the head of an answer.
fn challenge(nonce: &str, more: &str) -> String {
    format!("WWW-Authenticate: Digest realm=\"beta\", nonce=\"{nonce}\", qop=\"auth\"{more}\r\n|")
}

/// One parameter of the credentials in a request.
fn shown(request: &Request, name: &str) -> Option<String> {
    let text = request.headers.text(Name::Authorization)?;
    let at = text.find(&format!(" {name}="))? + name.len() + 2;
    let value = text[at..].trim_start_matches('"');
    Some(value[..value.find(['"', ',']).unwrap_or(value.len())].to_owned())
}

fn nonce_and_count(request: &Request) -> (String, String) {
    let field = |name| shown(request, name).unwrap_or_default();
    (field("nonce"), field("nc"))
}

/// A call to `beta` whose INVITE has arrived there.
fn dialled() -> (World, Caller, Callee) {
    dialled_under(&policy())
}

fn dialled_under(policy: &str) -> (World, Caller, Callee) {
    let mut world = World::with_policy(policy);
    let caller = dial(&mut world, CALLED, &offer());
    let callee = Callee::reached(&mut world, "beta");
    (world, caller, callee)
}

/// The callee asks; it has the INVITE that follows.
fn challenged(world: &mut World, callee: &mut Callee, more: &str) -> Request {
    callee.answer(world, "401 Unauthorized", "refusal", more);
    let mut sent = requests(world);
    assert_eq!(sent.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["ACK", "INVITE"]);
    let invite = sent.remove(1);
    std::mem::replace(&mut callee.invite, invite)
}

/// A call that is up after a challenge with this nonce.
fn connected(nonce: &str) -> (World, Caller, Callee) {
    let (mut world, mut caller, mut callee) = dialled();
    challenged(&mut world, &mut callee, &challenge(nonce, ""));
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    caller.follow(&responses(&mut world).remove(0));
    caller.ack(&mut world, "");
    (world, caller, callee)
}

#[test]
fn a_challenged_invite_is_sent_again_and_its_caller_hears_nothing_of_it() {
    let (mut world, _, mut callee) = dialled();
    let first = challenged(&mut world, &mut callee, &challenge("n1", ", opaque=\"o\""));
    assert!(!first.headers.has(Name::Authorization), "nothing is shown unasked");
    let again = callee.invite.clone();
    for same in [Name::CallId, Name::From, Name::To, Name::Contact, Name::MaxForwards] {
        assert_eq!(again.headers.text(same), first.headers.text(same), "{same:?}");
    }
    assert_eq!((&again.body, &again.uri), (&first.body, &first.uri));
    assert_ne!(again.headers.text(Name::Via), first.headers.text(Name::Via));
    assert_eq!(again.headers.all(Name::Via).count(), 1);
    let cseq = |request: &Request| request.headers.cseq().unwrap().number;
    assert_eq!(cseq(&again), cseq(&first) + 1);
    assert_eq!(shown(&again, "uri").as_deref(), Some(again.uri.as_str()));
    for (name, value) in [("realm", "beta"), ("nonce", "n1"), ("nc", "00000001"), ("opaque", "o")] {
        assert_eq!(shown(&again, name).as_deref(), Some(value), "{name}");
    }
    assert!(again.headers.text(Name::Authorization).unwrap().contains("username=\"edge\""));

    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    let sent = world.take();
    let [Message::Request(ack), Message::Response(ok)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((cseq(ack), ok.status.code()), (cseq(&again), 200));
    let credentials =
        |request: &Request| request.headers.text(Name::Authorization).map(str::to_owned);
    assert_eq!(credentials(ack), credentials(&again), "RFC 3261 section 22.1");
    // The same 200 once more is acknowledged in the same way.
    callee.accept(&mut world, &callee_answer(&callee, "0 101"));
    assert_eq!(credentials(&world.request()), credentials(&again));
}

#[test]
fn a_password_that_is_refused_is_not_tried_at_the_trunks_other_addresses() {
    let (mut world, caller, mut callee) = dialled();
    challenged(&mut world, &mut callee, &challenge("n1", ""));
    callee.answer(&mut world, "401 Unauthorized", "t", &challenge("n2", ", stale=false"));
    let told: Vec<u16> = responses(&mut world).iter().map(|it| it.status.code()).collect();
    assert_eq!((&told[..], world.connects.len()), (&[502][..], 1), "{}", caller.call_id);
    assert_eq!(world.ends(), [Reason::CredentialsRefused]);
    world.assert_quiet();
}

#[test]
fn another_trunk_is_tried_after_one_that_does_not_let_us_in() {
    let both = "send_to = { trunks = [{ name = \"beta\" }, { name = \"info\" }] }";
    for (digest, reason) in
        [(true, Reason::CredentialsRefused), (false, Reason::CredentialsMissing)]
    {
        let policy = if digest { policy() } else { POLICY.to_owned() };
        let policy = policy.replace("send_to = { trunk = \"beta\" }", both);
        let (mut world, _, mut callee) = dialled_under(&policy);
        if digest {
            challenged(&mut world, &mut callee, &challenge("n1", ""));
        }
        callee.answer(&mut world, "401 Unauthorized", "t", &challenge("n2", ""));
        assert!(responses(&mut world).is_empty());
        assert_eq!(world.connects.last().unwrap().1, "sip:192.0.2.77");
        let failed = world
            .events
            .iter()
            .any(|it| matches!(it, base::Event::LegFailed { reason: why, .. } if *why == reason));
        assert!(failed, "{reason}");
        let second = Callee::reached(&mut world, "info");
        assert!(!second.invite.headers.has(Name::Authorization), "it is for the other trunk");
    }
}

#[test]
fn a_stale_nonce_gets_one_more_try() {
    let (mut world, _, mut callee) = dialled();
    challenged(&mut world, &mut callee, &challenge("n1", ""));
    challenged(&mut world, &mut callee, &challenge("n2", ", stale=true"));
    assert_eq!(nonce_and_count(&callee.invite), ("n2".to_owned(), "00000001".to_owned()));
    callee.answer(&mut world, "401 Unauthorized", "t", &challenge("n3", ", stale=true"));
    assert_eq!(world.ends(), [Reason::CredentialsRefused]);
    world.assert_quiet();
}

#[test]
fn what_cannot_be_answered_is_a_failure_of_the_trunk() {
    let only = policy().replace("\"unread\"", "\"unread\", realm = \"Beta\"");
    let sha3 = challenge("n", ", algorithm=SHA3-512");
    let basic = "WWW-Authenticate: Basic realm=\"beta\"\r\n|".to_owned();
    for (policy, asked) in [
        (POLICY.to_owned(), challenge("n", "")),
        (only, challenge("n", "")),
        (policy(), sha3),
        (policy(), basic),
        (policy(), "|".to_owned()),
    ] {
        let (mut world, _, callee) = dialled_under(&policy);
        callee.answer(&mut world, "407 Proxy Authentication Required", "t", &asked);
        let told = responses(&mut world);
        assert_eq!(told[0].status.code(), 502);
        assert!(!told[0].headers.has(Name::WwwAuthenticate), "nobody asks the caller");
        assert_eq!(world.ends(), [Reason::CredentialsMissing], "{asked}");
        world.assert_quiet();
    }
}

#[test]
fn a_proxy_and_a_server_are_both_answered() {
    let (mut world, _, mut callee) = dialled();
    let proxy = "Proxy-Authenticate: Digest realm=\"edge of beta\", nonce=\"p\"\r\n|";
    callee.answer(&mut world, "407 Proxy Authentication Required", "t", proxy);
    callee.invite = requests(&mut world).remove(1);
    challenged(&mut world, &mut callee, &challenge("n", ""));
    let headers = &callee.invite.headers;
    assert!(headers.text(Name::ProxyAuthorization).unwrap().contains("nonce=\"p\""));
    assert_eq!(nonce_and_count(&callee.invite).0, "n");
    assert_eq!(headers.all(Name::ProxyAuthorization).count(), 1);
}

#[test]
fn later_requests_show_credentials_at_once_and_count_up() {
    let (mut world, mut caller, callee) = connected("n1");
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    let hold = requests(&mut world).remove(0);
    assert_eq!(hold.method.as_str(), "INVITE");
    assert_eq!(nonce_and_count(&hold), ("n1".to_owned(), "00000002".to_owned()));
    let next = "Authentication-Info: qop=auth, nextnonce=\"n2\"\r\n";
    let answer =
        body(&callee_answer(&callee, "0 101").replace("a=crypto", "a=recvonly\r\na=crypto"));
    callee.caller.answer(&mut world, &hold, "200 OK", &format!("{next}{answer}"));
    let ack = world.request();
    assert_eq!(nonce_and_count(&ack), ("n1".to_owned(), "00000002".to_owned()));
    world.hang_up(Reason::OperatorHungUp);
    let bye = requests(&mut world).pop().unwrap();
    assert_eq!(nonce_and_count(&bye), ("n2".to_owned(), "00000001".to_owned()));
}

#[test]
fn a_challenge_within_the_dialog_is_answered_there() {
    let (mut world, mut caller, callee) = connected("n1");
    caller.request(&mut world, "INVITE", &offer_with("a=sendonly"));
    let hold = requests(&mut world).remove(0);
    callee.caller.answer(&mut world, &hold, "401 Unauthorized", &challenge("n2", ""));
    let sent = requests(&mut world);
    let [ack, again] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ack.method.as_str(), again.method.as_str()), ("ACK", "INVITE"));
    assert_eq!(nonce_and_count(again), ("n2".to_owned(), "00000001".to_owned()));
    assert_eq!(again.body, hold.body);
    let cseq = |request: &Request| request.headers.cseq().unwrap().number;
    assert_eq!(cseq(again), cseq(&hold) + 1);
    let answer = callee_answer(&callee, "0 101").replace("a=crypto", "a=recvonly\r\na=crypto");
    callee.caller.answer(&mut world, again, "200 OK", &body(&answer));
    assert_eq!(world.request().method.as_str(), "ACK");
    let sends = world.plans.iter().rev().find(|plan| plan.leg == callee.leg).unwrap().direction;
    assert!(sends.send && !sends.receive, "the answer to the second one counts");

    world.hang_up(Reason::OperatorHungUp);
    let bye = requests(&mut world).into_iter().find(|it| it.uri == again.uri).unwrap();
    callee.caller.answer(&mut world, &bye, "401 Unauthorized", &challenge("n3", ", stale=true"));
    let again = world.request();
    assert_eq!((again.method.as_str(), cseq(&again)), ("BYE", cseq(&bye) + 1));
    assert_eq!(again.headers.reasons(), bye.headers.reasons());
    callee.caller.answer(&mut world, &again, "401 Unauthorized", &challenge("n4", ""));
    assert!(world.take().is_empty(), "it was refused, and the call is over");
    world.assert_quiet();
}

#[test]
fn a_cancel_ends_the_second_invite_and_a_challenge_that_crosses_it_begins_none() {
    let (mut world, _, mut callee) = dialled();
    challenged(&mut world, &mut callee, &challenge("n1", ""));
    callee.answer(&mut world, "180 Ringing", "t", "|");
    world.take();
    world.hang_up(Reason::Cancelled);
    let cancel = requests(&mut world).remove(0);
    assert_eq!(cancel.method.as_str(), "CANCEL");
    let number = |request: &Request| request.headers.cseq().unwrap().number;
    assert_eq!(number(&cancel), number(&callee.invite));
    callee.answer(&mut world, "487 Request Terminated", "t", "|");
    world.assert_quiet();

    let (mut world, _, callee) = dialled();
    world.hang_up(Reason::Cancelled);
    world.take();
    callee.answer(&mut world, "401 Unauthorized", "t", &challenge("n1", ""));
    let sent = requests(&mut world);
    assert_eq!(sent.iter().map(|it| it.method.as_str()).collect::<Vec<_>>(), ["ACK"]);
    assert_eq!(world.ends(), [Reason::Cancelled]);
    world.assert_quiet();
}

#[test]
fn credentials_stay_out_of_the_ladder() {
    let (world, ..) = connected("n1");
    let noted = world.records.iter().filter_map(|record| match record {
        crate::Record::Ladder { text, .. } => Some(text.expose().clone()),
        _ => None,
    });
    let noted: Vec<String> = noted.collect();
    assert!(noted.iter().any(|text| text.contains("Authorization: [redacted]")));
    assert!(noted.iter().all(|text| !text.contains("username=")));
}

#[test]
fn a_flow_that_is_lost_while_we_are_asked_fails_as_any_other() {
    let (mut world, _, mut callee) = dialled();
    challenged(&mut world, &mut callee, &challenge("n1", ""));
    world.input(Input::FlowClosed(callee.caller.peer.flow));
    assert_eq!(world.connects.len(), 2, "its next address");
}
