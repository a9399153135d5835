//! An authoritative name server on loopback, over UDP and TCP, as obedient or as bad as a test
//! wants it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use simple_dns::rdata::{A, AAAA, NAPTR, RData, SOA, SRV};
use simple_dns::{CLASS, CharacterString, Name, Packet, PacketFlag, RCODE, ResourceRecord};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

/// What it knows and how it behaves.
#[derive(Default)]
pub(crate) struct Zone {
    records: BTreeMap<String, Vec<(u32, RData<'static>)>>,
    /// Answers nothing at all.
    pub(crate) is_silent: bool,
    /// Answers SERVFAIL.
    pub(crate) is_broken: bool,
    /// Names whose datagrams are cut.
    pub(crate) truncated: BTreeSet<String>,
    /// Names asked for, in their order, with the number of their kind.
    pub(crate) asked: Vec<(String, u16)>,
}

impl Zone {
    fn add(&mut self, name: &str, ttl: u32, data: RData<'static>) {
        self.records.entry(name.to_owned()).or_default().push((ttl, data));
    }

    pub(crate) fn address(&mut self, name: &str, ttl: u32, address: &str) {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A::from(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA::from(address)),
        };
        self.add(name, ttl, data);
    }

    pub(crate) fn service(&mut self, name: &str, rank: (u16, u16), port: u16, target: &str) {
        let target = Name::new(target).unwrap().into_owned();
        let (priority, weight) = rank;
        self.add(name, 60, RData::SRV(SRV { priority, weight, port, target }));
    }

    pub(crate) fn pointer(&mut self, name: &str, rank: (u16, u16), service: &str, target: &str) {
        let text = |text: &str| CharacterString::new(text.as_bytes()).unwrap().into_owned();
        let (order, preference) = rank;
        let data = NAPTR {
            order,
            preference,
            flags: text("s"),
            services: text(service),
            regexp: text(""),
            replacement: Name::new(target).unwrap().into_owned(),
        };
        self.add(name, 60, RData::NAPTR(data));
    }

    pub(crate) fn alias(&mut self, name: &str, target: &str) {
        self.add(name, 60, RData::CNAME(Name::new(target).unwrap().into_owned().into()));
    }

    /// How often somebody asked for a name.
    pub(crate) fn times(&self, name: &str) -> usize {
        self.asked.iter().filter(|(asked, _)| asked == name).count()
    }

    fn answer(&mut self, query: &[u8], is_datagram: bool) -> Option<Vec<u8>> {
        let query = Packet::parse(query).unwrap();
        let question = query.questions.first().unwrap().clone();
        let name = question.qname.to_string().to_ascii_lowercase();
        self.asked.push((name.clone(), u16::from(question.qtype)));
        if self.is_silent {
            return None;
        }
        let mut reply = Packet::new_reply(query.id());
        reply.questions.push(question.clone());
        if self.is_broken {
            *reply.rcode_mut() = RCODE::ServerFailure;
        } else if is_datagram && self.truncated.contains(&name) {
            reply.set_flags(PacketFlag::TRUNCATION);
        } else {
            let known = self.records.get(&name).map(Vec::as_slice).unwrap_or_default();
            let fits = |data: &RData<'_>| {
                matches!(data, RData::CNAME(_))
                    || u16::from(data.type_code()) == u16::from(question.qtype)
            };
            for (ttl, data) in known.iter().filter(|(_, data)| fits(data)) {
                let owner = question.qname.clone();
                let record = ResourceRecord::new(owner, CLASS::IN, *ttl, data.clone());
                reply.answers.push(record);
            }
            if known.is_empty() {
                *reply.rcode_mut() = RCODE::NameError;
            }
            if reply.answers.is_empty() {
                reply.name_servers.push(authority());
            }
        }
        Some(reply.build_bytes_vec().unwrap())
    }
}

fn authority() -> ResourceRecord<'static> {
    let name = || Name::new("example").unwrap();
    let (serial, refresh, retry, expire, minimum) = (1, 1, 1, 1, 30);
    let zone = SOA { mname: name(), rname: name(), serial, refresh, retry, expire, minimum };
    ResourceRecord::new(name(), CLASS::IN, 30, RData::SOA(zone))
}

/// A running name server; it ends with the test's runtime.
pub(crate) struct NameServer {
    pub(crate) address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

impl NameServer {
    pub(crate) async fn start(fill: impl FnOnce(&mut Zone)) -> Self {
        let mut zone = Zone::default();
        fill(&mut zone);
        let zone = Arc::new(Mutex::new(zone));
        let (udp, tcp) = loop {
            let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // The other socket of the same number may be taken by another test.
            if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                break (udp, tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let of_udp = Arc::clone(&zone);
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((size, peer)) = udp.recv_from(&mut buffer).await {
                let answer = of_udp.lock().unwrap().answer(&buffer[..size], true);
                if let Some(answer) = answer {
                    udp.send_to(&answer, peer).await.unwrap();
                }
            }
        });
        let of_tcp = Arc::clone(&zone);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let size = stream.read_u16().await.unwrap();
                let mut query = vec![0; usize::from(size)];
                stream.read_exact(&mut query).await.unwrap();
                let answer = of_tcp.lock().unwrap().answer(&query, false);
                if let Some(answer) = answer {
                    stream.write_u16(answer.len() as u16).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        });
        Self { address, zone }
    }

    /// Looks at the zone or changes it.
    pub(crate) fn zone<T>(&self, act: impl FnOnce(&mut Zone) -> T) -> T {
        act(&mut self.zone.lock().unwrap())
    }
}
