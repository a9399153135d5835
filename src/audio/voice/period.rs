//! How periodic a stretch of sound is, by normalised autocorrelation between 250 and 1500 Hz:
//! vowels are within two periods of their pitch, noises and breaths never.

use super::bands::HOP;
use super::filter::Filter;

/// The compared stretch: 32 ms, two periods of the deepest voice; every second sample of it, which
/// is all that a sound below 1500 Hz holds.
const WINDOW: usize = 128;
/// Periods of a voice: 444 to 60 Hz, in samples at 8 kHz.
const LAG_MIN: usize = 18;
const LAG_MAX: usize = 133;
/// Periods of mains hum at 60 and 50 Hz.
const MAINS: [usize; 2] = [133, 160];
const LAGS: usize = MAINS[1] + 2;
/// Samples kept of either kind, even and odd.
const HISTORY: usize = WINDOW + LAGS / 2;
/// Power, per sample, that counts as nothing: 10 rms.
const NOTHING: f32 = 100.0;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Period {
    /// The likeness at the best period of a voice, 0 to 1.
    pub(super) likeness: f32,
    /// The likeness at a period of mains hum.
    pub(super) mains: f32,
}

/// Remembers the last 52 ms.
pub(super) struct Periodicity {
    filter: Filter<2>,
    /// Even samples, and odd ones, the newest of which is the last of all.
    past: [[f32; HISTORY]; 2],
}

impl Periodicity {
    pub(super) fn new() -> Self {
        Self { filter: Filter::band(250.0, 1500.0), past: [[0.0; HISTORY]; 2] }
    }

    pub(super) fn push(&mut self, hop: &[i16; HOP]) {
        for kind in &mut self.past {
            kind.copy_within(HOP / 2.., 0);
        }
        for (at, &sample) in hop.iter().enumerate() {
            self.past[at % 2][HISTORY - HOP / 2 + at / 2] = self.filter.step(f32::from(sample));
        }
        self.filter.settle();
    }

    /// Judges the last 32 ms.
    pub(super) fn period(&self) -> Period {
        let now = &self.past[1][HISTORY - WINDOW..];
        let nothing = NOTHING * WINDOW as f32;
        let own = dot(now, now) + nothing;
        let even = &self.past[0][HISTORY - WINDOW..];
        let mut theirs = [dot(even, even) + nothing, own];
        let mut like = [0.0f32; LAGS];
        for (lag, like) in like.iter_mut().enumerate().skip(1) {
            // An odd sample minus an odd lag is an even one, half the lag (rounded down) before.
            let past = &self.past[(lag + 1) % 2];
            let (first, end) = (HISTORY - WINDOW - lag / 2, HISTORY - lag / 2);
            let theirs = &mut theirs[(lag + 1) % 2];
            if lag > 1 {
                // The stretch before loses its last sample and gains one at its start.
                *theirs += past[first].powi(2) - past[end].powi(2);
            }
            if (LAG_MIN - 1..=LAG_MAX + 1).contains(&lag) || lag + 1 >= MAINS[1] {
                *like = dot(now, &past[first..end]) / (own * theirs.max(nothing)).sqrt();
            }
        }
        // A peak only: short lags are alike for any sound without highs.
        let peaks = like[LAG_MIN - 1..=LAG_MAX + 1].array_windows();
        let peaks = peaks.filter(|[before, at, after]| at >= before && at >= after);
        let likeness = peaks.map(|[_, at, _]| *at).fold(0.0, f32::max);
        let mains = MAINS.iter().flat_map(|&lag| &like[lag - 1..=lag + 1]);
        Period { likeness, mains: mains.copied().fold(0.0, f32::max) }
    }
}

/// In eight lanes, so that the compiler may use vectors without reordering a sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{noise, sine, speech};

    fn periods(pcm: &[i16]) -> Vec<Period> {
        let mut periodicity = Periodicity::new();
        pcm.as_chunks::<HOP>()
            .0
            .iter()
            .map(|hop| {
                periodicity.push(hop);
                periodicity.period()
            })
            .collect()
    }

    #[test]
    fn a_voice_is_periodic_within_40_ms_and_noise_never() {
        let voice = speech(8000, 0.2, 9000.0, 3);
        assert!(periods(&voice)[3..].iter().any(|it| it.likeness > 0.6));
        let hiss = periods(&noise(80_000, 5000.0, 1));
        assert!(hiss.iter().all(|it| it.likeness < 0.5));
        assert!(periods(&[0; 800]).iter().all(|it| *it == Period::default()));
    }

    #[test]
    fn hum_has_the_period_of_the_mains() {
        for mains in [50.0, 60.0] {
            let mut hum = sine(8000, mains * 5.0, 3000.0, 1600);
            crate::mix::add(&mut hum, &sine(8000, mains * 7.0, 2000.0, 1600));
            assert!(periods(&hum)[19].mains > 0.95);
        }
    }
}
