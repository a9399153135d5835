//! Digest credentials of a client (RFC 3261 section 22, RFC 7616, RFC 8760): what a challenge
//! asks for, and the field that answers it.
//!
//! Whom to answer, and how often, is the owner's decision; `auth-int` and hashed user names are not
//! offered. Credentials of others are checked in [`server`].

pub mod server;

use std::fmt;

use base::{Random, Secret, limit};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512_256};

use crate::header::{Header, Headers, Name};
use crate::lex::{is_token, quote, split_list, trim};
use crate::method::Method;

/// A hash of RFC 7616 section 3.3, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Md5,
    Sha256,
    Sha512_256,
}

impl Algorithm {
    /// The algorithm of this name, and whether it is its session variant.
    fn parse(word: &str) -> Option<(Self, bool)> {
        let word = word.to_ascii_lowercase();
        let (name, is_session) = match word.strip_suffix("-sess") {
            Some(name) => (name, true),
            None => (&*word, false),
        };
        let algorithm = match name {
            "md5" => Self::Md5,
            "sha-256" => Self::Sha256,
            "sha-512-256" => Self::Sha512_256,
            _ => return None,
        };
        Some((algorithm, is_session))
    }

    /// The hash of the parts with a colon between them, in lower-case hex digits.
    fn hash(self, parts: &[&str]) -> String {
        let joined = Secret::new(parts.join(":"));
        let text = joined.expose();
        match self {
            Self::Md5 => hex::encode(Md5::digest(text)),
            Self::Sha256 => hex::encode(Sha256::digest(text)),
            Self::Sha512_256 => hex::encode(Sha512_256::digest(text)),
        }
    }
}

/// Who we are towards a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user name; holds neither quote nor backslash, which peers hash in different ways.
    pub user: String,
    /// The password.
    pub password: Secret<String>,
    /// The only realm that is answered; any without it.
    pub realm: Option<String>,
}

impl fmt::Debug for Login {
    /// Nothing: it opens somebody's account.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

/// Who challenges: a place that keeps its own users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it is a proxy (407) and not the server itself (401).
    is_proxy: bool,
    realm: String,
}

/// One challenge that can be answered. Texts are as written between their quotes, since that is
/// what both sides hash (RFC 7616 section 3.4.2, `unq`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    place: Place,
    nonce: String,
    opaque: Option<String>,
    is_stale: bool,
    algorithm: Algorithm,
    /// The algorithm's name as written, where it was.
    word: Option<String>,
    is_session: bool,
    has_qop: bool,
}

impl Challenge {
    /// The challenges of a 401 or 407, one for each place: the strongest algorithm that is known
    /// here, and the topmost of those (RFC 8760 section 2.4 leaves the choice to the client's
    /// policy; a peer that lists MD5 first gets no MD5 for it). What is not understood is left out.
    #[must_use]
    pub fn all(headers: &Headers) -> Vec<Self> {
        let mut best: Vec<Self> = Vec::new();
        let servers = headers.all(Name::WwwAuthenticate).map(|header| (false, header));
        let proxies = headers.all(Name::ProxyAuthenticate).map(|header| (true, header));
        let texts = servers.chain(proxies).filter_map(|(it, header)| Some((it, header.text()?)));
        let found = texts.flat_map(|(is_proxy, text)| read(is_proxy, text));
        for challenge in found.take(limit::SIP_CHALLENGES.get()) {
            match best.iter_mut().find(|it| it.place == challenge.place) {
                Some(known) if known.algorithm < challenge.algorithm => *known = challenge,
                Some(_) => {}
                None => best.push(challenge),
            }
        }
        best
    }

    /// Who asks.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Whether only the nonce was too old, and not the password wrong (RFC 7616 section 3.3).
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.is_stale
    }

    /// Whether these credentials are for this challenge.
    #[must_use]
    pub fn is_for(&self, login: &Login) -> bool {
        login.realm.as_ref().is_none_or(|realm| *realm == self.place.realm)
    }

    fn parse(is_proxy: bool, params: &[(&str, &str)]) -> Option<Self> {
        let value = |name: &str| {
            let found = params.iter().find(|(it, _)| it.eq_ignore_ascii_case(name));
            found.map(|(_, value)| *value)
        };
        let owned = |name: &str| value(name).map(|value| unquoted(value).to_owned());
        let is_short = |text: &String| text.len() <= limit::SIP_DIGEST_BYTES.get();
        let word = owned("algorithm");
        let (algorithm, is_session) = Algorithm::parse(word.as_deref().unwrap_or("MD5"))?;
        let qop = value("qop").map(unquoted);
        let has_qop =
            qop.is_some_and(|list| split_list(list).any(|it| it.eq_ignore_ascii_case("auth")));
        // Without `qop` there is no nonce of ours, which a session variant needs.
        if (qop.is_some() || is_session) && !has_qop {
            return None;
        }
        let opaque = owned("opaque");
        if !opaque.as_ref().is_none_or(is_short) {
            return None;
        }
        Some(Self {
            place: Place { is_proxy, realm: owned("realm").filter(is_short)? },
            nonce: owned("nonce").filter(is_short)?,
            opaque,
            is_stale: value("stale").is_some_and(|it| unquoted(it).eq_ignore_ascii_case("true")),
            algorithm,
            word,
            is_session,
            has_qop,
        })
    }
}

