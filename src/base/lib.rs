//! Tier 0, the vocabulary every member shares: [ids](id), [time], [randomness](random),
//! [limits](limit), [redaction](redact), [events](event) and the catalogue of call
//! [outcomes](outcome).
//!
//! This member does no I/O, reads no clock and depends on nothing above `alloc`.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod diagnostic;
pub mod event;
pub mod id;
pub mod limit;
pub mod outcome;
pub mod random;
pub mod redact;
pub mod throttle;
pub mod time;

pub use diagnostic::Diagnostic;
pub use event::Event;
pub use id::{CallId, LegId, SessionId, TrunkName, VoiceAgentName, WorkspaceId};
pub use limit::Limit;
pub use outcome::{Blame, Reason};
pub use random::{Random, SeededRandom};
pub use redact::{Personal, Secret};
pub use throttle::Throttle;
pub use time::{Clock, Date, Instant, ManualClock, WallTime};

/// Whether a text may name a caller to others: a number with a plus sign (E.164: 2 to 15 digits),
/// or the user of a SIP address of at most 64 characters that need no escaping there.
#[must_use]
pub fn is_caller(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.strip_prefix('+') {
        Some(digits) => {
            (2..=15).contains(&digits.len()) && digits.chars().all(|c| c.is_ascii_digit())
        }
        None => (1..=64).contains(&text.len()) && text.chars().all(is_plain),
    }
}
