//! Who is there: API keys, browser tokens and accounts.

use std::sync::Arc;

use base::{Personal, Secret, WallTime};

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub enum Who {
    /// The holder of an API key of the workspace.
    Key {
        /// Its id, `key_` and 16 hexadecimal digits; no secret.
        id: String,
        /// Whether it may change things.
        can_write: bool,
    },
    /// The browser that holds a token.
    Token(Arc<BrowserToken>),
    /// A person with a password of the edge's own, by SIP over WSS.
    Account {
        /// The name, which is also the user of its SIP address.
        name: Personal<String>,
    },
}

/// What a browser token allows. The token itself is not kept: it is made of the id under a key of
/// the vault's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserToken {
    /// Its id, `bt_` and 16 hexadecimal digits; no secret.
    pub id: String,
    /// The only address it may call (the user of the Request-URI), as a voice agent's name; `None`
    /// for whatever policy allows.
    pub called: Option<String>,
    /// The only origin (RFC 6454) that may use it; `None` for those of the configuration.
    pub origin: Option<String>,
    /// What the caller is called.
    pub name: Option<Personal<String>>,
    /// When it ends.
    pub expires: WallTime,
}

/// MD5 or SHA-256 of `user:realm:password` in lower-case hexadecimal (RFC 8760 section 2.6).
pub struct Ha1(pub Secret<String>);

/// Where credentials are checked; the edge gives the vault's.
pub trait Credentials: Send + Sync + 'static {
    /// Whom an `Authorization: Bearer` value stands for: an API key or a browser token that holds.
    fn bearer(&self, secret: &str, now: WallTime) -> Option<Who>;

    /// Who the digest user is, with what the answer is checked against: an account by its name, or a
    /// token by its id, whose password is the token (MD5, since SIP.js and JsSIP know nothing else;
    /// only over WSS).
    fn digest(&self, user: &str, realm: &str, now: WallTime) -> Option<(Who, Ha1)>;
}
