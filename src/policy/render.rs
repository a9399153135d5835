//! An explanation as text.

use core::fmt;

use base::Reason;
use base::diagnostic::is_unprintable;

use crate::decision::{Decision, Destination, Note, Target, Terms, Verdict};
use crate::explain::{Explanation, RouteTried, TrunkTried};

/// How many trunks or routes are printed; a policy may have thousands.
const SHOWN: usize = 20;

/// How many characters of a value from outside are printed.
const SHOWN_CHARS: usize = 128;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = self.call.iter();
        if let Some(first) = lines.next() {
            writeln!(f, "{first}")?;
        }
        lines.try_for_each(|line| writeln!(f, "  {line}"))?;

        writeln!(f, "\nTrunks, the first that matches is the caller")?;
        some_of(f, &self.trunks, |it| it.matches, trunk_line)?;
        if !self.steps.is_empty() {
            writeln!(f, "\nChecks, the first that fails decides")?;
            for step in &self.steps {
                writeln!(f, "  {} {:<11} {}", mark(step.passes), step.stage, step.why)?;
            }
            writeln!(f, "\nRoutes, the first that matches decides")?;
            let near = |it: &RouteTried| it.matches || Some(it.number) == self.closest;
            some_of(f, &self.routes, near, route_line)?;
        }
        if let Some(closest) = self.closest {
            writeln!(f, "  closest: route {closest}")?;
        }
        writeln!(f)?;
        verdict(f, &self.decision)?;
        self.way_out(f)
    }
}

impl Explanation {
    fn way_out(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_accepted = self.decision.accepted().is_some();
        match &self.change {
            Some(changes) => {
                let verb = if is_accepted { "refuse" } else { "accept" };
                writeln!(f, "\nSmallest change of the policy that would {verb} it")?;
                for change in changes {
                    let text = change.to_string();
                    text.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
                }
            }
            None if self.advice.is_none() => {
                writeln!(f, "\nNo single change of the policy would flip this.")?;
            }
            None => {}
        }
        match &self.advice {
            Some(advice) if self.change.is_some() => writeln!(f, "\nBetter, if you can: {advice}."),
            Some(advice) => writeln!(f, "\nWhat helps: {advice}."),
            None => Ok(()),
        }
    }
}

fn verdict(f: &mut fmt::Formatter<'_>, decision: &Decision) -> fmt::Result {
    match &decision.verdict {
        Verdict::Accept(accepted) => {
            let place = match &accepted.destination {
                Destination::Agent { name } => format!("voice agent {}", clean(name.as_str())),
                Destination::Trunk { targets } => {
                    format!("trunk {}", joined(targets.iter().map(|target| &target.trunk)))
                }
            };
            writeln!(f, "Verdict: ACCEPTED, to {place}")?;
            if let Destination::Trunk { targets } = &accepted.destination {
                targets.iter().try_for_each(|target| target_line(f, target))?;
            }
            let terms = &accepted.terms;
            writeln!(
                f,
                "  srtp {}, codecs {}, recording {}, transcript {}",
                terms.srtp_inbound,
                joined(&terms.codecs),
                terms.recording,
                terms.transcript
            )?;
            if !terms.dtls_library.is_usual() {
                writeln!(f, "  dtls_library {}", terms.dtls_library)?;
            }
        }
        Verdict::Refuse(refusal) => {
            let answer = if refusal.silent {
                "silently".to_owned()
            } else {
                format!("with {}", refusal.status)
            };
            writeln!(f, "Verdict: REFUSED {answer}, {}", refusal.reason)?;
            // The hint of these two is to run what is running.
            if !matches!(refusal.reason, Reason::NoRoute | Reason::RefusedByRoute) {
                writeln!(f, "  {}", refusal.reason.hint())?;
            }
            if !refusal.silent {
                let told = if refusal.tell { "is" } else { "is not" };
                writeln!(f, "  the peer {told} told the reason")?;
            }
        }
    }
    for note in &decision.notes {
        let text = match note {
            Note::KeysExposed => "SRTP keys cross plaintext signalling: the call can be overheard",
            Note::PlaintextMediaAllowed => "the call may run without SRTP, under an exemption",
        };
        writeln!(f, "  note: {text}")?;
    }
    Ok(())
}

/// How long a target is waited for, and when the next one is tried.
fn target_line(f: &mut fmt::Formatter<'_>, target: &Target) -> fmt::Result {
    let Terms { first_response, ring, .. } = &target.terms;
    let (first, ring) = (first_response.as_secs(), ring.as_secs());
    let after = joined(&target.failover);
    let name = &target.trunk;
    writeln!(f, "  {name}: first response within {first}s, rings {ring}s, failover after {after}")
}

fn trunk_line(f: &mut fmt::Formatter<'_>, it: &TrunkTried) -> fmt::Result {
    writeln!(f, "  {} {} ({}): {}", mark(it.matches), it.name, it.place, it.why)
}

fn route_line(f: &mut fmt::Formatter<'_>, it: &RouteTried) -> fmt::Result {
    let name = it.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
    writeln!(f, "  {} {}{name} ({}): {}", mark(it.matches), it.number, it.place, it.why)
}

/// Prints the first ones and those that matter.
fn some_of<T>(
    f: &mut fmt::Formatter<'_>,
    all: &[T],
    matters: impl Fn(&T) -> bool,
    line: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    if all.is_empty() {
        return writeln!(f, "  there are none");
    }
    let mut hidden = 0_usize;
    for (index, it) in all.iter().enumerate() {
        if index < SHOWN || matters(it) {
            line(f, it)?;
        } else {
            hidden += 1;
        }
    }
    if hidden > 0 {
        writeln!(f, "  and {hidden} more that do not match")?;
    }
    Ok(())
}

const fn mark(good: bool) -> &'static str {
    if good { "yes" } else { "no " }
}

/// A list for people; `-` where it is empty.
pub(crate) fn joined<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| word.to_string()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join(", ") }
}

/// A value from outside, safe for a terminal and not longer than a line.
pub(crate) fn clean(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN_CHARS)
        .map(|it| if is_unprintable(it) { '\u{fffd}' } else { it })
        .collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}
