use std::sync::Mutex;

use base::{Clock, Event, Personal, Secret, SeededRandom};
use proptest::prelude::*;
use sip::digest::{Challenge, Login, Session};
use sip::{Header, Headers, NameAddr, Via};
use transport::{FlowId, Transport};

use super::*;
use crate::auth::Credentials;

const WALL: WallTime = WallTime::from_unix_millis(1_795_392_000_000);
const START: Instant = Instant::from_nanos(5_000_000_000);

/// Alice with the password `wonderland`, and a token.
struct Known;

impl Credentials for Known {
    fn bearer(&self, _secret: &str, _now: WallTime) -> Option<Who> {
        None
    }
    fn digest(&self, user: &str, realm: &str, _now: WallTime) -> Option<(Who, Hashes)> {
        let who = match user {
            "alice" | "strong" => Who::Account {
                name: Personal::new(user.to_owned()),
                display: Some(Personal::new("Alice A.".to_owned())),
                caller: Some(Personal::new("+498912345678".to_owned())),
            },
            "bt_1" | "bt_call" | "bt_register" => Who::Token(Arc::new(BrowserToken {
                id: user.to_owned(),
                called: Some("agent".to_owned()),
                scopes: match user {
                    "bt_call" => [TokenScope::Call].into(),
                    "bt_register" => [TokenScope::Register].into(),
                    _ => TokenScope::ALL.into(),
                },
                origin: None,
                name: None,
                caller: None,
                expires: WALL + Duration::from_secs(90),
                used: None,
            })),
            _ => return None,
        };
        let mut hashes = Hashes::of(user, realm, "wonderland");
        hashes.md5 = hashes.md5.filter(|_| user != "strong");
        Some((who, hashes))
    }
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Instant {
        START
    }
    fn wall(&self) -> WallTime {
        WALL
    }
}

fn house() -> Arc<House> {
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let taking = Arc::clone(&events);
    let guard = Guard::new(
        Arc::new(Known),
        Arc::new(Still),
        Arc::new(move |event| taking.lock().unwrap().push(event)),
    );
    let host = Host::parse("edge.example").unwrap();
    Arc::new(House::new(Arc::new(guard), host, Box::new(SeededRandom::new(1))))
}

fn door(house: &Arc<House>, number: u64) -> Door {
    let flow = Arc::new(Flow {
        id: FlowId(number),
        transport: Transport::Wss,
        source: "192.0.2.1:5000".parse().unwrap(),
        local: "192.0.2.2:8443".parse().unwrap(),
        certificates: Arc::default(),
        outgoing: false,
        reusable: false,
    });
    Door::new(Arc::clone(house), flow, None, START)
}

fn request(method: Method, user: &str, uri: &str, cseq: u32) -> Request {
    let own = Uri::parse(&format!("sip:{user}@edge.example")).unwrap();
    let from = NameAddr::new(own.clone()).with_param("tag", Some("t"));
    let uri = Uri::parse(uri).unwrap();
    let to = NameAddr::new(if method == Method::Register { own } else { uri.clone() });
    let mut request = Request::outside_dialog(method, uri, &from, &to, "c1", cseq);
    let host = Host::parse("browser.invalid").unwrap();
    request.headers.push_via(&Via::new("WSS", host, None, &format!("z9hG4bK{cseq}")));
    request
}

fn register(user: &str, cseq: u32, contact: &str) -> Request {
    let mut request = request(Method::Register, user, "sip:edge.example", cseq);
    request.headers.push(Name::Contact, contact);
    request.headers.push(Name::Supported, "outbound, gruu");
    request
}

fn frame(door: &mut Door, now: Instant, request: &Request) -> Verdict {
    door.handle_frame(now, WALL, &request.to_bytes())
}

fn response(verdict: Verdict) -> Response {
    let bytes = match verdict {
        Verdict::Reply(bytes) | Verdict::Close(_, Some(bytes)) => bytes,
        other => panic!("{other:?}"),
    };
    match sip::parse::stream(&bytes).unwrap() {
        Message::Response(response) => response,
        Message::Request(request) => panic!("{request:?}"),
    }
}

fn session(challenged: &Response, user: &str) -> Session {
    session_of(challenged, &challenged.headers, user)
}

