//! Scenarios: what callers, callees and bad actors do, how often, and what is expected of it.
//!
//! The path of a file: text and `--set` words -> [`read`] (syntax, unknown keys) -> [`compile`]
//! (meaning, limits) -> [`Scenario`]. Every error has its place and a suggestion.

mod compile;
mod expect;
mod file;
mod read;
mod sound;
#[cfg(test)]
mod tests;
mod words;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use audio::Codec;
use base::diagnostic::Errors;
use base::{Random, Secret};
use rtp::Suite;

pub use self::expect::{Comparison, Expectation, Measure};
pub(crate) use self::sound::Sound;
pub use self::sound::SoundError;
use crate::cause::Cause;
use crate::config::{OfferMode, Protection, Target, Tls, Transport};
use crate::script::Script;

/// A scenario, ready to run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name; the file's without a name of its own.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What its random choices follow from.
    pub(crate) seed: u64,
    pub(crate) outward: Option<Outward>,
    pub(crate) limits: Limits,
    pub(crate) stages: Vec<Stage>,
    pub(crate) callers: Vec<CallerKind>,
    pub(crate) callee: Option<Callee>,
    pub(crate) actors: Vec<Actor>,
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) sounds: Vec<Sound>,
}

impl Scenario {
    /// Reads a scenario. `settings` are words such as `limits.calls=5`, which win over the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its place.
    pub fn read(file: &str, text: &str, settings: &[String]) -> Result<Self, Errors> {
        let source = read::Source::new(file, text, settings)?;
        let parsed = read::parse(&source)?;
        compile::compile(&source, parsed)
    }

    /// What is expected of it.
    #[must_use]
    pub fn expectations(&self) -> &[Expectation] {
        &self.expectations
    }

    /// Whether it calls anybody; otherwise it only answers.
    #[must_use]
    pub const fn calls_out(&self) -> bool {
        !self.stages.is_empty() || !self.actors.is_empty()
    }

    /// Calls that were due once this time had passed.
    pub(crate) fn due_by(&self, elapsed: Duration) -> u32 {
        let (mut sum, mut left) = (0.0, elapsed);
        for stage in &self.stages {
            sum += stage.calls_by(left);
            left = left.saturating_sub(stage.time);
        }
        // The first is due at once.
        (sum as u32).saturating_add(1).min(self.planned())
    }

    /// The time that the stages ask for.
    pub(crate) fn time(&self) -> Duration {
        self.stages.iter().fold(Duration::ZERO, |sum, it| sum.saturating_add(it.time))
    }

    /// Calls that the stages ask for, at most the limit.
    #[must_use]
    pub fn planned(&self) -> u32 {
        // A little more, so that 10 s at 1 per second are ten calls.
        let sum = self.stages.iter().map(Stage::calls).sum::<f64>() + 1e-6;
        let stages = if sum >= f64::from(u32::MAX) { u32::MAX } else { sum.floor() as u32 };
        stages.min(self.limits.calls)
    }
}

/// Where calls go.
#[derive(Clone, Debug)]
pub(crate) struct Outward {
    pub(crate) to: Called,
    pub(crate) from: Option<String>,
    pub(crate) tls: Tls,
    pub(crate) connections: u32,
    /// What browsers prove themselves with.
    pub(crate) token: Option<Secret<String>>,
    pub(crate) media_address: Option<IpAddr>,
}

/// Whom a call is to reach. `{token}` in its user part becomes the number of the call, by which
/// the callee of the same run knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) text: String,
    pub(crate) target: Target,
}

/// What stands for a call's number in an address.
pub(crate) const TOKEN: &str = "{token}";
/// Digits of a call's number.
pub(crate) const TOKEN_DIGITS: usize = 7;

impl Called {
    pub(crate) fn has_token(&self) -> bool {
        self.text.contains(TOKEN)
    }

    /// The address of call `token`.
    pub(crate) fn of(&self, token: u32) -> Target {
        if !self.has_token() {
            return self.target.clone();
        }
        let number = format!("{token:0width$}", width = TOKEN_DIGITS);
        // It was read once with other digits.
        Target::parse(&self.text.replace(TOKEN, &number)).unwrap_or_else(|_| self.target.clone())
    }
}

