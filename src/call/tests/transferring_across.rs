//! Stories of transfers that join calls of two shards.

use std::time::Duration;

use base::{Event, LegId, Random, Reason, SeededRandom};
use policy::Transport;
use sip::{Message, Request};

use super::bridging::{
    Callee, body, bridge, callee_answer, connected, plans, requests, reserve, responses,
};
use super::browsers::{BROWSERS, CHROME, answer_of};
use super::browsers_called::up;
use super::transferring::{latest, methods, news, refer};
use super::transferring_by_pass::consult;
use super::world::{
    Caller, POLICY, World, described, direction, fresh_fingerprint, offer, offer_with, peer, sdp_of,
};
use crate::Input;

/// Two shards, and what they tell each other.
pub(super) struct Shards {
    /// Shard 3, where the call is whose party is carried over.
    pub(super) here: World,
    /// Shard 4, where the other call is.
    pub(super) there: World,
}

impl Shards {
    pub(super) fn new() -> Self {
        Self::seeded(1, POLICY)
    }

    pub(super) fn seeded(seed: u64, policy: &str) -> Self {
        Self { here: World::made(seed, policy), there: World::of_shard(4, seed ^ 0xff, policy) }
    }

    /// Carries what either tells the other, until nothing is left.
    pub(super) fn settle(&mut self) {
        while self.step() {}
    }

    /// Carries what either has told the other so far; `false` where that is nothing.
    pub(super) fn step(&mut self) -> bool {
        let (from_here, from_there) =
            (std::mem::take(&mut self.here.crossed), std::mem::take(&mut self.there.crossed));
        let is_over = from_here.is_empty() && from_there.is_empty();
        for (shard, crossing) in from_here.into_iter().chain(from_there) {
            match shard {
                3 => self.here.input(Input::Crossed(crossing)),
                4 => self.there.input(Input::Crossed(crossing)),
                _ => panic!("there is no shard {shard}"),
            }
        }
        !is_over
    }

    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis() / 100 {
            self.here.pass(Duration::from_millis(100));
            self.there.pass(Duration::from_millis(100));
            self.settle();
        }
    }

    pub(super) fn assert_quiet(&mut self) {
        self.pass(Duration::from_secs(100));
        self.here.assert_quiet();
        self.there.assert_quiet();
        for world in [&self.here, &self.there] {
            let left = format!("{:?}", world.calls.away);
            assert_eq!(left, format!("{:?}", crate::across::Away::default()), "a stub is left");
        }
    }
}

/// The carrier's second call, on the other shard: its caller, who it is that it talks with, and
/// the value that names it.
fn second_call(world: &mut World, caller: &Caller) -> (Caller, Callee, String) {
    let (second, third) = consult(world, caller);
    let call_id = second.call_id.replace('@', "%40");
    let named = format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
    (second, third, named)
}

struct Joined {
    shards: Shards,
    callee: Callee,
    third: Callee,
    /// The leg of `third` after it has moved.
    moved: LegId,
}

/// An attended transfer up to the re-INVITE of the leg that has moved.
fn joined() -> (Joined, Request) {
    let mut shards = Shards::new();
    let (mut caller, callee) = connected(&mut shards.here);
    let (second, third, named) = second_call(&mut shards.there, &caller);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    // The second call's own leg is let go over there, and its ports with those of its far end.
    let bye = requests(&mut shards.there).remove(0);
    assert_eq!(bye.headers.call_id().unwrap(), second.call_id);
    second.answer(&mut shards.there, &bye, "200 OK", "|");
    assert_eq!(shards.there.ends(), [Reason::Transferred]);
    assert!(shards.there.released.contains(&third.leg));
    assert_eq!(methods(&requests(&mut shards.here)), ["NOTIFY"]);
    let (moved, _) = *shards.here.needs.last().unwrap();
    assert_eq!(moved.call, callee.leg.call, "both legs ask one relay worker");
    reserve(&mut shards.here, moved, 23_000);
    let mut sent = requests(&mut shards.here);
    assert_eq!(methods(&sent), ["INVITE", "NOTIFY", "BYE"]);
    assert_eq!(news(&sent[1]), ("SIP/2.0 200 OK".to_owned(), true));
    caller.answer(&mut shards.here, &sent[2], "200 OK", "|");
    (Joined { shards, callee, third, moved }, sent.remove(0))
}

