//! Who calls: From, P-Asserted-Identity (RFC 3325) and Privacy (RFC 3323).

use base::Personal;

use crate::header::{Headers, Name};
use crate::name_addr::NameAddr;
use crate::uri::Uri;

/// The caller as the request tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The URI.
    pub uri: Uri,
    /// The display name.
    pub display: Option<Personal<String>>,
    /// Whether a network element asserted it (P-Asserted-Identity), instead of the caller itself.
    pub is_asserted: bool,
    /// Whether the caller asks not to be shown to the callee.
    pub wants_privacy: bool,
}

impl Caller {
    /// Reads the caller. `trust_asserted` says whether the peer belongs to our trust domain
    /// (RFC 3325 section 6); otherwise P-Asserted-Identity is a claim like any other and
    /// is ignored. `None` where From cannot be read.
    #[must_use]
    pub fn of(headers: &Headers, trust_asserted: bool) -> Option<Self> {
        let from = headers.from().ok()?;
        let wants_privacy = wants_privacy(headers, &from);
        let asserted = trust_asserted.then(|| asserted(headers)).flatten();
        let is_asserted = asserted.is_some();
        let NameAddr { display, uri, .. } = asserted.unwrap_or(from);
        Some(Self { uri, display: display.map(Personal::new), is_asserted, wants_privacy })
    }

    /// The caller's number, where the URI holds one.
    #[must_use]
    pub fn number(&self) -> Option<Personal<String>> {
        self.uri.number().map(Personal::new)
    }
}

/// RFC 3325 section 9.1: at most one `sip` and one `tel` value; the one with a number wins.
fn asserted(headers: &Headers) -> Option<NameAddr> {
    let mut values = headers.addresses(Name::PAssertedIdentity).ok()?;
    let best = values.iter().position(|value| value.uri.number().is_some()).unwrap_or(0);
    (best < values.len()).then(|| values.swap_remove(best))
}

fn wants_privacy(headers: &Headers, from: &NameAddr) -> bool {
    // RFC 3323 section 4.2: values are separated by semicolons.
    let asked = headers.text(Name::Privacy).is_some_and(|text| {
        text.split([';', ','])
            .map(crate::lex::trim)
            .any(|value| ["id", "user", "header"].iter().any(|it| it.eq_ignore_ascii_case(value)))
    });
    // RFC 3323 section 4.1.1.3: the anonymous From.
    asked
        || from.uri.host().is_some_and(|host| {
            host.to_string().to_ascii_lowercase().ends_with("anonymous.invalid")
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::Header;

    fn headers(fields: &[(Name, &str)]) -> Headers {
        fields.iter().map(|(name, value)| Header::new(*name, value)).collect()
    }

    #[test]
    fn an_asserted_number_counts_only_from_a_trusted_peer() {
        let it = headers(&[
            (Name::From, "\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag=1"),
            (Name::PAssertedIdentity, "\"Alice, A.\" <sip:alice@h>, <tel:+1-555-0100>"),
            (Name::Privacy, "id;critical"),
        ]);
        let trusted = Caller::of(&it, true).unwrap();
        assert_eq!(trusted.number(), Some(Personal::new("+15550100".to_owned())));
        assert!(trusted.is_asserted && trusted.wants_privacy);
        let stranger = Caller::of(&it, false).unwrap();
        assert!(!stranger.is_asserted && stranger.wants_privacy && stranger.number().is_none());
    }

    #[test]
    fn from_is_the_caller_where_nothing_is_asserted() {
        let it = headers(&[(Name::From, "Bob <sip:+15550101@h;user=phone>;tag=2")]);
        let caller = Caller::of(&it, true).unwrap();
        assert_eq!(caller.display, Some(Personal::new("Bob".to_owned())));
        assert!(!caller.is_asserted && !caller.wants_privacy);
        assert_eq!(Caller::of(&Headers::new(), true), None);
    }
}
