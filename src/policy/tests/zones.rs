//! Which side of the network a message came to, and who is known there.

use std::net::SocketAddr;

use base::Reason;

use super::world::*;
use crate::{Admission, Attempt, Policy, Transport, admit, decide, explain, load};

/// A trunk at the edge's own side, one at a zone of its own with the same network, and one whose
/// zone only names addresses.
const ZONES: &str = r#"
[zone.house]
listen = { tls = ["10.0.0.5:5061"], udp = ["10.0.0.5:5060"] }
[zone.wide]
listen.tls = ["0.0.0.0:5071", "[::]:5071"]
[zone.told]
advertise = "sip.told.example"

[trunk.outside]
from = { networks = ["198.51.100.0/24"] }
[trunk.inside]
from = { networks = ["198.51.100.0/24"] }
zone = "house"
[trunk.wide]
from = { networks = ["0.0.0.0/0"] }
zone = "wide"
[trunk.told]
from = { networks = ["192.0.2.0/24"] }
zone = "told"
[[route]]
send_to = { agent = "reception" }
"#;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn who(policy: &Policy, source: &str, local: &str, transport: Transport) -> String {
    let source = source.parse().unwrap();
    match admit(policy, source, at(local), transport, &[], idle().wall) {
        Admission::Trunk(trunk) => trunk.to_string(),
        Admission::Refused { reason, trunk, .. } => {
            assert_eq!(trunk, None);
            reason.to_string()
        }
    }
}

fn findings(text: &str) -> Vec<String> {
    errors(text).into_iter().map(|(_, message)| message).collect()
}

#[test]
fn a_trunk_is_known_at_the_listeners_of_its_zone_and_nowhere_else() {
    let policy = policy(ZONES);
    let tls = |source, local| who(&policy, source, local, Transport::Tls);
    assert_eq!(tls("198.51.100.9", "10.0.0.5:5061"), "inside");
    assert_eq!(tls("198.51.100.9", "203.0.113.1:5061"), "outside");
    assert_eq!(tls("192.0.2.1", "203.0.113.1:5061"), "told", "a zone without listeners of its own");
    assert_eq!(tls("192.0.2.1", "10.0.0.5:5061"), "policy.unknown_peer");
    assert_eq!(tls("192.0.2.1", "10.9.9.9:5071"), "wide");
    assert_eq!(tls("192.0.2.77", "10.9.9.9:5061"), "told");
    assert_eq!(tls("203.0.113.9", "10.9.9.9:5061"), "policy.unknown_peer");
}

#[test]
fn the_port_and_the_transport_tell_zones_apart_too() {
    let policy = policy(ZONES);
    let zone = |transport, local| policy.zone_at(transport, at(local));
    assert_eq!(zone(Transport::Tls, "10.0.0.5:5061"), Some("house"));
    assert_eq!(zone(Transport::Udp, "10.0.0.5:5060"), Some("house"));
    assert_eq!(zone(Transport::Tcp, "10.0.0.5:5060"), None);
    assert_eq!(zone(Transport::Tls, "10.0.0.5:5062"), None);
    assert_eq!(zone(Transport::Tls, "[2001:db8::1]:5071"), Some("wide"));
    assert_eq!(zone(Transport::Wss, "10.0.0.5:5061"), None);
}

#[test]
fn a_call_at_another_zone_is_refused_and_the_explanation_says_why() {
    let policy = policy(
        &ZONES
            .replace("[trunk.outside]", "[trunk.other]")
            .replace("[trunk.other]\nfrom = { networks = [\"198.51.100.0/24\"] }\n", ""),
    );
    let call = Attempt { local: Some(at("203.0.113.1:5061")), ..good_call() };
    assert_eq!(refusal(&decide(&policy, &call, &idle())), Reason::UnknownPeer);
    let text = explain(&policy, &call, &idle()).to_string();
    assert!(text.contains("it is at zone house; the message came to the edge's own"), "{text}");

    let call = Attempt { local: Some(at("10.9.9.9:5071")), source: socket("::1"), ..good_call() };
    let text = explain(&policy, &call, &idle()).to_string();
    assert!(text.contains("it is at zone house; the message came to zone wide"), "{text}");
}

#[test]
fn the_smallest_change_for_a_trunk_at_another_zone_is_its_zone() {
    let text = "[zone.a]\nlisten.tls = [\"10.0.0.5:5061\"]\n\
                [zone.b]\nlisten.tls = [\"10.0.1.5:5061\"]\n\
                [trunk.x]\nfrom.networks = [\"198.51.100.0/24\"]\nzone = \"a\"\n\
                [[route]]\nsend_to = { agent = \"reception\" }\n";
    let call = Attempt { local: Some(at("10.0.1.5:5061")), ..good_call() };
    let explanation = explain(&policy(text), &call, &idle());
    let change = explanation.change.unwrap();
    assert_eq!(change.len(), 1);
    assert!(change[0].to_string().contains("zone = \"b\""), "{}", change[0]);
}

