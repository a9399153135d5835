//! From what bands, period and network say of every 10 ms: how certain it is that somebody has
//! begun to speak, long before the network alone would say so.
//!
//! Four roads lead there, each blind to another kind of noise:
//! - **voice**: sound with the period of a voice, for some 30 ms; noises have none, tones and hum
//!   are told apart by their steadiness;
//! - **break**: friction (any sound without a period, stronger above 900 Hz than below) for 40 ms,
//!   then a leap of the low band or a voice: f, s, th or h before a vowel. Counting what went
//!   before is what makes such words as quick as others;
//! - **hiss**: highs without any lows for 60 ms: a long s or sh, before its vowel. A broader hiss
//!   (paper, a tap, a breath) does not do;
//! - **likely**: half a second that the network takes for speech: a whisper.
//!
//! The weights are those at which `relay`'s measurement (`transform/measure`) had 99 % of the
//! onsets decided within 200 ms at no more false stops than before.

use super::bands::{HOP_MS, Levels};
use super::period::Period;

/// What else is known of a hop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hints {
    pub(super) period: Period,
    /// The network's latest probability, with no guard.
    pub(super) likely: f32,
    /// A tone or hum.
    pub(super) is_steady: bool,
    /// The quietest level that can be a voice, in dBFS.
    pub(super) level_dbfs: f32,
}

/// What has been gathered since the last silence; see the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Evidence {
    /// Points, [`VOICE`] of which are certain.
    voice: u32,
    /// Milliseconds.
    friction: u32,
    hiss: u32,
    likely: u32,
    /// Whether friction broke into a voice, and out of how much.
    broke: u32,
    /// Hops since which it has been loud.
    loud: u32,
    /// The loudest hop of late.
    peak_dbfs: f32,
    /// The low and the high band of the last three hops, oldest first.
    low: [f32; 3],
    high: [f32; 3],
    /// How far the upper bands were above the noise in the last two hops.
    above: [[f32; 3]; 2],
    /// Hops since which there has been any evidence.
    since: u32,
}

/// What makes each road certain; a threshold of one half, the usual one, takes half of it.
const VOICE: u32 = 80;
const FRICTION: u32 = 80;
const HISS: u32 = 120;
const LIKELY: u32 = 1000;

/// Points of a periodic hop that the network takes for speech, and of one that it does not (yet).
const LIKELY_POINTS: u32 = 15;
const PERIOD_POINTS: u32 = 10;
/// What a hop without takes back, and what it takes of friction, which a stop may follow.
const LEAK: u32 = 5;
const FRICTION_LEAK: u32 = 3;

/// Likeness from which a hop is periodic: where the network agrees, and where it does not.
const PERIODIC: f32 = 0.5;
const CLEARLY_PERIODIC: f32 = 0.65;
/// The same for mains hum.
const MAINS: f32 = 0.9;
/// Loud hops before a period counts: until then nothing could tell a tone from a voice.
const LOUD_HOPS: u32 = 3;
/// How far above the noise a voice is, a sound at all, and friction over three hops, in dB.
const VOICE_DB: f32 = 12.0;
const SOUND_DB: f32 = 9.0;
const FRICTION_DB: f32 = 3.5;
/// By how much the low band leaps when friction breaks into a voice, and how much more than the
/// high one: where both leap, it is but a louder noise.
const LEAP_DB: f32 = 15.0;
const DARKER_DB: f32 = 12.0;
/// Below the loudest of late by so much, a sound is dying away: a knock, not a voice.
const DYING_DB: f32 = 6.0;
/// By how much a hiss is louder than the middle band, and further above the noise than the low one.
const STEEP_DB: f32 = 15.0;
const NO_LOWS_DB: f32 = 8.0;
/// Above 4 kHz it takes so much more to be heard: there is least noise.
const TOP_DB: f32 = 4.0;
/// How much below a voice's quietest level friction may be.
const FRICTION_BELOW_DB: f32 = 25.0;
/// The same for a hiss that decides alone.
const HISS_BELOW_DB: f32 = 10.0;
/// Friction beyond this counts no more.
const FRICTION_MAX: u32 = 150;

impl Evidence {
    pub(super) const NONE: Self = Self {
        voice: 0,
        friction: 0,
        hiss: 0,
        likely: 0,
        broke: 0,
        loud: 0,
        peak_dbfs: -96.0,
        low: [-96.0; 3],
        high: [-96.0; 3],
        above: [[0.0; 3]; 2],
        since: 0,
    };

    /// How certain it is that somebody has begun to speak, 0 to 1; one half is the usual measure.
    pub(super) fn certainty(&self) -> f32 {
        let roads =
            [(self.voice, VOICE), (self.broke, FRICTION), (self.hiss, HISS), (self.likely, LIKELY)];
        let share = roads.map(|(have, whole)| have as f32 / whole as f32);
        share.into_iter().fold(0.0, f32::max).min(1.0)
    }

    /// Milliseconds since which there has been evidence without a break.
    pub(super) const fn age_ms(&self) -> u32 {
        self.since.saturating_mul(HOP_MS)
    }

    /// Forgets what was gathered; what is known of the sound stays.
    pub(super) const fn start_over(&mut self) {
        (self.voice, self.friction, self.hiss) = (0, 0, 0);
        (self.likely, self.broke, self.since) = (0, 0, 0);
    }

