//! Tells the agent's own voice, coming back from the far end, from the caller's.
//!
//! An echo is what we sent, later, quieter and the worse for codecs, rooms and loudspeakers. Its
//! waveform is not ours any more, but its level in each of twelve bands still rises and falls with
//! ours. So the guard keeps half a second of those levels. Where the caller's last 60 ms stray from
//! them by less than other voices do, at any one delay, they are an echo. A delay that keeps being
//! found makes a path, of which the loss in every band is learnt; from then on what is no louder
//! than the path explains is an echo too, and what stands out of it is the caller.
//!
//! Measured (`measure/echo.rs`, the agent at -20 dBFS, a second of silence before it speaks): none
//! of the echoes below stops the agent, from its first word on,
//! - at delays of 20 to 420 ms (500 are searched) and 6 to 30 dB below what was sent,
//! - through G.711, G.722 and Opus both ways,
//! - from a line, from a room that falls by 60 dB in 250 ms, from a loudspeaker in it that clips at
//!   0.7 of its peak,
//! - when the delay grows or shrinks by 60 ms at once; but where it shrinks, the jump is taken for
//!   the caller about once in fifty.
//!
//! A caller at -22 dBFS who talks over an echo 12 dB or more below the agent stops it within 300 ms
//! (97 in 100, half of them within 130); over one 6 dB below, a word of one syllable may go under,
//! most of all in the agent's own voice. Until the agent has been heard for half a second on a
//! silent line, or one and a half on a noisy one, nothing is known of it, and a caller is taken for
//! an echo a little sooner. What a loudspeaker adds of its own, an echo from a hall, and a voice
//! that the far end has changed in pitch or speed are not told from a caller.
//!
//! It cancels nothing: the recogniser hears the caller as received.

use std::sync::LazyLock;

use media::FRAME_SAMPLES;

const BANDS: usize = 12;
/// Two of 10 ms in a frame.
const HOPS: usize = 2;
/// Samples of a hop at 8 kHz, and of the window that is measured in it: the last 20 ms.
const HOP: usize = FRAME_SAMPLES / 2 / HOPS;
const WINDOW: usize = 2 * HOP;
/// Delays searched: 500 ms.
const LAGS: usize = 51;
/// Hops kept of the agent: the longest delay, and a frame.
const HISTORY: usize = LAGS + HOPS;

type Levels = [f32; BANDS];

/// Levels below this are silence, in dBFS.
const SILENT_DBFS: f32 = -78.0;
/// How far above the noise of the caller's line a band sounds.
const SOUND_DB: f32 = 6.0;
/// A room's echo falls by so much in a hop, at the slowest: 60 dB in 300 ms.
const DECAY_DB: f32 = 2.0;
/// What a comparison keeps of a hop before: most of the last 60 ms counts.
const KEEP: f32 = 0.85;
/// Bands so much weaker than the strongest are not compared: a loudspeaker's distortion fills them.
const WEAK_DB: f32 = 18.0;
/// How far apart an echo's least and most level may be to say anything by lying between.
const WIDE_DB: f32 = 8.0;
/// Bands and hops that must have been compared.
const COMPARED: f32 = 8.0;
/// By how much the caller's levels may stray from the agent's, once shifted, to be an echo (the
/// standard deviation, in dB). Nine echoes in ten stray by less, and 19 other voices in 20 by more.
const STRAY_DB: f32 = 5.0;
/// Hops of such likeness at one delay (and its neighbours) that make a path, and what a hop with
/// another keeps of them.
const VOTES: f32 = 12.0;
const KEEP_VOTES: f32 = 0.98;
/// What must be left of them for the path to be still one.
const VOTES_LEFT: f32 = 1.0;
/// How fast the levels of a path are learnt, and how fast how much they stray.
const LEARN: f32 = 0.05;
/// How often a band may stray by so much more than it does, and how far above that it stands out.
const STRAYS: f32 = 2.0;
const MARGIN_DB: f32 = 4.0;
/// By how much all bands together stand out of an echo where there is a caller too; and where that
/// is so plain that nothing must be learnt of the path.
const STANDS_OUT_DB: f32 = 10.0;
const CALLER_DB: f32 = 30.0;
/// Levels of the agent, in dBFS, from which a band of the path is learnt.
const LEARNT_DBFS: f32 = -63.0;
/// Delays about the path's that are allowed for: 20 ms either way.
const WANDER: usize = 2;
/// Bands that sound where a hop says anything of a path.
const SOUNDING: usize = 3;
/// The agent's level in its loudest band, in dBFS, from which an echo of it would be heard; and how
/// far above its noise, in dB, a line is still silent.
const AUDIBLE_DBFS: f32 = -58.0;
const SILENT_LINE_DB: f32 = 9.0;
/// Hops for which the agent was to be heard and the line was silent, that make it a clear one; and
/// hops without any echo that do so where it is never silent.
const CLEAR: u32 = 50;
const SPOKEN: u32 = 150;