#[test]
fn plaintext_listeners_of_a_zone_open_with_an_exemption_of_its_own_trunks_only() {
    let exempt = "transports = [\"tls\", \"udp\"]\n\
                  exempt.signalling = { reason = \"x\", expires = 2027-01-31 }\n";
    let wall = idle().wall;
    let opened = |text: &str| policy(text).listeners(wall);
    let tls = [
        (Transport::Tls, at("10.0.0.5:5061")),
        (Transport::Tls, at("0.0.0.0:5071")),
        (Transport::Tls, at("[::]:5071")),
    ];
    assert_eq!(opened(ZONES), tls);

    let inside = ZONES.replace("zone = \"house\"\n", &format!("zone = \"house\"\n{exempt}"));
    let with_udp = [tls[0], (Transport::Udp, at("10.0.0.5:5060")), tls[1], tls[2]];
    assert_eq!(opened(&inside), with_udp);
    assert!(policy(&inside).plaintext_transports(wall).is_empty(), "not at the edge's own side");
    assert_eq!(policy(&inside).listeners(day(2027, 2, 1)), tls, "the exemption has ended");

    let outside = ZONES.replace("[trunk.inside]", &format!("{exempt}[trunk.inside]"));
    assert_eq!(opened(&outside), tls);
    assert!(policy(&outside).plaintext_transports(wall).contains(&Transport::Udp));
}

#[test]
fn addresses_that_cannot_be_and_overlaps_are_errors() {
    let table = [
        ("listen.tls = [\"10.0.0.5\"]", "not an address with a port"),
        ("listen.tls = [\"10.0.0.5:0\"]", "port 0"),
        ("listen.tls = [\"224.0.0.5:5061\"]", "multicast"),
        ("listen.udp = [\"255.255.255.255:5060\"]", "broadcast"),
        ("listen.tls = [\"[::ffff:10.0.0.5]:5061\"]", "as an IPv4 address"),
        ("listen.tls = [\"[fe80::5]:5061\"]", "needs its interface"),
        ("listen = {}", "listens nowhere"),
        ("listen.tsl = [\"10.0.0.5:5061\"]", "unknown key `tsl`"),
        ("media = \"0.0.0.0\"", "every address is no address"),
        ("media_advertise = \"224.0.0.1\"", "multicast"),
        ("listen = { tls = [\"10.0.0.5:5061\", \"10.0.0.5:5061\"] }", "overlaps with tls 10.0.0.5"),
        ("listen = { tls = [\"10.0.0.5:5061\"], tcp = [\"10.0.0.5:5061\"] }", "overlaps with tls"),
        ("listen = { tls = [\"0.0.0.0:5061\", \"10.0.0.5:5061\"] }", "overlaps with tls 0.0.0.0"),
    ];
    for (line, expected) in table {
        let all = findings(&format!("[zone.z]\n{line}\n"));
        assert_eq!(all.len(), 1, "{line}: {all:?}");
        assert!(all[0].contains(expected), "{line}: {all:?}");
    }
    let two = "[zone.a]\nlisten.tls = [\"10.0.0.5:5061\"]\n[zone.b]\nlisten.tls = \
               [\"10.0.0.5:5061\"]\n";
    assert_eq!(findings(two), ["this overlaps with tls 10.0.0.5:5061 at policy.toml:2"]);
    let many: Vec<String> = (1..=65).map(|port| format!("\"10.0.0.5:{port}\"")).collect();
    let many = format!("[zone.z]\nlisten.tls = [{}]\n", many.join(", "));
    assert_eq!(findings(&many), ["too many listeners"]);
}

#[test]
fn different_ports_families_and_kinds_of_socket_do_not_overlap() {
    policy(
        "[zone.a]\nadvertise = \"a.example\"\n\
         listen = { tls = [\"0.0.0.0:5061\", \"[::]:5061\"], udp = [\"0.0.0.0:5061\"] }\n\
         [zone.b]\nlisten.tls = [\"0.0.0.0:5062\"]\n\
         [trunk.t]\nsend_to = [\"sip:t.example\"]\n",
    );
}

#[test]
fn a_listener_that_the_edge_has_itself_is_found() {
    let policy = policy(ZONES);
    let own = |transport, address| policy.collisions(&[(transport, at(address))]);
    assert!(own(Transport::Tls, "10.0.0.6:5061").is_empty());
    assert!(own(Transport::Udp, "10.0.0.5:5061").is_empty());
    for (transport, address) in
        [(Transport::Tls, "0.0.0.0:5061"), (Transport::Tcp, "10.0.0.5:5061")]
    {
        let found = own(transport, address);
        assert_eq!((found.len(), found[0].line), (1, 3), "{found:?}");
    }
}