fn session_of(challenged: &Response, fields: &Headers, user: &str) -> Session {
    assert_eq!(challenged.status, Status::UNAUTHORIZED);
    let challenge = Challenge::all(fields).remove(0);
    let password = Secret::new("wonderland".to_owned());
    let login = Login { user: user.to_owned(), password, realm: None };
    Session::new(challenge, &login, &mut SeededRandom::new(3))
}

/// Challenged, and sent again with credentials.
fn proved(door: &mut Door, now: Instant, user: &str, request: &Request) -> Verdict {
    let challenged = response(frame(door, now, request));
    let mut session = session(&challenged, user);
    let mut again = request.clone();
    again.headers.push_header(session.authorize(&request.method, request.uri.as_str()));
    frame(door, now, &again)
}

const CONTACT: &str = "<sip:x@browser.invalid;transport=ws>;expires=600";

#[test]
fn an_answer_is_good_once_and_for_its_request() {
    let house = house();
    let mut door = door(&house, 1);
    let first = register("alice", 1, CONTACT);
    let challenged = response(frame(&mut door, START, &first));
    let field = challenged.headers.text(Name::WwwAuthenticate).unwrap();
    assert!(field.contains("algorithm=MD5") && field.contains("realm=\"callgate\""));
    assert!(!field.contains("stale"));
    let mut session = session(&challenged, "alice");
    let mut good = first.clone();
    good.headers.push_header(session.authorize(&Method::Register, first.uri.as_str()));
    assert_eq!(response(frame(&mut door, START, &good)).status, Status::OK);
    let replayed = response(frame(&mut door, START, &good));
    assert_eq!(replayed.status, Status::UNAUTHORIZED);
    assert!(replayed.headers.text(Name::WwwAuthenticate).unwrap().contains("stale=true"));
    let mut next = register("alice", 2, CONTACT);
    let uri = next.uri.clone();
    next.headers.push_header(session.authorize(&Method::Register, uri.as_str()));
    assert_eq!(response(frame(&mut door, START, &next)).status, Status::OK, "counted on");
    let mut other = register("alice", 3, CONTACT);
    other.headers.push_header(session.authorize(&Method::Register, "sip:other.example"));
    assert_eq!(response(frame(&mut door, START, &other)).status, Status::FORBIDDEN);
}

#[test]
fn an_account_is_asked_for_its_digest_and_an_answer_by_sha_256_is_always_taken() {
    let house = house();
    for (place, (user, asked)) in
        [("alice", "MD5"), ("strong", "SHA-256"), ("nobody", "MD5")].into_iter().enumerate()
    {
        let mut door = door(&house, place as u64);
        let mut first = register(user, 1, CONTACT);
        let challenged = response(frame(&mut door, START, &first));
        let fields: Vec<_> = challenged.headers.all(Name::WwwAuthenticate).collect();
        // SIP.js and JsSIP see the last one alone, others the first.
        assert_eq!(fields.len(), 1);
        let text = fields[0].text().unwrap();
        assert!(text.contains(&format!("algorithm={asked},")), "{user}: {text}");
        for (algorithm, is_taken) in [("MD5", user == "alice"), ("SHA-256", user != "nobody")] {
            let challenged = response(frame(&mut door, START, &first));
            let text = challenged.headers.text(Name::WwwAuthenticate).unwrap();
            let text = text.replace(&format!("={asked},"), &format!("={algorithm},"));
            let field = Header::new(Name::WwwAuthenticate, &text);
            let fields: Headers = [field].into_iter().collect();
            let mut session = session_of(&challenged, &fields, user);
            let mut request = first.clone();
            let field = session.authorize(&Method::Register, first.uri.as_str());
            assert!(field.text().unwrap().contains(algorithm));
            request.headers.push_header(field);
            let status = response(frame(&mut door, START, &request)).status;
            let wanted = if is_taken { Status::OK } else { Status::FORBIDDEN };
            assert_eq!(status, wanted, "{user} by {algorithm}");
            // Another page of the same person.
            first.headers.set(Name::CallId, "c2");
            door = self::door(&house, 10 + place as u64);
        }
    }
}

