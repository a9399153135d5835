//! What a listener would say: the E-model of ITU-T G.107, reduced to what a relay can observe.
//!
//! Echo, noise and level are taken at the model's defaults (R0 - Is = 93.2), and the scale is the
//! narrow-band one for all codecs, so that legs can be compared. It is an estimate for trending
//! and alarms, no measurement.

use core::time::Duration;

/// How a codec suffers: ITU-T G.113 appendix I.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Impairment {
    /// Ie, the codec's own impairment.
    pub equipment: f32,
    /// Bpl, its robustness against random loss, in percent.
    pub robustness: f32,
}

impl Impairment {
    /// G.711 with concealment (G.113 table I.2: Ie 0, Bpl 25.1).
    pub const G711: Self = Self { equipment: 0.0, robustness: 25.1 };
    /// G.722 at 64 kb/s with concealment. On the narrow-band scale a wide-band codec has no
    /// impairment of its own; the robustness is taken a little below that of G.711, since its
    /// predictor needs some milliseconds to recover.
    pub const G722: Self = Self { equipment: 0.0, robustness: 20.0 };
    /// Opus at 16 kb/s and more, with concealment; the ITU lists no value, so G.711's is taken.
    pub const OPUS: Self = Self { equipment: 0.0, robustness: 25.1 };
    /// G.729 with annexes A and B (G.113 table I.2: Ie 11, Bpl 19).
    pub const G729: Self = Self { equipment: 11.0, robustness: 19.0 };
    /// G.723.1 at 6.3 kb/s with annex A (G.113 table I.2: Ie 15, Bpl 16.1).
    pub const G723: Self = Self { equipment: 15.0, robustness: 16.1 };
    /// AMR at 12.2 kb/s, which is GSM-EFR (G.113 table I.2: Ie 5, Bpl 10).
    pub const AMR: Self = Self { equipment: 5.0, robustness: 10.0 };
}

/// The mean opinion score, 1.0-4.5, for `loss` (0.0-1.0, packets lost or too late to play) and
/// the delay from mouth to ear (half the round trip, the jitter buffer, and the packet time).
/// Jitter counts by what it causes: late packets and a deeper buffer.
#[must_use]
pub fn mos(codec: Impairment, loss: f32, delay: Duration) -> f32 {
    let delay_ms = (delay.as_micros().min(10_000_000) as f32) / 1000.0;
    // G.107 section 7.4, with the usual straight-line fit of Idd.
    let delay_impairment = 0.024 * delay_ms + 0.11 * (delay_ms - 177.3).max(0.0);
    // G.107 section 7.5, random loss (BurstR = 1).
    let loss_percent = if loss.is_nan() { 0.0 } else { loss.clamp(0.0, 1.0) * 100.0 };
    let equipment = codec.equipment
        + (95.0 - codec.equipment) * loss_percent / (loss_percent + codec.robustness.max(1.0));
    let rating = (93.2 - delay_impairment - equipment).clamp(0.0, 100.0);
    // G.107 annex B.
    let score = 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6;
    score.clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_clean_call_scores_as_the_model_says() {
        let score = mos(Impairment::G711, 0.0, Duration::ZERO);
        assert!((4.40..4.42).contains(&score), "{score}");
        // R = 93.2 - 2.4 for 100 ms.
        let score = mos(Impairment::G711, 0.0, 100 * MS);
        assert!((4.34..4.37).contains(&score), "{score}");
    }

    #[test]
    fn loss_and_delay_only_make_it_worse_and_nothing_leaves_the_scale() {
        let mut last = 5.0;
        for percent in 0..=100u8 {
            let score = mos(Impairment::G722, f32::from(percent) / 100.0, 50 * MS);
            assert!(score <= last && (1.0..=4.5).contains(&score));
            last = score;
        }
        assert!(mos(Impairment::OPUS, 0.05, 400 * MS) < mos(Impairment::OPUS, 0.05, 50 * MS));
        assert!(mos(Impairment::OPUS, 0.05, 50 * MS) < 3.9);
        assert!((1.0..=4.5).contains(&mos(Impairment::G711, f32::NAN, Duration::MAX)));
    }
}
