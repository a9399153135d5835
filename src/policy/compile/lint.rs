//! What loads but is surely not meant. (What needs the date is `Policy::check_dates`; what shows
//! in one trunk alone is in [`super::trunk`].)

use std::collections::BTreeMap;

use super::read::{Item, Read};
use super::report::Report;
use crate::file::{RouteFile, TrunkFile, ZoneFile};
use crate::matching::Pattern;
use crate::policy::{Action, Policy, Route, Trunk};
use crate::words::Transport;
use base::diagnostic::suggest;

pub(super) fn lint(
    report: &mut Report<'_>,
    policy: &Policy,
    read: &Read,
    known_agents: Option<&[&str]>,
) {
    unused_trunks(report, policy, &read.trunks);
    unknown_callees(report, policy, &read.trunks);
    plain_websockets(report, policy, &read.trunks);
    unused_zones(report, policy, &read.zones);
    deaf_zones(report, policy, &read.trunks);
    overlaps(report, policy, &read.trunks);
    let mut earlier = Earlier::default();
    for (route, item) in policy.routes.iter().zip(&read.routes) {
        unreachable(report, policy, &earlier, route, item);
        earlier.push(route);
        if let Some(known) = known_agents {
            unknown_agent(report, route, item, known);
        }
    }
}

/// Trunks whose calls go nowhere, and trunks that no call goes to.
fn unused_trunks(report: &mut Report<'_>, policy: &Policy, items: &[Item<TrunkFile>]) {
    for (index, (trunk, item)) in policy.trunks.iter().zip(items).enumerate() {
        let name = &item.name;
        let serves = |route: &Route| route.when.trunk.is_none_or(|it| it == index);
        let dials = |route: &Route| route.action.trunks().any(|trunk| trunk == index);
        if trunk.has_from() && !policy.routes.iter().any(serves) {
            let message = format!("no route takes calls from trunk `{name}`: all are refused");
            let help = format!("add a [[route]] with `when = {{ trunk = \"{name}\" }}`");
            report.warning(item.file, item.name_span.clone(), message, Some(help));
        } else if !trunk.has_from() && !policy.routes.iter().any(dials) {
            let message = format!("no call comes from trunk `{name}` and no route sends one there");
            report.warning(item.file, item.name_span.clone(), message, None);
        }
    }
}

/// Trunks that are called over UDP and are nobody when they hang up: datagrams have no connection
/// that we opened, by which others are known.
fn unknown_callees(report: &mut Report<'_>, policy: &Policy, items: &[Item<TrunkFile>]) {
    for (trunk, item) in policy.trunks.iter().zip(items).filter(|(trunk, _)| !trunk.has_from()) {
        if trunk.send_to.iter().any(|peer| peer.transport == Transport::Udp) {
            let name = &item.name;
            let message = format!("trunk `{name}` is called over udp and its BYE will be refused");
            let help = Some("say where it comes from: `from = { networks = [..] }`".to_owned());
            report.warning(item.file, item.name_span.clone(), message, help);
        }
    }
}

/// Trunks over plain WebSockets, for which this edge has no listener.
fn plain_websockets(report: &mut Report<'_>, policy: &Policy, items: &[Item<TrunkFile>]) {
    for (trunk, item) in policy.trunks.iter().zip(items) {
        if trunk.transports.contains(&Transport::Ws) {
            let message = format!("nothing listens for ws of trunk `{}`", item.name);
            let help = Some("SIP over WebSockets comes over wss (see Browsers)".to_owned());
            report.warning(item.file, item.name_span.clone(), message, help);
        }
    }
}

/// Zones with listeners that no trunk is at.
fn unused_zones(report: &mut Report<'_>, policy: &Policy, items: &[Item<ZoneFile>]) {
    for item in items {
        let listens = policy.zone(&item.name).is_some_and(|zone| !zone.listen.is_empty());
        let is_home = |trunk: &Trunk| trunk.home.as_deref() == Some(item.name.as_str());
        if listens && !policy.trunks.iter().any(is_home) {
            let message = format!("no trunk is at zone `{}`: it refuses everybody", item.name);
            let help = format!("add `zone = \"{}\"` to its trunks", item.name);
            report.warning(item.file, item.name_span.clone(), message, Some(help));
        }
    }
}

/// Trunks with a transport that their zone does not listen for.
fn deaf_zones(report: &mut Report<'_>, policy: &Policy, items: &[Item<TrunkFile>]) {
    for (trunk, item) in policy.trunks.iter().zip(items).filter(|(trunk, _)| trunk.has_from()) {
        let Some(zone) = trunk.home.as_deref().and_then(|name| policy.zone(name)) else { continue };
        for word in &trunk.transports {
            if !zone.listen.iter().any(|it| it.transport == *word) {
                let (name, home) = (&item.name, &zone.name);
                let message = format!("zone `{home}` does not listen for {word} of trunk `{name}`");
                let help = Some(format!("add {word} to `listen` of [zone.{home}]"));
                report.warning(item.file, item.name_span.clone(), message, help);
            }
        }
    }
}