#[test]
fn an_attended_transfer_joins_the_far_ends_of_calls_of_two_shards() {
    let (joined, reinvite) = joined();
    let Joined { mut shards, callee, third, moved, .. } = joined;
    let here = &mut shards.here;
    assert_eq!(reinvite.headers.to_tag().as_deref(), Some("tag-callee"));
    assert_eq!(reinvite.headers.call_id().unwrap(), third.caller.call_id);
    assert_eq!(sdp_of(&reinvite.body).media[0].port, 23_000);
    let before = latest(&shards.there, third.leg).source.ssrc;
    assert_ne!(latest(here, moved).source.ssrc, before);
    third.caller.answer(here, &reinvite, "200 OK", &body(&callee_answer(&third, "8")));
    assert_eq!(methods(&requests(here)), ["ACK"]);
    assert_eq!(bridge(&latest(here, moved)).with, callee.leg);
    assert_eq!(bridge(&latest(here, callee.leg)).with, moved);
    assert_eq!(here.ends(), [], "the first call goes on");
    let legs = |world: &World| world.book.with(|counts| (counts.calls, counts.legs));
    assert_eq!((legs(here), legs(&shards.there)), ((1, 2), (0, 0)));

    // Its peer knows nothing of it: what it says still goes to the shard that its tag names.
    let mut third = third.caller;
    third.request(&mut shards.there, "INVITE", &offer_with("a=sendonly"));
    assert!(shards.there.take().is_empty());
    shards.settle();
    let held = shards.here.take();
    let [Message::Response(ok), Message::Request(hold)] = &held[..] else { panic!("{held:#?}") };
    assert_eq!((ok.status.code(), direction(&ok.body)), (200, "recvonly"));
    assert_eq!(direction(&hold.body), "sendonly");
    third.ack(&mut shards.there, "");
    shards.settle();
    shards.pass(Duration::from_secs(1));
    let again = requests(&mut shards.here);
    assert!(again.iter().all(|it| it.method.as_str() == "INVITE"), "the 200 is not repeated");

    third.request(&mut shards.there, "BYE", "");
    shards.settle();
    let sent = shards.here.take();
    let [Message::Response(ok), Message::Request(bye)] = &sent[..] else { panic!("{sent:#?}") };
    assert_eq!((ok.status.code(), bye.method.as_str()), (200, "BYE"));
    assert_eq!(shards.here.ends(), [Reason::CalleeHungUp]);
    shards.assert_quiet();
}

#[test]
fn a_browser_that_is_carried_into_a_call_of_another_shard_makes_another_association() {
    let mut shards = Shards::seeded(1, &format!("{BROWSERS}{POLICY}"));
    let (mut caller, callee) = connected(&mut shards.here);
    let (second, phone) = up(&mut shards.there, "active");
    let call_id = second.call_id.replace('@', "%40");
    let named = format!("{call_id}%3Bto-tag%3D{}%3Bfrom-tag%3D{}", second.to_tag, second.tag);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    assert!(shards.there.released.contains(&phone.leg));
    let (moved, need) = *shards.here.needs.last().unwrap();
    assert_eq!((moved.call, need.dtls, need.fresh_identity), (callee.leg.call, true, true));
    shards.here.take();
    shards.here.reserve();
    let reinvite = requests(&mut shards.here).remove(0);
    let shown = sdp_of(&reinvite.body).media[0].attribute("fingerprint").map(str::to_owned);
    assert_eq!(shown, Some(fresh_fingerprint().to_string()));
    phone.say(&mut shards.here, &reinvite, "200 OK", &answer_of(CHROME, "active"));
    assert_eq!(methods(&requests(&mut shards.here)), ["ACK"]);
    assert_eq!(bridge(&latest(&shards.here, callee.leg)).with, moved);
    assert_eq!(bridge(&latest(&shards.here, moved)).with, callee.leg);
}