/// The Digest challenges of one field: RFC 3261 section 20.44 allows one, but some peers send a
/// list as in HTTP.
fn read(is_proxy: bool, text: &str) -> Vec<Challenge> {
    let mut found: Vec<(bool, Vec<(&str, &str)>)> = Vec::new();
    for part in split_list(text) {
        let Some((name, value)) = part.split_once('=') else { continue };
        let name = trim(name);
        // The first parameter follows the scheme's name.
        let name = match name.split_once([' ', '\t']) {
            Some((scheme, name)) => {
                found.push((scheme.eq_ignore_ascii_case("Digest"), Vec::new()));
                trim(name)
            }
            None => name,
        };
        if let (Some((_, params)), true) = (found.last_mut(), is_token(name.as_bytes())) {
            params.push((name, trim(value)));
        }
    }
    let digests = found.iter().filter(|(is_digest, _)| *is_digest);
    digests.filter_map(|(_, params)| Challenge::parse(is_proxy, params)).collect()
}

/// What stands between the quotes, as written.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or(value)
}

/// Our side of one answered challenge: its nonce, and how often we have used it. It keeps a hash
/// of the password, not the password.
#[derive(Clone)]
pub struct Session {
    challenge: Challenge,
    user: String,
    /// H(A1) (RFC 7616 section 3.4.2).
    key: Secret<String>,
    /// Our nonce.
    client_nonce: String,
    count: u32,
}

impl fmt::Debug for Session {
    /// The place only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.challenge.place, self.count)
    }
}

impl Session {
    /// Answers a challenge with these credentials.
    #[must_use]
    pub fn new(challenge: Challenge, login: &Login, random: &mut dyn Random) -> Self {
        let mut bytes = [0; 16];
        random.fill(&mut bytes);
        Self::with_nonce(challenge, login, hex::encode(bytes))
    }

    fn with_nonce(challenge: Challenge, login: &Login, client_nonce: String) -> Self {
        let algorithm = challenge.algorithm;
        let (realm, password) = (&challenge.place.realm, login.password.expose());
        let mut key = Secret::new(algorithm.hash(&[&login.user, realm, password]));
        if challenge.is_session {
            key = Secret::new(algorithm.hash(&[key.expose(), &challenge.nonce, &client_nonce]));
        }
        Self { challenge, user: login.user.clone(), key, client_nonce, count: 0 }
    }

    /// Whom it answers.
    #[must_use]
    pub const fn place(&self) -> &Place {
        &self.challenge.place
    }

    /// The field for one more request with this method and Request-URI.
    pub fn authorize(&mut self, method: &Method, uri: &str) -> Header {
        self.count = self.count.saturating_add(1);
        let Self { challenge, user, client_nonce, count, .. } = self;
        let Challenge { place, nonce, algorithm, .. } = challenge;
        let request = algorithm.hash(&[method.as_str(), uri]);
        let count = format!("{count:08x}");
        let key = self.key.expose();
        let response = if challenge.has_qop {
            algorithm.hash(&[key, nonce, &count, client_nonce, "auth", &request])
        } else {
            algorithm.hash(&[key, nonce, &request])
        };
        let mut value = format!(
            "Digest username={}, realm=\"{}\", nonce=\"{nonce}\", uri=\"{uri}\", \
             response=\"{response}\"",
            quote(user),
            place.realm,
        );
        if let Some(word) = &challenge.word {
            value += &format!(", algorithm={word}");
        }
        if let Some(opaque) = &challenge.opaque {
            value += &format!(", opaque=\"{opaque}\"");
        }
        if challenge.has_qop {
            value += &format!(", qop=auth, nc={count}, cnonce=\"{client_nonce}\"");
        }
        let name = if place.is_proxy { Name::ProxyAuthorization } else { Name::Authorization };
        Header::new(name, value)
    }

    /// Takes the nonce that the peer wants next time (RFC 7616 section 3.5); the counting begins
    /// anew with it.
    pub fn renew(&mut self, headers: &Headers) {
        let field = if self.challenge.place.is_proxy {
            "Proxy-Authentication-Info" // RFC 7615 section 4
        } else {
            "Authentication-Info"
        };
        let text = headers.named(field).find_map(Header::text).unwrap_or_default();
        let next = split_list(text).find_map(|part| {
            let (name, value) = part.split_once('=')?;
            trim(name).eq_ignore_ascii_case("nextnonce").then(|| unquoted(trim(value)))
        });
        let next = next.filter(|it| !it.is_empty() && it.len() <= limit::SIP_DIGEST_BYTES.get());
        if let Some(nonce) = next
            && *nonce != self.challenge.nonce
        {
            (self.challenge.nonce, self.count) = (nonce.to_owned(), 0);
        }
    }
}

#[cfg(test)]
#[path = "digest_tests.rs"]
mod tests;