/// Pairs of trunks that the same peer may be: the earlier one takes it.
fn overlaps(report: &mut Report<'_>, policy: &Policy, items: &[Item<TrunkFile>]) {
    for (later, item) in policy.trunks.iter().zip(items).rev() {
        for (earlier, other) in policy.trunks.iter().zip(items) {
            if core::ptr::eq(earlier, later) {
                break;
            }
            let Some(shared) = shared_peers(earlier, later) else { continue };
            let at = report.at(other.file, &other.name_span);
            let message = format!("{shared} may be `{}` at {at} as well, which wins", other.name);
            let help = Some("put the narrower trunk first, or tell them apart".to_owned());
            report.warning(item.file, item.name_span.clone(), message, help);
        }
    }
}

/// The peers of `later` that `earlier` takes, where that is a mistake: an earlier trunk that asks
/// for more (a certificate, a narrower network) leaves the rest to the later one on purpose.
fn shared_peers(earlier: &Trunk, later: &Trunk) -> Option<String> {
    let transport = earlier.transports.iter().any(|it| later.transports.contains(it));
    if !transport || earlier.home != later.home || !earlier.has_from() || !later.has_from() {
        return None;
    }
    let common = later.certificates.iter().find(|it| earlier.certificates.contains(it));
    if !earlier.certificates.is_empty() && common.is_none() {
        return None;
    }
    if earlier.networks.is_empty() || later.networks.is_empty() {
        // Either the certificate decides (both have it), or the earlier one asks for a network
        // and the later one is for the rest.
        return common.filter(|_| earlier.networks.is_empty()).map(|it| format!("`{it}`"));
    }
    let taken = later.networks.iter().find_map(|mine| {
        let wider = |theirs: &&ipnet::IpNet| theirs.contains(mine);
        earlier.networks.iter().find(wider).map(|_| mine)
    });
    taken.map(|net| format!("{net}"))
}

/// The routes before one, by the first thing that they ask of the called number: a policy may route
/// by ten thousand prefixes, and most of them have nothing to do with each other.
#[derive(Default)]
struct Earlier<'p> {
    exact: BTreeMap<&'p str, Vec<&'p Route>>,
    prefix: BTreeMap<&'p str, Vec<&'p Route>>,
    other: Vec<&'p Route>,
}

impl<'p> Earlier<'p> {
    fn push(&mut self, route: &'p Route) {
        match route.when.called.first() {
            Some(Pattern::Exact(number)) => self.exact.entry(number).or_default(),
            Some(Pattern::Prefix(prefix)) => self.prefix.entry(prefix).or_default(),
            _ => &mut self.other,
        }
        .push(route);
    }

    /// One that leaves nothing to `route`.
    fn covering(&self, route: &Route) -> Option<&'p Route> {
        let of_number = route.when.called.iter().flat_map(|pattern| {
            let (exact, number) = match pattern {
                Pattern::Exact(number) => (self.exact.get(number.as_str()), number.as_str()),
                Pattern::Prefix(prefix) => (None, prefix.as_str()),
                Pattern::User(_) | Pattern::Glob(_) => (None, ""),
            };
            let ends = number.char_indices().map(|(at, it)| at + it.len_utf8());
            let prefixes = ends.filter_map(|end| self.prefix.get(&number[..end]));
            exact.into_iter().chain(prefixes).flatten()
        });
        let mut all = of_number.chain(&self.other).copied();
        all.find(|earlier| earlier.when.covers(&route.when))
    }
}

/// Routes that an earlier one, or the trunk itself, leaves nothing to.
fn unreachable(
    report: &mut Report<'_>,
    policy: &Policy,
    earlier: &Earlier<'_>,
    route: &Route,
    item: &Item<RouteFile>,
) {
    let span = item.name_span.clone();
    if let Some(earlier) = earlier.covering(route) {
        let at = policy.at(earlier.place);
        let name = earlier.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let message = format!("no call reaches this route: the route{name} at {at} takes them all");
        report.warning(item.file, span, message, Some("put this one first".to_owned()));
        return;
    }
    let Some(trunk) = route.when.trunk.and_then(|index| policy.trunks.get(index)) else { return };
    if !trunk.has_from() {
        let message = format!("no call reaches this route: trunk `{}` has no `from`", trunk.name);
        report.warning(item.file, span, message, None);
    } else if let Some(word) = route.when.transport.filter(|it| !trunk.transports.contains(it)) {
        let message =
            format!("no call reaches this route: trunk `{}` does not use `{word}`", trunk.name);
        report.warning(item.file, span, message, None);
    }
}

fn unknown_agent(
    report: &mut Report<'_>,
    route: &Route,
    item: &Item<RouteFile>,
    known_agents: &[&str],
) {
    let Action::Agent(name) = &route.action else { return };
    if known_agents.contains(&name.as_str()) {
        return;
    }
    let named = item.value.as_ref().and_then(|file| file.send_to.as_ref()?.agent.as_ref());
    let span = named.map_or_else(|| item.name_span.clone(), |name| name.span());
    let message = format!("there is no voice agent `{name}`: its calls are refused");
    report.warning(item.file, span, message, suggest(name.as_str(), known_agents));
}
