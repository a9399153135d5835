//! DNS messages (RFC 1035) as far as a stub resolver needs them: one question, and what of the
//! answer belongs to it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use base::limit;
use simple_dns::rdata::{OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    A,
    Aaaa,
    Srv,
    Naptr,
}

impl Kind {
    const fn code(self) -> TYPE {
        match self {
            Self::A => TYPE::A,
            Self::Aaaa => TYPE::AAAA,
            Self::Srv => TYPE::SRV,
            Self::Naptr => TYPE::NAPTR,
        }
    }
}

/// A record of a kind that is asked for. Names are in lower case, without the last dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        /// Empty where the service is decidedly not offered (RFC 2782).
        target: String,
    },
    Naptr {
        order: u16,
        preference: u16,
        /// In upper case.
        flags: String,
        /// In upper case.
        service: String,
        replacement: String,
    },
}

/// What a name server says about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// These; none where the name or the kind does not exist. Good for so long.
    Records(Vec<Record>, Duration),
    /// The name is another one's alias, of which the answer says nothing more.
    Alias(String, Duration),
    /// The answer did not fit into a datagram.
    Truncated,
    /// The server cannot or will not say.
    Refused,
}

/// Largest answer over UDP, told to the server (RFC 6891): a datagram that is not fragmented.
pub(crate) const UDP_BYTES: u16 = 1_232;

/// A query for `name`; `None` where that cannot be a domain name.
pub(crate) fn query(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let class = QCLASS::CLASS(CLASS::IN);
    let name = Name::new(name).ok()?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind.code()), class, false));
    *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: UDP_BYTES, version: 0 });
    packet.build_bytes_vec().ok()
}

/// Reads the answer to [`query`]; `None` where it is no such answer, so that another datagram is
/// to be waited for.
pub(crate) fn read(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Option<Reply> {
    let packet = Packet::parse(bytes).ok()?;
    let asked = Name::new(name).ok()?;
    let [question] = packet.questions.as_slice() else { return None };
    let is_answer = packet.id() == id && packet.has_flags(PacketFlag::RESPONSE);
    let is_ours = question.qname == asked && question.qtype == QTYPE::TYPE(kind.code());
    if !is_answer || !is_ours {
        return None;
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Some(Reply::Truncated);
    }
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        _ => return Some(Reply::Refused),
    }
    Some(gather(&packet, name, kind))
}

/// The records of the name, along its aliases.
fn gather(packet: &Packet<'_>, name: &str, kind: Kind) -> Reply {
    let mut owner = name.trim_end_matches('.').to_ascii_lowercase();
    let mut ttl = limit::TRANSPORT_DNS_TTL_MS.millis();
    for _ in 0..=limit::TRANSPORT_DNS_ALIASES.get() {
        let of_owner = packet
            .answers
            .iter()
            .filter(|record| record.class == CLASS::IN && text(&record.name) == owner);
        let mut records = Vec::new();
        let mut alias = None;
        for record in of_owner.take(limit::TRANSPORT_DNS_RECORDS.get()) {
            let seconds = Duration::from_secs(u64::from(record.ttl));
            if let RData::CNAME(target) = &record.rdata {
                alias = Some((text(target), seconds));
            } else if let Some(found) = taken(&record.rdata, kind) {
                records.push(found);
                ttl = ttl.min(seconds);
            }
        }
        match alias {
            _ if !records.is_empty() => return Reply::Records(records, ttl),
            Some((target, seconds)) => {
                ttl = ttl.min(seconds);
                owner = target;
            }
            None if owner.eq_ignore_ascii_case(name.trim_end_matches('.')) => break,
            // RFC 1034 section 3.6.2: the server may leave the rest to us. Where it knows that
            // there is none, it says whose absence that is (RFC 2308 section 2).
            None if packet.name_servers.is_empty() => return Reply::Alias(owner, ttl),
            None => break,
        }
    }
    Reply::Records(Vec::new(), ttl.min(absence(packet)))
}

/// How long what is missing may be taken for missing (RFC 2308 section 5).
fn absence(packet: &Packet<'_>) -> Duration {
    let of_zone = packet.name_servers.iter().find_map(|record| match &record.rdata {
        RData::SOA(zone) => Some(Duration::from_secs(u64::from(record.ttl.min(zone.minimum)))),
        _ => None,
    });
    // RFC 2308 section 5: without the zone's word it should not be kept at all.
    let most = limit::TRANSPORT_DNS_NEGATIVE_MS.millis();
    of_zone.unwrap_or(limit::TRANSPORT_DNS_FAILURE_MS.millis()).min(most)
}

fn taken(data: &RData<'_>, kind: Kind) -> Option<Record> {
    Some(match (kind, data) {
        (Kind::A, RData::A(it)) => Record::A(Ipv4Addr::from_bits(it.address)),
        (Kind::Aaaa, RData::AAAA(it)) => Record::Aaaa(Ipv6Addr::from_bits(it.address)),
        (Kind::Srv, RData::SRV(it)) => Record::Srv {
            priority: it.priority,
            weight: it.weight,
            port: it.port,
            target: text(&it.target),
        },
        // RFC 3263 section 4.1: the flags are "s" and the replacement is a name; what wants its
        // regular expression applied is for another application.
        (Kind::Naptr, RData::NAPTR(it)) if it.regexp.to_string().is_empty() => Record::Naptr {
            order: it.order,
            preference: it.preference,
            flags: it.flags.to_string().to_ascii_uppercase(),
            service: it.services.to_string().to_ascii_uppercase(),
            replacement: text(&it.replacement),
        },
        _ => return None,
    })
}

fn text(name: &Name<'_>) -> String {
    name.to_string().trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
