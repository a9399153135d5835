//! Who is registered where: accounts, the addresses that their clients gave (RFC 3261 section 10),
//! and the WebSocket that leads there (RFC 5626). A binding ends with its WebSocket, since nothing
//! else leads to a browser.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base::{Instant, limit};
use sip::{FlowId, Uri};
use transport::Flow;

/// A way to an account.
#[derive(Clone)]
pub struct Binding {
    /// The WebSocket that leads there.
    pub flow: Arc<Flow>,
    /// The Request-URI that its client wants (RFC 3261 section 16.6, target).
    pub contact: Uri,
}

impl fmt::Debug for Binding {
    /// Leaves the address out: it is a person's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Binding({:?})", self.flow.id)
    }
}

/// What a REGISTER says of one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) contact: Uri,
    /// `+sip.instance`, as written.
    pub(crate) instance: Option<String>,
    /// `reg-id`, where outbound is wanted.
    pub(crate) reg_id: Option<u32>,
    /// In seconds; 0 takes the binding away.
    pub(crate) expires: u32,
    /// The user of a temporary GRUU, should it be wanted.
    pub(crate) temporary: String,
}

/// What a REGISTER asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// To be told.
    Ask,
    /// To take all away (`Contact: *`).
    Clear,
    /// To bind and unbind.
    Change(Vec<Wanted>),
}

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// The account or the table has enough addresses.
    Full,
    /// A request that was sent before the latest one (RFC 3261 section 10.3, step 7).
    Late,
}

/// A binding as its client is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) contact: Uri,
    pub(crate) instance: Option<String>,
    pub(crate) reg_id: Option<u32>,
    /// Seconds left.
    pub(crate) expires: u32,
    pub(crate) temporary: String,
}

#[derive(Clone)]
struct Bound {
    flow: Arc<Flow>,
    contact: Uri,
    instance: Option<String>,
    reg_id: Option<u32>,
    call_id: String,
    cseq: u32,
    ends: Instant,
    /// Grows with each change, so that the newest is known.
    age: u64,
    temporary: String,
}

impl Bound {
    /// Whether `wanted` is about this binding: by instance and reg-id where outbound is used (RFC
    /// 5626 section 6), else by address.
    fn is(&self, wanted: &Wanted) -> bool {
        match (&self.instance, self.reg_id, &wanted.instance, wanted.reg_id) {
            (Some(one), Some(id), Some(other), Some(other_id)) => one == other && id == other_id,
            _ => self.contact.equivalent(&wanted.contact),
        }
    }
}

/// The table of all accounts, shared by the WebSockets and by whoever calls accounts.
#[derive(Default)]
pub struct Registrar {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    accounts: BTreeMap<String, Vec<Bound>>,
    of_flow: BTreeMap<FlowId, String>,
    count: usize,
    age: u64,
}

impl fmt::Debug for Registrar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registrar({})", self.table().count)
    }
}

impl Registrar {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ways to an account, the one registered last first; empty where it is not there.
    #[must_use]
    pub fn lookup(&self, account: &str, now: Instant) -> Vec<Binding> {
        let table = self.table();
        let all = table.accounts.get(account).map(Vec::as_slice).unwrap_or_default();
        let mut alive: Vec<&Bound> = all.iter().filter(|it| it.ends > now).collect();
        alive.sort_by_key(|it| core::cmp::Reverse(it.age));
        let binding =
            |it: &&Bound| Binding { flow: Arc::clone(&it.flow), contact: it.contact.clone() };
        alive.iter().map(binding).collect()
    }

