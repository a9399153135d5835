//! What a browser token may do.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// One thing that a browser token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Begin calls, by WHIP or by SIP over WebSocket.
    Call,
    /// Be registered by SIP over WebSocket, and so be called.
    Register,
}

/// A word that is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("scopes are call and register")]
pub struct NotAScope;

impl TokenScope {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Call, Self::Register];

    /// Its word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Register => "register",
        }
    }

    /// The scopes of a row of before there were any: whoever made such a token was told that it
    /// opens calls and registers.
    pub(super) fn of_old() -> BTreeSet<Self> {
        Self::ALL.into()
    }
}

impl fmt::Display for TokenScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for TokenScope {
    type Err = NotAScope;

    fn from_str(text: &str) -> Result<Self, NotAScope> {
        Self::ALL.into_iter().find(|scope| scope.word() == text).ok_or(NotAScope)
    }
}
