//! The user agent against a far end made of messages, on a manual clock.

use std::net::Ipv4Addr;

use base::SeededRandom;
use rtp::{CryptoLine, Suite};
use sdp::Local;

use super::*;
use crate::config::Protection;

const ALICE: &str = "<sip:alice@127.0.0.1>";

struct World {
    ua: UserAgent,
    now: Instant,
    /// What the far end can do; the key is always the same.
    far: Local,
    agreed: Vec<Agreed>,
    end: Option<End>,
    released: u32,
    /// Early answers and keys.
    other: u32,
    sent: Vec<Message>,
}

fn description(port: u16) -> Description {
    Description::new(
        Ipv4Addr::LOCALHOST.into(),
        (port, port + 1),
        &[audio::Codec::G722, audio::Codec::Pcmu],
        Protection::Srtp,
        &[Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80],
        &mut SeededRandom::new(port.into()),
    )
}

impl World {
    fn new(offer: OfferMode) -> Self {
        let parties = Parties {
            target: Uri::parse("sip:reception@127.0.0.1:5061;transport=tls").unwrap(),
            from: NameAddr::parse(ALICE).unwrap(),
            contact: Uri::parse("sip:load@127.0.0.1:40000;transport=tls").unwrap(),
            via: "TLS",
            host: Host::parse("127.0.0.1").unwrap(),
            port: 40_000,
            is_reliable: true,
            offer,
            cause: None,
        };
        let far = Local {
            rtp_port: 20_000,
            rtcp_port: 20_001,
            session_id: 7,
            version: 1,
            address: Ipv4Addr::LOCALHOST.into(),
            codecs: vec![sdp::Codec::pcmu()],
            telephone_event: true,
            comfort_noise: false,
            direction: Direction::SendRecv,
            rtcp_mux: true,
            ptime: 20,
            plaintext: false,
            crypto: Default::default(),
            dtls: Default::default(),
            offer_protocol: sdp::Protocol::RtpSavp,
            offer_crypto: Vec::new(),
            offer_dtls: Vec::new(),
            ice_lite: false,
        };
        let ua = UserAgent::new(parties, description(30_000), Box::new(SeededRandom::new(1)));
        let mut world = Self {
            ua,
            now: Instant::ZERO,
            far,
            agreed: Vec::new(),
            end: None,
            released: 0,
            other: 0,
            sent: Vec::new(),
        };
        world.ua.start(world.now, "call-1");
        world.drain();
        world
    }

    fn drain(&mut self) {
        while let Some(output) = self.ua.poll_output() {
            match output {
                UserAgentOutput::Send(bytes) => self.sent.push(sip::parse::stream(&bytes).unwrap()),
                UserAgentOutput::Agreed(agreed) => self.agreed.push(*agreed),
                UserAgentOutput::Early(_) | UserAgentOutput::Digit(_) => self.other += 1,
                UserAgentOutput::Released => self.released += 1,
                UserAgentOutput::Ended(end) => assert_eq!(self.end.replace(end), None),
            }
        }
    }

    fn receive(&mut self, message: impl Into<Message>) {
        self.ua.receive(self.now, message.into());
        self.drain();
    }

