//! Changing the sample rate by a polyphase FIR filter: linear phase, state kept across frames.

use crate::level::to_sample;
use crate::{ShortOutput, room};
use core::f64::consts::PI;

/// The rates of audio inside callgate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SampleRate {
    /// 8 kHz, narrowband.
    Hz8000,
    /// 16 kHz, wideband; what recognisers and voices use.
    Hz16000,
    /// 24 kHz.
    Hz24000,
    /// 32 kHz.
    Hz32000,
    /// 48 kHz, fullband; the clock of Opus.
    Hz48000,
}

impl SampleRate {
    /// Every rate, ascending.
    pub const ALL: [Self; 5] =
        [Self::Hz8000, Self::Hz16000, Self::Hz24000, Self::Hz32000, Self::Hz48000];

    /// Samples per second.
    #[must_use]
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8_000,
            Self::Hz16000 => 16_000,
            Self::Hz24000 => 24_000,
            Self::Hz32000 => 32_000,
            Self::Hz48000 => 48_000,
        }
    }

    /// The rate of so many samples per second.
    #[must_use]
    pub fn from_hz(hz: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|rate| rate.hz() == hz)
    }

    /// Samples in `millis` milliseconds; saturates.
    #[must_use]
    pub const fn samples(self, millis: u32) -> usize {
        (self.hz() as usize / 1000).saturating_mul(millis as usize)
    }
}

/// Changes the rate of one stream. Flat within 0.1 dB up to 0.42 of the lower rate, and at least
/// 60 dB down from half of it on.
pub struct Resampler {
    from: SampleRate,
    to: SampleRate,
    /// Output samples per `down` input samples.
    up: usize,
    down: usize,
    /// `up` phases of `taps_per_phase` taps, each ordered from the oldest sample to the newest.
    taps: Box<[f32]>,
    taps_per_phase: usize,
    /// Where the filter's centre lies, in steps of its own rate.
    centre: usize,
    /// The last `taps_per_phase - 1` samples of the stream, then the block at hand.
    window: Box<[f32]>,
    /// Where the next output lies after the start of the next block, in input samples and phases.
    position: usize,
    phase: usize,
}

/// Input samples filtered in one go; only a matter of speed.
const BLOCK: usize = 480;

/// The stop band, in dB; 6 more than promised, since 16 bits round.
const ATTENUATION_DB: f64 = 70.0;
/// The edges of pass and stop band, relative to the lower rate.
const PASS: f64 = 0.42;
const STOP: f64 = 0.5;

impl Resampler {
    /// A resampler; designs its filter here and allocates nothing later. Equal rates pass through.
    #[must_use]
    pub fn new(from: SampleRate, to: SampleRate) -> Self {
        let common = gcd(from.hz(), to.hz());
        let (up, down) = ((to.hz() / common) as usize, (from.hz() / common) as usize);
        let (taps, centre) = if from == to { (Box::default(), 0) } else { design(up, down) };
        let taps_per_phase = (taps.len() / up).max(1);
        let window = vec![0.0; taps_per_phase - 1 + BLOCK].into();
        Self { from, to, up, down, taps, taps_per_phase, centre, window, position: 0, phase: 0 }
    }

    /// The rate that goes in.
    #[must_use]
    pub const fn input_rate(&self) -> SampleRate {
        self.from
    }

    /// The rate that comes out.
    #[must_use]
    pub const fn output_rate(&self) -> SampleRate {
        self.to
    }

    /// The most samples that `input` samples can become; exact for whole milliseconds.
    #[must_use]
    pub const fn output_len(&self, input: usize) -> usize {
        input.saturating_mul(self.up).div_ceil(self.down)
    }

    /// The delay of the filter, in output samples, exactly; it is a whole number of input samples
    /// too, and about 3.4 ms where the lower rate is 8 kHz.
    #[must_use]
    pub const fn delay(&self) -> usize {
        self.centre / self.down
    }