/// What is known of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doubt {
    /// Nothing yet, and the agent may be heard: what sounds like a caller may be an echo.
    Unknown,
    /// There is an echo; what stands out of it is the caller.
    Echo,
    /// No echo, or no agent to make one.
    None,
}

/// See the module.
pub(crate) struct EchoGuard {
    agent: Spectrum,
    caller: Spectrum,
    /// The agent's levels with a room's decay, newest last.
    said: [Levels; HISTORY],
    /// What an echo of a hop may be like at most and at least, once shifted: in a room or in none,
    /// and whether it falls on this hop or half on the one before.
    most: [Levels; HISTORY],
    least: [Levels; HISTORY],
    /// The last hop without decay.
    dry: Levels,
    /// The noise floor of the caller's line.
    floor: Levels,
    /// Whether the agent has only begun to sound.
    is_new: bool,
    /// Hops for which the history still holds sound.
    sounding: usize,
    /// Hops for which the agent was heard without an answer.
    clear: u32,
    /// Hops for which it was heard at all.
    spoken: u32,
    /// The caller's levels against the agent's at every delay.
    compared: [Comparison; LAGS],
    /// How often each delay was an echo's of late.
    votes: [f32; LAGS],
    path: Option<Path>,
}

/// Differences of levels: how many, their sum and that of their squares.
#[derive(Clone, Copy, Debug, Default)]
struct Comparison {
    count: f32,
    sum: f32,
    squares: f32,
}

/// A known way of an echo.
#[derive(Clone, Copy, Debug)]
struct Path {
    lag: usize,
    /// How much louder the echo is than what was sent, in dB (negative as a rule), and how far it
    /// strays above that.
    gain: Levels,
    stray: Levels,
}

impl EchoGuard {
    pub(crate) fn new() -> Self {
        Self {
            agent: Spectrum::new(),
            caller: Spectrum::new(),
            said: [[SILENT_DBFS; BANDS]; HISTORY],
            most: [[SILENT_DBFS; BANDS]; HISTORY],
            least: [[SILENT_DBFS; BANDS]; HISTORY],
            dry: [SILENT_DBFS; BANDS],
            floor: [SILENT_DBFS; BANDS],
            is_new: true,
            sounding: 0,
            clear: 0,
            spoken: 0,
            compared: [Comparison::default(); LAGS],
            votes: [0.0; LAGS],
            path: None,
        }
    }

    /// Whether what is heard may be an echo: the agent is or was just speaking, on a line that is
    /// not known to be without.
    pub(crate) const fn is_doubtful(&self) -> bool {
        !matches!(self.doubt(), Doubt::None)
    }

    const fn doubt(&self) -> Doubt {
        match self.path {
            _ if self.sounding == 0 => Doubt::None,
            Some(_) => Doubt::Echo,
            None if self.clear >= CLEAR || self.spoken >= SPOKEN => Doubt::None,
            None => Doubt::Unknown,
        }
    }

    /// Takes 20 ms that are being sent.
    pub(crate) fn said(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        if frame.iter().any(|sample| sample.unsigned_abs() > 30) {
            self.sounding = HISTORY + HOPS;
        } else if self.sounding == 0 {
            return; // all silent already
        } else {
            self.sounding = self.sounding.saturating_sub(HOPS);
        }
        for levels in self.agent.levels(frame) {
            for history in [&mut self.said, &mut self.most, &mut self.least] {
                history.copy_within(1.., 0);
            }
            let (said, before) = (HISTORY - 1, self.said[HISTORY - 1]);
            for band in 0..BANDS {
                let dry = levels[band].max(SILENT_DBFS);
                let level = dry.max(before[band] - DECAY_DB);
                self.said[said][band] = level;
                self.most[said][band] = level.max(before[band]);
                self.least[said][band] = dry.min(self.dry[band]);
                self.dry[band] = dry;
            }
        }
    }