#[test]
fn what_a_zone_is_told_is_its_own_where_it_has_an_address_of_its_own() {
    let policy = policy(
        "[zone.one]\nlisten.tls = [\"10.0.0.5:5061\"]\nmedia = \"10.0.0.6\"\n\
         [zone.six]\nlisten.tls = [\"[2001:db8::5]:5061\"]\n\
         [zone.two]\nlisten.tls = [\"10.0.1.5:5061\", \"10.0.1.6:5061\"]\n\
         media_advertise = \"203.0.113.5\"\n\
         [zone.none]\n[trunk.t]\nsend_to = [\"sip:t.example\"]\n",
    );
    let zone = |name| policy.zone(name).unwrap();
    assert_eq!(zone("one").advertise.as_deref(), Some("10.0.0.5"));
    assert_eq!(zone("one").media_advertise, zone("one").media);
    assert_eq!(zone("six").advertise.as_deref(), Some("[2001:db8::5]"));
    assert_eq!((zone("two").advertise.as_deref(), zone("two").media), (None, None));
    assert!(zone("two").media_advertise.is_some());
    assert_eq!((zone("none").advertise.as_deref(), zone("none").media_advertise), (None, None));
}

#[test]
fn a_zone_that_serves_nobody_and_a_trunk_that_it_does_not_hear_are_warned_of() {
    let route = "[[route]]\nsend_to = { agent = \"reception\" }\n";
    let zone = "[zone.z]\nlisten.tls = [\"10.0.0.5:5061\"]\n";
    let trunk = "[trunk.a]\nfrom.networks = [\"10.0.0.0/8\"]\n";
    let found = |text: &str| -> Vec<String> {
        warnings(text, &["reception"]).into_iter().map(|it| it.0.message).collect()
    };
    let idle = found(&format!("{zone}{trunk}{route}"));
    assert_eq!(idle, ["no trunk is at zone `z`: it refuses everybody"]);
    let deaf = zone.replace("listen.tls", "listen.udp") + trunk + "zone = \"z\"\n" + route;
    assert_eq!(found(&deaf), ["zone `z` does not listen for tls of trunk `a`"]);
    let twins = format!("{zone}{trunk}zone = \"z\"\n[trunk.b]\nfrom.networks = [\"10.0.0.0/8\"]\n");
    assert_eq!(found(&format!("{twins}{route}")), [""; 0], "the zone tells them apart");
}

#[test]
fn tls_of_a_trunk_is_whole_and_not_contradictory() {
    let pin = "0123456789abcdef".repeat(4);
    let table = [
        ("certificate = \"a.pem\"", "a certificate without its key"),
        ("key = \"a.key\"", "a key without its certificate"),
        ("pins = [\"sha256:00\"]", "not a fingerprint"),
        ("pins = []", "the list is empty"),
        ("ca = \"\"", "no file is named"),
        ("cert = \"a.pem\"", "unknown key `cert`"),
    ];
    for (line, expected) in table {
        let all = findings(&format!("[trunk.a]\nsend_to = [\"sip:a\"]\ntls = {{ {line} }}\n"));
        assert_eq!(all.len(), 1, "{line}: {all:?}");
        assert!(all[0].contains(expected), "{line}: {all:?}");
    }
    let both = format!("tls = {{ ca = \"a.pem\", pins = [\"sha256:{pin}\"] }}");
    let all = findings(&format!("[trunk.a]\nsend_to = [\"sip:a\"]\n{both}\n"));
    assert_eq!(all, ["no authority is asked where certificates are pinned"]);

    let text = format!(
        "[trunk.a]\nsend_to = [\"sip:a.example\"]\n\
         tls = {{ pins = [\"sha256:{pin}\"], certificate = \"c.pem\", key = \"c.key\" }}\n"
    );
    let policy = policy(&text);
    let line = policy.lines().next().unwrap();
    assert_eq!((line.tls.pins.len(), line.tls.authorities.as_deref()), (1, None));
    assert_eq!(line.tls.identity, Some(("c.pem".to_owned(), "c.key".to_owned())));
    let found = policy.wrong_tls(line.trunk, "c.pem cannot be read").unwrap();
    assert_eq!((found.line, found.message.as_str()), (3, "c.pem cannot be read"));
}

#[test]
fn an_attempt_that_does_not_say_where_it_came_to_is_tried_at_every_zone() {
    let inside = ZONES.replace("198.51.100.0/24\"] }\n[trunk.in", "192.0.2.7\"] }\n[trunk.in");
    let decision = decide(&policy(&inside), &good_call(), &idle());
    assert_eq!(decision.trunk.unwrap().as_str(), "inside");
    let text = serde_json::to_string(&good_call()).unwrap().replace("\"local\":null,", "");
    let call: Attempt = serde_json::from_str(&text).unwrap();
    assert_eq!(call, good_call());
    assert!(load(&[("p.toml", ZONES)], None).is_ok());
}