/// The bounds of a run.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) calls: u32,
    pub(crate) concurrency: u32,
    pub(crate) duration: Duration,
    pub(crate) setup_timeout: Duration,
    pub(crate) media_threads: Option<u32>,
}

/// A time in which calls arrive at a rate that changes evenly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stage {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) time: Duration,
}

impl Stage {
    /// Calls that arrive in it.
    pub(crate) fn calls(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.time.as_secs_f64()
    }

    /// Calls that arrive in the first part of it.
    fn calls_by(&self, time: Duration) -> f64 {
        let share = time.as_secs_f64().min(self.time.as_secs_f64());
        let slope = (self.to - self.from) / self.time.as_secs_f64().max(1e-9);
        (self.from + slope / 2.0 * share) * share
    }

    /// When the `n`-th call of it (from 0, fractions allowed) arrives.
    pub(crate) fn arrival(&self, n: f64) -> Duration {
        let time = self.time.as_secs_f64().max(1e-9);
        let slope = (self.to - self.from) / time;
        // n = from * t + slope / 2 * t^2, in the form that is stable where the slope is small.
        let root = (self.from * self.from + 2.0 * slope * n).max(0.0).sqrt();
        let at = if self.from + root > 0.0 { 2.0 * n / (self.from + root) } else { 0.0 };
        Duration::try_from_secs_f64(at.clamp(0.0, time)).unwrap_or(self.time)
    }
}

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Times {
    /// Always the same.
    Fixed(Duration),
    /// Anything between two times.
    Uniform(Duration, Duration),
    /// Exponential with this mean, cut at ten times it.
    Exponential(Duration),
}

impl Times {
    /// One of them.
    pub(crate) fn draw(&self, random: &mut dyn Random) -> Duration {
        let share = f64::from(random.u32()) / f64::from(u32::MAX);
        match self {
            Self::Fixed(time) => *time,
            Self::Uniform(least, most) => *least + most.saturating_sub(*least).mul_f64(share),
            Self::Exponential(mean) => mean.mul_f64((-(1.0 - share).max(4.5e-5).ln()).min(10.0)),
        }
    }

    /// The longest.
    pub(crate) fn most(&self) -> Duration {
        match self {
            Self::Fixed(time) | Self::Uniform(_, time) => *time,
            Self::Exponential(mean) => mean.saturating_mul(10),
        }
    }
}

/// What media a kind of caller or callee can do and does.
#[derive(Clone, Debug)]
pub(crate) struct Voice {
    pub(crate) codecs: Vec<Codec>,
    pub(crate) ptime_ms: u16,
    /// From one packet to the next, of one who is mostly silent.
    pub(crate) every_ms: Option<u16>,
    pub(crate) protection: Protection,
    pub(crate) suites: Vec<Suite>,
    pub(crate) rtcp_mux: bool,
    pub(crate) says: Says,
}

/// What a caller or callee says.
#[derive(Clone, Debug)]
pub(crate) enum Says {
    /// One of the scenario's sounds, whatever the far end does.
    Sound { index: usize, repeats: bool },
    /// What a script says, which may wait for the far end. It begins with the answer.
    Script(Arc<Talk>),
}

/// A caller that listens and talks.
#[derive(Clone, Debug)]
pub(crate) struct Talk {
    pub(crate) script: Script,
    /// Where to write what is heard.
    pub(crate) save: Option<PathBuf>,
    /// Whether there are several calls, each with a file of its own.
    pub(crate) is_one_of_many: bool,
}

impl Talk {
    /// `heard.wav`, or `heard-N.wav` where there are several calls.
    pub(crate) fn save_path(&self, index: u32) -> Option<PathBuf> {
        let path = self.save.as_deref()?;
        if !self.is_one_of_many {
            return Some(path.to_owned());
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        let name = match extension.as_ref() {
            "" => format!("{stem}-{index}"),
            extension => format!("{stem}-{index}.{extension}"),
        };
        Some(path.parent().unwrap_or(Path::new("")).join(name))
    }
}

/// How keys are pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyForm {
    /// RTP events.
    Rfc4733,
    /// SIP INFO.
    Info,
    /// Tones in the audio.
    Inband,
}

