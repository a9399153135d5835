//! DTMF in the audio itself: the keys, and a detector by the acceptance rules of ITU-T Q.24.
//! Keys as RTP events (RFC 4733) are the business of `rtp`.
//!
//! The detector looks at 12.75 ms of 8 kHz audio every 6.4 ms. A key counts when four looks in a
//! row find its two tones and next to nothing else, each within 2.5 % of its frequency, which is
//! measured by how the phase advances from look to look; this, not the level, is what keeps
//! voices from being taken for keys.

use crate::SampleRate;
use crate::level::rms_of_dbfs;
use crate::resample::Resampler;
use core::f32::consts::TAU;
use core::fmt;

/// A key of the telephone's pad: `0`-`9`, `*`, `#`, `A`-`D`.
///
/// What a caller types may be a card number: `Debug` does not show which key it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u8);

/// The characters by event code.
const CHARACTERS: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '*', '#', 'A', 'B', 'C', 'D'];
/// The event codes by row and column of the pad.
const PAD: [[u8; 4]; 4] = [[1, 2, 3, 12], [4, 5, 6, 13], [7, 8, 9, 14], [10, 0, 11, 15]];
/// ITU-T Q.23.
const ROWS: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
const COLUMNS: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];

impl Key {
    /// The key of an event code of RFC 4733 section 3.2 (0 to 15).
    #[must_use]
    pub const fn from_event(event: u8) -> Option<Self> {
        if event < 16 { Some(Self(event)) } else { None }
    }

    /// The event code of RFC 4733 section 3.2.
    #[must_use]
    pub const fn event(self) -> u8 {
        self.0
    }

    /// The key of `0`-`9`, `*`, `#`, `A`-`D` (or `a`-`d`).
    #[must_use]
    pub fn from_char(c: char) -> Option<Self> {
        let upper = c.to_ascii_uppercase();
        CHARACTERS.iter().zip(0..).find(|(known, _)| **known == upper).map(|(_, event)| Self(event))
    }

    /// The key as a character.
    #[must_use]
    pub const fn as_char(self) -> char {
        CHARACTERS[(self.0 & 15) as usize]
    }

    /// Its two frequencies (ITU-T Q.23).
    #[must_use]
    pub fn hz(self) -> [f32; 2] {
        for (row, low) in PAD.iter().zip(ROWS) {
            for (event, high) in row.iter().zip(COLUMNS) {
                if *event == self.0 {
                    return [low, high];
                }
            }
        }
        [0.0; 2] // no key is outside the pad
    }

    /// Every key.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..16).map(Self)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

/// What the detector heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DtmfEvent {
    /// A key is down.
    Pressed {
        /// The key.
        key: Key,
        /// The sample of the stream at which its tone began, within 10 ms.
        started_at: u64,
    },
    /// The key that was down is up again.
    Released {
        /// The key.
        key: Key,
        /// How long its tone lasted, in milliseconds, within 20 ms.
        millis: u32,
    },
}

/// Hears DTMF in one stream.
pub struct DtmfDetector {
    rate: SampleRate,
    resampler: Resampler,
    /// The last [`WINDOW`] samples at 8 kHz, of which `fresh` came since the last look.
    window: [i16; WINDOW],
    fresh: usize,
    /// Samples at 8 kHz so far.
    heard: u64,
    last: Option<Look>,
    candidate: Option<Candidate>,
    down: Option<Down>,
}

/// Samples per look and between two looks.
const WINDOW: usize = 102;
const HOP: usize = 51;
/// Looks that decide: 32 ms of tone, so that 40 ms (Q.24) are always enough and 24 ms never.
const LOOKS: u32 = 4;
/// Looks without the key that end it: a dropout of 10 ms (Q.24) costs four at most.
const MISSES: u32 = 5;
/// The quietest tone, in dBFS: about -30 dBm0; Q.24 lists -25 to -29 dBm as the least to accept.
const LEVEL_DBFS_MIN: f32 = -36.0;
/// How much stronger the high group, or the low group, may be: Q.24's widest (4 and 8 dB), and what
/// the leakage between tones in a short look may add.
const TWIST_HIGH_DB: f32 = 5.0;
const TWIST_LOW_DB: f32 = 10.0;
/// How far the strongest tone of a group must be above the others of it.
const GROUP_PEAK_DB: f32 = 6.0;
/// The share of the whole power that the two tones must have.
const PURITY_MIN: f32 = 0.83;
/// Q.24: within 1.5 % must be taken, beyond 3.5 % must not.
const DEVIATION_MAX: f32 = 0.025;

