//! Identifiers as distinct types, so that a leg is never passed where a call is wanted.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use crate::random::Random;
use crate::time::WallTime;

/// A string that was not the identifier it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseIdError;

impl fmt::Display for ParseIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an identifier of this kind")
    }
}

impl core::error::Error for ParseIdError {}

/// A call, as a user sees it: both legs and everything tied to them.
/// `Display` is `call_` and 24 hex digits (`shared/REST.md` 1.6).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId([u8; 12]);

impl CallId {
    /// A new id: the second in which it was made, and 64 random bits. Calls of one time lie
    /// together in the store, which writes them in half the time.
    pub fn new(wall: WallTime, random: &mut dyn Random) -> Self {
        let Self(mut bytes) = Self::random(random);
        // The lowest 32 bits: enough until 2106, and then it is only slower.
        let seconds = (wall.unix_millis() / 1_000) as u32;
        bytes[..4].copy_from_slice(&seconds.to_be_bytes());
        Self(bytes)
    }

    /// An id from 96 random bits, where there is no clock.
    pub fn random(random: &mut dyn Random) -> Self {
        let mut bytes = [0; 12];
        random.fill(&mut bytes);
        Self(bytes)
    }

    /// The id as bytes, for associated data and storage keys.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 12] {
        &self.0
    }

    /// The id whose bytes these are.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 12]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("call_")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CallId {
    type Err = ParseIdError;
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        let digits = text.strip_prefix("call_").ok_or(ParseIdError)?.as_bytes();
        if digits.len() != 24 {
            return Err(ParseIdError);
        }
        let mut bytes = [0; 12];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            let high = char::from(pair[0]).to_digit(16).ok_or(ParseIdError)?;
            let low = char::from(pair[1]).to_digit(16).ok_or(ParseIdError)?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(Self(bytes))
    }
}

/// One SIP or browser side of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegId {
    /// The call it belongs to.
    pub call: CallId,
    /// 0 is the caller; callees and transfer targets count up from 1.
    pub index: u8,
}

impl fmt::Display for LegId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.call, self.index)
    }
}

/// One leg's media at the relay. All sessions of a call share a stem, and with it a worker, so
/// that its legs can hear each other there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(u64);

impl SessionId {
    /// The session of leg `index` of the call that has this stem; stems count to 2^56.
    #[must_use]
    pub const fn new(stem: u64, index: u8) -> Self {
        Self(stem << 8 | index as u64)
    }

    /// The id as a number, for logs.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The stem, by which worker and shard are chosen.
    #[must_use]
    pub const fn stem(self) -> u64 {
        self.0 >> 8
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session_{}", self.0)
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a name that its file's compiler has already checked.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self(Arc::from(name))
            }

            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(Arc::from(name))
            }
        }
    };
}

name_type! {
    /// The name of a configured carrier relation, as in `[trunk.NAME]`.
    TrunkName
}
name_type! {
    /// The name of a voice agent, as in `deploy/agents/NAME.toml`.
    VoiceAgentName
}
name_type! {
    /// A tenant: owner of keys, calls and recordings.
    WorkspaceId
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SeededRandom;
    use alloc::string::ToString;

    #[test]
    fn calls_of_one_time_lie_together() {
        let mut random = SeededRandom::new(1);
        let mut at = |seconds: u64| {
            CallId::new(WallTime::from_unix_millis(seconds * 1_000 + 7), &mut random)
        };
        let ids = [at(1_795_392_000), at(1_795_392_000), at(1_795_392_001), at(1_795_392_100)];
        assert_eq!(ids[0].as_bytes()[..4], ids[1].as_bytes()[..4]);
        assert_ne!(ids[0], ids[1]);
        assert!(ids[1] < ids[2] && ids[2] < ids[3]);
    }

    #[test]
    fn a_call_id_survives_the_round_trip() {
        let id = CallId::random(&mut SeededRandom::new(1));
        assert_eq!(id.to_string().len(), 29);
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "call_", "call_zz", "leg_00112233445566778899aabb"] {
            assert_eq!(wrong.parse::<CallId>(), Err(ParseIdError));
        }
    }
}
