//! The search for a target that takes a connection: the addresses of a server beside each other
//! (RFC 8305), one server after the other.

use std::collections::VecDeque;
use std::sync::Arc;

use base::limit;
use sip::Host;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::open::{dialled, stream};
use super::{Dial, DialError, Failure, Reached};
use crate::connection::{Cause, Connection, Dialled};
use crate::flow::{Flow, Transport};
use crate::handle::Shared;
use crate::health::{Place, Standing};
use crate::line::OpenLine;
use crate::proof::Wanted;
use crate::random::SystemRandom;
use crate::resolve::{self, Destination, ResolveError, Target, Targets};

/// See the module's documentation.
pub(super) struct Search {
    shared: Arc<Shared>,
    dial: Dial,
    line: Arc<OpenLine>,
    /// Found out at the first step.
    found: Option<Found>,
    /// Addresses of the present server.
    group: VecDeque<Target>,
    /// Targets that failed lately: tried when nothing else is left.
    later: Vec<Target>,
    /// Targets that have asked to be left alone: tried now and then when nothing else is left.
    told: Vec<Target>,
    current: Option<Current>,
    /// The target that is tried once more since its connection was lost.
    renewed: Option<Target>,
    /// What the last of them failed of.
    last: DialError,
}

/// The target that was reached last.
struct Current {
    target: Target,
    /// `None` of datagrams.
    connection: Option<Arc<Connection>>,
}

struct Found {
    targets: Targets,
    wanted: Wanted,
}

impl Search {
    pub(super) fn new(shared: &Arc<Shared>, dial: Dial, line: Arc<OpenLine>) -> Self {
        Self {
            shared: Arc::clone(shared),
            dial,
            line,
            found: None,
            group: VecDeque::new(),
            later: Vec::new(),
            told: Vec::new(),
            current: None,
            renewed: None,
            last: DialError::Unreachable,
        }
    }

    /// The next target that takes a connection.
    pub(super) async fn advance(&mut self) -> Result<Reached, DialError> {
        let found = self.next().await;
        if let Err(error) = found
            && !matches!(error, DialError::Full | DialError::Ended)
            && let Some(uri) = self.uri()
        {
            self.shared.health.failed(&self.dial.trunk, uri, None);
        }
        found
    }

    pub(super) fn note_failure(&mut self, why: Failure) {
        let Some(Current { target, connection }) = self.current.take() else { return };
        let lost_by = connection.and_then(|connection| connection.cause());
        if lost_by == Some(Cause::Unwelcome) {
            return self.note(target, Cause::Unwelcome);
        }
        if why == Failure::Silent && lost_by.is_some() && self.renewed != Some(target) {
            // Nothing was heard of the target itself; its connection may be older than its server.
            self.renewed = Some(target);
            return self.group.push_front(target);
        }
        let retry_after = match why {
            Failure::Silent => None,
            Failure::Unavailable(after) => after,
        };
        self.last = match retry_after {
            Some(_) => DialError::Unavailable,
            None => DialError::Unreachable,
        };
        self.shared.health.failed(&self.dial.trunk, Place::Target(target), retry_after);
    }

    pub(super) fn note_success(&self) {
        let Some(Current { target, .. }) = self.current else { return };
        self.shared.health.worked(&self.dial.trunk, Place::Target(target));
        if let Some(uri) = self.uri() {
            self.shared.health.worked(&self.dial.trunk, uri);
        }
    }

    /// The URI, where the trunk's state depends on it.
    fn uri(&self) -> Option<Place> {
        let uri = self.dial.uri.as_str();
        self.line.send_to.iter().any(|it| it == uri).then(|| Place::Uri(uri.into()))
    }

    async fn next(&mut self) -> Result<Reached, DialError> {
        if self.found.is_none() {
            if let Some(uri) = self.uri() {
                self.shared.health.begin(&self.dial.trunk, uri);
            }
            self.found = Some(self.locate().await?);
        }
        loop {
            if self.group.is_empty() && !self.refill().await {
                return Err(self.last);
            }
            if let Some(reached) = self.race().await {
                let connection = self.shared.connections.find(reached.flow.id);
                self.current = Some(Current { target: reached.target, connection });
                return Ok(reached);
            }
        }
    }

    async fn locate(&self) -> Result<Found, ResolveError> {
        let destination = Destination::of(&self.dial.uri)?;
        let host = destination.host.clone();
        let wanted = Wanted { proved: self.proved(&host), host };
        let transports = self.dial.transports.clone();
        let only = self.line.only(&transports);
        let place = resolve::Wanted { destination, transports, only };
        let resolver = Arc::clone(&self.shared.resolver);
        let targets = Targets::locate(resolver, &place, &mut SystemRandom).await?;
        Ok(Found { targets, wanted })
    }