    /// Resamples `input`, continuing the stream; returns the samples written.
    ///
    /// # Errors
    /// When `out` is shorter than [`Resampler::output_len`]; nothing is consumed then.
    pub fn process(&mut self, input: &[i16], out: &mut [i16]) -> Result<usize, ShortOutput> {
        let out = room(out, self.output_len(input.len()))?;
        if self.taps.is_empty() {
            out.copy_from_slice(input);
            return Ok(out.len());
        }
        let mut out = out.iter_mut();
        let mut written = 0;
        let past = self.taps_per_phase - 1;
        for block in input.chunks(BLOCK) {
            for (held, &sample) in self.window[past..].iter_mut().zip(block) {
                *held = f32::from(sample);
            }
            while self.position < block.len() {
                let taps = &self.taps[self.phase * self.taps_per_phase..][..self.taps_per_phase];
                let samples = &self.window[self.position..][..self.taps_per_phase];
                if let Some(out) = out.next() {
                    *out = to_sample(dot(taps, samples));
                    written += 1;
                }
                self.phase += self.down;
                self.position += self.phase / self.up;
                self.phase %= self.up;
            }
            self.position -= block.len();
            self.window.copy_within(block.len()..block.len() + past, 0);
        }
        Ok(written)
    }

    /// Forgets the stream, as at a jump in its time.
    pub fn reset(&mut self) {
        self.window.fill(0.0);
        (self.position, self.phase) = (0, 0);
    }
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// A low-pass filter by a Kaiser-windowed sinc, split into `up` phases; and where its centre lies.
/// It runs at `up` times the rate of the input.
fn design(up: usize, down: usize) -> (Box<[f32]>, usize) {
    let lower = 1.0 / up.max(down) as f64; // the lower rate, relative to the filter's
    let transition = 2.0 * PI * (STOP - PASS) * lower;
    let half_length = (ATTENUATION_DB - 7.95) / (2.285 * transition) / 2.0;
    // A multiple of both makes the delay a whole number of samples on either side.
    let centre = (half_length / (up * down) as f64).ceil() as usize * up * down;
    let taps_per_phase = (2 * centre + 1).div_ceil(up);
    let cutoff = (STOP + PASS) / 2.0 * lower; // in cycles per sample
    let beta = 0.1102 * (ATTENUATION_DB - 8.7);
    let tap = |i: usize| {
        let x = i as f64 - centre as f64;
        let sinc = if x == 0.0 { 2.0 * cutoff } else { (2.0 * PI * cutoff * x).sin() / (PI * x) };
        let edge = 1.0 - (x / centre as f64).powi(2);
        if edge < 0.0 { 0.0 } else { sinc * bessel_i0(beta * edge.sqrt()) }
    };
    let mut taps = Vec::with_capacity(taps_per_phase * up);
    for phase in 0..up {
        let row: Vec<f64> = (0..taps_per_phase).rev().map(|j| tap(phase + j * up)).collect();
        // Each phase passes a constant unchanged, so that no phase ripples against the others.
        let sum: f64 = row.iter().sum();
        taps.extend(row.iter().map(|tap| (tap / sum) as f32));
    }
    (taps.into(), centre)
}

/// The modified Bessel function of the first kind and order zero.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..50 {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
    }
    sum
}

