//! A peer that checks, restarts, moves and lies.

use core::time::Duration;

use base::SeededRandom;
use std::vec::Vec;

use super::*;

const LOW: u32 = 100;
const HIGH: u32 = 900;

struct World {
    agent: Lite,
    local: Credentials,
    remote: Credentials,
    now: Instant,
}

fn credentials(seed: u64) -> Credentials {
    Credentials::random(&mut SeededRandom::new(seed))
}

fn route(last: u8) -> Route {
    Route { socket: 1, remote: SocketAddr::from(([192, 0, 2, last], 4000)) }
}

impl World {
    fn new() -> Self {
        let (local, remote) = (credentials(1), credentials(2));
        let agent = Lite::new(local.clone(), &remote);
        Self { agent, local, remote, now: Instant::from_nanos(1_000_000_000) }
    }

    fn check_with(
        &mut self,
        route: Route,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Result<(Option<Change>, Vec<u8>), Refused> {
        let mut buffer = [0; 512];
        let mut writer = Writer::new(&mut buffer, Class::Request, [5; 12]);
        writer.username(&self.local.ufrag, &self.remote.ufrag);
        write(&mut writer);
        let length = writer.finish(Some(self.local.pwd.expose().as_bytes())).unwrap();
        self.deliver(route, &buffer[..length])
    }

    fn deliver(
        &mut self,
        route: Route,
        datagram: &[u8],
    ) -> Result<(Option<Change>, Vec<u8>), Refused> {
        let mut answer = [0; crate::ice::stun::ANSWER_BYTES];
        let taken = self.agent.handle(self.now, route, datagram, &mut answer)?;
        Ok((taken.change, answer[..taken.answer].to_vec()))
    }

    fn check(&mut self, last: u8, priority: u32, nominates: bool) -> Option<Change> {
        let checked = self.check_with(route(last), |writer| {
            writer.priority(priority);
            writer.role(Role::Controlling(1));
            if nominates {
                writer.use_candidate();
            }
        });
        checked.unwrap().0
    }

    fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }
}

#[test]
fn a_check_is_answered_with_the_address_it_came_from_under_our_password() {
    let mut world = World::new();
    let (_, answer) =
        world.check_with(route(7), |writer| writer.role(Role::Controlling(1))).unwrap();
    let answer = Message::parse(&answer).unwrap();
    assert_eq!((answer.class(), answer.transaction()), (Class::Success, [5; 12]));
    assert_eq!(answer.mapped_address(), Some(route(7).remote));
    assert!(answer.is_signed_with(world.local.pwd.expose().as_bytes()));
    assert!(world.agent.knows(route(7)) && !world.agent.knows(route(8)));
}

#[test]
fn an_answer_to_a_peer_of_any_family_fits_the_buffer() {
    let mut world = World::new();
    let far = Route { socket: 1, remote: "[2001:db8::1]:4000".parse().unwrap() };
    assert!(world.check_with(far, |_| {}).is_ok());
}

#[test]
fn who_does_not_know_the_password_learns_nothing_and_changes_nothing() {
    let mut world = World::new();
    let (good, remote) = (world.local.clone(), world.remote.clone());
    for wrong in [
        Credentials { pwd: credentials(9).pwd, ..good.clone() },
        Credentials { ufrag: credentials(9).ufrag, ..good },
    ] {
        world.local = wrong;
        assert_eq!(world.check_with(route(1), |_| {}).unwrap_err(), Refused::Credentials);
    }
    world = World::new();
    world.remote = credentials(9);
    assert_eq!(world.check_with(route(1), |_| {}).unwrap_err(), Refused::Credentials);
    world.remote = remote;
    assert_eq!(world.agent.expires(), None);
    assert!(!world.agent.knows(route(1)) && world.agent.selected().is_none());
}

#[test]
fn unsigned_and_unasked_messages_are_passed_over() {
    let mut world = World::new();
    for (class, refused) in [
        (Class::Request, Refused::Credentials),
        (Class::Indication, Refused::NotRequest),
        (Class::Success, Refused::NotRequest),
        (Class::Error, Refused::NotRequest),
    ] {
        let mut buffer = [0; 256];
        let mut writer = Writer::new(&mut buffer, class, [5; 12]);
        writer.username(&world.local.ufrag, &world.remote.ufrag);
        let length = writer.finish(None).unwrap();
        assert_eq!(world.deliver(route(1), &buffer[..length]).unwrap_err(), refused);
    }
    assert_eq!(world.deliver(route(1), b"\0\x01").unwrap_err(), Refused::Malformed);
}

#[test]
fn a_peer_that_would_be_controlled_too_is_told_to_change() {
    let mut world = World::new();
    let checked = world.check_with(route(1), |writer| writer.role(Role::Controlled(9)));
    let (change, answer) = checked.unwrap();
    assert_eq!(Message::parse(&answer).unwrap().error_code(), Some(487));
    assert_eq!(change, None);
    assert!(!world.agent.knows(route(1)));
}

