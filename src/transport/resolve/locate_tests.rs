//! RFC 3263 against a name server of our own.

use super::*;

use std::collections::BTreeMap;

use base::SeededRandom;

use crate::name_server::{NameServer, Zone};
use crate::resolve::NameServers;

const TLS: &[Transport] = &[Transport::Tls];
const ALL: &[Transport] = &[Transport::Tls, Transport::Tcp, Transport::Udp];

struct Scene {
    server: NameServer,
    resolver: Arc<Resolver>,
    hosts: tempfile::TempDir,
}

impl Scene {
    async fn new(fill: impl FnOnce(&mut Zone)) -> Self {
        let server = NameServer::start(fill).await;
        let hosts = tempfile::tempdir().unwrap();
        let resolver = Arc::new(Resolver::new(NameServers {
            servers: vec![server.address],
            resolv_conf: hosts.path().join("resolv.conf"),
            hosts: hosts.path().join("hosts"),
        }));
        Self { server, resolver, hosts }
    }

    async fn try_find(&self, uri: &str, may: &[Transport]) -> Result<Vec<String>, ResolveError> {
        self.find_seeded(uri, may, None, 1).await
    }

    async fn find_seeded(
        &self,
        uri: &str,
        may: &[Transport],
        only: Option<Family>,
        seed: u64,
    ) -> Result<Vec<String>, ResolveError> {
        let destination = Destination::of(&Uri::parse(uri).unwrap())?;
        let wanted = Wanted { destination, transports: may.to_vec(), only };
        let mut random = SeededRandom::new(seed);
        let mut targets = Targets::locate(Arc::clone(&self.resolver), &wanted, &mut random).await?;
        let mut found = Vec::new();
        while let Some(some) = targets.next().await {
            found.extend(some?.iter().map(|it| format!("{} {}", it.transport, it.address)));
        }
        Ok(found)
    }

    async fn find(&self, uri: &str, may: &[Transport]) -> Vec<String> {
        self.try_find(uri, may).await.unwrap()
    }

    fn asked(&self) -> usize {
        self.server.zone(|zone| zone.asked.len())
    }
}

#[tokio::test]
async fn addresses_and_ports_in_the_uri_need_no_search() {
    let scene = Scene::new(|zone| zone.address("h.example", 60, "192.0.2.1")).await;
    let table = [
        ("sip:192.0.2.9", TLS, "tls 192.0.2.9:5061"),
        ("sip:192.0.2.9", &[Transport::Udp][..], "udp 192.0.2.9:5060"),
        ("sips:[2001:db8::1]:5071", ALL, "tls [2001:db8::1]:5071"),
        ("sip:192.0.2.9;transport=TCP", ALL, "tcp 192.0.2.9:5060"),
        ("sips:192.0.2.9;transport=tcp", ALL, "tls 192.0.2.9:5061"),
    ];
    for (uri, may, expected) in table {
        assert_eq!(scene.find(uri, may).await, [expected], "{uri}");
    }
    assert_eq!(scene.asked(), 0);
    assert_eq!(scene.find("sip:h.example:5070", TLS).await, ["tls 192.0.2.1:5070"]);
    assert_eq!(scene.find("sip:H.Example.:5070;transport=udp", ALL).await, ["udp 192.0.2.1:5070"]);
    let zone = |zone: &mut Zone| zone.asked.iter().any(|(name, _)| name.starts_with('_'));
    assert!(!scene.server.zone(zone), "no service is looked up where a port is given");
}

#[tokio::test]
async fn a_transport_that_may_not_be_used_leads_nowhere() {
    let scene = Scene::new(|_| ()).await;
    for uri in ["sip:192.0.2.9;transport=udp", "sip:h.example;transport=tcp"] {
        assert_eq!(scene.try_find(uri, TLS).await, Err(ResolveError::Transport), "{uri}");
    }
    let udp_only = &[Transport::Udp];
    assert_eq!(scene.try_find("sips:192.0.2.9", udp_only).await, Err(ResolveError::Transport));
    for uri in ["sip:h.example;transport=sctp", "sips:h.example;transport=udp"] {
        assert_eq!(scene.try_find(uri, ALL).await, Err(ResolveError::Transport), "{uri}");
    }
    assert_eq!(scene.try_find("tel:+15550100", ALL).await, Err(ResolveError::NoHost));
    assert_eq!(scene.asked(), 0);
}

