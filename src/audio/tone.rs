//! Call-progress tones, beeps and DTMF: one or two sines with a cadence and soft edges.

use crate::level::{from_db, to_sample};
use crate::{Key, SampleRate};
use core::f64::consts::TAU;

/// A tone of one or two sines, with a cadence.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tone {
    /// The sines, in Hz; 0 is none.
    pub hz: [f32; 2],
    /// The level of each sine, in dBm0 (3.14 dBm0 is a sine at full scale, ITU-T G.711).
    pub dbm0: [f32; 2],
    /// How long it sounds, in milliseconds.
    pub on_ms: u32,
    /// The pause after it, in milliseconds.
    pub off_ms: u32,
    /// How often it sounds; `None` is without end.
    pub repeats: Option<u32>,
}

impl Tone {
    /// Ringback of North America.
    pub const RINGBACK_US: Self =
        Self { hz: [440.0, 480.0], dbm0: [-19.0; 2], on_ms: 2000, off_ms: 4000, repeats: None };
    /// Ringback of most of Europe.
    pub const RINGBACK_EU: Self =
        Self { hz: [425.0, 0.0], dbm0: [-13.0; 2], on_ms: 1000, off_ms: 4000, repeats: None };
    /// Busy of North America.
    pub const BUSY_US: Self =
        Self { hz: [480.0, 620.0], dbm0: [-24.0; 2], on_ms: 500, off_ms: 500, repeats: None };
    /// Busy of most of Europe.
    pub const BUSY_EU: Self =
        Self { hz: [425.0, 0.0], dbm0: [-13.0; 2], on_ms: 500, off_ms: 500, repeats: None };
    /// One beep, as before a recording.
    pub const BEEP: Self =
        Self { hz: [1000.0, 0.0], dbm0: [-13.0; 2], on_ms: 200, off_ms: 0, repeats: Some(1) };

    /// A key at the levels that ITU-T Q.23 leaves to administrations: -9 dBm0 for the low group
    /// and -7 for the high one, which lines weaken more. Q.24 wants at least 40 ms of each.
    #[must_use]
    pub fn dtmf(key: Key, on_ms: u32, off_ms: u32) -> Self {
        Self { hz: key.hz(), dbm0: [-9.0, -7.0], on_ms, off_ms, repeats: Some(1) }
    }
}

/// Plays a [`Tone`].
#[derive(Clone, Debug)]
pub struct ToneGenerator {
    /// The phase and its step, in turns, and the amplitude of each sine.
    sines: [(f64, f64, f64); 2],
    on: usize,
    period: usize,
    ramp: usize,
    at: usize,
    remaining: Option<u32>,
}

/// The rise and fall of an edge, which would click without.
const RAMP_MS: u32 = 3;
/// A sine at full scale, in dBm0 (ITU-T G.711 section 4, A-law).
#[allow(clippy::approx_constant, reason = "a level of the recommendation, not pi")]
const FULL_SCALE_DBM0: f32 = 3.14;

impl ToneGenerator {
    /// A generator at the start of `tone`.
    #[must_use]
    pub fn new(tone: &Tone, rate: SampleRate) -> Self {
        let sines = core::array::from_fn(|i| {
            let step = f64::from(tone.hz[i]) / f64::from(rate.hz());
            let amplitude = 32_767.0 * from_db(tone.dbm0[i].min(FULL_SCALE_DBM0) - FULL_SCALE_DBM0);
            // A sine that is none, or that the rate cannot hold, is silent.
            let is_there = step > 0.0 && step < 0.5;
            if is_there { (0.0, step, f64::from(amplitude)) } else { (0.0, 0.0, 0.0) }
        });
        let on = rate.samples(tone.on_ms);
        let period = on.saturating_add(rate.samples(tone.off_ms));
        let remaining = if period == 0 { Some(0) } else { tone.repeats };
        Self { sines, on, period, ramp: rate.samples(RAMP_MS), at: 0, remaining }
    }

    /// Ends the tone softly from here on.
    pub const fn release(&mut self) {
        if self.at >= self.on {
            self.remaining = Some(0);
            return;
        }
        let end = self.at.saturating_add(self.ramp);
        if end < self.on {
            self.on = end;
        }
        self.period = self.on;
        if !self.is_over() {
            self.remaining = Some(1);
        }
    }

