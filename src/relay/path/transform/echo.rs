//! Tells the agent's own voice, coming back from the far end, from the caller's.
//!
//! An echo is a delayed, quieter copy of what we sent. The guard keeps the last 580 ms of the
//! agent's voice and, while that holds sound, looks for the delay at which it is most like the
//! last 80 ms of the caller's, by normalised correlation below 1.6 kHz. Chance finds such a delay
//! for a moment; an echo keeps it. It cancels nothing: the recogniser hears the caller as received.

use std::ops::RangeInclusive;

use media::FRAME_SAMPLES;

/// 16 kHz in, 4 kHz out.
const DECIMATION: usize = 4;
/// Samples of a frame after decimation.
const STEP: usize = FRAME_SAMPLES / DECIMATION;
/// Compared stretch: 80 ms, a few periods of the deepest voice.
const WINDOW: usize = 4 * STEP;
/// Longest delay searched: 500 ms, both networks and both jitter buffers.
const LAG_MAX: usize = 25 * STEP;
const HISTORY: usize = LAG_MAX + WINDOW;
/// Delays that count as the same: half a millisecond.
const LAG_SLACK: usize = 2;
/// Frames between searches over all delays once one is known.
const SEARCH_EVERY: u8 = 10;
/// Share of the caller's energy that the agent's explains, to be an echo at an unknown delay.
const SHARE_ANEW: f32 = 0.6;
/// The same at the known delay.
const SHARE_KNOWN: f32 = 0.55;
/// The same at the known delay, where the level is no higher than the echo's usual one.
const SHARE_QUIET: f32 = 0.25;
/// Energy, per sample squared, below which there is nothing to compare (about -70 dBFS).
const SILENCE: f32 = 100.0;

/// See the module.
pub(crate) struct EchoGuard {
    /// The agent's voice at 4 kHz, oldest first; and at 2 kHz, for the search over all delays.
    agent: Vec<f32>,
    agent_coarse: Vec<f32>,
    caller: [f32; WINDOW],
    agent_filter: LowPass,
    caller_filter: LowPass,
    /// Frames for which the history still holds sound.
    sounding: u16,
    /// The echo's delay, once seen twice.
    lag: Option<usize>,
    candidate: usize,
    until_search: u8,
    /// Energy of the echo relative to the agent's, as last seen clearly.
    coupling: f32,
}

/// How alike the caller is to the agent at a delay.
#[derive(Clone, Copy)]
struct Match {
    lag: usize,
    /// Share of the caller's energy explained, 0 to 1.
    share: f32,
    /// Energy of the agent's voice there.
    agent: f32,
}

impl EchoGuard {
    pub(crate) fn new() -> Self {
        Self {
            agent: vec![0.0; HISTORY],
            agent_coarse: vec![0.0; HISTORY / 2],
            caller: [0.0; WINDOW],
            agent_filter: LowPass::new(),
            caller_filter: LowPass::new(),
            sounding: 0,
            lag: None,
            candidate: usize::MAX,
            until_search: 0,
            coupling: 0.0,
        }
    }

    /// Whether the agent was heard within the delays that an echo may have.
    pub(crate) const fn is_listening(&self) -> bool {
        self.sounding > 0
    }

    /// Takes 20 ms that are being sent.
    pub(crate) fn said(&mut self, frame: &[i16; FRAME_SAMPLES]) {
        let sounds = frame.iter().any(|sample| sample.unsigned_abs() > 30);
        if sounds {
            self.sounding = (HISTORY / STEP) as u16 + 1;
        } else if self.sounding > 0 {
            self.sounding -= 1;
        } else {
            return; // all zero already
        }
        self.agent.copy_within(STEP.., 0);
        self.agent_filter.decimate(frame, &mut self.agent[HISTORY - STEP..]);
        self.agent_coarse.copy_within(STEP / 2.., 0);
        halve(&self.agent[HISTORY - STEP..], &mut self.agent_coarse[(HISTORY - STEP) / 2..]);
    }

    /// Takes 20 ms of the caller's; whether they are mostly the agent's echo. Only where they are
    /// `voiced` is that looked into.
    pub(crate) fn heard(&mut self, frame: &[i16; FRAME_SAMPLES], voiced: bool) -> bool {
        self.caller.copy_within(STEP.., 0);
        self.caller_filter.decimate(frame, &mut self.caller[WINDOW - STEP..]);
        let energy = dot(&self.caller, &self.caller);
        if !voiced || self.sounding == 0 || energy < SILENCE * WINDOW as f32 {
            return false;
        }
        if let Some(lag) = self.lag {
            let near = lag.saturating_sub(LAG_SLACK)..=(lag + LAG_SLACK).min(LAG_MAX);
            let found = self.best(near, energy);
            if found.share > SHARE_KNOWN {
                self.follow(found, energy);
                return true;
            }
            let usual = self.coupling * found.agent;
            if found.share > SHARE_QUIET && energy < 2.0 * usual {
                return true;
            }
            self.until_search = self.until_search.saturating_sub(1);
            if self.until_search > 0 {
                return false;
            }
            self.until_search = SEARCH_EVERY;
        }
        let found = self.search(energy);
        if found.share < SHARE_ANEW {
            return false;
        }
        if found.lag.abs_diff(self.candidate) <= LAG_SLACK {
            self.follow(found, energy);
        }
        self.candidate = found.lag;
        true
    }