#[tokio::test]
async fn naptr_chooses_among_the_transports_that_may_be_used() {
    let scene = Scene::new(|zone| {
        zone.pointer("acme.example", (20, 10), "SIP+D2U", "_sip._udp.acme.example");
        zone.pointer("acme.example", (10, 50), "sips+d2t", "_sips._tcp.b.example");
        zone.pointer("acme.example", (10, 10), "E2U+sip", "_other.example");
        zone.pointer("acme.example", (10, 20), "SIPS+D2T", "_sips._tcp.a.example");
        zone.service("_sips._tcp.a.example", (1, 0), 5071, "one.example");
        zone.service("_sips._tcp.b.example", (1, 0), 5072, "two.example");
        zone.service("_sip._udp.acme.example", (1, 0), 5060, "one.example");
        zone.address("one.example", 60, "192.0.2.1");
        zone.address("two.example", 60, "192.0.2.2");
    })
    .await;
    let secure = ["tls 192.0.2.1:5071", "tls 192.0.2.2:5072"];
    assert_eq!(scene.find("sip:acme.example", TLS).await, secure);
    assert_eq!(scene.find("sips:acme.example", ALL).await, secure);
    let with_udp = [secure[0], secure[1], "udp 192.0.2.1:5060"];
    assert_eq!(scene.find("sip:acme.example", ALL).await, with_udp);
}

#[tokio::test]
async fn without_naptr_the_services_are_tried_in_our_order_and_then_the_domain_itself() {
    let scene = Scene::new(|zone| {
        zone.service("_sip._udp.acme.example", (1, 0), 5080, "one.example");
        zone.service("_sip._tcp.acme.example", (1, 0), 5090, "one.example");
        zone.address("one.example", 60, "192.0.2.1");
        zone.address("acme.example", 60, "192.0.2.7");
    })
    .await;
    let both = ["tcp 192.0.2.1:5090", "udp 192.0.2.1:5080"];
    assert_eq!(scene.find("sip:acme.example", ALL).await, both);
    assert_eq!(scene.find("sip:acme.example", TLS).await, ["tls 192.0.2.7:5061"]);
    assert_eq!(scene.find("sip:acme.example;transport=udp", ALL).await, both[1..]);
    assert_eq!(scene.try_find("sip:none.example", TLS).await, Err(ResolveError::Nowhere));
}

#[tokio::test]
async fn servers_come_by_priority_and_share_by_weight() {
    let scene = Scene::new(|zone| {
        for (rank, name, last) in
            [((1, 30), "a", 1), ((1, 10), "b", 2), ((1, 0), "c", 3), ((2, 1000), "d", 4)]
        {
            zone.service("_sips._tcp.acme.example", rank, 5061, &format!("{name}.example"));
            zone.address(&format!("{name}.example"), 60, &format!("192.0.2.{last}"));
        }
    })
    .await;
    let mut first = BTreeMap::<String, u32>::new();
    for seed in 0..1000 {
        let found = scene.find_seeded("sip:acme.example", TLS, None, seed).await.unwrap();
        assert_eq!((found.len(), found[3].as_str()), (4, "tls 192.0.2.4:5061"));
        *first.entry(found[0].clone()).or_default() += 1;
    }
    let (a, b) = (first["tls 192.0.2.1:5061"], first["tls 192.0.2.2:5061"]);
    assert!((680..790).contains(&a) && (200..290).contains(&b), "{first:?}");
    let again = scene.find_seeded("sip:acme.example", TLS, None, 7).await;
    assert_eq!(again, scene.find_seeded("sip:acme.example", TLS, None, 7).await);
}

#[tokio::test]
async fn a_domain_that_says_it_has_no_sip_is_believed() {
    let scene = Scene::new(|zone| {
        zone.service("_sips._tcp.acme.example", (0, 0), 0, ".");
        zone.address("acme.example", 60, "192.0.2.7");
    })
    .await;
    assert_eq!(scene.try_find("sip:acme.example", TLS).await, Err(ResolveError::NotOffered));
}

#[tokio::test]
async fn both_families_are_tried_in_turn_or_one_alone() {
    let scene = Scene::new(|zone| {
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"] {
            zone.address("h.example", 60, address);
        }
    })
    .await;
    let all = scene.find("sip:h.example:5061", TLS).await;
    let six = "tls [2001:db8::1]:5061";
    let four = ["tls 192.0.2.1:5061", "tls 192.0.2.2:5061", "tls 192.0.2.3:5061"];
    assert_eq!(all, [six, four[0], four[1], four[2]]);
    let only = |family| scene.find_seeded("sip:h.example:5061", TLS, Some(family), 1);
    assert_eq!(only(Family::V4).await.unwrap(), four);
    assert_eq!(only(Family::V6).await.unwrap(), [six]);
}

#[tokio::test]
async fn a_dial_is_led_to_no_more_targets_than_the_limit() {
    let scene = Scene::new(|zone| {
        for last in 1..=40 {
            zone.address("h.example", 60, &format!("192.0.2.{last}"));
        }
    })
    .await;
    let found = scene.find("sip:h.example:5061", TLS).await;
    assert_eq!(found.len(), limit::TRANSPORT_TARGETS.get());
}

