//! How loud a stretch of 10 ms is in four bands, and how far above the noise there.

use super::filter::Filter;
use crate::SampleRate;
use crate::level::{SILENCE_DBFS, dbfs, power_dbfs};

/// 10 ms at 8 kHz.
pub(super) const HOP: usize = 80;
/// How long a hop lasts.
pub(super) const HOP_MS: u32 = 10;

/// A level and the noise under it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Band {
    /// In dBFS.
    pub(super) level: f32,
    /// In dB above the tracked noise floor.
    pub(super) above: f32,
}

/// 10 ms of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Levels {
    pub(super) all: Band,
    /// 300 to 900 Hz: the pitch's harmonics and the first resonance of vowels.
    pub(super) low: Band,
    /// 900 to 2000 Hz.
    pub(super) middle: Band,
    /// 2 to 4 kHz: what a telephone passes of an s.
    pub(super) high: Band,
    /// Above 4.5 kHz: most of an s, where the stream has it.
    pub(super) top: Band,
}

/// Measures hop after hop.
pub(super) struct Bands {
    low: Filter<2>,
    middle: Filter<2>,
    high: Filter<2>,
    /// At the rate of the stream; none where the stream carries nothing there.
    top: Option<Filter<2>>,
    top_power: f64,
    top_count: usize,
    floors: [Floor; 5],
}

impl Bands {
    pub(super) fn new(rate: SampleRate) -> Self {
        let top = (rate.hz() >= 16_000).then(|| Filter::above(4500.0, rate.hz() as f32));
        Self {
            low: Filter::band(300.0, 900.0),
            middle: Filter::band(900.0, 2000.0),
            high: Filter::above(2000.0, 8000.0),
            top,
            top_power: 0.0,
            top_count: 0,
            // The most that is assumed before anything is known: quiet lines, and each band its
            // share, since the first thing heard may be a voice.
            floors: [-45.0, -50.0, -55.0, -60.0, -60.0].map(Floor::new),
        }
    }

    /// Takes samples at the stream's rate, ahead of the hop they belong to.
    pub(super) fn listen_above(&mut self, pcm: &[i16]) {
        if let Some(filter) = &mut self.top {
            self.top_power += filter.power(pcm) * pcm.len() as f64;
            self.top_count += pcm.len();
        }
    }

    /// Measures the next 10 ms, at 8 kHz.
    pub(super) fn measure(&mut self, hop: &[i16; HOP]) -> Levels {
        let top = match self.top_count {
            0 => SILENCE_DBFS,
            count => power_dbfs(self.top_power / count as f64),
        };
        (self.top_power, self.top_count) = (0.0, 0);
        let levels = [
            dbfs(hop),
            power_dbfs(self.low.power(hop)),
            power_dbfs(self.middle.power(hop)),
            power_dbfs(self.high.power(hop)),
            top,
        ];
        let mut bands = [Band::default(); 5];
        for ((band, level), floor) in bands.iter_mut().zip(levels).zip(&mut self.floors) {
            *band = Band { level, above: floor.follow(level) };
        }
        let [all, low, middle, high, top] = bands;
        Levels { all, low, middle, high, top }
    }
}

/// The noise floor of a band: falls within 50 ms and rises by 30 dB a second at most, so that a
/// noise that sets in is soon no news, and a first syllable still is.
#[derive(Clone, Copy, Debug)]
struct Floor {
    dbfs: Option<f32>,
    start_dbfs: f32,
}

const DOWN: f32 = 0.2;
const UP: f32 = 0.03;
const UP_DB_MAX: f32 = 0.3;

impl Floor {
    const fn new(start_dbfs: f32) -> Self {
        Self { dbfs: None, start_dbfs }
    }

    /// Takes a hop's level; how far it was above the floor before it.
    fn follow(&mut self, level: f32) -> f32 {
        let floor = self.dbfs.unwrap_or(level.min(self.start_dbfs));
        let above = level - floor;
        self.dbfs =
            Some(floor + if above < 0.0 { above * DOWN } else { (above * UP).min(UP_DB_MAX) });
        above
    }
}