    /// Takes 20 ms of the caller's; whether they are the agent's echo and no more.
    pub(crate) fn heard(&mut self, frame: &[i16; FRAME_SAMPLES]) -> bool {
        if self.sounding == 0 {
            self.caller.skip(frame);
            self.is_new = true;
            return false;
        }
        let mut is_echo = false;
        for (hop, levels) in self.caller.levels(frame).into_iter().enumerate() {
            if core::mem::take(&mut self.is_new) {
                // What is heard before any echo can be is the line's own.
                self.floor = levels.map(|level| level.max(SILENT_DBFS));
            }
            // What of the agent was sent at the earliest a frame before.
            let newest = HISTORY - HOPS + hop;
            let found = self.compare(&levels, newest);
            let sounds = |(level, floor): &(&f32, &f32)| **level > **floor + SOUND_DB;
            if levels.iter().zip(&self.floor).filter(sounds).count() >= SOUNDING {
                self.vote(found);
            }
            let is_explained = self.follow(&levels, newest);
            is_echo |= found.is_some() || is_explained;
            self.settle(&levels, newest);
        }
        is_echo
    }

    /// The delay at which the last 60 ms are most like the agent, if they are much.
    fn compare(&mut self, levels: &Levels, newest: usize) -> Option<usize> {
        let mut best = (STRAY_DB * STRAY_DB, None);
        let noise = self.floor.map(|floor| floor + SOUND_DB);
        let weak = loudest(levels) - WEAK_DB;
        let heard: [bool; BANDS] =
            core::array::from_fn(|band| levels[band] > noise[band].max(weak));
        let levels: Levels = core::array::from_fn(|band| levels[band].max(self.floor[band]));
        for (lag, compared) in self.compared.iter_mut().enumerate() {
            let at = newest - lag;
            let weak = loudest(&self.said[at]) - WEAK_DB;
            let Comparison { mut count, mut sum, mut squares } = *compared;
            (count, sum, squares) = (count * KEEP, sum * KEEP, squares * KEEP);
            let usual = if count > 1.0 { sum / count } else { 0.0 };
            for band in 0..BANDS {
                // Where neither sounds there is nothing to compare.
                let sounds = heard[band] || self.said[at][band] > noise[band].max(weak);
                // A room or none, whichever fits; where anything fits, that says nothing.
                let least = levels[band] - self.most[at][band];
                let most = levels[band] - self.least[at][band];
                let difference = usual.max(least).min(most);
                let is_open = difference == usual && most - least > WIDE_DB;
                let counts = f32::from(u8::from(sounds && !is_open));
                count += counts;
                sum += counts * difference;
                squares += counts * difference * difference;
            }
            *compared = Comparison { count, sum, squares };
            let stray = squares / count.max(1.0) - (sum / count.max(1.0)).powi(2);
            if count >= COMPARED && stray < best.0 {
                best = (stray, Some(lag));
            }
        }
        best.1
    }

    /// Counts the delay of a hop that sounds, and takes it for the path's where it leads.
    fn vote(&mut self, found: Option<usize>) {
        self.votes.iter_mut().for_each(|votes| *votes *= KEEP_VOTES);
        let around = |votes: &[f32; LAGS], lag: usize| -> f32 {
            votes[lag.saturating_sub(1)..(lag + 2).min(LAGS)].iter().sum()
        };
        if self.path.is_some_and(|path| around(&self.votes, path.lag) < VOTES_LEFT) {
            self.path = None;
        }
        let Some(lag) = found else { return };
        self.votes[lag] += 1.0;
        let own = around(&self.votes, lag);
        if own < VOTES || self.path.is_some_and(|path| own <= around(&self.votes, path.lag)) {
            return;
        }
        match &mut self.path {
            Some(path) => path.lag = lag,
            None => {
                let Comparison { count, sum, .. } = self.compared[lag];
                let gain = [sum / count.max(1.0); BANDS];
                self.path = Some(Path { lag, gain, stray: [STRAY_DB; BANDS] });
            }
        }
    }

