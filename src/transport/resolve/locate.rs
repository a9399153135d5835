//! RFC 3263 section 4: which transport, which servers, in which order.
//!
//! Where the RFC falls back to UDP, this falls back to the first transport that the caller allows,
//! which is TLS unless a policy says otherwise: a URI without a transport never leads to plaintext.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use base::{Random, limit};
use sip::{Host, Scheme, Uri};

use super::lookup::{ResolveError, Resolver};
use super::message::{Kind, Record};
use crate::flow::Transport;

/// Who is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The domain or address that the URI names, to which a certificate must belong.
    pub host: Host,
    /// The port, where the URI names one.
    pub port: Option<u16>,
    /// The transport, where the URI names one.
    pub transport: Option<Transport>,
    /// Whether the URI is a `sips:` one.
    pub is_secure: bool,
}

impl Destination {
    /// What a SIP URI names. A `maddr` parameter is passed over: it would send what is meant for
    /// one domain to another host.
    ///
    /// # Errors
    /// Where it names no host, or a transport that is not spoken here.
    pub fn of(uri: &Uri) -> Result<Self, ResolveError> {
        let is_secure = match uri.scheme() {
            Scheme::Sip => false,
            Scheme::Sips => true,
            Scheme::Tel | Scheme::Urn | Scheme::Other => return Err(ResolveError::NoHost),
        };
        let transport = match uri.param("transport") {
            None => None,
            Some(word) => Some(word_of(word, is_secure).ok_or(ResolveError::Transport)?),
        };
        let host = uri.host().ok_or(ResolveError::NoHost)?.clone();
        Ok(Self { host, port: uri.port(), transport, is_secure })
    }
}

/// The transport that a URI's word asks for.
fn word_of(word: &str, is_secure: bool) -> Option<Transport> {
    let is = |known: &str| word.eq_ignore_ascii_case(known);
    // RFC 3261 section 26.2.2: `sips:` over TCP is TLS.
    match is_secure {
        _ if is("tls") => Some(Transport::Tls),
        true if is("tcp") => Some(Transport::Tls),
        false if is("tcp") => Some(Transport::Tcp),
        false if is("udp") => Some(Transport::Udp),
        _ => None,
    }
}

/// An address to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Over this.
    pub transport: Transport,
    /// To this.
    pub address: SocketAddr,
}

/// A destination and the means to reach it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) destination: Destination,
    /// What may be used, the preferred first.
    pub(crate) transports: Vec<Transport>,
    /// Whether only IPv4 or only IPv6 addresses can be reached.
    pub(crate) only: Option<Family>,
}

/// A kind of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// A server of the destination, whose addresses are not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    transport: Transport,
    host: Host,
    port: u16,
}

/// The servers of a destination in the order of failover (RFC 3263 section 4.3).
pub(crate) struct Targets {
    resolver: Arc<Resolver>,
    servers: VecDeque<Server>,
    only: Option<Family>,
    /// How many addresses may still be given out.
    left: usize,
}

impl Targets {
    /// Finds the servers of a destination.
    pub(crate) async fn locate(
        resolver: Arc<Resolver>,
        wanted: &Wanted,
        random: &mut (dyn Random + Send),
    ) -> Result<Self, ResolveError> {
        let servers = servers(&resolver, wanted, random).await?;
        let left = limit::TRANSPORT_TARGETS.get();
        Ok(Self { resolver, servers: servers.into(), only: wanted.only, left })
    }

    /// The addresses of the next server that has some; to be tried in this order.
    pub(crate) async fn next(&mut self) -> Option<Result<Vec<Target>, ResolveError>> {
        let server = self.servers.pop_front()?;
        let addresses = match &server.host {
            Host::Name(name) => self.resolver.addresses(name).await,
            Host::V4(address) => Ok(vec![IpAddr::V4(*address)]),
            Host::V6(address) => Ok(vec![IpAddr::V6(*address)]),
        };
        let only = self.only;
        let fits = |address: &IpAddr| match only {
            Some(Family::V4) => address.is_ipv4(),
            Some(Family::V6) => address.is_ipv6(),
            None => true,
        };
        let found: Vec<Target> = match addresses {
            Ok(addresses) => addresses
                .into_iter()
                .filter(fits)
                .take(self.left)
                .map(|ip| Target {
                    transport: server.transport,
                    address: SocketAddr::new(ip, server.port),
                })
                .collect(),
            Err(error) => return Some(Err(error)),
        };
        self.left -= found.len();
        Some(if found.is_empty() { Err(ResolveError::Nowhere) } else { Ok(found) })
    }
}