    /// The way to the client that registered this very address, or was given it as its own (GRUU,
    /// RFC 5627 section 5), as one entry or none.
    #[must_use]
    pub fn lookup_contact(&self, contact: &Uri, now: Instant) -> Vec<Binding> {
        let table = self.table();
        let (user, own) = (contact.user_unescaped(), contact.param("gr"));
        let is_of = |account: &str, it: &Bound| match own {
            None => it.contact.equivalent(contact),
            Some("") => user.as_deref() == Some(it.temporary.as_str()),
            Some(id) => {
                let instance = it.instance.as_deref().unwrap_or_default();
                let bare = instance.trim_start_matches('<').trim_end_matches('>');
                user.as_deref() == Some(account) && bare == id
            }
        };
        let all = table
            .accounts
            .iter()
            .flat_map(|(account, all)| all.iter().map(move |it| (account, it)));
        let mut alive = all.filter(|(_, it)| it.ends > now);
        let found = alive.find(|(account, it)| is_of(account, it)).map(|(_, it)| it);
        let binding =
            |it: &Bound| Binding { flow: Arc::clone(&it.flow), contact: it.contact.clone() };
        found.map(binding).into_iter().collect()
    }

    /// Registered addresses of all accounts.
    #[must_use]
    pub fn count(&self) -> usize {
        self.table().count
    }

    /// Does what a REGISTER asks for, wholly or not at all, and tells what holds then.
    pub(crate) fn register(
        &self,
        now: Instant,
        account: &str,
        flow: &Arc<Flow>,
        sent: (&str, u32),
        order: Order,
    ) -> Result<Vec<Held>, Rejected> {
        let mut table = self.table();
        let mut bound = table.accounts.get(account).cloned().unwrap_or_default();
        let before = bound.len();
        bound.retain(|it| it.ends > now);
        let (call_id, cseq) = sent;
        let is_late = |it: &Bound| it.call_id == call_id && cseq <= it.cseq;
        match order {
            Order::Ask => {}
            Order::Clear => {
                if bound.iter().any(is_late) {
                    return Err(Rejected::Late);
                }
                bound.clear();
            }
            Order::Change(all) => {
                for wanted in all {
                    let place = bound.iter().position(|it| it.is(&wanted));
                    let known = place.map(|place| bound.remove(place));
                    if known.as_ref().is_some_and(is_late) {
                        return Err(Rejected::Late);
                    }
                    if wanted.expires == 0 {
                        continue;
                    }
                    table.age = table.age.saturating_add(1);
                    let seconds = core::time::Duration::from_secs(u64::from(wanted.expires));
                    bound.push(Bound {
                        flow: Arc::clone(flow),
                        contact: wanted.contact,
                        instance: wanted.instance,
                        reg_id: wanted.reg_id,
                        call_id: call_id.to_owned(),
                        cseq,
                        ends: now + seconds,
                        age: table.age,
                        temporary: known.map_or(wanted.temporary, |known| known.temporary),
                    });
                }
            }
        }
        let others = table.count.saturating_sub(before);
        let is_full = bound.len() > limit::API_BINDINGS_PER_ACCOUNT.get()
            || (bound.len() > before && others + bound.len() > limit::API_BINDINGS.get());
        if is_full {
            return Err(Rejected::Full);
        }
        let held = bound.iter().map(|it| held(it, now)).collect();
        table.count = others + bound.len();
        if bound.is_empty() {
            table.accounts.remove(account);
        } else {
            table.of_flow.insert(flow.id, account.to_owned());
            table.accounts.insert(account.to_owned(), bound);
        }
        Ok(held)
    }

    /// A WebSocket has ended: what it led to is not reached any more.
    pub(crate) fn flow_gone(&self, flow: FlowId) {
        let mut table = self.table();
        let Some(account) = table.of_flow.remove(&flow) else { return };
        let Some(bound) = table.accounts.get_mut(&account) else { return };
        let before = bound.len();
        bound.retain(|it| it.flow.id != flow);
        let (left, gone) = (bound.len(), before - bound.len());
        table.count = table.count.saturating_sub(gone);
        if left == 0 {
            table.accounts.remove(&account);
        }
    }
}

fn held(bound: &Bound, now: Instant) -> Held {
    // Rounded up, so that nobody refreshes because of a millisecond.
    let left = bound.ends.since(now).as_millis().div_ceil(1_000);
    Held {
        contact: bound.contact.clone(),
        instance: bound.instance.clone(),
        reg_id: bound.reg_id,
        expires: u32::try_from(left).unwrap_or(u32::MAX),
        temporary: bound.temporary.clone(),
    }
}

#[cfg(test)]
#[path = "registrar_tests.rs"]
mod tests;