    /// What else the peer may prove than what was dialled. Where a dialog's requests go to an
    /// address, as Contact often says, that is also the domain of a URI that leads to the trunk:
    /// the policy names it, and no other domain's owner can prove it.
    fn proved(&self, host: &Host) -> Arc<[String]> {
        let proved = &self.dial.proved;
        if host.ip().is_none() || self.uri().is_some() {
            return Arc::clone(proved);
        }
        proved.iter().cloned().chain(self.line.domains()).collect()
    }

    /// Takes the addresses of the next server that may be tried; `false` where none is left.
    async fn refill(&mut self) -> bool {
        let Some(found) = &mut self.found else { return false };
        while let Some(next) = found.targets.next().await {
            let targets = match next {
                Ok(targets) => targets,
                Err(error) => {
                    self.last = error.into();
                    continue;
                }
            };
            for target in targets {
                match self.shared.health.begin(&self.dial.trunk, Place::Target(target)) {
                    Standing::Up | Standing::Trial => self.group.push_back(target),
                    Standing::Down => self.later.push(target),
                    Standing::Told => self.told.push(target),
                }
            }
            if !self.group.is_empty() {
                return true;
            }
        }
        self.group.extend(self.later.drain(..));
        if self.group.is_empty() && !self.told.is_empty() {
            let (health, trunk) = (&self.shared.health, &self.dial.trunk);
            let told = self.told.drain(..);
            self.group.extend(told.filter(|it| health.trickles(trunk, Place::Target(*it))));
            self.last = DialError::Unavailable;
        }
        !self.group.is_empty()
    }

    /// Tries the addresses of the group, each beside the ones before it after a while; `None`
    /// where all failed. What was not needed stays in the group.
    async fn race(&mut self) -> Option<Reached> {
        if let Some(reached) = self.at_hand() {
            return Some(reached);
        }
        let mut running = JoinSet::new();
        let mut tried: Vec<Target> = Vec::new();
        loop {
            if let Some(target) = self.group.pop_front() {
                tried.push(target);
                let attempt = self.attempt(target)?;
                running.spawn(async move { (target, attempt.await) });
            }
            let pause = sleep(limit::TRANSPORT_HAPPY_EYEBALLS_MS.millis());
            let joined = tokio::select! {
                joined = running.join_next() => joined?,
                () = pause, if !self.group.is_empty() => continue,
            };
            let Ok((target, result)) = joined else { continue };
            tried.retain(|it| *it != target);
            match result {
                Ok(flow) => {
                    // Those still under way are given up; they may be good for another try.
                    tried.into_iter().rev().for_each(|it| self.group.push_front(it));
                    return Some(Reached { flow, target });
                }
                Err(cause) => self.note(target, cause),
            }
        }
    }

    /// A connection that exists, or a socket that needs none.
    fn at_hand(&mut self) -> Option<Reached> {
        let reached = self.group.iter().enumerate().find_map(|(index, target)| {
            let flow = match target.transport {
                Transport::Udp => self.datagrams(*target),
                _ => {
                    let dialled = self.dialled(*target)?;
                    let connections = &self.shared.connections;
                    connections.find_up(&dialled).or_else(|| {
                        let may = self.line.takes_aliases && self.dial.proved.is_empty();
                        may.then(|| connections.find_alias(&dialled)).flatten()
                    })
                }
            };
            Some((index, Reached { flow: flow?, target: *target }))
        });
        let (index, reached) = reached?;
        self.group.remove(index);
        Some(reached)
    }

    fn datagrams(&self, target: Target) -> Option<Arc<Flow>> {
        let listener = self.line.listener(Transport::Udp, target.address.ip());
        self.shared.udp.flow_to(target.address, listener).map(Arc::new)
    }

    fn dialled(&self, target: Target) -> Option<Dialled> {
        let listener = self.line.listener(target.transport, target.address.ip());
        let wanted = self.found.as_ref()?.wanted.clone();
        let client = self.line.client.as_ref();
        Some(dialled(target.transport, target.address, listener, wanted, client))
    }

    fn attempt(
        &self,
        target: Target,
    ) -> Option<impl Future<Output = Result<Arc<Flow>, Cause>> + Send + 'static> {
        let dialled = self.dialled(target)?;
        let (shared, line) = (Arc::clone(&self.shared), Arc::clone(&self.line));
        Some(async move {
            if dialled.transport == Transport::Udp {
                return Err(Cause::Error); // there is no socket for it
            }
            stream(&shared, &dialled, line.client.as_ref(), &line.trunk).await
        })
    }

    /// Remembers why a target did not take a connection.
    fn note(&mut self, target: Target, cause: Cause) {
        self.last = match cause {
            Cause::Untrusted => DialError::Untrusted,
            Cause::Unwelcome => DialError::Unwelcome,
            Cause::Limit => DialError::Full,
            Cause::Drain => DialError::Ended,
            _ => DialError::Unreachable,
        };
        // Our own limits say nothing about the target.
        if !matches!(cause, Cause::Limit | Cause::Drain | Cause::Local) {
            self.shared.health.failed(&self.dial.trunk, Place::Target(target), None);
        }
    }
}