#[test]
fn whoever_answers_by_both_is_taken_by_the_stronger_one() {
    let house = house();
    let request = register("alice", 1, CONTACT);
    let uri = request.uri.clone();
    for (is_right, status) in [(true, Status::OK), (false, Status::FORBIDDEN)] {
        let mut door = door(&house, u64::from(is_right));
        let challenged = response(frame(&mut door, START, &request));
        let text = challenged.headers.text(Name::WwwAuthenticate).unwrap();
        let strong = Header::new(Name::WwwAuthenticate, text.replace("MD5", "SHA-256"));
        let strong: Headers = [strong].into_iter().collect();
        let mut both = request.clone();
        let md5 = session(&challenged, "alice").authorize(&Method::Register, uri.as_str());
        let method = if is_right { Method::Register } else { Method::Options };
        let strong = session_of(&challenged, &strong, "alice").authorize(&method, uri.as_str());
        both.headers.push_header(md5);
        both.headers.push_header(strong);
        assert_eq!(response(frame(&mut door, START, &both)).status, status);
    }
}

#[test]
fn a_token_does_what_it_was_made_for_and_nothing_else() {
    let house = house();
    let is_for_another = |answer: &Response| {
        let warned = answer.headers.text(Name::Warning);
        (answer.status, warned) == (Status::FORBIDDEN, Some("399 callgate \"token.scope\""))
    };
    let mut caller = door(&house, 1);
    let first = register("bt_call", 1, CONTACT);
    let refused = response(proved(&mut caller, START, "bt_call", &first));
    assert!(is_for_another(&refused), "{refused:?}");
    assert!(house.registrar.lookup("bt_call", START).is_empty());
    let invite = request(Method::Invite, "bt_call", "sip:agent@edge.example", 2);
    assert!(matches!(frame(&mut caller, START, &invite), Verdict::Deliver(_)), "it calls");

    let mut called = door(&house, 2);
    let first = register("bt_register", 1, CONTACT);
    assert_eq!(response(proved(&mut called, START, "bt_register", &first)).status, Status::OK);
    for method in [Method::Invite, Method::Refer, Method::Options] {
        let begun = request(method, "bt_register", "sip:agent@edge.example", 2);
        assert!(is_for_another(&response(frame(&mut called, START, &begun))));
    }
    // What belongs to a call that it has been given goes through; carrying it on does not.
    let within = |method| {
        let mut request = request(method, "bt_register", "sip:agent@edge.example", 3);
        request.headers.set(Name::To, "<sip:agent@edge.example>;tag=x");
        request
    };
    assert!(matches!(frame(&mut called, START, &within(Method::Bye)), Verdict::Deliver(_)));
    assert!(is_for_another(&response(frame(&mut called, START, &within(Method::Refer)))));
}

#[test]
fn an_answer_of_another_websocket_or_of_long_ago_is_asked_for_again() {
    let house = house();
    let mut one = door(&house, 1);
    let mut request = register("alice", 1, CONTACT);
    let challenged = response(frame(&mut one, START, &request));
    let field = session(&challenged, "alice").authorize(&Method::Register, "sip:edge.example");
    request.headers.push_header(field);
    let mut two = door(&house, 2);
    assert_eq!(response(frame(&mut two, START, &request)).status, Status::UNAUTHORIZED);
    let later = START + limit::API_NONCE_MS.millis() + Duration::from_secs(1);
    let stale = response(frame(&mut one, later, &request));
    assert_eq!(stale.status, Status::UNAUTHORIZED);
    assert!(stale.headers.text(Name::WwwAuthenticate).unwrap().contains("stale=true"));
}

#[test]
fn registrations_have_lengths_and_kinds() {
    let house = house();
    let mut door = door(&house, 1);
    let mut now = START;
    for (contact, extra, status) in [
        ("<sip:x@h.invalid>;expires=59", None, Status::INTERVAL_TOO_BRIEF),
        ("*", None, Status::BAD_REQUEST),
        ("*", Some((Name::Expires, "60")), Status::BAD_REQUEST),
        ("*", Some((Name::Expires, "0")), Status::OK),
        ("<tel:+15550100>", None, Status::BAD_REQUEST),
        (CONTACT, Some((Name::Require, "outbound, magic")), Status::BAD_EXTENSION),
        (CONTACT, Some((Name::Require, "gruu")), Status::OK),
    ] {
        let mut request = register("alice", 1, contact);
        request.headers.set(Name::CallId, format!("{contact}{extra:?}").len().to_string());
        if let Some((name, value)) = extra {
            request.headers.push(name, value);
        }
        now += Duration::from_millis(1); // no two nonces of one instant
        let answered = response(proved(&mut door, now, "alice", &request));
        assert_eq!(answered.status, status, "{contact} {extra:?}");
        let least = (status == Status::INTERVAL_TOO_BRIEF).then_some("60");
        assert_eq!(answered.headers.text(Name::MinExpires), least);
    }
    let day = register("alice", 9, "<sip:day@h.invalid>;expires=86400");
    let answered = response(proved(&mut door, START, "alice", &day));
    let text = answered.headers.all(Name::Contact).filter_map(|it| it.text());
    assert!(text.into_iter().any(|it| it.contains("day@h.invalid") && it.contains("expires=3600")));
}