#[test]
fn a_2xx_that_comes_again_after_the_move_is_acknowledged_by_the_stub() {
    let (joined, _) = joined();
    let Joined { mut shards, third, .. } = joined;
    third.accept(&mut shards.there, &callee_answer(&third, "8"));
    let sent = requests(&mut shards.there);
    assert_eq!(methods(&sent), ["ACK"]);
    assert_eq!(
        sent[0].headers.cseq(),
        third.invite.headers.cseq().map(|it| sip::CSeq { method: sip::Method::Ack, ..it })
    );
    shards.settle();
    assert!(shards.here.take().is_empty());
    assert_eq!(shards.here.ends(), []);
}

#[test]
fn a_request_that_comes_again_is_answered_where_it_was_first() {
    let mut shards = Shards::new();
    let (mut caller, _) = connected(&mut shards.here);
    let (second, mut third, named) = second_call(&mut shards.there, &caller);
    // Only over UDP does anything come twice.
    third.caller.peer = peer("203.0.113.70:5060", 200, Transport::Udp);
    let options = third.caller.request(&mut shards.there, "OPTIONS", "");
    assert_eq!(shards.there.status(), 200);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    let bye = requests(&mut shards.there).remove(0);
    second.answer(&mut shards.there, &bye, "200 OK", "|");
    third.caller.say(&mut shards.there, &options);
    assert_eq!(shards.there.status(), 200);
    third.caller.request(&mut shards.there, "OPTIONS", "");
    shards.here.take();
    shards.settle();
    assert_eq!(shards.here.status(), 200);
}

#[test]
fn a_leg_with_a_re_invite_under_way_moves_when_that_is_over() {
    for works in [true, false] {
        let mut shards = Shards::new();
        let (mut caller, callee) = connected(&mut shards.here);
        let (mut second, third, named) = second_call(&mut shards.there, &caller);
        // As phones do: the second call is held, and the REFER follows at once.
        second.request(&mut shards.there, "INVITE", &offer_with("a=sendonly"));
        second.ack(&mut shards.there, "");
        let hold = requests(&mut shards.there).remove(0);
        assert_eq!(hold.method.as_str(), "INVITE");
        refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
        shards.settle();
        assert_eq!(shards.there.ends(), []);
        shards.here.take();
        if works {
            let answer =
                body(&callee_answer(&third, "8").replace("a=crypto", "a=recvonly\r\na=crypto"));
            third.caller.answer(&mut shards.there, &hold, "200 OK", &answer);
            shards.settle();
            assert_eq!(shards.there.ends(), [Reason::Transferred]);
            let (moved, _) = *shards.here.needs.last().unwrap();
            assert_eq!(moved.call, callee.leg.call);
            reserve(&mut shards.here, moved, 23_000);
            let offered = requests(&mut shards.here).remove(0);
            assert_eq!(direction(&offered.body), "sendrecv", "nobody holds any more");
        } else {
            shards.pass(Duration::from_secs(6));
            let told = requests(&mut shards.here).pop().unwrap();
            assert_eq!(news(&told), ("SIP/2.0 491 Request Pending".to_owned(), true));
            assert_eq!((shards.here.ends(), shards.there.ends()), (vec![], vec![]));
            assert_eq!(bridge(&plans(&shards.here).0).with, callee.leg, "all is as it was");
        }
    }
}

