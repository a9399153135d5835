//! How the vocabulary of `base`, which knows no serde, stands in stored attempts and decisions.
//! Each submodule is for `#[serde(with = "wire::...")]`.

use base::{Reason, TrunkName, WallTime};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Milliseconds since 1970.
pub(crate) mod wall {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &WallTime, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(it.unix_millis())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<WallTime, D::Error> {
        u64::deserialize(from).map(WallTime::from_unix_millis)
    }
}

/// Milliseconds.
pub(crate) mod millis {
    use super::*;
    use core::time::Duration;

    pub(crate) fn serialize<S: Serializer>(it: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// The stable code of a reason.
pub(crate) mod reason {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &Reason, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.code())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Reason, D::Error> {
        let code = String::deserialize(from)?;
        Reason::ALL
            .iter()
            .copied()
            .find(|reason| reason.code() == code)
            .ok_or_else(|| D::Error::custom(format_args!("no outcome has the code {code}")))
    }
}

/// The name of a trunk.
pub(crate) mod trunk {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(it: &TrunkName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TrunkName, D::Error> {
        String::deserialize(from).map(TrunkName::from)
    }
}

/// The name of a trunk, where there is one.
pub(crate) mod some_trunk {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        it: &Option<TrunkName>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        it.as_ref().map(TrunkName::as_str).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<TrunkName>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(TrunkName::from))
    }
}

/// The name of a voice agent.
pub(crate) mod agent {
    use super::*;
    use base::VoiceAgentName;

    pub(crate) fn serialize<S: Serializer>(it: &VoiceAgentName, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(it.as_str())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<VoiceAgentName, D::Error> {
        String::deserialize(from).map(VoiceAgentName::from)
    }
}
