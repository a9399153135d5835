use std::time::Duration;

use super::*;
use crate::header::{Headers, Name};
use crate::uri::Uri;

const FLOW: FlowId = FlowId(1);

/// One end of the network with a clock that jumps.
struct World {
    it: Transactions,
    now: Instant,
    is_reliable: bool,
}

impl World {
    fn new(is_reliable: bool) -> Self {
        let it = Transactions::new(7, &mut SeededRandom::new(1));
        Self { it, now: Instant::ZERO, is_reliable }
    }

    fn receive(&mut self, message: impl Into<Message>) -> Received {
        self.it.receive(self.now, FLOW, self.is_reliable, message.into())
    }

    fn arrive(&mut self, request: &Request) -> ServerKey {
        match self.receive(request.clone()) {
            Received::Request { key, request: same } if same == *request => key,
            other => panic!("{other:?}"),
        }
    }

    fn respond(&mut self, key: ServerKey, request: &Request, status: Status) -> Response {
        let response = Response::to(request, status, Some("07-0000000000000000"));
        self.it.respond(self.now, key, &response).expect("a live transaction");
        response
    }

    fn request(&mut self, request: &Request) -> ClientKey {
        let sent = self.it.request(self.now, FLOW, self.is_reliable, request.clone());
        sent.expect("room and a branch")
    }

    /// Start lines of what was sent, `+` before a repetition, and the other outputs.
    fn drain(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.it.poll_output())
            .map(|output| match output {
                TransactionOutput::Send { bytes, is_repetition, .. } => {
                    let text = String::from_utf8_lossy(&bytes).into_owned();
                    let line = text.lines().next().unwrap_or_default();
                    format!("{}{}", if is_repetition { "+" } else { "" }, short(line))
                }
                TransactionOutput::Timeout { .. } => "timeout".into(),
                TransactionOutput::TransportFailed { .. } => "failed".into(),
                TransactionOutput::ServerGone { cause: ServerGone::NoAck, .. } => "no ack".into(),
                TransactionOutput::ServerGone { .. } => "flow lost".into(),
                TransactionOutput::Terminated { .. } => "end".into(),
            })
            .collect()
    }

    /// Lets `time` pass; outputs with the millisecond at which they came.
    fn pass(&mut self, time: Duration) -> Vec<(u128, String)> {
        let (start, end) = (self.now, self.now + time);
        let mut seen = Vec::new();
        while let Some(due) = self.it.poll_timeout().filter(|due| *due <= end) {
            self.now = due;
            self.it.handle_timeout(due);
            let at = due.since(start).as_millis();
            seen.extend(self.drain().into_iter().map(|output| (at, output)));
        }
        self.now = end;
        seen
    }
}

fn short(line: &str) -> String {
    let mut words = line.split(' ');
    match words.next() {
        Some("SIP/2.0") => words.next().unwrap_or_default().to_owned(),
        word => word.unwrap_or_default().to_owned(),
    }
}

fn request(method: Method, via: &str) -> Request {
    let mut request = Request::new(method, Uri::parse("sip:b@edge").unwrap());
    let cseq = format!("1 {}", request.method);
    let fields = [
        (Name::Via, via),
        (Name::From, "<sip:a@h>;tag=at"),
        (Name::To, "<sip:b@edge>"),
        (Name::CallId, "c1"),
        (Name::CSeq, &cseq),
    ];
    fields.iter().for_each(|(name, value)| request.headers.push(*name, value));
    request
}

const VIA: &str = "SIP/2.0/UDP a;branch=z9hG4bK1";

fn reply(request: &Request, status: Status) -> Response {
    Response::to(request, status, Some("bt"))
}

fn words(seen: &[(u128, String)]) -> Vec<&str> {
    seen.iter().map(|(_, output)| output.as_str()).collect()
}

fn times(seen: &[(u128, String)], word: &str) -> Vec<u128> {
    seen.iter().filter(|(_, output)| output == word).map(|(at, _)| *at).collect()
}