#[test]
fn a_replaces_that_names_nothing_on_the_other_shard_joins_nothing() {
    let mut shards = Shards::new();
    let (mut caller, _) = connected(&mut shards.here);
    let named = "x%3Bto-tag%3D04-0123456789abcdef%3Bfrom-tag%3Db";
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    let told = requests(&mut shards.here).pop().unwrap();
    assert_eq!(news(&told).0, "SIP/2.0 481 Call/Transaction Does Not Exist");
    // A call of another carrier is as good as none.
    let stranger = Caller::new("beta", caller.peer.clone(), "second");
    let (_, _, named) = second_call(&mut shards.there, &stranger);
    let named = named.replace("from-tag%3Dtag-second", "from-tag%3Dtag-other");
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    let told = requests(&mut shards.here).pop().unwrap();
    assert_eq!(news(&told).0, "SIP/2.0 481 Call/Transaction Does Not Exist");
    assert_eq!((shards.here.ends(), shards.there.ends()), (vec![], vec![]));
}

#[test]
fn a_shard_that_does_not_answer_or_is_none_leaves_the_call_as_it_was() {
    for is_told in [true, false] {
        let mut shards = Shards::new();
        let (mut caller, callee) = connected(&mut shards.here);
        let named = "x%3Bto-tag%3D77-0123456789abcdef%3Bfrom-tag%3Db";
        refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
        let (shard, crossing) = shards.here.crossed.remove(0);
        assert_eq!(shard, 0x77);
        let status = if is_told {
            shards.here.input(Input::NotCrossed(crossing));
            "SIP/2.0 481 Call/Transaction Does Not Exist"
        } else {
            shards.here.take();
            shards.here.seconds(11);
            "SIP/2.0 603 Decline"
        };
        let told = requests(&mut shards.here).pop().unwrap();
        assert_eq!(news(&told), (status.to_owned(), true));
        assert_eq!(shards.here.ends(), []);
        assert_eq!(bridge(&plans(&shards.here).0).with, callee.leg);
    }
}

#[test]
fn a_leg_that_nobody_waits_for_any_more_is_let_go() {
    let mut shards = Shards::new();
    let (mut caller, callee) = connected(&mut shards.here);
    let (second, third, named) = second_call(&mut shards.there, &caller);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    // Whoever was to be carried over hangs up meanwhile.
    let mut callee = callee.caller;
    callee.request(&mut shards.here, "BYE", "");
    shards.settle();
    let sent = requests(&mut shards.there);
    assert_eq!(methods(&sent), ["BYE", "BYE"]);
    second.answer(&mut shards.there, &sent[0], "200 OK", "|");
    assert_eq!(sent[1].headers.call_id().unwrap(), third.caller.call_id);
    third.caller.answer(&mut shards.there, &sent[1], "200 OK", "|");
    shards.assert_quiet();
}

#[test]
fn where_no_ports_are_left_for_the_leg_that_moves_the_call_goes_on_without_it() {
    let mut shards = Shards::new();
    let (mut caller, callee) = connected(&mut shards.here);
    let (_, third, named) = second_call(&mut shards.there, &caller);
    refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    shards.here.take();
    shards.here.media(media::MediaEvent::ReserveFailed { ports: true });
    let sent = requests(&mut shards.here);
    assert_eq!(methods(&sent), ["BYE", "NOTIFY"]);
    assert_eq!(sent[0].headers.call_id().unwrap(), third.caller.call_id);
    assert_eq!(news(&sent[1]), ("SIP/2.0 503 Service Unavailable".to_owned(), true));
    assert_eq!(shards.here.ends(), []);
    assert_eq!(bridge(&plans(&shards.here).0).with, callee.leg);
    caller.request(&mut shards.here, "BYE", "");
    shards.assert_quiet();
}

