//! Errors in files that people write: where, what, and what was probably meant.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The file loads; its author should know.
    Warning,
    /// The file does not load.
    Error,
}

/// One finding in one file. `Display` prints it with the source line and a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// The file's name as the user gave it.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be guessed.
    pub suggestion: Option<String>,
    /// The line itself.
    source_line: String,
    /// Characters to underline.
    width: usize,
}

impl Diagnostic {
    /// An error at the bytes `span` of `text`.
    #[must_use]
    pub fn error(file: &str, text: &str, span: core::ops::Range<usize>, message: &str) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        Self {
            level: Level::Error,
            file: file.to_string(),
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            message: message.to_string(),
            suggestion: None,
            source_line: text[line_start..line_end].trim_end().to_string(),
            width: text[start..end.min(line_end)].chars().count().max(1),
        }
    }

    /// The same as a warning.
    #[must_use]
    pub fn into_warning(mut self) -> Self {
        self.level = Level::Warning;
        self
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<String>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Adds `did you mean "..."?` where one of `known` is close to `word`.
    #[must_use]
    pub fn did_you_mean<'a>(self, word: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        match closest(word, known) {
            Some(near) => self.suggest(format!("did you mean \"{near}\"?")),
            None => self,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Warning => "warning",
            Level::Error => "error",
        };
        let Self { file, line, column, message, .. } = self;
        writeln!(f, "{file}:{line}:{column}: {level}: {message}")?;
        let number = line.to_string();
        let (pad, gap) = (" ".repeat(number.len()), " ".repeat(column.saturating_sub(1)));
        writeln!(f, " {number} | {}", self.source_line)?;
        write!(f, " {pad} | {gap}{}", "^".repeat(self.width))?;
        match &self.suggestion {
            Some(suggestion) => write!(f, " {suggestion}"),
            None => Ok(()),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// The word of `known` that `word` was probably meant to be: at most a third of it mistyped.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Damerau-Levenshtein distance (adjacent letters swapped count once), in characters.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut current = Vec::with_capacity(b.len() + 1);
        current.push(i + 1);
        for (j, y) in b.iter().enumerate() {
            let substitution = previous[j] + usize::from(x != y);
            let mut best = substitution.min(previous[j + 1] + 1).min(current[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            current.push(best);
        }
        before = core::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_the_line_a_caret_and_a_guess() {
        let text = "[trunk.acme]\ntransprots = [\"tls\"]\n";
        let found = Diagnostic::error("a.toml", text, 13..23, "unknown key `transprots`")
            .did_you_mean("transprots", ["from", "transports", "zone"]);
        assert_eq!(
            found.to_string(),
            "a.toml:2:1: error: unknown key `transprots`\n 2 | transprots = [\"tls\"]\n   | \
             ^^^^^^^^^^ did you mean \"transports\"?"
        );
    }

    #[test]
    fn what_is_far_off_is_not_guessed() {
        assert_eq!(closest("zebra", ["transports", "codecs"]), None);
        assert_eq!(closest("codec", ["transports", "codecs"]), Some("codecs"));
    }

    #[test]
    fn spans_outside_the_text_do_not_panic() {
        for span in [0..0, 3..900, 900..901] {
            let _ = Diagnostic::error("x", "a\u{e9}b", span, "m").to_string();
        }
    }
}