#[test]
fn an_invite_without_an_answer_gets_100_after_200_ms_and_each_copy_gets_it_again() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    world.arrive(&invite);
    assert_eq!(world.receive(invite.clone()), Received::Absorbed(Absorbed::Retransmission));
    assert_eq!(world.drain(), [""; 0]);
    assert_eq!(world.pass(TRYING_AFTER), [(200, "100".to_owned())]);
    world.receive(invite);
    assert_eq!(world.drain(), ["+100"]);

    let mut quiet = World::new(false);
    quiet.it = Transactions::new(7, &mut SeededRandom::new(1)).without_automatic_trying();
    quiet.arrive(&request(Method::Invite, VIA));
    assert_eq!(quiet.it.poll_timeout(), None);
}

#[test]
fn a_refusal_is_repeated_until_its_ack_on_udp() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.arrive(&invite);
    world.respond(key, &invite, Status::BUSY_HERE);
    assert_eq!(world.drain(), ["486"]);
    let seen = world.pass(Duration::from_secs(12));
    assert_eq!(times(&seen, "+486"), [500, 1500, 3500, 7500, 11_500]);
    let ack = request(Method::Ack, VIA);
    assert_eq!(world.receive(ack.clone()), Received::Absorbed(Absorbed::AckOfFailure));
    assert_eq!(world.receive(ack), Received::Absorbed(Absorbed::AckOfFailure));
    assert_eq!(world.pass(Duration::from_secs(60)), [(5000, "end".to_owned())]);
    assert!(world.it.is_empty());
}

#[test]
fn a_refusal_without_ack_is_given_up_after_64_t1() {
    for is_reliable in [false, true] {
        let mut world = World::new(is_reliable);
        let invite = request(Method::Invite, VIA);
        let key = world.arrive(&invite);
        world.respond(key, &invite, Status::BUSY_HERE);
        world.drain();
        let seen = world.pass(Duration::from_secs(60));
        assert_eq!(times(&seen, "no ack"), [32_000]);
        assert_eq!(times(&seen, "+486").is_empty(), is_reliable);
        assert!(world.it.is_empty());
    }
}

#[test]
fn after_a_2xx_copies_are_absorbed_and_the_owner_repeats_it() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.arrive(&invite);
    world.respond(key, &invite, Status::RINGING);
    let ok = world.respond(key, &invite, Status::OK);
    assert_eq!(world.drain(), ["180", "200"]);
    world.receive(invite.clone());
    assert_eq!(world.drain(), [""; 0]);
    assert_eq!(world.it.respond(world.now, key, &ok), Ok(()));
    assert_eq!(world.drain(), ["+200"]);
    let late = reply(&invite, Status::BUSY_HERE);
    assert_eq!(world.it.respond(world.now, key, &late), Err(RespondError::AlreadyFinal));
    // RFC 3261 section 17.1.1.3: the ACK of a 2xx has a branch of its own.
    let ack = request(Method::Ack, "SIP/2.0/UDP a;branch=z9hG4bK2");
    assert!(matches!(world.receive(ack), Received::Ack { invite: None, .. }));
    let old = request(Method::Ack, VIA);
    assert!(
        matches!(world.receive(old), Received::Ack { invite: Some(found), .. } if found == key)
    );
    assert_eq!(world.pass(Duration::from_secs(40)), [(32_000, "end".to_owned())]);
    assert_eq!(world.it.respond(world.now, key, &ok), Err(RespondError::Unknown));
}

#[test]
fn a_copy_of_a_request_gets_the_same_response_until_timer_j() {
    let mut world = World::new(false);
    let options = request(Method::Options, VIA);
    let key = world.arrive(&options);
    world.receive(options.clone());
    assert_eq!(world.drain(), [""; 0]);
    world.respond(key, &options, Status::OK);
    world.receive(options.clone());
    assert_eq!(world.drain(), ["200", "+200"]);
    assert_eq!(world.pass(Duration::from_secs(40)), [(32_000, "end".to_owned())]);
    world.arrive(&options);

    let mut reliable = World::new(true);
    let key = reliable.arrive(&options);
    reliable.respond(key, &options, Status::OK);
    assert_eq!(reliable.drain(), ["200", "end"]);
}

