//! A leg's media over time as it is stored with a call's figures, for whoever draws or sums it up.
//!
//! Columns of equal length, one value for each spell (the parts of a call that a point stands
//! for); the edge writes them, the console and `callgate calls show` read them. Calls that were
//! stored before there was such a thing have none.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The columns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// When the first spell began, in milliseconds after the answer.
    pub from_ms: u64,
    /// When each ended.
    pub until_ms: Vec<u64>,
    /// Packets heard.
    pub received: Vec<u32>,
    /// Packets missing.
    pub lost: Vec<u32>,
    /// Packets too late to be heard.
    pub late: Vec<u32>,
    /// Frames of 20 ms that were concealed.
    pub concealed: Vec<u32>,
    /// The largest interarrival jitter.
    pub jitter_ms: Vec<f64>,
    /// The longest round trip, where the peer reports any.
    pub round_trip_ms: Vec<Option<f64>>,
    /// The worst estimated mean opinion score, where anything was to be heard and the codec has
    /// one.
    pub mos: Vec<Option<f64>>,
}

/// What is plotted of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// The estimated mean opinion score, 1 to 4.5.
    Mos,
    /// Packets lost or too late, in percent of those that were to come.
    Loss,
    /// Jitter in milliseconds.
    Jitter,
    /// Round trip in milliseconds.
    RoundTrip,
}

/// A figure of all spells in short.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// Half of the spells that have the figure are no better.
    pub median: f64,
    /// The worst one.
    pub worst: f64,
    /// Where the spell of the worst begins, in milliseconds after the answer.
    pub worst_at: u64,
}

impl Series {
    /// The columns of a leg's stored figures; `None` of a call without, or where they do not fit
    /// together.
    #[must_use]
    pub fn read(leg: &Value) -> Option<Self> {
        let series = Self::deserialize(leg.get("series")?).ok()?;
        let Self { from_ms, until_ms, received, lost, late, concealed, .. } = &series;
        let lengths = [received, lost, late, concealed].map(Vec::len);
        let floats = [series.jitter_ms.len(), series.round_trip_ms.len(), series.mos.len()];
        let fits = lengths.into_iter().chain(floats).all(|length| length == until_ms.len());
        let is_ordered = until_ms.is_sorted() && until_ms.first().is_some_and(|it| it >= from_ms);
        (fits && is_ordered).then_some(series)
    }

    /// How many spells there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.until_ms.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until_ms.is_empty()
    }

    /// When a spell began, in milliseconds after the answer.
    #[must_use]
    pub fn start(&self, spell: usize) -> u64 {
        let before = spell.checked_sub(1).and_then(|before| self.until_ms.get(before));
        before.copied().unwrap_or(self.from_ms)
    }

    /// When the last one ended, in milliseconds after the answer.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.until_ms.last().copied().unwrap_or(self.from_ms)
    }

    /// A figure of a spell; `None` where it has none.
    #[must_use]
    pub fn value(&self, figure: Figure, spell: usize) -> Option<f64> {
        match figure {
            Figure::Mos => *self.mos.get(spell)?,
            Figure::Loss => {
                let lost = f64::from(*self.lost.get(spell)?);
                let received = f64::from(*self.received.get(spell)?);
                let unheard = lost + f64::from(*self.late.get(spell)?).min(received);
                (lost + received > 0.0).then(|| unheard / (lost + received) * 100.0)
            }
            Figure::Jitter => {
                let was_heard = *self.received.get(spell)? > 0;
                self.jitter_ms.get(spell).copied().filter(|_| was_heard)
            }
            Figure::RoundTrip => *self.round_trip_ms.get(spell)?,
        }
    }

    /// A figure in short; `None` where no spell has it.
    #[must_use]
    pub fn summary(&self, figure: Figure) -> Option<Summary> {
        let is_worse = |one: f64, other: f64| match figure {
            Figure::Mos => one < other,
            Figure::Loss | Figure::Jitter | Figure::RoundTrip => one > other,
        };
        let all = (0..self.len()).filter_map(|it| Some((it, self.value(figure, it)?)));
        let mut all: Vec<(usize, f64)> = all.collect();
        let (at, worst) = all
            .iter()
            .copied()
            .reduce(|worst, next| if is_worse(next.1, worst.1) { next } else { worst })?;
        all.sort_by(|one, other| one.1.total_cmp(&other.1));
        let (_, median) = *all.get(all.len() / 2)?;
        Some(Summary { median, worst, worst_at: self.start(at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Four spells: well, with a burst of loss, silent, well.
    fn series() -> Series {
        Series {
            from_ms: 0,
            until_ms: vec![5_000, 10_000, 15_000, 20_000],
            received: vec![250, 200, 0, 250],
            lost: vec![0, 50, 0, 0],
            late: vec![0, 0, 0, 3],
            concealed: vec![0, 50, 0, 0],
            jitter_ms: vec![2.0, 31.0, 31.0, 4.0],
            round_trip_ms: vec![None, Some(12.3), Some(12.3), Some(9.0)],
            mos: vec![Some(4.41), Some(2.2), None, Some(4.38)],
        }
    }

    #[test]
    fn what_is_written_is_read_and_summed_up() {
        let series = series();
        let text = json!({ "received": 700, "series": &series }).to_string();
        assert_eq!(Series::read(&serde_json::from_str(&text).unwrap()).unwrap(), series);
        let loss = series.summary(Figure::Loss).unwrap();
        assert_eq!(loss, Summary { median: 1.2, worst: 20.0, worst_at: 5_000 });
        let mos = series.summary(Figure::Mos).unwrap();
        assert_eq!(mos, Summary { median: 4.38, worst: 2.2, worst_at: 5_000 });
        // Where nothing came there is no jitter, though the last known one is reported again.
        let jitter = series.summary(Figure::Jitter).unwrap();
        assert_eq!((jitter.median, jitter.worst, jitter.worst_at), (4.0, 31.0, 5_000));
        assert_eq!(series.value(Figure::RoundTrip, 0), None);
        assert_eq!(series.summary(Figure::RoundTrip).unwrap().worst, 12.3);
        assert_eq!((series.start(0), series.start(3), series.end()), (0, 15_000, 20_000));
    }

    #[test]
    fn a_call_without_a_series_or_with_a_broken_one_has_none() {
        assert_eq!(Series::read(&json!({ "received": 99, "mos": 4.3 })), None);
        assert_eq!(Series::read(&Value::Null), None);
        let whole = serde_json::to_value(series()).unwrap();
        for (column, value) in [
            ("lost", json!([1])),
            ("until_ms", json!([20_000, 5_000, 1, 2])),
            ("mos", json!("no")),
            ("from_ms", json!(6_000)),
        ] {
            let mut broken = whole.clone();
            broken[column] = value;
            assert_eq!(Series::read(&json!({ "series": broken })), None, "{column}");
        }
        assert!(Series::read(&json!({ "series": whole })).is_some());
    }
}
