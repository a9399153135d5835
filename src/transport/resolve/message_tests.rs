use super::*;

use simple_dns::ResourceRecord;
use simple_dns::rdata::{A, SOA, SRV};

fn answer(id: u16, name: &'static str, kind: Kind) -> Packet<'static> {
    let mut packet = Packet::new_reply(id);
    let question = Question::new(
        Name::new(name).unwrap(),
        QTYPE::TYPE(kind.code()),
        QCLASS::CLASS(CLASS::IN),
        false,
    );
    packet.questions.push(question);
    packet
}

fn record(name: &'static str, ttl: u32, data: RData<'static>) -> ResourceRecord<'static> {
    ResourceRecord::new(Name::new(name).unwrap(), CLASS::IN, ttl, data)
}

fn address(last: u8) -> RData<'static> {
    RData::A(A::from(Ipv4Addr::new(192, 0, 2, last)))
}

fn alias(target: &'static str) -> RData<'static> {
    RData::CNAME(Name::new(target).unwrap().into())
}

fn absent(minimum: u32) -> ResourceRecord<'static> {
    let name = || Name::new("example").unwrap();
    let (serial, refresh, retry, expire) = (1, 1, 1, 1);
    let soa = SOA { mname: name(), rname: name(), serial, refresh, retry, expire, minimum };
    record("example", 3600, RData::SOA(soa))
}

fn read_a(packet: &Packet<'_>) -> Option<Reply> {
    read(&packet.build_bytes_vec().unwrap(), 7, "a.example", Kind::A)
}

#[test]
fn a_query_asks_for_recursion_and_is_answered_by_its_own_answer_only() {
    let bytes = query(7, "a.example", Kind::A).unwrap();
    let asked = Packet::parse(&bytes).unwrap();
    assert!(asked.has_flags(PacketFlag::RECURSION_DESIRED));
    assert_eq!(asked.opt().unwrap().udp_packet_size, UDP_BYTES);
    assert_eq!(read(&bytes, 7, "a.example", Kind::A), None, "a query is no answer");

    let mut packet = answer(7, "A.eXample", Kind::A);
    packet.answers.push(record("A.Example", 60, address(1)));
    let found =
        Reply::Records(vec![Record::A(Ipv4Addr::new(192, 0, 2, 1))], Duration::from_secs(60));
    assert_eq!(read_a(&packet), Some(found));
    for (id, name, kind) in
        [(8, "a.example", Kind::A), (7, "b.example", Kind::A), (7, "a.example", Kind::Aaaa)]
    {
        assert_eq!(read_a(&answer(id, name, kind)), None, "{id} {name} {kind:?}");
    }
    assert_eq!(query(7, &"a".repeat(64), Kind::A), None);
}

#[test]
fn records_of_other_names_in_the_answer_count_for_nothing() {
    let mut packet = answer(7, "a.example", Kind::A);
    packet.answers.push(record("bank.example", 60, address(6)));
    packet.name_servers.push(absent(30));
    assert_eq!(read_a(&packet), Some(Reply::Records(Vec::new(), Duration::from_secs(30))));
}

#[test]
fn aliases_are_followed_and_a_loop_ends() {
    let mut packet = answer(7, "a.example", Kind::A);
    packet.answers.push(record("a.example", 50, alias("b.example")));
    assert_eq!(
        read_a(&packet),
        Some(Reply::Alias("b.example".to_owned(), Duration::from_secs(50)))
    );
    packet.answers.push(record("b.example", 60, address(2)));
    let found = vec![Record::A(Ipv4Addr::new(192, 0, 2, 2))];
    assert_eq!(read_a(&packet), Some(Reply::Records(found, Duration::from_secs(50))));

    let mut packet = answer(7, "a.example", Kind::A);
    packet.answers.push(record("a.example", 50, alias("b.example")));
    packet.answers.push(record("b.example", 50, alias("a.example")));
    assert!(matches!(read_a(&packet), Some(Reply::Records(found, _)) if found.is_empty()));
}

#[test]
fn absence_is_kept_as_long_as_the_zone_says_and_no_longer_than_the_limit() {
    let mut packet = answer(7, "a.example", Kind::A);
    *packet.rcode_mut() = RCODE::NameError;
    let failure = limit::TRANSPORT_DNS_FAILURE_MS.millis();
    assert_eq!(read_a(&packet), Some(Reply::Records(Vec::new(), failure)));
    packet.name_servers.push(absent(1_000_000));
    let most = limit::TRANSPORT_DNS_NEGATIVE_MS.millis();
    assert_eq!(read_a(&packet), Some(Reply::Records(Vec::new(), most)));
    *packet.rcode_mut() = RCODE::ServerFailure;
    assert_eq!(read_a(&packet), Some(Reply::Refused));
    packet.set_flags(PacketFlag::TRUNCATION);
    assert_eq!(read_a(&packet), Some(Reply::Truncated));
}

#[test]
fn no_mutilated_answer_makes_the_reader_panic() {
    use base::Random;
    let mut packet = answer(7, "a.example", Kind::Srv);
    for priority in 0..4 {
        let target = Name::new("s.example").unwrap();
        let data = RData::SRV(SRV { priority, weight: 1, port: 5061, target });
        packet.answers.push(record("a.example", 60, data));
    }
    packet.answers.push(record("a.example", 50, alias("b.example")));
    packet.name_servers.push(absent(30));
    let good = packet.build_bytes_vec_compressed().unwrap();
    let mut random = base::SeededRandom::new(11);
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(bytes.len() as u32) as usize;
            bytes[at] = random.u32() as u8;
        }
        bytes.truncate(random.below(bytes.len() as u32 + 1) as usize);
        let _ = read(&bytes, 7, "a.example", Kind::Srv);
    }
}