#[tokio::test]
async fn aliases_that_the_server_leaves_to_us_are_followed() {
    let scene = Scene::new(|zone| {
        zone.alias("a.example", "b.example");
        zone.alias("b.example", "c.example");
        zone.address("c.example", 60, "192.0.2.1");
        zone.alias("loop.example", "pool.example");
        zone.alias("pool.example", "loop.example");
    })
    .await;
    assert_eq!(scene.find("sip:a.example:5061", TLS).await, ["tls 192.0.2.1:5061"]);
    let looped = scene.try_find("sip:loop.example:5061", TLS).await;
    assert_eq!(looped, Err(ResolveError::Unanswered));
}

#[tokio::test]
async fn an_answer_too_long_for_a_datagram_comes_over_tcp() {
    let scene = Scene::new(|zone| {
        zone.address("h.example", 60, "192.0.2.1");
        zone.truncated.insert("h.example".to_owned());
    })
    .await;
    assert_eq!(scene.find("sip:h.example:5061", TLS).await, ["tls 192.0.2.1:5061"]);
}

#[tokio::test]
async fn answers_and_absences_are_asked_for_once_while_they_are_good() {
    let scene = Scene::new(|zone| zone.address("acme.example", 60, "192.0.2.7")).await;
    for _ in 0..5 {
        assert_eq!(scene.find("sip:acme.example", TLS).await, ["tls 192.0.2.7:5061"]);
    }
    // NAPTR, SRV, AAAA, A: three of them are absences.
    assert_eq!(scene.asked(), 4);
    scene.resolver.reload();
    scene.find("sip:acme.example", TLS).await;
    assert_eq!(scene.asked(), 8);
}

#[tokio::test]
async fn of_many_who_want_the_same_only_one_asks() {
    let scene = Arc::new(Scene::new(|zone| zone.address("acme.example", 60, "192.0.2.7")).await);
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let scene = Arc::clone(&scene);
        all.spawn(async move { scene.find("sip:acme.example", TLS).await });
    }
    while let Some(found) = all.join_next().await {
        assert_eq!(found.unwrap(), ["tls 192.0.2.7:5061"]);
    }
    assert_eq!(scene.asked(), 4);
}

#[tokio::test]
async fn while_the_name_server_fails_what_was_known_still_serves() {
    let scene = Scene::new(|zone| {
        zone.address("short.example", 0, "192.0.2.1");
        zone.address("new.example", 60, "192.0.2.2");
    })
    .await;
    let known = ["tls 192.0.2.1:5061"];
    assert_eq!(scene.find("sip:short.example:5061", TLS).await, known);
    scene.server.zone(|zone| zone.is_broken = true);
    assert_eq!(scene.find("sip:short.example:5061", TLS).await, known, "its time is over");
    let unknown = scene.try_find("sip:new.example:5061", TLS).await;
    assert_eq!(unknown, Err(ResolveError::Unanswered));
    let asked = scene.asked();
    let unknown = scene.try_find("sip:new.example:5061", TLS).await;
    assert_eq!(unknown, Err(ResolveError::Unanswered));
    assert_eq!(scene.asked(), asked, "a failure is remembered for a moment");
}

#[tokio::test]
async fn a_second_name_server_answers_for_a_dead_one() {
    let dead = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let server = NameServer::start(|zone| zone.address("h.example", 60, "192.0.2.1")).await;
    let servers = vec![dead, server.address];
    let resolver = Resolver::new(NameServers { servers, ..NameServers::default() });
    assert_eq!(resolver.addresses("h.example").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn name_servers_that_say_nothing_are_given_up() {
    let scene = Scene::new(|zone| zone.is_silent = true).await;
    let failed = scene.resolver.addresses("h.example").await;
    assert_eq!(failed, Err(ResolveError::Unanswered));
    let rounds = limit::TRANSPORT_DNS_ROUNDS.get();
    assert_eq!(scene.server.zone(|zone| zone.times("h.example")), 2 * rounds);
}

#[tokio::test]
async fn the_hosts_file_goes_before_name_servers() {
    let scene = Scene::new(|zone| zone.address("h.example", 60, "192.0.2.1")).await;
    let file = scene.hosts.path().join("hosts");
    std::fs::write(file, "192.0.2.50 h.example\n2001:db8::50 h.example\n").unwrap();
    assert_eq!(scene.find("sip:h.example:5061", TLS).await, ["tls 192.0.2.1:5061"]);
    scene.resolver.reload();
    let found = scene.find("sip:H.example:5061", TLS).await;
    assert_eq!(found, ["tls [2001:db8::50]:5061", "tls 192.0.2.50:5061"]);
}