#[test]
fn a_tokens_door_opens_for_its_callee_and_closes_in_its_time() {
    let house = house();
    let mut door = door(&house, 1);
    let invite = request(Method::Invite, "bt_1", "sip:agent@edge.example", 1);
    assert!(matches!(proved(&mut door, START, "bt_1", &invite), Verdict::Deliver(_)));
    assert!(door.take_latest().is_some());
    assert_eq!(door.expires(), Some(WALL + Duration::from_secs(90)));
    let other = request(Method::Invite, "bt_1", "sip:sales@edge.example", 2);
    assert_eq!(response(frame(&mut door, START, &other)).status, Status::FORBIDDEN);
    let mut refer = request(Method::Refer, "bt_1", "sip:agent@edge.example", 3);
    refer.headers.set(Name::To, "<sip:agent@edge.example>;tag=00-0000000000000000");
    assert_eq!(response(frame(&mut door, START, &refer)).status, Status::FORBIDDEN);
    let mut bye = request(Method::Bye, "agent", "sip:x@edge.example", 4);
    bye.headers.set(Name::To, "<sip:bt_1@edge.example>;tag=00-0000000000000000");
    assert!(matches!(frame(&mut door, START, &bye), Verdict::Deliver(_)));
    let late = WALL + Duration::from_secs(90);
    let verdict = door.handle_frame(START, late, &bye.to_bytes());
    assert_eq!(verdict, Verdict::Close(Why::Expired, None));
}

#[test]
fn a_second_person_does_not_come_through_a_door_that_is_taken() {
    let house = house();
    let mut door = door(&house, 1);
    let first = register("alice", 1, CONTACT);
    assert_eq!(response(proved(&mut door, START, "alice", &first)).status, Status::OK);
    let second = register("bt_1", 1, CONTACT);
    let verdict = proved(&mut door, START + Duration::from_millis(1), "bt_1", &second);
    assert!(matches!(verdict, Verdict::Close(Why::Unproved, Some(_))), "{verdict:?}");
    assert!(!door.is_proved());
}

#[test]
fn messages_are_counted_over_time() {
    let house = house();
    let mut door = door(&house, 1);
    let mut taken = 0;
    while door.handle_frame(START, WALL, &Bytes::from_static(b"\r\n")) == Verdict::Nothing {
        taken += 1;
    }
    assert_eq!(taken, limit::API_WEBSOCKET_MESSAGES.value * DEPTH);
    let later = START + Duration::from_secs(1);
    for _ in 0..limit::API_WEBSOCKET_MESSAGES.value {
        let verdict = door.handle_frame(later, WALL, &Bytes::from_static(b"\r\n"));
        assert_eq!(verdict, Verdict::Nothing);
    }
    let verdict = door.handle_frame(later, WALL, &Bytes::from_static(b"\r\n"));
    assert_eq!(verdict, Verdict::Close(Why::Flood, None));
}

proptest! {
    #[test]
    fn nothing_unproved_passes_whatever_is_sent(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let house = house();
        let mut door = door(&house, 1);
        let verdict = door.handle_frame(START, WALL, &bytes.into());
        prop_assert!(!matches!(verdict, Verdict::Deliver(_)));
    }

    #[test]
    fn nor_whatever_is_changed_in_a_good_message(at in 0_usize..500, with in any::<u8>()) {
        let house = house();
        let mut door = door(&house, 1);
        let mut bytes = register("alice", 1, CONTACT).to_bytes().to_vec();
        let length = bytes.len();
        bytes[at % length] = with;
        let verdict = door.handle_frame(START, WALL, &bytes.into());
        prop_assert!(!matches!(verdict, Verdict::Deliver(_)));
    }
}
