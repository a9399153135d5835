//! `resolv.conf` and `hosts`, as other programs of this machine read them.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use base::limit;

/// The port of name servers.
const PORT: u16 = 53;

/// The name servers that a `resolv.conf` names; nothing else in it matters here.
pub(crate) fn name_servers(text: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // A link-local server carries its interface, `fe80::1%eth0`, which has no number here.
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        servers.extend(address.map(|address| SocketAddr::new(address, PORT)));
    }
    servers.truncate(limit::TRANSPORT_DNS_SERVERS.get());
    servers
}

/// The names of a `hosts` file.
#[derive(Debug, Default)]
pub(crate) struct Hosts(HashMap<String, Vec<IpAddr>>);

impl Hosts {
    /// Reads the text of the file; what is no line of one is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        let mut names: HashMap<String, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let mut words = line.split_whitespace();
            let Some(Ok(address)) = words.next().map(str::parse::<IpAddr>) else { continue };
            for name in words {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let addresses = names.entry(name).or_default();
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Self(names)
    }

    /// The addresses of a name in lower case; `None` where the file does not have it.
    pub(crate) fn find(&self, name: &str) -> Option<Vec<IpAddr>> {
        if let Some(addresses) = self.0.get(name) {
            return Some(addresses.clone());
        }
        // RFC 6761 section 6.3: nobody is asked where this machine is.
        let is_local = name == "localhost" || name.ends_with(".localhost");
        is_local.then(|| vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from(1_u128.to_be_bytes())])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_read_and_no_more_than_three() {
        let text = "# comment\nsearch example\nnameserver 192.0.2.1\nnameserver\n\
                    nameserver fe80::1%eth0\n  nameserver 2001:db8::1 # two\n\
                    nameservers 192.0.2.9\n\
                    nameserver 192.0.2.3\nnameserver 192.0.2.4\n";
        let expected = ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.3:53"];
        assert_eq!(name_servers(text), expected.map(|it| it.parse::<SocketAddr>().unwrap()));
        assert!(name_servers("").is_empty());
    }

    #[test]
    fn hosts_have_several_names_and_addresses() {
        let hosts = Hosts::parse(
            "192.0.2.1 One one.example. # first\n2001:db8::1\tone\n192.0.2.1 one\n#192.0.2.9 two\n\
             not-an-address three\n",
        );
        let found = |name| hosts.find(name).map(|found| found.len());
        assert_eq!((found("one"), found("one.example")), (Some(2), Some(1)));
        assert_eq!((found("two"), found("three"), found("example")), (None, None, None));
        assert_eq!((found("localhost"), found("x.localhost")), (Some(2), Some(2)));
    }
}