async fn servers(
    resolver: &Resolver,
    wanted: &Wanted,
    random: &mut (dyn Random + Send),
) -> Result<Vec<Server>, ResolveError> {
    let Destination { host, port, transport, is_secure } = &wanted.destination;
    let may = |it: &Transport| wanted.transports.contains(it) && (!is_secure || !it.is_plaintext());
    if transport.as_ref().is_some_and(|named| !may(named)) {
        return Err(ResolveError::Transport);
    }
    let allowed: Vec<Transport> = wanted.transports.iter().copied().filter(may).collect();
    let plain = transport.or_else(|| allowed.first().copied()).ok_or(ResolveError::Transport)?;
    let direct = |port: Option<u16>| {
        let port = port.unwrap_or(default_port(plain));
        vec![Server { transport: plain, host: host.clone(), port }]
    };
    // RFC 3263 section 4.2: an address is itself, and a port rules out a search for servers.
    let Host::Name(domain) = host else { return Ok(direct(*port)) };
    if port.is_some() {
        return Ok(direct(*port));
    }
    let services: Vec<(Transport, String)> = match transport {
        Some(named) => vec![(*named, service(*named, domain))],
        None => {
            // Both at once: few domains have NAPTR, and a caller is waiting.
            let likely = service(plain, domain);
            let (found, _) = tokio::join!(
                by_naptr(resolver, domain, &allowed),
                resolver.records(&likely, Kind::Srv)
            );
            match found {
                Ok(found) if !found.is_empty() => found,
                // RFC 3263 section 4.1: without NAPTR the names of the services are made up. Some
                // name servers fail for a kind that they do not know.
                _ => allowed.iter().map(|it| (*it, service(*it, domain))).collect(),
            }
        }
    };
    let mut servers = Vec::new();
    let mut is_refused = false;
    for (transport, name) in services {
        let records = resolver.records(&name, Kind::Srv).await?;
        // RFC 2782: a lone target of "." says that the service is decidedly not there.
        is_refused |= matches!(&*records, [Record::Srv { target, .. }] if target.is_empty());
        let ordered = by_weight(&records, random);
        servers.extend(ordered.into_iter().filter_map(|(host, port)| {
            Some(Server { transport, host: Host::parse(&host)?, port })
        }));
    }
    match servers.is_empty() {
        true if is_refused => Err(ResolveError::NotOffered),
        // RFC 3263 section 4.2: without SRV it is the domain itself.
        true => Ok(direct(None)),
        false => Ok(servers),
    }
}

/// The services that the domain names (RFC 3263 section 4.1), the preferred first.
async fn by_naptr(
    resolver: &Resolver,
    domain: &str,
    allowed: &[Transport],
) -> Result<Vec<(Transport, String)>, ResolveError> {
    let records = resolver.records(domain, Kind::Naptr).await?;
    let mut found: Vec<(u16, u16, Transport, String)> = records
        .iter()
        .filter_map(|record| {
            let Record::Naptr { order, preference, flags, service, replacement } = record else {
                return None;
            };
            let transport = match service.as_str() {
                "SIPS+D2T" => Transport::Tls,
                "SIP+D2T" => Transport::Tcp,
                "SIP+D2U" => Transport::Udp,
                _ => return None,
            };
            let fits = flags == "S" && !replacement.is_empty() && allowed.contains(&transport);
            fits.then(|| (*order, *preference, transport, replacement.clone()))
        })
        .collect();
    found.sort_by_key(|(order, preference, ..)| (*order, *preference));
    Ok(found.into_iter().map(|(_, _, transport, name)| (transport, name)).collect())
}

/// The name of a domain's service.
fn service(transport: Transport, domain: &str) -> String {
    let prefix = match transport {
        // What is carried is not looked for by name.
        Transport::Tls | Transport::Wss | Transport::Whip => "_sips._tcp",
        Transport::Tcp => "_sip._tcp",
        Transport::Udp => "_sip._udp",
    };
    format!("{prefix}.{domain}")
}

/// RFC 3261 section 19.1.2.
const fn default_port(transport: Transport) -> u16 {
    match transport {
        Transport::Tls | Transport::Wss | Transport::Whip => 5061,
        Transport::Udp | Transport::Tcp => 5060,
    }
}

/// SRV records by priority, and within one by chance according to their weights (RFC 2782).
fn by_weight(records: &[Record], random: &mut (dyn Random + Send)) -> Vec<(String, u16)> {
    let mut left: Vec<(u16, u16, &str, u16)> = records
        .iter()
        .filter_map(|record| match record {
            Record::Srv { priority, weight, port, target } if !target.is_empty() => {
                Some((*priority, *weight, target.as_str(), *port))
            }
            _ => None,
        })
        .collect();
    // Those of weight zero first, or they would have no chance at all (RFC 2782).
    left.sort_by_key(|it| (it.0, it.1));
    let mut order = Vec::with_capacity(left.len());
    while let Some(priority) = left.iter().map(|it| it.0).min() {
        let of_priority = |it: &&(u16, u16, &str, u16)| it.0 == priority;
        let total: u32 = left.iter().filter(of_priority).map(|it| u32::from(it.1)).sum();
        let mut drawn = random.below(total.saturating_add(1));
        let chosen = left.iter().position(|it| {
            let is_it = it.0 == priority && drawn <= u32::from(it.1);
            if it.0 == priority {
                drawn = drawn.saturating_sub(u32::from(it.1));
            }
            is_it
        });
        let first = left.iter().position(|it| it.0 == priority);
        let (_, _, target, port) = left.remove(chosen.or(first).unwrap_or(0));
        order.push((target.to_owned(), port));
    }
    order
}

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
