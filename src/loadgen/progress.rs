//! Counts while a load runs.

use std::time::Duration;

/// Where a load stands; watch it through [`crate::Load::progress`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Calls to place in all.
    pub planned: u32,
    /// Calls begun.
    pub placed: u32,
    /// Calls begun and not yet answered or over.
    pub ringing: u32,
    /// Calls that talk now.
    pub talking: u32,
    /// Calls that were answered.
    pub answered: u32,
    /// Calls that failed before or at their answer.
    pub failed: u32,
    /// Calls that are over, however they ended.
    pub over: u32,
    /// Time since the start.
    pub elapsed: Duration,
}
