//! The SIP URIs that an operator writes: enough of their form to refuse a mistake. Dialling parses
//! them in full.

use std::net::{IpAddr, Ipv6Addr};

use crate::words::Transport;

/// How a `send_to` URI is dialled, or what is wrong with it. Without a transport parameter that is
/// TLS, not the UDP of RFC 3263: plaintext is never a default here.
pub(super) fn transport_of(uri: &str) -> Result<Transport, &'static str> {
    if uri.chars().any(|it| it.is_control() || it.is_whitespace()) {
        return Err("the URI holds a space or a control character");
    }
    let (secure, rest) = match (uri.strip_prefix("sip:"), uri.strip_prefix("sips:")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return Err("the URI must begin with `sip:` or `sips:`"),
    };
    if rest.contains('?') {
        return Err("a URI to dial has no headers");
    }
    let mut parts = rest.split(';');
    let authority = parts.next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    if !is_host_port(host) {
        return Err("the URI names no host");
    }
    let named = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("transport").then_some(value)
    });
    let transport = match named.map(str::to_ascii_lowercase).as_deref() {
        None | Some("tls") => Transport::Tls,
        Some("tcp") => Transport::Tcp,
        Some("udp") => Transport::Udp,
        Some(_) => return Err("`transport` must be `tls`, `tcp` or `udp`"),
    };
    if secure && transport.is_plaintext() {
        return Err("`sips:` cannot go over a plaintext transport");
    }
    Ok(transport)
}

fn is_host_port(text: &str) -> bool {
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    if let Some((inside, after)) = text.strip_prefix('[').and_then(|it| it.split_once(']')) {
        let good_port = after.is_empty() || after.strip_prefix(':').is_some_and(is_port);
        return inside.parse::<Ipv6Addr>().is_ok() && good_port;
    }
    match text.rsplit_once(':') {
        Some((host, port)) => is_host(host) && !host.contains(':') && is_port(port),
        None => is_host(text),
    }
}

/// Whether this is a host name or an address.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    text.parse::<IpAddr>().is_ok() || (text.len() <= 253 && name.split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_the_default_and_plaintext_must_be_named() {
        for (uri, transport) in [
            ("sip:sip.acme.example", Transport::Tls),
            ("sips:10.0.0.1:5061", Transport::Tls),
            ("sip:user@[2001:db8::1]:5060;lr;Transport=UDP", Transport::Udp),
            ("sip:acme.example;transport=tcp", Transport::Tcp),
        ] {
            assert_eq!(transport_of(uri), Ok(transport), "{uri}");
        }
        for wrong in [
            "acme.example",
            "tel:+15550100",
            "sip:",
            "sip:a b",
            "sip:a:0",
            "sip:a:x",
            "sip:[::1",
            "sip:a;transport=ucp",
            "sips:a;transport=udp",
            "sip:a?x=y",
            "sip:a..b",
        ] {
            assert!(transport_of(wrong).is_err(), "{wrong}");
        }
    }
}
