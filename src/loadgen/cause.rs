//! Why a call ended, as its two ends tell each other (RFC 3326).

use std::collections::BTreeMap;
use std::fmt;

use base::diagnostic::suggest;
use serde::{Serialize, Serializer};
use sip::{Header, Headers, Name};

/// A cause in a Reason header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Of ITU-T Q.850, 1 to 127: the same to every network.
    Q850(u8),
    /// A status of SIP.
    Sip(u16),
}

impl Cause {
    /// Reads `Q.850 16` or `SIP 200`.
    pub(crate) fn parse(text: &str) -> Result<Self, (String, Option<String>)> {
        let form = || Some("write it as in \"Q.850 16\" or \"SIP 200\"".to_owned());
        let mut words = text.split_whitespace();
        let (Some(protocol), Some(number), None) = (words.next(), words.next(), words.next())
        else {
            return Err((format!("`{text}` is no cause"), form()));
        };
        let number: u16 =
            number.parse().map_err(|_| (format!("`{number}` is no number"), form()))?;
        match (protocol, number) {
            ("Q.850", 1..=127) => Ok(Self::Q850(number as u8)),
            ("Q.850", _) => Err(("causes of Q.850 are 1 to 127".to_owned(), form())),
            ("SIP", 200..=699) => Ok(Self::Sip(number)),
            ("SIP", _) => Err(("a cause of SIP is a final status, 200 to 699".to_owned(), form())),
            _ => {
                let known = suggest(protocol, &["Q.850", "SIP"]).or_else(form);
                Err((format!("`{protocol}` is no protocol of a cause"), known))
            }
        }
    }

    /// What the far end told: a cause of Q.850 before one of SIP, whatever their order.
    pub(crate) fn of(headers: &Headers) -> Option<Self> {
        let reasons = headers.reasons();
        let first = |protocol: &str| {
            let mut of = reasons.iter().filter(|it| it.protocol.eq_ignore_ascii_case(protocol));
            of.find_map(|it| it.cause)
        };
        let q850 = first("Q.850").and_then(|it| u8::try_from(it).ok()).map(Self::Q850);
        q850.or_else(|| first("SIP").map(Self::Sip))
    }

    /// The header that tells it.
    pub(crate) fn header(self) -> Header {
        let value = match self {
            Self::Q850(cause) => format!("Q.850;cause={cause}"),
            Self::Sip(status) => format!("SIP;cause={status}"),
        };
        Header::new(Name::Reason, value)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Q850(cause) => write!(f, "Q.850 {cause}"),
            Self::Sip(status) => write!(f, "SIP {status}"),
        }
    }
}

/// By whom, by what and with which cause a call was ended: `far end, BYE, Q.850 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Farewell {
    /// Whether it was this end.
    pub by_us: bool,
    /// What was sent.
    pub by: FarewellBy,
    /// The cause that was told with it.
    pub cause: Option<Cause>,
}

/// The message that ends a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FarewellBy {
    /// After the answer.
    Bye,
    /// The caller's, before the answer.
    Cancel,
    /// The callee's: a final response of this status.
    Refusal(u16),
}

impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.by_us { "us, " } else { "far end, " })?;
        match self.by {
            FarewellBy::Bye => f.write_str("BYE")?,
            FarewellBy::Cancel => f.write_str("CANCEL")?,
            FarewellBy::Refusal(status) => write!(f, "{status}")?,
        }
        match self.cause {
            Some(cause) => write!(f, ", {cause}"),
            None => f.write_str(", no cause"),
        }
    }
}

impl Serialize for Farewell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Causes on their way through the edge.
#[derive(Debug, Default)]
pub(crate) struct Causes {
    /// How the first end of a call that is over was ended, by the call's number.
    first: BTreeMap<u32, Farewell>,
    /// Calls in which one end told a cause, and the other heard a goodbye.
    pub(crate) told: u32,
    /// Those of them in which it was the same cause.
    pub(crate) kept: u32,
}

impl Causes {
    /// Takes how one end of a call was ended.
    pub(crate) fn add(&mut self, token: u32, farewell: Farewell) {
        let Some(other) = self.first.remove(&token) else {
            self.first.insert(token, farewell);
            return;
        };
        for (told, heard) in [(farewell, other), (other, farewell)] {
            // Where both said goodbye at once nobody heard the other's cause.
            if told.by_us && told.cause.is_some() && !heard.by_us {
                self.told += 1;
                self.kept += u32::from(told.cause == heard.cause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_what_its_header_tells() {
        for text in ["Q.850 16", "SIP 200", "Q.850 127"] {
            let cause = Cause::parse(text).unwrap();
            assert_eq!(cause.to_string(), text);
            let mut headers = Headers::default();
            headers.push_header(cause.header());
            assert_eq!(Cause::of(&headers), Some(cause));
        }
    }

    #[test]
    fn q850_is_understood_wherever_it_stands_and_nonsense_is_none() {
        let of = |lines: &[&str]| {
            let mut headers = Headers::default();
            lines.iter().for_each(|line| headers.push(Name::Reason, line));
            Cause::of(&headers)
        };
        assert_eq!(of(&["SIP;cause=603;text=\"no\", q.850;cause=21"]), Some(Cause::Q850(21)));
        assert_eq!(of(&["SIP;cause=200;text=\"Call completed elsewhere\""]), Some(Cause::Sip(200)));
        assert_eq!(of(&["Q.850;cause=900"]), None);
        assert_eq!(of(&["X;cause=1", "SIP"]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn what_is_no_cause_is_told_with_a_suggestion() {
        let wrong = |text: &str| Cause::parse(text).unwrap_err();
        assert!(wrong("Q.85 16").1.unwrap().contains("Q.850"));
        assert!(wrong("Q.850 200").0.contains("1 to 127"));
        assert!(wrong("SIP 100").0.contains("200 to 699"));
        assert!(wrong("16").1.unwrap().contains("\"Q.850 16\""));
        assert!(wrong("Q.850 16 17").0.contains("no cause"));
    }

    #[test]
    fn a_farewell_reads_as_a_line_of_a_table() {
        let far = Farewell { by_us: false, by: FarewellBy::Refusal(486), cause: None };
        assert_eq!(far.to_string(), "far end, 486, no cause");
        let ours = Farewell { by_us: true, by: FarewellBy::Bye, cause: Some(Cause::Q850(16)) };
        assert_eq!(ours.to_string(), "us, BYE, Q.850 16");
    }

    #[test]
    fn a_cause_is_kept_where_the_other_end_hears_the_very_same() {
        let mut causes = Causes::default();
        let said = |by_us, cause| Farewell { by_us, by: FarewellBy::Bye, cause };
        let (sixteen, other) = (Some(Cause::Q850(16)), Some(Cause::Q850(31)));
        causes.add(1, said(true, sixteen));
        causes.add(2, said(false, other));
        causes.add(1, said(false, sixteen));
        causes.add(2, said(true, sixteen));
        assert_eq!((causes.told, causes.kept), (2, 1));
        // Both at once, nobody told, and the other end never came.
        causes.add(3, said(true, sixteen));
        causes.add(3, said(true, other));
        causes.add(4, said(true, None));
        causes.add(4, said(false, None));
        causes.add(5, said(true, sixteen));
        assert_eq!((causes.told, causes.kept), (2, 1));
    }
}
