//! The server's side of digest: challenges whose nonces need no memory, and whether an answer is
//! that of somebody with the password (RFC 7616, RFC 8760).
//!
//! Only `qop=auth` is asked for and taken. Counting how often a nonce was used is the owner's
//! work, who knows for how long its peers stay.

use std::fmt;
use std::time::Duration;

use base::{Instant, Random, Secret, limit};
use sha2::{Digest, Sha256};

use super::{Algorithm, unquoted};
use crate::lex::{is_token, quote, split_list, trim};
use crate::method::Method;

/// Makes nonces and knows its own again. A nonce tells when it was made, and for which place (a
/// connection, say); a keyed hash keeps anybody else from making one.
pub struct Nonces {
    key: Secret<[u8; 32]>,
    life: Duration,
}

impl fmt::Debug for Nonces {
    /// Nothing: it holds a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Nonces")
    }
}

/// What a nonce is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nonce {
    /// Ours, for this place, and young enough.
    Fresh,
    /// Ours and for this place, but too old: the client tries again with a new one.
    Stale,
    /// Not ours, or for another place.
    Foreign,
}

impl Nonces {
    /// A maker of nonces that are good for `life`; `random` must be fit for keys.
    #[must_use]
    pub fn new(random: &mut dyn Random, life: Duration) -> Self {
        let mut key = Secret::new([0; 32]);
        random.fill(key.expose_mut());
        Self { key, life }
    }

    /// A nonce made now for a place.
    #[must_use]
    pub fn issue(&self, now: Instant, place: u64) -> String {
        let at = now.as_nanos().to_be_bytes();
        hex::encode(at) + &self.proof(at, place)
    }

    /// What a nonce that came back is.
    #[must_use]
    pub fn look(&self, nonce: &str, now: Instant, place: u64) -> Nonce {
        let Some((time, proof)) = nonce.split_at_checked(16) else { return Nonce::Foreign };
        let mut at = [0; 8];
        if hex::decode_to_slice(time, &mut at).is_err() || !same(&self.proof(at, place), proof) {
            return Nonce::Foreign;
        }
        let age = now.since(Instant::from_nanos(u64::from_be_bytes(at)));
        if age > self.life { Nonce::Stale } else { Nonce::Fresh }
    }

    fn proof(&self, at: [u8; 8], place: u64) -> String {
        let hash = keyed_hash(self.key.expose(), &[&at, &place.to_be_bytes()]);
        hex::encode(hash.get(..16).unwrap_or_default())
    }
}

/// HMAC-SHA-256 (RFC 2104) with a key of 32 bytes.
fn keyed_hash(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = Secret::new([with; 64]);
        block.expose_mut().iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut inner = Sha256::new();
    inner.update(pad(0x36).expose());
    parts.iter().for_each(|part| inner.update(part));
    let mut outer = Sha256::new();
    outer.update(pad(0x5c).expose());
    outer.update(inner.finalize());
    outer.finalize().into()
}

/// Compares in a time that tells nothing of where the two differ.
fn same(one: &str, other: &str) -> bool {
    let differing = one.bytes().zip(other.bytes()).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && differing == 0
}

/// What an answer by MD5 is checked against: the hash of `user:realm:password` in lower-case
/// hexadecimal digits. Whoever has it can pass for the user within the realm.
#[must_use]
pub fn md5_key(user: &str, realm: &str, password: &Secret<String>) -> Secret<String> {
    Secret::new(Algorithm::Md5.hash(&[user, realm, password.expose()]))
}

/// An algorithm that a client is asked for, the weaker first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Asked {
    /// MD5, the only one that browsers' clients know; for TLS alone.
    Md5,
    /// SHA-256.
    Sha256,
}

impl Asked {
    /// The value of a WWW-Authenticate that asks for it. `is_stale` tells a client that only its
    /// nonce was too old.
    ///
    /// A response has one of them: RFC 8760 section 2.4 would have one for each algorithm, but of
    /// several SIP.js and JsSIP see none but the last, and others none but the first.
    #[must_use]
    pub fn challenge(self, realm: &str, nonce: &str, is_stale: bool) -> String {
        let stale = if is_stale { ", stale=true" } else { "" };
        let algorithm = match self {
            Self::Md5 => "MD5",
            Self::Sha256 => "SHA-256",
        };
        let realm = quote(realm);
        format!(
            "Digest realm={realm}, nonce=\"{nonce}\", algorithm={algorithm}, qop=\"auth\"{stale}"
        )
    }
}

/// Credentials as a client sent them. Texts are as written between their quotes, since that is
/// what both sides hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// Who it says it is.
    pub user: String,
    /// Of which place.
    pub realm: String,
    /// The nonce that it answers.
    pub nonce: String,
    /// The Request-URI that it answers for.
    pub uri: String,
    /// How often the nonce was used, this time included.
    pub count: u32,
    algorithm: Algorithm,
    count_text: String,
    client_nonce: String,
    response: String,
}

impl fmt::Debug for Answer {
    /// Nothing: it says who is there, and how it proves it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl Answer {
    /// Reads the value of an Authorization; `None` where it is malformed, of another scheme or
    /// algorithm, or without `qop=auth`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, params) = trim(text).split_once([' ', '\t'])?;
        if !scheme.eq_ignore_ascii_case("Digest") {
            return None;
        }
        let mut known: Vec<(&str, &str)> = Vec::new();
        for part in split_list(params) {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (trim(name), unquoted(trim(value)));
            let is_again = known.iter().any(|(it, _)| it.eq_ignore_ascii_case(name));
            let is_long = value.len() > limit::SIP_DIGEST_BYTES.get();
            if !is_token(name.as_bytes()) || is_again || is_long || known.len() >= PARAMETERS {
                return None;
            }
            known.push((name, value));
        }
        let find = |name: &str| known.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
        let value = |name: &str| find(name).map(|(_, value)| (*value).to_owned());
        let word = value("algorithm").unwrap_or_else(|| "MD5".to_owned());
        let (algorithm, false) = Algorithm::parse(&word)? else { return None };
        if !value("qop")?.eq_ignore_ascii_case("auth") {
            return None;
        }
        let count_text = value("nc").filter(|it| it.len() == 8)?;
        Some(Self {
            user: value("username")?,
            realm: value("realm")?,
            nonce: value("nonce")?,
            uri: value("uri")?,
            count: u32::from_str_radix(&count_text, 16).ok()?,
            algorithm,
            count_text,
            client_nonce: value("cnonce").filter(|it| !it.is_empty())?,
            response: value("response")?.to_ascii_lowercase(),
        })
    }

    /// The algorithm that it was made with; `None` for one that is never asked for.
    #[must_use]
    pub const fn algorithm(&self) -> Option<Asked> {
        match self.algorithm {
            Algorithm::Md5 => Some(Asked::Md5),
            Algorithm::Sha256 => Some(Asked::Sha256),
            Algorithm::Sha512_256 => None,
        }
    }

    /// Whether it was made for this method by somebody who knows `key`: the hash, by the same
    /// algorithm, of `user:realm:password` in lower-case hexadecimal digits.
    #[must_use]
    pub fn is_by(&self, key: &Secret<String>, method: &Method) -> bool {
        let request = self.algorithm.hash(&[method.as_str(), &self.uri]);
        let parts =
            [key.expose(), &*self.nonce, &*self.count_text, &*self.client_nonce, "auth", &*request];
        same(&self.algorithm.hash(&parts), &self.response)
    }
}

/// Most parameters of one field; RFC 7616 knows a dozen.
const PARAMETERS: usize = 24;

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
