//! How a call stands and why it ended, in words: the same on the page of all calls and on its own.

use base::{Blame, Reason};
use vault::{CallState, CallSummary};

/// What is said of a call's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// For the style.
    pub(super) class: &'static str,
    /// How it stands, in a word or two.
    pub(super) state: &'static str,
    /// Why it ended, where that is catalogued.
    reason: Option<Reason>,
}

impl Outcome {
    pub(super) fn of(call: &CallSummary) -> Self {
        let code = call.reason.as_deref();
        let reason = code.and_then(|code| Reason::ALL.iter().find(|it| it.code() == code).copied());
        let (class, state) = match call.state {
            CallState::InProgress => ("live", "in progress"),
            CallState::Lost => ("failed", "lost"),
            CallState::Ended if reason.is_some_and(has_failed) => ("failed", "failed"),
            CallState::Ended => ("ended", "ended"),
        };
        Self { class, state, reason }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.class == "failed"
    }

    /// The cause without its area, as words.
    pub(super) fn cause(&self) -> String {
        match self.reason {
            Some(reason) => words(reason),
            None if self.state == "lost" => "the edge stopped".to_owned(),
            None => String::new(),
        }
    }

    /// What to look at.
    pub(super) fn hint(&self) -> &'static str {
        match self.reason {
            Some(reason) => reason.hint(),
            None if self.state == "lost" => {
                "the edge ended while this call went on: look at its log before this time"
            }
            None => "",
        }
    }

    /// Who has to act, where somebody has to.
    pub(super) fn whose(&self) -> Option<&'static str> {
        let reason = self.reason.filter(|_| self.has_failed())?;
        Some(whose(reason.blame()))
    }
}

/// Every way in which a call fails.
pub(super) fn failures() -> impl Iterator<Item = Reason> {
    Reason::ALL.iter().copied().filter(|reason| has_failed(*reason))
}

/// Whether a call that ended so is one that somebody may have to look at.
fn has_failed(reason: Reason) -> bool {
    reason.blame() != Blame::Nobody && reason.sip_status() >= 400
}

/// A reason's cause: the code without its area, as words.
pub(super) fn words(reason: Reason) -> String {
    let code = reason.code();
    code.split_once('.').map_or(code, |(_, cause)| cause).replace('_', " ")
}

pub(super) const fn whose(blame: Blame) -> &'static str {
    match blame {
        Blame::Nobody => "nobody",
        Blame::Peer => "the peer",
        Blame::Policy => "this edge's policy",
        Blame::Edge => "this edge",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_well_has_not_failed_and_what_was_refused_has() {
        let well = [Reason::CallerHungUp, Reason::Cancelled, Reason::MaximumDuration];
        assert!(well.iter().all(|reason| !failures().any(|it| it == *reason)));
        let ill = [Reason::NoRoute, Reason::Busy, Reason::EdgeCallLimit, Reason::Internal];
        assert!(ill.iter().all(|reason| failures().any(|it| it == *reason)));
        assert_eq!(words(Reason::NoRoute), "no route");
    }
}