/// The inner product, in eight lanes so that the compiler can use vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<8>();
    let (b_chunks, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::{aligned_snr_db, noise, power_db, sine, speech};

    fn convert(from: SampleRate, to: SampleRate, pcm: &[i16], frame: usize) -> Vec<i16> {
        let mut resampler = Resampler::new(from, to);
        let mut out = Vec::new();
        for chunk in pcm.chunks(frame) {
            let mut buffer = vec![0; resampler.output_len(chunk.len())];
            let written = resampler.process(chunk, &mut buffer).unwrap();
            out.extend_from_slice(&buffer[..written]);
        }
        out
    }

    fn pairs() -> impl Iterator<Item = (SampleRate, SampleRate)> {
        SampleRate::ALL
            .into_iter()
            .flat_map(|from| SampleRate::ALL.into_iter().map(move |to| (from, to)))
    }

    #[test]
    fn the_pass_band_is_flat_for_every_pair_of_rates() {
        for (from, to) in pairs() {
            let lower = f64::from(from.hz().min(to.hz()));
            for share in [0.01, 0.1, 0.25, 0.35, 0.42] {
                let tone = sine(from.hz(), share * lower, 10_000.0, from.samples(250));
                let out = convert(from, to, &tone, from.samples(20));
                assert_eq!(out.len(), to.samples(250));
                let gain = power_db(&out[to.samples(20)..], to.hz(), share * lower) - 80.0;
                assert!(gain.abs() < 0.1, "{from:?} to {to:?} at {share}: {gain:.3} dB");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_60_db_down() {
        for (from, to) in pairs().filter(|(from, to)| from > to) {
            for share in [0.5, 0.52, 0.6, 0.8, 0.95] {
                let hz = share * f64::from(to.hz());
                if hz > 0.49 * f64::from(from.hz()) {
                    continue;
                }
                let tone = sine(from.hz(), hz, 30_000.0, from.samples(250));
                let out = convert(from, to, &tone, from.samples(20));
                let folded = f64::from(to.hz()) - hz;
                let rest = power_db(&out[to.samples(20)..], to.hz(), folded) - 89.54;
                assert!(rest < -60.0, "{from:?} to {to:?} at {share}: {rest:.1} dB");
            }
        }
    }

    #[test]
    fn images_above_the_lower_rate_are_60_db_down() {
        for (from, to) in pairs().filter(|(from, to)| from < to) {
            let hz = 0.3 * f64::from(from.hz());
            let tone = sine(from.hz(), hz, 30_000.0, from.samples(250));
            let out = convert(from, to, &tone, from.samples(20));
            let image = f64::from(from.hz()) - hz;
            let rest = power_db(&out[to.samples(20)..], to.hz(), image) - 89.54;
            assert!(rest < -60.0, "{from:?} to {to:?}: {rest:.1} dB");
        }
    }

    #[test]
    fn frames_join_without_a_trace() {
        for (from, to) in pairs() {
            let pcm = noise(from.samples(200), 20_000.0, 3);
            let whole = convert(from, to, &pcm, pcm.len());
            for frame in [1, 7, from.samples(10), 1001] {
                assert_eq!(convert(from, to, &pcm, frame), whole, "{from:?} to {to:?} by {frame}");
            }
        }
    }

    #[test]
    fn up_and_down_again_is_the_same_speech_later() {
        for (low, high) in pairs().filter(|(low, high)| low < high) {
            let pcm = speech(low.hz(), 1.0, 12_000.0, 2);
            let up = convert(low, high, &pcm, low.samples(20));
            let back = convert(high, low, &up, high.samples(20));
            let snr = aligned_snr_db(&pcm, &back, low.samples(10));
            assert!(snr > 40.0, "{low:?} over {high:?}: {snr:.1} dB");
        }
    }

    #[test]
    fn the_delay_is_as_stated() {
        for (from, to) in pairs() {
            let mut pcm = vec![0; from.samples(60)];
            pcm[from.samples(20)..from.samples(40)].fill(10_000);
            let out = convert(from, to, &pcm, pcm.len());
            let risen = out.iter().position(|&s| s > 5000).unwrap() - to.samples(20);
            let delay = Resampler::new(from, to).delay();
            let tolerance = to.hz().div_ceil(from.hz()) as usize;
            assert!(risen.abs_diff(delay) <= tolerance, "{from:?} {to:?} {risen} {delay}");
        }
    }

    #[test]
    fn full_scale_saturates_and_a_short_output_consumes_nothing() {
        let square: Vec<i16> =
            (0..1600).map(|i| if i / 20 % 2 == 0 { i16::MAX } else { i16::MIN }).collect();
        let out = convert(SampleRate::Hz8000, SampleRate::Hz16000, &square, 160);
        assert_eq!(out.iter().max(), Some(&i16::MAX));
        let mut resampler = Resampler::new(SampleRate::Hz8000, SampleRate::Hz48000);
        let error = resampler.process(&square, &mut [0; 100]);
        assert_eq!(error, Err(ShortOutput { needed: 9600 }));
        let mut first = [0; 960];
        let mut again = [0; 960];
        assert_eq!(resampler.process(&square[..160], &mut first), Ok(960));
        resampler.reset();
        assert_eq!(resampler.process(&square[..160], &mut again), Ok(960));
        assert_eq!(first, again);
    }
}
