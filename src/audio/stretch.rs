//! Changing the duration of speech without changing its pitch, by cutting or repeating one period
//! where the signal is like itself or quiet. For a jitter buffer whose delay must shrink or grow;
//! how much and when is decided there.

use crate::level::dbfs;
use crate::level::to_sample;
use crate::pitch;
use crate::{SampleRate, ShortOutput, room};

/// Which way to change the duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Leave it as it is.
    Keep,
    /// Play faster: the delay shrinks.
    Shrink,
    /// Play slower: the delay grows.
    Grow,
}

/// Changes the duration of one stream.
pub struct Stretcher {
    rate: SampleRate,
    /// The last 15 ms that were played, then the frame at hand.
    window: Box<[i16]>,
    /// Whether the window holds them; they are needed to grow only.
    is_current: bool,
}

/// Periods from 15 ms (66 Hz) to 2.5 ms (400 Hz), in tenths of a millisecond.
const LAG_MAX: usize = 150;
const LAG_MIN: usize = 25;
/// The cross-fade, and the window that is compared for it.
const OVERLAP: usize = 50;
/// From this similarity on the cut is not heard.
const SIMILAR: f32 = 0.85;
/// Below this level nothing is heard anyway.
const QUIET_DBFS: f32 = -50.0;
/// The longest frame that is changed; a longer one passes as it is.
const FRAME_MS_MAX: u32 = 120;

impl Stretcher {
    /// A stretcher of a stream at `rate`.
    #[must_use]
    pub fn new(rate: SampleRate) -> Self {
        let size = rate.samples(1) * LAG_MAX / 10 + rate.samples(FRAME_MS_MAX);
        Self { rate, window: vec![0; size].into(), is_current: true }
    }

    /// The most samples that `input` samples can become: 15 ms more.
    #[must_use]
    pub const fn output_len(&self, input: usize) -> usize {
        input.saturating_add(self.span(LAG_MAX))
    }

    /// Passes `input` on, one period (2.5 to 15 ms) shorter or longer where `pace` asks for it and
    /// the signal allows it; returns the samples written, at least one. Takes frames of 20 to
    /// 120 ms; others pass unchanged, as does the first to grow after one that kept its pace.
    ///
    /// # Errors
    /// When `out` is shorter than [`Stretcher::output_len`]; nothing is consumed then.
    pub fn process(
        &mut self,
        pace: Pace,
        input: &[i16],
        out: &mut [i16],
    ) -> Result<usize, ShortOutput> {
        let out = room(out, self.output_len(input.len()))?;
        if pace == Pace::Keep {
            out[..input.len()].copy_from_slice(input);
            self.keep();
            return Ok(input.len());
        }
        let past = self.span(LAG_MAX);
        let fits = (self.rate.samples(20)..=self.rate.samples(FRAME_MS_MAX)).contains(&input.len());
        if fits {
            self.window[past..past + input.len()].copy_from_slice(input);
        }
        let change = match pace {
            Pace::Shrink if fits => self.period(past, 0, input.len()),
            Pace::Grow if fits && self.is_current => self.period(past, past, input.len()),
            _ => None,
        };
        let written = match (pace, change) {
            (Pace::Shrink, Some(lag)) => self.blend(input, &input[lag..], out),
            (Pace::Grow, Some(lag)) => {
                let again = &self.window[past - lag..past + input.len()];
                self.blend(input, again, out)
            }
            _ => {
                out[..input.len()].copy_from_slice(input);
                input.len()
            }
        };
        self.remember(&out[..written]);
        Ok(written)
    }

    /// The same as [`Stretcher::process`] at [`Pace::Keep`], of a frame that is where it belongs.
    pub const fn keep(&mut self) {
        self.is_current = false;
    }

    const fn span(&self, tenths: usize) -> usize {
        self.rate.samples(1) * tenths / 10
    }

    /// The period by which the frame may be changed: from `past - back` on the signal must be like
    /// itself a period later (`back` is 0), or the frame's start like what was a period before.
    fn period(&self, past: usize, back: usize, len: usize) -> Option<usize> {
        let (overlap, lags) = (self.span(OVERLAP), self.span(LAG_MIN)..=self.span(LAG_MAX));
        let best = if back == 0 {
            pitch::find(&self.window[..past + len], past, overlap, lags)?
        } else {
            // `find` looks forward only; each lag has its own start here.
            lags.filter_map(|lag| {
                pitch::find(&self.window[..past + overlap], past - lag, overlap, lag..=lag)
            })
            .max_by(|a, b| a.similarity.total_cmp(&b.similarity))?
        };
        let start = past - if back == 0 { 0 } else { best.lag };
        let touched = &self.window[start..start + best.lag + overlap];
        (best.similarity >= SIMILAR || dbfs(touched) < QUIET_DBFS).then_some(best.lag)
    }

    /// Writes `from`, fading into `into` over the overlap, and the rest of `into`.
    fn blend(&self, from: &[i16], into: &[i16], out: &mut [i16]) -> usize {
        let overlap = self.span(OVERLAP).min(from.len()).min(into.len());
        for (i, out) in out[..overlap].iter_mut().enumerate() {
            let share = (i + 1) as f32 / (overlap + 1) as f32;
            *out = to_sample(f32::from(from[i]) * (1.0 - share) + f32::from(into[i]) * share);
        }
        out[overlap..into.len()].copy_from_slice(&into[overlap..]);
        into.len()
    }

