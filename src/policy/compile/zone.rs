//! Every `[zone.NAME]`: addresses that can be listened on and told, and no two that overlap.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use base::limit;

use super::read::Item;
use super::report::Report;
use super::uri;
use crate::file::{At, Endpoint, ListenFile, ZoneFile};
use crate::words::Transport;
use crate::zone::{Listener, Zone, collide};

/// Compiles all zones; what is wrong with them is reported.
pub(super) fn compile(report: &mut Report<'_>, items: &[Item<ZoneFile>]) -> BTreeMap<String, Zone> {
    let mut zones = BTreeMap::new();
    let mut taken: Vec<(Transport, SocketAddr, String)> = Vec::new();
    for item in items {
        report.check_name(item, "zone");
        let Some(file) = &item.value else { continue };
        let listen = listeners(report, item, &mut taken);
        let advertise = advertised(report, item.file, file, &listen);
        for address in [&file.media, &file.media_advertise].into_iter().flatten() {
            check_address(report, item.file, address);
        }
        let media = file.media.as_ref().map(|it| **it);
        let zone = Zone {
            listen,
            advertise,
            media,
            // An address that was chosen for this side is the one to tell here, not the edge's.
            media_advertise: file.media_advertise.as_ref().map(|it| **it).or(media),
            name: item.name.as_str().into(),
            file: item.file,
        };
        zones.insert(item.name.clone(), zone);
    }
    zones
}

/// The listeners of one zone, checked against those of the zones before it.
fn listeners(
    report: &mut Report<'_>,
    item: &Item<ZoneFile>,
    taken: &mut Vec<(Transport, SocketAddr, String)>,
) -> Vec<Listener> {
    let Some(listen) = item.value.as_ref().and_then(|file| file.listen.as_ref()) else {
        return Vec::new();
    };
    let ListenFile { tls, tcp, udp } = &**listen;
    let mut all = Vec::new();
    for (transport, endpoints) in
        [(Transport::Tls, tls), (Transport::Tcp, tcp), (Transport::Udp, udp)]
    {
        for endpoint in endpoints {
            check_endpoint(report, item.file, transport, endpoint);
            let address = endpoint.0;
            let other = taken.iter().find(|(t, a, _)| collide((*t, *a), (transport, address)));
            if let Some((transport, address, at)) = other {
                let message = format!("this overlaps with {transport} {address} at {at}");
                let help = Some("one address belongs to one zone".to_owned());
                report.error(item.file, endpoint.span(), message, help);
            }
            taken.push((transport, address, report.at(item.file, &endpoint.span())));
            all.push(Listener { transport, address, span: endpoint.span() });
        }
    }
    if all.is_empty() {
        let help = Some("add `tls = [\"ADDRESS:5061\"]`, or remove `listen`".to_owned());
        report.error(item.file, listen.span(), "this zone listens nowhere", help);
    }
    if taken.len() > limit::TRANSPORT_LISTENERS.get() {
        let limit = limit::TRANSPORT_LISTENERS;
        let help = Some(format!("at most {} (limit {})", limit.value, limit.name));
        report.error(item.file, listen.span(), "too many listeners", help);
    }
    all
}

fn check_endpoint(
    report: &mut Report<'_>,
    file: usize,
    transport: Transport,
    endpoint: &At<Endpoint>,
) {
    let address = endpoint.0;
    let wrong = if address.port() == 0 {
        Some("port 0 is no port that a peer could call")
    } else if !address.ip().is_unspecified() {
        impossible(address.ip())
    } else {
        None
    };
    let is_scopeless = match address {
        SocketAddr::V4(_) => false,
        SocketAddr::V6(it) => it.ip().is_unicast_link_local() && it.scope_id() == 0,
    };
    let wrong = wrong.or(is_scopeless.then_some("a link-local address needs its interface"));
    if let Some(wrong) = wrong {
        let help = Some(format!("give an address of this machine for {transport}"));
        report.error(file, endpoint.span(), wrong, help);
    }
}

fn check_address(report: &mut Report<'_>, file: usize, address: &At<IpAddr>) {
    let wrong = if address.is_unspecified() {
        Some("every address is no address to send media to")
    } else {
        impossible(**address)
    };
    if let Some(wrong) = wrong {
        report.error(file, address.span(), wrong, Some("give one address".to_owned()));
    }
}

/// Why nobody can listen at an address.
fn impossible(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some("this is the broadcast address"),
        _ if address.is_multicast() => Some("this is a multicast address"),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("write this as an IPv4 address")
        }
        _ => None,
    }
}

/// The host to tell: what the zone says, else the one address that it listens at.
fn advertised(
    report: &mut Report<'_>,
    file: usize,
    zone: &ZoneFile,
    listen: &[Listener],
) -> Option<String> {
    if let Some(host) = &zone.advertise {
        if !uri::is_host(host) {
            let help = Some("write a host name or an address, without port".to_owned());
            report.error(file, host.span(), format!("`{}` is no host", **host), help);
        }
        return Some((**host).clone());
    }
    let (first, others) = listen.split_first()?;
    let address = first.address.ip();
    let is_only = others.iter().all(|it| it.address.ip() == address) && !address.is_unspecified();
    is_only.then(|| match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    })
}
