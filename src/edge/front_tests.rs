//! Stories about the front door.

use super::*;

const INVITE: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\n\
    From: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\
    Contact: <sip:a@h>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n";

fn flow() -> Flow {
    Flow {
        id: FlowId(1),
        transport: transport::Transport::Udp,
        source: "192.0.2.1:5060".parse().unwrap(),
        local: "192.0.2.2:5060".parse().unwrap(),
        certificates: Arc::new([]),
        outgoing: false,
        reusable: false,
    }
}

const POLICY: &str = r#"
    [defaults]
    refuse = "answer"
    [trunk.acme]
    from = { networks = ["192.0.2.1/32"] }
    [trunk.shy]
    from   = { networks = ["192.0.2.7/32"] }
    refuse = "silent"
    [trunk.plain]
    from       = { networks = ["192.0.2.9/32"] }
    transports = ["udp"]
    exempt.signalling = { reason = "a test", expires = 2099-12-31 }
    [[route]]
    refuse = { status = 603 }
    "#;

/// A door, and what `policy` says behind it.
struct House {
    door: Door,
    policy: Policy,
    now: Instant,
}

impl House {
    fn new() -> Self {
        let policy = match policy::load(&[("p.toml", POLICY)], None) {
            Ok((policy, _)) => policy,
            Err(errors) => panic!("{errors}"),
        };
        let door = Door::new(2, Box::new(base::SeededRandom::new(1)));
        Self { door, policy, now: Instant::ZERO }
    }

    fn at(&self) -> Moment<'_> {
        Moment { now: self.now, wall: WallTime::default(), policy: &self.policy }
    }

    fn message(&self, flow: &Flow, text: &str) -> Result<Passed, Box<Refused>> {
        self.door.message(self.at(), flow, &Bytes::from(text.to_owned()))
    }

    fn refused(&self, flow: &Flow, text: &str) -> Refused {
        *self.message(flow, text).expect_err("it is refused")
    }
}

/// A front before shards that nobody runs, and the queue of the first.
fn front(folder: &std::path::Path) -> (Front, mpsc::Receiver<Input>, vault::Vault) {
    let policy = House::new().policy;
    let setup = Setup {
        policy: Arc::new(policy),
        agents: BTreeMap::new(),
        logins: BTreeMap::new(),
        recording: false,
        transcript: false,
        advertise: None,
        media_advertise: None,
        browser_media: Vec::new(),
    };
    let (shard, queue) = mpsc::channel(limit::SHARD_INPUTS.get());
    let config = crate::test_vault::config(folder);
    let vault = vault::Vault::open(config, OsClock, Box::new(|_| {})).unwrap();
    let telemetry = Arc::new(Telemetry::new(OsClock).unwrap());
    let refusals = Refusals::new(vault.handle(), Arc::clone(&telemetry));
    let setup = Arc::new(ArcSwap::from_pointee(setup));
    (Front::new(setup, vec![shard].into(), telemetry, refusals), queue, vault)
}

#[tokio::test]
async fn a_trunk_that_outruns_its_shard_waits_in_its_connections_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let (front, mut queue, _vault) = front(folder.path());
    let of = |source: &str| Arc::new(from(source, transport::Transport::Tls));
    let (loud, quiet) = (of("192.0.2.1:40000"), of("192.0.2.7:40000"));
    let most = limit::SHARD_INPUTS_PER_TRUNK.get();
    for _ in 0..most {
        assert!(front.message(&loud, INVITE.into()).is_none());
    }
    let waiting = tokio::spawn(front.message(&loud, INVITE.into()).expect("it waits"));
    assert!(front.message(&quiet, INVITE.into()).is_none());
    assert_eq!(queue.len(), most + 1);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    // One of its messages has been handled.
    drop(queue.recv().await);
    waiting.await.unwrap();
    assert_eq!(queue.len(), most + 1);
}

#[tokio::test]
async fn datagrams_beyond_a_trunks_share_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (front, queue, _vault) = front(folder.path());
    let flow = Arc::new(from("192.0.2.9:5060", transport::Transport::Udp));
    let most = limit::SHARD_INPUTS_PER_TRUNK.get();
    for _ in 0..most + 10 {
        assert!(front.message(&flow, INVITE.into()).is_none());
    }
    assert_eq!(queue.len(), most);
}

fn from(source: &str, transport: transport::Transport) -> Flow {
    Flow { source: source.parse().unwrap(), transport, ..flow() }
}

fn status(refused: &Refused) -> u16 {
    match refused.event {
        Event::RequestRefused { status, .. } => status,
        _ => 999,
    }
}

fn text(refused: &Refused) -> String {
    String::from_utf8_lossy(refused.answer.as_deref().unwrap_or_default()).into_owned()
}

/// An INVITE with so much in it that any refusal is shorter.
fn long() -> String {
    INVITE.replace("Max-Forwards", &format!("Subject: {}\r\nMax-Forwards", "x".repeat(300)))
}

#[test]
fn a_stranger_learns_nothing_and_a_trunk_learns_the_reason() {
    let house = House::new();
    let udp = transport::Transport::Udp;
    let stranger = house.refused(&from("203.0.113.9:5060", udp), &long());
    assert_eq!((stranger.reason, status(&stranger)), (Reason::PlaintextSignalling, 403));
    assert!(text(&stranger).starts_with("SIP/2.0 403 "));
    assert!(!text(&stranger).contains("policy."));
    let known = house.refused(&from("192.0.2.1:5060", udp), &long());
    assert!(text(&known).contains("policy.plaintext_signalling"), "{known:?}");
    assert_eq!(known.trunk.as_ref().map(TrunkName::as_str), Some("acme"));
    let silent = house.refused(&from("192.0.2.7:5060", udp), &long());
    assert_eq!((status(&silent), silent.answer), (0, None));
}