    /// Whether the known path explains all that is louder than the noise; learns from it if so.
    fn follow(&mut self, levels: &Levels, newest: usize) -> bool {
        let Some(Path { lag, gain, stray }) = &mut self.path else { return false };
        let around = newest.saturating_sub(*lag + WANDER)..=(newest + WANDER - *lag).min(newest);
        let said: Levels = core::array::from_fn(|band| {
            self.said[around.clone()].iter().map(|said| said[band]).fold(SILENT_DBFS, f32::max)
        });
        let stands_out: f32 = (0..BANDS)
            .map(|band| {
                let expected = said[band] + gain[band] + STRAYS * stray[band];
                (levels[band] - expected.max(self.floor[band]) - MARGIN_DB).max(0.0)
            })
            .sum();
        if stands_out >= CALLER_DB {
            return false;
        }
        for band in 0..BANDS {
            if said[band] > LEARNT_DBFS && levels[band] > self.floor[band] + SOUND_DB {
                let beyond = levels[band] - said[band] - gain[band];
                gain[band] += beyond.clamp(-10.0, 10.0) * LEARN;
                stray[band] += (beyond.clamp(0.0, 15.0) - stray[band]) * LEARN;
            }
        }
        stands_out < STANDS_OUT_DB
    }

    /// Follows the noise of the line, and whether it stays silent while the agent speaks.
    fn settle(&mut self, levels: &Levels, newest: usize) {
        let mut above_noise = 0.0f32;
        for (floor, level) in self.floor.iter_mut().zip(levels) {
            let above = level - *floor;
            above_noise = above_noise.max(above);
            let step = if above < 0.0 { above * 0.2 } else { (above * 0.03).min(0.3) };
            *floor = (*floor + step).max(SILENT_DBFS);
        }
        if loudest(&self.said[newest]) > AUDIBLE_DBFS {
            self.spoken = self.spoken.saturating_add(1);
            self.clear = self.clear.saturating_add(u32::from(above_noise < SILENT_LINE_DB));
        }
    }
}

fn loudest(levels: &Levels) -> f32 {
    levels.iter().copied().fold(f32::MIN, f32::max)
}

/// Levels of a stream in twelve bands between 200 and 3400 Hz, every 10 ms over the last 20.
struct Spectrum {
    /// The last 20 ms at 8 kHz.
    window: [f32; WINDOW],
    /// The last sample before, at 16 kHz.
    before: f32,
}

/// Points of the spectrum, 100 Hz apart from 250 Hz on, and how many of them make each band.
const POINTS: usize = 32;
const WIDTHS: [usize; BANDS] = [2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4];

/// Cosines and sines under a Hann window, for half of the window: the other half mirrors it.
static WAVES: LazyLock<[[[f32; HOP]; 2]; POINTS]> = LazyLock::new(|| {
    use core::f32::consts::TAU;
    core::array::from_fn(|point| {
        let turn = TAU * (250.0 + 100.0 * point as f32) / 8000.0;
        let at = |index: usize| index as f32 + 0.5;
        let window = |index: usize| 0.5 + 0.5 * (TAU * at(index) / WINDOW as f32).cos();
        [
            core::array::from_fn(|index| window(index) * (turn * at(index)).cos()),
            core::array::from_fn(|index| window(index) * (turn * at(index)).sin()),
        ]
    })
});

impl Spectrum {
    const fn new() -> Self {
        Self { window: [0.0; WINDOW], before: 0.0 }
    }

    /// Takes a frame unmeasured.
    fn skip(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        for hop in 0..HOPS {
            self.shift(frame, hop);
        }
    }

    /// Takes a frame; the levels at the end of either hop, in dBFS.
    fn levels(&mut self, frame: &[i16; FRAME_SAMPLES]) -> [Levels; HOPS] {
        core::array::from_fn(|hop| {
            self.shift(frame, hop);
            self.measure()
        })
    }

