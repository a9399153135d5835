//! Turns of the transcript, and where an interrupted one is cut.

use std::time::Duration;

use base::Personal;
use media::TAP_RATE;

/// Who spoke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaking {
    /// The caller.
    Caller,
    /// The voice agent.
    Agent,
}

/// One finished turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Who spoke.
    pub speaking: Speaking,
    /// What was said, as far as it was heard; pressed keys as `[keys 12]`.
    pub text: Personal<String>,
    /// From the start of the call's media to the turn's first sound.
    pub start: Duration,
    /// From the start of the call's media to its last.
    pub end: Duration,
    /// Whether the other party cut it short.
    pub interrupted: bool,
    /// An agent's turn: from the end of the caller's speech to the first sound of the answer.
    pub latency: Option<Duration>,
}

/// The time of a sample position.
#[must_use]
pub fn at(position: u64) -> Duration {
    const NANOS_PER_SAMPLE: u64 = 1_000_000_000 / TAP_RATE as u64;
    Duration::from_nanos(position.saturating_mul(NANOS_PER_SAMPLE))
}

/// The words of `text` that were heard when `played` of `total` samples went out.
///
/// Synthesised speech runs at an even pace, so the cut is in proportion to the letters; a word
/// that was cut in the middle counts as unheard.
#[must_use]
pub fn heard(text: &str, played: u64, total: u64) -> &str {
    if played >= total {
        return text;
    }
    let letters = text.chars().filter(|letter| letter.is_alphanumeric()).count() as u64;
    let mut left = letters.saturating_mul(played) / total.max(1);
    let mut end = 0;
    for (index, word) in text.split_inclusive(char::is_whitespace).scan(0, |at, word| {
        *at += word.len();
        Some((*at, word))
    }) {
        let size = word.chars().filter(|letter| letter.is_alphanumeric()).count() as u64;
        if size > left {
            break;
        }
        left -= size;
        end = index;
    }
    text[..end].trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_become_times() {
        assert_eq!(at(16_000), Duration::from_secs(1));
        assert_eq!(at(320), Duration::from_millis(20));
        assert_eq!(at(0), Duration::ZERO);
    }

    #[test]
    fn a_cut_falls_between_words() {
        let text = "Hello, this is callgate.";
        assert_eq!(heard(text, 100, 100), text);
        assert_eq!(heard(text, 0, 100), "");
        assert_eq!(heard(text, 50, 100), "Hello, this");
        assert_eq!(heard(text, 99, 100), "Hello, this is");
        assert_eq!(heard("", 1, 0), "");
    }
}