#[test]
fn a_leg_that_has_moved_may_be_carried_on_and_back_again() {
    let (joined, reinvite) = joined();
    let Joined { mut shards, callee, third, .. } = joined;
    third.caller.answer(&mut shards.here, &reinvite, "200 OK", &body(&callee_answer(&third, "8")));
    shards.here.take();
    // The callee has a call of its own, on the shard where the leg came from, and joins them.
    let mut own = Caller::new("beta", callee.caller.peer.clone(), "own");
    own.target = "sip:+49307654321@edge.example".to_owned();
    own.request(&mut shards.there, "INVITE", &offer());
    let leg = shards.there.needs.last().unwrap().0;
    reserve(&mut shards.there, leg, 24_000);
    let fourth = Callee::reached(&mut shards.there, "info");
    fourth.accept(&mut shards.there, &callee_answer(&fourth, "8"));
    own.follow(&responses(&mut shards.there).remove(0));
    own.ack(&mut shards.there, "");
    shards.there.take();
    // It refers the far end of its own call to the dialog that it has with `third`.
    let with_third = &callee.caller;
    let named = format!(
        "{}%3Bto-tag%3D{}%3Bfrom-tag%3D{}",
        with_third.call_id, with_third.to_tag, with_third.tag
    );
    refer(&mut shards.there, &mut own, &format!("<sip:x@edge.example?Replaces={named}>"));
    shards.settle();
    shards.there.take();
    let (moved, _) = *shards.there.needs.last().unwrap();
    assert_eq!(moved.call, fourth.leg.call, "it is back on the shard that its tag names");
    reserve(&mut shards.there, moved, 25_000);
    let reinvite = requests(&mut shards.there).remove(0);
    assert_eq!(reinvite.headers.call_id().unwrap(), third.caller.call_id);
    third.caller.answer(&mut shards.there, &reinvite, "200 OK", &body(&callee_answer(&third, "8")));
    assert_eq!(bridge(&latest(&shards.there, moved)).with, fourth.leg);
    shards.there.take();
    let mut third = third.caller;
    third.request(&mut shards.there, "BYE", "");
    let sent = shards.there.take();
    assert!(matches!(&sent[0], Message::Response(ok) if ok.status.code() == 200), "{sent:#?}");
    shards.settle();
    shards.assert_quiet();
}

/// A few people, two shards, and what comes in whatever order.
pub(super) struct Chaos {
    shards: Shards,
    /// Who, and whether it is known `here`.
    people: Vec<(bool, Caller)>,
    /// Requests of ours that nobody has answered yet, and whether they are from `here`.
    open: Vec<(bool, Request)>,
    /// Reservations that the relay has answered.
    reserved: [usize; 2],
}

impl Chaos {
    pub(super) fn of(shards: Shards, people: Vec<(bool, Caller)>) -> Self {
        let reserved = [shards.here.needs.len(), shards.there.needs.len()];
        Self { shards, people, open: Vec::new(), reserved }
    }

    fn new(seed: u64) -> Self {
        let mut shards = Shards::seeded(seed, POLICY);
        let (mut caller, callee) = connected(&mut shards.here);
        let (second, third, named) = second_call(&mut shards.there, &caller);
        refer(&mut shards.here, &mut caller, &format!("<sip:x@edge.example?Replaces={named}>"));
        let there = [second, third.caller].map(|it| (false, it));
        Self::of(
            shards,
            [caller, callee.caller].map(|it| (true, it)).into_iter().chain(there).collect(),
        )
    }

    fn world(&mut self, is_here: bool) -> &mut World {
        if is_here { &mut self.shards.here } else { &mut self.shards.there }
    }

    fn listen(&mut self) {
        for is_here in [true, false] {
            let sent = requests(self.world(is_here));
            let answered = sent.into_iter().filter(|it| it.method != sip::Method::Ack);
            self.open.extend(answered.map(|it| (is_here, it)));
        }
    }

    /// What was asked first is answered first.
    fn answer(&mut self, status: &str) {
        if self.open.is_empty() {
            return;
        }
        let (is_here, request) = self.open.remove(0);
        let is_offer = request.method == sip::Method::Invite && status.starts_with("200");
        let is_secured = is_offer && sdp_of(&request.body).media[0].crypto().next().is_none();
        // A page of WHIP, whose answers `api` gives, may take no offer within its session.
        let (status, is_offer) =
            if is_secured { ("488 Not Acceptable Here", false) } else { (status, is_offer) };
        let more = if is_offer { answer_to(&request) } else { "|".to_owned() };
        let person = self.people[0].1.clone();
        person.answer(self.world(is_here), &request, status, &more);
    }