    fn pass(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(due) = self.ua.poll_timeout().filter(|due| *due <= end) {
            self.now = due.max(self.now);
            self.ua.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    /// The one request sent since the last call, which has this method.
    fn request(&mut self, method: &str) -> Request {
        let found: Vec<_> = self.sent.drain(..).collect();
        match &found[..] {
            [Message::Request(request)] if request.method.as_str() == method => request.clone(),
            other => panic!("not one {method}: {other:?}"),
        }
    }

    fn response(&mut self) -> Response {
        match self.sent.drain(..).next() {
            Some(Message::Response(response)) => response,
            other => panic!("no response: {other:?}"),
        }
    }

    fn far_answer(&mut self, offer: &[u8]) -> String {
        let offer = Session::parse(offer).unwrap();
        let media = &offer.media[0];
        let theirs = CryptoLine::choose(media.crypto(), &Suite::PREFERENCE).chosen.unwrap();
        let line = CryptoLine::generate(theirs.tag, theirs.key.suite(), &mut SeededRandom::new(5));
        self.far.crypto = [(0, line.to_attribute())].into();
        sdp::answer(&offer, &self.far).unwrap().session.to_string()
    }

    fn far_offer(&mut self, seed: u64) -> String {
        let line = CryptoLine::generate(1, Suite::AeadAes128Gcm, &mut SeededRandom::new(seed));
        self.far.offer_crypto = vec![line.to_attribute()];
        sdp::offer(&self.far).to_string()
    }

    /// Answers the INVITE; returns the 200.
    fn answer(&mut self) -> Response {
        let invite = self.request("INVITE");
        let body = self.far_answer(&invite.body);
        let ok = ok(&invite, "far", Some(body));
        self.receive(ok.clone());
        ok
    }

    /// A world whose call is up; returns the 200 too.
    fn up() -> (Self, Response) {
        let mut world = Self::new(OfferMode::Early);
        let ok = world.answer();
        world.request("ACK");
        assert_eq!(world.agreed.len(), 1);
        (world, ok)
    }

    /// A request of the far end within the dialog that `ok` made.
    fn far_request(&self, ok: &Response, method: &str, cseq: u32) -> Request {
        let uri = Uri::parse("sip:load@127.0.0.1:40000").unwrap();
        let mut request = Request::new(Method::parse(method).unwrap(), uri);
        let headers = &mut request.headers;
        let via = format!("SIP/2.0/TLS 127.0.0.1:5061;branch=z9hG4bK{method}{cseq}");
        headers.push(Name::Via, via);
        headers.push(Name::MaxForwards, "70");
        headers.push(Name::From, ok.headers.text(Name::To).unwrap());
        headers.push(Name::To, ok.headers.text(Name::From).unwrap());
        headers.push(Name::CallId, "call-1");
        headers.push(Name::CSeq, format!("{cseq} {method}"));
        headers.push(Name::Contact, "<sip:reception@127.0.0.1:5061>");
        request
    }
}

fn ok(request: &Request, tag: &str, body: Option<String>) -> Response {
    let mut ok = Response::to(request, Status::OK, Some(tag));
    ok.headers.push(Name::Contact, "<sip:reception@127.0.0.1:5061;transport=tls>");
    match body {
        Some(body) => ok.with_body("application/sdp", body),
        None => ok,
    }
}

#[test]
fn a_call_is_answered_acknowledged_and_hung_up() {
    let (mut world, _) = World::up();
    let agreed = &world.agreed[0];
    assert_eq!(agreed.negotiated.codecs[0].name, "PCMU");
    assert_eq!(agreed.negotiated.remote.unwrap().port(), 20_000);
    let keys = agreed.keys.as_ref().unwrap();
    assert_eq!((keys.send.suite(), keys.receive.suite()), {
        (Suite::AeadAes128Gcm, Suite::AeadAes128Gcm)
    });
    assert_ne!(keys.send, keys.receive);
    world.ua.end(world.now, End::Over(Ending::Hold));
    world.drain();
    let bye = world.request("BYE");
    assert_eq!((world.released, world.end.clone()), (1, None));
    world.receive(Response::to(&bye, Status::OK, None));
    assert_eq!(world.end, Some(End::Over(Ending::Hold)));
}

#[test]
fn a_repeated_200_gets_its_ack_again() {
    let (mut world, ok) = World::up();
    world.receive(ok);
    let ack = world.request("ACK");
    assert_eq!(ack.headers.cseq().unwrap().number, 1);
    assert_eq!(world.agreed.len(), 1);
}

#[test]
fn a_second_branch_of_a_fork_is_hung_up() {
    let mut world = World::new(OfferMode::Early);
    let Some(Message::Request(invite)) = world.sent.first().cloned() else { panic!() };
    world.answer();
    world.sent.clear();
    world.receive(ok(&invite, "other", None));
    let methods = world.sent.iter().map(|it| match it {
        Message::Request(request) => {
            (request.method.clone(), request.headers.to_tag().unwrap_or_default())
        }
        Message::Response(_) => panic!(),
    });
    let other = || "other".to_owned();
    assert!(methods.eq([(Method::Ack, other()), (Method::Bye, other())]));
    assert_eq!(world.end, None);
}

#[test]
fn a_refusal_is_told_by_its_code_or_its_phrase() {
    for (warning, reason) in [
        (Some("399 callgate \"policy.unknown_peer\""), "policy.unknown_peer"),
        (Some("399 edge \"policy.unknown_peer: see the log\""), "policy.unknown_peer"),
        (Some("399 edge \"no idea\""), "Forbidden"),
        (Some("305 edge \"policy.unknown_peer\""), "Forbidden"),
        (None, "Forbidden"),
    ] {
        let mut world = World::new(OfferMode::Early);
        let invite = world.request("INVITE");
        let mut refused = Response::to(&invite, Status::FORBIDDEN, Some("far"));
        warning.iter().for_each(|warning| refused.headers.push(Name::Warning, warning));
        world.receive(refused);
        assert_eq!(world.request("ACK").headers.to_tag().as_deref(), Some("far"));
        let expected = End::Failed { status: Some(403), reason: reason.into() };
        assert_eq!(world.end, Some(expected), "{warning:?}");
    }
}

#[test]
fn an_invite_without_a_description_is_answered_in_the_ack() {
    let mut world = World::new(OfferMode::Late);
    let invite = world.request("INVITE");
    assert!(invite.body.is_empty());
    let offer = world.far_offer(5);
    world.receive(ok(&invite, "far", Some(offer.clone())));
    let ack = world.request("ACK");
    let answer = Session::parse(&ack.body).unwrap();
    let offer = Session::parse(offer.as_bytes()).unwrap();
    let far = sdp::accept_answer(&offer, &answer).unwrap();
    assert_eq!(far.remote.unwrap().port(), 30_000);
    assert_eq!(world.agreed.len(), 1);
}

#[test]
fn an_answer_without_our_keys_ends_the_call_with_its_reason() {
    let mut world = World::new(OfferMode::Early);
    let invite = world.request("INVITE");
    let body = world.far_answer(&invite.body).replace("a=crypto", "a=nothing");
    world.receive(ok(&invite, "far", Some(body)));
    let Some(Message::Request(bye)) = world.sent.pop() else { panic!() };
    world.receive(Response::to(&bye, Status::OK, None));
    let reason = "media.no_common_crypto".into();
    assert_eq!(world.end, Some(End::Failed { status: Some(200), reason }));
    assert!(world.agreed.is_empty());
}

#[test]
fn a_call_given_up_is_cancelled_and_one_answered_meanwhile_hung_up() {
    let timeout = || End::Failed { status: Some(180), reason: "setup.timeout".into() };
    for is_crossing in [false, true] {
        let mut world = World::new(OfferMode::Early);
        let invite = world.request("INVITE");
        world.receive(Response::to(&invite, Status::RINGING, Some("far")));
        world.ua.end(world.now, timeout());
        world.drain();
        let cancel = world.request("CANCEL");
        assert_eq!(cancel.headers.top_via().unwrap(), invite.headers.top_via().unwrap());
        if is_crossing {
            let body = world.far_answer(&invite.body);
            world.receive(ok(&invite, "far", Some(body)));
            let Some(Message::Request(bye)) = world.sent.pop() else { panic!() };
            assert_eq!(bye.method, Method::Bye);
            world.receive(Response::to(&bye, Status::OK, None));
        } else {
            world.receive(Response::to(&invite, Status::REQUEST_TERMINATED, Some("far")));
        }
        assert_eq!(world.end, Some(timeout()), "crossing: {is_crossing}");
        assert!(world.agreed.is_empty());
    }
}

#[test]
fn a_planned_end_tells_its_cause_and_a_fault_tells_none() {
    let cause = Some(Cause::Q850(31));
    let said = |world: &World| world.ua.farewell().unwrap().to_string();
    let told = |request: &Request| request.headers.text(Name::Reason).map(str::to_owned);

    let (mut world, _) = World::up();
    world.ua.parties.cause = cause;
    world.ua.end(world.now, End::Over(Ending::Hold));
    world.drain();
    assert_eq!(told(&world.request("BYE")).as_deref(), Some("Q.850;cause=31"));
    assert_eq!(said(&world), "us, BYE, Q.850 31");

    let (mut world, _) = World::up();
    world.ua.parties.cause = cause;
    world.ua.end(world.now, End::Over(Ending::Lost));
    world.drain();
    assert_eq!(told(&world.request("BYE")), None);
    assert_eq!(said(&world), "us, BYE, no cause");

    let mut world = World::new(OfferMode::Early);
    world.ua.parties.cause = Some(Cause::Sip(200));
    let invite = world.request("INVITE");
    world.receive(Response::to(&invite, Status::RINGING, Some("far")));
    world.ua.end(world.now, End::Over(Ending::Cancelled));
    world.drain();
    assert_eq!(told(&world.request("CANCEL")).as_deref(), Some("SIP;cause=200"));
    world.receive(Response::to(&invite, Status::REQUEST_TERMINATED, Some("far")));
    assert_eq!(said(&world), "us, CANCEL, SIP 200", "the 487 is no word of the far end's");
}

#[test]
fn what_the_far_end_tells_is_heard() {
    let said = |world: &World| world.ua.farewell().map(|it| it.to_string());
    let (mut world, ok) = World::up();
    assert_eq!(said(&world), None);
    let mut bye = world.far_request(&ok, "BYE", 10);
    bye.headers.push(Name::Reason, "SIP;cause=200, Q.850;cause=16;text=\"Normal\"");
    world.receive(bye);
    assert_eq!(said(&world).as_deref(), Some("far end, BYE, Q.850 16"));

    let mut world = World::new(OfferMode::Early);
    let invite = world.request("INVITE");
    let mut busy = Response::to(&invite, Status::BUSY_HERE, Some("far"));
    busy.headers.push(Name::Reason, "Q.850;cause=17");
    world.receive(busy);
    assert_eq!(said(&world).as_deref(), Some("far end, 486, Q.850 17"));

    let (mut world, _) = World::up();
    world.ua.flow_failed(world.now);
    assert_eq!(said(&world), None, "nobody said goodbye");
}

#[test]
fn a_far_end_that_never_answers_does_not_hold_us_up() {
    let mut world = World::new(OfferMode::Early);
    world.pass(40_000);
    let reason = "sip.timeout".into();
    assert_eq!(world.end, Some(End::Failed { status: None, reason }));

    let (mut world, _) = World::up();
    world.ua.end(world.now, End::Over(Ending::Script));
    world.pass(GOODBYE.as_millis() as u64);
    assert_eq!(world.end, Some(End::Over(Ending::Script)));
}

#[test]
fn a_lost_connection_ends_the_call() {
    let (mut world, _) = World::up();
    world.ua.flow_failed(world.now);
    world.drain();
    assert_eq!((world.released, world.end), (1, Some(End::Over(Ending::Lost))));

    let mut world = World::new(OfferMode::Early);
    world.ua.flow_failed(world.now);
    world.drain();
    let reason = "connect.lost".into();
    assert_eq!(world.end, Some(End::Failed { status: None, reason }));
}

#[test]
fn the_far_end_may_hang_up_ask_and_inform() {
    let (mut world, ok) = World::up();
    for (cseq, method, status) in
        [(10, "OPTIONS", 200), (11, "INFO", 200), (12, "REFER", 405), (13, "FANCY", 501)]
    {
        world.receive(world.far_request(&ok, method, cseq));
        assert_eq!(world.response().status.code(), status, "{method}");
    }
    world.receive(world.far_request(&ok, "INFO", 3));
    assert_eq!(world.response().status.code(), 500, "out of order");
    let mut stranger = world.far_request(&ok, "BYE", 14);
    stranger.headers.set(Name::From, "<sip:x@h>;tag=stranger");
    world.receive(stranger);
    assert_eq!((world.response().status.code(), world.end.clone()), (481, None));
    world.receive(world.far_request(&ok, "BYE", 15));
    assert_eq!(world.response().status, Status::OK);
    assert_eq!(world.end, Some(End::Over(Ending::FarEnd)));
}

#[test]
fn a_hold_of_the_far_end_is_answered_and_our_key_stays() {
    let (mut world, ok) = World::up();
    let before = world.agreed[0].keys.clone().unwrap();
    world.far.direction = Direction::SendOnly;
    let body = world.far_offer(9);
    let invite = world.far_request(&ok, "INVITE", 10).with_body("application/sdp", body);
    world.receive(invite.clone());
    let answer = world.response();
    assert!(String::from_utf8_lossy(&answer.body).contains("a=recvonly"));
    let agreed = world.agreed.pop().unwrap();
    let after = agreed.keys.unwrap();
    assert_eq!(agreed.negotiated.direction, Direction::RecvOnly);
    assert_eq!(after.send, before.send);
    assert_ne!(after.receive, before.receive);

    // Until its ACK the answer is repeated, and another offer has to wait.
    world.pass(600);
    assert_eq!(world.response(), answer);
    let body = world.far_offer(9);
    world.receive(world.far_request(&ok, "UPDATE", 11).with_body("application/sdp", body));
    assert_eq!(world.response().status, Status::REQUEST_PENDING);
    world.receive(world.far_request(&ok, "ACK", 10));
    world.pass(40_000);
    assert_eq!((world.sent.len(), world.end), (0, None));
}

#[test]
fn a_re_invite_without_a_description_gets_our_offer_and_ends_a_hold() {
    let (mut world, ok) = World::up();
    world.far.direction = Direction::SendOnly;
    let body = world.far_offer(9);
    world.receive(world.far_request(&ok, "UPDATE", 10).with_body("application/sdp", body));
    assert_eq!(world.response().status, Status::OK);
    assert_eq!(world.agreed.pop().unwrap().negotiated.direction, Direction::RecvOnly);

    world.receive(world.far_request(&ok, "INVITE", 11));
    let offered = world.response();
    assert!(String::from_utf8_lossy(&offered.body).contains("a=sendrecv"));
    world.far.direction = Direction::SendRecv;
    let body = world.far_answer(&offered.body);
    world.receive(world.far_request(&ok, "ACK", 11).with_body("application/sdp", body));
    assert_eq!(world.agreed.pop().unwrap().negotiated.direction, Direction::SendRecv);
}

#[test]
fn what_cannot_be_answered_leaves_the_session_as_it_was() {
    let (mut world, ok) = World::up();
    let plain = "v=0\r\no=- 7 2 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
        m=audio 20000 RTP/AVP 0\r\n";
    for (cseq, kind, body, status) in [
        (10, "application/sdp", plain, 488),
        (11, "application/sdp", "v=1", 488),
        (12, "text/plain", "hi", 415),
    ] {
        world.receive(world.far_request(&ok, "INVITE", cseq).with_body(kind, body));
        assert_eq!(world.response().status.code(), status);
    }
    let mut short = world.far_request(&ok, "UPDATE", 20);
    short.headers.push(Name::SessionExpires, "30");
    world.receive(short);
    assert_eq!(world.response().status.code(), 422);
    assert_eq!((world.agreed.len(), world.end), (1, None));
}

#[test]
fn our_hold_is_agreed_on_and_a_crossing_one_is_made_again() {
    let (mut world, _) = World::up();
    world.ua.hold(world.now, Direction::SendOnly);
    world.drain();
    let invite = world.request("INVITE");
    assert!(String::from_utf8_lossy(&invite.body).contains("a=sendonly"));
    world.receive(Response::to(&invite, Status::REQUEST_PENDING, None));
    assert_eq!(world.request("ACK").headers.cseq().unwrap().number, 2);
    world.pass(2_000);
    assert!(world.sent.is_empty());
    world.pass(2_100);
    let invite = world.request("INVITE");
    let body = world.far_answer(&invite.body);
    world.receive(ok(&invite, "far", Some(body)));
    assert_eq!(world.request("ACK").headers.cseq().unwrap().number, 3);
    assert_eq!(world.agreed.pop().unwrap().negotiated.direction, Direction::SendOnly);
}

#[test]
fn the_session_is_refreshed_when_that_is_our_part() {
    let mut world = World::new(OfferMode::Early);
    let invite = world.request("INVITE");
    let body = world.far_answer(&invite.body);
    let mut answer = ok(&invite, "far", Some(body));
    answer.headers.push(Name::SessionExpires, "120;refresher=uac");
    answer.headers.push(Name::Allow, "INVITE, UPDATE");
    world.receive(answer);
    world.request("ACK");
    world.pass(61_000);
    let update = world.request("UPDATE");
    assert_eq!(update.headers.text(Name::SessionExpires), Some("1800;refresher=uac"));
    let mut taken = ok(&update, "far", None);
    taken.headers.push(Name::SessionExpires, "120;refresher=uac");
    world.receive(taken);
    world.pass(61_000);
    let update = world.request("UPDATE");
    world.receive(Response::to(&update, Status::CALL_DOES_NOT_EXIST, None));
    assert_eq!(world.request("BYE").headers.cseq().unwrap().number, 4);
}