    fn follow(&mut self, found: Match, energy: f32) {
        self.lag = Some(found.lag);
        self.until_search = SEARCH_EVERY;
        self.coupling = energy / found.agent.max(1.0);
    }

    /// Looks at every delay at 2 kHz, then closely at the best one.
    fn search(&self, energy: f32) -> Match {
        let mut caller = [0.0; WINDOW / 2];
        halve(&self.caller, &mut caller);
        let own = dot(&caller, &caller);
        let coarse = best(&self.agent_coarse, &caller, 0..=LAG_MAX / 2, own);
        let near = (2 * coarse.lag).saturating_sub(3)..=(2 * coarse.lag + 3).min(LAG_MAX);
        self.best(near, energy)
    }

    fn best(&self, lags: RangeInclusive<usize>, energy: f32) -> Match {
        best(&self.agent, &self.caller, lags, energy)
    }
}

/// The delay at which the end of `agent` is most like `caller`, whose energy is given.
fn best(agent: &[f32], caller: &[f32], lags: RangeInclusive<usize>, energy: f32) -> Match {
    let mut best = Match { lag: *lags.start(), share: 0.0, agent: 0.0 };
    for lag in lags {
        let end = agent.len() - lag;
        let said = &agent[end - caller.len()..end];
        let alike = dot(said, caller);
        let own = dot(said, said);
        let share = alike * alike / (energy.max(1.0) * own.max(1.0));
        if share > best.share {
            best = Match { lag, share, agent: own };
        }
    }
    best
}

/// Half the rate.
fn halve(from: &[f32], to: &mut [f32]) {
    to.iter_mut().zip(from.chunks_exact(2)).for_each(|(to, pair)| *to = (pair[0] + pair[1]) / 2.0);
}

/// In eight lanes, so that the compiler may use vectors without reordering a sum.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for lane in 0..8 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum()
}

const TAPS: usize = 33;

/// A low-pass at 1.6 kHz that keeps every fourth sample.
struct LowPass {
    taps: [f32; TAPS],
    /// The end of the frame before, and the frame.
    line: [f32; TAPS - 1 + FRAME_SAMPLES],
}

impl LowPass {
    fn new() -> Self {
        let mut taps: [f32; TAPS] = core::array::from_fn(|at| {
            use core::f32::consts::PI;
            let x = at as f32 - (TAPS / 2) as f32;
            let turn = 2.0 * PI * 1600.0 / 16_000.0;
            let sinc = if x == 0.0 { turn / PI } else { (turn * x).sin() / (PI * x) };
            sinc * (0.54 - 0.46 * (2.0 * PI * at as f32 / (TAPS - 1) as f32).cos())
        });
        let sum: f32 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap /= sum);
        Self { taps, line: [0.0; TAPS - 1 + FRAME_SAMPLES] }
    }

    fn decimate(&mut self, frame: &[i16; FRAME_SAMPLES], out: &mut [f32]) {
        self.line.copy_within(FRAME_SAMPLES.., 0);
        for (slot, sample) in self.line[TAPS - 1..].iter_mut().zip(frame) {
            *slot = f32::from(*sample);
        }
        for (slot, line) in out.iter_mut().zip(self.line.windows(TAPS).step_by(DECIMATION)) {
            *slot = line.iter().zip(&self.taps).map(|(sample, tap)| sample * tap).sum();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speech;

    /// Frames in which the guard called the caller's voice an echo, and frames with sound.
    fn run(agent: &[i16], caller: &[i16]) -> (usize, usize) {
        let mut guard = EchoGuard::new();
        let (mut echoes, mut voiced) = (0, 0);
        for (said, heard) in agent.chunks_exact(320).zip(caller.chunks_exact(320)) {
            let heard: &[i16; 320] = heard.try_into().unwrap();
            let echo = guard.heard(heard, true);
            let loud = audio::level::dbfs(heard) > -50.0;
            voiced += usize::from(loud);
            echoes += usize::from(echo && loud);
            guard.said(said.try_into().unwrap());
        }
        (echoes, voiced)
    }

    #[test]
    fn a_quieter_copy_is_an_echo_at_any_delay() {
        let agent = speech::agent();
        for db in [-10.0, -15.0, -20.0] {
            for delay_ms in [40, 63, 110, 200, 300] {
                let caller = speech::echo(&agent, delay_ms, db);
                let (echoes, voiced) = run(&agent, &caller);
                assert!(voiced > 30, "{voiced}");
                assert!(echoes * 100 >= voiced * 85, "{db} dB {delay_ms} ms: {echoes}/{voiced}");
            }
        }
    }

    #[test]
    fn a_caller_who_talks_over_the_agent_is_no_echo() {
        let (agent, caller) = (speech::agent(), speech::caller());
        let (echoes, voiced) = run(&agent, &caller);
        assert!(echoes * 100 <= voiced * 20, "without echo: {echoes}/{voiced}");
        let both = speech::mix(&caller, &speech::echo(&agent, 120, -15.0));
        let (echoes, voiced) = run(&agent, &both);
        assert!(echoes * 100 <= voiced * 50, "with echo: {echoes}/{voiced}");
    }

    #[test]
    fn nothing_is_an_echo_while_the_agent_is_silent() {
        let (echoes, voiced) = run(&vec![0; 48_000], &speech::caller());
        assert_eq!((echoes, voiced > 30), (0, true));
    }
}
