//! Packet loss concealment of waveform codecs: the last pitch period is repeated and fades over
//! 60 ms into noise at the level of the background; when audio returns, the two are cross-faded.
//! It adds no delay. In the manner of ITU-T G.711 appendix I, but not bit-exact with it.

use crate::SampleRate;
use crate::level::{mean_power, rms_of_dbfs, to_sample};
use crate::lpc::White;
use crate::pitch;

/// Conceals the lost packets of one stream.
pub struct Concealer {
    rate: SampleRate,
    /// The last 40 ms that were played, and where the oldest of them are, which the next ones
    /// replace.
    history: Box<[i16]>,
    oldest: usize,
    /// The period that is repeated, and where in it the next sample lies.
    cycle: Box<[f32]>,
    cycle_len: usize,
    cycle_at: usize,
    /// Samples concealed since the last received one; `None` while nothing is lost.
    lost: Option<usize>,
    /// How far the first repeated sample is off what was played last; fades out.
    offset: f32,
    /// How long the repetition stays at full level, in samples.
    hold: usize,
    noise: Background,
}

/// The longest period, 66 Hz, and the shortest, 400 Hz, in tenths of a millisecond.
const LAG_MAX: usize = 150;
const LAG_MIN: usize = 25;
/// The window that is compared.
const WINDOW: usize = 150;
/// When the fade is over.
const FADE_END: usize = 600;
/// How long a voiced sound is held before it fades.
const HOLD: usize = 100;
/// How long the join at a loss is smoothed, and the cross-fade at recovery lasts.
const JOIN: usize = 25;
const CROSS_FADE: usize = 50;
/// From this similarity on a sound counts as voiced.
const VOICED: f32 = 0.5;
/// Background noise is never taken for louder than this.
const NOISE_DBFS_MAX: f32 = -50.0;

impl Concealer {
    /// A concealer of a stream at `rate`.
    #[must_use]
    pub fn new(rate: SampleRate) -> Self {
        Self {
            rate,
            history: vec![0; rate.samples(40)].into(),
            oldest: 0,
            cycle: vec![0.0; rate.samples(15)].into(),
            cycle_len: 1,
            cycle_at: 0,
            lost: None,
            offset: 0.0,
            hold: 0,
            noise: Background::new(),
        }
    }

    /// Takes a received frame; after a loss its start is blended with the concealment, in place.
    pub fn received(&mut self, frame: &mut [i16]) {
        if let Some(lost) = self.lost {
            // A longer loss has drifted further from the signal, so that its blend is longer.
            let longest = self.span(CROSS_FADE) + (lost / 8).min(self.span(CROSS_FADE));
            let length = longest.min(frame.len());
            for (i, sample) in frame[..length].iter_mut().enumerate() {
                let share = (i + 1) as f32 / (length + 1) as f32;
                let old = self.next();
                *sample = to_sample(f32::from(*sample) * share + old * (1.0 - share));
            }
            if !frame.is_empty() {
                self.lost = None;
            }
        }
        self.noise.learn(frame, self.rate);
        self.remember(frame);
    }

    /// Fills `out` in place of what was lost.
    pub fn lost(&mut self, out: &mut [i16]) {
        if self.lost.is_none() && !out.is_empty() {
            self.start();
        }
        for sample in out.iter_mut() {
            *sample = to_sample(self.next());
        }
        self.remember(out);
    }

    /// Takes a frame that somebody else put in place of a lost one.
    pub fn replaced(&mut self, frame: &[i16]) {
        self.lost = None;
        self.remember(frame);
    }

    /// Whether the last samples were concealment.
    #[must_use]
    pub const fn is_concealing(&self) -> bool {
        self.lost.is_some()
    }

    /// `tenths` of a millisecond in samples.
    const fn span(&self, tenths: usize) -> usize {
        self.rate.samples(1) * tenths / 10
    }

    /// The mean power of the last frame received.
    pub(crate) const fn power(&self) -> f64 {
        self.noise.power
    }