/// Keys to press.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    pub(crate) digits: String,
    pub(crate) form: KeyForm,
    pub(crate) after: Duration,
    /// Which sound has their tones.
    pub(crate) sound: Option<usize>,
}

/// One kind of caller.
#[derive(Clone, Debug)]
pub(crate) struct CallerKind {
    pub(crate) name: String,
    pub(crate) weight: u32,
    pub(crate) to: Option<Called>,
    pub(crate) from: Option<String>,
    pub(crate) voice: Voice,
    pub(crate) offer: OfferMode,
    pub(crate) talk: Times,
    /// Whether it waits for the far end to hang up, for `talk` at most.
    pub(crate) waits: bool,
    /// What it tells with its BYE or CANCEL.
    pub(crate) cause: Option<Cause>,
    pub(crate) cancel_after: Option<Times>,
    pub(crate) keys: Option<Keys>,
    pub(crate) on_hold: Option<(Duration, Duration)>,
}

/// The callee's side of a run.
#[derive(Clone, Debug)]
pub(crate) struct Callee {
    pub(crate) listen: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) authority: Option<PathBuf>,
    pub(crate) kinds: Vec<CalleeKind>,
}

/// How a callee takes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taking {
    /// It answers.
    Answer(Times),
    /// It refuses with this status.
    Refuse(u16, Times),
    /// It rings until the caller gives up.
    Never,
}

/// One kind of callee.
#[derive(Clone, Debug)]
pub(crate) struct CalleeKind {
    pub(crate) name: String,
    pub(crate) weight: u32,
    pub(crate) ring_after: Option<Duration>,
    pub(crate) early_media: bool,
    pub(crate) taking: Taking,
    pub(crate) hang_up_after: Option<Times>,
    /// What it tells with its BYE or refusal.
    pub(crate) cause: Option<Cause>,
    pub(crate) voice: Voice,
}

/// What a bad actor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    /// INVITEs without TLS.
    PlaintextInvite,
    /// INVITEs at a rate, each given up at once.
    InviteFlood,
    /// Messages that are no SIP, or that lie about themselves.
    MalformedSip,
    /// TCP connections that never finish a TLS handshake.
    HalfOpenTls,
    /// RTP of a stranger to a call's media port.
    StrangerRtp,
    /// A call's own SRTP packets, sent again.
    SrtpReplay,
}

/// One bad actor.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) kind: ActorKind,
    pub(crate) name: String,
    pub(crate) start: Duration,
    pub(crate) time: Duration,
    pub(crate) rate: f64,
    pub(crate) count: u32,
    pub(crate) to: Option<Target>,
    /// Which kind of caller it attacks.
    pub(crate) caller: usize,
    pub(crate) from: Option<IpAddr>,
    /// How long it is there before the caller's own first packet.
    pub(crate) before: Duration,
    /// Outcomes that are well; empty: everything but getting through.
    pub(crate) allow: Vec<String>,
}

/// Which of the kinds, by their weights.
pub(crate) fn choose(weights: impl Iterator<Item = u32> + Clone, random: &mut dyn Random) -> usize {
    let sum: u32 = weights.clone().fold(0, u32::saturating_add);
    let mut ticket = random.below(sum.max(1));
    for (index, weight) in weights.enumerate() {
        if ticket < weight {
            return index;
        }
        ticket -= weight;
    }
    0
}

/// Says words: 16 kHz PCM, or why not.
pub type Speak<'a> = dyn FnMut(&str) -> Result<Arc<[i16]>, String> + 'a;

/// The sounds of a scenario as PCM, in their order. `speak` says words.
///
/// # Errors
/// A file cannot be read, or words cannot be spoken.
pub fn sounds(scenario: &Scenario, speak: &mut Speak<'_>) -> Result<Vec<Arc<[i16]>>, SoundError> {
    scenario.sounds.iter().map(|sound| sound.pcm(speak)).collect()
}
