use std::time::Duration;

use transport::Transport;

use super::*;

const START: Instant = Instant::from_nanos(1_000_000_000);

fn flow(number: u64) -> Arc<Flow> {
    Arc::new(Flow {
        id: FlowId(number),
        transport: Transport::Wss,
        source: "192.0.2.1:5000".parse().unwrap(),
        local: "192.0.2.2:8443".parse().unwrap(),
        certificates: Arc::default(),
        outgoing: false,
        reusable: false,
    })
}

fn wanted(contact: &str, expires: u32) -> Wanted {
    Wanted {
        contact: Uri::parse(contact).unwrap(),
        instance: None,
        reg_id: None,
        expires,
        temporary: "tgruu.1".to_owned(),
    }
}

fn of_instance(contact: &str, instance: &str) -> Wanted {
    Wanted { instance: Some(instance.to_owned()), reg_id: Some(1), ..wanted(contact, 600) }
}

fn bind(
    registrar: &Registrar,
    number: u64,
    sent: (&str, u32),
    all: Vec<Wanted>,
) -> Result<usize, Rejected> {
    let order = Order::Change(all);
    registrar.register(START, "alice", &flow(number), sent, order).map(|held| held.len())
}

fn found(registrar: &Registrar, now: Instant) -> Vec<String> {
    registrar.lookup("alice", now).iter().map(|it| it.contact.to_string()).collect()
}

#[test]
fn the_newest_comes_first_and_each_ends_in_its_time() {
    let registrar = Registrar::default();
    bind(&registrar, 1, ("a", 1), vec![wanted("sip:a@h.invalid", 60)]).unwrap();
    bind(&registrar, 2, ("b", 1), vec![wanted("sip:b@h.invalid", 600)]).unwrap();
    assert_eq!(found(&registrar, START), ["sip:b@h.invalid", "sip:a@h.invalid"]);
    bind(&registrar, 1, ("a", 2), vec![wanted("sip:a@h.invalid", 120)]).unwrap();
    assert_eq!(found(&registrar, START), ["sip:a@h.invalid", "sip:b@h.invalid"], "refreshed");
    let later = START + Duration::from_secs(120);
    assert_eq!(found(&registrar, later), ["sip:b@h.invalid"]);
    assert_eq!(registrar.lookup("bob", START).len(), 0);
}

#[test]
fn a_client_is_found_by_its_contact_and_by_the_addresses_that_it_was_given() {
    let registrar = Registrar::default();
    bind(&registrar, 1, ("a", 1), vec![of_instance("sip:x@one.invalid", "<urn:uuid:1>")]).unwrap();
    let flow_of = |uri: &str| {
        let found = registrar.lookup_contact(&Uri::parse(uri).unwrap(), START);
        found.first().map(|it| it.flow.id)
    };
    for known in [
        "sip:x@one.invalid",
        "sip:x@one.invalid;ob",
        "sip:alice@edge.example;gr=urn:uuid:1",
        "sip:tgruu.1@edge.example;gr",
    ] {
        assert_eq!(flow_of(known), Some(FlowId(1)), "{known}");
    }
    for other in [
        "sip:x@two.invalid",
        "sip:alice@edge.example;gr=urn:uuid:2",
        "sip:bob@edge.example;gr=urn:uuid:1",
        "sip:tgruu.2@edge.example;gr",
    ] {
        assert_eq!(flow_of(other), None, "{other}");
    }
    registrar.flow_gone(FlowId(1));
    assert_eq!(flow_of("sip:x@one.invalid"), None);
}

#[test]
fn a_client_that_comes_back_takes_the_place_of_its_old_flow() {
    let registrar = Registrar::default();
    bind(&registrar, 1, ("a", 1), vec![of_instance("sip:x@one.invalid", "<urn:uuid:1>")]).unwrap();
    bind(&registrar, 2, ("b", 1), vec![of_instance("sip:y@two.invalid", "<urn:uuid:1>")]).unwrap();
    assert_eq!(found(&registrar, START), ["sip:y@two.invalid"]);
    assert_eq!(registrar.lookup("alice", START)[0].flow.id, FlowId(2));
    registrar.flow_gone(FlowId(1));
    assert_eq!((found(&registrar, START).len(), registrar.count()), (1, 1), "the new one stays");
    registrar.flow_gone(FlowId(2));
    assert_eq!((found(&registrar, START).len(), registrar.count()), (0, 0));
}

#[test]
fn bindings_are_asked_for_taken_away_and_cleared() {
    let registrar = Registrar::default();
    let two = vec![wanted("sip:a@h.invalid", 60), wanted("sip:b@h.invalid", 60)];
    assert_eq!(bind(&registrar, 1, ("a", 1), two), Ok(2));
    let asked = registrar.register(START, "alice", &flow(1), ("x", 9), Order::Ask).unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].expires, 60);
    assert_eq!(bind(&registrar, 1, ("a", 2), vec![wanted("sip:a@h.invalid", 0)]), Ok(1));
    let cleared = registrar.register(START, "alice", &flow(1), ("a", 3), Order::Clear).unwrap();
    assert_eq!((cleared.len(), registrar.count()), (0, 0));
}

#[test]
fn what_was_sent_before_changes_nothing() {
    let registrar = Registrar::default();
    bind(&registrar, 1, ("a", 5), vec![wanted("sip:a@h.invalid", 600)]).unwrap();
    let late = bind(&registrar, 1, ("a", 4), vec![wanted("sip:a@h.invalid", 0)]);
    assert_eq!(late, Err(Rejected::Late));
    let late = registrar.register(START, "alice", &flow(1), ("a", 5), Order::Clear);
    assert_eq!(late, Err(Rejected::Late));
    assert_eq!(found(&registrar, START).len(), 1);
}

#[test]
fn an_account_has_a_few_addresses_and_a_full_one_keeps_what_it_has() {
    let registrar = Registrar::default();
    let most = limit::API_BINDINGS_PER_ACCOUNT.get();
    let many = (0..most).map(|n| wanted(&format!("sip:{n}@h.invalid"), 60)).collect();
    assert_eq!(bind(&registrar, 1, ("a", 1), many), Ok(most));
    let one_more = bind(&registrar, 2, ("b", 1), vec![wanted("sip:x@h.invalid", 60)]);
    assert_eq!(one_more, Err(Rejected::Full));
    assert_eq!(registrar.count(), most);
    let known = bind(&registrar, 1, ("a", 2), vec![wanted("sip:0@h.invalid", 60)]);
    assert_eq!(known, Ok(most), "a refresh needs no room");
}

#[test]
fn the_table_is_bounded_over_all_accounts() {
    let registrar = Registrar::default();
    let most = limit::API_BINDINGS.get();
    for number in 0..most {
        let order = Order::Change(vec![wanted("sip:x@h.invalid", 60)]);
        let account = format!("user{number}");
        registrar.register(START, &account, &flow(number as u64), ("a", 1), order).unwrap();
    }
    assert_eq!(
        bind(&registrar, 1, ("b", 1), vec![wanted("sip:x@h.invalid", 60)]),
        Err(Rejected::Full)
    );
    registrar.flow_gone(FlowId(7));
    assert_eq!(bind(&registrar, 1, ("b", 1), vec![wanted("sip:x@h.invalid", 60)]), Ok(1));
}