    /// Finds the period to repeat and makes it join itself without a step.
    fn start(&mut self) {
        self.history.rotate_left(self.oldest);
        self.oldest = 0;
        let end = self.history.len();
        let window = self.span(WINDOW);
        let mut mirrored = [0; 48 * 40];
        // Backwards, so that the newest samples are the reference.
        for (to, from) in mirrored.iter_mut().zip(self.history.iter().rev()) {
            *to = *from;
        }
        let lags = self.span(LAG_MIN)..=self.span(LAG_MAX);
        let period = pitch::find(&mirrored[..end], 0, window, lags);
        let (lag, similarity) =
            period.map_or((self.span(LAG_MAX), 0.0), |period| (period.lag, period.similarity));
        // Without a pitch a short repetition would buzz.
        let lag = if similarity < VOICED { self.span(LAG_MAX) } else { lag };
        self.hold = if similarity < VOICED { 0 } else { self.span(HOLD) };
        self.cycle_len = lag;
        self.cycle_at = 0;
        let quarter = lag / 4;
        for i in 0..lag {
            let sample = f32::from(self.history[end - lag + i]);
            // The last quarter leads over to what came before the period: it can start again.
            let share = (i + quarter + 1).saturating_sub(lag) as f32 / (quarter + 1) as f32;
            let before = f32::from(self.history[end - 2 * lag + i]);
            self.cycle[i] = sample + (before - sample) * share;
        }
        let last = f32::from(self.history[end - 1]);
        self.offset = last - f32::from(self.history[end - 1 - lag]);
        self.lost = Some(0);
    }

    /// The next concealed sample.
    fn next(&mut self) -> f32 {
        let at = self.lost.unwrap_or(0);
        let (hold, end, join) = (self.hold, self.span(FADE_END), self.span(JOIN));
        let gain = 1.0 - at.saturating_sub(hold) as f32 / (end - hold) as f32;
        let gain = gain.max(0.0);
        let repeated = self.cycle[self.cycle_at];
        self.cycle_at = (self.cycle_at + 1) % self.cycle_len;
        let offset = self.offset * (1.0 - at as f32 / join as f32).max(0.0);
        self.lost = Some((at + 1).min(end));
        (repeated + offset) * gain + self.noise.next() * (1.0 - gain)
    }

    fn remember(&mut self, frame: &[i16]) {
        let size = self.history.len();
        let frame = &frame[frame.len().saturating_sub(size)..];
        let (first, second) = frame.split_at(frame.len().min(size - self.oldest));
        self.history[self.oldest..][..first.len()].copy_from_slice(first);
        self.history[..second.len()].copy_from_slice(second);
        self.oldest = (self.oldest + frame.len()) % size;
    }
}

/// The noise behind the voice: the quietest level of late, as noise without sharpness.
struct Background {
    rms: f32,
    /// The mean power of the last frame.
    power: f64,
    white: White,
    smooth: f32,
}

impl Background {
    const fn new() -> Self {
        Self { rms: f32::MAX, power: 0.0, white: White::new(0), smooth: 0.0 }
    }

    fn learn(&mut self, frame: &[i16], rate: SampleRate) {
        if frame.is_empty() {
            return;
        }
        self.power = mean_power(frame);
        let rms = (self.power as f32).sqrt();
        // Down at once, up by 5 dB a second: the voice must not count.
        let millis = frame.len() as f32 / rate.samples(1) as f32;
        let risen = self.rms * (1.0 + 0.0006 * millis) + 0.0005 * millis;
        self.rms = rms.min(risen).min(rms_of_dbfs(NOISE_DBFS_MAX));
    }

