//! How the media of calls in progress is over time: the shards' archives write, the console reads.
//! One short lock for each report of a leg, each five seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use api::series;
use base::{CallId, LegId, limit};
use media::{Curve, Quality, Spell};
use serde_json::{Value, json};

use series::Series;

/// The legs of a call by their numbers.
type Legs = BTreeMap<u8, Curve>;

/// The curves of calls in progress; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Curves(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// Written by the shard that owns the call; copied for a page.
    calls: Mutex<BTreeMap<CallId, Legs>>,
}

impl Curves {
    fn calls(&self) -> MutexGuard<'_, BTreeMap<CallId, Legs>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leg's media at some time after the answer; `None` before it. To be told only of
    /// calls that [`Curves::forget`] is called of in the end. What happened since the report
    /// before, after the answer.
    pub fn report(&self, leg: LegId, after: Option<Duration>, quality: &Quality) -> Option<Spell> {
        let mut calls = self.calls();
        let legs = calls.entry(leg.call).or_default();
        if !legs.contains_key(&leg.index) && legs.len() >= limit::MEDIA_CURVES.get() {
            return None;
        }
        let curve = legs.entry(leg.index).or_default();
        match after {
            Some(after) => Some(curve.handle_report(after, quality)),
            None => {
                curve.skip_report(quality);
                None
            }
        }
    }

    /// The figures of a call in progress, as they would be stored now; `None` where there are none
    /// yet.
    #[must_use]
    pub fn present(&self, call: CallId) -> Option<String> {
        let legs = self.calls().get(&call)?.clone();
        let last = legs.iter().map(|(index, curve)| (*index, *curve.last())).collect();
        Some(figures(&last, &legs))
    }

    /// The figures of a call, of legs that have reported their last ones.
    #[must_use]
    pub fn last(&self, call: CallId, qualities: &BTreeMap<u8, Quality>) -> String {
        let legs = self.calls().get(&call).cloned().unwrap_or_default();
        figures(qualities, &legs)
    }

    /// Forgets a call.
    pub fn forget(&self, call: CallId) {
        self.calls().remove(&call);
    }
}

/// The caller's figures, and under `legs` those of the other legs by their numbers.
fn figures(qualities: &BTreeMap<u8, Quality>, legs: &Legs) -> String {
    let leg = |index: &u8, quality| {
        let mut figures = quality_json(quality);
        if let Some(curve) = legs.get(index).filter(|curve| !curve.spells().is_empty()) {
            // Numbers only, which JSON takes.
            figures["series"] = serde_json::to_value(series_of(curve)).unwrap_or_default();
        }
        figures
    };
    let mut all = qualities.get(&0).map_or_else(|| json!({}), |quality| leg(&0, quality));
    let others = qualities.iter().filter(|(index, _)| **index != 0);
    let others: serde_json::Map<_, _> =
        others.map(|(index, quality)| (index.to_string(), leg(index, quality))).collect();
    if !others.is_empty() {
        all["legs"] = others.into();
    }
    all.to_string()
}

/// The columns of a leg's curve.
fn series_of(curve: &Curve) -> Series {
    fn column<T>(curve: &Curve, of: impl Fn(&Spell) -> T) -> Vec<T> {
        curve.spells().iter().map(of).collect()
    }
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let tenths = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
    Series {
        from_ms: millis(curve.start()),
        until_ms: column(curve, |it| millis(it.end)),
        received: column(curve, |it| it.received),
        lost: column(curve, |it| it.lost),
        late: column(curve, |it| it.late),
        concealed: column(curve, |it| it.concealed),
        jitter_ms: column(curve, |it| tenths(it.jitter)),
        round_trip_ms: column(curve, |it| it.round_trip.map(tenths)),
        mos: column(curve, |it| it.mos.map(|mos| (f64::from(mos) * 100.0).round() / 100.0)),
    }
}

fn quality_json(quality: &Quality) -> Value {
    let ms = |time: Duration| time.as_micros() as f64 / 1e3;
    json!({
        "received": quality.received,
        "lost": quality.lost,
        "late": quality.late,
        "dropped": quality.dropped,
        "concealed": quality.concealed,
        "jitter_ms": ms(quality.jitter),
        "delay_ms": ms(quality.delay),
        "sent": quality.sent,
        "remote_loss": quality.remote_loss,
        "remote_jitter_ms": ms(quality.remote_jitter),
        "round_trip_ms": quality.round_trip.map(ms),
        "mos": quality.mos,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call() -> CallId {
        CallId::from_bytes([7; 12])
    }

    fn heard(received: u64) -> Quality {
        Quality { received, ..Quality::default() }
    }

    #[test]
    fn a_call_in_progress_shows_both_legs_and_leaves_nothing_behind() {
        let curves = Curves::default();
        assert_eq!(curves.present(call()), None);
        for (index, seconds) in [(0, None), (0, Some(5)), (1, Some(6)), (0, Some(10))] {
            let after = seconds.map(Duration::from_secs);
            let received = 100 + seconds.unwrap_or(0) * 50;
            curves.report(LegId { call: call(), index }, after, &heard(received));
        }
        let shown: Value = serde_json::from_str(&curves.present(call()).unwrap()).unwrap();
        assert_eq!(shown["received"], 600);
        let caller = Series::read(&shown).unwrap();
        assert_eq!(caller.received, [250, 250], "without what was before the answer");
        let callee = Series::read(&shown["legs"]["1"]).unwrap();
        assert_eq!((callee.from_ms, &*callee.until_ms), (1_000, &[6_000][..]));
        curves.forget(call());
        assert!(curves.calls().is_empty());
    }

    #[test]
    fn legs_beyond_the_limit_have_their_last_figures_only() {
        let curves = Curves::default();
        let most = u8::try_from(limit::MEDIA_CURVES.get()).unwrap();
        for index in 0..=most {
            let after = Some(Duration::from_secs(5));
            curves.report(LegId { call: call(), index }, after, &heard(9));
        }
        let qualities = (0..=most).map(|index| (index, heard(10))).collect();
        let stored: Value = serde_json::from_str(&curves.last(call(), &qualities)).unwrap();
        let last = &stored["legs"][most.to_string()];
        assert!(last["received"] == 10 && last.get("series").is_none());
        assert!(Series::read(&stored["legs"][(most - 1).to_string()]).is_some());
    }

    #[test]
    fn the_largest_figures_of_a_call_fit_into_a_record() {
        let curves = Curves::default();
        let most = u8::try_from(limit::MEDIA_CURVES.get()).unwrap();
        let quality = |number: u64| Quality {
            received: number * u64::from(u32::MAX),
            lost: number * u64::from(u32::MAX),
            late: number * u64::from(u32::MAX),
            concealed: number * u64::from(u32::MAX),
            jitter: Duration::from_micros(10_123_456),
            round_trip: Some(Duration::from_micros(10_123_456)),
            ..Quality::default()
        };
        for report in 1..=limit::MEDIA_CURVE_SPELLS.value {
            for index in 0..most {
                let after = Some(Duration::from_secs(100_000 + report * 5));
                curves.report(LegId { call: call(), index }, after, &quality(report));
            }
        }
        let qualities = (0..=u8::MAX).map(|index| (index, quality(9))).collect();
        let size = curves.last(call(), &qualities).len();
        assert!(size < limit::VAULT_RECORD_BYTES.get() * 3 / 4, "{size} bytes");
    }
}