#[test]
fn a_request_that_is_never_answered_is_forgotten() {
    let mut world = World::new(true);
    world.arrive(&request(Method::Message, VIA));
    assert_eq!(world.pass(Duration::from_secs(40)), [(32_000, "end".to_owned())]);
}

#[test]
fn cancel_ends_a_pending_invite_with_the_same_tag() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.arrive(&invite);
    let ringing = world.respond(key, &invite, Status::RINGING);
    world.drain();
    let cancel = invite.cancel();
    match world.receive(cancel.clone()) {
        Received::Cancelled { invite, .. } => assert_eq!(invite, key),
        other => panic!("{other:?}"),
    }
    let Some(TransactionOutput::Send { bytes, .. }) = world.it.poll_output() else {
        panic!("a 200")
    };
    let Ok(Message::Response(ok)) = crate::parse::datagram(&bytes) else { panic!("a response") };
    assert_eq!(ok.headers.cseq().unwrap().method, Method::Cancel);
    assert_eq!(ok.headers.to_tag(), ringing.headers.to_tag());

    world.respond(key, &invite, Status::REQUEST_TERMINATED);
    world.drain();
    assert_eq!(world.receive(cancel), Received::Absorbed(Absorbed::Retransmission));
    assert_eq!(world.drain(), ["+200"]);
}

#[test]
fn a_cancel_too_late_or_of_nothing_is_answered_here() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.arrive(&invite);
    world.respond(key, &invite, Status::OK);
    world.drain();
    assert_eq!(world.receive(invite.cancel()), Received::Absorbed(Absorbed::CancelTooLate));
    assert_eq!(world.drain(), ["200"]);
    let stray = request(Method::Cancel, "SIP/2.0/UDP a;branch=z9hG4bK9");
    assert_eq!(world.receive(stray), Received::Absorbed(Absorbed::CancelUnmatched));
    assert_eq!(world.drain(), ["481"]);
}

#[test]
fn requests_of_rfc_2543_peers_are_matched_without_a_branch() {
    let mut world = World::new(false);
    let via = "SIP/2.0/UDP old.example";
    let mut invite = request(Method::Invite, via);
    let key = world.arrive(&invite);
    invite.stamp_source("192.0.2.1:5060".parse().unwrap());
    assert_eq!(world.receive(invite.clone()), Received::Absorbed(Absorbed::Retransmission));
    world.respond(key, &invite, Status::BUSY_HERE);
    let mut ack = request(Method::Ack, via);
    ack.headers.set(Name::To, "<sip:b@edge>;tag=07-0000000000000000");
    assert_eq!(world.receive(ack), Received::Absorbed(Absorbed::AckOfFailure));
    let mut other = request(Method::Invite, via);
    other.headers.set(Name::CallId, "c2");
    world.arrive(&other);
}

#[test]
fn transactions_of_two_senders_with_one_branch_are_two() {
    let mut world = World::new(false);
    let first = world.arrive(&request(Method::Invite, VIA));
    let second = world.arrive(&request(Method::Invite, "SIP/2.0/UDP b;branch=z9hG4bK1"));
    assert_ne!(first, second);
    // RFC 3261 section 8.2.2.2: same From tag, Call-ID and CSeq outside a dialog.
    assert!(!world.it.is_merged(first));
    assert!(world.it.is_merged(second));
}

#[test]
fn our_invite_is_repeated_ever_slower_and_times_out() {
    let mut world = World::new(false);
    world.request(&request(Method::Invite, VIA));
    assert_eq!(world.drain(), ["INVITE"]);
    let seen = world.pass(Duration::from_secs(60));
    assert_eq!(times(&seen, "+INVITE"), [500, 1500, 3500, 7500, 15_500, 31_500]);
    assert_eq!(times(&seen, "timeout"), [32_000]);
    assert_eq!(words(&seen).last(), Some(&"end"));

    let mut reliable = World::new(true);
    reliable.request(&request(Method::Invite, VIA));
    reliable.drain();
    assert_eq!(words(&reliable.pass(Duration::from_secs(60))), ["timeout", "end"]);
}