    /// Whether nothing is left to play.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        matches!(self.remaining, Some(0))
    }

    /// Fills `out`; returns how many samples belong to the tone (pauses included), the rest is
    /// silence.
    pub fn fill(&mut self, out: &mut [i16]) -> usize {
        let mut filled = 0;
        for sample in out.iter_mut() {
            *sample = 0;
            if self.is_over() {
                continue;
            }
            filled += 1;
            if self.at < self.on {
                *sample = self.next();
            }
            self.at += 1;
            if self.at == self.period {
                self.at = 0;
                self.remaining = self.remaining.map(|left| left - 1);
            }
        }
        filled
    }

    fn next(&mut self) -> i16 {
        let edge = (self.at + 1).min(self.on - self.at).min(self.ramp);
        let gain = edge as f64 / self.ramp as f64;
        let mut sum = 0.0;
        for (phase, step, amplitude) in &mut self.sines {
            sum += *amplitude * (TAU * *phase).sin();
            *phase = (*phase + *step).fract();
        }
        to_sample((sum * gain) as f32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::{dbfs, peak};
    use crate::signals::{largest_step, power_db};

    fn play(tone: &Tone, rate: SampleRate, millis: u32) -> Vec<i16> {
        let mut out = vec![1; rate.samples(millis)];
        ToneGenerator::new(tone, rate).fill(&mut out);
        out
    }

    #[test]
    fn each_key_is_its_two_sines_at_their_levels_and_nothing_else() {
        for rate in SampleRate::ALL {
            for key in Key::all() {
                let out = play(&Tone::dtmf(key, 500, 0), rate, 480);
                let full = 20.0 * 32_767f64.log10();
                for (hz, dbm0) in key.hz().into_iter().zip([-9.0, -7.0]) {
                    let level =
                        power_db(&out, rate.hz(), hz.into()) - full + f64::from(FULL_SCALE_DBM0);
                    assert!((level - dbm0).abs() < 0.2, "{rate:?} {key:?} {hz}: {level}");
                }
                let between = power_db(&out, rate.hz(), 1070.0) - full;
                assert!(between < -60.0, "{between}");
            }
        }
    }

    #[test]
    fn the_cadence_repeats_and_ends() {
        let tone = Tone { on_ms: 100, off_ms: 50, repeats: Some(2), ..Tone::BEEP };
        let mut generator = ToneGenerator::new(&tone, SampleRate::Hz8000);
        let mut out = vec![1; 4000];
        assert_eq!(generator.fill(&mut out), 2400);
        assert!(generator.is_over());
        assert!(dbfs(&out[40..760]) > -25.0 && dbfs(&out[1240..1960]) > -25.0);
        assert_eq!(peak(&out[800..1200]) + peak(&out[2000..]), 0);
        assert_eq!(generator.fill(&mut out), 0);
    }

    #[test]
    fn ringback_never_ends_and_frames_join() {
        let whole = play(&Tone::RINGBACK_US, SampleRate::Hz16000, 7000);
        let mut generator = ToneGenerator::new(&Tone::RINGBACK_US, SampleRate::Hz16000);
        let mut frames = vec![0; whole.len()];
        frames.chunks_mut(320).for_each(|frame| assert_eq!(generator.fill(frame), 320));
        assert_eq!(frames, whole);
        assert_eq!(peak(&whole[32_000..96_000]), 0);
        assert!(peak(&whole[96_000..]) > 1000);
    }

    #[test]
    fn a_tone_that_is_released_ends_softly() {
        for at in [1, 100, 1599, 1700] {
            let mut generator = ToneGenerator::new(&Tone::BEEP, SampleRate::Hz8000);
            let mut out = vec![0; 1000];
            generator.fill(&mut out[..at.min(1000)]);
            generator.fill(&mut vec![0; at.saturating_sub(1000)]);
            generator.release();
            let mut rest = vec![0; 100];
            let filled = generator.fill(&mut rest);
            assert!(filled <= 24 && generator.is_over(), "{at}: {filled}");
            assert!(largest_step(&rest) < 9_000, "{at}");
            generator.release();
            assert_eq!(generator.fill(&mut rest), 0);
        }
    }

    #[test]
    fn edges_are_soft() {
        let out = play(&Tone { on_ms: 53, ..Tone::BEEP }, SampleRate::Hz16000, 100);
        let steady = largest_step(&out[200..700]);
        assert!(largest_step(&out) <= steady + 1);
        assert!(out[0].abs() < 100);
    }

    #[test]
    fn a_tone_without_duration_is_over_and_impossible_pitches_are_silent() {
        let none = Tone { on_ms: 0, off_ms: 0, repeats: None, ..Tone::BEEP };
        assert!(ToneGenerator::new(&none, SampleRate::Hz8000).is_over());
        let shrill = Tone { hz: [4000.0, f32::NAN], dbm0: [f32::NAN, 0.0], ..Tone::BEEP };
        assert_eq!(peak(&play(&shrill, SampleRate::Hz8000, 300)), 0);
        let loud = Tone { dbm0: [90.0; 2], hz: [440.0, 480.0], ..Tone::BEEP };
        assert!(peak(&play(&loud, SampleRate::Hz8000, 200)) >= 32_767, "saturated, not wrapped");
    }
}
