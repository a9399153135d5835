//! What is wrong with a file that people write, and where: file, line, column, the line itself
//! with a mark under the place, and what to write instead.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;

/// Something found in a file. `Display` is the place and message, the line, and a mark under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file's name, as the user knows it.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// The text of the line.
    pub source_line: String,
    /// How many characters the mark covers, at least 1.
    pub width: usize,
}

impl Diagnostic {
    /// A finding at the bytes `span` of `text`; a span outside of it is brought inside.
    #[must_use]
    pub fn new(
        file: &str,
        text: &str,
        span: &Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[line_start..];
        let source_line = rest.lines().next().unwrap_or_default();
        let column = text[line_start..start].chars().count() + 1;
        let room = (source_line.chars().count() + 1).saturating_sub(column);
        let width = text[start..end].chars().take_while(|it| *it != '\n').count();
        Self {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column,
            message: message.into(),
            help,
            source_line: source_line.to_owned(),
            width: width.min(room).max(1),
        }
    }

    /// The same with what `word` was probably meant to be among `known`, if anything is close.
    #[must_use]
    pub fn did_you_mean(mut self, word: &str, known: &[&str]) -> Self {
        if let Some(close) = closest(word, known) {
            self.help = Some(format!("did you mean `{close}`?"));
        }
        self
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, kind: &str) -> fmt::Result {
        writeln!(f, "{}:{}:{}: {kind}: {}", self.file, self.line, self.column, self.message)?;
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        // Control characters of a file must not reach a terminal; a tab keeps its width of one.
        let shown = |it: char| if is_unprintable(it) { ' ' } else { it };
        let line: String = self.source_line.chars().map(shown).collect();
        writeln!(f, " {gutter} |")?;
        writeln!(f, " {number} | {line}")?;
        let (indent, mark) = (" ".repeat(self.column - 1), "^".repeat(self.width));
        write!(f, " {gutter} | {indent}{mark}")?;
        match &self.help {
            Some(help) => write!(f, " {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, "error")
    }
}

impl core::error::Error for Diagnostic {}

/// Something in a file that loads but deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub Diagnostic);

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f, "warning")
    }
}

/// Every reason why a file did not load; never empty. `Display` shows them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(pub Vec<Diagnostic>);

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.0 {
            writeln!(f, "{finding}\n")?;
        }
        match self.0.len() {
            1 => f.write_str("1 error"),
            count => write!(f, "{count} errors"),
        }
    }
}

impl core::error::Error for Errors {}

fn floor_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// Control characters, and marks that change the direction of text, by which a value could pose as
/// another.
#[must_use]
pub fn is_unprintable(it: char) -> bool {
    let turns =
        matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    it.is_control() || turns
}

/// The candidate that `word` most likely means.
#[must_use]
pub fn closest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase();
    candidates
        .iter()
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "did you mean" or, where nothing is close, what there is.
#[must_use]
pub fn suggest(word: &str, candidates: &[&str]) -> Option<String> {
    if let Some(close) = closest(word, candidates) {
        return Some(format!("did you mean `{close}`?"));
    }
    let shown = candidates.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", ");
    (!candidates.is_empty()).then(|| format!("there is {shown}"))
}

/// serde's message about a file in words for its writer, and a suggestion from the words that it
/// expected.
#[must_use]
pub fn reword(message: &str) -> (String, Option<String>) {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((word, candidates)) = quoted.split_first() else {
        return (message.to_owned(), None);
    };
    if message.starts_with("unknown field") {
        (format!("unknown key `{word}`"), suggest(word, candidates))
    } else if message.starts_with("unknown variant") {
        (format!("unknown word `{word}`"), suggest(word, candidates))
    } else if message.starts_with("missing field") {
        (format!("`{word}` is missing"), None)
    } else {
        (message.to_owned(), None)
    }
}

/// Insertions, deletions, replacements and swaps of neighbours between two words (optimal string
/// alignment). Words are cut, so that the time is bounded.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = core::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_finds_its_word() {
        let keys = ["transports", "transcript", "from", "srtp", "codecs"];
        for (typo, meant) in
            [("transprots", "transports"), ("codec", "codecs"), ("Form", "from"), ("stp", "srtp")]
        {
            assert_eq!(closest(typo, &keys), Some(meant));
        }
        assert_eq!(closest("banana", &keys), None);
    }

    #[test]
    fn a_finding_shows_the_line_with_a_mark_under_the_place() {
        let text = "a = 1\n\tb = \"é\", x\n";
        let at = text.find('x').unwrap();
        let finding =
            Diagnostic::new("p.toml", text, &(at..at + 1), "no x", Some("drop it".into()));
        assert_eq!((finding.line, finding.column), (2, 11));
        let shown = "p.toml:2:11: error: no x\n   |\n 2 |  b = \"é\", x\n   |           ^ drop it";
        assert_eq!(finding.to_string(), shown);
    }

    #[test]
    fn no_span_is_out_of_bounds() {
        for text in ["", "é", "\n", "a\r\n"] {
            for start in 0..6 {
                for end in 0..6 {
                    let finding = Diagnostic::new("f", text, &(start..end), "m", None);
                    assert!(finding.to_string().contains('^'));
                }
            }
        }
    }
}
