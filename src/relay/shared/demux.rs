//! Whose a datagram is that came to the browsers' shared port: a table and its bounds, without a
//! socket or a clock.
//!
//! - A check names the session that it asks, by the user name fragment that the session's
//!   description gave away. Whether it is true the session's worker finds out.
//! - Anything else has only its source, and is that session's whose check was proved from there.
//! - A source belongs to one session at a time. Another one that claims it gets it when the first
//!   has not been checked from there for a while, or has gone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};

use base::{Instant, SessionId, limit};

use crate::ice_tcp::{asked, network};
use crate::rate::{Rate, WINDOW};

/// Names, and routes, of as many sessions as there may be, with some to spare for those whose end
/// has not been heard of yet.
const NAMES: usize = 4 * limit::RELAY_SESSIONS.get();
const ROUTES: usize = 2 * limit::ICE_PAIRS.get() * limit::RELAY_SESSIONS.get();

/// A local address and whom it talks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    pub(crate) local: IpAddr,
    pub(crate) peer: SocketAddr,
}

/// What is to be done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It goes to this session.
    Hand(SessionId),
    /// It is dropped, and this session asked whether it still has the route.
    Contest(SessionId),
    /// It is dropped.
    Drop(Cause),
}

/// Why nothing is done with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// A check that names no living session.
    Unknown,
    /// No check, from where none was proved.
    Stranger,
    /// Above a limit.
    Flood,
}

#[derive(Debug)]
struct Owner {
    session: SessionId,
    rate: Rate,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Demux {
    names: HashMap<String, Owner>,
    routes: HashMap<Way, Owner>,
    /// Checks of each source in this window.
    sources: HashMap<IpAddr, u64>,
    since: Instant,
}

impl Demux {
    /// A session hears this name; a session that it had before does no more.
    pub(super) fn name(&mut self, ufrag: String, session: SessionId) {
        if self.names.len() < NAMES {
            self.names.insert(ufrag, Owner { session, rate: Rate::default() });
        }
    }

    /// It no longer does.
    pub(super) fn forget(&mut self, ufrag: &str, session: SessionId) {
        if self.names.get(ufrag).is_some_and(|owner| owner.session == session) {
            self.names.remove(ufrag);
        }
    }

    /// A session has proved that its peer is there. `false` where the route is another's.
    pub(super) fn claim(&mut self, way: Way, session: SessionId) -> bool {
        let has_room = self.routes.len() < ROUTES;
        match self.routes.entry(way) {
            Entry::Occupied(owner) => owner.get().session == session,
            Entry::Vacant(vacant) => {
                if has_room {
                    vacant.insert(Owner { session, rate: Rate::default() });
                }
                has_room
            }
        }
    }

    /// It gives a route up.
    pub(super) fn leave(&mut self, way: Way, session: SessionId) {
        if self.routes.get(&way).is_some_and(|owner| owner.session == session) {
            self.routes.remove(&way);
        }
    }

    pub(super) fn judge(&mut self, now: Instant, way: Way, datagram: &[u8]) -> Verdict {
        let per_session = limit::ICE_PORT_DATAGRAMS_PER_SESSION.value;
        if is_stun(datagram)
            && let Some(ufrag) = asked(datagram)
        {
            if !self.admits(now, way.peer.ip()) {
                return Verdict::Drop(Cause::Flood);
            }
            let Some(named) = self.names.get_mut(&ufrag) else {
                return Verdict::Drop(Cause::Unknown);
            };
            if !named.rate.admits(now, per_session) {
                return Verdict::Drop(Cause::Flood);
            }
            return match self.routes.get(&way) {
                Some(owner) if owner.session != named.session => Verdict::Contest(owner.session),
                _ => Verdict::Hand(named.session),
            };
        }
        let Some(owner) = self.routes.get_mut(&way) else {
            return Verdict::Drop(Cause::Stranger);
        };
        match owner.rate.admits(now, per_session) {
            true => Verdict::Hand(owner.session),
            false => Verdict::Drop(Cause::Flood),
        }
    }

    /// Whether a source may be heard. The table holds no more sources than there are datagrams in
    /// a window, which are bounded.
    fn admits(&mut self, now: Instant, source: IpAddr) -> bool {
        if now.since(self.since) >= WINDOW {
            self.since = now;
            self.sources.clear();
        }
        let count = self.sources.entry(network(source)).or_insert(0);
        *count += 1;
        *count <= limit::ICE_PORT_CHECKS_PER_SOURCE.value
    }
}

/// Whether it looks like STUN (RFC 7983 section 7).
pub(crate) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|byte| *byte < 4)
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod demux_tests;
