//! Tells one or two steady sines (ringback, busy, DTMF, beeps) from everything else: what a few
//! samples say of one a millisecond later, by weights fitted to the frame before, is all of a sine
//! and little of a voice, whose resonances have half died away by then and are struck anew.

/// Remembers the predictor of the frame before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tonality {
    taps: Option<[f64; TAPS]>,
}

/// Two taps predict one sine.
const TAPS: usize = 4;
/// How long before the predicted sample each tap lies, in samples at 8 kHz: below the shortest
/// period of a voice, and wide enough apart to tell 440 from 480 Hz.
const DELAYS: [usize; TAPS] = [8, 12, 16, 20];
const SPAN: usize = 21;
/// What the predictor leaves of a tone, as a share of its power, at most: -20 dB lets G.711 and
/// line noise pass.
const REST_MAX: f64 = 0.01;

impl Tonality {
    /// Whether `frame` goes on as a predictor of the frame before says. Silence is no tone.
    pub(crate) fn is_tone(&mut self, frame: &[i16]) -> bool {
        let is_tone = self.taps.is_some_and(|taps| rest(frame, &taps) < REST_MAX);
        self.taps = fit(frame);
        is_tone
    }
}

/// The share of the power of `frame` that a predictor made of the frame `before` leaves; 1 where
/// there is none.
pub(crate) fn unpredicted(before: &[i16], frame: &[i16]) -> f64 {
    fit(before).map_or(1.0, |taps| rest(frame, &taps))
}

/// The sample at the end of a window, and those that predict it.
fn parts(window: &[i16; SPAN]) -> (f64, [f64; TAPS]) {
    (f64::from(window[SPAN - 1]), DELAYS.map(|delay| f64::from(window[SPAN - 1 - delay])))
}

/// The share of the power of `frame` that the prediction leaves.
fn rest(frame: &[i16], taps: &[f64; TAPS]) -> f64 {
    let (mut left, mut power) = (0.0, 0.0);
    for window in frame.array_windows() {
        let (now, past) = parts(window);
        let predicted: f64 = taps.iter().zip(past).map(|(tap, sample)| tap * sample).sum();
        left += (now - predicted).powi(2);
        power += now * now;
    }
    if power > 0.0 { left / power } else { 1.0 }
}

/// The least-squares predictor of `frame`; `None` for silence.
fn fit(frame: &[i16]) -> Option<[f64; TAPS]> {
    // The normal equations, with their right-hand side in the last column.
    let mut m = [[0.0; TAPS + 1]; TAPS];
    for window in frame.array_windows() {
        let (now, past) = parts(window);
        for (row, &sample) in m.iter_mut().zip(&past) {
            for (cell, other) in row.iter_mut().zip(past.iter().chain([&now])) {
                *cell += sample * other;
            }
        }
    }
    let power: f64 = (0..TAPS).map(|i| m[i][i]).sum();
    if power == 0.0 {
        return None;
    }
    for (i, row) in m.iter_mut().enumerate() {
        row[i] += power * 1e-6; // a little white noise, so that one sine can be solved too
    }
    // Gaussian elimination; the matrix is positive definite, so that no pivot is zero.
    for column in 0..TAPS {
        let pivot = m[column];
        for row in m.iter_mut().skip(column + 1) {
            let factor = row[column] / pivot[column];
            for (cell, above) in row.iter_mut().zip(pivot) {
                *cell -= factor * above;
            }
        }
    }
    let mut taps = [0.0; TAPS];
    for i in (0..TAPS).rev() {
        let known: f64 = (i + 1..TAPS).map(|j| m[i][j] * taps[j]).sum();
        taps[i] = (m[i][TAPS] - known) / m[i][i];
    }
    Some(taps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{noise, sine, speech};

    fn tonal_frames(pcm: &[i16]) -> usize {
        let mut tonality = Tonality::default();
        pcm.chunks_exact(128).filter(|frame| tonality.is_tone(frame)).count()
    }

    #[test]
    fn one_sine_and_two_are_tones_from_the_second_frame_on() {
        for hz in [50.0, 425.0, 1000.0, 2100.0, 3300.0] {
            let mut pcm = sine(8000, hz, 3000.0, 1280);
            assert_eq!(tonal_frames(&pcm), 9, "{hz}");
            crate::mix::add(&mut pcm, &sine(8000, 1336.0, 3000.0, 1280));
            assert_eq!(tonal_frames(&pcm), 9, "{hz} and 1336");
        }
        let mut pcm = sine(8000, 440.0, 3000.0, 1280);
        crate::mix::add(&mut pcm, &sine(8000, 480.0, 3000.0, 1280));
        assert_eq!(tonal_frames(&pcm), 9);
    }

    #[test]
    fn silence_noise_and_voices_are_none() {
        assert_eq!(tonal_frames(&[0; 1280]), 0);
        assert_eq!(tonal_frames(&[1, 2, 3]), 0);
        assert_eq!(tonal_frames(&[i16::MIN; 1280]), 9, "a constant goes on as it was");
        assert_eq!(tonal_frames(&noise(12_800, 5000.0, 1)), 0);
        for seed in 0..8 {
            let voice = speech(8000, 8.0, 9000.0, seed);
            assert!(tonal_frames(&voice) < 10, "{} of 500", tonal_frames(&voice));
        }
    }
}
