//! Finding calls by number without storing numbers: a keyed hash per workspace.
//!
//! Whoever holds the database but not the key can see that two calls share a number, not which.

use crate::seal::DataKey;

/// Bytes of an index value; 128 bits keep accidental matches out of any archive.
pub(crate) const BLIND_BYTES: usize = 16;

/// The keyed index of one workspace.
#[derive(Clone, Debug)]
pub(crate) struct BlindIndex(DataKey);

impl BlindIndex {
    /// The index under `key`, which is used for nothing else.
    pub(crate) const fn new(key: DataKey) -> Self {
        Self(key)
    }

    /// The value that stands for `number`; `None` where nothing is left of it to index.
    pub(crate) fn of(&self, number: &str) -> Option<[u8; BLIND_BYTES]> {
        let plain = zeroize::Zeroizing::new(normalised(number)?);
        let hash = blake3::keyed_hash(self.0.expose(), plain.as_bytes());
        hash.as_bytes().first_chunk().copied()
    }
}

/// One spelling per number: scheme, host, parameters and separators off, `00` read as `+`.
/// A user part that is no number is compared in lower case.
fn normalised(number: &str) -> Option<String> {
    let text = number.trim();
    let text = ["sips:", "sip:", "tel:"]
        .iter()
        .find_map(|scheme| {
            let head = text.get(..scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
        })
        .unwrap_or(text);
    let user = text.split(['@', ';']).next().unwrap_or_default();
    let digits: String =
        user.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')' | '/' | '+')).collect();
    if digits.is_empty() {
        return None;
    }
    if digits.chars().all(|c| c.is_ascii_digit()) {
        return Some(digits.strip_prefix("00").unwrap_or(&digits).to_owned());
    }
    Some(user.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(byte: u8) -> BlindIndex {
        BlindIndex::new(DataKey::from_bytes(&mut [byte; 32]).unwrap())
    }

    #[test]
    fn every_spelling_of_a_number_finds_the_same_calls() {
        let index = index(1);
        let value = index.of("+15550100");
        assert!(value.is_some());
        for spelling in [
            "15550100",
            "0015550100",
            "+1 (555) 01-00",
            "tel:+1-555-0100",
            "sip:+15550100@carrier.example;user=phone",
            "SIPS:+15550100@[2001:db8::1]",
        ] {
            assert_eq!(index.of(spelling), value, "{spelling}");
        }
        assert_ne!(index.of("+15550101"), value);
        assert_eq!(index.of("sip:Alice@example.com"), index.of("alice"));
        assert_eq!(index.of(" + "), None);
    }

    #[test]
    fn workspaces_do_not_share_index_values() {
        assert_ne!(index(1).of("+15550100"), index(2).of("+15550100"));
    }
}