    /// Loses what 20 ms without a voice lose.
    pub(super) const fn fade(&mut self) {
        self.voice = self.voice.saturating_sub(4 * LEAK);
        self.friction = self.friction.saturating_sub(4 * LEAK);
        self.likely = self.likely.saturating_sub(4 * LEAK);
        (self.hiss, self.broke, self.loud) = (0, 0, 0);
    }

    /// Takes 10 ms.
    pub(super) fn add(&mut self, levels: &Levels, hints: &Hints) {
        let Levels { all, low, middle, high, top } = *levels;
        self.peak_dbfs = (self.peak_dbfs - 0.3).max(all.level);
        let is_steady = hints.is_steady || hints.period.mains > MAINS;
        let is_loud = all.level >= hints.level_dbfs;
        self.loud = if is_loud && all.above >= 6.0 { self.loud.saturating_add(1) } else { 0 };

        let counts = is_loud && !is_steady;
        let is_likely =
            counts && hints.likely >= 0.5 && low.above.max(middle.above).max(high.above) >= 6.0;
        let needed = if is_likely { PERIODIC } else { CLEARLY_PERIODIC };
        let is_periodic = counts
            && hints.period.likeness >= needed
            && low.above.max(middle.above) >= VOICE_DB
            && all.level >= self.peak_dbfs - DYING_DB;
        let upper = high.above.max(top.above - TOP_DB);
        let is_sound = counts && low.above.max(middle.above).max(upper) >= SOUND_DB;

        self.add_break(levels, hints, is_steady, is_periodic);
        let is_leaking = (is_sound && !is_periodic) || !(is_sound || is_likely);
        if is_periodic && self.loud >= LOUD_HOPS {
            self.voice += if is_likely { LIKELY_POINTS } else { PERIOD_POINTS };
        } else if is_leaking {
            self.voice = self.voice.saturating_sub(LEAK);
        }
        self.add_hiss(levels, hints, is_steady);
        if is_likely && hints.likely >= 0.6 {
            self.likely += HOP_MS;
        } else if !(is_sound || is_likely) {
            self.likely = self.likely.saturating_sub(4 * LEAK);
        }
        if is_steady {
            self.voice = self.voice.saturating_sub(2 * LEAK);
            self.likely = self.likely.saturating_sub(2 * LEAK);
            self.friction = self.friction.saturating_sub(4 * LEAK);
            self.hiss = 0;
        }
        self.voice = self.voice.min(VOICE);
        self.likely = self.likely.min(LIKELY);
        let is_any = self.voice + self.friction + self.hiss + self.likely + self.broke > 0;
        self.since = if is_any { self.since.saturating_add(1) } else { 0 };
    }

    /// Friction, and whether it breaks into a voice now.
    fn add_break(&mut self, levels: &Levels, hints: &Hints, is_steady: bool, is_periodic: bool) {
        let Levels { all, low, middle, high, top } = *levels;
        let leap = |past: [f32; 3], level: f32| level - past.into_iter().fold(level, f32::min);
        let (leap, brighter) = (leap(self.low, low.level), leap(self.high, high.level));
        let is_leap = low.above >= LEAP_DB
            && leap >= LEAP_DB
            && leap - brighter >= DARKER_DB
            && !is_steady
            && all.level >= hints.level_dbfs;
        if is_leap || (is_periodic && low.above >= VOICE_DB) {
            self.broke = self.broke.max(self.friction.min(FRICTION));
        } else {
            self.broke = self.broke.saturating_sub(2 * LEAK);
        }
        let above = [middle.above, high.above, top.above - TOP_DB];
        let [oldest, older] = self.above;
        let mean = |band: usize| (oldest[band] + older[band] + above[band]) / 3.0;
        let is_friction = mean(0).max(mean(1)).max(mean(2)) >= FRICTION_DB
            && hints.period.likeness < PERIODIC
            && above.into_iter().fold(f32::MIN, f32::max) >= low.above
            && !is_steady
            && all.level.max(top.level) >= hints.level_dbfs - FRICTION_BELOW_DB;
        if is_friction {
            self.friction = (self.friction + HOP_MS).min(FRICTION_MAX);
        } else {
            self.friction = self.friction.saturating_sub(FRICTION_LEAK);
        }
        self.low = [self.low[1], self.low[2], low.level];
        self.high = [self.high[1], self.high[2], high.level];
        self.above = [older, above];
    }

    /// Highs without lows.
    fn add_hiss(&mut self, levels: &Levels, hints: &Hints, is_steady: bool) {
        let Levels { all, low, middle, high, top } = *levels;
        // What the middle band has beyond its noise, or a quarter of that noise.
        let power = |db: f32| 10f32.powf(db / 10.0);
        let noise = power(middle.level - middle.above);
        let own = (power(middle.level) - noise).max(noise / 4.0);
        let highs = if top.above < 15.0 { high.level } else { high.level.max(top.level) };
        let is_hiss = high.above >= SOUND_DB
            && high.above - low.above >= NO_LOWS_DB
            && highs - 10.0 * own.log10() >= STEEP_DB
            && hints.period.likeness < PERIODIC
            && !is_steady
            && all.level >= hints.level_dbfs - HISS_BELOW_DB;
        self.hiss = if is_hiss {
            (self.hiss + HOP_MS).min(HISS)
        } else {
            self.hiss.saturating_sub(FRICTION_LEAK)
        };
    }
}