#[test]
fn the_nominated_route_is_used_and_before_that_the_best() {
    let mut world = World::new();
    assert_eq!(world.check(1, LOW, false), Some(Change::Selected(route(1))));
    assert_eq!(world.check(2, HIGH, false), Some(Change::Selected(route(2))));
    assert_eq!(world.check(3, LOW, false), Some(Change::Heard));
    assert_eq!(world.check(1, LOW, true), Some(Change::Selected(route(1))));
    assert_eq!(world.check(2, HIGH, false), None);
    assert_eq!(world.agent.selected(), Some(route(1)));
}

#[test]
fn of_a_peer_that_nominates_all_it_checks_the_best_is_used() {
    let mut world = World::new();
    for _ in 0..5 {
        world.check(1, LOW, true);
        world.check(2, HIGH, true);
        world.wait(50);
    }
    assert_eq!(world.agent.selected(), Some(route(2)));
}

#[test]
fn a_peer_that_changes_its_network_is_followed_though_the_new_one_is_worse() {
    let mut world = World::new();
    world.check(1, HIGH, true);
    world.wait(limit::ICE_RENOMINATION_MS.value + 1);
    assert_eq!(world.check(2, LOW, true), Some(Change::Selected(route(2))));
}

#[test]
fn a_peer_that_changes_its_mind_with_each_check_is_followed_some_times_a_second() {
    let mut world = World::new();
    let is_selected = |change: &Option<Change>| matches!(change, Some(Change::Selected(_)));
    for _ in 0..3 {
        let checks = (0..200).map(|at| world.check(1 + at % 2, HIGH, true));
        let selected = checks.filter(is_selected).count();
        assert_eq!(selected, limit::ICE_SELECTIONS_PER_SECOND.get());
        world.wait(1_000);
    }
}

#[test]
fn a_peer_of_ipv4_is_told_so_on_a_socket_of_both_families() {
    let mut world = World::new();
    let mapped = Route { socket: 1, remote: "[::ffff:192.0.2.7]:4000".parse().unwrap() };
    let (_, answer) = world.check_with(mapped, |_| {}).unwrap();
    assert_eq!(Message::parse(&answer).unwrap().mapped_address(), Some(route(7).remote));
}

#[test]
fn a_restart_keeps_the_route_until_the_peer_nominates_with_the_new_password() {
    let mut world = World::new();
    world.check(1, HIGH, true);
    let (former, former_remote) = (world.local.clone(), world.remote.clone());
    (world.local, world.remote) = (credentials(3), credentials(4));
    world.agent.restart(world.local.clone(), &world.remote);
    assert_eq!(world.agent.selected(), Some(route(1)));
    let (fresh, fresh_remote) = (world.local.clone(), world.remote.clone());
    (world.local, world.remote) = (former.clone(), former_remote.clone());
    assert_eq!(world.check(1, HIGH, false), None, "the former password still counts");
    (world.local, world.remote) = (fresh, fresh_remote);
    assert!(world.agent.knows(route(1)) && !world.agent.is_confirmed());
    assert_eq!(world.check(2, LOW, true), Some(Change::Selected(route(2))));
    assert!(world.agent.proves(route(2)) && !world.agent.proves(route(1)));
    (world.local, world.remote) = (former, former_remote);
    assert_eq!(world.check_with(route(1), |_| {}).unwrap_err(), Refused::Credentials);
}

#[test]
fn silence_of_thirty_seconds_is_the_loss_of_the_path() {
    let mut world = World::new();
    world.check(1, HIGH, true);
    world.wait(20_000);
    world.check(1, HIGH, false);
    assert_eq!(world.agent.expires(), Some(world.now + Duration::from_secs(30)));
}

#[test]
fn routes_are_bounded_and_the_selected_one_stays() {
    let mut world = World::new();
    world.check(1, HIGH, true);
    for last in 2..200 {
        world.wait(1);
        world.check(last, LOW, false);
    }
    assert_eq!(world.agent.pairs.len(), limit::ICE_PAIRS.get());
    assert!(world.agent.knows(route(1)) && world.agent.knows(route(199)));
    assert_eq!(world.agent.selected(), Some(route(1)));
}

#[test]
fn a_closed_connection_takes_its_routes_along() {
    let mut world = World::new();
    world.check(1, LOW, true);
    let over_tcp = Route { socket: 2, ..route(9) };
    world.wait(10_000);
    world.check_with(over_tcp, |writer| writer.use_candidate()).unwrap();
    assert_eq!(world.agent.selected(), Some(over_tcp));
    world.agent.close(2);
    assert_eq!(world.agent.selected(), Some(route(1)));
    assert!(!world.agent.knows(over_tcp));
}

#[test]
fn credentials_of_strange_characters_or_lengths_are_refused() {
    let pwd = "0123456789012345678901";
    assert!(Credentials::parse("abc+", pwd).is_ok());
    for (ufrag, pwd) in [("abc", pwd), ("ab:d", pwd), ("abcd", &pwd[1..]), ("ab d", pwd)] {
        assert_eq!(Credentials::parse(ufrag, pwd), Err(MalformedCredentials), "{ufrag} {pwd}");
    }
    let fresh = credentials(5);
    assert!(Credentials::parse(&fresh.ufrag, fresh.pwd.expose()).is_ok());
    assert_ne!(fresh.pwd.expose(), credentials(6).pwd.expose());
}
