//! Text to the types of [`super::file`]: syntax, unknown keys, and settings from the command line.
//!
//! Settings are read as if they stood behind the file's text, so that every span says whether it is
//! the file's or a setting's.

use std::ops::Range;

use base::Diagnostic;
use base::diagnostic::{Errors, reword};
use base::limit::LOADGEN_SCENARIO_BYTES;
use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::file::ScenarioFile;

/// A file's text and the settings over it.
pub(super) struct Source<'a> {
    file: &'a str,
    text: &'a str,
    /// Each setting as `key = value`, with where it begins behind the file.
    settings: Vec<(usize, String)>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a str, text: &'a str, words: &[String]) -> Result<Self, Errors> {
        let mut source = Self { file, text, settings: Vec::new() };
        let size = words.iter().map(String::len).fold(text.len(), usize::saturating_add);
        if size > LOADGEN_SCENARIO_BYTES.get() {
            let (bytes, name) = (LOADGEN_SCENARIO_BYTES.value, LOADGEN_SCENARIO_BYTES.name);
            let message = format!("the scenario is longer than {bytes} bytes (limit {name})");
            return Err(source.errors(0..0, message, None));
        }
        let mut start = text.len() + 1;
        for word in words {
            let written = setting(word);
            let length = written.len();
            source.settings.push((start, written));
            start += length + 1;
        }
        Ok(source)
    }

    /// A finding at `span`.
    pub(super) fn diagnostic(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Diagnostic {
        let setting = self.settings.iter().rev().find(|(start, _)| *start <= span.start);
        match setting {
            Some((start, text)) if span.start >= self.text.len() => {
                let span = span.start - start..span.end.saturating_sub(*start);
                Diagnostic::new("--set", text, &span, message, help)
            }
            _ => Diagnostic::new(self.file, self.text, &span, message, help),
        }
    }

    pub(super) fn errors(
        &self,
        span: Range<usize>,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Errors {
        Errors(vec![self.diagnostic(span, message, help)])
    }

    /// The file's name without its folder and ending.
    pub(super) fn stem(&self) -> String {
        let path = std::path::Path::new(self.file);
        path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// `key=value` as TOML: a value that is none as it stands is a text.
fn setting(word: &str) -> String {
    let Some((key, value)) = word.split_once('=') else { return word.to_owned() };
    let plain = format!("{} = {}", key.trim(), value.trim());
    let (_, errors) = DeTable::parse_recoverable(&plain);
    if errors.is_empty() {
        return plain;
    }
    let quoted = value.trim().replace('\\', "\\\\").replace('"', "\\\"");
    format!("{} = \"{quoted}\"", key.trim())
}

/// Reads the source; stops at the first error.
pub(super) fn parse(source: &Source<'_>) -> Result<ScenarioFile, Errors> {
    let mut root = table(source, source.text)?;
    // Leading spaces move a setting's spans behind the file.
    let padded: Vec<String> = source
        .settings
        .iter()
        .map(|(start, text)| format!("{}{text}", " ".repeat(*start)))
        .collect();
    for (text, (start, written)) in padded.iter().zip(&source.settings) {
        if !written.contains('=') {
            let span = *start..*start + written.len();
            let help = Some("write --set key=value, as in --set limits.calls=5".to_owned());
            return Err(source.errors(span, format!("`{written}` sets nothing"), help));
        }
        let over = table(source, text)?;
        merge(&mut root, over).map_err(|span| {
            let message = "there is no such place to set";
            let help =
                Some("the stages, callers and actors count from 0, as in stage.0.rate=5".into());
            source.errors(span, message, help)
        })?;
    }
    let value = Spanned::new(0..source.text.len(), DeValue::Table(root));
    ScenarioFile::deserialize(ValueDeserializer::from(value)).map_err(|error| {
        let (message, help) = reword(error.message());
        source.errors(error.span().unwrap_or(0..0), message, help)
    })
}

fn table<'t>(source: &Source<'_>, text: &'t str) -> Result<DeTable<'t>, Errors> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(table.into_inner());
    }
    let findings = errors
        .iter()
        .map(|error| source.diagnostic(error.span().unwrap_or(0..0), error.message(), None));
    Err(Errors(findings.collect()))
}

/// Puts `over` over `table`; numbers name the places of a list.
fn merge<'t>(table: &mut DeTable<'t>, over: DeTable<'t>) -> Result<(), Range<usize>> {
    for (key, value) in over {
        let span = key.span();
        let known = table.iter_mut().find(|(known, _)| known.get_ref() == key.get_ref());
        match (known.map(|(_, known)| known), value) {
            (Some(known), value) => merge_value(known, value, span)?,
            (None, value) => {
                table.insert(key, value);
            }
        }
    }
    Ok(())
}

fn merge_value<'t>(
    known: &mut Spanned<DeValue<'t>>,
    value: Spanned<DeValue<'t>>,
    span: Range<usize>,
) -> Result<(), Range<usize>> {
    let place = value.span();
    match (known.get_mut(), value.into_inner()) {
        (DeValue::Table(known), DeValue::Table(over)) => merge(known, over),
        (DeValue::Array(known), DeValue::Table(over)) => {
            for (key, value) in over {
                let span = key.span();
                let index: Option<usize> = key.get_ref().parse().ok();
                let place = index.and_then(|it| known.get_mut(it)).ok_or_else(|| span.clone())?;
                merge_value(place, value, span)?;
            }
            Ok(())
        }
        (DeValue::Table(_), _) => Err(span),
        (_, other) => {
            *known = Spanned::new(place, other);
            Ok(())
        }
    }
}