    /// Takes half a frame at half the rate; weights of 1, 2 and 1 keep most of the rest out.
    fn shift(&mut self, frame: &[i16; FRAME_SAMPLES], hop: usize) {
        self.window.copy_within(HOP.., 0);
        let half = &frame[2 * HOP * hop..2 * HOP * (hop + 1)];
        for (slot, pair) in self.window[HOP..].iter_mut().zip(half.as_chunks::<2>().0) {
            let [first, second] = pair.map(f32::from);
            *slot = (self.before + 2.0 * first + second) / 4.0;
            self.before = second;
        }
    }

    fn measure(&self) -> Levels {
        let (mut even, mut odd) = ([0.0f32; HOP], [0.0f32; HOP]);
        for index in 0..HOP {
            let (after, before) = (self.window[HOP + index], self.window[HOP - 1 - index]);
            (even[index], odd[index]) = (after + before, after - before);
        }
        let mut waves = WAVES.iter();
        WIDTHS.map(|width| {
            let power: f32 = waves
                .by_ref()
                .take(width)
                .map(|[cosine, sine]| sum(&even, cosine).powi(2) + sum(&odd, sine).powi(2))
                .sum();
            // A full-scale sine on a point has an amplitude of a quarter of the window there.
            let full = 32_768.0 * WINDOW as f32 / 4.0;
            10.0 * (power / (full * full)).max(1e-10).log10()
        })
    }
}

/// In eight lanes, so that the compiler may use vectors without reordering a sum.
fn sum(a: &[f32; HOP], b: &[f32; HOP]) -> f32 {
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
    use crate::speech;

    /// Frames in which the guard called the caller's voice an echo, frames with sound, and what it
    /// knew of the line in the end.
    fn run(agent: &[i16], caller: &[i16]) -> (usize, usize, Doubt) {
        let mut guard = EchoGuard::new();
        let (mut echoes, mut voiced) = (0, 0);
        for (said, heard) in agent.as_chunks().0.iter().zip(caller.as_chunks().0) {
            let echo = guard.heard(heard);
            let loud = audio::level::dbfs(heard) > -50.0;
            voiced += usize::from(loud);
            echoes += usize::from(echo && loud);
            guard.said(said);
        }
        (echoes, voiced, guard.doubt())
    }

    #[test]
    fn a_quieter_copy_is_an_echo_at_any_delay() {
        let agent = speech::agent();
        for db in [-6.0, -12.0, -20.0] {
            for delay_ms in [20, 63, 110, 200, 300] {
                let (echoes, voiced, doubt) = run(&agent, &speech::echo(&agent, delay_ms, db));
                assert!(voiced > 30, "{voiced}");
                assert!(echoes * 100 >= voiced * 97, "{db} dB {delay_ms} ms: {echoes}/{voiced}");
                assert_eq!(doubt, Doubt::Echo, "{db} dB {delay_ms} ms");
            }
        }
    }

    #[test]
    fn a_caller_who_talks_over_the_agent_is_no_echo() {
        let (agent, caller) = (speech::agent(), speech::caller());
        let (echoes, voiced, doubt) = run(&agent, &caller);
        assert!(echoes * 100 <= voiced * 5, "without echo: {echoes}/{voiced}");
        assert_ne!(doubt, Doubt::Echo);
        let both = speech::mix(&caller, &speech::echo(&agent, 120, -15.0));
        let (echoes, voiced, _) = run(&agent, &both);
        assert!(echoes * 100 <= voiced * 50, "with echo: {echoes}/{voiced}");
    }

    #[test]
    fn nothing_is_an_echo_while_the_agent_is_silent() {
        let (echoes, voiced, doubt) = run(&vec![0; 48_000], &speech::caller());
        assert_eq!((echoes, voiced > 30, doubt), (0, true, Doubt::None));
    }

    #[test]
    fn a_line_without_an_echo_is_known_for_one() {
        let agent = speech::agent();
        let doubt_after = |millis: usize, caller: &[i16]| run(&agent[..millis * 16], caller).2;
        assert_eq!(doubt_after(300, &[0; 48_000]), Doubt::Unknown);
        assert_eq!(doubt_after(1500, &[0; 48_000]), Doubt::None);
        let noise: Vec<i16> = (0..48_000i32).map(|at| (at * 7919 % 601 - 300) as i16).collect();
        assert_eq!(doubt_after(2600, &noise), Doubt::None);
    }
}
