//! What a scenario expects: `setup p99 <= 250 ms`.

use std::fmt;

use base::diagnostic::suggest;
use serde::Serialize;

use super::words::{Wrong, wrong};

/// What can be expected of: its words, its unit, and what it is.
const MEASURES: &[(&str, Measure)] = &[
    ("answered", Measure::Answered),
    ("failed", Measure::Failed),
    ("setup p50", Measure::SetupP50),
    ("setup p95", Measure::SetupP95),
    ("setup p99", Measure::SetupP99),
    ("setup max", Measure::SetupMax),
    ("secured p95", Measure::SecuredP95),
    ("first packet p99", Measure::FirstPacketP99),
    ("loss", Measure::Loss),
    ("jitter p99", Measure::JitterP99),
    ("rejected", Measure::Rejected),
    ("delay p50", Measure::DelayP50),
    ("delay p99", Measure::DelayP99),
    ("delay max", Measure::DelayMax),
    ("through loss", Measure::ThroughLoss),
    ("gap max", Measure::GapMax),
    ("paired", Measure::Paired),
    ("causes kept", Measure::CausesKept),
    ("injected", Measure::Injected),
    ("replayed", Measure::Replayed),
    ("to strangers", Measure::ToStrangers),
    ("got through", Measure::GotThrough),
    ("late starts", Measure::LateStarts),
];

/// One figure of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Answered calls of those that were to be answered, in percent.
    Answered,
    /// Calls that failed and were not meant to.
    Failed,
    /// From the INVITE to the 200, the median, in milliseconds.
    SetupP50,
    /// The 95th percentile.
    SetupP95,
    /// The 99th percentile.
    SetupP99,
    /// The longest.
    SetupMax,
    /// From a browser's answer to its keys, the 95th percentile, in milliseconds.
    SecuredP95,
    /// From the 200 to the first packet, in milliseconds.
    FirstPacketP99,
    /// RTP packets that did not arrive, of all, in percent.
    Loss,
    /// Jitter by call, in milliseconds.
    JitterP99,
    /// Datagrams that were thrown away.
    Rejected,
    /// The way through the edge, the median, in milliseconds.
    DelayP50,
    /// The 99th percentile.
    DelayP99,
    /// The longest.
    DelayMax,
    /// Stamped packets that did not come through the edge, in percent.
    ThroughLoss,
    /// The longest time without a packet in any answered call, in milliseconds.
    GapMax,
    /// Calls whose caller and callee found each other, of the answered ones, in percent.
    Paired,
    /// Calls whose one end heard the very cause that the other end told, in percent.
    CausesKept,
    /// Strangers' packets that reached a caller or callee.
    Injected,
    /// Packets that reached a caller or callee twice.
    Replayed,
    /// Packets that reached a stranger.
    ToStrangers,
    /// Attempts of bad actors that got through.
    GotThrough,
    /// Calls begun more than 10 ms late, in percent.
    LateStarts,
}

impl Measure {
    /// Its words.
    #[must_use]
    pub fn words(self) -> &'static str {
        MEASURES.iter().find(|(_, it)| *it == self).map_or("", |(words, _)| words)
    }

    /// Whether it says what bad actors achieved, which no lateness of ours excuses.
    pub(crate) const fn is_security(self) -> bool {
        matches!(self, Self::Injected | Self::Replayed | Self::ToStrangers | Self::GotThrough)
    }

    /// Its unit; empty for a count.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Answered
            | Self::Loss
            | Self::ThroughLoss
            | Self::Paired
            | Self::CausesKept
            | Self::LateStarts => "%",
            Self::Failed
            | Self::Rejected
            | Self::Injected
            | Self::Replayed
            | Self::ToStrangers
            | Self::GotThrough => "",
            _ => "ms",
        }
    }
}

/// How a figure is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// At most.
    AtMost,
    /// At least.
    AtLeast,
    /// Exactly.
    Equal,
}

/// One expectation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// Of what.
    pub measure: Measure,
    /// How.
    pub comparison: Comparison,
    /// The bound, in the unit of the measure.
    pub bound: f64,
}

impl Expectation {
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let form = "write it as in \"setup p99 <= 250 ms\"";
        let operators =
            [("<=", Comparison::AtMost), (">=", Comparison::AtLeast), ("=", Comparison::Equal)];
        let found = operators.iter().find_map(|(sign, it)| Some((text.split_once(sign)?, *it)));
        let Some(((name, value), comparison)) = found else {
            return Err(wrong(format!("`{text}` compares nothing"), form));
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let Some((_, measure)) = MEASURES.iter().find(|(words, _)| *words == name) else {
            let known: Vec<&str> = MEASURES.iter().map(|(words, _)| *words).collect();
            return Err((format!("nothing is measured as `{name}`"), suggest(&name, &known)));
        };
        let value = value.trim();
        let digits = value.find(|it: char| !it.is_ascii_digit() && it != '.');
        let (number, unit) = value.split_at(digits.unwrap_or(value.len()));
        let unit = unit.trim();
        if unit != measure.unit() {
            let message = match measure.unit() {
                "" => format!("`{name}` is a count, without a unit"),
                wanted => format!("`{name}` is measured in {wanted}"),
            };
            let right = format!("{name} {} {number} {}", sign(comparison), measure.unit());
            return Err(wrong(message, format!("write \"{}\"", right.trim_end())));
        }
        match number.parse() {
            Ok(bound) => Ok(Self { measure: *measure, comparison, bound }),
            Err(_) => Err(wrong(format!("`{number}` is no number"), form)),
        }
    }

    /// Whether `value` is as expected.
    #[must_use]
    pub fn holds(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::AtMost => value <= self.bound,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Equal => (value - self.bound).abs() < 1e-9,
        }
    }
}

const fn sign(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::AtMost => "<=",
        Comparison::AtLeast => ">=",
        Comparison::Equal => "=",
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.measure.words(), sign(self.comparison), self.bound)?;
        match self.measure.unit() {
            "" => Ok(()),
            unit => write!(f, " {unit}"),
        }
    }
}

impl Serialize for Expectation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