#[test]
fn our_other_requests_are_repeated_at_most_every_t2() {
    let mut world = World::new(false);
    let options = request(Method::Options, VIA);
    world.request(&options);
    world.drain();
    let seen = world.pass(Duration::from_secs(8));
    assert_eq!(times(&seen, "+OPTIONS"), [500, 1500, 3500, 7500]);
    assert!(matches!(world.receive(reply(&options, Status::TRYING)), Received::Response { .. }));
    let seen = world.pass(Duration::from_secs(8));
    assert_eq!(times(&seen, "+OPTIONS"), [3500, 7500]);
    let ok = reply(&options, Status::OK);
    assert!(matches!(world.receive(ok.clone()), Received::Response { .. }));
    assert_eq!(world.receive(ok.clone()), Received::Absorbed(Absorbed::RepeatedResponse));
    assert_eq!(world.pass(Duration::from_secs(8)), [(5000, "end".to_owned())]);
    assert!(matches!(world.receive(ok), Received::Stray(_)));
}

#[test]
fn a_failure_is_acknowledged_here_each_time_it_comes() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.request(&invite);
    world.drain();
    let busy = reply(&invite, Status::BUSY_HERE);
    match world.receive(busy.clone()) {
        Received::Response { key: found, response } => {
            assert_eq!((found, response.status), (key, Status::BUSY_HERE));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.receive(busy), Received::Absorbed(Absorbed::RepeatedResponse));
    assert_eq!(world.drain(), ["ACK", "+ACK"]);
    assert_eq!(world.pass(Duration::from_secs(40)), [(32_000, "end".to_owned())]);

    let mut reliable = World::new(true);
    reliable.request(&invite);
    reliable.drain();
    reliable.receive(reply(&invite, Status::BUSY_HERE));
    assert_eq!(reliable.drain(), ["ACK", "end"]);
}

#[test]
fn each_2xx_reaches_the_owner_for_its_ack() {
    let mut world = World::new(true);
    let invite = request(Method::Invite, VIA);
    world.request(&invite);
    assert!(matches!(world.receive(reply(&invite, Status::RINGING)), Received::Response { .. }));
    world.drain();
    assert_eq!(world.pass(Duration::from_secs(600)), []);
    for _ in 0..3 {
        assert!(matches!(world.receive(reply(&invite, Status::OK)), Received::Response { .. }));
    }
    assert_eq!(world.drain(), [""; 0]);
    assert_eq!(world.pass(Duration::from_secs(40)), [(32_000, "end".to_owned())]);
}

#[test]
fn our_cancel_waits_for_a_provisional_response_and_limits_the_wait_for_the_final_one() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, VIA);
    let key = world.request(&invite);
    world.drain();
    let reason = Header::new(Name::Reason, "SIP;cause=200");
    world.it.cancel(world.now, key, Some(reason));
    assert_eq!(world.drain(), [""; 0]);
    assert!(matches!(world.receive(reply(&invite, Status::RINGING)), Received::Response { .. }));
    assert_eq!(world.drain(), ["CANCEL"]);
    world.it.cancel(world.now, key, None);
    assert_eq!(world.drain(), [""; 0]);
    let ok = reply(&invite.cancel(), Status::OK);
    assert_eq!(world.receive(ok), Received::Absorbed(Absorbed::RepeatedResponse));
    assert_eq!(words(&world.pass(Duration::from_secs(40))), ["timeout", "end"]);
    assert!(world.it.is_empty());
}

#[test]
fn a_2xx_that_crosses_our_cancel_still_reaches_the_owner() {
    let mut world = World::new(true);
    let invite = request(Method::Invite, VIA);
    let key = world.request(&invite);
    world.receive(reply(&invite, Status::RINGING));
    world.it.cancel(world.now, key, None);
    assert!(matches!(world.receive(reply(&invite, Status::OK)), Received::Response { .. }));
    assert_eq!(world.drain(), ["INVITE", "CANCEL"]);
    // The CANCEL of which the owner knows nothing times out in silence.
    assert_eq!(world.pass(Duration::from_secs(60)), [(32_000, "end".to_owned())]);
    assert!(world.it.is_empty());
}

