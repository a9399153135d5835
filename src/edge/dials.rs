//! Flows that legs wait for: each wish becomes a dial of the transport, whose answer goes back to
//! the shard. A dial is kept until its flow serves, since the next address may be wanted.
//!
//! Over WSS nobody is dialled: an account's registrations are its addresses, the newest first.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use base::{Clock, Event, Instant, LegId, Reason, limit};
use call::Unserved;
use policy::Transport;
use sip::Uri;
use telemetry::Telemetry;
use tokio::sync::mpsc;
use transport::{Dial, DialError, Dialling, Failure, Reached, TransportHandle};

use crate::browsers::{Accounts, Way};
use crate::clock::OsClock;
use crate::front::peer_of;
use crate::shard::{Input, Wish};

/// The dials of one shard.
pub struct Dials {
    shard: mpsc::Sender<Input>,
    telemetry: Arc<Telemetry>,
    accounts: Accounts,
    open: BTreeMap<LegId, Open>,
    /// Ways to accounts that were not tried yet.
    ways: BTreeMap<LegId, VecDeque<Way>>,
    /// By age, so that what nobody asks for again is forgotten.
    ages: VecDeque<(Instant, LegId)>,
}

struct Open {
    dialling: Dialling,
    /// Whom the answer is for: a retry is for another leg than the first try.
    leg: Arc<ArcSwap<LegId>>,
}

impl Dials {
    /// None yet; answers go to `shard`.
    #[must_use]
    pub const fn new(
        shard: mpsc::Sender<Input>,
        telemetry: Arc<Telemetry>,
        accounts: Accounts,
    ) -> Self {
        Self {
            shard,
            telemetry,
            accounts,
            open: BTreeMap::new(),
            ways: BTreeMap::new(),
            ages: VecDeque::new(),
        }
    }

    /// Begins a dial, or goes on with one.
    pub(crate) fn begin(&mut self, transport: &TransportHandle, wish: Wish) {
        self.forget_old();
        if wish.transport == Transport::Wss {
            return self.begin_account(&wish);
        }
        if let Some((before, how)) = wish.after
            && let Some(open) = self.open.remove(&before)
        {
            open.leg.store(Arc::new(wish.leg));
            open.dialling.failed(match how {
                Unserved::Silent => Failure::Silent,
                Unserved::Unavailable(retry_after) => Failure::Unavailable(retry_after),
            });
            return self.keep(wish.leg, open);
        }
        let Some(dial) = dial_of(&wish) else {
            let reason = Reason::TrunkUnreachable;
            let input = call::Input::Unreachable { leg: wish.leg, reason };
            return tell(&self.shard, &self.telemetry, input);
        };
        let leg = Arc::new(ArcSwap::from_pointee(wish.leg));
        let (whose, shard) = (Arc::clone(&leg), self.shard.clone());
        let telemetry = Arc::clone(&self.telemetry);
        let dialling = transport.dial(dial, move |answer| {
            tell(&shard, &telemetry, input_of(**whose.load(), answer));
        });
        self.keep(wish.leg, Open { dialling, leg });
    }

    /// Gives the next way to an account, or to the client behind a Contact.
    fn begin_account(&mut self, wish: &Wish) {
        let waiting = wish.after.and_then(|(before, _)| self.ways.remove(&before));
        let mut ways = waiting.unwrap_or_else(|| self.accounts.ways_of(wish.uri.expose()).into());
        let next = ways.pop_front();
        if !ways.is_empty() {
            self.ways.insert(wish.leg, ways);
            self.ages.push_back((OsClock.now(), wish.leg));
        }
        let input = match next {
            Some(Way { flow, contact }) => call::Input::Connected {
                leg: wish.leg,
                peer: peer_of(&flow),
                contact: Some(contact),
            },
            None => {
                let reason = Reason::AccountNotRegistered;
                call::Input::Unreachable { leg: wish.leg, reason }
            }
        };
        tell(&self.shard, &self.telemetry, input);
    }

    /// The flow that a leg got has served: no other is wanted.
    pub(crate) fn served(&mut self, leg: LegId) {
        self.ways.remove(&leg);
        if let Some(open) = self.open.remove(&leg) {
            open.dialling.worked();
        }
    }

    fn keep(&mut self, leg: LegId, open: Open) {
        self.open.insert(leg, open);
        self.ages.push_back((OsClock.now(), leg));
    }

    fn forget_old(&mut self) {
        let (now, most) = (OsClock.now(), 2 * limit::CALL_RING_MS.millis());
        while let Some((_, leg)) = self.ages.pop_front_if(|(at, _)| now.since(*at) >= most) {
            self.open.remove(&leg);
            self.ways.remove(&leg);
        }
    }
}

fn dial_of(wish: &Wish) -> Option<Dial> {
    let transport = match wish.transport {
        Transport::Udp => transport::Transport::Udp,
        Transport::Tcp => transport::Transport::Tcp,
        Transport::Tls => transport::Transport::Tls,
        Transport::Ws | Transport::Wss | Transport::Whip => return None, // carried, not dialled
    };
    let uri = Uri::parse(wish.uri.expose()).ok()?;
    let proved = Arc::clone(&wish.proved);
    Some(Dial { transports: vec![transport], proved, ..Dial::new(wish.trunk.clone(), uri) })
}

fn input_of(leg: LegId, answer: Result<Reached, DialError>) -> call::Input {
    match answer {
        Ok(Reached { flow, .. }) => {
            call::Input::Connected { leg, peer: peer_of(&flow), contact: None }
        }
        Err(error) => call::Input::Unreachable { leg, reason: error.reason() },
    }
}

fn tell(shard: &mpsc::Sender<Input>, telemetry: &Telemetry, input: call::Input) {
    if shard.try_send(Input::Call(input)).is_err() {
        // The leg's own deadline ends its waiting.
        telemetry.emit(&Event::QueueFull { queue: "shard" });
    }
}