    /// Keeps the last samples that were played in front of the next frame.
    fn remember(&mut self, played: &[i16]) {
        let past = self.span(LAG_MAX);
        if let Some(tail) = played.len().checked_sub(past) {
            self.window[..past].copy_from_slice(&played[tail..]);
            self.is_current = true;
        } else if self.is_current {
            self.window.copy_within(played.len()..past, 0);
            self.window[past - played.len()..past].copy_from_slice(played);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{largest_step, noise, power_db, sine, speech};

    fn run(rate: SampleRate, pace: Pace, pcm: &[i16]) -> Vec<i16> {
        let mut stretcher = Stretcher::new(rate);
        let mut out = Vec::new();
        let mut buffer = vec![0; stretcher.output_len(rate.samples(20))];
        for frame in pcm.chunks(rate.samples(20)) {
            let written = stretcher.process(pace, frame, &mut buffer).unwrap();
            out.extend_from_slice(&buffer[..written]);
        }
        out
    }

    #[test]
    fn keeping_the_pace_changes_nothing() {
        let pcm = speech(16_000, 0.5, 9000.0, 1);
        assert_eq!(run(SampleRate::Hz16000, Pace::Keep, &pcm), pcm);
    }

    #[test]
    fn a_tone_gets_shorter_or_longer_at_the_same_pitch_without_a_step() {
        for rate in [SampleRate::Hz8000, SampleRate::Hz16000] {
            for hz in [110.0, 200.0, 440.0, 1010.0] {
                let pcm = sine(rate.hz(), hz, 8000.0, rate.samples(1000));
                for pace in [Pace::Shrink, Pace::Grow] {
                    let out = run(rate, pace, &pcm);
                    let change = out.len() as f64 / pcm.len() as f64;
                    let expected = if pace == Pace::Shrink { 0.2..0.9 } else { 1.1..1.8 };
                    assert!(expected.contains(&change), "{rate:?} {hz} {pace:?}: {change}");
                    assert!(largest_step(&out) <= largest_step(&pcm) * 11 / 10 + 2);
                    let kept = power_db(&out, rate.hz(), hz) - power_db(&pcm, rate.hz(), hz);
                    assert!(kept.abs() < 1.0, "{rate:?} {hz} {pace:?}: {kept:.2} dB");
                }
            }
        }
    }

    #[test]
    fn speech_changes_its_duration_without_harder_steps() {
        let rate = SampleRate::Hz8000;
        let pcm = speech(8000, 3.0, 12_000.0, 5);
        let (short, long) = (run(rate, Pace::Shrink, &pcm), run(rate, Pace::Grow, &pcm));
        assert!(short.len() < pcm.len() * 85 / 100, "{}", short.len());
        assert!(long.len() > pcm.len() * 115 / 100, "{}", long.len());
        for out in [short, long] {
            assert!(largest_step(&out) <= largest_step(&pcm) * 11 / 10);
        }
    }

    #[test]
    fn loud_noise_is_left_alone_and_a_quiet_pause_is_not() {
        let rate = SampleRate::Hz8000;
        let loud = noise(8000, 9000.0, 6);
        assert_eq!(run(rate, Pace::Shrink, &loud), loud);
        let quiet = noise(8000, 60.0, 6);
        assert!(run(rate, Pace::Shrink, &quiet).len() < 7000);
        assert!(run(rate, Pace::Grow, &[0; 8000]).len() > 8500);
    }

    #[test]
    fn growing_begins_one_frame_after_a_pace_that_was_kept() {
        let rate = SampleRate::Hz8000;
        let pcm = sine(8000, 200.0, 8000.0, 800);
        let mut stretcher = Stretcher::new(rate);
        let mut out = vec![0; stretcher.output_len(160)];
        let paces = [Pace::Keep, Pace::Grow, Pace::Grow, Pace::Keep, Pace::Shrink];
        let written = pcm.chunks(160).zip(paces).map(|(frame, pace)| {
            let written = stretcher.process(pace, frame, &mut out).unwrap();
            written.cmp(&160) as i8
        });
        assert_eq!(written.collect::<Vec<_>>(), [0, 0, 1, 0, -1]);
    }

    #[test]
    fn frames_out_of_range_pass_and_a_short_output_is_refused() {
        let rate = SampleRate::Hz8000;
        let mut stretcher = Stretcher::new(rate);
        for size in [0, 1, 159, 961, 5000] {
            let pcm = sine(8000, 200.0, 5000.0, size);
            let mut out = vec![0; stretcher.output_len(size)];
            for pace in [Pace::Shrink, Pace::Grow] {
                assert_eq!(stretcher.process(pace, &pcm, &mut out), Ok(size));
                assert_eq!(out[..size], pcm);
            }
        }
        let error = stretcher.process(Pace::Grow, &[0; 160], &mut [0; 160]);
        assert_eq!(error, Err(ShortOutput { needed: 280 }));
    }
}
