use base::SeededRandom;

use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

fn description_of(name: &str) -> Session {
    let text = format!(
        "v=0\r\no={name} 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=setup:actpass\r\na=ice-ufrag:{name}\r\n\
         a=ice-pwd:passwordpasswordpassword\r\na=fingerprint:sha-256 AA:BB\r\n\
         a=rtpmap:111 opus/48000/2\r\n"
    );
    Session::parse(text.as_bytes()).unwrap()
}

fn agent() -> Agent {
    let parties = Parties {
        user: "bt_1".to_owned(),
        asserted: NameAddr::parse("\"Ann\" <sip:+498912345678@edge.example>").unwrap(),
        called: Uri::parse("sip:agent@edge.example").unwrap(),
    };
    let random = Box::new(SeededRandom::new(7));
    Agent::call(START, FlowId(1), &parties, description_of("brow"), random)
}

/// What it sent, and what else it wants.
fn drain(agent: &mut Agent) -> (Vec<Message>, Vec<Act>) {
    let (mut sent, mut others) = (Vec::new(), Vec::new());
    while let Some(act) = agent.poll_output() {
        match act {
            Act::Send(bytes) => sent.push(sip::parse::stream(&bytes).unwrap()),
            other => others.push(other),
        }
    }
    (sent, others)
}

fn requests(sent: Vec<Message>) -> Vec<Request> {
    let request = |message| match message {
        Message::Request(request) => Some(request),
        Message::Response(_) => None,
    };
    sent.into_iter().filter_map(request).collect()
}

fn sent(agent: &mut Agent) -> Request {
    let (sent, others) = drain(agent);
    assert!(others.is_empty(), "{others:?}");
    let [request] = <[Request; 1]>::try_from(requests(sent)).unwrap();
    request
}

fn methods(agent: &mut Agent) -> (Vec<Method>, Vec<Act>) {
    let (sent, others) = drain(agent);
    (requests(sent).into_iter().map(|it| it.method).collect(), others)
}

fn to(request: &Request, status: Status) -> Response {
    let mut response = Response::to(request, status, Some("00-edge000000000000"));
    response.headers.push(Name::Contact, "<sip:edge@192.0.2.1>");
    response
}

fn accepted(invite: &Request) -> Response {
    let mut response = to(invite, Status::OK);
    response.headers.push(Name::SessionExpires, "600;refresher=uac");
    response.with_body(SDP, description_of("edge").to_string())
}

/// A session that stands, and its INVITE.
fn standing() -> (Agent, Request) {
    let mut agent = agent();
    let invite = sent(&mut agent);
    agent.handle_message(START, accepted(&invite).into());
    let (methods, others) = methods(&mut agent);
    assert_eq!(methods, [Method::Ack]);
    assert!(matches!(&others[..], [Act::Answered(it)] if **it == description_of("edge")));
    (agent, invite)
}

/// A request of the edge's within the dialog.
fn asked(invite: &Request, method: Method, cseq: u32) -> Request {
    let mut request = Request::new(method, invite.headers.contact().unwrap().uri);
    let headers = &mut request.headers;
    let host = Host::parse("192.0.2.1").unwrap();
    headers.push_via(&Via::new("WSS", host, None, &format!("z9hG4bK{cseq}{}", request.method)));
    headers.push(Name::MaxForwards, "70");
    headers.push(Name::From, "<sip:agent@edge.example>;tag=00-edge000000000000");
    headers.push(Name::To, invite.headers.text(Name::From).unwrap());
    headers.push(Name::CallId, invite.headers.call_id().unwrap());
    headers.push(Name::CSeq, format!("{cseq} {}", request.method));
    headers.push(Name::Contact, "<sip:edge@192.0.2.1>");
    request
}

#[test]
fn a_repeated_answer_is_acknowledged_again() {
    let (mut agent, invite) = standing();
    agent.handle_message(START, accepted(&invite).into());
    let (methods, others) = methods(&mut agent);
    assert_eq!((methods, others.len()), (vec![Method::Ack], 0));
}

#[test]
fn a_larger_session_interval_is_taken_once() {
    let mut agent = agent();
    let first = sent(&mut agent);
    let mut small = to(&first, Status::SESSION_INTERVAL_TOO_SMALL);
    small.headers.push(Name::MinSe, "3600");
    agent.handle_message(START, small.into());
    let (sent, others) = drain(&mut agent);
    assert!(others.is_empty());
    let all = requests(sent);
    assert_eq!(all[0].method, Method::Ack);
    let again = &all[1];
    assert_eq!(again.headers.text(Name::SessionExpires), Some("3600"));
    assert_eq!(again.headers.cseq().unwrap().number, 2);
    assert_eq!(again.headers.call_id(), first.headers.call_id());
    assert_eq!(again.headers.vias().unwrap().len(), 1);
    assert_eq!(again.body, first.body);
}

#[test]
fn an_answer_that_crosses_the_giving_up_is_hung_up() {
    let mut agent = agent();
    let invite = sent(&mut agent);
    agent.hang_up(START);
    assert_eq!(methods(&mut agent).0, [], "no CANCEL before a provisional response");
    agent.handle_message(START, to(&invite, Status::RINGING).into());
    assert_eq!(methods(&mut agent).0, [Method::Cancel]);
    agent.handle_message(START, accepted(&invite).into());
    let (methods, others) = methods(&mut agent);
    assert_eq!(methods, [Method::Ack, Method::Bye]);
    assert!(matches!(others[..], [Act::Over]), "{others:?}");
    assert!(!agent.is_done(), "the BYE has no answer yet");
    agent.handle_timeout(START + sip::transaction::GIVE_UP);
    drain(&mut agent);
    assert!(agent.is_done());
}

