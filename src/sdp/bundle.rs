//! Lines of an offer that share the transport of another one (RFC 9143).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

use crate::session::{Attribute, Session};

/// What lines of a bundle share and may say once (RFC 8859, categories TRANSPORT and IDENTICAL), as
/// far as it is asked for here.
const SHARED: [&str; 6] =
    ["ice-ufrag", "ice-pwd", "ice-options", "fingerprint", "setup", "rtcp-mux"];

impl Session {
    /// An offer whose bundled lines each say what the first of their group says for all: where
    /// (RFC 9143 section 6 has port 0 in a line that is there within its bundle only) and by which
    /// credentials. Lines that speak for themselves stay as they are.
    #[must_use]
    pub fn unbundled(mut self) -> Self {
        let group: Vec<String> = self.bundle().map(ToOwned::to_owned).collect();
        let Some((tag, others)) = group.split_first() else { return self };
        let tagged = self.media.iter().find(|line| line.mid() == Some(tag) && line.port != 0);
        let Some(tagged) = tagged else { return self };
        let (port, connection) = (tagged.port, tagged.connection.clone());
        let is_shared = |it: &&Attribute| SHARED.contains(&it.name.as_str());
        let shared: Vec<Attribute> = tagged.attributes.iter().filter(is_shared).cloned().collect();
        for line in &mut self.media {
            if !line.mid().is_some_and(|mid| others.iter().any(|other| other == mid)) {
                continue;
            }
            if line.port == 0 && line.attribute("bundle-only").is_some() {
                line.port = port;
                line.connection = line.connection.take().or_else(|| connection.clone());
                line.attributes.retain(|it| it.name != "bundle-only");
            }
            if line.port != 0 && line.attribute("ice-ufrag").is_none() {
                line.attributes.retain(|it| !is_shared(&it));
                line.attributes.extend(shared.iter().cloned());
            }
        }
        self
    }
}