#[test]
fn a_refusal_over_plaintext_is_never_longer_than_what_came() {
    let house = House::new();
    let short = INVITE.replace("Contact: <sip:a@h>\r\n", "");
    let flow = from("192.0.2.1:5060", transport::Transport::Udp);
    let refused = house.refused(&flow, &short);
    assert_eq!((status(&refused), refused.answer), (0, None));
    assert!(house.refused(&flow, &long()).answer.is_some());
}

#[test]
fn an_ack_and_a_response_are_never_answered() {
    let house = House::new();
    let flow = from("192.0.2.1:5060", transport::Transport::Udp);
    let ack = long().replace("INVITE", "ACK");
    assert_eq!(house.refused(&flow, &ack).answer, None);
    let response = long().replace("INVITE sip:b@h SIP/2.0", "SIP/2.0 200 OK");
    assert_eq!(house.refused(&flow, &response).answer, None);
}

#[test]
fn what_passes_names_its_trunk_and_its_shard() {
    let house = House::new();
    let flow = from("192.0.2.1:40000", transport::Transport::Tls);
    let passed = house.message(&flow, INVITE).unwrap();
    assert_eq!(passed.trunk.as_str(), "acme");
    let call::Input::Message { peer, .. } = passed.input else { panic!("{passed:?}") };
    assert_eq!((peer.flow, peer.source), (flow.id, flow.source));
    let broken = house.refused(&flow, &INVITE.replace("CSeq: 1 INVITE", "CSeq: x"));
    assert_eq!((broken.reason, status(&broken)), (Reason::Malformed, 400));
    assert!(text(&broken).contains(";received=192.0.2.1"), "{broken:?}");
}

#[test]
fn a_flood_is_told_so_and_then_no_more_and_a_second_later_it_is_over() {
    let mut house = House::new();
    let flow = from("192.0.2.1:40000", transport::Transport::Tls);
    let most = limit::TRANSPORT_TRUNK_MESSAGES.value;
    let mut counts = [0; 4];
    for _ in 0..5 * most {
        let taken = house.door.takes(house.at(), &flow);
        let kind = match taken.map_err(|_| ()).map(|()| house.message(&flow, INVITE)) {
            Ok(Ok(_)) => 0,
            Ok(Err(refused)) if refused.answer.is_some() => 1,
            Ok(Err(_)) => 2,
            Err(()) => 3,
        };
        counts[kind] += 1;
    }
    let told = limit::TRANSPORT_REFUSALS_PER_SECOND.value;
    assert_eq!(counts, [most, told, 3 * most - told, most]);
    house.now += std::time::Duration::from_secs(1);
    assert!(house.door.takes(house.at(), &flow).is_ok());
    assert!(house.message(&flow, INVITE).is_ok());
}

#[test]
fn only_strangers_are_turned_away_before_they_speak() {
    let house = House::new();
    let local = flow().local;
    let admits = |source: &str, transport| {
        house.door.admits(house.at(), source.parse().unwrap(), local, transport).is_ok()
    };
    use transport::Transport::{Tcp, Tls, Udp};
    assert!(!admits("203.0.113.9:1", Tcp) && admits("192.0.2.1:1", Tcp));
    assert!(admits("203.0.113.9:1", Tls) && admits("203.0.113.9:1", Udp));
}

#[test]
fn an_invite_goes_to_the_shard_of_the_dialog_that_it_replaces() {
    let parse = |text: &str| sip::parse::datagram(&Bytes::from(text.to_owned())).unwrap();
    for shard in [0, 1] {
        let tag = ids::new_tag(shard, &mut base::SeededRandom::new(1));
        let replaces = format!("Replaces: x@y;to-tag={tag};from-tag=z\r\nMax-Forwards");
        let invite = INVITE.replace("Max-Forwards", &replaces);
        assert_eq!(shard_of(&parse(&invite), 2), usize::from(shard));
    }
    let foreign = INVITE.replace("Max-Forwards", "Replaces: x;to-tag=1\r\nMax-Forwards");
    assert_eq!(shard_of(&parse(&foreign), 2), shard_of(&parse(INVITE), 2));
}

#[test]
fn a_dialog_stays_with_the_shard_that_its_tag_names() {
    let tag = ids::new_tag(1, &mut base::SeededRandom::new(1));
    let within = INVITE.replace("To: <sip:b@h>", &format!("To: <sip:b@h>;tag={tag}"));
    let parse = |text: &str| sip::parse::datagram(&Bytes::from(text.to_owned())).unwrap();
    assert_eq!(shard_of(&parse(&within), 2), 1);
    let first = shard_of(&parse(INVITE), 2);
    assert!((0..10).all(|_| shard_of(&parse(INVITE), 2) == first));
    let other = (0..50).any(|n| {
        let text = INVITE.replace("Call-ID: c1", &format!("Call-ID: x{n}"));
        shard_of(&parse(&text), 2) != first
    });
    assert!(other, "all calls go to one shard");
}