#[test]
fn who_does_not_answer_at_all_is_given_up() {
    let mut agent = agent();
    sent(&mut agent);
    let mut now = START;
    while let Some(due) = agent.poll_timeout() {
        now = due;
        agent.handle_timeout(now);
    }
    assert_eq!(now, START + sip::transaction::GIVE_UP);
    let others = methods(&mut agent).1;
    let [Act::Refused(refusal), Act::Over] = &others[..] else { panic!("{others:?}") };
    assert_eq!(refusal.status, Status::REQUEST_TIMEOUT);
    assert!(agent.is_done());
}

#[test]
fn the_session_is_refreshed_and_ends_when_the_edge_knows_it_no_more() {
    let (mut agent, _) = standing();
    let half = START + 300 * SECOND;
    agent.handle_timeout(half);
    let update = sent(&mut agent);
    assert_eq!(update.method, Method::Update);
    assert!(update.body.is_empty() && update.headers.has(Name::SessionExpires));
    let mut ok = to(&update, Status::OK);
    ok.headers.push(Name::SessionExpires, "600;refresher=uac");
    agent.handle_message(half, ok.into());
    assert_eq!(methods(&mut agent).0, []);
    agent.handle_timeout(half + 300 * SECOND);
    let update = sent(&mut agent);
    agent.handle_message(half + 300 * SECOND, to(&update, Status::CALL_DOES_NOT_EXIST).into());
    let (methods, others) = methods(&mut agent);
    assert_eq!(methods, [Method::Bye]);
    assert!(matches!(others[..], [Act::Over]));
}

#[test]
fn a_refresh_that_is_refused_is_tried_again_before_the_end() {
    let (mut agent, _) = standing();
    let half = START + 300 * SECOND;
    agent.handle_timeout(half);
    let update = sent(&mut agent);
    agent.handle_message(half, to(&update, Status::SERVER_INTERNAL_ERROR).into());
    agent.handle_timeout(START + 400 * SECOND);
    assert_eq!(sent(&mut agent).method, Method::Update);
    agent.handle_timeout(START + 568 * SECOND);
    let (methods, others) = methods(&mut agent);
    assert!(methods.contains(&Method::Bye) && matches!(others[..], [Act::Over]));
}

#[test]
fn our_answer_to_an_offer_is_repeated_until_it_is_acknowledged() {
    let (mut agent, invite) = standing();
    let offer = description_of("edge").to_string();
    let reinvite = asked(&invite, Method::Invite, 1).with_body(SDP, offer.clone());
    agent.handle_message(START, reinvite.into());
    let answers = |agent: &mut Agent| {
        let (sent, _) = drain(agent);
        let is_ok = |it: &&Message| matches!(it, Message::Response(it) if it.status == Status::OK);
        sent.iter().filter(is_ok).count()
    };
    assert_eq!(answers(&mut agent), 1);
    agent.handle_timeout(START + SECOND);
    assert_eq!(answers(&mut agent), 1);
    let crossing = asked(&invite, Method::Invite, 2).with_body(SDP, offer);
    agent.handle_message(START + SECOND, crossing.into());
    let (sent, _) = drain(&mut agent);
    let [Message::Response(pending)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(pending.status, Status::REQUEST_PENDING);
    let mut ack = asked(&invite, Method::Ack, 1);
    ack.headers.set(Name::CSeq, "1 ACK");
    agent.handle_message(START + SECOND, ack.into());
    agent.handle_timeout(START + 8 * SECOND);
    assert_eq!(answers(&mut agent), 0);
}

#[test]
fn an_answer_that_is_never_acknowledged_ends_the_session() {
    let (mut agent, invite) = standing();
    let reinvite = asked(&invite, Method::Invite, 1); // without an offer: ours is what holds
    agent.handle_message(START, reinvite.into());
    let (sent, _) = drain(&mut agent);
    let [Message::Response(response)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(Session::parse(&response.body).unwrap(), description_of("brow"));
    agent.handle_timeout(START + sip::transaction::GIVE_UP);
    let (methods, others) = methods(&mut agent);
    assert!(methods.contains(&Method::Bye) && matches!(others[..], [Act::Over]));
}

#[test]
fn a_restart_waits_for_no_other_and_ends_with_the_session() {
    let (mut agent, invite) = standing();
    agent.restart(START, description_of("new"));
    let reinvite = sent(&mut agent);
    assert_eq!(Session::parse(&reinvite.body).unwrap(), description_of("new"));
    agent.restart(START, description_of("more"));
    let others = methods(&mut agent).1;
    let [Act::NotRestarted(refusal)] = &others[..] else { panic!("{others:?}") };
    assert_eq!(refusal.status, Status::REQUEST_PENDING);
    agent.handle_message(START, asked(&invite, Method::Bye, 1).into());
    let others = methods(&mut agent).1;
    assert!(matches!(others[..], [Act::NotRestarted(_), Act::Over]), "{others:?}");
    agent.restart(START, description_of("late"));
    let others = methods(&mut agent).1;
    let [Act::NotRestarted(refusal)] = &others[..] else { panic!("{others:?}") };
    assert_eq!(refusal.status, Status::CALL_DOES_NOT_EXIST);
}

#[test]
fn the_end_of_the_flow_is_the_end_of_the_session() {
    let (mut agent, _) = standing();
    agent.flow_gone(START);
    let (methods, others) = methods(&mut agent);
    assert_eq!(methods, []);
    assert!(matches!(others[..], [Act::Over]));
    let mut early = self::agent();
    sent(&mut early);
    early.flow_gone(START);
    let others = self::methods(&mut early).1;
    let [Act::Refused(refusal), Act::Over] = &others[..] else { panic!("{others:?}") };
    assert_eq!(refusal.status, Status::SERVICE_UNAVAILABLE);
}
