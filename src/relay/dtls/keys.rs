//! SRTP keys from the secret that both sides of a handshake share (RFC 5764 section 4.2).

use base::Secret;
use media::DtlsRole;
use rtp::sdes::{KeySalt, Suite};

/// What a handshake is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Cipher and tag of both directions.
    pub suite: Suite,
    /// Key of what we send.
    pub send: KeySalt,
    /// Key of what we receive.
    pub receive: KeySalt,
}

/// The label of the exporter (RFC 5764 section 4.2).
pub(crate) const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

impl Keys {
    /// Bytes to export for a suite.
    pub(crate) const fn material_len(suite: Suite) -> usize {
        2 * (suite.key_len() + suite.salt_len())
    }

    /// Cuts the exported bytes: the client's key, the server's key, the client's salt, the
    /// server's salt. `None` where there are too few.
    pub(crate) fn cut(suite: Suite, role: DtlsRole, material: &Secret<Vec<u8>>) -> Option<Self> {
        let (client_key, rest) = material.expose().split_at_checked(suite.key_len())?;
        let (server_key, rest) = rest.split_at_checked(suite.key_len())?;
        let (client_salt, rest) = rest.split_at_checked(suite.salt_len())?;
        let (server_salt, _) = rest.split_at_checked(suite.salt_len())?;
        let client = KeySalt::from_bytes(suite, [client_key, client_salt].concat())?;
        let server = KeySalt::from_bytes(suite, [server_key, server_salt].concat())?;
        let (send, receive) = match role {
            DtlsRole::Active => (client, server),
            DtlsRole::Passive => (server, client),
        };
        Some(Self { suite, send, receive })
    }
}

/// The number of a suite as an SRTP protection profile (RFC 5764 section 4.1.2, RFC 7714
/// section 14.2).
pub(crate) const fn profile(suite: Suite) -> u16 {
    match suite {
        Suite::AesCm128HmacSha1_80 => 1,
        Suite::AesCm128HmacSha1_32 => 2,
        Suite::AeadAes128Gcm => 7,
        Suite::AeadAes256Gcm => 8,
    }
}

/// The suites that DTLS-SRTP chooses from, the best first. The short tag is not among them: who
/// offers it offers the long one too.
pub(crate) const PREFERENCE: [Suite; 3] =
    [Suite::AeadAes256Gcm, Suite::AeadAes128Gcm, Suite::AesCm128HmacSha1_80];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exported_bytes_are_cut_by_role() {
        for suite in PREFERENCE {
            let (key, salt) = (suite.key_len(), suite.salt_len());
            let parts = [(1, key), (2, key), (3, salt), (4, salt)];
            let bytes: Vec<u8> = parts.iter().flat_map(|(byte, n)| vec![*byte; *n]).collect();
            assert_eq!(bytes.len(), Keys::material_len(suite));
            let material = Secret::new(bytes);
            let active = Keys::cut(suite, DtlsRole::Active, &material).unwrap();
            let passive = Keys::cut(suite, DtlsRole::Passive, &material).unwrap();
            assert_eq!((active.send.key()[0], active.send.salt()[0]), (1, 3));
            assert_eq!((active.receive.key()[0], active.receive.salt()[0]), (2, 4));
            assert_eq!((&active.send, &active.receive), (&passive.receive, &passive.send));
            let short = Secret::new(material.expose()[1..].to_vec());
            assert_eq!(Keys::cut(suite, DtlsRole::Active, &short), None);
        }
    }
}
