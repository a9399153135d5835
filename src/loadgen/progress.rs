//! Counts while a load or a scenario runs.

use std::time::Duration;

/// Where a run stands; watch it through [`crate::Load::progress`] or
/// [`crate::ScenarioRun::progress`]. Counts change as calls do, the rest each second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Time since the start.
    pub elapsed: Duration,
    /// The time that the stages ask for.
    pub planned_time: Duration,
    /// Calls to place in all; 0 in a run that only answers.
    pub planned: u32,
    /// Calls begun.
    pub placed: u32,
    /// Calls begun and not yet answered or over.
    pub ringing: u32,
    /// Calls that talk now.
    pub talking: u32,
    /// Calls that were answered.
    pub answered: u32,
    /// Calls that failed and were not meant to.
    pub failed: u32,
    /// Calls that are over, however they ended.
    pub over: u32,
    /// Calls of others that were taken.
    pub taken: u32,
    /// Calls of others that talk with us now.
    pub serving: u32,
    /// The median set-up time of the last second, in milliseconds.
    pub setup_p50_ms: Option<f64>,
    /// RTP packets per second, both ways.
    pub packets_per_second: f64,
    /// Whether the load tester itself has been behind.
    pub is_behind: bool,
}