#[test]
fn a_lost_flow_fails_our_requests_and_silences_our_responses() {
    let mut world = World::new(true);
    let options = request(Method::Options, "SIP/2.0/TLS me;branch=z9hG4bKmine");
    let invite = request(Method::Invite, VIA);
    world.request(&options);
    let key = world.arrive(&invite);
    world.drain();
    world.it.flow_failed(world.now, FLOW);
    assert_eq!(world.drain(), ["failed", "end", "flow lost"]);
    world.respond(key, &invite, Status::BUSY_HERE);
    assert_eq!(world.drain(), [""; 0]);

    // The peer comes back on another connection and asks again.
    let again = world.it.receive(world.now, FlowId(2), true, invite.into());
    assert_eq!(again, Received::Absorbed(Absorbed::Retransmission));
    match world.it.poll_output() {
        Some(TransactionOutput::Send { flow, .. }) => assert_eq!(flow, FlowId(2)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn responses_that_are_not_for_us_are_stray() {
    let mut world = World::new(true);
    let options = request(Method::Options, VIA);
    world.request(&options);
    let mut forwarded = reply(&options, Status::OK);
    forwarded.headers.push(Name::Via, "SIP/2.0/TLS other;branch=z9hG4bKx");
    assert!(matches!(world.receive(forwarded), Received::Stray(_)));
    let mut wrong = reply(&options, Status::OK);
    wrong.headers.set(Name::CSeq, "1 BYE");
    assert!(matches!(world.receive(wrong), Received::Stray(_)));
    let mut bare = reply(&options, Status::OK);
    bare.headers = Headers::new();
    assert!(matches!(world.receive(bare), Received::Stray(_)));
}

#[test]
fn there_is_room_for_so_many_and_no_more() {
    let mut world = World::new(true);
    world.it = Transactions::new(7, &mut SeededRandom::new(1)).with_limit(1);
    let first = request(Method::Options, VIA);
    let second = request(Method::Options, "SIP/2.0/UDP b;branch=z9hG4bK2");
    let key = world.arrive(&first);
    assert_eq!(world.receive(second.clone()), Received::Overloaded(second.clone()));
    let refused = world.it.request(world.now, FLOW, true, second.clone());
    assert_eq!(refused, Err(RequestError::Full));
    world.respond(key, &first, Status::OK);
    world.drain();
    world.arrive(&second);
}

#[test]
fn requests_of_ours_need_a_branch_that_is_free() {
    let mut world = World::new(true);
    world.request(&request(Method::Options, VIA));
    for (wrong, error) in [
        (request(Method::Options, VIA), RequestError::BranchInUse),
        (request(Method::Options, "SIP/2.0/UDP a;branch=1"), RequestError::NoBranch),
        (request(Method::Options, "nonsense"), RequestError::NoBranch),
        (request(Method::Ack, "SIP/2.0/UDP a;branch=z9hG4bK7"), RequestError::Ack),
    ] {
        assert_eq!(world.it.request(world.now, FLOW, true, wrong), Err(error));
    }
}

#[test]
fn an_invite_that_is_ignored_stays_without_a_word_until_the_client_gives_up() {
    let mut world = World::new(false);
    let invite = request(Method::Invite, "SIP/2.0/UDP a;branch=z9hG4bK1");
    let key = world.arrive(&invite);
    world.it.ignore(world.now, key);
    assert_eq!(world.pass(T1), [], "no 100");
    let absorbed = |absorbed| Received::Absorbed(absorbed);
    assert_eq!(world.receive(invite.clone()), absorbed(Absorbed::Retransmission));
    assert_eq!(world.receive(invite.cancel()), absorbed(Absorbed::CancelIgnored));
    let response = Response::to(&invite, Status::OK, Some("1"));
    assert_eq!(world.it.respond(world.now, key, &response), Err(RespondError::AlreadyFinal));
    // By another path it is not told that it came twice.
    let mut other = invite;
    other.headers.edit_top_via(|via| via.params.set("branch", Some("z9hG4bKother")));
    let merged = world.arrive(&other);
    assert!(!world.it.is_merged(merged));
    world.it.ignore(world.now, merged);
    assert!(world.pass(GIVE_UP * 2).iter().all(|(_, it)| it == "end"));
    assert!(world.it.is_empty());
}
