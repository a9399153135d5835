//! One name and one kind of record: files, then the cache, then the name servers, whom only one
//! of those who want the same asks.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use base::limit;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Duration, Instant, timeout};

use super::cache::{Cache, Known};
use super::client::{NameServers, ask};
use super::files::{Hosts, name_servers};
use super::message::{Kind, Record, Reply};
use crate::task::contained;

/// Why a URI leads nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// It names no host, or one that cannot be a domain name.
    #[error("the URI names no host")]
    NoHost,
    /// Its transport is not one that may be used here.
    #[error("the URI asks for a transport that may not be used")]
    Transport,
    /// The domain has no address that serves this.
    #[error("the domain has no address for this")]
    Nowhere,
    /// The domain says that it does not offer SIP (RFC 2782: a target of `.`).
    #[error("the domain does not offer SIP")]
    NotOffered,
    /// No name server answers, and nothing is known from before.
    #[error("no name server answers")]
    Unanswered,
}

/// Asks, keeps and answers.
#[derive(Debug)]
pub(crate) struct Resolver {
    config: NameServers,
    files: ArcSwap<Files>,
    cache: Mutex<Cache>,
    asking: Mutex<Asking>,
    queries: Semaphore,
}

#[derive(Debug)]
struct Files {
    servers: Vec<SocketAddr>,
    hosts: Hosts,
}

type Asking = HashMap<(String, Kind), Arc<OnceCell<Result<Arc<[Record]>, ResolveError>>>>;

impl Resolver {
    pub(crate) fn new(config: NameServers) -> Self {
        let files = ArcSwap::from_pointee(read_files(&config));
        Self {
            config,
            files,
            cache: Mutex::default(),
            asking: Mutex::default(),
            queries: Semaphore::new(limit::TRANSPORT_DNS_QUERIES.get()),
        }
    }

    /// Reads the files again and forgets what is known.
    pub(crate) fn reload(&self) {
        self.files.store(Arc::new(read_files(&self.config)));
        self.cache().clear();
    }

    /// The addresses of a host, IPv6 and IPv4 in turn (RFC 8305 section 4), those of the hosts
    /// file alone where it has the name.
    pub(crate) async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let host = whole(host);
        if let Some(found) = self.files.load().hosts.find(&host) {
            let (six, four) = found.into_iter().partition(IpAddr::is_ipv6);
            return Ok(in_turn(six, four));
        }
        let (six, four) =
            tokio::join!(self.records(&host, Kind::Aaaa), self.records(&host, Kind::A));
        if let (Err(error), Err(_)) = (&six, &four) {
            return Err(*error);
        }
        let addresses = |found: Result<Arc<[Record]>, ResolveError>| -> Vec<IpAddr> {
            let address = |record: &Record| match record {
                Record::A(address) => Some(IpAddr::V4(*address)),
                Record::Aaaa(address) => Some(IpAddr::V6(*address)),
                Record::Srv { .. } | Record::Naptr { .. } => None,
            };
            // A family of which nothing is known does not keep the other one from being used.
            found.iter().flat_map(|records| records.iter()).filter_map(address).collect()
        };
        Ok(in_turn(addresses(six), addresses(four)))
    }

    /// The records of a name; none where it has none.
    pub(crate) async fn records(
        &self,
        name: &str,
        kind: Kind,
    ) -> Result<Arc<[Record]>, ResolveError> {
        let name = whole(name);
        match self.cache().find(&name, kind, Instant::now()) {
            Some(Known::Records(records)) => return Ok(records),
            Some(Known::Failed) => return Err(ResolveError::Unanswered),
            None => {}
        }
        let key = (name, kind);
        let cell = Arc::clone(self.asking().entry(key.clone()).or_default());
        let found = cell.get_or_init(|| self.ask(&key.0, kind)).await.clone();
        let mut asking = self.asking();
        // Who asks after this one finds the cache filled, or asks anew.
        if asking.get(&key).is_some_and(|it| Arc::ptr_eq(it, &cell)) {
            asking.remove(&key);
        }
        found
    }

    /// Asks the name servers.
    async fn ask(&self, name: &str, kind: Kind) -> Result<Arc<[Record]>, ResolveError> {
        let Ok(_place) = self.queries.try_acquire() else { return Err(ResolveError::Unanswered) };
        let servers = self.files.load().servers.clone();
        // What a server sends must not be able to end more than its own lookup.
        let asking = contained(follow(&servers, name, kind));
        let found = timeout(limit::TRANSPORT_DNS_SEARCH_MS.millis(), asking).await;
        if let Ok(Some(Some((records, ttl)))) = found {
            let records: Arc<[Record]> = records.into();
            self.cache().keep(name, kind, Arc::clone(&records), ttl, Instant::now());
            return Ok(records);
        }
        let stale = self.cache().note_failure(name, kind, Instant::now());
        stale.ok_or(ResolveError::Unanswered)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks along aliases that the servers leave to us.
async fn follow(servers: &[SocketAddr], name: &str, kind: Kind) -> Option<(Vec<Record>, Duration)> {
    let mut ttl = limit::TRANSPORT_DNS_TTL_MS.millis();
    let mut owner = name.to_owned();
    for _ in 0..=limit::TRANSPORT_DNS_ALIASES.get() {
        match ask(servers, &owner, kind).await? {
            Reply::Records(records, time) => return Some((records, ttl.min(time))),
            Reply::Alias(target, time) => {
                owner = target;
                ttl = ttl.min(time);
            }
            Reply::Truncated | Reply::Refused => return None,
        }
    }
    None
}

/// A name without its last dot, in lower case, as it is kept.
fn whole(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn in_turn(six: Vec<IpAddr>, four: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut all = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = (six.next(), four.next());
        if pair == (None, None) {
            return all;
        }
        all.extend(pair.0.into_iter().chain(pair.1));
    }
}

fn read_files(config: &NameServers) -> Files {
    let mut servers = config.servers.clone();
    if servers.is_empty() {
        servers = name_servers(&read(&config.resolv_conf));
    }
    servers.truncate(limit::TRANSPORT_DNS_SERVERS.get());
    Files { servers, hosts: Hosts::parse(&read(&config.hosts)) }
}

/// A file that is not there, or is no text, says nothing.
fn read(file: &Path) -> String {
    let most = limit::TRANSPORT_DNS_HOSTS_BYTES.value;
    let is_small = std::fs::metadata(file).is_ok_and(|meta| meta.len() <= most);
    if is_small { std::fs::read_to_string(file).unwrap_or_default() } else { String::new() }
}