/// One tone in one look, with its phase at the start of the window.
#[derive(Clone, Copy, Default)]
struct Bin {
    power: f32,
    phase: f32,
}

/// What one look found: the strongest tone of either group.
#[derive(Clone, Copy)]
struct Look {
    key: Key,
    hz: [f32; 2],
    bins: [Bin; 2],
    power: f32,
}

#[derive(Clone, Copy)]
struct Candidate {
    key: Key,
    looks: u32,
    started_at: u64,
}

#[derive(Clone, Copy)]
struct Down {
    key: Key,
    started_at: u64,
    last_seen: u64,
    misses: u32,
}

impl DtmfDetector {
    /// A detector on a stream at `rate`.
    #[must_use]
    pub fn new(rate: SampleRate) -> Self {
        Self {
            rate,
            resampler: Resampler::new(rate, SampleRate::Hz8000),
            window: [0; WINDOW],
            fresh: 0,
            heard: 0,
            last: None,
            candidate: None,
            down: None,
        }
    }

    /// Listens to `pcm`, any number of samples, and tells `on_event` what it heard.
    pub fn push(&mut self, pcm: &[i16], mut on_event: impl FnMut(DtmfEvent)) {
        let mut narrow = [0; 80];
        for chunk in pcm.chunks(self.rate.samples(10)) {
            // 10 ms fit by construction.
            let written = self.resampler.process(chunk, &mut narrow).unwrap_or(0);
            for &sample in &narrow[..written] {
                self.window[WINDOW - HOP + self.fresh] = sample;
                self.fresh += 1;
                self.heard += 1;
                if self.fresh == HOP {
                    self.look(&mut on_event);
                    self.window.copy_within(HOP.., 0);
                    self.fresh = 0;
                }
            }
        }
    }

    /// Whether a key is down, or the last look may have been the start of one: for muting a tone
    /// before it is certain.
    #[must_use]
    pub const fn is_suspected(&self) -> bool {
        self.candidate.is_some() || self.down.is_some()
    }

    fn look(&mut self, on_event: &mut impl FnMut(DtmfEvent)) {
        let now = self.heard;
        let look = look_at(&self.window);
        let key = match (&self.last, &look) {
            (Some(last), Some(look)) if last.key == look.key && is_pure(last, look) => {
                Some(look.key)
            }
            _ => None,
        };
        // A first look proves nothing yet, but may start a candidate.
        self.candidate = match (look, key, self.candidate) {
            (None, _, _) => None,
            (Some(_), Some(key), Some(old)) if old.key == key => {
                Some(Candidate { looks: old.looks + 1, ..old })
            }
            (Some(look), _, _) => {
                let started_at = now.saturating_sub(WINDOW as u64);
                Some(Candidate { key: look.key, looks: 1, started_at })
            }
        };
        self.last = look;
        self.follow(key, now, on_event);
        if let Some(candidate) = self.candidate
            && candidate.looks == LOOKS
            && self.down.is_none_or(|down| down.key != candidate.key)
        {
            self.release(on_event);
            let Candidate { key, started_at, .. } = candidate;
            self.down = Some(Down { key, started_at, last_seen: now, misses: 0 });
            on_event(DtmfEvent::Pressed { key, started_at: self.in_stream(started_at) });
        }
    }

    /// Notes whether the key that is down was seen again.
    fn follow(&mut self, seen: Option<Key>, now: u64, on_event: &mut impl FnMut(DtmfEvent)) {
        let Some(down) = &mut self.down else { return };
        if seen == Some(down.key) {
            down.last_seen = now;
            down.misses = 0;
        } else {
            down.misses += 1;
            if down.misses >= MISSES {
                self.release(on_event);
            }
        }
    }