    fn next(&mut self) -> f32 {
        let rms = if self.rms == f32::MAX { 0.0 } else { self.rms };
        self.smooth = 0.6 * self.smooth + 0.8 * self.white.next(); // keeps the power
        self.smooth * rms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::{dbfs, peak};
    use crate::signals::{largest_step, noise, power_db, sine, speech};

    const RATES: [SampleRate; 2] = [SampleRate::Hz8000, SampleRate::Hz16000];

    /// Plays `pcm` in frames of 20 ms, of which those in `lost` do not arrive.
    fn play(rate: SampleRate, pcm: &[i16], lost: core::ops::Range<usize>) -> Vec<i16> {
        let mut concealer = Concealer::new(rate);
        let mut out = pcm.to_vec();
        for (i, frame) in out.chunks_mut(rate.samples(20)).enumerate() {
            if lost.contains(&i) { concealer.lost(frame) } else { concealer.received(frame) }
        }
        out
    }

    #[test]
    fn a_stream_without_loss_is_untouched() {
        let pcm = speech(8000, 0.5, 9000.0, 1);
        assert_eq!(play(SampleRate::Hz8000, &pcm, 0..0), pcm);
    }

    #[test]
    fn a_tone_goes_on_through_a_lost_frame_without_a_step() {
        for rate in RATES {
            for hz in [150.0, 333.0, 440.0, 1000.0] {
                let pcm = sine(rate.hz(), hz, 8000.0, rate.samples(400));
                let out = play(rate, &pcm, 10..11);
                let bound = largest_step(&pcm) * 3 / 2 + 200;
                assert!(largest_step(&out) < bound, "{rate:?} {hz}: {}", largest_step(&out));
                let gap = &out[rate.samples(200)..rate.samples(220)];
                assert!((dbfs(gap) - dbfs(&pcm)).abs() < 3.0, "{rate:?} {hz}: {}", dbfs(gap));
                let at = power_db(gap, rate.hz(), hz) - power_db(gap, rate.hz(), hz * 2.5);
                assert!(at > 15.0, "{rate:?} {hz}: the pitch is kept, {at:.1} dB");
            }
        }
    }

    #[test]
    fn speech_has_no_harder_steps_with_losses_than_without() {
        for rate in RATES {
            let pcm = speech(rate.hz(), 2.0, 12_000.0, 4);
            for first in (5..90).step_by(3) {
                for count in [1, 2, 5] {
                    let out = play(rate, &pcm, first..first + count);
                    let bound = largest_step(&pcm) * 6 / 5;
                    let step = largest_step(&out);
                    assert!(step <= bound, "{rate:?} {first}+{count}: {step} {bound}");
                }
            }
        }
    }

    #[test]
    fn a_long_loss_decays_to_the_background_within_60_ms() {
        for rate in RATES {
            let mut pcm = noise(rate.samples(400), 40.0, 2);
            let tone = sine(rate.hz(), 200.0, 9000.0, rate.samples(200));
            crate::mix::add(&mut pcm[rate.samples(200)..], &tone);
            let background = dbfs(&pcm[..rate.samples(200)]);
            pcm.extend(vec![0; rate.samples(400)]);
            let out = play(rate, &pcm, 20..40);
            let level = |from: u32, to: u32| dbfs(&out[rate.samples(from)..rate.samples(to)]);
            assert!(level(400, 410) > level(440, 460) + 3.0);
            assert!((level(460, 800) - background).abs() < 3.0, "{}", level(460, 800));
        }
    }

    #[test]
    fn silence_is_concealed_by_silence() {
        let out = play(SampleRate::Hz8000, &[0; 3200], 5..15);
        assert_eq!(peak(&out), 0);
        let mut concealer = Concealer::new(SampleRate::Hz8000);
        let mut first = [7; 160];
        concealer.lost(&mut first);
        assert_eq!(first, [0; 160], "nothing was ever received");
    }

    #[test]
    fn frames_of_any_size_are_taken() {
        for rate in SampleRate::ALL {
            let mut concealer = Concealer::new(rate);
            for size in [0, 1, 3, 80, 160, 959, 9600] {
                let mut frame = noise(size, 32_767.0, size as u64);
                concealer.received(&mut frame);
                concealer.lost(&mut frame);
                assert_eq!(concealer.is_concealing(), size > 0);
                concealer.received(&mut []);
            }
        }
    }
}