    fn reserve(&mut self, works: bool) {
        for (at, is_here) in [(0, true), (1, false)] {
            let next = self.reserved[at];
            let Some((leg, _)) = self.world(is_here).needs.get(next).copied() else { continue };
            self.reserved[at] += 1;
            if works {
                reserve(self.world(is_here), leg, 26_000);
            } else {
                let event = media::MediaEvent::ReserveFailed { ports: true };
                self.world(is_here).input(Input::Media { leg, event });
            }
        }
    }

    fn act(&mut self, random: &mut SeededRandom) {
        let who = random.below(self.people.len() as u32) as usize;
        let (is_here, mut person) = self.people[who].clone();
        match random.below(16) {
            0..=4 => {
                self.shards.step();
            }
            5..=8 => self.answer("200 OK"),
            9 => self.answer("491 Request Pending"),
            10 | 11 => self.reserve(random.below(8) > 0),
            12 => {
                person.request(self.world(is_here), "INVITE", &offer_with("a=sendonly"));
                person.ack(self.world(is_here), "");
                self.people[who].1 = person;
            }
            13 if random.below(3) == 0 => {
                person.request(self.world(is_here), "BYE", "");
                // Its ACK may come late, and so may one that comes again.
                person.ack(self.world(is_here), "");
                self.people[who].1 = person;
            }
            _ => {
                let time = Duration::from_millis(u64::from(random.below(900)));
                self.shards.here.pass(time);
                self.shards.there.pass(time);
            }
        }
        self.listen();
    }
}

/// A description that answers the offer of a request of ours.
fn answer_to(request: &Request) -> String {
    let offered = sdp_of(&request.body);
    let line = offered.media[0].crypto().next().unwrap().to_owned();
    let suite = line.split(' ').nth(1).unwrap().to_owned();
    let key = if suite.contains("256") { "B".repeat(58) + "A=" } else { "B".repeat(40) };
    let format = offered.media[0].formats[0].clone();
    body(&described(&format!("RTP/SAVP {format}"), &format!("a=crypto:1 {suite} inline:{key}")))
}

/// Lets come what may to each of so many beginnings, looks at what has become of it, and sees that
/// nothing is left once all have hung up.
pub(super) fn in_any_order(
    seeds: u64,
    begin: impl Fn(u64) -> Chaos,
    mut look: impl FnMut(&Shards),
) {
    for seed in 1..=seeds {
        let mut random = SeededRandom::new(seed);
        let mut chaos = begin(seed);
        for _ in 0..60 {
            chaos.act(&mut random);
        }
        look(&chaos.shards);
        for _ in 0..4 {
            for is_here in [true, false] {
                let reason = Reason::OperatorHungUp;
                chaos.world(is_here).input(Input::HangUpAll { reason });
            }
            chaos.shards.settle();
            chaos.reserve(true);
            chaos.listen();
            while !chaos.open.is_empty() {
                chaos.answer("200 OK");
                chaos.listen();
            }
        }
        chaos.shards.assert_quiet();
    }
}

#[test]
fn whatever_crosses_a_transfer_across_shards_nothing_is_left_of_it() {
    let (mut moved, mut failed) = (0, 0);
    in_any_order(300, Chaos::new, |shards| {
        moved += usize::from(shards.there.ends().contains(&Reason::Transferred));
        let is_failed = |it: &Event| matches!(it, Event::TransferFailed { .. });
        failed += usize::from(shards.here.events.iter().any(is_failed));
    });
    assert!(moved > 100 && failed > 10, "{moved} moved, {failed} came to nothing");
}