    fn release(&mut self, on_event: &mut impl FnMut(DtmfEvent)) {
        if let Some(down) = self.down.take() {
            let samples = down.last_seen.saturating_sub(down.started_at);
            let millis = u32::try_from(samples / 8).unwrap_or(u32::MAX);
            on_event(DtmfEvent::Released { key: down.key, millis });
        }
    }

    /// A point at 8 kHz, after the resampler, as a sample of the stream.
    fn in_stream(&self, narrow: u64) -> u64 {
        let before = narrow.saturating_sub(self.resampler.delay() as u64);
        before * u64::from(self.rate.hz()) / 8000
    }
}

/// Finds the two tones of a key in one window by level, twist and lead over their groups.
fn look_at(window: &[i16; WINDOW]) -> Option<Look> {
    let power = window.iter().map(|&s| f32::from(s) * f32::from(s)).sum::<f32>() / WINDOW as f32;
    let least = rms_of_dbfs(LEVEL_DBFS_MIN).powi(2);
    if power < 2.0 * least {
        return None;
    }
    let (row, low) = strongest(window, ROWS)?;
    let (column, high) = strongest(window, COLUMNS)?;
    let twist = decibels(high.power / low.power);
    let is_key = low.power >= least
        && high.power >= least
        && (-TWIST_LOW_DB..=TWIST_HIGH_DB).contains(&twist);
    is_key.then(|| Look {
        key: Key(PAD[row][column]),
        hz: [ROWS[row], COLUMNS[column]],
        bins: [low, high],
        power,
    })
}

/// The strongest of a group, when it leads the others.
fn strongest(window: &[i16; WINDOW], group: [f32; 4]) -> Option<(usize, Bin)> {
    let bins = group.map(|hz| goertzel(window, hz));
    let (at, best) = bins.into_iter().enumerate().max_by(|a, b| a.1.power.total_cmp(&b.1.power))?;
    let leads =
        |i: usize, other: Bin| i == at || decibels(best.power / other.power) > GROUP_PEAK_DB;
    bins.into_iter().enumerate().all(|(i, bin)| leads(i, bin)).then_some((at, best))
}

/// Whether two looks in a row saw the same two tones at their right pitch, and little else.
fn is_pure(last: &Look, look: &Look) -> bool {
    let mut tones = 0.0;
    for i in 0..2 {
        let expected = TAU * look.hz[i] * HOP as f32 / 8000.0;
        let turned = look.bins[i].phase - last.bins[i].phase - expected;
        let turned = turned - TAU * (turned / TAU).round();
        let off_hz = turned * 8000.0 / (TAU * HOP as f32);
        if off_hz.abs() > DEVIATION_MAX * look.hz[i] {
            return false;
        }
        // A tone off the centre of the bin shows less than its power.
        let x = core::f32::consts::PI * off_hz * WINDOW as f32 / 8000.0;
        let shown = if x.abs() < 0.01 { 1.0 } else { (x.sin() / x).powi(2) };
        tones += look.bins[i].power / shown.max(0.5);
    }
    tones >= PURITY_MIN * look.power
}

/// Power (mean square) and phase of the component at `hz`.
fn goertzel(window: &[i16; WINDOW], hz: f32) -> Bin {
    let omega = TAU * hz / 8000.0;
    let coefficient = 2.0 * omega.cos();
    let (mut s1, mut s2) = (0.0f32, 0.0f32);
    for &sample in window {
        let s0 = f32::from(sample) + coefficient * s1 - s2;
        s2 = s1;
        s1 = s0;
    }
    let (re, im) = (s1 - s2 * omega.cos(), s2 * omega.sin());
    // The filter ends with the phase of the last sample; the constant difference drops out.
    let power = 2.0 * (re * re + im * im) / (WINDOW * WINDOW) as f32;
    Bin { power, phase: im.atan2(re) }
}

fn decibels(ratio: f32) -> f32 {
    10.0 * ratio.log10()
}

#[cfg(test)]
#[path = "dtmf_tests.rs"]
mod tests;
