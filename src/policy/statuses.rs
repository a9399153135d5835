//! The refusals after which a call goes on to the next target of its route.

use core::fmt;
use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

/// One SIP status as `503`, or a class of them as `5xx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statuses {
    first: u16,
    last: u16,
}

impl Statuses {
    /// What a route goes on after where it says nothing: faults of a network on the way. What the
    /// called party or its own network says of the number is final.
    pub const USUAL: [Self; 5] =
        [Self::one(408), Self::one(500), Self::one(502), Self::one(503), Self::one(504)];

    const fn one(status: u16) -> Self {
        Self { first: status, last: status }
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |text: &str| {
            let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|_| is_number)
        };
        match text.strip_suffix("xx") {
            Some(class) => {
                let first = Self::of(number(class)?.checked_mul(100)?)?;
                Some(Self { last: first.first + 99, ..first })
            }
            None => Self::of(number(text)?),
        }
    }

    fn of(status: u16) -> Option<Self> {
        (100..700).contains(&status).then_some(Self::one(status))
    }

    /// Whether a refusal with this status is one of them; what is always final never is.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (self.first..=self.last).contains(&status) && why_final(status).is_none()
    }

    /// Why a route cannot go on after these, where it cannot.
    pub(crate) fn why_never(self) -> Option<&'static str> {
        // A class is judged by what begins it: of 4xx and 5xx, most are not final.
        why_final(self.first)
    }
}

/// Why nothing is tried after a response with this status, where that is so.
const fn why_final(status: u16) -> Option<&'static str> {
    match status {
        0..=299 => Some("it is no refusal"),
        300..=399 => Some("a redirection is followed within its trunk"),
        401 | 407 => Some("it asks for credentials; see `digest` of the trunk"),
        486 => Some("the called party is busy, whoever carries the call"),
        487 => Some("the caller itself has given up"),
        // RFC 3261 section 21.6.
        600.. => Some("it is the last word of the called party, whoever carries the call"),
        _ => None,
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}xx", self.first / 100)
        }
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Word)
    }
}

struct Word;

impl Visitor<'_> for Word {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status such as 503 or a class such as \"5xx\"")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Statuses, E> {
        let wrong = || E::custom("not a status such as 503 or a class such as \"5xx\"");
        Statuses::parse(text).ok_or_else(wrong)
    }

    fn visit_i64<E: serde::de::Error>(self, status: i64) -> Result<Statuses, E> {
        let found = u16::try_from(status).ok().and_then(Statuses::of);
        found.ok_or_else(|| E::custom("not a status such as 503 or a class such as \"5xx\""))
    }

    fn visit_u64<E: serde::de::Error>(self, status: u64) -> Result<Statuses, E> {
        self.visit_i64(i64::try_from(status).unwrap_or(-1))
    }
}

impl JsonSchema for Statuses {
    fn schema_name() -> Cow<'static, str> {
        "Statuses".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A SIP status as 503, or a class of them as \"5xx\".",
            "anyOf": [
                { "type": "integer", "minimum": 400, "maximum": 599 },
                { "type": "string", "pattern": "^[45](xx|[0-9][0-9])$" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_holds_what_may_be_tried_elsewhere_and_never_the_last_word() {
        let class = Statuses::parse("4xx").unwrap();
        assert!(class.contains(404) && class.contains(480) && !class.contains(503));
        for last in [401, 407, 486, 487] {
            assert!(!class.contains(last), "{last}");
            assert!(Statuses::of(last).unwrap().why_never().is_some());
        }
        assert_eq!(class.why_never(), None);
        for never in ["6xx", "603", "3xx", "302", "200", "1xx"] {
            assert!(Statuses::parse(never).unwrap().why_never().is_some(), "{never}");
        }
        for wrong in ["", "xx", "5x", "5xxx", "70xx", "700", "99", "-1", "+503", "five", "0xx"] {
            assert_eq!(Statuses::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_stored_decision_reads_back_what_it_went_on_after() {
        let all: Vec<Statuses> = serde_json::from_str("[503, \"5xx\", \"480\"]").unwrap();
        assert_eq!(serde_json::to_string(&all).unwrap(), "[\"503\",\"5xx\",\"480\"]");
        let again: Vec<Statuses> = serde_json::from_str("[\"503\",\"5xx\",\"480\"]").unwrap();
        assert_eq!(all, again);
    }
}
