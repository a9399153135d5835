//! Changes to policy files as an operator would make them: a value replaced, a line added. The rest
//! of the text, comments included, stays as it is.

use core::fmt;
use core::ops::Range;

use base::diagnostic::is_unprintable;
use serde::Serialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::policy::Source;

/// One change to one file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The file.
    pub file: String,
    /// The line that changes, or before which lines are added; counted from 1, after the changes
    /// listed before this one.
    pub line: usize,
    /// What it does, for people.
    pub what: String,
    /// The TOML to write.
    pub toml: String,
    /// The bytes that `text` takes the place of.
    range: Range<usize>,
    /// What is put there, with what separates it from the rest.
    text: String,
}

impl Change {
    /// The text of the file after this change; `None` where it is not the text that the change was
    /// made for.
    #[must_use]
    pub fn apply(&self, text: &str) -> Option<String> {
        let (before, after) = (text.get(..self.range.start)?, text.get(self.range.end..)?);
        Some(format!("{before}{}{after}", self.text))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)?;
        self.toml.lines().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// The texts of a policy while changes are made to them.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) sources: Vec<Source>,
    pub(crate) changes: Vec<Change>,
}

impl Draft {
    pub(crate) fn new(sources: &[Source]) -> Self {
        Self { sources: sources.to_vec(), changes: Vec::new() }
    }

    /// Sets `keys` of trunk `trunk` to `value`, which is TOML. `None` where the file is written
    /// in a way that this cannot follow.
    pub(crate) fn set(
        &mut self,
        file: usize,
        trunk: &str,
        keys: &[&str],
        value: &str,
    ) -> Option<()> {
        let text = &self.sources.get(file)?.text;
        let root = DeTable::parse(text).ok()?;
        let item = root.get_ref().get("trunk")?.get_ref().get(trunk)?;
        let assigned = format!("{} = {value}", keys.join("."));
        let (range, insert, replaces) = match place(text, item, keys)? {
            Found::Value(range) => (range, value.to_owned(), true),
            Found::Inline { at, rest, is_empty } => {
                let comma = if is_empty { " " } else { "," };
                (at..at, format!(" {} = {value}{comma}", rest.join(".")), false)
            }
            Found::Header { after, rest } => {
                let line = format!("{} = {value}\n", rest.join("."));
                let starts_line = text[..after].ends_with('\n');
                (after..after, if starts_line { line } else { format!("\n{line}") }, false)
            }
            Found::Implicit => {
                let end = text.len();
                let header = format!("[trunk.{}]", key(trunk));
                return self.push(
                    file,
                    end..end,
                    format!("\n{header}\n{assigned}\n"),
                    "add".to_owned(),
                    format!("{header}\n{assigned}"),
                );
            }
        };
        let verb = if replaces { "change" } else { "add" };
        self.push(file, range, insert, format!("under [trunk.{}] {verb}", key(trunk)), assigned)
    }

    /// Adds `toml` at the end of a file.
    pub(crate) fn append(&mut self, file: usize, toml: &str) -> Option<()> {
        let text = &self.sources.get(file)?.text;
        let end = text.len();
        let gap = if text.is_empty() || text.ends_with('\n') { "\n" } else { "\n\n" };
        self.push(file, end..end, format!("{gap}{toml}\n"), "add at the end".into(), toml.into())
    }

    /// Adds `toml` before `line`, and before the comments that stand right above it.
    pub(crate) fn insert_before(&mut self, file: usize, line: usize, toml: &str) -> Option<()> {
        let source = self.sources.get(file)?;
        let (text, starts) = (&source.text, source.line_starts());
        let mut index = line.checked_sub(1)?;
        while index > 0 && text.get(*starts.get(index - 1)?..)?.trim_start().starts_with('#') {
            index -= 1;
        }
        let at = *starts.get(index)?;
        self.push(file, at..at, format!("{toml}\n\n"), "add before this line".into(), toml.into())
    }

    fn push(
        &mut self,
        file: usize,
        range: Range<usize>,
        insert: String,
        what: String,
        toml: String,
    ) -> Option<()> {
        let source = self.sources.get_mut(file)?;
        let line = source.text.get(..range.start)?.matches('\n').count() + 1;
        let change = Change { file: source.name.clone(), line, what, toml, range, text: insert };
        source.text = change.apply(&source.text)?;
        self.changes.push(change);
        Some(())
    }
}

/// A value as a TOML string; what could drive a terminal is escaped.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for it in text.chars() {
        match it {
            '"' | '\\' => quoted.extend(['\\', it]),
            _ if is_unprintable(it) => quoted += &format!("\\U{:08x}", u32::from(it)),
            _ => quoted.push(it),
        }
    }
    quoted + "\""
}

/// A list of strings as TOML.
pub(crate) fn list<T: ToString>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| quoted(&word.to_string())).collect();
    format!("[{}]", words.join(", "))
}

/// A name as a TOML key.
pub(crate) fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}

enum Found<'k> {
    /// The value is there.
    Value(Range<usize>),
    /// The rest of the keys goes into this inline table.
    Inline { at: usize, rest: &'k [&'k str], is_empty: bool },
    /// The rest of the keys goes under this header.
    Header { after: usize, rest: &'k [&'k str] },
    /// Only parts of the trunk have headers.
    Implicit,
}

/// Follows `keys` from the trunk's table and finds where to write. A table of dotted keys has no
/// place of its own; what goes into it is written, dotted too, where the table around it is.
fn place<'k>(text: &str, item: &Spanned<DeValue<'_>>, keys: &'k [&'k str]) -> Option<Found<'k>> {
    let mut open = Found::Implicit;
    let mut here = item;
    for depth in 0..=keys.len() {
        let DeValue::Table(table) = here.get_ref() else {
            return (depth == keys.len()).then(|| Found::Value(here.span()));
        };
        let rest = &keys[depth..];
        let span = here.span();
        let written = text.get(span.clone())?;
        if written.starts_with('{') {
            if rest.is_empty() {
                return Some(Found::Value(span));
            }
            open = Found::Inline { at: span.start + 1, rest, is_empty: table.is_empty() };
        } else if written.starts_with('[') {
            let line_end = text.get(span.end..)?.find('\n');
            let after = line_end.map_or(text.len(), |at| span.end + at + 1);
            open = Found::Header { after, rest };
        }
        match rest.first().and_then(|key| table.get(*key)) {
            Some(below) => here = below,
            None => break,
        }
    }
    Some(open)
}
